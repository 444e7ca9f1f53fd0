"""What all tests share: where things are, and how a command is run."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

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


# How the process was before the first test.
FOUND: dict[str, Any] = {}


def pytest_collection_finish() -> None:
    """Remember what remit and MLflow set for their whole process, which a command's ends with."""
    FOUND["environment"] = dict(os.environ)
    FOUND["handlers"] = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    if torch := sys.modules.get("torch"):  # who tests with it has imported it
        FOUND["threads"] = torch.get_num_threads()
        FOUND["deterministic"] = torch.are_deterministic_algorithms_enabled()
        FOUND["filled"] = torch.utils.deterministic.fill_uninitialized_memory


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """No test is called by bytes: what packs them may write the time, and each worker its own."""
    return argname if isinstance(val, bytes) else None


def put_back() -> None:
    """Make the process as it was found."""
    for number, handler in FOUND["handlers"].items():
        signal.signal(number, handler)
    if "threads" in FOUND:
        torch = sys.modules["torch"]
        torch.set_num_threads(FOUND["threads"])
        if torch.are_deterministic_algorithms_enabled() != FOUND["deterministic"]:
            torch.use_deterministic_algorithms(FOUND["deterministic"])  # imports a compiler
        torch.utils.deterministic.fill_uninitialized_memory = FOUND["filled"]
    if products := sys.modules.get("remit.nn.products"):
        products.use(True)
    if tracking := sys.modules.get("remit.tracking"):
        tracking.last_run()
    # A client asks the registry of the process's address and not of its own; MLflow cannot forget it.
    if addresses := sys.modules.get("mlflow.tracking._tracking_service.utils"):
        addresses._tracking_uri = None
    for key in os.environ.keys() - FOUND["environment"].keys() - {"PYTEST_CURRENT_TEST"}:
        del os.environ[key]
    os.environ.update(FOUND["environment"])


@pytest.fixture(scope="module", autouse=True)
def _process_as_found():
    """A file of tests leaves the next one the process that it would have by itself."""
    yield
    put_back()


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
