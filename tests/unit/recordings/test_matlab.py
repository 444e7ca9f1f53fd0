"""Any .mat file: written by scipy (version 5 and 7) and by h5py as MATLAB writes 7.3."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import h5py
import mne
import numpy as np
import pytest
import scipy.io
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from matlab_made import VERSIONS, save
from recordings_made import one_line, row_of

from remit.errors import RemitError
from remit.recordings import matfile
from remit.recordings.readers.matlab import entries
from remit.recordings.registry import ReaderOptions, find_reader, read_recording
from remit.recordings.scan import scan

NAMES = ("TP9", "AF7", "AF8", "TP10")
CONFIG = ReaderOptions(256.0, NAMES, "uV")
NONE = ReaderOptions()
every_version = pytest.mark.parametrize("version", VERSIONS)


def eeg(channels: int = 4, samples: int = 2000, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 20, (channels, samples))


def made(folder: Path, version: str = "7", **variables: Any) -> Path:
    return save(folder / "p1.mat", version, variables)


def read(file: Path, options: ReaderOptions = NONE, **row: Any) -> Any:
    return read_recording(row_of(file, **row), options)


def refusal(file: Path, options: ReaderOptions = NONE, **row: Any) -> str:
    return one_line(lambda: read(file, options, **row))


def same(recording: Any, signal_CS: np.ndarray) -> None:
    np.testing.assert_allclose(recording.signal_CS, signal_CS, rtol=1e-6)


# Which matrix, and which way it lies ----------------------------------------------------------------


@every_version
@pytest.mark.parametrize("turned", [False, True])
def test_either_orientation(tmp_path: Path, version: str, turned: bool) -> None:
    file = made(tmp_path, version, data=eeg().T if turned else eeg(), subject=3.0)
    recording = read(file, CONFIG)
    same(recording, eeg())
    assert recording.channels == NAMES and recording.sampling_rate == 256.0
    assert [(s.start, s.stop, s.onset_seconds) for s in recording.segments] == [(0, 2000, 0.0)]
    assert not recording.prewindowed
    lie = "samples, channels" if turned else "channels, samples"
    assert f"The matrix is [{lie}]." in recording.notes


@every_version
def test_everything_stands_in_the_file(tmp_path: Path, version: str) -> None:
    file = made(
        tmp_path,
        version,
        rec={"x": eeg() / 1000, "Fs": 250.0, "ch_names": list(NAMES), "unit": "mV"},
    )
    recording = read(file)
    same(recording, eeg())
    assert recording.sampling_rate == 250.0 and recording.channels == NAMES
    assert any("'mV'" in note for note in recording.notes)


@pytest.mark.parametrize(
    "names",
    [
        list(NAMES),
        np.array(NAMES, dtype=object).reshape(4, 1),
        np.array(NAMES),  # a char matrix, padded
        "TP9, AF7, AF8, TP10",
        tuple({"labels": name, "X": 0.1} for name in NAMES),
    ],
)
@every_version
def test_channel_names_in_all_their_ways(tmp_path: Path, version: str, names: Any) -> None:
    file = made(tmp_path, version, data=eeg(), channels=names, fs=256)
    recording = read(file, ReaderOptions(units="uV"))
    assert recording.channels == NAMES
    same(recording, eeg())


def eeglab(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "data": eeg().astype(np.float32),
        "srate": 256.0,
        "chanlocs": tuple({"labels": name, "theta": 1.0} for name in NAMES),
        "icaact": eeg(seed=2),
        "icaweights": np.eye(4),
        "times": np.arange(2000.0) / 256 * 1000,
        "pnts": 2000.0,
        "trials": 1.0,
        "subject": "S 01",
        "event": np.zeros((0, 0)),
    }
    return values | changes


@every_version
def test_an_eeglab_struct(tmp_path: Path, version: str) -> None:
    recording = read(made(tmp_path, version, EEG=eeglab()))
    same(recording, eeg())
    assert recording.sampling_rate == 256.0 and recording.channels == NAMES
    assert any("'S 01'" in note for note in recording.notes)


@every_version
def test_eeglab_boundaries_end_segments(tmp_path: Path, version: str) -> None:
    events = (
        {"type": "boundary", "latency": 0.5, "duration": 10.0},
        {"type": "blink", "latency": 300.0, "duration": 1.0},
        {"type": "boundary", "latency": 500.5, "duration": 256.0},
        {"type": "boundary", "latency": 1001.0, "duration": np.nan},
    )
    recording = read(made(tmp_path, version, EEG=eeglab(event=events)))
    bounds = [(s.start, s.stop) for s in recording.segments]
    assert bounds == [(0, 500), (500, 1000), (1000, 2000)]
    onsets = [s.onset_seconds for s in recording.segments]
    assert onsets == pytest.approx([0, 500 / 256 + 1, 1000 / 256 + 1], abs=1e-6)


def test_what_another_program_writes(tmp_path: Path, shared_data: Path) -> None:
    """MNE and eeglabio write a real recording for EEGLAB; its variables are at the top level."""
    real = next(shared_data.glob("eegmat/sub-*/**/*_eeg.edf"))
    theirs = mne.io.read_raw_edf(real, preload=True, verbose="error").crop(0, 20)
    theirs.set_annotations(mne.Annotations([7.0], [0.0], ["boundary"]))
    file = tmp_path / "p1.set"
    mne.export.export_raw(file, theirs, verbose="error")
    recording = read(file.rename(tmp_path / "p1.mat"))
    assert recording.sampling_rate == 500.0 and len(recording.channels) == 19
    assert [s.start for s in recording.segments] == [0, 3500]
    expected_CS = theirs.copy().pick([f"EEG {name}" for name in ("Fp1", "O2")]).get_data() * 1e6
    rows = [recording.channels.index(name) for name in ("Fp1", "O2")]
    np.testing.assert_allclose(recording.signal_CS[rows], expected_CS, atol=1e-3)


def test_the_samples_of_eeglab_in_another_file(tmp_path: Path) -> None:
    assert "samples are in the file 'p1.fdt'" in refusal(
        made(tmp_path, EEG=eeglab(data="p1.fdt", icaact=np.zeros((0, 0))))
    )


@every_version
def test_a_fieldtrip_struct(tmp_path: Path, version: str) -> None:
    trials = [eeg(samples=512, seed=k) for k in range(3)]
    times = [np.arange(512) / 256.0 - 1] * 3
    data = {"label": np.array(NAMES, dtype=object).reshape(4, 1), "fsample": 256.0}
    recording = read(made(tmp_path, version, data={**data, "trial": trials, "time": times}))
    assert recording.prewindowed and len(recording.segments) == 3
    same(recording, np.concatenate(trials, axis=1))
    recording = read(made(tmp_path, version, data={**data, "trial": trials[:1], "time": times[:1]}))
    assert not recording.prewindowed and len(recording.segments) == 1


@every_version
def test_three_axes(tmp_path: Path, version: str) -> None:
    array_CST = np.stack([eeg(samples=256, seed=k) for k in range(30)], axis=2)
    flat = np.concatenate([array_CST[:, :, k] for k in range(30)], axis=1)
    recording = read(made(tmp_path, version, data=array_CST), CONFIG)
    assert recording.prewindowed and len(recording.segments) == 30
    same(recording, flat)
    assert "does not tell channels, samples and trials apart" in refusal(
        made(tmp_path, version, data=array_CST.transpose(2, 0, 1)), CONFIG
    )
    for order in ((2, 0, 1), (1, 2, 0), (0, 2, 1)):
        file = made(tmp_path, version, data=array_CST.transpose(order), pnts=256.0)
        same(read(file, CONFIG), flat)
    file = made(tmp_path, version, data=array_CST[:, :40], trials=30.0)
    same(read(file, CONFIG), array_CST[:, :40].transpose(0, 2, 1).reshape(4, -1))
    assert "does not tell" in refusal(made(tmp_path, version, data=array_CST[:, :40]), CONFIG)


@every_version
def test_a_square_matrix_is_refused(tmp_path: Path, version: str) -> None:
    file = made(tmp_path, version, data=eeg(4, 4))
    assert "has 4 rows and 4 columns, so names cannot tell" in refusal(file, CONFIG, entry="data")
    assert "no matrix in it looks like EEG; it has data (4x4 float64)" in refusal(file, CONFIG)


def test_names_that_fit_no_axis(tmp_path: Path) -> None:
    file = made(tmp_path, data=eeg(5))
    assert "expected a matrix with one axis of length 4" in refusal(file, CONFIG)
    assert "5x2000 float64 and has no axis of that length" in refusal(file, CONFIG, entry="data")
    file = made(tmp_path, data=eeg(5), labels=list(NAMES), fs=256)
    assert "'labels' names 4 channels" in refusal(file, entry="data")


def test_which_matrix(tmp_path: Path) -> None:
    file = made(tmp_path, raw=eeg(), clean={"x": eeg(seed=2)}, gain=np.ones((4, 1)), n=4.0)
    message = refusal(file, CONFIG)
    assert "holds several matrices that may be EEG, raw (4x2000 float64), clean.x" in message
    assert "holds several matrices" in one_line(lambda: entries(file, CONFIG))
    same(read(file, CONFIG, entry="clean.x"), eeg(seed=2))
    same(read(file, CONFIG, entry="clean"), eeg(seed=2))
    message = refusal(file, CONFIG, entry="clean.y")
    assert "has no entry 'clean.y'" in message and "Did you mean 'clean.x'?" in message


@every_version
def test_what_is_no_real_number(tmp_path: Path, version: str) -> None:
    others = {
        "z": eeg() + 1j,
        "s": scipy.sparse.csc_array(np.eye(4, 200)),
        "word": "text",
        "flag": eeg() > 0,
        "empty": np.zeros((0, 0)),
    }
    file = made(tmp_path, version, **others)
    says = {
        "z": "4x2000 complex",
        "s": "sparse",
        "word": "text",
        "flag": "logical",
        "gone": "no entry",
    }
    for entry, what in says.items():
        assert what in refusal(file, CONFIG, entry=entry)
    assert "no matrix in it looks like EEG" in refusal(file, CONFIG)
    with pytest.raises(RemitError, match="no matrix"):
        entries(file, CONFIG)
    same(read(made(tmp_path, version, data=eeg(), **others), CONFIG), eeg())


# Rate, names, unit ----------------------------------------------------------------------------------


def test_what_is_missing_or_contradicts(tmp_path: Path) -> None:
    assert "no sampling rate is beside it" in refusal(
        made(tmp_path, data=eeg()), ReaderOptions(None, NAMES)
    )
    assert "no channel names as text are beside it" in refusal(
        made(tmp_path, data=eeg(), fs=256.0), ReaderOptions(256.0)
    )
    says = "'fs' 250 Hz, 'sampling_rate of the sheet or config' 256 Hz"
    assert says in refusal(made(tmp_path, data=eeg(), fs=250.0), CONFIG)
    file = made(tmp_path, data=eeg(), fs=250.0, info={"srate": 500.0})
    assert "'fs' 250 Hz" in refusal(file, CONFIG)
    file = made(tmp_path, data=eeg(), fs=250.0, srate=500.0)
    message = refusal(file, ReaderOptions(None, NAMES))
    assert "sampling rates differ: 'fs' 250 Hz, 'srate' 500 Hz" in message
    for bad, shown in ((0.0, "0"), (np.nan, "1x1 float64"), (np.ones((1, 2)), "1x2 float64")):
        assert f"'fs' is {shown}" in refusal(made(tmp_path, data=eeg(), fs=bad), CONFIG)
    file = made(tmp_path, data=eeg(), channels=list(NAMES[::-1]), fs=256.0)
    assert "'channels' names the channels TP10, AF8" in refusal(file, CONFIG)
    file = made(tmp_path, data=eeg(), channels=list(NAMES), labels=list(NAMES[::-1]))
    assert "name different channels" in refusal(file, ReaderOptions(256.0))
    file = made(tmp_path, data=eeg(), units="mV")
    assert "'units' says 'mV', the sheet or config 'uV'" in refusal(file, CONFIG)
    file = made(tmp_path, data=eeg(), units=["mV", "uV", "uV", "uV"])
    assert "expected one unit for all channels" in refusal(file, CONFIG)


def test_rate_and_names_in_a_struct_beside_it(tmp_path: Path) -> None:
    info = {"sfreq": 500.0, "ch_names": list(NAMES)}
    recording = read(made(tmp_path, data=eeg(), info=info), ReaderOptions(units="uV"))
    assert recording.sampling_rate == 500.0 and recording.channels == NAMES


def test_labels_that_are_numbers_are_no_channel_names(tmp_path: Path) -> None:
    same(read(made(tmp_path, data=eeg(), labels=np.ones((40, 1))), CONFIG), eeg())


def test_channels_that_are_no_electrodes(tmp_path: Path) -> None:
    names = ("ECG", "Fp1", "EOG", "")
    options = ReaderOptions(256.0, None, "uV")
    recording = read(made(tmp_path, data=eeg(), ch_names=list(names)), options)
    assert recording.channels == ("Fp1",) and recording.left_out == ("ECG", "EOG", "channel 4")
    same(recording, eeg()[1:2])
    assert "'T3' and 'T7' are both T7" in refusal(
        made(tmp_path, data=eeg()), ReaderOptions(256.0, ("T3", "T7", "Fz", "Cz"))
    )
    assert "no EEG channel; its channels are a, b" in refusal(
        made(tmp_path, data=eeg()), ReaderOptions(256.0, tuple("abcd"))
    )


@every_version
def test_whole_numbers(tmp_path: Path, version: str) -> None:
    counts = (eeg() * 10).astype(np.int16)
    file = made(tmp_path, version, data=counts)
    options = ReaderOptions(256.0, NAMES)
    assert "whole numbers (int16) without a unit" in refusal(file, options)
    same(read(file, ReaderOptions(256.0, NAMES, "0.1 uV")), counts * 0.1)
    # MATLAB's doubles may be stored as smaller whole numbers, and counts as doubles.
    for numbers in (np.round(eeg()), np.round(eeg() * 10), np.round(eeg()).astype(np.float32)):
        file = made(tmp_path, version, data=numbers)
        assert "raw counts, it seems" in refusal(file, options)
        same(read(file, ReaderOptions(256.0, NAMES, "0.1 uV")), numbers * 0.1)


@pytest.mark.parametrize(("scale", "unit"), [(1.0, "uV"), (1e-6, "V")])
def test_a_unit_that_nobody_states(tmp_path: Path, scale: float, unit: str) -> None:
    recording = read(made(tmp_path, data=eeg() * scale), ReaderOptions(256.0, NAMES))
    same(recording, eeg())
    assert any(f"taken as {unit}" in note for note in recording.notes)


def test_numbers_too_large_are_refused(tmp_path: Path) -> None:
    large = eeg()
    large[0, 5] = 1e300
    assert "NaN or infinite" in refusal(made(tmp_path, data=large), CONFIG)


# Time -----------------------------------------------------------------------------------------------


@every_version
def test_missing_values_end_a_segment(tmp_path: Path, version: str) -> None:
    signal_CS = eeg()
    signal_CS[1, 500:600] = np.nan
    signal_CS[2, 1990:] = np.nan
    signal_CS[3] = np.nan
    recording = read(made(tmp_path, version, data=signal_CS), CONFIG)
    assert recording.channels == NAMES[:3] and recording.left_out == ("TP10",)
    assert [(s.start, s.stop) for s in recording.segments] == [(0, 500), (500, 1890)]
    assert recording.segments[1].onset_seconds == 600 / 256
    same(recording, np.delete(signal_CS[:3], [*range(500, 600), *range(1990, 2000)], axis=1))
    assert any("110 rows lack a sample of some channel" in note for note in recording.notes)


def test_missing_values_in_trials(tmp_path: Path) -> None:
    array_CST = np.stack([eeg(samples=256, seed=k) for k in range(5)], axis=2)
    array_CST[0, 10, 2] = np.nan
    recording = read(made(tmp_path, data=array_CST), CONFIG)
    assert len(recording.segments) == 4
    same(recording, np.concatenate([array_CST[:, :, k] for k in (0, 1, 3, 4)], axis=1))
    array_CST[1, 3] = np.nan
    assert "every window has a missing value" in refusal(made(tmp_path, data=array_CST), CONFIG)


@pytest.mark.parametrize("scale", [1.0, 1000.0, 256.0])
def test_times_beside_it_show_gaps(tmp_path: Path, scale: float) -> None:
    """In seconds, in milliseconds, or in samples."""
    times = np.arange(2000) / 256.0
    times[1200:] += 30
    file = made(tmp_path, data=eeg(), times=times * scale)
    recording = read(file, CONFIG)
    assert [(s.start, s.stop) for s in recording.segments] == [(0, 1200), (1200, 2000)]
    assert recording.segments[1].onset_seconds == pytest.approx(1200 / 256 + 30, abs=1e-3)
    if scale != 256.0:
        assert read(file, ReaderOptions(None, NAMES)).sampling_rate == pytest.approx(256.0)
    assert "advance by" in refusal(made(tmp_path, data=eeg(), t=times * 3.0), CONFIG)
    times[3] = np.nan
    assert "no number" in refusal(made(tmp_path, data=eeg(), t=times), CONFIG)


@pytest.mark.parametrize("samples", [20, 2000])
@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_times_that_contradict_the_rate(tmp_path: Path, scale: float, samples: int) -> None:
    for fs in (256.0, 300.0, 252.0):
        file = made(tmp_path, data=eeg(samples=samples), time=np.arange(samples) / 250 * scale)
        message = refusal(file, ReaderOptions(fs, NAMES, "uV"), entry="data")
        assert "the stated rate is" in message
        file = made(tmp_path, x=eeg(samples=samples), t=np.arange(samples) / 250 * scale, fs=fs)
        assert "the stated rate is" in refusal(file, ReaderOptions(None, NAMES, "uV"), entry="x")
    file = made(tmp_path, x=eeg(samples=samples), t=np.arange(samples) / 250.5 * scale, fs=250.0)
    rate = read(file, ReaderOptions(None, NAMES, "uV"), entry="x").sampling_rate
    assert rate == pytest.approx(250.0)


def test_times_rounded_to_milliseconds_do_not_contradict(tmp_path: Path) -> None:
    """Their median step says 250 Hz."""
    file = made(tmp_path, x=eeg(), t=np.round(np.arange(2000) / 256 * 1000), fs=256.0)
    assert read(file, ReaderOptions(None, NAMES, "uV"), entry="x").sampling_rate == 256.0


# Several recordings ---------------------------------------------------------------------------------


@every_version
def test_a_variable_for_each_participant(tmp_path: Path, version: str) -> None:
    people = {f"subj{k:02d}": eeg(seed=k) for k in range(1, 4)}
    file = made(tmp_path, version, **people, fs=256.0)
    found = scan(tmp_path, "folder", options=CONFIG).rows
    assert [(row.participant, row.entry, row.remission) for row in found] == [
        (name, name, None) for name in people
    ]
    same(read(file, CONFIG, entry="subj02"), eeg(seed=2))
    assert "holds several matrices" in refusal(file, CONFIG)


@every_version
def test_a_struct_array(tmp_path: Path, version: str) -> None:
    people = tuple({"id": name, "eeg": eeg(seed=k), "age": 30.0} for k, name in enumerate("ab"))
    file = made(tmp_path, version, people=people)
    listed = entries(file, CONFIG)
    assert [(e.name, e.participant) for e in listed] == [
        ("people(1).eeg", "a"),
        ("people(2).eeg", "b"),
    ]
    recording = read(file, CONFIG, entry="people(2).eeg", participant="q")
    same(recording, eeg(seed=1))
    assert any("'b'" in note for note in recording.notes)
    same(read(file, CONFIG, entry="people(1)"), eeg(seed=0))


@pytest.mark.parametrize(
    "stem", ["rest", "run", "session", "block", "cond", "x", "eeg", "S01_rest"]
)
def test_numbered_recordings_are_not_people(tmp_path: Path, stem: str) -> None:
    """Those of two people would become those of one."""
    both = {f"{stem}{k}": eeg(seed=k) for k in (1, 2)}
    for person in ("S01", "S02"):
        file = save(tmp_path / f"{person}.mat", "7", both)
        message = one_line(lambda file=file: entries(file, CONFIG))
        assert "several people's or several recordings of one" in message
        assert "one row each, into the cohort sheet" in message
        same(read(file, CONFIG, entry=f"{stem}2"), eeg(seed=2))
    for several in (
        {"all": both},
        {"runs": tuple({"eeg": eeg(seed=k), "name": f"{stem}{k}"} for k in (1, 2))},
        {"s": tuple({"eeg": eeg(seed=k)} for k in (1, 2))},
    ):
        file = save(tmp_path / "S03.mat", "7", several)
        assert "several people's" in one_line(lambda file=file: entries(file, CONFIG))
    file = save(tmp_path / "S03.mat", "7", {"all": {"subject": "S 03", **both}})
    assert [entry.participant for entry in entries(file, CONFIG)] == ["S 03", "S 03"]


@pytest.mark.parametrize(
    "stem", ["subj", "Subject_", "sub", "s", "P", "pat", "patient", "participant", "id"]
)
def test_numbered_people_are_people(tmp_path: Path, stem: str) -> None:
    names = [f"{stem}{k}" for k in (1, 2, 13)]
    file = made(tmp_path, **{name: eeg(seed=k) for k, name in enumerate(names)})
    listed = entries(file, CONFIG)
    assert sorted((entry.name, entry.participant) for entry in listed) == sorted(
        zip(names, names, strict=True)
    )
    file = made(tmp_path, study={name: {"rest": eeg(seed=k)} for k, name in enumerate(names)})
    assert [entry.participant for entry in entries(file, CONFIG)] == names


def test_references_and_sockets_in_channel_names(tmp_path: Path) -> None:
    names = ("Fp1-A1", "Fp2-A2", "EEG A1", "C3")
    recording = read(made(tmp_path, data=eeg()), ReaderOptions(256.0, names, "uV"))
    assert recording.channels == ("Fp1", "Fp2", "A1", "C3")
    assert "The channel names state the references A1, A2." in recording.notes
    sockets = tuple(f"A{k}" for k in range(1, 33))
    file = made(tmp_path, data=eeg(32), ch_names=list(sockets))
    message = refusal(file, ReaderOptions(256.0, None, "uV"))
    assert "no EEG channel; its channels are A1, A2" in message


def test_a_struct_array_without_ids_and_with_a_misfit(tmp_path: Path) -> None:
    people = ({"eeg": eeg()}, {"eeg": eeg(5)}, {"eeg": np.zeros((0, 0))}, {"eeg": eeg(seed=2)})
    file = made(tmp_path, people=people)
    names = [row.participant for row in scan(tmp_path, "folder", options=CONFIG).rows]
    assert names == ["people-1", "people-2", "people-4"]
    assert "has no axis of that length" in refusal(file, CONFIG, entry="people(2).eeg")


@every_version
def test_one_matrix_belongs_to_the_file(tmp_path: Path, version: str) -> None:
    made(tmp_path, version, EEG=eeglab())
    rows = scan(tmp_path, "folder").rows
    assert [(row.participant, row.entry) for row in rows] == [("p1", "EEG.data")]
    same(read_recording(rows[0], NONE, tmp_path), eeg())


def test_cells_are_not_taken_for_participants(tmp_path: Path) -> None:
    file = made(tmp_path, blocks=[eeg(), eeg(seed=2)])
    assert "holds several matrices that may be EEG, blocks{1}" in one_line(
        lambda: entries(file, CONFIG)
    )
    same(read(file, CONFIG, entry="blocks{2}"), eeg(seed=2))


# Damaged files --------------------------------------------------------------------------------------


@every_version
@given(share=st.floats(0.0, 0.999))
def test_a_cut_file_is_refused(tmp_path_factory: Any, version: str, share: float) -> None:
    folder = tmp_path_factory.mktemp("cut")
    file = made(folder, version, data=eeg(samples=300), fs=256.0)
    whole = file.read_bytes()
    at = max(8, int(len(whole) * share))
    file.write_bytes(whole[:at])
    ends = 128 + 8 + struct.unpack_from("<I", whole, 132)[0]
    if version != "7.3" and at == ends:
        return  # cut behind the first variable: a whole file with one variable
    for options in (CONFIG, ReaderOptions(256.0, NAMES, "uV", allow_truncated=True)):
        message = refusal(file, options)
        assert any(word in message for word in ("cut", "header", "h5py cannot read"))


def damaged(path: Path, place: int, value: int) -> Path:
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, place, value)
    path.write_bytes(bytes(content))
    return path


@pytest.mark.parametrize("value", [0, 8, 20, 200, 5000, 1 << 20, 0x7FFFFFFF, 0xFFFFFFFF])
@pytest.mark.parametrize("place", range(128, 184, 4))
def test_a_damaged_type_or_size_ends_no_process(tmp_path: Path, place: int, value: int) -> None:
    """scipy 1.17 dies of several of these (at byte 176, the type of the numbers)."""
    file = damaged(made(tmp_path, "5", data=eeg()), place, value)
    try:
        recording = read(file, CONFIG)
    except RemitError as error:
        assert "\n" not in str(error)
    else:
        same(recording, eeg())


def test_a_damaged_element_inside_a_packed_variable(tmp_path: Path) -> None:
    plain = made(tmp_path, "5", data={"x": eeg()}).read_bytes()
    inner = bytearray(plain[128:])
    inner[inner.index(struct.pack("<II", 9, 64000))] = 20
    packed = zlib.compress(bytes(inner))
    file = tmp_path / "p1.mat"
    file.write_bytes(plain[:128] + struct.pack("<II", 15, len(packed)) + packed)
    assert "an element of type 20" in refusal(file, CONFIG)
    sound = zlib.compress(plain[128:])
    file.write_bytes(plain[:128] + struct.pack("<II", 15, len(sound)) + sound)
    same(read(file, CONFIG), eeg())
    file.write_bytes(plain[:128] + struct.pack("<II", 15, len(sound) - 2) + sound[:-2])
    assert "is not as long as it says" in refusal(file, CONFIG)
    much = zlib.compress(struct.pack("<II", 14, 1 << 30) + bytes(100))
    file.write_bytes(plain[:128] + struct.pack("<II", 15, len(much)) + much)
    assert "promises 1073741824 bytes and holds" in refusal(file, CONFIG)
    wrong = sound[:-2] + b"\xff\xfe"
    file.write_bytes(plain[:128] + struct.pack("<II", 15, len(wrong)) + wrong)
    assert "cannot be unpacked" in refusal(file, CONFIG)


@given(st.data())
@every_version
def test_a_changed_byte_gives_an_error_or_a_recording(
    tmp_path_factory: Any, version: str, data: Any
) -> None:
    folder = tmp_path_factory.mktemp("changed")
    file = made(folder, version, EEG=eeglab(data=eeg(samples=200), times=np.zeros((0, 0))))
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(8, len(content) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(bytes(content))
    try:
        recording = read(file, CONFIG)
    except RemitError as error:
        assert "\n" not in str(error)
    else:
        recording.validate()


def test_files_that_are_no_matlab(tmp_path: Path) -> None:
    file = tmp_path / "p1.mat"
    file.write_bytes(b"MATLAB 7.3 MAT-file, Platform: x".ljust(512) + b"\x89HDF\r\n\x1a\n")
    assert "h5py cannot read it" in refusal(file, CONFIG)
    file.write_bytes(b"MATLAB 5.0 MAT-file")
    assert "no whole header" in refusal(file, CONFIG)
    file.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM")
    assert "a header and no variable" in refusal(file, CONFIG)
    file.write_bytes(b"something else")
    assert "its beginning is not that of a file" in one_line(lambda: find_reader(file))


def test_an_hdf5_file_that_promises_more_than_it_holds(tmp_path: Path) -> None:
    file = tmp_path / "p1.mat"
    with h5py.File(file, "w") as opened:
        opened.create_dataset("data", shape=(10**9, 4), chunks=(10**5, 4), dtype="f8")
    assert "promises 32000000000 bytes and holds 0" in refusal(file, CONFIG)
    with h5py.File(file, "w") as opened:
        cells = opened.create_dataset("data", (2, 2), dtype=h5py.ref_dtype)
        cells.attrs["MATLAB_class"] = np.bytes_("cell")
        cells[...] = cells.ref
    assert "holds too many items, or itself" in refusal(file, CONFIG)
    with h5py.File(file, "w") as opened:
        opened["data"] = h5py.ExternalLink("other.mat", "data")
    assert "no matrix in it looks like EEG" in refusal(file, CONFIG)


def test_what_h5py_reads_is_what_was_written(tmp_path: Path) -> None:
    """Shapes, text and nesting, against scipy's reading of the same variables."""
    variables = {
        "m": np.arange(12.0).reshape(3, 4),
        "c": np.array([[np.ones((2, 3)), "ab"], [[1.0, "x"], np.zeros((0, 3))]], dtype=object),
        "s": {"a": 1.0, "b": {"c": "deep"}, "d": ({"e": 1.0}, {"e": "two"})},
        "t": np.array(["ab", "cde"]),
        "i": np.arange(6, dtype=np.int32).reshape(1, 2, 3),
    }

    def plain(value: Any) -> Any:
        if isinstance(value, matfile.Struct):
            return [{name: plain(item) for name, item in each.items()} for each in value.elements()]
        if matfile.is_cell(value):
            return [[plain(item) for item in row] for row in value]
        if value.dtype.kind == "U":
            return matfile.texts(value)
        return value.shape, value.dtype.name, value.tolist()

    loaded = [matfile.load(made(tmp_path, version, **variables)) for version in ("7", "7.3")]
    first, second = ({name: plain(value) for name, value in each.items()} for each in loaded)
    assert first == second
