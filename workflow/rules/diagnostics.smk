# Pretrained backbone -> evidence, on participants that it has not seen.


rule diagnose:
    input:
        backbone=lambda w: PLAN.backbone(w.model),
        primary=naming.path("primary", dataset=PLAN.dataset),
        split=naming.path("split", dataset=PLAN.dataset),
        sheet=naming.path("cohort_sheet", cohort=PLAN.config.cohort),
    output:
        json=naming.PATTERNS["diagnostics"],
        skill=report(
            naming.PATTERNS["diagnostics_skill"],
            category="Models",
            labels={"model": "{model}", "what": "masked skill"},
            caption="../report/diagnostics.rst",
        ),
        bands=report(
            naming.PATTERNS["diagnostics_bands"],
            category="Models",
            labels={"model": "{model}", "what": "masked skill by band"},
            caption="../report/diagnostics.rst",
        ),
    log:
        "results/logs/diagnose/{model}.log",
    benchmark:
        "results/benchmarks/diagnose/{model}.tsv"
    conda:
        "../../envs/remit.yaml"
    threads: PLAN.config.execution.training_threads
    resources:
        mem_mb=PLAN.config.execution.training_mem_mb,
        runtime=60,
    params:
        settings=PLAN.diagnose_settings(),
    shell:
        "remit diagnose --settings {params.settings:q} --backbone {input.backbone:q} --primary {input.primary:q} --split {input.split:q} --sheet {input.sheet:q} --output {output.json:q} --skill {output.skill:q} --bands {output.bands:q} 2>&1 | tee {log:q}"
