"""Several ranks of one command: torchrun inside it, and how all of them end together.

The command becomes torchrun's agent, and its ranks run the same command as its children, each in a
session of its own. So a signal reaches the agent alone, which leaves it for the ranks in a folder that
all of them watch; there a rank also leaves the one line of its error. Light: torch comes in at the launch.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

# Says to a rank who launched it: the launcher's process number and the folder between them.
LAUNCHER_VARIABLE = "REMIT_LAUNCHER"
_LOOK_SECONDS = 0.2  # between two looks into the folder; a rerun takes seconds to get that far
_ERROR, _LOST, _STOP = "error", "lost", "stop"


def launched() -> bool:
    """Whether this process is a rank that :func:`launch` started."""
    return LAUNCHER_VARIABLE in os.environ


def _launcher() -> tuple[int, Path]:
    number, folder = os.environ[LAUNCHER_VARIABLE].split(" ", 1)
    return int(number), Path(folder)


def leave_word(line: str, code: int, *, lost: bool = False) -> None:
    """Leave an error's line and exit code for the launcher; only the first one counts.

    With ``lost`` it is what a rank says that lost the others: it counts where nobody says more. Where
    the folder is gone so is the launcher, and nobody is left to tell.
    """
    with (
        suppress(FileExistsError, FileNotFoundError),
        (_launcher()[1] / (_LOST if lost else _ERROR)).open("x") as file,
    ):
        file.write(f"{code}\n{line}")


def watch() -> None:
    """In a rank: take the launcher's signals from now on, and end when it is gone.

    A rank without a launcher would go on writing the state while the same command starts again.
    """
    number, folder = _launcher()

    def look() -> None:
        told = False
        while True:
            if os.getppid() != number:
                shutil.rmtree(folder, ignore_errors=True)
                os.kill(os.getpid(), signal.SIGKILL)
            text = "" if told or not (folder / _STOP).exists() else (folder / _STOP).read_text()
            if text:
                told = True
                main = threading.main_thread().ident
                assert main is not None
                signal.pthread_kill(main, int(text))
            time.sleep(_LOOK_SECONDS)

    threading.Thread(target=look, name="remit-watch", daemon=True).start()


def launch(ranks: int, arguments: Sequence[str], threads: int) -> int:
    """Run ``remit`` with these arguments in so many ranks, and return the exit code of one process.

    That is 0, the code of the first error (whose line is printed), 128 + n after signal n.

    Args:
        ranks: how many processes.
        arguments: of the command line.
        threads: of each rank, until it sets its own number.
    """
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # The agent reports each rank's end over several lines; the one line is said here.
    quiet = logging.getLogger("torch.distributed.elastic")
    quiet.addHandler(logging.NullHandler())
    quiet.propagate = False
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    # SIGTERM and SIGINT stay with this module: the agent would kill a rank that saves for 30 s.
    torchrun = ["--standalone", f"--nproc-per-node={ranks}", "--signals-to-handle=SIGHUP,SIGQUIT"]
    # -P: no file of the folder it was called in may pass for a module.
    command = ["--no-python", sys.executable, "-P", "-m", "remit.cli", *arguments]
    asked: list[int] = []
    with tempfile.TemporaryDirectory(prefix="remit-ranks-") as name:

        def pass_on(number: int, _frame: object) -> None:
            asked.append(number)
            (Path(name) / _STOP).write_text(str(asked[0]))

        os.environ[LAUNCHER_VARIABLE] = f"{os.getpid()} {name}"
        before = {number: signal.signal(number, pass_on) for number in _PASSED_ON}
        try:
            run.run(run.parse_args([*torchrun, *command]))
        except SignalException as error:
            return 128 + int(error.sigval)
        except ChildFailedError as error:
            codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        else:
            return 0
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            del os.environ[LAUNCHER_VARIABLE]
        return _say_why(Path(name), codes, asked)


_PASSED_ON = (signal.SIGTERM, signal.SIGINT)


def _say_why(folder: Path, codes: dict[int, int], asked: Sequence[int]) -> int:
    """Print the line of the first error, if there was one; returns the exit code."""
    killed = {rank: -code for rank, code in codes.items() if code < 0 and -code != signal.SIGTERM}
    if (folder / _ERROR).exists():
        first, _, line = (folder / _ERROR).read_text().partition("\n")
        code = int(first)
    elif asked:
        return 128 + asked[0]
    elif 128 + signal.SIGTERM in codes.values():  # a scheduler that signals every process
        return 128 + signal.SIGTERM
    elif killed:
        rank, number = next(iter(killed.items()))
        code = 128 + number
        line = (
            f"rank {rank} of the training was killed by {signal.Signals(number).name}; expected it to run "
            "to its end; if memory ran out, take a machine with more or set execution.micro_batch; the "
            "same command goes on from the state saved before."
        )
    elif (folder / _LOST).exists():
        first, _, line = (folder / _LOST).read_text().partition("\n")
        code = int(first)
    else:
        rank, code = next(iter(codes.items()))
        line = (
            f"rank {rank} of the training ended with code {code} and gave no reason; expected 0; look "
            "above for what it printed."
        )
    print(f"remit: {line}", file=sys.stderr, flush=True)
    return code
