"""Muse CSV: real files read rightly, damaged ones refused."""

from __future__ import annotations

import csv
import gzip
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
from recordings_made import one_line, row_of

from remit.recordings.recording import Recording, Segment
from remit.recordings.registry import ReaderOptions, read_recording

OPTIONS = ReaderOptions()
HEADER = "timestamps,TP9,AF7,AF8,TP10,Right AUX,Marker0"


def read(path: Path) -> Recording:
    return read_recording(row_of(path), OPTIONS)


def wave(i: int) -> float:
    """Something like EEG: no row is as the one before."""
    return round(20 * math.sin(i * 0.7) + 5 * math.sin(i * 0.11), 3)


def lines(rows: int = 512, header: str = HEADER) -> list[str]:
    body = [
        f"{100 + i / 256:.3f},{wave(i)},{wave(i + 9)},{wave(i + 31)},{wave(i + 77)},9.0,0"
        for i in range(rows)
    ]
    return [header, *body]


def write(folder: Path, text: list[str], end: str = "\n") -> Path:
    file = folder / "m.csv"
    file.write_text("\n".join(text) + end, encoding="utf-8")
    return file


def test_real_rates_are_256_and_the_one_gap_is_found(shared_data: Path) -> None:
    files = sorted((shared_data / "muse").glob("subject*/*.csv"))
    assert len(files) == 17
    for file in files:
        recording = read(file)
        assert recording.sampling_rate == 256.0
        assert recording.channels == ("TP9", "AF7", "AF8", "TP10")
        assert recording.left_out == ("Right AUX", "Marker0")
        if "subject1308" in file.name:
            first, second = recording.segments
            assert (first.stop, second.start, second.stop) == (49848, 49848, 49860)
            assert second.onset_seconds == pytest.approx(1355.118, abs=0.001)
        else:
            assert recording.segments == (Segment(0, recording.signal_CS.shape[1], 0.0),)


def test_real_values_are_those_of_the_csv_module(shared_data: Path) -> None:
    file = next((shared_data / "muse" / "subject103").glob("*.csv"))
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    expected_CS = np.array(
        [[row[name] for row in rows] for name in ("AF7", "AF8", "TP9", "TP10")], dtype=np.float32
    )
    picked = read(file).pick(["AF7", "AF8", "TP9", "TP10"])
    np.testing.assert_array_equal(picked.signal_CS, expected_CS)


def test_backward_stamps_are_late_packets_of_one_steady_recording(shared_data: Path) -> None:
    file = next((shared_data / "muse" / "backward_stamps").glob("*.csv"))
    recording = read(file)
    assert recording.sampling_rate == 256.0
    assert recording.segments == (Segment(0, 30552, 0.0),)
    assert any("1647 time stamps run backwards" in note for note in recording.notes)


def test_a_packet_lost_among_late_packets_is_found(shared_data: Path, tmp_path: Path) -> None:
    file = next((shared_data / "muse" / "backward_stamps").glob("*.csv"))
    text = file.read_text().splitlines()
    del text[1 + 12 * 800 : 1 + 12 * 801]
    recording = read(write(tmp_path, text))
    assert [segment.start for segment in recording.segments] == [0, 9600]
    assert recording.segments[1].onset_seconds == pytest.approx(9612 / 256, abs=0.015)


def test_the_order_of_record_direct_is_read_by_name(tmp_path: Path) -> None:
    rows = [line.split(",") for line in lines()[1:]]
    body = [",".join([str(i), *cells[1:6], cells[0]]) for i, cells in enumerate(rows)]
    recording = read(write(tmp_path, [",TP9,AF7,AF8,TP10,Right AUX,timestamps", *body]))
    assert recording.channels == ("TP9", "AF7", "AF8", "TP10")
    assert recording.sampling_rate == 256.0
    expected_C = np.array([wave(7), wave(16), wave(38), wave(84)], dtype=np.float32)
    np.testing.assert_array_equal(recording.signal_CS[:, 7], expected_C)
    assert recording.left_out == ("Right AUX",)


def test_byte_order_mark_and_windows_line_ends_do_not_matter(tmp_path: Path) -> None:
    file = tmp_path / "m.csv"
    file.write_bytes(b"\xef\xbb\xbf" + ("\r\n".join(lines()) + "\r\n").encode())
    assert read(file).signal_CS.shape == (4, 512)


def test_the_cut_real_file_is_refused_with_its_row(shared_data: Path) -> None:
    message = one_line(lambda: read(shared_data / "malformed" / "muse_cut_mid_row.csv"))
    assert "line 14900" in message and "ends inside this row" in message


def changed(line: int, text: str) -> list[str]:
    return [*lines()[: line - 1], text, *lines()[line:]]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (changed(100, "100.1,1,2,3"), "line 100: 4 cells; expected 7"),
        (changed(100, "100.387,1,2,x3,4,5,0"), "line 100: column AF8 is 'x3'"),
        (changed(100, "100.387,1e99,2,3,4,5,0"), "line 100: column TP9 is infinite"),
        (changed(100, "100.387,-inf,2,3,4,5,0"), "line 100: column TP9 is infinite"),
        (changed(100, "inf,1,2,3,4,5,0"), "line 100: column timestamps is infinite"),
        (changed(100, ",1,2,3,4,5,0"), "column timestamps is empty in 1 rows"),
        (changed(100, HEADER), "line 100: column timestamps is 'timestamps'"),
        ([HEADER, *(f"{100 + i / 256:.3f},,,,,9.0,0" for i in range(512))], "hold no numbers"),
        (lines(header=HEADER.replace("AF8", "af7")), "two columns are 'af7' (AF7)"),
        (lines(header=HEADER.replace("AF8", "AF7")), "two columns are 'AF7'"),
        ([HEADER], "holds a header and no rows"),
        (lines(1), "holds 1 rows"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, text: list[str], says: str) -> None:
    message = one_line(lambda: read(write(tmp_path, text)))
    assert says in message and "m.csv" in message


def test_a_file_without_a_last_line_end_may_be_cut(tmp_path: Path) -> None:
    message = one_line(lambda: read(write(tmp_path, lines(), end="")))
    assert "line 513" in message


def test_a_last_row_that_may_be_cut_is_left_out_on_request(tmp_path: Path) -> None:
    file = write(tmp_path, lines(), end="")
    recording = read_recording(row_of(file), ReaderOptions(allow_truncated=True))
    assert recording.signal_CS.shape == (4, 511)
    assert any("may be cut; it is left out" in note for note in recording.notes)


@pytest.mark.parametrize("missing", ["", "nan", "NaN"])
def test_rows_without_a_sample_end_a_segment(tmp_path: Path, missing: str) -> None:
    text = lines()
    for line in (100, 101, 300):
        cells = text[line].split(",")
        text[line] = ",".join([cells[0], cells[1], missing, *cells[3:]])
    recording = read(write(tmp_path, text))
    assert [(s.start, s.stop) for s in recording.segments] == [(0, 99), (99, 297), (297, 509)]
    onsets = [segment.onset_seconds for segment in recording.segments]
    assert onsets == pytest.approx([0, 101 / 256, 300 / 256], abs=2e-3)
    assert recording.signal_CS[0, 99] == np.float32(wave(101))
    assert any("3 rows lack a sample" in note and "2 stretches" in note for note in recording.notes)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("timestamps,RAW_TP9,RAW_FP1,RAW_FP2,RAW_TP10,aux,marker", ("TP9", "Fp1", "Fp2", "TP10")),
        ("timestamps,tp9,fp1,fp2,tp10,aux,marker", ("TP9", "Fp1", "Fp2", "TP10")),
        ("Timestamps,TP9,FP1,FP2,TP10,Right AUX,Marker", ("TP9", "Fp1", "Fp2", "TP10")),
    ],
)
def test_older_spellings(tmp_path: Path, header: str, expected: tuple[str, ...]) -> None:
    recording = read(write(tmp_path, lines(header=header)))
    assert recording.channels == expected
    assert len(recording.left_out) == 2


@pytest.mark.parametrize("first", [200, 300])
def test_rows_that_are_there_twice_are_refused(tmp_path: Path, first: int) -> None:
    text = lines()
    doubled = [*text[:340], *text[first:340], *text[340:]]
    message = one_line(lambda: read(write(tmp_path, doubled)))
    assert f"{340 - first} rows from row 340 repeat" in message
    assert f"from row {first}; " in message


def test_a_clock_that_is_set_back_begins_a_segment(tmp_path: Path) -> None:
    text = lines(4000)
    for line in range(2001, 4001):
        cells = text[line].split(",")
        text[line] = ",".join([f"{float(cells[0]) - 7:.3f}", *cells[1:]])
    recording = read(write(tmp_path, text))
    assert [(s.start, s.stop) for s in recording.segments] == [(0, 2000), (2000, 4000)]
    assert recording.segments[1].onset_seconds == pytest.approx(2000 / 256, abs=1e-3)
    assert any("s at row 2001, after 7.812 s" in note for note in recording.notes)


def test_a_channel_without_numbers_is_left_out(tmp_path: Path) -> None:
    text = lines()
    body = [",".join([*line.split(",")[:3], "", *line.split(",")[4:]]) for line in text[1:]]
    recording = read(write(tmp_path, [HEADER, *body]))
    assert recording.channels == ("TP9", "AF7", "TP10")
    assert "AF8" in recording.left_out
    assert recording.segments == (Segment(0, 512, 0.0),)


def test_packed_files_are_read_as_plain_ones(shared_data: Path, tmp_path: Path) -> None:
    file = next((shared_data / "muse" / "subject103").glob("*.csv"))
    expected = read(file)
    packed = tmp_path / "a.csv.gz"
    packed.write_bytes(gzip.compress(file.read_bytes(), 1))
    zipped = tmp_path / "a.zip"
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(file, "folder/a.CSV")
    for each in (packed, zipped):
        recording = read(each)
        np.testing.assert_array_equal(recording.signal_CS, expected.signal_CS)
        assert recording.segments == expected.segments


@pytest.mark.parametrize("before", ["\n", "sep=;\n", "\nsep=;\n"])
@pytest.mark.parametrize("decimal", [".", ","])
def test_a_file_that_a_spreadsheet_saved(tmp_path: Path, before: str, decimal: str) -> None:
    expected = read(write(tmp_path, lines()))
    text = [line.replace(",", ";").replace(".", decimal) for line in lines()]
    file = tmp_path / "s.csv"
    file.write_text(before + "\n".join([*text, ""]))
    recording = read(file)
    np.testing.assert_array_equal(recording.signal_CS, expected.signal_CS)
    assert recording.segments == expected.segments
    assert recording.left_out == expected.left_out


def test_a_stated_unit_is_used(tmp_path: Path) -> None:
    volts = [HEADER]
    for line in lines()[1:]:
        cells = line.split(",")
        volts.append(",".join([cells[0], *(repr(float(x) * 1e-6) for x in cells[1:5]), "9.0,0"]))
    file = write(tmp_path, volts)
    recording = read_recording(row_of(file), ReaderOptions(units="V"))
    expected_S = np.array([wave(i) for i in range(512)])
    np.testing.assert_allclose(recording.signal_CS[0], expected_S, rtol=1e-5, atol=1e-4)
    assert any("in 'V'" in note for note in recording.notes)
    assert "expected 0.1 to 1000 µV" in one_line(lambda: read(file))
    file = write(tmp_path, lines())
    for units in ("uV", "n/a", None):
        recording = read_recording(row_of(file), ReaderOptions(units=units))
        np.testing.assert_array_equal(recording.signal_CS[0], expected_S.astype(np.float32))
    for units, says in (("V", "expected 0.1 to 1000 µV"), ("counts", "raw counts")):
        options = ReaderOptions(units=units)
        assert says in one_line(lambda options=options: read_recording(row_of(file), options))


def test_a_rate_in_the_sheet_that_contradicts_is_refused(tmp_path: Path) -> None:
    row = row_of(write(tmp_path, lines()), sampling_rate=128.0)
    message = one_line(lambda: read_recording(row, OPTIONS))
    assert "has 256 Hz, and the cohort sheet says 128 Hz" in message


def test_two_decimal_signs_are_refused(tmp_path: Path) -> None:
    text = [line.replace(",", ";") for line in lines()]
    text[3] = text[3].replace(".", ",")
    assert "have commas and points" in one_line(lambda: read(write(tmp_path, text)))


def test_a_damaged_archive_is_refused_whatever_is_allowed(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(("\n".join(lines()) + "\n").encode()))
    packed[-8] ^= 0xFF  # the checksum
    file = tmp_path / "m.csv.gz"
    file.write_bytes(packed)
    for allow in (False, True):
        options = ReaderOptions(allow_truncated=allow)
        message = one_line(lambda options=options: read_recording(row_of(file), options))
        assert "CRC check failed" in message
