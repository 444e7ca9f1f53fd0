"""The chain through a real SLURM: cancelled, resubmitted, resumed, and equal to a local run."""

import shutil
import time

import pytest
import yaml

from tests.conftest import BIN, ROOT, snakemake, started
from tests.faults.conftest import assert_same

pytestmark = pytest.mark.cluster

MODEL = "mamba2_eeg_d32_l1_m20_mae"
PRETRAINED = f"results/pretrained/{MODEL}.pt"
TARGET = f"results/finetuned/{MODEL}_finetuned_best.pt"
LOG = f"results/logs/pretrain/{MODEL}.log"
SETTINGS = {
    "model": {"d_model": 32, "num_layers": 1, "d_state": 16, "headdim": 32},
    "pretraining": {"epochs": 60, "least_steps": 0, "patience": 60, "batch_size": 4},
    "finetuning": {"epochs": 2},
    "execution": {"device": "cpu", "training_threads": 1, "training_mem_mb": 1000, "mlflow": False},
    "cohorts": {
        "simulated": {"simulate": {"participants": 6, "minutes": 0.6, "remission_fraction": 0.5}}
    },
}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    file = tmp_path_factory.mktemp("config") / "mine.yaml"
    file.write_text(yaml.safe_dump(SETTINGS))
    return file


def submit(folder, target, config):
    """Snakemake with profiles/slurm, its pace that of a test: no network file system, one node."""
    return started(
        *(BIN / "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", folder, target),
        *("--profile", ROOT / "profiles" / "slurm", "--cores", "2", "--latency-wait", "5"),
        *("--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "2"),
        *("--configfile", config),
        cwd=folder,
    )


def wait_for(what, process, seconds=900):
    """What a function finds, once that is something."""
    until = time.monotonic() + seconds
    while not (found := what()):
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            pytest.fail(f"not seen: {what.__name__}\n{process.communicate()[0]}")
        time.sleep(0.1)
    return found


def epoch(number, folder):
    """Waits for: the training has reached this epoch."""

    def reached():
        log = folder / LOG
        return log.exists() and f"epoch {number}/" in log.read_text()

    return reached


def training(cluster):
    """Waits for: the SLURM job of the pretraining, running."""

    def submitted():
        jobs = cluster.jobs().items()
        return [
            job for job, (state, rule) in jobs if state == "RUNNING" and "rule_pretrain" in rule
        ]

    return submitted


@pytest.fixture(scope="module")
def cancelled(cluster, tmp_path_factory, config):
    """The demo's target through SLURM, its training cancelled once: folder, that job, all jobs."""
    folder = tmp_path_factory.mktemp("slurm")
    process = submit(folder, TARGET, config)
    wait_for(epoch(3, folder), process)
    (job,) = training(cluster)()
    cluster.run("scancel", job)
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    return folder, job, cluster.jobs(active=False)


def without_models(folder, copy):
    """A copy in which the trainings are yet to be done; it keeps the times."""
    shutil.copytree(folder, copy, symlinks=True)
    for file in copy.rglob(f"*{MODEL}*"):
        if file.is_file():
            file.unlink()
    return copy


@pytest.fixture(scope="module")
def local(cancelled, tmp_path_factory, config):
    """The same trainings without SLURM."""
    folder = without_models(cancelled[0], tmp_path_factory.mktemp("local") / "run")
    done = snakemake(TARGET, "--cores", "2", cwd=folder, config=config, timeout=900)
    assert done.returncode == 0 and "rule primary_dataset" not in done.stdout, done.stdout
    return folder


def test_a_cancelled_training_is_submitted_again_and_goes_on_where_it_was_saved(cancelled):
    folder, job, states = cancelled
    assert states[job][0] == "CANCELLED"
    ran = sorted(rule for state, rule in states.values() if state == "COMPLETED")
    assert [rule.split("_wildcards_")[0] for rule in ran] == [
        *("rule_cohort_sheet", "rule_finetune", "rule_pretrain", "rule_primary_dataset"),
        *("rule_recordings_simulate_windows", "rule_split"),
    ]
    assert "resuming after epoch" in (folder / LOG).read_text()
    assert not list(folder.rglob("*.state"))


def test_it_ends_with_the_bits_of_a_local_run(cancelled, local):
    for name in (PRETRAINED, TARGET):
        assert_same(cancelled[0] / name, local / name)


def test_slurmd_killed_in_mid_training_the_same_command_finishes(cluster, local, tmp_path, config):
    folder = without_models(local, tmp_path / "run")
    process = submit(folder, PRETRAINED, config)
    wait_for(epoch(3, folder), process)
    cluster.kill_slurmd()
    cluster.start_slurmd()
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    assert_same(folder / PRETRAINED, local / PRETRAINED)


def test_snakemake_killed_its_jobs_go_on_and_the_same_command_finishes(
    cluster, local, tmp_path, config
):
    """SIGKILL leaves it no time to cancel them: SLURM ends the training, and nothing of it is lost."""
    folder = without_models(local, tmp_path / "run")
    process = submit(folder, TARGET, config)
    wait_for(epoch(3, folder), process)
    (job,) = training(cluster)()
    process.kill()
    process.communicate()
    until = time.monotonic() + 600
    while cluster.jobs(active=False)[job][0] in ("RUNNING", "COMPLETING"):
        assert time.monotonic() < until, (folder / LOG).read_text()
        time.sleep(1)
    assert cluster.jobs(active=False)[job][0] == "COMPLETED"
    assert_same(folder / PRETRAINED, local / PRETRAINED)
    assert not (folder / TARGET).exists()  # nobody was there to submit it
    again = submit(folder, TARGET, config)
    said, _ = again.communicate(timeout=900)
    assert again.returncode == 1 and "--unlock" in said, said
    unlocked = snakemake(TARGET, "--unlock", cwd=folder, config=config)
    assert unlocked.returncode == 0, unlocked.stdout
    process = submit(folder, TARGET, config)
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    for name in (PRETRAINED, TARGET):
        assert_same(folder / name, local / name)
