"""From a recording to filtered windows, in arrays; no file is read or written."""
