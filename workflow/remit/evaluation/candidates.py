"""What is compared: the model, and beside it whatever might explain its figures without any EEG.

Each candidate is a table of numbers about participants; the same code then fits and tests all of them
in the same folds. No table is given a label: what it knows of the folds is :class:`Cohort`, which has
none, so whatever is chosen by label is chosen later, inside a fold. Tables of the cohort sheet are made
here, those of windows in `window_tables`.

Shapes: P participants, N rows (windows, or one per participant), X columns.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from remit.errors import RemitError, some_of
from remit.recordings.cohort import SheetRow
from remit.recordings.scan import UNKNOWN

# Raise when a change of the code alters a table.
RESULT_VERSION = 1

Kind = Literal["model", "baseline", "nuisance", "chance"]

# Words of a column's name that make it a date or a place of recording, and no covariate.
DATE_WORDS = {"date", "datetime", "year", "acq", "acquired", "acquisition", "recorded"}
SITE_WORDS = {
    *("site", "center", "centre", "clinic", "hospital", "institution", "lab"),
    *("device", "headset", "amplifier", "scanner", "batch", "cohort"),
}
_BIRTH_WORDS = {"birth", "born", "birthday"}
_NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)?(?:[eE][+-]?\d+)?")
_COMPACT_DATE = re.compile(r"(?:19|20)\d{6}")


class Cohort(Protocol):
    """What a table may know of the folds: everything but the labels."""

    @property
    def path(self) -> str:
        """The file of the folds"""

    @property
    def dataset(self) -> str:
        """The name of the primary dataset"""

    @property
    def content_sha256(self) -> str:
        """Of the primary dataset"""

    @property
    def names(self) -> tuple[str, ...]:
        """The P participants with a label, sorted"""

    @property
    def unlabelled(self) -> list[str]:
        """Those without"""

    @property
    def repeats(self) -> int:
        """R"""

    @property
    def folds(self) -> int:
        """K"""

    def test(self, repeat: int, fold: int) -> list[str]:
        """Who is tested in a fold; both are counted from 0."""


@dataclass(frozen=True)
class Absent:
    """A candidate that this cohort cannot have."""

    name: str
    kind: Kind
    why: str


@dataclass(frozen=True, eq=False)
class Table:
    """Numbers about participants, from which one is to be told from another.

    Args:
        name: as it stands in the report.
        kind: what it is there for.
        columns: names of the X columns; None where they have none.
        participants: the P participants, sorted.
        rows_NX: float64; NaN where a value is missing.
        participant_N: whose row it is, as a place in ``participants``; everybody has one.
        notes: what was left out and why.
        seen: those of the participants whom what made the rows was trained on, without labels.

    Raises:
        RemitError: when somebody has no row, or a value is infinite.
    """

    name: str
    kind: Kind
    columns: list[str] | None
    participants: tuple[str, ...]
    rows_NX: np.ndarray
    participant_N: np.ndarray
    notes: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._check(self.rows_NX, self.participant_N)

    def _check(self, rows_NX: np.ndarray, participant_N: np.ndarray) -> None:
        if len(rows_NX) != len(participant_N):
            raise ValueError(f"{self.name}: {len(rows_NX)} rows of {len(participant_N)} windows")
        if self.columns is not None and len(self.columns) != rows_NX.shape[1]:
            raise ValueError(f"{self.name}: {rows_NX.shape[1]} columns, {len(self.columns)} names")
        counts_P = np.bincount(participant_N, minlength=len(self.participants))
        without = [
            name for name, count in zip(self.participants, counts_P, strict=True) if not count
        ]
        if without:
            raise RemitError(
                f"{self.name}: participant {some_of(without)} has no row; expected one at least for each "
                "labelled participant; look at the quality of their recordings, or remove their label."
            )
        infinite = np.flatnonzero(np.isinf(rows_NX).any(axis=1))
        if len(infinite):
            raise RemitError(
                f"{self.name}: participant {self.participants[participant_N[infinite[0]]]} has an infinite "
                "value; expected numbers; make the file again from a repaired recording."
            )

    def rows(self, repeat: int, fold: int, train_P: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Everybody's rows as they are when they may be made of ``train_P``'s data alone.

        Args:
            repeat, fold: counted from 0.
            train_P: who may be used for fitting, bool.

        Returns:
            rows_NX, participant_N
        """
        return self.rows_NX, self.participant_N


# What stands in a table whose rows are made anew for each fold.
NO_ROWS = np.empty((0, 0))
NOBODY = np.empty(0, dtype=np.int64)


def prevalence(cohort: Cohort) -> Table:
    """No columns at all: everybody is given the part of all people who are of class 1."""
    return of_people("prevalence", "chance", cohort.names, [], np.empty((len(cohort.names), 0)))


def of_people(
    name: str,
    kind: Kind,
    participants: tuple[str, ...],
    columns: list[str],
    rows_PX: np.ndarray,
    notes: Iterable[str] = (),
) -> Table:
    """A table with one row per participant."""
    order_P = np.arange(len(participants))
    return Table(name, kind, columns, participants, rows_PX, order_P, tuple(notes))


def covariates(rows: Sequence[SheetRow], cohort: Cohort) -> Table | Absent:
    """Age, sex and whatever else the cohort sheet has, but for dates and sites.

    Numbers as they are; of a text with two values one column that says whether it is the second, of
    more values a column each. What is missing is NaN. Of several recordings of a participant the mean.
    Raises :class:`RemitError` for a participant who is not in the sheet.
    """
    name = "covariates only"
    cells = _cells(rows, cohort)
    others = {column: cells_P for column, cells_P in cells.items() if not of_recording(column)}
    columns, rows_PX, notes = _numbers(others, {})
    if not columns:
        why = "; ".join(notes) or "the cohort sheet has no columns beyond recordings and labels"
        return Absent(name, "baseline", why)
    return of_people(name, "baseline", cohort.names, columns, rows_PX, notes)


def date_or_site(rows: Sequence[SheetRow], cohort: Cohort) -> Table | Absent:
    """When and where the recording was made, as the cohort sheet says: days, and a column per site.

    A column is a date or a site by the words of its name (``acq_time``, ``recording_date``, ``site``,
    ``device``, ...), but no date of birth. One with a value that is no date is taken as groups, and a
    note says so. Raises :class:`RemitError` for a participant who is not in the sheet.
    """
    name = "recording date or site only"
    chosen, dates, strange = {}, {}, []
    for column, cells_P in _cells(rows, cohort).items():
        words = of_recording(column)
        if not words:
            continue
        chosen[column] = cells_P
        if words & SITE_WORDS:
            continue
        try:
            dates[column] = [[_days(cell) for cell in cells] for cells in cells_P]
            del chosen[column]
        except ValueError as error:
            strange.append(f"{column}: holds what is no date ({error}), taken as groups")
    columns, rows_PX, notes = _numbers(chosen, dates)
    notes = [*strange, *notes]
    if not columns:
        why = "; ".join(notes) or "the cohort sheet has no column with a date or a site"
        return Absent(name, "nuisance", why)
    return of_people(name, "nuisance", cohort.names, columns, rows_PX, notes)


def sheet_order(rows: Sequence[SheetRow], cohort: Cohort) -> Table:
    """The participant's place in the cohort sheet, which often follows the date of enrolment.

    A table of its own: a sheet that is merely sorted by label makes it look like a confound.
    """
    _cells(rows, cohort)
    place = {name: number for number, name in enumerate(dict.fromkeys(r.participant for r in rows))}
    rows_P1 = np.array([[float(place[name])] for name in cohort.names])
    return of_people("order in the cohort sheet", "nuisance", cohort.names, ["place"], rows_P1)


def words_of(column: str) -> set[str]:
    """The words of a column's name, in small letters."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", column)
    return set(re.findall(r"[a-z]+", apart.lower()))


def of_recording(column: str) -> set[str]:
    """The words of a column's name that make it a date or a site of recording."""
    words = words_of(column)
    return set() if words & _BIRTH_WORDS else words & (DATE_WORDS | SITE_WORDS)


def _cells(rows: Sequence[SheetRow], cohort: Cohort) -> dict[str, list[list[str]]]:
    """By column what the sheet says of each participant's recordings, without what is unknown."""
    of: dict[str, list[SheetRow]] = {name: [] for name in cohort.names}
    for row in rows:
        if row.participant in of:
            of[row.participant].append(row)
    missing = [name for name, theirs in of.items() if not theirs]
    if missing:
        raise RemitError(
            f"{cohort.path}: participant {some_of(missing)} is not in the cohort sheet; expected everybody "
            "who is in the folds; make the folds again from this sheet."
        )
    columns = dict.fromkeys(column for row in rows for column in row.covariates)
    return {
        column: [
            [
                text
                for row in of[name]
                if (text := row.covariates.get(column, "").strip()).lower() not in UNKNOWN
            ]
            for name in cohort.names
        ]
        for column in columns
    }


def _days(text: str) -> float:
    """A date as days since the year 1, or a plain number as it is; raises ValueError for neither."""
    if _NUMBER.fullmatch(text) and not _COMPACT_DATE.fullmatch(text):
        return float(text.replace(",", "."))
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"'{text}'") from None
    seconds = 3600 * moment.hour + 60 * moment.minute + moment.second
    return moment.toordinal() + seconds / 86400


def _numbers(
    texts: Mapping[str, Sequence[Sequence[str]]], dates: Mapping[str, Sequence[Sequence[float]]]
) -> tuple[list[str], np.ndarray, list[str]]:
    """Columns of numbers from columns of cells, and what was left out."""
    found: dict[str, list[float]] = {}
    notes: list[str] = []
    for column, cells_P in texts.items():
        known = [text for cells in cells_P for text in cells]
        if all(_NUMBER.fullmatch(text) for text in known):
            values_P = [[float(text.replace(",", ".")) for text in cells] for cells in cells_P]
            found[column] = [_mean(values) for values in values_P]
            continue
        categories = sorted(set(known))
        if len(categories) > max(2, sum(map(bool, cells_P)) / 2):
            notes.append(
                f"{column}: left out, {len(categories)} different texts tell people apart and not groups"
            )
            continue
        # Of two categories one column: the other would only say the same again.
        for category in categories[1:] if len(categories) == 2 else categories:
            found[f"{column}={category}"] = [
                _mean([float(text == category) for text in cells]) for cells in cells_P
            ]
    for column, days_P in dates.items():
        first = min((day for days in days_P for day in days), default=0.0)
        found[column] = [_mean([day - first for day in days]) for days in days_P]
    return varying(found, notes)


def varying(
    found: Mapping[str, Sequence[float]], notes: list[str]
) -> tuple[list[str], np.ndarray, list[str]]:
    """The columns in which participants differ; of the others, and of missing values, a note."""
    kept = {}
    for column, values in found.items():
        values_P = np.array(values, dtype=np.float64)
        there = np.isfinite(values_P)
        if not there.any():
            notes.append(f"{column}: left out, missing for everybody")
        elif there.all() and np.ptp(values_P) == 0:
            notes.append(f"{column}: left out, the same for everybody")
        else:
            if not there.all():
                notes.append(f"{column}: missing for {(~there).sum()} of {len(there)}")
            kept[column] = values_P
    rows_PX = np.stack(list(kept.values()), axis=1) if kept else np.empty((0, 0))
    return list(kept), rows_PX, notes


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
