"""The latent target: the teacher's update, what it may not have, and the sight of a collapse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from remit.nn.encoder import Encoder, EncoderSettings
from remit.nn.latent import LatentTarget, target_spread

POSITIONS_C3 = torch.tensor([[-0.04, 0.07, 0.0], [0.04, 0.07, 0.0], [0.08, 0.0, 0.0]])


def made(decay: float = 0.9) -> tuple[Encoder, LatentTarget]:
    torch.manual_seed(0)
    settings = EncoderSettings(16, 1, 8, d_state=8, headdim=16, chunk_size=16)
    encoder = Encoder(settings, POSITIONS_C3)
    return encoder, LatentTarget(encoder, decay)


def changed(encoder: Encoder, seed: int) -> None:
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter))


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.996])
def test_the_teacher_is_the_moving_average_written_out(decay: float) -> None:
    encoder, latent = made(decay)
    expected = {key: value.detach().double().numpy() for key, value in encoder.named_parameters()}
    for step in range(5):
        changed(encoder, step)
        latent.update(encoder)
        for key, value in encoder.named_parameters():
            new = value.detach().double().numpy()
            expected[key] = decay * expected[key] + (1 - decay) * new
    for key, value in latent.teacher.named_parameters():
        np.testing.assert_allclose(value.numpy(), expected[key], rtol=1e-5, atol=1e-5)


def test_the_teacher_has_no_gradient_and_is_no_part_of_the_encoder() -> None:
    encoder, latent = made()
    names = set(encoder.state_dict())
    assert {f"teacher.{name}" for name in names} < set(latent.state_dict())
    assert not any(parameter.requires_grad for parameter in latent.teacher.parameters())
    ours = {id(parameter) for parameter in encoder.parameters()}
    assert ours.isdisjoint(id(parameter) for parameter in latent.parameters())
    samples = torch.randn(2, 4, 3, 8, requires_grad=True)
    valid = torch.ones(2, 4, dtype=torch.bool)
    target = latent.targets(samples, valid, torch.arange(24))
    assert not target.requires_grad
    changed(encoder, 1)
    again = latent.targets(samples, valid, torch.arange(24))
    assert torch.equal(target, again)  # a change of the encoder alone moves nothing


def test_targets_are_the_teachers_tokens_at_the_places_asked_for() -> None:
    encoder, latent = made()
    samples = torch.randn(2, 4, 3, 8)
    valid = torch.tensor([[True] * 4, [True, True, False, False]])
    with torch.no_grad():
        tokens_BKCD: Tensor = encoder(samples, valid_BK=valid)
    picked = [(0, 3, 1), (1, 1, 2)]
    index = torch.tensor([(b * 4 + k) * 3 + c for b, k, c in picked])
    for found, (b, k, c) in zip(latent.targets(samples, valid, index), picked, strict=True):
        token = tokens_BKCD[b, k, c]
        expected = (token - token.mean()) / token.std(correction=0)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_collapse_is_seen() -> None:
    torch.manual_seed(0)
    rich_MD = torch.nn.functional.layer_norm(torch.randn(4000, 16), (16,))
    channel_M = torch.arange(4000) % 3
    assert target_spread(rich_MD, channel_M, 3).item() == pytest.approx(1.0, abs=0.02)
    # The electrode alone, whatever was recorded there, is a collapse too.
    for collapsed_MD in (rich_MD[:1].expand(4000, 16), rich_MD[:3][channel_M]):
        assert target_spread(collapsed_MD, channel_M, 3).item() == pytest.approx(0.0, abs=1e-4)


def test_the_spread_is_its_formula_also_where_a_channel_has_no_token() -> None:
    torch.manual_seed(0)
    target_MD, channel_M = torch.randn(9, 16), torch.tensor([0, 0, 2, 2, 2, 2, 0, 3, 2])
    squares = np.zeros(16)
    for channel in (0, 2, 3):
        rows = target_MD[channel_M == channel].double().numpy()
        squares += len(rows) * np.var(rows, axis=0)
    expected = np.sqrt(np.mean(squares / 9))
    assert target_spread(target_MD, channel_M, 5).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_out_of_range_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match="decay is"):
        made(decay)
