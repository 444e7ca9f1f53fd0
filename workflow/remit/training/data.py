"""What both trainings share: reading a dataset's sequences and building the encoder for them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from remit.dataset import sketches
from remit.dataset.splits import ParticipantSplit, read_split
from remit.dataset.windows import WindowsFile
from remit.errors import RemitError
from remit.nn.encoder import Encoder, EncoderSettings, electrode_encoding
from remit.recordings.channels import electrode_positions
from remit.training.checkpoint import check_equal

# What of a dataset's metadata a model depends on, and a checkpoint therefore repeats.
_SIGNAL_KEYS = ("sampling_rate", "channels", "window_samples", "units")
# A recording's hashes of its signal, filtered and before.
_SIGNAL_HASHES = ("signal_sha256", "samples_sha256")


def signal_of(dataset: WindowsFile) -> dict[str, Any]:
    """The properties of a dataset's signal that a model is made for."""
    chain = dataset.metadata["settings"].get("preprocessing", {})
    return {key: dataset.metadata[key] for key in _SIGNAL_KEYS} | {"preprocessing": chain}


def encoder_settings(
    model: Mapping[str, Any], samples_per_token: int, sampling_rate: float
) -> EncoderSettings:
    """The encoder's settings from those of a rule; raises :class:`RemitError`."""
    model = dict(model)
    highest_hz = min(model.pop("token_spectrum_hz", 0.0), sampling_rate / 2)
    # The tolerance keeps a frequency that sits on the edge, whatever the rounding.
    bins = math.floor(highest_hz * samples_per_token / sampling_rate + 1e-9)
    inner = int(model["expand"]) * int(model["d_model"])
    if inner % int(model["headdim"]):
        raise RemitError(
            f"model.headdim is {model['headdim']}; expected a divisor of expand * d_model = {inner}; "
            "change model.headdim or d_model."
        )
    return EncoderSettings(samples_per_token=samples_per_token, spectrum_bins=bins, **model)


def saved_encoder_settings(values: Mapping[str, Any], file: Path) -> EncoderSettings:
    """A checkpoint's settings; what an older one does not name has its default."""
    try:
        return EncoderSettings.from_dict(values)
    except ValueError as error:
        raise RemitError(
            f"{file}: {error}; expected the encoder settings of this version; rebuild the checkpoint."
        ) from None


def build_encoder(
    settings: EncoderSettings, channels: Sequence[str]
) -> tuple[Encoder, torch.Tensor]:
    """A new encoder for these electrodes, and their positions [C, 3] in metres."""
    positions_C3 = _positions(channels)
    return Encoder(settings, positions_C3), positions_C3


def random_twin(encoder: Encoder, channels: Sequence[str]) -> Encoder:
    """The same encoder with weights that are drawn anew: what has learned nothing.

    What describes the data, the statistics of its tokens' spectra, stays.
    """
    twin, _ = build_encoder(encoder.settings, channels)
    if twin.spectrum is not None and encoder.spectrum is not None:
        twin.spectrum.load_state_dict(encoder.spectrum.state_dict())
    return twin


def montage_encoding(channels: Sequence[str], d_model: int) -> torch.Tensor:
    """The encoding of other electrodes than a model's own, [C, D]."""
    return electrode_encoding(_positions(channels), d_model)


def _positions(channels: Sequence[str]) -> torch.Tensor:
    return torch.from_numpy(electrode_positions(channels).astype(np.float32))


def files_of(dataset: WindowsFile, participants: Iterable[str]) -> dict[str, str]:
    """The recordings of some participants by the SHA-256 of their source file.

    Finds a recording again whatever channels were chosen of it. A file that holds recordings of
    several participants of the dataset is left out: it says nothing about any of them.
    """
    sources = dataset.metadata["sources"]
    owners: dict[str, set[str]] = {}
    for source in sources.values():
        owners.setdefault(source["sha256"], set()).add(source["participant"])
    chosen = set(participants)
    return {
        source["sha256"]: recording
        for recording, source in sources.items()
        if source["sha256"]
        and len(owners[source["sha256"]]) == 1
        and source["participant"] in chosen
    }


def signals_of(dataset: WindowsFile, participants: Iterable[str]) -> dict[str, str]:
    """The recordings of some participants by the SHA-256 of their signal, filtered and before.

    The same recording with the same channels has the same hash under another name, in another cohort,
    in another file.
    """
    chosen = set(participants)
    return {
        str(source[kind]): recording
        for recording, source in dataset.metadata["sources"].items()
        for kind in _SIGNAL_HASHES
        if source["participant"] in chosen
    }


def sketches_of(dataset: WindowsFile, participants: Iterable[str]) -> dict[str, np.ndarray]:
    """The sketches of some participants' recordings, by the recording's name."""
    chosen = set(participants)
    sources = dataset.metadata["sources"]
    return {
        recording: values
        for recording, values in dataset.sketches().items()
        if sources[recording]["participant"] in chosen
    }


def seen_again(
    dataset: WindowsFile, other: WindowsFile, participants: Iterable[str]
) -> dict[str, str]:
    """The recordings of a dataset that hold signal of ``participants`` of the other: theirs by name."""
    chosen = set(participants)
    known = signals_of(other, chosen) | files_of(other, chosen)
    return _found_again(dataset, known, sketches.Holders(sketches_of(other, chosen)))


def _found_again(
    dataset: WindowsFile, known: Mapping[str, str], holders: sketches.Holders
) -> dict[str, str]:
    """The recordings of a dataset whose signal, file or sketch is known: what these stand for there."""
    files = files_of(dataset, dataset.participants)
    found = {recording: known[key] for key, recording in files.items() if key in known}
    own = dataset.sketches()
    for recording, source in dataset.metadata["sources"].items():
        for key in _SIGNAL_HASHES:
            if source[key] in known:
                found[recording] = known[source[key]]
        if theirs := holders.of(own[recording]):
            found.setdefault(recording, theirs)
    return found


def split_of(dataset: WindowsFile, file: Path) -> ParticipantSplit:
    """The split of a dataset; raises :class:`RemitError` when it was made from another one."""
    split = read_split(file)
    split.check_against(dataset.participants)
    check_equal(
        file,
        "content_sha256",
        split.content_sha256,
        dataset.metadata["content_sha256"],
        "the dataset",
    )
    return split


def seen_in_pretraining(
    content: dict[str, Any], dataset: WindowsFile, people: Sequence[str]
) -> list[str]:
    """Participants whom the backbone has seen, by what its checkpoint says.

    By name in their cohort, and by the hash of their recordings' signal or source file or by their
    sketches, which finds a person who had another name or stood in another cohort. A backbone that hides
    what it saw is not found out.
    """
    names = {name for part in content["data"]["participants_seen"].values() for name in part}
    data = content["data"]
    seen = dict.fromkeys([*data["signals_seen"], *data.get("files_seen", ())], "pretraining")
    holders = sketches.Holders({"pretraining": sketches.decode(data.get("sketches_seen", ""))})
    sources = dataset.metadata["sources"]
    known = {sources[found]["participant"] for found in _found_again(dataset, seen, holders)}
    cohort = dataset.metadata["cohort"]
    return [name for name in people if f"{cohort}/{name}" in names or name in known]
