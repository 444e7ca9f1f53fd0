"""FIF, the format of MNE and of Elekta/MEGIN (raw .fif and .fif.gz), through MNE.

Traps: MNE opens a file that was cut with no more than a warning and gives zeros for what cannot be
read, and zeros where the acquisition was paused; it leaves unit multipliers out of account; it
opens a later part of a split recording as if it were the whole. So the tags are walked through
first: each says how long it is. MNE also moves annotations by the length of a pause at the
beginning, loses such a pause in a later part, and cuts annotations off at the end of the data.
Projections and compensation are never applied here, digitised positions are not used.
"""

from __future__ import annotations

import gzip
import re
import struct
import tempfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remit.errors import RemitError
from remit.recordings.cohort import SheetRow
from remit.recordings.registry import Reader, ReaderOptions
from remit.recordings.through_mne import (
    Break,
    choose,
    guarded,
    interruptions,
    microvolts,
    recording_of,
    unused,
    without,
)

if TYPE_CHECKING:
    from remit.recordings.recording import Recording

# Kinds of tags, blocks and types: the FIFF constants of MNE, which is not imported at planning.
_FILE_ID, _BLOCK_START, _BLOCK_END = 100, 104, 105
_REF_ROLE, _REF_NUMBER, _REF_NAME = 115, 117, 118
_CHANNELS, _BUFFER, _SKIP, _SKIPPED_SAMPLES = 200, 300, 301, 303
_NUMBERS = {_BLOCK_START, _BLOCK_END, _CHANNELS, _SKIP, _REF_ROLE, _REF_NUMBER}
_INFO_BLOCK = 101  # FIFFB_MEAS_INFO
_RAW_BLOCKS = {102, 112, 119}  # FIFFB_RAW_DATA, FIFFB_CONTINUOUS_DATA, FIFFB_IAS_RAW_DATA
_OTHER_BLOCKS = {373: "epochs", 104: "averages"}
_PREVIOUS_FILE, _NEXT_FILE = 1, 2
_BUFFER_BYTES = {
    16: 2,
    2: 2,
    3: 4,
    4: 4,
    5: 8,
}  # real types: packed short, short, int, float, double
_TAG = struct.Struct(">iIii")
_BEGINS = _TAG.pack(_FILE_ID, 31, 20, 0)[:12]
_LARGEST = 1 << 31  # bytes; places in a FIF file are 32-bit numbers
_GZIP = b"\x1f\x8b"
_VOLT = 107  # FIFF_UNIT_V
_PART = re.compile(r"^(?P<start>.*_split-)(?P<number>\d+)(?P<end>_.*)$")
_CUT = re.compile(r"could not be read|corrupt|Invalid tag", re.I)
_HARMLESS = re.compile(r"naming convention", re.I)


@dataclass
class _Tags:
    """What a walk through a file's tags found; samples are those of whole buffers."""

    blocks: set[int] = field(default_factory=set)
    roles: set[int] = field(default_factory=set)
    samples: int = 0  # with the paused stretches between them
    skips: list[tuple[int, int]] = field(default_factory=list)  # [start, stop) in samples
    lead: int = 0  # samples of a pause before the first
    cut: str = ""  # in words, where the file ends too early
    following: str = ""  # the next part of a split recording
    number: int | None = None  # and its number


def matches(path: Path) -> bool:
    """Whether the file, unpacked where it is a .gz, begins with a FIF file's first tag."""
    with path.open("rb") as opened:
        start = opened.read(12)
    if start.startswith(_GZIP):
        try:
            with gzip.open(path) as unpacked:
                start = unpacked.read(12)
        except (OSError, EOFError, zlib.error):
            return False
    return start == _BEGINS


def companions(path: Path) -> list[Path]:
    """The further parts of a split recording that lie beside its first, by their names."""
    parts: list[Path] = []
    named = _PART.match(path.name)
    stem, _, suffix = path.name.partition(".")
    for number in range(1, 1000):
        if named:
            digits = len(named["number"])
            name = f"{named['start']}{int(named['number']) + number:0{digits}d}{named['end']}"
        else:
            name = f"{stem}-{number}.{suffix}"
        part = path.with_name(name)
        if not (part.is_file() or part.is_symlink()):
            break
        parts.append(part)
    return parts


def read(row: SheetRow, options: ReaderOptions) -> Recording:
    """The EEG channels of a raw FIF recording with all its parts.

    Channels that the file calls otherwise are left out. Raises RemitError for epochs and averages,
    a later part, a missing part, a cut or damaged file, and EEG that is not in volts.
    """
    import mne

    path = Path(row.path)
    notes: list[str] = []
    with guarded(path, "raw FIF recording") as warned, tempfile.TemporaryDirectory() as folder:
        # MNE reads a packed file into memory as a whole, so it is unpacked to the disk.
        file = path
        if path.suffix.lower() == ".gz":
            file, cut_note = _unpacked(path, Path(folder), options)
            notes += cut_note
        files, walked = _parts(path, file, options)
        tags = walked[0]
        raw = mne.io.read_raw_fif(
            file,
            on_split_missing="ignore" if options.allow_truncated else "raise",
            preload=False,
            verbose="warning",
        )
        if len(raw.filenames) != len(files):
            raise RemitError(
                f"{path}: MNE reads {len(raw.filenames)} parts; expected {len(files)}; save it "
                "again."
            )
        samples, skips, pauses = _together(path, walked, files, raw.n_times)
        if walked[-1].cut:
            notes.append(f"The file is cut: {walked[-1].cut}; {samples} samples are read.")
        elif walked[-1].following:
            notes.append(
                f"The further part {walked[-1].following} is missing; what is there is read."
            )
        labels = list(raw.ch_names)
        choice = choose(path, labels, _unusable(path, raw))
        late = tags.lead if raw.info["meas_date"] is None else 0
        breaks, paused, told = interruptions(raw, late)
        rate = float(raw.info["sfreq"])
        notes += [*told, *_processing(raw)]
        notes += unused(options, rate=rate, channel_names=True, units=True)
        # A pause was never recorded; MNE gives zeros there.
        if skips or pauses or tags.lead:
            paused = []  # said twice
        breaks += [Break(sample, count / rate) for sample, count in pauses]
        stretches, breaks = without([*skips, *paused], breaks, samples, rate)
        signal_CS = microvolts(raw, list(choice.rows.values()), [1e6] * len(choice.rows), stretches)
        bads, mains = list(raw.info["bads"]), raw.info["line_freq"]
        del raw  # before its folder
    _judge(path, warned, bool(walked[-1].cut), notes)
    return recording_of(
        row,
        path,
        signal_CS,
        rate,
        labels,
        choice,
        breaks=breaks,
        notes=notes,
        bads=bads,
        mains_hz=None if mains is None else float(mains),
        files=[path, *files[1:]],
    )


def _unpacked(path: Path, folder: Path, options: ReaderOptions) -> tuple[Path, list[str]]:
    """The content of a .gz as a file in another folder; what to say where the packing is cut."""
    plain = folder / path.stem
    written = 0
    try:
        with gzip.open(path) as opened, plain.open("wb") as made:
            while piece := opened.read1(1 << 20):  # read() would lose what precedes a cut
                written += made.write(piece)
                if written > _LARGEST:
                    raise RemitError(
                        f"{path}: unpacks to more than {_LARGEST} bytes; expected a FIF file, which "
                        "cannot be larger; leave it out."
                    )
    except EOFError:
        if not options.allow_truncated:
            raise RemitError(
                f"{path}: is cut, its packing ends after {written} bytes of content; expected a "
                "whole .gz file; copy it again, or set allow_truncated to read what is there."
            ) from None
        return plain, [f"The file is cut: its packing ends after {written} bytes of content."]
    except (OSError, zlib.error) as error:
        raise RemitError(
            f"{path}: cannot be unpacked ({error}); expected a sound .gz file; copy it again."
        ) from None
    return plain, []


def _parts(path: Path, first: Path, options: ReaderOptions) -> tuple[list[Path], list[_Tags]]:
    """The files of a recording and their tags; `first` is that of `path`, unpacked."""
    files, walked = [first], [_walk(path, first, options)]
    while following := walked[-1].following:
        if first != path:
            raise RemitError(
                f"{path}: is part of a split recording and packed; expected one or the other; "
                "unpack all its parts with gunzip and save them again."
            )
        part = path.with_name(Path(following.replace("\\", "/")).name)
        if part.name != following or part in files:
            raise RemitError(
                f"{path}: {files[-1].name} names '{following}' as the next part; expected another "
                "file beside it; save the recording again."
            )
        if not part.is_file():
            if not options.allow_truncated:
                raise RemitError(
                    f"{path}: its part {following} is not there; expected it beside the first "
                    "under that name; copy it there, or set allow_truncated to read what is there."
                )
            break
        walked.append(_walk(part, part, options, later=True))
        files.append(part)
    return files, walked


def _walk(path: Path, file: Path, options: ReaderOptions, later: bool = False) -> _Tags:
    """Go through the tags of a file, which messages call `path`; `later`: it is no first part."""
    with file.open("rb") as opened:
        tags = _walk_tags(path, opened, file.stat().st_size)
    if tags.number is not None and not tags.following:
        stem, _, suffix = file.name.partition(".")  # as MNE makes the name
        head, dash, digits = stem.rpartition("-")
        tags.following = f"{head if dash and digits.isdigit() else stem}-{tags.number}.{suffix}"
    if not later and _PREVIOUS_FILE in tags.roles:
        raise RemitError(
            f"{path}: is a later part of a split recording; expected its first part, which brings "
            "the others with it; leave this one out of the cohort sheet."
        )
    if not tags.blocks & _RAW_BLOCKS and not tags.cut:
        held = [name for block, name in _OTHER_BLOCKS.items() if block in tags.blocks]
        raise RemitError(
            f"{path}: holds {held[0] if held else 'no raw data'}; expected a raw recording; choose "
            "the file that was saved before it was cut up."
        )
    if tags.cut and not (options.allow_truncated and tags.samples):
        remedy = "copy it again"
        if tags.samples:
            remedy += ", or set allow_truncated to read what is there"
        raise RemitError(f"{path}: is cut, {tags.cut}; expected a whole FIF file; {remedy}.")
    if not tags.samples:
        raise RemitError(f"{path}: holds no samples; expected some; leave this recording out.")
    return tags


def _walk_tags(path: Path, opened: Any, size: int) -> _Tags:
    """Follow the tags of a file of `size` bytes."""
    tags = _Tags()
    open_blocks: list[int] = []
    place = channels = waiting = buffer = role = 0
    started = False
    while True:
        opened.seek(place)
        head = opened.read(_TAG.size)
        if len(head) < _TAG.size:
            if head or open_blocks:
                tags.cut = f"it ends at byte {place + len(head)} with {tags.samples} samples"
            return tags
        kind, form, length, following = _TAG.unpack(head)
        end = place + _TAG.size + length
        if length < 0 or following < -1 or 0 < following < place + _TAG.size:
            raise RemitError(
                f"{path}: the tag at byte {place} makes no sense (size {length}, next {following}); "
                "expected a sound FIF file; copy it again."
            )
        if end > size:
            tags.cut = f"{end - size} bytes are missing after {tags.samples} samples"
            return tags
        if kind in _NUMBERS and length == 4:
            value = struct.unpack(">i", opened.read(4))[0]
            if kind == _BLOCK_START:
                open_blocks.append(value)
                tags.blocks.add(value)
            elif kind == _BLOCK_END and open_blocks:
                open_blocks.pop()
            elif kind == _CHANNELS and open_blocks[-1:] == [_INFO_BLOCK]:
                channels = value
            elif kind == _REF_ROLE:
                tags.roles.add(value)
                role = value
            elif kind == _REF_NUMBER and role == _NEXT_FILE:
                tags.number = value
            elif kind == _SKIP:
                waiting += value
        elif kind == _REF_NAME and role == _NEXT_FILE:
            tags.following = opened.read(min(length, 4096)).decode("latin-1")
        elif kind == _SKIPPED_SAMPLES:
            raise RemitError(
                f"{path}: says at byte {place} that samples were skipped in a way that MNE leaves "
                "out of account (tag 303); expected data buffers; save it again."
            )
        elif kind == _BUFFER and _RAW_BLOCKS & set(open_blocks):
            frame = _BUFFER_BYTES.get(form, 0) * channels
            if frame < 1 or length % frame or not length:
                raise RemitError(
                    f"{path}: the data at byte {place} are {length} bytes of type {form} for "
                    f"{channels} channels; expected whole samples of real numbers; export it again."
                )
            buffer = length // frame
            if waiting > 0 and not started:
                tags.lead = waiting * buffer  # counted in buffers of the size of the next
            elif waiting > 0:
                gap = waiting * buffer
                tags.skips.append((tags.samples, tags.samples + gap))
                tags.samples += gap
            waiting, started = 0, True
            tags.samples += buffer
        if following == -1:
            if open_blocks:
                tags.cut = f"it ends inside a block after {tags.samples} samples"
            return tags
        place = following or end


def _together(
    path: Path, walked: list[_Tags], files: list[Path], promised: int
) -> tuple[int, list[tuple[int, int]], list[tuple[int, int]]]:
    """Samples of all parts, the stretches without data in them, and the pauses between them.

    A pause is the sample that follows it and its own number of samples, which are not counted.
    """
    samples = 0
    skips, pauses = [], []
    for tags, file in zip(walked, files, strict=True):
        if tags.cut and tags is not walked[-1]:
            raise RemitError(
                f"{path}: its part {file.name} is cut, {tags.cut}; expected whole parts; copy it "
                "again."
            )
        skips += [(samples + start, samples + stop) for start, stop in tags.skips]
        if samples and tags.lead:
            pauses.append((samples, tags.lead))
        samples += tags.samples
    if promised < samples or (promised > samples and not walked[-1].cut):
        raise RemitError(
            f"{path}: MNE gives {promised} samples; expected {samples}, as the file's buffers say; "
            "export it again."
        )
    return samples, skips, pauses


def _unusable(path: Path, raw: Any) -> dict[int, str]:
    """Rows that are no EEG in volts, and why; raises RemitError for a unit multiplier."""
    import mne

    unusable = {}
    for i, channel in enumerate(raw.info["chs"]):
        kind = mne.channel_type(raw.info, i)
        if kind != "eeg":
            unusable[i] = f"the file calls it {kind}"
        elif int(channel["unit"]) != _VOLT:
            unusable[i] = f"its unit is {channel['unit']}, no volts"
        elif int(channel["unit_mul"]) != 0:
            raise RemitError(
                f"{path}: channel '{channel['ch_name']}' is in 10^{int(channel['unit_mul'])} V, "
                "which MNE leaves out of account; expected volts; save it again in volts."
            )
    return unusable


def _processing(raw: Any) -> list[str]:
    """What was done to the data, or could be, in words."""
    notes = []
    for active, what in ((True, "had been applied"), (False, "are in the file and not applied")):
        names = [str(projection["desc"]) for projection in raw.info["projs"]]
        chosen = [
            name
            for name, projection in zip(names, raw.info["projs"], strict=True)
            if bool(projection["active"]) == active
        ]
        if chosen:
            notes.append(f"Projections {what}: {', '.join(chosen)}.")
    if int(raw.info["custom_ref_applied"]):
        notes.append("The file says that it was given another reference after it was recorded.")
    return notes


def _judge(path: Path, warned: list[str], cut: bool, notes: list[str]) -> None:
    """Refuse what MNE only warns of; what else it says becomes a note."""
    for message in warned:
        if _CUT.search(message):
            if not cut:
                raise RemitError(
                    f"{path}: MNE warns '{message[:300]}'; expected a whole FIF file; copy it "
                    "again."
                )
        elif not _HARMLESS.search(message):
            notes.append(f"MNE says: {message[:300]}")


READER = Reader(
    name="FIF",
    suffixes=(".fif", ".fif.gz"),
    matches=matches,
    read=read,
    expects="the tag of a FIF file's id in the first 12 bytes",
    companions=companions,
    takes=(
        "rate, names, channel types",
        "all parts of a split recording",
        "bad channels and the frequency of the mains",
        "gaps from skips in the data and from boundary annotations",
        "applied projections and reference (noted)",
    ),
    refuses=(
        "a cut file, packed or not (unless `allow_truncated`)",
        "a damaged file",
        "a missing part of a split recording (unless `allow_truncated`)",
        "a later part of a split recording by itself",
        "a split recording that is packed (.fif.gz)",
        "epochs and averages",
        "complex data",
        "units with a multiplier",
        "two channels of one electrode",
        "no EEG channel with an electrode's name",
    ),
)
