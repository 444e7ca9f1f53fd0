"""The models of a sweep in one table, as a file and as a page.

Models are compared on the same dataset and the same split or not at all. The table is ordered by
name, never by a test figure: choosing the best row by its test figure would spend the test part.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from remit.errors import RemitError
from remit.files import atomic_write
from remit.naming import FINETUNED_SUFFIX, ModelName
from remit.report.model_report import kept_epoch, read_card, template, warnings_of

COMPARED = ("auc", "accuracy", "f1")


def _row(card: dict[str, Any]) -> dict[str, Any]:
    name = ModelName.parse(str(card["name"]).removesuffix(FINETUNED_SUFFIX))
    kept = kept_epoch(card)
    row: dict[str, Any] = {
        "model": str(card["name"]),
        "simulated": str(card["data"]["simulated"]).lower(),
        "transductive": str(card["pretrained"]["data"]["transductive"]).lower(),
        "d_model": name.d_model,
        "num_layers": name.num_layers,
        "mask_percent": name.mask_percent,
        "masking_style": name.masking_style,
        "waveform_explained": _rounded(kept["held_out_waveform_explained"]),
        "spectrum_explained": _rounded(kept["held_out_spectrum_explained"]),
        "best_epoch": card["best_epoch"],
    }
    for part in ("val", "test"):
        row[f"{part}_n"] = card["metrics"][part]["n"]
        for key in COMPARED:
            figure = card["metrics"][part][key]
            for what in ("value", "low", "high"):
                suffix = "" if what == "value" else f"_{what}"
                row[f"{part}_{key}{suffix}"] = _rounded(figure[what])
    return row


def _order(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["d_model"], row["num_layers"], row["masking_style"], row["mask_percent"]


def _rounded(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def write_comparison(*, cards: Sequence[Path], table: Path, page: Path) -> None:
    """Write the table (TSV) and the page; raises :class:`RemitError` if models differ in their data."""
    contents = [read_card(file) for file in cards]
    first = contents[0]["data"]
    for file, card in zip(cards, contents, strict=True):
        for key in ("content_sha256", "split_sha256"):
            if card["data"][key] != first[key]:
                raise RemitError(
                    f"{file}: {key} is {card['data'][key][:12]}; expected {first[key][:12]} as in "
                    f"{cards[0]}; rebuild both from the same dataset and split."
                )
    rows = sorted((_row(card) for card in contents), key=_order)
    with (
        atomic_write(table) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.DictWriter(
            stream, fieldnames=list(rows[0]), delimiter="\t", lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(rows)
    ordered = sorted(contents, key=lambda card: _order(_row(card)))
    warnings = list(dict.fromkeys(text for card in ordered for text in warnings_of(card)))
    text = template("comparison.html.j2").render(
        cards=list(zip(rows, ordered, strict=True)),
        warnings=warnings,
        compared=COMPARED,
        data=first,
    )
    with atomic_write(page) as temporary:
        temporary.write_text(text, encoding="utf-8")
