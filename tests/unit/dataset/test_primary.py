"""The primary dataset is independent of its input's order, and refuses what does not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from remit.dataset import primary
from remit.dataset import windows as contract
from remit.dataset.windows import ParquetWriter, open_dataset
from remit.errors import RemitError

Make = Callable[..., Any]
CHANNELS = ["AF7", "AF8", "TP9", "TP10"]
ROW_BYTES = 4 * 4 * 64


def build(files: list[Path], out: Path, **changes: Any) -> dict[str, Any]:
    return primary.build_primary(files, out, **({"cohort": "made", "channels": CHANNELS} | changes))


@pytest.fixture
def files(write: Make, make_windows: Make) -> list[Path]:
    """Four participants; p10 sorts before p2, and p2 has two recordings."""
    return [
        write("p2", "p2-b", remission=1, windows=make_windows(4, seed=1, bad=1)),
        write("p10", "p10-a", remission=0, windows=make_windows(1, 2, seed=2)),
        write("p2", "p2-a", remission=1, windows=make_windows(2, seed=3)),
        write("p1", "z-first", remission=None, windows=make_windows(5, seed=4)),
        write("p3", "p3-a", remission=0, windows=make_windows(3, seed=5, bad=2)),
    ]


def test_rows_are_those_of_the_recordings_in_order(files: list[Path], tmp_path: Path) -> None:
    build(files, tmp_path / "out.parquet")
    dataset = open_dataset(tmp_path / "out.parquet")
    ordered = [files[index] for index in (3, 1, 2, 0, 4)]
    parts = [open_dataset(file) for file in ordered]
    np.testing.assert_array_equal(
        dataset.signal_WCS(), np.concatenate([part.signal_WCS() for part in parts])
    )
    assert dataset.participants == ["p1", "p10", "p2", "p3"]
    assert dataset.labels == {"p1": None, "p10": 0, "p2": 1, "p3": 0}
    frame = dataset.frame()
    assert frame.groupby("recording", sort=False).size().to_dict() == {
        "z-first": 5,
        "p10-a": 3,
        "p2-a": 2,
        "p2-b": 4,
        "p3-a": 3,
    }
    assert list(dataset.metadata["sources"]) == sorted(dataset.metadata["sources"])


def test_summary_counts(files: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    summary = build(files, out)
    assert summary["participants"] == 4
    assert summary["recordings"] == 5
    assert summary["windows"] == 17
    assert summary["bad_windows"] == 3
    assert summary["participants_per_label"] == {"0": 2, "1": 1, "unknown": 1}
    assert summary["windows_per_label"] == {"0": 6, "1": 6, "unknown": 5}
    assert summary["dropped_seconds"] == pytest.approx(5 * 1.25)
    assert summary["simulated"] is True
    assert summary == primary.verify(out)
    assert summary["content_sha256"] == open_dataset(out).metadata["content_sha256"]


def test_order_of_the_input_does_not_matter(files: list[Path], tmp_path: Path) -> None:
    one, other = tmp_path / "one.parquet", tmp_path / "other.parquet"
    assert build(files, one) == build(files[::-1], other)
    assert one.read_bytes() == other.read_bytes()


def test_content_hash_is_independent_of_row_groups(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = build(files, tmp_path / "one.parquet")
    monkeypatch.setattr(contract, "ROW_GROUP_BYTES", 2 * ROW_BYTES)
    parts = build(files, tmp_path / "other.parquet")
    assert whole["content_sha256"] == parts["content_sha256"]
    assert pq.ParquetFile(tmp_path / "other.parquet").num_row_groups > 1


@pytest.mark.parametrize(
    ("most_rows", "expected"),
    [
        # p1 5, p10 3, p2 2 + 4, p3 3 windows
        (100, [17]),
        (9, [8, 9]),
        (8, [8, 6, 3]),
        (6, [5, 3, 6, 3]),
        (5, [5, 3, 5, 4]),  # p2 fills one group of its own; its rest goes with p3
        (2, [2, 2, 1, 2, 1, 2, 2, 2, 2, 1]),
    ],
)
def test_row_groups_hold_whole_participants(
    files: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    most_rows: int,
    expected: list[int],
) -> None:
    monkeypatch.setattr(contract, "ROW_GROUP_BYTES", most_rows * ROW_BYTES)
    build(files, tmp_path / "out.parquet")
    parquet = pq.ParquetFile(tmp_path / "out.parquet")
    sizes = [parquet.metadata.row_group(k).num_rows for k in range(parquet.num_row_groups)]
    assert sizes == expected
    dataset = open_dataset(tmp_path / "out.parquet")
    whole = dataset.signal_WCS()
    rows = dataset.frame()["Participant"].isin(["p10", "p3"]).to_numpy()
    np.testing.assert_array_equal(dataset.signal_WCS(["p3", "p10"]), whole[rows])


def test_memory_does_not_grow_with_the_number_of_recordings(
    write: Make, make_windows: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arrow holds a few row groups at a time, not the dataset."""
    monkeypatch.setattr(contract, "ROW_GROUP_BYTES", 200 * ROW_BYTES)
    files = [write(f"p{k}", f"p{k}-a", 150) for k in range(24)]
    whole = 24 * 150 * ROW_BYTES
    largest = 0
    original = contract.ParquetWriter.write

    def watch(self: contract.ParquetWriter, table: pa.Table) -> None:
        nonlocal largest
        largest = max(largest, pa.total_allocated_bytes() - before)
        original(self, table)

    monkeypatch.setattr(contract.ParquetWriter, "write", watch)
    before = pa.total_allocated_bytes()
    build(files, tmp_path / "out.parquet")
    assert largest < whole / 4


def test_a_recording_given_twice_is_refused(write: Make, tmp_path: Path) -> None:
    file = write("p1", "p1-a")
    copy = tmp_path / "copy.parquet"
    copy.write_bytes(file.read_bytes())
    with pytest.raises(RemitError, match=r"recording p1-a is given twice, in .*copy.parquet"):
        build([file, copy], tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize(("one", "other"), [(0, 1), (None, 1)])
def test_two_labels_are_refused(
    write: Make, tmp_path: Path, one: int | None, other: int | None
) -> None:
    files = [write("p1", "p1-a", remission=one), write("p1", "p1-b", remission=other)]
    with pytest.raises(RemitError, match=r"participant p1 has two labels, (0|none) and 1"):
        build(files, tmp_path / "out.parquet")


def test_other_settings_are_refused_by_name(write: Make, tmp_path: Path) -> None:
    other = {
        "sampling_rate": 32.0,
        "window_seconds": 2.0,
        "lowpass": {"cutoff_hz": 12.0, "order": 2},
    }
    files = [write("p1", "p1-a"), write("p2", "p2-a", settings=other)]
    with pytest.raises(
        RemitError,
        match=r"p2-a.parquet: settings.lowpass.order is 2; expected 4 as in .*p1-a.parquet",
    ):
        build(files, tmp_path / "out.parquet")


def test_missing_channel_names_what_is_there(
    write: Make, make_windows: Make, tmp_path: Path
) -> None:
    three = make_windows(2, 2, channels=("AF7", "AF8", "TP9"))
    files = [write("p1", "p1-a"), write("p2", "p2-a", windows=three)]
    with pytest.raises(RemitError, match=r"p2-a.parquet: lacks channel TP10; it has AF7, AF8, TP9"):
        build(files, tmp_path / "out.parquet")


def test_another_cohort_and_a_mix_with_simulated_are_refused(write: Make, tmp_path: Path) -> None:
    files = [write("p1", "p1-a"), write("p2", "p2-a", simulated=False)]
    with pytest.raises(RemitError, match="one is simulated and the other is not"):
        build(files, tmp_path / "out.parquet")
    with pytest.raises(RemitError, match="belongs to cohort made; expected study"):
        build(files, tmp_path / "out.parquet", cohort="study")


def test_no_files_and_joined_files_are_refused(files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(RemitError, match="there are no windows files to join"):
        build([], tmp_path / "out.parquet")
    build(files, tmp_path / "out.parquet")
    with pytest.raises(RemitError, match="holds 5 recordings; expected one recording"):
        build([tmp_path / "out.parquet"], tmp_path / "again.parquet")


def test_verify_refuses_windows_out_of_order(files: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    build(files, out)
    table = pq.read_table(out)
    rows = [*range(1, 17), 0]
    with ParquetWriter(out, table.schema, [], {}) as writer:
        writer.write(table.take(rows))
    with pytest.raises(RemitError, match="windows out of order: row 16 is p1/z-first/0/0"):
        primary.verify(out)


def test_failure_keeps_the_old_file(files: list[Path], tmp_path: Path, write: Make) -> None:
    out = tmp_path / "out.parquet"
    build(files, out)
    before = out.read_bytes()
    with pytest.raises(RemitError):
        build([*files, write("p1", "p1-b", remission=1)], out)
    assert out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.parquet", "windows"]
