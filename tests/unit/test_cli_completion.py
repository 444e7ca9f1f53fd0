"""What the Tab key gives in a real shell."""

import os
import pty
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from ..conftest import BIN

SHELLS = {
    "bash": ("bash", "--norc", "--noprofile", "-i"),
    "zsh": ("zsh", "-f", "-i"),
}
CASES = {
    "remit fin": "remit finetune",
    "remit cohort sc": "remit cohort scan",
    "remit cohort scan --layout b": "remit cohort scan --layout bids",
    "remit finetune --predi": "remit finetune --predictions",
    "remit verify ready": "remit verify ready.pt",
    "remit doctor --config sub/mi": "remit doctor --config sub/mine.yaml",
    "remit predict --model mamba2": "remit predict --model mamba2_eeg_d64_l1_m50_bert",
    "remit completion z": "remit completion zsh",
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "bin").mkdir()
    # The command, of this checkout and by its name alone.
    (tmp_path / "bin/remit").write_text(
        f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P -m remit.cli "$@"\n'
    )
    (tmp_path / "bin/remit").chmod(0o755)
    (tmp_path / "work/sub").mkdir(parents=True)
    (tmp_path / "work/ready.pt").touch()
    (tmp_path / "work/sub/mine.yaml").touch()
    head = tmp_path / "work/results/evaluation/mamba2_eeg_d64_l1_m50_bert/head.json"
    head.parent.mkdir(parents=True)
    head.touch()
    return tmp_path


def environment(folder):
    path = os.pathsep.join([str(folder / "bin"), str(BIN), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "TERM": "dumb", "PS1": "", "HISTFILE": "/dev/null"}


def typed(command, lines, folder):
    """What an interactive shell prints when these keys are typed."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command,
        cwd=folder / "work",
        env=environment(folder),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        os.write(ours, "".join(lines).encode())
        sent = b""
        try:
            while got := os.read(ours, 65536):
                sent += got
        except OSError:  # how Linux says that the shell has ended
            pass
        process.wait(60)
    os.close(ours)
    return sent.decode()


@pytest.mark.parametrize("shell", SHELLS)
def test_the_tab_key_completes(shell, folder):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    setup = "autoload -Uz compinit && compinit -u\n" if shell == "zsh" else "bind -r '\\C-x'\n"
    lines = [setup, f'eval "$(remit completion {shell})"\n']
    # Tab, then to the line's beginning: what was completed is printed instead of run.
    lines += [f"{words}\t\x01printf '=%s=\\n' '\x05'\n" for words in CASES]
    sent = typed(SHELLS[shell], [*lines, "exit\n"], folder)
    found = [line.strip() for line in re.findall(r"^=(.*)=\r?$", sent, re.MULTILINE)]
    assert found == list(CASES.values()), sent


def test_fish_completes(folder):
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    for words, expected in CASES.items():
        done = subprocess.run(
            ["fish", "--no-config", "-c", f"remit completion fish | source; complete -C '{words}'"],
            cwd=folder / "work",
            env=environment(folder),
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split()[0] == expected.split()[-1], done.stdout


def test_a_shell_that_is_not_known_is_refused(folder):
    done = subprocess.run(
        [folder / "bin/remit", "completion", "csh"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "expected one of bash, zsh, fish" in done.stderr
