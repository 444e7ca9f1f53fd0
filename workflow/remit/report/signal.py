"""One recording before and after each step of the signal chain: ten seconds, and its spectrum.

Every state is made by the chain itself, asked for one step more each time; the last one is the windows
that it makes.

Shape suffixes: `C` channels, `S` samples, `F` frequencies, `W` windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import signal

from remit.config import Preprocessing
from remit.preprocessing.chain import Windows, conditioned, preprocess
from remit.recordings.recording import Recording
from remit.report.drawing import BLACK, BLUE, canvas, save

RESULT_VERSION = 2  # raise when a change here alters the picture

SECONDS = 10.0
SEGMENT_SECONDS = 4.0  # of Welch's spectrum
MOST_CHANNELS = 32  # that are drawn
_BEFORE = "0.72"
_DB_BELOW = 25.0  # what a panel shows below the lowest of the raw signal


@dataclass(frozen=True)
class State:
    """A recording after a step: what is drawn of it."""

    step: str
    rate: float
    """Hz"""
    signal_CS: np.ndarray
    """float64 µV, of the seconds that are shown; NaN where no window is"""
    hz_F: np.ndarray
    density_CF: np.ndarray
    """µV²/Hz, of the whole contiguous stretch"""
    edges_hz: tuple[float, ...] = ()
    """Of the step's filter"""


def steps_of(
    settings: Preprocessing, source_rate: float
) -> list[tuple[str, Preprocessing, tuple[float, ...]]]:
    """The chain step by step: in words, with the settings that reach so far, and a filter's edges in Hz.

    The first is the recording as it was read; a step that the settings leave out is not there. The last
    step, the offset of windows, is the whole chain and not among them.
    """
    bare: dict[str, Any] = {
        "reference": None,
        "upsample": None,
        "highpass": None,
        "notch": None,
        "lowpass": None,
        "sampling_rate": source_rate,
    }
    found: list[tuple[str, Preprocessing, tuple[float, ...]]] = []

    def reach(step: str, *edges_hz: float, **own: Any) -> None:
        bare.update(own)
        found.append((step, settings.model_copy(update=bare), edges_hz))

    reach(f"as read, {source_rate:g} Hz")
    if settings.reference is not None:
        named = settings.reference
        text = named if isinstance(named, str) else ", ".join(named)
        reach(f"re-referenced: {text.replace('_', ' ')}", reference=named)
    if settings.upsample is not None:
        rate = source_rate * settings.upsample.factor
        reach(f"raised to {rate:g} Hz", upsample=settings.upsample, sampling_rate=rate)
    if settings.highpass is not None:
        cutoff = settings.highpass.cutoff_hz
        reach(f"high-pass {cutoff:g} Hz", cutoff, highpass=settings.highpass)
    if settings.notch is not None:
        at = settings.notch.frequencies_hz
        listed = () if at == "mains" else tuple(float(hz) for hz in at)
        text = "the mains" if at == "mains" else f"{', '.join(f'{hz:g}' for hz in listed)} Hz"
        reach(f"notch at {text}", *listed, notch=settings.notch)
    if settings.lowpass is not None:
        cutoff = settings.lowpass.cutoff_hz
        reach(f"low-pass {cutoff:g} Hz", cutoff, lowpass=settings.lowpass)
    if bare["sampling_rate"] != settings.sampling_rate:
        reach(f"brought to {settings.sampling_rate:g} Hz", sampling_rate=settings.sampling_rate)
    return found


def chosen_window(windows: Windows) -> int:
    """The first window that is not marked bad; the first one where all are."""
    return int(np.argmax(windows.good))


def _density(rows_XS: np.ndarray, rate: float) -> tuple[np.ndarray, np.ndarray]:
    size = min(round(SEGMENT_SECONDS * rate), rows_XS.shape[-1])
    hz_F, density_XF = signal.welch(rows_XS, rate, nperseg=size)
    return hz_F, density_XF


def states(
    recording: Recording, settings: Preprocessing, windows: Windows, channels: Sequence[str]
) -> Iterator[State]:
    """The recording before the first step and after each, one at a time.

    Args:
        recording: as it was read.
        settings: of the chain.
        windows: what the chain makes of it.
        channels: those that are drawn.
    """
    first = chosen_window(windows)
    stretch = int(windows.parent_window_id[first])
    of_stretch_W = np.flatnonzero(windows.parent_window_id == stretch)
    begin = windows.window_start[of_stretch_W[0]]
    onset = float(windows.window_start[first] - begin) / windows.sampling_rate
    seconds = SECONDS
    for step, own, edges_hz in steps_of(settings, float(recording.sampling_rate)):
        rate = float(own.sampling_rate)
        span = slice(round(onset * rate), round((onset + SECONDS) * rate))
        shown, density = [], []
        hz_F = np.empty(0)
        for signal_S in conditioned(recording, own, channels, stretch):
            shown.append(signal_S[span].copy())
            hz_F, density_F = _density(signal_S, rate)
            density.append(density_F)
        seconds = min(seconds, len(shown[0]) / rate)
        yield State(step, rate, np.stack(shown), hz_F, np.stack(density), edges_hz)
    if settings.offset is None:
        return
    rate = windows.sampling_rate
    rows = [windows.channels.index(name) for name in channels]
    out_CS = np.full((len(rows), round(seconds * rate)), np.nan)
    for window in of_stretch_W[of_stretch_W >= first]:
        place = int(windows.window_start[window] - windows.window_start[first])
        if place < out_CS.shape[1]:
            part_CS = windows.signal_WCS[window][rows, : out_CS.shape[1] - place]
            out_CS[:, place : place + part_CS.shape[1]] = part_CS
    density_CF = []
    for row in rows:
        hz_F, density_WF = _density(windows.signal_WCS[of_stretch_W, row].astype(np.float64), rate)
        density_CF.append(density_WF.mean(axis=0))
    step = f"cut into windows, each without its {settings.offset}"
    yield State(step, rate, out_CS, hz_F, np.stack(density_CF))


def draw_signal(
    recording: Recording, settings: Preprocessing, channels: Sequence[str], file: Path
) -> str:
    """Draw one recording after each step of the chain, and say in a line what is drawn.

    ``channels`` are those of the dataset. Raises what the chain raises.
    """
    windows = preprocess(recording, settings, channels)
    drawn = [windows.channels[n] for n in _evenly(len(windows.channels))]
    found = list(states(recording, settings, windows, drawn))
    first = chosen_window(windows)
    start = float(windows.window_start[first]) / windows.sampling_rate
    seconds = found[0].signal_CS.shape[1] / found[0].rate
    stretch = windows.parent_window_id == windows.parent_window_id[first]
    what = (
        f"recording {recording.recording} of participant {recording.participant}: {seconds:.3g} s from "
        f"{start:g} s on"
    )
    if not windows.good.any():
        what += f", all windows are marked bad ({windows.bad_because[first]})"
    cut = " (windows as the source cut them)" if recording.prewindowed else ""
    title = (
        f"Before and after each step of the signal chain\n{what}\nblue: after the step, grey: before it; "
        f"numbers: mean in µV; spectra of the whole stretch of {stretch.sum()} windows{cut}\n"
        + " ".join(windows.notes)
    )
    if len(drawn) < len(windows.channels):
        title += f"\n{len(drawn)} of {len(windows.channels)} electrodes, evenly chosen"
    height = 0.55 + max(1.4, (0.35 if len(drawn) <= 8 else 0.2) * len(drawn))
    figure, axes = canvas(
        len(found),
        2,
        (14, height * len(found) + 1.1),
        title=title.rstrip("\n"),
        flags=["SIMULATED DATA"] if recording.simulated else [],
        width_ratios=[3, 1],
    )
    for row, state in enumerate(found):
        before = found[row - 1] if row else None
        _draw_traces(axes[row, 0], state, before, drawn, start)
        _draw_spectra(axes[row, 1], state, before, found[0], recording.sampling_rate / 2)
        axes[row, 0].set_title(f"{row}. {state.step}", fontsize=9, loc="left")
    axes[-1, 0].set_xlabel("seconds from the recording's start", fontsize=8)
    axes[-1, 1].set_xlabel("Hz", fontsize=8)
    axes[0, 1].set_title(
        "each electrode (thin), their mean (thick);\ndotted: edge of the filter (-6 dB)", fontsize=8
    )
    save(figure, file)
    return what


def _evenly(channels: int) -> list[int]:
    """Which electrodes are drawn: all, or so many evenly chosen."""
    most = min(channels, MOST_CHANNELS)
    return [int(n) for n in np.linspace(0, channels - 1, most).round()]


def _draw_traces(
    axis: Any, state: State, before: State | None, channels: Sequence[str], start: float
) -> None:
    """One electrode under the other, each around its own mean, which is written beside its name."""
    spread_C = np.nanpercentile(state.signal_CS, 99, axis=1) - np.nanpercentile(
        state.signal_CS, 1, axis=1
    )
    apart = max(float(np.median(spread_C)), 1e-3) * 1.3
    for row in range(len(channels)):
        for own, color, width in ((before, _BEFORE, 1.6), (state, BLUE, 0.7)):
            if own is not None:
                time_S = start + np.arange(own.signal_CS.shape[1]) / own.rate
                own_S = own.signal_CS[row]
                axis.plot(
                    time_S, own_S - np.nanmean(own_S) - row * apart, color=color, linewidth=width
                )
    names = [
        f"{name}  {np.nanmean(signal_S):+.1f}"
        for name, signal_S in zip(channels, state.signal_CS, strict=True)
    ]
    axis.set_yticks(-apart * np.arange(len(channels)), names, fontsize=7)
    top, bottom = (state.signal_CS[n] - np.nanmean(state.signal_CS[n]) for n in (0, -1))
    axis.set_ylim(
        -(len(channels) - 1) * apart - min(max(0.7 * apart, -1.1 * np.nanmin(bottom)), 3 * apart),
        min(max(0.7 * apart, 1.1 * np.nanmax(top)), 3 * apart),
    )
    axis.margins(x=0)
    # A bar of a round number of microvolts, about as long as electrodes are apart.
    bar = float(f"{apart:.0e}")
    left, right = axis.get_xlim()
    axis.set_xlim(left, right + 0.06 * (right - left))
    x = right + 0.01 * (right - left)
    axis.plot([x, x], [-bar / 2, bar / 2], color=BLACK, linewidth=2, solid_capstyle="butt")
    # Beside it, where no trace may run through the words.
    axis.text(x, 0, f" {bar:g} µV", fontsize=7, ha="left", va="center")
    axis.tick_params(axis="x", labelsize=7)


def _draw_spectra(
    axis: Any, state: State, before: State | None, raw: State, nyquist: float
) -> None:
    tiny = np.finfo(float).tiny
    shown: list[tuple[State, str]] = [(state, BLUE)]
    if before is not None:
        shown.insert(0, (before, _BEFORE))
    for own, color in shown:
        level_CF = 10 * np.log10(np.maximum(own.density_CF[:, 1:], tiny))
        if len(level_CF) > 1:
            axis.plot(own.hz_F[1:], level_CF.T, color=color, linewidth=0.4, alpha=0.5)
        axis.plot(own.hz_F[1:], level_CF.mean(axis=0), color=color, linewidth=1.8)
    for hz in state.edges_hz:
        axis.axvline(hz, color=BLACK, linewidth=0.9, linestyle=(0, (1, 1)))
    level_CF = 10 * np.log10(np.maximum(raw.density_CF[:, 1:], tiny))
    axis.set_ylim(np.percentile(level_CF, 1) - _DB_BELOW, level_CF.max() + 5)
    axis.set_xscale("log")
    axis.set_xlim(raw.hz_F[1], nyquist)
    ticks = [hz for hz in (0.5, 1, 2, 4, 8, 13, 30, 60, 100, 200) if raw.hz_F[1] <= hz <= nyquist]
    axis.set_xticks(ticks, [f"{hz:g}" for hz in ticks], fontsize=7)
    axis.minorticks_off()
    axis.tick_params(axis="y", labelsize=7)
    axis.set_ylabel("dB re 1 µV²/Hz", fontsize=7)
