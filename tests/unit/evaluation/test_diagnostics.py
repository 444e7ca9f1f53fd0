"""Diagnostics: they find what is planted, and are the same every time."""

import json

import numpy as np
import pytest
import torch

from remit import cli
from remit.config import Diagnostics
from remit.errors import RemitError
from remit.evaluation import diagnostics as module
from remit.evaluation.checks import checks_of
from remit.evaluation.diagnostics import Backbone, DiagnoseSettings, diagnose
from remit.report.diagnostics import draw_bands, draw_skill, read_diagnostics
from remit.report.model_report import warnings_of_backbone
from tests.unit.training.conftest import NAME, PEOPLE, QUIET, Bench, make_dataset, split_of

OPTIONS = Diagnostics(sequences_per_participant=4, masks_per_sequence=1, resamples=100)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("diagnosed") / "results" / "pretrained"
    folder.mkdir(parents=True)
    primary = make_dataset(folder, PEOPLE, windows=9)
    made = Bench(folder, primary, split_of(primary, folder, validation=0.3, test=0.2))
    backbone, _ = made.pretrain()
    return made, backbone


def run(trained, output, *, backbone=None, sheet=None):
    made, file = trained
    return diagnose(
        settings=DiagnoseSettings(result_version="t", diagnostics=OPTIONS),
        backbone_file=backbone or file,
        primary=made.primary,
        split_file=made.split,
        sheet=sheet,
        output=output,
        execution=QUIET,
        log=lambda _: None,
    )


@pytest.fixture(scope="module")
def found(trained):
    made, _ = trained
    return run(trained, made.folder.parent / "diagnostics" / f"{NAME}.json")


def status(found, name):
    (check,) = [check for check in found["checks"] if check["name"] == name]
    return check["status"]


def test_everything_is_measured_on_people_not_seen_with_intervals(trained, found):
    made, _ = trained
    split = json.loads(made.split.read_text())["participants"]
    assert found["participants"] == sorted(
        p for p, part in split.items() if part in ("val", "test")
    )
    assert found["simulated"] is True
    for kind in ("as trained", "single-channel", "all-channel"):
        for what, last in (("waveform", "other channels"), ("spectrum", "recording's mean")):
            figures = found["masked"][kind][what]
            # At 32 Hz and 0.5 s there is no bin above 16 Hz, and the spectrum ends at 12 Hz.
            assert {"all", "theta", "alpha"} <= set(figures)
            skill = figures["all"]["squared"]
            assert last in skill["error"] and skill["best_rival"] in skill["against"]
            assert skill["skill"]["low"] <= skill["skill"]["value"] <= skill["skill"]["high"]
            assert skill["skill"]["n"] == len(found["participants"])
    for check in found["checks"]:
        assert set(check) == {"name", "status", "found", "expected", "why"}
        assert check["status"] in ("pass", "warn", "fail")
    for name in ("masked samples stay hidden", "reload equality"):
        assert status(found, name) == "pass"
    for what in ("waveform", "spectrum"):
        assert status(found, f"{what} with everything masked") == "pass"


def test_the_same_backbone_gives_the_same_bytes(trained, found, tmp_path):
    made, _ = trained
    run(trained, tmp_path / "again.json")
    first = made.folder.parent / "diagnostics" / f"{NAME}.json"
    assert (tmp_path / "again.json").read_bytes() == first.read_bytes()


def test_an_oracle_has_full_skill_and_is_found_to_leak(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(
        Backbone, "predict", lambda self, samples, valid, masked: self.true(samples)
    )
    found = run(trained, tmp_path / "oracle.json")
    for what in ("waveform", "spectrum"):
        figures = found["masked"]["as trained"][what]
        assert figures["all"]["squared"]["skill"]["value"] == pytest.approx(1.0)
        assert figures["correlation"]["value"] == pytest.approx(1.0)
        assert figures["variance_ratio"]["value"] == pytest.approx(1.0)
        assert status(found, f"{what} skill, as trained masks") == "pass"
        assert status(found, f"{what} with everything masked") == "fail"
        assert status(found, f"{what} with somebody else's context") == "pass"


def test_a_model_of_the_mean_has_no_skill_and_ignores_its_context(trained, tmp_path, monkeypatch):
    def mean(self, samples, valid, masked):
        return {what: np.zeros_like(part) for what, part in self.true(samples).items()}

    monkeypatch.setattr(Backbone, "predict", mean)
    found = run(trained, tmp_path / "mean.json")
    for what in ("waveform", "spectrum"):
        assert found["context_swap"][what]["squared"]["rise"]["value"] == 0
        assert status(found, f"{what} with somebody else's context") == "warn"
        assert status(found, f"{what} correlation") == "warn"
        assert status(found, f"{what} with everything masked") == "pass"
        assert found["masked"]["as trained"][what]["variance_ratio"]["value"] == 0
        assert status(found, f"{what} skill, as trained masks") != "pass"
    assert any("DOES NOT CLEARLY USE" in text for text in warnings_of_backbone(found))


def test_levels_of_electrodes_are_no_correlation(trained, tmp_path, monkeypatch):
    def levels(self, samples, valid, masked):
        found = {}
        for what, part in self.true(samples).items():
            level_C = part.mean(axis=(0, 1, 3))
            found[what] = np.broadcast_to(level_C[None, None, :, None], part.shape).copy()
        return found

    monkeypatch.setattr(Backbone, "predict", levels)
    found = run(trained, tmp_path / "levels.json")
    for what in ("waveform", "spectrum"):
        assert found["masked"]["as trained"][what]["correlation"]["value"] == 0
        assert status(found, f"{what} correlation") == "warn"


def test_predictions_that_are_no_numbers_fail(trained, tmp_path, monkeypatch):
    real = module.Reconstruction.__init__

    def broken(self, *arguments):
        real(self, *arguments)
        self.head.register_forward_hook(lambda _, __, pair: tuple(p * torch.nan for p in pair))

    monkeypatch.setattr(module.Reconstruction, "__init__", broken)
    found = run(trained, tmp_path / "broken.json")
    assert found["not_finite"] > 0 and status(found, "predictions are numbers") == "fail"
    assert status(found, "waveform with everything masked") == "fail"


def test_an_encoder_that_sees_masked_samples_is_found(trained, tmp_path, monkeypatch):
    real = module.Encoder.forward

    def peeking(self, samples_BKCS, *, masked_BKC=None, **others):
        return real(self, samples_BKCS, **others)

    monkeypatch.setattr(module.Encoder, "forward", peeking)
    found = run(trained, tmp_path / "peeking.json")
    assert status(found, "masked samples stay hidden") == "fail"


def test_a_collapsed_backbone_is_found(trained, tmp_path, monkeypatch):
    real = module.Encoder.forward

    def constant(self, samples_BKCS, **others):
        return torch.ones_like(real(self, samples_BKCS, **others))

    monkeypatch.setattr(module.Encoder, "forward", constant)
    found = run(trained, tmp_path / "constant.json")
    assert found["embedding"]["pretrained"]["rankme"]["value"] == pytest.approx(1.0, abs=0.01)
    for name in ("effective rank", "spread at a position", "spread across channels"):
        assert status(found, name) == "fail"


def test_a_probe_finds_what_is_in_the_embedding():
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(8), 20)
    rows = rng.normal(0, 1, (160, 12))
    target = rows @ rng.normal(0, 1, 12) + 0.1 * rng.normal(0, 1, 160)
    error, mean = module.probes.explained(rows, target, people)
    assert 1 - error.mean() / mean.mean() > 0.95
    error, mean = module.probes.explained(rng.normal(0, 1, (160, 12)), target, people)
    assert 1 - error.mean() / mean.mean() < 0.1
    own = rng.normal(0, 5, (8, 12))[people] + rows
    assert module.probes.identified(own, people).mean() > 0.95
    assert module.probes.identified(rows, people).mean() < 0.4


def test_covariates_are_used_only_where_there_are_enough(trained, found):
    assert found["probes"]["age"] == {"not_measured": "0 of 6 unseen participants have it"}
    assert "probe: age" not in [check["name"] for check in found["checks"]]


def test_nobody_left_is_one_line(trained, tmp_path):
    made, _ = trained
    backbone, _ = made.pretrain(tmp_path / f"{NAME}.pt", transductive=True, epochs=1)
    with pytest.raises(RemitError, match=r"has seen all \d+ validation and test participants"):
        run(trained, tmp_path / "none.json", backbone=backbone)
    assert not (tmp_path / "none.json").exists()


def test_a_backbone_without_its_head_is_one_line(trained, tmp_path):
    _, backbone = trained
    content = torch.load(backbone, weights_only=True)
    del content["decoder_state_dict"]
    torch.save(content, tmp_path / f"{NAME}.pt")
    with pytest.raises(RemitError, match="holds no reconstruction head"):
        run(trained, tmp_path / "none.json", backbone=tmp_path / f"{NAME}.pt")


def test_verify_prints_a_line_for_each_check_and_exits_1_on_a_fail(
    trained, found, tmp_path, capsys
):
    _, backbone = trained
    good = {**found, "checks": [c for c in found["checks"] if c["status"] != "fail"]}
    bad = {**good, "checks": [{**good["checks"][0], "status": "fail"}, *good["checks"][1:]]}
    for values, code in ((good, 0), (bad, 1)):
        file = tmp_path / "d.json"
        file.write_text(json.dumps(values))
        try:
            assert cli.main(["verify", "--diagnostics", str(file)]) == code
        except SystemExit as stop:
            assert stop.code == code == 1
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 1 + len(values["checks"])
        assert sum(line.startswith("fail ") for line in lines) == code
    failing = any(check["status"] == "fail" for check in found["checks"])
    try:
        assert cli.main(["verify", str(backbone)]) == 0 and not failing
    except SystemExit as stop:
        assert stop.code == 1 and failing
    assert "reload equality" in capsys.readouterr().out


def test_verify_refuses_the_diagnostics_of_other_weights(trained, found, tmp_path, capsys):
    _, backbone = trained
    content = torch.load(backbone, weights_only=True)
    content["state_dict"]["mask_token"] += 1
    other = tmp_path / "results" / "pretrained" / f"{NAME}.pt"
    other.parent.mkdir(parents=True)
    torch.save(content, other)
    there = tmp_path / "results" / "diagnostics" / f"{NAME}.json"
    there.parent.mkdir()
    there.write_text(json.dumps(found))
    assert cli.main(["verify", str(other)]) == 1
    assert "its weights are not those" in capsys.readouterr().err
    assert cli.main(["verify"]) == 1
    assert "nothing to verify" in capsys.readouterr().err


@pytest.mark.parametrize("checks", [[], [{"status": "FAILED"}]])
def test_verdicts_that_are_none_are_refused(trained, found, tmp_path, capsys, checks):
    file = tmp_path / "found.json"
    whole = [{**found["checks"][0], **check} for check in checks]
    file.write_text(json.dumps({**found, "checks": whole}))
    assert cli.main(["verify", "--diagnostics", str(file)]) == 1
    assert "holds no diagnostics of a backbone" in capsys.readouterr().err


def test_a_check_needs_its_whole_interval(found):
    skill = {"value": 0.1, "low": -0.1, "high": 0.3, "n": 8}
    changed = json.loads(json.dumps(found))
    changed["masked"]["as trained"]["waveform"]["all"]["squared"]["skill"] = skill
    statuses = {check["name"]: check["status"] for check in checks_of(changed)}
    assert statuses["waveform skill, as trained masks"] == "warn"


def test_figures_are_drawn_from_the_file(trained, found, tmp_path):
    made, _ = trained
    read = read_diagnostics(made.folder.parent / "diagnostics" / f"{NAME}.json")
    for draw in (draw_skill, draw_bands):
        draw(read, tmp_path / "a.png")
        assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(RemitError, match="holds no diagnostics"):
        read_diagnostics(tmp_path / "x.json")
