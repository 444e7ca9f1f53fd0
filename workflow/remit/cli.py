"""The command line: one subcommand per stage; every rule's shell line is one of them.

A stage is imported only when it is called. Whatever a person can put right is printed as one line
without a traceback, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remit import __version__
from remit.errors import RemitError
from remit.training import launcher

if TYPE_CHECKING:
    from remit.config import Execution, Settings
    from remit.recordings.cohort import SheetRow
    from remit.recordings.registry import ReaderOptions

_STARTED = time.monotonic()


def log(message: str) -> None:
    """Print one line of progress."""
    print(f"[{time.monotonic() - _STARTED:7.1f} s] {message}", flush=True)


class _Given(dict[str, Any]):
    """Settings from the command line; a missing one is the caller's slip."""

    def __missing__(self, key: str) -> Any:
        raise RemitError(
            f"--settings has no '{key}'; expected it; 'snakemake --printshellcmds' shows whole lines."
        )


def _json(text: str) -> dict[str, Any]:
    """Settings given as JSON, or as @file that holds it."""
    try:
        values = json.loads(Path(text[1:]).read_text(encoding="utf-8") if text[:1] == "@" else text)
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"expected JSON settings or @file; {error}") from None
    if not isinstance(values, dict):
        raise argparse.ArgumentTypeError("expected a JSON object")
    return _Given(values)


def _settings(model: type[Settings], values: Mapping[str, Any], where: str = "--settings") -> Any:
    from pydantic import ValidationError

    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise RemitError(f"{where}: {place}: {first['msg']}; correct it.") from None


def _execution(values: Mapping[str, Any] | None) -> Execution:
    """Execution settings: those given, else those of the workflow that called, else the defaults."""
    from remit.config import EXECUTION_VARIABLE, Execution

    where = "--execution"
    if values is None:
        values, where = _json(os.environ.get(EXECUTION_VARIABLE, "{}")), EXECUTION_VARIABLE
    execution: Execution = _settings(Execution, values, where)
    return execution


def _simulate(args: argparse.Namespace) -> None:
    from remit.config import Simulation
    from remit.recordings.cohort import simulated_rows, write_sheet
    from remit.recordings.simulate import simulate_cohort, simulate_recording, write_edf

    if args.settings is not None:
        simulation: Simulation = _settings(Simulation, args.settings["simulation"])
        rows = simulated_rows(args.settings["cohort"], simulation)
        row = next((row for row in rows if row.recording == args.settings["recording"]), None)
        if row is None:
            raise RemitError(
                f"recording '{args.settings['recording']}' is not of the simulated cohort; expected one "
                f"of its {len(rows)}; check the name."
            )
        write_edf(simulate_recording(row, simulation), args.output)
        log(f"simulated {row.recording} -> {args.output}")
        return
    given = {
        key: getattr(args, key)
        for key in ("participants", "minutes", "effect", "seed")
        if getattr(args, key) is not None
    }
    simulation = _settings(Simulation, given)
    rows = simulated_rows("simulated", simulation)
    files = simulate_cohort(rows, simulation, lambda row: args.output / f"{row.recording}.edf")
    for file in files:
        log(f"simulated {file}")
    written = [replace(row, path=file.name) for row, file in zip(rows, files, strict=True)]
    write_sheet(written, args.output / "cohort.tsv")
    log(
        f"wrote {args.output / 'cohort.tsv'}: {len(rows)} SIMULATED participants, "
        f"effect {simulation.effect:g}"
    )


def _cohort_sheet(args: argparse.Namespace) -> None:
    from remit.config import Cohort
    from remit.recordings.cohort import write_sheet
    from remit.recordings.source import rows_of

    cohort: Cohort = _settings(Cohort, args.settings["source"])
    rows, skipped = rows_of(args.settings["cohort"], cohort, lambda text: log(f"warning: {text}"))
    for name, why in skipped:
        log(f"left out: {name}: {why}")
    write_sheet(rows, args.output)
    log(
        f"cohort {args.settings['cohort']}: {len(rows)} recordings, {len(skipped)} left out -> {args.output}"
    )


def _label(args: argparse.Namespace) -> Any:
    """The label of the command line, or None; a half-given one is refused."""
    from remit.config import Label

    values: dict[str, int] = {}
    for pair in args.label_value:
        key, _, number = pair.rpartition("=")
        if not key or number not in ("0", "1"):
            raise RemitError(f"--label-value is '{pair}'; expected value=0 or value=1; correct it.")
        if values.setdefault(key, int(number)) != int(number):
            raise RemitError(f"--label-value gives '{key}' both 0 and 1; expected one; correct it.")
    if args.label_threshold is not None and not math.isfinite(args.label_threshold):
        raise RemitError(
            f"--label-threshold is {args.label_threshold:g}; expected a number; correct it."
        )
    if args.label_column is None:
        if values or args.label_threshold is not None or args.label_positive is not None:
            raise RemitError(
                "--label-column is not given; expected the column of participants.tsv that "
                "--label-value or --label-threshold is about; add it."
            )
        return None
    if bool(values) == (args.label_threshold is not None):
        found = "both" if values else "neither"
        raise RemitError(
            f"--label-column has {found} of --label-value and --label-threshold; expected one of "
            "them, such as --label-value good=1 --label-value bad=0, or --label-threshold 7 "
            "--label-positive at_or_below."
        )
    if (args.label_threshold is None) != (args.label_positive is None):
        raise RemitError(
            "--label-threshold and --label-positive belong together; expected both, such as "
            "--label-threshold 7 --label-positive at_or_below."
        )
    return _settings(
        Label,
        {
            "column": args.label_column,
            "values": values or None,
            "threshold": args.label_threshold,
            "positive": args.label_positive,
        },
    )


def _cohort_scan(args: argparse.Namespace) -> None:
    from remit.recordings.bids import find_layout
    from remit.recordings.cohort import write_sheet
    from remit.recordings.scan import Wanted, scan

    if args.config is not None and os.path.lexists(args.config):
        raise RemitError(
            f"{args.config}: is there already; expected the name of a new configuration; choose "
            "another, or remove it."
        )
    layout = args.layout or find_layout(args.root)
    wanted = Wanted(args.tasks, args.sessions, args.runs)
    if layout != "bids" and any(asked for _, _, asked in wanted.filters()):
        raise RemitError(
            f"--tasks, --sessions and --runs are for BIDS, and {args.root} is layout '{layout}'; "
            "expected layout 'bids', whose file names say them; leave them out."
        )
    options = _reader_options(args)
    label = _label(args)
    found = scan(args.root, layout, label, args.covariates, args.require_label, options, wanted)
    rows = [
        replace(
            row,
            sampling_rate=options.sampling_rate,
            channel_names=options.channel_names,
            units=options.units,
        )
        for row in found.rows
    ]
    for name, why in found.skipped:
        log(f"left out: {name}: {why}")
    for warning in found.warnings:
        log(f"warning: {warning}")
    write_sheet(rows, args.output)
    labels = {row.participant: row.remission for row in rows}
    counts = ", ".join(
        f"{text}: {sum(label == value for label in labels.values())}"
        for text, value in (("1", 1), ("0", 0), ("unknown", None))
    )
    log(
        f"{len(rows)} recordings of {len(labels)} participants (labels {counts}), "
        f"{len(found.skipped)} left out, layout '{layout}' -> {args.output}"
    )
    _say_what_is_next(args, rows, options)


def _reader_options(args: argparse.Namespace) -> ReaderOptions:
    """What the command line says of files; raises :class:`RemitError` for what makes no sense."""
    from remit.recordings import units
    from remit.recordings.registry import ReaderOptions

    if args.sampling_rate is not None and not 0 < args.sampling_rate < math.inf:
        raise RemitError(
            f"--sampling-rate is {args.sampling_rate:g}; expected a positive number of Hz."
        )
    if args.units is not None and units.parse(args.units) is None:
        raise RemitError(
            f"--units is '{args.units}'; expected uV, mV, V, nV or the microvolts of one count, such "
            "as '0.02235 uV'; correct it."
        )
    names = _channel_names(args.channel_names)
    return ReaderOptions(args.sampling_rate, names, args.units, args.allow_truncated)


def _channel_names(given: Sequence[str]) -> tuple[str, ...] | None:
    """Names given one by one or as one list, split as the sheet's column channel_names is."""
    if len(given) == 1 and "," not in given[0]:
        return tuple(given[0].split()) or None
    names = [name.strip() for text in given for name in text.split(",")]
    return tuple(name for name in names if name) or None


def _say_what_is_next(
    args: argparse.Namespace, rows: Sequence[SheetRow], options: ReaderOptions
) -> None:
    """Write or print the configuration for a sheet, and the command that runs it."""
    from remit import naming
    from remit.config import Model
    from remit.files import atomic_write
    from remit.recordings.source import electrodes_to_try, overlay

    root = args.root.parent if args.root.is_file() else args.root
    recording, electrodes = electrodes_to_try(rows, root, options, log)
    text = overlay(args.output, root, electrodes, recording, args.allow_truncated)
    unknown = len({row.participant for row in rows if row.remission is None})
    if unknown:
        text += (
            f"# {unknown} participants have no label, at which the split stops. With this line they are "
            "used in\n# pretraining only:\n# split: {unlabelled: pretraining}\n"
        )
    if {0, 1} - {row.remission for row in rows}:
        log(
            f"next: fill in the column remission of {args.output}, for both 0 and 1 are needed; then:"
        )
    target = naming.path("finetuned", model=str(Model().name))
    if args.config is None:
        log(f"next: write this as mine.yaml and run: snakemake {target} --configfile mine.yaml")
        print(text, end="", flush=True)
        return
    with atomic_write(args.config) as temporary:
        temporary.write_text(text, encoding="utf-8")
    file = os.path.normpath(Path.cwd() / args.config)
    log(f"wrote the configuration {args.config}; change channels there")
    log(f"next: snakemake {target} --configfile {shlex.quote(file)}")


def _windows(args: argparse.Namespace) -> None:
    from remit.config import Preprocessing
    from remit.dataset.windows import kept_text, write_windows
    from remit.preprocessing.chain import preprocess
    from remit.recordings.cohort import SheetRow
    from remit.recordings.registry import ReaderOptions, read_recording

    settings = args.settings
    names = settings["channel_names"]
    options = ReaderOptions(
        settings["sampling_rate"],
        tuple(names) if names else None,
        settings["units"],
        settings["allow_truncated"],
    )
    row = SheetRow(
        participant=settings["participant"],
        recording=settings["recording"],
        path=str(args.input),
        entry=settings["entry"],
        remission=settings["remission"],
        covariates={},
    )
    preprocessing: Preprocessing = _settings(Preprocessing, settings["preprocessing"])
    recording = read_recording(row, options)
    windows = preprocess(recording, preprocessing, settings["channels"])
    metadata = write_windows(
        args.output,
        windows,
        recording=recording,
        remission=row.remission,
        cohort=settings["cohort"],
        settings={
            "preprocessing": settings["preprocessing"],
            "version": settings["result_version"],
        },
    )
    source = metadata["sources"][row.recording]
    for note in source["notes"]:
        log(f"{row.recording}: {note}")
    log(f"{row.recording}: {kept_text(source)}" + (" (SIMULATED)" if recording.simulated else ""))


def _primary(args: argparse.Namespace) -> None:
    from remit import naming
    from remit.dataset.primary import build_primary
    from remit.dataset.windows import read_metadata
    from remit.recordings.cohort import read_table
    from remit.tracking import Tracker

    execution = _execution(args.execution)
    cohort, dataset = args.settings["cohort"], args.settings["dataset"]
    header, body = read_table(args.sheet)
    column = header.index("recording")
    files = [
        Path(naming.path("windows", cohort=cohort, recording=cells[column])) for _, cells in body
    ]
    summary = build_primary(files, args.output, cohort=cohort, channels=args.settings["channels"])
    log(
        f"{dataset}: {summary['participants']} participants, {summary['recordings']} recordings, "
        f"{summary['windows']} windows ({summary['bad_windows']} marked bad), labels "
        f"{summary['participants_per_label']}" + ("; SIMULATED" if summary["simulated"] else "")
    )
    metadata = read_metadata(args.output)
    name = naming.mlflow_dataset_name(dataset, int(metadata["windows"]))
    tags = {
        "remit.stage": "dataset",
        "remit.dataset": dataset,
        "remit.cohort": cohort,
        "remit.windows": str(metadata["windows"]),
        "remit.simulated": str(metadata["simulated"]).lower(),
        "remit.primary_content_sha256": str(metadata["content_sha256"]),
    }
    tracker = Tracker(execution, name, tags, log)
    tracker.params(
        {
            "sampling_rate": metadata["sampling_rate"],
            "channels": metadata["channels"],
            "settings": metadata["settings"],
        }
    )
    tracker.metrics(
        {key: summary[key] for key in ("participants", "recordings", "windows", "bad_windows")}, 0
    )
    tracker.dataset(args.output, metadata, "primary", tags)
    tracker.finish()


def _split(args: argparse.Namespace) -> None:
    from remit.config import Split
    from remit.dataset.splits import make_split, write_split
    from remit.dataset.windows import open_dataset

    settings: Split = _settings(Split, args.settings.get("split", {}))
    file = open_dataset(args.primary)
    split = make_split(
        file.labels,
        settings,
        dataset=file.metadata["dataset"],
        content_sha256=file.metadata["content_sha256"],
        simulated=file.metadata["simulated"],
    )
    write_split(args.output, split)
    log(f"split of {len(split['participants'])} participants: {split['counts']} -> {args.output}")


def _pretrain(args: argparse.Namespace) -> None:
    from remit import naming
    from remit.training.pretrain import PretrainSettings, pretrain
    from remit.training.ranks import count_ranks, started_by_torchrun, threads_of

    settings: PretrainSettings = _settings(PretrainSettings, args.settings)
    execution = _execution(args.execution)
    ranks = count_ranks(execution, settings.pretraining.batch_size)
    if ranks > 1 and not started_by_torchrun():
        code = launcher.launch(ranks, args.arguments, threads_of(execution, ranks))
        if code:
            sys.exit(code)
        return
    pretrain(
        name=naming.model_of_path("pretrained", args.output),
        settings=settings,
        primary=args.primary,
        split_file=args.split,
        corpora=args.corpora,
        output=args.output,
        execution=execution,
        log=log,
    )


def _diagnose(args: argparse.Namespace) -> None:
    from remit.evaluation.diagnostics import DiagnoseSettings, diagnose
    from remit.report.diagnostics import draw_bands, draw_skill

    found = diagnose(
        settings=_settings(DiagnoseSettings, args.settings),
        backbone_file=args.backbone,
        primary=args.primary,
        split_file=args.split,
        sheet=args.sheet,
        output=args.output,
        execution=_execution(args.execution),
        log=log,
    )
    for draw, file in ((draw_skill, args.skill), (draw_bands, args.bands)):
        if file is not None:
            draw(found, file)
    log(f"diagnose {found['model']}: wrote {args.output}")


def _verify(args: argparse.Namespace) -> None:
    from remit import naming
    from remit.evaluation.checks import verify
    from remit.planning import result_version
    from remit.report.diagnostics import diagnostics_of, made_of, read_diagnostics, root_of

    if not args.checkpoints and args.diagnostics is None:
        raise RemitError(
            "verify: found nothing to verify; expected checkpoints or --diagnostics; name some."
        )
    for checkpoint in args.checkpoints:
        if not checkpoint.exists():
            raise RemitError(
                f"{checkpoint}: not found; expected a pretrained checkpoint; build it with snakemake or "
                "check the path."
            )
    asked: list[tuple[Path | None, Path]] = [(c, diagnostics_of(c)) for c in args.checkpoints]
    if args.diagnostics is not None:
        asked.insert(0, (None, args.diagnostics))
    sound = True
    for named, file in asked:
        found = read_diagnostics(file)
        root = root_of(file)
        drop_in = root / naming.DROP_IN_PATTERN.format(model=found["model"])
        usual = root / naming.path("pretrained", model=found["model"])
        backbone = named or (drop_in if drop_in.exists() else usual)
        of = made_of(found, backbone, root, result_version("diagnose"))
        lines, passed = verify([*found["checks"], *of])
        sound = sound and passed
        print("\n".join([f"{found['model']}:", *lines]), flush=True)
    if not sound:
        sys.exit(1)


def _finetune(args: argparse.Namespace) -> None:
    from remit import naming
    from remit.training.finetune import FinetuneSettings, finetune

    finetune(
        name=naming.model_of_path("finetuned", args.output),
        settings=_settings(FinetuneSettings, args.settings),
        backbone=args.backbone,
        primary=args.primary,
        split_file=args.split,
        output=args.output,
        predictions=args.predictions,
        execution=_execution(args.execution),
        log=log,
    )


def _folds(args: argparse.Namespace) -> None:
    from remit.config import Evaluation
    from remit.dataset.windows import open_dataset
    from remit.evaluation.folds import make_folds, write_folds

    file = open_dataset(args.primary)
    folds = make_folds(
        file.labels,
        _settings(Evaluation, args.settings["evaluation"]),
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
    settings: Evaluation = _settings(Evaluation, args.settings["evaluation"] | {"repeats": repeat})
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


def _embed(args: argparse.Namespace) -> None:
    from remit import naming
    from remit.training.embed import EmbedSettings, embed

    settings: EmbedSettings = _settings(EmbedSettings, args.settings)
    kind = "embeddings_random" if args.backbone is None else "embeddings"
    if settings.fold is not None:
        kind = "embeddings_fold"
    embed(
        name=naming.model_of_path(kind, args.output),
        settings=settings,
        backbone=args.backbone,
        primary=args.primary,
        split_file=args.split,
        output=args.output,
        execution=_execution(args.execution),
        log=log,
    )


def _features(args: argparse.Namespace) -> None:
    from remit.evaluation.features import features

    features(primary=args.primary, output=args.output, settings=args.settings, log=log)


def _evaluate(args: argparse.Namespace) -> None:
    from remit import naming
    from remit.evaluation.evaluate import EvaluateSettings, evaluate

    evaluate(
        name=naming.model_of_path("evaluation", args.output),
        settings=_settings(EvaluateSettings, args.settings),
        embeddings=args.embeddings,
        random=args.random,
        features=args.features,
        primary=args.primary,
        folds=args.folds,
        sheet=args.sheet,
        output=args.output,
        log=log,
    )


def _evaluation_table(args: argparse.Namespace) -> None:
    from remit.report.evaluation import write_table

    write_table(reports=args.reports, table=args.table)
    log(f"{len(args.reports)} evaluations -> {args.table}")


def _evaluation_page(args: argparse.Namespace) -> None:
    from remit.report.evaluation import write_page

    write_page(report=args.report, page=args.page)
    log(f"wrote {args.page}")


def _model_card(args: argparse.Namespace) -> None:
    from remit.report.model_card import write_model_card

    write_model_card(
        report=args.report,
        backbone=args.backbone,
        primary=args.primary,
        sheet=args.sheet,
        card=args.card,
    )
    log(f"wrote {args.card}; look for '[to be written' in it")


def _head(args: argparse.Namespace) -> None:
    from remit import naming
    from remit.evaluation.predict import HeadSettings, fit_head

    fit_head(
        name=naming.model_of_path("head", args.output),
        settings=_settings(HeadSettings, args.settings),
        embeddings=args.embeddings,
        primary=args.primary,
        folds=args.folds,
        report=args.report,
        output=args.output,
        log=log,
    )


def _predict_cohort(args: argparse.Namespace) -> None:
    from remit import naming
    from remit.evaluation.predict import predict_cohort

    predict_cohort(
        name=naming.model_of_path("predictions_new", args.output),
        cohort=args.settings["cohort"],
        result_version=args.settings["result_version"],
        head=args.head,
        backbone=args.backbone,
        corpus=args.corpus,
        output=args.output,
        execution=_execution(args.execution),
        log=log,
    )


def _predict(args: argparse.Namespace) -> None:
    from remit import naming
    from remit.evaluation import predict

    name = naming.ModelName.parse(args.model)
    options = _reader_options(args)
    head_file = args.root / naming.path("head", model=str(name))
    head = predict.read_head(head_file, name)
    execution = _execution(args.execution)
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
        _complain(str(error), 1)

    for path in args.recordings:
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
                print(predict.line_of(row, one, head), flush=True)
    if args.json:
        whole = {"model": str(name), "notice": notice, "recordings": found}
        print(json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False), flush=True)
    if any("refused" in each for each in found):
        sys.exit(1)


def _report(args: argparse.Namespace) -> None:
    from remit.report.model_report import write_report

    write_report(
        card=args.card,
        predictions=args.predictions,
        primary=args.primary,
        split=args.split,
        diagnostics=args.diagnostics,
        page=args.page,
        curves=args.curves,
        label=args.settings["label"],
    )
    log(f"wrote {args.page}")


def _compare(args: argparse.Namespace) -> None:
    from remit.report.comparison import write_comparison

    write_comparison(cards=args.cards, table=args.table, page=args.page)
    log(f"compared {len(args.cards)} models -> {args.table}")


def _doctor(args: argparse.Namespace) -> None:
    from remit.doctor import examine, lines

    found = examine(_execution(args.execution))
    print(json.dumps(found, indent=2) if args.json else "\n".join(lines(found)), flush=True)


def _config(args: argparse.Namespace) -> None:
    from remit.configdoc import write_files

    for file in write_files(args.root, check=args.check):
        log(f"{'differs' if args.check else 'wrote'}: {file}")
        if args.check:
            raise RemitError(
                f"{file} is not what the settings' model gives; expected the generated text; run "
                "'remit config'."
            )


def _add_reader_options(command: argparse.ArgumentParser) -> None:
    """What a person says of files that do not say it themselves; :func:`_reader_options` reads it."""
    command.add_argument(
        "--sampling-rate", type=float, metavar="HZ", help="of files that do not state it"
    )
    command.add_argument(
        "--channel-names", nargs="+", default=[], metavar="NAME", help="of files without, in order"
    )
    command.add_argument(
        "--allow-truncated",
        action="store_true",
        help="take files that hold less than they promise",
    )
    command.add_argument("--units", help="of files that do not state them: uV, mV, V, '0.02235 uV'")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="remit",
        description="Raw EEG to an honest answer about participants. The workflow (snakemake) calls "
        "these commands; each can be called by hand.",
        epilog="example: snakemake results/finetuned/mamba2_eeg_d256_l2_m20_mae_finetuned_best.pt",
    )
    parser.add_argument("--version", action="version", version=f"remit {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    def add(
        group: Any, name: str, run: Callable[[argparse.Namespace], None], text: str, example: str
    ) -> argparse.ArgumentParser:
        command: argparse.ArgumentParser = group.add_parser(
            name,
            help=text,
            description=text,
            epilog=f"example: {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(run=run)
        return command

    def stage(
        name: str,
        run: Callable[[argparse.Namespace], None],
        text: str,
        *paths: str,
        settings: bool = True,
        execution: bool = False,
    ) -> argparse.ArgumentParser:
        command = add(
            commands, name, run, text, f"snakemake --printshellcmds shows whole '{name}' lines"
        )
        if settings:
            command.add_argument(
                "--settings",
                type=_json,
                required=True,
                metavar="JSON",
                help="result settings, or @file",
            )
        for path in paths:
            command.add_argument(f"--{path}", type=Path, required=True, metavar="FILE")
        if execution:
            command.add_argument(
                "--execution", type=_json, metavar="JSON", help="execution settings, or @file"
            )
        return command

    simulate = add(
        commands,
        "simulate",
        _simulate,
        "Write a simulated cohort as EDF files.",
        "remit simulate --output simulated --participants 24 --effect 1",
    )
    simulate.add_argument(
        "--output", type=Path, required=True, help="a folder (a file with --settings)"
    )
    simulate.add_argument(
        "--settings", type=_json, metavar="JSON", help="one recording of the workflow"
    )
    simulate.add_argument("--participants", type=int)
    simulate.add_argument("--minutes", type=float)
    simulate.add_argument("--effect", type=float, help="0 gives a null cohort")
    simulate.add_argument("--seed", type=int)

    cohort = commands.add_parser("cohort", help="Make and check cohort sheets.")
    cohort_commands = cohort.add_subparsers(dest="cohort_command", required=True, metavar="command")
    sheet = add(
        cohort_commands,
        "sheet",
        _cohort_sheet,
        "Write the sheet of a configured cohort.",
        "snakemake --printshellcmds results/cohorts/simulated.tsv",
    )
    sheet.add_argument("--settings", type=_json, required=True, metavar="JSON")
    sheet.add_argument("--output", type=Path, required=True, metavar="FILE")
    scan = add(
        cohort_commands,
        "scan",
        _cohort_scan,
        "Write a cohort sheet from a BIDS folder, a folder of recordings or a file of several.",
        "remit cohort scan bids_root --label-column count_quality --label-value good=1 "
        "--label-value bad=0 --covariates age sex --output cohort.tsv --config mine.yaml",
    )
    scan.add_argument("root", type=Path)
    scan.add_argument("--output", type=Path, required=True, metavar="FILE")
    scan.add_argument(
        "--layout",
        choices=("bids", "folder"),
        help="found out when not given: bids where there are sub-* folders or a dataset_description.json",
    )
    scan.add_argument("--label-column", metavar="COLUMN", help="of participants.tsv")
    scan.add_argument(
        "--label-value", action="append", default=[], metavar="VALUE=0|1", help="may be repeated"
    )
    scan.add_argument("--label-threshold", type=float, metavar="NUMBER")
    scan.add_argument(
        "--label-positive",
        choices=("below", "at_or_below", "above", "at_or_above"),
        help="the side of the threshold that is 1",
    )
    scan.add_argument("--require-label", action="store_true", help="leave the unlabelled out")
    for option, text in (
        ("--covariates", "columns of participants.tsv to keep"),
        ("--tasks", "BIDS tasks to take"),
        ("--sessions", "BIDS sessions to take"),
        ("--runs", "BIDS runs to take"),
    ):
        names = [option, "--covariate"] if option == "--covariates" else [option]
        scan.add_argument(*names, nargs="+", action="extend", default=[], metavar="NAME", help=text)
    _add_reader_options(scan)
    scan.add_argument(
        "--config", type=Path, metavar="FILE", help="write a configuration for the sheet as well"
    )

    stage(
        "windows",
        _windows,
        "Read one recording, run the signal chain, write its windows.",
        "input",
        "output",
    )
    stage(
        "primary",
        _primary,
        "Concatenate, sort and verify the windows of a cohort.",
        "sheet",
        "output",
        execution=True,
    )
    stage("split", _split, "Split participants into train, val and test.", "primary", "output")
    pretraining = stage(
        "pretrain",
        _pretrain,
        "Pretrain a backbone by masked reconstruction.",
        "primary",
        "split",
        "output",
        execution=True,
    )
    pretraining.add_argument("--corpora", type=Path, nargs="*", default=[], metavar="FILE")
    diagnosing = stage(
        "diagnose",
        _diagnose,
        "Measure a pretrained backbone on participants that it has not seen.",
        "backbone",
        "primary",
        "split",
        "output",
        execution=True,
    )
    for option, text in (
        ("--sheet", "the cohort sheet, for age and sex"),
        ("--skill", "a figure to draw: masked skill (.png)"),
        ("--bands", "a figure to draw: masked skill by band (.png)"),
    ):
        diagnosing.add_argument(option, type=Path, metavar="FILE", help=text)
    verifying = add(
        commands,
        "verify",
        _verify,
        "Say pass, warn or fail for each check of a pretrained backbone; exit 1 if one fails.",
        "remit verify results/pretrained/mamba2_eeg_d256_l2_m20_mae.pt",
    )
    verifying.add_argument(
        "checkpoints", type=Path, nargs="*", metavar="CHECKPOINT", help="with its diagnostics made"
    )
    verifying.add_argument("--diagnostics", type=Path, metavar="FILE", help="a diagnostics' .json")
    stage(
        "finetune",
        _finetune,
        "Fine-tune a classifier of participants.",
        "backbone",
        "primary",
        "split",
        "output",
        "predictions",
        execution=True,
    )
    stage(
        "folds",
        _folds,
        "Divide the labelled participants into folds, several times.",
        "primary",
        "output",
    )
    stage(
        "fold-split",
        _fold_split,
        "Write the split of one fold, which pretraining takes as it is.",
        "primary",
        "output",
    )
    embedding = stage(
        "embed",
        _embed,
        "Write a backbone's embedding of every window of a dataset.",
        "primary",
        "output",
        execution=True,
    )
    embedding.add_argument(
        "--backbone", type=Path, metavar="FILE", help="pretrained; random weights without it"
    )
    embedding.add_argument(
        "--split",
        type=Path,
        metavar="FILE",
        help="of a fold whose test people it must not have seen",
    )
    stage(
        "features",
        _features,
        "Write band powers and other features of every window of a dataset.",
        "primary",
        "output",
    )
    evaluating = stage(
        "evaluate",
        _evaluate,
        "Say how well participants are predicted, and beside what, with intervals.",
        "random",
        "features",
        "primary",
        "folds",
        "sheet",
        "output",
    )
    evaluating.add_argument("--embeddings", type=Path, nargs="+", required=True, metavar="FILE")
    stage(
        "evaluation-page",
        _evaluation_page,
        "Write the page of one model's evaluation.",
        "report",
        "page",
    )
    stage(
        "model-card",
        _model_card,
        "Write a model's card: what TRIPOD+AI asks for, as far as the files know it.",
        "report",
        "backbone",
        "primary",
        "sheet",
        "card",
    )
    tabling = stage(
        "evaluation-table",
        _evaluation_table,
        "Put the evaluations of several models into one table.",
        "table",
    )
    tabling.add_argument("--reports", type=Path, nargs="+", required=True, metavar="FILE")
    stage(
        "head",
        _head,
        "Fit the head on everybody with a label, for people to come.",
        "embeddings",
        "primary",
        "folds",
        "report",
        "output",
    )
    stage(
        "predict-cohort",
        _predict_cohort,
        "Predict the participants of a cohort that the head was not fitted on.",
        "head",
        "backbone",
        "corpus",
        "output",
        execution=True,
    )
    predicting = add(
        commands,
        "predict",
        _predict,
        "Predict single recordings, and say when not to believe it.",
        "remit predict --model mamba2_eeg_d256_l2_m20_mae new.edf",
    )
    predicting.add_argument("recordings", type=Path, nargs="+", metavar="RECORDING")
    predicting.add_argument("--model", required=True, metavar="NAME")
    predicting.add_argument(
        "--root", type=Path, default=Path(), help="where results/ lies; here, if not given"
    )
    predicting.add_argument("--json", action="store_true", help="for machines")
    _add_reader_options(predicting)
    predicting.add_argument(
        "--execution", type=_json, metavar="JSON", help="execution settings, or @file"
    )
    reporting = stage(
        "report",
        _report,
        "Write one model's page.",
        "card",
        "predictions",
        "primary",
        "split",
        "page",
        "curves",
    )
    reporting.add_argument("--diagnostics", type=Path, nargs="?", metavar="FILE")
    compare = stage("compare", _compare, "Compare the models of a sweep.", "table", "page")
    compare.add_argument("--cards", type=Path, nargs="+", required=True, metavar="FILE")
    doctor = add(
        commands,
        "doctor",
        _doctor,
        "Say what this machine offers a training, and why not more.",
        "remit doctor --json",
    )
    doctor.add_argument("--json", action="store_true", help="for machines")
    doctor.add_argument(
        "--execution", type=_json, metavar="JSON", help="execution settings, or @file"
    )
    config = add(
        commands,
        "config",
        _config,
        "Write config.yaml, its schema and its documentation.",
        "remit config --check",
    )
    config.add_argument("--root", type=Path, default=Path())
    config.add_argument("--check", action="store_true", help="only say whether they are up to date")
    return parser


def _stop(signal_number: int, _: object) -> None:
    """Leave through the ordinary way out, so that half-written temporary files are removed."""
    sys.exit(128 + signal_number)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    args = _parser().parse_args(arguments)
    args.arguments = arguments
    signal.signal(signal.SIGTERM, _stop)
    if launcher.launched():
        launcher.watch()
    try:
        args.run(args)
    except RemitError as error:
        return _complain(str(error), 1)
    except KeyboardInterrupt:
        return _complain("interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno is None or error.filename is None:
            return _defect(error)
        return _complain(
            f"{error.filename}: {error.strerror}; expected to read and write it; check the path, its "
            "rights and the free space.",
            1,
        )
    except Exception as error:  # noqa: BLE001 - the last resort, which hides nothing
        if not _memory_ran_out(error):
            return _defect(error)
        return _complain(_MEMORY_RAN_OUT, 1)
    finally:
        if (
            launcher.launched()
        ):  # it ends all ranks when the first one ends, and this one does already
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return 0


def _complain(line: str, code: int) -> int:
    """Print an error's line, or leave it to the launcher, which prints one for all ranks."""
    if launcher.launched():
        launcher.leave_word(line, code)
    else:
        print(f"remit: {line}", file=sys.stderr, flush=True)
    return code


_MEMORY_RAN_OUT = (
    "memory ran out; expected enough for the recordings and the model; take a machine with more, allow "
    "more (ulimit, the scheduler's memory), or a smaller model or cohort."
)


def _memory_ran_out(error: Exception) -> bool:
    if isinstance(error, MemoryError) or "torch" not in sys.modules:
        return isinstance(error, MemoryError)
    from remit.training.memory import ran_out

    return ran_out(error)


def _defect(error: Exception) -> int:
    """Say in one line that remit itself is at fault; the traceback is there for who asks."""
    if os.environ.get("REMIT_TRACEBACK"):
        traceback.print_exception(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    reason = " ".join(str(error).split())[:300]
    return _complain(
        f"internal error: {type(error).__name__}: {reason} ({Path(last.filename).name}, line "
        f"{last.lineno}); this is a defect of remit, or input it does not know; please report it; "
        "REMIT_TRACEBACK=1 shows where it happened.",
        70,
    )


if __name__ == "__main__":
    sys.exit(main())
