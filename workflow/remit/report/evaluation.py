"""What people read of an evaluation: a page about one model, and a table of several.

Reads ``report.json`` and computes no figure of merit. What forbids believing a figure (simulated
data, a backbone that has seen the people it is tested on, a nuisance that does as well) stands in the
first lines of the page and on every picture, taken from the facts in the file; a file whose headline
does not say so is refused.
"""

from __future__ import annotations

import base64
import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from remit.dataset.splits import read_whole_json
from remit.errors import RemitError, some_of
from remit.files import atomic_write, write_rows
from remit.naming import ModelName
from remit.report.drawing import BLACK, BLUE, GREY, VERMILION, canvas, png
from remit.report.model_report import template

RESULT_VERSION = 5  # raise when a change here alters a page or the table

KINDS = {
    "model": "the pretrained backbone's embeddings",
    "baseline": "the EEG read in another way, or the covariates",
    "nuisance": "how it was recorded, nothing of the EEG itself",
    "chance": "nothing but the prevalence",
}
FIGURES = {
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall (sensitivity)",
    "f1": "F1",
}
COMPARED = {"auc": "AUC", "brier": "Brier score", "balanced_accuracy": "balanced accuracy"}
_STYLES = {
    "model": (BLUE, "o"),
    "baseline": (BLACK, "s"),
    "nuisance": (VERMILION, "D"),
    "chance": (GREY, "X"),
}
_ROUNDING = 1e-9
_OF_AREA = 0.01  # that a curve of fewer knots may be away from the AUC
_MOST_NAMES = 60  # participants whose names still fit beside a picture


# The form of report.json, as far as it is read here ------------------------------------------


class _Form(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Figure(_Form):
    value: float | None
    low: float | None
    high: float | None
    method: str

    @model_validator(mode="after")
    def _in_order(self) -> _Figure:
        edges = [edge for edge in (self.low, self.value, self.high) if edge is not None]
        if any(edge > after + _ROUNDING for edge, after in pairwise(edges)):
            raise ValueError(f"{self.value} is outside of its interval {self.low} to {self.high}")
        return self


class _Decisions(_Form):
    balanced_accuracy: _Figure
    accuracy: _Figure
    precision: _Figure
    recall: _Figure
    f1: _Figure


class _CurvePoint(_Form):
    n: int
    n_positive: int
    probability: float
    observed: float
    low: float
    high: float


class _Calibration(_Form):
    intercept: _Figure
    slope: _Figure
    curve: Annotated[list[_CurvePoint], Field(min_length=1)]


class _Spread(_Form):
    value: float
    method: str


class _Figures(_Form):
    n: int
    n_positive: int
    level: Annotated[float, Field(ge=0.95, le=0.95)]  # the words say 95 %
    spread: _Spread
    auc: _Figure
    brier: _Figure
    at_half: _Decisions
    at_inner_threshold: _Decisions
    calibration: _Calibration


class _Permutation(_Form):
    p: float | None
    permutations: int
    null_mean: float | None
    null_95: float | None


class _Prediction(_Form):
    participant: str
    label: Literal[0, 1]
    probability: Annotated[float, Field(ge=0, le=1)]
    decision: Literal[0, 1]


class _Group(_Form):
    group: str | None
    n: int
    n_positive: int
    auc: _Figure
    brier: _Figure


_Part = Annotated[float, Field(ge=0, le=1)]


class _Roc(_Form):
    folds: Annotated[int, Field(ge=0)]
    curve: list[Annotated[list[_Part], Field(min_length=2, max_length=2)]]
    band: list[Annotated[list[_Part], Field(min_length=3, max_length=3)]] | None
    method: str


class _LeaveOneOut(_Form):
    auc: _Figure | None
    note: str


class _Candidate(_Form):
    name: str
    kind: Literal["model", "baseline", "nuisance", "chance"]
    columns: int | None
    notes: list[str]
    figures: _Figures
    permutation: _Permutation
    predictions: list[_Prediction]
    subgroups: dict[str, list[_Group]] = {}
    roc: _Roc | None = None
    leave_one_out: _LeaveOneOut | None = None

    @model_validator(mode="after")
    def _whole(self) -> _Candidate:
        own = {"subgroups", "leave_one_out", "roc"}
        if self.kind == "model" and not own <= self.model_fields_set:
            raise ValueError("the model has no subgroups, no leave_one_out or no roc")
        if self.roc is not None and self.figures.auc.value is not None:
            area = _area(self.roc.curve)
            if abs(area - self.figures.auc.value) > _OF_AREA:
                raise ValueError(
                    f"the area under the ROC curve is {area:.3f} and the AUC {self.figures.auc.value:.3f}"
                )
        counted = len({row.participant for row in self.predictions})
        positive = sum(row.label for row in self.predictions)
        if (counted, len(self.predictions), positive) != (
            self.figures.n,
            self.figures.n,
            self.figures.n_positive,
        ):
            raise ValueError(
                f"{len(self.predictions)} predictions of {counted} participants, {positive} of them in "
                f"class 1, but figures of {self.figures.n} and {self.figures.n_positive}"
            )
        return self


def _area(curve: Sequence[Sequence[float]]) -> float:
    return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(curve))


class _Absent(_Form):
    name: str
    kind: str
    why: str


class _Comparison(_Form):
    name: str
    auc: _Figure
    brier: _Figure
    balanced_accuracy: _Figure


class _Nuisance(_Form):
    name: str
    reaches: bool
    why: str


class _Guard(_Form):
    guard: str
    found: str


class _Dataset(_Form):
    dataset: str
    cohort: str
    content_sha256: str
    simulated: bool
    label: str
    channels: list[str]
    sampling_rate: float
    window_samples: int


class _Pretraining(_Form):
    mode: Literal["per_fold", "held_out", "transductive", "given"]
    transductive: bool
    seen: list[str]


class _TestReads(_Form):
    analyses_before: Annotated[int, Field(ge=0)]
    models_before: list[str]


class _Participants(_Form):
    n: int
    n_positive: int
    unlabelled: list[str]


class _Folds(_Form):
    folds: int
    asked: int
    repeats: int
    seed: int
    sha256: str


class _Settings(_Form):
    inner_folds: int
    strengths: list[float]
    select: int | None
    permutations: int
    resamples: int
    seed: int


class _Could(_Form):
    smallest_auc: float | None
    power: Annotated[dict[str, float], Field(min_length=1)]
    method: str


class _Power(_Form):
    level: float
    fixed: _Could
    fit: _Could | None


class _Report(_Form):
    model: str
    result_version: str
    headline: Annotated[list[str], Field(min_length=1)]
    dataset: _Dataset
    pretraining: _Pretraining
    test_reads: _TestReads
    participants: _Participants
    folds: _Folds
    settings: _Settings
    files: Annotated[dict[str, str], Field(min_length=1)]
    power: _Power
    candidates: Annotated[list[_Candidate], Field(min_length=1)]
    absent: list[_Absent]
    comparisons: list[_Comparison]
    nuisance: list[_Nuisance]
    guards: list[_Guard]
    versions: dict[str, str]

    @model_validator(mode="after")
    def _one_evaluation(self) -> _Report:
        names = [candidate.name for candidate in self.candidates]
        own = [candidate.name for candidate in self.candidates if candidate.kind == "model"]
        if len(own) != 1 or len(set(names)) != len(names):
            raise ValueError(f"{len(own)} models among the candidates {some_of(names)}")
        others = sorted(name for name in names if name != own[0])
        if sorted(each.name for each in self.comparisons) != others:
            raise ValueError("the comparisons are not those with every other candidate")
        nuisance = sorted(each.name for each in self.candidates if each.kind == "nuisance")
        if sorted(each.name for each in self.nuisance) != nuisance:
            raise ValueError("the nuisance candidates are not those that were judged")
        people = {each.participant: each.label for each in self.candidates[0].predictions}
        for each in self.candidates:
            if {row.participant: row.label for row in each.predictions} != people:
                raise ValueError(f"{each.name}: predicted other participants than {names[0]}")
        if (len(people), sum(people.values())) != (
            self.participants.n,
            self.participants.n_positive,
        ):
            raise ValueError("the participants are not those of the predictions")
        if self.pretraining.transductive != bool(self.pretraining.seen):
            raise ValueError("pretraining.transductive and pretraining.seen do not fit together")
        return self

    @model_validator(mode="after")
    def _says_so(self) -> _Report:
        must = [each.name for each in self.nuisance if each.reaches]
        must += ["TRANSDUCTIVE"] * self.pretraining.transductive
        must += ["SIMULATED"] * self.dataset.simulated
        missing = [what for what in must if not any(what in line for line in self.headline)]
        if missing:
            raise ValueError(f"the headline does not say {some_of(missing)}")
        if must and not any(what in self.headline[0] for what in must):
            raise ValueError(f"the headline does not begin with {some_of(must)}")
        return self


def read_evaluation(file: Path) -> dict[str, Any]:
    """A model's ``report.json``; :class:`RemitError` where it lacks something or contradicts itself."""
    found: dict[str, Any] = read_whole_json(file, "the report of an evaluation", "it")
    try:
        _Report.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(step) for step in first["loc"]) or "as a whole"
        raise RemitError(
            f"{file}: is no whole evaluation ({where}: {first['msg']}); expected the report.json that "
            "'remit evaluate' of this version wrote; ask snakemake for it again."
        ) from None
    return found


# Words ---------------------------------------------------------------------------------------


def model_of(report: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of the model itself."""
    entry: dict[str, Any] = next(each for each in report["candidates"] if each["kind"] == "model")
    return entry


def flags_of(report: Mapping[str, Any]) -> list[str]:
    """What every picture must say, in order of weight; empty when nothing is wrong."""
    flags = []
    reaching = [each["name"] for each in report["nuisance"] if each["reaches"]]
    if reaching:
        flags.append(f"REACHED WITHOUT EEG by {', '.join(reaching)}")
    if report["pretraining"]["transductive"]:
        seen, n = len(report["pretraining"]["seen"]), report["participants"]["n"]
        flags.append(f"TRANSDUCTIVE: the backbone has seen {seen} of {n}")
    if report["dataset"]["simulated"]:
        flags.append("SIMULATED DATA")
    return flags


def shown(figure: Mapping[str, Any], digits: int = 2) -> str:
    """``0.67 [0.22, 0.96]``, with an open side as ``...``, or why there is none."""
    if figure["value"] is None:
        return str(figure["method"])
    text = f"{figure['value']:.{digits}f}"
    if figure["low"] is None and figure["high"] is None:
        return f"{text} ({figure['method']})"
    low, high = (
        "..." if edge is None else f"{edge:.{digits}f}" for edge in (figure["low"], figure["high"])
    )
    return f"{text} [{low}, {high}]"


def shown_p(p: float | None) -> str:
    """A p value; small ones with one digit."""
    return "not tested" if p is None else f"{p:.3f}" if p >= 0.001 else f"{p:.1g}"


def counted(report: Mapping[str, Any]) -> str:
    """``n=21 participants, 7 in class 1``."""
    people = report["participants"]
    return f"n={people['n']} participants, {people['n_positive']} in class 1"


# Pictures ------------------------------------------------------------------------------------


def _drawing(report: Mapping[str, Any], rows: int, columns: int, size: tuple[float, float]) -> Any:
    """A figure with what must be said above it, and its axes."""
    figure, axes = canvas(
        rows, columns, size, title=report["model"], flags=flags_of(report), sharey="row"
    )
    return figure, axes.ravel()


def _nothing(report: Mapping[str, Any], why: str) -> Any:
    """A picture that says why there is none."""
    figure, (axis,) = _drawing(report, 1, 1, (7, 1.6))
    axis.set_axis_off()
    axis.set_title(counted(report), fontsize=10)
    axis.text(0.5, 0.5, why, ha="center", va="center", fontsize=10)
    return figure


def _rows(
    axis: Any, names: Sequence[str], kinds: Sequence[str], figures: Sequence[Mapping[str, Any]]
) -> None:
    """Figures with their intervals, one under the other; what has none says so in its place."""
    left, right = axis.get_xlim()
    for row, (kind, figure) in enumerate(zip(kinds, figures, strict=True)):
        color, marker = _STYLES[kind]
        if figure["value"] is None:
            axis.text((left + right) / 2, row, "undefined", fontsize=8, ha="center", va="center")
            continue
        low = left if figure["low"] is None else figure["low"]
        high = right if figure["high"] is None else figure["high"]
        axis.plot([low, high], [row, row], color=color, linewidth=2 if kind == "model" else 1.2)
        axis.plot(
            figure["value"],
            row,
            marker,
            color=color,
            markersize=6,
            gid=f"figure-{row}",
            clip_on=False,
        )
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.grid(axis="x", color="0.92")
    axis.set_axisbelow(True)


def draw_candidates(report: Mapping[str, Any]) -> Any:
    """The AUC of every candidate with its interval, chance, and the least that would have told."""
    entries = report["candidates"]
    figure, (axis,) = _drawing(report, 1, 1, (9, 1.9 + 0.34 * len(entries)))
    axis.set_xlim(0, 1)
    axis.axvline(0.5, color="0.3", linewidth=0.9, label="chance")
    power = report["power"]["fit"] or report["power"]["fixed"]
    if power["smallest_auc"] is not None:
        axis.axvline(
            power["smallest_auc"],
            color="0.3",
            linewidth=0.9,
            linestyle=":",
            label=f"least AUC that could be told from chance: {power['smallest_auc']:.2f}",
        )
    names = [
        f"{entry['name']}  {shown(entry['figures']['auc'])}, p {shown_p(entry['permutation']['p'])}"
        if entry["figures"]["auc"]["value"] is not None
        else entry["name"]
        for entry in entries
    ]
    kinds, aucs = [e["kind"] for e in entries], [e["figures"]["auc"] for e in entries]
    _rows(axis, names, kinds, aucs)
    axis.set_title(f"AUC within folds, {counted(report)}", fontsize=10)
    axis.set_xlabel(
        "AUC with its 95 % interval; p: labels permuted, everything fitted again", fontsize=8
    )
    for kind in dict.fromkeys(kinds):
        color, marker = _STYLES[kind]
        axis.plot([], [], marker, color=color, label=f"{kind}: {KINDS[kind]}")
    figure.legend(
        *axis.get_legend_handles_labels(), fontsize=7, loc="outside lower center", ncols=2
    )
    return figure


def draw_differences(report: Mapping[str, Any]) -> Any:
    """Model minus each other candidate, on the same participants and folds."""
    rows = report["comparisons"]
    if not rows:
        return _nothing(report, "There is no other candidate.")
    kinds = {each["name"]: each["kind"] for each in report["candidates"]}
    figure, axes = _drawing(report, 1, len(COMPARED), (11, 1.9 + 0.3 * len(rows)))
    for axis, (key, text) in zip(axes, COMPARED.items(), strict=True):
        axis.set_xlim(-1, 1)
        axis.axvline(0, color="0.3", linewidth=0.9)
        names = [row["name"] for row in rows]
        _rows(axis, names, [kinds[name] for name in names], [row[key] for row in rows])
        axis.set_title(f"{text}: model minus other\nn={report['participants']['n']}", fontsize=9)
        better = "left" if key == "brier" else "right"
        axis.set_xlabel(f"the model is better to the {better}", fontsize=8)
    return figure


def draw_roc(report: Mapping[str, Any]) -> Any:
    """The mean ROC curve of the folds, whose area is the AUC, with its band."""
    own = model_of(report)
    roc = own["roc"]
    if not roc["curve"]:
        return _nothing(report, roc["method"])
    figure, (axis,) = _drawing(report, 1, 1, (6, 6.4))
    color, _ = _STYLES["model"]
    axis.plot([0, 1], [0, 1], "--", color="0.5", linewidth=1, label="chance")
    if roc["band"]:
        at, low, high = zip(*roc["band"], strict=True)
        axis.fill_between(
            at, low, high, color=color, alpha=0.18, linewidth=0, gid="band", label="95 % band"
        )
        for edge in (low, high):
            axis.plot(at, edge, ":", color=color, linewidth=0.8)
    auc = shown(own["figures"]["auc"])
    axis.plot(
        *zip(*roc["curve"], strict=True),
        color=color,
        linewidth=1.8,
        gid="curve",
        label=f"mean of {roc['folds']} folds; area = AUC {auc}",
    )
    axis.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axis.set_xlabel("false positive rate (1 - specificity)", fontsize=9)
    axis.set_ylabel("true positive rate (sensitivity)", fontsize=9)
    axis.set_title(
        f"ROC within folds, {counted(report)}\n"
        + textwrap.fill(f"band: {roc['method']}" if roc["band"] else roc["method"], 78),
        fontsize=9,
    )
    axis.legend(fontsize=8, frameon=False, loc="lower right")
    axis.grid(color="0.92")
    axis.set_axisbelow(True)
    return figure


def draw_calibration(report: Mapping[str, Any]) -> Any:
    """The observed share of class 1 over the predicted, with exact intervals, and who is where."""
    figures = model_of(report)["figures"]
    curve = figures["calibration"]["curve"]
    figure, (axis,) = _drawing(report, 1, 1, (5.6, 5.6))
    said, seen = [p["probability"] for p in curve], [p["observed"] for p in curve]
    low, high = [p["low"] for p in curve], [p["high"] for p in curve]
    color, marker = _STYLES["model"]
    axis.plot([0, 1], [0, 1], "--", color="0.5", linewidth=1, label="perfect")
    axis.fill_between(said, low, high, color=color, alpha=0.15, linewidth=0)
    axis.vlines(said, low, high, color=color, linewidth=1.5)
    axis.plot(said, seen, marker + "-", color=color, gid="curve", label="groups of participants")
    for point in curve:
        axis.annotate(
            f"n={point['n']}",
            (point["probability"], point["observed"]),
            xytext=(7, -7),  # points: off the curve and its interval
            textcoords="offset points",
            fontsize=8,
            va="top",
            bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "linewidth": 0, "alpha": 0.8},
        )
    for label, place in ((1, 1.03), (0, -0.03)):
        its = [r["probability"] for r in model_of(report)["predictions"] if r["label"] == label]
        axis.plot(its, [place] * len(its), "|", color="black", gid=f"class {label}")
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.06, 1.06))
    axis.set_xlabel("predicted probability of class 1 (mean over repeats)", fontsize=9)
    axis.set_ylabel("share in class 1, 95 % exact interval", fontsize=9)
    axis.set_title(
        f"Calibration, {counted(report)}\nmarks: class 1 above, class 0 below", fontsize=9
    )
    axis.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(0, 0.95))
    return figure


def draw_participants(report: Mapping[str, Any]) -> Any:
    """Every participant's probability, sorted; class 1 filled, class 0 open."""
    people = sorted(
        model_of(report)["predictions"], key=lambda row: (row["probability"], row["participant"])
    )
    named = len(people) <= _MOST_NAMES
    figure, (axis,) = _drawing(report, 1, 1, (7, 1.7 + (0.19 * len(people) if named else 6)))
    color, _ = _STYLES["model"]
    for label, marker, fill in ((1, "o", color), (0, "s", "none")):
        its = [(row["probability"], n) for n, row in enumerate(people) if row["label"] == label]
        axis.plot(
            [x for x, _ in its],
            [y for _, y in its],
            marker,
            color=color,
            markerfacecolor=fill,
            linestyle="none",
            label=f"class {label} (n={len(its)})",
            gid=f"class {label}",
        )
    axis.axvline(0.5, color="0.3", linewidth=0.9, label="0.5")
    axis.set_yticks(range(len(people)) if named else [])
    if named:
        axis.set_yticklabels([row["participant"] for row in people], fontsize=7)
    axis.set_ylim(-0.7, len(people) - 0.3)
    axis.set_xlim(-0.02, 1.02)
    axis.grid(axis="x", color="0.92")
    axis.set_axisbelow(True)
    axis.set_xlabel(
        "probability of class 1 by fits without the participant (mean over repeats)", fontsize=8
    )
    axis.set_title(f"Participants, {counted(report)}", fontsize=10)
    axis.legend(fontsize=8, frameon=False, loc="lower right")
    return figure


def draw_subgroups(report: Mapping[str, Any]) -> Any:
    """The model's AUC within groups."""
    rows = [
        (f"{column}: {'unknown' if row['group'] is None else row['group']}", row)
        for column, groups in model_of(report)["subgroups"].items()
        for row in groups
        if row["auc"]["value"] is not None
    ]
    if not rows:
        there = model_of(report)["subgroups"]
        why = "No group has enough people of both classes for an AUC."
        return _nothing(report, why if there else "The cohort sheet has no column of groups.")
    figure, (axis,) = _drawing(report, 1, 1, (8, 1.7 + 0.34 * len(rows)))
    axis.set_xlim(0, 1)
    axis.axvline(0.5, color="0.3", linewidth=0.9)
    names = [f"{name} (n={row['n']}, {row['n_positive']} in class 1)" for name, row in rows]
    _rows(axis, names, ["model"] * len(rows), [row["auc"] for _, row in rows])
    axis.set_title(f"AUC within groups, of {counted(report)}", fontsize=10)
    axis.set_xlabel("AUC with its 95 % interval", fontsize=8)
    return figure


PICTURES: dict[str, tuple[Callable[[Mapping[str, Any]], Any], str]] = {
    "candidates": (draw_candidates, "AUC of every candidate with its interval"),
    "differences": (draw_differences, "Differences between the model and every other candidate"),
    "roc": (draw_roc, "ROC curve of the model, the mean over folds, with its band"),
    "calibration": (draw_calibration, "Observed against predicted share of class 1"),
    "participants": (draw_participants, "Probability of every participant, sorted"),
    "subgroups": (draw_subgroups, "AUC of the model within groups"),
}


def drawn(report: Mapping[str, Any], key: str) -> bytes:
    """One of the pictures as PNG."""
    return png(PICTURES[key][0](report))


# Page and table ------------------------------------------------------------------------------


def write_page(*, report: Path, page: Path, pictures: Mapping[str, Path]) -> None:
    """Write the page of one model, and those of its pictures that have a file here.

    Raises :class:`RemitError`.
    """
    content = read_evaluation(report)
    png_of = {key: drawn(content, key) for key in PICTURES}
    for key, file in pictures.items():
        with atomic_write(file) as temporary:
            temporary.write_bytes(png_of[key])
    text = template("evaluation.html.j2").render(
        report=content,
        own=model_of(content),
        flags=flags_of(content),
        pictures={
            key: (base64.b64encode(png_of[key]).decode("ascii"), alt)
            for key, (_, alt) in PICTURES.items()
        },
        people=sorted(
            model_of(content)["predictions"],
            key=lambda row: (-row["probability"], row["participant"]),
        ),
        figures=FIGURES,
        compared=COMPARED,
        kinds=KINDS,
        counted=counted(content),
        shown=shown,
        shown_p=shown_p,
        settings=json.dumps(content["settings"], indent=2, sort_keys=True),
    )
    with atomic_write(page) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _table_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    differences = {each["name"]: each for each in report["comparisons"]}
    reaches = {each["name"]: each["reaches"] for each in report["nuisance"]}
    common = {
        "model": report["model"],
        "simulated": str(report["dataset"]["simulated"]).lower(),
        "pretraining": report["pretraining"]["mode"],
        "transductive": str(report["pretraining"]["transductive"]).lower(),
        "reached_without_eeg_by": "; ".join(name for name, it_does in reaches.items() if it_does),
        "n": report["participants"]["n"],
        "n_positive": report["participants"]["n_positive"],
    }
    nothing = dict.fromkeys(("value", "low", "high"))

    def row(entry: Mapping[str, Any], why: str = "") -> dict[str, Any]:
        figures = entry.get("figures", {"auc": nothing, "brier": nothing, "at_inner_threshold": {}})
        told = {
            "auc": figures["auc"],
            "brier": figures["brier"],
            "balanced_accuracy": figures["at_inner_threshold"].get("balanced_accuracy", nothing),
            "auc_model_minus_this": differences.get(entry["name"], {}).get("auc", nothing),
        }
        p = entry.get("permutation", {"p": None})["p"]
        return (
            common
            | {"candidate": entry["name"], "kind": entry["kind"]}
            | {
                key if edge == "value" else f"{key}_{edge}": ""
                if figure[edge] is None
                else f"{figure[edge]:.4f}"
                for key, figure in told.items()
                for edge in ("value", "low", "high")
            }
            | {
                "permutation_p": "" if p is None else f"{p:.6f}",
                "reaches_the_model": str(reaches.get(entry["name"], "")).lower(),
                "absent_because": why,
            }
        )

    return [row(entry) for entry in report["candidates"]] + [
        row(entry, entry["why"]) for entry in report["absent"]
    ]


def write_table(*, reports: Sequence[Path], table: Path) -> None:
    """Write one row (TSV) per model and candidate, in order of the models' size, never of a figure.

    Raises :class:`RemitError` when the models were not evaluated in the same folds of the same dataset.
    """
    contents = [read_evaluation(file) for file in reports]
    for file, content in zip(reports, contents, strict=True):
        for what, key in (("dataset", "content_sha256"), ("folds", "sha256")):
            found, first = content[what][key], contents[0][what][key]
            if found != first:
                raise RemitError(
                    f"{file}: {what}.{key} is {found[:12]}; expected {first[:12]} as in {reports[0]}; "
                    "evaluate both in the same folds of the same dataset."
                )
    names = [content["model"] for content in contents]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise RemitError(f"{some_of(twice)}: given twice; expected each model once; leave one out.")

    def order(content: Mapping[str, Any]) -> tuple[Any, ...]:
        name = ModelName.parse(content["model"])
        return name.d_model, name.num_layers, name.masking_style, name.mask_percent

    rows = [row for content in sorted(contents, key=order) for row in _table_rows(content)]
    write_rows(table, rows)
