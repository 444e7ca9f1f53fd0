"""Any other CSV: one column per electrode, or one row per electrode, with or without time stamps.

Nothing says what such a file is, so everything is looked for and nothing guessed: the delimiter
(`,` `;` or tab) by which the header gives electrodes, the decimal sign by the numbers, electrodes
by their names, the unit by the header (`AF7 (uV)`), the sheet or the size of the numbers, the rate
by the time stamps or the sheet. Traps: decimal commas, stamps in milliseconds, a stated rate that
the stamps contradict, no header at all, a header that only counts (0, 1, 2), electrodes in rows,
several people or epochs below each other, and tables of a headset's motion, pulse or markers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remit.errors import RemitError, some_of
from remit.files import sha256_of
from remit.recordings import table
from remit.recordings.cohort import SheetRow
from remit.recordings.registry import Reader, ReaderOptions

if TYPE_CHECKING:
    import numpy as np

    from remit.recordings.recording import Recording, Segment

# Hz; what amplifiers and headsets sample at. 250 and 256 are further apart than clocks err.
DEVICE_RATES = (
    *(128.0, 160.0, 200.0, 220.0, 250.0, 256.0, 300.0, 400.0, 500.0, 512.0, 600.0),
    *(1000.0, 1024.0, 1200.0, 2000.0, 2048.0, 5000.0),
)
# Without a device's own rate or a stated one, faster stamps are in minutes or the like.
FASTEST_UNKNOWN_HZ = 5500.0
SECONDS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("ms", "msec", "millisecond", "milliseconds"), 1e-3),
    **dict.fromkeys(("us", "µs", "μs", "usec", "microsecond", "microseconds"), 1e-6),
    **dict.fromkeys(("ns", "nsec", "nanosecond", "nanoseconds"), 1e-9),
}
# Shaped as an electrode's name.
_ELECTRODE = re.compile(
    r"^(?:(?:eeg|raw)[\s_:.-]*)?(?:fp|af|aff|f|ff|ft|fc|c|t|cp|tp|p|po|o|i|a|m)p?(?:z|\d{1,2})(?=$|[\s_.-])",
    re.IGNORECASE,
)
_TIME = re.compile(
    r"^(?:(?:lsl|unix|elapsed)[ _]?)?(?:times?|time[ _]?stamps?|t|date[ _]?time)"
    rf"(?:[ _]*[(\[]?\s*({'|'.join(SECONDS)})\s*[)\]]?)?$",
    re.IGNORECASE,
)
# Numbered channels or a device's sockets (BioSemi A1, EGI E1): channel_names can name them.
_CHANNEL = re.compile(r"^(?:eeg|ch|chan|(?:exg )?channel|[a-h])[ _.-]?\d+$", re.IGNORECASE)
_NO_EEG = re.compile(
    r"^(?:(?:acc|accel|accelerometer|gyro|gyroscope|mag)[ _.]?[xyz]?|[xyz]|ppg[ _.]?\w*|optics\d*)$",
    re.IGNORECASE,
)
# What Mind Monitor writes and nobody else: contact, and RAW columns of a Muse.
_MIND_MONITOR = re.compile(
    r"^(?:headbandon|hsi_.*|raw_(?:tp9|tp10|af7|af8|fp1|fp2))$", re.IGNORECASE
)
_PERSON = re.compile(
    r"^(?:(?:subject|subj|sub|participant|patient|person|user)(?:id|number|no|nr)?|id)$"
)
_EPOCH = re.compile(
    r"^(?:epoch|trial|segment|window|block|run|session)s?(?:id|index|number|no|nr)?$"
)
_UNIT = re.compile(r"^(.*?)\s*[(\[]\s*([^)\]]*?)\s*[)\]]$|^(.*?)[ _]([uµμmn]?V)$", re.IGNORECASE)
_LOOK_LINES = 64
_FEWEST_ROWS = 32  # fewer rows say nothing, whatever their names
_ROWS_FROM = 32  # cells: a row that begins like an electrode and is shorter may be a person's
MUSE_ORDER = ("timestamps", "TP9", "AF7", "AF8", "TP10", "AUX")


@dataclass
class _Parts:
    """What was found of a table, columns or rows alike."""

    names: list[str]
    by_channel: dict[str, int] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    time: int | None = None
    seconds: float | None = None  # in one unit of the time column, where its name says so
    person: list[int] = field(default_factory=list)  # columns that say whose the row is
    epoch: list[int] = field(default_factory=list)  # columns that number stretches of rows


def matches(path: Path) -> bool:
    """Whether the first lines look like EEG: electrodes, numbered channels, or numbers only.

    Those without electrodes can be read with `channel_names` alone, which are not known here.
    Raises RemitError for a table of motion, pulse or markers, for Mind Monitor's columns under a
    header that is not its own, and for numbers in too few rows.
    """
    lines = table.head(path)
    first, stated = table.first_line(lines)
    lines = [line for line in lines[first:] if line.strip()]
    if not lines:
        return False
    names: list[str] = []
    for delimiter in (stated,) if stated else table.DELIMITERS:
        rows = [table.cells(line, delimiter) for line in lines[:3]]
        if not rows[0]:
            continue
        if _names_electrodes(rows[0]):
            _refuse_mind_monitor(path, rows[0])
            return True
        if len(rows) > 1 and len(rows[1]) > _ROWS_FROM and _names_electrodes(rows[1][:1]):
            return True
        body = rows[1] if len(rows) > 1 else []
        if len(rows[0]) > 1 and _counts(rows[0]):
            if len(body) == len(rows[0]) and all(_number(cell, delimiter) for cell in body):
                _refuse_few(path, lines)
                return True
        elif len(rows[0]) > 1 and all(_number(cell, delimiter) for cell in rows[0]):
            _refuse_few(path, lines)
            return True
        numbered = any(_CHANNEL.match(_bare(cell)[0]) for cell in rows[0])
        if numbered and len(body) > 1 and all(_number(cell, delimiter) for cell in body[1:]):
            return True
        if any(_time_unit(cell) is not None or _NO_EEG.match(cell) for cell in rows[0]):
            names = rows[0] if len(rows[0]) > len(names) else names
    if len(names) > 1:
        raise _no_electrode(path, names)
    return False


def _names_electrodes(cells: Sequence[str]) -> bool:
    from remit.recordings.channels import electrodes

    bare = [_bare(cell)[0] for cell in cells if not table.is_number(cell)]
    return any(electrodes(bare))


def _counts(cells: Sequence[str]) -> bool:
    """Whether a first row is what pandas calls columns without names: 0, 1, 2, or '', 0, 1."""
    counted = cells[1:] if not cells[0] else cells
    if not all(table.is_number(cell) for cell in counted):
        return False
    numbers = [float(cell) for cell in counted]
    return not cells[0] or numbers in (
        [float(number) for number in range(len(numbers))],
        [float(number) for number in range(1, len(numbers) + 1)],
    )


def _refuse_mind_monitor(path: Path, header: Sequence[str]) -> None:
    found = [name for name in header if _MIND_MONITOR.match(name)]
    if found:
        raise RemitError(
            f"{path}: has Mind Monitor's columns ({table.listed(found, 4)}) under a header that is "
            "not Mind Monitor's or muse-lsl's; expected its time column to be 'TimeStamp', so that "
            "contact is read too; use the file as the app wrote it, or rename that column."
        )


def _refuse_few(path: Path, lines: Sequence[str]) -> None:
    whole = sum(map(len, lines)) < table.HEAD_BYTES // 4  # else what was looked at may be cut
    if whole and len(lines) < _FEWEST_ROWS:
        raise RemitError(
            f"{path}: holds {len(lines)} rows of numbers without names; expected a recording, one "
            "row per sample or the electrode's name at the start of each row; leave it out."
        )


def _no_electrode(path: Path, names: Sequence[str]) -> RemitError:
    other = [name for name in names if _NO_EEG.match(name)]
    if other:
        return RemitError(
            f"{path}: holds motion or pulse ({table.listed(other, 4)}) and no EEG; expected columns "
            "of electrodes such as AF7; leave it out."
        )
    return RemitError(
        f"{path}: its header names no electrode ({table.listed(names, 4)}); expected 10-10 names "
        "such as AF7; leave it out, or rename the columns if they are EEG."
    )


def read(row: SheetRow, options: ReaderOptions) -> Recording:
    """The electrodes in a table of numbers.

    `options.channel_names` gives one name for each column of a file without names; those that are
    no electrode are left out. Where the file has names, they must be the same.
    `options.sampling_rate` is needed where there is no time column.
    Raises RemitError for what is not stated and cannot be told, for a stated rate, unit or name
    that the file contradicts, for rows of several people, and for what `table` and `clock` refuse.
    """
    import numpy as np

    from remit.recordings.clock import cut_missing
    from remit.recordings.recording import Recording
    from remit.recordings.units import in_microvolts

    path = Path(row.path)
    source = str(path)
    text = table.load(path, options.allow_truncated)
    layout = _layout(path, options)
    notes = list(text.notes)
    if _in_rows(layout):
        parts, found = _read_rows(text, layout, options)
        notes.append("The electrodes are in rows; the table is turned.")
    else:
        parts, found = _read_columns(text, layout, options)
    by_channel, empty = table.without_empty(parts.by_channel, found, parts.names, source)
    signal_CS = np.stack([found[index] for index in by_channel.values()])
    _refuse_people(path, parts, found)
    changes, counted = _changes(parts, found)
    rate, whole, told = _timing(path, parts, found, signal_CS, options, changes)
    whole = _split(whole, changes, rate)
    segments, kept_S, missing = cut_missing(whole, np.isnan(signal_CS).any(axis=0), rate)
    if not kept_S.all():
        signal_CS = signal_CS[:, kept_S]
    if not segments:
        raise RemitError(
            f"{path}: no row holds a sample of every channel ({some_of(by_channel)}); expected "
            "channels that were recorded together; remove the column that is mostly empty."
        )
    unit = _unit(path, parts, options)
    signal_CS, scaled = in_microvolts(signal_CS, rate, unit, source)
    used = {*by_channel.values(), *([] if parts.time is None else [parts.time])}
    return Recording(
        participant=row.participant,
        recording=row.recording,
        signal_CS=signal_CS,
        sampling_rate=rate,
        channels=tuple(by_channel),
        segments=segments,
        prewindowed=False,
        simulated=False,
        source_sha256=sha256_of(path),
        left_out=tuple(
            name for index, name in enumerate(parts.names) if name and index not in used
        ),
        notes=(*notes, *empty, *counted, *told, *missing, *scaled),
    )


def _number(cell: str, delimiter: str) -> bool:
    return (
        cell in table.MISSING
        or table.is_number(cell)
        or (delimiter != "," and table.is_comma_number(cell))
    )


def _bare(cell: str) -> tuple[str, str]:
    """A column's name without its unit, and the unit, empty where there is none."""
    found = _UNIT.match(cell)
    if not found:
        return cell, ""
    name, unit = (found[1], found[2]) if found[1] is not None else (found[3], found[4])
    return (name.strip(), unit) if name.strip() else (cell, "")


def _time_unit(cell: str) -> str | None:
    """The unit that the name of a time column states, '' for none; None where it is no time."""
    if cell.strip().lower() in SECONDS and cell.strip().lower() != "min":  # may be a minimum
        return cell.strip().lower()
    found = _TIME.match(cell.strip())
    if not found:
        return None
    return (found[1] or "").lower()


def _layout(path: Path, options: ReaderOptions) -> table.Start:
    lines = table.head(path)
    before, stated = table.first_line(lines)
    if before == len(lines):
        raise RemitError(
            f"{path}: holds blank lines only; expected a table; copy it again or leave it out."
        )
    first = lines[before]
    delimiter = stated or _delimiter(path, first, lines[before + 1 :], options)
    found = table.cells(first, delimiter)
    headless = len(found) > 0 and all(_number(cell, delimiter) for cell in found)
    headless = headless and not (len(found) > 1 and _counts(found))
    after = [line for line in lines[before + (not headless) :] if line.strip()][:_LOOK_LINES]
    return table.Start(
        delimiter,
        table.decimal_sign(path, after, delimiter),
        before if headless else before + 1,
        () if headless else tuple(found),
        tuple(after),
    )


def _delimiter(path: Path, first: str, rest: Sequence[str], options: ReaderOptions) -> str:
    """The sign between cells: the one by which the first line makes most sense."""
    there = [each for each in table.DELIMITERS if each in first]
    if len(there) < 2:
        return there[0] if there else ","
    score: dict[str, int] = {}
    for each in there:
        found = table.cells(first, each)
        bare = [_bare(cell)[0] for cell in found]
        score[each] = sum(bool(_ELECTRODE.match(cell)) for cell in bare)
        score[each] += sum(_time_unit(cell) is not None for cell in found)
        if len(found) > 1 and all(_number(cell, each) for cell in found):
            score[each] += len(found)
        if options.channel_names and len(found) == len(options.channel_names):
            score[each] += 1
    best = max(score.values())
    chosen = [each for each in there if score[each] == best]
    if len(chosen) > 1 or not best:
        signs = " and ".join("tab" if each == "\t" else f"'{each}'" for each in chosen)
        raise RemitError(
            f"{path}: the first line can be split at {signs} alike; expected one sign between "
            "cells; export it again with one."
        )
    return chosen[0]


def _in_rows(layout: table.Start) -> bool:
    """Whether electrodes are in rows: a name and then numbers."""
    for line in (layout.delimiter.join(layout.header), *layout.lines[:2]):
        found = table.cells(line, layout.delimiter)
        if len(found) > 1 and _ELECTRODE.match(found[0]) and _number(found[1], layout.delimiter):
            return True
    return False


def _add(path: Path, parts: _Parts, index: int, cell: str, channel: str | None) -> None:
    """Find out what a column (or row) of this name is; `channel` is its electrode."""
    from remit.recordings.units import parse

    if channel is not None:
        if channel in parts.by_channel:
            raise RemitError(
                f"{path}: '{table.shown(parts.names[parts.by_channel[channel]])}' and "
                f"'{table.shown(cell)}' are both {channel}; expected each electrode once; rename "
                "or remove one."
            )
        parts.by_channel[channel] = index
        unit = _bare(cell)[1]
        if unit and parse(unit) is not None:
            parts.units[channel] = unit
        return
    plain = re.sub(r"[\W_]+", "", cell).lower()
    if _PERSON.match(plain):
        parts.person.append(index)
    elif _EPOCH.match(plain):
        parts.epoch.append(index)
    time = _time_unit(cell)
    if time is None:
        return
    if parts.time is not None:
        raise RemitError(
            f"{path}: '{table.shown(parts.names[parts.time])}' and '{table.shown(cell)}' are both "
            "times; expected one; rename or remove the other."
        )
    parts.time, parts.seconds = index, SECONDS.get(time)


def _parts(path: Path, names: Sequence[str]) -> _Parts:
    """What the columns (or rows) of these names are."""
    from remit.recordings.channels import electrodes

    parts = _Parts(list(names))
    channels = electrodes([_bare(cell)[0] for cell in names])
    for index, (cell, channel) in enumerate(zip(names, channels, strict=True)):
        _add(path, parts, index, cell, channel)
    return parts


def _check_names(path: Path, parts: _Parts, options: ReaderOptions) -> None:
    """Refuse stated names that are not those in the file."""
    from remit.recordings.channels import electrodes

    if options.channel_names is None:
        return
    stated = [channel for channel in electrodes(options.channel_names) if channel]
    if stated != list(parts.by_channel):
        raise RemitError(
            f"{path}: the file names the electrodes {table.listed(parts.by_channel)}, but "
            f"channel_names states {table.listed(options.channel_names)}; expected the same in the "
            "same order; correct channel_names or remove it."
        )


def _read_columns(
    text: table.Text, layout: table.Start, options: ReaderOptions
) -> tuple[_Parts, dict[int, np.ndarray]]:
    path = text.path
    stated = options.channel_names
    parts = _parts(path, layout.header)
    if parts.by_channel:
        _check_names(path, parts, options)
    if not parts.by_channel:
        count = len(layout.header or table.cells(layout.lines[0], layout.delimiter))
        if stated is None:
            what = "its header names no electrode" if layout.header else "has no header"
            example = "timestamps,AF7,AF8" if count > 6 else ",".join(MUSE_ORDER[:count])
            muse = " (the order of muse-lsl)" if count in (5, 6) else ""
            raise RemitError(
                f"{path}: {what} ({table.listed(layout.header or layout.lines[:1], 4)}); expected 10-10 "
                f"names; state one for each of its {count} columns as channel_names in the cohort "
                f"sheet or cohorts.<name>.channel_names, such as {example}{muse}."
            )
        if len(stated) != count:
            raise RemitError(
                f"{path}: has {count} columns, but channel_names states {len(stated)} "
                f"({table.listed(stated)}); expected one name for each column, the time too; correct "
                "channel_names."
            )
        parts = _parts(path, stated)
    if not parts.by_channel:
        raise RemitError(
            f"{path}: no column is an EEG electrode ({table.listed(parts.names)}); expected 10-10 names "
            "such as AF7; correct the header or channel_names."
        )
    kinds: dict[int, table.Kind] = dict.fromkeys(parts.by_channel.values(), "sample")
    if parts.time is not None:
        kinds[parts.time] = _time_kind(path, layout, parts)
    kinds |= dict.fromkeys([*parts.person, *parts.epoch], "text")
    return parts, table.columns(
        text,
        parts.names,
        kinds,
        header_lines=layout.header_lines,
        delimiter=layout.delimiter,
        decimal=layout.decimal,
    )


def _time_kind(path: Path, layout: table.Start, parts: _Parts) -> table.Kind:
    index = parts.time or 0
    shown = [table.cells(line, layout.delimiter) for line in layout.lines]
    kind, cell = table.time_kind(shown, index, layout.decimal)
    if kind is not None:
        if kind != "number":
            parts.seconds = 1.0
        return kind
    raise RemitError(
        f"{path}: the times in column {table.shown(parts.names[index])} are such as "
        f"'{table.shown(cell, 40)}'; expected seconds, or a date and time such as "
        "2018-11-22 17:21:18.123; export them so."
    )


def _read_rows(
    text: table.Text, layout: table.Start, options: ReaderOptions
) -> tuple[_Parts, dict[int, np.ndarray]]:
    """A table with one row per electrode: its name, then its samples."""
    import numpy as np

    path = text.path
    before = layout.header_lines - bool(layout.header)
    rows: list[tuple[int, list[str]]] = []
    for number, line in text.lines():
        if number <= before or not line.strip():
            continue
        cells = table.cells(line, layout.delimiter)
        rows.append((number, cells))
        if len(cells) != len(rows[0][1]):
            raise RemitError(
                f"{path} line {number}: {len(cells)} cells; expected {len(rows[0][1])} as in the "
                "first row; repair or remove this row."
            )
    parts = _parts(path, [cells[0] for _, cells in rows])
    parts.person, parts.epoch = [], []
    _check_names(path, parts, options)
    found: dict[int, np.ndarray] = {}
    for index, (number, cells) in enumerate(rows):
        known = index in parts.by_channel.values() or index == parts.time
        name = table.shown(cells[0])
        wrong = next((cell for cell in cells[1:] if not _number(cell, layout.delimiter)), None)
        if not known:
            values = _values(cells[1:], layout) if index == 0 and wrong is None else []
            width = len(cells)
            counted = values in (list(range(width - 1)), list(range(1, width)))
            if values and not counted:
                raise RemitError(
                    f"{path}: the electrodes are in rows, and the first row ('{name}', "
                    f"{table.shown(cells[1])}, ...) may be times or not; expected 'time (s)' as its "
                    "first cell where it is; rename or remove it."
                )
            continue
        if wrong is not None:
            raise RemitError(
                f"{path} line {number}: row {name} holds '{table.shown(wrong, 40)}'; expected "
                "numbers; repair or remove this row."
            )
        values_S = np.array(_values(cells[1:], layout))
        if index != parts.time:
            with np.errstate(over="ignore"):  # becomes infinite, which is refused
                values_S = values_S.astype(np.float32)
        if np.isinf(values_S).any():
            raise RemitError(
                f"{path} line {number}: row {name} holds an infinite number; expected numbers; "
                "repair or remove this row."
            )
        found[index] = values_S
    return parts, found


def _values(cells: Sequence[str], layout: table.Start) -> list[float]:
    """Numbers of cells, NaN where one is missing."""
    pointed = [cell.replace(",", ".") for cell in cells] if layout.decimal == "," else cells
    return [math.nan if cell in table.MISSING else float(cell) for cell in pointed]


def _refuse_people(path: Path, parts: _Parts, found: dict[int, Any]) -> None:
    """Refuse a table whose rows belong to several people."""
    for index in parts.person:
        values = [table.decoded(value or b"").strip() for value in found[index]]
        people = sorted(set(values).difference(table.MISSING))
        changes = sum(one != two for one, two in pairwise(values))
        if parts.names[index].strip().lower() == "id" and 2 * changes > len(values):
            continue  # a number for each row
        if len(people) > 1:
            raise RemitError(
                f"{path}: column {table.shown(parts.names[index])} names {len(people)} people "
                f"({table.listed(people, 4)}); expected one recording of one; save each as a file "
                "of its own."
            )


def _changes(parts: _Parts, found: dict[int, Any]) -> tuple[list[int], list[str]]:
    """The first row of each further epoch, and a sentence for each column that numbers them."""
    changes: set[int] = set()
    notes = []
    for index in parts.epoch:
        values = [(value or b"").strip() for value in found[index]]
        rows = [row for row in range(1, len(values)) if values[row] != values[row - 1]]
        name = table.shown(parts.names[index])
        if 2 * len(rows) > len(values):
            notes.append(f"Column {name} changes with nearly every row and cuts nothing.")
        elif rows:
            notes.append(f"Column {name} changes {len(rows)} times; each change ends a segment.")
            changes.update(rows)
    return sorted(changes), notes


def _split(whole: Sequence[Segment], changes: Sequence[int], rate: float) -> tuple[Segment, ...]:
    """Segments cut at the first rows of epochs too."""
    from remit.recordings.recording import Segment

    cut = []
    for segment in whole:
        inside = [row for row in changes if segment.start < row < segment.stop]
        for start, stop in zip([segment.start, *inside], [*inside, segment.stop], strict=True):
            onset = segment.onset_seconds + (start - segment.start) / rate
            cut.append(Segment(start, stop, round(onset, 6)))
    return tuple(cut)


def _one_clock(stamps_S: np.ndarray, changes: Sequence[int]) -> tuple[np.ndarray, list[str]]:
    """Stamps that go on where those of an epoch begin anew, and a sentence on it."""
    import numpy as np

    anew = [row for row in changes if stamps_S[row] <= stamps_S[row - 1]]
    if not anew:
        return stamps_S, []
    steps_S = np.diff(stamps_S)
    shift_S = np.zeros_like(stamps_S)
    shift_S[anew] = stamps_S[np.array(anew) - 1] - stamps_S[anew] + np.median(steps_S)
    return stamps_S + np.cumsum(shift_S), [
        f"The times begin anew at {len(anew)} of these changes: how much time passed there is "
        "unknown, and what follows is placed directly behind."
    ]


def _timing(
    path: Path,
    parts: _Parts,
    found: dict[int, np.ndarray],
    signal_CS: np.ndarray,
    options: ReaderOptions,
    changes: Sequence[int],
) -> tuple[float, tuple[Segment, ...], list[str]]:
    """Rate and segments from the time column, or the stated rate; and what is to be said."""
    from remit.recordings.clock import measure, same_rate
    from remit.recordings.recording import Segment

    stated = options.sampling_rate
    if parts.time is None:
        if stated is None:
            raise RemitError(
                f"{path}: has no time column ({table.listed(parts.names)}) and no sampling rate is "
                "stated; expected one of them; state sampling_rate in the cohort sheet or "
                "cohorts.<name>.sampling_rate."
            )
        return stated, (Segment(0, signal_CS.shape[1], 0.0),), []
    name = parts.names[parts.time]
    stamps_S, notes = table.seconds(found[parts.time] * (parts.seconds or 1.0), str(path), name)
    stamps_S, anew = _one_clock(stamps_S, changes)
    table.refuse_repeats(stamps_S, signal_CS, str(path))
    timing = measure(stamps_S, DEVICE_RATES if stated is None else (stated,), str(path))
    known = DEVICE_RATES if stated is None else (timing.sampling_rate,)
    if timing.sampling_rate > FASTEST_UNKNOWN_HZ and timing.sampling_rate not in known:
        raise RemitError(
            f"{path}: the times in column {table.shown(name)} give {timing.sampling_rate:.6g} Hz if "
            "they are seconds; expected the rate of EEG; put their unit behind the column's name, "
            "such as 'time (min)', or state sampling_rate."
        )
    if stated is not None and not same_rate(timing.sampling_rate, stated):
        raise RemitError(
            f"{path}: the times in column {table.shown(name)} give {timing.sampling_rate:.6g} Hz, but "
            f"sampling_rate states {stated:g}; expected them to agree; correct sampling_rate or "
            "remove it."
        )
    return timing.sampling_rate, timing.segments, [*notes, *anew, *timing.notes]


def _unit(path: Path, parts: _Parts, options: ReaderOptions) -> str | None:
    """The unit that the header states, else the sheet or config; refuses what does not agree."""
    from remit.recordings.units import parse

    said = set(parts.units.values())
    scales = {parse(unit) for unit in said}
    some = 0 < len(parts.units) < len(parts.by_channel)
    if len(scales) > 1 or some:
        each = some_of(
            f"{channel} {parts.units.get(channel, 'none')}" for channel in parts.by_channel
        )
        raise RemitError(
            f"{path}: the header states different units ({each}); expected one for all EEG "
            "columns; correct the header."
        )
    if not said:
        return options.units
    unit = sorted(said)[0]
    if options.units and parse(options.units) not in scales:
        raise RemitError(
            f"{path}: the header states '{unit}', but units states '{table.shown(options.units)}'; expected "
            "them to agree; correct units or remove it."
        )
    return unit


READER = Reader(
    name="CSV table",
    suffixes=table.SUFFIXES,
    matches=matches,
    read=read,
    expects="a first line with electrodes such as AF7, or numbers",
    fallback=True,
    takes=(
        "electrodes by name, in columns or in rows",
        "the rate from a time column (seconds, ms, µs, dates) or from sampling_rate",
        "the unit from the header, units, or the size of the numbers",
        "commas, semicolons and tabs; decimal commas; Latin-1, UTF-8 and UTF-16",
        "blank lines and 'sep=;' before the header; columns that pandas numbered",
        "names from channel_names where there is no header, or one of numbered channels",
        "a column of epochs, trials or segments (a change ends a segment)",
        *table.TAKES,
    ),
    refuses=(
        "no header and no channel_names",
        "no time column and no sampling_rate",
        "channel_names that contradict the header",
        "a rate above 5.5 kHz that is neither stated nor a device's",
        "rows of several people (a column of participants)",
        "motion, pulse, markers, or a header without an electrode or a numbered channel",
        "Mind Monitor's columns under another header",
        "two decimal signs, two delimiters, two time columns",
        "electrodes in rows under a row that may be times or not",
        "stamps that give no steady rate of 100 Hz or more",
        *table.REFUSES,
    ),
)
