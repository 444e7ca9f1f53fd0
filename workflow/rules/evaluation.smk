# Folds of participants -> backbones that have not seen them -> embeddings, features -> an answer.


rule folds:
    input:
        naming.path("primary", dataset=PLAN.dataset),
    output:
        naming.path("folds", dataset=PLAN.dataset),
    log:
        f"results/logs/folds/{PLAN.dataset}.log",
    benchmark:
        f"results/benchmarks/folds/{PLAN.dataset}.tsv"
    conda:
        "../../envs/remit.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        settings=lambda w: PLAN.folds_settings(),
    shell:
        "remit folds --settings {params.settings:q} --primary {input:q} --output {output:q} 2>&1 | tee {log:q}"


rule fold_split:
    input:
        naming.path("primary", dataset=PLAN.dataset),
    output:
        naming.pattern("fold_split", dataset=PLAN.dataset),
    log:
        f"results/logs/fold_split/{PLAN.dataset}_r{{repeat}}f{{fold}}.log",
    benchmark:
        f"results/benchmarks/fold_split/{PLAN.dataset}_r{{repeat}}f{{fold}}.tsv"
    conda:
        "../../envs/remit.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        settings=lambda w: PLAN.fold_split_settings(w.repeat, w.fold),
    shell:
        "remit fold-split --settings {params.settings:q} --primary {input:q} --output {output:q} 2>&1 | tee {log:q}"


rule pretrain_fold:
    input:
        primary=naming.path("primary", dataset=PLAN.dataset),
        split=naming.pattern("fold_split", dataset=PLAN.dataset),
        corpora=PLAN.corpora(),
    output:
        naming.PATTERNS["pretrained_fold"],
    log:
        "results/logs/pretrain_fold/{model}_r{repeat}f{fold}.log",
    benchmark:
        "results/benchmarks/pretrain_fold/{model}_r{repeat}f{fold}.tsv"
    conda:
        "../../envs/remit.yaml"
    threads: PLAN.config.execution.training_threads
    resources:
        mem_mb=PLAN.config.execution.training_mem_mb,
        runtime=PLAN.config.execution.training_runtime_min,
        gpu=PLAN.config.execution.gpu,
    params:
        settings=lambda w: PLAN.pretrain_settings(w.model, of_fold=True),
    shell:
        "remit pretrain --settings {params.settings:q} --primary {input.primary:q} --split {input.split:q} --corpora {input.corpora:q} --output {output:q} 2>&1 | tee {log:q}"


rule embed:
    input:
        backbone=lambda w: PLAN.backbone(w.model),
        primary=naming.path("primary", dataset=PLAN.dataset),
    output:
        naming.PATTERNS["embeddings"],
    log:
        "results/logs/embed/{model}.log",
    benchmark:
        "results/benchmarks/embed/{model}.tsv"
    conda:
        "../../envs/remit.yaml"
    threads: PLAN.config.execution.training_threads
    resources:
        mem_mb=PLAN.config.execution.training_mem_mb,
        runtime=60,
    params:
        settings=lambda w: PLAN.embed_settings(w.model),
    shell:
        "remit embed --settings {params.settings:q} --backbone {input.backbone:q} --primary {input.primary:q} --output {output:q} 2>&1 | tee {log:q}"


rule embed_random:
    input:
        naming.path("primary", dataset=PLAN.dataset),
    output:
        naming.PATTERNS["embeddings_random"],
    log:
        "results/logs/embed_random/{model}.log",
    benchmark:
        "results/benchmarks/embed_random/{model}.tsv"
    conda:
        "../../envs/remit.yaml"
    threads: PLAN.config.execution.training_threads
    resources:
        mem_mb=PLAN.config.execution.training_mem_mb,
        runtime=60,
    params:
        settings=lambda w: PLAN.embed_random_settings(w.model),
    shell:
        "remit embed --settings {params.settings:q} --primary {input:q} --output {output:q} 2>&1 | tee {log:q}"


rule embed_fold:
    input:
        backbone=naming.PATTERNS["pretrained_fold"],
        primary=naming.path("primary", dataset=PLAN.dataset),
        split=naming.pattern("fold_split", dataset=PLAN.dataset),
    output:
        naming.PATTERNS["embeddings_fold"],
    log:
        "results/logs/embed_fold/{model}_r{repeat}f{fold}.log",
    benchmark:
        "results/benchmarks/embed_fold/{model}_r{repeat}f{fold}.tsv"
    conda:
        "../../envs/remit.yaml"
    threads: PLAN.config.execution.training_threads
    resources:
        mem_mb=PLAN.config.execution.training_mem_mb,
        runtime=60,
    params:
        settings=lambda w: PLAN.embed_settings(w.model, repeat=w.repeat, fold=w.fold),
    shell:
        "remit embed --settings {params.settings:q} --backbone {input.backbone:q} --primary {input.primary:q} --split {input.split:q} --output {output:q} 2>&1 | tee {log:q}"


rule features:
    input:
        naming.path("primary", dataset=PLAN.dataset),
    output:
        naming.path("features", dataset=PLAN.dataset),
    log:
        f"results/logs/features/{PLAN.dataset}.log",
    benchmark:
        f"results/benchmarks/features/{PLAN.dataset}.tsv"
    conda:
        "../../envs/remit.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        settings=lambda w: PLAN.features_settings(),
    shell:
        "remit features --settings {params.settings:q} --primary {input:q} --output {output:q} 2>&1 | tee {log:q}"


rule evaluate:
    input:
        embeddings=lambda w: PLAN.embeddings(w.model),
        backbones=lambda w: PLAN.finetuned_backbones(w.model),
        random=naming.PATTERNS["embeddings_random"],
        features=naming.path("features", dataset=PLAN.dataset),
        primary=naming.path("primary", dataset=PLAN.dataset),
        folds=naming.path("folds", dataset=PLAN.dataset),
        sheet=naming.path("cohort_sheet", cohort=PLAN.config.cohort),
    output:
        naming.PATTERNS["evaluation"],
    log:
        "results/logs/evaluate/{model}.log",
    benchmark:
        "results/benchmarks/evaluate/{model}.tsv"
    conda:
        "../../envs/remit.yaml"
    threads: PLAN.config.execution.training_threads
    resources:
        mem_mb=PLAN.config.execution.training_mem_mb,
        runtime=PLAN.evaluate_runtime_min,
        gpu=PLAN.evaluate_gpu,
    params:
        settings=lambda w: PLAN.evaluate_settings(w.model),
    shell:
        "remit evaluate --settings {params.settings:q} --embeddings {input.embeddings:q} --backbones {input.backbones:q} --random {input.random:q} --features {input.features:q} --primary {input.primary:q} --folds {input.folds:q} --sheet {input.sheet:q} --output {output:q} 2>&1 | tee {log:q}"


rule evaluation_table:
    input:
        expand(naming.PATTERNS["evaluation"], model=PLAN.sweep_models()),
    output:
        table=naming.path("evaluation_table"),
        picture=report(
            naming.path("evaluation_picture"),
            category="Sweep",
            labels={"what": "mask ratio and style, by cross-validation"},
            caption="../report/sweep_evaluation.rst",
        ),
    log:
        "results/logs/evaluation_table.log",
    benchmark:
        "results/benchmarks/evaluation_table.tsv"
    conda:
        "../../envs/remit.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        settings=PLAN.evaluation_table_settings(),
    shell:
        "remit evaluation-table --settings {params.settings:q} --reports {input:q} --table {output.table:q} --picture {output.picture:q} 2>&1 | tee {log:q}"


rule evaluation_page:
    input:
        naming.PATTERNS["evaluation"],
    output:
        page=report(
            naming.PATTERNS["evaluation_page"],
            category="Evaluation",
            labels={"model": "{model}", "what": "page: everything"},
            caption="../report/evaluation.rst",
        ),
        candidates=report(
            naming.PATTERNS["evaluation_candidates"],
            category="Evaluation",
            labels={"model": "{model}", "what": "the model beside all others"},
            caption="../report/candidates.rst",
        ),
        differences=report(
            naming.PATTERNS["evaluation_differences"],
            category="Evaluation",
            labels={"model": "{model}", "what": "model minus each other"},
            caption="../report/differences.rst",
        ),
        roc=report(
            naming.PATTERNS["evaluation_roc"],
            category="Evaluation",
            labels={"model": "{model}", "what": "ROC with its band"},
            caption="../report/roc.rst",
        ),
        calibration=report(
            naming.PATTERNS["evaluation_calibration"],
            category="Evaluation",
            labels={"model": "{model}", "what": "calibration"},
            caption="../report/calibration.rst",
        ),
        participants=report(
            naming.PATTERNS["evaluation_participants"],
            category="Evaluation",
            labels={"model": "{model}", "what": "participants' probabilities"},
            caption="../report/participants.rst",
        ),
        subgroups=report(
            naming.PATTERNS["evaluation_subgroups"],
            category="Evaluation",
            labels={"model": "{model}", "what": "groups"},
            caption="../report/subgroups.rst",
        ),
    log:
        "results/logs/evaluation_page/{model}.log",
    benchmark:
        "results/benchmarks/evaluation_page/{model}.tsv"
    conda:
        "../../envs/remit.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        settings=PLAN.evaluation_page_settings(),
    shell:
        "remit evaluation-page --settings {params.settings:q} --report {input:q} --page {output.page:q} --candidates {output.candidates:q} --differences {output.differences:q} --roc {output.roc:q} --calibration {output.calibration:q} --participants {output.participants:q} --subgroups {output.subgroups:q} 2>&1 | tee {log:q}"


rule model_card:
    input:
        report=naming.PATTERNS["evaluation"],
        backbone=lambda w: PLAN.backbone(w.model),
        primary=naming.path("primary", dataset=PLAN.dataset),
        sheet=naming.path("cohort_sheet", cohort=PLAN.config.cohort),
    output:
        report(
            naming.PATTERNS["model_card"],
            category="Evaluation",
            labels={"model": "{model}", "what": "model card"},
            caption="../report/model_card.rst",
        ),
    log:
        "results/logs/model_card/{model}.log",
    benchmark:
        "results/benchmarks/model_card/{model}.tsv"
    conda:
        "../../envs/remit.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        settings=PLAN.model_card_settings(),
    shell:
        "remit model-card --settings {params.settings:q} --report {input.report:q} --backbone {input.backbone:q} --primary {input.primary:q} --sheet {input.sheet:q} --card {output:q} 2>&1 | tee {log:q}"


rule head:
    input:
        embeddings=naming.PATTERNS["embeddings"],
        primary=naming.path("primary", dataset=PLAN.dataset),
        folds=naming.path("folds", dataset=PLAN.dataset),
        report=naming.PATTERNS["evaluation"],
    output:
        naming.PATTERNS["head"],
    log:
        "results/logs/head/{model}.log",
    benchmark:
        "results/benchmarks/head/{model}.tsv"
    conda:
        "../../envs/remit.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        settings=lambda w: PLAN.head_settings(),
    shell:
        "remit head --settings {params.settings:q} --embeddings {input.embeddings:q} --primary {input.primary:q} --folds {input.folds:q} --report {input.report:q} --output {output:q} 2>&1 | tee {log:q}"


rule predict_new:
    input:
        head=naming.PATTERNS["head"],
        backbone=lambda w: PLAN.backbone(w.model),
        corpus=naming.pattern("corpus", dataset=PLAN.dataset),
    output:
        naming.PATTERNS["predictions_new"],
    log:
        "results/logs/predict/{model}/{cohort}.log",
    benchmark:
        "results/benchmarks/predict/{model}/{cohort}.tsv"
    conda:
        "../../envs/remit.yaml"
    threads: PLAN.config.execution.training_threads
    resources:
        mem_mb=PLAN.config.execution.training_mem_mb,
        runtime=60,
    params:
        settings=lambda w: PLAN.predict_settings(w.cohort),
    shell:
        "remit predict-cohort --settings {params.settings:q} --head {input.head:q} --backbone {input.backbone:q} --corpus {input.corpus:q} --output {output:q} 2>&1 | tee {log:q}"
