"""A training in a process of its own, which can be told at what moment to die.

    python -m tests.faults.train FOLDER pretrain|finetune OUTPUT '{"die": "write:3", …}'

``die`` names a moment and its how-manieth time: ``step`` (the weights have moved, nothing is saved),
``write`` (half of the state is written), ``rename`` (all of it, without its name), ``renamed``.
"""

import json
import os
import resource
import signal
import sys
from pathlib import Path

import torch

from remit.config import Execution
from remit.training import checkpoint, state
from tests.unit.training.conftest import Bench


def die_at(moment: str, count: int) -> None:
    """Let the process be killed at the given time of a moment."""
    left = iter(range(count - 1, -1, -1))

    def now() -> bool:
        return next(left) == 0

    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    step, write, rename = torch.optim.AdamW.step, checkpoint.write_tensors, Path.replace

    def dying_step(self, *args):
        step(self, *args)
        if moment == "step" and now():
            kill()

    def dying_write(file, content):
        write(file, content)
        if moment == "write" and now():
            os.truncate(file, file.stat().st_size // 2)
            kill()

    def dying_rename(self, target):
        if moment == "rename" and now():
            kill()
        rename(self, target)
        if moment == "renamed" and now():
            kill()

    torch.optim.AdamW.step = dying_step
    state.write_tensors = checkpoint.write_tensors = dying_write
    Path.replace = dying_rename


def main() -> None:
    folder, stage, output, options = Path(sys.argv[1]), *sys.argv[2:4], json.loads(sys.argv[4])
    if "die" in options:
        moment, count = options.pop("die").split(":")
        die_at(moment, int(count))
    largest = options.pop("largest_file", None)
    if largest:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    execution = Execution(
        device="cpu",
        mlflow=False,
        training_threads=1,
        save_minutes=options.pop("save_minutes", 1e-9),
    )
    bench = Bench(folder, folder / "made_primary.parquet", folder / "split.json")
    given = [folder / options.pop("backbone")] if stage == "finetune" else []

    def log(line: str) -> None:
        print(line, flush=True)

    getattr(bench, stage)(*given, folder / output, execution=execution, log=log, **options)


if __name__ == "__main__":
    main()
