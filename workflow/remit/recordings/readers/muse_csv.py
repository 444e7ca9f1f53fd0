"""Muse CSV as muse-lsl writes it: one row per sample, a time stamp in seconds, microvolts.

`record` writes `timestamps,TP9,AF7,AF8,TP10,Right AUX[,Marker0]`; `record_direct` writes an unnamed
index first and `timestamps` last. Columns are found by name. Rate and gaps come from the stamps.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from remit.errors import RemitError, some_of
from remit.files import sha256_of
from remit.recordings.cohort import SheetRow
from remit.recordings.registry import Reader, ReaderOptions

if TYPE_CHECKING:
    import numpy as np

    from remit.recordings.recording import Recording

TIME = "timestamps"
MUSE_ELECTRODES = {"tp9", "af7", "af8", "tp10", "fp1", "fp2"}  # Muse 2014 has Fp1 and Fp2
DEVICE_RATES = (256.0, 220.0)  # Hz: Muse 2016 and later; Muse 2014
_HEADER_BYTES = 65536


def _header(path: Path) -> list[str]:
    with path.open("rb") as opened:
        first = opened.readline(_HEADER_BYTES)
    line = first.decode("utf-8-sig", errors="replace").rstrip("\r\n")
    try:
        return [name.strip() for name in next(csv.reader([line]), [])]
    except csv.Error:  # a carriage return inside the line: no header of ours
        return []


def matches(path: Path) -> bool:
    """Whether the first line names `timestamps` and an electrode of a Muse."""
    names = {name.lower() for name in _header(path)}
    return TIME in names and bool(names & MUSE_ELECTRODES)


def read(row: SheetRow, options: ReaderOptions) -> Recording:
    """The recording in a muse-lsl CSV file.

    Raises RemitError for a file cut inside a row, a cell that is no number, NaN or infinity, two
    columns of one name, and for time stamps from which no rate can be told.
    """
    import numpy as np

    from remit.recordings.channels import canonical
    from remit.recordings.clock import measure
    from remit.recordings.recording import Recording

    path = Path(row.path)
    header = _header(path)
    by_channel: dict[str, str] = {}
    time_column = next(name for name in header if name.lower() == TIME)
    for name in header:
        channel = canonical(name) if name else None
        repeated = header.count(name) > 1 and (channel is not None or name == time_column)
        if repeated or channel in by_channel:
            raise RemitError(
                f"{path}: two columns are '{name}' ({channel or 'time'}); expected one; rename or "
                "remove one."
            )
        if channel:
            by_channel[channel] = name
    columns_S = _columns(path, header, [time_column, *by_channel.values()])
    timing = measure(columns_S[time_column], DEVICE_RATES, str(path))
    signal_CS = np.stack([columns_S[name] for name in by_channel.values()]).astype(np.float32)
    used = {time_column, *by_channel.values()}
    return Recording(
        participant=row.participant,
        recording=row.recording,
        signal_CS=signal_CS,
        sampling_rate=timing.sampling_rate,
        channels=tuple(by_channel),
        segments=timing.segments,
        prewindowed=False,
        simulated=False,
        source_sha256=sha256_of(path),
        left_out=tuple(name for name in header if name and name not in used),
        notes=timing.notes,
    )


def _columns(path: Path, header: list[str], wanted: list[str]) -> dict[str, np.ndarray]:
    """The wanted columns as finite float64 [S]."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.csv

    _check_ending(path)
    # Columns get their position as their name, for names may be empty or repeat.
    position = {name: str(header.index(name)) for name in wanted}
    try:
        table = pyarrow.csv.read_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(
                column_names=[str(index) for index in range(len(header))], skip_rows=1
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=list(position.values()),
                column_types=dict.fromkeys(position.values(), pa.float64()),
                null_values=[],
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        if path.read_bytes().count(b"\n") == 1:
            raise RemitError(
                f"{path}: holds a header and no rows; expected one row per sample; leave it out."
            ) from None
        raise _diagnosis(path, header, wanted, str(error)) from error
    columns_S = {name: table[position[name]].to_numpy() for name in wanted}
    if not table.num_rows:
        raise RemitError(
            f"{path}: holds a header and no rows; expected one row per sample; leave it out."
        )
    for name, values_S in columns_S.items():
        finite_S = np.isfinite(values_S)
        if not finite_S.all():
            first = int(np.argmin(finite_S))
            raise RemitError(
                f"{path} line {first + 2}: column {name} is {values_S[first]}, one of "
                f"{values_S.size - int(finite_S.sum())} such values; expected numbers; repair the "
                "file or leave this recording out."
            )
    return columns_S


def _check_ending(path: Path) -> None:
    """Refuse a file whose last row has no line end: it was cut, and its last number may be."""
    with path.open("rb") as opened:
        opened.seek(-1, 2)
        if opened.read(1) in b"\r\n":
            return
        opened.seek(0)
        line, last = 0, b""
        for line, last in enumerate(opened, start=1):  # noqa: B007 - the last line is wanted
            pass
    shown = last[-60:].decode("utf-8", errors="replace")
    raise RemitError(
        f"{path} line {line}: the file ends inside this row ('{shown}'); expected a line end after "
        "the last row; copy the file again, or end or remove this row if the rest is complete."
    )


def _diagnosis(path: Path, header: list[str], wanted: list[str], reason: str) -> RemitError:
    """Look for the row that the fast parser stumbled over, to name it."""
    with path.open(encoding="utf-8-sig", errors="replace") as opened:
        next(opened, None)
        for number, line in enumerate(opened, start=2):
            cells = line.rstrip("\n").split(",") if line.strip() else []
            where = f"{path} line {number}"
            if not cells:
                continue
            if len(cells) != len(header):
                return RemitError(
                    f"{where}: {len(cells)} cells; expected {len(header)} ({some_of(header)}); "
                    "repair or remove this row."
                )
            for name in wanted:
                cell = cells[header.index(name)]
                try:
                    float(cell)
                except ValueError:
                    return RemitError(
                        f"{where}: column {name} is '{cell}'; expected a number; repair or remove "
                        "this row."
                    )
    return RemitError(
        f"{path}: cannot be read as a table ({reason}); expected the CSV of muse-lsl; record or "
        "export it again."
    )


READER = Reader(
    name="Muse CSV (muse-lsl)",
    suffixes=(".csv",),
    matches=matches,
    read=read,
    expects="a first line with 'timestamps' and electrodes such as TP9, AF7",
)
