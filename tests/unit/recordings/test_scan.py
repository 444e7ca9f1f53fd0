"""Scanning a folder: who is there, who is not, and why."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from recordings_made import one_line

import remit
from remit.config import Label
from remit.recordings.cohort import read_sheet, write_sheet
from remit.recordings.scan import scan

QUALITY = Label(column="quality", values={"good": 1, "bad": 0})
EDF = b"0       and so on"


def put(root: Path, *names: str, content: bytes = EDF) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def table(root: Path, *lines: str, head: str = "participant_id\tage\tquality") -> None:
    (root / "participants.tsv").write_text("\n".join([head, *lines]) + "\n")


def test_the_real_bids_folder(shared_data: Path, tmp_path: Path) -> None:
    label = Label(column="count_quality", values={"good": 1, "bad": 0})
    result = scan(shared_data / "eegmat", "bids", label, ["age", "sex"])
    assert len(result.rows) == 36 and result.skipped == []
    assert sum(row.remission or 0 for row in result.rows) == 26
    first = result.rows[0]
    assert (first.participant, first.recording) == ("sub-00", "sub-00_task-arithmetic")
    assert first.covariates == {"age": "21", "sex": "F"}
    write_sheet(result.rows, tmp_path / "eegmat.tsv")
    assert read_sheet(tmp_path / "eegmat.tsv", shared_data / "eegmat") == result.rows


def test_the_real_muse_folder(shared_data: Path) -> None:
    label = Label.model_validate({"column": "cohort", "values": {2018: 0, 2019: 1}})
    result = scan(shared_data / "muse", "folder", label)
    assert len(result.rows) == 17 and sum(row.remission or 0 for row in result.rows) == 9
    assert [why for _, why in result.skipped] == [
        "participant 'backward_stamps' is not in participants.tsv"
    ]


def test_bids_with_everything_that_is_wrong(tmp_path: Path) -> None:
    put(tmp_path, *(f"sub-{n}/eeg/sub-{n}_eeg.edf" for n in ("a", "b", "c", "f")))
    put(tmp_path, "sub-a/ses-2/eeg/sub-a_ses-2_run-1_eeg.edf", "sub-d/eeg/sub-d_eeg.set")
    put(tmp_path, "sub-a/eeg/sub-a_eeg.json", "sub-a/eeg/sub-a_channels.tsv")
    put(tmp_path, "sub-b/ses-1/eeg/sub-b_ses-1_eeg.edf", content=b"")
    (tmp_path / "sub-c/ses-1/eeg").mkdir(parents=True)
    (tmp_path / "sub-c/ses-1/eeg/sub-c_ses-1_eeg.edf").symlink_to("../annex/gone")
    lines = ("sub-a\t30\tgood", "b\tn/a\tbad", "sub-c\t50\tn/a", "sub-d\t1\tbad", "sub-e\t2\tbad")
    table(tmp_path, *lines)
    result = scan(tmp_path, "bids", QUALITY, ["age"])
    assert [
        (r.participant, r.recording, r.remission, r.covariates["age"]) for r in result.rows
    ] == [
        ("b", "sub-b", 0, ""),
        ("sub-a", "sub-a", 1, "30"),
        ("sub-a", "sub-a_ses-2_run-1", 1, "30"),
        ("sub-c", "sub-c", None, "50"),
    ]
    why = dict(result.skipped)
    assert "is empty" in why["sub-b/ses-1/eeg/sub-b_ses-1_eeg.edf"]
    assert "link to nothing" in why["sub-c/ses-1/eeg/sub-c_ses-1_eeg.edf"]
    assert "'.set' is not known" in why["sub-d/eeg/sub-d_eeg.set"]
    assert "without a recording" in why["sub-e"]
    assert "not in participants.tsv" in why["sub-f/eeg/sub-f_eeg.edf"]
    assert len(why) == 5
    labelled = scan(tmp_path, "bids", QUALITY, require_label=True)
    assert {row.participant for row in labelled.rows} == {"sub-a", "b"}
    assert "label of participant 'sub-c' is unknown" in str(labelled.skipped)


def test_a_folder_without_a_table(tmp_path: Path) -> None:
    put(tmp_path, "P1/rest.edf", "P1/deep/P1_task.edf", "P2/rest.edf", "P 3.v2.edf", "notes.txt")
    put(tmp_path, ".hidden/x.edf", "P2/movie.avi", "LICENSE")
    result = scan(tmp_path, "folder")
    assert [(r.participant, r.recording, r.path, r.remission) for r in result.rows] == [
        ("P-3-v2", "P-3-v2", "P 3.v2.edf", None),
        ("P1", "P1_rest", "P1/rest.edf", None),
        ("P1", "P1_task", "P1/deep/P1_task.edf", None),
        ("P2", "P2_rest", "P2/rest.edf", None),
    ]
    assert [path for path, _ in result.skipped] == ["P2/movie.avi"]


def test_files_at_the_top_belong_to_the_longest_id(tmp_path: Path) -> None:
    put(tmp_path, "P1_rest.edf", "P10_rest.edf", "P1-2.edf", "other.edf")
    table(tmp_path, "P1\t1\tgood", "P10\t1\tbad", "P1-2\t1\tbad")
    result = scan(tmp_path, "folder", QUALITY)
    assert [(r.participant, r.recording) for r in result.rows] == [
        ("P1", "P1_rest"),
        ("P1-2", "P1-2"),
        ("P10", "P10_rest"),
    ]
    assert dict(result.skipped) == {
        "other.edf": "its name begins with no participant of participants.tsv"
    }


def test_two_files_of_one_name_are_not_both_taken(tmp_path: Path) -> None:
    put(tmp_path, "P1/rest.edf", "P1/again/rest.edf")
    result = scan(tmp_path, "folder")
    assert [row.path for row in result.rows] == ["P1/again/rest.edf"]
    assert result.skipped[0][0] == "P1/rest.edf" and "P1/again" in result.skipped[0][1]


def test_slips_are_named(tmp_path: Path) -> None:
    def message(**changes: object) -> str:
        values = {"layout": "bids", "label": QUALITY} | changes
        return one_line(lambda: scan(tmp_path, **values))  # type: ignore[arg-type]

    put(tmp_path, "sub-a/eeg/sub-a_eeg.edf")
    assert "participants.tsv: is not there" in message()
    table(tmp_path, "sub-a\t30\tgood")
    wrong = Label(column="qualty", values={"good": 1})
    assert "Did you mean 'quality'?" in message(label=wrong)
    assert "no column 'sex'" in message(covariates=["sex"])
    assert "'good'; expected bad" in message(label=Label(column="quality", values={"bad": 0}))
    table(tmp_path, "sub-a\t30\tgood", "sub-a\t31\tbad")
    assert "is there twice" in message()
    table(tmp_path, "sub-z\t30\tgood")
    assert "no recording found as layout 'bids', 2 left out" in message()
    assert "is not there" in one_line(lambda: scan(tmp_path / "nowhere", "bids"))
    file = tmp_path / "participants.tsv"
    assert "is a file; expected the folder" in one_line(lambda: scan(file, "bids"))
    put(tmp_path / "spaced", "P 1/rest.edf")
    assert "participant 'P 1'" in one_line(lambda: scan(tmp_path / "spaced", "folder"))


@pytest.mark.parametrize("module", ["cohort", "scan", "registry", "simulate"])
def test_what_snakemake_imports_is_light(module: str, tmp_path: Path) -> None:
    put(tmp_path, "P1/rest.edf", "P1/other.csv")
    code = (
        f"import sys; import remit.recordings.{module}; from remit.recordings.scan import scan;"
        f"scan({str(tmp_path)!r}, 'folder');"
        "print(*{'numpy', 'scipy', 'mne', 'pandas', 'pyarrow', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(Path(remit.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == ""
