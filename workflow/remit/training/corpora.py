"""Whom pretraining sees: participants of the main cohort and any number of corpora beside it.

Nobody who is held out or kept aside may come back through a corpus. Knows datasets, and no model.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from remit.config import Pretraining, Sequences
from remit.dataset import sketches
from remit.dataset.corpus import Corpora, Part, SignalMemory
from remit.dataset.sequences import unusable
from remit.dataset.windows import WindowsFile, open_dataset
from remit.errors import RemitError, did_you_mean, some_of
from remit.training.checkpoint import check_equal
from remit.training.data import files_of, seen_again, signal_of, signals_of, sketches_of


def open_corpora(files: Sequence[Path], primary: WindowsFile) -> list[WindowsFile]:
    """Open the corpora and refuse one whose signal is not like the primary dataset's.

    Channels may differ. Each must be a cohort of its own.
    """
    opened = [open_dataset(file) for file in files]
    cohorts = {primary.metadata["cohort"]: primary}
    for corpus in opened:
        cohort = corpus.metadata["cohort"]
        if cohorts.setdefault(cohort, corpus) is not corpus:
            raise RemitError(
                f"{corpus.path}: is of cohort {cohort}, as is {cohorts[cohort].path}; expected each "
                "cohort once; leave one out."
            )
        expected = signal_of(primary) | {"channels": corpus.channels}
        check_equal(corpus.path, "signal", signal_of(corpus), expected, "the primary dataset")
    return opened


def refuse_overlap(
    primary: WindowsFile,
    corpora: Sequence[WindowsFile],
    held_out: Collection[str],
    aside: Collection[str],
    same_ids: bool,
) -> None:
    """Nobody who must not be trained on may come back through another cohort, by name or by signal.

    These are the participants held out, and those kept aside, who decide when to stop. What is found by
    its signal, :func:`remit.training.data.seen_again` says.
    """
    for corpus in corpora:
        for people, who in (
            (held_out, "a held-out participant"),
            (aside, "a participant kept aside for early stopping"),
        ):
            twins = _namesakes(corpus, people) if same_ids else []
            if twins:
                raise RemitError(
                    f"{corpus.path}: participant {some_of(twins)} has the id of {who}; "
                    "expected corpora free of them; take them out of the extra cohort, or set "
                    "pretraining.extra_ids: other if they are other people."
                )
            for recording, theirs in seen_again(corpus, primary, people).items():
                raise RemitError(
                    f"{corpus.path}: recording '{recording}' holds the same signal as '{theirs}' of "
                    f"{who}; expected corpora free of them; take it out of the extra cohort."
                )


def _namesakes(corpus: WindowsFile, people: Collection[str]) -> list[str]:
    """Participants of a corpus with the id of one of those people, in whatever case."""
    folded = {name.casefold() for name in people}
    return sorted(name for name in corpus.participants if name.casefold() in folded)


def index_corpora(
    primary: WindowsFile,
    corpora: Sequence[WindowsFile],
    training: Sequence[str],
    aside: Sequence[str],
    sequences: Sequences,
    options: Pretraining,
) -> tuple[Corpora, Corpora]:
    """The sequences to train on, and those of the participants kept aside; they share one memory.

    ``training`` and ``aside`` are participants of the primary dataset; of a corpus everybody trains who
    has a usable window (see :func:`remarks`). Raises :class:`RemitError` for a corpus without one, and
    for a weight of a cohort that is not there.
    """
    memory = SignalMemory(options.shuffle_mb * 1e6)
    cohorts = [str(dataset.metadata["cohort"]) for dataset in (primary, *corpora)]
    for name in options.corpus_weights:
        if name not in cohorts:
            raise RemitError(
                f"pretraining.corpus_weights names '{name}', which is no cohort of the files given; "
                f"expected some of {some_of(cohorts)}.{did_you_mean(name, cohorts)}"
            )

    def part(dataset: WindowsFile, participants: Sequence[str]) -> Part:
        weight = options.corpus_weights.get(str(dataset.metadata["cohort"]), 1.0)
        return Part(dataset, participants, sequences, weight)

    def usable(corpus: WindowsFile) -> list[str]:
        names = corpus.participants
        empty = unusable(corpus, names, sequences)
        # Where nobody is left, Part refuses them all.
        return [name for name in names if name not in empty] or names

    train = [part(primary, training), *(part(corpus, usable(corpus)) for corpus in corpora)]
    trained = Corpora(train, memory)
    trained.repeat(options.least_steps * options.batch_size / options.epochs)
    return trained, Corpora([part(primary, aside)], memory)


def _left_out(part: Part) -> list[str]:
    """Whom a corpus has, and training has not."""
    return sorted(set(part.dataset.participants) - set(part.index.participants))


def remarks(train: Corpora, same_ids: bool) -> Iterator[str]:
    """What to say of the corpora: who was left out, and who stands in two cohorts and so counts double."""
    main = train.parts[0]
    for number, part in enumerate(train.parts[1:], 1):
        if empty := _left_out(part):
            yield (
                f"left out of cohort {part.cohort}: participant {some_of(empty)}, without a window of good "
                f"quality; {len(part.index.participants)} are left"
            )
        for earlier in train.parts[:number]:
            known = earlier.index.participants
            again = set(_namesakes(part.dataset, known) if same_ids and earlier is main else [])
            owner = part.dataset.metadata["sources"]
            found = seen_again(part.dataset, earlier.dataset, known)
            again |= {owner[recording]["participant"] for recording in found}
            if again := again.intersection(part.index.participants):
                yield (
                    f"warning: participant {some_of(sorted(again))} of cohort {part.cohort} stands in "
                    f"cohort {earlier.cohort} too, and counts double in training; take them out of one"
                )


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
                "left_out": _left_out(part) if part is not train.parts[0] else [],
            }
            for part in train.parts
        },
        "participants_seen": {
            "training": train.participants,
            "early_stopping": stop.participants,
        },
        "signals_seen": sorted({key for who in shown for key in signals_of(*who)}),
        "files_seen": sorted({key for who in shown for key in files_of(*who)}),
        "sketches_seen": sketches.encode(
            sketches.joined(each for who in shown for each in sketches_of(*who).values())
        ),
    }
