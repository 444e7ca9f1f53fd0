"""What this machine offers the workflow, and why not more: the command ``remit doctor``.

It looks and measures for a few seconds, changes nothing, and says in each line what it found. A part
that cannot be examined says so, with the reason, and stops none of the others.
"""

from __future__ import annotations

import http.client
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

import remit
from remit import naming
from remit.config import Config, Execution
from remit.errors import RemitError, without_password
from remit.nn import backends, products
from remit.planning import Plan
from remit.training.data import build_encoder, encoder_settings
from remit.training.runtime import bfloat16_instructions, choose_backend, device_of

MB = 1024**2
# A matrix product this wide is far above every fixed cost, and takes some 10 ms on a laptop.
PRODUCT_WIDTH = 1024
MLFLOW_SECONDS = 4.0  # for its import, and for a server's answer: nobody waits longer for a doctor
SINFO_SECONDS = 2.0
# Below this a training's state, the windows of a few dozen people or MLflow's files may not find room.
LITTLE_ROOM_MB = 5000
# A training's state holds the weights, two averages of gradients and the best epoch's weights.
STATE_OF_WEIGHTS = 4
CGROUP = Path("/sys/fs/cgroup")  # where Linux says what a container may take


def examine(execution: Execution, config: Config | None = None) -> dict[str, Any]:
    """Plain values about each part; a part that could not be examined holds ``why_not`` alone.

    Takes some 4 seconds; on CUDA the first call on a machine also compiles mamba-ssm's kernels. With a
    configuration it says how much room its results want.
    """
    importing = _start_importing_mlflow()  # meanwhile the others are looked at
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "versions": _versions,
        "processor": _processor,
        "memory": _memory,
        "cuda": _cuda,
        "backends": lambda: backends.status("cuda"),
        "fast_products": lambda: _fast_products(execution.training_threads),
        "disk": lambda: _disk(config),
        "mlflow": lambda: _mlflow(importing),
        "runs": lambda: _runs(execution),
        "slurm": _slurm,
        "training": lambda: _training(execution),
    }
    found: dict[str, Any] = {}
    for part, look in parts.items():
        try:
            found[part] = look()
        except RemitError as error:
            found[part] = {"why_not": str(error)}
        except Exception as error:  # noqa: BLE001 - what a sick machine raises has no common type
            found[part] = {"why_not": backends.reason_of(error)}
    return found


def _versions() -> dict[str, Any]:
    return {
        "remit": remit.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "system": platform.platform(),
    }


def _processor() -> dict[str, Any]:
    offered = torch.cpu.get_capabilities()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "name": str(offered.get("cpu_name") or platform.processor() or platform.machine()),
        "cores": usable,
        "quota_cores": _cgroup("cpu.max", lambda text: int(text.split()[0]) / int(text.split()[1])),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "bfloat16": bfloat16_instructions(),
    }


def _memory() -> dict[str, Any]:
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    meminfo = Path("/proc/meminfo")
    available = None
    if meminfo.exists():
        sizes_kb = dict(
            line.split(":") for line in meminfo.read_text(encoding="ascii").splitlines()
        )
        available = int(sizes_kb["MemAvailable"].split()[0]) // 1024
    return {
        "total_mb": page_bytes * os.sysconf("SC_PHYS_PAGES") // MB,
        "available_mb": available,
        "quota_mb": _cgroup("memory.max", lambda text: int(text) // MB),
    }


def _cgroup(file: str, read: Callable[[str], float]) -> float | None:
    """A container's limit; None where there is none."""
    path = CGROUP / file
    text = path.read_text(encoding="ascii") if path.exists() else "max"
    return None if text.startswith("max") else read(text)


def _cuda() -> dict[str, Any]:
    if torch.version.cuda is None:
        return {"why_not": f"torch {torch.__version__} is a build without CUDA"}
    if not torch.cuda.is_available():
        return {
            "why_not": f"torch is built for CUDA {torch.version.cuda}, and finds no device or driver"
        }
    devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return {
        "version": torch.version.cuda,
        "devices": [
            {
                "name": device.name,
                "capability": f"{device.major}.{device.minor}",
                "memory_mb": device.total_memory // MB,
            }
            for device in devices
        ],
    }


def _fast_products(threads: int) -> dict[str, Any]:
    """Rate and error of float32 products with the faster library allowed, and with the default."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(PRODUCT_WIDTH, PRODUCT_WIDTH, generator=generator) for _ in range(2))
    exact, found = a.double() @ b.double(), torch.empty_like(a)
    out: dict[str, Any] = {"oneDNN_error": products.probe()}
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for name, wanted in (("default", False), ("fast", True)):
            out["on"] = products.use(wanted)
            seconds = []
            for _ in range(6):  # the first one only warms up
                began = time.perf_counter()
                with products.fast(a):
                    products.rows(a, b, found)
                seconds.append(time.perf_counter() - began)
            out[f"{name}_gflops"] = 2 * PRODUCT_WIDTH**3 / sorted(seconds[1:])[2] / 1e9
            out[f"{name}_error"] = float((found.double() - exact).norm() / exact.norm())
    finally:
        torch.set_num_threads(before)
    return out


def _disk(config: Config | None) -> dict[str, Any]:
    """The room where results/ lies, be it there or not, and what a configuration wants of it."""
    place = Path("results").resolve()
    while not place.exists():
        place = place.parent
    room = shutil.disk_usage(place)
    wanted = None if config is None else wanted_mb(config)
    return {
        "folder": str(place),
        "total_mb": room.total // MB,
        "free_mb": room.free // MB,
        "wanted_mb": wanted,
        "least_mb": LITTLE_ROOM_MB if wanted is None else 2 * sum(wanted.values()),
    }


def wanted_mb(config: Config) -> dict[str, float]:
    """About how much an evaluation of the default model leaves in results/, in MB.

    Windows and primary dataset hold the signal once each, in float32 at the configured rate; that of
    files is guessed from their size, as if a sample took two bytes there and the rate stayed.
    Raises :class:`RemitError` as planning does.
    """
    plan = Plan(config.model_dump(mode="json"))
    signal, simulated = 0.0, 0.0
    for name in dict.fromkeys((config.cohort, *config.pretraining.extra_cohorts)):
        cohort = config.cohorts[name]
        if cohort.simulate is not None:
            seconds = 60 * cohort.simulate.minutes * cohort.simulate.participants
            samples = seconds * config.preprocessing.sampling_rate * len(config.channels_of(name))
            signal += 4 * samples
            simulated += 2 * samples
            continue
        rows = plan.rows(name)
        files = {plan.source(name, row) for row in rows}
        files |= {file for row in rows for file in plan.beside(name, row)}
        signal += 2 * sum(Path(file).stat().st_size for file in files if Path(file).is_file())
    model = str(plan.default_model)
    token = round(config.sequences.token_seconds * config.preprocessing.sampling_rate)
    sizes = encoder_settings(plan.model_settings(model), token, config.preprocessing.sampling_rate)
    encoder, _ = build_encoder(sizes, config.channels)
    weights = sum(value.numel() * value.element_size() for value in encoder.state_dict().values())
    options = config.evaluation
    of_folds = options.pretraining == "per_fold" and plan.pretrained_here(model)
    backbones = 1 + (options.folds * options.repeats if of_folds else 0)
    return {
        "simulated recordings": simulated / MB,
        "windows": signal / MB,
        "primary": signal / MB,
        "models": (backbones + 1 + STATE_OF_WEIGHTS) * weights / MB,
    }


def _start_importing_mlflow() -> subprocess.Popen[str]:
    """In a process of its own: what it imports has a life of its own as well."""
    return subprocess.Popen(
        [sys.executable, "-c", "import mlflow; print(mlflow.__version__)"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _mlflow(importing: subprocess.Popen[str]) -> dict[str, Any]:
    with importing:
        try:
            out, error = importing.communicate(timeout=MLFLOW_SECONDS)
        except subprocess.TimeoutExpired:
            importing.kill()
            return {"version": metadata.version("mlflow"), "imports": None}
    if importing.returncode:
        return {"why_not": (error.strip().splitlines() or ["no reason given"])[-1]}
    return {"version": out.strip(), "imports": True}


def _runs(execution: Execution) -> dict[str, Any]:
    """Where MLflow runs go, and whether that store is there; nothing is written to it."""
    if not execution.mlflow:
        return {"why_not": "execution.mlflow is false"}
    uri = execution.mlflow_uri
    if uri is not None and uri.startswith(("http://", "https://")):
        return {"store": without_password(uri), "state": _answer(uri)}
    if uri is not None and not uri.startswith("sqlite:///"):
        return {"store": without_password(uri), "state": "not examined"}
    file = Path(
        naming.PATTERNS["mlflow_database"] if uri is None else uri.removeprefix("sqlite:///")
    )
    if not file.exists():
        place = file.resolve().parent
        while not place.exists():
            place = place.parent
        if not os.access(place, os.W_OK):
            return {"why_not": f"{place} cannot be written; expected room for {file}"}
        return {"store": str(file), "state": "is made with the first run"}
    address = f"file:{urllib.parse.quote(str(file.resolve()))}?mode=ro"
    try:
        database = sqlite3.connect(address, uri=True, timeout=1)
        try:
            runs = database.execute("SELECT count(*) FROM runs").fetchone()[0]
        finally:
            database.close()
    except sqlite3.Error as error:
        return {"why_not": f"{file}: {error}; expected a database of MLflow; move it away"}
    if not os.access(file, os.W_OK):
        return {"why_not": f"{file} cannot be written; check its rights"}
    return {"store": str(file), "state": f"opens, with {runs} runs"}


def _answer(uri: str) -> str:
    """What a tracking server answers; in a thread, for the look-up of its name knows no limit."""
    shown = urllib.parse.urlsplit(uri)._replace(query="", fragment="")
    shown = shown._replace(netloc=shown.netloc.rpartition("@")[2])  # whom it lets in is not asked
    place = shown.path.rstrip("/") + "/health"

    found: list[str] = []
    why: list[str] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(
                shown._replace(path=place).geturl(), timeout=MLFLOW_SECONDS / 2
            ) as reply:
                found.append(f"answers (HTTP {reply.status})")
        except urllib.error.HTTPError as error:
            found.append(f"answers (HTTP {error.code})")
        except (OSError, ValueError, http.client.HTTPException) as error:
            why.append(str(getattr(error, "reason", error)))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(MLFLOW_SECONDS)
    if found:
        return found[0]
    reason = why[0] if why else f"no answer within {MLFLOW_SECONDS:g} s"
    raise RemitError(
        f"{shown.hostname} does not answer ({reason}); trainings go on and keep their numbers for "
        "'remit mlflow sync'; start the server, or check execution.mlflow_uri"
    )


def _slurm() -> dict[str, Any]:
    """Partitions of the cluster that this machine submits to."""
    if shutil.which("sbatch") is None:
        return {"why_not": "there is no sbatch; jobs run on this machine"}
    asked = ["sinfo", "--noheader", "--format=%P|%a|%D"]
    try:
        done = subprocess.run(
            asked, capture_output=True, text=True, timeout=SINFO_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return {"why_not": f"sinfo gives no answer within {SINFO_SECONDS:g} s"}
    except OSError as error:
        return {"why_not": f"there is sbatch, but sinfo does not start ({error.strerror})"}
    if done.returncode:
        return {"why_not": f"sinfo: {(done.stderr.strip().splitlines() or ['no reason given'])[0]}"}
    rows = [line.strip().split("|") for line in done.stdout.splitlines() if line.strip()]
    return {
        "partitions": [
            {"name": name, "state": state, "nodes": int(nodes)} for name, state, nodes in rows
        ],
        "plugin": find_spec("snakemake_executor_plugin_slurm") is not None,
    }


def _training(execution: Execution) -> dict[str, Any]:
    device = device_of(execution)
    return {
        "device": device.type,
        "threads": execution.training_threads,
        "backend": choose_backend(execution.backend, device),
        "fast_products": device.type == "cpu" and products.use(execution.fast_products),
    }


def _products_line(values: Mapping[str, Any]) -> str:
    default = f"{values['default_gflops']:.0f} GFLOP/s, error {values['default_error']:.1e}"
    if not values["on"]:
        return (
            f"off: used on processors by AMD with AVX-512 where they are exact (error here "
            f"{values['oneDNN_error']:.1e}); float32 by torch's default at {default}"
        )
    return (
        f"on: float32 by oneDNN at {values['fast_gflops']:.0f} GFLOP/s, error "
        f"{values['fast_error']:.1e}; by torch's default at {default}"
    )


def _disk_line(values: Mapping[str, Any]) -> str:
    text = f"{values['free_mb']} MB free of {values['total_mb']} MB at {values['folder']}"
    wanted = values["wanted_mb"]
    if wanted is not None:
        parts = ", ".join(f"{what} {size:.0f}" for what, size in wanted.items() if size)
        text += f"; an evaluation wants about {sum(wanted.values()):.0f} MB ({parts})"
    if values["free_mb"] < values["least_mb"]:
        text += (
            f"; WARNING: less than {values['least_mb']:.0f} MB, "
            + ("twice that" if wanted is not None else "little")
            + ", and a full disk stops the workflow; make room, or let results be a link to another disk"
        )
    return text


def _slurm_line(values: Mapping[str, Any]) -> str:
    text = ", ".join(f"{p['name']} {p['state']} ({p['nodes']} nodes)" for p in values["partitions"])
    if not values["plugin"]:
        return f"{text}; snakemake cannot submit: pip install 'snakemake-executor-plugin-slurm'"
    return f"{text}; snakemake --profile profiles/slurm submits to it"


def lines(found: Mapping[str, Any]) -> list[str]:
    """What :func:`examine` found, a line or two for each part, the training last."""
    shown: list[tuple[str, str]] = []

    def show(part: str, text: Callable[[Mapping[str, Any]], str]) -> None:
        values = found[part]
        shown.append((part, f"no: {values['why_not']}" if "why_not" in values else text(values)))

    show("versions", lambda v: ", ".join(f"{name} {value}" for name, value in v.items()))
    show(
        "processor",
        lambda v: (
            f"{v['name']}, {v['cores']} cores"
            + (f" (a container's share of {v['quota_cores']:g})" if v["quota_cores"] else "")
            + f", {v['vectors']}; bfloat16: {', '.join(v['bfloat16']) or 'no instructions'}"
        ),
    )
    show(
        "memory",
        lambda v: (
            f"{v['total_mb']} MB"
            + ("" if v["available_mb"] is None else f", {v['available_mb']} MB of it free")
            + (f", {v['quota_mb']:.0f} MB allowed" if v["quota_mb"] else "")
        ),
    )
    show(
        "cuda",
        lambda v: (
            f"CUDA {v['version']}: "
            + "; ".join(
                f"{d['name']}, {d['memory_mb']} MB, capability {d['capability']}"
                for d in v["devices"]
            )
        ),
    )
    if "why_not" in found["backends"]:
        show("backends", str)
    else:
        for name, why_not in found["backends"].items():
            remedy = f"; with an NVIDIA GPU: {backends.INSTALL}"
            shown.append((f"backend {name}", f"no: {why_not}{remedy}" if why_not else "works"))
    show("fast_products", _products_line)
    show("disk", _disk_line)
    show("mlflow", lambda v: f"{v['version']} {_IMPORTS[v['imports']]}")
    show("runs", lambda v: f"go to {v['store']}, which {v['state']}")
    show("slurm", _slurm_line)
    show(
        "training",
        lambda v: (
            f"would use {v['device']}, {v['threads']} threads, backend {v['backend']}"
            + (", fast products" if v["fast_products"] else "")
        ),
    )
    shown = [(_SPELT.get(part, part), text) for part, text in shown]
    width = max(len(part) for part, _ in shown)
    return [f"{part:<{width}}  {text}" for part, text in shown]


_IMPORTS = {
    True: "imports",
    None: f"is installed; its import takes more than {MLFLOW_SECONDS:g} s here",
}
_SPELT = {"fast_products": "fast products", "runs": "MLflow runs"}
