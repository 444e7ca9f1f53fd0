"""What the files beside a recording say of it: BIDS channels.tsv and eeg.json.

Traps: by BIDS' inheritance principle a sidecar may lie in any folder between the recording and the
data set's root, and applies when its name says nothing that the recording's does not; of several
channels.tsv the nearest one counts, of several eeg.json each key of the nearest that has it. One
that git-annex has not fetched is a link to nothing, and passing over it would let bad channels
through. The light look here replaces mne-bids' `find_matching_sidecar`: mne-bids takes 0.3 s to
import, in each process that reads a recording. `units` of channels.tsv are not used: those in the
recording's own file hold.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remit.errors import RemitError, some_of
from remit.recordings.clock import same_rate
from remit.recordings.cohort import read_table

if TYPE_CHECKING:
    from remit.recordings.recording import Recording

CHANNELS, SETTINGS = "channels.tsv", "eeg.json"
UNSTATED = {"", "n/a", "na", "nan"}
STATUS = {"good": False, "bad": True}
# Mains are 50 or 60 Hz; anything outside is a slip of the pen.
MAINS_HZ = (45.0, 65.0)
_NAME = re.compile(r"sub-[^-_.]+(_[^-_.]+-[^-_.]+)*_eeg\..+")


@dataclass(frozen=True)
class _Channel:
    """A line of channels.tsv: the file's own name of a channel, its type, and whether it is bad."""

    name: str
    type: str
    bad: bool


def sidecar_names(folder: str) -> list[str]:
    """The names in a folder that end as sidecars' do; empty for a folder that cannot be listed."""
    try:
        with os.scandir(folder) as items:
            return [item.name for item in items if item.name.endswith((CHANNELS, SETTINGS))]
    except OSError:  # reading the recording itself will name it
        return []


def sidecar_files(
    path: str | Path, names_in: Callable[[str], Sequence[str]] = sidecar_names
) -> list[Path]:
    """The sidecars that apply to a recording, whether their content is there or not.

    The nearest channels.tsv, and every eeg.json from the nearest to the farthest. Relative when
    `path` is. None for a file whose name is not `sub-*_eeg.*`. `names_in` lists a folder's
    sidecars; pass a cached `sidecar_names` to ask for many recordings. Raises RemitError where two
    sidecars of one kind apply from one folder and neither is the more specific.
    """
    path = Path(path)
    if not _NAME.fullmatch(path.name):
        return []
    entities = _entities(path.name)
    found: list[Path] = []
    settings: list[Path] = []
    for folder in _folders(path, entities["sub"]):
        here: dict[str, list[tuple[int, str]]] = {CHANNELS: [], SETTINGS: []}
        for name in names_in(str(folder)):
            for kind, matches in here.items():
                if name.endswith(kind) and _applies(name, kind, entities):
                    matches.append((name.count("_"), name))
        for kind, matches in here.items():
            most = max(matches, default=(0, ""))[0]
            best = sorted(name for count, name in matches if count == most)
            if len(best) > 1:
                raise RemitError(
                    f"{folder / best[0]}: and {best[1]} both apply to {path.name}; expected one "
                    f"{kind} in a folder that does; remove or rename one."
                )
            if best and kind == CHANNELS:
                found += [] if found else [folder / best[0]]
            elif matches:
                by_rank = sorted(matches, reverse=True)
                settings += [folder / name for _, name in by_rank]
    return found + settings


def _entities(name: str) -> dict[str, str]:
    """Keys and values in a BIDS name, by their short keys."""
    pairs = (part.partition("-") for part in name.partition(".")[0].split("_"))
    return {key: value for key, dash, value in pairs if dash}


def _applies(name: str, kind: str, entities: dict[str, str]) -> bool:
    *parts, last = name.split("_")
    if last != kind:
        return False
    return all(
        dash and entities.get(key) == value
        for key, dash, value in (part.partition("-") for part in parts)
    )


def _folders(path: Path, subject: str) -> list[Path]:
    """The recording's folder and those above it, up to the data set's root."""
    absolute = Path(os.path.normpath(Path.cwd() / path))
    folders = [absolute.parent]
    for folder in absolute.parents:
        if folder.name == f"sub-{subject}":
            inside = absolute.relative_to(folder.parent).parents
            folders = [folder.parent / parent for parent in inside]
            break
    if path.is_absolute():
        return folders
    return [Path(os.path.relpath(folder)) for folder in folders]


def with_sidecars(recording: Recording, path: str | Path) -> Recording:
    """The recording with what its BIDS sidecars say; the same recording where there are none.

    Channels with status 'bad' are added to `bad_channels`; those whose type is not EEG are left
    out; PowerLineFrequency, in Hz, becomes `mains_hz`. Raises RemitError for a sidecar that cannot
    be read, a status that is none, a sampling rate that contradicts the file's, and a table that
    calls no channel EEG.
    """
    files = sidecar_files(path)
    for file in files:
        if not file.exists():
            what = "is a link to nothing" if file.is_symlink() else "is not there"
            raise RemitError(
                f"{file}: {what}; expected what it says of {Path(path).name}; fetch its content "
                "('git annex get') or remove the link."
            )
    tables = [file for file in files if file.name.endswith(CHANNELS)]
    settings = [file for file in files if file.name.endswith(SETTINGS)]
    if settings:
        recording = _with_settings(recording, path, settings)
    return _with_channels(recording, tables[0]) if tables else recording


def _with_settings(recording: Recording, path: str | Path, files: Sequence[Path]) -> Recording:
    values: dict[str, tuple[Any, Path]] = {}
    for file in files:  # from the nearest to the farthest
        for key, value in _read_json(file).items():
            values.setdefault(key, (value, file))
    rate = _number("SamplingFrequency", values)
    if rate is not None and not same_rate(recording.sampling_rate, rate):
        raise RemitError(
            f"{path}: has {recording.sampling_rate:.6g} Hz, but {values['SamplingFrequency'][1]} "
            f"says SamplingFrequency {rate:.6g}; expected the same; correct the one that is wrong."
        )
    mains = _number("PowerLineFrequency", values)
    if mains is None:
        return recording
    source = values["PowerLineFrequency"][1].name
    if not MAINS_HZ[0] <= mains <= MAINS_HZ[1]:
        note = f"{source} says PowerLineFrequency {mains:g}, which no mains have; it is not used."
        return replace(recording, notes=(*recording.notes, note))
    note = f"{source} says that the mains have {mains:g} Hz."
    if recording.mains_hz is not None and recording.mains_hz != mains:
        note = f"{note[:-1]}; the file itself says {recording.mains_hz:g} Hz, which is not used."
    return replace(recording, mains_hz=mains, notes=(*recording.notes, note))


def _read_json(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise RemitError(
            f"{file}: cannot be read ({error.strerror}); expected a JSON object; check its "
            "permissions."
        ) from None
    except (ValueError, RecursionError) as error:
        raise RemitError(
            f"{file}: is no JSON ({error}); expected a JSON object; correct it."
        ) from None
    if not isinstance(values, dict):
        raise RemitError(
            f"{file}: holds a JSON {type(values).__name__}; expected an object with keys such as "
            "SamplingFrequency; correct it."
        )
    return values


def _number(key: str, values: dict[str, tuple[Any, Path]]) -> float | None:
    """A number above 0 under a key; None where it is not stated."""
    value, file = values.get(key, (None, Path()))
    if value is None or (isinstance(value, str) and value.strip().lower() in UNSTATED):
        return None
    try:
        number = float("nan" if isinstance(value, bool) else value)
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if key == "PowerLineFrequency" and number == 0:
        return None  # how some programs write that it is not known
    if not 0 < number < float("inf"):
        raise RemitError(
            f'{file}: {key} is {json.dumps(value)[:60]}; expected a number of Hz or "n/a"; '
            "correct it."
        )
    return number


def _read_channels(file: Path) -> list[_Channel]:
    header, body = read_table(file)
    if "name" not in header:
        raise RemitError(
            f"{file}: no column 'name'; it has {some_of(header)}; expected name, type, units and "
            "perhaps status; correct it."
        )
    channels = []
    for line, cells in body:
        values = dict(zip(header, cells, strict=True))
        status = values.get("status", "").lower()
        if status not in STATUS and status not in UNSTATED:
            raise RemitError(
                f"{file} line {line}: the status of channel '{values['name']}' is "
                f"'{values['status']}'; expected good, bad or n/a; correct it."
            )
        kind = values.get("type", "").upper()
        kind = "" if kind.lower() in UNSTATED else kind
        channels.append(_Channel(values["name"], kind, STATUS.get(status, False)))
    return channels


def _with_channels(recording: Recording, file: Path) -> Recording:
    from remit.recordings.channels import electrodes

    by_electrode: dict[str, _Channel] = {}
    unknown = []
    channels = _read_channels(file)
    named = electrodes([channel.name for channel in channels])
    for channel, electrode in zip(channels, named, strict=True):
        if channel.name in recording.left_out:
            continue
        if electrode in recording.channels:
            assert electrode is not None
            first = by_electrode.setdefault(electrode, channel)
            if (first.type, first.bad) != (channel.type, channel.bad):
                raise RemitError(
                    f"{file}: says two things of electrode {electrode} ('{first.name}' and "
                    f"'{channel.name}'); expected one line for each channel; correct it."
                )
        else:
            unknown.append(channel.name)
    others = {
        electrode: channel
        for electrode, channel in by_electrode.items()
        if channel.type not in ("", "EEG")
    }
    bad = {electrode for electrode, channel in by_electrode.items() if channel.bad}
    unlisted = [name for name in recording.channels if name not in by_electrode]
    kept = [name for name in recording.channels if name not in others]
    if not kept:
        raise RemitError(
            f"{file}: calls no channel of the recording EEG (types "
            f"{some_of(sorted({channel.type for channel in others.values()}))}); expected some; "
            "correct its column type."
        )
    notes = []
    for channel in others.values():
        notes.append(f"{file.name} gives '{channel.name}' the type {channel.type}: left out.")
    named_bad = [name for name in kept if name in bad]
    if named_bad:
        notes.append(f"{file.name} calls {', '.join(named_bad)} bad.")
    if unknown:
        notes.append(f"{file.name} lists {some_of(unknown)}, which the file does not have.")
    if unlisted:
        notes.append(f"{file.name} does not list {some_of(unlisted)}.")
    recording = recording.pick(kept)
    bad |= set(recording.bad_channels)
    return replace(
        recording,
        left_out=(*recording.left_out, *(channel.name for channel in others.values())),
        bad_channels=tuple(name for name in kept if name in bad),
        notes=(*recording.notes, *notes),
    )
