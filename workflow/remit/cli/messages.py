"""What the command line prints: lines of progress, and one line for an error."""

from __future__ import annotations

import os
import sys
import time
import traceback
from pathlib import Path

from remit import progress
from remit.training import launcher

_STARTED = time.monotonic()


def log(message: str) -> None:
    """Print one line of progress."""
    progress.say(f"[{time.monotonic() - _STARTED:7.1f} s] {message}")


def complain(line: str, code: int) -> int:
    """Print an error's line, or leave it to the launcher, which prints one for all ranks."""
    progress.end()
    if launcher.launched():
        launcher.leave_word(line, code)
    else:
        print(f"remit: {line}", file=sys.stderr, flush=True)
    return code


MEMORY_RAN_OUT = (
    "memory ran out; expected enough for the recordings and the model; take a machine with more, allow "
    "more (ulimit, the scheduler's memory), or a smaller model or cohort."
)


def memory_ran_out(error: Exception) -> bool:
    """Whether an error says that memory ran out, on the processor or on a GPU."""
    if isinstance(error, MemoryError) or "torch" not in sys.modules:
        return isinstance(error, MemoryError)
    from remit.training.memory import ran_out

    return ran_out(error)


def defect(error: Exception) -> int:
    """Say in one line that remit itself is at fault; the traceback is there for who asks."""
    if os.environ.get("REMIT_TRACEBACK"):
        traceback.print_exception(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    reason = " ".join(str(error).split())[:300]
    return complain(
        f"internal error: {type(error).__name__}: {reason} ({Path(last.filename).name}, line "
        f"{last.lineno}); this is a defect of remit, or input it does not know; please report it; "
        "REMIT_TRACEBACK=1 shows where it happened.",
        70,
    )
