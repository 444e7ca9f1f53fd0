"""A real SLURM of one node on the loopback, from Debian's packages, for as long as the tests run.

It writes /etc/slurm/slurm.conf, the one place where a job's own `srun` looks (the plugin clears SLURM_CONF
from its environment), so it starts only as root and only where that file is absent or its own; keys,
sockets, states and logs lie in a temporary folder.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests.conftest import run

PACKAGES = {
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "sbatch": "slurm-client",
    "munged": "munge",
}
CONFIGURATION = Path("/etc/slurm/slurm.conf")
MARK = "# Written by remit's tests/cluster; removed when they end."


def stop(reason):
    pytest.exit(f"tests/cluster: {reason}", returncode=3)


def install():
    """Debian's packages, where they are not there already."""
    missing = [package for command, package in PACKAGES.items() if not shutil.which(command)]
    if not missing:
        return
    if not shutil.which("apt-get"):
        stop(
            f"{', '.join(missing)} not found, nor apt-get; expected Debian or SLURM; install them."
        )
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *missing]
    if run(*command, cwd=Path("/"), env=env).returncode:
        run("apt-get", "update", "--quiet", cwd=Path("/"), env=env)
        done = run(*command, cwd=Path("/"), env=env)
        if done.returncode:
            stop(f"{' '.join(command)} failed: {done.stdout.strip().splitlines()[-1]}")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Cluster:
    """munged, slurmctld and slurmd as children of this process; :attr:`node` is the machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.node = socket.gethostname().split(".")[0]
        self.cpus = len(os.sched_getaffinity(0))
        self._daemons: dict[str, subprocess.Popen] = {}

    def start(self) -> None:
        folder = self.folder
        key = folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        megabytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
        settings = {
            "ClusterName": "remit",
            "SlurmctldHost": f"{self.node}(127.0.0.1)",
            "SlurmctldPort": free_port(),
            "SlurmdPort": free_port(),
            "SlurmUser": "root",
            "AuthType": "auth/munge",
            "AuthInfo": f"socket={folder / 'munge.socket'}",
            "StateSaveLocation": folder / "state",
            "SlurmdSpoolDir": folder / "spool",
            "SlurmctldPidFile": folder / "slurmctld.pid",
            "SlurmdPidFile": folder / "slurmd.pid",
            "ProctrackType": "proctrack/linuxproc",
            "TaskPlugin": "task/none",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_CPU",
            "AccountingStorageType": "accounting_storage/none",
            "JobAcctGatherType": "jobacct_gather/none",
            "SlurmdParameters": "config_overrides",
            "ReturnToService": 2,  # a node whose slurmd comes back is used again
            "MinJobAge": 36000,  # s for which squeue tells how a job ended
            "KillWait": 20,  # s between SIGTERM and SIGKILL
        }
        lines = [f"{key}={value}" for key, value in settings.items()]
        node = f"NodeName={self.node} NodeAddr=127.0.0.1 CPUs={self.cpus} RealMemory={megabytes}"
        CONFIGURATION.parent.mkdir(exist_ok=True)
        CONFIGURATION.write_text(
            "\n".join([MARK, *lines, node, "PartitionName=main Nodes=ALL Default=YES", ""])
        )
        (folder / "state").mkdir()
        (folder / "spool").mkdir()
        self._start(
            *("munged", "--foreground", f"--socket={folder / 'munge.socket'}"),
            *(f"--key-file={key}", f"--pid-file={folder / 'munged.pid'}"),
            *(f"--log-file={folder / 'munged.log'}", f"--seed-file={folder / 'munged.seed'}"),
        )
        self._wait_for("munged", (folder / "munge.socket").exists)
        self._start("slurmctld", "-D")
        self.start_slurmd()

    def start_slurmd(self) -> None:
        self._start("slurmd", "-D")
        self._wait_for("slurmd", lambda: self.states() & {"idle", "mix", "alloc"})

    def kill_slurmd(self) -> None:
        """SIGKILL, as when the node's memory ran out: the jobs on it live on without a master."""
        daemon = self._daemons.pop("slurmd")
        daemon.kill()
        daemon.wait()

    def run(self, *command: object) -> None:
        """One of SLURM's commands, which must succeed."""
        done = run(*command, cwd=self.folder)
        assert done.returncode == 0, done.stdout

    def states(self) -> set[str]:
        """The states of the node, as sinfo says them."""
        return set(run("sinfo", "--noheader", "-o", "%t", cwd=self.folder).stdout.split())

    def jobs(self, *, active: bool = True) -> dict[str, tuple[str, str]]:
        """State and comment (which holds the rule) of SLURM's jobs, by id."""
        states = "PENDING,RUNNING,COMPLETING" if active else "all"
        listed = run("squeue", "-h", f"--states={states}", "-o", "%i|%T|%k", cwd=self.folder)
        rows = [line.split("|") for line in listed.stdout.splitlines() if line.count("|") == 2]
        return {number: (state, comment) for number, state, comment in rows}

    def stop(self) -> None:
        if "slurmctld" in self._daemons:
            run("scancel", "--state=PENDING", cwd=self.folder)
            run("scancel", "--state=RUNNING", cwd=self.folder)
        for daemon in reversed(self._daemons.values()):
            daemon.terminate()
            try:
                daemon.wait(30)
            except subprocess.TimeoutExpired:
                daemon.kill()
        CONFIGURATION.unlink(missing_ok=True)

    def _start(self, name: str, *options: object) -> None:
        with (self.folder / f"{name}.out").open("a") as log:
            self._daemons[name] = subprocess.Popen(
                [name, *map(str, options)], stdout=log, stderr=log, cwd=self.folder
            )

    def _wait_for(self, name: str, there) -> None:
        until = time.monotonic() + 30
        while not there():
            if self._daemons[name].poll() is not None or time.monotonic() > until:
                stop(f"{name} did not start: {(self.folder / f'{name}.out').read_text()[-500:]}")
            time.sleep(0.2)


@pytest.fixture(scope="session")
def cluster():
    if os.geteuid():
        stop("starting SLURM takes root; found another user; run make test-cluster as root.")
    if CONFIGURATION.exists() and MARK not in CONFIGURATION.read_text():
        stop(f"{CONFIGURATION} is there and not ours; run on a machine without a SLURM of its own.")
    install()
    with tempfile.TemporaryDirectory(prefix="remit-slurm-") as folder:
        Path(folder).chmod(0o755)  # munged wants a socket that everybody can reach
        made = Cluster(Path(folder))
        try:
            made.start()
            yield made
        finally:
            made.stop()
