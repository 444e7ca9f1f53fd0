"""The folds: disjoint, complete, stratified, the same whatever the order; a bent file is refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.errors import RemitError
from remit.evaluation.folds import make_folds, read_folds, write_folds

FACTS: dict[str, Any] = {"dataset": "8s_af7-af8", "content_sha256": "cd" * 32, "simulated": True}


def cohort(zeros: int, ones: int, unlabelled: int = 0) -> dict[str, int | None]:
    labels: list[int | None] = [0] * zeros + [1] * ones + [None] * unlabelled
    return {f"p{index:03d}": label for index, label in enumerate(labels)}


def folds_of(people: dict[str, int | None], folds=5, repeats=10, seed=0) -> dict[str, Any]:
    return make_folds(people, SimpleNamespace(folds=folds, repeats=repeats, seed=seed), **FACTS)


@given(
    zeros=st.integers(2, 40),
    ones=st.integers(2, 40),
    unlabelled=st.integers(0, 4),
    folds=st.integers(2, 9),
    seed=st.integers(0, 2**32),
    order=st.randoms(use_true_random=False),
)
def test_properties(zeros, ones, unlabelled, folds, seed, order) -> None:
    people = cohort(zeros, ones, unlabelled)
    made = folds_of(people, folds, 3, seed)
    assert made["folds"] == min(folds, zeros, ones) >= 2
    assert made["unlabelled"] == [name for name, label in people.items() if label is None]
    assert set(made["participants"]) == {name for name in people if people[name] is not None}
    for repeat in range(3):
        fold_P = np.array([own[repeat] for own in made["participants"].values()])
        label_P = np.array(list(made["labels"].values()))
        for its in (np.bincount(fold_P[label_P == label]) for label in (0, 1)):
            assert len(its) == made["folds"] and min(its) >= 1 and max(its) - min(its) <= 1
        sizes = np.bincount(fold_P)
        assert max(sizes) - min(sizes) <= 1
    shuffled = list(people.items())
    order.shuffle(shuffled)
    assert json.dumps(folds_of(dict(shuffled), folds, 3, seed)) == json.dumps(made)


def test_repeats_and_seeds_differ() -> None:
    fold_PR = np.array(list(folds_of(cohort(14, 7))["participants"].values()))
    assert len(np.unique(fold_PR, axis=1).T) == 10
    made = {str(folds_of(cohort(14, 7), seed=seed)["participants"]) for seed in range(8)}
    assert len(made) == 8


def test_two_participants_meet_in_a_fold_as_often_as_any_two() -> None:
    """Of 12 in 3 folds, two of a class of 6 meet in 1 of 5 deals, two of unlike class in 1 of 3."""
    fold_PR = np.array(list(folds_of(cohort(6, 6), 3, 2000)["participants"].values()))
    met_PP = (fold_PR[:, None] == fold_PR).mean(2)
    same = np.array([[i // 6 == j // 6 for j in range(12)] for i in range(12)])
    expected_PP = np.where(same, 1 / 5, 1 / 3)
    np.fill_diagonal(expected_PP, 1)
    assert np.abs(met_PP - expected_PP).max() < 0.05  # 4.7 standard deviations


def test_the_folds_of_a_known_cohort_never_change() -> None:
    """A change here is a change of result: raise RESULT_VERSION."""
    made = folds_of(cohort(4, 3), 3, 2)
    assert made["participants"] == {
        "p000": [2, 0],
        "p001": [0, 0],
        "p002": [1, 1],
        "p003": [0, 2],
        "p004": [1, 0],
        "p005": [2, 1],
        "p006": [0, 2],
    }


@pytest.mark.parametrize(
    ("zeros", "ones", "says"),
    [
        (0, 0, "label more people"),
        (9, 0, "9 participants have label 0 and 0 have label 1"),
        (0, 9, "label more people"),
        (9, 1, "label at least one more"),
        (1, 9, "one to fit on and one to test"),
        (1, 1, "label more people"),
    ],
)
def test_too_few_says_what_is_possible(zeros, ones, says) -> None:
    with pytest.raises(RemitError, match=says):
        folds_of(cohort(zeros, ones, 3))


def test_strange_labels_and_settings() -> None:
    with pytest.raises(RemitError, match="participant p000 has label 2; expected 0, 1 or none"):
        folds_of({**cohort(4, 4), "p000": 2})
    with pytest.raises(RemitError, match=r"evaluation\.folds is 1; expected at least 2"):
        folds_of(cohort(4, 4), folds=1)
    with pytest.raises(RemitError, match=r"evaluation\.repeats is 0; expected at least 1"):
        folds_of(cohort(4, 4), repeats=0)


def test_written_and_read(tmp_path: Path) -> None:
    made = folds_of(cohort(7, 4, 2), 5, 3)
    file = tmp_path / "8s_af7-af8_folds.json"
    write_folds(file, made)
    read = read_folds(file)
    assert (read.folds, read.asked, read.repeats) == (4, 5, 3)
    assert read.fold_RP.shape == (3, 11) and read.label_P.tolist() == [0] * 7 + [1] * 4
    for repeat in range(3):
        tested = [read.test(repeat, fold) for fold in range(4)]
        assert sorted(name for names in tested for name in names) == list(read.names)
        for fold, names in enumerate(tested):
            at = [read.names.index(name) for name in names]
            assert (read.fold_RP[repeat, at] == fold).all()
    read.check_against(cohort(7, 4, 2))
    with pytest.raises(RemitError, match="lacks: p012"):
        read.check_against([f"p{index:03d}" for index in range(12)])
    with pytest.raises(RemitError, match="no fold 4 of repeat 0"):
        read.test(0, 4)
    write_folds(tmp_path / "again.json", made)
    assert file.read_bytes() == (tmp_path / "again.json").read_bytes()


def bend(values: dict[str, Any], how: str) -> None:
    people = values["participants"]
    if how == "swapped":
        zeros = [name for name, label in values["labels"].items() if label == 0]
        one = next(name for name in zeros[1:] if people[name] != people[zeros[0]])
        people[one], people[zeros[0]] = people[zeros[0]], people[one]
    elif how == "label":
        values["labels"]["p000"] = 1
    elif how == "left out":
        del people["p003"]
    elif how == "stranger":
        people["nobody"] = [0, 0, 0]
    elif how == "fold":
        people["p003"][0] = 17
    elif how == "key":
        values["extra"] = 1
    elif how == "type":
        values["seed"] = "0"
    elif how == "both":
        values["unlabelled"].append("p003")
    elif how == "K":
        values["folds"] = 3
    elif how == "one class":
        values["labels"] = dict.fromkeys(values["labels"], 0)
    elif how == "true":
        values["labels"]["p010"] = True


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("swapped", "from its seed and labels"),
        ("label", "folds is 4; expected 5 from its labels"),
        ("left out", "participant p003 is in folds None"),
        ("stranger", "participant nobody is in folds"),
        ("fold", "participant p003 is in folds"),
        ("key", "holds asked, content_sha256, dataset, extra"),
        ("type", "seed is '0'; expected int"),
        ("both", "participant p003 is labelled and unlabelled"),
        ("K", "folds is 3; expected 4 from its labels"),
        ("one class", "label more people"),
        ("true", "the label of p010 cannot be read"),
    ],
)
def test_a_bent_file_is_refused(tmp_path: Path, how: str, says: str) -> None:
    values = folds_of(cohort(7, 4, 2), 5, 3)
    bend(values, how)
    (tmp_path / "folds.json").write_text(json.dumps(values))
    with pytest.raises(RemitError, match=says) as error:
        read_folds(tmp_path / "folds.json")
    assert str(error.value).startswith(str(tmp_path / "folds.json"))


def test_what_is_no_folds_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "folds.json"
    with pytest.raises(RemitError, match="cannot be read"):
        read_folds(file)
    for text, says in (("[", "is no JSON"), ("[]", "holds list"), ('{"a":1,"a":2}', "than once")):
        file.write_text(text)
        with pytest.raises(RemitError, match=says):
            read_folds(file)
