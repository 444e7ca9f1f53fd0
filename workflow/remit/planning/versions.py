"""The version of each stage's results: the RESULT_VERSION of every module that has a part in them."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from remit.errors import RemitError

_PACKAGE = Path(__file__).parents[1]

# Which modules' RESULT_VERSION make up the version of each stage's results.
STAGE_MODULES: dict[str, tuple[str, ...]] = {
    "simulate": ("recordings/simulate.py",),
    "windows": ("recordings/registry.py", "preprocessing/chain.py", "dataset/windows.py"),
    "primary": ("dataset/primary.py",),
    "split": ("dataset/splits.py",),
    "cohort_figures": ("report/cohort.py", "report/quality.py", "report/spectra.py"),
    "signal_figure": ("recordings/registry.py", "preprocessing/chain.py", "report/signal.py"),
    "pretrain": (
        "dataset/sequences.py",
        "dataset/corpus.py",
        "nn/encoder.py",
        "training/pretrain.py",
    ),
    "diagnose": ("dataset/sequences.py", "nn/encoder.py", "evaluation/diagnostics.py"),
    "finetune": ("dataset/sequences.py", "nn/encoder.py", "training/finetune.py"),
    "folds": ("evaluation/folds.py",),
    "fold_split": ("evaluation/folds.py", "dataset/splits.py"),
    "embed": ("dataset/sequences.py", "nn/encoder.py", "training/embed.py"),
    "features": ("evaluation/features.py",),
    "evaluate": (
        "evaluation/candidates.py",
        "evaluation/window_tables.py",
        "evaluation/trained.py",
        "evaluation/convolutional.py",
        "evaluation/finetuned.py",
        "evaluation/crossfit.py",
        "evaluation/estimates.py",
        "evaluation/power.py",
        "evaluation/evaluate.py",
    ),
    "evaluation_page": ("report/evaluation.py",),
    "evaluation_table": ("report/evaluation.py", "report/comparison.py"),
    "model_card": ("report/evaluation.py", "report/model_card.py"),
    "report": ("report/model_report.py",),
    "backbone_pictures": ("report/diagnostics.py", "report/reconstruction.py"),
    "embeddings_picture": ("report/embedding_pictures.py",),
    "compare": ("report/comparison.py",),
    "run_resources": ("report/resources.py",),
    "head": ("evaluation/crossfit.py", "evaluation/predict.py"),
    "predict": (
        "dataset/sequences.py",
        "nn/encoder.py",
        "training/embed.py",
        "evaluation/predict.py",
    ),
}


@cache
def _version_of(module: str) -> str:
    text = (_PACKAGE / module).read_text(encoding="utf-8")
    found = re.findall(r"^RESULT_VERSION\b.*", text, re.MULTILINE)
    read = re.match(r"RESULT_VERSION = (\d+)\s*(?:#|$)", found[0]) if len(found) == 1 else None
    if read is None:
        raise RemitError(
            f"{module}: expected one line RESULT_VERSION = <integer>; found {found}; correct it."
        )
    return read[1]


@cache
def result_version(stage: str) -> str:
    """The RESULT_VERSION of each module of a stage, read without importing or parsing it: ``1.1``."""
    return ".".join(_version_of(module) for module in STAGE_MODULES[stage])


def stage_version(command: str) -> str | None:
    """The version of what a command of `remit` makes; None where it has none, as a cohort's sheet."""
    named = {"predict-cohort": "predict"}
    stage = named.get(command, command.replace("-", "_"))
    return result_version(stage) if stage in STAGE_MODULES else None
