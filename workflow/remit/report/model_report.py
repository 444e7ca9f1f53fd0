"""One page about one fine-tuned model: what was found, on whom, and what is not known.

Self-contained HTML with its figure inside. If the data are simulated or the estimate transductive,
the first screen says so. Reads files only; computes no figure of merit of its own.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import jinja2
import pyarrow as pa
import pyarrow.parquet as pq

from remit.dataset.splits import read_split
from remit.dataset.windows import kept_text, open_dataset
from remit.errors import RemitError
from remit.files import atomic_write
from remit.report.diagnostics import read_diagnostics
from remit.report.drawing import BLUE, VERMILION, canvas, save

RESULT_VERSION = 8  # raise when a change here alters a page

FIGURES = {
    "auc": "AUC",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "precision": "precision",
    "recall": "recall (sensitivity)",
    "f1": "F1",
    "brier": "Brier score",
}
_FEW_PARTICIPANTS = 30


def read_card(file: Path) -> dict[str, Any]:
    """A fine-tuned model's .json; raises :class:`RemitError` if it is something else."""
    try:
        card: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if card["kind"] != "finetuned":
            raise KeyError("kind")
        card["pretrained"]["backbone_sha256"], card["data"]["split_sha256"]
        card["metrics"]["val"]["n"], card["data"]["cohort"]
        warnings_of(card)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise RemitError(
            f"{file}: is no card of a fine-tuned model ({type(error).__name__}: {error}); expected the "
            ".json that fine-tuning wrote; rebuild it."
        ) from None
    return card


def template(name: str) -> jinja2.Template:
    """A page's template, with everything that is filled in escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("remit.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = show_figure
    return environment.get_template(name)


def show_figure(figure: dict[str, Any]) -> str:
    """``0.67 [0.22, 0.96]``, or why there is none."""
    if figure["value"] is None:
        return "undefined (one class only)"
    return f"{figure['value']:.2f} [{figure['low']:.2f}, {figure['high']:.2f}]"


def kept_epoch(card: dict[str, Any]) -> dict[str, Any]:
    """The numbers of the pretraining epoch that was kept."""
    entry: dict[str, Any] = card["pretrained"]["history"][int(card["pretrained"]["best_epoch"]) - 1]
    return entry


def warnings_of(card: dict[str, Any]) -> list[str]:
    """What must be said before any number, in order of weight."""
    found = []
    if card["data"]["simulated"]:
        found.append(
            "SIMULATED DATA. These recordings were made by a program; nothing here is about people."
        )
    if card["pretrained"]["data"]["transductive"]:
        found.append(
            "TRANSDUCTIVE. Pretraining has seen the validation and test participants' recordings; the "
            "estimate is too favourable for new people."
        )
    if not card["data"]["simulated"] and card["pretrained"]["data"]["simulated"]:
        found.append("SIMULATED recordings, made by a program, were among those of pretraining.")
    kept = kept_epoch(card)
    if max(kept["held_out_waveform_explained"], kept["held_out_spectrum_explained"]) <= 0:
        found.append(
            "PRETRAINING HAS LEARNED NOTHING that holds for other people: what it predicts of masked "
            "tokens is no better than their mean."
        )
    n = int(card["metrics"]["test"]["n"])
    if n < _FEW_PARTICIPANTS:
        found.append(
            f"The test part has {n} participants. No figure from so few can be told from chance unless "
            "its interval says so; a single split is not an evaluation of the method."
        )
    return found


def warnings_of_backbone(evidence: dict[str, Any] | None) -> list[str]:
    """What failed, or was ignored, in the diagnostics of the backbone; nothing without them."""
    checks = evidence["checks"] if evidence else []
    failed = [check["name"] for check in checks if check["status"] == "fail"]
    ignored = [
        check["name"]
        for check in checks
        if check["status"] == "warn" and check["name"].endswith("somebody else's context")
    ]
    return [
        f"{text}: {', '.join(names)}. See Diagnostics of the backbone, below."
        for text, names in (
            ("THE BACKBONE FAILS", failed),
            ("THE BACKBONE DOES NOT CLEARLY USE WHAT IT SEES", ignored),
        )
        if names
    ]


def draw_curves(card: dict[str, Any], file: Path) -> bytes:
    """Loss and explained variance in pretraining, loss and F1 in fine-tuning; a PNG."""
    before, after = card["pretrained"]["history"], card["history"]
    seen = card["pretrained"]["data"]
    told = {
        "TRANSDUCTIVE: pretraining has seen the validation participants": seen["transductive"],
        "SIMULATED DATA": card["data"]["simulated"],
    }
    flags = [text for text, true in told.items() if true]
    aside = f"participants kept aside (n={len(seen['participants_seen']['early_stopping'])})"
    figure, grid = canvas(2, 2, (10, 7), title=card["name"], flags=flags)
    axes = grid.ravel()

    def lines(axis: Any, history: list[dict[str, Any]], names: dict[str, str], best: int) -> None:
        epochs = [entry["epoch"] for entry in history]
        styles = (("-", BLUE, "o"), ("--", VERMILION, "D"))
        for (style, color, marker), key in zip(styles[: len(names)], names, strict=True):
            values = [float("nan") if entry[key] is None else entry[key] for entry in history]
            one = marker if len(epochs) == 1 else None  # a single epoch is no line
            axis.plot(epochs, values, style, color=color, marker=one, label=names[key])
        axis.xaxis.get_major_locator().set_params(integer=True)
        if len(epochs) == 1:  # else the axis shows parts of an epoch
            axis.set(xlim=(epochs[0] - 1, epochs[0] + 1), xticks=epochs)
        axis.axvline(best, color="0.6", linewidth=1, label=f"kept: epoch {best}")
        axis.set_xlabel("epoch")
        axis.legend(fontsize=8, framealpha=0.8)

    kept = int(card["pretrained"]["best_epoch"])
    lines(
        axes[0],
        before,
        {"train_loss": "training", "held_out_loss": aside},
        kept,
    )
    axes[0].set(title="Pretraining: loss on masked tokens", ylabel="loss (smooth L1, no unit)")
    lines(
        axes[1],
        before,
        {"held_out_waveform_explained": "waveform", "held_out_spectrum_explained": "log spectrum"},
        kept,
    )
    axes[1].axhline(0, color="0.3", linewidth=0.8)
    axes[1].set(
        title=f"Pretraining: masked tokens explained,\n{aside}",
        ylabel="1 - squared error / mean square",
    )
    best = int(card["best_epoch"])
    lines(axes[2], after, {"train_loss": "training", "val_loss": "validation"}, best)
    axes[2].set(title="Fine-tuning: loss", ylabel="cross-entropy (nats)")
    lines(axes[3], after, {"val_f1": "F1", "val_auc": "AUC"}, best)
    axes[3].set(
        title=f"Fine-tuning: validation (n={card['metrics']['val']['n']})",
        ylim=(-0.05, 1.05),
        ylabel="figure of merit",
    )
    return save(figure, file)


def write_report(
    *,
    card: Path,
    predictions: Path,
    primary: Path,
    split: Path,
    diagnostics: Path | None,
    page: Path,
    curves: Path,
    label: str,
) -> None:
    """Write the page and the figure of one model; raises :class:`RemitError`.

    Without ``diagnostics`` the page says that the backbone was not diagnosed.
    """
    content = read_card(card)
    try:
        people = pq.read_table(predictions).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise RemitError(
            f"{predictions}: cannot be read ({type(error).__name__}); expected the predictions of "
            "fine-tuning; rebuild them."
        ) from None
    dataset = open_dataset(primary)
    frame = dataset.frame()
    made_by = read_split(split)
    if content["data"]["content_sha256"] != made_by.content_sha256:
        raise RemitError(
            f"{card}: was made from another dataset than {split}; expected the same; rebuild it."
        )
    evidence = None if diagnostics is None else read_diagnostics(diagnostics)
    for what, key, of in (
        ("backbone", "backbone_sha256", content["pretrained"]),
        ("primary dataset", "content_sha256", content["data"]),
        ("split", "split_sha256", content["data"]),
    ):
        if evidence and evidence[key] != of[key]:
            raise RemitError(
                f"{diagnostics}: was made of another {what} than {card}; expected the same; ask snakemake "
                "for both again."
            )
    picture = draw_curves(content, curves)
    text = template("model_report.html.j2").render(
        card=content,
        figures=FIGURES,
        warnings=warnings_of(content) + warnings_of_backbone(evidence),
        evidence=evidence,
        people=sorted(people, key=lambda row: (row["part"], -row["probability"])),
        cohort={
            "participants": int(frame["Participant"].nunique()),
            "recordings": int(frame["recording"].nunique()),
            "windows": len(frame),
            "bad": int((~frame["good"]).sum()),
        },
        recordings=[
            {"name": name, "kept": kept_text(source), **source}
            for name, source in sorted(dataset.metadata["sources"].items())
        ],
        split=made_by,
        label=label,
        kept=kept_epoch(content),
        settings=json.dumps(
            {"pretraining": content["pretrained"]["settings"], "fine-tuning": content["settings"]},
            indent=2,
            sort_keys=True,
        ),
        curves=base64.b64encode(picture).decode("ascii"),
    )
    with atomic_write(page) as temporary:
        temporary.write_text(text, encoding="utf-8")
