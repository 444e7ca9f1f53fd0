# Windows -> primary dataset -> split by participant.


rule primary_dataset:
    input:
        sheet=naming.path("cohort_sheet", cohort=PLAN.config.cohort),
        windows=PLAN.all_windows(PLAN.config.cohort),
    output:
        naming.path("primary", dataset=PLAN.dataset),
    log:
        f"results/logs/primary/{PLAN.dataset}.log",
    benchmark:
        f"results/benchmarks/primary/{PLAN.dataset}.tsv"
    conda:
        "../../envs/remit.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        settings=PLAN.primary_settings(PLAN.config.cohort),
    shell:
        "remit primary --settings {params.settings:q} --sheet {input.sheet:q} --output {output:q} 2>&1 | tee {log:q}"


rule corpus:
    input:
        sheet=naming.PATTERNS["cohort_sheet"],
        windows=lambda w: PLAN.all_windows(w.cohort),
    output:
        naming.PATTERNS["corpus"],
    log:
        "results/logs/corpora/{cohort}/{dataset}.log",
    benchmark:
        "results/benchmarks/corpora/{cohort}/{dataset}.tsv"
    conda:
        "../../envs/remit.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        settings=lambda w: PLAN.primary_settings(w.cohort),
    shell:
        "remit primary --settings {params.settings:q} --sheet {input.sheet:q} --output {output:q} 2>&1 | tee {log:q}"


rule split:
    input:
        naming.path("primary", dataset=PLAN.dataset),
    output:
        naming.path("split", dataset=PLAN.dataset),
    log:
        f"results/logs/split/{PLAN.dataset}.log",
    benchmark:
        f"results/benchmarks/split/{PLAN.dataset}.tsv"
    conda:
        "../../envs/remit.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        settings=PLAN.split_settings(),
    shell:
        "remit split --settings {params.settings:q} --primary {input:q} --output {output:q} 2>&1 | tee {log:q}"
