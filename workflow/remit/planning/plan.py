"""The plan of a run: what is refused before its first job, and what its jobs inherit."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from remit import naming
from remit.config import EXECUTION_VARIABLE
from remit.errors import RemitError, did_you_mean
from remit.planning.settings import Settings, as_json
from remit.recordings.channels import check_channels

SILENT_PRETRAININGS = 10  # that a run may plan without a word on what it costs

# Targets that are rules, and the kind of file that takes the most of what they make.
RULES = {
    "all": "finetuned",
    "evaluation": "model_card",
    "sweep": "comparison",
    **{
        kind: kind for kind in ("split", "folds", "comparison", "evaluation_table", "run_resources")
    },
}
# The files that only an evaluation needs, and that the folds must be possible for.
_OF_FOLDS = ("folds", "fold_split", "pretrained_fold", "embeddings_fold")
_OF_EVALUATION = (
    *_OF_FOLDS,
    "evaluation",
    "evaluation_page",
    *(f"evaluation_{name}" for name in naming.EVALUATION_PICTURES),
    "model_card",
    "evaluation_table",
    "evaluation_picture",
    "head",
    "predictions_new",
)
_OF_COMPARISON = ("comparison", "comparison_parquet", "comparison_page", "comparison_picture")
# The files about all models of the sweep.
OF_SWEEP = ("evaluation_table", "evaluation_picture", *_OF_COMPARISON)
# The files that are made of the one split of the dataset, whoever pretrained the backbone.
_OF_SPLIT = (
    *("split", "diagnostics", "diagnostics_skill", "diagnostics_bands", "checks", "reconstruction"),
    *("finetuned", "finetuned_card", "predictions", "history", "model_report"),
    *_OF_COMPARISON,
    *("run_resources", "run_resources_table"),
)
# The files that are made of it where the one backbone of the model's name is pretrained here.
_OF_BACKBONE = ("embeddings", "embeddings_picture", "model_card", "head", "predictions_new")


class Plan(Settings):
    """The checked configuration and what follows from it for each rule."""

    def export(self) -> None:
        """Hand the jobs their environment: this one's `remit`, and the execution settings.

        Execution settings travel in a variable and not in a rule's params, so they cause no rerun.
        """
        own = str(Path(sys.executable).parent)
        os.environ["PATH"] = os.pathsep.join([own, os.environ.get("PATH", os.defpath)])
        os.environ[EXECUTION_VARIABLE] = as_json(self.config.execution.model_dump(mode="json"))

    def check(self, targets: Iterable[str]) -> None:
        """Refuse targets that have no meaning, before any job; raises :class:`RemitError`."""
        for name in (self.config.cohort, *self.config.pretraining.extra_cohorts):
            own = self.config.cohorts[name].channels is not None
            check_channels(
                self.config.channels_of(name),
                self.config.preprocessing.reference,
                f"cohorts.{name}.channels" if own else "channels",
            )
        self.model_settings(str(self.default_model))
        self.rows(self.config.cohort)
        needs_split = False
        for target in targets:
            if target in RULES:
                model = str(self.default_model)
                target = naming.path(RULES[target], model=model, dataset=self.dataset)
            read = naming.read_target(target)
            if read is None:
                self._unknown(target)
                continue
            kind, values = read
            models = self.sweep_models() if kind in OF_SWEEP else []
            if "model" in values:
                models = [str(naming.model_of_target(target, kind, values))]
                self.model_settings(models[0])
            if kind in _OF_EVALUATION:
                self._check_evaluation(models)
            needs_split |= self._needs_split(kind, models)
            for key, most in (
                ("repeat", self.config.evaluation.repeats),
                ("fold", self.num_folds if "fold" in values else 0),
            ):
                if key in values and values[key] not in map(str, range(1, most + 1)):
                    raise RemitError(
                        f"target {target}: {key} is {values[key]}; expected 1 to {most}; ask for one of them."
                    )
            if "cohort" in values and kind != "predictions":
                self.cohort(values["cohort"])
            if kind == "predictions_new":
                self._check_new(target, values["cohort"], models[0])
            named = self.config.dataset_of(values["cohort"]) if kind == "corpus" else self.dataset
            if values.get("dataset", named) != named:
                raise RemitError(
                    f"target {target}: the configured dataset is {named}; expected that name; ask "
                    "for it, or change preprocessing.window_seconds and channels."
                )
            if kind in ("windows", "simulated"):
                self.row(values["cohort"], values["recording"])
        if needs_split:  # found out now, and not after all recordings were filtered
            self._try_split()

    def _needs_split(self, kind: str, models: Iterable[str]) -> bool:
        """Whether making this for some models takes the one split of the dataset."""
        if kind in _OF_SPLIT:
            return True
        if kind == "pretrained":
            return not set(models) <= set(self.placed_by_hand())
        shared = kind in _OF_EVALUATION and self.config.evaluation.pretraining != "per_fold"
        one = kind in _OF_BACKBONE or (shared and kind not in _OF_FOLDS)
        return one and any(self.pretrained_here(model) for model in models)

    def _check_evaluation(self, models: Iterable[str]) -> None:
        """Refuse an evaluation that cannot be, before any job, and say what a large one costs."""
        fits = self.num_folds * self.config.evaluation.repeats
        own = [model for model in models if len(self.embeddings(model)) > 1]
        left = sum(not Path(file).exists() for model in own for file in self.embeddings(model))
        if left > SILENT_PRETRAININGS:
            fewer = f"evaluation.repeats: 1 takes {self.num_folds} a model; " * (
                fits > self.num_folds
            )
            print(
                f"remit: {left} pretrainings are left for this evaluation, one for each of {fits} folds of "
                f"{len(own)} model{'s' * (len(own) > 1)}; {fewer}evaluation.pretraining: held_out or "
                "transductive take one.",
                file=sys.stderr,
            )
        if (
            self.config.evaluation.pretraining != "held_out"
            or not self.config.pretraining.own_cohort
        ):
            return
        ours = [model for model in models if self.pretrained_here(model)]
        if ours:
            raise RemitError(
                f"{ours[0]}: evaluation.pretraining is 'held_out', but pretraining would see the cohort "
                "that is evaluated; expected a backbone of other cohorts; set pretraining.own_cohort: false "
                "with pretraining.extra_cohorts, or put one into resources/pretrained/."
            )

    def _check_new(self, target: str, cohort: str, model: str) -> None:
        """Refuse predictions of the cohort that is evaluated, and of one with other electrodes."""
        if cohort == self.config.cohort:
            raise RemitError(
                f"target {target}: cohort '{cohort}' is the one that the head is fitted on; expected "
                "another, for its own probabilities would be no predictions; those by fits without each "
                f"participant stand in {naming.path('evaluation', model=model)}, candidates, predictions."
            )
        channels = self.config.channels_of(cohort)
        if channels != self.config.channels:
            raise RemitError(
                f"target {target}: cohorts.{cohort}.channels is {', '.join(channels)}; expected "
                f"{', '.join(self.config.channels)}, which {model} is made for; remove that setting, or "
                "predict with a model of these electrodes."
            )
        check_channels(channels, self.config.preprocessing.reference, "channels")

    def _unknown(self, target: str) -> None:
        """Refuse a target under results/ that no rule makes, with what is near."""
        if Path(target).exists():
            return
        values = {
            "model": str(self.default_model),
            "cohort": self.config.cohort,
            "dataset": self.dataset,
            "recording": self.rows(self.config.cohort)[0].recording,
            "repeat": "1",
            "fold": "1",
        }
        makable = [pattern.format(**values) for pattern in naming.PATTERNS.values()]
        raise RemitError(
            f"target {target}: no rule makes it; expected a path such as {values_shown(makable)}."
            f"{did_you_mean(target, makable)}"
        )


def values_shown(paths: Iterable[str]) -> str:
    """The paths of models, which are what people ask for."""
    return ", ".join(path for path in paths if path.endswith(".pt"))
