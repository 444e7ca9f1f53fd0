"""The stage: what it refuses, and what it says first."""

import json

import pyarrow.parquet as pq
import pytest

from remit.config import Evaluation
from remit.dataset.windows import METADATA_KEY, encode_metadata, open_dataset
from remit.errors import RemitError
from remit.evaluation import evaluate as module
from remit.evaluation.evaluate import EvaluateSettings, evaluate, groups_of
from remit.evaluation.features import features
from remit.evaluation.folds import make_folds, write_folds
from remit.evaluation.read_log import note_test_read
from remit.recordings.cohort import SheetRow
from remit.training import embed as embedding
from tests.unit.training.conftest import (
    NAME,
    PEOPLE,
    QUIET,
    RULE_MODEL,
    SEQUENCES,
    Bench,
    make_dataset,
    split_of,
)

OPTIONS = Evaluation(
    folds=2, repeats=2, inner_folds=2, permutations=19, resamples=100, pretraining="transductive"
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A cohort whose backbone has seen most of it, with every file that the stage reads."""
    folder = tmp_path_factory.mktemp("evaluate")
    primary = make_dataset(folder, PEOPLE)
    made = Bench(folder, primary, split_of(primary, folder))
    backbone, _ = made.pretrain()
    dataset = open_dataset(made.primary)
    for which, file in ((backbone, "embeddings"), (None, "random")):
        embedding.embed(
            name=NAME,
            settings=embedding.EmbedSettings(
                result_version="t", model=RULE_MODEL, sequences=SEQUENCES
            ),
            backbone=which,
            primary=made.primary,
            split_file=None,
            output=folder / f"{file}.parquet",
            execution=QUIET,
            log=lambda line: None,
        )
    features(
        primary=made.primary,
        output=folder / "features.parquet",
        settings={"result_version": "t"},
        log=lambda line: None,
    )
    folds_of(dataset, OPTIONS, folder / "folds.json")
    sheet_of(dataset, folder / "sheet.tsv", lambda place, name: "")
    return folder, made, dataset


def folds_of(dataset, options, file):
    said = {key: dataset.metadata[key] for key in ("dataset", "content_sha256", "simulated")}
    write_folds(file, make_folds(dataset.labels, options, **said))


def sheet_of(dataset, file, acquired):
    lines = ["participant\trecording\tpath\tremission\tage\tsex\tacq_time"]
    for place, name in enumerate(dataset.participants):
        label = dataset.labels[name]
        cells = [name, f"r{place}", f"{name}.edf", "" if label is None else str(label)]
        cells += [str(20 + 3 * place), "FM"[place % 2], acquired(place, name)]
        lines.append("\t".join(cells))
    file.write_text("\n".join(lines) + "\n")


def report_of(files, tmp_path, monkeypatch, *, options=OPTIONS, **given):
    folder, made, _ = files
    monkeypatch.chdir(tmp_path)
    lines = []
    evaluate(
        name=NAME,
        settings=EvaluateSettings(
            result_version="t", evaluation=options, finetuned=given.get("finetuned")
        ),
        embeddings=given.get("embeddings", [folder / "embeddings.parquet"]),
        random=given.get("random", folder / "random.parquet"),
        features=folder / "features.parquet",
        primary=made.primary,
        folds=given.get("folds", folder / "folds.json"),
        sheet=given.get("sheet", folder / "sheet.tsv"),
        output=tmp_path / "report.json",
        log=lines.append,
        backbones=given.get("backbones", []),
        execution=QUIET,
    )
    return json.loads((tmp_path / "report.json").read_text()), lines


def test_the_same_files_give_the_same_bytes_and_each_read_is_noted(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    note_test_read("evaluate another", "8s", "made", {}, str)
    report, _ = report_of(files, tmp_path, monkeypatch)
    assert report["test_reads"] == {"analyses_before": 1, "models_before": ["another"]}
    first = (tmp_path / "report.json").read_bytes()
    _, lines = report_of(files, tmp_path, monkeypatch)
    assert (tmp_path / "report.json").read_bytes() == first
    assert any("it was read 2 times before" in line for line in lines)


def test_what_had_read_the_test_part_before_is_counted_once_each(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def noted(what, analysis, cohort="made"):
        return note_test_read(what, "8s", cohort, {"strength": analysis}, str)

    assert noted("evaluate a", 1) == {"analyses_before": 0, "models_before": []}
    assert noted("evaluate a", 2) == {"analyses_before": 1, "models_before": ["a"]}
    assert noted("evaluate a", 1) == {"analyses_before": 0, "models_before": []}
    assert noted("fine-tune b", 1) == {"analyses_before": 2, "models_before": ["a"]}
    assert noted("evaluate a", 2)["analyses_before"] == 1
    assert noted("evaluate a", 1, "other people")["analyses_before"] == 0
    assert noted("evaluate c", 1) == {"analyses_before": 3, "models_before": ["a", "b"]}


def test_reads_noted_by_an_older_version_count(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    lines = ["when\tcohort\tdataset\twhat", *["2026-01-01\tmade\t8s\tevaluate old"] * 2]
    (tmp_path / "results/test_reads.tsv").write_text("\n".join(lines) + "\n")
    found = note_test_read("evaluate new", "8s", "made", {}, str)
    assert found == {"analyses_before": 1, "models_before": ["old"]}


def changed(source, output, *, settings=None, keep=None):
    """An embeddings file that says other settings, or lacks windows."""
    table = pq.read_table(source)
    said = json.loads(table.schema.metadata[METADATA_KEY])
    said["settings"] |= settings or {}
    table = table.slice(0, keep).replace_schema_metadata(encode_metadata(said))
    pq.write_table(table, output)
    return output


def test_embeddings_of_other_windows_or_settings_are_refused(files, tmp_path, monkeypatch):
    folder, *_ = files
    random, output = folder / "random.parquet", tmp_path / "changed.parquet"
    others = changed(random, output, settings={"sequences": {"context_windows": 7}})
    with pytest.raises(RemitError, match=r"made with sequences .*7.*; expected .* as in .*embed"):
        report_of(files, tmp_path, monkeypatch, random=others)
    report_of(files, tmp_path, monkeypatch, random=changed(random, output, settings={"seed": 9}))
    rows = pq.read_metadata(random).num_rows
    others = changed(random, output, keep=rows - 1)
    with pytest.raises(RemitError, match=rf"its {rows - 1} windows are others than the {rows} of"):
        report_of(files, tmp_path, monkeypatch, random=others)


def test_a_backbone_that_has_seen_them_is_refused_by_its_own_record(files, tmp_path, monkeypatch):
    held_out = OPTIONS.model_copy(update={"pretraining": "held_out"})
    with pytest.raises(RemitError, match=r"its backbone has seen participant .*; set evaluation"):
        report_of(files, tmp_path, monkeypatch, options=held_out)
    assert not (tmp_path / "report.json").exists()
    assert not (tmp_path / "results/test_reads.tsv").exists()
    report, _ = report_of(files, tmp_path, monkeypatch)
    assert report["pretraining"]["transductive"]
    assert any(line.startswith("TRANSDUCTIVE") for line in report["headline"])


def test_a_date_that_follows_the_label_comes_first(files, tmp_path, monkeypatch):
    *_, dataset = files
    days = {0: "2024-03-0{}", 1: "2025-07-0{}"}
    sheet_of(
        dataset,
        tmp_path / "dated.tsv",
        lambda place, name: days[dataset.labels[name] or 0].format(1 + place % 9),
    )
    report, _ = report_of(files, tmp_path, monkeypatch, sheet=tmp_path / "dated.tsv")
    date = next(each for each in report["nuisance"] if "date" in each["name"])
    assert date["reaches"] and report["headline"][0].startswith("NOT EEG ALONE")
    assert "recording date or site only" in " ".join(report["headline"])


def test_files_that_do_not_belong_together_are_refused(files, tmp_path, monkeypatch):
    folder, _, dataset = files
    with pytest.raises(RemitError, match="random is True; expected False; the model and the emb"):
        report_of(files, tmp_path, monkeypatch, embeddings=[folder / "random.parquet"])
    other = OPTIONS.model_copy(update={"seed": 5})
    folds_of(dataset, other, tmp_path / "folds.json")
    with pytest.raises(RemitError, match=r"seed is 5; expected 0 as in evaluation\.seed"):
        report_of(files, tmp_path, monkeypatch, folds=tmp_path / "folds.json")
    labels = {n: None if v is None else 1 - v for n, v in dataset.labels.items()}
    said = {key: dataset.metadata[key] for key in ("dataset", "content_sha256", "simulated")}
    write_folds(tmp_path / "folds.json", make_folds(labels, OPTIONS, **said))
    with pytest.raises(RemitError, match="has another label than in"):
        report_of(files, tmp_path, monkeypatch, folds=tmp_path / "folds.json")
    other = open_dataset(make_dataset(tmp_path, PEOPLE, seed=4))
    folds_of(other, OPTIONS, tmp_path / "folds.json")
    with pytest.raises(RemitError, match="content_sha256 is .*; expected .* as in"):
        report_of(files, tmp_path, monkeypatch, folds=tmp_path / "folds.json")
    assert not (tmp_path / "report.json").exists()


def test_groups_are_found_by_the_words_of_a_column():
    rows = [
        SheetRow(
            "a", "a", "a.edf", covariates={"Sex": "F", "age": "31", "stage": "2", "site": "x"}
        ),
        SheetRow(
            "b", "b", "b.edf", covariates={"Sex": "n/a", "age": "", "stage": "1", "site": "y"}
        ),
    ]
    groups = groups_of(rows, ("a", "b"))
    assert groups == {"Sex": ["F", None], "age (years)": ["30-44", None], "site": ["x", "y"]}


def test_an_interval_that_holds_half_is_called_chance():
    auc = {"value": 0.6, "low": 0.4, "high": 0.8}
    model = {"figures": {"auc": auc, "n": 21, "n_positive": 7}, "permutation": {"p": 0.2}}
    facts = {"transductive": False}, {"simulated": False}, "remission"
    said = module._headline(model, [], [], *facts)
    assert said == [
        "AUC 0.60 [0.40, 0.80] for remission in 21 participants (7 positive), permutation p 0.200; the "
        "interval holds 0.5, chance."
    ]
    auc |= {"low": 0.1, "value": 0.3, "high": 0.45}
    assert "BELOW chance" in module._headline(model, [], [], *facts)[0]


def test_a_model_above_chance_says_what_it_is_not_shown_to_exceed():
    auc = {"value": 0.8, "low": 0.6, "high": 0.9}
    model = {"figures": {"auc": auc, "n": 21, "n_positive": 7}, "permutation": {"p": 0.01}}
    differences = [
        ("band power", "baseline", -0.1),
        ("length", "nuisance", 0.1),
        ("p", "chance", -1),
    ]
    comparisons = [
        {"name": name, "kind": kind, "auc": {"low": low}} for name, kind, low in differences
    ]
    said = module._headline(
        model, [], comparisons, {"transductive": False}, {"simulated": False}, "remission"
    )
    assert said[-1] == "Not shown to be better than: band power."
