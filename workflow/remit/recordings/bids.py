"""The recordings of a BIDS data set: which files they are, and which of them are wanted.

What their names say is read by mne-bids, file by file. Its `find_matching_paths` is not used to
list them: it drops links whose content git-annex has not fetched, and names that it does not
understand, without a word, and enters folders such as sub-01/derivatives. And
`get_entities_from_fname` passes over a word that is no key-value pair and lets a repeated key
replace the first, so that is looked at here. Derivatives, sourcedata and hidden folders are not
entered. BIDS: Pernet et al. 2019, doi:10.1038/s41597-019-0104-8.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from remit.errors import RemitError, did_you_mean, some_of
from remit.recordings.registry import suffixes

DESCRIPTION = "dataset_description.json"
# Files named like a recording that stand beside one.
BESIDE = (".json", ".tsv", ".tsv.gz", ".txt", ".vmrk", ".html", ".png", ".svg")
_DIGITS = re.compile("[0-9]+")
_PAIR = re.compile(r"([^-_.]+)-([^-_.]+)")


@dataclass(frozen=True)
class Wanted:
    """What to take, by the values in the file names; an empty list takes all."""

    tasks: Sequence[str] = ()
    sessions: Sequence[str] = ()
    runs: Sequence[str] = ()

    def filters(self) -> Iterator[tuple[str, str, Sequence[str]]]:
        """Entity, its short key in file names, and the values asked for."""
        yield "task", "task", self.tasks
        yield "session", "ses", self.sessions
        yield "run", "run", self.runs


@dataclass(frozen=True)
class BidsFile:
    """One file of a BIDS data set that is, or looks like, a recording.

    `subject` is the folder's name, with 'sub-'. `why` says why it is left out; empty when it is
    not. `entities` are what its name says, by mne-bids' names (subject, session, task, run, ...).
    """

    path: Path
    subject: str
    why: str = ""
    entities: dict[str, str] = field(default_factory=dict)


def find_layout(root: Path) -> Literal["bids", "folder"]:
    """'bids' for a folder with dataset_description.json or sub-* folders, else 'folder'."""
    if (root / DESCRIPTION).is_file() or (root.is_dir() and _folders(root, "sub-")):
        return "bids"
    return "folder"


def root_above(root: Path) -> Path | None:
    """The folder that holds the participants, for one that lies inside a participant's; else None.

    That is `sub-*` itself, and `ses-*` and `eeg` in one; links are not followed.
    """
    place = Path(os.path.normpath(Path.cwd() / root))
    if place.name.startswith("sub-"):
        inner = [item.name for item in listed(place)] if place.is_dir() else []
        ours = ("ses-", f"{place.name}_")
        return place.parent if any(n == "eeg" or n.startswith(ours) for n in inner) else None
    while place.name == "eeg" or place.name.startswith("ses-"):
        place = place.parent
    return place.parent if place.name.startswith("sub-") else None


def bids_files(root: Path, wanted: Wanted | None = None) -> list[BidsFile]:
    """Every recording of `sub-*/[ses-*/]eeg`, and what looks like one, sorted by path.

    Those that are not wanted, or whose name or place is not that of BIDS, come with a reason. They
    may be links to nothing. Raises RemitError for a folder without sub-* folders, one that cannot
    be listed, and a wanted task, session or run that no file has.
    """
    known = suffixes()
    subjects, found = _folders(root, "sub-"), _dangling(root, "sub-")
    if not subjects and not found:
        raise _no_subjects(root)
    for subject in subjects:
        before = len(found)
        sessions = _folders(subject, "ses-")
        found += _dangling(subject, "ses-")
        for place in (subject, *sessions):
            found += _misplaced(place, subject.name, known)
            if (place / "eeg").is_dir():
                session = place.name if place in sessions else None
                found += [
                    _bids_file(item, subject.name, session)
                    for item in listed(place / "eeg")
                    if not item.name.startswith(".") and _looks_like_one(item.name, known)
                ]
        if len(found) == before:
            found.append(BidsFile(subject, subject.name, "holds no recording in a folder 'eeg'"))
    taken = _taken(root, found, wanted or Wanted())
    return sorted((_filtered(file, taken) for file in found), key=lambda file: file.path)


def listed(folder: Path) -> list[Path]:
    """What a folder holds, sorted; raises RemitError for one that cannot be listed."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise RemitError(
            f"{folder}: cannot be listed ({error.strerror}); expected a folder; check its "
            "permissions."
        ) from None


def _folders(folder: Path, prefix: str) -> list[Path]:
    return [item for item in listed(folder) if item.name.startswith(prefix) and item.is_dir()]


def _dangling(folder: Path, prefix: str) -> list[BidsFile]:
    """Links to folders that are not there."""
    return [
        BidsFile(item, item.name if prefix == "sub-" else folder.name, "is a link to nothing")
        for item in listed(folder)
        if item.name.startswith(prefix) and item.is_symlink() and not item.exists()
    ]


def _no_subjects(root: Path) -> RemitError:
    there = [item.name for item in listed(root) if not item.name.startswith(".")]
    inner = [
        item.name
        for item in listed(root)
        if item.is_dir() and not item.name.startswith(".") and _folders(item, "sub-")
    ]
    above = root_above(root)
    remedy = (
        f"it lies inside a participant's folder: give {above} as root"
        if above is not None
        else f"give its folder '{inner[0]}', which has some, as root"
        if inner
        else "give the folder that holds them as root, or use layout 'folder'"
    )
    return RemitError(
        f"{root}: has no folder sub-*; it has {some_of(there)}; expected a BIDS data set with "
        f"sub-*/[ses-*/]eeg/*_eeg.*; {remedy}."
    )


def _looks_like_one(name: str, known: tuple[str, ...]) -> bool:
    if name.lower().endswith(known):
        return True
    stem, dot, _ = name.partition(".")
    return bool(dot) and stem.endswith("_eeg") and not name.lower().endswith(BESIDE)


def _misplaced(folder: Path, subject: str, known: tuple[str, ...]) -> list[BidsFile]:
    """Recordings directly in a subject's or session's folder, where BIDS has none."""
    return [
        BidsFile(item, subject, "lies outside the folder 'eeg'; expected it in there")
        for item in listed(folder)
        if not item.name.startswith(".") and item.name.lower().endswith(known) and not item.is_dir()
    ]


def _bids_file(path: Path, subject: str, session: str | None) -> BidsFile:
    """What a file's name says, or why it is no name of a recording in that place."""
    from mne_bids import get_entities_from_fname

    stem = path.name.partition(".")[0]
    *parts, suffix = stem.split("_")
    if suffix != "eeg":
        return BidsFile(path, subject, "its name does not end in '_eeg'; expected a BIDS name")
    keys = [pair[1] for pair in map(_PAIR.fullmatch, parts) if pair]
    if len(keys) < len(parts) or len(set(keys)) < len(keys):
        return BidsFile(
            path, subject, "its name is not made of key-value pairs, each key once; rename it"
        )
    try:
        given = get_entities_from_fname(path.name, on_error="raise")
    except (KeyError, ValueError) as error:
        return BidsFile(path, subject, f"mne-bids refuses its name: {error.args[0]}")
    entities = {key: value for key, value in given.items() if value is not None}
    named = f"sub-{entities.get('subject', '')}"
    if named != subject:
        return BidsFile(path, subject, f"its name says '{named}', its folder '{subject}'")
    named_session = f"ses-{entities['session']}" if "session" in entities else None
    if named_session != session:
        says = named_session or "no session"
        return BidsFile(path, subject, f"its name says '{says}', its folder '{session or 'none'}'")
    return BidsFile(path, subject, "", entities)


def _same(asked: str, values: set[str], key: str) -> set[str]:
    """Which of the values a wanted one means: 'rest' or 'task-rest'; '1' is run '01' as well."""
    bare = asked.removeprefix(f"{key}-")
    if not _DIGITS.fullmatch(bare):
        return {bare} & values
    return {value for value in values if _DIGITS.fullmatch(value) and int(value) == int(bare)}


def _taken(root: Path, files: Sequence[BidsFile], wanted: Wanted) -> dict[str, set[str]]:
    """By entity, the values of the files that are wanted; nothing for one that is not asked for."""
    taken: dict[str, set[str]] = {}
    for entity, key, asked in wanted.filters():
        values = {file.entities[entity] for file in files if entity in file.entities}
        for value in asked:
            meant = _same(value, values, key)
            if not meant:
                raise RemitError(
                    f"{root}: no recording has {entity} '{value}'; expected one of "
                    f"{some_of(sorted(values))}; correct {entity}s."
                    f"{did_you_mean(value.removeprefix(f'{key}-'), values)}"
                )
            taken.setdefault(entity, set()).update(meant)
    return taken


def _filtered(file: BidsFile, taken: dict[str, set[str]]) -> BidsFile:
    for entity, values in taken.items():
        value = file.entities.get(entity)
        if not file.why and value not in values:
            has = f"has {entity} '{value}'" if value else f"has no {entity}"
            return replace(file, why=f"{has}; asked for: {some_of(sorted(values))}")
    return file
