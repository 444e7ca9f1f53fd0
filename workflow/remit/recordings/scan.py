"""From a folder to a cohort sheet: who and what is in it, and what was left out and why.

Standard library and remit only at import; a container file (.mat) is opened by its reader.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from remit.config import Label
from remit.errors import RemitError, did_you_mean, some_of
from remit.naming import check_id
from remit.recordings.cohort import SheetRow, read_table, resolve
from remit.recordings.registry import ReaderOptions, find_reader, has_known_suffix

__all__ = ["ScanResult", "resolve", "scan", "scan_mat"]

PARTICIPANTS = "participants.tsv"
UNKNOWN = {"", "n/a", "na", "nan"}
# Files that stand beside recordings and are none, so leaving them out is not worth a line.
BESIDE = (
    *(".json", ".tsv", ".txt", ".md", ".pdf", ".html", ".png", ".jpg", ".bib", ".yaml", ".yml"),
    *(".fdt", ".eeg", ".vmrk", ".py", ".m"),
)


@dataclass(frozen=True)
class ScanResult:
    """Rows of a cohort sheet, sorted, with paths relative to the root; and (path, why) left out."""

    rows: list[SheetRow]
    skipped: list[tuple[str, str]]


@dataclass(frozen=True)
class _Person:
    remission: int | None
    covariates: dict[str, str]


def scan(
    root: str | Path,
    layout: Literal["bids", "folder"],
    label: Label | None = None,
    covariates: Sequence[str] = (),
    require_label: bool = False,
    options: ReaderOptions | None = None,
) -> ScanResult:
    """Find the recordings in `root`.

    'bids': `sub-*/[ses-*/]eeg/*_eeg.*`; participants and labels from participants.tsv.
    'folder': a sub-folder is a participant, with every recording at any depth in it; a file at the
    top belongs to the participant whose id its name begins with. Without participants.tsv nobody
    has a label, and a file at the top is a participant of its own, named by its whole name. A
    container file (.mat) at the top gives one row per recording in it, with the file's labels.

    Raises RemitError when the root, a column or a label's meaning is missing, a participant's id
    cannot be a file name, or nothing at all is found.
    """
    root = Path(root)
    if not root.is_dir():
        what = "is a file" if root.is_file() else "is not there"
        raise RemitError(
            f"{root}: {what}; expected the folder that holds the recordings; correct scan.root."
        )
    people = _people(root, label, covariates)
    skipped: list[tuple[str, str]] = []
    rows: list[SheetRow] = []
    seen: set[str] = set()
    for participant, file in (
        _bids_files(root, people) if layout == "bids" else _folder_files(root, people)
    ):
        relative = file.relative_to(root).as_posix()
        if participant is not None:
            seen.add(participant)
        try:
            reader = find_reader(file)
        except RemitError as error:
            skipped.append((relative, str(error).removeprefix(f"{file}: ")))
            continue
        if reader.entries and participant is None:
            contained = scan_mat(file, options).rows
            rows += contained
            seen |= {row.participant for row in contained}
            continue
        person = _Person(None, {}) if people is None else (people.get(participant or ""))
        if participant is None:
            skipped.append((relative, f"its name begins with no participant of {PARTICIPANTS}"))
        elif person is None:
            skipped.append((relative, f"participant '{participant}' is not in {PARTICIPANTS}"))
        elif reader.entries:
            skipped.append((relative, "holds several recordings; put it at the top of the folder"))
        elif require_label and person.remission is None:
            skipped.append((relative, f"the label of participant '{participant}' is unknown"))
        else:
            check_id("participant", participant, str(root))
            recording = _recording_id(participant, file.name, layout)
            known = dict(person.covariates)
            rows.append(SheetRow(participant, recording, relative, None, person.remission, known))
    for participant in sorted(set(people or ()) - seen):
        skipped.append((participant, f"in {PARTICIPANTS}, but without a recording"))
    if not rows:
        why = f" ({skipped[0][0]}: {skipped[0][1]})" if skipped else ""
        raise RemitError(
            f"{root}: no recording found as layout '{layout}', {len(skipped)} left out{why}; "
            f"expected {_expected(layout)}; check scan.root and scan.layout."
        )
    rows.sort(key=lambda row: (row.participant, row.recording, row.path))
    return ScanResult(_without_name_clashes(rows, skipped), sorted(skipped))


def _without_name_clashes(rows: list[SheetRow], skipped: list[tuple[str, str]]) -> list[SheetRow]:
    """Keep the first of several recordings that would have one name."""
    taken: dict[str, SheetRow] = {}
    for row in rows:
        first = taken.setdefault(row.recording.lower(), row)
        if first is not row:
            skipped.append((row.path, f"its name gives '{row.recording}', as {first.path} does"))
    return list(taken.values())


def scan_mat(file: str | Path, options: ReaderOptions | None = None) -> ScanResult:
    """One row per recording of a container file, with the file's own labels.

    Ids are the file's, made fit for a file name; a participant's second recording gets '-2'.
    Paths are relative to the file's folder. Raises RemitError for a file that holds no entries.
    """
    file = Path(file)
    list_entries = find_reader(file).entries
    if list_entries is None:
        raise RemitError(
            f"{file}: holds one recording; expected a container such as .mat; scan its folder "
            "instead."
        )
    original: dict[str, str] = {}
    count: dict[str, int] = {}
    rows = []
    for entry in list_entries(file, options or ReaderOptions()):
        participant = check_id("participant", _safe(entry.participant), str(file))
        if original.setdefault(participant, entry.participant) != entry.participant:
            raise RemitError(
                f"{file}: participants '{original[participant]}' and '{entry.participant}' would "
                f"both be '{participant}'; expected ids that differ in letters and digits; rename "
                "one."
            )
        count[participant] = count.get(participant, 0) + 1
        again = f"-{count[participant]}" if count[participant] > 1 else ""
        recording = check_id("recording", participant + again, str(file))
        rows.append(SheetRow(participant, recording, file.name, entry.name, entry.remission))
    rows.sort(key=lambda row: (row.participant, row.recording))
    return ScanResult(rows, [])


def _people(
    root: Path, label: Label | None, covariates: Sequence[str]
) -> dict[str, _Person] | None:
    """The participants of participants.tsv, or None where there is no such file."""
    file = root / PARTICIPANTS
    if not file.exists():
        if label or covariates:
            raise RemitError(
                f"{file}: is not there; expected it, for the config asks for its column "
                f"'{label.column if label else covariates[0]}'; add it or leave label and "
                "covariates out."
            )
        return None
    header, body = read_table(file)
    wanted = ["participant_id", *([label.column] if label else []), *covariates]
    for column in wanted:
        if column not in header:
            raise RemitError(
                f"{file}: no column '{column}'; it has {some_of(header, 20)}; correct the config "
                f"or the table.{did_you_mean(column, header)}"
            )
    people: dict[str, _Person] = {}
    for line, cells in body:
        values = dict(zip(header, cells, strict=True))
        participant = values["participant_id"]
        if participant in people:
            raise RemitError(
                f"{file} line {line}: participant '{participant}' is there twice; expected one "
                "line each; remove one."
            )
        remission = None
        if label and values[label.column] in label.values:
            remission = label.values[values[label.column]]
        elif label and values[label.column].lower() not in UNKNOWN:
            raise RemitError(
                f"{file} line {line}: {label.column} of participant '{participant}' is "
                f"'{values[label.column]}'; expected {some_of(label.values)} or n/a; add its "
                "meaning to scan.label.values."
            )
        known = {name: values[name] for name in covariates}
        known = {name: "" if text.lower() in UNKNOWN else text for name, text in known.items()}
        people[participant] = _Person(remission, known)
    return people


def _bids_files(root: Path, people: dict[str, _Person] | None) -> Iterable[tuple[str | None, Path]]:
    """Participant and file of every `*_eeg.*`; an id without 'sub-' in the table is found too."""
    for subject in sorted(root.glob("sub-*")):
        bare = subject.name.removeprefix("sub-")
        participant = bare if people and subject.name not in people and bare in people else None
        folders = [subject / "eeg", *sorted(subject.glob("ses-*/eeg"))]
        for folder in folders:
            for file in sorted(folder.glob("*_eeg.*")):
                if not file.name.lower().endswith(BESIDE):
                    yield participant or subject.name, file


def _folder_files(
    root: Path, people: dict[str, _Person] | None
) -> Iterable[tuple[str | None, Path]]:
    """Participant and file; None where a file at the top belongs to nobody."""
    for item in sorted(root.iterdir()):
        if item.name.startswith("."):
            continue
        if item.is_dir():
            for folder, inner, files in os.walk(item):
                inner[:] = sorted(name for name in inner if not name.startswith("."))
                for name in sorted(files):
                    if not name.startswith(".") and not _is_beside(name):
                        yield item.name, Path(folder, name)
        elif not _is_beside(item.name):
            yield _owner(item.name, people), item


def _is_beside(name: str) -> bool:
    return "." not in name or name.lower().endswith(BESIDE)


def _owner(name: str, people: dict[str, _Person] | None) -> str | None:
    """The participant of a file at the top: the longest id that its name begins with."""
    if name.lower().endswith(".mat"):
        return None
    if people is None:
        return _safe(_stem(name))
    owners = [
        participant
        for participant in people
        if re.match(rf"{re.escape(participant)}(?![A-Za-z0-9])", name)
    ]
    return max(owners, key=len, default=None)


def _stem(name: str) -> str:
    """A file's name without its suffix, which may be double (`.csv.gz`, `.csv.csv`)."""
    stem = name
    while has_known_suffix(stem):
        stem = Path(stem).stem
    return stem if stem != name else Path(name).stem


def _safe(text: str) -> str:
    """Text with everything that an id may not hold replaced by '-'."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-_")


def _recording_id(participant: str, name: str, layout: str) -> str:
    stem = _stem(name)
    recording = _safe(stem.removesuffix("_eeg") if layout == "bids" else stem)
    if not recording.startswith(participant) and layout != "bids":
        recording = f"{participant}_{recording}" if recording else participant
    return check_id("recording", recording, name)


def _expected(layout: str) -> str:
    if layout == "bids":
        return "sub-*/[ses-*/]eeg/*_eeg.edf or another known format"
    return "recordings in one folder per participant, or at its top"
