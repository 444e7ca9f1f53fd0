"""The signal chain as a whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remit.config import Butterworth, Notch, Preprocessing, Upsample
from remit.errors import RemitError
from remit.preprocessing import filters
from remit.preprocessing.chain import CHANNEL_QUALITY, Windows, preprocess

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"
Make = Callable[..., Any]
BARE = Preprocessing(upsample=None, highpass=None, lowpass=None, offset=None)


def with_settings(base: Preprocessing = BARE, **changes: Any) -> Preprocessing:
    return Preprocessing(**(base.model_dump() | changes))


def sine(samples: int, rate: float, frequency: float) -> np.ndarray:
    return 20 * np.sin(2 * np.pi * frequency * np.arange(samples) / rate + 0.4)


def joined(windows: Windows) -> np.ndarray:
    """The windows of one segment, without overlap, end to end: ``[channels, samples]``."""
    return np.concatenate(list(windows.signal_WCS), axis=1)


def test_everything_off_is_the_recording_cut_up(recording: Make, noise: Make) -> None:
    raw = noise(4, 256 * 30)
    windows = preprocess(recording(raw), BARE)
    assert windows.signal_WCS.dtype == np.float32
    assert windows.signal_WCS.shape == (3, 4, 2048)
    np.testing.assert_array_equal(joined(windows), raw[:, : 3 * 2048])
    np.testing.assert_array_equal(windows.window_start, [0, 2048, 4096])
    np.testing.assert_array_equal(windows.window_end, [2048, 4096, 6144])
    np.testing.assert_array_equal(windows.parent_window_id, [0, 0, 0])
    np.testing.assert_array_equal(windows.sub_window_id, [0, 1, 2])
    assert windows.dropped_seconds == pytest.approx(6.0)
    assert windows.good.all()


@pytest.mark.parametrize("method", ["linear", "bandlimited"])
def test_up_and_down_again_keeps_sample_times(recording: Make, method: str) -> None:
    chain = with_settings(
        upsample=Upsample(method=method),  # type: ignore[arg-type]
        lowpass=Butterworth(cutoff_hz=60, order=4),
    )
    out = joined(preprocess(recording(sine(256 * 40, 256, 5.0)), chain))[0]
    gain = filters.butterworth_gain("lowpass", 60, 4, 512, np.array([5.0]))[0]
    if method == "linear":  # interpolating a line between samples: (1 + cos) / 2 of the amplitude
        gain *= (1 + np.cos(2 * np.pi * 5.0 / 512)) / 2
    expected = gain * sine(len(out), 256, 5.0)
    # The image that linear interpolation leaves at 251 Hz is 1e-3 before the low-pass takes it.
    np.testing.assert_allclose(out[256:-256], expected[256:-256], atol=0.01)


@pytest.mark.parametrize("source", [500.0, 512.0, 250.0, 1000.0, 255.9])
@pytest.mark.parametrize("lowpass", [None, Butterworth(cutoff_hz=60, order=4)])
def test_any_rate_comes_to_the_configured_one(
    recording: Make, source: float, lowpass: Butterworth | None
) -> None:
    out = joined(
        preprocess(
            recording(sine(int(33 * source), source, 10.0), source), with_settings(lowpass=lowpass)
        )
    )[0]
    assert len(out) == 4 * 2048
    expected = sine(len(out), 256, 10.0)
    np.testing.assert_allclose(out[256:-256], expected[256:-256], atol=0.02)


@pytest.mark.parametrize("frequency", [150.0, 200.0, 246.0])
@pytest.mark.parametrize("lowpass", [None, Butterworth(cutoff_hz=100, order=2)])
def test_nothing_aliases_without_a_safe_low_pass(
    recording: Make, frequency: float, lowpass: Butterworth | None
) -> None:
    """512 to 256 Hz is a whole ratio, and still samples may not simply be left out here."""
    raw = sine(512 * 24, 512, frequency)
    out = joined(preprocess(recording(raw, 512.0), with_settings(lowpass=lowpass)))[0]
    assert np.abs(out[256:-256]).max() < 0.01


def test_notch_and_highpass_are_applied(recording: Make) -> None:
    raw = sine(256 * 64, 256, 10.0) + sine(256 * 64, 256, 50.0) + sine(256 * 64, 256, 0.05)
    chain = with_settings(
        highpass=Butterworth(cutoff_hz=0.5, order=2), notch=Notch(frequencies_hz=[50.0])
    )
    out = joined(preprocess(recording(raw), chain))[0]
    expected = sine(len(out), 256, 10.0)
    np.testing.assert_allclose(out[1024:-1024], expected[1024:-1024], atol=0.1)


@pytest.mark.parametrize("level", [800.0, -100_000.0])
def test_a_large_offset_leaves_no_transient(recording: Make, noise: Make, level: float) -> None:
    quiet = noise(1, 256 * 40, scale=5.0)
    chain = Preprocessing(upsample=Upsample())
    reference = preprocess(recording(quiet), chain).signal_WCS
    lifted = preprocess(recording(quiet.astype(np.float64) + level), chain).signal_WCS
    resolution = np.spacing(np.float32(abs(level)))  # of the float32 that holds the offset
    assert np.abs(lifted - reference).max() <= 2 * resolution
    constant = preprocess(recording(np.full(256 * 40, level)), chain).signal_WCS
    assert np.abs(constant).max() <= resolution


@pytest.mark.parametrize("source", [256.0, 500.0])
def test_the_offset_survives_where_nothing_removes_it(recording: Make, source: float) -> None:
    chain = with_settings(upsample=Upsample(), lowpass=Butterworth(cutoff_hz=60))
    out = preprocess(recording(np.full(int(source * 20), 800.0), source), chain).signal_WCS
    np.testing.assert_allclose(out, 800.0, atol=1e-3)


@pytest.mark.parametrize("offset", ["mean", "median"])
def test_offset_is_removed_per_window_and_channel(
    recording: Make, noise: Make, offset: str
) -> None:
    out = preprocess(recording(noise(3, 256 * 30) + 100), with_settings(offset=offset)).signal_WCS
    np.testing.assert_allclose(getattr(np, offset)(out, axis=2), 0.0, atol=1e-4)


def test_a_step_far_away_and_an_edge_do_not_ring(recording: Make) -> None:
    """A segment that begins high and drifts down: its first window has no edge in it."""
    raw = 500 * np.exp(-np.arange(256 * 60) / (256 * 40))
    out = preprocess(recording(raw), with_settings(highpass=Butterworth(cutoff_hz=0.5, order=2)))
    assert np.abs(out.signal_WCS).max() < 3.0


def test_a_window_filtered_alone_is_nearly_that_of_the_whole(recording: Make, noise: Make) -> None:
    """What padding is for. Odd reflection leaves nearly three times as much."""
    raw = noise(4, 2048 * 30)
    chain = with_settings(
        highpass=Butterworth(cutoff_hz=0.5, order=2),
        lowpass=Butterworth(cutoff_hz=60),
        offset="mean",
    )
    whole = preprocess(recording(raw), chain).signal_WCS[1:-1]
    segments = [(k * 2048, (k + 1) * 2048, k * 8.0) for k in range(1, 29)]
    alone = preprocess(recording(raw, segments=segments, prewindowed=True), chain).signal_WCS
    error = (alone - whole).std(axis=2) / whole.std(axis=2)
    assert np.median(error) < 0.1


def test_windows_never_cross_a_gap(recording: Make, noise: Make) -> None:
    rate, length = 256, 256 * 60
    raw = noise(2, length)
    segments = [(0, 20 * rate, 0.0), (20 * rate, length, 1180.0)]
    settings_ = Preprocessing(overlap_seconds=4.0)
    both = preprocess(recording(raw, segments=segments), settings_)
    first = preprocess(recording(raw[:, : 20 * rate]), settings_)
    second = preprocess(recording(raw[:, 20 * rate :]), settings_)
    np.testing.assert_array_equal(
        both.signal_WCS, np.concatenate([first.signal_WCS, second.signal_WCS])
    )
    np.testing.assert_array_equal(both.parent_window_id, [0] * 4 + [1] * 9)
    np.testing.assert_array_equal(both.sub_window_id, [*range(4), *range(9)])
    assert both.window_start[4] == 1180 * rate
    np.testing.assert_array_equal(both.window_end - both.window_start, 2048)


def test_a_source_in_windows_is_filtered_window_by_window(recording: Make, noise: Make) -> None:
    raw = noise(2, 2048 * 5) + np.repeat([0, 300, -200, 50, 900], 2048)
    segments = [(k * 2048, (k + 1) * 2048, k * 8.0) for k in range(5)]
    out = preprocess(recording(raw, segments=segments, prewindowed=True), Preprocessing())
    np.testing.assert_array_equal(out.parent_window_id, range(5))
    np.testing.assert_array_equal(out.sub_window_id, 0)
    np.testing.assert_array_equal(out.window_start, np.arange(5) * 2048)
    assert out.dropped_seconds == 0
    assert np.abs(out.signal_WCS).max() < 200  # the steps between windows are in none of them


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 1500), min_size=1, max_size=4),
    overlap=st.integers(0, 99),
    rate=st.sampled_from([50.0, 100.0, 200.0]),
)
def test_counts_and_starts(recording: Make, lengths: list[int], overlap: int, rate: float) -> None:
    """Windows of 100 samples at 100 Hz: each segment is covered from its start, without holes."""
    chain = with_settings(sampling_rate=100.0, window_seconds=1.0, overlap_seconds=overlap / 100)
    ends = np.cumsum(lengths)
    segments = [
        (int(e - n), int(e), float(e - n) / rate) for e, n in zip(ends, lengths, strict=True)
    ]
    walk = np.cumsum(np.random.default_rng(0).standard_normal(ends[-1]))
    record = recording(walk, rate, segments)
    step = 100 - overlap
    out_lengths = [-(-n * 100 // int(rate)) for n in lengths]
    expected = [max(0, (n - 100) // step + 1) for n in out_lengths]
    if not sum(expected):
        with pytest.raises(RemitError, match="expected at least one window"):
            preprocess(record, chain)
        return
    windows = preprocess(record, chain)
    assert [int((windows.parent_window_id == k).sum()) for k in range(len(lengths))] == expected
    for index, (start, _, onset) in enumerate(segments):
        own = windows.window_start[windows.parent_window_id == index]
        origin = int(np.floor(start / rate * 100 + 0.5))
        assert origin == int(np.floor(onset * 100 + 0.5))
        np.testing.assert_array_equal(own, origin + np.arange(len(own)) * step)
    assert windows.dropped_seconds >= 0
    assert windows.dropped_seconds <= sum(lengths) / rate


def test_bad_windows_are_marked_and_kept(recording: Make, noise: Make) -> None:
    raw = noise(2, 256 * 40)
    raw[0, 2048 + 100 : 2048 + 1124] = raw[0, 2048 + 100]  # flat for half of window 1
    raw[1, 2 * 2048 + 50 : 2 * 2048 + 254] = 400.0  # at the rail for a tenth of window 2
    raw[1, 3 * 2048 + 1000] = 5000.0  # implausible in window 3
    raw[1, 3 * 2048 + 1002] = -3000.0
    clipped = np.minimum(raw, np.array([[1e6], [400.0]]))
    windows = preprocess(recording(clipped), Preprocessing())
    assert len(windows.good) == 5
    part = 204 / 2048
    np.testing.assert_allclose(
        windows.flat_fraction.T, [[0, 0.5, 0, 0, 0], [0, 0, part, 0, 0]], atol=1e-6
    )
    np.testing.assert_allclose(
        windows.clipped_fraction.T, [[0] * 5, [0, 0, part, 1 / 2048, 0]], atol=1e-6
    )
    assert windows.peak_to_peak_uv[3, 1] > 1000 > windows.peak_to_peak_uv[3, 0]
    np.testing.assert_array_equal(windows.good, [True, False, False, False, True])
    assert windows.bad_because == ("", "flat", "clipped", "amplitude, flat spectrum", "")
    for name in CHANNEL_QUALITY:
        assert getattr(windows, name).dtype == np.float32
        assert getattr(windows, name).shape == (5, 2)


def test_quality_looks_at_the_time_the_window_covers(recording: Make, noise: Make) -> None:
    raw = noise(1, 500 * 40)
    raw[0, 500 * 16 : 500 * 24] = 3.0  # exactly the third window at any rate
    windows = preprocess(recording(raw, 500.0), Preprocessing())
    np.testing.assert_allclose(windows.flat_fraction[:, 0], [0, 0, 1, 0, 0], atol=1e-3)


def test_a_lost_packet_is_bridged_and_counted(recording: Make, noise: Make) -> None:
    """12 samples lost: a straight line stands for them, and nothing else changes."""
    whole = noise(2, 256 * 24)
    start = 2048 + 600
    kept = np.delete(whole, np.s_[start : start + 12], axis=1)
    segments = [(0, start, 0.0), (start, 256 * 24 - 12, (start + 12) / 256)]
    bridged = preprocess(recording(kept, segments=segments), BARE)
    np.testing.assert_array_equal(bridged.parent_window_id, 0)
    np.testing.assert_allclose(
        bridged.dropout_fraction, np.repeat([[0], [12 / 2048], [0]], 2, axis=1), atol=1e-6
    )
    found = joined(bridged)
    line = np.linspace(found[:, start - 1], found[:, start + 12], 14, axis=1)
    np.testing.assert_allclose(found[:, start - 1 : start + 13], line, rtol=1e-5)
    rest = np.r_[0:start, start + 12 : 256 * 24]
    np.testing.assert_array_equal(found[:, rest], whole[:, rest])
    assert any("1 gaps of up to 0.1 s bridged" in note for note in bridged.notes)
    apart = preprocess(recording(kept, segments=segments), with_settings(bridge_seconds=0.0))
    np.testing.assert_array_equal(apart.parent_window_id, [0, 1])


def test_a_gap_of_unknown_length_is_never_bridged(recording: Make, noise: Make) -> None:
    raw = noise(2, 256 * 24)
    segments = [(0, 256 * 12, 0.0), (256 * 12, 256 * 24, 12.0)]
    windows = preprocess(recording(raw, segments=segments), BARE)
    np.testing.assert_array_equal(windows.parent_window_id, [0, 1])


@pytest.mark.parametrize("mains", [50.0, 60.0])
def test_mains_is_seen_or_stated_and_taken_out(recording: Make, noise: Make, mains: float) -> None:
    quiet = noise(2, 250 * 80, scale=10.0).astype(np.float64)
    loud = quiet + 20 * np.sin(2 * np.pi * mains * np.arange(quiet.shape[1]) / 250)
    chain = with_settings(notch=Notch())
    seen = preprocess(recording(loud, 250.0), chain)
    assert f"Mains at {mains:g} Hz, seen in the spectrum" in seen.notes[0]
    clean = preprocess(recording(quiet, 250.0), chain)
    assert clean.notes[0].startswith("No mains is stated or stands out")
    middle = slice(2, -2)
    left = seen.signal_WCS[middle] - clean.signal_WCS[middle]
    assert left.std() < 0.05 * 20  # but for what the notch takes of the EEG beside it
    stated = preprocess(recording(quiet, 250.0, mains_hz=mains), chain)
    assert stated.notes[0] == f"Mains at {mains:g} Hz, as the recording states."
    ratio = seen.line_noise_ratio / clean.line_noise_ratio
    assert ratio.min() > 20


@pytest.mark.parametrize("rate", [125.0, 128.0, 160.0])
def test_mains_near_nyquist_is_seen(recording: Make, noise: Make, rate: float) -> None:
    raw = noise(2, int(rate * 60), scale=10.0).astype(np.float64)
    raw += 20 * np.sin(2 * np.pi * 60 * np.arange(raw.shape[1]) / rate)
    windows = preprocess(recording(raw, rate), with_settings(notch=Notch(), sampling_rate=rate))
    assert "Mains at 60 Hz, seen in the spectrum" in windows.notes[0]
    slow = preprocess(
        recording(noise(1, 6000), 100.0), with_settings(notch=Notch(), sampling_rate=100.0)
    )
    assert "60 Hz is beyond the recording's reach" in slow.notes[0]


def test_noise_ratios_tell_muscle_from_mains(recording: Make, noise: Make) -> None:
    rng = np.random.default_rng(3)
    raw = noise(2, 500 * 32, scale=10.0).astype(np.float64)
    raw[1] += 30 * np.sin(2 * np.pi * 50 * np.arange(raw.shape[1]) / 500)
    raw[0, 500 * 8 : 500 * 16] += 30 * rng.standard_normal(500 * 8)
    windows = preprocess(recording(raw, 500.0, mains_hz=50.0), Preprocessing())
    muscle, mains = windows.high_frequency_ratio, windows.line_noise_ratio
    assert muscle[1, 0] > 3 * muscle[[0, 2, 3], 0].max()
    assert mains[:, 1].min() > 10 * mains[[0, 2, 3], 0].max()
    assert muscle[:, 1].max() < muscle[1, 0] / 3
    strict = with_settings(quality={"max_high_frequency_ratio": float(muscle[1, 0]) / 2})
    assert "high frequencies" in preprocess(recording(raw, 500.0), strict).bad_because[1]


def test_what_a_slow_source_cannot_tell_is_nan(recording: Make, noise: Make) -> None:
    windows = preprocess(recording(noise(1, 100 * 20), 100.0), with_settings(sampling_rate=100.0))
    assert np.isnan(windows.line_noise_ratio).all()
    assert np.isfinite(windows.high_frequency_ratio).all()
    assert np.isnan(windows.contact_fraction).all()
    assert np.isnan(windows.worn_fraction).all()
    assert windows.good.all()


def test_headset_contact_and_wearing(recording: Make, noise: Make) -> None:
    raw = noise(2, 256 * 24)
    contact = np.ones(raw.shape, dtype=bool)
    contact[1, 2048 : 2048 + 1024] = False
    worn = np.ones(raw.shape[1], dtype=bool)
    worn[2 * 2048 + 100 :] = False
    windows = preprocess(recording(raw, contact_CS=contact, worn_S=worn), BARE)
    np.testing.assert_allclose(windows.contact_fraction.T, [[1, 1, 1], [1, 0.5, 1]])
    np.testing.assert_allclose(windows.worn_fraction, [1, 1, 100 / 2048])
    assert windows.bad_because == ("", "", "not worn")
    strict = with_settings(quality={"min_contact_fraction": 0.6})
    windows = preprocess(recording(raw, contact_CS=contact, worn_S=worn), strict)
    assert windows.bad_because == ("", "no contact", "not worn")


def test_a_channel_that_the_source_calls_bad(recording: Make, noise: Make) -> None:
    record = recording(noise(2, 256 * 16), bad_channels=("AF8",))
    assert preprocess(record, BARE).bad_because == ("bad channel",) * 2
    assert preprocess(record, BARE, ["AF7"]).good.all()
    assert preprocess(record, with_settings(quality={"use_bad_channels": True})).good.all()


def test_rereferencing(recording: Make, noise: Make) -> None:
    raw = noise(4, 256 * 16)
    record = recording(raw, bad_channels=("TP10",))
    average = preprocess(record, with_settings(reference="average"), ["AF8", "TP9"])
    expected = raw[[1, 2]] - raw[:3].mean(axis=0)
    np.testing.assert_allclose(joined(average), expected[:, : 2 * 2048], atol=1e-4)
    assert average.notes[0] == "Re-referenced to the average of 3 electrodes."
    named = preprocess(record, with_settings(reference="TP9"), ["AF7"])
    np.testing.assert_allclose(joined(named)[0], (raw[0] - raw[2])[: 2 * 2048], atol=1e-4)
    with pytest.raises(RemitError, match="the reference TP10 is a bad channel, as the source says"):
        preprocess(record, with_settings(reference=["TP9", "TP10"]), ["AF7"])
    with pytest.raises(RemitError, match="TP9 is the reference and one of the channels"):
        preprocess(record, with_settings(reference="TP9"), ["AF7", "TP9"])
    with pytest.raises(RemitError, match="expected each electrode once"):
        preprocess(record, with_settings(reference=["TP9", "TP9"]), ["AF7"])
    sound = recording(raw)
    both = preprocess(sound, with_settings(reference=["TP9", "TP10"]), ["AF7"])
    np.testing.assert_allclose(
        joined(both)[0], (raw[0] - (raw[2] + raw[3]) / 2)[: 2 * 2048], atol=1e-4
    )
    ears = recording(raw, channels=("AF7", "M1", "M2", "A1"))
    linked = preprocess(ears, with_settings(reference="linked_mastoids"), ["AF7"])
    np.testing.assert_allclose(
        joined(linked)[0], (raw[0] - (raw[1] + raw[2]) / 2)[: 2 * 2048], atol=1e-4
    )
    for reference, what in (
        ("linked_mastoids", "no mastoids"),
        ("Fz", "no reference electrode 'Fz'"),
    ):
        with pytest.raises(RemitError, match=what):
            preprocess(record, with_settings(reference=reference))
    with pytest.raises(RemitError, match="average reference over 1 electrodes"):
        preprocess(recording(raw[:1]), with_settings(reference="average"))


def test_a_flat_reference_makes_all_channels_bad(recording: Make, noise: Make) -> None:
    raw = noise(3, 256 * 24)
    raw[2, 2048 : 2 * 2048] = 1.0
    windows = preprocess(recording(raw), with_settings(reference="TP9"), ["AF7", "AF8"])
    assert windows.bad_because == ("", "flat, dropout", "")
    np.testing.assert_allclose(windows.flat_fraction[1], 1.0, atol=0.01)


def test_noise_that_all_electrodes_share_is_gone_after_rereferencing(
    recording: Make, noise: Make
) -> None:
    raw = noise(4, 256 * 24).astype(np.float64)
    raw += 50 * np.sin(2 * np.pi * 50 * np.arange(raw.shape[1]) / 256)
    record = recording(raw, mains_hz=50.0)
    before = preprocess(record, BARE).line_noise_ratio
    after = preprocess(record, with_settings(reference="average")).line_noise_ratio
    assert before.min() > 1 and after.max() < 0.05


def test_damaged_bytes_are_refused(recording: Make, noise: Make) -> None:
    """Samples with their bytes swapped are of a plausible size, and white."""
    raw = np.round(noise(3, 256 * 40) / 0.05).astype(np.int16)
    sound = recording(raw * 0.05)
    assert preprocess(sound, Preprocessing()).good.all()
    with pytest.raises(RemitError, match="has the spectrum of white noise"):
        preprocess(recording(raw.byteswap() * 0.005), Preprocessing())
    noise_is_meant = {"max_spectral_flatness": None}
    allowed = Preprocessing(quality=noise_is_meant)  # type: ignore[arg-type]
    assert preprocess(recording(raw.byteswap() * 0.005), allowed).spectral_flatness.min() > 0.8
    half = np.concatenate([raw * 0.05, raw.byteswap() * 0.005, raw * 0.05], axis=1)
    windows = preprocess(recording(half), Preprocessing())
    assert windows.good.sum() == 10 and windows.bad_because[7] == "flat spectrum"


def test_a_drift_leaves_no_edge(recording: Make, noise: Make) -> None:
    quiet = noise(1, 256 * 40)
    chain = Preprocessing(offset=None, notch=None)
    straight = preprocess(recording(quiet), chain).signal_WCS
    drifting = preprocess(recording(quiet + np.arange(256 * 40) * 50 / 256), chain).signal_WCS
    np.testing.assert_allclose(drifting, straight, atol=0.01)
    # Without a high-pass the drift stays.
    low = with_settings(lowpass=Butterworth(cutoff_hz=60), sampling_rate=128.0)
    kept = preprocess(recording(np.arange(256 * 40) * 50 / 256), low).signal_WCS
    expected = np.arange(128 * 40) * 50 / 128
    np.testing.assert_allclose(joined_of(kept), expected, atol=0.02)


def joined_of(signal_WCS: np.ndarray) -> np.ndarray:
    return np.concatenate(list(signal_WCS[:, 0]))


def test_overlap_counts_once_in_what_is_kept(recording: Make, noise: Make) -> None:
    windows = preprocess(recording(noise(1, 256 * 40)), Preprocessing(overlap_seconds=4.0))
    assert len(windows.good) == 9
    assert windows.summary()["good_seconds"] == 40.0


def test_the_summary_counts_what_was_kept(recording: Make, noise: Make) -> None:
    raw = noise(2, 2048 * 4)
    raw[0, 2048 : 2 * 2048] = 1.0
    summary = preprocess(recording(raw), Preprocessing()).summary()
    assert (summary["windows"], summary["good_windows"], summary["good_seconds"]) == (4, 3, 24.0)
    assert summary["bad_windows_because"] == {"flat": 1}
    assert summary["median_by_channel"]["contact_fraction"] == [None]
    assert len(summary["median_by_channel"]["line_noise_ratio"]) == 2


def test_too_short_names_what_was_found_and_expected(recording: Make, noise: Make) -> None:
    segments = [(0, 1000, 0.0), (1000, 2500, 10.0)]
    with pytest.raises(
        RemitError,
        match=r"participant p1, recording p1-rest: the longest contiguous segment has 5\.86 s; "
        r"expected at least one window of 8 s",
    ):
        preprocess(recording(noise(1, 2500), segments=segments), Preprocessing())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_is_refused(recording: Make, noise: Make, value: float) -> None:
    record = recording(noise(2, 256 * 20))
    record.signal_CS[1, 512] = value
    with pytest.raises(
        RemitError,
        match=r"participant p1, recording 'p1-rest': channel AF8 has 1 values.* 2\.000 s",
    ):
        preprocess(record, Preprocessing())


def test_cut_off_above_the_source_is_refused_whatever_the_upsampling(
    recording: Make, noise: Make
) -> None:
    with pytest.raises(
        RemitError, match=r"lowpass.cutoff_hz is 60 Hz and the recording has 100 Hz.*above 120 Hz"
    ):
        preprocess(
            recording(noise(1, 2000), 100.0),
            Preprocessing(upsample=Upsample(factor=4), sampling_rate=256.0),
        )


def test_the_recording_is_left_as_it_was(recording: Make, noise: Make) -> None:
    record = recording(noise(2, 256 * 20))
    before = record.signal_CS.copy()
    preprocess(record, Preprocessing())
    np.testing.assert_array_equal(record.signal_CS, before)


@pytest.mark.skipif(
    not (DATA / "eegmat").is_dir(), reason="real recordings are not beside the project"
)
def test_a_real_recording(recording: Make) -> None:
    mne = pytest.importorskip("mne")
    file = DATA / "eegmat" / "sub-00" / "eeg" / "sub-00_task-arithmetic_eeg.edf"
    raw = mne.io.read_raw_edf(file, verbose="error")
    names = ["EEG F7", "EEG F8", "EEG T5", "EEG T6"]
    signal_CS = raw.get_data(names) * 1e6
    windows = preprocess(recording(signal_CS, raw.info["sfreq"]), Preprocessing())
    assert len(windows.good) == int(raw.n_times / 500 // 8)
    assert windows.good.all()
    # MNE's own resampling and filtering, in the middle of a window, give the same signal.
    # (npad="auto" would round the padded length and stretch the time axis by up to 2 ms.)
    theirs = mne.filter.resample(signal_CS, up=256, down=500, npad=0, verbose="error")
    design = {"order": 4, "ftype": "butter"}
    theirs = mne.filter.filter_data(
        theirs, 256.0, None, 60.0, method="iir", iir_params=design, verbose="error"
    )
    design = {"order": 2, "ftype": "butter"}
    theirs = mne.filter.filter_data(
        theirs, 256.0, 0.5, None, method="iir", iir_params=design, verbose="error"
    )
    expected = theirs[:, 3 * 2048 : 4 * 2048]
    expected = expected - expected.mean(axis=1, keepdims=True)
    # They filter at 256 Hz, where the bilinear transform bends the low-pass a little more.
    assert np.std(windows.signal_WCS[3] - expected) < 0.01 * np.std(expected)
