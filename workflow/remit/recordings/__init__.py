"""Files to recordings: the cohort sheet, one reader per format in a registry, and the simulation.

This floor may import remit's errors, naming and config, and nothing above them. `cohort`, `scan`
and `registry` import only the standard library and those, because Snakemake imports them whenever
it parses the workflow; the readers load MNE, scipy and pyarrow when they are called.
"""
