"""Corpora in pools: every sequence as often as it should, in any pool, with the bits of one reading."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from remit.config import Sequences
from remit.dataset import windows
from remit.dataset.corpus import Corpora, Part, SignalMemory
from remit.dataset.sequences import load_sequences
from remit.dataset.windows import open_dataset
from tests.unit.training.conftest import SAMPLES, make_dataset

SETTINGS = Sequences(token_seconds=0.5, context_windows=2)
THREE = ("AF7", "TP9", "TP10")
WINDOW = 4 * 2 * SAMPLES  # bytes of one on two channels
POOLS = [1.0, 3 * WINDOW, 7.5 * WINDOW, 40 * WINDOW, 1e9]


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """Two corpora of two channels and one of three, in row groups of 3 windows, of 12 and of all."""
    folder = tmp_path_factory.mktemp("corpora")
    made = []
    for cohort, people, channels, rows in (
        ("small", 5, ("AF7", "AF8"), 3),  # every recording lies in two row groups
        ("wide", 4, THREE, 12),
        ("other", 6, ("AF7", "AF8"), 1000),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(windows, "ROW_GROUP_BYTES", rows * 4 * len(channels) * SAMPLES)
            names = {f"{cohort}{i}": None for i in range(people)}
            file = make_dataset(folder, names, cohort=cohort, seed=people, channels=channels)
        made.append(open_dataset(file))
    assert [len(data.group_ends) > 1 for data in made] == [True, True, False]
    return made


def corpora_of(datasets, most_bytes, weights=(1.0, 1.0, 1.0)):
    memory = SignalMemory(most_bytes)
    parts = [
        Part(data, data.participants, SETTINGS, weight)
        for data, weight in zip(datasets, weights, strict=True)
    ]
    made = Corpora(parts, memory)
    for _ in made.scan():
        pass
    return made, memory


def one_by_one(datasets):
    """The samples and the valid steps of every sequence, as they are read without pools."""
    rows = []
    for data in datasets:
        whole = load_sequences(data, data.participants, SETTINGS)
        rows += [whole.batch([n], torch.device("cpu")) for n in range(len(whole))]
    return rows


@settings(deadline=None, max_examples=60)
@given(
    most=st.sampled_from(POOLS),
    weights=st.tuples(*[st.sampled_from([0.01, 0.3, 0.5, 1.0, 1.6, 2.0, 3.0])] * 3),
    size=st.integers(1, 9),
    seed=st.integers(0, 5),
)
def test_every_sequence_stands_in_an_epoch_as_often_as_its_weight_says(
    datasets, most, weights, size, seed
):
    made, memory = corpora_of(datasets, most, weights)
    epoch, again = made.epoch((seed, 1)), made.epoch((seed, 1))
    assert np.array_equal(epoch.number_D, again.number_D)
    assert len(epoch) == made.draws
    often = Counter(epoch.number_D.tolist())
    first = 0
    for part, weight in zip(made.parts, weights, strict=True):
        counts = [often[number] for number in range(first, first + len(part))]
        assert set(counts) <= {math.floor(weight), math.ceil(weight)}
        assert sum(counts) == max(1, round(weight * len(part)))
        first += len(part)
    for number, count in often.items():  # each time a turn of its own, so another mask
        assert sorted(epoch.turn_D[epoch.number_D == number]) == list(range(count))
    expected = one_by_one(datasets)
    largest = max(
        (stop - start) * part.window_bytes
        for part in made.parts
        for start, stop in [
            (place.start, place.stop) for _, place in part.recordings(slice(0, 10**6))
        ]
    )
    for start in range(0, len(epoch), size):
        draws = np.arange(start, min(start + size, len(epoch)))
        reads = epoch.read(draws)
        held = sum(
            tokens.signal_WCL.nbytes
            for _, pool in memory._held.values()
            for tokens, _ in pool.values()
        )
        assert held <= max(most, largest)
        assert sorted(np.concatenate([read.number_B for read in reads])) == sorted(
            epoch.number_D[draws]
        )
        for read in reads:
            its = [d for d in draws if epoch.number_D[d] in set(read.number_B)]
            assert np.array_equal(read.number_B, epoch.number_D[its])  # in their order
            for row, number in enumerate(read.number_B):
                assert torch.equal(read.samples_BKCS[row], expected[number][0][0])
                assert torch.equal(read.valid_BK[row], expected[number][1][0])


@pytest.mark.parametrize("most", POOLS)
def test_units_are_whole_recordings_and_hold_every_window_once(datasets, most):
    made, _ = corpora_of(datasets, most)
    windows_seen, sequences_seen = Counter(), Counter()
    for unit in made._units:
        part = made.parts[unit.part]
        inside = part.index.recording_W[unit.windows]
        outside = np.delete(part.index.recording_W, unit.windows)
        assert not set(inside) & set(outside)
        assert unit.num_bytes <= most or len(set(inside)) == 1
        chains = part.index.windows_NV[unit.sequences]
        its = chains[chains >= 0]
        assert sorted(its) == list(range(unit.windows.start, unit.windows.stop))
        windows_seen.update((unit.part, w) for w in its)
        sequences_seen.update(
            (unit.part, n) for n in range(unit.sequences.start, unit.sequences.stop)
        )
        for chain in chains:  # none crosses a recording
            assert len(set(part.index.recording_W[chain[chain >= 0]])) == 1
    assert set(windows_seen.values()) == set(sequences_seen.values()) == {1}
    assert len(sequences_seen) == len(made)
    assert len(windows_seen) == sum(len(part.index.row_W) for part in made.parts)


def test_an_epoch_goes_on_at_any_draw(datasets):
    made, _ = corpora_of(datasets, 7.5 * WINDOW)
    epoch = made.epoch((0, 1))
    assert not made.in_memory and len(set(epoch._pool_D)) > 2
    later, _ = corpora_of(datasets, 7.5 * WINDOW)  # another process
    for start in range(0, len(epoch), 4):
        draws = np.arange(start, min(start + 4, len(epoch)))
        for one, two in zip(epoch.read(draws), later.epoch((0, 1)).read(draws), strict=True):
            assert np.array_equal(one.number_B, two.number_B)
            assert torch.equal(one.samples_BKCS, two.samples_BKCS)


def test_what_fits_into_one_pool_is_a_permutation_and_is_read_once(datasets, monkeypatch):
    groups = []
    original = windows._read_group
    monkeypatch.setattr(
        windows, "_read_group", lambda *given: groups.append(given[1:3]) or original(*given)
    )
    made, _ = corpora_of(datasets, 1e9)
    for number in (1, 2):
        epoch = made.epoch((0, number))
        order = np.random.default_rng([0, number]).permutation(len(made))
        assert np.array_equal(epoch.number_D, order)
        epoch.read(np.arange(len(epoch)))
    made.in_order().read(np.arange(len(made)))
    assert Counter(groups) == Counter(set(groups))
    assert len(groups) == sum(len(data.group_ends) for data in datasets)


def test_pools_are_mixed_and_change_from_epoch_to_epoch(datasets):
    made, _ = corpora_of(datasets, 12 * WINDOW)
    one, two = made.epoch((0, 1)), made.epoch((0, 2))
    assert not np.array_equal(one.number_D, two.number_D)
    assert set(one.pools) != set(two.pools)
    assert any(np.diff(one.number_D[one._pool_D == 0]) < 0)
    assert np.array_equal(made.in_order().number_D, np.arange(len(made)))


def test_two_corpora_share_one_memory(datasets):
    """What is kept aside is read at the end of an epoch, and must not stand beside a full pool."""
    memory = SignalMemory(10 * WINDOW)
    two = [Corpora([Part(data, data.participants, SETTINGS)], memory) for data in datasets[::2]]
    for made in two:
        for _ in made.scan():
            pass
    for order in (two[0].epoch((0, 1)), two[1].in_order(), two[0].epoch((0, 2))):
        for draw in range(len(order)):
            order.read(np.array([draw]))
            assert sum(size for size, _ in memory._held.values()) <= 10 * WINDOW


def test_half_of_a_corpus_is_another_half_in_another_epoch(datasets):
    made, _ = corpora_of(datasets, 1e9, (0.5, 1.0, 1.0))
    halves = [
        {number for number in made.epoch((0, n)).number_D.tolist() if number < len(made.parts[0])}
        for n in range(4)
    ]
    assert len({frozenset(half) for half in halves}) > 1
    assert {len(half) for half in halves} == {round(0.5 * len(made.parts[0]))}


def test_a_sequence_is_named_by_participant_recording_and_windows(datasets):
    made, _ = corpora_of(datasets, 1e9)
    for part, first in zip(made.parts, made._first_P[:-1], strict=True):
        frame, index = part.dataset.frame(), part.index
        seen: dict[str, int] = {}
        for own, chain in enumerate(index.windows_NV):
            its = frame.iloc[index.row_W[chain[chain >= 0]]]
            (person,), (recording,) = set(its["Participant"]), set(its["recording"])
            seen[person] = seen.get(person, 0) + 1
            windows = [
                f"{p}/{s}" for p, s in zip(its.parent_window_id, its.sub_window_id, strict=True)
            ]
            assert made.name_of(first + own) == (
                f"{part.cohort}/{person} sequence {seen[person]} (recording {recording}, "
                f"windows {windows[0]} to {windows[-1]})"
            )
