"""What a backbone says of hidden signal, beside the truth, of people whom pretraining has not seen.

Which sequences are shown is a rule and no choice: of all that are looked at the worst explained, the
median and the best. The mask is drawn as in training.

Shapes: T samples of a sequence, C channels, F frequencies.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from remit.dataset.splits import ParticipantSplit
from remit.errors import RemitError, some_of
from remit.evaluation.look import Loaded, Look
from remit.report.drawing import BLACK, BLUE, VERMILION, canvas, save
from remit.training.data import seen_in_pretraining, split_of

RESULT_VERSION = 2  # raise when a change here, or in evaluation/look.py, alters the picture

MOST_CHANNELS = 6  # that are legible one under the other
SECONDS = 6.0  # of a sequence, so that a period of alpha is seen
_APART = 5.0  # between traces, in the spread of the scaled signal


def unseen_of(loaded: Loaded, split: ParticipantSplit) -> list[str]:
    """The validation and test participants whom pretraining has not seen; RemitError for nobody."""
    held_out = [*split.part("val"), *split.part("test")]
    seen = set(seen_in_pretraining(loaded.backbone.content, loaded.dataset, held_out))
    unseen = sorted(set(held_out) - seen)
    if not unseen:
        raise RemitError(
            f"{loaded.backbone.file}: has seen all {len(held_out)} validation and test participants "
            f"({some_of(sorted(seen))}); expected at least one that it has not seen; pretrain without "
            "pretraining.transductive, or with this split."
        )
    return unseen


def chosen(looks: Sequence[Look]) -> dict[str, Look]:
    """The worst explained of some looks, the (lower) median and the best; one may be two of them."""
    ordered = sorted(looks, key=lambda look: (look.explained, look.participant, look.time_T[0]))
    places = {"lowest": 0, "median": (len(ordered) - 1) // 2, "highest": len(ordered) - 1}
    return {word: ordered[place] for word, place in places.items()}


def stretch_of(look: Look) -> slice:
    """The samples that are shown: the first stretch of SECONDS with the most hidden ones."""
    rate = (len(look.time_T) - 1) / (look.time_T[-1] - look.time_T[0])
    length = min(len(look.time_T), round(SECONDS * rate))
    hidden_T = np.concatenate([[0], np.cumsum(look.masked_TC.sum(1))])
    start = int(np.argmax(hidden_T[length:] - hidden_T[:-length]))
    return slice(start, start + length)


def _traces(axis: Any, look: Look, channels: Sequence[int]) -> None:
    """Truth and prediction of each channel, one under the other; hidden stretches are shaded."""
    part = stretch_of(look)
    time_T = look.time_T[part]
    step = time_T[1] - time_T[0]
    for row, channel in enumerate(channels):
        middle = -_APART * row
        masked_T = look.masked_TC[part, channel]
        for hidden, run in groupby(range(len(time_T)), key=lambda t: bool(masked_T[t])):
            if hidden:
                places = list(run)
                first, last = places[0], places[-1]
                axis.fill_between(
                    [time_T[first] - step / 2, time_T[last] + step / 2],
                    middle - _APART / 2,
                    middle + _APART / 2,
                    color="0.88",
                    linewidth=0,
                    gid="hidden",
                )
        lines = (
            ("true", look.true_TC, BLACK, "-", 0.7),
            ("predicted", look.predicted_TC, VERMILION, "-", 1.5),
        )
        for gid, values_TC, color, style, width in lines:
            axis.plot(
                time_T,
                middle + values_TC[part, channel],
                style,
                color=color,
                linewidth=width,
                gid=f"{gid} {look.channels[channel]}",
            )
    names = [look.channels[channel] for channel in channels]
    axis.set_yticks([-_APART * row for row in range(len(names))], names, fontsize=8)
    axis.set_ylim(-_APART * (len(names) - 0.5), _APART / 2)
    axis.set_xlim(time_T[0], time_T[-1])
    axis.set_xlabel("seconds from the recording's start", fontsize=8)


def _spectra(axis: Any, look: Look) -> None:
    """Mean log power of the hidden tokens over the channels: what was there, and what is said."""
    for gid, text, db_CF, style, color in (
        ("true", "there", look.true_db_CF, "-", BLACK),
        ("spectrum", "predicted log spectrum", look.spectrum_db_CF, "--", BLUE),
        ("waveform", "of the predicted waveform", look.waveform_db_CF, ":", VERMILION),
    ):
        known_C = np.isfinite(db_CF).all(1)
        if known_C.any():
            axis.plot(
                look.hz_F,
                db_CF[known_C].mean(0),
                style,
                color=color,
                linewidth=1.8,
                label=text,
                gid=gid,
            )
    axis.set_xlabel("Hz", fontsize=8)
    axis.set_ylabel("log power, dB re white noise\nof one scaled unit", fontsize=8)
    axis.legend(fontsize=7, frameon=False)
    axis.grid(color="0.92")
    axis.set_axisbelow(True)


def draw_reconstruction(
    looks: Sequence[Look], *, model: str, flags: Sequence[str], without_waveform: bool = False
) -> Any:
    """The figure of some looks; in words, where the backbone predicts no waveform."""
    if without_waveform:
        figure, ((axis,),) = canvas(1, 1, (8, 1.8), title=model, flags=flags)
        axis.set_axis_off()
        axis.text(
            0.5,
            0.5,
            "This backbone predicts no waveform (pretraining.waveform_weight is 0):\n"
            "there is nothing to be shown beside the truth.",
            ha="center",
            va="center",
        )
        return figure
    rows = chosen(looks)
    C = len(looks[0].channels)
    channels = sorted({round(place) for place in np.linspace(0, C - 1, min(C, MOST_CHANNELS))})
    people = len({look.participant for look in looks})
    of = "" if len(channels) == C else f"; {len(channels)} of {C} channels, evenly over the montage"
    figure, axes = canvas(
        len(rows),
        2,
        (14, 0.9 + len(rows) * (1.1 + 0.42 * len(channels))),
        title=f"{model}: hidden signal beside the truth, in {people} participants that pretraining has not "
        f"seen (n={len(looks)} sequences)\n"
        f"the sequences of lowest, median and highest part explained{of}; grey: hidden from the model; "
        f"traces are {_APART:g} scaled units apart (median 0, spread 1 of each recording and channel)",
        flags=flags,
        width_ratios=(3.4, 1),
    )
    for (left, right), (word, look) in zip(axes, rows.items(), strict=True):
        _traces(left, look, channels)
        _spectra(right, look)
        left.set_title(
            f"{word}: {look.explained:+.3f} of the hidden waveform explained, {look.participant}, "
            f"{look.time_T[0]:.0f}-{look.time_T[-1]:.0f} s, of it the {SECONDS:g} s with most hidden",
            fontsize=9,
        )
        hidden = int(look.masked_TC.sum() / (len(look.time_T) * C) * 100)
        right.set_title(
            f"spectrum of what was hidden\n({hidden} % of the tokens), mean of channels", fontsize=9
        )
    first = axes[0, 0]
    first.plot([], [], color=BLACK, linewidth=0.7, label="there")
    first.plot([], [], color=VERMILION, linewidth=1.5, label="predicted where it was hidden")
    figure.legend(*first.get_legend_handles_labels(), fontsize=8, loc="outside lower left", ncols=2)
    return figure


def write_reconstruction(
    *, backbone: Path, primary: Path, split: Path, file: Path, sequences: int, seed: int
) -> str:
    """Look at up to ``sequences`` sequences of each unseen participant and draw; a line on what was.

    Raises :class:`RemitError` when checkpoint, dataset and split do not belong together, or nobody is
    left whom pretraining has not seen.
    """
    loaded = Loaded(backbone, primary)
    people = unseen_of(loaded, split_of(loaded.dataset, split))
    without = "waveform" not in loaded.backbone.targets
    looks = [] if without else loaded.looks(people, sequences, seed)
    flags = ["SIMULATED DATA"] if loaded.dataset.metadata["simulated"] else []
    figure = draw_reconstruction(
        looks, model=str(loaded.backbone.name), flags=flags, without_waveform=without
    )
    save(figure, file)
    return f"{len(people)} participants that it has not seen, {len(looks)} sequences -> {file}"
