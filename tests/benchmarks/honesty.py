"""Is the answer honest? Simulated cohorts of known truth; results go by hand into docs/benchmarks.md.

    python tests/benchmarks/honesty.py              # all of it
    python tests/benchmarks/honesty.py null         # no effect: AUC, p, what the intervals hold
    python tests/benchmarks/honesty.py balanced     # the same, 12 against 12
    python tests/benchmarks/honesty.py decisions    # no effect: do decisions know a fold's classes?
    python tests/benchmarks/honesty.py effect       # a known effect: found how often, against theory
    python tests/benchmarks/honesty.py confound     # a label that follows the recording's length or date
    ... --cohorts 20 --repeats 3 --workers 1

Every cohort goes through the cross-fit, the figures and the rules of `remit evaluate`, with the default
number of folds, repeats and inner folds; three strengths and 99 permutations, so that hundreds of
cohorts take minutes (p below 0.05 is then expected in 4 %). Participants are rows of 256
independent normal columns (the demo's embedding), six windows each. A rate comes with its exact
95 % interval.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "workflow"), str(ROOT)]
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402
from scipy.optimize import brentq  # noqa: E402
from scipy.stats import norm  # noqa: E402

from remit.evaluation.crossfit import CrossFit, crossfit, permuted  # noqa: E402
from remit.evaluation.estimates import figures, log_odds, paired, reached  # noqa: E402
from remit.evaluation.folds import Folds, make_folds  # noqa: E402
from remit.evaluation.metrics import THRESHOLD, exact  # noqa: E402
from remit.evaluation.power import binormal_aucs, could_have_shown, smallest_auc  # noqa: E402

N1, N0, COLUMNS, WINDOWS = 7, 14, 256, 6
BETWEEN_WINDOWS = 0.2  # of the variance of a participant's mean
PERMUTATIONS, RESAMPLES = 99, 1000
OPTIONS = SimpleNamespace(inner_folds=5, strengths=[1.0, 100.0, 1e4], select=None, seed=0)
TRUE_AUC = 0.80

Mapped = Callable[[Callable[[int], dict[str, Any]], Iterable[int]], list[dict[str, Any]]]


@dataclass
class Table:
    """Simulated features: the same whoever is learnt from."""

    name: str
    row_NX: np.ndarray
    participants: tuple[str, ...]
    columns = None

    def rows(self, repeat: int, fold: int, train_P: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        windows = len(self.row_NX) // len(self.participants)
        return self.row_NX, np.repeat(np.arange(len(self.participants)), windows)


@dataclass
class Cohort:
    folds: Folds
    rng: np.random.Generator
    number: int

    def table(self, name: str, mean_PX: np.ndarray, windows: int = WINDOWS) -> Table:
        """Windows whose means are the participants' rows, with unit variance altogether."""
        if windows == 1:
            return Table(name, mean_PX, self.folds.names)
        own_PX = math.sqrt(1 - BETWEEN_WINDOWS) * self.rng.standard_normal(mean_PX.shape)
        noise = self.rng.standard_normal((len(mean_PX), windows, mean_PX.shape[1]))
        row_PWX = (mean_PX + own_PX)[:, None] + math.sqrt(BETWEEN_WINDOWS * windows) * noise
        return Table(name, row_PWX.reshape(-1, mean_PX.shape[1]), self.folds.names)

    def fit(self, table: Table) -> CrossFit:
        label_SP = permuted(self.folds.label_P, PERMUTATIONS, self.number)
        return crossfit(table, self.folds, OPTIONS, label_SP)

    def figures(self, found: CrossFit) -> dict[str, Any]:
        return figures(
            found.label_P,
            found.probability_RP,
            found.decision_RP,
            found.fold_RP,
            seed=self.number,
            resamples=RESAMPLES,
            null_auc_S=found.null_auc_S,
        )


def cohort_of(purpose: int, number: int, repeats: int, sizes: tuple[int, int] = (N1, N0)) -> Cohort:
    names = [f"p{i:02d}" for i in range(sum(sizes))]
    rng = np.random.default_rng([purpose, number])
    labels = {name: int(i < sizes[0]) for i, name in enumerate(rng.permutation(names).tolist())}
    asked = SimpleNamespace(folds=5, repeats=repeats, seed=number)
    made = make_folds(labels, asked, dataset="simulated", content_sha256="", simulated=True)
    return Cohort(Folds(**made, path="simulated"), rng, number)


def flat(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The figures by name: auc, brier, half.accuracy, inner.recall, ..."""
    out = {"auc": found["auc"], "brier": found["brier"]}
    for at in ("half", "inner"):
        key = {"half": "at_half", "inner": "at_inner_threshold"}[at]
        out |= {f"{at}.{name}": figure for name, figure in found[key].items()}
    return out | {f"calibration.{k}": found["calibration"][k] for k in ("intercept", "slope")}


def of_one_table(
    effect_X: np.ndarray, purpose: int, repeats: int, sizes: tuple[int, int], number: int
) -> dict[str, Any]:
    """Figures, p and what could have been shown, of one candidate, and its differences from others.

    The others: a column of noise, and half of the candidate's own columns (where there are several).
    """
    cohort = cohort_of(purpose, number, repeats, sizes)
    label_P = cohort.folds.label_P
    table = cohort.table("model", label_P[:, None] * effect_X)
    others = {"noise": cohort.table("noise", np.zeros((len(label_P), 1)))}
    if len(effect_X) > 1:
        half_NX = table.row_NX[:, : len(effect_X) // 2]
        others["half of the columns"] = Table("half", half_NX, table.participants)
    model, fits = cohort.fit(table), {name: cohort.fit(its) for name, its in others.items()}
    found = cohort.figures(model)
    shown = could_have_shown(*sizes, seed=0, null_auc_S=model.null_auc_S)
    differences = {
        name: paired(label_P, model, fit, seed=number, resamples=RESAMPLES)
        for name, fit in fits.items()
    }
    noise = fits["noise"]
    return {
        "p": model.p_value,
        "spread": found["spread"]["value"],
        "figures": flat(found),
        "power": shown["fit"]["power"][f"{TRUE_AUC:.2f}"],
        "differences": differences,
        "noise_reached": reached(
            model.auc, noise.auc, noise.p_value or 1.0, differences["noise"]["auc"]
        ),
    }


def rate(hits: list[bool]) -> str:
    low, high = exact(sum(hits), len(hits))
    return f"{100 * np.mean(hits):.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def mean(values: list[float]) -> str:
    return f"{np.mean(values):.3f} ± {1.96 * np.std(values) / math.sqrt(len(values)):.3f}"


def held(kept: list[dict[str, Any]], truth: float) -> str:
    """How often low to high, and the bootstrap, hold the truth."""

    def inside(low: float | None, high: float | None) -> bool:
        return (low is None or low <= truth) and (high is None or truth <= high)

    text = f"truth {truth:+.3f}: {rate([inside(its['low'], its['high']) for its in kept])}"
    plain = [inside(*its["bootstrap"]) for its in kept if its.get("bootstrap")]
    return text + (f"; bootstrap as it is {rate(plain)}" if plain else "")


def print_coverage(kept: list[dict[str, Any]], truths: dict[str, float]) -> None:
    """The truth is the mean over cohorts where it is not given; of slopes, without a mean, the median."""
    rows = {name: [its["figures"][name] for its in kept] for name in kept[0]["figures"]}
    for other, its in kept[0]["differences"].items():
        for name in its:
            rows[f"{name} less that of {other}"] = [i["differences"][other][name] for i in kept]
    for name, figures_N in rows.items():
        there = [its for its in figures_N if its["value"] is not None]
        middle = np.median if name == "calibration.slope" else np.mean
        truth = truths.get(name, float(middle([its["value"] for its in there])))
        print(f"  {name:42s} {held(there, truth)}")


def null(mapped: Mapped, cohorts: int, repeats: int, sizes: tuple[int, int] = (N1, N0)) -> None:
    simulate = partial(of_one_table, np.zeros(COLUMNS), 1, repeats, sizes)
    kept = mapped(simulate, range(cohorts))
    aucs = [its["figures"]["auc"]["value"] for its in kept]
    print(
        f"{sizes[0]} against {sizes[1]}: mean AUC {mean(aucs)} (SD {np.std(aucs):.3f}); asked 0.50 ± 0.02"
    )
    print(f"p < 0.05 in {rate([its['p'] < 0.05 for its in kept])}; asked 2-9 %")
    print(f"spread {mean([its['spread'] for its in kept])}")
    print("the 95 % interval holds the truth; asked 92 % for the AUC:")
    truths = {"auc": 0.5, "half.balanced_accuracy": 0.5, "inner.balanced_accuracy": 0.5}
    print_coverage(kept, truths)


def of_decisions(strengths: list[float], repeats: int, number: int) -> dict[str, float]:
    """Balanced accuracy where nothing is to be found, and how log odds follow the fold's own labels."""
    cohort = cohort_of(7, number, repeats)
    label_P = cohort.folds.label_P
    table = cohort.table("model", np.zeros((len(label_P), COLUMNS)))
    options = SimpleNamespace(**vars(OPTIONS) | {"strengths": strengths})
    found = crossfit(table, cohort.folds, options, label_P[None])
    decided = {"inner": found.decision_RP, "half": found.probability_RP >= THRESHOLD}
    yes = {key: its_RP.mean(0) for key, its_RP in decided.items()}
    its = [
        (label_P[fold_P == fold].mean(), log_odds(p_P[fold_P == fold]).mean())
        for fold_P, p_P in zip(found.fold_RP, found.probability_RP, strict=True)
        for fold in range(cohort.folds.folds)
    ]
    return {
        **{
            key: float((yes_P[label_P == 1].mean() + 1 - yes_P[label_P == 0].mean()) / 2)
            for key, yes_P in yes.items()
        },
        "slope": float(np.polyfit(*zip(*its, strict=True), 1)[0]),
        "brier": float(((found.probability_RP - label_P) ** 2).mean()),
    }


def decisions(mapped: Mapped, cohorts: int, repeats: int) -> None:
    for each in (OPTIONS.strengths, [0.01], [100.0], [1e5]):
        kept = mapped(partial(of_decisions, each, repeats), range(cohorts))
        figures_of = {key: mean([its[key] for its in kept]) for key in kept[0]}
        print(
            f"strengths {each}: balanced accuracy at the inner threshold "
            f"{figures_of['inner']}, at 0.5 {figures_of['half']}; log odds of a fold by its share of "
            f"class 1 {figures_of['slope']}; Brier score {figures_of['brier']}"
        )


def nearest_mean_auc(length: float) -> float:
    """The AUC of the nearest class mean fitted on 4/5 of the cohort, independent unit columns.

    Along the direction that the means of n1 and n0 people show, the classes differ by the effect's
    square over the direction's length, which the noise of all columns makes longer.
    """
    noise = COLUMNS * (1 / (0.8 * N1) + 1 / (0.8 * N0))
    return float(norm.cdf(length**2 / math.sqrt(2 * (length**2 + noise))))


def effect(mapped: Mapped, cohorts: int, repeats: int) -> None:
    fixed = binormal_aucs(TRUE_AUC, N1, N0, seed=0)
    one_sided, two_sided = smallest_auc(N1, N0), smallest_auc(N1, N0, 0.025)
    print(
        f"true AUC {TRUE_AUC}; Mann-Whitney finds it in {100 * (fixed >= one_sided).mean():.0f} %"
    )
    print(
        f"  where the direction is not known (5 % two-sided): {100 * (fixed >= two_sided).mean():.0f} %"
    )
    one_column = np.array([math.sqrt(2) * norm.ppf(TRUE_AUC)])
    length = brentq(lambda its: nearest_mean_auc(its) - TRUE_AUC, 0, 20)
    spread_out = np.full(COLUMNS, length / math.sqrt(COLUMNS))
    for name, effect_X in (("one column", one_column), (f"{COLUMNS} columns", spread_out)):
        kept = mapped(partial(of_one_table, effect_X, 2, repeats, (N1, N0)), range(cohorts))
        bayes = norm.cdf(np.linalg.norm(effect_X) / math.sqrt(2))
        aucs = [its["figures"]["auc"]["value"] for its in kept]
        print(f"{name}: Bayes-optimal AUC {bayes:.3f}, found {mean(aucs)} (SD {np.std(aucs):.3f})")
        print(f"  p < 0.05 in {rate([its['p'] < 0.05 for its in kept])}")
        print(
            f"  power that the report states for {TRUE_AUC}: {mean([its['power'] for its in kept])}"
        )
        print(f"  spread {mean([its['spread'] for its in kept])}")
        reach = [its["noise_reached"] for its in kept]
        print(f"  a column of noise is said to reach the model in {rate(reach)}")
        print_coverage(kept, {})


CONFOUNDS = ("length", "date", "length, noisy", "date, middle third")


def of_one_confound(kind: str, carried: bool, repeats: int, number: int) -> dict[str, Any]:
    """Whether a label that follows only a nuisance is flagged, for a model that carries it or not."""
    cohort = cohort_of(3 + CONFOUNDS.index(kind), number, repeats)
    label_P, rng = cohort.folds.label_P, cohort.rng
    people = len(label_P)
    # Minutes, and days since the first recording; those of class 1 are the longest or the last ones.
    value_P = np.sort(
        rng.lognormal(1.5, 0.4, people) if "length" in kind else rng.uniform(0, 400, people)
    )
    rank_P = np.argsort(np.argsort(label_P + 1e-3 * rng.random(people)))
    if "noisy" in kind:
        rank_P = np.argsort(np.argsort(1.5 * label_P + rng.standard_normal(people)))
    if "middle" in kind:
        rank_P = (rank_P - N1) % people  # class 1 ranks 14 to 20 of 21
    nuisance_P = value_P[rank_P]
    model_PX = np.zeros((people, COLUMNS))
    if carried:
        standard_P = (nuisance_P - nuisance_P.mean()) / nuisance_P.std()
        model_PX[:, : COLUMNS // 4] = standard_P[:, None]
    model = cohort.fit(cohort.table("model", model_PX))
    other = rng.standard_normal(people)  # signal quality, which the label does not follow
    own_PX = np.column_stack([nuisance_P, other]) if "length" in kind else nuisance_P[:, None]
    nuisance = cohort.fit(cohort.table("nuisance", own_PX, windows=1))
    difference = paired(label_P, model, nuisance, seed=number, resamples=RESAMPLES)
    return {
        "model": model.auc,
        "nuisance": nuisance.auc,
        "flagged": reached(model.auc, nuisance.auc, nuisance.p_value or 1.0, difference["auc"]),
    }


def confound(mapped: Mapped, cohorts: int, repeats: int) -> None:
    for kind in CONFOUNDS:
        for carried in (False, True):
            kept = mapped(partial(of_one_confound, kind, carried, repeats), range(cohorts))
            print(
                f"{kind}, the features {'carry it' if carried else 'do not carry it'}: model "
                f"{mean([its['model'] for its in kept])}, nuisance "
                f"{mean([its['nuisance'] for its in kept])}, flagged "
                f"{rate([its['flagged'] for its in kept])}"
            )


PARTS: dict[str, tuple[Callable[[Mapped, int, int], None], int]] = {
    "null": (null, 200),
    "balanced": (partial(null, sizes=(12, 12)), 60),
    "decisions": (decisions, 60),
    "effect": (effect, 100),
    "confound": (confound, 20),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", choices=PARTS)
    parser.add_argument(
        "--cohorts", type=int, help="simulated cohorts; 200, 60, 60, 100 and 20 by default"
    )
    parser.add_argument("--repeats", type=int, default=10, help="of the folds; 10, as by default")
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    with multiprocessing.Pool(asked.workers) as pool:
        for name in [asked.part] if asked.part else PARTS:
            part, cohorts = PARTS[name]
            cohorts = asked.cohorts or cohorts
            began = time.perf_counter()
            print(
                f"== {name}: {cohorts} cohorts, {asked.repeats} × 5 folds",
                flush=True,
            )
            part(partial(pool.map, chunksize=1), cohorts, asked.repeats)
            print(f"-- {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
