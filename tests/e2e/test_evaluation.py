"""An evaluation, tiny: a backbone for each fold, every baseline, one report."""

import json
import re
from importlib.util import find_spec

import pytest

from tests.conftest import snakemake
from tests.e2e.test_chain import DATASET, MODEL, SIMULATED, TINY, build, fails, write_config
from tests.unit.test_provenance import check_every_result

pytestmark = pytest.mark.e2e

REPORT = f"results/evaluation/{MODEL}/report.json"
EVALUATION = {"folds": 2, "repeats": 1, "inner_folds": 2, "permutations": 19, "resamples": 100}
ONE_EPOCH = TINY["pretraining"] | {"epochs": 1}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    config = write_config(folder, pretraining=ONE_EPOCH, evaluation=EVALUATION)
    output = build(folder, REPORT, config=config)
    return folder, config, output, json.loads((folder / REPORT).read_text())


def test_each_fold_has_a_backbone_that_saw_none_of_its_test_people(evaluated):
    folder, config, output, report = evaluated
    folds = json.loads((folder / f"results/folds/{DATASET}_folds.json").read_text())
    for fold in range(2):
        card = f"results/pretrained/folds/r1f{fold + 1}/{MODEL}.json"
        seen = json.loads((folder / card).read_text())["data"]["participants_seen"]
        seen = {name.split("/")[-1] for part in seen.values() for name in part}
        tested = {name for name, own in folds["participants"].items() if own == [fold]}
        assert len(tested) == 5 and seen and not seen & tested
    assert report["pretraining"] == {"mode": "per_fold", "transductive": False, "seen": []}
    assert "the test part" in output and "it was read 0 times before" in output
    assert len((folder / "results/test_reads.tsv").read_text().splitlines()) == 2
    assert "Nothing to be done" in build(folder, REPORT, config=config)


def test_every_result_says_what_made_it(evaluated):
    folder, config, _, _ = evaluated
    build(folder, f"results/evaluation/{MODEL}/report.html", config=config)
    kinds = {"folds", "fold_split", "pretrained_fold", "embeddings_fold", "embeddings_random"}
    check_every_result(folder, kinds | {"features", "evaluation", "evaluation_page"})


def test_snakemakes_report_holds_everything_with_words_and_needs_no_network(evaluated):
    folder, config, _, evaluation = evaluated
    build(folder, "all", "evaluation", config=config)
    check_every_result(folder, {"checks", "reconstruction", "embeddings_picture", "evaluation_roc"})
    file = folder / "results/report.html"
    done = snakemake("all", "evaluation", "--report", file, cwd=folder, config=config)
    assert done.returncode == 0, done.stdout
    page = file.read_text(encoding="utf-8")
    assert len(page) < 15e6
    # Nothing is fetched: no address stands where a browser would load it.
    assert not re.findall(r"""<(?:script|link|img|iframe)[^>]*(?:src|href)=["']?https?:""", page)

    def held(part, name):
        written = rf'<script id="{part}">\s*var {name} = (.*?);?\s*</script>'
        return json.loads(re.search(written, page, re.DOTALL)[1])

    results, categories = held("results", "results"), held("categories", "categories")
    assert {"Backbone", "Evaluation", "Model"} <= set(categories)
    for category, parts in categories.items():
        keys = {tuple(sorted(results[path]["labels"])) for part in parts.values() for path in part}
        assert len(keys) == 1, (category, keys)
    for path, item in results.items():
        assert len(re.sub("<[^>]*>", "", item["caption"]).split()) > 8, path
        assert item["data_uri"].startswith("data:"), path
    pictures = {path.split("/")[-1] for path in results if path.startswith("results/figures/")}
    assert {"roc.png", "reconstruction.png", "embeddings.png", "checks.png"} <= pictures
    first = held("workflow-desc", "workflow_desc")
    assert first.index("SIMULATED") < first.index("What is known")
    auc = evaluation["candidates"][0]["figures"]["auc"]
    assert f"AUC {auc['value']:.2f} [{auc['low']:.2f}, {auc['high']:.2f}]" in first


def test_every_baseline_stands_beside_the_model_on_the_same_people(evaluated):
    *_, report = evaluated
    names = [each["name"] for each in report["candidates"]]
    assert names[0] == MODEL
    assert {
        "prevalence",
        "recording length and quality only",
        "order in the cohort sheet",
        "band power and asymmetry",
        "covariance in tangent space",
        "random weights",
    } <= set(names)
    people = [[p["participant"] for p in each["predictions"]] for each in report["candidates"]]
    assert all(len(own) == 10 and own == people[0] for own in people)
    for each in report["candidates"]:
        auc = each["figures"]["auc"]
        assert 0 <= auc["low"] <= auc["value"] <= auc["high"] <= 1
        assert each["permutation"]["permutations"] == 19
    assert [each["name"] for each in report["comparisons"]] == names[1:]
    assert report["candidates"][0]["leave_one_out"]["auc"] is None
    assert any("SIMULATED" in line for line in report["headline"])


def test_a_backbone_that_saw_the_test_people_is_refused_unless_the_config_says_so(
    evaluated, tmp_path
):
    config = write_config(
        tmp_path, pretraining=ONE_EPOCH, evaluation=EVALUATION | {"pretraining": "held_out"}
    )
    line = fails(tmp_path, REPORT, config=config, in_a_job=False)
    assert "evaluation.pretraining is 'held_out', but pretraining would see the cohort" in line
    config = write_config(
        tmp_path, pretraining=ONE_EPOCH, evaluation=EVALUATION | {"pretraining": "transductive"}
    )
    build(tmp_path, REPORT, config=config)
    report = json.loads((tmp_path / REPORT).read_text())
    # Three of each class train; the others choose the epoch and are held back.
    assert report["pretraining"]["transductive"] and len(report["pretraining"]["seen"]) >= 6
    assert any(line.startswith("TRANSDUCTIVE") for line in report["headline"])
    assert report["candidates"][0]["leave_one_out"]["auc"]["value"] is not None


def test_a_class_of_one_says_what_is_possible(tmp_path):
    few = {
        "simulated": {"simulate": SIMULATED["simulated"]["simulate"] | {"remission_fraction": 0.1}}
    }
    config = write_config(tmp_path, cohorts=few, evaluation=EVALUATION)
    line = fails(tmp_path, REPORT, config=config, in_a_job=False)
    assert "9 participants have label 0 and 1 have label 1" in line
    assert "'snakemake features cohort_figures' takes no labels" in line


def test_the_fine_tuned_backbone_of_each_fold_is_beside_the_model(evaluated):
    folder, *_ = evaluated
    config = write_config(
        folder,
        "tuned.yaml",
        pretraining=ONE_EPOCH,
        evaluation=EVALUATION | {"finetuned": True},
        finetuning={"epochs": 2},
    )
    output = build(folder, REPORT, config=config)
    assert "rule pretrain_fold" not in output
    report = json.loads((folder / REPORT).read_text())
    tuned = report["candidates"][-1]
    assert tuned["name"] == "fine-tuned in full" and tuned["permutation"]["p"] is None
    assert report["comparisons"][-1]["name"] == tuned["name"]
    for fold in (1, 2):
        assert f"results/pretrained/folds/r1f{fold}/{MODEL}.pt" in report["files"]


def test_the_convolutional_network_is_beside_the_model_or_refused_in_one_line(evaluated):
    folder, *_ = evaluated
    config = write_config(
        folder,
        "network.yaml",
        pretraining=ONE_EPOCH,
        evaluation=EVALUATION | {"convolutional": True},
    )
    if find_spec("braindecode") is None:
        assert "pip install '.[convolutional]'" in fails(folder, REPORT, config=config)
        return
    build(folder, REPORT, config=config)
    report = json.loads((folder / REPORT).read_text())
    network = report["candidates"][-1]
    assert network["name"] == "convolutional network from scratch" and len(network["notes"]) == 4
    assert network["permutation"]["p"] is None
    assert report["comparisons"][-1]["name"] == network["name"]
