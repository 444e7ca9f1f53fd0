"""Bars on a terminal, plain lines elsewhere, and the same lines in both."""

import os
import pty
import re
import shlex
import subprocess
import sys
import termios
from pathlib import Path

import numpy as np

from remit import naming

from ..conftest import started

QUICK = "from remit import progress; progress.SHOWN_AFTER_SECONDS = 0; "
NESTED = (
    QUICK
    + """
import sys, time
progress.allow()
for i in progress.track([10, 20, 30], "outer", "epoch"):
    for j in progress.track(iter("ab"), "inner", "step"):
        time.sleep(0.06)  # a bar moves ten times a second
    progress.say(f"line {i}")
print("tqdm" in sys.modules)
"""
)


def on_terminal(*command, cwd, stdout=None, env=None):
    """Run with a terminal of 80 columns as standard error, and as standard output unless that is a pipe.

    Returns the exit code, what the terminal was sent, and what the pipe held.
    """
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    with subprocess.Popen(
        [str(part) for part in command],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=theirs if stdout is None else stdout,
        stderr=theirs,
        env={**os.environ, **(env or {})},
    ) as process:
        os.close(theirs)
        sent = b""
        try:
            while got := os.read(ours, 65536):
                sent += got
        except OSError:  # how Linux says that nobody holds the other end any more
            pass
        piped = process.stdout.read().decode() if process.stdout else None
    os.close(ours)
    return process.returncode, sent.decode(), piped


def screen(sent):
    """What a terminal shows in the end: carriage returns overwrite, ESC [ A goes up a line."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\n]|[^\r\n\x1b]+", sent):
        if part == "\r":
            column = 0
        elif part == "\n":
            row += 1
            if row == len(lines):
                lines.append("")
        elif part == "\x1b[A":
            row -= 1
        else:
            assert part[0] != "\x1b", part
            lines[row] = lines[row][:column].ljust(column) + part + lines[row][column + len(part) :]
            column += len(part)
    return [line.rstrip() for line in lines if line.strip()]


def test_a_log_has_the_lines_and_nothing_else(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", NESTED], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "line 10\nline 20\nline 30\nFalse\n"
    assert done.stderr == ""


def test_a_terminal_has_bars_which_leave_the_lines(tmp_path):
    code, sent, _ = on_terminal(sys.executable, "-c", NESTED, cwd=tmp_path)
    assert code == 0
    for shown in ("outer:   0%", "outer:  67%", "2/3", " epoch/s", "inner: 2 step"):
        assert shown in sent, shown
    assert screen(sent) == ["line 10", "line 20", "line 30", "True"]


def test_the_bars_stay_out_of_a_pipe_beside_the_terminal(tmp_path):
    code, sent, piped = on_terminal(
        sys.executable, "-c", NESTED, cwd=tmp_path, stdout=subprocess.PIPE
    )
    assert code == 0
    assert piped == "line 10\nline 20\nline 30\nTrue\n"
    assert "outer:  67%" in sent and "line" not in sent


def test_what_is_over_at_once_and_a_second_rank_get_no_bar(tmp_path):
    over = NESTED.replace(QUICK, "from remit import progress")
    once = over.replace("time.sleep(0.06)", "pass").replace('progress.say(f"line {i}")', "")
    assert screen(on_terminal(sys.executable, "-c", once, cwd=tmp_path)[1]) == ["True"]
    assert "%" not in on_terminal(sys.executable, "-c", once, cwd=tmp_path)[1]
    code, sent, _ = on_terminal(sys.executable, "-c", NESTED, cwd=tmp_path, env={"RANK": "1"})
    assert code == 0 and "outer" not in sent and screen(sent)[-1] == "False"


def test_nobody_who_calls_remit_from_python_gets_a_bar(tmp_path):
    code = NESTED.replace("progress.allow()", "")
    _, sent, _ = on_terminal(sys.executable, "-c", code, cwd=tmp_path)
    assert "outer" not in sent and screen(sent)[-1] == "False"


def muse(folder, name):
    time_S = np.arange(2560) / 256
    signal_SC = 20 * np.sin(2 * np.pi * 10 * time_S)[:, None] * np.ones(4)
    body = np.column_stack([1.7e9 + time_S, signal_SC])
    header = "timestamps,TP9,AF7,AF8,TP10"
    np.savetxt(folder / f"{name}.csv", body, delimiter=",", header=header, comments="", fmt="%.6f")


def without_times(lines):
    return [re.sub(r"^\[ *[0-9.]+ s\] ", "", line) for line in lines]


def test_a_scan_has_a_bar_and_the_same_lines(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a", "b", "c"):
        muse(tmp_path / "in", name)
    words = ["cohort", "scan", "in", "--output", "cohort.tsv", "--config", "mine.yaml"]
    code = f"{QUICK}from remit import cli; raise SystemExit(cli.main({words}))"
    plain = started(sys.executable, "-c", code, cwd=tmp_path)
    out, _ = plain.communicate()
    assert plain.returncode == 0, out
    last = without_times(out.splitlines())[-1]  # what to do next, as it can be typed
    command, target, option, file = shlex.split(last.removeprefix("next: "))
    assert (command, option) == ("snakemake", "--configfile")
    assert naming.read_target(target)[0] == "finetuned" and Path(file).is_file()
    sheet = (tmp_path / "cohort.tsv").read_bytes()
    (tmp_path / "mine.yaml").unlink()
    ended, sent, piped = on_terminal(
        sys.executable, "-c", code, cwd=tmp_path, stdout=subprocess.PIPE
    )
    assert ended == 0
    assert "looking into recordings: 0 file" in sent
    assert without_times(piped.splitlines()) == without_times(out.splitlines())
    assert (tmp_path / "cohort.tsv").read_bytes() == sheet


def test_an_error_stands_alone_below_no_bar(tmp_path):
    code = (
        QUICK
        + """
from remit.cli.messages import complain
progress.allow()
for i in progress.track(range(3), "outer", "epoch"):
    if i == 2:
        complain("it broke; mend it.", 1)
        break
"""
    )
    _, sent, _ = on_terminal(sys.executable, "-c", code, cwd=tmp_path)
    assert "outer" in sent
    assert screen(sent) == ["remit: it broke; mend it."]
