"""Who is tested in which fold: repeated stratified K-fold of the participants, as a file.

The folds are made from participants and labels before anything is fitted, and every model and
baseline reads the same file. Within each class participants are ranked by SHA-256 of seed, repeat
and id, and dealt one by one: the same on every machine and with every version of every library,
whatever the order of the input. Nothing but the seed can be turned: a file whose folds are not
those of its own seed and labels is refused, so that nobody picks folds that look well.

Shapes: P participants with a label, sorted by id; R repeats; K folds.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from remit.dataset.splits import read_whole_json
from remit.errors import RemitError, some_of
from remit.files import write_json

if TYPE_CHECKING:
    import numpy as np

# Raise when a change of the code alters the folds.
RESULT_VERSION = 1

MOST_REPEATS = 3
"""Repeats of the folds that a network is trained for, at most: one fit takes minutes, not milliseconds"""

_CLASSES = (0, 1)
_KINDS = {
    "asked": int,
    "content_sha256": str,
    "dataset": str,
    "folds": int,
    "labels": dict,
    "participants": dict,
    "repeats": int,
    "seed": int,
    "simulated": bool,
    "unlabelled": list,
}


class FoldSettings(Protocol):
    """What :func:`make_folds` is told; the section ``evaluation`` of the configuration has it."""

    @property
    def folds(self) -> int:
        """Folds asked for, K at most"""

    @property
    def repeats(self) -> int:
        """R"""

    @property
    def seed(self) -> int:
        """Which of all folds"""


def deal(labels: Mapping[str, int], folds: int, key: str) -> dict[str, int]:
    """The fold of each participant: each class ranked by hash and dealt round-robin.

    The second class is dealt on from where the first one stopped, so that the remainders of the two
    do not meet: the counts of a class differ by one between folds at most, and so do the sizes.

    Args:
        labels: 0 or 1 by participant.
        folds: K.
        key: what this deal is for; another key is another deal.
    """
    ranked = [
        name
        for label in _CLASSES
        for name in sorted(
            (name for name, own in labels.items() if own == label),
            key=lambda name: (hashlib.sha256(f"{key}:{name}".encode()).digest(), name),
        )
    ]
    return dict(sorted((name, place % folds) for place, name in enumerate(ranked)))


def make_folds(
    labels: Mapping[str, int | None],
    settings: FoldSettings,
    *,
    dataset: str,
    content_sha256: str,
    simulated: bool,
) -> dict[str, Any]:
    """Deal the participants into K folds, R times, each class on its own.

    ``labels`` gives 0, 1, or None where unknown; who has none is listed and in no fold. K is what is
    asked for, but never above the smaller class, so that each fold tests both classes. Raises
    :class:`RemitError` with the counts when no folds can be made.
    """
    strange = sorted(name for name, label in labels.items() if label not in (None, *_CLASSES))
    if strange:
        raise RemitError(
            f"{dataset}: participant {some_of(strange)} has label {labels[strange[0]]!r}; "
            "expected 0, 1 or none; correct the cohort sheet."
        )
    for what, number, least in (("folds", settings.folds, 2), ("repeats", settings.repeats, 1)):
        if number < least:
            raise RemitError(
                f"evaluation.{what} is {number}; expected at least {least}; correct it."
            )
    known = {name: int(label) for name, label in labels.items() if label is not None}
    counts = [sum(label == own for own in known.values()) for label in _CLASSES]
    _enough(counts, dataset)
    folds = min(settings.folds, *counts)
    rounds = [deal(known, folds, f"{settings.seed}:{repeat}") for repeat in range(settings.repeats)]
    return {
        "dataset": dataset,
        "content_sha256": content_sha256,
        "simulated": bool(simulated),
        "seed": settings.seed,
        "folds": folds,
        "asked": settings.folds,
        "repeats": settings.repeats,
        "participants": {name: [dealt[name] for dealt in rounds] for name in sorted(known)},
        "labels": dict(sorted(known.items())),
        "unlabelled": sorted(set(labels) - set(known)),
    }


def _enough(counts: list[int], dataset: str) -> None:
    """Raise :class:`RemitError` unless each class has 2 participants; it says what is possible."""
    found = f"{dataset}: {counts[0]} participants have label 0 and {counts[1]} have label 1"
    if min(counts) >= 2:
        return
    # A split, without which nobody is pretrained on, takes three of each.
    free = "'snakemake features cohort_figures' takes no labels"
    if min(counts) == 1 and max(counts) > 1:
        raise RemitError(
            f"{found}; expected at least 2 of each, one to fit on and one to test: with a single one "
            f"nothing can be estimated, nor a split be made to pretrain on, but {free}; label at least "
            "one more."
        )
    raise RemitError(
        f"{found}; expected at least 2 of each: with so few labels nothing can be estimated, nor a split "
        f"be made to pretrain on, but {free}; label more people."
    )


def write_folds(file: str | os.PathLike[str], folds: Mapping[str, Any]) -> None:
    """Write folds as readable JSON: sorted keys, atomic, the same folds give the same bytes."""
    write_json(file, dict(folds))


@dataclass(frozen=True)
class Folds:
    """Folds read from a file; made by :func:`read_folds`."""

    dataset: str
    content_sha256: str
    simulated: bool
    seed: int
    folds: int
    """K"""
    asked: int
    """K as the configuration has it"""
    repeats: int
    """R"""
    participants: dict[str, list[int]]
    """The fold in which each participant is tested, for each repeat"""
    labels: dict[str, int]
    unlabelled: list[str]
    path: str

    @property
    def names(self) -> tuple[str, ...]:
        """The P participants with a label, sorted."""
        return tuple(sorted(self.participants))

    @property
    def fold_RP(self) -> np.ndarray:
        """The fold of each participant, int64 [R, P]."""
        import numpy as np  # here, for planning deals folds at every parse of the Snakefile

        return np.array([self.participants[name] for name in self.names]).T

    @property
    def label_P(self) -> np.ndarray:
        """The label of each participant, int64 [P]."""
        import numpy as np

        return np.array([self.labels[name] for name in self.names])

    def test(self, repeat: int, fold: int) -> list[str]:
        """The participants tested in a fold, sorted; everybody else fits."""
        if not (0 <= repeat < self.repeats and 0 <= fold < self.folds):
            raise RemitError(
                f"{self.path}: there is no fold {fold} of repeat {repeat}; expected folds 0 to "
                f"{self.folds - 1} of repeats 0 to {self.repeats - 1}; ask for one of them."
            )
        return [name for name in self.names if self.participants[name][repeat] == fold]

    def first(self, repeats: int) -> Folds:
        """The folds of the first few repeats alone, for what takes too long to fit in all of them."""
        kept = min(repeats, self.repeats)
        dealt = {name: own[:kept] for name, own in self.participants.items()}
        return replace(self, repeats=kept, participants=dealt)

    def check_against(self, participants: Iterable[str]) -> None:
        """Raise :class:`RemitError` unless these are the participants, labelled or not."""
        there, mine = set(participants), {*self.participants, *self.unlabelled}
        if there != mine:
            raise RemitError(
                f"{self.path}: does not fit the dataset: participants without a fold: "
                f"{some_of(sorted(there - mine))}; participants of the folds that the dataset lacks: "
                f"{some_of(sorted(mine - there))}; expected the same ones; make the folds again."
            )


def read_folds(file: str | os.PathLike[str]) -> Folds:
    """Read folds and deal them again. Raises :class:`RemitError` naming the file and what is wrong."""
    path = Path(file)
    values = read_whole_json(path, "folds", "the folds")
    wrong = _fault(values)
    if wrong:
        raise RemitError(f"{path}: {wrong}; make the folds again.")
    return Folds(**values, path=str(path))


@dataclass(frozen=True)
class _Asked:
    folds: int
    repeats: int
    seed: int


def _fault(values: Any) -> str:
    """What is wrong with the contents of a file of folds, or an empty text."""
    if not isinstance(values, dict) or set(values) != set(_KINDS):
        found = some_of(sorted(values), 20) if isinstance(values, dict) else type(values).__name__
        return f"holds {found}; expected {some_of(_KINDS, 20)}"
    for key, kind in _KINDS.items():
        if type(values[key]) is not kind:
            return f"{key} is {values[key]!r}; expected {kind.__name__}"
    strange = [name for name, label in values["labels"].items() if type(label) is not int]
    strange += [name for name in values["unlabelled"] if type(name) is not str]
    if strange:
        return f"the label of {some_of(strange)} cannot be read; expected a name with 0 or 1"
    both = sorted(set(values["unlabelled"]) & set(values["labels"]))
    if both:
        return f"participant {some_of(both)} is labelled and unlabelled; expected one of the two"
    try:
        again = make_folds(
            values["labels"] | dict.fromkeys(values["unlabelled"]),
            _Asked(values["asked"], values["repeats"], values["seed"]),
            **{key: values[key] for key in ("dataset", "content_sha256", "simulated")},
        )
    except RemitError as error:
        return f"holds what no folds can be made of ({error})"
    for key in ("folds", "unlabelled"):
        if values[key] != again[key]:
            return f"{key} is {values[key]!r}; expected {again[key]!r} from its labels"
    listed, expected = values["participants"], again["participants"]
    moved = sorted(
        name for name in listed.keys() | expected if listed.get(name) != expected.get(name)
    )
    if moved:
        return (
            f"participant {some_of(moved)} is in folds {listed.get(moved[0])!r}; expected "
            f"{expected.get(moved[0])!r} from its seed and labels"
        )
    return ""
