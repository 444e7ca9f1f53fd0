"""From file to parquet, side by side with MNE and pandas; results go by hand into docs/benchmarks.md.

    python tests/benchmarks/reading.py            # all of it
    python tests/benchmarks/reading.py dense      # an hour of 64 channels at 500 Hz
    python tests/benchmarks/reading.py muse       # real Muse recordings
    python tests/benchmarks/reading.py filters    # what both leave of sines, inside and outside the band
    python tests/benchmarks/reading.py parsing    # CSV alone, against pandas
    python tests/benchmarks/reading.py start      # one process for one short recording

Each measurement is a process of its own; remit's and MNE's take turns, so that a busy machine is
busy for both. MNE's chain is `tests/benchmarks/mne_chain.py`: with the same Butterworth filters
('iir', without upsampling), or with its own defaults ('fir'), which are compared with filters of
higher order here: what is compared must not be worse.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.conftest import BIN, SHARED_DATA  # noqa: E402

MNE_CHAIN = Path(__file__).with_name("mne_chain.py")
CHAINS = {
    "iir": {"upsample": None},
    "fir": {
        "highpass": {"cutoff_hz": 0.5, "order": 4},
        "lowpass": {"cutoff_hz": 60.0, "order": 12},
    },
}
ROUNDS = 3
# Another interpreter, for instance with an older pandas, to compare the parsing with.
OTHER_PYTHON = os.environ.get("REMIT_BENCH_PYTHON")


def channels_of_a_cap() -> list[str]:
    import mne

    from remit.recordings.channels import canonical

    return [canonical(name) for name in mne.channels.make_standard_montage("biosemi64").ch_names]


def dense_recording(file: Path, seconds: int = 3600, rate: int = 500) -> list[str]:
    """64 channels of correlated 1/f noise."""
    import edfio
    import numpy as np

    rng = np.random.default_rng(0)
    spectrum = np.fft.rfft(rng.standard_normal(seconds * rate))
    spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 1))
    shared = np.fft.irfft(spectrum)
    shared *= 20 / shared.std()
    names = channels_of_a_cap()
    edfio.Edf(
        [
            edfio.EdfSignal(
                np.roll(shared, 997 * i) + 5 * rng.standard_normal(len(shared)),
                rate,
                label=f"EEG {name}",
                physical_dimension="uV",
                physical_range=(-400, 400),
            )
            for i, name in enumerate(names)
        ]
    ).write(file)
    return names


def settings_file(folder: Path, channels: list[str], **preprocessing) -> Path:
    from remit.config import Preprocessing

    settings = {
        "result_version": "bench",
        "cohort": "bench",
        "participant": "p",
        "recording": "r",
        "entry": None,
        "remission": None,
        "sampling_rate": None,
        "channel_names": None,
        "units": None,
        "allow_truncated": False,
        "channels": channels,
        "preprocessing": Preprocessing(**preprocessing).model_dump(mode="json"),
    }
    file = folder / "settings.json"
    file.write_text(json.dumps(settings))
    return file


def measured(*command) -> tuple[float, float]:
    """Seconds and peak memory in GB of a process."""
    began = time.perf_counter()
    with subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE) as process:
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status
    if status:
        sys.exit(f"{command} failed: {output.decode()}")
    return time.perf_counter() - began, usage.ru_maxrss / 2**20


def remit_windows(settings: Path, source: Path, output: Path) -> tuple[float, float]:
    return measured(
        BIN / "remit", "windows", "--settings", f"@{settings}", f"--input={source}",
        "--output", output,
    )  # fmt: skip


def mne_windows(source: Path, output: Path, kind: str) -> tuple[float, float]:
    return measured(sys.executable, "-W", "ignore", MNE_CHAIN, source, output, kind)


def against(name: str, folder: Path, source: Path, channels: list[str]) -> None:
    for kind, changes in CHAINS.items():
        settings = settings_file(folder, channels, notch=None, **changes)
        ours, theirs = [], []
        for _ in range(ROUNDS):
            ours.append(remit_windows(settings, source, folder / "ours.parquet"))
            theirs.append(mne_windows(source, folder / "theirs.parquet", kind))
        mine, other = (statistics.median(s for s, _ in runs) for runs in (ours, theirs))
        print(
            f"{name}, MNE {kind}: remit {mine:.2f} s, {max(m for _, m in ours):.2f} GB; "
            f"MNE {other:.2f} s, {max(m for _, m in theirs):.2f} GB; throughput {other / mine:.1f} x"
        )


def dense(folder: Path) -> None:
    source = folder / "dense.edf"
    channels = dense_recording(source)
    print(f"an hour of 64 channels at 500 Hz: {source.stat().st_size / 1e6:.0f} MB")
    against("64 channels", folder, source, channels)


def muse(folder: Path) -> None:
    """One file in a process of its own, and 17 one after another in this one."""
    from remit.cli import main as remit
    from tests.benchmarks.mne_chain import main as mne_chain

    sources = sorted((SHARED_DATA / "muse").glob("subject*/*.csv"))
    channels = ["TP9", "AF7", "AF8", "TP10"]
    against("one Muse CSV, a process", folder, sources[0], channels)
    settings = settings_file(folder, channels, notch=None, **CHAINS["iir"])
    ours, theirs = [], []
    for _ in range(ROUNDS + 1):  # the first round imports
        began = time.perf_counter()
        for source in sources:
            out = str(folder / "ours.parquet")
            with contextlib.redirect_stdout(io.StringIO()):
                remit(
                    ["windows", "--settings", f"@{settings}", f"--input={source}", "--output", out]
                )
        half = time.perf_counter()
        for source in sources:
            mne_chain(str(source), str(folder / "theirs.parquet"), "iir")
        ours.append(half - began)
        theirs.append(time.perf_counter() - half)
    mine, other = statistics.median(ours[1:]), statistics.median(theirs[1:])
    print(
        f"{len(sources)} Muse CSVs in one process, MNE iir: remit {mine:.2f} s, MNE {other:.2f} s; "
        f"throughput {other / mine:.1f} x"
    )


def filters(folder: Path) -> None:
    """Sines of 20 µV, one frequency for each channel; the rms of what is left, over 20 s inside."""
    import edfio
    import numpy as np
    import pyarrow.parquet as pq

    rate, seconds = 500, 96
    inside = [2.0, 5.0, 10.0, 20.0, 30.0, 40.0, 45.0]
    outside = [0.05, 0.1, 100.0, 128.0, 140.0, 160.0, 200.0, 230.0, 249.0]
    names = channels_of_a_cap()[: len(inside) + len(outside)]
    time_S = np.arange(rate * seconds) / rate
    source = folder / "sines.edf"
    edfio.Edf(
        [
            edfio.EdfSignal(
                20 * np.sin(2 * np.pi * hertz * time_S + 0.3), rate, label=f"EEG {name}",
                physical_dimension="uV", physical_range=(-30, 30),
            )
            for name, hertz in zip(names, inside + outside, strict=True)
        ]
    ).write(source)  # fmt: skip
    for kind, changes in CHAINS.items():
        settings = settings_file(folder, names, notch=None, offset=None, **changes)
        remit_windows(settings, source, folder / "ours.parquet")
        mne_windows(source, folder / "theirs.parquet", kind)
        for who in ("ours", "theirs"):
            table = pq.read_table(folder / f"{who}.parquet", columns=names)
            gain = {}
            for name, hertz in zip(names, inside + outside, strict=True):
                values = np.concatenate(table.column(name).to_numpy()[4:-4])
                gain[hertz] = 20 * np.log10(np.sqrt(2) * values.std() / 20 + 1e-9)
            ripple = max(abs(gain[hertz]) for hertz in inside)
            high = max(gain[hertz] for hertz in outside if hertz > 1)
            low = max(gain[hertz] for hertz in outside if hertz < 1)
            print(
                f"MNE {kind}, {who}: largest deviation at 2-45 Hz {ripple:.3f} dB; "
                f"most that is left at 100-249 Hz {high:.1f} dB, at 0.05-0.1 Hz {low:.1f} dB; "
                + ", ".join(f"{hertz:g} Hz {gain[hertz]:.1f}" for hertz in outside)
            )


PARSE = """
import statistics, sys, time
import pandas as pd
times = []
for _ in range(15):
    began = time.perf_counter()
    pd.read_csv(sys.argv[1])
    times.append(time.perf_counter() - began)
print(pd.__version__, statistics.median(times))
"""


def parsing(folder: Path) -> None:
    """Parsing alone: remit's table against pandas' default reader, and another pandas if asked."""
    import pandas as pd

    from remit.recordings import table

    source = sorted((SHARED_DATA / "muse").glob("subject*/*.csv"))[0]
    long = folder / "long.csv"
    header, body = source.read_bytes().split(b"\n", 1)
    long.write_bytes(header + b"\n" + body * 15)
    names = table.cells(table.head(source)[0])
    wanted: dict[int, table.Kind] = {0: "number", **dict.fromkeys(range(1, 5), "sample")}
    for name, file in (("4 minutes", source), ("an hour", long)):
        calls = {
            "pandas": lambda file=file: pd.read_csv(file),
            "remit": lambda file=file: table.columns(table.load(file), names, wanted),
        }
        times: dict[str, list[float]] = {key: [] for key in calls}
        for _ in range(15):
            for key, call in calls.items():
                began = time.perf_counter()
                call()
                times[key].append(time.perf_counter() - began)
        pandas, remit = (statistics.median(values) for values in times.values())
        print(
            f"{name} of Muse CSV, {file.stat().st_size / 1e6:.1f} MB: remit {1e3 * remit:.1f} ms, "
            f"pandas {pd.__version__} {1e3 * pandas:.1f} ms ({pandas / remit:.1f} x)"
        )
        if OTHER_PYTHON:
            done = subprocess.run(
                [OTHER_PYTHON, "-c", PARSE, file], capture_output=True, text=True, check=True
            )
            version, seconds = done.stdout.split()
            other = float(seconds)
            print(f"    pandas {version} {1e3 * other:.1f} ms ({other / remit:.1f} x)")


def start(folder: Path) -> None:
    source = sorted((SHARED_DATA / "muse").glob("subject*/*.csv"))[0]
    short = folder / "short.csv"
    short.write_text("".join(source.read_text().splitlines(keepends=True)[: 256 * 60]))
    edf = folder / "short.edf"
    dense_recording(edf, seconds=60)
    times: dict[str, list[float]] = {"Muse CSV": [], "EDF": [], "import mne, pandas": []}
    for _ in range(7):
        for name, file, channels in (
            ("Muse CSV", short, ["TP9", "AF7", "AF8", "TP10"]),
            ("EDF", edf, ["AF7", "AF8", "TP7", "TP8"]),
        ):
            settings = settings_file(folder, channels)
            times[name].append(remit_windows(settings, file, folder / "short.parquet")[0])
        bare = "import mne, pandas; mne.io.read_raw_edf"
        times["import mne, pandas"].append(measured(sys.executable, "-c", bare)[0])
    for name, values in times.items():
        print(f"process for a minute of {name}: median {statistics.median(values):.2f} s")


def main() -> None:
    parts = {f.__name__: f for f in (dense, muse, filters, parsing, start)}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*parts, []], help="all when none is given")
    chosen = parser.parse_args().parts or list(parts)
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen:
            parts[name](Path(folder))
    print(
        f"largest process: {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20:.2f} GB"
    )


if __name__ == "__main__":
    main()
