"""What Snakemake plans, hundreds of times in a minute.

Each dry-run is Snakemake's own command line in a process of its own, forked from one that has
Snakemake and remit imported already: nothing is left of the run before, and no second is spent on
imports.
"""

import functools
import io
import multiprocessing
import os
import re
import sys
import tempfile
from collections import Counter
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

import yaml
from snakemake import cli

import remit.planning  # noqa: F401  for the processes that are forked
from remit.recordings import registry
from tests.conftest import ROOT

cli.get_argument_parser()  # which imports Snakemake's plugins
registry.readers()  # and this remit's
WORKERS = 2
Plan = dict[str, dict[str, int]]
# Snakemake's sentences, in a word each. A rule of two words is planned for two reasons.
REASONS = {
    "Missing output files": "missing",
    "Updated input files": "input",
    "Input files updated by another job": "upstream",
    "Set of input files has changed since last execution": "set",
    "Params have changed since last execution": "params",
    "Code has changed since last execution": "code",
    "Forced execution": "forced",
}


@functools.cache
def _workers() -> ProcessPoolExecutor:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.dag.planner", "mne_bids", "smart_open"])
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join([str(ROOT), *sys.path])):
        forkserver.ensure_running()
    return ProcessPoolExecutor(WORKERS, context, max_tasks_per_child=1)


def submit(folder: Path, *targets: str, config: Path, source: Path = ROOT) -> Future[str]:
    """Start a dry-run in `folder` by the workflow of `source`; its result is what Snakemake prints."""
    return _workers().submit(_printed, folder, ["--dry-run", *targets], config, source)


def _printed(folder: Path, arguments: list[str], config: Path, source: Path) -> str:
    os.chdir(folder)
    if source != ROOT:  # a changed copy: its own remit
        for name in [name for name in sys.modules if name.split(".")[0] == "remit"]:
            del sys.modules[name]
        sys.path.insert(0, str(source / "workflow"))
    sys.argv = ["snakemake", *arguments]  # the Snakefile reads the targets there
    sys.argv += ["--snakefile", str(source / "Snakefile"), "--configfile", str(config)]
    with tempfile.TemporaryFile("w+") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        sys.stdout, sys.stderr = (
            io.TextIOWrapper(io.FileIO(n, "w", closefd=False)) for n in (1, 2)
        )
        try:
            cli.main(sys.argv[1:])
        except SystemExit as error:
            failed = error.code
        sys.stdout.flush()
        sys.stderr.flush()
        if isinstance(failed, str):
            print(failed, file=sys.stderr, flush=True)
        output.seek(0)
        return output.read()


def read(printed: str) -> Plan:
    """The jobs of each rule by their reasons: {"windows": {"params": 6}}; raises where it was refused."""
    if "Nothing to be done" in printed:
        return {}
    blocks = re.findall(
        r"^(?:local)?rule (\w+):\n(?:    .*\n)*?    reason: (.*)$", printed, re.MULTILINE
    )
    if "Job stats:" not in printed or not blocks:
        raise ValueError(printed)
    found: dict[str, Counter[str]] = {}
    for rule, sentences in blocks:
        words = (re.sub(r":.*", "", sentence) for sentence in sentences.split("; "))
        found.setdefault(rule, Counter())["+".join(sorted(REASONS[w] for w in words))] += 1
    total = re.search(r"^total +(\d+)$", printed, re.MULTILINE)
    assert total and int(total[1]) == sum(sum(each.values()) for each in found.values()), printed
    return {rule: dict(each) for rule, each in found.items()}


def outputs_of(printed: str) -> list[str]:
    """The files that the planned jobs would make."""
    found = re.findall(r"^    output: (.*)$", printed, re.MULTILINE)
    return [name for outputs in found for name in outputs.split(", ")]


def refused(printed: str) -> list[str]:
    """What remit said of a run that was refused, for which no traceback may stand."""
    lines = [line for line in printed.splitlines() if line.startswith("remit: ")]
    assert lines and "Traceback" not in printed, printed
    return lines


def merged(values: dict, changes: dict) -> dict:
    """Settings with some of them changed; those beside them stay."""
    both = dict(values)
    for key, value in changes.items():
        deeper = isinstance(value, dict) and isinstance(both.get(key), dict)
        both[key] = merged(both[key], value) if deeper else value
    return both


def at(path: str, value: object) -> dict:
    """One setting by its path: at("split.seed", 1) is {"split": {"seed": 1}}."""
    first, _, rest = path.partition(".")
    return {first: at(rest, value) if rest else value}


def configured(file: Path, values: dict) -> Path:
    """The file with these settings in it."""
    file.write_text(yaml.safe_dump(values))
    return file
