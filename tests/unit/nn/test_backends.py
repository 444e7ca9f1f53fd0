"""The choice of a backend, and the wiring of mamba-ssm's kernels, with stand-ins for the kernels.

The kernels themselves are compared in tests/slow, and here where there is a CUDA device.
"""

import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from remit.nn import backends
from remit.nn import kernels as kernel_module
from remit.nn.mamba2 import Mamba2

CPU = torch.device("cpu")


def recurrence(x, dt, A, B, C, *, D, dt_bias, dt_softplus, dt_limit, chunk_size):
    """mamba_chunk_scan_combined, step by step."""
    assert dt_softplus and chunk_size & (chunk_size - 1) == 0
    dt = F.softplus(dt + dt_bias).clamp(*dt_limit)
    per_group = x.shape[2] // B.shape[2]
    B, C = (t.repeat_interleave(per_group, 2) for t in (B, C))
    state = x.new_zeros(*x.shape[:1], *x.shape[2:], B.shape[-1])
    out = []
    for t in range(x.shape[1]):
        written = (dt[:, t, :, None] * x[:, t]).unsqueeze(-1) * B[:, t].unsqueeze(2)
        state = state * (dt[:, t] * A).exp()[..., None, None] + written
        out.append((state * C[:, t].unsqueeze(2)).sum(-1) + D[:, None] * x[:, t])
    return torch.stack(out, 1)


def gated_norm(x, weight, bias, *, z, eps, group_size, norm_before_gate):
    assert bias is None
    gate = F.silu(z)
    y = (x if norm_before_gate else x * gate).unflatten(-1, (-1, group_size))
    y = (y * (y.square().mean(-1, keepdim=True) + eps).rsqrt()).flatten(-2) * weight
    return y * gate if norm_before_gate else y


def fused_block(
    zxbcdt,
    conv_weight,
    conv_bias,
    dt_bias,
    A,
    D,
    chunk_size,
    *,
    dt_limit,
    rmsnorm_weight,
    rmsnorm_eps,
    outproj_weight,
    headdim,
    ngroups,
    norm_before_gate,
    activation="silu",
):
    """mamba_split_conv1d_scan_combined."""
    inner = rmsnorm_weight.shape[0]
    channels, taps = conv_weight.shape
    z, xBC, dt = zxbcdt.split([inner, channels, dt_bias.shape[0]], -1)
    past = F.pad(xBC.mT, (taps - 1, 0))
    xBC = F.silu(F.conv1d(past, conv_weight.unsqueeze(1), conv_bias, groups=channels)).mT
    states = (channels - inner) // 2
    x, B, C = xBC.split([inner, states, states], -1)
    y = recurrence(
        x.unflatten(-1, (-1, headdim)),
        dt,
        A,
        B.unflatten(-1, (ngroups, -1)),
        C.unflatten(-1, (ngroups, -1)),
        D=D,
        dt_bias=dt_bias,
        dt_softplus=True,
        dt_limit=dt_limit,
        chunk_size=chunk_size,
    ).flatten(-2)
    y = gated_norm(
        y,
        rmsnorm_weight,
        None,
        z=z,
        eps=rmsnorm_eps,
        group_size=inner // ngroups,
        norm_before_gate=norm_before_gate,
    )
    return y @ outproj_weight.T


@pytest.fixture
def kernels(monkeypatch):
    """Stand-ins with mamba-ssm's calling conventions; ``calls`` counts the fused block's."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    calls = []

    def counted(*given, **named):
        calls.append(named["chunk_size"] if "chunk_size" in named else given[6])
        return fused_block(*given, **named)

    scan = SimpleNamespace(
        mamba_split_conv1d_scan_combined=counted, mamba_chunk_scan_combined=recurrence
    )
    made = SimpleNamespace(
        scan=scan, norm=SimpleNamespace(rmsnorm_fn=gated_norm), fused_convolution=True, calls=calls
    )
    monkeypatch.setattr(kernel_module, "load", lambda: made)
    return made


def error(a, b):
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("reverse", [True, False])
@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize(
    "settings",
    [{}, {"ngroups": 2, "norm_before_gate": True}, {"dt_limit": (0.02, 0.05)}],
    ids=["plain", "groups", "limits"],
)
def test_mamba_ssm_computes_what_torch_computes(kernels, settings, padded, reverse, fused):
    kernels.fused_convolution = fused
    torch.manual_seed(0)
    mixer = Mamba2(16, d_state=4, headdim=8, **settings)
    u_BTD = torch.randn(3, 9, 16)
    lengths_B = torch.tensor([9, 5, 1]) if padded else None
    valid_BT1 = (torch.arange(9) < (lengths_B if padded else torch.full((3,), 9))[:, None])[
        ..., None
    ]
    weight_BTD = torch.randn(3, 9, 16)
    results = []
    for backend in backends.BACKENDS:
        mixer.backend = backend
        given = u_BTD.clone().requires_grad_()
        out_BTD = mixer(given, lengths_B, reverse=reverse)
        loss = (out_BTD * weight_BTD * valid_BT1).sum()
        grads = torch.autograd.grad(loss, [given, *mixer.parameters()])
        results.append([(out_BTD * valid_BT1).detach(), *grads])
    for ours, theirs in zip(*results, strict=True):
        assert error(theirs, ours) < 1e-5
    assert len(kernels.calls) == fused


@pytest.mark.parametrize("reverse", [True, False])
def test_what_stands_in_padding_touches_nothing(kernels, reverse):
    torch.manual_seed(0)
    mixer = Mamba2(16, d_state=4, headdim=8)
    mixer.backend = "mamba_ssm"
    u_BTD = torch.randn(2, 7, 16)
    lengths_B = torch.tensor([7, 3])
    spoilt_BTD = u_BTD.clone()
    spoilt_BTD[1, 3:] = torch.nan
    grads = []
    for given in (u_BTD, spoilt_BTD):
        out_BTD = mixer(given, lengths_B, reverse=reverse)
        assert (out_BTD[1, 3:] == 0).all()
        alone_BTD = mixer(u_BTD[1:, :3], reverse=reverse)
        assert error(out_BTD[1:, :3], alone_BTD) < 1e-6
        grads.append(torch.autograd.grad(out_BTD.square().sum(), [*mixer.parameters()]))
    for clean, spoilt in zip(*grads, strict=True):
        assert torch.equal(clean, spoilt)


def test_turning_rows_around_is_its_own_gradient():
    x_BTD = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    index_BT = torch.tensor([[3, 2, 1, 0], [1, 0, 2, 3]])
    turned = kernel_module._ReverseRows.apply(x_BTD, index_BT)
    assert torch.equal(turned[0], x_BTD[0].flip(0)) and torch.equal(turned[1, 0], x_BTD[1, 1])
    torch.autograd.gradcheck(kernel_module._ReverseRows.apply, (x_BTD, index_BT))


@pytest.mark.parametrize("taps", [1, 5])
def test_taps_that_causal_conv1d_does_not_have_go_the_long_way(kernels, taps):
    torch.manual_seed(0)
    mixer = Mamba2(16, d_state=4, headdim=8, d_conv=taps)
    u_BTD = torch.randn(1, 6, 16)
    expected = mixer(u_BTD)
    mixer.backend = "mamba_ssm"
    assert error(mixer(u_BTD), expected) < 1e-5
    assert not kernels.calls


@pytest.mark.parametrize(("steps", "chunk"), [(1, 64), (65, 128), (300, 256), (5000, 256)])
def test_chunks_are_no_longer_than_needed(kernels, monkeypatch, steps, chunk):
    seen = []

    def chunk_only(projected, *_, chunk_size, **__):
        seen.append(chunk_size)
        return projected[..., :8]

    kernels.scan.mamba_split_conv1d_scan_combined = chunk_only
    mixer = Mamba2(8, d_state=4, headdim=8)
    mixer.backend = "mamba_ssm"
    mixer(torch.zeros(1, steps, 8))
    assert seen == [chunk]


def test_a_tensor_the_kernels_cannot_take_is_refused(kernels, monkeypatch):
    mixer = Mamba2(16, d_state=4, headdim=8)
    with pytest.raises(ValueError, match="was given float64; expected float32"):
        kernel_module.mamba_ssm_mixer(mixer.double(), torch.zeros(1, 3, 16, dtype=torch.float64))
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(ValueError, match=r"tensor on 'cpu'; expected CUDA; move"):
        kernel_module.mamba_ssm_mixer(mixer.float(), torch.zeros(1, 3, 16))


def test_auto_is_torch_on_a_cpu_without_looking_for_kernels(monkeypatch):
    monkeypatch.setattr(kernel_module, "load", lambda: pytest.fail("looked"))
    assert backends.choose("auto", "cpu") == backends.choose("torch", "cpu") == "torch"


def test_a_backend_that_is_not_there_is_no_other():
    with pytest.raises(ValueError, match="needs a CUDA device") as caught:
        backends.choose("mamba_ssm", "cpu")
    assert backends.INSTALL in str(caught.value) and "\n" not in str(caught.value)


def test_an_unknown_backend_is_named():
    with pytest.raises(ValueError, match="backend is 'triton'; expected one of 'auto', 'torch'"):
        backends.choose("triton", CPU)


@pytest.fixture
def cuda(monkeypatch, kernels):
    """As if there were a device; the probe's own answer is ``kernels.wrong``."""
    kernels.wrong = None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(backends, "_probe", lambda device: kernels.wrong)
    return kernels


def test_on_cuda_auto_takes_kernels_that_work(cuda):
    assert backends.status("cuda") == {"torch": None, "mamba_ssm": None}
    assert backends.choose("auto", "cuda") == backends.choose("mamba_ssm", "cuda") == "mamba_ssm"
    assert backends.choose("torch", "cuda") == "torch"


def test_on_cuda_kernels_that_err_are_left_alone(cuda):
    cuda.wrong = "its output differs"
    assert backends.choose("auto", "cuda") == "torch"
    with pytest.raises(ValueError, match="its output differs"):
        backends.choose("mamba_ssm", "cuda")


def test_the_probe_passes_right_kernels_and_names_what_is_wrong(kernels, monkeypatch):
    assert backends._probe.__wrapped__(CPU) is None
    right = kernels.scan.mamba_split_conv1d_scan_combined
    kernels.scan.mamba_split_conv1d_scan_combined = lambda *a, **k: right(*a, **k) * 1.05
    assert "its output differs from torch's by 5.0e-02" in backends._probe.__wrapped__(CPU)
    kernels.scan.mamba_split_conv1d_scan_combined = lambda *a, **k: right(*a, **k) * torch.nan
    assert "differs from torch's by nan" in backends._probe.__wrapped__(CPU)

    def no_compiler(*_, **__):
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC")

    kernels.scan.mamba_split_conv1d_scan_combined = no_compiler
    assert backends._probe.__wrapped__(CPU) == (
        "RuntimeError: Failed to find C compiler. Please specify via CC"
    )


def test_the_probe_leaves_the_random_numbers_alone(kernels):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    backends._probe.__wrapped__(CPU)
    assert torch.equal(torch.rand(2), expected)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Write a package called mamba_ssm whose modules hold the given code."""

    def write(scan="", package="", version=None):
        folder = tmp_path / "mamba_ssm" / "ops" / "triton"
        folder.mkdir(parents=True)
        for part in (folder.parent, folder):
            (part / "__init__.py").touch()
        (folder.parents[1] / "__init__.py").write_text(package)
        (folder / "ssd_combined.py").write_text(scan)
        (folder / "layernorm_gated.py").touch()
        if version:
            info = tmp_path / f"mamba_ssm-{version}.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Name: mamba-ssm\nVersion: {version}\n")

    for name in [name for name in sys.modules if name.split(".")[0] == "mamba_ssm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    kernel_module.load.cache_clear()
    yield write
    kernel_module.load.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == "mamba_ssm"]:
        del sys.modules[name]


def test_a_package_that_fails_as_a_whole_still_gives_its_kernels(installed):
    installed(package="raise AttributeError('tilelang')", scan="causal_conv1d_fwd_function = None")
    assert not kernel_module.load().fused_convolution
    assert "mamba_ssm" not in sys.modules  # who asks for it gets the real one, with its error


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("raise AttributeError('ffi:\\n no such')", "AttributeError: ffi: no such"),
        ("raise OSError('libcudart.so.13')", "OSError: libcudart.so.13"),
        ("import not_there_at_all", "ModuleNotFoundError: No module named 'not_there_at_all'"),
    ],
)
def test_kernels_that_do_not_import_say_why_in_one_line(installed, broken, said):
    installed(scan=broken)
    assert backends.status("cpu")["mamba_ssm"].endswith(said)
    assert "mamba_ssm" not in sys.modules


def test_a_version_with_wrong_gradients_is_not_used(installed):
    installed(version="2.2.4")
    assert "mamba-ssm is 2.2.4; 2.2.5 or newer is needed" in backends.status("cpu")["mamba_ssm"]


CUDA_SAYS = "needs a CUDA device; there is none"
if torch.cuda.is_available():
    CUDA_SAYS = backends.status("cuda")["mamba_ssm"]


@pytest.mark.skipif(CUDA_SAYS is not None, reason=f"mamba_ssm does not work here: {CUDA_SAYS}")
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_on_cuda_the_kernels_agree_forward_and_backward(autocast, reverse):
    torch.manual_seed(0)
    mixer = Mamba2(256).cuda()
    u_BTD = torch.randn(4, 700, 256, device="cuda")
    lengths_B = torch.tensor([700, 1, 333, 64], device="cuda")
    weight_BTD = torch.randn_like(u_BTD)
    weight_BTD *= (torch.arange(700, device="cuda") < lengths_B[:, None])[..., None]
    results = []
    for backend in backends.BACKENDS:
        mixer.backend = backend
        given = u_BTD.clone().requires_grad_()
        with torch.autocast("cuda", torch.bfloat16, enabled=autocast and backend == "mamba_ssm"):
            out_BTD = mixer(given, lengths_B, reverse=reverse)
        grads = torch.autograd.grad((out_BTD * weight_BTD).sum(), [given, *mixer.parameters()])
        results.append([out_BTD.float() * (weight_BTD != 0), *grads])
    for ours, theirs in zip(*results, strict=True):
        assert error(theirs, ours) < (5e-2 if autocast else 5e-3)  # float32 is multiplied as TF32
