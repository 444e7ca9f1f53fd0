"""A copy of a recording under another name would stand on both sides of a split."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.dataset.primary import build_primary
from remit.dataset.sketches import packed, sketch, unpacked
from remit.dataset.windows import SKETCHES_KEY, ParquetWriter, open_dataset, read_metadata
from remit.errors import RemitError
from remit.preprocessing.chain import Windows


def test_the_same_signal_under_two_names_is_refused(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    files = [
        write("p1", "r1"),
        write("p2", "r2"),
        write("p3", "r3", seed=1),
        write("p4", "r4", seed=1),
    ]
    channels = ["AF7", "AF8", "TP9", "TP10"]
    build_primary(files[:3], tmp_path / "fine.parquet", cohort="made", channels=channels)
    with pytest.raises(
        RemitError, match="r3 .participant p3. and r4 .participant p4. hold the same signal"
    ):
        build_primary(files, tmp_path / "copies.parquet", cohort="made", channels=channels)
    assert not (tmp_path / "copies.parquet").exists()


def test_the_same_samples_filtered_otherwise_are_refused(
    write: Callable[..., Path], make_windows: Callable[..., Windows], tmp_path: Path
) -> None:
    """One of two copies states its mains, so that only it was filtered for them."""
    samples = np.random.default_rng(5).standard_normal((4, 8)).astype(np.float32)
    files = [
        write(
            participant,
            f"{participant}-rest",
            windows=make_windows(2, seed=seed),
            signal_CS=samples,
        )
        for participant, seed in (("p1", 1), ("p2", 2))
    ]
    with pytest.raises(RemitError, match="hold the same signal"):
        build_primary(
            files, tmp_path / "x.parquet", cohort="made", channels=["AF7", "AF8", "TP9", "TP10"]
        )


def test_a_piece_of_a_recording_under_another_name_is_refused(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    signal_CS = np.random.default_rng(5).standard_normal((4, 4000)).astype(np.float32)

    def part(participant: str, recording: str, first: int, stop: int) -> Path:
        piece_CS = np.ascontiguousarray(signal_CS[:, first:stop])
        return write(participant, recording, signal_CS=piece_CS)

    channels = ["AF7", "AF8", "TP9", "TP10"]
    whole, piece = part("p1", "r1", 0, 4000), part("p2", "r2", 3001, 3777)
    with pytest.raises(
        RemitError, match="r1 .participant p1. and r2 .participant p2. share a part of their signal"
    ):
        build_primary([whole, piece], tmp_path / "x.parquet", cohort="made", channels=channels)
    # One person's recordings stand on one side of a split.
    own = part("p1", "r3", 1001, 2000)
    build_primary([whole, own], tmp_path / "x.parquet", cohort="made", channels=channels)


def test_a_file_without_sketches_is_refused(write: Callable[..., Path]) -> None:
    """As one made before they stood in the footer by themselves."""
    file = write("p1", "r1")
    pq.write_table(pq.read_table(file), file)
    with pytest.raises(RemitError, match="holds no sketches of the recordings; .* this version"):
        read_metadata(file)


@pytest.mark.parametrize(
    "change",
    [
        lambda place: place | {"sha256": "0" * 64},
        lambda place: place | {"offset": place["offset"] - 4},
        lambda place: place | {"offset": -4},
        lambda place: place | {"offset": 10**30},
        lambda place: place | {"bytes": place["bytes"] - 8},
        lambda place: place | {"bytes": 10**15},
        lambda place: place | {"bytes": -1},
        lambda place: place | {"bytes": "8"},
        lambda place: {key: place[key] for key in ("offset", "bytes")},
        lambda place: [place],
        lambda _: 0,
    ],
)
def test_sketches_that_are_not_where_they_should_be_are_refused(
    write: Callable[..., Path], change: Callable[[Any], Any]
) -> None:
    file = write("p1", "r1")
    place = json.loads(pq.read_metadata(file).metadata[SKETCHES_KEY])
    table = pq.read_table(file)
    with pq.ParquetWriter(file, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({SKETCHES_KEY: json.dumps(change(place))})
    with pytest.raises(RemitError, match="its sketches are not there, or not those of its record"):
        open_dataset(file).sketches()


@pytest.mark.parametrize("names", [[], ["r1", "r2"]])
def test_sketches_of_fewer_or_more_recordings_are_refused(
    write: Callable[..., Path], names: list[str]
) -> None:
    file = write("p1", "r1")
    table = pq.read_table(file)
    values = np.arange(len(names) + 1, dtype=np.uint64)
    with ParquetWriter(file, table.schema, [], dict.fromkeys(names, values)) as writer:
        writer.write(table)
    with pytest.raises(RemitError, match="its sketches are not there, or not those of its record"):
        open_dataset(file).sketches()


@given(
    st.dictionaries(
        st.text(max_size=5), st.lists(st.integers(0, 2**64 - 1), max_size=5), max_size=5
    )
)
def test_packed_sketches_come_back(values: dict[str, list[int]]) -> None:
    of = {name: np.array(each, dtype=np.uint64) for name, each in values.items()}
    found = unpacked(packed(of), reversed(list(of)))
    assert {name: each.tolist() for name, each in found.items()} == values
    for wrong in (packed(of)[:-1], packed(of) + b"\0" * 8):
        if of:
            with pytest.raises(ValueError, match="buffer|values"):
                unpacked(wrong, of)


def test_sketches_lie_where_no_column_leads(write: Callable[..., Path]) -> None:
    """Other readers do not see them; a changed byte of them is noticed."""
    file = write("p1", "r1")
    metadata = pq.read_metadata(file)
    place = json.loads(metadata.metadata[SKETCHES_KEY])
    group = metadata.row_group(metadata.num_row_groups - 1)
    for number in range(group.num_columns):
        column = group.column(number)
        begin = column.dictionary_page_offset or column.data_page_offset
        assert begin + column.total_compressed_size <= place["offset"]
    assert SKETCHES_KEY not in json.dumps(read_metadata(file)).encode()
    before = file.read_bytes()
    at = place["offset"] + place["bytes"] - 1
    file.write_bytes(before[:at] + bytes([before[at] ^ 1]) + before[at + 1 :])
    with pytest.raises(RemitError, match="its sketches are not there, or not those of its record"):
        open_dataset(file).sketches()


def test_sketches_are_joined_as_they_were(write: Callable[..., Path], tmp_path: Path) -> None:
    signals = [
        np.random.default_rng(seed).standard_normal((4, 4000)).astype("f4") for seed in (1, 2)
    ]
    files = [write(f"p{n}", f"r{n}", signal_CS=signal) for n, signal in enumerate(signals)]
    out = tmp_path / "primary.parquet"
    build_primary(files, out, cohort="made", channels=["AF7", "AF8", "TP9", "TP10"])
    found = open_dataset(out).sketches()
    assert list(found) == ["r0", "r1"] and all(len(values) == 128 for values in found.values())
    for file, (name, values), signal in zip(files, found.items(), signals, strict=True):
        np.testing.assert_array_equal(values, sketch(signal))
        np.testing.assert_array_equal(values, open_dataset(file).sketches()[name])
