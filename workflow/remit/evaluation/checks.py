"""Pass, warn or fail for each figure of a backbone's diagnostics.

The rules stand here and nowhere else, and in words in docs/method.md. Reads the figures that
`diagnostics` measured; computes none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from remit.evaluation.resampling import FEWEST_TO_TRUST, above, below

ERRORS = ("squared", "robust")
ALL = "all"  # every sample or frequency, beside the bands
CLEAR_RISE = 0.01  # of the error: a backbone whose context changes less all but ignores it
# Below, a backbone gives nearly the same tokens whatever was recorded: of the variance of its tokens,
# the part that is left within a position (step and channel).
COLLAPSED_SPREAD, THIN_SPREAD = 0.02, 0.1


def shown(figure: Mapping[str, Any], sign: str = "+") -> str:
    """``+0.123 [+0.080, +0.160]``; with ``sign`` "" the plus is left out."""
    if figure["value"] is None:
        return "undefined"
    if figure["low"] is None:
        return f"{figure['value']:{sign}.3f} (no interval)"
    return "{value:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]".format(**figure, sign=sign)


def _check(name: str, status: str, found: str, expected: str, why: str) -> dict[str, str]:
    return {"name": name, "status": status, "found": found, "expected": expected, "why": why}


def checks_of(found: Mapping[str, Any]) -> list[dict[str, str]]:
    """Pass, warn or fail for everything measured; each with what was found, what was expected and why.

    A figure passes when its whole interval is on the right side. Fails are what makes a backbone
    useless or its evidence void: worse than a rival beyond doubt with masks as trained, a leak,
    collapse, weights lost in saving.
    """
    checks = []
    n = found["n"]
    checks.append(
        _check(
            "unseen participants",
            "pass" if n >= FEWEST_TO_TRUST else "warn",
            str(n),
            f"at least {FEWEST_TO_TRUST}",
            "no interval over fewer people decides anything here",
        )
    )
    strange = found["not_finite"]
    checks.append(
        _check(
            "predictions are numbers",
            "fail" if strange else "pass",
            f"{strange} that are not finite",
            "0",
            "a figure made of others would hide them",
        )
    )
    for kind, of_target in found["masked"].items():
        for what, figures in of_target.items():
            skills = [figures[ALL][error]["skill"] for error in ERRORS]
            if all(above(skill) for skill in skills):
                status = "pass"
            elif kind == "as trained" and all(below(skill) for skill in skills):
                status = "fail"
            else:
                status = "warn"
            checks.append(
                _check(
                    f"{what} skill, {kind} masks",
                    status,
                    "; ".join(
                        f"{error} {shown(figures[ALL][error]['skill'])} against "
                        f"{figures[ALL][error]['best_rival']}"
                        for error in ERRORS
                    ),
                    "both above 0",
                    "predicts hidden tokens better than the best rival that needs no pretraining",
                )
            )
    for what, figures in found["masked"]["as trained"].items():
        correlation, ratio = figures["correlation"], figures["variance_ratio"]
        checks.append(
            _check(
                f"{what} correlation",
                "pass" if above(correlation) else "fail" if below(correlation) else "warn",
                f"{shown(correlation)}, variance ratio {shown(ratio, '')}",
                "above 0",
                "predictions follow the signal and are not only its mean",
            )
        )
    for what, figures in found["everything_masked"].items():
        bound = figures["against_bound"]
        value = bound["value"]
        leaks = above(bound) or value is None or (bound["n"] < FEWEST_TO_TRUST and value > 0)
        differing = figures["differing"]
        checks.append(
            _check(
                f"{what} with everything masked",
                "fail" if leaks or differing else "pass",
                f"{shown(bound)} against the mean of each position (of these people; "
                f"{shown(figures['against_position_mean'])} against that of the training people); "
                f"{differing} of {figures['sequences']} sequences are predicted otherwise than another of "
                "their length",
                "not above 0; 0 sequences",
                "what sees nothing cannot do better, nor tell sequences apart; else masked samples leak",
            )
        )
    hidden = found["hidden_is_hidden"]
    checks.append(
        _check(
            "masked samples stay hidden",
            "fail" if hidden["changed_tokens"] else "pass",
            f"{hidden['changed_tokens']} of {hidden['tokens']} tokens, or what is predicted of them, change "
            "with masked samples",
            "0",
            "noise in the place of masked samples, or of padding, must not change a bit",
        )
    )
    for what, figures in found["context_swap"].items():
        rises = [figures[error]["rise"] for error in ERRORS]
        checks.append(
            _check(
                f"{what} with somebody else's context",
                "pass" if all(above(rise, CLEAR_RISE) for rise in rises) else "warn",
                "; ".join(f"{e} error {shown(r)}" for e, r in zip(ERRORS, rises, strict=True)),
                f"both above {CLEAR_RISE:+g}",
                "if the error does not rise, what is visible is ignored",
            )
        )
    checks += _embedding_checks(found["embedding"]["pretrained"], found["embedding"]["random"])
    checks += _probe_checks(found["probes"])
    reload = found["reload"]
    checks.append(
        _check(
            "reload equality",
            "pass" if reload["bit_equal"] else "fail",
            f"largest difference {reload['largest_difference']:g}",
            "the same bits",
            "embeddings before saving and after loading",
        )
    )
    return checks


def _embedding_checks(own: Mapping[str, Any], random: Mapping[str, Any]) -> list[dict[str, str]]:
    rank, spread = own["rankme"], own["spread_at_a_position"]
    channels, share = own["spread_across_channels"], own["identity_variance"]

    def status(value: float | None, fails: float, warns: float) -> str:
        if value is None or value < fails:
            return "fail"
        return "warn" if value < warns else "pass"

    checks = [
        _check(
            "effective rank",
            status(rank["value"], 2.0, 0.5 * (random["rankme"]["value"] or 0.0)),
            f"{shown(rank, '')} of {own['width']} (random weights {shown(random['rankme'], '')})",
            "at least 2, and half that of random weights",
            "RankMe: embeddings that fill few dimensions have collapsed",
        ),
        _check(
            "spread at a position",
            status(spread["value"], COLLAPSED_SPREAD, THIN_SPREAD),
            f"{shown(spread, '')} of the tokens' variance",
            f"at least {THIN_SPREAD}",
            "the rest is the position, which says nothing of who was recorded",
        ),
        _check(
            "identity in the embedding",
            "warn" if above(share, 0.5) else "pass",
            f"{shown(share, '')} of the variance lies between participants (by chance "
            f"{share['by_chance']:.3f})",
            "not more than half beyond doubt",
            "a classifier of few people can learn who they are instead of what they have",
        ),
    ]
    if own["channels"] > 1:
        checks.append(
            _check(
                "spread across channels",
                status(channels["value"], 1e-4, COLLAPSED_SPREAD),
                f"{shown(channels, '')} of the tokens' variance",
                f"at least {COLLAPSED_SPREAD}",
                "electrodes at one moment stay distinguishable",
            )
        )
    return checks


def _probe_checks(found: Mapping[str, Any]) -> list[dict[str, str]]:
    checks = []
    for name, text in (("band_power", "band powers"), ("age", "age"), ("sex", "sex")):
        figures = found[name]
        if "not_measured" in figures:
            if name == "band_power":
                why = figures["not_measured"]
                checks.append(_check(f"probe: {text}", "warn", "not measured", "measured", why))
            continue
        own = figures.get(ALL, figures)
        difference = own["difference"]
        worse = name == "band_power" and below(difference)
        checks.append(
            _check(
                f"probe: {text}",
                "pass" if above(difference) else "fail" if worse else "warn",
                f"{shown(own['pretrained'])}, random weights {shown(own['random'])}, difference "
                f"{shown(difference)}",
                "above random weights",
                "else a linear readout gains nothing from pretraining",
            )
        )
    return checks


def verify(checks: Sequence[Mapping[str, str]]) -> tuple[list[str], bool]:
    """One line for each check, and whether none fails."""
    lines = [
        f"{check['status']:4}  {check['name']}: {check['found']}; expected {check['expected']} "
        f"({check['why']})"
        for check in checks
    ]
    return lines, all(check["status"] != "fail" for check in checks)
