"""What the files beside a recording say of it: BIDS channels.tsv and eeg.json."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from remit.recordings.recording import Recording


def with_sidecars(recording: Recording, path: Path) -> Recording:
    """The recording with what its BIDS sidecars say; the same recording where there are none."""
    return recording
