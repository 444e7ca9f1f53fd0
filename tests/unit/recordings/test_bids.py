"""Which files of a BIDS data set are recordings, and which of them are wanted."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recordings_made import one_line

from remit.recordings.bids import Wanted, bids_files, find_layout

EDF = b"0       and so on"


def put(root: Path, *names: str, content: bytes = EDF) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def taken(root: Path, **wanted: list[str]) -> list[str]:
    return [file.path.name for file in bids_files(root, Wanted(**wanted)) if not file.why]


def why(root: Path, **wanted: list[str]) -> dict[str, str]:
    files = bids_files(root, Wanted(**wanted))
    return {file.path.relative_to(root).as_posix(): file.why for file in files if file.why}


def test_a_sound_data_set_is_as_mne_bids_reads_it(tmp_path: Path) -> None:
    import mne_bids

    for sub in ("01", "02"):
        for ses in ("a", "b"):
            for rest in ("task-rest", "task-rest_run-2", "task-odd_acq-x_run-10"):
                stem = f"sub-{sub}/ses-{ses}/eeg/sub-{sub}_ses-{ses}_{rest}"
                put(tmp_path, f"{stem}_eeg.edf", f"{stem}_eeg.json", f"{stem}_channels.tsv")
    put(tmp_path, "derivatives/sub-01/eeg/sub-01_eeg.edf", "sourcedata/sub-03/eeg/sub-03_eeg.edf")
    put(tmp_path, ".hidden/sub-04/eeg/sub-04_eeg.edf", "sub-01/ses-a/eeg/.sub-01_ses-a_eeg.edf")
    expected = mne_bids.find_matching_paths(
        tmp_path, datatypes="eeg", suffixes="eeg", extensions=".edf", ignore_nosub=True
    )
    found = {str(file.path): file.entities for file in bids_files(tmp_path)}
    assert found == {
        str(path.fpath): {key: value for key, value in path.entities.items() if value}
        for path in expected
    }
    assert len(found) == 12


def test_filters(tmp_path: Path) -> None:
    put(tmp_path, "sub-1/ses-a/eeg/sub-1_ses-a_task-rest_run-01_eeg.edf")
    put(tmp_path, "sub-1/ses-b/eeg/sub-1_ses-b_task-rest_run-02_eeg.edf")
    put(tmp_path, "sub-1/eeg/sub-1_task-oddball_eeg.edf")
    assert taken(tmp_path, tasks=["rest"], runs=["1"]) == ["sub-1_ses-a_task-rest_run-01_eeg.edf"]
    assert taken(tmp_path, sessions=["ses-b"]) == ["sub-1_ses-b_task-rest_run-02_eeg.edf"]
    assert taken(tmp_path, runs=["run-02"]) == ["sub-1_ses-b_task-rest_run-02_eeg.edf"]
    assert len(taken(tmp_path)) == 3
    assert why(tmp_path, tasks=["rest"], runs=["1"]) == {
        "sub-1/eeg/sub-1_task-oddball_eeg.edf": "has task 'oddball'; asked for: rest",
        "sub-1/ses-b/eeg/sub-1_ses-b_task-rest_run-02_eeg.edf": "has run '02'; asked for: 01",
    }
    assert "has no session; asked for: a, b" in str(why(tmp_path, sessions=["a", "b"]))


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({"tasks": ["rets"]}, "has task 'rets'; expected one of oddball, rest; correct tasks."),
        ({"tasks": ["rets"]}, "Did you mean 'rest'?"),
        ({"sessions": ["1"]}, "no recording has session '1'; expected one of none"),
        ({"runs": ["rest", "3"]}, "no recording has run 'rest'; expected one of 01"),
        ({"runs": ["1", "3"]}, "no recording has run '3'"),
    ],
)
def test_a_filter_that_matches_nothing_is_a_slip(
    wanted: dict[str, list[str]], says: str, tmp_path: Path
) -> None:
    put(
        tmp_path, "sub-1/eeg/sub-1_task-rest_run-01_eeg.edf", "sub-1/eeg/sub-1_task-oddball_eeg.edf"
    )
    assert says in one_line(lambda: bids_files(tmp_path, Wanted(**wanted)))


def test_runs_of_one_number_are_one_run(tmp_path: Path) -> None:
    put(tmp_path, "sub-1/eeg/sub-1_run-1_eeg.edf", "sub-2/eeg/sub-2_run-01_eeg.edf")
    put(tmp_path, "sub-3/eeg/sub-3_run-10_eeg.edf")
    assert taken(tmp_path, runs=["001"]) == ["sub-1_run-1_eeg.edf", "sub-2_run-01_eeg.edf"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("sub-1/eeg/sub-2_eeg.edf", "its name says 'sub-2', its folder 'sub-1'"),
        ("sub-1/ses-a/eeg/sub-1_ses-b_eeg.edf", "its name says 'ses-b', its folder 'ses-a'"),
        ("sub-1/ses-a/eeg/sub-1_eeg.edf", "its name says 'no session', its folder 'ses-a'"),
        ("sub-1/eeg/sub-1_ses-b_eeg.edf", "its name says 'ses-b', its folder 'none'"),
        ("sub-1/eeg/rest_eeg.edf", "not made of key-value pairs"),
        ("sub-1/eeg/sub-1_task-a_task-b_eeg.edf", "not made of key-value pairs, each key once"),
        ("sub-1/eeg/sub-1_task-a-b_eeg.edf", "not made of key-value pairs"),
        ("sub-1/eeg/sub-1_colour-red_eeg.edf", 'mne-bids refuses its name: Unexpected entity "col'),
        ("sub-1/eeg/sub-1_run-1_task-x_eeg.edf", "Entities in filename not ordered correctly"),
        ("sub-1/eeg/sub-1_task-rest.edf", "its name does not end in '_eeg'"),
        ("sub-1/sub-1_eeg.edf", "lies outside the folder 'eeg'"),
        ("sub-1/ses-1/sub-1_ses-1_eeg.edf", "lies outside the folder 'eeg'"),
    ],
)
def test_a_name_or_place_that_is_not_bids_is_left_out(name: str, says: str, tmp_path: Path) -> None:
    put(tmp_path, name, "sub-9/eeg/sub-9_eeg.edf")
    assert list(why(tmp_path)) == [name] and says in why(tmp_path)[name]
    assert taken(tmp_path) == ["sub-9_eeg.edf"]


def test_links_to_nothing_are_listed(tmp_path: Path) -> None:
    put(tmp_path, "sub-1/eeg/sub-1_eeg.edf")
    (tmp_path / "sub-2").symlink_to("nowhere")
    (tmp_path / "sub-1/ses-x").symlink_to("nowhere")
    (tmp_path / "sub-1/eeg/sub-1_task-x_eeg.set").symlink_to("nowhere")
    assert why(tmp_path) == {"sub-1/ses-x": "is a link to nothing", "sub-2": "is a link to nothing"}
    assert taken(tmp_path) == ["sub-1_eeg.edf", "sub-1_task-x_eeg.set"]  # the scan names it


def test_what_mne_bids_itself_drops_is_listed_here(tmp_path: Path) -> None:
    import mne_bids

    put(tmp_path, "sub-1/eeg/sub-1_eeg.edf", "sub-2/eeg/sub-2_colour-red_eeg.edf")
    put(tmp_path, "sub-1/derivatives/eeg/sub-1_eeg.edf")
    (tmp_path / "sub-1/eeg/sub-1_task-x_eeg.edf").symlink_to("../annex/gone")
    theirs = mne_bids.find_matching_paths(
        tmp_path, datatypes="eeg", suffixes="eeg", extensions=".edf", ignore_nosub=True
    )
    assert len(theirs) == 2 and sum(path.fpath.exists() for path in theirs) == 1
    assert taken(tmp_path) == ["sub-1_eeg.edf", "sub-1_task-x_eeg.edf"]
    assert list(why(tmp_path)) == ["sub-2/eeg/sub-2_colour-red_eeg.edf"]


def test_a_folder_without_subjects_says_what_to_do(tmp_path: Path) -> None:
    put(tmp_path, "dataset_description.json", "ds1/sub-1/eeg/sub-1_eeg.edf")
    message = one_line(lambda: bids_files(tmp_path))
    assert "has no folder sub-*; it has dataset_description.json, ds1" in message
    assert "give its folder 'ds1', which has some, as root" in message
    above = tmp_path / "ds1"
    for inside in ("sub-1", "sub-1/eeg"):
        message = one_line(lambda: bids_files(above / inside))  # noqa: B023
        assert f"it lies inside a participant's folder: give {above} as root" in message
    put(tmp_path, "other/P1/x.edf")
    assert "or use layout 'folder'" in one_line(lambda: bids_files(tmp_path / "other"))


def test_the_layout_is_found_out(tmp_path: Path) -> None:
    put(tmp_path, "a/sub-1/x.edf", "b/dataset_description.json", "c/P1/x.edf", "d/sub-1.edf")
    layouts = [find_layout(tmp_path / name) for name in "abcd"]
    assert layouts == ["bids", "bids", "folder", "folder"]
    assert find_layout(tmp_path / "nowhere") == find_layout(tmp_path / "d/sub-1.edf") == "folder"


@given(
    st.dictionaries(
        st.sampled_from(["ses", "task", "acq", "run"]),
        st.text("abcXYZ0189", min_size=1, max_size=6),
    )
)
def test_entities_are_those_of_the_name(tmp_path_factory: pytest.TempPathFactory, pairs) -> None:  # type: ignore[no-untyped-def]
    order = [key for key in ("ses", "task", "acq", "run") if key in pairs]
    name = "_".join(["sub-1", *(f"{key}-{pairs[key]}" for key in order), "eeg.edf"])
    root = tmp_path_factory.mktemp("bids")
    folder = "sub-1/eeg" if "ses" not in pairs else f"sub-1/ses-{pairs['ses']}/eeg"
    put(root, f"{folder}/{name}")
    (file,) = bids_files(root)
    long = {"ses": "session", "task": "task", "acq": "acquisition", "run": "run"}
    assert file.entities == {"subject": "1", **{long[key]: pairs[key] for key in order}}
