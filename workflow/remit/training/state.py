"""The resumable state of a training, kept beside the output and removed at success.

Snakemake deletes the declared outputs of a failed job; this folder is not declared, which is what
lets an interrupted training go on. It is keyed by everything that shapes the result, so a state made
under other settings is never continued.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from remit.files import atomic_write
from remit.training.checkpoint import UNREADABLE, write_tensors


class TrainingState:
    """The last finished epoch of a training."""

    def __init__(self, output: Path, key: dict[str, Any], log: Callable[[str], None]) -> None:
        self.folder = output.with_name(f"{output.name.removesuffix('.pt')}.state")
        self.key = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        self._log = log

    @property
    def _file(self) -> Path:
        return self.folder / "last.pt"

    def save(self, epoch: int, content: dict[str, Any]) -> None:
        """Replace the saved state by the one after ``epoch``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(self._file) as temporary:
            write_tensors(temporary, {"key": self.key, "epoch": epoch, **content})

    def load(self) -> dict[str, Any] | None:
        """The saved state, or None where there is none that belongs to this training."""
        if not self._file.exists():
            return None
        try:
            content: dict[str, Any] = torch.load(self._file, map_location="cpu", weights_only=True)
        except UNREADABLE as error:
            self._log(
                f"state in {self.folder} cannot be read ({type(error).__name__}); starting from the "
                "beginning"
            )
            return None
        if content.get("key") != self.key:
            self._log(
                f"state in {self.folder} belongs to other settings or data; starting from the beginning"
            )
            return None
        self._log(f"resuming after epoch {content['epoch']} from {self.folder}")
        return content

    def remove(self) -> None:
        """Delete the folder, after success."""
        shutil.rmtree(self.folder, ignore_errors=True)
