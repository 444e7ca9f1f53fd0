"""The parquet contract: windows of EEG in a file, written deterministically and verified when
opened.

One row per window, sorted Participant -> recording -> parent_window_id -> sub_window_id; one
fixed-size list of float32 µV per channel. What the numbers mean (rate, units, settings, sources)
stands as JSON under the key ``remit`` of the schema's metadata. The recordings' sketches are bytes
before the footer, which says where: most readers never need them, and what stands in the footer itself
is held five times by Arrow as long as the file is open. The windows of one recording and a primary
dataset have the same form, and this is the one reader and the one writer of both.

Shape suffixes: `W` windows, `C` channels, `S` samples.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import remit
from remit.dataset import sketches
from remit.errors import RemitError, some_of
from remit.files import atomic_write
from remit.naming import check_id
from remit.preprocessing.chain import CHANNEL_QUALITY
from remit.preprocessing.chain import RESULT_VERSION as PREPROCESSING_VERSION

if TYPE_CHECKING:
    import pandas as pd

    from remit.preprocessing.chain import Windows
    from remit.recordings.recording import Recording

# Raise when a change here alters a windows file.
RESULT_VERSION = 2

METADATA_KEY = b"remit"
SKETCHES_KEY = b"remit.sketches"  # of the footer alone: where they lie, and their SHA-256, as JSON
UNITS = "µV"
ROW_GROUP_BYTES = 64 * 2**20  # of signal, uncompressed: what a reader holds at a time

INDEX_FIELDS: tuple[tuple[str, pa.DataType], ...] = (
    ("Participant", pa.string()),
    ("Remission", pa.int8()),
    ("recording", pa.string()),
    ("parent_window_id", pa.int32()),
    ("sub_window_id", pa.int32()),
    ("window_start", pa.int64()),
    ("window_end", pa.int64()),
)
WINDOW_QUALITY: tuple[tuple[str, pa.DataType], ...] = (
    ("worn_fraction", pa.float32()),
    ("good", pa.bool_()),
    ("bad_because", pa.string()),
)
SORTED_BY = ("Participant", "recording", "parent_window_id", "sub_window_id")
_PLAIN_COLUMNS = tuple(name for name, _ in INDEX_FIELDS + WINDOW_QUALITY)
_TEXTS = tuple(name for name, kind in INDEX_FIELDS + WINDOW_QUALITY if kind == pa.string())
# Everything a file's metadata must hold.
_METADATA = (
    "channels",
    "cohort",
    "content_sha256",
    "remit_version",
    "result_version",
    "sampling_rate",
    "settings",
    "simulated",
    "sources",
    "units",
    "window_samples",
)


def schema(channels: Sequence[str], window_samples: int) -> pa.Schema:
    """The columns of the contract, in order. Only ``Remission`` may be null."""
    element = pa.field("element", pa.float32(), nullable=False)
    signal, quality = pa.list_(element, window_samples), pa.list_(element, len(channels))
    fields = [
        *INDEX_FIELDS,
        *((channel, signal) for channel in channels),
        *((name, quality) for name in CHANNEL_QUALITY),
        *WINDOW_QUALITY,
    ]
    return pa.schema([pa.field(name, kind, nullable=name == "Remission") for name, kind in fields])


def rows_per_group(channels: Sequence[str], window_samples: int) -> int:
    """How many windows at most share a row group."""
    return max(1, ROW_GROUP_BYTES // (4 * len(channels) * window_samples))


class ParquetWriter:
    """Writes row groups of the contract: the same tables give the same bytes.

    Byte-stream splitting and zstd 3 make filtered EEG 0.84 of its size, against 0.93 without the
    splitting, and are read no slower.
    """

    def __init__(
        self,
        file: Path,
        with_metadata: pa.Schema,
        channels: Sequence[str],
        sketch_by_recording: Mapping[str, np.ndarray],
    ) -> None:
        """Open ``file``; the schema carries the metadata, and each recording has a sketch."""
        self._sketches = sketches.packed(sketch_by_recording)
        self._file = pa.OSFile(str(file), "wb")
        self._writer = pq.ParquetWriter(
            self._file,
            with_metadata,
            compression="zstd",
            compression_level=3,
            use_dictionary=["Participant", "recording", "bad_because"],
            column_encoding={f"{name}.list.element": "BYTE_STREAM_SPLIT" for name in channels},
            write_statistics=list(_PLAIN_COLUMNS),
        )

    def write(self, table: pa.Table) -> None:
        """Write ``table`` as one row group."""
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))

    def __enter__(self) -> Self:
        """Enter the block that writes."""
        return self

    def __exit__(self, *_: object) -> None:
        """Write the sketches, to which no column leads, and the footer."""
        place = {
            "offset": self._file.tell(),
            "bytes": len(self._sketches),
            "sha256": hashlib.sha256(self._sketches).hexdigest(),
        }
        self._file.write(self._sketches)
        self._writer.add_key_value_metadata({SKETCHES_KEY: json.dumps(place)})
        self._writer.close()
        self._file.close()


def encode_metadata(metadata: Mapping[str, Any]) -> dict[bytes, bytes]:
    """``metadata`` as it stands in the schema: one JSON text, sorted keys."""
    text = json.dumps(metadata, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return {METADATA_KEY: text.encode()}


class ContentHash:
    """SHA-256 of what a recording's windows say: every column's bytes in row order.

    Independent of row groups, encoding, compression and the file's other metadata.
    """

    def __init__(self, channels: Sequence[str], window_samples: int, sampling_rate: float) -> None:
        """Start with no rows; ``sampling_rate`` in Hz is part of what is hashed."""
        self._fields = [(f.name, str(f.type)) for f in schema(channels, window_samples)]
        self._columns = {name: hashlib.sha256() for name, _ in self._fields}
        self._head = {"sampling_rate": float(sampling_rate), "units": UNITS}

    def update(self, table: pa.Table) -> None:
        """Take in further rows."""
        for name, column in self._columns.items():
            values = table.column(name)
            if pa.types.is_string(values.type):
                texts = "".join(f"{len(text)}:{text}" for text in values.to_pylist())
                column.update(texts.encode())
            elif pa.types.is_fixed_size_list(values.type):
                column.update(_samples(values).tobytes())
            else:
                filled = values.fill_null(-1) if values.null_count else values
                # Not to_numpy, which imports pandas; bools are packed and have no other way.
                array = (
                    np.array(filled.to_pylist(), dtype=bool)
                    if pa.types.is_boolean(filled.type)
                    else np.concatenate([np.from_dlpack(chunk) for chunk in filled.chunks])
                )
                column.update(array.astype(array.dtype.newbyteorder("<")).tobytes())

    def hexdigest(self) -> str:
        """64 hexadecimal digits."""
        columns = [[name, kind, self._columns[name].hexdigest()] for name, kind in self._fields]
        return hashlib.sha256(json.dumps([self._head, columns]).encode()).hexdigest()


def combined_hash(recordings: Mapping[tuple[str, str], str]) -> str:
    """SHA-256 of a whole dataset from the content hashes by (participant, recording)."""
    listed = [[*key, recordings[key]] for key in sorted(recordings)]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def write_windows(
    file: str | os.PathLike[str],
    windows: Windows,
    *,
    recording: Recording,
    remission: int | None,
    cohort: str,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Write the windows of one recording; returns the metadata that stands in the file.

    ``remission`` is 0, 1 or None where unknown; ``settings`` are those of the signal chain, as
    plain values. Atomic, and the same input gives the same bytes. Raises :class:`RemitError` for
    NaN or infinity, another label, and ids that cannot be file names.
    """
    name = f"participant {recording.participant}, recording {recording.recording}"
    check_id("participant", recording.participant)
    check_id("recording", recording.recording)
    if remission not in (None, 0, 1):
        raise RemitError(
            f"{name}: remission is {remission!r}; expected 0, 1 or nothing; correct the cohort "
            "sheet."
        )
    if not np.isfinite(windows.signal_WCS).all():
        raise RemitError(
            f"{name}: a window holds NaN or infinity after filtering; expected numbers in µV; look "
            "at the recording and the settings of preprocessing."
        )
    order = np.lexsort((windows.sub_window_id, windows.parent_window_id))
    num_windows, _, window_samples = windows.signal_WCS.shape
    columns: dict[str, Any] = {
        "Participant": [recording.participant] * num_windows,
        "Remission": None if remission is None else np.full(num_windows, remission),
        "recording": [recording.recording] * num_windows,
    }
    for field, _ in INDEX_FIELDS[3:] + WINDOW_QUALITY:
        columns[field] = np.asarray(getattr(windows, field))[order]
    for field in CHANNEL_QUALITY:
        columns[field] = getattr(windows, field)[order]
    sorted_already = bool((order == np.arange(num_windows)).all())
    for index, channel in enumerate(windows.channels):
        # Channels lie one after another in the chain's array, so none is copied here.
        signal_WS = windows.signal_WCS[:, index]
        columns[channel] = signal_WS if sorted_already else signal_WS[order]
    bare = schema(windows.channels, window_samples)
    arrays = [_arrow(columns[field.name], field.type, num_windows) for field in bare]
    table = pa.table(arrays, schema=bare)

    content = ContentHash(windows.channels, window_samples, windows.sampling_rate)
    content.update(table)
    raw = [recording.signal_CS[recording.channels.index(name)] for name in windows.channels]
    source = {
        "participant": recording.participant,
        "sha256": recording.source_sha256,
        "notes": [*recording.notes, *windows.notes],
        "bad_channels": list(recording.bad_channels),
        "seconds": recording.seconds,
        "left_out": list(recording.left_out),
        "dropped_seconds": windows.dropped_seconds,
        "content_sha256": content.hexdigest(),
        # Of the signal alone: the same for a copy under another name, label or file header.
        "signal_sha256": _signal_sha256(windows.signal_WCS, order),
        # Of the samples before any filter: the same whatever reference and mains were found.
        "samples_sha256": _samples_sha256(raw),
        "quality": windows.summary(),
    }
    metadata = {
        "sampling_rate": float(windows.sampling_rate),
        "units": UNITS,
        "channels": list(windows.channels),
        "window_samples": window_samples,
        "cohort": cohort,
        "simulated": bool(recording.simulated),
        "settings": dict(settings),
        "sources": {recording.recording: source},
        "content_sha256": combined_hash(
            {(recording.participant, recording.recording): content.hexdigest()}
        ),
        "remit_version": remit.__version__,
        "result_version": {"preprocessing": PREPROCESSING_VERSION},
    }
    metadata = dict(json.loads(encode_metadata(metadata)[METADATA_KEY]))
    most = rows_per_group(windows.channels, window_samples)
    with (
        atomic_write(file) as temporary,
        ParquetWriter(
            temporary,
            bare.with_metadata(encode_metadata(metadata)),
            windows.channels,
            # Of the samples that `samples_sha256` is of: for a piece of them, or other channels.
            {recording.recording: sketches.sketch(raw)},
        ) as writer,
    ):
        for first in range(0, num_windows, most):
            writer.write(table.slice(first, most))
    return metadata


def _arrow(values: Any, kind: pa.DataType, rows: int) -> pa.Array:
    """Values as an arrow array of a type of the contract; None is all null.

    From buffers, for `pa.array` imports pandas to see whether it is given something of it, and that
    takes longer than everything else here.
    """
    if values is None:
        return pa.nulls(rows, kind)
    if pa.types.is_string(kind):
        encoded = [str(text).encode() for text in values]
        offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
        return pa.StringArray.from_buffers(
            rows, pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded))
        )
    if pa.types.is_fixed_size_list(kind):
        flat = np.ascontiguousarray(values, dtype=np.float32).ravel()
        inner = pa.Array.from_buffers(pa.float32(), flat.size, [None, pa.py_buffer(flat)])
        return pa.FixedSizeListArray.from_arrays(inner, type=kind)
    if pa.types.is_boolean(kind):
        bits = np.packbits(np.asarray(values, dtype=bool), bitorder="little")
    else:
        letter = "f" if pa.types.is_floating(kind) else "i"
        bits = np.ascontiguousarray(values, dtype=f"{letter}{kind.bit_width // 8}")
    return pa.Array.from_buffers(kind, rows, [None, pa.py_buffer(bits)])


def kept_text(source: Mapping[str, Any]) -> str:
    """How much of a recording is used, and why the rest is not, of ``sources`` in the metadata."""
    quality = source["quality"]
    why = ", ".join(f"{reason} {count}" for reason, count in quality["bad_windows_because"].items())
    return (
        f"kept {quality['good_seconds']:.0f} of {source['seconds']:.0f} s, "
        f"{quality['good_windows']} of {quality['windows']} windows"
        + (f" (bad: {why})" if why else "")
    )


def _signal_sha256(signal_WCS: np.ndarray, order: np.ndarray) -> str:
    running = hashlib.sha256()
    for window in order:
        running.update(np.ascontiguousarray(signal_WCS[window]).data)
    return running.hexdigest()


def _samples_sha256(rows: Sequence[np.ndarray]) -> str:
    running = hashlib.sha256()
    for row_S in rows:
        running.update(np.ascontiguousarray(row_S).data)
    return running.hexdigest()


def read_metadata(file: str | os.PathLike[str]) -> dict[str, Any]:
    """What the file says of itself (rate, units, channels, settings, sources, hashes, versions).

    Reads the footer alone. Raises :class:`RemitError` for a file that is not remit's.
    """
    return _metadata_of(_parquet(file), Path(file))


def open_dataset(file: str | os.PathLike[str]) -> WindowsFile:
    """Open a windows file or a primary dataset after checking all of it against the contract.

    Reads every row group once, one at a time. Raises :class:`RemitError` naming the file for a
    missing or mistyped column, windows out of order, NaN or infinity, a participant with two
    labels, a recording of two participants, and contents that differ from the stored hash.
    """
    path = Path(file)
    parquet = _parquet(path)
    metadata = _metadata_of(parquet, path)
    if metadata["units"] != UNITS:
        raise RemitError(
            f"{path}: units is {metadata['units']}; expected {UNITS}; make the file again from the "
            "recordings."
        )
    _check_schema(parquet.schema_arrow, metadata, path)
    plain = []
    hashes: dict[tuple[str, str], str] = {}
    running: dict[tuple[str, str], ContentHash] = {}  # of the recording that is being read
    for group in range(parquet.num_row_groups):
        table = _read_group(parquet, group, path)
        _check_values(table, metadata["channels"], path)
        plain.append(_coded(table.select(_PLAIN_COLUMNS)))
        for first, length in _runs(plain[-1]):
            key = tuple(plain[-1].column(name)[first].as_py() for name in SORTED_BY[:2])
            if key not in running:
                hashes |= {before: content.hexdigest() for before, content in running.items()}
                running = {
                    key: ContentHash(
                        metadata["channels"], metadata["window_samples"], metadata["sampling_rate"]
                    )
                }
            running[key].update(table.slice(first, length))
        del table  # before the next one is read
    hashes |= {last: content.hexdigest() for last, content in running.items()}
    if not sum(map(len, plain)):
        raise RemitError(f"{path}: holds no windows; expected at least one; make the file again.")
    frame = pa.concat_tables(plain).unify_dictionaries().to_pandas()
    del plain
    for name in _TEXTS:  # so that codes are in the order of the texts
        frame[name] = frame[name].cat.reorder_categories(sorted(frame[name].cat.categories))
    _check_order(frame, path)
    labels = _labels(frame, path)
    owners: dict[str, str] = {}
    for participant, recording in hashes:
        if owners.setdefault(recording, participant) != participant:
            raise RemitError(
                f"{path}: recording {recording} belongs to participants {owners[recording]} and "
                f"{participant}; expected one; give every recording an id of its own."
            )
    if combined_hash(hashes) != metadata["content_sha256"]:
        raise RemitError(
            f"{path}: the windows differ from the hash written with them "
            f"({combined_hash(hashes)[:12]} against {metadata['content_sha256'][:12]}); expected "
            "an unchanged file; make it again."
        )
    return WindowsFile(path, metadata, labels, hashes, parquet, frame)


def row_groups(file: str | os.PathLike[str]) -> Iterator[pa.Table]:
    """The rows of a file that was checked before, in order, one row group in memory at a time."""
    path = Path(file)
    parquet = _parquet(path)
    for group in range(parquet.num_row_groups):
        yield _read_group(parquet, group, path)


@dataclass(frozen=True, eq=False)
class WindowsFile:
    """A verified windows file or primary dataset; made by :func:`open_dataset`."""

    path: Path
    metadata: dict[str, Any]
    labels: dict[str, int | None]
    """Remission by participant, in the order of the file; None where unknown"""
    content_sha256: dict[tuple[str, str], str]
    """By (participant, recording)"""
    _parquet: pq.ParquetFile
    _frame: pd.DataFrame
    """As :meth:`frame`, but texts are codes: a window costs 33 bytes, however long its names"""

    @property
    def participants(self) -> list[str]:
        """Participants in the order of the file."""
        return list(self.labels)

    @property
    def channels(self) -> list[str]:
        """Channel names in the order of the columns."""
        return list(self.metadata["channels"])

    @property
    def sampling_rate(self) -> float:
        """Hz."""
        return float(self.metadata["sampling_rate"])

    def __len__(self) -> int:
        """Number of windows."""
        return len(self._frame)

    def sketches(self) -> dict[str, np.ndarray]:
        """The sketch of each recording (uint64 ``[values]``), read anew with each call."""
        try:
            place = json.loads(self._parquet.metadata.metadata[SKETCHES_KEY])
            if not 0 <= place["bytes"] <= self.path.stat().st_size:
                raise ValueError(place["bytes"])
            with self.path.open("rb") as file:
                file.seek(place["offset"])
                data = file.read(place["bytes"])
            if hashlib.sha256(data).hexdigest() != place["sha256"]:
                raise ValueError("other bytes")
            return sketches.unpacked(data, self.metadata["sources"])
        except (ValueError, TypeError, KeyError, OSError):
            raise RemitError(
                f"{self.path}: its sketches are not there, or not those of its recordings; expected one "
                "of each, as they were written; make the file again."
            ) from None

    def frame(self, columns: Sequence[str] = _PLAIN_COLUMNS) -> pd.DataFrame:
        """One value per window of columns other than signal and quality by channel, in file order.

        ``Remission`` is int8, or float64 with NaN where some are unknown; see :attr:`labels`.
        """
        return self._frame[list(columns)].astype(
            {name: self._frame[name].cat.categories.dtype for name in _TEXTS if name in columns}
        )

    def coded(self, name: str) -> tuple[np.ndarray, list[str]]:
        """A column of texts as codes by window, and the texts that these stand for, sorted."""
        codes = self._frame[name].cat
        return codes.codes.to_numpy(), list(codes.categories)

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The whole file, or some columns of it, as an arrow table."""
        if columns is not None:
            known = self._parquet.schema_arrow.names
            missing = [name for name in columns if name not in known]
            if missing:
                raise RemitError(
                    f"{self.path}: has no column {some_of(missing)}; expected one of "
                    f"{some_of(known, 40)}."
                )
        return self._parquet.read(columns=None if columns is None else list(columns))

    def quality_WC(self, name: str) -> np.ndarray:
        """One of :data:`CHANNEL_QUALITY`, float32 ``[windows, channels]``; NaN where not known."""
        column = self.table([name]).column(name)
        return _samples(column).reshape(-1, len(self.channels))

    def check_there(self, participants: Iterable[str]) -> None:
        """Raise :class:`RemitError` for participants who are not in the file."""
        missing = sorted(set(participants) - set(self.labels))
        if missing:
            raise RemitError(
                f"{self.path}: has no participant {some_of(missing)}; expected some of "
                f"{some_of(self.labels)}; check the split against the dataset."
            )

    def signal_WCS(self, participants: Iterable[str] | None = None) -> np.ndarray:
        """The signal in float32 µV ``[windows, channels, samples]``, in the order of the file.

        With ``participants`` only theirs (still in the order of the file), and only the row groups
        that hold them are read, one at a time. Raises :class:`RemitError` for one that is not
        there.
        """
        wanted = np.ones(len(self._frame), dtype=bool)
        if participants is not None:
            chosen = set(participants)
            self.check_there(chosen)
            wanted = self._frame["Participant"].isin(chosen).to_numpy()
        row_W = np.flatnonzero(wanted)
        out_WCS = np.empty(
            (len(row_W), len(self.channels), self.metadata["window_samples"]), dtype=np.float32
        )
        self.read_into(out_WCS, row_W)
        return out_WCS

    @property
    def group_ends(self) -> np.ndarray:
        """The row after the last one of each row group."""
        footer = self._parquet.metadata
        sizes = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
        return np.cumsum(sizes, dtype=np.int64)

    def read_into(self, out_WCS: np.ndarray, row_W: np.ndarray) -> None:
        """Put the signal of some rows, given in ascending order, into ``out_WCS``, in float32 µV.

        Reads the row groups that hold them, one at a time.
        """
        end_G = self.group_ends
        for group in np.unique(np.searchsorted(end_G, row_W, side="right")).tolist():
            begin, end = int(end_G[group - 1]) if group else 0, int(end_G[group])
            first, stop = np.searchsorted(row_W, [begin, end])
            inside = row_W[first:stop] - begin
            table = _read_group(self._parquet, group, self.path, self.channels)
            whole = len(inside) == end - begin
            for index, channel in enumerate(self.channels):
                samples_WS = _samples(table.column(channel)).reshape(end - begin, -1)
                out_WCS[first:stop, index] = samples_WS if whole else samples_WS[inside]
            del table, samples_WS  # before the next one is read


def _samples(column: pa.ChunkedArray) -> np.ndarray:
    """All samples of a column of fixed-size lists, flat, without a copy where it is one chunk."""
    # Not flatten, which imports pyarrow.compute, nor to_numpy, which imports pandas.
    size = column.type.list_size
    chunks = [
        np.from_dlpack(chunk.values.slice(chunk.offset * size, len(chunk) * size))
        for chunk in column.chunks
    ]
    return chunks[0] if len(chunks) == 1 else np.concatenate([np.empty(0, np.float32), *chunks])


def _parquet(file: str | os.PathLike[str]) -> pq.ParquetFile:
    path = Path(file)
    try:
        # Unless told otherwise it keeps the compressed row group that was read last.
        return pq.ParquetFile(path, pre_buffer=False)
    except FileNotFoundError:
        raise RemitError(
            f"{path}: is not there; expected a windows file; check the path."
        ) from None
    except (OSError, pa.ArrowException) as error:
        raise RemitError(
            f"{path}: cannot be read as parquet ({str(error).splitlines()[0]}); expected a windows "
            "file of remit; make it again."
        ) from None


def _read_group(
    parquet: pq.ParquetFile, group: int, path: Path, columns: list[str] | None = None
) -> pa.Table:
    try:
        return parquet.read_row_group(group, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise RemitError(
            f"{path}: row group {group} cannot be read ({str(error).splitlines()[0]}); expected an "
            "unharmed file; make it again."
        ) from None


def _metadata_of(parquet: pq.ParquetFile, path: Path) -> dict[str, Any]:
    stored = (parquet.schema_arrow.metadata or {}).get(METADATA_KEY)
    try:
        metadata = json.loads(stored) if stored is not None else None
    except ValueError:
        metadata = None
    if not isinstance(metadata, dict):
        raise RemitError(
            f"{path}: the schema holds no 'remit' metadata (columns: "
            f"{some_of(parquet.schema_arrow.names, 20)}); expected a windows file written by "
            "remit; make it from the recordings."
        )
    missing = [key for key in _METADATA if key not in metadata]
    if missing:
        raise RemitError(
            f"{path}: the metadata lacks {some_of(missing)}; expected {some_of(_METADATA, 20)}; "
            "make the file again with this version."
        )
    if SKETCHES_KEY not in (parquet.metadata.metadata or {}):
        raise RemitError(
            f"{path}: the footer holds no sketches of the recordings; expected one of each, as copies are "
            "found by them; make the file again with this version."
        )
    return metadata


def _check_schema(found: pa.Schema, metadata: Mapping[str, Any], path: Path) -> None:
    expected = schema(metadata["channels"], metadata["window_samples"])
    for field in expected:
        if field.name not in found.names:
            raise RemitError(
                f"{path}: column '{field.name}' is missing; found {some_of(found.names, 40)}; "
                "expected the columns of the windows contract; make the file again."
            )
        kind = found.field(field.name).type
        if not kind.equals(field.type):
            raise RemitError(
                f"{path}: column '{field.name}' has type {kind}; expected {field.type}; make the "
                "file again."
            )
    if found.names != expected.names:
        raise RemitError(
            f"{path}: the columns are {some_of(found.names, 40)}; expected "
            f"{some_of(expected.names, 40)} in this order; make the file again."
        )


def _check_values(table: pa.Table, channels: Sequence[str], path: Path) -> None:
    for name in table.column_names:
        if name != "Remission" and table.column(name).null_count:
            raise RemitError(
                f"{path}: column '{name}' has {table.column(name).null_count} empty values; "
                "expected none; make the file again."
            )
    for channel in channels:
        samples_WS = _samples(table.column(channel)).reshape(table.num_rows, -1)
        finite = np.isfinite(samples_WS)
        if not finite.all():
            row = int(np.flatnonzero(~finite.all(axis=1))[0])
            raise RemitError(
                f"{path}: participant {table.column('Participant')[row]}, recording "
                f"{table.column('recording')[row]}: channel {channel} holds NaN or infinity in "
                "window "
                f"{table.column('parent_window_id')[row]}/{table.column('sub_window_id')[row]}; "
                "expected numbers in µV; make the file again from a repaired recording."
            )


def _coded(table: pa.Table) -> pa.Table:
    """A table whose columns of texts are codes and the texts that they stand for."""
    for name in _TEXTS:
        coded = table.column(name).dictionary_encode()
        table = table.set_column(table.column_names.index(name), name, coded)
    return table


def _runs(coded: pa.Table) -> list[tuple[int, int]]:
    """(first row, number of rows) of each stretch of rows of one recording."""
    keys_2W = np.stack([coded.column(n).combine_chunks().indices.to_numpy() for n in SORTED_BY[:2]])
    changes_W = (np.diff(keys_2W, axis=1, prepend=-1) != 0).any(axis=0)
    first = np.flatnonzero(changes_W)
    return list(zip(first.tolist(), np.diff(np.append(first, len(coded))).tolist(), strict=True))


def _check_order(frame: pd.DataFrame, path: Path) -> None:
    """Rows must strictly increase in the sort columns, so no window is given twice either."""
    increases = np.zeros(len(frame) - 1, dtype=bool)
    for name in reversed(SORTED_BY):
        codes = (frame[name].cat.codes if name in _TEXTS else frame[name]).to_numpy()
        increases = (codes[1:] > codes[:-1]) | ((codes[1:] == codes[:-1]) & increases)
    if not increases.all():
        row = int(np.flatnonzero(~increases)[0]) + 1
        before, here = (
            "/".join(str(frame[name].iloc[index]) for name in SORTED_BY) for index in (row - 1, row)
        )
        raise RemitError(
            f"{path}: windows out of order: row {row} is {here} and comes after {before}; expected "
            f"rows sorted by {' -> '.join(SORTED_BY)}, each once; make the file again."
        )


def _labels(frame: pd.DataFrame, path: Path) -> dict[str, int | None]:
    import pandas as pd

    labels: dict[str, int | None] = {}
    pairs = frame[["Participant", "Remission"]].drop_duplicates()
    for participant, value in pairs.itertuples(index=False):
        label = None if pd.isna(value) else int(value)
        if participant in labels:
            raise two_labels(participant, labels[participant], label, str(path))
        if label not in (None, 0, 1):
            raise RemitError(
                f"{path}: participant {participant} has the label {label}; expected 0, 1 or none; "
                "correct the cohort sheet."
            )
        labels[participant] = label
    return labels


def two_labels(participant: str, one: int | None, other: int | None, where: str) -> RemitError:
    """The error for a participant with two labels."""
    shown = " and ".join("none" if label is None else str(label) for label in (one, other))
    return RemitError(
        f"{where}: participant {participant} has two labels, {shown}; expected one; correct the "
        "cohort sheet."
    )
