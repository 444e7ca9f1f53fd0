"""Independent jobs on several threads, one processor each.

Splitting every single operation between threads makes them wait for each other hundreds of times in
a block, and each reads what another wrote. Here a thread takes a whole job, whose operations then
run on it alone: faster from as many jobs as threads, and, where there are enough jobs for that, the
same bits whatever their number.
PyTorch lets go of Python's lock inside its operations, so Python's threads do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Lock
from typing import TypeVar

import torch

# Jobs in a fixed number of lanes add up in a fixed order, whatever the number of threads.
LANES = 8
# The least share of the threads' time that is worth it: with three jobs on two threads one waits
# for a third of the time.
WORTH = 0.7

T = TypeVar("T")

_pools: dict[int, ThreadPoolExecutor] = {}
_lock = Lock()


def run(jobs: Sequence[Callable[[], T]], device: torch.device, *, always: bool = False) -> list[T]:
    """Call every job; their results in order. None may need another's.

    They run without gradient, in the caller's inference mode. With too few jobs, or on one thread,
    they run here, one after another, each on all of the caller's threads; with ``always`` each has
    one thread however few they are, so that their number does not show in any bit. On a GPU, whose
    streams belong to threads, jobs run one after another.
    """
    threads = torch.get_num_threads()
    rounds = -(-len(jobs) // threads)
    with torch.no_grad():
        if (
            device.type != "cpu"
            or threads == 1  # so it is in a job: jobs may have jobs of their own
            or (not always and len(jobs) < WORTH * rounds * threads)
        ):
            return [job() for job in jobs]
    inference = torch.is_inference_mode_enabled()

    def quietly(job: Callable[[], T]) -> T:
        with torch.inference_mode(inference), torch.no_grad():
            return job()

    return list(_pool(threads).map(quietly, jobs))


def _pool(threads: int) -> ThreadPoolExecutor:
    with _lock:
        if threads not in _pools:
            together = Barrier(threads, timeout=60)
            pool = ThreadPoolExecutor(threads, "remit")
            list(pool.map(lambda _: _one_processor(together), range(threads)))
            torch.set_num_threads(threads)  # also that of threads yet to come: put it back
            _pools[threads] = pool
        return _pools[threads]


def _one_processor(together: Barrier) -> None:
    """Let this thread's operations run on it alone, for good; every thread of a pool passes once."""
    together.wait()
    # A thread's first operation takes the process's number, unless it has asked for it before.
    torch.get_num_threads()
    torch.set_num_threads(1)
    together.wait()


def _after_fork() -> None:
    global _lock
    _pools.clear()  # threads do not survive a fork
    _lock = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
