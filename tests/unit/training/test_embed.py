"""Embeddings: one row per usable window, the mean of its tokens, whoever else is embedded."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from remit import cli
from remit.config import Execution, Sequences
from remit.dataset.sequences import load_sequences
from remit.dataset.splits import fold_split, read_split, write_split
from remit.dataset.windows import METADATA_KEY, open_dataset
from remit.errors import RemitError
from remit.evaluation.folds import read_folds
from remit.naming import ModelName
from remit.training import checkpoint, embed, participants
from remit.training.data import build_encoder, encoder_settings
from tests.unit.training.conftest import (
    CHANNELS,
    NAME,
    PEOPLE,
    QUIET,
    RATE,
    RULE_MODEL,
    SEQUENCES,
    make_dataset,
    on_cpu,
)
from tests.unit.training.test_training import CPU, changed, uneven

KEYS = [
    "Participant",
    "recording",
    "parent_window_id",
    "sub_window_id",
    "window_start",
    "window_end",
]


def embedded(made, output, *, backbone, name=NAME, split=None, execution=QUIET, **settings):
    """What is written: the table, and what its metadata say."""
    lines = []
    given = {"result_version": "t", "model": RULE_MODEL, "sequences": SEQUENCES, **settings}
    embed.embed(
        name=name,
        settings=embed.EmbedSettings(**given),
        backbone=backbone,
        primary=made.primary,
        split_file=split,
        output=output,
        execution=execution,
        log=lines.append,
    )
    table = pq.read_table(output)
    return table, json.loads(table.schema.metadata[METADATA_KEY])


def rows_of(table):
    return np.stack(table["embedding"].to_pylist())


def test_every_usable_window_is_the_mean_of_its_tokens(trained, tmp_path):
    """Against the encoder called by hand, on sequences found by hand from the windows' places."""
    made, backbone = trained
    table, said = embedded(made, tmp_path / "e.parquet", backbone=backbone)
    assert table.column_names == [*KEYS, "embedding"]
    assert str(table.schema.field("embedding").type).startswith("fixed_size_list<element: float")
    assert table.schema.field("embedding").type.list_size == NAME.d_model
    dataset = open_dataset(made.primary)
    frame = dataset.frame()
    good = frame[frame["good"]]
    assert 0 < len(good) < len(frame)
    assert table.select(KEYS).to_pandas().to_numpy().tolist() == good[KEYS].to_numpy().tolist()
    content = checkpoint.load(backbone, "pretrained")
    encoder, _ = build_encoder(encoder_settings(RULE_MODEL, int(RATE / 2), RATE), CHANNELS)
    encoder.load_state_dict(content["state_dict"])
    encoder.eval()
    found = rows_of(table)
    checked = set()
    for person in ("p01", "p03"):
        mine = good[good["Participant"] == person]
        scaled = load_sequences(dataset, [person], SEQUENCES).signal_WCL
        places = mine["sub_window_id"].to_list()
        pairs, at = [], 0
        while at < len(places):
            two = at + 1 < len(places) and places[at + 1] == places[at] + 1
            pairs.append([at, at + 1] if two else [at])
            at += len(pairs[-1])
        for pair in pairs:
            samples_KCS = torch.cat([scaled[w].unflatten(1, (4, 16)).movedim(1, 0) for w in pair])
            with torch.no_grad():
                tokens_KCD = encoder(samples_KCS[None])[0]
            for position, window in enumerate(pair):
                mean = tokens_KCD[4 * position : 4 * position + 4].mean((0, 1))
                row = np.flatnonzero(
                    (table["Participant"].to_numpy() == person)
                    & (table["sub_window_id"].to_numpy() == places[window])
                )
                np.testing.assert_allclose(found[row[0]], mean.numpy(), rtol=1e-5, atol=1e-6)
                checked.add((person, len(pair), position))
    assert {(1, 0), (2, 0), (2, 1)} <= {(n, position) for _, n, position in checked}
    assert said["left_out"] == []


def test_the_file_says_whose_and_of_whom_it_is(trained, tmp_path):
    made, backbone = trained
    _, said = embedded(made, tmp_path / "e.parquet", backbone=backbone)
    content = checkpoint.load(backbone, "pretrained")
    metadata = open_dataset(made.primary).metadata
    assert (said["model"], said["random"]) == (str(NAME), False)
    for key in ("dataset", "content_sha256", "cohort", "simulated"):
        assert said[key] == metadata[key]
    assert said["backbone_sha256"] == checkpoint.backbone_sha256(content)
    assert said["fingerprint"] == checkpoint.fingerprint(content["state_dict"])
    assert said["seen"] == read_split(made.split).part("train")
    assert said["transductive"] is False and said["repeat"] is said["fold"] is None


@on_cpu
def test_two_runs_and_any_threads_give_the_same_bytes(trained, tmp_path):
    made, backbone = trained
    one = tmp_path / "one.parquet"
    embedded(made, one, backbone=backbone)
    for number, threads in enumerate((1, 2)):
        other = tmp_path / f"{number}.parquet"
        execution = Execution(device="cpu", mlflow=False, training_threads=threads)
        embedded(made, other, backbone=backbone, execution=execution)
        assert other.read_bytes() == one.read_bytes()


def test_a_row_does_not_depend_on_how_many_people_are_held_at_once(trained, tmp_path, monkeypatch):
    made, backbone = trained
    whole, _ = embedded(made, tmp_path / "one.parquet", backbone=backbone)
    monkeypatch.setattr(embed, "SIGNAL_AT_ONCE", 1)
    alone, _ = embedded(made, tmp_path / "two.parquet", backbone=backbone)
    assert pq.ParquetFile(tmp_path / "two.parquet").num_row_groups == len(PEOPLE)
    assert alone.equals(whole)


@pytest.mark.parametrize("together", [False, True])
def test_windows_of_uneven_sequences_add_up_to_their_participant(together):
    """Of each sequence the windows' means, each with as many tokens, average to the sequence's."""
    encoder, sequences = uneven([7, 2, 13, 1], context=6)
    means_WD = participants.window_means(encoder, sequences, CPU, together=together)
    sums_ND = participants.token_sums(
        encoder, sequences, np.arange(len(sequences)), CPU, together=False
    )
    tokens = sequences.steps_per_window * len(CHANNELS)
    assert means_WD.isfinite().all()
    for row, windows_V in enumerate(sequences.windows_NV):
        own = means_WD[windows_V[windows_V >= 0]].sum(0) * tokens
        torch.testing.assert_close(own, sums_ND[row], rtol=1e-4, atol=1e-4)
    few = replace(
        sequences, windows_NV=sequences.windows_NV[:1], participant_N=sequences.participant_N[:1]
    )
    used = sequences.windows_NV[0]
    if not together:
        alone = participants.window_means(encoder, few, CPU, together=False)
        assert torch.equal(alone[used], means_WD[used])


def test_random_weights_have_seen_nobody_and_depend_on_the_seed_alone(trained, tmp_path):
    made, backbone = trained
    pretrained, _ = embedded(made, tmp_path / "e.parquet", backbone=backbone)
    one, said = embedded(made, tmp_path / "r.parquet", backbone=None, seed=1)
    torch.manual_seed(77)
    again, _ = embedded(made, tmp_path / "s.parquet", backbone=None, seed=1)
    other, _ = embedded(made, tmp_path / "t.parquet", backbone=None, seed=2)
    assert said["random"] is True and said["seen"] == [] and said["backbone_sha256"] is None
    assert one.equals(again) and not one.equals(other) and not one.equals(pretrained)
    assert one.select(KEYS).equals(pretrained.select(KEYS))
    assert rows_of(one).shape == rows_of(pretrained).shape
    with pytest.raises(RemitError, match=r"size is \[16, 1\]; expected \[24, 1\] by the name"):
        embedded(made, tmp_path / "x.parquet", backbone=None, name=ModelName(24, 1, 40, "mae"))


def test_a_backbone_of_a_fold_has_not_seen_the_fold(bench, tmp_path):
    data = open_dataset(bench.primary)
    facts = {key: data.metadata[key] for key in ("dataset", "content_sha256", "simulated")}
    for test in (["p00", "p01", "p06"], ["p02", "p03"]):
        split = fold_split(PEOPLE, [], test, seed=0, **facts)
        write_split(tmp_path / f"{len(test)}.json", split)
    bench.split = tmp_path / "3.json"
    backbone, _ = bench.pretrain()
    _, said = embedded(
        bench, tmp_path / "e.parquet", backbone=backbone, split=bench.split, repeat=2, fold=3
    )
    assert said["seen"] == sorted(set(PEOPLE) - {"p00", "p01", "p06"})
    assert (said["repeat"], said["fold"], said["test"]) == (2, 3, ["p00", "p01", "p06"])
    with pytest.raises(RemitError, match="has seen participant p02, p03 of the fold's test part"):
        embedded(bench, tmp_path / "x.parquet", backbone=backbone, split=tmp_path / "2.json")
    assert not (tmp_path / "x.parquet").exists()
    with pytest.raises(RemitError, match="has nobody to validate, being the split of a fold"):
        bench.finetune(backbone)


def test_whom_a_backbone_saw_under_another_name_is_said(trained, tmp_path):
    made, backbone = trained
    held_out = read_split(made.split).part("val")[0]
    source = open_dataset(made.primary).metadata["sources"][f"{held_out}_r"]
    file = changed(
        backbone,
        tmp_path,
        lambda c: c["data"]["signals_seen"].append(source["signal_sha256"]),
    )
    _, said = embedded(made, tmp_path / "e.parquet", backbone=file)
    assert said["seen"] == sorted([*read_split(made.split).part("train"), held_out])


def test_a_transductive_backbone_is_taken_and_says_so(bench, tmp_path):
    backbone, _ = bench.pretrain(transductive=True)
    _, said = embedded(bench, tmp_path / "e.parquet", backbone=backbone)
    assert said["transductive"] is True and said["seen"] == sorted(PEOPLE)


def test_what_does_not_fit_is_refused(trained, tmp_path):
    made, backbone = trained
    out = tmp_path / "x.parquet"
    with pytest.raises(RemitError, match="name is .*expected mamba2_eeg_d16_l1_m50_mae"):
        embedded(made, out, backbone=backbone, name=ModelName(16, 1, 50, "mae"))
    longer = Sequences(token_seconds=0.5, context_windows=3)
    with pytest.raises(RemitError, match="sequences.context_windows is 2; expected 3"):
        embedded(made, out, backbone=backbone, sequences=longer)
    other = replace(made, primary=make_dataset(tmp_path, PEOPLE, channels=("AF7", "TP9")))
    with pytest.raises(RemitError, match="channels is .*'AF8'.*; expected .*'TP9'"):
        embedded(other, out, backbone=backbone)
    assert not out.exists()


def test_who_has_no_good_window_is_refused_if_labelled_and_named_if_not(trained, tmp_path):
    """Of these people every third has a bad window, and here no other one."""
    made, backbone = trained
    some = replace(made, primary=make_dataset(tmp_path, {"a": None, "b": 1}, windows=1))
    table, said = embedded(some, tmp_path / "e.parquet", backbone=backbone)
    assert said["left_out"] == ["a"] and set(table["Participant"].to_pylist()) == {"b"}
    labelled = replace(
        made, primary=make_dataset(tmp_path, {"a": 0, "b": 1}, windows=1, cohort="c")
    )
    with pytest.raises(RemitError, match="participant a has no window of good quality"):
        embedded(labelled, tmp_path / "x.parquet", backbone=backbone)


def test_the_split_of_a_fold_is_what_the_file_of_folds_says(trained, tmp_path, capsys):
    made, _ = trained
    asked = {"folds": 4, "seed": 3}
    given = json.dumps({"result_version": "t", "evaluation": asked | {"repeats": 3}})
    file = tmp_path / "folds.json"
    command = ["--primary", str(made.primary), "--output"]
    assert cli.main(["folds", "--settings", given, *command, str(file)]) == 0
    folds = read_folds(file)
    for repeat in (1, 3):
        for fold in range(1, 5):
            given = json.dumps({"evaluation": asked, "repeat": repeat, "fold": fold})
            out = tmp_path / f"{repeat}{fold}.json"
            assert cli.main(["fold-split", "--settings", given, *command, str(out)]) == 0
            split = read_split(out)
            assert split.part("test") == folds.test(repeat - 1, fold - 1)
            assert split.part("train") == sorted(set(PEOPLE) - set(split.part("test")))
    for fold in (0, 5):
        given = json.dumps({"evaluation": asked, "repeat": 1, "fold": fold})
        capsys.readouterr()
        assert cli.main(["fold-split", "--settings", given, *command, str(out)]) == 1
        assert f"fold is {fold}; expected 1 to 4" in capsys.readouterr().err
