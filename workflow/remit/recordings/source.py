"""From a configured cohort to the rows of its sheet: simulated, read from a sheet, or scanned.

Standard library and remit only at import: Snakemake calls this at every parse. Scanning a BIDS data
set imports mne-bids.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from remit.config import Cohort
from remit.recordings.cohort import SheetRow, read_sheet, simulated_rows
from remit.recordings.registry import ReaderOptions
from remit.recordings.scan import Wanted, scan


def reader_options(cohort: Cohort) -> ReaderOptions:
    """What files that do not describe themselves are read with."""
    names = cohort.channel_names
    return ReaderOptions(
        cohort.sampling_rate, tuple(names) if names else None, cohort.units, cohort.allow_truncated
    )


def root_of(cohort: Cohort) -> Path | None:
    """The folder that the rows' paths begin in; None for simulated ones."""
    if cohort.scan is not None:
        root = Path(cohort.scan.root)
        return root.parent if root.is_file() else root
    if cohort.sheet is not None:
        return Path(cohort.root) if cohort.root is not None else Path(cohort.sheet).parent
    return None


def rows_of(name: str, cohort: Cohort) -> tuple[list[SheetRow], list[tuple[str, str]]]:
    """The rows of a cohort, and what was left out and why; raises :class:`RemitError`."""
    if cohort.simulate is not None:
        return simulated_rows(name, cohort.simulate), []
    if cohort.scan is not None:
        settings = cohort.scan
        found = scan(
            settings.root,
            settings.layout,
            settings.label,
            settings.covariates,
            settings.require_label,
            reader_options(cohort),
            Wanted(settings.tasks, settings.sessions, settings.runs),
        )
        return found.rows, found.skipped
    return read_sheet(str(cohort.sheet), root_of(cohort)), []


def digest(rows: Sequence[SheetRow]) -> str:
    """SHA-256 over the rows, so that a change of the sheet's content is seen."""
    text = json.dumps([asdict(row) for row in rows], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
