"""What all tests share: where things are, and how a command is run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# One thread for each process: the tests are small, and two cores are often shared.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shared machine is slow at times, which is no fault of the code; CI draws the same examples each time.
settings.register_profile(
    "remit",
    deadline=None,
    derandomize=os.environ.get("CI") == "true",
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("remit")
ROOT = Path(__file__).parents[1]
SHARED_DATA = Path(os.environ.get("REMIT_SHARED_DATA", ROOT.parent / "shared" / "data"))
BIN = Path(sys.executable).parent


def run(*command: object, cwd: Path, env: dict[str, str] | None = None, timeout: float = 600):
    """Run a command; its output is stdout and stderr together."""
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        timeout=timeout,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )


def started(*command: object, cwd: Path) -> subprocess.Popen[str]:
    """Start a command whose lines, errors among them, are read as they come."""
    return subprocess.Popen(
        [str(part) for part in command],
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def snakemake(*arguments: object, cwd: Path, config: Path | None = None, timeout: float = 600):
    """Run the workflow of this checkout in another folder."""
    overlay = ["--configfile", config] if config else []
    return run(
        BIN / "snakemake",
        "--snakefile",
        ROOT / "Snakefile",
        "--directory",
        cwd,
        *arguments,
        *overlay,
        cwd=cwd,
        timeout=timeout,
    )


def remit(*arguments: object, cwd: Path, timeout: float = 600):
    return run(BIN / "remit", *arguments, cwd=cwd, timeout=timeout)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real recordings; the test is skipped where they are not."""
    if not (SHARED_DATA / "README.md").is_file():
        pytest.skip(f"real recordings are not at {SHARED_DATA} (set REMIT_SHARED_DATA)")
    return SHARED_DATA
