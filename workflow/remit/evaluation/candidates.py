"""What is compared: the model, and beside it whatever might explain its figures without any EEG.

Each candidate is a table of numbers about participants; the same code then fits and tests all of them
in the same folds. No table is given a label: what it knows of the folds is :class:`Cohort`, which has
none, so whatever is chosen by label is chosen later, inside a fold.

Shapes: P participants, N rows (windows, or one per participant), X columns, W windows, C channels,
S samples.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyriemann.estimation import Covariances
from pyriemann.tangentspace import TangentSpace
from threadpoolctl import threadpool_limits

from remit.dataset.windows import METADATA_KEY, WindowsFile
from remit.errors import RemitError, some_of
from remit.preprocessing.chain import CHANNEL_QUALITY
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
_NO_ROWS = np.empty((0, 0))
_NOBODY = np.empty(0, dtype=np.int64)


def prevalence(cohort: Cohort) -> Table:
    """No columns at all: the part of the training people who are of class 1, for everybody."""
    return _of_people("prevalence", "chance", cohort.names, [], np.empty((len(cohort.names), 0)))


def _of_people(
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


# --- what the cohort sheet says -------------------------------------------------------------------


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
    return _of_people(name, "baseline", cohort.names, columns, rows_PX, notes)


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
    return _of_people(name, "nuisance", cohort.names, columns, rows_PX, notes)


def sheet_order(rows: Sequence[SheetRow], cohort: Cohort) -> Table:
    """The participant's place in the cohort sheet, which often follows the date of enrolment.

    A table of its own: a sheet that is merely sorted by label makes it look like a confound.
    """
    _cells(rows, cohort)
    place = {name: number for number, name in enumerate(dict.fromkeys(r.participant for r in rows))}
    rows_P1 = np.array([[float(place[name])] for name in cohort.names])
    return _of_people("order in the cohort sheet", "nuisance", cohort.names, ["place"], rows_P1)


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
    return _varying(found, notes)


def _varying(
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


# --- what the windows say -------------------------------------------------------------------------


def length_and_quality(dataset: WindowsFile, cohort: Cohort) -> Table:
    """How long and how good a participant's recordings are, bad windows included.

    Minutes, recordings, windows, the part of bad windows, and the mean of each quality column of the
    primary dataset over windows and electrodes. Raises :class:`RemitError` for a dataset that is not
    the folds'.
    """
    _check_dataset(str(dataset.path), dataset.metadata, cohort)
    dataset.check_there(cohort.names)
    frame = dataset.frame()
    sources = dataset.metadata["sources"].values()
    quality_W = {name: _known_mean(dataset.quality_WC(name)) for name in CHANNEL_QUALITY}
    quality_W["worn_fraction"] = frame["worn_fraction"].to_numpy(dtype=np.float64)
    found: dict[str, list[float]] = {
        name: [] for name in ("minutes", "recordings", "windows", "bad_fraction", *quality_W)
    }
    for participant in cohort.names:
        theirs = [source for source in sources if source["participant"] == participant]
        own_W = (frame["Participant"] == participant).to_numpy()
        found["minutes"].append(sum(source["seconds"] for source in theirs) / 60)
        found["recordings"].append(len(theirs))
        found["windows"].append(int(own_W.sum()))
        found["bad_fraction"].append(1 - float(frame["good"].to_numpy(dtype=bool)[own_W].mean()))
        for name, values_W in quality_W.items():
            found[name].append(float(_known_mean(values_W[None, own_W])[0]))
    columns, rows_PX, notes = _varying(found, [])
    if not columns:
        rows_PX = np.empty((len(cohort.names), 0))
    name = "recording length and quality only"
    return _of_people(name, "nuisance", cohort.names, columns, rows_PX, notes)


def _known_mean(values_XY: np.ndarray) -> np.ndarray:
    """The mean along the last axis of what is not NaN, float64; NaN where nothing is known."""
    known_XY = ~np.isnan(values_XY)
    count_X = known_XY.sum(axis=-1)
    sum_X = np.where(known_XY, values_XY, 0).sum(axis=-1, dtype=np.float64)
    mean_X: np.ndarray = np.where(count_X > 0, sum_X / np.maximum(count_X, 1), np.nan)
    return mean_X


def band_power(file: Path, cohort: Cohort) -> Table:
    """Log band power of every electrode and its asymmetry, for each good window, of a features file.

    Raises :class:`RemitError` for a file that is not made of the folds' dataset.
    """
    metadata = _metadata(file, "features")
    _check_dataset(str(file), metadata, cohort)
    columns = [c for c in metadata["features"] if c.startswith(("power_", "asymmetry_"))]
    table = _read(file, ["Participant", "good", *columns])
    good_N = table.column("good").to_numpy()
    participant_N, chosen_N = _people(file, table, cohort)
    kept_N = chosen_N & good_N
    rows_NX = np.stack([table.column(name).to_numpy() for name in columns], axis=1)[kept_N]
    return Table(
        "band power and asymmetry",
        "baseline",
        columns,
        cohort.names,
        rows_NX.astype(np.float64),
        participant_N[kept_N],
    )


@dataclass(frozen=True, eq=False)
class TangentTable(Table):
    """One covariance matrix per participant, seen from the mean of the training people.

    ``rows_NX`` is empty: there are no rows outside a fold. In ``rows`` the reference is the Riemannian
    mean of ``train_P``'s matrices, made without labels, and remembered for each ``train_P``.
    """

    covariance_PCC: np.ndarray = field(default_factory=lambda: np.empty((0, 0, 0)))
    _made: dict[bytes, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lowest_P = np.linalg.eigvalsh(self.covariance_PCC)[:, 0]
        bad = [name for name, low in zip(self.participants, lowest_P, strict=True) if not low > 0]
        if bad:
            raise RemitError(
                f"{self.name}: the electrodes of participant {some_of(bad)} hold no signal; expected some "
                "in their good windows; look at preprocessing.quality, or leave them out."
            )

    def rows(self, repeat: int, fold: int, train_P: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One row per participant: the upper triangle of the logarithm of what differs, [P, X]."""
        key = np.asarray(train_P, dtype=bool).tobytes()
        if key not in self._made:
            with threadpool_limits(1, user_api="blas"):  # threads would change the last digits
                space = TangentSpace(metric="riemann").fit(self.covariance_PCC[train_P])
                self._made[key] = space.transform(self.covariance_PCC)
        return self._made[key], np.arange(len(self.participants))


def tangent_space(dataset: WindowsFile, cohort: Cohort) -> Table:
    """Covariance of the electrodes in the tangent space at the training people's Riemannian mean.

    Barachant et al. (2012), doi:10.1109/TBME.2011.2172210, with one matrix per participant (Sabbagh et
    al. 2020, doi:10.1016/j.neuroimage.2020.116893): the mean over good windows of their covariances,
    each shrunk (oracle approximating shrinkage), so that a common reference leaves them regular. A fold
    then costs P matrices whatever the length of the recordings, which bounds it for many electrodes.
    Reads one row group at a time. Raises :class:`RemitError` for a dataset that is not the folds'.
    """
    _check_dataset(str(dataset.path), dataset.metadata, cohort)
    dataset.check_there(cohort.names)
    frame = dataset.frame()
    place = {name: number for number, name in enumerate(cohort.names)}
    use_W = frame["good"].to_numpy(dtype=bool) & frame["Participant"].isin(place).to_numpy()
    channels, samples = dataset.channels, dataset.metadata["window_samples"]
    sum_PCC = np.zeros((len(place), len(channels), len(channels)))
    count_P = np.zeros(len(place), dtype=np.int64)
    ends = dataset.group_ends.tolist()
    with threadpool_limits(1, user_api="blas"):
        for first, stop in zip([0, *ends[:-1]], ends, strict=True):
            row_W = first + np.flatnonzero(use_W[first:stop])
            signal_WCS = np.empty((len(row_W), len(channels), samples), np.float32)
            dataset.read_into(signal_WCS, row_W)
            for window_CS, name in zip(signal_WCS, frame["Participant"].iloc[row_W], strict=True):
                shrunk_1CC = Covariances("oas").transform(window_CS[None].astype(np.float64))
                sum_PCC[place[name]] += shrunk_1CC[0]
                count_P[place[name]] += 1
    # Off the diagonal counts twice in a matrix's norm; pyriemann weights it by the square root of 2.
    pairs = zip(*np.triu_indices(len(channels)), strict=True)
    return TangentTable(
        "covariance in tangent space",
        "baseline",
        [f"tangent_{channels[a]}-{channels[b]}" for a, b in pairs],
        cohort.names,
        _NO_ROWS,
        _NOBODY,
        covariance_PCC=sum_PCC / np.maximum(count_P, 1)[:, None, None],
    )


# --- what the backbone says -----------------------------------------------------------------------


def embeddings(file: Path, cohort: Cohort, *, model: str, random: bool = False) -> Table:
    """A backbone's embeddings of every window, of the model or of the same backbone not trained.

    Raises :class:`RemitError` for a file of another model, of another dataset (other channels among
    it), or of people who are not in the folds.
    """
    metadata = _embedded(file, cohort, model, random=random)
    rows_NX, participant_N = _embedding_rows(file, cohort)
    return Table(
        "random weights" if random else model,
        "baseline" if random else "model",
        None,
        cohort.names,
        rows_NX,
        participant_N,
        notes=("statistics of its tokens' spectra are those of everybody, without labels",)
        if random and metadata.get("settings", {}).get("model", {}).get("token_spectrum_hz")
        else (),
        seen=tuple(name for name in cohort.names if name in set(metadata["seen"])),
    )


@dataclass(frozen=True, eq=False)
class FoldTable(Table):
    """Embeddings by the backbone that was pretrained without the people whom a fold tests.

    ``rows_NX`` is empty: there are no rows outside a fold. ``everybody`` has those of the backbone that
    was pretrained on everybody, for a head that is fitted on everybody.
    """

    cohort: Cohort | None = None
    files: Mapping[tuple[int, int], Path] = field(default_factory=dict)
    everybody: Path | None = None

    def __post_init__(self) -> None:
        """The rows are checked when they are read."""

    def rows(self, repeat: int, fold: int, train_P: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The rows by the backbone of this fold, or of everybody where everybody is fitted on.

        Raises :class:`RemitError` when the people of ``train_P`` are not those whom that fold fits on.
        """
        if self.cohort is None:
            raise ValueError(f"{self.name}: made without a cohort")
        if np.all(train_P):
            if self.everybody is None:
                raise RemitError(
                    f"{self.name}: there are no embeddings by a backbone pretrained on everybody; expected "
                    "them for a head that is fitted on everybody; make the model's embeddings."
                )
            file = self.everybody
        else:
            file = self._of_fold(repeat, fold, train_P, self.cohort)
        rows_NX, participant_N = _embedding_rows(file, self.cohort)
        self._check(rows_NX, participant_N)
        return rows_NX, participant_N

    def _of_fold(self, repeat: int, fold: int, train_P: np.ndarray, cohort: Cohort) -> Path:
        if (repeat, fold) not in self.files:
            raise RemitError(
                f"{self.name}: no backbone was pretrained for a fit on {np.count_nonzero(train_P)} of "
                f"{len(self.participants)} participants; expected one of the folds, for leaving out one at "
                "a time takes as many pretrainings as people; set evaluation.pretraining to held_out."
            )
        train = {name for name, own in zip(self.participants, train_P, strict=True) if own}
        tested = set(cohort.test(repeat, fold))
        if train != set(self.participants) - tested:
            raise RemitError(
                f"{self.name}: fold {fold + 1} of repeat {repeat + 1} tests {some_of(sorted(tested))}, but "
                f"{some_of(sorted(set(self.participants) - train))} are left out of the fit; expected the "
                "folds that the backbones were pretrained for; use these."
            )
        return self.files[repeat, fold]


def embeddings_by_fold(
    files: Sequence[Path], cohort: Cohort, *, model: str, everybody: Path | None = None
) -> Table:
    """The model's embeddings where every fold has a backbone of its own.

    Which fold a file is for stands in its metadata, counted from 1 as in its name. Raises
    :class:`RemitError` for what :func:`embeddings` refuses, for a fold without a file or with two, and
    when a backbone has seen a participant whom its fold tests.
    """
    by_fold: dict[tuple[int, int], Path] = {}
    for file in files:
        metadata = _embedded(file, cohort, model, random=False)
        repeat, fold = metadata.get("repeat"), metadata.get("fold")
        if not (isinstance(repeat, int) and isinstance(fold, int)):
            raise RemitError(
                f"{file}: is of repeat {repeat}, fold {fold}; expected embeddings of one fold; give the "
                "files under results/embeddings/folds/."
            )
        key = repeat - 1, fold - 1
        if key in by_fold:
            raise RemitError(
                f"{file} and {by_fold[key]}: both are of repeat {repeat}, fold {fold}; expected one of "
                "each; remove one."
            )
        tested = cohort.test(*key)
        both = sorted(set(tested) & set(metadata["seen"]))
        if both:
            raise RemitError(
                f"{file}: its backbone has seen participant {some_of(both)}, whom fold {fold} of repeat "
                f"{repeat} tests; expected one pretrained without them; make it again."
            )
        by_fold[key] = file
    missing = [
        f"r{repeat + 1}f{fold + 1}"
        for repeat in range(cohort.repeats)
        for fold in range(cohort.folds)
        if (repeat, fold) not in by_fold
    ]
    if missing:
        raise RemitError(
            f"{model}: there are no embeddings for {some_of(missing)}; expected one file for each of "
            f"{cohort.repeats * cohort.folds} folds; make them."
        )
    if everybody is not None:
        _embedded(everybody, cohort, model, random=False)
    return FoldTable(
        model,
        "model",
        None,
        cohort.names,
        _NO_ROWS,
        _NOBODY,
        cohort=cohort,
        files=by_fold,
        everybody=everybody,
    )


def _embedded(file: Path, cohort: Cohort, model: str, *, random: bool) -> dict[str, Any]:
    """The metadata of an embeddings file that belongs to this model and dataset."""
    metadata = _metadata(file, "embeddings")
    _check_dataset(str(file), metadata, cohort)
    for key, expected in (("model", model), ("random", random)):
        if metadata.get(key) != expected:
            raise RemitError(
                f"{file}: {key} is {metadata.get(key)}; expected {expected}; the model and the embeddings "
                "do not belong together, make them again."
            )
    return metadata


def _embedding_rows(file: Path, cohort: Cohort) -> tuple[np.ndarray, np.ndarray]:
    """rows_NX and participant_N of those in the folds."""
    table = _read(file, ["Participant", "embedding"])
    participant_N, chosen_N = _people(file, table, cohort)
    column = table.column("embedding").combine_chunks()
    rows_NX = column.flatten().to_numpy().reshape(len(table), -1)[chosen_N].astype(np.float64)
    wrong = np.flatnonzero(~np.isfinite(rows_NX).all(axis=1))
    if len(wrong):
        who = cohort.names[participant_N[chosen_N][wrong[0]]]
        raise RemitError(
            f"{file}: participant {who} has an embedding that is no number; expected numbers; make the "
            "embeddings again, and look at the backbone's diagnostics."
        )
    return rows_NX, participant_N[chosen_N]


# --- reading --------------------------------------------------------------------------------------


def _metadata(file: Path, kind: str) -> dict[str, Any]:
    """What a file of features or embeddings says of itself."""
    try:
        stored = (pq.read_schema(file).metadata or {}).get(METADATA_KEY, b"null")
    except (OSError, pa.ArrowException) as error:
        raise RemitError(
            f"{file}: cannot be read ({str(error).splitlines()[0]}); expected a file of {kind}; make it "
            "again."
        ) from None
    metadata = json.loads(stored)
    found = metadata.get("kind") if isinstance(metadata, dict) else None
    if found != kind:
        raise RemitError(
            f"{file}: is no file of {kind} (it says '{found}'); expected one made by remit; check the path."
        )
    return dict(metadata)


def _check_dataset(file: str, metadata: Mapping[str, Any], cohort: Cohort) -> None:
    """The name tells montage and window; the hash everything else."""
    for key, expected in (
        ("dataset", cohort.dataset),
        ("content_sha256", cohort.content_sha256),
    ):
        if metadata.get(key) != expected:
            raise RemitError(
                f"{file}: {key} is {metadata.get(key)}; expected {expected} as in {cohort.path}; they do "
                "not belong together, make them again from one primary dataset."
            )


def _read(file: Path, columns: list[str]) -> pa.Table:
    try:
        return pq.read_table(file, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise RemitError(
            f"{file}: cannot be read ({str(error).splitlines()[0]}); expected an unharmed file; make it "
            "again."
        ) from None


def _people(file: Path, table: pa.Table, cohort: Cohort) -> tuple[np.ndarray, np.ndarray]:
    """Whose each row is, as a place among the labelled (-1: nobody of them), and whether it is one's."""
    place = {name: number for number, name in enumerate(cohort.names)}
    names = table.column("Participant").to_pylist()
    strange = sorted(set(names) - place.keys() - set(cohort.unlabelled))
    if strange:
        raise RemitError(
            f"{file}: participant {some_of(strange)} is not in {cohort.path}, which has those of the cohort "
            "sheet; expected nobody else; make the files again from one sheet."
        )
    participant_N = np.array([place.get(name, -1) for name in names], dtype=np.int64)
    return participant_N, participant_N >= 0
