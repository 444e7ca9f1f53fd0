"""The resumable state of a training, kept beside the output and removed at success.

Snakemake deletes the declared outputs of a failed job; this folder is not declared, which is what
lets an interrupted training go on. A state is keyed by everything that shapes the result, in its
file's name too: one that was made under other settings is never continued, and never overwritten.
"""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from zipfile import BadZipFile, ZipFile

import torch

from remit.errors import RemitError
from remit.files import atomic_write, remove_leftovers
from remit.training.checkpoint import UNREADABLE, write_tensors
from remit.training.memory import ran_out
from remit.training.ranks import ALONE, Ranks

_KEY_DIGITS = 16  # of the SHA-256 of the settings, in the file's name


class Stateful(Protocol):
    """A module, an optimiser or a schedule."""

    def state_dict(self) -> dict[str, Any]:
        """What it holds."""

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any:
        """Take what another one held."""


def first_difference(found: Any, expected: Any, key: str = "") -> tuple[str, Any, Any] | None:
    """The first key, in order of name, in which two nested settings differ, and both its values."""
    if isinstance(found, Mapping) and isinstance(expected, Mapping):
        for name in sorted({*found, *expected}):
            place = f"{key}.{name}" if key else str(name)
            differs = first_difference(
                found.get(name, "nothing"), expected.get(name, "nothing"), place
            )
            if differs:
                return differs
        return None
    return None if found == expected else (key, found, expected)


def _read(file: Path) -> dict[str, Any]:
    """A state file's content; raises one of ``UNREADABLE`` for any damage."""
    # torch.load takes tensors with a changed byte as they are; the archive knows better.
    with ZipFile(file) as archive:
        broken = archive.testzip()
    if broken:
        raise BadZipFile(f"{broken} is damaged")
    content = torch.load(file, map_location="cpu", weights_only=True)
    if not {"key", "about", "position", "parts", "progress"} <= set(content):
        raise ValueError("it is no state of a training")
    return dict(content)


class TrainingState:
    """Where a training stands: its parts (model, optimiser, …) and its progress.

    Args:
        output: the checkpoint that the training is going to write.
        key: everything that shapes the result; kept in the state, so that a difference can be named.
        parts: what has a ``state_dict``, by name.
        save_seconds: how long :meth:`between_steps` waits between two saves.
        log: takes one line.
        ranks: the processes of the training. The main one writes; all of them save and stop together.
    """

    def __init__(
        self,
        output: Path,
        key: Mapping[str, Any],
        parts: Mapping[str, Stateful],
        save_seconds: float,
        log: Callable[[str], None],
        ranks: Ranks = ALONE,
    ) -> None:
        self.folder = output.with_name(f"{output.name.removesuffix('.pt')}.state")
        self._about = json.dumps(key, sort_keys=True)
        self.key = hashlib.sha256(self._about.encode()).hexdigest()
        self.file = self.folder / f"{self.key[:_KEY_DIGITS]}.pt"
        self._parts = parts
        self._save_seconds = save_seconds
        self._log = log
        self._ranks = ranks
        self._saved_at = time.monotonic()
        self._last = ""  # the position that an interruption goes back to
        self._asked_to_stop = False
        for written in (output, output.with_suffix(".json")):
            remove_leftovers(written)

    def save(self, position: str, progress: Mapping[str, Any], *, ends: bool = False) -> bool:
        """Replace the saved state; ``position`` says in words where the training stands.

        A full disk, or a folder that takes no files, stops nothing: it is said in one line, the state
        saved before stays, and False is returned. ``ends``: the training ends after it. A rank that does
        not write returns True.
        """
        if not self._ranks.main:
            self._saved_at = time.monotonic()
            return True
        content = {
            "key": self.key,
            "about": self._about,
            "position": position,
            "parts": {name: part.state_dict() for name, part in self._parts.items()},
            "progress": dict(progress),
        }
        try:
            with atomic_write(self.file) as temporary:
                write_tensors(temporary, content)
        except (RemitError, OSError, MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not ran_out(error):
                raise
            then = "training goes on, and after an interruption it would"
            if ends:
                then = "SIGTERM: training ends here, and the same command will"
            self._log(
                f"warning: the state at {position} could not be saved ({error or 'no memory'}); "
                f"{then} {self._back}"
            )
            return False
        else:
            self._last = position
            return True
        finally:
            self._saved_at = time.monotonic()  # after a failure too: not again at every step

    @property
    def _back(self) -> str:
        return f"go back to {self._last}" if self._last else "start from the beginning"

    def between_steps(self, snapshot: Callable[[], tuple[str, Mapping[str, Any]]]) -> None:
        """Save when it is time to; when SIGTERM has come, save and leave with exit code 143.

        ``snapshot`` gives what :meth:`save` takes.
        """
        due = time.monotonic() - self._saved_at >= self._save_seconds
        stop, due = self._ranks.any(self._asked_to_stop, due)
        if stop:
            # Saved before anything is said: whoever reads the log may be gone.
            saved = self.save(*snapshot(), ends=True)
            self._ranks.barrier()  # the first rank to end takes the others with it
            if saved:
                self._log(f"SIGTERM: saved at {self._last}; the same command goes on from there")
            raise SystemExit(128 + signal.SIGTERM)
        if due:
            self.save(*snapshot())

    @contextmanager
    def until_saved(self) -> Iterator[None]:
        """Within it SIGTERM, a scheduler's warning, is kept for the next :meth:`between_steps`."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may set handlers
            return

        def ask(_number: int, _frame: object) -> None:
            self._asked_to_stop = True

        before = signal.signal(signal.SIGTERM, ask)
        try:
            yield
            (stop,) = self._ranks.any(self._asked_to_stop)
            if stop:  # after the last step; an epoch's end was saved, if it could be
                self._log(f"SIGTERM: training ends here; the same command will {self._back}")
                raise SystemExit(128 + signal.SIGTERM)
        finally:
            signal.signal(signal.SIGTERM, before)

    def load(self) -> dict[str, Any] | None:
        """Put the saved state into the parts and return its progress.

        None where there is no state of this training: then the parts are as they were, and what was
        found instead is said. A state of other settings is kept under its own name.
        """
        if not self.folder.is_dir():
            return None
        remove_leftovers(self.file)
        if not self.file.exists():
            self._say_what_differs()
            return None
        before = {name: copy.deepcopy(part.state_dict()) for name, part in self._parts.items()}
        try:
            content = _read(self.file)
            if content["about"] != self._about:
                raise ValueError("it holds the state of other settings")
            for name, part in self._parts.items():
                part.load_state_dict(content["parts"][name])
        except UNREADABLE as error:
            for name, part in self._parts.items():
                part.load_state_dict(before[name])
            self._log(
                f"warning: the state {self.file} cannot be read ({type(error).__name__}: it is cut, "
                "damaged or something else); starting from the beginning"
            )
            return None
        self._last = str(content["position"])
        self._log(f"resuming after {self._last} from {self.file}")
        progress: dict[str, Any] = content["progress"]
        return progress

    def _say_what_differs(self) -> None:
        """Name what sets this training apart from the newest state in the folder."""
        others = sorted(self.folder.glob("*.pt"), key=lambda file: file.stat().st_mtime)
        if not others:
            return
        try:
            content = _read(others[-1])
            differs = first_difference(json.loads(content["about"]), json.loads(self._about))
        except UNREADABLE:
            differs = None
        if differs:
            place, found, expected = (str(part)[:200] for part in differs)
            why = f"{place} was {found} and is now {expected}; go back to it to continue"
        else:
            why = "it cannot be read"
        self._log(
            f"the state {others[-1]} is not continued: {why}; it is kept until a training succeeds; "
            "starting from the beginning"
        )

    def remove(self) -> None:
        """Delete the folder, after success."""
        shutil.rmtree(self.folder, ignore_errors=True)
