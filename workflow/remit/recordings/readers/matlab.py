"""Any .mat file of version 5 to 7.3 with a matrix of EEG: a variable, or a field of a struct.

Nothing in such a file says which variable is the EEG, which axis holds the channels or what the
numbers are in, so each is taken from names, never from the shape alone: the sheet's `entry` or the
only matrix that fits names the variable; the number of channel names decides the axis, and a
square matrix is refused; rate, names and unit come from fields beside it or around it, else from
the sheet or the config, and where both speak they must agree. Of an EEGLAB struct the activations
of its components look like the EEG and are not; its 'boundary' events are places where samples
were cut out. An entry is the MATLAB expression: `data`, `EEG.data`, `people(2).eeg`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from remit.errors import RemitError, did_you_mean, some_of
from remit.files import sha256_of
from remit.recordings import matfile
from remit.recordings.cohort import SheetRow
from remit.recordings.matfile import Stored, Struct
from remit.recordings.registry import Entry, Reader, ReaderOptions
from remit.recordings.through_mne import stated_references

if TYPE_CHECKING:
    import numpy as np

    from remit.recordings.recording import Recording, Segment

RATES = (
    *("fs", "srate", "sfreq", "fsample", "sampling_rate", "samplingrate", "samplerate"),
    *("sample_rate", "sampling_frequency", "samplingfrequency"),
)
NAMES = (
    *("chanlocs", "channels", "channel_names", "channelnames", "chan_names", "chnames"),
    *("ch_names", "labels", "label", "chanlabels", "channel_labels", "electrodes", "clab"),
)
UNITS = ("unit", "units", "data_unit", "data_units", "physical_unit", "ch_units")
IDS = ("id", "subject", "subject_id", "subj", "participant", "participant_id")
# What a numbered variable or struct array is called where its number is a person's.
PEOPLE = (
    *("subj", "subject", "sub", "s", "p", "pat", "patient", "participant", "person", "people"),
    *("id", "subjects", "subs", "pats", "patients", "participants", "ids"),
)
# Not a struct array of one letter, as in `s(1)`, which may be anything.
_PERSON = re.compile(rf"(?:{'|'.join(PEOPLE)})(?:_?\d+|(?<=..)\(\d+\))", re.IGNORECASE)
TIMES = ("times", "time", "t", "timestamps", "time_stamps")
# A struct beside the matrix that may hold rate, names and unit.
ABOUT = ("info", "hdr", "header", "meta", "metadata", "nfo", "setup", "params")
# Fields that look like EEG by their shape and are not, and structs that hold none.
NO_SIGNAL = {
    *(*RATES, *NAMES, *TIMES, *ABOUT),
    *("event", "events", "urevent", "epoch", "epochs", "icaact", "icaweights", "icasphere"),
    *("icawinv", "icachansind", "specdata", "specicaact", "reject", "stats", "etc", "history"),
    *("chaninfo", "dipfit", "cfg"),
}
TRIALS = ("trial", "trials")
PLAUSIBLE_HZ = (20.0, 50000.0)
_MOST_CHANNELS = 512
_FEWEST_SAMPLES = 100  # of a matrix that is taken for EEG without being asked for
_MOST_ELEMENTS = 1024
_DEEPEST = 6


@dataclass(frozen=True, eq=False)
class _Found:
    """Numbers in the file: an array, or the trials of a cell array.

    `scopes`: the fields beside it, then those around them, innermost first. `person`: the id that
    its element of a struct array has.
    """

    name: str
    values: tuple[Any, ...]
    scopes: tuple[dict[str, Any], ...]
    person: str | None

    @property
    def last(self) -> str:
        return re.sub(r"[({]\d+[)}]", "", self.name.rsplit(".", 1)[-1]).lower()

    @property
    def parts(self) -> list[str]:
        return self.name.split(".")

    def __str__(self) -> str:
        if len(self.values) > 1:
            return f"{self.name} ({len(self.values)} matrices)"
        return f"{self.name} ({matfile.described(self.values[0])})"


def matches(path: Path) -> bool:
    """Whether the file begins as a .mat file does (version 5 to 7.3)."""
    return matfile.is_mat(path)


def entries(path: Path, options: ReaderOptions) -> list[Entry]:
    """The recordings in the file, without labels.

    A single matrix belongs to the participant that the file is named for. Matrices whose names
    differ by a person's number only (`subj01`, `subj02`) and the elements of a struct array with
    an id belong to one participant each. Raises RemitError where there is no matrix, or several
    that are no such series: `rest1` and `rest2` are as well two recordings of one person.
    """
    found = list(_all(path))
    plausible = [item for item in found if _plausible(item, options)]
    # An element of a struct array that does not fit is listed too, so that reading says why.
    arrays = {_pattern(item.name) for item in plausible if "(" in item.name}
    series = [
        item
        for item in found
        if item in plausible or (_pattern(item.name) in arrays and _any(item))
    ]
    if not series:
        raise _no_matrix(path, found, options)
    if len(series) == 1 and "(" not in series[0].name:
        return [Entry(series[0].name, path.stem, None)]
    patterns = {_pattern(item.name) for item in series}
    varying = {
        index
        for item in series
        for index, part in enumerate(item.parts)
        if len(series) > 1 and part != series[0].parts[min(index, len(series[0].parts) - 1)]
    }
    if len(patterns) > 1 or len(varying) > 1 or any("{" in pattern for pattern in patterns):
        raise _several(path, series)
    people = [item.person or item.parts[next(iter(varying), 0)] for item in series]
    if not all(
        item.person or _PERSON.fullmatch(name) for item, name in zip(series, people, strict=True)
    ):
        raise RemitError(
            f"{path}: holds a series of matrices, {some_of(map(str, series))}, and whether they are "
            "several people's or several recordings of one it does not say; expected names such as "
            "subj01, or a field 'id' beside each; write them as entries, one row each, into the "
            "cohort sheet."
        )
    return [Entry(item.name, name, None) for item, name in zip(series, people, strict=True)]


def read(row: SheetRow, options: ReaderOptions) -> Recording:
    """The matrix that the row's entry names, or the only one that fits.

    Raises RemitError for no or several such matrices, an entry that is not there or is no matrix
    of real numbers, an axis of channels that cannot be told, missing or contradicting rate, names
    or units, whole numbers without a unit, and a damaged file.
    """
    import numpy as np

    from remit.recordings.missing import without_missing
    from remit.recordings.recording import Recording
    from remit.recordings.units import in_microvolts

    path = Path(row.path)
    found = _chosen(path, row.entry, options)
    where = f"{path}: {found.name}"
    names, notes = _names(where, found, options)
    rate = _rate(where, found, options)
    unit = _unit(where, found, options)
    signal_CS, edges, prewindowed, said = _signal(where, found, names)
    notes = [f"The EEG is {found}.", *notes, *said]
    if unit is None and signal_CS.dtype.kind in "iu":
        raise RemitError(
            f"{where}: holds whole numbers ({signal_CS.dtype.name}) without a unit, as raw counts "
            "are; expected a unit; state the microvolts of one count as units, such as "
            "'0.02235 uV', in the cohort sheet or cohorts.<name>.units."
        )
    rate, segments, said = _segments(where, found, rate, edges, prewindowed)
    notes += said
    rows, channels, left_out = _electrodes(where, names)
    if signal_CS.shape[1] < 1:
        raise RemitError(f"{where}: holds no sample; expected some; leave this recording out.")
    signal_CS = signal_CS[rows]
    own = [names[row] for row in rows]
    notes += stated_references(own)
    present = without_missing(signal_CS, own, segments, rate, where, windows=prewindowed)
    left_out += tuple(name for row, name in enumerate(own) if row not in present.rows)
    channels = tuple(channels[row] for row in present.rows)
    notes += present.notes
    signal_CS, said = in_microvolts(present.signal_CS, rate, unit, where)
    notes += said
    if found.person and found.person != row.participant:
        notes.append(f"The file calls this participant '{found.person}'.")
    return Recording(
        participant=row.participant,
        recording=row.recording,
        signal_CS=np.ascontiguousarray(signal_CS, dtype=np.float32),
        sampling_rate=rate,
        channels=channels,
        segments=present.segments,
        prewindowed=prewindowed,
        simulated=False,
        source_sha256=sha256_of(path),
        left_out=left_out,
        notes=tuple(notes),
    )


# What is in the file -----------------------------------------------------------------------------


def _all(path: Path) -> Iterator[_Found]:
    """Every array of real numbers in the file."""
    contents = matfile.load(path)
    for name, value in contents.items():
        yield from _walk(name, value, (contents,), None, 0)


def _walk(
    name: str, value: Any, scopes: tuple[dict[str, Any], ...], person: str | None, depth: int
) -> Iterator[_Found]:
    last = re.sub(r"[({]\d+[)}]", "", name.rsplit(".", 1)[-1]).lower()
    if matfile.is_numbers(value):
        yield _Found(name, (value,), scopes, person)
    elif depth >= _DEEPEST or last in NO_SIGNAL:
        return
    elif isinstance(value, Struct) and value.size <= _MOST_ELEMENTS:
        for index, fields in enumerate(value.elements(), 1):
            inner = f"{name}({index})" if value.size > 1 else name
            someone = person or _person(fields)
            for field, item in fields.items():
                yield from _walk(f"{inner}.{field}", item, (fields, *scopes), someone, depth + 1)
    elif matfile.is_cell(value) and value.size <= _MOST_ELEMENTS:
        items = list(value.ravel(order="F"))
        if last in TRIALS and items and all(matfile.is_numbers(item) for item in items):
            yield _Found(name, tuple(items), scopes, person)
            return
        for index, item in enumerate(items, 1):
            yield from _walk(f"{name}{{{index}}}", item, scopes, person, depth + 1)


def _person(fields: dict[str, Any]) -> str | None:
    lower = {name.lower(): value for name, value in fields.items()}
    for name in IDS:
        value = lower.get(name)
        text = matfile.texts(value)
        if text is not None and len(text) == 1 and re.search(r"[A-Za-z0-9]", text[0]):
            return text[0]
        number = _scalar(value)
        if number is not None and number == int(number):
            return str(int(number))
    return None


def _scalar(value: Any) -> float | None:
    """One finite number, or None."""
    if not matfile.is_numbers(value) or value.size != 1:
        return None
    number = float(matfile.numbers(value).item())
    return number if math.isfinite(number) else None


def _pattern(name: str) -> str:
    return re.sub(r"\d+", "#", name)


def _any(found: _Found) -> bool:
    return any(value.size for value in found.values)


def _plausible(found: _Found, options: ReaderOptions) -> bool:
    """Whether it may be taken for EEG without being asked for by name."""
    if found.last in NO_SIGNAL or not all(value.ndim in (2, 3) for value in found.values):
        return False
    counts = {len(names) for _, names in _names_beside(found)}
    if not counts and options.channel_names:
        counts = {len(options.channel_names)}
    for value in found.values:
        shape = sorted(value.shape)
        if shape[0] < 1 or (shape[-1] < _FEWEST_SAMPLES and value.ndim == 2 and not counts):
            return False
        if counts and not any(count in value.shape and count < shape[-1] for count in counts):
            return False
        if not counts and (shape[0] < 2 or shape[0] > _MOST_CHANNELS):
            return False
        if not counts and value.ndim == 2 and shape[-1] < 4 * shape[0]:
            return False
    return bool(found.values)


def _chosen(path: Path, entry: str | None, options: ReaderOptions) -> _Found:
    found = list(_all(path))
    if entry is None:
        plausible = [item for item in found if _plausible(item, options)]
        if not plausible:
            raise _no_matrix(path, found, options)
        if len(plausible) > 1:
            raise _several(path, plausible)
        return plausible[0]
    named = {item.name: item for item in found}
    if entry in named:
        return named[entry]
    inside = [
        item
        for item in found
        if item.name.startswith((f"{entry}.", f"{entry}(", f"{entry}{{"))
        and _plausible(item, options)
    ]
    if len(inside) == 1:
        return inside[0]
    if inside:
        raise _several(path, inside)
    root = re.split(r"[.({]", entry, maxsplit=1)[0]
    what = f"has no entry '{entry}'"
    value = matfile.load(path, [root]).get(root)
    if value is not None and root == entry:
        what = f"'{entry}' is {matfile.described(value)}"
    raise RemitError(
        f"{path}: {what}; expected a matrix of real numbers, one of {some_of(named)}; set the entry "
        f"in the cohort sheet.{did_you_mean(entry, named)}"
    )


def _no_matrix(path: Path, found: Sequence[_Found], options: ReaderOptions) -> RemitError:
    import numpy as np

    contents = matfile.load(path)
    for name, value in contents.items():
        data = value.element(0).get("data") if isinstance(value, Struct) and value.size else None
        if isinstance(data, np.ndarray) and (text := matfile.texts(data)) and text[0]:
            return RemitError(
                f"{path}: {name}.data says that the samples are in the file '{text[0][:100]}'; "
                "expected the samples themselves; read the EEGLAB .set file beside it instead."
            )
    names = options.channel_names
    expected = "a matrix with one row or column per channel"
    if names:
        expected = f"a matrix with one axis of length {len(names)}, as there are channel names"
    listed = [str(item) for item in found]
    if not found:
        listed = [f"{name} ({matfile.described(value)})" for name, value in contents.items()]
    return RemitError(
        f"{path}: no matrix in it looks like EEG; it has {some_of(listed)}; expected {expected}; name the "
        "matrix as the entry in the cohort sheet, or correct channel_names."
    )


def _several(path: Path, found: Sequence[_Found]) -> RemitError:
    return RemitError(
        f"{path}: holds several matrices that may be EEG, {some_of(map(str, found))}; expected one; set the "
        "entry in the cohort sheet."
    )


# What is said of it ------------------------------------------------------------------------------


def _levels(found: _Found) -> Iterator[dict[str, Any]]:
    """Fields that may speak of the matrix, the nearest first, by their names in lower case."""
    for scope in found.scopes:
        lower = {name.lower(): value for name, value in scope.items()}
        yield lower
        for name in ABOUT:
            about = lower.get(name)
            if isinstance(about, Struct) and about.size == 1:
                yield {key.lower(): value for key, value in about.element(0).items()}


def _names_beside(found: _Found) -> list[tuple[str, list[str]]]:
    """Lists of channel names in the nearest fields that have some, each with its field."""
    for fields in _levels(found):
        lists = [(name, _name_list(fields[name])) for name in NAMES if name in fields]
        there = [(name, names) for name, names in lists if names]
        if there:
            return [(name, names) for name, names in there if names is not None]
    return []


def _name_list(value: Any) -> list[str] | None:
    if isinstance(value, Struct):
        inner = next(
            (name for name in value.names if name.lower() in ("labels", "label", "name")), ""
        )
        if not inner or value.size > _MOST_ELEMENTS:
            return None
        rows = [matfile.texts(item) for item in value.column(inner)]
        return None if any(row is None for row in rows) else [(row or [""])[0] for row in rows]
    names = matfile.texts(value)
    if names is not None and len(names) == 1:
        return [name for name in re.split(r"[,;\s]+", names[0]) if name]
    return names


def _names(where: str, found: _Found, options: ReaderOptions) -> tuple[tuple[str, ...], list[str]]:
    """Channel names in the order of the file, from the file or else the options."""
    given = options.channel_names
    shapes = {length for value in found.values for length in value.shape}
    beside = _names_beside(found)
    fitting = [item for item in beside if len(item[1]) in shapes]
    different = {tuple(names) for _, names in fitting}
    if len(different) > 1:
        raise RemitError(
            f"{where}: its fields {some_of(name for name, _ in fitting)} name different channels; "
            "expected one list; remove one."
        )
    if beside and not fitting:
        field, names = beside[0]
        raise RemitError(
            f"{where}: is {matfile.described(found.values[0])}, and '{field}' names {len(names)} "
            "channels; expected one axis of that length; correct one of them."
        )
    if not fitting:
        if not given:
            raise RemitError(
                f"{where}: is {matfile.described(found.values[0])}, and no channel names as text "
                "are beside it; expected them; set channel_names in the cohort sheet or "
                "cohorts.<name>.channel_names, in the order of the file."
            )
        return tuple(given), []
    field, names = fitting[0]
    if given and _plain(given) != _plain(names):
        raise RemitError(
            f"{where}: '{field}' names the channels {some_of(names)}; the sheet or config says "
            f"{some_of(given)}; expected the same; correct channel_names or leave it empty."
        )
    return tuple(names), [f"Channel names are those of '{field}'."]


def _plain(names: Sequence[str]) -> list[str]:
    from remit.recordings.channels import electrodes

    found = electrodes(names)
    return [channel or name.strip().lower() for name, channel in zip(names, found, strict=True)]


def _electrodes(
    where: str, names: Sequence[str]
) -> tuple[list[int], tuple[str, ...], tuple[str, ...]]:
    """Rows of the electrodes, their 10-10 names, and the names that are none."""
    from remit.recordings.channels import electrodes

    rows: dict[str, int] = {}
    left_out = []
    for index, (name, channel) in enumerate(zip(names, electrodes(names), strict=True)):
        if channel is None:
            left_out.append(name or f"channel {index + 1}")
        elif channel in rows:
            raise RemitError(
                f"{where}: channels '{names[rows[channel]]}' and '{name}' are both {channel}; "
                "expected each electrode once; rename or remove one."
            )
        else:
            rows[channel] = index
    if not rows:
        raise RemitError(
            f"{where}: no EEG channel; its channels are {some_of(names, 20)}; expected 10-10 names "
            "such as AF7; rename them, or set channel_names."
        )
    return list(rows.values()), tuple(rows), tuple(left_out)


def _rate(where: str, found: _Found, options: ReaderOptions) -> float | None:
    given = options.sampling_rate
    for fields in _levels(found):
        stated = {name: fields[name] for name in RATES if name in fields}
        numbers: dict[str, float] = {}
        for name, value in stated.items():
            number = _scalar(value)
            if number is None or not PLAUSIBLE_HZ[0] <= number <= PLAUSIBLE_HZ[1]:
                shown = matfile.described(value) if number is None else f"{number:g}"
                raise RemitError(
                    f"{where}: the sampling rate '{name}' is {shown}; expected one number of "
                    f"{PLAUSIBLE_HZ[0]:g} to {PLAUSIBLE_HZ[1]:g} Hz; correct it."
                )
            numbers[name] = number
        if given is not None and numbers:
            numbers["sampling_rate of the sheet or config"] = given
        if numbers:
            values = list(numbers.values())
            if max(values) - min(values) > 1e-4 * max(values):
                said = some_of(f"'{name}' {number:g} Hz" for name, number in numbers.items())
                raise RemitError(
                    f"{where}: sampling rates differ: {said}; expected the same; correct one."
                )
            return values[0]
    return given


def _unit(where: str, found: _Found, options: ReaderOptions) -> str | None:
    from remit.recordings.units import UNSTATED, parse

    given = options.units
    for fields in _levels(found):
        for name in UNITS:
            lines = matfile.texts(fields.get(name)) or []
            said = sorted({line for line in lines if line.lower() not in UNSTATED})
            if len(said) > 1:
                raise RemitError(
                    f"{where}: '{name}' says {some_of(said)}; expected one unit for all channels; "
                    "convert them to one."
                )
            if said and given and parse(said[0]) is not None and parse(said[0]) != parse(given):
                raise RemitError(
                    f"{where}: '{name}' says '{said[0]}', the sheet or config '{given}'; expected "
                    "the same unit; correct one."
                )
            if said:
                return given or said[0]
    return given


# Samples and their places in time ------------------------------------------------------------------


def _signal(
    where: str, found: _Found, names: Sequence[str]
) -> tuple[np.ndarray, list[int], bool, list[str]]:
    """Signal [C, S] in the file's numbers, the edges of its windows, whether they are windows."""
    import numpy as np

    count = len(names)
    if len(found.values) == 1 and found.values[0].ndim == 3:
        return _trials(where, found, count)
    axes = {_channel_axis(where, value, count) for value in found.values}
    if len(axes) > 1:
        raise RemitError(
            f"{where}: its matrices lie in different orientations; expected one; correct them."
        )
    turned = axes == {1}
    parts = [matfile.numbers(value) for value in found.values]
    parts = [part.T if turned else part for part in parts]
    edges = np.cumsum([0, *(part.shape[1] for part in parts)]).tolist()
    notes = [f"The matrix is [{'samples, channels' if turned else 'channels, samples'}]."]
    signal_CS = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    return signal_CS, edges, len(parts) > 1, notes


def _channel_axis(where: str, value: Any, count: int) -> int:
    axes = [axis for axis, length in enumerate(value.shape) if length == count]
    if value.ndim == 2 and len(axes) == 1:
        return axes[0]
    if value.ndim != 2:
        why = "has not two axes"
    elif axes:
        why = f"has {count} rows and {count} columns, so names cannot tell rows from columns"
    else:
        why = "has no axis of that length"
    raise RemitError(
        f"{where}: is {matfile.described(value)} and {why}; expected one axis of length {count}, as "
        "there are channel names; correct the names or the matrix."
    )


def _trials(where: str, found: _Found, count: int) -> tuple[np.ndarray, list[int], bool, list[str]]:
    """An array of three axes, one trial after another."""
    import numpy as np

    value = found.values[0]
    axes = [axis for axis, length in enumerate(value.shape) if length == count]
    order: tuple[int, int, int] | None = None  # channels, samples, trials
    evidence = ""
    if len(axes) == 1:
        others = [axis for axis in range(3) if axis != axes[0]]
        samples = _stated_samples(found, [value.shape[axis] for axis in others])
        if samples is not None and value.shape[others[0]] != value.shape[others[1]]:
            first, second = others if value.shape[others[0]] == samples else reversed(others)
            order, evidence = (axes[0], first, second), "as the fields beside it say"
        elif samples is None and axes[0] == 0 and value.shape[1] >= 2 * value.shape[2]:
            order, evidence = (0, 1, 2), "as EEGLAB and MATLAB toolboxes have it"
    if order is None:
        raise RemitError(
            f"{where}: is {matfile.described(value)} with {count} channel names, which does not "
            "tell channels, samples and trials apart; expected [channels, samples, trials] with "
            "more samples than trials, or a field 'pnts'; save it so."
        )
    array_CST = np.transpose(matfile.numbers(value), order)
    samples, trials = array_CST.shape[1:]
    signal_CS = array_CST.transpose(0, 2, 1).reshape(count, samples * trials)
    edges = [samples * trial for trial in range(trials + 1)]
    names = ["", "", ""]
    for name, axis in zip(("channels", "samples", "trials"), order, strict=True):
        names[axis] = name
    return signal_CS, edges, True, [f"The array is [{', '.join(names)}], {evidence}."]


def _stated_samples(found: _Found, lengths: Sequence[int]) -> int | None:
    """Which of two lengths is that of a trial, by a field that says it."""
    fields = next(_levels(found))
    said = {_scalar(fields.get(name)) for name in ("pnts", "nsamples", "n_samples", "samples")}
    vectors = [fields.get(name) for name in TIMES]
    said |= {float(vector.size) for vector in vectors if _is_vector(vector)}
    fitting = {int(number) for number in said if number is not None and number in lengths}
    counts = {_scalar(fields.get(name)) for name in ("trials", "ntrials", "n_trials")}
    if not fitting:
        fitting = {
            other
            for other, length in (lengths, reversed(lengths))
            if length in counts and length != other
        }
    return fitting.pop() if len(fitting) == 1 else None


def _segments(
    where: str, found: _Found, rate: float | None, edges: list[int], prewindowed: bool
) -> tuple[float, tuple[Segment, ...], list[str]]:
    """Rate in Hz, segments, and what is to be said of them."""
    from remit.recordings.recording import Segment

    total = edges[-1]
    cuts = {} if prewindowed else _boundaries(found, total)
    # EEGLAB's times go on evenly over its boundaries.
    stamps_S = None if prewindowed or cuts else _stamps(found, total)
    if stamps_S is not None:
        return _timed(where, rate, stamps_S)
    if rate is None:
        raise RemitError(
            f"{where}: no sampling rate is beside it; expected one; set sampling_rate in the cohort "
            "sheet or cohorts.<name>.sampling_rate."
        )
    notes = []
    gaps = [0.0] * len(edges)  # seconds that were cut out before each edge
    if prewindowed:
        notes.append(
            f"The file holds {len(edges) - 1} windows without their times; onsets are as if they "
            "followed one another."
        )
    else:
        edges = sorted({*edges, *cuts})
        gaps = [cuts.get(edge, 0.0) / rate for edge in edges]
        if cuts:
            notes.append(f"{len(cuts)} 'boundary' events each end a segment.")
    segments, lost = [], 0.0
    for (start, stop), gap in zip(pairwise(edges), gaps[:-1], strict=True):
        lost += gap
        segments.append(Segment(start, stop, round(start / rate + lost, 6)))
    return rate, tuple(segments), notes


def _boundaries(found: _Found, total: int) -> dict[int, float]:
    """First sample after each of EEGLAB's boundary events, and the samples that are cut out."""
    events = next(_levels(found)).get("event")
    if not isinstance(events, Struct) or not {"type", "latency"} <= set(events.names):
        return {}
    chosen = []
    for index, kind in enumerate(events.column("type")):
        text = matfile.texts(kind)
        if text == ["boundary"] or (text is None and _scalar(kind) == -99):
            chosen.append(index)
    lost: list[Any] = [None] * len(chosen)
    if "duration" in events.names:
        lost = events.column("duration", chosen)
    cuts: dict[int, float] = {}
    for latency, samples in zip(events.column("latency", chosen), lost, strict=True):
        place = _scalar(latency)
        # Counted from 1; 100.5 lies behind the 100th sample.
        first = 0 if place is None else math.ceil(place) - 1
        if 0 < first < total:
            cuts[first] = cuts.get(first, 0.0) + max(0.0, _scalar(samples) or 0.0)
    return cuts


def _stamps(found: _Found, total: int) -> np.ndarray | None:
    """A vector of times beside the matrix, one for each sample, float64."""
    import numpy as np

    for fields in _levels(found):
        for name in TIMES:
            value = fields.get(name)
            if _is_vector(value) and value.size == total > 1:
                return matfile.numbers(value).astype(np.float64).ravel()
    return None


def _is_vector(value: Any) -> TypeGuard[np.ndarray | Stored]:
    return matfile.is_numbers(value) and value.size == max(value.shape)


def _timed(
    where: str, rate: float | None, stamps_S: np.ndarray
) -> tuple[float, tuple[Segment, ...], list[str]]:
    """Rate and segments from times in seconds, milliseconds or samples, whichever fits."""
    import numpy as np

    from remit.recordings.clock import FEWEST_ROWS, measure
    from remit.recordings.clock import PLAUSIBLE_HZ as CLOCK_HZ
    from remit.recordings.recording import Segment

    if not np.isfinite(stamps_S).all():
        raise RemitError(
            f"{where}: the times beside it hold values that are no number; expected one time per "
            "sample; correct or remove them."
        )
    step = float(np.median(np.diff(stamps_S)))
    units = {"seconds": 1.0, "milliseconds": 1e-3}
    if rate is not None:
        units["samples"] = 1.0 / rate
        fitting = [unit for unit, each in units.items() if abs(step * each * rate - 1) < 0.05]
    else:
        fitting = [
            unit
            for unit, each in units.items()
            if step > 0 and CLOCK_HZ[0] <= 1 / (step * each) <= CLOCK_HZ[1] and step != 1
        ]
    if not fitting:
        stated = "no rate is stated" if rate is None else f"the stated rate is {rate:g} Hz"
        raise RemitError(
            f"{where}: the times beside it advance by {step:g} per sample, and {stated}; expected "
            "times in seconds or milliseconds that fit; correct the rate or the times."
        )
    stamps_S = stamps_S * units[fitting[0]]
    known = rate or 1 / (step * units[fitting[0]])
    if CLOCK_HZ[0] <= known <= CLOCK_HZ[1] and stamps_S.size >= FEWEST_ROWS:
        timing = measure(stamps_S, (known if rate else round(known),), where)
        _check_same(where, rate, timing.sampling_rate)
        return timing.sampling_rate, timing.segments, list(timing.notes)
    if np.abs(np.diff(stamps_S) * known - 1).max() > 0.5:
        raise RemitError(
            f"{where}: the times beside it are uneven; expected steps of {1 / known:g} s; cut the "
            "recording at its gaps."
        )
    _check_same(where, rate, (stamps_S.size - 1) / float(stamps_S[-1] - stamps_S[0]))
    return known, (Segment(0, stamps_S.size, 0.0),), []


def _check_same(where: str, stated: float | None, measured: float) -> None:
    from remit.recordings.clock import SAME_RATE, same_rate

    if stated is not None and not same_rate(measured, stated):
        raise RemitError(
            f"{where}: the times beside it give {measured:.6g} Hz, the stated rate is {stated:g} Hz; "
            f"expected them within {SAME_RATE:.1%}; correct the rate or the times."
        )


READER = Reader(
    name="MATLAB .mat",
    suffixes=(".mat",),
    matches=matches,
    read=read,
    entries=entries,
    expects="a MATLAB file of version 5 to 7.3",
    fallback=True,
    takes=(
        "a matrix [channels, samples] or [samples, channels], by the number of channel names",
        "a variable, a field of a struct, an element of a struct array, an EEGLAB or FieldTrip struct",
        "a participant for each of subj01, subj02 and for each element of a struct array with an id",
        "[channels, samples, trials] and cells of trials as windows of their own",
        "rate, channel names and unit from fields beside the matrix, else the sheet or the config",
        "gaps from times beside the matrix, EEGLAB's boundary events and missing values (NaN)",
        "files of version 5 to 7.3 (HDF5)",
    ),
    refuses=(
        "several matrices that may be EEG",
        "a series whose numbers are not people's (rest1, rest2), unless the sheet names the entries",
        "no matrix that looks like EEG",
        "an entry that is not there or is no real numbers (complex, sparse, text, logical)",
        "a square matrix",
        "an axis that no number of channel names fits",
        "three axes that cannot be told apart",
        "no channel names, or two lists that differ",
        "no rate, or two rates that differ",
        "two units that differ",
        "whole numbers without a unit, whatever their type",
        "two channels of one electrode",
        "times that are more than 0.5 % off the rate",
        "samples in another file (.fdt)",
        "a cut or damaged file (with `allow_truncated` too)",
    ),
)
