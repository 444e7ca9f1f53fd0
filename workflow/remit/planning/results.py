"""The files that are made: of which recordings, by whose backbone, in how many folds."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path

from remit import naming
from remit.dataset.splits import make_split
from remit.errors import RemitError
from remit.evaluation.folds import MOST_REPEATS, make_folds
from remit.naming import ModelName
from remit.planning.recordings import Recordings
from remit.recordings.cohort import SheetRow


class Results(Recordings):
    """What follows from the configuration, and from the files that are there, for the paths of each rule."""

    @property
    def default_model(self) -> ModelName:
        """The model that `snakemake` alone builds."""
        return self.config.model.name

    @property
    def dataset(self) -> str:
        """The name of the primary dataset."""
        return self.config.dataset

    def all_windows(self, cohort: str) -> list[str]:
        """The windows files of a cohort, in the order of its sheet."""
        return [self.windows(cohort, row.recording) for row in self.rows(cohort)]

    def corpora(self) -> list[str]:
        """Datasets that only pretraining reads."""
        return [
            naming.path("corpus", cohort=cohort, dataset=self.config.dataset_of(cohort))
            for cohort in self.config.pretraining.extra_cohorts
        ]

    def drop_in(self, model: str) -> str:
        """Where a backbone that somebody else trained would lie."""
        return naming.DROP_IN_PATTERN.format(model=model)

    def backbone(self, model: str) -> str:
        """The checkpoint that fine-tuning starts from: a drop-in if there is one."""
        drop_in = self.drop_in(model)
        return drop_in if Path(drop_in).exists() else naming.path("pretrained", model=model)

    def placed_by_hand(self) -> list[str]:
        """The backbones in results/pretrained that no rule of ours has made.

        Pretraining writes a readable .json beside every checkpoint; one without it was put there.
        """
        folder = Path(naming.PATTERNS["pretrained"]).parent
        return sorted(
            file.stem
            for file in folder.glob("*.pt")
            if re.fullmatch(naming.MODEL_PATTERN, file.stem)
            and not Path(naming.path("pretrained_card", model=file.stem)).exists()
        )

    def pretrainable(self) -> str:
        """The expression of models that pretraining may make: not those placed by hand."""
        placed = "|".join(self.placed_by_hand())
        return f"(?!(?:{placed})\\.pt){naming.MODEL_PATTERN}" if placed else naming.MODEL_PATTERN

    def pretrained_here(self, model: str) -> bool:
        """Whether our pretraining makes a model's backbone: no drop-in, and none placed by hand."""
        made = self.backbone(model) == naming.path("pretrained", model=model)
        return made and model not in self.placed_by_hand()

    def _labels(self) -> dict[str, int | None]:
        """The label of each participant, as the sheet has it now."""
        return {row.participant: row.remission for row in self.rows(self.config.cohort)}

    def _try_split(self) -> None:
        """Make the split, as its job will, and forget it; raises :class:`RemitError` where it cannot be."""
        make_split(
            self._labels(),
            self.config.split,
            dataset=self.dataset,
            content_sha256="",
            simulated=False,
        )

    @cached_property  # asked of each model and repeat
    def num_folds(self) -> int:
        """K: the folds asked for, or as many as the smaller class has people.

        Raises :class:`RemitError` where a class has fewer than two.
        """
        once = self.config.evaluation.model_copy(update={"repeats": 1})
        folds = make_folds(
            self._labels(), once, dataset=self.dataset, content_sha256="", simulated=False
        )
        return int(folds["folds"])

    def embeddings(self, model: str) -> list[str]:
        """The embeddings that an evaluation reads: one file, or one per fold of each repeat."""
        options = self.config.evaluation
        if options.pretraining != "per_fold" or not self.pretrained_here(model):
            return [naming.path("embeddings", model=model)]
        return self._of_folds("embeddings_fold", model, options.repeats)

    def finetuned_backbones(self, model: str) -> list[str]:
        """The checkpoints that an evaluation fine-tunes in its folds; none where it is not asked to."""
        options = self.config.evaluation
        if not options.finetuned:
            return []
        if len(self.embeddings(model)) == 1:
            return [self.backbone(model)]
        return self._of_folds("pretrained_fold", model, min(MOST_REPEATS, options.repeats))

    def _of_folds(self, kind: str, model: str, repeats: int) -> list[str]:
        """One file for each fold of the first repeats."""
        return [
            naming.path(kind, model=model, repeat=str(repeat), fold=str(fold))
            for repeat in range(1, repeats + 1)
            for fold in range(1, self.num_folds + 1)
        ]

    def sweep_models(self) -> list[str]:
        """The names of the models of the sweep."""
        default = self.default_model
        return [
            str(ModelName(default.d_model, default.num_layers, percent, style))
            for style in self.config.sweep.masking_styles
            for percent in self.config.sweep.mask_percents
        ]

    def diagnostics(self) -> list[str]:
        """The diagnostics that a model's page reads: none where nobody is left to diagnose on."""
        return [] if self.config.pretraining.transductive else [naming.PATTERNS["diagnostics"]]

    def pictures(self, model: str) -> list[str]:
        """The pictures of a backbone: without those of people whom it has not seen, if there are none."""
        kinds = [] if self.config.pretraining.transductive else ["checks", "reconstruction"]
        return [naming.path(kind, model=model) for kind in [*kinds, "embeddings_picture"]]

    def split_if_any(self) -> list[str]:
        """The split that the pictures of the cohort show; none where the labels allow of none."""
        try:
            self._try_split()
        except RemitError:  # who needs a split is told by `check`
            return []
        return [naming.path("split", dataset=self.dataset)]

    def shown_recording(self) -> SheetRow | None:
        """The recording that stands for the signal chain: the first by name whose file is there."""
        name = self.config.cohort
        made = self.cohort(name).simulate is not None
        rows = sorted(self.rows(name), key=lambda row: row.recording)
        return next((row for row in rows if made or Path(self.source(name, row)).exists()), None)

    def recording_to_show(self) -> SheetRow:
        """As :meth:`shown_recording`; the first of all where no file is there, to be missed."""
        rows = self.rows(self.config.cohort)
        return self.shown_recording() or min(rows, key=lambda row: row.recording)

    def figures(self) -> list[str]:
        """The pictures of the cohort, and of the signal where there is a recording to show."""
        kinds = ["flow", "demographics", "quality", "spectra", "split"]
        kinds += ["signal"] if self.shown_recording() else []
        return [naming.path(f"figure_{kind}", dataset=self.dataset) for kind in kinds]
