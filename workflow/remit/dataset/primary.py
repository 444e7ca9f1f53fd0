"""The primary dataset: the windows of all recordings of a cohort in one sorted, verified file.

Signal is held of one row group at a time, so memory does not grow with the number of recordings but
for some kilobytes of each: who, where, hashes, sketch. The input files may come in any order; the
result is the same, byte for byte.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import remit
from remit.dataset import windows
from remit.dataset.sketches import shared_by_two
from remit.dataset.windows import ParquetWriter, WindowsFile, open_dataset
from remit.errors import RemitError, some_of
from remit.files import atomic_write
from remit.naming import dataset_name

# Raise when a change of the code alters the primary dataset.
RESULT_VERSION = 2

# What all recordings of a dataset must have in common.
_COMMON = (
    "sampling_rate",
    "units",
    "window_samples",
    "cohort",
    "simulated",
    "settings",
    "result_version",
)


@dataclass(frozen=True, slots=True)
class _Counted:
    """What the summary says of a recording."""

    participant: str
    recording: str
    label: int | None
    num_windows: int
    num_bad: int
    dropped_seconds: float


@dataclass(frozen=True, slots=True)
class _Input(_Counted):
    """What is kept of a verified recording file until its rows are written: a few kilobytes."""

    path: Path
    common: Mapping[str, Any]
    """Channels and what else all recordings share; one object for all that agree"""
    source: str
    """JSON"""
    content_sha256: str
    sketch: np.ndarray


def build_primary(
    files: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    cohort: str,
    channels: Sequence[str],
) -> dict[str, Any]:
    """Join the windows files of a cohort's recordings into ``out``; returns a summary.

    The summary counts participants, recordings, windows, bad windows, participants and windows per
    label, the seconds that filled no window, and gives the content's SHA-256. Raises
    :class:`RemitError` naming the file for whatever :func:`remit.dataset.windows.open_dataset`
    refuses, for files that differ in channels, rate, window length, settings or cohort, for a
    recording given twice and for a participant with two labels. Atomic.
    """
    if not files:
        raise RemitError(
            f"{out}: there are no windows files to join; expected at least one recording; check "
            "the cohort sheet."
        )
    kinds: dict[str, dict[str, Any]] = {}
    inputs = sorted((_inspect(Path(file), kinds) for file in files), key=_place)
    _check_together(inputs, cohort, list(channels))
    first = inputs[0].common
    metadata = dict(first) | {
        "dataset": dataset_name(first["window_samples"] / first["sampling_rate"], channels),
        "windows": sum(item.num_windows for item in inputs),
        "sources": {item.recording: json.loads(item.source) for item in inputs},
        "content_sha256": windows.combined_hash(
            {(item.participant, item.recording): item.content_sha256 for item in inputs}
        ),
        "remit_version": remit.__version__,
        "result_version": first["result_version"] | {"primary": RESULT_VERSION},
    }
    schema = windows.schema(channels, first["window_samples"])
    schema = schema.with_metadata(windows.encode_metadata(metadata))
    del metadata["sources"]  # now bytes in the schema
    sketches = {item.recording: item.sketch for item in inputs}
    with (
        atomic_write(out) as temporary,
        ParquetWriter(temporary, schema, channels, sketches) as writer,
    ):
        grouping = _Grouping(
            writer, schema, windows.rows_per_group(channels, first["window_samples"])
        )
        for item in inputs:
            for table in windows.row_groups(item.path):
                grouping.add(item.participant, table)
        grouping.close()
    return _summary(inputs, metadata)


def verify(file: str | os.PathLike[str]) -> dict[str, Any]:
    """Re-read a primary dataset and check all of it; returns the summary of :func:`build_primary`.

    Beyond :func:`remit.dataset.windows.open_dataset`: the sources in the metadata are the
    recordings that are there, with the contents they were joined with.
    """
    dataset = open_dataset(file)
    sources = dataset.metadata["sources"]
    dataset.sketches()
    stored = {
        (source["participant"], name): source["content_sha256"] for name, source in sources.items()
    }
    if stored != dataset.content_sha256:
        differing = sorted(
            "/".join(key)
            for key in stored.keys() | dataset.content_sha256.keys()
            if stored.get(key) != dataset.content_sha256.get(key)
        )
        raise RemitError(
            f"{dataset.path}: the windows of {some_of(differing)} are not those that the metadata "
            "names; expected the recordings as they were joined; make the file again."
        )
    counted = []
    for (participant, recording), rows in dataset.frame().groupby(["Participant", "recording"]):
        counted.append(
            _Counted(
                str(participant),
                str(recording),
                dataset.labels[str(participant)],
                len(rows),
                int((~rows["good"]).sum()),
                sources[str(recording)]["dropped_seconds"],
            )
        )
    return _summary(counted, dataset.metadata)


def _inspect(path: Path, kinds: dict[str, dict[str, Any]]) -> _Input:
    dataset: WindowsFile = open_dataset(path)
    keys = list(dataset.content_sha256)
    if len(keys) != 1:
        raise RemitError(
            f"{path}: holds {len(keys)} recordings; expected one recording per windows file; give "
            "the files under results/windows/."
        )
    participant, recording = keys[0]
    good = dataset.frame()["good"]
    common = {key: dataset.metadata[key] for key in ("channels", *_COMMON)}
    source = dataset.metadata["sources"][recording]
    return _Input(
        participant,
        recording,
        dataset.labels[participant],
        len(dataset),
        int((~good).sum()),
        source["dropped_seconds"],
        path,
        kinds.setdefault(json.dumps(common, sort_keys=True), common),
        json.dumps(source),
        dataset.content_sha256[keys[0]],
        dataset.sketches()[recording],
    )


def _place(item: _Input) -> tuple[str, str]:
    return item.participant, item.recording


def _check_together(inputs: Sequence[_Input], cohort: str, channels: list[str]) -> None:
    first = inputs[0]
    seen: dict[str, _Input] = {}
    labels: dict[str, _Input] = {}
    copies: dict[tuple[str, str], _Input] = {}
    for item in inputs:
        if item.common["cohort"] != cohort:
            raise RemitError(
                f"{item.path}: belongs to cohort {item.common['cohort']}; expected {cohort}; "
                "join recordings of one cohort only."
            )
        found = item.common["channels"]
        if found != channels:
            missing = [channel for channel in channels if channel not in found]
            what = f"lacks channel {some_of(missing)}; it has" if missing else "has the channels"
            raise RemitError(
                f"{item.path}: {what} {some_of(found, 40)}; expected {some_of(channels, 40)} in "
                "this order; make the windows again with these channels."
            )
        if item.common["simulated"] != first.common["simulated"]:
            raise RemitError(
                f"{item.path} and {first.path}: one is simulated and the other is not; expected a cohort "
                "of one kind; take the simulated recordings out of the cohort sheet."
            )
        for key in _COMMON:
            one, other = _first_difference(key, first.common[key], item.common[key])
            if one != other:
                raise RemitError(
                    f"{item.path}: {one[0]} is {other[1]!r}; expected {one[1]!r} as in "
                    f"{first.path}; make the windows of both with the same settings."
                )
        if item.recording in seen:
            raise RemitError(
                f"recording {item.recording} is given twice, in {seen[item.recording].path} "
                f"(participant {seen[item.recording].participant}) and {item.path} (participant "
                f"{item.participant}); expected each once; correct the cohort sheet."
            )
        seen[item.recording] = item
        source = json.loads(item.source)
        for kind in ("signal_sha256", "samples_sha256"):
            twin = copies.setdefault((kind, source[kind]), item)
            if twin is not item:
                raise RemitError(
                    f"recordings {twin.recording} (participant {twin.participant}) and "
                    f"{item.recording} (participant {item.participant}) hold the same signal; "
                    "expected each recording once, as a copy would stand on both sides of a split; "
                    "remove one from the cohort sheet."
                )
        known = labels.setdefault(item.participant, item)
        if known.label != item.label:
            raise windows.two_labels(
                item.participant, known.label, item.label, f"{known.path} and {item.path}"
            )
    pair = shared_by_two([item.sketch for item in inputs], [item.participant for item in inputs])
    if pair is not None:
        whole, piece = (inputs[place] for place in pair)
        raise RemitError(
            f"recordings {whole.recording} (participant {whole.participant}) and {piece.recording} "
            f"(participant {piece.participant}) share a part of their signal; expected that of each "
            "participant by itself, as a part would stand on both sides of a split; remove one from "
            "the cohort sheet."
        )


def _first_difference(key: str, one: Any, other: Any) -> tuple[tuple[str, Any], tuple[str, Any]]:
    """The innermost setting in which two values differ, with its name, on either side."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for inner in sorted(one.keys() | other.keys()):
            if one.get(inner) != other.get(inner):
                return _first_difference(f"{key}.{inner}", one.get(inner), other.get(inner))
    return (key, one), (key, other)


class _Grouping:
    """Collects rows into row groups that hold whole participants wherever one fits."""

    def __init__(self, writer: ParquetWriter, schema: pa.Schema, most_rows: int) -> None:
        self._writer, self._schema, self._most = writer, schema, most_rows
        self._complete: list[pa.Table] = []  # whole participants, not yet written
        self._current: list[pa.Table] = []  # the participant being read
        self._participant: str | None = None

    def add(self, participant: str, table: pa.Table) -> None:
        if participant != self._participant:
            self._end_participant()
            self._participant = participant
        self._current.append(table.cast(self._schema))
        if _rows(self._current) > self._most:  # a participant larger than a row group has its own
            self._write(self._complete)
            self._complete = []
            joined = pa.concat_tables(self._current)
            whole = (joined.num_rows - 1) // self._most * self._most
            for first in range(0, whole, self._most):
                self._write([joined.slice(first, self._most)])
            self._current = [joined.slice(whole)]

    def close(self) -> None:
        self._end_participant()
        self._write(self._complete)

    def _end_participant(self) -> None:
        if _rows(self._complete) + _rows(self._current) > self._most:
            self._write(self._complete)
            self._complete = []
        self._complete += self._current
        self._current = []

    def _write(self, tables: list[pa.Table]) -> None:
        if _rows(tables):
            self._writer.write(pa.concat_tables(tables))


def _rows(tables: Iterable[pa.Table]) -> int:
    return sum(table.num_rows for table in tables)


def _label_text(label: int | None) -> str:
    return "unknown" if label is None else str(label)


def _summary(inputs: Sequence[_Counted], metadata: Mapping[str, Any]) -> dict[str, Any]:
    labels = {item.participant: item.label for item in inputs}
    per_label = Counter(_label_text(label) for label in labels.values())
    window_labels: Counter[str] = Counter()
    for item in inputs:
        window_labels[_label_text(item.label)] += item.num_windows
    texts = ("0", "1", "unknown")
    return {
        "cohort": metadata["cohort"],
        "simulated": metadata["simulated"],
        "channels": list(metadata["channels"]),
        "sampling_rate": metadata["sampling_rate"],
        "window_samples": metadata["window_samples"],
        "participants": len(labels),
        "recordings": len(inputs),
        "windows": sum(item.num_windows for item in inputs),
        "bad_windows": sum(item.num_bad for item in inputs),
        "participants_per_label": {text: per_label[text] for text in texts},
        "windows_per_label": {text: window_labels[text] for text in texts},
        "dropped_seconds": sum(item.dropped_seconds for item in inputs),
        "content_sha256": metadata["content_sha256"],
    }
