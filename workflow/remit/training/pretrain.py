"""Pretraining: masked reconstruction on the split's training participants.

Validation and test participants never enter, unless the settings say transductive. A part of the
training participants is kept aside to decide when to stop. Every mask is drawn from the seed, the
epoch and the sequence, so results do not depend on batches, workers or devices. Knows files and
settings; the model itself is in nn.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from remit import naming, progress
from remit.config import Execution, Pretraining, Sequences, Settings
from remit.dataset.corpus import Corpora, Montage, Read
from remit.dataset.sequences import unusable
from remit.dataset.splits import ParticipantSplit
from remit.dataset.windows import open_dataset
from remit.errors import RemitError, some_of
from remit.naming import ModelName
from remit.nn.checks import NotFiniteError
from remit.nn.heads import LogSpectrum, fit_spectra
from remit.tracking import Tracker, tags_of_model
from remit.training import checkpoint
from remit.training.augmentation import augmented
from remit.training.corpora import index_corpora, open_corpora, refuse_overlap, remarks, seen
from remit.training.data import (
    build_encoder,
    encoder_settings,
    montage_encoding,
    signal_of,
    split_of,
)
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

RESULT_VERSION = 4  # raise when a change here alters a pretrained backbone

# What a random draw is for; part of its seed, so that no two purposes share numbers.
_INITIALISE, _ORDER, _MASK, _KEEP_ASIDE, _HELD_OUT_MASK, _AUGMENT = range(6)


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


def masked_batches(
    model: Reconstruction,
    reads: Sequence[Read],
    electrodes: Mapping[Montage, torch.Tensor | None],
    seed: Sequence[int],
    device: torch.device,
    *,
    hide_all: bool = False,
) -> list[MaskedBatch]:
    """The masked batch of each montage; ``electrodes`` is None for the backbone's own."""
    return [
        model.masked_batch(
            read, seed, device, electrodes_CD=electrodes[read.channels], hide_all=hide_all
        )
        for read in reads
    ]


def _pieces(batches: Sequence[MaskedBatch], size: int) -> list[MaskedBatch]:
    """Batches of any montages cut into ones of at most ``size`` sequences."""
    return [piece for batch in batches for piece in batch.pieces(size)]


def accumulate(
    model: Reconstruction, batches: Sequence[MaskedBatch], masked: torch.Tensor, size: int
) -> dict[str, torch.Tensor]:
    """This rank's part of the gradient of a whole batch, from passes of at most ``size`` sequences of
    one montage each.

    ``batches`` are its parts by montage. Each pass weighs as many masked tokens as it has, out of the
    ``masked`` of the whole batch. Returns ``loss`` and its parts as their float64 sums over masked tokens.
    """
    model.zero_grad(set_to_none=True)
    sums: dict[str, torch.Tensor] = {}
    for piece in _pieces(batches, size):
        count = piece.masked_BKC.sum()
        loss, parts = model(piece)
        (loss * (count / masked)).backward()
        for key, value in {"loss": loss.detach(), **parts}.items():
            if not _is_sum(key):
                sums[key] = sums.get(key, 0.0) + value.double() * count
    return sums


def _not_finite(
    model: Reconstruction, batches: Sequence[MaskedBatch], train: Corpora, at: str, ranks: Ranks
) -> RemitError:
    """The error for a step whose gradient is not finite; names the sequences it comes from.

    ``batches`` are this rank's; with ``ranks`` all of them look, and say the same.
    """
    singles = _pieces(batches, 1)

    def finite(alone: MaskedBatch) -> bool:
        try:
            return bool(alone.samples_BKCS.isfinite().all() and model(alone)[0].isfinite())
        except NotFiniteError:  # somewhere within
            return False

    with torch.no_grad():
        wrong = [alone for alone in singles if not finite(alone)]
    wrong_N, all_N = (
        [number for part in ranks.gather([int(a.number_B) for a in mine]) for number in part]
        for mine in (wrong, singles)
    )
    names = sorted({train.name_of(number) for number in wrong_N or all_N})
    return RemitError(
        f"pretraining: the {'loss' if wrong_N else 'gradient'} is not finite at {at}, in {some_of(names)}; "
        "expected numbers; what was saved before is kept; lower pretraining.learning_rate or look for "
        "extreme values in these recordings."
    )


def _evaluate(
    model: Reconstruction,
    stop: Corpora,
    electrodes: Mapping[Montage, torch.Tensor | None],
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
        for piece in _pieces(batches, size):
            loss, parts = model(piece)
            count = int(piece.masked_BKC.sum())
            added["masked"] = added.get("masked", 0) + count
            for key, value in {"loss": loss, **parts}.items():
                weight = 1 if _is_sum(key) else count
                added[key] = added.get(key, 0.0) + float(value) * weight
        return added

    with torch.no_grad():
        order = stop.in_order()
        for first in range(0, len(order), batch_size):
            mine = ranks.share(np.arange(first, min(first + batch_size, len(order))))
            reads = order.read(mine) if len(mine) else []
            batches = masked_batches(
                model, reads, electrodes, (seed, _HELD_OUT_MASK), device, hide_all=True
            )
            for key, value in memory.within(partial(add, batches)).items():
                sums[key] = sums.get(key, 0.0) + value
            between()
    sums = ranks.sum_numbers(sums)
    masked_total = sums.pop("masked")
    out = {
        f"held_out_{key}": value / masked_total for key, value in sums.items() if not _is_sum(key)
    }
    for what in ("waveform", "spectrum"):
        total = max(sums[f"{what}_total"], sys.float_info.min)  # 0 where everything is flat
        out[f"held_out_{what}_explained"] = 1 - sums[f"{what}_residual"] / total
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
    corpus_files = open_corpora(corpora, data_file)
    metadata = data_file.metadata
    split = split_of(data_file, split_file)
    same_ids = options.extra_ids == "same"
    if options.own_cohort:
        main, others = data_file, corpus_files
        training, aside = _participants(split, options)
        held_out = {name for which in ("train", "val", "test") for name in split.part(which)}
        held_out -= {*training, *aside}
    else:
        if not corpus_files:
            raise RemitError(
                "pretraining.own_cohort is false and there are no corpora; expected the datasets of "
                "pretraining.extra_cohorts as --corpora; name some."
            )
        main, others = corpus_files[0], corpus_files[1:]
        held_out = set(data_file.participants)
        refuse_overlap(data_file, corpus_files, held_out, (), same_ids)
        same_ids = False  # extra_ids is about the cohort in question
        empty = set(unusable(main, main.participants, settings.sequences))
        training, aside = keep_aside(
            [name for name in main.participants if name not in empty],
            options.early_stopping_fraction,
            options.seed,
        )
        if empty:
            log(
                f"pretrain {name}: left out of {main.path}, without a good window: {some_of(empty)}"
            )
    refuse_overlap(main, others, held_out if main is data_file else (), aside, same_ids)
    train, stop = index_corpora(main, others, training, aside, settings.sequences, options)
    for remark in remarks(train, same_ids):
        log(f"pretrain {name}: {remark}")
    simulated = any(file.metadata["simulated"] for file in (data_file, *corpus_files))
    seed_all(options.seed, _INITIALISE)
    encoder, positions_C3 = build_encoder(
        encoder_settings(settings.model, train.samples_per_token, float(metadata["sampling_rate"])),
        metadata["channels"],
    )
    backend = use_backend(encoder, execution.backend, device)
    sizes = sorted({len(channels) for channels in train.montages})
    megabytes = round((train.num_bytes + stop.num_bytes) / 1e6)
    log(
        f"pretrain {name}: {len(train.participants)} participants, {len(train)} sequences of "
        f"{train.num_steps} x {' or '.join(map(str, sizes))} tokens; {megabytes} MB of signal, read "
        f"{'once' if train.in_memory else f'in pools of {options.shuffle_mb:g} MB'}; "
        f"{math.ceil(train.draws / options.batch_size)} steps an epoch ({train.parts[0].passes:.3g} passes); "
        f"{len(stop.participants)} participants kept aside; {len(held_out)} never seen; "
        f"device {device}, backend {backend}"
        + (f"; {ranks.size} ranks" if ranks.size > 1 else "")
        + ("; SIMULATED data" if simulated else "")
        + ("; TRANSDUCTIVE" if options.transductive else "")
    )
    if warning := precision_warning(encoder.settings.precision, device):
        log(warning)
    model = Reconstruction(encoder, options, name, float(metadata["sampling_rate"]))
    try:
        fit_spectra(
            [part for part in model.modules() if isinstance(part, LogSpectrum)], train.scan()
        )
        for _ in stop.scan():  # for its recordings' scales
            pass
    except ValueError as error:
        raise RemitError(
            f"{primary}: {error}; expected numbers in every window used; build the primary dataset and "
            "the extra cohorts' again."
        ) from None
    model.to(device)
    width = encoder.settings.d_model
    electrodes = {
        channels: None
        if list(channels) == metadata["channels"]
        else montage_encoding(channels, width).to(device)
        for channels in train.montages
    }
    if execution.compile:
        compile_module(model, device)
    data = {
        "dataset": metadata["dataset"],
        "cohort": metadata["cohort"],
        "simulated": simulated,
        "content_sha256": metadata["content_sha256"],
        "signal": signal_of(data_file),
        **seen(train, stop),
        "transductive": options.transductive,
    }
    all_settings = settings.model_dump(mode="json")
    tracker = Tracker(
        execution,
        run_name(name, output),
        {
            **tags_of_model(
                "pretraining",
                name,
                {**metadata, "simulated": simulated},
                transductive=options.transductive,
                result_version=settings.result_version,
                git_commit=versions()["git_commit"],
            ),
            "remit.model": str(name),
            "remit.output": str(output),
        },
        log,
        {"name": str(name), **name.parts, **all_settings},
    )
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
        batch=math.ceil(min(options.batch_size, train.draws) / ranks.size),
        tokens=train.num_steps * max(sizes),
        width=width,
        device=device,
        log=log,
        anywhere=lambda here: ranks.any(here)[0],
    )
    with tracker.watching(), state.until_saved():
        best, history = _fit(
            model, optimiser, train, stop, electrodes, options, ranks, state, memory, tracker, log
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
    tracker.tags({"remit.checkpoint_sha256": checkpoint.fingerprint(best["encoder"])})
    tracker.artifacts([card])
    tracker.finish()
    state.remove()  # last: whoever is ended while waiting for MLflow has a failed job's output deleted
    log(f"pretrain {name}: best epoch {best['epoch']}, wrote {output}")


def run_name(name: ModelName, output: Path) -> str:
    """The name of the MLflow run: the model's, with ``_r1f3`` for that of a fold."""
    _, values = naming.read_target(output.as_posix()) or ("", {})
    return f"{name}_r{values['repeat']}f{values['fold']}" if "fold" in values else str(name)


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
    train: Corpora,
    stop: Corpora,
    electrodes: Mapping[Montage, torch.Tensor | None],
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
    batches = math.ceil(train.draws / options.batch_size)
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
    epochs = range(len(history) + 1, options.epochs + 1)
    for epoch in progress.track(epochs, "pretraining", "epoch", done=len(history)):
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
        order = train.epoch((options.seed, _ORDER, epoch))
        steps = range(steps_done, batches)
        for number in progress.track(steps, f"epoch {epoch}", "step", done=steps_done):
            first = number * options.batch_size
            draws = ranks.share(np.arange(first, min(first + options.batch_size, len(order))))
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(
                    (epoch - 1) * batches + number, batches * options.epochs, options
                )
            reads = [
                augmented(read, options, (options.seed, _AUGMENT, epoch))
                for read in (order.read(draws) if len(draws) else [])
            ]
            mine = masked_batches(model, reads, electrodes, (options.seed, _MASK, epoch), device)
            none = torch.zeros((), dtype=torch.int64, device=device)
            # Of the whole batch, before any part of it goes backwards: what each part weighs.
            count = ranks.sum_({"masked": sum((b.masked_BKC.sum() for b in mine), none)})["masked"]
            at = f"epoch {epoch}, step {number + 1} of {batches}"
            try:
                added = ranks.sum_(memory.within(partial(accumulate, model, mine, count)))
            except NotFiniteError:
                # This rank alone has seen it; the others wait elsewhere.
                raise _not_finite(model, mine, train, at, ALONE) from None
            ranks.sum_gradients(model)
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), options.gradient_clip)
            if not torch.isfinite(norm):
                raise _not_finite(model, mine, train, at, ranks)
            optimiser.step()
            model.after_step()
            masked = masked + count
            sums = {key: sums.get(key, 0.0) + value for key, value in added.items()}
            steps_done = number + 1
            state.between_steps(snapshot)
        try:
            held_out = _evaluate(
                model,
                stop,
                electrodes,
                options.seed,
                options.batch_size,
                device,
                memory,
                lambda: state.between_steps(snapshot),
                ranks,
            )
        except NotFiniteError:
            held_out = {"held_out_loss": math.nan}
        entry = {
            "epoch": epoch,
            **{f"train_{key}": float(value / masked) for key, value in sums.items()},
            **held_out,
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
        explained = " ".join(
            f"{what} {entry[f'held_out_{what}_explained']:+.3f}"
            for what, weight in (
                ("waveform", options.waveform_weight),
                ("spectrum", options.spectrum_weight),
            )
            if weight
        )
        log(
            f"epoch {epoch}/{options.epochs} train {entry['train_loss']:.4f} "
            f"held-out {entry['held_out_loss']:.4f} "
            f"explained {explained} "
            f"({time.perf_counter() - began:.1f} s)"
        )
    return best, history


def _cpu_copy(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    state: Mapping[str, torch.Tensor] = module.state_dict()
    return {key: value.detach().cpu().clone() for key, value in state.items()}
