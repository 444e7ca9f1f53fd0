"""Pictures of a cohort and of the signal chain."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from remit.cli.arguments import settings_of, stage
from remit.cli.dataset import recording_of
from remit.cli.messages import log


def _cohort_figures(args: argparse.Namespace) -> None:
    from remit.report.cohort import draw_cohort

    draw_cohort(
        sheet=args.sheet,
        primary=args.primary,
        split=args.split,
        label=args.settings["label"],
        use_bad=args.settings["use_bad_windows"],
        pictures={name: getattr(args, name) for name in args.makes},
        log=log,
    )


def _signal_figure(args: argparse.Namespace) -> None:
    from remit.config import Preprocessing
    from remit.report.signal import draw_signal

    what = draw_signal(
        recording_of(args),
        settings_of(Preprocessing, args.settings["preprocessing"]),
        args.settings["channels"],
        args.output,
    )
    log(f"{what} -> {args.output}")


def add_to(commands: Any) -> None:
    """Add these subcommands."""
    pictures = ("flow", "demographics", "quality", "spectra", "split_picture")
    drawing = stage(
        commands,
        "cohort-figures",
        _cohort_figures,
        "Draw a cohort: flow of participants, demographics, quality, spectra, split.",
        "sheet=cohort_sheet",
        "primary",
        *(f"{name.replace('_', '-')}=figure_{name.partition('_')[0]}" for name in pictures),
        makes=pictures,
    )
    drawing.add_argument(
        "--split", type=Path, nargs="?", metavar="FILE", help="where the labels allow of one"
    )
    stage(
        commands,
        "signal-figure",
        _signal_figure,
        "Draw one recording before and after each step of the signal chain.",
        "input=simulated",
        "output=figure_signal",
    )
