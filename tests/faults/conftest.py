"""A dataset to train on, and trainings in processes of their own."""

import json
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT, run, started
from tests.unit.training.conftest import PEOPLE, Bench, make_dataset, split_of


@pytest.fixture
def bench(tmp_path):
    primary = make_dataset(tmp_path, PEOPLE)
    return Bench(tmp_path, primary, split_of(primary, tmp_path))


@pytest.fixture(scope="module")
def shared_bench(tmp_path_factory):
    """A bench with two finished trainings, for tests that leave these as they are."""
    folder = tmp_path_factory.mktemp("faults")
    primary = make_dataset(folder, PEOPLE)
    made = Bench(folder, primary, split_of(primary, folder))
    whole, _ = made.pretrain(folder / "whole.pt", **PRETRAINING)
    made.finetune(whole, folder / "tuned.pt", **FINETUNING)
    return made


PRETRAINING = {"epochs": 4, "least_steps": 0, "batch_size": 4, "latent_weight": 0.3}
FINETUNING = {"epochs": 3, "batch_size": 3, "freeze_backbone": False}


def command(folder, stage, output, **options):
    given = {**(PRETRAINING if stage == "pretrain" else FINETUNING), **options}
    if stage == "finetune":
        given["backbone"] = "whole.pt"
    return [
        *(sys.executable, "-m", "tests.faults.train", folder, stage, output),
        json.dumps(given),
    ]


def train(folder, stage, output, **options):
    """Run a training to its end, whatever that is."""
    return run(*command(folder, stage, output, **options), cwd=ROOT)


def start(folder, stage, output, **options):
    """Start a training; its lines can be read as they come."""
    return started(*command(folder, stage, output, **options), cwd=ROOT)


def assert_same(one, other):
    """Equal tensors, bit for bit, and equal values."""

    def check(a, b, key):
        assert type(a) is type(b), key
        if isinstance(a, torch.Tensor):
            assert torch.equal(a, b), key
        elif isinstance(a, dict):
            assert a.keys() == b.keys(), key
            for name in a:
                check(a[name], b[name], f"{key}.{name}")
        elif isinstance(a, list):
            assert len(a) == len(b), key
            for number, pair in enumerate(zip(a, b, strict=True)):
                check(*pair, f"{key}.{number}")
        else:
            assert a == b, key

    check(torch.load(one, weights_only=True), torch.load(other, weights_only=True), "")
    assert Path(one).read_bytes() == Path(other).read_bytes()
