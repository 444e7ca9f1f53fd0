"""The tests' own house: what one file of them sets for its process does not reach the next."""

import os
import signal
import sys

import mlflow
import pytest
import torch

from remit import cli
from remit.config import Execution
from remit.nn import products
from remit.tracking import tracker
from remit.training.runtime import prepare
from tests.conftest import put_back, pytest_make_parametrize_id, run


def process():
    return (
        sorted(os.environ.keys() - {"PYTEST_CURRENT_TEST"}),
        signal.getsignal(signal.SIGTERM),
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
        products._wanted,
        tracker._last,
        mlflow.get_tracking_uri(),
    )


def test_what_remit_sets_for_a_process_is_put_back():
    put_back()
    before = process()
    assert cli.main(["verify", "nothing"]) == 1
    prepare(
        Execution(
            device="cpu", training_threads=torch.get_num_threads() + 2, fast_products=not before[5]
        )
    )
    mlflow.set_tracking_uri("sqlite:///elsewhere.db")
    tracker._last = tracker.Tracker(Execution(mlflow=False), "a", {}, print)
    assert all(now != then for now, then in zip(process(), before, strict=True))
    put_back()
    assert process() == before


def test_no_test_is_called_by_what_was_packed():
    # Two workers whose names for one test differ collect nothing.
    assert pytest_make_parametrize_id(b"\x1f\x8b", "content") == "content"
    assert pytest_make_parametrize_id("text", "content") is None


@pytest.mark.skipif(sys.platform != "linux", reason="PyTorch has libgomp on Linux only")
@pytest.mark.parametrize(("given", "spins"), [("", False), ("ACTIVE", True)])
def test_waiting_threads_of_a_command_sleep_unless_the_user_says_otherwise(given, spins, tmp_path):
    code = "from remit.cli import main; main(['verify', 'nothing']); import torch; torch.ones(1)"
    shown = run(
        sys.executable,
        "-c",
        code,
        cwd=tmp_path,
        env={"OMP_WAIT_POLICY": given, "OMP_DISPLAY_ENV": "verbose"},
    ).stdout
    assert "GOMP_SPINCOUNT" in shown
    assert ("GOMP_SPINCOUNT = '0'" in shown) != spins
