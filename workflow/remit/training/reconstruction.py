"""The task of pretraining: encoder, reconstruction head, masks, targets and loss in one module.

Every mask is drawn from the seed it is given and the index of its sequence, so it does not depend on
batches, workers or devices. Knows sequences and modules, and no file.

Shapes: B sequences, K token steps in time, C channels, S samples per token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from remit.config import Pretraining
from remit.dataset.sequences import TokenSequences
from remit.naming import MASKING_STYLES, ModelName
from remit.nn.encoder import Encoder
from remit.nn.heads import LogSpectrum, ReconstructionHead, reconstruction_loss
from remit.nn.masking import Corruption, draw_corruption, sequence_mask


@dataclass(frozen=True)
class MaskedBatch:
    """A batch with its masks; see `nn.masking` for what they mean."""

    samples_BKCS: torch.Tensor
    valid_BK: torch.Tensor
    masked_BKC: torch.Tensor
    token_BKC: torch.Tensor
    source_BKC: torch.Tensor


class Reconstruction(torch.nn.Module):
    """Encoder and reconstruction head with the targets and the loss of the settings."""

    def __init__(
        self, encoder: Encoder, settings: Pretraining, name: ModelName, sampling_rate: float
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.settings = settings
        self.name = name
        low, high = settings.spectrum_hz
        samples = encoder.settings.samples_per_token
        self.spectrum = LogSpectrum(samples, sampling_rate, low, high)
        self.head = ReconstructionHead(
            encoder.settings.d_model, samples, self.spectrum.num_frequencies
        )
        step_seconds = samples / sampling_rate
        low_s, high_s = settings.block_seconds
        self.block_steps = (
            max(1, round(low_s / step_seconds)),
            max(1, round(high_s / step_seconds)),
        )
        self.corruption = Corruption(*MASKING_STYLES[name.masking_style])

    def masked_batch(
        self,
        sequences: TokenSequences,
        indices: np.ndarray,
        seed: Sequence[int],
        device: torch.device,
        *,
        hide_all: bool = False,
    ) -> MaskedBatch:
        """Draw the masks of some sequences; each from ``seed`` and its own index only.

        With ``hide_all`` every masked token becomes the mask token, as in `mae`.
        """
        corruption = Corruption(1.0, 0.0, 0.0) if hide_all else self.corruption
        samples_BKCS, valid_BK = sequences.batch(indices, device)
        K, C = samples_BKCS.shape[1:3]
        masked, token, source = [], [], []
        for index in indices:
            rng = np.random.default_rng([*seed, int(index)])
            mask_KC = sequence_mask(
                sequences.valid_steps(int(index)),
                K,
                C,
                self.name.mask_ratio,
                block_steps=self.block_steps,
                rng=rng,
                single_channel_fraction=self.settings.single_channel_fraction,
            )
            token_KC, source_KC = draw_corruption(
                mask_KC, corruption, rng, valid_steps=sequences.valid_steps(int(index))
            )
            masked.append(mask_KC)
            token.append(token_KC)
            source.append(source_KC)
        stacked = (torch.from_numpy(np.stack(part)).to(device) for part in (masked, token, source))
        return MaskedBatch(samples_BKCS, valid_BK, *stacked)

    def forward(self, batch: MaskedBatch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss on masked tokens and its parts."""
        tokens_BKCD = self.encoder(
            batch.samples_BKCS,
            valid_BK=batch.valid_BK,
            masked_BKC=batch.token_BKC,
            source_BKC=batch.source_BKC,
        )
        waveform, spectrum = self.head(tokens_BKCD)
        true_spectrum = self.spectrum(batch.samples_BKCS)
        loss, parts = reconstruction_loss(
            waveform,
            batch.samples_BKCS,
            spectrum,
            true_spectrum,
            batch.masked_BKC,
            waveform_weight=self.settings.waveform_weight,
            spectrum_weight=self.settings.spectrum_weight,
        )
        if not self.training:
            parts = (
                parts
                | _explained(
                    waveform[batch.masked_BKC], batch.samples_BKCS[batch.masked_BKC], "waveform"
                )
                | _explained(
                    spectrum[batch.masked_BKC], true_spectrum[batch.masked_BKC], "spectrum"
                )
            )
        return loss, parts


def _explained(predicted: torch.Tensor, true: torch.Tensor, what: str) -> dict[str, torch.Tensor]:
    """Sums from which 1 - squared error / mean square of the masked tokens is made."""
    return {
        f"{what}_residual": (true - predicted).square().sum(),
        f"{what}_total": true.square().sum(),
    }
