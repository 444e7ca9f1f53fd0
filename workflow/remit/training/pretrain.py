"""Pretraining: masked reconstruction on the split's training participants.

Validation and test participants never enter, unless the settings say transductive. A part of the
training participants is kept aside to decide when to stop. Every mask is drawn from the seed, the
epoch and the sequence, so results do not depend on batches, workers or devices. Knows files and
settings; the model itself is in nn.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from remit.config import Execution, Pretraining, Sequences, Settings
from remit.dataset.sequences import TokenSequences, load_sequences
from remit.dataset.splits import ParticipantSplit
from remit.dataset.windows import WindowsFile, open_dataset
from remit.errors import RemitError, some_of
from remit.naming import ModelName
from remit.tracking import Tracker
from remit.training import checkpoint
from remit.training.data import build_encoder, encoder_settings, signal_of, signals_of, split_of
from remit.training.memory import MicroBatch
from remit.training.ranks import ALONE, Ranks
from remit.training.reconstruction import MaskedBatch, Reconstruction
from remit.training.runtime import (
    compile_module,
    precision_warning,
    seed_all,
    use_backend,
    versions,
)
from remit.training.state import TrainingState

RESULT_VERSION = 3  # raise when a change here alters a pretrained backbone

# What a random draw is for; part of its seed, so that no two purposes share numbers.
_INITIALISE, _ORDER, _MASK, _KEEP_ASIDE, _HELD_OUT_MASK = range(5)


class PretrainSettings(Settings):
    """What the rule's command is given."""

    result_version: str
    model: dict[str, Any]
    sequences: Sequences
    pretraining: Pretraining


def keep_aside(
    participants: Sequence[str], fraction: float, seed: int
) -> tuple[list[str], list[str]]:
    """Divide training participants into those that train and those that decide when to stop."""
    ordered = sorted(participants)
    count = max(1, round(len(ordered) * fraction))
    if len(ordered) - count < 1:
        raise RemitError(
            f"pretraining has {len(ordered)} participants; expected at least 2, one of them to decide "
            "when to stop; add participants or pretraining.extra_cohorts."
        )
    rng = np.random.default_rng([seed, _KEEP_ASIDE])
    aside = {ordered[index] for index in rng.permutation(len(ordered))[:count]}
    return [name for name in ordered if name not in aside], sorted(aside)


def _refuse_overlap(
    primary: WindowsFile, corpora: Sequence[WindowsFile], held_out: set[str], same_ids: bool
) -> None:
    """A held-out participant must not come back through another cohort, by name or by signal."""
    hidden = signals_of(primary, held_out)
    for corpus in corpora:
        twins = sorted(held_out & set(corpus.participants)) if same_ids else []
        if twins:
            raise RemitError(
                f"{corpus.path}: participant {some_of(twins)} has the id of a held-out participant; "
                "expected corpora free of them; take them out of the extra cohort, or set "
                "pretraining.extra_ids: other if they are other people."
            )
        for digest, recording in signals_of(corpus, corpus.participants).items():
            if digest in hidden:
                raise RemitError(
                    f"{corpus.path}: recording '{recording}' holds the same signal as "
                    f"'{hidden[digest]}' of a held-out participant; expected corpora free of them; "
                    "take it out of the extra cohort, or set pretraining.transductive."
                )


def _join(parts: Sequence[TokenSequences], cohorts: Sequence[str]) -> TokenSequences:
    """Several datasets' sequences as one; participants get their cohort's name in front."""
    window_shift = np.cumsum([0, *(len(part.signal_WCL) for part in parts)])
    people_shift = np.cumsum([0, *(len(part.participants) for part in parts)])
    return TokenSequences(
        participants=tuple(
            f"{cohort}/{name}"
            for part, cohort in zip(parts, cohorts, strict=True)
            for name in part.participants
        ),
        labels=tuple(None for part in parts for _ in part.participants),
        signal_WCL=torch.cat([part.signal_WCL for part in parts]),
        windows_NV=np.concatenate(
            [
                np.where(part.windows_NV >= 0, part.windows_NV + shift, -1)
                for part, shift in zip(parts, window_shift, strict=False)
            ]
        ),
        participant_N=np.concatenate(
            [part.participant_N + shift for part, shift in zip(parts, people_shift, strict=False)]
        ),
        samples_per_token=parts[0].samples_per_token,
        windows_used=tuple(count for part in parts for count in part.windows_used),
        windows_bad=tuple(count for part in parts for count in part.windows_bad),
    )


def learning_rate(step: int, total: int, settings: Pretraining) -> float:
    """Linear warm-up, then a cosine to zero; ``step`` counts from 0."""
    warmup = max(1, math.ceil(settings.warmup_fraction * total))
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def parameter_groups(module: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Decay matrices only: not biases, norms, the mask token or Mamba's own scalars."""
    decayed: list[torch.nn.Parameter] = []
    plain: list[torch.nn.Parameter] = []
    for parameter in module.parameters():
        if not parameter.requires_grad:
            continue
        exempt = parameter.ndim < 2 or getattr(parameter, "_no_weight_decay", False)
        (plain if exempt else decayed).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]


def _is_sum(part: str) -> bool:
    """Whether a part of the loss is a sum over masked tokens, not a mean, or their number."""
    return part == "masked_tokens" or part.endswith(("_residual", "_total"))


def _pieces(batch: MaskedBatch, size: int) -> list[MaskedBatch]:
    """A batch cut into batches of at most ``size`` sequences."""
    return [
        replace(
            batch,
            **{
                field.name: getattr(batch, field.name)[first : first + size]
                for field in fields(batch)
            },
        )
        for first in range(0, len(batch.masked_BKC), size)
    ]


def accumulate(
    model: Reconstruction, batches: Sequence[MaskedBatch], masked: torch.Tensor, size: int
) -> dict[str, torch.Tensor]:
    """This rank's part of the gradient of a whole batch, from passes of at most ``size`` sequences each.

    Each pass weighs as many masked tokens as it has, out of the ``masked`` of the whole batch. Returns
    ``loss`` and its parts as their float64 sums over masked tokens.
    """
    model.zero_grad(set_to_none=True)
    sums: dict[str, torch.Tensor] = {}
    for piece in (piece for batch in batches for piece in _pieces(batch, size)):
        count = piece.masked_BKC.sum()
        loss, parts = model(piece)
        (loss * (count / masked)).backward()
        for key, value in {"loss": loss.detach(), **parts}.items():
            if not _is_sum(key):
                sums[key] = sums.get(key, 0.0) + value.double() * count
    return sums


def _not_finite(
    model: Reconstruction,
    batches: Sequence[MaskedBatch],
    train: TokenSequences,
    indices: np.ndarray,
    at: str,
    ranks: Ranks,
) -> RemitError:
    """The error for a step whose gradient is not finite; names the sequences it comes from.

    ``indices`` are those of this rank's batches; with ``ranks`` all of them look, and say the same.
    """
    alone = [piece for batch in batches for piece in _pieces(batch, 1)]
    with torch.no_grad():
        wrong = [
            index
            for index, piece in zip(indices.tolist(), alone, strict=True)
            if not piece.samples_BKCS.isfinite().all() or not model(piece)[0].isfinite()
        ]
    wrong, all_indices = (
        [index for part in ranks.gather(mine) for index in part]
        for mine in (wrong, indices.tolist())
    )
    names = [
        f"{train.participants[person]} sequence {int((train.participant_N[:index] == person).sum()) + 1}"
        for index in wrong or all_indices
        for person in [train.participant_N[index]]
    ]
    return RemitError(
        f"pretraining: the {'loss' if wrong else 'gradient'} is not finite at {at}, in {some_of(names)}; "
        "expected numbers; what was saved before is kept; lower pretraining.learning_rate or look for "
        "extreme values in these recordings."
    )


def _evaluate(
    model: Reconstruction,
    sequences: TokenSequences,
    seed: int,
    batch_size: int,
    device: torch.device,
    memory: MicroBatch,
    between: Callable[[], None],
    ranks: Ranks,
) -> dict[str, float]:
    """Loss, and 1 - squared error / mean square, on participants kept aside.

    The same masks at every epoch, and every masked token hidden whatever the style: what `bert`
    leaves in sight would else count as predicted. ``between`` is called after every batch.
    """
    model.eval()
    sums: dict[str, float] = {}

    def add(batches: Sequence[MaskedBatch], size: int) -> dict[str, float]:
        added: dict[str, float] = {}
        for piece in (piece for batch in batches for piece in _pieces(batch, size)):
            loss, parts = model(piece)
            count = int(piece.masked_BKC.sum())
            added["masked"] = added.get("masked", 0) + count
            for key, value in {"loss": loss, **parts}.items():
                weight = 1 if _is_sum(key) else count
                added[key] = added.get(key, 0.0) + float(value) * weight
        return added

    with torch.no_grad():
        for first in range(0, len(sequences), batch_size):
            indices = ranks.share(np.arange(first, min(first + batch_size, len(sequences))))
            batches = []
            if len(indices):
                batches = [
                    model.masked_batch(
                        sequences, indices, (seed, _HELD_OUT_MASK), device, hide_all=True
                    )
                ]
            for key, value in memory.within(partial(add, batches)).items():
                sums[key] = sums.get(key, 0.0) + value
            between()
    everyone: dict[str, float] = {}
    for part in ranks.gather(sums):
        for key, value in part.items():
            everyone[key] = everyone.get(key, 0.0) + value
    sums = everyone
    masked_total = sums.pop("masked")
    out = {
        f"held_out_{key}": value / masked_total for key, value in sums.items() if not _is_sum(key)
    }
    for what in ("waveform", "spectrum"):
        out[f"held_out_{what}_explained"] = 1 - sums[f"{what}_residual"] / sums[f"{what}_total"]
    return out


def pretrain(
    *,
    name: ModelName,
    settings: PretrainSettings,
    primary: Path,
    split_file: Path,
    corpora: Sequence[Path],
    output: Path,
    execution: Execution,
    log: Callable[[str], None],
) -> None:
    """Pretrain a backbone and write its checkpoint and, beside it, a readable .json.

    Started by torchrun it is one of several ranks (see `training.ranks`), and only the main one writes.

    Raises :class:`RemitError` when data, split and settings do not fit together.
    """
    options = settings.pretraining
    ranks = Ranks.join(execution)
    device = ranks.device
    if not ranks.main:
        log = lambda _: None  # noqa: E731
        execution = execution.model_copy(update={"mlflow": False})
    data_file = open_dataset(primary)
    corpus_files = [open_dataset(corpus) for corpus in corpora]
    metadata = data_file.metadata
    split = split_of(data_file, split_file)
    training, aside = _participants(split, options)
    held_out = {*split.part("train"), *split.part("val"), *split.part("test")} - {*training, *aside}
    _refuse_overlap(data_file, corpus_files, held_out, options.extra_ids == "same")
    parts = [load_sequences(data_file, training, settings.sequences)]
    cohorts = [str(metadata["cohort"])]
    for corpus in corpus_files:
        checkpoint.check_equal(
            corpus.path, "signal", signal_of(corpus), signal_of(data_file), "the primary dataset"
        )
        parts.append(load_sequences(corpus, corpus.participants, settings.sequences))
        cohorts.append(str(corpus.metadata["cohort"]))
    train = _join(parts, cohorts)
    stop = _join([load_sequences(data_file, aside, settings.sequences)], cohorts[:1])
    simulated = any(file.metadata["simulated"] for file in (data_file, *corpus_files))
    seed_all(options.seed, _INITIALISE)
    encoder, positions_C3 = build_encoder(
        encoder_settings(settings.model, train.samples_per_token), metadata["channels"]
    )
    backend = use_backend(encoder, execution.backend, device)
    log(
        f"pretrain {name}: {len(train.participants)} participants, {len(train)} sequences of "
        f"{train.num_steps} x {train.signal_WCL.shape[1]} tokens; {len(stop.participants)} participants "
        f"kept aside; {len(held_out)} never seen; device {device}, backend {backend}"
        + (f"; {ranks.size} ranks" if ranks.size > 1 else "")
        + ("; SIMULATED data" if simulated else "")
        + ("; TRANSDUCTIVE" if options.transductive else "")
    )
    if warning := precision_warning(encoder.settings.precision, device):
        log(warning)
    model = Reconstruction(encoder, options, name, float(metadata["sampling_rate"]))
    try:
        model.spectrum.fit(train.tokens_NS())
    except ValueError as error:
        raise RemitError(
            f"{primary}: {error}; expected numbers in every window used; build the primary dataset and "
            "the extra cohorts' again."
        ) from None
    model.to(device)
    if execution.compile:
        compile_module(model, device)
    data = {
        "dataset": metadata["dataset"],
        "cohort": metadata["cohort"],
        "simulated": simulated,
        "content_sha256": metadata["content_sha256"],
        "signal": signal_of(data_file),
        "corpora": {
            str(corpus.metadata["cohort"]): corpus.metadata["content_sha256"]
            for corpus in corpus_files
        },
        "participants_seen": {
            "training": list(train.participants),
            "early_stopping": list(stop.participants),
        },
        "signals_seen": sorted(
            {
                *signals_of(data_file, {*training, *aside}),
                *(
                    digest
                    for corpus in corpus_files
                    for digest in signals_of(corpus, corpus.participants)
                ),
            }
        ),
        "transductive": options.transductive,
    }
    all_settings = settings.model_dump(mode="json")
    tracker = Tracker(
        execution,
        str(name),
        {
            "remit.stage": "pretraining",
            "remit.git_commit": versions()["git_commit"],
            "remit.model": str(name),
            "remit.dataset": str(metadata["dataset"]),
            "remit.content_sha256": str(metadata["content_sha256"]),
            "remit.simulated": str(simulated).lower(),
            "remit.transductive": str(options.transductive).lower(),
        },
        log,
    )
    tracker.params({"name": str(name), **name.parts, **all_settings})
    tracker.dataset(primary, metadata, "pretraining", {"remit.cohort": str(metadata["cohort"])})
    optimiser = torch.optim.AdamW(parameter_groups(model, options.weight_decay))
    state = TrainingState(
        output,
        {"name": str(name), "settings": all_settings, "data": data},
        {"model": model, "optimiser": optimiser},
        60 * execution.save_minutes,
        log,
        ranks,
    )
    memory = MicroBatch(
        execution.micro_batch,
        batch=math.ceil(min(options.batch_size, len(train)) / ranks.size),
        tokens=train.num_steps * train.signal_WCL.shape[1],
        width=encoder.settings.d_model,
        device=device,
        log=log,
        anywhere=lambda here: ranks.any(here)[0],
    )
    with tracker.watching(), state.until_saved():
        best, history = _fit(
            model, optimiser, train, stop, options, ranks, state, memory, tracker, log
        )
    ranks.close()
    if not ranks.main:
        return
    payload = {
        "name": str(name),
        "encoder": encoder.settings.to_dict(),
        "channels": list(metadata["channels"]),
        "positions": positions_C3,
        "settings": all_settings,
        "data": data,
        "versions": versions(),
        "backend": backend,
        "device": device.type,
        "history": history,
        "best_epoch": best["epoch"],
        "state_dict": best["encoder"],
        "decoder_state_dict": best["decoder"],
    }
    card = output.with_suffix(".json")
    checkpoint.save_card(
        card, "pretrained", {k: v for k, v in payload.items() if k != "decoder_state_dict"}
    )
    checkpoint.save(output, "pretrained", payload)
    state.remove()
    tracker.tags({"remit.checkpoint_sha256": checkpoint.fingerprint(best["encoder"])})
    tracker.artifacts([card])
    tracker.finish()
    log(f"pretrain {name}: best epoch {best['epoch']}, wrote {output}")


def _participants(split: ParticipantSplit, options: Pretraining) -> tuple[list[str], list[str]]:
    """Who trains and who decides when to stop."""
    allowed = [*split.part("train"), *split.part("pretraining_only")]
    if options.transductive:
        allowed += [*split.part("val"), *split.part("test")]
    if not allowed:
        raise RemitError(
            "the split has no participants for pretraining; found none in train or pretraining_only; "
            "expected at least 2; lower split.validation and split.test, or add participants."
        )
    return keep_aside(allowed, options.early_stopping_fraction, options.seed)


def _fit(
    model: Reconstruction,
    optimiser: torch.optim.Optimizer,
    train: TokenSequences,
    stop: TokenSequences,
    options: Pretraining,
    ranks: Ranks,
    state: TrainingState,
    memory: MicroBatch,
    tracker: Tracker,
    log: Callable[[str], None],
) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """The loop; returns the best epoch's weights and the numbers of every epoch.

    Every draw is seeded by epoch and sequence, so a position in an epoch is a number of steps and the
    sums of their losses.
    """
    device = ranks.device
    batches = math.ceil(len(train) / options.batch_size)
    history: list[dict[str, float]] = []
    best: dict[str, Any] = {"epoch": 0, "loss": math.inf}
    steps_done = 0  # of the epoch after the last one in history
    masked = torch.zeros((), dtype=torch.int64, device=device)
    sums: dict[str, torch.Tensor] = {}

    def snapshot() -> tuple[str, dict[str, Any]]:
        position = f"epoch {len(history)}"
        if steps_done:
            position = f"epoch {len(history) + 1}, step {steps_done} of {batches}"
        return position, {
            "history": history,
            "best": best,
            "steps_done": steps_done,
            "masked": masked,
            "sums": sums,
            "micro_batch": memory.size,
        }

    saved = state.load()
    if saved:
        history, best, steps_done = saved["history"], saved["best"], saved["steps_done"]
        masked = saved["masked"].to(device)
        sums = {key: value.to(device) for key, value in saved["sums"].items()}
        memory.begin_at(saved["micro_batch"])
        for entry in history:
            tracker.metrics(entry, int(entry["epoch"]))
    for epoch in range(len(history) + 1, options.epochs + 1):
        if epoch - 1 - best["epoch"] >= options.patience:
            log(f"no improvement for {options.patience} epochs; stopping after epoch {epoch - 1}")
            break
        began = time.perf_counter()
        ranks.check_same(
            f"where they stand before epoch {epoch}",
            f"{epoch} {steps_done} "
            + (checkpoint.fingerprint(model.state_dict()) if ranks.size > 1 else ""),
        )
        model.train()
        order = np.random.default_rng([options.seed, _ORDER, epoch]).permutation(len(train))
        for number in range(steps_done, batches):
            indices = ranks.share(
                order[number * options.batch_size : (number + 1) * options.batch_size]
            )
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(
                    (epoch - 1) * batches + number, batches * options.epochs, options
                )
            mine = []
            if len(indices):
                seeds = (options.seed, _MASK, epoch)
                mine = [model.masked_batch(train, indices, seeds, device)]
            none = torch.zeros((), dtype=torch.int64, device=device)
            # Of the whole batch, before any part of it goes backwards: what each part weighs.
            count = ranks.sum_({"masked": sum((b.masked_BKC.sum() for b in mine), none)})["masked"]
            at = f"epoch {epoch}, step {number + 1} of {batches}"
            try:
                added = ranks.sum_(memory.within(partial(accumulate, model, mine, count)))
            except ValueError:
                if all(batch.samples_BKCS.isfinite().all() for batch in mine):
                    raise
                # This rank alone has seen it; the others wait elsewhere.
                raise _not_finite(model, mine, train, indices, at, ALONE) from None
            ranks.sum_gradients(model)
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), options.gradient_clip)
            if not torch.isfinite(norm):
                raise _not_finite(model, mine, train, indices, at, ranks)
            optimiser.step()
            model.after_step()
            masked = masked + count
            sums = {key: sums.get(key, 0.0) + value for key, value in added.items()}
            steps_done = number + 1
            state.between_steps(snapshot)
        entry = {
            "epoch": epoch,
            **{f"train_{key}": float(value / masked) for key, value in sums.items()},
            **_evaluate(
                model,
                stop,
                options.seed,
                options.batch_size,
                device,
                memory,
                lambda: state.between_steps(snapshot),
                ranks,
            ),
        }
        if not math.isfinite(entry["held_out_loss"]):
            raise RemitError(
                f"pretraining: the held-out loss is not finite after epoch {epoch}; expected a number; "
                "what was saved before is kept; lower pretraining.learning_rate or look for extreme "
                "values in the data."
            )
        history.append(entry)
        if entry["held_out_loss"] < best["loss"]:
            best = {
                "epoch": epoch,
                "loss": entry["held_out_loss"],
                "encoder": _cpu_copy(model.encoder),
                "decoder": _cpu_copy(model.head)
                | {f"spectrum.{key}": value for key, value in _cpu_copy(model.spectrum).items()},
            }
        steps_done, masked, sums = 0, torch.zeros_like(masked), {}
        state.save(*snapshot())
        tracker.metrics(entry, epoch)
        log(
            f"epoch {epoch}/{options.epochs} train {entry['train_loss']:.4f} "
            f"held-out {entry['held_out_loss']:.4f} "
            f"explained waveform {entry['held_out_waveform_explained']:+.3f} "
            f"spectrum {entry['held_out_spectrum_explained']:+.3f} "
            f"({time.perf_counter() - began:.1f} s)"
        )
    return best, history


def _cpu_copy(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    state: Mapping[str, torch.Tensor] = module.state_dict()
    return {key: value.detach().cpu().clone() for key, value in state.items()}
