# Sheet, primary dataset and split -> pictures of the cohort; one raw recording -> the signal chain.


rule cohort_figures:
    input:
        sheet=naming.path("cohort_sheet", cohort=PLAN.config.cohort),
        primary=naming.path("primary", dataset=PLAN.dataset),
        split=lambda w: PLAN.split_if_any(),
    output:
        flow=report(
            naming.path("figure_flow", dataset=PLAN.dataset),
            category="Cohort",
            labels={"dataset": PLAN.dataset, "what": "flow of participants"},
            caption="../report/flow.rst",
        ),
        demographics=report(
            naming.path("figure_demographics", dataset=PLAN.dataset),
            category="Cohort",
            labels={"dataset": PLAN.dataset, "what": "demographics"},
            caption="../report/demographics.rst",
        ),
        quality=report(
            naming.path("figure_quality", dataset=PLAN.dataset),
            category="Cohort",
            labels={"dataset": PLAN.dataset, "what": "quality of the recordings"},
            caption="../report/quality.rst",
        ),
        spectra=report(
            naming.path("figure_spectra", dataset=PLAN.dataset),
            category="Cohort",
            labels={"dataset": PLAN.dataset, "what": "spectra"},
            caption="../report/spectra.rst",
        ),
        split_picture=report(
            naming.path("figure_split", dataset=PLAN.dataset),
            category="Cohort",
            labels={"dataset": PLAN.dataset, "what": "split"},
            caption="../report/split.rst",
        ),
    log:
        f"results/logs/cohort_figures/{PLAN.dataset}.log",
    benchmark:
        f"results/benchmarks/cohort_figures/{PLAN.dataset}.tsv"
    conda:
        "../../envs/remit.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        settings=lambda w: PLAN.cohort_figures_settings(),
    shell:
        "remit cohort-figures --settings {params.settings:q} --sheet {input.sheet:q} --primary {input.primary:q} --split {input.split:q} --flow {output.flow:q} --demographics {output.demographics:q} --quality {output.quality:q} --spectra {output.spectra:q} --split-picture {output.split_picture:q} 2>&1 | tee {log:q}"


rule signal_figure:
    input:
        recording=lambda w: PLAN.source(PLAN.config.cohort, PLAN.recording_to_show()),
        beside=lambda w: PLAN.beside(PLAN.config.cohort, PLAN.recording_to_show()),
    output:
        report(
            naming.path("figure_signal", dataset=PLAN.dataset),
            category="Signal",
            labels={"dataset": PLAN.dataset, "what": "before and after each step"},
            caption="../report/signal.rst",
        ),
    log:
        f"results/logs/signal_figure/{PLAN.dataset}.log",
    benchmark:
        f"results/benchmarks/signal_figure/{PLAN.dataset}.tsv"
    conda:
        "../../envs/remit.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        settings=lambda w: PLAN.signal_figure_settings(),
    shell:
        "remit signal-figure --settings {params.settings:q} --input={input.recording:q} --output {output:q} 2>&1 | tee {log:q}"
