"""The command line: one subcommand per stage; every rule's shell line is one of them.

Its modules hold the subcommands floor by floor, each beside its part of the parser; a stage is imported
only when it is called. Whatever a person can put right is printed as one line without a traceback, and
the exit code is 1.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from remit import __version__, progress
from remit.cli import cohort, dataset, evaluation, figures, report, tools, training
from remit.cli.arguments import Parser, file_of_demo
from remit.cli.messages import MEMORY_RAN_OUT, complain, defect, log, memory_ran_out
from remit.errors import RemitError
from remit.training import launcher


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="remit",
        description="Raw EEG to an honest answer about participants. The workflow (snakemake) calls "
        "these commands; each can be called by hand.",
        epilog="example:\n  remit cohort scan recordings --output cohort.tsv --config mine.yaml\n"
        f"  snakemake {file_of_demo('finetuned')} --configfile mine.yaml",
    )
    parser.add_argument("--version", action="version", version=f"remit {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for room in (cohort, dataset, training, evaluation, figures, report, tools):
        room.add_to(commands)
    return parser


def _stop(signal_number: int, _: object) -> None:
    """Leave through the ordinary way out, so that half-written temporary files are removed."""
    sys.exit(128 + signal_number)


def _let_waiting_threads_sleep() -> None:
    """By default OpenMP's threads spin for some milliseconds after each operation, on the cores that
    the threads of :mod:`remit.nn.lanes` then wait for: a quarter of a step of pretraining.

    OpenMP reads it once, when PyTorch is imported.
    """
    if "torch" not in sys.modules and not os.environ.get("OMP_WAIT_POLICY"):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    _let_waiting_threads_sleep()
    parser = _parser()
    if "_ARGCOMPLETE" in os.environ:  # a shell asks what may stand where its cursor is
        tools.complete(parser)
    args = parser.parse_args(arguments)
    args.arguments = arguments
    signal.signal(signal.SIGTERM, _stop)
    progress.allow()
    if launcher.launched():
        launcher.watch()
    try:
        seen = _look(args)
        args.run(args)
        _keep_record(args, seen)
    except RemitError as error:
        return complain(str(error), 1)
    except KeyboardInterrupt:
        return complain("interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno is None or error.filename is None:
            return defect(error)
        return complain(
            f"{error.filename}: {error.strerror}; expected to read and write it; check the path, its "
            "rights and the free space.",
            1,
        )
    except Exception as error:  # noqa: BLE001 - the last resort, which hides nothing
        if not memory_ran_out(error):
            return defect(error)
        return complain(MEMORY_RAN_OUT, 1)
    finally:
        if (
            launcher.launched()
        ):  # it ends all ranks when the first one ends, and this one does already
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return 0


def _inputs(args: argparse.Namespace) -> dict[str, list[Path]]:
    """The files that a stage is given, by their role; those that it finds by itself are in `also_read`."""
    named = {key: value for key, value in vars(args).items() if key not in args.makes}
    lists = {
        key: list(value) if isinstance(value, list) else [value]
        for key, value in named.items()
        if isinstance(value, Path | list)
    }
    return {key: files for key, files in lists.items() if all(isinstance(f, Path) for f in files)}


def _look(args: argparse.Namespace) -> dict[Path, tuple[int, ...]]:
    """What a stage's inputs look like before it reads them."""
    if not getattr(args, "makes", ()) or args.settings is None:
        return {}
    from remit import provenance

    return provenance.look(file for files in _inputs(args).values() for file in files)


def _keep_record(args: argparse.Namespace, seen: Mapping[Path, tuple[int, ...]]) -> None:
    """Write beside what a stage has made what it was made of; a command of a person's own makes none.

    It comes last and nothing stops it, nor does it stop anything: Snakemake would delete what days of
    training have made.
    """
    makes = getattr(args, "makes", ())
    if not makes or args.settings is None or os.environ.get("RANK", "0") != "0":
        return
    from remit import provenance

    asked = (signal.SIGTERM, signal.SIGINT)  # a terminal's Ctrl-C reaches each of Snakemake's jobs
    before = {each: signal.signal(each, lambda *_: None) for each in asked}
    outputs = [getattr(args, key) for key in makes if getattr(args, key) is not None]
    cards = [file.with_suffix(".json") for file in outputs if file.suffix == ".pt"]
    tracking = sys.modules.get("remit.tracking")
    try:
        changed = provenance.write(
            [*outputs, *cards],
            {**_inputs(args), **getattr(args, "also_read", {})},
            stage=args.command if args.command != "cohort" else "sheet",
            settings=args.settings,
            mlflow=tracking.last_run() if tracking else {"run_id": None, "journal": None},
            seen=seen,
        )
        for file in changed:
            log(
                f"warning: {file} was changed while this command read it; {outputs[0]} may be made of "
                "either, and 'remit verify' calls it stale; make it again"
            )
    except Exception as error:  # noqa: BLE001 - the result is there, whatever is wrong with its record
        log(
            f"warning: the record of what made {outputs[0]} could not be written "
            f"({type(error).__name__}: {error})"
        )
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
