"""The settings of a run: one strict model, from which defaults, schema and documentation are made.

Result settings change what is computed; execution settings only say how and where. Each stage is
given its own part and nothing else, so Snakemake reruns exactly what a change touches. Imports no
stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from remit.errors import RemitError, did_you_mean, some_of
from remit.naming import MASKING_GEOMETRIES, MASKING_STYLES, ModelName, check_id, dataset_name

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
MaskPercent = Annotated[int, Field(ge=5, le=100)]


# Execution settings reach the commands in this variable, as JSON.
EXECUTION_VARIABLE = "REMIT_EXECUTION"


class Settings(BaseModel):
    """A part of the configuration: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Simulation(Settings):
    """A simulated cohort, marked as simulated in everything made from it."""

    participants: Count = 24
    """Number of participants."""
    remission_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.375
    """Fraction of participants that remit (9 of 24 by default)."""
    minutes: Positive = 4.0
    """Length of each recording in minutes."""
    effect: NonNegative = 1.0
    """Size of the group difference: 1 gives remitters alpha of 1.6 times the amplitude and a frontal
    alpha asymmetry (AF8 over AF7) of 0.5 in the natural log of power; 0 gives a null cohort."""
    mains_hz: Literal[50, 60] = 50
    """Frequency of the simulated mains noise in Hz."""
    seed: Annotated[int, Field(ge=0)] = 7
    """Seed of the simulation; the same seed gives the same bytes."""


class Label(Settings):
    """How the outcome is read from a column of participants.tsv: by `values` or by a `threshold`."""

    column: str
    """The column that holds the outcome."""
    values: dict[str, Literal[0, 1]] | None = None
    """What each value of that column means: 1 is the class of interest (remission), 0 is not. A
    value that is missing or 'n/a' means unknown; any other value is refused."""
    threshold: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """The number that divides the two classes, for a column of numbers such as a symptom score. A
    value that is missing or 'n/a' means unknown; any other that is no number is refused."""
    positive: Literal["below", "at_or_below", "above", "at_or_above"] | None = None
    """Which side of the threshold is the class of interest. Remission as a score of 7 or less is
    `threshold: 7` and `positive: at_or_below`."""

    @field_validator("values", mode="before")
    @classmethod
    def _text_keys(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        if any(isinstance(key, bool) for key in values):
            raise ValueError(
                "has a key that YAML reads as true or false; expected the text as in the table; put "
                "yes, no, on, off, true and false into quotes"
            )
        return {str(key): value for key, value in values.items()}

    @model_validator(mode="after")
    def _one_meaning(self) -> Label:
        if (self.values is None) == (self.threshold is None):
            found = "neither" if self.values is None else "both"
            raise ValueError(f"has {found} of values and threshold; expected exactly one of them")
        if self.values is not None and not self.values:
            raise ValueError("values is empty; expected what each value of the column means")
        if (self.threshold is None) != (self.positive is None):
            raise ValueError(
                "threshold and positive belong together; expected both, such as threshold: 7 and "
                "positive: at_or_below"
            )
        return self

    @property
    def meaning(self) -> str:
        """What is read as 1, for a report: 'good = 1, bad = 0' or 'at or below 7 = 1'."""
        if self.values is not None:
            return ", ".join(f"{key} = {value}" for key, value in self.values.items())
        return f"{str(self.positive).replace('_', ' ')} {self.threshold:g} = 1"


class Scan(Settings):
    """A folder from which the cohort sheet is made."""

    root: str
    """The folder, or a single file that holds several recordings (.mat); absolute or relative to the
    working directory."""
    layout: Literal["bids", "folder"] = "bids"
    """'bids': sub-*/[ses-*/]eeg files with participants.tsv; 'folder': recordings in one folder per
    participant, or named after the participant, with an optional participants.tsv."""
    label: Label | None = None
    """Where the outcome stands; without it every participant is unlabelled."""
    covariates: list[str] = []
    """Columns of participants.tsv to keep, for example age and sex."""
    require_label: bool = False
    """Leave out (and list) participants for whom the label is unknown."""
    tasks: list[str] = []
    """BIDS tasks to take, for example [rest]; all when empty."""
    sessions: list[str] = []
    """BIDS sessions to take, for example [baseline]; all when empty."""
    runs: list[str] = []
    """BIDS runs to take, for example [1]; all when empty."""

    @field_validator("tasks", "sessions", "runs", mode="before")
    @classmethod
    def _texts(cls, values: Any) -> Any:
        if not isinstance(values, list | tuple):
            return values
        if any(isinstance(value, bool) for value in values):
            raise ValueError(
                "has a value that YAML reads as true or false; expected text; put it into quotes"
            )
        return [str(value) if isinstance(value, int) else value for value in values]

    @model_validator(mode="after")
    def _filters_need_bids(self) -> Scan:
        given = [key for key in ("tasks", "sessions", "runs") if getattr(self, key)]
        if given and self.layout != "bids":
            raise ValueError(
                f"{given[0]} is given with layout '{self.layout}'; expected layout 'bids', whose "
                "file names say task, session and run"
            )
        return self


class Cohort(Settings):
    """Where the recordings of one cohort come from: exactly one of simulate, sheet and scan."""

    simulate: Simulation | None = None
    """Make the recordings."""
    sheet: str | None = None
    """A cohort sheet (TSV), absolute or relative to the working directory."""
    scan: Scan | None = None
    """A folder to scan."""
    root: str | None = None
    """Folder that the sheet's paths are relative to; the sheet's own folder by default."""
    follow_links_to: list[str] = []
    """Folders outside the cohort's to which symbolic links below it may lead. Other links out of it are
    refused; the folder itself may be a link."""
    sampling_rate: Positive | None = None
    """Sampling rate in Hz of files that do not state one (.mat, CSV without time stamps)."""
    channel_names: list[str] | None = None
    """Channel names, in the order of the file, of files that do not state them (.mat, CSV)."""
    channels: list[str] | None = None
    """The electrodes to use of a cohort of pretraining.extra_cohorts, where they are not the top-level
    `channels`. Montages of any size train together."""
    units: str | None = None
    """Unit of files that do not state one: uV, mV, V, nV, or the microvolts of one count, such as
    '0.02235 uV'. Without it the size of the numbers decides where it can."""
    allow_truncated: bool = False
    """Read what is there of files that hold less than their header promises, instead of refusing them."""

    @model_validator(mode="after")
    def _one_source(self) -> Cohort:
        given = [key for key in ("simulate", "sheet", "scan") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(
                f"has {' and '.join(given) or 'no source'}; expected exactly one of simulate, sheet, scan"
            )
        return self


class Upsample(Settings):
    """Raising the sampling rate."""

    factor: Annotated[int, Field(ge=1, le=16)] = 2
    """Whole factor by which the rate is raised before filtering."""
    method: Literal["linear", "bandlimited"] = "bandlimited"
    """'linear' interpolation, as in the original pipeline, or 'bandlimited', which adds nothing."""


class Butterworth(Settings):
    """A zero-phase Butterworth filter, as second-order sections."""

    cutoff_hz: Positive
    """Cut-off (-3 dB for one pass) in Hz. The filter runs forwards and backwards, so it is -6 dB here."""
    order: Annotated[int, Field(ge=1, le=12)] = 4
    """Order of one pass."""


class Notch(Settings):
    """Zero-phase notches at some frequencies."""

    frequencies_hz: list[Positive] | Literal["mains"] = "mains"
    """Frequencies to remove; 'mains' is 50 or 60 Hz with its harmonics, as the recording states it, else
    as its spectrum shows it, else none."""
    quality: Positive = 30.0
    """Centre frequency divided by the width at -3 dB."""

    @field_validator(
        "frequencies_hz",
        mode="before",
        json_schema_input_type=Positive | list[Positive] | Literal["mains"],
    )
    @classmethod
    def _one_or_several(cls, given: Any) -> Any:
        values = given if isinstance(given, list | tuple) else [given]
        numbers = [
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and 0 < value < float("inf")
            for value in values
        ]
        if given != "mains" and not all(numbers):
            raise ValueError(
                "is neither 'mains' nor frequencies; expected 'mains', a positive number of Hz such "
                "as 50, or a list of them such as [50, 100]"
            )
        return given if given == "mains" else [float(value) for value in values]


class Quality(Settings):
    """When a window is marked bad: one channel is enough. Windows are marked and counted, never dropped
    unseen. The defaults reject only what is certainly not EEG."""

    flat_uv: NonNegative = 0.05
    """Two successive raw samples that differ by no more than this many microvolts count as flat."""
    flat_seconds: Positive = 0.25
    """Only flat stretches at least this long count."""
    max_flat_fraction: Fraction | None = 0.1
    """A window with a larger flat fraction is bad. Null here and below: no limit."""
    max_clipped_fraction: Fraction | None = 0.01
    """A window with more samples at the recording's extreme value is bad."""
    max_dropout_fraction: Fraction | None = 0.1
    """A window with more samples missing (bridged) or repeated on all channels is bad."""
    max_peak_to_peak_uv: Positive | None = 1000.0
    """A window with a larger peak-to-peak amplitude, after filtering, is bad."""
    max_line_noise_ratio: Positive | None = None
    """A window with more power at the mains than this many times that at 1-30 Hz is bad."""
    max_high_frequency_ratio: Positive | None = None
    """A window with more power at 30-100 Hz (muscle) than this many times that at 1-30 Hz is bad."""
    max_spectral_flatness: Annotated[float, Field(gt=0, le=1)] | None = 0.9
    """A window whose spectrum is flatter is bad: 1 is white noise, as of damaged bytes. Of real Muse
    windows none was above 0.87. Recordings with a median above 0.8 are refused, unless this is null."""
    min_contact_fraction: Annotated[float, Field(ge=0, le=1)] | None = None
    """A window in which the headset reports contact for less of the time is bad."""
    min_worn_fraction: Annotated[float, Field(ge=0, le=1)] | None = 0.5
    """A window in which the headset reports to be on a head for less of the time is bad."""
    use_bad_channels: bool = False
    """Use windows in which the source itself calls a channel bad (BIDS channels.tsv, FIF)."""


class Preprocessing(Settings):
    """The signal chain, in this order. Null leaves a step out."""

    bridge_seconds: NonNegative = 0.1
    """Gaps up to this long (a packet or two) are bridged by a straight line and counted as dropout;
    longer ones end a segment, and nothing is joined across them."""
    reference: str | Annotated[list[str], Field(min_length=1)] | None = None
    """Re-reference to the 'average' of all electrodes of the recording, to 'linked_mastoids' (M1 and M2,
    or A1 and A2), or to one or several electrodes by name. Null leaves the recording's own reference."""
    upsample: Upsample | None = Upsample()
    """Raise the rate before filtering."""
    highpass: Butterworth | None = Butterworth(cutoff_hz=0.5, order=2)
    """Zero-phase Butterworth high-pass, against drift of the electrodes."""
    notch: Notch | None = Notch()
    """Zero-phase notch against line noise."""
    lowpass: Butterworth | None = Butterworth(cutoff_hz=60.0, order=4)
    """Zero-phase Butterworth low-pass."""
    sampling_rate: Positive = 256.0
    """Rate in Hz to which everything is brought after filtering, whatever the source's."""
    window_seconds: Positive = 8.0
    """Length of a window in seconds."""
    overlap_seconds: NonNegative = 0.0
    """Overlap of successive windows in seconds."""
    offset: Literal["mean", "median"] | None = "mean"
    """Constant removed from each window and channel."""
    quality: Quality = Quality()
    """When a window is marked bad."""

    @field_validator("reference", mode="before")
    @classmethod
    def _is_a_reference(cls, given: Any) -> Any:
        names = given if isinstance(given, list | tuple) else [given]
        if given is not None and (not names or not all(isinstance(n, str) and n for n in names)):
            raise ValueError(
                "is no reference; expected null, average, linked_mastoids, an electrode's name or a "
                "list of them"
            )
        if isinstance(given, str) and given.lower() in ("none", "null", "no", "off", "original"):
            raise ValueError(
                f"is '{given}'; expected null, without quotes, to leave the recording's own reference"
            )
        for known in ("average", "linked_mastoids"):
            plain = str(given).lower().replace("-", "_").replace(" ", "_")
            if plain == known and given != known:
                raise ValueError(f"expected the spelling '{known}'. Did you mean '{known}'?")
        return given

    @model_validator(mode="after")
    def _consistent(self) -> Preprocessing:
        samples = self.window_seconds * self.sampling_rate
        if abs(samples - round(samples)) > 1e-9:
            raise ValueError(
                f"window_seconds {self.window_seconds:g} at {self.sampling_rate:g} Hz is {samples:g} "
                "samples; expected a whole number"
            )
        overlap = self.overlap_seconds * self.sampling_rate
        if abs(overlap - round(overlap)) > 1e-9:
            raise ValueError(
                f"overlap_seconds {self.overlap_seconds:g} at {self.sampling_rate:g} Hz is {overlap:g} "
                "samples; expected a whole number"
            )
        if (
            self.highpass is not None
            and self.lowpass is not None
            and self.highpass.cutoff_hz >= self.lowpass.cutoff_hz
        ):
            raise ValueError(
                f"highpass.cutoff_hz is {self.highpass.cutoff_hz:g}; expected less than "
                f"lowpass.cutoff_hz ({self.lowpass.cutoff_hz:g} Hz)"
            )
        if self.overlap_seconds >= self.window_seconds:
            raise ValueError(
                f"overlap_seconds is {self.overlap_seconds:g}; expected less than window_seconds "
                f"({self.window_seconds:g})"
            )
        if self.lowpass is not None and self.lowpass.cutoff_hz >= self.sampling_rate / 2:
            raise ValueError(
                f"lowpass.cutoff_hz is {self.lowpass.cutoff_hz:g}; expected less than half of "
                f"sampling_rate ({self.sampling_rate / 2:g} Hz)"
            )
        return self


class Split(Settings):
    """The participant-level split, made before pretraining."""

    validation: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Fraction of each class for choosing the epoch."""
    test: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Fraction of each class that is touched once, at the end."""
    unlabelled: Literal["refuse", "pretraining"] = "refuse"
    """What to do with a participant whose label is unknown: stop, or use in pretraining only."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the split."""

    @model_validator(mode="after")
    def _room_for_training(self) -> Split:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation + test is {self.validation + self.test:g}; expected less than 1"
            )
        return self


class Sequences(Settings):
    """How windows become the token sequences that the model reads."""

    token_seconds: Positive = 0.5
    """Length of one token (one channel) in seconds; equal to window_seconds it is the original design."""
    context_windows: Count = 2
    """Number of successive windows in one sequence."""
    use_bad_windows: bool = False
    """Train and predict on windows marked bad as well. They are counted either way."""


class Model(Settings):
    """The default model, and what its name does not carry."""

    d_model: Count = 256
    """Width of the model (of the default model; a file name says its own)."""
    num_layers: Count = 2
    """Number of Mamba-2 blocks (of the default model)."""
    mask_percent: MaskPercent = 50
    """Per cent of tokens that pretraining masks (of the default model)."""
    masking_style: str = "mae"
    """'mae' or 'bert' (of the default model)."""
    d_state: Count = 64
    """Size of the state of each head."""
    d_conv: Annotated[int, Field(ge=1, le=8)] = 4
    """Width of the causal convolution in tokens."""
    expand: Count = 2
    """Inner width divided by d_model."""
    headdim: Count = 64
    """Width of a head; it must divide expand * d_model."""
    token_hidden: Annotated[int, Field(ge=0)] = 512
    """Units of the perceptron that reads a token's samples beside the linear map; 0 leaves it out."""
    token_spectrum_hz: NonNegative = 45.0
    """Read a token's log power spectrum up to this frequency in Hz beside its samples; 0 leaves it out."""
    chunk_size: Count = 64
    """Chunk length of the state-space-duality scan; it changes speed, and results only by rounding."""
    bidirectional: bool = True
    """Read each sequence in both directions."""
    shared_directions: bool = False
    """Let both directions share one set of weights: half the parameters."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """'bfloat16' rounds the factors of a block's projections, and in pretraining of the products around the
    blocks (parameters, gradients, decays, states, norms and losses stay float32):
    faster where `remit doctor` finds bfloat16 instructions, very slow elsewhere, off by some 0.5 %."""

    @model_validator(mode="after")
    def _directions(self) -> Model:
        if self.shared_directions and not self.bidirectional:
            raise ValueError(
                "shared_directions is true and bidirectional false; expected two directions to share "
                "weights; set bidirectional, or leave shared_directions out"
            )
        return self

    @model_validator(mode="after")
    def _name(self) -> Model:
        try:
            ModelName(self.d_model, self.num_layers, self.mask_percent, self.masking_style)
        except RemitError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def name(self) -> ModelName:
        """The name of the default model."""
        return ModelName(self.d_model, self.num_layers, self.mask_percent, self.masking_style)


def _each_once(values: list[Any]) -> list[Any]:
    twice = sorted({str(value) for value in values if values.count(value) > 1})
    if twice:
        raise ValueError(f"{some_of(twice)} stands there more than once; expected each once")
    return values


class Pretraining(Settings):
    """Masked reconstruction."""

    extra_cohorts: list[str] = []
    """Further cohorts (keys of `cohorts`) whose recordings are used in pretraining only."""
    corpus_weights: dict[str, Annotated[float, Field(gt=0, le=1000)]] = {}
    """How often each sequence of a cohort (an extra one or the main one) stands in an epoch: 1 where
    nothing is given; 0.5 takes half of them, drawn anew each epoch; 2 takes each twice, masked anew."""
    extra_ids: Literal["same", "other"] = "same"
    """Whether a participant of an extra cohort with an id of the main cohort is the 'same' person, and
    so refused when held out, or some 'other' one."""
    own_cohort: bool = True
    """Let the training participants of the cohort in question into pretraining. False leaves all of its
    people out and pretrains on `extra_cohorts` alone, the first of which decides when to stop."""
    transductive: bool = False
    """Let the validation and test participants into pretraining. Every report then says so."""
    epochs: Count = 40
    """Epochs at most; after each the participants kept aside are looked at. An epoch is a pass over the
    training sequences, or several where `least_steps` asks for more."""
    least_steps: Annotated[int, Field(ge=0, le=10**7)] = 1000
    """Optimiser steps that all epochs together have at least: where there are few sequences, an epoch is
    several passes over them, each masked anew. The presets of real recordings take 2000, and so does
    what `remit cohort scan` writes. For a quick look set it to 0, and few epochs."""
    batch_size: Count = 8
    """Sequences per optimiser step."""
    learning_rate: Positive = 2e-3
    """Peak learning rate of AdamW."""
    weight_decay: NonNegative = 0.05
    """Weight decay of AdamW, on matrices only."""
    warmup_fraction: Fraction = 0.1
    """Part of all steps in which the learning rate rises linearly; then it falls as a cosine."""
    gradient_clip: Positive = 1.0
    """Largest norm of the gradient."""
    early_stopping_fraction: Annotated[float, Field(gt=0, lt=0.5)] = 0.15
    """Part of the training participants kept aside to decide when to stop."""
    patience: Count = 40
    """Epochs without improvement on the participants kept aside, before it stops. The best epoch is kept
    anyway, and a plateau comes before the waveform is learned (docs/benchmarks.md): few are a trap."""
    geometry: str = "mixed"
    """Which tokens are masked: blocks on one channel and across all ('mixed'), only 'single_channel' or
    only 'all_channels' ones, or 'independent' tokens."""
    block_seconds: tuple[Positive, Positive] = (1.0, 2.0)
    """Shortest and longest masked block in seconds; a token that is longer is a block by itself."""
    single_channel_fraction: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Part of the blocks that lies on one channel where geometry is 'mixed'; the others lie across all."""
    waveform_weight: NonNegative = 1.0
    """Weight of the waveform's loss."""
    spectrum_weight: NonNegative = 0.5
    """Weight of the log spectrum's loss."""
    spectrum_hz: tuple[Positive, Positive] = (1.0, 45.0)
    """Lowest and highest frequency of the log spectrum in Hz."""
    pooled_weight: NonNegative = 0.0
    """Weight of the same two losses where masked tokens are predicted from the mean of the visible ones."""
    latent_weight: NonNegative = 0.0
    """Weight of the loss against the tokens of a teacher that sees the whole sequence."""
    latent_decay: Annotated[float, Field(ge=0, lt=1)] = 0.996
    """Part of itself that the teacher, a moving average of the backbone, keeps at each optimiser step."""
    shuffle_mb: Positive = 1024.0
    """Signal that is held in memory and shuffled at a time, in MB (millions of bytes); a recording that
    is longer is held by itself. Where all of it fits in, it is read once."""
    random_shift: bool = True
    """Let the tokens of a training sequence begin a random part of a token later at each pass. Not of
    sequences of fewer than 8 token steps, for it costs the last one."""
    random_sign: bool = True
    """Turn half of the training sequences upside down, all channels together: what is known of one
    electrode from the others stays true."""
    random_gain: Annotated[float, Field(ge=0, le=2)] = 0.2
    """Standard deviation of the natural log of a random amplitude of each training sequence."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of initialisation, order, masks and random changes."""

    _once = field_validator("extra_cohorts")(_each_once)

    @field_validator("geometry")
    @classmethod
    def _known_geometry(cls, geometry: str) -> str:
        if geometry not in MASKING_GEOMETRIES:
            raise ValueError(
                f"'{geometry}' is no masking geometry; expected one of {', '.join(MASKING_GEOMETRIES)}."
                f"{did_you_mean(geometry, MASKING_GEOMETRIES)}"
            )
        return geometry

    @model_validator(mode="after")
    def _somebody_to_train_on(self) -> Pretraining:
        if not self.own_cohort and not self.extra_cohorts:
            raise ValueError(
                "own_cohort is false and extra_cohorts is empty; expected somebody to train on; name other "
                "cohorts in extra_cohorts"
            )
        if not self.own_cohort and self.transductive:
            raise ValueError(
                "own_cohort is false and transductive true; expected the cohort's people to be left out or "
                "let in; leave one of the two settings out"
            )
        return self

    @model_validator(mode="after")
    def _ranges(self) -> Pretraining:
        for key in ("block_seconds", "spectrum_hz"):
            low, high = getattr(self, key)
            if low > high:
                raise ValueError(f"{key} is ({low:g}, {high:g}); expected the smaller number first")
        if self.waveform_weight + self.spectrum_weight <= 0:
            raise ValueError("waveform_weight and spectrum_weight are 0; expected one above 0")
        return self


class Diagnostics(Settings):
    """What is measured of a pretrained backbone, on participants that it has not seen."""

    sequences_per_participant: Count = 16
    """Sequences of each participant that are looked at, evenly over their recordings, at most."""
    masks_per_sequence: Count = 1
    """Masks drawn for each sequence and each kind of block."""
    resamples: Annotated[int, Field(ge=100)] = 1000
    """Resamples of the bootstrap over participants."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of masks, exchanged contexts, random weights and resamples."""


class Finetuning(Settings):
    """The classifier of participants."""

    freeze_backbone: bool = True
    """Train the head alone, on embeddings computed once; false trains all layers."""
    epochs: Count = 50
    """Passes over the training participants."""
    batch_size: Count = 8
    """Participants per batch."""
    gradient_accumulation: Count = 1
    """Batches per optimiser step."""
    learning_rate: Positive = 1e-4
    """Learning rate of the head (AdamW, cosine annealing)."""
    backbone_learning_rate: Positive = 1e-5
    """Learning rate of the backbone when it is not frozen."""
    weight_decay: NonNegative = 0.01
    """Weight decay of AdamW."""
    gradient_clip: Positive = 1.0
    """Largest norm of the gradient."""
    dropout: Fraction = 0.1
    """Dropout in the head."""
    class_weights: Literal["none", "balanced"] = "none"
    """'balanced' weighs the cross-entropy by the inverse frequency of the classes in training."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of initialisation, order and dropout."""


class Evaluation(Settings):
    """The answer for a small cohort: participants are predicted by what was fitted on others."""

    pretraining: Literal["per_fold", "held_out", "transductive"] = "per_fold"
    """What a backbone may have seen of the people it is evaluated on. 'per_fold': nothing; one is pretrained
    for each fold, without its test people (`folds` times `repeats` of them). 'held_out': nothing; the
    one backbone comes from other cohorts (`pretraining.own_cohort: false`, or a file from elsewhere), and
    is refused if it has seen any of them. 'transductive': their recordings, though never their labels; every
    figure then says so. A backbone from elsewhere is used as it is, and what it says of itself counts."""
    folds: Annotated[int, Field(ge=2, le=999)] = 5
    """Parts that the labelled participants are divided into; each is predicted by what was fitted on
    the others. Never more than the smaller class has people."""
    repeats: Annotated[int, Field(ge=1, le=999)] = 10
    """How often the participants are divided anew."""
    inner_folds: Annotated[int, Field(ge=2)] = 5
    """Parts that the participants of a fit are divided into once more, to choose `strengths` and the
    threshold without a look at the test people."""
    strengths: Annotated[list[Positive], Field(min_length=1)] = [1.0, 10.0, 100.0, 1e3, 1e4]
    """Strengths of the classifier's L2 penalty to choose from, on standardised features: scikit-learn's
    1 / C. The larger, the nearer all predictions are to the prevalence."""
    select: Count | None = None
    """Keep only so many features, those that differ most between the classes, chosen anew inside each
    fit. Null keeps all."""
    permutations: Annotated[int, Field(ge=19)] = 1000
    """How often the whole fit is done again with the labels shuffled among the participants, for the
    p value; 19 can just give 0.05."""
    resamples: Annotated[int, Field(ge=100)] = 2000
    """Resamples of the bootstrap over participants, for the intervals."""
    convolutional: bool = False
    """Also compare with a small convolutional network (EEGNet) trained from scratch in every fold of the
    first 3 repeats at most. Slow, up to minutes for each fold; it needs the extra `convolutional` to be
    installed."""
    finetuned: bool = False
    """Also compare with the backbone fine-tuned in full, as the section `finetuning` says but with nothing
    frozen and the last epoch kept, in every fold of the first 3 repeats at most. Slow: all epochs once
    more for each of these folds."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of folds, shuffled labels, resamples and random weights."""

    _once = field_validator("strengths")(_each_once)


class Sweep(Settings):
    """The grid that `snakemake sweep` builds, at the default model's size."""

    mask_percents: Annotated[list[MaskPercent], Field(min_length=1)] = [20, 30, 40, 50, 60, 70, 80]
    """Mask ratios in per cent."""
    masking_styles: Annotated[list[str], Field(min_length=1)] = list(MASKING_STYLES)
    """Masking styles."""

    _once = field_validator("mask_percents", "masking_styles")(_each_once)

    @field_validator("masking_styles")
    @classmethod
    def _known(cls, styles: list[str]) -> list[str]:
        for style in styles:
            if style not in MASKING_STYLES:
                raise ValueError(
                    f"'{style}' is no masking style; expected some of {', '.join(MASKING_STYLES)}."
                    f"{did_you_mean(style, MASKING_STYLES)}"
                )
        return styles


class Execution(Settings):
    """How and where things run. Nothing here causes a rerun or changes a result, but for the last
    digits: another device, backend or number of threads adds up in another order."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of training; 'auto' takes CUDA when there is one."""
    backend: Literal["auto", "torch", "mamba_ssm"] = "auto"
    """What computes Mamba-2: remit's own PyTorch code, or mamba-ssm's kernels on CUDA; 'auto' takes
    these where they work. `remit doctor` says which do."""
    fast_products: bool = True
    """On a CPU, multiply float32 matrices with oneDNN where that is as exact and faster."""
    ranks: Literal["auto"] | Count = "auto"
    """Processes that share one pretraining, started by torchrun; 'auto' takes one for each visible CUDA
    device, and one on a CPU, where a number starts as many, each with its part of training_threads."""
    compile: bool = False
    """Compile with torch.compile, in pretraining, what surrounds the Mamba-2 blocks (on CUDA without
    mamba-ssm the blocks too). It needs a C++ compiler and takes a minute at the start."""
    micro_batch: Literal["auto"] | Count = "auto"
    """Sequences that pass through the model at once; a larger batch is added up from several passes.
    'auto' takes the whole batch (of a rank), and half as many whenever memory runs out."""
    save_minutes: Positive = 5.0
    """Minutes between two saves of a training's state within an epoch; it is saved after each epoch too."""
    training_threads: Count = 2
    """CPU threads of one training, whatever Snakemake's --cores: the same number gives the same bits."""
    training_mem_mb: Count = 4000
    """Memory in MB that a training may take."""
    training_runtime_min: Count = 1440
    """Minutes that a training may take."""
    gpu: Annotated[int, Field(ge=0)] = 0
    """GPUs that a training asks the scheduler for."""
    mlflow: bool = True
    """Log to MLflow."""
    mlflow_uri: str | None = None
    """Tracking server; by default an sqlite database under results/."""
    mlflow_experiment: str = "remit"
    """Name of the MLflow experiment."""


class Config(Settings):
    """Everything in config.yaml."""

    cohort: str = "simulated"
    """The cohort that the question is about: a key of `cohorts`."""
    cohorts: dict[str, Cohort] = {"simulated": Cohort(simulate=Simulation())}
    """The cohorts by name."""
    channels: list[str] = ["AF7", "AF8", "TP9", "TP10"]
    """The electrodes to use, 10-10 names, in the order of the primary dataset."""
    preprocessing: Preprocessing = Preprocessing()
    sequences: Sequences = Sequences()
    split: Split = Split()
    model: Model = Model()
    pretraining: Pretraining = Pretraining()
    diagnostics: Diagnostics = Diagnostics()
    finetuning: Finetuning = Finetuning()
    evaluation: Evaluation = Evaluation()
    sweep: Sweep = Sweep()
    execution: Execution = Execution()

    @model_validator(mode="after")
    def _references(self) -> Config:
        try:
            for name in self.cohorts:
                check_id("cohort", name, "cohorts")
            for name in self.cohorts:
                self.dataset_of(name)
        except RemitError as error:
            raise ValueError(str(error)) from None
        for name in (self.cohort, *self.pretraining.extra_cohorts):
            if name not in self.cohorts:
                raise ValueError(
                    f"cohort '{name}' is not in cohorts; expected one of {some_of(self.cohorts)}."
                    f"{did_you_mean(name, self.cohorts)}"
                )
        own = [self.cohort] if self.pretraining.own_cohort else []
        used = [*own, *self.pretraining.extra_cohorts]
        for name in self.pretraining.corpus_weights:
            if name not in used:
                raise ValueError(
                    f"pretraining.corpus_weights names '{name}', which pretraining does not use; expected "
                    f"some of {some_of(used)}.{did_you_mean(name, used)}"
                )
        if self.channels_of(self.cohort) != self.channels:
            raise ValueError(
                f"cohorts.{self.cohort}.channels is {self.channels_of(self.cohort)}, but channels, which "
                f"holds for the cohort in question, is {self.channels}; set channels only"
            )
        # Somebody's own recordings, with the cohort in question forgotten; made-up people may be predicted.
        recorded = {name for name, its in self.cohorts.items() if its.simulate is None}
        idle = sorted(recorded - set(self.pretraining.extra_cohorts))
        if self.cohort == "simulated" and idle:
            raise ValueError(
                f"cohorts has '{some_of(idle)}', but cohort is 'simulated'; expected it to be used; set "
                f"cohort: {idle[0]}, or list it in pretraining.extra_cohorts"
            )
        reference = self.preprocessing.reference
        names = [reference] if isinstance(reference, str) else reference or []
        for name in (self.cohort, *self.pretraining.extra_cohorts):
            if len(names) == 1 and names[0] in self.channels_of(name):
                place = "channels" if name == self.cohort else f"the channels of cohort '{name}'"
                raise ValueError(
                    f"preprocessing.reference is {names[0]}, which is one of {place} and would be flat; "
                    "expected another reference, or channels without it"
                )
        whole = self.preprocessing.window_seconds * self.sequences.context_windows
        if self.pretraining.block_seconds[1] > whole:
            raise ValueError(
                f"pretraining.block_seconds goes up to {self.pretraining.block_seconds[1]:g}; expected at "
                f"most the length of a sequence, {whole:g} s"
            )
        nyquist = self.preprocessing.sampling_rate / 2
        low, high = self.pretraining.spectrum_hz
        spacing = 1 / self.sequences.token_seconds
        first = -(-low // spacing) * spacing
        if high > nyquist or first > high:
            raise ValueError(
                f"pretraining.spectrum_hz is ({low:g}, {high:g}); expected a range up to {nyquist:g} Hz "
                f"that holds a multiple of {spacing:g} Hz (1 / sequences.token_seconds)"
            )
        if not self.pretraining.own_cohort and self.evaluation.pretraining == "per_fold":
            raise ValueError(
                "pretraining.own_cohort is false and evaluation.pretraining 'per_fold'; expected 'held_out': "
                "without the cohort's people the backbones of all folds are the same"
            )
        if self.cohort in self.pretraining.extra_cohorts:
            raise ValueError(
                f"pretraining.extra_cohorts names '{self.cohort}', the cohort in question; leave it out"
            )
        tokens = self.preprocessing.window_seconds / self.sequences.token_seconds
        samples = self.sequences.token_seconds * self.preprocessing.sampling_rate
        if abs(tokens - round(tokens)) > 1e-9 or abs(samples - round(samples)) > 1e-9:
            raise ValueError(
                f"sequences.token_seconds is {self.sequences.token_seconds:g}; expected a whole number "
                f"of samples that divides window_seconds ({self.preprocessing.window_seconds:g})"
            )
        return self

    @property
    def dataset(self) -> str:
        """The name of the primary dataset, for example ``8s_af7-af8-tp9-tp10``."""
        return self.dataset_of(self.cohort)

    def channels_of(self, cohort: str) -> list[str]:
        """The electrodes that are used of a cohort."""
        own = self.cohorts[cohort].channels
        return self.channels if own is None else own

    def dataset_of(self, cohort: str) -> str:
        """The name of the dataset that is made of a cohort."""
        return dataset_name(self.preprocessing.window_seconds, self.channels_of(cohort))


def _keys_of(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in _keys_of(part)]


def _known_keys(location: tuple[Any, ...]) -> list[str]:
    """The keys that may stand where an unknown one was found."""
    candidates: list[type[BaseModel]] = [Config]
    for part in location[:-1]:
        deeper: list[type[BaseModel]] = []
        for model in candidates:
            if part in model.model_fields:
                deeper += _keys_of(model.model_fields[part].annotation)
        candidates = deeper or candidates
    return sorted({key for model in candidates for key in model.model_fields})


def _one_line(error: ValidationError, source: str) -> str:
    first = error.errors()[0]
    location = tuple(first["loc"])
    name = ".".join(str(part) for part in location) or "configuration"
    more = f" ({error.error_count() - 1} more problems)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _known_keys(location)
        return (
            f"{source}: unknown setting '{name}'; expected one of {some_of(known, 40)}."
            f"{did_you_mean(str(location[-1]), known)}{more}"
        )
    found = first.get("input")
    shown = f"; found {found!r}" if not isinstance(found, Mapping | BaseModel) else ""
    message = first["msg"].removeprefix("Value error, ")
    place = f"{name}: " if location else ""
    remedy = "" if message.endswith("?") else "; correct this setting."
    return f"{source}: {place}{message.removesuffix('.')}{shown}{remedy}{more}"


def validate(values: Mapping[str, Any], source: str = "config") -> Config:
    """Check a configuration; raises :class:`RemitError` naming the first wrong setting."""
    try:
        return Config.model_validate(dict(values))
    except ValidationError as error:
        raise RemitError(_one_line(error, source)) from None


def load(file: Path) -> Config:
    """Read and check a YAML file; raises :class:`RemitError`."""
    import yaml

    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise RemitError(
            f"{file}: cannot be read ({error.strerror}); expected a configuration file; check the path."
        ) from None
    except yaml.YAMLError as error:
        raise RemitError(f"{file}: is not YAML ({error}); correct it.") from None
    if not isinstance(values, Mapping):
        raise RemitError(f"{file}: holds {type(values).__name__}; expected settings by name.")
    return validate(values, str(file))
