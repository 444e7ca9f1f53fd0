"""A format is one file; an unknown one is refused with those that are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from recordings_made import one_line, row_of

import remit.recordings.readers
from remit.recordings import formats
from remit.recordings.registry import (
    ReaderOptions,
    companions,
    find_reader,
    read_recording,
    readers,
    suffixes,
)

NEW = """
import numpy as np

from remit.recordings.recording import Recording, Segment
from remit.recordings.registry import Reader

def read(row, options):
    return Recording(
        participant=row.participant, recording=row.recording, channels=("AF7",),
        signal_CS=np.random.default_rng(0).normal(0, 20, (1, 500)).astype(np.float32),
        sampling_rate=options.sampling_rate or 100.0, segments=(Segment(0, 500, 0.0),),
        prewindowed=False, simulated=False, source_sha256="", left_out=(),
        notes=(row.path, str(options.units), str(options.channel_names)),
    )

READER = Reader(
    name="dropped in",
    suffixes=(".dropped",),
    matches=lambda path: path.read_bytes().startswith(b"DROP"),
    read=read,
    companions=lambda path: [path.with_suffix(".also"), path.with_suffix(".not")],
)
"""


def test_the_formats() -> None:
    known = set(suffixes())
    assert {".edf", ".bdf", ".vhdr", ".set", ".fif", ".xdf", ".mat", ".csv", ".csv.gz"} <= known
    assert len({reader.name for reader in readers()}) == len(readers())
    for reader in readers():
        assert reader.expects and reader.takes and reader.refuses, reader.name


def test_a_fallback_is_asked_last() -> None:
    order = [reader.fallback for reader in readers()]
    assert order == sorted(order) and any(order)


def test_the_documented_formats_are_those_there_are() -> None:
    page = formats.documentation()
    for reader in readers():
        assert f"| {reader.name} |" in page
        assert all(f"`{suffix}`" in page for suffix in reader.suffixes)


def test_a_new_file_is_a_new_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "dropped_in_format.py").write_text(NEW)
    monkeypatch.setattr(
        remit.recordings.readers, "__path__", [*remit.recordings.readers.__path__, str(folder)]
    )
    assert ".dropped" in suffixes()
    file = tmp_path / "A.DROPPED"
    file.write_bytes(b"DROP it")
    recording = read_recording(row_of(file), ReaderOptions(99.0, units="mV"))
    assert recording.sampling_rate == 99.0
    assert recording.notes == (str(file), "mV", "None")
    # What the sheet's row says goes before what the cohort says.
    row = row_of(Path("A.DROPPED"), sampling_rate=50.0, units="uV", channel_names=("Fz",))
    recording = read_recording(row, ReaderOptions(99.0, units="mV"), tmp_path)
    assert recording.sampling_rate == 50.0
    assert recording.notes == (str(file), "uV", "('Fz',)")
    (tmp_path / "A.also").touch()
    assert companions(file) == [tmp_path / "A.also"]


def test_a_module_without_a_reader_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "no_reader_here.py").write_text("")
    monkeypatch.setattr(
        remit.recordings.readers, "__path__", [*remit.recordings.readers.__path__, str(tmp_path)]
    )
    assert "no_reader_here defines no READER" in one_line(readers)


@pytest.mark.parametrize("rate", [1.0, 49.0, 256_000.0])
def test_a_rate_that_no_eeg_has_is_refused(tmp_path: Path, rate: float) -> None:
    file = tmp_path / "a.csv"
    rows = [f"{value:.3f}" for value in np.random.default_rng(0).normal(0, 20, 500)]
    file.write_text("\n".join(["AF7 (uV)", *rows, ""]))
    message = one_line(lambda: read_recording(row_of(file), ReaderOptions(rate)))
    assert f"{rate:g}" in message


def test_a_rate_that_contradicts_the_sheet_is_refused(shared_data: Path) -> None:
    file = shared_data / "eegmat/sub-00/eeg/sub-00_task-arithmetic_eeg.edf"
    assert read_recording(row_of(file, sampling_rate=500.0), ReaderOptions()).sampling_rate == 500.0
    row = row_of(file, sampling_rate=256.0)
    message = one_line(lambda: read_recording(row, ReaderOptions()))
    assert "has 500 Hz, and the cohort sheet says 256 Hz" in message


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.edff").write_bytes(b"1")
    (tmp_path / "x.bdf").write_bytes(b"a,b\n1,2\n")
    (tmp_path / "e.edf").write_bytes(b"")
    (tmp_path / "d.edf").mkdir()
    (tmp_path / "l.edf").symlink_to("gone")
    says = {
        "x.edff": "convert it. Did you mean '.edf'?",
        "x.bdf": "expected EDF/BDF (version '0' or 'BIOSEMI' in the first 8 bytes)",
        "e.edf": "is empty (0 bytes)",
        "d.edf": "is no file",
        "l.edf": "is a link to nothing",
        "no.edf": "is not there",
    }
    for name, text in says.items():
        message = one_line(lambda name=name: find_reader(tmp_path / name))  # type: ignore[misc]
        assert text in message and name in message


def test_a_path_that_leaves_the_root_is_refused(tmp_path: Path) -> None:
    row = row_of(Path("../x.edf"))
    assert "leaves its root" in one_line(lambda: read_recording(row, ReaderOptions(), tmp_path))
