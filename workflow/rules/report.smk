# Fine-tuned models -> one page per model, one table for a sweep.


rule model_report:
    input:
        card=naming.PATTERNS["finetuned_card"],
        predictions=naming.pattern("predictions", cohort=PLAN.config.cohort),
        primary=naming.path("primary", dataset=PLAN.dataset),
        split=naming.path("split", dataset=PLAN.dataset),
        diagnostics=PLAN.diagnostics(),
    output:
        page=report(
            naming.PATTERNS["model_report"],
            category="Model",
            labels={"model": "{model}", "what": "page: the fine-tuned model"},
            caption="../report/model_report.rst",
        ),
        curves=report(
            naming.PATTERNS["history"],
            category="Model",
            labels={"model": "{model}", "what": "training curves"},
            caption="../report/training_curves.rst",
        ),
    log:
        "results/logs/model_report/{model}.log",
    benchmark:
        "results/benchmarks/model_report/{model}.tsv"
    conda:
        "../../envs/remit.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        settings=PLAN.report_settings(),
    shell:
        "remit report --settings {params.settings:q} --card {input.card:q} --predictions {input.predictions:q} --primary {input.primary:q} --split {input.split:q} --diagnostics {input.diagnostics:q} --page {output.page:q} --curves {output.curves:q} 2>&1 | tee {log:q}"


rule comparison:
    input:
        cards=expand(naming.PATTERNS["finetuned_card"], model=PLAN.sweep_models()),
        pages=expand(naming.PATTERNS["model_report"], model=PLAN.sweep_models()),
    output:
        table=naming.PATTERNS["comparison"],
        parquet=naming.PATTERNS["comparison_parquet"],
        page=report(
            naming.PATTERNS["comparison_page"],
            category="Sweep",
            labels={"what": "comparison"},
            caption="../report/comparison.rst",
        ),
        picture=report(
            naming.PATTERNS["comparison_picture"],
            category="Sweep",
            labels={"what": "mask ratio and style"},
            caption="../report/sweep.rst",
        ),
    log:
        "results/logs/comparison.log",
    benchmark:
        "results/benchmarks/comparison.tsv"
    conda:
        "../../envs/remit.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        settings=PLAN.comparison_settings(),
    shell:
        "remit compare --settings {params.settings:q} --cards {input.cards:q} --pages {input.pages:q} --table {output.table:q} --parquet {output.parquet:q} --page {output.page:q} --picture {output.picture:q} 2>&1 | tee {log:q}"


# It reads what the jobs before it have left; the default model's page is only what it waits for.
rule run_resources:
    input:
        naming.path("model_report", model=str(PLAN.default_model)),
    output:
        table=naming.PATTERNS["run_resources_table"],
        figure=report(
            naming.PATTERNS["run_resources"],
            category="Run",
            labels={"what": "run time and memory"},
            caption="../report/run_resources.rst",
        ),
    log:
        "results/logs/run_resources.log",
    benchmark:
        "results/benchmarks/run_resources.tsv"
    conda:
        "../../envs/remit.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        settings=PLAN.run_resources_settings(),
    shell:
        "remit run-resources --settings {params.settings:q} --benchmarks results/benchmarks --table {output.table:q} --figure {output.figure:q} 2>&1 | tee {log:q}"
