"""One module per file format. A module here that defines `READER` is found by the registry."""
