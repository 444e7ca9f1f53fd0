"""Filtering and changing the sampling rate of one channel of one contiguous segment, in one step.

Every step of the chain between the raw samples and the windows is linear and does not depend on
time, so all of them together are one multiplication of the segment's spectrum: its filters' gains,
and nothing kept above the new Nyquist frequency. That is what forward-backward filters at the
raised rate and an ideal change of rate would give, without their work, and without aliasing.

Sample k of the result lies at the time k / rate after the segment's first sample, exactly. There
are ``ceil(samples * ratio)`` of them, those whose time lies before the end of the segment's last
sample period. Beyond its ends a segment is continued by its mirror image, as long as the filters
ring. (The more usual odd reflection pivots on the very first sample: if that is the crest of an
alpha wave, the continuation stands off by twice the wave, and a high-pass turns it into a drift.)

Shape suffixes: `S` samples, `F` frequencies of a real Fourier transform.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import ceil

import numpy as np

from remit.errors import RemitError

# Where a rate is lowered and no low-pass stands before the new Nyquist frequency, everything above
# it goes, beginning at this part of it: a cosine edge, which rings less than a step.
_PASSBAND = 0.9
# Largest error of the rate where the ratio of two rates is no ratio of moderate whole numbers, and
# the largest such number: a segment is continued to a multiple of it.
_RATE_TOLERANCE = 1e-6
_LARGEST_FACTOR = 131072
_ALWAYS_EXACT = 4096  # up to here no approximation is looked for


def rate_ratio(source_hz: float, target_hz: float) -> Fraction:
    """``target / source`` as a ratio of whole numbers, exact or to 1e-6 relative.

    Raises :class:`RemitError` where there is none with numbers up to 131072.
    """
    exact = Fraction(str(float(target_hz))) / Fraction(str(float(source_hz)))
    if max(exact.numerator, exact.denominator) <= _ALWAYS_EXACT:
        return exact
    below_one = min(exact, 1 / exact)
    limit = 16
    while limit <= _LARGEST_FACTOR:
        near = below_one.limit_denominator(limit)
        if near and abs(near / below_one - 1) <= _RATE_TOLERANCE:
            return near if exact <= 1 else 1 / near
        limit *= 2
    raise RemitError(
        f"the sampling rate {source_hz:.9g} Hz cannot be brought to {target_hz:.9g} Hz; expected a "
        f"ratio of whole numbers up to {_LARGEST_FACTOR}, exact to {_RATE_TOLERANCE:g}; correct "
        "the recording's rate or preprocessing.sampling_rate."
    )


class Workspace:
    """Arrays that are used again for each channel: getting new ones takes a fifth of the time."""

    def __init__(self) -> None:
        self._arrays: dict[str, np.ndarray] = {}

    def array(self, name: str, size: int, dtype: type) -> np.ndarray:
        """An array of this size, with whatever it held before."""
        found = self._arrays.get(name)
        if found is None or found.size != size or found.dtype != dtype:
            found = self._arrays[name] = np.empty(size, dtype=dtype)
        return found

    def count(self, size: int) -> np.ndarray:
        """0, 1, 2, ... as float64."""
        found = self._arrays.get("count")
        if found is None or found.size != size:
            found = self._arrays["count"] = np.arange(size, dtype=np.float64)
        return found


@dataclass(frozen=True)
class Conditioner:
    """Brings segments of one source rate to one output rate, filtered.

    ``gain`` gives the filters' gain at frequencies in Hz, float64 [F] -> [F]; None filters nothing.
    ``settling_seconds``: how long the filters ring. ``interpolation_factor``: 0, or the factor by
    which samples are first joined by straight lines. ``edge``: whether a cosine edge comes before
    the new Nyquist frequency.
    """

    source_rate: float
    ratio: Fraction
    gain: Callable[[np.ndarray], np.ndarray] | None = None
    settling_seconds: float = 0.0
    interpolation_factor: int = 0
    edge: bool = True

    @property
    def leaves_as_is(self) -> bool:
        """Whether the result is the segment itself."""
        return self.gain is None and self.ratio == 1 and not self.interpolation_factor

    def samples_out(self, samples: int) -> int:
        """The number of samples that a segment of ``samples`` becomes."""
        return ceil(samples * self.ratio)

    def __call__(
        self,
        signal_S: np.ndarray,
        line: tuple[float, float] = (0.0, 0.0),
        workspace: Workspace | None = None,
    ) -> np.ndarray:
        """``[samples]`` -> float64 ``[ceil(samples * ratio)]``, with a straight line taken off first.

        ``line``: value at the first sample and step from sample to sample. A large constant should
        be taken off, for what the numbers' precision leaves of it is noise, and so should a drift,
        whose mirror image has a cusp. With a ``workspace`` the result is overwritten by the next
        call that is given it.
        """
        if self.leaves_as_is and line == (0.0, 0.0):
            return np.asarray(signal_S, dtype=np.float64)
        workspace = workspace or Workspace()
        before, length = self._lengths(len(signal_S))
        continued_S = workspace.array("signal", length, np.float64)
        own_S = continued_S[before : before + len(signal_S)]
        own_S[:] = signal_S
        own_S -= line[0]
        if line[1]:
            own_S -= line[1] * workspace.count(len(signal_S))
        _continue(continued_S, own_S, before)
        spectrum_F = workspace.array("spectrum", length // 2 + 1, np.complex128)
        np.fft.rfft(continued_S, out=spectrum_F)
        new_length = int(length * self.ratio)
        if self.interpolation_factor:
            spectrum_F = self._interpolated(spectrum_F, length, new_length)
        kept = min(new_length, self._shown(length)) // 2 + 1
        spectrum_F[:kept] *= _gains(self, length, kept)
        out_S = workspace.array("out", new_length, np.float64)
        np.fft.irfft(spectrum_F[:kept], new_length, out=out_S)
        out_S *= float(self.ratio)
        first = int(before * self.ratio)
        return out_S[first : first + self.samples_out(len(signal_S))]

    def _shown(self, length: int) -> int:
        """Length of the signal whose spectrum is there: raised where samples are joined by lines."""
        return length * max(1, self.interpolation_factor)

    def _lengths(self, samples: int) -> tuple[int, int]:
        """Samples before the segment, and in all: both fall on the raster of either rate."""
        raster = self.ratio.denominator
        margin = ceil(self.settling_seconds * self.source_rate) + 8
        before = -(-margin // raster) * raster
        return before, raster * _smooth(-(-(before + samples + margin) // raster))

    def _interpolated(self, spectrum_F: np.ndarray, length: int, new_length: int) -> np.ndarray:
        """The spectrum of straight lines through the samples, at the raised rate, as far as needed.

        Zeros between the samples repeat their spectrum; joining by lines multiplies it with that of
        a triangle.
        """
        factor = self.interpolation_factor
        index = np.arange(min(new_length, length * factor) // 2 + 1)
        folded = index % length
        upper = folded > length // 2
        repeated_F = spectrum_F[np.where(upper, length - folded, folded)]
        repeated_F = np.where(upper, repeated_F.conj(), repeated_F)
        turn = np.pi * index / length
        narrow = factor * np.sin(turn / factor)
        triangle = np.divide(np.sin(turn), narrow, out=np.ones_like(turn), where=index > 0) ** 2
        interpolated_F: np.ndarray = repeated_F * triangle
        return interpolated_F


def _continue(continued_S: np.ndarray, signal_S: np.ndarray, before: int) -> None:
    """Put the mirror images of the signal that stands at ``before`` around it, again and again."""
    samples = len(signal_S)
    period = max(1, 2 * (samples - 1))
    for first, stop in ((0, before), (before + samples, len(continued_S))):
        turn = np.arange(first - before, stop - before) % period
        continued_S[first:stop] = signal_S[np.where(turn < samples, turn, period - turn)]


@lru_cache(maxsize=8)
def _gains(conditioner: Conditioner, length: int, kept: int) -> np.ndarray:
    """float64 [F]: what is left of each of the first ``kept`` frequencies."""
    frequency_F = np.arange(kept) * (conditioner.source_rate / length)
    gain_F = np.ones(kept) if conditioner.gain is None else conditioner.gain(frequency_F)
    new_length = int(length * conditioner.ratio)
    if conditioner.edge and new_length < length:
        nyquist = conditioner.source_rate * float(conditioner.ratio) / 2
        part_F = (frequency_F / nyquist - _PASSBAND) / (1 - _PASSBAND)
        gain_F = gain_F * (0.5 + 0.5 * np.cos(np.pi * np.clip(part_F, 0.0, 1.0)))
    shown = conditioner._shown(length)
    if new_length > shown and shown % 2 == 0:
        gain_F[-1] /= 2  # the Nyquist frequency's one bin becomes two
    gain_F.setflags(write=False)
    return gain_F


@lru_cache(maxsize=64)
def _smooth(least: int) -> int:
    """The first whole number from ``least`` on that is quick to transform: of twos, fives and at
    most three threes. (Many threes or a seven take a third longer.)
    """
    number = least
    while True:
        rest = number
        for prime, most in ((2, 64), (5, 64), (3, 3)):
            while most and rest % prime == 0:
                rest //= prime
                most -= 1
        if rest == 1:
            return number
        number += 1
