"""The page and the table of an evaluation say what the report holds, no more, and its flags first."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

from remit.errors import RemitError
from remit.report import evaluation as module
from remit.report.evaluation import (
    PICTURES,
    flags_of,
    model_of,
    read_evaluation,
    write_page,
    write_table,
)
from tests.unit.report.conftest import MODEL, said_above

mpl.use("Agg")
Make = Callable[..., Any]
LENGTH = "recording length and quality only"
HOSTILE = "<script>alert('x')</script> $\\frac{$ \"'& {{ 7*7 }}"


def page_of(report: dict[str, Any], save: Make, tmp_path: Path) -> str:
    write_page(report=save(report), page=tmp_path / "report.html", pictures={})
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def text_of(page: str) -> str:
    """What a reader sees, pictures aside."""
    body = re.sub(r"<(style|head).*?</\1>|<pre>.*?</pre>", " ", page, flags=re.DOTALL)
    return html.unescape(re.sub(r"<[^>]*>", " ", body))


def numbers_in(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        for key, its in value.items():
            yield from numbers_in(its)
            if re.fullmatch(r"0\.\d+", key):
                yield float(key)
    elif isinstance(value, list):
        for its in value:
            yield from numbers_in(its)
    elif isinstance(value, str):
        yield from (float(found) for found in re.findall(r"\d+\.\d+", value))
    elif isinstance(value, float | int) and not isinstance(value, bool):
        yield float(value)


@pytest.mark.parametrize("case", [{}, {"n1": 20, "n0": 26}, {"per_fold": True}])
def test_every_decimal_on_the_page_stands_in_the_report(make_report, save, tmp_path, case):
    report = make_report(**case)
    held = np.array(sorted(set(numbers_in(report))))
    found = re.findall(r"(?<![\w.])-?\d+\.\d+(?![\w.])", text_of(page_of(report, save, tmp_path)))
    assert len(found) > 100
    for number in set(found) - {"0.5"}:  # the threshold and chance, in the page's own words
        half = 0.5 * 10.0 ** -len(number.split(".")[1]) * (1 + 1e-9)
        assert np.abs(held - float(number)).min() <= half, number


def test_the_main_figures_are_shown_with_their_intervals(make_report, save, tmp_path):
    report = make_report()
    text = text_of(page_of(report, save, tmp_path))
    for each in report["candidates"]:
        auc = each["figures"]["auc"]
        line = f"{auc['value']:.2f} [{auc['low']:.2f}, {auc['high']:.2f}]"
        assert re.search(re.escape(each["name"]) + r"\s.*?" + re.escape(line), text, re.DOTALL)
    for line in [each["why"] for each in report["absent"]] + report["headline"]:
        assert line in text
    assert report["candidates"][0]["leave_one_out"]["note"] in text


def test_what_forbids_belief_comes_first_and_on_every_picture(make_report, save, tmp_path):
    report = make_report(simulated=True, seen=3, reaching=(LENGTH,), n1=20, n0=26)
    page = page_of(report, save, tmp_path)
    first = re.search(r"<body>\s*<h1>(.*?)</h1>", page, re.DOTALL)
    assert first and first[1] == report["headline"][0] and LENGTH in first[1]
    flags = flags_of(report)
    assert [flag.split()[0].strip(":") for flag in flags] == [
        "REACHED",
        "TRANSDUCTIVE",
        "SIMULATED",
    ]
    assert "3 of 46" in flags[1]
    for draw, _ in PICTURES.values():
        figure = draw(report)
        assert all(flag in said_above(figure) for flag in flags)
        assert all("n=46" in axis.get_title() for axis in figure.axes)
        mpl.pyplot.close(figure)
    shown = re.findall(r'<img [^>]*alt="([^"]*)"', page)
    assert len(shown) == len(PICTURES) and all("SIMULATED DATA" in alt for alt in shown)


@pytest.mark.parametrize("per_fold", [True, False])
def test_a_backbone_without_a_figure_of_its_own_is_said(make_report, save, tmp_path, per_fold):
    text = text_of(page_of(make_report(per_fold=per_fold), save, tmp_path))
    assert ("the figures are of the backbones of the folds" in " ".join(text.split())) is per_fold


def test_without_reason_nothing_is_flagged(make_report, save, tmp_path):
    report = make_report()
    page = page_of(report, save, tmp_path)
    assert flags_of(report) == [] and 'class="warning"' not in page
    assert "SIMULATED" not in page and "TRANSDUCTIVE" not in page and "REACHED" not in page


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ([], "Before this analysis no other had"),
        (["a"], "Before this analysis 1 other (of a) had"),
        (["a", "b"], "Before this analysis 2 others (of a, b) had"),
    ],
)
def test_what_had_read_the_labels_before_is_said(make_report, save, tmp_path, before, said):
    report = make_report()
    report["test_reads"] = {"analyses_before": len(before), "models_before": before}
    text = " ".join(text_of(page_of(report, save, tmp_path)).split())
    assert said in text.replace(" ( ", " (") and "best of many is too good" in text


def test_intervals_of_what_has_no_permutations_are_said_to_be_too_narrow(
    make_report, save, tmp_path
):
    report = make_report()
    assert "without permutations" not in page_of(report, save, tmp_path)
    last = report["candidates"][-1]
    last["permutation"] = {"p": None, "permutations": 0, "null_mean": None, "null_95": None}
    text = " ".join(text_of(page_of(report, save, tmp_path)).split())
    said = f"too narrow. {last['name']}: without permutations all intervals of a difference are too"
    assert said in text


@pytest.mark.parametrize("key", PICTURES)
def test_pictures_show_what_they_are_of(make_report, key):
    report = make_report(n1=20, n0=26)
    figure = PICTURES[key][0](report)
    own = model_of(report)
    expected = {
        "candidates": [[each["figures"]["auc"]["value"] for each in report["candidates"]]],
        "differences": [
            [each[what]["value"] for each in report["comparisons"]] for what in module.COMPARED
        ],
        "subgroups": [
            [
                row["auc"]["value"]
                for rows in own["subgroups"].values()
                for row in rows
                if row["auc"]["value"] is not None
            ]
        ],
    }
    if key in expected:
        drawn = [
            [
                line.get_xdata()[0]
                for line in axis.lines
                if (line.get_gid() or "").startswith("figure")
            ]
            for axis in figure.axes
        ]
        assert drawn == expected[key] and all(drawn)
    elif key == "participants":
        for label in (0, 1):
            (line,) = [line for line in figure.axes[0].lines if line.get_gid() == f"class {label}"]
            its = sorted(r["probability"] for r in own["predictions"] if r["label"] == label)
            assert sorted(line.get_xdata()) == its
    elif key == "roc":
        (line,) = [line for line in figure.axes[0].lines if line.get_gid() == "curve"]
        assert len(line.get_xdata()) > 2
    else:
        (line,) = [line for line in figure.axes[0].lines if line.get_gid() == "curve"]
        curve = own["figures"]["calibration"]["curve"]
        assert [list(pair) for pair in zip(*line.get_data(), strict=True)] == [
            [point["probability"], point["observed"]] for point in curve
        ]
    mpl.pyplot.close(figure)


def test_pictures_on_the_page_are_not_empty(make_report, save, tmp_path):
    page = page_of(make_report(n1=20, n0=26), save, tmp_path)
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(pictures) == len(PICTURES)
    for picture in pictures:
        pixels = mpl.pyplot.imread(io.BytesIO(base64.b64decode(picture)))
        assert pixels[..., :3].std() > 0.02


@pytest.mark.parametrize("key", ["subgroups", "differences", "roc"])
def test_where_there_is_nothing_to_draw_the_picture_says_why(make_report, key):
    report = make_report()
    report["comparisons"] = []
    model_of(report)["roc"] |= {"curve": [], "band": None, "method": "undefined: nobody met"}
    figure = PICTURES[key][0](report)
    (axis,) = figure.axes
    said = {"subgroups": "No group has enough", "differences": "no other", "roc": "nobody met"}[key]
    assert said in axis.texts[0].get_text() and not axis.lines and "n=21" in axis.get_title()
    mpl.pyplot.close(figure)


def test_the_roc_picture_is_the_curve_of_the_report_and_its_area_the_auc(make_report):
    report = make_report(n1=20, n0=26)
    own = model_of(report)
    figure = PICTURES["roc"][0](report)
    (axis,) = figure.axes
    (line,) = [line for line in axis.lines if line.get_gid() == "curve"]
    x, y = (np.asarray(each) for each in line.get_data())
    assert np.trapezoid(y, x) == pytest.approx(own["figures"]["auc"]["value"], abs=1e-12)
    assert [list(pair) for pair in zip(x, y, strict=True)] == own["roc"]["curve"]
    (band,) = [each for each in axis.collections if each.get_gid() == "band"]
    corners = band.get_paths()[0].vertices
    for at, low, high in own["roc"]["band"]:
        assert low <= high
        assert {low, high} <= set(corners[np.isclose(corners[:, 0], at)][:, 1])
    mpl.pyplot.close(figure)


def test_pictures_that_have_a_file_are_those_of_the_page(make_report, save, tmp_path):
    files = {key: tmp_path / f"{key}.png" for key in PICTURES}
    write_page(report=save(make_report()), page=tmp_path / "page.html", pictures=files)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    embedded = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert sorted(base64.b64encode(file.read_bytes()).decode() for file in files.values()) == (
        sorted(embedded)
    )


def test_undefined_and_open_figures_are_said(make_report, save, tmp_path):
    report = make_report()
    own = model_of(report)["figures"]
    own["calibration"]["slope"] |= {
        "value": None,
        "low": None,
        "high": None,
        "method": "undefined: so",
    }
    own["calibration"]["intercept"] |= {"value": 0.25, "low": None, "high": 1.5}
    report["candidates"][2]["figures"]["auc"] = {
        "value": None,
        "low": None,
        "high": None,
        "method": "undefined: nobody met",
    }
    text = text_of(page_of(report, save, tmp_path))
    assert (
        "undefined: so" in text and "0.25 [..., 1.50]" in text and "undefined: nobody met" in text
    )


def test_hostile_names_are_only_text(make_report, save, tmp_path):
    people = [f"{HOSTILE}{index}" for index in range(21)]
    report = make_report(people=people)
    report["dataset"]["label"] = report["absent"][0]["why"] = HOSTILE
    report["candidates"][2]["notes"] = [HOSTILE]
    page = page_of(report, save, tmp_path)
    assert "<script" not in page and "alert" in page and HOSTILE in text_of(page)


def test_the_same_report_gives_the_same_page(make_report, save, tmp_path):
    report = make_report()
    assert page_of(report, save, tmp_path) == page_of(report, save, tmp_path)


def drop(report: dict[str, Any], *path: Any) -> None:
    for step in path[:-1]:
        report = report[step]
    del report[path[-1]]


@pytest.mark.parametrize(
    "path",
    [
        ("headline",),
        ("dataset", "simulated"),
        ("pretraining", "seen"),
        ("power", "fixed"),
        ("candidates", 0, "subgroups"),
        ("candidates", 0, "leave_one_out"),
        ("candidates", 0, "roc"),
        ("candidates", 1, "figures", "auc", "low"),
        ("candidates", 2, "permutation", "p"),
        ("comparisons", 0),
        ("nuisance", 0),
        ("guards",),
    ],
)
def test_what_is_missing_is_one_line(make_report, save, path):
    report = make_report()
    drop(report, *path)
    with pytest.raises(RemitError) as error:
        read_evaluation(save(report))
    assert "\n" not in str(error.value) and "report.json" in str(error.value)


def silent(report: dict[str, Any]) -> None:
    report["headline"] = report["headline"][-1:]


def last(report: dict[str, Any]) -> None:
    report["headline"].reverse()


def another(report: dict[str, Any]) -> None:
    report["candidates"][1]["predictions"][0]["participant"] = "stranger"


def fewer(report: dict[str, Any]) -> None:
    report["candidates"][0]["predictions"].pop()


def outside(report: dict[str, Any]) -> None:
    report["candidates"][0]["figures"]["auc"]["low"] = 0.99


def crooked(report: dict[str, Any]) -> None:
    report["candidates"][0]["roc"]["curve"] = [[0.0, 0.0], [0.9, 0.0], [1.0, 1.0]]


def denied(report: dict[str, Any]) -> None:
    report["pretraining"]["transductive"] = False


@pytest.mark.parametrize("change", [silent, last, another, fewer, outside, crooked, denied])
@pytest.mark.parametrize(
    "case", [{"simulated": True, "seen": 2}, {"seen": 2, "reaching": (LENGTH,)}]
)
def test_a_report_that_contradicts_itself_is_refused(make_report, save, change, case):
    report = make_report(**case)
    read_evaluation(save(report))
    change(report)
    with pytest.raises(RemitError, match="no whole evaluation") as error:
        read_evaluation(save(report))
    assert "\n" not in str(error.value)


def test_something_else_is_refused(tmp_path):
    file = tmp_path / "report.json"
    with pytest.raises(RemitError, match="cannot be read"):
        read_evaluation(file)
    for text in ("", "[]", "{", '{"model": NaN}'):
        file.write_text(text)
        with pytest.raises(RemitError):
            read_evaluation(file)


def test_the_table_has_a_row_per_model_and_candidate(make_report, save, tmp_path):
    larger = make_report(seen=2, reaching=(LENGTH,))
    smaller = make_report(model="mamba2_eeg_d64_l2_m20_mae")
    files = [save(larger, "a.json"), save(smaller, "b.json")]
    write_table(reports=files, table=tmp_path / "table.tsv")
    rows = list(csv.DictReader((tmp_path / "table.tsv").open(), delimiter="\t"))
    names = [(row["model"], row["candidate"]) for row in rows]
    assert names == [
        (report["model"], each["name"])
        for report in (smaller, larger)
        for each in (*report["candidates"], *report["absent"])
    ]
    for row in rows:
        report = larger if row["model"] == MODEL else smaller
        assert row["transductive"] == str(report is larger).lower()
        assert row["reached_without_eeg_by"] == (LENGTH if report is larger else "")
        entry = {each["name"]: each for each in report["candidates"]}.get(row["candidate"])
        if entry is None:
            assert row["auc"] == "" and row["absent_because"] == "no such column"
            continue
        for key in ("auc", "brier"):
            for edge, suffix in (("value", ""), ("low", "_low"), ("high", "_high")):
                assert abs(float(row[key + suffix]) - entry["figures"][key][edge]) <= 5.1e-5
        difference = {each["name"]: each["auc"] for each in report["comparisons"]}.get(
            entry["name"]
        )
        for edge, suffix in (("value", ""), ("low", "_low"), ("high", "_high")):
            cell = row["auc_model_minus_this" + suffix]
            told = "" if difference is None else f"{difference[edge]:.4f}"
            assert cell == told and (cell == "") == (entry["kind"] == "model")
        assert float(row["permutation_p"]) == pytest.approx(entry["permutation"]["p"], abs=1e-6)
    reaching = [row["candidate"] for row in rows if row["reaches_the_model"] == "true"]
    assert reaching == [LENGTH]


def test_models_of_other_folds_are_not_put_into_one_table(make_report, save, tmp_path):
    one, two = (
        make_report(),
        make_report(model="mamba2_eeg_d64_l2_m20_mae", content_sha256="0" * 64),
    )
    with pytest.raises(RemitError, match="content_sha256"):
        write_table(reports=[save(one, "a.json"), save(two, "b.json")], table=tmp_path / "t.tsv")
    with pytest.raises(RemitError, match="given twice"):
        write_table(reports=[save(one, "a.json"), save(one, "c.json")], table=tmp_path / "t.tsv")
    assert not (tmp_path / "t.tsv").exists()


def test_json_of_a_report_survives(make_report, save):
    report = make_report()
    assert read_evaluation(save(report)) == json.loads(json.dumps(report))
