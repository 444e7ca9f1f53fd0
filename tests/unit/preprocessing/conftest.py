"""Recordings made up in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from remit.recordings.recording import Recording, Segment


@pytest.fixture(scope="session")
def recording() -> Callable[..., Recording]:
    def make(
        signal_CS: np.ndarray,
        rate: float = 256.0,
        segments: Sequence[tuple[int, int, float]] | None = None,
        **fields: object,
    ) -> Recording:
        signal_CS = np.atleast_2d(np.asarray(signal_CS, dtype=np.float32))
        values: dict[str, object] = {
            "participant": "p1",
            "recording": "p1-rest",
            "signal_CS": signal_CS,
            "sampling_rate": rate,
            "channels": ("AF7", "AF8", "TP9", "TP10")[: len(signal_CS)],
            "segments": tuple(Segment(*s) for s in segments or [(0, signal_CS.shape[1], 0.0)]),
            "prewindowed": False,
            "simulated": False,
            "source_sha256": "0" * 64,
            "left_out": (),
            "notes": (),
        }
        return Recording(**(values | fields))  # type: ignore[arg-type]

    return make


@pytest.fixture
def noise() -> Callable[..., np.ndarray]:
    """1/f noise in float32 µV ``[channels, samples]``."""

    def make(channels: int, samples: int, seed: int = 0, scale: float = 20.0) -> np.ndarray:
        rng = np.random.default_rng(seed)
        spectrum = np.fft.rfft(rng.standard_normal((channels, samples)))
        spectrum /= np.sqrt(np.maximum(np.arange(spectrum.shape[1]), 1.0))
        signal = np.fft.irfft(spectrum, samples)
        return (scale * signal / signal.std(axis=1, keepdims=True)).astype(np.float32)

    return make
