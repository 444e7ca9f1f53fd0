"""remit's way through a GPU, on a machine that has none: see tests/pretended."""

import re
import sys

import pytest

from tests.conftest import ROOT, run
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
    done = run(
        sys.executable,
        "-m",
        "tests.pretended",
        *options,
        *files,
        cwd=ROOT,
        env={"REMIT_TEST_DEVICE": "cuda", "PYTEST_ADDOPTS": ""},
        timeout=1500,
    )
    if done.returncode == CANNOT:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout[-8000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) >= least, done.stdout[-2000:]
    operations = re.search(r"(\d+) operations on the device", done.stdout)
    assert operations and int(operations[1]) > 10_000, done.stdout[-2000:]
