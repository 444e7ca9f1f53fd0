"""Device, backend and products of a training: chosen, said, stored."""

import pytest
import torch

from remit.config import Execution
from remit.errors import RemitError
from remit.nn import backends, products
from remit.nn.encoder import Encoder, EncoderSettings
from remit.nn.mamba2 import Mamba2
from remit.training import checkpoint, runtime

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
    assert checkpoint.load(backbone, "pretrained")["backend"] == "torch"
    _, lines = bench.finetune(backbone, tmp_path / "again.pt")
    assert "device cpu, backend torch" in lines[0]


@pytest.mark.parametrize("fast", [False, True])
def test_preparing_allows_or_forbids_fast_products(fast):
    runtime.prepare(Execution(device="cpu", training_threads=1, fast_products=fast))
    assert products.routed() == (fast and products.onednn_serves())
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory
