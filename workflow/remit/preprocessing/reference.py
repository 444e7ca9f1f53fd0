"""Re-referencing: what is taken off every electrode, computed before electrodes are chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from remit.errors import RemitError, did_you_mean, some_of

if TYPE_CHECKING:
    from remit.recordings.recording import Recording

# The electrodes behind the ears, in order of preference.
MASTOIDS = (("M1", "M2"), ("A1", "A2"))
_BLOCK = 1 << 16


def reference_signal(recording: Recording, names: Sequence[str]) -> tuple[np.ndarray, str]:
    """The mean of some electrodes, float32 µV [samples], and a sentence about it."""
    rows = [recording.channels.index(name) for name in names]
    samples = recording.signal_CS.shape[1]
    mean_S = np.empty(samples, dtype=np.float32)
    for start in range(0, samples, _BLOCK):
        block_CS = recording.signal_CS[rows, start : start + _BLOCK]
        mean_S[start : start + _BLOCK] = block_CS.mean(axis=0, dtype=np.float64)
    what = f"the average of {len(names)} electrodes" if len(names) > 2 else " and ".join(names)
    return mean_S, f"Re-referenced to {what}."


def reference_electrodes(recording: Recording, reference: str | Sequence[str]) -> list[str]:
    """The electrodes whose mean is taken off every other.

    ``reference`` is 'average' (all electrodes that the source does not call bad), 'linked_mastoids'
    (M1 and M2, or A1 and A2), or one or several electrodes. Raises :class:`RemitError` for an
    electrode that the recording does not have, and for an average over fewer than two.
    """
    name = f"participant {recording.participant}, recording {recording.recording}"
    there = recording.channels
    if reference == "average":
        good = [channel for channel in there if channel not in recording.bad_channels]
        if len(good) < 2:
            raise RemitError(
                f"{name}: an average reference over {len(good)} electrodes; expected two at least; "
                "choose another preprocessing.reference."
            )
        return good
    if reference == "linked_mastoids":
        for pair in MASTOIDS:
            if set(pair) <= set(there):
                return list(pair)
        raise RemitError(
            f"{name}: no mastoids; it has {some_of(there, 40)}; expected M1 and M2, or A1 and A2; "
            "choose another preprocessing.reference."
        )
    wanted = [reference] if isinstance(reference, str) else list(reference)
    if len(set(wanted)) < len(wanted):
        raise RemitError(
            f"{name}: preprocessing.reference is {', '.join(wanted)}; expected each electrode once; "
            "remove one."
        )
    for channel in wanted:
        if channel not in there:
            raise RemitError(
                f"{name}: no reference electrode '{channel}'; it has {some_of(there, 40)}; expected one "
                f"of them; choose another preprocessing.reference.{did_you_mean(channel, there)}"
            )
    return wanted
