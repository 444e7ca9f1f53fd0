"""Jobs on threads: one processor each, results in order, whatever else goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest
import torch

from remit.nn import lanes
from remit.nn.mamba2 import Mamba2

CPU = torch.device("cpu")


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    assert torch.get_num_threads() == request.param
    torch.set_num_threads(before)


def test_every_job_has_one_processor(threads: int) -> None:
    def job() -> int:
        torch.ones(100_000).exp().sum()  # a first operation must not take more of them
        return torch.get_num_threads()

    assert lanes.run([job] * 7, CPU, always=True) == [1] * 7


def test_results_keep_their_order(threads: int) -> None:
    def job(number: int) -> int:
        time.sleep(0.002 * (5 - number))
        return number

    assert lanes.run([partial(job, number) for number in range(6)], CPU) == list(range(6))
    assert lanes.run([], CPU) == []


def test_jobs_may_have_jobs(threads: int) -> None:
    def outer() -> list[int]:
        return lanes.run([torch.get_num_threads] * 4, CPU, always=True)

    assert lanes.run([outer] * 4, CPU, always=True) == [[1] * 4] * 4


@pytest.mark.parametrize("always", [False, True])
def test_too_few_jobs_run_here(always: bool) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        (where,) = lanes.run([threading.current_thread], CPU, always=always)
        assert (where is threading.current_thread()) is not always
        here = lanes.run([threading.current_thread] * 6, torch.device("meta"))
        assert set(here) == {threading.current_thread()}
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("inference", [False, True])
def test_jobs_run_without_gradient_in_the_callers_mode(threads: int, inference: bool) -> None:
    def job() -> tuple[bool, bool]:
        return torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    with torch.inference_mode(inference):
        assert lanes.run([job] * 4, CPU, always=True) == [(False, inference)] * 4


def test_an_error_in_a_job_reaches_the_caller(threads: int) -> None:
    def fails() -> None:
        raise KeyError("this one")

    with pytest.raises(KeyError, match="this one"):
        lanes.run([lambda: None, fails, lambda: None], CPU, always=True)
    assert lanes.run([lambda: 1] * 3, CPU, always=True) == [1] * 3


def test_gradients_do_not_depend_on_the_number_of_threads() -> None:
    torch.manual_seed(0)
    mixer = Mamba2(64)
    u_BTD = torch.randn(24, 600, 64)  # a tile each: more than lanes, and enough for any of these
    before = torch.get_num_threads()
    found = []
    try:
        for number in (1, 2, 4):
            torch.set_num_threads(number)
            mixer.zero_grad()
            mixer(u_BTD).square().sum().backward()
            found.append({name: p.grad.clone() for name, p in mixer.named_parameters()})
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert [name for name in other if not torch.equal(other[name], found[0][name])] == []
