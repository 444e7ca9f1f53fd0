"""Pieces of recordings share values of their sketches; recordings that share no samples do not."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remit.dataset import sketches
from remit.dataset.sketches import (
    SHARED,
    STRETCH,
    Holders,
    decode,
    encode,
    joined,
    shared_by_two,
    sketch,
)

WRAP = 2**64


def mixed(value: int) -> int:
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) % WRAP
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) % WRAP
    return value ^ (value >> 31)


def every_value(row_S: np.ndarray) -> set[int]:
    """All values of a channel, one stretch after another, in whole numbers."""
    bits = [int.from_bytes(sample.tobytes(), "little") for sample in row_S.astype("<f4")]
    found = set()
    for first in range(len(bits) - STRETCH + 1):
        stretch = bits[first : first + STRETCH]
        value = 0
        for sample in stretch:
            value = (value * 0x9E3779B97F4A7C15 + mixed(sample)) % WRAP
        if len(set(stretch)) >= 8:
            found.add(mixed(value))
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
        assert sketch([row_S]).tolist() == sorted(every_value(row_S))[:128]


@settings(deadline=None, max_examples=40)
@given(first=st.integers(0, 3000), length=st.integers(STRETCH, 3000), order=st.permutations("abcd"))
def test_a_crop_in_any_order_of_channels_keeps_what_lies_in_it(
    first: int, length: int, order: list[str]
) -> None:
    whole_CS = eeg(1, 4, 3000)
    crop_CS = whole_CS[:, min(first, 3000 - length) :][:, :length]
    crop = sketch([crop_CS["abcd".index(name)] for name in order])
    np.testing.assert_array_equal(crop, sketch(crop_CS))
    expected = set(sketch(whole_CS).tolist()) & set().union(*map(every_value, crop_CS))
    assert set(sketch(whole_CS).tolist()) & set(crop.tolist()) == expected


def test_one_channel_finds_a_recording_of_many_and_another_recording_nothing() -> None:
    many = eeg(2, 20, 40_000)
    values = sketch(many)
    assert len(values) == 20 * 8
    alone, other = sketch(many[7:8]), sketch(eeg(3, 20, 40_000))
    assert len(alone) == 128 and Holders({"other": other, "alone": alone}).of(values) == "alone"
    assert Holders({"other": other}).of(values) is None and not np.isin(values, other).any()
    assert SHARED == 2 and Holders({"same": values}).of(values[:1]) is None
    assert Holders({}).of(values) is Holders({"same": values}).of(values[:0]) is None


few_values = st.lists(st.integers(0, 9), max_size=5).map(lambda v: np.unique(v).astype(np.uint64))


@settings(deadline=None)
@given(held=st.lists(few_values, max_size=6), values=few_values)
def test_the_holder_is_whoever_was_first_with_most_values(
    held: list[np.ndarray], values: np.ndarray
) -> None:
    """Against a dictionary of single values."""
    first: dict[int, int] = {}
    for place, its in enumerate(held):
        for value in its.tolist():
            first.setdefault(value, place)
    counts = Counter(first[value] for value in values.tolist() if value in first)
    found = Holders({str(place): its for place, its in enumerate(held)}).of(values)
    if max(counts.values(), default=0) < SHARED:
        assert found is None
    else:
        assert found is not None and counts[int(found)] == max(counts.values())


@settings(deadline=None)
@given(held=st.lists(st.tuples(few_values, st.sampled_from("pqr")), max_size=6))
def test_two_participants_with_values_of_one_holder_are_found(
    held: list[tuple[np.ndarray, str]],
) -> None:
    values, people = [each for each, _ in held], [who for _, who in held]
    first: dict[int, int] = {}
    expected = None
    for place, its in enumerate(values):
        counts = Counter(first[value] for value in its.tolist() if value in first)
        for value in its.tolist():
            first.setdefault(value, place)
        foreign = [h for h, n in counts.items() if n >= SHARED and people[h] != people[place]]
        if foreign and expected is None:
            expected = min(foreign), place
    assert shared_by_two(values, people) == expected


@given(values=st.lists(st.integers(0, WRAP - 1)))
def test_values_survive_their_text(values: list[int]) -> None:
    made = joined([np.array(values, np.uint64)])
    assert made.tolist() == sorted(set(values))
    np.testing.assert_array_equal(decode(encode(made)), made)


@pytest.mark.parametrize("text", ["no base64", "AAAA", "AAAAAAAAAAA"])
def test_another_text_is_no_sketch(text: str) -> None:
    with pytest.raises(ValueError):
        decode(text)


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
    assert sketch([row_S.astype(np.float32)]).tolist() == []
