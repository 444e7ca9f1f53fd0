"""What Snakemake plans, on empty files: which jobs, and for which reason."""

import os
import re
import shutil

import pytest
import yaml

from remit.planning import Plan
from tests.conftest import ROOT, snakemake

pytestmark = pytest.mark.dag

MODEL = "mamba2_eeg_d256_l2_m50_mae"
TARGET = f"results/finetuned/{MODEL}_finetuned_best.pt"
OTHER = "mamba2_eeg_d256_l2_m40_bert"
PEOPLE = 6


def overlay(folder, **settings):
    simulation = {"participants": PEOPLE, "remission_fraction": 0.5}
    base = {"cohorts": {"simulated": {"simulate": simulation}}}
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump(base | settings))
    return file


def plan(folder, *targets, config=None):
    """The number of jobs per rule, and the reasons per rule."""
    done = snakemake("-n", *targets, cwd=folder, config=config)
    assert done.returncode == 0, done.stdout
    if "Nothing to be done" in done.stdout:
        return {}, {}
    table = done.stdout.split("Job stats:", 1)[1].split("total", 1)[0]
    jobs = {m[1]: int(m[2]) for m in re.finditer(r"^(\w+) +(\d+)$", table, re.M)}
    reasons = {}
    for m in re.finditer(
        r"^(?:local)?rule (\w+):\n(?:    .*\n)*?    reason: (.*)$", done.stdout, re.M
    ):
        reasons.setdefault(m[1], set()).add(re.sub(r":.*", "", m[2]))
    return jobs, reasons


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder in which everything seems to be made, with Snakemake's record of how."""
    folder = tmp_path_factory.mktemp("built")
    config = overlay(folder)
    done = snakemake("-n", cwd=folder, config=config)
    for outputs in re.findall(r"^    output: (.*)$", done.stdout, re.M):
        for name in outputs.split(", "):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(name)
    (folder / "results/pretrained" / f"{MODEL}.json").write_text("{}")
    touched = snakemake("--touch", "--forceall", cwd=folder, config=config)
    assert touched.returncode == 0, touched.stdout
    return folder


# What follows a changed model.
PAGES = {"model_report": 1, "run_resources": 1, "all": 1}
# What `snakemake` shows of a backbone.
OF_BACKBONE = {"diagnose": 1, "backbone_pictures": 1, "embed": 1, "embeddings_picture": 1}


@pytest.fixture
def copy(built, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(built, folder, symlinks=True)  # keeps the times
    return folder


def test_an_empty_folder_plans_the_whole_chain(tmp_path):
    jobs, reasons = plan(tmp_path, TARGET, config=overlay(tmp_path))
    assert jobs == {
        "simulate": PEOPLE,
        "windows": PEOPLE,
        "cohort_sheet": 1,
        "primary_dataset": 1,
        "split": 1,
        "pretrain": 1,
        "finetune": 1,
    }
    assert reasons["pretrain"] == {"Missing output files"}


def test_snakemake_alone_builds_the_default_model_and_its_report(tmp_path):
    jobs, _ = plan(tmp_path, config=overlay(tmp_path))
    assert jobs["finetune"] == jobs["model_report"] == jobs["all"] == 1


def test_nothing_is_planned_when_everything_is_there(built):
    assert plan(built, config=built / "mine.yaml") == ({}, {})


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"finetuning": {"epochs": 3}}, {"finetune": 1, **PAGES}),
        ({"diagnostics": {"seed": 3}}, {"diagnose": 1, "backbone_pictures": 1, **PAGES}),
        (
            {"pretraining": {"learning_rate": 0.01}},
            {"pretrain": 1, **OF_BACKBONE, "finetune": 1, **PAGES},
        ),
        (
            {"split": {"seed": 1}},
            {
                "split": 1,
                "cohort_figures": 1,
                "pretrain": 1,
                **OF_BACKBONE,
                "finetune": 1,
                **PAGES,
            },
        ),
        (
            {"preprocessing": {"offset": "median"}},
            {
                "windows": PEOPLE,
                "primary_dataset": 1,
                "split": 1,
                "cohort_figures": 1,
                "signal_figure": 1,
                "pretrain": 1,
                "embed_random": 1,
                **OF_BACKBONE,
                "finetune": 1,
                **PAGES,
            },
        ),
        ({"sweep": {"mask_percents": [50]}}, {}),
        (
            {
                "execution": {
                    "device": "cpu",
                    "training_threads": 1,
                    "training_mem_mb": 9000,
                    "gpu": 1,
                    "mlflow": False,
                    "mlflow_uri": "http://127.0.0.1:1",
                }
            },
            {},
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_a_setting_replans_what_it_is_given_to(copy, settings, expected):
    jobs, reasons = plan(copy, config=overlay(copy, **settings))
    assert jobs == expected
    if expected:
        first = next(iter(expected))
        assert reasons[first] == {"Params have changed since last execution"}, reasons


def test_diagnostics_need_the_backbone_and_no_fine_tuning(tmp_path):
    jobs, _ = plan(tmp_path, f"results/diagnostics/{OTHER}.json", config=overlay(tmp_path))
    assert jobs["diagnose"] == jobs["pretrain"] == 1
    assert "finetune" not in jobs


def test_a_transductive_backbone_has_nobody_left_to_be_diagnosed_on(tmp_path):
    jobs, _ = plan(tmp_path, config=overlay(tmp_path, pretraining={"transductive": True}))
    assert "diagnose" not in jobs and jobs["model_report"] == 1


def test_a_touched_checkpoint_replans_nothing(copy):
    for name in (
        f"results/pretrained/{MODEL}.pt",
        "results/windows/simulated/sim-001_rest.parquet",
    ):
        os.utime(copy / name)
    assert plan(copy, config=copy / "mine.yaml")[0] == {}


def test_another_model_reuses_data_and_split(built):
    jobs, _ = plan(
        built, f"results/finetuned/{OTHER}_finetuned_best.pt", config=built / "mine.yaml"
    )
    assert jobs == {"pretrain": 1, "finetune": 1}


def test_a_sweep_trains_what_is_missing_and_compares_once(built):
    jobs, _ = plan(built, "sweep", config=built / "mine.yaml")
    of_each = dict.fromkeys(("pretrain", "finetune", "diagnose", "model_report"), 13)
    assert jobs == {**of_each, "comparison": 1, "sweep": 1}


def test_a_drop_in_backbone_is_used(copy):
    drop_in = copy / "resources/pretrained" / f"{OTHER}.pt"
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text("weights")
    jobs, _ = plan(copy, f"results/finetuned/{OTHER}_finetuned_best.pt", config=copy / "mine.yaml")
    assert jobs == {"finetune": 1}


def test_a_backbone_placed_by_hand_is_used_though_data_are_newer(copy):
    placed = copy / "results/pretrained" / f"{OTHER}.pt"
    placed.write_text("weights")
    os.utime(placed, (1, 1))
    jobs, _ = plan(copy, f"results/finetuned/{OTHER}_finetuned_best.pt", config=copy / "mine.yaml")
    assert jobs == {"finetune": 1}


def test_a_backbone_placed_by_hand_is_out_of_reach_even_when_all_is_forced(copy):
    (copy / "results/pretrained" / f"{MODEL}.json").unlink()  # now it is one that was placed
    assert plan(copy, config=copy / "mine.yaml")[0] == {}
    jobs, _ = plan(copy, "--forceall", config=copy / "mine.yaml")
    assert "pretrain" not in jobs
    assert jobs["finetune"] == 1
    jobs, _ = plan(copy, f"results/pretrained/{OTHER}.pt", config=copy / "mine.yaml")
    assert jobs == {"pretrain": 1}


def test_extra_cohorts_are_built_for_pretraining_only(copy):
    config = overlay(copy, pretraining={"extra_cohorts": ["more"]})
    values = yaml.safe_load(config.read_text())
    values["cohorts"]["more"] = {"simulate": {"participants": 2, "seed": 8}}
    config.write_text(yaml.safe_dump(values))
    jobs, _ = plan(copy, config=config)
    assert jobs == {
        "simulate": 2,
        "windows": 2,
        "cohort_sheet": 1,
        "corpus": 1,
        "pretrain": 1,
        **OF_BACKBONE,
        "finetune": 1,
        **PAGES,
    }


def test_an_extra_cohort_with_its_own_channels_is_windowed_and_named_by_them(copy):
    config = overlay(copy, pretraining={"extra_cohorts": ["more"]})
    values = yaml.safe_load(config.read_text())
    more = {"simulate": {"participants": 2, "seed": 8}, "channels": ["AF7", "TP9"]}
    values["cohorts"]["more"] = more
    config.write_text(yaml.safe_dump(values))
    corpus = "results/corpora/more/8s_af7-tp9_dataset.parquet"
    jobs, _ = plan(copy, corpus, config=config)
    assert jobs == {"simulate": 2, "windows": 2, "cohort_sheet": 1, "corpus": 1}
    done = snakemake("-n", "-p", cwd=copy, config=config)
    assert done.returncode == 0 and f"--corpora {corpus}" in done.stdout, done.stdout
    wrong = "results/corpora/more/8s_af7-af8-tp9-tp10_dataset.parquet"
    done = snakemake("-n", wrong, cwd=copy, config=config)
    assert done.returncode and "the configured dataset is 8s_af7-tp9" in done.stdout, done.stdout


def sheet_cohort(folder, people, **settings):
    raw = folder / "raw"
    raw.mkdir(exist_ok=True)
    lines = ["participant\trecording\tpath\tremission"]
    for name, label in people:
        (raw / f"{name}.edf").touch()
        lines.append(f"{name}\t{name}_rest\t{name}.edf\t{label}")
    (raw / "sheet.tsv").write_text("\n".join(lines) + "\n")
    return overlay(folder, cohort="mine", cohorts={"mine": {"sheet": "raw/sheet.tsv"}}, **settings)


def test_a_cohort_sheet_gives_one_job_per_recording(tmp_path):
    config = sheet_cohort(tmp_path, [("a", 1), ("b", 0), ("c", "")])
    jobs, _ = plan(
        tmp_path, "results/primary/8s_af7-af8-tp9-tp10_primary_dataset.parquet", config=config
    )
    assert jobs == {"cohort_sheet": 1, "windows": 3, "primary_dataset": 1}


def pretend_built(folder, target, *names, config):
    """The primary dataset of `target` and what it is made of seem to be there, and up to date."""
    for name in (*names, "cohorts/mine.tsv", target.removeprefix("results/")):
        file = folder / "results" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    snakemake("--touch", "--forceall", target, cwd=folder, config=config)
    assert plan(folder, target, config=config) == ({}, {})


def test_a_changed_label_replans_that_recording(tmp_path):
    config = sheet_cohort(tmp_path, [("a", 1), ("b", 0)])
    target = "results/primary/8s_af7-af8-tp9-tp10_primary_dataset.parquet"
    windows = [f"windows/mine/{name}_rest.parquet" for name in "ab"]
    pretend_built(tmp_path, target, *windows, config=config)
    sheet_cohort(tmp_path, [("a", 0), ("b", 0)])
    jobs, _ = plan(tmp_path, target, config=config)
    assert jobs == {"cohort_sheet": 1, "windows": 1, "primary_dataset": 1}


@pytest.mark.parametrize("changed", ["_channels.tsv", "_eeg.eeg", "_eeg.json"])
def test_what_lies_beside_a_recording_is_its_input(tmp_path, changed):
    header = (
        "Brain Vision Data Exchange Header File Version 1.0\n[Common Infos]\n"
        "DataFile={0}_eeg.eeg\nMarkerFile={0}_eeg.vmrk\n"
    )
    root = tmp_path / "bids"
    for number in (1, 2):
        stem = f"sub-{number}_task-rest"
        folder = root / f"sub-{number}" / "eeg"
        folder.mkdir(parents=True)
        (folder / f"{stem}_eeg.vhdr").write_text(header.format(stem))
        for name in ("_eeg.eeg", "_eeg.vmrk", "_channels.tsv", "_eeg.json"):
            (folder / f"{stem}{name}").write_text("{}")
    (root / "participants.tsv").write_text("participant_id\tgood\nsub-1\tyes\nsub-2\tno\n")
    label = {"column": "good", "values": {"yes": 1, "no": 0}}
    cohorts = {"mine": {"scan": {"root": str(root), "label": label}}}
    config = overlay(tmp_path, cohort="mine", cohorts=cohorts)
    target = "results/primary/8s_af7-af8-tp9-tp10_primary_dataset.parquet"
    jobs, _ = plan(tmp_path, target, config=config)
    assert jobs == {"cohort_sheet": 1, "windows": 2, "primary_dataset": 1}
    windows = [f"windows/mine/sub-{number}_task-rest.parquet" for number in (1, 2)]
    pretend_built(tmp_path, target, *windows, config=config)
    (root / f"sub-2/eeg/sub-2_task-rest{changed}").write_text("{ }")
    jobs, _ = plan(tmp_path, target, config=config)
    assert jobs == {"windows": 1, "primary_dataset": 1}


def one_line_error(done):
    """The one line that a person sees; no traceback anywhere."""
    assert done.returncode != 0, done.stdout
    assert "Traceback" not in done.stdout
    lines = [line for line in done.stdout.splitlines() if line.startswith("remit: ")]
    assert len(lines) == 1, done.stdout
    return lines[0]


@pytest.mark.parametrize(
    ("target", "nearest"),
    [
        ("results/finetuned/mamba2_eeg_d0256_l2_m50_mae_finetuned_best.pt", MODEL),
        (
            "results/finetuned/mamba2_eeg_d256_l2_m120_mae_finetuned_best.pt",
            "mamba2_eeg_d256_l2_m100_mae",
        ),
        ("results/pretrained/mamba2_eeg_d256_l2_m50_brt.pt", "mamba2_eeg_d256_l2_m50_bert"),
        ("results/pretrained/mamba2_eeg_d256_l2_m50_mae_finetuned.pt", MODEL),
    ],
)
def test_a_wrong_model_name_gets_the_nearest(tmp_path, target, nearest):
    line = one_line_error(snakemake("-n", target, cwd=tmp_path))
    assert f"Ask for {target.rpartition('/')[0]}/{nearest}" in line


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (
            "results/primary/4s_af7_primary_dataset.parquet",
            "the configured dataset is 8s_af7-af8-tp9",
        ),
        ("results/splits/4s_af7_split.json", "the configured dataset is 8s_af7-af8-tp9"),
        ("results/windows/simulated/sim-099_rest.parquet", "'sim-099_rest' is not in the sheet"),
        ("results/windows/nobody/x.parquet", "cohort 'nobody' is not in the configuration"),
        (
            f"results/finetuned/{MODEL}_finetuned.pt",
            f"Did you mean 'results/finetuned/{MODEL}_finetuned_b",
        ),
        (
            "./results/finetuned/mamba2_eeg_d032_l2_m50_mae_finetuned_best.pt",
            "Ask for results/finetuned",
        ),
    ],
)
def test_a_target_that_means_nothing_here_is_refused(tmp_path, target, says):
    assert says in one_line_error(snakemake("-n", target, cwd=tmp_path, config=overlay(tmp_path)))


@pytest.mark.parametrize(
    ("people", "says"),
    [
        ([("a", 1), ("b", 0), ("c", "")], "1 of 3 participants have no label (c)"),
        ([("a", 1), ("b", 0)], "1 participants with label 0 and 1 participants with label 1"),
    ],
)
def test_a_cohort_that_cannot_be_split_is_refused_before_any_job(tmp_path, people, says):
    assert says in one_line_error(
        snakemake("-n", TARGET, cwd=tmp_path, config=sheet_cohort(tmp_path, people))
    )


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"pretrainng": {}}, "Did you mean 'pretraining'"),
        ({"model": {"masking_style": "bart"}}, "Did you mean 'bert'"),
        ({"model": {"headdim": 48}}, "model.headdim is 48"),
        ({"cohort": "nobody"}, "cohort 'nobody' is not in cohorts"),
        ({"cohorts": {"mine": {"sheet": "x.tsv"}}}, "set cohort: mine"),
        ({"pretraining": {"spectrum_hz": [1, 200]}}, "pretraining.spectrum_hz"),
    ],
)
def test_a_wrong_setting_stops_before_any_job(tmp_path, settings, says):
    assert says in one_line_error(
        snakemake("-n", cwd=tmp_path, config=overlay(tmp_path, **settings))
    )


@pytest.mark.parametrize(
    ("people", "says"),
    [
        ([("a", 1), ("../b", 0)], "cannot be a file name"),
        ([("a", 1), ("b", 2)], "remission is '2'"),
    ],
)
def test_a_wrong_sheet_stops_before_any_job(tmp_path, people, says):
    config = sheet_cohort(tmp_path, [("a", 1)])
    text = "participant\trecording\tpath\tremission\n"
    text += "".join(f"{name}\t{name}_rest\tx.edf\t{label}\n" for name, label in people)
    (tmp_path / "raw/sheet.tsv").write_text(text)
    assert says in one_line_error(snakemake("-n", cwd=tmp_path, config=config))


def test_a_path_that_snakemake_would_take_for_a_wildcard_is_refused(tmp_path):
    config = sheet_cohort(tmp_path, [("a", 1)])
    sheet = tmp_path / "raw/sheet.tsv"
    sheet.write_text(sheet.read_text().replace("a.edf", "{recording}.edf"))
    assert "has a brace in it" in one_line_error(snakemake("-n", cwd=tmp_path, config=config))


def test_a_missing_recording_is_named(tmp_path):
    config = sheet_cohort(tmp_path, zip("abcdef", [1, 0] * 3, strict=True))
    (tmp_path / "raw/b.edf").unlink()
    line = one_line_error(snakemake("-n", cwd=tmp_path, config=config))
    assert "raw/b.edf not found (1 of 6 missing)" in line


# Evaluation -------------------------------------------------------------------------------------

REPORT = f"results/evaluation/{MODEL}/report.json"
FOLDS = 3  # as many as each class has people; 5 are asked for
DATA = {"simulate": PEOPLE, "windows": PEOPLE, "cohort_sheet": 1, "primary_dataset": 1}
BESIDE = {"folds": 1, "features": 1, "embed_random": 1, "evaluate": 1}


def evaluation(folder, own=None, **options):
    """A configuration with a second cohort, of which pretraining may be made."""
    config = overlay(
        folder,
        evaluation={"repeats": 2, **options},
        pretraining={"extra_cohorts": ["more"], **(own or {})},
    )
    values = yaml.safe_load(config.read_text())
    values["cohorts"]["more"] = {"simulate": {"participants": 2, "seed": 8}}
    config.write_text(yaml.safe_dump(values))
    return config


def per_fold(number):
    return {"fold_split": number, "pretrain_fold": number, "embed_fold": number}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A folder in which an evaluation seems to be made, with Snakemake's record of how."""
    folder = tmp_path_factory.mktemp("evaluated")
    config = overlay(folder, evaluation={"repeats": 2})
    done = snakemake("-n", REPORT, cwd=folder, config=config)
    for outputs in re.findall(r"^    output: (.*)$", done.stdout, re.M):
        for name in outputs.split(", "):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(name)
    touched = snakemake("--touch", "--forceall", REPORT, cwd=folder, config=config)
    assert touched.returncode == 0, touched.stdout
    return folder


def test_an_evaluation_pretrains_for_every_fold_of_every_repeat(tmp_path):
    """And not once on the dataset's own split; there are no more folds than people in a class."""
    config = overlay(tmp_path, evaluation={"repeats": 2})
    jobs, _ = plan(tmp_path, REPORT, config=config)
    assert jobs == DATA | BESIDE | per_fold(2 * FOLDS)
    jobs, _ = plan(tmp_path, REPORT, config=overlay(tmp_path, evaluation={"folds": 2}))
    assert jobs == DATA | BESIDE | per_fold(10 * 2)


def test_the_pretraining_of_a_fold_is_given_its_split_and_lets_nobody_in(tmp_path):
    config = overlay(tmp_path, pretraining={"transductive": True})
    target = f"results/pretrained/folds/r2f3/{MODEL}.pt"
    done = snakemake("-n", "-p", target, cwd=tmp_path, config=config)
    line = next(line for line in done.stdout.splitlines() if "remit pretrain " in line)
    split = "results/splits/folds/8s_af7-af8-tp9-tp10_r2f3_split.json"
    assert f"--split {split}" in line and f"--output {target}" in line
    assert '"transductive": false' in line
    line = next(line for line in done.stdout.splitlines() if "remit fold-split " in line)
    assert '"fold": 3' in line and '"repeat": 2' in line


@pytest.mark.parametrize(
    ("mode", "pretraining"),
    [
        ("held_out", {"own_cohort": False}),
        ("transductive", {}),
        ("transductive", {"own_cohort": False}),
    ],
)
def test_a_backbone_that_folds_share_is_pretrained_once(tmp_path, mode, pretraining):
    config = evaluation(tmp_path, pretraining, pretraining=mode)
    jobs, _ = plan(tmp_path, REPORT, config=config)
    both = {"simulate": PEOPLE + 2, "windows": PEOPLE + 2, "cohort_sheet": 2, "corpus": 1}
    assert jobs == DATA | BESIDE | both | {"split": 1, "pretrain": 1, "embed": 1}


@pytest.mark.parametrize("mode", ["per_fold", "held_out", "transductive"])
@pytest.mark.parametrize("place", ["resources/pretrained", "results/pretrained"])
def test_a_backbone_from_elsewhere_is_embedded_once_and_nothing_is_pretrained(
    tmp_path, mode, place
):
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place / f"{MODEL}.pt").write_text("weights")
    config = overlay(tmp_path, evaluation={"pretraining": mode})
    jobs, _ = plan(tmp_path, REPORT, config=config)
    assert jobs == DATA | BESIDE | {"embed": 1}


def test_a_backbone_made_here_for_fine_tuning_is_none_of_the_folds(copy):
    """It has seen most of them."""
    jobs, _ = plan(copy, REPORT, config=overlay(copy, evaluation={"repeats": 1}))
    beside = {rule: n for rule, n in BESIDE.items() if rule != "embed_random"}  # its picture has it
    assert jobs == beside | per_fold(FOLDS)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"evaluation": {"repeats": 2}}, {}),
        *(
            ({"evaluation": {"repeats": 2, **changed}}, {"evaluate": 1})
            for changed in (
                {"permutations": 99},
                {"resamples": 500},
                {"inner_folds": 3},
                {"strengths": [1, 10]},
                {"select": 5},
            )
        ),
        ({"evaluation": {"repeats": 1}}, {"folds": 1, "evaluate": 1}),
        ({"evaluation": {"repeats": 3}}, {"folds": 1, **per_fold(FOLDS), "evaluate": 1}),
        (
            {"evaluation": {"repeats": 2, "seed": 1}},
            {"folds": 1, "embed_random": 1, **per_fold(2 * FOLDS), "evaluate": 1},
        ),
        (
            {"evaluation": {"repeats": 2}, "pretraining": {"learning_rate": 0.01}},
            {"pretrain_fold": 2 * FOLDS, "embed_fold": 2 * FOLDS, "evaluate": 1},
        ),
        (
            {"evaluation": {"repeats": 2}, "sequences": {"use_bad_windows": True}},
            {
                "pretrain_fold": 2 * FOLDS,
                "embed_fold": 2 * FOLDS,
                "embed_random": 1,
                "evaluate": 1,
            },
        ),
        ({"evaluation": {"repeats": 2}, "finetuning": {"epochs": 3}}, {}),
        ({"evaluation": {"repeats": 2}, "split": {"seed": 1}}, {}),
        (
            {
                "evaluation": {"repeats": 2},
                "execution": {"device": "cpu", "training_threads": 1, "gpu": 1, "mlflow": False},
            },
            {},
        ),
    ],
    ids=str,
)
def test_a_setting_replans_what_of_an_evaluation_it_is_given_to(evaluated, settings, expected):
    config = overlay(evaluated, **settings)
    assert plan(evaluated, REPORT, config=config)[0] == expected


def test_fine_tuning_in_the_folds_takes_their_backbones_and_else_nothing_is_planned(evaluated):
    """Those of the first three repeats at most; off, `evaluate` is given none."""
    own = [f"results/pretrained/folds/r{r}f{f}/{MODEL}.pt" for r in (1, 2) for f in (1, 2, 3)]
    for finetuned, files in ((True, own), (False, [])):
        config = overlay(evaluated, evaluation={"repeats": 2, "finetuned": finetuned})
        force = ("--forcerun", "evaluate")
        done = snakemake("-n", "-p", REPORT, *force, cwd=evaluated, config=config)
        line = next(line for line in done.stdout.splitlines() if "remit evaluate " in line)
        given = line.split(" --backbones ")[1].split(" --random ")[0]
        assert given.split() == files
        assert ('"freeze_backbone": false' in line) is finetuned
    config = overlay(evaluated, evaluation={"repeats": 2, "finetuned": True})
    assert plan(evaluated, REPORT, config=config)[0] == {"evaluate": 1}


def test_fine_tuning_in_the_folds_takes_the_one_backbone_where_they_share_it(tmp_path):
    config = evaluation(tmp_path, pretraining="transductive", finetuned=True)
    done = snakemake("-n", "-p", REPORT, cwd=tmp_path, config=config)
    line = next(line for line in done.stdout.splitlines() if "remit evaluate " in line)
    assert f" --backbones results/pretrained/{MODEL}.pt --random " in line


def test_a_table_evaluates_every_model_of_the_sweep(tmp_path):
    sweep = {"mask_percents": [20, 40], "masking_styles": ["mae"]}
    config = overlay(tmp_path, evaluation={"repeats": 1}, sweep=sweep)
    jobs, _ = plan(tmp_path, "results/evaluation/table.tsv", config=config)
    assert jobs == DATA | {
        "folds": 1,
        "fold_split": FOLDS,
        "pretrain_fold": 2 * FOLDS,
        "embed_fold": 2 * FOLDS,
        "embed_random": 2,
        "features": 1,
        "evaluate": 2,
        "evaluation_table": 1,
    }


def test_features_need_no_label(tmp_path):
    config = sheet_cohort(tmp_path, [("a", ""), ("b", "")])
    target = "results/features/8s_af7-af8-tp9-tp10_features.parquet"
    jobs, _ = plan(tmp_path, target, config=config)
    assert jobs == {"cohort_sheet": 1, "windows": 2, "primary_dataset": 1, "features": 1}


@pytest.mark.parametrize(
    ("people", "says"),
    [
        (
            [("a", 1), ("b", 0), ("c", 0)],
            "2 .* label 0 and 1 .* label 1; expected at least 2 of each",
        ),
        (
            [("a", 0), ("b", 0), ("c", "")],
            "2 .* label 0 and 0 .* label 1; expected at least 2 of each",
        ),
    ],
)
@pytest.mark.parametrize("target", [REPORT, "results/evaluation/table.tsv"])
def test_a_cohort_that_cannot_be_folded_is_refused_before_any_job(tmp_path, people, says, target):
    line = one_line_error(
        snakemake("-n", target, cwd=tmp_path, config=sheet_cohort(tmp_path, people))
    )
    assert re.search(says, line)


def test_two_in_a_class_can_be_evaluated_though_not_split(tmp_path):
    config = sheet_cohort(tmp_path, [("a", 1), ("b", 0), ("c", 0), ("d", 1), ("e", "")])
    jobs, _ = plan(tmp_path, REPORT, config=config)
    assert jobs["pretrain_fold"] == 10 * 2 and "split" not in jobs


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (f"results/pretrained/folds/r1f4/{MODEL}.pt", "fold is 4; expected 1 to 3"),
        (f"results/embeddings/folds/{MODEL}/r3f1.parquet", "repeat is 3; expected 1 to 2"),
        (
            "results/splits/folds/8s_af7-af8-tp9-tp10_r0f1_split.json",
            "repeat is 0; expected 1 to 2",
        ),
        ("results/splits/folds/8s_cz_r1f1_split.json", "the configured dataset is 8s_af7"),
        (
            f"results/evaluation/{MODEL}_finetuned/report.json",
            f"Ask for results/evaluation/{MODEL}/report.json",
        ),
        ("results/evaluation/mamba2_eeg_d256_l2_m50_mea/report.json", f"Ask for {REPORT}"),
    ],
)
def test_a_target_of_an_evaluation_that_means_nothing_is_refused(tmp_path, target, says):
    config = overlay(tmp_path, evaluation={"repeats": 2})
    assert says in one_line_error(snakemake("-n", target, cwd=tmp_path, config=config))


def test_held_out_with_the_own_cohort_in_pretraining_is_refused_before_any_job(tmp_path):
    config = evaluation(tmp_path, pretraining="held_out")
    line = one_line_error(snakemake("-n", REPORT, cwd=tmp_path, config=config))
    assert "pretraining would see the cohort" in line and "own_cohort: false" in line


# Prediction -------------------------------------------------------------------------------------


def new_cohort(folder, **others):
    """A cohort to evaluate, and one of two people to predict."""
    config = overlay(folder, cohort="mine", evaluation={"repeats": 1})
    values = yaml.safe_load(config.read_text())
    values["cohorts"]["mine"] = values["cohorts"].pop("simulated")
    values["cohorts"]["new"] = {"simulate": {"participants": 2, "seed": 8}, **others}
    config.write_text(yaml.safe_dump(values))
    return config


def test_predictions_of_a_new_cohort_take_the_evaluation_and_one_backbone_more(tmp_path):
    """The folds' backbones for the figures, and one of everybody for the head."""
    target = f"results/predictions/{MODEL}/new.parquet"
    jobs, _ = plan(tmp_path, target, config=new_cohort(tmp_path))
    both = {"simulate": PEOPLE + 2, "windows": PEOPLE + 2, "cohort_sheet": 2, "corpus": 1}
    one = {"split": 1, "pretrain": 1, "embed": 1, "head": 1, "predict_new": 1}
    assert jobs == DATA | BESIDE | per_fold(FOLDS) | both | one


def test_predictions_with_a_backbone_from_elsewhere_pretrain_nothing(tmp_path):
    (tmp_path / "resources/pretrained").mkdir(parents=True)
    (tmp_path / f"resources/pretrained/{MODEL}.pt").write_text("weights")
    target = f"results/evaluation/{MODEL}/head.json"
    jobs, _ = plan(tmp_path, target, config=new_cohort(tmp_path))
    assert jobs == DATA | BESIDE | {"embed": 1, "head": 1}


@pytest.mark.parametrize(
    ("cohort", "others", "says"),
    [
        ("mine", {}, f"stand in {REPORT}, candidates, predictions"),
        (
            "new",
            {"channels": ["AF7", "AF8"]},
            "cohorts.new.channels is AF7, AF8; expected AF7, AF8,",
        ),
        ("nwe", {}, "cohort 'nwe' is not in the configuration"),
    ],
)
def test_predictions_that_mean_nothing_are_refused_before_any_job(tmp_path, cohort, others, says):
    config = new_cohort(tmp_path, **others)
    target = f"results/predictions/{MODEL}/{cohort}.parquet"
    assert says in one_line_error(snakemake("-n", target, cwd=tmp_path, config=config))


def test_lint_and_graph_are_clean(tmp_path):
    assert "good condition" in snakemake("--lint", cwd=ROOT).stdout
    graph = snakemake("--rulegraph", cwd=tmp_path, config=overlay(tmp_path))
    assert graph.returncode == 0
    assert '"pretrain"' in graph.stdout
    drawn = re.findall(r">(\w+)</text>", (ROOT / "docs/dag.svg").read_text())
    assert sorted(drawn) == sorted(re.findall(r'label = "(\w+)"', graph.stdout)), "run make dag"


def test_the_evaluation_by_name_is_page_and_card_and_is_checked_before_any_job(tmp_path):
    jobs, _ = plan(tmp_path, "evaluation", config=overlay(tmp_path, evaluation={"repeats": 1}))
    assert jobs["evaluation_page"] == jobs["model_card"] == 1 and jobs["pretrain_fold"] == FOLDS
    config = overlay(tmp_path, evaluation={"pretraining": "held_out"})
    line = one_line_error(snakemake("-n", "evaluation", cwd=tmp_path, config=config))
    assert "expected a backbone of other cohorts" in line


def test_a_page_and_a_card_follow_an_evaluation(tmp_path):
    folder = f"results/evaluation/{MODEL}"
    config = overlay(tmp_path, evaluation={"repeats": 1, "pretraining": "transductive"})
    jobs, _ = plan(tmp_path, f"{folder}/report.html", f"{folder}/model_card.md", config=config)
    assert (
        jobs["evaluate"] == jobs["evaluation_page"] == jobs["model_card"] == jobs["pretrain"] == 1
    )
    assert "evaluation_table" not in jobs
    # The card is of the backbone that goes by the name, which the folds' backbones are not.
    config = overlay(tmp_path, evaluation={"repeats": 1})
    jobs, _ = plan(tmp_path, f"{folder}/model_card.md", config=config)
    assert jobs["pretrain"] == jobs["model_card"] == 1 and jobs["pretrain_fold"] == FOLDS


@pytest.mark.parametrize("repeats", [1, 2])
def test_many_pretrainings_are_said_with_what_would_take_fewer(
    tmp_path, monkeypatch, capsys, repeats
):
    monkeypatch.chdir(tmp_path)
    people = {"simulate": {"participants": PEOPLE, "remission_fraction": 0.5}}
    settings = {"cohorts": {"simulated": people}, "evaluation": {"repeats": repeats}}
    Plan(settings).check(["results/evaluation/table.tsv"])
    said = capsys.readouterr().err
    assert f"for each of {3 * repeats} folds of 14 models; evaluation." in said
    assert ("evaluation.repeats: 1 takes 3 a model" in said) is (repeats > 1)
