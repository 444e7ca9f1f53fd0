"""The simulated cohort: reproducible, like EEG where it matters, with the effect it states."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from recordings_made import made_recording, one_line
from scipy.signal import welch

from remit.config import Simulation
from remit.recordings.cohort import SheetRow, simulated_rows
from remit.recordings.recording import Recording
from remit.recordings.registry import ReaderOptions, read_recording
from remit.recordings.simulate import CHANNELS, simulate_cohort, simulate_recording, write_edf

SHORT = Simulation(participants=2, minutes=0.5, remission_fraction=0.5)


def row(number: int, remission: int | None = 0) -> SheetRow:
    name = f"sim-{number:03d}"
    return SheetRow(name, f"{name}_rest", f"{name}.edf", None, remission)


def power(recording: Recording, low: float, high: float) -> np.ndarray:
    """Mean power density [C] between two frequencies, microvolt squared per Hz."""
    frequency_F, power_CF = welch(recording.signal_CS, 256.0, nperseg=1024)
    inside = (frequency_F >= low) & (frequency_F <= high)
    return np.asarray(power_CF[:, inside].mean(axis=1))


def test_the_same_settings_give_the_same_bytes(tmp_path: Path) -> None:
    rows = simulated_rows("demo", SHORT)
    first = simulate_cohort(rows, SHORT, lambda r: tmp_path / "a" / f"{r.recording}.edf")
    again = simulate_cohort(rows[::-1], SHORT, lambda r: tmp_path / "b" / f"{r.recording}.edf")
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in again[::-1]]
    assert first[0].read_bytes() != first[1].read_bytes()
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == [f.name for f in first]
    other = simulate_recording(rows[0], SHORT.model_copy(update={"seed": 8}))
    assert not np.array_equal(other.signal_CS, simulate_recording(rows[0], SHORT).signal_CS)


def test_without_an_effect_labels_change_no_byte(tmp_path: Path) -> None:
    null = SHORT.model_copy(update={"effect": 0.0})
    contents = set()
    for remission in (0, 1, None):
        write_edf(simulate_recording(row(1, remission), null), tmp_path / "x.edf")
        contents.add((tmp_path / "x.edf").read_bytes())
    assert len(contents) == 1
    write_edf(simulate_recording(row(1, 1), SHORT), tmp_path / "x.edf")
    assert (tmp_path / "x.edf").read_bytes() not in contents


def test_the_normal_reader_reads_it_and_knows_it_is_simulated(tmp_path: Path) -> None:
    made = simulate_recording(row(1, 1), SHORT)
    write_edf(made, tmp_path / "x.edf")
    read = read_recording(replace(row(1, 1), path=str(tmp_path / "x.edf")), ReaderOptions())
    assert read.simulated and made.simulated
    assert read.channels == CHANNELS and read.sampling_rate == 256.0
    assert read.signal_CS.shape == (4, 30 * 256)
    np.testing.assert_allclose(read.signal_CS, made.signal_CS, atol=0.02)  # 16 bits, no clipping
    assert b"SIMULATED" in (tmp_path / "x.edf").read_bytes()[:256]


@pytest.mark.parametrize("mains", [50, 60])
def test_the_spectrum_is_like_that_of_eeg(mains: int) -> None:
    simulation = Simulation.model_validate({"mains_hz": mains, "minutes": 2})
    made = [simulate_recording(row(n, 1), simulation) for n in range(1, 9)]

    def median(low: float, high: float) -> float:
        return float(np.median([power(recording, low, high) for recording in made]))

    assert median(1, 2) > 3 * median(4, 6) > 6 * median(20, 30)  # falls with frequency
    assert median(8.5, 11.5) > 1.5 * median(14, 18)  # alpha
    assert median(mains - 0.5, mains + 0.5) > 3 * median(mains + 3, mains + 8)
    for recording in made:
        offset = np.abs(np.median(recording.signal_CS, axis=1))
        assert np.all((offset > 100) & (offset < 1000))
    shared = np.corrcoef(np.diff(made[0].signal_CS))
    assert shared[0, 1] > 0.2
    frontal, temporal = made[0].pick(["AF7"]), made[0].pick(["TP9"])
    spread = [np.ptp(r.signal_CS - np.median(r.signal_CS)) for r in (frontal, temporal)]
    assert spread[0] > 80 and np.isfinite(spread[1])  # blinks


def test_dropouts_hold_the_value() -> None:
    held = 0
    for number in range(1, 7):
        signal_CS = simulate_recording(row(number), Simulation(minutes=2)).signal_CS
        same_S = np.all(np.diff(signal_CS) == 0, axis=0)
        runs = np.diff(np.flatnonzero(np.diff(np.r_[False, same_S, False])))[::2]
        held += len(runs)
        assert all(100 <= run <= 6 * 256 for run in runs)
    assert held >= 3


def test_the_effect_is_the_stated_one() -> None:
    """Same person with and without remission: alpha's power alone is changed, as documented."""
    simulation = Simulation(minutes=1, effect=1.0)
    without = simulate_recording(row(3, 0), simulation)
    null = simulate_recording(row(3, 1), simulation.model_copy(update={"effect": 0.0}))
    np.testing.assert_array_equal(without.signal_CS, null.signal_CS)
    once = simulate_recording(row(3, 1), simulation).signal_CS.astype(float)
    alpha_CS = once - without.signal_CS  # (gain - 1) times alpha
    # On TP9 and TP10 the gain is 1.6; on AF7 and AF8 it is 1.6 exp(-0.125) and 1.6 exp(0.125).
    amplitude_C = alpha_CS.std(axis=1) / (1.6 * np.exp([-0.125, 0.125, 0, 0]) - 1)
    again = simulate_recording(row(3, 1), simulation.model_copy(update={"effect": 2.0}))
    twice_CS = again.signal_CS - without.signal_CS.astype(float)
    amplitude_2_C = twice_CS.std(axis=1) / (1.6**2 * np.exp([-0.25, 0.25, 0, 0]) - 1)
    np.testing.assert_allclose(amplitude_C, amplitude_2_C, rtol=1e-3)


def test_the_groups_differ_but_overlap() -> None:
    simulation = Simulation(minutes=0.5)
    features: dict[int, list[tuple[float, float]]] = {0: [], 1: []}
    for number in range(1, 121):
        recording = simulate_recording(row(number, number % 2), simulation)
        log_C = np.log(power(recording, 8, 12))
        features[number % 2].append((log_C[2:].mean(), log_C[1] - log_C[0]))
    for feature in (0, 1):
        zeros = np.array([f[feature] for f in features[0]])
        ones = np.array([f[feature] for f in features[1]])
        area = (ones[:, None] > zeros[None, :]).mean()
        assert 0.6 < area < 0.97


@pytest.mark.parametrize("minutes", [0.01, 0.1, 0.51])
def test_any_length_works_in_whole_seconds(minutes: float, tmp_path: Path) -> None:
    made = simulate_recording(row(1), Simulation(minutes=minutes))
    assert made.signal_CS.shape == (4, 256 * max(1, round(minutes * 60)))
    write_edf(made, tmp_path / "x.edf")


def test_slips_are_named(tmp_path: Path) -> None:
    stranger = SheetRow("p1", "p1_rest", "x.edf")
    assert "such as sim-001" in one_line(lambda: simulate_recording(stranger, SHORT))
    assert "is not simulated" in one_line(lambda: write_edf(made_recording(), tmp_path / "x.edf"))
    assert not (tmp_path / "x.edf").exists()
