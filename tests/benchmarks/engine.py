"""The Mamba-2 engine beside its peers on a CPU; results go by hand into docs/benchmarks.md.

    python tests/benchmarks/engine.py             # all but compile (--compile adds it)
    python tests/benchmarks/engine.py accuracy    # the same weights give the same; distance from float64
    python tests/benchmarks/engine.py table       # time by shape, and the share of the product floor
    python tests/benchmarks/engine.py memory      # extra peak memory, each in a process of its own
    python tests/benchmarks/engine.py malloc      # the same help for all: allocator, oneDNN products
    python tests/benchmarks/engine.py length      # cost against length, batch and width
    python tests/benchmarks/engine.py stack       # two bidirectional layers, own and shared weights
    python tests/benchmarks/engine.py bf16        # bfloat16 products against autocast for the peers
    python tests/benchmarks/engine.py overhead    # a whole step beside its products and scans alone
    python tests/benchmarks/engine.py step        # a pretraining step: plain, bfloat16, compiled (--compile)
    python tests/benchmarks/engine.py compile     # torch.compile: the first call, and the later ones

remit's commands run with OMP_WAIT_POLICY=PASSIVE, which serves them and not every peer: given to this
script, it is so for all.

All carry the same float32 weights. Each round times every competitor once, in turns of order, so that
a busy machine is busy for all; given are medians and, in brackets, minima. The peers:

- transformers: its Mamba2Mixer on its PyTorch path, with its default chunk of 256 and with 64;
- minimal: a Mamba-2 block around mamba-ssm's minimal chunked scan (chunk 64), B and C not repeated
  over the heads, as upstream calls it. Its two functions are read from the sdist, which pip keeps in a
  cache folder outside the repository; where that fails the column is left out.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from remit.nn import mamba2, products

OURS, TRANSFORMERS, TRANSFORMERS_64, MINIMAL = "remit", "transformers", "transformers 64", "minimal"
D_MODEL, HEADDIM, CHUNK, THREADS = 256, 64, 64, 2
MAMBA_SSM, EINOPS = "mamba-ssm==2.3.2.post1", "einops==0.8.2"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "remit-bench"
SHAPES = [(8, 2048), (32, 128), (8, 5000)]
EEG_SHAPES = [(64, 60), (32, 200), (16, 1000)]
# What issue 4 asks for, forward + backward, d_state 64: times as fast as each, share of the floor,
# and extra peak memory over the peer's.
ASKED = {
    (64, 8, 2048): {TRANSFORMERS: 10, TRANSFORMERS_64: 5, MINIMAL: 4.5},
    (64, 32, 128): {TRANSFORMERS: 9, MINIMAL: 2.3},
    (64, 8, 5000): {TRANSFORMERS: 9, MINIMAL: 4},
}
ASKED_SHARE = {(64, 8, 2048): 0.5}
ASKED_MEMORY = {MINIMAL: 0.6, TRANSFORMERS: 0.45}
GEMM_SIZE = 2048
# Page faults take up to half of the peers' time: keep freed memory, or take it in huge pages.
KEPT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
HUGE = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
HELP = {
    "waiting threads sleep": ({"OMP_WAIT_POLICY": "PASSIVE"}, None),
    "freed memory kept": (KEPT, None),
    "huge pages": (HUGE, None),
    "freed memory kept, oneDNN's products for all": (KEPT, "oneDNN"),
    "freed memory kept, MKL's products for all": (KEPT, "MKL"),
}

Times = dict[str, list[float]]


# ---- the competitors ----------------------------------------------------------------------------


@cache
def minimal_scan() -> Callable[..., tuple[Tensor, Tensor]] | None:
    """mamba-ssm's ssd_minimal_discrete; None, with the reason on stderr, if it cannot be had.

    Its module imports Triton kernels, so the two functions are taken out of it.
    """
    try:
        CACHE.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        if not (sdists := sorted(CACHE.glob("mamba_ssm-*.tar.gz"))):
            # pip asks the sdist for its metadata; these keep it from looking for CUDA.
            skip = {"MAMBA_SKIP_CUDA_BUILD": "TRUE", "MAMBA_FORCE_BUILD": "TRUE"}
            output(
                *pip, "download", "--no-deps", "--no-build-isolation", "--no-binary", "mamba-ssm",
                "--dest", str(CACHE), MAMBA_SSM, env=skip,
            )  # fmt: skip
            sdists = sorted(CACHE.glob("mamba_ssm-*.tar.gz"))
        if not (CACHE / "einops").is_dir():
            output(*pip, "install", "--no-deps", "--target", str(CACHE), EINOPS)
        with tarfile.open(sdists[-1]) as archive:
            (member,) = (m for m in archive.getnames() if m.endswith("/modules/ssd_minimal.py"))
            source = archive.extractfile(member).read()
    except (OSError, ValueError, tarfile.TarError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        print(f"without {MINIMAL}: {MAMBA_SSM} not had: {said.splitlines()[-1]}", file=sys.stderr)
        return None
    sys.path.append(str(CACHE))
    from einops import rearrange, repeat

    tree = ast.parse(source)
    wanted = {"segsum", "ssd_minimal_discrete"}
    tree.body = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name in wanted]
    names = {"torch": torch, "F": F, "rearrange": rearrange, "repeat": repeat}
    exec(compile(tree, member, "exec"), names)
    return names["ssd_minimal_discrete"]


def minimal(
    scan: Callable[..., tuple[Tensor, Tensor]],
    x_BTHP: Tensor,
    log_decay_BTH: Tensor,
    B_BTGN: Tensor,
    C_BTGN: Tensor,
) -> Tensor:
    """mamba-ssm's minimal scan of any length: it wants one dtype, and whole chunks."""
    steps = x_BTHP.shape[1]
    B_BTGN, C_BTGN = B_BTGN.type_as(x_BTHP), C_BTGN.type_as(x_BTHP)
    short = -steps % CHUNK
    if short:
        x_BTHP, B_BTGN, C_BTGN = (
            F.pad(t, (0, 0, 0, 0, 0, short)) for t in (x_BTHP, B_BTGN, C_BTGN)
        )
        log_decay_BTH = F.pad(log_decay_BTH, (0, 0, 0, short))
    return scan(x_BTHP, log_decay_BTH, B_BTGN, C_BTGN, CHUNK)[0][:, :steps]


def sequential(x_BTHP: Tensor, log_decay_BTH: Tensor, B_BTGN: Tensor, C_BTGN: Tensor) -> Tensor:
    """The recurrence as it is defined, step by step: what is right."""
    state_BHPN = x_BTHP.new_zeros(*x_BTHP[:, 0].shape, B_BTGN.shape[-1])
    out = []
    steps = (t.unbind(1) for t in (x_BTHP, log_decay_BTH.exp(), B_BTGN, C_BTGN))
    for x_BHP, decay_BH, B_BGN, C_BGN in zip(*steps, strict=True):
        written_BHPN = x_BHP.unsqueeze(-1) * B_BGN.unsqueeze(-2)
        state_BHPN = decay_BH[..., None, None] * state_BHPN + written_BHPN
        out.append((state_BHPN @ C_BGN.unsqueeze(-1)).squeeze(-1))
    return torch.stack(out, 1)


class PlainBlock(nn.Module):
    """A Mamba-2 block (one group) around a given scan, written as mamba-ssm's own unfused path."""

    def __init__(self, like: mamba2.Mamba2, scan: Callable[..., Tensor]) -> None:
        super().__init__()
        for name in ("in_proj", "conv1d", "dt_bias", "A_log", "D", "norm", "out_proj"):
            setattr(self, name, copy.deepcopy(getattr(like, name)))
        self.scan = scan
        self.inner, self.heads, self.eps = like.d_inner, like.nheads, like.norm.eps
        self.state = like.d_state

    def forward(self, u_BTD: Tensor) -> Tensor:
        z_BTI, conv_BTE, dt_BTH = self.in_proj(u_BTD).split(
            [self.inner, self.inner + 2 * self.state, self.heads], -1
        )
        conv_BTE = F.silu(self.conv1d(conv_BTE.mT)[..., : u_BTD.shape[1]].mT)
        x_BTI, B_BTN, C_BTN = conv_BTE.split([self.inner, self.state, self.state], -1)
        x_BTHP = x_BTI.unflatten(-1, (self.heads, -1))
        dt_BTH = F.softplus(dt_BTH + self.dt_bias)
        y_BTHP = self.scan(
            x_BTHP * dt_BTH.unsqueeze(-1),
            -self.A_log.exp() * dt_BTH,
            B_BTN.unsqueeze(2),
            C_BTN.unsqueeze(2),
        )
        y_BTI = (y_BTHP + self.D.unsqueeze(-1) * x_BTHP).flatten(2) * F.silu(z_BTI)
        return self.out_proj(F.rms_norm(y_BTI, (self.inner,), self.norm.weight, self.eps))


def original(d_model: int = D_MODEL, d_state: int = 64) -> mamba2.Mamba2:
    torch.manual_seed(0)
    return mamba2.Mamba2(d_model, d_state=d_state, headdim=HEADDIM)


def copied(name: str, ours: mamba2.Mamba2) -> nn.Module:
    """A competitor with the weights of ours; the original stays as it is."""
    if name == OURS:
        return copy.deepcopy(ours)
    if name == MINIMAL:
        return PlainBlock(ours, partial(minimal, minimal_scan()))
    from transformers import Mamba2Config, logging
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    logging.set_verbosity_error()  # it says that its CUDA kernels are not there
    config = Mamba2Config(
        hidden_size=ours.d_model,
        state_size=ours.d_state,
        head_dim=ours.headdim,
        num_heads=ours.nheads,
        n_groups=ours.ngroups,
        expand=ours.d_inner // ours.d_model,
        conv_kernel=ours.d_conv,
        layer_norm_epsilon=ours.norm.eps,
        num_hidden_layers=1,
        **({"chunk_size": CHUNK} if name == TRANSFORMERS_64 else {}),
    )
    theirs = Mamba2Mixer(config, layer_idx=0)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return theirs


def competitors(*names: str) -> list[str]:
    """Ours and the peers asked for (all, when none is), as far as they can be had."""
    names = names or (TRANSFORMERS, TRANSFORMERS_64, MINIMAL)
    return [OURS, *(name for name in names if name != MINIMAL or minimal_scan())]


class BothWays(nn.Module):
    """A bidirectional layer of two mixers that only know one direction."""

    def __init__(self, ahead: nn.Module, back: nn.Module) -> None:
        super().__init__()
        self.ahead, self.back = ahead, back

    def forward(self, u_BTD: Tensor) -> Tensor:
        return self.ahead(u_BTD) + self.back(u_BTD.flip(1)).flip(1)


class Residual(nn.Module):
    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, u_BTD: Tensor) -> Tensor:
        for layer in self.layers:
            u_BTD = u_BTD + layer(u_BTD)
        return u_BTD


# ---- measuring ----------------------------------------------------------------------------------


def inputs(batch: int, tokens: int, d_model: int = D_MODEL) -> tuple[Tensor, Tensor]:
    """Input and the gradient of the output."""
    torch.manual_seed(1)
    u_BTD, grad_BTD = torch.randn(2, batch, tokens, d_model).unbind()
    return u_BTD.clone().requires_grad_(), grad_BTD.clone()


def train(module: nn.Module, u_BTD: Tensor, grad_BTD: Tensor) -> Tensor:
    """Forward and backward, with the gradients of the input and of every parameter."""
    u_BTD.grad = None
    module.zero_grad(set_to_none=True)
    out_BTD = module(u_BTD)
    out_BTD.backward(grad_BTD)
    return out_BTD.detach()


def embed(module: nn.Module, u_BTD: Tensor) -> Tensor:
    with torch.inference_mode():
        return module(u_BTD)


def interleaved(
    calls: dict[str, Callable[[], object]],
    rounds: int,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Times:
    """Seconds of each call in each round; at least two rounds, then as many as the time allows."""
    times: Times = {name: [] for name in calls}
    began = time.perf_counter()
    for turn in range(rounds):
        if turn > 1 and (time.perf_counter() - began) * (turn + 1) / turn > seconds:
            break
        for name in list(calls)[:: 1 if turn % 2 == 0 else -1]:
            start = clock()
            calls[name]()
            times[name].append(clock() - start)
    return times


def step_times(
    modules: dict[str, nn.Module],
    shape: tuple[int, int],
    args: argparse.Namespace,
    *,
    d_model: int = D_MODEL,
    forward: bool = False,
    others: dict[str, Callable[[], object]] | None = None,
) -> Times:
    """Forward + backward of each module and, where asked, forward alone under "name, forward"."""
    u_BTD, grad_BTD = inputs(*shape, d_model)
    calls: dict[str, Callable[[], object]] = dict(others or {})
    for name, module in modules.items():
        train(module, u_BTD, grad_BTD)  # what only a first call pays
        calls[name] = lambda m=module: train(m, u_BTD, grad_BTD)
        if forward:
            calls[f"{name}, forward"] = lambda m=module: embed(m, u_BTD)
    return interleaved(calls, args.rounds, args.seconds)


@contextlib.contextmanager
def float32_products(library: str) -> Iterator[None]:
    """Send float32 products to oneDNN, or leave them with MKL."""
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = {"MKL": "ieee", "oneDNN": "bf16"}[library]
    try:
        yield
    finally:
        matmul.fp32_precision = before


@cache
def gemms() -> dict[str, Callable[[], Tensor]]:
    """Large float32 products by library; oneDNN is left out where it rounds to bfloat16 (AMX)."""
    torch.manual_seed(2)
    left, right = torch.randn(2, GEMM_SIZE, GEMM_SIZE).unbind()

    def product(library: str) -> Tensor:
        with float32_products(library):
            return left @ right

    calls = {library: partial(product, library) for library in ("MKL", "oneDNN")}
    exact = left.double() @ right.double()
    return {name: call for name, call in calls.items() if relative(call(), exact) < 1e-5}


def gemm_rate(times: Times, middle: Callable[[list[float]], float]) -> float:
    """FLOP/s of the faster library."""
    return 2 * GEMM_SIZE**3 / min(middle(times[name]) for name in gemms())


def product_flops(d_state: int, batch: int, tokens: int) -> float:
    """The forward pass's own matrix products at chunk 64; the backward pass has twice as many."""
    inner = 2 * D_MODEL
    heads, chunk = inner // HEADDIM, min(CHUNK, tokens)
    per_token = 2 * D_MODEL * (2 * inner + 2 * d_state + heads) + 2 * inner * D_MODEL
    per_token += 2 * chunk * d_state + 2 * chunk * inner  # C B^T, and its weights on x
    if tokens > chunk:
        per_token += 2 * 2 * d_state * inner  # states written, and read
    return float(per_token * batch * tokens)


def relative(found: Tensor, right: Tensor) -> float:
    """Largest error over the largest value."""
    return float((found.double() - right).abs().max() / right.abs().max())


def memory_mb(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"/proc/self/status has no {field}")


def peak(name: str, d_state: int, batch: int, tokens: int) -> float:
    """MB that the first forward + backward needs beyond what is there before; in its own process."""
    module = copied(name, original(d_state=d_state))
    u_BTD, grad_BTD = inputs(batch, tokens)
    before = memory_mb("VmRSS")
    with contextlib.suppress(OSError):  # where the peak cannot be reset, imports count too
        Path("/proc/self/clear_refs").write_text("5")
    train(module, u_BTD, grad_BTD)
    return memory_mb("VmHWM") - before


def helped(
    library: str | None, shapes: list[tuple[int, int]], rounds: int, seconds: float
) -> list[Times]:
    """Times of all under the allocator of this process and, where named, one library's products."""
    ours = original()
    modules = {name: copied(name, ours) for name in competitors()}
    args = argparse.Namespace(rounds=rounds, seconds=seconds)
    if library:
        products.use(library == "oneDNN")
    with float32_products(library) if library else contextlib.nullcontext():
        return [step_times(modules, shape, args) for shape in shapes]


def in_a_process(function: Callable, *arguments: object, env: dict[str, str] | None = None):
    call = json.dumps([function.__name__, arguments])
    try:
        said = output(sys.executable, __file__, "--child", call, env=env)
    except subprocess.CalledProcessError as error:
        sys.exit(f"{call} failed: {error.stderr}")
    return json.loads(said.splitlines()[-1])


def output(*command: str, env: dict[str, str] | None = None) -> str:
    return subprocess.run(
        command,
        env={**os.environ, **(env or {})},
        check=True,
        capture_output=True,
        text=True,
    ).stdout


# ---- writing down -------------------------------------------------------------------------------


def header(title: str, *columns: str) -> None:
    print(f"\n### {title}\n")
    row(*columns)
    row(*["---"] * len(columns))


def row(*cells: object) -> None:
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def brief(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def ms(values: list[float]) -> str:
    return f"{brief(1e3 * statistics.median(values))} [{brief(1e3 * min(values))}]"


def ratio(times: Times, peer: str, asked: float | None = None, ours: str = OURS) -> str:
    """How many times as long a peer takes; bold where less than asked for."""
    middle, low = (f(times[peer]) / f(times[ours]) for f in (statistics.median, min))
    text = f"{brief(middle)} × [{brief(low)} ×]"
    if asked is None:
        return text
    return f"{text}, asked {asked:g}" if middle >= asked else f"**{text}, asked {asked:g}**"


def beside(times: Times, names: list[str], asked: dict[str, float] | None = None, after: str = ""):
    """Cells: our time, then each peer's time and ratio."""
    yield ms(times[OURS + after])
    for name in names[1:]:
        told = ratio(times, name + after, (asked or {}).get(name), OURS + after)
        yield f"{ms(times[name + after])}: {told}"


def gained(times: Times, before: str, after: str) -> str:
    """The time after a change, and how many times as long it took before."""
    return f"{ms(times[after])}: {ratio(times, before, ours=after)}"


def preamble() -> None:
    from importlib.metadata import version

    cpu = dict(
        line.split(":", 1)
        for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    )
    cpu = {key.strip(): value.strip() for key, value in cpu.items()}
    try:
        commit = output("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty")
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    print(
        f"torch {torch.__version__}, transformers {version('transformers')}, {MAMBA_SSM}; "
        f"{cpu.get('model name')} (family {cpu.get('cpu family')}, model {cpu.get('model')}; "
        f"{torch.backends.cpu.get_cpu_capability()}), {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads; OMP_WAIT_POLICY {os.environ.get('OMP_WAIT_POLICY')}; commit "
        f"{commit.strip()}; d_model {D_MODEL}, headdim {HEADDIM}, float32; median [minimum]"
    )


# ---- sections -----------------------------------------------------------------------------------


def accuracy(args: argparse.Namespace) -> None:
    """Everyone against the sequential recurrence in float64, and against us."""
    header(
        "Accuracy: largest error over largest value, (2, 512), against the recurrence in float64",
        "block", "output", "gradient of the input", "worst gradient of a parameter", "output against remit",
    )  # fmt: skip
    ours = original()
    u_BTD, grad_BTD = inputs(2, 512)

    def run(module: nn.Module, dtype: torch.dtype) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        u = u_BTD.detach().to(dtype).requires_grad_()
        out_BTD = train(module, u, grad_BTD.to(dtype))
        return out_BTD, u.grad, {name: p.grad for name, p in module.named_parameters()}

    right_out, right_u, right = run(PlainBlock(ours, sequential).double(), torch.float64)
    our_out = None
    for name in competitors():
        out_BTD, u_grad, grads = run(copied(name, ours), torch.float32)
        our_out = out_BTD.double() if our_out is None else our_out
        worst = max(right, key=lambda key, grads=grads: relative(grads[key], right[key]))
        row(
            name,
            f"{relative(out_BTD, right_out):.1e}",
            f"{relative(u_grad, right_u):.1e}",
            f"{relative(grads[worst], right[worst]):.1e} ({worst})",
            f"{relative(out_BTD, our_out):.1e}",
        )
        if relative(out_BTD, right_out) > 1e-4:
            sys.exit(f"{name} does not give the same output: nothing to compare")


def table(args: argparse.Namespace) -> None:
    names = competitors()
    columns = ("d_state, (batch, tokens)", "floor, ms", "remit, ms", "of the floor")
    header(
        "Forward + backward, ms; peers with the times they take longer",
        *columns, *names[1:], "GF/s of " + ", ".join(gemms()),
    )  # fmt: skip
    forwards = []
    for d_state, shapes in ((64, SHAPES + EEG_SHAPES), (128, SHAPES)):
        ours = original(d_state=d_state)
        modules = {name: copied(name, ours) for name in names}
        for shape in shapes:
            times = step_times(modules, shape, args, forward=True, others=dict(gemms()))
            found = {}
            for after, factor in ((", forward", 1), ("", 3)):
                floor, low = (
                    factor * product_flops(d_state, *shape) / gemm_rate(times, middle)
                    for middle in (statistics.median, min)
                )
                share = floor / statistics.median(times[OURS + after])
                asked = ASKED_SHARE.get((d_state, *shape)) if not after else None
                told = f"{share:.0%} [{low / min(times[OURS + after]):.0%}]"
                if asked:
                    told += f", asked {asked:.0%}"
                    told = told if share >= asked else f"**{told}**"
                wanted = ASKED.get((d_state, *shape)) if not after else None
                mine, *others = beside(times, names, wanted, after)
                found[after] = (
                    f"{d_state}, {shape}", brief(1e3 * floor), mine, told, *others
                )  # fmt: skip
            rates = (
                f"{2e-9 * GEMM_SIZE**3 / statistics.median(times[gemm]):.0f}" for gemm in gemms()
            )
            row(*found[""], ", ".join(rates))
            forwards.append(found[", forward"])
    header("Forward alone (inference mode), the same rounds, ms", *columns, *names[1:])
    for cells in forwards:
        row(*cells)


def memory(args: argparse.Namespace) -> None:
    names = competitors()
    header(
        "Extra peak memory of the first forward + backward at (8, 2048), MB, and ours over the peer's",
        "d_state", *names,
    )  # fmt: skip
    for d_state in (64, 128):
        peaks = {name: in_a_process(peak, name, d_state, 8, 2048) for name in names}
        cells = [f"{peaks[OURS]:.0f}"]
        for name in names[1:]:
            share, asked = peaks[OURS] / peaks[name], ASKED_MEMORY.get(name)
            told = f"{peaks[name]:.0f}: {share:.2f}"
            if asked and d_state == 64:
                told += f", asked {asked}"
                told = told if share <= asked else f"**{told}**"
            cells.append(told)
        row(d_state, *cells)


def malloc(args: argparse.Namespace) -> None:
    names = competitors()
    header(
        "The same help for all: forward + backward, d_state 64, ms",
        "help",
        "(batch, tokens)",
        *names,
    )
    for told, (env, library) in HELP.items():
        shapes = SHAPES[:2]
        found = in_a_process(helped, library, shapes, args.rounds, args.seconds / 4, env=env)
        for shape, times in zip(shapes, found, strict=True):
            row(told, shape, *beside(times, names))


def length(args: argparse.Namespace) -> None:
    """Cost against length, batch and width: forward + backward, d_state 64."""
    names = competitors(TRANSFORMERS_64, MINIMAL)
    ours = original()
    modules = {name: copied(name, ours) for name in names}
    header(
        "Against length, one sequence: forward + backward, µs per token, and remit's extra peak memory",
        "tokens", *names, "MB of remit", "kB per token",
    )  # fmt: skip
    for k in range(7, 17):
        tokens = 2**k
        # The peers' cost between chunks grows with the square of the length.
        present = modules if tokens <= 2**14 else {OURS: modules[OURS]}
        times = step_times(present, (1, tokens), short(args))
        # Every other length: a process for each takes its time.
        mb = in_a_process(peak, OURS, 64, 1, tokens) if k % 2 == 0 else None
        cells = (
            f"{1e6 * statistics.median(times[name]) / tokens:.1f} [{1e6 * min(times[name]) / tokens:.1f}]"
            if name in times
            else "-"
            for name in names
        )
        used = ("-", "-") if mb is None else (f"{mb:.0f}", f"{1024 * mb / tokens:.1f}")
        row(tokens, *cells, *used)
    header("Against batch, 512 tokens: forward + backward, ms", "batch", *names)
    for batch in (2**k for k in range(7)):
        row(batch, *beside(step_times(modules, (batch, 512), short(args)), names))
    header("Against width, (8, 512): forward + backward, ms", "d_model", *names)
    for d_model in (64, 128, 256, 512):
        ours = original(d_model)
        modules = {name: copied(name, ours) for name in names}
        times = step_times(modules, (8, 512), short(args), d_model=d_model)
        row(d_model, *beside(times, names))


def short(args: argparse.Namespace) -> argparse.Namespace:
    return argparse.Namespace(rounds=args.rounds, seconds=args.seconds / 4)


def stack(args: argparse.Namespace) -> None:
    """Two bidirectional layers with residuals; peers run each direction with flips around it."""
    names = competitors(TRANSFORMERS_64, MINIMAL)
    header(
        "Two bidirectional layers, d_state 64: forward + backward, ms",
        "weights of the directions", "(batch, tokens)", *names,
    )  # fmt: skip
    for shared in (False, True):
        torch.manual_seed(0)
        layers = [
            mamba2.BidirectionalMamba2(D_MODEL, d_state=64, headdim=HEADDIM, shared=shared)
            for _ in range(2)
        ]
        modules: dict[str, nn.Module] = {OURS: Residual(layers)}
        for name in names[1:]:
            both = []
            for layer in layers:
                ahead = copied(name, layer.forward_mixer)
                back = ahead if shared else copied(name, layer.backward_mixer)
                both.append(BothWays(ahead, back))
            modules[name] = Residual(both)
        u_BTD, _ = inputs(2, 200)
        right = embed(modules[OURS], u_BTD)
        for name in names[1:]:
            if relative(embed(modules[name], u_BTD), right) > 1e-4:
                sys.exit(f"{name} both ways does not give the same output: nothing to compare")
        for shape in ((8, 512), (8, 2048)):
            times = step_times(modules, shape, args)
            row("shared" if shared else "separate", shape, *beside(times, names))


def bf16(args: argparse.Namespace) -> None:
    """bfloat16 products, ours by its setting and the peers' by autocast; error beside the time."""
    names = competitors(TRANSFORMERS_64, MINIMAL)
    ours = original()
    exact = {name: copied(name, ours) for name in names}
    half = {name: Autocast(copied(name, ours)) for name in names[1:]}
    half[OURS] = copied(OURS, ours)
    half[OURS].precision = "bfloat16"
    header(
        "bfloat16 products, d_state 64: forward + backward, ms, and float32 of the same block over it",
        "(batch, tokens)", *names,
    )  # fmt: skip
    both = exact | {f"{name}, bf16": module for name, module in half.items()}
    for shape in ((8, 512), (8, 2048)):
        times = step_times(both, shape, args)
        row(shape, *(gained(times, name, f"{name}, bf16") for name in names))
    u_BTD, _ = inputs(2, 512)
    right = embed(exact[OURS], u_BTD)
    row("error of the output", *(f"{relative(embed(half[n], u_BTD), right):.1e}" for n in names))


class Autocast(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, u_BTD: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.module(u_BTD).to(u_BTD.dtype)


def compiled(args: argparse.Namespace) -> None:
    """torch.compile with an empty cache: seconds of the first call, and what the later ones gain."""
    shape = SHAPES[0]
    names = competitors(TRANSFORMERS_64, MINIMAL)
    ours = original()
    modules: dict[str, nn.Module] = {}
    first = {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        for name in names:
            modules[name] = copied(name, ours)
            modules[f"{name}, compiled"] = torch.compile(copied(name, ours), dynamic=False)
            began = time.perf_counter()
            train(modules[f"{name}, compiled"], *inputs(*shape))
            first[name] = time.perf_counter() - began
        u_BTD, grad_BTD = inputs(*shape)
        calls = {key: lambda m=module: train(m, u_BTD, grad_BTD) for key, module in modules.items()}
        times = interleaved(calls, args.rounds, args.seconds)
    header(
        f"torch.compile at {shape}, d_state 64: forward + backward",
        "block", "first call, s", "compiled, ms", "plain, ms", "gain", "calls until it pays",
    )  # fmt: skip
    for name in names:
        quick, slow = times[f"{name}, compiled"], times[name]
        gain = statistics.median(slow) - statistics.median(quick)
        row(
            name, f"{first[name]:.0f}", ms(quick), ms(slow), ratio(times, name, ours=f"{name}, compiled"),
            f"{first[name] / gain:.0f}" if gain > 0 else "never",
        )  # fmt: skip


def step(args: argparse.Namespace) -> None:
    """A step of pretraining at the demo's size (d256 l2, 16 sequences of 32 x 4 tokens): what
    model.precision: bfloat16 and execution.compile change, as the trainings set them up."""
    from remit.config import Pretraining
    from remit.naming import ModelName
    from remit.nn.encoder import Encoder, EncoderSettings
    from remit.nn.masking import sequence_mask
    from remit.training.reconstruction import MaskedBatch, Reconstruction
    from remit.training.runtime import compile_module

    sequences, steps, channels, samples = 16, 32, 4, 64
    torch.manual_seed(1)
    positions_C3 = torch.randn(channels, 3) * 0.05
    rng = np.random.default_rng(1)
    masked_BKC = torch.from_numpy(
        np.stack(
            [
                sequence_mask(
                    steps,
                    steps,
                    channels,
                    0.5,
                    block_steps=(2, 4),
                    rng=rng,
                    single_channel_fraction=0.5,
                )
                for _ in range(sequences)
            ]
        )
    )
    index_KC = torch.arange(steps * channels).view(steps, channels)
    batch = MaskedBatch(
        torch.randn(sequences, steps, channels, samples),
        torch.ones(sequences, steps, dtype=torch.bool),
        masked_BKC,
        masked_BKC,
        index_KC.expand(sequences, -1, -1).contiguous(),
        torch.arange(sequences),
    )

    def model(precision: str) -> Reconstruction:
        torch.manual_seed(0)
        settings = EncoderSettings(D_MODEL, 2, samples, precision=precision)
        made = Reconstruction(
            Encoder(settings, positions_C3), Pretraining(), ModelName(D_MODEL, 2, 50, "mae"), 128.0
        )
        made.spectrum.fit(batch.samples_BKCS.flatten(0, 2))
        return made.train()

    def once(made: Reconstruction) -> float:
        made.zero_grad(set_to_none=True)
        loss, _ = made(batch)
        loss.backward()
        return float(loss.detach())

    models = {"plain": model("float32"), "bfloat16": model("bfloat16")}
    first = {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        if args.compile:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
            for name in list(models):
                models[f"{name}, compiled"] = model(name.replace("plain", "float32"))
                compile_module(models[f"{name}, compiled"], torch.device("cpu"))
        losses = {}
        for name, made in models.items():
            began = time.perf_counter()
            losses[name] = once(made)
            first[name] = time.perf_counter() - began
        times = interleaved(
            {name: partial(once, made) for name, made in models.items()}, args.rounds, args.seconds
        )
    header(
        f"A pretraining step, {sequences} sequences of {steps} x {channels} tokens, d{D_MODEL} l2",
        "as", "first step, s", "step, ms", "plain over it", "loss, and its distance from plain",
    )  # fmt: skip
    for name, found in times.items():
        gain = statistics.median(times["plain"]) / statistics.median(found)
        off = abs(losses[name] / losses["plain"] - 1)
        row(
            name, f"{first[name]:.1f}", ms(found), f"{gain:.2f} x", f"{losses[name]:.4f}, {off:.0e}"
        )


def overhead(args: argparse.Namespace) -> None:
    """A whole step of pretraining (d256 l2, the defaults) beside its matrix products and scans alone.

    These are the blocks, and the bare products of what surrounds them: samples to tokens, perceptron,
    electrodes and heads, backwards as far as a step needs them.
    """
    from remit.config import Model, Pretraining
    from remit.dataset.corpus import Read
    from remit.naming import ModelName
    from remit.nn.encoder import Encoder, EncoderSettings
    from remit.nn.heads import LogSpectrum, fit_spectra
    from remit.training import pretrain

    sequences, channels, samples = Pretraining().batch_size, 4, 128
    settings, name, cpu = Pretraining(), ModelName(D_MODEL, 2, 20, "mae"), torch.device("cpu")
    hidden = Model().token_hidden
    bins = int(Model().token_spectrum_hz * samples / 256)
    header(
        f"A whole step of pretraining, d{D_MODEL} l2, beside its products and scans",
        "sequences x tokens", "clock", "blocks, ms", "other products, ms", "step, ms",
        "step over both", "data and masks, ms", "AdamW, clipping, ms",
    )  # fmt: skip

    def products_of(tokens: int, masked: int, frequencies: int) -> Callable[[], None]:
        sizes = [  # rows, from, to, and whether a gradient goes further back
            (tokens, samples, D_MODEL, False), (tokens, samples, hidden, False),
            (tokens, hidden, D_MODEL, True), (tokens, bins, D_MODEL, False),
            (channels, D_MODEL, D_MODEL, False),
            (masked, D_MODEL, samples, True), (masked, D_MODEL, frequencies, True),
        ]  # fmt: skip
        factors = [
            (torch.randn(n, i), torch.randn(i, o), torch.randn(n, o), back)
            for n, i, o, back in sizes
        ]

        def multiply() -> None:
            for rows_NI, weight_IO, grad_NO, back in factors:
                _ = rows_NI @ weight_IO, rows_NI.T @ grad_NO
                _ = grad_NO @ weight_IO.T if back else None

        return multiply

    for tokens in (128, 512):
        torch.manual_seed(0)
        steps = tokens // channels
        sizes = EncoderSettings(D_MODEL, 2, samples, token_hidden=hidden, spectrum_bins=bins)
        encoder = Encoder(sizes, torch.randn(channels, 3) * 0.05)
        model = pretrain.Reconstruction(encoder, settings, name, 256.0).train()
        names = tuple(f"electrode {number}" for number in range(channels))
        read = Read(
            names,
            torch.randn(sequences, steps, channels, samples),
            torch.ones(sequences, steps, dtype=torch.bool),
            np.arange(sequences),
            np.zeros(sequences, dtype=np.int64),
        )
        spectra = [part for part in model.modules() if isinstance(part, LogSpectrum)]
        fit_spectra(spectra, read.samples_BKCS.flatten(0, 2))
        optimiser = torch.optim.AdamW(pretrain.parameter_groups(model, settings.weight_decay))
        epoch = iter(range(1, 10**9))

        def data(model=model, read=read, epoch=epoch) -> list:
            at = next(epoch)
            changed = pretrain.augmented(read, settings, (0, 1, at))
            return pretrain.masked_batches(model, [changed], {read.channels: None}, (0, 2, at), cpu)

        def update(model=model, optimiser=optimiser) -> None:
            norm = nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_clip)
            assert torch.isfinite(norm)
            optimiser.step()

        def whole(model=model, data=data, update=update) -> None:
            mine = data()
            count = sum(batch.masked_BKC.sum() for batch in mine)
            pretrain.accumulate(model, mine, count, sequences)
            update()
            model.after_step()

        masked = sequences * round(name.mask_ratio * tokens)
        blocks = nn.Sequential(*encoder.blocks)
        calls = {
            "whole": whole,
            "blocks": partial(train, blocks, *inputs(sequences, tokens)),
            "products": products_of(sequences * tokens, masked, model.spectrum.num_frequencies),
            "data": data,
            "update": update,
        }
        for call in calls.values():
            call()
        for clock, threads in ((time.perf_counter, THREADS), (time.process_time, 1)):
            torch.set_num_threads(threads)
            times = interleaved(calls, args.rounds, args.seconds, clock)
            both = [a + b for a, b in zip(times["blocks"], times["products"], strict=True)]
            over = statistics.median(times["whole"]) / statistics.median(both)
            row(
                f"{sequences} x {tokens}", f"{clock.__name__}, {threads} threads", ms(times["blocks"]),
                ms(times["products"]), ms(times["whole"]), f"{over:.2f}", ms(times["data"]),
                ms(times["update"]),
            )  # fmt: skip
        torch.set_num_threads(THREADS)


def child(call: str) -> None:
    name, arguments = json.loads(call)
    result = {f.__name__: f for f in (peak, helped)}[name](*arguments)
    print(json.dumps(result))


def main() -> None:
    sections = {
        "accuracy": accuracy,
        "table": table,
        "memory": memory,
        "malloc": malloc,
        "length": length,
        "stack": stack,
        "bf16": bf16,
        "step": step,
        "overhead": overhead,
        "compile": compiled,
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", choices=[*sections, "all", []], help="default: all")
    parser.add_argument("--rounds", type=int, default=5, help="at most, default 5")
    parser.add_argument(
        "--seconds", type=float, default=9, help="for the rounds of one row, default 9"
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile too, which is slow")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    if args.child:
        child(args.child)
        return
    chosen = args.sections or ["all"]
    if "all" in chosen:
        chosen = [name for name in sections if name != "compile"]
    if args.compile and "compile" not in chosen:
        chosen.append("compile")
    preamble()
    for name in chosen:
        began = time.perf_counter()
        sections[name](args)
        print(f"\n({name}: {time.perf_counter() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
