"""The formats that can be read: every module in `readers/` that defines `READER`.

Adding a format is adding one file there. The modules import MNE, scipy and the like only inside
their functions, so that knowing the formats costs nothing.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from remit.errors import RemitError, did_you_mean, some_of
from remit.recordings.clock import same_rate
from remit.recordings.cohort import SheetRow, resolve
from remit.recordings.sidecars import with_sidecars
from remit.recordings.units import check_plausible

if TYPE_CHECKING:
    from remit.recordings.recording import Recording


# Rates in Hz that EEG is recorded with.
PLAUSIBLE_HZ = (50.0, 25_000.0)
RESULT_VERSION = 2  # raise when a change to any reader alters what is read


@dataclass(frozen=True)
class ReaderOptions:
    """What the config or the sheet says about files that do not say it themselves.

    `sampling_rate` in Hz; `channel_names` in the order of the file; `units` as `units.parse` reads
    them ('mV', '0.488 uV' for each count). `allow_truncated`: read what is there of a file that
    promises more.
    """

    sampling_rate: float | None = None
    channel_names: tuple[str, ...] | None = None
    units: str | None = None
    allow_truncated: bool = False


@dataclass(frozen=True)
class Entry:
    """One recording inside a container file.

    `name` is what the cohort sheet's `entry` says; `participant` is the file's own id, as text;
    `remission` is 0, 1 or None where the file does not say.
    """

    name: str
    participant: str
    remission: int | None


@dataclass(frozen=True)
class Reader:
    """One format.

    `suffixes`: lower case, with the dot. `matches`: a light look at the file's first bytes; it may
    raise RemitError for a file that is this format's and damaged.
    `read`: the recording of a sheet row whose path can be opened as it is. `entries`: what lists
    the recordings in a container file; None for a format that holds one per file. `expects`: what
    `matches` looks for, for error messages. `companions`: the further files that a recording
    consists of, whether they are there or not; light, for it is asked at every planning.
    `fallback`: asked only when no other reader of the suffix matches. `takes` and `refuses`: for
    docs/formats.md, what is taken from a file besides its samples, and what is refused.
    """

    name: str
    suffixes: tuple[str, ...]
    matches: Callable[[Path], bool]
    read: Callable[[SheetRow, ReaderOptions], Recording]
    entries: Callable[[Path, ReaderOptions], list[Entry]] | None = None
    expects: str = ""
    companions: Callable[[Path], list[Path]] | None = None
    fallback: bool = False
    takes: tuple[str, ...] = ()
    refuses: tuple[str, ...] = ()


def readers() -> list[Reader]:
    """Every reader, sorted by the name of its module; those that are a fallback come last."""
    package = importlib.import_module("remit.recordings.readers")
    return list(_readers(package.__name__, tuple(package.__path__)))


@lru_cache(maxsize=4)
def _readers(package: str, folders: tuple[str, ...]) -> tuple[Reader, ...]:
    found = []
    for module in sorted(module.name for module in pkgutil.iter_modules(folders)):
        reader = getattr(importlib.import_module(f"{package}.{module}"), "READER", None)
        if not isinstance(reader, Reader):
            raise RemitError(
                f"{package}.{module} defines no READER; expected one in each module "
                "there; add it or move the module."
            )
        found.append(reader)
    return tuple(sorted(found, key=lambda reader: reader.fallback))


def companions(path: str | Path) -> list[Path]:
    """The further files that the recording at a path consists of, those of them that are there."""
    path = Path(path)
    name = path.name.lower()
    asked = [r.companions for r in readers() if r.companions and name.endswith(r.suffixes)]
    return sorted({file for ask in asked for file in ask(path) if file.exists()}) if asked else []


def suffixes() -> tuple[str, ...]:
    """Every file suffix that some reader reads, sorted."""
    return tuple(sorted({suffix for reader in readers() for suffix in reader.suffixes}))


def has_known_suffix(path: str | Path) -> bool:
    """Whether a file's name ends as some reader's files do."""
    return Path(path).name.lower().endswith(suffixes())


def find_reader(path: str | Path) -> Reader:
    """The reader of a file, by its suffix and its first bytes.

    Raises RemitError for a file that is missing, not a file, unreadable, empty or of a format
    that nobody reads.
    """
    path = Path(path)
    if not path.exists():
        what = "is a link to nothing" if path.is_symlink() else "is not there"
        raise RemitError(
            f"{path}: {what}; expected a recording; check the path in the cohort sheet, or fetch "
            "the file's content."
        )
    if not path.is_file():
        raise RemitError(f"{path}: is no file; expected a recording; correct the path.")
    name = path.name.lower()
    candidates = [reader for reader in readers() if name.endswith(reader.suffixes)]
    if not candidates:
        known = suffixes()
        raise RemitError(
            f"{path}: the format '{path.suffix or path.name}' is not known; expected a file ending "
            f"in {some_of(known, 20)}; convert it.{did_you_mean(path.suffix, known)}"
        )
    if path.stat().st_size == 0:
        raise RemitError(
            f"{path}: is empty (0 bytes); expected {candidates[0].name} data; copy it again "
            "or leave it out."
        )
    try:
        for reader in candidates:
            if reader.matches(path):
                return reader
    except OSError as error:
        raise RemitError(
            f"{path}: cannot be read ({error.strerror}); expected a recording; check its "
            "permissions."
        ) from None
    expected = " or ".join(
        f"{reader.name} ({reader.expects})" if reader.expects else reader.name
        for reader in candidates
    )
    raise RemitError(
        f"{path}: its beginning is not that of a file it is named as; expected {expected}; "
        "check what program wrote it."
    )


def read_recording(
    row: SheetRow, options: ReaderOptions, root: str | Path | None = None
) -> Recording:
    """Read the recording of a sheet row; its path is taken inside `root` when that is given.

    Raises RemitError for a file that is missing, empty, damaged or of an unknown format, and for
    anything in it that cannot be read truthfully.
    """
    path = resolve(row, root)
    reader = find_reader(path)
    if row.entry and reader.entries is None:
        raise RemitError(
            f"{path}: entry '{row.entry}' is asked for, but a {reader.name} file holds one "
            "recording; expected an empty entry; correct the cohort sheet."
        )
    options = ReaderOptions(
        row.sampling_rate or options.sampling_rate,
        row.channel_names or options.channel_names,
        row.units or options.units,
        options.allow_truncated,
    )
    recording = reader.read(replace(row, path=str(path)), options)
    _check_rate(recording.sampling_rate, row, path)
    check_plausible(recording.signal_CS, recording.sampling_rate, str(path))
    return with_sidecars(recording, path)


def _check_rate(rate: float, row: SheetRow, path: Path) -> None:
    """Refuse a rate that no EEG has, and one that contradicts the sheet's row."""
    low, high = PLAUSIBLE_HZ
    if not low <= rate <= high:
        raise RemitError(
            f"{path}: has {rate:g} samples per second; expected {low:g} to {high:g} Hz for EEG; "
            "correct the rate that the file or the cohort sheet states."
        )
    if row.sampling_rate is not None and not same_rate(rate, row.sampling_rate):
        raise RemitError(
            f"{path}: has {rate:g} Hz, and the cohort sheet says {row.sampling_rate:g} Hz for "
            f"recording '{row.recording}'; expected the same; correct or empty that cell."
        )
