"""The original study's .mat files, written here with scipy, and with h5py as MATLAB does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from matlab_made import VERSIONS, save
from recordings_made import one_line, row_of

from remit.recordings.registry import ReaderOptions, find_reader, read_recording
from remit.recordings.scan import scan, scan_mat

OPTIONS = ReaderOptions(256.0, ("TP9", "AF7", "AF8", "TP10"))


def cell(items: list[Any]) -> np.ndarray:
    row = np.empty((1, len(items)), dtype=object)
    row[0, :] = items
    return row


def windows(count: int, samples: int = 64, first: float = 0.0) -> list[np.ndarray]:
    return [
        np.arange(samples * 4, dtype=float).reshape(samples, 4) + first + 1000 * k
        for k in range(count)
    ]


def people(*rows: tuple[Any, Any]) -> np.ndarray:
    array = np.empty((len(rows), 2), dtype=object)
    for j, (content, participant) in enumerate(rows):
        array[j, 0] = cell(content) if isinstance(content, list) else content
        array[j, 1] = participant
    return array


def made(
    folder: Path, remission: Any = None, non_remission: Any = None, version: str = "7"
) -> Path:
    file = folder / "study.mat"
    variables = {
        "EEG_windows_Remission": people((windows(3), 12.0), (windows(1), "P 07")),
        "EEG_windows_Non_remission": people((windows(2, first=5.0), 3.0)),
    }
    if remission is not None:
        variables["EEG_windows_Remission"] = remission
    if non_remission is not None:
        variables["EEG_windows_Non_remission"] = non_remission
    return save(file, version, variables)


@pytest.mark.parametrize("version", VERSIONS)
def test_each_window_is_a_segment(tmp_path: Path, version: str) -> None:
    row = row_of(
        made(tmp_path, version=version), entry="Remission/1", participant="12", remission=1
    )
    recording = read_recording(row, OPTIONS)
    assert recording.prewindowed and recording.sampling_rate == 256.0
    assert recording.channels == ("TP9", "AF7", "AF8", "TP10")
    assert [(s.start, s.stop) for s in recording.segments] == [(0, 64), (64, 128), (128, 192)]
    assert [s.onset_seconds for s in recording.segments] == [0.0, 0.25, 0.5]
    np.testing.assert_array_equal(recording.signal_CS, np.concatenate(windows(3)).T)
    assert any("without their times" in note for note in recording.notes)


def test_a_stated_unit_is_used(tmp_path: Path) -> None:
    row = row_of(made(tmp_path), entry="Remission/1")
    plain = read_recording(row, OPTIONS)
    assert "Values are taken as microvolts; the file states no unit." in plain.notes
    names = ("TP9-A1", "AF7", "AF8", "TP10")
    stated = read_recording(row, ReaderOptions(256.0, names, "0.5 uV"))
    np.testing.assert_allclose(stated.signal_CS, plain.signal_CS / 2)
    assert "The channel names state the reference A1." in stated.notes
    assert not any("taken as microvolts" in note for note in stated.notes)
    message = one_line(
        lambda: read_recording(row, ReaderOptions(256.0, OPTIONS.channel_names, "g"))
    )
    assert "the unit 'g' is no voltage" in message


@pytest.mark.parametrize("version", VERSIONS)
def test_a_single_window_is_read_too(tmp_path: Path, version: str) -> None:
    recording = read_recording(
        row_of(made(tmp_path, version=version), entry="Remission/2"), OPTIONS
    )
    assert len(recording.segments) == 1
    assert any("'P 07'" in note for note in recording.notes)


@pytest.mark.parametrize("version", VERSIONS)
def test_scan_gives_a_labelled_row_per_participant(tmp_path: Path, version: str) -> None:
    file = made(tmp_path, version=version)
    expected = [("12", "12", "Remission/1", 1), ("3", "3", "Non_remission/1", 0)]
    expected += [("P-07", "P-07", "Remission/2", 1)]
    rows = scan_mat(file).rows
    assert [(r.participant, r.recording, r.entry, r.remission) for r in rows] == expected
    assert scan(tmp_path, "folder").rows == rows
    for row in rows:
        assert read_recording(row, OPTIONS, tmp_path).prewindowed


def test_two_rows_of_one_participant_are_two_recordings(tmp_path: Path) -> None:
    file = made(tmp_path, people((windows(1), 1.0), (windows(1, first=2.0), 1.0)))
    assert [row.recording for row in scan_mat(file).rows] == ["1", "1-2", "3"]


def bad_window() -> np.ndarray:
    window = windows(1)[0]
    window[10, 1] = np.nan
    return window


def test_windows_that_are_left_in_the_file_until_they_are_asked_for(tmp_path: Path) -> None:
    """In 7.3 files larger arrays are read one by one; these have 8192 numbers each."""
    long = windows(2, samples=2048)
    row = row_of(made(tmp_path, people((long, 12.0)), version="7.3"), entry="Remission/1")
    recording = read_recording(row, OPTIONS)
    np.testing.assert_array_equal(recording.signal_CS, np.concatenate(long).T)


def test_an_empty_array(tmp_path: Path) -> None:
    for version in VERSIONS:
        nobody = np.empty((0, 0))
        file = made(tmp_path, nobody, version=version)
        assert [row.participant for row in scan_mat(file).rows] == ["3"]
        file = made(tmp_path, nobody, nobody, version=version)
        assert "are empty; expected participants" in one_line(lambda file=file: scan_mat(file))


@pytest.mark.parametrize("version", ["7", "7.3"])
@pytest.mark.parametrize(
    ("remission", "says"),
    [
        (people((windows(1), 3.0)), "participant '3' is in Remission/1 and in Non_remission/1"),
        (people(([windows(1)[0].T], 1.0)), "{1,1}{1} is 4x64 float64"),
        (people(([windows(1)[0].T], 1.0)), "It looks transposed."),
        (people(([np.zeros((64, 3))], 1.0)), "expected numbers [samples, 4]"),
        (people(([*windows(2), "text"], 1.0)), "EEG_windows_Remission{1,1}{3}"),
        (people((np.zeros((64, 4)), 1.0)), "EEG_windows_Remission{1,1} is 64x4 float64"),
        (people((windows(1), 1.5)), "EEG_windows_Remission{1,2}"),
        (people((windows(1), np.array([1.0, 2.0]))), "a participant's id"),
        (np.zeros((3, 3)), "EEG_windows_Remission is 3x3 float64"),
        (people(([bad_window()], 1.0)), "channel AF7 has 1 values"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(
    tmp_path: Path, remission: Any, says: str, version: str
) -> None:
    row = row_of(made(tmp_path, remission, version=version), entry="Remission/1")
    assert says in one_line(lambda: read_recording(row, OPTIONS))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (ReaderOptions(None, ("TP9",)), "set cohorts.<name>.sampling_rate"),
        (ReaderOptions(256.0, None), "set cohorts.<name>.channel_names"),
        (ReaderOptions(256.0, ("TP9", "AF7", "AF8")), "expected numbers [samples, 3]"),
        (ReaderOptions(256.0, ("TP9", "AF7", "AF8", "TPP")), "'TPP'"),
        (ReaderOptions(256.0, ("T3", "AF7", "AF8", "T7")), "T7 is there more than once"),
    ],
)
def test_what_the_config_must_say(tmp_path: Path, options: ReaderOptions, says: str) -> None:
    row = row_of(made(tmp_path), entry="Remission/1")
    assert says in one_line(lambda: read_recording(row, options))


def test_entries_are_checked(tmp_path: Path) -> None:
    file = made(tmp_path)

    def message(**row: object) -> str:
        return one_line(lambda: read_recording(row_of(file, **row), OPTIONS))

    assert "holds several recordings; expected one of Remission/1" in message()
    assert "Did you mean 'Remission/1'?" in message(entry="remission/1")
    assert "the cohort sheet says 0" in message(entry="Remission/1", remission=0)


def test_other_mat_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.mat"
    scipy.io.savemat(file, {"EEG_window_Remission": np.zeros(3)})
    assert "Did you mean 'EEG_window_Remission'?" in one_line(lambda: scan_mat(file))
    scipy.io.savemat(file, {"EEG": np.zeros(3)})
    assert find_reader(file).name == "MATLAB .mat"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_cut_file_is_refused(tmp_path: Path, version: str) -> None:
    file = made(tmp_path, version=version)
    assert find_reader(file).name == "original study .mat"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    says = "truncated file" if version == "7.3" else "is cut inside the variable"
    assert says in one_line(lambda: scan_mat(file))
    assert says in one_line(lambda: read_recording(row_of(file, entry="Remission/1"), OPTIONS))
