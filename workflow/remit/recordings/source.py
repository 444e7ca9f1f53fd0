"""From a configured cohort to the rows of its sheet: simulated, read from a sheet, or scanned.

Standard library and remit only at import: Snakemake calls this at every parse. Scanning a BIDS data
set imports mne-bids.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from remit.config import Cohort, Config
from remit.errors import RemitError
from remit.recordings.cohort import Links, SheetRow, read_sheet, resolve, simulated_rows
from remit.recordings.registry import ReaderOptions, companions, read_recording
from remit.recordings.scan import Wanted, scan

TEN_TWENTY = (
    *("Fp1", "Fp2", "F7", "F3", "Fz", "F4", "F8", "T7", "C3", "Cz", "C4", "T8"),
    *("P7", "P3", "Pz", "P4", "P8", "O1", "O2"),
)
_MOST_CHANNELS = 32
# Of how many recordings the sizes are looked at, how many are tried, and how large one may be.
_LOOKED_AT, _TRIED, _LARGE_BYTES = 50, 3, 1 << 29


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


def rows_of(
    name: str, cohort: Cohort, warn: Callable[[str], None] | None = None
) -> tuple[list[SheetRow], list[tuple[str, str]]]:
    """The rows of a cohort, and what was left out and why; raises :class:`RemitError`.

    `warn` is called with each sentence on what a scan decided and may be wrong.
    """
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
        if warn is not None:
            for warning in found.warnings:
                warn(warning)
        return found.rows, found.skipped
    return read_sheet(str(cohort.sheet), root_of(cohort)), []


def digest(rows: Sequence[SheetRow]) -> str:
    """SHA-256 over the rows, so that a change of the sheet's content is seen."""
    text = json.dumps([asdict(row) for row in rows], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def electrodes_to_try(
    rows: Sequence[SheetRow], root: Path, options: ReaderOptions, log: Callable[[str], None]
) -> tuple[str, tuple[str, ...]]:
    """A recording that can be read, and its electrodes without those on the ears.

    The smallest files are tried first, a few of them; `log` is told why one cannot be read. Empty
    where none can, or the files are so large that reading one would take long.
    """
    from remit.recordings.channels import EARS

    sized = sorted((_size(resolve(row, root)), row.recording, row) for row in rows[:_LOOKED_AT])
    for size, _, row in sized[:_TRIED]:
        if size > _LARGE_BYTES:
            break
        try:
            found = read_recording(row, options, root).channels
        except RemitError as error:
            log(f"recording '{row.recording}' cannot be read: {error}")
            continue
        return row.recording, tuple(name for name in found if name.lower() not in EARS)
    return "", ()


def _size(path: Path) -> int:
    """Bytes of a recording's files that are there."""
    try:
        return sum(file.stat().st_size for file in (path, *companions(path)) if file.exists())
    except RemitError:  # reading it will say the same
        return 0


def overlay(
    sheet: Path,
    root: Path,
    electrodes: Sequence[str],
    recording: str = "",
    allow_truncated: bool = False,
    rows: Sequence[SheetRow] = (),
) -> str:
    """A configuration (YAML) for a sheet whose paths begin in `root`: cohort 'mine'.

    `electrodes` are those of `recording`; of a dense cap the 10-20 system's are taken, and where
    nothing is known the default channels stand there to be changed. Paths are written absolute, and
    folders to which links of `rows` lead out of `root` are named.
    """
    lines = ["cohort: mine", "cohorts:", "  mine:"]
    lines += [
        f"    {key}: {_quoted(_absolute(path))}" for key, path in (("sheet", sheet), ("root", root))
    ]
    lines += ["    allow_truncated: true"] if allow_truncated else []
    links = Links("mine", root, ())
    led_to = [real for row in rows if (real := links.outside(resolve(row, root))) is not None]
    if folders := sorted({str(real.parent) for real in led_to}):
        lines.append("    # Links in the folder lead to these; take out what you do not trust.")
        lines.append(f"    follow_links_to: [{', '.join(map(_quoted, folders))}]")
    chosen = list(electrodes)
    if len(chosen) > _MOST_CHANNELS:  # names of files are made of the channels
        usual = [name for name in TEN_TWENTY if name in electrodes]
        chosen = usual if len(usual) > 1 else chosen[:_MOST_CHANNELS]
    if chosen:
        which = (
            f"{len(chosen)} of the {len(electrodes)} electrodes"
            if len(chosen) < len(electrodes)
            else "The electrodes"
        )
        lines.append(f"# {which} of recording {recording}; choose some that every recording has.")
    else:
        chosen = list(Config().channels)
        lines.append("# Change this: write the electrodes of your recordings.")
    lines.append(f"channels: [{', '.join(map(_quoted, chosen))}]")
    # A default of 2000 would make the demo twice as long, whose people need half of it.
    lines += [
        "# What real recordings need before the waveform is learned (docs/benchmarks.md).",
        "pretraining:",
        "  least_steps: 2000",
    ]
    return "\n".join(lines) + "\n"


def _absolute(path: Path) -> str:
    return os.path.normpath(Path.cwd() / path)


def _quoted(text: str) -> str:
    """Text as a double-quoted YAML scalar on one line."""
    import yaml

    dumped: str = yaml.safe_dump(text, default_style='"', allow_unicode=True, width=float("inf"))
    return dumped.strip()
