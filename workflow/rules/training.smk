# Primary dataset and split -> pretrained backbone -> fine-tuned classifier.


rule pretrain:
    input:
        primary=naming.path("primary", dataset=PLAN.dataset),
        split=naming.path("split", dataset=PLAN.dataset),
        corpora=PLAN.corpora(),
    output:
        naming.PATTERNS["pretrained"],
    log:
        "results/logs/pretrain/{model}.log",
    benchmark:
        "results/benchmarks/pretrain/{model}.tsv"
    wildcard_constraints:
        model=PLAN.pretrainable(),
    conda:
        "../../envs/remit.yaml"
    threads: PLAN.config.execution.training_threads
    resources:
        mem_mb=PLAN.config.execution.training_mem_mb,
        runtime=PLAN.config.execution.training_runtime_min,
        gpu=PLAN.config.execution.gpu,
    params:
        settings=lambda w: PLAN.pretrain_settings(w.model),
    shell:
        "remit pretrain --settings {params.settings:q} --primary {input.primary:q} --split {input.split:q} --corpora {input.corpora:q} --output {output:q} 2>&1 | tee {log:q}"


rule finetune:
    input:
        backbone=lambda w: PLAN.backbone(w.model),
        primary=naming.path("primary", dataset=PLAN.dataset),
        split=naming.path("split", dataset=PLAN.dataset),
    output:
        checkpoint=naming.PATTERNS["finetuned"],
        card=naming.PATTERNS["finetuned_card"],
        predictions=naming.pattern("predictions", cohort=PLAN.config.cohort),
    log:
        "results/logs/finetune/{model}.log",
    benchmark:
        "results/benchmarks/finetune/{model}.tsv"
    conda:
        "../../envs/remit.yaml"
    threads: PLAN.config.execution.training_threads
    resources:
        mem_mb=PLAN.config.execution.training_mem_mb,
        runtime=PLAN.config.execution.training_runtime_min,
        gpu=PLAN.config.execution.gpu,
    params:
        settings=lambda w: PLAN.finetune_settings(w.model),
    shell:
        "remit finetune --settings {params.settings:q} --backbone {input.backbone:q} --primary {input.primary:q} --split {input.split:q} --output {output.checkpoint:q} --predictions {output.predictions:q} 2>&1 | tee {log:q}"
