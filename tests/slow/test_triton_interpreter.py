"""remit's Mamba-2 against mamba-ssm's own code, without a GPU.

Its reference functions are plain PyTorch. Its Triton kernels run under Triton's interpreter, forwards
and backwards; two questions they put to CUDA are answered here. `make test-slow` makes what this needs.
"""

import contextlib
import os
import types
from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F

from remit.nn import backends
from remit.nn import kernels as kernel_module
from remit.nn.mamba2 import Mamba2

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip(
        "Triton's interpreter is off (TRITON_INTERPRET=1); make test-slow", allow_module_level=True
    )
for package in ("triton", "einops", "mamba_ssm"):
    if find_spec(package) is None:
        pytest.skip(f"{package} is not there; make test-slow", allow_module_level=True)

pytestmark = pytest.mark.slow
# Of norms, in float32. The decays' gradients are small differences of large sums, in the kernels'
# float32; remit forms them in a way that loses less.
TOLERANCE = 2e-6
DECAY_TOLERANCE = 5e-5


@pytest.fixture(autouse=True)
def no_cuda_needed(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device", lambda index: contextlib.nullcontext())
    properties = types.SimpleNamespace(multi_processor_count=4)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)


def convolution(x_BET, weight_EK, bias_E, silu):
    past = F.pad(x_BET, (weight_EK.shape[1] - 1, 0))
    out = F.conv1d(past, weight_EK.unsqueeze(1), bias_E, groups=x_BET.shape[1])
    return F.silu(out) if silu else out


def convolution_forward(x, weight, bias, seq_idx, initial, final, silu):
    assert seq_idx is initial is final is None
    return convolution(x, weight, bias, silu)


def convolution_backward(x, weight, bias, dout, seq_idx, initial, dfinal, dx, want_dinitial, silu):
    assert seq_idx is initial is dfinal is None and not want_dinitial
    with torch.enable_grad():
        given = [t.detach().requires_grad_() for t in (x, weight, bias)]
        grads = torch.autograd.grad(convolution(*given, silu), given, dout)
    dx.copy_(grads[0])
    return dx, grads[1], grads[2], None


@pytest.fixture
def fused(monkeypatch):
    """causal-conv1d has no code for a CPU: its two functions, by PyTorch, in the fused block."""
    kernels = kernel_module.load()
    monkeypatch.setattr(kernels.scan, "causal_conv1d_fwd_function", convolution_forward)
    monkeypatch.setattr(kernels.scan, "causal_conv1d_bwd_function", convolution_backward)
    made = kernel_module.Kernels(kernels.scan, kernels.norm, fused_convolution=True)
    monkeypatch.setattr(kernel_module, "load", lambda: made)
    return made


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


def outputs_and_gradients(mixer, u_BTD, lengths_B, reverse, backend, weight_BTD):
    mixer.backend = backend
    out_BTD = mixer(u_BTD, lengths_B, reverse=reverse)
    loss = (out_BTD * weight_BTD).sum()
    names = [name for name, _ in mixer.named_parameters()]
    grads = torch.autograd.grad(loss, [u_BTD, *mixer.parameters()])
    return dict(zip(["u", *names], grads, strict=True)) | {"out": out_BTD * (weight_BTD != 0)}


CASES = [
    # groups, padded, reverse, other settings
    (1, False, False, {}),
    (2, True, True, {}),
    (1, True, False, {"dt_limit": (0.01, 0.05)}),
    (2, False, True, {"norm_before_gate": True}),
]


def compare(groups, padded, reverse, settings):
    torch.manual_seed(groups)
    mixer = Mamba2(32, d_state=16, headdim=16, ngroups=groups, **settings)
    u_BTD = torch.randn(2, 150, 32, requires_grad=True)
    weight_BTD = torch.randn(2, 150, 32)
    lengths_B = None
    if padded:
        lengths_B = torch.tensor([150, 71])
        weight_BTD[1, 71:] = 0
    results = [
        outputs_and_gradients(mixer, u_BTD, lengths_B, reverse, backend, weight_BTD)
        for backend in ("mamba_ssm", "torch")
    ]
    errors = {name: relative(results[0][name], results[1][name]) for name in results[1]}
    print(" ".join(f"{name} {error:.1e}" for name, error in errors.items()))
    for name, error in errors.items():
        assert error < (DECAY_TOLERANCE if name in ("A_log", "dt_bias", "D") else TOLERANCE), name


@pytest.mark.parametrize(("groups", "padded", "reverse", "settings"), CASES)
def test_the_kernels_in_three_steps_agree(groups, padded, reverse, settings):
    assert not kernel_module.load().fused_convolution
    compare(groups, padded, reverse, settings)


@pytest.mark.parametrize(("groups", "padded", "reverse", "settings"), CASES)
def test_the_fused_block_agrees(fused, groups, padded, reverse, settings):
    compare(groups, padded, reverse, settings)


def test_the_probe_finds_the_real_kernels_right():
    assert backends._probe.__wrapped__(torch.device("cpu")) is None


def inner(mixer, u_BTD):
    """z, x, dt, A, B, C of a block, by plain PyTorch."""
    z, xBC, dt = mixer.in_proj(u_BTD).split([mixer.d_inner, mixer.conv_dim, mixer.nheads], -1)
    xBC = convolution(xBC.mT, mixer.conv1d.weight.squeeze(1), mixer.conv1d.bias, True).mT
    states = mixer.ngroups * mixer.d_state
    x, B, C = xBC.split([mixer.d_inner, states, states], -1)
    heads = x.unflatten(-1, (mixer.nheads, mixer.headdim))
    B, C = (t.unflatten(-1, (mixer.ngroups, mixer.d_state)) for t in (B, C))
    return z, heads, dt, -mixer.A_log.exp(), B, C


def finished(mixer, y_BTI, z_BTI):
    normed = kernel_module.load().norm.rms_norm_ref(
        y_BTI,
        mixer.norm.weight,
        None,
        z=z_BTI,
        eps=mixer.norm.eps,
        group_size=mixer.d_inner // mixer.ngroups,
        norm_before_gate=mixer.norm.norm_before_gate,
    )
    return mixer.out_proj(normed)


@pytest.mark.parametrize("groups", [1, 2])
def test_the_reference_scan_agrees(groups):
    torch.manual_seed(0)
    mixer = Mamba2(32, d_state=16, headdim=16, ngroups=groups)
    u_BTD = torch.randn(2, 96, 32, requires_grad=True)  # whole chunks of 32, as the function wants
    z, x, dt, A, B, C = inner(mixer, u_BTD)
    y = kernel_module.load().scan.ssd_chunk_scan_combined_ref(
        x, dt, A, B, C, 32, D=mixer.D, dt_bias=mixer.dt_bias, dt_softplus=True
    )
    theirs = finished(mixer, y.flatten(-2), z)
    ours = mixer(u_BTD)
    assert relative(ours, theirs) < TOLERANCE
    weight = torch.randn_like(ours)
    wanted = [u_BTD, mixer.in_proj.weight, mixer.conv1d.weight, mixer.out_proj.weight]
    for a, b in zip(
        torch.autograd.grad((ours * weight).sum(), wanted),
        torch.autograd.grad((theirs * weight).sum(), wanted),
        strict=True,
    ):
        assert relative(a, b) < TOLERANCE


@pytest.mark.parametrize("groups", [1, 2])
def test_step_mode_agrees_with_the_reference_update(groups):
    from mamba_ssm.ops.triton.selective_state_update import selective_state_update_ref

    torch.manual_seed(0)
    mixer = Mamba2(32, d_state=16, headdim=16, ngroups=groups)
    u_BTD = torch.randn(2, 20, 32)
    heads = (mixer.nheads, mixer.headdim)
    with torch.no_grad():
        z, x, dt, A, B, C = inner(mixer, u_BTD)
        state = torch.zeros(2, *heads, mixer.d_state)
        ours = mixer.initial_state(2)
        for t in range(u_BTD.shape[1]):
            y = selective_state_update_ref(
                state,
                x[:, t],
                dt[:, t, :, None].expand(2, *heads),
                A[:, None, None].expand(*heads, mixer.d_state),
                B[:, t],
                C[:, t],
                D=mixer.D[:, None].expand(heads),
                dt_bias=mixer.dt_bias[:, None].expand(heads),
                dt_softplus=True,
            )
            theirs = finished(mixer, y.flatten(-2), z[:, t])
            out, ours = mixer.step(u_BTD[:, t], ours)
            assert relative(out, theirs) < TOLERANCE
