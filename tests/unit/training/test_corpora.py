"""Corpora beside the main cohort: montages, weights, pools, who is seen and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from remit.config import Pretraining
from remit.dataset import windows
from remit.dataset.corpus import Corpora, Part, SignalMemory
from remit.dataset.primary import build_primary
from remit.dataset.splits import read_split
from remit.dataset.windows import open_dataset
from remit.errors import RemitError
from remit.nn.encoder import Encoder
from remit.preprocessing.chain import CHANNEL_QUALITY
from remit.recordings.recording import Segment
from remit.training import checkpoint, pretrain
from remit.training.corpora import index_corpora
from remit.training.data import (
    build_encoder,
    encoder_settings,
    files_of,
    montage_encoding,
    seen_in_pretraining,
)
from remit.training.runtime import seed_all
from tests.unit.training import conftest
from tests.unit.training.conftest import (
    CHANNELS,
    MODEL,
    NAME,
    PEOPLE,
    RATE,
    SEQUENCES,
    make_dataset,
)

CPU = torch.device("cpu")
WIDE = ("AF7", "TP9", "TP10")


def model_of(channels, **options):
    seed_all(5)
    encoder, _ = build_encoder(encoder_settings(MODEL, 16, 64.0), channels)
    given = {"block_seconds": (0.5, 1.0), "spectrum_hz": (2.0, 12.0), **options}
    return pretrain.Reconstruction(encoder, pretrain.Pretraining(**given), NAME, RATE).train()


def two_montages(folder):
    files = [
        make_dataset(folder, {"a": 0, "b": 1}, cohort="narrow"),
        make_dataset(folder, {"c": None, "d": None}, cohort="wide", channels=WIDE, seed=3),
    ]
    parts = [Part(data, data.participants, SEQUENCES) for data in map(open_dataset, files)]
    return Corpora(parts, SignalMemory(1e9))


def test_a_montage_of_another_size_is_what_a_model_of_its_own_electrodes_gives():
    own = model_of(WIDE).encoder
    other = model_of(CHANNELS).encoder
    kept = {k: v for k, v in own.state_dict().items() if k not in ("positions_C3", "electrodes_CD")}
    lacking = other.load_state_dict(kept, strict=False)
    assert set(lacking.missing_keys) == {"positions_C3", "electrodes_CD"}
    assert not lacking.unexpected_keys
    samples = torch.randn(2, 8, 3, 16)
    electrodes_CD = montage_encoding(WIDE, MODEL["d_model"])
    assert torch.equal(electrodes_CD, own.electrodes_CD)
    assert torch.equal(other(samples, electrodes_CD=electrodes_CD), own(samples))
    with pytest.raises(ValueError, match="C = 2 and S = 16"):
        other(samples)
    with pytest.raises(ValueError, match=r"electrodes have shape \(3, 4\); expected .* D = 16"):
        other(samples, electrodes_CD=electrodes_CD[:, :4])


@pytest.mark.parametrize("size", [1, 3, 100])
def test_a_batch_of_two_montages_has_the_sum_of_both_gradients(tmp_path, size):
    both = two_montages(tmp_path)
    model = model_of(CHANNELS, latent_weight=0.5, pooled_weight=0.5)
    model.spectrum.fit(both.scan())
    electrodes = {CHANNELS: None, WIDE: montage_encoding(WIDE, MODEL["d_model"])}
    epoch = both.epoch((0, 1))
    reads = epoch.read(np.arange(len(epoch)))
    assert [read.channels for read in reads] == [CHANNELS, WIDE]
    batches = pretrain.masked_batches(model, reads, electrodes, (0, 2), CPU)
    masked = sum(batch.masked_BKC.sum() for batch in batches)
    sums = pretrain.accumulate(model, batches, masked, size)
    found = {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}
    # By hand: each montage by a model that has its electrodes for its own.
    counts = [int(batch.masked_BKC.sum()) for batch in batches]
    assert int(masked) == sum(counts)
    expected, loss_sum = {}, 0.0
    for batch, channels, count in zip(batches, (CHANNELS, WIDE), counts, strict=True):
        alone = model_of(channels, latent_weight=0.5, pooled_weight=0.5)
        buffers = ("positions_C3", "electrodes_CD")
        lacking = alone.load_state_dict(
            {k: v for k, v in model.state_dict().items() if not k.endswith(buffers)}, strict=False
        )
        assert all(key.endswith(buffers) for key in lacking.missing_keys)
        assert not lacking.unexpected_keys
        loss, _ = alone(replace(batch, electrodes_CD=None))
        (loss * count / sum(counts)).backward()
        loss_sum += float(loss.detach()) * count
        for key, p in alone.named_parameters():
            if p.grad is not None:
                expected[key] = expected.get(key, 0.0) + p.grad
    assert float(sums["loss"]) == pytest.approx(loss_sum, rel=1e-5)
    assert found.keys() == expected.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for key, gradient in expected.items():
        assert float((found[key] - gradient).abs().max()) <= 1e-6 * largest, key


def test_masks_depend_on_the_sequence_and_its_turn_and_not_on_the_pool(tmp_path):
    both = two_montages(tmp_path)
    model = model_of(CHANNELS)
    model.spectrum.fit(both.scan())
    (narrow, _) = both.epoch((0, 1)).read(np.arange(len(both)))
    row = int(np.flatnonzero(narrow.valid_BK.all(1).numpy())[0])

    def mask(turn, shift=0):
        turned = replace(narrow, turn_B=np.full(len(narrow.turn_B), turn))
        turned = replace(turned, number_B=turned.number_B + shift)
        return model.masked_batch(turned, (0, 2), CPU).masked_BKC[row]

    first = mask(0)
    alone = replace(
        narrow,
        samples_BKCS=narrow.samples_BKCS[row : row + 1],
        valid_BK=narrow.valid_BK[row : row + 1],
        number_B=narrow.number_B[row : row + 1],
        turn_B=narrow.turn_B[row : row + 1],
    )
    assert torch.equal(model.masked_batch(alone, (0, 2), CPU).masked_BKC[0], first)
    assert not torch.equal(mask(1), first) and not torch.equal(mask(0, 1), first)


def test_two_montages_train_together_and_the_checkpoint_says_so(bench, tmp_path):
    wide = make_dataset(tmp_path, {"x1": None, "x2": None}, cohort="wide", channels=WIDE, seed=5)
    plain = make_dataset(tmp_path, {"y1": None}, cohort="more", seed=6)
    weights = {"wide": 2.0, "made": 0.5}
    file, lines = bench.pretrain(corpora=[wide, plain], corpus_weights=weights, latent_weight=0.1)
    assert any("sequences of 8 x 2 or 3 tokens" in line for line in lines)
    content = checkpoint.load(file, "pretrained")
    assert content["channels"] == list(CHANNELS)
    data = content["data"]["corpora"]
    assert {name: corpus["weight"] for name, corpus in data.items()} == {
        "made": 0.5,
        "wide": 2.0,
        "more": 1.0,
    }
    assert data["wide"]["channels"] == list(WIDE)
    assert data["wide"]["participants"] == ["x1", "x2"]
    assert data["wide"]["content_sha256"] == open_dataset(wide).metadata["content_sha256"]
    seen = content["data"]["participants_seen"]
    assert {"wide/x1", "more/y1"} <= set(seen["training"])
    bench.finetune(file)  # the backbone has the electrodes of the main cohort


def test_the_size_of_a_pool_shapes_the_order_and_nothing_else_does(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(windows, "ROW_GROUP_BYTES", 8 * 4 * 2 * conftest.SAMPLES)
    extra = make_dataset(tmp_path, {f"x{i}": None for i in range(4)}, cohort="wide", channels=WIDE)
    whole, lines = bench.pretrain(corpora=[extra])
    assert any("MB of signal, read once" in line for line in lines)
    again, _ = bench.pretrain(bench.folder / "again.pt", corpora=[extra], shuffle_mb=512.0)
    assert equal_weights(whole, again)
    small, lines = bench.pretrain(bench.folder / "s.pt", corpora=[extra], shuffle_mb=0.01)
    assert any("read in pools of 0.01 MB" in line for line in lines)
    assert not equal_weights(whole, small)
    other, _ = bench.pretrain(bench.folder / "o.pt", corpora=[extra], shuffle_mb=0.01)
    assert equal_weights(small, other)


def equal_weights(one, other):
    a, b = (checkpoint.load(file, "pretrained")["state_dict"] for file in (one, other))
    return all(torch.equal(a[key], b[key]) for key in a)


def test_the_main_cohort_alone_trains_as_if_there_were_no_montages(bench, monkeypatch):
    """No other electrodes are handed over where a corpus has the backbone's own."""
    given = []
    original = Encoder.forward

    def forward(self, samples_BKCS, **named):
        given.append(named.get("electrodes_CD"))
        return original(self, samples_BKCS, **named)

    monkeypatch.setattr(Encoder, "forward", forward)
    bench.pretrain(epochs=1)
    assert given and all(electrodes is None for electrodes in given)


# What is refused ------------------------------------------------------------------------------


def test_a_held_out_recording_with_other_channels_is_found_by_its_file(bench, tmp_path):
    held_out = read_split(bench.split).part("test")[0]
    twin = make_dataset(
        tmp_path, {"x": None}, cohort="wide", channels=WIDE, seed=9, source=f"made-{held_out}"
    )
    with pytest.raises(RemitError, match=f"recording 'x_r' holds the same .* '{held_out}_r' of a"):
        bench.pretrain(corpora=[twin])
    # One file with recordings of several people says nothing about any of them.
    several = make_dataset(
        tmp_path, {"x": None, "y": None}, cohort="several", seed=9, source=f"made-{held_out}"
    )
    file, _ = bench.pretrain(corpora=[several])
    assert f"made-{held_out}" not in checkpoint.load(file, "pretrained")["data"]["files_seen"]


def pieces(folder, cohort, of, monkeypatch, **changes):
    """A corpus with recordings of a person of the bench, in another file under another name."""
    original = conftest.write_windows

    def write(file, made, *, recording, **given):
        first, stop = changes.get("samples", (0, None))
        rows = changes.get("rows", range(len(CHANNELS)))
        if recording.participant == of:
            signal_CS = recording.signal_CS[list(rows), first:stop]
            channels = tuple(recording.channels[row] for row in rows)
            whole = (Segment(0, signal_CS.shape[1], 0.0),)
            made = replace(
                made,
                signal_WCS=np.ascontiguousarray(made.signal_WCS[:, list(rows)]) + np.float32(1),
                channels=channels,
                **{name: getattr(made, name)[:, list(rows)] for name in CHANNEL_QUALITY},
            )
            recording = replace(
                recording, participant="z", signal_CS=signal_CS, channels=channels, segments=whole
            )
        return original(file, made, recording=recording, **given)

    (folder / cohort).mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(conftest, "write_windows", write)
        patch.setattr(conftest, "build_primary", lambda *_, **__: None)
        make_dataset(folder / cohort, PEOPLE, cohort=cohort)
    channels = [CHANNELS[row] for row in changes.get("rows", range(len(CHANNELS)))]
    out = folder / f"{cohort}_primary.parquet"
    build_primary(
        [folder / cohort / f"{cohort}-{of}.parquet"], out, cohort=cohort, channels=channels
    )
    return out


PIECES = {
    "shorter": {"samples": (0, 250)},
    "cut at an odd place": {"samples": (37, 199)},
    "channels in another order": {"rows": (1, 0)},
    "one of the channels": {"rows": (1,)},
    "a piece of one channel": {"rows": (0,), "samples": (101, 233)},
}


@pytest.mark.parametrize("changes", PIECES.values(), ids=PIECES)
def test_a_piece_of_a_held_out_recording_is_refused(bench, tmp_path, monkeypatch, changes):
    held_out = read_split(bench.split).part("test")[0]
    corpus = pieces(tmp_path, "piece", held_out, monkeypatch, **changes)
    says = f"'{held_out}_r' holds the same signal as '{held_out}_r' of a held-out participant"
    with pytest.raises(RemitError, match=says):
        bench.pretrain(corpora=[corpus])


def test_fine_tuning_finds_whom_the_backbone_saw_in_a_piece(bench, tmp_path, monkeypatch):
    held_out = read_split(bench.split).part("test")[0]
    corpus = pieces(tmp_path, "piece", held_out, monkeypatch, samples=(37, 199))
    # As one that was pretrained where nobody knew who is held out.
    monkeypatch.setattr(pretrain, "refuse_overlap", lambda *_: None)
    file, _ = bench.pretrain(corpora=[corpus], epochs=1)
    with pytest.raises(RemitError, match=f"participant {held_out} of validation or test was seen"):
        bench.finetune(file, epochs=1)


def test_a_file_with_several_recordings_of_one_person_says_who_that_is(bench):
    data = open_dataset(bench.primary)
    sources = data.metadata["sources"]
    sources["again"] = dict(sources["p00_r"])
    assert files_of(data, ["p00"]).keys() == {"made-p00"}
    sources["other"] = sources["p01_r"] | {"sha256": "made-p00"}
    assert not files_of(data, ["p00"])


def copies(folder, people, cohort):
    """A corpus of people of the bench, by their own names."""
    (folder / cohort).mkdir()
    make_dataset(folder / cohort, PEOPLE, cohort=cohort)
    files = [folder / cohort / f"{cohort}-{name}.parquet" for name in people]
    out = folder / f"{cohort}_primary.parquet"
    build_primary(files, out, cohort=cohort, channels=list(CHANNELS))
    return out


def test_who_decides_when_to_stop_does_not_train_in_a_corpus(bench, tmp_path):
    training, aside = pretrain.keep_aside(read_split(bench.split).part("train"), 0.3, 0)
    again = copies(tmp_path, aside[:1], "again")
    says = (
        f"{aside[0]} has the id of a participant kept aside for early stopping; .*extra_ids: other"
    )
    with pytest.raises(RemitError, match=says):
        bench.pretrain(corpora=[again])
    says = "holds the same signal as .* of a participant kept aside for early stopping; .* extra cohort.$"
    with pytest.raises(RemitError, match=says):
        bench.pretrain(corpora=[again], extra_ids="other")
    twice = copies(tmp_path, training[:1], "twice")
    thrice = copies(tmp_path, training[:1], "thrice")
    _, lines = bench.pretrain(corpora=[twice, thrice], epochs=1)
    double = [line for line in lines if "counts double" in line]
    pairs = [("twice", "made"), ("thrice", "made"), ("thrice", "twice")]
    assert len(double) == 3
    for line, (cohort, earlier) in zip(double, pairs, strict=True):
        assert f"{training[0]} of cohort {cohort} stands in cohort {earlier} too" in line


def test_an_id_in_other_letters_is_the_same_id(bench, tmp_path):
    held_out = read_split(bench.split).part("test")[0].upper()
    corpus = make_dataset(tmp_path, {held_out: None}, cohort="more", seed=77)
    with pytest.raises(RemitError, match=f"participant {held_out} has the id of a held-out"):
        bench.pretrain(corpora=[corpus])
    bench.pretrain(corpora=[corpus], extra_ids="other", epochs=1)


def test_a_cohort_is_given_once(bench, tmp_path):
    more = make_dataset(tmp_path, {"x1": None}, cohort="more", seed=6)
    with pytest.raises(
        RemitError, match="more_primary.parquet: is of cohort more, as is .*each coh"
    ):
        bench.pretrain(corpora=[more, more])
    with pytest.raises(RemitError, match="made_primary.parquet: is of cohort made, as is"):
        bench.pretrain(corpora=[bench.primary])


def test_a_weight_of_a_cohort_that_is_not_there_is_refused(bench, tmp_path):
    more = make_dataset(tmp_path, {"x1": None}, cohort="more", seed=6)
    says = "corpus_weights names 'moer', which .* some of made, more.* Did you mean 'more'"
    with pytest.raises(RemitError, match=says):
        bench.pretrain(corpora=[more], corpus_weights={"moer": 5.0})


def test_who_has_no_good_window_is_left_out_of_a_corpus_and_named(bench, tmp_path):
    """Of these every third has a bad window, and here no other one."""
    some = make_dataset(tmp_path, {"x1": None, "x2": None}, cohort="some", windows=1, seed=6)
    file, lines = bench.pretrain(corpora=[some], epochs=1)
    assert any("left out of cohort some: participant x1, without a" in line for line in lines)
    data = checkpoint.load(file, "pretrained")["data"]
    assert data["corpora"]["some"]["participants"] == ["x2"]
    assert data["corpora"]["some"]["left_out"] == ["x1"]
    assert data["corpora"]["made"]["left_out"] == []
    assert "some/x1" not in data["participants_seen"]["training"]
    none = make_dataset(tmp_path, {"x1": None}, cohort="none", windows=1, seed=7)
    with pytest.raises(RemitError, match="participant x1 has no window of good quality"):
        bench.pretrain(corpora=[none])


def test_fine_tuning_finds_a_recording_that_was_seen_with_other_channels(bench, tmp_path):
    held_out = read_split(bench.split).part("val")[0]
    file, _ = bench.pretrain()
    content = torch.load(file, weights_only=True)
    content["data"]["files_seen"].append(f"made-{held_out}")
    del content["sha256"]  # as one that was made elsewhere
    torch.save(content, tmp_path / "changed.pt")
    with pytest.raises(RemitError, match=f"participant {held_out} of validation or test was seen"):
        bench.finetune(tmp_path / "changed.pt", tmp_path / "x.pt")


def corpus_with(folder, monkeypatch, name, value):
    with monkeypatch.context() as patch:
        patch.setattr(conftest, name, value)
        return make_dataset(folder, {"x1": None}, cohort="more", channels=WIDE, seed=5)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("RATE", 64.0, "signal.sampling_rate is 64.0; expected 32.0 by the primary dataset; use a"),
        ("SAMPLES", 128, "signal.window_samples is 128; expected 64 by the primary dataset"),
    ],
)
def test_a_corpus_that_is_not_alike_is_refused_by_the_key_that_differs(
    bench, tmp_path, monkeypatch, name, value, says
):
    with pytest.raises(RemitError, match=says) as caught:
        bench.pretrain(corpora=[corpus_with(tmp_path, monkeypatch, name, value)])
    assert "\n" not in str(caught.value) and "channels" not in str(caught.value)


def test_a_corpus_that_was_filtered_otherwise_is_refused_by_the_setting(bench, tmp_path):
    def filtered(hertz):
        return {"preprocessing": {"lowpass": {"cutoff_hz": hertz}, "highpass": None}}

    bench.primary = make_dataset(tmp_path, conftest.PEOPLE, settings=filtered(14.0))
    bench.split = conftest.split_of(bench.primary, tmp_path)
    corpus = make_dataset(tmp_path, {"x1": None}, cohort="more", seed=5, settings=filtered(12.0))
    says = r"more_primary.parquet: signal.preprocessing.lowpass.cutoff_hz is 12.0; expected 14.0 by the"
    with pytest.raises(RemitError, match=says):
        bench.pretrain(corpora=[corpus])


def test_few_sequences_are_passed_over_more_often_and_many_only_once(tmp_path):
    data = open_dataset(make_dataset(tmp_path, {"a": 0, "b": 1, "c": 0}, cohort="few"))
    people = data.participants

    def draws(**options):
        given = pretrain.Pretraining(epochs=4, batch_size=2, **options)
        return index_corpora(data, [], people[:2], people[2:], SEQUENCES, given)

    once, _ = draws(least_steps=0)
    often, stop = draws(least_steps=100)
    assert once.draws < 2 * 25 == often.draws  # whatever their number: no cliff between passes
    assert len(stop) == stop.draws
    epoch = often.epoch((0, 1))
    assert len(epoch) == often.draws and epoch.turn_D.max() > 0
    enough, _ = draws(least_steps=4 * once.draws // 2)
    assert enough.draws == once.draws


# Other cohorts only --------------------------------------------------------------------------

STRANGERS = {f"x{i:02d}": None for i in range(7)}


def test_without_the_own_cohort_only_others_are_seen(bench, tmp_path):
    first = make_dataset(tmp_path, STRANGERS, cohort="first", seed=5)
    second = make_dataset(tmp_path, {"y1": None}, cohort="second", seed=6, channels=WIDE)
    backbone, lines = bench.pretrain(corpora=[first, second], own_cohort=False)
    data = checkpoint.load(backbone, "pretrained")["data"]
    seen = data["participants_seen"]
    assert sorted([*seen["training"], *seen["early_stopping"]]) == [
        *(f"first/{name}" for name in sorted(STRANGERS)),
        "second/y1",
    ]
    assert seen["early_stopping"] and all(n.startswith("first/") for n in seen["early_stopping"])
    assert set(data["corpora"]) == {"first", "second"}
    assert (data["cohort"], data["transductive"]) == ("made", False)
    assert any(f"{len(PEOPLE)} never seen" in line for line in lines)
    everyone = open_dataset(bench.primary)
    assert (
        seen_in_pretraining(checkpoint.load(backbone, "pretrained"), everyone, list(PEOPLE)) == []
    )
    bench.finetune(backbone)  # it is one like any other


def test_without_the_own_cohort_its_signals_cannot_change_the_backbone(bench, tmp_path):
    corpus = make_dataset(tmp_path, STRANGERS, cohort="first", seed=5)
    one, _ = bench.pretrain(tmp_path / "one.pt", corpora=[corpus], own_cohort=False)
    other = tmp_path / "other"
    other.mkdir()
    bench.primary = make_dataset(other, PEOPLE, seed=9)
    bench.split = conftest.split_of(bench.primary, other)
    two, _ = bench.pretrain(tmp_path / "two.pt", corpora=[corpus], own_cohort=False)
    first, second = (torch.load(file, weights_only=True)["state_dict"] for file in (one, two))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_without_the_own_cohort_none_of_its_people_come_back(bench, tmp_path):
    """Those who would else train are refused as well, by name and by signal."""
    trained = read_split(bench.split).part("train")[0]
    named = make_dataset(tmp_path, {trained: None, **STRANGERS}, cohort="named", seed=5)
    with pytest.raises(RemitError, match=f"participant {trained} has the id of a held-out"):
        bench.pretrain(corpora=[named], own_cohort=False)
    bench.pretrain(corpora=[named], own_cohort=False, extra_ids="other", epochs=1)
    copied = copies(tmp_path, [trained], "copied")
    with pytest.raises(RemitError, match="holds the same signal as .* of a held-out participant"):
        bench.pretrain(corpora=[copied], own_cohort=False, extra_ids="other")


def test_without_the_own_cohort_who_decides_when_to_stop_trains_nowhere(bench, tmp_path):
    first = make_dataset(tmp_path, STRANGERS, cohort="first", seed=5)
    _, aside = pretrain.keep_aside(list(STRANGERS), 0.3, 0)
    people = {"z": None, "y": None}
    number = list(STRANGERS).index(aside[0])  # signals are drawn by place in the cohort
    filler = {f"f{i}": None for i in range(number)}
    again = make_dataset(tmp_path, {**filler, **people}, cohort="again", seed=5)
    with pytest.raises(RemitError, match="of a participant kept aside for early stopping"):
        bench.pretrain(corpora=[first, again], own_cohort=False)


def test_without_the_own_cohort_somebody_else_is_needed(bench, tmp_path):
    with pytest.raises(ValueError, match="own_cohort is false and extra_cohorts is empty"):
        Pretraining(own_cohort=False)
    with pytest.raises(RemitError, match="own_cohort is false and there are no corpora"):
        bench.pretrain(own_cohort=False)
    some = make_dataset(tmp_path, {"x1": None, "x2": None, "x4": None}, cohort="some", windows=1)
    backbone, lines = bench.pretrain(corpora=[some], own_cohort=False, epochs=1)
    assert any("left out of" in line and line.endswith(": x1") for line in lines)
    assert (
        len(checkpoint.load(backbone, "pretrained")["data"]["participants_seen"]["training"]) == 1
    )
