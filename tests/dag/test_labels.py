"""Labels that are missing are told while planning: of each file that needs them, and of no other."""

import re
from pathlib import Path

import pytest

from remit import naming
from remit.errors import RemitError
from remit.planning import Plan, targets_of
from tests.conftest import ROOT
from tests.dag.planner import configured, merged, read, refused, submit

pytestmark = pytest.mark.dag

MODEL = "mamba2_eeg_d256_l2_m50_mae"
DATASET = "8s_af7-af8-tp9-tp10"
OWN = f"results/pretrained/{MODEL}.pt"
VALUES = {"model": MODEL, "dataset": DATASET, "cohort": "mine", "recording": "a_rest"}
VALUES |= {"repeat": "1", "fold": "1"}
NOBODY = dict.fromkeys("abcdefg", "")
ONE_CLASS = dict.fromkeys("abcdefg", 1)
TWO_IN_ONE = dict.fromkeys("abcde", 0) | dict.fromkeys("fg", 1)
EVEN = dict.fromkeys("abc", 0) | dict.fromkeys("defg", 1)
SETTINGS = {
    "cohort": "mine",
    "cohorts": {
        "mine": {"sheet": "sheet.tsv"},
        "new": {"simulate": {"participants": 2, "seed": 8}},
    },
    "evaluation": {"repeats": 1},
}


def study(folder, people, **settings):
    """A cohort sheet of one empty recording each; the file of its configuration."""
    lines = [f"{name}\t{name}_rest\t{name}.edf\t{label}" for name, label in people.items()]
    sheet = "\n".join(["participant\trecording\tpath\tremission", *lines]) + "\n"
    (folder / "sheet.tsv").write_text(sheet)
    for name in people:
        (folder / f"{name}.edf").touch()
    return configured(folder / "mine.yaml", merged(SETTINGS, settings))


def made_of(printed):
    """The files that each planned file is made of, however far down, by its name."""
    blocks = re.findall(
        r"^(?:local)?rule \w+:\n    input: (.*)\n    output: (.*)$", printed, re.MULTILINE
    )
    direct = {name: ins.split(", ") for ins, outs in blocks for name in outs.split(", ")}
    found: dict[str, set[str]] = {}

    def walk(name):
        if name not in found:
            found[name] = set()
            found[name] = {name}.union(*(walk(other) for other in direct.get(name, ())))
        return found[name]

    return {name: walk(name) for name in direct}


@pytest.mark.parametrize(
    ("settings", "there"),
    [
        ({}, ()),
        ({"evaluation": {"pretraining": "transductive", "finetuned": True}}, ()),
        ({"pretraining": {"transductive": True}}, ()),
        ({}, (f"resources/pretrained/{MODEL}.pt",)),
        ({}, (OWN,)),
        ({"evaluation": {"pretraining": "transductive"}}, (OWN,)),
    ],
)
def test_what_needs_labels_is_what_is_made_of_the_split_or_the_folds(
    tmp_path, monkeypatch, settings, there
):
    """Of every kind of file there is, as Snakemake has it from the rules."""
    for name in there:
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("weights")
    targets = {
        kind: naming.path(kind, **VALUES | ({"cohort": "new"} if kind == "predictions_new" else {}))
        for kind in naming.PATTERNS
        if not kind.startswith(("mlflow", "test_reads", "pretrained_card", "simulated"))
    }
    targets = {kind: name for kind, name in targets.items() if name not in there}
    config = study(tmp_path, EVEN, **settings)
    printed = submit(tmp_path, *targets.values(), config=config).result()
    read(printed)  # raises where it was refused
    made = made_of(printed)
    assert made.keys() >= set(targets.values())
    needs = ("split", "folds", "fold_split")
    needed = {naming.path(kind, **VALUES) for kind in needs}
    drawn = {name for kind, name in targets.items() if kind.startswith("figure_")}  # also without

    study(tmp_path, NOBODY)
    monkeypatch.chdir(tmp_path)
    plan, refuses = Plan(merged(SETTINGS, settings)), set()
    for kind, name in targets.items():
        try:
            plan.check([name])
        except RemitError as error:
            assert re.search("have no label|with so few labels", str(error))
            refuses.add(kind)
    assert refuses == {
        k for k, name in targets.items() if name not in drawn and made[name] & needed
    }
    assert {"features", "windows", "primary", "embeddings_random"}.isdisjoint(refuses)


@pytest.mark.parametrize(
    ("people", "says"),
    [
        (NOBODY, "7 of 7 participants have no label (a, b, c, d, e, f, g); expected 0 or 1"),
        (ONE_CLASS, "0 participants with label 0 and 7 participants with label 1; expected enough"),
        (TWO_IN_ONE, "5 participants with label 0 and 2 participants with label 1; expected enou"),
    ],
)
def test_a_dry_run_says_in_the_words_of_the_split_that_labels_are_missing(tmp_path, people, says):
    config = study(tmp_path, people)
    asked = [(), ("all",), ("sweep",), ("split",), (naming.path("split", dataset=DATASET),), (OWN,)]
    if people is TWO_IN_ONE:  # enough for the folds, but not for the head of the model's card
        asked.append(("evaluation",))
    for targets, run in [(t, submit(tmp_path, *t, config=config)) for t in asked]:
        (line,) = refused(run.result())
        assert says in line, targets
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("label", ["", None])
def test_a_data_set_without_labels_is_told_like_a_sheet(tmp_path, label):
    """Its participants.tsv lacks a column for the label, or the label of some."""
    for name in "abcdef":
        folder = tmp_path / f"bids/sub-{name}/eeg"
        folder.mkdir(parents=True)
        (folder / f"sub-{name}_task-rest_eeg.edf").write_text("0       ")
    lines = [f"sub-{name}\t{'yes' if name < 'd' else 'no'}" for name in "abcde"] + ["sub-f\tn/a"]
    listing = "\n".join(["participant_id\tgood", *lines]) + "\n"
    (tmp_path / "bids/participants.tsv").write_text(listing)
    scan = {"root": "bids"}
    if label is not None:
        scan["label"] = {"column": "good", "values": {"yes": 1, "no": 0}}
    config = study(tmp_path, EVEN, cohort="bids", cohorts={"bids": {"scan": scan}})
    (line,) = refused(submit(tmp_path, config=config).result())
    assert ("6 of 6" if label is None else "1 of 6 participants have no label (sub-f)") in line
    only = {"split": {"unlabelled": "pretraining"}}
    config = study(tmp_path, EVEN, cohort="bids", cohorts={"bids": {"scan": scan}}, **only)
    printed = submit(tmp_path, config=config).result()
    (line,) = refused(printed)
    assert "participants with label" in line  # 3 and 2: enough for folds, not for the split


def test_what_needs_no_labels_is_planned_without_them(tmp_path):
    config = study(tmp_path, NOBODY)
    for targets in (
        ("features",),
        ("primary_dataset",),
        ("cohort_figures",),
        ("--until", "primary_dataset"),
        ("--rulegraph",),
    ):
        printed = submit(tmp_path, *targets, config=config).result()
        assert "remit: " not in printed and "windows" in printed, printed


@pytest.mark.parametrize("people", [NOBODY, ONE_CLASS, NOBODY | {"a": 0, "b": 1}])
def test_what_is_said_to_go_without_labels_is_planned_and_no_pretraining(tmp_path, people):
    config = study(tmp_path, people, split={"unlabelled": "pretraining"})
    (line,) = refused(submit(tmp_path, "evaluation", config=config).result())
    assert "nothing can be estimated, nor a split be made to pretrain on" in line
    (said,) = re.findall("'snakemake (.*)'", line)
    assert read(submit(tmp_path, *said.split(), config=config).result())["features"]
    assert "there are " in refused(submit(tmp_path, OWN, config=config).result())[0]


def test_people_without_labels_pretrain_for_a_cohort_that_has_them(tmp_path):
    both = {"cohorts": {"even": {"simulate": {"participants": 6, "remission_fraction": 0.5}}}}
    both["pretraining"] = {"extra_cohorts": ["mine"], "own_cohort": False}
    both["evaluation"] = {"pretraining": "held_out"}
    config = study(tmp_path, NOBODY, cohort="even", **both)
    jobs = read(submit(tmp_path, OWN, config=config).result())
    assert jobs["pretrain"] and jobs["corpus"] and sum(jobs["windows"].values()) == 7 + 6


def test_a_call_that_runs_nothing_names_no_target():
    assert targets_of([]) == targets_of(["-n", "--cores", "2"]) == ["all"]
    own = Path("results/features/x.parquet")
    assert targets_of(["--", str(own), "sweep", "nothing"]) == [str(own), "sweep"]
    for call in (["--unlock"], ["--lint"], ["--report"], ["--target-jobs", "windows:cohort=a"]):
        assert targets_of(call) == []
    for call in ("--list-input-changes", "--list-untracked", "--archive=a.zip", "--containerize"):
        assert targets_of([call]) == []
    assert targets_of(["--report", "r.zip", "--", str(own), "all"]) == [str(own)]


def test_a_workflow_that_has_this_one_as_a_module_is_asked_for_what_is_its_own(tmp_path):
    """Its rules may have the same names, and its results the same folder."""
    (tmp_path / "Snakefile").write_text(f'''
module remit:
    snakefile: "{ROOT / "Snakefile"}"
    config: config

use rule * from remit as remit_*

rule all:
    default_target: True
    input: "results/letter.txt"

rule letter:
    input: rules.remit_features.output
    output: "results/letter.txt"
    shell: "wc -c {{input:q}} > {{output:q}}"
''')
    config = study(tmp_path, NOBODY)
    for targets in ((), ("all",), ("results/letter.txt",)):
        printed = submit(tmp_path, *targets, config=config, source=tmp_path).result()
        assert {"letter", "remit_features"} <= set(read(printed)), targets
    (line,) = refused(submit(tmp_path, OWN, config=config, source=tmp_path).result())
    assert "7 of 7 participants have no label" in line
