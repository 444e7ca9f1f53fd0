"""Whom pretraining sees: the main cohort's dataset and any number of corpora beside it.

Nobody who is held out may come back through a corpus. Knows datasets, and no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from remit.dataset.sequences import TokenSequences
from remit.dataset.windows import WindowsFile, open_dataset
from remit.errors import RemitError, some_of
from remit.training.checkpoint import check_equal
from remit.training.data import signal_of, signals_of


def open_corpora(files: Sequence[Path], primary: WindowsFile) -> list[WindowsFile]:
    """Open the corpora and refuse one whose signal is not like the primary dataset's."""
    opened = [open_dataset(file) for file in files]
    for corpus in opened:
        check_equal(
            corpus.path, "signal", signal_of(corpus), signal_of(primary), "the primary dataset"
        )
    return opened


def refuse_overlap(
    primary: WindowsFile, corpora: Sequence[WindowsFile], held_out: set[str], same_ids: bool
) -> None:
    """A held-out participant must not come back through another cohort, by name or by signal."""
    hidden = signals_of(primary, held_out)
    for corpus in corpora:
        twins = sorted(held_out & set(corpus.participants)) if same_ids else []
        if twins:
            raise RemitError(
                f"{corpus.path}: participant {some_of(twins)} has the id of a held-out participant; "
                "expected corpora free of them; take them out of the extra cohort, or set "
                "pretraining.extra_ids: other if they are other people."
            )
        for digest, recording in signals_of(corpus, corpus.participants).items():
            if digest in hidden:
                raise RemitError(
                    f"{corpus.path}: recording '{recording}' holds the same signal as "
                    f"'{hidden[digest]}' of a held-out participant; expected corpora free of them; "
                    "take it out of the extra cohort, or set pretraining.transductive."
                )


def join(parts: Sequence[TokenSequences], cohorts: Sequence[str]) -> TokenSequences:
    """Several datasets' sequences as one; participants get their cohort's name in front."""
    window_shift = np.cumsum([0, *(len(part.signal_WCL) for part in parts)])
    people_shift = np.cumsum([0, *(len(part.participants) for part in parts)])
    return TokenSequences(
        participants=tuple(
            f"{cohort}/{name}"
            for part, cohort in zip(parts, cohorts, strict=True)
            for name in part.participants
        ),
        labels=tuple(None for part in parts for _ in part.participants),
        signal_WCL=torch.cat([part.signal_WCL for part in parts]),
        windows_NV=np.concatenate(
            [
                np.where(part.windows_NV >= 0, part.windows_NV + shift, -1)
                for part, shift in zip(parts, window_shift, strict=False)
            ]
        ),
        participant_N=np.concatenate(
            [part.participant_N + shift for part, shift in zip(parts, people_shift, strict=False)]
        ),
        samples_per_token=parts[0].samples_per_token,
        windows_used=tuple(count for part in parts for count in part.windows_used),
        windows_bad=tuple(count for part in parts for count in part.windows_bad),
    )
