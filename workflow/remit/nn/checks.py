"""What the modules of ``nn`` refuse, said in one line each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class NotFiniteError(ValueError):
    """A value that is read is NaN or infinite: of the data, or of what a model made of them."""


def check_finite(
    name: str, tensor: Tensor, axes: Sequence[str], lengths: Sequence[int] | None = None
) -> None:
    """Refuse NaN and infinity, naming the tensor and the first place.

    Looks at tensors on the CPU only (a look at a GPU's waits for it), and not while a program is
    exported or compiled.

    Args:
        name: what the tensor is called in the message.
        tensor: of any shape.
        axes: the names of its dimensions.
        lengths: for each entry of the first dimension, how much of the second counts; all of it
            when not given.

    Raises:
        NotFiniteError: if there is one.
    """
    if torch.compiler.is_compiling() or tensor.device.type != "cpu":
        return
    with torch.no_grad():
        if tensor.sum(dtype=torch.promote_types(tensor.dtype, torch.float32)).isfinite():
            return  # one pass; a sum that overflows is looked at again
        places = (~tensor.isfinite()).nonzero()
        if lengths is not None:
            places = places[places[:, 1] < torch.tensor(lengths)[places[:, 0]]]
    if len(places):
        place = places[0].tolist()
        value = tensor[tuple(place)].item()
        where = ", ".join(f"{axis} {at}" for axis, at in zip(axes, place, strict=True))
        raise NotFiniteError(
            f"{name} holds {value} at {where} ({len(places)} of {tensor.numel()} values are not "
            "finite); expected numbers; mend or mask the data before the model"
        )


def check_lengths(lengths_B: Tensor | None, batch: int, steps: int) -> list[int] | None:
    """The lengths of a batch's rows as plain numbers; None where every row is full.

    Raises:
        ValueError: if they are not one whole number from 0 to ``steps`` for each row.
    """
    if lengths_B is None:
        return None
    whole = not (lengths_B.dtype.is_floating_point or lengths_B.dtype == torch.bool)
    if lengths_B.shape != (batch,) or not whole:
        raise ValueError(
            f"lengths are {lengths_B.dtype} of shape {tuple(lengths_B.shape)}; expected whole "
            f"numbers of shape ({batch},), one for each row"
        )
    lengths: list[int] = lengths_B.tolist()
    for row, length in enumerate(lengths):
        if not 0 <= length <= steps:
            raise ValueError(
                f"the length of row {row} is {length}; expected 0 to {steps}, the tokens it has"
            )
    return None if all(length == steps for length in lengths) else lengths
