"""A head fitted on everybody with a label, and what it says of people to come.

The head is the read-out of the evaluation, fitted once more on all labelled participants; its
probabilities are corrected by the calibration that the evaluation found out of fold. A new
recording takes the way of the training recordings: the chain, the sequences and the backbone are those
that the head's file names, never those of the configuration of the day, and what does not fit is
refused. Beside each probability stands how good the recording is, whether it lies outside what the
model has seen, and whether the model was made from this very person.

Shapes: P participants, N windows, D model width, G figures and C channels as in `novelty`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import expit
from threadpoolctl import threadpool_limits

from remit import naming
from remit.config import Evaluation, Execution, Preprocessing, Sequences, Settings
from remit.dataset import sketches
from remit.dataset.sequences import unusable
from remit.dataset.splits import read_whole_json
from remit.dataset.windows import (
    METADATA_KEY,
    WindowsFile,
    encode_metadata,
    kept_text,
    open_dataset,
    write_windows,
)
from remit.errors import RemitError, some_of
from remit.evaluation import crossfit, window_tables
from remit.evaluation.estimates import calibration_intercepts, log_odds
from remit.evaluation.folds import Folds, read_folds
from remit.evaluation.novelty import Novelty, compare, measure, reference_of
from remit.files import atomic_write, sha256_of, write_json
from remit.naming import ModelName
from remit.preprocessing.chain import preprocess
from remit.recordings.cohort import SheetRow
from remit.recordings.registry import ReaderOptions, find_reader, read_recording
from remit.training import checkpoint
from remit.training.data import (
    files_of,
    seen_in_pretraining,
    signal_of,
    signals_of,
    sketches_of,
)
from remit.training.embed import tables
from remit.training.finetune import BackboneSettings, load_backbone
from remit.training.runtime import prepare, use_backend, versions

RESULT_VERSION = 2  # raise when a change here or in `novelty` alters a head or a prediction

MOST_BAD = 0.5  # of a participant's windows; beyond, the probability is of what little was left
NO_DEVICE = (
    "This is a research result and not the output of a medical device; no decision about a person's "
    "treatment may rest on it."
)
FORMAT_VERSION = 2  # of a head's file; raise when what it holds changes


class HeadSettings(Settings):
    """What the rule of a head is given."""

    result_version: str
    evaluation: Evaluation


def fit_head(
    *,
    name: ModelName,
    settings: HeadSettings,
    embeddings: Path,
    primary: Path,
    folds: Path,
    report: Path,
    output: Path,
    log: Callable[[str], None],
) -> dict[str, Any]:
    """Fit the read-out on everybody with a label and write all that a prediction needs; returns it.

    Args:
        name: of the model.
        settings: of the rule.
        embeddings: by the one backbone of the model.
        primary: the dataset they were made of.
        folds: of its participants; says whose labels are used.
        report: of the evaluation of this model, in these folds.
        output: JSON.
        log: takes lines of progress.

    Raises:
        RemitError: when the files do not belong together.
    """
    cohort, dataset = read_folds(folds), open_dataset(primary)
    cohort.check_against(dataset.participants)
    table = window_tables.embeddings(embeddings, cohort, model=str(name))
    made = _made_of(embeddings)
    evaluated = _read_report(report, name, cohort, sha256_of(folds))
    readout = crossfit.final(table, cohort.labels, settings.evaluation)
    sequences = Sequences.model_validate(made["settings"]["sequences"])
    label_P = cohort.label_P
    people = list(cohort.names)
    head = {
        "kind": "head",
        "format_version": FORMAT_VERSION,
        "model": str(name),
        "result_version": settings.result_version,
        "label": evaluated["dataset"]["label"],
        "readout": readout,
        "calibration": calibration_of(evaluated),
        "evaluation": _evaluation_of(evaluated) | {"report_sha256": sha256_of(report)},
        "participants": {
            "n": len(people),
            "n_positive": int(label_P.sum()),
            "seen_by_backbone": len(set(made["seen"]) & set(people)),
        },
        "prevalence": float(label_P.mean()),
        "signal": signal_of(dataset),
        "embedding": {key: made["settings"][key] for key in ("model", "sequences")},
        "reference": reference_of(dataset, people, sequences)
        | {"fewest_windows": _fewest(dataset, people, sequences)},
        "backbone": {key: made[key] for key in ("backbone_sha256", "fingerprint")},
        # Under the keys of a checkpoint, so that the same search finds a person again.
        "data": {
            "participants_seen": {
                "head": [f"{dataset.metadata['cohort']}/{who}" for who in people]
            },
            "signals_seen": sorted(signals_of(dataset, people)),
            "files_seen": sorted(files_of(dataset, people)),
            "sketches_seen": sketches.encode(
                sketches.joined(sketches_of(dataset, people).values())
            ),
        },
        "dataset": {
            key: dataset.metadata[key]
            for key in ("dataset", "cohort", "content_sha256", "simulated", "result_version")
        },
        "settings": settings.evaluation.model_dump(mode="json"),
        "versions": versions(),
    }
    head["sha256"] = checkpoint.digest(head)
    write_json(output, head)
    log(
        f"head {name}: fitted on {len(people)} participants ({head['participants']['n_positive']} of class "
        f"1), strength {readout['strength']:g}, threshold {readout['threshold']:.3f}; calibration: "
        f"{head['calibration']['how']} -> {output}"
    )
    return head


def calibration_of(report: Mapping[str, Any]) -> dict[str, Any]:
    """How the log odds of new people are corrected: ``slope * log odds + intercept``, and why so.

    The slope is the evaluation's, of the out-of-fold probabilities; the intercept makes their mean, so
    corrected, the prevalence. That is the logistic recalibration of Cox (1958, Biometrika 45:562). A
    slope below 0 would turn the order round: then the best that does not is 0, the prevalence for
    everybody. Where it is not defined it is 1 if the classes are separated in their order, else 0.
    """
    own = _model_of(report)
    figure = own["figures"]["calibration"]["slope"]
    slope, low, high = (figure[key] for key in ("value", "low", "high"))
    label_P = np.array([each["label"] for each in own["predictions"]])
    odds_P = log_odds(np.array([each["probability"] for each in own["predictions"]]))
    found = "not defined" if slope is None else f"{slope:.2f}"
    if slope is not None:
        found += " (no interval)" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"
    in_order = odds_P[label_P == 1].mean() > odds_P[label_P == 0].mean()
    if slope is not None and slope > 0:
        used, how = slope, f"slope {found} and intercept of the out-of-fold probabilities"
        if low is not None and low <= 0:
            how += "; the interval holds 0, so nobody is shown to be told apart"
    elif slope is None and in_order:
        used, how = 1.0, f"slope {found} out of fold, taken as 1; intercept out of fold"
    else:
        used = 0.0
        how = (
            f"slope {found} out of fold, taken as 0: everybody has the prevalence, as the model told nobody "
            "apart in the evaluation"
        )
    intercept = float(calibration_intercepts(used * odds_P, label_P, np.ones((1, len(label_P))))[0])
    return {
        "slope": float(used),
        "intercept": intercept,
        "found_slope": {"value": slope, "low": low, "high": high},
        "how": how,
    }


def calibrated(head: Mapping[str, Any], probability: float) -> float:
    """A raw probability, corrected."""
    its = head["calibration"]
    return float(expit(its["slope"] * log_odds(np.array(probability)) + its["intercept"]))


def _made_of(embeddings: Path) -> dict[str, Any]:
    """What the embeddings say of themselves; `window_tables` has checked that it is there."""
    stored = pq.read_schema(embeddings).metadata[METADATA_KEY]
    return dict(json.loads(stored))


def _fewest(dataset: WindowsFile, people: Sequence[str], sequences: Sequences) -> int:
    frame = dataset.frame()
    used = frame[frame["Participant"].isin(people) & (frame["good"] | sequences.use_bad_windows)]
    return int(used["Participant"].value_counts().min())


def _model_of(report: Mapping[str, Any]) -> Mapping[str, Any]:
    own: Mapping[str, Any] = next(each for each in report["candidates"] if each["kind"] == "model")
    return own


def _evaluation_of(report: Mapping[str, Any]) -> dict[str, Any]:
    """What an evaluation found, to be said with every prediction."""
    own = _model_of(report)
    return {
        "auc": {key: own["figures"]["auc"][key] for key in ("value", "low", "high")},
        "permutation_p": own["permutation"]["p"],
        "headline": list(report["headline"]),
        "pretraining": report["pretraining"],
    }


def _read_report(file: Path, name: ModelName, cohort: Folds, folds_sha256: str) -> dict[str, Any]:
    """A report of this model in these folds; raises :class:`RemitError`."""
    report: dict[str, Any] = read_whole_json(file, "the report of an evaluation", "it")
    try:
        told = (
            ("model", report["model"], str(name)),
            ("dataset", report["dataset"]["content_sha256"], cohort.content_sha256),
            ("folds", report["folds"]["sha256"], folds_sha256),
        )
        _evaluation_of(report)
        calibration_of(report)
        _ = report["dataset"]["label"]
    except (KeyError, TypeError, StopIteration) as error:
        wrong = f"lacks {error}" if isinstance(error, KeyError) else "is of another form"
        raise RemitError(
            f"{file}: {wrong}; expected the report of an evaluation; make it again."
        ) from None
    for what, found, expected in told:
        if found != expected:
            raise RemitError(
                f"{file}: {what} is {found}; expected {expected}; the report and the embeddings do not "
                "belong together, evaluate again."
            )
    return report


def read_head(file: Path, name: ModelName) -> dict[str, Any]:
    """The head of a model; raises :class:`RemitError` for a file that is not it."""
    target = naming.path("head", model=str(name))
    head = read_whole_json(file, f"the head of {name} ('snakemake {target}' makes it)", "the head")
    if not isinstance(head, dict) or head.get("kind") != "head":
        raise RemitError(f"{file}: is no head; expected one made by 'remit head'; make it again.")
    if head.get("sha256") != checkpoint.digest({k: v for k, v in head.items() if k != "sha256"}):
        raise RemitError(
            f"{file}: is damaged, or was changed by hand: its content does not have the SHA-256 that "
            "stands in it under 'sha256'; expected it as it was written; make it again."
        )
    checkpoint.check_equal(
        file, "format_version", head["format_version"], FORMAT_VERSION, "this remit"
    )
    checkpoint.check_equal(file, "model", head["model"], str(name), "the name")
    return head


@dataclass(frozen=True)
class Prediction:
    """What is said of one participant; probabilities are None where no window can be used."""

    participant: str
    label: int | None
    """As the cohort sheet has it; nothing here reads it"""
    recordings: tuple[str, ...]
    probability: float | None
    """Of class 1, with the evaluation's calibration"""
    raw: float | None
    """As the head gives it"""
    decision: int | None
    """Whether ``raw`` reaches the head's threshold; None where everybody has the prevalence"""
    windows: int
    windows_used: int
    windows_bad: int
    quality: str
    trained_on: tuple[str, ...]
    """What of the model was made with this person: 'pretraining', 'head'"""
    novelty: Novelty
    """Of the recording that lies furthest out"""
    warnings: tuple[str, ...]


def predict(
    *,
    head: Mapping[str, Any],
    head_file: Path,
    backbone: Path,
    dataset: WindowsFile,
    execution: Execution,
) -> list[Prediction]:
    """Predict every participant of a dataset whose chain and montage are those of the head.

    On a CPU a participant's numbers are the same bits whoever else is in the dataset. Raises
    :class:`RemitError` when dataset, head and backbone do not belong together.
    """
    name = ModelName.parse(head["model"])
    _check_fits(head, head_file, dataset)
    device = prepare(execution)
    settings = BackboneSettings(result_version="", **head["embedding"])
    content, encoder, _ = load_backbone(backbone, name, settings, dataset)
    checkpoint.check_equal(
        backbone,
        "backbone_sha256",
        checkpoint.backbone_sha256(content),
        head["backbone"]["backbone_sha256"],
        str(head_file),
    )
    encoder.to(device).eval()
    use_backend(encoder, execution.backend, device)
    everybody = dataset.participants
    empty = set(unusable(dataset, everybody, settings.sequences))
    usable = [who for who in everybody if who not in empty]
    raw: dict[str, float] = {}
    for table in tables(encoder, dataset, usable, settings.sequences, device):
        raw |= _probabilities(head, table)
    seen = {
        "pretraining": set(seen_in_pretraining(content, dataset, everybody)),
        "head": set(seen_in_pretraining({"data": head["data"]}, dataset, everybody)),
    }
    figures = measure(dataset, everybody, settings.sequences)
    return [
        _prediction(head, dataset, who, raw.get(who), seen, figures, settings.sequences)
        for who in everybody
    ]


def _check_fits(head: Mapping[str, Any], head_file: Path, dataset: WindowsFile) -> None:
    """Refuse what is not the signal that the head was fitted on: montage, rate, unit, chain."""
    lacking = [one for one in head["signal"]["channels"] if one not in dataset.channels]
    if lacking or dataset.channels != head["signal"]["channels"]:
        raise RemitError(
            f"{dataset.path}: has the electrodes {some_of(dataset.channels, 40)}"
            + (f", without {some_of(lacking)}" if lacking else "")
            + f"; expected {some_of(head['signal']['channels'], 40)}, those of {head['model']}; choose "
            "a model of these electrodes, or set the cohort's channels."
        )
    checkpoint.check_equal(
        dataset.path, "signal", signal_of(dataset), head["signal"], str(head_file)
    )


def _probabilities(head: Mapping[str, Any], table: pa.Table) -> dict[str, float]:
    """The head's probability of each participant: the mean over their windows'."""
    width = len(head["readout"]["median"])
    embedding_ND = table.column("embedding").combine_chunks().flatten().to_numpy()
    embedding_ND = embedding_ND.reshape(len(table), width)
    who_N = np.array(table.column("Participant").to_pylist(), dtype=object)
    odd = ~np.isfinite(embedding_ND).all(axis=1)
    if odd.any():
        raise RemitError(
            f"participant {some_of(dict.fromkeys(who_N[odd]))} has an embedding that is no number; expected "
            "numbers; look at the recording, and at the backbone's diagnostics."
        )
    found = {}
    with threadpool_limits(1, user_api="blas"):  # threads would change the last digits
        # Each participant by themselves: the product of more rows rounds differently.
        for who in dict.fromkeys(who_N.tolist()):
            found[who] = float(crossfit.apply(head["readout"], embedding_ND[who_N == who]).mean())
    return found


def _prediction(
    head: Mapping[str, Any],
    dataset: WindowsFile,
    who: str,
    raw: float | None,
    seen: Mapping[str, set[str]],
    figures: Mapping[str, np.ndarray],
    sequences: Sequences,
) -> Prediction:
    frame = dataset.frame()
    own = frame[frame["Participant"] == who]
    recordings = tuple(dict.fromkeys(own["recording"]))
    sources = dataset.metadata["sources"]
    bad = int((~own["good"]).sum())
    used = len(own) if sequences.use_bad_windows else len(own) - bad
    found = {one: compare(head["reference"], figures[one]) for one in recordings}
    furthest = max(recordings, key=lambda one: found[one].largest)
    trained_on = tuple(what for what, people in seen.items() if who in people)
    warnings = []
    if trained_on:
        warnings.append(
            f"the model was made with this person ({' and '.join(trained_on)}): the probability is no "
            "prediction"
        )
    if not used:
        warnings.append("no window of good quality: no probability")
    elif bad > MOST_BAD * len(own):
        warnings.append(f"{bad} of {len(own)} windows are bad")
    fewest = head["reference"]["fewest_windows"]
    if 0 < used < fewest:
        warnings.append(
            f"windows used: {used}; everybody whom the head was fitted on has {fewest} or more"
        )
    for one in recordings:
        of = f"{one}: " if len(recordings) > 1 else ""
        warnings += [of + text for text in found[one].warnings]
    if head["dataset"]["simulated"] != dataset.metadata["simulated"]:
        kinds = ("simulated", "real") if head["dataset"]["simulated"] else ("real", "simulated")
        warnings.append(f"the head was fitted on {kinds[0]} people and this is a {kinds[1]} one")
    return Prediction(
        participant=who,
        label=dataset.labels[who],
        recordings=recordings,
        probability=None if raw is None else calibrated(head, raw),
        raw=raw,
        # Where the calibration tells nobody apart, a threshold would.
        decision=int(raw >= head["readout"]["threshold"])
        if raw is not None and head["calibration"]["slope"] > 0
        else None,
        windows=len(own),
        windows_used=used,
        windows_bad=bad,
        quality="; ".join(kept_text(sources[one]) for one in recordings),
        trained_on=trained_on,
        novelty=found[furthest],
        warnings=tuple(warnings),
    )


def notice(head: Mapping[str, Any]) -> list[str]:
    """What has to be said with every prediction of a head, one line each; what forbids belief first."""
    people, found = head["participants"], head["evaluation"]
    n, positive, seen = people["n"], people["n_positive"], people["seen_by_backbone"]
    lines = [
        *found["headline"],
        f"{head['model']}: the read-out is fitted on all {n} participants, {positive} of class 1; the "
        "figures above are of fits without the people they are of. No interval stands beside a person's "
        "probability, and with so few people fitted on it may be wide.",
    ]
    if found["pretraining"]["mode"] == "per_fold":
        lines.append(
            "ANOTHER BACKBONE: figures and calibration are of backbones pretrained without the people they "
            f"were tested on; this read-out's backbone has seen {seen} of the {n} it is fitted on, and "
            "was itself never evaluated."
        )
    lines.append(
        f"Calibration: {head['calibration']['how']}; right for people of whom {positive} in {n} are of "
        "class 1, as of those fitted on, and for no others."
    )
    return [*lines, NO_DEVICE]


def predict_cohort(
    *,
    name: ModelName,
    cohort: str,
    head: Path,
    backbone: Path,
    corpus: Path,
    output: Path,
    execution: Execution,
    result_version: str,
    log: Callable[[str], None],
) -> None:
    """Write the predictions of a cohort that the head was not fitted on; one row per participant.

    Raises :class:`RemitError` as :func:`predict`, and for the cohort of the head itself.
    """
    fitted = read_head(head, name)
    if cohort == fitted["dataset"]["cohort"]:
        raise RemitError(
            f"cohort '{cohort}' is the one that {head} is fitted on; expected another; its probabilities out "
            f"of fold stand in {naming.path('evaluation', model=str(name))}, candidates, predictions."
        )
    dataset = open_dataset(corpus)
    checkpoint.check_equal(corpus, "cohort", dataset.metadata["cohort"], cohort, "the target")
    found = predict(
        head=fitted, head_file=head, backbone=backbone, dataset=dataset, execution=execution
    )
    said = {
        "kind": "predictions",
        "model": str(name),
        "cohort": cohort,
        "dataset": dataset.metadata["dataset"],
        "content_sha256": dataset.metadata["content_sha256"],
        "simulated": dataset.metadata["simulated"],
        "head_sha256": sha256_of(head),
        **{
            key: fitted[key]
            for key in ("label", "backbone", "calibration", "prevalence", "evaluation")
        },
        "threshold": fitted["readout"]["threshold"],
        "notice": notice(fitted),
        "result_version": result_version,
        "versions": versions(),
    }
    write_predictions(output, found, fitted["reference"], said)
    for line in notice(fitted):
        log(f"predict {name}: {line}")
    for one in found:
        for warning in one.warnings:
            log(f"predict {name}: {one.participant}: warning: {warning}")
    log(
        f"predict {name}: {len(found)} participants of {cohort}, "
        f"{sum(one.probability is None for one in found)} without a probability, "
        f"{sum(bool(one.warnings) for one in found)} with warnings -> {output}"
    )


def write_predictions(
    file: Path,
    found: Sequence[Prediction],
    reference: Mapping[str, Any],
    metadata: Mapping[str, Any],
) -> None:
    """Write predictions as parquet; the same ones give the same bytes."""
    text, whole, real, small = pa.string(), pa.int32(), pa.float64(), pa.int8()
    columns: list[tuple[str, pa.DataType, list[Any]]] = [
        ("Participant", text, [one.participant for one in found]),
        ("Remission", small, [one.label for one in found]),
        ("recordings", whole, [len(one.recordings) for one in found]),
        ("probability", real, [one.probability for one in found]),
        ("probability_raw", real, [one.raw for one in found]),
        ("decision", small, [one.decision for one in found]),
        ("windows", whole, [one.windows for one in found]),
        ("windows_used", whole, [one.windows_used for one in found]),
        ("windows_bad", whole, [one.windows_bad for one in found]),
        ("quality", text, [one.quality for one in found]),
        ("trained_on", text, [", ".join(one.trained_on) for one in found]),
        ("warnings", text, ["; ".join(one.warnings) for one in found]),
        ("figures_outside", whole, [int(one.novelty.outside_GC.sum()) for one in found]),
    ]
    for g, figure in enumerate(reference["figures"]):
        for c, channel in enumerate(reference["channels"]):
            z = [float(one.novelty.z_GC[g, c]) for one in found]
            columns.append((f"z_{figure}_{channel}", pa.float32(), z))
    empty = {"Remission", "probability", "probability_raw", "decision"}
    schema = pa.schema(
        [pa.field(name, kind, nullable=name in empty) for name, kind, _ in columns],
        metadata=encode_metadata(metadata),
    )
    table = pa.table([pa.array(values, kind) for _, kind, values in columns], schema=schema)
    with atomic_write(file) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def backbone_of(name: ModelName, root: Path) -> Path:
    """A model's backbone under a working directory: one from elsewhere, if there is one."""
    drop_in = root / naming.DROP_IN_PATTERN.format(model=name)
    return drop_in if drop_in.exists() else root / naming.path("pretrained", model=str(name))


def recordings_in(path: Path, options: ReaderOptions) -> list[SheetRow]:
    """The recordings in a file, one for most; raises :class:`RemitError` for one nobody reads."""
    reader = find_reader(path)
    entries = [one.name for one in reader.entries(path, options)] if reader.entries else [None]
    return [
        SheetRow(name, name, str(path), entry)
        for entry in entries
        for name in [_as_id(path.stem if entry is None else f"{path.stem}-{entry}")]
    ]


def shown(row: SheetRow) -> str:
    """A recording of a file, for a person."""
    return row.path if row.entry is None else f"{row.path}, entry {row.entry}"


def predict_recording(
    row: SheetRow,
    *,
    head: Mapping[str, Any],
    head_file: Path,
    backbone: Path,
    options: ReaderOptions,
    execution: Execution,
) -> Prediction:
    """Predict one of :func:`recordings_in`.

    It goes through the chain of the head's dataset, by the settings that stand in the head's file.
    Raises :class:`RemitError` for a recording that cannot be read, that lacks an electrode, that is
    shorter than a window, or whose unit or rate cannot be made the model's.
    """
    chain = head["signal"]["preprocessing"]
    with TemporaryDirectory(prefix="remit-predict-") as folder:
        file = Path(folder) / "windows.parquet"
        try:
            recording = read_recording(row, options)
            windows = preprocess(
                recording, Preprocessing.model_validate(chain), head["signal"]["channels"]
            )
            write_windows(
                file,
                windows,
                recording=recording,
                remission=None,
                cohort="",  # nobody's, so that no participant is taken for another of this name
                settings={"preprocessing": chain},
            )
        except RemitError as error:
            known = str(error).startswith(row.path)
            raise RemitError(str(error) if known else f"{shown(row)}: {error}") from None
        (found,) = predict(
            head=head,
            head_file=head_file,
            backbone=backbone,
            dataset=open_dataset(file),
            execution=execution,
        )
    return found


def _as_id(text: str) -> str:
    """A file's stem as the recording's id, for messages."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", text).lstrip("-_")[: naming.ID_MAX_LENGTH] or "recording"


def line_of(row: SheetRow, one: Prediction, head: Mapping[str, Any]) -> str:
    """A recording's prediction as one line of text."""
    people, threshold = head["participants"], head["readout"]["threshold"]
    if one.raw is None or one.probability is None:
        said = "no probability"
    else:
        side = f"{'at or above' if one.decision else 'below'} the threshold {threshold:.2f}"
        if one.decision is None:
            side = "no decision: everybody is given the prevalence"
        said = (
            f"probability of class 1 of {head['label']}: {one.probability:.2f} (uncalibrated "
            f"{one.raw:.2f}, {side}; prevalence {people['n_positive']} of {people['n']})"
        )
    warned = "".join(f"; WARNING: {text}" for text in one.warnings)
    return f"{shown(row)}: {said}; {one.quality}{warned}"


def plain(row: SheetRow, one: Prediction, head: Mapping[str, Any]) -> dict[str, Any]:
    """A recording's prediction as plain values."""
    reference, novelty = head["reference"], one.novelty
    names = [f"{f}_{c}" for f in reference["figures"] for c in reference["channels"]]
    z = [float(value) if math.isfinite(value) else None for value in novelty.z_GC.ravel()]
    outside = novelty.outside_GC.ravel().tolist()
    return {
        "recording": shown(row),
        "probability": one.probability,
        "probability_raw": one.raw,
        "decision": one.decision,
        "threshold": head["readout"]["threshold"],
        "windows": one.windows,
        "windows_used": one.windows_used,
        "windows_bad": one.windows_bad,
        "quality": one.quality,
        "trained_on": list(one.trained_on),
        "z": dict(zip(names, z, strict=True)),
        "outside": [name for name, out in zip(names, outside, strict=True) if out],
        "warnings": list(one.warnings),
    }
