"""What Snakemake needs to know to plan a run: which recordings, which settings for which rule.

Imported by the Snakefile at every parse, so it stays light: standard library, pydantic and the
sheet's reader. The settings that a rule's command receives are made here, as JSON, and nothing
else reaches a stage; so a setting that is changed reruns the rules it is given to and no others.
"""

from __future__ import annotations

import ast
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from remit import config as configuration
from remit import naming
from remit.config import EXECUTION_VARIABLE
from remit.dataset.splits import make_split
from remit.errors import RemitError, did_you_mean
from remit.evaluation.folds import make_folds
from remit.naming import ModelName
from remit.recordings.channels import check_channels
from remit.recordings.cohort import SheetRow, resolve
from remit.recordings.registry import companions
from remit.recordings.sidecars import sidecar_files, sidecar_names
from remit.recordings.source import digest, root_of, rows_of

_PACKAGE = Path(__file__).parent

# Which modules' RESULT_VERSION make up the version of each stage's results.
_STAGE_MODULES: dict[str, tuple[str, ...]] = {
    "simulate": ("recordings/simulate.py",),
    "windows": ("recordings/registry.py", "preprocessing/chain.py"),
    "primary": ("dataset/primary.py",),
    "split": ("dataset/splits.py",),
    "pretrain": (
        "dataset/sequences.py",
        "dataset/corpus.py",
        "nn/encoder.py",
        "training/pretrain.py",
    ),
    "diagnose": ("dataset/sequences.py", "nn/encoder.py", "evaluation/diagnostics.py"),
    "finetune": ("dataset/sequences.py", "nn/encoder.py", "training/finetune.py"),
    "folds": ("evaluation/folds.py",),
    "fold_split": ("evaluation/folds.py", "dataset/splits.py"),
    "embed": ("dataset/sequences.py", "nn/encoder.py", "training/embed.py"),
    "features": ("evaluation/features.py",),
    "evaluate": (
        "evaluation/candidates.py",
        "evaluation/convolutional.py",
        "evaluation/crossfit.py",
        "evaluation/estimates.py",
        "evaluation/power.py",
        "evaluation/evaluate.py",
    ),
    "evaluation_page": ("report/evaluation.py",),
    "model_card": ("report/evaluation.py", "report/model_card.py"),
    "report": ("report/model_report.py",),
    "head": ("evaluation/crossfit.py", "evaluation/predict.py"),
    "predict": (
        "dataset/sequences.py",
        "nn/encoder.py",
        "training/embed.py",
        "evaluation/predict.py",
    ),
}


SILENT_PRETRAININGS = 10  # that a run may plan without a word on what it costs

# The files that only an evaluation needs, and that the folds must be possible for.
_OF_EVALUATION = (
    "folds",
    "fold_split",
    "pretrained_fold",
    "embeddings_fold",
    "evaluation",
    "evaluation_page",
    "model_card",
    "evaluation_table",
    "head",
    "predictions_new",
)


@cache
def result_version(stage: str) -> str:
    """The RESULT_VERSION of each module of a stage, read without importing them: ``1.1``."""
    versions = []
    for module in _STAGE_MODULES[stage]:
        tree = ast.parse((_PACKAGE / module).read_text(encoding="utf-8"))
        found = [
            node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Constant)
            and any(isinstance(t, ast.Name) and t.id == "RESULT_VERSION" for t in node.targets)
        ]
        if len(found) != 1 or not isinstance(found[0], int):
            raise RemitError(
                f"{module}: expected one line RESULT_VERSION = <integer>; found {found}."
            )
        versions.append(str(found[0]))
    return ".".join(versions)


def as_json(values: Mapping[str, Any]) -> str:
    """Settings as one canonical line."""
    return json.dumps(values, sort_keys=True, ensure_ascii=True)


class Plan:
    """The checked configuration and what follows from it for each rule."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.config = configuration.validate(values)
        self._rows: dict[str, dict[str, SheetRow]] = {}
        self._sidecar_names = cache(sidecar_names)

    def export(self) -> None:
        """Hand the jobs their environment: this one's `remit`, and the execution settings.

        Execution settings travel in a variable and not in a rule's params, so they cause no rerun.
        """
        own = str(Path(sys.executable).parent)
        os.environ["PATH"] = os.pathsep.join([own, os.environ.get("PATH", os.defpath)])
        os.environ[EXECUTION_VARIABLE] = as_json(self.config.execution.model_dump(mode="json"))

    @property
    def default_model(self) -> ModelName:
        """The model that `snakemake` alone builds."""
        return self.config.model.name

    @property
    def dataset(self) -> str:
        """The name of the primary dataset."""
        return self.config.dataset

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
        rows = self.rows(self.config.cohort)
        labels = {row.participant: row.remission for row in rows}
        needs_split = False
        for target in targets:
            read = naming.read_target(target)
            if read is None:
                self._unknown(target)
                continue
            kind, values = read
            models = self.sweep_models() if kind == "evaluation_table" else []
            if "model" in values:
                models = [str(naming.model_of_target(target, kind, values))]
                self.model_settings(models[0])
            if kind in _OF_EVALUATION:
                self._check_evaluation(models)
            needs_split |= any(self._needs_split(kind, model) for model in models)
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
            make_split(
                labels, self.config.split, dataset=self.dataset, content_sha256="", simulated=False
            )

    def _needs_split(self, kind: str, model: str) -> bool:
        """Whether making this for a model takes the one split of the dataset."""
        if kind in ("embeddings_random", "embeddings_fold", "pretrained_fold"):
            return False
        if kind in ("model_card", "head", "predictions_new"):  # of the one backbone of that name
            return self.pretrained_here(model)
        return kind not in _OF_EVALUATION or self.embeddings(model) == [
            naming.path("embeddings", model=model)
        ]

    def _check_evaluation(self, models: Iterable[str]) -> None:
        """Refuse an evaluation that cannot be, before any job, and say what a large one costs."""
        fits = self.num_folds * self.config.evaluation.repeats
        own = [model for model in models if len(self.embeddings(model)) > 1]
        left = sum(not Path(file).exists() for model in own for file in self.embeddings(model))
        if left > SILENT_PRETRAININGS:
            print(
                f"remit: {left} pretrainings are left for this evaluation, one for each of {fits} folds of "
                f"{len(own)} model{'s' * (len(own) > 1)}; evaluation.repeats: 1 takes "
                f"{self.num_folds} a model; evaluation.pretraining: held_out or transductive take one.",
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

    @property
    def num_folds(self) -> int:
        """K: the folds asked for, or as many as the smaller class has people.

        Raises :class:`RemitError` where a class has fewer than two.
        """
        labels = {row.participant: row.remission for row in self.rows(self.config.cohort)}
        once = self.config.evaluation.model_copy(update={"repeats": 1})
        folds = make_folds(labels, once, dataset=self.dataset, content_sha256="", simulated=False)
        return int(folds["folds"])

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

    # Recordings ---------------------------------------------------------------------------

    def rows(self, cohort: str) -> list[SheetRow]:
        """The cohort sheet: simulated, read or scanned."""
        if cohort not in self._rows:
            self._rows[cohort] = {row.recording: row for row in self._read_rows(cohort)}
        return list(self._rows[cohort].values())

    def _read_rows(self, name: str) -> list[SheetRow]:
        cohort = self.cohort(name)
        rows, _ = rows_of(name, cohort)
        for path in [*(self.source(name, row) for row in rows), *self.sheet_source(name)]:
            if "{" in path or "}" in path:
                raise RemitError(
                    f"cohort '{name}': path {path} has a brace in it, which Snakemake takes for a "
                    "wildcard; expected a path without '{' and '}'; rename it."
                )
        if cohort.simulate is not None:
            return rows
        missing = [row for row in rows if not Path(self.source(name, row)).exists()]
        if missing and not Path(self.windows(name, missing[0].recording)).exists():
            print(
                f"remit: recording '{missing[0].recording}' of cohort '{name}': file "
                f"{self.source(name, missing[0])} not found ({len(missing)} of {len(rows)} missing); "
                f"expected it where the cohort sheet says; correct the sheet or cohorts.{name}.root.",
                file=sys.stderr,
            )
        return rows

    def cohort(self, name: str) -> configuration.Cohort:
        """A configured cohort; raises :class:`RemitError` for an unknown one."""
        if name not in self.config.cohorts:
            raise RemitError(
                f"cohort '{name}' is not in the configuration; expected one of "
                f"{', '.join(self.config.cohorts)}."
            )
        return self.config.cohorts[name]

    def row(self, cohort: str, recording: str) -> SheetRow:
        """The sheet's row of a recording; raises :class:`RemitError` for an unknown one."""
        if cohort not in self._rows:
            self.rows(cohort)
        if recording not in self._rows[cohort]:
            raise RemitError(
                f"recording '{recording}' is not in the sheet of cohort '{cohort}'; expected one of its "
                f"{len(self._rows[cohort])} recordings; check the name."
            )
        return self._rows[cohort][recording]

    def source(self, cohort: str, row: SheetRow) -> str:
        """The path of a recording's file, relative to the working directory or absolute."""
        return str(resolve(row, root_of(self.cohort(cohort))))

    def beside(self, cohort: str, row: SheetRow) -> list[str]:
        """What else a recording is read from: its further files and its BIDS sidecars."""
        if self.cohort(cohort).simulate is not None:
            return []
        path = Path(self.source(cohort, row))
        if not path.exists():
            return []
        found = [*companions(path), *sidecar_files(path, self._sidecar_names)]
        return [str(file) for file in found if file.exists()]

    def sheet_source(self, cohort: str) -> list[str]:
        """The file a cohort sheet is made from, when it is one that exists."""
        source = self.cohort(cohort)
        if source.sheet is not None:
            return [source.sheet]
        if source.scan is not None:
            root = Path(source.scan.root)
            if root.is_file():
                return [str(root)]
            listing = root / "participants.tsv"
            return [str(listing)] if listing.exists() else []
        return []

    # Files --------------------------------------------------------------------------------

    def windows(self, cohort: str, recording: str) -> str:
        """The windows file of a recording."""
        return naming.path("windows", cohort=cohort, recording=recording)

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

    def embeddings(self, model: str) -> list[str]:
        """The embeddings that an evaluation reads: one file, or one per fold of each repeat."""
        options = self.config.evaluation
        if options.pretraining != "per_fold" or not self.pretrained_here(model):
            return [naming.path("embeddings", model=model)]
        return [
            naming.path("embeddings_fold", model=model, repeat=str(repeat), fold=str(fold))
            for repeat in range(1, options.repeats + 1)
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

    # Settings, one set for each rule ------------------------------------------------------

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
                "source": self.cohort(cohort).model_dump(mode="json", exclude={"channels"}),
                "digest": digest(self.rows(cohort)),
            }
        )

    def windows_settings(self, cohort: str, recording: str) -> str:
        """What `remit windows` is given."""
        source = self.cohort(cohort)
        row = self.row(cohort, recording)
        return self._settings(
            "windows",
            cohort=cohort,
            participant=row.participant,
            recording=row.recording,
            entry=row.entry,
            remission=row.remission,
            sampling_rate=row.sampling_rate or source.sampling_rate,
            channel_names=row.channel_names or source.channel_names,
            units=row.units or source.units,
            allow_truncated=source.allow_truncated,
            channels=self.config.channels_of(cohort),
            preprocessing=self.config.preprocessing.model_dump(mode="json"),
        )

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
            model=self.model_settings(model),
            sequences=self.config.sequences.model_dump(mode="json"),
            finetuning=self.config.finetuning.model_dump(mode="json"),
            transductive=self.config.pretraining.transductive,
        )

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

    def evaluate_settings(self) -> str:
        """What `remit evaluate` is given."""
        return self._settings(
            "evaluate",
            evaluation=self.config.evaluation.model_dump(mode="json"),
            label=self._label_text(),
        )

    @property
    def evaluate_runtime_min(self) -> int:
        """Minutes that an evaluation may take: those of a training where it holds one."""
        slow = self.config.evaluation.convolutional
        return self.config.execution.training_runtime_min if slow else 60

    def evaluation_page_settings(self) -> str:
        """What `remit evaluation-page` and `remit evaluation-table` are given."""
        return self._settings("evaluation_page")

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
        """What `remit report` and `remit compare` are given."""
        return self._settings("report", label=self._label_text())

    def _label_text(self) -> str:
        """The outcome in words."""
        source = self.cohort(self.config.cohort)
        text = "remission, as the cohort sheet says"
        if source.simulate is not None:
            text = f"simulated remission, effect {source.simulate.effect:g}"
        if source.scan is not None and source.scan.label is not None:
            text = f"{source.scan.label.column} ({source.scan.label.meaning})"
        return text


def values_shown(paths: Iterable[str]) -> str:
    """The paths of models, which are what people ask for."""
    return ", ".join(path for path in paths if path.endswith(".pt"))


def targets_of(arguments: Sequence[str]) -> list[str]:
    """The file targets among Snakemake's arguments, as the rules spell them: results/…

    Snakemake's own parser tells them from the values of options.
    """
    from snakemake.cli import get_argument_parser

    known, _ = get_argument_parser().parse_known_args(list(arguments))
    paths = [os.path.relpath(target) for target in known.targets or ()]
    return [path for path in paths if path.startswith(f"{naming.RESULTS}{os.sep}")]


def failures(log_files: Iterable[str | Path]) -> list[str]:
    """What remit said of the jobs that failed, from the logs that Snakemake's own logs name."""
    text = "\n".join(Path(file).read_text(encoding="utf-8", errors="replace") for file in log_files)
    found: list[str] = []
    for named in re.findall(r"^ +log: (.+?) \(check log", text, re.MULTILINE):
        log = Path(named.split(", ")[0])
        if log.exists():
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            found += [line for line in lines if line.startswith("remit: ")]
    return list(dict.fromkeys(found))
