"""The features of a window that EEG research has always computed, as a file beside the dataset.

For each electrode: power in the bands, absolute and relative, spectral edge, Hjorth's parameters and
three entropies; for pairs of electrodes: the asymmetry of their log band power, left against right,
and coherence. One row per window, bad windows too (``good`` tells them), and no label. A window's
values depend on that window alone. Knows windows, and nobody's label.

Shapes: W windows, C channels, S samples, F frequencies, B bands, L left-right pairs, Q pairs of
coherence, X features.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import signal

import remit
from remit import progress
from remit.dataset.windows import (
    INDEX_FIELDS,
    METADATA_KEY,
    WindowsFile,
    encode_metadata,
    open_dataset,
)
from remit.errors import RemitError, some_of
from remit.files import atomic_write

if TYPE_CHECKING:
    import pandas as pd

# Raise when a change of the code alters a feature.
RESULT_VERSION = 1

BANDS_HZ = {
    "delta": (1.0, 4.0),
    "theta": (4.0, 8.0),
    "alpha": (8.0, 13.0),
    "beta": (13.0, 30.0),
    "gamma": (30.0, 45.0),
}
SEGMENT_SECONDS = (
    2.0  # of Welch's spectrum: 0.5 Hz apart, two bins and more below every band's edge
)
EDGE_PART = 0.95  # of the power lies below the spectral edge
# Coherence of one segment is 1 whatever the signal, of three still 1/2 for noise on average.
FEWEST_SEGMENTS = 4
ALL_PAIRS_UP_TO = 8  # electrodes; beyond, coherence is that of the left-right pairs only
# Richman & Moorman (2000), doi:10.1152/ajpheart.2000.278.6.H2039: templates of two
# samples, within 0.2 SD.
TOLERANCE_SD = 0.2
ROWS_AT_ONCE = 32  # of sample entropy: they stay in the processor's cache
WINDOWS_AT_ONCE = 64  # transformed at a time; bounds memory, and changes no bit

KEY_FIELDS = (*(field for field in INDEX_FIELDS if field[0] != "Remission"), ("good", pa.bool_()))
KEYS = tuple(name for name, _ in KEY_FIELDS)
# What a features file repeats of its dataset's metadata.
_OF_DATASET = (
    "channels",
    "cohort",
    "content_sha256",
    "sampling_rate",
    "settings",
    "simulated",
    "units",
    "window_samples",
)
_NUMBERED = re.compile(r"^([A-Za-z]+)(\d+)(h?)$")


def left_right_pairs(channels: Sequence[str]) -> list[tuple[str, str]]:
    """Electrodes at mirrored places, (left, right), in the order of the left ones.

    In the 10-10 system the left one has an odd number and its mirror the next one: F3-F4, TP9-TP10.
    """
    pairs = []
    for channel in channels:
        match = _NUMBERED.match(channel)
        if match and int(match[2]) % 2:
            mirror = f"{match[1]}{int(match[2]) + 1}{match[3]}"
            if mirror in channels:
                pairs.append((channel, mirror))
    return pairs


def sample_entropy(rows_XS: np.ndarray) -> np.ndarray:
    """-ln of how much rarer it is that three samples in a row recur than two, float64 [X].

    Among the S - 2 places of a row, pairs of places whose samples lie within 0.2 SD of each other;
    nothing is compared with itself. NaN for a constant row, and where no three recur.
    """
    entropy_X = np.full(len(rows_XS), np.nan)
    for first in range(0, len(rows_XS), ROWS_AT_ONCE):
        two_X, three_X = _recurrences(rows_XS[first : first + ROWS_AT_ONCE])
        some = first + np.flatnonzero(three_X)
        entropy_X[some] = np.log(two_X[some - first] / three_X[some - first])
    return entropy_X


def _recurrences(rows_XS: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many pairs of places agree in two samples, and in three, [X] each; 0 for a constant row."""
    places = rows_XS.shape[1] - 2
    within_X1 = TOLERANCE_SD * rows_XS.std(axis=1, keepdims=True, dtype=np.float64)
    within_X1 = within_X1.astype(rows_XS.dtype)
    within_X1[within_X1 == 0] = -1  # nothing is as near as that
    # Places in the order of their first sample: those that agree in it stand near each other, so
    # that the comparison ends after a fraction of all distances.
    order_XT = np.argsort(rows_XS[:, :places], axis=1, kind="stable")
    first_XT, second_XT, third_XT = (
        np.take_along_axis(rows_XS, order_XT + ahead, axis=1) for ahead in range(3)
    )
    two_X, three_X = np.zeros((2, len(rows_XS)), dtype=np.int64)
    for apart in range(1, places):
        near_XT = first_XT[:, apart:] - first_XT[:, :-apart] <= within_X1
        if not near_XT.any():
            break
        near_XT &= np.abs(second_XT[:, apart:] - second_XT[:, :-apart]) <= within_X1
        two_X += np.count_nonzero(near_XT, axis=1)
        near_XT &= np.abs(third_XT[:, apart:] - third_XT[:, :-apart]) <= within_X1
        three_X += np.count_nonzero(near_XT, axis=1)
    return two_X, three_X


def permutation_entropy(rows_XS: np.ndarray) -> np.ndarray:
    """Of the order of three successive samples (Bandt & Pompe 2002), between 0 and 1, float64 [X].

    Equal samples count as rising.
    """
    rises_XS = rows_XS[:, 1:] >= rows_XS[:, :-1]
    over_XS = rows_XS[:, 2:] >= rows_XS[:, :-2]
    # The three comparisons name the order; two of the eight combinations cannot be.
    order_XS = rises_XS[:, :-1] + 2 * rises_XS[:, 1:] + 4 * over_XS
    part_XO = np.stack([(order_XS == order).mean(axis=1) for order in range(8)], axis=1)
    entropy_X: np.ndarray = _entropy(part_XO) / np.log2(6)
    return entropy_X


def _entropy(part_XO: np.ndarray) -> np.ndarray:
    """Shannon's entropy in bits along the last axis."""
    logs = np.log2(part_XO, out=np.zeros_like(part_XO), where=part_XO > 0)
    entropy_X: np.ndarray = -(part_XO * logs).sum(axis=-1)
    return entropy_X


class FeatureSet:
    """The features of one montage, rate and length of window.

    A band that reaches beyond half the rate is left out, and so is coherence in windows of fewer than
    four segments of 2 s that overlap by half. ``notes`` says so.

    Args:
        channels: in 10-10 spelling.
        rate: Hz.
        window_samples: S.

    Raises:
        RemitError: when no band is left.
    """

    def __init__(self, channels: Sequence[str], rate: float, window_samples: int) -> None:
        self.channels, self.rate = list(channels), float(rate)
        self.segment = min(round(SEGMENT_SECONDS * rate), window_samples)
        hz_F = np.fft.rfftfreq(self.segment, 1 / rate)
        # Bands are stretches of frequencies, low edge included, so that none counts twice.
        self.bands = {
            band: slice(*np.searchsorted(hz_F, (low, high)).tolist())
            for band, (low, high) in BANDS_HZ.items()
            if high <= rate / 2 and np.any((hz_F >= low) & (hz_F < high))
        }
        if not self.bands:
            raise RemitError(
                f"windows of {window_samples} samples at {rate:g} Hz hold no frequency band whole; expected "
                "at least 2 Hz resolution and delta up to 4 Hz; set preprocessing.sampling_rate or "
                "preprocessing.window_seconds higher."
            )
        edges = list(self.bands.values())
        self._whole = slice(edges[0].start, edges[-1].stop)
        self._hz_F = hz_F[self._whole]
        index = {channel: number for number, channel in enumerate(self.channels)}
        self.left_right = left_right_pairs(self.channels)
        segments = 1 + (window_samples - self.segment) // (self.segment - self.segment // 2)
        few = len(self.channels) <= ALL_PAIRS_UP_TO
        coherent = list(combinations(self.channels, 2)) if few else self.left_right
        self.coherent = coherent if segments >= FEWEST_SEGMENTS else []
        self._left_right = [[index[pair[side]] for pair in self.left_right] for side in (0, 1)]
        self._coherent = [[index[pair[side]] for pair in self.coherent] for side in (0, 1)]
        self.columns = [
            *(f"power_{band}_{name}" for band in self.bands for name in self.channels),
            *(f"relative_{band}_{name}" for band in self.bands for name in self.channels),
            *(
                f"{feature}_{name}"
                for feature in (
                    "spectral_edge",
                    "activity",
                    "mobility",
                    "complexity",
                    "spectral_entropy",
                    "permutation_entropy",
                    "sample_entropy",
                )
                for name in self.channels
            ),
            *(f"asymmetry_{band}_{a}-{b}" for band in self.bands for a, b in self.left_right),
            *(f"coherence_{band}_{a}-{b}" for band in self.bands for a, b in self.coherent),
        ]
        self.notes = self._notes(segments, few)

    def _notes(self, segments: int, few: bool) -> list[str]:
        notes = []
        missing = [band for band in BANDS_HZ if band not in self.bands]
        if missing:
            notes.append(f"no {', '.join(missing)}: the rate is {self.rate:g} Hz")
        if not self.left_right:
            notes.append("no asymmetry: the montage has no electrodes at mirrored places")
        if segments < FEWEST_SEGMENTS:
            notes.append(
                f"no coherence: a window holds {segments} segments of {SEGMENT_SECONDS:g} s, and "
                f"{FEWEST_SEGMENTS} are the fewest"
            )
        elif not few:
            notes.append(
                f"coherence of the {len(self.coherent)} left-right pairs only: of "
                f"{len(self.channels)} electrodes all pairs would be too many columns"
            )
        return notes

    def __call__(self, signal_WCS: np.ndarray) -> np.ndarray:
        """The features of windows in µV, float32 [W, X], in the order of ``columns``.

        NaN where one is not defined, as most are for a flat window.
        """
        blocks = [
            self._of_block(signal_WCS[first : first + WINDOWS_AT_ONCE])
            for first in range(0, len(signal_WCS), WINDOWS_AT_ONCE)
        ]
        return np.concatenate([np.empty((0, len(self.columns)), np.float32), *blocks])

    def _of_block(self, signal_WCS: np.ndarray) -> np.ndarray:
        W, C, S = signal_WCS.shape
        exact_WCS = signal_WCS.astype(np.float64)
        density_WCF = self._spectrum(exact_WCS, exact_WCS).real
        bin_hz = self.rate / self.segment
        with np.errstate(divide="ignore", invalid="ignore"):  # of a flat window: NaN, below
            power_WBC = self._power(density_WCF)
            log_WBC = np.log10(power_WBC)
            whole_WCF = density_WCF[..., self._whole]
            part_WCF = whole_WCF / whole_WCF.sum(axis=-1, keepdims=True)
            edge_WC = np.argmax(np.cumsum(part_WCF, axis=-1) >= EDGE_PART, axis=-1)
            slope_WCS = np.diff(exact_WCS) * self.rate
            variance_XWC = np.stack(
                [x.var(axis=-1) for x in (exact_WCS, slope_WCS, np.diff(slope_WCS) * self.rate)]
            )
            # In Hz: a sine's own frequency, and for the slope the same again.
            mobility_XWC = np.sqrt(variance_XWC[1:] / variance_XWC[:-1]) / (2 * np.pi)
            per_channel = [
                np.where(np.isnan(part_WCF[..., 0]), np.nan, self._hz_F[edge_WC]),
                variance_XWC[0],
                mobility_XWC[0],
                mobility_XWC[1] / mobility_XWC[0],
                _entropy(part_WCF) / np.log2(len(self._hz_F)),
                *(
                    np.where(
                        variance_XWC[0] > 0,
                        found(signal_WCS.reshape(W * C, S)).reshape(W, C),
                        np.nan,
                    )
                    for found in (permutation_entropy, sample_entropy)
                ),
            ]
            left, right = self._left_right
            one, other = self._coherent
            cross_WQF = self._spectrum(exact_WCS[:, one], exact_WCS[:, other])
            coherence_WQF = np.abs(cross_WQF) ** 2 / (density_WCF[:, one] * density_WCF[:, other])
            columns = [
                log_WBC,
                power_WBC / whole_WCF.sum(axis=-1)[:, None] / bin_hz,
                np.stack(per_channel, axis=1),
                log_WBC[..., right] - log_WBC[..., left],
                self._by_band(coherence_WQF, np.mean),
            ]
        rows_WX = np.concatenate([values.reshape(W, -1) for values in columns], axis=1)
        rows_WX[~np.isfinite(rows_WX)] = np.nan
        return rows_WX.astype(np.float32)

    def power(self, signal_WCS: np.ndarray) -> np.ndarray:
        """The power in each band alone, float64 µV² [W, B, C]; the columns ``power_`` are its log10."""
        exact_WCS = signal_WCS.astype(np.float64)
        return self._power(self._spectrum(exact_WCS, exact_WCS).real)

    def _power(self, density_WCF: np.ndarray) -> np.ndarray:
        return self._by_band(density_WCF, np.sum) * (self.rate / self.segment)

    def _spectrum(self, one_WXS: np.ndarray, other_WXS: np.ndarray) -> np.ndarray:
        """Welch's (cross-)spectral density, complex [W, X, F], of segments without their means."""
        if not one_WXS.shape[1]:
            return np.empty((len(one_WXS), 0, self.segment // 2 + 1), complex)
        density: np.ndarray = signal.csd(one_WXS, other_WXS, self.rate, nperseg=self.segment)[1]
        return density

    def _by_band(self, values_WXF: np.ndarray, reduce: Callable[..., Any]) -> np.ndarray:
        """One value for each band, [W, B, X]."""
        return np.stack([reduce(values_WXF[..., b], axis=-1) for b in self.bands.values()], axis=1)


def features(
    *, primary: Path, output: Path, settings: Mapping[str, Any], log: Callable[[str], None]
) -> dict[str, Any]:
    """Write the features of a primary dataset's windows; returns the metadata that stands in the file.

    Reads one row group at a time and writes as many; the same dataset gives the same bytes. Atomic.
    ``settings`` is what the workflow gives, the version of the results alone. Raises
    :class:`RemitError` for a dataset that does not verify.
    """
    unknown = sorted(set(settings) - {"result_version"})
    if unknown:
        raise RemitError(
            f"features: found the settings {some_of(unknown)}; expected result_version alone; leave the "
            "others out."
        )
    dataset = open_dataset(primary)
    found = FeatureSet(dataset.channels, dataset.sampling_rate, dataset.metadata["window_samples"])
    for note in found.notes:
        log(note)
    metadata = {key: dataset.metadata[key] for key in _OF_DATASET} | {
        "kind": "features",
        "dataset": dataset.metadata["dataset"],
        "bands_hz": {band: list(BANDS_HZ[band]) for band in found.bands},
        "features": found.columns,
        "notes": found.notes,
        "remit_version": remit.__version__,
        "result_version": dataset.metadata["result_version"] | {"features": RESULT_VERSION},
    }
    schema = pa.schema(
        [
            *(pa.field(name, kind, nullable=False) for name, kind in KEY_FIELDS),
            *(pa.field(name, pa.float32(), nullable=False) for name in found.columns),
        ],
        metadata=encode_metadata(metadata),
    )
    with (
        atomic_write(output) as temporary,
        pq.ParquetWriter(
            temporary, schema, compression="zstd", use_dictionary=["Participant", "recording"]
        ) as writer,
    ):
        frame = dataset.frame()
        ends = dataset.group_ends.tolist()
        groups = list(zip([0, *ends[:-1]], ends, strict=True))
        for first, stop in progress.track(groups, "features", "group"):
            writer.write_table(_rows(dataset, found, schema, frame.iloc[first:stop]))
            log(f"{stop} of {len(dataset)} windows")
    return dict(json.loads(encode_metadata(metadata)[METADATA_KEY]))


def _rows(
    dataset: WindowsFile, found: FeatureSet, schema: pa.Schema, keys: pd.DataFrame
) -> pa.Table:
    """The table of one row group, whose keys are given."""
    signal_WCS = np.empty(
        (len(keys), len(dataset.channels), dataset.metadata["window_samples"]), np.float32
    )
    dataset.read_into(signal_WCS, keys.index.to_numpy())
    columns = [keys[name].to_numpy() for name in KEYS] + list(found(signal_WCS).T)
    return pa.table(
        [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)],
        schema=schema,
    )
