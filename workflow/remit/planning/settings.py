"""The settings that each rule's command receives, as JSON.

Nothing else reaches a stage; so a setting that is changed reruns the rules it is given to and no others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from remit.errors import RemitError
from remit.naming import ModelName
from remit.planning.results import Results
from remit.planning.versions import result_version
from remit.recordings.cohort import SheetRow
from remit.recordings.source import digest


def as_json(values: Mapping[str, Any]) -> str:
    """Settings as one canonical line."""
    return json.dumps(values, sort_keys=True, ensure_ascii=True)


class Settings(Results):
    """One set for each rule."""

    def _settings(self, stage: str, **values: Any) -> str:
        return as_json({"result_version": result_version(stage), **values})

    def simulate_settings(self, cohort: str, recording: str) -> str:
        """What `remit simulate` is given."""
        simulation = self.cohort(cohort).simulate
        if simulation is None:
            raise RemitError(
                f"cohort '{cohort}' is not simulated; expected cohorts.{cohort}.simulate."
            )
        return self._settings(
            "simulate",
            cohort=cohort,
            recording=recording,
            simulation=simulation.model_dump(mode="json"),
        )

    def sheet_settings(self, cohort: str) -> str:
        """A cohort's source, with a digest of what it holds now."""
        return as_json(
            {
                "cohort": cohort,
                "source": self.cohort(cohort).model_dump(
                    mode="json", exclude={"channels", "follow_links_to"}
                ),
                "digest": digest(self.rows(cohort)),
            }
        )

    def windows_settings(self, cohort: str, recording: str) -> str:
        """What `remit windows` is given."""
        row = self.row(cohort, recording)
        return self._settings(
            "windows", cohort=cohort, remission=row.remission, **self._chain(cohort, row)
        )

    def _chain(self, cohort: str, row: SheetRow) -> dict[str, Any]:
        """How a recording is read and filtered."""
        source = self.cohort(cohort)
        return {
            "participant": row.participant,
            "recording": row.recording,
            "entry": row.entry,
            "sampling_rate": row.sampling_rate or source.sampling_rate,
            "channel_names": row.channel_names or source.channel_names,
            "units": row.units or source.units,
            "allow_truncated": source.allow_truncated,
            "channels": self.config.channels_of(cohort),
            "preprocessing": self.config.preprocessing.model_dump(mode="json"),
        }

    def primary_settings(self, cohort: str) -> str:
        """What `remit primary` is given."""
        return self._settings(
            "primary",
            cohort=cohort,
            dataset=self.config.dataset_of(cohort),
            channels=self.config.channels_of(cohort),
        )

    def split_settings(self) -> str:
        """What `remit split` is given."""
        return self._settings("split", split=self.config.split.model_dump(mode="json"))

    def cohort_figures_settings(self) -> str:
        """What `remit cohort-figures` is given."""
        return self._settings(
            "cohort_figures",
            label=self._label_text(),
            use_bad_windows=self.config.sequences.use_bad_windows,
        )

    def signal_figure_settings(self) -> str:
        """What `remit signal-figure` is given: no label, which it does not show."""
        return self._settings(
            "signal_figure", **self._chain(self.config.cohort, self.recording_to_show())
        )

    def model_settings(self, model: str) -> dict[str, Any]:
        """The encoder's settings: those of the name over those of the configuration."""
        name = ModelName.parse(model)
        kept = self.config.model.model_dump(
            mode="json", exclude={"d_model", "num_layers", "mask_percent", "masking_style"}
        )
        inner = self.config.model.expand * name.d_model
        if inner % self.config.model.headdim:
            raise RemitError(
                f"{model}: model.headdim is {self.config.model.headdim}; expected a divisor of "
                f"model.expand * d_model = {inner}; change model.headdim, or ask for another d_model."
            )
        return {"d_model": name.d_model, "num_layers": name.num_layers, **kept}

    def pretrain_settings(self, model: str, *, of_fold: bool = False) -> str:
        """What `remit pretrain` is given; that of a fold never lets the test people in."""
        pretraining = self.config.pretraining.model_dump(mode="json")
        if of_fold:
            pretraining["transductive"] = False
        return self._settings(
            "pretrain",
            model=self.model_settings(model),
            sequences=self.config.sequences.model_dump(mode="json"),
            pretraining=pretraining,
        )

    def diagnose_settings(self) -> str:
        """What `remit diagnose` is given."""
        return self._settings(
            "diagnose", diagnostics=self.config.diagnostics.model_dump(mode="json")
        )

    def finetune_settings(self, model: str) -> str:
        """What `remit finetune` is given."""
        return self._settings(
            "finetune",
            **self._classifier(model),
            finetuning=self.config.finetuning.model_dump(mode="json"),
            transductive=self.config.pretraining.transductive,
        )

    def _classifier(self, model: str) -> dict[str, Any]:
        """What any use of a backbone is given."""
        return {
            "model": self.model_settings(model),
            "sequences": self.config.sequences.model_dump(mode="json"),
        }

    def folds_settings(self) -> str:
        """What `remit folds` is given."""
        asked = self.config.evaluation.model_dump(mode="json", include={"folds", "repeats", "seed"})
        return self._settings("folds", evaluation=asked)

    def fold_split_settings(self, repeat: str, fold: str) -> str:
        """What `remit fold-split` is given: not how many repeats there are, so that one more of them
        makes none of the others' backbones anew."""
        asked = self.config.evaluation.model_dump(mode="json", include={"folds", "seed"})
        return self._settings("fold_split", evaluation=asked, repeat=int(repeat), fold=int(fold))

    def embed_settings(self, model: str, **of_fold: str) -> str:
        """What `remit embed` is given, with `repeat` and `fold` for the backbone of a fold."""
        return self._settings(
            "embed",
            model=self.model_settings(model),
            sequences=self.config.sequences.model_dump(mode="json"),
            **{key: int(number) for key, number in of_fold.items()},
        )

    def embed_random_settings(self, model: str) -> str:
        """What `remit embed` is given for random weights."""
        return self._settings(
            "embed",
            model=self.model_settings(model),
            sequences=self.config.sequences.model_dump(mode="json"),
            seed=self.config.evaluation.seed,
        )

    def features_settings(self) -> str:
        """What `remit features` is given."""
        return self._settings("features")

    def evaluate_settings(self, model: str) -> str:
        """What `remit evaluate` is given: of fine-tuning only what it fine-tunes by itself."""
        values: dict[str, Any] = {}
        if self.config.evaluation.finetuned:
            tuning = self.config.finetuning.model_dump(mode="json", exclude={"seed"})
            values["finetuned"] = {
                "result_version": result_version("finetune"),
                **self._classifier(model),
                "finetuning": tuning | {"freeze_backbone": False},
            }
        return self._settings(
            "evaluate",
            evaluation=self.config.evaluation.model_dump(mode="json"),
            label=self._label_text(),
            **values,
        )

    @property
    def evaluate_runtime_min(self) -> int:
        """Minutes that an evaluation may take: those of a training where it holds one."""
        slow = self.config.evaluation.convolutional or self.config.evaluation.finetuned
        return self.config.execution.training_runtime_min if slow else 60

    @property
    def evaluate_gpu(self) -> int:
        """GPUs that an evaluation asks for: those of a training where it fine-tunes."""
        return self.config.execution.gpu if self.config.evaluation.finetuned else 0

    def backbone_pictures_settings(self) -> str:
        """What `remit backbone-pictures` is given."""
        options = self.config.diagnostics
        return self._settings(
            "backbone_pictures", sequences=options.sequences_per_participant, seed=options.seed
        )

    def embeddings_picture_settings(self) -> str:
        """What `remit embeddings-picture` is given."""
        return self._settings("embeddings_picture")

    def evaluation_page_settings(self) -> str:
        """What `remit evaluation-page` is given."""
        return self._settings("evaluation_page")

    def evaluation_table_settings(self) -> str:
        """What `remit evaluation-table` is given."""
        return self._settings("evaluation_table")

    def model_card_settings(self) -> str:
        """What `remit model-card` is given."""
        return self._settings("model_card")

    def head_settings(self) -> str:
        """What `remit head` is given."""
        return self._settings("head", evaluation=self.config.evaluation.model_dump(mode="json"))

    def predict_settings(self, cohort: str) -> str:
        """What `remit predict-cohort` is given."""
        return self._settings("predict", cohort=cohort)

    def report_settings(self) -> str:
        """What `remit report` is given."""
        return self._settings("report", label=self._label_text())

    def comparison_settings(self) -> str:
        """What `remit compare` is given."""
        return self._settings("compare", label=self._label_text())

    def run_resources_settings(self) -> str:
        """What `remit run-resources` is given."""
        return self._settings("run_resources")

    def _label_text(self) -> str:
        """The outcome in words."""
        source = self.cohort(self.config.cohort)
        text = "remission, as the cohort sheet says"
        if source.simulate is not None:
            text = f"simulated remission, effect {source.simulate.effect:g}"
        if source.scan is not None and source.scan.label is not None:
            text = f"{source.scan.label.column} ({source.scan.label.meaning})"
        return text
