"""Windows, the primary dataset and its split."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remit.cli.arguments import execution_of, settings_of, stage
from remit.cli.messages import log

if TYPE_CHECKING:
    from remit.recordings.recording import Recording


def recording_of(args: argparse.Namespace) -> Recording:
    """Read a recording as its settings say, and keep in mind what else it was read from."""
    from remit.recordings.cohort import SheetRow
    from remit.recordings.registry import ReaderOptions, companions, read_recording
    from remit.recordings.sidecars import sidecar_files

    settings = args.settings
    beside = [*companions(args.input), *sidecar_files(args.input)]
    args.also_read = {"beside": [file for file in beside if file.exists()]}
    names = settings["channel_names"]
    options = ReaderOptions(
        settings["sampling_rate"],
        tuple(names) if names else None,
        settings["units"],
        settings["allow_truncated"],
    )
    row = SheetRow(
        settings["participant"], settings["recording"], str(args.input), settings["entry"]
    )
    return read_recording(row, options)


def _windows(args: argparse.Namespace) -> None:
    from remit.config import Preprocessing
    from remit.dataset.windows import kept_text, write_windows
    from remit.preprocessing.chain import preprocess

    settings = args.settings
    preprocessing: Preprocessing = settings_of(Preprocessing, settings["preprocessing"])
    recording = recording_of(args)
    windows = preprocess(recording, preprocessing, settings["channels"])
    metadata = write_windows(
        args.output,
        windows,
        recording=recording,
        remission=settings["remission"],
        cohort=settings["cohort"],
        settings={
            "preprocessing": settings["preprocessing"],
            "version": settings["result_version"],
        },
    )
    source = metadata["sources"][recording.recording]
    for note in source["notes"]:
        log(f"{recording.recording}: {note}")
    log(
        f"{recording.recording}: {kept_text(source)}"
        + (" (SIMULATED)" if recording.simulated else "")
    )


def _primary(args: argparse.Namespace) -> None:
    from remit import naming
    from remit.dataset.primary import build_primary
    from remit.dataset.windows import read_metadata
    from remit.recordings.cohort import read_table
    from remit.tracking import Tracker

    execution = execution_of(args.execution)
    cohort, dataset = args.settings["cohort"], args.settings["dataset"]
    header, body = read_table(args.sheet)
    column = header.index("recording")
    files = [
        Path(naming.path("windows", cohort=cohort, recording=cells[column])) for _, cells in body
    ]
    args.also_read = {"windows": files}
    summary = build_primary(files, args.output, cohort=cohort, channels=args.settings["channels"])
    log(
        f"{dataset}: {summary['participants']} participants, {summary['recordings']} recordings, "
        f"{summary['windows']} windows ({summary['bad_windows']} marked bad), labels "
        f"{summary['participants_per_label']}" + ("; SIMULATED" if summary["simulated"] else "")
    )
    metadata = read_metadata(args.output)
    name = naming.mlflow_dataset_name(dataset, int(metadata["windows"]))
    tags = {
        "remit.stage": "dataset",
        "remit.dataset": dataset,
        "remit.cohort": cohort,
        "remit.windows": str(metadata["windows"]),
        "remit.simulated": str(metadata["simulated"]).lower(),
        "remit.primary_content_sha256": str(metadata["content_sha256"]),
    }
    settings = {key: metadata[key] for key in ("sampling_rate", "channels", "settings")}
    tracker = Tracker(execution, name, tags, log, settings)
    tracker.metrics(
        {key: summary[key] for key in ("participants", "recordings", "windows", "bad_windows")}, 0
    )
    tracker.dataset(args.output, metadata, "primary", tags)
    tracker.finish()


def _split(args: argparse.Namespace) -> None:
    from remit.config import Split
    from remit.dataset.splits import make_split, write_split
    from remit.dataset.windows import open_dataset

    settings: Split = settings_of(Split, args.settings.get("split", {}))
    file = open_dataset(args.primary)
    split = make_split(
        file.labels,
        settings,
        dataset=file.metadata["dataset"],
        content_sha256=file.metadata["content_sha256"],
        simulated=file.metadata["simulated"],
    )
    write_split(args.output, split)
    log(f"split of {len(split['participants'])} participants: {split['counts']} -> {args.output}")


def add_to(commands: Any) -> None:
    """Add these subcommands."""
    stage(
        commands,
        "windows",
        _windows,
        "Read one recording, run the signal chain, write its windows.",
        "input=simulated",
        "output=windows",
    )
    stage(
        commands,
        "primary",
        _primary,
        "Concatenate, sort and verify the windows of a cohort.",
        "sheet=cohort_sheet",
        "output=primary",
        execution=True,
    )
    stage(
        commands,
        "split",
        _split,
        "Split participants into train, val and test.",
        "primary",
        "output=split",
    )
