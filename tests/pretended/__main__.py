"""Pytest where a CUDA device is pretended: python -m tests.pretended tests/pretended/inside_cuda.py."""

import sys
import tempfile
from pathlib import Path

from tests.pretended import device

CANNOT = 77

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        try:
            device.load(Path(folder))
        except device.CannotPretendError as error:
            print(f"no device can be pretended: {error}")
            sys.exit(CANNOT)
        operations = device.install()
        import pytest

        code = pytest.main([*sys.argv[1:], "-p", "no:cacheprovider"])
        print(f"{operations()} operations on the device")
        sys.exit(code)
