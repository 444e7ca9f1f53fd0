"""A small cohort that went through the signal chain, with what is wrong with it known by hand."""

from pathlib import Path

import numpy as np

from remit.config import Preprocessing
from remit.dataset.primary import build_primary
from remit.dataset.windows import write_windows
from remit.preprocessing.chain import preprocess
from remit.recordings.recording import Recording, Segment

RATE, SECONDS = 128.0, 13.0  # six windows of 2 s, and a second that fills none
FOUR = ("AF7", "AF8", "TP9", "TP10")
CHAIN = Preprocessing.model_validate(
    {
        "sampling_rate": 128.0,
        "window_seconds": 2.0,
        "upsample": None,
        "lowpass": {"cutoff_hz": 40.0, "order": 4},
    }
)


def recording(
    person: str, seed: int, *, channels=FOUR, hz=10.0, size=20.0, flat=(), **fields
) -> Recording:
    """Noise that falls with frequency, a sine at ``hz``, and flat windows (channel, window)."""
    rng = np.random.default_rng(seed)
    samples = int(RATE * SECONDS)
    time_S = np.arange(samples) / RATE
    signal_CS = np.cumsum(rng.normal(0, 1, (len(channels), samples)), axis=1)
    signal_CS += size * np.sin(2 * np.pi * hz * time_S) + 300
    for channel, window in flat:
        signal_CS[channel, int(2 * RATE * window) : int(2 * RATE * (window + 1))] = 7.0
    values = {
        "participant": person,
        "recording": f"{person}_rest",
        "signal_CS": signal_CS.astype(np.float32),
        "sampling_rate": RATE,
        "channels": tuple(channels),
        "segments": (Segment(0, samples, 0.0),),
        "prewindowed": False,
        "simulated": True,
        "source_sha256": person,
        "left_out": (),
        "notes": (),
        "mains_hz": 50.0,
    }
    return Recording(**(values | fields))


def primary(folder: Path, labels, *, chain=CHAIN, channels=FOUR, **of) -> Path:
    """The dataset of some people; ``of`` has what their recordings are given besides."""
    files = []
    for seed, (person, label) in enumerate(labels.items()):
        one = recording(person, seed, channels=channels, **of.get(person, {}))
        file = folder / "windows" / f"{person}.parquet"
        write_windows(
            file,
            preprocess(one, chain),
            recording=one,
            remission=label,
            cohort="made",
            settings={"preprocessing": chain.model_dump(mode="json"), "version": "1"},
        )
        files.append(file)
    out = folder / "primary.parquet"
    build_primary(files, out, cohort="made", channels=list(channels))
    return out


def sheet(folder: Path, labels, columns=None, **of) -> Path:
    """The cohort's sheet; ``of`` has each person's cells of ``columns``."""
    columns = list(columns or ())
    lines = ["\t".join(["participant", "recording", "path", "remission", *columns])]
    for person, label in labels.items():
        cells = [person, f"{person}_rest", f"{person}.edf", "" if label is None else str(label)]
        lines.append("\t".join([*cells, *(of.get(person, [""] * len(columns)))]))
    file = folder / "sheet.tsv"
    file.write_text("\n".join(lines) + "\n")
    return file
