"""Any other CSV: one column per electrode, or one row per electrode, with or without time stamps.

Nothing says what such a file is, so everything is looked for and nothing guessed: the delimiter
(`,` `;` or tab) by which the header gives electrodes, the decimal sign by the numbers, electrodes
by their names, the unit by the header (`AF7 (uV)`), the sheet or the size of the numbers, the rate
by the time stamps or the sheet. Traps: decimal commas, stamps in milliseconds, a stated rate that
the stamps contradict, no header at all, electrodes in rows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from remit.errors import RemitError, some_of
from remit.files import sha256_of
from remit.recordings import table
from remit.recordings.cohort import SheetRow
from remit.recordings.registry import Reader, ReaderOptions

if TYPE_CHECKING:
    import numpy as np

    from remit.recordings.recording import Recording, Segment

DELIMITERS = (",", ";", "\t")
# Hz; what amplifiers and headsets sample at. 250 and 256 are further apart than clocks err.
DEVICE_RATES = (
    *(128.0, 160.0, 200.0, 220.0, 250.0, 256.0, 300.0, 400.0, 500.0, 512.0, 600.0),
    *(1000.0, 1024.0, 1200.0, 2000.0, 2048.0, 5000.0),
)
RATE_TOLERANCE = 0.005  # of a stated rate, before the stamps contradict it
SECONDS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("ms", "msec", "millisecond", "milliseconds"), 1e-3),
    **dict.fromkeys(("us", "µs", "μs", "usec", "microsecond", "microseconds"), 1e-6),
    **dict.fromkeys(("ns", "nsec", "nanosecond", "nanoseconds"), 1e-9),
}
# Shaped as an electrode's name: a light look, for the montage takes a second to load.
_ELECTRODE = re.compile(
    r"^(?:(?:eeg|raw)[\s_:.-]*)?(?:fp|af|aff|f|ff|ft|fc|c|t|cp|tp|p|po|o|i|a|m)p?(?:z|\d{1,2})(?=$|[\s_.-])",
    re.IGNORECASE,
)
_TIME = re.compile(
    r"^(?:(?:lsl|unix|elapsed)[ _]?)?(?:times?|time[ _]?stamps?|t|date[ _]?time)"
    rf"(?:[ _]*[(\[]?\s*({'|'.join(SECONDS)})\s*[)\]]?)?$",
    re.IGNORECASE,
)
_CHANNEL = re.compile(r"^(?:eeg|ch|chan|channel)[ _.]?\d+$", re.IGNORECASE)
_UNIT = re.compile(r"^(.*?)\s*[(\[]\s*([^)\]]*?)\s*[)\]]$|^(.*?)[ _]([uµμmn]?V)$", re.IGNORECASE)
_COMMA_NUMBER = re.compile(r"^[+-]?\d*,\d+(?:e[+-]?\d+)?$", re.IGNORECASE)
_BOTH = re.compile(r"^[+-]?\d[\d.,]*(?:\.\d*,|,\d*\.)[\d.,]*$")
_SEPARATOR = re.compile(r"^sep=(.)$")  # a line that spreadsheets put before a table
_LOOK_LINES = 64
_ROWS_FROM = 32  # cells: a row that begins like an electrode and is shorter may be a person's
MUSE_ORDER = ("timestamps", "TP9", "AF7", "AF8", "TP10", "AUX")


@dataclass(frozen=True)
class _Layout:
    """How a table is written: its names, and how many lines and which signs come before them."""

    delimiter: str
    decimal: str
    header_lines: int
    header: tuple[str, ...]  # empty where the first line is numbers already
    lines: tuple[str, ...]  # the first few after the header


@dataclass
class _Parts:
    """What was found of a table, columns or rows alike."""

    names: list[str]
    by_channel: dict[str, int] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    time: int | None = None
    seconds: float | None = None  # in one unit of the time column, where its name says so


def matches(path: Path) -> bool:
    """Whether the first lines look like EEG: electrodes, or numbers only."""
    lines = [line for line in table.head(path) if line.strip() and not _SEPARATOR.match(line)][:3]
    if not lines:
        return False
    for delimiter in DELIMITERS:
        rows = [[_bare(cell)[0] for cell in table.cells(line, delimiter)] for line in lines]
        if not rows[0]:
            continue
        if any(_ELECTRODE.match(cell) for cell in rows[0]):
            return True
        if len(rows) > 1 and len(rows[1]) > _ROWS_FROM and _ELECTRODE.match(rows[1][0]):
            return True
        if len(rows[0]) > 1 and all(_number(cell, delimiter) for cell in rows[0]):
            return True
        named = any(_CHANNEL.match(cell) or _time_unit(cell) is not None for cell in rows[0])
        body = rows[1] if len(rows) > 1 else []
        if named and len(body) > 1 and all(_number(cell, delimiter) for cell in body[1:]):
            return True
    return False


def read(row: SheetRow, options: ReaderOptions) -> Recording:
    """The electrodes in a table of numbers.

    `options.channel_names` gives one name for each column of a file without names; those that are
    no electrode are left out. `options.sampling_rate` is needed where there is no time column.
    Raises RemitError for what is not stated and cannot be told, for a stated rate or unit that the
    file contradicts, and for what `table` and `clock` refuse.
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
        parts, found = _read_rows(text, layout)
        notes.append("The electrodes are in rows; the table is turned.")
    else:
        parts, found = _read_columns(text, layout, options)
    by_channel, empty = table.without_empty(parts.by_channel, found, parts.names, source)
    signal_CS = np.stack([found[index] for index in by_channel.values()])
    rate, whole, told = _timing(path, parts, found, signal_CS, options)
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
        notes=(*notes, *empty, *told, *missing, *scaled),
    )


def _number(cell: str, delimiter: str) -> bool:
    return (
        cell in table.MISSING
        or table.is_number(cell)
        or (delimiter != "," and bool(_COMMA_NUMBER.match(cell)))
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
    if cell.strip().lower() in SECONDS:
        return cell.strip().lower()
    found = _TIME.match(cell.strip())
    if not found:
        return None
    return (found[1] or "").lower()


def _layout(path: Path, options: ReaderOptions) -> _Layout:
    lines = table.head(path)
    blank = next((count for count, line in enumerate(lines) if line.strip()), 0)
    first = lines[blank]
    stated = _SEPARATOR.match(first)
    if stated:
        blank += 1
        first = lines[blank] if blank < len(lines) else ""
    delimiter = stated[1] if stated else _delimiter(path, first, lines[blank + 1 :], options)
    found = table.cells(first, delimiter)
    headless = len(found) > 0 and all(_number(cell, delimiter) for cell in found)
    after = [line for line in lines[blank + (not headless) :] if line.strip()][:_LOOK_LINES]
    return _Layout(
        delimiter,
        _decimal(path, after, delimiter),
        blank if headless else blank + 1,
        () if headless else tuple(found),
        tuple(after),
    )


def _delimiter(path: Path, first: str, rest: Sequence[str], options: ReaderOptions) -> str:
    """The sign between cells: the one by which the first line makes most sense."""
    there = [each for each in DELIMITERS if each in first]
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
        listed = " and ".join("tab" if each == "\t" else f"'{each}'" for each in chosen)
        raise RemitError(
            f"{path}: the first line can be split at {listed} alike; expected one sign between "
            "cells; export it again with one."
        )
    return chosen[0]


def _decimal(path: Path, lines: Sequence[str], delimiter: str) -> str:
    if delimiter == ",":
        return "."
    found = [cell for line in lines for cell in table.cells(line, delimiter)]
    comma = next((cell for cell in found if _COMMA_NUMBER.match(cell)), None)
    point = next((cell for cell in found if "." in cell and table.is_number(cell)), None)
    both = next((cell for cell in found if _BOTH.match(cell)), None)
    if both or (comma and point):
        shown = f"'{both}'" if both else f"'{comma}' and '{point}'"
        raise RemitError(
            f"{path}: its numbers have commas and points ({shown}); expected one decimal sign and "
            "no other; export it again without a sign between thousands."
        )
    return "," if comma else "."


def _in_rows(layout: _Layout) -> bool:
    """Whether electrodes are in rows: a name and then numbers."""
    for line in (layout.delimiter.join(layout.header), *layout.lines[:2]):
        found = table.cells(line, layout.delimiter)
        if len(found) > 1 and _ELECTRODE.match(found[0]) and _number(found[1], layout.delimiter):
            return True
    return False


def _add(path: Path, parts: _Parts, index: int, cell: str) -> None:
    """Find out what a column (or row) of this name is."""
    from remit.recordings.channels import canonical
    from remit.recordings.units import parse

    bare, unit = _bare(cell)
    channel = canonical(bare) if bare else None
    if channel is not None:
        if channel in parts.by_channel:
            raise RemitError(
                f"{path}: '{parts.names[parts.by_channel[channel]]}' and '{cell}' are both "
                f"{channel}; expected each electrode once; rename or remove one."
            )
        parts.by_channel[channel] = index
        if unit and parse(unit) is not None:
            parts.units[channel] = unit
        return
    time = _time_unit(cell)
    if time is None:
        return
    if parts.time is not None:
        raise RemitError(
            f"{path}: '{parts.names[parts.time]}' and '{cell}' are both times; expected one; "
            "rename or remove the other."
        )
    parts.time, parts.seconds = index, SECONDS.get(time)


def _read_columns(
    text: table.Text, layout: _Layout, options: ReaderOptions
) -> tuple[_Parts, dict[int, np.ndarray]]:
    path = text.path
    stated = options.channel_names
    parts = _Parts(list(layout.header))
    for index, cell in enumerate(parts.names):
        _add(path, parts, index, cell)
    if not parts.by_channel:
        count = len(layout.header or table.cells(layout.lines[0], layout.delimiter))
        if stated is None:
            what = "its header names no electrode" if layout.header else "has no header"
            example = "timestamps,AF7,AF8" if count > 6 else ",".join(MUSE_ORDER[:count])
            muse = " (the order of muse-lsl)" if count in (5, 6) else ""
            raise RemitError(
                f"{path}: {what} ({some_of(layout.header or layout.lines[:1], 4)}); expected 10-10 "
                f"names; state one for each of its {count} columns as channel_names in the cohort "
                f"sheet or cohorts.<name>.channel_names, such as {example}{muse}."
            )
        if len(stated) != count:
            raise RemitError(
                f"{path}: has {count} columns, but channel_names states {len(stated)} "
                f"({some_of(stated)}); expected one name for each column, the time too; correct "
                "channel_names."
            )
        parts = _Parts(list(stated))
        for index, cell in enumerate(parts.names):
            _add(path, parts, index, cell)
    if not parts.by_channel:
        raise RemitError(
            f"{path}: no column is an EEG electrode ({some_of(parts.names)}); expected 10-10 names "
            "such as AF7; correct the header or channel_names."
        )
    kinds: dict[int, table.Kind] = dict.fromkeys(parts.by_channel.values(), "sample")
    if parts.time is not None:
        kinds[parts.time] = _time_kind(path, layout, parts)
    return parts, table.columns(
        text,
        parts.names,
        kinds,
        header_lines=layout.header_lines,
        delimiter=layout.delimiter,
        decimal=layout.decimal,
    )


def _time_kind(path: Path, layout: _Layout, parts: _Parts) -> table.Kind:
    index = parts.time or 0
    shown = [table.cells(line, layout.delimiter) for line in layout.lines]
    cell = next((found[index] for found in shown if index < len(found)), "")
    kind = table.date_kind(cell)
    if kind is not None:
        parts.seconds = 1.0
        return kind
    if not cell or table.is_number(cell, layout.decimal):
        return "number"
    raise RemitError(
        f"{path}: the times in column {parts.names[index]} are such as '{cell[:40]}'; expected "
        "seconds, or a date and time such as 2018-11-22 17:21:18.123; export them so."
    )


def _read_rows(text: table.Text, layout: _Layout) -> tuple[_Parts, dict[int, np.ndarray]]:
    """A table with one row per electrode: its name, then its samples."""
    import numpy as np

    path = text.path
    parts = _Parts([])
    found: dict[int, np.ndarray] = {}
    width = 0
    for number, line in text.lines():
        cells = table.cells(line, layout.delimiter) if line.strip() else []
        if not cells or _SEPARATOR.match(line):
            continue
        index = len(parts.names)
        parts.names.append(cells[0])
        _add(path, parts, index, cells[0])
        known = index in parts.by_channel.values() or index == parts.time
        width = width or len(cells)
        if len(cells) != width:
            raise RemitError(
                f"{path} line {number}: {len(cells)} cells; expected {width} as in the first row; "
                "repair or remove this row."
            )
        wrong = [cell for cell in cells[1:] if not _number(cell, layout.delimiter)]
        if not known:
            values = [] if wrong else _values(cells[1:], layout)
            counted = values in (list(range(width - 1)), list(range(1, width)))
            if index == 0 and values and not counted:
                raise RemitError(
                    f"{path}: the electrodes are in rows, and the first row ('{cells[0]}', "
                    f"{cells[1]}, ...) may be times or not; expected 'time (s)' as its first cell "
                    "where it is; rename or remove it."
                )
            continue
        if wrong:
            raise RemitError(
                f"{path} line {number}: row {cells[0]} holds '{wrong[0][:40]}'; expected numbers; "
                "repair or remove this row."
            )
        values_S = np.array(_values(cells[1:], layout))
        if index != parts.time:
            with np.errstate(over="ignore"):  # becomes infinite, which is refused
                values_S = values_S.astype(np.float32)
        if np.isinf(values_S).any():
            raise RemitError(
                f"{path} line {number}: row {cells[0]} holds an infinite number; expected numbers; "
                "repair or remove this row."
            )
        found[index] = values_S
    return parts, found


def _values(cells: Sequence[str], layout: _Layout) -> list[float]:
    """Numbers of cells, NaN where one is missing."""
    pointed = [cell.replace(",", ".") for cell in cells] if layout.decimal == "," else cells
    return [math.nan if cell in table.MISSING else float(cell) for cell in pointed]


def _timing(
    path: Path,
    parts: _Parts,
    found: dict[int, np.ndarray],
    signal_CS: np.ndarray,
    options: ReaderOptions,
) -> tuple[float, tuple[Segment, ...], list[str]]:
    """Rate and segments from the time column, or the stated rate; and what is to be said."""
    from remit.recordings.clock import measure
    from remit.recordings.recording import Segment

    stated = options.sampling_rate
    if parts.time is None:
        if stated is None:
            raise RemitError(
                f"{path}: has no time column ({some_of(parts.names)}) and no sampling rate is "
                "stated; expected one of them; state sampling_rate in the cohort sheet or "
                "cohorts.<name>.sampling_rate."
            )
        return stated, (Segment(0, signal_CS.shape[1], 0.0),), []
    name = parts.names[parts.time]
    stamps_S, notes = table.seconds(found[parts.time] * (parts.seconds or 1.0), str(path), name)
    table.refuse_repeats(stamps_S, signal_CS, str(path))
    timing = measure(stamps_S, DEVICE_RATES if stated is None else (stated,), str(path))
    if stated is not None and abs(timing.sampling_rate / stated - 1) > RATE_TOLERANCE:
        raise RemitError(
            f"{path}: the times in column {name} give {timing.sampling_rate:.6g} Hz, but "
            f"sampling_rate states {stated:g}; expected them to agree; correct sampling_rate or "
            "remove it."
        )
    return timing.sampling_rate, timing.segments, [*notes, *timing.notes]


def _unit(path: Path, parts: _Parts, options: ReaderOptions) -> str | None:
    """The unit that the header states, else the sheet or config; refuses what does not agree."""
    from remit.recordings.units import parse

    said = set(parts.units.values())
    scales = {parse(unit) for unit in said}
    some = 0 < len(parts.units) < len(parts.by_channel)
    if len(scales) > 1 or some:
        listed = some_of(
            f"{channel} {parts.units.get(channel, 'none')}" for channel in parts.by_channel
        )
        raise RemitError(
            f"{path}: the header states different units ({listed}); expected one for all EEG "
            "columns; correct the header."
        )
    if not said:
        return options.units
    unit = sorted(said)[0]
    if options.units and parse(options.units) not in scales:
        raise RemitError(
            f"{path}: the header states '{unit}', but units states '{options.units}'; expected "
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
        "names from channel_names where there is no header",
        "rows without a sample (they end a segment)",
        "plain, .gz or the only CSV in a .zip",
    ),
    refuses=(
        "no header and no channel_names",
        "no time column and no sampling_rate",
        "a rate or unit stated otherwise than in the file",
        "two decimal signs, two delimiters, two time columns",
        "two columns of one electrode",
        "text or infinity where a number belongs, with its line",
        "a row of another length",
        "a block of rows that is there twice",
        "electrodes in rows under a row that may be times or not",
        "stamps that give no steady rate of 100 Hz or more",
        "a file cut inside a row, unless allow_truncated",
        "a header without rows",
        "a zip with two CSVs, a zip bomb, a cut or encrypted archive",
    ),
)
