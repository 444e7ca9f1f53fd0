"""The participants' split: disjoint, complete, stratified, and the same whatever the order."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.config import Split
from remit.dataset.splits import fold_split, make_split, read_split, write_split
from remit.errors import RemitError

FACTS: dict[str, Any] = {"dataset": "8s_af7-af8", "content_sha256": "cd" * 32, "simulated": True}


def cohort(zeros: int, ones: int, unlabelled: int = 0) -> dict[str, int | None]:
    labels: list[int | None] = [0] * zeros + [1] * ones + [None] * unlabelled
    return {f"p{index:03d}": label for index, label in enumerate(labels)}


def split_of(people: dict[str, int | None], **settings: Any) -> dict[str, Any]:
    return make_split(people, Split(**settings), **FACTS)


@given(
    zeros=st.integers(3, 40),
    ones=st.integers(3, 40),
    unlabelled=st.integers(0, 5),
    seed=st.integers(0, 2**32),
    order=st.randoms(use_true_random=False),
)
def test_properties(zeros: int, ones: int, unlabelled: int, seed: int, order: Any) -> None:
    people = cohort(zeros, ones, unlabelled)
    split = split_of(people, seed=seed, unlabelled="pretraining")
    parts = split["participants"]
    assert set(parts) == set(people)
    for label, number in ((0, zeros), (1, ones)):
        own = [parts[name] for name, value in people.items() if value == label]
        expected_val = max(1, round(number * 0.2))
        expected_test = max(1, round(number * 0.1))
        assert own.count("val") == expected_val == split["counts"]["val"][str(label)]
        assert own.count("test") == expected_test == split["counts"]["test"][str(label)]
        assert own.count("train") == number - expected_val - expected_test >= 1
        assert own.count("train") == split["counts"]["train"][str(label)]
    listed = [name for name, part in parts.items() if part == "pretraining_only"]
    assert listed == [name for name, value in people.items() if value is None]
    shuffled = list(people.items())
    order.shuffle(shuffled)
    again = split_of(dict(shuffled), seed=seed, unlabelled="pretraining")
    assert json.dumps(again) == json.dumps(split)


def test_the_seed_decides() -> None:
    people = cohort(15, 9)
    assert split_of(people, seed=1) == split_of(people, seed=1)
    assert len({str(split_of(people, seed=seed)["participants"]) for seed in range(8)}) == 8


def test_ranking_is_fair() -> None:
    """Over many seeds every participant is tested about equally often."""
    people = cohort(10, 10)
    tested = dict.fromkeys(people, 0)
    for seed in range(400):
        for name, part in split_of(people, seed=seed)["participants"].items():
            tested[name] += part == "test"
    assert 20 < min(tested.values()) <= max(tested.values()) < 62  # 40 expected, 6 standard dev.


def test_the_split_of_a_known_cohort_never_changes() -> None:
    """A change here is a change of result: raise RESULT_VERSION."""
    parts = split_of(cohort(6, 4), seed=0)["participants"]
    held_back = {name: part for name, part in parts.items() if part != "train"}
    assert held_back == {"p001": "val", "p004": "test", "p007": "val", "p009": "test"}


def test_what_the_result_holds() -> None:
    split = split_of(cohort(15, 9), validation=0.25, seed=3)
    assert split["dataset"] == "8s_af7-af8"
    assert split["content_sha256"] == "cd" * 32
    assert split["simulated"] is True
    assert split["seed"] == 3
    assert split["fractions"] == {"validation": 0.25, "test": 0.1}
    assert split["counts"] == {
        "train": {"0": 9, "1": 6},
        "val": {"0": 4, "1": 2},
        "test": {"0": 2, "1": 1},
    }


@pytest.mark.parametrize(("zeros", "ones"), [(14, 2), (0, 9), (2, 2)])
def test_a_class_too_small_gives_the_counts(zeros: int, ones: int) -> None:
    with pytest.raises(
        RemitError,
        match=f"there are {zeros} participants with label 0 and {ones} participants with label 1; "
        r"expected enough of each .* add participants",
    ):
        split_of(cohort(zeros, ones))


def test_fractions_that_leave_nobody_to_train_are_refused() -> None:
    with pytest.raises(RemitError, match=r"validation 0.5 and test 0.45"):
        split_of(cohort(4, 4), validation=0.5, test=0.45)


def test_unlabelled_are_refused_by_name() -> None:
    with pytest.raises(
        RemitError,
        match=r"2 of 22 participants have no label \(p020, p021\).*split.unlabelled: pretraining",
    ):
        split_of(cohort(10, 10, 2))


@pytest.mark.parametrize(
    ("zeros", "ones", "helps"), [(3, 3, True), (3, 2, False), (9, 0, False), (0, 0, False)]
)
def test_only_a_remedy_that_helps_is_named(zeros: int, ones: int, helps: bool) -> None:
    people = cohort(zeros, ones, 2)
    with pytest.raises(RemitError, match="label them in the cohort sheet") as first:
        split_of(people)
    assert ("set split.unlabelled: pretraining" in str(first.value)) is helps
    with pytest.raises(RemitError, match="add participants of the smaller class") as second:
        split_of(people, unlabelled="pretraining", validation=0.5, test=0.4)
    assert ("lower split.validation" in str(second.value)) is helps
    if helps:
        split_of(people, unlabelled="pretraining")
    else:
        with pytest.raises(RemitError, match="expected enough of each"):
            split_of(people, unlabelled="pretraining", validation=0.01, test=0.01)


def test_another_label_is_refused() -> None:
    with pytest.raises(RemitError, match="participant px has label 2"):
        split_of({**cohort(10, 10), "px": 2})


def test_file_round_trip(tmp_path: Path) -> None:
    file = tmp_path / "splits" / "x_split.json"
    people = cohort(15, 9, 1)
    split = split_of(people, unlabelled="pretraining")
    write_split(file, split)
    text = file.read_text()
    assert text.endswith("}\n")
    assert list(json.loads(text)) == sorted(split)
    write_split(file, split)
    assert file.read_text() == text
    read = read_split(file)
    assert read.participants == split["participants"]
    assert read.counts == split["counts"]
    assert (read.dataset, read.seed, read.simulated) == ("8s_af7-af8", 0, True)
    names = [
        name for part in ("train", "val", "test", "pretraining_only") for name in read.part(part)
    ]
    assert sorted(names) == sorted(people)
    assert read.part("train") == sorted(read.part("train"))
    read.check_against(people)


def test_unknown_part_is_refused(tmp_path: Path) -> None:
    write_split(tmp_path / "x.json", split_of(cohort(9, 9)))
    with pytest.raises(RemitError, match=r"'tain' is no part of a split.*Did you mean 'train'"):
        read_split(tmp_path / "x.json").part("tain")


def test_other_participants_are_refused(tmp_path: Path) -> None:
    write_split(tmp_path / "x.json", split_of(cohort(9, 9)))
    with pytest.raises(RemitError, match=r"without a part: p018; .* dataset lacks: none"):
        read_split(tmp_path / "x.json").check_against(cohort(9, 10))
    with pytest.raises(RemitError, match=r"without a part: none; .* dataset lacks: p017"):
        read_split(tmp_path / "x.json").check_against(cohort(9, 8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["participants"].update(p000="holdout"), "p000 is in part 'holdout'; expected"),
        (lambda s: s["participants"].update(p000="vall"), "Did you mean 'val'"),
        (lambda s: s.pop("seed"), "holds content_sha256, .*expected"),
        (lambda s: s.update(extra=1), "holds content_sha256, .*extra"),
        (lambda s: s["counts"]["val"].update({"0": 7}), "counts of part val say 9; expected 4"),
        (lambda s: s.update(participants=[]), r"participants is \[\]; expected dict"),
        (lambda s: s["counts"].pop("test"), "counts of part test are None"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    split = split_of(cohort(9, 9))
    change(split)
    write_split(tmp_path / "x.json", split)
    with pytest.raises(RemitError, match=message):
        read_split(tmp_path / "x.json")


def test_duplicates_and_other_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    write_split(file, split_of(cohort(9, 9)))
    twice = file.read_text().replace('"p001":', '"p000":')
    file.write_text(twice)
    with pytest.raises(RemitError, match="the key p000 stands there more than once"):
        read_split(file)
    file.write_text("{")
    with pytest.raises(RemitError, match="is no JSON"):
        read_split(file)
    file.write_text("[]")
    with pytest.raises(RemitError, match="holds list; expected"):
        read_split(file)
    with pytest.raises(RemitError, match="cannot be read"):
        read_split(tmp_path / "absent.json")


# Splits of folds -----------------------------------------------------------------------------


def split_of_fold(people: dict[str, int | None], test: list[str]) -> dict[str, Any]:
    return fold_split(
        {name: label for name, label in people.items() if label is not None},
        [name for name, label in people.items() if label is None],
        test,
        seed=3,
        **FACTS,
    )


@given(st.integers(2, 9), st.integers(2, 9), st.integers(0, 3), st.data())
def test_the_split_of_a_fold_tests_its_people_and_trains_on_all_others(
    zeros: int, ones: int, unlabelled: int, data: Any
) -> None:
    people = cohort(zeros, ones, unlabelled)
    labelled = [name for name, label in people.items() if label is not None]
    test = data.draw(
        st.lists(st.sampled_from(labelled), min_size=1, max_size=zeros + ones - 1, unique=True)
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "split.json"
        write_split(file, split_of_fold(people, test))
        read = read_split(file)
    read.check_against(people)
    assert read.part("test") == sorted(test) and read.part("val") == []
    assert read.part("train") == sorted(set(labelled) - set(test))
    assert read.part("pretraining_only") == sorted(set(people) - set(labelled))
    for part in ("train", "test"):
        found = Counter(str(people[name]) for name in read.part(part))
        assert read.counts[part] == {label: found[label] for label in ("0", "1")}


@pytest.mark.parametrize(
    ("test", "says"),
    [
        ([], "a fold has 0 of 8 labelled participants"),
        ([f"p{i:03d}" for i in range(8)], "a fold has 8 of 8"),
        (["nobody"], "unknown: nobody"),
    ],
)
def test_a_fold_that_is_none_is_refused(test: list[str], says: str) -> None:
    with pytest.raises(RemitError, match=says):
        split_of_fold(cohort(4, 4), test)


def test_only_the_split_of_a_fold_may_have_nobody_to_validate(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    people = cohort(4, 4)
    fold = split_of_fold(people, ["p000", "p007"])
    fold["fractions"]["validation"] = 0.2
    write_split(file, fold)
    with pytest.raises(RemitError, match="part val has no participants"):
        read_split(file)
    ordinary = split_of(cohort(9, 9))
    ordinary["participants"] = dict.fromkeys(ordinary["participants"], "train")
    ordinary["counts"] = {"train": {"0": 9, "1": 9}, "val": {}, "test": {}}
    ordinary["fractions"]["validation"] = 0
    write_split(file, ordinary)
    with pytest.raises(RemitError, match="part test has no participants"):
        read_split(file)
