"""A pretrained backbone as its checkpoint has it, and the sequences of the people it is judged on.

Shapes: N sequences, K token steps in time, C channels, S samples or frequencies of a token, M masked
tokens, D model width, P participants.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError

from remit.config import Execution, Pretraining, Sequences
from remit.dataset.sequences import TokenSequences, load_sequences
from remit.dataset.windows import WindowsFile
from remit.errors import RemitError
from remit.naming import ModelName
from remit.nn import lanes
from remit.nn.encoder import Encoder
from remit.nn.products import fast
from remit.training import checkpoint
from remit.training.data import (
    build_encoder,
    saved_encoder_settings,
    signal_of,
)
from remit.training.reconstruction import Reconstruction
from remit.training.runtime import prepare, use_backend

TARGETS = ("waveform", "spectrum")
TINY = 1e-12  # divides in the place of an error or a variance of 0

Pair = dict[str, np.ndarray]  # one array for the waveform and one for the log spectrum


@dataclass
class Person:
    """A participant's sequences: tokens of both targets and what they come from."""

    name: str
    samples_NKCS: torch.Tensor
    valid_NK: np.ndarray
    true: Pair
    recording_N: np.ndarray
    samples_N2: np.ndarray  # the first sample of the recording, and the one after the last


class Backbone:
    """The pretrained encoder and reconstruction head, with what the checkpoint says of them."""

    def __init__(self, file: Path, dataset: WindowsFile, execution: Execution) -> None:
        content = checkpoint.load(file, "pretrained")
        if "decoder_state_dict" not in content:
            raise RemitError(
                f"{file}: holds no reconstruction head (decoder_state_dict); expected the checkpoint as "
                "pretraining wrote it; without the head nobody can see what the backbone predicts."
            )
        checkpoint.check_equal(
            file, "signal", content["data"]["signal"], signal_of(dataset), "the primary dataset"
        )
        try:
            self.pretraining = Pretraining.model_validate(content["settings"]["pretraining"])
            self.sequences = Sequences.model_validate(content["settings"]["sequences"])
        except (KeyError, ValidationError) as error:
            reason = " ".join(str(error).split())[:200]
            raise RemitError(
                f"{file}: its settings are not of this version ({reason}); expected those of "
                "pretraining; pretrain again."
            ) from None
        self.file, self.content = file, content
        self.name = ModelName.parse(content["name"])
        self.device = prepare(execution)
        self.encoder, _ = build_encoder(
            saved_encoder_settings(content["encoder"], file), content["channels"]
        )
        checkpoint.load_weights(self.encoder, content["state_dict"], file)
        self.rate = float(dataset.metadata["sampling_rate"])
        self.task = Reconstruction(self.encoder, self.pretraining, self.name, self.rate)
        decoder = content["decoder_state_dict"]
        for module, prefix in ((self.task.head, ""), (self.task.spectrum, "spectrum.")):
            keys = {key: f"{prefix}{key}" for key in module.state_dict()}
            there = {key: decoder[old] for key, old in keys.items() if old in decoder}
            checkpoint.load_weights(module, there, file)
        self.task.to(self.device).eval()
        self.backend = use_backend(self.encoder, execution.backend, self.device)
        weights = (self.pretraining.waveform_weight, self.pretraining.spectrum_weight)
        self.not_finite = 0  # of all numbers predicted so far
        self.targets = [what for what, weight in zip(TARGETS, weights, strict=True) if weight > 0]

    def tokens(
        self,
        samples_NKCS: torch.Tensor,
        valid_NK: np.ndarray,
        masked_NKC: np.ndarray | None = None,
        encoder: Encoder | None = None,
    ) -> torch.Tensor:
        """The encoder's tokens [N, K, C, D], each sequence by itself, so that batches leave no trace."""
        chosen = encoder or self.encoder
        N, K, C = samples_NKCS.shape[:3]
        tokens_NKCD = torch.zeros(N, K, C, chosen.settings.d_model, device=self.device)

        def encode(n: int) -> None:
            steps = int(valid_NK[n].sum())
            masked_1KC = None
            if masked_NKC is not None:
                masked_1KC = torch.from_numpy(masked_NKC[n : n + 1, :steps]).to(self.device)
            tokens_NKCD[n : n + 1, :steps] = chosen(
                samples_NKCS[n : n + 1, :steps].to(self.device), masked_BKC=masked_1KC
            )

        with fast(chosen.embed.weight):  # for all at once: the switch is the whole process's
            lanes.run([partial(encode, n) for n in range(N)], self.device, always=True)
        return tokens_NKCD

    def predict(
        self, samples_NKCS: torch.Tensor, valid_NK: np.ndarray, masked_NKC: np.ndarray
    ) -> Pair:
        """Waveform and log spectrum of every token, of which the masked ones have a meaning."""
        with torch.no_grad():
            pair = self.task.head(self.tokens(samples_NKCS, valid_NK, masked_NKC))
        found = {what: part.cpu().numpy() for what, part in zip(TARGETS, pair, strict=True)}
        for what in self.targets:
            self.not_finite += int((~np.isfinite(found[what][masked_NKC])).sum())
        return found

    def true(self, samples_NKCS: torch.Tensor) -> Pair:
        """What is to be predicted."""
        with torch.no_grad():
            spectrum = self.task.spectrum(samples_NKCS.to(self.device)).cpu()
        return {"waveform": samples_NKCS.numpy(), "spectrum": spectrum.numpy()}


def spread_out(indices: np.ndarray, most: int) -> np.ndarray:
    """At most so many of a participant's sequences, evenly over the time of their recordings."""
    if len(indices) <= most:
        return indices
    chosen: np.ndarray = indices[np.round(np.linspace(0, len(indices) - 1, most)).astype(int)]
    return chosen


def people_of(
    backbone: Backbone, dataset: WindowsFile, names: Sequence[str], most: int
) -> list[Person]:
    """The chosen sequences of some participants, in the order of their names."""
    sequences: TokenSequences = load_sequences(dataset, names, backbone.sequences)
    frame = dataset.frame()
    frame = frame[frame["Participant"].isin(sequences.participants)]
    if not backbone.sequences.use_bad_windows:
        frame = frame[frame["good"]]
    recording_W = np.unique(frame["recording"].to_numpy(str), return_inverse=True)[1]
    start_W, end_W = (frame[key].to_numpy(np.int64) for key in ("window_start", "window_end"))
    people = []
    for number, name in enumerate(sequences.participants):
        chosen = spread_out(sequences.of_participant(number), most)
        samples_NKCS, valid_NK = sequences.batch(chosen, torch.device("cpu"))
        first_N, last_N = sequences.windows_NV[chosen, 0], sequences.windows_NV[chosen].max(1)
        people.append(
            Person(
                name,
                samples_NKCS,
                valid_NK.numpy(),
                backbone.true(samples_NKCS),
                recording_W[first_N],
                np.stack([start_W[first_N], end_W[last_N]], axis=1),
            )
        )
    return people
