"""A format is one file; an unknown one is refused with those that are known."""

from __future__ import annotations

from pathlib import Path

import pytest
from recordings_made import one_line, row_of

import remit.recordings.readers
from remit.recordings.registry import ReaderOptions, find_reader, read_recording, readers, suffixes

NEW = """
from remit.recordings.registry import Reader

READER = Reader(
    name="dropped in",
    suffixes=(".dropped",),
    matches=lambda path: path.read_bytes().startswith(b"DROP"),
    read=lambda row, options: (row.path, options.sampling_rate),
)
"""


def test_the_formats() -> None:
    assert [reader.name for reader in readers()] == [
        "EDF/BDF",
        "Muse CSV (muse-lsl)",
        "original study .mat",
    ]
    assert suffixes() == (".bdf", ".csv", ".edf", ".mat")


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
    assert read_recording(row_of(file), ReaderOptions(99.0)) == (str(file), 99.0)
    row = row_of(Path("A.DROPPED"))
    assert read_recording(row, ReaderOptions(), tmp_path) == (str(file), None)


def test_a_module_without_a_reader_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "no_reader_here.py").write_text("")
    monkeypatch.setattr(
        remit.recordings.readers, "__path__", [*remit.recordings.readers.__path__, str(tmp_path)]
    )
    assert "no_reader_here defines no READER" in one_line(readers)


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.edff").write_bytes(b"1")
    (tmp_path / "x.csv").write_bytes(b"a,b\n1,2\n")
    (tmp_path / "e.edf").write_bytes(b"")
    (tmp_path / "d.edf").mkdir()
    (tmp_path / "l.edf").symlink_to("gone")
    says = {
        "x.edff": "expected a file ending in .bdf, .csv, .edf, .mat; convert it. Did you mean",
        "x.csv": "expected Muse CSV (muse-lsl) (a first line with 'timestamps'",
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
