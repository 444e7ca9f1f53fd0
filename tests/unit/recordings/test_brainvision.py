"""BrainVision: the microvolts that were written, gaps from the markers, nothing cut or renamed."""

from __future__ import annotations

import struct
from itertools import pairwise
from pathlib import Path

import mne
import numpy as np
import pybv
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recordings_made import one_line, row_of

from remit.recordings.recording import Recording, Segment
from remit.recordings.registry import ReaderOptions, find_reader, read_recording

RNG = np.random.default_rng(0)
STAMP = "20240101120000000000"


def read(path: Path, **options: object) -> Recording:
    return read_recording(row_of(path), ReaderOptions(**options))  # type: ignore[arg-type]


def noise(channels: int = 3, samples: int = 1000) -> np.ndarray:
    return RNG.standard_normal((channels, samples)) * 30


def by_hand(
    folder: Path,
    counts_CS: np.ndarray,
    channels: tuple[str, ...],
    *,
    binary: str = "INT_16",
    orientation: str = "MULTIPLEXED",
    common: str = "",
    markers: tuple[str, ...] = (f"New Segment,,1,1,0,{STAMP}",),
    codepage: str = "UTF-8",
    encoding: str = "utf-8",
    data_file: str = "made.eeg",
    points: bool = True,
    rate: float = 250,
) -> Path:
    """A recording written from the format's description; `channels` are the lines' right sides."""
    dtype = {"INT_16": "<i2", "INT_32": "<i4", "IEEE_FLOAT_32": "<f4"}[binary]
    stored = counts_CS if orientation == "VECTORIZED" else counts_CS.T
    (folder / "made.eeg").write_bytes(np.ascontiguousarray(stored).astype(dtype).tobytes())
    lines = [
        "Brain Vision Data Exchange Header File Version 1.0",
        "; a comment",
        "",
        "[Common Infos]",
        f"Codepage={codepage}" if codepage else "; no codepage",
        f"DataFile={data_file}",
        "MarkerFile=made.vmrk",
        "DataFormat=BINARY",
        f"DataOrientation={orientation}",
        f"NumberOfChannels={len(channels)}",
        f"SamplingInterval={1e6 / rate:g}",
        *([f"DataPoints={counts_CS.shape[1]}"] if points else []),
        *common.splitlines(),
        "",
        "[Binary Infos]",
        f"BinaryFormat={binary}",
        "",
        "[Channel Infos]",
        *(f"Ch{i}={line}" for i, line in enumerate(channels, 1)),
        "",
    ]
    header = folder / "made.vhdr"
    header.write_bytes("\r\n".join(lines).encode(encoding))
    text = ["Brain Vision Data Exchange Marker File, Version 1.0", "", "[Marker Infos]"]
    text += [f"Mk{i}={line}" for i, line in enumerate(markers, 1)]
    (folder / "made.vmrk").write_bytes("\r\n".join([*text, ""]).encode("latin-1"))
    return header


def changed(header: Path, before: str, after: str) -> Path:
    content = header.read_bytes()
    assert before.encode() in content
    header.write_bytes(content.replace(before.encode(), after.encode()))
    return header


@pytest.mark.parametrize(
    ("binary", "unit", "resolution"),
    [("binary_int16", "µV", 0.1), ("binary_float32", "mV", 1e-6), ("binary_int16", "nV", 50.0)],
)
def test_what_pybv_writes_is_read(
    tmp_path: Path, binary: str, unit: str, resolution: float
) -> None:
    signal_CS = noise(4)
    pybv.write_brainvision(
        data=signal_CS * 1e-6,
        sfreq=250,
        ch_names=["Fp1", "T3", "VEOG", "TP10"],
        fname_base="made",
        folder_out=tmp_path,
        unit=unit,
        resolution=resolution,
        fmt=binary,
        events=np.array([[10, 3]]),
    )
    recording = read(tmp_path / "made.vhdr")
    assert recording.channels == ("Fp1", "T7", "TP10") and recording.left_out == ("VEOG",)
    assert recording.sampling_rate == 250.0
    assert recording.segments == (Segment(0, 1000, 0.0),)
    assert recording.signal_CS.dtype == np.float32
    np.testing.assert_allclose(recording.signal_CS, signal_CS[[0, 1, 3]], atol=0.101)
    assert not recording.prewindowed and len(recording.source_sha256) == 64


def test_real_values_survive_an_export(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "eegmat" / "sub-07" / "eeg" / "sub-07_task-arithmetic_eeg.edf"
    raw = mne.io.read_raw_edf(source, verbose="error")
    raw.export(tmp_path / "made.vhdr", verbose="error")
    recording = read(tmp_path / "made.vhdr")
    of_edf = read(source)
    assert recording.channels == of_edf.channels
    np.testing.assert_allclose(recording.signal_CS, of_edf.signal_CS, atol=0.01)


def test_units_orientations_and_formats(tmp_path: Path) -> None:
    counts_CS = RNG.integers(-3000, 3000, (9, 700))
    lines = (
        "Fp1,,0.01,µV",
        "Fp2,,0.01,\u03bcV",  # a Greek mu, which MNE takes for volts
        "F3,,0.00001,mV",
        "F4,,10,nV",
        "C3,,1e-8,V",
        "C4,,0.01",  # no unit is microvolts
        "O1,,0.01,",
        "O2,,0.01,C",  # degrees
        r"a\1b,,1,µV",
    )
    for binary in ("INT_16", "INT_32", "IEEE_FLOAT_32"):
        for orientation in ("MULTIPLEXED", "VECTORIZED"):
            file = by_hand(tmp_path, counts_CS, lines, binary=binary, orientation=orientation)
            recording = read(file)
            assert recording.channels == ("Fp1", "Fp2", "F3", "F4", "C3", "C4", "O1")
            assert recording.left_out == ("O2", "a,b")
            np.testing.assert_allclose(recording.signal_CS, counts_CS[:7] * 0.01, rtol=1e-5)
    assert any("O2" in note and "'C' is no voltage" in note for note in recording.notes)


@pytest.mark.parametrize(
    ("codepage", "encoding"),
    [("UTF-8", "utf-8"), ("ANSI", "cp1252"), ("", "latin-1"), ("UTF-8", "latin-1")],
)
def test_headers_that_are_not_ascii(tmp_path: Path, codepage: str, encoding: str) -> None:
    file = by_hand(
        tmp_path,
        noise(3) * 10,
        ("Fp1,,0.1,µV", "Fp2,,0.1,µV", "Übung,,0.1,µV"),
        codepage=codepage,
        encoding=encoding,
        markers=(f"New Segment,,1,1,0,{STAMP}", "Comment,müde,40,1,0"),
    )
    recording = read(file)
    assert recording.channels == ("Fp1", "Fp2") and recording.left_out == ("Übung",)


def test_new_segments_part_the_recording(tmp_path: Path) -> None:
    markers = (
        f"New Segment,,1,1,0,{STAMP}",
        "Stimulus,S  1,100,1,0",
        "New Segment,,251,1,0,20240101120011500000",  # 10.5 s after the first second's end
        "New Segment,,501,1,0",
        "New Segment,,751,1,0,20240101120001000000",
    )
    recording = read(by_hand(tmp_path, noise(1) * 10, ("Cz,,0.1,µV",), markers=markers))
    assert recording.segments == (
        Segment(0, 250, 0.0),
        Segment(250, 500, 11.5),
        Segment(500, 750, 12.5),
        Segment(750, 1000, 13.5),
    )
    assert any("Gap of 10.500 s after 1.000 s" in note for note in recording.notes)
    assert sum("for how long the file does not say" in note for note in recording.notes) == 2
    # A clock that was set back says nothing.
    markers = (f"New Segment,,1,1,0,{STAMP}", "New Segment,,251,1,0,20240101115900000000")
    recording = read(by_hand(tmp_path, noise(1) * 10, ("Cz,,0.1,µV",), markers=markers))
    assert recording.segments[1] == Segment(250, 1000, 1.0)
    assert any("overlap by 61.000 s" in note for note in recording.notes)


@given(
    samples=st.integers(2, 600),
    places=st.lists(st.tuples(st.integers(2, 700), st.integers(0, 50)), max_size=12),
)
def test_segments_tile_the_samples_in_order_of_time(
    tmp_path_factory: pytest.TempPathFactory, samples: int, places: list[tuple[int, int]]
) -> None:
    seconds, before, markers = 0.0, 0, [f"New Segment,,1,1,0,{STAMP}"]
    for place, gap in sorted(places):
        seconds += (place - 1 - before) / 100 + gap
        before = place - 1
        stamp = f"20240101{12 + int(seconds) // 3600:02d}"
        stamp += f"{int(seconds) // 60 % 60:02d}{int(seconds) % 60:02d}"
        stamp += f"{round(seconds % 1 * 1e6):06d}"
        markers.append(f"New Segment,,{place},1,0,{stamp}")
    folder = tmp_path_factory.mktemp("made")
    file = by_hand(
        folder, noise(1, samples) * 10, ("Cz,,0.1,µV",), markers=tuple(markers), rate=100
    )
    recording = read(file)
    assert recording.segments[0].start == 0 and recording.segments[-1].stop == samples
    lost = 0.0
    for first, second in pairwise(recording.segments):
        assert first.stop == second.start
        lost += sum(gap for place, gap in places if place - 1 == second.start)
        assert second.onset_seconds == pytest.approx(second.start / 100 + lost, abs=1e-4)


def test_windows_of_an_export_are_kept(tmp_path: Path) -> None:
    common = "SegmentationType=MARKERBASED\nSegmentDataPoints=250"
    file = by_hand(tmp_path, noise(2) * 10, ("C3,,0.1,µV", "C4,,0.1,µV"), common=common)
    recording = read(file)
    assert recording.prewindowed
    assert [segment.stop for segment in recording.segments] == [250, 500, 750, 1000]
    (tmp_path / "made.vmrk").write_text(
        "Brain Vision Data Exchange Marker File, Version 1.0\nMk1=New Segment,,1,1,0\n"
        "Mk2=New Segment,,300,1,0\n"
    )
    assert "inside a window of 250 samples" in one_line(lambda: read(file))


def test_companions_are_what_the_header_names(tmp_path: Path) -> None:
    file = by_hand(tmp_path, noise(1) * 10, ("Cz,,0.1,µV",), data_file="$b.eeg")
    reader = find_reader(file)
    assert reader.companions is not None
    assert reader.companions(file) == [tmp_path / "made.eeg", tmp_path / "made.vmrk"]
    assert read(file).channels == ("Cz",)
    file.write_bytes(b"Brain Vision Data Exchange Header File Version 1.0\r\nnothing")
    assert reader.companions(file) == []


def test_the_digest_is_over_all_files(tmp_path: Path) -> None:
    file = by_hand(tmp_path, noise(1) * 10, ("Cz,,0.1,µV",))
    first = read(file).source_sha256
    assert read(file).source_sha256 == first
    data = bytearray((tmp_path / "made.eeg").read_bytes())
    data[0] ^= 1
    (tmp_path / "made.eeg").write_bytes(data)
    assert read(file).source_sha256 != first


def test_missing_and_renamed_files_are_refused(tmp_path: Path) -> None:
    file = by_hand(tmp_path, noise(1) * 10, ("Cz,,0.1,µV",))
    renamed = tmp_path / "sub-01_eeg.vhdr"
    file.rename(renamed)
    (tmp_path / "made.eeg").rename(tmp_path / "sub-01_eeg.eeg")
    message = one_line(lambda: read(renamed))
    assert "DataFile is 'made.eeg', which is not there" in message
    assert "sub-01_eeg.eeg is there: if the files were renamed" in message
    (tmp_path / "sub-01_eeg.eeg").rename(tmp_path / "made.EEG")
    assert "Did you mean 'made.EEG'?" in one_line(lambda: read(renamed))
    (tmp_path / "made.EEG").rename(tmp_path / "made.eeg")
    (tmp_path / "made.vmrk").unlink()
    assert "MarkerFile is 'made.vmrk', which is not there" in one_line(lambda: read(renamed))
    recording = read(renamed, allow_truncated=True)
    assert any("made.vmrk is missing" in note for note in recording.notes)
    (tmp_path / "made.eeg").unlink()
    (tmp_path / "made.eeg").symlink_to(tmp_path / "annex")
    assert "is a link to nothing" in one_line(lambda: read(renamed))


@pytest.mark.parametrize("name", ["../made.eeg", "/etc/passwd", "C:\\data\\made.eeg", "..\\x.eeg"])
def test_a_data_file_outside_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    file = by_hand(inside, noise(1) * 10, ("Cz,,0.1,µV",), data_file=name)
    (inside / "made.eeg").rename(tmp_path / "made.eeg")
    assert "leaves the header's folder" in one_line(lambda: read(file))
    assert find_reader(file).companions(file) == []  # type: ignore[misc]


@pytest.mark.parametrize("points", [True, False])
def test_a_cut_data_file_is_refused_unless_allowed(tmp_path: Path, points: bool) -> None:
    counts_CS = RNG.integers(-500, 500, (2, 1000))
    file = by_hand(tmp_path, counts_CS, ("C3,,0.1,µV", "C4,,0.1,µV"), points=points)
    data = tmp_path / "made.eeg"
    whole = data.read_bytes()
    data.write_bytes(whole[: 4 * 400 + 3])
    message = one_line(lambda: read(file))
    assert "holds 400.75" in message and "allow_truncated" in message
    recording = read(file, allow_truncated=True)
    np.testing.assert_allclose(recording.signal_CS, counts_CS[:, :400] * 0.1, rtol=1e-5)
    assert any("is cut" in note and "400 are read" in note for note in recording.notes)
    for size in (0, 3):
        data.write_bytes(whole[:size])
        assert "holds no sample" in one_line(lambda: read(file, allow_truncated=True))


def test_a_cut_vectorized_file_is_never_read(tmp_path: Path) -> None:
    lines = ("C3,,0.1,µV", "C4,,0.1,µV")
    file = by_hand(tmp_path, noise(2) * 10, lines, orientation="VECTORIZED")
    data = tmp_path / "made.eeg"
    data.write_bytes(data.read_bytes()[:-400])
    assert "one after another" in one_line(lambda: read(file, allow_truncated=True))


@pytest.mark.parametrize("extra", [1, 4, 4000])
def test_more_data_than_promised_is_refused(tmp_path: Path, extra: int) -> None:
    file = by_hand(tmp_path, noise(2) * 10, ("C3,,0.1,µV", "C4,,0.1,µV"))
    with (tmp_path / "made.eeg").open("ab") as opened:
        opened.write(b"\0" * extra)
    assert f"{extra} bytes more" in one_line(lambda: read(file, allow_truncated=True))


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("DataFormat=BINARY", "DataFormat=ASCII", "DataFormat is ASCII"),
        ("DataFormat=BINARY", "DataFormat=BINARY\r\nDataType=FREQUENCYDOMAIN", "FREQUENCYDOMAIN"),
        ("DataFormat=BINARY", "DataFormat=BINARY\r\nAveraged=YES", "Averaged is YES"),
        ("MULTIPLEXED", "SIDEWAYS", "DataOrientation is SIDEWAYS"),
        ("INT_16", "UINT_16", "BinaryFormat is UINT_16"),
        ("SamplingInterval=4000", "SamplingInterval=0", "SamplingInterval is 0"),
        ("SamplingInterval=4000", "SamplingInterval=fast", "SamplingInterval is 'fast'"),
        ("SamplingInterval=4000", "", "no SamplingInterval"),
        ("NumberOfChannels=2", "NumberOfChannels=1", "promises 1 channels and describes 2"),
        ("NumberOfChannels=2", "NumberOfChannels=3", "ch3 is there or missing"),
        ("Ch2=", "Ch0=", "ch0, ch2 is there or missing"),
        ("Ch2=", "Ch1=", "cannot be understood"),
        ("C4,,0.1", "c3,,0.1", "'C3' and 'c3' are both C3"),
        ("C4,,0.1", "C4,,0", "'C4' has the resolution 0"),
        ("C4,,0.1", "C4,,x", "resolution of channel 'C4' is 'x'"),
        ("Codepage=UTF-8", "Codepage=Klingon", "Codepage is 'Klingon'"),
        ("[Common Infos]", "[Common]", "no section [Common Infos]"),
        ("DataFile=made.eeg", "DataFile=", "no DataFile"),
        ("DataPoints=1000", "DataPoints=nan", "DataPoints is 'nan'"),
        (
            "INT_16",
            "INT_16\r\nUseBigEndianOrder=YES",
            "says usebigendianorder=YES in [Binary Infos]",
        ),
        ("INT_16", "INT_16\r\nDataOffset=4", "dataoffset=4"),
        ("INT_16", "INT_16\r\nChannelOffset=2", "channeloffset=2"),
        ("INT_16", "INT_16\r\nSegmentHeaderSize=16", "segmentheadersize=16"),
        ("INT_16", "INT_16\r\nTrailerSize=8", "trailersize=8"),
        ("INT_16", "INT_16\r\nPacking=zip", "packing=zip"),
    ],
)
def test_a_bad_header_is_refused(tmp_path: Path, before: str, after: str, says: str) -> None:
    file = by_hand(tmp_path, noise(2) * 10, ("C3,,0.1,µV", "C4,,0.1,µV"))
    message = one_line(lambda: read(changed(file, before, after)))
    assert says in message and "made.vhdr" in message


def test_binary_infos_that_change_nothing_are_read(tmp_path: Path) -> None:
    file = by_hand(tmp_path, noise(2) * 10, ("C3,,0.1,µV", "C4,,0.1,µV"))
    plain = read(file)
    others = "INT_16\r\nUseBigEndianOrder=NO\r\nDataOffset=0\r\nTrailerSize=\r\nChannelOffset=0"
    np.testing.assert_array_equal(read(changed(file, "INT_16", others)).signal_CS, plain.signal_CS)


def test_what_the_file_states_itself_is_used(tmp_path: Path) -> None:
    file = by_hand(tmp_path, noise(2) * 10, ("C3-A2,,0.1,µV", "C4 - A1,,0.1,µV"))
    plain = read(file)
    assert "The channel names state the references A2, A1." in plain.notes
    stated = {"sampling_rate": 256.0, "channel_names": ("O1", "O2"), "units": "mV"}
    recording = read(file, **stated)
    assert recording.channels == ("C3", "C4") and recording.sampling_rate == 250.0
    np.testing.assert_array_equal(recording.signal_CS, plain.signal_CS)
    assert set(recording.notes) - set(plain.notes) == {
        "sampling_rate (256 Hz) is not used: the file states 250 Hz.",
        "channel_names are not used: the file states its own.",
        "units are not used: the file states its own.",
    }
    file = by_hand(tmp_path, noise(2) * 10, ("C3,,0.1,µV", "C4,,0.1"))
    note = "units are not used: BrainVision channels without a unit are in microvolts."
    assert note in read(file, units="mV").notes


def test_no_usable_channel_is_refused(tmp_path: Path) -> None:
    file = by_hand(tmp_path, noise(2) * 10, ("VEOG,,0.1,µV", "C4,,0.1,kg"))
    message = one_line(lambda: read(file))
    assert "no EEG channel; it has VEOG, C4" in message and "'kg' is no voltage" in message


def test_a_header_cut_anywhere_is_refused(tmp_path: Path) -> None:
    file = by_hand(tmp_path, noise(2) * 10, ("C3,,0.1,µV", "C4,,0.1,µV"))
    whole = file.read_bytes()
    for size in range(60, len(whole) - 2, 7):
        file.write_bytes(whole[:size])
        one_line(lambda: read(file))
    for size in (1, 10):
        file.write_bytes(whole[:size])
        assert "its beginning is not" in one_line(lambda: read(file))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "does not begin as one (0 bytes)"),
        (b"\0" * 100, "does not begin as one"),
        (b"Brain Vision Data Exchange Marker File\nMk1=New Segment,,x,1,0\n", "its position"),
    ],
)
def test_a_damaged_marker_file_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    file = by_hand(tmp_path, noise(1) * 10, ("Cz,,0.1,µV",))
    (tmp_path / "made.vmrk").write_bytes(content)
    assert says in one_line(lambda: read(file))


def test_missing_values_end_a_segment(tmp_path: Path) -> None:
    signal_CS = noise(2)
    signal_CS[1, 300:350] = np.nan
    lines = ("C3,,1,µV", "C4,,1,µV", "Cz,,1,µV")
    signal_CS = np.vstack([signal_CS, np.full(1000, np.nan)])
    recording = read(by_hand(tmp_path, signal_CS, lines, binary="IEEE_FLOAT_32"))
    assert recording.channels == ("C3", "C4") and recording.left_out == ("Cz",)
    assert recording.segments == (Segment(0, 300, 0.0), Segment(300, 950, 1.4))
    kept_CS = np.delete(signal_CS[:2], np.s_[300:350], axis=1)
    np.testing.assert_allclose(recording.signal_CS, kept_CS, rtol=1e-6)
    assert any("1 stretch (0.200 s, the first at 1.200 s)" in note for note in recording.notes)
    file = by_hand(tmp_path, np.full((2, 10), np.nan), lines[:2], binary="IEEE_FLOAT_32")
    assert "no sample with a value" in one_line(lambda: read(file))


def test_one_sample(tmp_path: Path) -> None:
    file = by_hand(tmp_path, np.array([[300]]), ("Cz,,0.1,µV",))
    assert struct.unpack("<h", (tmp_path / "made.eeg").read_bytes()) == (300,)
    assert "varies by 0" in one_line(lambda: read(file))
