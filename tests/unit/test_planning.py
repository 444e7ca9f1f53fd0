"""What a run looks at before its first job starts."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from remit.errors import RemitError
from remit.planning import check_whole
from tests.conftest import snakemake


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    pq.write_table(pa.table({"a": range(50)}), "results/a.parquet")
    torch.save({"a": torch.zeros(50)}, "results/a.pt")
    (tmp_path / "results/a.json").write_text(json.dumps({"a": {"b": [1, {"c": 2}]}, "d": "é"}))
    return tmp_path / "results"


@pytest.mark.parametrize("name", ["a.parquet", "a.pt", "a.json"])
def test_a_result_cut_at_any_byte_is_named_before_anything_is_removed(results, name):
    file = results / name
    whole = file.read_bytes()
    check_whole([f"results/{name}", "results/not there.pt"])
    for length in range(1, len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(RemitError, match=rf"results/{name}: is cut or damaged.*; remove it"):
            check_whole([f"results/{name}"])
        shutil.copy(file, results.parent)
        check_whole([name])  # a person's own, which its reader names
    file.write_bytes(b"")
    check_whole([f"results/{name}"])


def test_what_cannot_be_looked_at_is_left_to_others(results):
    (results / "folder.pt").mkdir()
    (results / "a.txt").write_text("x")
    check_whole(["results/folder.pt", "results/a.txt", "results/a.pt/below.json"])
    (results / "deep.json").write_text("[" * 100_000)
    with pytest.raises(RemitError, match="is cut or damaged"):
        check_whole(["results/deep.json"])


@pytest.mark.dag
def test_snakemake_removes_no_split_for_a_primary_dataset_that_was_cut(tmp_path):
    """It would be made of it anew, and Snakemake removes what is made anew."""
    dataset, split = (
        tmp_path / "results" / name
        for name in (
            "primary/8s_af7-af8-tp9-tp10_primary_dataset.parquet",
            "splits/8s_af7-af8-tp9-tp10_split.json",
        )
    )
    for file, text in ((split, "kept"), (dataset, "PAR1 and no end")):
        file.parent.mkdir(parents=True)
        file.write_text(text)
    for _ in range(2):
        done = snakemake(
            "--cores", 1, "--forcerun", "split", "--", split.relative_to(tmp_path), cwd=tmp_path
        )
        assert done.returncode == 1, done.stdout
        assert f"remit: results/primary/{dataset.name}: is cut or damaged" in done.stdout, (
            done.stdout
        )
        assert "Traceback" not in done.stdout and "rule split" not in done.stdout
        assert split.read_text() == "kept" and "Directory cannot be locked" not in done.stdout
