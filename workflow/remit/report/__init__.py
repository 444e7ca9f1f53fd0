"""Report: pages, tables and figures from the files that earlier stages wrote."""
