"""Tables of what is compared that are made of windows: their quality, their signal, their embeddings.

What a table is, and what it may not know, stands in `candidates`.

Shapes: P participants, N rows (windows, or one per participant), X columns, W windows, C channels,
S samples.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyriemann.estimation import Covariances
from pyriemann.tangentspace import TangentSpace
from threadpoolctl import threadpool_limits

from remit.dataset.windows import METADATA_KEY, WindowsFile
from remit.errors import RemitError, some_of
from remit.evaluation.candidates import NO_ROWS, NOBODY, Cohort, Table, of_people, varying
from remit.preprocessing.chain import CHANNEL_QUALITY

# Raise when a change of the code alters a table.
RESULT_VERSION = 1


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
    columns, rows_PX, notes = varying(found, [])
    if not columns:
        rows_PX = np.empty((len(cohort.names), 0))
    name = "recording length and quality only"
    return of_people(name, "nuisance", cohort.names, columns, rows_PX, notes)


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
        NO_ROWS,
        NOBODY,
        covariance_PCC=sum_PCC / np.maximum(count_P, 1)[:, None, None],
    )


# --- what the backbone says -----------------------------------------------------------------------


def embeddings(file: Path, cohort: Cohort, *, model: str, random: bool = False) -> Table:
    """A backbone's embeddings of every window, of the model or of the same backbone not trained.

    Raises :class:`RemitError` for a file of another model, of another dataset (other channels among
    it), or of people who are not in the folds.
    """
    metadata = embedded(file, cohort, model, random=random)
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
        metadata = embedded(file, cohort, model, random=False)
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
        embedded(everybody, cohort, model, random=False)
    return FoldTable(
        model,
        "model",
        None,
        cohort.names,
        NO_ROWS,
        NOBODY,
        cohort=cohort,
        files=by_fold,
        everybody=everybody,
    )


def embedded(file: Path, cohort: Cohort, model: str, *, random: bool) -> dict[str, Any]:
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
