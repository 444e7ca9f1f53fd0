"""Mind Monitor: bursts, events, ragged rows and contact read rightly; logs refused.

The files are written as the app does: header and rows after files of 2017 to 2025 that people have
shown, with packets of 12 rows stamped on arrival.
"""

from __future__ import annotations

import gzip
import io
import zipfile
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings_made import one_line, row_of

from remit.recordings.recording import Recording, Segment
from remit.recordings.registry import ReaderOptions, read_recording

ELECTRODES = ("TP9", "AF7", "AF8", "TP10")
END = ("Battery", "Elements")
BEGIN = datetime(2018, 11, 22, 17, 21, 18, 123000)


def arrivals(rows: int, rate: float = 256.0, seed: int = 0) -> np.ndarray:
    """Seconds at which each row is stamped: packets of 12, late by up to 30 ms, some by 140 ms."""
    rng = np.random.default_rng(seed)
    stamps_S = np.empty(rows)
    last = 0.0
    for first in range(0, rows, 12):
        stop = min(first + 12, rows)
        last = max(last, first / rate + rng.uniform(0, 0.03) + (rng.random() < 0.02) * 0.1)
        stamps_S[first:stop] = last + np.arange(stop - first) * 0.0004
    return stamps_S


def signal(rows: int, channels: int = 4, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.round(800 + 20 * rng.standard_normal((channels, rows)), 4)


def stamp(seconds: float, digits: int = 3) -> str:
    text = (BEGIN + timedelta(seconds=float(seconds))).isoformat(" ", "microseconds")
    return text[: -(6 - digits) or None] if digits else text[:-7]


class App:
    """What the app would write; tests change it before `text` is asked for."""

    def __init__(self, rows: int = 6000, rate: float = 256.0) -> None:
        self.electrodes = ELECTRODES
        self.stamps = [stamp(each) for each in arrivals(rows, rate)]
        self.signal_CS = signal(rows)
        self.raw = [[f"{value:.4f}" for value in row] for row in self.signal_CS.T]
        self.worn = ["1"] * rows
        self.hsi = [["1.0"] * 4 for _ in range(rows)]
        self.events: dict[int, str] = {0: "/muse/event/connected Muse-A579"}  # before this row
        self.ragged = True  # rows of samples end without the cell of Elements

    def header(self) -> list[str]:
        bands = [f"{b}_{e}" for b in ("Delta", "Alpha") for e in self.electrodes]
        raw = [f"RAW_{e}" for e in self.electrodes]
        hsi = [f"HSI_{e}" for e in self.electrodes]
        return ["TimeStamp", *bands, *raw, "AUX_RIGHT", "Accelerometer_X", "HeadBandOn", *hsi, *END]

    def text(self) -> str:
        header = self.header()
        lines = [",".join(header)]
        for row, time in enumerate(self.stamps):
            if row in self.events:
                lines.append(time + "," * (len(header) - 1) + self.events[row])
            cells = [time, *["0.5"] * 8, *self.raw[row], "790.1", "0.42", self.worn[row]]
            cells += [*self.hsi[row], "97.94"]
            lines.append(",".join(cells if self.ragged else [*cells, ""]))
        return "\n".join([*lines, ""])


def read(folder: Path, text: str, options: ReaderOptions | None = None) -> Recording:
    file = folder / "mindMonitor_2018-11-22.csv"
    file.write_text(text, encoding="utf-8")
    return read_recording(row_of(file), options or ReaderOptions())


@pytest.mark.parametrize("ragged", [True, False])
def test_a_file_as_the_app_writes_it(tmp_path: Path, ragged: bool) -> None:
    app = App()
    app.ragged = ragged
    app.events |= {700: "/muse/elements/blink", 900: "/Marker/1", 901: "/muse/elements/blink"}
    recording = read(tmp_path, app.text())
    assert recording.sampling_rate == 256.0
    assert recording.channels == ELECTRODES
    assert recording.segments == (Segment(0, 6000, 0.0),)
    np.testing.assert_array_equal(recording.signal_CS, app.signal_CS.astype(np.float32))
    assert recording.contact_CS is not None and recording.contact_CS.all()
    assert recording.worn_S is not None and recording.worn_S.all()
    assert "Delta_TP9" in recording.left_out and "AUX_RIGHT" in recording.left_out
    assert "Battery" in recording.left_out and "HSI_TP9" not in recording.left_out
    (events,) = [note for note in recording.notes if "events are not used" in note]
    assert events.startswith("4 events") and "/muse/elements/blink (2)" in events
    assert "/Marker/1 (1)" in events


def test_every_packing_is_read_alike(tmp_path: Path) -> None:
    text = App(2000).text().encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mindMonitor.csv", text)
    found = []
    for name, content in (("a.csv", text), ("a.csv.gz", gzip.compress(text)), ("a.zip", packed)):
        file = tmp_path / name
        file.write_bytes(content if isinstance(content, bytes) else content.getvalue())
        found.append(read_recording(row_of(file), ReaderOptions()))
    for each in found[1:]:
        np.testing.assert_array_equal(each.signal_CS, found[0].signal_CS)
        assert each.segments == found[0].segments and each.notes == found[0].notes


def test_contact_is_what_the_headset_said(tmp_path: Path) -> None:
    app = App()
    for row in range(1000, 2000):
        app.hsi[row] = ["4.0", "2.0", "1.0", "4"]
    for row in range(3000, 3500):
        app.worn[row] = "0"
    for row in range(4000, 4100):
        app.hsi[row][2] = ""
    recording = read(tmp_path, app.text())
    expected_CS = np.ones((4, 6000), dtype=bool)
    expected_CS[[0, 3], 1000:2000] = False
    expected_CS[:, 3000:3500] = False
    expected_CS[2, 4000:4100] = False
    np.testing.assert_array_equal(recording.contact_CS, expected_CS)
    np.testing.assert_array_equal(recording.worn_S, expected_CS[1])


def test_without_the_headsets_word_there_is_none(tmp_path: Path) -> None:
    app = App(2000)
    app.worn = [""] * 2000
    app.hsi = [[""] * 4 for _ in range(2000)]
    recording = read(tmp_path, app.text())
    assert recording.contact_CS is None and recording.worn_S is None


def test_rows_without_samples_end_a_segment_and_keep_time(tmp_path: Path) -> None:
    app = App()
    for row in range(2000, 2100):
        app.raw[row] = [""] * 4
    app.raw[4000][1] = ""
    recording = read(tmp_path, app.text())
    assert [(s.start, s.stop) for s in recording.segments] == [
        (0, 2000),
        (2000, 3900),
        (3900, 5899),
    ]
    onsets = [segment.onset_seconds for segment in recording.segments]
    assert onsets == pytest.approx([0, 2100 / 256, 4001 / 256], abs=1e-3)
    kept = [row for row in range(6000) if not 2000 <= row < 2100 and row != 4000]
    np.testing.assert_array_equal(recording.signal_CS, app.signal_CS[:, kept].astype(np.float32))
    assert recording.contact_CS is not None and recording.contact_CS.shape == (4, 5899)
    assert any("101 rows lack a sample" in note for note in recording.notes)


def test_an_event_on_a_row_of_samples_keeps_the_sample(tmp_path: Path) -> None:
    app = App(2000)
    app.ragged = False
    lines = app.text().splitlines()
    lines[500] += "blink"
    recording = read(tmp_path, "\n".join([*lines, ""]))
    assert recording.segments == (Segment(0, 2000, 0.0),)
    assert any("blink (1)" in note for note in recording.notes)


def test_an_event_in_latin_1_loses_nothing(tmp_path: Path) -> None:
    app = App(2000)
    app.events[700] = "/Annotation müde"
    file = tmp_path / "m.csv"
    file.write_bytes(app.text().encode("cp1252"))
    recording = read_recording(row_of(file), ReaderOptions())
    np.testing.assert_array_equal(recording.signal_CS, app.signal_CS.astype(np.float32))
    assert any("/Annotation müde (1)" in note for note in recording.notes)


def test_lost_packets_are_gaps(tmp_path: Path) -> None:
    app = App(9000)
    whole = app.signal_CS
    lost = slice(3000, 3000 + 12 * 256)  # 12 s
    del app.stamps[lost], app.raw[lost], app.worn[lost], app.hsi[lost]
    recording = read(tmp_path, app.text())
    (one, two) = recording.segments
    assert (one.start, one.stop, two.start) == (0, 3000, 3000)
    assert two.onset_seconds == pytest.approx((3000 + 12 * 256) / 256, abs=0.05)
    assert recording.signal_CS.shape[1] == whole.shape[1] - 12 * 256


@pytest.mark.parametrize(
    "electrodes", [("TP9", "FP1", "FP2", "TP10"), ("tp9", "fp1", "fp2", "tp10")]
)
def test_muse_of_2014_has_220_hz(tmp_path: Path, electrodes: tuple[str, ...]) -> None:
    app = App(6000, 220.0)
    app.electrodes = electrodes
    recording = read(tmp_path, app.text())
    assert recording.sampling_rate == 220.0
    assert recording.channels == ("TP9", "Fp1", "Fp2", "TP10")


@pytest.mark.parametrize("rate", [256.0, 220.0])
def test_stamps_of_whole_seconds_are_enough(tmp_path: Path, rate: float) -> None:
    app = App(8000, rate)
    app.stamps = [stamp(row / rate, 0) for row in range(8000)]
    assert len(app.stamps[0]) == len("2018-11-22 17:21:18")
    recording = read(tmp_path, app.text())
    assert recording.sampling_rate == rate
    assert recording.segments == (Segment(0, 8000, 0.0),)


def test_the_clocks_change_in_autumn(tmp_path: Path) -> None:
    app = App()
    times = arrivals(6000)
    times[3000:] -= 3600
    app.stamps = [stamp(each) for each in times]
    recording = read(tmp_path, app.text())
    assert [(s.start, s.stop) for s in recording.segments] == [(0, 3000), (3000, 6000)]
    assert recording.segments[1].onset_seconds == pytest.approx(3000 / 256, abs=0.05)
    assert any("how much time passed there is unknown" in note for note in recording.notes)
    times[3000:] += 7200
    app.stamps = [stamp(each) for each in times]
    recording = read(tmp_path, app.text())
    assert recording.segments[1].onset_seconds == pytest.approx(3000 / 256 + 3600, abs=0.05)
    assert any("an hour: perhaps only the clock" in note for note in recording.notes)


@pytest.mark.parametrize(
    ("form", "digits"), [("T", 3), ("Z", 3), ("+02:00", 3), (" ", 6), ("epoch", 3), ("ms", 0)]
)
def test_other_spellings_of_time(tmp_path: Path, form: str, digits: int) -> None:
    app = App(3000)
    times = arrivals(3000)
    if form in ("epoch", "ms"):
        scale = 1000 if form == "ms" else 1
        app.stamps = [f"{(1.6e9 + each) * scale:.{digits}f}" for each in times]
    else:
        app.stamps = [stamp(each, digits) for each in times]
        if form != " ":
            zone = "" if form == "T" else form
            app.stamps = [each.replace(" ", "T") + zone for each in app.stamps]
    recording = read(tmp_path, app.text())
    assert recording.sampling_rate == 256.0
    assert recording.segments == (Segment(0, 3000, 0.0),)


@pytest.mark.parametrize("interval", [1.0, 0.5, 0.1, 1 / 60])
def test_a_log_at_an_interval_is_refused(tmp_path: Path, interval: float) -> None:
    app = App(600)
    app.stamps = [stamp(row * interval) for row in range(600)]
    message = one_line(lambda: read(tmp_path, app.text()))
    assert "holds no EEG spectrum" in message


def test_a_rate_of_no_muse_is_refused(tmp_path: Path) -> None:
    app = App(6000)
    app.stamps = [stamp(row / 128) for row in range(6000)]
    message = one_line(lambda: read(tmp_path, app.text()))
    assert "128.00 rows per second" in message and "'Constant'" in message


def replaced(line: int, column: str, cell: str) -> str:
    app = App(1000)
    lines = app.text().splitlines()
    cells = lines[line - 1].split(",")
    cells[app.header().index(column)] = cell
    lines[line - 1] = ",".join(cells)
    return "\n".join([*lines, ""])


def bands_only() -> str:
    return App(1000).text().replace("RAW_", "Beta_")


def spreadsheet() -> str:
    app = App(1000)
    app.stamps = [f"{row // 256:02d}:{row % 60:02d}.6" for row in range(1000)]
    return app.text()


def events_only() -> str:
    header = App(1).header()
    row = "2018-11-22 17:21:18.123" + "," * (len(header) - 1) + "/Marker/1"
    return "\n".join([",".join(header), row, row, ""])


def doubled() -> str:
    lines = App(1000).text().splitlines()
    return "\n".join([*lines[:500], *lines[404:500], *lines[500:], ""])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (bands_only(), "has no RAW columns"),
        (spreadsheet(), "the time stamps are such as '00:00.6'"),
        (replaced(300, "RAW_AF7", "x"), "line 300: column RAW_AF7 is 'x'; expected a number"),
        (replaced(300, "RAW_AF7", "inf"), "line 300: column RAW_AF7 is infinite"),
        (
            replaced(300, "TimeStamp", "17:21"),
            "line 300: column TimeStamp is '17:21'; expected a d",
        ),
        (replaced(300, "TimeStamp", ""), "line 300: column TimeStamp is empty"),
        (replaced(300, "Battery", "1,2"), "line 300: 22 cells; expected 21"),
        (App(1000).text().replace("RAW_AF8", "RAW_af7", 1), "two columns are 'RAW_af7' (AF7)"),
        (App(1000).text().replace("Battery", "HeadBandOn", 1), "two columns are 'HeadBandOn'"),
        (App(1000).text()[:-5], "the file ends inside this row"),
        (App(0).text(), "holds a header and no rows"),
        (App(1).text(), "holds 1 rows"),
        (events_only(), "holds events only (/Marker/1"),
        (doubled(), "repeat the stamps and samples of those from row 40"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, text: str, says: str) -> None:
    message = one_line(lambda: read(tmp_path, text))
    assert says in message and "mindMonitor_2018-11-22.csv" in message


def test_a_cut_file_is_read_on_request(tmp_path: Path) -> None:
    recording = read(tmp_path, App(1000).text()[:-5], ReaderOptions(allow_truncated=True))
    assert recording.signal_CS.shape == (4, 999)


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.integers(3000, 9000))
def test_the_rate_comes_out_of_any_bursts(
    tmp_path_factory: pytest.TempPathFactory, seed: int, rows: int
) -> None:
    app = App(rows)
    app.stamps = [stamp(each) for each in arrivals(rows, 256.0, seed)]
    recording = read(tmp_path_factory.mktemp("m"), app.text())
    assert recording.sampling_rate == 256.0
    # Whether the very last burst came late or after a gap, nothing behind it can tell.
    first, *rest = recording.segments
    assert (first.start, first.onset_seconds) == (0, 0.0)
    assert first.stop >= rows - 48 and len(rest) <= 1


@pytest.mark.parametrize("before", ["", "\n", "sep=;\n", "\n\nsep=;\n"])
@pytest.mark.parametrize("decimal", [".", ","])
def test_a_file_that_a_spreadsheet_saved_keeps_the_headsets_word(
    tmp_path: Path, before: str, decimal: str
) -> None:
    app = App(2000)
    app.worn = ["0"] * 2000
    app.events[700] = "/muse/elements/blink"
    expected = read(tmp_path, app.text())
    lines = []
    for line in app.text().splitlines():
        time, *cells = line.split(",")
        lines.append(";".join([time, *(cell.replace(".", decimal) for cell in cells)]))
    recording = read(tmp_path, before + "\n".join([*lines, ""]))
    np.testing.assert_array_equal(recording.signal_CS, expected.signal_CS)
    assert recording.worn_S is not None and not recording.worn_S.any()
    assert recording.contact_CS is not None and not recording.contact_CS.any()
    assert recording.segments == expected.segments and recording.left_out == expected.left_out
    assert recording.notes == expected.notes


def test_excels_first_line_with_commas(tmp_path: Path) -> None:
    app = App(2000)
    app.worn = ["0"] * 2000
    for before in ("\n", "sep=,\n"):
        recording = read(tmp_path, before + app.text())
        assert recording.worn_S is not None and not recording.worn_S.any()


def test_another_spelling_of_the_time_keeps_the_headsets_word(tmp_path: Path) -> None:
    app = App(2000)
    app.worn = ["0"] * 2000
    recording = read(tmp_path, app.text().replace("TimeStamp", "timestamps", 1))
    assert recording.worn_S is not None and not recording.worn_S.any()
    message = one_line(lambda: read(tmp_path, app.text().replace("TimeStamp", "When", 1)))
    assert "has Mind Monitor's columns (RAW_TP9, RAW_AF7" in message


@pytest.mark.parametrize("ragged", [True, False])
@pytest.mark.parametrize("null", ["null", "NaN", ""])
def test_a_row_of_nulls_is_no_event(tmp_path: Path, ragged: bool, null: str) -> None:
    app = App()
    app.ragged = ragged
    lines = app.text().splitlines()
    line = 3002  # behind the header and one event
    time, *cells = lines[line].split(",")
    lines[line] = ",".join([time, *[null] * len(cells)])
    recording = read(tmp_path, "\n".join([*lines, ""]))
    assert [(s.start, s.stop) for s in recording.segments] == [(0, 3000), (3000, 5999)]
    assert any("1 rows lack a sample" in note for note in recording.notes)
    (events,) = [note for note in recording.notes if "events are not used" in note]
    assert events.startswith("1 events")


def test_a_unit_other_than_microvolts_contradicts(tmp_path: Path) -> None:
    text = App(2000).text()
    for units in ("V", "mV", "counts"):
        options = ReaderOptions(units=units)
        message = one_line(lambda options=options: read(tmp_path, text, options))
        assert f"units states '{units}'" in message
    for units in ("uV", "µV", "n/a"):
        assert read(tmp_path, text, ReaderOptions(units=units)).signal_CS.shape == (4, 2000)


def test_a_rate_in_the_sheet_that_contradicts_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "m.csv"
    file.write_text(App(2000).text())
    row = row_of(file, sampling_rate=220.0)
    assert "the cohort sheet says 220 Hz" in one_line(lambda: read_recording(row, ReaderOptions()))


def test_two_decimal_signs_are_refused(tmp_path: Path) -> None:
    text = App(500).text().replace(",", ";")
    message = one_line(lambda: read(tmp_path, text.replace("0.5;0.5", "0,5;0.5", 1)))
    assert "have commas and points" in message


def test_a_damaged_archive_is_refused_whatever_is_allowed(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(App(500).text().encode()))
    packed[-8] ^= 0xFF  # the checksum
    file = tmp_path / "m.csv.gz"
    file.write_bytes(packed)
    options = ReaderOptions(allow_truncated=True)
    assert "CRC check failed" in one_line(lambda: read_recording(row_of(file), options))


def test_a_packet_lost_inside_a_burst_is_not_joined(tmp_path: Path) -> None:
    app = App(9612)
    times = np.repeat(np.arange(9612 // 12 // 4 + 1) * 48 / 256, 48)[:9612]
    app.stamps = [stamp(each) for each in times]
    lost = slice(6984, 6996)
    del app.stamps[lost], app.raw[lost], app.worn[lost], app.hsi[lost]
    recording = read(tmp_path, app.text())
    first, second = recording.segments
    assert (first.stop, second.start) == (6960, 6996)
    assert second.onset_seconds == pytest.approx(7008 / 256, abs=0.01)
    assert any("36 rows that arrived together at a gap" in note for note in recording.notes)
    assert recording.contact_CS is not None and recording.contact_CS.shape == (4, 9600)
