"""The model card: of TRIPOD+AI what the files know, and marked blanks for what only a person can write.

Markdown, with the item numbers of the checklist of TRIPOD+AI (Collins et al. 2024, BMJ 385:e078378).
States what stands in the report of the evaluation, the backbone, the primary dataset and the cohort
sheet, and counts in these; computes no figure of merit.
"""

from __future__ import annotations

import json
import re
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from remit import naming
from remit.dataset.windows import WindowsFile, open_dataset
from remit.errors import RemitError, some_of
from remit.evaluation.candidates import DATE_WORDS, of_recording
from remit.files import atomic_write, sha256_of
from remit.recordings.cohort import SheetRow, read_made_sheet
from remit.report.evaluation import (
    COMPARED,
    FIGURES,
    flags_of,
    model_of,
    read_evaluation,
    shown,
    shown_p,
)
from remit.report.people import bad_because, covariates, flow, known, number, recorded, words_of

RESULT_VERSION = 1  # raise when a change here alters a card

# An underscore inside of a word is none of Markdown's marks.
_MARKS = re.compile(r"([\\`*\[\]~#|])|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def escaped(value: Any) -> str:
    """A filled-in value in one line of Markdown that means nothing but itself."""
    if isinstance(value, Markup):
        return str(value)
    if value is None:
        raise ValueError("no value for a place in the card")
    text = _MARKS.sub(r"\\\g<0>", re.sub(r"\s+", " ", str(value)))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def blank(what: str) -> Markup:
    """A place that only a person can fill."""
    return Markup(f"**[to be written: {what}]**")


def figure(found: Mapping[str, Any]) -> Markup:
    """A figure with its interval; the brackets are no link."""
    return Markup(escaped(shown(found)).replace("\\[", "[").replace("\\]", "]"))


def _plain(value: Any) -> str:
    """A setting in words: ``cutoff_hz 60, order 4``, with parentheses where one lies in another."""
    if isinstance(value, Mapping):
        return ", ".join(
            f"{key} ({_plain(its)})" if isinstance(its, Mapping) else f"{key} {_plain(its)}"
            for key, its in value.items()
        )
    if isinstance(value, list):
        return ", ".join(_plain(its) for its in value)
    return "none" if value is None else str(value)


def _steps(settings: Mapping[str, Any]) -> dict[str, str]:
    """The settings that the windows were made with, those of the signal chain one by one."""
    chain = settings.get("preprocessing", {})
    rest = {key: value for key, value in settings.items() if key != "preprocessing"}
    return {key: _plain(value) for key, value in {**chain, **rest}.items()}


def _described(values: Sequence[str], *, is_date: bool) -> str:
    """What a column holds: a range, mean and SD of numbers, or how often each word."""
    there = [text for text in values if text]
    if not there:
        return "unknown for everybody"
    if is_date:
        return f"{min(there)} to {max(there)}"
    numbers = [number(text) for text in there]
    if all(each is not None for each in numbers):
        known = [each for each in numbers if each is not None]
        spread = f" (SD {statistics.stdev(known):.1f})" if len(known) > 1 else ""
        return f"mean {statistics.fmean(known):.1f}{spread}, {min(known):g} to {max(known):g}"
    counts = words_of(there)
    if counts is None:
        return f"{len(set(there))} different entries"
    return ", ".join(f"{text}: {count}" for text, count in counts.items())


def _characteristics(
    rows: Sequence[SheetRow], labels: Mapping[str, int]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The sheet's columns for the participants who are counted, by class; and the columns of dates.

    One entry of each participant: that of their first recording where it is known.
    """
    table, dates = [], {}
    for column, of in covariates(rows, labels).items():
        is_date = bool(of_recording(column) & DATE_WORDS)
        by_class = {
            wanted: _described(
                [of.get(name, "") for name, label in labels.items() if label == wanted],
                is_date=is_date,
            )
            for wanted in (1, 0)
        }
        if is_date:
            dates[column] = _described(
                [known(row, column) for row in rows if row.participant in labels], is_date=True
            )
        table.append({"column": column, "classes": by_class, "missing": len(labels) - len(of)})
    return table, dates


def _seen(participants_seen: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Whom pretraining saw, counted by what for and by cohort."""
    return dict(
        Counter(
            f"{part.replace('_', ' ')} (cohort {name.split('/')[0]})"
            for part, names in participants_seen.items()
            for name in names
        )
    )


def _check_together(
    report: Mapping[str, Any],
    content: Mapping[str, Any],
    dataset: WindowsFile,
    rows: Sequence[SheetRow],
    files: Mapping[str, Path],
) -> dict[str, int]:
    """The labels of who is counted; raises :class:`RemitError` where the files are of different things."""
    if content["name"] != report["model"]:
        raise RemitError(
            f"{files['backbone']}: is {content['name']}; expected {report['model']} as in "
            f"{files['report']}; give the backbone that was evaluated."
        )
    for key in ("dataset", "content_sha256"):
        if dataset.metadata[key] != report["dataset"][key]:
            raise RemitError(
                f"{files['report']}: {key} is {report['dataset'][key]}; expected {dataset.metadata[key]} as "
                f"in {files['primary']}; evaluate again."
            )
    labels = {row["participant"]: row["label"] for row in model_of(report)["predictions"]}
    in_sheet = {row.participant: row.remission for row in rows}
    for what, people in (("predicts", labels), ("has", dataset.labels)):
        strange = sorted(set(people) - set(in_sheet))
        if strange:
            file = files["report"] if what == "predicts" else files["primary"]
            raise RemitError(
                f"{file}: {what} participant {some_of(strange)}, who is not in {files['sheet']}; expected "
                "only people of the sheet; make both from the same sheet."
            )
    other = sorted(
        name
        for name in dataset.labels
        if not labels.get(name) == dataset.labels[name] == in_sheet[name]
    )
    if other or set(labels) - set(dataset.labels):
        raise RemitError(
            f"{files['report']}: participant {some_of(other or sorted(set(labels) - set(dataset.labels)))} "
            f"has another label than in {files['primary']} or {files['sheet']}; expected the same; evaluate "
            "again."
        )
    return labels


def write_model_card(
    *, report: Path, backbone: Path, primary: Path, sheet: Path, card: Path
) -> None:
    """Write the card of one model; raises :class:`RemitError` for files that do not belong together.

    Args:
        report: of the evaluation.
        backbone: the pretrained checkpoint that goes by the model's name.
        primary: the dataset that was evaluated on.
        sheet: of its cohort.
        card: to be written, Markdown.
    """
    from remit.training import checkpoint

    found = read_evaluation(report)
    content = checkpoint.load(backbone, "pretrained")
    dataset = open_dataset(primary)
    rows = read_made_sheet(sheet)
    labels = _check_together(
        found,
        content,
        dataset,
        rows,
        {"report": report, "backbone": backbone, "primary": primary, "sheet": sheet},
    )
    characteristics, dates = _characteristics(rows, labels)
    use_bad = content["settings"]["sequences"]["use_bad_windows"]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("remit.report", "."),
        autoescape=False,  # Markdown: every value goes through `escaped`
        finalize=escaped,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    try:
        text = environment.get_template("model_card.md.j2").render(
            report=found,
            own=model_of(found),
            flags=flags_of(found),
            backbone=content,
            fingerprint=checkpoint.backbone_sha256(content),
            backbone_file=backbone.name,
            primary_file=primary.name,
            sheet_file=sheet.name,
            sheet_sha256=sha256_of(sheet),
            sources=dataset.metadata["sources"],
            preprocessing=_steps(dataset.metadata["settings"]),
            flow=flow(rows, dataset, labels, use_bad=use_bad),
            bad=bad_because(dataset),
            characteristics=characteristics,
            dates=dates,
            seen=_seen(content["data"]["participants_seen"]),
            recorded=recorded(dataset, labels, use_bad=use_bad),
            median=statistics.median,
            head_file=naming.path("head", model=found["model"]),
            figures=FIGURES,
            compared=COMPARED,
            blank=blank,
            figure=figure,
            shown_p=shown_p,
            plain=_plain,
            code=Markup(
                json.dumps(
                    {"pretraining": content["settings"], "evaluation": found["settings"]},
                    indent=2,
                    sort_keys=True,
                )
            ),
        )
    except (jinja2.UndefinedError, KeyError) as error:
        raise RemitError(
            f"{backbone}: lacks what a model card states ({error}); expected a backbone that 'remit "
            "pretrain' of this version made; pretrain it again."
        ) from None
    with atomic_write(card) as temporary:
        temporary.write_text(text, encoding="utf-8")
