"""Spectra of the kept windows: by class and electrode, with the interval over participants.

A participant is the unit: the density of all kept windows of theirs is averaged first, and what is
drawn is the mean over participants of that in dB. One participant is held in memory at a time.

Shape suffixes: `W` windows, `C` channels, `S` samples, `F` frequencies, `B` bands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import signal, special

from remit.dataset.windows import WindowsFile
from remit.evaluation.features import BANDS_HZ, SEGMENT_SECONDS
from remit.recordings.channels import electrode_positions
from remit.report.drawing import BLACK, canvas, save
from remit.report.people import CLASSES, Cohort, Group

RESULT_VERSION = 3  # raise when a change here alters the picture

LOWEST_HZ = 1.0
COLUMNS = 5  # of panels, which is as many as there are bands
FEWEST_FOR_TOPOGRAPHY = 8  # electrodes
_MOST_PANELS = 32  # electrodes with one of their own; beyond, their mean is drawn
_BEYOND_LOWPASS = 1.4  # how far the frequencies go on above the low-pass
_MOST_DB = 60.0  # that a panel shows: what filters leave lies far below


@dataclass
class Running:
    """Mean and spread of arrays that come one by one (Welford 1962)."""

    n: Any = 0
    mean: Any = 0.0
    squares: Any = 0.0

    def update(self, values: np.ndarray) -> None:
        """Take in one more; what is not finite in it is not counted."""
        there = np.isfinite(values)
        self.n = self.n + there
        apart = np.where(there, values - self.mean, 0.0)
        self.mean = self.mean + apart / np.maximum(self.n, 1)
        self.squares = self.squares + apart * np.where(there, values - self.mean, 0.0)

    def known(self) -> np.ndarray:
        """The mean, NaN where nothing was counted."""
        mean: np.ndarray = np.where(self.n > 0, self.mean, np.nan)
        return mean

    def interval(self) -> np.ndarray:
        """Half the width of Student's 95 % interval of the mean; NaN for fewer than two."""
        free = np.maximum(self.n - 1, 1)
        half: np.ndarray = np.where(
            self.n > 1,
            special.stdtrit(free, 0.975) * np.sqrt(self.squares / free / np.maximum(self.n, 1)),
            np.nan,
        )
        return half


@dataclass
class OfClass:
    """What is known of the participants of one class."""

    density_CF: Running = field(default_factory=Running)
    """dB re 1 µV²/Hz"""
    power_CB: Running = field(default_factory=Running)
    """dB re 1 µV²"""
    participants: int = 0


class Spectra:
    """Welch's density of the windows that are not marked bad, by class, one row group at a time."""

    def __init__(self, dataset: WindowsFile) -> None:
        """Start with no window."""
        self._dataset = dataset
        self._rate = dataset.sampling_rate
        samples = int(dataset.metadata["window_samples"])
        self._segment = min(round(SEGMENT_SECONDS * self._rate), samples)
        every_F = np.fft.rfftfreq(self._segment, 1 / self._rate)
        filters = dataset.metadata["settings"].get("preprocessing", {})
        lowpass = (filters.get("lowpass") or {}).get("cutoff_hz")
        highest = min(self._rate / 2, _BEYOND_LOWPASS * (lowpass or self._rate))
        self._shown = (every_F >= LOWEST_HZ) & (every_F <= highest)
        self.hz_F = every_F[self._shown]
        self.bands = {
            name: (low, high)
            for name, (low, high) in BANDS_HZ.items()
            if high <= self._rate / 2 and ((every_F >= low) & (every_F < high)).any()
        }
        self._every_F = every_F
        self.of_class: dict[int | None, OfClass] = {}
        self._who: str | None = None
        self._windows = 0
        self._sum_CF = np.zeros((len(dataset.channels), len(every_F)))

    def update(self, table: Any) -> None:
        """Take in the rows of a row group; the file has each participant's together."""
        good_W = np.array(table.column("good").to_pylist(), dtype=bool)
        who_W = np.array(table.column("Participant").to_pylist())
        if not good_W.any():
            return
        who_W = who_W[good_W]
        samples = int(self._dataset.metadata["window_samples"])
        first_W = np.flatnonzero(np.append(True, who_W[1:] != who_W[:-1]))
        sums = []
        for channel in self._dataset.channels:
            values = np.array(table.column(channel).combine_chunks().flatten(), dtype=np.float64)
            _, density_WF = signal.welch(
                values.reshape(-1, samples)[good_W], self._rate, nperseg=self._segment
            )
            sums.append(np.add.reduceat(density_WF, first_W, axis=0))
        sum_PCF = np.stack(sums, axis=1)
        for row, (first, last) in enumerate(
            zip(first_W, np.append(first_W[1:], len(who_W)), strict=True)
        ):
            if who_W[first] != self._who:
                self._finish()
                self._who = str(who_W[first])
            self._windows += int(last - first)
            self._sum_CF += sum_PCF[row]

    def _finish(self) -> None:
        """Count the participant whose windows have all come."""
        if self._who is None:
            return
        found = self.of_class.setdefault(self._dataset.labels[self._who], OfClass())
        density_CF = self._sum_CF / self._windows
        bin_hz = self._rate / self._segment
        power_CB = np.stack(
            [
                density_CF[:, (self._every_F >= low) & (self._every_F < high)].sum(axis=1) * bin_hz
                for low, high in self.bands.values()
            ]
            or [np.empty(len(density_CF))],
            axis=1,
        )[:, : len(self.bands)]
        with np.errstate(divide="ignore"):  # of a flat electrode: minus infinity, not counted
            found.density_CF.update(10 * np.log10(density_CF[:, self._shown]))
            found.power_CB.update(10 * np.log10(power_CB))
        found.participants += 1
        self._who, self._windows = None, 0
        self._sum_CF[:] = 0

    def finish(self) -> None:
        """Count the last participant, after the last row group."""
        self._finish()


def passband(filters: Mapping[str, Any]) -> tuple[float | None, float | None, list[float], str]:
    """High-pass, low-pass and notches in Hz (None, or none, where there is none), and all in words."""
    low = (filters.get("highpass") or {}).get("cutoff_hz")
    high = (filters.get("lowpass") or {}).get("cutoff_hz")
    notch = (filters.get("notch") or {}).get("frequencies_hz")
    words = [
        "no high-pass" if low is None else f"high-pass {low:g} Hz",
        "no low-pass" if high is None else f"low-pass {high:g} Hz",
        "no notch"
        if notch is None
        else "notch at each recording's mains"
        if notch == "mains"
        else f"notch at {', '.join(f'{hz:g}' for hz in notch)} Hz",
    ]
    return low, high, list(notch) if isinstance(notch, list) else [], ", ".join(words)


def _mark(axis: Any, bands: Mapping[str, tuple[float, float]], filters: Mapping[str, Any]) -> None:
    low, high, notches, _ = passband(filters)
    for edge in sorted({edge for band in bands.values() for edge in band}):
        axis.axvline(edge, color="0.85", linewidth=0.8, zorder=0)
    left, right = axis.get_xlim()
    if high is not None and high < right:
        axis.axvspan(high, right, color="0.93", zorder=0)
        axis.axvline(high, color=BLACK, linewidth=0.8, linestyle=(0, (1, 1)))
    if low is not None and low > left:
        axis.axvspan(left, low, color="0.93", zorder=0)
        axis.axvline(low, color=BLACK, linewidth=0.8, linestyle=(0, (1, 1)))
    for hz in notches:
        axis.axvline(hz, color=BLACK, linewidth=0.6, linestyle=(0, (4, 4)))
    axis.set_xlim(left, right)


def _draw_density(
    axis: Any, hz_F: np.ndarray, groups: Sequence[tuple[Group, OfClass]], channel: int | None
) -> None:
    """One electrode, or the mean over all: each class's mean with its interval."""
    for group, found in groups:
        mean_CF, half_CF = found.density_CF.mean, found.density_CF.interval()
        if channel is None:
            mean_F, half_F = mean_CF.mean(axis=0), np.full(len(hz_F), np.nan)
        else:
            mean_F, half_F = mean_CF[channel], half_CF[channel]
        mean_F = np.where(
            found.density_CF.n[channel if channel is not None else 0] > 0, mean_F, np.nan
        )
        axis.plot(hz_F, mean_F, group.line, color=group.color, linewidth=1.3, label=group.name)
        axis.fill_between(
            hz_F, mean_F - half_F, mean_F + half_F, color=group.color, alpha=0.2, linewidth=0
        )
    axis.tick_params(labelsize=7)


def _info(channels: Sequence[str]) -> Any:
    """MNE's description of these electrodes, at their places of the standard montage."""
    import mne

    info = mne.create_info(list(channels), 1.0, "eeg", verbose="error")
    places = dict(zip(channels, electrode_positions(channels), strict=True))
    return info.set_montage(
        mne.channels.make_dig_montage(places, coord_frame="head"), verbose="error"
    )


def _sphere() -> tuple[float, float, float, float]:
    """Centre and radius in metres of the circle of the 10-20 system, on which Fpz, Oz, T7 and T8 lie."""
    place = electrode_positions(["Fpz", "Oz", "T7", "T8"])
    x, z = place[:, [0, 2]].mean(axis=0)
    front, back = place[:2, 1]
    return float(x), float(front + back) / 2, float(z), float(front - back) / 2


def _draw_topography(
    axis: Any, info: Any, values_C: np.ndarray, limits: tuple[float, float]
) -> Any:
    import mne

    there_C = np.isfinite(values_C)
    image, _ = mne.viz.plot_topomap(
        values_C[there_C],
        mne.pick_info(info, np.flatnonzero(there_C)),
        axes=axis,
        show=False,
        cmap="cividis",
        vlim=limits,
        contours=4,
        sphere=_sphere(),
    )
    return image


def _draw_bars(
    axis: Any, channels: Sequence[str], groups: Sequence[tuple[Group, OfClass]], band: int
) -> None:
    """Power in a band at each electrode: the mean over participants with its interval."""
    for place, (group, found) in enumerate(groups):
        at = np.arange(len(channels)) + 0.22 * (place - (len(groups) - 1) / 2)
        half_C = found.power_CB.interval()[:, band]
        axis.errorbar(
            at,
            found.power_CB.known()[:, band],  # nothing of what is flat in everybody
            yerr=np.nan_to_num(half_C),
            fmt=group.marker,
            color=group.color,
            markerfacecolor="white",
            markersize=5,
            capsize=2,
            label=group.name,
        )
    axis.set_xticks(range(len(channels)), channels, fontsize=7, rotation=90)
    axis.set_xlim(-0.5, len(channels) - 0.5)
    axis.tick_params(axis="y", labelsize=7)


def draw_spectra(cohort: Cohort, found: Spectra, file: Path) -> None:
    """Density by class and electrode, and power in the bands: topographies where there are enough
    electrodes, else the electrodes' places and their values.
    """
    found.finish()
    channels = cohort.dataset.channels
    groups = [
        (group, found.of_class[group.label]) for group in CLASSES if group.label in found.of_class
    ]
    filters = cohort.dataset.metadata["settings"].get("preprocessing", {})
    counts = ", ".join(f"{group.name} n = {own.participants}" for group, own in groups)
    title = (
        f"{cohort.title('Spectra of the kept windows')}\n{counts or 'no window was kept'}: mean over "
        "participants of 10 log10 of each one's mean density, shaded: Student's 95 % interval, for two "
        "or more\n"
        f"grey lines: edges of the bands; grey ground: beyond the filters (-6 dB at the edge): "
        f"{passband(filters)[3]}"
    )
    own = len(channels) <= _MOST_PANELS
    several = len(channels) >= FEWEST_FOR_TOPOGRAPHY
    panels = len(channels) if own else 1
    if not own:
        title += f"\n{len(channels)} electrodes: their mean, without an interval"
    above = -(-(panels + (not several)) // COLUMNS)
    below = (len(groups) if several else 1) if groups and found.bands else 0
    figure, axes = canvas(
        above + below,
        COLUMNS,
        (14, 2.1 * above + 2.3 * below + 1.1),
        title=title,
        flags=cohort.flags,
    )
    top = max((float(np.nanmax(own.density_CF.mean)) for _, own in groups), default=0.0)
    low = min((float(np.nanmin(own.density_CF.mean)) for _, own in groups), default=0.0)
    for panel, axis in enumerate(axes[:above].ravel()):
        if panel >= panels or not groups:
            axis.axis("off")
            continue
        _draw_density(axis, found.hz_F, groups, panel if own else None)
        axis.set_title(
            channels[panel] if own else f"mean of {len(channels)} electrodes", fontsize=9
        )
        axis.set_xlim(LOWEST_HZ, found.hz_F[-1])
        axis.set_ylim(max(low, top - _MOST_DB) - 3, top + 5)
        _mark(axis, found.bands, filters)
        if panel % COLUMNS == 0:
            axis.set_ylabel("dB re 1 µV²/Hz", fontsize=8)
        if panel >= panels - COLUMNS:
            axis.set_xlabel("Hz", fontsize=8)
    if groups:
        axes[0, 0].legend(fontsize=7, frameon=False)
    if not several:
        _draw_places(axes[above - 1, -1], channels)
    for column, (band, (low, high)) in enumerate(found.bands.items() if below else ()):
        what = f"{band}, {low:g}-{high:g} Hz"
        if several:
            values = [own.power_CB.known()[:, column] for _, own in groups]
            limits = float(np.nanmin(values)), float(np.nanmax(values))
            for row, (group, _) in enumerate(groups):
                axis = axes[above + row, column]
                image = _draw_topography(axis, _info(channels), values[row], limits)
                axis.set_title(f"{what}: {group.name}", fontsize=8)
            bar = figure.colorbar(image, ax=list(axes[above:, column]), shrink=0.8)
            bar.ax.tick_params(labelsize=7)
            bar.set_label("dB re 1 µV²", fontsize=7)
        else:
            axis = axes[above, column]
            _draw_bars(axis, channels, groups, column)
            axis.set_title(what, fontsize=8)
            if not column:
                axis.set_ylabel("power, dB re 1 µV²", fontsize=8)
                axis.legend(fontsize=7, frameon=False)
    for axis in axes[above:, len(found.bands) :].ravel():
        axis.remove()
    save(figure, file)


def _draw_places(axis: Any, channels: Sequence[str]) -> None:
    """Where the electrodes are on the head, seen from above, the nose at the top."""
    import mne

    axis.axis("on")
    mne.viz.plot_sensors(
        _info(channels),
        kind="topomap",
        show_names=True,
        axes=axis,
        show=False,
        sphere=_sphere(),
    )
    for name in axis.texts:  # MNE puts them upon the marks and the head's outline
        x, y = name.get_position()
        side = int(np.sign(np.round(x, 2)))
        name.set(fontsize=8, ha=("right", "center", "left")[side + 1], va="center")
        name.set_position((x - 0.003 + 0.009 * side, y + 0.012 * (not side)))
    axis.set_title("places of the electrodes", fontsize=9)
