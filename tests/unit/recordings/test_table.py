"""Opening packed and odd text, and saying where a table is wrong."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings_made import one_line

from remit.recordings import table

BODY = b"a,b\n" + b"".join(b"%d,%d.25\n" % (i, i) for i in range(500))
PACKED = gzip.compress(BODY, mtime=0)
WANTED: dict[int, table.Kind] = {0: "number", 1: "sample"}


def written(folder: Path, name: str, content: bytes) -> Path:
    file = folder / name
    file.write_bytes(content)
    return file


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return packed.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", BODY),
        ("a.csv.gz", PACKED),
        ("two_members.csv.gz", gzip.compress(BODY[:900]) + gzip.compress(BODY[900:])),
        ("a.zip", zipped({"x/a.csv": BODY, "x/": b"", "__MACOSX/x/._a.csv": b"?", "n.txt": b"?"})),
        ("stored.zip", zipped({"a.CSV": BODY}, zipfile.ZIP_STORED)),
        ("misnamed.csv", PACKED),
    ],
)
def test_every_packing_gives_the_same_text(tmp_path: Path, name: str, content: bytes) -> None:
    file = written(tmp_path, name, content)
    assert bytes(table.load(file).content) == BODY
    assert table.head(file)[:2] == ["a,b", "0,0.25"]


def encrypted() -> bytes:
    raw = bytearray(zipped({"a.csv": BODY}))
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        raw[raw.find(signature) + at] |= 1
    return bytes(raw)


def flipped(content: bytes) -> bytes:
    raw = bytearray(content)
    raw[len(raw) // 2] ^= 0xFF
    return bytes(raw)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.zip", zipped({"a.csv": BODY, "b.csv": BODY}), "holds 2 CSV files (a.csv, b.csv)"),
        ("a.zip", zipped({"a.txt": BODY}), "holds 0 CSV files"),
        ("a.zip", zipped({}), "holds 0 CSV files"),
        ("a.zip", zipped({"a.csv": b""}), "is empty"),
        ("a.zip", encrypted(), "is encrypted"),
        ("a.zip", zipped({"a.csv": BODY})[:-30], "cut or damaged"),
        ("a.zip", flipped(zipped({"a.csv": BODY})), "cut or damaged"),
        ("a.zip", BODY, "is no zip file"),
        ("a.csv.gz", BODY, "is no gzip file"),
        ("a.csv.gz", PACKED[:-9], "cut or damaged"),
        ("a.csv.gz", PACKED[:12], "cut or damaged"),
        ("a.csv.gz", flipped(PACKED), "cut or damaged"),
        ("a.csv.gz", PACKED + b"rest", "cut or damaged"),
        ("a.csv", BODY[:-3], "the file ends inside this row ('499,499.')"),
        ("a.csv", BODY[:-1], "line 501: the file ends inside this row"),
        ("a.csv", BODY.replace(b"7", b"\0"), "is no text in UTF-8"),
        ("a.csv", BODY.decode().encode("utf-16")[:-3], "begins as UTF-16"),
    ],
)
def test_what_cannot_be_opened_is_refused(
    tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    file = written(tmp_path, name, content)
    message = one_line(lambda: table.load(file))
    assert says in message and name in message


def test_a_bomb_is_refused_while_it_unpacks(tmp_path: Path) -> None:
    size = table.MOST_PACKED_BYTES + (8 << 20)
    zeros = b"0,0\n" * (size // 4)
    bombs = {"a.csv.gz": gzip.compress(zeros), "a.zip": zipped({"a.csv": zeros})}
    # The header's claim is not what is believed.
    lying = bytearray(bombs["a.zip"])
    at = lying.find(b"PK\x01\x02") + 24
    lying[at : at + 4] = struct.pack("<I", size)
    for name, content in (*bombs.items(), ("b.zip", bytes(lying))):
        file = written(tmp_path, name, content)
        assert "unpacks to more than" in one_line(lambda file=file: table.load(file))


def test_the_most_bytes_hold_whatever_the_ratio(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).bytes(5000)
    file = written(tmp_path, "a.csv.gz", gzip.compress(noise))
    with gzip.open(file) as opened:
        whole, cut = table.unpack(opened, file.stat().st_size, file, (200, 0, 5000))
    assert whole == noise and cut is None
    with gzip.open(file) as opened:
        call = lambda: table.unpack(opened, file.stat().st_size, file, (200, 0, 4999))  # noqa: E731
        assert "unpacks to more than" in one_line(call)


def test_what_is_whole_of_a_cut_file_is_kept_on_request(tmp_path: Path) -> None:
    text = table.load(written(tmp_path, "a.csv", BODY[:-3]), allow_truncated=True)
    assert bytes(text.content) == BODY[: BODY.rindex(b"\n", 0, -1) + 1]
    assert any("left out" in note for note in text.notes)
    noise = np.random.default_rng(0).integers(10, 99, 40_000)
    body = b"a\n" + b"".join(b"%d\n" % value for value in noise)
    packed = gzip.compress(body)
    text = table.load(written(tmp_path, "b.csv.gz", packed[: len(packed) // 2]), True)
    kept = bytes(text.content)
    assert body.startswith(kept) and kept.endswith(b"\n") and len(kept) > len(body) // 3
    assert any("archive is cut" in note for note in text.notes)


def test_a_damaged_archive_is_no_cut_one(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(BODY, 0))  # stored, so that a digit can be changed
    at = packed.find(b"250,250.25")
    packed[at] = ord("9")
    zip_file = bytearray(zipped({"a.csv": BODY}, zipfile.ZIP_STORED))
    zip_file[zip_file.find(b"250,250.25")] = ord("9")
    squeezed = PACKED
    long = squeezed[:-4] + struct.pack("<I", len(BODY) + 1)
    for name, content, says in (
        ("a.csv.gz", bytes(packed), "CRC check failed"),
        ("a.zip", bytes(zip_file), "Bad CRC-32"),
        ("b.csv.gz", flipped(squeezed), "cut or damaged"),
        ("c.csv.gz", long, "Incorrect length"),
        ("d.csv.gz", squeezed + b"rest", "Not a gzipped file"),
        ("e.zip", zipped({"a.csv": BODY})[:-30], "cut or damaged"),
    ):
        file = written(tmp_path, name, content)
        for allow in (False, True):
            message = one_line(lambda file=file, allow=allow: table.load(file, allow))
            assert says in message


def test_an_error_is_short_and_holds_nothing_that_a_terminal_obeys(tmp_path: Path) -> None:
    name = "\x1b[31m" + "n" * 300 + ".csv"
    for members in ({name: b""}, {name: b"a\n", "b" + name: b"a\n"}):
        file = written(tmp_path, "a.zip", zipped(members))
        message = one_line(lambda file=file: table.load(file))
        assert "\x1b" not in message and "\\x1b[31mnnn" in message and len(message) < 500
    crc = bytearray(zipped({name: BODY}, zipfile.ZIP_STORED))
    crc[crc.find(b"250,250.25")] = ord("9")
    file = written(tmp_path, "crc.zip", bytes(crc))
    message = one_line(lambda: table.load(file))
    assert "\x1b" not in message and len(message) < 400
    header = ",".join("\x1b" + "h" * 9000 for _ in range(2)).encode()
    text = table.load(written(tmp_path, "h.csv", header + b"\n1,2\n3\n"))
    names = table.cells(table.head(text.path)[0])
    message = one_line(lambda: table.columns(text, names, WANTED))
    assert "line 3: 1 cells" in message and "\x1b" not in message and len(message) < 400


@given(st.text(max_size=200))
def test_shown_is_short_and_printable(text: str) -> None:
    found = table.shown(text)
    assert found.isprintable() and len(found) <= table.SHOWN + 3
    if text.isprintable() and len(text) <= table.SHOWN:
        assert found == text.strip()


def test_a_long_first_line_does_not_hide_the_second(tmp_path: Path) -> None:
    lines = [",".join(["x" * 9] * 30_000), ",".join(["y" * 9] * 30_000), "z", ""]
    file = written(tmp_path, "a.csv", "\n".join(lines).encode())
    assert table.head(file)[:2] == lines[:2]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("decimal", [".", ","])
@pytest.mark.parametrize("before", ["", "\n", "sep={}\n", "\n;;\nSEP={}\n\n", '"sep={}"\n'])
def test_where_a_table_starts(tmp_path: Path, delimiter: str, decimal: str, before: str) -> None:
    if delimiter == decimal:
        return
    body = f"a{delimiter}b\n1{decimal}5{delimiter}2{decimal}5\n"
    content = before.replace("{}", delimiter) + body
    file = written(tmp_path, "a.csv", content.encode())
    start = table.start(file, lambda cells: list(cells) == ["a", "b"])
    assert start is not None and start.header == ("a", "b")
    assert (start.delimiter, start.decimal) == (delimiter, decimal)
    found = table.columns(
        table.load(file),
        start.header,
        WANTED,
        header_lines=start.header_lines,
        delimiter=start.delimiter,
        decimal=start.decimal,
    )
    assert found[0].tolist() == [1.5] and found[1].tolist() == [2.5]
    assert table.start(file, lambda cells: "c" in cells) is None


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends(tmp_path: Path, encoding: str, end: str) -> None:
    content = end.join(["Zeit,AF7 (µV)", "0,1.5", "1,2.5", ""]).encode(encoding)
    file = written(tmp_path, "a.csv", content)
    assert table.cells(table.head(file)[0]) == ["Zeit", "AF7 (µV)"]
    text = table.load(file)
    found = table.columns(text, ["Zeit", "AF7"], {0: "number", 1: "sample"})
    assert found[0].tolist() == [0, 1] and found[1].tolist() == [1.5, 2.5]
    assert found[1].dtype == np.float32
    assert [line for _, line in text.lines()][1:] == ["0,1.5", "1,2.5"]


def test_quotes_spaces_blank_lines_and_missing_numbers(tmp_path: Path) -> None:
    body = b'a,b,c\n"1", 2.5 ,x\n\n2,"NaN","y, z"\n3,,\n'
    text = table.load(written(tmp_path, "a.csv", body))
    found = table.columns(text, ["a", "b", "c"], {**WANTED, 2: "text"})
    assert found[0].tolist() == [1, 2, 3]
    np.testing.assert_array_equal(found[1], np.array([2.5, np.nan, np.nan], dtype=np.float32))
    assert found[2] == [b"x", b"y, z", b""]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"7,x7", "line 300: column b is 'x7'; expected a number"),
        (b"7,1_000", "line 300: column b is '1_000'"),
        (b"7,inf", "line 300: column b is infinite or too large ('inf')"),
        (b"7", "line 300: 1 cells; expected 2 (a, b)"),
        (b"7,7,7", "line 300: 3 cells; expected 2 (a, b)"),
    ],
)
def test_a_bad_row_is_named_with_its_line(tmp_path: Path, line: bytes, says: str) -> None:
    lines = BODY.split(b"\n")
    lines[299] = line
    text = table.load(written(tmp_path, "a.csv", b"\n".join(lines)))
    assert says in one_line(lambda: table.columns(text, ["a", "b"], WANTED))


def test_dates_keep_their_milliseconds(tmp_path: Path) -> None:
    body = b"t\n2018-11-22 17:21:18.123\n2018-11-22T17:21:18.127\n2018-11-22 17:21:19\n"
    text = table.load(written(tmp_path, "a.csv", body))
    found = table.columns(text, ["t"], {0: "date"})[0]
    np.testing.assert_allclose(found - found[0], [0, 0.004, 0.877], atol=1e-9)
    body = b"t\n2018-11-22T17:21:18.1234567Z\n2018-11-22T18:21:18.1234667+01:00\n"
    text = table.load(written(tmp_path, "b.csv", body))
    found = table.columns(text, ["t"], {0: "zoned date"})[0]
    assert found[1] - found[0] == pytest.approx(1e-5, abs=1e-9)
    assert table.date_kind("2018-11-22T17:21:18Z") == "zoned date"
    assert table.date_kind("51:54.6") is None and table.date_kind("11/22/2018 17:21") is None
    text = table.load(written(tmp_path, "c.csv", b"t\n2018-11-22 17:21:18\n51:54.6\n"))
    message = one_line(lambda: table.columns(text, ["t"], {0: "date"}))
    assert "line 3: column t is '51:54.6'; expected a date and time" in message


@settings(max_examples=30)
@given(
    st.lists(st.floats(-1e6, 1e6, allow_nan=False, width=32), min_size=1, max_size=50),
    st.sampled_from([",", ";", "\t"]),
    st.booleans(),
)
def test_numbers_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, values: list[float], delimiter: str, comma: bool
) -> None:
    decimal = "," if comma and delimiter != "," else "."
    lines = [f"{i}{delimiter}{value!r}".replace(".", decimal) for i, value in enumerate(values)]
    content = "\n".join([f"i{delimiter}v", *lines, ""]).encode()
    text = table.load(written(tmp_path_factory.mktemp("t"), "a.csv", content))
    found = table.columns(text, ["i", "v"], WANTED, delimiter=delimiter, decimal=decimal)
    assert found[1].tolist() == values


@pytest.mark.parametrize(("scale", "unit"), [(1e3, "ms"), (1e6, "µs"), (1e9, "ns")])
def test_the_unit_of_stamps_since_1970_is_told_by_their_size(scale: float, unit: str) -> None:
    stamps_S = np.round((1.6e9 + np.arange(5)) * scale)
    seconds_S, notes = table.seconds(stamps_S, "x.csv", "time")
    np.testing.assert_allclose(np.diff(seconds_S), 1.0)
    assert f"taken as {unit} since 1970" in notes[0]
