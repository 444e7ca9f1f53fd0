"""The exportable classifier: scaling, sequences, and the same output exported as eager."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from remit.nn.encoder import Encoder, EncoderSettings
from remit.nn.export import ParticipantClassifier
from remit.nn.heads import ClassifierHead
from remit.nn.scaling import robust_scale


@pytest.fixture(scope="module")
def classifier() -> ParticipantClassifier:
    torch.manual_seed(0)
    # 4 windows of 4 steps and 3 channels: 48 tokens, several chunks.
    settings = EncoderSettings(16, 2, 8, d_state=4, headdim=8, chunk_size=16, token_hidden=12)
    encoder = Encoder(settings, 0.05 * torch.randn(3, 3))
    return ParticipantClassifier(encoder, ClassifierHead(16, 2, 0.1), 4).eval()


def recording(windows: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 20 * torch.randn(windows, 3, 32, generator=generator) + 5


@settings(max_examples=60, deadline=None)
@given(windows=st.integers(1, 6), length=st.integers(1, 9), seed=st.integers(0, 2**31))
def test_scaling_is_numpys_percentiles(windows: int, length: int, seed: int) -> None:
    windows_WCL = np.random.default_rng(seed).standard_normal((windows, 2, length)) * [
        [[3.0], [50]]
    ]
    low, median, high = np.percentile(windows_WCL, [25, 50, 75], axis=(0, 2), keepdims=True)
    scale = np.maximum((high - low) / 1.3489795, 0.1)
    expected = np.clip((windows_WCL - median) / scale, -15, 15)
    found = robust_scale(torch.from_numpy(windows_WCL))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_scaling_has_a_floor_and_clips() -> None:
    flat = torch.zeros(2, 1, 50)
    flat[0, 0, 0] = 1.0  # a quartile range of 0: divided by 0.1 uV
    flat[0, 0, 1] = -2.0
    scaled = robust_scale(flat)
    torch.testing.assert_close(scaled[0, 0, :3], torch.tensor([10.0, -15.0, 0.0]))


def test_equals_the_sequences_run_one_by_one(classifier: ParticipantClassifier) -> None:
    windows_WCL = recording(10)  # sequences of 4, 4 and 2 windows
    scaled_WCL = robust_scale(windows_WCL)
    encoder, head = classifier.encoder, classifier.head
    tokens = []
    for first in (0, 4, 8):
        part_WCL = scaled_WCL[first : first + 4]
        steps = [w[:, s : s + 8] for w in part_WCL for s in range(0, 32, 8)]
        tokens.append(encoder(torch.stack(steps).unsqueeze(0)).flatten(0, 2))
    expected = head(torch.cat(tokens).mean(0, keepdim=True))
    assert classifier(windows_WCL).shape == (1, 2)
    torch.testing.assert_close(classifier(windows_WCL), expected, rtol=1e-5, atol=1e-6)


def test_exported_equals_eager_for_any_number_of_windows(
    classifier: ParticipantClassifier,
) -> None:
    program = torch.export.export(
        classifier,
        (recording(7),),
        dynamic_shapes={"windows_WCL": {0: torch.export.Dim("W", min=1)}},
    )
    exported = program.module()
    logits = []
    for windows in (1, 2, 3, 4, 5, 8, 9, 30):
        eager = classifier(recording(windows, seed=windows))
        torch.testing.assert_close(exported(recording(windows, seed=windows)), eager)
        logits.append(eager)
    assert torch.cat(logits).std(0).min() > 1e-4  # the output does depend on the input


@pytest.mark.parametrize("context", [5, 1000])
def test_a_recording_that_the_context_covers_is_one_sequence_of_any_length(
    classifier: ParticipantClassifier, context: int
) -> None:
    whole = ParticipantClassifier(classifier.encoder, classifier.head, context).eval()
    steps: list[int] = []
    hook = whole.encoder.register_forward_pre_hook(
        lambda _, inputs: steps.append(inputs[0].shape[1])
    )
    eager = {windows: whole(recording(windows, seed=windows)) for windows in (1, 2, 3, 5, 9, 50)}
    hook.remove()
    assert steps == [4 * min(windows, context) for windows in eager]  # not padded up to the context
    program = torch.export.export(
        whole,
        (recording(3),),
        dynamic_shapes={"windows_WCL": {0: torch.export.Dim("W", min=1)}},
    ).module()
    for windows, logits in eager.items():
        torch.testing.assert_close(
            program(recording(windows, seed=windows)), logits, rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("bidirectional", [True, False])
def test_an_exported_encoder_holds_for_any_number_of_tokens(bidirectional: bool) -> None:
    torch.manual_seed(1)
    settings = EncoderSettings(
        16, 2, 8, d_state=4, headdim=8, ngroups=2, chunk_size=16, bidirectional=bidirectional
    )
    encoder = Encoder(settings, 0.05 * torch.randn(3, 3)).eval()
    batch, steps = torch.export.Dim("B", min=1), torch.export.Dim("K", min=1)
    program = torch.export.export(
        encoder,
        (torch.randn(2, 9, 3, 8),),
        dynamic_shapes={"samples_BKCS": {0: batch, 1: steps}},
    ).module()
    for number, length in enumerate((1, 3, 64, 65, 200, 1000)):
        samples_BKCS = torch.randn(1 + number % 3, length, 3, 8)
        eager_BKCD = encoder(samples_BKCS)
        torch.testing.assert_close(program(samples_BKCS), eager_BKCD, rtol=1e-5, atol=1e-5)
    assert program(samples_BKCS).isfinite().all() and eager_BKCD.std() > 0.5


def test_export_survives_saving(classifier: ParticipantClassifier, tmp_path) -> None:
    with torch.no_grad():
        program = torch.export.export(
            classifier,
            (recording(5),),
            dynamic_shapes={"windows_WCL": {0: torch.export.Dim("W", min=1)}},
        )
    torch.export.save(program, tmp_path / "classifier.pt2")
    loaded = torch.export.load(tmp_path / "classifier.pt2").module()
    for windows in (1, 6):
        torch.testing.assert_close(loaded(recording(windows)), classifier(recording(windows)))


def test_gradients_reach_encoder_and_head(classifier: ParticipantClassifier) -> None:
    classifier(recording(5)).square().sum().backward()
    grads = {name: p.grad for name, p in classifier.named_parameters()}
    unused = {name for name, grad in grads.items() if grad is None or not grad.any()}
    assert unused == {"encoder.mask_token"}
    classifier.zero_grad()


def test_recordings_that_do_not_fit_are_named(classifier: ParticipantClassifier) -> None:
    with pytest.raises(ValueError, match="found 2 channels; expected 3"):
        classifier(torch.zeros(2, 2, 32))
    with pytest.raises(ValueError, match="33 samples is not a whole number of tokens of 8"):
        classifier(torch.zeros(2, 3, 33))
    with pytest.raises(ValueError, match="context_windows is 0"):
        ParticipantClassifier(classifier.encoder, classifier.head, 0)
