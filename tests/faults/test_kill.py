"""Killed at any moment, the same command ends with the bits of an unbroken training."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
import yaml

from remit.dataset import windows
from tests.conftest import BIN, ROOT, started
from tests.e2e.test_chain import TINY
from tests.faults.conftest import assert_same, start, train
from tests.unit.training.conftest import SAMPLES, make_dataset

pytestmark = pytest.mark.faults

KILLED = -signal.SIGKILL
WHOLE = {"pretrain": "whole.pt", "finetune": "tuned.pt"}


def leftovers(folder):
    return [*folder.glob("*.state"), *folder.rglob(".*.tmp*")]


@pytest.mark.parametrize(
    ("stage", "moments"),
    [
        ("pretrain", ("write:1", "step:2", "rename:3", "renamed:2")),
        ("finetune", ("step:2", "write:3", "renamed:2")),
    ],
)
def test_killed_at_chosen_moments_it_ends_with_the_same_bits(shared_bench, stage, moments):
    """After the weights have moved; in the middle of a write; before and after the rename."""
    folder = shared_bench.folder
    output = f"chosen_{stage}.pt"
    for moment in moments:
        done = train(folder, stage, output, die=moment)
        assert done.returncode == KILLED, done.stdout
        assert not (folder / output).exists()
    done = train(folder, stage, output)
    assert done.returncode == 0 and "resuming after epoch" in done.stdout, done.stdout
    assert_same(folder / output, folder / WHOLE[stage])
    assert not leftovers(folder)


def test_killed_while_the_result_is_written_it_ends_with_the_same_bits(shared_bench):
    folder = shared_bench.folder
    # At the default interval only the ends of epochs are saved: 4 states, the card, the checkpoint.
    for moment in ("write:5", "rename:1", "rename:2"):
        done = train(folder, "pretrain", "late.pt", die=moment, save_minutes=60)
        assert done.returncode == KILLED, done.stdout
        assert not (folder / "late.pt").exists()
    assert train(folder, "pretrain", "late.pt").returncode == 0
    assert_same(folder / "late.pt", folder / "whole.pt")
    assert not leftovers(folder)


def test_killed_at_random_moments_it_ends_with_the_same_bits(shared_bench):
    draw = random.Random(1)
    folder = shared_bench.folder
    output = "random.pt"
    kills = 0
    while True:
        process = start(folder, "pretrain", output)
        for line in process.stdout:
            if line.startswith("pretrain "):
                break
        time.sleep(draw.uniform(0, 0.25))
        process.kill()
        process.communicate()
        if process.returncode == 0:
            break
        kills += 1
        if kills == 5:
            assert train(folder, "pretrain", output).returncode == 0
            break
    assert kills >= 2
    assert_same(folder / output, folder / "whole.pt")
    assert not leftovers(folder)


def test_sigterm_saves_at_the_next_step_and_says_so(shared_bench):
    folder = shared_bench.folder
    # Nothing but the signal would save within an epoch.
    options = {"save_minutes": 60, "epochs": 400, "patience": 400}
    process = start(folder, "pretrain", "term.pt", **options)
    for line in process.stdout:
        if line.startswith("epoch 3/"):
            break
    process.terminate()
    process.send_signal(signal.SIGTERM)  # schedulers send it more than once
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, rest
    (said,) = [line for line in rest.splitlines() if line.startswith("SIGTERM: saved at epoch ")]
    process = start(folder, "pretrain", "term.pt", **options)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("resuming after"):
            break
    process.kill()
    process.communicate()
    where = said.removeprefix("SIGTERM: saved at ").split(";")[0]
    assert lines[-1].startswith(f"resuming after {where} from")


def test_nobody_has_to_read_the_log_for_sigterm_to_save(shared_bench):
    """A scheduler signals `tee` as well, and then every line of the log is an error."""
    folder = shared_bench.folder
    long = {"save_minutes": 60, "epochs": 4000, "patience": 4000, "batch_size": 1}
    process = start(folder, "pretrain", "deaf.pt", **long)
    for line in process.stdout:
        if line.startswith("epoch 1/"):
            break
    process.send_signal(signal.SIGTERM)
    process.stdout.close()
    assert process.wait(timeout=60) != 0
    (saved,) = (folder / "deaf.state").glob("*.pt")
    assert ", step " in torch.load(saved, weights_only=True)["position"]


def descendants(pid):
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                words = (entry / "cmdline").read_text().split("\0")
            except OSError:
                continue
            found.append((int(entry.name), parent, words))
    below = {pid}
    while True:
        more = {child for child, parent, _ in found if parent in below} - below
        if not more:
            return [(child, words) for child, _, words in found if child in below]
        below |= more


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for the process in /proc")
def test_snakemake_starts_it_again_after_sigterm_and_it_goes_on(tmp_path):
    config = tmp_path / "mine.yaml"
    cohort = {"simulate": {"participants": 10, "minutes": 0.6, "remission_fraction": 0.5}}
    tiny = {
        **TINY,
        "pretraining": {"epochs": 60, "least_steps": 0, "patience": 60, "batch_size": 4},
        "execution": {**TINY["execution"], "mlflow": False},
        "cohorts": {"simulated": cohort},
    }
    config.write_text(yaml.safe_dump(tiny))
    target = "results/pretrained/mamba2_eeg_d32_l1_m20_mae.pt"
    process = started(
        *(BIN / "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", tmp_path),
        *(target, "--cores", "2", "--retries", "1", "--configfile", config),
        cwd=tmp_path,
    )
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "epoch 2/60" in line:
            for pid, words in descendants(process.pid):
                if "pretrain" in words and any(word.endswith("remit") for word in words):
                    os.kill(pid, signal.SIGTERM)
    output = "".join(lines)
    assert process.wait() == 0, output
    assert output.count("SIGTERM: saved at epoch") == 1 and "resuming after epoch" in output, output
    assert (tmp_path / target).exists()


def test_killed_while_corpora_are_streamed_it_ends_with_the_same_bits(bench, monkeypatch):
    """Two montages in pools of a few recordings; killed in the middle of an epoch, and of a pool."""
    folder = bench.folder
    monkeypatch.setattr(windows, "ROW_GROUP_BYTES", 8 * 4 * 3 * SAMPLES)
    people = {f"x{i}": None for i in range(5)}
    extra = make_dataset(folder, people, cohort="wide", channels=("AF7", "TP9", "TP10"), seed=5)
    given = {"shuffle_mb": 0.01, "corpora": [str(extra)], "corpus_weights": {"wide": 1.5}}
    done = train(folder, "pretrain", "whole.pt", **given)
    assert done.returncode == 0 and "in pools of 0.01 MB" in done.stdout, done.stdout
    for moment in ("step:3", "step:2", "step:5", "write:4"):
        done = train(folder, "pretrain", "x.pt", die=moment, **given)
        assert done.returncode == KILLED, done.stdout
    done = train(folder, "pretrain", "x.pt", **given)
    assert done.returncode == 0 and ", step " in done.stdout.split("resuming after")[1], done.stdout
    assert_same(folder / "x.pt", folder / "whole.pt")
