"""The model card: every item of the checklist once, the files' facts, blanks, and nothing slipped in."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from remit.dataset.windows import open_dataset
from remit.errors import RemitError
from remit.report.model_card import escaped, write_model_card
from remit.training import checkpoint
from tests.unit.training.conftest import NAME, Bench, make_dataset, split_of

Make = Callable[..., Any]
# 27 items, 52 with their parts (Collins et al. 2024).
INTRODUCTION = ["1", "2", "3a", "3b", "3c", "4"]
METHODS = ["5a", "5b", "6a", "6b", "6c", "7", "8a", "8b", "8c", "9a", "9b", "9c", "10", "11"]
METHODS += [*(f"12{part}" for part in "abcdefg"), "13", "14", "15", "16", "17"]
OPEN = [*(f"18{part}" for part in "abcdef"), "19"]
RESULTS = ["20a", "20b", "20c", "21", "22", "23a", "23b", "24"]
DISCUSSION = ["25", "26", "27a", "27b", "27c"]
ITEMS = [*INTRODUCTION, *METHODS, *OPEN, *RESULTS, *DISCUSSION]
# Of a person alone: a program that filled these in would be making it up.
ONLY_A_PERSON = [
    *INTRODUCTION[1:5],
    "6a",
    "6b",
    "6c",
    "8b",
    "8c",
    "17",
    *OPEN[:4],
    "19",
    *DISCUSSION,
]
PEOPLE = {**{f"p{i:02d}": i % 2 for i in range(14)}, "p90": None}
SETTINGS = {
    "preprocessing": {"lowpass": {"cutoff_hz": 12.0, "order": 4}, "window_seconds": 2.0},
    "version": "2.3",
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A primary dataset with 7 against 7 and one without a label, and a backbone."""
    folder = tmp_path_factory.mktemp("card")
    primary = make_dataset(folder, PEOPLE, settings=SETTINGS)
    backbone, _ = Bench(
        folder, primary, split_of(primary, folder, unlabelled="pretraining")
    ).pretrain(epochs=1)
    return primary, backbone


def sheet_of(folder: Path, **changes: dict[str, str]) -> Path:
    """A sheet of everybody in the dataset, and of one without a recording that could be used."""
    columns = ["participant", "recording", "path", "remission", "age", "sex", "acq_date"]
    lines = ["\t".join(columns)]
    for index, (name, label) in enumerate([*PEOPLE.items(), ("p99", 1)]):
        row = {
            "participant": name,
            "recording": f"{name}_r",
            "path": f"{name}.edf",
            "remission": "" if label is None else str(label),
            "age": "n/a" if index == 3 else str(20 + index),
            "sex": "f" if index % 3 else "m",
            "acq_date": f"2021-0{1 + index % 9}-11",
        } | changes.get(name, {})
        lines.append("\t".join(row[column] for column in columns))
    file = folder / "made.tsv"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


@pytest.fixture
def written(make_report: Make, save: Make, trained: tuple[Path, Path], tmp_path: Path) -> Make:
    """Write a card and return its text."""
    primary, backbone = trained
    names = [name for name, label in PEOPLE.items() if label == 1]
    names += [name for name, label in PEOPLE.items() if label == 0]

    def write(
        change: Callable[[dict[str, Any]], None] = lambda report: None,
        sheet: dict[str, dict[str, str]] | None = None,
        **case: Any,
    ) -> str:
        report = make_report(**{"n1": 7, "n0": 7, "model": str(NAME), "people": names} | case)
        metadata = open_dataset(primary).metadata
        report["dataset"] |= {key: metadata[key] for key in ("dataset", "content_sha256")}
        report["participants"]["unlabelled"] = ["p90"]
        change(report)
        card = tmp_path / "model_card.md"
        write_model_card(
            report=save(report),
            backbone=backbone,
            primary=primary,
            sheet=sheet_of(tmp_path, **(sheet or {})),
            card=card,
        )
        return card.read_text(encoding="utf-8")

    return write


def items_of(card: str) -> dict[str, str]:
    """The text of each item by its number."""
    parts = re.split(r"^\*\*(\d+[a-g]?)\b[ .]", card, flags=re.MULTILINE)
    assert len(parts[1::2]) == len(set(parts[1::2])), "an item stands twice"
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_item_of_the_checklist_stands_once_in_order(written):
    card = written()
    assert list(items_of(card)) == ITEMS
    for item in ITEMS:  # each in a paragraph of its own
        assert re.search(rf"\n\n\*\*{item}[ .]", card), item


def test_lists_are_spaced(written):
    assert not re.findall(r"[a-z)],[a-z0-9]", written().split("## Settings")[0])


def test_what_only_a_person_knows_is_blank(written):
    items = items_of(written())
    for item in ONLY_A_PERSON:
        assert "[to be written: " in items[item], item
    for item in ("7", "11", "13", "15", "21", "23a", "24"):
        assert "[to be written" not in items[item], item


def test_facts_are_those_of_the_files(written, trained):
    items = items_of(written())
    frame = open_dataset(trained[0]).frame()
    good, labelled = frame["good"].sum(), (frame["good"] & (frame["Participant"] != "p90")).sum()
    for row in (
        "| in the cohort sheet | 16 | 16 |  |  |",
        f"| with at least one window | 15 | 15 | {len(frame)} | p99 |",
        f"| with at least one window that is not marked bad | 15 | 15 | {good} | nobody |",
        f"| with a label: in the folds, and in every figure below | 14 | 14 | {labelled} | p90 |",
    ):
        assert row in items["20a"]
    assert "acq_date: 2021-01-11 to 2021-09-11" in items["5b"]
    for row in ("lowpass | cutoff_hz 12.0, order 4", "window_seconds | 2.0", "version | 2.3"):
        assert f"\n| {row} |\n" in items["7"]
    assert "14 participants with a label, 7 of them in class 1" in items["10"]
    assert f"flat {len(frame) - good}." in items["11"]
    # Windows of 2 s; p90 has no label and counts nowhere.
    own = frame[frame["Participant"] != "p90"]
    minutes = sorted(own["Participant"].value_counts() * 2 / 60)
    assert f"Of {sum(minutes):.1f} minutes 0.0 are in no window" in items["11"]
    used = sorted(own[own["good"]]["Participant"].value_counts())
    assert f"14, {minutes[0]:.1f} to {minutes[-1]:.1f} minutes" in items["9b"]
    assert f"{used[0]} to {used[-1]} (median {np.median(used):g})" in items["9b"]
    card = checkpoint.load(trained[1], "pretrained")["data"]["participants_seen"]
    for part, names in card.items():
        if names:
            assert f"{len(names)} participants for {part.replace('_', ' ')} (cohort " in items["5a"]
    # Ages 20 to 33 but 23, the fourth's: 21, 25, ..., 33 in class 1; everybody of class 0.
    ages = [20 + index for index in range(1, 14, 2) if index != 3]
    assert f"| age | mean {sum(ages) / 6:.1f} (SD " in items["20b"] and "| 1 |" in items["20b"]
    assert "f: 5, m: 2" in items["20b"] or "f: 4, m: 3" in items["20b"]


def test_figures_are_those_of_the_report(written):
    held: dict[str, Any] = {}
    card = items_of(written(held.update))
    own = held["candidates"][0]
    for key in ("auc", "brier"):
        of = own["figures"][key]
        assert f"{of['value']:.2f} [{of['low']:.2f}, {of['high']:.2f}]" in card["23a"]
    for point in own["figures"]["calibration"]["curve"]:
        low, high = point["low"], point["high"]
        row = f"| {point['probability']:.2f} | {point['n']} | {point['n_positive']} | "
        assert f"{row}{point['observed']:.2f} [{low:.2f}, {high:.2f}] |" in card["23a"]
    assert all(each["guard"] in card["12a"] for each in held["guards"])
    for each in held["comparisons"]:
        of = each["auc"]
        line = f"{of['value']:.2f} [{of['low']:.2f}, {of['high']:.2f}]"
        assert re.search(rf"\| {each['name']} \|.*{re.escape(line)}", card["23a"])
    assert held["folds"]["sha256"] in card["18f"] and "git_commit abc123" in card["18f"]
    assert f"all {NAME.d_model} columns" in card["9a"]


def test_tables_have_as_many_cells_in_every_row(written):
    rows = [line for line in written().splitlines() if line.startswith("|")]
    tables = "\n".join(rows)
    assert "|---|" in tables
    cells = 0
    for row in rows:
        now = len(re.findall(r"(?<!\\)\|", row))
        following = rows[rows.index(row) + 1] if row is not rows[-1] else ""
        cells = now if re.fullmatch(r"[|-]+", following) else cells
        assert now == cells, row


def test_flags_stand_at_the_top_and_at_the_figures(written):
    card = written(simulated=True, seen=2)
    top = card.split("## Title")[0]
    assert top.index("TRANSDUCTIVE") < top.index("SIMULATED") < top.index("Generated")
    assert "SIMULATED DATA" in items_of(card)["23a"].splitlines()[0]
    assert "SIMULATED" not in written() and "TRANSDUCTIVE" not in written()


def test_hostile_text_is_only_text(written):
    bad = "<script>alert(1)</script> | [x](javascript:alert(2)) `code` {{ 7*7 }}"

    def change(report: dict[str, Any]) -> None:
        report["dataset"]["label"] = report["absent"][0]["why"] = bad

    card = written(change, sheet={"p01": {"sex": bad}})
    assert "<script" not in card and "[x](" not in card and "{{ 7" in card
    assert card.count("&lt;script&gt;") >= 3 and "\\| \\[x\\]" in card
    assert list(items_of(card)) == ITEMS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mamba2_eeg_d256", "mamba2_eeg_d256"),
        ("_so_", "\\_so\\_"),
        ("a\n# b", "a \\# b"),
        (", ", ", "),
        ("a|b", "a\\|b"),
        ("<&>", "&lt;&amp;&gt;"),
        (0.5, "0.5"),
    ],
)
def test_escaping(text, expected):
    assert escaped(text) == expected


def test_a_value_that_is_not_there_is_a_defect_and_no_word():
    with pytest.raises(ValueError, match="no value"):
        escaped(None)


def other_model(report: dict[str, Any]) -> None:
    report["model"] = report["candidates"][0]["name"] = "mamba2_eeg_d64_l2_m20_mae"


def other_data(report: dict[str, Any]) -> None:
    report["dataset"]["content_sha256"] = "0" * 64


def other_person(report: dict[str, Any]) -> None:
    for each in report["candidates"]:
        each["predictions"][0]["participant"] = "stranger"


def other_label(report: dict[str, Any]) -> None:
    for each in report["candidates"]:
        first = each["predictions"]
        one = next(row for row in first if row["label"] == 1)
        zero = next(row for row in first if row["label"] == 0)
        one["label"], zero["label"] = 0, 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (other_model, "give the backbone that was evaluated"),
        (other_data, "content_sha256"),
        (other_person, "stranger"),
        (other_label, "another label"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(written, change, says):
    with pytest.raises(RemitError, match=says) as error:
        written(change)
    assert "\n" not in str(error.value)


def test_a_label_that_has_changed_in_the_sheet_is_refused(written):
    with pytest.raises(RemitError, match="p01 has another label"):
        written(sheet={"p01": {"remission": "0"}})
