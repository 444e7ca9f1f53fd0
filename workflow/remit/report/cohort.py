"""The cohort in pictures: who is left at each step, what the sheet says of them, and who trains.

Counts in the cohort's sheet, the primary dataset and the split; computes no figure of merit. Quality
and spectra have modules of their own.

Shape suffix: `P` participants.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from remit.dataset.splits import PARTS
from remit.dataset.windows import row_groups
from remit.errors import some_of
from remit.evaluation.candidates import DATE_WORDS, of_recording
from remit.report.drawing import BLACK, CYCLE, GREY, canvas, save
from remit.report.people import (
    CLASSES,
    Cohort,
    Group,
    bad_because,
    counted,
    covariates,
    flow,
    number,
    read_cohort,
    recorded,
    words_of,
)
from remit.report.quality import QualityCount, draw_quality
from remit.report.spectra import Spectra, draw_spectra

RESULT_VERSION = 2  # raise when a change here alters a picture

PICTURES = ("flow", "demographics", "quality", "spectra", "split_picture")


_PART_NAMES = {name: name.replace("_", " ") for name in PARTS}
_MOST_COLUMNS = 8  # of a sheet that are drawn; the others are named
_MOST_DOTS = 150  # of one group; more are drawn as a histogram
_GOLDEN = (5**0.5 - 1) / 2  # its multiples, modulo 1, spread evenly however many there are


# Flow ----------------------------------------------------------------------------------------


def flow_boxes(cohort: Cohort) -> list[list[tuple[str, str]]]:
    """The boxes of the flow, row by row: what is left at a step, and what is lost there ('' for none).

    The last rows have a box for each class, and one for each part of the split.
    """
    dataset, frame = cohort.dataset, cohort.dataset.frame()
    sheet, made, kept, _ = flow(cohort.rows, dataset, cohort.labels, use_bad=False, named=4)
    signal = recorded(dataset, dataset.labels, use_bad=False)
    bad = made["windows"] - kept["windows"]
    why = ", ".join(f"{reason} {count}" for reason, count in bad_because(dataset).items())
    seconds = dataset.metadata["window_samples"] / dataset.sampling_rate
    boxes = [
        [
            (
                f"In the cohort sheet\n{counted(sheet['participants'], 'participant')}, "
                f"{counted(sheet['recordings'], 'recording')}",
                f"Not in the dataset: {made['gone']}\n"
                f"({counted(sheet['participants'] - made['participants'], 'participant')}, "
                f"{counted(sheet['recordings'] - made['recordings'], 'recording')})",
            )
        ],
        [
            (
                f"Recordings read\n{counted(len(signal['minutes']), 'recording')} of "
                f"{counted(made['participants'], 'participant')}, {sum(signal['minutes']):.1f} min",
                f"Too short a rest to fill a window: {signal['dropped']:.1f} min",
            )
        ],
        [
            (
                f"Windows made\n{counted(made['windows'], 'window')} of {seconds:g} s, "
                f"{counted(made['participants'], 'participant')}",
                f"Marked bad: {counted(bad, 'window')} ({bad / made['windows']:.1%})"
                + (f"\nreasons: {why}" + " (a window may have several reasons)" * (bad > 0))
                * bool(why),
            )
        ],
        [
            (
                f"Windows kept\n{counted(kept['windows'], 'window')}, "
                f"{counted(kept['participants'], 'participant')}",
                f"No window kept: {kept['gone']}\n"
                f"({counted(made['participants'] - kept['participants'], 'participant')})",
            )
        ],
    ]
    good = frame[frame["good"]]["Participant"].value_counts()
    own = cohort.dataset.labels
    by_class = []
    for group in CLASSES:
        people = [name for name, label in own.items() if label == group.label]
        if people:
            some = [name for name in people if good.get(name, 0)]
            windows = sum(int(good.get(name, 0)) for name in people)
            by_class.append(
                (
                    f"{group.name}\n{counted(len(some), 'participant')}\n{counted(windows, 'kept window')}",
                    "",
                )
            )
    boxes.append(by_class)
    if cohort.split is not None:
        parts = []
        for part in PARTS:
            people = cohort.split.part(part)
            if people:
                counts = ", ".join(
                    f"{sum(own[name] == group.label for name in people)} {group.name}"
                    for group in CLASSES
                    if any(own[name] == group.label for name in people)
                )
                without = sum(not good.get(name, 0) for name in people)
                tail = f"\n{without} without a kept window" if without else ""
                parts.append(
                    (
                        f"{_PART_NAMES[part]}\n{counted(len(people), 'participant')}\n{counts}{tail}",
                        "",
                    )
                )
        boxes.append(parts)
    return boxes


def draw_flow(cohort: Cohort, file: Path) -> None:
    """The participants' flow as boxes, in the manner of CONSORT and TRIPOD."""
    boxes = flow_boxes(cohort)
    title = cohort.title("Flow of participants")
    if cohort.split is None:
        title += f"\n{_NO_SPLIT}"
    if cohort.use_bad:
        title += (
            "\nwindows marked bad are used in training all the same (sequences.use_bad_windows)"
        )
    figure, ((axis,),) = canvas(1, 1, (9, 1.2 * len(boxes) + 1.2), title=title, flags=cohort.flags)
    axis.set(xlim=(0, 1), ylim=(len(boxes) + 0.25, -0.45))
    axis.axis("off")
    line = {"color": BLACK, "linewidth": 1, "zorder": 1}

    def box(text: str, x: float, y: float, width: int, color: str, align: str = "center") -> None:
        axis.text(
            x,
            y,
            "\n".join(textwrap.fill(each, width) for each in text.split("\n")),
            ha=align,
            va="center",
            fontsize=9,
            bbox={"boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": color},
            zorder=3,
        )

    def link(start: tuple[float, float], end: tuple[float, float]) -> None:
        arrow = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, "color": BLACK, "linewidth": 1}
        axis.annotate("", xy=end, xytext=start, arrowprops=arrow, zorder=1)

    steps, branches = boxes[:4], boxes[4:]
    for row, ((text, lost),) in enumerate(steps):
        box(text, _MAIN, row, 42, BLACK)
        box(lost, _SIDE, row + 0.5, 46, GREY, "left")
        link((_MAIN, row + 0.5), (_SIDE - 0.013, row + 0.5))
        if row:
            link((_MAIN, row - 1), (_MAIN, row - 0.24))
    above = len(steps) - 1
    before: list[float] = []
    for of, in_row in enumerate(branches):
        y = len(steps) + 0.55 + 1.2 * of
        places = [(place + 0.5) / len(in_row) for place in range(len(in_row))]
        if of == 0:
            axis.plot([_MAIN] * 2, [above, y - 0.6], **line)
            axis.plot([min(_MAIN, *places), max(_MAIN, *places)], [y - 0.6] * 2, **line)
        else:  # every part has people of each class
            axis.plot([0.03, 0.97], [y - 0.6] * 2, **line)
            axis.text(0.03, y - 0.58, "split", fontsize=8, va="top")
            for x in before:
                axis.plot([x] * 2, [y - 1.2, y - 0.6], **line)
        for (text, _), x in zip(in_row, places, strict=True):
            name = text.split("\n")[0]
            box(text, x, y, 26, next((g.color for g in CLASSES if g.name == name), BLACK))
            link((x, y - 0.6), (x, y - 0.33))
        before = places
    save(figure, file)


_MAIN, _SIDE = 0.25, 0.5  # of the boxes, in parts of the width
_NO_SPLIT = "no split: labels are missing, or a class has fewer than three participants"

# Demographics and split ----------------------------------------------------------------------


def _draw_covariate(
    axis: Any, column: str, of: Mapping[str, str], groups: Sequence[tuple[Group, list[str]]]
) -> None:
    """One column of the sheet for some groups of people: dots or a histogram of numbers, counted bars
    of words, and words where neither says anything.
    """
    people = [name for _, names in groups for name in names]
    there = {name: of[name] for name in people if name in of}
    missing = len(people) - len(there)
    axis.set_title(f"{column} (n = {len(there)}; {missing} missing)", fontsize=9)
    numbers = {name: number(text) for name, text in there.items()}
    words = words_of(there.values())
    if of_recording(column) & DATE_WORDS or not there:
        _in_words(axis, f"{len(set(there.values()))} different dates" if there else "nothing known")
    elif all(value is not None for value in numbers.values()):
        _draw_numbers(
            axis,
            [
                (group, np.array([numbers[name] for name in names if name in there], dtype=float))
                for group, names in groups
            ],
        )
        axis.set_xlabel(column, fontsize=8)
    elif words is None:
        _in_words(axis, f"{len(set(there.values()))} different entries,\nnot listed")
    else:
        _draw_words(
            axis,
            list(words),
            [
                (group, [sum(there.get(name) == word for name in names) for word in words])
                for group, names in groups
            ],
        )


def _in_words(axis: Any, text: str) -> None:
    axis.axis("off")
    axis.text(0.5, 0.5, text, ha="center", va="center", fontsize=9, transform=axis.transAxes)


def _draw_numbers(axis: Any, groups: Sequence[tuple[Group, np.ndarray]]) -> None:
    most = max(len(value_P) for _, value_P in groups)
    every_P = np.concatenate([value_P for _, value_P in groups])
    edges = np.histogram_bin_edges(every_P, bins=20)
    for row, (group, value_P) in enumerate(groups):
        if not len(value_P):
            continue
        if most > _MOST_DOTS:
            counts, _ = np.histogram(value_P, edges)
            axis.bar(
                edges[:-1],
                -0.8 * counts / counts.max(),  # upwards, as the first row is at the top
                np.diff(edges),
                bottom=row + 0.4,
                align="edge",
                facecolor="white",
                edgecolor=group.color,
                hatch=group.hatch,
                label=group.name,
            )
        else:
            place_P = (np.arange(len(value_P)) * _GOLDEN) % 1
            axis.plot(
                value_P,
                row + 0.5 * (place_P - 0.5),
                group.marker,
                markersize=5,
                color=group.color,
                markerfacecolor="none",
                label=group.name,
            )
        axis.plot([np.median(value_P)] * 2, [row - 0.4, row + 0.4], color=BLACK, linewidth=2)
    shown = [
        f"{group.name}\nn = {len(value_P)}"
        + (f", median {np.median(value_P):g}" if len(value_P) else "")
        for group, value_P in groups
    ]
    axis.set_yticks(range(len(groups)), shown, fontsize=8)
    axis.set_ylim(len(groups) - 0.4, -0.6)


def _draw_words(axis: Any, words: Sequence[str], groups: Sequence[tuple[Group, list[int]]]) -> None:
    height = 0.8 / len(groups)
    for place, (group, counts) in enumerate(groups):
        at = np.arange(len(words)) - 0.4 + (place + 0.5) * height
        bars = axis.barh(
            at,
            counts,
            height,
            facecolor="white",
            edgecolor=group.color,
            hatch=group.hatch,
            label=f"{group.name} (n = {sum(counts)})",
        )
        axis.bar_label(bars, [str(count) for count in counts], padding=2, fontsize=8)
    axis.set_yticks(range(len(words)), [textwrap.shorten(word, 24) for word in words], fontsize=8)
    axis.set_ylim(len(words) - 0.4, -0.6)
    axis.margins(x=0.12)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_xlabel("participants", fontsize=8)
    axis.legend(fontsize=7, frameon=False)


def _columns_of(cohort: Cohort) -> tuple[dict[str, dict[str, str]], str]:
    """The sheet's columns that are drawn, and a line that names the others."""
    every = covariates(cohort.rows, [row.participant for row in cohort.rows])
    drawn = dict(list(every.items())[:_MOST_COLUMNS])
    left = [column for column in every if column not in drawn]
    return drawn, f"\nnot drawn: {some_of(left)}" if left else ""


def _panels(cohort: Cohort, what: str, number_of: int) -> tuple[Any, list[Any]]:
    columns = min(3, number_of)
    rows = -(-number_of // columns)
    size = (max(6.0, 4.4 * columns), 3.2 * rows + 0.9)
    figure, axes = canvas(rows, columns, size, title=what, flags=cohort.flags)
    for axis in axes.ravel()[number_of:]:
        axis.remove()
    return figure, list(axes.ravel()[:number_of])


def draw_demographics(cohort: Cohort, file: Path) -> None:
    """What the sheet says of the participants, by class, with n and how many are missing."""
    columns, left = _columns_of(cohort)
    groups = cohort.classes()
    counts = ", ".join(f"{group.name} n = {len(people)}" for group, people in groups)
    title = f"{cohort.title('Participants of the sheet')}\n{counts}"
    if not columns:
        figure, ((axis,),) = canvas(1, 1, (6, 1.8), title=title, flags=cohort.flags)
        _in_words(axis, "The cohort sheet has no covariates:\nnothing is known but the label.")
    else:
        figure, axes = _panels(cohort, f"{title}; bar: median{left}", len(columns))
        for axis, (column, of) in zip(axes, columns.items(), strict=True):
            _draw_covariate(axis, column, of, groups)
    save(figure, file)


def draw_split(cohort: Cohort, file: Path) -> None:
    """Who trains, validates and tests: by class, and by what the sheet says."""
    if cohort.split is None:
        figure, (axis,) = _panels(cohort, cohort.title("Split of the participants"), 1)
        _in_words(axis, f"{_NO_SPLIT[0].upper()}{_NO_SPLIT[1:]}.")
        save(figure, file)
        return
    columns, left = _columns_of(cohort)
    styles = zip(CYCLE, ("", "//", "..", "xx"), strict=False)
    groups = [
        (Group(None, _PART_NAMES[part], color, marker, "-", hatch), cohort.split.part(part))
        for part, ((color, marker), hatch) in zip(PARTS, styles, strict=False)
        if cohort.split.part(part)
    ]
    n = len(cohort.split.participants)
    title = (
        f"{cohort.title('Split of the participants')}\nn = {n}, seed {cohort.split.seed}; no participant "
        f"in two parts{left}"
    )
    figure, axes = _panels(cohort, title, 1 + len(columns))
    labels = cohort.dataset.labels
    axis, bottom = axes[0], np.zeros(len(groups))
    for group in CLASSES:
        counts = np.array([sum(labels[name] == group.label for name in part) for _, part in groups])
        if counts.any():
            bars = axis.bar(
                range(len(groups)),
                counts,
                bottom=bottom,
                facecolor="white",
                edgecolor=group.color,
                hatch=group.hatch,
                label=f"{group.name} (n = {counts.sum()})",
            )
            shown = [str(count) if count else "" for count in counts]
            texts = axis.bar_label(bars, shown, label_type="center", fontsize=9)
            for text in texts:
                text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1})
            bottom += counts
    names = [f"{group.name}\nn = {len(part)}" for group, part in groups]
    axis.set_xticks(range(len(groups)), names, fontsize=8)
    axis.set_title("by class", fontsize=9)
    axis.set_ylabel("participants", fontsize=8)
    axis.yaxis.get_major_locator().set_params(integer=True)
    axis.margins(y=0.25)
    axis.legend(fontsize=7, frameon=False, loc="upper right")
    for axis, (column, of) in zip(axes[1:], columns.items(), strict=True):
        _draw_covariate(axis, column, of, groups)
    save(figure, file)


# All of them ---------------------------------------------------------------------------------


def draw_cohort(
    *,
    sheet: Path,
    primary: Path,
    split: Path | None,
    label: str,
    use_bad: bool,
    pictures: Mapping[str, Path],
    log: Callable[[str], None],
) -> None:
    """Write the pictures of a cohort; raises :class:`RemitError`.

    Args:
        sheet: of the cohort.
        primary: its dataset; read once more, one row group at a time.
        split: None where the labels allow of none.
        label: the outcome in words.
        use_bad: whether training uses windows that are marked bad.
        pictures: a PNG for each of :data:`PICTURES`.
        log: is told what was written.
    """
    cohort = read_cohort(sheet=sheet, primary=primary, split=split, label=label, use_bad=use_bad)
    quality = QualityCount(cohort.dataset)
    spectra = Spectra(cohort.dataset)
    for table in row_groups(primary):
        quality.update(table)
        spectra.update(table)
    draw_flow(cohort, pictures["flow"])
    draw_demographics(cohort, pictures["demographics"])
    draw_quality(cohort, quality.found(), pictures["quality"])
    draw_spectra(cohort, spectra, pictures["spectra"])
    draw_split(cohort, pictures["split_picture"])
    log(f"cohort {cohort.name}: {len(PICTURES)} pictures -> {pictures['flow'].parent}")
