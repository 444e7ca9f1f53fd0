# Raw recordings -> filtered windows, one parquet file per recording.


rule simulate:
    output:
        naming.PATTERNS["simulated"],
    log:
        "results/logs/simulate/{cohort}/{recording}.log",
    benchmark:
        "results/benchmarks/simulate/{cohort}/{recording}.tsv"
    conda:
        "../../envs/remit.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        settings=lambda w: PLAN.simulate_settings(w.cohort, w.recording),
    shell:
        "remit simulate --settings {params.settings:q} --output {output:q} 2>&1 | tee {log:q}"


rule cohort_sheet:
    input:
        lambda w: PLAN.sheet_source(w.cohort),
    output:
        naming.PATTERNS["cohort_sheet"],
    log:
        "results/logs/cohort_sheet/{cohort}.log",
    benchmark:
        "results/benchmarks/cohort_sheet/{cohort}.tsv"
    conda:
        "../../envs/remit.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        settings=lambda w: PLAN.sheet_settings(w.cohort),
    shell:
        "remit cohort sheet --settings {params.settings:q} --output {output:q} 2>&1 | tee {log:q}"


rule windows:
    input:
        recording=lambda w: PLAN.source(w.cohort, PLAN.row(w.cohort, w.recording)),
        beside=lambda w: PLAN.beside(w.cohort, PLAN.row(w.cohort, w.recording)),
    output:
        naming.PATTERNS["windows"],
    log:
        "results/logs/windows/{cohort}/{recording}.log",
    benchmark:
        "results/benchmarks/windows/{cohort}/{recording}.tsv"
    conda:
        "../../envs/remit.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        settings=lambda w: PLAN.windows_settings(w.cohort, w.recording),
    shell:
        "remit windows --settings {params.settings:q} --input={input.recording:q} --output {output:q} 2>&1 | tee {log:q}"
