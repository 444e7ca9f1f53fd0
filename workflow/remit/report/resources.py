"""Run time and memory of the jobs of a folder, by rule, from what Snakemake measured of each.

The benchmark files are no outputs that Snakemake knows: what is in the folder when this runs is read,
and table and picture say how many jobs that is and until when. To wait for every job of every call would
make it a result of all of them, which one more evaluation or sweep would always make anew.
"""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from remit import naming
from remit.errors import RemitError
from remit.files import write_rows
from remit.report.drawing import BLUE, VERMILION, canvas, save

RESULT_VERSION = 4  # raise when a change here alters the table or the picture

_MEBIBYTE = 2**20 / 1e6  # in MB as mem_mb has them; those of a benchmark are larger

AGAIN = f"snakemake {naming.path('run_resources')} --forcerun run_resources"


@dataclass
class Jobs:
    """What was measured of the jobs of one rule: seconds each, and the peak memory in MB of those that
    lasted long enough for it."""

    seconds: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)
    last: float = 0.0
    """When the newest was over, in seconds since 1970"""


def _number(text: str | None) -> float | None:
    """A figure, or None for 'NA' and '-', which Snakemake writes where it had no time to measure."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def read_benchmarks(folder: Path) -> tuple[dict[str, Jobs], list[Path]]:
    """The jobs by the folder (or file) below ``folder`` that is named after their rule, and what could
    not be read; raises :class:`RemitError` where there is no job."""
    found: dict[str, Jobs] = {}
    unread: list[Path] = []
    for file in sorted(folder.rglob("*.tsv")):
        try:
            with file.open(encoding="utf-8", newline="") as lines:
                rows = list(csv.DictReader(lines, delimiter="\t"))
        except (OSError, UnicodeDecodeError, csv.Error):
            rows = []
        seconds = [_number(row.get("s")) for row in rows]
        whole = [value for value in seconds if value is not None]
        if not whole or len(whole) < len(rows):
            unread.append(file)
            continue
        jobs = found.setdefault(file.relative_to(folder).parts[0].removesuffix(".tsv"), Jobs())
        jobs.seconds += whole
        jobs.last = max(jobs.last, file.stat().st_mtime)
        peaks = (_number(row.get("max_rss")) for row in rows)
        jobs.megabytes += [peak * _MEBIBYTE for peak in peaks if peak is not None and peak > 0]
    if not found:
        raise RemitError(
            f"{folder}: found no measured job; expected the benchmarks that Snakemake writes; run "
            "something with snakemake, or name the folder that holds them."
        )
    return dict(sorted(found.items(), key=lambda item: (-sum(item[1].seconds), item[0]))), unread


def _minute(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def rows_of(jobs: dict[str, Jobs]) -> list[dict[str, Any]]:
    """One row for each rule, the one that took longest in sum first; empty where nothing was measured."""
    rows = []
    for rule, each in jobs.items():
        peaks = each.megabytes
        rows.append(
            {
                "rule": rule,
                "jobs": len(each.seconds),
                "seconds_median": f"{statistics.median(each.seconds):.2f}",
                "seconds_max": f"{max(each.seconds):.2f}",
                "seconds_sum": f"{sum(each.seconds):.2f}",
                "memory_jobs": len(peaks),
                "memory_mb_median": f"{statistics.median(peaks):.1f}" if peaks else "",
                "memory_mb_max": f"{max(peaks):.1f}" if peaks else "",
                "newest_utc": f"{_minute(each.last):%Y-%m-%dT%H:%M}",
            }
        )
    return rows


def draw_resources(jobs: dict[str, Jobs], unread: Sequence[Path]) -> Any:
    """Median, longest and sum of run times, and peak memory, of each rule."""
    from matplotlib.ticker import LogLocator, NullFormatter

    number = sum(len(each.seconds) for each in jobs.values())
    last = _minute(max(each.last for each in jobs.values()))
    title = (
        f"Run time and memory of {number} jobs of {len(jobs)} rules: all that this folder held by "
        f"{last:%Y-%m-%d %H:%M} UTC\nwithout what ran later; made anew by: {AGAIN}"
    )
    if unread:
        title += f"\n{len(unread)} benchmark files could not be read and are not in it"
    figure, axes = canvas(1, 2, (11, 1.9 + 0.3 * len(jobs)), title=title, sharey=True)
    time, memory = axes.ravel()
    for row, each in enumerate(jobs.values()):
        for axis, values in ((time, each.seconds), (memory, each.megabytes)):
            if not values:
                axis.text(
                    *(0.02, row, "too short to be measured"),
                    fontsize=7,
                    va="center",
                    transform=axis.get_yaxis_transform(),
                )
                continue
            middle, most = statistics.median(values), max(values)
            axis.plot([middle, most], [row, row], color=BLUE, linewidth=1.2)
            axis.plot(middle, row, "o", color=BLUE, markersize=6, gid=f"median-{row}")
            axis.plot(most, row, "|", color=BLUE, markersize=11, markeredgewidth=2)
        time.plot(sum(each.seconds), row, "D", color=VERMILION, markersize=5, gid=f"sum-{row}")
    for axis, unit in ((time, "seconds by the clock"), (memory, "peak of resident memory (MB)")):
        axis.set_xscale("log")
        low, high = axis.get_xlim()
        steps = (1, 2, 5) if high < 1000 * low else (1,)  # else one label may be all there is
        axis.xaxis.set_major_locator(LogLocator(subs=steps))
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_xlabel(unit)
        axis.grid(axis="x", color="0.92")
        axis.set_axisbelow(True)
    names = [f"{rule} (n={len(each.seconds)})" for rule, each in jobs.items()]
    time.set_yticks(range(len(names)), names, fontsize=8)
    time.set_ylim(len(names) - 0.5, -0.5)
    for marker, color, text in (
        ("o", BLUE, "median of the jobs"),
        ("|", BLUE, "most of one job"),
        ("D", VERMILION, "sum over the jobs"),
    ):
        time.plot([], [], marker, color=color, linestyle="none", markeredgewidth=2, label=text)
    figure.legend(
        *time.get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=3
    )
    return figure


def write_resources(*, benchmarks: Path, table: Path, figure: Path) -> int:
    """Write table (TSV) and picture of what lies in ``benchmarks``; returns the number of jobs."""
    jobs, unread = read_benchmarks(benchmarks)
    write_rows(table, rows_of(jobs))
    save(draw_resources(jobs, unread), figure)
    return sum(len(each.seconds) for each in jobs.values())
