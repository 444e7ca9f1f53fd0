"""A simulated cohort: EEG-like recordings with a known effect, marked as simulated in the file.

For demonstrations, tests and null controls. Each participant has a generator of its own, and every
random number is drawn before the label is looked at; so with effect 0 the labels change no byte.
Array names carry their shape: `C` channels, `S` samples, `F` frequencies.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from remit.config import Simulation
from remit.errors import RemitError
from remit.files import atomic_write
from remit.recordings.cohort import SheetRow

if TYPE_CHECKING:
    import numpy as np

    from remit.recordings.recording import Recording

CHANNELS = ("AF7", "AF8", "TP9", "TP10")  # left and right forehead, left and right behind the ear
RESULT_VERSION = 1  # raise when a change here alters a simulated recording
SAMPLING_RATE = 256  # Hz, as Muse 2016 and later
# Correlation of the background between channels: neighbours across the midline share the most.
BACKGROUND_CORRELATION_CC = (
    (1.0, 0.7, 0.4, 0.3),
    (0.7, 1.0, 0.3, 0.4),
    (0.4, 0.3, 1.0, 0.5),
    (0.3, 0.4, 0.5, 1.0),
)
BACKGROUND_UV = 9.0  # SD of the 1/f background
SENSOR_UV = 0.8  # SD of white noise
ALPHA_UV_C = (3.0, 3.0, 5.0, 5.0)  # typical RMS of alpha; stronger towards the back of the head
ALPHA_HZ = (8.5, 11.5)
ALPHA_SPREAD = 0.4  # SD between people of the natural log of alpha's amplitude
ASYMMETRY_SPREAD = 0.45  # SD between people of ln alpha power, AF8 minus AF7
EFFECT_AMPLITUDE = 1.6  # see config.Simulation.effect
EFFECT_ASYMMETRY = 0.5
BLINKS_PER_MINUTE = (12.0, 20.0)
BLINK_UV = (80.0, 150.0)
BURSTS_PER_MINUTE = (2.0, 6.0)
BURST_UV = (5.0, 20.0)  # SD of muscle inside a burst
DROPOUTS_PER_MINUTE = 0.6
DROPOUT_SECONDS = (0.5, 3.0)
OFFSET_UV = (200.0, 900.0)  # the electrode's direct voltage
MAINS_UV = (0.5, 4.0)
DRIFT_UV = 25.0


def simulate_recording(row: SheetRow, simulation: Simulation) -> Recording:
    """The recording of one participant, in memory: float32 microvolts [4, S] at 256 Hz.

    Its length is `simulation.minutes`, rounded to whole seconds. The participant's number in
    `row.participant` ('sim-007') and the seed decide all but the group effect, which
    `row.remission` 1 switches on. Raises RemitError for a participant without a number.
    """
    import numpy as np

    from remit.recordings.recording import Recording, Segment

    seconds = max(1, round(simulation.minutes * 60))
    count = seconds * SAMPLING_RATE
    random = np.random.default_rng([simulation.seed, _number(row.participant)])
    alpha_CS, gain_C, asymmetry = _alpha(random, count)
    rest_CS = (
        _background(random, count)
        + _blinks(random, count)
        + _muscle(random, count)
        + _mains(random, count, simulation.mains_hz)
        + _drift(random, count)
        + (random.uniform(*OFFSET_UV, 4) * random.choice([-1.0, 1.0], 4))[:, None]
    )
    held_S = _dropouts(random, count)

    # The only lines that see the label.
    effect = simulation.effect if row.remission == 1 else 0.0
    gain_C *= EFFECT_AMPLITUDE**effect
    asymmetry += EFFECT_ASYMMETRY * effect
    # Half of the difference in ln power on each side; a quarter of it in ln amplitude.
    gain_C *= np.exp(np.array([-0.25, 0.25, 0.0, 0.0]) * asymmetry)
    signal_CS = (rest_CS + gain_C[:, None] * alpha_CS)[:, held_S]
    return Recording(
        participant=row.participant,
        recording=row.recording,
        signal_CS=signal_CS.astype(np.float32),
        sampling_rate=float(SAMPLING_RATE),
        channels=CHANNELS,
        segments=(Segment(0, count, 0.0),),
        prewindowed=False,
        simulated=True,
        source_sha256="",
        left_out=(),
        notes=("Simulated; not measured on a person.",),
    )


def simulate_cohort(
    rows: Iterable[SheetRow], simulation: Simulation, out: Callable[[SheetRow], Path]
) -> list[Path]:
    """Write the recording of every row as EDF to `out(row)`; returns the files in order.

    Raises RemitError for a participant without a number.
    """
    files = []
    for row in rows:
        file = Path(out(row))
        write_edf(simulate_recording(row, simulation), file)
        files.append(file)
    return files


def write_edf(recording: Recording, file: str | Path) -> None:
    """Write a simulated recording as EDF, 16 bits, whole or not at all; no clock enters it.

    Each channel's physical range is the whole number of microvolts around its extremes, so nothing
    is clipped. The patient code says SIMULATED, from which the EDF reader knows. Raises RemitError
    for a recording that is not simulated or not a whole number of seconds long.
    """
    import datetime

    import edfio
    import numpy as np

    from remit.recordings.readers.edf import SIMULATED

    samples_per_record = round(recording.sampling_rate)
    if not recording.simulated or recording.signal_CS.shape[1] % samples_per_record:
        raise RemitError(
            f"recording '{recording.recording}' is not simulated or not whole seconds long; "
            "expected a simulated one, as this EDF is marked so; write it otherwise."
        )
    signals = [
        edfio.EdfSignal(
            signal_S.astype(np.float64),
            recording.sampling_rate,
            label=f"EEG {channel}",
            transducer_type="simulated",
            physical_dimension="uV",
            physical_range=(
                float(np.floor(signal_S.min()) - 1),
                float(np.ceil(signal_S.max()) + 1),
            ),
        )
        for channel, signal_S in zip(recording.channels, recording.signal_CS, strict=True)
    ]
    edf = edfio.Edf(
        signals,
        patient=edfio.Patient(code=SIMULATED, name=recording.participant),
        recording=edfio.Recording(startdate=datetime.date(2000, 1, 1), equipment_code="remit"),
        starttime=datetime.time(0),
        data_record_duration=1,
    )
    with atomic_write(file) as temporary:
        edf.write(temporary)


def _number(participant: str) -> int:
    found = re.fullmatch(r"sim-(\d+)", participant)
    if not found:
        raise RemitError(
            f"participant '{participant}' cannot be simulated; expected 'sim-' and a number, such "
            "as sim-001; use the rows of the simulated cohort's own sheet."
        )
    return int(found[1])


def _shaped(random: np.random.Generator, shape_F: np.ndarray, channels: int) -> np.ndarray:
    """Independent noise of unit SD [channels, S] whose amplitude spectrum has this shape [F]."""
    import numpy as np

    count = 2 * (shape_F.size - 1)
    spectrum_CF = random.standard_normal((channels, shape_F.size, 2)) @ np.array([1, 1j])
    noise_CS: np.ndarray = np.fft.irfft(spectrum_CF * shape_F, n=count, axis=1)
    noise_CS /= noise_CS.std(axis=1, keepdims=True)
    return noise_CS


def _frequencies(count: int) -> np.ndarray:
    import numpy as np

    frequency_F: np.ndarray = np.fft.rfftfreq(count, 1 / SAMPLING_RATE)
    return frequency_F


def _slow(random: np.random.Generator, count: int, hertz: float, channels: int) -> np.ndarray:
    """Noise of unit SD [channels, S] that changes no faster than about `hertz`."""
    import numpy as np

    frequency_F = _frequencies(count)
    # A short recording has no frequency that low; then its lowest does.
    shape_F = np.exp(-0.5 * (frequency_F / max(hertz, frequency_F[1])) ** 2)
    shape_F[0] = 0.0
    return _shaped(random, shape_F, channels)


def _background(random: np.random.Generator, count: int) -> np.ndarray:
    """1/f noise shared between channels, and white sensor noise."""
    import numpy as np

    exponent = random.uniform(0.8, 1.4)  # of the power; it differs between people
    loudness = BACKGROUND_UV * np.exp(0.2 * random.standard_normal())
    frequency_F = _frequencies(count)
    shape_F = np.maximum(frequency_F, 0.5) ** (-exponent / 2)
    shape_F[0] = 0.0
    mixing_CC = np.linalg.cholesky(np.array(BACKGROUND_CORRELATION_CC))
    background_CS: np.ndarray = loudness * mixing_CC @ _shaped(random, shape_F, 4)
    background_CS += SENSOR_UV * random.standard_normal((4, count))
    return background_CS


def _alpha(random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Alpha that comes and goes, unit RMS [4, S]; its usual RMS [4] in microvolts; the person's
    ln power asymmetry, AF8 minus AF7."""
    import numpy as np

    peak = random.uniform(*ALPHA_HZ)
    time_S = np.arange(count) / SAMPLING_RATE
    # Channels share most of the rhythm, not all of it; the phase of each part wanders slowly.
    phase_S = 2 * np.pi * peak * time_S + _slow(random, count, 0.3, 5)
    envelope_S = 1 / (1 + np.exp(-2.0 * _slow(random, count, 0.1, 5)))
    waves_S = envelope_S * np.cos(phase_S + random.uniform(0, 2 * np.pi, (5, 1)))
    alpha_CS = 0.85 * waves_S[:1] + 0.5 * waves_S[1:]
    alpha_CS /= np.sqrt((alpha_CS**2).mean(axis=1, keepdims=True))
    gain_C = np.array(ALPHA_UV_C) * np.exp(ALPHA_SPREAD * random.standard_normal())
    return alpha_CS, gain_C, ASYMMETRY_SPREAD * float(random.standard_normal())


def _blinks(random: np.random.Generator, count: int) -> np.ndarray:
    """Lids: 0.3 s pulses on the forehead, hardly seen behind the ears."""
    import numpy as np

    blinks_CS = np.zeros((4, count))
    spread_C = np.array([1.0, 1.0, -0.1, -0.1]) * random.uniform(0.85, 1.15, 4)
    mean_pause = 60 / random.uniform(*BLINKS_PER_MINUTE)
    at = random.exponential(mean_pause)
    while at < count / SAMPLING_RATE:
        length = round(random.uniform(0.25, 0.4) * SAMPLING_RATE)
        height = random.uniform(*BLINK_UV)
        start = round(at * SAMPLING_RATE)
        pulse_S = height * np.sin(np.pi * np.linspace(0, 1, length) ** 0.8) ** 2
        stop = min(start + length, count)
        blinks_CS[:, start:stop] += spread_C[:, None] * pulse_S[: stop - start]
        at += 0.5 + random.exponential(mean_pause - 0.5)  # never two within half a second
    return blinks_CS


def _muscle(random: np.random.Generator, count: int) -> np.ndarray:
    """Bursts of 20 to 100 Hz at the temples, each on one side for the most part."""
    import numpy as np

    frequency_F = _frequencies(count)
    shape_F = ((frequency_F >= 20) & (frequency_F <= 100)).astype(float)
    noise_CS = _shaped(random, shape_F, 4)
    loudness_CS = np.zeros((4, count))
    minutes = count / SAMPLING_RATE / 60
    for _ in range(random.poisson(random.uniform(*BURSTS_PER_MINUTE) * minutes)):
        start = round(random.uniform(0, count))
        length = round(random.uniform(0.3, 1.5) * SAMPLING_RATE)
        strength = random.uniform(*BURST_UV)
        left = 1.0 if random.random() < 0.5 else 0.2
        spread_C = np.array([0.3 * left, 0.3 * (1.2 - left), left, 1.2 - left])
        rise_S = np.hanning(length)[: max(0, count - start)]
        loudness_CS[:, start : start + length] += strength * spread_C[:, None] * rise_S
    noise_CS *= loudness_CS
    return noise_CS


def _mains(random: np.random.Generator, count: int, hertz: float) -> np.ndarray:
    """A sine at the mains frequency, of its own strength and phase on each channel."""
    import numpy as np

    time_S = np.arange(count) / SAMPLING_RATE
    strength_C = random.uniform(*MAINS_UV, 4)
    phase_C = random.uniform(0, 2 * np.pi, 4)
    wave_CS: np.ndarray = np.sin(2 * np.pi * hertz * time_S + phase_C[:, None])
    wave_CS *= strength_C[:, None]
    return wave_CS


def _drift(random: np.random.Generator, count: int) -> np.ndarray:
    """Slow wander of the electrodes' direct voltage, below about 0.05 Hz."""
    return DRIFT_UV * _slow(random, count, 0.02, 4)


def _dropouts(random: np.random.Generator, count: int) -> np.ndarray:
    """Which sample is shown at each moment [S]: its own, or the last before a lost connection."""
    import numpy as np

    shown_S = np.arange(count)
    minutes = count / SAMPLING_RATE / 60
    for _ in range(random.poisson(DROPOUTS_PER_MINUTE * minutes)):
        start = round(random.uniform(0, count - 1))
        stop = start + round(random.uniform(*DROPOUT_SECONDS) * SAMPLING_RATE)
        shown_S[start:stop] = shown_S[start]
    return shown_S
