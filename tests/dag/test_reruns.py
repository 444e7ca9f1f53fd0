"""The rerun table: what is changed, and exactly which jobs are planned, for which reason.

One row for each setting, each file and each RESULT_VERSION there is; a new one without a row fails.
Everything that remit can make seems to be made: a scanned cohort in question, another from a sheet
for pretraining, a simulated one to predict. Nothing of it is real, nothing is run.
"""

import os
import random
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from remit import naming, planning
from remit.config import Config
from remit.planning.versions import STAGE_MODULES
from tests.conftest import ROOT, snakemake
from tests.dag import planner
from tests.dag.planner import at, configured, merged, outputs_of, read, refused, submit

pytestmark = pytest.mark.dag

MODEL = "mamba2_eeg_d256_l2_m50_mae"
DATASET = "8s_af7-af8-tp9-tp10"
PEOPLE, MORE, NEW, FOLDS = 6, 2, 2, 3
SETTINGS: dict[str, Any] = {
    "cohort": "mine",
    "cohorts": {
        "mine": {
            "scan": {"root": "bids", "label": {"column": "good", "values": {"yes": 1, "no": 0}}}
        },
        "more": {"sheet": "raw/sheet.tsv"},
        "new": {"simulate": {"participants": NEW, "remission_fraction": 0.5}},
    },
    "pretraining": {"extra_cohorts": ["more"]},
    "evaluation": {"repeats": 1},
    "sweep": {"mask_percents": [50], "masking_styles": ["mae"]},
}
TARGETS = (
    "all",
    "sweep",
    naming.path("evaluation_table"),
    naming.path("evaluation_page", model=MODEL),
    naming.path("model_card", model=MODEL),
    naming.path("predictions_new", model=MODEL, cohort="new"),
)

# The jobs, those of a rule that differ in what they read under names of their own: how many there
# are, and whose results they read. Written down here a second time, so that the rules are held to it.
JOBS: dict[str, tuple[int, str]] = {
    "simulate:new": (NEW, ""),
    "windows:mine": (PEOPLE, ""),
    "windows:more": (MORE, ""),
    "windows:new": (NEW, "simulate:new"),
    "cohort_sheet:mine": (1, ""),
    "cohort_sheet:more": (1, ""),
    "cohort_sheet:new": (1, ""),
    "primary_dataset": (1, "windows:mine cohort_sheet:mine"),
    "corpus:more": (1, "windows:more cohort_sheet:more"),
    "corpus:new": (1, "windows:new cohort_sheet:new"),
    "split": (1, "primary_dataset"),
    "cohort_figures": (1, "primary_dataset split cohort_sheet:mine"),
    "signal_figure": (1, ""),
    "pretrain": (1, "primary_dataset split corpus:more"),
    "diagnose": (1, "pretrain primary_dataset split cohort_sheet:mine"),
    "backbone_pictures": (1, "pretrain diagnose primary_dataset split"),
    "finetune": (1, "pretrain primary_dataset split"),
    "model_report": (1, "finetune diagnose primary_dataset split"),
    "comparison": (1, "finetune model_report"),
    "run_resources": (1, "model_report"),
    "folds": (1, "primary_dataset"),
    "fold_split": (FOLDS, "primary_dataset"),
    "pretrain_fold": (FOLDS, "primary_dataset fold_split corpus:more"),
    "embed_fold": (FOLDS, "pretrain_fold primary_dataset fold_split"),
    "embed_random": (1, "primary_dataset"),
    "embed": (1, "pretrain primary_dataset"),
    "embeddings_picture": (1, "embed embed_random primary_dataset cohort_sheet:mine"),
    "features": (1, "primary_dataset"),
    "evaluate": (
        1,
        "embed_fold embed_random features primary_dataset folds cohort_sheet:mine",
    ),
    "evaluation_table": (1, "evaluate"),
    "evaluation_page": (1, "evaluate"),
    "model_card": (1, "evaluate pretrain primary_dataset cohort_sheet:mine"),
    "head": (1, "embed primary_dataset folds evaluate"),
    "predict_new": (1, "head pretrain corpus:new"),
    "all": (
        1,
        "finetune model_report backbone_pictures embeddings_picture run_resources cohort_figures "
        "signal_figure",
    ),
    "sweep": (1, "comparison"),
}
WINDOWS = "windows:mine windows:more windows:new"
CHAIN = f"{WINDOWS} signal_figure"
ENCODER = "pretrain pretrain_fold finetune embed embed_fold embed_random"
PRETRAINING = "pretrain pretrain_fold"
ANSWER = "evaluate head"
# The label in words stands in the pages and above the pictures.
LABEL = "cohort_sheet:mine evaluate model_report comparison cohort_figures"


def following(first: str | dict[str, str], counts: dict[str, int] | None = None) -> planner.Plan:
    """The plan when these jobs have a reason of their own ('params', unless it is named), and all
    that follows has to be made anew as well.

    Of a job that is planned because its input will be made anew, Snakemake asks no further reason,
    but for outputs that are missing.
    """
    own = dict.fromkeys(first.split(), "params") if isinstance(first, str) else first
    assert own.keys() <= JOBS.keys()
    planned: set[str] = set()
    found: dict[str, Counter[str]] = {}
    for job, (number, reads) in JOBS.items():  # in their order
        reasons = set(own.get(job, "").split("+")) - {""}
        if planned & set(reads.split()):
            reasons = (reasons & {"missing"}) | {"upstream"}
        if reasons:
            planned.add(job)
            rule = job.partition(":")[0]
            number = (counts or {}).get(job, number)
            found.setdefault(rule, Counter())["+".join(sorted(reasons))] += number
    return {rule: dict(each) for rule, each in found.items()}


def recordings(folder: Path) -> None:
    """A BIDS data set of six, and a sheet of two, all of them empty files."""
    table = ["participant_id\tgood\tfine\tscore\tage"]
    for number in range(1, PEOPLE + 1):
        eeg = folder / f"bids/sub-{number}/ses-a/eeg"
        eeg.mkdir(parents=True)
        stem = f"sub-{number}_ses-a_task-rest_run-1"
        (eeg / f"{stem}_eeg.edf").write_text(f"0       {stem}")
        (eeg / f"{stem}_channels.tsv").write_text("name\ttype\n")
        good = number % 2
        table.append(f"sub-{number}\t{['no', 'yes'][good]}\t{['no', 'yes'][good]}\t{9 * good}\t30")
    (folder / "bids/participants.tsv").write_text("\n".join(table) + "\n")
    shutil.copytree(folder / "bids", folder / "bids2")
    sheet(folder)


def sheet(folder: Path, label: str = "") -> None:
    (folder / "raw").mkdir(exist_ok=True)
    lines = ["participant\trecording\tpath\tremission"]
    for name in "ab"[:MORE]:
        if not (folder / f"raw/{name}.edf").exists():
            (folder / f"raw/{name}.edf").write_text(name)
        lines.append(f"{name}\t{name}_rest\t{name}.edf\t{label if name == 'a' else ''}")
    for name in ("sheet", "other"):
        (folder / f"raw/{name}.tsv").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder in which everything seems to be made, with Snakemake's record of how."""
    folder = tmp_path_factory.mktemp("built")
    recordings(folder)
    config = configured(folder / "mine.yaml", SETTINGS)
    printed = submit(folder, *TARGETS, config=config).result()
    for name in outputs_of(printed):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / naming.path("pretrained_card", model=MODEL)).write_text("{}")
    done = snakemake("--touch", "--forceall", *TARGETS, cwd=folder, config=config)
    assert done.returncode == 0, done.stdout
    # Of jobs that need not wait for each other any may be touched last, and a file that a changed setting
    # makes an input would be newer than the output in one run of these tests and not in the next.
    now = time.time()
    for file in (folder / "results").rglob("*"):
        os.utime(file, (now, now))
    return folder


@pytest.fixture
def copy(built, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(built, folder, symlinks=True)  # keeps the times
    return folder


def planned(folder: Path, *targets: str, **others: Any) -> planner.Plan:
    config = others.pop("config", folder / "mine.yaml")
    return read(submit(folder, *(targets or TARGETS), config=config, **others).result())


def test_the_jobs_are_all_the_rules_there_are(tmp_path):
    """Nothing of the workflow is left out of the table."""
    recordings(tmp_path)
    jobs = planned(tmp_path, config=configured(tmp_path / "mine.yaml", SETTINGS))
    counted: Counter[str] = Counter()
    for job, (number, _) in JOBS.items():
        counted[job.partition(":")[0]] += number
    assert {rule: sum(each.values()) for rule, each in jobs.items()} == counted
    written = [text for file in ROOT.glob("workflow/rules/*.smk") for text in [file.read_text()]]
    rules = re.findall(
        r"^rule (\w+):", "\n".join([*written, (ROOT / "Snakefile").read_text()]), re.M
    )
    assert set(rules) - {"evaluation"} == set(counted)  # which only names two of the targets


def test_nothing_is_planned_when_everything_is_there(built):
    assert planned(built) == {}


# Settings ---------------------------------------------------------------------------------------

# Each setting, its new value (or several settings that have to change together), and the jobs that
# are given it; what reads their results follows. Where names or numbers of files change, the whole
# plan.
COHORT_OF_SIX = {"participants": 6, "remission_fraction": 0.5}
READING = "cohort_sheet:more windows:more"
OF_FOLDS = ("fold_split", "pretrain_fold", "embed_fold")
OTHER_DATASET = {
    **dict.fromkeys(WINDOWS.split(), "params"),
    **dict.fromkeys(["primary_dataset", "corpus:more", "corpus:new"], "missing"),
    **dict.fromkeys(["split", "folds", "fold_split", "features"], "missing"),
    **dict.fromkeys(["cohort_figures", "signal_figure"], "missing"),
}
# What a model of another name takes, what evaluating it takes, and who compares models.
OTHER_MODEL = {
    "pretrain": {"missing": 1},
    "diagnose": {"missing+upstream": 1},
    "backbone_pictures": {"missing+upstream": 1},
    "embed": {"missing+upstream": 1},
    "embed_random": {"missing": 1},
    "embeddings_picture": {"missing+upstream": 1},
    "finetune": {"missing+upstream": 1},
    "model_report": {"missing+upstream": 1},
    "run_resources": {"set+upstream": 1},
    "all": {"upstream": 1},
}
COMPARED = {
    "embed_random": {"missing": 1},
    "pretrain_fold": {"missing": FOLDS},
    "embed_fold": {"missing+upstream": FOLDS},
    "evaluate": {"missing+upstream": 1},
    "evaluation_table": {"set+upstream": 1},
    "comparison": {"set+upstream": 1},
    "sweep": {"upstream": 1},
}
OTHER_SIZE = OTHER_MODEL | COMPARED
OF_EACH_MODEL = ("pretrain", "diagnose", "finetune", "model_report")
MORE_MODELS = COMPARED | {key: OTHER_MODEL[key] for key in OF_EACH_MODEL}
ROWS: dict[str, tuple[Any, str | dict[str, Any]]] = {
    "cohort": (
        {"cohort": "other", "cohorts": {"other": {"simulate": COHORT_OF_SIX}}},
        # The results of another cohort in question take the place of those of the one before.
        {
            **following("primary_dataset"),
            "simulate": {"missing": 6},
            "cohort_sheet": {"missing": 1},
            "windows": {"missing+upstream": 6},
            "primary_dataset": {"params+set+upstream": 1},
            "signal_figure": {"params+set+upstream": 1},
            "finetune": {"missing+upstream": 1},  # the predictions have its name
        },
    ),
    "cohorts.new.simulate.participants": (
        3,
        {
            "simulate": {"params": NEW, "missing": 1},
            "cohort_sheet": {"params": 1},
            "windows": {"upstream": NEW, "missing+upstream": 1},
            "corpus": {"upstream": 1},
            "predict_new": {"upstream": 1},
        },
    ),
    "cohorts.new.simulate.remission_fraction": (0.4, "simulate:new cohort_sheet:new"),
    "cohorts.new.simulate.minutes": (1, "simulate:new cohort_sheet:new"),
    "cohorts.new.simulate.effect": (0, "simulate:new cohort_sheet:new"),
    "cohorts.new.simulate.mains_hz": (60, "simulate:new cohort_sheet:new"),
    "cohorts.new.simulate.seed": (8, "simulate:new cohort_sheet:new windows:new"),
    "cohorts.more.sheet": ("raw/other.tsv", {"cohort_sheet:more": "params+set"}),
    "cohorts.more.root": ("raw", "cohort_sheet:more"),
    "cohorts.more.sampling_rate": (256, READING),
    "cohorts.more.channel_names": (["A", "B"], READING),
    "cohorts.more.units": ("mV", READING),
    "cohorts.more.allow_truncated": (True, READING),
    "cohorts.more.follow_links_to": (["raw"], ""),
    "cohorts.more.channels": (
        ["AF7", "AF8"],
        {"windows:more": "params", "corpus:more": "missing"},
    ),
    "cohorts.mine.scan.root": (
        "bids2",
        {"cohort_sheet:mine": "params+set", "windows:mine": "set", "signal_figure": "set"},
    ),
    "cohorts.mine.scan.layout": (
        "folder",
        {"cohort_sheet:mine": "params", "windows:mine": "missing", "signal_figure": "params"},
    ),
    "cohorts.mine.scan.label.column": ("fine", LABEL),
    "cohorts.mine.scan.label.values": ({"yes": 0, "no": 1}, f"windows:mine {LABEL}"),
    "cohorts.mine.scan.label.threshold": (
        {"column": "score", "values": None, "threshold": 5, "positive": "above"},
        LABEL,
    ),
    "cohorts.mine.scan.label.positive": (
        {"column": "score", "values": None, "threshold": 5, "positive": "below"},
        f"windows:mine {LABEL}",
    ),
    "cohorts.mine.scan.covariates": (["age"], "cohort_sheet:mine"),
    "cohorts.mine.scan.require_label": (True, "cohort_sheet:mine"),
    "cohorts.mine.scan.tasks": (["rest"], "cohort_sheet:mine"),
    "cohorts.mine.scan.sessions": (["a"], "cohort_sheet:mine"),
    "cohorts.mine.scan.runs": (["1"], "cohort_sheet:mine"),
    "channels": (["AF7", "AF8"], OTHER_DATASET),
    "preprocessing.bridge_seconds": (0, CHAIN),
    "preprocessing.reference": ("average", CHAIN),
    "preprocessing.upsample.factor": (4, CHAIN),
    "preprocessing.upsample.method": ("linear", CHAIN),
    "preprocessing.highpass.cutoff_hz": (1, CHAIN),
    "preprocessing.highpass.order": (4, CHAIN),
    "preprocessing.notch.frequencies_hz": (50, CHAIN),
    "preprocessing.notch.quality": (35, CHAIN),
    "preprocessing.lowpass.cutoff_hz": (50, CHAIN),
    "preprocessing.lowpass.order": (2, CHAIN),
    "preprocessing.sampling_rate": (128, CHAIN),
    "preprocessing.window_seconds": (4, OTHER_DATASET),
    "preprocessing.overlap_seconds": (4, CHAIN),
    "preprocessing.offset": ("median", CHAIN),
    "preprocessing.quality.flat_uv": (0.1, CHAIN),
    "preprocessing.quality.flat_seconds": (0.5, CHAIN),
    "preprocessing.quality.max_flat_fraction": (None, CHAIN),
    "preprocessing.quality.max_clipped_fraction": (None, CHAIN),
    "preprocessing.quality.max_dropout_fraction": (None, CHAIN),
    "preprocessing.quality.max_peak_to_peak_uv": (None, CHAIN),
    "preprocessing.quality.max_line_noise_ratio": (10, CHAIN),
    "preprocessing.quality.max_high_frequency_ratio": (10, CHAIN),
    "preprocessing.quality.max_spectral_flatness": (None, CHAIN),
    "preprocessing.quality.min_contact_fraction": (0.5, CHAIN),
    "preprocessing.quality.min_worn_fraction": (None, CHAIN),
    "preprocessing.quality.use_bad_channels": (True, CHAIN),
    "sequences.token_seconds": (1, ENCODER),
    "sequences.context_windows": (1, ENCODER),
    "sequences.use_bad_windows": (True, f"{ENCODER} cohort_figures"),
    "split.validation": (0.3, "split"),
    "split.test": (0.2, "split"),
    "split.unlabelled": ("pretraining", "split"),
    "split.seed": (1, "split"),
    "model.d_model": (128, OTHER_SIZE),
    "model.num_layers": (1, OTHER_SIZE),
    "model.mask_percent": (40, OTHER_MODEL),
    "model.masking_style": ("bert", OTHER_MODEL),
    "model.d_state": (32, ENCODER),
    "model.d_conv": (2, ENCODER),
    "model.expand": (1, ENCODER),
    "model.headdim": (32, ENCODER),
    "model.token_hidden": (0, ENCODER),
    "model.token_spectrum_hz": (0, ENCODER),
    "model.chunk_size": (32, ENCODER),
    "model.bidirectional": (False, ENCODER),
    "model.shared_directions": (True, ENCODER),
    "model.precision": ("bfloat16", ENCODER),
    "pretraining.extra_cohorts": ([], {"pretrain": "params+set", "pretrain_fold": "params+set"}),
    "pretraining.corpus_weights": ({"more": 0.5}, PRETRAINING),
    "pretraining.extra_ids": ("other", PRETRAINING),
    "pretraining.own_cohort": (
        {"pretraining": {"own_cohort": False}, "evaluation": {"pretraining": "held_out"}},
        {"pretrain": "params", "evaluate": "upstream"},  # one backbone for all folds
    ),
    "pretraining.transductive": (  # nobody is left to diagnose on; those of the folds never let in
        True,
        {**following("pretrain finetune"), "diagnose": {}, "backbone_pictures": {}},
    ),
    "pretraining.epochs": (1, PRETRAINING),
    "pretraining.least_steps": (0, PRETRAINING),
    "pretraining.batch_size": (4, PRETRAINING),
    "pretraining.learning_rate": (0.01, PRETRAINING),
    "pretraining.weight_decay": (0, PRETRAINING),
    "pretraining.warmup_fraction": (0, PRETRAINING),
    "pretraining.gradient_clip": (2, PRETRAINING),
    "pretraining.early_stopping_fraction": (0.2, PRETRAINING),
    "pretraining.patience": (1, PRETRAINING),
    "pretraining.geometry": ("independent", PRETRAINING),
    "pretraining.block_seconds": ([1, 1], PRETRAINING),
    "pretraining.single_channel_fraction": (0, PRETRAINING),
    "pretraining.waveform_weight": (2, PRETRAINING),
    "pretraining.spectrum_weight": (0, PRETRAINING),
    "pretraining.spectrum_hz": ([2, 40], PRETRAINING),
    "pretraining.pooled_weight": (1, PRETRAINING),
    "pretraining.latent_weight": (1, PRETRAINING),
    "pretraining.latent_decay": (0.9, PRETRAINING),
    "pretraining.shuffle_mb": (64, PRETRAINING),
    "pretraining.random_shift": (False, PRETRAINING),
    "pretraining.random_sign": (False, PRETRAINING),
    "pretraining.random_gain": (0, PRETRAINING),
    "pretraining.seed": (1, PRETRAINING),
    "diagnostics.sequences_per_participant": (2, "diagnose backbone_pictures"),
    "diagnostics.masks_per_sequence": (2, "diagnose"),
    "diagnostics.resamples": (100, "diagnose"),
    "diagnostics.seed": (1, "diagnose backbone_pictures"),
    "finetuning.freeze_backbone": (False, "finetune"),
    "finetuning.epochs": (1, "finetune"),
    "finetuning.batch_size": (4, "finetune"),
    "finetuning.gradient_accumulation": (2, "finetune"),
    "finetuning.learning_rate": (0.01, "finetune"),
    "finetuning.backbone_learning_rate": (0.01, "finetune"),
    "finetuning.weight_decay": (0, "finetune"),
    "finetuning.gradient_clip": (2, "finetune"),
    "finetuning.dropout": (0, "finetune"),
    "finetuning.class_weights": ("balanced", "finetune"),
    "finetuning.seed": (1, "finetune"),
    "evaluation.pretraining": ("transductive", {"evaluate": "params+set", "head": "params"}),
    "evaluation.folds": (
        2,
        following(f"folds fold_split {ANSWER}", dict.fromkeys(OF_FOLDS, 2)),
    ),
    "evaluation.repeats": (
        2,
        following({"folds": "params", **dict.fromkeys(OF_FOLDS, "missing"), "evaluate": "params"}),
    ),
    "evaluation.inner_folds": (2, ANSWER),
    "evaluation.strengths": ([1], ANSWER),
    "evaluation.select": (5, ANSWER),
    "evaluation.permutations": (19, ANSWER),
    "evaluation.resamples": (100, ANSWER),
    "evaluation.convolutional": (True, ANSWER),
    "evaluation.finetuned": (True, {"evaluate": "params+set", "head": "params"}),
    "evaluation.seed": (1, f"folds fold_split embed_random {ANSWER}"),
    "sweep.mask_percents": ([40, 50], MORE_MODELS),
    "sweep.masking_styles": (["mae", "bert"], MORE_MODELS),
    "execution.device": ("cpu", ""),
    "execution.backend": ("torch", ""),
    "execution.fast_products": (False, ""),
    "execution.ranks": (2, ""),
    "execution.compile": (True, ""),
    "execution.micro_batch": (1, ""),
    "execution.save_minutes": (1, ""),
    "execution.training_threads": (1, ""),
    "execution.training_mem_mb": (9000, ""),
    "execution.training_runtime_min": (10, ""),
    "execution.gpu": (1, ""),
    "execution.mlflow": (False, ""),
    "execution.mlflow_uri": ("http://127.0.0.1:1", ""),
    "execution.mlflow_experiment": ("other", ""),
}


def leaves(model: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    """The path of every setting there is; '*' stands for the name of a cohort."""
    found = []
    for name, field in model.model_fields.items():
        inner = nested(field.annotation)
        named = "*." if "dict" in str(field.annotation) and inner else ""
        path = f"{prefix}{name}"
        found += leaves(inner, f"{path}.{named}") if inner else [path]
    return found


def nested(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := nested(part))), None)


def test_every_setting_has_a_row():
    assert sorted(re.sub(r"^cohorts\.\w+", "cohorts.*", key) for key in ROWS) == sorted(leaves())


def changed(key: str) -> dict[str, Any]:
    value = ROWS[key][0]
    if isinstance(value, dict) and "values" in value and key.endswith((".threshold", ".positive")):
        return merged(SETTINGS, at(key.rpartition(".")[0], value))
    alone = not isinstance(value, dict) or key.rpartition(".")[2] in ("values", "corpus_weights")
    return merged(SETTINGS, at(key, value) if alone else value)


@pytest.fixture(scope="module")
def plans(built, request, tmp_path_factory):
    """The plans of the rows that were asked for, made two at a time."""
    folder = tmp_path_factory.mktemp("settings")
    asked = [
        item.callspec.params["key"]
        for item in request.session.items
        if item.path == Path(__file__)
        and getattr(item, "originalname", "") == "test_a_setting_replans_what_it_is_given_to"
    ]
    return {
        key: submit(built, *TARGETS, config=configured(folder / f"{key}.yaml", changed(key)))
        for key in asked
    }


def whole(expected: str | dict[str, Any]) -> planner.Plan:
    """The plan that a row stands for."""
    if isinstance(expected, dict) and any(isinstance(each, dict) for each in expected.values()):
        return {rule: each for rule, each in expected.items() if each}
    return following(expected)


@pytest.mark.parametrize("key", ROWS)
def test_a_setting_replans_what_it_is_given_to(plans, key):
    assert read(plans[key].result()) == whole(ROWS[key][1])


# What each job's command is given. It is looked at by itself, as a plan shows it only of the first
# of several jobs.
GIVEN: dict[str, Callable[[planning.Plan], str]] = {
    "simulate:new": lambda plan: plan.simulate_settings("new", "sim-001_rest"),
    "windows:mine": lambda plan: plan.windows_settings("mine", "sub-1_ses-a_task-rest_run-1"),
    "windows:more": lambda plan: plan.windows_settings("more", "a_rest"),
    "windows:new": lambda plan: plan.windows_settings("new", "sim-001_rest"),
    "cohort_sheet:mine": lambda plan: plan.sheet_settings("mine"),
    "cohort_sheet:more": lambda plan: plan.sheet_settings("more"),
    "cohort_sheet:new": lambda plan: plan.sheet_settings("new"),
    "primary_dataset": lambda plan: plan.primary_settings("mine"),
    "corpus:more": lambda plan: plan.primary_settings("more"),
    "corpus:new": lambda plan: plan.primary_settings("new"),
    "split": lambda plan: plan.split_settings(),
    "cohort_figures": lambda plan: plan.cohort_figures_settings(),
    "signal_figure": lambda plan: plan.signal_figure_settings(),
    "pretrain": lambda plan: plan.pretrain_settings(MODEL),
    "diagnose": lambda plan: plan.diagnose_settings(),
    "backbone_pictures": lambda plan: plan.backbone_pictures_settings(),
    "embeddings_picture": lambda plan: plan.embeddings_picture_settings(),
    "finetune": lambda plan: plan.finetune_settings(MODEL),
    "model_report": lambda plan: plan.report_settings(),
    "comparison": lambda plan: plan.comparison_settings(),
    "run_resources": lambda plan: plan.run_resources_settings(),
    "folds": lambda plan: plan.folds_settings(),
    "fold_split": lambda plan: plan.fold_split_settings("1", "2"),
    "pretrain_fold": lambda plan: plan.pretrain_settings(MODEL, of_fold=True),
    "embed_fold": lambda plan: plan.embed_settings(MODEL, repeat="1", fold="2"),
    "embed_random": lambda plan: plan.embed_random_settings(MODEL),
    "embed": lambda plan: plan.embed_settings(MODEL),
    "features": lambda plan: plan.features_settings(),
    "evaluate": lambda plan: plan.evaluate_settings(MODEL),
    "evaluation_table": lambda plan: plan.evaluation_table_settings(),
    "evaluation_page": lambda plan: plan.evaluation_page_settings(),
    "model_card": lambda plan: plan.model_card_settings(),
    "head": lambda plan: plan.head_settings(),
    "predict_new": lambda plan: plan.predict_settings("new"),
}


@pytest.mark.parametrize("key", [key for key, row in ROWS.items() if isinstance(row[1], str)])
def test_a_setting_is_given_to_these_commands(key, built, monkeypatch):
    monkeypatch.chdir(built)
    defaults = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    before, after = (planning.Plan(merged(defaults, own)) for own in (SETTINGS, changed(key)))
    given = {job for job, settings in GIVEN.items() if settings(before) != settings(after)}
    assert given == set(ROWS[key][1].split())


# Files ------------------------------------------------------------------------------------------

STEM = "sub-1_ses-a_task-rest_run-1"
# Each kind of file there is: one of them, the jobs that read it (and how many of those that are
# alike), and what is planned when it is gone, which is nothing where all that needs it is there.
RAW: dict[str, tuple[str, str]] = {
    "recording": (f"bids/sub-1/ses-a/eeg/{STEM}_eeg.edf", "windows:mine signal_figure"),
    "sidecar": (f"bids/sub-1/ses-a/eeg/{STEM}_channels.tsv", "windows:mine signal_figure"),
    "participants": ("bids/participants.tsv", "cohort_sheet:mine"),
    "recording of a sheet": ("raw/b.edf", "windows:more"),
    "sheet": ("raw/sheet.tsv", "cohort_sheet:more"),
}
READERS: dict[str, str] = {
    "simulated": "windows:new",
    "cohort_sheet": "primary_dataset diagnose embeddings_picture evaluate model_card cohort_figures",
    "windows": "primary_dataset",
    "primary": "split pretrain diagnose backbone_pictures embeddings_picture finetune model_report "
    "folds fold_split pretrain_fold embed_fold embed_random embed features evaluate model_card head "
    "cohort_figures",
    "corpus": PRETRAINING,
    "split": "pretrain diagnose backbone_pictures finetune model_report cohort_figures",
    **{f"figure_{what}": "" for what in ("flow", "demographics", "quality", "spectra", "split")},
    "figure_signal": "",
    "folds": "evaluate head",
    "fold_split": "pretrain_fold embed_fold",
    "pretrained": "diagnose backbone_pictures finetune embed model_card predict_new",
    "pretrained_fold": "embed_fold",
    "diagnostics": "model_report backbone_pictures",
    "diagnostics_skill": "",
    "diagnostics_bands": "",
    "checks": "",
    "reconstruction": "",
    "embeddings_picture": "",
    "finetuned": "",
    "finetuned_card": "model_report comparison",
    "predictions": "model_report",
    "history": "",
    "model_report": "comparison run_resources",
    "comparison": "",
    "comparison_parquet": "",
    "comparison_page": "",
    "comparison_picture": "",
    "run_resources": "",
    "run_resources_table": "",
    "embeddings_random": "embeddings_picture evaluate",
    "embeddings": "embeddings_picture head",
    "embeddings_fold": "evaluate",
    "features": "evaluate",
    "evaluation": "evaluation_page evaluation_table model_card head",
    "evaluation_page": "",
    **{f"evaluation_{name}": "" for name in naming.EVALUATION_PICTURES},
    "model_card": "",
    "head": "predict_new",
    "evaluation_table": "",
    "evaluation_picture": "",
    "predictions_new": "",
}
NOT_OF_RULES = {
    "pretrained_card",
    "test_reads",
    "mlflow_database",
    "mlflow_artifacts",
    "mlflow_journal",
}
ONE = dict.fromkeys(WINDOWS.split(), 1)
OF_ONE_FOLD = ("fold_split", "pretrained_fold")
VALUES = {"model": MODEL, "dataset": DATASET, "repeat": "1", "fold": "2"}


def made(kind: str) -> str:
    """The path of one of the files of a kind."""
    cohort, recording = ("new", "sim-001_rest") if kind == "simulated" else ("mine", STEM)
    cohort = {"corpus": "more", "predictions_new": "new"}.get(kind, cohort)
    return naming.PATTERNS[kind].format(**VALUES, cohort=cohort, recording=recording)


def test_every_kind_of_file_has_a_row():
    assert set(READERS) | NOT_OF_RULES == set(naming.PATTERNS)


def written(folder: Path, file: str) -> None:
    path = folder / file
    path.write_text(path.read_text() + " ")


@pytest.mark.parametrize("kind", [*RAW, *READERS])
def test_a_changed_file_replans_what_reads_it(copy, kind):
    file, readers = RAW[kind] if kind in RAW else (made(kind), READERS[kind])
    written(copy, file)
    counts = ONE | (dict.fromkeys(OF_FOLDS, 1) if kind in OF_ONE_FOLD else {})
    assert planned(copy) == following(dict.fromkeys(readers.split(), "input"), counts)


# Of the files that were asked for, who makes them anew when they are gone. All others are needed for
# nothing any more: recordings and intermediate files may be removed.
GONE = {
    "sidecar": {"windows:mine": "set", "signal_figure": "set"},
    **{
        f"figure_{what}": {"cohort_figures": "missing"}
        for what in ("flow", "demographics", "quality", "spectra", "split")
    },
    "figure_signal": {"signal_figure": "missing"},
    "finetuned": {"finetune": "missing"},
    "model_report": {"model_report": "missing"},
    "comparison": {"comparison": "missing"},
    "comparison_parquet": {"comparison": "missing"},
    "comparison_page": {"comparison": "missing"},
    "comparison_picture": {"comparison": "missing"},
    "run_resources": {"run_resources": "missing"},
    "evaluation_page": {"evaluation_page": "missing"},
    "checks": {"backbone_pictures": "missing"},
    "reconstruction": {"backbone_pictures": "missing"},
    "embeddings_picture": {"embeddings_picture": "missing"},
    "model_card": {"model_card": "missing"},
    "evaluation_table": {"evaluation_table": "missing"},
    "predictions_new": {"predict_new": "missing"},
}
SCANNED = {"recording", "participants"}  # the next test


@pytest.mark.parametrize("kind", [kind for kind in (*RAW, *READERS) if kind not in SCANNED])
def test_a_file_that_is_gone_is_made_anew_only_where_it_was_asked_for(copy, kind):
    (copy / (RAW[kind][0] if kind in RAW else made(kind))).unlink()
    assert planned(copy) == following(GONE.get(kind, {}), ONE)


def test_a_recording_that_is_gone_from_a_scanned_folder_is_no_longer_of_the_cohort(copy):
    """Which leaves too few to split, and that is said before any job."""
    shutil.rmtree(copy / "bids/sub-1")
    printed = submit(copy, *TARGETS, config=copy / "mine.yaml").result()
    assert "3 participants with label 0 and 2 participants with label 1" in refused(printed)[0]


# RESULT_VERSION, code and times -----------------------------------------------------------------

VERSIONS = {
    "recordings/simulate.py": "simulate:new",
    "recordings/registry.py": CHAIN,
    "preprocessing/chain.py": CHAIN,
    "dataset/windows.py": WINDOWS,
    "dataset/primary.py": "primary_dataset corpus:more corpus:new",
    "dataset/splits.py": "split fold_split",
    "dataset/sequences.py": f"{ENCODER} diagnose predict_new",
    "dataset/corpus.py": PRETRAINING,
    "nn/encoder.py": f"{ENCODER} diagnose predict_new",
    "training/pretrain.py": PRETRAINING,
    "training/finetune.py": "finetune",
    "training/embed.py": "embed embed_fold embed_random predict_new",
    "evaluation/diagnostics.py": "diagnose",
    "evaluation/folds.py": "folds fold_split",
    "evaluation/features.py": "features",
    "evaluation/candidates.py": "evaluate",
    "evaluation/window_tables.py": "evaluate",
    "evaluation/trained.py": "evaluate",
    "evaluation/finetuned.py": "evaluate",
    "evaluation/convolutional.py": "evaluate",
    "evaluation/crossfit.py": "evaluate head",
    "evaluation/estimates.py": "evaluate",
    "evaluation/power.py": "evaluate",
    "evaluation/evaluate.py": "evaluate",
    "evaluation/predict.py": "head predict_new",
    "report/cohort.py": "cohort_figures",
    "report/quality.py": "cohort_figures",
    "report/spectra.py": "cohort_figures",
    "report/signal.py": "signal_figure",
    "report/evaluation.py": "evaluation_page evaluation_table model_card",
    "report/model_card.py": "model_card",
    "report/model_report.py": "model_report",
    "report/comparison.py": "comparison evaluation_table",
    "report/resources.py": "run_resources",
    "report/diagnostics.py": "backbone_pictures",
    "report/reconstruction.py": "backbone_pictures",
    "report/embedding_pictures.py": "embeddings_picture",
}


@pytest.fixture
def sources(tmp_path):
    """A copy of the workflow that may be changed."""
    folder = tmp_path / "sources"
    shutil.copytree(ROOT / "workflow", folder / "workflow", ignore=shutil.ignore_patterns("*.pyc"))
    for name in ("config", "profiles", "envs"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "Snakefile", folder)
    return folder


def test_every_result_version_has_a_row():
    package = ROOT / "workflow/remit"
    there = {
        str(file.relative_to(package))
        for file in package.rglob("*.py")
        if re.search(r"^RESULT_VERSION = ", file.read_text(), re.M)
    }
    assert there == set(VERSIONS) == {m for stage in STAGE_MODULES.values() for m in stage}


@pytest.mark.parametrize("module", VERSIONS)
def test_a_raised_result_version_replans_its_stage(built, sources, module):
    file = sources / "workflow/remit" / module
    text, raised = re.subn(
        r"^(RESULT_VERSION = )(\d+)",
        lambda m: f"{m[1]}{int(m[2]) + 1}",
        file.read_text(),
        flags=re.M,
    )
    assert raised == 1
    file.write_text(text)
    assert planned(built, source=sources) == following(VERSIONS[module])


def test_an_edited_comment_replans_nothing(built, sources):
    for file in (*sources.rglob("*.py"), *sources.rglob("*.smk"), sources / "Snakefile"):
        file.write_text(f"# Edited.\n{file.read_text()}\n# Edited.\n")
    assert planned(built, source=sources) == {}


@pytest.mark.parametrize("seed", range(3))
def test_new_times_as_of_a_checkout_replan_nothing(copy, seed):
    """All files, in any order: raw recordings, sheets and results."""
    files = sorted(
        file for file in copy.rglob("*") if file.is_file() and ".snakemake" not in file.parts
    )
    random.Random(seed).shuffle(files)
    for second, file in enumerate(files):
        os.utime(file, (1_800_000_000 + second,) * 2)
    assert len(files) > 80
    assert planned(copy) == {}


if __name__ == "__main__":
    print(*leaves(), sep="\n")
