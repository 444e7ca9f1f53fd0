"""Windows of made-up recordings, in memory and in files."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from remit.dataset.windows import write_windows
from remit.preprocessing.chain import CHANNEL_QUALITY, Windows
from remit.recordings.recording import Recording, Segment

CHANNELS = ("AF7", "AF8", "TP9", "TP10")
SETTINGS = {
    "sampling_rate": 32.0,
    "window_seconds": 2.0,
    "lowpass": {"cutoff_hz": 12.0, "order": 4},
}


@pytest.fixture(scope="session")
def make_windows() -> Callable[..., Windows]:
    """``counts[k]`` windows of 2 s at 32 Hz in parent window k."""

    def make(
        *counts: int, seed: int = 0, channels: tuple[str, ...] = CHANNELS, bad: int = 0
    ) -> Windows:
        rng = np.random.default_rng(seed)
        number = sum(counts)
        parent = np.repeat(np.arange(len(counts)), counts)
        sub = np.concatenate([np.arange(count) for count in counts])
        start = (parent * 1000 + sub) * 64
        return Windows(
            signal_WCS=rng.standard_normal((number, len(channels), 64)).astype(np.float32),
            sampling_rate=32.0,
            channels=channels,
            parent_window_id=parent.astype(np.int32),
            sub_window_id=sub.astype(np.int32),
            window_start=start.astype(np.int64),
            window_end=(start + 64).astype(np.int64),
            **{
                name: rng.random((number, len(channels))).astype(np.float32)
                for name in CHANNEL_QUALITY
                if name != "contact_fraction"
            },
            contact_fraction=np.full((number, len(channels)), np.nan, np.float32),
            worn_fraction=np.full(number, np.nan, np.float32),
            bad_because=("flat",) * bad + ("",) * (number - bad),
            dropped_seconds=1.25,
        )

    return make


@pytest.fixture(scope="session")
def make_recording() -> Callable[..., Recording]:
    def make(participant: str = "p1", recording: str = "p1-rest", **fields: Any) -> Recording:
        values: dict[str, Any] = {
            "participant": participant,
            "recording": recording,
            "signal_CS": np.zeros((4, 8), dtype=np.float32),
            "sampling_rate": 32.0,
            "channels": CHANNELS,
            "segments": (Segment(0, 8, 0.0),),
            "prewindowed": False,
            "simulated": True,
            "source_sha256": f"of {recording}",
            "left_out": ("ECG",),
            "notes": ("made up",),
        }
        return Recording(**(values | fields))

    return make


@pytest.fixture
def write(
    tmp_path: Path,
    make_windows: Callable[..., Windows],
    make_recording: Callable[..., Recording],
) -> Callable[..., Path]:
    """Write the windows file of one recording and return its path."""

    def make(
        participant: str,
        recording: str,
        *counts: int,
        remission: int | None = 0,
        windows: Windows | None = None,
        settings: dict[str, Any] = SETTINGS,
        cohort: str = "made",
        seed: int | None = None,
        **fields: Any,
    ) -> Path:
        number = zlib.crc32(recording.encode()) if seed is None else seed
        file = tmp_path / "windows" / f"{recording}.parquet"
        windows = windows or make_windows(*(counts or (2, 3)), seed=number)
        fields.setdefault("channels", windows.channels)
        drawn_CS = np.random.default_rng(number).standard_normal((len(windows.channels), 8))
        fields.setdefault("signal_CS", drawn_CS.astype(np.float32))
        write_windows(
            file,
            windows,
            recording=make_recording(participant, recording, **fields),
            remission=remission,
            cohort=cohort,
            settings=settings,
        )
        return file

    return make
