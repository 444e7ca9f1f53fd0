"""Features of windows: sines and copies whose values are known, and loops over every definition."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal

from remit.dataset.primary import build_primary
from remit.dataset.windows import open_dataset
from remit.errors import RemitError
from remit.evaluation.features import (
    BANDS_HZ,
    KEYS,
    FeatureSet,
    features,
    left_right_pairs,
    permutation_entropy,
    sample_entropy,
)
from remit.recordings.channels import electrode_names, electrode_positions
from tests.unit.dataset.conftest import (  # noqa: F401
    CHANNELS,
    make_recording,
    make_windows,
    write,
)

RATE, SECONDS = 128.0, 8
TIME_S = np.arange(int(RATE * SECONDS)) / RATE


def drawn(windows: int, channels: int, seed: int = 0, rate: float = RATE) -> np.ndarray:
    """Noise with more power at low frequencies, in µV, [W, C, S] float32."""
    rng = np.random.default_rng(seed)
    noise_WCS = rng.standard_normal((windows, channels, int(rate * SECONDS)))
    return (5 * signal.lfilter([1], [1, -0.9], noise_WCS)).astype(np.float32)


def of(signal_WCS: np.ndarray, channels=CHANNELS, rate: float = RATE) -> pd.DataFrame:
    found = FeatureSet(channels, rate, signal_WCS.shape[2])
    return pd.DataFrame(found(signal_WCS), columns=found.columns)


@pytest.mark.parametrize(
    ("hz", "band"),
    [(2.5, "delta"), (6.0, "theta"), (10.0, "alpha"), (20.0, "beta"), (38.0, "gamma")],
)
def test_a_sine_has_its_power_in_its_band(hz, band):
    amplitude = 20.0
    sine_S = amplitude * np.sin(2 * np.pi * hz * TIME_S)
    row = of(np.stack([sine_S] * 4)[None].astype(np.float32)).iloc[0]
    assert 10 ** row[f"power_{band}_AF7"] == pytest.approx(amplitude**2 / 2, rel=0.01)
    assert row[f"relative_{band}_AF7"] == pytest.approx(1, abs=0.01)
    assert row["spectral_edge_AF7"] == pytest.approx(hz, abs=0.5)
    assert row["activity_AF7"] == pytest.approx(amplitude**2 / 2, rel=1e-3)
    # A difference of samples sees a sine's slope smaller by sin(x) / x.
    seen = np.sinc(hz / RATE) * hz
    assert row["mobility_AF7"] == pytest.approx(seen, rel=0.01)
    assert row["complexity_AF7"] == pytest.approx(1, abs=0.01)
    # Hann's window spreads a sine over three frequencies, 1/6, 2/3 and 1/6 of its power.
    bits = -(2 / 3 * np.log2(2 / 3) + 2 / 6 * np.log2(1 / 6))
    assert row["spectral_entropy_AF7"] == pytest.approx(bits / np.log2(88), abs=0.01)


def test_spectra_are_those_of_a_loop_over_scipys_welch():
    signal_WCS = drawn(3, 4)
    rows = of(signal_WCS)
    for w, window_CS in enumerate(signal_WCS):
        powers = {}
        for channel, x_S in zip(CHANNELS, window_CS.astype(float), strict=True):
            hz_F, density_F = signal.welch(x_S, RATE, nperseg=256)
            whole = density_F[(hz_F >= 1) & (hz_F < 45)]
            for band, (low, high) in BANDS_HZ.items():
                power = density_F[(hz_F >= low) & (hz_F < high)].sum() * 0.5
                powers[band, channel] = power
                assert rows[f"power_{band}_{channel}"][w] == pytest.approx(np.log10(power))
                assert rows[f"relative_{band}_{channel}"][w] == pytest.approx(
                    power / (whole.sum() * 0.5)
                )
            edge = 1 + 0.5 * next(
                n for n in range(len(whole)) if whole[: n + 1].sum() >= 0.95 * whole.sum()
            )
            assert rows[f"spectral_edge_{channel}"][w] == edge
            part = whole / whole.sum()
            assert rows[f"spectral_entropy_{channel}"][w] == pytest.approx(
                -(part * np.log2(part)).sum() / np.log2(len(part))
            )
        for band in BANDS_HZ:
            assert rows[f"asymmetry_{band}_TP9-TP10"][w] == pytest.approx(
                np.log10(powers[band, "TP10"] / powers[band, "TP9"]), abs=1e-6
            )


def test_coherence_is_scipys_averaged_over_the_band():
    signal_WCS = drawn(2, 4, seed=1)
    signal_WCS[:, 1] += signal_WCS[:, 0]
    rows = of(signal_WCS)
    hz_F, coherence_F = signal.coherence(
        signal_WCS[1, 0].astype(float), signal_WCS[1, 1].astype(float), RATE, nperseg=256
    )
    for band, (low, high) in BANDS_HZ.items():
        assert rows[f"coherence_{band}_AF7-AF8"][1] == pytest.approx(
            coherence_F[(hz_F >= low) & (hz_F < high)].mean(), rel=1e-5
        )
        assert rows[f"coherence_{band}_AF7-AF8"][1] > rows[f"coherence_{band}_TP9-TP10"][1]


def test_copies_are_coherent_and_a_gain_is_the_asymmetry():
    signal_WCS = drawn(2, 4)
    signal_WCS[:, 1] = -10 * signal_WCS[:, 0]
    rows = of(signal_WCS)
    for band in BANDS_HZ:
        assert rows[f"coherence_{band}_AF7-AF8"].to_numpy() == pytest.approx(1, abs=1e-6)
        assert rows[f"asymmetry_{band}_AF7-AF8"].to_numpy() == pytest.approx(2, abs=1e-6)


def test_hjorth_parameters_are_their_definition():
    x_S = drawn(1, 1, seed=3)[0, 0].astype(float)
    slope_S = [RATE * (b - a) for a, b in pairwise(x_S)]
    curve_S = [RATE * (b - a) for a, b in pairwise(slope_S)]
    activity, slopes, curves = (
        sum((v - sum(values) / len(values)) ** 2 for v in values) / len(values)
        for values in (x_S, slope_S, curve_S)
    )
    row = of(x_S[None, None].astype(np.float32), ["Cz"]).iloc[0]
    assert row["activity_Cz"] == pytest.approx(activity)
    assert row["mobility_Cz"] == pytest.approx((slopes / activity) ** 0.5 / (2 * np.pi))
    assert row["complexity_Cz"] == pytest.approx((curves / slopes / (slopes / activity)) ** 0.5)


def slow_sample_entropy(x_S: np.ndarray) -> float:
    """Two loops over templates, as Richman and Moorman define it."""
    within = (0.2 * x_S.std(dtype=np.float64)).astype(np.float32)
    places = range(len(x_S) - 2)
    matches = [0, 0]
    for i in places:
        for j in range(i + 1, len(places)):
            for n, m in enumerate((2, 3)):
                matches[n] += max(abs(x_S[i + k] - x_S[j + k]) for k in range(m)) <= within
    return float(np.log(matches[0] / matches[1])) if matches[1] else np.nan


@given(st.integers(0, 10_000), st.integers(6, 24), st.integers(0, 2))
def test_sample_entropy_is_that_of_two_loops(seed, length, decimals):
    x_S = np.random.default_rng(seed).standard_normal(length).round(decimals).astype(np.float32)
    x_S[0] += 1  # never constant
    rows_XS = np.stack([x_S, x_S[::-1], 3 * x_S])
    expected = [slow_sample_entropy(row_S) for row_S in rows_XS]
    np.testing.assert_allclose(sample_entropy(rows_XS), expected, rtol=1e-12)


@given(st.integers(0, 10_000), st.integers(4, 60), st.integers(0, 2))
def test_permutation_entropy_counts_orders(seed, length, decimals):
    x_S = np.random.default_rng(seed).standard_normal(length).round(decimals)
    orders = [tuple(np.argsort(x_S[i : i + 3], kind="stable")) for i in range(length - 2)]
    parts = np.array([orders.count(order) for order in set(orders)]) / len(orders)
    expected = -(parts * np.log2(parts)).sum() / np.log2(6)
    assert permutation_entropy(x_S[None])[0] == pytest.approx(expected, abs=1e-12)


def test_entropies_know_order_from_noise():
    regular = np.sin(2 * np.pi * 5 * TIME_S)
    noise = np.random.default_rng(0).standard_normal(len(TIME_S))
    rows_XS = np.stack([regular, noise]).astype(np.float32)
    assert np.diff(sample_entropy(rows_XS)) > 1
    assert permutation_entropy(rows_XS)[1] > 0.99
    assert permutation_entropy(np.arange(20.0)[None])[0] == 0


def test_left_right_pairs_are_mirrored_on_the_head():
    names = electrode_names()
    place = dict(zip(names, electrode_positions(names), strict=True))
    pairs = left_right_pairs(names)
    assert {("AF7", "AF8"), ("TP9", "TP10"), ("F3", "F4"), ("FFC5h", "FFC6h")} <= set(pairs)
    for left, right in pairs:
        assert place[left][0] < 0 < place[right][0]
        assert np.linalg.norm(place[left] * [-1, 1, 1] - place[right]) < 0.02  # metres
    assert not {name for pair in pairs for name in pair} & {"Cz", "Fpz", "Oz"}
    assert left_right_pairs(["F3", "Cz", "C4", "C3"]) == [("C3", "C4")]


def test_many_electrodes_have_coherence_between_left_and_right_only():
    few = ["F3", "F4", "C3", "C4", "P3", "P4", "O1", "O2"]
    assert len(FeatureSet(few, RATE, 1024).coherent) == 28
    more = FeatureSet([*few, "Cz"], RATE, 1024)
    assert more.coherent == [("F3", "F4"), ("C3", "C4"), ("P3", "P4"), ("O1", "O2")]
    assert any("left-right pairs only" in note for note in more.notes)


def test_what_cannot_be_measured_is_left_out_and_said():
    slow = FeatureSet(CHANNELS, 32.0, 64)
    assert list(slow.bands) == ["delta", "theta", "alpha"]
    assert not slow.coherent
    assert len(slow.notes) == 2
    assert not [name for name in slow.columns if "coherence" in name or "beta" in name]
    lonely = FeatureSet(["Cz", "F3"], RATE, 1024)
    assert not lonely.left_right
    assert any("no asymmetry" in note for note in lonely.notes)
    with pytest.raises(RemitError, match="no frequency band whole"):
        FeatureSet(CHANNELS, 4.0, 32)


def test_a_flat_window_has_missing_values_and_harms_no_other():
    signal_WCS = drawn(3, 4)
    alone = of(signal_WCS)
    signal_WCS[1, 2] = 0
    rows = of(signal_WCS)
    flat = [name for name in rows if "TP9" in name]
    assert rows.loc[1, [name for name in flat if "activity" not in name]].isna().all()
    assert rows.loc[1, "activity_TP9"] == 0
    assert not rows.drop(columns=flat).isna().any(axis=None)
    pd.testing.assert_frame_equal(rows.iloc[[0, 2]], alone.iloc[[0, 2]], check_exact=True)


def test_a_window_has_the_same_bits_whatever_stands_beside_it():
    signal_WCS = drawn(70, 5)
    found = FeatureSet(["AF7", "AF8", "TP9", "TP10", "Cz"], RATE, signal_WCS.shape[2])
    together = found(signal_WCS)
    one_by_one = np.concatenate([found(window_CS[None]) for window_CS in signal_WCS])
    assert together.tobytes() == one_by_one.tobytes()


@pytest.fixture
def primary(write, tmp_path) -> Path:  # noqa: F811
    files = [write("p2", "p2-a", 4, 3), write("p1", "p1-a", 5, remission=1)]
    file = tmp_path / "primary.parquet"
    build_primary(files, file, cohort="made", channels=CHANNELS)
    return file


def test_the_file_has_a_row_for_every_window_and_no_label(primary, tmp_path):
    said: list[str] = []
    out = tmp_path / "features.parquet"
    metadata = features(
        primary=primary, output=out, settings={"result_version": "1"}, log=said.append
    )
    dataset = open_dataset(primary)
    rows = pd.read_parquet(out)
    assert list(rows.columns) == [*KEYS, *metadata["features"]]
    assert "Remission" not in rows
    pd.testing.assert_frame_equal(rows[list(KEYS)], dataset.frame()[list(KEYS)])
    expected = FeatureSet(CHANNELS, 32.0, 64)(dataset.signal_WCS())
    np.testing.assert_array_equal(rows[metadata["features"]].to_numpy(), expected)
    stored = json.loads(pq.read_schema(out).metadata[b"remit"])
    assert stored == metadata
    for key in ("dataset", "content_sha256", "cohort", "simulated", "sampling_rate", "channels"):
        assert stored[key] == dataset.metadata[key]
    assert stored["result_version"]["features"] == 1
    assert any("no beta, gamma" in line for line in said)


def test_the_same_windows_have_the_same_features_whatever_the_row_groups(
    write,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    files = [write("p2", "p2-a", 4, 3), write("p1", "p1-a", 5, remission=1)]
    outs = [tmp_path / f"{name}.parquet" for name in ("one", "again", "apart")]
    for out in outs:
        if out.stem == "apart":
            monkeypatch.setattr("remit.dataset.windows.rows_per_group", lambda *_: 2)
        build_primary(files, tmp_path / "p.parquet", cohort="made", channels=CHANNELS)
        features(primary=tmp_path / "p.parquet", output=out, settings={}, log=lambda _: None)
    assert outs[0].read_bytes() == outs[1].read_bytes()
    assert pq.ParquetFile(outs[0]).num_row_groups == 1
    assert pq.ParquetFile(outs[2]).num_row_groups > 5
    whole, apart = pd.read_parquet(outs[0]), pd.read_parquet(outs[2])
    pd.testing.assert_frame_equal(whole, apart, check_exact=True)


def test_settings_that_nobody_reads_are_refused(primary, tmp_path):
    with pytest.raises(RemitError, match="found the settings bands"):
        features(primary=primary, output=tmp_path / "f", settings={"bands": 1}, log=lambda _: None)
    assert not (tmp_path / "f").exists()
