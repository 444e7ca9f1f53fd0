"""Corpora: reading, waiting and memory; results go by hand into docs/benchmarks.md.

    python tests/benchmarks/corpora.py            # all of it
    python tests/benchmarks/corpora.py rows       # parquet to token batches, against rows of pandas
    python tests/benchmarks/corpora.py waiting    # the part of an epoch that waits for data, d256 l2
    python tests/benchmarks/corpora.py memory     # peak of whole passes, corpora of 1, 10, 100 times
    python tests/benchmarks/corpora.py memory --samples 128  # as many sequences, a sixteenth of the signal

The corpora are 1/f noise in windows of 8 s at 256 Hz on four channels, three minutes a recording, written as
the workflow writes them but without a signal chain. Each training is a process of its
own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

CHANNELS = ("AF7", "AF8", "TP9", "TP10")
RATE, SAMPLES, WINDOWS = 256.0, 2048, 22  # windows of a recording
RECORDING_MB = 4 * len(CHANNELS) * SAMPLES * WINDOWS / 1e6
FULL = 93  # recordings that fill a row group
POOL_MB = 70.0  # holds a row group, and hardly more
STEPS = 20  # of training in a pass that measures memory
EPOCHS = 40  # the default
ROUNDS = 3


def shrink(samples: int) -> None:
    """Windows of fewer samples; row groups and pools of as many windows as before."""
    global SAMPLES, RECORDING_MB, POOL_MB
    from remit.dataset import windows

    part = samples / SAMPLES
    SAMPLES, RECORDING_MB, POOL_MB = samples, RECORDING_MB * part, POOL_MB * part
    windows.ROW_GROUP_BYTES = round(windows.ROW_GROUP_BYTES * part)


def corpus(file: Path, cohort: str, recordings: int, labelled: bool = False) -> Path:
    """A dataset of one recording for each participant, one row group in memory at a time."""
    import pyarrow as pa

    import remit
    from remit.dataset import windows
    from remit.dataset.sketches import VALUES
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
    # As many values as a real recording's has, and no two alike.
    apart = np.random.default_rng([len(cohort), recordings, 1])
    sketches = {
        name: np.sort(apart.integers(0, 2**63, VALUES).astype(np.uint64))
        for name in metadata["sources"]
    }
    with windows.ParquetWriter(file, whole, CHANNELS, sketches) as writer:
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


def rows_of_pandas(file: Path, steps: int, context: int) -> torch.utils.data.Dataset:
    """As research code reads: a data frame, of which one row after another is scaled and cut."""
    import pandas as pd
    import torch

    class Rows(torch.utils.data.Dataset):
        def __init__(self) -> None:
            self.frame = pd.read_parquet(file)
            self.scale, self.sequences = {}, []
            for name, rows in self.frame.groupby("recording", sort=False):
                signal = np.stack([np.concatenate(rows[name].to_list()) for name in CHANNELS])
                low, middle, high = np.percentile(signal, [25, 50, 75], axis=1, keepdims=True)
                self.scale[name] = middle, np.maximum((high - low) / 1.3489795, 0.1)
                its = rows.index.to_numpy()
                self.sequences += [its[n : n + context] for n in range(0, len(its), context)]

        def __len__(self) -> int:
            return len(self.sequences)

        def __getitem__(self, number: int) -> torch.Tensor:
            tokens = []
            for index in self.sequences[number]:
                row = self.frame.iloc[index]
                middle, scale = self.scale[row["recording"]]
                signal = (np.stack([row[name] for name in CHANNELS]) - middle) / scale
                signal = np.clip(signal, -15, 15).astype(np.float32)
                tokens.append(signal.reshape(len(CHANNELS), steps, -1).transpose(1, 0, 2))
            return torch.from_numpy(np.concatenate(tokens))

    return Rows()


def rows(folder: Path) -> None:
    """The same scaled token batches. One thread of torch, no worker processes on either side."""
    import torch

    from remit.config import Pretraining, Sequences
    from remit.dataset.corpus import Corpora, Epoch, Part, SignalMemory
    from remit.dataset.windows import WindowsFile, open_dataset

    torch.set_num_threads(1)
    file = corpus(folder / "rows.parquet", "main", FULL)
    settings, batch = Sequences(), Pretraining().batch_size
    steps = round(SAMPLES / RATE / settings.token_seconds)

    def load(data: WindowsFile) -> Corpora:
        made = Corpora([Part(data, data.participants, settings)], SignalMemory(1e9))
        for _ in made.scan():
            pass
        return made

    def batches(order: Epoch) -> Iterator[torch.Tensor]:
        for first in range(0, len(order), batch):
            (read,) = order.read(np.arange(first, min(first + batch, len(order))))
            yield read.samples_BKCS

    def through(made: Iterable[torch.Tensor], sequences: int) -> None:
        assert sum(len(one) for one in made) == sequences

    seconds: dict[str, list[tuple[float, float]]] = {}

    def timed(what: str, action: Callable[..., Any], *given: Any) -> Any:
        clock, cpu = time.perf_counter(), time.process_time()
        found = action(*given)
        took = time.perf_counter() - clock, time.process_time() - cpu
        seconds.setdefault(what, []).append(took)
        return found

    loader = partial(torch.utils.data.DataLoader, batch_size=batch)
    for number in range(ROUNDS):
        data = timed("verifying", open_dataset, file)
        ours = timed("remit, loading", load, data)
        theirs = timed("pandas, loading", rows_of_pandas, file, steps, settings.context_windows)
        if number == 0:
            pairs = zip(batches(ours.in_order()), loader(theirs), strict=True)
            worst = max(float((a - b).abs().max()) for a, b in pairs)
            assert worst < 1e-4, worst
        for epoch in range(2):
            order = ours.epoch((number, epoch))
            timed("remit, an epoch", through, batches(order), len(ours))
            timed("pandas, an epoch", through, loader(theirs, shuffle=True), len(ours))
    for place, clock in enumerate(("wall", "processor")):
        took = {
            what: float(np.median([one[place] for one in all_])) for what, all_ in seconds.items()
        }
        line = []
        for what, epochs in (("first pass", 1), ("later pass", 0), (f"{EPOCHS} epochs", EPOCHS)):
            remit, pandas = (
                took[f"{who}, loading"] * min(epochs, 1) + took[f"{who}, an epoch"] * max(epochs, 1)
                for who in ("remit", "pandas")
            )
            line.append(f"{what} {remit:.3f} against {pandas:.3f} s: {pandas / remit:.1f} x")
        print(
            f"{FULL * RECORDING_MB:.0f} MB of signal to token batches of {batch}, {clock} time: "
            f"{'; '.join(line)}; verifying the file once {took['verifying']:.2f} s; largest "
            f"difference {worst:.0e}",
            flush=True,
        )


# Trainings --------------------------------------------------------------------------------------


def training(folder: Path, corpora: list[str], options: dict) -> None:
    """One training; prints what took how long, and the largest memory."""
    from remit.config import Execution, Model, Pretraining, Sequences
    from remit.dataset.corpus import Corpora, Epoch
    from remit.naming import ModelName
    from remit.training import corpora as room
    from remit.training import pretrain

    name = ModelName.parse(options.pop("name"))
    options.setdefault("least_steps", 1)
    inner = {"d_model", "num_layers", "mask_percent", "masking_style"}
    model = Model(**options.pop("model", {})).model_dump(exclude=inner)
    sequences = Sequences(**options.pop("sequences", {}))
    spent: dict[str, float] = {}
    busy: dict[str, float] = {}  # processor time

    def timed(owner, what: str) -> None:
        original = getattr(owner, what)

        def call(*given, **named):
            began, cpu = time.perf_counter(), time.process_time()
            try:
                return original(*given, **named)
            finally:
                spent[what] = spent.get(what, 0.0) + time.perf_counter() - began
                busy[what] = busy.get(what, 0.0) + time.process_time() - cpu

        setattr(owner, what, call)

    timed(room, "open_dataset")
    timed(Corpora, "epoch")
    timed(Epoch, "read")
    timed(pretrain, "augmented")
    timed(pretrain, "masked_batches")
    timed(pretrain, "_fit")
    timed(pretrain, "_evaluate")
    original = pretrain._evaluate

    def evaluate(*given):
        before = dict(spent), dict(busy)
        found = original(*given)
        for now, then in zip((spent, busy), before, strict=True):
            now.update({key: then[key] for key in ("read", "masked_batches")})
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
    print(json.dumps({"wall": spent, "processor": busy}))


def passes(folder: Path, corpora: list[str], options: dict) -> None:
    """All that a training reads, and a few of its steps; prints times and the largest memory.

    The corpora are verified, scanned for the spectrum's statistics and read in batches for an epoch, with
    random changes and masks. Steps are spread evenly over the epoch, as many for every corpus.
    """
    import torch

    from remit.config import Pretraining, Sequences
    from remit.dataset.splits import read_split
    from remit.dataset.windows import open_dataset
    from remit.naming import ModelName
    from remit.nn.encoder import EncoderSettings
    from remit.training import corpora as room
    from remit.training import pretrain
    from remit.training.data import build_encoder

    began = time.perf_counter()
    seconds = {}

    def passed(what: str) -> None:
        nonlocal began
        seconds[what], began = time.perf_counter() - began, time.perf_counter()

    torch.set_num_threads(2)
    settings = Pretraining(shuffle_mb=POOL_MB, least_steps=1, epochs=1)
    primary = open_dataset(folder / "primary.parquet")
    files = room.open_corpora([Path(file) for file in corpora], primary)
    passed("verified")
    people = read_split(folder / "split.json").part("train")
    train, _ = room.index_corpora(primary, files, people[1:], people[:1], Sequences(), settings)
    encoder, _ = build_encoder(
        EncoderSettings(32, 1, train.samples_per_token, d_state=16, headdim=16), CHANNELS
    )
    model = pretrain.Reconstruction(encoder, settings, ModelName(32, 1, 20, "mae"), RATE)
    model.spectrum.fit(train.scan())
    passed("scanned")
    optimiser = torch.optim.AdamW(pretrain.parameter_groups(model, settings.weight_decay))
    order = train.epoch((settings.seed, 1))
    starts = range(0, len(order), settings.batch_size)
    every = len(starts) // STEPS
    for number, first in enumerate(starts):
        reads = order.read(np.arange(first, min(first + settings.batch_size, len(order))))
        reads = [pretrain.augmented(read, settings, (settings.seed, 2)) for read in reads]
        electrodes = {read.channels: None for read in reads}
        mine = pretrain.masked_batches(
            model, reads, electrodes, (settings.seed, 3), torch.device("cpu")
        )
        if number % every == 0:
            count = sum(batch.masked_BKC.sum() for batch in mine)
            pretrain.accumulate(model, mine, count, settings.batch_size)
            optimiser.step()
    passed("read")
    mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(json.dumps(seconds | {"mb": mb, "row_groups": len(files[0].group_ends)}))


def in_a_process(part: str, folder: Path, corpora: list[Path], **options) -> dict:
    given = json.dumps({"part": part, "corpora": [str(file) for file in corpora], **options})
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", __file__),
            *("--child", given, "--folder", folder, "--samples", str(SAMPLES)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def waiting(folder: Path) -> None:
    """One pool, and several, so that an epoch reads while it trains.

    On a busy machine a step of two threads waits for processors, which flatters the data; so also by
    processor time, as if a step shared its own out over two cores evenly and data used one.
    """
    study(folder, 20)
    extra = corpus(folder / "extra.parquet", "more", 40)
    for pool in (1024, 16):
        found = in_a_process(
            "training",
            folder,
            [extra],
            name="mamba2_eeg_d256_l2_m20_mae",
            epochs=1,
            shuffle_mb=pool,
        )
        line = []
        for clock, cores in (("wall", 1), ("processor", 2)):
            took = found[clock]
            data = sum(took[key] for key in ("read", "augmented", "masked_batches", "epoch"))
            epoch = data + (took["_fit"] - took["_evaluate"] - data) / cores
            line.append(
                f"by {clock} time {data:.2f} of {epoch:.0f} s: {100 * data / epoch:.1f} % (reading "
                f"{took['read']:.2f}, random changes {took['augmented']:.2f}, masks "
                f"{took['masked_batches']:.2f} s)"
            )
        print(
            f"an epoch of d256 l2, pools of {pool:g} MB, waiting for data {'; '.join(line)}",
            flush=True,
        )


def memory(folder: Path) -> None:
    study(folder, 20)
    first = None
    for times in (1, 10, 100):
        file = corpus(folder / f"times{times}.parquet", "more", times * FULL)
        found = in_a_process("passes", folder, [file])
        first = first or found["mb"]
        megabytes = times * FULL * RECORDING_MB
        print(
            f"{times} x: {megabytes:.0f} MB of signal in {found['row_groups']} row groups, "
            f"{file.stat().st_size / 1e6:.0f} MB of file: peak {found['mb']:.0f} MB "
            f"({found['mb'] / first:.3f} of the first); verified in {found['verified']:.1f} s "
            f"({megabytes / found['verified']:.0f} MB/s), scanned in {found['scanned']:.1f} s, read in "
            f"{found['read']:.1f} s with {STEPS} steps",
            flush=True,
        )
        file.unlink()


def main() -> None:
    parts = {f.__name__: f for f in (rows, waiting, memory)}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*parts, []], help="all when none is given")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--samples", type=int, default=SAMPLES, help="of a window")
    args = parser.parse_args()
    shrink(args.samples)
    if args.child:
        options = json.loads(args.child)
        part = {f.__name__: f for f in (training, passes)}[options.pop("part")]
        part(args.folder, options.pop("corpora"), options)
        return
    for name in args.parts or parts:
        with tempfile.TemporaryDirectory() as folder:
            parts[name](Path(folder))


if __name__ == "__main__":
    main()
