"""What is not a stage: verify, doctor, MLflow, the configuration's files, completion in a shell."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from remit.cli.arguments import add, execution_of, file_of_demo, json_object
from remit.cli.messages import log
from remit.errors import RemitError


def _verify(args: argparse.Namespace) -> None:
    from remit import naming, provenance
    from remit.evaluation.checks import verify
    from remit.planning import result_version, stage_version
    from remit.report.diagnostics import diagnostics_of, made_of, read_diagnostics, root_of

    if not args.files and args.diagnostics is None:
        raise RemitError(
            "verify: found nothing to verify; expected results or --diagnostics; name some."
        )
    for file in args.files:
        if not file.is_file():
            what = "is no file" if file.exists() else "not found"
            raise RemitError(
                f"{file}: {what}; expected a result's file, such as a pretrained checkpoint; build it "
                "with snakemake or check the path."
            )
    sound = True
    asked: list[tuple[Path | None, Path]] = []
    for file in args.files:
        # A backbone may come from elsewhere: then its diagnostics are all that there is to say of it.
        backbone = naming.is_pretrained(file)
        by_hand = backbone and not provenance.record_of(file).exists()
        print(f"{file}:", flush=True)
        if backbone and not naming.is_of_fold(file):
            diagnostics = diagnostics_of(file)
            if by_hand or diagnostics.exists():
                asked.append((file, diagnostics))
            else:
                print(f"warn  its diagnostics are not made: snakemake {diagnostics}", flush=True)
        if by_hand:
            print("warn  nothing beside it says what made it: placed by hand", flush=True)
            continue
        for one in provenance.verify(file, stage_version):
            print(f"{one.status:4}  {one.file}: {one.what}", flush=True)
            sound = sound and one.status != "fail"
    if args.diagnostics is not None:
        asked.insert(0, (None, args.diagnostics))
    for named, file in asked:
        found = read_diagnostics(file)
        root = root_of(file)
        drop_in = root / naming.DROP_IN_PATTERN.format(model=found["model"])
        usual = root / naming.path("pretrained", model=found["model"])
        backbone_file = named or (drop_in if drop_in.exists() else usual)
        of = made_of(found, backbone_file, root, result_version("diagnose"))
        lines, passed = verify([*found["checks"], *of])
        sound = sound and passed
        print("\n".join([f"{found['model']}:", *lines]), flush=True)
    if not sound:
        sys.exit(1)


def _doctor(args: argparse.Namespace) -> None:
    from remit.config import load
    from remit.doctor import examine, lines

    config = None if args.config is None else load(args.config)
    given = args.execution
    if given is None and config is not None:
        given = config.execution.model_dump(mode="json")
    found = examine(execution_of(given), config)
    print(json.dumps(found, indent=2) if args.json else "\n".join(lines(found)), flush=True)


def _mlflow_sync(args: argparse.Namespace) -> None:
    from remit.tracking import sync

    sync(execution_of(args.execution), log)


def _config(args: argparse.Namespace) -> None:
    from remit.configdoc import write_files

    for file in write_files(args.root, check=args.check):
        log(f"{'differs' if args.check else 'wrote'}: {file}")
        if args.check:
            raise RemitError(
                f"{file} is not what the settings' model gives; expected the generated text; run "
                "'remit config'."
            )


def _completion(args: argparse.Namespace) -> None:
    from argcomplete.shell_integration import shellcode

    print(shellcode(["remit"], shell=args.shell), flush=True)


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer the shell, and leave: subcommands, options, choices and files."""
    import argcomplete

    argcomplete.autocomplete(parser, always_complete_options="long")


def add_to(commands: Any) -> None:
    """Add these subcommands."""
    verifying = add(
        commands,
        "verify",
        _verify,
        "Say what of a result is stale or foreign, from it to the raw recordings, and for a pretrained "
        "backbone pass, warn or fail for each check; exit 1 if one fails.",
        f"remit verify {file_of_demo('pretrained')}",
    )
    verifying.add_argument(
        "files", type=Path, nargs="*", metavar="FILE", help="a backbone with its diagnostics made"
    )
    verifying.add_argument("--diagnostics", type=Path, metavar="FILE", help="a diagnostics' .json")
    doctor = add(
        commands,
        "doctor",
        _doctor,
        "Say what this machine offers the workflow, what will be used, and why not more.",
        "remit doctor --json",
    )
    doctor.add_argument("--json", action="store_true", help="for machines")
    doctor.add_argument(
        "--config", type=Path, metavar="FILE", help="say how much room its results want"
    )
    doctor.add_argument(
        "--execution", type=json_object, metavar="JSON", help="execution settings, or @file"
    )
    mlflow = commands.add_parser(
        "mlflow",
        help="Send what MLflow lacks.",
        description="Bring MLflow up to date.",
        epilog="example:\n  remit mlflow sync",
    )
    mlflow_commands = mlflow.add_subparsers(dest="mlflow_command", required=True, metavar="command")
    syncing = add(
        mlflow_commands,
        "sync",
        _mlflow_sync,
        "Send what MLflow lacks of earlier runs, each entry once, and end those that were killed.",
        """remit mlflow sync --execution '{"mlflow_uri": "http://127.0.0.1:5000"}'""",
    )
    syncing.add_argument(
        "--execution", type=json_object, metavar="JSON", help="execution settings, or @file"
    )
    config = add(
        commands,
        "config",
        _config,
        "Write config.yaml, its schema and its documentation.",
        "remit config --check",
    )
    config.add_argument("--root", type=Path, default=Path())
    config.add_argument("--check", action="store_true", help="only say whether they are up to date")
    completion = add(
        commands,
        "completion",
        _completion,
        "Print what a shell needs to complete remit's commands at the Tab key.",
        """eval "$(remit completion bash)\"""",
    )
    completion.add_argument("shell", choices=("bash", "zsh", "fish"))
