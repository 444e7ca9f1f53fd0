"""Embeddings: what a backbone makes of every window of a dataset, once, for whatever reads it.

A window's embedding is the mean over its tokens, all channels, as the backbone gives them within the
window's sequence of `context_windows`, as in fine-tuning. Nothing here is fitted and no label is read;
whom the backbone has seen stands in the file, as its checkpoint says.

Shapes: W windows, D model width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from remit import progress
from remit.config import Execution, Sequences
from remit.dataset.sequences import check_usable, index_sequences, load_sequences, unusable
from remit.dataset.windows import INDEX_FIELDS, WindowsFile, encode_metadata, open_dataset
from remit.errors import RemitError, some_of
from remit.files import atomic_write
from remit.naming import ModelName
from remit.nn.encoder import Encoder
from remit.training import checkpoint
from remit.training.data import build_encoder, encoder_settings, seen_in_pretraining, split_of
from remit.training.finetune import BackboneSettings, load_backbone
from remit.training.participants import window_means
from remit.training.runtime import prepare, seed_all, use_backend, versions

RESULT_VERSION = 1  # raise when a change here alters an embedding or what its file says

KEYS = tuple(field for field in INDEX_FIELDS if field[0] != "Remission")
SIGNAL_AT_ONCE = 256e6  # bytes of signal in memory; a participant who has more is held alone

# What a random draw is for; part of its seed.
_RANDOM_WEIGHTS = 30


class EmbedSettings(BackboneSettings):
    """What the rule's command is given."""

    seed: int = 0
    """Of random weights"""
    repeat: int | None = None
    fold: int | None = None


def embed(
    *,
    name: ModelName,
    settings: EmbedSettings,
    backbone: Path | None,
    primary: Path,
    split_file: Path | None,
    output: Path,
    execution: Execution,
    log: Callable[[str], None],
) -> None:
    """Write the embedding of every usable window of a dataset, one row each, in the file's order.

    Args:
        name: the model's, checked against the backbone.
        settings: those of the rule.
        backbone: a pretrained checkpoint; None for the same encoder with random weights.
        primary: the dataset.
        split_file: that of the fold without whose test people the backbone was pretrained, or None.
        output: parquet; its metadata say which backbone, which data, and who was seen.
        execution: device, backend and threads.
        log: takes lines of progress.

    Raises:
        RemitError: when backbone, data, split and settings do not fit together, when a labelled
            participant has no usable window, and when the backbone has seen a test participant of
            the fold.
    """
    device = prepare(execution)
    dataset = open_dataset(primary)
    metadata = dataset.metadata
    labelled = [person for person, label in dataset.labels.items() if label is not None]
    check_usable(dataset, labelled, settings.sequences)
    empty = unusable(dataset, dataset.participants, settings.sequences)
    people = [person for person in dataset.participants if person not in set(empty)]
    encoder, of_backbone = _encoder(name, settings, backbone, dataset, people)
    test = None
    if split_file is not None:
        test = split_of(dataset, split_file).part("test")
        _refuse_seen(test, of_backbone["seen"], backbone)
    encoder.to(device).eval()
    backend = use_backend(encoder, execution.backend, device)
    said = {
        "kind": "embeddings",
        "model": str(name),
        **of_backbone,
        "dataset": metadata["dataset"],
        "content_sha256": metadata["content_sha256"],
        "cohort": metadata["cohort"],
        "simulated": metadata["simulated"],
        "left_out": empty,
        "repeat": settings.repeat,
        "fold": settings.fold,
        "test": test,
        "settings": settings.model_dump(mode="json"),
        "versions": versions(),
        "backend": backend,
        "device": device.type,
    }
    log(
        f"embed {name}: {len(people)} participants, {'random weights' if backbone is None else backbone}; "
        f"{len(said['seen'])} of them seen in pretraining; device {device}, backend {backend}"
        + ("; SIMULATED data" if said["simulated"] else "")
        + ("; TRANSDUCTIVE" if said["transductive"] else "")
    )
    if empty:
        log(f"embed {name}: left out, without a good window and a label: {some_of(empty)}")
    rows = 0
    with atomic_write(output) as temporary:
        out = _schema(encoder.settings.d_model).with_metadata(encode_metadata(said))
        with pq.ParquetWriter(temporary, out, compression="zstd", compression_level=3) as writer:
            for table in tables(encoder, dataset, people, settings.sequences, device):
                writer.write_table(table)
                rows += len(table)
    log(f"embed {name}: {rows} windows x {encoder.settings.d_model} -> {output}")


def _encoder(
    name: ModelName,
    settings: EmbedSettings,
    backbone: Path | None,
    dataset: WindowsFile,
    people: Sequence[str],
) -> tuple[Encoder, dict[str, Any]]:
    """The encoder, and what the file says of it; random weights read the spectra of ``people``."""
    if backbone is not None:
        content, encoder, _ = load_backbone(backbone, name, settings, dataset)
        return encoder, {
            "random": False,
            "backbone_sha256": checkpoint.backbone_sha256(content),
            "fingerprint": checkpoint.fingerprint(content["state_dict"]),
            "pretrained_on_simulated": content["data"]["simulated"],
            "transductive": content["data"]["transductive"],
            "seen": sorted(seen_in_pretraining(content, dataset, dataset.participants)),
        }
    samples = round(settings.sequences.token_seconds * dataset.sampling_rate)
    seed_all(settings.seed, _RANDOM_WEIGHTS)
    sizes = encoder_settings(settings.model, samples, dataset.sampling_rate)
    encoder, _ = build_encoder(sizes, dataset.channels)
    if encoder.spectrum is not None:  # statistics of the data, as pretraining would find them
        groups = _groups(dataset, people)
        tokens = (load_sequences(dataset, some, settings.sequences).tokens_NS() for some in groups)
        encoder.spectrum.fit(tokens)
    checkpoint.check_equal(
        dataset.path,
        "the model's size",
        [encoder.settings.d_model, encoder.settings.num_layers],
        [name.d_model, name.num_layers],
        "the name",
    )
    return encoder, {
        "random": True,
        "backbone_sha256": None,
        "fingerprint": checkpoint.fingerprint(encoder.state_dict()),
        "pretrained_on_simulated": False,
        "transductive": False,
        "seen": [],
    }


def _refuse_seen(test: Sequence[str], seen: Sequence[str], backbone: Path | None) -> None:
    both = sorted(set(test) & set(seen))
    if both:
        raise RemitError(
            f"{backbone}: has seen participant {some_of(both)} of the fold's test part; expected a "
            "backbone pretrained without them; remove it, so that it is pretrained with this fold's split."
        )


def tables(
    encoder: Encoder,
    dataset: WindowsFile,
    people: Sequence[str],
    sequences: Sequences,
    device: torch.device,
) -> Iterator[pa.Table]:
    """The rows of participants who have usable windows, as many people at a time as fit into memory."""
    schema = _schema(encoder.settings.d_model)
    groups = list(_groups(dataset, people))
    for some in progress.track(groups, "embedding", "group of participants"):
        yield _table(encoder, dataset, some, sequences, device, schema)


def _groups(dataset: WindowsFile, people: Sequence[str]) -> Iterator[list[str]]:
    """The participants in their order, as many at a time as have SIGNAL_AT_ONCE of signal."""
    counts = dataset.frame()["Participant"].value_counts()
    of_window = 4 * len(dataset.channels) * dataset.metadata["window_samples"]
    group: list[str] = []
    size = 0.0
    for person in people:
        own = int(counts[person]) * of_window
        if group and size + own > SIGNAL_AT_ONCE:
            yield group
            group, size = [], 0.0
        group.append(person)
        size += own
    if group:
        yield group


def _schema(width: int) -> pa.Schema:
    embedding = pa.list_(pa.field("element", pa.float32(), nullable=False), width)
    fields = [*KEYS, ("embedding", embedding)]
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in fields])


def _table(
    encoder: Encoder,
    dataset: WindowsFile,
    people: Sequence[str],
    settings: Sequences,
    device: torch.device,
    schema: pa.Schema,
) -> pa.Table:
    """The rows of some participants."""
    sequences = load_sequences(dataset, people, settings)
    # One sequence at a time on a CPU: the same bits whoever else is embedded.
    means_WD = window_means(encoder, sequences, device, together=device.type != "cpu")
    embedding_WD = means_WD.float().cpu().numpy()
    rows_W = index_sequences(dataset, people, settings).row_W
    frame = dataset.frame().iloc[rows_W]
    columns = {key: pa.array(frame[key].to_numpy(), kind) for key, kind in KEYS}
    flat = pa.array(np.ascontiguousarray(embedding_WD).reshape(-1))
    columns["embedding"] = pa.FixedSizeListArray.from_arrays(
        flat, type=schema.field("embedding").type
    )
    return pa.table(columns, schema=schema)
