"""Where the real recordings are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real recordings; a test that needs it skips where it is absent."""
    beside = Path(__file__).resolve().parents[4] / "shared" / "data"
    folder = Path(os.environ.get("REMIT_SHARED_DATA", beside))
    if not (folder / "README.md").is_file():
        pytest.skip(f"no real recordings at {folder}; set REMIT_SHARED_DATA to their folder")
    return folder
