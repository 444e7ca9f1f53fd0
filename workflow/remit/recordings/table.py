"""Tables of numbers in text: opening plain, .gz and .zip files, and parsing only what is wanted.

Traps of such files: a spreadsheet puts `sep=;` or blank lines before the header, or writes the
numbers with a comma; a cut at the end can leave a whole row whose last number is not whole; a small
archive can unpack to more than the memory holds, whatever its header claims; text may be UTF-16 or
Latin-1; rows may be longer or shorter than the header. The parsing is pyarrow's; what it cannot
say, such as the line of a bad cell, is looked up afterwards.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import mmap
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from remit.errors import RemitError, some_of

if TYPE_CHECKING:
    import numpy as np

SUFFIXES = (".csv", ".csv.gz", ".zip")
# Text of numbers packs by a factor of 3 to 10, a log that repeats itself by 100.
MOST_RATIO = 200
MOST_PACKED_BYTES = 64 << 20  # below this the ratio does not matter
MOST_BYTES = 2 << 30
# What every reader of a table takes and refuses, for docs/formats.md.
TAKES = (
    "rows without a sample (they end a segment)",
    "plain, .gz or the only CSV in a .zip",
)
REFUSES = (
    "a file cut inside a row (unless `allow_truncated`)",
    "a header without rows",
    "text or infinity where a number belongs, with its line",
    "a row of another length",
    "two columns of one electrode",
    "a block of rows that is there twice",
    "a rate or unit stated otherwise than in the file",
    "a gzip or zip file whose checksum is wrong, even with `allow_truncated`",
    "a zip with two CSVs, a zip bomb, a cut or encrypted archive",
)
DELIMITERS = (",", ";", "\t")
MISSING = ("", "NA", "N/A", "n/a", "NaN", "nan", "NAN", "-nan", "null", "NULL", "None", "#N/A")
HEAD_BYTES = 1 << 16
MOST_HEAD_BYTES = 32 << 20  # looked at where lines are long, for electrodes may be in rows
SHOWN = 60  # characters of a file's own words in an error
_CHUNK_BYTES = 1 << 20
_BLOCK_BYTES = 1 << 20
_BROKEN = (EOFError, zlib.error, zipfile.BadZipFile, gzip.BadGzipFile, RuntimeError)
_HEAD_LINES = 4
_SEPARATOR = re.compile(r'^"?sep=([^"])"?[,;\t]*$', re.IGNORECASE)  # as Excel puts before a table
_COMMA_NUMBER = re.compile(r"^[+-]?\d*,\d+(?:e[+-]?\d+)?$", re.IGNORECASE)
_BOTH = re.compile(r"^[+-]?\d[\d.,]*(?:\.\d*,|,\d*\.)[\d.,]*$")
_LOOK_LINES = 64
_FEWEST_REPEATED = 12  # rows: one packet of a Muse
_ZONE = re.compile(r"(?:Z|[+-]\d\d:?\d\d)$")
_DATE = re.compile(r"^\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?$")

# How a column is parsed: float64, float32, bytes, seconds from dates without and with a zone.
Kind = Literal["number", "sample", "text", "date", "zoned date"]


@dataclass(frozen=True)
class Text:
    """A whole text table in memory, UTF-8 with a line end after the last row.

    `notes`: what was found while opening it, one sentence each.
    """

    path: Path
    content: Any  # bytes, or a memory map that behaves like them
    notes: tuple[str, ...]

    def lines(self) -> Iterator[tuple[int, str]]:
        """Line numbers from 1 and lines without their ends; slow, to find what is wrong."""
        start, number, size = 0, 0, len(self.content)
        ends = b"\n" if self.content.find(b"\n") >= 0 else b"\r"
        while start < size:
            stop = self.content.find(ends, start)
            stop = size if stop < 0 else stop
            number += 1
            yield number, decoded(bytes(self.content[start:stop])).rstrip("\r")
            start = stop + 1


def decoded(raw: bytes) -> str:
    """Text of bytes: UTF-8 with or without a mark, else Latin-1 as Windows has it."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.start >= len(raw) - 3 and len(raw) >= HEAD_BYTES:  # cut inside a character
            return raw[: error.start].decode("utf-8-sig")
        return raw.decode("cp1252", errors="replace")


def shown(text: str, most: int = SHOWN) -> str:
    """A file's own words, fit for an error line: cut, and with nothing that a terminal obeys."""
    plain = "".join(
        sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text[: most + 1].strip()
    )
    return plain if len(plain) <= most else f"{plain[:most]}..."


def listed(names: Iterable[str], most: int = 8) -> str:
    """The first few of a file's own names, each as `shown` gives it."""
    return some_of((shown(name) for name in names), most)


def head(path: Path) -> list[str]:
    """The first lines of a table, for a light look at it: 64 KiB, more where lines are long.

    Raises RemitError for an archive that cannot be read or does not hold one table, and for text
    in no known encoding.
    """
    raw = bytearray()
    most, ends = HEAD_BYTES, 0
    with _unpacked(path) as opened:
        try:
            while len(raw) < most and (part := opened.read1(most - len(raw))):
                raw += part
                ends += part.count(b"\n") + part.count(b"\r")
                if len(raw) == most and ends < _HEAD_LINES and b"\0" not in raw:
                    most = min(2 * most, MOST_HEAD_BYTES)
        except _BROKEN as error:
            if not raw:  # else `load` says what is wrong, or reads what is there
                raise _damaged(path, error) from None
    if bytes(raw[:2]) in (b"\xff\xfe", b"\xfe\xff"):
        return re.split(r"\r\n|\n|\r", raw[: len(raw) // 2 * 2].decode("utf-16", "replace"))
    _check_text(path, raw)
    return re.split(r"\r\n|\n|\r", decoded(bytes(raw)))


@dataclass(frozen=True)
class Start:
    """How a table begins: the signs in it, its header, and the first lines after that.

    `header_lines`: how many lines come before the rows, blank ones and `sep=;` among them.
    """

    delimiter: str
    decimal: str
    header_lines: int
    header: tuple[str, ...]
    lines: tuple[str, ...]


def first_line(lines: Sequence[str]) -> tuple[int, str | None]:
    """Index of the first line that says something, and the delimiter that a `sep=;` states.

    The index is that of no line where none says anything.
    """
    stated = None
    for index, line in enumerate(lines):
        found = _SEPARATOR.match(line.rstrip(" "))
        if found:
            stated = found[1]
        elif line.strip(" \t,;"):
            return index, stated
    return len(lines), stated


def start(path: Path, is_header: Callable[[Sequence[str]], bool]) -> Start | None:
    """How a table begins whose header is known by its cells, whatever stands between these.

    None where the first line that says something is no such header. Raises RemitError where
    `head` does, and where the numbers have two decimal signs.
    """
    lines = head(path)
    first, stated = first_line(lines)
    if first == len(lines):
        return None
    for delimiter in (stated,) if stated else DELIMITERS:
        header = cells(lines[first], delimiter)
        if is_header(header):
            after = [line for line in lines[first + 1 :] if line.strip()][:_LOOK_LINES]
            decimal = decimal_sign(path, after, delimiter)
            return Start(delimiter, decimal, first + 1, tuple(header), tuple(after))
    return None


def decimal_sign(path: Path, lines: Sequence[str], delimiter: str) -> str:
    """The decimal sign in some lines of a table: '.' or ','. Raises RemitError where it has both."""
    if delimiter == ",":
        return "."
    found = [cell for line in lines for cell in cells(line, delimiter)]
    comma = next((cell for cell in found if is_comma_number(cell)), None)
    point = next((cell for cell in found if "." in cell and is_number(cell)), None)
    both = next((cell for cell in found if _BOTH.match(cell)), None)
    if both or (comma and point):
        words = f"'{shown(both)}'" if both else f"'{shown(comma or '')}' and '{shown(point or '')}'"
        raise RemitError(
            f"{path}: its numbers have commas and points ({words}); expected one decimal sign and "
            "no other; export it again without a sign between thousands."
        )
    return "," if comma else "."


def is_comma_number(cell: str) -> bool:
    """Whether a cell is a number with a decimal comma."""
    return bool(_COMMA_NUMBER.match(cell))


def cells(line: str, delimiter: str = ",") -> list[str]:
    """The cells of one line, stripped; none where its quotes make no sense."""
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error:
        return []


def load(path: Path, allow_truncated: bool = False) -> Text:
    """The whole text of a table: plain, gzip (.gz) or the only table in a .zip.

    Raises RemitError for an archive that is damaged (its checksum too), encrypted, holds no or
    several tables or unpacks to more than is sensible; and for text in no known encoding. Further
    for a gzip file that ends early and for a last row without a line end, which may be cut, unless
    `allow_truncated`: then what is whole is kept. A zip file cut at its end has lost its directory
    and cannot be read.
    """
    notes: list[str] = []
    content: Any
    packing = _packing(path)
    if packing == "plain":
        with path.open("rb") as plain:
            content = mmap.mmap(plain.fileno(), 0, access=mmap.ACCESS_READ)
    else:
        packed = path.stat().st_size
        with _unpacked(path) as opened:
            content, broken = unpack(opened, packed, path)
        if broken is not None:
            cut = isinstance(broken, EOFError) and packing == "gzip"
            if not (cut and allow_truncated):
                raise _damaged(path, broken)
            notes.append("The archive is cut; what could be unpacked is read.")
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        try:
            content = bytes(content).decode("utf-16").encode()
        except UnicodeDecodeError:
            raise RemitError(
                f"{path}: begins as UTF-16 text but is none to its end; expected whole "
                "characters; copy it again or save it as UTF-8."
            ) from None
    _check_text(path, content[:HEAD_BYTES])
    if content[-1:] not in (b"\n", b"\r"):
        if not allow_truncated:
            raise _cut_row(path, content)
        whole = max(content.rfind(b"\n"), content.rfind(b"\r")) + 1
        if isinstance(content, bytearray):
            del content[whole:]
        else:
            content = content[:whole]
        notes.append("The last row has no line end and may be cut; it is left out.")
    return Text(path, content, tuple(notes))


def unpack(
    opened: Any, packed: int, path: Path, most: tuple[int, int, int] | None = None
) -> tuple[bytearray, Exception | None]:
    """All that a packed stream of `packed` bytes holds, and the error that ended it early.

    `most`: highest ratio, bytes below which it does not matter, most bytes; measured while
    unpacking. Raises RemitError beyond them.
    """
    ratio, free, limit = most or (MOST_RATIO, MOST_PACKED_BYTES, MOST_BYTES)
    content = bytearray()
    try:
        while part := opened.read1(_CHUNK_BYTES):
            content += part
            size = len(content)
            if size > limit or (size > free and size > ratio * packed):
                raise RemitError(
                    f"{path}: unpacks to more than {size >> 20} MiB from {packed / 2**20:.3g} "
                    f"MiB; expected a recording, at most {ratio} times as large as packed and "
                    f"{limit / 2**30:.3g} GiB; unpack and check it yourself."
                )
    except _BROKEN as error:
        return content, error
    return content, None


def _packing(path: Path) -> str:
    with path.open("rb") as opened:
        magic = opened.read(4)
    if magic[:2] == b"\x1f\x8b":
        return "gzip"
    if magic in (b"PK\x03\x04", b"PK\x05\x06"):
        return "zip"
    name = path.name.lower()
    if name.endswith((".gz", ".zip")):
        raise RemitError(
            f"{path}: is no {'gzip' if name.endswith('.gz') else 'zip'} file by its first bytes; "
            "expected what its name says; copy it again or correct its name."
        )
    return "plain"


def _unpacked(path: Path) -> Any:
    packing = _packing(path)
    if packing == "plain":
        return path.open("rb")
    if packing == "gzip":
        return gzip.open(path, "rb")
    try:
        archive = zipfile.ZipFile(path)
        member = _member(path, archive)
        return archive.open(member)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise _damaged(path, error) from None


def _member(path: Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    """The only table in an archive."""
    tables = [
        each
        for each in archive.infolist()
        if each.filename.lower().endswith(".csv")
        and not each.is_dir()
        and "__MACOSX" not in each.filename.split("/")
        and not each.filename.split("/")[-1].startswith("._")
    ]
    if len(tables) != 1:
        found = listed((each.filename for each in tables), 4)
        raise RemitError(
            f"{path}: holds {len(tables)} CSV files ({found}); expected one; unpack it and list "
            "each file in the cohort sheet."
        )
    if tables[0].flag_bits & 1:
        raise RemitError(
            f"{path}: '{shown(tables[0].filename)}' in it is encrypted; expected a zip without a "
            "password; unpack it and use the CSV file."
        )
    if tables[0].file_size == 0:
        raise RemitError(
            f"{path}: '{shown(tables[0].filename)}' in it is empty (0 bytes); expected a table; copy it "
            "again or leave it out."
        )
    return tables[0]


def _damaged(path: Path, error: Exception) -> RemitError:
    return RemitError(
        f"{path}: is cut or damaged and cannot be unpacked ({type(error).__name__}: "
        f"{shown(str(error))}); "
        "expected a whole archive; copy it again."
    )


def _check_text(path: Path, raw: bytes | bytearray) -> None:
    if not raw:
        raise RemitError(f"{path}: holds no text; expected a table; copy it again or leave it out.")
    if b"\0" in raw:
        raise RemitError(
            f"{path}: is no text in UTF-8 (it holds zero bytes); expected a table of numbers; "
            "save it as CSV in UTF-8, or copy it again."
        )


def _cut_row(path: Path, content: Any) -> RemitError:
    begin = max(content.rfind(b"\n"), content.rfind(b"\r")) + 1
    line = 1 + sum(
        content[at : min(begin, at + _CHUNK_BYTES)].count(b"\n")
        for at in range(0, begin, _CHUNK_BYTES)
    )
    found = shown(decoded(bytes(content[max(begin, len(content) - SHOWN) :])))
    return RemitError(
        f"{path} line {line}: the file ends inside this row ('{found}'); expected a line end after "
        "the last row; copy the file again, set allow_truncated: true to leave this row out, or "
        "end the row if it is complete."
    )


def date_kind(cell: str) -> Kind | None:
    """How the dates of a column are parsed, by one of them; None for what is no ISO date."""
    if not _DATE.match(cell):
        return None
    return "zoned date" if _ZONE.search(cell[10:]) else "date"


def time_kind(rows: Sequence[Sequence[str]], index: int, decimal: str) -> tuple[Kind | None, str]:
    """How a column of times is parsed, by its cell in the first row that has one, and that cell.

    'number' for numbers and where nothing is there; None for a text that is no date.
    """
    cell = next((found[index] for found in rows if index < len(found)), "")
    kind: Kind | None = date_kind(cell)
    if kind is None and (not cell or is_number(cell, decimal)):
        kind = "number"
    return kind, cell


def is_number(cell: str, decimal: str = ".") -> bool:
    """Whether a cell is a number as the parser takes it."""
    if "_" in cell:  # Python takes 1_000 for a number
        return False
    try:
        float(cell.replace(decimal, ".") if decimal != "." else cell)
    except ValueError:
        return False
    return True


def columns(
    text: Text,
    names: Sequence[str],
    wanted: dict[int, Kind],
    *,
    header_lines: int = 1,
    delimiter: str = ",",
    decimal: str = ".",
    width: int | None = None,
    leave_out: Callable[[list[str]], bool] | None = None,
) -> dict[int, Any]:
    """The wanted columns by their position, each with one value per row.

    `names`: of all columns; `wanted`: position to kind. Numbers and seconds are float64 [S],
    samples float32 [S], text a list of bytes. A missing number is NaN; a cell that is no
    number, or infinite, is refused. `width`: cells per row, where it is not the number of names;
    rows of another length are refused unless `leave_out`, given their cells, says that they go.

    Raises RemitError naming line and column for what cannot be read, and for a table without rows.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.csv

    types = {
        "number": pa.float64(),
        "sample": pa.float32(),
        "text": pa.binary(),
        "date": pa.timestamp("ns"),
        "zoned date": pa.timestamp("ns", tz="UTC"),
    }
    width = len(names) if width is None else width
    if leave_out is not None:
        text = _in_utf8(text)
    look = _Look(text, names, wanted, header_lines, delimiter, decimal, width, leave_out)
    quoted = text.content.find(b'"') >= 0

    def odd(row: Any) -> str:
        found = cells(row.text or "", delimiter)
        return "skip" if leave_out is not None and leave_out(found) else "error"

    try:
        table = pyarrow.csv.read_csv(
            pa.BufferReader(pa.py_buffer(text.content)),
            read_options=pyarrow.csv.ReadOptions(
                # Positions as names, for names may be empty or repeat.
                column_names=[str(index) for index in range(width)],
                skip_rows=header_lines,
                block_size=_BLOCK_BYTES,
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=delimiter,
                quote_char='"' if quoted else False,
                invalid_row_handler=odd if leave_out else None,
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                check_utf8=False,
                include_columns=[str(index) for index in wanted],
                column_types={str(index): types[kind] for index, kind in wanted.items()},
                null_values=list(MISSING),
                decimal_point=decimal,
                timestamp_parsers=[pyarrow.csv.ISO8601],
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError, pa.ArrowNotImplementedError) as error:
        raise look.diagnosis(str(error)) from None
    if not table.num_rows:
        raise look.no_rows()
    found: dict[int, Any] = {}
    for index, kind in wanted.items():
        column = table[str(index)]
        if kind == "text":
            found[index] = column.to_pylist()
        elif kind in ("number", "sample"):
            values_S = _numpy(column)
            if np.isinf(values_S).any():
                raise look.at(int(np.argmax(np.isinf(values_S))), index, "is infinite or too large")
            found[index] = values_S
        else:
            if column.null_count:
                row = int(np.argmax(np.asarray(column.is_null())))
                raise look.at(row, index, "is empty")
            nanoseconds_S = _numpy(column.cast(pa.int64()))
            # Relative to the first whole second: float64 has not digits enough for all of it.
            second = int(nanoseconds_S[0]) // 10**9
            found[index] = (nanoseconds_S - second * 10**9) / 1e9
    return found


def _numpy(column: Any) -> np.ndarray:
    """The values of a chunked column, missing ones NaN.

    (Its own `to_numpy` imports pandas, which takes a quarter of a second.)
    """
    import numpy as np

    return np.concatenate(
        [
            np.from_dlpack(chunk.fill_null(float("nan")) if chunk.null_count else chunk)
            for chunk in column.chunks
        ]
    )


def _in_utf8(text: Text) -> Text:
    """The same text where every byte is UTF-8: pyarrow hands odd rows over only so."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    size = len(text.content)
    try:
        for begin in range(0, size, _CHUNK_BYTES):
            decoder.decode(text.content[begin : begin + _CHUNK_BYTES], begin + _CHUNK_BYTES >= size)
    except UnicodeDecodeError:
        recoded = bytes(text.content).decode("cp1252", errors="replace").encode()
        return replace(text, content=recoded)
    return text


@dataclass(frozen=True)
class _Look:
    """The same table again, line by line, to say where something is wrong."""

    text: Text
    names: Sequence[str]
    wanted: dict[int, Kind]
    header_lines: int
    delimiter: str
    decimal: str
    width: int
    leave_out: Callable[[list[str]], bool] | None

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        for number, line in self.text.lines():
            if number > self.header_lines and line:
                found = cells(line, self.delimiter)
                odd = len(found) != self.width
                if not (odd and self.leave_out is not None and self.leave_out(found)):
                    yield number, found

    def name(self, index: int) -> str:
        return shown(self.names[index])

    def no_rows(self) -> RemitError:
        return RemitError(
            f"{self.text.path}: holds a header and no rows; expected one row per sample; leave it "
            "out."
        )

    def at(self, row: int, index: int, what: str) -> RemitError:
        """The error for a cell of a row, counted from 0."""
        for count, (number, found) in enumerate(self.rows()):
            if count == row:
                return RemitError(
                    f"{self.text.path} line {number}: column {self.name(index)} {what} "
                    f"('{shown(found[index], 40)}'); expected {self.expected(index)}; repair the file "
                    "or leave this recording out."
                )
        return RemitError(
            f"{self.text.path}: column {self.name(index)} {what} in row {row + 1}; expected "
            f"{self.expected(index)}; repair the file or leave this recording out."
        )

    def expected(self, index: int) -> str:
        dates = self.wanted[index] in ("date", "zoned date")
        return "a date and time such as 2018-11-22 17:21:18.123" if dates else "a number"

    def diagnosis(self, reason: str) -> RemitError:
        """Look for the row that the parser stumbled over, to name it."""
        number = 0
        for number, found in self.rows():
            where = f"{self.text.path} line {number}"
            if len(found) != self.width:
                return RemitError(
                    f"{where}: {len(found)} cells; expected {self.width} "
                    f"({listed(self.names)}); repair or remove this row."
                )
            for index, kind in self.wanted.items():
                cell = found[index]
                if kind == "text" or (kind in ("number", "sample") and cell in MISSING):
                    continue
                good = (
                    is_number(cell, self.decimal)
                    if kind in ("number", "sample")
                    else (date_kind(cell) == kind)
                )
                if not good:
                    return RemitError(
                        f"{where}: column {self.name(index)} is '{shown(cell, 40)}'; expected "
                        f"{self.expected(index)}; repair or remove this row."
                    )
        if not number:
            return self.no_rows()
        return RemitError(
            f"{self.text.path}: cannot be read as a table ({shown(reason, 200)}); expected rows of "
            f"{self.width} cells; export it again."
        )


def seconds(stamps_S: np.ndarray, source: str, name: str) -> tuple[np.ndarray, list[str]]:
    """Time stamps in seconds, whatever part of a second they count since 1970, and a note on it.

    Numbers below 1e11 are taken as seconds; 1e11 s is the year 5138. Raises RemitError where one
    is missing.
    """
    import numpy as np

    missing = int(np.isnan(stamps_S).sum())
    if missing:
        raise RemitError(
            f"{source}: column {shown(name)} is empty in {missing} rows, the first of them row "
            f"{int(np.argmax(np.isnan(stamps_S))) + 1}; expected a time for each row; repair the "
            "file or leave this recording out."
        )
    for unit, size, factor in (("ns", 1e17, 1e-9), ("µs", 1e14, 1e-6), ("ms", 1e11, 1e-3)):
        if abs(float(stamps_S[0])) > size:
            note = f"By their size the time stamps are taken as {unit} since 1970."
            return (stamps_S - stamps_S[0]) * factor, [note]
    return stamps_S, []


def without_empty(
    by_channel: dict[str, int], samples: dict[int, np.ndarray], names: Sequence[str], source: str
) -> tuple[dict[str, int], list[str]]:
    """The channels that hold numbers at all, and a sentence for each that does not.

    Raises RemitError where none does.
    """
    import numpy as np

    kept = {
        channel: index
        for channel, index in by_channel.items()
        if not np.isnan(samples[index]).all()
    }
    if not kept:
        raise RemitError(
            f"{source}: the EEG columns ({some_of(by_channel)}) hold no numbers; expected "
            "samples; leave this recording out."
        )
    gone = [names[index] for channel, index in by_channel.items() if channel not in kept]
    return kept, [f"Column {shown(name)} holds no numbers and is left out." for name in gone]


def refuse_repeats(stamps_S: np.ndarray, signal_CS: np.ndarray, source: str) -> None:
    """Refuse rows that are there twice: the same stamps with the same samples again.

    Raises RemitError for 12 such rows in succession. Rows that repeat the samples of the row
    before them do not count, for a flat signal does so by itself.
    """
    import numpy as np

    behind_S = stamps_S < np.maximum.accumulate(stamps_S)
    if not behind_S.any():
        return
    behind_S[1:] |= behind_S[:-1]  # the last row that is there twice is as late as the latest
    # Only rows with the stamps of those that come behind a later stamp can be there twice.
    rows = np.flatnonzero(np.isin(stamps_S, stamps_S[behind_S]))
    order = rows[np.lexsort((rows, *signal_CS[:, rows], stamps_S[rows]))]
    one, two = order[:-1], order[1:]
    same = (stamps_S[one] == stamps_S[two]) & (signal_CS[:, one] == signal_CS[:, two]).all(axis=0)
    changes_S = np.concatenate([[True], (np.diff(signal_CS, axis=1) != 0).any(axis=0)])
    same &= changes_S[two]
    distance_S = np.zeros(stamps_S.size, dtype=np.int64)
    distance_S[two[same]] = two[same] - one[same]
    begins = np.flatnonzero(np.diff(distance_S, prepend=-1, append=-1))
    for first, stop in zip(begins[:-1].tolist(), begins[1:].tolist(), strict=True):
        if stop - first >= _FEWEST_REPEATED and distance_S[first] > 0:
            earlier = first - int(distance_S[first])
            raise RemitError(
                f"{source}: {stop - first} rows from row {first + 1} repeat the stamps and samples "
                f"of those from row {earlier + 1}; expected each sample once; remove the repeated "
                "rows."
            )
