"""The task of pretraining: encoder, reconstruction head, masks, targets and loss in one module.

Every mask is drawn from the seed it is given and the index of its sequence, so it does not depend on
batches, workers or devices. Padding is never masked, scored or pooled. Knows sequences and modules,
and no file.

Shapes: B sequences, K token steps in time, C channels, S samples per token, D model width, M masked
tokens, F frequencies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
import torch.nn.functional as F

from remit.config import Pretraining
from remit.dataset.corpus import Read
from remit.naming import MASKING_GEOMETRIES, MASKING_STYLES, ModelName
from remit.nn.encoder import Encoder
from remit.nn.heads import LogSpectrum, PooledHead, ReconstructionHead, reconstruction_loss
from remit.nn.latent import LatentTarget, target_spread
from remit.nn.masking import Corruption, draw_corruption, sequence_mask


def block_steps(seconds: tuple[float, float], step_seconds: float) -> tuple[int, int]:
    """The shortest and the longest masked block in token steps, of their seconds; at least one step."""
    shortest, longest = (max(1, round(each / step_seconds)) for each in seconds)
    return shortest, longest


@dataclass(frozen=True)
class MaskedBatch:
    """Sequences of one montage with their masks; see `nn.masking` for what these mean.

    ``number_B`` says which sequences they are; ``electrodes_CD`` is None where the channels are those
    of the backbone.
    """

    samples_BKCS: torch.Tensor
    valid_BK: torch.Tensor
    masked_BKC: torch.Tensor
    token_BKC: torch.Tensor
    source_BKC: torch.Tensor
    number_B: torch.Tensor
    electrodes_CD: torch.Tensor | None = None

    def pieces(self, size: int) -> list[MaskedBatch]:
        """Cut into batches of at most ``size`` sequences."""
        names = [field.name for field in fields(self) if field.name != "electrodes_CD"]
        return [
            replace(self, **{name: getattr(self, name)[first : first + size] for name in names})
            for first in range(0, len(self.number_B), size)
        ]


class Reconstruction(torch.nn.Module):
    """Encoder and reconstruction head with the targets and the loss of the settings.

    ``pooled`` and ``latent`` are None, and cost nothing, where the settings give them no weight. The
    teacher of the latter is part of this module's state, and never of the encoder's.
    """

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
        sizes = encoder.settings.d_model, samples, self.spectrum.num_frequencies
        self.head = ReconstructionHead(*sizes)
        self.pooled = PooledHead(*sizes) if settings.pooled_weight else None
        self.latent = (
            LatentTarget(encoder, settings.latent_decay) if settings.latent_weight else None
        )
        for part in (self.head, self.pooled.output if self.pooled else None):
            if part is not None:  # what has no loss has no gradient, and must not wait for one
                part.waveform.requires_grad_(settings.waveform_weight > 0)
                part.log_spectrum.requires_grad_(settings.spectrum_weight > 0)
        step_seconds = samples / sampling_rate
        single, in_blocks = MASKING_GEOMETRIES[settings.geometry]
        self.single_channel_fraction = (
            settings.single_channel_fraction if single is None else single
        )
        seconds = settings.block_seconds if in_blocks else (step_seconds, step_seconds)
        self.block_steps = block_steps(seconds, step_seconds)
        self.corruption = Corruption(*MASKING_STYLES[name.masking_style])

    def masked_batch(
        self,
        read: Read,
        seed: Sequence[int],
        device: torch.device,
        *,
        electrodes_CD: torch.Tensor | None = None,
        hide_all: bool = False,
    ) -> MaskedBatch:
        """Draw the masks of some sequences of one montage.

        Each is drawn from ``seed``, its sequence's number and, from the second time in an epoch on,
        how manieth time it is. With ``hide_all`` every masked token becomes the mask token, as in `mae`.
        """
        corruption = Corruption(1.0, 0.0, 0.0) if hide_all else self.corruption
        K, C = read.samples_BKCS.shape[1:3]
        steps_B = read.valid_BK.sum(1).tolist()
        masked, token, source = [], [], []
        for number, turn, steps in zip(
            read.number_B.tolist(), read.turn_B.tolist(), steps_B, strict=True
        ):
            rng = np.random.default_rng([*seed, number, *([turn] if turn else [])])
            mask_KC = sequence_mask(
                steps,
                K,
                C,
                self.name.mask_ratio,
                block_steps=self.block_steps,
                rng=rng,
                single_channel_fraction=self.single_channel_fraction,
            )
            token_KC, source_KC = draw_corruption(mask_KC, corruption, rng, valid_steps=steps)
            masked.append(mask_KC)
            token.append(token_KC)
            source.append(source_KC)
        masked_BKC, token_BKC, source_BKC = (
            torch.from_numpy(np.stack(part)).to(device) for part in (masked, token, source)
        )
        return MaskedBatch(
            read.samples_BKCS.to(device),
            read.valid_BK.to(device),
            masked_BKC,
            token_BKC,
            source_BKC,
            torch.from_numpy(read.number_B),
            electrodes_CD,
        )

    def forward(self, batch: MaskedBatch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss on masked tokens and its parts.

        Returns:
            loss: the weighted sum of the parts, a mean over masked tokens. Outside of training
                without ``latent``: its target moves, so that two epochs cannot be compared by it.
            parts: detached and before weighting, as far as they have a weight: ``waveform``,
                ``spectrum``, ``pooled`` (of these two together, in their weights), ``latent``, and
                ``latent_std``, which falls to 0 where the teacher collapses (a figure of the batch:
                that of a part of it differs); ``masked_tokens``, how many tokens the means are
                over. Outside of training also the sums from which the explained variance is made.

        In precision bfloat16 the products around the blocks, too, are those of autocast; parameters,
        norms, the residual stream, spectra and losses stay float32.

        Raises:
            ValueError: if no token is masked.
        """
        half = self.encoder.settings.precision == "bfloat16"
        with torch.autocast(batch.samples_BKCS.device.type, torch.bfloat16, enabled=half):
            return self._loss(batch)

    def _loss(self, batch: MaskedBatch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        options = self.settings
        tokens_BKCD = self.encoder(
            batch.samples_BKCS,
            valid_BK=batch.valid_BK,
            masked_BKC=batch.token_BKC,
            source_BKC=batch.source_BKC,
            electrodes_CD=batch.electrodes_CD,
        )
        real_BKC = batch.valid_BK.unsqueeze(-1).expand_as(batch.masked_BKC)
        index_M = (batch.masked_BKC & real_BKC).flatten().nonzero().squeeze(1)
        if len(index_M) == 0:
            raise ValueError("no token of the batch is masked; expected at least one to predict")
        tokens_MD = tokens_BKCD.flatten(0, 2)[index_M]
        with torch.no_grad():  # no gradient may run through what is to be predicted
            true_MS = batch.samples_BKCS.flatten(0, 2)[index_M]
            true_MF = self.spectrum(true_MS)
        pred_MS, pred_MF = (predicted.float() for predicted in self.head(tokens_MD))
        weights = {
            "waveform_weight": options.waveform_weight,
            "spectrum_weight": options.spectrum_weight,
        }
        loss, parts = reconstruction_loss(pred_MS, true_MS, pred_MF, true_MF, **weights)
        if self.pooled:
            guess_MS, guess_MF = self.pooled(
                tokens_BKCD,
                real_BKC & ~batch.masked_BKC,
                self.encoder.electrodes_CD if batch.electrodes_CD is None else batch.electrodes_CD,
                index_M,
            )
            pooled, _ = reconstruction_loss(
                guess_MS.float(), true_MS, guess_MF.float(), true_MF, **weights
            )
            loss = loss + options.pooled_weight * pooled
            parts["pooled"] = pooled.detach()
        if self.latent:
            target_MD = self.latent.targets(
                batch.samples_BKCS, batch.valid_BK, index_M, batch.electrodes_CD
            )
            latent = F.smooth_l1_loss(self.latent(tokens_MD).float(), target_MD)
            if self.training:
                loss = loss + options.latent_weight * latent
            channels = batch.samples_BKCS.shape[2]
            spread = target_spread(target_MD, index_M % channels, channels)
            parts |= {"latent": latent.detach(), "latent_std": spread}
        parts["masked_tokens"] = torch.tensor(len(index_M), device=loss.device)
        if not self.training:
            parts |= _explained(pred_MS, true_MS, "waveform")
            parts |= _explained(pred_MF, true_MF, "spectrum")
        return loss, parts

    def after_step(self) -> None:
        """Move the teacher, if there is one; to be called after every step of the optimiser."""
        if self.latent:
            self.latent.update(self.encoder)


def _explained(predicted: torch.Tensor, true: torch.Tensor, what: str) -> dict[str, torch.Tensor]:
    """Sums from which 1 - squared error / mean square of the masked tokens is made."""
    return {
        f"{what}_residual": (true - predicted).square().sum(),
        f"{what}_total": true.square().sum(),
    }
