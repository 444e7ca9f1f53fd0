"""remit's way through a GPU, on a machine that has none: see tests/pretended."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler"),
]


@pytest.mark.parametrize(
    ("files", "least"),
    [
        (["tests/pretended/inside_cuda.py"], 14),
        # The tests of whole trainings, killed and resumed, and of what judges them.
        (
            [
                "tests/unit/training/test_training.py",
                "tests/unit/training/test_embed.py",
                "tests/unit/evaluation/test_diagnostics.py",
                "tests/unit/evaluation/test_finetuned.py",
                "tests/unit/evaluation/test_predict.py",
            ],
            100,
        ),
    ],
    ids=["pieces", "trainings"],
)
def test_all_of_it_passes_on_a_pretended_device(files, least):
    done = subprocess.run(
        [sys.executable, "-m", "tests.pretended", "-q", "--tb=short", "--show-capture=no", *files],
        cwd=ROOT,
        env=os.environ | {"REMIT_TEST_DEVICE": "cuda"},
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) >= least, done.stdout[-2000:]
