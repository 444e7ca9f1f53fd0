"""The parquet contract: written bit for bit, read after checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import remit
from remit.dataset import windows as contract
from remit.dataset.windows import ParquetWriter, open_dataset, read_metadata, write_windows
from remit.errors import RemitError
from remit.preprocessing.chain import CHANNEL_QUALITY
from remit.preprocessing.chain import RESULT_VERSION as PREPROCESSING_VERSION

Make = Callable[..., Any]
COLUMNS = [
    "Participant",
    "Remission",
    "recording",
    "parent_window_id",
    "sub_window_id",
    "window_start",
    "window_end",
    "AF7",
    "AF8",
    "TP9",
    "TP10",
    *CHANNEL_QUALITY,
    "worn_fraction",
    "good",
    "bad_because",
]


def rewrite(file: Path, change: Callable[[pa.Table], pa.Table]) -> Path:
    """The same file with its table changed and its metadata kept."""
    table = pq.read_table(file)
    changed = change(table).replace_schema_metadata(table.schema.metadata)
    with ParquetWriter(file, changed.schema, [], {}) as writer:
        writer.write(changed)
    return file


def test_round_trip_is_exact(write: Make, make_windows: Make) -> None:
    windows = make_windows(3, 2, seed=4)
    dataset = open_dataset(write("p1", "p1-rest", windows=windows, remission=1))
    np.testing.assert_array_equal(dataset.signal_WCS(), windows.signal_WCS)
    assert dataset.signal_WCS().dtype == np.float32
    frame = dataset.frame()
    for name in [*COLUMNS[3:7], "worn_fraction", "good"]:
        np.testing.assert_array_equal(frame[name], getattr(windows, name))
        assert frame[name].dtype == getattr(windows, name).dtype
    assert tuple(frame["bad_because"]) == windows.bad_because
    assert list(frame) == COLUMNS[:7] + COLUMNS[-3:]
    for name in CHANNEL_QUALITY:
        np.testing.assert_array_equal(dataset.quality_WC(name), getattr(windows, name))
    assert set(frame["Participant"]) == {"p1"}
    assert dataset.labels == {"p1": 1}
    assert dataset.participants == ["p1"]
    assert len(dataset) == 5


def test_schema_is_the_contract(write: Make) -> None:
    schema = pq.read_schema(write("p1", "p1-rest"))
    assert schema.names == COLUMNS
    kinds = {name: str(schema.field(name).type) for name in COLUMNS}
    assert kinds["Participant"] == kinds["recording"] == "string"
    assert kinds["Remission"] == "int8"
    assert kinds["parent_window_id"] == kinds["sub_window_id"] == "int32"
    assert kinds["window_start"] == kinds["window_end"] == "int64"
    assert kinds["AF7"] == "fixed_size_list<element: float not null>[64]"
    for name in CHANNEL_QUALITY:
        assert kinds[name] == "fixed_size_list<element: float not null>[4]"
    assert kinds["worn_fraction"] == "float"
    assert kinds["good"] == "bool"
    assert kinds["bad_because"] == "string"


def test_metadata_says_what_the_numbers_mean(write: Make) -> None:
    metadata = read_metadata(write("p1", "p1-rest"))
    assert metadata["sampling_rate"] == 32.0
    assert metadata["units"] == "µV"
    assert metadata["channels"] == ["AF7", "AF8", "TP9", "TP10"]
    assert metadata["window_samples"] == 64
    assert metadata["cohort"] == "made"
    assert metadata["simulated"] is True
    assert metadata["settings"]["lowpass"] == {"cutoff_hz": 12.0, "order": 4}
    assert metadata["remit_version"] == remit.__version__
    assert metadata["result_version"] == {"preprocessing": PREPROCESSING_VERSION}
    source = metadata["sources"]["p1-rest"]
    assert source["sha256"] == "of p1-rest"
    assert source["notes"] == ["made up"]
    assert source["left_out"] == ["ECG"]
    assert source["dropped_seconds"] == 1.25
    assert len(metadata["content_sha256"]) == 64


def test_pandas_reads_it(write: Make, make_windows: Make) -> None:
    windows = make_windows(2, 2)
    frame = pd.read_parquet(write("p1", "p1-rest", windows=windows, remission=None))
    assert list(frame) == COLUMNS
    assert frame["Remission"].isna().all()
    np.testing.assert_array_equal(np.stack(frame["TP9"]), windows.signal_WCS[:, 2])


def test_polars_and_duckdb_read_it(write: Make, make_windows: Make) -> None:
    windows = make_windows(2, 2)
    file = write("p1", "p1-rest", windows=windows)
    polars = pytest.importorskip("polars")
    column = polars.read_parquet(file)["TP9"].to_list()
    np.testing.assert_array_equal(np.array(column, np.float32), windows.signal_WCS[:, 2])
    duckdb = pytest.importorskip("duckdb")
    assert duckdb.sql(f"select count(*) from '{file}'").fetchall() == [(4,)]


def test_same_input_same_bytes(write: Make) -> None:
    first = write("p1", "p1-rest").read_bytes()
    assert write("p1", "p1-rest").read_bytes() == first
    assert write("p1", "p1-rest", seed=99).read_bytes() != first


def test_the_writer_sorts(write: Make, make_windows: Make) -> None:
    windows = make_windows(2, 2)
    mixed = np.array([3, 0, 2, 1])
    columns = {key: value for key, value in vars(windows).items() if isinstance(value, np.ndarray)}
    shuffled = {key: value[mixed] for key, value in columns.items()}
    file = write("p1", "p1-rest", windows=replace(windows, **shuffled))
    np.testing.assert_array_equal(open_dataset(file).signal_WCS(), windows.signal_WCS)


def test_content_hash_knows_the_content_alone(write: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read_metadata(write("p1", "p1-rest"))["content_sha256"]
    monkeypatch.setattr(contract, "ROW_GROUP_BYTES", 1)
    file = write("p1", "p1-rest", settings={"window_seconds": 2.0})
    assert pq.ParquetFile(file).num_row_groups == 5
    assert read_metadata(file)["content_sha256"] == first
    open_dataset(file)
    assert read_metadata(write("p1", "p1-rest", seed=1))["content_sha256"] != first
    assert read_metadata(write("p1", "p1-rest", remission=1))["content_sha256"] != first
    assert read_metadata(write("p1", "p1-rest", remission=None))["content_sha256"] != first


def test_table_gives_columns_by_name(write: Make) -> None:
    dataset = open_dataset(write("p1", "p1-rest"))
    assert dataset.table(["good", "AF8"]).column_names == ["good", "AF8"]
    assert dataset.table().column_names == COLUMNS
    with pytest.raises(RemitError, match="has no column Cz; expected one of Participant"):
        dataset.table(["Cz"])


def test_unknown_participant_is_refused(write: Make) -> None:
    with pytest.raises(RemitError, match="has no participant p9; expected some of p1"):
        open_dataset(write("p1", "p1-rest")).signal_WCS(["p1", "p9"])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_is_not_written(
    write: Make, make_windows: Make, tmp_path: Path, value: float
) -> None:
    windows = make_windows(2, 3)
    windows.signal_WCS[1, 2, 3] = value
    with pytest.raises(RemitError, match="participant p1, recording p1-rest: a window holds NaN"):
        write("p1", "p1-rest", windows=windows)
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_is_not_read(write: Make, make_windows: Make, value: float) -> None:
    def spoil(table: pa.Table) -> pa.Table:
        index = table.column_names.index("TP9")
        samples = table.column("TP9").combine_chunks().flatten().to_numpy().copy()
        samples[64 + 7] = value
        field = table.schema.field("TP9")
        column = pa.FixedSizeListArray.from_arrays(pa.array(samples), type=field.type)
        return table.set_column(index, field, column)

    with pytest.raises(
        RemitError, match=r"participant p1, recording p1-rest: channel TP9 holds NaN .* window 0/1"
    ):
        open_dataset(rewrite(write("p1", "p1-rest"), spoil))


@pytest.mark.parametrize(
    "rows", [[1, 0, 2, 3, 4], [2, 3, 4, 0, 1], [0, 1, 1, 2, 3], [0, 1, 2, 4, 3]]
)
def test_windows_out_of_order_are_refused(write: Make, rows: list[int]) -> None:
    expected = {1: "0/0 and comes after p1/p1-rest/0/1"}
    with pytest.raises(
        RemitError, match=r"windows out of order: row \d is p1/p1-rest/\d/\d"
    ) as error:
        open_dataset(rewrite(write("p1", "p1-rest"), lambda table: table.take(rows)))
    assert expected.get(rows[0], "") in str(error.value)
    assert "sorted by Participant -> recording -> parent_window_id" in str(error.value)


def test_missing_column_names_what_is_there(write: Make) -> None:
    file = rewrite(write("p1", "p1-rest"), lambda table: table.drop_columns(["AF8"]))
    with pytest.raises(
        RemitError, match=r"column 'AF8' is missing; found Participant, Remission.*TP9"
    ):
        open_dataset(file)


def test_wrong_type_and_wrong_order_of_columns_are_refused(write: Make) -> None:
    def retype(table: pa.Table) -> pa.Table:
        index = table.column_names.index("window_start")
        return table.set_column(index, "window_start", table["window_start"].cast(pa.int32()))

    with pytest.raises(RemitError, match="'window_start' has type int32; expected int64"):
        open_dataset(rewrite(write("p1", "p1-rest"), retype))
    with pytest.raises(RemitError, match=r"columns are bad_because, .*expected Participant"):
        open_dataset(rewrite(write("p1", "p1-rest"), lambda table: table.select(COLUMNS[::-1])))


def test_two_labels_in_a_file_are_refused(write: Make) -> None:
    def relabel(table: pa.Table) -> pa.Table:
        labels = pa.array([0, 0, 1, 0, 0], pa.int8())
        return table.set_column(1, "Remission", labels)

    with pytest.raises(RemitError, match="participant p1 has two labels, 0 and 1"):
        open_dataset(rewrite(write("p1", "p1-rest"), relabel))


def test_changed_contents_are_noticed(write: Make) -> None:
    def change(table: pa.Table) -> pa.Table:
        index = table.column_names.index("good")
        return table.set_column(index, table.schema.field("good"), pa.array([False] * 5))

    with pytest.raises(RemitError, match="differ from the hash written with them"):
        open_dataset(rewrite(write("p1", "p1-rest"), change))


def test_foreign_and_broken_files_are_refused(write: Make, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.parquet"
    pd.DataFrame({"a": [1]}).to_parquet(foreign)
    with pytest.raises(RemitError, match=r"no 'remit' metadata \(columns: a\)"):
        open_dataset(foreign)
    text = tmp_path / "text.parquet"
    text.write_text("no parquet")
    with pytest.raises(RemitError, match="cannot be read as parquet"):
        open_dataset(text)
    with pytest.raises(RemitError, match="is not there"):
        read_metadata(tmp_path / "absent.parquet")
    file = write("p1", "p1-rest")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(RemitError, match="cannot be read as parquet"):
        open_dataset(file)


def test_harmed_pages_are_noticed(write: Make, make_windows: Make) -> None:
    file = write("p1", "p1-rest", windows=make_windows(40))
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 0xFF
    file.write_bytes(bytes(data))
    with pytest.raises(RemitError, match=r"cannot be read|differ from the hash|NaN"):
        open_dataset(file)


@pytest.mark.parametrize("bad", ["a/b", "..", ""])
def test_an_id_that_is_no_file_name_is_refused(
    make_windows: Make, make_recording: Make, tmp_path: Path, bad: str
) -> None:
    with pytest.raises(RemitError, match="cannot be a file name"):
        write_windows(
            tmp_path / "x.parquet",
            make_windows(2),
            recording=make_recording(participant=bad),
            remission=0,
            cohort="made",
            settings={},
        )


def test_another_label_is_refused(write: Make) -> None:
    with pytest.raises(RemitError, match="remission is 2; expected 0, 1 or nothing"):
        write("p1", "p1-rest", remission=2)
