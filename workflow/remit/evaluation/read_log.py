"""When the labels of test people were compared with predictions: one line for each time.

How often that was done with one cohort is what a reader of a best result has to know.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from remit import naming

_HEADER = "when\tcohort\tdataset\twhat\tanalysis\n"


def note_test_read(
    what: str,
    dataset: str,
    cohort: str,
    analysis: Mapping[str, Any],
    log: Callable[[str], None],
) -> dict[str, Any]:
    """Write down that a test part is about to be read, and say how often it was before.

    Counted by cohort, so that other filters or windows of the same people do not begin anew.

    Args:
        what: the stage and the model.
        dataset: name of the primary dataset.
        cohort: whose people they are.
        analysis: settings and hashes, ready for JSON: what makes a run another one than a repeat.
        log: takes the line.

    Returns:
        ``analyses_before`` and ``models_before``: how many other analyses had read this cohort's test
        part when this one did so for the first time, and of which models. A repeat with the same
        files and settings returns the same.
    """
    file = Path(naming.path("test_reads"))
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(analysis, sort_keys=True, allow_nan=False)
    own = (what, hashlib.sha256(text.encode()).hexdigest()[:12])
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    rows = [line.split("\t") for line in lines]
    # Lines of an older version have no analysis: all of one stage and model are taken for one.
    mine = [(*row[3:5], "")[:2] for row in rows if row[1:2] == [cohort]]
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    with file.open("a", encoding="utf-8") as out:
        out.write(("" if lines else _HEADER) + "\t".join([now, cohort, dataset, *own]) + "\n")
    log(
        f"{what}: the test part of {cohort} is read now; it was read {len(mine)} times before ({file})"
    )
    before = set(mine[: mine.index(own)] if own in mine else mine)
    return {
        "analyses_before": len(before),
        "models_before": sorted({words.split()[-1] for words, _ in before}),
    }
