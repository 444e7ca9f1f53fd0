"""Who trains, who chooses the epoch, who is held back: the split of the participants.

A split is a file of its own, made from participants and labels before anything is trained. Within
each class participants are ranked by SHA-256 of seed and id: the same on every machine and with
every version of every library, whatever the order of the input.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remit import config
from remit.errors import RemitError, did_you_mean, some_of
from remit.files import write_json

# Raise when a change of the code alters the split.
RESULT_VERSION = 1

PARTS = ("train", "val", "test", "pretraining_only")
_LABELLED_PARTS = PARTS[:3]
_CLASSES = (0, 1)
_KEYS = ("content_sha256", "counts", "dataset", "fractions", "participants", "seed", "simulated")


def make_split(
    participants: Mapping[str, int | None],
    settings: config.Split,
    *,
    dataset: str,
    content_sha256: str,
    simulated: bool,
) -> dict[str, Any]:
    """Divide participants into train, val and test, each class on its own.

    ``participants`` gives the label (0, 1, or None where unknown). Of a class of n, max(1, round(n
    ``validation``)) validate, max(1, round(n ``test``)) test, the others train (round half to
    even). Participants without a label are refused, or listed under ``pretraining_only`` if the
    settings say so. Raises :class:`RemitError` with the counts when a class cannot fill the three
    parts.
    """
    unlabelled = sorted(name for name, label in participants.items() if label is None)
    # One of each class for each part: with fewer no setting helps, and none is named.
    enough = len(_LABELLED_PARTS) <= min(list(participants.values()).count(its) for its in _CLASSES)
    if unlabelled and settings.unlabelled == "refuse":
        without = ", or set split.unlabelled: pretraining to use them in pretraining only"
        raise RemitError(
            f"{dataset}: {len(unlabelled)} of {len(participants)} participants have no label "
            f"({some_of(unlabelled)}); expected 0 or 1 for each; label them in the cohort sheet"
            f"{without if enough else ''}."
        )
    strange = sorted(name for name, label in participants.items() if label not in (None, *_CLASSES))
    if strange:
        raise RemitError(
            f"{dataset}: participant {some_of(strange)} has label {participants[strange[0]]!r}; "
            "expected 0, 1 or none; correct the cohort sheet."
        )
    members = {
        label: _ranked([name for name, own in participants.items() if own == label], settings.seed)
        for label in _CLASSES
    }
    sizes = {label: _sizes(len(names), settings) for label, names in members.items()}
    if any(min(size) < 1 for size in sizes.values()):
        counts = " and ".join(
            f"{len(names)} participants with label {label}" for label, names in members.items()
        )
        raise RemitError(
            f"{dataset}: there are {counts}; expected enough of each for one in train, val and "
            f"test (at least 3, with validation {settings.validation:g} and test "
            f"{settings.test:g}); add participants of the smaller class"
            f"{', or lower split.validation and split.test' if enough else ''}."
        )

    parts = dict.fromkeys(unlabelled, "pretraining_only")
    counts_by_part: dict[str, dict[str, int]] = {part: {} for part in _LABELLED_PARTS}
    for label, names in members.items():
        n_train, n_val, n_test = sizes[label]
        sequence = ["val"] * n_val + ["test"] * n_test + ["train"] * n_train
        parts |= dict(zip(names, sequence, strict=True))
        for part, number in zip(_LABELLED_PARTS, (n_train, n_val, n_test), strict=True):
            counts_by_part[part][str(label)] = number
    if unlabelled:
        counts_by_part["pretraining_only"] = {"unknown": len(unlabelled)}
    return {
        "dataset": dataset,
        "content_sha256": content_sha256,
        "simulated": bool(simulated),
        "seed": settings.seed,
        "fractions": {"validation": settings.validation, "test": settings.test},
        "participants": dict(sorted(parts.items())),
        "counts": counts_by_part,
    }


def fold_split(
    labels: Mapping[str, int],
    unlabelled: Iterable[str],
    test: Iterable[str],
    *,
    seed: int,
    dataset: str,
    content_sha256: str,
    simulated: bool,
) -> dict[str, Any]:
    """The split of one fold: its people test, all others train, nobody validates.

    ``labels`` (0 or 1) has everybody who is in a fold. Raises :class:`RemitError` for a test
    participant who is not among them, and when a part would be empty.
    """
    tested = set(test)
    if not tested or not tested < set(labels):
        strange = some_of(sorted(tested - set(labels)))
        raise RemitError(
            f"{dataset}: a fold has {len(tested)} of {len(labels)} labelled participants (unknown: "
            f"{strange}); expected some of them and not all; make the folds again."
        )
    parts = {name: "test" if name in tested else "train" for name in labels}
    parts |= dict.fromkeys(unlabelled, "pretraining_only")
    counts = {
        part: {
            str(label): sum(parts[name] == part and own == label for name, own in labels.items())
            for label in _CLASSES
        }
        for part in _LABELLED_PARTS
    }
    if len(parts) > len(labels):
        counts["pretraining_only"] = {"unknown": len(parts) - len(labels)}
    return {
        "dataset": dataset,
        "content_sha256": content_sha256,
        "simulated": bool(simulated),
        "seed": seed,
        # By 0 a reader knows that nobody was meant to validate.
        "fractions": {"validation": 0.0, "test": len(tested) / len(labels)},
        "participants": dict(sorted(parts.items())),
        "counts": counts,
    }


def _ranked(names: Iterable[str], seed: int) -> list[str]:
    return sorted(
        names, key=lambda name: (hashlib.sha256(f"{seed}:{name}".encode()).digest(), name)
    )


def _sizes(number: int, settings: config.Split) -> tuple[int, int, int]:
    n_val = max(1, round(number * settings.validation))
    n_test = max(1, round(number * settings.test))
    return number - n_val - n_test, n_val, n_test


def write_split(file: str | os.PathLike[str], split: Mapping[str, Any]) -> None:
    """Write a split as readable JSON: sorted keys, atomic, the same split gives the same bytes."""
    write_json(file, dict(split))


@dataclass(frozen=True)
class ParticipantSplit:
    """A split read from a file; made by :func:`read_split`."""

    dataset: str
    content_sha256: str
    simulated: bool
    seed: int
    fractions: dict[str, float]
    participants: dict[str, str]
    """Part by participant"""
    counts: dict[str, dict[str, int]]
    """Number of participants by part and label"""
    path: str

    def part(self, name: str) -> list[str]:
        """The participants of ``train``, ``val``, ``test`` or ``pretraining_only``, sorted."""
        if name not in PARTS:
            raise RemitError(
                f"'{name}' is no part of a split; expected one of {some_of(PARTS)}."
                f"{did_you_mean(name, PARTS)}"
            )
        return sorted(key for key, part in self.participants.items() if part == name)

    def check_against(self, participants: Iterable[str]) -> None:
        """Raise :class:`RemitError` unless the split has exactly these participants."""
        there = set(participants)
        missing = sorted(there - set(self.participants))
        extra = sorted(set(self.participants) - there)
        if missing or extra:
            raise RemitError(
                f"{self.path}: does not fit the dataset: participants without a part: "
                f"{some_of(missing)}; participants of the split that the dataset lacks: "
                f"{some_of(extra)}; expected the same ones; make the split again."
            )


def read_whole_json(path: Path, what: str, again: str) -> Any:
    """What a JSON file holds, in which no key stands twice. Raises :class:`RemitError`.

    Args:
        path: the file.
        what: expected, for an error: 'a split'.
        again: to be made again: 'the split'.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_no_duplicates)
    except OSError as error:
        raise RemitError(
            f"{path}: cannot be read ({error.strerror}); expected {what}; check the path."
        ) from None
    except RemitError as error:
        raise RemitError(f"{path}: {error}; expected each once; make {again} again.") from None
    except ValueError as error:
        raise RemitError(
            f"{path}: is no JSON ({error}); expected {what}; make {again} again."
        ) from None


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object as a dict; :class:`RemitError` where a key stands there twice."""
    repeated = [key for key, number in Counter(key for key, _ in pairs).items() if number > 1]
    if repeated:
        raise RemitError(f"the key {some_of(repeated)} stands there more than once")
    return dict(pairs)


def read_split(file: str | os.PathLike[str]) -> ParticipantSplit:
    """Read and check a split. Raises :class:`RemitError` naming the file and what is wrong."""
    path = Path(file)
    values = read_whole_json(path, "a split", "the split")
    wrong = _fault(values)
    if wrong:
        raise RemitError(f"{path}: {wrong}; make the split again.")
    return ParticipantSplit(**values, path=str(path))


def _fault(values: Any) -> str:
    """What is wrong with the contents of a split's file, or an empty text."""
    if not isinstance(values, dict) or set(values) != set(_KEYS):
        found = some_of(sorted(values), 20) if isinstance(values, dict) else type(values).__name__
        return f"holds {found}; expected {some_of(_KEYS)}"
    kinds = {"dataset": str, "content_sha256": str, "simulated": bool, "seed": int}
    kinds |= dict.fromkeys(("fractions", "participants", "counts"), dict)
    for key, kind in kinds.items():
        if not isinstance(values[key], kind):
            return f"{key} is {values[key]!r}; expected {kind.__name__}"
    for participant, part in values["participants"].items():
        if part not in PARTS:
            meant = did_you_mean(part, PARTS) if isinstance(part, str) else ""
            return (
                f"participant {participant} is in part {part!r}; expected one of {some_of(PARTS)}"
                f"{meant}"
            )
    listed = Counter(values["participants"].values())
    for part in listed.keys() | values["counts"].keys() | set(_LABELLED_PARTS):
        stated = values["counts"].get(part)
        if not isinstance(stated, dict) or not all(type(n) is int for n in stated.values()):
            return f"counts of part {part} are {stated!r}; expected a number for each label"
        if sum(stated.values()) != listed[part]:
            total = sum(stated.values())
            return f"counts of part {part} say {total}; expected {listed[part]} as listed"
    needed = set(_LABELLED_PARTS)
    if values["fractions"].get("validation") == 0:  # the split of a fold
        needed.remove("val")
    empty = [part for part in _LABELLED_PARTS if part in needed and not listed[part]]
    return f"part {some_of(empty)} has no participants; expected at least one" if empty else ""
