"""Faults drawn from a seed, each on a stage of a tiny chain: how many of them the chain survives.

    python -m tests.faults.seeded --faults 50 --seed 1

A whole chain is built once. Each case takes a copy, removes the results of one stage, and lets its one
job run into a fault. Survived is: what was there before is there still, bit for bit; what the stage
has made is whole, or is not there; and the same command afterwards ends with the bits of the undisturbed
chain. After a kill of Snakemake itself its lock is removed with `--unlock`, and a file that was cut is
removed because the error names it: no command does either by itself. Disks are filled and made read-only
by mounts, which takes root; elsewhere these faults are left out, and that is said.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import yaml

from tests.conftest import BIN, ROOT
from tests.e2e.test_chain import TINY

MODEL = "mamba2_eeg_d32_l1_m20_mae"
DATASET = "8s_af7-af8-tp9-tp10"
# The results of each stage, in their order: the first is asked for.
STAGES = {
    "windows": ("results/windows/simulated/sim-001_rest.parquet",),
    "primary": (f"results/primary/{DATASET}_primary_dataset.parquet",),
    "split": (f"results/splits/{DATASET}_split.json",),
    "pretrain": (f"results/pretrained/{MODEL}.pt", f"results/pretrained/{MODEL}.json"),
    "finetune": (
        f"results/finetuned/{MODEL}_finetuned_best.pt",
        f"results/finetuned/{MODEL}_finetuned_best.json",
        f"results/predictions/{MODEL}_finetuned/simulated.parquet",
    ),
}
INPUT = {  # a result that the stage reads
    "primary": "windows",
    "split": "primary",
    "pretrain": "primary",
    "finetune": "pretrain",
}
SETTINGS = {
    **TINY,
    "pretraining": {"epochs": 6, "least_steps": 0, "batch_size": 2},
    "execution": {**TINY["execution"], "mlflow": False, "save_minutes": 0.001},
    "cohorts": {
        "simulated": {"simulate": {"participants": 8, "minutes": 0.3, "remission_fraction": 0.5}}
    },
}
KINDS = (
    "kill_snakemake",
    "kill_all",
    "kill_worker",
    "full_disk",
    "read_only",
    "cut_input",
    "cut_state",
)
MOUNTS = ("full_disk", "read_only")
SLACK = 64 << 10  # bytes of a full disk that are free for Snakemake's own files


def can_mount() -> bool:
    if os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder],
            capture_output=True,
            check=False,
        )
        if done.returncode == 0:
            subprocess.run(["umount", folder], check=True)
        return done.returncode == 0


def start(folder: Path, target: str, *options: str) -> subprocess.Popen[str]:
    """Snakemake in a session of its own, whose children die with nobody."""
    words = [BIN / "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", folder, target]
    return subprocess.Popen(
        [str(word) for word in [*words, "--configfile", folder / "mine.yaml", *options]],
        cwd=folder,
        text=True,
        # A checkpoint holds the commit: bits must not depend on what is edited meanwhile.
        env={**os.environ, "GIT_DIR": os.devnull},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def finish(folder: Path, target: str, *options: str) -> tuple[int, str]:
    process = start(folder, target, *options)
    said, _ = process.communicate(timeout=1800)
    return process.returncode, said


def workers(session: int) -> list[int]:
    """The `remit` processes of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_text().split("\0")
                own = int((entry / "stat").read_text().rpartition(")")[2].split()[3])
            except OSError:
                continue
            if own == session and any(word.endswith("/remit") for word in words[:3]):
                found.append(int(entry.name))
    return found


def end_session(session: int) -> None:
    """Nothing of a killed run goes on into the next one's."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                own = int((entry / "stat").read_text().rpartition(")")[2].split()[3])
                if own == session:
                    os.kill(int(entry.name), signal.SIGKILL)
            except (OSError, ValueError):
                continue


def results(folder: Path) -> dict[str, bytes]:
    """The results below a folder by their path; not what Snakemake and the records keep for themselves."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for names in STAGES.values()
        for file in (folder / name for name in names)
        if file.exists()
    }


@contextmanager
def mounted(*command: str, at: Path) -> Iterator[None]:
    subprocess.run([*command, str(at)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


def cut(file: Path, draw: random.Random) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[: draw.randrange(len(whole) or 1)])


def strike(
    kind: str, folder: Path, stage: str, seconds: float, draw: random.Random
) -> tuple[int, str]:
    """Let the stage run into a fault; returns how Snakemake ended, 0 for unharmed, and what it said."""
    target = STAGES[stage][0]
    if kind == "read_only":
        place = (folder / target).parent
        place.mkdir(parents=True, exist_ok=True)
        with mounted("mount", "--bind", str(place), at=place):
            subprocess.run(["mount", "-o", "remount,ro,bind", str(place)], check=True)
            return finish(folder, target)
    if kind == "cut_input":
        cut(folder / STAGES[INPUT[stage]][0], draw)
        return finish(folder, target)
    if kind == "full_disk":
        free = SLACK + draw.randrange(SLACK)
        filler = folder / "results/filler"
        left = shutil.disk_usage(filler.parent).free
        with filler.open("wb") as out:
            out.write(bytes(max(0, left - free)))
        try:
            return finish(folder, target)
        finally:
            filler.unlink()
    process = start(folder, target)
    states = (folder / target).parent
    if kind == "cut_state":
        while process.poll() is None and not list(states.glob("*.state/*.pt")):
            time.sleep(0.02)
    else:
        while process.poll() is None and not workers(process.pid):
            time.sleep(0.02)
        time.sleep(draw.uniform(0, 0.5) * seconds)
    if kind in ("kill_worker", "cut_state"):
        for pid in workers(process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    elif process.poll() is None:
        process.kill()
        if kind == "kill_all":
            end_session(process.pid)
        else:  # its worker goes on for a while, and then the power is gone
            time.sleep(draw.uniform(0, 1))
            end_session(process.pid)
    said, _ = process.communicate()
    end_session(process.pid)
    if kind != "cut_state":
        return process.returncode, said
    there = list(states.glob("*.state/*.pt"))
    for file in there:
        cut(file, draw)
    return len(there), said


def survives(
    kind: str, stage: str, whole: Path, folder: Path, seconds: float, draw: random.Random
) -> tuple[bool, str]:
    """Whether the fault struck at all, and an empty text or what went wrong."""
    later = list(STAGES)[list(STAGES).index(stage) :]
    for name in [name for which in later for name in STAGES[which]]:
        (folder / name).unlink(missing_ok=True)
    before, expected = results(folder), results(whole)
    target = STAGES[stage][0]
    struck, said = strike(kind, folder, stage, seconds, draw)
    after = results(folder)
    hurt = {STAGES[INPUT[stage]][0]} if kind == "cut_input" else set()
    lost = [name for name in before if name not in hurt and after.get(name) != before[name]]
    if lost:
        return True, f"lost {lost}"
    bad = [
        name for name, content in after.items() if name not in hurt and content != expected[name]
    ]
    if bad:
        return True, f"made something else or a part: {bad}"
    if kind == "cut_input" and target in after:
        return True, "a cut file was used"
    # Snakemake prints one of its own where a folder is read-only; remit's names its files.
    if "internal error" in said or "workflow/remit/" in said.partition("Traceback (most")[2]:
        return True, f"a traceback: {said[-800:]}"
    if kind == "cut_input":
        (name,) = hurt
        if name.rpartition("/")[2] not in said:
            return True, f"the cut file is not named: {said[-800:]}"
        (folder / name).unlink()
    if kind.startswith("kill_") and kind != "kill_worker":
        finish(folder, target, "--unlock")
    code, said = finish(folder, target)
    if code:
        return True, f"the same command fails: {said[-800:]}"
    made = results(folder)
    other = [name for name in {*STAGES[stage], *before} if made.get(name) != expected[name]]
    return struck != 0, f"other bits: {other}" if other else ""


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--faults", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    kinds = list(KINDS)
    if not can_mount():
        kinds = [kind for kind in KINDS if kind not in MOUNTS]
        print("left out, as mounting takes root: full_disk, read_only", flush=True)
    draw = random.Random(args.seed)
    began = time.monotonic()
    survived: Counter[str] = Counter()
    cases: Counter[str] = Counter()
    missed = 0
    with tempfile.TemporaryDirectory(prefix="remit-faults-") as scratch:
        whole = Path(scratch) / "whole"
        whole.mkdir()
        (whole / "mine.yaml").write_text(yaml.safe_dump(SETTINGS))
        seconds = {}
        for name in STAGES.values():
            code, said = finish(whole, name[0])
            if code:
                print(said)
                return 1
        for stage, names in STAGES.items():  # how long its one job takes, so that a kill strikes it
            kept = results(whole)
            for name in names:
                (whole / name).unlink()
            at = time.monotonic()
            finish(whole, names[0])
            seconds[stage] = time.monotonic() - at
            if results(whole) != kept:
                print(f"{stage}: another run gives other bits")
                return 1
        for number in range(args.faults):
            kind = kinds[number % len(kinds)]
            stages = [
                stage
                for stage in STAGES
                if (kind != "cut_input" or stage in INPUT)
                and (kind != "cut_state" or stage == "pretrain")
            ]
            stage = draw.choice(stages)
            folder = Path(scratch) / f"case{number}"
            folder.mkdir()
            disk = mounted("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", at=folder)
            with disk if kind == "full_disk" else nullcontext():
                shutil.copytree(whole, folder, symlinks=True, dirs_exist_ok=True)
                struck, wrong = survives(kind, stage, whole, folder, seconds[stage], draw)
            shutil.rmtree(folder)
            cases[kind] += 1
            survived[kind] += not wrong
            missed += not struck
            fine = "survived" if struck else "unharmed: it came too late, or was too small"
            print(
                f"[{time.monotonic() - began:6.0f} s] {number + 1}: {kind} in {stage}: "
                f"{wrong or fine}",
                flush=True,
            )
    print(", ".join(f"{kind} {survived[kind]}/{cases[kind]}" for kind in kinds if cases[kind]))
    print(f"{sum(survived.values())} of {sum(cases.values())} survived, {missed} of them unharmed")
    return 0 if survived == cases else 1


if __name__ == "__main__":
    sys.exit(main())
