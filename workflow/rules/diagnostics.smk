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
            category="Backbone",
            labels={"model": "{model}", "what": "masked skill"},
            caption="../report/diagnostics.rst",
        ),
        bands=report(
            naming.PATTERNS["diagnostics_bands"],
            category="Backbone",
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


rule backbone_pictures:
    input:
        backbone=lambda w: PLAN.backbone(w.model),
        primary=naming.path("primary", dataset=PLAN.dataset),
        split=naming.path("split", dataset=PLAN.dataset),
        diagnostics=naming.PATTERNS["diagnostics"],
    output:
        checks=report(
            naming.PATTERNS["checks"],
            category="Backbone",
            labels={"model": "{model}", "what": "checks: pass, warn, fail"},
            caption="../report/checks.rst",
        ),
        reconstruction=report(
            naming.PATTERNS["reconstruction"],
            category="Backbone",
            labels={"model": "{model}", "what": "hidden signal beside the truth"},
            caption="../report/reconstruction.rst",
        ),
    log:
        "results/logs/backbone_pictures/{model}.log",
    benchmark:
        "results/benchmarks/backbone_pictures/{model}.tsv"
    conda:
        "../../envs/remit.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        settings=PLAN.backbone_pictures_settings(),
    shell:
        "remit backbone-pictures --settings {params.settings:q} --backbone {input.backbone:q} --primary {input.primary:q} --split {input.split:q} --diagnostics {input.diagnostics:q} --checks {output.checks:q} --reconstruction {output.reconstruction:q} 2>&1 | tee {log:q}"


rule embeddings_picture:
    input:
        embeddings=naming.PATTERNS["embeddings"],
        random=naming.PATTERNS["embeddings_random"],
        primary=naming.path("primary", dataset=PLAN.dataset),
        sheet=naming.path("cohort_sheet", cohort=PLAN.config.cohort),
    output:
        report(
            naming.PATTERNS["embeddings_picture"],
            category="Backbone",
            labels={"model": "{model}", "what": "embeddings in two dimensions"},
            caption="../report/embeddings.rst",
        ),
    log:
        "results/logs/embeddings_picture/{model}.log",
    benchmark:
        "results/benchmarks/embeddings_picture/{model}.tsv"
    conda:
        "../../envs/remit.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        settings=PLAN.embeddings_picture_settings(),
    shell:
        "remit embeddings-picture --settings {params.settings:q} --embeddings {input.embeddings:q} --random {input.random:q} --primary {input.primary:q} --sheet {input.sheet:q} --output {output:q} 2>&1 | tee {log:q}"
