"""Checkpoint files: tensors and plain values, written whole, loaded strictly, checked by value.

A checkpoint is one .pt file that loads with ``weights_only=True``. It names its kind, its model, the
settings that made it, the data and the participants it has seen. Loading one that does not fit the
name or the configuration is an error that says which value differs.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import pickle
import struct
import sys
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self
from zipfile import BadZipFile

import torch
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from remit.dataset import sketches
from remit.errors import RemitError
from remit.files import atomic_write, write_json

FORMAT = "remit-checkpoint"
FORMAT_VERSION = 1
_DIGEST = "sha256"  # the key under which a checkpoint keeps the digest of all else in it
# What a use of a backbone depends on; the rest says how it came about.
_USED = (
    "name",
    "encoder",
    "channels",
    "positions",
    "settings",
    "data",
    "state_dict",
    "decoder_state_dict",
)
Kind = Literal["pretrained", "finetuned"]

# What reading a damaged or foreign file raises.
UNREADABLE = (
    RuntimeError,
    EOFError,
    OSError,
    BadZipFile,
    pickle.UnpicklingError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
    AssertionError,
    OverflowError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
)


class _Part(BaseModel):
    """A part of a checkpoint; further keys may stand beside those that are needed."""

    model_config = ConfigDict(extra="allow", arbitrary_types_allowed=True, strict=True)


class _Data(_Part):
    dataset: str
    cohort: str
    simulated: bool
    content_sha256: str
    signal: dict[str, Any]


class _PretrainedData(_Data):
    transductive: bool
    participants_seen: dict[Literal["training", "early_stopping"], list[str]]
    signals_seen: list[str]
    sketches_seen: str = ""

    @field_validator("sketches_seen")
    @classmethod
    def _can_be_read(cls, text: str) -> str:
        sketches.decode(text)
        return text


class _Checkpoint(_Part):
    """What every checkpoint holds."""

    name: str
    encoder: dict[str, int | bool | str]
    channels: list[str]
    positions: torch.Tensor
    settings: dict[str, Any]
    data: _Data
    versions: dict[str, str]
    history: list[dict[str, float | int | None]]
    best_epoch: int
    state_dict: dict[str, torch.Tensor]

    @model_validator(mode="after")
    def _best_epoch_is_there(self) -> Self:
        if not 1 <= self.best_epoch <= len(self.history):
            raise ValueError(f"best_epoch is {self.best_epoch} of {len(self.history)} epochs")
        return self


class _Pretrained(_Checkpoint):
    data: _PretrainedData


_MODELS: dict[str, type[_Checkpoint]] = {"pretrained": _Pretrained, "finetuned": _Checkpoint}


def write_tensors(file: Path, content: Mapping[str, Any]) -> None:
    """``torch.save`` through memory: a full disk is then an OSError that says so.

    Equal contents give the same bytes, also where a part of one was read from a state.
    """
    buffer = io.BytesIO()
    torch.save(_once(dict(content)), buffer)
    file.write_bytes(buffer.getbuffer())


def _once(value: Any) -> Any:
    """The same value, in which equal texts are one object and no other value stands twice: of what it has
    met before, a pickle writes where that was."""
    if type(value) is dict:  # a module's own has more to it than its items
        return {_once(key): _once(each) for key, each in value.items()}
    if type(value) is list:
        return [_once(each) for each in value]
    return sys.intern(value) if type(value) is str else value


def save(file: Path, kind: Kind, payload: Mapping[str, Any]) -> None:
    """Write a checkpoint under a temporary name, flush it, rename it."""
    _MODELS[kind].model_validate(dict(payload))
    whole = {"format": FORMAT, "format_version": FORMAT_VERSION, "kind": kind, **payload}
    whole[_DIGEST] = digest(whole)
    # What was written is read back before it gets its name: nobody finds out later.
    with atomic_write(file) as temporary:
        write_tensors(temporary, whole)
        load(temporary, kind)


def save_card(file: Path, kind: Kind, payload: Mapping[str, Any]) -> None:
    """Write everything of a checkpoint but its tensors as a readable .json."""
    plain = {key: value for key, value in payload.items() if key not in ("state_dict", "positions")}
    write_json(file, {"format": FORMAT, "format_version": FORMAT_VERSION, "kind": kind, **plain})


def load(file: Path, kind: Kind) -> dict[str, Any]:
    """Read a checkpoint of this kind onto the CPU; raises :class:`RemitError`.

    What :func:`save` has written is compared with the SHA-256 in it, which PyTorch does not: it takes a
    changed byte of a tensor as it is. A file from elsewhere needs none.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # what a damaged pickle provokes
            content = torch.load(file, map_location="cpu", weights_only=True)
        marked = _DIGEST in content
        written = content.pop(_DIGEST, None)
        changed = marked and written != digest(content)
    except FileNotFoundError:
        raise RemitError(
            f"{file}: not found; expected a {kind} checkpoint; build it with snakemake or check the path."
        ) from None
    except UNREADABLE as error:
        raise RemitError(
            f"{file}: cannot be read as a checkpoint ({type(error).__name__}: it is cut, damaged or "
            f"something else); expected a whole {kind} checkpoint of remit (tensors and plain values "
            "only); replace or rebuild it."
        ) from None
    if changed:
        raise RemitError(
            f"{file}: is damaged, or was changed by hand: its content does not have the SHA-256 that "
            f"stands in it under '{_DIGEST}'; expected it as it was written; copy it again or rebuild it."
        )
    if content.get("format") != FORMAT:
        raise RemitError(
            f"{file}: holds no checkpoint of remit; expected format '{FORMAT}'; use one that "
            "'snakemake results/pretrained/…' has made."
        )
    if content.get("format_version") != FORMAT_VERSION or content.get("kind") != kind:
        raise RemitError(
            f"{file}: is a {content.get('kind')} checkpoint of format version "
            f"{content.get('format_version')}; expected {kind}, version {FORMAT_VERSION}; use another file."
        )
    try:
        _MODELS[kind].model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "checkpoint"
        raise RemitError(
            f"{file}: {place}: {first['msg']}; expected a whole {kind} checkpoint; rebuild it."
        ) from None
    for name, value in content["state_dict"].items():
        if not value.isfinite().all():
            raise RemitError(
                f"{file}: the weights {name} hold NaN or infinity; expected numbers; train it again."
            )
    return dict(content)


def check_equal(file: Path, what: str, found: Any, expected: Any, origin: str) -> None:
    """Raise :class:`RemitError` naming the first value in which a checkpoint differs.

    ``origin`` says where the expected value comes from: the file's name, the configuration, the data.
    """
    if isinstance(found, Mapping) and isinstance(expected, Mapping):
        for key in sorted(set(found) | set(expected)):
            check_equal(
                file,
                f"{what}.{key}",
                found.get(key, "nothing"),
                expected.get(key, "nothing"),
                origin,
            )
        return
    if found != expected:
        raise RemitError(
            f"{file}: {what} is {found}; expected {expected} by {origin}; use a "
            "file that fits, or change the setting."
        )


def load_weights(module: torch.nn.Module, state: Mapping[str, torch.Tensor], file: Path) -> None:
    """``load_state_dict`` strictly, with a one-line error."""
    try:
        module.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:300]
        raise RemitError(
            f"{file}: its tensors do not fit the model ({detail}); expected exactly the model's; "
            "rebuild the checkpoint."
        ) from None


def fingerprint(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over the names, types, shapes and bytes of a state's tensors, in order of name."""
    found = hashlib.sha256()
    for key in sorted(state):
        tensor = state[key].detach().cpu().contiguous()
        found.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.numpy().tobytes())
    return found.hexdigest()


def digest(content: Mapping[str, Any]) -> str:
    """SHA-256 over nested plain values and tensors, whatever the order of their keys."""

    def of_tensor(value: Any) -> str:
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"a {type(value).__name__} is no plain value")
        return fingerprint({"": value})

    return hashlib.sha256(
        json.dumps(content, sort_keys=True, default=of_tensor).encode()
    ).hexdigest()


def backbone_sha256(content: Mapping[str, Any]) -> str:
    """SHA-256 over all of a pretrained checkpoint that anything measured of it can depend on."""
    return digest({key: content.get(key) for key in _USED})
