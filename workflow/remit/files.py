"""Writing files so that nothing is ever half-written, and the fingerprint of a file.

Every file a stage makes goes through :func:`atomic_write`: written under a temporary name in the
same folder, flushed to the disk, then renamed. Whoever reads sees the old file or the whole new
one. This module knows the errors and the standard library, and nothing of what the files hold.
"""

from __future__ import annotations

import csv
import errno
import glob
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from remit.errors import RemitError

_READ_BYTES = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _cannot_write(path: Path, error: OSError) -> RemitError:
    return RemitError(
        f"{path}: cannot be written ({error.strerror}); expected a folder that takes files; "
        "check the path, its rights and the free space."
    )


def _flush_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a crash; where a system cannot, it is left at that."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Remove what killed processes left of an :func:`atomic_write` of ``path``.

    For whoever is alone in writing ``path``: another process that is at it would lose its file.
    """
    final = Path(path)
    stem, suffix = glob.escape(final.stem[:100]), glob.escape(final.suffix)
    for leftover in final.parent.glob(f".{stem}.*-*.tmp{suffix}"):
        with suppress(OSError):
            leftover.unlink()


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; on success it is flushed and renamed.

    The temporary name keeps the suffix, so writers that choose a format by it are at home. The
    folder is made if it is not there. If the block raises, the temporary file is removed and
    ``path`` stays as it was. Raises :class:`RemitError` when the folder cannot be written or the
    disk is full.
    """
    final = Path(path)
    unique = f".{final.stem[:100]}.{os.getpid()}-{secrets.token_hex(4)}.tmp{final.suffix}"
    temporary = final.parent / unique
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
    except OSError as error:
        raise _cannot_write(final, error) from None
    try:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.replace(final)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.errno in _FULL:
            raise _cannot_write(final, error) from None
        raise
    _flush_folder(final.parent)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` as readable JSON: sorted keys, UTF-8, a line break at the end; atomic.

    The same value gives the same bytes. NaN and infinity are no JSON: ``ValueError``.
    """
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    with atomic_write(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def write_rows(path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of the same keys, at least one, as tab-separated text with a header; atomic."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]), delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file as 64 hexadecimal digits; raises :class:`RemitError` if unreadable."""
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as file:
            while chunk := file.read(_READ_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise RemitError(
            f"{path}: cannot be read ({error.strerror}); expected a file; check the path."
        ) from None
    return digest.hexdigest()
