"""XDF files written here by the specification, chunk by chunk, and checked with pyxdf."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyxdf
from hypothesis import given
from hypothesis import strategies as st
from recordings_made import one_line, row_of

from remit.errors import RemitError
from remit.recordings.readers.xdf import entries
from remit.recordings.registry import ReaderOptions, find_reader, read_recording

BOUNDARY = bytes.fromhex("43a546dccbf5410fb30ed5467383cbe4")
LABELS = ("TP9", "AF7", "AF8", "TP10", "AUX")
RATE = 256.0
NONE = ReaderOptions()
FORMS = {"float32": "<f4", "double64": "<f8", "int16": "<i2", "int32": "<i4"}


def number(value: int) -> bytes:
    """A length: the size of the number, then the number."""
    if value < 256:
        return struct.pack("<BB", 1, value)
    return struct.pack("<BI", 4, value)


def chunk(tag: int, content: bytes) -> bytes:
    return number(len(content) + 2) + struct.pack("<H", tag) + content


def start() -> bytes:
    return b"XDF:" + chunk(1, b'<?xml version="1.0"?><info><version>1.0</version></info>')


def header(
    stream: int = 1,
    name: str = "Muse",
    kind: str = "EEG",
    labels: tuple[str, ...] = LABELS,
    count: int | None = None,
    rate: float = RATE,
    form: str = "float32",
    unit: str | list[str] = "microvolts",
    types: tuple[str, ...] | None = None,
    source_id: str = "muse-1",
) -> bytes:
    units = unit if isinstance(unit, list) else [unit] * len(labels)
    types = types or ("EEG",) * len(labels)
    channels = "".join(
        f"<channel><label>{label}</label><unit>{each}</unit><type>{sort}</type></channel>"
        for label, each, sort in zip(labels, units, types, strict=True)
    )
    xml = (
        f'<?xml version="1.0"?><info><name>{name}</name><type>{kind}</type>'
        f"<channel_count>{len(labels) if count is None else count}</channel_count>"
        f"<nominal_srate>{rate}</nominal_srate><channel_format>{form}</channel_format>"
        f"<source_id>{source_id}</source_id><desc><channels>{channels}</channels></desc></info>"
    )
    return chunk(2, struct.pack("<I", stream) + xml.encode())


def samples(
    signal_SC: np.ndarray, stamps_S: np.ndarray, form: str = "float32", stream: int = 1
) -> bytes:
    """A chunk of samples; a stamp that is NaN is left out."""
    rows = b"".join(
        (b"\0" if np.isnan(stamp) else b"\x08" + struct.pack("<d", stamp))
        + row.astype(FORMS[form]).tobytes()
        for row, stamp in zip(signal_SC, stamps_S, strict=True)
    )
    return chunk(3, struct.pack("<I", stream) + number(len(stamps_S)) + rows)


def texts(words: list[str], stream: int) -> bytes:
    rows = b"".join(
        b"\x08" + struct.pack("<d", 100.0 + k) + number(len(word)) + word.encode()
        for k, word in enumerate(words)
    )
    return chunk(3, struct.pack("<I", stream) + number(len(words)) + rows)


def offset(time: float, value: float, stream: int = 1) -> bytes:
    return chunk(4, struct.pack("<Idd", stream, time, value))


def footer(count: int, stream: int = 1) -> bytes:
    xml = f'<?xml version="1.0"?><info><sample_count>{count}</sample_count></info>'
    return chunk(6, struct.pack("<I", stream) + xml.encode())


def eeg(count: int, channels: int = 5, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 20, (count, channels)).astype(np.float32)


def body(
    signal_SC: np.ndarray, stamps_S: np.ndarray, form: str = "float32", block: int = 32
) -> bytes:
    """Chunks of samples with clock offsets and boundaries between them, as LabRecorder does."""
    parts = []
    for first in range(0, len(stamps_S), block):
        part = slice(first, first + block)
        parts.append(samples(signal_SC[part], stamps_S[part], form))
        if first % (block * 16) == 0:
            parts.append(offset(float(np.nan_to_num(stamps_S[first])), -3.5))
            parts.append(chunk(5, BOUNDARY))
    return b"".join(parts)


def stamps(count: int, rate: float = RATE) -> np.ndarray:
    jitter_S = np.random.default_rng(2).uniform(0, 0.002, count)
    return 1000 + np.arange(count) / rate + jitter_S


def written(folder: Path, content: bytes, name: str = "p1.xdf") -> Path:
    file = folder / name
    file.write_bytes(content)
    return file


def sound(count: int = 2000, **changes: Any) -> bytes:
    form = changes.get("form", "float32")
    signal_SC = eeg(count, len(changes.get("labels", LABELS)))
    return start() + header(**changes) + body(signal_SC, stamps(count), form) + footer(count)


def test_a_stream_is_read(tmp_path: Path) -> None:
    signal_SC = eeg(3000)
    content = start() + header() + header(2, "Marks", "Markers", ("m",), rate=0, form="string")
    content += (
        body(signal_SC, stamps(3000)) + texts(["go", "stop"], 2) + footer(3000) + footer(2, 2)
    )
    file = written(tmp_path, content)
    (theirs, *_), _ = pyxdf.load_xdf(file, select_streams=[1])
    recording = read_recording(row_of(file), NONE)
    assert recording.channels == ("TP9", "AF7", "AF8", "TP10")
    assert recording.sampling_rate == RATE and not recording.prewindowed
    np.testing.assert_array_equal(recording.signal_CS, signal_SC[:, :4].T)
    np.testing.assert_array_equal(recording.signal_CS, theirs["time_series"].T[:4])
    assert [(s.start, s.stop) for s in recording.segments] == [(0, 3000)]
    assert recording.left_out == ("AUX", "Marks")
    assert any("'Marks' (type Markers, 1 channels, 0 Hz)" in note for note in recording.notes)


@pytest.mark.parametrize("subject", ["subject1308", "backward_stamps"])
def test_real_stamps_give_what_the_csv_gives(
    tmp_path: Path, shared_data: Path, subject: str
) -> None:
    """Rounded stamps with a gap of 1160 s, and stamps that run backwards."""
    real = next((shared_data / "muse" / subject).rglob("*.csv"))
    csv = read_recording(row_of(real), NONE)
    stamps_S = np.loadtxt(real, delimiter=",", skiprows=1, usecols=0)
    rest = body(csv.signal_CS.T, stamps_S) + footer(len(stamps_S))
    file = written(tmp_path, start() + header(labels=csv.channels) + rest)
    recording = read_recording(row_of(file), NONE)
    assert recording.sampling_rate == csv.sampling_rate and recording.segments == csv.segments
    np.testing.assert_array_equal(recording.signal_CS, csv.signal_CS)


@pytest.mark.parametrize("name", ["p1.xdfz", "p1.xdf.gz", "P1.XDFZ", "packed.xdf"])
def test_a_packed_file_is_read(tmp_path: Path, name: str) -> None:
    file = written(tmp_path, gzip.compress(sound()), name)
    recording = read_recording(row_of(file), NONE)
    np.testing.assert_array_equal(recording.signal_CS, eeg(2000)[:, :4].T)
    assert entries(file, NONE)[0].participant == name.split(".")[0]


def test_stamps_that_are_left_out_are_counted_from_the_one_before(tmp_path: Path) -> None:
    stamps_S = stamps(2000)
    stamps_S[np.arange(2000) % 12 > 0] = np.nan
    file = written(
        tmp_path, start() + header() + body(eeg(2000), stamps_S, block=12) + footer(2000)
    )
    assert read_recording(row_of(file), NONE).sampling_rate == RATE


def test_the_rate_is_measured(tmp_path: Path) -> None:
    content = start() + header(rate=250) + body(eeg(4000), stamps(4000)) + footer(4000)
    recording = read_recording(row_of(written(tmp_path, content)), NONE)
    assert recording.sampling_rate == pytest.approx(256, abs=0.2)
    assert any("nominal rate is 250 Hz; the measured one" in note for note in recording.notes)
    content = start() + header(rate=0) + body(eeg(4000), stamps(4000)) + footer(4000)
    assert read_recording(row_of(written(tmp_path, content)), NONE).sampling_rate == RATE
    content = start() + header(rate=512) + body(eeg(4000), stamps(4000)) + footer(4000)
    file = written(tmp_path, content)
    assert "nominal rate is 512 Hz; expected them within 10%" in one_line(
        lambda: read_recording(row_of(file), NONE)
    )


@given(gap=st.floats(0.1, 900.0), place=st.integers(700, 2300))
def test_a_gap_ends_a_segment(tmp_path_factory: Any, gap: float, place: int) -> None:
    stamps_S = stamps(3000)
    stamps_S[place:] += gap
    content = start() + header() + body(eeg(3000), stamps_S) + footer(3000)
    file = written(tmp_path_factory.mktemp("gap"), content)
    recording = read_recording(row_of(file), NONE)
    assert [(s.start, s.stop) for s in recording.segments] == [(0, place), (place, 3000)]
    onset = recording.segments[1].onset_seconds
    assert onset == pytest.approx(place / RATE + gap, abs=0.01)
    np.testing.assert_array_equal(recording.signal_CS, eeg(3000)[:, :4].T)


def test_a_clock_that_starts_anew_ends_a_segment(tmp_path: Path) -> None:
    stamps_S = stamps(3000)
    stamps_S[1500:] -= 990
    content = start() + header() + body(eeg(3000), stamps_S) + footer(3000)
    recording = read_recording(row_of(written(tmp_path, content)), NONE)
    assert [(s.start, s.stop) for s in recording.segments] == [(0, 1500), (1500, 3000)]
    assert recording.sampling_rate == RATE


def test_missing_values_end_a_segment(tmp_path: Path) -> None:
    signal_SC = eeg(3000)
    signal_SC[1000:1100, 1] = np.nan
    signal_SC[:, 3] = np.nan
    content = start() + header() + body(signal_SC, stamps(3000)) + footer(3000)
    recording = read_recording(row_of(written(tmp_path, content)), NONE)
    assert recording.channels == ("TP9", "AF7", "AF8") and "TP10" in recording.left_out
    assert [(s.start, s.stop) for s in recording.segments] == [(0, 1000), (1000, 2900)]
    assert recording.segments[1].onset_seconds == pytest.approx(1100 / RATE, abs=1e-3)
    np.testing.assert_array_equal(recording.signal_CS[:, 1000:], signal_SC[1100:, :3].T)


@pytest.mark.parametrize(
    ("unit", "scale"),
    [("microvolts", 1), ("uV", 1), ("µV", 1), ("Microvolt", 1), ("millivolts", 1e3), ("V", 1e6)],
)
def test_units(tmp_path: Path, unit: str, scale: float) -> None:
    signal_SC = eeg(2000) / scale
    content = start() + header(unit=unit) + body(signal_SC, stamps(2000)) + footer(2000)
    recording = read_recording(row_of(written(tmp_path, content)), NONE)
    np.testing.assert_allclose(recording.signal_CS, eeg(2000)[:, :4].T, rtol=1e-5)


def test_channels_of_other_units_and_types_are_left_out(tmp_path: Path) -> None:
    labels = ("Fp1", "Fp2", "Cz", "Pz", "O1")
    types = ("EEG", "EEG", "EEG", "ACC", "")
    changes = {"labels": labels, "types": types, "unit": ["uV", "mV", "celsius", "uV", ""]}
    content = start() + header(**changes) + body(eeg(2000), stamps(2000)) + footer(2000)
    recording = read_recording(row_of(written(tmp_path, content)), NONE)
    assert recording.channels == ("Fp1", "Fp2", "O1") and recording.left_out == ("Cz", "Pz")
    np.testing.assert_allclose(recording.signal_CS[1], eeg(2000)[:, 1] * 1e3, rtol=1e-6)
    np.testing.assert_array_equal(recording.signal_CS[2], eeg(2000)[:, 4])


def test_whole_numbers_need_a_unit(tmp_path: Path) -> None:
    signal_SC = (eeg(2000) * 10).astype(np.int16)
    rest = body(signal_SC, stamps(2000), "int16") + footer(2000)
    file = written(tmp_path, start() + header(form="int16", unit="") + rest)
    assert "whole numbers (int16) without a unit" in one_line(
        lambda: read_recording(row_of(file), NONE)
    )
    file = written(tmp_path, start() + header(form="int16", unit="counts") + rest)
    assert "raw counts ('counts')" in one_line(lambda: read_recording(row_of(file), NONE))
    recording = read_recording(row_of(file), ReaderOptions(units="0.1 uV"))
    np.testing.assert_allclose(recording.signal_CS, signal_SC[:, :4].T * 0.1, rtol=1e-6)
    file = written(tmp_path, start() + header(form="int16", unit="uV") + rest)
    np.testing.assert_array_equal(
        read_recording(row_of(file), NONE).signal_CS, signal_SC[:, :4].T.astype(np.float32)
    )


def test_a_stream_without_labels(tmp_path: Path) -> None:
    rest = body(eeg(2000), stamps(2000)) + footer(2000)
    file = written(tmp_path, start() + header(labels=(), count=5) + rest)
    assert "states no labels for its 5 channels" in one_line(
        lambda: read_recording(row_of(file), NONE)
    )
    recording = read_recording(row_of(file), ReaderOptions(channel_names=LABELS))
    np.testing.assert_array_equal(recording.signal_CS, eeg(2000)[:, :4].T)
    assert "4 channel labels for 5 channels" in one_line(
        lambda: read_recording(row_of(file), ReaderOptions(channel_names=LABELS[:4]))
    )
    file = written(tmp_path, start() + header(labels=LABELS[:3], count=5) + rest)
    assert "3 channel labels for 5 channels" in one_line(lambda: read_recording(row_of(file), NONE))
    file = written(tmp_path, start() + header(labels=("T3", "T7", "Fz", "Cz", "Pz")) + rest)
    assert "'T3' and 'T7' are both T7" in one_line(lambda: read_recording(row_of(file), NONE))
    file = written(tmp_path, start() + header(labels=("a", "b", "c", "d", "e")) + rest)
    assert "no EEG channel; it has a, b" in one_line(lambda: read_recording(row_of(file), NONE))


def test_what_the_stream_states_itself_is_used(tmp_path: Path) -> None:
    labels = ("TP9-A1", "AF7-A1", "AF8-Ref", "TP10-A1", "AUX")
    file = written(tmp_path, sound(labels=labels))
    stated = ReaderOptions(250.0, ("O1", "O2", "P3", "P4", "Cz"), "mV")
    recording = read_recording(row_of(file), stated)
    assert recording.channels == ("TP9", "AF7", "AF8", "TP10") and recording.sampling_rate == RATE
    np.testing.assert_array_equal(recording.signal_CS, eeg(2000)[:, :4].T)
    for note in (
        "The channel names state the references A1, Ref.",
        "sampling_rate (250 Hz) is not used: the file states 256 Hz.",
        "channel_names are not used: the file states its own.",
        "units are not used: the file states its own.",
    ):
        assert note in recording.notes
    file = written(tmp_path, sound(unit=["uV", "", "uV", "uV", ""]))
    recording = read_recording(row_of(file), ReaderOptions(units="mV"))
    np.testing.assert_allclose(recording.signal_CS[1], eeg(2000)[:, 1] * 1e3, rtol=1e-6)
    assert "units are used for the channels that state none of their own only." in recording.notes
    sockets = tuple(f"B{number}" for number in range(1, 9)) + tuple(f"A{k}" for k in range(1, 9))
    file = written(tmp_path, sound(600, labels=sockets))
    assert "no EEG channel" in one_line(lambda: read_recording(row_of(file), NONE))


def test_several_streams_need_an_entry(tmp_path: Path) -> None:
    content = start() + header(1, "A", source_id="one") + header(2, "A", source_id="two")
    content += header(3, "B", "Signal") + header(4, "M", "Markers", ("m",), form="string")
    for stream in (1, 2, 3):
        content += samples(eeg(600, seed=stream), stamps(600), stream=stream)
        content += footer(600, stream)
    file = written(tmp_path, content + footer(0, 4))

    def message(entry: str | None) -> str:
        return one_line(lambda: read_recording(row_of(file, entry=entry), NONE))

    assert "2 streams of type EEG: 'A' (one), 'A' (two)" in message(None)
    assert "2 streams of type EEG" in one_line(lambda: entries(file, NONE))
    assert "2 streams are called 'A', with the source_ids one, two" in message("A")
    assert "has no stream 'C'; it has 'A' (type EEG" in message("C")
    assert "of stream 'M' (type Markers, 1 channels, 256 Hz) are string" in message("M")
    for entry, seed in (("two", 2), ("B", 3)):
        recording = read_recording(row_of(file, entry=entry), NONE)
        np.testing.assert_array_equal(recording.signal_CS, eeg(600, seed=seed)[:, :4].T)


def test_no_eeg_stream(tmp_path: Path) -> None:
    file = written(tmp_path, sound(600, kind="ACC"))
    message = one_line(lambda: read_recording(row_of(file), NONE))
    assert "no stream of type EEG; it has 'Muse' (type ACC, 5 channels, 256 Hz)" in message
    assert read_recording(row_of(file, entry="Muse"), NONE).channels[0] == "TP9"
    file = written(tmp_path, start())
    assert "holds no stream" in one_line(lambda: read_recording(row_of(file), NONE))
    file = written(tmp_path, start() + header() + footer(0))
    assert "'Muse' holds no samples" in one_line(lambda: read_recording(row_of(file), NONE))


CUT = ReaderOptions(allow_truncated=True)
WHOLE = sound()


@given(at=st.integers(4, len(WHOLE) - 1))
def test_a_cut_file_is_refused_unless_allowed(tmp_path_factory: Any, at: int) -> None:
    file = written(tmp_path_factory.mktemp("cut"), WHOLE[:at])
    message = one_line(lambda: read_recording(row_of(file), NONE))
    assert "is cut inside the chunk" in message or "no footer" in message or "no stream" in message
    try:
        recording = read_recording(row_of(file), CUT)
    except RemitError:
        assert at < 20000  # too little is there to measure time
        return
    there = recording.signal_CS.shape[1]
    assert there % 32 == 0 or there == 2000
    np.testing.assert_array_equal(recording.signal_CS, eeg(2000)[:there, :4].T)
    assert any("The file is not whole" in note for note in recording.notes)


def test_what_pyxdf_makes_of_a_sample_that_is_cut(tmp_path: Path) -> None:
    """The reason to walk through the chunks first: the last values are those of another sample."""
    signal_SC = eeg(64)
    content = start() + header() + samples(signal_SC, stamps(64))
    file = written(tmp_path, content[:-8])
    (theirs,), _ = pyxdf.load_xdf(file, dejitter_timestamps=False)
    np.testing.assert_array_equal(theirs["time_series"][-1, 3:], signal_SC[-2, 3:])
    assert "is cut inside the chunk" in one_line(lambda: read_recording(row_of(file), NONE))


def test_fewer_samples_than_the_footer_says(tmp_path: Path) -> None:
    file = written(tmp_path, start() + header() + body(eeg(2000), stamps(2000)) + footer(2100))
    assert "has 2000 of the 2100 samples" in one_line(lambda: read_recording(row_of(file), NONE))
    recording = read_recording(row_of(file), CUT)
    assert recording.signal_CS.shape[1] == 2000
    file = written(tmp_path, start() + header() + body(eeg(2000), stamps(2000)))
    assert "has no footer, so was never closed" in one_line(
        lambda: read_recording(row_of(file), NONE)
    )
    assert read_recording(row_of(file), CUT).signal_CS.shape[1] == 2000


def test_a_packed_file_that_is_cut(tmp_path: Path) -> None:
    packed = gzip.compress(sound())
    file = written(tmp_path, packed[: len(packed) // 2], "p1.xdfz")
    assert "is not whole" in one_line(lambda: read_recording(row_of(file), NONE))
    assert 0 < read_recording(row_of(file), CUT).signal_CS.shape[1] < 2000
    bomb = gzip.compress(b"XDF:" + bytes(50_000_000))
    file = written(tmp_path, bomb, "p1.xdfz")
    assert "unpacks to more than 200 times" in one_line(lambda: read_recording(row_of(file), NONE))
    damaged = bytearray(packed)
    damaged[len(damaged) // 2] ^= 0xFF
    file = written(tmp_path, bytes(damaged), "p1.xdfz")
    assert "is damaged" in one_line(lambda: read_recording(row_of(file), NONE))


LAUGHS = "".join(f'<!ENTITY l{k} "{f"&l{k - 1};" * 10}">' for k in range(1, 12))
BOMB = f'<?xml version="1.0"?><!DOCTYPE z [<!ENTITY l0 "lol">{LAUGHS}]><info>&l11;</info>'


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (start() + header() + b"\x07", "stands 7 where the size of a length"),
        (start() + b"\x01\x01\x03", "has 1 bytes"),
        (start() + samples(eeg(8), stamps(8)), "of stream 1, without a header"),
        (start() + header() + header(), "a second header of stream 1"),
        (start() + chunk(2, struct.pack("<I", 1) + b"<info><name>"), "is no XML"),
        (start() + chunk(2, struct.pack("<I", 1) + b"<info/>"), "states no number of channels"),
        (start() + chunk(2, struct.pack("<I", 1) + BOMB.encode()), "declares a document type"),
        (
            start() + chunk(2, struct.pack("<I", 1) + b"<a>" * 9999 + b"</a>" * 9999),
            "states no number of channels",
        ),
        (b"XDF:" + chunk(1, BOMB.encode("utf-16")), "declares a document type"),
        (start() + header() + chunk(3, b"\1\0\0\0" + number(2**31) + bytes(40)), "2147483648 samp"),
        (start() + header() + chunk(3, b"\1\0\0\0" + number(1) + bytes(90)), "for 1 samples"),
        (start() + header() + chunk(4, b"\1\0\0\0" + bytes(8)), "the clock offset at byte"),
    ],
)
def test_damage_is_named(tmp_path: Path, content: bytes, says: str) -> None:
    file = written(tmp_path, content)
    assert says in one_line(lambda: read_recording(row_of(file), CUT))


def test_a_flag_that_is_damaged_is_seen(tmp_path: Path) -> None:
    """One wrong byte before a sample shifts all that follow; the counts then differ."""
    first = len(start() + header())
    content = bytearray(WHOLE)
    flag = content.index(b"\x08", first + 12)
    content[flag] = 0
    file = written(tmp_path, bytes(content))
    assert "is damaged: pyxdf reads" in one_line(lambda: read_recording(row_of(file), NONE))


@given(st.data())
def test_a_changed_byte_gives_an_error_or_a_recording(tmp_path_factory: Any, data: Any) -> None:
    content = bytearray(WHOLE[:30000])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(4, len(content) - 1))] = data.draw(st.integers(0, 255))
    file = written(tmp_path_factory.mktemp("changed"), bytes(content))
    try:
        recording = read_recording(row_of(file), CUT)
    except RemitError as error:
        assert "\n" not in str(error)
    else:
        recording.validate()


def test_other_files_do_not_match(tmp_path: Path) -> None:
    assert find_reader(written(tmp_path, WHOLE)).name == "XDF"
    for content in (
        b"not XDF",
        b"\x1f\x8bnothing",
        gzip.compress(b"else"),
        gzip.compress(b"X")[:9],
    ):
        file = written(tmp_path, content)
        assert "'XDF:' in the first 4 bytes" in one_line(lambda file=file: find_reader(file))
