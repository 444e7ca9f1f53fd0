"""`remit doctor`: every part answers, whatever the machine; never a traceback."""

import json
import sqlite3
import subprocess
import sys
import threading
import time
from collections import namedtuple
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch

from remit import doctor
from remit.config import Config, Execution, load
from remit.errors import RemitError
from remit.nn import backends, products

from ..conftest import ROOT, remit

PARTS = [
    "versions",
    "processor",
    "memory",
    "cuda",
    "backends",
    "fast_products",
    "disk",
    "mlflow",
    "runs",
    "slurm",
    "training",
]


@pytest.fixture
def quick(monkeypatch):
    """Without MLflow's seconds."""
    monkeypatch.setattr(doctor, "_start_importing_mlflow", lambda: None)
    monkeypatch.setattr(doctor, "_mlflow", lambda _: {"version": "0", "imports": True})


def test_the_command_gives_json_for_machines(tmp_path):
    done = remit("doctor", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    found = json.loads(done.stdout)
    assert list(found) == PARTS
    assert found["versions"]["torch"] == torch.__version__
    assert found["processor"]["cores"] >= 1 and found["memory"]["total_mb"] > 100
    assert found["backends"]["torch"] is None
    assert found["mlflow"]["version"].count(".") == 2
    assert found["fast_products"]["default_gflops"] > 0
    assert 0 < found["fast_products"]["fast_error"] < 2e-6


def test_each_part_is_a_line_and_what_a_training_uses_the_last(quick):
    shown = doctor.lines(doctor.examine(Execution(device="cpu", training_threads=1)))
    assert len(shown) == len(PARTS) + 1  # two backends
    assert not any("\n" in line for line in shown)
    assert any(line.startswith("backend torch") and line.endswith("works") for line in shown)
    assert shown[-1].startswith("training")
    assert "would use cpu, 1 threads, backend torch" in shown[-1]


def test_a_backend_that_does_not_work_comes_with_its_remedy(quick, monkeypatch):
    monkeypatch.setattr(
        backends, "status", lambda device: {"torch": None, "mamba_ssm": "OSError: libcudart.so"}
    )
    shown = doctor.lines(doctor.examine(Execution(device="cpu")))
    (line,) = [line for line in shown if line.startswith("backend mamba_ssm")]
    assert "no: OSError: libcudart.so" in line and backends.INSTALL in line


def test_a_training_that_would_be_refused_says_why(quick, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for execution, said in (
        (Execution(device="cuda"), "found no CUDA device"),
        (Execution(device="cpu", backend="mamba_ssm"), "needs a CUDA device"),
    ):
        assert said in doctor.lines(doctor.examine(execution))[-1]


def test_one_sick_part_stops_no_other(quick, monkeypatch):
    def broken(*_):
        raise RuntimeError("no such\nfile")

    for part in ("_processor", "_memory", "_cuda", "_fast_products"):
        monkeypatch.setattr(doctor, part, broken)
    monkeypatch.setattr(backends, "status", broken)
    shown = doctor.lines(doctor.examine(Execution(device="cpu")))
    assert sum(line.endswith("no: RuntimeError: no such file") for line in shown) == 5
    assert "would use cpu" in shown[-1]


def test_fast_products_follow_the_setting(quick):
    threads = torch.get_num_threads()
    found = doctor.examine(Execution(device="cpu", fast_products=False, training_threads=1))
    assert found["training"]["fast_products"] is False and not products.routed()
    assert torch.get_num_threads() == threads
    found = doctor.examine(Execution(device="cpu", training_threads=1))
    assert found["training"]["fast_products"] == products.onednn_serves()


def test_a_containers_limits_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "CGROUP", tmp_path)
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert doctor._processor()["quota_cores"] == 1.5
    assert doctor._memory()["quota_mb"] is None
    (tmp_path / "memory.max").write_text(f"{3 * 1024**2}\n")
    assert doctor._memory()["quota_mb"] == 3


def test_an_mlflow_that_does_not_import_says_why(monkeypatch):
    monkeypatch.setattr(doctor.sys, "executable", "/bin/false")
    assert doctor._mlflow(doctor._start_importing_mlflow()) == {"why_not": "no reason given"}


def test_an_mlflow_that_is_slow_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(doctor, "MLFLOW_SECONDS", 0.2)
    slow = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    found = doctor._mlflow(slow)
    assert found["imports"] is None and found["version"].count(".") == 2
    assert slow.returncode is not None  # and does not stay behind


Room = namedtuple("Room", "total used free")


def test_little_room_is_warned_of_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: Room(2**40, 0, 2**32))
    line = doctor._disk_line(doctor._disk(None))
    assert line.startswith(f"4096 MB free of 1048576 MB at {tmp_path}; WARNING: less than 5000 MB")
    assert "a full disk stops the workflow; make room" in line
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: Room(2**40, 0, 2**33))
    assert "WARNING" not in doctor._disk_line(doctor._disk(None))


def test_the_room_is_looked_at_where_results_lies(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here/results").symlink_to(tmp_path / "there")
    assert doctor._disk(None)["folder"] == str(tmp_path / "there")


def test_the_room_wanted_is_about_what_a_run_takes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = Config()
    wanted = doctor.wanted_mb(config)
    # 24 people, 4 minutes, 4 channels, 256 Hz, 4 bytes
    seconds, rate = 24 * 4 * 60, config.preprocessing.sampling_rate
    assert wanted["windows"] == pytest.approx(seconds * rate * 4 * 4 / 2**20)
    once = Config.model_validate({"evaluation": {"pretraining": "transductive"}})
    few = doctor.wanted_mb(once)["models"]
    assert wanted["models"] / few == pytest.approx((51 + 5) / (1 + 5))
    found = doctor._disk(config)
    assert found["least_mb"] == pytest.approx(2 * sum(wanted.values()))
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: Room(2**40, 0, 2**20))
    assert "twice that" in doctor._disk_line(doctor._disk(config))


def test_the_room_for_files_goes_by_their_size(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        (tmp_path / f"{name}.csv").write_bytes(bytes(3 * 2**20))
    (tmp_path / "cohort.tsv").write_text(
        "participant\trecording\tpath\tremission\na\ta\ta.csv\t0\nb\tb\tb.csv\t1\n"
    )
    (tmp_path / "mine.yaml").write_text("cohort: mine\ncohorts: {mine: {sheet: cohort.tsv}}\n")
    wanted = doctor.wanted_mb(load(tmp_path / "mine.yaml"))
    assert wanted["windows"] == wanted["primary"] == 12
    assert wanted["simulated recordings"] == 0


def test_the_database_of_runs_is_opened_and_not_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert doctor._runs(Execution()) == {
        "store": "results/mlflow.db",
        "state": "is made with the first run",
    }
    assert not (tmp_path / "results").exists()
    (tmp_path / "results").mkdir()
    with closing(sqlite3.connect(tmp_path / "results/mlflow.db")) as database:
        database.execute("CREATE TABLE runs (run_uuid TEXT)")
        database.execute("INSERT INTO runs VALUES ('a')")
        database.commit()
    assert doctor._runs(Execution())["state"] == "opens, with 1 runs"
    (tmp_path / "results/mlflow.db").write_text("no database " * 100)
    assert "file is not a database" in doctor._runs(Execution())["why_not"]
    assert doctor._runs(Execution(mlflow=False)) == {"why_not": "execution.mlflow is false"}
    elsewhere = doctor._runs(Execution(mlflow_uri="postgresql://nobody@nowhere/x"))
    assert elsewhere == {"store": "postgresql://***@nowhere/x", "state": "not examined"}
    for uri in ("mysql+pymysql://u:s3c@r/et@host/db", "postgresql://host/db?password=s3cret"):
        told = str(doctor._runs(Execution(mlflow_uri=uri)))
        assert "s3c" not in told and "host/db" in told


class Tracking(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        if self.path.startswith("/slow"):
            time.sleep(3)
        self.send_response(200 if self.path == "/mlflow/health" else 404)
        self.end_headers()

    def log_message(self, *_):
        pass


def test_a_server_is_asked_and_not_waited_for(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(doctor, "MLFLOW_SECONDS", 1.0)
    server = HTTPServer(("127.0.0.1", 0), Tracking)
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    try:
        for path, said in (("/mlflow", "200"), ("", "404")):
            found = doctor._runs(Execution(mlflow_uri=address + path))
            assert found == {"store": address + path, "state": f"answers (HTTP {said})"}
        assert server.asked == ["/mlflow/health", "/health"]
        named = f"http://me:s3cret@127.0.0.1:{server.server_port}"
        found = doctor._runs(Execution(mlflow_uri=f"{named}/mlflow"))
        assert found["state"] == "answers (HTTP 200)" and "s3cret" not in str(found)
        began = time.monotonic()
        with pytest.raises(RemitError, match=r"127\.0\.0\.1 does not answer .*mlflow sync"):
            doctor._runs(Execution(mlflow_uri=f"{address}/slow"))
        assert time.monotonic() - began < 2.5
    finally:
        server.shutdown()
        server.server_close()
    with pytest.raises(RemitError, match="refused"):
        doctor._runs(Execution(mlflow_uri=address))
    with pytest.raises(RemitError, match="nonnumeric port"):
        doctor._runs(Execution(mlflow_uri="http://127.0.0.1:port"))


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    def of(sinfo):
        for name, text in (("sbatch", "exit 0"), ("sinfo", sinfo)):
            (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        return doctor._slurm()

    return of


def test_a_cluster_is_asked_for_its_partitions(cluster, monkeypatch):
    monkeypatch.setattr(doctor, "find_spec", lambda _: True)
    found = cluster('[ "$2" = "--format=%P|%a|%D" ] && printf "gpu*|up|12\\ncpu|down|3\\n"')
    assert found["partitions"][0] == {"name": "gpu*", "state": "up", "nodes": 12}
    assert doctor._slurm_line(found).startswith("gpu* up (12 nodes), cpu down (3 nodes); snakemake")
    monkeypatch.setattr(doctor, "find_spec", lambda _: None)
    assert "pip install" in doctor._slurm_line(doctor._slurm())


def test_a_cluster_that_is_away_says_why(cluster, monkeypatch):
    lost = cluster("echo 'slurm_load_partitions: Unable to contact' >&2; exit 1")
    assert lost == {"why_not": "sinfo: slurm_load_partitions: Unable to contact"}
    monkeypatch.setattr(doctor, "SINFO_SECONDS", 0.2)
    assert cluster("exec sleep 60") == {"why_not": "sinfo gives no answer within 0.2 s"}
    monkeypatch.setenv("PATH", "/nowhere")
    assert "no sbatch; jobs run on this machine" in doctor._slurm()["why_not"]


def test_the_command_takes_a_configuration(tmp_path):
    done = remit("doctor", "--config", ROOT / "config/config.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "an evaluation wants about" in done.stdout
    done = remit("doctor", "--config", "gone.yaml", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout.startswith("remit: gone.yaml: cannot be read (No such file or directory)")
