"""How far it goes, by simulation; figures go by hand into docs/scaling.md.

    python tests/benchmarks/scale.py              # all of it
    python tests/benchmarks/scale.py plan         # planning 10,000 recordings x 14 models
    python tests/benchmarks/scale.py again        # a rerun of 1,000 recordings that finds nothing to do
    python tests/benchmarks/scale.py primary      # the primary dataset of 10, 100 and 1,000 recordings

Recordings are empty files where only plans are made. Each call is a process of its own, and beside it
stands a bare Snakefile of the same jobs: the seconds of a busy machine say little, their ratio more.
Processor seconds are those of the process and its children.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.conftest import BIN  # noqa: E402

MODELS = [f"mamba2_eeg_d256_l2_m{m}_{s}" for s in ("mae", "bert") for m in range(20, 90, 10)]
# The same jobs and files with nothing of remit: what Snakemake itself takes.
BARE = """
NAMES = [f"p{n:05d}_rest" for n in range(RECORDINGS)]
MODELS = MODEL_NAMES

rule sweep:
    input: expand("results/finetuned/{model}.pt", model=MODELS)
rule sheet:
    input: "sheet.tsv"
    output: "results/sheet.tsv"
    shell: "true"
rule windows:
    input: "raw/{recording}.edf"
    output: "results/windows/{recording}.parquet"
    log: "results/logs/windows/{recording}.log"
    shell: "true"
rule primary:
    input: "results/sheet.tsv", expand("results/windows/{recording}.parquet", recording=NAMES)
    output: "results/primary.parquet"
    shell: "true"
rule split:
    input: "results/primary.parquet"
    output: "results/split.json"
    shell: "true"
rule pretrain:
    input: "results/primary.parquet", "results/split.json"
    output: "results/pretrained/{model}.pt"
    shell: "true"
rule finetune:
    input: "results/pretrained/{model}.pt", "results/primary.parquet", "results/split.json"
    output: "results/finetuned/{model}.pt"
    shell: "true"
"""


@dataclass
class Cost:
    """Of one process and its children: wall seconds, processor seconds, peak memory in MB."""

    wall: float
    cpu: float
    peak: float
    output: str

    def __str__(self) -> str:
        return f"{self.wall:.1f} s ({self.cpu:.1f} s of a processor), {self.peak:.0f} MB"


def cost(*command: object, cwd: Path) -> Cost:
    """Run a command; exits with its output where it fails."""
    with tempfile.TemporaryFile("w+") as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            [str(part) for part in command], cwd=cwd, stdout=output, stderr=subprocess.STDOUT
        )
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        output.seek(0)
        printed = output.read()
    if status:
        sys.exit(printed[-3000:])
    return Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, printed)


def beside(ours: Cost, bare: Cost) -> str:
    return (
        f"{ours}; bare {bare}; ratio {ours.wall / bare.wall:.2f} "
        f"({ours.cpu / bare.cpu:.2f} of processors)"
    )


def study(folder: Path, recordings: int) -> tuple[list[object], list[object]]:
    """A cohort of empty files; how it is planned by remit, and by a bare Snakefile."""
    (folder / "raw").mkdir(parents=True)
    lines = ["participant\trecording\tpath\tremission"]
    for number in range(recordings):
        name = f"p{number:05d}"
        (folder / f"raw/{name}_rest.edf").touch()
        lines.append(f"{name}\t{name}_rest\traw/{name}_rest.edf\t{number % 2}")
    (folder / "sheet.tsv").write_text("\n".join(lines) + "\n")
    (folder / "mine.yaml").write_text(
        yaml.safe_dump({"cohort": "mine", "cohorts": {"mine": {"sheet": "sheet.tsv"}}})
    )
    text = BARE.replace("MODEL_NAMES", repr(MODELS)).replace("RECORDINGS", str(recordings))
    (folder / "bare").mkdir()
    for name in ("raw", "sheet.tsv"):
        (folder / "bare" / name).symlink_to(folder / name)
    (folder / "bare/Snakefile").write_text(text)
    call: list[object] = [BIN / "snakemake", "--cores", 2, "--snakefile"]
    ours = [*call, ROOT / "Snakefile", "--directory", folder, "sweep", "--configfile"]
    bare = [*call, folder / "bare/Snakefile", "--directory", folder / "bare"]
    bare += ["--max-checksum-file-size", "4GB"]
    return [*ours, folder / "mine.yaml"], bare


def plan(folder: Path, recordings: int) -> None:
    """A dry-run on an empty results folder."""
    ours, bare = study(folder, recordings)
    pair = [cost(*call, "--dry-run", cwd=folder) for call in (ours, bare)]
    for each in pair:
        assert f"windows {recordings}" in " ".join(each.output.split()), each.output[-2000:]
    print(f"planning {recordings:,} recordings x {len(MODELS)} models: {beside(*pair)}")


def again(folder: Path, recordings: int) -> None:
    """A run that finds everything made."""
    from tests.dag.planner import outputs_of

    ours, bare = study(folder, recordings)
    pair = []
    for call, place in ((ours, folder), (bare, folder / "bare")):
        for name in outputs_of(cost(*call, "--dry-run", cwd=folder).output):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).touch()
        for model in MODELS if place == folder else []:
            (place / f"results/pretrained/{model}.json").touch()
        touched = cost(*call, "--touch", "--forceall", cwd=folder)
        pair.append(cost(*call, cwd=folder))
        assert "Nothing to be done" in pair[-1].output, pair[-1].output[-2000:]
        print(f"  (recording what was made, by --touch: {touched})")
    print(f"a rerun of {recordings:,} recordings, nothing to do: {beside(*pair)}")


def primary(folder: Path, most: int) -> None:
    """Peak memory of `remit primary` beside the number of recordings, of a minute each."""
    from remit.config import Config, Simulation
    from remit.dataset.windows import write_windows
    from remit.preprocessing.chain import preprocess
    from remit.recordings.cohort import simulated_rows, write_sheet
    from remit.recordings.registry import ReaderOptions, read_recording
    from remit.recordings.simulate import simulate_recording, write_edf

    config = Config()
    simulation = Simulation(participants=most, minutes=1)
    rows = simulated_rows("many", simulation)
    edf = folder / "one.edf"
    for row in rows:
        write_edf(simulate_recording(row, simulation), edf)
        recording = read_recording(replace(row, path=str(edf)), ReaderOptions())
        write_windows(
            folder / f"results/windows/many/{row.recording}.parquet",
            preprocess(recording, config.preprocessing, config.channels),
            recording=recording,
            remission=row.remission,
            cohort="many",
            settings={"preprocessing": config.preprocessing.model_dump(mode="json")},
        )
    settings = {"cohort": "many", "dataset": config.dataset, "channels": config.channels}
    execution = config.execution.model_copy(update={"mlflow": False}).model_dump_json()
    for number in (most // 100, most // 10, most):
        write_sheet(rows[:number], folder / f"{number}.tsv")
        made = cost(
            *(BIN / "remit", "primary", "--execution", execution),
            *("--settings", json.dumps(settings | {"result_version": ""})),
            *("--sheet", folder / f"{number}.tsv", "--output", folder / f"{number}.parquet"),
            cwd=folder,
        )
        size = (folder / f"{number}.parquet").stat().st_size / 1e6
        print(f"primary dataset of {number:,} recordings ({size:.0f} MB): {made}")


SIZES = {"plan": (plan, 10_000), "again": (again, 1_000), "primary": (primary, 1_000)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", nargs="*", choices=[*SIZES, []], default=[])
    parser.add_argument("--recordings", type=int, help="instead of the sizes above")
    args = parser.parse_args()
    for name in args.what or SIZES:
        measure, recordings = SIZES[name]
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder), args.recordings or recordings)


if __name__ == "__main__":
    main()
