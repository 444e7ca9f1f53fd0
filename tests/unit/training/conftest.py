"""A tiny primary dataset with its split, made without any recording file."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from remit.config import Execution, Finetuning, Pretraining, Sequences, Split
from remit.dataset.corpus import Read
from remit.dataset.primary import build_primary
from remit.dataset.splits import make_split, write_split
from remit.dataset.windows import open_dataset, write_windows
from remit.naming import ModelName
from remit.preprocessing.chain import CHANNEL_QUALITY, Windows
from remit.recordings.recording import Recording, Segment
from remit.training.finetune import FinetuneSettings, finetune
from remit.training.pretrain import PretrainSettings, pretrain

CHANNELS = ("AF7", "AF8")
RATE = 32.0
SAMPLES = 64
MODEL = {
    "d_model": 16,
    "num_layers": 1,
    "d_state": 8,
    "d_conv": 4,
    "expand": 2,
    "headdim": 16,
    "chunk_size": 16,
    "bidirectional": True,
}
# What a rule is given: a spectrum too, whose statistics pretraining finds.
RULE_MODEL = {**MODEL, "token_spectrum_hz": 12.0}
NAME = ModelName(16, 1, 40, "mae")
SEQUENCES = Sequences(token_seconds=0.5, context_windows=2)
# As `make test-gpu` and tests/pretended say.
DEVICE = os.environ.get("REMIT_TEST_DEVICE", "cpu")
QUIET = Execution(device=DEVICE, mlflow=False, training_threads=1)
on_cpu = pytest.mark.skipif(DEVICE != "cpu", reason="is about the CPU")


def make_dataset(
    folder: Path,
    people: dict[str, int | None],
    *,
    cohort="made",
    windows=5,
    seed=0,
    simulated=True,
    like=None,
    channels=CHANNELS,
    source=None,
    settings=None,
) -> Path:
    """A primary dataset of random signals; class 1 is louder at one electrode.

    ``like``: take the signals of these people's labels instead. ``source``: the source file's hash
    where it is not one of its own. ``settings``: of the signal chain.
    """
    many = len(channels)
    loud = list((like or people).values())
    files = []
    for number, (person, label) in enumerate(people.items()):
        rng = np.random.default_rng([seed, number])
        count = windows + number % 2
        t = np.arange(SAMPLES) / RATE
        signal_WCS = (
            rng.normal(0, 10, (count, many, SAMPLES))
            + 20
            * np.sin(2 * np.pi * 5 * t + rng.uniform(0, 6, (count, 1, 1)))
            * np.array([1.0, 1.0 + (loud[number] or 0), *[1.0] * (many - 2)])[None, :, None]
        )
        signal_WCS = signal_WCS.astype(np.float32)
        recording = Recording(
            participant=person,
            recording=f"{person}_r",
            signal_CS=np.concatenate(list(signal_WCS), axis=1),
            sampling_rate=RATE,
            channels=channels,
            segments=(Segment(0, count * SAMPLES, 0.0),),
            prewindowed=False,
            simulated=simulated,
            source_sha256=source or f"{cohort}-{person}",
            left_out=(),
            notes=(),
        )
        start = np.arange(count, dtype=np.int64) * SAMPLES
        good = np.ones(count, bool)
        good[0] = number % 3 != 0  # some windows are bad
        made = Windows(
            signal_WCS=signal_WCS,
            sampling_rate=RATE,
            channels=channels,
            parent_window_id=np.zeros(count, np.int32),
            sub_window_id=np.arange(count, dtype=np.int32),
            window_start=start,
            window_end=start + SAMPLES,
            **{name: np.zeros((count, many), np.float32) for name in CHANNEL_QUALITY},
            worn_fraction=np.full(count, np.nan, np.float32),
            bad_because=tuple("" if fine else "flat" for fine in good),
            dropped_seconds=0.0,
        )
        file = folder / f"{cohort}-{person}.parquet"
        write_windows(
            file,
            made,
            recording=recording,
            remission=label,
            cohort=cohort,
            settings=settings or {},
        )
        files.append(file)
    out = folder / f"{cohort}_primary.parquet"
    build_primary(files, out, cohort=cohort, channels=list(channels))
    return out


def read_of(sequences, indices) -> Read:
    """Some sequences as pretraining reads them."""
    samples_BKCS, valid_BK = sequences.batch(indices, torch.device("cpu"))
    return Read(CHANNELS, samples_BKCS, valid_BK, np.asarray(indices), np.zeros(len(indices), int))


def split_of(primary: Path, folder: Path, **settings) -> Path:
    data = open_dataset(primary)
    split = make_split(
        data.labels,
        Split(**settings),
        dataset=data.metadata["dataset"],
        content_sha256=data.metadata["content_sha256"],
        simulated=True,
    )
    file = folder / "split.json"
    write_split(file, split)
    return file


@dataclass
class Bench:
    """Everything a training needs, with short calls for both trainings."""

    folder: Path
    primary: Path
    split: Path
    sequences: Sequences = SEQUENCES

    def pretrain_settings(self, model=RULE_MODEL, **options):
        given = {
            "epochs": 3,
            "least_steps": 0,
            "batch_size": 4,
            "early_stopping_fraction": 0.3,
            "block_seconds": (0.5, 1.0),
            "spectrum_hz": (2.0, 12.0),
            **options,
        }
        if not given.get("own_cohort", True):
            given["extra_cohorts"] = ["whose_files_are_given"]
        return PretrainSettings(
            result_version="t",
            model=model,
            sequences=self.sequences,
            pretraining=Pretraining(**given),
        )

    def pretrain(self, output=None, *, name=NAME, corpora=(), execution=QUIET, log=None, **options):
        file = output or self.folder / f"{name}.pt"
        lines: list[str] = []
        pretrain(
            name=name,
            settings=self.pretrain_settings(**options),
            primary=self.primary,
            split_file=self.split,
            corpora=list(corpora),
            output=file,
            execution=execution,
            log=log or lines.append,
        )
        return file, lines

    def finetune(
        self,
        backbone,
        output=None,
        *,
        name=NAME,
        execution=QUIET,
        log=None,
        model=RULE_MODEL,
        sequences=None,
        transductive=False,
        **options,
    ):
        file = output or self.folder / f"{name}_finetuned_best.pt"
        lines: list[str] = []
        finetune(
            name=name,
            settings=FinetuneSettings(
                result_version="t",
                model=model,
                sequences=sequences or self.sequences,
                finetuning=Finetuning(**{"epochs": 3, "batch_size": 3, **options}),
                transductive=transductive,
            ),
            backbone=backbone,
            primary=self.primary,
            split_file=self.split,
            output=file,
            predictions=file.with_suffix(".parquet"),
            execution=execution,
            log=log or lines.append,
        )
        return file, lines


PEOPLE = {f"p{i:02d}": i % 2 for i in range(14)}


@pytest.fixture
def bench(tmp_path):
    primary = make_dataset(tmp_path, PEOPLE)
    return Bench(tmp_path, primary, split_of(primary, tmp_path))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A bench with a pretrained backbone, for tests that do not change it."""
    folder = tmp_path_factory.mktemp("trained")
    primary = make_dataset(folder, PEOPLE)
    made = Bench(folder, primary, split_of(primary, folder))
    backbone, _ = made.pretrain()
    return made, backbone
