"""The backbone fine-tuned in folds: by which steps, from which checkpoint, and what it never sees."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from remit.config import Finetuning
from remit.dataset.sequences import load_sequences
from remit.dataset.splits import fold_split, write_split
from remit.dataset.windows import open_dataset
from remit.errors import RemitError
from remit.evaluation import evaluate
from remit.evaluation.estimates import paired
from remit.evaluation.finetuned import Finetuned
from remit.evaluation.folds import Folds, make_folds
from remit.nn.heads import ClassifierHead
from remit.training import checkpoint
from remit.training import embed as embedding
from remit.training.data import build_encoder, encoder_settings
from remit.training.finetune import ClassifierSettings
from remit.training.runtime import seed_all
from tests.unit.evaluation.test_evaluate import OPTIONS, files, report_of  # noqa: F401
from tests.unit.training.conftest import (
    CHANNELS,
    NAME,
    QUIET,
    RATE,
    RULE_MODEL,
    SEQUENCES,
    Bench,
    make_dataset,
    split_of,
)

LABELS = {f"p{number:02d}": int(number < 3) for number in range(8)}


def quiet(_: str) -> None: ...


def settings_of(**options) -> ClassifierSettings:
    given = {"freeze_backbone": False, "epochs": 1, "batch_size": 4, "backbone_learning_rate": 1e-3}
    return ClassifierSettings(
        result_version="t",
        model=RULE_MODEL,
        sequences=SEQUENCES,
        finetuning=Finetuning(**given | options),
    )


def embedded(made, backbone, output, split=None, **of_fold):
    embedding.embed(
        name=NAME,
        settings=embedding.EmbedSettings(
            result_version="t", model=RULE_MODEL, sequences=SEQUENCES, **of_fold
        ),
        backbone=backbone,
        primary=made.primary,
        split_file=split,
        output=output,
        execution=QUIET,
        log=quiet,
    )
    return output


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A cohort of 8, folds of it, and one backbone that has seen most of it."""
    folder = tmp_path_factory.mktemp("finetuned")
    primary = make_dataset(folder, LABELS)
    made = Bench(folder, primary, split_of(primary, folder))
    backbone, _ = made.pretrain(epochs=1)
    dataset = open_dataset(primary)
    said = {key: dataset.metadata[key] for key in ("dataset", "content_sha256", "simulated")}
    folds = Folds(**make_folds(dataset.labels, OPTIONS, **said), path="folds.json")
    return made, dataset, folds, embedded(made, backbone, folder / "e.parquet"), backbone


def candidate(shared, *, settings=None, transductive=True, **given) -> Finetuned:
    _, dataset, folds, embeddings, backbone = shared
    return Finetuned(
        NAME,
        settings or settings_of(),
        dataset=dataset,
        folds=folds,
        embeddings=given.get("embeddings", [embeddings]),
        backbones=given.get("backbones", [backbone]),
        transductive=transductive,
        execution=QUIET,
    )


@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_a_fold_is_fine_tuned_as_plain_pytorch_would(shared, weights):
    """With everybody in one batch and without dropout, so that only the head's first weights are drawn."""
    _, dataset, folds, _, backbone = shared
    options = {"batch_size": 8, "dropout": 0.0, "epochs": 3, "class_weights": weights}
    found = candidate(shared, settings=settings_of(**options)).crossfit(
        folds.first(1), seed=5, log=quiet
    )
    tested = folds.test(0, 1)
    others = [name for name in folds.names if name not in tested]
    encoder, _ = build_encoder(encoder_settings(RULE_MODEL, int(RATE / 2), RATE), CHANNELS)
    encoder.load_state_dict(checkpoint.load(backbone, "pretrained")["state_dict"])
    encoder.eval()
    seed_all(5, 10, 0, 1)
    head = ClassifierHead(NAME.d_model, 2, 0.0)
    optimiser = torch.optim.AdamW(
        [
            {"params": head.parameters(), "lr": 1e-4},
            {"params": encoder.parameters(), "lr": 1e-3},
        ],
        weight_decay=0.01,
    )
    label_N = torch.tensor([LABELS[name] for name in others])
    weight_2 = torch.ones(2)
    if weights == "balanced":
        weight_2 = len(others) / (2 * torch.bincount(label_N).float())

    def logits(people) -> torch.Tensor:
        rows = []
        for name in people:
            sequences = load_sequences(dataset, [name], SEQUENCES)
            tokens = []
            for row in range(len(sequences)):
                samples_1KCS, _ = sequences.batch([row], torch.device("cpu"), cut=True)
                tokens.append(encoder(samples_1KCS)[0])
            rows.append(torch.cat(tokens).mean((0, 1)))
        return head(torch.stack(rows))

    for epoch in range(3):
        for group, rate in zip(optimiser.param_groups, (1e-4, 1e-3), strict=True):
            group["lr"] = rate * (1 + np.cos(np.pi * epoch / 3)) / 2
        optimiser.zero_grad()
        F.cross_entropy(logits(others), label_N, weight_2).backward()
        torch.nn.utils.clip_grad_norm_([*head.parameters(), *encoder.parameters()], 1.0)
        optimiser.step()
    with torch.no_grad():
        logit_H2 = logits(tested).double().numpy()
    odds = 1.0 if weights == "balanced" else float(label_N.sum() / (1 - label_N).sum())
    odds_H = np.exp(logit_H2[:, 1] - logit_H2[:, 0]) * (3 / 5) / odds
    places = [folds.names.index(name) for name in tested]
    assert found.probability_RP[0, places] == pytest.approx(odds_H / (1 + odds_H), abs=1e-5)
    assert np.array_equal(found.decision_RP, found.probability_RP >= 0.5)


def test_the_labels_of_the_held_out_change_nothing(shared):
    *_, folds, _, _ = shared
    tested = folds.test(1, 0)
    turned = {name: 1 - label if name in tested else label for name, label in folds.labels.items()}
    # The prevalence of everybody is what all folds share: keep it.
    assert sum(turned.values()) != sum(folds.labels.values())
    shift = np.log(np.mean(list(turned.values())) / (1 - np.mean(list(turned.values()))))
    shift -= np.log(3 / 5)
    tuned = candidate(shared)
    found, again = (
        tuned.crossfit(each, seed=0, log=quiet) for each in (folds, replace(folds, labels=turned))
    )
    held_out = [folds.names.index(name) for name in tested]
    one, two = (np.log(fit.probability_RP / (1 - fit.probability_RP))[1] for fit in (found, again))
    assert two[held_out] - one[held_out] == pytest.approx(shift, abs=1e-9)
    fitted = [place for place in range(8) if place not in held_out]
    assert np.abs(two[fitted] - one[fitted] - shift).max() > 1e-6


def test_the_same_bits_again_whatever_the_repeats_and_who_draws(shared):
    *_, folds, _, _ = shared
    tuned = candidate(shared)
    torch.manual_seed(1)
    first = tuned.crossfit(folds, seed=0, log=quiet).probability_RP
    torch.manual_seed(2)
    state = torch.get_rng_state()
    again = tuned.crossfit(folds.first(1), seed=0, log=quiet).probability_RP
    assert torch.equal(state, torch.get_rng_state())  # nobody else's draws are moved
    assert np.array_equal(first[:1], again)
    assert not np.array_equal(
        first[:1], tuned.crossfit(folds.first(1), seed=1, log=quiet).probability_RP
    )


def test_each_fold_starts_from_the_checkpoint_of_its_embeddings(shared, tmp_path):
    made, dataset, folds, _, everybody = shared
    said = {key: dataset.metadata[key] for key in ("dataset", "content_sha256", "simulated")}
    once = folds.first(1)
    embeddings, backbones = [], []
    for fold in range(folds.folds):
        split = tmp_path / f"f{fold}.json"
        write_split(split, fold_split(folds.labels, [], folds.test(0, fold), seed=0, **said))
        own = Bench(tmp_path, made.primary, split)
        backbone, _ = own.pretrain(tmp_path / f"f{fold}" / f"{NAME}.pt", epochs=1, seed=fold)
        output = tmp_path / f"f{fold}.parquet"
        embeddings.append(embedded(made, backbone, output, split, repeat=1, fold=fold + 1))
        backbones.append(backbone)
    per_fold = (made, dataset, once, None, None)

    def of(**given) -> np.ndarray:
        tuned = candidate(per_fold, transductive=False, **{"embeddings": embeddings} | given)
        return tuned.crossfit(once, seed=0, log=quiet).probability_RP

    found = of(backbones=backbones)
    assert np.array_equal(found, of(backbones=[everybody, *backbones[::-1]]))
    one = tmp_path / "one.parquet"
    for fold, backbone in enumerate(backbones):
        alone = candidate(
            (made, dataset, once, embedded(made, backbone, one), backbone), transductive=True
        ).crossfit(once, seed=0, log=quiet)
        its_P = once.fold_RP[0] == fold
        assert np.array_equal(found[0, its_P], alone.probability_RP[0, its_P])
        assert not np.array_equal(found[0, ~its_P], alone.probability_RP[0, ~its_P])
    with pytest.raises(RemitError, match="fold 2 of repeat 1 were made by a backbone with SHA-256"):
        of(backbones=backbones[:1])


def test_what_does_not_belong_together_is_refused_before_any_fit(shared, tmp_path):
    made, *_ = shared
    with pytest.raises(RemitError, match="has seen participant .*, whom its folds test"):
        candidate(shared, transductive=False)
    with pytest.raises(RemitError, match="freeze_backbone is true; expected false"):
        candidate(shared, settings=settings_of(freeze_backbone=True))
    other, _ = made.pretrain(tmp_path / f"{NAME}.pt", epochs=1, seed=9)
    with pytest.raises(RemitError, match="expected it among the 1 given"):
        candidate(shared, backbones=[other])
    with pytest.raises(RemitError, match="expected it among the 0 given"):
        candidate(shared, backbones=[])


def test_the_report_has_it_beside_the_model(files, tmp_path, monkeypatch):  # noqa: F811
    _, made, _ = files
    options = OPTIONS.model_copy(update={"finetuned": True})
    with pytest.raises(RemitError, match="no settings of fine-tuning are given"):
        report_of(files, tmp_path, monkeypatch, options=options)
    backbone = made.folder / f"{NAME}.pt"
    compared = []
    monkeypatch.setattr(
        evaluate, "paired", lambda *its, **given: compared.append(its) or paired(*its, **given)
    )
    report, lines = report_of(
        files,
        tmp_path,
        monkeypatch,
        options=options,
        finetuned=settings_of(),
        backbones=[backbone],
    )
    tuned = report["candidates"][-1]
    assert (tuned["name"], tuned["kind"], len(tuned["notes"])) == (
        "fine-tuned in full",
        "baseline",
        4,
    )
    assert len(tuned["predictions"]) == 14 and tuned["permutation"]["p"] is None
    assert report["comparisons"][-1]["name"] == tuned["name"]
    # Like with like: it has no threshold of inner folds, so the model's is not used against it.
    assert all(
        np.array_equal(its.decision_RP, its.probability_RP >= 0.5) for its in compared[-1][1:]
    )
    model = compared[0][1]
    assert not np.array_equal(model.decision_RP, model.probability_RP >= 0.5)
    assert str(backbone) in report["files"]
    assert any("the backbone that its embeddings" in guard["guard"] for guard in report["guards"])
    assert any("fine-tuned in full: repeat 2, fold 2 of 2" in line for line in lines)
