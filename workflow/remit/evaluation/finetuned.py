"""The model's own backbone, fine-tuned in full in every fold: what its weights give when they may move.

The head of fine-tuning, the steps of fine-tuning (`training.classifier`), nothing frozen, on the fold's
other people alone; trained as `trained` says, with the last epoch, where the rate has come down to 0,
as the one to keep. Each fold starts from the checkpoint that its embeddings were made by, found by
the SHA-256 that stands in them, so that the model and this have the same beginning.

Shapes: as in `trained`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from remit.config import Execution
from remit.dataset.sequences import check_usable, load_sequences
from remit.dataset.windows import WindowsFile
from remit.errors import RemitError, some_of
from remit.evaluation.candidates import Kind
from remit.evaluation.crossfit import CrossFit
from remit.evaluation.folds import MOST_REPEATS, Folds
from remit.evaluation.trained import COSTS, Fold, train_in_folds
from remit.evaluation.window_tables import embedded
from remit.naming import ModelName
from remit.training import checkpoint
from remit.training.classifier import Training
from remit.training.data import seen_in_pretraining
from remit.training.finetune import ClassifierSettings, load_backbone
from remit.training.participants import Participants, predict
from remit.training.runtime import device_of, prepare, use_backend

RESULT_VERSION = 1  # raise when a change here alters a prediction


class Finetuned:
    """The candidate.

    Args:
        model: the name of the model.
        settings: of its encoder, its sequences and its fine-tuning, with nothing frozen.
        dataset: whose windows are read, a fold's at a time, into memory.
        folds: of all repeats; the first few of them are fitted.
        embeddings: of the model: one file, or one per fold of each repeat.
        backbones: the checkpoints that these were made by; in any order, more than needed too.
        transductive: whether a backbone may have seen those whom it is tested on, without labels.
        execution: device, backend and threads.

    Raises:
        RemitError: when checkpoints, embeddings, dataset and settings do not belong together, when a
            backbone has seen somebody whom its fold tests, or somebody has no usable window.
    """

    name = "fine-tuned in full"
    kind: Kind = "baseline"
    columns = None

    def __init__(
        self,
        model: ModelName,
        settings: ClassifierSettings,
        *,
        dataset: WindowsFile,
        folds: Folds,
        embeddings: Sequence[Path],
        backbones: Sequence[Path],
        transductive: bool,
        execution: Execution,
    ) -> None:
        options = settings.finetuning
        if options.freeze_backbone:
            raise RemitError(
                f"{self.name}: finetuning.freeze_backbone is true; expected false, for nothing is frozen "
                "here; give the settings that the workflow gives."
            )
        device_of(execution)  # refused now, and not after an hour of other fits
        check_usable(dataset, folds.names, settings.sequences)
        self.notes: tuple[str, ...] = (
            f"the model's backbone and a new head, nothing frozen, {options.epochs} epochs over the people "
            "who fit; the last one is kept",
            *COSTS,
        )
        self._model, self._settings = model, settings
        self._dataset, self._execution = dataset, execution
        self._file_of = _files(model, folds, embeddings, backbones)
        for file in sorted(set(self._file_of.values())):
            content, _, _ = load_backbone(file, model, settings, dataset)
            tested = {
                name
                for key, own in self._file_of.items()
                if own == file
                for name in folds.test(*key)
            }
            seen = seen_in_pretraining(content, dataset, sorted(tested))
            if seen and not transductive:
                raise RemitError(
                    f"{file}: has seen participant {some_of(seen)}, whom its folds test; expected a backbone "
                    "pretrained without them; make it again, or set evaluation.pretraining: 'transductive', "
                    "which every figure then says."
                )

    def crossfit(self, folds: Folds, *, seed: int, log: Callable[[str], None]) -> CrossFit:
        """Predict each participant in each repeat of ``folds`` by a backbone fine-tuned without their fold.

        A participant is the mean over their tokens, as in fine-tuning. The same bits with the same
        number of training threads. Raises :class:`RemitError` when a gradient is not finite.
        """
        device = prepare(self._execution)
        settings, options = self._settings, self._settings.finetuning

        def train(fold: Fold) -> np.ndarray:
            file = self._file_of[fold.repeat, fold.fold]
            _, encoder, _ = load_backbone(file, self._model, settings, self._dataset)
            encoder.to(device).eval()
            use_backend(encoder, self._execution.backend, device)

            def part(names: tuple[str, ...], label_P: np.ndarray) -> Participants:
                sequences = load_sequences(self._dataset, names, settings.sequences)
                labelled = replace(sequences, labels=tuple(label_P.tolist()))
                return Participants(encoder, labelled, device, keep=False)

            training = Training(
                encoder,
                part(fold.fit, fold.label_T),
                options,
                self._execution,
                seed=seed,
                key=(fold.repeat, fold.fold),
                log=log,
            )
            for epoch in range(1, options.epochs + 1):
                for number, batches in enumerate(training.steps(epoch)):
                    training.take(batches, epoch, number)
                training.schedule.step()
            # No label of the held out is here.
            held_out = part(fold.held_out, np.zeros(len(fold.held_out), dtype=int))
            balanced = 0.5 if options.class_weights == "balanced" else None
            return predict(held_out, training.head, fold.shift(balanced))

        return train_in_folds(self.name, folds, train, log)


def _files(
    model: ModelName, folds: Folds, embeddings: Sequence[Path], backbones: Sequence[Path]
) -> dict[tuple[int, int], Path]:
    """The checkpoint of each fold of the first repeats: the one that its embeddings were made by."""
    said = {file: embedded(file, folds, str(model), random=False) for file in embeddings}
    made_by = {(own["repeat"], own["fold"]): own["backbone_sha256"] for own in said.values()}
    file_of_sha = {
        checkpoint.backbone_sha256(checkpoint.load(file, "pretrained")): file for file in backbones
    }
    found = {}
    for repeat, fold in np.ndindex(min(MOST_REPEATS, folds.repeats), folds.folds):
        of_all = len(embeddings) == 1
        sha = made_by.get((None, None) if of_all else (repeat + 1, fold + 1))
        if sha not in file_of_sha:
            raise RemitError(
                f"{model}: the embeddings for fold {fold + 1} of repeat {repeat + 1} were made by a backbone "
                f"with SHA-256 {sha}; expected it among the {len(backbones)} given "
                f"({some_of(map(str, backbones))}); make the embeddings again, or give the backbones that "
                "they were made by."
            )
        found[repeat, fold] = file_of_sha[sha]
    return found
