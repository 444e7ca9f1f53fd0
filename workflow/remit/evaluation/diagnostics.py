"""Did pretraining learn signal? A backbone's evidence, on participants that it has not seen.

Everything that is fitted is fitted on training participants (the rivals), or within folds of unseen
ones (the probes). Intervals are by bootstrap over participants, each of whom counts the same. What is
measured and when a check passes stands in docs/method.md. Knows checkpoints, datasets and splits.

Shapes: N sequences, K token steps in time, C channels, S samples or frequencies of a token, M masked
tokens, D model width, P participants.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from remit.config import Diagnostics, Execution, Settings
from remit.dataset.windows import open_dataset
from remit.errors import RemitError, some_of
from remit.evaluation.backbone import TARGETS, Backbone, Person, people_of
from remit.evaluation.checks import ALL, ERRORS, checks_of, shown, verify
from remit.evaluation.embedded import embed, embedding_figures, readouts
from remit.evaluation.masked import (
    context_swap,
    everything_masked,
    hidden_is_hidden,
    masked_figures,
)
from remit.evaluation.resampling import Resampling
from remit.evaluation.rivals import Rivals
from remit.files import sha256_of, write_json
from remit.recordings.cohort import read_table
from remit.tracking import Tracker
from remit.training import checkpoint
from remit.training.data import (
    build_encoder,
    random_twin,
    saved_encoder_settings,
    seen_in_pretraining,
    split_of,
)
from remit.training.runtime import seed_all, use_backend, versions

# Raise when a change here, or in backbone, masked, embedded, rivals, probes, resampling or checks, alters
# a figure or a verdict.
RESULT_VERSION = 3

# What a random draw is for; part of its seed.
_BOOTSTRAP, _RANDOM_WEIGHTS = 20, 24


class DiagnoseSettings(Settings):
    """What the rule's command is given."""

    result_version: str
    diagnostics: Diagnostics


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
    people = people_of(backbone, dataset, unseen, most)
    donors = people_of(backbone, dataset, training, most)
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
        masked[kind] = masked_figures(backbone, people, rivals, resampling, options, kind, fraction)
        for what in backbone.targets:
            best = masked[kind][what][ALL]["squared"]
            log(f"{kind} masks: {what} skill {shown(best['skill'])} against {best['best_rival']}")
    seed_all(options.seed, _RANDOM_WEIGHTS)
    random = random_twin(backbone.encoder, content["channels"])
    random.to(backbone.device).eval()
    use_backend(random, backbone.backend, backbone.device)
    embedded = {
        "pretrained": embed(backbone, people, backbone.encoder),
        "random": embed(backbone, people, random),
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
        "everything_masked": everything_masked(backbone, people, rivals, resampling),
        "hidden_is_hidden": hidden_is_hidden(backbone, people, options, trained),
        "context_swap": context_swap(backbone, people, donors, resampling, options, trained),
        "embedding": {
            which: embedding_figures(each, resampling) for which, each in embedded.items()
        },
        "probes": readouts(backbone, people, embedded, resampling, _covariates(sheet)),
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
    tracker.finish()


def _covariates(sheet: Path | None) -> dict[str, dict[str, str]]:
    """Age and sex of each participant, as the cohort sheet has them."""
    if sheet is None:
        return {}
    header, body = read_table(sheet)
    rows = [dict(zip(header, cells, strict=True)) for _, cells in body]
    return {
        row["participant"]: {key: row[key] for key in ("age", "sex") if key in row} for row in rows
    }
