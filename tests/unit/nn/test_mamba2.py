"""The Mamba-2 block: upstream's parameters, independent implementations, exact padding."""

from __future__ import annotations

import copy
import math
from dataclasses import astuple
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from remit.nn import kernels as kernel_module
from remit.nn import tiles
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


def their_mixer(groups: int) -> torch.nn.Module:
    """The block of transformers: PyTorch on a CPU, written by others."""
    modeling = pytest.importorskip(
        "transformers.models.mamba2.modeling_mamba2",
        reason="the independent Mamba-2 comes from transformers",
    )
    from transformers import Mamba2Config

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
    return modeling.Mamba2Mixer(config, layer_idx=0)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("steps", [3, 21, 90])
@pytest.mark.parametrize("tile_tokens", [24, 2048])
def test_equals_the_mixer_of_transformers(
    monkeypatch: pytest.MonkeyPatch, tile_tokens: int, groups: int, steps: int
) -> None:
    monkeypatch.setattr(tiles, "TILE_TOKENS", tile_tokens)
    torch.manual_seed(1)
    theirs = their_mixer(groups)
    ours = randomised(Mamba2(32, d_state=16, headdim=8, ngroups=groups, chunk_size=8), 2)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    u_BTD, weights_BTD = torch.randn(2, 2, steps, 32)
    found, expected = {}, {}
    for mixer, into in ((ours, found), (theirs, expected)):
        leaf_BTD = u_BTD.clone().requires_grad_()
        into["out"] = mixer(leaf_BTD)
        (into["out"] * weights_BTD).sum().backward()
        into["u"] = leaf_BTD.grad
        into |= {name: parameter.grad for name, parameter in mixer.named_parameters()}
    assert found.keys() == expected.keys()
    for name, theirs_own in expected.items():
        error = (found[name] - theirs_own).norm() / theirs_own.norm()
        # Theirs sums in float32 throughout: the two that collect what decays lose most.
        assert error < (1e-4 if name in ("dt_bias", "A_log") else 4e-6), name


def test_weights_move_both_ways() -> None:
    theirs, ours = their_mixer(2), Mamba2(32, d_state=16, headdim=8, ngroups=2)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    u_BTD = torch.randn(1, 9, 32)
    torch.testing.assert_close(ours(u_BTD), theirs(u_BTD))
    theirs.load_state_dict(randomised(ours, 3).state_dict(), strict=True)
    torch.testing.assert_close(ours(u_BTD), theirs(u_BTD))


def step_by_step(mixer: Mamba2, u_BTD: Tensor) -> Tensor:
    state, outputs = mixer.initial_state(len(u_BTD)), []
    for u_BD in u_BTD.unbind(1):
        out_BD, state = mixer.step(u_BD, state)
        outputs.append(out_BD)
    return torch.stack(outputs, 1)


CHANGES: tuple[dict[str, Any], ...] = (
    {},
    {"ngroups": 2},
    {"norm_before_gate": True, "ngroups": 2},
    {"dt_limit": (0.02, 0.1)},  # both of which bind
    {"d_conv": 1},
)


@pytest.mark.parametrize("changed", CHANGES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_steps_equal_the_whole(changed: dict[str, Any], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    mixer = randomised(Mamba2(16, d_state=4, headdim=8, chunk_size=4, **changed), 4).to(dtype)
    u_BTD = torch.randn(2, 21, 16, dtype=dtype)
    weights_BTD = torch.randn_like(u_BTD)
    whole = {"out": mixer(u_BTD)}
    (whole["out"] * weights_BTD).sum().backward()
    whole |= {name: parameter.grad for name, parameter in mixer.named_parameters()}
    mixer.zero_grad()
    steps = {"out": step_by_step(mixer, u_BTD)}
    (steps["out"] * weights_BTD).sum().backward()
    steps |= {name: parameter.grad for name, parameter in mixer.named_parameters()}
    for name, expected in steps.items():
        error = (whole[name] - expected).norm() / expected.norm()
        assert error < (1e-12 if dtype == torch.float64 else 1e-5), name


def test_a_step_leaves_the_state_as_it_was() -> None:
    torch.manual_seed(0)
    mixer = Mamba2(16, d_state=4, headdim=8).requires_grad_(False)
    _, state = mixer.step(torch.randn(3, 16), mixer.initial_state(3))
    before = copy.deepcopy(astuple(state))
    u_BD = torch.randn(3, 16)
    first_BD, _ = mixer.step(u_BD, state)
    assert all(map(torch.equal, astuple(state), before))
    assert torch.equal(mixer.step(u_BD, state)[0], first_BD)
    with pytest.raises(ValueError, match=r"shape \(2, 16\); expected \(3, 16\)"):
        mixer.step(u_BD[:2], state)
    u_BD[1, 2] = math.nan
    with pytest.raises(ValueError, match="the token holds nan at sequence 1, feature 2"):
        mixer.step(u_BD, state)


def test_reads_the_past_only() -> None:
    torch.manual_seed(0)
    mixer = Mamba2(16, d_state=4, headdim=8, chunk_size=4)
    u_BTD = torch.randn(1, 12, 16)
    changed_BTD = u_BTD.clone()
    changed_BTD[:, 7] += 1.0
    difference_T = (mixer(u_BTD) - mixer(changed_BTD)).abs().amax((0, 2))
    assert (difference_T[:7] == 0).all() and (difference_T[7:] > 0).all()
    backward_T = (mixer(u_BTD, reverse=True) - mixer(changed_BTD, reverse=True)).abs().amax((0, 2))
    assert (backward_T[8:] == 0).all() and (backward_T[:8] > 0).all()


def both_ways(d_model: int, **settings: Any) -> BidirectionalMamba2:
    return BidirectionalMamba2(d_model, **settings)


def shared_weights(d_model: int, **settings: Any) -> BidirectionalMamba2:
    return BidirectionalMamba2(d_model, shared=True, **settings)


@pytest.mark.parametrize("kind", [Mamba2, both_ways, shared_weights])
@pytest.mark.parametrize("tile_tokens", [8, 2048])
@pytest.mark.parametrize("chunk_size", [4, 64])
def test_padding_affects_nothing(
    monkeypatch: pytest.MonkeyPatch, kind: Any, tile_tokens: int, chunk_size: int
) -> None:
    monkeypatch.setattr(tiles, "TILE_TOKENS", tile_tokens)
    torch.manual_seed(3)
    mixer = randomised(kind(16, d_state=4, headdim=8, chunk_size=chunk_size), 4).double()
    lengths = [5, 17, 11, 0, 5, 1]
    sequences = [torch.randn(n, 16, dtype=torch.float64) for n in lengths]
    batch = torch.full((len(lengths), 17, 16), math.nan, dtype=torch.float64)
    for row, sequence in enumerate(sequences):
        batch[row, : len(sequence)] = sequence
    batch.requires_grad_()
    found = mixer(batch, torch.tensor(lengths))
    gradient = 2 * found.detach()
    for row, length in enumerate(lengths):
        assert (found[row, length:] == 0).all()
        gradient[row, length:] = math.nan
    found.backward(gradient)
    together = {name: p.grad.clone() for name, p in mixer.named_parameters()}
    mixer.zero_grad()
    for row, (length, sequence) in enumerate(zip(lengths, sequences, strict=True)):
        assert (batch.grad[row, length:] == 0).all()
        if length == 0:
            continue
        own = sequence.unsqueeze(0).requires_grad_()
        alone = mixer(own)
        torch.testing.assert_close(found[row, :length], alone[0], rtol=1e-12, atol=1e-13)
        alone.square().sum().backward()
        torch.testing.assert_close(batch.grad[row, :length], own.grad[0], rtol=1e-11, atol=1e-12)
    for name, parameter in mixer.named_parameters():
        torch.testing.assert_close(together[name], parameter.grad, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shared", [False, True])
def test_the_backward_direction_reads_the_reversed_sequence(
    shared: bool, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    mixer = randomised(BidirectionalMamba2(16, d_state=4, headdim=8, shared=shared), 1).to(dtype)
    assert [name for name, _ in mixer.named_children()] == (
        ["forward_mixer"] if shared else ["forward_mixer", "backward_mixer"]
    )
    backward_mixer = mixer.forward_mixer if shared else mixer.backward_mixer
    if not shared:
        assert not torch.equal(mixer.forward_mixer.in_proj.weight, backward_mixer.in_proj.weight)
    u_BTD = torch.randn(2, 200, 16, dtype=dtype)
    turned_BTD = backward_mixer(u_BTD.flip(1)).flip(1)
    tolerance = {"rtol": 1e-12, "atol": 1e-13} if dtype == torch.float64 else {}
    torch.testing.assert_close(backward_mixer(u_BTD, reverse=True), turned_BTD, **tolerance)
    expected_BTD = mixer.forward_mixer(u_BTD) + turned_BTD
    torch.testing.assert_close(mixer(u_BTD), expected_BTD, **tolerance)


def test_the_backend_is_an_attribute(monkeypatch: pytest.MonkeyPatch) -> None:
    mixer = Mamba2(16, d_state=4, headdim=8)
    assert mixer.backend == "torch" and set(mixer.state_dict()) == set(UPSTREAM)
    u_BTD, lengths_B = torch.randn(2, 5, 16), torch.tensor([5, 3])
    calls = []

    def kernels(*arguments: Any) -> Tensor:
        calls.append(arguments)
        return u_BTD + 1

    monkeypatch.setattr(kernel_module, "mamba_ssm_mixer", kernels)
    mixer(u_BTD, lengths_B, reverse=True)
    assert not calls
    mixer.backend = "mamba_ssm"
    assert torch.equal(mixer(u_BTD, lengths_B, reverse=True), u_BTD + 1)
    assert calls == [(mixer, u_BTD, lengths_B, True)]


def test_what_does_not_fit_is_named() -> None:
    mixer = Mamba2(16, d_state=4, headdim=8)
    u_BTD = torch.randn(2, 5, 16)
    for wrong in (u_BTD[..., :15], u_BTD[0], u_BTD[:, :0]):
        with pytest.raises(ValueError, match=r"expected \[B, T, 16\] with at least one token"):
            mixer(wrong)
    with pytest.raises(ValueError, match="the length of row 1 is 6; expected 0 to 5"):
        mixer(u_BTD, torch.tensor([5, 6]))
    u_BTD[1, 3, 7] = math.nan
    with pytest.raises(ValueError, match="holds nan at sequence 1, token 3, feature 7"):
        mixer(u_BTD)
    with pytest.raises(ValueError, match="holds nan at sequence 1, token 3, feature 7"):
        mixer(u_BTD, torch.tensor([5, 4]))
    assert mixer(u_BTD, torch.tensor([5, 3])).isfinite().all()


def test_sizes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"2 \* 100 = 200 is not divisible by headdim = 64"):
        Mamba2(100)
    with pytest.raises(ValueError, match="8 heads are not divisible by ngroups = 3"):
        Mamba2(256, ngroups=3)
    with pytest.raises(ValueError, match="d_conv is 0"):
        Mamba2(256, d_conv=0)
    with pytest.raises(ValueError, match=r"A_init_range is \(0.0, 1.0\)"):
        Mamba2(256, A_init_range=(0.0, 1.0))
    for limit in ((-1.0, 1.0), (1.0, 1.0)):
        with pytest.raises(ValueError, match="dt_limit is"):
            Mamba2(256, dt_limit=limit)


def test_limits_as_json_has_them() -> None:
    mixer = Mamba2(16, d_state=4, headdim=8, dt_limit=[0.01, 0.1])  # type: ignore[arg-type]
    assert mixer.dt_limit == (0.01, 0.1)
    assert mixer(torch.randn(1, 4, 16)).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_dtypes_are_refused_in_one_line(dtype: torch.dtype) -> None:
    mixer = Mamba2(16, d_state=4, headdim=8)
    u_BTD = torch.randn(1, 3, 16)
    with pytest.raises(ValueError, match=f"the input is {dtype} and the weights are torch.float32"):
        mixer(u_BTD.to(dtype))
    with pytest.raises(ValueError, match="keep float32 and set precision"):
        mixer.to(dtype)(u_BTD.to(dtype))


@pytest.mark.parametrize(("name", "value"), [("backend", "torc"), ("precision", "bf16")])
def test_misspelt_attributes_are_refused(name: str, value: str) -> None:
    mixer = Mamba2(16, d_state=4, headdim=8)
    setattr(mixer, name, value)
    with pytest.raises(ValueError, match=f"{name} .*'{value}'.*; expected one of"):
        mixer(torch.randn(1, 3, 16))
