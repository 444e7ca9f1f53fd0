"""Windows to sequences: nothing is joined that does not follow, nothing is lost."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from remit.config import Sequences
from remit.dataset.sequences import chain_windows, length_sorted_batches, load_sequences
from remit.dataset.windows import open_dataset
from remit.errors import RemitError
from remit.nn.scaling import SAMPLE, robust_scale, scale_of
from tests.unit.training.conftest import make_dataset


@st.composite
def windows(draw):
    """Starts, ends and groups of windows of length 8 with a hop of 8, 4 or 2 and some left out."""
    starts, groups = [], []
    for group in range(draw(st.integers(1, 4))):
        hop = draw(st.sampled_from([8, 4, 2]))
        count = draw(st.integers(1, 12))
        kept = draw(st.lists(st.booleans(), min_size=count, max_size=count))
        for index, keep in enumerate(kept):
            if keep or index == 0:
                starts.append(index * hop)
                groups.append(group)
    starts_N = np.array(starts)
    return starts_N, starts_N + 8, np.array(groups)


@given(
    st.integers(1, 30_000),
    st.sampled_from(["noise", "ties", "one value", "drift", "sample unlike the rest"]),
    st.integers(0, 2**32 - 1),
)
def test_quartiles_are_those_of_numpy(samples, kind, seed):
    signal_L = np.random.default_rng(seed).standard_normal(samples).astype(np.float32)
    if kind == "ties":
        signal_L = np.round(signal_L)
    elif kind == "one value":
        signal_L[:] = 3.0
    elif kind == "drift":
        signal_L = np.cumsum(signal_L, dtype=np.float32)
    elif kind == "sample unlike the rest":
        signal_L[:: max(1, samples // SAMPLE)] = 100.0
    found = scale_of(torch.from_numpy(signal_L).view(1, 1, -1))
    low, middle, high = np.percentile(signal_L.astype(np.float64), [25, 50, 75])
    scale = max((high - low) / 1.3489795, 0.1)
    assert float(found.middle_C1) == pytest.approx(middle, rel=1e-6, abs=1e-6)
    assert float(found.scale_C1) == pytest.approx(scale, rel=1e-5, abs=1e-5)


@given(windows(), st.integers(1, 5))
def test_a_sequence_is_successive_windows_of_one_group(made, context):
    starts, ends, groups = made
    chains = chain_windows(starts, ends, groups, context)
    used = chains[chains >= 0]
    assert sorted(used) == list(range(len(starts)))  # each window exactly once
    for row in chains:
        real = row[row >= 0]
        assert len(real) >= 1
        assert (row[len(real) :] == -1).all()  # padding only at the end
        assert len(set(groups[real])) == 1
        assert (starts[real[1:]] == ends[real[:-1]]).all()


@pytest.fixture
def data(tmp_path):
    return open_dataset(make_dataset(tmp_path, {f"p{i}": i % 2 for i in range(4)}))


def test_tokens_are_time_major_pieces_of_the_scaled_windows(data):
    settings = Sequences(token_seconds=0.5, context_windows=2)
    made = load_sequences(data, ["p1"], settings)
    raw = torch.from_numpy(data.signal_WCS(["p1"]))
    good = torch.from_numpy(data.frame().query("Participant == 'p1'")["good"].to_numpy(copy=True))
    scaled = robust_scale(raw[good])
    samples, valid = made.batch([0], torch.device("cpu"))
    assert samples.shape == (1, 8, 2, 16)
    assert valid.all()
    for step in range(8):
        window, piece = divmod(step, 4)
        for channel in range(2):
            expected = scaled[window, channel, piece * 16 : (piece + 1) * 16]
            assert torch.equal(samples[0, step, channel], expected)


def test_bad_windows_are_left_out_counted_and_end_a_sequence(data):
    made = load_sequences(data, ["p0"], Sequences(token_seconds=0.5, context_windows=2))
    assert (made.windows_used, made.windows_bad) == ((4,), (1,))
    everything = load_sequences(
        data, ["p0"], Sequences(token_seconds=0.5, context_windows=2, use_bad_windows=True)
    )
    assert everything.windows_used == (5,)


def test_scaling_is_per_recording_and_independent_of_who_else_is_there(data):
    alone = load_sequences(data, ["p2"], Sequences(token_seconds=0.5))
    together = load_sequences(data, ["p0", "p1", "p2"], Sequences(token_seconds=0.5))
    rows = together.windows_NV[together.of_participant(2)]
    assert torch.equal(together.signal_WCL[rows[rows >= 0]], alone.signal_WCL)


def test_who_is_not_there_or_has_no_good_window_is_named(data, tmp_path):
    with pytest.raises(RemitError, match="nobody"):
        load_sequences(data, ["nobody"], Sequences(token_seconds=0.5))
    one = open_dataset(make_dataset(tmp_path, {"q0": 0, "q1": 1}, cohort="short", windows=1))
    with pytest.raises(RemitError, match="q0 has no window of good quality"):
        load_sequences(one, ["q0"], Sequences(token_seconds=0.5))
    with pytest.raises(RemitError, match="token_seconds"):
        load_sequences(data, ["p1"], Sequences(token_seconds=0.3))


@given(
    st.lists(st.integers(1, 5000), min_size=1, max_size=200),
    st.sampled_from([0, 1, 100, 4096, 10**9]),
)
def test_batches_by_length_waste_at_most_5_per_cent(lengths, steps_at_once):
    steps_N = np.array(lengths)
    batches = length_sorted_batches(steps_N, steps_at_once)
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))  # each exactly once
    for batch in batches:
        padded = len(batch) * steps_N[batch].max()
        assert len(batch) == 1 or padded <= steps_at_once
        assert padded - steps_N[batch].sum() <= 0.05 * padded
    ends = [(steps_N[batch].min(), steps_N[batch].max()) for batch in batches]
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(ends))


def test_an_uneven_cohort_makes_few_batches():
    steps_N = np.random.default_rng(0).integers(100, 1000, size=2000)
    batches = length_sorted_batches(steps_N, 10**9)
    assert len(batches) < 30  # 2000 sequences; at 5 per cent within, about ln(10) / 0.1 batches
    padded = sum(len(batch) * steps_N[batch].max() for batch in batches)
    assert 0.02 < 1 - steps_N.sum() / padded <= 0.05  # near the bound, so hardly more than needed


def test_a_batch_can_end_with_its_longest_sequence(data):
    made = load_sequences(data, ["p1"], Sequences(token_seconds=0.5, context_windows=4))
    shortest = int(np.argmin(made.valid_steps_N))
    steps = made.valid_steps(shortest)
    assert steps == made.valid_steps_N[shortest] < made.num_steps
    whole, valid = made.batch([shortest], torch.device("cpu"))
    cut, cut_valid = made.batch([shortest], torch.device("cpu"), cut=True)
    assert cut_valid.all() and torch.equal(cut, whole[:, :steps])
    assert whole.shape[1] == made.num_steps and int(valid.sum()) == steps
