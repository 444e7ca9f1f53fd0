"""Which settings of pretraining learn signal: what decided the defaults.

    python tests/benchmarks/pretraining.py run muse --folder F                  # the base settings
    python tests/benchmarks/pretraining.py run muse --folder F --vary token      # one group of variants
    python tests/benchmarks/pretraining.py table --folder F                      # what was found so far
    python tests/benchmarks/pretraining.py compare muse --folder F --vary A B    # the errors of A over B's

Participants are divided into folds; each fold's people are judged by a backbone, and beside rivals,
that never saw them, and the figures are over all people. A run that is there already is not repeated,
so the table can grow, on several machines or in several sessions. Skill is 1 - error / error of the
best rival; brackets are 95 % bootstrap intervals over participants.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from remit import config as configuration  # noqa: E402
from remit import naming  # noqa: E402
from remit.dataset.splits import write_split  # noqa: E402
from remit.dataset.windows import WindowsFile, open_dataset  # noqa: E402
from remit.evaluation import diagnostics  # noqa: E402
from remit.evaluation.backbone import TARGETS, Backbone, people_of  # noqa: E402
from remit.evaluation.embedded import band_power, embed, embedding_figures  # noqa: E402
from remit.evaluation.masked import masked_errors  # noqa: E402
from remit.evaluation.resampling import Resampling  # noqa: E402
from remit.evaluation.rivals import Rivals  # noqa: E402
from remit.files import write_json  # noqa: E402
from remit.naming import ModelName  # noqa: E402
from remit.training.data import random_twin  # noqa: E402
from remit.training.pretrain import PretrainSettings, pretrain  # noqa: E402
from remit.training.reconstruction import block_steps  # noqa: E402
from remit.training.runtime import seed_all  # noqa: E402
from tests.conftest import SHARED_DATA, snakemake  # noqa: E402

FOLDS = 3
COHORTS = ("muse", "eegmat", "simulated")
# Small and short enough for a CPU, and half of the tokens masked, so that both kinds of blocks are seen
# often; everything else is the default.
BASE = {"model.d_model": 128, "model.mask_percent": 50, "pretraining.least_steps": 1000}
FULL = {"model.d_model": 256, "pretraining.least_steps": 2000}
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "default": {
        "the default with the presets' 2000 steps (d256, 20 %)": FULL | {"model.mask_percent": 20},
        "d256, 50 %, 2000 steps": FULL,
        "d256, 50 %, 4000 steps": FULL | {"pretraining.least_steps": 4000},
        "2000 steps": {"pretraining.least_steps": 2000},
    },
    "before": {
        "tokens by a linear map alone": {"model.token_hidden": 0, "model.token_spectrum_hz": 0},
        "no token spectrum": {"model.token_spectrum_hz": 0},
        "no perceptron": {"model.token_hidden": 0},
        "no shift, sign, gain": {
            "pretraining.random_shift": False,
            "pretraining.random_sign": False,
            "pretraining.random_gain": 0.0,
        },
        "as before (linear, no changes, 16 a batch, rate 1e-3, 40 passes)": {
            "model.token_hidden": 0,
            "model.token_spectrum_hz": 0,
            "pretraining.random_shift": False,
            "pretraining.random_sign": False,
            "pretraining.random_gain": 0.0,
            "pretraining.batch_size": 16,
            "pretraining.learning_rate": 1e-3,
            "pretraining.least_steps": 0,
        },
    },
    "ratio": {
        f"{percent} % masked": {"model.mask_percent": percent} for percent in (20, 35, 65, 80)
    },
    "token": {
        "token 0.25 s": {"sequences.token_seconds": 0.25},
        "token 1 s": {"sequences.token_seconds": 1.0},
        "token 8 s (the window)": {"sequences.token_seconds": 8.0},
    },
    "geometry": {
        "single-channel blocks": {"pretraining.geometry": "single_channel"},
        "all-channel blocks": {"pretraining.geometry": "all_channels"},
        "independent tokens": {"pretraining.geometry": "independent"},
    },
    "direction": {
        "one direction": {"model.bidirectional": False},
        "shared directions": {"model.shared_directions": True},
    },
    "loss": {
        "waveform only": {"pretraining.spectrum_weight": 0.0},
        "spectrum only": {"pretraining.waveform_weight": 0.0},
        "spectrum x 1": {"pretraining.spectrum_weight": 1.0},
        "pooled x 0.1": {"pretraining.pooled_weight": 0.1},
        "latent x 0.5": {"pretraining.latent_weight": 0.5},
    },
    "block": {
        "blocks 0.5 s": {"pretraining.block_seconds": [0.5, 0.5]},
        "blocks 2-4 s": {"pretraining.block_seconds": [2.0, 4.0]},
    },
    "style": {"bert": {"model.masking_style": "bert"}},
    "context": {"32 s of context": {"sequences.context_windows": 4}},
}
# Masks by which a backbone is judged: part of the blocks on single channels, and seconds of a block; those
# of its training where there is none. The last two are the same for backbones of any blocks.
KINDS: dict[str, tuple[float | None, tuple[float, float] | None]] = {
    "as trained": (None, None),
    "single-channel": (1.0, None),
    "all-channel": (0.0, None),
    "blocks of 0.5 s": (None, (0.5, 0.5)),
    "blocks of 1-2 s": (None, (1.0, 2.0)),
}


def settings_of(cohort: str, changes: dict[str, Any]) -> configuration.Config:
    """The configuration of a cohort's preset with some keys, given with dots, changed."""
    values: dict[str, Any] = {}
    if cohort != "simulated":
        import yaml

        values = yaml.safe_load((ROOT / f"config/presets/{cohort}.yaml").read_text())
    for key, value in changes.items():
        place = values
        *above, last = key.split(".")
        for part in above:
            place = place.setdefault(part, {})
        place[last] = value
    return configuration.validate(values)


def primary_of(folder: Path, cohort: str) -> Path:
    """The primary dataset of a cohort, built by the workflow if it is not there."""
    (folder / "shared").mkdir(parents=True, exist_ok=True)
    if not (folder / "shared/data").exists():
        (folder / "shared/data").symlink_to(SHARED_DATA.resolve())
    place = folder / cohort
    place.mkdir(exist_ok=True)
    target = naming.path("primary", dataset=settings_of(cohort, {}).dataset)
    if not (place / target).exists():
        preset = None if cohort == "simulated" else ROOT / f"config/presets/{cohort}.yaml"
        done = snakemake("--cores", 2, target, cwd=place, config=preset, timeout=3600)
        if done.returncode:
            sys.exit(done.stdout)
    return place / target


def folds_of(people: list[str]) -> list[list[str]]:
    """Participants by rank of a hash: the same folds for every variant."""
    ranked = sorted(people, key=lambda name: hashlib.sha256(f"fold:{name}".encode()).digest())
    return [sorted(ranked[fold::FOLDS]) for fold in range(FOLDS)]


def write_fold(file: Path, dataset: WindowsFile, held_out: list[str]) -> None:
    """A split that keeps a fold's participants out of pretraining."""
    parts = dict.fromkeys(dataset.participants, "train")
    for number, name in enumerate(held_out):
        parts[name] = "val" if number % 2 else "test"
    counts: dict[str, dict[str, int]] = {}
    for name, part in parts.items():
        counts.setdefault(part, {"0": 0, "1": 0})[str(dataset.labels[name])] += 1
    split = {
        "dataset": dataset.metadata["dataset"],
        "content_sha256": dataset.metadata["content_sha256"],
        "simulated": dataset.metadata["simulated"],
        "seed": 0,
        "fractions": {"validation": 0.2, "test": 0.1},
        "participants": parts,
        "counts": counts,
    }
    write_split(file, split)


def judged(
    backbone_file: Path,
    dataset: WindowsFile,
    held_out: list[str],
    execution: configuration.Execution,
) -> dict[str, Any]:
    """Errors by participant of the model and its rivals; the band-power probe; the effective rank."""
    options = configuration.Diagnostics()
    backbone = Backbone(backbone_file, dataset, execution)
    most = options.sequences_per_participant
    people = people_of(backbone, dataset, held_out, most)
    others = [name for name in dataset.participants if name not in held_out]
    donors = people_of(backbone, dataset, others, most)
    rivals = {
        what: Rivals([(p.true[what], p.valid_NK) for p in donors], alike=what == "waveform")
        for what in TARGETS
    }
    resampling = Resampling(len(people), options.resamples, np.random.default_rng(0))
    found: dict[str, Any] = {"people": [person.name for person in people], "errors": {}}
    trained = backbone.task.block_steps
    for kind, (fraction, seconds) in KINDS.items():
        chosen = backbone.task.single_channel_fraction if fraction is None else fraction
        backbone.task.block_steps = (
            block_steps(seconds, backbone.sequences.token_seconds) if seconds else trained
        )
        errors, alike = masked_errors(backbone, people, rivals, options, kind, chosen)
        found["errors"][kind] = {
            what: {
                "method": {
                    method: np.stack(rows)[:, 0].tolist()
                    for (w, method), rows in errors.items()
                    if w == what
                },
                "correlation": alike[what, "correlation"],
                "variance_ratio": alike[what, "variance_ratio"],
            }
            for what in backbone.targets
        }
    seed_all(options.seed, diagnostics._RANDOM_WEIGHTS)
    random = random_twin(backbone.encoder, backbone.content["channels"])
    random.eval()
    embedded = {
        "pretrained": embed(backbone, people, backbone.encoder),
        "random": embed(backbone, people, random),
    }
    power = band_power(backbone, people, embedded, resampling)
    found["band_power"] = {key: value["value"] for key, value in power["all"].items()}
    figures = embedding_figures(embedded["pretrained"], resampling)
    found["rankme"] = figures["rankme"]["value"]
    return found


def run(
    folder: Path, cohort: str, name: str, changes: dict[str, Any], threads: int, folds: int
) -> None:
    """Pretrain and judge one variant on each fold; what is there already is kept."""
    config = settings_of(cohort, {**BASE, **changes})
    primary = primary_of(folder, cohort)
    model = config.model.name
    key = hashlib.sha256(
        json.dumps([cohort, {**BASE, **changes}], sort_keys=True).encode()
    ).hexdigest()[:12]
    dataset = None
    for fold in range(folds):
        place = folder / cohort / "runs" / f"{key}_{fold}"
        result = place / "judged.json"
        if result.exists():
            continue
        dataset = dataset or open_dataset(primary)
        held_out = folds_of(dataset.participants)[fold]
        place.mkdir(parents=True, exist_ok=True)
        write_fold(place / "split.json", dataset, held_out)
        execution = configuration.Execution(device="cpu", mlflow=False, training_threads=threads)
        shape = config.model.model_dump(
            mode="json", exclude={"d_model", "num_layers", "mask_percent", "masking_style"}
        )
        began = time.perf_counter()
        lines: list[str] = []
        pretrain(
            name=ModelName.parse(str(model)),
            settings=PretrainSettings(
                result_version="bench",
                model={"d_model": model.d_model, "num_layers": model.num_layers, **shape},
                sequences=config.sequences,
                pretraining=config.pretraining,
            ),
            primary=primary,
            split_file=place / "split.json",
            corpora=[],
            output=place / f"{model}.pt",
            execution=execution,
            log=lines.append,
        )
        trained = time.perf_counter() - began
        card = json.loads((place / f"{model}.json").read_text())
        found = judged(place / f"{model}.pt", dataset, held_out, execution)
        found |= {"cohort": cohort, "name": name, "changes": changes, "fold": fold}
        found |= {"seconds": trained, "best_epoch": card["best_epoch"], "history": card["history"]}
        write_json(result, found)
        (place / f"{model}.pt").unlink()
        line = shown(summarise([found]))
        print(
            f"{cohort}, {name}, fold {fold}: {trained:.0f} s, epoch {card['best_epoch']}: {line}",
            flush=True,
        )


def summarise(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of one variant over all its folds' participants."""
    n = sum(len(each["people"]) for each in results)
    resampling = Resampling(n, 2000, np.random.default_rng(0))
    out: dict[str, Any] = {"n": n, "folds": len(results)}
    for kind in results[0]["errors"]:  # what was judged before there was a kind lacks it
        for what in results[0]["errors"][kind]:
            parts = [each["errors"][kind][what] for each in results]
            errors = {
                method: np.concatenate([np.array(part["method"][method]) for part in parts])
                for method in parts[0]["method"]
            }
            for number, error in enumerate(("squared", "robust")):
                means = {m: resampling.mean(e_P2[:, number]) for m, e_P2 in errors.items()}
                rivals = [method for method in means if method != "model"]
                best = min(rivals, key=lambda rival: means[rival][0])
                best_R = np.min([means[rival] for rival in rivals], axis=0)
                out[kind, what, error] = resampling.figure(1 - means["model"] / best_R) | {
                    "rival": best
                }
            alike = np.concatenate([part["correlation"] for part in parts])
            out[kind, what, "correlation"] = resampling.figure(resampling.mean(alike))
    for which in ("pretrained", "random", "difference"):
        out["band_power", which] = float(np.mean([each["band_power"][which] for each in results]))
    out["rankme"] = float(np.mean([each["rankme"] for each in results]))
    out["seconds"] = float(np.sum([each["seconds"] for each in results]))
    out["best_epoch"] = [each["best_epoch"] for each in results]
    return out


def interval(figure: dict[str, Any]) -> str:
    low, high = (figure[key] for key in ("low", "high"))
    return f"{figure['value']:+.2f} [{low:+.2f}, {high:+.2f}]"


def shown(found: dict[str, Any]) -> str:
    cells = []
    for kind in KINDS:
        for what in TARGETS:
            if (kind, what, "squared") not in found:
                continue
            squared, robust = (found[kind, what, error] for error in ("squared", "robust"))
            cells.append(
                f"{kind} {what}: {interval(squared)} ({squared['rival']}), robust {interval(robust)}, "
                f"r {found[kind, what, 'correlation']['value']:+.2f}"
            )
    power = found["band_power", "pretrained"], found["band_power", "random"]
    return (
        "; ".join(cells)
        + f"; probe {power[0]:+.2f} against {power[1]:+.2f}; rank {found['rankme']:.0f}"
    )


def table(folder: Path) -> None:
    """Markdown, one row per variant that has all folds or says how many."""
    for cohort in COHORTS:
        found: dict[str, list[dict[str, Any]]] = {}
        for each in judgements(folder, cohort):
            found.setdefault(each["name"], []).append(each)
        if not found:
            continue
        print(f"\n### {cohort}\n")
        columns = [
            (kind, what, error)
            for what in TARGETS
            for kind, error in (
                ("as trained", "squared"),
                ("as trained", "robust"),
                ("single-channel", "squared"),
                ("all-channel", "squared"),
            )
        ]
        heads = [
            f"{what}, {kind}{', robust' * (error == 'robust')}" for kind, what, error in columns
        ]
        print(f"| variant | {' | '.join(heads)} | band power (over random weights) | people |")
        print("|---" * (len(columns) + 3) + "|")
        order = ["base", *(name for group in VARIANTS.values() for name in group)]
        for name in sorted(found, key=lambda n: order.index(n) if n in order else len(order)):
            each = summarise(found[name])
            cells = [interval(each[key]) if key in each else "-" for key in columns]
            power = each["band_power", "pretrained"], each["band_power", "difference"]
            print(
                f"| {name} | {' | '.join(cells)} | {power[0]:+.2f} ({power[1]:+.2f}) | {each['n']} |"
            )


def judgements(folder: Path, cohort: str) -> list[dict[str, Any]]:
    """What was found of a cohort so far."""
    files = sorted((folder / cohort / "runs").glob("*/judged.json"))
    return [json.loads(file.read_text()) for file in files]


def compare(folder: Path, cohort: str, one: str, other: str) -> None:
    """1 - error of one variant / error of the other, the same people and masks: above 0 one is better."""
    found: dict[str, dict[int, dict[str, Any]]] = {one: {}, other: {}}
    for each in judgements(folder, cohort):
        if each["name"] in found:
            found[each["name"]][each["fold"]] = each
    folds = sorted(set(found[one]) & set(found[other]))
    if not folds:
        sys.exit(f"{folder}: no fold has both {one!r} and {other!r}; run them first")
    people = sum(len(found[one][fold]["people"]) for fold in folds)
    resampling = Resampling(people, 2000, np.random.default_rng(0))
    for kind in [kind for kind, (_, seconds) in KINDS.items() if seconds]:
        for what in TARGETS:
            error_P2, than_P2 = (
                np.concatenate(
                    [np.array(its[f]["errors"][kind][what]["method"]["model"]) for f in folds]
                )
                for its in (found[one], found[other])
            )
            means = [
                (resampling.mean(error_P2[:, n]), resampling.mean(than_P2[:, n])) for n in range(2)
            ]
            squared, robust = (resampling.figure(1 - its / theirs) for its, theirs in means)
            print(
                f"{kind}, {what}: {interval(squared)}, robust {interval(robust)}, {people} people"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "table", "compare"))
    parser.add_argument("cohort", nargs="?", choices=COHORTS)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--vary", nargs="*", default=[], help="groups or names of variants")
    parser.add_argument(
        "--full",
        action="store_true",
        help="of the default's size and steps (d256, 2000), not small",
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folds", type=int, default=FOLDS)
    args = parser.parse_args()
    if args.what == "table":
        table(args.folder)
        return
    if args.what == "compare":
        if args.cohort is None or len(args.vary) != 2:
            parser.error("compare needs a cohort and --vary with the names of two variants")
        compare(args.folder, args.cohort, *args.vary)
        return
    chosen: dict[str, dict[str, Any]] = {}
    for asked in args.vary or ["base"]:
        chosen |= VARIANTS.get(asked, {})
        for group in VARIANTS.values():
            chosen |= {name: changes for name, changes in group.items() if name == asked}
        if asked == "base":
            chosen["base"] = {}
    for name, changes in chosen.items():
        if args.full:
            name, changes = f"d256, 2000 steps: {name}", FULL | changes
        run(args.folder, args.cohort, name, changes, args.threads, args.folds)


if __name__ == "__main__":
    main()
