"""MLflow, and the only module that imports it.

Every number is written to files by the stage that makes it; MLflow gets a copy. So nothing here can
stop or lose a training: whatever MLflow does wrong is said in one line, and the run goes on without
it. Runs find each other by tags: a checkpoint's SHA-256 leads to the run that made it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from remit import naming
from remit.config import Execution

_SEND_SECONDS = 5.0  # metrics wait this long, so that an epoch of milliseconds is not slowed down
_SEND_MOST = 900  # metrics in one request; MLflow takes 1000
_PARAM_LENGTH = 500  # characters that MLflow keeps of a parameter's value
# A server that is away must not hold a training up: MLflow would otherwise retry for minutes.
_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
}


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as ``{"pretraining.epochs": "40"}``."""
    out: dict[str, str] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            out |= flat(value, f"{name}.")
        else:
            out[name] = str(value)[:_PARAM_LENGTH]
    return out


class Tracker:
    """One MLflow run, or nothing: after the first failure it stays silent.

    ``url`` is None where tracking is off or has failed.
    """

    def __init__(
        self,
        execution: Execution,
        run_name: str,
        tags: Mapping[str, str],
        log: Callable[[str], None],
    ) -> None:
        self._log = log
        self._client: Any = None
        self._experiment_id = ""
        self._pending: list[Any] = []
        self._sent = time.monotonic()
        self.run_id: str | None = None
        if execution.mlflow:
            self._attempt("start a run", self._start, execution, run_name, dict(tags))

    @classmethod
    def of_run(
        cls, execution: Execution, tag: str, value: str, log: Callable[[str], None]
    ) -> Tracker:
        """A tracker that adds to the newest run with this tag; nothing where there is none."""
        tracker = cls(execution.model_copy(update={"mlflow": False}), "", {}, log)
        if execution.mlflow:
            tracker._client = tracker._attempt("be reached", tracker._connect, execution)
            tracker.run_id = tracker.find_run(tag, value)
            if tracker.run_id is None:
                tracker._client = None
        return tracker

    def _attempt(self, what: str, action: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """Run an action of MLflow; on any failure say so in one line and stop tracking."""
        try:
            return action(*args, **named)
        except Exception as error:  # noqa: BLE001 - MLflow's failures have no common type
            reason = " ".join(str(error).split()) or type(error).__name__
            # A server's address may hold a password, and this line goes into a log.
            reason = re.sub(r"//[^/@\s]+@", "//***@", reason)[:200]
            self._log(
                f"warning: MLflow could not {what} ({type(error).__name__}: {reason}); the numbers are "
                "in the files; check execution.mlflow_uri"
            )
            self._client = None
            return None

    def _start(self, execution: Execution, run_name: str, tags: dict[str, str]) -> None:
        client = self._connect(execution)
        run = client.create_run(
            self._experiment_id, run_name=run_name, tags={**tags, "mlflow.source.name": "remit"}
        )
        self.run_id = run.info.run_id
        self._client = client

    def _connect(self, execution: Execution) -> Any:
        """A client of the server or the database, with the experiment there."""
        for key, value in _PATIENCE.items():
            os.environ.setdefault(key, value)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module="mlflow")
        import mlflow
        from mlflow import MlflowClient

        uri = execution.mlflow_uri
        artifacts = None
        if uri is None:
            database = Path(naming.PATTERNS["mlflow_database"]).resolve()
            database.parent.mkdir(parents=True, exist_ok=True)
            # SQLite would try for a minute and a half before it says the same.
            if not os.access(database.parent, os.W_OK):
                raise PermissionError(f"{database.parent} cannot be written")
            uri = f"sqlite:///{database}"
            artifacts = Path(naming.PATTERNS["mlflow_artifacts"]).resolve().as_uri()
        mlflow.set_tracking_uri(uri)
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name(execution.mlflow_experiment)
        if experiment is None:
            self._experiment_id = client.create_experiment(
                execution.mlflow_experiment, artifact_location=artifacts
            )
        else:
            self._experiment_id = experiment.experiment_id
        return client

    @property
    def active(self) -> bool:
        """Whether MLflow takes what is logged."""
        return self._client is not None

    def params(self, values: Mapping[str, Any]) -> None:
        """Log settings, nested ones with dots in their names."""
        if self._client is None:
            return
        from mlflow.entities import Param

        entries = [Param(key, value) for key, value in flat(values).items()]
        self._attempt("log settings", self._client.log_batch, self.run_id, params=entries)

    def metrics(self, values: Mapping[str, float | int | None], step: int) -> None:
        """Log the numbers of one step; None is left out. They are sent every few seconds."""
        if self._client is None:
            return
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._pending += [
            Metric(key, float(value), now, step)
            for key, value in values.items()
            if value is not None
        ]
        if time.monotonic() - self._sent > _SEND_SECONDS or len(self._pending) > _SEND_MOST:
            self.send()

    def send(self) -> None:
        """Send the metrics that wait."""
        while self._client is not None and self._pending:
            batch, self._pending = self._pending[:_SEND_MOST], self._pending[_SEND_MOST:]
            self._attempt("log metrics", self._client.log_batch, self.run_id, metrics=batch)
        self._sent = time.monotonic()

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags of the run."""
        for key, value in values.items():
            if self._client is not None:
                self._attempt("set a tag", self._client.set_tag, self.run_id, key, value)

    def dataset(
        self, file: Path, metadata: Mapping[str, Any], context: str, tags: Mapping[str, str]
    ) -> None:
        """Log a primary dataset as an input of the run, under its name in MLflow."""
        if self._client is None:
            return

        from mlflow.entities import Dataset, DatasetInput, InputTag

        made = Dataset(
            name=naming.mlflow_dataset_name(str(metadata["dataset"]), int(metadata["windows"])),
            digest=str(metadata["content_sha256"])[:32],
            source_type="local",
            source=json.dumps({"uri": file.resolve().as_uri()}),
            profile=json.dumps(
                {
                    key: metadata[key]
                    for key in ("windows", "sampling_rate", "channels", "simulated")
                }
            ),
        )
        all_tags = {"mlflow.data.context": context, **tags}
        inputs = [DatasetInput(made, [InputTag(k, str(v)) for k, v in all_tags.items()])]
        self._attempt("log the dataset", self._client.log_inputs, self.run_id, datasets=inputs)

    def artifacts(self, files: Sequence[Path]) -> None:
        """Copy files into the run."""
        for file in files:
            if self._client is not None:
                self._attempt(
                    f"store {file.name}", self._client.log_artifact, self.run_id, str(file)
                )

    def find_run(self, tag: str, value: str) -> str | None:
        """The newest run of the experiment with this tag, if there is one."""
        if self._client is None:
            return None

        def action() -> str | None:
            runs = self._client.search_runs(
                [self._experiment_id],
                f"tags.`{tag}` = '{value}'",
                max_results=1,
                order_by=["attributes.start_time DESC"],
            )
            return runs[0].info.run_id if runs else None

        found: str | None = self._attempt("search for a run", action)
        return found

    def register(
        self,
        model: Any,
        example: Any,
        name: str,
        metadata: Mapping[str, Any],
        tags: Mapping[str, str],
    ) -> None:
        """Log a PyTorch module as an exported program and register it under ``name``.

        ``example`` is a float32 array [windows, channels, samples] with at least two windows. The
        exported program holds the graph and the weights, so that loading it needs MLflow and
        PyTorch but not this package.
        """
        if self._client is None:
            return

        def action() -> None:
            import mlflow
            import mlflow.pytorch
            from mlflow.models import infer_signature

            with mlflow.start_run(run_id=self.run_id):
                info = mlflow.pytorch.log_model(
                    model,
                    name="model",
                    input_example=example,
                    signature=infer_signature(example, model(_tensor(example)).detach().numpy()),
                    serialization_format="pt2",
                    registered_model_name=name,
                    metadata=dict(metadata),
                    pip_requirements=[f"torch=={_public_version()}", "numpy"],
                )
            version = info.registered_model_version
            described = "; ".join(f"{key}: {value}" for key, value in metadata.items())
            self._client.update_model_version(name, str(version), described[:4000])
            for key, value in tags.items():
                self._client.set_model_version_tag(name, str(version), key, str(value))

        self._attempt(f"register the model {name}", action)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Mark the run as failed if the block does not come to its end."""
        try:
            yield
        except BaseException:
            self.finish("FAILED")
            raise

    def finish(self, status: str = "FINISHED") -> None:
        """Send what is left and close the run."""
        self.send()
        if self._client is not None:
            self._attempt("close the run", self._client.set_terminated, self.run_id, status)


def _tensor(array: Any) -> Any:
    import torch

    return torch.from_numpy(array)


def _public_version() -> str:
    import torch

    return torch.__version__.split("+")[0]
