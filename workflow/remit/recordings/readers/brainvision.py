"""BrainVision (.vhdr with .eeg and .vmrk) through MNE, after a look at the header.

Traps: MNE takes the number of samples from the data file's size and floors it, so a file that was
cut reads without a word, and one with its channels one after another (VECTORIZED) reads as a
shuffle of channels; of [Binary Infos] it looks at BinaryFormat only, so that numbers with their
bytes in the other order, or behind an offset, read as noise; it takes a unit it does not know for
volts; it does not look at DataType, so spectra pass for signals; it follows a DataFile that leaves
the folder, and knows no `$b`; it reads the marker file as text of the machine's own encoding; and
it joins what a New Segment marker parts. So header and markers are looked at here, and MNE is asked
for the samples only.
"""

from __future__ import annotations

import configparser
import datetime
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from remit.errors import RemitError, did_you_mean, some_of
from remit.recordings.cohort import SheetRow
from remit.recordings.registry import Reader, ReaderOptions
from remit.recordings.through_mne import (
    Break,
    choose,
    guarded,
    header_number,
    microvolts,
    recording_of,
    unused,
)
from remit.recordings.units import parse

if TYPE_CHECKING:
    from remit.recordings.recording import Recording

SAMPLE_BYTES = {"INT_16": 2, "INT_32": 4, "IEEE_FLOAT_32": 4}
_FIRST_LINE = re.compile(rb"^(?:\xef\xbb\xbf)?Brain ?Vision\b.*\bHeader File", re.IGNORECASE)
_MARKER_LINE = re.compile(rb"^(?:\xef\xbb\xbf)?Brain ?Vision\b.*\bMarker File", re.IGNORECASE)
_NEW_SEGMENT = re.compile(r"^Mk\d+=New Segment,(.*)$", re.MULTILINE)
# Values of UseBigEndianOrder, DataOffset, ChannelOffset, SegmentHeaderSize, TrailerSize and the like
# that change nothing.
_AS_USUAL = ("NO", "0", "")
_STAMP_SLACK = 0.1  # seconds by which the clocks of amplifier and computer may part


@dataclass(frozen=True)
class _Channel:
    label: str
    resolution: float
    unit: str
    states_unit: bool


@dataclass(frozen=True)
class _Header:
    data_file: str
    marker_file: str | None
    rate: float
    binary_format: str
    vectorized: bool
    points: int | None
    window: int | None
    channels: tuple[_Channel, ...]

    @property
    def frame_bytes(self) -> int:
        return SAMPLE_BYTES[self.binary_format] * len(self.channels)


def matches(path: Path) -> bool:
    """Whether the first line is that of a BrainVision header."""
    with path.open("rb") as opened:
        return bool(_FIRST_LINE.match(opened.readline(200)))


def companions(path: Path) -> list[Path]:
    """The data and the marker file that the header names; none where it cannot be read."""
    try:
        settings = _settings(path)
        named = [settings.get("datafile"), settings.get("markerfile")]
        return [_beside(path, name) for name in named if name]
    except (RemitError, OSError):
        return []  # reading the recording says what is wrong


def read(row: SheetRow, options: ReaderOptions) -> Recording:
    """The EEG channels of a BrainVision recording; a New Segment marker begins a segment.

    Channels that are no electrode or have no voltage unit are left out. Raises RemitError for a
    header that is cut or contradicts itself, a data or marker file that is missing or outside the
    folder, more or less data than the header promises, text data, spectra and averages.
    """
    path = Path(row.path)
    header = _read_header(path)
    data = _beside(path, header.data_file)
    _check_there(path, data, header.data_file, "DataFile", ".eeg")
    samples, notes = _samples(path, data, header, options)
    breaks, marker_notes, marker_file = _breaks(path, header, samples, options)
    labels = [channel.label for channel in header.channels]
    unusable = {
        i: f"its unit '{channel.unit}' is no voltage"
        for i, channel in enumerate(header.channels)
        if parse(channel.unit) is None
    }
    choice = choose(path, labels, unusable)
    rows = list(choice.rows.values())
    for i in rows:
        if not header.channels[i].resolution:
            raise RemitError(
                f"{path}: channel '{labels[i]}' has the resolution 0; expected the size of one "
                "step; correct the header or export it again."
            )
    import mne

    with guarded(path, "BrainVision recording"):
        raw = mne.io.read_raw_brainvision(
            path,
            eog=(),
            misc=[],
            overrides={"data_fname": str(data.absolute()), "marker_fname": False},
            preload=False,
            verbose="warning",
        )
        if raw.n_times < samples or len(raw.ch_names) != len(labels):
            raise RemitError(
                f"{path}: MNE gives {len(raw.ch_names)} channels of {raw.n_times} samples; "
                f"expected {len(labels)} of {samples}; export it again."
            )
        # What MNE multiplied by for the unit is divided out, and the unit's own size put in.
        scale_C = [
            (parse(header.channels[i].unit) or 0.0) / float(raw.info["chs"][i]["range"])
            for i in rows
        ]
        signal_CS = microvolts(raw, rows, scale_C, [(0, samples)])
    return recording_of(
        row,
        path,
        signal_CS,
        header.rate,
        labels,
        choice,
        breaks=breaks,
        window=header.window,
        notes=[*notes, *_unused(header, options, rows), *marker_notes],
        files=[path, data, *([marker_file] if marker_file else [])],
    )


def _unused(header: _Header, options: ReaderOptions, rows: list[int]) -> list[str]:
    """What the sheet or the config states of the channels in `rows` and is not used."""
    unstated = not all(header.channels[row].states_unit for row in rows)
    notes = unused(options, rate=header.rate, channel_names=True, units=not unstated)
    if unstated and options.units:
        notes.append("units are not used: BrainVision channels without a unit are in microvolts.")
    return notes


def _text(path: Path) -> str:
    """The header in the encoding that it names, else UTF-8, else Latin-1; without its first line."""
    content = path.read_bytes()
    named = re.search(rb"^\s*Codepage\s*=\s*([^\r\n]*)", content, re.IGNORECASE | re.MULTILINE)
    codepage = named[1].decode("latin-1").strip() if named else "utf-8"
    try:
        text = content.decode("cp1252" if codepage.upper() == "ANSI" else codepage)
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    except LookupError:
        raise RemitError(
            f"{path}: the header's Codepage is '{codepage}', which is no known encoding; expected "
            "UTF-8 or ANSI; correct it."
        ) from None
    return "".join(text.splitlines(keepends=True)[1:])


def _parsed(path: Path) -> configparser.ConfigParser:
    text = re.split(r"^\[Comment\]", _text(path), maxsplit=1, flags=re.MULTILINE)[0]
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise RemitError(
            f"{path}: the header cannot be understood ({str(error)[:200]}); expected sections of "
            "'name=value' lines; export it again."
        ) from None
    return parser


def _settings(path: Path) -> dict[str, str]:
    """The settings of [Common Infos], by their names in lower case."""
    parser = _parsed(path)
    for section in parser.sections():
        if section.lower() == "common infos":
            return {name: value.strip() for name, value in parser[section].items()}
    raise RemitError(
        f"{path}: the header has no section [Common Infos]; it has {some_of(parser.sections())}; "
        "expected a whole header; copy it again."
    )


def _read_header(path: Path) -> _Header:
    parser, settings = _parsed(path), _settings(path)

    def setting(name: str) -> str:
        value = settings.get(name.lower())
        if not value:
            raise RemitError(
                f"{path}: the header has no {name}; expected it in [Common Infos]; the header is "
                "cut, copy or export it again."
            )
        return value

    def one_of(name: str, value: str, known: tuple[str, ...], meant: str) -> str:
        if value not in known:
            raise RemitError(
                f"{path}: the header's {name} is {value}; expected {' or '.join(known)}, {meant}; "
                "export it again."
            )
        return value

    one_of("DataType", settings.get("datatype", "TIMEDOMAIN"), ("TIMEDOMAIN",), "a signal")
    one_of("Averaged", settings.get("averaged", "NO").upper(), ("NO",), "a recording, no average")
    one_of("DataFormat", setting("DataFormat"), ("BINARY",), "numbers and no text")
    orientation = one_of(
        "DataOrientation",
        setting("DataOrientation"),
        ("MULTIPLEXED", "VECTORIZED"),
        "samples or channels one after another",
    )
    binary = ""
    if parser.has_section("Binary Infos"):
        binary = parser["Binary Infos"].get("BinaryFormat", "")
        for name, value in parser["Binary Infos"].items():
            if name != "binaryformat" and value.strip().upper() not in _AS_USUAL:
                raise RemitError(
                    f"{path}: the header says {name}={value.strip()} in [Binary Infos], which MNE "
                    "leaves out of account; expected BinaryFormat only; export it again."
                )
    one_of("BinaryFormat", binary.strip() or "missing", tuple(SAMPLE_BYTES), "what MNE reads")
    interval = header_number(path, "SamplingInterval", setting("SamplingInterval"))
    if interval <= 0:
        raise RemitError(
            f"{path}: the header's SamplingInterval is {interval:g}; expected a positive number of "
            "microseconds; correct it or export it again."
        )
    channels = _channels(
        path, parser, int(header_number(path, "NumberOfChannels", setting("NumberOfChannels")))
    )
    points = int(header_number(path, "DataPoints", settings.get("datapoints") or "0"))
    window = None
    if settings.get("segmentationtype", "").upper() == "MARKERBASED":
        window = int(header_number(path, "SegmentDataPoints", setting("SegmentDataPoints")))
        if window < 1 or points % window:
            raise RemitError(
                f"{path}: the header's SegmentDataPoints is {window} for {points} DataPoints; "
                "expected windows of one length; export it again."
            )
    return _Header(
        data_file=setting("DataFile"),
        marker_file=settings.get("markerfile") or None,
        rate=1e6 / interval,
        binary_format=binary.strip(),
        vectorized=orientation == "VECTORIZED",
        points=points if points > 0 else None,
        window=window,
        channels=channels,
    )


def _channels(path: Path, parser: configparser.ConfigParser, count: int) -> tuple[_Channel, ...]:
    lines = dict(parser["Channel Infos"]) if parser.has_section("Channel Infos") else {}
    wanted = {f"ch{number}" for number in range(1, count + 1)}
    if set(lines) != wanted or not wanted:
        odd = sorted(wanted ^ set(lines))
        raise RemitError(
            f"{path}: the header promises {count} channels and describes {len(lines)} "
            f"({some_of(odd)} is there or missing); expected Ch1 to Ch{count}; the header is "
            "cut, copy or export it again."
        )
    # A header may end with its channels, but not inside a line of them.
    text = _text(path)
    if parser.sections()[-1] == "Channel Infos" and text == text.rstrip("\r\n"):
        raise RemitError(
            f"{path}: the header ends inside the line of a channel; expected an end of line; "
            "the header may be cut, copy or export it again."
        )
    channels = []
    for number in range(1, count + 1):
        parts = [*lines[f"ch{number}"].split(","), "", "", ""]
        label = parts[0].replace(r"\1", ",").strip()
        resolution = header_number(path, f"resolution of channel '{label}'", parts[2] or "1")
        # An empty unit is microvolts by the format's rules. What is left of a doubled encoding
        # of the micro sign is taken away.
        unit = parts[3].replace("\xc2", "").strip()
        channels.append(_Channel(label, resolution, unit or "µV", bool(unit)))
    return tuple(channels)


def _beside(path: Path, name: str) -> Path:
    """The file that a header names, which may not lie outside the header's folder."""
    plain = name.replace("$b", path.stem).replace("\\", "/")
    parts = PurePosixPath(plain).parts
    if plain.startswith("/") or ".." in parts or ":" in plain or "\0" in plain:
        raise RemitError(
            f"{path}: the header names the file '{name}', which leaves the header's folder; "
            "expected a file beside it; move that file and correct the header."
        )
    return path.parent / plain


def _check_there(path: Path, wanted: Path, name: str, setting: str, suffix: str) -> None:
    if wanted.is_file():
        return
    what = "is a link to nothing" if wanted.is_symlink() else "is not there"
    sibling = path.with_suffix(suffix)
    if sibling.is_file():
        hint = f" {sibling.name} is there: if the files were renamed, correct {setting}."
    else:
        folder = wanted.parent
        names = [file.name for file in folder.iterdir()] if folder.is_dir() else []
        hint = did_you_mean(wanted.name, names)
    raise RemitError(
        f"{path}: the header's {setting} is '{name}', which {what}; expected it beside the header; "
        f"copy it there under that name.{hint}"
    )


def _samples(
    path: Path, data: Path, header: _Header, options: ReaderOptions
) -> tuple[int, list[str]]:
    """Samples that can be read of each channel, and what to say of missing ones."""
    size = data.stat().st_size
    there, rest = divmod(size, header.frame_bytes)
    points = there if header.points is None else header.points
    sizes = f"{len(header.channels)} channels of {points} samples in {header.binary_format}"
    if there > points or (there == points and rest and header.points is not None):
        raise RemitError(
            f"{path}: {data.name} holds {size - points * header.frame_bytes} bytes more than the "
            f"header's {sizes}; expected none; it may have been changed on the way, copy or export "
            "it again."
        )
    if there == 0:
        raise RemitError(
            f"{path}: {data.name} holds no sample ({size} bytes); expected {sizes}; copy it again "
            "or leave it out."
        )
    if there == points and not rest:
        return points, []
    found = f"{size / header.frame_bytes:.2f} of {points}"
    if header.points is None:
        found = f"{size / header.frame_bytes:.2f}"
    cut = f"{data.name} holds {found} samples of {len(header.channels)} channels"
    if header.vectorized or not options.allow_truncated:
        remedy = "copy it again"
        if header.vectorized:
            remedy += " (its channels stand one after another, so the last ones are missing)"
        else:
            remedy += ", or set allow_truncated to read what is there"
        raise RemitError(f"{path}: {cut}; expected {sizes} as the header says; {remedy}.")
    if header.window is not None:
        there -= there % header.window
    return there, [f"The file is cut: {cut}; {there} are read."]


def _breaks(
    path: Path, header: _Header, samples: int, options: ReaderOptions
) -> tuple[list[Break], list[str], Path | None]:
    """Where a New Segment begins, and how long after the last; notes; the marker file."""
    if header.marker_file is None:
        return [], ["The header names no marker file; the recording is taken as contiguous."], None
    markers = _beside(path, header.marker_file)
    try:
        _check_there(path, markers, header.marker_file, "MarkerFile", ".vmrk")
    except RemitError:
        if not options.allow_truncated:
            raise
        note = f"The marker file {header.marker_file} is missing; taken as contiguous."
        return [], [note], None
    content = markers.read_bytes()
    if not _MARKER_LINE.match(content):
        raise RemitError(
            f"{path}: its marker file {markers.name} does not begin as one ({len(content)} bytes); "
            "expected 'Brain Vision Data Exchange Marker File'; copy it again."
        )
    found: list[tuple[int, datetime.datetime | None]] = []
    for fields in _NEW_SEGMENT.findall(content.decode("latin-1")):
        parts = [part.strip() for part in fields.split(",")]
        if len(parts) < 4 or not parts[1].isdigit():
            raise RemitError(
                f"{path}: {markers.name} has the marker 'New Segment,{fields.strip()}'; expected "
                "its position; the file is damaged, copy it again."
            )
        found.append((max(0, int(parts[1]) - 1), _stamp(parts[4] if len(parts) > 4 else "")))
    found.sort(key=lambda marker: marker[0])
    breaks, notes = [], []
    for (before, start), (sample, stamp) in pairwise(found):
        gap = None
        if start and stamp:
            gap = (stamp - start).total_seconds() - (sample - before) / header.rate
            if gap < -_STAMP_SLACK:
                notes.append(
                    f"The time stamps of the segments at samples {before + 1} and {sample + 1} "
                    f"overlap by {-gap:.3f} s; the gap is taken as unknown."
                )
                gap = None
        breaks.append(Break(sample, None if gap is None else max(0.0, gap)))
    if found and found[0][0] > 0:
        breaks.append(Break(found[0][0], None))
    if header.window is not None and any(at.sample % header.window for at in breaks):
        raise RemitError(
            f"{path}: a New Segment marker stands inside a window of {header.window} samples; "
            "expected windows of one length; export it again."
        )
    beyond = sum(at.sample >= samples for at in breaks)
    if beyond:
        notes.append(f"{beyond} New Segment markers stand behind the last sample.")
    if header.window is not None:
        notes.append(
            f"The file holds windows of {header.window} samples that were cut from a recording."
        )
    return breaks, notes, markers


def _stamp(text: str) -> datetime.datetime | None:
    """The time of a New Segment, YYYYMMDDhhmmss and microseconds; None where there is none."""
    if not re.fullmatch(r"\d{20}", text) or not int(text):
        return None
    try:
        return datetime.datetime.strptime(text, "%Y%m%d%H%M%S%f")
    except ValueError:
        return None


READER = Reader(
    name="BrainVision",
    suffixes=(".vhdr",),
    matches=matches,
    read=read,
    expects="'Brain Vision' and 'Header File' in the first line",
    companions=companions,
    takes=(
        "rate from SamplingInterval",
        "names, resolution and unit (V, mV, µV, nV; none stated is µV) of each channel",
        "INT_16, INT_32 and IEEE_FLOAT_32, MULTIPLEXED and VECTORIZED",
        "gaps from New Segment markers and their time stamps",
        "windows of an export by markers",
    ),
    refuses=(
        "a data or marker file that the header names and that is missing or renamed",
        "a data or marker file outside the header's folder",
        "a data file shorter (unless `allow_truncated`) or longer than the header says",
        "a cut VECTORIZED data file",
        "a cut or contradictory header",
        "an unknown Codepage",
        "spectra (DataType) and averages",
        "big-endian numbers, offsets, segment headers and trailers ([Binary Infos])",
        "data as text (DataFormat=ASCII)",
        "two channels of one electrode",
        "no channel with an electrode's name and a unit of voltage",
        "a resolution of 0",
    ),
)
