"""A call of Snakemake: what it asks for, whether it may start, and why its jobs failed."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from remit import naming
from remit.errors import RemitError
from remit.planning.plan import OF_SWEEP, RULES, Plan

# What a call of Snakemake without targets may be other than a run of `all`, or of all of it.
_OTHER_CALLS = (
    *("target_jobs", "until", "omit_from", "unlock", "lint", "report", "summary"),
    *("detailed_summary", "list_rules", "list_target_rules", "cleanup_metadata"),
    *("dag", "rulegraph", "filegraph", "d3dag", "delete_all_output", "delete_temp_output"),
    *("list_changes", "list_input_changes", "list_params_changes", "list_untracked"),
    *("conda_create_envs_only", "list_conda_envs", "conda_cleanup_envs", "containerize"),
    *("archive", "generate_unit_tests"),
)

_ENDS = {".parquet": (4, b"PAR1"), ".pt": (22, b"PK\x05\x06")}  # that far before a file's end


def _known(arguments: Sequence[str]) -> argparse.Namespace:
    """Snakemake's arguments by its own parser, which tells targets from the values of options."""
    from snakemake.cli import get_argument_parser

    known: argparse.Namespace = get_argument_parser().parse_known_args(list(arguments))[0]
    return known


def targets_of(arguments: Sequence[str], *, module: bool = False) -> list[str]:
    """The targets among Snakemake's arguments that can be checked: rules of which a file is made that
    needs labels, and files as the rules spell them, results/…; 'all' for a run that names none.

    Of a ``module`` only files that are named as its own: the rules, and what else is there, may be those of
    the workflow that it is in.
    """
    known = _known(arguments)
    runs = not any(getattr(known, other) for other in _OTHER_CALLS)
    paths = [os.path.relpath(target) for target in known.targets or (["all"] if runs else [])]
    files = [path for path in paths if path.startswith(f"{naming.RESULTS}{os.sep}")]
    if module:
        return [file for file in files if naming.read_target(file) is not None]
    return [path for path in paths if path in files or (runs and path in RULES)]


def models_of(plan: Plan, arguments: Sequence[str]) -> list[str]:
    """The models that Snakemake's arguments ask for, by their names or as a sweep; else the default."""
    found: list[str] = []
    default = str(plan.default_model)
    for target in map(os.path.relpath, _known(arguments).targets or ()):
        kind, values = naming.read_target(target) or (RULES.get(target, ""), {"model": default})
        if kind in OF_SWEEP:
            found += plan.sweep_models()
        elif "{model}" in naming.PATTERNS.get(kind, ""):
            found.append(values["model"])
    return list(dict.fromkeys(found)) or [default]


def asks_for_report(arguments: Sequence[str]) -> bool:
    """Whether Snakemake is to make its report."""
    return any(word == "--report" or word.startswith("--report=") for word in arguments)


def lock_hint(arguments: Sequence[str]) -> str | None:
    """What to do about Snakemake's lock on this folder; None without one, or for a run that needs none.

    Snakemake alone decides whether the lock stops a run (those that share no file go on).
    """
    needs_none = {"--unlock", "--nolock", "--dry-run", "--dryrun", "-n"}
    if needs_none & set(arguments) or not any(Path(".snakemake/locks").glob("*")):
        return None
    import psutil

    here, own = Path.cwd(), {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    for process in psutil.process_iter(["pid", "cwd", "cmdline"]):
        names = {Path(word).name for word in (process.info["cmdline"] or [])[:3]}
        if process.pid in own or not names & {"snakemake", "remit"}:
            continue
        if process.info["cwd"] == str(here):
            return (
                f"remit: process {process.pid} ({' '.join(process.info['cmdline'])[:80]}) works in {here}, "
                "which Snakemake has locked; expected one run per folder; wait for it, end it, or give "
                "this run another --directory."
            )
    return (
        f"remit: Snakemake has locked {here}, and no process here works in it; expected a run on another "
        "machine, or one that was killed; if none runs, nor a job of one in a queue: 'snakemake --unlock', "
        "then the same command."
    )


def check_whole(files: Iterable[str]) -> None:
    """Raise :class:`RemitError` for a result that was cut, before a job that reads it is started.

    Its command would refuse it as well; but Snakemake has then removed what that job made before, which
    is whole. Only ends are looked at (of .json all); files that are empty, not there or
    may not be read are left to others.
    """
    for name in sorted(set(files)):
        file = Path(name)
        if file.parts[:1] != ("results",) or file.suffix not in (*_ENDS, ".json"):
            continue
        try:  # of thousands, on a disk behind a network: no more than one open and one read
            with file.open("rb") as opened:
                size = opened.seek(0, os.SEEK_END)
                before, mark = _ENDS.get(file.suffix, (size, b""))
                opened.seek(max(0, size - before))
                end = opened.read()
        except OSError:
            continue
        if not size:
            continue
        fine = size > 8 and end.startswith(mark)  # a parquet file begins as it ends
        if not mark:
            try:
                fine = bool(json.loads(end))
            except (ValueError, RecursionError):
                fine = False
        if not fine:
            raise RemitError(
                f"{file}: is cut or damaged, for it does not end as a {file.suffix} file does; expected it "
                "as it was written; remove it and run the same command, which makes it anew if it is needed."
            )


def failures(log_files: Iterable[str | Path]) -> list[str]:
    """What remit said of the jobs that failed, from the logs that Snakemake's own logs name."""
    text = "\n".join(Path(file).read_text(encoding="utf-8", errors="replace") for file in log_files)
    found: list[str] = []
    for named in re.findall(r"^ +log: (.+?) \(check log", text, re.MULTILINE):
        log = Path(named.split(", ")[0])
        if log.exists():
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            found += [line for line in lines if line.startswith("remit: ")]
    return list(dict.fromkeys(found))
