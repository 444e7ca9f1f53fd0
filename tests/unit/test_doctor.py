"""`remit doctor`: every part answers, whatever the machine; never a traceback."""

import json

import pytest
import torch

from remit import doctor
from remit.config import Execution
from remit.nn import backends, products

from ..conftest import remit

PARTS = [
    "versions",
    "processor",
    "memory",
    "cuda",
    "backends",
    "fast_products",
    "mlflow",
    "training",
]


@pytest.fixture
def quick(monkeypatch):
    """Without MLflow's seconds."""
    monkeypatch.setattr(doctor, "_mlflow", lambda: {"version": "0"})


def test_the_command_gives_json_for_machines(tmp_path):
    done = remit("doctor", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    found = json.loads(done.stdout)
    assert list(found) == PARTS
    assert found["versions"]["torch"] == torch.__version__
    assert found["processor"]["cores"] >= 1 and found["memory"]["total_mb"] > 100
    assert found["backends"]["torch"] is None
    assert found["mlflow"]["version"].count(".") == 2
    assert found["fast_products"]["default_gflops"] > 0
    assert 0 < found["fast_products"]["fast_error"] < 2e-6


def test_each_part_is_a_line_and_what_a_training_uses_the_last(quick):
    shown = doctor.lines(doctor.examine(Execution(device="cpu", training_threads=1)))
    assert len(shown) == len(PARTS) + 1  # two backends
    assert not any("\n" in line for line in shown)
    assert any(line.startswith("backend torch") and line.endswith("works") for line in shown)
    assert shown[-1].startswith("training")
    assert "would use cpu, 1 threads, backend torch" in shown[-1]


def test_a_backend_that_does_not_work_comes_with_its_remedy(quick, monkeypatch):
    monkeypatch.setattr(
        backends, "status", lambda device: {"torch": None, "mamba_ssm": "OSError: libcudart.so"}
    )
    shown = doctor.lines(doctor.examine(Execution(device="cpu")))
    (line,) = [line for line in shown if line.startswith("backend mamba_ssm")]
    assert "no: OSError: libcudart.so" in line and backends.INSTALL in line


def test_a_training_that_would_be_refused_says_why(quick, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for execution, said in (
        (Execution(device="cuda"), "found no CUDA device"),
        (Execution(device="cpu", backend="mamba_ssm"), "needs a CUDA device"),
    ):
        assert said in doctor.lines(doctor.examine(execution))[-1]


def test_one_sick_part_stops_no_other(quick, monkeypatch):
    def broken(*_):
        raise RuntimeError("no such\nfile")

    for part in ("_processor", "_memory", "_cuda", "_fast_products"):
        monkeypatch.setattr(doctor, part, broken)
    monkeypatch.setattr(backends, "status", broken)
    shown = doctor.lines(doctor.examine(Execution(device="cpu")))
    assert sum(line.endswith("no: RuntimeError: no such file") for line in shown) == 5
    assert "would use cpu" in shown[-1]


def test_fast_products_follow_the_setting(quick):
    threads = torch.get_num_threads()
    found = doctor.examine(Execution(device="cpu", fast_products=False, training_threads=1))
    assert found["training"]["fast_products"] is False and not products.routed()
    assert torch.get_num_threads() == threads
    found = doctor.examine(Execution(device="cpu", training_threads=1))
    assert found["training"]["fast_products"] == products.onednn_serves()


def test_a_containers_limits_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "CGROUP", tmp_path)
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert doctor._processor()["quota_cores"] == 1.5
    assert doctor._memory()["quota_mb"] is None
    (tmp_path / "memory.max").write_text(f"{3 * 1024**2}\n")
    assert doctor._memory()["quota_mb"] == 3


def test_an_mlflow_that_does_not_import_says_why(monkeypatch):
    monkeypatch.setattr(doctor.sys, "executable", "/bin/false")
    assert doctor._mlflow() == {"why_not": "no reason given"}
