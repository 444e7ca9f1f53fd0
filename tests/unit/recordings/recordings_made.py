"""Small things that the tests of recordings make, and how they look at an error."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import remit
from remit.errors import RemitError
from remit.recordings.cohort import SheetRow
from remit.recordings.recording import Recording, Segment


def row_of(path: Path, **others: object) -> SheetRow:
    """A sheet row for one file."""
    values = {"participant": "p1", "recording": "p1_rest", **others}
    return SheetRow(path=str(path), **values)  # type: ignore[arg-type]


def one_line(call: Callable[[], object]) -> str:
    """The message of the RemitError that a call raises, checked to be one line."""
    with pytest.raises(RemitError) as caught:
        call()
    message = str(caught.value)
    assert message and "\n" not in message and "Traceback" not in message
    return message


def loaded_by(code: str, *modules: str) -> str:
    """Which of these modules a new interpreter has loaded after running the code."""
    code = f"import sys\n{code}\nprint(*{set(modules)!r} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(Path(remit.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def made_recording(**changes: object) -> Recording:
    """A small sound recording, with the given fields changed."""
    values: dict[str, object] = {
        "participant": "p1",
        "recording": "p1_rest",
        "signal_CS": np.arange(200, dtype=np.float32).reshape(2, 100),
        "sampling_rate": 100.0,
        "channels": ("AF7", "AF8"),
        "segments": (Segment(0, 60, 0.0), Segment(60, 100, 5.0)),
        "prewindowed": False,
        "simulated": False,
        "source_sha256": "",
        "left_out": (),
        "notes": (),
    }
    return Recording(**(values | changes))  # type: ignore[arg-type]
