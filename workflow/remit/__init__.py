"""remit: from raw EEG to an honest answer about participants."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from remit.evaluation.look import Loaded

__version__ = "0.1.0"


def load(checkpoint: str | Path, primary: str | Path) -> Loaded:
    """A pretrained backbone, to look at with the people of a primary dataset; see `Loaded.look`.

    Checked as everywhere: whole, of this signal, loaded strictly; on the CPU. Raises
    :class:`remit.errors.RemitError`.
    """
    from remit.evaluation.look import Loaded  # importing remit itself costs nothing

    return Loaded(checkpoint, primary)
