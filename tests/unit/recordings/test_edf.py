"""EDF and BDF: the same microvolts as an independent reader, and nothing that MNE lets pass."""

from __future__ import annotations

import datetime
from pathlib import Path

import edfio
import numpy as np
import pytest
from recordings_made import one_line, row_of

from remit.recordings.recording import Recording, Segment
from remit.recordings.registry import ReaderOptions, read_recording

RNG = np.random.default_rng(0)


def read(path: Path) -> Recording:
    return read_recording(row_of(path), ReaderOptions())


def signal(label: str, rate: float = 100, unit: str = "uV", scale: float = 50.0) -> edfio.EdfSignal:
    data = np.round(RNG.standard_normal(int(rate * 10)) * scale, 3)
    return edfio.EdfSignal(data, rate, label=label, physical_dimension=unit)


def made(folder: Path, *signals: edfio.EdfSignal, **others: object) -> Path:
    file = folder / "made.edf"
    edfio.Edf(
        signals or (signal("EEG AF7"), signal("EEG AF8")),
        starttime=datetime.time(0),
        data_record_duration=1,
        **others,  # type: ignore[arg-type]
    ).write(file)
    return file


def patched(file: Path, *changes: tuple[int, bytes]) -> Path:
    content = bytearray(file.read_bytes())
    for place, text in changes:
        content[place : place + len(text)] = text
    file.write_bytes(content)
    return file


def test_all_real_recordings(shared_data: Path) -> None:
    files = sorted((shared_data / "eegmat").glob("sub-*/eeg/*.edf"))
    assert len(files) == 36
    spread = []
    for file in files:
        recording = read(file)
        assert recording.signal_CS.shape == (19, 31000)
        assert recording.signal_CS.dtype == np.float32
        assert recording.sampling_rate == 500.0
        assert recording.segments == (Segment(0, 31000, 0.0),)
        assert recording.left_out == ("EEG A2-A1", "ECG ECG")
        assert {"T7", "T8", "P7", "P8"} <= set(recording.channels)
        assert not {"T3", "T4", "T5", "T6"} & set(recording.channels)
        assert not recording.simulated
        spread.append(float(recording.signal_CS.std(axis=1).mean()))
    assert np.mean(spread) == pytest.approx(12, abs=2)  # microvolts, as the data's README says


def test_real_values_are_those_of_edfio(shared_data: Path) -> None:
    file = shared_data / "eegmat" / "sub-07" / "eeg" / "sub-07_task-arithmetic_eeg.edf"
    recording = read(file)
    by_label = {signal.label: signal for signal in edfio.read_edf(file).signals}
    for electrode, label in (("Fp1", "EEG Fp1"), ("T7", "EEG T3"), ("O2", "EEG O2")):
        np.testing.assert_allclose(
            recording.pick([electrode]).signal_CS[0], by_label[label].data, atol=1e-3
        )


def test_units_come_from_the_header(tmp_path: Path) -> None:
    signals = [signal("Fp1", unit="uV"), signal("Fp2", unit="mV", scale=0.05)]
    signals += [signal("F3", unit="V", scale=5e-5), signal("F4", unit="Ohm"), signal("ECG")]
    recording = read(made(tmp_path, *signals))
    assert recording.channels == ("Fp1", "Fp2", "F3")
    assert recording.left_out == ("F4", "ECG")
    assert any("F4" in note and "'Ohm'" in note for note in recording.notes)
    for i, scale in enumerate((1, 1e3, 1e6)):
        np.testing.assert_allclose(
            recording.signal_CS[i], signals[i].data * scale, rtol=1e-5, atol=1e-3
        )


def test_bdf_is_read(tmp_path: Path) -> None:
    file = tmp_path / "made.bdf"
    data = RNG.standard_normal(2000) * 50
    signals = [edfio.BdfSignal(data, 200, label="Cz", physical_dimension="uV")]
    edfio.Bdf(signals, starttime=datetime.time(0), data_record_duration=1).write(file)
    recording = read(file)
    assert recording.sampling_rate == 200.0
    np.testing.assert_allclose(recording.signal_CS[0], data, atol=1e-3)


def test_other_channels_may_have_another_rate(tmp_path: Path) -> None:
    recording = read(made(tmp_path, signal("AF7", 100), signal("ECG", 500)))
    assert recording.sampling_rate == 100.0 and recording.signal_CS.shape == (1, 1000)


def onset_places(file: Path, onset: int) -> int:
    return file.read_bytes().index(b"+%d\x14\x14" % onset)


def test_gaps_of_a_discontinuous_file_end_segments(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "eegmat" / "sub-01" / "eeg" / "sub-01_task-arithmetic_eeg.edf"
    file = tmp_path / "gap.edf"
    file.write_bytes(source.read_bytes())
    changes = [(onset_places(file, k), b"+%d" % (k + 20)) for k in range(40, 62)]
    patched(file, (192, b"EDF+D"), *changes)
    recording = read(file)
    assert recording.segments == (Segment(0, 20000, 0.0), Segment(20000, 31000, 60.0))
    assert "Gap of 20.000 s after 40.000 s." in recording.notes
    np.testing.assert_array_equal(recording.signal_CS, read(source).signal_CS)
    # Records that overlap cannot be placed.
    patched(file, (onset_places(file, 30), b"+29"))
    assert "record 31 begins 1 s before" in one_line(lambda: read(file))
    # A discontinuous file has to say when each record begins.
    patched(file, (file.read_bytes().index(b"+29\x14\x14"), b"x"))
    assert "do not say when they begin" in one_line(lambda: read(file))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("truncated_mid_record.edf", "cut after 32.87 records"),
        ("header_only.edf", "a header and no data"),
        ("zero_byte.edf", "is empty (0 bytes)"),
    ],
)
def test_real_damaged_files_are_refused(shared_data: Path, name: str, says: str) -> None:
    message = one_line(lambda: read(shared_data / "malformed" / name))
    assert name in message and says in message


@pytest.mark.parametrize(
    ("place", "text", "says"),
    [
        (236, b"-1      ", "never closed"),
        (236, b"11      ", "cut after 10.00 records"),
        (236, b"9       ", "400 bytes more"),
        (236, b"ten     ", "number of data records is 'ten'"),
        (244, b"0       ", "annotations only"),
        (252, b"3   ", "768 bytes for 3 signals"),
        (252, b"0   ", "768 bytes for 0 signals"),
        (184, b"x       ", "header size is 'x'"),
        (256 + 16, b"EEG AF7 ", "two signals are called 'EEG AF7'"),
        (256 + 16, b"AF7     ", "are both AF7"),
        (256, b"ECG one         ECG two         ", "no EEG channel; it has ECG one, ECG two"),
        (256 + 2 * 96, b"degC    degC    ", "'degC' is no voltage"),
        (256 + 2 * 120, b"5       0       32767   ", "digital range 5 to 5"),
        (0, b"MZ", "its beginning"),
    ],
)
def test_a_damaged_header_is_refused(tmp_path: Path, place: int, text: bytes, says: str) -> None:
    file = made(tmp_path)
    if "digital" in says:
        text, place = b"5       0       5       32767   ", 256 + 2 * 120
    message = one_line(lambda: read(patched(file, (place, text))))
    assert says in message and "made.edf" in message


def test_a_file_cut_inside_its_header_is_refused(tmp_path: Path) -> None:
    file = made(tmp_path)
    whole = file.read_bytes()
    for size in (100, 500):
        file.write_bytes(whole[:size])
        assert f"ends inside its header ({size} bytes)" in one_line(lambda: read(file))


@pytest.mark.parametrize("allowed", [False, True])
@pytest.mark.parametrize(("found", "made_into"), [(b"\n", b"\r\n"), (b"\r\n", b"\n")])
def test_line_end_conversion_is_refused(
    shared_data: Path, tmp_path: Path, found: bytes, made_into: bytes, allowed: bool
) -> None:
    """Bytes come or go, and everything behind them is of another channel."""
    file = tmp_path / "damaged.edf"
    for source in sorted((shared_data / "eegmat").glob("sub-0*/eeg/*.edf")):
        content = source.read_bytes()
        damaged = content.replace(found, made_into)
        assert len(damaged) != len(content)
        file.write_bytes(damaged)
        options = ReaderOptions(allow_truncated=allowed)
        message = one_line(lambda options=options: read_recording(row_of(file), options))
        assert "as text on the way" in message


def test_a_few_bytes_lost_are_no_cut(tmp_path: Path) -> None:
    """A plain EDF without annotations, too short for statistics: two bytes lost at a record's end."""
    file = made(tmp_path, *(signal(f"F{number}", 256) for number in (3, 4, 7, 8)))
    content = file.read_bytes()
    for lost in (1, 2, 6):
        file.write_bytes(content[:4000] + content[4000 + lost :])
        for allowed in (False, True):
            options = ReaderOptions(allow_truncated=allowed)
            message = one_line(lambda options=options: read_recording(row_of(file), options))
            assert f"lacks {lost} bytes" in message and "as text on the way" in message
    # A record or a large part less is a cut.
    for size in (len(content) - 4 * 256 * 2, len(content) * 7 // 10):
        file.write_bytes(content[:size])
        recording = read_recording(row_of(file), ReaderOptions(allow_truncated=True))
        assert 6 * 256 <= recording.signal_CS.shape[1] <= 9 * 256


def test_bytes_out_of_place_in_a_file_of_the_right_size_are_refused(
    shared_data: Path, tmp_path: Path
) -> None:
    source = shared_data / "eegmat" / "sub-12" / "eeg" / "sub-12_task-arithmetic_eeg.edf"
    content = source.read_bytes()
    start = int(content[184:192])
    file = tmp_path / "shifted.edf"
    file.write_bytes(content[:start] + content[start + 1000 :] + bytes(1000))
    assert "onsets are not where they belong" in one_line(lambda: read(file))


def test_onsets_that_drift_are_told(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "eegmat" / "sub-01" / "eeg" / "sub-01_task-arithmetic_eeg.edf"
    file = tmp_path / "drift.edf"
    file.write_bytes(source.read_bytes())
    changes = []
    for record in range(10, 62):  # each a little later than the one before
        place = onset_places(file, record)
        changes.append((place, b"+%d.%04d\x14\x14" % (record, (record - 9) * 9)))
    patched(file, *changes)
    recording = read(file)
    assert len(recording.segments) == 1 and recording.sampling_rate == 500.0
    assert any("onsets drift by 0.047 s" in note for note in recording.notes)


@pytest.mark.parametrize(
    ("unit", "stated", "scale"),
    [("", "uV", 1.0), ("", "mV", 1e3), ("nV", None, 1e-3), ("UV", None, 1.0), ("", "0.5 uV", 0.5)],
)
def test_other_spellings_and_stated_units(
    tmp_path: Path, unit: str, stated: str | None, scale: float
) -> None:
    made_of = signal("AF7", unit=unit, scale=30.0 / scale)
    file = made(tmp_path, made_of)
    recording = read_recording(row_of(file), ReaderOptions(units=stated))
    expected = made_of.data * scale
    np.testing.assert_allclose(recording.signal_CS[0], expected, rtol=1e-5, atol=1e-2)
    if not unit:
        assert "state units" in one_line(lambda: read(file))


def test_two_signals_of_one_name_are_refused(tmp_path: Path) -> None:
    file = made(tmp_path, signal("Fp1"), signal("Fp1", unit="mmHg"), signal("Cz"))
    assert "two signals are called 'Fp1'" in one_line(lambda: read(file))


def test_the_sockets_of_a_device_are_no_electrodes(tmp_path: Path) -> None:
    labels = [f"{letter}{number}" for letter in "AB" for number in range(1, 33)]
    file = made(tmp_path, *(signal(label) for label in labels))
    assert "no EEG channel; it has A1, A2" in one_line(lambda: read(file))


def test_what_is_there_of_a_cut_file_is_read_when_allowed(shared_data: Path) -> None:
    file = shared_data / "malformed" / "truncated_mid_record.edf"
    options = ReaderOptions(allow_truncated=True)
    recording = read_recording(row_of(file), options)
    assert recording.signal_CS.shape == (19, 32 * 500)
    assert "The file is cut: 32 whole records are read of 62 promised." in recording.notes
    cut = file.read_bytes()
    sources = (shared_data / "eegmat").glob("sub-*/eeg/*.edf")
    whole = edfio.read_edf(next(f for f in sources if f.read_bytes().startswith(cut)))
    first = next(signal for signal in whole.signals if signal.label == "EEG Fp1")
    np.testing.assert_allclose(recording.signal_CS[0], first.data[: 32 * 500], atol=1e-3)
    # A header without data holds nothing, allowed or not.
    empty = shared_data / "malformed" / "header_only.edf"
    assert "a header and no data" in one_line(lambda: read_recording(row_of(empty), options))


def test_a_file_never_closed_is_read_when_allowed(tmp_path: Path) -> None:
    file = made(tmp_path)
    expected = read(file).signal_CS
    patched(file, (236, b"-1      "))
    recording = read_recording(row_of(file), ReaderOptions(allow_truncated=True))
    np.testing.assert_array_equal(recording.signal_CS, expected)
    assert any("was never closed: the 10 whole records" in note for note in recording.notes)


def test_a_header_that_is_not_ascii_is_read(tmp_path: Path) -> None:
    file = patched(made(tmp_path), (8, "Jürgen Müller µ".encode("latin-1")), (88, b"\xff\xfe"))
    assert read(file).channels == ("AF7", "AF8")


def test_one_sample_is_no_recording(tmp_path: Path) -> None:
    one = edfio.EdfSignal(
        np.array([5.0]), 100, label="Fp1", physical_dimension="uV", physical_range=(-10, 10)
    )
    file = tmp_path / "one.edf"
    edfio.Edf([one], starttime=datetime.time(0), data_record_duration=0.01).write(file)
    assert "varies by 0 µV" in one_line(lambda: read(file))


def test_a_dead_channel_is_kept_for_the_quality_to_see(tmp_path: Path) -> None:
    dead = edfio.EdfSignal(
        np.zeros(1000), 100, label="AF8", physical_dimension="uV", physical_range=(-10, 10)
    )
    recording = read(made(tmp_path, signal("AF7"), signal("Cz"), dead))
    assert recording.channels == ("AF7", "Cz", "AF8")
    assert np.ptp(recording.pick(["AF8"]).signal_CS) < 1e-3
    assert "varies by" in one_line(lambda: read(made(tmp_path, dead)))


@pytest.mark.parametrize("scale", [0.02, 5e4])
def test_a_wrong_unit_in_the_header_is_refused(tmp_path: Path, scale: float) -> None:
    """Millivolts or nanovolts written as microvolts."""
    message = one_line(lambda: read(made(tmp_path, signal("AF7", scale=scale))))
    assert "expected 0.1 to 1000 µV" in message


def test_garbage_is_refused(tmp_path: Path) -> None:
    """Numbers without relation to each other, over the range of an amplifier of +-3.2 mV."""
    noise = edfio.EdfSignal(
        RNG.uniform(-3200, 3200, 1000), 100, label="AF7", physical_dimension="uV"
    )
    assert "the file is damaged" in one_line(lambda: read(made(tmp_path, noise)))


def test_eeg_channels_of_different_rates_are_refused(tmp_path: Path) -> None:
    message = one_line(lambda: read(made(tmp_path, signal("AF7", 100), signal("AF8", 50))))
    assert "AF7 100 Hz, AF8 50 Hz" in message


def test_an_entry_is_refused(tmp_path: Path) -> None:
    row = row_of(made(tmp_path), entry="Remission/1")
    assert "expected an empty entry" in one_line(lambda: read_recording(row, ReaderOptions()))


def test_what_is_stated_and_not_used_is_told(tmp_path: Path) -> None:
    file = made(tmp_path, signal("EEG Fp1-A2"), signal("EEG C3-A1"))
    options = ReaderOptions(sampling_rate=250.0, channel_names=("O1",), units="mV")
    recording = read_recording(row_of(file), options)
    assert recording.channels == ("Fp1", "C3") and recording.sampling_rate == 100.0
    notes = " ".join(recording.notes)
    assert "state the references A2, A1" in notes
    assert "sampling_rate (250 Hz) is not used" in notes
    assert "channel_names are not used" in notes and "units are not used" in notes
