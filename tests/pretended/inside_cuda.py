"""remit where a CUDA device is pretended, against the CPU. Run by test_pretended_cuda.py; see device.py."""

import pytest
import torch
from torch import nn

from remit import doctor
from remit.config import Execution
from remit.nn.mamba2 import BidirectionalMamba2, Mamba2
from remit.nn.ssd import plain_scan
from remit.training import checkpoint
from remit.training.runtime import prepare
from tests.unit.training.conftest import PEOPLE, RULE_MODEL, Bench, make_dataset, split_of

CPU = Execution(device="cpu", mlflow=False, training_threads=1)
CUDA = Execution(device="auto", mlflow=False, training_threads=1)


@pytest.fixture(autouse=True)
def deterministic():
    """As every training is; 'auto' finds the device."""
    assert prepare(CUDA).type == "cuda"
    yield
    torch.use_deterministic_algorithms(False)


def test_what_cuda_refuses_is_refused():
    """Else nothing here would mean anything."""
    there, here = torch.ones(3, 4, device="cuda"), torch.ones(3, 4)
    assert there.device == torch.device("cuda", 0) and torch.tensor([1.0], device="cuda").is_cuda
    for action in (
        lambda: there + here,
        lambda: nn.functional.linear(there, here),
        lambda: nn.Linear(4, 2)(there),
        lambda: torch.where(there > 0, there, here),
        lambda: here[there[0].long()],
    ):
        with pytest.raises(RuntimeError, match="same device"):
            action()
    for action in (lambda: there.median(dim=1), lambda: there.histc()):
        with pytest.raises(RuntimeError, match="deterministic"):
            action()
    with pytest.raises(TypeError, match="numpy"):
        there.numpy()
    assert torch.equal((there + torch.tensor(1.0)).cpu(), here + 1)  # a number may be anywhere
    assert there.cumsum(0)[-1].tolist() == [3.0] * 4


def compared(function, inputs, modules=None):
    """Output and gradients of a function on the CPU and on the device, made equal."""
    found = []
    for which, device in enumerate(("cpu", "cuda")):
        given = [part.detach().to(device, copy=True).requires_grad_() for part in inputs]
        weights = list(modules[which].parameters()) if modules else []
        out = function(which, device, *given)
        assert out.device.type == device
        (
            out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape).to(device)
        ).sum().backward()
        found.append([out, *(part.grad for part in (*given, *weights))])
    for one, other in zip(*found, strict=True):
        assert other.is_cuda
        torch.testing.assert_close(other.detach().cpu(), one.detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("make", [Mamba2, BidirectionalMamba2])
@pytest.mark.parametrize("lengths", [None, [150, 3, 77]])
def test_the_block_agrees_with_the_cpu(make, lengths, precision):
    torch.manual_seed(0)
    here, there = (make(32, d_state=16, headdim=16, chunk_size=16) for _ in range(2))
    there.load_state_dict(here.state_dict())
    there.to("cuda")
    for part in (*here.modules(), *there.modules()):
        if isinstance(part, Mamba2):
            part.precision = precision

    def forward(which, device, u_BTD):
        lengths_B = None if lengths is None else torch.tensor(lengths, device=device)
        return (here, there)[which](u_BTD, lengths_B)

    compared(forward, [torch.randn(3, 150, 32)], (here, there))


@pytest.mark.parametrize("reverse", [False, True])
def test_the_scan_of_ordinary_operations_agrees_with_the_cpu(reverse):
    """What torch.compile is given on CUDA."""
    torch.manual_seed(0)
    x_BTHP, B_BTGN, C_BTGN = (torch.randn(2, 50, 2, 4) for _ in range(3))
    dt_BTH, A_H = torch.rand(2, 50, 2), -torch.rand(2)

    def scan(_which, _device, *given):
        return plain_scan(*given, chunk_size=16, reverse=reverse)[0]

    compared(scan, [x_BTHP, dt_BTH, A_H, B_BTGN, C_BTGN])


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    primary = make_dataset(folder, PEOPLE)
    return Bench(folder, primary, split_of(primary, folder))


@pytest.mark.parametrize(("precision", "within"), [("float32", 1e-4), ("bfloat16", 2e-2)])
def test_the_trainings_agree_with_the_cpu(bench, tmp_path, precision, within):
    """Backbone and classifier, each judged by its own history; their files say where they were made."""
    found = []
    model = RULE_MODEL | {"precision": precision}
    for execution, device in ((CPU, "cpu"), (CUDA, "cuda")):
        place = tmp_path / device
        place.mkdir()
        backbone, _ = bench.pretrain(
            place / "backbone.pt",
            execution=execution,
            model=model,
            pooled_weight=0.2,
            latent_weight=0.3,
        )
        tuned, _ = bench.finetune(
            backbone, place / "tuned.pt", execution=execution, model=model, freeze_backbone=False
        )
        found.append([checkpoint.load(backbone, "pretrained"), checkpoint.load(tuned, "finetuned")])
    for here, there in zip(*found, strict=True):
        assert (here["device"], there["device"]) == ("cpu", "cuda")
        assert not any(tensor.is_cuda for tensor in there["state_dict"].values())
        for one, other in zip(here["history"], there["history"], strict=True):
            assert other == pytest.approx(one, rel=within, abs=within)


def test_the_doctor_sees_the_device(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    shown = doctor.lines(doctor.examine(CUDA))
    assert any("pretended" in line for line in shown), shown
