"""A small convolutional network trained from scratch in every fold: what EEG gives without a backbone.

EEGNet (Lawhern et al. 2018, doi:10.1088/1741-2552/aace8c) as braindecode has it, an optional extra. It
sees the same good windows as the model, scaled in the same way (per recording and channel, without
labels), and is trained as `trained` says. No test participant is looked at before the last step.

Shapes: P participants with a label, sorted; N windows; C channels; S samples; R rows of a recording; T, H
the participants who fit and who are held out; B windows of a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy.signal import resample_poly
from torch import nn
from torch.nn import functional as F

from remit.dataset.windows import WindowsFile
from remit.errors import RemitError, some_of
from remit.evaluation.candidates import Kind
from remit.evaluation.crossfit import CrossFit
from remit.evaluation.folds import Folds
from remit.evaluation.trained import COSTS, Fold, train_in_folds
from remit.nn.scaling import robust_scale
from remit.training.runtime import seed_all

RESULT_VERSION = 2  # raise when a change here alters a prediction

NUM_CLASSES = 2
STEPS = 300
BATCH = 32
LEARNING_RATE = (
    1e-3  # Adam's, as in the paper; annealed to 0, so that the last step is the one to keep
)
# EEGNet's sizes are in samples at this rate; what is faster is thinned to it, or the next one above.
RATE_HZ = 128.0
FEWEST_SAMPLES = 32  # it averages over 4 and then 8 of them

# What a random draw is for; part of its seed.
_WEIGHTS, _WINDOWS = 40, 41

Build = Callable[[int, int, float], nn.Module]
"""Makes a network from channels, samples of a window and Hz: [B, C, S] to logits [B, 2]"""


def eegnet() -> Build:
    """How to build EEGNet; raises :class:`RemitError` in one line when braindecode is not installed."""
    try:
        from braindecode.models import EEGNetv4
    except (ImportError, OSError) as error:  # OSError: a compiled part that does not load
        raise RemitError(
            f"evaluation.convolutional is true; found no braindecode below 1 that works here "
            f"({str(error).splitlines()[0]}); expected the extra 'convolutional'; "
            "pip install '.[convolutional]', or set it to false."
        ) from None

    def build(channels: int, samples: int, sampling_rate: float) -> nn.Module:
        network: nn.Module = EEGNetv4(
            n_chans=channels,
            n_outputs=NUM_CLASSES,
            n_times=samples,
            kernel_length=max(1, round(sampling_rate / 2)),  # half a second, as in the paper
        )
        return network

    return build


@dataclass(frozen=True)
class _Windows:
    """The good windows of the participants, one participant after another."""

    signal_NCS: torch.Tensor
    start_P: np.ndarray
    """Where each participant's windows begin; P + 1 of them"""
    sampling_rate: float
    """Hz, after thinning"""


class Convolutional:
    """The candidate; it is fitted by its own training and not by the head of the tables.

    Args:
        dataset: whose windows are read, into memory.
        build: makes the network; EEGNet if None.

    Raises:
        RemitError: when braindecode is not installed, or windows are too short.
    """

    name = "convolutional network from scratch"
    kind: Kind = "baseline"
    columns = None
    notes: ClassVar[tuple[str, ...]] = (
        f"EEGNet (braindecode), windows thinned towards {RATE_HZ:g} Hz, {STEPS} steps of {BATCH} windows, "
        "every participant drawn as often, classes not weighted",
        *COSTS,
    )

    def __init__(self, dataset: WindowsFile, build: Build | None = None) -> None:
        self.dataset = dataset
        self.build = build or eegnet()
        samples = dataset.metadata["window_samples"] // _thinning(dataset)
        if build is None and samples < FEWEST_SAMPLES:
            raise RemitError(
                f"{dataset.path}: windows of {samples} samples for evaluation.convolutional; expected at "
                f"least {FEWEST_SAMPLES}; set it to false, or make longer windows."
            )

    def crossfit(self, folds: Folds, *, seed: int, log: Callable[[str], None]) -> CrossFit:
        """Predict each participant in each repeat of ``folds`` by a network trained without their fold.

        A participant's probability is the mean over their windows. The same bits on any CPU thread
        count: it uses one. Raises :class:`RemitError` for a participant without a good window, and
        when a prediction is no number.
        """
        windows = _windows(self.dataset, folds.names)
        place = {name: number for number, name in enumerate(folds.names)}

        def train(fold: Fold) -> np.ndarray:
            fit, held_out = (
                np.array([place[name] for name in part]) for part in (fold.fit, fold.held_out)
            )
            network = self._train(windows, fit, fold.label_T, (seed, fold.repeat, fold.fold))
            return _predict(network, windows, held_out, fold.shift())

        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # how many threads add up must not change a sum
        try:
            return train_in_folds(self.name, folds, train, log)
        finally:
            torch.set_num_threads(threads)

    def _train(
        self, windows: _Windows, fit: np.ndarray, label_T: np.ndarray, key: tuple[int, int, int]
    ) -> nn.Module:
        """A network trained on the windows of ``fit``, whose labels are the only ones here."""
        seed, repeat, fold = key
        seed_all(seed, _WEIGHTS, repeat, fold)  # and dropout
        rng = np.random.default_rng([seed, _WINDOWS, repeat, fold])
        _, channels, samples = windows.signal_NCS.shape
        network = self.build(channels, samples, windows.sampling_rate).train()
        optimiser = torch.optim.Adam(network.parameters(), LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
        count_T = np.diff(windows.start_P)[fit]
        for _ in range(STEPS):
            # Participants first, for a long recording is not more people.
            person_B = rng.integers(len(fit), size=BATCH)
            place_B = np.floor(rng.random(BATCH) * count_T[person_B]).astype(np.int64)
            row_B = torch.from_numpy(windows.start_P[fit[person_B]] + place_B)
            loss = F.cross_entropy(
                network(windows.signal_NCS[row_B]), torch.from_numpy(label_T[person_B])
            )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
        return network.eval()


def _predict(
    network: nn.Module, windows: _Windows, held_out: np.ndarray, shift: float
) -> np.ndarray:
    """The probability of class 1 of each participant [H], the mean over their windows.

    ``shift`` is added to each window's logit of class 1.
    """
    found = []
    with torch.inference_mode():
        for person in held_out:
            its_NCS = windows.signal_NCS[windows.start_P[person] : windows.start_P[person + 1]]
            logit_N2 = torch.cat([network(some_BCS) for some_BCS in its_NCS.split(BATCH)]).double()
            found.append(float(torch.sigmoid(logit_N2[:, 1] - logit_N2[:, 0] + shift).mean()))
    return np.array(found)


def _windows(dataset: WindowsFile, names: tuple[str, ...]) -> _Windows:
    """The good windows of ``names``, in their order, scaled as the model's, then thinned."""
    dataset.check_there(names)
    frame = dataset.frame()
    place = {name: number for number, name in enumerate(names)}
    use_W = frame["good"].to_numpy(dtype=bool) & frame["Participant"].isin(place).to_numpy()
    row_N = np.flatnonzero(use_W)
    frame = frame.iloc[row_N]
    owner_N = frame["Participant"].map(place).to_numpy(dtype=np.int64)
    count_P = np.bincount(owner_N, minlength=len(names))
    if not count_P.all():
        raise RemitError(
            f"{dataset.path}: participant {some_of([names[i] for i in np.flatnonzero(count_P == 0)])} has "
            "no window of good quality; expected at least one; look at the recording, or remove the label."
        )
    signal_NCS = torch.empty(len(row_N), len(dataset.channels), dataset.metadata["window_samples"])
    dataset.read_into(signal_NCS.numpy(), row_N)
    for its in frame.groupby(["Participant", "recording"], sort=False).indices.values():
        row_R = torch.from_numpy(np.asarray(its))
        signal_NCS[row_R] = robust_scale(signal_NCS[row_R])
    order_N, every = np.argsort(owner_N, kind="stable"), _thinning(dataset)
    thinned_NCS = signal_NCS.numpy()[order_N]
    if every > 1:  # with a low-pass, for the chain's may lie above half of the new rate
        thinned_NCS = np.ascontiguousarray(resample_poly(thinned_NCS, 1, every, axis=2))
    start_P = np.concatenate([[0], np.cumsum(count_P)])
    return _Windows(torch.from_numpy(thinned_NCS), start_P, dataset.sampling_rate / every)


def _thinning(dataset: WindowsFile) -> int:
    """One of how many samples is kept: the most that leave :data:`RATE_HZ`."""
    return max(1, int(dataset.sampling_rate // RATE_HZ))
