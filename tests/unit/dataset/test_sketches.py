"""Pieces of recordings share values of their sketches; recordings that share no samples do not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remit.dataset import sketches
from remit.dataset.sketches import SHARED, STRETCH, holder_of, sketch

WRAP = 2**64


def mixed(value: int) -> int:
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) % WRAP
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) % WRAP
    return value ^ (value >> 31)


def every_value(row_S: np.ndarray) -> set[str]:
    """All values of a channel, one stretch after another, in whole numbers."""
    bits = [int.from_bytes(sample.tobytes(), "little") for sample in row_S.astype("<f4")]
    found = set()
    for first in range(len(bits) - STRETCH + 1):
        stretch = bits[first : first + STRETCH]
        value = 0
        for sample in stretch:
            value = (value * 0x9E3779B97F4A7C15 + mixed(sample)) % WRAP
        if len(set(stretch)) >= 8:
            found.add(f"{mixed(value):016x}")
    return found


def eeg(seed: int, channels: int, samples: int) -> np.ndarray:
    """As a 12-bit headset gives it: a slow walk in steps of 0.49 µV."""
    steps_CS = np.random.default_rng(seed).normal(0, 12, (channels, samples)).cumsum(axis=1)
    return (np.round(steps_CS % 1000) * 0.48828125).astype(np.float32)


@settings(deadline=None, max_examples=40)
@given(
    samples=st.lists(st.integers(0, 11), min_size=1, max_size=400),
    block=st.sampled_from([1, 5, 64, 2**14]),
)
def test_a_sketch_is_the_smallest_values_of_all_stretches(samples: list[int], block: int) -> None:
    row_S = np.asarray(samples, np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sketches, "_BLOCK", block)
        assert sketch([row_S]) == sorted(every_value(row_S))[:128]


@settings(deadline=None, max_examples=40)
@given(first=st.integers(0, 3000), length=st.integers(STRETCH, 3000), order=st.permutations("abcd"))
def test_a_crop_in_any_order_of_channels_keeps_what_lies_in_it(
    first: int, length: int, order: list[str]
) -> None:
    whole_CS = eeg(1, 4, 3000)
    crop_CS = whole_CS[:, min(first, 3000 - length) :][:, :length]
    crop = sketch([crop_CS["abcd".index(name)] for name in order])
    assert crop == sketch(crop_CS)
    expected = set(sketch(whole_CS)) & set().union(*map(every_value, crop_CS))
    assert set(sketch(whole_CS)) & set(crop) == expected


def test_one_channel_finds_a_recording_of_many_and_another_recording_nothing() -> None:
    many = eeg(2, 20, 40_000)
    values = sketch(many)
    assert len(values) == 20 * 8
    alone = dict.fromkeys(sketch(many[7:8]), "alone")
    assert len(alone) == 128 and holder_of(values, alone) == "alone"
    other = dict.fromkeys(sketch(eeg(3, 20, 40_000)), "other")
    assert holder_of(values, other) is None and not set(values) & set(other)
    assert SHARED == 2 and holder_of(values[:1], dict.fromkeys(values, "same")) is None


@pytest.mark.parametrize(
    "row_S",
    [
        np.zeros(5000),
        np.tile(np.arange(7.0), 1000),
        np.random.default_rng(0).choice([-800.0, 0.0, 800.0], 5000),
        np.arange(31.0),
    ],
    ids=["flat", "seven values", "clipped", "too short"],
)
def test_what_any_recording_may_hold_tells_nothing(row_S: np.ndarray) -> None:
    assert sketch([row_S.astype(np.float32)]) == []
