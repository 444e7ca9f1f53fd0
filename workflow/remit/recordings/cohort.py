"""The cohort sheet: who took part, where the recordings are, and what became of each participant.

A tab-separated table, one recording per row: `participant`, `recording`, `path`, and optionally
`entry` (one recording inside a container file), `remission` (0, 1 or empty for unknown),
`sampling_rate`, `channel_names` and `units` (for files that do not state them) and any further
columns, which are covariates. Standard library and remit.config only: Snakemake reads the
sheet each time it parses the workflow.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from remit import naming
from remit.config import Simulation
from remit.errors import RemitError, did_you_mean, some_of
from remit.files import atomic_write

REQUIRED = ("participant", "recording", "path")
OPTIONAL = ("entry", "remission")
# For files that do not say it themselves; otherwise the config's.
READING = ("sampling_rate", "channel_names", "units")
REMISSION = {"0": 0, "1": 1, "": None}


@dataclass(frozen=True)
class SheetRow:
    """One recording of the sheet.

    `path` is as the sheet has it, relative to the sheet's root or absolute; `resolve` opens it.
    `remission` is 1 (remitted), 0 (did not) or None (unknown). `covariates` are text, '' unknown.
    `sampling_rate` (Hz), `channel_names` and `units` are for a file that does not state them.
    """

    participant: str
    recording: str
    path: str
    entry: str | None = None
    remission: int | None = None
    covariates: dict[str, str] = field(default_factory=dict)
    sampling_rate: float | None = None
    channel_names: tuple[str, ...] | None = None
    units: str | None = None


def resolve(row: SheetRow, root: str | Path | None) -> Path:
    """The file of a row: its path inside `root`, or as it is when `root` is None.

    The result is relative when both are. A path may not leave the root by '..' or by being an
    absolute path to somewhere else; where its links lead, :class:`Links` says. Raises RemitError for a
    path that leaves its root.
    """
    if root is None:
        return Path(row.path)
    absolute = Path(row.path).is_absolute()
    base = _plain(Path.cwd() / root)
    wanted = _plain(base / row.path)
    inside = wanted.is_relative_to(base) or (
        absolute and wanted.resolve().is_relative_to(base.resolve())
    )
    if not inside:
        raise RemitError(
            f"recording '{row.recording}': path {row.path!r} leaves its root {base}; expected a "
            "file inside it; move the file, or set cohorts.<name>.root to the folder that holds "
            "the recordings."
        )
    return wanted if absolute else _plain(Path(root) / row.path)


class Links:
    """Refuses symbolic links that lead out of a cohort's folder.

    Args:
        cohort: its name, for the error.
        root: the folder; it may be a link itself.
        others: further folders that may be led to (`cohorts.<name>.follow_links_to`).
    """

    def __init__(self, cohort: str, root: Path, others: Sequence[str]) -> None:
        self._cohort, self._root = cohort, root
        self._real = cache(os.path.realpath)  # of folders, each of which holds many files
        self._allowed = [Path(self._real(folder)) for folder in (root, *others)]
        self._below = _plain(Path.cwd() / root)

    def outside(self, file: Path) -> Path | None:
        """Where links on the way to a file lead, if that is outside; files need not be there."""
        if file.is_symlink():
            real = Path(os.path.realpath(file))
        else:
            real = Path(self._real(file.parent)) / file.name
            below = _plain(Path.cwd() / file).is_relative_to(self._below)
            if not below and self._allowed[0].is_relative_to(real.parent):
                return None  # beside or above the folder: a sidecar of a whole BIDS data set
        return None if any(real.is_relative_to(folder) for folder in self._allowed) else real

    def check(self, file: Path) -> None:
        """Raise RemitError where links on the way to a file lead outside."""
        if (real := self.outside(file)) is not None:
            raise RemitError(
                f"{file}: a symbolic link leads to {real}, outside the folder of cohort "
                f"'{self._cohort}' ({self._root}); expected a file inside it; copy it there, or, if you "
                f"trust where it leads, set cohorts.{self._cohort}.follow_links_to: "
                f"{json.dumps([str(real.parent)], ensure_ascii=False)}."
            )


def _plain(path: Path) -> Path:
    """A path without '.' and '..'; unlike `Path.resolve`, it follows no link."""
    return Path(os.path.normpath(path))


def read_sheet(file: str | Path, root: str | Path | None = None) -> list[SheetRow]:
    """Read and check a cohort sheet; `root` is where its paths begin, by default its own folder.

    The files themselves are not looked at. Raises RemitError naming sheet and line for a missing
    or repeated column, an id that cannot be a file name, a recording listed twice, a participant
    with two labels, a label that is not 0, 1 or empty, and a path that leaves the root.
    """
    file = Path(file)
    root = file.parent if root is None else root
    rows: list[SheetRow] = []
    lines: list[int] = []
    header, body = read_table(file)
    _check_header(file, header)
    for line, cells in body:
        rows.append(_row(file, line, dict(zip(header, cells, strict=True)), root))
        lines.append(line)
    if not rows:
        raise RemitError(f"{file}: lists no recording; expected one per line; add some.")
    _check_together(file, rows, lines)
    return rows


def read_made_sheet(file: str | Path) -> list[SheetRow]:
    """Read a sheet of results/cohorts: its paths begin where the configuration says, were held against
    that when it was made, and may be absolute; who reads it here opens none of them.
    """
    return read_sheet(file, os.sep)


def read_table(file: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Header and (line number, cells) of a tab-separated file; blank lines are left out.

    Every row has as many cells as the header, stripped of spaces. Raises RemitError for a file
    that cannot be read, has no header, or has a row of another length.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise RemitError(
            f"{file}: cannot be read ({error.strerror}); expected a tab-separated table; "
            "check the path."
        ) from None
    except UnicodeDecodeError:
        raise RemitError(
            f"{file}: is not UTF-8 text; expected a tab-separated table; save it as UTF-8 TSV."
        ) from None
    reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t", strict=True)
    header: list[str] = []
    body: list[tuple[int, list[str]]] = []
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            if not header:
                header = cells
            elif len(cells) != len(header):
                raise RemitError(
                    f"{file} line {reader.line_num}: {len(cells)} cells; expected {len(header)} "
                    "as in the header; put one tab between two cells."
                )
            else:
                body.append((reader.line_num, cells))
    except csv.Error as error:
        raise RemitError(
            f"{file} line {reader.line_num}: {error}; expected a tab-separated table; correct it."
        ) from None
    if not header:
        raise RemitError(f"{file}: is empty; expected a header line and rows; fill it.")
    if len(header) == 1 and any(mark in header[0] for mark in ",;"):
        raise RemitError(
            f"{file}: the columns are not separated by tabs; expected a TSV; save it as one."
        )
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice or "" in header:
        what = f"column {twice[0]} is there more than once" if twice else "a column has no name"
        raise RemitError(f"{file}: {what}; expected each column once, with a name; rename it.")
    return header, body


def _check_header(file: Path, header: Sequence[str]) -> None:
    others = [name for name in header if name not in REQUIRED + OPTIONAL + READING]
    for name in REQUIRED:
        if name not in header:
            raise RemitError(
                f"{file}: no column '{name}'; it has {some_of(header)}; expected "
                f"{', '.join(REQUIRED)}; add or rename it.{did_you_mean(name, others)}"
            )
    for other in others:
        # A misspelt `remission` would else be a covariate, and everyone would be unlabelled.
        meant = [n for n in OPTIONAL + READING if n not in header and _nearly(other, n)]
        if meant:
            raise RemitError(
                f"{file}: column '{other}' is nearly '{meant[0]}'; expected that spelling, or "
                f"another name for a covariate; rename it. Did you mean '{meant[0]}'?"
            )


def _nearly(word: str, name: str) -> bool:
    import difflib

    return difflib.SequenceMatcher(None, word.lower(), name).ratio() > 0.85


def _row(file: Path, line: int, cells: dict[str, str], root: str | Path) -> SheetRow:
    where = f"{file} line {line}"
    participant = naming.check_id("participant", cells.pop("participant"), where)
    recording = naming.check_id("recording", cells.pop("recording"), where)
    path = cells.pop("path")
    if not path or "\0" in path:
        raise RemitError(f"{where}: the path is {path!r}; expected a file; fill it in.")
    entry = cells.pop("entry", "") or None
    remission = cells.pop("remission", "")
    if remission not in REMISSION:
        raise RemitError(
            f"{where}: remission is '{remission}'; expected 0, 1 or nothing (unknown); correct it."
        )
    rate = _rate(where, cells.pop("sampling_rate", ""))
    named = cells.pop("channel_names", "")
    names = [name.strip() for name in named.split("," if "," in named else None)]
    units = cells.pop("units", "") or None
    row = SheetRow(
        participant,
        recording,
        path,
        entry,
        REMISSION[remission],
        cells,
        rate,
        tuple(names) or None,
        units,
    )
    try:
        resolve(row, root)
    except RemitError as error:
        raise RemitError(f"{where}: {error}") from None
    return row


def _rate(where: str, text: str) -> float | None:
    if not text:
        return None
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 < rate < math.inf:
        raise RemitError(
            f"{where}: sampling_rate is '{text}'; expected a positive number of Hz or nothing; correct it."
        )
    return rate


def _check_together(file: Path, rows: Sequence[SheetRow], lines: Sequence[int]) -> None:
    recordings: dict[str, int] = {}
    sources: dict[tuple[str, str | None], int] = {}
    labels: dict[str, tuple[int | None, int]] = {}
    people: dict[str, tuple[str, int]] = {}
    for row, line in zip(rows, lines, strict=True):
        # Two names that differ only by case are one file on many disks.
        first = recordings.setdefault(row.recording.lower(), line)
        if first != line:
            raise RemitError(
                f"{file} line {line}: recording '{row.recording}' is already on line {first}; "
                "expected each once (capitals do not count); rename or remove one."
            )
        first = sources.setdefault((os.path.normpath(row.path), row.entry), line)
        if first != line:
            raise RemitError(
                f"{file} line {line}: {row.path}{f' entry {row.entry}' if row.entry else ''} is "
                f"already on line {first}; expected each recording once; remove one."
            )
        spelling, first = people.setdefault(row.participant.lower(), (row.participant, line))
        if spelling != row.participant:
            raise RemitError(
                f"{file} line {line}: participant '{row.participant}' is '{spelling}' on line {first}; "
                "expected one spelling per participant; correct one of them, or rename one if they "
                "are two people."
            )
        label, first = labels.setdefault(row.participant, (row.remission, line))
        if label != row.remission:
            raise RemitError(
                f"{file} line {line}: participant '{row.participant}' has remission "
                f"{_shown(row.remission)} and on line {first} {_shown(label)}; expected one label "
                "per participant; correct one of them."
            )


def _shown(remission: int | None) -> str:
    return "empty" if remission is None else str(remission)


def write_sheet(rows: Iterable[SheetRow], file: str | Path) -> None:
    """Write a cohort sheet, whole or not at all; the covariates are those of any row.

    Raises RemitError for a tab, a line break or another control character in a cell, which would
    make two cells or rows of one.
    """
    rows = list(rows)
    covariates = list(dict.fromkeys(name for row in rows for name in row.covariates))
    reading = [name for name in READING if any(getattr(row, name) is not None for row in rows)]
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow([*REQUIRED, *OPTIONAL, *reading, *covariates])
    for row in rows:
        remission = "" if row.remission is None else str(row.remission)
        cells = [row.participant, row.recording, row.path, row.entry or "", remission]
        cells += [_reading_cell(getattr(row, name)) for name in reading]
        cells += [row.covariates.get(name, "") for name in covariates]
        for cell in cells:
            if any(character < " " for character in cell):
                raise RemitError(
                    f"recording '{row.recording}': {cell!r} holds a tab or a line break; expected "
                    "text that fits into one cell of the cohort sheet; rename it."
                )
        writer.writerow(cells)
    with atomic_write(file) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8", newline="")


def _reading_cell(value: float | str | tuple[str, ...] | None) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.10g}"
    return value if isinstance(value, str) else ",".join(value)


def simulated_rows(cohort: str, simulation: Simulation) -> list[SheetRow]:
    """The sheet of a simulated cohort; the same rows for the same settings.

    Paths are relative to the working directory. Age and sex are drawn without regard to the label.
    """
    count = simulation.participants
    remitters = round(count * simulation.remission_fraction)
    labels = [1] * remitters + [0] * (count - remitters)
    random.Random(simulation.seed).shuffle(labels)
    people = random.Random(f"{simulation.seed} covariates")
    width = max(3, len(str(count)))
    rows = []
    for number, remission in enumerate(labels, start=1):
        participant = f"sim-{number:0{width}d}"
        recording = f"{participant}_rest"
        path = naming.path("simulated", cohort=cohort, recording=recording)
        age, sex = people.randint(18, 70), people.choice("FM")
        rows.append(
            SheetRow(participant, recording, path, None, remission, {"age": str(age), "sex": sex})
        )
    return rows
