"""Tensors that say they are on CUDA and compute on the CPU.

What a real device refuses is refused: operands on different devices, random numbers of the CPU's generator,
numpy's look at its memory, and, where algorithms have to be deterministic, what remit could meet that has
no such code on CUDA. Not to be learned here: speed, memory, streams, inference mode (which is that of no
gradient), CUDA's random numbers, and the last digits of its kernels. Only the thread that installs it, and
autograd's, can bring tensors there.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

SOURCE = Path(__file__).with_name("cuda.cpp")


class CannotPretendError(Exception):
    """Why there can be no pretended device here."""


def load(folder: Path) -> None:
    """Compile and load what stands in for PyTorch's CUDA; torch must not have been imported.

    Raises :class:`CannotPretendError` where PyTorch has CUDA of its own, or nothing compiles.
    """
    spec = find_spec("torch")
    assert spec and spec.origin
    torch_folder = Path(spec.origin).parent
    library, libraries = folder / "cuda.so", torch_folder / "lib"
    if sys.platform != "linux" or [
        *libraries.glob("libtorch_cuda*"),
        *libraries.glob("libtorch_hip*"),
    ]:
        raise CannotPretendError("needs Linux and a build of torch without CUDA or ROCm")
    command = [
        "g++",
        "-std=c++20",
        "-shared",
        "-fPIC",
        f"-I{torch_folder / 'include'}",
        str(SOURCE),
    ]
    command += [
        "-o",
        str(library),
        f"-L{libraries}",
        "-lc10",
        "-ltorch_cpu",
        f"-Wl,-rpath,{libraries}",
    ]
    try:
        subprocess.run(command, check=True, timeout=300, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", "") or str(error)
        raise CannotPretendError(f"needs a compiler for C++20; {said.splitlines()[0]}") from None
    ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)


def install() -> Callable[[], int]:
    """Let torch find one CUDA device, for good; returns what counts the operations on it."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves, tree_map

    aten = torch.ops.aten
    cpu, cuda = torch.device("cpu"), torch.device("cuda", 0)

    operations = 0

    class OnCuda(torch.Tensor):
        """A tensor of the CPU that says it is on the device."""

        inner: torch.Tensor

        def _no_data(self, _value: Any) -> None:
            raise NotImplementedError("a pretended tensor cannot be given other data")

        data = property(lambda self: self.detach(), _no_data)

        @staticmethod
        def __new__(cls, inner: torch.Tensor) -> OnCuda:
            made = torch.Tensor._make_wrapper_subclass(
                cls,
                inner.shape,
                strides=inner.stride(),
                storage_offset=inner.storage_offset(),
                dtype=inner.dtype,
                device=cuda,
            )
            made.inner = inner
            return made

        def __repr__(self, *, tensor_contents: Any = None) -> str:
            return f"{self.inner!r} on cuda"

        def __getitem__(self, index: Any) -> Any:
            return super().__getitem__(tensors(index))

        def __setitem__(self, index: Any, value: Any) -> None:
            super().__setitem__(tensors(index), value)

        def tolist(self) -> Any:
            return self.cpu().tolist()

        def numpy(self, *, force: bool = False) -> Any:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")

        def __reduce_ex__(self, protocol: Any) -> Any:
            return self.inner.__reduce_ex__(protocol)  # as map_location="cpu" reads it back

        @classmethod
        def __torch_dispatch__(
            cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            return run(operation, args, kwargs or {})

    def tensors(index: Any) -> Any:
        """An index with tensors for lists, from which PyTorch makes them where no mode sees it."""
        if isinstance(index, list):
            return torch.tensor(index)
        return tuple(map(tensors, index)) if isinstance(index, tuple) else index

    def run(operation: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        given = [part for part in tree_leaves((args, kwargs)) if isinstance(part, torch.Tensor)]
        ours = [part for part in given if isinstance(part, OnCuda)]
        target = kwargs.get("device")
        if target is not None:
            target = torch.device(target)
        if not ours and (target is None or target.type == "cpu"):
            return operation(*args, **kwargs)
        nonlocal operations
        operations += 1
        packet = operation.overloadpacket
        if ours:
            check_devices(operation, args, kwargs)
        generator = kwargs.get("generator")
        if generator is not None and generator.device.type == "cpu":
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        check_deterministic(packet, args)
        known = {id(part.inner): part for part in ours}

        def down(value: Any) -> Any:
            if isinstance(value, OnCuda):
                return value.inner
            return cpu if isinstance(value, torch.device) else value

        out = operation(*tree_map(down, args), **tree_map(down, dict(kwargs)))
        if (target is not None and target.type == "cpu") or (
            packet is aten.copy_ and not isinstance(args[0], OnCuda)
        ):
            return out

        def up(value: Any) -> Any:
            if not isinstance(value, torch.Tensor):
                return value
            made = known.get(id(value))
            if made is None:
                return OnCuda(value)
            if (made.shape, made.stride()) != (value.shape, value.stride()):
                raise NotImplementedError(f"{packet} changed the shape of a pretended tensor")
            return made

        return tree_map(up, out)

    # Where a number on the CPU may stand beside tensors on the device, other than in pointwise operations.
    takes_numbers = {aten.where, aten.masked_fill, aten.masked_fill_, aten.fill, aten.fill_}
    by_index = {aten.index, aten.index_put, aten.index_put_}

    def check_devices(operation: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        packet = operation.overloadpacket
        if packet in (aten._to_copy, aten.copy_):
            return
        looked_at: Any = (args, kwargs)
        if packet in by_index and isinstance(args[0], OnCuda):
            looked_at = (args[0], args[2:], kwargs)  # its indices may be on the CPU
        others = [
            part
            for part in tree_leaves(looked_at)
            if isinstance(part, torch.Tensor) and not isinstance(part, OnCuda)
        ]
        numbers = torch.Tag.pointwise in operation.tags or packet in takes_numbers | by_index
        written = [kwargs.get("out"), args[0] if packet.__name__.endswith("_") else None]
        if any(part.dim() or not numbers or any(part is to for to in written) for part in others):
            raise RuntimeError(
                f"{packet}: expected all tensors to be on the same device, but found at least two devices, "
                "cuda:0 and cpu!"
            )

    # What remit could meet of torch.use_deterministic_algorithms.__doc__ that throws on CUDA, but for
    # cumsum: since pytorch/pytorch#140887 that has deterministic code, unknown to the text of torch 2.13.
    throws = {
        aten.put_,
        aten.histc,
        aten.nll_loss2d_forward,
        aten.adaptive_max_pool2d_backward,
        aten._adaptive_avg_pool2d_backward,
        aten.avg_pool3d_backward,
        aten.reflection_pad1d_backward,
        aten.reflection_pad2d_backward,
        aten.upsample_linear1d_backward,
        aten.upsample_bilinear2d_backward,
    }
    throws_where: dict[Any, Callable[[tuple[Any, ...]], bool]] = {
        aten.bincount: lambda args: len(args) > 1 and args[1] is not None,  # with weights
        aten.median: lambda args: len(args) > 1,  # along a dimension
        aten.scatter_reduce: lambda args: "prod" in args,
        aten.scatter_reduce_: lambda args: "prod" in args,
    }

    def check_deterministic(packet: Any, args: tuple[Any, ...]) -> None:
        if not torch.are_deterministic_algorithms_enabled():
            return
        if packet in throws or (packet in throws_where and throws_where[packet](args)):
            raise RuntimeError(f"{packet} does not have a deterministic implementation")

    class Device(TorchDispatchMode):
        """Makes tensors on the device, and moves them there."""

        def __torch_dispatch__(
            self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            return run(operation, args, kwargs or {})

    said = {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "is_bf16_supported": lambda including_emulation=True: True,
        "get_device_name": lambda device=None: "pretended",
        "get_device_properties": lambda device=None: SimpleNamespace(
            name="pretended", total_memory=2**33, major=9, minor=0
        ),
        "empty_cache": lambda: None,
        "manual_seed_all": lambda seed: None,
    }
    for name, answer in said.items():
        setattr(torch.cuda, name, answer)
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    # Tensors of another class cannot be views of others in inference mode.
    torch.inference_mode = lambda mode=True: (
        torch.set_grad_enabled(False) if mode else nullcontext()
    )
    keep_marks(torch)
    # torch.tensor makes its tensor here then, and moves it where a mode sees it.
    torch._C._set_only_lift_cpu_tensors(True)
    Device().__enter__()
    return lambda: operations


def keep_marks(torch: Any) -> None:
    """Modules that are moved get other parameters here; what was said of the old ones is said of them."""
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    apply = torch.nn.Module._apply

    def applied(self: Any, *args: Any, **kwargs: Any) -> Any:
        before = dict(self._parameters)
        apply(self, *args, **kwargs)
        for name, parameter in before.items():
            if parameter is not None:
                marks = {k: v for k, v in vars(parameter).items() if k != "inner"}
                vars(self._parameters[name]).update(marks)
        return self

    torch.nn.Module._apply = applied
