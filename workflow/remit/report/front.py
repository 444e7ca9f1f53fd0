"""The first screen of Snakemake's report: what forbids believing, the figure, and what is not there.

Made when the report is made, from the files that lie there, so that it says nothing of what was not
built. Text of a person (labels, names) is only text, in reStructuredText and in HTML.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from remit import naming
from remit.dataset.windows import METADATA_KEY
from remit.errors import RemitError, some_of
from remit.report.diagnostics import read_diagnostics
from remit.report.evaluation import read_evaluation, shown
from remit.report.model_report import (
    FIGURES,
    read_card,
    show_figure,
    warnings_of,
    warnings_of_backbone,
)


def _plain(text: str) -> str:
    """Text that reStructuredText takes as it is, on one line."""
    return re.sub(r"([^\w\s]|_)", r"\\\1", " ".join(text.split()))


def _box(text: str) -> str:
    """What must be read first, in a box of its own; legible in grey and on either ground."""
    style = (
        "border:2px solid #B00000;border-left-width:10px;background:#FFF4F4;color:#700000;"
        "padding:.6em 1em;margin:.5em 0;font-weight:bold"
    )
    said = html.escape(" ".join(text.split()))
    return f'.. raw:: html\n\n   <p style="{style}">{said}</p>\n'


# What two results say of the same thing in other words, told by the first of them.
_ALIKE = ("SIMULATED", "TRANSDUCTIVE")
_SHOWN_NAMES = 3


def _key(warning: str) -> str:
    """What a warning is about: how it begins; all of it, where it names a file that is to be mended."""
    word = re.split(r"\W", warning, maxsplit=1)[0]
    if word in _ALIKE or word in ("CANNOT", "OF"):
        return word if word in _ALIKE else warning
    return re.split("[.:,]", warning, maxsplit=1)[0]


class _Found:
    """What was found of a model: warnings, what is known, and what is not there, each one line."""

    def __init__(self, cohort: str, asked: str) -> None:
        self._cohort, self._asked = cohort, asked
        self.warnings: list[str] = []
        self.known: list[str] = []
        self.figures: list[str] = []
        """The same in few words, for one line among those of other models"""
        self.missing: list[str] = []

    def read(self, kind: str, read: Any, model: str, without: str) -> dict[str, Any] | None:
        """A result's content; None where it is not there (``without``), or cannot be read: it is said."""
        file = Path(naming.path(kind, model=model))
        if not file.exists():
            self.missing.append(without)
            return None
        try:
            content: dict[str, Any] = read(file)
        except RemitError as error:
            self.warnings.append(f"CANNOT BE READ: {error}")
            return None
        return content

    def ask(self, kind: str) -> str:
        """The command that makes what is not there."""
        return f"snakemake {naming.PATTERNS[kind].format(model=self._asked)}"

    def of_cohort(self, name: str, what: str) -> None:
        """A model's name does not say its cohort: what is left of another one must not pass for this."""
        if name != self._cohort:
            self.warnings.append(
                f"OF ANOTHER COHORT: the {what} that lies here is of '{name}', made before the configuration "
                f"asked for '{self._cohort}'; ask snakemake for it again."
            )

    @property
    def reasons(self) -> list[str]:
        """What the warnings are about, each once."""
        return list(dict.fromkeys(_key(text) for text in self.warnings))


def _evaluation(found: _Found, model: str) -> None:
    without = "No evaluation was asked for: whether the model predicts anybody is not known. "
    without += found.ask("evaluation_page")
    report = found.read("evaluation", read_evaluation, model, without)
    if report is None:
        return
    n = report["participants"]
    # A line for each nuisance that reaches the model, one for each of the others.
    forbidding = sum(each["reaches"] for each in report["nuisance"])
    forbidding += report["pretraining"]["transductive"] + report["dataset"]["simulated"]
    forbidden = report["headline"][:forbidding]
    found.warnings += forbidden
    found.of_cohort(report["dataset"]["cohort"], "evaluation")
    found.known += [line for line in report["headline"] if line not in forbidden]
    own = next(each for each in report["candidates"] if each["kind"] == "model")
    found.figures.append(f"AUC {shown(own['figures']['auc'])} by cross-validation, n={n['n']}")
    found.known.append(
        f"Evaluated by {report['folds']['repeats']} times {report['folds']['folds']} folds: n={n['n']} "
        f"participants, {n['n_positive']} in class 1; the interval is of 95 % over participants."
    )


def _model(found: _Found, model: str) -> None:
    without = f"No model was fine-tuned: {found.ask('model_report')}"
    card = found.read("finetuned_card", read_card, model, without)
    if card is None:
        return
    found.warnings += warnings_of(card)
    found.of_cohort(card["data"]["cohort"], "fine-tuned model")
    test = card["metrics"]["test"]
    found.figures.append(f"AUC {show_figure(test['auc'])} in one split's test part, n={test['n']}")
    found.known.append(
        f"The fine-tuned model on the test part of one split, which is no evaluation of the method: "
        f"{FIGURES['auc']} {show_figure(test['auc'])}, n={test['n']} participants, "
        f"{test['n_positive']} in class 1."
    )


def _backbone(found: _Found, model: str) -> None:
    without = "The backbone was not diagnosed: what it predicts of people whom it has not seen is not known."
    evidence = found.read("diagnostics", read_diagnostics, model, without)
    if evidence is None:
        return
    found.warnings += [text.split(" See ")[0] for text in warnings_of_backbone(evidence)]
    count = dict.fromkeys(("pass", "warn", "fail"), 0)
    for check in evidence["checks"]:
        count[check["status"]] += 1
    said = ", ".join(f"{n} {status}" for status, n in count.items())
    found.figures.append(f"checks of the backbone: {said}")
    found.known.append(
        f"Checks of the backbone on n={evidence['n']} participants that it has not seen: {said}."
    )


def _data(found: _Found, dataset: str) -> None:
    """Whether a program made the recordings, which is so before any model says it."""
    file = Path(naming.path("primary", dataset=dataset))
    if file.exists() and json.loads(pq.read_schema(file).metadata[METADATA_KEY])["simulated"]:
        found.warnings.append("SIMULATED data: this says nothing about people.")


def _look(found: _Found, kind: str, look: Any, **values: str) -> None:
    """Look at one result; what it lacks is a warning, and no reason to make no report."""
    try:
        look(found, *values.values())
    except (
        *(LookupError, TypeError, ValueError, AttributeError),
        *(OSError, StopIteration, pa.ArrowException),
    ) as e:
        found.warnings.append(
            f"CANNOT BE READ: {naming.path(kind, **values)} is damaged, or of another version "
            f"({type(e).__name__}: {e}); ask snakemake for it again."
        )


class FrontPage:
    """The first screen in reStructuredText, made when it is asked for as text: after the jobs of
    ``--report-after-run``.

    Args:
        models: those that the targets name.
        cohort: the cohort in question.
        dataset: its dataset.
    """

    def __init__(self, models: Sequence[str], cohort: str, dataset: str) -> None:
        self._of = models, cohort, dataset

    def __str__(self) -> str:
        return front_page(*self._of)


def front_page(models: Sequence[str], cohort: str, dataset: str) -> str:
    """The first screen, of the results of these models under the working directory."""
    asked = models[0] if len(models) == 1 else "<model>"
    found = {model: _Found(cohort, asked) for model in models}
    data = _Found(cohort, asked)
    _look(data, "primary", _data, dataset=dataset)
    for model, own in found.items():
        own.warnings += data.warnings  # first: in the same words of every model
        _look(own, "evaluation", _evaluation, model=model)
        _look(own, "finetuned_card", _model, model=model)
        _look(own, "diagnostics", _backbone, model=model)
    (warnings, known, missing) = _of_one(*found.values()) if len(found) == 1 else _of_many(found)
    title = models[0] if len(found) == 1 else f"{len(found)} models"
    lines = [f"{_plain(title)}: cohort {_plain(cohort)}"]
    lines += ["=" * len(lines[0]), "", *(_box(text) for text in warnings)]
    if known and not warnings:  # of nothing there is nothing to warn of
        lines += ["No warning was raised; intervals and n stand beside every figure.", ""]
    for heading, texts in (("What is known", known), ("What is not", missing)):
        if texts:
            lines += [f"**{heading}**", "", *(f"- {text}" for text in texts), ""]
    return "\n".join(lines)


def _of_one(found: _Found) -> tuple[list[str], list[str], list[str]]:
    """The boxes, what is known and what is not, of one model."""
    boxes: list[str] = []
    for text in found.warnings:
        if _key(text) not in _ALIKE or _key(text) not in map(_key, boxes):
            boxes.append(text)
    return boxes, list(map(_plain, found.known)), list(map(_plain, found.missing))


def _of_many(found: Mapping[str, _Found]) -> tuple[list[str], list[str], list[str]]:
    """The same of several: a box for each reason, a line for each model, its name in bold."""
    with_names = partial(_with_names, len(found))
    boxes, of_all = [], set()
    for key in dict.fromkeys(key for own in found.values() for key in own.reasons):
        of = {
            model: [text for text in own.warnings if _key(text) == key]
            for model, own in found.items()
            if key in own.reasons
        }
        said = {text for each in of.values() for text in each[: 1 if key in _ALIKE else None]}
        text = said.pop() if len(said) == 1 else f"{key}: each model's page says more"
        boxes.append(with_names(text, list(of)))
        of_all |= {key} if len(of) == len(found) else set()
    known = []
    for model, own in found.items():
        told = (key for key in own.reasons if key not in of_all and not key.startswith("CANNOT"))
        texts = [*own.figures, *told]
        if own.figures:
            known.append(f"**{_plain(model)}**: {_plain('; '.join(texts))}")
    if known:
        known.append("An interval, in brackets, is of 95 % over participants, and n counts them.")
    missing: dict[str, list[str]] = {}
    for model, own in found.items():
        for text in own.missing:
            missing.setdefault(text, []).append(model)
    return boxes, known, [_plain(with_names(text, of)) for text, of in missing.items()]


def _with_names(number: int, text: str, of: Sequence[str]) -> str:
    """The text, with the models it is said of."""
    if len(of) == number:
        return f"All {number} models: {text}"
    return f"{len(of)} of {number} models ({some_of(of, _SHOWN_NAMES)}): {text}"
