"""What is planned on empty files, case by case, as tests/dag/snapshots.yaml holds it.

    python -m tests.dag.test_snapshots    # writes that file anew; read what has changed in it

A snapshot says how many jobs of each rule are planned and why, or the line that refuses the run. All on empty
files, but for the first bytes of a recording, which a scan looks at.
"""

import os
import tempfile
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from remit import naming
from tests.dag.planner import configured, merged, read, refused, submit

pytestmark = pytest.mark.dag

SNAPSHOTS = Path(__file__).with_name("snapshots.yaml")
MODEL = "mamba2_eeg_d256_l2_m50_mae"
SMALL = "mamba2_eeg_d64_l1_m40_bert"
DATASET = "8s_af7-af8-tp9-tp10"
FINETUNED = naming.path("finetuned", model=MODEL)
REPORT = naming.path("evaluation", model=MODEL)
PRIMARY = naming.path("primary", dataset=DATASET)
DROP_IN = naming.DROP_IN_PATTERN.format(model=MODEL)
PLACED = naming.path("pretrained", model=MODEL)
TABLE = naming.path("evaluation_table")
NEW = naming.path("predictions_new", model=MODEL, cohort="new")
SIX = {"cohorts": {"simulated": {"simulate": {"participants": 6, "remission_fraction": 0.5}}}}


@dataclass
class Case:
    """Targets and settings; files that are there; the people of a cohort sheet, with their labels."""

    targets: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    sheet: dict[str, Any] | None = None


def case(*targets: str, files: tuple[str, ...] = (), **settings: Any) -> Case:
    """A case of the simulated cohort."""
    return Case(targets, merged(SIX, settings), files)


def of_sheet(
    *targets: str, people: dict[str, Any], files: tuple[str, ...] = (), **more: Any
) -> Case:
    """A case of a cohort from a sheet; each person has one recording, which `files` may hold."""
    mine = {"cohort": "mine", "cohorts": {"mine": {"sheet": "sheet.tsv"}}}
    return Case(targets, merged(mine, more), files, people)


def others(*names: str, **settings: Any) -> dict[str, Any]:
    """Further simulated cohorts of two."""
    return {name: {"simulate": {"participants": 2, "seed": 8}, **settings} for name in names}


def raw(people: dict[str, Any]) -> tuple[str, ...]:
    return tuple(f"{name}.edf" for name in people)


def windows(cohort: str, *recordings: str) -> tuple[str, ...]:
    return tuple(naming.path("windows", cohort=cohort, recording=name) for name in recordings)


EVEN = dict.fromkeys("abc", 1) | dict.fromkeys("def", 0)
BIDS = tuple(f"bids/sub-{n}/eeg/sub-{n}_task-rest_eeg.edf" for n in (1, 2))
ONCE = {"repeats": 1}
CASES: dict[str, Case] = {
    # One model
    "nothing asked for": case(),
    "a fine-tuned model": case(FINETUNED),
    "a fine-tuned model of another size": case(naming.path("finetuned", model=SMALL)),
    "a backbone": case(naming.path("pretrained", model=MODEL)),
    "diagnostics": case(naming.path("diagnostics", model=MODEL)),
    "a transductive backbone": case(pretraining={"transductive": True}),
    "two models at once": case(FINETUNED, naming.path("finetuned", model=SMALL)),
    # Data
    "one recording": case(*windows("simulated", "sim-001_rest")),
    "a primary dataset": case(PRIMARY),
    "windows of 4 s": case("all", preprocessing={"window_seconds": 4}),
    "windows of half of the people": case(
        PRIMARY, files=windows("simulated", "sim-001_rest", "sim-002_rest", "sim-003_rest")
    ),
    "a primary dataset, and nothing it is made of": case(FINETUNED, files=(PRIMARY,)),
    "features": case(naming.path("features", dataset=DATASET)),
    # Sweeps
    "the sweep": case("sweep"),
    "a sweep of two": case("sweep", sweep={"mask_percents": [40, 50], "masking_styles": ["mae"]}),
    "a sweep of small models": case("sweep", model={"d_model": 64, "num_layers": 1}),
    "a sweep of which one is a drop-in": case("sweep", files=(DROP_IN,)),
    "a sweep of which one is made": case(
        "sweep", files=(FINETUNED, naming.path("finetuned_card", model=MODEL))
    ),
    # Several cohorts
    "two cohorts more for pretraining": case(
        "all", cohorts=others("more", "most"), pretraining={"extra_cohorts": ["more", "most"]}
    ),
    "a cohort of other electrodes for pretraining": case(
        "all",
        cohorts=others("more", channels=["Fp1", "Fp2"]),
        pretraining={"extra_cohorts": ["more"]},
    ),
    "a cohort that nothing is asked of": of_sheet(
        people=EVEN, files=raw(EVEN), cohorts=others("idle")
    ),
    "pretraining on others alone": case(
        FINETUNED,
        cohorts=others("more"),
        pretraining={"extra_cohorts": ["more"], "own_cohort": False},
        evaluation={"pretraining": "held_out"},
    ),
    "a cohort sheet": of_sheet(people=EVEN, files=raw(EVEN)),
    "a BIDS data set": Case(
        (PRIMARY,), {"cohort": "mine", "cohorts": {"mine": {"scan": {"root": "bids"}}}}, BIDS
    ),
    "a folder of recordings": Case(
        (PRIMARY,),
        {"cohort": "mine", "cohorts": {"mine": {"scan": {"root": "raw", "layout": "folder"}}}},
        ("raw/a/rest.edf", "raw/b/rest.edf"),
    ),
    # Backbones from elsewhere
    "a drop-in": case(FINETUNED, files=(DROP_IN,)),
    "a drop-in and the primary dataset": case(FINETUNED, files=(DROP_IN, PRIMARY)),
    "a backbone placed by hand": case(FINETUNED, files=(PLACED,)),
    "a drop-in for another model": case(naming.path("finetuned", model=SMALL), files=(DROP_IN,)),
    "an evaluation of a drop-in": case(REPORT, files=(DROP_IN,)),
    "a drop-in without its recordings": of_sheet(
        FINETUNED,
        people=EVEN,
        files=(DROP_IN, PRIMARY, *windows("mine", *(f"{name}_rest" for name in EVEN))),
    ),
    # Evaluation
    "an evaluation": case(REPORT),
    "an evaluation, repeated once": case(REPORT, evaluation=ONCE),
    "an evaluation by halves": case(REPORT, evaluation={"folds": 2, "repeats": 3}),
    "an evaluation of one transductive backbone": case(
        REPORT, evaluation={"pretraining": "transductive"}
    ),
    "an evaluation of a held-out cohort": case(
        REPORT,
        cohorts=others("more"),
        pretraining={"extra_cohorts": ["more"], "own_cohort": False},
        evaluation={"pretraining": "held_out"},
    ),
    "per-fold pretraining with a cohort more": case(
        REPORT, cohorts=others("more"), pretraining={"extra_cohorts": ["more"]}, evaluation=ONCE
    ),
    "the backbone of one fold": case(
        naming.path("pretrained_fold", model=MODEL, repeat="2", fold="3")
    ),
    "random weights": case(naming.path("embeddings_random", model=MODEL)),
    "a table of the sweep": case(TABLE, evaluation=ONCE),
    "a table of four, one a drop-in": case(
        TABLE, files=(DROP_IN,), evaluation=ONCE, sweep={"mask_percents": [40, 50]}
    ),
    "page and card": case(
        naming.path("evaluation_page", model=MODEL), naming.path("model_card", model=MODEL)
    ),
    "predictions of a new cohort": Case(
        (NEW,),
        {
            "cohort": "mine",
            "cohorts": {"mine": SIX["cohorts"]["simulated"], **others("new")},
            "evaluation": ONCE,
        },
    ),
    # What is missing, and what is refused
    "a recording is missing": of_sheet(people=EVEN, files=raw(EVEN)[1:]),
    "all recordings are missing, their windows are there": of_sheet(
        PRIMARY, people=EVEN, files=windows("mine", *(f"{name}_rest" for name in EVEN))
    ),
    "a sheet is missing": Case((), {"cohort": "mine", "cohorts": {"mine": {"sheet": "sheet.tsv"}}}),
    "a folder is missing": Case(
        (), {"cohort": "mine", "cohorts": {"mine": {"scan": {"root": "nowhere"}}}}
    ),
    "labels are missing": of_sheet(FINETUNED, people=EVEN | {"g": ""}, files=(*raw(EVEN), "g.edf")),
    "labels are missing, for pretraining only": of_sheet(
        FINETUNED,
        people=EVEN | {"g": ""},
        files=(*raw(EVEN), "g.edf"),
        split={"unlabelled": "pretraining"},
    ),
    "one person in a class": of_sheet(REPORT, people={"a": 1, "b": 0, "c": 0}, files=raw(EVEN)),
    "no such model": case(FINETUNED.replace("_mae_", "_mea_")),
    "another dataset": case(PRIMARY.replace("8s", "4s")),
    "no such cohort": case(*windows("nobody", "x")),
    "no such recording": case(*windows("simulated", "sim-007_rest")),
    "no such fold": case(naming.path("pretrained_fold", model=MODEL, repeat="1", fold="4")),
    "held out, but the own cohort pretrains": case(REPORT, evaluation={"pretraining": "held_out"}),
}


def started(named: Case, folder: Path) -> Future[str]:
    """Make the files of a case, all equally old, and start its dry-run."""
    texts = dict.fromkeys(named.files, "0       ")
    if named.sheet is not None:
        lines = [f"{name}\t{name}_rest\t{name}.edf\t{label}" for name, label in named.sheet.items()]
        texts["sheet.tsv"] = "\n".join(["participant\trecording\tpath\tremission", *lines]) + "\n"
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
        os.utime(folder / name, (1_600_000_000,) * 2)
    return submit(folder, *named.targets, config=configured(folder / "mine.yaml", named.settings))


def snapshot(printed: str) -> dict[str, Any]:
    """What a run would do, or why it is refused."""
    try:
        return {rule: dict(each) for rule, each in sorted(read(printed).items())}
    except ValueError:
        return {"refused": refused(printed)}


@pytest.fixture(scope="module")
def runs(request, tmp_path_factory):
    """The dry-runs of the cases that were asked for, two at a time."""
    asked = [
        item.callspec.params["name"] for item in request.session.items if item.path == request.path
    ]
    return {name: started(CASES[name], tmp_path_factory.mktemp("case")) for name in asked}


@pytest.mark.parametrize("name", CASES)
def test_a_plan_is_as_it_was(runs, name):
    assert snapshot(runs[name].result()) == yaml.safe_load(SNAPSHOTS.read_text())[name]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        futures = {}
        for number, (name, named) in enumerate(CASES.items()):
            place = Path(folder) / str(number)
            place.mkdir()
            futures[name] = started(named, place)
        found = {name: snapshot(future.result()) for name, future in futures.items()}
    SNAPSHOTS.write_text(yaml.safe_dump(found, sort_keys=False, width=1000))
