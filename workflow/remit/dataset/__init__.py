"""Windows in parquet files, the primary dataset, the split of participants, token sequences."""
