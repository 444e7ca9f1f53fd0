"""The one codec for every name remit makes or reads: models, datasets, identifiers, paths.

Asking Snakemake for a file is asking for the model its name describes, so a name must have exactly
one meaning and one spelling. The wildcard constraints of the rules are generated here from the same
expressions that parse the names. Standard library only; knows nothing of the stages.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath

from remit.errors import RemitError, did_you_mean

# A masking style is what happens to the content of a masked token: the fraction that becomes the
# shared mask token, that is replaced by another token of the sequence, and that is left as it is.
# Registering a style is adding a row.
MASKING_STYLES: dict[str, tuple[float, float, float]] = {
    "mae": (1.0, 0.0, 0.0),
    "bert": (0.8, 0.1, 0.1),
}
# A masking geometry is which tokens are masked: the fraction of blocks that lies on one channel (the
# others lie across all; None: as pretraining.single_channel_fraction says), and whether blocks have
# the length of pretraining.block_seconds or that of one token. Registering one is adding a row.
MASKING_GEOMETRIES: dict[str, tuple[float | None, bool]] = {
    "mixed": (None, True),
    "single_channel": (1.0, True),
    "all_channels": (0.0, True),
    "independent": (1.0, False),
}

ARCHITECTURE = "mamba2_eeg"
D_MODEL_STEP = 8  # kernels want row strides that are multiples of 8
D_MODEL_MAX = 8192
NUM_LAYERS_MAX = 64
MASK_PERCENT_MIN, MASK_PERCENT_MAX = 5, 100

ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_-]*"
ID_MAX_LENGTH = 100
# Snakemake takes wildcards' values that end so for rules that feed themselves (PeriodicWildcardError).
_SNAKEMAKE_REPEATS = 20
_REPEATED = re.compile(rf"(.+)\1{{{_SNAKEMAKE_REPEATS - 1}}}$")

_STYLE_PATTERN = "|".join(MASKING_STYLES)
_D_MODEL_PATTERN = r"[1-9][0-9]{0,3}"
_NUM_LAYERS_PATTERN = r"[1-9][0-9]?"
_MASK_PATTERN = r"100|[1-9][0-9]|[5-9]"
MODEL_PATTERN = (
    rf"{ARCHITECTURE}_d(?:{_D_MODEL_PATTERN})_l(?:{_NUM_LAYERS_PATTERN})"
    rf"_m(?:{_MASK_PATTERN})_(?:{_STYLE_PATTERN})"
)
_MODEL_GROUPS = re.compile(
    rf"{ARCHITECTURE}_d({_D_MODEL_PATTERN})_l({_NUM_LAYERS_PATTERN})"
    rf"_m({_MASK_PATTERN})_({_STYLE_PATTERN})"
)
# Anything that was meant as a model name: the numbers and the style are read as they come.
_MODEL_LOOSE = re.compile(
    r"(?P<architecture>[A-Za-z0-9]+(?:_[A-Za-z]+)?)_d(?P<d>[^_]*)_l(?P<l>[^_]*)_m(?P<m>[^_]*)"
    r"_(?P<style>.+)"
)
_SECONDS_PATTERN = r"(?:[1-9][0-9]*|0|[1-9][0-9]*\.[0-9]*[1-9]|0\.[0-9]*[1-9])"
_CHANNEL_SLUG_PATTERN = r"[a-z0-9]+"
DATASET_PATTERN = rf"{_SECONDS_PATTERN}s_{_CHANNEL_SLUG_PATTERN}(?:-{_CHANNEL_SLUG_PATTERN})*"
# A file's name has up to 255 bytes on most disks, and more than the channels stands in it.
CHANNELS_MAX_LENGTH = 160
FINETUNED_SUFFIX = "_finetuned"


def _clamp(value: int, low: int, high: int) -> int:
    return max(low, min(high, value))


@dataclass(frozen=True, order=True)
class ModelName:
    """The identity of a model that its file name carries.

    ``mask_percent`` is the masking ratio in per cent of tokens. Raises :class:`RemitError` for a
    value outside the allowed range, so that every instance has a spelling.
    """

    d_model: int
    num_layers: int
    mask_percent: int
    masking_style: str

    def __post_init__(self) -> None:
        if not (D_MODEL_STEP <= self.d_model <= D_MODEL_MAX) or self.d_model % D_MODEL_STEP:
            raise RemitError(
                f"d_model is {self.d_model}; expected a multiple of {D_MODEL_STEP} between "
                f"{D_MODEL_STEP} and {D_MODEL_MAX}; the nearest is {_nearest_d_model(self.d_model)}."
            )
        if not 1 <= self.num_layers <= NUM_LAYERS_MAX:
            raise RemitError(
                f"num_layers is {self.num_layers}; expected 1 to {NUM_LAYERS_MAX}; choose one of those."
            )
        if not MASK_PERCENT_MIN <= self.mask_percent <= MASK_PERCENT_MAX:
            raise RemitError(
                f"mask_percent is {self.mask_percent}; expected {MASK_PERCENT_MIN} to "
                f"{MASK_PERCENT_MAX} (per cent of tokens); choose one of those."
            )
        if self.masking_style not in MASKING_STYLES:
            raise RemitError(
                f"masking_style is '{self.masking_style}'; expected one of "
                f"{', '.join(MASKING_STYLES)}.{did_you_mean(self.masking_style, MASKING_STYLES)}"
            )

    def __str__(self) -> str:
        return (
            f"{ARCHITECTURE}_d{self.d_model}_l{self.num_layers}"
            f"_m{self.mask_percent}_{self.masking_style}"
        )

    @property
    def finetuned(self) -> str:
        """The name of the fine-tuned model in the registry."""
        return f"{self}{FINETUNED_SUFFIX}"

    @property
    def parts(self) -> dict[str, int | str]:
        """What the name says, by name."""
        return asdict(self)

    @property
    def mask_ratio(self) -> float:
        """The fraction of tokens that is masked."""
        return self.mask_percent / 100

    @classmethod
    def parse(cls, name: str) -> ModelName:
        """Read a name such as ``mamba2_eeg_d256_l2_m20_mae``.

        Raises :class:`RemitError` with the nearest valid name when it is not the one spelling of a
        model.
        """
        match = _MODEL_GROUPS.fullmatch(name)
        if match:
            d_model, num_layers, mask_percent, style = match.groups()
            fits = int(d_model) % D_MODEL_STEP == 0 and int(d_model) <= D_MODEL_MAX
            if fits and int(num_layers) <= NUM_LAYERS_MAX:
                return cls(int(d_model), int(num_layers), int(mask_percent), style)
        raise RemitError(
            f"'{name}' is no model name; expected {ARCHITECTURE}_d<d_model>_l<layers>_m<mask %>_"
            f"<{'|'.join(MASKING_STYLES)}>, for example {_nearest_model_name(name)}."
        )


_LOOK_ALIKE = str.maketrans("OoIl", "0011")  # typed for a digit


def _nearest_d_model(value: int) -> int:
    return _clamp(round(value / D_MODEL_STEP) * D_MODEL_STEP, D_MODEL_STEP, D_MODEL_MAX)


def _number(text: str, default: int) -> int:
    digits = re.sub(r"[^0-9]", "", text.translate(_LOOK_ALIKE))[:9]
    return int(digits) if digits else default


def _nearest_model_name(name: str) -> str:
    loose = _MODEL_LOOSE.fullmatch(name)
    if not loose:
        return str(ModelName(256, 2, 20, "mae"))
    style = loose["style"].lower()
    by_overlap = sorted(MASKING_STYLES, key=lambda known: (known not in style, known))
    meant = did_you_mean(style, MASKING_STYLES)
    nearest_style = meant.split("'")[1] if meant else by_overlap[0]
    return str(
        ModelName(
            _nearest_d_model(_number(loose["d"], 256)),
            _clamp(_number(loose["l"], 2), 1, NUM_LAYERS_MAX),
            _clamp(_number(loose["m"], 20), MASK_PERCENT_MIN, MASK_PERCENT_MAX),
            nearest_style,
        )
    )


def check_id(kind: str, value: str, where: str = "") -> str:
    """Return ``value`` if it can be a file name, else raise :class:`RemitError`.

    ``kind`` says what it identifies (participant, recording, cohort) and ``where`` the file it
    stands in.
    """
    place = f" in {where}" if where else ""
    if not re.fullmatch(ID_PATTERN, value) or len(value) > ID_MAX_LENGTH:
        raise RemitError(
            f"{kind} '{value}'{place} cannot be a file name; expected up to {ID_MAX_LENGTH} letters, "
            f"digits, '-' and '_', beginning with a letter or digit; rename it."
        )
    if _REPEATED.search(value):
        raise RemitError(
            f"{kind} '{value}'{place} ends in {_SNAKEMAKE_REPEATS} or more repetitions, which Snakemake "
            "takes for a rule that feeds itself; expected fewer; rename it."
        )
    return value


def seconds_text(seconds: float) -> str:
    """The one spelling of a length in seconds: ``8``, ``2.5``."""
    text = f"{seconds:.6f}".rstrip("0").rstrip(".")
    if not re.fullmatch(_SECONDS_PATTERN, text) or float(text) <= 0:
        raise RemitError(
            f"window length {seconds} s has no name; expected a positive number of seconds."
        )
    return text


def dataset_name(window_seconds: float, channels: Sequence[str]) -> str:
    """``8s_af7-af8-tp9-tp10`` for a window length in seconds and channel names in their order.

    Where the names would be too long for a file's name, their number and a hash of them stand
    instead: ``8s_64channels-1f0c8a52d3``.
    """
    slugs = [channel.lower() for channel in channels]
    for channel, slug in zip(channels, slugs, strict=True):
        if not re.fullmatch(_CHANNEL_SLUG_PATTERN, slug):
            raise RemitError(
                f"channel '{channel}' cannot be part of a file name; expected letters and digits only, "
                "as in the 10-10 system; rename it."
            )
    if not slugs or len(set(slugs)) != len(slugs):
        raise RemitError(f"channels are {list(channels)}; expected at least one, each once.")
    joined = "-".join(slugs)
    if len(joined) > CHANNELS_MAX_LENGTH:
        digest = hashlib.sha256(joined.encode()).hexdigest()[:10]
        joined = f"{len(slugs)}channels-{digest}"
    return f"{seconds_text(window_seconds)}s_{joined}"


def mlflow_dataset_name(dataset: str, num_windows: int) -> str:
    """``EEG_8s_af7-af8-tp9-tp10_720windows_primary``: the dataset's name in MLflow."""
    return f"EEG_{dataset}_{num_windows}windows_primary"


# Path patterns, relative to the working directory. Snakemake fills the wildcards; `path` does so
# for everyone else. Nothing is written outside results/. A loosely read target takes the first that
# fits, so `{model}_random` stands before `{model}`.
RESULTS = "results"
EVALUATION_PICTURES = (
    *("candidates", "differences", "roc"),
    *("calibration", "participants", "subgroups"),
)
PATTERNS: dict[str, str] = {
    "simulated": "results/simulated/{cohort}/{recording}.edf",
    "cohort_sheet": "results/cohorts/{cohort}.tsv",
    "windows": "results/windows/{cohort}/{recording}.parquet",
    "primary": "results/primary/{dataset}_primary_dataset.parquet",
    "corpus": "results/corpora/{cohort}/{dataset}_dataset.parquet",
    "split": "results/splits/{dataset}_split.json",
    "figure_flow": "results/figures/{dataset}/flow.png",
    "figure_demographics": "results/figures/{dataset}/demographics.png",
    "figure_quality": "results/figures/{dataset}/quality.png",
    "figure_spectra": "results/figures/{dataset}/spectra.png",
    "figure_split": "results/figures/{dataset}/split.png",
    "figure_signal": "results/figures/{dataset}/signal.png",
    "folds": "results/folds/{dataset}_folds.json",
    "fold_split": "results/splits/folds/{dataset}_r{repeat}f{fold}_split.json",
    "pretrained": "results/pretrained/{model}.pt",
    "pretrained_card": "results/pretrained/{model}.json",
    "pretrained_fold": "results/pretrained/folds/r{repeat}f{fold}/{model}.pt",
    "diagnostics": "results/diagnostics/{model}.json",
    "diagnostics_skill": "results/diagnostics/{model}_skill.png",
    "diagnostics_bands": "results/diagnostics/{model}_bands.png",
    "checks": "results/figures/{model}/checks.png",
    "reconstruction": "results/figures/{model}/reconstruction.png",
    "embeddings_picture": "results/figures/{model}/embeddings.png",
    "finetuned": "results/finetuned/{model}_finetuned_best.pt",
    "finetuned_card": "results/finetuned/{model}_finetuned_best.json",
    "predictions": "results/predictions/{model}_finetuned/{cohort}.parquet",
    "history": "results/evaluation/{model}_finetuned/training_curves.png",
    "model_report": "results/evaluation/{model}_finetuned/report.html",
    "comparison": "results/evaluation/sweep/comparison.tsv",
    "comparison_parquet": "results/evaluation/sweep/comparison.parquet",
    "comparison_page": "results/evaluation/sweep/comparison.html",
    "comparison_picture": "results/figures/sweep.png",
    "embeddings_random": "results/embeddings/{model}_random.parquet",
    "embeddings": "results/embeddings/{model}.parquet",
    "embeddings_fold": "results/embeddings/folds/{model}/r{repeat}f{fold}.parquet",
    "features": "results/features/{dataset}_features.parquet",
    "evaluation": "results/evaluation/{model}/report.json",
    "evaluation_page": "results/evaluation/{model}/report.html",
    **{
        f"evaluation_{name}": f"results/figures/{{model}}/{name}.png"
        for name in EVALUATION_PICTURES
    },
    "model_card": "results/evaluation/{model}/model_card.md",
    "head": "results/evaluation/{model}/head.json",
    "evaluation_table": "results/evaluation/table.tsv",
    "evaluation_picture": "results/figures/sweep_evaluation.png",
    "run_resources": "results/figures/resources.png",
    "run_resources_table": "results/figures/resources.tsv",
    "predictions_new": "results/predictions/{model}/{cohort}.parquet",
    "test_reads": "results/test_reads.tsv",
    "mlflow_database": "results/mlflow.db",
    "mlflow_artifacts": "results/mlflow_artifacts",
    "mlflow_journal": "results/mlflow_journal",
}
# A backbone somebody else trained: put it here and it is used instead of pretraining.
DROP_IN_PATTERN = "resources/pretrained/{model}.pt"

WILDCARD_CONSTRAINTS: dict[str, str] = {
    "model": MODEL_PATTERN,
    "dataset": DATASET_PATTERN,
    "cohort": ID_PATTERN,
    "recording": ID_PATTERN,
    "repeat": r"[1-9][0-9]{0,2}",
    "fold": r"[1-9][0-9]{0,2}",
}


def path(kind: str, **values: str) -> str:
    """The path of a file of this kind, with every wildcard checked against its constraint."""
    filled = pattern(kind, **values)
    if "{" in filled:
        raise ValueError(f"{kind} lacks a value in {filled}")
    return filled


def pattern(kind: str, **fixed: str) -> str:
    """The pattern of a kind with some wildcards filled and the others left to Snakemake."""
    filled = PATTERNS[kind]
    for key, value in fixed.items():
        if not re.fullmatch(WILDCARD_CONSTRAINTS[key], value):
            raise RemitError(
                f"{key} '{value}' does not fit {WILDCARD_CONSTRAINTS[key]} in {filled}."
            )
        filled = filled.replace(f"{{{key}}}", value)
    return filled


def model_of_path(kind: str, file: str) -> ModelName:
    """Read the model from a path such as ``…/mamba2_eeg_d256_l2_m20_mae_finetuned_best.pt``.

    It stands in the file's name, or in that of a folder that the kind's pattern has it in.
    """
    parts = PurePosixPath(PATTERNS[kind]).parts
    above = next(n for n, part in enumerate(reversed(parts)) if "{model}" in part)
    prefix, suffix = parts[-1 - above].split("{model}")
    found = PurePosixPath(str(file).replace("\\", "/")).parts
    name = found[-1 - above] if len(found) > above else ""
    if not (name.startswith(prefix) and name.endswith(suffix)):
        shown = "/".join(parts[-1 - above :]).replace("{", "<").replace("}", ">")
        raise RemitError(f"{file}: expected a file name of the form {shown}.")
    return ModelName.parse(name[len(prefix) : len(name) - len(suffix)])


def is_pretrained(file: str | PurePosixPath) -> bool:
    """Whether a path has the file name of a pretrained checkpoint."""
    path = PurePosixPath(file)
    return path.suffix == ".pt" and re.fullmatch(MODEL_PATTERN, path.stem) is not None


def is_of_fold(file: str | PurePosixPath) -> bool:
    """Whether a path lies in the folder of a fold, `r1f3`."""
    return re.fullmatch(r"r[0-9]+f[0-9]+", PurePosixPath(file).parent.name) is not None


def _as_regex(pattern: str, constraint: dict[str, str]) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", pattern)
    expression = "".join(
        re.escape(part) if index % 2 == 0 else f"(?P<{part}>{constraint[part]})"
        for index, part in enumerate(parts)
    )
    return re.compile(expression)


def read_target(target: str) -> tuple[str, dict[str, str]] | None:
    """The kind and the wildcards' values of a path under results/, read loosely; None for none of ours."""
    loose = dict.fromkeys(WILDCARD_CONSTRAINTS, r"[^/]+")
    for kind, candidate in PATTERNS.items():
        found = _as_regex(candidate, loose).fullmatch(target)
        if found:
            return kind, found.groupdict()
    return None


def model_of_target(target: str, kind: str, values: dict[str, str]) -> ModelName:
    """The model that a target asks for; raises :class:`RemitError` with the nearest valid target."""
    try:
        return ModelName.parse(values["model"])
    except RemitError as error:
        nearest = PATTERNS[kind].format(**{**values, "model": _nearest_model_name(values["model"])})
        raise RemitError(f"target {target}: {error} Ask for {nearest}.") from None
