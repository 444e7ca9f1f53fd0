"""Muse CSV as muse-lsl writes it: one row per sample, a time stamp in seconds, microvolts.

`record` writes `timestamps,TP9,AF7,AF8,TP10,Right AUX[,Marker0]`; `record_direct` writes an unnamed
index first and `timestamps` last; other programs prefix `RAW_` or write lower case. Columns are
found by name. Traps: stamps have three decimals, so their median step says 250 Hz where the truth
is 256; packets come late; the file may be cut inside a row, or have a block of rows twice; a
spreadsheet saves it with `;`, decimal commas and `sep=;`. Rate and gaps come from the stamps.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    return table.start(path, _is_header) is not None


def _is_header(cells: Sequence[str]) -> bool:
    names = {name.lower() for name in cells}
    return TIME in names and bool({name.removeprefix("raw_") for name in names} & MUSE_ELECTRODES)


def read(row: SheetRow, options: ReaderOptions) -> Recording:
    """The recording in a muse-lsl CSV file, in microvolts unless `options.units` says otherwise.

    Rows that lack a sample of some channel end a segment. Raises RemitError for a file cut inside
    a row, a cell that is no number, two columns of one name, rows that are there twice, and for
    time stamps from which no rate can be told.
    """
    import numpy as np

    from remit.recordings.channels import electrodes
    from remit.recordings.clock import cut_missing, measure
    from remit.recordings.recording import Recording
    from remit.recordings.units import UNSTATED, in_microvolts

    path = Path(row.path)
    text = table.load(path, options.allow_truncated)
    start = table.start(path, _is_header)
    if start is None:
        raise RemitError(
            f"{path}: its first line is no header of muse-lsl; expected 'timestamps' and electrodes "
            "such as TP9; check what program wrote it."
        )
    header = start.header
    times = [index for index, name in enumerate(header) if name.lower() == TIME]
    by_channel: dict[str, int] = {}
    for index, (name, channel) in enumerate(zip(header, electrodes(header), strict=True)):
        if channel in by_channel or (index in times[1:]):
            raise RemitError(
                f"{path}: two columns are '{table.shown(name)}' ({channel or 'time'}); expected "
                "one; rename or remove one."
            )
        if channel:
            by_channel[channel] = index
    kinds: dict[int, table.Kind] = dict.fromkeys(by_channel.values(), "sample")
    found = table.columns(
        text,
        header,
        {times[0]: "number", **kinds},
        header_lines=start.header_lines,
        delimiter=start.delimiter,
        decimal=start.decimal,
    )
    stamps_S, notes = table.seconds(found[times[0]], str(path), header[times[0]])
    by_channel, empty = table.without_empty(by_channel, found, header, str(path))
    signal_CS = np.stack([found[index] for index in by_channel.values()])
    table.refuse_repeats(stamps_S, signal_CS, str(path))
    timing = measure(stamps_S, DEVICE_RATES, str(path))
    segments, kept_S, missing = cut_missing(
        timing.segments, np.isnan(signal_CS).any(axis=0), timing.sampling_rate
    )
    signal_CS = signal_CS if kept_S.all() else signal_CS[:, kept_S]
    stated = (options.units or "").strip().lower() not in UNSTATED
    signal_CS, scaled = in_microvolts(
        signal_CS, timing.sampling_rate, options.units if stated else "uV", str(path)
    )
    used = {times[0], *by_channel.values()}
    return Recording(
        participant=row.participant,
        recording=row.recording,
        signal_CS=signal_CS,
        sampling_rate=timing.sampling_rate,
        channels=tuple(by_channel),
        segments=segments,
        prewindowed=False,
        simulated=False,
        source_sha256=sha256_of(path),
        left_out=tuple(name for index, name in enumerate(header) if name and index not in used),
        notes=(*text.notes, *notes, *empty, *timing.notes, *missing, *scaled),
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
        "microvolts, or what units says",
        "commas, semicolons and tabs; decimal commas; blank lines and 'sep=;' before the header",
        "a clock that is set back (a segment of its own)",
        *table.TAKES,
    ),
    refuses=(
        "stamps that give no steady rate of 100 Hz or more",
        "two decimal signs",
        *table.REFUSES,
    ),
)
