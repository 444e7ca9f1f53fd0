"""Heads, spectral targets and the reconstruction loss."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.signal
import torch
import torch.nn.functional as F
from torch import nn

from remit.nn.heads import (
    ClassifierHead,
    LogSpectrum,
    PooledHead,
    ReconstructionHead,
    reconstruction_loss,
    step_encoding,
)


def test_classifier_is_the_agreed_one() -> None:
    torch.manual_seed(0)
    head = ClassifierHead(64, 3, 0.3)
    kinds = [type(layer) for layer in head.layers]
    assert kinds == [nn.LayerNorm, nn.Dropout, nn.Linear, nn.GELU, nn.Dropout, nn.Linear]
    norm, first_dropout, first, _, second_dropout, second = head.layers
    assert norm.normalized_shape == (64,)
    assert first_dropout.p == second_dropout.p == 0.3
    for linear, (fan_out, fan_in) in ((first, (32, 64)), (second, (3, 32))):
        assert linear.weight.shape == (fan_out, fan_in)
        bound = math.sqrt(6 / (fan_in + fan_out))  # Xavier uniform
        assert 0.9 * bound < linear.weight.abs().max() <= bound
        assert (linear.bias == 0).all()
    head.eval()
    embedding = torch.randn(5, 64)
    expected = second(F.gelu(first(F.layer_norm(embedding, (64,)))))
    torch.testing.assert_close(head(embedding), expected)


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    head = ClassifierHead(64, 2, 0.5)
    embedding = torch.randn(5, 64)
    assert not torch.equal(head(embedding), head(embedding))
    head.eval()
    assert torch.equal(head(embedding), head(embedding))


def test_classifier_refuses_sizes_that_cannot_work() -> None:
    with pytest.raises(ValueError, match="num_classes = 1"):
        ClassifierHead(64, 1, 0.1)


def test_reconstruction_head_is_linear_in_the_token() -> None:
    head = ReconstructionHead(16, 8, 5)
    tokens = torch.randn(2, 3, 4, 16)
    waveform, spectrum = head(tokens)
    assert waveform.shape == (2, 3, 4, 8) and spectrum.shape == (2, 3, 4, 5)
    doubled_waveform, doubled_spectrum = head(2 * tokens)
    torch.testing.assert_close(
        doubled_waveform - waveform, waveform - head.waveform.bias, rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(
        doubled_spectrum - spectrum, spectrum - head.log_spectrum.bias, rtol=1e-4, atol=1e-5
    )


def test_log_power_is_that_of_scipys_periodogram() -> None:
    target = LogSpectrum(128, 256.0, 1.0, 40.0)
    token_S = np.random.default_rng(0).standard_normal(128)
    frequencies, density = scipy.signal.periodogram(token_S, 256.0, window="hann", detrend=False)
    band = (frequencies >= 1.0) & (frequencies <= 40.0)
    np.testing.assert_allclose(target.frequencies_hz_F, frequencies[band])
    # One-sided density, in 1/Hz: twice the power, over the sampling rate.
    expected = np.log(density[band] * 256.0 / 2 + 1e-4)
    np.testing.assert_allclose(target.log_power(torch.tensor(token_S).float()), expected, atol=1e-4)
    assert target.num_frequencies == band.sum() == 20


def test_band_edges_are_included() -> None:
    assert LogSpectrum(100, 200.0, 2.0, 100.0).frequencies_hz_F[[0, -1]].tolist() == [2.0, 100.0]
    assert LogSpectrum(50, 100.0, 0.0, 4.0).frequencies_hz_F.tolist() == [0.0, 2.0, 4.0]
    # 0.1 Hz is no binary fraction: bins at 10 Hz / 100 = 0.1 Hz.
    assert LogSpectrum(100, 10.0, 0.3, 0.7).num_frequencies == 5


def test_fitted_spectra_are_standardised() -> None:
    torch.manual_seed(0)
    target = LogSpectrum(64, 128.0, 1.0, 40.0)
    tokens_NS = torch.randn(3000, 64).cumsum(1)
    target.fit(tokens_NS)
    standard_NF = target(tokens_NS)
    torch.testing.assert_close(standard_NF.mean(0), torch.zeros(20), atol=1e-4, rtol=0)
    torch.testing.assert_close(standard_NF.std(0, correction=0), torch.ones(20), atol=1e-3, rtol=0)
    assert target(tokens_NS[:6].reshape(1, 2, 3, 64)).shape == (1, 2, 3, 20)


def test_fitting_in_parts_equals_fitting_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    tokens_NS = torch.randn(100, 64)
    whole, parts = LogSpectrum(64, 128.0, 1.0, 40.0), LogSpectrum(64, 128.0, 1.0, 40.0)
    whole.fit(tokens_NS)
    monkeypatch.setattr("remit.nn.heads.FIT_BATCH", 7)
    parts.fit(tokens_NS)
    torch.testing.assert_close(parts.mean_F, whole.mean_F)
    torch.testing.assert_close(parts.std_F, whole.std_F)


def test_unfitted_spectrum_raises_and_statistics_travel_with_the_weights() -> None:
    fitted, other = LogSpectrum(64, 128.0, 1.0, 40.0), LogSpectrum(64, 128.0, 1.0, 40.0)
    tokens_NS = torch.randn(50, 64)
    with pytest.raises(RuntimeError, match="not fitted"):
        other(tokens_NS)
    unfitted_state = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    fitted.fit(tokens_NS)
    assert set(fitted.state_dict()) == {"mean_F", "std_F"}
    other.load_state_dict(fitted.state_dict(), strict=True)
    assert torch.equal(other(tokens_NS), fitted(tokens_NS))
    other.load_state_dict(unfitted_state, strict=True)
    with pytest.raises(RuntimeError, match="not fitted"):
        other(tokens_NS)


def test_a_constant_spectrum_stays_finite() -> None:
    target = LogSpectrum(64, 128.0, 1.0, 40.0)
    target.fit(torch.zeros(10, 64))
    assert target(torch.zeros(1, 64)).abs().max() < 1e-2
    assert target(torch.randn(5, 64)).isfinite().all()


def test_fitting_refuses_what_cannot_be_fitted() -> None:
    target = LogSpectrum(64, 128.0, 1.0, 40.0)
    with pytest.raises(ValueError, match="at least two tokens"):
        target.fit(torch.zeros(1, 64))
    with pytest.raises(ValueError, match="not finite"):
        target.fit(torch.full((4, 64), float("nan")))
    with pytest.raises(RuntimeError, match="not fitted"):
        target(torch.zeros(1, 64))


@pytest.mark.parametrize(
    ("band", "message"),
    [((1.0, 80.0), "half the sampling rate"), ((5.0, 4.0), "lie between"), ((2.5, 3.5), "no freq")],
)
def test_impossible_bands_are_refused(band: tuple[float, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LogSpectrum(64, 128.0, *band)


def loss_inputs() -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [2 * torch.randn(shape) for shape in [(5, 8)] * 2 + [(5, 3)] * 2]


def smooth_l1(a: float, b: float) -> float:
    distance = abs(a - b)
    return 0.5 * distance**2 if distance < 1 else distance - 0.5


def by_hand(pred_ME: torch.Tensor, true_ME: torch.Tensor) -> float:
    per_token = [
        np.mean([smooth_l1(a, b) for a, b in zip(p.tolist(), t.tolist(), strict=True)])
        for p, t in zip(pred_ME, true_ME, strict=True)
    ]
    return float(np.mean(per_token))


@pytest.mark.parametrize("weights", [(2.0, 0.3), (0.0, 0.3), (2.0, 0.0)])
def test_loss_is_the_weighted_mean_over_tokens(weights: tuple[float, float]) -> None:
    inputs = loss_inputs()
    loss, parts = reconstruction_loss(
        *inputs, waveform_weight=weights[0], spectrum_weight=weights[1]
    )
    expected = {"waveform": by_hand(*inputs[:2]), "spectrum": by_hand(*inputs[2:])}
    weighed = dict(zip(expected, weights, strict=True))
    assert set(parts) == {what for what in expected if weighed[what]}
    for what, value in parts.items():
        assert value.item() == pytest.approx(expected[what], rel=1e-5)
    total = sum(weighed[what] * expected[what] for what in expected)
    assert loss.item() == pytest.approx(total, rel=1e-5)


def test_loss_refuses_nothing_masked_and_senseless_weights() -> None:
    inputs = loss_inputs()
    with pytest.raises(ValueError, match="no token is masked"):
        reconstruction_loss(*(x[:0] for x in inputs), waveform_weight=1.0, spectrum_weight=1.0)
    for waveform, spectrum in ((0.0, 0.0), (-1.0, 2.0)):
        with pytest.raises(ValueError, match="loss weights"):
            reconstruction_loss(*inputs, waveform_weight=waveform, spectrum_weight=spectrum)


@pytest.mark.parametrize("width", [2, 7, 16])
def test_every_step_has_another_encoding(width: int) -> None:
    encoding_KD = step_encoding(600, width)
    assert encoding_KD.shape == (600, width)
    assert encoding_KD.unique(dim=0).shape[0] == 600
    np.testing.assert_allclose(encoding_KD[:, 0], np.sin(np.arange(600)), atol=1e-6)


def pooled_inputs() -> tuple[PooledHead, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    visible_BKC = torch.rand(2, 3, 4) < 0.5
    return PooledHead(16, 8, 5), torch.randn(2, 3, 4, 16), visible_BKC, torch.randn(4, 16)


def test_pooled_prediction_is_the_formula_written_out() -> None:
    head, tokens, visible, electrodes = pooled_inputs()
    wave, spectrum = head(tokens, visible, electrodes, torch.arange(24))
    for b, k, c in np.ndindex(2, 3, 4):
        pooled = tokens[b][visible[b]].mean(0)
        query = torch.cat([pooled, electrodes[c], step_encoding(3, 16)[k]])
        hidden = F.gelu(head.hidden.weight @ query + head.hidden.bias)
        row = (b * 3 + k) * 4 + c
        torch.testing.assert_close(wave[row], head.output.waveform(hidden))
        torch.testing.assert_close(spectrum[row], head.output.log_spectrum(hidden))


def test_pooling_reads_visible_tokens_of_the_same_sequence_only() -> None:
    head, tokens, visible, electrodes = pooled_inputs()
    expected, _ = head(tokens, visible, electrodes, torch.arange(12))  # of the first sequence
    tokens[~visible] = float("nan")
    tokens[1] = float("inf")
    tokens.requires_grad_()
    found, _ = head(tokens, visible, electrodes, torch.arange(12))
    assert torch.equal(found, expected)
    found.sum().backward()
    assert tokens.grad is not None
    assert (tokens.grad[0][visible[0]] != 0).all()
    assert (tokens.grad[0][~visible[0]] == 0).all() and (tokens.grad[1] == 0).all()


def test_a_sequence_without_a_visible_token_is_predicted_from_zeros() -> None:
    head, tokens, visible, electrodes = pooled_inputs()
    none = torch.zeros_like(visible)
    found, _ = head(tokens, none, electrodes, torch.tensor([3]))
    expected, _ = head(torch.zeros_like(tokens), ~none, electrodes, torch.tensor([3]))
    assert torch.equal(found, expected) and found.isfinite().all()
