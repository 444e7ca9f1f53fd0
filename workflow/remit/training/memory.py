"""Memory that runs out: recognised, explained with the numbers, tried again with half as much at once.

A batch is added up from micro-batches. Each weighs as many masked tokens as it has, so the gradient is
that of the whole batch, to rounding. Knows tensors, and no file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

import torch

from remit.errors import RemitError

# What torch, oneDNN, cuBLAS, and torch.save with a buffer that cannot grow, say of it.
_TELLS = (
    "not enough memory",
    "can't allocate memory",
    "out of memory",
    "could not create a primitive",
    "could not create a memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "unexpected pos",
)
Result = TypeVar("Result")


def ran_out(error: Exception) -> bool:
    """Whether an error says that memory has run out, on the CPU or on a GPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(tell in str(error) for tell in _TELLS)


class MicroBatch:
    """How many sequences pass through the model at once.

    Args:
        asked: ``execution.micro_batch``: a number, or 'auto' for the whole batch, halved when memory
            runs out.
        batch: sequences of a whole batch.
        tokens: of one sequence.
        width: d_model.
        device: where memory runs out.
        log: takes one line.
        anywhere: says, of whether memory ran out here, whether it did on any rank: all halve together.
    """

    def __init__(
        self,
        asked: Literal["auto"] | int,
        *,
        batch: int,
        tokens: int,
        width: int,
        device: torch.device,
        log: Callable[[str], None],
        anywhere: Callable[[bool], bool] = bool,
    ) -> None:
        self.size = batch if asked == "auto" else min(asked, batch)
        self._auto = asked == "auto"
        self._tokens = tokens
        self._width = width
        self._device = device
        self._log = log
        self._anywhere = anywhere

    def begin_at(self, size: int) -> None:
        """Take the size that memory sufficed for before an interruption, unless one was asked for.

        More would run out again, and another size gives other last digits.
        """
        if self._auto:
            self.size = min(self.size, size)

    def within(self, action: Callable[[int], Result]) -> Result:
        """``action(size)``, again with half the size as long as memory runs out.

        Raises:
            RemitError: when it runs out with a size that was asked for, or with one sequence.
        """
        while True:
            found: list[Result] = []
            reason = ""
            try:
                found.append(action(self.size))
            except Exception as error:
                if not ran_out(error):
                    raise
                reason = " ".join(str(error).split())[:200] or type(error).__name__
            if not self._anywhere(bool(reason)):
                return found[0]
            # Here and not above: the error holds the frames, and these hold the tensors.
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            numbers = (
                f"memory of the {self._device.type} ran out with {self.size} sequences × {self._tokens} "
                f"tokens × width {self._width} at once ({reason or 'on another rank'})"
            )
            if not self._auto or self.size == 1:
                remedy = (
                    "set model.d_model, model.num_layers or sequences.context_windows lower"
                    if self.size == 1
                    else "set execution.micro_batch to 'auto' or lower"
                )
                raise RemitError(
                    f"{numbers}; expected it to suffice; {remedy}, or take a machine with more."
                )
            self.size = (self.size + 1) // 2
            self._log(
                f"warning: {numbers}; going on with {self.size} at once, and more passes a step"
            )
