"""Random changes of training sequences that keep what is to be learned: how electrodes and moments of
one brain hang together. Each is drawn from a seed and its sequence only, as masks are.

Shapes: B sequences, K token steps in time, C channels, S samples per token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from remit.config import Pretraining
from remit.dataset.corpus import Read

# A shift costs a sequence its last step; where that is more than an eighth of it, it is left out.
FEWEST_STEPS = 8


def augmented(read: Read, options: Pretraining, seed: Sequence[int]) -> Read:
    """Sequences shifted within a token, turned upside down and louder or softer, as the settings say.

    A shifted sequence begins a random number of samples later, and its last step becomes padding.
    """
    if not (options.random_shift or options.random_sign or options.random_gain):
        return read
    # By numpy, and each sample written once: rows are too small for torch's calls.
    from_BKCS, valid_BK = read.samples_BKCS.numpy(), read.valid_BK.numpy().copy()
    to_BKCS = np.empty_like(from_BKCS)
    C, S = from_BKCS.shape[2:]
    steps_B = valid_BK.sum(axis=1).tolist()
    for row, (number, turn) in enumerate(
        zip(read.number_B.tolist(), read.turn_B.tolist(), strict=True)
    ):
        rng = np.random.default_rng([*seed, number, turn])
        # Always all three, so that leaving one out does not change the others.
        shift, sign = int(rng.integers(S)), (-1.0, 1.0)[rng.integers(2)]
        gain = float(np.exp(rng.normal(0.0, options.random_gain)))
        if options.random_sign:
            gain *= sign
        steps, moved = steps_B[row], 0
        if options.random_shift and shift and steps >= FEWEST_STEPS:
            later = steps - 1
            flat_CL = from_BKCS[row, :steps].transpose(1, 0, 2).reshape(C, steps * S)
            later_CkS = flat_CL[:, shift : shift + later * S].reshape(C, later, S)
            np.multiply(later_CkS.transpose(1, 0, 2), gain, out=to_BKCS[row, :later])
            to_BKCS[row, later] = 0.0 * gain
            valid_BK[row, later] = False
            moved = steps
        np.multiply(from_BKCS[row, moved:], gain, out=to_BKCS[row, moved:])
    return replace(
        read, samples_BKCS=torch.from_numpy(to_BKCS), valid_BK=torch.from_numpy(valid_BK)
    )
