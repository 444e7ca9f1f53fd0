"""Scanning a folder: who is there, who is not, and why."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import eeglabio
import mne
import numpy as np
import pandas as pd
import pybv
import pytest
import scipy.io
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from recordings_made import loaded_by, one_line
from tests.conftest import snakemake

import remit
import remit.recordings.readers
from remit.cli import main
from remit.config import Cohort, Config, Label, Scan, validate
from remit.recordings.channels import electrode_names
from remit.recordings.cohort import read_sheet, write_sheet
from remit.recordings.registry import ReaderOptions, read_recording
from remit.recordings.scan import Wanted, scan, scan_mat
from remit.recordings.source import overlay, root_of, rows_of

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
    put(tmp_path, "sub-a/ses-2/eeg/sub-a_ses-2_run-1_eeg.edf", "sub-d/eeg/sub-d_eeg.nwb")
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
    dangling = why["sub-c/ses-1/eeg/sub-c_ses-1_eeg.edf"]
    assert "link to nothing" in dangling and "git annex get" in dangling
    assert "'.nwb' is not known" in why["sub-d/eeg/sub-d_eeg.nwb"]
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
        values = {"root": tmp_path, "layout": "bids", "label": QUALITY} | changes
        return one_line(lambda: scan(**values))  # type: ignore[arg-type]

    put(tmp_path, "sub-a/eeg/sub-a_eeg.edf")
    assert "participants.tsv: is not there" in message()
    table(tmp_path, "sub-a\t30\tgood")
    wrong = Label(column="qualty", values={"good": 1})
    assert "Did you mean 'quality'?" in message(label=wrong)
    assert "no column 'sex'" in message(covariates=["sex"])
    assert "'good'; expected bad" in message(label=Label(column="quality", values={"bad": 0}))
    table(tmp_path, "sub-a\t30\tgood", "sub-a\t31\tbad")
    assert "is there twice" in message()
    table(tmp_path, "sub-a\t30\tgood", "\t31\tbad")
    assert "participants.tsv line 3: participant_id is empty" in message()
    (tmp_path / "participants.tsv").unlink()
    (tmp_path / "participants.tsv").symlink_to(".git/annex/objects/gone")
    assert "participants.tsv: is a link to nothing: its content was not" in message(label=None)
    (tmp_path / "participants.tsv").unlink()
    table(tmp_path, "sub-z\t30\tgood", head="participant_id\tunits\tquality")
    assert "no recording found as layout 'bids', 2 left out" in message()
    assert "has no folder sub-*" in message(layout="bids", label=None, root=tmp_path / "sub-a")
    assert "is a column of the cohort sheet" in message(covariates=["units"])
    assert "is not there" in one_line(lambda: scan(tmp_path / "nowhere", "bids"))
    file = tmp_path / "participants.tsv"
    assert "is a file; expected the folder" in one_line(lambda: scan(file, "bids"))
    put(tmp_path / "spaced", "P 1/rest.edf")
    assert "participant 'P 1'" in one_line(lambda: scan(tmp_path / "spaced", "folder"))


# A format whose recordings are two files, as BrainVision's are; the header names the other one.
PAIR = """
from pathlib import Path
from remit.errors import RemitError
from remit.recordings.registry import Reader

def companions(path):
    text = path.read_text()
    if "=" not in text:
        raise RemitError(f"{path}: names no file of samples; expected one; export it again.")
    return [path.parent / text.split("=")[1]]

READER = Reader(
    name="pair",
    suffixes=(".phdr",),
    matches=lambda path: True,
    read=lambda row, options: None,
    companions=companions,
)
"""


def test_a_recording_of_several_files_needs_them_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "format", "pair.py", content=PAIR.encode())
    folders = [*remit.recordings.readers.__path__, str(tmp_path / "format")]
    monkeypatch.setattr(remit.recordings.readers, "__path__", folders)
    root = tmp_path / "data"
    for name in ("good", "missing", "empty", "dangling", "pointer"):
        put(root, f"{name}/x.phdr", content=f"data={name}.eeg".encode())
    put(root, "nameless/x.phdr", content=b"nothing")
    put(root, "good/good.eeg", "good/other.eeg", "orphan/lost.eeg", "two/x.set.fdt")
    put(root, "empty/empty.eeg", content=b"")
    put(root, "pointer/pointer.eeg", content=b"/annex/objects/MD5E-s93--1f.eeg\n")
    (root / "dangling/dangling.eeg").symlink_to("../.git/annex/objects/x")
    result = scan(root, "folder")
    assert [row.path for row in result.rows] == ["good/x.phdr"]
    why = dict(result.skipped)
    assert why["missing/x.phdr"] == "missing.eeg, which belongs to it, is not there"
    assert why["empty/x.phdr"] == "empty.eeg, which belongs to it, is empty (0 bytes)"
    assert "dangling.eeg, which belongs to it, is a link to nothing" in why["dangling/x.phdr"]
    assert "run 'git annex get' on it" in why["pointer/x.phdr"]
    assert why["nameless/x.phdr"].startswith("names no file of samples")
    for path in ("good/other.eeg", "orphan/lost.eeg"):
        assert "holds samples only; expected their header" in why[path]


def test_a_part_of_another_recording_is_none_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "format", "pair.py", content=PAIR.encode())
    folders = [*remit.recordings.readers.__path__, str(tmp_path / "format")]
    monkeypatch.setattr(remit.recordings.readers, "__path__", folders)
    put(tmp_path / "data", "a/1.phdr", content=b"data=2.phdr")
    put(tmp_path / "data", "a/2.phdr", content=b"data=../b/3.edf")
    put(tmp_path / "data", "b/3.edf")
    result = scan(tmp_path / "data", "folder")
    assert [row.path for row in result.rows] == ["a/1.phdr"]
    assert result.skipped == [
        ("a/2.phdr", "is a part of the recording 1.phdr"),
        ("b/3.edf", "is a part of the recording 2.phdr"),
    ]


def test_what_holds_no_samples_is_left_out(shared_data: Path, tmp_path: Path) -> None:
    malformed = shared_data / "malformed"
    result = scan(malformed, "folder")
    why = dict(result.skipped)
    assert why["header_only.edf"] == "holds a header and no data"
    assert "is empty (0 bytes)" in why["zero_byte.edf"]
    put(tmp_path, "P1/x.csv", content=b"timestamps,TP9,AF7,AF8,TP10,Right AUX\n\n")
    put(tmp_path, "P2/x.edf", content=b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
    put(tmp_path, "P3/x.edf")
    why = dict(scan(tmp_path, "folder").skipped)
    assert why["P1/x.csv"] == "holds 1 line and no data"
    assert "run 'git lfs pull' on it" in why["P2/x.edf"]


def test_a_sidecar_that_was_not_fetched_leaves_its_recording_out(tmp_path: Path) -> None:
    put(tmp_path, *(f"sub-{n}/eeg/sub-{n}_task-x_eeg.edf" for n in "abcd"))
    (tmp_path / "sub-a/eeg/sub-a_task-x_channels.tsv").symlink_to("../annex/gone")
    put(tmp_path, "sub-b/eeg/sub-b_task-x_eeg.json", content=b"")
    put(tmp_path, "sub-c/eeg/sub-c_channels.tsv", "sub-c/eeg/task-x_channels.tsv")
    result = scan(tmp_path, "bids")
    assert [row.participant for row in result.rows] == ["sub-d"]
    why = [text for _, text in result.skipped]
    assert "sub-a_task-x_channels.tsv, which belongs to it, is a link to nothing" in why[0]
    assert why[1] == "sub-b_task-x_eeg.json, which belongs to it, is empty (0 bytes)"
    assert "both apply to sub-c_task-x_eeg.edf" in why[2]


def test_folders_that_give_nothing_are_listed(tmp_path: Path) -> None:
    put(tmp_path, "P1/rest.edf", "derivatives/P1/rest.edf", "docs/read.txt", "P2/a.mff/info.xml")
    (tmp_path / "P3").symlink_to("gone")
    (tmp_path / "P1/more").symlink_to(tmp_path / "docs")
    assert dict(scan(tmp_path, "folder").skipped) == {
        "derivatives": "is not entered: it holds what was made from recordings",
        "docs": "holds no recording",
        "P1/more": "is a link to a folder, which is not followed",
        "P2/a.mff": "the format '.mff' is not known; convert it",
        "P3": "is a link to nothing (gone); mend the link",
    }
    put(tmp_path / "bids", "sub-1/eeg/sub-1_eeg.edf", "sub-2/eeg/sub-2_events.tsv")
    put(tmp_path / "bids", "sub-3/anat/x.nii", "sub-4/eeg/sub-4_eeg.mff/info.xml")
    put(tmp_path / "bids", "sub-5/eeg/sub-5_eeg.eeg")
    assert dict(scan(tmp_path / "bids", "bids").skipped) == {
        "sub-2": "holds no recording in a folder 'eeg'",
        "sub-3": "holds no recording in a folder 'eeg'",
        "sub-4/eeg/sub-4_eeg.mff": "the format '.mff' is not known; convert it",
        "sub-5/eeg/sub-5_eeg.eeg": "holds samples only; expected their header, 'sub-5_eeg.vhdr', too",
    }


def test_names_that_no_sheet_can_hold_are_left_out(tmp_path: Path) -> None:
    put(tmp_path, "P1/rest.edf", "P2/a\nb.edf", "P3/a\tb.edf")
    put(tmp_path, "P5/mü\u00a0de.edf")
    names = ["P2/a\\nb.edf", "P3/a\\tb.edf"]
    if sys.platform == "linux":  # other systems refuse such a name themselves
        put(tmp_path, os.fsdecode(b"P4/m\xfcde.edf"))
        names.append("P4/m\\udcfcde.edf")
    result = scan(tmp_path, "folder")
    assert [row.path for row in result.rows] == ["P1/rest.edf", "P5/mü\u00a0de.edf"]
    assert [name for name, _ in result.skipped] == names
    assert {"its name holds a line break" in why for _, why in result.skipped} == {True}


def test_names_keep_session_task_and_run(tmp_path: Path) -> None:
    for name in ("ses-1_task-rest", "ses-1_task-rest_run-2", "ses-1_task-odd_acq-x"):
        put(tmp_path, f"sub-a/ses-1/eeg/sub-a_{name}_eeg.edf")
    result = scan(tmp_path, "bids", wanted=Wanted(tasks=["rest"]))
    names = ["sub-a_ses-1_task-rest", "sub-a_ses-1_task-rest_run-2"]
    assert [row.recording for row in result.rows] == names
    odd = "sub-a/ses-1/eeg/sub-a_ses-1_task-odd_acq-x_eeg.edf"
    assert result.skipped == [(odd, "has task 'odd'; asked for: rest")]


SCORES = ("6,5", "7", "7.0", "7,01", "-1e1", "n/a", ".5")


@pytest.mark.parametrize(
    ("positive", "expected"),
    [
        ("below", [1, 0, 0, 0, 1, None, 1]),
        ("at_or_below", [1, 1, 1, 0, 1, None, 1]),
        ("above", [0, 0, 0, 1, 0, None, 0]),
        ("at_or_above", [0, 1, 1, 1, 0, None, 0]),
    ],
)
def test_a_threshold(positive: str, expected: list[int | None], tmp_path: Path) -> None:
    put(tmp_path, *(f"P{n}/x.edf" for n in range(len(SCORES))))
    rows = [f"P{n}\t{score}" for n, score in enumerate(SCORES)]
    table(tmp_path, *rows, head="participant_id\tscore")
    label = Label.model_validate({"column": "score", "threshold": 7, "positive": positive})
    assert [row.remission for row in scan(tmp_path, "folder", label).rows] == expected


@given(st.decimals(-1000, 1000, places=2), st.decimals(-1000, 1000, places=2), st.booleans())
def test_every_number_falls_on_one_side(
    tmp_path_factory: pytest.TempPathFactory, score: object, threshold: object, comma: bool
) -> None:
    root = tmp_path_factory.mktemp("scan")
    put(root, "P1/x.edf")
    text = str(score).replace(".", ",") if comma else str(score)
    table(root, f"P1\t{text}", head="participant_id\tscore")
    sides = {}
    for positive in ("below", "at_or_below", "above", "at_or_above"):
        values = {"column": "score", "threshold": float(str(threshold)), "positive": positive}
        (row,) = scan(root, "folder", Label.model_validate(values)).rows
        sides[positive] = row.remission
    assert sides["below"] + sides["at_or_above"] == sides["above"] + sides["at_or_below"] == 1
    assert sides["below"] == int(score < threshold)  # type: ignore[operator]
    assert sides["above"] == int(score > threshold)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("low", "score of participant 'P1' is 'low'; expected a number or n/a"),
        ("7 points", "'7 points'; expected a number"),
        ("inf", "'inf'; expected a number"),
        ("1,2,3", "'1,2,3'; expected a number"),
        ("0x7", "'0x7'; expected a number"),
        ("\u0667", "expected a number"),
        ("1,234", "'1,234', which may be 1.234 or 1234"),
    ],
)
def test_a_score_that_is_no_number_is_refused(text: str, says: str, tmp_path: Path) -> None:
    put(tmp_path, "P1/x.edf")
    table(tmp_path, f"P1\t{text}", head="participant_id\tscore")
    label = Label.model_validate({"column": "score", "threshold": 7, "positive": "above"})
    message = one_line(lambda: scan(tmp_path, "folder", label))
    assert "participants.tsv line 2: " in message and says in message


def test_a_threshold_on_real_scores(shared_data: Path) -> None:
    label = Label.model_validate(
        {"column": "n_subtractions", "threshold": 12.88, "positive": "above"}
    )
    frame = pd.read_csv(shared_data / "eegmat/participants.tsv", sep="\t")
    expected = dict(zip(frame.participant_id, frame.n_subtractions > 12.88, strict=True))
    rows = scan(shared_data / "eegmat", "bids", label).rows
    assert {row.participant: bool(row.remission) for row in rows} == expected
    assert sum(expected.values()) == 23


@pytest.mark.parametrize(
    ("label", "says"),
    [
        ({}, "has neither of values and threshold"),
        ({"values": {"a": 1}, "threshold": 1, "positive": "above"}, "has both"),
        ({"values": {}}, "values is empty"),
        ({"threshold": 1}, "belong together"),
        ({"values": {"a": 1}, "positive": "above"}, "belong together"),
        ({"threshold": float("nan"), "positive": "above"}, "finite number"),
        ({"values": {True: 1, False: 0}}, "put yes, no, on, off, true and false into quotes"),
        ({"values": {"a": 2}}, "Input should be 0 or 1"),
    ],
)
def test_a_label_that_means_nothing_is_refused(label: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Label.model_validate({"column": "x", **label})


def test_what_a_label_means_in_words() -> None:
    assert QUALITY.meaning == "good = 1, bad = 0"
    label = Label.model_validate({"column": "x", "threshold": 7, "positive": "at_or_below"})
    assert label.meaning == "at or below 7 = 1"


def test_filters_in_the_configuration() -> None:
    settings = Scan.model_validate({"root": "x", "tasks": ["rest"], "runs": [1, "02"]})
    assert (settings.tasks, settings.runs) == (["rest"], ["1", "02"])
    with pytest.raises(ValidationError, match="tasks is given with layout 'folder'"):
        Scan.model_validate({"root": "x", "layout": "folder", "tasks": ["rest"]})
    with pytest.raises(ValidationError, match="put it into quotes"):
        Scan.model_validate({"root": "x", "tasks": [True]})


def test_a_configured_scan_is_filtered(tmp_path: Path) -> None:
    put(tmp_path, "sub-1/eeg/sub-1_task-rest_eeg.edf", "sub-1/eeg/sub-1_task-odd_eeg.edf")
    values = {"scan": {"root": str(tmp_path), "tasks": ["odd"]}}
    rows, skipped = rows_of("mine", Cohort.model_validate(values))
    assert [row.recording for row in rows] == ["sub-1_task-odd"] and len(skipped) == 1


def study(file: Path, **people: int) -> Path:
    """The original study's file: participants and their labels; one window of noise each."""
    file.parent.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for name, label in (("Remission", 1), ("Non_remission", 0)):
        ids = [person for person, own in people.items() if own == label]
        array = np.empty((len(ids), 2), dtype=object)
        for i, person in enumerate(ids):
            cell = np.empty((1, 1), dtype=object)
            cell[0, 0] = np.random.default_rng(i).normal(size=(256, 4)) * 20
            array[i] = [cell, person]
        arrays[f"EEG_windows_{name}"] = array if ids else np.empty((0, 0), dtype=object)
    scipy.io.savemat(file, arrays)
    return file


OPTIONS = ReaderOptions(256.0, ("TP9", "AF7", "AF8", "TP10"))


def test_a_container_file_as_root(tmp_path: Path) -> None:
    file = study(tmp_path / "study.mat", A=1, B=0)
    result = scan(file, "folder")
    assert [(r.participant, r.path, r.entry, r.remission) for r in result.rows] == [
        ("A", "study.mat", "Remission/1", 1),
        ("B", "study.mat", "Non_remission/1", 0),
    ]
    assert result == scan_mat(file) == scan(file, "bids")
    cohort = Cohort.model_validate({"scan": {"root": str(file)}})
    assert rows_of("mine", cohort)[0] == result.rows and root_of(cohort) == tmp_path
    for row in result.rows:
        assert read_recording(row, OPTIONS, root_of(cohort)).participant == row.participant
    put(tmp_path, "one.edf")
    assert "holds one recording; expected a container" in one_line(
        lambda: scan(tmp_path / "one.edf", "folder")
    )


def test_a_container_file_takes_labels_and_covariates_from_the_table(tmp_path: Path) -> None:
    file = study(tmp_path / "study.mat", A=1, B=0, C=0)
    table(tmp_path, "A\t30\tgood", "B\t40\tn/a", "Z\t1\tbad")
    for root in (file, tmp_path):
        result = scan(root, "folder", QUALITY, ["age"])
        assert [(r.participant, r.remission, r.covariates) for r in result.rows] == [
            ("A", 1, {"age": "30"}),
            ("B", None, {"age": "40"}),
        ]
        assert result.skipped == [
            ("Z", "in participants.tsv, but without a recording"),
            ("study.mat entry Non_remission/2", "participant 'C' is not in participants.tsv"),
        ]
    labelled = scan(tmp_path, "folder", QUALITY, require_label=True)
    assert [row.participant for row in labelled.rows] == ["A"]
    table(tmp_path, "A\t30\tbad", "B\t40\tbad")
    message = one_line(lambda: scan(tmp_path, "folder", QUALITY))
    assert "entry Remission/1 says remission 1, participants.tsv says 0" in message


def test_a_container_of_one_in_a_participants_folder(tmp_path: Path) -> None:
    study(tmp_path / "P1/rest.mat", someone=1)
    study(tmp_path / "P2/rest.mat", A=1, B=0)
    put(tmp_path, "P3/rest.mat", content=b"MATLAB 5.0 MAT-file and no more")
    result = scan(tmp_path, "folder")
    assert [(r.participant, r.recording, r.entry, r.remission) for r in result.rows] == [
        ("P1", "P1_rest", "Remission/1", 1)
    ]
    assert read_recording(result.rows[0], OPTIONS, tmp_path).participant == "P1"
    assert [path for path, _ in result.skipped] == ["P2/rest.mat", "P3/rest.mat"]
    assert "holds 2 recordings; expected one in a participant's folder" in result.skipped[0][1]
    study(tmp_path / "bids/sub-1/eeg/sub-1_task-rest_eeg.mat", x=0)
    (row,) = scan(tmp_path / "bids", "bids").rows
    assert (row.participant, row.recording, row.entry) == (
        "sub-1",
        "sub-1_task-rest",
        "Non_remission/1",
    )


def test_a_container_of_one_at_the_top_belongs_to_its_name_or_its_id(tmp_path: Path) -> None:
    study(tmp_path / "P1_rest.mat", someone=1)
    study(tmp_path / "other.mat", P2=0)
    assert [row.participant for row in scan(tmp_path, "folder").rows] == ["P2", "someone"]
    table(tmp_path, "P1\t30\tgood", "P2\t40\tbad")
    rows = scan(tmp_path, "folder", QUALITY).rows
    assert [(row.participant, row.path) for row in rows] == [
        ("P1", "P1_rest.mat"),
        ("P2", "other.mat"),
    ]


def test_two_container_files_of_the_same_people(tmp_path: Path) -> None:
    study(tmp_path / "week1.mat", A=1, B=0)
    study(tmp_path / "week2.mat", A=1)
    message = one_line(lambda: scan(tmp_path, "folder"))
    assert "week2.mat: holds 'A', as week1.mat does" in message
    assert "participants.tsv to list 'A' if it is, or 'week1' and 'week2'" in message
    table(tmp_path, "A\t1\tgood", "B\t1\tbad")
    rows = scan(tmp_path, "folder").rows
    assert [(row.recording, row.path) for row in rows] == [
        ("A", "week1.mat"),
        ("A_week2", "week2.mat"),
        ("B", "week1.mat"),
    ]
    study(tmp_path / "week3.mat", B=1)
    message = one_line(lambda: scan(tmp_path, "folder"))
    assert "week3.mat: participant 'B' has remission 1, and in week1.mat 'B' has 0" in message


def test_container_files_that_are_one_participant_each(tmp_path: Path) -> None:
    """The same names in each file are recordings, and no people, when the table says so."""
    study(tmp_path / "S01.mat", rest1=1, rest2=1)
    study(tmp_path / "S02.mat", rest1=0, rest2=0)
    message = one_line(lambda: scan(tmp_path, "folder", options=OPTIONS))
    assert "S02.mat: holds 'rest1', as S01.mat does" in message and "'S01' and 'S02'" in message
    table(tmp_path, "S01\t30\tgood", "S02\t40\tbad")
    for label in (None, QUALITY):
        result = scan(tmp_path, "folder", label, options=OPTIONS)
        assert [(row.participant, row.recording, row.entry) for row in result.rows] == [
            ("S01", "S01_rest1", "Remission/1"),
            ("S01", "S01_rest2", "Remission/2"),
            ("S02", "S02_rest1", "Non_remission/1"),
            ("S02", "S02_rest2", "Non_remission/2"),
        ]
        assert result.skipped == [] and result.warnings == []
    assert [row.remission for row in result.rows] == [1, 1, 0, 0]
    single = scan(tmp_path / "S02.mat", "folder", QUALITY, options=OPTIONS)
    assert {(row.participant, row.remission) for row in single.rows} == {("S02", 0)}
    for row in result.rows:
        assert read_recording(row, OPTIONS, tmp_path).recording == row.recording
    study(tmp_path / "S02_again.mat", rest1=0, rest2=0)
    more = scan(tmp_path, "folder", QUALITY, options=OPTIONS)
    assert [row.recording for row in more.rows[2:4]] == ["S02_again_rest1", "S02_again_rest2"]
    assert "S02_again.mat holds 2 recordings, none with an id of" in more.warnings[0]
    table(tmp_path, "S01\t30\tbad", "S02\t40\tbad")
    message = one_line(lambda: scan(tmp_path, "folder", QUALITY, options=OPTIONS))
    assert "entry Remission/1 says remission 1, participants.tsv says 0" in message


def test_ids_inside_that_the_table_lists_come_before_the_file_name(tmp_path: Path) -> None:
    study(tmp_path / "P1_all.mat", P1=1, P2=0, P3=0)
    table(tmp_path, "P1\t1\tgood", "P2\t1\tbad")
    result = scan(tmp_path, "folder", QUALITY)
    assert [row.participant for row in result.rows] == ["P1", "P2"]
    assert "participant 'P3' is not in participants.tsv" in str(result.skipped)


def test_a_single_recording_in_each_of_two_files(tmp_path: Path) -> None:
    for name in ("S01", "S02"):
        study(tmp_path / f"{name}.mat", rest=1)
    assert "holds 'rest', as S01.mat does" in one_line(lambda: scan(tmp_path, "folder"))
    table(tmp_path, "S01\t1\tgood", "S02\t1\tgood")
    rows = scan(tmp_path, "folder", QUALITY).rows
    assert [row.participant for row in rows] == ["S01", "S02"]


@pytest.mark.parametrize(
    ("names", "root", "says"),
    [
        # A folder of data sets.
        (["a/sub-1/eeg/sub-1_eeg.edf", "P1/x.edf"], "", "folder a is a data set of its own (sub-1"),
        (["a/dataset_description.json", "a/x.edf"], "", "(dataset_description.json is in 'a')"),
        (["a/participants.tsv", "b/participants.tsv", "a/x.edf"], "", "folder a, b is a data set"),
        # Folders that are sessions, or kinds of data.
        (["ses-1/P1.csv.edf", "ses-2/P1.edf"], "", "folder 'ses-1' seems to be a session"),
        (["Session 2/P1.edf"], "", "folder 'Session 2' seems to be a session"),
        (["baseline/P1.edf", "follow-up/P1.edf"], "", "folder 'baseline' seems to be a session"),
        (["EEG/P1.edf"], "", "folder 'EEG' seems to be a session or a kind of data"),
        # Too deep inside a BIDS data set.
        (["b/sub-00/eeg/sub-00_eeg.edf"], "b/sub-00", "inside the folder of one participant"),
        (["b/sub-00/ses-1/eeg/x.edf"], "b/sub-00/ses-1", "inside the folder of one participant"),
        (["b/sub-00/ses-1/eeg/x.edf"], "b/sub-00/ses-1/eeg", "holds all participants; give {b} "),
        (["b/sub-00/sub-00_x.edf"], "b/sub-00", "holds all participants; give {b} instead"),
    ],
)
def test_a_folder_of_the_wrong_level_is_refused(
    names: list[str], root: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, *names)
    message = one_line(lambda: scan(tmp_path / root, "folder"))
    assert says.format(b=tmp_path / "b") in message
    if "data set" in says and "folder of" not in says:
        assert f"such as {tmp_path / 'a'}." in message
    monkeypatch.chdir(tmp_path / root)
    assert one_line(lambda: scan(Path(), "folder")).startswith(".: ")


def test_the_real_folder_of_data_sets_is_refused(shared_data: Path) -> None:
    message = one_line(lambda: scan(shared_data, "folder"))
    assert "its folder eegmat, muse is a data set of its own" in message
    assert f"such as {shared_data / 'eegmat'}." in message
    inside = shared_data / "eegmat/sub-00"
    for layout in ("folder", "bids"):
        assert f"give {shared_data / 'eegmat'}" in one_line(lambda: scan(inside, layout))  # noqa: B023


def test_what_the_table_lists_is_a_participant_whatever_its_name(tmp_path: Path) -> None:
    put(tmp_path, "ses-1/x.edf", "baseline/x.edf", "P1/sub-1/eeg/x.edf")
    table(tmp_path, "ses-1\t1\tgood", "baseline\t1\tbad", "P1\t1\tbad")
    rows = scan(tmp_path, "folder", QUALITY).rows
    assert [row.participant for row in rows] == ["P1", "baseline", "ses-1"]


def test_names_that_only_look_like_the_wrong_level(tmp_path: Path) -> None:
    put(tmp_path, "sub-study/P1/x.edf", "sub-study/sesame/x.edf", "sub-study/eeg.txt")
    put(tmp_path, "ses-1/P1.edf", "ses-1/P2.edf", "eeg/P1/ses-1/eeg/x.edf", "eeg/P1/ses-2/y.edf")
    found = {
        name: [row.participant for row in scan(tmp_path / name, "folder").rows]
        for name in ("sub-study", "ses-1", "eeg")
    }
    assert found == {"sub-study": ["P1", "sesame"], "ses-1": ["P1", "P2"], "eeg": ["P1", "P1"]}
    assert scan(tmp_path / "eeg", "folder").warnings == []


def test_a_file_at_the_top_belongs_to_the_folder_it_is_named_after(tmp_path: Path) -> None:
    put(tmp_path, "P1/P1_run1.edf", "P10/x.edf", "P1_run2.edf", "p10-b.edf", "P1x.edf", "Q.edf")
    scipy.io.savemat(tmp_path / "P10_run2.mat", {"eeg": np.zeros((4, 1024))})
    result = scan(tmp_path, "folder", options=OPTIONS)
    assert [(row.participant, row.recording) for row in result.rows] == [
        ("P1", "P1_run1"),
        ("P1", "P1_run2"),
        ("P10", "P10_p10-b"),
        ("P10", "P10_run2"),
        ("P10", "P10_x"),
        ("P1x", "P1x"),
        ("Q", "Q"),
    ]
    assert [text.partition(" ")[0] for text in result.warnings] == [
        "P10_run2.mat",
        "P1_run2.edf",
        "p10-b.edf",
    ]
    assert "is taken as one of participant 'P1', whose folder's name" in result.warnings[1]


@pytest.mark.parametrize(
    ("names", "doubtful"),
    [
        (["P9_run1", "P9_run2"], "the ids P9_run1, P9_run2 differ only in what may be a run"),
        (["P9-1", "P9-2", "Q1"], "the ids P9-1, P9-2 differ"),
        (["P9", "P9_ses-02_eyes"], "the ids P9, P9_ses-02_eyes differ"),
        (["a_rec1", "a_rec2", "b_rec1", "b_rec2"], "a_rec2 differ only in what may be a run or "),
        (["a_rec1", "a_rec2", "b_rec1", "b_rec2"], "session, and so do those of 1 more;"),
        (["sub-01", "sub-02"], ""),
        (["S-1", "S-2", "P10", "P11", "runner_1", "runner_2"], ""),
        (["P1_run1", "P2_run1"], ""),
    ],
)
def test_ids_that_may_be_one_person(names: list[str], doubtful: str, tmp_path: Path) -> None:
    put(tmp_path, *(f"{name}.edf" for name in names))
    result = scan(tmp_path, "folder")
    assert [row.participant for row in result.rows] == sorted(names)
    assert len(result.warnings) == bool(doubtful) and doubtful in " ".join(result.warnings)
    said: list[str] = []
    rows_of(
        "mine",
        Cohort.model_validate({"scan": {"root": str(tmp_path), "layout": "folder"}}),
        said.append,
    )
    assert said == result.warnings


def test_a_folder_of_groups_is_doubted(tmp_path: Path) -> None:
    put(tmp_path, "patients/P1/x.edf", "patients/P2/y.edf", "controls/C1.edf")
    (warning,) = scan(tmp_path, "folder").warnings
    assert "the recordings in 'patients' lie in its folders P1, P2" in warning
    assert f"give {tmp_path / 'patients'} instead" in warning


def test_a_folder_of_nothing_but_links_is_scanned(tmp_path: Path) -> None:
    put(tmp_path, "store/P1/x.edf", "store/P2/y.edf")
    (tmp_path / "in").mkdir()
    for name in ("P1", "P2"):
        (tmp_path / "in" / name).symlink_to(f"../store/{name}")
    result = scan(tmp_path / "in", "folder")
    assert [row.participant for row in result.rows] == ["P1", "P2"] and result.skipped == []


def test_links_to_what_is_scanned_anyway_are_not_followed(tmp_path: Path) -> None:
    root = tmp_path / "in"
    put(tmp_path, "in/P1/deep/x.edf", "in/P2/y.edf", "store/P5/z.edf", "in/.kept/P6/w.edf")
    table(tmp_path)
    (root / "loop").symlink_to(root)
    (root / "up").symlink_to("..")
    (root / "again").symlink_to("P1")
    (root / "inner").symlink_to(root / "P1/deep")
    (root / "P5").symlink_to("../store/P5")
    (root / "P5b").symlink_to(tmp_path / "store/P5")
    (root / "store").symlink_to(tmp_path / "store")
    (root / "P6").symlink_to(".kept/P6")
    result = scan(root, "folder")
    assert [(row.participant, row.path) for row in result.rows] == [
        ("P1", "P1/deep/x.edf"),
        ("P2", "P2/y.edf"),
        ("P5", "P5/z.edf"),
        ("P6", "P6/w.edf"),
    ]
    above = "is a link to the folder that is scanned, or to one above it: not followed"
    assert dict(result.skipped) == {
        "P5b": "is a link to what is scanned as 'P5' already: not followed",
        "again": "is a link to what is scanned as 'P1' already: not followed",
        "inner": "is a link to what is scanned as 'P1' already: not followed",
        "loop": above,
        "store": "is a link to what is scanned as 'P5' already: not followed",
        "up": above,
    }
    (tmp_path / "by_link").symlink_to(root)
    assert scan(tmp_path / "by_link", "folder") == result


def test_one_participant_has_one_spelling(tmp_path: Path) -> None:
    put(tmp_path, "P1/a.edf", "p1/b.edf")
    assert "'P1' has unknown; expected one spelling" in one_line(lambda: scan(tmp_path, "folder"))


def test_a_folder_of_many_formats(tmp_path: Path) -> None:
    """Files as other programs write them; each is scanned, then read back."""
    noise = np.random.default_rng(3).normal(size=(4, 1024)) * 20
    names = ["TP9", "AF7", "AF8", "TP10"]
    raw = mne.io.RawArray(noise * 1e-6, mne.create_info(names, 256.0, "eeg"), verbose="error")
    for folder in ("bv", "fif", "set", "mat"):
        (tmp_path / folder).mkdir()
    pybv.write_brainvision(
        data=noise * 1e-6,
        sfreq=256.0,
        ch_names=names,
        fname_base="rest",
        folder_out=str(tmp_path / "bv"),
        resolution=0.01,
    )
    raw.save(tmp_path / "fif/rest_raw.fif", verbose="error")
    eeglabio.raw.export_set(str(tmp_path / "set/rest.set"), noise * 1e-6, 256.0, names)
    scipy.io.savemat(tmp_path / "mat/rest.mat", {"eeg": noise})
    result = scan(tmp_path, "folder", options=OPTIONS)
    assert result.skipped == []
    assert [row.path for row in result.rows] == [
        "bv/rest.vhdr",
        "fif/rest_raw.fif",
        "mat/rest.mat",
        "set/rest.set",
    ]
    for row in result.rows:
        options = ReaderOptions(256.0, tuple(names), "uV") if row.entry else ReaderOptions()
        recording = read_recording(row, options, tmp_path).pick(names)
        assert recording.sampling_rate == 256.0
        np.testing.assert_allclose(recording.signal_CS, noise, atol=0.02)
    (tmp_path / "bv/rest.vmrk").unlink()
    ((why,),) = [[text for _, text in scan(tmp_path, "folder", options=OPTIONS).skipped]]
    assert why == "rest.vmrk, which belongs to it, is not there"
    lenient = ReaderOptions(256.0, tuple(names), allow_truncated=True)
    assert scan(tmp_path, "folder", options=lenient).skipped == []
    (tmp_path / "bv/rest.eeg").unlink()
    ((path, why),) = scan(tmp_path, "folder", options=lenient).skipped
    assert (path, why) == ("bv/rest.vhdr", "rest.eeg, which belongs to it, is not there")


def test_the_command(tmp_path: Path, shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = tmp_path / "cohort.tsv"

    def scanned(*arguments: object) -> str:
        assert main(["cohort", "scan", *map(str, arguments), "--output", str(sheet)]) == 0
        return capsys.readouterr().out

    values = (
        "--label-column",
        "count_quality",
        "--label-value",
        "good=1",
        "--label-value",
        "bad=0",
    )
    out = scanned(
        shared_data / "eegmat", *values, "--covariates", "age", "sex", "--tasks", "arithmetic"
    )
    assert "36 recordings of 36 participants (labels 1: 26, 0: 10, unknown: 0), 0 left out" in out
    assert "layout 'bids'" in out and f'root: "{shared_data / "eegmat"}"' in out
    frame = pd.read_csv(sheet, sep="\t")
    assert len(frame) == 36 and frame.remission.sum() == 26 and set(frame.sex) == {"F", "M"}
    out = scanned(shared_data / "muse")
    assert "17 recordings" in out and "layout 'folder'" in out
    assert "left out: backward_stamps/" in out and "is not in participants.tsv" in out

    study(tmp_path / "raw/study.mat", A=1, B=0)
    names = ("TP9", "AF7", "AF8", "TP10")
    units = ("--sampling-rate", 256, "--units", "uV", "--channel-names", *names)
    out = scanned(tmp_path / "raw/study.mat", *units)
    assert f'root: "{tmp_path / "raw"}"' in out
    for row in read_sheet(sheet, tmp_path / "raw"):
        recording = read_recording(row, ReaderOptions(), tmp_path / "raw")
        assert recording.channels == names and recording.sampling_rate == 256.0


def planned(config: Path, command: str, folder: Path) -> str:
    """What Snakemake says to the printed command, with -n behind it."""
    words = shlex.split(command)
    assert words[0] == "snakemake" and words[-2] == "--configfile"
    done = snakemake("-n", *words[1:-2], cwd=folder, config=config)
    assert done.returncode == 0, done.stdout[-2000:]
    return str(done.stdout)


def test_the_configuration_it_writes_runs(
    tmp_path: Path,
    shared_data: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Names of folders that YAML and a shell would misread; paths given relative."""
    folder = tmp_path / 'it\'s: #1 "ü" folder'
    folder.mkdir()
    (folder / "data").symlink_to(shared_data / "eegmat")
    monkeypatch.chdir(folder)
    label = ["--label-column", "count_quality", "--label-value", "good=1", "--label-value", "bad=0"]
    scanned = ["cohort", "scan", "data", *label, "--output", "my cohort.tsv"]
    assert main([*scanned, "--config", "my.yaml"]) == 0
    out = capsys.readouterr().out
    values = yaml.safe_load((folder / "my.yaml").read_text(encoding="utf-8"))
    settings = validate(values)
    assert settings.cohorts["mine"].sheet == str(folder / "my cohort.tsv")
    assert settings.cohorts["mine"].root == str(folder / "data")
    assert len(settings.channels) == 19 and settings.channels[0] == "Fp1"
    command = out[out.rindex("next: ") + 6 :].strip()
    assert shlex.split(command)[-1] == str(folder / "my.yaml")
    (tmp_path / "work").mkdir()
    assert " 36" in planned(folder / "my.yaml", command, tmp_path / "work")

    # The same is printed where no file is asked for; one that is there is kept.
    assert main([*scanned, "--allow-truncated"]) == 0
    out = capsys.readouterr().out
    last, _, block = out[out.rindex("next: ") :].partition("\n")
    printed = yaml.safe_load(block)
    assert printed["cohorts"]["mine"].pop("allow_truncated") is True and printed == values
    assert last.endswith(" --configfile mine.yaml")
    before = (folder / "my.yaml").read_bytes()
    assert main([*scanned, "--config", "my.yaml"]) == 1
    assert "my.yaml: is there already" in capsys.readouterr().err
    assert (folder / "my.yaml").read_bytes() == before


def test_the_configuration_for_a_sheet_without_labels(
    tmp_path: Path, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, "in/P0/x.edf")  # damaged, and the smallest
    for name in ("subject102", "subject103"):
        (tmp_path / "in" / name).symlink_to(shared_data / "muse" / name)
    sheet, config = tmp_path / "cohort.tsv", tmp_path / "mine.yaml"
    command = ["cohort", "scan", str(tmp_path / "in"), "--output", str(sheet)]
    assert main([*command, "--config", str(config)]) == 0
    out = capsys.readouterr().out
    assert "recording 'P0_x' cannot be read: " in out
    assert f"next: fill in the column remission of {sheet}, for both 0 and 1 are needed" in out
    text = config.read_text()
    assert "# 3 participants have no label" in text and "three or more with each label" in text
    assert "of recording subject10" in text
    settings = validate(yaml.safe_load(text))
    muse = (shared_data / "muse").resolve()
    followed = settings.cohorts["mine"].follow_links_to
    people = {Path(folder).relative_to(muse).parts[0] for folder in followed}
    assert people == {"subject102", "subject103"}
    assert sorted(settings.channels) == ["AF7", "AF8", "TP10", "TP9"]
    assert settings.split.unlabelled == "refuse"
    uncommented = text.replace("# split:", "split:")
    assert validate(yaml.safe_load(uncommented)).split.unlabelled == "pretraining"


def test_the_channels_of_a_configuration() -> None:
    cap = [name for name in electrode_names() if "h" not in name.lower()][:80]
    for electrodes, comment in (
        (cap, " of the 80 electrodes of recording r"),
        (["Fz", "AFz", "Cz"], "# The electrodes of recording r"),
        ([], "# Change this"),
    ):
        text = overlay(Path("a.tsv"), Path("in"), electrodes, "r")
        assert comment in text
        settings = validate(yaml.safe_load(text))
        assert len(settings.dataset) < 200
        if electrodes:
            assert set(settings.channels) <= set(electrodes)
        else:
            assert settings.channels == Config().channels
    assert settings.cohorts["mine"].sheet == str(Path.cwd() / "a.tsv")
    assert settings.pretraining.least_steps == 2000  # what was measured on real recordings


# Every character that str.isprintable takes, but what parts folders; a point alone would name one.
NAME_PART = st.characters(
    exclude_categories=("C", "Z"), include_characters=" ", exclude_characters="/"
)


@given(st.text(NAME_PART, min_size=1).map(lambda name: name if name.strip(".") else f"{name}x"))
def test_any_path_is_quoted(name: str) -> None:
    assert name.isprintable()
    text = overlay(Path("/in") / name, Path("/in"), ["Fz"], "r")
    assert yaml.safe_load(text)["cohorts"]["mine"]["sheet"] == f"/in/{name}"


@pytest.mark.parametrize(
    ("given_names", "expected"),
    [
        (["TP9,AF7"], ("TP9", "AF7")),
        (["TP9 AF7"], ("TP9", "AF7")),
        (["TP9, AF7", "AF8"], ("TP9", "AF7", "AF8")),
        (["EEG Fp1", "EEG Fp2"], ("EEG Fp1", "EEG Fp2")),
    ],
)
def test_channel_names_are_the_same_in_the_scan_and_the_sheet(
    given_names: list[str], expected: tuple[str, ...], tmp_path: Path
) -> None:
    rate, count = 256, len(expected)
    file = tmp_path / "in/P1/rest.mat"
    file.parent.mkdir(parents=True)
    scipy.io.savemat(file, {"eeg": np.random.default_rng(1).normal(size=(count, 4 * rate)) * 20})
    sheet = tmp_path / "cohort.tsv"
    read = ["--sampling-rate", str(rate), "--units", "uV", "--channel-names", *given_names]
    assert main(["cohort", "scan", str(tmp_path / "in"), *read, "--output", str(sheet)]) == 0
    (row,) = read_sheet(sheet, tmp_path / "in")
    assert row.channel_names == expected and row.units == "uV"


def test_truncated_files_may_be_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in/P1").mkdir(parents=True)
    pybv.write_brainvision(
        data=np.random.default_rng(2).normal(size=(2, 2000)) * 2e-5,
        sfreq=250,
        ch_names=["Fz", "Cz"],
        fname_base="rest",
        folder_out=str(tmp_path / "in/P1"),
    )
    (tmp_path / "in/P1/rest.vmrk").unlink()
    command = ["cohort", "scan", str(tmp_path / "in"), "--output", str(tmp_path / "c.tsv")]
    assert main(command) == 1
    assert "rest.vmrk" in capsys.readouterr().err
    assert main([*command, "--allow-truncated"]) == 0
    block = capsys.readouterr().out.partition("mine.yaml\n")[2]
    assert validate(yaml.safe_load(block)).cohorts["mine"].allow_truncated
    assert yaml.safe_load(block)["channels"] == ["Fz", "Cz"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--label-column", "x", "--label-threshold", "nan"], "--label-threshold is nan; expected"),
        (["--label-column", "x", "--label-threshold", "inf"], "--label-threshold is inf; expected"),
        (["--units", "bananas"], "--units is 'bananas'; expected uV"),
        (["--units", "counts"], "--units is 'counts'; expected uV"),
        (
            ["--label-column", "quality", "--label-value", "Good=1"],
            "or as --label-value) or correct",
        ),
        (["--label-column", "quality", "--label-value", "Good=1"], "Did you mean 'Good'?"),
        (["--label-value", "good=1"], "--label-column is not given"),
        (["--label-positive", "above"], "--label-column is not given"),
        (["--label-column", "quality"], "has neither of --label-value and --label-threshold"),
        (["--label-column", "x", "--label-value", "a=1", "--label-threshold", "1"], "has both"),
        (["--label-column", "x", "--label-threshold", "1"], "belong together"),
        (["--label-column", "x", "--label-value", "a=2"], "expected value=0 or value=1"),
        (["--label-column", "x", "--label-value", "=1"], "expected value=0 or value=1"),
        (["--label-column", "x", "--label-value", "a=1", "--label-value", "a=0"], "both 0 and 1"),
        (["--tasks", "rest"], "are for BIDS"),
        (["--sampling-rate", "nan"], "expected a positive number of Hz"),
        (["--label-column", "nope", "--label-value", "a=1"], "no column 'nope'"),
    ],
)
def test_slips_on_the_command_line(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, "P1/x.edf")
    table(tmp_path, "P1\t30\tgood")
    sheet = tmp_path / "cohort.tsv"
    assert main(["cohort", "scan", str(tmp_path), *arguments, "--output", str(sheet)]) == 1
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1 and not sheet.exists()
    assert "--settings" not in error and "scan.root" not in error


def test_a_root_that_is_not_there_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / "cohort.tsv"
    assert main(["cohort", "scan", str(tmp_path / "none"), "--output", str(sheet)]) == 1
    error = capsys.readouterr().err
    assert "is not there" in error and "check the path" in error and "scan.root" not in error


@pytest.mark.parametrize(
    "module", ["cohort", "scan", "bids", "sidecars", "source", "registry", "simulate"]
)
def test_what_snakemake_imports_is_light(module: str, tmp_path: Path) -> None:
    put(tmp_path, "P1/rest.edf", "P1/other.csv")
    code = (
        f"import remit.recordings.{module}; from remit.recordings.scan import scan;"
        f"scan({str(tmp_path)!r}, 'folder')"
    )
    assert loaded_by(code, "numpy", "scipy", "mne", "pandas", "pyarrow", "torch") == ""
