"""What `make bench` measures; the results are written by hand into docs/benchmarks.md.

    python tests/benchmarks/spine.py speed   # demo, rerun, parsing, frozen fine-tuning
    python tests/benchmarks/spine.py real    # the main target on real recordings, with each preset
    python tests/benchmarks/spine.py chain   # what high-pass and notch would have to remove

Everything runs in a new temporary folder (or in --folder, where it goes on from what is there).
Times on a shared machine say little by themselves, so each is given beside a peer of the same run.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.conftest import SHARED_DATA, snakemake  # noqa: E402

MODEL = "mamba2_eeg_d256_l2_m50_mae"
TARGET = f"results/finetuned/{MODEL}_finetuned_best.pt"
DATASET = "8s_af7-af8-tp9-tp10"


def timed(*arguments, cwd, config=None):
    began = time.perf_counter()
    done = snakemake(*arguments, cwd=cwd, config=config, timeout=3600)
    seconds = time.perf_counter() - began
    if done.returncode:
        sys.exit(done.stdout)
    return seconds, done.stdout


def demo(folder: Path) -> None:
    seconds, _ = timed(TARGET, cwd=folder)
    peak = 0.0
    for file in (folder / "results/benchmarks").rglob("*.tsv"):
        with file.open() as stream:
            for row in csv.DictReader(stream, delimiter="\t"):
                peak = max(peak, float(row["max_rss"]) if row["max_rss"] != "-" else 0.0)
    print(f"demo, after installation: {seconds:.0f} s; largest job {peak:.0f} MB")
    again, output = timed(TARGET, cwd=folder)
    print(f"second demo: {again:.1f} s; 'Nothing to be done': {'Nothing to be done' in output}")


def parsing(folder: Path) -> None:
    (folder / "Empty").write_text("rule all:\n    shell: 'true'\n")
    dry, bare = [], []
    for _ in range(5):
        dry.append(timed("-n", TARGET, cwd=folder)[0])
        began = time.perf_counter()
        from tests.conftest import BIN, run

        run(BIN / "snakemake", "-n", "--snakefile", folder / "Empty", "--cores", 1, cwd=folder)
        bare.append(time.perf_counter() - began)
    print(
        f"snakemake -n: median {statistics.median(dry):.2f} s; an empty Snakefile in the same run: "
        f"{statistics.median(bare):.2f} s (ratio {statistics.median(dry) / statistics.median(bare):.2f})"
    )


def frozen(folder: Path) -> None:
    """50 epochs of the head against one pass of the backbone over the cohort."""
    import torch

    from remit.config import Execution, Finetuning, Sequences
    from remit.dataset.sequences import load_sequences
    from remit.dataset.splits import read_split
    from remit.dataset.windows import open_dataset
    from remit.naming import ModelName
    from remit.training import finetune as tuning
    from remit.training.participants import Participants
    from remit.training.runtime import prepare

    name = ModelName.parse(MODEL)
    primary = folder / f"results/primary/{DATASET}_primary_dataset.parquet"
    split_file = folder / f"results/splits/{DATASET}_split.json"
    backbone = folder / f"results/pretrained/{MODEL}.pt"
    content = json.loads(backbone.with_suffix(".json").read_text())
    settings = tuning.FinetuneSettings(
        result_version="bench",
        model=content["settings"]["model"],
        sequences=Sequences(**content["settings"]["sequences"]),
        finetuning=Finetuning(),
    )
    quiet = Execution(device="cpu", mlflow=False)
    prepare(quiet)
    dataset, split = open_dataset(primary), read_split(split_file)
    everyone = [*split.part("train"), *split.part("val"), *split.part("test")]
    passes, wholes, heads = [], [], []
    fit = tuning._fit

    def timed_fit(*args):
        began = time.perf_counter()
        result = fit(*args)
        heads.append(time.perf_counter() - began)
        return result

    tuning._fit = timed_fit
    for _ in range(3):
        _, encoder, _ = tuning.load_backbone(backbone, name, settings, dataset)
        sequences = load_sequences(dataset, everyone, settings.sequences)
        people = Participants(encoder.eval(), sequences, torch.device("cpu"), keep=False)
        began = time.perf_counter()
        people.embeddings(range(len(people)))
        passes.append(time.perf_counter() - began)
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch) / "x_finetuned_best.pt"
            began = time.perf_counter()
            tuning.finetune(
                name=name,
                settings=settings,
                backbone=backbone,
                primary=primary,
                split_file=split_file,
                output=out,
                predictions=out.with_suffix(".parquet"),
                execution=quiet,
                log=lambda line: None,
            )
            wholes.append(time.perf_counter() - began)
    print(
        f"frozen fine-tuning, 50 epochs, embedding train and val included: {min(heads):.2f} s; one pass "
        f"of the backbone over the cohort: {min(passes):.2f} s; ratio of minima "
        f"{min(heads) / min(passes):.2f}; the whole call (reading, testing, writing too): "
        f"{min(wholes) / min(passes):.2f}"
    )


def real(folder: Path) -> None:
    (folder / "shared").mkdir(parents=True, exist_ok=True)
    if not (folder / "shared/data").exists():
        (folder / "shared/data").symlink_to(SHARED_DATA.resolve())
    for preset in ("muse", "eegmat"):
        place = folder / preset
        place.mkdir(exist_ok=True)
        page = f"results/evaluation/{MODEL}_finetuned/report.html"
        seconds, _ = timed(TARGET, page, cwd=place, config=ROOT / f"config/presets/{preset}.yaml")
        card = json.loads((place / TARGET.replace(".pt", ".json")).read_text())
        kept = card["pretrained"]["history"][card["pretrained"]["best_epoch"] - 1]
        print(
            f"{preset}: {seconds:.0f} s; pretraining epoch {card['pretrained']['best_epoch']}, explained "
            f"waveform {kept['held_out_waveform_explained']:+.3f}, "
            f"spectrum {kept['held_out_spectrum_explained']:+.3f}; epoch {card['best_epoch']}"
        )
        for part in ("val", "test"):
            figures = card["metrics"][part]
            shown = ", ".join(
                f"{key} {figures[key]['value']:.2f} [{figures[key]['low']:.2f}, {figures[key]['high']:.2f}]"
                for key in ("auc", "accuracy", "f1")
                if figures[key]["value"] is not None
            )
            print(
                f"  {part}: n {figures['n']} ({figures['n_positive']} in class 1): {shown}; always the "
                f"larger class: {max(figures['prevalence'], 1 - figures['prevalence']):.2f}"
            )


def chain() -> None:
    """Slow drift and mains in the unfiltered Muse recordings, which decide the defaults."""
    import numpy as np
    from scipy.signal import welch

    from remit.config import Preprocessing
    from remit.preprocessing.chain import preprocess
    from remit.recordings.registry import ReaderOptions, read_recording
    from remit.recordings.scan import scan

    root = SHARED_DATA / "muse"
    slow, mains, bad = [], {50: [], 60: []}, {"with": 0, "without": 0}
    for row in scan(root, "folder").rows:
        recording = read_recording(row, ReaderOptions(None, None), root).pick(
            ["AF7", "AF8", "TP9", "TP10"]
        )
        longest = max(recording.segments, key=lambda part: part.stop - part.start)
        signal = recording.signal_CS[:, longest.start : longest.stop].astype(float)
        rate = recording.sampling_rate
        power = np.abs(np.fft.rfft(signal - signal.mean(1, keepdims=True))) ** 2
        hertz = np.fft.rfftfreq(signal.shape[1], 1 / rate)
        slow += list(power[:, hertz < 0.5].sum(1) / power.sum(1))
        hertz, density = welch(signal, rate, nperseg=round(4 * rate))
        for line, found in mains.items():
            near = ((hertz >= line - 6) & (hertz <= line - 3)) | (
                (hertz >= line + 3) & (hertz <= line + 6)
            )
            at = (hertz >= line - 2) & (hertz <= line + 2)
            found += list(10 * np.log10(density[:, at].mean(1) / density[:, near].mean(1)))
        settings = Preprocessing()
        for key, used in (
            ("with", settings),
            ("without", settings.model_copy(update={"highpass": None})),
        ):
            bad[key] += int((~preprocess(recording, used).good).sum())
    print(
        f"{len(slow)} electrodes: variance below 0.5 Hz median {np.median(slow):.3f}, mean "
        f"{np.mean(slow):.3f}, largest {np.max(slow):.3f}"
    )
    for line, found in mains.items():
        low, middle, high = np.percentile(found, [25, 50, 75])
        print(
            f"{line} Hz over its neighbours: median {middle:+.2f} dB (quartiles {low:+.2f}, {high:+.2f}; "
            f"largest {max(found):+.1f})"
        )
    print(f"bad windows with the high-pass {bad['with']}, without {bad['without']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("speed", "real", "chain"), nargs="?", default="speed")
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    if args.what == "chain":
        chain()
        return
    folder = args.folder or Path(tempfile.mkdtemp(prefix="remit-bench-"))
    folder.mkdir(parents=True, exist_ok=True)
    if args.what == "real":
        real(folder)
        return
    demo(folder)
    parsing(folder)
    frozen(folder)


if __name__ == "__main__":
    main()
