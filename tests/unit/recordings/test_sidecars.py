"""BIDS sidecars: which ones apply, and what of them reaches the recording."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import edfio
import numpy as np
import pytest
from recordings_made import loaded_by, made_recording, one_line, row_of

from remit.recordings.registry import ReaderOptions, read_recording
from remit.recordings.sidecars import sidecar_files, sidecar_names, with_sidecars

EDF = "sub-1/ses-a/eeg/sub-1_ses-a_task-rest_run-2_eeg.edf"
CHANNELS = "sub-1/ses-a/eeg/sub-1_ses-a_task-rest_run-2_channels.tsv"
SETTINGS = "sub-1/ses-a/eeg/sub-1_ses-a_task-rest_run-2_eeg.json"


def put(root: Path, name: str, text: str = "") -> Path:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text, encoding="utf-8")
    return root / name


def table(root: Path, *lines: str, head: str = "name\ttype\tunits\tstatus") -> Path:
    return put(root, CHANNELS, "\n".join([head, *lines]) + "\n")


def edf(root: Path, *labels: str, rate: float = 250.0) -> Path:
    """A real EDF file of 4 s; channel c has noise of 10 + c µV."""
    file = put(root, EDF)
    noise = np.random.default_rng(1).normal(size=(len(labels), int(4 * rate)))
    signals = [
        edfio.EdfSignal(
            noise[c] * (10 + c),
            rate,
            label=label,
            physical_dimension="uV",
            physical_range=(-200, 200),
        )
        for c, label in enumerate(labels)
    ]
    edfio.Edf(signals).write(file)
    return file


def names(root: Path, path: Path) -> list[str]:
    return [file.relative_to(root).as_posix() for file in sidecar_files(path)]


def test_the_real_sidecars(shared_data: Path) -> None:
    name = "sub-00/eeg/sub-00_task-arithmetic_eeg"
    file = shared_data / "eegmat" / f"{name}.edf"
    assert names(shared_data / "eegmat", file) == [f"{name}.json"]
    recording = read_recording(row_of(file), ReaderOptions())
    assert (recording.mains_hz, recording.sampling_rate) == (50.0, 500.0)
    assert recording.bad_channels == () and len(recording.channels) == 19


def test_inheritance(tmp_path: Path) -> None:
    file = put(tmp_path, EDF)
    assert names(tmp_path, file) == []
    put(tmp_path, "task-rest_channels.tsv")
    put(tmp_path, "task-rest_eeg.json")
    put(tmp_path, "sub-1/sub-1_eeg.json")
    put(tmp_path, "sub-1/ses-a/sub-1_ses-a_task-rest_eeg.json")
    # These say something that the recording's name does not, or are of another kind.
    for other in ("task-odd_channels.tsv", "acq-x_eeg.json", "sub-2/sub-2_eeg.json", "eeg.tsv"):
        put(tmp_path, other)
    put(tmp_path, "sub-1/ses-a/eeg/sub-1_ses-a_task-rest_run-1_channels.tsv")
    put(tmp_path, "sub-1/ses-a/eeg/sub-1_ses-a_task-rest_run-2_events.tsv")
    settings = ["sub-1/ses-a/sub-1_ses-a_task-rest_eeg.json", "sub-1/sub-1_eeg.json"]
    assert names(tmp_path, file) == ["task-rest_channels.tsv", *settings, "task-rest_eeg.json"]
    put(tmp_path, "sub-1/ses-a/eeg/sub-1_ses-a_channels.tsv")
    assert names(tmp_path, file)[0] == "sub-1/ses-a/eeg/sub-1_ses-a_channels.tsv"
    put(tmp_path, CHANNELS)  # the more specific of two in one folder
    assert names(tmp_path, file) == [CHANNELS, *settings, "task-rest_eeg.json"]


def test_mne_bids_finds_the_same(tmp_path: Path) -> None:
    import mne_bids

    file = edf(tmp_path, "EEG Fp1")
    path = mne_bids.get_bids_path_from_fname(file)
    for name in ("task-rest_channels.tsv", "sub-1/ses-a/sub-1_ses-a_channels.tsv", CHANNELS):
        put(tmp_path, name)
        expected = path.find_matching_sidecar(suffix="channels", extension=".tsv")
        assert sidecar_files(file) == [Path(expected)]


def test_two_that_apply_alike_are_refused(tmp_path: Path) -> None:
    file = put(tmp_path, EDF)
    put(tmp_path, "task-rest_eeg.json", "{}")
    put(tmp_path, "run-2_eeg.json", "{}")
    message = one_line(lambda: sidecar_files(file))
    assert "run-2_eeg.json: and task-rest_eeg.json both apply" in message


def test_paths_stay_relative_and_other_files_have_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, EDF)
    put(tmp_path, CHANNELS)
    put(tmp_path, "task-rest_eeg.json")
    monkeypatch.chdir(tmp_path)
    assert sidecar_files(EDF) == [Path(CHANNELS), Path("task-rest_eeg.json")]
    monkeypatch.chdir((tmp_path / EDF).parent)
    assert sidecar_files(Path(EDF).name) == [
        Path(CHANNELS).relative_to("sub-1/ses-a/eeg"),
        Path("../../../task-rest_eeg.json"),
    ]
    put(tmp_path, "P1/eeg.json")
    assert sidecar_files(tmp_path / "P1/rest.csv") == []
    assert sidecar_files(tmp_path / "sub-1_rest.edf") == []
    # A BIDS name outside a data set has those of its own folder.
    put(tmp_path, "loose/sub-7_eeg.json")
    assert names(tmp_path, put(tmp_path, "loose/sub-7_eeg.edf")) == ["loose/sub-7_eeg.json"]
    assert sidecar_files(tmp_path / "gone/sub-7_eeg.edf") == []


def test_a_cached_listing_is_asked_once_for_each_folder(tmp_path: Path) -> None:
    put(tmp_path, "task-rest_eeg.json")
    files = [put(tmp_path, f"sub-{n}/eeg/sub-{n}_task-rest_eeg.edf") for n in range(5)]
    asked = []

    @cache
    def listed(folder: str) -> Sequence[str]:
        asked.append(folder)
        return sidecar_names(folder)

    for file in files:
        assert sidecar_files(file, listed) == [tmp_path / "task-rest_eeg.json"]
    assert len(asked) == 1 + 2 * 5


def test_channels_tsv_of_a_real_file(tmp_path: Path) -> None:
    file = edf(tmp_path, "EEG Fp1", "EEG T3", "EEG Cz", "EEG O1", "ECG ECG")
    put(tmp_path, SETTINGS, json.dumps({"PowerLineFrequency": 60, "SamplingFrequency": 250.4}))
    table(
        tmp_path,
        "EEG Fp1\tEOG\tV\tgood",
        "T7\tEEG\tuV\tbad",
        "EEG Cz\teeg\tmV\tn/a",
        "ECG ECG\tECG\tuV\tgood",
        "EEG Pz\tEEG\tuV\tbad",
    )
    plain = read_recording(row_of(edf(tmp_path / "alone", "EEG T3")), ReaderOptions())
    recording = read_recording(row_of(file), ReaderOptions())
    assert recording.channels == ("T7", "Cz", "O1")
    assert recording.bad_channels == ("T7",)
    assert recording.left_out == ("ECG ECG", "EEG Fp1")
    assert recording.mains_hz == 60.0 and plain.mains_hz is None and plain.bad_channels == ()
    independent = edfio.read_edf(file)
    expected_CS = [independent.get_signal(name).data for name in ("EEG T3", "EEG Cz", "EEG O1")]
    np.testing.assert_allclose(recording.signal_CS, expected_CS, rtol=1e-5, atol=1e-4)
    table_name = Path(CHANNELS).name
    assert recording.notes == (
        f"{Path(SETTINGS).name} says that the mains have 60 Hz.",
        f"{table_name} gives 'EEG Fp1' the type EOG: left out.",
        f"{table_name} calls T7 bad.",
        f"{table_name} lists EEG Pz, which the file does not have.",
        f"{table_name} does not list O1.",
    )


def test_what_the_reader_knew_is_kept(tmp_path: Path) -> None:
    file = put(tmp_path, EDF)
    table(tmp_path, "AF8\tEEG\tuV\tBAD", "AF7\tn/a\tuV\tgood")
    before = made_recording(
        bad_channels=("AF7",), mains_hz=50.0, contact_CS=np.ones((2, 100), dtype=bool)
    )
    after = with_sidecars(before, file)
    assert after.bad_channels == ("AF7", "AF8") and after.mains_hz == 50.0
    assert after.contact_CS is not None and after.segments == before.segments
    put(tmp_path, SETTINGS, '{"PowerLineFrequency": "60"}')
    again = with_sidecars(before, file)
    assert again.mains_hz == 60.0
    assert "; the file itself says 50 Hz, which is not used." in again.notes[0]
    other = tmp_path / "P1/rest.edf"
    assert with_sidecars(before, other) is before


def test_a_name_that_the_reader_left_out_is_not_the_electrode(tmp_path: Path) -> None:
    file = put(tmp_path, EDF)
    table(tmp_path, "EEG AF7-Ref\tEEG\tuV\tgood", "AF7\tMISC\tuV\tbad", "AF8\tEEG\tuV\tgood")
    after = with_sidecars(made_recording(left_out=("AF7",)), file)
    assert after.channels == ("AF7", "AF8") and after.bad_channels == () and after.notes == ()


def test_sockets_of_a_table_are_no_electrodes(tmp_path: Path) -> None:
    """A1 to A32 of a BioSemi: A1 and A2 are not the ears, whatever a table calls them."""
    file = put(tmp_path, EDF)
    sockets = [f"A{number}\tEEG\tuV\tbad" for number in range(1, 33)]
    table(tmp_path, *sockets, "Fz\tEEG\tuV\tgood")
    recording = made_recording(channels=("A1", "Fz"))
    after = with_sidecars(recording, file)
    assert after.bad_channels == () and "does not list A1" in str(after.notes)
    table(tmp_path, "A1\tEEG\tuV\tbad", "Fz\tEEG\tuV\tgood")
    assert with_sidecars(recording, file).bad_channels == ("A1",)


def test_of_several_json_files_the_nearest_key_counts(tmp_path: Path) -> None:
    file = put(tmp_path, EDF)
    put(tmp_path, "task-rest_eeg.json", '{"PowerLineFrequency": 50, "SamplingFrequency": 999}')
    put(tmp_path, "sub-1/sub-1_eeg.json", '{"SamplingFrequency": 100}')
    put(tmp_path, SETTINGS, '{"PowerLineFrequency": "n/a"}')
    assert with_sidecars(made_recording(), file).mains_hz is None
    put(tmp_path, SETTINGS, "\ufeff{}")
    assert with_sidecars(made_recording(), file).mains_hz == 50.0


@pytest.mark.parametrize("mains", ['"n/a"', "null", "0", '""', '"N/A"'])
def test_mains_that_are_not_stated(mains: str, tmp_path: Path) -> None:
    file = put(tmp_path, EDF)
    put(tmp_path, SETTINGS, f'{{"PowerLineFrequency": {mains}}}')
    assert with_sidecars(made_recording(mains_hz=60.0), file).mains_hz == 60.0


def test_mains_that_nobody_has_are_noted(tmp_path: Path) -> None:
    file = put(tmp_path, EDF)
    put(tmp_path, SETTINGS, '{"PowerLineFrequency": 1000}')
    after = with_sidecars(made_recording(), file)
    assert after.mains_hz is None and "which no mains have" in after.notes[0]


@pytest.mark.parametrize(
    ("stated", "fits"), [(100.4, True), (99.6, True), (101, False), (50, False)]
)
def test_a_rate_that_contradicts_the_file(stated: float, fits: bool, tmp_path: Path) -> None:
    file = put(tmp_path, EDF)
    put(tmp_path, SETTINGS, json.dumps({"SamplingFrequency": stated}))
    if fits:
        assert with_sidecars(made_recording(), file).sampling_rate == 100.0
    else:
        message = one_line(lambda: with_sidecars(made_recording(), file))
        assert f"has 100 Hz, but {tmp_path / SETTINGS} says SamplingFrequency {stated:g}" in message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is no JSON"),
        ('{"SamplingFrequency": 100', "is no JSON"),
        ("[1]", "holds a JSON list"),
        ('{"SamplingFrequency": "fast"}', 'SamplingFrequency is "fast"; expected a number of Hz'),
        ('{"SamplingFrequency": -1}', "SamplingFrequency is -1"),
        ('{"SamplingFrequency": 0}', "SamplingFrequency is 0"),
        ('{"SamplingFrequency": NaN}', "SamplingFrequency is NaN"),
        ('{"SamplingFrequency": true}', "SamplingFrequency is true"),
        ('{"PowerLineFrequency": [50]}', "PowerLineFrequency is [50]"),
        ("[" * 100_000, "is no JSON"),
        ('{"SamplingFrequency": 1' + "0" * 400 + "}", "expected a number of Hz"),
    ],
)
def test_a_damaged_json_is_refused(text: str, says: str, tmp_path: Path) -> None:
    file = put(tmp_path, EDF)
    put(tmp_path, SETTINGS, text)
    message = one_line(lambda: with_sidecars(made_recording(), file))
    assert says in message and str(tmp_path / SETTINGS) in message


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (("AF7\tEEG\tuV",), "line 2: 3 cells; expected 4"),
        (("AF7\tEEG\tuV\tnoisy",), "line 2: the status of channel 'AF7' is 'noisy'; expected good"),
        (("AF7\tEOG\tuV\tgood", "AF8\tMISC\tuV\tbad"), "calls no channel of the recording EEG"),
        (("AF7\tEEG\tuV\tgood", "EEG AF7\tEEG\tuV\tbad"), "says two things of electrode AF7"),
    ],
)
def test_a_damaged_table_is_refused(lines: tuple[str, ...], says: str, tmp_path: Path) -> None:
    file = put(tmp_path, EDF)
    written = table(tmp_path, *lines)
    message = one_line(lambda: with_sidecars(made_recording(), file))
    assert says in message and str(written) in message


def test_tables_that_are_none_are_refused(tmp_path: Path) -> None:
    file = put(tmp_path, EDF)
    table(tmp_path, "AF7\tEEG", head="channel\ttype")
    assert "no column 'name'; it has channel, type" in one_line(
        lambda: with_sidecars(made_recording(), file)
    )
    (tmp_path / CHANNELS).write_bytes("name\ttype\tunits\nAF7\tEEG\tµV\n".encode("latin-1"))
    assert "is not UTF-8 text" in one_line(lambda: with_sidecars(made_recording(), file))
    put(tmp_path, CHANNELS, "")
    assert "is empty" in one_line(lambda: with_sidecars(made_recording(), file))
    (tmp_path / CHANNELS).unlink()
    (tmp_path / CHANNELS).symlink_to("../.git/annex/objects/x")
    assert sidecar_files(file) == [tmp_path / CHANNELS]
    assert "is a link to nothing" in one_line(lambda: with_sidecars(made_recording(), file))


def test_a_table_without_type_and_status_says_nothing(tmp_path: Path) -> None:
    file = put(tmp_path, EDF)
    table(tmp_path, "AF7", "AF8", head="name")
    after = with_sidecars(made_recording(), file)
    assert after.channels == ("AF7", "AF8") and after.notes == () and after.bad_channels == ()


def test_looking_for_sidecars_is_light(tmp_path: Path) -> None:
    file = put(tmp_path, EDF)
    put(tmp_path, SETTINGS, "{}")
    code = (
        "from remit.recordings.sidecars import sidecar_files;"
        f"assert len(sidecar_files({str(file)!r})) == 1"
    )
    assert loaded_by(code, "numpy", "scipy", "mne", "mne_bids", "pandas") == ""
