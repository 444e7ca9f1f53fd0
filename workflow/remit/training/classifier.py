"""The training of a classifier: its head and, unless it is frozen, its backbone, step by step.

Fine-tuning and the fine-tuning within an evaluation's folds both take their steps here. Knows
participants and modules, and no file; what is validated, kept or written is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from remit.config import Execution, Finetuning
from remit.errors import RemitError, some_of
from remit.nn.encoder import Encoder
from remit.nn.heads import ClassifierHead
from remit.training.memory import MicroBatch
from remit.training.participants import (
    NUM_CLASSES,
    SEQUENCES_AT_ONCE,
    Participants,
    class_weights,
    step,
)
from remit.training.runtime import seed_all

# What a random draw is for; part of its seed.
_INITIALISE, _ORDER, _DROPOUT = range(10, 13)


class Training:
    """A new head on an encoder, and the optimiser steps that train them.

    Args:
        encoder: on its device; its gradients are switched on or off, as ``options`` say.
        train: the participants, embedded by ``encoder``.
        options: the section ``finetuning`` of the configuration, all but its seed.
        execution: says how many sequences pass at once.
        seed: of initialisation, order and dropout.
        key: what tells this training from others of the same seed: repeat and fold.
        log: takes one line.
    """

    def __init__(
        self,
        encoder: Encoder,
        train: Participants,
        options: Finetuning,
        execution: Execution,
        *,
        seed: int,
        key: tuple[int, ...] = (),
        log: Callable[[str], None],
    ) -> None:
        self.train = train
        self.options = options
        self._seed, self._key = seed, key
        encoder.requires_grad_(not options.freeze_backbone)
        width = encoder.settings.d_model
        seed_all(seed, _INITIALISE, *key)
        self.head = ClassifierHead(width, NUM_CLASSES, options.dropout).to(train.device)
        groups: list[dict[str, Any]] = [
            {"params": list(self.head.parameters()), "lr": options.learning_rate}
        ]
        if not options.freeze_backbone:
            groups.append(
                {"params": list(encoder.parameters()), "lr": options.backbone_learning_rate}
            )
        self._parameters = [parameter for group in groups for parameter in group["params"]]
        self.optimiser = torch.optim.AdamW(groups, weight_decay=options.weight_decay)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            self.optimiser, T_max=options.epochs
        )
        self.weights = class_weights(train.labels_N, options.class_weights)
        self.memory = MicroBatch(
            execution.micro_batch,
            batch=SEQUENCES_AT_ONCE,
            tokens=train.sequences.num_steps * encoder.num_channels,
            width=width,
            device=train.device,
            log=log,
        )

    def steps(self, epoch: int) -> list[list[list[int]]]:
        """The batches of each optimiser step of an epoch: every participant once, in a drawn order."""
        rng = np.random.default_rng([self._seed, _ORDER, *self._key, epoch])
        order = rng.permutation(len(self.train)).tolist()
        size, together = self.options.batch_size, self.options.gradient_accumulation
        batches = [order[first : first + size] for first in range(0, len(order), size)]
        return [batches[first : first + together] for first in range(0, len(batches), together)]

    def take(self, batches: list[list[int]], epoch: int, number: int) -> float:
        """Make one optimiser step, ``number`` of its epoch; returns the weighted mean loss.

        Raises :class:`RemitError` when its gradient is not finite; then nothing is changed.
        """
        self.head.train()
        loss: float = self.memory.within(partial(self._gradient, batches, (epoch, number)))
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self.options.gradient_clip)
        if not torch.isfinite(norm):
            people = [self.train.names[index] for batch in batches for index in batch]
            raise RemitError(
                f"fine-tuning: the gradient is not finite at epoch {epoch}, step {number + 1} of "
                f"{len(self.steps(epoch))}, with participants {some_of(people)}; expected numbers; "
                "lower finetuning.learning_rate or look for extreme values in their recordings."
            )
        self.optimiser.step()
        return loss

    def _gradient(
        self, batches: list[list[int]], draw: tuple[int, int], sequences_at_once: int
    ) -> float:
        self.train.sequences_at_once = sequences_at_once
        seed_all(self._seed, _DROPOUT, *self._key, *draw)
        self.optimiser.zero_grad(set_to_none=True)
        trained = not self.options.freeze_backbone
        return step(self.train, self.head, batches, self.weights, train_backbone=trained)
