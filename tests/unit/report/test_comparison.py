"""The table of a sweep: typed, in order of name, honest about what sorting costs; and its picture."""

import csv
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb
from PIL import Image

from remit import naming, provenance
from remit.config import Execution
from remit.errors import RemitError
from remit.naming import ModelName
from remit.report import comparison
from remit.report.drawing import png
from remit.tracking import Tracker
from remit.tracking import tracker as sending
from tests.unit.report.conftest import said_above

OFF = Execution(mlflow=False)
NAMES = [ModelName(64, 2, percent, style) for style in ("mae", "bert") for percent in (100, 20, 40)]


def figure(value, low, high):
    return {"value": value, "low": low, "high": high}


def card(name, **changes):
    """What fine-tuning writes beside a model, as far as a comparison reads it."""
    number = name.mask_percent / 1000
    of_part = {
        "auc": figure(0.5 + number, 0.2, 0.9),
        "accuracy": figure(0.6, 0.3, 0.8),
        "f1": figure(None, None, None),
    }
    made = {
        "kind": "finetuned",
        "name": name.finetuned,
        "best_epoch": 3,
        "settings": {"finetuning": {"epochs": 4}},
        "data": {
            "simulated": True,
            "dataset": "8s_af7-af8",
            "cohort": "simulated",
            "content_sha256": "c" * 64,
            "split_sha256": "5" * 64,
        },
        "pretrained": {
            "backbone_sha256": "b" * 64,
            "fingerprint": f"{name.mask_percent}{name.masking_style}",
            "settings": {"pretraining": {"epochs": 2}},
            "data": {"transductive": False, "simulated": True},
            "best_epoch": 1,
            "history": [
                {"held_out_waveform_explained": 0.123456789, "held_out_spectrum_explained": -0.1}
            ],
        },
        "metrics": {
            "val": {"n": 21, **of_part},
            "test": {"n": 7, **of_part, "auc": figure(1 - number, 0.1, 1.0)},
        },
    }
    for path, value in changes.items():
        at = made
        *parents, last = path.split("__")
        for key in parents:
            at = at[key]
        at[last] = value
    return made


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Write cards and their comparison as the rule has it; returns its files by kind."""
    monkeypatch.chdir(tmp_path)

    def write(cards=None, pages=(), execution=OFF, runs=None):
        files = []
        for each in cards if cards is not None else [card(name) for name in NAMES]:
            files.append(Path("results/finetuned") / f"{each['name']}_best.json")
            files[-1].parent.mkdir(parents=True, exist_ok=True)
            files[-1].write_text(json.dumps(each))
            if runs:
                provenance.write([files[-1]], {}, stage="finetune", settings={}, mlflow=runs)
        kinds = ("comparison", "comparison_parquet", "comparison_page", "comparison_picture")
        out = {kind: Path(naming.path(kind)) for kind in kinds}
        comparison.write_comparison(
            cards=files,
            pages=[Path(naming.path("model_report", model=str(name))) for name in pages],
            table=out["comparison"],
            parquet=out["comparison_parquet"],
            page=out["comparison_page"],
            picture=out["comparison_picture"],
            label="simulated remission",
            execution=execution,
            log=print,
        )
        return out

    return write


def rows_in(page):
    """The text of every cell of the page's table."""
    body = re.search(r"<tbody>(.*?)</tbody>", page, re.S)[1]
    return [
        [re.sub(r"<[^>]*>", "", cell).strip() for cell in re.findall(r"<td.*?</td>", row, re.S)]
        for row in re.findall(r"<tr>(.*?)</tr>", body, re.S)
    ]


def test_the_table_has_types_and_the_order_of_names(written):
    out = written()
    found = pq.read_table(out["comparison_parquet"])
    assert found.schema.equals(comparison.SCHEMA)
    assert found.schema.metadata[b"split_sha256"] == b"5" * 64
    rows = found.to_pylist()
    assert [(row["masking_style"], row["mask_percent"]) for row in rows] == [
        (style, percent) for style in ("bert", "mae") for percent in (20, 40, 100)
    ]
    assert rows[0]["waveform_explained"] == 0.123456789 and rows[0]["val_f1"] is None
    with out["comparison"].open(newline="") as lines:
        text = list(csv.DictReader(lines, delimiter="\t"))
    assert list(text[0]) == comparison.SCHEMA.names
    for row, same in zip(rows, text, strict=True):
        assert {key: comparison._as_text(value) for key, value in row.items()} == same
    assert text[0]["simulated"] == "true" and text[0]["val_auc"] == "0.5200"
    page = rows_in(out["comparison_page"].read_text())
    assert [cells[0] for cells in page] == [row["model"] for row in rows]
    assert "0.52 [0.20, 0.90]" in page[0] and "undefined (one class only)" in page[0]


def test_the_page_links_to_the_pages_it_was_given_and_needs_no_network(written):
    out = written(pages=NAMES[:2], runs={"run_id": "ab" * 16, "journal": "j"})
    page = out["comparison_page"].read_text()
    links = re.findall(r'href="([^"]*)"', page)
    there = {
        Path(os.path.normpath(out["comparison_page"].parent / link)).as_posix() for link in links
    }
    assert there == {naming.path("model_report", model=str(name)) for name in NAMES[:2]}
    assert "SIMULATED" in page and "validation AUC (n=21)" in page
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page)
    assert {row["mlflow_run"] for row in pq.read_table(out["comparison_parquet"]).to_pylist()} == {
        "ab" * 16
    }
    assert "mlflow ui --host 127.0.0.1 --backend-store-uri sqlite:///results/mlflow.db" in page


def test_runs_on_a_server_are_linked_to_and_its_password_is_not_told(written, monkeypatch):
    monkeypatch.setattr(comparison, "_track", lambda *_: None)
    for uri, link in (
        ("http://me:secret@127.0.0.1:5000/", f"http://127.0.0.1:5000/#/runs/{'ab' * 16}"),
        ("postgresql://me:secret@host/db", None),
        ("javascript://alert(1)", None),
        ("http://me:5/secret@host", None),
        ("http://[secret", None),
    ):
        out = written(execution=Execution(mlflow_uri=uri), runs={"run_id": "ab" * 16})
        page = out["comparison_page"].read_text()
        assert "secret" not in page and "javascript:" not in page
        assert (link in page) if link else ("href=" not in page), uri


def test_nothing_of_a_card_or_a_record_becomes_a_part_of_the_page(written):
    hostile = "<script>alert(1)</script>"
    cards = [card(name, data__dataset=hostile) for name in NAMES]
    page = written(cards, runs={"run_id": hostile})["comparison_page"].read_text()
    assert hostile not in page and "&lt;script&gt;alert(1)" in page


def test_models_of_other_data_are_refused(written):
    cards = [card(name) for name in NAMES[:2]]
    cards[1]["data"]["split_sha256"] = "6" * 64
    with pytest.raises(RemitError, match=r"split_sha256 is 666666666666; expected 555555555555"):
        written(cards)


CLICKS = """<script>
const shown = name => document.title += "|" + name + " " + [...document.querySelectorAll("tbody tr")]
  .map(row => row.cells[0].textContent.replace(/.*_(m\\d+_\\w+)_finetuned/, "$1")).join(" ")
  + " " + [...document.querySelectorAll("th")].map(th => th.getAttribute("aria-sort") || "").join("")
  + " " + (document.getElementById("spent").hidden ? "" : "SPENT");
const buttons = [...document.querySelectorAll("th button")];
const press = text => buttons.find(b => b.textContent.startsWith(text)).click();
shown("first");
for (const [name, text] of [["mask", "masked"], ["val", "validation AUC"], ["test", "test AUC"],
  ["back", "model"], ["undefined", "validation F1"]]) { press(text); shown(name); }
press("masked"); press("masked"); shown("down");
const held = document.querySelector(".wide"), box = held.getBoundingClientRect();
held.scrollLeft = 1e6;
document.title += ["|wide", box.width > document.body.clientWidth, box.left >= 0 && box.right <= innerWidth,
  held.scrollLeft > 0, document.querySelector("td").getBoundingClientRect().left >= box.left].join(" ");
</script></body>"""


def test_a_browser_sorts_the_table_and_says_what_a_test_figure_costs(written, tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("there is no chromium; it would sort the table")
    page = written()["comparison_page"].read_text().replace("</body>", CLICKS)
    (tmp_path / "clicked.html").write_text(page)
    flags = (
        "--window-size=1600,1000",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
    )
    done = subprocess.run(
        [browser, *flags, f"--user-data-dir={tmp_path}/chrome", "--dump-dom", "clicked.html"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    _, *states = re.search(r"<title>(.*?)</title>", done.stdout)[1].split("|")
    found = {state.split()[0]: state.split()[1:] for state in states}
    by_name = ["m20_bert", "m40_bert", "m100_bert", "m20_mae", "m40_mae", "m100_mae"]
    by_ratio = [f"m{percent}_{style}" for percent in (20, 40, 100) for style in ("bert", "mae")]
    assert found["first"] == [*by_name, "ascending"]
    assert found["mask"] == [*by_ratio, "ascending"] == found["val"]
    falling = [f"m{percent}_{style}" for percent in (100, 40, 20) for style in ("bert", "mae")]
    assert found["test"] == [*falling, "ascending", "SPENT"]
    assert found["back"] == [*by_name, "ascending"]
    assert found["undefined"] == [*by_name, "ascending"]
    assert found["down"] == [*falling, "descending"]
    assert (
        found["wide"] == ["true"] * 4
    )  # on the screen, and the model beside its figures when scrolled


# The picture ---------------------------------------------------------------------------------


def drawn(cells, **changes):
    """What a picture of these cells holds: patches by model, and its texts by place."""
    given = {"figure_of_merit": "AUC", "of": "somebody", **changes}
    made = comparison.draw_grid(cells, **given)
    *panels, bar = made.axes
    patches = {p.get_gid(): p for axis in panels for p in axis.patches}
    texts = {
        (axis.get_title(), *text.get_position()): text.get_text()
        for axis in panels
        for text in axis.texts
    }
    words = said_above(made), [label.get_text() for label in bar.get_yticklabels()]
    picture = png(made)
    plt.close("all")
    return patches, texts, words, picture


def test_every_cell_says_its_figure_its_interval_and_its_n(tmp_path):
    cells = {
        ModelName(64, 2, 20, "mae"): {**figure(0.91, 0.8, 0.97), "n": 21},
        ModelName(64, 2, 80, "bert"): {**figure(0.12, 0.01, 0.4), "n": 21},
        ModelName(128, 1, 20, "bert"): {**figure(None, None, None), "n": 9},
    }
    patches, texts, (title, ticks), picture = drawn(cells, flags=["SIMULATED DATA"])
    assert len(patches) == len(texts) == 2 * 2 * 2  # sizes, styles, ratios
    assert texts["d_model 64, 2 layers", 0, 0] == "0.91\n[0.80, 0.97]\nn=21"
    assert texts["d_model 64, 2 layers", 1, 1] == "0.12\n[0.01, 0.40]\nn=21"
    assert texts["d_model 128, 1 layer", 0, 1] == "undefined\n(one class)\nn=9"
    assert list(texts.values()).count("no such model") == 5
    for name, patch in patches.items():
        known = {f"cell-{each}" for each, found in cells.items() if found["value"] is not None}
        assert (patch.get_hatch() is None) == (name in known)
    assert "SIMULATED DATA" in title and "0.5: chance" in ticks
    # Whoever sees no colour, or prints in grey, sees the higher figure lighter.
    high, low = (
        np.dot(patches[f"cell-{name}"].get_facecolor()[:3], (0.3, 0.59, 0.11))
        for name in list(cells)[:2]
    )
    assert high > low + 0.3
    (tmp_path / "a.png").write_bytes(picture)
    grey = np.asarray(Image.open(tmp_path / "a.png").convert("L"))
    assert grey.std() > 20  # not an empty canvas
    assert drawn(cells, flags=["SIMULATED DATA"])[3] == picture


def test_every_text_can_be_read_on_its_cell():
    """At least 4.5 to 1, as WCAG 2 asks for, for every figure there can be."""
    cells = {
        ModelName(8, 1, percent, "mae"): {**figure(percent / 100, 0.0, 1.0), "n": 21}
        for percent in range(5, 101)
    }
    made = comparison.draw_grid(cells, figure_of_merit="AUC", of="somebody")

    def light(colour):
        parts = np.asarray(to_rgb(colour))
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return linear @ (0.2126, 0.7152, 0.0722) + 0.05

    axis = made.axes[0]
    for patch, text in zip(axis.patches, axis.texts, strict=True):
        pair = sorted((light(patch.get_facecolor()[:3]), light(text.get_color())))
        assert pair[1] / pair[0] >= 4.5, text.get_text()
    plt.close("all")


def test_a_picture_of_nothing_is_refused():
    with pytest.raises(RemitError, match="found no model"):
        comparison.draw_grid({}, figure_of_merit="AUC", of="nobody")


def test_the_picture_is_in_the_page_and_says_what_is_wrong(written):
    cards = [card(name, pretrained__data__transductive=True) for name in NAMES]
    out = written(cards)
    assert out["comparison_picture"].stat().st_size > 10_000
    assert comparison._flags(True, True) == [
        "TRANSDUCTIVE: pretraining has seen these people",
        "SIMULATED DATA",
    ]
    assert "TRANSDUCTIVE" in out["comparison_page"].read_text()
    page = written(cards[:1] + [card(name) for name in NAMES[1:]])["comparison_page"].read_text()
    assert "1 of 6 models: TRANSDUCTIVE" in page and "models: SIMULATED" not in page


def test_the_grid_of_evaluations_takes_the_models_own_auc(make_report, tmp_path, monkeypatch):
    length = ("recording length and quality only",)
    reports = [
        make_report(model=str(ModelName(64, 2, percent, "mae")), reaching=reaching)
        for percent, reaching in ((20, ()), (40, length))
    ]
    seen, said = {}, {}
    monkeypatch.setattr(
        comparison,
        "draw_grid",
        lambda cells, **words: seen.update(cells) or said.update(words) or plt.figure(),
    )
    comparison.draw_evaluations(reports, tmp_path / "grid.png")
    assert said["flags"] == ["REACHED WITHOUT EEG: 1 of 2 models"]
    assert "best of 2" in said["of"]
    for report, (name, cell) in zip(reports, seen.items(), strict=True):
        (own,) = [each for each in report["candidates"] if each["kind"] == "model"]
        assert str(name) == report["model"] and cell["value"] == own["figures"]["auc"]["value"]
        assert cell["n"] == own["figures"]["n"]


# MLflow --------------------------------------------------------------------------------------


def test_a_sweep_has_one_run_with_its_models_below_it(tmp_path, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sending, "_LAST_WORDS", 300.0)  # a database takes its time to be made
    here, below, page = Execution(), set(), tmp_path / "comparison.html"
    page.write_text("page")
    for name in NAMES[:2]:
        fingerprint = {"remit.checkpoint_sha256": card(name)["pretrained"]["fingerprint"]}
        run = Tracker(here, str(name), fingerprint, print)
        run.finish()
        below.add(run.run_id)
    tuned = Tracker(here, NAMES[0].finetuned, {}, print)
    tuned.finish()
    journals = [tuned.journal_id, None]  # the other was made without MLflow
    for number in (1, 2, 2):  # one more model, and the page again
        comparison._track(
            here, [card(name) for name in NAMES[:number]], journals[:number], [page], print
        )
    client = MlflowClient(f"sqlite:///{tmp_path / 'results/mlflow.db'}")
    experiment = client.get_experiment_by_name("remit")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if run.data.tags.get("remit.stage") == "sweep"]
    assert len(runs) == 4 and {
        run.info.run_id
        for run in runs
        if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id
    } == below | {tuned.run_id}
    assert parent.data.tags["remit.models"] == "2"
    assert parent.data.tags["remit.mask_percents"] == "20, 100"
    assert parent.data.params["pretraining.pretraining.epochs"] == "2"
    assert parent.info.run_name == "sweep_d64_l2" and parent.info.status == "FINISHED"
    assert [each.path for each in client.list_artifacts(parent.info.run_id)] == [page.name]
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    others = [card(name, settings={"finetuning": {"epochs": 5}}) for name in NAMES[:2]]
    comparison._track(here, others, journals, [page], print)
    found = client.search_runs([experiment.experiment_id], "tags.`remit.stage` = 'sweep'")
    assert len(found) == 2  # trained in another way
