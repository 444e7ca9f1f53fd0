"""Muse CSV as muse-lsl writes it: one row per sample, a time stamp in seconds, microvolts.

`record` writes `timestamps,TP9,AF7,AF8,TP10,Right AUX[,Marker0]`; `record_direct` writes an unnamed
index first and `timestamps` last; other programs prefix `RAW_` or write lower case. Columns are
found by name. Traps: stamps have three decimals, so their median step says 250 Hz where the truth
is 256; packets come late; the file may be cut inside a row, or have a block of rows twice. Rate and
gaps come from the stamps.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from remit.errors import RemitError
from remit.files import sha256_of
from remit.recordings import table
from remit.recordings.cohort import SheetRow
from remit.recordings.registry import Reader, ReaderOptions

if TYPE_CHECKING:
    from remit.recordings.recording import Recording

TIME = "timestamps"
MUSE_ELECTRODES = {"tp9", "af7", "af8", "tp10", "fp1", "fp2"}  # Muse 2014 has Fp1 and Fp2
DEVICE_RATES = (256.0, 220.0)  # Hz: Muse 2016 and later; Muse 2014


def matches(path: Path) -> bool:
    """Whether the first line names `timestamps` and an electrode of a Muse."""
    names = {name.lower() for name in table.cells(table.head(path)[0])}
    return TIME in names and bool({name.removeprefix("raw_") for name in names} & MUSE_ELECTRODES)


def read(row: SheetRow, options: ReaderOptions) -> Recording:
    """The recording in a muse-lsl CSV file.

    Rows that lack a sample of some channel end a segment. Raises RemitError for a file cut inside
    a row, a cell that is no number, two columns of one name, rows that are there twice, and for
    time stamps from which no rate can be told.
    """
    import numpy as np

    from remit.recordings.channels import canonical
    from remit.recordings.clock import cut_missing, measure
    from remit.recordings.recording import Recording

    path = Path(row.path)
    text = table.load(path, options.allow_truncated)
    header = table.cells(table.head(path)[0])
    times = [index for index, name in enumerate(header) if name.lower() == TIME]
    by_channel: dict[str, int] = {}
    for index, name in enumerate(header):
        channel = canonical(name) if name else None
        if channel in by_channel or (index in times[1:]):
            raise RemitError(
                f"{path}: two columns are '{name}' ({channel or 'time'}); expected one; rename or "
                "remove one."
            )
        if channel:
            by_channel[channel] = index
    kinds: dict[int, table.Kind] = dict.fromkeys(by_channel.values(), "sample")
    found = table.columns(text, header, {times[0]: "number", **kinds})
    stamps_S, notes = table.seconds(found[times[0]], str(path), header[times[0]])
    by_channel, empty = table.without_empty(by_channel, found, header, str(path))
    signal_CS = np.stack([found[index] for index in by_channel.values()])
    table.refuse_repeats(stamps_S, signal_CS, str(path))
    timing = measure(stamps_S, DEVICE_RATES, str(path))
    segments, kept_S, missing = cut_missing(
        timing.segments, np.isnan(signal_CS).any(axis=0), timing.sampling_rate
    )
    used = {times[0], *by_channel.values()}
    return Recording(
        participant=row.participant,
        recording=row.recording,
        signal_CS=signal_CS if kept_S.all() else signal_CS[:, kept_S],
        sampling_rate=timing.sampling_rate,
        channels=tuple(by_channel),
        segments=segments,
        prewindowed=False,
        simulated=False,
        source_sha256=sha256_of(path),
        left_out=tuple(name for index, name in enumerate(header) if name and index not in used),
        notes=(*text.notes, *notes, *empty, *timing.notes, *missing),
    )


READER = Reader(
    name="Muse CSV (muse-lsl)",
    suffixes=table.SUFFIXES,
    matches=matches,
    read=read,
    expects="a first line with 'timestamps' and electrodes such as TP9, AF7",
    takes=(
        "channels by name, whatever their order and spelling",
        "rate and gaps from the time stamps",
        "a clock that is set back (a segment of its own)",
        "rows without a sample (they end a segment)",
        "plain, .gz or the only CSV in a .zip",
    ),
    refuses=(
        "a file cut inside a row, unless allow_truncated",
        "a header without rows",
        "text or infinity where a number belongs, with its line",
        "a row of another length",
        "two columns of one electrode",
        "a block of rows that is there twice",
        "stamps that give no steady rate of 100 Hz or more",
        "a zip with two CSVs, a zip bomb, a cut or encrypted archive",
    ),
)
