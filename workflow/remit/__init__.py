"""remit: from raw EEG to an honest answer about participants."""

__version__ = "0.1.0"
