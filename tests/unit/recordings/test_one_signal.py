"""One signal in every format: the same microvolts, rate, names and segments come out of each."""

from __future__ import annotations

import datetime
import gzip
from collections.abc import Callable
from pathlib import Path

import edfio
import eeglabio.raw
import matlab_made
import mne
import numpy as np
import pybv
import pytest
from recordings_made import row_of

from remit.recordings.cohort import SheetRow
from remit.recordings.recording import Segment
from remit.recordings.registry import ReaderOptions, read_recording

NAMES = ("TP9", "AF7", "AF8", "TP10")
RATE, SAMPLES = 256.0, 256 * 12
# Whole steps of 0.1 µV: what every one of the formats can hold.
SIGNAL = np.round(np.random.default_rng(0).normal(0, 25, (4, SAMPLES)), 1)
STAMPS = 1_600_000_000 + np.arange(SAMPLES) / RATE


def edf(file: Path, kind: type = edfio.EdfSignal, container: type = edfio.Edf) -> None:
    signals = [
        kind(row, RATE, label=f"EEG {name}-Ref", physical_dimension="uV", physical_range=(-3276.8, 3276.7))
        for name, row in zip(NAMES, SIGNAL, strict=True)
    ]  # fmt: skip
    container(signals, starttime=datetime.time(0), data_record_duration=1).write(file)


def bdf(file: Path) -> None:
    edf(file, edfio.BdfSignal, edfio.Bdf)


def brainvision(file: Path) -> None:
    pybv.write_brainvision(
        data=SIGNAL * 1e-6, sfreq=RATE, ch_names=list(NAMES), fname_base=file.stem,
        folder_out=str(file.parent), fmt="binary_float32", unit="µV",
    )  # fmt: skip


def eeglab(file: Path) -> None:
    eeglabio.raw.export_set(str(file), SIGNAL * 1e-6, RATE, list(NAMES))


def fif(file: Path) -> None:
    raw = mne.io.RawArray(SIGNAL * 1e-6, mne.create_info(list(NAMES), RATE, "eeg"), verbose="error")
    raw.save(file, verbose="error")


def matlab(version: str) -> Callable[[Path], None]:
    def write(file: Path) -> None:
        labels = [{"labels": name} for name in NAMES]
        variables = {"EEG": {"data": SIGNAL.T, "srate": RATE, "chanlocs": tuple(labels)}}
        matlab_made.save(file, version, variables)

    return write


def table(header: str, first: Callable[[int], str], offset: float = 0.0) -> Callable[[Path], None]:
    def write(file: Path) -> None:
        rows = [
            ",".join([first(index), *(f"{value + offset:.1f}" for value in SIGNAL[:, index])])
            for index in range(SAMPLES)
        ]
        text = "\n".join([header, *rows, ""]).encode()
        file.write_bytes(gzip.compress(text) if file.suffix == ".gz" else text)

    return write


def clock(index: int) -> str:
    moment = datetime.datetime.fromtimestamp(STAMPS[index], datetime.UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S.") + f"{moment.microsecond // 1000:03d}"


FORMATS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "EDF": ("one.edf", edf),
    "BDF": ("one.bdf", bdf),
    "BrainVision": ("one.vhdr", brainvision),
    "EEGLAB": ("one.set", eeglab),
    "FIF": ("one_raw.fif", fif),
    "MATLAB 5": ("one5.mat", matlab("5")),
    "MATLAB 7": ("one7.mat", matlab("7")),
    "MATLAB 7.3": ("one73.mat", matlab("7.3")),
    "muse-lsl": ("lsl.csv", table(f"timestamps,{','.join(NAMES)}", lambda i: f"{STAMPS[i]:.3f}")),
    "generic CSV": ("any.csv.gz", table(f"time,{','.join(NAMES)}", lambda i: f"{i / RATE:.6f}")),
    "Mind Monitor": (
        "mind.csv",
        table(f"TimeStamp,{','.join('RAW_' + name for name in NAMES)}", clock, offset=800.0),
    ),
}


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_signal_comes_out(name: str, tmp_path: Path) -> None:
    file_name, write = FORMATS[name]
    file = tmp_path / file_name
    write(file)
    row: SheetRow = row_of(file)
    recording = read_recording(row, ReaderOptions())
    found = recording.pick(NAMES)  # whatever the order in the file
    assert found.sampling_rate == RATE
    assert found.segments == (Segment(0, SAMPLES, 0.0),)
    offset = 800.0 if name == "Mind Monitor" else 0.0
    np.testing.assert_allclose(found.signal_CS, SIGNAL + offset, atol=2e-3)
    assert recording.left_out == ()
    assert len(recording.source_sha256) == 64
