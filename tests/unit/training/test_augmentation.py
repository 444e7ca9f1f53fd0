"""Random changes of training sequences."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from remit.config import Pretraining
from remit.dataset.corpus import Read
from remit.training.augmentation import FEWEST_STEPS, augmented

NOTHING = {"random_shift": False, "random_sign": False, "random_gain": 0.0}


def read_with(valid, K=12, C=3, S=5, seed=0, first=0):
    """Sequences of which sample number t of channel c is c * 1000 + t + 1."""
    time_KS = torch.arange(K * S, dtype=torch.float32).reshape(K, S) + 1
    samples_KCS = time_KS[:, None] + 1000 * torch.arange(C)[None, :, None]
    valid_BK = torch.arange(K) < torch.tensor(valid)[:, None]
    samples_BKCS = samples_KCS.expand(len(valid), K, C, S) * valid_BK[:, :, None, None]
    numbers = np.arange(first, first + len(valid))
    return Read(tuple("abc"[:C]), samples_BKCS.clone(), valid_BK, numbers, np.zeros_like(numbers))


def changed(read, seed=(1, 2), **options):
    return augmented(read, Pretraining(**{**NOTHING, **options}), seed)


def test_nothing_is_changed_where_nothing_is_asked():
    read = read_with([12, 9])
    assert changed(read) is read


@given(seed=st.integers(0, 10_000), steps=st.integers(1, 12), channels=st.integers(1, 3))
@settings(deadline=None, max_examples=100)
def test_a_shifted_sequence_is_the_same_signal_from_a_later_sample_on(seed, steps, channels):
    read = read_with([steps], C=channels)
    before = read.samples_BKCS.clone()
    out = changed(read, (seed,), random_shift=True)
    assert torch.equal(read.samples_BKCS, before)  # what was read is kept for the next epoch
    left = int(out.valid_BK.sum())
    assert left in ((steps - 1, steps) if steps >= FEWEST_STEPS else (steps,))
    flat_CL = out.samples_BKCS[0, :left].transpose(0, 1).reshape(channels, -1)
    first = float(flat_CL[0, 0]) - 1
    assert 0 <= first < 5 and (first > 0) == (left < steps)
    expected_L = torch.arange(flat_CL.shape[1]) + 1 + first
    assert torch.equal(flat_CL, expected_L + 1000 * torch.arange(channels)[:, None])
    assert (out.samples_BKCS[0, left:] == 0).all()


def test_sign_and_gain_are_those_of_a_whole_sequence():
    read = read_with([12] * 400)
    factor_B = (
        (changed(read, random_sign=True, random_gain=0.3).samples_BKCS / read.samples_BKCS)
        .flatten(1)
        .double()
    )
    assert (factor_B.std(1) < 1e-6).all()
    log_B = factor_B[:, 0].abs().log()
    assert abs(float(log_B.std()) - 0.3) < 0.04 and abs(float(log_B.mean())) < 0.05
    assert 150 < int((factor_B[:, 0] < 0).sum()) < 250


@pytest.mark.parametrize("left_out", ["random_shift", "random_sign"])
def test_one_change_does_not_depend_on_another(left_out):
    everything = {"random_shift": True, "random_sign": True, "random_gain": 0.2}
    off = {**everything, left_out: False}
    one, other = (changed(read_with([12] * 20), **each).samples_BKCS for each in (everything, off))
    gain_B = [x.flatten(1).abs().amax(1) / 2060 for x in (one, other)]
    assert (gain_B[0] / gain_B[1] - 1).abs().max() < 0.01


def test_a_change_depends_on_seed_sequence_and_turn_and_on_no_batch():
    options = {"random_shift": True, "random_sign": True, "random_gain": 0.2}
    whole = changed(read_with([12] * 6), **options)
    alone = changed(read_with([12], first=4), **options)
    assert torch.equal(alone.samples_BKCS[0], whole.samples_BKCS[4])
    assert torch.equal(alone.valid_BK[0], whole.valid_BK[4])
    again = replace(read_with([12], first=4), turn_B=np.array([1]))
    assert not torch.equal(changed(again, **options).samples_BKCS, alone.samples_BKCS)
    assert not torch.equal(
        changed(read_with([12], first=4), (1, 3), **options).samples_BKCS, alone.samples_BKCS
    )
