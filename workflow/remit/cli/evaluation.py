"""Diagnostics, folds, candidates, the evaluation, and predictions."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from remit import naming, progress
from remit.cli.arguments import (
    MODEL,
    add,
    add_reader_options,
    execution_of,
    json_object,
    reader_options,
    settings_of,
    stage,
)
from remit.cli.messages import complain, log
from remit.errors import RemitError


def _diagnose(args: argparse.Namespace) -> None:
    from remit.evaluation.diagnostics import DiagnoseSettings, diagnose
    from remit.report.diagnostics import draw_bands, draw_skill

    found = diagnose(
        settings=settings_of(DiagnoseSettings, args.settings),
        backbone_file=args.backbone,
        primary=args.primary,
        split_file=args.split,
        sheet=args.sheet,
        output=args.output,
        execution=execution_of(args.execution),
        log=log,
    )
    for draw, file in ((draw_skill, args.skill), (draw_bands, args.bands)):
        if file is not None:
            draw(found, file)
    log(f"diagnose {found['model']}: wrote {args.output}")


def _folds(args: argparse.Namespace) -> None:
    from remit.config import Evaluation
    from remit.dataset.windows import open_dataset
    from remit.evaluation.folds import make_folds, write_folds

    file = open_dataset(args.primary)
    folds = make_folds(
        file.labels,
        settings_of(Evaluation, args.settings["evaluation"]),
        dataset=file.metadata["dataset"],
        content_sha256=file.metadata["content_sha256"],
        simulated=file.metadata["simulated"],
    )
    write_folds(args.output, folds)
    log(
        f"{folds['repeats']} x {folds['folds']} folds ({folds['asked']} asked for) of "
        f"{len(folds['participants'])} labelled participants, {len(folds['unlabelled'])} without a label "
        f"-> {args.output}"
    )


def _fold_split(args: argparse.Namespace) -> None:
    from remit.config import Evaluation
    from remit.dataset.splits import fold_split, write_split
    from remit.dataset.windows import open_dataset
    from remit.evaluation.folds import make_folds

    file = open_dataset(args.primary)
    facts = {key: file.metadata[key] for key in ("dataset", "content_sha256", "simulated")}
    repeat, fold = args.settings["repeat"], args.settings["fold"]
    settings: Evaluation = settings_of(
        Evaluation, args.settings["evaluation"] | {"repeats": repeat}
    )
    folds = make_folds(file.labels, settings, **facts)
    if fold not in range(1, folds["folds"] + 1):
        raise RemitError(
            f"--settings: fold is {fold}; expected 1 to {folds['folds']}, the folds that {args.primary} has "
            "people for; correct it."
        )
    # Files count repeats and folds from 1.
    test = [who for who, dealt in folds["participants"].items() if dealt[repeat - 1] == fold - 1]
    split = fold_split(folds["labels"], folds["unlabelled"], test, seed=settings.seed, **facts)
    write_split(args.output, split)
    log(f"repeat {repeat}, fold {fold}: {split['counts']} -> {args.output}")


def _features(args: argparse.Namespace) -> None:
    from remit.evaluation.features import features

    features(primary=args.primary, output=args.output, settings=args.settings, log=log)


def _evaluate(args: argparse.Namespace) -> None:
    from remit.evaluation.evaluate import EvaluateSettings, evaluate

    evaluate(
        name=naming.model_of_path("evaluation", args.output),
        settings=settings_of(EvaluateSettings, args.settings),
        embeddings=args.embeddings,
        random=args.random,
        features=args.features,
        primary=args.primary,
        folds=args.folds,
        sheet=args.sheet,
        output=args.output,
        log=log,
        backbones=args.backbones,
        execution=execution_of(args.execution),
    )


def _head(args: argparse.Namespace) -> None:
    from remit.evaluation.predict import HeadSettings, fit_head

    fit_head(
        name=naming.model_of_path("head", args.output),
        settings=settings_of(HeadSettings, args.settings),
        embeddings=args.embeddings,
        primary=args.primary,
        folds=args.folds,
        report=args.report,
        output=args.output,
        log=log,
    )


def _predict_cohort(args: argparse.Namespace) -> None:
    from remit.evaluation.predict import predict_cohort

    predict_cohort(
        name=naming.model_of_path("predictions_new", args.output),
        cohort=args.settings["cohort"],
        result_version=args.settings["result_version"],
        head=args.head,
        backbone=args.backbone,
        corpus=args.corpus,
        output=args.output,
        execution=execution_of(args.execution),
        log=log,
    )


def _predict(args: argparse.Namespace) -> None:
    from remit.evaluation import predict

    name = naming.ModelName.parse(args.model)
    options = reader_options(args)
    head_file = args.root / naming.path("head", model=str(name))
    head = predict.read_head(head_file, name)
    execution = execution_of(args.execution)
    notice = predict.notice(head)
    if not args.json:
        print("\n".join(notice), flush=True)
    files: dict[str, Any] = {
        "head": head,
        "head_file": head_file,
        "backbone": predict.backbone_of(name, args.root),
    }
    found: list[dict[str, Any]] = []

    def refuse(recording: str, error: RemitError) -> None:  # the others are still wanted
        found.append({"recording": recording, "refused": str(error)})
        complain(str(error), 1)

    for path in progress.track(args.recordings, "predicting", "file"):
        try:
            rows = predict.recordings_in(path, options)
        except RemitError as error:
            refuse(str(path), error)
            continue
        for row in rows:
            try:
                one = predict.predict_recording(row, options=options, execution=execution, **files)
            except RemitError as error:
                refuse(predict.shown(row), error)
                continue
            found.append(predict.plain(row, one, head))
            if not args.json:
                progress.say(predict.line_of(row, one, head))
    if args.json:
        told = {key: head[key] for key in ("label", "prevalence")}
        whole = {"model": str(name), **told, "notice": notice, "recordings": found}
        print(json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False), flush=True)
    if any("refused" in each for each in found):
        sys.exit(1)


def _models(**_: object) -> list[str]:
    """The models here that can predict, for completion in a shell."""
    return [
        file.parent.name for file in Path().glob(naming.pattern("head").replace("{model}", "*"))
    ]


def add_to(commands: Any) -> None:
    """Add these subcommands."""
    diagnosing = stage(
        commands,
        "diagnose",
        _diagnose,
        "Measure a pretrained backbone on participants that it has not seen.",
        "backbone=pretrained",
        "primary",
        "split",
        "output=diagnostics",
        makes=("output", "skill", "bands"),
        execution=True,
        also=(
            "sheet=cohort_sheet",
            "skill=diagnostics_skill",
            "bands=diagnostics_bands",
        ),
    )
    for option, text in (
        ("--sheet", "the cohort sheet, for age and sex"),
        ("--skill", "a figure to draw: masked skill (.png)"),
        ("--bands", "a figure to draw: masked skill by band (.png)"),
    ):
        diagnosing.add_argument(option, type=Path, metavar="FILE", help=text)
    stage(
        commands,
        "folds",
        _folds,
        "Divide the labelled participants into folds, several times.",
        "primary",
        "output=folds",
    )
    stage(
        commands,
        "fold-split",
        _fold_split,
        "Write the split of one fold, which pretraining takes as it is.",
        "primary",
        "output=fold_split",
    )
    stage(
        commands,
        "features",
        _features,
        "Write band powers and other features of every window of a dataset.",
        "primary",
        "output=features",
    )
    evaluating = stage(
        commands,
        "evaluate",
        _evaluate,
        "Say how well participants are predicted, and beside what, with intervals.",
        "random=embeddings_random",
        "features",
        "primary",
        "folds",
        "sheet=cohort_sheet",
        "output=evaluation",
        execution=True,
        also=("embeddings",),
    )
    evaluating.add_argument("--embeddings", type=Path, nargs="+", required=True, metavar="FILE")
    evaluating.add_argument(
        "--backbones",
        type=Path,
        nargs="*",
        default=[],
        metavar="FILE",
        help="what the embeddings were made by, for evaluation.finetuned",
    )
    stage(
        commands,
        "head",
        _head,
        "Fit the head on everybody with a label, for people to come.",
        "embeddings",
        "primary",
        "folds",
        "report=evaluation",
        "output=head",
    )
    stage(
        commands,
        "predict-cohort",
        _predict_cohort,
        "Predict the participants of a cohort that the head was not fitted on.",
        "head",
        "backbone=pretrained",
        "corpus",
        "output=predictions_new",
        execution=True,
    )
    predicting = add(
        commands,
        "predict",
        _predict,
        "Predict single recordings, and say when not to believe it.",
        f"remit predict --model {MODEL} new.edf",
    )
    predicting.add_argument("recordings", type=Path, nargs="+", metavar="RECORDING")
    asked = predicting.add_argument("--model", required=True, metavar="NAME")
    asked.completer = _models  # type: ignore[attr-defined] # argcomplete's way
    predicting.add_argument(
        "--root", type=Path, default=Path(), help="where results/ lies; here, if not given"
    )
    predicting.add_argument("--json", action="store_true", help="for machines")
    add_reader_options(predicting)
    predicting.add_argument(
        "--execution", type=json_object, metavar="JSON", help="execution settings, or @file"
    )
