"""The original study's MATLAB file: two cell arrays of windows, one per outcome.

`EEG_windows_Remission` and `EEG_windows_Non_remission` have one row per participant: column 1 is a
1xK cell of windows, each [samples, channels] in microvolts, column 2 is the participant's id. The
array's name is the label. Rate and channel names are not in the file; the config gives them. The
file may be of version 5 to 7.3; in 7.3 a cell is an array of references, every axis reversed.

An entry is `Remission/3` or `Non_remission/3`: the array and the row, counted from 1 as MATLAB
does. (An id could occur in two rows; a row cannot.)
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remit.errors import RemitError, did_you_mean, some_of
from remit.files import sha256_of
from remit.recordings import matfile
from remit.recordings.cohort import SheetRow
from remit.recordings.registry import Entry, Reader, ReaderOptions
from remit.recordings.through_mne import stated_references

if TYPE_CHECKING:
    import numpy as np

    from remit.recordings.recording import Recording

PREFIX = "EEG_windows_"
REMISSION_OF = {"Remission": 1, "Non_remission": 0}
ARRAYS = tuple(PREFIX + name for name in REMISSION_OF)
# Also a near miss, which is then named in the error.
_NAME = re.compile(r"eeg_?windows?_?(?:non_?)?remission", re.IGNORECASE)


@dataclass(frozen=True)
class _Row:
    entry: Entry
    where: str  # the MATLAB expression of the cell that holds the windows
    windows: Any  # as loaded


def matches(path: Path) -> bool:
    """Whether it is a .mat file (version 5 to 7.3) with one of the study's two arrays."""
    if not matfile.is_mat(path):
        return False
    try:
        return any(_NAME.fullmatch(name) for name in matfile.variables(path))
    except RemitError:  # cut or damaged: the reader of any .mat file says how
        return False


def entries(path: Path, options: ReaderOptions) -> list[Entry]:
    """One entry per participant, remitters first, each in the order of the file."""
    return [row.entry for row in _rows(path)]


def read(row: SheetRow, options: ReaderOptions) -> Recording:
    """The windows of one participant, one segment each.

    When a window was recorded is not in the file, so onsets are as if the windows followed one
    another. Raises RemitError for a missing or unknown entry, missing rate or channel names, a
    window of another shape, a unit that is no voltage, a label that contradicts the sheet's, and a
    damaged file.
    """
    import numpy as np

    from remit.recordings.recording import Recording, Segment
    from remit.recordings.units import UNSTATED, in_microvolts

    path = Path(row.path)
    rate, channels = _options(path, options)
    found = _find(path, row)
    windows = [
        _window(path, where, window, len(channels))
        for where, window in _cells(path, found.where, found.windows)
    ]
    edges = np.cumsum([0, *(window_SC.shape[0] for window_SC in windows)]).tolist()
    notes = [
        f"The file holds {len(windows)} windows without their times; onsets are as if they "
        "followed one another.",
    ]
    unit = (options.units or "").strip()
    if unit.lower() in UNSTATED:
        notes.append("Values are taken as microvolts; the file states no unit.")
        unit = "uV"
    signal_CS, said = in_microvolts(np.concatenate(windows).T, rate, unit, str(path))
    notes += [*said, *stated_references(options.channel_names or ())]
    if found.entry.participant != row.participant:
        notes.append(f"The file calls this participant '{found.entry.participant}'.")
    return Recording(
        participant=row.participant,
        recording=row.recording,
        signal_CS=np.ascontiguousarray(signal_CS, dtype=np.float32),
        sampling_rate=rate,
        channels=channels,
        segments=tuple(Segment(start, stop, start / rate) for start, stop in pairwise(edges)),
        prewindowed=True,
        simulated=False,
        source_sha256=sha256_of(path),
        left_out=(),
        notes=tuple(notes),
    )


def _options(path: Path, options: ReaderOptions) -> tuple[float, tuple[str, ...]]:
    from remit.recordings.channels import electrode_names, electrodes

    if options.sampling_rate is None or not options.channel_names:
        missing = "sampling_rate" if options.sampling_rate is None else "channel_names"
        raise RemitError(
            f"{path}: a .mat file does not state its {missing.replace('_', ' ')}; expected it in "
            f"the config; set cohorts.<name>.{missing}."
        )
    channels = []
    names = options.channel_names
    for name, channel in zip(names, electrodes(names), strict=True):
        if channel is None:
            raise RemitError(
                f"{path}: cohorts.<name>.channel_names has '{name}'; expected electrodes of the "
                f"10-10 system; correct it.{did_you_mean(name, electrode_names())}"
            )
        channels.append(channel)
    return float(options.sampling_rate), tuple(channels)


def _find(path: Path, row: SheetRow) -> _Row:
    rows = _rows(path)
    by_name = {found.entry.name: found for found in rows}
    if row.entry not in by_name:
        asked = f"has no entry '{row.entry}'" if row.entry else "holds several recordings"
        raise RemitError(
            f"{path}: {asked}; expected one of {some_of(by_name)}; set the entry in the cohort "
            f"sheet.{did_you_mean(row.entry or '', by_name)}"
        )
    found = by_name[row.entry]
    if row.remission is not None and row.remission != found.entry.remission:
        raise RemitError(
            f"{path}: entry {row.entry} says remission {found.entry.remission}, the cohort sheet "
            f"says {row.remission} for participant '{row.participant}'; expected the same; correct "
            "the sheet."
        )
    return found


def _rows(path: Path) -> list[_Row]:
    """Every participant's row in both arrays, checked for one label each."""
    contents = _load(path)
    rows = []
    for name, remission in REMISSION_OF.items():
        array = contents[PREFIX + name]
        if not matfile.is_cell(array) or array.shape[1] != 2:
            if getattr(array, "size", 1) == 0:
                continue
            raise RemitError(
                f"{path}: {PREFIX}{name} is {matfile.described(array)}; expected a cell array with two "
                "columns, windows and participant; correct the file."
            )
        for index in range(array.shape[0]):
            place = f"{PREFIX}{name}{{{index + 1},%d}}"
            participant = _participant(path, place % 2, array[index, 1])
            entry = Entry(f"{name}/{index + 1}", participant, remission)
            rows.append(_Row(entry, place % 1, array[index, 0]))
    if not rows:
        raise RemitError(
            f"{path}: {' and '.join(ARRAYS)} are empty; expected participants in them."
        )
    first: dict[str, Entry] = {}
    for row in rows:
        other = first.setdefault(row.entry.participant, row.entry)
        if other.remission != row.entry.remission:
            raise RemitError(
                f"{path}: participant '{other.participant}' is in {other.name} and in "
                f"{row.entry.name}, so has two labels; expected one; correct the file."
            )
    return rows


def _load(path: Path) -> dict[str, Any]:
    contents = matfile.load(path, ARRAYS)
    missing = [name for name in ARRAYS if name not in contents]
    if missing:
        others = matfile.variables(path)
        raise RemitError(
            f"{path}: no variable {missing[0]}; it has {some_of(others)}; expected "
            f"{' and '.join(ARRAYS)}; rename it.{did_you_mean(missing[0], others)}"
        )
    return contents


def _participant(path: Path, where: str, value: Any) -> str:
    """The id in a cell, as text: 12.0 is '12'."""
    if getattr(value, "size", 0) == 1:
        item = value.item()
        if isinstance(item, str):
            text = item.strip()
        elif isinstance(item, bool | int | float) and math.isfinite(item) and item == int(item):
            text = str(int(item))
        else:
            text = ""
        if re.search(r"[A-Za-z0-9]", text):
            return text
    raise RemitError(
        f"{path}: {where} is {matfile.described(value)}; expected a participant's id, one "
        "whole number or one text; correct this cell."
    )


def _cells(path: Path, where: str, cell: Any) -> list[tuple[str, Any]]:
    """The windows in a 1xK (or Kx1) cell, each with its MATLAB name."""
    if not matfile.is_cell(cell) or 1 not in cell.shape or not cell.size:
        raise RemitError(
            f"{path}: {where} is {matfile.described(cell)}; expected a 1xK cell of windows; "
            "correct this cell."
        )
    return [(f"{where}{{{number}}}", window) for number, window in enumerate(cell.ravel(), 1)]


def _window(path: Path, where: str, window: Any, channels: int) -> np.ndarray:
    import numpy as np

    numeric = matfile.is_numbers(window)
    if not numeric or window.ndim != 2 or window.shape[1] != channels or window.shape[0] < 1:
        turned = numeric and window.ndim == 2 and window.shape[0] == channels
        hint = " It looks transposed." if turned else ""
        raise RemitError(
            f"{path}: {where} is {matfile.described(window)}; expected numbers [samples, {channels}] for the "
            f"{channels} names in cohorts.<name>.channel_names; correct one of them.{hint}"
        )
    with np.errstate(over="ignore"):  # becomes infinite, which a recording refuses
        window_SC: np.ndarray = matfile.numbers(window).astype(np.float32)
    return window_SC


READER = Reader(
    name="original study .mat",
    suffixes=(".mat",),
    matches=matches,
    read=read,
    entries=entries,
    expects="a MATLAB file (version 5 to 7.3) with EEG_windows_Remission",
    takes=(
        "each window as a segment of its own",
        "the label from the array's name",
        "rate, channel names and unit (none stated is µV) from the sheet or the config",
        "files of version 5 to 7.3 (HDF5)",
    ),
    refuses=(
        "one of the two arrays missing",
        "a window of another width or transposed",
        "a missing value",
        "a participant in both arrays",
        "a label that contradicts the sheet's",
        "a participant's id that is no whole number or text",
        "no rate or no channel names",
        "a cut or damaged file",
    ),
)
