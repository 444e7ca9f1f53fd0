"""Cohorts: simulated ones, the sheets of the workflow, and the sheet of somebody's own recordings."""

from __future__ import annotations

import argparse
import math
import os
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remit.cli.arguments import add, add_reader_options, json_object, reader_options, settings_of
from remit.cli.messages import log
from remit.errors import RemitError

if TYPE_CHECKING:
    from remit.recordings.cohort import SheetRow
    from remit.recordings.registry import ReaderOptions


def _simulate(args: argparse.Namespace) -> None:
    from remit.config import Simulation
    from remit.recordings.cohort import simulated_rows, write_sheet
    from remit.recordings.simulate import simulate_cohort, simulate_recording, write_edf

    if args.settings is not None:
        simulation: Simulation = settings_of(Simulation, args.settings["simulation"])
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
    simulation = settings_of(Simulation, given, "the simulation's options")
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

    cohort: Cohort = settings_of(Cohort, args.settings["source"])
    if cohort.sheet is not None:
        args.also_read = {"sheet": [Path(cohort.sheet)]}
    elif cohort.scan is not None:
        root = Path(cohort.scan.root)
        listing = root if root.is_file() else root / "participants.tsv"
        args.also_read = {"scan": [listing] if listing.exists() else []}
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
    return settings_of(
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
    options = reader_options(args)
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
    text = overlay(args.output, root, electrodes, recording, args.allow_truncated, rows)
    unknown = len({row.participant for row in rows if row.remission is None})
    if unknown:
        text += (
            f"# {unknown} participants have no label, at which the split stops. With this line they are "
            "used in\n# pretraining only, beside three or more with each label:\n"
            "# split: {unlabelled: pretraining}\n"
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


def add_to(commands: Any) -> None:
    """Add these subcommands."""
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
        "--settings", type=json_object, metavar="JSON", help="one recording of the workflow"
    )
    simulate.set_defaults(makes=("output",))
    simulate.add_argument("--participants", type=int)
    simulate.add_argument("--minutes", type=float)
    simulate.add_argument("--effect", type=float, help="0 gives a null cohort")
    simulate.add_argument("--seed", type=int)

    cohort = commands.add_parser(
        "cohort",
        help="Make cohort sheets.",
        description="Make cohort sheets: of your recordings (scan), or of a configured cohort (sheet).",
        epilog="example:\n  remit cohort scan recordings --output cohort.tsv --config mine.yaml",
    )
    cohort_commands = cohort.add_subparsers(dest="cohort_command", required=True, metavar="command")
    sheet = add(
        cohort_commands,
        "sheet",
        _cohort_sheet,
        "Write the sheet of a configured cohort.",
        "remit cohort sheet --settings @settings.json --output results/cohorts/simulated.tsv\n"
        "the same with its settings, for your configuration:\n"
        "  snakemake -n -p --force results/cohorts/simulated.tsv",
    )
    sheet.add_argument("--settings", type=json_object, required=True, metavar="JSON")
    sheet.add_argument("--output", type=Path, required=True, metavar="FILE")
    sheet.set_defaults(makes=("output",))
    scan = add(
        cohort_commands,
        "scan",
        _cohort_scan,
        "Write a cohort sheet from a BIDS folder, a folder of recordings or a file of several.",
        "remit cohort scan bids_root --label-column count_quality --label-value good=1 \\\n"
        "    --label-value bad=0 --covariates age sex --output cohort.tsv --config mine.yaml",
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
    add_reader_options(scan)
    scan.add_argument(
        "--config", type=Path, metavar="FILE", help="write a configuration for the sheet as well"
    )
