"""A latent target: predict, from what is visible, the tokens of a teacher that sees everything.

The teacher is a moving average of the encoder. It is no part of the encoder: a backbone's weights
are the same things with and without it. It knows tensors and modules only.

Source: data2vec (Baevski et al. 2022, arXiv 2202.03555), I-JEPA (Assran et al. 2023, arXiv 2301.08243).

Legend of the shape suffixes
    B sequences   K token steps in time   C channels   S samples in a token   D model width
    M masked tokens
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .encoder import Encoder


class LatentTarget(nn.Module):
    """The teacher and the perceptron that predicts its tokens from those of the encoder.

    Args:
        encoder: copied; the copy is the first teacher.
        decay: part of itself that the teacher keeps at each update, from 0 to below 1.

    Raises:
        ValueError: if the decay is out of range.
    """

    def __init__(self, encoder: Encoder, decay: float) -> None:
        super().__init__()
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay is {decay}; expected 0 to below 1")
        self.decay = decay
        self.teacher = copy.deepcopy(encoder).requires_grad_(False)
        width = encoder.settings.d_model
        self.predictor = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    @torch.no_grad()
    def targets(
        self,
        samples_BKCS: Tensor,
        valid_BK: Tensor,
        index_M: Tensor,
        electrodes_CD: Tensor | None = None,
    ) -> Tensor:
        """The teacher's tokens at some places, each normalised over its width; [M, D].

        Args:
            samples_BKCS: scaled samples, nothing hidden.
            valid_BK: bool, False where a step is padding.
            index_M: int64, flat indices (b * K + k) * C + c.
            electrodes_CD: as :meth:`Encoder.forward`.
        """
        tokens_BKCD = self.teacher(samples_BKCS, valid_BK=valid_BK, electrodes_CD=electrodes_CD)
        tokens_MD = tokens_BKCD.flatten(0, 2)[index_M]
        return F.layer_norm(tokens_MD, tokens_MD.shape[-1:])

    def forward(self, tokens_MD: Tensor) -> Tensor:
        """Predict the teacher's tokens from the encoder's at the same places; [M, D]."""
        predicted_MD: Tensor = self.predictor(tokens_MD)
        return predicted_MD

    @torch.no_grad()
    def update(self, encoder: Encoder) -> None:
        """Move the teacher towards the encoder: decay * teacher + (1 - decay) * encoder."""
        for kept, new in zip(self.teacher.parameters(), encoder.parameters(), strict=True):
            kept.lerp_(new, 1.0 - self.decay)


def target_spread(target_MD: Tensor, channel_M: Tensor, num_channels: int) -> Tensor:
    """The standard deviation of latent targets across tokens of a channel, over all widths.

    Each target has unit variance over its own width, so this is near 1 where the tokens of a channel
    differ in all respects, and 0 where the teacher says the same of each: the collapse to which a
    latent target alone may fall, while its loss looks excellent. Differences between channels do not
    count, since the encoder adds an encoding of the electrode whatever the samples are.

    Args:
        target_MD: as :meth:`LatentTarget.targets`.
        channel_M: int64, the channel of each token.
        num_channels: C.
    """
    sum_CD = target_MD.new_zeros(num_channels, target_MD.shape[1]).index_add(
        0, channel_M, target_MD
    )
    count_C = torch.bincount(channel_M, minlength=num_channels).clamp(min=1)
    mean_CD = sum_CD / count_C.unsqueeze(1)
    return (target_MD - mean_CD[channel_M]).square().mean().sqrt()
