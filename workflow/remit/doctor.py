"""What this machine offers a training, and why not more: the command ``remit doctor``.

It looks and measures for a few seconds, changes nothing, and says in each line what it found. A part
that cannot be examined says so, with the reason, and stops none of the others.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

import remit
from remit.config import Execution
from remit.errors import RemitError
from remit.nn import backends, products
from remit.training.runtime import bfloat16_instructions, choose_backend, device_of

MB = 1024**2
# A matrix product this wide is far above every fixed cost, and takes some 10 ms on a laptop.
PRODUCT_WIDTH = 1024
MLFLOW_SECONDS = 60.0
CGROUP = Path("/sys/fs/cgroup")  # where Linux says what a container may take


def examine(execution: Execution) -> dict[str, Any]:
    """Plain values about each part; a part that could not be examined holds ``why_not`` alone.

    Takes some 4 seconds; on CUDA the first call on a machine also compiles mamba-ssm's kernels.
    """
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "versions": _versions,
        "processor": _processor,
        "memory": _memory,
        "cuda": _cuda,
        "backends": lambda: backends.status("cuda"),
        "fast_products": lambda: _fast_products(execution.training_threads),
        "mlflow": _mlflow,
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


def _mlflow() -> dict[str, Any]:
    """In a process of its own: what it imports has a life of its own as well."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", "import mlflow; print(mlflow.__version__)"],
            capture_output=True,
            text=True,
            timeout=MLFLOW_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"why_not": f"importing it takes more than {MLFLOW_SECONDS:g} s"}
    if done.returncode:
        return {"why_not": (done.stderr.strip().splitlines() or ["no reason given"])[-1]}
    return {"version": done.stdout.strip()}


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
    show("mlflow", lambda v: f"{v['version']} imports")
    show(
        "training",
        lambda v: (
            f"would use {v['device']}, {v['threads']} threads, backend {v['backend']}"
            + (", fast products" if v["fast_products"] else "")
        ),
    )
    width = max(len(part) for part, _ in shown)
    return [
        f"{part.replace('fast_products', 'fast products'):<{width}}  {text}" for part, text in shown
    ]
