"""The processes that share one training: which sequences are whose, and what they add up.

Every rank holds the same weights and makes the same steps, each with the gradient of the whole batch:
the sum over ranks of gradients that weigh as many masked tokens as they come from. So their number
changes a result by rounding only. A process alone is one rank, without any torch.distributed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist

from remit.config import Execution
from remit.errors import RemitError
from remit.training import launcher
from remit.training.runtime import device_of, prepare

# How long one rank waits for another. A rank that ends is noticed at once; this is for one that
# hangs, and longer than any saving of a state or reading of a corpus that differs between ranks.
PATIENCE = timedelta(minutes=30)

Value = TypeVar("Value")


def started_by_torchrun() -> bool:
    """Whether this process is one of torchrun's, and so a rank."""
    return dist.is_torchelastic_launched()


def count_ranks(execution: Execution, batch_size: int) -> int:
    """How many ranks ``execution.ranks`` asks for here; 'auto' takes no more than a batch has sequences.

    Raises:
        RemitError: for more ranks than CUDA devices, or than sequences in a batch.
    """
    asked = execution.ranks
    cuda = device_of(execution).type == "cuda"
    devices = torch.cuda.device_count() if cuda else 1
    if asked == "auto":
        return min(devices, batch_size)
    if cuda and asked > devices:
        raise RemitError(
            f"execution.ranks is {asked}; found {devices} visible CUDA devices; expected one for each "
            "rank; set it to 'auto' or lower, or look at CUDA_VISIBLE_DEVICES."
        )
    if asked > batch_size:
        raise RemitError(
            f"execution.ranks is {asked} and pretraining.batch_size {batch_size}; expected at least one "
            "sequence for each rank; set ranks lower."
        )
    return asked


def threads_of(execution: Execution, ranks: int) -> int:
    """CPU threads of each rank: an equal part of the training's, and at least one."""
    return max(1, execution.training_threads // ranks)


class Ranks:
    """This process among those of its training.

    Attributes:
        rank, size: its number from 0, and how many there are.
        device: where it computes.
        main: whether it is the one that writes files and says what happens.
    """

    def __init__(self, rank: int = 0, size: int = 1, device: torch.device | None = None) -> None:
        self.rank = rank
        self.size = size
        self.device = device or torch.device("cpu")
        self.main = rank == 0

    @classmethod
    def join(cls, execution: Execution) -> Ranks:
        """Prepare this process for training (see :func:`runtime.prepare`) and meet the others, if
        torchrun started it."""
        size = int(os.environ["WORLD_SIZE"]) if started_by_torchrun() else 1
        threads = threads_of(execution, size)
        device = prepare(execution.model_copy(update={"training_threads": threads}))
        if size == 1:
            return cls(device=device)
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(device)
        ranks = cls(int(os.environ["RANK"]), size, device)
        with ranks._together():
            # gloo for what is said between processors, whatever the device
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE
            )
        return ranks

    def share(self, indices: np.ndarray) -> np.ndarray:
        """This rank's part of a batch: as many as each other rank's, or one more; may be empty."""
        return np.array_split(indices, self.size)[self.rank]

    def gather(self, value: Value) -> list[Value]:
        """Everyone's value, in order of rank. Each rank has to call it."""
        if self.size == 1:
            return [value]
        found: list[Value] = [value] * self.size
        with self._together():
            dist.all_gather_object(found, value)
        return found

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag whether it is set on some rank, so that all decide alike."""
        return tuple(any(flag) for flag in zip(*self.gather(flags), strict=True))

    def sum_numbers(self, values: Mapping[str, float]) -> dict[str, float]:
        """Plain numbers summed over ranks, in their order; a rank may lack a key."""
        sums: dict[str, float] = {}
        for part in self.gather(dict(values)):
            for key, value in part.items():
                sums[key] = sums.get(key, 0) + value
        return sums

    def sum_(self, values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Scalars summed over ranks in float64 (whole numbers as such); a rank may lack a key."""
        if self.size == 1:
            return dict(values)
        sums = self.sum_numbers({key: value.item() for key, value in values.items()})
        return {
            key: torch.tensor(
                value,
                dtype=torch.int64 if isinstance(value, int) else torch.float64,
                device=self.device,
            )
            for key, value in sums.items()
        }

    def sum_gradients(self, module: torch.nn.Module) -> None:
        """Give every rank the sum of the ranks' gradients, in one message.

        None counts as zero, and stays None where every rank has it: a step moves no such parameter.
        """
        if self.size == 1:
            return
        parameters = [part for part in module.parameters() if part.requires_grad]
        flat = torch.cat(
            [
                torch.tensor(
                    [part.grad is not None for part in parameters],
                    dtype=torch.float32,
                    device=self.device,
                ),
                *(
                    (torch.zeros_like(part) if part.grad is None else part.grad).flatten().float()
                    for part in parameters
                ),
            ]
        )
        with self._together():
            dist.all_reduce(flat)
        had, *sums = flat.split([len(parameters), *(part.numel() for part in parameters)])
        for part, given, total in zip(parameters, had.tolist(), sums, strict=True):
            part.grad = total.view_as(part).to(part.dtype) if given else None

    def check_same(self, what: str, value: str) -> None:
        """Refuse to go on where ranks differ in what they must share; raises :class:`RemitError`."""
        if len(set(self.gather(value))) > 1:
            raise RemitError(
                f"pretraining: the ranks differ in {what}; expected the same in all; what was saved "
                "before is kept; use devices of one kind and a folder that all ranks see alike, or set "
                "execution.ranks: 1."
            )

    def barrier(self) -> None:
        """Wait until every rank is here."""
        self.gather(None)

    def close(self) -> None:
        """Part from the others."""
        if self.size > 1:
            dist.destroy_process_group()

    @contextmanager
    def _together(self) -> Iterator[None]:
        """What needs the others. Where they are gone, the one who went first has the reason."""
        try:
            yield
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            line = (
                f"rank {self.rank} of the training lost the others ({reason}); expected them to answer; "
                "the same command goes on from the state saved before."
            )
            if launcher.launched():
                launcher.leave_word(line, 1, lost=True)
                raise SystemExit(1) from None
            raise RemitError(line) from None


ALONE = Ranks()
