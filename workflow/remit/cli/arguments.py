"""What every subcommand's arguments are made of: settings as JSON, a reader's options, the parsers.

A stage of the workflow has ``--settings``, its files and perhaps ``--execution``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from remit import naming
from remit.errors import RemitError, did_you_mean, some_of

if TYPE_CHECKING:
    from remit.config import Execution, Settings
    from remit.recordings.registry import ReaderOptions

# Those of the default configuration, which only a command that needs it reads.
MODEL = "mamba2_eeg_d256_l2_m50_mae"
DATASET = "8s_af7-af8-tp9-tp10"


class Parser(argparse.ArgumentParser):
    """argparse's, whose errors are one line with the nearest name."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line, and leave with 2 as every command line does."""
        line = str(RemitError(message)).removesuffix(".")
        line += " " if line.endswith("?") else "; "
        self.exit(2, f"{self.prog}: {line}'{self.prog} --help' shows how it is called.\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does, but a misspelt option comes before what it leaves missing."""
        words = sys.argv[1:] if args is None else list(args)
        known = self._option_string_actions
        if not self._subparsers:
            for word in words[: words.index("--") if "--" in words else None]:
                name = word.split("=")[0]
                if name.startswith("--") and not any(option.startswith(name) for option in known):
                    near = did_you_mean(name, known)
                    options = some_of((option for option in known if option[:2] == "--"), 20)
                    self.error(f"there is no option {name}; expected one of {options}.{near}")
        return super().parse_known_args(words, namespace)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        what = "command" if isinstance(action, argparse._SubParsersAction) else None
        raise argparse.ArgumentError(
            None,
            f"{what or '/'.join(action.option_strings) or action.dest} '{value}' is not known; expected "
            f"one of {some_of(action.choices, 30)}.{did_you_mean(str(value), action.choices)}",
        )


class _Given(dict[str, Any]):
    """Settings from the command line; a missing one is the caller's slip."""

    def __missing__(self, key: str) -> Any:
        raise RemitError(
            f"--settings has no '{key}'; expected it; 'snakemake --printshellcmds' shows whole lines."
        )


def json_object(text: str) -> dict[str, Any]:
    """Settings given as JSON, or as @file that holds it."""
    shown = text if len(text) <= 40 else f"{text[:40]}…"
    expected = """expected an object such as '{"seed": 1}', or @file that holds one"""
    try:
        values = json.loads(Path(text[1:]).read_text(encoding="utf-8") if text[:1] == "@" else text)
    except OSError as error:
        raise argparse.ArgumentTypeError(
            f"{text[1:]} cannot be read ({error.strerror}); {expected}"
        ) from None
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{shown} is no JSON ({error}); {expected}") from None
    if not isinstance(values, dict):
        raise argparse.ArgumentTypeError(f"{shown} is no JSON object; {expected}")
    return _Given(values)


def settings_of(model: type[Settings], values: Mapping[str, Any], where: str = "--settings") -> Any:
    """Settings by their model; raises :class:`RemitError` that names the first one that is wrong."""
    from pydantic import ValidationError

    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden" and len(first["loc"]) == 1:
            raise RemitError(
                f"{where}: there is no setting '{place}'; expected some of "
                f"{some_of(model.model_fields, 40)}.{did_you_mean(place, model.model_fields)}"
            ) from None
        found = (
            f" (found {first['input']!r})" if isinstance(first["input"], str | int | float) else ""
        )
        raise RemitError(f"{where}: {place}: {first['msg']}{found}; correct it.") from None


def execution_of(values: Mapping[str, Any] | None) -> Execution:
    """Execution settings: those given, else those of the workflow that called, else the defaults."""
    from remit.config import EXECUTION_VARIABLE, Execution

    where = "--execution"
    if values is None:
        where = EXECUTION_VARIABLE
        try:
            values = json_object(os.environ.get(where, "{}"))
        except argparse.ArgumentTypeError as error:
            raise RemitError(f"{where}: {error}; leave it to snakemake, or unset it.") from None
    execution: Execution = settings_of(Execution, values, where)
    return execution


def add_reader_options(command: argparse.ArgumentParser) -> None:
    """What a person says of files that do not say it themselves; :func:`reader_options` reads it."""
    command.add_argument(
        "--sampling-rate", type=float, metavar="HZ", help="of files that do not state it"
    )
    command.add_argument(
        "--channel-names", nargs="+", default=[], metavar="NAME", help="of files without, in order"
    )
    command.add_argument(
        "--allow-truncated",
        action="store_true",
        help="take files that hold less than they promise",
    )
    command.add_argument("--units", help="of files that do not state them: uV, mV, V, '0.02235 uV'")


def reader_options(args: argparse.Namespace) -> ReaderOptions:
    """What the command line says of files; raises :class:`RemitError` for what makes no sense."""
    from remit.recordings import units
    from remit.recordings.registry import ReaderOptions

    if args.sampling_rate is not None and not 0 < args.sampling_rate < math.inf:
        raise RemitError(
            f"--sampling-rate is {args.sampling_rate:g}; expected a positive number of Hz."
        )
    if args.units is not None and units.parse(args.units) is None:
        raise RemitError(
            f"--units is '{args.units}'; expected uV, mV, V, nV or the microvolts of one count, such "
            "as '0.02235 uV'; correct it."
        )
    names = _channel_names(args.channel_names)
    return ReaderOptions(args.sampling_rate, names, args.units, args.allow_truncated)


def _channel_names(given: Sequence[str]) -> tuple[str, ...] | None:
    """Names given one by one or as one list, split as the sheet's column channel_names is."""
    if len(given) == 1 and "," not in given[0]:
        return tuple(given[0].split()) or None
    names = [name.strip() for text in given for name in text.split(",")]
    return tuple(name for name in names if name) or None


def file_of_demo(kind: str) -> str:
    """A file's name in the demo ('new' is a cohort to be predicted); a path stays as it is."""
    if "/" in kind:
        return kind
    cohort = "new" if kind in ("corpus", "predictions_new") else "simulated"
    return naming.pattern(
        kind, model=MODEL, dataset=DATASET, cohort=cohort, recording="sim-001", repeat="1", fold="1"
    )


def add(
    group: Any, name: str, run: Callable[[argparse.Namespace], None], text: str, example: str
) -> argparse.ArgumentParser:
    """Add a subcommand whose help ends with an example."""
    command: argparse.ArgumentParser = group.add_parser(
        name,
        help=text,
        description=text,
        epilog=f"example:\n  {example}",
    )
    command.set_defaults(run=run)
    return command


def stage(
    group: Any,
    name: str,
    run: Callable[[argparse.Namespace], None],
    text: str,
    *paths: str,
    makes: Sequence[str] = ("output",),
    also: Sequence[str] = (),
    execution: bool = False,
) -> argparse.ArgumentParser:
    """Add a stage of the workflow: its settings, the files it needs and the files it makes.

    Args:
        group: of the commands that it is one of.
        name: of the command.
        run: does it.
        text: what it does, in a sentence.
        paths: required options that take a file, each as ``option=kind`` of :data:`naming.PATTERNS`, or
            ``option`` where they are the same; the kind is for the example.
        makes: those of them that are made.
        also: further ones that the example has and the caller adds.
        execution: whether it takes execution settings.
    """
    kinds = [(option, kind or option) for option, _, kind in (p.partition("=") for p in paths)]
    more = [(option, kind or option) for option, _, kind in (p.partition("=") for p in also)]
    words = [f"--{option} {file_of_demo(kind)}" for option, kind in (*kinds, *more)]
    target = next(file_of_demo(kind) for option, kind in kinds if option in makes)
    line = " \\\n    ".join([f"remit {name} --settings @settings.json", *words])
    shows = (
        f"the same with its settings, for your configuration:\n  snakemake -n -p --force {target}"
    )
    command = add(group, name, run, text, f"{line}\n{shows}")
    command.set_defaults(makes=makes)
    command.add_argument(
        "--settings",
        type=json_object,
        required=True,
        metavar="JSON",
        help="result settings, or @file",
    )
    for option, _ in kinds:
        command.add_argument(f"--{option}", type=Path, required=True, metavar="FILE")
    if execution:
        command.add_argument(
            "--execution", type=json_object, metavar="JSON", help="execution settings, or @file"
        )
    return command
