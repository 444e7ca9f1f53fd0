"""Muse CSV: real files read rightly, damaged ones refused."""

from __future__ import annotations

import csv
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


def lines(rows: int = 512, header: str = HEADER) -> list[str]:
    body = [f"{100 + i / 256:.3f},{i}.000,1.5,2.5,-3.5,9.0,0" for i in range(rows)]
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
    body = [f"{i},{i}.0,1.5,2.5,-3.5,9.0,{100 + i / 256:.3f}" for i in range(512)]
    recording = read(write(tmp_path, [",TP9,AF7,AF8,TP10,Right AUX,timestamps", *body]))
    assert recording.channels == ("TP9", "AF7", "AF8", "TP10")
    assert recording.sampling_rate == 256.0
    assert recording.signal_CS[:, 7].tolist() == [7.0, 1.5, 2.5, -3.5]
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
        (changed(100, "100.387,1,2,,4,5,0"), "line 100: column AF8 is ''"),
        (changed(100, "100.387,nan,2,3,4,5,0"), "line 100: column TP9 is nan"),
        (changed(100, "inf,1,2,3,4,5,0"), "line 100: column timestamps is inf"),
        (lines(header=HEADER.replace("AF8", "af7")), "two columns are 'af7' (AF7)"),
        (lines(header=HEADER.replace("AF8", "AF7")), "two columns are 'AF7'"),
        ([HEADER], "holds a header and no rows"),
        (lines(header=HEADER.replace("timestamps", "time")), "'timestamps'"),
        (lines(1), "holds 1 rows"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, text: list[str], says: str) -> None:
    message = one_line(lambda: read(write(tmp_path, text)))
    assert says in message and "m.csv" in message


def test_a_file_without_a_last_line_end_may_be_cut(tmp_path: Path) -> None:
    message = one_line(lambda: read(write(tmp_path, lines(), end="")))
    assert "line 513" in message
