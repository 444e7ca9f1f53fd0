"""The tests' own house: what one file of them sets for its process does not reach the next."""

import os
import signal

import mlflow
import torch

from remit import cli
from remit.config import Execution
from remit.nn import products
from remit.tracking import tracker
from remit.training.runtime import prepare
from tests.conftest import put_back


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


def test_no_test_is_called_by_what_was_packed(request):
    # Two workers whose names for one test differ collect nothing.
    assert not [item.nodeid for item in request.session.items if "\\x1f\\x8b" in item.nodeid]
