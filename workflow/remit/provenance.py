"""What made a file: a record beside every result, and the chain of records that a file hangs on.

`results/x/y.pt` has `results/x/.provenance/y.pt.json`: its SHA-256, the stage, all its settings with
their seeds, the SHA-256 of every file that it was made of, version, commit and environment, and where
MLflow has it. Paths in a record are relative to the file's folder, so that results can be moved as a
whole. Knows files, and nothing of what they hold.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import remit
from remit import naming
from remit.errors import RemitError
from remit.files import sha256_of, write_json

FORMAT = "remit-provenance"
FORMAT_VERSION = 1
_LOCK = Path(remit.__file__).parents[2] / "envs" / "constraints.txt"


@cache
def git_commit() -> str:
    """The commit of the checkout, with '-dirty' where files are changed; 'unknown' where it is none."""
    folder = str(Path(remit.__file__).parent)
    if not _LOCK.is_file():  # installed, perhaps inside the checkout of something else
        return "unknown"
    try:
        return subprocess.run(
            ["git", "-C", folder, "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


@cache
def environment() -> dict[str, str | None]:
    """Hashes of the pins that remit comes with (None outside a checkout) and of what is installed."""
    # By the names of their folders: to read what is in them takes 0.3 s, for every job.
    found = sorted({item.name for place in sys.path for item in Path(place).glob("*.dist-info")})
    return {
        "python": platform.python_version(),
        "lock_sha256": sha256_of(_LOCK) if _LOCK.is_file() else None,
        "installed_sha256": hashlib.sha256("\n".join(found).encode()).hexdigest(),
    }


def record_of(file: Path) -> Path:
    """Where the record of a file lies."""
    return file.parent / ".provenance" / f"{file.name}.json"


def read(file: Path) -> dict[str, Any] | None:
    """The record of a file, or None where there is none; raises :class:`RemitError` for a damaged one."""
    place = record_of(file)
    try:
        found: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
        if found["format"] != FORMAT or found["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format {found['format']} {found['format_version']}")
        texts = [found["sha256"], found["stage"], found["file"]]
        found["bytes"], found["mtime_ns"]
        found["environment"].get, found["mlflow"].get, found["settings"].get
        for items in found["inputs"].values():
            for item in items:
                texts += [item["path"], item["sha256"]]
        if not all(isinstance(text, str) and "\0" not in text for text in texts):
            raise TypeError("its stage, paths and hashes are no texts")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RemitError(
            f"{place}: is no record of what made {file.name} ({type(error).__name__}: {error}); expected "
            f"{FORMAT} {FORMAT_VERSION}; make {file.name} again."
        ) from None
    return found


def _sha256_now(file: Path) -> str:
    """The hash of an input: of its record where the file is untouched since, else computed."""
    try:
        record = read(file)
    except RemitError:
        record = None
    if record is not None:
        now = file.stat()
        if (now.st_size, now.st_mtime_ns) == (record["bytes"], record["mtime_ns"]):
            return str(record["sha256"])
    return sha256_of(file)


def look(files: Iterable[Path]) -> dict[Path, tuple[int, ...]]:
    """What tells a file from one that took its place; nothing of one that cannot be read."""
    seen: dict[Path, tuple[int, ...]] = {}
    for file in files:
        with suppress(OSError):
            if file.is_file():
                with file.open("rb") as opened:  # which makes a network's disk look again
                    now = os.fstat(opened.fileno())
                seen[file] = (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns)
    return seen


def _seeds(settings: Any, place: str = "") -> Iterator[tuple[str, int]]:
    if isinstance(settings, Mapping):
        for key, value in settings.items():
            where = f"{place}.{key}" if place else str(key)
            if str(key).endswith("seed") and isinstance(value, int):
                yield where, value
            else:
                yield from _seeds(value, where)


def write(
    outputs: Sequence[Path],
    inputs: Mapping[str, Sequence[Path]],
    *,
    stage: str,
    settings: Mapping[str, Any],
    mlflow: Mapping[str, str | None],
    seen: Mapping[Path, tuple[int, ...]] | None = None,
) -> list[Path]:
    """Write the record of each output; what is not there is passed over.

    Returns the inputs that have changed since the command began. Nobody knows which content was read
    then, so they have no hash in the record, and :func:`verify` calls the outputs stale.

    Args:
        outputs: made just now.
        inputs: what they were made of, by its role.
        stage: the command.
        settings: all that it was given; 'result_version' among them.
        mlflow: 'run_id', and 'journal' for what may not have been sent yet; both may be None.
        seen: the inputs as :func:`look` saw them before anything was read, as far as they were known.
    """
    there = [file for file in outputs if file.is_file()]
    if not there:
        return []
    hashes = {file: _sha256_now(file) for of_role in inputs.values() for file in of_role}
    before = seen or {}
    changed = [file for file, now in look(before).items() if file in hashes and now != before[file]]
    hashes |= dict.fromkeys(changed, "changed while it was read")
    common = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "stage": stage,
        "settings": dict(settings),
        "result_version": settings.get("result_version"),
        "seeds": dict(_seeds(settings)),
        "remit_version": remit.__version__,
        "git_commit": git_commit(),
        "environment": environment(),
        "mlflow": dict(mlflow),
    }
    for output in there:
        # No link is followed, here or in verify: results/ may be one, to a larger disk.
        of_role = {
            role: [
                {"path": os.path.relpath(file, output.parent), "sha256": hashes[file]}
                for file in files
            ]
            for role, files in inputs.items()
            if files
        }
        now, named = output.stat(), _below_results(output) or output.name
        own = {"sha256": sha256_of(output), "bytes": now.st_size, "mtime_ns": now.st_mtime_ns}
        write_json(record_of(output), {**common, **own, "file": named, "inputs": of_role})
    return changed


def _below_results(file: Path) -> str | None:
    """What a file is called below results/, which says what it is; None for one that lies elsewhere."""
    _, found, name = os.path.abspath(file).rpartition(f"/{naming.RESULTS}/")  # noqa: PTH100 - keeps links
    return name if found else None


@dataclass(frozen=True)
class Finding:
    """What was found of one file of a chain: 'pass', 'warn' or 'fail'."""

    status: str
    file: Path
    what: str


def _is_result(path: Path) -> bool:
    """Whether a path is one that the workflow makes; a raw recording's is not."""
    name = _below_results(path)
    return name is not None and naming.read_target(f"{naming.RESULTS}/{name}") is not None


def verify(file: Path, result_version: Callable[[str], str | None]) -> list[Finding]:
    """Compute the hashes along the chain of a file again, from it to the raw recordings.

    'fail' is what is stale (made of other files, or by another version, than there are now) or foreign
    (not what its record says, or without one); 'warn' what could not be compared, or need not matter.

    Args:
        file: a result that is there.
        result_version: the version of a stage's results now; None for a stage without.
    """
    found: list[Finding] = []
    seen: dict[Path, str] = {}

    def hash_of(path: Path) -> str:
        key = path.resolve()
        if key not in seen:
            seen[key] = sha256_of(path)
        return seen[key]

    walked: set[Path] = set()

    def walk(path: Path, *, target: bool) -> None:
        if path.resolve() in walked:
            return
        walked.add(path.resolve())
        before = len(found)

        def say(status: str, what: str) -> None:
            found.append(Finding(status, path, str(RemitError(what))))  # one line, for a terminal

        try:
            record = read(path)
        except RemitError as error:
            say("fail", f"foreign: {error}")
            return
        if record is None:
            if target:
                say("fail", "foreign: nothing beside it says what made it; make it with snakemake")
            elif _is_result(path):
                say("warn", "nothing beside it says what made it; its chain was not followed")
            return
        if hash_of(path) != record["sha256"]:
            say(
                "fail",
                f"foreign: not as '{record['stage']}' wrote it; make it again, or remove "
                f"{record_of(path)} if it was put there on purpose",
            )
        if not os.path.abspath(path).endswith(f"/{record['file']}"):  # noqa: PTH100 - keeps links
            say("fail", f"foreign: it was made as {record['file']}; make it again under this name")
        now, then = result_version(record["stage"]), record["settings"].get("result_version")
        if now != then:
            say("fail", f"stale: made by version {then} of '{record['stage']}', which is {now} now")
        if record["environment"] != environment():
            say("warn", "made in another environment (Python or packages)")
        inputs: list[Path] = []
        for role, items in record["inputs"].items():
            for item in items:
                made_of = Path(os.path.normpath(path.parent / item["path"]))
                if not made_of.is_file():
                    say("warn", f"made of {made_of} ({role}), which is not there and not compared")
                    continue
                if hash_of(made_of) != item["sha256"]:
                    say("fail", f"stale: made of another {made_of} ({role}) than is there now")
                inputs.append(made_of)
        if len(found) == before:
            run = record["mlflow"].get("run_id")
            tail = f"; MLflow run {run}" if run else ""
            say("pass", f"as '{record['stage']}' made it of {len(inputs)} files{tail}")
        for made_of in inputs:
            walk(made_of, target=False)

    walk(Path(os.path.normpath(file)), target=True)
    return found
