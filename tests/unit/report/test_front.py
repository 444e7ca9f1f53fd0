"""The first screen of Snakemake's report says what is there, what forbids believing it, and what is not."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from docutils.core import publish_parts

from remit import naming
from remit.dataset.windows import METADATA_KEY
from remit.planning import Plan, asks_for_report, models_of
from remit.report import front
from remit.report.front import FrontPage, front_page
from tests.conftest import ROOT
from tests.unit.report.conftest import MODEL

LENGTH = "recording length and quality only"
PLACE = "place in the cohort sheet only"
DATASET = "8s_af7-af8"


def put(kind: str, content: Any, model: str = MODEL) -> None:
    file = Path(naming.path(kind, model=model))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))


def rendered(text: str, *categories: str) -> str:
    """As Snakemake does it: jinja2, then docutils."""
    template = (ROOT / "workflow/report/workflow.rst").read_text()
    names = [{"name": name} for name in categories]

    filled = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(template)
    source = filled.render(
        snakemake=SimpleNamespace(config={"front_page": text}), categories=names, files=[]
    )
    body: str = publish_parts(source, writer_name="html")["html_body"]
    assert "system-message" not in body, body
    return body


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_with_nothing_there_it_says_what_was_not_made():
    page = rendered(front_page([MODEL], "made", DATASET))
    assert "No evaluation was asked for" in page and "No model was fine-tuned" in page
    assert "was not diagnosed" in page and "<p style" not in page
    assert "No warning was raised" not in page
    assert f"snakemake results/evaluation/{MODEL}/report.html" in page


def test_what_forbids_believing_comes_before_the_figure(make_report):
    report = make_report(simulated=True, seen=3, reaching=(LENGTH,), n1=20, n0=26)
    put("evaluation", report)
    page = rendered(front_page([MODEL], "made", DATASET), "Evaluation", "Model", "Backbone")
    places = [page.index(text) for text in ("NOT EEG ALONE", "TRANSDUCTIVE", "SIMULATED")]
    known = page.index("What is known")
    assert places == sorted(places) and max(places) < known < page.index("The AUC and its interval")
    assert page.count('<p style="border') == 3
    assert "n=46 participants, 20 in class 1" in page
    assert "In this report" not in page and "As a clinician" in page


def test_without_a_reason_nothing_is_boxed_and_missing_categories_are_said(make_report):
    put("evaluation", make_report())
    page = rendered(front_page([MODEL], "made", DATASET), "Evaluation")
    assert "<p style" not in page and "No warning was raised" in page
    assert "In this report" in page and "no picture of the backbone" in page


def test_a_result_that_cannot_be_read_is_said_and_stops_nothing():
    put("evaluation", "{")
    page = rendered(front_page([MODEL], "made", DATASET))
    assert "CANNOT BE READ: results/evaluation" in page


def test_hostile_text_is_only_text(make_report):
    report = make_report(simulated=True)
    report["headline"].append("<script>alert(1)</script> *a* `b`_ |c| _d_ .. raw:: html {{ 7*7 }}")
    put("evaluation", report)
    page = rendered(front_page([MODEL], "mi_ne", DATASET), "Evaluation")
    assert "<script" not in page and "&lt;script&gt;alert(1)" in page
    assert "*a* `b`_ |c| _d_ .. raw:: html {{ 7*7 }}" in page


def test_it_is_made_when_it_is_asked_for(make_report):
    """After the jobs of --report-after-run."""
    page = FrontPage([MODEL], "made", DATASET)
    assert "No evaluation" in str(page)
    put("evaluation", make_report())
    assert "No evaluation" not in str(page)


def test_each_line_that_forbids_believing_is_in_its_box(make_report):
    """Two nuisances have two lines: what comes after them must not slip among what is known."""
    put("evaluation", make_report(simulated=True, seen=3, reaching=(LENGTH, PLACE)))
    page = rendered(front_page([MODEL], "made", DATASET), "Evaluation")
    assert page.count('<p style="border') == 4 and page.count("NOT EEG ALONE") == 2
    assert page.index("SIMULATED data") < page.index("What is known")


def put_primary(*, simulated: bool) -> Path:
    file = Path(naming.path("primary", dataset=DATASET))
    file.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([], metadata={METADATA_KEY: json.dumps({"simulated": simulated})})
    pq.write_table(schema.empty_table(), file)
    return file


def test_simulated_data_are_said_where_there_is_no_model(tmp_path):
    for simulated, boxes in ((True, 1), (False, 0)):
        file = put_primary(simulated=simulated)
        page = rendered(front_page([MODEL], "made", DATASET), "Cohort")
        assert page.count("SIMULATED data") == page.count("<p style") == boxes
    file.write_bytes(b"nothing")
    assert "CANNOT BE READ: results/primary" in front_page([MODEL], "made", DATASET)


def test_what_is_left_of_another_cohort_does_not_pass_for_this_one(make_report):
    put("evaluation", make_report())
    page = rendered(front_page([MODEL], "clinic", DATASET), "Evaluation")
    assert "OF ANOTHER COHORT: the evaluation that lies here is of 'made'" in html.unescape(page)


@pytest.mark.parametrize("content", [{"kind": "finetuned"}, [], {"metrics": {"test": 1}}])
def test_a_card_that_lacks_what_is_said_stops_nothing(content):
    whole = {"kind": "finetuned", "metrics": {}, "data": {"split_sha256": ""}}
    whole |= {"pretrained": {"backbone_sha256": ""}}
    put("finetuned_card", whole | content if isinstance(content, dict) else content)
    page = rendered(front_page([MODEL], "made", DATASET), "Model")
    assert "CANNOT BE READ: results/finetuned" in page


OTHERS = ["mamba2_eeg_d64_l1_m30_mae", "mamba2_eeg_d64_l1_m30_bert", "mamba2_eeg_d64_l1_m50_bert"]


def test_of_several_models_each_has_a_line_and_each_reason_a_box(make_report, monkeypatch):
    """What holds for all is said without names, what holds for some with theirs."""
    put("evaluation", make_report(model=MODEL, simulated=True, reaching=(LENGTH,)))
    put("evaluation", make_report(model=OTHERS[0], simulated=True, seen=3), OTHERS[0])
    put("evaluation", "{", OTHERS[1])
    monkeypatch.setattr(front, "read_diagnostics", lambda file: json.loads(file.read_text()))
    checks = [{"name": "Alpha held", "status": "fail", "found": "0", "expected": "1"}]
    facts = {"model": MODEL, "n": 5, "simulated": True, "checks": checks}
    put("diagnostics", facts)
    page = html.unescape(rendered(front_page([MODEL, *OTHERS], "made", DATASET), "Sweep"))
    assert "4 models: cohort made" in page
    boxes = re.findall(r'<p style="border[^>]*>(.*?)</p>', page)
    assert [box for box in boxes if "SIMULATED" in box] == [
        f"2 of 4 models ({MODEL}, {OTHERS[0]}): SIMULATED data: this says nothing about people."
    ]
    assert [box.split(": ")[0] for box in boxes if "NOT EEG ALONE" in box] == [
        f"1 of 4 models ({MODEL})"
    ]
    assert [box.split(": ")[0] for box in boxes if "TRANSDUCTIVE" in box] == [
        f"1 of 4 models ({OTHERS[0]})"
    ]
    assert any("THE BACKBONE FAILS: Alpha held" in box for box in boxes)
    assert any(
        f"results/evaluation/{OTHERS[1]}" in box and "CANNOT BE READ" in box for box in boxes
    )
    own = dict(re.findall(r"<li>.*?<strong>(.*?)</strong>: (.*?)</", page, re.S))
    assert list(own) == [MODEL, OTHERS[0]]
    assert "AUC 0." in own[MODEL] and "n=21" in own[MODEL] and "1 fail" in own[MODEL]
    assert own[MODEL].endswith("NOT EEG ALONE; SIMULATED; THE BACKBONE FAILS")
    assert own[OTHERS[0]].endswith("TRANSDUCTIVE; SIMULATED")
    assert f"1 of 4 models ({OTHERS[2]}): No evaluation was asked for" in page
    assert "results/evaluation/<model>/report.html" in page
    assert "All 4 models: No model was fine-tuned" in page


def test_simulated_data_are_said_in_words_whatever_was_made_of_each_model(make_report, monkeypatch):
    """A card says it otherwise than an evaluation: a page that says more is not enough of this."""
    put_primary(simulated=True)
    put("evaluation", make_report(model=MODEL, simulated=True))
    put("finetuned_card", "{}", OTHERS[0])
    card = {"data": {"cohort": "made"}, "metrics": {"test": {"n": 9, "n_positive": 4, "auc": None}}}
    monkeypatch.setattr(front, "read_card", lambda _: card)
    monkeypatch.setattr(front, "show_figure", str)
    monkeypatch.setattr(front, "warnings_of", lambda _: ["SIMULATED DATA. Made by a program."])
    page = html.unescape(rendered(front_page([MODEL, OTHERS[0]], "made", DATASET), "Sweep"))
    (box,) = re.findall(r'<p style="border[^>]*>(.*?)</p>', page)
    assert box == "All 2 models: SIMULATED data: this says nothing about people."


def test_reasons_in_many_words_are_one_box_for_a_sweep(make_report):
    models = [f"mamba2_eeg_d64_l1_m{percent}_mae" for percent in range(20, 90, 5)]
    for number, model in enumerate(models):
        report = make_report(model=model, reaching=((LENGTH,), (PLACE,), ())[number % 3])
        put("evaluation", report, model)
    page = html.unescape(rendered(front_page(models, "made", DATASET), "Sweep"))
    (box,) = re.findall(r'<p style="border[^>]*>(.*?)</p>', page)
    assert box.startswith("10 of 14 models") and "and 7 more): NOT EEG ALONE: each" in box
    assert page.count("by cross-validation") == 14


def test_the_models_are_those_that_the_targets_name():
    plan = Plan(yaml.safe_load((ROOT / "config/config.yaml").read_text()))
    default, sweep = str(plan.default_model), plan.sweep_models()
    assert len(sweep) > 1
    other = OTHERS[0]
    page = naming.path("evaluation_page", model=other)
    for arguments, models in {
        (): [default],
        ("--report", "a.html"): [default],
        ("all", "evaluation", "--report", "a.html"): [default],
        ("sweep", "--report", "a.html"): sweep,
        (naming.path("comparison_page"), "--report", "a.html"): sweep,
        (naming.path("evaluation_table"),): sweep,
        (page, page, "--report", "a.html"): [other],
        (f"./{page}", naming.path("history", model=default)): [other, default],
        ("all", "sweep"): [default, *(model for model in sweep if model != default)],
        (naming.path("split", dataset=plan.dataset),): [default],
    }.items():
        assert models_of(plan, arguments) == models, arguments


def test_a_report_is_asked_for():
    assert asks_for_report(["all", "--report", "a.html"]) and asks_for_report(["--report=a.html"])
    assert not asks_for_report(["all", "--report-after-run"])
