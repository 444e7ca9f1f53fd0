"""Fine-tuning: a classifier of participants on a pretrained backbone.

The best epoch on the validation participants is kept; the test part is touched once, at the end.
How a participant becomes one example, and its gradient, is in `participants`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from remit import progress
from remit.config import Execution, Finetuning, Sequences, Settings
from remit.dataset.sequences import check_usable, load_sequences
from remit.dataset.windows import WindowsFile, open_dataset
from remit.errors import RemitError, some_of
from remit.evaluation.metrics import FIGURES, participant_metrics, shown, with_intervals
from remit.evaluation.read_log import note_test_read
from remit.files import atomic_write, remove_leftovers, sha256_of
from remit.naming import ModelName
from remit.nn.encoder import Encoder
from remit.nn.export import ParticipantClassifier, ParticipantProbabilities
from remit.nn.heads import ClassifierHead
from remit.tracking import Tracker, tags_of_model
from remit.training import checkpoint
from remit.training.classifier import Training
from remit.training.data import (
    build_encoder,
    encoder_settings,
    saved_encoder_settings,
    seen_in_pretraining,
    signal_of,
    split_of,
)
from remit.training.participants import Participants, predict
from remit.training.runtime import prepare, use_backend, versions
from remit.training.state import TrainingState

RESULT_VERSION = 3  # raise when a change here alters a fine-tuned model or its card


# What a random draw is for; part of its seed.
_BOOTSTRAP = 13  # those before it are `classifier`'s


class BackboneSettings(Settings):
    """What the rule of any use of a backbone is given."""

    result_version: str
    model: dict[str, Any]
    sequences: Sequences


class ClassifierSettings(BackboneSettings):
    """What any training of a classifier on a backbone is given."""

    finetuning: Finetuning


class FinetuneSettings(ClassifierSettings):
    """What the rule's command is given."""

    transductive: bool = False


def _cross_entropy(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> float:
    chosen = np.where(labels == 1, probabilities, 1 - probabilities)
    w = weights[labels]
    return float(-(w * np.log(np.maximum(chosen, 1e-300))).sum() / w.sum())


def load_backbone(
    file: Path, name: ModelName, settings: BackboneSettings, dataset: WindowsFile
) -> tuple[dict[str, Any], Encoder, torch.Tensor]:
    """Load a pretrained backbone strictly, checked against name, configuration and data."""
    content = checkpoint.load(file, "pretrained")
    metadata = dataset.metadata
    rate = float(metadata["sampling_rate"])
    samples = round(settings.sequences.token_seconds * rate)
    checkpoint.check_equal(file, "name", content["name"], str(name), "the file's name")
    checkpoint.check_equal(file, "d_model", content["encoder"]["d_model"], name.d_model, "the name")
    checkpoint.check_equal(
        file, "num_layers", content["encoder"]["num_layers"], name.num_layers, "the name"
    )
    checkpoint.check_equal(
        file,
        "channels",
        list(content["channels"]),
        list(metadata["channels"]),
        "the primary dataset",
    )
    expected = encoder_settings(settings.model, samples, rate)
    checkpoint.check_equal(
        file,
        "encoder",
        saved_encoder_settings(content["encoder"], file).to_dict(),
        expected.to_dict(),
        "name and configuration",
    )
    checkpoint.check_equal(
        file,
        "sequences",
        content["settings"]["sequences"],
        settings.sequences.model_dump(mode="json"),
        "the configuration",
    )
    checkpoint.check_equal(
        file, "signal", content["data"]["signal"], signal_of(dataset), "the primary dataset"
    )
    encoder, positions_C3 = build_encoder(expected, metadata["channels"])
    fixed = {key: getattr(encoder, key).clone() for key in ("positions_C3", "electrodes_CD")}
    checkpoint.load_weights(encoder, content["state_dict"], file)
    for key, value in fixed.items():
        if not torch.allclose(getattr(encoder, key), value, rtol=1e-5, atol=1e-6):
            raise RemitError(
                f"{file}: {key} is not that of the electrodes {some_of(metadata['channels'])}; expected "
                "their standard positions; use a backbone made with them."
            )
    seen = content["data"]["participants_seen"].get("training", [])
    if not seen or not content["data"]["signals_seen"]:
        raise RemitError(
            f"{file}: does not say whom it has seen; expected participants_seen and signals_seen; "
            "without them nobody can tell whether it saw the held-out participants."
        )
    return content, encoder, positions_C3


def finetune(
    *,
    name: ModelName,
    settings: FinetuneSettings,
    backbone: Path,
    primary: Path,
    split_file: Path,
    output: Path,
    predictions: Path,
    execution: Execution,
    log: Callable[[str], None],
) -> None:
    """Train the classifier; write the best epoch's checkpoint, its .json and the predictions.

    Raises :class:`RemitError` when backbone, data, split and settings do not fit together.
    """
    options = settings.finetuning
    device = prepare(execution)
    dataset = open_dataset(primary)
    metadata = dataset.metadata
    split = split_of(dataset, split_file)
    if not split.part("val"):
        raise RemitError(
            f"{split_file}: has nobody to validate, being the split of a fold; expected someone to choose "
            "the epoch by; fine-tune with the dataset's own split."
        )
    for which in ("train", "val", "test"):
        check_usable(dataset, split.part(which), settings.sequences)
    content, encoder, positions_C3 = load_backbone(backbone, name, settings, dataset)
    checkpoint.check_equal(
        backbone,
        "transductive",
        content["data"]["transductive"],
        settings.transductive,
        "pretraining.transductive",
    )
    encoder.to(device).eval()
    backend = use_backend(encoder, execution.backend, device)
    frozen = options.freeze_backbone

    def part(which: str) -> Participants:
        sequences = load_sequences(dataset, split.part(which), settings.sequences)
        return Participants(encoder, sequences, device, keep=frozen)

    train, val = part("train"), part("val")
    held_out = [*split.part("val"), *split.part("test")]
    overlap = seen_in_pretraining(content, dataset, held_out)
    if overlap and not settings.transductive:
        raise RemitError(
            f"{backbone}: participant {some_of(overlap)} of validation or test was seen in pretraining; "
            "expected a backbone that has not seen them; pretrain again with this split, or set "
            "pretraining.transductive."
        )
    log(
        f"fine-tune {name}: {len(train)} training and {len(val)} validation participants, backbone "
        f"{'frozen' if frozen else 'trained'}; device {device}, backend {backend}"
        + ("; SIMULATED data" if metadata["simulated"] else "")
    )
    training = Training(encoder, train, options, execution, seed=options.seed, log=log)
    head = training.head
    data = {
        "dataset": metadata["dataset"],
        "cohort": metadata["cohort"],
        "simulated": metadata["simulated"],
        "content_sha256": metadata["content_sha256"],
        "split_sha256": sha256_of(split_file),
        "signal": signal_of(dataset),
        "participants": {which: split.part(which) for which in ("train", "val", "test")},
    }
    pretrained = {
        "fingerprint": checkpoint.fingerprint(content["state_dict"]),
        "backbone_sha256": checkpoint.backbone_sha256(content),
        "data": content["data"],
        "best_epoch": content["best_epoch"],
        "history": content["history"],
        "settings": content["settings"],
        "seen_of_held_out": overlap,
    }
    all_settings = settings.model_dump(mode="json")
    tracker = _track(execution, name, dataset, pretrained, all_settings, log)
    remove_leftovers(predictions)
    state = TrainingState(
        output,
        {
            "name": str(name),
            "settings": all_settings,
            "data": data,
            "from": pretrained["fingerprint"],
        },
        {
            "head": head,
            "encoder": encoder,
            "optimiser": training.optimiser,
            "schedule": training.schedule,
        },
        60 * execution.save_minutes,
        log,
    )
    # A head alone takes seconds, less than it would take to save it.
    saving = nullcontext() if frozen else state.until_saved()
    with tracker.watching(), saving:
        best, history = _fit(encoder, training, val, state, tracker, log)
    head.load_state_dict(best["head"], strict=True)
    if not frozen:
        encoder.load_state_dict(best["encoder"], strict=True)
    analysis = {"settings": all_settings, "data": data, "from": pretrained["fingerprint"]}
    note_test_read(f"fine-tune {name}", metadata["dataset"], metadata["cohort"], analysis, log)
    test = part("test")
    frame: list[dict[str, Any]] = []
    results: dict[str, Any] = {}
    for which, people in (("train", train), ("val", val), ("test", test)):
        probabilities = predict(people, head)
        labels = people.labels_N.cpu().numpy()
        results[which] = with_intervals(
            labels.tolist(), probabilities.tolist(), seed=options.seed + _BOOTSTRAP
        )
        results[which]["prevalence"] = float(labels.mean())
        for row, person in enumerate(people.names):
            frame.append(
                {
                    "Participant": person,
                    "part": which,
                    "Remission": int(labels[row]),
                    "probability": float(probabilities[row]),
                    "windows_used": people.sequences.windows_used[row],
                    "windows_bad": people.sequences.windows_bad[row],
                }
            )
    payload = {
        "name": name.finetuned,
        "encoder": encoder.settings.to_dict(),
        "channels": list(metadata["channels"]),
        "positions": positions_C3,
        "settings": all_settings,
        "data": data,
        "pretrained": pretrained,
        "versions": versions(),
        "backend": backend,
        "device": device.type,
        "history": history,
        "best_epoch": best["epoch"],
        "metrics": results,
        "state_dict": {
            **{
                f"encoder.{key}": value.detach().cpu()
                for key, value in encoder.state_dict().items()
            },
            **{f"head.{key}": value.detach().cpu() for key, value in head.state_dict().items()},
        },
    }
    _write_predictions(predictions, frame, name, metadata)
    card = output.with_suffix(".json")
    checkpoint.save_card(card, "finetuned", payload)
    checkpoint.save(output, "finetuned", payload)
    _log_result(tracker, name, encoder, head, payload, dataset, settings, [card, predictions])
    state.remove()  # last: whoever is ended while waiting for MLflow has a failed job's output deleted
    summary = results["test"]
    log(
        f"fine-tune {name}: best epoch {best['epoch']}; test (n={summary['n']}): accuracy "
        f"{shown(summary['accuracy'])}, AUC {shown(summary['auc'])}; wrote {output}"
    )


def _fit(
    encoder: Encoder,
    training: Training,
    val: Participants,
    state: TrainingState,
    tracker: Tracker,
    log: Callable[[str], None],
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The loop; returns the best epoch (by validation F1, ties by loss) and the numbers of each."""
    options, head, memory = training.options, training.head, training.memory
    train_backbone = not options.freeze_backbone
    history: list[dict[str, Any]] = []
    best: dict[str, Any] = {"epoch": 0, "f1": -1.0, "loss": math.inf}
    losses: list[float] = []  # of the steps done of the epoch after the last one in history
    sizes: list[int] = []

    def snapshot() -> tuple[str, dict[str, Any]]:
        position = f"epoch {len(history)}"
        if losses:
            position = f"epoch {len(history) + 1}, step {len(losses)}"
        return position, {
            "history": history,
            "best": best,
            "losses": losses,
            "sizes": sizes,
            "micro_batch": memory.size,
        }

    saved = state.load() if train_backbone else None
    if saved:
        history, best = saved["history"], saved["best"]
        losses, sizes = saved["losses"], saved["sizes"]
        memory.begin_at(saved["micro_batch"])
        for entry in history:
            tracker.metrics(entry, int(entry["epoch"]))
    epochs = range(len(history) + 1, options.epochs + 1)
    for epoch in progress.track(epochs, "fine-tuning", "epoch", done=len(history)):
        began = time.perf_counter()
        steps = training.steps(epoch)
        for number in range(len(losses), len(steps)):
            losses.append(training.take(steps[number], epoch, number))
            sizes.append(sum(len(batch) for batch in steps[number]))
            if train_backbone:
                state.between_steps(snapshot)
        training.schedule.step()
        probabilities = predict(val, head)
        labels = val.labels_N.cpu().numpy()
        figures = participant_metrics(labels.tolist(), probabilities.tolist())
        entry = {
            "epoch": epoch,
            "train_loss": float(np.average(losses, weights=sizes)),
            "val_loss": _cross_entropy(labels, probabilities, training.weights.cpu().numpy()),
            **{f"val_{key}": value for key, value in figures.items() if not key.startswith("n")},
        }
        history.append(entry)
        if (entry["val_f1"], -entry["val_loss"]) > (best["f1"], -best["loss"]):
            best = {
                "epoch": epoch,
                "f1": entry["val_f1"],
                "loss": entry["val_loss"],
                "head": {k: v.detach().cpu().clone() for k, v in head.state_dict().items()},
            }
            if train_backbone:
                best["encoder"] = {
                    k: v.detach().cpu().clone() for k, v in encoder.state_dict().items()
                }
        losses, sizes = [], []
        if train_backbone:
            state.save(*snapshot())
        tracker.metrics(entry, epoch)
        auc = "undefined" if entry["val_auc"] is None else f"{entry['val_auc']:.3f}"
        log(
            f"epoch {epoch}/{options.epochs} train {entry['train_loss']:.4f} val "
            f"{entry['val_loss']:.4f} accuracy {entry['val_accuracy']:.3f} F1 {entry['val_f1']:.3f} "
            f"AUC {auc} ({time.perf_counter() - began:.2f} s)"
        )
    return best, history


def _write_predictions(
    file: Path, rows: list[dict[str, Any]], name: ModelName, metadata: dict[str, Any]
) -> None:
    schema = pa.schema(
        [
            ("Participant", pa.string()),
            ("part", pa.string()),
            ("Remission", pa.int8()),
            ("probability", pa.float64()),
            ("windows_used", pa.int32()),
            ("windows_bad", pa.int32()),
        ],
        metadata={
            "model": name.finetuned,
            "cohort": str(metadata["cohort"]),
            "simulated": str(metadata["simulated"]).lower(),
            "content_sha256": str(metadata["content_sha256"]),
        },
    )
    ordered = sorted(rows, key=lambda row: str(row["Participant"]))
    with atomic_write(file) as temporary:
        pq.write_table(pa.Table.from_pylist(ordered, schema=schema), temporary)


def _track(
    execution: Execution,
    name: ModelName,
    dataset: WindowsFile,
    pretrained: dict[str, Any],
    settings: dict[str, Any],
    log: Callable[[str], None],
) -> Tracker:
    metadata = dataset.metadata
    tracker = Tracker(
        execution,
        name.finetuned,
        {
            **tags_of_model(
                "fine-tuning",
                name,
                metadata,
                transductive=pretrained["data"]["transductive"],
                result_version=settings["result_version"],
                git_commit=versions()["git_commit"],
            ),
            "remit.model": name.finetuned,
            "remit.pretrained_sha256": pretrained["fingerprint"],
        },
        log,
        {"name": name.finetuned, **name.parts, **settings, "pretraining": pretrained["settings"]},
    )
    tracker.link("remit.pretraining_run_id", "remit.checkpoint_sha256", pretrained["fingerprint"])
    tracker.link(
        "remit.dataset_run_id", "remit.primary_content_sha256", str(metadata["content_sha256"])
    )
    tracker.dataset(
        dataset.path, metadata, "fine-tuning", {"remit.cohort": str(metadata["cohort"])}
    )
    return tracker


def _log_result(
    tracker: Tracker,
    name: ModelName,
    encoder: Encoder,
    head: ClassifierHead,
    payload: dict[str, Any],
    dataset: WindowsFile,
    settings: FinetuneSettings,
    files: list[Path],
) -> None:
    """Copy the result to MLflow: figures, files, and the model as an exported program."""
    if not tracker.active:
        tracker.finish()
        return
    results = payload["metrics"]
    numbers: dict[str, float | int | None] = {}
    for which, prefix in (("val", "best_val"), ("test", "test")):
        numbers[f"{prefix}_n"] = results[which]["n"]
        for key in FIGURES:
            figure = results[which][key]
            numbers[f"{prefix}_{key}"] = figure["value"]
            numbers[f"{prefix}_{key}_low"] = figure["low"]
            numbers[f"{prefix}_{key}_high"] = figure["high"]
    tracker.metrics(numbers, int(payload["best_epoch"]))
    tracker.tags({"remit.checkpoint_sha256": checkpoint.fingerprint(payload["state_dict"])})
    tracker.artifacts(files)
    use_backend(encoder, "torch", torch.device("cpu"))  # an exported program is for any machine
    tracker.register(
        ParticipantProbabilities(
            ParticipantClassifier(
                encoder.cpu(), head.cpu(), context_windows=settings.sequences.context_windows
            )
        ).eval(),
        _example(dataset, payload["data"]["participants"]["train"][0]),
        name.finetuned,
        {
            "simulated": payload["data"]["simulated"],
            "channels": payload["channels"],
            "signal": payload["data"]["signal"],
            "input": "float32 microvolt [windows, channels, samples] of one recording, in time order, "
            "after the signal chain in `signal`, good windows only",
            "output": "probabilities [1, 2] of class 0 and class 1 (remission)",
        },
        {
            "simulated": str(payload["data"]["simulated"]).lower(),
            "content_sha256": str(payload["data"]["content_sha256"]),
            "pretrained_sha256": payload["pretrained"]["fingerprint"],
        },
    )
    tracker.finish()


def _example(dataset: WindowsFile, participant: str) -> np.ndarray:
    """Some windows of one participant [W, C, L], as an example of the model's input."""
    signal_WCL: np.ndarray = dataset.signal_WCS([participant])[:4]
    if len(signal_WCL) < 2:
        signal_WCL = np.repeat(signal_WCL, 2, axis=0)
    return np.ascontiguousarray(signal_WCL, dtype=np.float32)
