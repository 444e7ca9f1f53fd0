"""Did pretraining learn signal? A backbone's evidence, on participants that it has not seen.

Everything that is fitted is fitted on training participants (the rivals), or within folds of unseen
ones (the probes). Intervals are by bootstrap over participants, each of whom counts the same. What is
measured and when a check passes stands in docs/method.md. Knows checkpoints, datasets and splits.

Shapes: N sequences, K token steps in time, C channels, S samples or frequencies of a token, M masked
tokens, D model width, P participants.
"""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from threadpoolctl import threadpool_limits

from remit.config import Diagnostics, Execution, Pretraining, Sequences, Settings
from remit.dataset.sequences import TokenSequences, load_sequences
from remit.dataset.windows import WindowsFile, open_dataset
from remit.errors import RemitError, some_of
from remit.evaluation import probes
from remit.evaluation.checks import ALL, ERRORS, checks_of, shown, verify
from remit.evaluation.features import BANDS_HZ
from remit.evaluation.resampling import Resampling
from remit.evaluation.rivals import Rivals, visible_mean
from remit.files import sha256_of, write_json
from remit.naming import MASKING_STYLES, ModelName
from remit.nn import lanes
from remit.nn.encoder import Encoder
from remit.nn.masking import Corruption, draw_corruption, sequence_mask
from remit.nn.products import fast
from remit.recordings.cohort import read_table
from remit.tracking import Tracker
from remit.training import checkpoint
from remit.training.data import (
    build_encoder,
    random_twin,
    saved_encoder_settings,
    seen_in_pretraining,
    signal_of,
    split_of,
)
from remit.training.reconstruction import Reconstruction
from remit.training.runtime import prepare, seed_all, use_backend, versions

# Raise when a change here, or in rivals, probes, resampling or checks, alters a figure or a verdict.
RESULT_VERSION = 3

TARGETS = ("waveform", "spectrum")
TINY = 1e-12  # divides in the place of an error or a variance of 0
MOST_SPECTRA = 100  # resamples of the effective rank: each costs the eigenvalues of a D x D matrix
HIDDEN_SEQUENCES = (
    3  # of each participant, that are encoded twice to see what hidden samples change
)
PADDED_STEPS = 2  # behind these sequences

# What a random draw is for; part of its seed.
_BOOTSTRAP, _MASK, _DONOR, _NOISE, _RANDOM_WEIGHTS = range(20, 25)


class DiagnoseSettings(Settings):
    """What the rule's command is given."""

    result_version: str
    diagnostics: Diagnostics


Pair = dict[str, np.ndarray]  # one array for the waveform and one for the log spectrum


@dataclass
class Person:
    """A participant's sequences: tokens of both targets and what they come from."""

    name: str
    samples_NKCS: torch.Tensor
    valid_NK: np.ndarray
    true: Pair
    recording_N: np.ndarray
    samples_N2: np.ndarray  # the first sample of the recording, and the one after the last


class Backbone:
    """The pretrained encoder and reconstruction head, with what the checkpoint says of them."""

    def __init__(self, file: Path, dataset: WindowsFile, execution: Execution) -> None:
        content = checkpoint.load(file, "pretrained")
        if "decoder_state_dict" not in content:
            raise RemitError(
                f"{file}: holds no reconstruction head (decoder_state_dict); expected the checkpoint as "
                "pretraining wrote it; without the head nobody can see what the backbone predicts."
            )
        checkpoint.check_equal(
            file, "signal", content["data"]["signal"], signal_of(dataset), "the primary dataset"
        )
        try:
            self.pretraining = Pretraining.model_validate(content["settings"]["pretraining"])
            self.sequences = Sequences.model_validate(content["settings"]["sequences"])
        except (KeyError, ValidationError) as error:
            reason = " ".join(str(error).split())[:200]
            raise RemitError(
                f"{file}: its settings are not of this version ({reason}); expected those of "
                "pretraining; pretrain again."
            ) from None
        self.file, self.content = file, content
        self.name = ModelName.parse(content["name"])
        self.device = prepare(execution)
        self.encoder, _ = build_encoder(
            saved_encoder_settings(content["encoder"], file), content["channels"]
        )
        checkpoint.load_weights(self.encoder, content["state_dict"], file)
        self.rate = float(dataset.metadata["sampling_rate"])
        self.task = Reconstruction(self.encoder, self.pretraining, self.name, self.rate)
        decoder = content["decoder_state_dict"]
        for module, prefix in ((self.task.head, ""), (self.task.spectrum, "spectrum.")):
            keys = {key: f"{prefix}{key}" for key in module.state_dict()}
            there = {key: decoder[old] for key, old in keys.items() if old in decoder}
            checkpoint.load_weights(module, there, file)
        self.task.to(self.device).eval()
        self.backend = use_backend(self.encoder, execution.backend, self.device)
        weights = (self.pretraining.waveform_weight, self.pretraining.spectrum_weight)
        self.not_finite = 0  # of all numbers predicted so far
        self.targets = [what for what, weight in zip(TARGETS, weights, strict=True) if weight > 0]

    def tokens(
        self,
        samples_NKCS: torch.Tensor,
        valid_NK: np.ndarray,
        masked_NKC: np.ndarray | None = None,
        encoder: Encoder | None = None,
    ) -> torch.Tensor:
        """The encoder's tokens [N, K, C, D], each sequence by itself, so that batches leave no trace."""
        chosen = encoder or self.encoder
        N, K, C = samples_NKCS.shape[:3]
        tokens_NKCD = torch.zeros(N, K, C, chosen.settings.d_model, device=self.device)

        def encode(n: int) -> None:
            steps = int(valid_NK[n].sum())
            masked_1KC = None
            if masked_NKC is not None:
                masked_1KC = torch.from_numpy(masked_NKC[n : n + 1, :steps]).to(self.device)
            tokens_NKCD[n : n + 1, :steps] = chosen(
                samples_NKCS[n : n + 1, :steps].to(self.device), masked_BKC=masked_1KC
            )

        with fast(chosen.embed.weight):  # for all at once: the switch is the whole process's
            lanes.run([partial(encode, n) for n in range(N)], self.device, always=True)
        return tokens_NKCD

    def predict(
        self, samples_NKCS: torch.Tensor, valid_NK: np.ndarray, masked_NKC: np.ndarray
    ) -> Pair:
        """Waveform and log spectrum of every token, of which the masked ones have a meaning."""
        with torch.no_grad():
            pair = self.task.head(self.tokens(samples_NKCS, valid_NK, masked_NKC))
        found = {what: part.cpu().numpy() for what, part in zip(TARGETS, pair, strict=True)}
        for what in self.targets:
            self.not_finite += int((~np.isfinite(found[what][masked_NKC])).sum())
        return found

    def true(self, samples_NKCS: torch.Tensor) -> Pair:
        """What is to be predicted."""
        with torch.no_grad():
            spectrum = self.task.spectrum(samples_NKCS.to(self.device)).cpu()
        return {"waveform": samples_NKCS.numpy(), "spectrum": spectrum.numpy()}


def _spread_out(indices: np.ndarray, most: int) -> np.ndarray:
    """At most so many of a participant's sequences, evenly over the time of their recordings."""
    if len(indices) <= most:
        return indices
    chosen: np.ndarray = indices[np.round(np.linspace(0, len(indices) - 1, most)).astype(int)]
    return chosen


def _people(
    backbone: Backbone, dataset: WindowsFile, names: Sequence[str], most: int
) -> list[Person]:
    """The chosen sequences of some participants, in the order of their names."""
    sequences: TokenSequences = load_sequences(dataset, names, backbone.sequences)
    frame = dataset.frame()
    frame = frame[frame["Participant"].isin(sequences.participants)]
    if not backbone.sequences.use_bad_windows:
        frame = frame[frame["good"]]
    recording_W = np.unique(frame["recording"].to_numpy(str), return_inverse=True)[1]
    start_W, end_W = (frame[key].to_numpy(np.int64) for key in ("window_start", "window_end"))
    people = []
    for number, name in enumerate(sequences.participants):
        chosen = _spread_out(sequences.of_participant(number), most)
        samples_NKCS, valid_NK = sequences.batch(chosen, torch.device("cpu"))
        first_N, last_N = sequences.windows_NV[chosen, 0], sequences.windows_NV[chosen].max(1)
        people.append(
            Person(
                name,
                samples_NKCS,
                valid_NK.numpy(),
                backbone.true(samples_NKCS),
                recording_W[first_N],
                np.stack([start_W[first_N], end_W[last_N]], axis=1),
            )
        )
    return people


class Bands:
    """Errors of masked tokens, in all and by frequency band.

    Of a waveform a band's error is that of the Hann-windowed Fourier coefficients in it, in the unit
    of the scaled samples; of a log spectrum that of its frequencies. Squared, or robust: smooth L1
    with beta 1, as the loss has it, which large artefacts do not rule.
    """

    def __init__(self, backbone: Backbone) -> None:
        samples = backbone.encoder.settings.samples_per_token
        spectrum = backbone.task.spectrum
        self._window_S = spectrum.window_S.cpu().numpy().astype(np.float64)
        waveform_F = np.fft.rfftfreq(samples, 1 / backbone.rate)
        spectrum_F = spectrum.frequencies_hz_F.cpu().numpy()
        self._bins = {
            what: {
                band: chosen
                for band, (low, high) in BANDS_HZ.items()
                if len(chosen := np.flatnonzero((hz_F >= low) & (hz_F < high)))
            }
            for what, hz_F in (("waveform", waveform_F), ("spectrum", spectrum_F))
        }

    def parts(self, what: str) -> list[str]:
        """All, and the bands in which a token of this rate and length has a frequency."""
        return [ALL, *self._bins[what]]

    def __call__(self, what: str, residual_MS: np.ndarray) -> np.ndarray:
        """Mean errors over tokens, [parts, errors], as :meth:`parts` and ``ERRORS`` order them."""
        whole_MS = np.abs(residual_MS).astype(np.float64)
        in_bins_MF = whole_MS
        if what == "waveform":
            in_bins_MF = np.abs(np.fft.rfft(residual_MS * self._window_S))
        per_part = [whole_MS, *(in_bins_MF[:, bins] for bins in self._bins[what].values())]
        return np.array([[(each**2).mean(), _smooth_l1(each).mean()] for each in per_part])


def _smooth_l1(size: np.ndarray) -> np.ndarray:
    return np.where(size < 1, 0.5 * size**2, size - 0.5)


def masks_of(
    backbone: Backbone, person: Person, fraction: float, seed: int, kind: str, draw: int
) -> np.ndarray:
    """The masks of a participant's sequences, [N, K, C]; they depend on nobody else."""
    K, C = person.samples_NKCS.shape[1:3]
    purpose = [seed, _MASK, zlib.crc32(kind.encode()), draw, zlib.crc32(person.name.encode())]
    return np.stack(
        [
            sequence_mask(
                int(valid_K.sum()),
                K,
                C,
                backbone.name.mask_ratio,
                block_steps=backbone.task.block_steps,
                rng=np.random.default_rng([*purpose, n]),
                single_channel_fraction=fraction,
            )
            for n, valid_K in enumerate(person.valid_NK)
        ]
    )


def _centred(values_MX: np.ndarray, channel_M: np.ndarray) -> np.ndarray:
    """Without each channel's own mean at each sample or frequency: levels are no signal."""
    out = values_MX.astype(np.float64)
    for channel in np.unique(channel_M):
        out[channel_M == channel] -= out[channel_M == channel].mean(0)
    return out


def _pearson(one: np.ndarray, other: np.ndarray) -> float:
    """The correlation of two centred arrays; 0 where one of them is zero: it follows nothing."""
    size = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum() / size) if size > 0 else 0.0


def _skill(resampling: Resampling, errors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Errors with intervals, and 1 - error / error of the best rival, chosen anew in each resample."""
    means = {m: np.maximum(resampling.mean(errors_P), TINY) for m, errors_P in errors.items()}
    rivals = [method for method in means if method != "model"]
    best_R = np.min([means[rival] for rival in rivals], axis=0)
    return {
        "error": {method: resampling.figure(mean_R) for method, mean_R in means.items()},
        "best_rival": min(rivals, key=lambda rival: float(means[rival][0])),
        "skill": resampling.figure(1 - means["model"] / best_R),
        "against": {
            rival: resampling.figure(1 - means["model"] / means[rival]) for rival in rivals
        },
    }


def masked_errors(
    backbone: Backbone,
    people: Sequence[Person],
    rivals: Mapping[str, Rivals],
    options: Diagnostics,
    kind: str,
    fraction: float,
) -> tuple[dict[tuple[str, str], list[np.ndarray]], dict[tuple[str, str], list[float]]]:
    """What each participant's masked tokens are predicted to be, against what they are.

    Returns, each with one entry per participant: by target and method the errors as :class:`Bands`
    gives them, and by target the ``correlation`` and ``variance_ratio`` of the model's predictions.
    """
    bands = Bands(backbone)
    errors: dict[tuple[str, str], list[np.ndarray]] = {}
    alike: dict[tuple[str, str], list[float]] = {}
    for person in people:
        drawn: dict[tuple[str, str], list[np.ndarray]] = {}
        pooled: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}
        for draw in range(options.masks_per_sequence):
            masked_NKC = masks_of(backbone, person, fraction, options.seed, kind, draw)
            predicted = backbone.predict(person.samples_NKCS, person.valid_NK, masked_NKC)
            for what in backbone.targets:
                true = person.true[what]
                guesses = {"model": predicted[what]}
                guesses |= rivals[what].predict(true, person.valid_NK, masked_NKC)
                if what == "spectrum":
                    guesses["recording's mean"] = visible_mean(
                        true, person.valid_NK, masked_NKC, person.recording_N, rivals[what].mean_CS
                    )
                for method, guess in guesses.items():
                    found = bands(what, true[masked_NKC] - guess[masked_NKC])
                    drawn.setdefault((what, method), []).append(found)
                pair = (true[masked_NKC], predicted[what][masked_NKC], np.nonzero(masked_NKC)[2])
                pooled.setdefault(what, []).append(pair)
        for key, each in drawn.items():
            errors.setdefault(key, []).append(np.mean(each, axis=0))
        for what, pairs in pooled.items():
            true_MX, guess_MX, channel_M = (np.concatenate(s) for s in zip(*pairs, strict=True))
            true_X, guess_X = (_centred(each, channel_M) for each in (true_MX, guess_MX))
            alike.setdefault((what, "correlation"), []).append(_pearson(true_X, guess_X))
            ratio = guess_X.var() / max(true_X.var(), TINY)
            alike.setdefault((what, "variance_ratio"), []).append(float(ratio))
    return errors, alike


def _masked(
    backbone: Backbone,
    people: Sequence[Person],
    rivals: Mapping[str, Rivals],
    resampling: Resampling,
    options: Diagnostics,
    kind: str,
    fraction: float,
) -> dict[str, Any]:
    """Errors of the model and its rivals on masked tokens; correlation and ratio of variances."""
    errors, alike = masked_errors(backbone, people, rivals, options, kind, fraction)
    bands = Bands(backbone)
    out: dict[str, Any] = {}
    for what in backbone.targets:
        of_method = {method: np.stack(rows) for (w, method), rows in errors.items() if w == what}
        out[what] = {
            part: {
                error: _skill(resampling, {m: rows[:, i, j] for m, rows in of_method.items()})
                for j, error in enumerate(ERRORS)
            }
            for i, part in enumerate(bands.parts(what))
        } | {
            key: resampling.figure(resampling.mean(np.array(alike[what, key])))
            for key in ("correlation", "variance_ratio")
        }
    return out


def _everything_masked(
    backbone: Backbone,
    people: Sequence[Person],
    rivals: Mapping[str, Rivals],
    resampling: Resampling,
) -> dict[str, Any]:
    """The model without any sight, against the means of each position.

    ``bound`` is the mean of these very tokens at each position: no prediction that sees nothing can
    have a smaller squared error, so whatever goes below it has seen what is hidden. The bound has room
    for a small leak, so predictions are compared as well: without any sight those for sequences of one
    length have the same bits, whatever was recorded.
    """
    out: dict[str, Any] = {}
    predicted = [
        backbone.predict(
            person.samples_NKCS,
            person.valid_NK,
            np.broadcast_to(person.valid_NK[:, :, None], person.samples_NKCS.shape[:3]).copy(),
        )
        for person in people
    ]
    for what in backbone.targets:
        weight = [person.valid_NK / person.valid_NK.sum() for person in people]
        whole = sum(
            np.einsum("nkcs,nk->kcs", person.true[what], w)
            for person, w in zip(people, weight, strict=True)
        )
        count_K = np.maximum(sum(w.sum(0) for w in weight), TINY)
        bound_KCS = whole / count_K[:, None, None]
        errors: dict[str, list[float]] = {}
        for person, guess, w in zip(people, predicted, weight, strict=True):
            for method, values in (
                ("model", guess[what]),
                ("position mean", rivals[what].position_KCS),
                ("bound", bound_KCS),
            ):
                squared_NK = ((person.true[what] - values) ** 2).mean(axis=(2, 3))
                errors.setdefault(method, []).append(float((squared_NK * w).sum()))
        means = {m: np.maximum(resampling.mean(np.array(each)), TINY) for m, each in errors.items()}
        out[what] = {
            "error": {method: resampling.figure(mean_R) for method, mean_R in means.items()},
            "against_position_mean": resampling.figure(1 - means["model"] / means["position mean"]),
            "against_bound": resampling.figure(1 - means["model"] / means["bound"]),
            "sequences": sum(len(person.valid_NK) for person in people),
            "differing": sum(_differing(people, [guess[what] for guess in predicted])),
        }
    return out


def _differing(people: Sequence[Person], guesses: Sequence[np.ndarray]) -> Iterator[bool]:
    """For each sequence whether its guess differs from that for the first of the same length."""
    first: dict[int, np.ndarray] = {}
    for person, guess_NKCS in zip(people, guesses, strict=True):
        for steps, guess_KCS in zip(person.valid_NK.sum(1), guess_NKCS, strict=True):
            known_KCS = first.setdefault(int(steps), guess_KCS[:steps])
            yield not np.array_equal(known_KCS, guess_KCS[:steps])


def _hidden_is_hidden(
    backbone: Backbone, people: Sequence[Person], options: Diagnostics, fraction: float
) -> dict[str, Any]:
    """How many tokens, or predictions, change when noise takes the place of hidden samples; none may.

    Hidden is what the masks of either style leave no trace of, padding behind the sequence, and
    everything.
    """
    styles = [(Corruption(*shares), PADDED_STEPS) for shares in MASKING_STYLES.values()]
    jobs: list[Callable[[], np.ndarray]] = []
    for person in people:
        purpose = [options.seed, _NOISE, zlib.crc32(person.name.encode())]
        some_NKC = masks_of(backbone, person, fraction, options.seed, "as trained", 0)
        for n in _spread_out(np.arange(len(some_NKC)), HIDDEN_SEQUENCES):
            masked_KC = some_NKC[n, : person.valid_NK[n].sum()]
            samples_KCS = person.samples_NKCS[n, : len(masked_KC)]
            cases = [(masked_KC, *style) for style in styles]
            cases.append((np.ones_like(masked_KC), Corruption(1.0, 0.0, 0.0), 0))
            for number, case in enumerate(cases):
                rng = np.random.default_rng([*purpose, int(n), number])
                jobs.append(partial(_changed_by_noise, backbone, samples_KCS, *case, rng))
    with fast(backbone.encoder.embed.weight):
        differs = lanes.run(jobs, backbone.device, always=True)
    return {
        "changed_tokens": sum(int(differs_KC.sum()) for differs_KC in differs),
        "tokens": sum(differs_KC.size for differs_KC in differs),
    }


def _changed_by_noise(
    backbone: Backbone,
    samples_KCS: torch.Tensor,
    masked_KC: np.ndarray,
    corruption: Corruption,
    padding: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Which tokens, or predictions of masked ones, are not the same with noise where all is hidden."""
    token_KC, source_KC = draw_corruption(masked_KC, corruption, rng)
    steps, behind = len(masked_KC), ((0, padding), (0, 0))
    own_KC = np.arange((steps + padding) * masked_KC.shape[1]).reshape(-1, masked_KC.shape[1])
    source_KC = np.concatenate([source_KC, own_KC[steps:]])
    token_KC = np.pad(token_KC, behind)
    hidden_KC = token_KC | (source_KC != own_KC)
    hidden_KC[steps:] = True
    samples_1KCS = torch.nn.functional.pad(samples_KCS, (0, 0, 0, 0, 0, padding))[None]
    noise_1KCS = torch.from_numpy(rng.normal(0, 3, samples_1KCS.shape).astype(np.float32))
    hidden_1KC1 = torch.from_numpy(hidden_KC)[None, ..., None]
    replaced_1KCS = torch.where(hidden_1KC1, noise_1KCS, samples_1KCS)
    given = {"masked_BKC": torch.from_numpy(token_KC)}
    if padding:  # as in pretraining; else as everywhere in here
        given["source_BKC"] = torch.from_numpy(source_KC)
        given["valid_BK"] = torch.arange(steps + padding) < steps
    given = {key: value[None].to(backbone.device) for key, value in given.items()}
    with torch.no_grad():
        one, two = (
            backbone.encoder(each.to(backbone.device), **given)[0, :steps]
            for each in (samples_1KCS, replaced_1KCS)
        )
        pairs = list(zip(TARGETS, backbone.task.head(one), backbone.task.head(two), strict=True))
    differs_KC: np.ndarray = (one != two).any(-1).cpu().numpy()
    for what, first, second in pairs:
        if what in backbone.targets:
            differs_KC |= (first != second).any(-1).cpu().numpy() & masked_KC
    return differs_KC


def _context_swap(
    backbone: Backbone,
    people: Sequence[Person],
    donors: Sequence[Person],
    resampling: Resampling,
    options: Diagnostics,
    fraction: float,
) -> dict[str, Any]:
    """How much the error rises when the visible tokens are those of somebody else's recording."""
    bands = Bands(backbone)
    errors: dict[tuple[str, str], list[np.ndarray]] = {}
    for person in people:
        rng = np.random.default_rng([options.seed, _DONOR, zlib.crc32(person.name.encode())])
        masked_NKC = masks_of(backbone, person, fraction, options.seed, "as trained", 0)
        steps = person.samples_NKCS.shape[1]
        swapped = []
        for _ in range(len(masked_NKC)):
            donor = donors[int(rng.integers(len(donors)))]
            n = int(rng.integers(len(donor.samples_NKCS)))
            # A shorter recording begins anew, so that no padding stands among what is visible.
            again = np.arange(steps) % int(donor.valid_NK[n].sum())
            swapped.append(donor.samples_NKCS[n, again])
        for context, samples in (
            ("own", person.samples_NKCS),
            ("swapped", torch.stack(swapped)),
        ):
            predicted = backbone.predict(samples, person.valid_NK, masked_NKC)
            for what in backbone.targets:
                residual = person.true[what][masked_NKC] - predicted[what][masked_NKC]
                errors.setdefault((what, context), []).append(bands(what, residual)[0])
    out: dict[str, Any] = {}
    for what in backbone.targets:
        own, other = (np.stack(errors[what, context]) for context in ("own", "swapped"))
        out[what] = {
            error: {
                "own": resampling.figure(resampling.mean(own[:, j])),
                "swapped": resampling.figure(resampling.mean(other[:, j])),
                "rise": resampling.figure(
                    resampling.mean(other[:, j]) / np.maximum(resampling.mean(own[:, j]), TINY) - 1
                ),
            }
            for j, error in enumerate(ERRORS)
        }
    return out


@dataclass
class Embedded:
    """What an encoder makes of the participants' sequences, nothing masked; the tokens are not kept."""

    channel_ND: np.ndarray  # the mean over the tokens of one channel of one sequence
    sequence_ND: np.ndarray
    participant_N: np.ndarray  # of the sequences; the channels' rows follow one another within each
    tokens: list[Tokens]


@dataclass
class Tokens:
    """One participant's tokens in short; every real step counts the same."""

    mean_D: np.ndarray
    position_KCD: np.ndarray  # the mean at each position
    weight_K: np.ndarray  # the part of the steps that each position has
    around_mean: float  # mean square of the distance from the participant's own mean
    around_position: float  # … from the participant's own mean at the position
    around_moment: float  # … of an electrode from the mean of all at its moment
    moment_DD: np.ndarray


def _embed(backbone: Backbone, people: Sequence[Person], encoder: Encoder) -> Embedded:
    means_NCD, tokens = [], []
    for person in people:
        tokens_NKCD = backbone.tokens(person.samples_NKCS, person.valid_NK, encoder=encoder)
        each = tokens_NKCD.cpu().numpy().astype(np.float64)
        part_NK = person.valid_NK / person.valid_NK.sum(1, keepdims=True)
        means_NCD.append(np.einsum("nkcd,nk->ncd", each, part_NK))
        weight_NK = person.valid_NK / person.valid_NK.sum()
        weight_K = weight_NK.sum(0)
        position_KCD = np.einsum("nkcd,nk->kcd", each, weight_NK)
        position_KCD /= np.maximum(weight_K, TINY)[:, None, None]
        real_XCD = each[person.valid_NK]
        mean_D = real_XCD.mean((0, 1))
        around_NK = ((each - position_KCD) ** 2).sum(-1).mean(-1)
        moment = real_XCD - real_XCD.mean(1, keepdims=True)
        flat_XD = real_XCD.reshape(-1, real_XCD.shape[-1])
        tokens.append(
            Tokens(
                mean_D,
                position_KCD,
                weight_K,
                float(((real_XCD - mean_D) ** 2).sum(-1).mean()),
                float((around_NK * weight_NK).sum()),
                float((moment**2).sum(-1).mean()),
                flat_XD.T @ flat_XD / len(flat_XD),
            )
        )
    all_NCD = np.concatenate(means_NCD)
    return Embedded(
        all_NCD.reshape(-1, all_NCD.shape[-1]),
        all_NCD.mean(1),
        np.repeat(np.arange(len(people)), [len(each) for each in means_NCD]),
        tokens,
    )


def _embedding_figures(embedded: Embedded, resampling: Resampling) -> dict[str, Any]:
    """Effective rank, and what parts of the tokens' variance lie where."""
    each = embedded.tokens
    mean_D = np.mean([t.mean_D for t in each], axis=0)
    weight_K = np.maximum(sum(t.weight_K for t in each), TINY)
    whole_KCD = sum(t.position_KCD * t.weight_K[:, None, None] for t in each)
    position_KCD = whole_KCD / weight_K[:, None, None]
    # The distance from another centre is that from one's own, and that between the centres.
    total_P = np.array([t.around_mean + ((t.mean_D - mean_D) ** 2).sum() for t in each])
    within_P = np.array(
        [
            t.around_position
            + (((t.position_KCD - position_KCD) ** 2).sum(-1).mean(-1) * t.weight_K).sum()
            for t in each
        ]
    )
    channels_P = np.array([t.around_moment for t in each])
    moments_PDD = np.stack([t.moment_DD for t in each])

    def rank(weight_P: np.ndarray) -> float:
        values_D = np.linalg.eigvalsh(np.tensordot(weight_P, moments_PDD, 1))
        singular_D = np.sqrt(np.clip(values_D, 0, None))
        share_D = singular_D / max(singular_D.sum(), TINY) + 1e-7
        return float(np.exp(-(share_D * np.log(share_D)).sum()))

    total_R = np.maximum(resampling.mean(total_P), TINY)
    parts = {"spread_at_a_position": within_P, "spread_across_channels": channels_P}
    return {
        "width": int(mean_D.size),
        "channels": int(position_KCD.shape[1]),
        "rankme": resampling.of(rank, MOST_SPECTRA, (1, mean_D.size)),
        **{
            name: resampling.figure(resampling.mean(part_P) / total_R, (0, np.inf))
            for name, part_P in parts.items()
        },
        "identity_variance": _between(embedded, resampling),
    }


def _between(embedded: Embedded, resampling: Resampling) -> dict[str, Any]:
    """The part of the variance of sequences' embeddings that lies between participants."""
    people = np.unique(embedded.participant_N)
    own = [embedded.sequence_ND[embedded.participant_N == p].astype(np.float64) for p in people]
    mean_PD = np.stack([each.mean(0) for each in own])
    within_P = np.array([((each - each.mean(0)) ** 2).sum(-1).mean() for each in own])

    def share(weight_P: np.ndarray) -> float:
        centre_D = weight_P @ mean_PD
        between = float(weight_P @ ((mean_PD - centre_D) ** 2).sum(-1))
        return between / max(between + float(weight_P @ within_P), TINY)

    figure = resampling.of(share, len(resampling.weights_RP), (0, 1))
    # Of independent rows of no owner, this much lies between P groups by chance.
    return figure | {"by_chance": (len(people) - 1) / max(len(embedded.sequence_ND) - 1, 1)}


def _probes(
    backbone: Backbone,
    people: Sequence[Person],
    embedded: Mapping[str, Embedded],
    resampling: Resampling,
    covariates: Mapping[str, Mapping[str, str]],
) -> dict[str, Any]:
    """Linear readouts of the pretrained backbone and of the same one with random weights."""
    out: dict[str, Any] = {}
    if len(people) > 1:
        out["band_power"] = _band_power(backbone, people, embedded, resampling)
        place_N3 = np.concatenate([np.column_stack([p.recording_N, p.samples_N2]) for p in people])
        right = {
            which: probes.identified(each.sequence_ND, each.participant_N, place_N3)
            for which, each in embedded.items()
        }
        known = np.isfinite(right["pretrained"])
        if known.all():
            means = {which: resampling.mean(each_P) for which, each_P in right.items()}
            out["identity"] = {
                **{which: resampling.figure(mean_R, (0, 1)) for which, mean_R in means.items()},
                "difference": resampling.figure(means["pretrained"] - means["random"]),
                "by_chance": 1 / len(people),
            }
        else:
            out["identity"] = _not_measured(
                "somebody has no later sequence that shares no sample with the earlier ones"
            )
    else:
        out |= dict.fromkeys(("band_power", "identity"), _not_measured("one participant is unseen"))
    mean_PD = {
        which: np.stack(
            [each.sequence_ND[each.participant_N == p].mean(0) for p in range(len(people))]
        )
        for which, each in embedded.items()
    }
    for name in ("age", "sex"):
        text_P = [covariates.get(person.name, {}).get(name, "") for person in people]
        out[name] = _covariate(name, text_P, mean_PD, resampling)
    return out


def _not_measured(why: str) -> dict[str, Any]:
    return {"not_measured": why}


def _band_power(
    backbone: Backbone,
    people: Sequence[Person],
    embedded: Mapping[str, Embedded],
    resampling: Resampling,
) -> dict[str, Any]:
    """Explained variance of a channel's mean log power in each band, by its mean token."""
    hz_F = backbone.task.spectrum.frequencies_hz_F.cpu().numpy()
    power_NCF = np.concatenate(
        [
            np.einsum(
                "nkcf,nk->ncf", p.true["spectrum"], p.valid_NK / p.valid_NK.sum(1, keepdims=True)
            )
            for p in people
        ]
    )
    power_NF = power_NCF.reshape(-1, power_NCF.shape[-1])
    participant_N = np.repeat(embedded["pretrained"].participant_N, power_NCF.shape[1])
    bins = {
        band: chosen
        for band, (low, high) in BANDS_HZ.items()
        if len(chosen := np.flatnonzero((hz_F >= low) & (hz_F < high)))
    }
    power_NB = np.stack([power_NF[:, chosen].mean(1) for chosen in bins.values()], axis=1)
    left: dict[str, list[np.ndarray]] = {}
    for which, each in embedded.items():
        errors_PB, means_PB = probes.explained(each.channel_ND, power_NB, participant_N)
        left[which] = [
            resampling.mean(error_P) / np.maximum(resampling.mean(mean_P), TINY)
            for error_P, mean_P in zip(errors_PB.T, means_PB.T, strict=True)
        ]
    out = {
        band: _against_random({which: 1 - left[which][n] for which in left}, resampling)
        for n, band in enumerate(bins)
    }
    mean = {which: 1 - np.mean(each, axis=0) for which, each in left.items()}
    return {ALL: _against_random(mean, resampling), **out}


def _against_random(
    values: Mapping[str, np.ndarray],
    resampling: Resampling,
    range_: tuple[float, float] = (-np.inf, 1),
) -> dict[str, Any]:
    """Figures of both encoders, within a range, and their difference."""
    return {which: resampling.figure(values_R, range_) for which, values_R in values.items()} | {
        "difference": resampling.figure(values["pretrained"] - values["random"])
    }


def _covariate(
    name: str, text_P: Sequence[str], mean_PD: Mapping[str, np.ndarray], resampling: Resampling
) -> dict[str, Any]:
    """Age (explained variance) or sex (area under the curve), where enough people have it."""
    known = [n for n, text in enumerate(text_P) if text and text.lower() != "n/a"]
    if len(known) < len(text_P):
        return _not_measured(f"{len(known)} of {len(text_P)} unseen participants have it")
    if len(known) < probes.FEWEST_PEOPLE:
        return _not_measured(f"{len(known)} unseen participants; {probes.FEWEST_PEOPLE} are needed")
    if name == "age":
        try:
            age_P = np.array([float(text) for text in text_P])
        except ValueError:
            return _not_measured("not every age is a number")
        if not np.isfinite(age_P).all() or not age_P.std():
            return _not_measured("the ages are all the same or not finite")
        left = {}
        mean_R = np.maximum(resampling.mean((age_P - age_P.mean()) ** 2), TINY)
        for which, rows_PD in mean_PD.items():
            error_P = (age_P - probes.regressed(rows_PD, age_P)) ** 2
            left[which] = 1 - resampling.mean(error_P) / mean_R
        return {"figure": "explained variance", **_against_random(left, resampling)}
    kinds, label_P = np.unique([text.upper() for text in text_P], return_inverse=True)
    if len(kinds) != 2 or np.bincount(label_P).min() < probes.FEWEST_PER_CLASS:
        return _not_measured(
            f"fewer than {probes.FEWEST_PER_CLASS} unseen participants of either of two sexes"
        )
    curves = {
        which: np.array(
            [
                probes.auc(label_P, score_P, weight_P)
                for score_P in [probes.classified(rows_PD, label_P)]
                for weight_P in resampling.weights_RP
            ]
        )
        for which, rows_PD in mean_PD.items()
    }
    return {"figure": "area under the curve", **_against_random(curves, resampling, (0, 1))}


def _reload(backbone: Backbone, people: Sequence[Person]) -> dict[str, Any]:
    """The largest difference between embeddings before saving and after loading; must be none."""
    first = [
        Person(p.name, p.samples_NKCS[:1], p.valid_NK[:1], {}, p.recording_N[:1], p.samples_N2[:1])
        for p in people
    ]
    content = dict(backbone.content)
    for key in ("format", "format_version", "kind"):
        content.pop(key)
    content["state_dict"] = {
        key: value.detach().cpu().clone() for key, value in backbone.encoder.state_dict().items()
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / backbone.file.name
        checkpoint.save(file, "pretrained", content)
        again = checkpoint.load(file, "pretrained")
    encoder, _ = build_encoder(
        saved_encoder_settings(again["encoder"], backbone.file), again["channels"]
    )
    checkpoint.load_weights(encoder, again["state_dict"], backbone.file)
    encoder.to(backbone.device).eval()
    use_backend(encoder, backbone.backend, backbone.device)
    largest = 0.0
    same = True
    for person in first:
        one = backbone.tokens(person.samples_NKCS, person.valid_NK)
        two = backbone.tokens(person.samples_NKCS, person.valid_NK, encoder=encoder)
        same = same and torch.equal(one, two)
        largest = max(largest, float((one - two).abs().max()))
    return {"bit_equal": same, "largest_difference": largest}


def diagnose(
    *,
    settings: DiagnoseSettings,
    backbone_file: Path,
    primary: Path,
    split_file: Path,
    sheet: Path | None,
    output: Path,
    execution: Execution,
    log: Callable[[str], None],
) -> dict[str, Any]:
    """Measure a pretrained backbone and write everything found as JSON.

    Raises :class:`RemitError` when checkpoint, data and split do not fit together, when the
    checkpoint has no reconstruction head, and when no participant is left that it has not seen.
    """
    # Of matrices this small, several threads would wait for each other, and change the last digits.
    with threadpool_limits(1, user_api="blas"):
        found = _measured(settings, backbone_file, primary, split_file, sheet, execution, log)
    found["checks"] = checks_of(found)
    write_json(output, found)
    for line in verify(found["checks"])[0]:
        log(line)
    _track(execution, found, output, log)
    return found


def _measured(
    settings: DiagnoseSettings,
    backbone_file: Path,
    primary: Path,
    split_file: Path,
    sheet: Path | None,
    execution: Execution,
    log: Callable[[str], None],
) -> dict[str, Any]:
    """Every figure, without the checks."""
    options = settings.diagnostics
    dataset = open_dataset(primary)
    split = split_of(dataset, split_file)
    backbone = Backbone(backbone_file, dataset, execution)
    content = backbone.content
    held_out = [*split.part("val"), *split.part("test")]
    seen = set(seen_in_pretraining(content, dataset, held_out))
    unseen = sorted(set(held_out) - seen)
    if not unseen:
        raise RemitError(
            f"{backbone_file}: has seen all {len(held_out)} validation and test participants "
            f"({some_of(sorted(seen))}); expected at least one that it has not seen; pretrain without "
            "pretraining.transductive, or with this split."
        )
    training = [*split.part("train"), *split.part("pretraining_only")]
    most = options.sequences_per_participant
    people = _people(backbone, dataset, unseen, most)
    donors = _people(backbone, dataset, training, most)
    log(
        f"diagnose {backbone.name}: {len(people)} participants that it has not seen, "
        f"{sum(len(p.samples_NKCS) for p in people)} sequences; rivals from {len(donors)} others"
    )
    rivals = {
        what: Rivals([(p.true[what], p.valid_NK) for p in donors], alike=what == "waveform")
        for what in TARGETS
    }
    rng = np.random.default_rng([options.seed, _BOOTSTRAP])
    resampling = Resampling(len(people), options.resamples, rng)
    trained = backbone.task.single_channel_fraction
    kinds = {"as trained": trained, "single-channel": 1.0, "all-channel": 0.0}
    masked = {}
    for kind, fraction in kinds.items():
        masked[kind] = _masked(backbone, people, rivals, resampling, options, kind, fraction)
        for what in backbone.targets:
            best = masked[kind][what][ALL]["squared"]
            log(f"{kind} masks: {what} skill {shown(best['skill'])} against {best['best_rival']}")
    seed_all(options.seed, _RANDOM_WEIGHTS)
    random = random_twin(backbone.encoder, content["channels"])
    random.to(backbone.device).eval()
    use_backend(random, backbone.backend, backbone.device)
    embedded = {
        "pretrained": _embed(backbone, people, backbone.encoder),
        "random": _embed(backbone, people, random),
    }
    found: dict[str, Any] = {
        "kind": "diagnostics",
        "model": str(backbone.name),
        "n": len(people),
        "participants": [person.name for person in people],
        "seen": sorted(seen),
        "simulated": bool(dataset.metadata["simulated"]),
        "dataset": dataset.metadata["dataset"],
        "content_sha256": dataset.metadata["content_sha256"],
        "split_sha256": sha256_of(split_file),
        "checkpoint_sha256": checkpoint.fingerprint(content["state_dict"]),
        "backbone_sha256": checkpoint.backbone_sha256(content),
        "settings": settings.model_dump(mode="json"),
        "versions": versions(),
        "masked": masked,
        "everything_masked": _everything_masked(backbone, people, rivals, resampling),
        "hidden_is_hidden": _hidden_is_hidden(backbone, people, options, trained),
        "context_swap": _context_swap(backbone, people, donors, resampling, options, trained),
        "embedding": {
            which: _embedding_figures(each, resampling) for which, each in embedded.items()
        },
        "probes": _probes(backbone, people, embedded, resampling, _covariates(sheet)),
        "reload": _reload(backbone, people),
    }
    found["not_finite"] = backbone.not_finite
    return found


def _track(
    execution: Execution, found: Mapping[str, Any], file: Path, log: Callable[[str], None]
) -> None:
    """Copy the main figures to MLflow, into the run that pretrained the backbone."""
    tracker = Tracker.of_run(execution, "remit.checkpoint_sha256", found["checkpoint_sha256"], log)
    if not tracker.active:
        return
    own, probe = found["embedding"]["pretrained"], found["probes"]["band_power"]
    figures: dict[str, Mapping[str, Any]] = {
        "rankme": own["rankme"],
        "spread_at_a_position": own["spread_at_a_position"],
    }
    for kind, of_target in found["masked"].items():
        for what, parts in of_target.items():
            name = f"{what}_{kind.replace(' ', '_').replace('-', '_')}"
            figures |= {f"{name}_{error}_skill": parts[ALL][error]["skill"] for error in ERRORS}
            figures[f"{name}_correlation"] = parts["correlation"]
    for what, errors in found["context_swap"].items():
        figures |= {f"{what}_{e}_context_rise": errors[e]["rise"] for e in ERRORS}
    if ALL in probe:
        figures["band_power_over_random"] = probe[ALL]["difference"]
    numbers = {
        f"diagnostics_{name}{end}": figure[key]
        for name, figure in figures.items()
        for key, end in (("value", ""), ("low", "_low"), ("high", "_high"))
    }
    statuses = [check["status"] for check in found["checks"]]
    numbers |= {f"diagnostics_{s}": statuses.count(s) for s in ("pass", "warn", "fail")}
    tracker.metrics(numbers, 0)
    worst = next(status for status in ("fail", "warn", "pass") if status in statuses)
    tracker.tags({"remit.diagnostics": worst})
    tracker.artifacts([file])
    tracker.send()


def _covariates(sheet: Path | None) -> dict[str, dict[str, str]]:
    """Age and sex of each participant, as the cohort sheet has them."""
    if sheet is None:
        return {}
    header, body = read_table(sheet)
    rows = [dict(zip(header, cells, strict=True)) for _, cells in body]
    return {
        row["participant"]: {key: row[key] for key in ("age", "sex") if key in row} for row in rows
    }
