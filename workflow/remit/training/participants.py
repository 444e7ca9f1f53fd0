"""A participant as one training example: the mean over all tokens, through the head.

With a frozen backbone every participant is embedded once, in batches across participants, and the head
is trained on the stored embeddings, which gives the same numbers as embedding them again in every epoch.
With a backbone that
is trained too, each participant's sequences pass twice, in small groups, so that memory does not grow
with the length of a recording: once for the embedding, once to carry its gradient back (Gao et al.
2021, arXiv 2101.06983). Knows sequences and modules, and no file.

Shapes: N participants, D model width, B sequences, K token steps, C channels, S samples per token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch.nn import functional as F

from remit.dataset.sequences import TokenSequences, length_sorted_batches
from remit.errors import RemitError, some_of
from remit.nn import lanes
from remit.nn.encoder import Encoder, pooled_sum
from remit.nn.heads import ClassifierHead
from remit.nn.products import fast

NUM_CLASSES = 2
SEQUENCES_AT_ONCE = 16  # of one participant, with gradient, at most; bounds memory
# Without gradient, on an accelerator: at d_model 512 one activation of this many tokens takes 256 MB.
TOKENS_AT_ONCE = 65_536


def encode(
    encoder: Encoder,
    sequences: TokenSequences,
    indices_B: np.ndarray,
    device: torch.device,
    use: Callable[[np.ndarray, torch.Tensor, torch.Tensor], None],
    *,
    together: bool,
) -> None:
    """Pass some sequences through the encoder without gradient, in batches; ``use`` is given each one's
    rows of ``indices_B``, tokens_RKCD in float64 and valid_RK.

    ``together``: in batches of nearly equal length (:func:`length_sorted_batches`). What comes out then
    shows its batch by rounding, in float32 by up to 1e-5 of the largest sum. Otherwise each sequence passes
    by itself and has the same bits whatever else is encoded. Batches cannot have that, even of equal
    lengths: the number of rows of a matrix product, and where a row falls between the threads and the
    vectors of an elementwise operation, decide which kernel computes it, and kernels round differently.
    """
    steps_B = sequences.valid_steps_N[indices_B]

    def embed(rows: np.ndarray) -> None:
        with torch.inference_mode():
            samples_RKCS, valid_RK = sequences.batch(indices_B[rows], device, cut=True)
            padded = steps_B[rows].min() < steps_B[rows].max()
            tokens_RKCD = encoder(samples_RKCS, valid_BK=valid_RK if padded else None)
            use(rows, tokens_RKCD.double(), valid_RK)

    if together:
        for rows in length_sorted_batches(steps_B, TOKENS_AT_ONCE // encoder.num_channels):
            embed(rows)
    else:
        jobs = [partial(embed, rows) for rows in length_sorted_batches(steps_B, 0)]
        with fast(encoder.embed.weight):  # for all at once: the switch is the whole process's
            lanes.run(jobs, device, always=True)


def token_sums(
    encoder: Encoder,
    sequences: TokenSequences,
    indices_B: np.ndarray,
    device: torch.device,
    *,
    together: bool,
) -> torch.Tensor:
    """The encoder's tokens summed over each of some sequences, float64 [B, D]; see :func:`encode`."""
    sums_BD = torch.empty(
        len(indices_B), encoder.settings.d_model, dtype=torch.float64, device=device
    )

    def add(rows: np.ndarray, tokens_RKCD: torch.Tensor, valid_RK: torch.Tensor) -> None:
        sums_BD[torch.from_numpy(rows).to(device)], _ = pooled_sum(tokens_RKCD, valid_RK)

    encode(encoder, sequences, indices_B, device, add, together=together)
    return sums_BD


def window_means(
    encoder: Encoder, sequences: TokenSequences, device: torch.device, *, together: bool
) -> torch.Tensor:
    """The mean over each window's tokens, all channels, as the encoder gives them within the window's
    sequence; float64 [W, D] in the order of ``sequences.signal_WCL``. See :func:`encode`."""
    means_WD = torch.empty(
        len(sequences.signal_WCL), encoder.settings.d_model, dtype=torch.float64, device=device
    )
    everything = np.arange(len(sequences))

    def put(rows: np.ndarray, tokens_RKCD: torch.Tensor, _: torch.Tensor) -> None:
        parts_RVkCD = tokens_RKCD.unflatten(1, (-1, sequences.steps_per_window))
        window_RV = torch.from_numpy(sequences.windows_NV[rows, : parts_RVkCD.shape[1]]).to(device)
        means_RVD = parts_RVkCD.mean((2, 3))
        means_WD[window_RV[window_RV >= 0]] = means_RVD[window_RV >= 0]

    encode(encoder, sequences, everything, device, put, together=together)
    return means_WD


class Participants:
    """The participants of one part of the split: their sequences, labels and embeddings."""

    def __init__(
        self, encoder: Encoder, sequences: TokenSequences, device: torch.device, *, keep: bool
    ) -> None:
        unlabelled = [
            name
            for name, label in zip(sequences.participants, sequences.labels, strict=True)
            if label is None
        ]
        if unlabelled:
            raise RemitError(
                f"participant {some_of(unlabelled)} has no label; fine-tuning expected 0 or 1 for "
                "everyone in train, val and test; label them in the cohort sheet, or set "
                "split.unlabelled to 'pretraining'."
            )
        self.encoder = encoder
        self.sequences = sequences
        self.device = device
        self.names = sequences.participants
        self.labels_N = torch.tensor([int(label or 0) for label in sequences.labels], device=device)
        self.sequences_at_once = SEQUENCES_AT_ONCE
        self._keep = keep
        self._kept_ND: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.names)

    def _sums(self, participant: int) -> list[tuple[np.ndarray, int]]:
        """The groups of a participant's sequences and the number of tokens in all of them."""
        indices = self.sequences.of_participant(participant)
        channels = self.sequences.signal_WCL.shape[1]
        count = int(self.sequences.valid_steps_N[indices].sum()) * channels
        return [
            (indices[first : first + self.sequences_at_once], count)
            for first in range(0, len(indices), self.sequences_at_once)
        ]

    def _part_D(self, group: np.ndarray, count: int) -> torch.Tensor:
        """What one group of sequences adds to its participant's mean over tokens."""
        samples_BKCS, valid_BK = self.sequences.batch(group, self.device, cut=True)
        tokens_BKCD = self.encoder(samples_BKCS, valid_BK=valid_BK)
        sum_BD, _ = pooled_sum(tokens_BKCD, valid_BK)
        return sum_BD.sum(dim=0) / count

    def _embed_ND(self, chosen: Sequence[int]) -> torch.Tensor:
        """The sum over a participant's sequences, in their order, by their number of tokens."""
        groups = [self.sequences.of_participant(participant) for participant in chosen]
        # On a CPU the same bits are worth more than a batch's speed, which is the same from about 300
        # tokens up; at d_model 256 a sequence of 128 tokens takes 1.4 times as long by itself.
        sums_BD = token_sums(
            self.encoder,
            self.sequences,
            np.concatenate(groups),
            self.device,
            together=self.device.type != "cpu",
        )
        channels = self.encoder.num_channels
        means = [
            part_BD.sum(dim=0) / int(self.sequences.valid_steps_N[group].sum() * channels)
            for part_BD, group in zip(
                sums_BD.split([len(group) for group in groups]), groups, strict=True
            )
        ]
        return torch.stack(means).to(self.encoder.embed.weight.dtype)

    def embeddings(self, chosen: Sequence[int]) -> torch.Tensor:
        """[chosen, D]; without gradient. Kept after the first call where the backbone is frozen."""
        if not self._keep:
            return self._embed_ND(chosen)
        if self._kept_ND is None:
            self._kept_ND = self._embed_ND(range(len(self)))
        return self._kept_ND[list(chosen)]

    def backward(self, chosen: Sequence[int], gradient_ND: torch.Tensor) -> None:
        """Carry the gradient of the embeddings into the encoder's parameters."""
        for row, participant in enumerate(chosen):
            for group, count in self._sums(participant):
                (self._part_D(group, count) * gradient_ND[row]).sum().backward()


def class_weights(labels_N: torch.Tensor, kind: str) -> torch.Tensor:
    """The weight of each class in the loss: 1, or for "balanced" the inverse of its frequency."""
    counts = torch.bincount(labels_N, minlength=NUM_CLASSES).to(torch.float32)
    if kind == "none":
        return torch.ones(NUM_CLASSES, device=labels_N.device)
    return counts.sum() / (NUM_CLASSES * counts)


def step(
    people: Participants,
    head: ClassifierHead,
    batches: Sequence[Sequence[int]],
    weights: torch.Tensor,
    *,
    train_backbone: bool,
) -> float:
    """Accumulate the gradient of one optimiser step; returns the weighted mean loss.

    Several small batches give the gradient of one large batch: each example counts by its class
    weight over the weight of all examples of the step.
    """
    everyone = [index for batch in batches for index in batch]
    whole = weights[people.labels_N[everyone]].sum()
    total = 0.0
    for batch in batches:
        embedded_ND = people.embeddings(batch).clone().requires_grad_(train_backbone)
        labels_N = people.labels_N[list(batch)]
        loss = F.cross_entropy(head(embedded_ND), labels_N, weights, reduction="sum") / whole
        loss.backward()
        if train_backbone:
            if embedded_ND.grad is None:
                raise RuntimeError("no gradient reached the embeddings")
            people.backward(batch, embedded_ND.grad)
        total += float(loss.detach())
    return total


def predict(people: Participants, head: ClassifierHead, shift: float = 0.0) -> np.ndarray:
    """The probability of class 1 for every participant; ``shift`` is added to its logit."""
    head.eval()
    with torch.no_grad():
        logits = head(people.embeddings(range(len(people)))).double()
        logits[:, 1] += shift
        probabilities: np.ndarray = torch.softmax(logits, dim=1)[:, 1].cpu().numpy()
    return probabilities
