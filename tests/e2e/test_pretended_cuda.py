"""remit's way through a GPU, on a machine that has none: see tests/pretended."""

import os
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.pretended.__main__ import CANNOT

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    ("files", "least"),
    [
        (["tests/pretended/inside_cuda.py"], 20),
        # The tests of whole trainings, interrupted and resumed, and of what judges them.
        (
            [
                "tests/unit/training/test_training.py",
                "tests/unit/training/test_embed.py",
                "tests/unit/training/test_runtime.py",
                "tests/unit/evaluation/test_diagnostics.py",
                "tests/unit/evaluation/test_evaluate.py",
                "tests/unit/evaluation/test_finetuned.py",
                "tests/unit/evaluation/test_predict.py",
            ],
            100,
        ),
    ],
    ids=["pieces", "trainings"],
)
def test_all_of_it_passes_on_a_pretended_device(files, least):
    options = ["-q", "--tb=short", "--show-capture=no", "-m", "not slow"]
    given = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.pretended", *options, *files],
        cwd=ROOT,
        env=given | {"REMIT_TEST_DEVICE": "cuda"},
        capture_output=True,
        text=True,
        timeout=1500,
    )
    if done.returncode == CANNOT:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) >= least, done.stdout[-2000:]
    operations = re.search(r"(\d+) operations on the device", done.stdout)
    assert operations and int(operations[1]) > 10_000, done.stdout[-2000:]
