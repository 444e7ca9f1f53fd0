"""What lies in a backbone's embeddings, nothing masked: rank, spread, and what a linear readout finds.

Shapes: N sequences, K token steps in time, C channels, S samples or frequencies of a token, M masked
tokens, D model width, P participants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from remit.evaluation import probes
from remit.evaluation.backbone import TINY, Backbone, Person
from remit.evaluation.checks import ALL
from remit.evaluation.features import BANDS_HZ
from remit.evaluation.resampling import Resampling
from remit.nn.encoder import Encoder

MOST_SPECTRA = 100  # resamples of the effective rank: each costs the eigenvalues of a D x D matrix


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


def embed(backbone: Backbone, people: Sequence[Person], encoder: Encoder) -> Embedded:
    """Encode the participants' sequences, one participant after another."""
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


def embedding_figures(embedded: Embedded, resampling: Resampling) -> dict[str, Any]:
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


def readouts(
    backbone: Backbone,
    people: Sequence[Person],
    embedded: Mapping[str, Embedded],
    resampling: Resampling,
    covariates: Mapping[str, Mapping[str, str]],
) -> dict[str, Any]:
    """Linear readouts of the pretrained backbone and of the same one with random weights."""
    out: dict[str, Any] = {}
    if len(people) > 1:
        out["band_power"] = band_power(backbone, people, embedded, resampling)
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


def band_power(
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
