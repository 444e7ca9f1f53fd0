"""What a backbone makes of masked tokens: errors against rivals, and what must not change them.

Shapes: N sequences, K token steps in time, C channels, S samples or frequencies of a token, M masked
tokens, D model width, P participants.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from remit.config import Diagnostics
from remit.evaluation.backbone import TARGETS, TINY, Backbone, Person, spread_out
from remit.evaluation.checks import ALL, ERRORS
from remit.evaluation.features import BANDS_HZ
from remit.evaluation.resampling import Resampling
from remit.evaluation.rivals import Rivals, visible_mean
from remit.naming import MASKING_STYLES
from remit.nn import lanes
from remit.nn.masking import Corruption, draw_corruption, sequence_mask
from remit.nn.products import fast

# Of each participant, that are encoded twice to see what hidden samples change.
HIDDEN_SEQUENCES = 3
PADDED_STEPS = 2  # behind these sequences

# What a random draw is for; part of its seed.
_MASK, _DONOR, _NOISE = range(21, 24)


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


def masked_figures(
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


def everything_masked(
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


def hidden_is_hidden(
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
        for n in spread_out(np.arange(len(some_NKC)), HIDDEN_SEQUENCES):
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


def context_swap(
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
