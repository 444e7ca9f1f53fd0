"""Who is in a cohort, what its sheet says of them and what is left of their recordings, counted.

What the model card and the pictures of the cohort both state, and how the classes are drawn; computes
no figure of merit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remit.dataset.splits import ParticipantSplit, read_split
from remit.dataset.windows import WindowsFile, open_dataset
from remit.errors import RemitError, some_of
from remit.recordings.cohort import SheetRow, read_made_sheet
from remit.recordings.scan import UNKNOWN
from remit.report.drawing import BLUE, GREY, VERMILION

_BEYOND_ALL = 1e100  # what can be said of people
MOST_WORDS = 8  # different ones of a column; more are counted, not listed


@dataclass(frozen=True)
class Group:
    """People who are drawn alike, and how: in print, marker and line tell what colour does not."""

    label: int | None
    name: str
    color: str
    marker: str
    line: str
    hatch: str


CLASSES = (
    Group(1, "class 1", VERMILION, "D", "--", "//"),
    Group(0, "class 0", BLUE, "o", "-", ""),
    Group(None, "no label", GREY, "s", ":", ".."),
)


@dataclass(frozen=True)
class Cohort:
    """What the pictures are drawn from; made by :func:`read_cohort`."""

    rows: list[SheetRow]
    dataset: WindowsFile
    split: ParticipantSplit | None
    label: str
    """The outcome in words"""
    use_bad: bool
    """Whether training uses windows that are marked bad"""

    @property
    def flags(self) -> list[str]:
        """What forbids believing a picture."""
        return ["SIMULATED DATA"] if self.dataset.metadata["simulated"] else []

    @property
    def name(self) -> str:
        """Of the cohort."""
        return str(self.dataset.metadata["cohort"])

    @property
    def labels(self) -> dict[str, int]:
        """Of the dataset's participants who have one."""
        return {name: one for name, one in self.dataset.labels.items() if one is not None}

    def classes(self) -> list[tuple[Group, list[str]]]:
        """The participants of the sheet by class; a class without people is left out."""
        of = {row.participant: row.remission for row in self.rows}
        found = [(group, [name for name in of if of[name] == group.label]) for group in CLASSES]
        return [(group, people) for group, people in found if people]

    def title(self, what: str) -> str:
        """A picture's title, with what the classes are."""
        return f"{what}: cohort {self.name}\nclass 1 and 0: {self.label}"


def read_cohort(
    *, sheet: Path, primary: Path, split: Path | None, label: str, use_bad: bool
) -> Cohort:
    """Read and check; raises :class:`RemitError` for files that do not belong together."""
    rows, dataset = read_made_sheet(sheet), open_dataset(primary)
    in_sheet = {row.participant: row.remission for row in rows}
    other = sorted(
        name
        for name, own in dataset.labels.items()
        if name not in in_sheet or in_sheet[name] != own
    )
    if other:
        raise RemitError(
            f"{primary}: participant {some_of(other)} is not in {sheet}, or has another label there; "
            "expected both of the same cohort; make the dataset again."
        )
    made_by = None if split is None else read_split(split)
    if made_by is not None:
        made_by.check_against(dataset.participants)
        if made_by.content_sha256 != dataset.metadata["content_sha256"]:
            raise RemitError(
                f"{split}: was made from another dataset than {primary}; expected the same; make the split "
                "again."
            )
    return Cohort(rows, dataset, made_by, label, use_bad)


def counted(count: int, what: str) -> str:
    """'1 window', '2 windows'."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def known(row: SheetRow, column: str) -> str:
    """What a covariate says of a recording's participant; '' where it is unknown."""
    text = row.covariates.get(column, "").strip()
    return "" if text.lower() in UNKNOWN else text


def number(text: str) -> float | None:
    """A number as people write it, with a point or a comma; None for anything else, and for one that no
    axis reaches, as infinity."""
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        return None
    return value if abs(value) < _BEYOND_ALL else None


def covariates(rows: Sequence[SheetRow], people: Iterable[str]) -> dict[str, dict[str, str]]:
    """What is known of some participants, by column of the sheet and participant.

    One entry of each participant: that of their first recording where it is known.
    """
    wanted = set(people)
    found: dict[str, dict[str, str]] = {
        column: {} for row in rows for column in row.covariates
    }  # in the sheet's order
    for column, of in found.items():
        for row in rows:
            if row.participant in wanted and (text := known(row, column)):
                of.setdefault(row.participant, text)
    return found


def words_of(values: Iterable[str]) -> dict[str, int] | None:
    """How often each word of a column stands there, sorted; None where that would list the people."""
    there = list(values)
    counts = {text: there.count(text) for text in sorted(set(there))}
    return None if len(counts) > MOST_WORDS or len(counts) == len(there) else counts


def flow(
    rows: Sequence[SheetRow],
    dataset: WindowsFile,
    labels: Mapping[str, int],
    *,
    use_bad: bool,
    named: int = 40,
) -> list[dict[str, Any]]:
    """Who is left at each step, and who is not.

    Args:
        rows: of the cohort's sheet.
        dataset: what became of them.
        labels: of those who are counted in the end.
        use_bad: whether windows that are marked bad are used.
        named: how many of those who are gone are named at most.
    """
    frame = dataset.frame()
    used = frame if use_bad else frame[frame["good"]]
    counted = used[used["Participant"].isin(list(labels))]
    steps = [("with at least one window", frame, dataset.participants)]
    if not use_bad:
        left = sorted(set(used["Participant"]))
        steps.append(("with at least one window that is not marked bad", used, left))
    steps.append(("with a label: in the folds, and in every figure below", counted, sorted(labels)))
    before = sorted({row.participant for row in rows})
    found: list[dict[str, Any]] = [
        {
            "step": "in the cohort sheet",
            "participants": len(before),
            "recordings": len(rows),
            "windows": "",
            "gone": "",
        }
    ]
    for step, windows, people in steps:
        gone = sorted(set(before) - set(people))
        found.append(
            {
                "step": step,
                "participants": len(people),
                "recordings": windows["recording"].nunique(),
                "windows": len(windows),
                "gone": some_of(gone, named) if gone else "nobody",
            }
        )
        before = people
    return found


def bad_because(dataset: WindowsFile) -> dict[str, int]:
    """How many windows are marked bad for each reason; a window may have several."""
    reasons: dict[str, int] = {}
    for source in dataset.metadata["sources"].values():
        for reason, count in source["quality"]["bad_windows_because"].items():
            reasons[reason] = reasons.get(reason, 0) + int(count)
    return dict(sorted(reasons.items()))


def recorded(dataset: WindowsFile, labels: Mapping[str, Any], *, use_bad: bool) -> dict[str, Any]:
    """How much signal there is of who is counted, and how many windows of each are used."""
    frame = dataset.frame()
    own = frame[frame["Participant"].isin(list(labels)) & (frame["good"] | use_bad)]
    sources = [
        source for source in dataset.metadata["sources"].values() if source["participant"] in labels
    ]
    return {
        "minutes": [source["seconds"] / 60 for source in sources],
        "dropped": sum(source["dropped_seconds"] for source in sources) / 60,
        "windows": sorted(own["Participant"].value_counts()),
    }
