"""Corpora: reading, waiting and memory; results go by hand into docs/benchmarks.md.

    python tests/benchmarks/corpora.py            # all of it
    python tests/benchmarks/corpora.py rows       # parquet to token batches, against rows of pandas
    python tests/benchmarks/corpora.py waiting    # the part of an epoch that waits for data, d256 l2
    python tests/benchmarks/corpora.py memory     # peak of a training on a corpus 1, 10, 100 times as large

The corpora are 1/f noise in windows of 8 s at 256 Hz on four channels, three minutes a recording, written as
the workflow writes them but without a signal chain. Each training is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

CHANNELS = ("AF7", "AF8", "TP9", "TP10")
RATE, SAMPLES, WINDOWS = 256.0, 2048, 22  # windows of a recording
RECORDING_MB = 4 * len(CHANNELS) * SAMPLES * WINDOWS / 1e6
POOL_MB = 64.0
ROUNDS = 3


def corpus(file: Path, cohort: str, recordings: int, labelled: bool = False) -> Path:
    """A dataset of one recording for each participant, one row group in memory at a time."""
    import pyarrow as pa

    import remit
    from remit.dataset import windows
    from remit.preprocessing.chain import CHANNEL_QUALITY
    from remit.preprocessing.chain import RESULT_VERSION as CHAIN

    rng = np.random.default_rng([len(cohort), recordings])
    hertz = np.fft.rfftfreq(WINDOWS * SAMPLES, 1 / RATE)
    noise = np.fft.rfft(rng.standard_normal((len(CHANNELS), WINDOWS * SAMPLES)))
    noise *= np.where(hertz < 0.5, 0, 1 / np.sqrt(np.maximum(hertz, 0.5)))
    shared = np.fft.irfft(noise, n=WINDOWS * SAMPLES)
    shared *= 20 / shared.std()
    bare = windows.schema(CHANNELS, SAMPLES)

    def table(number: int) -> pa.Table:
        signal_CS = np.roll(shared, 997 * number, axis=1) * rng.uniform(0.5, 2, (len(CHANNELS), 1))
        signal_CWS = signal_CS.astype(np.float32).reshape(len(CHANNELS), WINDOWS, SAMPLES)
        start = np.arange(WINDOWS) * SAMPLES
        columns = {
            "Participant": [f"{cohort}{number:06d}"] * WINDOWS,
            "Remission": np.full(WINDOWS, number % 2) if labelled else None,
            "recording": [f"{cohort}{number:06d}_r"] * WINDOWS,
            "parent_window_id": np.zeros(WINDOWS),
            "sub_window_id": np.arange(WINDOWS),
            "window_start": start,
            "window_end": start + SAMPLES,
            "worn_fraction": np.ones(WINDOWS),
            "good": np.ones(WINDOWS, bool),
            "bad_because": [""] * WINDOWS,
            **{name: np.zeros((WINDOWS, len(CHANNELS))) for name in CHANNEL_QUALITY},
            **dict(zip(CHANNELS, signal_CWS, strict=True)),
        }
        arrays = [windows._arrow(columns[field.name], field.type, WINDOWS) for field in bare]
        return pa.table(arrays, schema=bare)

    def hashed(made: pa.Table) -> str:
        content = windows.ContentHash(CHANNELS, SAMPLES, RATE)
        content.update(made)
        return content.hexdigest()

    # Hashes stand in the metadata, which comes first: so made twice, with the same numbers.
    state = rng.bit_generator.state
    hashes = [hashed(table(number)) for number in range(recordings)]
    rng.bit_generator.state = state
    metadata = {
        "sampling_rate": RATE,
        "units": windows.UNITS,
        "channels": list(CHANNELS),
        "window_samples": SAMPLES,
        "cohort": cohort,
        "dataset": "8s_af7-af8-tp9-tp10",
        "windows": recordings * WINDOWS,
        "simulated": True,
        "settings": {},
        "sources": {
            f"{cohort}{number:06d}_r": {
                "participant": f"{cohort}{number:06d}",
                "sha256": "",
                "signal_sha256": f"{cohort}-{number}",
                "samples_sha256": f"{cohort}-{number}",
                "sketch": [],
            }
            for number in range(recordings)
        },
        "content_sha256": windows.combined_hash(
            {(f"{cohort}{n:06d}", f"{cohort}{n:06d}_r"): digest for n, digest in enumerate(hashes)}
        ),
        "remit_version": remit.__version__,
        "result_version": {"preprocessing": CHAIN},
    }
    whole = bare.with_metadata(windows.encode_metadata(metadata))
    together = windows.rows_per_group(CHANNELS, SAMPLES) // WINDOWS
    with windows.ParquetWriter(file, whole, CHANNELS) as writer:
        for first in range(0, recordings, together):
            numbers = range(first, min(first + together, recordings))
            writer.write(pa.concat_tables([table(number).cast(whole) for number in numbers]))
    return file


def study(folder: Path, recordings: int) -> tuple[Path, Path]:
    """A labelled cohort and its split."""
    from remit.config import Split
    from remit.dataset.splits import make_split, write_split
    from remit.dataset.windows import open_dataset

    primary = corpus(folder / "primary.parquet", "main", recordings, labelled=True)
    data = open_dataset(primary)
    content = data.metadata["content_sha256"]
    split = make_split(
        data.labels, Split(), dataset="bench", content_sha256=content, simulated=True
    )
    write_split(folder / "split.json", split)
    return primary, folder / "split.json"


# From parquet to token batches ------------------------------------------------------------------


def by_pandas(file: Path, steps: int, context: int, batch: int) -> list[np.ndarray]:
    """As research code reads: one row after another."""
    import pandas as pd

    frame = pd.read_parquet(file)
    sequences, chain = [], []
    for _, rows in frame.groupby("recording", sort=False):
        signal = {name: np.concatenate(rows[name].to_list()) for name in CHANNELS}
        quartiles = {name: np.percentile(signal[name], [25, 50, 75]) for name in CHANNELS}
        for _, row in rows.iterrows():
            scaled = [
                np.clip(
                    (row[name] - quartiles[name][1])
                    / max((quartiles[name][2] - quartiles[name][0]) / 1.3489795, 0.1),
                    -15,
                    15,
                )
                for name in CHANNELS
            ]
            tokens = np.stack(scaled).reshape(len(CHANNELS), steps, -1).transpose(1, 0, 2)
            chain.append(tokens.astype(np.float32))
            if len(chain) == context:
                sequences.append(np.concatenate(chain))
                chain = []
    return [np.stack(sequences[n : n + batch]) for n in range(0, len(sequences), batch)]


def rows(folder: Path) -> None:
    """The same scaled token batches, in order; remit's with and without verifying the file.

    Processor time, one thread of torch: on a busy machine the clock says nothing.
    """
    import torch

    from remit.config import Sequences
    from remit.dataset.corpus import Corpora, Part, SignalMemory
    from remit.dataset.windows import open_dataset

    torch.set_num_threads(1)
    file = corpus(folder / "rows.parquet", "main", 128)
    settings, batch = Sequences(), 16

    def by_remit(data) -> list[np.ndarray]:
        made = Corpora([Part(data, data.participants, settings)], SignalMemory(1e9))
        for _ in made.scan():
            pass
        order = made.in_order()
        return [
            order.read(np.arange(first, min(first + batch, len(order))))[0].samples_BKCS.numpy()
            for first in range(0, len(order), batch)
        ]

    times: dict[str, list[float]] = {"verify": [], "remit": [], "pandas": []}
    for _ in range(ROUNDS):
        began = time.process_time()
        data = open_dataset(file)
        times["verify"].append(time.process_time() - began)
        began = time.process_time()
        ours = by_remit(data)
        times["remit"].append(time.process_time() - began)
        began = time.process_time()
        steps = round(SAMPLES / RATE / settings.token_seconds)
        theirs = by_pandas(file, steps, settings.context_windows, batch)
        times["pandas"].append(time.process_time() - began)
    worst = max(float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True))
    assert worst < 1e-4, worst
    verify, remit, pandas = (float(np.median(times[key])) for key in times)
    print(
        f"{128 * RECORDING_MB:.0f} MB of signal to token batches: remit {remit:.2f} s, pandas rows "
        f"{pandas:.2f} s ({pandas / remit:.1f} x; largest difference {worst:.0e}); with the verification "
        f"of the file, {verify:.2f} s, {pandas / (remit + verify):.1f} x"
    )


# Trainings --------------------------------------------------------------------------------------


def child(folder: Path, corpora: list[str], options: dict) -> None:
    """One training; prints what took how long, and the largest memory."""
    from remit.config import Execution, Model, Pretraining, Sequences
    from remit.dataset.corpus import Corpora, Epoch
    from remit.naming import ModelName
    from remit.training import corpora as room
    from remit.training import pretrain

    name = ModelName.parse(options.pop("name"))
    inner = {"d_model", "num_layers", "mask_percent", "masking_style"}
    model = Model(**options.pop("model", {})).model_dump(exclude=inner)
    sequences = Sequences(**options.pop("sequences", {}))
    spent: dict[str, float] = {}

    def timed(owner, what: str) -> None:
        original = getattr(owner, what)

        def call(*given, **named):
            began = time.perf_counter()
            try:
                return original(*given, **named)
            finally:
                spent[what] = spent.get(what, 0.0) + time.perf_counter() - began

        setattr(owner, what, call)

    timed(room, "open_dataset")
    timed(Corpora, "epoch")
    timed(Epoch, "read")
    timed(pretrain, "masked_batches")
    timed(pretrain, "_fit")
    original = pretrain._evaluate

    def evaluate(*given):
        before = dict(spent)
        began = time.perf_counter()
        found = original(*given)
        spent.update({key: before[key] for key in ("read", "masked_batches")})
        spent["evaluate"] = time.perf_counter() - began
        return found

    pretrain._evaluate = evaluate
    pretrain.pretrain(
        name=name,
        settings=pretrain.PretrainSettings(
            result_version="bench",
            model={"d_model": name.d_model, "num_layers": name.num_layers, **model},
            sequences=sequences,
            pretraining=Pretraining(**options),
        ),
        primary=folder / "primary.parquet",
        split_file=folder / "split.json",
        corpora=[Path(file) for file in corpora],
        output=folder / f"{name}.pt",
        execution=Execution(device="cpu", mlflow=False, save_minutes=600, training_threads=2),
        log=lambda line: print(line, file=sys.stderr),
    )
    print(
        json.dumps(spent | {"mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6})
    )


def training(folder: Path, corpora: list[Path], **options) -> dict:
    given = json.dumps({"corpora": [str(file) for file in corpora], **options})
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, "--child", given, "--folder", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def waiting(folder: Path) -> None:
    """Two pools, so that an epoch reads while it trains."""
    study(folder, 20)
    extra = corpus(folder / "extra.parquet", "more", 120)
    for pool in (POOL_MB / 4, 1024):
        found = training(
            folder, [extra], name="mamba2_eeg_d256_l2_m20_mae", epochs=1, shuffle_mb=pool
        )
        epoch = found["_fit"] - found["evaluate"]
        data = found["read"] + found["masked_batches"] + found["epoch"]
        print(
            f"an epoch of d256 l2 over {136 * RECORDING_MB:.0f} MB, pools of {pool:g} MB: {epoch:.0f} s, of "
            f"which waiting for data {data:.2f} s: {100 * data / epoch:.1f} % (reading "
            f"{found['read']:.2f} s, masks {found['masked_batches']:.2f} s)"
        )


def memory(folder: Path) -> None:
    """A small model on tokens of whole windows, for what counts is the passes over the data."""
    study(folder, 20)
    first = None
    fill = round(0.8 * POOL_MB / RECORDING_MB)  # the study is in the pool too
    for times in (1, 10, 100):
        file = corpus(folder / f"times{times}.parquet", "more", times * fill)
        found = training(
            folder, [file], name="mamba2_eeg_d8_l1_m20_mae", epochs=1, batch_size=64,
            shuffle_mb=POOL_MB, model={"d_state": 8, "headdim": 8},
            sequences={"token_seconds": 8.0, "context_windows": 2}, block_seconds=[8.0, 8.0],
        )  # fmt: skip
        first = first or found["mb"]
        print(
            f"{times} x: {times * fill * RECORDING_MB:.0f} MB of signal, "
            f"{file.stat().st_size / 1e6:.0f} MB of file: peak {found['mb']:.0f} MB "
            f"({found['mb'] / first:.3f} of the first); verified in {found['open_dataset']:.1f} s, "
            f"trained in {found['_fit']:.1f} s",
            flush=True,
        )
        file.unlink()


def main() -> None:
    parts = {f.__name__: f for f in (rows, waiting, memory)}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*parts, []], help="all when none is given")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        options = json.loads(args.child)
        child(args.folder, options.pop("corpora"), options)
        return
    for name in args.parts or parts:
        with tempfile.TemporaryDirectory() as folder:
            parts[name](Path(folder))


if __name__ == "__main__":
    main()
