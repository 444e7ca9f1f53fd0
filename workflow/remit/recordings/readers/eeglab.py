"""EEGLAB (.set, with or without .fdt), as MATLAB version 5 to 7 or 7.3.

Traps: a .set is a .mat file, and scipy, which MNE reads it with, dies with the process on a damaged
one (`matfile` looks first); MNE does not compare the data with `pnts` and `nbchan`, and invents
channel names where there are none; it reads a shorter .fdt until it stumbles, and a longer one
without a word; it takes whichever .fdt it finds where the name inside the .set is another's; it
joins what 'boundary' events part. So MNE is not asked: the fields are few, and the data are a plain
array of float32. The file states no unit; EEGLAB's convention is microvolts.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remit.errors import RemitError
from remit.recordings.cohort import SheetRow
from remit.recordings.matfile import (
    Stored,
    Struct,
    described,
    is_mat,
    is_numbers,
    load,
    numbers,
    texts,
)
from remit.recordings.registry import Reader, ReaderOptions
from remit.recordings.through_mne import (
    CHUNK_SECONDS,
    Break,
    Choice,
    choose,
    recording_of,
    unused,
)
from remit.recordings.units import UNSTATED, parse

if TYPE_CHECKING:
    import numpy as np

    from remit.recordings.recording import Recording

# What EEGLAB users call channels that are no EEG. Any other type is a name for EEG ('scalp').
NOT_EEG = {
    *("eog", "heog", "veog", "ecg", "ekg", "emg", "misc", "other", "stim", "trig", "trigger"),
    *("event", "events", "status", "resp", "respiration", "gsr", "eda", "scr", "ppg", "pulse"),
    *("meg", "mag", "grad", "audio", "aux", "temp", "acc", "accel", "gyro", "fid", "dbs", "seeg"),
    *("ecog", "eye", "eyegaze", "pupil", "photo", "bio", "ica", "exg"),
}
_FIELDS = (
    *("EEG", "ALLEEG", "data", "datfile", "nbchan", "pnts", "trials", "srate"),
    *("chanlocs", "chaninfo", "event", "ref"),
)
_LOOKED_AT = 4096  # samples that show whether the numbers are whole
_BOUNDARY_CODE = -99.0  # EEGLAB's boundary where events have numbers for types


@dataclass(frozen=True)
class _Set:
    """What a .set file says; `data` is the array itself or the name of the file that holds it."""

    data: Any
    channels: int
    points: int  # in each trial
    trials: int
    rate: float
    chanlocs: list[dict[str, Any]]
    events: list[dict[str, Any]]
    notes: list[str]


def companions(path: Path) -> list[Path]:
    """The .fdt file of the same name, where there is one (or a link to one)."""
    beside = path.with_suffix(".fdt")
    return [beside] if os.path.lexists(beside) else []


def read(row: SheetRow, options: ReaderOptions) -> Recording:
    """The EEG channels of an EEGLAB dataset; a boundary event or a trial begins a segment.

    Trials are windows that the source has cut; they are placed as if they followed one another.
    Raises RemitError for a damaged file, a .fdt file that is missing, ambiguous, cut or too long,
    data that contradict the header, missing rate or channel names, and a study of several datasets.
    """
    path = Path(row.path)
    found = _read_set(path, options)
    labels, unusable, notes = _labels(path, found, options)
    choice = choose(path, labels, unusable)
    scale, unit_note = _scale(path, found, options)
    if isinstance(found.data, str):
        data, data_note = _data_file(path, found.data)
        signal_CS, cut_notes = _from_fdt(path, data, found, choice, scale, options)
        notes += [*data_note, *cut_notes]
        files = [path, data]
    else:
        signal_CS = _embedded(path, found, choice, scale)
        files = [path]
    notes += _whole_numbers(signal_CS, options)
    epoched = found.trials > 1
    if epoched:
        notes.append(
            f"The file holds {found.trials} trials of {found.points} samples; onsets are as if "
            "they followed one another."
        )
    return recording_of(
        row,
        path,
        signal_CS,
        found.rate,
        labels,
        choice,
        breaks=[] if epoched else _boundaries(found),
        window=found.points if epoched else None,
        notes=[*found.notes, unit_note, *notes],
        files=files,
    )


def _read_set(path: Path, options: ReaderOptions) -> _Set:
    contents = load(path, _FIELDS)
    if "ALLEEG" in contents:
        raise RemitError(
            f"{path}: holds several datasets (ALLEEG); expected one; save them one by one."
        )
    if "EEG" in contents:
        eeg = contents["EEG"]
        if not isinstance(eeg, Struct) or eeg.size != 1:
            raise RemitError(
                f"{path}: EEG is {described(eeg)}; expected a struct of one dataset; save each "
                "dataset in a file of its own."
            )
        contents = {name: eeg.column(name)[0] for name in eeg.names if name in _FIELDS}
    if "data" not in contents:
        raise RemitError(
            f"{path}: has no data; expected the fields of an EEGLAB dataset; save it with EEGLAB "
            "again."
        )
    rate = _scalar(contents.get("srate"))
    if not (rate is not None and 0 < rate < math.inf):
        if options.sampling_rate is None:
            raise RemitError(
                f"{path}: EEG.srate is {_shown(contents.get('srate'))}; expected a sampling rate; "
                "set sampling_rate in the cohort sheet or cohorts.<name>.sampling_rate."
            )
        rate = float(options.sampling_rate)
    notes = unused(options, rate=rate)
    data = contents["data"]
    text = texts(data)
    if not is_numbers(data) and not (text and text[0]):
        raise RemitError(
            f"{path}: EEG.data is {described(data)}; expected real numbers or the name of a .fdt "
            "file; save it with EEGLAB again."
        )
    named = text[0] if text else None
    if named is not None and not named.lower().endswith(".fdt"):
        datfile = texts(contents.get("datfile")) or [""]
        if datfile[0].lower().endswith(".fdt"):
            named = datfile[0]
    reference = texts(contents.get("ref"))
    if reference and reference[0]:
        notes.append(f"The file gives its reference as '{reference[0][:80]}'.")
    removed = _removed(contents.get("chaninfo"))
    if removed:
        notes.append(f"{removed} channels had been taken out of the file before.")
    return _Set(
        data=data if named is None else named,
        channels=_count(path, "nbchan", contents),
        points=_count(path, "pnts", contents),
        trials=_count(path, "trials", contents, 1),
        rate=rate,
        chanlocs=_elements(contents.get("chanlocs")),
        events=_elements(contents.get("event")),
        notes=notes,
    )


def _elements(value: Any) -> list[dict[str, Any]]:
    return value.elements() if isinstance(value, Struct) else []


def _removed(chaninfo: Any) -> int:
    if isinstance(chaninfo, Struct) and chaninfo.size == 1 and "removedchans" in chaninfo.names:
        removed = chaninfo.column("removedchans")[0]
        if isinstance(removed, Struct):
            return removed.size
    return 0


def _scalar(value: Any) -> float | None:
    """A single number, or None."""
    if is_numbers(value) and value.size == 1:
        return float(numbers(value).reshape(-1)[0])
    return None


def _shown(value: Any) -> str:
    number = _scalar(value)
    if number is not None:
        return f"{number:g}"
    return "missing" if value is None else described(value)


def _count(path: Path, name: str, contents: dict[str, Any], absent: int | None = None) -> int:
    value = contents.get(name)
    number = _scalar(value)
    if value is None and absent is not None:
        return absent
    if number is None or not 1 <= number < 2**40 or number != int(number):
        raise RemitError(
            f"{path}: EEG.{name} is {_shown(value)}; expected a whole number of 1 or more; save it "
            "with EEGLAB again."
        )
    return int(number)


def _labels(
    path: Path, found: _Set, options: ReaderOptions
) -> tuple[list[str], dict[int, str], list[str]]:
    """Names by row, which rows are no EEG and why, and notes."""
    if not found.chanlocs:
        names = options.channel_names
        if not names:
            raise RemitError(
                f"{path}: has no channel names (EEG.chanlocs is empty); expected "
                f"{found.channels}; set channel_names in the cohort sheet or "
                "cohorts.<name>.channel_names."
            )
        if len(names) != found.channels:
            raise RemitError(
                f"{path}: {len(names)} channel_names are stated for {found.channels} channels; "
                "expected one each; correct them in the cohort sheet or config."
            )
        return list(names), {}, ["The file names no channels; the stated names are used."]
    if len(found.chanlocs) != found.channels:
        raise RemitError(
            f"{path}: EEG.chanlocs has {len(found.chanlocs)} channels, EEG.nbchan is "
            f"{found.channels}; expected the same; save it with EEGLAB again."
        )
    labels, unusable = [], {}
    for i, place in enumerate(found.chanlocs):
        label = texts(place.get("labels"))
        number = _scalar(place.get("labels"))
        labels.append(f"{number:g}" if number is not None else (label or [""])[0])
        kind = (texts(place.get("type")) or [""])[0]
        if kind.lower() in NOT_EEG:
            unusable[i] = f"the file calls it {kind}"
    return labels, unusable, unused(options, channel_names=True)


def _scale(path: Path, found: _Set, options: ReaderOptions) -> tuple[float, str]:
    """Microvolts in one of the file's numbers, and a note."""
    stated = (options.units or "").strip()
    if stated.lower() in UNSTATED:
        if not isinstance(found.data, str) and found.data.dtype.kind in "iu":
            raise RemitError(
                f"{path}: EEG.data is {described(found.data)}, whole numbers without a unit, as raw "
                "counts are; expected a unit; state the microvolts of one count as units, such as "
                "'0.02235 uV', in the cohort sheet or cohorts.<name>.units."
            )
        return 1.0, "The file states no unit; EEGLAB's convention is microvolts."
    scale = parse(stated)
    if scale is None:
        raise RemitError(
            f"{path}: the unit '{stated}' is no voltage; expected uV, mV, V, nV or the microvolts "
            "of one count, such as '0.02235 uV'; correct units in the cohort sheet or "
            "cohorts.<name>.units."
        )
    return scale, f"The numbers are taken as '{stated}': {scale:g} microvolts each."


def _whole_numbers(signal_CS: np.ndarray, options: ReaderOptions) -> list[str]:
    """A note where numbers of the file that nobody gives a unit are whole, as raw counts are."""
    import numpy as np

    piece_CS = signal_CS[:, :_LOOKED_AT]
    if (options.units or "").strip().lower() not in UNSTATED or not piece_CS.any():
        return []
    if not np.array_equal(piece_CS, np.rint(piece_CS)):
        return []
    return ["The numbers are whole: they may be raw counts, whose size is to be stated as units."]


def _data_file(path: Path, named: str) -> tuple[Path, list[str]]:
    """The file that holds the data, and a note where it is not the one that is named."""
    bare = named.replace("\\", "/").rsplit("/", 1)[-1]
    if not bare.lower().endswith(".fdt"):
        raise RemitError(
            f"{path}: its data are said to be in '{named[:100]}'; expected a .fdt file; save it "
            "with EEGLAB again."
        )
    wanted, sibling = path.with_name(bare), path.with_suffix(".fdt")
    if wanted == sibling or not sibling.is_file():
        if wanted.is_file():
            return wanted, [] if wanted == sibling else [f"The data are those of {bare}."]
        what = "is a link to nothing" if wanted.is_symlink() else "is not there"
        other = "" if wanted == sibling else f", and neither is {sibling.name}"
        raise RemitError(
            f"{path}: its data are in {bare}, which {what}{other}; expected it beside the .set "
            "file; copy it there."
        )
    if wanted.is_file():
        from remit.files import sha256_of

        if sha256_of(wanted) != sha256_of(sibling):
            raise RemitError(
                f"{path}: its data are said to be in {bare}, but {sibling.name} lies there as well "
                "and differs; expected one of them; load and save the dataset with EEGLAB."
            )
    return sibling, [f"The data are those of {sibling.name}; the file still names {bare}."]


def _from_fdt(
    path: Path,
    data: Path,
    found: _Set,
    choice: Choice,
    scale: float,
    options: ReaderOptions,
) -> tuple[np.ndarray, list[str]]:
    """float32 microvolts [C, S]: little-endian float32, channels fastest, then points, trials."""
    import numpy as np

    samples = found.points * found.trials
    frame = 4 * found.channels
    size = data.stat().st_size
    promised = f"{found.channels} channels of {samples} samples ({samples * frame} bytes)"
    notes = []
    if size > samples * frame:
        raise RemitError(
            f"{path}: {data.name} holds {size - samples * frame} bytes more than its {promised}; "
            "expected none; it may belong to another .set, copy or save both again."
        )
    if size < samples * frame:
        there = size // frame
        if found.trials > 1:
            there -= there % found.points
        if not options.allow_truncated or not there:
            raise RemitError(
                f"{path}: {data.name} is cut, it holds {size} bytes of {promised}; expected all of "
                "them; copy it again, or set allow_truncated to read what is there."
            )
        notes.append(f"{data.name} is cut: {there} of {samples} samples are read.")
        samples = there
    rows = list(choice.rows.values())
    signal_CS = np.empty((len(rows), samples), dtype=np.float32)
    step = max(1, round(CHUNK_SECONDS * found.rate))
    with data.open("rb") as opened:
        for start in range(0, samples, step):
            count = min(step, samples - start)
            chunk_SC = np.fromfile(opened, dtype="<f4", count=count * found.channels)
            chunk_SC = chunk_SC.reshape(count, found.channels)
            _put(signal_CS, start, chunk_SC.T[rows], scale)
    return signal_CS, notes


def _embedded(path: Path, found: _Set, choice: Choice, scale: float) -> np.ndarray:
    """float32 microvolts [C, S] of the data inside the .set file."""
    import numpy as np

    expected = (found.channels, found.points, found.trials)
    shape = (*found.data.shape, 1)[:3]
    if shape != expected or found.data.ndim > 3:
        raise RemitError(
            f"{path}: EEG.data is {described(found.data)}; expected "
            f"{'x'.join(str(length) for length in expected)}, as nbchan, pnts and trials say; the "
            "file is damaged, save it with EEGLAB again."
        )
    samples = found.points * found.trials
    rows = list(choice.rows.values())
    signal_CS = np.empty((len(rows), samples), dtype=np.float32)
    step = max(1, round(CHUNK_SECONDS * found.rate))
    if isinstance(found.data, Stored) and found.data.ndim == 2:
        import h5py

        try:
            with h5py.File(path, "r", locking=False) as opened:
                stored_SC = opened[found.data.place]
                for start in range(0, samples, step):
                    stop = min(start + step, samples)
                    _put(signal_CS, start, stored_SC[start:stop].T[rows], scale)
        except Exception as error:  # h5py raises many kinds for a damaged file
            raise RemitError(
                f"{path}: h5py cannot read EEG.data ({type(error).__name__}: {str(error)[:200]}); "
                "expected a sound .set file; copy it again or save it with EEGLAB again."
            ) from error
        return signal_CS
    data_CS = numbers(found.data).reshape(found.channels, samples, order="F")
    for start in range(0, samples, step):
        _put(signal_CS, start, data_CS[:, start : start + step][rows], scale)
    return signal_CS


def _put(signal_CS: np.ndarray, start: int, chunk_CS: np.ndarray, scale: float) -> None:
    import numpy as np

    with np.errstate(over="ignore"):  # becomes infinite, which a recording refuses
        scaled_CS = chunk_CS if scale == 1.0 else chunk_CS.astype(np.float64) * scale
        signal_CS[:, start : start + chunk_CS.shape[1]] = scaled_CS


def _boundaries(found: _Set) -> list[Break]:
    """Where samples were cut out, or recordings joined, and how many seconds are missing there."""
    gaps: dict[int, float | None] = {}
    for event in found.events:
        name = (texts(event.get("type")) or [""])[0].lower()
        if not name.startswith("boundary") and _scalar(event.get("type")) != _BOUNDARY_CODE:
            continue
        latency = _scalar(event.get("latency"))
        if latency is None or not math.isfinite(latency):
            continue
        # Counted from 1, and between two samples: 100.5 parts the 100th from the 101st.
        sample = math.ceil(latency - 1 - 1e-6)
        duration = _scalar(event.get("duration"))
        if duration is not None and math.isfinite(duration) and duration > 0:
            gaps[sample] = (gaps.get(sample) or 0.0) + duration / found.rate
        else:
            gaps.setdefault(sample, None)
    return [Break(sample, gap) for sample, gap in gaps.items()]


READER = Reader(
    name="EEGLAB",
    suffixes=(".set",),
    matches=is_mat,
    read=read,
    expects="a MATLAB file of version 5 or later",
    companions=companions,
    takes=(
        "version 5 to 7.3, data inside or in a .fdt file",
        "rate from EEG.srate (else stated)",
        "names and types from EEG.chanlocs (else stated names)",
        "gaps from boundary events and their durations",
        "trials as windows",
        "the .fdt file of the .set's own name where the one it names is not there",
        "microvolts by convention (unless units are stated in the sheet or the config)",
    ),
    refuses=(
        "a cut or damaged file",
        "a .fdt file that is missing",
        "a .fdt file that is shorter (unless `allow_truncated`) or longer than the header says",
        "two differing .fdt files that could be meant",
        "an old .dat data file",
        "data that contradict nbchan, pnts or trials",
        "channel names that are missing or not as many as channels",
        "a missing rate",
        "several datasets in one file (ALLEEG)",
        "whole numbers (integers) without units in the sheet or the config",
        "two channels of one electrode",
        "no channel with an electrode's name",
    ),
)
