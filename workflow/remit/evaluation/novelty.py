"""Whether a recording lies outside what a model has seen: how large its signal is, and its spectrum.

Of each recording and electrode the amplitude and the power in the bands of `features` are compared
with those of the recordings that the head was fitted on. No label is read. A model gives a
probability for anything, for noise or for a recording in the wrong unit too; this says when not to
believe it.

Shapes: R recordings, W windows, C channels, S samples, G figures (the amplitude, then the bands).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from remit.config import Sequences
from remit.dataset.windows import WindowsFile
from remit.evaluation.features import FeatureSet

# A figure is outside when its robust z lies beyond this and no recording that the head was fitted on had
# as much, or as little. With each person left out in turn, 5 of 53 real recordings have such a figure; at
# 3.5, usual for a single figure, 15 would, for there are dozens of figures.
THRESHOLD_Z = 5.0
# Of log10 figures: 26 % of a power, 12 % of an amplitude. A smaller spread among a few recordings is chance.
LEAST_SPREAD = 0.1
AMPLITUDE = "amplitude"
_IQR_PER_SD = 1.349  # of a normal distribution
_MAD_PER_SD = 0.6745
_SHOWN = 3  # figures named in a warning; the others are counted


def figure_names(found: FeatureSet) -> list[str]:
    """G names, in the order of :func:`measure`."""
    return [AMPLITUDE, *found.bands]


def measure(
    dataset: WindowsFile, participants: Sequence[str], sequences: Sequences
) -> dict[str, np.ndarray]:
    """By recording the figures, log10, float64 [G, C]; reads one recording at a time.

    The amplitude is the robust standard deviation of the samples in µV (interquartile range / 1.349),
    a band's power the median over windows, µV². Over the windows that the model uses, or over all of a
    recording where it can use none. NaN where an electrode has no signal.
    """
    found = FeatureSet(dataset.channels, dataset.sampling_rate, dataset.metadata["window_samples"])
    frame = dataset.frame()
    chosen = frame[frame["Participant"].isin(list(participants))]
    figures = {}
    for recording, its in chosen.groupby("recording", sort=True):
        used = its if sequences.use_bad_windows or not its["good"].any() else its[its["good"]]
        signal_WCS = np.empty(
            (len(used), len(dataset.channels), dataset.metadata["window_samples"]), np.float32
        )
        dataset.read_into(signal_WCS, used.index.to_numpy())
        low_C, high_C = np.quantile(signal_WCS.astype(np.float64), (0.25, 0.75), axis=(0, 2))
        with np.errstate(divide="ignore", invalid="ignore"):  # of no signal: NaN, below
            amplitude_C = np.log10((high_C - low_C) / _IQR_PER_SD)
            power_WBC = np.log10(found.power(signal_WCS))
        figure_GC = np.vstack([amplitude_C, np.median(power_WBC, axis=0)])
        figure_GC[~np.isfinite(figure_GC)] = np.nan
        figures[str(recording)] = figure_GC
    return figures


def reference_of(
    dataset: WindowsFile, participants: Sequence[str], sequences: Sequences
) -> dict[str, Any]:
    """What the recordings of some participants span, as plain values for :func:`compare`."""
    found = FeatureSet(dataset.channels, dataset.sampling_rate, dataset.metadata["window_samples"])
    figure_RGC = np.stack(list(measure(dataset, participants, sequences).values()))
    # An electrode without signal in all of them spans nothing, and nothing is outside of it.
    known_GC = np.isfinite(figure_RGC).any(axis=0)
    figure_RGC = np.where(known_GC, figure_RGC, 0.0)
    median_GC = np.nanmedian(figure_RGC, axis=0)
    deviation_GC = np.nanmedian(np.abs(figure_RGC - median_GC), axis=0) / _MAD_PER_SD
    spans = {
        "known": known_GC,
        "median": median_GC,
        "spread": np.maximum(deviation_GC, LEAST_SPREAD),
        "low": np.nanmin(figure_RGC, axis=0),
        "high": np.nanmax(figure_RGC, axis=0),
    }
    return {
        "recordings": len(figure_RGC),
        "channels": dataset.channels,
        "figures": figure_names(found),
        "threshold_z": THRESHOLD_Z,
        **{key: values.tolist() for key, values in spans.items()},
    }


@dataclass(frozen=True)
class Novelty:
    """How far a recording's figures lie from the reference; made by :func:`compare`."""

    z_GC: np.ndarray
    """Robust z; NaN where there is nothing to compare"""
    outside_GC: np.ndarray
    warnings: tuple[str, ...]

    @property
    def largest(self) -> float:
        """The largest absolute z; infinite for an electrode without signal."""
        return float(np.nanmax(np.abs(self.z_GC), initial=0.0))


def compare(reference: Mapping[str, Any], figure_GC: np.ndarray) -> Novelty:
    """The robust z of each figure, and in words what is outside; amplitude and spectrum apart."""
    median_GC, spread_GC, low_GC, high_GC = (
        np.array(reference[key]) for key in ("median", "spread", "low", "high")
    )
    known_GC = np.array(reference["known"])
    silent_GC = np.isnan(figure_GC) & known_GC
    z_GC = np.where(known_GC, (figure_GC - median_GC) / spread_GC, np.nan)
    z_GC[silent_GC] = -np.inf
    beyond_GC = (figure_GC < low_GC) | (figure_GC > high_GC)
    outside_GC = known_GC & (silent_GC | (beyond_GC & (np.abs(z_GC) > reference["threshold_z"])))
    parts = (("amplitude", slice(0, 1), "µV"), ("spectrum", slice(1, None), "µV²"))
    warnings = []
    for what, rows, unit in parts:
        there_GC = np.zeros_like(outside_GC)
        there_GC[rows] = outside_GC[rows]
        if not there_GC.any():
            continue
        worst = sorted(zip(*np.nonzero(there_GC), strict=True), key=lambda at: -abs(z_GC[at]))
        shown = []
        for g, c in worst[:_SHOWN]:
            name = reference["figures"][g]
            value = "nothing" if silent_GC[g, c] else f"{10 ** figure_GC[g, c]:.3g}"
            shown.append(
                f"{name} at {reference['channels'][c]} {value} ({10 ** low_GC[g, c]:.3g} to "
                f"{10 ** high_GC[g, c]:.3g} {unit}, z {z_GC[g, c]:+.1f})"
            )
        more = f" and {len(worst) - _SHOWN} more" if len(worst) > _SHOWN else ""
        warnings.append(
            f"{what} outside what the {reference['recordings']} training recordings span: "
            f"{'; '.join(shown)}{more}"
        )
    return Novelty(z_GC, outside_GC, tuple(warnings))
