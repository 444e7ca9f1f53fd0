"""From a folder to a cohort sheet: who and what is in it, and what was left out and why.

A BIDS data set, a folder of recordings in any known format, or one container file (.mat). Traps:
data sets kept by git-annex or git-lfs hold links to nothing, or small texts, where content was not
fetched; a recording may be several files, of which one is missing; a table may write its numbers
with a decimal comma; and folders may stand for sessions, data sets or copies (links) instead of
participants, which would make one person two, or two people one. Standard library and remit only at
import; mne-bids is imported for a BIDS data set, and a container file is opened by its reader.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from remit import progress
from remit.config import Label
from remit.errors import RemitError, did_you_mean, some_of
from remit.naming import check_id
from remit.recordings.bids import DESCRIPTION, Wanted, bids_files, listed, root_above
from remit.recordings.cohort import OPTIONAL, READING, REQUIRED, SheetRow, read_table, resolve
from remit.recordings.registry import (
    Entry,
    Reader,
    ReaderOptions,
    find_reader,
    has_known_suffix,
    suffixes,
)
from remit.recordings.sidecars import sidecar_files, sidecar_names

__all__ = ["ScanResult", "Wanted", "resolve", "scan", "scan_mat"]

PARTICIPANTS = "participants.tsv"
SHEET_COLUMNS = REQUIRED + OPTIONAL + READING
UNKNOWN = {"", "n/a", "na", "nan"}
# Files that stand beside recordings and are none, so leaving them out is not worth a line.
BESIDE = (
    *(".json", ".tsv", ".txt", ".md", ".pdf", ".html", ".png", ".jpg", ".bib", ".yaml", ".yml"),
    *(".vmrk", ".py", ".m"),
)
# The samples of a recording whose header is another file, and what that file ends in.
SAMPLES_OF = {".eeg": ".vhdr", ".fdt": ".set"}
# Folders that are one recording each, in formats that are not read.
RECORDING_FOLDERS = (".mff", ".ds")
# Folders of a data set whose recordings are copies of the ones wanted.
NOT_ENTERED = ("derivatives", "sourcedata")
# How the small text begins that stands for content that was not fetched.
POINTERS = {b"/annex/objects/": "git annex get", b"version https://git-lfs": "git lfs pull"}
_POINTER_BYTES = 1024
_NUMBER = re.compile(r"[+-]?([0-9]+([.,][0-9]*)?|[.,][0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)
# Names of folders that stand for a part of every participant, and for no participant.
_NO_PERSON = re.compile(
    r"(ses|session|visit|run|day|week)([-_ ].*|[0-9]+)?|eeg|pre|post|baseline|follow[-_ ]?up",
    re.IGNORECASE,
)
# What follows a person's id in the name of one of several recordings: a word, or '-2' alone.
_AGAIN = re.compile(
    r"[-_](?:run|ses|session|rec|recording|part|block|trial|visit|day|week)(?=[-_0-9]|$)",
    re.IGNORECASE,
)
_COUNTED = re.compile(r"(.*[0-9].*)[-_][0-9]{1,2}")
_THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")


@dataclass(frozen=True)
class ScanResult:
    """Rows of a cohort sheet, sorted, with paths relative to the root; and (path, why) left out.

    `warnings`: sentences on what was decided about who is who, and may be wrong.
    """

    rows: list[SheetRow]
    skipped: list[tuple[str, str]]
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Person:
    remission: int | None
    covariates: dict[str, str]


@dataclass(frozen=True)
class _File:
    """What may be a recording; `why` says why not. `top`: it lies in no participant's folder."""

    path: Path
    participant: str | None
    why: str = ""
    top: bool = False


def scan(
    root: str | Path,
    layout: Literal["bids", "folder"],
    label: Label | None = None,
    covariates: Sequence[str] = (),
    require_label: bool = False,
    options: ReaderOptions | None = None,
    wanted: Wanted | None = None,
) -> ScanResult:
    """Find the recordings in `root`.

    'bids': `sub-*/[ses-*/]eeg/*_eeg.*`, of the tasks, sessions and runs that are `wanted`;
    participants and labels from participants.tsv. A label is a participant's: outcomes that differ
    between the sessions of one participant (sessions.tsv) are not read.
    'folder': a sub-folder is a participant, with every recording at any depth in it; a file at the
    top belongs to the participant whose id its name begins with. Without participants.tsv nobody
    has a label; a file at the top belongs to the participant whose folder's name it begins with,
    or else is a participant of its own, named by its whole name. What participants.tsv lists is a
    participant, whatever its name; so where a label is asked for, no id is guessed. Ids that seem
    to be runs of one person (P9_run1, P9_run2) are kept, with a warning. A link to a folder that
    is scanned anyway, or that holds the root, is not followed.
    A container file (.mat) at the top gives one row per recording in it, with the file's labels,
    or those of participants.tsv where a label is asked for; when participants.tsv lists the file's
    name and none of the ids inside, all are recordings of that participant. In a participant's
    folder it must hold one recording, which is that participant's. `root` may be a container file
    itself; its rows' paths are relative to its folder.

    Raises RemitError when the root, a column or a label's meaning is missing, a participant's id
    cannot be a file name, a wanted task, session or run does not occur, a file's label contradicts
    the table's, a folder is the wrong one to scan (its folders are data sets or sessions, or it
    lies inside a participant's), two container files hold one id that participants.tsv does not
    list, or nothing at all is found.
    """
    root = Path(root)
    if root.is_file() and has_known_suffix(root):
        return _one_file(root, label, covariates, require_label, options)
    if not root.is_dir():
        what = "is a file" if root.is_file() else "is not there"
        raise RemitError(
            f"{root}: {what}; expected the folder that holds the recordings, or a file that holds "
            "several; check the path."
        )
    people = _people(root, label, covariates)
    scanner = _Scanner(root, layout, people, label is not None, covariates, require_label, options)
    if layout == "folder":
        _check_level(root, people)
        files: Iterable[_File] = _folder(root, people, scanner.warnings)
    else:
        files = list(_bids(root, people, wanted))
    for file in progress.track(files, "looking into recordings", "file"):
        scanner.take(file)
    return scanner.result()


def scan_mat(file: str | Path, options: ReaderOptions | None = None) -> ScanResult:
    """One row per recording of a container file, with the file's own labels.

    Ids are the file's, made fit for a file name; a participant's second recording gets '-2'.
    Paths are relative to the file's folder. Raises RemitError for a file that holds no entries.
    """
    return _one_file(Path(file), None, (), False, options)


def _one_file(
    file: Path,
    label: Label | None,
    covariates: Sequence[str],
    require_label: bool,
    options: ReaderOptions | None,
) -> ScanResult:
    reader = find_reader(file)
    if reader.entries is None:
        raise RemitError(
            f"{file}: holds one recording; expected a container such as .mat; scan its folder "
            "instead."
        )
    people = _people(file.parent, label, covariates) if label or covariates else None
    scanner = _Scanner(
        file.parent, "folder", people, label is not None, covariates, require_label, options
    )
    scanner.take_container(
        _File(file, _owner(file.name, people) or _own(file.name, people), top=True),
        reader.entries(file, options or ReaderOptions()),
    )
    return scanner.result()


class _Scanner:
    """The rows and what was left out, as file after file is taken."""

    def __init__(
        self,
        root: Path,
        layout: str,
        people: dict[str, _Person] | None,
        labelled: bool,
        covariates: Sequence[str],
        require_label: bool,
        options: ReaderOptions | None,
    ) -> None:
        self.root, self.layout, self.people = root, layout, people
        self.labelled, self.from_table = labelled, labelled or bool(covariates)
        self.require_label, self.options = require_label, options or ReaderOptions()
        self.rows: list[SheetRow] = []
        self.skipped: list[tuple[str, str]] = []
        self.warnings: list[str] = []
        self.seen: set[str] = set()
        self.parts: dict[Path, Path] = {}  # a part of a recording, and the file it is read by
        self.labels: dict[str, SheetRow] = {}  # by participant in lower case
        self.contained: set[str] = set()  # recordings of container files
        self.holder: dict[str, Path] = {}  # the container file of an id, in lower case
        self.samples: list[Path] = []  # files of samples, whose headers are to be found
        self.names_in = functools.cache(sidecar_names)
        self.suffixes = suffixes()

    def take(self, file: _File) -> None:
        """Make rows of a file, or note why not."""
        if file.participant is not None:
            self.seen.add(file.participant)
        ending = file.path.suffix.lower()
        if ending in SAMPLES_OF and ending not in self.suffixes:
            self.samples.append(file.path)
            return
        why = file.why or _unwritable(file.path.relative_to(self.root).as_posix())
        reader, why = (None, why) if why else self._reader(file.path)
        if reader is None:
            self._skip(file.path, why)
            return
        if reader.entries is None:
            self._row(file, None)
            return
        try:
            entries = reader.entries(file.path, self.options)
        except RemitError as error:
            self._skip(file.path, str(error).removeprefix(f"{file.path}: "))
            return
        if file.top:
            self.take_container(file, entries)
        elif len(entries) == 1:
            self._row(file, entries[0])
        else:
            self._skip(
                file.path,
                f"holds {len(entries)} recordings; expected one in a participant's folder; put it "
                "at the top of the folder",
            )

    def take_container(self, file: _File, entries: Sequence[Entry]) -> None:
        """Rows of a container file that lies in no participant's folder."""
        listed_inside = any(entry.participant in (self.people or ()) for entry in entries)
        if len(entries) == 1 and file.participant is not None and not listed_inside:
            # The file's name says whose it is, unless it has an id inside that says otherwise.
            inside = _safe(entries[0].participant)
            if self.people is not None or inside in ("", _safe(_stem(file.path.name))):
                self._row(file, entries[0])
                return
        if self.people is not None and file.participant is not None and not listed_inside:
            self._recordings_of(file.participant, file.path, entries)
            return
        original: dict[str, str] = {}
        count: dict[str, int] = {}
        for entry in entries:
            participant = check_id("participant", _safe(entry.participant), str(file.path))
            if original.setdefault(participant, entry.participant) != entry.participant:
                raise RemitError(
                    f"{file.path}: participants '{original[participant]}' and "
                    f"'{entry.participant}' would both be '{participant}'; expected ids that "
                    "differ in letters and digits; rename one."
                )
            count[participant] = count.get(participant, 0) + 1
            again = f"-{count[participant]}" if count[participant] > 1 else ""
            in_table = self.people is not None and entry.participant in self.people
            self.seen.add(entry.participant if in_table else participant)
            person = (self.people or {}).get(entry.participant if in_table else participant)
            where = Path(f"{file.path} entry {entry.name}")
            if person is None and self.from_table:
                self._skip(where, f"participant '{entry.participant}' is not in {PARTICIPANTS}")
            else:
                self._check_holder(file.path, participant, in_table)
                recording = participant + again
                if recording in self.contained:  # by another container file
                    recording = f"{participant}_{_safe(_stem(file.path.name))}{again}"
                self.contained.add(check_id("recording", recording, str(file.path)))
                self._add(file.path, participant, recording, person or _Person(None, {}), entry)

    def _recordings_of(self, participant: str, path: Path, entries: Sequence[Entry]) -> None:
        """Rows of a container file whose name says that all in it is one participant's."""
        self.seen.add(check_id("participant", participant, str(self.root)))
        if participant != _stem(path.name):
            self.warnings.append(
                f"{_shown_path(path.name)} holds {len(entries)} recordings, none with an id of "
                f"{PARTICIPANTS}; all are taken as participant '{participant}', whose id the file's "
                "name begins with."
            )
        base = _recording_id(participant, path.name, self.layout)
        count: dict[str, int] = {}
        for entry in entries:
            part = _safe(entry.participant) or _safe(entry.name)
            count[part] = count.get(part, 0) + 1
            again = f"-{count[part]}" if count[part] > 1 else ""
            recording = check_id("recording", f"{base}_{part}{again}", str(path))
            self._add(path, participant, recording, (self.people or {})[participant], entry)

    def _check_holder(self, path: Path, participant: str, in_table: bool) -> None:
        """Refuse an id that stands in two container files, unless the table says whose it is."""
        first = self.holder.setdefault(participant.lower(), path)
        if first != path and not in_table:
            raise RemitError(
                f"{path}: holds '{participant}', as {first.name} does, and whether that is one "
                f"participant is not known; expected {PARTICIPANTS} to list '{participant}' if it "
                f"is, or '{_stem(first.name)}' and '{_stem(path.name)}' if each file is one "
                "participant's; write it, or a cohort sheet."
            )

    def _reader(self, file: Path) -> tuple[Reader | None, str]:
        """The reader of a file all of whose parts are there; or None and why not."""
        why = _missing(file) or (_format_unknown(file) if file.is_dir() else "")
        if why:
            return None, why
        try:
            reader = find_reader(file)
            parts = reader.companions(file) if reader.companions else []
            sidecars = sidecar_files(file, self.names_in) if self.layout == "bids" else []
        except RemitError as error:
            return None, str(error).removeprefix(f"{file}: ")
        self.parts |= {_plain(part): file for part in parts if part != file}
        for part in (*parts, *sidecars):
            if self.options.allow_truncated and part.suffix.lower() == ".vmrk":
                continue  # markers, without which the samples can be read
            why = _missing(part)
            if why or part.stat().st_size == 0:
                return None, f"{part.name}, which belongs to it, {why or 'is empty (0 bytes)'}"
        return (None, why) if (why := _header_only(file)) else (reader, "")

    def _row(self, file: _File, entry: Entry | None) -> None:
        """The row of a participant's file, which is one recording."""
        participant = file.participant
        if participant is None:
            self._skip(file.path, f"its name begins with no participant of {PARTICIPANTS}")
            return
        self.seen.add(participant)
        person = _Person(None, {}) if self.people is None else self.people.get(participant)
        if person is None:
            self._skip(file.path, f"participant '{participant}' is not in {PARTICIPANTS}")
            return
        check_id("participant", participant, str(self.root))
        recording = _recording_id(participant, file.path.name, self.layout)
        self._add(file.path, participant, recording, person, entry)

    def _add(
        self, path: Path, participant: str, recording: str, person: _Person, entry: Entry | None
    ) -> None:
        remission = person.remission
        if entry is not None and entry.remission is not None:
            if not self.labelled:
                remission = entry.remission
            elif remission not in (None, entry.remission):
                raise RemitError(
                    f"{path}: entry {entry.name} says remission {entry.remission}, {PARTICIPANTS} "
                    f"says {remission} for participant '{participant}'; expected the same; correct "
                    "one of them."
                )
        if self.require_label and remission is None:
            self._skip(path, f"the label of participant '{participant}' is unknown")
            return
        relative, known = path.relative_to(self.root).as_posix(), dict(person.covariates)
        name = entry.name if entry is not None else None
        row = SheetRow(participant, recording, relative, name, remission, known)
        first = self.labels.setdefault(participant.lower(), row)
        if (first.participant, first.remission) != (participant, remission):
            raise RemitError(
                f"{path}: participant '{participant}' has remission {_shown(remission)}, and in "
                f"{first.path} '{first.participant}' has {_shown(first.remission)}; expected one "
                "spelling and one label for each participant; correct one of them."
            )
        self.rows.append(row)

    def _skip(self, path: Path, why: str) -> None:
        self.skipped.append((_shown_path(path.relative_to(self.root).as_posix()), why))

    def result(self) -> ScanResult:
        """Everything found; raises RemitError where that is nothing."""
        for file in self.samples:
            header = SAMPLES_OF[file.suffix.lower()]
            beside = (file.with_suffix(suffix) for suffix in (header, header.upper()))
            if _plain(file) not in self.parts and not any(map(os.path.lexists, beside)):
                self._skip(
                    file, f"holds samples only; expected their header, '{file.stem}{header}', too"
                )
        rows = []
        for row in self.rows:
            whole = self.parts.get(_plain(self.root / row.path))
            if whole is None:
                rows.append(row)
            else:
                self._skip(self.root / row.path, f"is a part of the recording {whole.name}")
        for participant in sorted(set(self.people or ()) - self.seen):
            self.skipped.append((participant, f"in {PARTICIPANTS}, but without a recording"))
        if not rows:
            why = f" ({self.skipped[0][0]}: {self.skipped[0][1]})" if self.skipped else ""
            raise RemitError(
                f"{self.root}: no recording found as layout '{self.layout}', {len(self.skipped)} "
                f"left out{why}; expected {_expected(self.layout)}; check the path and "
                "the layout."
            )
        rows.sort(key=lambda row: (row.participant, row.recording, row.path))
        rows = _without_name_clashes(rows, self.skipped)
        if self.layout != "bids":
            self.warnings += _twins(dict.fromkeys(row.participant for row in rows))
        return ScanResult(rows, sorted(self.skipped), self.warnings)


def _without_name_clashes(rows: list[SheetRow], skipped: list[tuple[str, str]]) -> list[SheetRow]:
    """Keep the first of several recordings that would have one name."""
    taken: dict[str, SheetRow] = {}
    for row in rows:
        first = taken.setdefault(row.recording.lower(), row)
        if first is not row:
            skipped.append((row.path, f"its name gives '{row.recording}', as {first.path} does"))
    return list(taken.values())


def _plain(path: Path) -> Path:
    return Path(os.path.normpath(path))


def _missing(file: Path) -> str:
    """Why a file's content is not there; empty where it is."""
    if not file.exists():
        if not file.is_symlink():
            return "is not there"
        target = str(file.readlink())
        if "annex" in target:
            return "is a link to nothing: its content was not fetched; run 'git annex get' on it"
        return f"is a link to nothing ({target}); mend the link"
    if file.is_file() and 0 < file.stat().st_size <= _POINTER_BYTES:
        try:
            with file.open("rb") as opened:
                start = opened.read(64)
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        for pointer, command in POINTERS.items():
            if start.startswith(pointer):
                return f"stands for content that was not fetched; run '{command}' on it"
    return ""


def _header_only(file: Path) -> str:
    """Why an EDF, BDF or CSV file holds no samples, as far as a quick look shows; else empty."""
    name, size = file.name.lower(), file.stat().st_size
    with file.open("rb") as opened:
        if name.endswith((".edf", ".bdf")):
            size_of_header = opened.read(256)[184:192].strip()
            if size_of_header.isdigit() and size <= int(size_of_header):
                return "holds a header and no data"
        elif name.endswith(".csv") and size < 1 << 16:
            lines = [line for line in opened.read().splitlines() if line.strip()]
            if len(lines) < 2:
                return f"holds {len(lines)} line and no data"
    return ""


def _people(
    root: Path, label: Label | None, covariates: Sequence[str]
) -> dict[str, _Person] | None:
    """The participants of participants.tsv, or None where there is no such file."""
    file = root / PARTICIPANTS
    why = _missing(file)
    if why == "is not there":
        if label or covariates:
            raise RemitError(
                f"{file}: is not there; expected it, for its column is asked for, "
                f"'{label.column if label else covariates[0]}'; add it or leave label and "
                "covariates out."
            )
        return None
    if why:
        raise RemitError(f"{file}: {why}; expected a table of the participants.")
    header, body = read_table(file)
    wanted = ["participant_id", *([label.column] if label else []), *covariates]
    for column in wanted:
        if column not in header:
            raise RemitError(
                f"{file}: no column '{column}'; it has {some_of(header, 20)}; correct the column "
                f"asked for, or the table.{did_you_mean(column, header)}"
            )
    for column in covariates:
        if column in SHEET_COLUMNS:
            raise RemitError(
                f"{file}: column '{column}' is asked for as a covariate, but is a column of the cohort "
                "sheet itself; expected another name; rename it in the table."
            )
    people: dict[str, _Person] = {}
    for line, cells in body:
        values = dict(zip(header, cells, strict=True))
        participant = values["participant_id"]
        if not participant:
            raise RemitError(
                f"{file} line {line}: participant_id is empty; expected an id; fill it in."
            )
        if participant in people:
            raise RemitError(
                f"{file} line {line}: participant '{participant}' is there twice; expected one "
                "line each; remove one."
            )
        where = (
            f"{file} line {line}: {label.column if label else ''} of participant '{participant}'"
        )
        remission = _remission(label, values[label.column], where) if label else None
        known = {name: values[name] for name in covariates}
        known = {name: "" if text.lower() in UNKNOWN else text for name, text in known.items()}
        people[participant] = _Person(remission, known)
    return people


def _remission(label: Label, text: str, where: str) -> int | None:
    """What a cell of the label's column means: 1, 0 or None for unknown."""
    if label.values is not None:
        if text in label.values:
            return label.values[text]
        if text.lower() in UNKNOWN:
            return None
        raise RemitError(
            f"{where} is '{text}'; expected {some_of(label.values)} or n/a; add its meaning (to "
            f"scan.label.values, or as --label-value) or correct the table."
            f"{did_you_mean(text, label.values)}"
        )
    if text.lower() in UNKNOWN:
        return None
    if not _NUMBER.fullmatch(text):
        raise RemitError(f"{where} is '{text}'; expected a number or n/a; correct the table.")
    if _THOUSANDS.fullmatch(text):
        raise RemitError(
            f"{where} is '{text}', which may be {text.replace(',', '.')} or "
            f"{text.replace(',', '')}; expected one of these spellings; correct the table."
        )
    number, threshold = float(text.replace(",", ".")), label.threshold
    assert threshold is not None
    sides = {
        "below": number < threshold,
        "at_or_below": number <= threshold,
        "above": number > threshold,
        "at_or_above": number >= threshold,
    }
    return int(sides[str(label.positive)])


def _bids(root: Path, people: dict[str, _Person] | None, wanted: Wanted | None) -> Iterator[_File]:
    """Every recording of a BIDS data set; an id without 'sub-' in the table is found too."""
    for file in bids_files(root, wanted):
        bare = file.subject.removeprefix("sub-")
        as_bare = people is not None and file.subject not in people and bare in people
        participant = bare if as_bare else file.subject
        if file.path.name != file.subject or file.path.is_symlink():
            yield _File(file.path, participant, file.why)
        elif participant not in (people or ()):  # else the table's line says the same
            yield _File(file.path, None, file.why)


def _check_level(root: Path, people: dict[str, _Person] | None) -> None:
    """Refuse a folder that lies inside a participant's, or whose folders are data sets."""
    above = root_above(root)
    if above is not None and people is None:
        raise RemitError(
            f"{root}: lies inside the folder of one participant of a BIDS data set; expected the "
            f"folder that holds all participants; give {above} instead."
        )
    items = listed(root)
    again = _scanned_twice(root, items)
    sets = {
        item.name: sign
        for item in items
        if item.is_dir() and not _passed_over(item) and item not in again
        if item.name not in (people or ()) and (sign := _data_set(item))
    }
    if sets:
        first = next(iter(sets))
        raise RemitError(
            f"{root}: its folder {some_of(sets)} is a data set of its own ({sets[first]} is in "
            f"'{first}') and no participant; expected one folder for each participant; give one "
            f"data set at a time, such as {root / first}."
        )


def _data_set(folder: Path) -> str:
    """What in a folder shows that it is a data set and no participant's; empty for nothing."""
    try:
        names = sorted(item.name for item in folder.iterdir())
    except OSError:  # listing what is in it will name the reason
        return ""
    signs = [name for name in names if name in (DESCRIPTION, PARTICIPANTS)]
    signs += [name for name in names if name.startswith("sub-") and (folder / name).is_dir()]
    return signs[0] if signs else ""


def _passed_over(folder: Path) -> bool:
    name = folder.name
    special = name in NOT_ENTERED or name.lower().endswith(RECORDING_FOLDERS)
    return special or name.startswith(".")


def _folder(root: Path, people: dict[str, _Person] | None, warnings: list[str]) -> Iterator[_File]:
    """Every file that may be a recording, and the participant whose folder or name it has."""
    known = suffixes()
    items = [item for item in listed(root) if not item.name.startswith(".")]
    folders = []  # those that hold recordings
    again = _scanned_twice(root, items)
    for item in items:
        if not item.is_dir():
            continue
        if item.name in NOT_ENTERED:
            yield _File(item, None, "is not entered: it holds what was made from recordings")
        elif item.name.lower().endswith(RECORDING_FOLDERS):
            yield _File(
                item, _owner(item.name, people) or _own(item.name, people), _format_unknown(item)
            )
        elif item in again:
            yield _File(item, None, again[item])
        else:
            inside = list(_in_folder(item, item.name, known))
            if not inside and item.name not in (people or ()):
                yield _File(item, None, "holds no recording")
            if inside and item.name not in (people or ()):
                _check_folder(root, item.name)
                warnings += _of_several(item, inside)
            if inside:
                folders.append(item.name)
            yield from inside
    for item in items:
        if item.is_dir() or _is_beside(item, known):
            continue
        owner = _owner(item.name, people)
        if people is None and (owner := _owner(item.name, folders, re.IGNORECASE)):
            warnings.append(
                f"{_shown_path(item.name)} is taken as one of participant '{owner}', whose "
                "folder's name its own begins with; rename it if it is another's."
            )
        yield _File(item, owner or _own(item.name, people), top=True)


def _scanned_twice(root: Path, items: Sequence[Path]) -> dict[Path, str]:
    """Why links to folders are not followed, for those to what is scanned without them."""
    links = [item for item in items if item.is_symlink() and item.is_dir()]
    if not links:
        return {}
    base = root.resolve()
    entered: dict[Path, Path] = {}  # what is scanned, and by which item
    above: dict[Path, Path] = {}  # the folders that hold it

    def enter(place: Path, item: Path) -> None:
        entered[place] = item
        above.update(dict.fromkeys(place.parents, item))

    for item in items:
        if item.is_dir() and not item.is_symlink() and not _passed_over(item):
            enter(item.resolve(), item)
    why = {}
    for link in links:
        target = link.resolve()
        holders = [entered[place] for place in (target, *target.parents) if place in entered]
        holders += [above[target]] if target in above else []
        if base.is_relative_to(target):
            why[link] = "is a link to the folder that is scanned, or to one above it: not followed"
        elif holders:
            name = _shown_path(holders[0].name)
            why[link] = f"is a link to what is scanned as '{name}' already: not followed"
        else:
            enter(target, link)
    return why


def _check_folder(root: Path, name: str) -> None:
    """Refuse a folder that stands for a session or a kind of data as if it were a participant."""
    if _NO_PERSON.fullmatch(name):
        raise RemitError(
            f"{root}: its folder '{name}' seems to be a session or a kind of data, and no "
            f"participant; expected one folder for each participant; give {root / name} alone, put "
            "the recordings of each participant into one folder, or list "
            f"'{name}' in {PARTICIPANTS} if it is a participant's id."
        )


def _of_several(folder: Path, inside: Sequence[_File]) -> list[str]:
    """A warning for a folder that holds nothing but folders with recordings, as a group would."""
    parts = [file.path.relative_to(folder).parts for file in inside if not file.why]
    inner = {part[0]: None for part in parts if not _NO_PERSON.fullmatch(part[0])}
    if len(inner) < 2 or any(len(part) < 2 for part in parts):
        return []
    return [
        f"the recordings in '{folder.name}' lie in its folders {some_of(inner)}, and all are taken "
        f"as participant '{folder.name}'; if those are the participants, give {folder} instead."
    ]


def _twins(participants: Iterable[str]) -> list[str]:
    """A warning where ids differ only in what may be the number of a run or session."""
    groups: dict[str, list[str]] = {}
    for participant in participants:
        person = _AGAIN.split(participant, maxsplit=1)[0]
        counted = _COUNTED.fullmatch(person)
        groups.setdefault(counted[1] if counted else person, []).append(participant)
    doubtful = {person: ids for person, ids in groups.items() if len(ids) > 1}
    if not doubtful:
        return []
    person, ids = next(iter(doubtful.items()))
    more = f", and so do those of {len(doubtful) - 1} more" if len(doubtful) > 1 else ""
    return [
        f"the ids {some_of(ids)} differ only in what may be a run or session{more}; each is taken "
        f"as a participant; if '{person}' is one person, put these recordings into a folder "
        f"'{person}', or correct the column participant of the sheet."
    ]


def _in_folder(folder: Path, participant: str, known: tuple[str, ...]) -> Iterator[_File]:
    for item in listed(folder):
        if item.name.startswith("."):
            continue
        if item.is_dir() and item.name.lower().endswith(RECORDING_FOLDERS):
            yield _File(item, participant, _format_unknown(item))
        elif item.is_dir() and item.is_symlink():
            yield _File(item, participant, "is a link to a folder, which is not followed")
        elif item.is_dir():
            yield from _in_folder(item, participant, known)
        elif not _is_beside(item, known):
            yield _File(item, participant)


def _is_beside(file: Path, known: tuple[str, ...]) -> bool:
    if file.name.lower().endswith(known):
        return False
    if "." not in file.name:  # a link to nothing may have been a participant's folder
        return file.exists()
    return file.name.lower().endswith(BESIDE)


def _format_unknown(folder: Path) -> str:
    return f"the format '{folder.suffix}' is not known; convert it"


def _owner(name: str, ids: Iterable[str] | None, flags: re.RegexFlag = re.NOFLAG) -> str | None:
    """The participant of a file at the top: the longest id that its name begins with."""
    owners = [
        participant
        for participant in ids or ()
        if re.match(rf"{re.escape(participant)}(?![A-Za-z0-9])", name, flags)
    ]
    return max(owners, key=len, default=None)


def _own(name: str, people: dict[str, _Person] | None) -> str | None:
    """The id that a file's own name is, where there is no table of the participants."""
    return _safe(_stem(name)) if people is None else None


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
    stem = name.partition(".")[0].removesuffix("_eeg") if layout == "bids" else _stem(name)
    recording = _safe(stem)
    if not recording.startswith(participant) and layout != "bids":
        recording = f"{participant}_{recording}" if recording else participant
    return check_id("recording", recording, name)


def _unwritable(path: str) -> str:
    """Why a path cannot stand in a cohort sheet; empty where it can."""
    if not any(character < " " or "\ud800" <= character <= "\udfff" for character in path):
        return ""
    return "its name holds a line break, a tab or bytes that are no UTF-8 text; rename it"


def _shown_path(path: str) -> str:
    """A path on one line of text that can be printed."""
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in path
    )


def _shown(remission: int | None) -> str:
    return "unknown" if remission is None else str(remission)


def _expected(layout: str) -> str:
    if layout == "bids":
        return "sub-*/[ses-*/]eeg/*_eeg.edf or another known format"
    return "recordings in one folder per participant, or at its top"
