"""Device, backend and products of a training: chosen, said, stored."""

import os
import sys

import numpy as np
import pytest
import torch

from remit.config import Execution
from remit.errors import RemitError
from remit.nn import backends, products
from remit.nn.encoder import Encoder, EncoderSettings
from remit.nn.mamba2 import Mamba2
from remit.training import checkpoint, runtime
from remit.training.pretrain import accumulate
from tests.conftest import run
from tests.faults.test_faults import reconstruction
from tests.unit.training.conftest import DEVICE, on_cpu, read_of

CPU = torch.device("cpu")


def encoder():
    settings = EncoderSettings(16, 2, 8, d_state=8, headdim=16)
    return Encoder(settings, torch.tensor([[0.03, 0.08, 0.0], [-0.03, 0.08, 0.0]]))


def test_every_block_gets_the_backend_chosen(monkeypatch):
    monkeypatch.setattr(backends, "choose", lambda asked, device: "mamba_ssm")
    model = encoder()
    assert runtime.use_backend(model, "auto", torch.device("cuda")) == "mamba_ssm"
    mixers = [part for part in model.modules() if isinstance(part, Mamba2)]
    assert len(mixers) == 4 and {mixer.backend for mixer in mixers} == {"mamba_ssm"}
    assert not any("backend" in key for key in model.state_dict())


def test_a_backend_that_is_not_there_stops_a_training_in_one_line(bench):
    execution = Execution(device="cpu", mlflow=False, backend="mamba_ssm")
    with pytest.raises(
        RemitError, match="execution.backend: backend 'mamba_ssm' does not work here"
    ):
        bench.pretrain(execution=execution)


def test_the_backend_is_said_and_stored(trained, tmp_path):
    bench, backbone = trained
    stored = checkpoint.load(backbone, "pretrained")["backend"]
    assert stored == "torch" or DEVICE == "cuda"
    _, lines = bench.finetune(backbone, tmp_path / "again.pt")
    assert f"device {DEVICE}, backend {stored}" in lines[0]


@pytest.mark.parametrize("fast", [False, True])
def test_preparing_allows_or_forbids_fast_products(fast):
    runtime.prepare(Execution(device="cpu", training_threads=1, fast_products=fast))
    assert products.routed() == (fast and products.onednn_serves())
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory


def step_of(model, batch):
    """The loss and all gradients of a batch."""
    masked = batch.masked_BKC.sum()
    sums = accumulate(model, [batch], masked, len(batch.masked_BKC))
    return float(sums["loss"] / masked), {
        key: part.grad for key, part in model.named_parameters() if part.grad is not None
    }


def test_bfloat16_rounds_products_and_keeps_parameters_in_float32(bench):
    given = {"pooled_weight": 0.3, "latent_weight": 0.3}
    exact, sequences = reconstruction(bench, **given)
    half, _ = reconstruction(bench, precision="bfloat16", **given)
    device = torch.device(DEVICE)
    exact.to(device)
    half.to(device)
    batch = exact.masked_batch(read_of(sequences, np.arange(7)), (0, 1), device)
    loss, gradients = step_of(exact, batch)
    rounded, found = step_of(half, batch)
    assert rounded == pytest.approx(loss, rel=5e-3) and rounded != loss
    assert {part.dtype for part in [*half.parameters(), *found.values()]} == {torch.float32}
    assert gradients.keys() == found.keys()
    # The products around the blocks are rounded too: what a Linear of the heads gives is bfloat16.
    seen = []
    for part in (half.encoder.embed, half.head.waveform, half.pooled.hidden, half.encoder.norm):
        part.register_forward_hook(lambda _module, _given, out: seen.append(out.dtype))
    half(batch)
    assert sorted(seen, key=str) == [torch.bfloat16] * 3 + [torch.float32]


def test_bfloat16_without_instructions_is_said_in_one_line(bench, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False, "avx2": True})
    assert "no instructions for it" in runtime.precision_warning("bfloat16", CPU)
    assert runtime.precision_warning("float32", CPU) is None
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert runtime.precision_warning("bfloat16", CPU) is None


@on_cpu
@pytest.mark.slow
def test_compiled_it_gives_the_same_to_rounding(bench):
    """Where compiled code adds in another order; 2e-6 was seen after 20 steps."""
    plain, sequences = reconstruction(bench)
    compiled, _ = reconstruction(bench)
    runtime.compile_module(compiled, CPU)
    batch = plain.masked_batch(read_of(sequences, np.arange(7)), (0, 1), CPU)
    loss, gradients = step_of(plain, batch)
    torch._dynamo.utils.counters.clear()
    other, found = step_of(compiled, batch)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert other == pytest.approx(loss, rel=1e-5)
    assert gradients.keys() == found.keys()
    largest = max(float(gradient.abs().max()) for gradient in gradients.values())
    for key, gradient in gradients.items():
        assert float((found[key] - gradient).abs().max()) < 1e-5 * largest, key
    assert plain.state_dict().keys() == compiled.state_dict().keys()


@pytest.mark.slow
def test_without_a_compiler_it_stops_in_one_line(tmp_path):
    code = (
        "import torch\n"
        "from remit.training.runtime import compile_module\n"
        "compile_module(torch.nn.Linear(2, 2), torch.device('cpu'))\n"
    )
    none = {"CXX": str(tmp_path / "no-such-compiler"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = run(sys.executable, "-W", "ignore", "-c", code, cwd=tmp_path, env={**os.environ, **none})
    last = done.stdout.splitlines()[-1]
    assert "RemitError: execution.compile is true; found that torch.compile does not work" in last
    assert "install one (g++), or set execution.compile: false." in last
