"""The whole chain, tiny: raw recordings to a fine-tuned checkpoint, its report and MLflow."""

import json
import re
import shutil
import textwrap
import zipfile

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from scipy.io import savemat

from remit.dataset.windows import ParquetWriter, open_dataset
from tests.conftest import BIN, ROOT, remit, run, snakemake
from tests.unit.test_provenance import check_every_result

pytestmark = pytest.mark.e2e

MODEL = "mamba2_eeg_d32_l1_m50_mae"
TARGET = f"results/finetuned/{MODEL}_finetuned_best.pt"
REPORT = f"results/evaluation/{MODEL}_finetuned/report.html"
DATASET = "8s_af7-af8-tp9-tp10"
FIGURES = [f"results/figures/{DATASET}/{name}.png" for name in ("flow", "signal")]
PRIMARY = f"results/primary/{DATASET}_primary_dataset.parquet"
TINY = {
    "model": {"d_model": 32, "num_layers": 1, "d_state": 16, "headdim": 32},
    "pretraining": {"epochs": 2, "least_steps": 0, "batch_size": 4},
    "finetuning": {"epochs": 4},
    "execution": {"device": "cpu", "training_threads": 1},
}
SIMULATED = {
    "simulated": {"simulate": {"participants": 10, "minutes": 0.6, "remission_fraction": 0.5}}
}


def write_config(folder, name="mine.yaml", **settings):
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(yaml.safe_dump(TINY | {"cohorts": SIMULATED} | settings))
    return file


def build(folder, *targets, config):
    done = snakemake(*targets, cwd=folder, config=config)
    assert done.returncode == 0, done.stdout
    return done.stdout


def fails(folder, *targets, config, in_a_job=True):
    """What a person sees when a job fails: one line of ours, again at the end, and no traceback."""
    done = snakemake(*targets, "--cores", "1", cwd=folder, config=config)
    assert done.returncode != 0, done.stdout
    assert "Traceback" not in done.stdout, done.stdout
    lines = [line for line in done.stdout.splitlines() if line.startswith("remit: ")]
    assert len(lines) == 1, done.stdout
    assert (f"In short: {lines[0]}" in done.stdout) is in_a_job, done.stdout
    return lines[0]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    config = write_config(folder)
    output = build(folder, TARGET, REPORT, *FIGURES, config=config)
    return folder, config, output


def test_the_main_job_builds_everything_and_then_nothing(built):
    folder, config, output = built
    for name in (
        TARGET,
        TARGET.replace(".pt", ".json"),
        PRIMARY,
        f"results/pretrained/{MODEL}.pt",
        f"results/pretrained/{MODEL}.json",
        f"results/splits/{DATASET}_split.json",
        f"results/predictions/{MODEL}_finetuned/simulated.parquet",
        REPORT,
    ):
        assert (folder / name).stat().st_size > 0
    assert len(re.findall(r"epoch \d+/2 train ", output)) == 2
    assert len(re.findall(r"epoch \d+/4 train ", output)) == 4
    assert not list(folder.rglob("*.state"))
    assert not [p for p in folder.rglob("*.tmp*") if ".snakemake" not in p.parts]
    assert "Nothing to be done" in build(folder, TARGET, REPORT, config=config)


def test_every_result_says_what_made_it(built):
    folder, _, _ = built
    kinds = {"simulated", "cohort_sheet", "windows", "primary", "split", "pretrained"}
    kinds |= {f"figure_{name}" for name in ("flow", "demographics", "quality", "spectra", "split")}
    kinds |= {"figure_signal"}
    kinds |= {"pretrained_card", "diagnostics", "diagnostics_skill", "diagnostics_bands", "history"}
    check_every_result(
        folder, kinds | {"finetuned", "finetuned_card", "predictions", "model_report"}
    )
    done = remit("verify", REPORT, TARGET, PRIMARY, cwd=folder)
    assert done.returncode == 0 and "MLflow run" in done.stdout, done.stdout
    split = folder / f"results/splits/{DATASET}_split.json"
    before = split.read_bytes()
    try:
        split.write_bytes(before + b"\n")
        done = remit("verify", REPORT, cwd=folder)
    finally:
        split.write_bytes(before)
    assert done.returncode == 1 and "foreign: not as 'split' wrote it" in done.stdout, done.stdout
    assert f"pretrained/{MODEL}.pt: stale: made of another" in done.stdout, done.stdout


def test_simulated_data_are_marked_in_data_metrics_and_report(built):
    folder, _, output = built
    metadata = json.loads(pq.read_schema(folder / PRIMARY).metadata[b"remit"])
    assert metadata["simulated"] is True
    card = json.loads((folder / TARGET.replace(".pt", ".json")).read_text())
    assert card["data"]["simulated"] is True
    assert card["pretrained"]["data"]["simulated"] is True
    assert json.loads((folder / f"results/splits/{DATASET}_split.json").read_text())["simulated"]
    page = (folder / REPORT).read_text()
    assert "SIMULATED DATA" in page.split("<h2>")[0]
    kept = re.findall(r"kept (\d+) of (\d+) s, \d+ of \d+ windows", page)
    people = len(open_dataset(folder / PRIMARY).participants)
    assert len(kept) == people and all(int(part) <= int(whole) for part, whole in kept)
    assert "SIMULATED" in output
    schema = pq.read_schema(folder / f"results/predictions/{MODEL}_finetuned/simulated.parquet")
    assert schema.metadata[b"simulated"] == b"true"


def test_the_primary_dataset_is_to_the_contract(built):
    folder, _, _ = built
    table = pq.read_table(folder / PRIMARY)
    assert table.column_names[:7] == [
        "Participant",
        "Remission",
        "recording",
        "parent_window_id",
        "sub_window_id",
        "window_start",
        "window_end",
    ]
    assert table.column_names[7:11] == ["AF7", "AF8", "TP9", "TP10"]
    assert table.schema.field("AF7").type.list_size == 8 * 256
    frame = table.to_pandas()
    order = ["Participant", "recording", "parent_window_id", "sub_window_id"]
    assert frame[order].equals(frame[order].sort_values(order, ignore_index=True))
    assert len(frame) == 40
    assert abs(float(np.mean(frame["AF7"].iloc[0]))) < 1e-3  # no offset left


def test_predictions_are_one_per_participant_and_agree_with_the_metrics(built):
    folder, _, _ = built
    file = folder / f"results/predictions/{MODEL}_finetuned/simulated.parquet"
    frame = pq.read_table(file).to_pandas()
    assert frame["Participant"].is_unique
    assert len(frame) == 10
    split = json.loads((folder / f"results/splits/{DATASET}_split.json").read_text())
    assert dict(zip(frame["Participant"], frame["part"], strict=True)) == split["participants"]
    card = json.loads((folder / TARGET.replace(".pt", ".json")).read_text())
    for part, rows in frame.groupby("part"):
        accuracy = ((rows["probability"] >= 0.5) == rows["Remission"]).mean()
        assert card["metrics"][part]["accuracy"]["value"] == pytest.approx(accuracy)
        assert card["metrics"][part]["n"] == len(rows)


def test_two_runs_give_bit_identical_tensors(built, tmp_path):
    folder, _, _ = built
    config = write_config(tmp_path / "again", execution={**TINY["execution"], "mlflow": False})
    build(tmp_path / "again", "--cores", "1", TARGET, config=config)
    one = torch.load(folder / TARGET, weights_only=True)["state_dict"]
    two = torch.load(tmp_path / "again" / TARGET, weights_only=True)["state_dict"]
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)
    simulated = "results/simulated/simulated/sim-001_rest.edf"
    assert (folder / simulated).read_bytes() == (tmp_path / "again" / simulated).read_bytes()
    assert (folder / PRIMARY).read_bytes() == (tmp_path / "again" / PRIMARY).read_bytes()


def test_mlflow_holds_the_runs_their_links_the_dataset_and_the_model(built):
    folder, _, _ = built
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/results/mlflow.db")
    experiment = client.get_experiment_by_name("remit")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    tuned, pretrained = runs[f"{MODEL}_finetuned"], runs[MODEL]
    dataset = runs[f"EEG_{DATASET}_40windows_primary"]
    assert all(run.info.status == "FINISHED" for run in runs.values())
    assert tuned.data.tags["remit.pretraining_run_id"] == pretrained.info.run_id
    assert tuned.data.tags["remit.dataset_run_id"] == dataset.info.run_id
    assert tuned.data.tags["remit.simulated"] == "true"
    assert tuned.data.params["finetuning.epochs"] == "4"
    assert tuned.data.params["pretraining.pretraining.epochs"] == "2"
    history = client.get_metric_history(tuned.info.run_id, "val_f1")
    assert [point.step for point in history] == [1, 2, 3, 4]
    assert tuned.data.params["mask_percent"] == "50"
    assert tuned.data.metrics["test_n"] == 2
    assert tuned.data.metrics["test_accuracy_low"] <= tuned.data.metrics["test_accuracy"]
    assert len(client.get_metric_history(pretrained.info.run_id, "held_out_loss")) == 2
    evidence = json.loads((folder / f"results/diagnostics/{MODEL}.json").read_text())
    rank = evidence["embedding"]["pretrained"]["rankme"]["value"]
    assert pretrained.data.metrics["diagnostics_rankme"] == rank
    assert pretrained.data.tags["remit.diagnostics"] in ("warn", "fail")
    for found in (tuned, pretrained, dataset):
        (entry,) = found.inputs.dataset_inputs
        assert entry.dataset.name == f"EEG_{DATASET}_40windows_primary"
    tags = {tag.key: tag.value for tag in dataset.inputs.dataset_inputs[0].tags}
    assert tags["remit.dataset"] == DATASET
    assert tags["remit.windows"] == "40"
    (version,) = client.search_model_versions(f"name='{MODEL}_finetuned'")
    assert version.tags["simulated"] == "true"


def test_the_registered_model_loads_without_this_package_and_predicts_the_same(built):
    folder, _, _ = built
    frame = pq.read_table(folder / f"results/predictions/{MODEL}_finetuned/simulated.parquet")
    person, expected = frame["Participant"][0].as_py(), frame["probability"][0].as_py()
    code = textwrap.dedent(f"""
        import sys
        sys.modules["remit"] = None  # importing it now fails
        import mlflow, numpy as np, pyarrow.parquet as pq
        mlflow.set_tracking_uri("sqlite:///results/mlflow.db")
        model = mlflow.pyfunc.load_model("models:/{MODEL}_finetuned/1")
        rows = pq.read_table("{PRIMARY}", filters=[("Participant", "=", "{person}"), ("good", "=", True)])
        channels = [np.stack(rows[name].to_pylist()) for name in ("AF7", "AF8", "TP9", "TP10")]
        print("probability", np.asarray(model.predict(np.stack(channels, 1).astype(np.float32)))[0, 1])
    """)
    done = run(BIN / "python", "-c", code, cwd=folder)
    assert done.returncode == 0, done.stdout
    assert float(done.stdout.split("probability")[-1]) == pytest.approx(expected, abs=1e-5)


def test_a_sweep_ends_in_one_table(built):
    folder, _, _ = built
    config = write_config(
        folder, "sweep.yaml", sweep={"mask_percents": [40, 50], "masking_styles": ["mae", "bert"]}
    )
    build(folder, "sweep", config=config)
    lines = (folder / "results/evaluation/sweep/comparison.tsv").read_text().splitlines()
    header = lines[0].split("\t")
    rows = [dict(zip(header, line.split("\t"), strict=True)) for line in lines[1:]]
    assert [(row["masking_style"], row["mask_percent"]) for row in rows] == [
        ("bert", "40"),
        ("bert", "50"),
        ("mae", "40"),
        ("mae", "50"),
    ]
    assert {row["simulated"] for row in rows} == {"true"}
    page = folder / "results/evaluation/sweep/comparison.html"
    assert "SIMULATED" in page.read_text()
    links = re.findall(r'<td[^>]*><a href="([^"]*report.html)"', page.read_text())
    assert len(links) == 4 and all((page.parent / link).is_file() for link in links)
    assert (folder / "results/figures/sweep.png").stat().st_size > 10_000
    same = pq.read_table(page.with_suffix(".parquet")).to_pylist()
    assert [row["model"] for row in same] == [row["model"] for row in rows]
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/results/mlflow.db")
    experiment = client.get_experiment_by_name("remit").experiment_id
    (parent,) = client.search_runs([experiment], "tags.`remit.stage` = 'sweep'")
    of_parent = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    found = {run.info.run_id: run.data.tags for run in client.search_runs([experiment], of_parent)}
    assert {row["mlflow_run"] for row in same} < set(found) and len(found) == 8
    stages = [tags["remit.stage"] for tags in found.values()]
    assert sorted(stages) == ["fine-tuning"] * 4 + ["pretraining"] * 4
    assert {
        (tags["remit.mask_percent"], tags["remit.masking_style"]) for tags in found.values()
    } == {(row["mask_percent"], row["masking_style"]) for row in rows}


def test_snakemakes_own_report_holds_the_page(built):
    folder, config, _ = built
    done = snakemake("--report", "all.zip", TARGET, REPORT, cwd=folder, config=config)
    assert done.returncode == 0, done.stdout
    assert (folder / "all.zip").stat().st_size > 100_000
    with zipfile.ZipFile(folder / "all.zip") as packed:
        page = packed.read("all/report.html").decode()
    assert "No evaluation was asked for" in page and "SIMULATED data" in page


def test_a_dead_mlflow_server_loses_nothing(built, tmp_path):
    folder, _, _ = built
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    config = write_config(
        copy, "dead.yaml", execution={**TINY["execution"], "mlflow_uri": "http://127.0.0.1:9"}
    )
    done = snakemake(TARGET, "--forcerun", "finetune", cwd=copy, config=config)
    assert done.returncode == 0, done.stdout
    assert "warning: MLflow could not start a run" in done.stdout
    one = torch.load(folder / TARGET, weights_only=True)["state_dict"]
    two = torch.load(copy / TARGET, weights_only=True)["state_dict"]
    assert all(torch.equal(one[key], two[key]) for key in one)


# Bad input ------------------------------------------------------------------------------


def test_a_class_too_small_stops_with_the_counts(tmp_path):
    cohorts = {
        "simulated": {"simulate": {"participants": 4, "minutes": 0.2, "remission_fraction": 0.5}}
    }
    line = fails(tmp_path, TARGET, config=write_config(tmp_path, cohorts=cohorts), in_a_job=False)
    assert "2 participants with label 0 and 2 participants with label 1" in line
    assert not list(tmp_path.glob("results/splits/*.json"))


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Simulated EDF files and their sheet, written by the command for people."""
    folder = tmp_path_factory.mktemp("recordings")
    done = remit("simulate", "--output", "raw", "--participants", 8, "--minutes", 0.3, cwd=folder)
    assert done.returncode == 0, done.stdout
    return folder / "raw"


def own_cohort(tmp_path, recordings, change=None, **settings):
    raw = tmp_path / "raw"
    shutil.copytree(recordings, raw)
    if change:
        change(raw)
    return write_config(
        tmp_path, cohort="mine", cohorts={"mine": {"sheet": "raw/cohort.tsv"}}, **settings
    )


def edit_sheet(old, new, count=1):
    def change(raw):
        sheet = raw / "cohort.tsv"
        text = sheet.read_text()
        assert old in text
        sheet.write_text(text.replace(old, new, count))

    return change


@pytest.mark.parametrize(
    ("change", "settings", "says"),
    [
        (None, {"channels": ["AF7", "Fp1"]}, r"Fp1.*AF7, AF8, TP9, TP10"),
        (
            lambda raw: (raw / "sim-003_rest.edf").write_bytes(
                (raw / "sim-003_rest.edf").read_bytes()[:-700]
            ),
            {},
            "sim-003_rest.edf",
        ),
        (lambda raw: (raw / "sim-002_rest.edf").write_bytes(b""), {}, "sim-002_rest.edf"),
        (None, {"preprocessing": {"window_seconds": 30}}, r"sim-00\d.*18.*30"),
        (
            lambda raw: (raw / "sim-001_rest.edf").rename(raw / "x.edf"),
            {},
            "sim-001_rest.edf not found",
        ),
    ],
    ids=["channel", "truncated", "empty", "short", "missing"],
)
def test_a_bad_recording_is_named_in_one_line(tmp_path, recordings, change, settings, says):
    config = own_cohort(tmp_path, recordings, change, **settings)
    target = "results/cohorts/mine.tsv" if "not found" in says else None
    names = [target] if target else []
    seconds = settings.get("preprocessing", {}).get("window_seconds", 8)
    channels = "-".join(settings.get("channels", ["AF7", "AF8", "TP9", "TP10"])).lower()
    names += [f"results/primary/{seconds}s_{channels}_primary_dataset.parquet"]
    line = fails(tmp_path, *names, config=config, in_a_job="not found" not in says)
    assert re.search(says, line), line
    assert not list((tmp_path / "results").rglob("*_primary_dataset.parquet"))


def csv_with(folder, value):
    """12 s of Muse CSV in which one sample of AF7 is something else."""
    lines = ["timestamps,TP9,AF7,AF8,TP10,Right AUX"]
    lines += [f"{1000 + i / 256:.3f},{i % 7},{i % 3},{i % 5},2.5,0" for i in range(256 * 12)]
    lines[1000] = f"{1000 + 999 / 256:.3f},1,{value},2,3,0"
    (folder / "raw").mkdir()
    (folder / "raw/a.csv").write_text("\n".join(lines) + "\n")
    (folder / "raw/cohort.tsv").write_text(
        "participant\trecording\tpath\tremission\na\ta\ta.csv\t1\n"
    )
    return write_config(folder, cohort="mine", cohorts={"mine": {"sheet": "raw/cohort.tsv"}})


def test_an_infinite_sample_is_refused(tmp_path):
    line = fails(tmp_path, "results/windows/mine/a.parquet", config=csv_with(tmp_path, "inf"))
    assert "AF7" in line or "1001" in line, line
    assert not (tmp_path / "results/windows/mine/a.parquet").exists()


@pytest.mark.parametrize("value", ["nan", ""])
def test_a_missing_sample_is_bridged_and_counted(tmp_path, value):
    target = "results/windows/mine/a.parquet"
    done = snakemake(target, cwd=tmp_path, config=csv_with(tmp_path, value))
    assert done.returncode == 0, done.stdout
    windows = open_dataset(tmp_path / target)
    assert len(windows) == 1
    np.testing.assert_allclose(windows.quality_WC("dropout_fraction"), 1 / 2048)


def test_two_labels_for_one_participant_are_refused(tmp_path, recordings):
    def change(raw):
        sheet = raw / "cohort.tsv"
        row = sheet.read_text().splitlines()[1].split("\t")
        other = [row[0], "second", "sim-002_rest.edf", "", "1" if row[4] == "0" else "0", *row[5:]]
        kept = [line for line in sheet.read_text().splitlines() if "sim-002" not in line]
        sheet.write_text("\n".join([*kept, "\t".join(other)]) + "\n")

    line = fails(tmp_path, TARGET, config=own_cohort(tmp_path, recordings, change), in_a_job=False)
    assert "participant 'sim-001' has remission" in line


def test_an_unlabelled_participant_is_refused(tmp_path, recordings):
    def change(raw):
        sheet = raw / "cohort.tsv"
        lines = [line.split("\t") for line in sheet.read_text().splitlines()]
        lines[2][4] = ""
        sheet.write_text("\n".join("\t".join(cells) for cells in lines) + "\n")

    line = fails(tmp_path, TARGET, config=own_cohort(tmp_path, recordings, change), in_a_job=False)
    assert "sim-002" in line
    assert "split.unlabelled" in line


def test_windows_out_of_order_are_refused(built, tmp_path):
    folder, config, _ = built
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    table = pq.read_table(copy / PRIMARY)
    with ParquetWriter(copy / PRIMARY, table.schema, [], {}) as writer:
        writer.write(table.take([1, 0, *range(2, table.num_rows)]))
    done = remit(
        "split", "--settings", '{"split": {}}', "--primary", PRIMARY, "--output", "s.json", cwd=copy
    )
    assert done.returncode == 1
    assert re.match(r"remit: .*out of order", done.stdout), done.stdout
    assert not (copy / "s.json").exists()
    assert config.exists()


def test_a_foreign_backbone_is_refused(built, tmp_path):
    folder, _, _ = built
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    other = "mamba2_eeg_d32_l1_m50_bert"
    (copy / "resources/pretrained").mkdir(parents=True)
    shutil.copy(copy / f"results/pretrained/{MODEL}.pt", copy / f"resources/pretrained/{other}.pt")
    line = fails(copy, f"results/finetuned/{other}_finetuned_best.pt", config=copy / "mine.yaml")
    assert f"name is {MODEL}; expected {other}" in line
    assert not (copy / f"results/finetuned/{other}_finetuned_best.pt").exists()


# Other sources --------------------------------------------------------------------------


def test_the_original_studys_mat_file(tmp_path):
    rng = np.random.default_rng(0)

    def people(first, count):
        cells = np.empty((count, 2), dtype=object)
        for row in range(count):
            windows = np.empty((1, 4), dtype=object)
            for index in range(4):
                walk = np.cumsum(rng.normal(0, 3, (2048, 4)), axis=0)  # white noise is refused
                windows[0, index] = walk + 100
            cells[row] = [windows, first + row]
        return cells

    raw = tmp_path / "raw"
    raw.mkdir()
    savemat(
        raw / "study.mat",
        {
            "EEG_windows_Remission": people(100, 5),
            "EEG_windows_Non_remission": people(200, 5),
        },
    )
    cohort = {
        "scan": {"root": "raw", "layout": "folder"},
        "sampling_rate": 256,
        "channel_names": ["TP9", "AF7", "AF8", "TP10"],
    }
    config = write_config(tmp_path, cohort="study", cohorts={"study": cohort})
    build(tmp_path, TARGET, config=config)
    card = json.loads((tmp_path / TARGET.replace(".pt", ".json")).read_text())
    assert card["data"]["simulated"] is False
    assert sum(card["metrics"][part]["n_positive"] for part in ("train", "val", "test")) == 5
    assert "SIMULATED" not in "".join(
        p.read_text() for p in tmp_path.rglob("results/logs/finetune/*.log")
    )


@pytest.mark.parametrize(
    ("preset", "channels", "people", "positive"),
    [("muse", None, 17, 9), ("eegmat", ["Fp1", "Fp2", "T7", "T8"], 36, 26)],
)
def test_real_recordings(tmp_path, shared_data, preset, channels, people, positive):
    values = yaml.safe_load((ROOT / "config/presets" / f"{preset}.yaml").read_text())
    values |= TINY
    values["cohorts"][preset]["scan"]["root"] = str(shared_data / preset)
    if channels:
        values["channels"] = channels
    config = tmp_path / "real.yaml"
    config.write_text(yaml.safe_dump(values))
    build(tmp_path, TARGET, REPORT, config=config)
    card = json.loads((tmp_path / TARGET.replace(".pt", ".json")).read_text())
    assert card["data"]["simulated"] is False
    assert sum(card["metrics"][part]["n"] for part in ("train", "val", "test")) == people
    assert sum(card["metrics"][part]["n_positive"] for part in ("train", "val", "test")) == positive
    assert "SIMULATED" not in (tmp_path / REPORT).read_text()


def test_a_cohort_of_another_montage_trains_beside_the_first(tmp_path):
    more = {"simulate": {"participants": 2, "minutes": 0.6, "seed": 9}}
    config = write_config(
        tmp_path,
        cohorts=SIMULATED | {"more": more | {"channels": ["AF7", "TP9", "TP10"]}},
        pretraining=TINY["pretraining"]
        | {
            "extra_cohorts": ["more"],
            "extra_ids": "other",
            "corpus_weights": {"more": 2},
            "shuffle_mb": 0.2,
        },
    )
    output = build(tmp_path, f"results/pretrained/{MODEL}.pt", config=config)
    assert "x 3 or 4 tokens" in output and "read in pools of 0.2 MB" in output
    card = json.loads((tmp_path / f"results/pretrained/{MODEL}.json").read_text())
    assert card["channels"] == ["AF7", "AF8", "TP9", "TP10"]
    corpora = card["data"]["corpora"]
    assert corpora["more"]["channels"] == ["AF7", "TP9", "TP10"]
    assert corpora["more"]["weight"] == 2 and corpora["simulated"]["weight"] == 1
    assert card["data"]["participants_seen"]["training"][-1].startswith("more/")
