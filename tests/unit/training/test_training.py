"""Both trainings, tiny: who is seen, what is repeatable, what is refused."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from remit import naming
from remit.config import Execution, Sequences
from remit.dataset.sequences import TokenSequences, load_sequences
from remit.dataset.splits import read_split
from remit.dataset.windows import open_dataset
from remit.errors import RemitError
from remit.naming import ModelName
from remit.nn.heads import ClassifierHead
from remit.training import checkpoint
from remit.training import participants as tuning
from remit.training.data import build_encoder, encoder_settings, signals_of
from remit.training.pretrain import keep_aside, learning_rate, run_name
from remit.training.runtime import seed_all
from tests.unit.training.conftest import (
    CHANNELS,
    DEVICE,
    MODEL,
    NAME,
    PEOPLE,
    RULE_MODEL,
    make_dataset,
    split_of,
)


def same_tensors(one, other):
    a = torch.load(one, weights_only=True)["state_dict"]
    b = torch.load(other, weights_only=True)["state_dict"]
    assert a.keys() == b.keys()
    return all(torch.equal(a[key], b[key]) for key in a)


def same_content(one, other):
    """Equal tensors and equal values; the bytes may differ in how a value is referred to."""

    def equal(a, b):
        if isinstance(a, torch.Tensor):
            return torch.equal(a, b)
        if isinstance(a, dict):
            return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
        if isinstance(a, list):
            return len(a) == len(b) and all(map(equal, a, b))
        return a == b

    return equal(torch.load(one, weights_only=True), torch.load(other, weights_only=True))


# Who is seen ------------------------------------------------------------------------------


def test_pretraining_sees_only_training_participants(trained):
    made, backbone = trained
    content = checkpoint.load(backbone, "pretrained")
    split = read_split(made.split)
    seen = content["data"]["participants_seen"]
    everyone = [name.removeprefix("made/") for part in seen.values() for name in part]
    assert sorted(everyone) == split.part("train")
    assert set(seen["training"]).isdisjoint(seen["early_stopping"])
    assert seen["early_stopping"]


def test_held_out_participants_cannot_change_the_backbone(bench, tmp_path):
    one, _ = bench.pretrain(tmp_path / "one.pt")
    held_out = {*read_split(bench.split).part("val"), *read_split(bench.split).part("test")}
    other = tmp_path / "other"
    other.mkdir()
    # The same people with the same labels; the signals of the held-out ones are others.
    first = make_dataset(other, PEOPLE, seed=0)
    changed = make_dataset(other, PEOPLE, seed=9, cohort="changed")
    assert not np.array_equal(open_dataset(first).signal_WCS(), open_dataset(changed).signal_WCS())
    sequences = Sequences(token_seconds=0.5, context_windows=2)
    train = read_split(bench.split).part("train")
    kept = load_sequences(open_dataset(first), train, sequences)
    assert held_out.isdisjoint(kept.participants)
    bench.primary = first
    two, _ = bench.pretrain(tmp_path / "two.pt")
    assert same_tensors(one, two)


def test_transductive_pretraining_says_so_and_fine_tuning_repeats_it(bench):
    backbone, lines = bench.pretrain(transductive=True)
    assert any("TRANSDUCTIVE" in line for line in lines)
    with pytest.raises(RemitError, match="transductive is True; expected False"):
        bench.finetune(backbone)
    file, _ = bench.finetune(backbone, transductive=True)
    card = json.loads(file.with_suffix(".json").read_text())
    assert card["pretrained"]["data"]["transductive"] is True
    assert card["pretrained"]["seen_of_held_out"]


def test_a_backbone_that_saw_the_held_out_people_is_refused(bench, tmp_path):
    backbone, _ = bench.pretrain()
    bench.split = split_of(bench.primary, tmp_path, seed=5)
    with pytest.raises(RemitError, match="was seen in pretraining"):
        bench.finetune(backbone)


def test_a_held_out_recording_is_found_under_another_name(trained, tmp_path):
    made, backbone = trained
    held_out = read_split(made.split).part("val")[0]
    signals = signals_of(open_dataset(made.primary), [held_out])
    file = changed(backbone, tmp_path, lambda c: c["data"]["signals_seen"].extend(signals))
    with pytest.raises(RemitError, match=f"participant {held_out} of validation or test was seen"):
        made.finetune(file, tmp_path / "x.pt")


def test_a_backbone_that_does_not_say_whom_it_saw_is_refused(trained, tmp_path):
    made, backbone = trained
    for change in (
        lambda c: c["data"].update(participants_seen={}),
        lambda c: c["data"].update(signals_seen=[]),
    ):
        with pytest.raises(RemitError, match="does not say whom it has seen"):
            made.finetune(changed(backbone, tmp_path, change), tmp_path / "x.pt")
    silent = changed(backbone, tmp_path, lambda c: c["data"].pop("signals_seen"))
    with pytest.raises(RemitError, match="data.signals_seen: Field required"):
        made.finetune(silent, tmp_path / "x.pt")


def test_an_extra_corpus_joins(bench, tmp_path):
    fine = make_dataset(tmp_path, {"x1": None, "x2": None}, cohort="more", seed=5)
    backbone, _ = bench.pretrain(corpora=[fine])
    seen = checkpoint.load(backbone, "pretrained")["data"]["participants_seen"]["training"]
    assert {"more/x1", "more/x2"} <= set(seen)


def test_a_held_out_person_in_an_extra_corpus_is_refused_by_name_and_by_signal(bench, tmp_path):
    held_out = read_split(bench.split).part("test")[0]
    named = make_dataset(tmp_path, {held_out: None}, cohort="named", seed=5)
    with pytest.raises(RemitError, match=f"participant {held_out} has the id of a held-out"):
        bench.pretrain(corpora=[named])
    bench.pretrain(corpora=[named], extra_ids="other")
    # The same signals under other names and in another cohort, with other file hashes.
    people = {f"x{i:02d}": None for i in range(len(PEOPLE))}
    copied = make_dataset(tmp_path, people, cohort="copied", like=PEOPLE)
    with pytest.raises(RemitError, match="holds the same signal as .* of a held-out participant"):
        bench.pretrain(corpora=[copied])


def test_simulated_recordings_in_an_extra_corpus_are_marked(bench, tmp_path):
    bench.primary = make_dataset(tmp_path, PEOPLE, cohort="real", simulated=False)
    bench.split = split_of(bench.primary, tmp_path)
    alone = checkpoint.load(bench.pretrain()[0], "pretrained")
    assert alone["data"]["simulated"] is False
    extra = make_dataset(tmp_path, {"x1": None}, cohort="fake", seed=5)
    backbone, lines = bench.pretrain(corpora=[extra])
    assert any("SIMULATED" in line for line in lines)
    assert checkpoint.load(backbone, "pretrained")["data"]["simulated"] is True


def test_unlabelled_participants_enter_pretraining_only(tmp_path, bench):
    people = {**PEOPLE, "u1": None, "u2": None}
    bench.primary = make_dataset(tmp_path, people, cohort="some")
    with pytest.raises(RemitError, match=r"2 of 16 participants have no label \(u1, u2\)"):
        split_of(bench.primary, tmp_path)
    bench.split = split_of(bench.primary, tmp_path, unlabelled="pretraining")
    backbone, _ = bench.pretrain()
    seen = checkpoint.load(backbone, "pretrained")["data"]["participants_seen"]
    assert {"some/u1", "some/u2"} <= {name for part in seen.values() for name in part}
    file, _ = bench.finetune(backbone)
    predicted = pq.read_table(file.with_suffix(".parquet"))["Participant"].to_pylist()
    assert predicted == sorted(PEOPLE)


def test_fine_tuning_refuses_an_unlabelled_participant(tmp_path, trained):
    made, backbone = trained
    content = json.loads(made.split.read_text())
    people = {**PEOPLE, "p00": None}
    made_again = type(made)(tmp_path, make_dataset(tmp_path, people), tmp_path / "split.json")
    content["content_sha256"] = open_dataset(made_again.primary).metadata["content_sha256"]
    made_again.split.write_text(json.dumps(content))
    with pytest.raises(RemitError, match="participant p00 has no label"):
        made_again.finetune(backbone)


# What is repeatable ---------------------------------------------------------------------


@pytest.mark.parametrize("style", ["mae", "bert"])
def test_two_runs_give_the_same_bits(bench, tmp_path, style):
    name = ModelName(16, 1, 40, style)
    one, _ = bench.pretrain(tmp_path / "one.pt", name=name)
    two, _ = bench.pretrain(tmp_path / "two.pt", name=name)
    assert same_tensors(one, two)
    assert one.read_bytes() == two.read_bytes()
    a, _ = bench.finetune(one, tmp_path / "a.pt", name=name)
    b, _ = bench.finetune(two, tmp_path / "b.pt", name=name)
    assert same_tensors(a, b)
    assert a.read_bytes() == b.read_bytes()


def test_another_seed_gives_another_backbone(bench, tmp_path):
    one, _ = bench.pretrain(tmp_path / "one.pt")
    two, _ = bench.pretrain(tmp_path / "two.pt", seed=1)
    assert not same_tensors(one, two)


class Stop(Exception):
    """A crash in the middle of a training."""


def test_an_interrupted_training_ends_like_an_unbroken_one(bench, tmp_path):
    def crash_after(epoch):
        def log(line):
            if line.startswith(f"epoch {epoch}/"):
                raise Stop

        return log

    whole, _ = bench.pretrain(tmp_path / "whole.pt", epochs=4)
    broken = tmp_path / "broken.pt"
    with pytest.raises(Stop):
        bench.pretrain(broken, epochs=4, log=crash_after(2))
    assert not broken.exists()
    _, lines = bench.pretrain(broken, epochs=4)
    assert any("resuming after epoch 2" in line for line in lines)
    assert same_content(broken, whole)
    assert not (tmp_path / "broken.state").exists()

    options = {"epochs": 5, "freeze_backbone": False}
    tuned, _ = bench.finetune(whole, tmp_path / "tuned.pt", **options)
    again = tmp_path / "again.pt"
    with pytest.raises(Stop):
        bench.finetune(whole, again, log=crash_after(3), **options)
    assert not again.exists()
    _, lines = bench.finetune(whole, again, **options)
    assert any("resuming after epoch 3" in line for line in lines)
    assert same_content(again, tuned)


def test_a_damaged_state_is_left_alone(bench, tmp_path):
    folder = tmp_path / "x.state"
    folder.mkdir()
    (folder / "last.pt").write_bytes(b"PK damaged")
    file, lines = bench.pretrain(tmp_path / "x.pt")
    assert any("cannot be read" in line for line in lines)
    assert file.exists()


def test_what_is_left_in_sight_does_not_count_as_predicted(bench):
    """`bert` keeps a tenth of the masked tokens; a model that copies them has learned nothing."""
    explained = {}
    for style in ("mae", "bert"):
        _, lines = bench.pretrain(name=ModelName(16, 1, 40, style), epochs=1, learning_rate=1e-9)
        (line,) = [line for line in lines if line.startswith("epoch 1/")]
        explained[style] = line.split("held-out")[1].split("(")[0]
    assert explained["mae"] == explained["bert"]


def test_state_of_other_settings_is_not_continued(bench, tmp_path):
    file = tmp_path / "x.pt"

    def crash(line):
        if line.startswith("epoch 2/"):
            raise Stop

    with pytest.raises(Stop):
        bench.pretrain(file, log=crash)
    _, lines = bench.pretrain(file, learning_rate=0.01)
    (line,) = [line for line in lines if "is not continued" in line]
    assert "settings.pretraining.learning_rate was 0.002 and is now 0.01" in line
    assert any(line.startswith("epoch 1/") for line in lines)


def participants(trained, *, keep):
    made, _ = trained
    data = open_dataset(made.primary)
    sequences = load_sequences(data, read_split(made.split).part("train"), made.sequences)
    seed_all(3)
    encoder, _ = build_encoder(encoder_settings(MODEL, sequences.samples_per_token, 64.0), CHANNELS)
    return encoder.eval(), tuning.Participants(encoder, sequences, torch.device("cpu"), keep=keep)


def test_stored_embeddings_give_the_identical_result(trained, tmp_path, monkeypatch):
    made, backbone = trained
    passes = []
    original = tuning.Participants._embed_ND
    monkeypatch.setattr(
        tuning.Participants,
        "_embed_ND",
        lambda self, chosen: (passes.extend(chosen), original(self, chosen))[1],
    )
    stored, _ = made.finetune(backbone, tmp_path / "stored.pt")
    assert len(passes) == len(PEOPLE)  # each participant once, the test part included
    init = tuning.Participants.__init__
    monkeypatch.setattr(
        tuning.Participants,
        "__init__",
        lambda self, *args, keep: init(self, *args, keep=False),
    )
    passes.clear()
    again, _ = made.finetune(backbone, tmp_path / "again.pt")
    assert len(passes) > 3 * len(PEOPLE)
    assert same_tensors(stored, again)


# The frozen path -------------------------------------------------------------------------


def uneven(windows_P, *, context=6, d_model=32, seed=0):
    """An encoder and a cohort whose participant i has ``windows_P[i]`` windows without a gap."""
    seed_all(seed)
    settings = encoder_settings(
        MODEL | {"d_model": d_model, "num_layers": 2}, samples_per_token := 12, 64.0
    )
    encoder, _ = build_encoder(settings, CHANNELS)
    ends = np.cumsum(windows_P)
    rows = []
    for person, (first, end) in enumerate(zip(ends - windows_P, ends, strict=True)):
        for start in range(first, end, context):
            used = np.arange(start, min(start + context, end))
            rows.append((person, np.pad(used, (0, context - len(used)), constant_values=-1)))
    return encoder.eval(), TokenSequences(
        participants=tuple(f"p{i}" for i in range(len(windows_P))),
        labels=tuple(i % 2 for i in range(len(windows_P))),
        signal_WCL=torch.randn(int(ends[-1]), len(CHANNELS), 5 * samples_per_token),
        windows_NV=np.stack([row for _, row in rows]),
        participant_N=np.array([person for person, _ in rows]),
        samples_per_token=samples_per_token,
        windows_used=tuple(windows_P),
        windows_bad=(0,) * len(windows_P),
    )


def only(sequences, people):
    """The same sequences, of some participants in another order."""
    rows = np.concatenate([sequences.of_participant(person) for person in people])
    return replace(
        sequences,
        participants=tuple(sequences.participants[person] for person in people),
        labels=tuple(sequences.labels[person] for person in people),
        windows_NV=sequences.windows_NV[rows],
        participant_N=np.array([people.index(p) for p in sequences.participant_N[rows]]),
    )


CPU = torch.device("cpu")


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("d_model", [32, 24])
def test_an_embedding_has_the_same_bits_whoever_else_is_embedded(d_model, threads):
    encoder, sequences = uneven([1, 13, 6, 6, 1, 2, 12, 3, 5], d_model=d_model)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        together = tuning.Participants(encoder, sequences, CPU, keep=True).embeddings(range(9))
        for people in ([0], [1], [2, 3], [4, 0], [7, 1, 5], [8, 7, 6, 5, 4, 3, 2, 1, 0]):
            fewer = tuning.Participants(encoder, only(sequences, people), CPU, keep=True)
            assert torch.equal(fewer.embeddings(range(len(people))), together[people]), people
        some = tuning.Participants(encoder, sequences, CPU, keep=False)
        assert torch.equal(some.embeddings([3, 8]), together[[3, 8]])
    finally:
        torch.set_num_threads(before)
    assert together.std(dim=0).min() > 1e-4  # they do differ between participants


def test_an_embedding_does_not_depend_on_the_number_of_threads():
    encoder, sequences = uneven([40, 13, 66, 1], context=70, d_model=64)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3, 4):
            torch.set_num_threads(threads)
            people = tuning.Participants(encoder, sequences, CPU, keep=True)
            found.append(people.embeddings(range(4)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(other, found[0]) for other in found[1:])


@pytest.mark.parametrize("tokens_at_once", [1, 200, 1000, 65_536])
def test_batches_of_an_accelerator_give_the_same_to_rounding(monkeypatch, tokens_at_once):
    encoder, sequences = uneven([1, 13, 6, 6, 1, 2, 12, 3, 5] * 3, context=40)
    everyone = np.arange(len(sequences))
    alone = tuning.token_sums(encoder, sequences, everyone, CPU, together=False)
    sizes = []
    encoder.register_forward_pre_hook(lambda _, inputs: sizes.append(tuple(inputs[0].shape[:2])))
    monkeypatch.setattr(tuning, "TOKENS_AT_ONCE", tokens_at_once)
    batched = tuning.token_sums(encoder, sequences, everyone, CPU, together=True)
    assert (batched - alone).abs().max() <= 1e-5 * alone.abs().max()
    assert all(rows == 1 or rows * steps * 2 <= tokens_at_once for rows, steps in sizes)
    assert sum(rows for rows, _ in sizes) == len(sequences)
    if tokens_at_once == 65_536:
        assert len(sizes) == len(np.unique(sequences.valid_steps_N))  # these lengths lie far apart


def test_an_embedding_is_the_mean_over_all_valid_tokens():
    encoder, sequences = uneven([7, 2])
    found = tuning.Participants(encoder, sequences, CPU, keep=True).embeddings([0, 1])
    for person, rows in ((0, [0, 1]), (1, [2])):
        tokens = []
        for row in rows:
            samples, valid = sequences.batch([row], CPU)
            tokens.append(encoder(samples[:, valid[0]]).flatten(0, 2))
        torch.testing.assert_close(found[person], torch.cat(tokens).mean(0), rtol=1e-5, atol=1e-6)


def test_stored_embeddings_can_be_trained_on():
    encoder, sequences = uneven([2, 3])
    found = tuning.Participants(encoder, sequences, CPU, keep=True).embeddings([0, 1])
    assert not found.is_inference() and not found.requires_grad
    weight = torch.ones(32, requires_grad=True)
    (found * weight).sum().backward()
    torch.testing.assert_close(weight.grad, found.sum(0))


def test_the_two_pass_gradient_is_the_gradient(trained, monkeypatch):
    monkeypatch.setattr(tuning, "SEQUENCES_AT_ONCE", 2)
    encoder, people = participants(trained, keep=False)
    seed_all(4)
    head = ClassifierHead(16, 2, 0.0)
    weights = torch.tensor([1.0, 3.0])
    chosen = [0, 3, 5]
    tuning.step(people, head, [chosen], weights, train_backbone=True)
    found = {key: p.grad.clone() for key, p in encoder.named_parameters() if p.grad is not None}
    encoder.zero_grad()
    rows = []
    for index in chosen:
        samples, valid = people.sequences.batch(
            people.sequences.of_participant(index), people.device
        )
        tokens = encoder(samples, valid_BK=valid)
        rows.append(
            (tokens * valid[:, :, None, None]).sum((0, 1, 2)) / (valid.sum() * len(CHANNELS))
        )
    loss = torch.nn.functional.cross_entropy(
        head(torch.stack(rows)), people.labels_N[chosen], weights
    )
    loss.backward()
    direct = {key: p.grad for key, p in encoder.named_parameters() if p.grad is not None}
    assert found.keys() == direct.keys()
    assert any(float(g.abs().max()) > 0 for g in direct.values())
    for key, gradient in direct.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-4, atol=1e-7)


def test_accumulated_batches_give_the_gradient_of_one(trained):
    _, people = participants(trained, keep=True)
    weights = torch.tensor([1.0, 3.0])
    gradients = []
    for batches in ([[0, 1, 2, 3, 4]], [[0, 1], [2, 3], [4]]):
        seed_all(5)
        head = ClassifierHead(16, 2, 0.0)
        tuning.step(people, head, batches, weights, train_backbone=False)
        gradients.append([p.grad for p in head.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_all_layers_train_when_asked_and_none_of_the_backbone_when_frozen(trained, tmp_path):
    made, backbone = trained
    before = checkpoint.load(backbone, "pretrained")["state_dict"]
    for frozen in (True, False):
        file, _ = made.finetune(
            backbone, tmp_path / f"{frozen}.pt", freeze_backbone=frozen, backbone_learning_rate=1e-2
        )
        after = checkpoint.load(file, "finetuned")["state_dict"]
        changed = [key for key in before if not torch.equal(before[key], after[f"encoder.{key}"])]
        assert bool(changed) is not frozen
        assert any(key.startswith("head.") for key in after)


def test_the_best_epoch_is_by_f1_and_then_by_loss(trained, tmp_path):
    made, backbone = trained
    file, _ = made.finetune(backbone, tmp_path / "best.pt", epochs=15, learning_rate=3e-3)
    card = json.loads(file.with_suffix(".json").read_text())
    best = max(card["history"], key=lambda e: (e["val_f1"], -e["val_loss"], -e["epoch"]))
    assert card["best_epoch"] == best["epoch"]
    assert card["metrics"]["val"]["f1"]["value"] == pytest.approx(best["val_f1"])
    assert card["data"]["simulated"] is True


def test_the_learning_rate_warms_up_and_falls_to_zero():
    from remit.config import Pretraining

    settings = Pretraining(learning_rate=2.0, warmup_fraction=0.1)
    rates = [learning_rate(step, 100, settings) for step in range(101)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == rates[10] == 2.0
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert rates[100] == pytest.approx(0.0, abs=1e-12)


def test_keeping_aside_does_not_depend_on_order():
    names = [f"p{i}" for i in range(20)]
    assert keep_aside(names, 0.15, 0) == keep_aside(names[::-1], 0.15, 0)
    with pytest.raises(RemitError, match="expected at least 2"):
        keep_aside(["only"], 0.15, 0)


# What is refused ------------------------------------------------------------------------


def test_a_damaged_or_foreign_checkpoint_is_refused_in_one_line(trained, tmp_path):
    made, backbone = trained
    whole = backbone.read_bytes()
    cases = {
        "truncated": (whole[: len(whole) // 2], "cannot be read as a checkpoint"),
        "empty": (b"", "cannot be read as a checkpoint"),
        "text": (b"not a checkpoint", "cannot be read as a checkpoint"),
    }
    for name, (content, says) in cases.items():
        file = tmp_path / f"{name}.pt"
        file.write_bytes(content)
        with pytest.raises(RemitError, match=says) as caught:
            made.finetune(file)
        assert "\n" not in str(caught.value)
    foreign = tmp_path / "foreign.pt"
    torch.save({"weight": torch.zeros(3)}, foreign)
    with pytest.raises(RemitError, match="holds no checkpoint of remit"):
        made.finetune(foreign)
    pickled = tmp_path / "pickled.pt"
    torch.save(torch.nn.Linear(2, 2), pickled)
    with pytest.raises(RemitError, match="tensors and plain values only"):
        made.finetune(pickled)
    with pytest.raises(RemitError, match="not found"):
        made.finetune(tmp_path / "none.pt")
    tuned, _ = made.finetune(backbone, tmp_path / "tuned.pt")
    with pytest.raises(RemitError, match="is a finetuned checkpoint"):
        made.finetune(tuned)


def test_equal_contents_are_equal_bytes_wherever_their_texts_came_from(trained, tmp_path):
    """As after a resume, where a part of them was read from a state."""
    _, backbone = trained
    read = checkpoint.load(backbone, "pretrained")
    checkpoint.save(tmp_path / "again.pt", "pretrained", read)
    assert (tmp_path / "again.pt").read_bytes() == backbone.read_bytes()


def changed(backbone, tmp_path, change):
    content = torch.load(backbone, weights_only=True)
    change(content)
    del content["sha256"]  # as in a file from elsewhere
    file = tmp_path / "changed.pt"
    torch.save(content, file)
    return file


def test_a_checkpoint_that_does_not_fit_says_which_value_differs(trained, tmp_path):
    made, backbone = trained
    other = ModelName(16, 1, 60, "mae")
    with pytest.raises(RemitError, match="name is mamba2_eeg_d16_l1_m40_mae; expected .*m60_mae"):
        made.finetune(backbone, tmp_path / "x.pt", name=other)
    with pytest.raises(RemitError, match=r"encoder\.d_state is 8; expected 4 by name and config"):
        made.finetune(backbone, tmp_path / "x.pt", model={**RULE_MODEL, "d_state": 4})
    with pytest.raises(RemitError, match="sequences.context_windows is 2; expected 3"):
        made.finetune(
            backbone, tmp_path / "x.pt", sequences=Sequences(token_seconds=0.5, context_windows=3)
        )
    cases = [
        (lambda c: c["encoder"].update(d_model=32), "d_model is 32; expected 16 by the name"),
        (lambda c: c.update(channels=["AF7", "TP9"]), "channels is .*TP9.* by the primary dataset"),
        (lambda c: c["data"]["signal"].update(sampling_rate=64.0), "signal.sampling_rate is 64"),
        (lambda c: c["state_dict"].pop("mask_token"), "tensors do not fit.*mask_token"),
        (lambda c: c["state_dict"].update(extra=torch.zeros(1)), "tensors do not fit.*extra"),
        (lambda c: c.pop("versions"), "versions: Field required"),
        (lambda c: c.update(best_epoch=99), "best_epoch is 99 of 3 epochs"),
        (lambda c: c.update(encoder=3), "encoder: Input should be a valid dictionary"),
        (lambda c: c.update(state_dict=[1]), "state_dict: Input should be a valid dictionary"),
        (
            lambda c: c["state_dict"].update(positions_C3=c["positions"] * 0.9),
            "is not that of the elec",
        ),
        (lambda c: c.update(format_version=99), "format version 99"),
    ]
    for change, says in cases:
        file = changed(backbone, tmp_path, change)
        with pytest.raises(RemitError, match=says) as caught:
            made.finetune(file, tmp_path / "x.pt")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "x.pt").exists()


def test_a_split_of_other_people_is_refused(trained, tmp_path):
    made, backbone = trained
    content = json.loads(made.split.read_text())
    content["participants"]["stranger"] = content["participants"].pop("p00")
    file = tmp_path / "split.json"
    file.write_text(json.dumps(content))
    with pytest.raises(RemitError, match="without a part: p00; .*lacks: stranger"):
        type(made)(tmp_path, made.primary, file).finetune(backbone)


def test_cuda_that_is_not_there_is_refused(bench):
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(RemitError, match="found no CUDA device"):
        bench.pretrain(execution=Execution(device="cuda", mlflow=False))


def test_the_mlflow_runs_of_folds_are_told_apart():
    one = naming.path("pretrained", model=str(NAME))
    folds = [
        naming.path("pretrained_fold", model=str(NAME), repeat=repeat, fold="3")
        for repeat in ("1", "10")
    ]
    found = [run_name(NAME, Path(file)) for file in (one, *folds)]
    assert found == [str(NAME), f"{NAME}_r1f3", f"{NAME}_r10f3"]


def test_an_mlflow_server_that_refuses_stops_nothing_and_changes_nothing(
    trained, tmp_path, monkeypatch
):
    made, backbone = trained
    monkeypatch.chdir(tmp_path)
    dead = Execution(device=DEVICE, training_threads=1, mlflow_uri="http://127.0.0.1:9")
    one, lines = made.finetune(backbone, tmp_path / "one.pt", execution=dead)
    assert sum("warning: MLflow could not" in line for line in lines) == 1
    two, _ = made.finetune(backbone, tmp_path / "two.pt")
    assert one.read_bytes() == two.read_bytes()
