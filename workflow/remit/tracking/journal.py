"""What one run is to hold, as a file of lines: written by its process, sent when somebody takes it.

Knows nothing of MLflow.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Kept free in each journal for how its run ended: the disk may be full then.
_ROOM = (json.dumps({"room": " " * 120}) + "\n").encode()


class BusyError(Exception):
    """Another process that is alive writes this journal."""


class Journal:
    """What one run is to hold: entries numbered in their order, and which of them were sent.

    One process writes it at a time: it holds a lock that ends with the process, however that ends.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.files = file.with_suffix(".files")  # copies of what is to be stored
        file.parent.mkdir(parents=True, exist_ok=True)
        self._out = file.open("a+b", buffering=0)
        try:
            fcntl.flock(self._out, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(self._out.fileno()), file.stat()):
                raise FileNotFoundError  # sent and removed, between the two lines above
        except (BlockingIOError, FileNotFoundError):
            self._out.close()
            raise BusyError from None
        self._guard = threading.Lock()
        self.header: dict[str, Any] = {}
        self.entries: dict[int, dict[str, Any]] = {}
        self.sent: set[int] = set()
        self.run_id: str | None = None
        self.known: set[tuple[str, int]] = set()  # the numbers in it, by their name and step
        self._read()

    def _read(self) -> None:
        self._out.seek(0)
        whole = self._out.read()
        kept = whole.rfind(b"\n") + 1
        if kept < len(whole):  # killed in the middle of a line
            self._out.truncate(kept)
        for line in whole[:kept].splitlines():
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError):
                continue  # a damaged line is one entry less, and no reason to lose the others

    def _take(self, line: dict[str, Any]) -> None:
        if "journal" in line:
            self.header = dict(line)
        elif "run_id" in line:
            self.run_id = line["run_id"]
            if self.run_id is None:
                self.sent.clear()
        elif "room" in line:
            pass
        elif "sent" in line:
            self.sent |= set(line["sent"])
        else:
            self.entries[int(line["n"])] = line
            self.known |= {(key, step) for key, _, _, step in line.get("values", ())}

    def _write(self, line: dict[str, Any]) -> None:
        whole = (json.dumps(line) + "\n").encode()
        with self._guard:
            end = self._out.seek(0, os.SEEK_END)
            if self._out.write(whole) != len(
                whole
            ):  # the disk is full; half a line would spoil the next
                self._out.truncate(end)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._take(line)

    def begin(self, **header: Any) -> None:
        """Write the first line: what a run is."""
        self._write({"journal": secrets.token_hex(8), "created": time.time(), **header})
        self._write(json.loads(_ROOM))

    def add(self, what: str, **values: Any) -> None:
        """Write an entry."""
        line = {"n": max(self.entries, default=0) + 1, "what": what, **values}
        try:
            self._write(line)
        except OSError:
            if what != "end" or not self._into_room(line):
                raise

    def _into_room(self, line: dict[str, Any]) -> bool:
        """Write a line over the room that was kept, which takes none of a full disk's; False without one."""
        whole = json.dumps(line).encode()
        place = self.file.read_bytes().find(_ROOM)
        if place < 0 or len(whole) >= len(_ROOM):
            return False
        with self._guard, self.file.open("r+b", buffering=0) as opened:
            opened.seek(place)
            opened.write(whole.ljust(len(_ROOM) - 1))
            self._take(line)
        return True

    def mark(self, numbers: Sequence[int]) -> None:
        """Note that entries were sent."""
        self._write({"sent": list(numbers)})

    def found_run(self, run_id: str | None) -> None:
        """Note which run it is; None where the server has lost it, and all is to be sent again."""
        self._write({"run_id": run_id})

    @property
    def unsent(self) -> list[dict[str, Any]]:
        """The entries that are still to be sent, in their order; those of other runs, which may have to
        wait, last."""
        with self._guard:
            left = [entry for n, entry in self.entries.items() if n not in self.sent]
        return sorted(left, key=lambda entry: (entry["what"] in ("link", "nest"), entry["n"]))

    @property
    def ended(self) -> bool:
        """Whether the run has come to an end, good or bad."""
        return any(entry["what"] == "end" for entry in self.entries.values())

    def keep(self, source: Path) -> str:
        """Copy a file, so that what is sent is what was there when it was logged; returns its name."""
        self.files.mkdir(exist_ok=True)
        shutil.copyfile(source, self.files / source.name)
        return source.name

    def close(self) -> None:
        """Let another process have it."""
        self._out.close()

    def remove(self) -> None:
        """Delete it, after all of it was sent."""
        shutil.rmtree(self.files, ignore_errors=True)
        self.file.unlink(missing_ok=True)
        self.close()
