"""Ranks that fail, stop or lose their launcher: all end together, in one line, and nothing is lost."""

import os
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT, started
from tests.unit.training.conftest import NAME
from tests.unit.training.test_ranks import TOLERANCE, command, load, pretrain_in, worst

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc"),
]

# What happens to rank 1 alone, in its second epoch; found by every Python that has it on its path.
INJECTED = """
import os
if os.environ.get("RANK") == "1":
    import torch
    from remit.errors import RemitError
    from remit.training.reconstruction import Reconstruction
    forward, calls = Reconstruction.forward, iter(range(10**9))

    def fail():
        kind = os.environ["INJECT"]
        if kind == "error":
            raise RemitError("injected; expected nothing; do nothing.")
        if kind == "defect":
            raise KeyError("injected")
        if kind == "memory":
            raise MemoryError
        if kind == "kill":
            os.kill(os.getpid(), 9)

    def failing(self, batch):
        number = next(calls)
        if number == 9:
            fail()
        loss, parts = forward(self, batch)
        return (loss * float("nan") if number >= 9 and os.environ["INJECT"] == "nan" else loss), parts

    Reconstruction.forward = failing
"""


@pytest.mark.parametrize(
    ("kind", "code", "said"),
    [
        ("error", 1, "remit: injected; expected nothing"),
        ("defect", 70, "remit: internal error: KeyError: 'injected'"),
        ("kill", 137, "remit: rank 1 of the training was killed by SIGKILL"),
        ("nan", 1, "remit: pretraining: the loss is not finite at epoch 2"),
    ],
)
def test_what_fails_one_rank_ends_all_in_one_line(shared_bench, tmp_path, kind, code, said):
    (tmp_path / "sitecustomize.py").write_text(INJECTED)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    began = time.monotonic()
    done = pretrain_in(shared_bench, kind, 2, env={"PYTHONPATH": path, "INJECT": kind})
    assert done.returncode == code, done.stdout
    (line,) = [line for line in done.stdout.splitlines() if not line.startswith("[")]
    assert line.startswith(said)
    assert time.monotonic() - began < 90  # no rank waited for its patience to end
    (state,) = (shared_bench.folder / kind / f"{NAME}.state").glob("*.pt")
    assert load(state)["position"] == "epoch 1"


def test_memory_that_runs_out_in_one_rank_halves_in_all(shared_bench, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(INJECTED)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = pretrain_in(shared_bench, "memory", 2, env={"PYTHONPATH": path, "INJECT": "memory"})
    assert done.returncode == 0 and "(on another rank); going on with 1 at once" in done.stdout
    whole, _ = shared_bench.pretrain(shared_bench.folder / "whole_memory.pt")
    result = load(shared_bench.folder / "memory" / f"{NAME}.pt")
    assert worst(load(whole)["state_dict"], result["state_dict"]) < TOLERANCE


def start(bench, output, ranks, **options):
    """Start a training, and return it when its third epoch is over, with its lines so far."""
    words = command(bench, output, ranks, execution={"save_minutes": 60}, **options)
    process = started(*words, cwd=ROOT)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "] epoch 3/" in line:
            return process, lines
    raise AssertionError("".join(lines))


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_sigterm_saves_in_all_ranks_and_another_number_goes_on(shared_bench):
    # As much as it takes for the signal to come before the end.
    options = {"epochs": 30, "patience": 30, "batch_size": 2}
    process, _ = start(shared_bench, "term", 2, **options)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)  # schedulers send it more than once
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, rest
    others = [line for line in rest.splitlines() if "] epoch " not in line]
    assert len(others) == 1 and "SIGTERM: saved at epoch" in others[0], rest
    lines = []
    folder = shared_bench.folder
    resumed, _ = shared_bench.pretrain(folder / "term" / f"{NAME}.pt", log=lines.append, **options)
    assert any(line.startswith("resuming after epoch") for line in lines)
    whole, _ = shared_bench.pretrain(folder / "whole_term.pt", **options)
    assert worst(load(whole)["state_dict"], load(resumed)["state_dict"]) < 1e-3  # 300 steps


def test_ranks_do_not_outlive_their_launcher(shared_bench):
    process, _ = start(shared_bench, "orphans", 2, epochs=4000, patience=4000)
    ranks = children(process.pid)
    assert len(ranks) == 2
    process.kill()
    process.wait()
    until = time.monotonic() + 20
    while any(Path(f"/proc/{rank}").exists() for rank in ranks):
        assert time.monotonic() < until, "ranks go on without their launcher"
        time.sleep(0.05)
    assert torch.load(
        next((shared_bench.folder / "orphans" / f"{NAME}.state").glob("*.pt")), weights_only=True
    )["position"].startswith("epoch ")
