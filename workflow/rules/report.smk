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
            category="Models",
            labels={"model": "{model}", "what": "report"},
            caption="../report/model_report.rst",
        ),
        curves=report(
            naming.PATTERNS["history"],
            category="Models",
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
        expand(naming.PATTERNS["finetuned_card"], model=PLAN.sweep_models()),
    output:
        table=naming.PATTERNS["comparison"],
        page=report(
            naming.PATTERNS["comparison_page"],
            category="Sweep",
            labels={"what": "comparison"},
            caption="../report/comparison.rst",
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
        settings=PLAN.report_settings(),
    shell:
        "remit compare --settings {params.settings:q} --cards {input:q} --table {output.table:q} --page {output.page:q} 2>&1 | tee {log:q}"
