"""The head, and what it says of new people: by the rule and by the command, warned and refused."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import LogisticRegression

from remit import cli, naming
from remit.config import Evaluation, Preprocessing, Simulation
from remit.dataset.primary import build_primary
from remit.dataset.windows import open_dataset, write_windows
from remit.errors import RemitError
from remit.evaluation import crossfit, estimates, predict
from remit.evaluation.folds import make_folds, read_folds, write_folds
from remit.evaluation.window_tables import embeddings
from remit.files import sha256_of
from remit.naming import ModelName
from remit.preprocessing.chain import preprocess
from remit.recordings.cohort import simulated_rows
from remit.recordings.registry import ReaderOptions, read_recording
from remit.recordings.simulate import simulate_cohort, write_edf
from remit.training.embed import EmbedSettings, embed
from tests.unit.recordings import matlab_made
from tests.unit.training.conftest import NAME, QUIET, RULE_MODEL, SEQUENCES, Bench, split_of

CHANNELS = ("AF7", "AF8", "TP9", "TP10")
CHAIN = Preprocessing(
    sampling_rate=64.0, window_seconds=2.0, lowpass={"cutoff_hz": 25.0, "order": 4}
)
OPTIONS = Evaluation(folds=3, repeats=2, inner_folds=2, strengths=[1.0, 10.0], permutations=19)


def cut(recording, samples):
    return replace(
        recording,
        signal_CS=recording.signal_CS[:, :samples].copy(),
        segments=(replace(recording.segments[0], stop=samples),),
    )


def windows_of(row, path, cohort, folder, scale=1.0, channels=CHANNELS, samples=None):
    """The windows of a recording, or of its first ``samples``, as the rule makes them; times ``scale``
    after the chain."""
    recording = read_recording(replace(row, path=str(path)), ReaderOptions())
    if samples is not None:
        recording = cut(recording, samples)
    windows = preprocess(recording, CHAIN, channels)
    if scale != 1.0:
        windows = replace(windows, signal_WCS=windows.signal_WCS * np.float32(scale))
    file = folder / f"{cohort}_{row.recording}_windows.parquet"
    write_windows(
        file,
        windows,
        recording=recording,
        remission=row.remission,
        cohort=cohort,
        settings={"preprocessing": CHAIN.model_dump(mode="json"), "version": "t"},
    )
    return file


def dataset_of(rows, folder, cohort, path_of, **options):
    files = [windows_of(row, path_of(row), cohort, folder, **options) for row in rows]
    out = folder / f"{cohort}.parquet"
    build_primary(files, out, cohort=cohort, channels=list(options.get("channels", CHANNELS)))
    return out


@dataclass
class Made:
    """A working directory with a model, its evaluation and its head."""

    root: Path
    primary: Path
    backbone: Path
    embeddings: Path
    folds: Path
    report: Path
    head_file: Path
    raw: Path

    @property
    def head(self):
        return predict.read_head(self.head_file, NAME)

    def fit(self, **files):
        given = {"embeddings": self.embeddings, "primary": self.primary, "folds": self.folds}
        settings = predict.HeadSettings(result_version="t", evaluation=OPTIONS)
        return predict.fit_head(
            name=NAME,
            settings=settings,
            log=lambda _: None,
            **{**given, "report": self.report, "output": self.head_file, **files},
        )

    def predict(self, corpus, head=None):
        return {
            one.participant: one
            for one in predict.predict(
                head=head or self.head,
                head_file=self.head_file,
                backbone=self.backbone,
                dataset=open_dataset(corpus),
                execution=QUIET,
            )
        }

    def cohort(self, corpus, cohort, output):
        lines = []
        predict.predict_cohort(
            name=NAME,
            cohort=cohort,
            head=self.head_file,
            backbone=self.backbone,
            corpus=corpus,
            output=output,
            execution=QUIET,
            result_version="t",
            log=lines.append,
        )
        return pq.read_table(output), lines


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("predict")
    (root / "raw").mkdir()
    simulation = Simulation(participants=10, minutes=0.4, remission_fraction=0.5, effect=1.0)
    rows = simulated_rows("simulated", simulation)
    raw = root / "raw"
    simulate_cohort(rows, simulation, lambda row: raw / f"{row.recording}.edf")
    primary = dataset_of(rows, root, "simulated", lambda row: raw / f"{row.recording}.edf")
    bench = Bench(root, primary, split_of(primary, root))
    backbone = root / naming.path("pretrained", model=str(NAME))
    bench.pretrain(backbone, epochs=1)
    file = root / naming.path("embeddings", model=str(NAME))
    embed(
        name=NAME,
        settings=EmbedSettings(result_version="t", model=RULE_MODEL, sequences=SEQUENCES),
        backbone=backbone,
        primary=primary,
        split_file=None,
        output=file,
        execution=QUIET,
        log=lambda _: None,
    )
    dataset = open_dataset(primary)
    keys = ("dataset", "content_sha256", "simulated")
    folds = root / "folds.json"
    given = {key: dataset.metadata[key] for key in keys}
    write_folds(folds, make_folds(dataset.labels, OPTIONS, **given))
    report = root / naming.path("evaluation", model=str(NAME))
    report.parent.mkdir(parents=True)
    report.write_text(json.dumps(report_of(file, folds)))
    head = root / naming.path("head", model=str(NAME))
    whole = Made(root, primary, backbone, file, folds, report, head, raw)
    whole.fit()
    return whole


def report_of(file, folds_file):
    """What of an evaluation's report a head needs, made by the same functions."""
    folds = read_folds(folds_file)
    table = embeddings(file, folds, model=str(NAME))
    fit = crossfit.crossfit(table, folds, OPTIONS, crossfit.permuted(folds.label_P, 19, 0))
    found = estimates.figures(
        folds.label_P,
        fit.probability_RP,
        fit.decision_RP,
        fit.fold_RP,
        seed=0,
        resamples=200,
        null_auc_S=fit.null_auc_S,
    )
    mean_P = fit.probability_RP.mean(0)
    return {
        "model": str(NAME),
        "headline": ["SIMULATED data: this says nothing about people.", "AUC 0.5 for all."],
        "dataset": {"content_sha256": folds.content_sha256, "label": "simulated remission"},
        "folds": {"sha256": sha256_of(folds_file)},
        "pretraining": {"mode": "transductive", "transductive": True, "seen": []},
        "candidates": [
            {"kind": "chance"},
            {
                "kind": "model",
                "figures": found,
                "permutation": {"p": fit.p_value},
                "predictions": [
                    {"participant": name, "label": int(label), "probability": float(p)}
                    for name, label, p in zip(folds.names, folds.label_P, mean_P, strict=True)
                ],
            },
        ],
    }


@pytest.fixture(scope="module")
def others(made, tmp_path_factory):
    """A cohort of three whom nothing was fitted on."""
    folder = tmp_path_factory.mktemp("others")
    simulation = Simulation(participants=3, minutes=0.4, seed=99)
    rows = simulated_rows("others", simulation)
    simulate_cohort(rows, simulation, lambda row: folder / f"{row.recording}.edf")
    return rows, folder, dataset_of(rows, folder, "others", lambda r: folder / f"{r.recording}.edf")


def command(made, *arguments):
    execution = json.dumps({"device": "cpu", "mlflow": False, "training_threads": 1})
    given = [
        "predict",
        "--model",
        str(NAME),
        "--root",
        str(made.root),
        "--execution",
        execution,
    ] + [str(argument) for argument in arguments]
    try:
        return cli.main(given)
    except SystemExit as left:
        return left.code


# The head ---------------------------------------------------------------------------------------


def test_the_head_is_scikit_learns_on_everybody(made):
    """The mean over a participant's windows of the probability, by LogisticRegression on their means."""
    head, folds = made.head, read_folds(made.folds)
    table = embeddings(made.embeddings, folds, model=str(NAME))
    mean_PX = np.stack([table.rows_NX[table.participant_N == p].mean(0) for p in range(10)])
    scale = mean_PX.std(0)
    strength = head["readout"]["strength"]
    fit = LogisticRegression(C=1 / strength, tol=1e-10, max_iter=10000)
    fit.fit((mean_PX - mean_PX.mean(0)) / scale, folds.label_P)
    window_N = fit.predict_proba((table.rows_NX - mean_PX.mean(0)) / scale)[:, 1]
    expected = [window_N[table.participant_N == p].mean() for p in range(10)]
    head["calibration"] |= {"slope": 0.7}
    head["readout"] |= {"threshold": float(np.median(expected))}
    found = made.predict(made.primary, head)
    np.testing.assert_allclose([found[name].raw for name in folds.names], expected, atol=1e-5)
    decisions = {name: one.decision for name, one in found.items()}
    assert decisions == {
        name: int(one.raw >= head["readout"]["threshold"]) for name, one in found.items()
    }
    assert set(decisions.values()) == {0, 1}


def test_whoever_is_given_the_prevalence_is_given_no_decision(made, others):
    """A threshold on the uncalibrated probability would tell apart whom the evaluation could not."""
    head = made.head
    head["calibration"] |= {"slope": 0.0, "intercept": 0.0}
    (row,) = predict.recordings_in(next(others[1].glob("*.edf")), ReaderOptions())
    for one in made.predict(others[2], head).values():
        assert one.probability == 0.5 and one.raw is not None and one.decision is None
        line = predict.line_of(row, one, head)
        assert "no decision: everybody is given the prevalence" in line and "threshold" not in line


@pytest.mark.parametrize(("mode", "says"), [("per_fold", True), ("held_out", False)])
def test_a_backbone_without_a_figure_of_its_own_is_said(made, mode, says):
    head = made.head
    head["evaluation"]["pretraining"] |= {"mode": mode}
    lines = predict.notice(head)
    assert lines[: len(head["evaluation"]["headline"])] == head["evaluation"]["headline"]
    seen = head["participants"]["seen_by_backbone"]
    assert 0 < seen < 10  # some of them decide when pretraining stops, or are held back
    said = [line for line in lines if "ANOTHER BACKBONE" in line]
    assert bool(said) is says and all(f"has seen {seen} of the 10" in line for line in said)


def test_the_same_files_give_the_same_head(made, tmp_path):
    made.fit(output=tmp_path / "head.json")
    assert (tmp_path / "head.json").read_bytes() == made.head_file.read_bytes()


def calibration(slope, probability, label):
    own = {
        "kind": "model",
        "figures": {"calibration": {"slope": {"value": slope, "low": None, "high": 9.0}}},
        "predictions": [
            {"label": int(y), "probability": float(p)}
            for y, p in zip(label, probability, strict=True)
        ],
    }
    return predict.calibration_of({"candidates": [own]})


def test_a_defined_slope_gives_the_logistic_recalibration():
    """Slope and intercept of an unpenalised LogisticRegression of label on log odds."""
    rng = np.random.default_rng(0)
    odds = rng.normal(0, 1.5, 200)
    label = rng.random(200) < 1 / (1 + np.exp(-(0.6 * odds - 0.8)))
    fit = LogisticRegression(C=1e12, tol=1e-10, max_iter=10000).fit(odds[:, None], label)
    probability = 1 / (1 + np.exp(-odds))
    its = calibration(float(fit.coef_[0, 0]), probability, label)
    assert its["slope"] == fit.coef_[0, 0]
    assert its["intercept"] == pytest.approx(fit.intercept_[0], abs=1e-4)
    corrected = [predict.calibrated({"calibration": its}, p) for p in probability]
    np.testing.assert_allclose(corrected, fit.predict_proba(odds[:, None])[:, 1], atol=1e-4)
    assert np.mean(corrected) == pytest.approx(label.mean(), abs=1e-6)


@pytest.mark.parametrize("slope", [-0.7, 0.0])
def test_a_slope_that_turns_the_order_round_gives_everybody_the_prevalence(slope):
    its = calibration(slope, [0.2, 0.4, 0.6, 0.7], [1, 1, 0, 0])
    corrected = [predict.calibrated({"calibration": its}, p) for p in (0.0, 0.3, 1.0)]
    np.testing.assert_allclose(corrected, 0.5, atol=1e-9)
    assert "everybody has the prevalence" in its["how"]


def test_an_undefined_slope_is_taken_as_zero_where_the_classes_are_not_in_their_order():
    for probability in ([0.6, 0.7, 0.2, 0.4], [0.3] * 4):
        its = calibration(None, probability, [0, 0, 1, 1])
        assert its["slope"] == 0.0 and "everybody has the prevalence" in its["how"]
        assert predict.calibrated({"calibration": its}, 0.9) == pytest.approx(0.5)


def test_an_undefined_slope_of_separated_classes_is_taken_as_one_and_said():
    its = calibration(None, [0.2, 0.4, 0.6, 0.7], [0, 0, 1, 1])
    assert its["slope"] == 1.0 and "not defined" in its["how"]
    corrected = [predict.calibrated({"calibration": its}, p) for p in (0.2, 0.4, 0.6, 0.7)]
    assert np.mean(corrected) == pytest.approx(0.5) and corrected == sorted(corrected)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r: r | {"model": "mamba2_eeg_d8_l1_m20_mae"}, "model is mamba2_eeg_d8_l1_m20_mae"),
        (lambda r: r | {"folds": {"sha256": "0"}}, "folds is 0; expected"),
        (lambda r: r | {"dataset": {"content_sha256": "1", "label": "x"}}, "dataset is 1"),
        (lambda r: {k: v for k, v in r.items() if k != "candidates"}, "lacks 'candidates'"),
        (lambda r: [r], "is of another form"),
        (lambda r: r | {"candidates": []}, "is of another form"),
    ],
)
def test_a_report_of_something_else_is_refused(made, tmp_path, change, says):
    file = tmp_path / "report.json"
    file.write_text(json.dumps(change(json.loads(made.report.read_text()))))
    with pytest.raises(RemitError, match=says):
        made.fit(report=file, output=tmp_path / "head.json")
    assert not (tmp_path / "head.json").exists()


# A cohort ---------------------------------------------------------------------------------------


def test_a_cohort_is_predicted_with_the_same_bytes_again(made, others, tmp_path):
    rows, _, corpus = others
    table, lines = made.cohort(corpus, "others", tmp_path / "a.parquet")
    made.cohort(corpus, "others", tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert table["Participant"].to_pylist() == sorted(row.participant for row in rows)
    assert all(0 < p < 1 for p in table["probability"].to_pylist())
    assert table["trained_on"].to_pylist() == ["", "", ""]
    assert any(predict.NO_DEVICE in line for line in lines)
    said = json.loads(table.schema.metadata[b"remit"])
    assert said["head_sha256"] == sha256_of(made.head_file) and said["simulated"] is True
    assert "z_amplitude_AF7" in table.column_names and "z_alpha_TP10" in table.column_names


def test_the_rule_and_the_command_say_the_same_of_a_recording(made, others, tmp_path, capsys):
    rows, folder, corpus = others
    table, _ = made.cohort(corpus, "others", tmp_path / "a.parquet")
    by_rule = {row["Participant"]: row for row in table.to_pylist()}
    files = [folder / f"{row.recording}.edf" for row in rows]
    assert command(made, "--json", *files) == 0
    said = json.loads(capsys.readouterr().out)
    assert predict.NO_DEVICE in said["notice"]
    for row, found in zip(rows, said["recordings"], strict=True):
        own = by_rule[row.participant]
        for key in ("probability", "probability_raw", "decision", "windows_used", "quality"):
            assert found[key] == own[key], key
        assert found["warnings"] == [text for text in own["warnings"].split("; ") if text]
        z = [own[f"z_{key}"] for key in found["z"]]
        np.testing.assert_allclose(list(found["z"].values()), z, rtol=1e-6)


def test_a_command_prints_a_line_for_each_recording_and_what_the_evaluation_was(
    made, others, capsys
):
    rows, folder, _ = others
    assert command(made, folder / f"{rows[0].recording}.edf") == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("SIMULATED data")
    assert out[1] == "AUC 0.5 for all."  # the evaluation's headline, word for word
    assert "No interval stands beside a person's probability" in out[2]
    assert out[3].startswith("Calibration: slope ") and "5 in 10" in out[3]
    assert out[4] == predict.NO_DEVICE
    assert out[5].startswith(
        f"{folder / rows[0].recording}.edf: probability of class 1 of simulated remission"
    )
    assert "prevalence 5 of 10" in out[5] and "windows" in out[5]


def test_whom_the_model_was_made_with_is_marked(made, others, tmp_path, capsys):
    """Under another name, in another cohort, and cut."""
    rows = others[0]
    known = sorted(made.raw.glob("*.edf"))[0]
    stranger = replace(rows[0], participant="stranger", recording="stranger")
    corpus = dataset_of([stranger], tmp_path, "copies", lambda _: known, samples=4096)
    found = made.predict(corpus)["stranger"]
    assert "head" in found.trained_on
    assert "was made with this person" in found.warnings[0]
    assert command(made, "--json", known) == 0
    (said,) = json.loads(capsys.readouterr().out)["recordings"]
    assert "head" in said["trained_on"]


def test_an_amplitude_that_nobody_had_is_warned_of(made, others, tmp_path):
    rows, folder, corpus = others
    path_of = {row.recording: folder / f"{row.recording}.edf" for row in rows}
    loud = dataset_of(rows, tmp_path, "loud", lambda row: path_of[row.recording], scale=100.0)
    before = made.predict(corpus)
    for who, found in made.predict(loud).items():
        assert any(text.startswith("amplitude outside") for text in found.warnings)
        assert found.raw == pytest.approx(before[who].raw, abs=1e-3)  # the scale is taken out


def test_a_spectrum_that_nobody_had_is_warned_of(made, others, tmp_path):
    """A tone of 20 Hz over all electrodes."""
    rows, folder, _ = others
    recording = read_recording(
        replace(rows[0], path=str(folder / f"{rows[0].recording}.edf")), ReaderOptions()
    )
    time = np.arange(recording.signal_CS.shape[1]) / recording.sampling_rate
    tone_CS = recording.signal_CS + np.float32(40) * np.sin(2 * np.pi * 20 * time).astype(
        np.float32
    )
    write_edf(replace(recording, signal_CS=tone_CS.astype(np.float32)), tmp_path / "tone.edf")
    (row,) = predict.recordings_in(tmp_path / "tone.edf", ReaderOptions())
    found = predict.predict_recording(
        row,
        head=made.head,
        head_file=made.head_file,
        backbone=made.backbone,
        options=ReaderOptions(),
        execution=QUIET,
    )
    (spectrum,) = [text for text in found.warnings if text.startswith("spectrum outside")]
    assert "beta at" in spectrum and "alpha at" not in spectrum


def test_a_recording_with_few_good_windows_is_warned_of_and_one_without_has_no_probability(
    made, others, tmp_path
):
    rows, folder, _ = others
    two = []
    for row, name, good_seconds in ((rows[0], "few", 6), (rows[1], "none", 0)):
        path = folder / f"{row.recording}.edf"
        recording = read_recording(replace(row, path=str(path)), ReaderOptions())
        flat_CS = recording.signal_CS.copy()
        flat_CS[0, int(good_seconds * recording.sampling_rate) :] = 0
        write_edf(replace(recording, signal_CS=flat_CS), tmp_path / f"{name}.edf")
        two.append(replace(row, participant=name, recording=name))
    corpus = dataset_of(two, tmp_path, "bad", lambda row: tmp_path / f"{row.recording}.edf")
    found = made.predict(corpus)
    assert 0 < found["few"].windows_used < found["few"].windows / 2
    assert any("windows are bad" in text for text in found["few"].warnings)
    assert any("everybody whom the head was fitted on" in text for text in found["few"].warnings)
    assert found["none"].probability is None and found["none"].decision is None
    assert "no window of good quality: no probability" in found["none"].warnings
    table, _ = made.cohort(corpus, "bad", tmp_path / "p.parquet")
    assert table["probability"].null_count == 1


def test_the_cohort_of_the_head_is_refused(made, tmp_path):
    with pytest.raises(
        RemitError, match=r"out of fold stand in results/evaluation/.*/report\.json"
    ):
        made.cohort(made.primary, "simulated", tmp_path / "p.parquet")


def test_a_cohort_with_other_channels_is_refused(made, others, tmp_path):
    rows, folder, _ = others
    corpus = dataset_of(
        rows,
        tmp_path,
        "three",
        lambda row: folder / f"{row.recording}.edf",
        channels=("AF7", "AF8", "TP9"),
    )
    with pytest.raises(RemitError, match="without TP10; expected AF7, AF8, TP9, TP10"):
        made.cohort(corpus, "three", tmp_path / "p.parquet")


def test_a_backbone_that_is_not_the_heads_is_refused(made, others, tmp_path):
    head = json.loads(made.head_file.read_text())
    head["backbone"]["backbone_sha256"] = "0" * 64
    with pytest.raises(RemitError, match="backbone_sha256 is .*; expected 000"):
        made.predict(others[2], head)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is no JSON"),
        ("{}", "is no head"),
        ("[]", "is no head"),
        ('{"kind": "head", "model": 3}', "was changed by hand"),
    ],
)
def test_a_file_that_is_no_head_is_refused(tmp_path, text, says):
    file = tmp_path / "head.json"
    file.write_text(text)
    with pytest.raises(RemitError, match=says):
        predict.read_head(file, NAME)


def test_a_head_that_was_changed_by_hand_is_refused(made, tmp_path):
    head = made.head
    head["readout"]["coefficient"][0] += 1e-9
    (tmp_path / "head.json").write_text(json.dumps(head))
    with pytest.raises(RemitError, match="was changed by hand"):
        predict.read_head(tmp_path / "head.json", NAME)


def test_a_head_of_another_model_is_refused(made):
    with pytest.raises(RemitError, match="model is .*; expected mamba2_eeg_d8_l1_m20_mae"):
        predict.read_head(made.head_file, ModelName(8, 1, 20, "mae"))


# Files ------------------------------------------------------------------------------------------


def test_what_cannot_be_predicted_is_refused_in_a_line_each_and_the_others_are_not(
    made, others, tmp_path, capsys
):
    rows, folder, _ = others
    good = folder / f"{rows[0].recording}.edf"
    recording = read_recording(replace(rows[0], path=str(good)), ReaderOptions())
    write_edf(recording.pick(["AF7", "AF8", "TP9"]), tmp_path / "three.edf")
    write_edf(cut(recording, 256), tmp_path / "short.edf")
    (tmp_path / "text.edf").write_text("no recording")
    names = ("three.edf", "short.edf", "text.edf", "absent.edf")
    assert command(made, *(tmp_path / name for name in names), good) == 1
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert len(lines) == 4
    for line, name, says in zip(
        lines, names, ("no channel 'TP10'", "2 s", "its beginning", "is not there"), strict=True
    ):
        assert line.startswith(f"remit: {tmp_path / name}: ") and says in line
    assert shown.out.splitlines()[-1].startswith(f"{good}: probability of ")
    assert command(made, "--json", tmp_path / "short.edf") == 1
    (said,) = json.loads(capsys.readouterr().out)["recordings"]
    assert set(said) == {"recording", "refused"}


def test_a_rate_too_low_for_the_model_and_a_unit_without_meaning_are_refused(
    made, tmp_path, capsys
):
    rng = np.random.default_rng(0)
    time = np.arange(0, 20, 1 / 128)
    for name, unit_scale, step in (("slow", 1.0, 4), ("counts", 2e4, 1)):
        rows = rng.normal(0, 20 * unit_scale, (len(time[::step]), 4))
        lines = [",".join(map(str, row)) for row in np.column_stack([time[::step], rows]).tolist()]
        text = "\n".join(["time," + ",".join(CHANNELS), *lines])
        (tmp_path / f"{name}.csv").write_text(text + "\n")
    assert command(made, tmp_path / "slow.csv", "--units", "uV") == 1
    assert "samples per second" in capsys.readouterr().err
    assert command(made, tmp_path / "counts.csv", "--units", "uV") == 1
    assert "its unit or scaling is wrong" in capsys.readouterr().err


def test_without_a_head_the_command_says_how_to_make_it(made, tmp_path, capsys):
    assert cli.main(["predict", "--model", str(NAME), "--root", str(tmp_path), "x.edf"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "head.json: cannot be read" in line and "snakemake" in line


def test_a_real_recording_is_told_from_the_simulated_people_of_the_head(
    made, shared_data, tmp_path, capsys
):
    file = sorted((shared_data / "muse" / "subject102").rglob("*.csv"))[0]
    shutil.copy(file, tmp_path / "a person.csv")  # a name that is no id
    assert command(made, "--json", tmp_path / "a person.csv") == 0
    whole = json.loads(capsys.readouterr().out)
    assert (whole["label"], whole["prevalence"]) == ("simulated remission", 0.5)
    (said,) = whole["recordings"]
    assert "the head was fitted on simulated people and this is a real one" in said["warnings"]
    assert said["trained_on"] == []


def test_a_file_of_several_recordings_has_a_line_for_each_that_can_be_predicted(
    made, others, tmp_path, capsys
):
    """The study's .mat file, in which one participant's windows are too short."""
    rows, folder, _ = others
    path = folder / f"{rows[0].recording}.edf"
    signal_CS = read_recording(replace(rows[0], path=str(path)), ReaderOptions()).signal_CS
    windows = [signal_CS[:, first : first + 2048].T for first in (0, 2048)]
    arrays = {"Remission": [windows, "7"], "Non_remission": [[signal_CS[:, :256].T], "8"]}
    variables = {}
    for name, (cells, person) in arrays.items():
        own = np.empty((1, 2), dtype=object)
        own[0, 0], own[0, 1] = cells, person
        variables[f"EEG_windows_{name}"] = own
    matlab_made.save(tmp_path / "study.mat", "5", variables)
    names = ["--sampling-rate", "256", "--channel-names", ",".join(CHANNELS)]
    assert command(made, "--json", tmp_path / "study.mat", *names) == 1
    shown = capsys.readouterr()
    found, refused = json.loads(shown.out)["recordings"]
    assert found["recording"] == f"{tmp_path / 'study.mat'}, entry Remission/1"
    assert found["windows"] == 8 and 0 < found["probability"] < 1
    assert refused["recording"].endswith("entry Non_remission/1") and "1 s" in refused["refused"]


def test_a_participants_recordings_count_by_their_windows(made, others, tmp_path):
    """Two recordings of one participant: the mean over all windows, and the warnings name theirs."""
    rows, folder, _ = others
    path_of = {row.recording: folder / f"{row.recording}.edf" for row in rows}
    long, short = (
        rows[0],
        replace(rows[1], participant=rows[0].participant, remission=rows[0].remission),
    )
    files = [
        windows_of(long, path_of[long.recording], "both", tmp_path),
        windows_of(short, path_of[short.recording], "both", tmp_path, scale=100.0, samples=2048),
    ]
    build_primary(files, tmp_path / "both.parquet", cohort="both", channels=list(CHANNELS))
    alone = []
    for name, row, options in (("a", long, {}), ("b", short, {"scale": 100.0, "samples": 2048})):
        corpus = dataset_of([row], tmp_path, name, lambda r: path_of[r.recording], **options)
        alone += made.predict(corpus).values()
    (found,) = made.predict(tmp_path / "both.parquet").values()
    used = [one.windows_used for one in alone]
    assert used[0] > used[1] > 0 and found.windows_used == sum(used)
    expected = np.average([one.raw for one in alone], weights=used)
    assert found.raw == pytest.approx(expected, abs=1e-9)
    assert found.recordings == (long.recording, short.recording)
    assert any(text.startswith(f"{short.recording}: amplitude outside") for text in found.warnings)
