"""Pretraining, fine-tuning, embeddings."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from remit.cli.arguments import execution_of, settings_of, stage
from remit.cli.messages import log
from remit.training import launcher


def _pretrain(args: argparse.Namespace) -> None:
    from remit import naming
    from remit.training.pretrain import PretrainSettings, pretrain
    from remit.training.ranks import count_ranks, started_by_torchrun, threads_of

    settings: PretrainSettings = settings_of(PretrainSettings, args.settings)
    execution = execution_of(args.execution)
    ranks = count_ranks(execution, settings.pretraining.batch_size)
    if ranks > 1 and not started_by_torchrun():
        args.makes = ()  # the first rank makes it, and writes its record
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


def _finetune(args: argparse.Namespace) -> None:
    from remit import naming
    from remit.training.finetune import FinetuneSettings, finetune

    finetune(
        name=naming.model_of_path("finetuned", args.output),
        settings=settings_of(FinetuneSettings, args.settings),
        backbone=args.backbone,
        primary=args.primary,
        split_file=args.split,
        output=args.output,
        predictions=args.predictions,
        execution=execution_of(args.execution),
        log=log,
    )


def _embed(args: argparse.Namespace) -> None:
    from remit import naming
    from remit.training.embed import EmbedSettings, embed

    settings: EmbedSettings = settings_of(EmbedSettings, args.settings)
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
        execution=execution_of(args.execution),
        log=log,
    )


def add_to(commands: Any) -> None:
    """Add these subcommands."""
    pretraining = stage(
        commands,
        "pretrain",
        _pretrain,
        "Pretrain a backbone by masked reconstruction.",
        "primary",
        "split",
        "output=pretrained",
        execution=True,
    )
    pretraining.add_argument("--corpora", type=Path, nargs="*", default=[], metavar="FILE")
    stage(
        commands,
        "finetune",
        _finetune,
        "Fine-tune a classifier of participants.",
        "backbone=pretrained",
        "primary",
        "split",
        "output=finetuned",
        "predictions",
        makes=("output", "predictions"),
        execution=True,
    )
    embedding = stage(
        commands,
        "embed",
        _embed,
        "Write a backbone's embedding of every window of a dataset.",
        "primary",
        "output=embeddings",
        execution=True,
        also=("backbone=pretrained",),
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
