"""Any other CSV: everything is found by what the file says, or refused."""

from __future__ import annotations

import csv
import gzip
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings_made import one_line, row_of

from remit.recordings.recording import Recording, Segment
from remit.recordings.registry import ReaderOptions, find_reader, read_recording

NAMES = ("Fz", "Cz", "Pz")
NONE = ReaderOptions()


def eeg(samples: int = 2000, channels: int = 3, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.round(20 * rng.standard_normal((channels, samples)), 3)


def table(
    signal_CS: np.ndarray,
    header: str | None = "time,Fz,Cz,Pz",
    rate: float | None = 250.0,
    delimiter: str = ",",
    decimal: str = ".",
    form: str = "{:.6f}",
) -> str:
    lines = [] if header is None else [header]
    for row, values in enumerate(signal_CS.T.tolist()):
        cells = [] if rate is None else [form.format(row / rate)]
        cells += [repr(value) for value in values]
        lines.append(delimiter.join(cell.replace(".", decimal) for cell in cells))
    return "\n".join([*lines, ""])


def read(folder: Path, text: str | bytes, options: ReaderOptions = NONE) -> Recording:
    file = folder / "x.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_recording(row_of(file), options)


def check(recording: Recording, signal_CS: np.ndarray, rate: float = 250.0) -> None:
    assert recording.sampling_rate == rate
    assert recording.segments == (Segment(0, signal_CS.shape[1], 0.0),)
    np.testing.assert_array_equal(recording.signal_CS, signal_CS.astype(np.float32))


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("decimal", [".", ","])
def test_delimiters_and_decimal_signs(tmp_path: Path, delimiter: str, decimal: str) -> None:
    if delimiter == decimal:
        return
    signal_CS = eeg()
    text = table(signal_CS, f"time{delimiter}Fz{delimiter}Cz{delimiter}Pz", 250, delimiter, decimal)
    recording = read(tmp_path, text)
    check(recording, signal_CS)
    assert recording.channels == NAMES


def test_real_values_are_those_of_the_csv_module(shared_data: Path, tmp_path: Path) -> None:
    file = next((shared_data / "muse" / "subject103").glob("*.csv"))
    with file.open(newline="") as opened:
        rows = list(csv.reader(opened))
    order = [4, 0, 2, 5, 1, 3]  # of muse-lsl's columns, with another name for the time
    names = [name.replace("timestamps", "Time (s)") for name in rows[0]]
    lines = ["\t".join(row[index] for index in order) for row in [names, *rows[1:]]]
    recording = read(tmp_path, gzip.compress("\n".join([*lines, ""]).encode(), 1))
    assert recording.channels == ("TP10", "AF7", "TP9", "AF8")
    assert recording.sampling_rate == 256.0
    assert recording.left_out == ("Right AUX",)
    expected_CS = np.array([[row[i] for row in rows[1:]] for i in (4, 2, 1, 3)], dtype=np.float32)
    np.testing.assert_array_equal(recording.signal_CS, expected_CS)


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        *[("time", 1), ("Time (s)", 1), ("t", 1), ("seconds", 1), ("timestamps", 1)],
        *[("time_ms", 1e3), ("Time [ms]", 1e3), ("timestamp (us)", 1e6), ("elapsed time", 1)],
    ],
)
def test_names_of_time(tmp_path: Path, name: str, scale: float) -> None:
    signal_CS = eeg()
    text = table(signal_CS, f"{name},Fz,Cz,Pz", 250 / scale)
    recording = read(tmp_path, text)
    check(recording, signal_CS)
    assert recording.left_out == ()


def test_times_may_be_dates(tmp_path: Path) -> None:
    signal_CS = eeg(1000)
    lines = table(signal_CS, "Fz,Cz,Pz,label", None).splitlines()
    body = [
        f"{line},{'eyes open'},2020-02-29T23:59:{58 + i / 250:.3f}"
        if i < 500
        else f"{line},eyes closed,2020-03-01T00:00:{(i - 500) / 250:06.3f}"
        for i, line in enumerate(lines[1:])
    ]
    recording = read(tmp_path, "\n".join([lines[0] + ",DateTime", *body, ""]))
    check(recording, signal_CS)
    assert recording.left_out == ("label",)


def test_without_times_the_rate_is_stated(tmp_path: Path) -> None:
    signal_CS = eeg()
    text = table(signal_CS, "Fz,Cz,Pz", None)
    check(read(tmp_path, text, ReaderOptions(sampling_rate=125)), signal_CS, 125)
    assert "no sampling rate is stated" in one_line(lambda: read(tmp_path, text))


def test_a_stated_rate_and_the_times_must_agree(tmp_path: Path) -> None:
    text = table(eeg(), rate=333.0)
    assert read(tmp_path, text, ReaderOptions(sampling_rate=333)).sampling_rate == 333.0
    message = one_line(lambda: read(tmp_path, text, ReaderOptions(sampling_rate=250)))
    assert "give 333 Hz, but sampling_rate states 250" in message


@pytest.mark.parametrize(
    ("header", "units", "scale"),
    [
        ("time,Fz (uV),Cz (µV),Pz [uV]", None, 1.0),
        ("time,Fz (mV),Cz (mV),Pz (mV)", None, 1e-3),
        ("time,Fz_mV,Cz_mV,Pz_mV", "mV", 1e-3),
        ("time,Fz,Cz,Pz", "V", 1e-6),
        ("time,Fz,Cz,Pz", "0.5 uV", 2.0),
        ("time,Fz,Cz,Pz", None, 1e-6),
        ("time,EEG Fz-Ref,eeg cz,PZ", None, 1.0),
    ],
)
def test_units(tmp_path: Path, header: str, units: str | None, scale: float) -> None:
    signal_CS = eeg()
    recording = read(tmp_path, table(signal_CS * scale, header), ReaderOptions(units=units))
    assert recording.channels == NAMES
    np.testing.assert_allclose(recording.signal_CS, signal_CS, rtol=1e-5, atol=1e-4)


def test_latin_1_header(tmp_path: Path) -> None:
    signal_CS = eeg()
    text = table(signal_CS, "time,Fz (µV),Cz (µV),Pz (µV),Gerät".replace(",Gerät", ""))
    recording = read(tmp_path, text.encode("cp1252"))
    check(recording, signal_CS)


def test_no_header_needs_names_for_all_columns(tmp_path: Path) -> None:
    signal_CS = eeg(2000, 4)
    text = table(signal_CS, None, 256.0, form="{:.3f}")
    message = one_line(lambda: read(tmp_path, text))
    assert "has no header" in message and "timestamps,TP9,AF7,AF8,TP10 (the order of" in message
    names = ("timestamps", "TP9", "AF7", "AF8", "TP10")
    recording = read(tmp_path, text, ReaderOptions(channel_names=names))
    check(recording, signal_CS, 256)
    assert recording.channels == names[1:]
    other = ("timestamps", "TP9", "x", "AF8", "marker")
    recording = read(tmp_path, text, ReaderOptions(channel_names=other))
    assert recording.channels == ("TP9", "AF8") and recording.left_out == ("x", "marker")
    message = one_line(lambda: read(tmp_path, text, ReaderOptions(channel_names=names[1:])))
    assert "has 5 columns, but channel_names states 4" in message
    message = one_line(lambda: read(tmp_path, text, ReaderOptions(channel_names=("a",) * 5)))
    assert "no column is an EEG electrode" in message


def test_no_header_with_decimal_commas(tmp_path: Path) -> None:
    signal_CS = eeg()
    options = ReaderOptions(channel_names=("t", *NAMES))
    check(read(tmp_path, table(signal_CS, None, 250, ";", ","), options), signal_CS)


def test_a_header_without_electrodes_takes_stated_names(tmp_path: Path) -> None:
    signal_CS = eeg()
    text = table(signal_CS, "time,ch1,ch2,ch3")
    assert "names no electrode" in one_line(lambda: read(tmp_path, text))
    recording = read(tmp_path, text, ReaderOptions(channel_names=("time", *NAMES)))
    check(recording, signal_CS)


@pytest.mark.parametrize("first", ["time (s)", "index", "", None])
def test_electrodes_in_rows(tmp_path: Path, first: str | None) -> None:
    signal_CS = eeg()
    lines = [
        ",".join([name, *map(repr, values)])
        for name, values in zip(NAMES, signal_CS.tolist(), strict=True)
    ]
    options = NONE
    if first == "time (s)":
        lines.insert(0, ",".join([first, *(f"{i / 250:.4f}" for i in range(2000))]))
    else:
        options = ReaderOptions(sampling_rate=250)
        if first is not None:
            lines.insert(0, ",".join([first, *map(str, range(2000))]))
    lines.append(",".join(["ECG", *["1"] * 2000]))
    recording = read(tmp_path, "\n".join([*lines, ""]), options)
    check(recording, signal_CS)
    assert recording.channels == NAMES and "ECG" in recording.left_out
    assert any("electrodes are in rows" in note for note in recording.notes)


def rows_of(*lines: str) -> str:
    return "\n".join([*lines, ""])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (rows_of("a" + ",0.5" * 40, "Fz" + ",1" * 40, "Cz" + ",2" * 40), "may be times or not"),
        (rows_of("Fz,1,2,3", "Cz,3,2"), "line 2: 3 cells; expected 4"),
        (rows_of("Fz,1,2,3", "Cz,3,x,1"), "line 2: row Cz holds 'x'"),
        (rows_of("Fz,1,2,3", "Cz,3,inf,1"), "line 2: row Cz holds an infinite"),
        (rows_of("Fz,1,2,3", "Cz,3,1e99,1"), "line 2: row Cz holds an infinite"),
        (rows_of("Fz,1,2,3", "FZ,3,2,1"), "'Fz' and 'FZ' are both Fz"),
    ],
)
def test_electrodes_in_rows_that_make_no_sense(tmp_path: Path, text: str, says: str) -> None:
    options = ReaderOptions(sampling_rate=250)
    assert says in one_line(lambda: read(tmp_path, text, options))


def test_rows_without_a_sample_end_a_segment(tmp_path: Path) -> None:
    signal_CS = eeg()
    lines = table(signal_CS).splitlines()
    for line in range(501, 601):
        cells = lines[line].split(",")
        lines[line] = ",".join([cells[0], cells[1], "NaN", cells[3]])
    recording = read(tmp_path, "\n".join([*lines, ""]))
    assert recording.segments == (Segment(0, 500, 0.0), Segment(500, 1900, 2.4))
    kept_CS = np.delete(signal_CS, np.arange(500, 600), axis=1)
    np.testing.assert_array_equal(recording.signal_CS, kept_CS.astype(np.float32))


def changed(line: int, text: str, **options: object) -> str:
    lines = table(eeg(), **options).splitlines()  # type: ignore[arg-type]
    lines[line - 1] = text
    return "\n".join([*lines, ""])


def half() -> str:
    signal_CS = eeg()
    lines = table(signal_CS).splitlines()
    for row in range(1, 2001):
        cells = lines[row].split(",")
        cells[1 + row % 2] = ""
        lines[row] = ",".join(cells)
    return "\n".join([*lines, ""])


def doubled() -> str:
    lines = table(eeg()).splitlines()
    return "\n".join([*lines[:900], *lines[700:], ""])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (changed(100, "0.396,1,x,3"), "line 100: column Cz is 'x'; expected a number"),
        (changed(100, "0.396,1,inf,3"), "line 100: column Cz is infinite"),
        (changed(100, "0.396,1,2"), "line 100: 3 cells; expected 4"),
        (table(eeg(), "time,Fz,Cz,FZ"), "'Fz' and 'FZ' are both Fz"),
        (table(eeg(), "time,seconds,Cz,Pz"), "'time' and 'seconds' are both times"),
        (table(eeg(), "Fz,Cz;Pz"), "can be split at ',' and ';' alike"),
        (table(eeg(), "time;Fz;Cz;Pz", delimiter=";").replace("-", "-1,5", 1), "commas and points"),
        (
            changed(100, "0,396;1.234,5;2;3", header="time;Fz;Cz;Pz", delimiter=";", decimal=","),
            "line 100: column Fz is '1.234,5'",
        ),
        (
            changed(9, "0,032;1.234,5;2;3", header="time;Fz;Cz;Pz", delimiter=";", decimal=","),
            "commas and points ('1.234,5')",
        ),
        (table(eeg(), "time,Fz (uV),Cz (mV),Pz (uV)"), "different units"),
        (table(eeg(), "time,Fz (uV),Cz,Pz"), "different units"),
        (table(eeg(), rate=10.0), "holds no EEG spectrum"),
        (table(eeg(), rate=0.25), "holds no EEG spectrum"),
        (table(eeg(), "time,Fz,Cz,Pz", form="{:.3f} am"), "are such as '0.000 am'"),
        (table(eeg()[:, :0]), "holds a header and no rows"),
        (table(eeg())[:-1], "the file ends inside this row"),
        (table(eeg() * 0 + 7), "expected what EEG has"),
        (half(), "no row holds a sample of every channel"),
        (doubled(), "200 rows from row 900 repeat"),
    ],
)
def test_what_cannot_be_read_truly_is_refused(tmp_path: Path, text: str, says: str) -> None:
    message = one_line(lambda: read(tmp_path, text))
    assert says in message and "x.csv" in message


def test_a_stated_unit_and_the_header_must_agree(tmp_path: Path) -> None:
    text = table(eeg(), "time,Fz (uV),Cz (uV),Pz (uV)")
    message = one_line(lambda: read(tmp_path, text, ReaderOptions(units="mV")))
    assert "the header states 'uV', but units states 'mV'" in message


def test_a_line_that_states_the_delimiter(tmp_path: Path) -> None:
    signal_CS = eeg()
    text = "sep=;\n" + table(signal_CS, "time;Fz;Cz;Pz", 250, ";", ",")
    check(read(tmp_path, text), signal_CS)


def test_a_table_of_people_is_no_recording(tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    for text in ("id,age,group\np1,23,1\np2,24,0\n", json.dumps({"a": [1, 2]}) + "\n"):
        file.write_text(text)
        assert "its beginning is not that of a file" in one_line(lambda: find_reader(file))


@settings(max_examples=25)
@given(
    st.permutations(["time", "Fz", "Cz", "Pz", "ECG", "label"]),
    st.sampled_from([250.0, 256.0, 500.0, 512.0]),
    st.integers(0, 1000),
)
def test_columns_are_found_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, order: list[str], rate: float, seed: int
) -> None:
    signal_CS = eeg(1500, 3, seed)
    values = dict(zip(NAMES, signal_CS, strict=True))
    values["ECG"] = np.full(1500, 1.0)
    lines = [",".join(order)]
    for row in range(1500):
        cells = {name: repr(float(each[row])) for name, each in values.items()}
        cells |= {"time": f"{1.6e9 + row / rate:.3f}", "label": "rest"}
        lines.append(",".join(cells[name] for name in order))
    recording = read(tmp_path_factory.mktemp("x"), "\n".join([*lines, ""]))
    assert recording.sampling_rate == rate
    assert recording.channels == tuple(name for name in order if name in NAMES)
    for name in NAMES:
        got_S = recording.pick([name]).signal_CS[0]
        np.testing.assert_array_equal(got_S, values[name].astype(np.float32))


def test_packed_tables_that_are_refused(tmp_path: Path) -> None:
    text = table(eeg())
    two = tmp_path / "two.zip"
    with zipfile.ZipFile(two, "w") as archive:
        archive.writestr("a.csv", text)
        archive.writestr("b.csv", text)
    assert "holds 2 CSV files" in one_line(lambda: read_recording(row_of(two), NONE))
    bomb = tmp_path / "bomb.csv.gz"
    bomb.write_bytes(gzip.compress(text.encode() + b"0,0,0,0\n" * (10 << 20)))
    assert "unpacks to more than" in one_line(lambda: read_recording(row_of(bomb), NONE))
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(gzip.compress(text.encode())[:-100])
    assert "cut or damaged" in one_line(lambda: read_recording(row_of(cut), NONE))
    recording = read_recording(row_of(cut), ReaderOptions(allow_truncated=True))
    assert 1000 < recording.signal_CS.shape[1] < 2000


def numbered(index: bool, first: int = 0) -> str:
    names = [str(number) for number in range(first, first + 3)]
    lines = [",".join([""] * index + names)]
    for row, values in enumerate(eeg().T.tolist()):
        lines.append(",".join([str(row)] * index + [repr(value) for value in values]))
    return "\n".join([*lines, ""])


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("index", [False, True])
def test_a_header_that_counts_is_no_sample(tmp_path: Path, index: bool, first: int) -> None:
    names = ("index", *NAMES) if index else NAMES
    options = ReaderOptions(sampling_rate=250, channel_names=names)
    check(read(tmp_path, numbered(index, first), options), eeg())
    assert "names no electrode (" in one_line(lambda: read(tmp_path, numbered(index, first)))


@pytest.mark.parametrize("name", ["subject", "Participant_ID", "id", "Patient No."])
def test_several_people_are_refused(tmp_path: Path, name: str) -> None:
    lines = table(eeg()).splitlines()
    two = [f"{line},{'p1' if row < 900 else 'p2'}" for row, line in enumerate(lines[1:])]
    message = one_line(lambda: read(tmp_path, "\n".join([f"{lines[0]},{name}", *two, ""])))
    assert f"column {name} names 2 people (p1, p2)" in message
    one = [f"{line},p1" for line in lines[1:]]
    check(read(tmp_path, "\n".join([f"{lines[0]},{name}", *one, ""])), eeg())


def test_an_id_may_number_the_rows(tmp_path: Path) -> None:
    lines = table(eeg()).splitlines()
    body = [f"{line},{row % 256}" for row, line in enumerate(lines[1:])]
    check(read(tmp_path, "\n".join([f"{lines[0]},id", *body, ""])), eeg())


@pytest.mark.parametrize("name", ["epoch", "Trial", "segment"])
@pytest.mark.parametrize("times", ["go on", "begin anew", "none"])
def test_epochs_are_segments(tmp_path: Path, name: str, times: str) -> None:
    signal_CS = eeg()
    lines = [f"{name},Fz,Cz,Pz" + ("" if times == "none" else ",time")]
    for row, values in enumerate(signal_CS.T.tolist()):
        second = (row % 400 / 250 - 0.2) if times == "begin anew" else row / 250
        cells = [str(row // 400), *map(repr, values)]
        lines.append(",".join(cells + ([] if times == "none" else [f"{second:.3f}"])))
    options = ReaderOptions(sampling_rate=250) if times == "none" else NONE
    recording = read(tmp_path, "\n".join([*lines, ""]), options)
    assert recording.sampling_rate == 250.0 and not recording.prewindowed
    expected = tuple(Segment(row, row + 400, row / 250) for row in range(0, 2000, 400))
    assert recording.segments == expected
    np.testing.assert_array_equal(recording.signal_CS, signal_CS.astype(np.float32))
    assert any(f"Column {name} changes 4 times" in note for note in recording.notes)
    assert any("begin anew at 4" in note for note in recording.notes) == (times == "begin anew")


def test_a_counter_called_segment_cuts_nothing(tmp_path: Path) -> None:
    lines = table(eeg()).splitlines()
    body = [f"{line},{row}" for row, line in enumerate(lines[1:])]
    recording = read(tmp_path, "\n".join([f"{lines[0]},segment", *body, ""]))
    check(recording, eeg())
    assert any("changes with nearly every row" in note for note in recording.notes)


def test_times_in_minutes_are_not_taken_for_seconds(tmp_path: Path) -> None:
    text = table(eeg(), rate=256.0 * 60, form="{:.9f}")
    message = one_line(lambda: read(tmp_path, text))
    assert "15360 Hz if they are seconds" in message and "'time (min)'" in message
    recording = read(tmp_path, text.replace("time", "time (min)", 1))
    assert recording.sampling_rate == 256.0
    assert read(tmp_path, table(eeg(), rate=5000.0)).sampling_rate == 5000.0
    fast = table(eeg(), rate=16384.0, form="{:.9f}")
    assert "16384 Hz if they are" in one_line(lambda: read(tmp_path, fast))


def test_names_that_contradict_the_header_are_refused(tmp_path: Path) -> None:
    for names in (("time", "AF7", "Cz", "Pz"), ("time", "Cz", "Fz", "Pz"), ("Fz", "Cz")):
        options = ReaderOptions(channel_names=names)
        message = one_line(lambda options=options: read(tmp_path, table(eeg()), options))
        assert "the file names the electrodes Fz, Cz, Pz, but channel_names states" in message
    for names in (("time", "fz", "EEG Cz", "Pz"), NAMES):
        check(read(tmp_path, table(eeg()), ReaderOptions(channel_names=names)), eeg())
    rows = "\n".join(",".join([name, *["1.5", "2.5"] * 20]) for name in NAMES) + "\n"
    options = ReaderOptions(sampling_rate=250, channel_names=("A", "B", "C"))
    assert "the file names the electrodes" in one_line(lambda: read(tmp_path, rows, options))


@pytest.mark.parametrize("first", ["time (s)", "index", None])
@pytest.mark.parametrize("before", ["", "sep=,\n", "\n"])
def test_long_recordings_in_rows(tmp_path: Path, first: str | None, before: str) -> None:
    signal_CS = eeg(40 * 256)
    lines = [
        ",".join([name, *map(repr, values)])
        for name, values in zip(NAMES, signal_CS.tolist(), strict=True)
    ]
    options = ReaderOptions(sampling_rate=256)
    if first == "index":
        lines.insert(0, ",".join([first, *map(str, range(signal_CS.shape[1]))]))
    elif first:
        options = NONE
        lines.insert(0, ",".join([first, *(f"{i / 256:.4f}" for i in range(signal_CS.shape[1]))]))
    assert len(lines[0]) > 1 << 15
    recording = read(tmp_path, before + "\n".join([*lines, ""]), options)
    check(recording, signal_CS, 256)
    assert recording.channels == NAMES


def test_errors_are_short(tmp_path: Path) -> None:
    wide = ",".join(f"{value:.3f}" for value in np.arange(10_000) / 7)
    headless = "\n".join([wide] * 40) + "\n"
    names = [f"\x1b{'n' * 9000}{i}" for i in range(3)]
    long = table(eeg(), ",".join(["time", *names]))
    both = table(eeg(), f"time,Fz ({'u' * 9000}),FZ ({'v' * 9000}),Pz")
    for text in (headless, long, both):
        message = one_line(lambda text=text: read(tmp_path, text))
        assert len(message) < 800 and "\x1b" not in message


MUSE = "TP9,AF7,AF8,TP10"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (table(eeg(), "timestamps,X,Y,Z"), "holds motion or pulse (X, Y, Z) and no EEG"),
        (table(eeg(), "timestamps,PPG1,PPG2,PPG3"), "holds motion or pulse (PPG1, PPG2, PPG3)"),
        (table(eeg(), "x;y;z", None, delimiter=";"), "holds motion or pulse (x, y, z)"),
        (table(eeg(400, 1), "time,marker"), "names no electrode (time, marker)"),
        ("time,marker\n0.5,blink\n1.5,blink\n", "names no electrode (time, marker)"),
        (table(eeg(), "time,a,b,c"), "names no electrode (time, a, b, c)"),
        ("1,2.5,3\n2,3,4\n3,4,5\n", "holds 3 rows of numbers without names"),
        ("1,2\n3,4\n", "holds 2 rows of numbers without names"),
        (table(eeg(400, 4), f"When,{MUSE}").replace("TP9", "HSI_TP9"), "Mind Monitor's columns"),
        (table(eeg(400, 4), "When,HeadBandOn,AF7,AF8,TP10"), "(HeadBandOn) under a header"),
        (table(eeg(400, 4), "time,RAW_TP9,AF7,AF8,TP10"), "(RAW_TP9) under a header"),
    ],
)
def test_tables_of_something_else_are_no_recordings(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "x.csv"
    file.write_text(text)
    message = one_line(lambda: find_reader(file))
    assert says in message and "channel_names" not in message


def test_sockets_of_a_device_are_no_electrodes(tmp_path: Path) -> None:
    names = [f"A{number}" for number in range(1, 33)]
    text = table(eeg(400, 32), ",".join(["time", *names]))
    assert "names no electrode (time, A1, A2" in one_line(lambda: read(tmp_path, text))
    stated = ("time", *NAMES, *["x"] * 29)
    recording = read(tmp_path, text, ReaderOptions(channel_names=stated))
    assert recording.channels == NAMES


def test_whole_numbers_without_a_unit_are_counts(tmp_path: Path) -> None:
    text = table(np.round(eeg()))
    assert "raw counts" in one_line(lambda: read(tmp_path, text))
    check(read(tmp_path, text, ReaderOptions(units="uV")), np.round(eeg()))


def test_a_damaged_archive_is_refused_whatever_is_allowed(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(table(eeg()).encode()))
    packed[-8] ^= 0xFF  # the checksum
    file = tmp_path / "x.csv.gz"
    file.write_bytes(packed)
    options = ReaderOptions(allow_truncated=True)
    assert "CRC check failed" in one_line(lambda: read_recording(row_of(file), options))
