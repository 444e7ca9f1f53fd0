"""Robust scaling of a recording's signal, in training and in the exported model alike.

Per recording and channel, never per window: scaling a window by itself would erase amplitude and
leak masked samples into visible ones. Knows tensors only.

Legend of the shape suffixes
    W windows   C channels   L samples in a window   N samples of a channel (W * L)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

# The inter-quartile range of a normal distribution in standard deviations.
IQR_OF_UNIT_NORMAL = 1.3489795
# A channel quieter than this, in microvolts, is below the noise of any amplifier; dividing by
# less would turn a dead channel into a loud one.
LOWEST_SCALE_UV = 0.1
# Scaled samples beyond this many standard deviations are artefacts.
CLIP = 15.0
# Samples that tell roughly where a quartile lies, and the part of them to either side of it between which
# it is looked for: two standard deviations of a quartile of so many independent ones.
SAMPLE = 4096
MARGIN = 60


class RobustScale(NamedTuple):
    """Centre and scale of each channel of a recording in microvolts, [C, 1] each."""

    middle_C1: Tensor
    scale_C1: Tensor

    def __call__(self, windows_WCL: Tensor) -> Tensor:
        """Windows of that recording without unit."""
        return ((windows_WCL - self.middle_C1) / self.scale_C1).clamp(-CLIP, CLIP)

    def in_place(self, windows_WCL: Tensor) -> Tensor:
        """The same bits without a second copy, on a CPU, by one thread: pieces are small."""
        samples_WCL = windows_WCL.numpy()
        np.subtract(samples_WCL, self.middle_C1.numpy(), out=samples_WCL)
        np.divide(samples_WCL, self.scale_C1.numpy(), out=samples_WCL)
        np.clip(samples_WCL, -CLIP, CLIP, out=samples_WCL)
        return windows_WCL


def robust_scale(windows_WCL: Tensor) -> Tensor:
    """Centre and scale each channel of one recording over all its windows.

    (x - median) / max(inter-quartile range / 1.3489795, 0.1 uV), clipped to +-15.

    Args:
        windows_WCL: microvolts; all finite.

    Returns:
        The same shape, without unit.
    """
    return scale_of(windows_WCL)(windows_WCL)


def scale_of(windows_WCL: Tensor) -> RobustScale:
    """The numbers by which :func:`robust_scale` centres and scales.

    Quartiles interpolate linearly, as ``numpy.percentile``; torch.quantile refuses more than 16 million
    elements.
    """
    all_CN = windows_WCL.transpose(0, 1).flatten(1)
    last = all_CN.shape[1] - 1
    by_numpy = all_CN.device.type == "cpu" and not torch.compiler.is_compiling()

    def ranks(quarters: int) -> Tensor:
        # Position quarters / 4 * last: the whole index below it and the one above. By tensors, as a
        # comparison of numbers would bind an exported program to the size of its example.
        index = torch.arange(2, device=all_CN.device) + (quarters * last) // 4
        return index.clamp(max=last)

    if by_numpy:
        wanted = [ranks(quarters).tolist() for quarters in (1, 2, 3)]
        found_C32 = torch.from_numpy(np.stack([_ranked(row_N, wanted) for row_N in all_CN.numpy()]))
    else:
        sorted_CN = all_CN.sort(dim=1).values

    def quartile(quarters: int) -> Tensor:
        both_C2 = found_C32[:, quarters - 1] if by_numpy else sorted_CN[:, ranks(quarters)]
        below_C1, above_C1 = torch.split(both_C2, 1, dim=1)
        return torch.lerp(below_C1, above_C1, ((quarters * last) % 4) / 4)

    scale_C1 = ((quartile(3) - quartile(1)) / IQR_OF_UNIT_NORMAL).clamp(min=LOWEST_SCALE_UV)
    return RobustScale(quartile(2), scale_C1)


def _ranked(row_N: np.ndarray, wanted: list[list[int]]) -> np.ndarray:
    """The values at some neighbouring ranks, as a sort would have them, [quartiles, 2].

    A sorted sample says between which values they lie, and only those between are put in order.
    """
    sample = np.sort(row_N[:: max(1, len(row_N) // SAMPLE)])
    below_N, between_N = np.empty(len(row_N), dtype=bool), np.empty(len(row_N), dtype=bool)
    found = []
    for first, last in wanted:
        place = len(sample) * first // len(row_N)
        low = sample[max(place - len(sample) // MARGIN, 0)]
        high = sample[min(place + len(sample) // MARGIN, len(sample) - 1)]
        under = int(np.count_nonzero(np.less(row_N, low, out=below_N)))
        np.greater(np.less_equal(row_N, high, out=between_N), below_N, out=between_N)
        between = row_N[between_N]
        if not under <= first <= last < under + len(between):  # the sample was not like the rest
            under, between = 0, row_N
        ranks = [first - under, last - under]
        found.append(np.partition(between, ranks)[ranks])
    return np.stack(found)
