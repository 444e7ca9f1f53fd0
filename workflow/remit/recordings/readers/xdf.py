"""XDF, as LabRecorder and other programs of the Lab Streaming Layer write it, through pyxdf.

Traps: pyxdf reads a file that was cut as far as it gets, with a line in its log at most; of a
sample that is cut in the middle it gives the rest of the sample before; it believes a chunk's
number of samples before it looks at its size. So the chunks are walked through first, and what
pyxdf gives is counted against them. The nominal rate is what a program's author typed in; the real
one is measured from the raw time stamps (pyxdf's dejittering would draw a straight line through
everything up to a second). XDF 1.0: github.com/sccn/xdf/wiki/Specifications.
"""

from __future__ import annotations

import gzip
import io
import logging
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from remit.errors import RemitError, did_you_mean, some_of
from remit.files import sha256_of
from remit.recordings.cohort import SheetRow
from remit.recordings.registry import Entry, Reader, ReaderOptions
from remit.recordings.through_mne import stated_references, unused

if TYPE_CHECKING:
    import numpy as np

    from remit.recordings.recording import Recording

MAGIC = b"XDF:"
GZIP = b"\x1f\x8b"
EEG = "eeg"  # a stream's type, in lower case
SAMPLE_BYTES = {"double64": 8, "float32": 4, "int64": 8, "int32": 4, "int16": 2, "int8": 1}
# What channels say that they are where they are no EEG.
OTHER_TYPES = {
    *("aux", "misc", "ecg", "ekg", "eog", "emg", "gsr", "ppg", "acc", "accelerometer", "gyro"),
    *("marker", "markers", "trigger", "trig", "stim", "counter", "battery", "quality", "imu"),
}
# Rates that devices really have, for a stream that states none.
COMMON_RATES = (125.0, 128.0, 200.0, 220.0, 250.0, 256.0, 300.0, 500.0, 512.0, 1000.0, 1024.0)
NOTED_DIFFERENCE, REFUSED_DIFFERENCE = 0.01, 0.1  # of the measured rate from the nominal one
_HEADER, _STREAM, _SAMPLES, _OFFSET, _FOOTER = 1, 2, 3, 4, 6  # tags of chunks
_LARGEST_XML = 1 << 26
_LARGEST_RATIO = 200  # of unpacked to packed bytes; EEG shrinks to a half or a third
_PIECE = 1 << 20


@dataclass
class _Stream:
    """A stream's header, and what the walk over the chunks counts of it."""

    number: int
    name: str
    kind: str
    source_id: str
    channels: int
    form: str
    nominal: float
    samples: int = 0
    closed: bool = False
    promised: int | None = None  # samples, by its footer

    def __str__(self) -> str:
        return (
            f"'{self.name}' (type {self.kind or 'none'}, {self.channels} channels, "
            f"{self.nominal:g} Hz)"
        )


@dataclass
class _Walk:
    """What the chunks say: the streams by number, and where the last whole chunk ends."""

    streams: dict[int, _Stream] = field(default_factory=dict)
    end: int = 0
    cut: str = ""  # how the file was cut, if it was


class _Errors(logging.Handler):
    """Keeps what pyxdf logs as an error while it goes on reading."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def matches(path: Path) -> bool:
    """Whether the first bytes are those of XDF, packed by gzip or not."""
    with path.open("rb") as opened:
        start = opened.read(4)
    if not start.startswith(GZIP):
        return start == MAGIC
    try:
        with gzip.open(path, "rb") as unpacked:
            return unpacked.read(4) == MAGIC
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return False


def entries(path: Path, options: ReaderOptions) -> list[Entry]:
    """The file's one EEG stream, of the participant that the file is named for.

    Raises RemitError for none, and for several: whether they are one person's or several people's
    is not in the file.
    """
    opened, size, _ = _opened(path)
    with opened:
        stream = _chosen(path, _walk(path, opened, size), None)
    participant = path.name
    for suffix in READER.suffixes:
        if participant.lower().endswith(suffix):
            participant = participant[: -len(suffix)]
    return [Entry(stream.name, participant, None)]


def read(row: SheetRow, options: ReaderOptions) -> Recording:
    """The EEG stream of an XDF file: the only one, or the one that the row's entry names.

    Raises RemitError for no or several such streams, a cut file, a stream that was never closed or
    has fewer samples than its footer says (unless `allow_truncated`), a stream without labels, and
    for time stamps from which no rate can be told.
    """
    import numpy as np

    from remit.recordings.clock import measure
    from remit.recordings.missing import without_missing
    from remit.recordings.recording import Recording

    path = Path(row.path)
    opened, size, cut = _opened(path)
    with opened:
        walk = _walk(path, opened, size)
        walk.cut = walk.cut or cut
        stream = _chosen(path, walk, row.entry)
        notes = _check_whole(path, walk, stream, options)
        if walk.cut:
            opened.seek(0)
            opened = io.BytesIO(opened.read(walk.end))
        loaded = _loaded(path, opened, stream)
    where = f"{path}: stream '{stream.name}'"
    timing = _timing(where, stream, loaded["time_stamps"], measure)
    notes += [*timing.notes, *unused(options, rate=timing.sampling_rate)]
    if stream.nominal and abs(timing.sampling_rate / stream.nominal - 1) > NOTED_DIFFERENCE:
        notes.append(
            f"The stream's nominal rate is {stream.nominal:g} Hz; the measured one is used."
        )
    rows, channels, units, left_out, said = _electrodes(where, stream, loaded["info"], options)
    notes += said
    present = without_missing(
        loaded["time_series"].T[rows], channels, timing.segments, timing.sampling_rate, where
    )
    gone = [name for row, name in enumerate(channels) if row not in present.rows]
    channels = tuple(channels[row] for row in present.rows)
    units = [units[row] for row in present.rows]
    notes += present.notes
    signal_CS, said = _microvolts(
        where, present.signal_CS, channels, units, timing.sampling_rate, options
    )
    notes += said
    others = [other for other in walk.streams.values() if other is not stream]
    if others:
        notes.append(f"Other streams are not used: {some_of(map(str, others), 20)}.")
    return Recording(
        participant=row.participant,
        recording=row.recording,
        signal_CS=np.ascontiguousarray(signal_CS, dtype=np.float32),
        sampling_rate=timing.sampling_rate,
        channels=channels,
        segments=present.segments,
        prewindowed=False,
        simulated=False,
        source_sha256=sha256_of(path),
        left_out=(*left_out, *gone, *(other.name for other in others)),
        notes=tuple(notes),
    )


def _opened(path: Path) -> tuple[IO[bytes], int, str]:
    """The file's bytes, unpacked where they are packed; their number; how the packing was cut."""
    with path.open("rb") as file:
        packed = file.read(2) == GZIP
    if not packed:
        return path.open("rb"), path.stat().st_size, ""
    most = _LARGEST_RATIO * path.stat().st_size + _PIECE
    whole = io.BytesIO()
    cut = ""
    try:
        with gzip.open(path, "rb") as unpacked:
            while piece := unpacked.read1(_PIECE):  # read() would lose what precedes a cut
                whole.write(piece)
                if whole.tell() > most:
                    raise RemitError(
                        f"{path}: unpacks to more than {_LARGEST_RATIO} times its size; expected "
                        "EEG, which never does; unpack it by hand and look at it."
                    )
    except EOFError:
        cut = "the gzip file ends before its end mark"
    except (gzip.BadGzipFile, zlib.error) as error:
        raise _damaged(path, f"gzip cannot unpack it ({error})") from None
    size = whole.tell()
    whole.seek(0)
    return whole, size, cut


def _walk(path: Path, opened: IO[bytes], size: int) -> _Walk:
    """Go from chunk to chunk; samples are counted, not read. Raises RemitError for nonsense."""
    walk = _Walk(end=len(MAGIC))
    opened.seek(len(MAGIC))
    while (place := opened.tell()) < size:
        walk.end = place
        walk.cut = f"it is cut inside the chunk at byte {place}"
        length = _length(path, opened)
        content = opened.tell()
        if length is None or content + length > size:
            return walk
        head = opened.read(min(length, 6))
        if len(head) < 2:
            raise _damaged(path, f"the chunk at byte {place} has {length} bytes")
        tag = int.from_bytes(head[:2], "little")
        if tag in (_STREAM, _SAMPLES, _OFFSET, _FOOTER):
            if len(head) < 6:
                raise _damaged(path, f"the chunk at byte {place} has {length} bytes")
            number = int.from_bytes(head[2:6], "little")
            _one_chunk(path, walk, opened, place, tag, number, length - 6)
        elif tag == _HEADER:
            opened.seek(content + 2)
            _xml(path, opened, place, length - 2)
        opened.seek(content + length)
        walk.end, walk.cut = content + length, ""
    return walk


def _one_chunk(
    path: Path, walk: _Walk, opened: IO[bytes], place: int, tag: int, number: int, length: int
) -> None:
    """A chunk that belongs to a stream; `length` is that of its content after the number."""
    if tag == _STREAM:
        if number in walk.streams:
            raise _damaged(path, f"at byte {place} is a second header of stream {number}")
        walk.streams[number] = _header(path, number, _xml(path, opened, place, length))
        return
    if number not in walk.streams:
        raise _damaged(path, f"the chunk at byte {place} is of stream {number}, without a header")
    stream = walk.streams[number]
    if tag == _FOOTER:
        stream.closed = True
        count = _xml(path, opened, place, length).findtext("sample_count") or ""
        stream.promised = int(count) if count.strip().isdigit() else None
    elif tag == _OFFSET and length != 16:
        raise _damaged(path, f"the clock offset at byte {place} has {length} bytes")
    elif tag == _SAMPLES:
        before = opened.tell()
        samples = _length(path, opened)
        left = length - (opened.tell() - before)
        if samples is None or left < 0:
            raise _damaged(path, f"the chunk at byte {place} has no number of samples")
        each = stream.channels * SAMPLE_BYTES.get(stream.form, 0)
        # A time stamp takes one byte where it is left out and nine where it is there.
        numeric = stream.form in SAMPLE_BYTES
        if samples * (each + 1) > left or (numeric and samples * (each + 9) < left):
            raise _damaged(
                path, f"the chunk at byte {place} has {left} bytes for {samples} samples"
            )
        stream.samples += samples


def _length(path: Path, opened: IO[bytes]) -> int | None:
    """A number of 1, 4 or 8 bytes, after a byte that says of how many; None at the file's end."""
    place = opened.tell()
    count = opened.read(1)
    if not count:
        return None
    if count[0] not in (1, 4, 8):
        raise _damaged(path, f"at byte {place} stands {count[0]} where the size of a length is due")
    number = opened.read(count[0])
    return int.from_bytes(number, "little") if len(number) == count[0] else None


def _xml(path: Path, opened: IO[bytes], place: int, length: int) -> Any:
    """The XML of a header or footer; one that defines entities is refused."""
    from xml.etree import ElementTree

    if length > _LARGEST_XML:
        raise _damaged(path, f"the header at byte {place} has {length} bytes")
    text = opened.read(length)
    # A header of LSL has no document type; one could make a few bytes into gigabytes.
    if b"<!doctype" in text.replace(b"\0", b"").lower():
        raise _damaged(path, f"the header at byte {place} declares a document type")
    try:
        return ElementTree.fromstring(text.decode("utf-8", "replace"))
    except ElementTree.ParseError as error:
        raise _damaged(path, f"the header at byte {place} is no XML ({error})") from None


def _header(path: Path, number: int, xml: Any) -> _Stream:
    said = {name: (xml.findtext(name) or "").strip() for name in ("name", "type", "source_id")}
    try:
        channels = int(xml.findtext("channel_count") or "")
        nominal = float(xml.findtext("nominal_srate") or "")
    except ValueError:
        channels, nominal = -1, 0.0
    if channels < 0 or not 0 <= nominal < 1e9:
        raise _damaged(path, f"stream {number} states no number of channels or no nominal rate")
    return _Stream(
        number=number,
        name=said["name"],
        kind=said["type"],
        source_id=said["source_id"],
        channels=channels,
        form=(xml.findtext("channel_format") or "").strip(),
        nominal=nominal,
    )


def _damaged(path: Path, what: str) -> RemitError:
    return RemitError(f"{path}: is damaged: {what}; expected sound XDF; copy it again.")


def _chosen(path: Path, walk: _Walk, entry: str | None) -> _Stream:
    streams = list(walk.streams.values())
    listed = some_of(map(str, streams), 20)
    if not streams:
        why = f" ({walk.cut})" if walk.cut else ""
        raise RemitError(f"{path}: holds no stream{why}; expected one of type EEG; leave it out.")
    if entry is None:
        found = [stream for stream in streams if stream.kind.lower() == EEG]
        if not found:
            raise RemitError(
                f"{path}: has no stream of type EEG; it has {listed}; expected one; name the "
                "stream as the entry in the cohort sheet, or leave the file out."
            )
        if len(found) > 1:
            ids = some_of(f"'{stream.name}' ({stream.source_id or 'no id'})" for stream in found)
            raise RemitError(
                f"{path}: has {len(found)} streams of type EEG: {ids}; expected one; set the entry "
                "in the cohort sheet to a stream's name or source_id."
            )
    else:
        found = [stream for stream in streams if entry in (stream.name, stream.source_id)]
        if not found:
            names = [stream.name for stream in streams]
            raise RemitError(
                f"{path}: has no stream '{entry}'; it has {listed}; expected a stream's name or "
                f"source_id; correct the entry in the cohort sheet.{did_you_mean(entry, names)}"
            )
        if len(found) > 1:
            ids = some_of(stream.source_id or "none" for stream in found)
            raise RemitError(
                f"{path}: {len(found)} streams are called '{entry}', with the source_ids {ids}; "
                "expected one; set the entry in the cohort sheet to a source_id."
            )
    stream = found[0]
    if stream.form not in SAMPLE_BYTES:
        raise RemitError(
            f"{path}: the samples of stream {stream} are {stream.form or 'of no stated format'}; "
            "expected numbers; choose another stream."
        )
    return stream


def _check_whole(path: Path, walk: _Walk, stream: _Stream, options: ReaderOptions) -> list[str]:
    """Refuse a cut file unless that is allowed; then what is to be said of it."""
    lacking = [walk.cut] if walk.cut else []
    if not stream.closed:
        lacking.append(f"stream '{stream.name}' has no footer, so was never closed")
    elif stream.promised is not None and stream.promised > stream.samples:
        lacking.append(
            f"stream '{stream.name}' has {stream.samples} of the {stream.promised} samples that "
            "its footer says"
        )
    if lacking and not options.allow_truncated:
        raise RemitError(
            f"{path}: is not whole: {'; '.join(lacking)}; expected a file that was closed by its "
            "recorder; copy it again, or set allow_truncated: true to use what is there."
        )
    if not stream.samples:
        raise RemitError(
            f"{path}: stream '{stream.name}' holds no samples; expected some; leave this recording "
            "out."
        )
    if not lacking:
        return []
    return [f"The file is not whole ({'; '.join(lacking)}); its whole chunks are used."]


def _loaded(path: Path, opened: IO[bytes], stream: _Stream) -> dict[str, Any]:
    """The stream as pyxdf gives it: raw time stamps [S], samples [S, C]."""
    import pyxdf

    opened.seek(0)
    logger = logging.getLogger("pyxdf")
    errors = _Errors()
    propagated = logger.propagate
    logger.addHandler(errors)
    logger.propagate = False
    try:
        streams, _ = pyxdf.load_xdf(
            opened,
            select_streams=[stream.number],
            synchronize_clocks=False,
            dejitter_timestamps=False,
        )
    except Exception as error:  # pyxdf raises many kinds for a damaged file
        raise RemitError(
            f"{path}: pyxdf cannot read it ({type(error).__name__}: {error}); expected sound XDF; "
            "copy it again."
        ) from error
    finally:
        logger.removeHandler(errors)
        logger.propagate = propagated
    loaded: dict[str, Any] = next(
        (found for found in streams if found["info"]["stream_id"] == stream.number), {}
    )
    there = len(loaded["time_stamps"]) if loaded else 0
    if errors.said or there != stream.samples:
        why = f" ({errors.said[0]})" if errors.said else ""
        what = f"pyxdf reads {there} of {stream.samples} samples{why}"
        raise _damaged(path, what)
    return loaded


def _timing(where: str, stream: _Stream, stamps_S: np.ndarray, measure: Any) -> Any:
    import numpy as np

    if not np.isfinite(stamps_S).all():
        raise RemitError(
            f"{where}: {int((~np.isfinite(stamps_S)).sum())} time stamps are no numbers; expected "
            "seconds; leave this recording out."
        )
    timing = measure(stamps_S, (stream.nominal,) if stream.nominal else COMMON_RATES, where)
    if stream.nominal:
        off = abs(timing.sampling_rate / stream.nominal - 1)
        if off > REFUSED_DIFFERENCE:
            raise RemitError(
                f"{where}: the time stamps give {timing.sampling_rate:.4g} Hz, its nominal rate is "
                f"{stream.nominal:g} Hz; expected them within {REFUSED_DIFFERENCE:.0%}; samples "
                "are missing evenly, or a rate is wrong; record it again."
            )
    return timing


def _first(fields: Any, name: str) -> Any:
    """The first of the values that pyxdf gives for an XML tag, or None."""
    values = fields.get(name) if hasattr(fields, "get") else None
    return values[0] if values else None


def _channels(info: Any) -> list[dict[str, str]]:
    """Label, unit and type of each channel, '' where one is not stated."""
    listed = _first(_first(info, "desc"), "channels")
    channels = listed.get("channel", []) if hasattr(listed, "get") else []
    return [
        {name: str(_first(channel, name) or "").strip() for name in ("label", "unit", "type")}
        for channel in channels
    ]


def _electrodes(
    where: str, stream: _Stream, info: Any, options: ReaderOptions
) -> tuple[list[int], tuple[str, ...], list[str], list[str], list[str]]:
    """Columns of the electrodes, their 10-10 names and units; names left out; notes."""
    from remit.recordings.channels import electrodes
    from remit.recordings.units import COUNTS, UNSTATED, parse

    described = _channels(info)
    notes = []
    named = any(channel["label"] for channel in described)
    if not named:
        if not options.channel_names:
            raise RemitError(
                f"{where}: states no labels for its {stream.channels} channels; expected them; set "
                "channel_names in the cohort sheet or cohorts.<name>.channel_names, in its order."
            )
        plain = described if len(described) == stream.channels else [{}] * stream.channels
        if len(options.channel_names) == stream.channels:
            described = [
                {"unit": "", "type": "", **channel, "label": name}
                for channel, name in zip(plain, options.channel_names, strict=True)
            ]
            notes.append("The stream states no labels; channel_names are used.")
        else:
            described = [{"label": name} for name in options.channel_names]
    if len(described) != stream.channels:
        raise RemitError(
            f"{where}: {len(described)} channel labels for {stream.channels} channels; expected one "
            "each; correct the labels or channel_names."
        )
    rows: dict[str, int] = {}
    units, left_out = [], []
    found = electrodes([channel["label"] for channel in described])
    for index, (channel, electrode) in enumerate(zip(described, found, strict=True)):
        label, unit = channel["label"], channel["unit"]
        if channel["type"].lower() in OTHER_TYPES:
            electrode = None
        unknown = unit.lower() not in UNSTATED | COUNTS and parse(unit) is None
        if electrode is not None and unknown:
            notes.append(f"Channel {label} is left out: its unit '{unit}' is no voltage.")
        if electrode is None or unknown:
            left_out.append(label or f"channel {index + 1}")
            continue
        if electrode in rows:
            first = described[rows[electrode]]["label"]
            raise RemitError(
                f"{where}: channels '{first}' and '{label}' are both {electrode}; expected each "
                "electrode once; rename one."
            )
        rows[electrode] = index
        units.append("" if unit.lower() in UNSTATED else unit)
    if not rows:
        labels = some_of((channel["label"] for channel in described), 20)
        why = f" {notes[0]}" if notes else ""
        raise RemitError(
            f"{where}: no EEG channel; it has {labels}; expected 10-10 names such as AF7 with a unit "
            f"of voltage; rename the channels.{why}"
        )
    notes += unused(options, channel_names=named)
    notes += stated_references([described[row]["label"] for row in rows.values()])
    return list(rows.values()), tuple(rows), units, left_out, notes


def _microvolts(
    where: str,
    signal_CS: np.ndarray,
    channels: Sequence[str],
    units: Sequence[str],
    rate: float,
    options: ReaderOptions,
) -> tuple[np.ndarray, list[str]]:
    """float32 microvolts; channels of one unit are taken together."""
    import numpy as np

    from remit.recordings.units import COUNTS, in_microvolts

    # The sheet or the config speaks where the stream does not, or only of counts.
    silent = [unit == "" or unit.lower() in COUNTS for unit in units]
    notes = unused(options, units=not any(silent))
    if options.units and any(silent) and not all(silent):
        notes.append("units are used for the channels that state none of their own only.")
    units = [
        options.units or unit if none else unit for unit, none in zip(units, silent, strict=True)
    ]
    if signal_CS.dtype.kind in "iu" and "" in units:
        raise RemitError(
            f"{where}: holds whole numbers ({signal_CS.dtype.name}) without a unit, as raw counts "
            "are; expected a unit; state the microvolts of one count as units, such as "
            "'0.02235 uV', in the cohort sheet or cohorts.<name>.units."
        )
    scaled_CS = np.empty(signal_CS.shape, dtype=np.float32)
    different = sorted(set(units))
    for unit in different:
        group = [index for index, each in enumerate(units) if each == unit]
        scaled_CS[group], said = in_microvolts(signal_CS[group], rate, unit, where)
        of = f"{some_of(channels[index] for index in group)}: " if len(different) > 1 else ""
        notes += [f"{of}{sentence}" for sentence in said]
    return scaled_CS, notes


READER = Reader(
    name="XDF",
    suffixes=(".xdf", ".xdfz", ".xdf.gz"),
    matches=matches,
    read=read,
    entries=entries,
    expects="'XDF:' in the first 4 bytes, packed by gzip or not",
    takes=(
        "the stream of type EEG, or the one that the entry names",
        "labels, types and units of its channels",
        "rate and gaps from the raw time stamps",
        "missing values (NaN) as gaps",
    ),
    refuses=(
        "no or several EEG streams without an entry",
        "an entry that is not there",
        "a cut file (unless `allow_truncated`)",
        "a stream without footer or with fewer samples than its footer says (unless `allow_truncated`)",
        "a damaged chunk or header",
        "a header that defines entities",
        "a stream of text",
        "no labels",
        "two channels of one electrode",
        "whole numbers or counts without a size",
        "a measured rate more than 10 % off the nominal one",
        "a packed file that unpacks to more than 200 times its size",
    ),
)
