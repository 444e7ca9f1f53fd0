"""MLflow's own tracking server, killed in mid-run and started again: each number is there once."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from remit.config import Execution
from remit.tracking import Tracker, sync
from remit.tracking import tracker as sending

pytestmark = pytest.mark.faults


class Server:
    """`mlflow server` on the loopback, with all the processes it starts; what it prints is kept."""

    def __init__(self, folder, port):
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / "server.log"
        words = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        words += ["--backend-store-uri", f"sqlite:///{folder}/server.db"]
        words += ["--artifacts-destination", str(folder / "stored")]
        # Without its queue of jobs, which evaluates language models.
        quick = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *words],
                cwd=folder,
                env=os.environ | quick,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def wait(self):
        """Wait until it answers."""
        end = time.monotonic() + 180
        while time.monotonic() < end and self.process.poll() is None:
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=5).close()
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise AssertionError(self.log.read_text())

    def kill(self):
        """SIGKILL, to it and to its workers."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def test_a_tracking_server_killed_in_mid_run_and_started_again_gets_each_number_once(
    tmp_path, monkeypatch
):
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(sending, "_SEND_SECONDS", 0.1)
    monkeypatch.setattr(sending, "_PAUSES", (0.5,))  # the server's first answers may be slow
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server(tmp_path, port)
    try:
        server.wait()
        execution, lines = Execution(mlflow_uri=server.url), []
        file = tmp_path / "card.json"
        file.write_text("{}")
        tracker = Tracker(execution, "a", {"remit.made": "yes"}, lines.append, {"x": 1})
        longest, step = 0.0, 0

        def train(steps):
            nonlocal longest, step
            for _ in range(steps):
                began = time.monotonic()
                tracker.metrics({"loss": step / 4}, step)
                longest = max(longest, time.monotonic() - began)
                step += 1
                time.sleep(0.01)

        while len(tracker._journal.sent) < 20:  # in the middle of sending
            train(1)
        server.kill()
        sent = len(tracker._journal.sent)
        train(100)
        tracker.artifacts([file])
        tracker.finish()
        assert longest < 5, longest  # no call has waited for the server, only for this machine
        assert sum("warning: MLflow could not" in line for line in lines) == 1, lines
        (journal,) = (tmp_path / "results/mlflow_journal").glob("*.jsonl")
        assert 20 <= sent < step

        server = Server(tmp_path, port)
        server.wait()
        sync(execution, lines.append)
        assert not journal.exists()
        sync(execution, lines.append)
        assert lines[-1] == "0 runs: nothing is left to send"
        client = MlflowClient(server.url)
        (run,) = client.search_runs([client.get_experiment_by_name("remit").experiment_id])
        assert run.info.run_id == tracker.run_id and run.info.status == "FINISHED"
        assert run.data.tags["remit.made"] == "yes" and run.data.params == {"x": "1"}
        history = client.get_metric_history(run.info.run_id, "loss")
        assert [(p.step, p.value) for p in history] == [(n, n / 4) for n in range(step)]
        assert [each.path for each in client.list_artifacts(run.info.run_id)] == ["card.json"]
    finally:
        server.kill()
