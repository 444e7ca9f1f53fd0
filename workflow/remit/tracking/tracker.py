"""What a stage logs to: one run, or nothing; no call waits for a server, or ends with one."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from remit import naming
from remit.config import Execution
from remit.naming import ModelName
from remit.tracking.journal import BusyError, Journal
from remit.tracking.sender import Sender, make_quiet, reason_of

_SEND_SECONDS = 5.0  # metrics wait this long, so that an epoch of milliseconds is not slowed down
_PARAM_LENGTH = 500  # characters that MLflow keeps of a parameter's value
_PAUSES = (1.0, 5.0, 30.0, 60.0)  # seconds until a server that failed is asked again
_LAST_WORDS = 30.0  # seconds without progress after which a run that is over is left to sync
_LAST_WORD = 5.0  # the same for one that was told to end


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


def tags_of_model(
    stage: str,
    name: ModelName,
    metadata: Mapping[str, Any],
    *,
    transductive: bool,
    result_version: str,
    git_commit: str,
) -> dict[str, str]:
    """What MLflow's page can filter and group trainings by; ``metadata`` is that of the dataset."""
    found = {
        "stage": stage,
        "git_commit": git_commit,
        "result_version": result_version,
        **name.parts,
        "dataset": metadata["dataset"],
        "cohort": metadata["cohort"],
        "content_sha256": metadata["content_sha256"],
        "simulated": str(metadata["simulated"]).lower(),
        "transductive": str(transductive).lower(),
    }
    return {f"remit.{key}": str(value) for key, value in found.items()}


_last: Tracker | None = None


def last_run() -> dict[str, str | None]:
    """The run that was logged to since this was asked last, and its journal's name; else None."""
    global _last
    found, _last = _last, None
    return {
        "run_id": found.run_id if found else None,
        "journal": found.journal_id if found else None,
    }


class Tracker:
    """One MLflow run, or nothing where tracking is off or its journal cannot be written.

    Args:
        execution: says whether and where to.
        run_name: of the run.
        tags: of the run; with its name and settings they say whether an interrupted run goes on.
        log: takes one line.
        params: settings, nested ones with dots in their names.
        of: a tag and its value: adds to the newest run that has it, and to nothing if none has.
        once: one of the tags: goes on in the newest run that has the same value of it, if there is one.
    """

    def __init__(
        self,
        execution: Execution,
        run_name: str,
        tags: Mapping[str, str],
        log: Callable[[str], None],
        params: Mapping[str, Any] | None = None,
        of: tuple[str, str] | None = None,
        once: str | None = None,
    ) -> None:
        global _last
        self._log = log
        self._journal: Journal | None = None
        self._cut: Journal | None = None  # what was given up: all but how it ended
        self._thread: threading.Thread | None = None
        self._work = threading.Condition()
        self._closing = False
        if not execution.mlflow:
            return
        try:
            make_quiet()
            journal = self._open(run_name, dict(tags), flat(params or {}), of, once)
            sender = Sender(execution, journal)
        except Exception as error:  # noqa: BLE001 - an MLflow that does not import fails with any type
            self._give_up("start a run", error)
            return
        _last = self
        self._thread = threading.Thread(target=self._run, args=(sender,), daemon=True)
        self._thread.start()

    def _open(
        self,
        run_name: str,
        tags: dict[str, str],
        params: dict[str, str],
        of: tuple[str, str] | None,
        once: str | None,
    ) -> Journal:
        """The journal of this run: the one that an interrupted process left, or a new one."""
        about = {"run_name": run_name, "tags": tags, "params": params}
        about |= {"of": list(of)} if of else {}
        about |= {"once": once} if once else {}
        key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
        folder = Path(naming.PATTERNS["mlflow_journal"]).resolve()
        for number in range(1, 1000):
            file = folder / f"{key}-{number}.jsonl"
            try:
                journal = Journal(file)
            except BusyError:
                continue
            if journal.ended or (of and journal.header):
                journal.close()
                continue
            self._journal = journal
            if not journal.header:
                journal.begin(**{name: value for name, value in about.items() if name != "params"})
            if params and not any(one["what"] == "params" for one in journal.entries.values()):
                journal.add("params", params=params)
            return journal
        raise OSError(f"{folder} holds a thousand journals of one run")

    @classmethod
    def of_run(
        cls, execution: Execution, tag: str, value: str, log: Callable[[str], None]
    ) -> Tracker:
        """A tracker that adds to the newest run with this tag; to nothing where there is none."""
        return cls(execution, "", {}, log, of=(tag, value))

    def _give_up(self, what: str, error: BaseException) -> None:
        self._log(
            f"warning: MLflow could not {what} ({reason_of(error)}); the numbers are in the files; check "
            "execution.mlflow_uri and the free space"
        )
        self._cut, self._journal = self._journal, None

    # The thread ---------------------------------------------------------------------------

    def _run(self, sender: Sender) -> None:
        try:
            self._send(sender)
        finally:
            sender.journal.close()

    def _send(self, sender: Sender) -> None:
        """Send until the run is over; a server that fails is asked again, ever more seldom."""
        journal = sender.journal
        failures = 0
        while True:
            with self._work:
                last = self._closing
            try:
                sender.send()
                for refused in sender.refused:
                    self._log(f"warning: MLflow refused to {refused}; the numbers are in the files")
                sender.refused.clear()
                if failures:
                    self._log("MLflow is back; it has all that was logged")
                failures = 0
                if last and not journal.unsent:
                    if journal.ended:
                        journal.remove()
                    return
            except Exception as error:  # noqa: BLE001 - MLflow's failures have no common type
                if not failures:
                    self._log(
                        f"warning: MLflow could not {sender.doing} ({reason_of(error)}); the numbers are in "
                        f"the files and wait in {journal.file.parent.name}: 'remit mlflow sync' sends "
                        "them; check execution.mlflow_uri"
                    )
                failures += 1
                sender.client = None
                if last:
                    return
            pause = _PAUSES[min(failures, len(_PAUSES)) - 1] if failures else _SEND_SECONDS
            with self._work:
                self._work.wait_for(lambda: self._closing, pause)

    # What a stage calls -------------------------------------------------------------------

    @property
    def active(self) -> bool:
        """Whether what is logged is kept for MLflow."""
        return self._journal is not None

    @property
    def run_id(self) -> str | None:
        """The run's id in MLflow, once it is known there."""
        return self._journal.run_id if self._journal else None

    @property
    def journal_id(self) -> str | None:
        """What the run is tagged with in MLflow, whenever it gets there."""
        return str(self._journal.header["journal"]) if self._journal else None

    def _add(self, what: str, **values: Any) -> None:
        if self._journal is not None:
            try:
                self._journal.add(what, **values)
            except (OSError, ValueError) as error:
                self._give_up(f"keep {what}", error)

    def metrics(self, values: Mapping[str, float | int | None], step: int) -> None:
        """Log the numbers of one step; None and 'epoch' are left out, and what was logged of it before."""
        journal = self._journal
        if journal is None:
            return
        now = int(time.time() * 1000)
        new = [
            [key, float(value), now, step]
            for key, value in values.items()
            # The step says which epoch it is. A training that goes on tells its earlier epochs again.
            if value is not None and key != "epoch" and (key, step) not in journal.known
        ]
        if new:
            self._add("metrics", values=new)

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags of the run."""
        self._add("tags", tags=dict(values))

    def link(self, tag: str, of_tag: str, value: str) -> None:
        """Tag the run with the id of the newest other run that has ``of_tag``, if there is one."""
        self._add("link", tag=tag, of=[of_tag, value])

    def nest(self, of_tag: str, value: str) -> None:
        """Put the newest run that has ``of_tag`` below this one, if there is one, with what it has read."""
        self._add("nest", of=[of_tag, value])

    def dataset(
        self, file: Path, metadata: Mapping[str, Any], context: str, tags: Mapping[str, str]
    ) -> None:
        """Log a primary dataset as an input of the run, under its name in MLflow."""
        profile = {
            key: metadata[key] for key in ("windows", "sampling_rate", "channels", "simulated")
        }
        self._add(
            "dataset",
            dataset={
                "name": naming.mlflow_dataset_name(
                    str(metadata["dataset"]), int(metadata["windows"])
                ),
                "digest": str(metadata["content_sha256"])[:32],
                "source_type": "local",
                "source": json.dumps({"uri": file.resolve().as_uri()}),
                "profile": json.dumps(profile),
            },
            tags={key: str(v) for key, v in {"mlflow.data.context": context, **tags}.items()},
        )

    def artifacts(self, files: Sequence[Path]) -> None:
        """Copy files into the run."""
        for file in files:
            if self._journal is not None:
                try:
                    self._add("artifact", name=self._journal.keep(file))
                except OSError as error:
                    self._give_up(f"keep {file.name}", error)

    def register(
        self,
        model: Any,
        example: Any,
        name: str,
        metadata: Mapping[str, Any],
        tags: Mapping[str, str],
    ) -> None:
        """Store a PyTorch module as an exported program and register it under ``name``.

        ``example`` is a float32 array [windows, channels, samples] with at least two windows. The
        exported program holds the graph and the weights, so that loading it needs MLflow and
        PyTorch but not this package.
        """
        if self._journal is None:
            return
        try:
            import mlflow.pytorch
            from mlflow.models import infer_signature

            folder = self._journal.files / "model"
            shutil.rmtree(folder, ignore_errors=True)
            mlflow.pytorch.save_model(
                model,
                str(folder),
                input_example=example,
                signature=infer_signature(example, model(_tensor(example)).detach().numpy()),
                serialization_format="pt2",
                metadata=dict(metadata),
                pip_requirements=[f"torch=={_public_version()}", "numpy"],
            )
        except Exception as error:  # noqa: BLE001 - MLflow's failures have no common type
            self._log(
                f"warning: MLflow could not store the model {name} ({reason_of(error)}); the checkpoint is "
                "there; the registry lacks it"
            )
            return
        described = "; ".join(f"{key}: {value}" for key, value in metadata.items())
        self._add(
            "model",
            name=name,
            description=described[:4000],
            tags={key: str(value) for key, value in tags.items()},
        )

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Mark the run as failed if the block does not come to its end.

        One that leaves by SIGTERM or Ctrl-C goes on in the same run when the same command is called
        again, and leaves soon.
        """
        try:
            yield
        except (SystemExit, KeyboardInterrupt):
            self._close(_LAST_WORD)
            raise
        except BaseException:
            self.finish("FAILED")
            raise

    def finish(self, status: str = "FINISHED") -> None:
        """Close the run, and wait a while for what is left to be sent."""
        if self._thread is not None and self._journal is None:
            self._journal = self._cut
        self._add("end", status=status, time=time.time())
        self._close()

    def _close(self, patience: float = _LAST_WORDS) -> None:
        """Wait for the thread while it gets on; what it does not get rid of is for sync."""
        if self._thread is None:
            return
        with self._work:
            self._closing = True
            self._work.notify_all()
        left = -1
        while self._thread.is_alive() and self._journal is not None:
            now = len(self._journal.unsent)
            if now == left:
                self._log("warning: MLflow is slow; what is left waits for 'remit mlflow sync'")
                self._log = lambda _: None  # Python ends badly where a thread is printing
                break
            left = now
            self._thread.join(patience)


def _tensor(array: Any) -> Any:
    import torch

    return torch.from_numpy(array)


def _public_version() -> str:
    import torch

    return torch.__version__.split("+")[0]
