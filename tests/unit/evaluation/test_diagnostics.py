"""Diagnostics: they find what is planted, and are the same every time."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from scipy.signal import periodogram

from remit import cli, naming
from remit.config import Diagnostics, Execution
from remit.dataset.windows import open_dataset
from remit.errors import RemitError
from remit.evaluation import diagnostics as module
from remit.evaluation import probes
from remit.evaluation.backbone import Backbone
from remit.evaluation.checks import checks_of
from remit.evaluation.diagnostics import DiagnoseSettings, diagnose
from remit.evaluation.embedded import embed, embedding_figures
from remit.evaluation.look import Loaded
from remit.evaluation.resampling import Resampling
from remit.nn.encoder import Encoder
from remit.planning import result_version
from remit.report.diagnostics import draw_bands, draw_skill, read_diagnostics
from remit.report.model_report import warnings_of_backbone, write_report
from remit.report.reconstruction import write_reconstruction
from remit.training.reconstruction import Reconstruction
from tests.unit.training.conftest import (
    CHANNELS,
    NAME,
    PEOPLE,
    QUIET,
    Bench,
    make_dataset,
    split_of,
)

OPTIONS = Diagnostics(sequences_per_participant=4, masks_per_sequence=1, resamples=100)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("diagnosed") / "results" / "pretrained"
    folder.mkdir(parents=True)
    primary = make_dataset(folder, PEOPLE, windows=9)
    made = Bench(folder, primary, split_of(primary, folder, validation=0.3, test=0.2))
    backbone, _ = made.pretrain()
    return made, backbone


def run(trained, output, *, backbone=None, sheet=None, execution=QUIET, log=lambda _: None):
    made, file = trained
    return diagnose(
        settings=DiagnoseSettings(result_version=result_version("diagnose"), diagnostics=OPTIONS),
        backbone_file=backbone or file,
        primary=made.primary,
        split_file=made.split,
        sheet=sheet,
        output=output,
        execution=execution,
        log=log,
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
    real = Reconstruction.__init__

    def broken(self, *arguments):
        real(self, *arguments)
        self.head.register_forward_hook(lambda _, __, pair: tuple(p * torch.nan for p in pair))

    monkeypatch.setattr(Reconstruction, "__init__", broken)
    found = run(trained, tmp_path / "broken.json")
    assert found["not_finite"] > 0 and status(found, "predictions are numbers") == "fail"
    assert status(found, "waveform with everything masked") == "fail"


def test_an_encoder_that_sees_masked_samples_is_found(trained, tmp_path, monkeypatch):
    real = Encoder.forward

    def peeking(self, samples_BKCS, *, masked_BKC=None, **others):
        return real(self, samples_BKCS, **others)

    monkeypatch.setattr(Encoder, "forward", peeking)
    found = run(trained, tmp_path / "peeking.json")
    assert status(found, "masked samples stay hidden") == "fail"


def without(*names):
    """An encoder that does not hear of some of its arguments."""

    def change(real):
        def forward(self, samples_BKCS, **given):
            return real(self, samples_BKCS, **{k: v for k, v in given.items() if k not in names})

        return forward

    return change


@pytest.mark.parametrize("lost", ["valid_BK", "source_BKC"])
def test_padding_and_replaced_samples_that_are_read_are_found(trained, tmp_path, monkeypatch, lost):
    """Neither is met in the passes that the skill is made of: no padding there, and all is hidden."""
    monkeypatch.setattr(Encoder, "forward", without(lost)(Encoder.forward))
    found = run(trained, tmp_path / "leak.json")
    assert status(found, "masked samples stay hidden") == "fail"
    assert status(found, "waveform with everything masked") == "pass"


def test_a_small_leak_is_found_where_everything_is_masked(trained, found, tmp_path, monkeypatch):
    real = Backbone.predict

    def leaking(self, samples, valid, masked):
        guesses = real(self, samples, valid, masked)
        return {what: guess + 1e-3 * self.true(samples)[what] for what, guess in guesses.items()}

    monkeypatch.setattr(Backbone, "predict", leaking)
    leak = run(trained, tmp_path / "leak.json")
    for what in ("waveform", "spectrum"):
        figures = leak["everything_masked"][what]
        assert figures["against_bound"]["value"] < 0  # the bound alone lets it pass
        assert figures["differing"] > 0 == found["everything_masked"][what]["differing"]
        assert figures["sequences"] == found["everything_masked"][what]["sequences"] > 6
        assert status(leak, f"{what} with everything masked") == "fail"


def test_a_collapsed_backbone_is_found(trained, tmp_path, monkeypatch):
    real = Encoder.forward

    def constant(self, samples_BKCS, **others):
        return torch.ones_like(real(self, samples_BKCS, **others))

    monkeypatch.setattr(Encoder, "forward", constant)
    found = run(trained, tmp_path / "constant.json")
    assert found["embedding"]["pretrained"]["rankme"]["value"] == pytest.approx(1.0, abs=0.01)
    for name in ("effective rank", "spread at a position", "spread across channels"):
        assert status(found, name) == "fail"


def test_a_probe_finds_what_is_in_the_embedding():
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(8), 20)
    rows = rng.normal(0, 1, (160, 12))
    known = rows @ rng.normal(0, 1, 12) + 0.1 * rng.normal(0, 1, 160)
    targets = np.stack([known, rng.normal(0, 1, 160)], axis=1)
    error, mean = probes.explained(rows, targets, people)
    explained = 1 - error.mean(0) / mean.mean(0)
    assert explained[0] > 0.95 and explained[1] < 0.1
    for n in (0, 1):  # together they are what each is by itself
        alone, _ = probes.explained(rows, targets[:, [n]], people)
        assert alone[:, 0] == pytest.approx(error[:, n])
    error, mean = probes.explained(rng.normal(0, 1, (160, 12)), targets, people)
    assert 1 - error[:, 0].mean() / mean[:, 0].mean() < 0.1
    own = rng.normal(0, 5, (8, 12))[people] + rows
    apart = np.column_stack([people, np.arange(160), np.arange(160) + 1])
    assert probes.identified(own, people, apart).mean() > 0.95
    assert probes.identified(rows, people, apart).mean() < 0.4


def test_identity_is_asked_of_sequences_that_share_no_sample_with_those_it_is_known_from():
    rng = np.random.default_rng(1)
    people = np.repeat(np.arange(4), 6)
    rows = rng.normal(0, 1, (24, 8))
    start = np.tile(np.arange(6), 4) * 10

    def place(length, recording=people):
        return np.column_stack([recording, start, start + length])

    def known(rows, length, **other):
        return probes.identified(rows, people, place(length, **other))

    # The fourth of each is the copy of the third, and overlaps it: it must not count.
    copied = rows.copy()
    copied[3::6] = copied[2::6]
    assert known(copied, 10).mean() > known(copied, 15).mean()
    assert np.array_equal(known(copied, 15), known(np.where(start[:, None] == 30, 9, copied), 15))
    assert np.isnan(known(rows, 1000)).all()
    # The same sample numbers in another recording are others.
    late = 2 * people + (start >= 30)
    assert np.array_equal(known(rows, 1000, recording=late), known(rows, 10))


def test_the_identity_probe_says_so_where_all_sequences_overlap(trained, tmp_path, monkeypatch):
    real = module.people_of

    def overlapping(*arguments):
        people = real(*arguments)
        for person in people:
            person.samples_N2[:] = 0, 100
        return people

    monkeypatch.setattr(module, "people_of", overlapping)
    probe = run(trained, tmp_path / "overlap.json")["probes"]["identity"]
    assert "shares no sample" in probe["not_measured"]


def test_what_is_kept_of_the_tokens_gives_the_figures_of_all_tokens(trained):
    """Against all tokens of all people at once."""
    made, file = trained
    dataset = open_dataset(made.primary)
    backbone = Backbone(file, dataset, QUIET)
    people = module.people_of(backbone, dataset, sorted(PEOPLE)[:5], 4)
    resampling = Resampling(5, 100, np.random.default_rng(0))
    found = embedding_figures(embed(backbone, people, backbone.encoder), resampling)
    tokens = [backbone.tokens(p.samples_NKCS, p.valid_NK).double().cpu().numpy() for p in people]
    weights = [p.valid_NK / p.valid_NK.sum() for p in people]
    shown = list(zip(tokens, weights, strict=True))
    centre = np.mean([(t.mean(2) * w[..., None]).sum((0, 1)) for t, w in shown], axis=0)
    whole = sum(np.einsum("nkcd,nk->kcd", t, w) for t, w in shown)
    position = whole / np.maximum(sum(w.sum(0) for w in weights), 1e-12)[:, None, None]

    def spread(middle):
        return sum((((t - middle) ** 2).sum(-1).mean(-1) * w).sum() for t, w in shown)

    at_position = found["spread_at_a_position"]["value"]
    assert at_position == pytest.approx(spread(position) / spread(centre), rel=1e-9)
    channels = sum(
        (((t - t.mean(2, keepdims=True)) ** 2).sum(-1).mean(-1) * w).sum() for t, w in shown
    )
    assert found["spread_across_channels"]["value"] == pytest.approx(channels / spread(centre))
    rows = [t[p.valid_NK].reshape(-1, t.shape[-1]) for t, p in zip(tokens, people, strict=True)]
    values = np.linalg.svd(np.concatenate([r / len(r) ** 0.5 for r in rows]), compute_uv=False)
    share = values / values.sum() + 1e-7
    assert found["rankme"]["value"] == pytest.approx(np.exp(-(share * np.log(share)).sum()))


def test_covariates_are_used_only_where_there_are_enough(trained, found):
    assert found["probes"]["age"] == {"not_measured": "0 of 6 unseen participants have it"}
    assert "probe: age" not in [check["name"] for check in found["checks"]]


def test_mlflow_gets_the_main_figures_in_the_run_that_pretrained(trained, tmp_path, monkeypatch):
    from mlflow import MlflowClient

    made, _ = trained
    monkeypatch.chdir(tmp_path)
    tracked = Execution(device="cpu", training_threads=1)
    backbone, _ = made.pretrain(tmp_path / f"{NAME}.pt", epochs=1, execution=tracked)
    lines = []
    for _ in range(2):  # once more, as after a change of the settings
        found = run(
            trained,
            tmp_path / "d.json",
            backbone=backbone,
            execution=tracked,
            log=lines.append,
        )
    assert not any("warning" in line for line in lines)
    client = MlflowClient(f"sqlite:///{tmp_path}/results/mlflow.db")
    experiment = client.get_experiment_by_name("remit").experiment_id
    (kept,) = client.search_runs([experiment])
    assert kept.info.run_name == str(NAME) and kept.info.status == "FINISHED"
    statuses = [check["status"] for check in found["checks"]]
    figure = found["masked"]["as trained"]["waveform"]["all"]["squared"]["skill"]
    metrics = kept.data.metrics
    assert metrics["diagnostics_waveform_as_trained_squared_skill"] == figure["value"]
    assert metrics["diagnostics_waveform_as_trained_squared_skill_low"] == figure["low"]
    assert metrics["diagnostics_fail"] == statuses.count("fail")
    assert metrics["diagnostics_rankme"] == found["embedding"]["pretrained"]["rankme"]["value"]
    assert kept.data.tags["remit.diagnostics"] == ("fail" if "fail" in statuses else "warn")
    assert "d.json" in [file.path for file in client.list_artifacts(kept.info.run_id)]


def test_an_mlflow_server_that_is_away_changes_nothing(trained, found, tmp_path, monkeypatch):
    made, _ = trained
    monkeypatch.chdir(tmp_path)
    dead = Execution(device="cpu", training_threads=1, mlflow_uri="http://127.0.0.1:9")
    lines = []
    run(trained, tmp_path / "d.json", execution=dead, log=lines.append)
    assert sum(line.startswith("warning: MLflow could not be reached") for line in lines) == 1
    assert not any("\n" in line for line in lines)
    first = made.folder.parent / "diagnostics" / f"{NAME}.json"
    assert (tmp_path / "d.json").read_bytes() == first.read_bytes()


def test_spectra_of_what_was_hidden_are_those_of_scipy(trained):
    """In dB re white noise of unit variance: twice the density times half the rate, per token."""
    made, file = trained
    loaded = Loaded(file, made.primary)
    encoder, eps = loaded.backbone.encoder.settings, loaded.backbone.task.spectrum.eps
    looks = loaded.looks(loaded.participants[:2], 2)
    assert {look.participant for look in looks} == set(loaded.participants[:2])
    for look in looks:
        size = encoder.samples_per_token
        for channel in range(len(look.channels)):
            tokens_KS = look.true_TC[:, channel].reshape(-1, size)
            hidden_K = look.masked_TC[:, channel].reshape(-1, size)[:, 0]
            if not hidden_K.any():
                assert np.isnan(look.true_db_CF[channel]).all()
                continue
            hz, density_KF = periodogram(
                tokens_KS[hidden_K], loaded.backbone.rate, "hann", detrend=False
            )
            inner = np.isin(hz, look.hz_F) & (hz > 0) & (hz < hz[-1])
            power_KF = density_KF[:, inner] * loaded.backbone.rate / 2
            expected_F = 10 * np.log10(power_KF + eps).mean(0)
            found_F = look.true_db_CF[channel][np.isin(look.hz_F, hz[inner])]
            assert found_F == pytest.approx(expected_F, abs=0.05)
            assert np.isfinite(look.spectrum_db_CF[channel]).all()
            assert np.isfinite(look.waveform_db_CF[channel]).all()


def test_a_reconstruction_is_of_people_not_seen_and_the_same_every_time(trained, tmp_path):
    made, file = trained
    given = {"backbone": file, "primary": made.primary, "sequences": 2, "seed": 0}
    said = write_reconstruction(split=made.split, file=tmp_path / "r.png", **given)
    again = write_reconstruction(split=made.split, file=tmp_path / "again.png", **given)
    assert "participants that it has not seen" in said and "r.png" in said and again
    assert (tmp_path / "r.png").read_bytes() == (tmp_path / "again.png").read_bytes()


def test_nobody_left_is_one_line(trained, tmp_path):
    made, _ = trained
    backbone, _ = made.pretrain(tmp_path / f"{NAME}.pt", transductive=True, epochs=1)
    with pytest.raises(RemitError, match=r"has seen all \d+ validation and test participants"):
        run(trained, tmp_path / "none.json", backbone=backbone)
    assert not (tmp_path / "none.json").exists()
    given = {"backbone": backbone, "primary": made.primary, "split": made.split}
    with pytest.raises(RemitError, match="expected at least one that it has not seen") as error:
        write_reconstruction(**given, file=tmp_path / "no.png", sequences=2, seed=0)
    assert "\n" not in str(error.value) and not (tmp_path / "no.png").exists()


def test_a_backbone_without_its_head_is_one_line(trained, tmp_path):
    _, backbone = trained
    content = torch.load(backbone, weights_only=True)
    del content["decoder_state_dict"], content["sha256"]
    torch.save(content, tmp_path / f"{NAME}.pt")
    with pytest.raises(RemitError, match="holds no reconstruction head"):
        run(trained, tmp_path / "none.json", backbone=tmp_path / f"{NAME}.pt")


def verified(*arguments):
    """The exit code of `remit verify`."""
    try:
        return cli.main(["verify", *map(str, arguments)])
    except SystemExit as stop:
        return stop.code


@pytest.fixture
def laid_out(trained, found, tmp_path):
    """A folder as the workflow fills it: backbone, primary dataset, split and diagnostics."""
    made, backbone = trained
    files = {
        "backbone": tmp_path / naming.path("pretrained", model=str(NAME)),
        "primary dataset": tmp_path / naming.path("primary", dataset=found["dataset"]),
        "split": tmp_path / naming.path("split", dataset=found["dataset"]),
        "diagnostics": tmp_path / naming.path("diagnostics", model=str(NAME)),
    }
    for what, file in (("backbone", backbone), ("primary dataset", made.primary)):
        files[what].parent.mkdir(parents=True)
        shutil.copy(file, files[what])
    files["split"].parent.mkdir()
    shutil.copy(made.split, files["split"])
    files["diagnostics"].parent.mkdir()
    # An error more or less is no matter of these tests.
    for figures in (figures for kind in found["masked"].values() for figures in kind.values()):
        assert {"correlation", "variance_ratio"} < set(figures)
    files["diagnostics"].write_text(json.dumps(sound(found)))
    return files


def sound(found):
    """The same diagnostics with every failing figure set right."""
    good = json.loads(json.dumps(found))
    better = {"value": 0.1, "low": 0.05, "high": 0.2, "n": found["n"]}
    for figures in good["masked"]["as trained"].values():
        figures["correlation"] = better
        for error in ("squared", "robust"):
            figures["all"][error]["skill"] = better
    good["probes"]["band_power"]["all"]["difference"] = better
    own = good["embedding"]["pretrained"]
    own["rankme"] = own["spread_at_a_position"] = {**better, "value": 16.0}
    own["spread_across_channels"] = {**better, "value": 0.5}
    good["checks"] = checks_of(good)
    assert "fail" not in [check["status"] for check in good["checks"]]
    return good


def test_verify_prints_a_line_for_each_check_and_exits_1_on_a_fail(laid_out, capsys):
    file = laid_out["diagnostics"]
    for code in (0, 1):
        values = json.loads(file.read_text())
        if code:
            values["reload"]["bit_equal"] = False
            values["checks"] = checks_of(values)
            file.write_text(json.dumps(values))
        assert verified("--diagnostics", file) == code
        one = capsys.readouterr().out
        assert verified(laid_out["backbone"]) == code
        by_hand, what, rest = capsys.readouterr().out.split("\n", 2)  # no record says what made it
        assert str(laid_out["backbone"]) in by_hand and what.startswith("warn  nothing beside it")
        assert rest == one
        lines = one.splitlines()
        assert len(lines) == 1 + len(values["checks"]) + 4
        assert sum(line.startswith("fail ") for line in lines) == code
        assert sum("is the same" in line for line in lines) == 3
    assert verified() == 1
    assert "nothing to verify" in capsys.readouterr().err


def other_decoder(file):
    content = torch.load(file, weights_only=True)
    content["decoder_state_dict"]["waveform.bias"] += 1
    del content["sha256"]
    torch.save(content, file)


def flip(file, place):
    whole = bytearray(file.read_bytes())
    whole[place] ^= 8
    file.write_bytes(whole)


def flipped_weight(file):
    weights = torch.load(file, weights_only=True)["state_dict"]["embed.weight"].numpy().tobytes()
    flip(file, file.read_bytes().index(weights) + 3)


def flipped_sample(file):
    group = pq.ParquetFile(file).metadata.row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    (signal,) = [c for c in columns if c.path_in_schema.startswith(f"{CHANNELS[0]}.")]
    flip(file, signal.data_page_offset + signal.total_compressed_size // 2)


@pytest.mark.parametrize(
    ("what", "change", "says"),
    [
        ("backbone", other_decoder, "is another one now"),
        ("backbone", flipped_weight, "is damaged, or was changed"),
        ("primary dataset", flipped_sample, "primary_dataset.parquet"),
        ("split", lambda file: file.write_text(file.read_text() + " "), "is another one now"),
    ],
)
def test_verify_says_what_the_diagnostics_were_not_made_of(laid_out, capsys, what, change, says):
    change(laid_out[what])
    assert verified("--diagnostics", laid_out["diagnostics"]) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("fail ")]
    assert f"made of this {what}" in line and says in line


def test_verify_says_what_is_not_there_and_what_another_version_made(laid_out, capsys):
    laid_out["primary dataset"].unlink()
    assert verified(laid_out["backbone"]) == 0
    assert "is not there and was not compared" in capsys.readouterr().out
    values = json.loads(laid_out["diagnostics"].read_text())
    values["settings"]["result_version"] = "0.0.0"
    laid_out["diagnostics"].write_text(json.dumps(values))
    assert verified(laid_out["backbone"]) == 1
    assert "made by this version: version 0.0.0" in capsys.readouterr().out
    laid_out["backbone"].unlink()
    assert verified(laid_out["backbone"]) == 1
    assert "not found; expected a result's file" in capsys.readouterr().err


def test_verdicts_that_do_not_follow_from_the_figures_are_refused(laid_out, capsys):
    values = json.loads(laid_out["diagnostics"].read_text())
    values["masked"]["as trained"]["waveform"]["all"]["squared"]["skill"]["low"] = -0.3
    laid_out["diagnostics"].write_text(json.dumps(values))
    assert verified("--diagnostics", laid_out["diagnostics"]) == 1
    said = capsys.readouterr().err
    assert "check 'waveform skill, as trained masks'" in said and said.count("\n") == 1
    assert "(pass; by the figures warn)" in said


def test_the_page_refuses_diagnostics_of_something_else(trained, found, tmp_path):
    made, backbone = trained
    tuned, _ = made.finetune(backbone, tmp_path / "tuned.pt")
    given = {
        "card": tuned.with_suffix(".json"),
        "predictions": tuned.with_suffix(".parquet"),
        "primary": made.primary,
        "split": made.split,
        "diagnostics": tmp_path / "d.json",
        "page": tmp_path / "page.html",
        "curves": tmp_path / "curves.png",
        "label": "made",
    }
    given["diagnostics"].write_text(json.dumps(found))
    write_report(**given)
    assert "reload equality" in given["page"].read_text()
    for key in ("backbone_sha256", "content_sha256", "split_sha256"):
        given["diagnostics"].write_text(json.dumps({**found, key: "0" * 64}))
        with pytest.raises(RemitError, match="was made of another (backbone|primary|split)"):
            write_report(**given)


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
