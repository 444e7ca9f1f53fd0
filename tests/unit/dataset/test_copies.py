"""A copy of a recording under another name would stand on both sides of a split."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from remit.dataset.primary import build_primary
from remit.dataset.windows import encode_metadata, read_metadata
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
    file = write("p1", "r1")
    table = pq.read_table(file)
    metadata = read_metadata(file)
    del metadata["sources"]["r1"]["sketch"]
    pq.write_table(table.replace_schema_metadata(encode_metadata(metadata)), file)
    with pytest.raises(RemitError, match="holds no sketch of recording r1; .* with this version"):
        read_metadata(file)
