"""The answer: how well a model tells participants apart whom nothing was fitted on, and beside what.

Every candidate - the model, each baseline, each nuisance, prevalence - goes through the same folds and
the same code. What a reader must know first (a nuisance that reaches the model, a backbone that has
seen the test people, simulated data) comes first in the file, and everything that shows figures
repeats it.

Shapes: P participants with a label, R repeats, K folds, S permutations.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from remit import progress
from remit.config import Evaluation, Execution, Settings
from remit.dataset.windows import METADATA_KEY, WindowsFile, open_dataset
from remit.errors import RemitError, some_of
from remit.evaluation import candidates, window_tables
from remit.evaluation.candidates import Absent, Table
from remit.evaluation.convolutional import Convolutional
from remit.evaluation.crossfit import CrossFit, crossfit, leave_one_out, permuted
from remit.evaluation.estimates import (
    age_bands,
    figures,
    majority,
    paired,
    reached,
    roc,
    subgroups,
)
from remit.evaluation.estimates import leave_one_out as pooled_figures
from remit.evaluation.finetuned import Finetuned
from remit.evaluation.folds import MOST_REPEATS, Folds, read_folds
from remit.evaluation.metrics import THRESHOLD, shown
from remit.evaluation.power import could_have_shown
from remit.evaluation.read_log import note_test_read
from remit.evaluation.trained import Trained
from remit.files import sha256_of, write_json
from remit.naming import ModelName
from remit.recordings.cohort import SheetRow, read_made_sheet
from remit.recordings.scan import UNKNOWN
from remit.training.finetune import ClassifierSettings
from remit.training.runtime import versions

RESULT_VERSION = 2  # raise when a change here alters a report

SEX_WORDS = {"sex", "gender"}
AGE_WORDS = {"age"}


class EvaluateSettings(Settings):
    """What the rule's command is given."""

    result_version: str
    evaluation: Evaluation
    label: str = "remission"
    """The outcome in words"""
    finetuned: ClassifierSettings | None = None
    """What evaluation.finetuned is fitted by"""


def evaluate(
    *,
    name: ModelName,
    settings: EvaluateSettings,
    embeddings: Sequence[Path],
    random: Path,
    features: Path,
    primary: Path,
    folds: Path,
    sheet: Path,
    output: Path,
    log: Callable[[str], None],
    backbones: Sequence[Path] = (),
    execution: Execution | None = None,
) -> None:
    """Compare a model with every baseline in the same folds and write the report.

    Args:
        name: of the model.
        settings: of the rule.
        embeddings: of the model: one file, or one per fold of each repeat.
        random: embeddings by the same backbone with random weights.
        features: of every window.
        primary: the dataset that all of these were made of.
        folds: of its participants.
        sheet: of its cohort.
        output: the report, JSON.
        log: takes lines of progress.
        backbones: what the embeddings were made by, for evaluation.finetuned.
        execution: of fine-tuning; the defaults, if None.

    Raises:
        RemitError: when the files do not belong together, when a backbone has seen a participant whom
            it is to be tested on and the estimate is not declared transductive, and when a class has
            too few participants.
    """
    options = settings.evaluation
    cohort = read_folds(folds)
    dataset = open_dataset(primary)
    metadata = dataset.metadata
    rows = read_made_sheet(sheet)
    guards = _guards(cohort, dataset, options)
    _check_sheet(rows, sheet, cohort)
    trained: list[Trained] = [Convolutional(dataset)] if options.convolutional else []
    per_fold = len(embeddings) > 1
    model = (
        window_tables.embeddings_by_fold(embeddings, cohort, model=str(name))
        if per_fold
        else window_tables.embeddings(embeddings[0], cohort, model=str(name))
    )
    pretraining = _pretraining(model, options, per_fold=per_fold)
    guards.append(
        {
            "guard": "participants tested by a backbone that has seen them",
            "found": f"{len(pretraining['seen'])} of {len(cohort.names)}, as the checkpoints record",
        }
    )
    if options.finetuned:
        if settings.finetuned is None:
            raise RemitError(
                f"evaluate {name}: evaluation.finetuned is true and no settings of fine-tuning are given; "
                "expected both; give what the workflow gives, or set it to false."
            )
        finetuned = Finetuned(
            name,
            settings.finetuned,
            dataset=dataset,
            folds=cohort,
            embeddings=embeddings,
            backbones=backbones,
            transductive=options.pretraining == "transductive",
            execution=execution or Execution(),
        )
        trained.append(finetuned)
        guards.append(
            {
                "guard": "what is fine-tuned in a fold is the backbone that its embeddings were made by",
                "found": f"{len(backbones)} checkpoints, by SHA-256",
            }
        )
    everything: list[Table | Absent] = [
        model,
        candidates.prevalence(cohort),
        candidates.covariates(rows, cohort),
        window_tables.length_and_quality(dataset, cohort),
        candidates.date_or_site(rows, cohort),
        candidates.sheet_order(rows, cohort),
        window_tables.band_power(features, cohort),
        window_tables.tangent_space(dataset, cohort),
        window_tables.embeddings(random, cohort, model=str(name), random=True),
    ]
    tables = [table for table in everything if isinstance(table, Table)]
    absent = [table for table in everything if isinstance(table, Absent)]
    for which in absent:
        log(f"evaluate {name}: without '{which.name}': {which.why}")
    guards.append(_guard_embeddings(embeddings, random))
    read = (*embeddings, *backbones, random, features, primary, folds, sheet)
    hashes = {str(file): sha256_of(file) for file in read}
    test_reads = note_test_read(
        f"evaluate {name}",
        cohort.dataset,
        metadata["cohort"],
        {"settings": settings.model_dump(mode="json"), "files": sorted(hashes.values())},
        log,
    )
    label_SP = permuted(cohort.label_P, options.permutations, options.seed)
    groups = groups_of(rows, cohort.names)
    found: dict[str, CrossFit] = {}
    entries: list[dict[str, Any]] = []
    for table in progress.track(tables, "candidates", "candidate"):
        fit = crossfit(table, cohort, options, label_SP)
        found[table.name] = fit
        entries.append(_entry(table, fit, cohort, options, groups, alone=not per_fold))
        auc = entries[-1]["figures"]["auc"]
        log(f"evaluate {name}: {table.name}: AUC {shown(auc)}, p {_shown_p(fit.p_value)}")
    comparisons = [
        {"name": table.name, "kind": table.kind}
        | paired(
            cohort.label_P,
            found[model.name],
            found[table.name],
            seed=options.seed,
            resamples=options.resamples,
        )
        for table in tables[1:]
    ]
    nuisance = _nuisance(tables, found, comparisons)
    if trained:
        few = cohort.first(MOST_REPEATS)
        beside = crossfit(model, few, options, label_SP)
        # Decided as they are: a chosen threshold against none would compare the thresholds.
        at_half_RP = (beside.probability_RP >= THRESHOLD).astype(int)
        beside = replace(beside, decision_RP=at_half_RP)
    for candidate in trained:
        fit = candidate.crossfit(few, seed=options.seed, log=log)
        entries.append(_entry(candidate, fit, few, options, groups, alone=False))
        auc = entries[-1]["figures"]["auc"]
        log(f"evaluate {name}: {candidate.name}: AUC {shown(auc)}, without a p value")
        comparisons.append(
            {"name": candidate.name, "kind": candidate.kind}
            | paired(cohort.label_P, beside, fit, seed=options.seed, resamples=options.resamples)
        )
    own = found[model.name]
    positive = int(cohort.label_P.sum())
    report = {
        "model": str(name),
        "result_version": settings.result_version,
        "headline": _headline(
            entries[0], nuisance, comparisons, pretraining, metadata, settings.label
        ),
        "dataset": {
            **{
                key: metadata[key]
                for key in (
                    *("dataset", "cohort", "content_sha256", "simulated"),
                    *("channels", "sampling_rate", "window_samples"),
                )
            },
            "label": settings.label,
        },
        "pretraining": pretraining,
        "test_reads": test_reads,
        "participants": {
            "n": len(cohort.names),
            "n_positive": positive,
            "unlabelled": cohort.unlabelled,
        },
        "folds": {
            "folds": cohort.folds,
            "asked": cohort.asked,
            "repeats": cohort.repeats,
            "seed": cohort.seed,
            "sha256": hashes[str(folds)],
        },
        "settings": options.model_dump(mode="json"),
        "files": hashes,
        "power": could_have_shown(
            positive, len(cohort.names) - positive, seed=options.seed, null_auc_S=own.null_auc_S
        ),
        "candidates": entries,
        "absent": [{"name": which.name, "kind": which.kind, "why": which.why} for which in absent],
        "comparisons": comparisons,
        "nuisance": nuisance,
        "guards": guards,
        "versions": versions(),
    }
    write_json(output, report)
    for line in report["headline"]:
        log(f"evaluate {name}: {line}")


def _guards(cohort: Folds, dataset: WindowsFile, options: Evaluation) -> list[dict[str, str]]:
    """What is checked of the files themselves, not taken from the code's intention."""
    metadata = dataset.metadata
    for key in ("dataset", "content_sha256"):
        if getattr(cohort, key) != metadata[key]:
            raise RemitError(
                f"{cohort.path}: {key} is {getattr(cohort, key)}; expected {metadata[key]} as in "
                f"{dataset.path}; make the folds again."
            )
    cohort.check_against(dataset.participants)
    other = [name for name in cohort.names if dataset.labels[name] != cohort.labels[name]]
    if other:
        raise RemitError(
            f"{cohort.path}: participant {some_of(other)} has another label than in {dataset.path}; "
            "expected the same; make the folds again."
        )
    for key, asked in (("repeats", "repeats"), ("seed", "seed"), ("asked", "folds")):
        if getattr(cohort, key) != getattr(options, asked):
            raise RemitError(
                f"{cohort.path}: {asked} is {getattr(cohort, key)}; expected {getattr(options, asked)} as in "
                f"evaluation.{asked}; make the folds again."
            )
    for repeat in range(cohort.repeats):
        tested = [name for fold in range(cohort.folds) for name in cohort.test(repeat, fold)]
        if sorted(tested) != list(cohort.names):
            raise RemitError(
                f"{cohort.path}: repeat {repeat + 1} tests {len(tested)} of {len(cohort.names)} "
                "participants; expected each once; make the folds again."
            )
    return [
        {
            "guard": "every participant is tested once in each repeat, by what was fitted on others",
            "found": f"{len(cohort.names)} participants in {cohort.folds} folds, {cohort.repeats} times",
        },
        {
            "guard": "the folds are those of their seed and labels, dealt again when they were read",
            "found": f"seed {cohort.seed}",
        },
        {
            "guard": "labels of the folds are those of the dataset",
            "found": f"{len(cohort.names)} equal, {len(cohort.unlabelled)} without",
        },
    ]


def _guard_embeddings(embeddings: Sequence[Path], random: Path) -> dict[str, str]:
    """That backbones differ and nothing else: equal windows, equal settings, of every file."""

    def made(file: Path) -> tuple[dict[str, Any], pa.Table]:
        # Which fold, and the seed of random weights, are the backbone's.
        own = {"repeat", "fold", "seed"}
        schema = pq.read_schema(file)
        settings = json.loads(schema.metadata[METADATA_KEY])["settings"]
        keys = [key for key in schema.names if key != "embedding"]
        return {k: v for k, v in settings.items() if k not in own}, pq.read_table(
            file, columns=keys
        )

    first, *others = (*embeddings, random)
    expected, windows = made(first)
    for file in others:
        found, its_windows = made(file)
        for key in sorted({*expected, *found}):
            if found.get(key) != expected.get(key):
                raise RemitError(
                    f"{file}: made with {key} {found.get(key)}; expected {expected.get(key)} as in {first}; "
                    "make the embeddings again."
                )
        if not its_windows.equals(windows):
            raise RemitError(
                f"{file}: its {len(its_windows)} windows are others than the {len(windows)} of {first}; "
                "expected the same; make the embeddings again."
            )
    return {
        "guard": "all embeddings, those by random weights too, are of the same windows with equal settings",
        "found": f"{1 + len(others)} files of {len(windows)} windows",
    }


def _pretraining(model: Table, options: Evaluation, *, per_fold: bool) -> dict[str, Any]:
    """Whom of the evaluated people the backbone has seen, by the checkpoint's own record."""
    seen = list(model.seen)
    if seen and options.pretraining != "transductive":
        raise RemitError(
            f"{model.name}: its backbone has seen participant {some_of(seen)}, whom the evaluation tests; "
            "expected a backbone that has seen none of them; set evaluation.pretraining: per_fold (and take"
            " away a backbone put there by hand), or 'transductive', which every figure then says."
        )
    return {
        "mode": "given"
        if options.pretraining == "per_fold" and not per_fold
        else options.pretraining,
        "transductive": bool(seen),
        "seen": seen,
    }


def _check_sheet(rows: Sequence[SheetRow], sheet: Path, cohort: Folds) -> None:
    """The sheet gives covariates and dates: it must be of the same people with the same labels."""
    labels = {row.participant: row.remission for row in rows}
    other = [name for name in cohort.names if labels.get(name) != cohort.labels[name]]
    if other:
        raise RemitError(
            f"{sheet}: participant {some_of(other)} has another label, or none, than in {cohort.path}; "
            "expected the same; make the windows and the folds again from this sheet."
        )


def groups_of(rows: Sequence[SheetRow], names: Sequence[str]) -> dict[str, list[str | None]]:
    """Sex, age band and site of each participant, from the columns of the sheet that have them."""
    first = {row.participant: row.covariates for row in reversed(rows)}
    columns = dict.fromkeys(column for row in rows for column in row.covariates)
    groups: dict[str, list[str | None]] = {}
    for column in columns:
        words = candidates.words_of(column)
        cells = [first[name].get(column, "").strip() for name in names]
        texts = [None if cell.lower() in UNKNOWN else cell for cell in cells]
        if not any(texts):
            continue
        if words & AGE_WORDS:
            groups[f"{column} (years)"] = age_bands([_years(text) for text in texts])
        elif words & (SEX_WORDS | candidates.SITE_WORDS):
            groups[column] = texts
    return groups


def _years(text: str | None) -> float | None:
    try:
        return float(text.replace(",", ".")) if text else None
    except ValueError:
        return None


def _entry(
    table: Table | Trained,
    fit: CrossFit,
    cohort: Folds,
    options: Evaluation,
    groups: Mapping[str, Sequence[str | None]],
    *,
    alone: bool,
) -> dict[str, Any]:
    """What the report says of one candidate."""
    found = figures(
        cohort.label_P,
        fit.probability_RP,
        fit.decision_RP,
        fit.fold_RP,
        seed=options.seed,
        resamples=options.resamples,
        null_auc_S=fit.null_auc_S,
    )
    mean_P, decision_P = fit.probability_RP.mean(0), majority(fit.decision_RP)
    null_S = fit.null_auc_S[np.isfinite(fit.null_auc_S)]
    entry: dict[str, Any] = {
        "name": table.name,
        "kind": table.kind,
        "columns": None if table.columns is None else len(table.columns),
        "notes": list(table.notes),
        "figures": found,
        "permutation": {
            "p": fit.p_value,
            "permutations": len(fit.null_auc_S),
            "null_mean": float(null_S.mean()) if len(null_S) else None,
            "null_95": float(np.quantile(null_S, 0.95)) if len(null_S) else None,
        },
        "strengths": _counts(fit.strength_RK),
        "predictions": [
            {
                "participant": name,
                "label": int(label),
                "probability": float(probability),
                "decision": int(decision),
            }
            for name, label, probability, decision in zip(
                cohort.names, cohort.label_P, mean_P, decision_P, strict=True
            )
        ],
    }
    if not isinstance(table, Table) or table.kind != "model":
        return entry
    entry["subgroups"] = subgroups(
        cohort.label_P,
        fit.probability_RP,
        fit.fold_RP,
        groups,
        seed=options.seed,
        resamples=options.resamples,
        spread=found["spread"]["value"],
    )
    entry["roc"] = roc(
        cohort.label_P,
        fit.probability_RP,
        fit.fold_RP,
        seed=options.seed,
        resamples=options.resamples,
        spread=found["spread"]["value"],
    )
    entry["leave_one_out"] = (
        pooled_figures(cohort.label_P, leave_one_out(table, cohort.labels, options).probability_P)
        if alone
        else {
            "auc": None,
            "note": "not computed: each participant would need a backbone pretrained without them",
        }
    )
    return entry


def _counts(values_RK: np.ndarray) -> dict[str, int]:
    values, counts = np.unique(values_RK, return_counts=True)
    return {f"{value:g}": int(count) for value, count in zip(values, counts, strict=True)}


def _nuisance(
    tables: Sequence[Table], found: Mapping[str, CrossFit], comparisons: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Which candidates that hold no EEG reach the model."""
    model = found[tables[0].name]
    out = []
    for table, difference in zip(tables[1:], comparisons, strict=True):
        if table.kind != "nuisance":
            continue
        fit = found[table.name]
        p = fit.p_value if fit.p_value is not None else 1.0
        is_reached = reached(model.auc, fit.auc, p, difference["auc"])
        out.append(
            {
                "name": table.name,
                "reaches": is_reached,
                "why": f"AUC {fit.auc:.2f} (p {_shown_p(fit.p_value)}) against the model's {model.auc:.2f}; "
                f"difference {shown(difference['auc'])}",
            }
        )
    return out


def _headline(
    model: Mapping[str, Any],
    nuisance: Sequence[Mapping[str, Any]],
    comparisons: Sequence[Mapping[str, Any]],
    pretraining: Mapping[str, Any],
    metadata: Mapping[str, Any],
    label: str,
) -> list[str]:
    """What comes first: what forbids to believe the figure, then the figure."""
    auc, found = model["figures"]["auc"], model["figures"]
    p = model["permutation"]["p"]
    told = p is not None and p <= 0.05 and auc["value"] > 0.5
    first = "NOT EEG ALONE" if told else "NOT TOLD FROM CHANCE, and as good without EEG"
    lines = [
        f"{first}: {each['name']} reaches the model: {each['why']}."
        for each in nuisance
        if each["reaches"]
    ]
    if pretraining["transductive"]:
        lines.append(
            f"TRANSDUCTIVE: the backbone was pretrained on recordings of {len(pretraining['seen'])} of the "
            f"{found['n']} participants it is tested on."
        )
    if metadata["simulated"]:
        lines.append("SIMULATED data: this says nothing about people.")
    where = ""
    if auc["low"] is not None:
        where = "; the interval holds 0.5, chance" if auc["low"] <= 0.5 <= auc["high"] else ""
        where = "; BELOW chance: look for a reason" if auc["high"] < 0.5 else where
    lines.append(
        f"AUC {shown(auc)} for {label} in {found['n']} participants ({found['n_positive']} positive), "
        f"permutation p {_shown_p(p)}{where}."
    )
    equal = [
        each["name"]
        for each in comparisons
        if each["kind"] != "chance" and each["auc"]["low"] is not None and each["auc"]["low"] <= 0
    ]
    if told and equal:
        lines.append(f"Not shown to be better than: {', '.join(equal)}.")
    return lines


def _shown_p(p: float | None) -> str:
    return "not tested" if p is None else f"{p:.3f}" if p >= 0.001 else f"{p:.1g}"
