"""The cohort sheet: written and read back, and every slip named."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings_made import one_line

from remit.config import Simulation
from remit.errors import RemitError
from remit.recordings.cohort import (
    Links,
    SheetRow,
    read_sheet,
    resolve,
    simulated_rows,
    write_sheet,
)

IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}", fullmatch=True)
TEXT = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=12)
CELL = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=12).map(str.strip)


@st.composite
def sheets(draw: st.DrawFn) -> list[SheetRow]:
    recordings = draw(st.lists(IDS, min_size=1, max_size=6, unique_by=str.lower))
    columns = draw(st.lists(st.sampled_from(["age", "sex", "site β"]), unique=True))
    people = draw(st.lists(IDS, min_size=1, max_size=6, unique_by=str.lower))
    labels: dict[str, int | None] = {}
    rows = []
    for number, recording in enumerate(recordings):
        participant = draw(st.sampled_from(people))
        labels.setdefault(participant, draw(st.sampled_from([0, 1, None])))
        folder = draw(TEXT).replace("/", "-").strip(".") or "x"
        rows.append(
            SheetRow(
                participant,
                recording,
                f"{folder}/{number}.edf",
                draw(st.none() | TEXT),
                labels[participant],
                {column: draw(CELL) for column in columns},
                draw(st.none() | st.integers(1, 4096).map(float)),
                draw(st.none() | st.sampled_from([("AF7",), ("TP9", "AF7", "Right AUX")])),
                draw(st.none() | st.sampled_from(["mV", "0.488 uV"])),
            )
        )
    return rows


@settings(max_examples=60, deadline=None)
@given(sheets())
def test_a_sheet_reads_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[SheetRow]
) -> None:
    file = tmp_path_factory.mktemp("sheet") / "cohort.tsv"
    write_sheet(rows, file)
    assert read_sheet(file) == rows


@pytest.mark.parametrize("rate", ["fast", "0", "-256", "nan", "inf"])
def test_a_rate_that_is_none_is_refused(tmp_path: Path, rate: str) -> None:
    file = tmp_path / "cohort.tsv"
    file.write_text(f"participant\trecording\tpath\tsampling_rate\nA\tA_1\tA.mat\t{rate}\n")
    assert f"line 2: sampling_rate is '{rate}'" in one_line(lambda: read_sheet(file))


def test_a_misspelt_reading_column_is_no_covariate(tmp_path: Path) -> None:
    file = tmp_path / "cohort.tsv"
    file.write_text("participant\trecording\tpath\tsamplingrate\nA\tA_1\tA.mat\t256\n")
    assert "Did you mean 'sampling_rate'?" in one_line(lambda: read_sheet(file))


@given(st.text(max_size=12))
@settings(max_examples=80, deadline=None)
def test_an_id_is_taken_only_if_it_can_be_a_file_name(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    fine = bool(text) and set(text) <= set(string.ascii_letters + string.digits + "-_")
    file = tmp_path_factory.mktemp("sheet") / "cohort.tsv"
    if fine and text[0] not in "-_":
        write_sheet([SheetRow(text, "r", "a.edf")], file)
        assert read_sheet(file)[0].participant == text
    elif any(character < " " for character in text):
        assert "fits into one cell" in one_line(
            lambda: write_sheet([SheetRow(text, "r", "a")], file)
        )
    elif text == text.strip():
        write_sheet([SheetRow(text, "r", "a.edf")], file)
        assert "cannot be a file name" in one_line(lambda: read_sheet(file))


def sheet(folder: Path, text: str) -> Path:
    file = folder / "cohort.tsv"
    file.write_text(text, encoding="utf-8")
    return file


HEAD = "participant\trecording\tpath\tremission\tage\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        (HEAD, "lists no recording"),
        ("participants\trecording\tpath\na\tb\tc\n", "Did you mean 'participants'?"),
        ("participant,recording,path\na,b,c\n", "not separated by tabs"),
        ("participant\trecording\tpath\tremision\na\tb\tc\t1\n", "Did you mean 'remission'?"),
        ("participant\trecording\tpath\tRemission\na\tb\tc\t1\n", "Did you mean 'remission'?"),
        ("participant\trecording\tpath\tage\tage\na\tb\tc\t1\t2\n", "column age"),
        (HEAD + "a\tb\tc\t1\n", "line 2: 4 cells; expected 5"),
        (HEAD + "a/b\tr\tc\t1\t9\n", "participant 'a/b'"),
        (HEAD + "a\t..\tc\t1\t9\n", "recording '..'"),
        (HEAD + "a\tr\t\t1\t9\n", "the path is ''"),
        (HEAD + "a\tr\tc\tyes\t9\n", "line 2: remission is 'yes'"),
        (HEAD + "a\tr\t../c\t1\t9\n", "leaves its root"),
        (HEAD + "a\tr\tx/../../c\t1\t9\n", "leaves its root"),
        (HEAD + "a\tr\t/etc/passwd\t1\t9\n", "set cohorts.<name>.root"),
        (HEAD + "a\tr\tc\t1\t9\nb\tR\td\t1\t9\n", "recording 'R' is already on line 2"),
        (HEAD + "a\tr\tc\t1\t9\nb\ts\t./c\t1\t9\n", "./c is already on line 2"),
        (HEAD + "a\tr\tc\t1\t9\n\na\ts\td\t0\t9\n", "line 4: participant 'a' has remission 0 and"),
        (HEAD + "a\tr\tc\t1\t9\na\ts\td\t\t9\n", "has remission empty and on line 2 1"),
    ],
)
def test_a_slip_is_named(tmp_path: Path, text: str, says: str) -> None:
    message = one_line(lambda: read_sheet(sheet(tmp_path, text)))
    assert says in message and "cohort.tsv" in message


def test_a_missing_or_foreign_file_is_named(tmp_path: Path) -> None:
    assert "cannot be read" in one_line(lambda: read_sheet(tmp_path / "no.tsv"))
    (tmp_path / "b.tsv").write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in one_line(lambda: read_sheet(tmp_path / "b.tsv"))


def test_paths_are_taken_inside_the_root(tmp_path: Path) -> None:
    inside = SheetRow("a", "r", str(tmp_path / "sub" / "c.edf"))
    assert resolve(inside, tmp_path) == tmp_path / "sub" / "c.edf"
    assert resolve(SheetRow("a", "r", "sub/./c.edf"), tmp_path) == tmp_path / "sub" / "c.edf"
    assert resolve(SheetRow("a", "r", "c.edf"), "data") == Path("data/c.edf")
    assert resolve(SheetRow("a", "r", "any/c.edf"), None) == Path("any/c.edf")
    message = one_line(lambda: resolve(SheetRow("a", "r", f"../{tmp_path.name}x/c"), tmp_path))
    assert "leaves its root" in message
    rows = read_sheet(sheet(tmp_path, HEAD + f"a\tr\t{inside.path}\t\t9\n"))
    assert rows[0].path == inside.path and rows[0].remission is None


def test_a_failed_write_leaves_the_old_sheet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cohort.tsv"
    write_sheet([SheetRow("a", "r", "c.edf")], file)
    before = file.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("no such luck")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no such luck"):
        write_sheet([SheetRow("b", "s", "d.edf")], file)
    assert file.read_bytes() == before and list(tmp_path.iterdir()) == [file]


def test_the_simulated_sheet(tmp_path: Path) -> None:
    rows = simulated_rows("demo", Simulation())
    assert rows == simulated_rows("demo", Simulation())
    assert len(rows) == 24 and sum(row.remission or 0 for row in rows) == 9
    assert rows[0].participant == "sim-001"
    assert rows[0].path == "results/simulated/demo/sim-001_rest.edf"
    others = simulated_rows("demo", Simulation(remission_fraction=0.5))
    assert [row.covariates for row in others] == [row.covariates for row in rows]
    write_sheet(rows, tmp_path / "demo.tsv")
    assert read_sheet(tmp_path / "demo.tsv") == rows


def links_to(tmp_path: Path) -> Path:
    """A cohort's folder, a data set of git-annex in it, and a folder outside with another person's file."""
    root = tmp_path / "in"
    for name in (
        "in/.git/annex/objects/x.edf",
        "out/deep/secret.edf",
        "in/P1/own.edf",
        "in2/y.edf",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (root / "P1/annex.edf").symlink_to("../.git/annex/objects/x.edf")
    (root / "P1/unfetched.edf").symlink_to("../.git/annex/objects/gone.edf")
    (root / "P1/file.edf").symlink_to(tmp_path / "out/deep/secret.edf")
    (root / "P1/gone.edf").symlink_to(tmp_path / "out/deep/nothing.edf")
    (root / "folder").symlink_to("../out")
    (root / "chain.edf").symlink_to("P1/second.edf")
    (root / "P1/second.edf").symlink_to("../folder/deep/secret.edf")
    (root / "P1/twin.edf").symlink_to("../../in2/y.edf")  # a name that begins as the root's does
    (tmp_path / "by_link").symlink_to(root)
    return root


INSIDE = ["P1/own.edf", "P1/annex.edf", "P1/unfetched.edf", "P1/not there.edf", "no/such.edf"]
LED_OUT = {
    "P1/file.edf": "out/deep/secret.edf",
    "P1/gone.edf": "out/deep/nothing.edf",
    "folder/deep/secret.edf": "out/deep/secret.edf",
    "folder/deep/not there.edf": "out/deep/not there.edf",
    "chain.edf": "out/deep/secret.edf",
    "P1/twin.edf": "in2/y.edf",
}


@pytest.mark.parametrize("by", ["in", "by_link"])
@pytest.mark.parametrize("path", [*INSIDE, *LED_OUT])
def test_a_link_out_of_the_root_is_refused(tmp_path: Path, path: str, by: str) -> None:
    links_to(tmp_path)
    row, root = SheetRow("p", "r", path), tmp_path / by
    links = Links("mine", root, ())
    if path in INSIDE:
        links.check(resolve(row, root))
        return
    real = tmp_path / LED_OUT[path]
    message = one_line(lambda: links.check(resolve(row, root)))
    assert f"{root / path}: a symbolic link leads to {real}, outside the folder of" in message
    assert f'set cohorts.mine.follow_links_to: ["{real.parent}"].' in message
    Links("mine", root, [str(real.parent)]).check(resolve(row, root))
    Links("mine", root, [str(tmp_path / "in3"), str(real.parent.parent)]).check(resolve(row, root))
    with pytest.raises(RemitError):
        Links("mine", root, [str(tmp_path / "ou")]).check(resolve(row, root))


def test_links_are_checked_however_root_and_path_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = links_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    for base in ("in", "./in", "out/../in", str(root)):
        for path in ("P1/file.edf", str(root / "P1/file.edf")):
            file = resolve(SheetRow("p", "r", path), base)
            assert Links("mine", Path(base), ()).outside(file) == tmp_path / "out/deep/secret.edf"
        Links("mine", Path(base), ()).check(
            resolve(SheetRow("p", "r", str(root / INSIDE[0])), base)
        )


@pytest.mark.parametrize("by", ["in", "by_link"])
def test_a_link_to_a_folder_above_the_root_is_refused(tmp_path: Path, by: str) -> None:
    root = links_to(tmp_path)
    (tmp_path / "private.edf").touch()
    (root / "P1/up").symlink_to(tmp_path)
    (root / "self").symlink_to(root)
    links = Links("mine", tmp_path / by, ())
    links.check(resolve(SheetRow("p", "r", "self/P1/own.edf"), tmp_path / by))
    with pytest.raises(RemitError, match=r"a symbolic link leads to .*/private\.edf"):
        links.check(resolve(SheetRow("p", "r", "P1/up/private.edf"), tmp_path / by))


def test_a_sidecar_above_the_root_is_no_way_out(tmp_path: Path) -> None:
    """One that holds for the whole data set, where only a part of it is the cohort's folder."""
    root = links_to(tmp_path)
    (tmp_path / "task-x_channels.tsv").touch()
    (tmp_path / "task-y_channels.tsv").symlink_to(tmp_path / "out/deep/secret.edf")
    links = Links("mine", root, ())
    links.check(tmp_path / "task-x_channels.tsv")
    with pytest.raises(RemitError, match="a symbolic link leads to"):
        links.check(tmp_path / "task-y_channels.tsv")
