"""Missing samples in an array (NaN): a stretch of them ends a segment, and nothing is filled in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from remit.errors import RemitError

if TYPE_CHECKING:
    import numpy as np

    from remit.recordings.recording import Segment


@dataclass(frozen=True, eq=False)
class Present:
    """What is there: signal [C, S] without NaN, its rows' indices, segments, and sentences."""

    signal_CS: np.ndarray
    rows: tuple[int, ...]
    segments: tuple[Segment, ...]
    notes: tuple[str, ...]


def without_missing(
    signal_CS: np.ndarray,
    names: Sequence[str],
    segments: Sequence[Segment],
    rate: float,
    source: str,
    windows: bool = False,
) -> Present:
    """Leave out channels that are NaN throughout, then the samples that are NaN in any channel.

    `names`: the file's own, for the notes. `rate` in Hz. `windows`: the segments are windows that
    the source cut, and one with a missing sample is left out entirely. `source` names the file in
    errors. Raises RemitError when nothing is left.
    """
    import numpy as np

    from remit.recordings.clock import cut_missing

    rows = tuple(range(len(names)))
    if signal_CS.dtype.kind != "f" or not (missing_CS := np.isnan(signal_CS)).any():
        return Present(signal_CS, rows, tuple(segments), ())
    there = tuple(row for row in rows if not missing_CS[row].all())
    notes = [
        f"Channel {names[row]} holds no numbers and is left out."
        for row in rows
        if row not in there
    ]
    missing_S = missing_CS[list(there)].any(axis=0)
    if windows:
        touched = [each for each in segments if missing_S[each.start : each.stop].any()]
        for segment in touched:
            missing_S[segment.start : segment.stop] = True
        if touched:
            notes.append(
                f"{len(touched)} of {len(segments)} windows hold missing values (NaN) and are left "
                "out."
            )
    if not there or missing_S.all():
        raise RemitError(
            f"{source}: every {'window' if windows else 'sample'} has a missing value (NaN) in some "
            "channel; expected numbers; leave out the channel or this recording."
        )
    kept, kept_S, said = cut_missing(segments, missing_S, rate)
    signal_CS = signal_CS[list(there)] if len(there) < len(rows) else signal_CS
    return Present(
        signal_CS if kept_S.all() else signal_CS[:, kept_S],
        there,
        kept,
        (*notes, *([] if windows else said)),
    )
