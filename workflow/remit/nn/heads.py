"""What is read from the encoder's tokens: a class, or the samples and spectrum of masked tokens.

It knows tensors only. The targets here are computed from scaled samples; which tokens are masked
and how participants are pooled is decided elsewhere.

Legend of the shape suffixes
    B sequences   K token steps in time   C channels   S samples in a token   D model width
    F frequencies   N tokens of any origin   M masked tokens
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Tokens whose spectra are computed at a time in LogSpectrum.fit: bounds its memory.
FIT_BATCH = 65536
# The smallest standard deviation of a log power (natural log; 0.01 is about 0.04 dB) that is
# divided by. A frequency that never varies would otherwise turn rounding into a target.
LOWEST_STD = 1e-2


class ClassifierHead(nn.Module):
    """LayerNorm, Dropout, Linear(D, D/2), GELU, Dropout, Linear(D/2, classes).

    Linear weights are Xavier uniform (Glorot & Bengio 2010), biases zero.

    Args:
        d_model: width D of an embedding, at least 2.
        num_classes: number of logits, at least 2.
        dropout: probability of both dropouts.

    Raises:
        ValueError: if a size is too small (``nn.Dropout`` checks its probability itself).
    """

    def __init__(self, d_model: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        if d_model < 2 or num_classes < 2:
            raise ValueError(
                f"d_model = {d_model} and num_classes = {num_classes} must both be at least 2"
            )
        self.layers = nn.Sequential(
            nn.LayerNorm(d_model),
            nn.Dropout(dropout),
            nn.Linear(d_model, d_model // 2),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(d_model // 2, num_classes),
        )
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, embedding_BD: Tensor) -> Tensor:
        """Return logits, [B, classes]."""
        logits: Tensor = self.layers(embedding_BD)
        return logits


class ReconstructionHead(nn.Module):
    """Two linear maps of a token: to its waveform and to its log spectrum.

    Args:
        d_model: width D of a token.
        samples_per_token: S.
        num_frequencies: F, as :attr:`LogSpectrum.num_frequencies`.
    """

    def __init__(self, d_model: int, samples_per_token: int, num_frequencies: int) -> None:
        super().__init__()
        self.waveform = nn.Linear(d_model, samples_per_token)
        self.log_spectrum = nn.Linear(d_model, num_frequencies)

    def forward(self, tokens_BKCD: Tensor) -> tuple[Tensor, Tensor]:
        """Return waveform_BKCS (scaled samples) and log_spectrum_BKCF (standardised)."""
        return self.waveform(tokens_BKCD), self.log_spectrum(tokens_BKCD)


class LogSpectrum(nn.Module):
    """The log power spectrum of a token, standardised per frequency.

    Power is that of the Hann-windowed real FFT, divided by the window's energy, so that white
    noise of unit variance has a mean power of 1 at every frequency.

    Args:
        samples_per_token: S.
        sampling_rate: in Hz.
        low_hz, high_hz: the bins from low to high, both included, are used.
        eps: added to the power before the logarithm. At 1e-4 of the unit variance of scaled
            samples (-40 dB), what a low-pass filter left behind does not become a target.

    Raises:
        ValueError: if the band is not within 0 Hz and half the sampling rate or holds no bin.
    """

    window_S: Tensor
    mean_F: Tensor
    std_F: Tensor
    frequencies_hz_F: Tensor

    def __init__(
        self,
        samples_per_token: int,
        sampling_rate: float,
        low_hz: float,
        high_hz: float,
        eps: float = 1e-4,
    ) -> None:
        super().__init__()
        if not 0.0 <= low_hz <= high_hz <= sampling_rate / 2:
            raise ValueError(
                f"the band {low_hz:g}-{high_hz:g} Hz does not lie between 0 and half the "
                f"sampling rate, {sampling_rate / 2:g} Hz"
            )
        spacing = sampling_rate / samples_per_token
        # The tolerance keeps a bin that sits on an edge of the band, whatever the rounding.
        first = math.ceil(low_hz / spacing - 1e-9)
        last = min(math.floor(high_hz / spacing + 1e-9), samples_per_token // 2)
        if last < first:
            raise ValueError(
                f"no frequency between {low_hz:g} and {high_hz:g} Hz: bins of a token of "
                f"{samples_per_token} samples at {sampling_rate:g} Hz are {spacing:g} Hz apart"
            )
        self.samples_per_token = samples_per_token
        self.first_bin = first
        self.num_frequencies = last - first + 1
        self.eps = eps
        window_S = torch.hann_window(samples_per_token, dtype=torch.float64)
        window_S = window_S / window_S.square().sum().sqrt()
        frequencies_hz_F = torch.arange(first, last + 1, dtype=torch.float64) * spacing
        # Not persistent: given by the arguments. NaN marks statistics that were never fitted.
        self.register_buffer("window_S", window_S.float(), persistent=False)
        self.register_buffer("frequencies_hz_F", frequencies_hz_F.float(), persistent=False)
        self.register_buffer("mean_F", torch.full((self.num_frequencies,), math.nan))
        self.register_buffer("std_F", torch.full((self.num_frequencies,), math.nan))
        self._known_fitted = False

    def log_power(self, samples_S: Tensor) -> Tensor:
        """log(power + eps), natural logarithm; [..., S] to [..., F], not standardised."""
        if samples_S.shape[-1] != self.samples_per_token:
            raise ValueError(
                f"tokens have {samples_S.shape[-1]} samples; expected {self.samples_per_token}"
            )
        spectrum = torch.fft.rfft(samples_S * self.window_S)
        bins = spectrum[..., self.first_bin : self.first_bin + self.num_frequencies]
        power: Tensor = bins.real.square() + bins.imag.square()
        return (power + self.eps).log()

    @torch.no_grad()
    def fit(self, tokens_NS: Tensor) -> None:
        """Set the mean and standard deviation of every frequency from tokens of scaled samples.

        Raises:
            ValueError: if there are fewer than two tokens or a sample is not finite.
        """
        if tokens_NS.dim() != 2 or tokens_NS.shape[0] < 2:
            raise ValueError(
                f"fitting the spectrum needs at least two tokens as [N, S]; found shape "
                f"{tuple(tokens_NS.shape)}"
            )
        log_NF = torch.cat(
            [self.log_power(part_NS) for part_NS in torch.split(tokens_NS, FIT_BATCH)]
        )
        mean_F = log_NF.mean(0, dtype=torch.float64)
        # Two passes in float64: a difference of large sums would lose small deviations.
        squares_F = torch.zeros_like(mean_F)
        for part_NF in torch.split(log_NF, FIT_BATCH):
            squares_F += (part_NF.double() - mean_F).square().sum(0)
        std_F = (squares_F / len(log_NF)).sqrt()
        if not (mean_F.isfinite().all() and std_F.isfinite().all()):
            raise ValueError("a sample among the tokens to fit the spectrum on is not finite")
        self.mean_F.copy_(mean_F)
        self.std_F.copy_(std_F.clamp(min=LOWEST_STD))

    def forward(self, samples_S: Tensor) -> Tensor:
        """Standardised log power: [..., S] to [..., F].

        Raises:
            RuntimeError: if neither :meth:`fit` was called nor fitted statistics were loaded.
        """
        if not self._known_fitted:  # looked up once: on a GPU it waits for the device
            if self.std_F.isnan().any():
                raise RuntimeError("LogSpectrum is not fitted: call fit() or load fitted weights")
            self._known_fitted = True
        return (self.log_power(samples_S) - self.mean_F) / self.std_F

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        self._known_fitted = False
        super()._load_from_state_dict(state_dict, *args, **kwargs)


def reconstruction_loss(
    pred_wave_BKCS: Tensor,
    true_wave_BKCS: Tensor,
    pred_spec_BKCF: Tensor,
    true_spec_BKCF: Tensor,
    masked_BKC: Tensor,
    spectrum_weight: float,
    waveform_weight: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Smooth L1 loss (beta 1) of waveform and log spectrum, on masked tokens only.

    Each masked token weighs the same: the loss of a token is the mean over its samples or
    frequencies, and the loss is the mean over tokens.

    Args:
        pred_wave_BKCS, true_wave_BKCS: scaled samples.
        pred_spec_BKCF, true_spec_BKCF: standardised log spectra.
        masked_BKC: bool, True where a token counts. What stands elsewhere has no influence.
        spectrum_weight, waveform_weight: not negative, and not both zero.

    Returns:
        loss, and its detached parts: ``waveform`` and ``spectrum`` (before weighting) and
        ``masked_tokens`` (how many tokens the means are over, to average over batches).

    Raises:
        ValueError: if nothing is masked or the weights are out of range.
    """
    if min(spectrum_weight, waveform_weight) < 0 or spectrum_weight + waveform_weight == 0:
        raise ValueError(
            f"loss weights must not be negative nor both zero; found spectrum_weight = "
            f"{spectrum_weight}, waveform_weight = {waveform_weight}"
        )
    index_M = masked_BKC.flatten().nonzero().squeeze(1)
    if len(index_M) == 0:
        raise ValueError("no token is masked: there is nothing to reconstruct")

    def mean_loss(pred: Tensor, true: Tensor) -> Tensor:
        return F.smooth_l1_loss(pred.flatten(0, 2)[index_M], true.flatten(0, 2)[index_M])

    waveform = mean_loss(pred_wave_BKCS, true_wave_BKCS)
    spectrum = mean_loss(pred_spec_BKCF, true_spec_BKCF)
    loss = waveform_weight * waveform + spectrum_weight * spectrum
    parts = {
        "waveform": waveform.detach(),
        "spectrum": spectrum.detach(),
        "masked_tokens": torch.tensor(len(index_M), device=loss.device),
    }
    return loss, parts
