"""The Mamba-2 block: upstream's parameters, an independent implementation, exact padding."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from remit.nn.mamba2 import BidirectionalMamba2, Mamba2

# d = 256, N = 64, P = 64, G = 1: names and shapes of mamba_ssm.modules.mamba2.Mamba2.
UPSTREAM = {
    "in_proj.weight": (1160, 256),
    "conv1d.weight": (640, 1, 4),
    "conv1d.bias": (640,),
    "dt_bias": (8,),
    "A_log": (8,),
    "D": (8,),
    "norm.weight": (512,),
    "out_proj.weight": (256, 512),
}


def randomised(mixer: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Move parameters that start at one (D, norm) off it, so that leaving one out shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in mixer.named_parameters():
            if name.endswith(("D", "norm.weight", "dt_bias")):
                parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator))
    return mixer


def test_state_dict_is_upstreams() -> None:
    state = Mamba2(256).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == UPSTREAM


def test_initialisation_is_upstreams() -> None:
    torch.manual_seed(0)
    mixer = Mamba2(1024, headdim=1)  # many heads, so that ranges are seen
    dt = F.softplus(mixer.dt_bias.detach())
    assert dt.min() >= 0.001 * (1 - 1e-4) and dt.max() <= 0.1 * (1 + 1e-4)
    # Log-uniform: the median is the geometric mean of the ends.
    assert dt.log().median().item() == pytest.approx(math.log(0.01), abs=0.2)
    rates = mixer.A_log.detach().exp()
    assert rates.min() >= 1 - 1e-4 and rates.max() <= 16 + 1e-4
    assert rates.mean().item() == pytest.approx(8.5, abs=0.4)
    assert torch.equal(mixer.D, torch.ones(2048)) and mixer.norm.eps == 1e-5
    assert torch.equal(mixer.norm.weight, torch.ones(2048))
    bound = 1 / math.sqrt(1024)
    assert bound * 0.99 < mixer.in_proj.weight.abs().max() <= bound
    assert 0.49 < mixer.conv1d.weight.abs().max() <= 0.5
    for parameter in (mixer.dt_bias, mixer.A_log, mixer.D):
        assert parameter._no_weight_decay


def test_floor_of_the_initial_step() -> None:
    mixer = Mamba2(64, headdim=1, dt_min=1e-6, dt_max=1e-5, dt_init_floor=1e-3)
    torch.testing.assert_close(F.softplus(mixer.dt_bias.detach()), torch.full((128,), 1e-3))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("steps", [3, 21])
def test_equals_the_mixer_of_transformers(groups: int, steps: int) -> None:
    modeling = pytest.importorskip(
        "transformers.models.mamba2.modeling_mamba2",
        reason="the independent Mamba-2 comes from transformers",
    )
    from transformers import Mamba2Config

    torch.manual_seed(1)
    config = Mamba2Config(
        hidden_size=32,
        state_size=16,
        conv_kernel=4,
        expand=2,
        head_dim=8,
        num_heads=8,
        n_groups=groups,
        chunk_size=8,
        use_bias=False,
        use_conv_bias=True,
        layer_norm_epsilon=1e-5,
        hidden_act="silu",
        num_hidden_layers=1,
        vocab_size=8,
    )
    theirs = modeling.Mamba2Mixer(config, layer_idx=0)
    ours = randomised(Mamba2(32, d_state=16, headdim=8, ngroups=groups, chunk_size=8), 2)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    u_BTD = torch.randn(2, steps, 32)
    expected_BTD = theirs(u_BTD)
    found_BTD = ours(u_BTD)
    error = (found_BTD - expected_BTD).norm() / expected_BTD.norm()
    assert error < 2e-6


def test_convolution_equals_conv1d_and_is_causal() -> None:
    torch.manual_seed(0)
    mixer = Mamba2(16, d_state=4, headdim=8)
    in_BTE = torch.randn(2, 9, mixer.conv_dim)
    expected = mixer.conv1d(in_BTE.transpose(1, 2))[..., :9].transpose(1, 2)
    torch.testing.assert_close(mixer._convolve(in_BTE), expected)


def test_reads_the_past_only() -> None:
    torch.manual_seed(0)
    mixer = Mamba2(16, d_state=4, headdim=8, chunk_size=4)
    u_BTD = torch.randn(1, 12, 16)
    changed_BTD = u_BTD.clone()
    changed_BTD[:, 7] += 1.0
    difference_T = (mixer(u_BTD) - mixer(changed_BTD)).abs().amax((0, 2))
    assert (difference_T[:7] == 0).all() and (difference_T[7:] > 0).all()


def padded_batch(
    lengths: list[int], width: int, *, first: bool
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Sequences, and the same in one batch whose padding is filled with large noise."""
    longest = max(lengths)
    sequences = [torch.randn(n, width, dtype=torch.float64) for n in lengths]
    batch = 1e3 * torch.randn(len(lengths), longest, width, dtype=torch.float64)
    valid = torch.zeros(len(lengths), longest, dtype=torch.bool)
    for row, sequence in enumerate(sequences):
        where = slice(longest - len(sequence), None) if first else slice(0, len(sequence))
        batch[row, where] = sequence
        valid[row, where] = True
    return sequences, batch, valid


@pytest.mark.parametrize("kind", [Mamba2, BidirectionalMamba2])
@pytest.mark.parametrize("first", [False, True], ids=["padding last", "padding first"])
@pytest.mark.parametrize("chunk_size", [4, 64])
def test_padding_affects_nothing(kind: type[torch.nn.Module], first: bool, chunk_size: int) -> None:
    torch.manual_seed(3)
    mixer = randomised(kind(16, d_state=4, headdim=8, chunk_size=chunk_size), 4).double()
    sequences, batch, valid = padded_batch([5, 17, 11, 1], 16, first=first)
    batch.requires_grad_()
    found = mixer(batch, valid)
    found[valid].square().sum().backward()
    together = {name: p.grad.clone() for name, p in mixer.named_parameters()}
    assert (batch.grad[~valid] == 0).all()
    mixer.zero_grad()
    for row, sequence in enumerate(sequences):
        alone = mixer(sequence.unsqueeze(0)).squeeze(0)
        torch.testing.assert_close(found[row][valid[row]], alone, rtol=1e-12, atol=1e-13)
        alone.square().sum().backward()
    for name, parameter in mixer.named_parameters():
        torch.testing.assert_close(together[name], parameter.grad, rtol=1e-9, atol=1e-10)


def test_backward_mixer_reads_the_reversed_sequence() -> None:
    torch.manual_seed(0)
    mixer = BidirectionalMamba2(16, d_state=4, headdim=8)
    u_BTD = torch.randn(2, 6, 16)
    backward = torch.stack(
        list(mixer.backward_mixer(u_BTD[:, [5, 4, 3, 2, 1, 0]]).unbind(1))[::-1], 1
    )
    torch.testing.assert_close(mixer(u_BTD), mixer.forward_mixer(u_BTD) + backward)
    weights = [m.in_proj.weight for m in (mixer.forward_mixer, mixer.backward_mixer)]
    assert not torch.equal(*weights)


def test_widths_that_do_not_divide_are_named() -> None:
    with pytest.raises(ValueError, match=r"2 \* 100 = 200 is not divisible by headdim = 64"):
        Mamba2(100)
    with pytest.raises(ValueError, match="8 heads are not divisible by ngroups = 3"):
        Mamba2(256, ngroups=3)
    with pytest.raises(ValueError, match="d_conv is 0"):
        Mamba2(256, d_conv=0)
