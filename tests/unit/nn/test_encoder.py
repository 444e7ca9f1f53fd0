"""The encoder: what may and what may not reach its output."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor

from remit.nn.encoder import Encoder, EncoderSettings, electrode_encoding, pooled_sum

# AF7, AF8, TP9, TP10 in metres, roughly; left and right mirror each other.
MUSE = torch.tensor(
    [[-0.055, 0.068, 0.01], [0.055, 0.068, 0.01], [-0.085, -0.045, -0.05], [0.085, -0.045, -0.05]]
)
SMALL = EncoderSettings(
    d_model=16,
    num_layers=2,
    samples_per_token=8,
    d_state=4,
    headdim=8,
    chunk_size=8,
    token_hidden=12,
)


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(SMALL, MUSE)


def samples(batch: int = 2, steps: int = 5, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, steps, 4, 8, generator=generator)


def test_shape_and_order_of_tokens(encoder: Encoder) -> None:
    tokens_BKCD = encoder(samples(3, 5))
    assert tokens_BKCD.shape == (3, 5, 4, 16)
    # A causal encoder shows the order: changing (k=2, c=1) changes nothing before flat index 9.
    torch.manual_seed(0)
    causal = Encoder(EncoderSettings(**(SMALL.to_dict() | {"bidirectional": False})), MUSE)
    changed = samples(1, 5)
    changed[0, 2, 1] += 1.0
    difference_T = (causal(samples(1, 5)) - causal(changed)).abs().amax(-1).flatten()
    assert (difference_T[:9] == 0).all() and (difference_T[9:] > 0).all()


def test_every_parameter_is_trained(encoder: Encoder) -> None:
    masked_BKC = torch.zeros(2, 5, 4, dtype=torch.bool)
    masked_BKC[:, 1] = True
    weights = torch.randn(2, 5, 4, 16)
    (encoder(samples(), masked_BKC=masked_BKC) * weights).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("filling", [1e4, float("nan"), float("inf")])
def test_masked_samples_cannot_leak(encoder: Encoder, filling: float) -> None:
    masked_BKC = torch.zeros(2, 5, 4, dtype=torch.bool)
    masked_BKC[0, 1:3, 2] = True
    masked_BKC[1, 4] = True
    source_BKC = torch.arange(20).reshape(1, 5, 4).repeat(2, 1, 1)
    source_BKC[0, 0, 0] = 6  # flat index of (1, 2), which is masked
    original = samples()
    changed = original.clone()
    changed[masked_BKC] = filling * torch.randn(int(masked_BKC.sum()), 8)
    outputs, gradients = [], []
    for content in (original, changed):
        encoder.zero_grad()
        tokens = encoder(content, masked_BKC=masked_BKC, source_BKC=source_BKC)
        tokens.square().mean().backward()
        outputs.append(tokens.detach())
        gradients.append(encoder.embed.weight.grad.clone())
    assert torch.equal(*outputs)
    assert torch.equal(*gradients) and gradients[0].isfinite().all()


def test_visible_samples_do_reach_the_output(encoder: Encoder) -> None:
    changed = samples()
    changed[0, 1, 2] += 0.1
    assert not torch.equal(encoder(samples())[0], encoder(changed)[0])
    assert torch.equal(encoder(samples())[1], encoder(changed)[1])


def test_mask_token_knows_its_electrode_only(encoder: Encoder) -> None:
    everything = torch.ones(1, 5, 4, dtype=torch.bool)
    embedded: list[Tensor] = []
    encoder.blocks[0].register_forward_pre_hook(lambda _, inputs: embedded.append(inputs[0]))
    encoder(samples(1), masked_BKC=everything)
    x_KCD = embedded[0].reshape(5, 4, 16)
    assert torch.equal(x_KCD, x_KCD[:1].expand_as(x_KCD))
    expected_CD = encoder.mask_token + encoder.electrode_map(encoder.electrodes_CD)
    torch.testing.assert_close(x_KCD[0], expected_CD)


def test_replaced_token_shows_its_source(encoder: Encoder) -> None:
    own_BKC = torch.arange(20).reshape(1, 5, 4)
    source_BKC = own_BKC.clone()
    source_BKC[0, 3, 1] = 2  # content of (0, 2)
    moved = samples(1)
    moved[0, 3, 1] = moved[0, 0, 2]
    assert torch.equal(encoder(samples(1), source_BKC=source_BKC), encoder(moved))
    assert torch.equal(encoder(samples(1), source_BKC=own_BKC), encoder(samples(1)))
    assert not torch.equal(encoder(samples(1), source_BKC=source_BKC), encoder(samples(1)))


@pytest.mark.parametrize("filling", [0.0, 1e3, float("nan")])
def test_padded_batch_equals_single_sequences(encoder: Encoder, filling: float) -> None:
    encoder.double()
    lengths = [3, 7, 1]
    batch = torch.full((3, 7, 4, 8), filling, dtype=torch.float64)
    valid_BK = torch.arange(7) < torch.tensor(lengths).unsqueeze(1)
    batch[valid_BK] = torch.randn(sum(lengths), 4, 8, dtype=torch.float64)
    tokens_BKCD = encoder(batch, valid_BK=valid_BK)
    sum_BD, count_B = pooled_sum(tokens_BKCD, valid_BK)
    assert count_B.tolist() == [12, 28, 4]
    for row, length in enumerate(lengths):
        alone_BKCD = encoder(batch[row : row + 1, :length])
        torch.testing.assert_close(tokens_BKCD[row, :length], alone_BKCD[0], rtol=1e-11, atol=1e-12)
        alone_sum_BD, alone_count_B = pooled_sum(alone_BKCD)
        torch.testing.assert_close(sum_BD[row], alone_sum_BD[0], rtol=1e-11, atol=1e-11)
        assert alone_count_B[0] == count_B[row]
    sum_BD.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())


@hypothesis_settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 21), min_size=1, max_size=5),
    extra=st.integers(0, 6),
    bidirectional=st.booleans(),
    garbage=st.sampled_from([0.0, 1e30, float("nan"), float("inf"), float("-inf")]),
    seed=st.integers(0, 2**31),
)
def test_padding_never_touches(
    lengths: list[int], extra: int, bidirectional: bool, garbage: float, seed: int
) -> None:
    torch.manual_seed(seed)
    shape = SMALL.to_dict() | {"bidirectional": bidirectional}
    encoder = Encoder(EncoderSettings.from_dict(shape), MUSE).double()
    steps = max(lengths) + extra
    valid_BK = torch.arange(steps) < torch.tensor(lengths).unsqueeze(1)
    batch = torch.full((len(lengths), steps, 4, 8), garbage, dtype=torch.float64)
    batch[valid_BK] = torch.randn(sum(lengths), 4, 8, dtype=torch.float64)
    tokens_BKCD = encoder(batch, valid_BK=valid_BK)
    weights = torch.randn_like(tokens_BKCD)
    (tokens_BKCD * weights)[valid_BK].sum().backward()
    together = {
        name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None
    }
    encoder.zero_grad()
    for row, length in enumerate(lengths):
        alone_BKCD = encoder(batch[row : row + 1, :length])
        torch.testing.assert_close(tokens_BKCD[row, :length], alone_BKCD[0], rtol=1e-11, atol=1e-11)
        (alone_BKCD[0] * weights[row, :length]).sum().backward()
    for name, parameter in encoder.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(
                together[name], parameter.grad, rtol=1e-9, atol=1e-9, msg=lambda m, n=name: n + m
            )


def test_padding_before_a_valid_step_is_refused(encoder: Encoder) -> None:
    valid_BK = torch.tensor([[True, True, False], [True, False, True], [False, True, True]])
    with pytest.raises(
        ValueError, match=r"row 1 has padding at step 1 before a valid step"
    ) as found:
        encoder(samples(3, 3), valid_BK=valid_BK)
    assert "\n" not in str(found.value)
    with pytest.raises(ValueError, match="row 0 has padding at step 0"):
        encoder(samples(1, 3), valid_BK=valid_BK[2:])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_sample_that_is_no_number_is_named(encoder: Encoder, bad: float) -> None:
    content = samples(3, 5)
    content[1, 2, 3, 4] = bad
    message = rf"samples holds {bad} at sequence 1, step 2, channel 3, sample 4 \(1 of 480 "
    with pytest.raises(ValueError, match=message) as found:
        encoder(content)
    assert "\n" not in str(found.value)
    # What is padding or masked is not read, and nobody is bothered with it.
    valid_BK = torch.arange(5) < torch.tensor([[5], [2], [5]])
    assert encoder(content, valid_BK=valid_BK)[valid_BK].isfinite().all()
    masked_BKC = torch.zeros(3, 5, 4, dtype=torch.bool)
    masked_BKC[1, 2, 3] = True
    assert encoder(content, masked_BKC=masked_BKC).isfinite().all()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_step_by_step_equals_the_whole_sequence(dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    shape = SMALL.to_dict() | {"bidirectional": False}
    causal = Encoder(EncoderSettings.from_dict(shape), MUSE).to(dtype)
    content = samples(3, 23).to(dtype)  # 92 tokens: several chunks of 8
    whole_BKCD = causal(content)
    state = causal.initial_state(3)
    steps = []
    for samples_BCS in content.unbind(1):
        before = state
        tokens_BCD, state = causal.step(samples_BCS, state)
        steps.append(tokens_BCD)
    found_BKCD = torch.stack(steps, 1)
    assert found_BKCD.dtype == dtype
    assert (found_BKCD - whole_BKCD).abs().max() <= tolerance * whole_BKCD.abs().max()
    again_BCD, _ = causal.step(content[:, -1], before)  # a state is not written to
    assert torch.equal(again_BCD, steps[-1])
    other = causal.step(content[:, 0], causal.initial_state(3))[0]
    assert not torch.allclose(causal.step(content[:, 0], state)[0], other)  # the state is read


def test_step_refuses_what_does_not_fit(encoder: Encoder) -> None:
    for call in (
        lambda: encoder.initial_state(1),
        lambda: encoder.step(samples()[:, 0], []),
    ):
        with pytest.raises(ValueError, match="bidirectional; expected a causal one") as found:
            call()
        assert "\n" not in str(found.value)
    causal = Encoder(EncoderSettings(**(SMALL.to_dict() | {"bidirectional": False})), MUSE)
    with pytest.raises(ValueError, match="batch is 0"):
        causal.initial_state(0)
    with pytest.raises(ValueError, match="C = 4 and S = 8"):
        causal.step(torch.zeros(2, 3, 8), causal.initial_state(2))
    bad = samples(2, 1)[:, 0]
    bad[1, 2, 5] = float("nan")
    with pytest.raises(ValueError, match="nan at sequence 1, step 0, channel 2, sample 5"):
        causal.step(bad, causal.initial_state(2))


def test_pooled_sum_leaves_padding_out() -> None:
    tokens_BKCD = torch.arange(2 * 3 * 2 * 4).reshape(2, 3, 2, 4).float()
    valid_BK = torch.tensor([[True, True, False], [True, False, False]])
    tokens_BKCD[~valid_BK] = float("nan")
    sum_BD, count_B = pooled_sum(tokens_BKCD, valid_BK)
    assert torch.equal(sum_BD[0], tokens_BKCD[0, :2].sum((0, 1)))
    assert torch.equal(sum_BD[1], tokens_BKCD[1, 0].sum(0))
    assert count_B.tolist() == [4.0, 2.0]


def test_left_and_right_differ_in_the_embedding(encoder: Encoder) -> None:
    swapped = samples()[:, :, [1, 0, 2, 3]]
    embeddings = []
    for content in (samples(), swapped):
        sum_BD, count_B = pooled_sum(encoder(content))
        embeddings.append(sum_BD / count_B.unsqueeze(1))
    assert (embeddings[0] - embeddings[1]).norm() > 1e-2 * embeddings[0].norm()


def test_positions_travel_with_the_weights(encoder: Encoder) -> None:
    state = encoder.state_dict()
    assert torch.equal(state["positions_C3"], MUSE)
    assert torch.equal(state["electrodes_CD"], electrode_encoding(MUSE, 16))
    other = Encoder(SMALL, MUSE.flip(0))
    assert not torch.equal(other(samples()), encoder(samples()))
    other.load_state_dict(state, strict=True)
    assert torch.equal(other(samples()), encoder(samples()))


@pytest.mark.parametrize("d_model", [6, 16, 64, 256])
def test_electrode_encoding_has_unit_scale_and_tells_electrodes_apart(d_model: int) -> None:
    encoding_CD = electrode_encoding(MUSE, d_model)
    assert encoding_CD.shape == (4, d_model) and encoding_CD.dtype == torch.float32
    assert encoding_CD.square().mean(1).sqrt().sub(1).abs().max() < 0.25
    distances = torch.cdist(encoding_CD, encoding_CD) / d_model**0.5
    assert distances[~torch.eye(4, dtype=torch.bool)].min() > 0.15


def test_electrode_encoding_is_smooth() -> None:
    moved_CD = electrode_encoding(MUSE + 0.0005, 64)  # half a millimetre
    assert (moved_CD - electrode_encoding(MUSE, 64)).abs().max() < 0.1


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        (MUSE * 1000, "metres"),
        (MUSE[:, :2], r"\[C, 3\]"),
        (MUSE * float("nan"), "not a finite number"),
    ],
)
def test_wrong_positions_are_refused(positions: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        electrode_encoding(positions, 16)


def test_settings_round_trip_and_refuse_other_keys() -> None:
    assert EncoderSettings.from_dict(SMALL.to_dict()) == SMALL
    with pytest.raises(ValueError, match=r"unknown encoder settings \['depth'\]"):
        EncoderSettings.from_dict(SMALL.to_dict() | {"depth": 3})
    with pytest.raises(ValueError, match=r"\['d_model', 'num_layers'\] are missing"):
        EncoderSettings.from_dict({"samples_per_token": 8})


def test_directions_can_share_their_weights() -> None:
    shared = EncoderSettings.from_dict(SMALL.to_dict() | {"shared_directions": True})
    assert EncoderSettings.from_dict(shared.to_dict()) == shared
    older = {
        k: v for k, v in SMALL.to_dict().items() if k not in ("shared_directions", "precision")
    }
    assert EncoderSettings.from_dict(older) == SMALL  # a checkpoint from before these keys
    torch.manual_seed(0)
    one = Encoder(shared, MUSE).double()
    two = Encoder(SMALL, MUSE).double()
    mixers = [sum(p.numel() for p in model.blocks[0].mixer.parameters()) for model in (one, two)]
    assert mixers[1] == 2 * mixers[0]
    content = samples(2, 5).double()
    # Both directions alike: with every electrode in the same place, time can be turned round.
    one.electrodes_CD.zero_()
    turned = one(content.flip(1, 2)).flip(1, 2)
    torch.testing.assert_close(one(content), turned, rtol=1e-11, atol=1e-11)
    two.electrodes_CD.zero_()
    assert not torch.allclose(two(content), two(content.flip(1, 2)).flip(1, 2), rtol=1e-3)
    with pytest.raises(ValueError, match="shared_directions is true and bidirectional false"):
        EncoderSettings.from_dict(shared.to_dict() | {"bidirectional": False})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("d_model", 0),
        ("num_layers", 2.0),
        ("d_state", True),
        ("bidirectional", 1),
        ("shared_directions", 0),
        ("precision", "float16"),
    ],
)
def test_settings_of_the_wrong_kind_are_refused(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=key):
        EncoderSettings.from_dict(SMALL.to_dict() | {key: value})


def test_settings_reach_the_mixers() -> None:
    settings = EncoderSettings(
        16, 3, 8, d_state=5, d_conv=3, expand=4, headdim=16, ngroups=2, chunk_size=7
    )
    encoder = Encoder(settings, MUSE)
    assert len(encoder.blocks) == 3
    mixer = encoder.blocks[2].mixer.backward_mixer
    assert mixer.conv1d.weight.shape == (64 + 2 * 2 * 5, 1, 3)
    assert (mixer.nheads, mixer.ngroups, mixer.chunk_size) == (4, 2, 7)


def test_inputs_that_do_not_fit_are_named(encoder: Encoder) -> None:
    with pytest.raises(ValueError, match="C = 4 and S = 8"):
        encoder(torch.zeros(1, 5, 3, 8))
    with pytest.raises(ValueError, match=r"valid has shape \(1, 4\); expected \(1, 5\)"):
        encoder(torch.zeros(1, 5, 4, 8), valid_BK=torch.ones(1, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="masked has shape"):
        encoder(torch.zeros(1, 5, 4, 8), masked_BKC=torch.ones(1, 5, 3, dtype=torch.bool))


def test_a_linear_map_alone_cannot_tell_power_and_the_perceptron_can() -> None:
    """Samples of either sign cancel in a linear map, so only what is not linear tells their power."""
    for hidden, tells in ((0, False), (12, True)):
        torch.manual_seed(0)
        encoder = Encoder(EncoderSettings(**(SMALL.to_dict() | {"token_hidden": hidden})), MUSE)
        assert (encoder.perceptron is not None) == tells
        x_BS = torch.randn(64, 8)
        with torch.no_grad():
            even_BD = (encoder._content(x_BS) + encoder._content(-x_BS)) / 2
            even_BD = even_BD - encoder._content(torch.zeros(1, 8))
        assert (even_BD.abs().max() > 1e-3) == tells


def test_settings_without_a_perceptron_are_those_of_older_checkpoints() -> None:
    older = {key: value for key, value in SMALL.to_dict().items() if key != "token_hidden"}
    assert EncoderSettings.from_dict(older).token_hidden == 0
    with pytest.raises(ValueError, match="token_hidden is -1; expected a whole number from 0 up"):
        EncoderSettings(**(SMALL.to_dict() | {"token_hidden": -1}))


WITH_SPECTRUM = EncoderSettings(**(SMALL.to_dict() | {"spectrum_bins": 3}))


def with_spectrum() -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder(WITH_SPECTRUM, MUSE)
    assert encoder.spectrum is not None
    encoder.spectrum.fit(samples(seed=5).flatten(0, 2))
    return encoder


def test_a_tokens_own_log_spectrum_is_added_to_its_content() -> None:
    encoder = with_spectrum()
    assert encoder.spectrum_map is not None and encoder.perceptron is not None
    x_NS = samples().flatten(0, 2)
    power_NF = np.abs(np.fft.rfft(x_NS.double().numpy() * np.hanning(9)[:8]))[:, 1:4] ** 2
    fitted_NF = np.abs(
        np.fft.rfft(samples(seed=5).flatten(0, 2).double().numpy() * np.hanning(9)[:8])
    )
    energy = (np.hanning(9)[:8] ** 2).sum()
    log_NF, fitted_NF = (
        np.log(each / energy + 1e-4) for each in (power_NF, fitted_NF[:, 1:4] ** 2)
    )
    standard_NF = torch.tensor((log_NF - fitted_NF.mean(0)) / fitted_NF.std(0)).float()
    expected_ND = encoder.embed(x_NS) + encoder.perceptron(x_NS)
    expected_ND = expected_ND + standard_NF @ encoder.spectrum_map.weight.T
    torch.testing.assert_close(encoder._content(x_NS), expected_ND, rtol=1e-4, atol=1e-4)


def test_the_spectrum_of_a_masked_token_is_hidden_with_its_samples() -> None:
    encoder = with_spectrum()
    masked_BKC = torch.zeros(2, 5, 4, dtype=torch.bool)
    masked_BKC[0, 2, 1] = masked_BKC[1, 4] = True
    x_BKCS = samples()
    changed_BKCS = x_BKCS.masked_fill(masked_BKC.unsqueeze(-1), torch.nan)
    assert torch.equal(
        encoder(x_BKCS, masked_BKC=masked_BKC), encoder(changed_BKCS, masked_BKC=masked_BKC)
    )


def test_the_statistics_of_the_spectrum_travel_with_the_weights_and_are_not_guessed() -> None:
    encoder, other = with_spectrum(), Encoder(WITH_SPECTRUM, MUSE)
    with pytest.raises(RuntimeError, match="not fitted"):
        other(samples())
    other.load_state_dict(encoder.state_dict(), strict=True)
    assert torch.equal(other(samples()), encoder(samples()))
    with pytest.raises(
        ValueError, match="spectrum_bins is 5; expected at most half of the 8 samples"
    ):
        EncoderSettings(**(SMALL.to_dict() | {"spectrum_bins": 5}))


def test_an_encoder_with_a_spectrum_is_exported_whatever_the_number_of_steps() -> None:
    encoder = with_spectrum().eval()
    steps = torch.export.Dim("steps", min=1)
    program = torch.export.export(
        encoder, (samples(1, 5),), dynamic_shapes={"samples_BKCS": {1: steps}}
    )
    for number in (1, 9):
        x_BKCS = samples(1, number, seed=number)
        torch.testing.assert_close(program.module()(x_BKCS), encoder(x_BKCS))
