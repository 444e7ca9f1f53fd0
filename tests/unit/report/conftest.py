"""An evaluation's report with the figures that the package computes, of made-up predictions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from remit.evaluation.concordance import comparisons, fold_auc
from remit.evaluation.estimates import (
    age_bands,
    figures,
    leave_one_out,
    majority,
    paired,
    roc,
    subgroups,
)
from remit.evaluation.folds import make_folds, read_folds, write_folds
from remit.evaluation.power import could_have_shown
from remit.report.drawing import FLAGS

Make = Callable[..., dict[str, Any]]
MODEL = "mamba2_eeg_d256_l2_m20_mae"
CANDIDATES = {
    MODEL: ("model", 1.5),
    "prevalence": ("chance", None),
    "covariates only": ("baseline", 0.3),
    "band power": ("baseline", 0.8),
    "recording length and quality only": ("nuisance", 0.1),
    "place in the cohort sheet only": ("nuisance", 0.0),
}


def said_above(figure: Any) -> str:
    """The title of a figure and what is said in red below it, as one line."""
    told = figure.findobj(lambda artist: artist.get_gid() == FLAGS)
    return " ".join(" ".join([figure.get_suptitle(), *(one.get_text() for one in told)]).split())


@pytest.fixture(scope="session")
def make_report(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """``report.json`` of ``n1`` against ``n0`` participants, each time its own copy."""
    made: dict[str, str] = {}

    def make(**case: Any) -> dict[str, Any]:
        key = repr(sorted(case.items()))
        if key not in made:
            made[key] = json.dumps(compute(**case), allow_nan=False)
        return dict(json.loads(made[key]))

    def compute(
        *,
        n1: int = 7,
        n0: int = 14,
        simulated: bool = False,
        seen: int = 0,
        reaching: tuple[str, ...] = (),
        per_fold: bool = False,
        model: str = MODEL,
        people: list[str] | None = None,
        content_sha256: str = "cd" * 32,
    ) -> dict[str, Any]:
        names = people or [f"p{index:02d}" for index in range(n1 + n0)]
        labels = {name: int(index < n1) for index, name in enumerate(names)}
        facts = {
            "dataset": "8s_af7-af8",
            "content_sha256": content_sha256,
            "simulated": simulated,
        }
        options = SimpleNamespace(folds=5, repeats=3, seed=0)
        file = tmp_path_factory.mktemp("folds") / "folds.json"
        write_folds(file, make_folds({**labels, "unknown": None}, options, **facts))
        cohort = read_folds(file)
        label_P, fold_RP = cohort.label_P, cohort.fold_RP
        fits, entries = {}, []
        for index, (name, (kind, effect)) in enumerate(CANDIDATES.items()):
            rng = np.random.default_rng([index, n1, n0])
            z_RP = np.zeros(fold_RP.shape)
            if effect is not None:
                z_RP = effect * (label_P - 0.5) + rng.normal(0, 1, label_P.size) + 0 * z_RP
            probability_RP = 1 / (1 + np.exp(-z_RP))
            met = comparisons(probability_RP, fold_RP)
            shuffled = [rng.permutation(label_P) for _ in range(99)]
            everybody = np.ones((1, label_P.size))
            null_S = np.array([fold_auc(*met, one_P, everybody)[0] for one_P in shuffled])
            fit = SimpleNamespace(
                probability_RP=probability_RP,
                decision_RP=(probability_RP > 0.4).astype(int),
                fold_RP=fold_RP,
                null_auc_S=null_S,
            )
            name = model if kind == "model" else name
            found = figures(
                label_P,
                fit.probability_RP,
                fit.decision_RP,
                fold_RP,
                seed=0,
                resamples=200,
                null_auc_S=null_S,
            )
            auc, fits[name] = found["auc"]["value"], fit
            chosen = zip(
                cohort.names,
                label_P,
                probability_RP.mean(0),
                majority(fit.decision_RP),
                strict=True,
            )
            entries.append(
                {
                    "name": name,
                    "kind": kind,
                    "columns": None if kind == "model" else 4 * index,
                    "notes": ["age: 2 missing"] if name == "covariates only" else [],
                    "figures": found,
                    "permutation": {
                        "p": float((1 + (null_S >= auc).sum()) / (1 + len(null_S))),
                        "permutations": len(null_S),
                        "null_mean": float(null_S.mean()),
                        "null_95": float(np.quantile(null_S, 0.95)),
                    },
                    "strengths": {"10": 15},
                    "predictions": [
                        {
                            "participant": who,
                            "label": int(label),
                            "probability": float(probability),
                            "decision": int(decision),
                        }
                        for who, label, probability, decision in chosen
                    ],
                }
            )
        rng = np.random.default_rng(1)
        groups: dict[str, list[str | None]] = {
            "sex": ["f" if index % 2 else "m" for index in range(len(names))],
            "age (years)": age_bands([None, *rng.uniform(20, 70, len(names) - 1)]),
        }
        own = fits[model]
        entries[0] |= {
            "subgroups": subgroups(
                label_P, own.probability_RP, fold_RP, groups, seed=0, resamples=200
            ),
            "roc": roc(
                label_P,
                own.probability_RP,
                fold_RP,
                seed=0,
                resamples=200,
                spread=entries[0]["figures"]["spread"]["value"],
            ),
            "leave_one_out": {"auc": None, "note": "not computed: no backbone for each participant"}
            if per_fold
            else leave_one_out(label_P, own.probability_RP.mean(0)),
        }
        differences = [
            {"name": name, "kind": CANDIDATES[name][0]}
            | paired(label_P, own, fits[name], seed=0, resamples=200)
            for name in fits
            if name != model
        ]
        nuisance = [
            {"name": name, "reaches": name in reaching, "why": f"AUC of {name} against the model's"}
            for name, (kind, _) in CANDIDATES.items()
            if kind == "nuisance"
        ]
        headline = [f"NOT EEG ALONE: {name} reaches the model." for name in reaching]
        headline += [f"TRANSDUCTIVE: the backbone was pretrained on {seen} of them."] * bool(seen)
        headline += ["SIMULATED data: this says nothing about people."] * simulated
        report: dict[str, Any] = {
            "model": model,
            "result_version": "1.1",
            "headline": [*headline, "The AUC and its interval."],
            "dataset": facts
            | {
                "cohort": "made",
                "label": "remission, as the cohort sheet says",
                "channels": ["AF7", "AF8"],
                "sampling_rate": 256.0,
                "window_samples": 2048,
            },
            "pretraining": {
                "mode": "per_fold" if per_fold else "transductive" if seen else "held_out",
                "transductive": bool(seen),
                "seen": names[:seen],
            },
            "test_reads": {"analyses_before": 2, "models_before": ["another"]},
            "participants": {"n": len(names), "n_positive": n1, "unlabelled": ["unknown"]},
            "folds": {
                "folds": cohort.folds,
                "asked": 5,
                "repeats": 3,
                "seed": 0,
                "sha256": "ef" * 32,
            },
            "settings": {
                "pretraining": "held_out",
                "folds": 5,
                "repeats": 3,
                "inner_folds": 5,
                "strengths": [0.1, 1.0, 10.0],
                "select": None,
                "permutations": 99,
                "resamples": 200,
                "seed": 0,
            },
            "power": could_have_shown(n1, n0, seed=0, null_auc_S=own.null_auc_S),
            "candidates": entries,
            "absent": [
                {"name": "recording date or site only", "kind": "nuisance", "why": "no such column"}
            ],
            "comparisons": differences,
            "nuisance": nuisance,
            "files": {"results/primary/x.parquet": "0" * 64},
            "guards": [{"guard": "everyone is tested once", "found": "so it is"}],
            "versions": {"remit": "0.1.0", "git_commit": "abc123"},
        }
        return report

    return make


@pytest.fixture
def save(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    """Write a report and return its path."""

    def write(report: dict[str, Any], name: str = "report.json") -> Path:
        file = tmp_path / name
        file.write_text(json.dumps(report), encoding="utf-8")
        return file

    return write
