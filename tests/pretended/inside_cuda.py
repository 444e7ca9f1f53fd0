"""remit on CUDA against the CPU: on a pretended device (device.py), or by `make test-gpu` on a real one."""

import pytest
import torch
from torch import nn

from remit import doctor
from remit.config import Execution
from remit.nn import tiles
from remit.nn.mamba2 import BidirectionalMamba2, Mamba2
from remit.nn.ssd import plain_scan
from remit.training import checkpoint
from remit.training.runtime import prepare
from tests.unit.training.conftest import PEOPLE, RULE_MODEL, Bench, make_dataset, split_of

CPU = Execution(device="cpu", mlflow=False, training_threads=1)
# remit's own code: mamba-ssm's kernels multiply as TF32, and have tests of their own.
CUDA = Execution(device="auto", backend="torch", mlflow=False, training_threads=1)


@pytest.fixture(autouse=True)
def deterministic():
    """As every training is; 'auto' finds the device."""
    assert prepare(CUDA).type == "cuda"


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
        lambda: there.index_put_((torch.tensor([0]),), here[:1]),
        lambda: torch.stack([torch.tensor(1.0), there[0, 0]]),
        lambda: torch.tensor(1.0).add_(there[0, 0]),
        lambda: nn.functional.cross_entropy(there[0], torch.tensor(1)),
        lambda: there[0].gather(0, torch.tensor(1)),
    ):
        with pytest.raises(RuntimeError, match="same device"):
            action()
    for action in (lambda: there.median(dim=1), lambda: there.histc()):
        with pytest.raises(RuntimeError, match="deterministic"):
            action()
    with pytest.raises(RuntimeError, match="generator"):
        torch.randn(3, device="cuda", generator=torch.Generator())
    with pytest.raises(TypeError, match="numpy"):
        there.numpy()
    assert torch.equal((there + torch.tensor(1.0)).cpu(), here + 1)  # a number may be anywhere
    assert there.cumsum(0)[-1].tolist() == [3.0] * 4
    there[torch.tensor([0, 2])] = 5.0  # and indices of a device's tensor, too
    assert there[:, 0].tolist() == [5.0, 1.0, 5.0]


def compared(function, inputs, modules=None, within=1e-5):
    """Output and gradients on the CPU and on the device differ by no more than a part of the largest."""
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
        assert other.shape == one.shape
        far = (other.detach().cpu() - one.detach()).abs().max().item()
        assert far <= within * one.detach().abs().max().item()


@pytest.mark.parametrize("tile", [64, tiles.TILE_TOKENS_CUDA])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("make", [Mamba2, BidirectionalMamba2])
@pytest.mark.parametrize("lengths", [None, [150, 3, 77]])
def test_the_block_agrees_with_the_cpu(make, lengths, precision, tile, monkeypatch):
    monkeypatch.setattr(tiles, "TILE_TOKENS_CUDA", tile)
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

    # Sums of rounded factors in another order are rounded otherwise, by a few of the last digits of bfloat16.
    within = 1e-5 if precision == "float32" else 2e-2
    compared(forward, [torch.randn(3, 150, 32)], (here, there), within)


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
def test_the_trainings_agree_with_the_cpu(bench, tmp_path, precision, within, monkeypatch):
    """Backbone and classifier, each judged by its own history; their files say where they were made."""
    found, written = [], []
    save = torch.save

    def looked_at(content, *args, **kwargs):
        written.extend(content.get("state_dict", {}).values())
        save(content, *args, **kwargs)

    monkeypatch.setattr(torch, "save", looked_at)
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
    # A machine without the device reads them.
    assert written and not any(tensor.is_cuda for tensor in written)
    for here, there in zip(*found, strict=True):
        assert (here["device"], there["device"]) == ("cpu", "cuda")
        for one, other in zip(here["history"], there["history"], strict=True):
            assert other == pytest.approx(one, rel=within, abs=within)


def test_the_doctor_sees_the_device(monkeypatch):
    if torch.version.cuda is None:
        monkeypatch.setattr(torch.version, "cuda", "13.0")
    shown = doctor.lines(doctor.examine(CUDA))
    assert any(torch.cuda.get_device_name() in line for line in shown), shown
