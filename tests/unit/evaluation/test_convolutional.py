"""The network trained in folds: whose windows it is trained on, and what its predictions are of."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from remit.dataset.primary import build_primary
from remit.dataset.windows import WindowsFile, open_dataset
from remit.errors import RemitError
from remit.evaluation import convolutional as module
from remit.evaluation.convolutional import Convolutional, eegnet
from tests.unit.dataset.conftest import (  # noqa: F401
    CHANNELS,
    make_recording,
    make_windows,
    write,
)
from tests.unit.evaluation.crossfit_made import folds_of, people

LABEL_P = np.array([0, 1] * 4)
OSCILLATION = 1.0  # in standard deviations of the noise


def quiet(_: str) -> None: ...


@pytest.fixture
def dataset(write, make_windows, tmp_path) -> WindowsFile:  # noqa: F811
    """Eight people of different lengths, two recordings of one, a bad window each; 4 Hz in class 1."""
    wave_S = OSCILLATION * np.sin(2 * np.pi * 4 * np.arange(64) / 32)
    files = []
    for number, (name, label) in enumerate(zip(people(8), LABEL_P.tolist(), strict=True)):
        for which in range(2 if number == 3 else 1):
            windows = make_windows(5 + number, seed=10 * number + which, bad=1)
            signal_WCS = (10 * which + 1) * (windows.signal_WCS + label * wave_S)
            windows = replace(windows, signal_WCS=signal_WCS.astype(np.float32))
            files.append(write(name, f"{name}-{which}", windows=windows, remission=label))
    build_primary(files, tmp_path / "primary.parquet", cohort="made", channels=CHANNELS)
    return open_dataset(tmp_path / "primary.parquet")


@pytest.fixture
def few_steps(monkeypatch):
    monkeypatch.setattr(module, "STEPS", 5)


class Level(nn.Module):
    """Says class 1 by the mean of the first channel: it learns nothing, for its parameter has no use."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, signal_BCS: torch.Tensor) -> torch.Tensor:
        logit_B = signal_BCS[:, 0].mean(1) + 0 * self.unused
        return torch.stack([torch.zeros_like(logit_B), logit_B], 1)


def linear(channels: int, samples: int, _: float) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(channels * samples, 2))


def test_a_participant_is_the_mean_over_their_good_windows_scaled_as_the_models(dataset, few_steps):
    folds = folds_of(LABEL_P, 4, 2)
    network = Convolutional(dataset, lambda *_: Level())
    found = network.crossfit(folds, seed=0, log=quiet)
    frame, signal_WCS = dataset.frame(), dataset.signal_WCS()
    for place, name in enumerate(folds.names):
        probabilities = []
        for recording in frame["recording"][frame["Participant"] == name].unique():
            its_WCS = signal_WCS[((frame["recording"] == recording) & frame["good"]).to_numpy()]
            low, middle, high = np.percentile(its_WCS[:, 0], [25, 50, 75])
            level_W = ((its_WCS[:, 0] - middle) / ((high - low) / 1.3489795)).mean(1)
            probabilities += (1 / (1 + np.exp(-level_W))).tolist()
        assert len(probabilities) == (14 if name == "p03" else 4 + place)
        assert found.probability_RP[:, place] == pytest.approx(np.mean(probabilities), abs=1e-6)
    assert np.array_equal(found.decision_RP, found.probability_RP >= 0.5)
    assert np.array_equal(found.fold_RP, folds.fold_RP)
    assert found.p_value is None and set(found.threshold_RK.flat) == {0.5}


def test_probabilities_of_all_folds_are_of_one_prevalence(dataset, few_steps):
    """A fold that tests more of a class fits on fewer of it: 3 of 8 are of class 1, 1 or 2 of 5 or 6 fit."""
    label_P = np.array([0, 1, 0, 1, 0, 1, 0, 0])
    folds = folds_of(label_P, 3, 1)
    found = Convolutional(dataset, lambda *_: Level()).crossfit(folds, seed=0, log=quiet)
    windows = module._windows(dataset, folds.names)
    level_N = windows.signal_NCS[:, 0].double().mean(1).numpy()
    shifts = set()
    for place in range(8):
        fit_P = folds.fold_RP[0] != folds.fold_RP[0, place]
        odds, asked = label_P[fit_P].sum() / (1 - label_P)[fit_P].sum(), 3 / 5
        shifts.add(asked / odds)
        its_N = level_N[windows.start_P[place] : windows.start_P[place + 1]]
        expected = (1 / (1 + odds / asked * np.exp(-its_N))).mean()
        assert found.probability_RP[0, place] == pytest.approx(expected, abs=1e-6)
    assert len(shifts) > 1


def test_faster_windows_are_thinned_without_what_would_alias(dataset, monkeypatch):
    whole = module._windows(dataset, people(8))
    assert whole.sampling_rate == 32.0
    monkeypatch.setattr(module, "RATE_HZ", 16.0)  # 32 Hz is twice that
    thinned = module._windows(dataset, people(8))
    assert thinned.sampling_rate == 16.0 and np.array_equal(thinned.start_P, whole.start_P)
    assert thinned.signal_NCS.shape == (*whole.signal_NCS.shape[:2], 32)
    assert thinned.signal_NCS.dtype == torch.float32

    def band(windows, low, high) -> np.ndarray:
        """The spectrum inside the window, by a taper that lets its ends not matter."""
        signal_NCS = windows.signal_NCS.double().numpy()
        samples = signal_NCS.shape[2]
        spectrum_NCF = np.fft.rfft(signal_NCS * np.hanning(samples + 1)[:-1]) / samples
        hz_F = np.fft.rfftfreq(samples, 1 / windows.sampling_rate)
        return spectrum_NCF[..., (hz_F >= low) & (hz_F <= high)]

    kept, original = band(thinned, 2, 5), band(whole, 2, 5)
    assert np.abs(kept - original).max() < 0.1 * np.abs(original).max()
    plain = replace(whole, signal_NCS=whole.signal_NCS[..., ::2], sampling_rate=16.0)
    assert np.abs(band(plain, 2, 5) - original).max() > 0.3 * np.abs(original).max()


def test_what_tells_the_classes_apart_is_found_in_new_people(dataset, monkeypatch):
    monkeypatch.setattr(module, "STEPS", 60)
    monkeypatch.setattr(module, "LEARNING_RATE", 1e-2)
    found = Convolutional(dataset, linear).crossfit(folds_of(LABEL_P, 4, 1), seed=0, log=quiet)
    assert found.auc == 1.0


def test_the_labels_and_windows_of_the_held_out_change_nothing(dataset, few_steps):
    folds = folds_of(LABEL_P, 4, 2)
    tested = folds.test(1, 2)
    turned = replace(
        folds,
        labels={
            name: 1 - label if name in tested else label for name, label in folds.labels.items()
        },
    )
    held_out = [folds.names.index(name) for name in tested]
    found, again = (
        Convolutional(dataset, linear).crossfit(each, seed=0, log=quiet) for each in (folds, turned)
    )
    assert np.array_equal(found.probability_RP[1, held_out], again.probability_RP[1, held_out])
    assert not np.array_equal(found.probability_RP, again.probability_RP)


def test_a_network_is_trained_on_windows_of_those_who_fit_alone(dataset, few_steps):
    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = linear(4, 64, 32.0)

        def forward(self, signal_BCS: torch.Tensor) -> torch.Tensor:
            if self.training:
                seen[-1] |= {bytes(window_CS.numpy()) for window_CS in signal_BCS}
            return self.inner(signal_BCS)

    def build(*_: object) -> nn.Module:
        seen.append(set())
        return Watched()

    seen: list[set[bytes]] = []
    folds = folds_of(LABEL_P, 4, 1)
    Convolutional(dataset, build).crossfit(folds, seed=0, log=quiet)
    windows = module._windows(dataset, folds.names)
    assert len(seen) == 4
    for fold, its in enumerate(seen):
        owners = {
            name
            for place, name in enumerate(folds.names)
            for row in range(windows.start_P[place], windows.start_P[place + 1])
            if bytes(windows.signal_NCS[row].numpy()) in its
        }
        assert owners == set(folds.names) - set(folds.test(0, fold))


def test_the_same_bits_again_whatever_the_threads_and_repeats(dataset, few_steps):
    folds = folds_of(LABEL_P, 4, 3)
    network = Convolutional(dataset, linear)
    torch.manual_seed(1)
    first = network.crossfit(folds, seed=0, log=quiet).probability_RP
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(2)
    try:
        torch.manual_seed(2)
        again = network.crossfit(folds.first(2), seed=0, log=quiet).probability_RP
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(first[:2], again)
    assert not np.array_equal(first, network.crossfit(folds, seed=1, log=quiet).probability_RP)
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())  # nobody else's draws are moved


def test_the_first_repeats_of_the_folds_are_those_of_the_file():
    folds = folds_of(LABEL_P, 4, 3)
    few = folds.first(2)
    assert few.repeats == 2 and np.array_equal(few.fold_RP, folds.fold_RP[:2])
    assert folds.first(9).participants == folds.participants
    assert folds.first(9).repeats == 3


def test_who_has_no_good_window_is_named(dataset):
    folds = folds_of([*LABEL_P, 1])
    with pytest.raises(RemitError, match="has no participant p08"):
        Convolutional(dataset, linear).crossfit(folds, seed=0, log=quiet)
    dataset._frame.loc[dataset._frame["Participant"] == "p05", "good"] = False
    with pytest.raises(RemitError, match="participant p05 has no window of good quality"):
        Convolutional(dataset, linear).crossfit(folds_of(LABEL_P), seed=0, log=quiet)


def test_a_prediction_that_is_no_number_is_refused(dataset, few_steps):
    class Broken(Level):
        def forward(self, signal_BCS: torch.Tensor) -> torch.Tensor:
            return super().forward(signal_BCS) * float("nan")

    network = Convolutional(dataset, lambda *_: Broken())
    with pytest.raises(RemitError, match="probability of participant p00, p01.* is no number"):
        network.crossfit(folds_of(LABEL_P), seed=0, log=quiet)


@pytest.mark.parametrize("missing", ["braindecode", "braindecode.models"])
def test_without_braindecode_it_says_what_to_install(dataset, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(RemitError, match=r"pip install '\.\[convolutional\]'") as error:
        Convolutional(dataset)
    assert "\n" not in str(error.value)


def test_eegnet_has_a_kernel_of_half_a_second_and_two_classes(dataset):
    pytest.importorskip("braindecode", reason="the extra 'convolutional' is not installed")
    network = eegnet()(4, 64, 32.0).eval()
    kernels = [part.kernel_size for part in network.modules() if isinstance(part, nn.Conv2d)]
    assert kernels[0] == (1, 16)
    with torch.inference_mode():
        assert network(torch.zeros(3, 4, 64)).shape == (3, 2)


def test_windows_too_short_for_eegnet_are_refused(dataset, monkeypatch):
    pytest.importorskip("braindecode", reason="the extra 'convolutional' is not installed")
    monkeypatch.setattr(module, "RATE_HZ", 8.0)
    with pytest.raises(RemitError, match="windows of 16 samples .* expected at least 32"):
        Convolutional(dataset)


def test_eegnet_finds_an_oscillation_in_new_people(dataset, monkeypatch):
    pytest.importorskip("braindecode", reason="the extra 'convolutional' is not installed")
    monkeypatch.setattr(module, "STEPS", 100)
    found = Convolutional(dataset).crossfit(folds_of(LABEL_P, 4, 1), seed=0, log=quiet)
    assert found.auc == 1.0
