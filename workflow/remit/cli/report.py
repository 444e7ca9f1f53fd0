"""Pages, tables and cards of results that are there."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from remit import naming
from remit.cli.arguments import execution_of, stage
from remit.cli.messages import log


def _evaluation_page(args: argparse.Namespace) -> None:
    from remit.report.evaluation import write_page

    given = {name: getattr(args, name) for name in naming.EVALUATION_PICTURES}
    pictures = {name: file for name, file in given.items() if file is not None}
    write_page(report=args.report, page=args.page, pictures=pictures)
    log(f"wrote {args.page}" + f" and {len(pictures)} pictures" * bool(pictures))


def _backbone_pictures(args: argparse.Namespace) -> None:
    from remit.report.diagnostics import draw_checks, read_diagnostics
    from remit.report.reconstruction import write_reconstruction

    draw_checks(read_diagnostics(args.diagnostics), args.checks)
    said = write_reconstruction(
        backbone=args.backbone,
        primary=args.primary,
        split=args.split,
        file=args.reconstruction,
        sequences=args.settings["sequences"],
        seed=args.settings["seed"],
    )
    log(f"wrote {args.checks}; {said}")


def _embeddings_picture(args: argparse.Namespace) -> None:
    from remit.report.embedding_pictures import write_embeddings_picture

    said = write_embeddings_picture(
        embeddings=args.embeddings,
        random=args.random,
        primary=args.primary,
        sheet=args.sheet,
        file=args.output,
    )
    log(said)


def _evaluation_table(args: argparse.Namespace) -> None:
    from remit.report.comparison import draw_evaluations
    from remit.report.evaluation import read_evaluation, write_table

    write_table(reports=args.reports, table=args.table)
    draw_evaluations([read_evaluation(file) for file in args.reports], args.picture)
    log(f"{len(args.reports)} evaluations -> {args.table}")


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

    write_comparison(
        cards=args.cards,
        pages=args.pages,
        table=args.table,
        parquet=args.parquet,
        page=args.page,
        picture=args.picture,
        label=args.settings["label"],
        execution=execution_of(args.execution),
        log=log,
    )
    log(f"compared {len(args.cards)} models -> {args.page}")


def _run_resources(args: argparse.Namespace) -> None:
    from remit.report.resources import write_resources

    jobs = write_resources(benchmarks=Path(args.benchmarks), table=args.table, figure=args.figure)
    log(f"run time and memory of {jobs} jobs -> {args.table}")


def add_to(commands: Any) -> None:
    """Add these subcommands."""
    paging = stage(
        commands,
        "evaluation-page",
        _evaluation_page,
        "Write the page of one model's evaluation, and its pictures as files too.",
        "report=evaluation",
        "page=evaluation_page",
        makes=("page", *naming.EVALUATION_PICTURES),
        also=tuple(f"{name}=evaluation_{name}" for name in naming.EVALUATION_PICTURES),
    )
    for name in naming.EVALUATION_PICTURES:
        paging.add_argument(f"--{name}", type=Path, metavar="FILE", help="a picture (.png)")
    stage(
        commands,
        "backbone-pictures",
        _backbone_pictures,
        "Draw a backbone's checks, and what it says of hidden signal beside the truth.",
        "backbone=pretrained",
        "primary",
        "split",
        "diagnostics",
        "checks",
        "reconstruction",
        makes=("checks", "reconstruction"),
    )
    stage(
        commands,
        "embeddings-picture",
        _embeddings_picture,
        "Draw a backbone's embeddings in two dimensions, beside those of random weights.",
        "embeddings",
        "random=embeddings_random",
        "primary",
        "sheet=cohort_sheet",
        "output=embeddings_picture",
    )
    tabling = stage(
        commands,
        "evaluation-table",
        _evaluation_table,
        "Put the evaluations of several models into one table.",
        "table=evaluation_table",
        "picture=evaluation_picture",
        makes=("table", "picture"),
        also=("reports=evaluation",),
    )
    tabling.add_argument("--reports", type=Path, nargs="+", required=True, metavar="FILE")
    stage(
        commands,
        "model-card",
        _model_card,
        "Write a model's card: what TRIPOD+AI asks for, as far as the files know it.",
        "report=evaluation",
        "backbone=pretrained",
        "primary",
        "sheet=cohort_sheet",
        "card=model_card",
        makes=("card",),
    )
    reporting = stage(
        commands,
        "report",
        _report,
        "Write one model's page.",
        "card=finetuned_card",
        "predictions",
        "primary",
        "split",
        "page=model_report",
        "curves=history",
        makes=("page", "curves"),
        also=("diagnostics",),
    )
    reporting.add_argument("--diagnostics", type=Path, nargs="?", metavar="FILE")
    compare = stage(
        commands,
        "compare",
        _compare,
        "Compare the models of a sweep.",
        "table=comparison",
        "parquet=comparison_parquet",
        "page=comparison_page",
        "picture=comparison_picture",
        makes=("table", "parquet", "page", "picture"),
        also=("cards=finetuned_card",),
        execution=True,
    )
    compare.add_argument("--cards", type=Path, nargs="+", required=True, metavar="FILE")
    compare.add_argument(
        "--pages", type=Path, nargs="+", default=[], metavar="FILE", help="to link to"
    )
    measured = stage(
        commands,
        "run-resources",
        _run_resources,
        "Draw the run time and memory of the jobs, by rule.",
        "table=run_resources_table",
        "figure=run_resources",
        makes=("table", "figure"),
        also=("benchmarks=results/benchmarks",),
    )
    measured.add_argument("--benchmarks", required=True, metavar="FOLDER")
