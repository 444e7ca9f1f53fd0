"""MLflow gets every number once, whatever happens to it, and nobody waits for it."""

import json
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from remit import cli
from remit.config import Execution
from remit.errors import RemitError
from remit.tracking import Tracker, journal, sync
from remit.tracking import tracker as sending
from remit.tracking.journal import BusyError, Journal
from remit.tracking.sender import Sender, reason_of
from tests.conftest import run

HERE = Execution()
TAGS = {"remit.stage": "test"}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # that nobody listens is soon known
    monkeypatch.setattr(sending, "_LAST_WORDS", 300.0)  # a database takes its time to be made
    return tmp_path


def client(folder):
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{folder}/results/mlflow.db")


def runs_in(folder):
    held = client(folder)
    return held.search_runs([held.get_experiment_by_name("remit").experiment_id])


def points(folder, run_id, key):
    history = client(folder).get_metric_history(run_id, key)
    return [(point.step, point.value) for point in history]


def journals(folder):
    return sorted((folder / "results/mlflow_journal").glob("*.jsonl"))


def closed():
    """An address at which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def log_some(execution, name="a", numbers=5, lines=None):
    lines = [] if lines is None else lines
    tracker = Tracker(execution, name, TAGS, lines.append, {"deep": {"x": 1}})
    for step in range(numbers):
        tracker.metrics({"loss": step / 2, "none": None}, step)
    tracker.tags({"remit.done": "yes"})
    tracker.finish()
    return tracker, lines


# A server that is away -------------------------------------------------------------------


def test_what_a_dead_server_missed_is_sent_once_by_sync(place):
    dead = Execution(mlflow_uri=closed())
    began = time.monotonic()
    tracker, lines = log_some(dead)
    assert time.monotonic() - began < 60
    assert len(lines) == 1 and "warning: MLflow could not start a run" in lines[0], lines
    assert "remit mlflow sync" in lines[0]
    assert tracker.run_id is None and len(journals(place)) == 1
    kept = journals(place)[0].read_bytes()
    with pytest.raises(RemitError, match="1 of 1 runs are not in MLflow yet"):
        sync(dead, lines.append)
    for _ in range(2):
        sync(HERE, lines.append)  # the server is back; here the database stands for it
        (run_,) = runs_in(place)
        assert run_.info.status == "FINISHED" and run_.data.params == {"deep.x": "1"}
        assert points(place, run_.info.run_id, "loss") == [(n, n / 2) for n in range(5)]
        assert run_.data.tags["remit.done"] == "yes"
        assert run_.data.tags["remit.journal"] == tracker.journal_id
        assert not journals(place)
        # As after a crash between the last answer and the removal of the journal: all of it again.
        (place / "results/mlflow_journal/again.jsonl").write_bytes(kept)
    assert "nothing is left to send" in lines[-1]


def test_what_belongs_to_a_run_that_waits_waits_with_it(place):
    """The server is away while a backbone is made, and there when it is diagnosed and fine-tuned."""
    lines = []
    backbone = Tracker(Execution(mlflow_uri=closed()), "backbone", TAGS, lines.append)
    backbone.tags({"made": "abc"})
    backbone.finish()
    assert len(journals(place)) == 1
    adding = Tracker.of_run(HERE, "made", "abc", lines.append)
    adding.metrics({"skill": 0.5}, 0)
    adding.finish()
    tuned = Tracker(HERE, "tuned", TAGS, lines.append)
    tuned.link("backbone_run", "made", "abc")
    tuned.metrics({"auc": 0.7}, 0)
    tuned.finish()
    (there,) = runs_in(place)  # all of it but the link
    assert there.info.status == "FINISHED" and there.data.metrics == {"auc": 0.7}
    assert len(journals(place)) == 3
    assert sum("its run with made waits in" in line for line in lines) == 2, lines
    sync(HERE, lines.append)
    by_name = {run_.info.run_name: run_ for run_ in runs_in(place)}
    assert by_name["backbone"].data.metrics == {"skill": 0.5}
    assert by_name["tuned"].data.tags["backbone_run"] == by_name["backbone"].info.run_id
    assert not journals(place)
    Tracker.of_run(HERE, "made", "another", lines.append).finish()  # nobody's: nothing to wait for
    assert not journals(place)


def test_a_run_that_is_told_by_a_tag_is_made_once_and_its_children_may_come_later(place):
    """As a sweep: drawn again, by another commit, while the server was away from one of its models."""
    lines = []
    away = Tracker(Execution(mlflow_uri=closed()), "model", TAGS, lines.append)
    away.metrics({"epoch": 3, "loss": 0.5}, 3)
    facts = {"dataset": "8s_af7", "windows": 9, "sampling_rate": 256, "channels": ["AF7"]}
    facts |= {"simulated": True}
    first, second = (facts | {"content_sha256": letter * 64} for letter in "ab")
    away.dataset(place / "second.parquet", second, "fine-tuning", {})
    away.finish()
    there = Tracker(HERE, "backbone", {"made": "abc"}, lines.append)
    there.dataset(place / "first.parquet", first, "pretraining", {})
    there.dataset(place / "first.parquet", first, "pretraining again", {})
    there.finish()
    for commit in ("first", "second"):
        tags = {"remit.sweep": "s1", "commit": commit}
        parent = Tracker(HERE, "sweep", tags, lines.append, {"x": 1}, once="remit.sweep")
        parent.nest("made", "abc")
        parent.nest("made", "nobody has it")
        parent.nest("remit.journal", away.journal_id)
        parent.finish()
    assert sum("waits in" in line for line in lines) == 2, lines
    assert len(journals(place)) == 3  # the model's, and what is left of the two
    for _ in range(2):
        sync(HERE, lines.append)
        by_name = {run_.info.run_name: run_ for run_ in runs_in(place)}
        assert len(runs_in(place)) == len(by_name) == 3 and not journals(place)
        sweep = by_name["sweep"]
        assert sweep.data.tags["commit"] == "second" and sweep.data.params == {"x": "1"}
        for name in ("model", "backbone"):
            assert by_name[name].data.tags["mlflow.parentRunId"] == sweep.info.run_id
        assert "mlflow.parentRunId" not in sweep.data.tags
        read = {each.dataset.digest: each.tags for each in sweep.inputs.dataset_inputs}
        assert len(sweep.inputs.dataset_inputs) == len(read) == 2  # those of its children, once
        assert set(read) == {"a" * 32, "b" * 32}
        assert {tag.value for tags in read.values() for tag in tags} == {"sweep"}
        assert by_name["model"].data.metrics == {"loss": 0.5}  # the epoch is the step
    other = Tracker(HERE, "sweep", {"remit.sweep": "s2"}, lines.append, once="remit.sweep")
    other.finish()
    assert len(runs_in(place)) == 4


def test_settings_that_a_killed_process_had_no_time_for_are_written_by_the_next(place, monkeypatch):
    lines = []
    with monkeypatch.context() as patch:
        patch.setattr(
            Journal, "add", lambda *_, **__: 1 / 0
        )  # between the first line and the second
        Tracker(HERE, "a", TAGS, lines.append, {"x": 1})
    assert len(journals(place)) == 1
    tracker = Tracker(HERE, "a", TAGS, lines.append, {"x": 1})
    tracker.finish()
    (made,) = runs_in(place)
    assert made.data.params == {"x": "1"} and not journals(place)


def test_a_database_that_came_back_without_its_runs_gets_all_of_it_again(place):
    """As a server without a disk, which was away between two numbers of one process."""
    lines = []
    tracker = Tracker(Execution(mlflow_uri=closed()), "a", TAGS, lines.append, {"x": 1})
    tracker.metrics({"loss": 1.0}, 1)
    tracker.finish()
    (file,) = journals(place)
    held = Journal(file)
    sender = Sender(HERE, held)
    sender.send()
    sender._execution = Execution(mlflow_uri=f"sqlite:///{place}/new.db")
    held.add("metrics", values=[["loss", 2.0, 1, 2]])
    sender.client = None  # as after a request that failed
    sender.send()
    held.close()
    assert not sender.refused and not held.unsent
    history = sender.client.get_metric_history(held.run_id, "loss")
    assert sorted(point.value for point in history) == [1.0, 2.0]


def test_more_journals_than_a_process_may_hold_open_are_sent(place):
    """As fold by fold on a cluster whose nodes see no server."""
    folder = place / "results/mlflow_journal"
    folder.mkdir(parents=True)
    for number in range(200):
        (folder / f"{number}.jsonl").touch()
    lines, limits = [], resource.getrlimit(resource.RLIMIT_NOFILE)
    log_some(Execution(mlflow_uri=closed()))
    opened = len(list(Path("/proc/self/fd").iterdir()))
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 100, limits[1]))
        sync(HERE, lines.append)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert not journals(place) and len(runs_in(place)) == 1


@pytest.mark.parametrize("name", ["..", ".", "", "a/.."])
def test_a_journal_names_its_own_files_only(place, name):
    held = Journal(place / "a.jsonl")
    held.files.mkdir()
    with pytest.raises(PermissionError):
        Sender(HERE, held)._kept(name)
    held.close()


@pytest.mark.parametrize(
    "address", ["http://me:secret@h/x", "http://me:se@secret@h/x", "http://me:a/secret@h/x"]
)
def test_no_part_of_a_password_is_told(address):
    told = reason_of(OSError(f"Failed to parse: {address}: no such host"))
    assert told == "OSError: Failed to parse: http://***@h/x: no such host"


def test_a_password_in_an_address_is_not_told(place):
    url = closed().replace("//", "//me:secret@")
    _, lines = log_some(Execution(mlflow_uri=url))
    assert lines and not any("secret" in line for line in lines)


class Proxy(ThreadingHTTPServer):
    """A server whose answers are slow, or which refuses, or drops the connection after its work.

    It stands for MLflow's tracking server: it hands every request on to a store of MLflow's own.
    """

    daemon_threads = True

    def __init__(self, store):
        self.store, self.delay, self.refuse, self.drop = store, 0.0, 0, 0
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        time.sleep(self.server.delay)
        if self.server.refuse:
            self.server.refuse -= 1
            self.send_response(503)
            self.end_headers()
            return
        status, text = self.server.store(self.command, self.path, body)
        if self.server.drop and "create" in self.path:  # done, and nobody is told
            self.server.drop -= 1
            self.connection.close()
            return
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PATCH = answer


@pytest.fixture
def server(place, monkeypatch):
    """MLflow's own handlers over a database, behind a wire that can be slow, refuse or break."""
    from mlflow.server import app, handlers
    from mlflow.server.handlers import initialize_backend_stores

    monkeypatch.setattr(handlers, "_tracking_store", None)  # else that of the test before
    monkeypatch.setattr(handlers, "_model_registry_store", None)
    (place / "results").mkdir()
    initialize_backend_stores(
        f"sqlite:///{place}/results/mlflow.db", f"sqlite:///{place}/results/mlflow.db", str(place)
    )
    flask = app.test_client()
    one = threading.Lock()

    def store(method, path, body):
        with one:
            found = flask.open(
                path, method=method, data=body, headers={"Content-Type": "application/json"}
            )
            return found.status_code, found.data

    made = Proxy(store)
    yield made
    made.shutdown()


def test_a_slow_server_does_not_hold_a_training_up(place, server):
    server.delay = 0.3
    lines = []
    tracker = Tracker(Execution(mlflow_uri=server.url), "a", TAGS, lines.append, {"x": 1})
    began = time.monotonic()
    for step in range(200):
        tracker.metrics({"loss": step}, step)
    took = time.monotonic() - began
    assert took < 0.3 * 200 / 3, took  # one request for each would take a minute
    tracker.finish()
    (run_,) = runs_in(place)
    assert run_.info.status == "FINISHED" and not lines, lines
    assert points(place, run_.info.run_id, "loss") == [(n, n) for n in range(200)]


@pytest.mark.parametrize("trouble", ["refuse", "drop"])
def test_a_server_that_comes_back_gets_each_number_once(place, server, trouble, monkeypatch):
    monkeypatch.setattr(sending, "_PAUSES", (0.1,))
    execution = Execution(mlflow_uri=server.url)
    lines = []
    setattr(server, trouble, 2)  # the experiment, and the run
    tracker = Tracker(execution, "a", TAGS, lines.append, {"x": 1})
    for step in range(20):
        tracker.metrics({"loss": step}, step)
        time.sleep(0.05)
        if step == 10:
            setattr(server, trouble, 2)
    tracker.finish()
    setattr(server, trouble, 0)
    sync(execution, lines.append)
    (run_,) = runs_in(place)
    assert run_.info.status == "FINISHED"
    assert points(place, run_.info.run_id, "loss") == [(n, n) for n in range(20)]
    assert any("could not" in line for line in lines)
    assert not journals(place)


def test_what_a_server_never_takes_holds_nothing_else_up(place):
    lines = []
    tracker = Tracker(HERE, "a", TAGS, lines.append)
    tracker.metrics({"a#name": 1}, 0)
    tracker.finish()
    tracker = Tracker(HERE, "b", TAGS, lines.append)
    tracker.metrics({"fine": 1}, 0)
    tracker.finish()
    assert sum("MLflow refused to log metrics" in line for line in lines) == 1, lines
    assert {run_.info.status for run_ in runs_in(place)} == {"FINISHED"}
    assert not journals(place)


# Processes that die -----------------------------------------------------------------------

DYING = """
import os, signal, sys, time
from remit.config import Execution
from remit.tracking import Tracker
first, last, ends = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
tracker = Tracker(Execution(), "a", {"remit.stage": "test"}, print, {"x": 1})
for step in range(first, last):
    tracker.metrics({"loss": step}, step)
if ends == "kill":
    while tracker.run_id is None:
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGKILL)
tracker.finish()
"""


def test_after_a_kill_the_same_training_goes_on_in_the_same_run(place):
    done = run(sys.executable, "-c", DYING, 0, 7, "kill", cwd=place)
    assert done.returncode == -signal.SIGKILL, done.stdout
    (before,) = runs_in(place)
    assert before.info.status == "RUNNING"
    done = run(sys.executable, "-c", DYING, 0, 10, "end", cwd=place)  # its first epochs again
    assert done.returncode == 0, done.stdout
    (after,) = runs_in(place)
    assert after.info.run_id == before.info.run_id and after.info.status == "FINISHED"
    assert points(place, after.info.run_id, "loss") == [(n, n) for n in range(10)]
    assert not journals(place)


def test_sync_ends_the_run_of_a_killed_process_and_leaves_one_that_lives(place):
    done = run(sys.executable, "-c", DYING, 0, 7, "kill", cwd=place)
    assert done.returncode == -signal.SIGKILL, done.stdout
    lines = []
    alive = Tracker(HERE, "b", TAGS, lines.append)
    alive.metrics({"loss": 1}, 0)
    sync(HERE, lines.append)
    by_name = {run_.info.run_name: run_ for run_ in runs_in(place)}
    assert by_name["a"].info.status == "KILLED"
    assert points(place, by_name["a"].info.run_id, "loss") == [(n, n) for n in range(7)]
    assert any("still at work; left to it" in line for line in lines)
    alive.finish()
    assert {run_.info.status for run_ in runs_in(place)} == {"KILLED", "FINISHED"}


@pytest.mark.parametrize("cut", [1, 20, 150, -3])
def test_a_journal_cut_anywhere_loses_only_what_was_cut(place, cut):
    log_some(Execution(mlflow_uri=closed()))
    (file,) = journals(place)
    whole = file.read_bytes()
    file.write_bytes(whole[:cut])
    lines = []
    sync(HERE, lines.append)
    assert not journals(place)
    if b"\n" in whole[:cut]:
        (run_,) = runs_in(place)
        assert run_.info.status in ("FINISHED", "KILLED")


@pytest.mark.parametrize("told", [SystemExit, KeyboardInterrupt])
def test_a_training_told_to_end_leaves_its_run_open_and_a_failed_one_does_not(
    place, told, monkeypatch
):
    monkeypatch.setattr(sending, "_LAST_WORD", 60.0)  # a database takes its time to be made
    lines = []
    with pytest.raises(told):
        tracker = Tracker(HERE, "a", TAGS, lines.append)
        with tracker.watching():
            raise told
    assert [run_.info.status for run_ in runs_in(place)] == ["RUNNING"]
    again = Tracker(HERE, "a", TAGS, lines.append)
    with pytest.raises(ValueError), again.watching():
        raise ValueError
    assert [run_.info.status for run_ in runs_in(place)] == ["FAILED"]


# Many at once -----------------------------------------------------------------------------

ONE_OF_EIGHT = """
import sys, time
from pathlib import Path
from remit.config import Execution
from remit.tracking import Tracker
import mlflow
Path(f"ready{sys.argv[1]}").touch()
while not Path("go").exists():
    time.sleep(0.01)
tracker = Tracker(Execution(), f"run{sys.argv[1]}", {"n": sys.argv[1]}, print, {"x": 1})
for step in range(200):
    tracker.metrics({"loss": step, "other": -step}, step)
    time.sleep(0.01)
tracker.finish()
"""


def test_eight_at_once_make_the_database_and_lose_nothing(place):
    """All eight begin in the same moment, in a folder that has no database yet."""
    eight = [
        subprocess.Popen(
            [sys.executable, "-c", ONE_OF_EIGHT, str(n)],
            cwd=place,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for n in range(8)
    ]
    while len(list(place.glob("ready*"))) < 8:
        assert all(one.poll() is None for one in eight)
        time.sleep(0.05)
    (place / "go").touch()
    for one in eight:
        said, _ = one.communicate(timeout=300)
        assert one.returncode == 0 and "could not" not in said, said
    sync(HERE, lambda _: None)
    found = runs_in(place)
    assert sorted(run_.info.run_name for run_ in found) == [f"run{n}" for n in range(8)]
    for run_ in found:
        assert run_.info.status == "FINISHED"
        assert points(place, run_.info.run_id, "loss") == [(n, n) for n in range(200)]
    assert not journals(place)


def test_a_journal_removed_while_it_is_opened_is_not_written(place, monkeypatch):
    """What is written to a file without a name would be lost."""
    file = place / "a.jsonl"

    def lock(*_):
        file.unlink()

    with monkeypatch.context() as patch:
        patch.setattr(journal.fcntl, "flock", lock)
        with pytest.raises(BusyError):
            Journal(file)
    Journal(file).close()


def test_a_journal_on_a_full_disk_loses_only_what_had_no_room(place):
    """A part of a line would spoil the one after it."""
    code = """
import resource, signal
from pathlib import Path
from remit.tracking.journal import Journal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal(Path("a.jsonl"))
journal.add("tags", tags={"first": "1"})
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (journal.file.stat().st_size + 10, hard))
try:
    journal.add("tags", tags={"second": "2"})
except OSError:
    print("full")
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
journal.add("tags", tags={"third": "3"})
"""
    done = run(sys.executable, "-c", code, cwd=place)
    assert done.stdout.strip() == "full", done.stdout
    found = [entry["tags"] for entry in Journal(place / "a.jsonl").unsent]
    assert found == [{"first": "1"}, {"third": "3"}]


def test_a_journal_names_no_file_but_its_own(place):
    """Results may come from somebody else; their journals send nothing of this machine's."""
    (place / "secret").write_text("mine")
    _, lines = log_some(Execution(mlflow_uri=closed()))
    (file,) = journals(place)
    file.with_suffix(".files").mkdir()
    (file.with_suffix(".files") / "link").symlink_to(place / "secret")
    whole = file.read_text()
    for name in (str(place / "secret"), "../../secret", "link"):
        entry = {"n": 90, "what": "artifact", "name": name}
        file.write_text(f"{whole}{json.dumps(entry)}\n")
        with pytest.raises(RemitError):
            sync(HERE, lines.append)
        stored = (place / "results/mlflow_artifacts").rglob("*")
        assert not [each for each in stored if each.name in ("secret", "link")]


# The registry -----------------------------------------------------------------------------


def model():
    import numpy as np
    import torch

    return torch.nn.Linear(3, 2).eval(), np.ones((2, 3), np.float32)


def test_the_registry_points_to_whole_models_only(place, monkeypatch):
    """Killed after each step of storing one: there is no version, or it loads."""
    import mlflow
    from mlflow import MlflowClient

    module, example = model()
    tracker = Tracker(Execution(mlflow_uri=closed()), "a", TAGS, lambda _: None)
    tracker.register(module, example, "it", {"simulated": True}, {"simulated": "true"})
    tracker.finish()
    (file,) = journals(place)
    half = MlflowClient.log_artifact

    def broken(self, run_id, folder, *_):  # a file of the model, and then the power is gone
        half(
            self,
            run_id,
            str(next(p for p in (file.with_suffix(".files") / "model").iterdir() if p.is_file())),
            "model",
        )
        raise ConnectionError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_artifacts", broken)
        with pytest.raises(RemitError, match="1 of 1"):
            sync(HERE, lambda _: None)
    assert client(place).search_model_versions("name='it'") == []
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "mark", lambda *_: 1 / 0)
        with pytest.raises(RemitError):
            sync(HERE, lambda _: None)
    with monkeypatch.context() as patch:  # what is pointed to is not written again
        patch.setattr(MlflowClient, "log_artifacts", broken)
        sync(HERE, lambda _: None)
    for _ in range(2):
        sync(HERE, lambda _: None)
        (version,) = client(place).search_model_versions("name='it'")
        assert version.tags["simulated"] == "true" and "simulated: True" in version.description
    mlflow.set_tracking_uri(f"sqlite:///{place}/results/mlflow.db")
    loaded = mlflow.pyfunc.load_model("models:/it/1")
    assert loaded.predict(example).shape == (2, 2)


def test_a_full_disk_stops_tracking_and_nothing_else(place, monkeypatch):
    lines = []
    tracker = Tracker(HERE, "a", TAGS, lines.append)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Journal, "add", full)
    for step in range(3):
        tracker.metrics({"loss": 1}, step)
    tracker.finish()
    assert sum("could not keep metrics" in line for line in lines) == 1, lines
    tracker._thread.join(60)  # it had begun to make a database, and nobody waits for it


def test_a_run_is_kept_where_it_was_begun(place, monkeypatch):
    gone, connect = threading.Event(), Sender.connect
    monkeypatch.setattr(Sender, "connect", lambda self: gone.wait(60) and connect(self))
    tracker = Tracker(HERE, "a", TAGS, print)
    (place / "elsewhere").mkdir()
    monkeypatch.chdir(place / "elsewhere")
    gone.set()
    tracker.metrics({"loss": 1}, 0)
    tracker.finish()
    (found,) = runs_in(place)
    assert points(place, found.info.run_id, "loss") == [(0, 1)]
    assert not list((place / "elsewhere").iterdir())


@pytest.mark.parametrize("before", [True, False])
def test_a_run_whose_disk_was_full_at_its_end_or_before_ends_as_it_did(place, before):
    """And not as one that was killed."""
    code = f"""
import resource, signal
from remit.config import Execution
from remit.tracking import Tracker
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
tracker = Tracker(Execution(mlflow_uri="{closed()}"), "a", {TAGS}, print)
tracker.metrics({{"loss": 1}}, 0)
tracker._thread.join(3)  # the warning that nobody listens
full = tracker._journal.file.stat().st_size + 10
resource.setrlimit(resource.RLIMIT_FSIZE, (full, full))
if {before}:
    tracker.metrics({{"loss": 2}}, 1)
tracker.finish()
"""
    done = run(sys.executable, "-c", code, cwd=place, env={"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"})
    assert done.returncode == 0 and ("could not keep metrics" in done.stdout) is before, done.stdout
    assert "could not keep end" not in done.stdout
    sync(HERE, lambda _: None)
    (found,) = runs_in(place)
    assert found.info.status == "FINISHED" and points(place, found.info.run_id, "loss") == [(0, 1)]


def test_a_run_that_ends_in_its_room_is_no_surprise_to_who_is_sending(place, monkeypatch):
    """The thread goes through the entries while it holds the guard, so nobody may add one without it."""
    journal, held = Journal(place / "a.jsonl"), []
    journal.begin(run_name="a", tags={})
    take = journal._take

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal, "_write", full)
    monkeypatch.setattr(
        journal, "_take", lambda line: (held.append(journal._guard.locked()), take(line))
    )
    journal.add("end", status="FINISHED", time=1.0)
    assert held == [True] and journal.ended


def test_without_mlflow_nothing_is_written(place):
    tracker = Tracker(Execution(mlflow=False), "a", TAGS, print)
    tracker.metrics({"loss": 1}, 0)
    tracker.finish()
    assert not tracker.active and not (place / "results").exists()


def test_the_command(place, capsys):
    log_some(Execution(mlflow_uri=closed()))
    words = ["mlflow", "sync"]
    assert cli.main([*words, "--execution", json.dumps({"mlflow_uri": closed()})]) == 1
    assert "1 of 1 runs are not in MLflow yet" in capsys.readouterr().err
    assert cli.main(words) == 0
    assert "nothing is left to send" in capsys.readouterr().out
