"""Random changes of training sequences that keep what is to be learned: how electrodes and moments of
one brain hang together. Each is drawn from a seed and its sequence only, as masks are.

Shapes: B sequences, K token steps in time, C channels, S samples per token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from remit.config import Pretraining
from remit.dataset.corpus import Read

# A shift costs a sequence its last step; where that is more than an eighth of it, it is left out.
FEWEST_STEPS = 8


def augmented(read: Read, options: Pretraining, seed: Sequence[int]) -> Read:
    """Sequences shifted within a token, turned upside down and louder or softer, as the settings say.

    A shifted sequence begins a random number of samples later, and its last step becomes padding.
    """
    samples_BKCS, valid_BK = read.samples_BKCS, read.valid_BK
    if not (options.random_shift or options.random_sign or options.random_gain):
        return read
    samples_BKCS, valid_BK = samples_BKCS.clone(), valid_BK.clone()
    C, S = samples_BKCS.shape[2:]
    for row, (number, turn) in enumerate(
        zip(read.number_B.tolist(), read.turn_B.tolist(), strict=True)
    ):
        rng = np.random.default_rng([*seed, number, turn])
        # Always all three, so that leaving one out does not change the others.
        shift, sign = int(rng.integers(S)), float(rng.choice([-1.0, 1.0]))
        gain = float(np.exp(rng.normal(0.0, options.random_gain)))
        steps = int(valid_BK[row].sum())
        if options.random_shift and shift and steps >= FEWEST_STEPS:
            # A copy: of one channel this would be a view, written to while it is read.
            flat_CL = samples_BKCS[row, :steps].transpose(0, 1).reshape(C, steps * S).clone()
            later_CL = flat_CL[:, shift : shift + (steps - 1) * S]
            samples_BKCS[row, : steps - 1] = later_CL.reshape(C, steps - 1, S).transpose(0, 1)
            samples_BKCS[row, steps - 1] = 0.0
            valid_BK[row, steps - 1] = False
        samples_BKCS[row] *= gain * (sign if options.random_sign else 1.0)
    return replace(read, samples_BKCS=samples_BKCS, valid_BK=valid_BK)
