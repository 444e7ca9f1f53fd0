"""How good the recordings are, as a map: by participant and electrode, by reason, and over time.

Electrodes are held against the signal chain's own thresholds; windows are marked there, not here.

Shape suffixes: `W` windows, `P` participants, `C` channels, `R` reasons, `T` stretches of time, `X`
columns of a panel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from remit.config import Quality
from remit.dataset.windows import WindowsFile
from remit.preprocessing.chain import CHANNEL_QUALITY, beyond_thresholds
from remit.report.drawing import canvas, save
from remit.report.people import Cohort, bad_because, counted

RESULT_VERSION = 2  # raise when a change here alters the picture

_MOST_ROWS = 60  # of the map; more people are joined
_MOST_NAMED_ROWS = 40
_MOST_STRETCHES = 60  # of time


@dataclass(frozen=True)
class QualityMap:
    """Parts of windows that are marked, between 0 and 1; NaN where there is no window."""

    participants: list[str]
    windows_P: np.ndarray
    bad_P: np.ndarray
    """Windows marked bad"""
    channel_PC: np.ndarray
    """With this electrode beyond a threshold, or called bad by the source"""
    reasons: list[str]
    reason_PR: np.ndarray
    minute_T1: np.ndarray
    """Edges of the stretches of time, in minutes from a recording's start"""
    time_PT: np.ndarray
    """Marked bad in a stretch of time, over all recordings of a participant"""


class QualityCount:
    """Counts the electrodes that are beyond a threshold, one row group at a time."""

    def __init__(self, dataset: WindowsFile) -> None:
        """Start with nothing counted."""
        settings = dataset.metadata["settings"].get("preprocessing", {}).get("quality", {})
        self._settings = Quality.model_validate(settings)
        self._dataset = dataset
        self._index = {name: row for row, name in enumerate(dataset.participants)}
        self._marked_PC = np.zeros((len(self._index), len(dataset.channels)))
        sources = dataset.metadata["sources"]
        self._called_bad = {
            name: np.isin(dataset.channels, source["bad_channels"])
            & (not self._settings.use_bad_channels)
            for name, source in sources.items()
        }

    def update(self, table: Any) -> None:
        """Take in the rows of a row group."""
        shape = table.num_rows, len(self._dataset.channels)
        figures = {
            name: np.array(table.column(name).combine_chunks().flatten()).reshape(shape)
            for name in CHANNEL_QUALITY
        }
        marked_WC = np.zeros(shape, dtype=bool)
        for bad_WC in beyond_thresholds(figures, self._settings).values():
            marked_WC |= bad_WC
        recordings = table.column("recording").to_pylist()
        marked_WC |= np.array([self._called_bad[name] for name in recordings])
        row_W = [self._index[name] for name in table.column("Participant").to_pylist()]
        np.add.at(self._marked_PC, row_W, marked_WC)

    def found(self) -> QualityMap:
        """The map, after the last row group."""
        dataset, frame = self._dataset, self._dataset.frame()
        row_W = frame["Participant"].map(self._index).to_numpy()
        num = len(self._index)
        bad_W = ~frame["good"].to_numpy()
        windows_P = np.bincount(row_W, minlength=num)
        texts = frame["bad_because"].to_numpy()
        reasons = sorted(bad_because(dataset))
        reason_PR = np.zeros((num, len(reasons)))
        for column, word in enumerate(reasons):
            marked_W = np.array([word in text.split(", ") for text in texts])
            reason_PR[:, column] = np.bincount(row_W[marked_W], minlength=num)
        middle_W = (frame["window_start"] + frame["window_end"]).to_numpy() / 2
        minute_W = middle_W / dataset.sampling_rate / 60
        longest = float(frame["window_end"].max()) / dataset.sampling_rate / 60
        own = dataset.metadata["window_samples"] / dataset.sampling_rate / 60
        stretches = max(1, min(_MOST_STRETCHES, int(longest / own)))
        minute_T1 = np.linspace(0, longest, stretches + 1)
        column_W = np.minimum((minute_W / longest * stretches).astype(int), stretches - 1)
        there_PT, bad_PT = np.zeros((2, num, stretches))
        np.add.at(there_PT, (row_W, column_W), 1)
        np.add.at(bad_PT, (row_W, column_W), bad_W)
        with np.errstate(invalid="ignore"):
            return QualityMap(
                dataset.participants,
                windows_P,
                np.bincount(row_W[bad_W], minlength=num),
                self._marked_PC / windows_P[:, None],
                reasons,
                reason_PR / windows_P[:, None],
                minute_T1,
                bad_PT / there_PT,
            )


def _joined(order_P: np.ndarray, values_PX: np.ndarray, rows: int) -> np.ndarray:
    """The mean over the people of each row, [R, X]; NaN where nobody has a value."""
    chosen = [values_PX[part] for part in np.array_split(order_P, rows)]
    there = [~np.isnan(part) for part in chosen]
    with np.errstate(invalid="ignore"):
        return np.stack(
            [
                np.where(is_there, part, 0).sum(axis=0) / is_there.sum(axis=0)
                for part, is_there in zip(chosen, there, strict=True)
            ]
        )


def _say(axis: Any, text: str) -> None:
    axis.text(0.5, 0.5, text, ha="center", va="center", fontsize=7, transform=axis.transAxes)


def draw_quality(cohort: Cohort, found: QualityMap, file: Path) -> None:
    """Which windows are marked: by participant and electrode, reason, and time in the recording."""
    import matplotlib as mpl

    num, channels = len(found.participants), cohort.dataset.channels
    rows = min(num, _MOST_ROWS)
    order_P, names = np.arange(num), list(found.participants)
    total, bad = int(found.windows_P.sum()), int(found.bad_P.sum())
    title = (
        f"Quality of the recordings: cohort {cohort.name}\n{bad} of {total} windows marked bad, "
        f"{counted(num, 'participant')}, {counted(len(channels), 'electrode')}"
    )
    if num > rows:
        order_P = np.lexsort((order_P, found.bad_P / found.windows_P))
        least, rest = divmod(num, rows)
        title += (
            f"\n{num} people in order of their share of bad windows; a row is the mean over {least}"
            + f" or {least + 1}" * bool(rest)
        )
    widths = [max(1.2, 0.22 * len(channels)), max(1.0, 0.5 * (1 + len(found.reasons))), 5.0]
    figure, ((by_channel, by_reason, by_time),) = canvas(
        1,
        3,
        (sum(widths) + 3.4, max(3.2, 0.17 * rows + 2.2)),
        title=title,
        flags=cohort.flags,
        width_ratios=widths,
        sharey=True,
    )
    shade = mpl.colormaps["Blues"].with_extremes(bad=(1, 1, 1, 0))
    any_P1 = (found.bad_P / found.windows_P)[:, None]
    panels: list[tuple[Any, np.ndarray, Sequence[float], str]] = [
        (by_channel, found.channel_PC, (-0.5, len(channels) - 0.5), "this electrode"),
        (
            by_reason,
            np.concatenate([any_P1, found.reason_PR], axis=1),
            (-0.5, len(found.reasons) + 0.5),
            "reason",
        ),
        (by_time, found.time_PT, (0, found.minute_T1[-1]), "time in the recording"),
    ]
    for axis, values_PX, (left, right), what in panels:
        if not np.nansum(values_PX):  # else a frame without a mark looks as if nothing were known
            none = "electrode beyond\na threshold" if axis is by_channel else "bad window"
            _say(axis, f"no {none}\n(n={total} windows)")
        image = axis.imshow(
            _joined(order_P, values_PX, rows),
            aspect="auto",
            interpolation="nearest",
            cmap=shade,
            vmin=0,
            vmax=1,
            extent=(left, right, rows - 0.5, -0.5),
        )
        axis.set_title(what, fontsize=9)
        axis.patch.set(facecolor="white", edgecolor="0.6", hatch="xx")  # seen where nothing is
    by_channel.set_xticks(range(len(channels)), channels, rotation=90, fontsize=7)
    shown = ["any", *found.reasons]
    by_reason.set_xticks(range(len(shown)), shown, rotation=90, fontsize=7)
    several = len(cohort.dataset.metadata["sources"]) > num
    by_time.set_xlabel(
        "minutes from the recording's start; hatched: no window"
        + "; mean over a participant's recordings" * several,
        fontsize=8,
    )
    if rows == num and rows <= _MOST_NAMED_ROWS:
        shown = [f"{name} ({count})" for name, count in zip(names, found.windows_P, strict=True)]
        by_channel.set_yticks(range(rows), shown, fontsize=6)
        by_channel.set_ylabel("participant (windows)", fontsize=8)
    else:
        by_channel.set_yticks([])
        by_channel.set_ylabel(f"{num} participants", fontsize=8)
    bar = figure.colorbar(image, ax=[by_channel, by_reason, by_time], fraction=0.03, pad=0.01)
    bar.set_label("part of the windows that is marked", fontsize=8)
    save(figure, file)
