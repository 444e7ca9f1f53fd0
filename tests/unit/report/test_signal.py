"""The picture of the signal chain shows what the chain does, step by step, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import signal

from remit import cli
from remit.config import Preprocessing
from remit.errors import RemitError
from remit.preprocessing.chain import preprocess
from remit.recordings.recording import Segment
from remit.report import signal as picture
from tests.unit.report.conftest import said_above
from tests.unit.report.recordings_drawn import CHAIN, FOUR, RATE, recording

WHOLE = CHAIN.model_copy(
    update={
        "reference": "average",
        "upsample": Preprocessing().upsample,
        "sampling_rate": 100.0,
    }
)


def states_of(one, settings=CHAIN, channels=FOUR):
    return list(picture.states(one, settings, preprocess(one, settings, channels), channels))


@pytest.fixture
def drawn(monkeypatch):
    from matplotlib import pyplot as plt

    kept = []
    monkeypatch.setattr(picture, "save", lambda figure, file: kept.append(figure))

    def draw(one, settings=CHAIN, channels=FOUR):
        said = picture.draw_signal(one, settings, channels, None)
        kept[-1].draw_without_rendering()  # what cannot be drawn fails here
        return kept[-1], said

    yield draw
    plt.close("all")


def test_the_steps_are_those_of_the_settings_in_the_chains_order():
    words = [step for step, _, _ in picture.steps_of(WHOLE, 250.0)]
    assert words == [
        "as read, 250 Hz",
        "re-referenced: average",
        "raised to 500 Hz",
        "high-pass 0.5 Hz",
        "notch at the mains",
        "low-pass 40 Hz",
        "brought to 100 Hz",
    ]
    last = picture.steps_of(WHOLE, 250.0)[-1][1]
    assert last == WHOLE  # every step together is the chain
    nothing = {"highpass": None, "notch": None, "lowpass": None, "upsample": None}
    bare = CHAIN.model_copy(update=nothing)
    assert [step for step, _, _ in picture.steps_of(bare, 128.0)] == ["as read, 128 Hz"]


@pytest.mark.parametrize("settings", [CHAIN, WHOLE], ids=["few steps", "all steps"])
def test_it_begins_with_what_was_read_and_ends_with_the_windows(settings):
    one = recording("a", 0)
    found = states_of(one, settings)
    assert np.array_equal(found[0].signal_CS, one.signal_CS[:, :1280].astype(float))
    windows = preprocess(one, settings, FOUR)
    joined_CS = np.concatenate(list(windows.signal_WCS), axis=1)
    shown = found[-1].signal_CS.shape[1]
    assert np.array_equal(found[-1].signal_CS, joined_CS[:, :shown].astype(float))
    assert shown == 10 * settings.sampling_rate
    # The step before has the same but for each window's mean.
    size = windows.signal_WCS.shape[2]
    before = found[-2].signal_CS.reshape(4, -1, size)
    after = found[-1].signal_CS.reshape(4, -1, size)
    assert np.allclose(before - before.mean(axis=2, keepdims=True), after, atol=1e-3)


def test_each_filter_takes_away_what_it_should():
    """Against scipy's own forward-backward filter, and by what is left at its frequencies."""
    time_S = np.arange(int(RATE * 13)) / RATE
    one = recording("a", 0)
    noisy = one.signal_CS + 15 * np.sin(2 * np.pi * 50 * time_S).astype(np.float32)
    by_step = {state.step: state for state in states_of(replace(one, signal_CS=noisy))}
    raw, high, notch, low = (
        by_step[step]
        for step in ("as read, 128 Hz", "high-pass 0.5 Hz", "notch at the mains", "low-pass 40 Hz")
    )
    sos = signal.butter(2, 0.5, "highpass", fs=RATE, output="sos")
    expected_CS = signal.sosfiltfilt(sos, noisy.astype(float), axis=1)[:, 256:1024]
    assert np.corrcoef(expected_CS.ravel(), high.signal_CS[:, 256:1024].ravel())[0, 1] > 0.99

    def at(state, hz):
        return state.density_CF[:, np.argmin(np.abs(state.hz_F - hz))]

    assert (raw.signal_CS.mean(axis=1) > 200).all() and abs(high.signal_CS.mean()) < 5
    assert (at(notch, 50) < 1e-3 * at(high, 50)).all()
    assert (at(low, 60) < 0.05 * at(notch, 60)).all()
    for state in (high, notch, low):
        assert np.allclose(at(state, 10), at(raw, 10), rtol=0.05)  # nothing happens to the sine


def test_every_state_is_drawn_beside_the_one_before_it(drawn):
    one = recording("a", 0)
    figure, said = drawn(one)
    found = states_of(one)
    axes = np.array(figure.axes).reshape(-1, 2)
    assert len(axes) == len(found) == 5
    assert said == "recording a_rest of participant a: 10 s from 0 s on"
    for row, (state, (traces, spectrum)) in enumerate(zip(found, axes, strict=True)):
        assert traces.get_title(loc="left") == f"{row}. {state.step}"
        per_channel = 2 if row else 1
        assert len(traces.lines) == 4 * per_channel + 1  # and the bar
        own = traces.lines[per_channel - 1]
        centred = state.signal_CS[0] - state.signal_CS[0].mean()
        assert np.allclose(own.get_ydata(), centred)
        assert own.get_xdata()[-1] == pytest.approx(10 - 1 / state.rate)
        assert len(spectrum.lines) >= 5 * per_channel
        mean_F = (10 * np.log10(state.density_CF[:, 1:])).mean(axis=0)
        assert any(
            len(line.get_ydata()) == len(mean_F) and np.allclose(line.get_ydata(), mean_F)
            for line in spectrum.lines
        )
        names = [label.get_text() for label in traces.get_yticklabels()]
        assert [name.split()[0] for name in names] == list(FOUR)
        assert float(names[0].split()[1]) == pytest.approx(state.signal_CS[0].mean(), abs=0.06)
        (size,) = traces.texts
        assert size.get_text().strip().endswith("µV")
        last = max(line.get_xdata().max() for line in traces.lines if len(line.get_xdata()) > 2)
        assert size.get_position()[0] > last  # no trace runs through it
        assert spectrum.get_ylabel() == "dB re 1 µV²/Hz"
    title = said_above(figure)
    assert "SIMULATED DATA" in title and said in title and "Mains at 50 Hz" in title


def test_it_is_not_called_simulated_when_it_is_not(drawn):
    assert "SIMULATED" not in said_above(drawn(recording("a", 0, simulated=False))[0])


def test_it_begins_at_the_first_window_that_is_not_bad(drawn):
    one = recording("a", 0, flat=[(2, 0), (2, 1)])
    figure, said = drawn(one)
    assert said.endswith("9 s from 4 s on")
    first = figure.axes[0].lines[0]
    assert first.get_xdata()[0] == 4.0
    own_S = one.signal_CS[0, 512:].astype(float)
    assert np.allclose(first.get_ydata(), own_S - own_S.mean())


def test_a_recording_all_of_whose_windows_are_bad_says_so(drawn):
    one = recording("a", 0, flat=[(3, window) for window in range(7)], size=5.0)
    assert "all windows are marked bad (flat" in drawn(one)[1]


def test_of_windows_that_the_source_cut_one_is_shown(drawn):
    pieces = tuple(Segment(n * 256, (n + 1) * 256, 2.0 * n) for n in range(6))
    one = recording("a", 0, segments=pieces, prewindowed=True)
    figure, said = drawn(one)
    assert said.endswith(": 2 s from 0 s on")
    assert "windows as the source cut them" in said_above(figure)
    assert len(figure.axes[0].lines[0].get_xdata()) == 256


def test_of_many_electrodes_some_are_drawn_and_it_is_said(drawn):
    from remit.recordings.channels import electrode_names

    names = electrode_names()[:40]
    figure, _ = drawn(recording("a", 0, channels=names), channels=names)
    assert "32 of 40 electrodes, evenly chosen" in said_above(figure)
    shown = [label.get_text().split()[0] for label in figure.axes[0].get_yticklabels()]
    assert len(shown) == 32 and shown[0] == names[0] and shown[-1] == names[-1]


def test_what_the_chain_refuses_is_refused_in_one_line(tmp_path, capsys):
    with pytest.raises(RemitError, match="no channel 'Cz'"):
        picture.draw_signal(recording("a", 0), CHAIN, ["Cz"], tmp_path / "signal.png")
    settings = (
        '{"participant": "a", "recording": "a", "entry": null, "sampling_rate": null, "units": null,'
        '"channel_names": null, "allow_truncated": false, "channels": ["AF7"], "preprocessing": {}}'
    )
    files = ["--input", str(tmp_path / "none.edf"), "--output", str(tmp_path / "signal.png")]
    code = cli.main(["signal-figure", "--settings", settings, *files])
    error = capsys.readouterr().err
    assert code == 1 and error.startswith("remit: ") and error.count("\n") == 1
    assert not (tmp_path / "signal.png").exists()


def test_the_picture_is_a_file_and_the_same_again(tmp_path):
    file = tmp_path / "signal.png"
    picture.draw_signal(recording("a", 0), WHOLE, FOUR, file)
    first = file.read_bytes()
    assert first.startswith(b"\x89PNG") and len(first) > 50_000
    picture.draw_signal(recording("a", 0), WHOLE, FOUR, file)
    assert file.read_bytes() == first
