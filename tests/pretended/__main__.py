"""Pytest where a CUDA device is pretended: python -m tests.pretended tests/pretended/inside_cuda.py."""

import sys
import tempfile
from pathlib import Path

from tests.pretended import device

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        device.load(Path(folder))
        device.install()
        import pytest

        sys.exit(pytest.main([*sys.argv[1:], "-p", "no:cacheprovider"]))
