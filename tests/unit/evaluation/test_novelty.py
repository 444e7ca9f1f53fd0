"""What is outside: amplitude and spectrum against those of the recordings that the head has seen."""

import numpy as np
import pytest

from remit.config import Sequences
from remit.dataset.windows import open_dataset
from remit.evaluation import novelty
from remit.evaluation.features import FeatureSet
from tests.unit.training.conftest import CHANNELS, RATE, SAMPLES, make_dataset

SEQUENCES = Sequences(token_seconds=0.5, context_windows=2)
PEOPLE = {f"p{i:02d}": i % 2 for i in range(12)}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return open_dataset(make_dataset(tmp_path_factory.mktemp("n"), PEOPLE))


@pytest.fixture(scope="module")
def reference(dataset):
    return novelty.reference_of(dataset, dataset.participants, SEQUENCES)


def test_the_figures_are_those_of_a_loop_over_windows(dataset):
    """Amplitude by sorted samples; band power by the columns of the features."""
    found = novelty.measure(dataset, dataset.participants, SEQUENCES)
    assert set(found) == {f"{name}_r" for name in PEOPLE}
    features = FeatureSet(CHANNELS, RATE, SAMPLES)
    frame = dataset.frame()
    assert 0 < frame["good"].sum() < len(frame)
    for name in ("p00", "p05"):
        rows = np.flatnonzero((frame["Participant"] == name) & frame["good"])
        signal_WCS = dataset.signal_WCS([name])[frame[frame["Participant"] == name]["good"]]
        assert len(signal_WCS) == len(rows)
        table_WX = features(signal_WCS)
        for c, channel in enumerate(CHANNELS):
            samples = np.sort(signal_WCS[:, c].astype(float).ravel())
            at = np.arange(len(samples)) / (len(samples) - 1)
            low, high = np.interp([0.25, 0.75], at, samples)
            expected = [np.log10((high - low) / 1.349)]
            for band in features.bands:
                column = table_WX[:, features.columns.index(f"power_{band}_{channel}")]
                expected.append(np.median(column.astype(float)))
            np.testing.assert_allclose(found[f"{name}_r"][:, c], expected, rtol=1e-5)


def test_without_a_good_window_all_are_measured(tmp_path):
    """So that an amplitude that made all of them bad is still named."""
    dataset = open_dataset(make_dataset(tmp_path, {"a": None}, windows=1))
    assert not dataset.frame()["good"].any()
    assert np.isfinite(novelty.measure(dataset, ["a"], SEQUENCES)["a_r"]).all()


def test_what_the_head_was_fitted_on_is_never_outside(dataset, reference):
    for figure_GC in novelty.measure(dataset, dataset.participants, SEQUENCES).values():
        found = novelty.compare(reference, figure_GC)
        assert not found.outside_GC.any() and found.warnings == ()


def test_the_z_is_robust_and_has_a_least_spread(dataset, reference):
    """Against numpy, and one wild recording among the seen ones does not widen it by much."""
    figure_RGC = np.stack(list(novelty.measure(dataset, dataset.participants, SEQUENCES).values()))
    x_GC = figure_RGC[0] + 1.0
    median = np.median(figure_RGC, axis=0)
    mad = np.median(np.abs(figure_RGC - median), axis=0) * 1.4826
    expected = (x_GC - median) / np.maximum(mad, 0.1)
    np.testing.assert_allclose(novelty.compare(reference, x_GC).z_GC, expected, rtol=1e-3)


@pytest.mark.parametrize(("factor", "sign"), [(100.0, "+"), (0.01, "-")])
def test_another_amplitude_is_named_with_what_was_seen(dataset, reference, factor, sign):
    own_GC = novelty.measure(dataset, ["p03"], SEQUENCES)["p03_r"]
    scaled_GC = own_GC + np.vstack(
        [[np.log10(factor)] * 2, *[[2 * np.log10(factor)] * 2] * (len(own_GC) - 1)]
    )
    found = novelty.compare(reference, scaled_GC)
    assert found.outside_GC.all()
    amplitude, spectrum = found.warnings
    assert amplitude.startswith(
        "amplitude outside what the 12 training recordings span: amplitude at "
    )
    assert f"z {sign}" in amplitude and "µV" in amplitude
    assert "and 3 more" in spectrum  # three bands at two electrodes


def test_another_spectrum_is_named_by_band_and_electrode(dataset, reference):
    own_GC = novelty.measure(dataset, ["p03"], SEQUENCES)["p03_r"].copy()
    g, c = reference["figures"].index("theta"), CHANNELS.index("AF8")
    own_GC[g, c] += 2.0
    found = novelty.compare(reference, own_GC)
    assert found.outside_GC.sum() == 1 and found.outside_GC[g, c]
    (text,) = found.warnings
    assert text.startswith("spectrum outside") and "theta at AF8" in text and "AF7" not in text
    assert found.largest == abs(found.z_GC[g, c])


def test_far_from_the_median_but_seen_before_is_not_outside(reference):
    """One seen recording was as loud: the range holds it, whatever the z."""
    wide = {**reference, "high": (np.array(reference["high"]) + 3).tolist()}
    loud_GC = np.array(reference["high"]) + 2
    assert novelty.compare(reference, loud_GC).outside_GC.all()
    found = novelty.compare(wide, loud_GC)
    assert (found.z_GC > novelty.THRESHOLD_Z).all() and not found.outside_GC.any()


def test_an_electrode_without_signal_is_outside_unless_all_had_none(reference):
    silent_GC = np.array(reference["median"])
    silent_GC[:, 1] = np.nan
    found = novelty.compare(reference, silent_GC)
    assert found.outside_GC[:, 1].all() and not found.outside_GC[:, 0].any()
    assert "amplitude at AF8 nothing" in found.warnings[0]
    nobody = {**reference, "known": np.array([[True, False]] * len(silent_GC)).tolist()}
    assert not novelty.compare(nobody, silent_GC).outside_GC.any()
