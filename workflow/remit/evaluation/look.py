"""A backbone for the person at a prompt: :func:`remit.load`, and what it predicts of hidden signal.

Shapes: T samples of a sequence (K token steps × S samples), C channels, F frequencies of a token's log
spectrum, M hidden tokens of a channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from remit.config import Execution
from remit.dataset.windows import open_dataset
from remit.errors import RemitError
from remit.evaluation.backbone import Backbone, Person, people_of
from remit.evaluation.masked import masks_of


@dataclass(frozen=True)
class Look:
    """One sequence with part of it hidden, and what the backbone says was there.

    ``true_TC`` and ``predicted_TC`` have no unit: of each recording and channel the median is 0 and the
    spread 1. Only where ``masked_TC`` is true is ``predicted_TC`` a prediction; elsewhere it is NaN.
    ``time_T`` is in seconds from the recording's start. The spectra are means over a channel's hidden
    tokens of their log power in dB, 0 dB being that of white noise of unit variance: what was there, what
    the head for the log spectrum says (NaN where the backbone has none), and that of the predicted
    waveform; NaN for a channel of which nothing was hidden.
    """

    participant: str
    channels: tuple[str, ...]
    time_T: np.ndarray
    true_TC: np.ndarray
    masked_TC: np.ndarray
    predicted_TC: np.ndarray
    hz_F: np.ndarray
    true_db_CF: np.ndarray
    spectrum_db_CF: np.ndarray
    waveform_db_CF: np.ndarray

    @property
    def explained(self) -> float:
        """1 - squared error / mean square where it was hidden: 0 is what saying 0 gives."""
        true, predicted = self.true_TC[self.masked_TC], self.predicted_TC[self.masked_TC]
        return float(1 - np.square(true - predicted).sum() / np.square(true).sum())


class Loaded:
    """A pretrained backbone and the primary dataset whose people it looks at.

    ``backbone.encoder`` is the torch module and ``backbone.content`` what the checkpoint says of itself;
    ``participants`` are the dataset's.

    Raises:
        RemitError: if the checkpoint is not there, is damaged or was made for another signal.
    """

    def __init__(self, checkpoint: str | Path, primary: str | Path) -> None:
        self.dataset = open_dataset(primary)
        self.backbone = Backbone(Path(checkpoint), self.dataset, Execution(device="cpu"))
        self.participants = self.dataset.participants

    @property
    def seen(self) -> list[str]:
        """Whom of any cohort pretraining has seen, as cohort/participant."""
        parts = self.backbone.content["data"]["participants_seen"].values()
        return sorted(name for part in parts for name in part)

    def look(self, participant: str, sequence: int = 0, seed: int = 0) -> Look:
        """Hide tokens of one sequence of a participant, as in training, and predict them.

        Args:
            participant: an id of the dataset.
            sequence: which of the participant's sequences, counted from 0 in time order.
            seed: of the mask.

        Raises:
            RemitError: for a participant or a sequence that is not there, or without a waveform target.
        """
        if "waveform" not in self.backbone.targets:
            raise RemitError(
                f"{self.backbone.file}: was pretrained with pretraining.waveform_weight 0; expected a "
                "backbone that predicts the waveform; look at another one."
            )
        [person] = people_of(self.backbone, self.dataset, [participant], most=10**9)
        count = len(person.valid_NK)
        if not 0 <= sequence < count:
            raise RemitError(
                f"participant '{participant}' has {count} sequences; expected a number from 0 to "
                f"{count - 1}, found {sequence}; choose one of them."
            )
        return self._look(person, sequence, seed)

    def looks(self, participants: Sequence[str], most: int, seed: int = 0) -> list[Look]:
        """:meth:`look` at up to ``most`` sequences of each participant, evenly over their recordings."""
        people = people_of(self.backbone, self.dataset, participants, most)
        return [
            self._look(person, n, seed) for person in people for n in range(len(person.valid_NK))
        ]

    def _look(self, person: Person, n: int, seed: int) -> Look:
        steps = int(person.valid_NK[n].sum())
        fraction = self.backbone.task.single_channel_fraction
        masked_KC = masks_of(self.backbone, person, fraction, seed, "look", 0)[n, :steps]
        samples_1KCS, valid_1K = person.samples_NKCS[n : n + 1], person.valid_NK[n : n + 1]
        whole_1KC = np.zeros((1, *person.samples_NKCS.shape[1:3]), dtype=bool)
        whole_1KC[0, :steps] = masked_KC
        both = self.backbone.predict(samples_1KCS, valid_1K, whole_1KC)
        predicted = both["waveform"]

        def along_time(tokens_KCS: np.ndarray) -> np.ndarray:
            return np.moveaxis(tokens_KCS, 1, 2).reshape(-1, tokens_KCS.shape[1])

        tokens_KCS = samples_1KCS[0, :steps].numpy()
        masked_TC = along_time(np.broadcast_to(masked_KC[..., None], tokens_KCS.shape))
        predicted_TC = np.where(masked_TC, along_time(predicted[0, :steps]), np.nan)
        true_TC = along_time(tokens_KCS)
        time_T = (person.samples_N2[n, 0] + np.arange(len(true_TC))) / self.backbone.rate
        channels = tuple(self.dataset.channels)
        spectrum = self.backbone.task.spectrum.cpu()

        def in_db(log_power_KCF: torch.Tensor) -> np.ndarray:
            hidden_KCF = np.where(masked_KC[..., None], log_power_KCF.numpy(), 0).sum(0)
            count_C1 = masked_KC.sum(0)[:, None]
            mean_CF = np.where(count_C1 > 0, hidden_KCF / np.maximum(count_C1, 1), np.nan)
            return np.asarray(10 / np.log(10) * mean_CF)

        with torch.no_grad():
            said_KCF = torch.from_numpy(both["spectrum"][0, :steps]) * spectrum.std_F
            spectra = [
                spectrum.log_power(samples_1KCS[0, :steps]),
                said_KCF + spectrum.mean_F,
                spectrum.log_power(torch.from_numpy(predicted[0, :steps])),
            ]
        true_CF, said_CF, drawn_CF = (in_db(each) for each in spectra)
        if "spectrum" not in self.backbone.targets:
            said_CF[:] = np.nan
        hz_F = spectrum.frequencies_hz_F.numpy()
        return Look(
            person.name,
            channels,
            time_T,
            true_TC,
            masked_TC,
            predicted_TC,
            hz_F,
            true_CF,
            said_CF,
            drawn_CF,
        )
