"""A recording is sound or does not exist; channels are picked by name."""

from __future__ import annotations

import numpy as np
import pytest
from recordings_made import made_recording, one_line

from remit.recordings.recording import Segment


def test_pick_takes_channels_by_name_in_the_asked_order() -> None:
    picked = made_recording().pick(["AF8", "AF7"])
    assert picked.channels == ("AF8", "AF7")
    assert picked.signal_CS[0, 0] == 100 and picked.signal_CS[1, 0] == 0
    assert picked.segments == made_recording().segments


def test_pick_names_what_is_missing_and_what_is_there() -> None:
    message = one_line(lambda: made_recording().pick(["AF7", "af8"]))
    assert "p1_rest" in message and "'af8'" in message
    assert "AF7, AF8" in message and "Did you mean 'AF8'?" in message


def test_nan_is_refused_with_channel_count_and_time() -> None:
    signal_CS = np.zeros((2, 100), dtype=np.float32)
    signal_CS[1, 70] = np.nan
    signal_CS[1, 90] = np.inf
    message = one_line(lambda: made_recording(signal_CS=signal_CS))
    assert "AF8 has 2 values" in message
    assert "5.100 s" in message  # sample 70 is the tenth of the segment that begins at 5 s


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"signal_CS": np.zeros((2, 100))}, "float64"),
        ({"signal_CS": np.zeros(100, dtype=np.float32)}, "[channels, samples]"),
        ({"signal_CS": np.zeros((2, 0), dtype=np.float32)}, "empty"),
        ({"channels": ("AF7",)}, "1 channel names for 2 rows"),
        ({"channels": ("AF7", "AF7")}, "AF7 is there more than once"),
        ({"sampling_rate": 0.0}, "sampling rate is 0"),
        ({"sampling_rate": float("nan")}, "sampling rate is nan"),
        ({"segments": ()}, "no segment"),
        ({"segments": (Segment(0, 60, 0.0), Segment(50, 100, 1.0))}, "[50, 100)"),
        ({"segments": (Segment(0, 0, 0.0),)}, "[0, 0)"),
        ({"segments": (Segment(0, 101, 0.0),)}, "leaves the 100 samples"),
        ({"segments": (Segment(0, 60, 3.0), Segment(60, 100, 2.0))}, "one after another"),
    ],
)
def test_an_unsound_recording_is_refused(changes: dict[str, object], says: str) -> None:
    message = one_line(lambda: made_recording(**changes))
    assert "p1_rest" in message and says in message
