"""Sends what journals hold to an MLflow server or database: for a run at work, or in `remit mlflow sync`."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from remit import naming
from remit.config import Execution
from remit.errors import RemitError, without_password
from remit.tracking.journal import BusyError, Journal

_SEND_MOST = 900  # metrics in one request; MLflow takes 1000
_SEND_MOST_PARAMS = 90  # settings in one request; MLflow takes 100
# A request to a server that is away must end: MLflow would otherwise retry for minutes.
_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_DISABLE_TELEMETRY": "true",  # else it reports its use to its makers
}
# What a server says of an entry that it will never take; anything else may pass.
_NEVER = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS")
JOURNAL_TAG = "remit.journal"
_PARENT_TAG = "mlflow.parentRunId"  # by which MLflow shows a run below another
# What MLflow's page says above the runs, and that it shows trainings (not traces of language models).
_EXPERIMENT = {
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.note.content": (
        'Trainings of remit. A sweep\'s models lie below their sweep. Filter by `tags."remit.stage"` '
        "(dataset, pretraining, fine-tuning, sweep), tick runs and press Compare: settings that differ "
        "stand in the parameters, numbers by epoch in the metrics, and what a run has read among its "
        "datasets. Compare models that have the same `remit.content_sha256`, and by validation figures: "
        "choosing by a test figure spends the test part. `remit.simulated` is true where a program made "
        "the recordings."
    ),
}


def reason_of(error: BaseException) -> str:
    """An error in one line, without what must not go into a log: an address may hold a password."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return f"{type(error).__name__}: {without_password(reason)[:200]}"


class Sender:
    """Sends what a journal holds to the server or database of the settings.

    A database lies below the folder in which this is made: a thread may connect when the process has
    gone elsewhere.
    """

    def __init__(self, execution: Execution, journal: Journal) -> None:
        self._execution = execution
        self._database = Path(naming.PATTERNS["mlflow_database"]).resolve()
        self._artifacts = Path(naming.PATTERNS["mlflow_artifacts"]).resolve()
        self.journal = journal
        self.client: Any = None
        self.experiment_id = ""
        self.doing = "be reached"
        self._checked = False
        self.refused: list[str] = []

    def connect(self) -> None:
        """A client of the server or the database, with the experiment there."""
        import mlflow
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        uri, artifacts = self._execution.mlflow_uri, None
        if uri is None:
            database = self._database
            database.parent.mkdir(parents=True, exist_ok=True)
            # SQLite would try for a minute and a half before it says the same.
            if not os.access(database.parent, os.W_OK):
                raise PermissionError(f"{database.parent} cannot be written")
            # In a URL a '?' ends the path, so a folder with one in its name is not spelt out.
            plain = "?" not in str(database)
            uri = f"sqlite:///{database if plain else naming.PATTERNS['mlflow_database']}"
            artifacts = self._artifacts.as_uri()
        name = self._execution.mlflow_experiment
        # The first ones to come make the database and the experiment, one after another.
        with _alone(self.journal.file.parent / ".lock"):
            mlflow.set_tracking_uri(uri)
            client = MlflowClient(uri)
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                try:
                    self.experiment_id = client.create_experiment(
                        name, artifact_location=artifacts, tags=_EXPERIMENT
                    )
                except MlflowException:  # on a server: somebody else was faster
                    experiment = client.get_experiment_by_name(name)
                    if experiment is None:
                        raise
            if experiment is not None:
                self.experiment_id = experiment.experiment_id
        self.client = client
        self._checked = False  # what was away may have come back without its runs

    def send(self, stop: Callable[[], bool] = lambda: False) -> None:
        """Send all that is unsent; raises whatever MLflow raises where it fails."""
        from mlflow.exceptions import MlflowException

        if self.client is None:
            self.doing = "start a run" if "of" not in self.journal.header else "be reached"
            self.connect()
        if not self._find_or_make_run():
            return
        while not stop():
            group = self._next()
            if not group:
                return
            self.doing = f"log {group[0]['what']}"
            try:
                getattr(self, f"_send_{group[0]['what']}")(group)
            except MlflowException as error:
                if error.error_code not in _NEVER:
                    raise
                self.refused.append(f"{self.doing} ({reason_of(error)})")
            self.journal.mark([entry["n"] for entry in group])

    def _next(self) -> list[dict[str, Any]]:
        """The next entry, or as many of metrics as go into one request."""
        group: list[dict[str, Any]] = []
        size = 0
        for entry in self.journal.unsent:
            metrics = entry["what"] == "metrics"
            size += len(entry.get("values", ()))
            if group and not (metrics and group[0]["what"] == "metrics" and size <= _SEND_MOST):
                break
            group.append(entry)
        return group

    def _find_or_make_run(self) -> bool:
        """Whether there is a run to send to. One made before is found again by its journal's tag."""
        from mlflow.exceptions import MlflowException

        header, client = self.journal.header, self.client
        if self.journal.run_id is not None:
            if self._checked:
                return True
            try:
                client.get_run(self.journal.run_id)
                self._checked = True
                return True
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                self.journal.found_run(None)  # another server, or one that has forgotten
        if "of" in header:
            run_id = self._find_or_wait(*header["of"])
            if run_id is None:  # nobody to add to
                self.journal.mark([entry["n"] for entry in self.journal.unsent])
                return False
        else:
            tags = {
                **header["tags"],
                "mlflow.source.name": "remit",
                JOURNAL_TAG: header["journal"],
            }
            run_id, once = self.find(JOURNAL_TAG, header["journal"]), header.get("once")
            if run_id is None and once is not None:
                run_id = self.find(once, tags[once])
                if run_id is not None:  # what was true of it then may not be now
                    for key, value in tags.items():
                        client.set_tag(run_id, key, value)
            if run_id is None:
                run = client.create_run(
                    self.experiment_id,
                    start_time=int(header["created"] * 1000),
                    run_name=header["run_name"],
                    tags=tags,
                )
                run_id = run.info.run_id
        self.journal.found_run(run_id)
        self._checked = True
        return True

    def find(self, tag: str, value: str) -> str | None:
        """The newest run of the experiment with this tag, if there is one."""
        runs = self.client.search_runs(
            [self.experiment_id],
            f"tags.`{tag}` = '{value}'",
            max_results=1,
            order_by=["attributes.start_time DESC"],
        )
        return runs[0].info.run_id if runs else None

    def _find_or_wait(self, tag: str, value: str) -> str | None:
        """As :meth:`find`; raises LookupError where that run is still in a journal itself."""
        found = self.find(tag, value)
        if found is None:
            own = self.journal.file
            written = {"journal" if tag == JOURNAL_TAG else tag: value}
            for file in own.parent.glob("*.jsonl"):
                if file != own and json.dumps(written)[1:-1].encode() in file.read_bytes():
                    raise LookupError(f"its run with {tag} waits in {file.name}")
        return found

    def _send_params(self, group: list[dict[str, Any]]) -> None:
        from mlflow.entities import Param

        entries = [Param(key, value) for key, value in group[0]["params"].items()]
        for first in range(0, len(entries), _SEND_MOST_PARAMS):
            some = entries[first : first + _SEND_MOST_PARAMS]
            self.client.log_batch(self.journal.run_id, params=some)

    def _send_metrics(self, group: list[dict[str, Any]]) -> None:
        from mlflow.entities import Metric

        values = [Metric(*each) for entry in group for each in entry["values"]]
        self.client.log_batch(self.journal.run_id, metrics=values)

    def _send_tags(self, group: list[dict[str, Any]]) -> None:
        for key, value in group[0]["tags"].items():
            self.client.set_tag(self.journal.run_id, key, value)

    def _send_link(self, group: list[dict[str, Any]]) -> None:
        found = self._find_or_wait(*group[0]["of"])
        if found is not None:
            self.client.set_tag(self.journal.run_id, group[0]["tag"], found)

    def _send_nest(self, group: list[dict[str, Any]]) -> None:
        found = self._find_or_wait(*group[0]["of"])
        if found is None:
            return
        from mlflow.entities import DatasetInput, InputTag

        self.client.set_tag(found, _PARENT_TAG, self.journal.run_id)
        # What a child has read its parent has read; MLflow keeps the same dataset of a run once.
        context = InputTag("mlflow.data.context", "sweep")
        read = self.client.get_run(found).inputs.dataset_inputs
        if read:
            inputs = [DatasetInput(each.dataset, [context]) for each in read]
            self.client.log_inputs(self.journal.run_id, datasets=inputs)

    def _send_dataset(self, group: list[dict[str, Any]]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        tags = [InputTag(key, value) for key, value in group[0]["tags"].items()]
        made = DatasetInput(Dataset(**group[0]["dataset"]), tags)
        self.client.log_inputs(self.journal.run_id, datasets=[made])

    def _send_artifact(self, group: list[dict[str, Any]]) -> None:
        self.client.log_artifact(self.journal.run_id, self._kept(group[0]["name"]))

    def _kept(self, name: str) -> str:
        """A file or folder of the journal; nothing else of this machine, whoever wrote the journal."""
        place = self.journal.files / Path(name).name
        if place.name in ("..", self.journal.files.name):
            raise PermissionError(f"{name!r} is no file of a journal")
        for each in (self.journal.files, place, *place.rglob("*")):
            if each.is_symlink():
                raise PermissionError(f"{each} is a link, which remit never makes there")
        return str(place)

    def _send_model(self, group: list[dict[str, Any]]) -> None:
        """Store the model as a whole, and only then let the registry point to it."""
        from mlflow.exceptions import MlflowException

        client, run_id, name = self.client, self.journal.run_id, group[0]["name"]
        if client.search_model_versions(f"name='{name}' and run_id='{run_id}'"):
            return
        client.log_artifacts(run_id, self._kept("model"), "model")
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        client.create_model_version(
            name,
            f"{client.get_run(run_id).info.artifact_uri}/model",
            run_id=run_id,
            tags=group[0]["tags"],
            description=group[0]["description"],
        )

    def _send_end(self, group: list[dict[str, Any]]) -> None:
        if "of" not in self.journal.header:
            run_id, status = self.journal.run_id, group[0]["status"]
            self.client.set_terminated(run_id, status, end_time=int(group[0]["time"] * 1000))


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One process at a time."""
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def make_quiet() -> None:
    """Import MLflow so that it neither chatters, nor waits long, nor reports to anybody."""
    for key, value in _PATIENCE.items():
        os.environ.setdefault(key, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="mlflow")
    import mlflow  # noqa: F401 - here, as two threads that import at once may trip over each other


def _created(file: Path) -> float:
    """When a journal was begun, as its first line says: a run comes before those that point to it."""
    try:
        with file.open("rb") as lines:
            return float(json.loads(lines.readline())["created"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


def sync(execution: Execution, log: Callable[[str], None]) -> None:
    """Send what earlier runs could not, each entry once, and end the runs of processes that were killed.

    Raises :class:`RemitError` where something is left.
    """
    folder = Path(naming.PATTERNS["mlflow_journal"]).resolve()
    make_quiet()
    left = tried = 0
    # One open at a time: a cluster without a network leaves more than a process may hold open.
    for file in sorted(folder.glob("*.jsonl"), key=lambda each: (_created(each), each)):
        try:
            journal = Journal(file)
        except BusyError:
            log(f"{file.name}: of a process that is still at work; left to it")
            continue
        tried += 1
        if not journal.header:  # killed before its first line was whole
            journal.remove()
            continue
        sender = Sender(execution, journal)
        try:
            if not journal.ended and "of" not in journal.header:
                journal.add("end", status="KILLED", time=journal.file.stat().st_mtime)
            many = len(journal.unsent)
            sender.send()
        except Exception as error:  # noqa: BLE001 - MLflow's failures have no common type
            left += 1
            log(f"{journal.file.name}: MLflow could not {sender.doing} ({reason_of(error)})")
            journal.close()
            continue
        for refused in sender.refused:
            log(f"{journal.file.name}: MLflow refused to {refused}")
        log(
            f"{journal.file.name}: sent {many} entries of {journal.header['run_name'] or 'a run'} to "
            f"run {journal.run_id}"
        )
        journal.remove()
    if left:
        raise RemitError(
            f"mlflow sync: {left} of {tried} runs are not in MLflow yet; expected a server or "
            "database that takes them; check execution.mlflow_uri and call it again."
        )
    log(f"{tried} runs: nothing is left to send")
