"""What is read from the encoder's tokens: a class, or the samples and spectrum of masked tokens.

It knows tensors only. The targets here are computed from scaled samples; which tokens are masked
and how participants are pooled is decided elsewhere.

Legend of the shape suffixes
    B sequences   K token steps in time   C channels   S samples in a token   D model width
    F frequencies   N tokens of any origin   M masked tokens
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
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

    def forward(self, tokens_D: Tensor) -> tuple[Tensor, Tensor]:
        """[..., D] to [..., S] (scaled samples) and [..., F] (standardised log spectrum)."""
        return self.waveform(tokens_D), self.log_spectrum(tokens_D)


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
    transform_S2F: Tensor
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
        self.num_frequencies = last - first + 1
        self.eps = eps
        window_S = torch.hann_window(samples_per_token, dtype=torch.float64)
        window_S = window_S / window_S.square().sum().sqrt()
        bin_F = torch.arange(first, last + 1, dtype=torch.float64)
        frequencies_hz_F = bin_F * spacing
        # The few bins used, as one product of real numbers: compilers and exported programs know no
        # complex ones.
        turn_SF = torch.arange(samples_per_token, dtype=torch.float64).outer(bin_F)
        phase_SF = 2 * math.pi * (turn_SF % samples_per_token) / samples_per_token
        transform_S2F = window_S.unsqueeze(1) * torch.cat([phase_SF.cos(), phase_SF.sin()], dim=1)
        # Not persistent: given by the arguments. NaN marks statistics that were never fitted.
        self.register_buffer("window_S", window_S.float(), persistent=False)
        self.register_buffer("transform_S2F", transform_S2F.float(), persistent=False)
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
        parts_2F = samples_S @ self.transform_S2F
        power_F: Tensor = parts_2F.square().unflatten(-1, (2, self.num_frequencies)).sum(-2)
        return (power_F + self.eps).log()

    def fit(self, tokens: Tensor | Iterable[Tensor]) -> None:
        """:func:`fit_spectra` of this one."""
        fit_spectra([self], tokens)

    def forward(self, samples_S: Tensor) -> Tensor:
        """Standardised log power: [..., S] to [..., F].

        Raises:
            RuntimeError: if neither :meth:`fit` was called nor fitted statistics were loaded. A program
                being compiled or exported cannot look.
        """
        # Looked up once: on a GPU it waits for the device.
        if not self._known_fitted and not torch.compiler.is_compiling():
            if self.std_F.isnan().any():
                raise RuntimeError("LogSpectrum is not fitted: call fit() or load fitted weights")
            self._known_fitted = True
        return (self.log_power(samples_S) - self.mean_F) / self.std_F

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        self._known_fitted = False
        super()._load_from_state_dict(state_dict, *args, **kwargs)


@torch.no_grad()
def fit_spectra(spectra: Sequence[LogSpectrum], tokens: Tensor | Iterable[Tensor]) -> None:
    """Set the mean and standard deviation of every frequency of some spectra, in one pass.

    Args:
        spectra: at least one.
        tokens: scaled samples, [N, S], or several of these one after another, of which one is held at
            a time.

    Raises:
        ValueError: if there are fewer than two tokens or a sample is not finite.
    """
    count = 0
    mean_F = torch.zeros(sum(each.num_frequencies for each in spectra), dtype=torch.float64)
    squares_F = torch.zeros_like(mean_F)
    for tokens_NS in [tokens] if isinstance(tokens, Tensor) else tokens:
        if tokens_NS.dim() != 2:
            raise ValueError(
                f"tokens have shape {tuple(tokens_NS.shape)}; expected [N, S] to fit the spectrum"
            )
        for part_NS in torch.split(tokens_NS, FIT_BATCH):
            # Means and squared deviations joined part by part (Chan et al. 1983) in float64: a
            # difference of large sums would lose small deviations.
            log_NF = torch.cat([each.log_power(part_NS) for each in spectra], dim=1).double()
            part_F = log_NF.mean(0)
            apart_F = part_F - mean_F
            added = len(log_NF) / (count + len(log_NF))
            squares_F += (log_NF - part_F).square().sum(0) + apart_F.square() * count * added
            mean_F += apart_F * added
            count += len(log_NF)
    if count < 2:
        raise ValueError(f"fitting the spectrum needs at least two tokens as [N, S]; found {count}")
    std_F = (squares_F / count).sqrt()
    if not (mean_F.isfinite().all() and std_F.isfinite().all()):
        raise ValueError("a sample among the tokens to fit the spectrum on is not finite")
    sizes = [each.num_frequencies for each in spectra]
    for each, own_F, own_std_F in zip(
        spectra, mean_F.split(sizes), std_F.split(sizes), strict=True
    ):
        each.mean_F.copy_(own_F)
        each.std_F.copy_(own_std_F.clamp(min=LOWEST_STD))


def step_encoding(num_steps: int, d_model: int) -> Tensor:
    """Sines, then cosines, of the token step at wavelengths from 2 pi to 20,000 pi steps; [K, D].

    Source: Vaswani et al. 2017 (arXiv 1706.03762).
    """
    num_frequencies = math.ceil(d_model / 2)
    rate_F = torch.logspace(0, -4, num_frequencies, dtype=torch.float64)
    phase_KF = torch.arange(num_steps, dtype=torch.float64).unsqueeze(1) * rate_F
    return torch.cat([phase_KF.sin(), phase_KF.cos()], dim=1)[:, :d_model].float()


class PooledHead(nn.Module):
    """Waveform and log spectrum of a masked token from one vector for the whole sequence.

    The vector is the mean over the sequence's visible tokens: the mean is also what a classifier
    reads, so this loss shapes the very embedding that is used. A perceptron of two layers is given
    that vector, the electrode and the moment of the token to predict.

    Source: the secondary loss of REVE (El Ouahidi et al. 2025, arXiv 2510.21585), with a mean in the
    place of its attention pooling.

    Args:
        d_model: width D of a token.
        samples_per_token: S.
        num_frequencies: F, as :attr:`LogSpectrum.num_frequencies`.
    """

    def __init__(self, d_model: int, samples_per_token: int, num_frequencies: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(3 * d_model, d_model)
        self.output = ReconstructionHead(d_model, samples_per_token, num_frequencies)

    def forward(
        self, tokens_BKCD: Tensor, visible_BKC: Tensor, electrodes_CD: Tensor, index_M: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Predict some tokens.

        Args:
            tokens_BKCD: the encoder's output.
            visible_BKC: bool, True where a token is real and not masked. The others have no
                influence; a sequence without a visible token is predicted from zeros.
            electrodes_CD: the fixed encoding of each electrode.
            index_M: int64, flat indices (b * K + k) * C + c of the tokens to predict.

        Returns:
            waveform_MS (scaled samples) and log_spectrum_MF (standardised).
        """
        steps, channels, width = tokens_BKCD.shape[1:]
        shown_BKC1 = visible_BKC.unsqueeze(-1)
        count_B1 = visible_BKC.sum((1, 2)).clamp(min=1).unsqueeze(1)
        pooled_BD = tokens_BKCD.masked_fill(~shown_BKC1, 0.0).sum((1, 2)) / count_B1
        sequence_M = index_M // (steps * channels)
        step_KD = step_encoding(steps, width).to(tokens_BKCD.device)
        query_MD3 = torch.cat(
            [
                pooled_BD[sequence_M],
                electrodes_CD[index_M % channels],
                step_KD[index_M // channels % steps],
            ],
            dim=1,
        )
        predicted: tuple[Tensor, Tensor] = self.output(F.gelu(self.hidden(query_MD3)))
        return predicted


def reconstruction_loss(
    pred_wave_MS: Tensor,
    true_wave_MS: Tensor,
    pred_spec_MF: Tensor,
    true_spec_MF: Tensor,
    *,
    waveform_weight: float,
    spectrum_weight: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Smooth L1 loss (beta 1) of the waveforms and log spectra of masked tokens.

    Each token weighs the same: the loss of a token is the mean over its samples or frequencies, and
    the loss is the mean over tokens.

    Args:
        pred_wave_MS, true_wave_MS: scaled samples.
        pred_spec_MF, true_spec_MF: standardised log spectra.
        waveform_weight, spectrum_weight: not negative, and not both zero. What has no weight is
            not computed.

    Returns:
        loss, and its detached parts before weighting: ``waveform`` and ``spectrum``, as far as they
        have a weight.

    Raises:
        ValueError: if there is no token or the weights are out of range.
    """
    weights = {"waveform": waveform_weight, "spectrum": spectrum_weight}
    if min(weights.values()) < 0 or sum(weights.values()) == 0:
        raise ValueError(
            "loss weights must not be negative nor both zero; found spectrum_weight = "
            f"{spectrum_weight}, waveform_weight = {waveform_weight}"
        )
    if len(true_wave_MS) == 0:
        raise ValueError("no token is masked: there is nothing to reconstruct")
    pairs = {"waveform": (pred_wave_MS, true_wave_MS), "spectrum": (pred_spec_MF, true_spec_MF)}
    losses = {
        what: F.smooth_l1_loss(*pairs[what]) for what, weight in weights.items() if weight > 0
    }
    loss = torch.stack([weights[what] * value for what, value in losses.items()]).sum()
    return loss, {what: value.detach() for what, value in losses.items()}
