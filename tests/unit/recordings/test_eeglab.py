"""EEGLAB: the microvolts that were written, boundaries as gaps, nothing missing or damaged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import mne
import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings_made import one_line, row_of

from remit.recordings.recording import Recording, Segment
from remit.recordings.registry import ReaderOptions, find_reader, read_recording

RNG = np.random.default_rng(0)
KINDS = ("flat", "struct", "packed", "hdf5", "hdf5 flat")


def read(path: Path, **options: object) -> Recording:
    return read_recording(row_of(path), ReaderOptions(**options))  # type: ignore[arg-type]


def noise(*shape: int) -> np.ndarray:
    return (RNG.standard_normal(shape) * 30).astype(np.float32)


def structs(rows: list[dict[str, Any]]) -> np.ndarray:
    """A MATLAB struct array for scipy."""
    if not rows:
        return np.zeros((0, 0))
    made = np.empty((1, len(rows)), dtype=[(name, "O") for name in rows[0]])
    for i, row in enumerate(rows):
        made[0, i] = tuple(row.values())
    return made


def fields(
    data: np.ndarray | str,
    labels: tuple[str, ...] = ("Fp1", "T3"),
    events: list[dict[str, Any]] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """The fields of a dataset: plain values, text, and lists of dicts for struct arrays."""
    shape = np.shape(data) if isinstance(data, np.ndarray) else (len(labels), 1000)
    return {
        "setname": "made",
        "nbchan": float(shape[0]),
        "pnts": float(shape[1]),
        "trials": float(shape[2] if len(shape) > 2 else 1),
        "srate": 250.0,
        "xmin": 0.0,
        "data": data,
        "chanlocs": [{"labels": label, "type": "", "X": 0.1} for label in labels],
        "event": events or [],
        "ref": "average",
    } | changes


def _hdf5(group: h5py.Group, references: h5py.Group, name: str, value: Any) -> h5py.Dataset:
    """One value as MATLAB 7.3 stores it: reversed axes, UTF-16 text, references in struct arrays."""
    if isinstance(value, str):
        codes = np.frombuffer(value.encode("utf-16-le"), "<u2").reshape(-1, 1)
        if value:
            made = group.create_dataset(name, data=codes)
        else:
            made = group.create_dataset(name, data=np.zeros(2, dtype="u8"))
            made.attrs["MATLAB_empty"] = np.uint8(1)
        made.attrs["MATLAB_class"] = np.bytes_("char")
        made.attrs["MATLAB_int_decode"] = np.int32(2)
        return made
    if isinstance(value, list):
        if not value:
            made = group.create_dataset(name, data=np.zeros(2, dtype="u8"))
            made.attrs["MATLAB_empty"] = np.uint8(1)
            made.attrs["MATLAB_class"] = np.bytes_("double")
            return made
        array = group.create_group(name)
        array.attrs["MATLAB_class"] = np.bytes_("struct")
        for key in value[0]:
            refs = array.create_dataset(key, (len(value), 1), dtype=h5py.ref_dtype)
            for i, row in enumerate(value):
                refs[i, 0] = _hdf5(references, references, f"r{len(references)}", row[key]).ref
        return array
    array = np.atleast_2d(value)
    made = group.create_dataset(name, data=array.T)
    kind = {"f4": "single", "f8": "double", "i2": "int16"}[array.dtype.str[1:]]
    made.attrs["MATLAB_class"] = np.bytes_(kind)
    return made


def written(path: Path, contents: dict[str, Any], kind: str = "flat") -> Path:
    if kind.startswith("hdf5"):
        with h5py.File(path, "w", userblock_size=512) as opened:
            references = opened.create_group("#refs#")
            group = opened
            if kind == "hdf5":
                group = opened.create_group("EEG")
                group.attrs["MATLAB_class"] = np.bytes_("struct")
            for name, value in contents.items():
                _hdf5(group, references, name, value)
        head = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
        with path.open("r+b") as file:
            file.write(head)
        return path
    made = {
        name: structs(value) if isinstance(value, list) else value
        for name, value in contents.items()
    }
    if kind == "struct":
        made = {"EEG": made}
    with path.open("wb") as file:
        scipy.io.savemat(file, made, do_compression=kind == "packed")
    return path


def with_fdt(folder: Path, data: np.ndarray, named: str = "made.fdt", **changes: Any) -> Path:
    (folder / "made.fdt").write_bytes(data.astype("<f4").tobytes(order="F"))
    shape = (*data.shape, 1)
    contents = fields(named, pnts=float(shape[1]), trials=float(shape[2]), **changes)
    return written(folder / "made.set", contents)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file(tmp_path: Path, kind: str) -> None:
    data_CS = noise(4, 1000)
    contents = fields(data_CS, labels=("Fp1", "T3", "VEOG", "TP10"))
    recording = read(written(tmp_path / "made.set", contents, kind))
    assert recording.channels == ("Fp1", "T7", "TP10") and recording.left_out == ("VEOG",)
    assert recording.sampling_rate == 250.0
    assert recording.segments == (Segment(0, 1000, 0.0),) and not recording.prewindowed
    assert recording.signal_CS.dtype == np.float32
    np.testing.assert_array_equal(recording.signal_CS, data_CS[[0, 1, 3]])
    assert any("convention is microvolts" in note for note in recording.notes)
    assert any("reference as 'average'" in note for note in recording.notes)


@pytest.mark.parametrize("kind", KINDS)
def test_one_channel_and_other_number_types(tmp_path: Path, kind: str) -> None:
    data_CS = noise(1, 500).astype("f8")
    file = written(tmp_path / "made.set", fields(data_CS, labels=("Cz",)), kind)
    np.testing.assert_allclose(read(file).signal_CS, data_CS, rtol=1e-6)
    counts_CS = (noise(1, 500) * 10).astype("i2")
    file = written(tmp_path / "made.set", fields(counts_CS, labels=("Cz",)), kind)
    message = one_line(lambda: read(file))
    assert "EEG.data is 1x500 int16, whole numbers without a unit" in message
    recording = read(file, units="0.1 uV")
    np.testing.assert_allclose(recording.signal_CS, counts_CS * 0.1, rtol=1e-6)
    file = written(tmp_path / "made.set", fields(counts_CS.astype("f8"), labels=("Cz",)), kind)
    assert any("may be raw counts" in note for note in read(file).notes)
    assert not any("raw counts" in note for note in recording.notes)


def test_what_the_file_states_itself_is_used(tmp_path: Path) -> None:
    data_CS = noise(3, 1000)
    contents = fields(data_CS, labels=("C3-M2", "O1-avg", "EEG M1"))
    file = written(tmp_path / "made.set", contents)
    recording = read(file, sampling_rate=256.0, channel_names=("Fp1", "Fp2", "Cz"))
    assert recording.channels == ("C3", "O1", "M1") and recording.sampling_rate == 250.0
    np.testing.assert_array_equal(recording.signal_CS, data_CS)
    for note in (
        "The channel names state the references M2, avg.",
        "sampling_rate (256 Hz) is not used: the file states 250 Hz.",
        "channel_names are not used: the file states its own.",
    ):
        assert note in recording.notes


def test_sockets_are_no_electrodes(tmp_path: Path) -> None:
    labels = tuple(f"A{number}" for number in range(1, 33))
    file = written(tmp_path / "made.set", fields(noise(32, 500), labels=labels))
    assert "no EEG channel; it has A1, A2" in one_line(lambda: read(file))


@pytest.mark.parametrize("rate", [2.56, 256_000.0])
def test_a_rate_that_no_eeg_has_is_refused(tmp_path: Path, rate: float) -> None:
    file = written(tmp_path / "made.set", fields(noise(2, 1000), srate=rate))
    assert "samples per second" in one_line(lambda: read(file))


def test_what_eeglabio_writes_is_read_as_mne_reads_it(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "eegmat" / "sub-07" / "eeg" / "sub-07_task-arithmetic_eeg.edf"
    raw = mne.io.read_raw_edf(source, verbose="error")
    raw.set_channel_types({"ECG ECG": "ecg"})
    file = tmp_path / "made.set"
    raw.export(file, verbose="error")
    recording, of_edf = read(file), read(source)
    assert recording.channels == of_edf.channels
    assert set(recording.left_out) == set(of_edf.left_out)
    np.testing.assert_allclose(recording.signal_CS, of_edf.signal_CS, atol=1e-3)
    by_mne = mne.io.read_raw_eeglab(file, verbose="error").get_data(picks=["EEG T3"])[0] * 1e6
    np.testing.assert_allclose(recording.pick(["T7"]).signal_CS[0], by_mne, atol=1e-3)


def test_data_in_a_file_of_their_own(tmp_path: Path) -> None:
    data_CS = noise(2, 20000)
    file = with_fdt(tmp_path, data_CS)
    recording = read(file)
    np.testing.assert_array_equal(recording.signal_CS, data_CS)
    by_mne = mne.io.read_raw_eeglab(file, verbose="error").get_data() * 1e6
    np.testing.assert_allclose(recording.signal_CS, by_mne, atol=1e-3)
    companions = find_reader(file).companions
    assert companions is not None and companions(file) == [tmp_path / "made.fdt"]
    digest = recording.source_sha256
    (tmp_path / "made.fdt").write_bytes((data_CS * 2).tobytes(order="F"))
    assert read(file).source_sha256 != digest


def test_renamed_data_files(tmp_path: Path) -> None:
    data_CS = noise(2, 1000)
    file = with_fdt(tmp_path, data_CS, named="C:\\old\\before.fdt")
    recording = read(file)
    np.testing.assert_array_equal(recording.signal_CS, data_CS)
    assert any("those of made.fdt; the file still names before.fdt" in n for n in recording.notes)
    # The named one is there as well: the same bytes, then others.
    (tmp_path / "before.fdt").write_bytes((tmp_path / "made.fdt").read_bytes())
    np.testing.assert_array_equal(read(file).signal_CS, data_CS)
    (tmp_path / "before.fdt").write_bytes((data_CS + 1).tobytes(order="F"))
    assert "made.fdt lies there as well and differs" in one_line(lambda: read(file))
    (tmp_path / "made.fdt").unlink()
    recording = read(file)
    np.testing.assert_array_equal(recording.signal_CS, data_CS + 1)
    assert "The data are those of before.fdt." in recording.notes
    (tmp_path / "before.fdt").unlink()
    message = one_line(lambda: read(file))
    assert "before.fdt, which is not there, and neither is made.fdt" in message
    (tmp_path / "made.fdt").symlink_to(tmp_path / "annex")
    assert find_reader(file).companions(file) == [tmp_path / "made.fdt"]  # type: ignore[misc]
    one_line(lambda: read(file))


def test_a_missing_data_file_is_refused(tmp_path: Path) -> None:
    file = with_fdt(tmp_path, noise(2, 1000))
    (tmp_path / "made.fdt").unlink()
    assert "its data are in made.fdt, which is not there" in one_line(lambda: read(file))
    assert find_reader(file).companions(file) == []  # type: ignore[misc]


def test_a_cut_data_file_is_refused_unless_allowed(tmp_path: Path) -> None:
    data_CS = noise(2, 1000)
    file = with_fdt(tmp_path, data_CS)
    whole = (tmp_path / "made.fdt").read_bytes()
    (tmp_path / "made.fdt").write_bytes(whole[: 8 * 400 + 5])
    message = one_line(lambda: read(file))
    assert "is cut, it holds 3205 bytes" in message and "allow_truncated" in message
    recording = read(file, allow_truncated=True)
    np.testing.assert_array_equal(recording.signal_CS, data_CS[:, :400])
    assert "made.fdt is cut: 400 of 1000 samples are read." in recording.notes
    (tmp_path / "made.fdt").write_bytes(whole[:5])
    assert "is cut" in one_line(lambda: read(file, allow_truncated=True))
    (tmp_path / "made.fdt").write_bytes(whole + b"\0")
    assert "1 bytes more" in one_line(lambda: read(file, allow_truncated=True))


@pytest.mark.parametrize("kind", KINDS)
def test_trials_are_windows(tmp_path: Path, kind: str) -> None:
    data = noise(2, 250, 5)
    file = written(tmp_path / "made.set", fields(data), kind)
    recording = read(file)
    assert recording.prewindowed
    assert recording.segments == tuple(Segment(250 * i, 250 * i + 250, 1.0 * i) for i in range(5))
    for i in range(5):
        np.testing.assert_array_equal(
            recording.signal_CS[:, 250 * i : 250 * (i + 1)], data[:, :, i]
        )
    assert any("5 trials of 250 samples" in note for note in recording.notes)


def test_trials_in_a_file_of_their_own(tmp_path: Path) -> None:
    data = noise(2, 250, 5)
    file = with_fdt(tmp_path, data)
    np.testing.assert_array_equal(
        read(file).signal_CS, np.concatenate([data[:, :, i] for i in range(5)], axis=1)
    )
    whole = (tmp_path / "made.fdt").read_bytes()
    (tmp_path / "made.fdt").write_bytes(whole[: 8 * 600])
    recording = read(file, allow_truncated=True)
    assert len(recording.segments) == 2 and recording.signal_CS.shape == (2, 500)


def test_a_trial_with_missing_values_is_left_out(tmp_path: Path) -> None:
    data = noise(2, 250, 5)
    data[1, 10:20, 2] = np.nan
    recording = read(written(tmp_path / "made.set", fields(data)))
    assert [segment.onset_seconds for segment in recording.segments] == [0, 1, 3, 4]
    assert recording.signal_CS.shape == (2, 1000)
    np.testing.assert_array_equal(recording.signal_CS[:, 500:750], data[:, :, 3])
    assert any("1 of 5 windows" in note for note in recording.notes)


@pytest.mark.parametrize("kind", KINDS)
def test_boundaries_part_the_recording(tmp_path: Path, kind: str) -> None:
    events = [
        {"type": "boundary", "latency": 0.5, "duration": 100.0},
        {"type": "S  1", "latency": 20.0, "duration": 1.0},
        {"type": "boundary", "latency": 250.5, "duration": 500.0},
        {"type": "boundary", "latency": 501.0, "duration": float("nan")},
        {"type": -99.0, "latency": 750.5, "duration": 25.0},
    ]
    recording = read(written(tmp_path / "made.set", fields(noise(2, 1000), events=events), kind))
    assert recording.segments == (
        Segment(0, 250, 0.0),
        Segment(250, 500, 3.0),
        Segment(500, 750, 4.0),
        Segment(750, 1000, 5.1),
    )
    assert "Gap of 2.000 s after 1.000 s of samples." in recording.notes
    assert any("for how long the file does not say" in note for note in recording.notes)


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_event(tmp_path: Path, kind: str) -> None:
    events = [{"type": "boundary", "latency": 400.5}]
    recording = read(written(tmp_path / "made.set", fields(noise(2, 1000), events=events), kind))
    assert [segment.stop for segment in recording.segments] == [400, 1000]
    np.testing.assert_array_equal(
        [segment.onset_seconds for segment in recording.segments], [0.0, 1.6]
    )


def test_boundaries_lie_where_eeglab_puts_them_in_mne(tmp_path: Path) -> None:
    """The first sample behind a boundary, by MNE's own reading of the event."""
    events = [{"type": "boundary", "latency": 250.5, "duration": 500.0}]
    file = written(tmp_path / "made.set", fields(noise(2, 1000), events=events))
    raw = mne.io.read_raw_eeglab(file, verbose="error")
    place = raw.annotations.onset[0] * raw.info["sfreq"]
    assert read(file).segments[1].start == int(np.ceil(place))


def test_types_leave_channels_out(tmp_path: Path) -> None:
    contents = fields(noise(3, 1000), labels=("Fp1", "Fp2", "Cz"))
    for place, kind in zip(contents["chanlocs"], ("EEG", "EOG", "scalp"), strict=True):
        place["type"] = kind
    recording = read(written(tmp_path / "made.set", contents))
    assert recording.channels == ("Fp1", "Cz") and recording.left_out == ("Fp2",)
    assert "Channel Fp2 is left out: the file calls it EOG." in recording.notes


def test_names_rate_and_unit_may_be_stated(tmp_path: Path) -> None:
    data_CS = noise(2, 1000)
    contents = fields(data_CS / 1000, chanlocs=[], srate=np.zeros((0, 0)))
    file = written(tmp_path / "made.set", contents)
    message = one_line(lambda: read(file))
    assert "EEG.srate is 0x0" in message and "set sampling_rate" in message
    message = one_line(lambda: read(file, sampling_rate=128.0))
    assert "no channel names" in message and "set channel_names" in message
    options: dict[str, Any] = {"sampling_rate": 128.0, "units": "mV"}
    message = one_line(lambda: read(file, channel_names=("AF7",), **options))
    assert "1 channel_names are stated for 2 channels" in message
    recording = read(file, channel_names=("AF7", "AF8"), **options)
    assert recording.channels == ("AF7", "AF8") and recording.sampling_rate == 128.0
    np.testing.assert_allclose(recording.signal_CS, data_CS, rtol=1e-5)
    options["units"] = "furlong"
    message = one_line(lambda: read(file, channel_names=("AF7", "AF8"), **options))
    assert "'furlong' is no voltage" in message


def test_missing_values_end_a_segment(tmp_path: Path) -> None:
    data_CS = noise(2, 1000)
    data_CS[1, 100:200] = np.nan
    events = [{"type": "boundary", "latency": 150.5, "duration": 250.0}]
    recording = read(written(tmp_path / "made.set", fields(data_CS, events=events)))
    assert recording.segments == (Segment(0, 100, 0.0), Segment(100, 900, 1.8))
    np.testing.assert_array_equal(recording.signal_CS, np.delete(data_CS, np.s_[100:200], axis=1))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"nbchan": 3.0}, "EEG.chanlocs has 2 channels, EEG.nbchan is 3"),
        ({"pnts": 999.0}, "EEG.data is 2x1000 float32; expected 2x999x1"),
        ({"trials": 2.0}, "expected 2x1000x2"),
        ({"pnts": 0.0}, "EEG.pnts is 0"),
        ({"pnts": 1.5}, "EEG.pnts is 1.5"),
        ({"srate": 0.0}, "EEG.srate is 0"),
        ({"srate": float("nan")}, "EEG.srate is nan"),
        ({"data": np.zeros((0, 0))}, "EEG.data is 0x0"),
        ({"data": "made.dat"}, "expected a .fdt file"),
        ({"data": "in set file"}, "expected a .fdt file"),
        ({"chanlocs": [{"labels": "Cz"}, {"labels": "EEG Cz"}]}, "'Cz' and 'EEG Cz' are both Cz"),
        ({"chanlocs": [{"labels": "E1"}, {"labels": "E2"}]}, "no EEG channel; it has E1, E2"),
        ({"chanlocs": [{"labels": "Cz"}] * 3}, "EEG.chanlocs has 3 channels"),
        ({"ALLEEG": 1.0}, "several datasets (ALLEEG)"),
    ],
)
@pytest.mark.parametrize("kind", ["flat", "hdf5 flat"])
def test_a_file_that_contradicts_itself_is_refused(
    tmp_path: Path, kind: str, changes: dict[str, Any], says: str
) -> None:
    file = written(tmp_path / "made.set", fields(noise(2, 1000)) | changes, kind)
    message = one_line(lambda: read(file))
    assert says in message and "made.set" in message


def test_other_mat_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "made.set"
    scipy.io.savemat(tmp_path / "x.mat", {"x": np.arange(10.0)})
    (tmp_path / "x.mat").rename(file)
    assert "has no data" in one_line(lambda: read(file))
    scipy.io.savemat(tmp_path / "x.mat", {"EEG": np.arange(10.0)})
    (tmp_path / "x.mat").rename(file)
    assert "EEG is 1x10 float64; expected a struct" in one_line(lambda: read(file))
    file.write_bytes(b"not a mat file at all" * 20)
    assert "its beginning is not" in one_line(lambda: read(file))


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_file_is_refused(tmp_path: Path, kind: str) -> None:
    file = written(tmp_path / "made.set", fields(noise(2, 1000)), kind)
    whole = file.read_bytes()
    for size in (130, 600, len(whole) // 2, len(whole) - 300):
        file.write_bytes(whole[:size])
        one_line(lambda: read(file))


DAMAGED = """
import random, sys
from pathlib import Path
from remit.errors import RemitError
from remit.recordings.cohort import SheetRow
from remit.recordings.registry import ReaderOptions, read_recording
file, whole = Path(sys.argv[1]), Path(sys.argv[1]).read_bytes()
refused = 0
for seed in range(400):
    dice, damaged = random.Random(seed), bytearray(whole)
    for _ in range(dice.choice([1, 1, 2, 4])):
        damaged[dice.randrange(128, len(whole))] = dice.choice([0, 1, 14, 15, 127, 128, 255])
    file.write_bytes(damaged)
    try:
        read_recording(SheetRow("p1", "r1", str(file)), ReaderOptions())
    except RemitError as error:
        assert "\\n" not in str(error)
        refused += 1
print(refused)
"""


@pytest.mark.parametrize("kind", ["flat", "struct", "hdf5"])
def test_a_damaged_file_never_ends_the_process(tmp_path: Path, kind: str) -> None:
    events = [{"type": "boundary", "latency": 20.5, "duration": 20.0}] * 2
    file = written(tmp_path / "made.set", fields(noise(2, 50), events=events), kind)
    done = subprocess.run(
        [sys.executable, "-c", DAMAGED, str(file)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert 0 < int(done.stdout) < 400


@given(places=st.lists(st.tuples(st.integers(1, 320), st.integers(0, 40)), max_size=10))
@settings(max_examples=40)
def test_segments_tile_the_samples(
    tmp_path_factory: pytest.TempPathFactory, places: list[tuple[int, int]]
) -> None:
    events = [
        {"type": "boundary", "latency": place + 0.5, "duration": float(gap)}
        for place, gap in places
    ]
    file = tmp_path_factory.mktemp("made") / "made.set"
    data_CS = noise(1, 300)
    recording = read(written(file, fields(data_CS, labels=("Cz",), events=events, srate=100.0)))
    np.testing.assert_array_equal(recording.signal_CS, data_CS)
    inside = sorted({place for place, _ in places if place < 300})
    assert [segment.start for segment in recording.segments] == [0, *inside]
    assert [segment.stop for segment in recording.segments] == [*inside, 300]
    for segment in recording.segments:
        lost = sum(gap for place, gap in places if place <= segment.start)
        assert segment.onset_seconds == pytest.approx((segment.start + lost) / 100)


def test_complex_numbers_are_refused(tmp_path: Path) -> None:
    """Of version 5: h5py writes them in another way than MATLAB."""
    values = fields(noise(2, 1000)) | {"data": np.ones((2, 1000)) * 1j}
    message = one_line(lambda: read(written(tmp_path / "made.set", values, "flat")))
    assert "expected real numbers" in message and "made.set" in message
