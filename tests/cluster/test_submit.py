"""What the profiles hand to sbatch, with a fake one that writes its arguments down."""

import os
import re
import string
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import BIN, ROOT, run

pytestmark = pytest.mark.dag

MODEL = "mamba2_eeg_d256_l2_m20_mae"
DATASET = "8s_af7-af8-tp9-tp10"
# Each call leaves a file; squeue then says of every job that it failed, which ends the run.
FAKES = {
    "sbatch": 'printf "%s\\0" "$@" > "$FAKE_SLURM/call.$$"; echo $$ | tee -a "$FAKE_SLURM/ids"',
    "squeue": 'sed "s/$/|FAILED/" "$FAKE_SLURM/ids"',
    "scontrol": "echo MinJobAge = 600 sec; echo MaxArraySize = 1001",
    "sinfo": "echo 'main*'",
    "sacct": "exit 1",
    "sacctmgr": "exit 1",
    "sshare": "exit 1",
    "scancel": "exit 0",
}


@pytest.fixture
def fake_slurm(tmp_path):
    folder = tmp_path / "fake"
    folder.mkdir()
    (folder / "ids").touch()
    for name, body in FAKES.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    return folder


def submitted(fake_slurm, folder, profile, *targets, options=(), config=None):
    """The arguments of each sbatch of a run whose jobs all fail."""
    done = run(
        *(BIN / "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", folder),
        *("--profile", ROOT / "profiles" / profile, "--retries", "0", "--keep-going"),
        *("--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "1"),
        *(*options, *targets, *(["--configfile", config] if config else [])),
        cwd=folder,
        env={
            "PATH": f"{fake_slurm}{os.pathsep}{os.environ['PATH']}",
            "FAKE_SLURM": str(fake_slurm),
        },
    )
    calls = [file.read_text().split("\0")[:-1] for file in sorted(fake_slurm.glob("call.*"))]
    assert done.returncode == 1, f"ended with {done.returncode}\n{done.stdout}"
    assert calls, f"nothing was submitted\n{done.stdout}"
    assert "SLURM status is: 'FAILED'" in done.stdout, done.stdout
    return calls


def split_line(call):
    """A submit line without the random name of the run, and the command that it wraps."""
    *options, wrapped = call
    assert re.fullmatch(r"[0-9a-f-]{36}", options[2]), call
    return [*options[:2], "RUN", *options[3:]], wrapped.removeprefix("--wrap=")


@pytest.mark.parametrize(
    ("profile", "gpu_options"),
    [("slurm", ["--ntasks=1", "--cpus-per-task=2"]), ("slurm-gpu", ["--cpus-per-task=2"])],
)
def test_the_submit_lines_of_a_training_and_of_a_short_job(
    fake_slurm, tmp_path, profile, gpu_options
):
    for name in (f"primary/{DATASET}_primary_dataset.parquet", f"splits/{DATASET}_split.json"):
        (tmp_path / "results" / name).parent.mkdir(parents=True)
        (tmp_path / "results" / name).touch()
    calls = submitted(
        *(fake_slurm, tmp_path, profile),
        *(f"results/pretrained/{MODEL}.pt", f"results/features/{DATASET}_features.parquet"),
    )
    lines = dict(sorted((call[call.index("--comment") + 1], split_line(call)) for call in calls))
    training, short = f"rule_pretrain_wildcards_{MODEL}", "rule_features"
    assert lines.keys() == {training, short}
    logs = tmp_path / "results/logs/slurm"
    common = [*("--parsable", "--job-name", "RUN", "--output")]
    gpus = ["--gpus=1"] if profile == "slurm-gpu" else []
    assert lines[training][0] == [
        *(*common, str(logs / f"rule_pretrain/{MODEL}/%j.log"), "--export=ALL"),
        *("--comment", training, "-p", "main", "-t", "1440", "--mem", "4000", "--nodes=1"),
        *("--no-requeue", *gpu_options, "-D", str(tmp_path), *gpus),
    ]
    assert lines[short][0] == [
        *(*common, str(logs / "rule_features/%j.log"), "--export=ALL"),
        *("--comment", short, "-p", "main", "-t", "60", "--mem", "2000", "--nodes=1"),
        *("--no-requeue", "--ntasks=1", "--cpus-per-task=1", "-D", str(tmp_path)),
    ]
    for _, wrapped in lines.values():
        assert re.match(r"/\S+/python[\d.]* -m snakemake --snakefile ", wrapped), wrapped
        assert "--executor slurm-jobstep" in wrapped


@pytest.mark.cluster  # for its 15 s, not for a cluster
def test_a_thousand_recordings_with_long_names_are_21_submissions(fake_slurm, tmp_path):
    people = 1000
    rows = ["participant\trecording\tpath\tremission"]
    for number in range(people):
        name = f"{string.ascii_letters}{number}"
        (tmp_path / f"{number}.edf").touch()
        rows.append(
            f"{name}\t{name}_{string.ascii_lowercase}\t{tmp_path}/{number}.edf\t{number % 2}"
        )
    (tmp_path / "cohort.tsv").write_text("\n".join([*rows, ""]))
    config = tmp_path / "mine.yaml"
    config.write_text(
        yaml.safe_dump({"cohort": "mine", "cohorts": {"mine": {"sheet": "cohort.tsv"}}})
    )
    target = f"results/primary/{DATASET}_primary_dataset.parquet"
    calls = submitted(fake_slurm, tmp_path, "slurm", target, config=config)
    assert len(calls) == people / 50 + 1  # groups of recordings, and the cohort sheet
    found = []
    for call in calls:
        log = Path(call[call.index("--output") + 1])
        assert all(len(part) < 80 for part in log.parts[-3:]), log
        found += re.findall(r"windows:\S*recording=([A-Za-z]+\d+_[a-z]+)", call[-1])
    assert len(found) == len(set(found)) == people


def test_slurm_gpu_is_slurm_and_a_gpu_for_each_training():
    plain, gpu = (
        yaml.safe_load((ROOT / "profiles" / name / "config.yaml").read_text())
        for name in ("slurm", "slurm-gpu")
    )
    assert "tasks" not in plain["default-resources"]
    trainings = set(
        re.findall(
            r"rule (\w+):(?:(?!\nrule ).)*?gpu=PLAN\.config\.execution\.gpu,",
            "".join(file.read_text() for file in (ROOT / "workflow/rules").glob("*.smk")),
            re.S,
        )
    )
    assert gpu == {**plain, "set-resources": {rule: {"gpu": 1} for rule in trainings}}


def test_the_cores_of_the_default_profile_do_not_bound_jobs_on_a_cluster(tmp_path):
    """The default profile wins over one given by --profile, so it must leave them out."""
    lines = [
        [],
        ["--profile", str(ROOT / "profiles/slurm")],
        [f"--profile={ROOT / 'profiles/slurm-gpu'}", "--cores", "4"],
    ]
    code = (
        "import sys; from snakemake.cli import parse_args\n"
        "file, cores = ['--snakefile', sys.argv[1]], []\n"
        f"for line in {lines}: sys.argv[1:] = file + line; cores += [parse_args(None)[1].cores]\n"
        "print(*cores)"
    )
    done = run(sys.executable, "-c", code, ROOT / "Snakefile", cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "2 16 4", done.stdout


def test_kubernetes_and_s3_plan_the_default_target(tmp_path):
    """As far as it goes without a cluster: the real plugins, and a stand-in for S3 on this machine."""
    reason = "pip install snakemake-executor-plugin-kubernetes snakemake-storage-plugin-s3 'moto[server]'"
    pytest.importorskip("snakemake_executor_plugin_kubernetes", reason=reason)
    pytest.importorskip("snakemake_storage_plugin_s3", reason=reason)
    moto = pytest.importorskip("moto.server", reason=reason)
    import boto3

    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
    server = moto.ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        address = f"http://{host}:{port}"
        boto3.client("s3", endpoint_url=address, **keys).create_bucket(Bucket="bucket")
        done = run(
            *(BIN / "snakemake", "--snakefile", ROOT / "Snakefile", "--dry-run", "--jobs", 4),
            *("--executor", "kubernetes", "--container-image", "example/remit:0.1.0"),
            *("--default-storage-provider", "s3", "--default-storage-prefix", "s3://bucket/remit"),
            *("--storage-s3-endpoint-url", address),
            *("--storage-s3-access-key", "a", "--storage-s3-secret-key", "b"),
            cwd=tmp_path,
        )
    finally:
        server.stop()
    assert done.returncode == 0, done.stdout
    assert re.search(r"^total +56$", done.stdout, re.MULTILINE), done.stdout
    assert "s3://bucket/remit/results/pretrained/" in done.stdout
