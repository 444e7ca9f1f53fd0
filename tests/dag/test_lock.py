"""Two runs in one folder: Snakemake's lock stops the second, and remit says what to do."""

import signal

import pytest
import yaml

from tests.conftest import BIN, ROOT, snakemake, started

pytestmark = pytest.mark.dag

TARGET = "results/windows/simulated/sim-001_rest.parquet"


def test_the_second_run_stops_and_says_which_process_has_the_folder(tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text(yaml.safe_dump({"cohorts": {"simulated": {"simulate": {"minutes": 0.6}}}}))
    first = started(
        *(BIN / "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", tmp_path, TARGET),
        *("--configfile", config),
        cwd=tmp_path,
    )
    for line in first.stdout:
        if "rule simulate:" in line:
            break
    first.send_signal(signal.SIGSTOP)
    second = snakemake(TARGET, cwd=tmp_path, config=config)
    assert second.returncode == 1 and "Directory cannot be locked" in second.stdout, second.stdout
    assert f"remit: process {first.pid} (" in second.stdout, second.stdout
    dry = snakemake("-n", TARGET, cwd=tmp_path, config=config)
    assert dry.returncode == 0 and "remit: " not in dry.stdout, dry.stdout  # it needs no lock
    first.send_signal(signal.SIGCONT)
    rest, _ = first.communicate(timeout=300)
    assert first.returncode == 0 and "remit: " not in rest, rest  # its own jobs are not told


def test_a_lock_that_a_kill_left_is_told_apart_and_unlocked(tmp_path):
    locks = tmp_path / ".snakemake/locks"
    locks.mkdir(parents=True)
    (locks / "0.output.lock").write_text(TARGET + "\n")
    stopped = snakemake(TARGET, cwd=tmp_path)
    assert stopped.returncode == 1 and "Directory cannot be locked" in stopped.stdout
    (line,) = [line for line in stopped.stdout.splitlines() if line.startswith("remit: ")]
    assert "no process here works in it" in line and "'snakemake --unlock'" in line
    unlocked = snakemake(TARGET, "--unlock", cwd=tmp_path)
    assert unlocked.returncode == 0 and "remit: " not in unlocked.stdout, unlocked.stdout
    assert "remit: " not in snakemake("-n", TARGET, cwd=tmp_path).stdout
