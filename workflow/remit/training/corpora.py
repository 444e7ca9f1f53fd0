"""Whom pretraining sees: participants of the main cohort and any number of corpora beside it.

Nobody who is held out may come back through a corpus. Knows datasets, and no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from remit.config import Pretraining, Sequences
from remit.dataset.corpus import Corpora, Part, SignalMemory
from remit.dataset.windows import WindowsFile, open_dataset
from remit.errors import RemitError, some_of
from remit.training.checkpoint import check_equal
from remit.training.data import files_of, signal_of, signals_of


def open_corpora(files: Sequence[Path], primary: WindowsFile) -> list[WindowsFile]:
    """Open the corpora and refuse one whose signal is not like the primary dataset's.

    Channels may differ.
    """
    opened = [open_dataset(file) for file in files]
    for corpus in opened:
        expected = signal_of(primary) | {"channels": corpus.channels}
        check_equal(corpus.path, "signal", signal_of(corpus), expected, "the primary dataset")
    return opened


def refuse_overlap(
    primary: WindowsFile, corpora: Sequence[WindowsFile], held_out: set[str], same_ids: bool
) -> None:
    """A held-out participant must not come back through another cohort, by name or by signal.

    By signal where the channels are the same; where they are not, by the recording's source file.
    """
    hidden = signals_of(primary, held_out) | files_of(primary, held_out)
    for corpus in corpora:
        twins = sorted(held_out & set(corpus.participants)) if same_ids else []
        if twins:
            raise RemitError(
                f"{corpus.path}: participant {some_of(twins)} has the id of a held-out participant; "
                "expected corpora free of them; take them out of the extra cohort, or set "
                "pretraining.extra_ids: other if they are other people."
            )
        known = signals_of(corpus, corpus.participants) | files_of(corpus, corpus.participants)
        for digest, recording in known.items():
            if digest in hidden:
                raise RemitError(
                    f"{corpus.path}: recording '{recording}' holds the same signal as "
                    f"'{hidden[digest]}' of a held-out participant; expected corpora free of them; "
                    "take it out of the extra cohort, or set pretraining.transductive."
                )


def index_corpora(
    primary: WindowsFile,
    corpora: Sequence[WindowsFile],
    training: Sequence[str],
    aside: Sequence[str],
    sequences: Sequences,
    options: Pretraining,
) -> tuple[Corpora, Corpora]:
    """The sequences to train on, and those of the participants kept aside; they share one memory.

    ``training`` and ``aside`` are participants of the primary dataset; of a corpus everybody trains.
    """
    memory = SignalMemory(options.shuffle_mb * 1e6)

    def part(dataset: WindowsFile, participants: Sequence[str]) -> Part:
        weight = options.corpus_weights.get(str(dataset.metadata["cohort"]), 1.0)
        return Part(dataset, participants, sequences, weight)

    train = [part(primary, training), *(part(corpus, corpus.participants) for corpus in corpora)]
    trained = Corpora(train, memory)
    trained.repeat(options.least_steps * options.batch_size / options.epochs)
    return trained, Corpora([part(primary, aside)], memory)


def seen(train: Corpora, stop: Corpora) -> dict[str, Any]:
    """Who and what is seen, as a checkpoint says it."""
    shown = [(part.dataset, part.index.participants) for part in (*train.parts, *stop.parts)]
    return {
        "corpora": {
            part.cohort: {
                "channels": list(part.channels),
                "weight": part.weight,
                "content_sha256": part.dataset.metadata["content_sha256"],
                "participants": list(part.index.participants),
            }
            for part in train.parts
        },
        "participants_seen": {
            "training": train.participants,
            "early_stopping": stop.participants,
        },
        "signals_seen": sorted({key for who in shown for key in signals_of(*who)}),
        "files_seen": sorted({key for who in shown for key in files_of(*who)}),
    }
