"""When the labels of test people were compared with predictions: one line for each time.

How often that was done with one cohort is what a reader of a best result has to know.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

from remit import naming

_HEADER = "when\tcohort\tdataset\twhat\n"


def note_test_read(what: str, dataset: str, cohort: str, log: Callable[[str], None]) -> None:
    """Write down that a test part is about to be read, and say how often it was before.

    Counted by cohort, so that other filters or windows of the same people do not begin anew.

    Args:
        what: the stage and the model.
        dataset: name of the primary dataset.
        cohort: whose people they are.
        log: takes the line.
    """
    file = Path(naming.path("test_reads"))
    file.parent.mkdir(parents=True, exist_ok=True)
    before = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    mine = [line for line in before if line.split("\t")[1:2] == [cohort]]
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    with file.open("a", encoding="utf-8") as out:
        out.write(("" if before else _HEADER) + f"{now}\t{cohort}\t{dataset}\t{what}\n")
    log(
        f"{what}: the test part of {cohort} is read now; it was read {len(mine)} times before ({file})"
    )
