"""Masks: exact counts, blocks, padding, and what stands in for masked tokens."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remit.nn.masking import Corruption, draw_corruption, mask_tokens, sequence_mask

sizes = {"steps": st.integers(1, 40), "channels": st.integers(1, 8)}
ratios = st.floats(0.001, 1.0)
seeds = st.integers(0, 2**32)
blocks = st.tuples(st.integers(1, 6), st.integers(0, 4)).map(lambda b: (b[0], b[0] + b[1]))


def run_lengths(row_K: np.ndarray) -> list[int]:
    edges = np.flatnonzero(np.diff(np.r_[0, row_K.astype(int), 0]))
    return list(edges[1::2] - edges[::2])


@given(**sizes, ratio=ratios, seed=seeds, block_steps=blocks, fraction=st.floats(0, 1))
def test_count_is_exact(steps, channels, ratio, seed, block_steps, fraction) -> None:
    mask = mask_tokens(
        steps,
        channels,
        ratio,
        block_steps=block_steps,
        rng=np.random.default_rng(seed),
        single_channel_fraction=fraction,
    )
    total = steps * channels
    expected = max(1, round(ratio * total))
    if ratio < 1 and total > 1:
        expected = min(expected, total - 1)
    assert mask.shape == (steps, channels) and mask.dtype == np.bool_
    assert mask.sum() == expected


@given(**sizes, seed=seeds)
def test_ratio_one_masks_everything(steps, channels, seed) -> None:
    assert mask_tokens(steps, channels, 1.0, rng=np.random.default_rng(seed)).all()


@given(**sizes, ratio=ratios, seed=seeds, block_steps=blocks)
def test_single_channel_blocks_are_long_enough(steps, channels, ratio, seed, block_steps) -> None:
    mask = mask_tokens(
        steps,
        channels,
        ratio,
        block_steps=block_steps,
        rng=np.random.default_rng(seed),
        single_channel_fraction=1.0,
    )
    runs = [run for c in range(channels) for run in run_lengths(mask[:, c])]
    # Overlapping blocks make longer runs; only the last, trimmed block may make a shorter one.
    assert sum(run < min(block_steps[0], steps) for run in runs) <= 1


@given(**sizes, ratio=ratios, seed=seeds, block_steps=blocks)
def test_blocks_over_all_channels_cover_them(steps, channels, ratio, seed, block_steps) -> None:
    mask = mask_tokens(
        steps,
        channels,
        ratio,
        block_steps=block_steps,
        rng=np.random.default_rng(seed),
        single_channel_fraction=0.0,
    )
    partly = mask.any(axis=1) & ~mask.all(axis=1)
    assert partly.sum() <= 1
    runs = run_lengths(mask.all(axis=1) | partly)
    assert sum(run < min(block_steps[0], steps) for run in runs) <= 1


def test_every_block_length_is_drawn_alike() -> None:
    mask = mask_tokens(10_000, 1, 0.03, block_steps=(2, 4), rng=np.random.default_rng(0))
    counts = np.bincount(run_lengths(mask[:, 0]), minlength=5)
    # About 100 blocks, 33 of each length; a few touch each other, and the last is trimmed.
    assert counts[1] <= 1 and counts[5:].sum() <= 5
    np.testing.assert_allclose(counts[2:5], 33, atol=4 * np.sqrt(33 * 2 / 3))


def test_share_of_blocks_on_one_channel() -> None:
    # A budget of four tokens on eight channels is filled by one block over all channels (in one
    # step) or by blocks on single channels (over several steps).
    def first_is_single(seed: int) -> bool:
        mask = mask_tokens(50, 8, 4 / 400, block_steps=(4, 4), rng=np.random.default_rng(seed))
        return bool(mask.any(axis=0).sum() == 1)

    share = np.mean([first_is_single(seed) for seed in range(800)])
    assert share == pytest.approx(0.5, abs=0.07)  # four standard errors


@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
def test_no_channel_and_no_half_is_favoured(fraction: float) -> None:
    # 14 of 80 tokens: blocks over all four channels are always trimmed, to two of them.
    draws = 1000
    total = np.zeros((20, 4))
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        total += mask_tokens(20, 4, 14 / 80, rng=rng, single_channel_fraction=fraction)
    share = total / draws
    np.testing.assert_allclose(share.mean(axis=0), 14 / 80, atol=0.012)
    np.testing.assert_allclose([share[:10].mean(), share[10:].mean()], 14 / 80, atol=0.012)


@given(**sizes, ratio=ratios, seed=seeds)
def test_same_generator_same_mask(steps, channels, ratio, seed) -> None:
    masks = [
        mask_tokens(steps, channels, ratio, rng=np.random.default_rng([seed, 1])) for _ in "ab"
    ]
    assert np.array_equal(*masks)


def test_other_generator_other_mask() -> None:
    masks = [mask_tokens(30, 4, 0.3, rng=np.random.default_rng([7, n])) for n in range(5)]
    assert len({mask.tobytes() for mask in masks}) == 5


@given(**sizes, padding=st.integers(0, 10), ratio=ratios, seed=seeds)
def test_padding_is_never_masked_and_changes_nothing(steps, channels, padding, ratio, seed) -> None:
    mask = sequence_mask(steps, steps + padding, channels, ratio, rng=np.random.default_rng(seed))
    alone = mask_tokens(steps, channels, ratio, rng=np.random.default_rng(seed))
    assert mask.shape == (steps + padding, channels)
    assert np.array_equal(mask[:steps], alone) and not mask[steps:].any()


def test_high_ratios_do_not_crawl() -> None:
    start = time.perf_counter()
    for ratio in (0.5, 0.9, 0.99, 0.999):
        mask_tokens(64, 19, ratio, rng=np.random.default_rng(0))
    assert time.perf_counter() - start < 1.0  # about 0.02 s; a rejection loop takes far longer


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ratio": 0.0}, "ratio is 0.0"),
        ({"ratio": 1.1}, "ratio is 1.1"),
        ({"ratio": float("nan")}, "ratio is nan"),
        ({"block_steps": (3, 2)}, "block_steps is"),
        ({"block_steps": (0, 2)}, "block_steps is"),
        ({"single_channel_fraction": 1.5}, "single_channel_fraction is 1.5"),
        ({"num_steps": 0}, "0 steps"),
    ],
)
def test_wrong_arguments_are_named(arguments, message) -> None:
    usual = {"num_steps": 4, "num_channels": 2, "ratio": 0.5, "rng": np.random.default_rng(0)}
    with pytest.raises(ValueError, match=message):
        mask_tokens(**(usual | arguments))


def test_valid_steps_must_be_within_the_sequence() -> None:
    for valid in (0, 5):
        with pytest.raises(ValueError, match=f"valid_steps is {valid}"):
            sequence_mask(valid, 4, 2, 0.5, rng=np.random.default_rng(0))


@pytest.mark.parametrize("shares", [(0.5, 0.5, 0.5), (1.2, -0.2, 0.0), (0.0, 0.0, 0.0)])
def test_shares_must_sum_to_one(shares) -> None:
    with pytest.raises(ValueError, match="shares of a corruption"):
        Corruption(*shares)


def test_plain_masking_hides_every_masked_token() -> None:
    mask = mask_tokens(40, 4, 0.5, rng=np.random.default_rng(0))
    hidden, source = draw_corruption(mask, Corruption(1, 0, 0), np.random.default_rng(1))
    assert np.array_equal(hidden, mask)
    assert np.array_equal(source.ravel(), np.arange(160)) and source.dtype == np.int64


def test_corruption_has_the_asked_shares() -> None:
    mask = mask_tokens(500, 10, 0.5, rng=np.random.default_rng(0))
    hidden, source = draw_corruption(mask, Corruption(0.8, 0.1, 0.1), np.random.default_rng(1))
    replaced = source.ravel() != np.arange(5000)
    # 2500 masked tokens: the standard error of 0.1 is 0.006, of 0.8 is 0.008.
    assert hidden.sum() / 2500 == pytest.approx(0.8, abs=0.03)
    assert replaced.sum() / 2500 == pytest.approx(0.1, abs=0.025)
    assert not (hidden & ~mask).any() and not (replaced & ~mask.ravel()).any()
    assert not (hidden.ravel() & replaced).any()
    # Uniform over the sequence: the sources spread over it evenly.
    assert np.mean(source.ravel()[replaced]) == pytest.approx(2500, abs=4 * 1443 / 15)


@settings(deadline=None)
@given(
    steps=st.integers(1, 12),
    padding=st.integers(0, 4),
    channels=st.integers(1, 4),
    ratio=ratios,
    seed=seeds,
    corruption=st.sampled_from(
        [
            Corruption(0.8, 0.1, 0.1),
            Corruption(0.0, 1.0, 0.0),
            Corruption(0.3, 0.7, 0.0),
            Corruption(0.0, 0.5, 0.5),
        ]
    ),
)
def test_replacements_show_no_hidden_content(
    steps, padding, channels, ratio, seed, corruption
) -> None:
    rng = np.random.default_rng(seed)
    mask = sequence_mask(steps, steps + padding, channels, ratio, rng=rng)
    hidden, source = draw_corruption(mask, corruption, rng, valid_steps=steps)
    flat_mask, flat_hidden, flat = mask.ravel(), hidden.ravel(), source.ravel()
    own = np.arange(flat.size)
    replaced = flat != own
    assert not (replaced & ~flat_mask).any() and not (flat_hidden & ~flat_mask).any()
    shown = ~flat_hidden & ~replaced
    assert shown[flat[replaced]].all()
    assert (flat[replaced] < steps * channels).all()
    if corruption.keep == 0:  # nobody keeps its content, not even for want of a replacement
        assert (replaced | flat_hidden)[flat_mask].all()


def test_corruption_depends_on_the_generator_only() -> None:
    mask = mask_tokens(40, 4, 0.5, rng=np.random.default_rng(0))
    bert = Corruption(0.8, 0.1, 0.1)
    first, again, other = (
        draw_corruption(mask, bert, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_masked_padding_is_refused() -> None:
    with pytest.raises(ValueError, match="padding"):
        draw_corruption(
            np.ones((4, 2), dtype=bool),
            Corruption(1, 0, 0),
            np.random.default_rng(0),
            valid_steps=3,
        )
