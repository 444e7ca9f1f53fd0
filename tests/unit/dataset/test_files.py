"""Atomic writing: the old file or the whole new one, and nothing beside it."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from remit.errors import RemitError
from remit.files import atomic_write, sha256_of, write_json


def test_writes_into_a_new_folder_with_the_suffix_kept(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b" / "x.tar.gz"
    with atomic_write(file) as temporary:
        assert temporary.parent == file.parent
        assert temporary.suffix == ".gz"
        temporary.write_text("all of it")
        assert not file.exists()
    assert file.read_text() == "all of it"
    assert list(file.parent.iterdir()) == [file]


def test_failure_leaves_nothing_and_keeps_the_old(tmp_path: Path) -> None:
    file = tmp_path / "x.txt"
    for old in (None, "old"):
        if old:
            file.write_text(old)
        for error in (RuntimeError, KeyboardInterrupt):
            with pytest.raises(error), atomic_write(file) as temporary:
                temporary.write_text("half")
                raise error
        assert [path.read_text() for path in tmp_path.iterdir()] == ([old] if old else [])


def test_mode_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_json(tmp_path / "x.json", {})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x.json").stat().st_mode) == 0o640


def test_a_folder_that_cannot_be_made_is_a_plain_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(RemitError, match="cannot be written"),
        atomic_write(tmp_path / "file" / "x.txt"),
    ):
        pass


def test_a_full_disk_is_a_plain_error(tmp_path: Path) -> None:
    with (
        pytest.raises(RemitError, match=r"cannot be written .*free space"),
        atomic_write(tmp_path / "x.txt"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_json_is_sorted_and_strict(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"b": "µV", "a": [1]})
    assert (tmp_path / "x.json").read_text("utf-8") == '{\n  "a": [\n    1\n  ],\n  "b": "µV"\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "y.json", float("nan"))
    assert not (tmp_path / "y.json").exists()


def test_sha256_of(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"abc")
    assert sha256_of(file).startswith("ba7816bf8f01cfea414140de5dae2223")
    with pytest.raises(RemitError, match="cannot be read"):
        sha256_of(tmp_path / "absent")
