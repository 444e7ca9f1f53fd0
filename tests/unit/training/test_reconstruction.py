"""The task of pretraining: masks for every name and geometry, targets that do not leak, a teacher."""

from copy import deepcopy
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from remit.config import Pretraining, Sequences, validate
from remit.dataset.sequences import TokenSequences, load_sequences
from remit.dataset.windows import open_dataset
from remit.errors import RemitError
from remit.naming import MASK_PERCENT_MIN, MASKING_GEOMETRIES, MASKING_STYLES, ModelName
from remit.training import checkpoint
from remit.training.data import build_encoder, encoder_settings
from remit.training.reconstruction import Reconstruction
from remit.training.runtime import seed_all
from tests.unit.training.conftest import MODEL, read_of

CPU = torch.device("cpu")
ELECTRODES = ("AF7", "AF8", "TP9", "TP10")
RATE = 32.0
TOKEN = 16  # samples: 0.5 s
EVERYTHING = {"pooled_weight": 0.3, "latent_weight": 0.7}


def sequences_of(windows_N, channels=2, steps_per_window=4, context=3, seed=0):
    """Sequences of one participant with these numbers of windows, up to ``context``."""
    ends = np.cumsum(windows_N)
    windows_NV = np.full((len(windows_N), context), -1, dtype=np.int64)
    for row, (count, end) in enumerate(zip(windows_N, ends, strict=True)):
        windows_NV[row, :count] = np.arange(end - count, end)
    rng = np.random.default_rng(seed)
    signal = rng.standard_normal((ends[-1], channels, steps_per_window * TOKEN))
    return TokenSequences(
        participants=("p",),
        labels=(None,),
        signal_WCL=torch.from_numpy(signal.astype(np.float32)),
        windows_NV=windows_NV,
        participant_N=np.zeros(len(windows_N), np.int64),
        samples_per_token=TOKEN,
        windows_used=(int(ends[-1]),),
        windows_bad=(0,),
    )


@cache
def encoder_of(num_channels, samples_per_token, seed):
    seed_all(seed)
    built = build_encoder(
        encoder_settings(MODEL, samples_per_token, 64.0), ELECTRODES[:num_channels]
    )
    return built[0]


def task(sequences=None, *, percent=40, style="mae", seed=0, **options):
    """A tiny model for some sequences, its spectrum fitted on them."""
    sequences = sequences or sequences_of([3, 1, 2])
    encoder = deepcopy(encoder_of(sequences.signal_WCL.shape[1], sequences.samples_per_token, seed))
    seed_all(seed, 1)
    given = {"block_seconds": (0.5, 1.0), "spectrum_hz": (2.0, 12.0), **options}
    model = Reconstruction(encoder, Pretraining(**given), ModelName(16, 1, percent, style), RATE)
    model.spectrum.fit(sequences.tokens_NS().repeat(2, 1))  # one token would be too few
    return model


def batch_of(model, sequences, indices=None, seed=(0,), **how):
    indices = np.arange(len(sequences)) if indices is None else np.asarray(indices)
    return model.masked_batch(read_of(sequences, indices), seed, CPU, **how)


# Masks ----------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=150)
@given(
    percent=st.integers(MASK_PERCENT_MIN, 100),
    style=st.sampled_from(sorted(MASKING_STYLES)),
    geometry=st.sampled_from(sorted(MASKING_GEOMETRIES)),
    windows=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    channels=st.integers(1, 4),
    steps_per_window=st.integers(1, 5),
    seed=st.integers(0, 2**32),
)
def test_every_mask_is_exact_and_free_of_padding(
    percent, style, geometry, windows, channels, steps_per_window, seed
):
    sequences = sequences_of(windows, channels, steps_per_window)
    model = task(sequences, percent=percent, style=style, geometry=geometry)
    batch = batch_of(model, sequences, seed=(seed,))
    for row, count in enumerate(windows):
        tokens = count * steps_per_window * channels
        masked_KC = batch.masked_BKC[row].numpy()
        assert not masked_KC[count * steps_per_window :].any()
        assert abs(masked_KC.sum() - percent / 100 * tokens) <= 1
        assert masked_KC.sum() >= 1 and (percent == 100 or tokens == 1 or masked_KC.sum() < tokens)
        token_KC, source_KC = batch.token_BKC[row].numpy(), batch.source_BKC[row].numpy()
        own_KC = np.arange(source_KC.size).reshape(source_KC.shape)
        assert not (token_KC & ~masked_KC).any()
        assert (source_KC == own_KC)[~masked_KC].all()
        replaced_KC = source_KC != own_KC
        # Content comes from real tokens that are themselves on show.
        on_show = ~(token_KC | replaced_KC).ravel()
        assert on_show[source_KC[replaced_KC]].all()
        assert (source_KC[replaced_KC] < tokens).all()
        if style == "mae":
            assert np.array_equal(token_KC, masked_KC)


@settings(deadline=None, max_examples=40)
@given(
    indices=st.permutations(range(5)).flatmap(
        lambda order: st.integers(1, 5).map(lambda n: order[:n])
    ),
    context=st.integers(3, 6),
    geometry=st.sampled_from(sorted(MASKING_GEOMETRIES)),
)
def test_a_mask_depends_on_seed_epoch_and_sequence_only(indices, context, geometry):
    windows = [3, 1, 2, 3, 3]
    model = task(sequences_of(windows), style="bert", geometry=geometry)
    alone = batch_of(model, sequences_of(windows), seed=(7, 1))
    # Others in the batch, in another order, with more padding.
    other = batch_of(model, sequences_of(windows, context=context), indices, seed=(7, 1))
    steps = alone.masked_BKC.shape[1]
    for row, index in enumerate(indices):
        for field in ("masked_BKC", "token_BKC", "source_BKC"):
            expected, found = getattr(alone, field)[index], getattr(other, field)[row]
            assert torch.equal(found[:steps], expected)
    for seed in ((7, 2), (8, 1)):  # another epoch, another seed
        assert not torch.equal(
            batch_of(model, sequences_of(windows), seed=seed).masked_BKC, alone.masked_BKC
        )


def test_geometries_are_what_their_names_say():
    long = sequences_of([3] * 8, channels=4, steps_per_window=10)

    def masks(**options):
        model = task(long, percent=20, block_seconds=(2.0, 2.0), **options)
        return batch_of(model, long).masked_BKC.numpy()

    def whole_steps(mask_BKC):
        """Share of the steps with any masked token in which all are."""
        return mask_BKC.all(2).sum() / mask_BKC.any(2).sum()

    def lone(mask_BKC):
        """Share of the masked tokens whose channel is visible just before and after."""
        padded = np.pad(mask_BKC, ((0, 0), (1, 1), (0, 0)))
        return (mask_BKC & ~padded[:, :-2] & ~padded[:, 2:]).sum() / mask_BKC.sum()

    found = {geometry: masks(geometry=geometry) for geometry in MASKING_GEOMETRIES}
    assert whole_steps(found["all_channels"]) == 1.0  # 24 tokens of 120: a multiple of 4
    assert whole_steps(found["single_channel"]) < 0.1
    assert 0.1 < whole_steps(found["mixed"]) < 0.9
    assert lone(found["single_channel"]) == 0.0
    # Independent: 0.8 ** 2 of the masked tokens have visible neighbours; the ends have one only.
    assert lone(found["independent"]) == pytest.approx(0.64, abs=0.1)
    assert np.array_equal(masks(single_channel_fraction=0.0), found["all_channels"])
    assert np.array_equal(masks(single_channel_fraction=1.0), found["single_channel"])


def test_a_new_style_and_a_new_geometry_are_a_row_each(monkeypatch):
    monkeypatch.setitem(MASKING_STYLES, "noisy", (0.0, 1.0, 0.0))
    monkeypatch.setitem(MASKING_GEOMETRIES, "tall", (0.0, False))
    sequences = sequences_of([3], channels=4, steps_per_window=10)
    batch = batch_of(task(sequences, percent=20, style="noisy", geometry="tall"), sequences)
    assert not batch.token_BKC.any()
    own = torch.arange(batch.source_BKC[0].numel()).view_as(batch.source_BKC[0])
    assert torch.equal(batch.source_BKC[0] != own, batch.masked_BKC[0])
    assert torch.equal(batch.masked_BKC.all(2), batch.masked_BKC.any(2))


def test_an_unknown_geometry_is_refused_with_the_nearest():
    with pytest.raises(RemitError, match="'indepndent' is no masking geometry.*'independent'"):
        validate({"pretraining": {"geometry": "indepndent"}})


# The whole-window token -----------------------------------------------------------------------


def test_the_old_whole_window_token_runs_through_the_whole_chain(bench):
    bench.sequences = Sequences(token_seconds=2.0, context_windows=4)  # a window is 2 s
    backbone, lines = bench.pretrain(block_seconds=(0.5, 1.0))  # blocks shorter than a token
    assert any("sequences of 4 x 2 tokens" in line for line in lines)
    settings_ = checkpoint.load(backbone, "pretrained")["encoder"]
    assert settings_["samples_per_token"] == 64
    file, _ = bench.finetune(backbone)
    assert file.exists()
    whole = load_sequences(open_dataset(bench.primary), ["p00"], bench.sequences)
    assert whole.steps_per_window == 1 and task(whole).block_steps == (1, 1)


def test_the_whole_window_token_is_reachable_by_config():
    read = validate({"sequences": {"token_seconds": 8, "context_windows": 8}})
    assert read.sequences.token_seconds == read.preprocessing.window_seconds


# Leaks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["mae", "bert"])
@pytest.mark.parametrize(
    "weights",
    [
        {"waveform_weight": 1.0, "spectrum_weight": 0.0},
        {"waveform_weight": 0.0, "spectrum_weight": 1.0},
        {"pooled_weight": 50.0},
        {"latent_weight": 50.0},
    ],
)
def test_no_gradient_of_any_target_runs_through_a_masked_sample(style, weights):
    sequences = sequences_of([3, 1, 2])
    model = task(sequences, style=style, **weights).train()
    batch = batch_of(model, sequences)
    samples = batch.samples_BKCS.clone().requires_grad_()
    loss, _ = model(replace(batch, samples_BKCS=samples))
    loss.backward()
    reached_BKC = (samples.grad != 0).any(-1)
    own_BKC = torch.arange(24).view(12, 2)
    kept_BKC = batch.masked_BKC & ~batch.token_BKC & (batch.source_BKC == own_BKC)
    visible_BKC = ~batch.masked_BKC & batch.valid_BK[..., None]
    assert reached_BKC[visible_BKC].all()
    assert not reached_BKC[batch.masked_BKC & ~kept_BKC].any()
    assert not reached_BKC[~batch.valid_BK].any()
    assert (
        (kept_BKC.any() and reached_BKC[kept_BKC].all()) if style == "bert" else not kept_BKC.any()
    )


def test_masked_samples_change_the_targets_and_never_the_predictions():
    sequences = sequences_of([3, 1, 2])
    model = task(sequences, **EVERYTHING).train()
    batch = batch_of(model, sequences)
    heard = {}
    for name in ("head", "pooled", "latent"):
        getattr(model, name).register_forward_hook(
            lambda _, __, out, name=name: heard.setdefault(name, []).append(out)
        )
    _, before = model(batch)
    louder = batch.samples_BKCS + 3.0 * batch.masked_BKC[..., None]
    _, after = model(replace(batch, samples_BKCS=louder))
    for name, (one, two) in heard.items():
        pairs = zip(one, two, strict=True) if isinstance(one, tuple) else [(one, two)]
        assert all(torch.equal(a, b) for a, b in pairs), name
    assert all(before[what] != after[what] for what in ("waveform", "spectrum", "pooled", "latent"))


@pytest.mark.parametrize("training", [True, False])
def test_padding_is_neither_scored_nor_pooled(training):
    """Nothing changes with the amount of padding, nor with a padded step marked as masked."""
    windows = [3, 1, 2]
    model = task(sequences_of(windows), **EVERYTHING).train(training)
    expected, parts = model(batch_of(model, sequences_of(windows)))
    padded = batch_of(model, sequences_of(windows, context=6))
    wrong = padded.masked_BKC | ~padded.valid_BK[..., None]
    for batch in (padded, replace(padded, masked_BKC=wrong)):
        loss, found = model(batch)
        assert found.keys() == parts.keys()
        torch.testing.assert_close(loss, expected)
        for key, value in found.items():
            torch.testing.assert_close(value, parts[key], rtol=1e-4, atol=1e-5)


# The parts of the loss ------------------------------------------------------------------------


def test_parts_are_their_formulas_and_the_loss_their_weighted_sum():
    sequences = sequences_of([3, 1, 2])
    options = {"waveform_weight": 0.9, "spectrum_weight": 0.4, **EVERYTHING}
    model = task(sequences, **options).train()
    with torch.no_grad():  # a teacher of its own
        for parameter in model.latent.teacher.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    batch = batch_of(model, sequences)
    loss, parts = model(batch)
    m = batch.masked_BKC
    samples = batch.samples_BKCS
    tokens = model.encoder(samples, valid_BK=batch.valid_BK, masked_BKC=batch.token_BKC)
    spectrum = model.spectrum(samples)
    guess = [torch.zeros_like(samples), torch.zeros_like(spectrum)]
    for b in range(3):
        where = torch.arange(24) + 24 * b
        visible = ~m & batch.valid_BK[..., None]
        rows = model.pooled(tokens, visible, model.encoder.electrodes_CD, where)
        for target, row in zip(guess, rows, strict=True):
            target[b] = row.view_as(target[b])
    teacher = model.latent.teacher(samples, valid_BK=batch.valid_BK)
    target = F.layer_norm(teacher, (16,))
    within = sum(
        len(rows) * rows.var(0, correction=0).mean()
        for rows in (target[:, :, c][m[:, :, c]] for c in range(2))
    )
    expected = {
        "waveform": F.smooth_l1_loss(model.head.waveform(tokens)[m], samples[m]),
        "spectrum": F.smooth_l1_loss(model.head.log_spectrum(tokens)[m], spectrum[m]),
        "pooled": 0.9 * F.smooth_l1_loss(guess[0][m], samples[m])
        + 0.4 * F.smooth_l1_loss(guess[1][m], spectrum[m]),
        "latent": F.smooth_l1_loss(model.latent.predictor(tokens)[m], target[m]),
        "latent_std": (within / m.sum()).sqrt(),
        "masked_tokens": m.sum(),
    }
    assert parts.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(parts[key], value.detach(), rtol=1e-5, atol=1e-6)
        assert not parts[key].requires_grad
    total = (
        0.9 * expected["waveform"]
        + 0.4 * expected["spectrum"]
        + 0.3 * expected["pooled"]
        + 0.7 * expected["latent"]
    )
    torch.testing.assert_close(loss, total, rtol=1e-5, atol=1e-6)
    held_out, _ = model.eval()(batch)
    # A target that moves does not decide which epoch was best.
    torch.testing.assert_close(held_out, total - 0.7 * expected["latent"], rtol=1e-5, atol=1e-6)


def test_a_weight_of_zero_leaves_its_part_out_and_costs_nothing():
    model = task().train()
    names = {name.split(".")[0] for name in model.state_dict()}
    assert names == {"encoder", "head", "spectrum"}
    _, parts = model(batch_of(model, sequences_of([3, 1, 2])))
    assert set(parts) == {"waveform", "spectrum", "masked_tokens"}
    for what, head in (("waveform", "log_spectrum"), ("spectrum", "waveform")):
        weights = {"waveform_weight": 0.0, "spectrum_weight": 0.0, f"{what}_weight": 1.0}
        model = task(**weights, **EVERYTHING).train()
        loss, parts = model(batch_of(model, sequences_of([3, 1, 2])))
        expected = {what, "pooled", "latent", "latent_std", "masked_tokens"}
        assert set(parts) == expected
        loss.backward()
        # Every parameter that waits for a gradient gets one: data-parallel training hangs otherwise.
        for name, parameter in model.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, name
        assert not getattr(model.head, head).weight.requires_grad


def test_the_default_draws_and_losses_are_those_of_a_model_without_the_options():
    """Asking for another target does not move the initial weights or the masks."""
    plain, full = task(), task(**EVERYTHING)
    for key, value in plain.state_dict().items():
        assert torch.equal(full.state_dict()[key], value), key
    one, two = (batch_of(model, sequences_of([3, 1, 2])) for model in (plain, full))
    assert torch.equal(one.masked_BKC, two.masked_BKC)


def test_nothing_masked_is_refused():
    model = task()
    batch = batch_of(model, sequences_of([3, 1, 2]))
    with pytest.raises(ValueError, match="no token of the batch is masked"):
        model(replace(batch, masked_BKC=torch.zeros_like(batch.masked_BKC)))


# The teacher ----------------------------------------------------------------------------------


def steps(model, optimiser, sequences, numbers):
    losses = []
    for number in numbers:
        loss, _ = model.train()(batch_of(model, sequences, seed=(number,)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        model.after_step()
        losses.append(loss.detach())
    return losses


def test_the_teacher_follows_and_a_saved_state_gives_the_same_next_losses(tmp_path):
    sequences = sequences_of([3, 1, 2])
    model = task(sequences, **EVERYTHING, latent_decay=0.9)
    optimiser = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-2)
    start = {key: value.clone() for key, value in model.latent.teacher.named_parameters()}
    steps(model, optimiser, sequences, [0])
    now = dict(model.encoder.named_parameters())
    for key, value in model.latent.teacher.named_parameters():
        torch.testing.assert_close(value, 0.9 * start[key] + 0.1 * now[key])
        assert value.grad is None
    steps(model, optimiser, sequences, [1, 2])
    torch.save({"model": model.state_dict(), "optimiser": optimiser.state_dict()}, tmp_path / "x")
    expected = steps(model, optimiser, sequences, [3, 4])

    again = task(sequences, seed=5, **EVERYTHING, latent_decay=0.9)
    resumed = torch.optim.AdamW((p for p in again.parameters() if p.requires_grad), lr=1e-2)
    saved = torch.load(tmp_path / "x", weights_only=True)
    again.load_state_dict(saved["model"], strict=True)
    resumed.load_state_dict(saved["optimiser"])
    assert all(map(torch.equal, steps(again, resumed, sequences, [3, 4]), expected))
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


def test_after_step_without_a_teacher_changes_nothing():
    model = task()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.after_step()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_the_teacher_is_not_in_the_backbone(bench):
    backbone, _ = bench.pretrain(epochs=2, **EVERYTHING)
    plain, _ = bench.pretrain(bench.folder / "plain.pt", epochs=2)
    one, two = (checkpoint.load(file, "pretrained") for file in (backbone, plain))
    for kept in ("state_dict", "decoder_state_dict"):
        assert one[kept].keys() == two[kept].keys()
    assert not all(
        torch.equal(one["state_dict"][k], two["state_dict"][k]) for k in one["state_dict"]
    )
