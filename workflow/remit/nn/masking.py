"""Which tokens are masked for pretraining, and what the model sees in their place.

It draws masks for one sequence at a time from the random generator it is given, and from nothing
else: a mask does not depend on the batch, the workers or the devices around it. Seed a generator
per sequence, for example ``np.random.default_rng([seed, epoch, index])``. It knows nothing of the
names of masking styles, of configuration or of files.

Source: masked reconstruction as in He et al. 2022 (arXiv 2111.06377) and Devlin et al. 2019
(arXiv 1810.04805), with blocks in time rather than independent tokens.

Legend of the shape suffixes
    K token steps in time   C channels   flat index of a token: k * C + c (time-major)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Corruption:
    """What a masked token is turned into: three probabilities that sum to 1.

    mask: its content becomes the learned mask token.
    replace: its content becomes that of another token of the sequence.
    keep: its content stays.
    """

    mask: float
    replace: float
    keep: float

    def __post_init__(self) -> None:
        shares = (self.mask, self.replace, self.keep)
        if not all(0.0 <= share <= 1.0 for share in shares):
            raise ValueError(f"the shares of a corruption lie between 0 and 1; found {shares}")
        if not math.isclose(sum(shares), 1.0, abs_tol=1e-9):
            raise ValueError(f"the shares of a corruption sum to 1; {shares} sum to {sum(shares)}")


def mask_tokens(
    num_steps: int,
    num_channels: int,
    ratio: float,
    *,
    block_steps: tuple[int, int] = (2, 4),
    rng: np.random.Generator,
    single_channel_fraction: float = 0.5,
) -> BoolArray:
    """Draw which tokens of a sequence are masked, in blocks of successive steps.

    Each block starts from a token drawn uniformly among those not yet masked, so no draw is
    wasted however high the ratio. The last block is trimmed to reach the exact count.

    Args:
        num_steps, num_channels: size of the sequence, K and C.
        ratio: share of the K * C tokens to mask, above 0 and at most 1.
        block_steps: shortest and longest block in steps, both possible.
        rng: the only source of randomness.
        single_channel_fraction: probability that a block lies on one channel; otherwise it
            covers all channels.

    Returns:
        mask_KC, True where masked: ``round(ratio * K * C)`` tokens, but at least one, and, when
        the ratio is below 1 and there is more than one token, not all of them.

    Raises:
        ValueError: for a size below 1, or a ratio, block or fraction out of range.
    """
    shortest, longest = block_steps
    if num_steps < 1 or num_channels < 1:
        raise ValueError(f"a mask needs tokens; found {num_steps} steps, {num_channels} channels")
    if not 0.0 < ratio <= 1.0:
        raise ValueError(f"the mask ratio is {ratio}; it must be above 0 and at most 1")
    if not 1 <= shortest <= longest:
        raise ValueError(f"block_steps is {block_steps}; expected 1 <= shortest <= longest")
    if not 0.0 <= single_channel_fraction <= 1.0:
        raise ValueError(
            f"single_channel_fraction is {single_channel_fraction}; it must be between 0 and 1"
        )

    total = num_steps * num_channels
    most = total if ratio == 1.0 or total == 1 else total - 1
    remaining = min(max(round(ratio * total), 1), most)
    if remaining == total:
        return np.ones((num_steps, num_channels), dtype=np.bool_)

    # Bytes, not an array: blocks are a few tokens, and a call of numpy costs more than one of them.
    masked = bytearray(total)
    # Walking a random order and skipping what is masked by then draws uniformly from the rest.
    for anchor in rng.permutation(total).tolist():
        if masked[anchor]:
            continue
        step, channel = divmod(anchor, num_channels)
        length = min(int(rng.integers(shortest, longest + 1)), num_steps)
        start = min(max(step - int(rng.integers(length)), 0), num_steps - length)
        if rng.random() < single_channel_fraction:
            channels = [channel]
        else:  # a random order, so that trimming favours no channel
            channels = rng.permutation(num_channels).tolist()
        block = (k * num_channels + c for k in range(start, start + length) for c in channels)
        for token in [token for token in block if not masked[token]][:remaining]:
            masked[token] = True
            remaining -= 1
        if remaining == 0:
            break
    return np.frombuffer(masked, dtype=np.bool_).reshape(num_steps, num_channels)


def sequence_mask(
    valid_steps: int,
    num_steps: int,
    num_channels: int,
    ratio: float,
    *,
    block_steps: tuple[int, int] = (2, 4),
    rng: np.random.Generator,
    single_channel_fraction: float = 0.5,
) -> BoolArray:
    """Draw the mask of a sequence of which only the first ``valid_steps`` steps are real.

    Padding is never masked, and the draw does not depend on how much of it there is: the same
    generator gives the same mask for the real steps at any ``num_steps``.

    Args:
        valid_steps: real steps, from 1 to ``num_steps``; the ratio is a share of their tokens.
        num_steps: steps including padding.
        num_channels, ratio, block_steps, rng, single_channel_fraction: as in
            :func:`mask_tokens`.

    Returns:
        mask_KC of ``num_steps`` steps.

    Raises:
        ValueError: if ``valid_steps`` is out of range, and as in :func:`mask_tokens`.
    """
    if not 1 <= valid_steps <= num_steps:
        raise ValueError(f"valid_steps is {valid_steps}; expected 1 to num_steps = {num_steps}")
    mask_KC = np.zeros((num_steps, num_channels), dtype=np.bool_)
    mask_KC[:valid_steps] = mask_tokens(
        valid_steps,
        num_channels,
        ratio,
        block_steps=block_steps,
        rng=rng,
        single_channel_fraction=single_channel_fraction,
    )
    return mask_KC


def draw_corruption(
    mask_KC: BoolArray,
    corruption: Corruption,
    rng: np.random.Generator,
    *,
    valid_steps: int | None = None,
) -> tuple[BoolArray, IntArray]:
    """Draw what the model sees in place of each masked token.

    Replacements are drawn uniformly from the other tokens whose own content is on show (visible
    or kept). The content of a token that is hidden or replaced therefore appears nowhere: were
    it offered elsewhere in the sequence, the model could copy the answer. Where no such token
    exists (everything is masked), a token due to be replaced gets the mask token instead.

    Args:
        mask_KC: True where masked.
        corruption: the three probabilities, applied to each masked token on its own.
        rng: the only source of randomness.
        valid_steps: how many of the first steps are real; padding is never drawn as a
            replacement. All of them when not given.

    Returns:
        use_mask_token_KC: True where the content is the learned mask token.
        source_KC: int64, the flat index k * C + c of the token whose content is used; a token's
            own index unless it was replaced.

    Raises:
        ValueError: if ``valid_steps`` is out of range or a token of the padding is masked.
    """
    num_steps, num_channels = mask_KC.shape
    real_steps = num_steps if valid_steps is None else valid_steps
    if not 1 <= real_steps <= num_steps:
        raise ValueError(f"valid_steps is {real_steps}; expected 1 to {num_steps}")
    if mask_KC[real_steps:].any():
        raise ValueError(f"tokens after step {real_steps} are padding and cannot be masked")

    masked = np.flatnonzero(mask_KC)
    real = real_steps * num_channels
    source = np.arange(num_steps * num_channels, dtype=np.int64)
    hidden = np.zeros(num_steps * num_channels, dtype=np.bool_)

    draw = rng.random(len(masked))
    # The last share that is not zero takes what rounding leaves, so a share of 0 stays at 0.
    hide_below = corruption.mask if corruption.replace or corruption.keep else 1.0
    replace_below = corruption.mask + corruption.replace if corruption.keep else 1.0
    hide = masked[draw < hide_below]
    replace = masked[(draw >= hide_below) & (draw < replace_below)]

    shown = np.ones(real, dtype=np.bool_)
    shown[hide] = False
    shown[replace] = False
    candidates = np.flatnonzero(shown)
    hidden[hide] = True
    if len(replace) and len(candidates):
        source[replace] = rng.choice(candidates, size=len(replace))
    else:
        hidden[replace] = True
    return hidden.reshape(mask_KC.shape), source.reshape(mask_KC.shape)
