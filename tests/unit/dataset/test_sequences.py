"""Windows to sequences: nothing is joined that does not follow, nothing is lost."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from remit.config import Sequences
from remit.dataset.sequences import chain_windows, load_sequences
from remit.dataset.windows import open_dataset
from remit.errors import RemitError
from remit.nn.scaling import robust_scale
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
