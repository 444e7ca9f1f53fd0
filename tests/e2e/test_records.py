"""Every stage in one process: each leaves a record beside what it makes, and the chain verifies."""

import json
import shutil

import pytest

from remit import cli, naming
from remit.planning import Plan
from tests.e2e.test_chain import DATASET, MODEL, TINY
from tests.unit.test_provenance import check_every_result

pytestmark = pytest.mark.e2e

PEOPLE = {"participants": 8, "minutes": 0.3, "remission_fraction": 0.5}


def call(*words):
    assert cli.main([str(word) for word in words]) == 0, words


def test_every_stage_leaves_a_record_and_a_change_is_found(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    execution = json.dumps({**TINY["execution"]})
    plan = Plan(
        {
            **TINY,
            "pretraining": {"epochs": 1, "least_steps": 0, "batch_size": 4},
            "finetuning": {"epochs": 1},
            "cohorts": {"simulated": {"simulate": PEOPLE}},
        }
    )

    def at(kind, **values):
        return naming.path(kind, **values)

    own, on = {"model": MODEL}, {"dataset": DATASET}
    primary, split, sheet = (
        at("primary", **on),
        at("split", **on),
        at("cohort_sheet", cohort="simulated"),
    )
    call("cohort", "sheet", "--settings", plan.sheet_settings("simulated"), "--output", sheet)
    for row in plan.rows("simulated"):
        raw = at("simulated", cohort="simulated", recording=row.recording)
        out = at("windows", cohort="simulated", recording=row.recording)
        settings = plan.simulate_settings("simulated", row.recording)
        call("simulate", "--settings", settings, "--output", raw)
        settings = plan.windows_settings("simulated", row.recording)
        call("windows", "--settings", settings, f"--input={raw}", "--output", out)
    data = ("--primary", primary)
    settings = plan.primary_settings("simulated")
    made = ("--output", primary, "--execution", execution)
    call("primary", "--settings", settings, "--sheet", sheet, *made)
    call("split", "--settings", plan.split_settings(), *data, "--output", split)
    both = (*data, "--split", split, "--execution", execution)
    backbone, tuned = at("pretrained", **own), at("finetuned", **own)
    call("pretrain", "--settings", plan.pretrain_settings(MODEL), *both, "--output", backbone)
    predictions = at("predictions", cohort="simulated", **own)
    made = ("--output", tuned, "--predictions", predictions)
    settings = plan.finetune_settings(MODEL)
    call("finetune", "--settings", settings, "--backbone", backbone, *both, *made)
    call("folds", "--settings", plan.folds_settings(), *data, "--output", at("folds", **on))
    call(
        "features", "--settings", plan.features_settings(), *data, "--output", at("features", **on)
    )
    settings, made = plan.embed_settings(MODEL), ("--output", at("embeddings", **own))
    call("embed", "--settings", settings, "--backbone", backbone, *data, *made)
    kinds = ("comparison", "comparison_parquet", "comparison_page", "comparison_picture")
    options = ("--table", "--parquet", "--page", "--picture")
    made = [word for pair in zip(options, map(at, kinds), strict=True) for word in pair]
    card = at("finetuned_card", **own)
    call("compare", "--settings", plan.comparison_settings(), "--cards", card, *made)
    compared = set(kinds)
    kinds = {"cohort_sheet", "simulated", "windows", "primary", "split", "pretrained", "folds"}
    kinds |= {"pretrained_card", "finetuned", "finetuned_card", "predictions", "features"}
    check_every_result(tmp_path, kinds | compared | {"embeddings"})
    capsys.readouterr()

    table = at("comparison")
    call("verify", table)
    assert "as 'windows' made it of" in capsys.readouterr().out
    changes = {  # what is changed, and the line that says so
        split: f"fail  {split}: foreign: not as 'split' wrote it",
        at(
            "simulated", cohort="simulated", recording="sim-003_rest"
        ): "sim-003_rest.parquet: stale",
        backbone: f"fail  {tuned}: stale: made of another {backbone}",
        card: f"fail  {table}: stale: made of another {card}",
    }
    for name, says in changes.items():
        shutil.copy(name, "kept")
        with (tmp_path / name).open("ab") as out:
            out.write(b" ")
        with pytest.raises(SystemExit):
            cli.main(["verify", table, tuned])
        assert says in capsys.readouterr().out, name
        shutil.copy("kept", name)
    call("verify", table, tuned)
