"""Run time and memory by rule are those of the benchmark files, and the picture says of how many."""

import csv
import json
import os
import statistics
from datetime import UTC, datetime

import pytest
from matplotlib import pyplot as plt

from remit import cli
from remit.errors import RemitError
from remit.report import resources
from tests.unit.report.conftest import said_above

HEAD = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"
JOBS = {  # seconds, and 2**20 bytes
    "pretrain/a.tsv": (100.0, 700.5),
    "pretrain/b.tsv": (300.0, 650.0),
    "pretrain/c.tsv": (120.0, None),
    "windows/mine/x.tsv": (1.5, 60.0),
    "comparison.tsv": (0.2, None),
}


ENDED = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC).timestamp()


@pytest.fixture
def folder(tmp_path):
    """Benchmarks as Snakemake writes them; 'NA' where a job was too short."""
    for name, (seconds, memory) in JOBS.items():
        file = tmp_path / "benchmarks" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        rest = "NA\t" * 7 if memory is None else f"{memory}\t1\t1\t1\t0\t0\t9\t"
        file.write_text(f"{HEAD}{seconds}\t0:00:01\t{rest}0.1\n")
        os.utime(file, (ENDED, ENDED - 3600 * (name != "pretrain/b.tsv")))
    return tmp_path / "benchmarks"


def test_the_table_holds_every_job_once(folder, tmp_path, capsys):
    table, figure = tmp_path / "r.tsv", tmp_path / "r.png"
    words = ["run-resources", "--settings", json.dumps({"result_version": "1"})]
    words += ["--benchmarks", str(folder), "--table", str(table), "--figure", str(figure)]
    assert cli.main(words) == 0, capsys.readouterr()
    with table.open(newline="") as lines:
        rows = {row.pop("rule"): row for row in csv.DictReader(lines, delimiter="\t")}
    assert list(rows) == ["pretrain", "windows", "comparison"]  # what took longest first
    of_pretraining = [seconds for name, (seconds, _) in JOBS.items() if "pretrain" in name]
    assert rows["pretrain"] == {
        "jobs": "3",
        "seconds_median": f"{statistics.median(of_pretraining):.2f}",
        "seconds_max": "300.00",
        "seconds_sum": "520.00",
        "memory_jobs": "2",
        "memory_mb_median": "708.1",  # 10**6 bytes
        "memory_mb_max": "734.5",
        "newest_utc": "2026-02-03T04:05",
    }
    assert rows["comparison"]["memory_jobs"] == "0" and rows["comparison"]["memory_mb_max"] == ""
    assert rows["windows"]["newest_utc"] == "2026-02-03T03:05"
    assert sum(int(row["jobs"]) for row in rows.values()) == len(JOBS)
    assert figure.stat().st_size > 10_000


def test_the_picture_says_how_many_jobs_and_what_could_not_be_read(folder):
    (folder / "windows/cut.tsv").write_text(HEAD)
    (folder / "windows/other.tsv").write_text("what\n\xff\n", encoding="latin-1")
    jobs, unread = resources.read_benchmarks(folder)
    assert [file.name for file in unread] == ["cut.tsv", "other.tsv"]
    drawn = resources.draw_resources(jobs, unread)
    assert "5 jobs of 3 rules" in said_above(drawn)
    assert "2 benchmark files could not be read" in said_above(drawn)
    assert "all that this folder held by 2026-02-03 04:05 UTC" in said_above(drawn)
    assert "without what ran later; made anew by: snakemake results/" in said_above(drawn)
    time, memory = drawn.axes
    assert [label.get_text() for label in time.get_yticklabels()] == [
        "pretrain (n=3)",
        "windows (n=1)",
        "comparison (n=1)",
    ]
    marks = {line.get_gid(): line.get_xdata()[0] for line in time.lines if line.get_gid()}
    assert marks["median-0"] == 120 and marks["sum-0"] == 520 and len(marks) == 6
    of_memory = {line.get_gid(): line.get_xdata()[0] for line in memory.lines if line.get_gid()}
    in_mebibytes = {name: value * 1e6 / 2**20 for name, value in of_memory.items()}
    assert in_mebibytes == pytest.approx({"median-0": 675.25, "median-1": 60})
    assert [text.get_text() for text in memory.texts] == ["too short to be measured"]
    for axis in drawn.axes:  # a scale with one number on it says nothing
        low, high = axis.get_xlim()
        assert sum(low <= tick <= high for tick in axis.get_xticks()) >= 2
    assert "MB" in memory.get_xlabel() and "seconds" in time.get_xlabel()
    plt.close(drawn)


def test_a_folder_without_a_job_is_refused(tmp_path):
    with pytest.raises(RemitError, match="found no measured job"):
        resources.read_benchmarks(tmp_path)
