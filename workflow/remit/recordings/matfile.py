"""MATLAB files of version 5 to 7.3, checked before a library sees them, as one kind of value.

Traps: scipy takes the type codes in a version 5 file for indices and dies with the process (no
exception) on an unknown one, so every element's type and size are walked through first, and a
compressed variable is unpacked to its end, where its checksum is. scipy gives doubles that MATLAB
packed into bytes as uint8; asked for MATLAB's own types it drops the imaginary part of complex
numbers; so files with whole numbers are read both ways. A version 7.3 file is HDF5 with every axis
reversed; pymatreader squeezes axes and flattens cells, so h5py reads it here.

What `load` gives: numbers as float or integer arrays in MATLAB's orientation, or as `Stored` where
they lie unread in a 7.3 file; text as an array of str, one item per row; a cell array as an object
array; a struct or struct array as `Struct`; anything else as `Other`.
"""

from __future__ import annotations

import math
import os
import struct
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from remit.errors import RemitError

if TYPE_CHECKING:
    import numpy as np

HDF5 = b"\x89HDF\r\n\x1a\n"
_HEADER_BYTES = 128
_MATRIX, _COMPRESSED = 14, 15
# The data types that scipy has a place for in its table; any other is an index out of it.
_DATA_TYPES = {1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 16, 17, 18}
_DEEPEST = 32
_OPAQUE = 17  # class of strings, tables and objects
_MOST_AXES = 32
_LONGEST_NAME = 4096
_PIECE = 1 << 20
_FEW = 64
_SMALL = 4096  # numbers that are read at once; larger arrays of a 7.3 file are left `Stored`
_LARGEST_EMPTY = 1 << 28  # bytes that a file may promise without holding a 200th of them
_LARGEST_RATIO = 200
_MOST_ITEMS = 200_000  # in cells and structs of a 7.3 file, which may refer to themselves


@dataclass(frozen=True)
class Stored:
    """Numbers in a version 7.3 file that have not been read.

    `place`: an HDF5 reference (a name costs h5py a search through the file). `shape` is MATLAB's.
    """

    path: Path
    place: Any
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Other:
    """Something that holds no recording: `kind` says what, such as 'sparse' or 'table'."""

    kind: str
    shape: tuple[int, ...] = ()


class Struct:
    """A struct (1x1) or struct array; a field's values are read when they are asked for."""

    def __init__(self, shape: tuple[int, ...], columns: dict[str, Any], path: Path | None) -> None:
        self.shape = shape
        self._columns = columns
        self._path = path

    @property
    def names(self) -> tuple[str, ...]:
        """The fields, in the order of the file."""
        return tuple(self._columns)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def column(self, name: str, chosen: Sequence[int] | None = None) -> list[Any]:
        """A field's value in every element or the chosen ones, in MATLAB's order (columns first).

        Raises RemitError for a damaged file.
        """
        stored = self._columns[name]
        if self._path is None or isinstance(stored, list):
            return list(stored) if chosen is None else [stored[index] for index in chosen]
        import h5py

        try:
            with h5py.File(self._path, "r", locking=False) as opened:
                # Reversed axes in C order are MATLAB's axes in MATLAB's order.
                references = opened[stored][()].ravel()
                references = references if chosen is None else references[list(chosen)]
                left = [_MOST_ITEMS]
                return [_hdf5_value(self._path, opened[item], 1, left) for item in references]
        except RemitError:
            raise
        except Exception as error:  # h5py raises many kinds for a damaged file
            raise _unreadable(self._path, "h5py", error) from error

    def element(self, index: int) -> dict[str, Any]:
        """One element's fields."""
        return {name: self.column(name, [index])[0] for name in self.names}

    def elements(self) -> list[dict[str, Any]]:
        """Every element's fields."""
        columns = {name: self.column(name) for name in self.names}
        return [{name: columns[name][i] for name in columns} for i in range(self.size)]


def is_mat(path: Path) -> bool:
    """Whether the first bytes are those of a .mat file of version 5 to 7.3."""
    with path.open("rb") as opened:
        start = opened.read(_HEADER_BYTES)
    return start.startswith((b"MATLAB", HDF5)) or start[124:128] in (b"\0\1IM", b"\1\0MI")


def variables(path: Path) -> list[str]:
    """Names of the variables, in the library's order; raises RemitError for a damaged file."""
    if _is_hdf5(path):
        import h5py

        try:
            with h5py.File(path, "r", locking=False) as opened:
                return [name for name in opened if not name.startswith("#")]
        except Exception as error:
            raise _unreadable(path, "h5py", error) from error
    _check(path, thoroughly=False)
    import scipy.io

    try:
        return [name for name, *_ in scipy.io.whosmat(str(path), appendmat=False)]
    except Exception as error:  # scipy raises many kinds for a damaged file
        raise _unreadable(path, "scipy", error) from error


def load(path: Path, names: Sequence[str] | None = None) -> dict[str, Any]:
    """Variables by name, all or those of `names` that are there.

    Raises RemitError for a file that is cut or damaged.
    """
    if _is_hdf5(path):
        import h5py

        try:
            with h5py.File(path, "r", locking=False) as opened:
                wanted = [
                    name
                    for name in opened
                    if not name.startswith("#") and (names is None or name in names)
                ]
                left = [_MOST_ITEMS]
                return {name: _hdf5_value(path, _child(opened, name), 0, left) for name in wanted}
        except RemitError:
            raise
        except Exception as error:
            raise _unreadable(path, "h5py", error) from error
    _check(path, thoroughly=True)
    import scipy.io

    def contents(own_types: bool) -> dict[str, Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of complex numbers, which are kept from the other
            found: dict[str, Any] = scipy.io.loadmat(
                str(path),
                appendmat=False,
                mat_dtype=own_types,
                variable_names=None if names is None else list(names),
            )
        return {
            name: value
            for name, value in found.items()
            if not (name.startswith("__") and name.endswith("__"))
        }

    try:
        plain = contents(own_types=False)
        typed = contents(own_types=True) if any(map(_is_whole, plain.values())) else plain
        return {name: _scipy_value(value, typed[name]) for name, value in plain.items()}
    except Exception as error:
        raise _unreadable(path, "scipy", error) from error


def is_numbers(value: Any) -> bool:
    """Whether these are real numbers, floating or integer; logical values are none."""
    import numpy as np

    return isinstance(value, np.ndarray | Stored) and value.dtype.kind in "fiu"


def is_cell(value: Any) -> bool:
    """Whether this was a cell array."""
    import numpy as np

    return isinstance(value, np.ndarray) and value.dtype.kind == "O" and value.ndim >= 2


def numbers(value: Any) -> np.ndarray:
    """The numbers in memory, in MATLAB's orientation; raises RemitError where they are damaged."""
    import numpy as np

    if not isinstance(value, Stored):
        return np.asarray(value)
    import h5py

    try:
        with h5py.File(value.path, "r", locking=False) as opened:
            stored = opened[value.place]
            read: np.ndarray = stored[()]
            return read.T
    except Exception as error:
        raise _unreadable(value.path, "h5py", error) from error


def texts(value: Any) -> list[str] | None:
    """Text as a list: the rows of a char array, or a cell array's texts; None for anything else."""
    import numpy as np

    if not isinstance(value, np.ndarray):
        return None
    if value.dtype.kind == "U":
        return [str(row).strip() for row in value.ravel()]
    if not is_cell(value) or not value.size:
        return None
    rows = []
    for item in value.ravel(order="F"):
        inner = texts(item) if not is_cell(item) else None
        if inner is None or len(inner) > 1:
            return None
        rows.append(inner[0] if inner else "")
    return rows


def described(value: Any) -> str:
    """Shape and kind for a message, such as '4x1000 double'."""
    shape = "x".join(str(length) for length in getattr(value, "shape", ()))
    if is_cell(value):
        kind = "cell"
    elif isinstance(value, Struct):
        kind = "struct"
    elif isinstance(value, Other):
        kind = value.kind
    else:
        dtype = getattr(value, "dtype", None)
        kinds = {"U": "text", "c": "complex", "b": "logical", "O": "object"}
        name = type(value).__name__ if dtype is None else dtype.name
        kind = kinds.get(dtype.kind, name) if dtype is not None else name
    return f"{shape} {kind}".strip()


def _unreadable(path: Path, library: str, error: Exception) -> RemitError:
    return RemitError(
        f"{path}: {library} cannot read it ({type(error).__name__}: {str(error)[:200]}); expected "
        "a sound .mat file; copy it again or save it again in MATLAB."
    )


def _is_hdf5(path: Path) -> bool:
    with path.open("rb") as opened:
        start = opened.read(_HEADER_BYTES)
    return start.startswith((b"MATLAB 7.3", HDF5))


# Version 5 to 7 ----------------------------------------------------------------------------------


class _Source:
    """Bytes of one variable, straight from the file or unpacked, without holding them."""

    def __init__(self, opened: IO[bytes], size: int, packed: bool) -> None:
        self._opened = opened
        self._left = size
        self._inflate = zlib.decompressobj() if packed else None
        self._waiting = b""
        self._ready = memoryview(b"")

    def read(self, count: int) -> bytes:
        """The next bytes; fewer at the end."""
        parts = []
        while count:
            if not self._ready:
                self._ready = memoryview(self._more())
                if not self._ready:
                    break
            parts.append(self._ready[:count])
            self._ready = self._ready[count:]
            count -= len(parts[-1])
        return b"".join(parts)

    def skip(self, count: int) -> bool:
        """Go forward; False where there are not so many bytes."""
        if self._inflate is None and not self._ready:
            if count > self._left:
                return False
            self._opened.seek(count, os.SEEK_CUR)
            self._left -= count
            return True
        while count:
            piece = len(self.read(min(count, _PIECE)))
            if not piece:
                return False
            count -= piece
        return True

    def ended_well(self) -> bool:
        """Whether nothing is left and a packed variable's checksum was reached."""
        return not self.read(1) and (self._inflate is None or self._inflate.eof)

    def _more(self) -> bytes:
        if self._inflate is None:
            piece = self._opened.read(min(8, self._left))
            self._left -= len(piece)
            return piece
        while not self._inflate.eof:
            if not self._waiting:
                self._waiting = self._opened.read(min(_PIECE, self._left))
                self._left -= len(self._waiting)
            fed = self._waiting
            unpacked = self._inflate.decompress(fed, _PIECE)
            self._waiting = self._inflate.unconsumed_tail
            if unpacked:
                return unpacked
            if not fed:
                return b""
        return b""


def _check(path: Path, thoroughly: bool) -> None:
    state = path.stat()
    _check_elements(path, state.st_size, state.st_mtime_ns, thoroughly)


@lru_cache(maxsize=64)
def _check_elements(path: Path, size: int, changed: int, thoroughly: bool) -> None:
    """Walk the elements of a version 5 file; `changed` only tells the cache a new file.

    Without `thoroughly` only the variables' own sizes are looked at. Raises RemitError.
    """
    with path.open("rb") as opened:
        header = opened.read(_HEADER_BYTES)
        order = {b"IM": "<", b"MI": ">"}.get(header[126:128])
        if len(header) < _HEADER_BYTES or order is None:
            raise RemitError(
                f"{path}: has no whole header of a .mat file ({size} bytes); expected one of 128 "
                "bytes that ends in a version and 'IM' or 'MI'; copy it again."
            )
        if size == _HEADER_BYTES:
            raise RemitError(f"{path}: holds a header and no variable; expected some; save again.")
        while (place := opened.tell()) < size:
            tag = opened.read(8)
            if len(tag) < 8:
                raise _cut(path, place, 8 - len(tag))
            kind, length = struct.unpack(f"{order}II", tag)
            if kind not in (_MATRIX, _COMPRESSED):
                raise _damaged(path, f"at byte {place} the type of a variable is {kind}")
            if length > size - place - 8:
                raise _cut(path, place, length - (size - place - 8))
            if thoroughly:
                try:
                    _check_variable(path, opened, place, order, kind, length)
                except zlib.error as error:
                    what = f"the variable at byte {place} cannot be unpacked ({error})"
                    raise _damaged(path, what) from None
            opened.seek(place + 8 + length)


def _check_variable(
    path: Path, opened: IO[bytes], place: int, order: str, kind: int, length: int
) -> None:
    packed = length
    source = _Source(opened, length, kind == _COMPRESSED)
    if kind == _COMPRESSED:
        tag = source.read(8)
        if len(tag) < 8:
            raise _damaged(path, f"the packed variable at byte {place} is empty")
        kind, length = struct.unpack(f"{order}II", tag)
        if kind != _MATRIX:
            raise _damaged(path, f"the packed variable at byte {place} is of type {kind}")
        if length > _LARGEST_EMPTY and length > _LARGEST_RATIO * packed:
            what = f"the variable at byte {place} promises {length} bytes and holds {packed} packed"
            raise _damaged(path, what)
    _check_inside(path, source, place, order, length, 0)
    if not source.ended_well():
        raise _damaged(path, f"the variable at byte {place} is not as long as it says")


class _Elements:
    """The elements inside a matrix of `length` bytes, one after another."""

    def __init__(self, path: Path, source: _Source, place: int, order: str, length: int) -> None:
        self._path = path
        self._source = source
        self._place = place
        self._order = order
        self.left = length

    def damaged(self, what: str) -> RemitError:
        """The error for this variable."""
        return _damaged(self._path, f"the variable at byte {self._place} {what}")

    def tag(self) -> tuple[int, int, bytes]:
        """Type, bytes of data, and the data where they stand in the tag itself."""
        tag = self._source.read(8)
        if len(tag) < 8 or self.left < 8:
            raise self.damaged("ends inside an element")
        kind, count = struct.unpack(f"{self._order}II", tag)
        self.left -= 8
        if kind >> 16:
            kind, count = kind & 0xFFFF, kind >> 16
            if kind not in _DATA_TYPES or count > 4:
                raise self.damaged(f"holds a small element of type {kind} and {count} bytes")
            return kind, count, tag[4 : 4 + count]
        if count > self.left or (kind != _MATRIX and kind not in _DATA_TYPES):
            what = f"an element of type {kind} and {count} bytes where {self.left} are left"
            raise self.damaged(f"holds {what}")
        return kind, count, b""

    def data(self, kinds: set[int], most: int | None = None) -> tuple[int, bytes]:
        """Pass one element that is no matrix: its type and count, and up to `most` bytes of it."""
        kind, count, small = self.tag()
        if kind not in kinds or (most is not None and count > most):
            raise self.damaged(f"holds an element of type {kind} and {count} bytes out of place")
        if small or not count:
            return count, small
        padded = min(count + -count % 8, self.left)
        self.left -= padded
        if most is not None:
            content = self._source.read(padded)
            if len(content) < padded:
                raise self.damaged("ends inside its numbers")
            return count, content[:count]
        if not self._source.skip(padded):
            raise self.damaged("ends inside its numbers")
        return count, b""

    def matrices(self, count: int, depth: int) -> None:
        """Pass so many matrices."""
        if count > self.left // 8:
            raise self.damaged(f"promises {count} values in {self.left} bytes")
        for _ in range(count):
            kind, length, _ = self.tag()
            if kind != _MATRIX:
                raise self.damaged(f"holds an element of type {kind} where a matrix belongs")
            _check_inside(self._path, self._source, self._place, self._order, length, depth + 1)
            self.left -= length


def _check_inside(
    path: Path, source: _Source, place: int, order: str, length: int, depth: int
) -> None:
    """That the elements of a matrix are those of its class, which scipy takes for granted."""
    if not length:
        return
    inside = _Elements(path, source, place, order, length)
    if depth > _DEEPEST:
        raise inside.damaged("is nested too deeply")
    count, flags = inside.data({6}, 8)
    if count != 8:
        raise inside.damaged(f"has flags of {count} bytes")
    word = struct.unpack(f"{order}I", flags[:4])[0]
    kind, parts = word & 0xFF, 2 if word & 0x800 else 1
    if kind == _OPAQUE:
        for _ in range(3):
            inside.data({1, 16}, _LONGEST_NAME)
        inside.matrices(1, depth)
    else:
        count, content = inside.data({5, 6}, 4 * _MOST_AXES)
        if count < 8 or count % 4:
            raise inside.damaged(f"has dimensions of {count} bytes")
        axes = struct.unpack(f"{order}{count // 4}i", content)
        values = math.prod(axes)
        if min(axes) < 0:
            raise inside.damaged(f"has the dimensions {axes}")
        inside.data({1, 16}, _LONGEST_NAME)
        if kind == 1:  # cell
            inside.matrices(values, depth)
        elif kind in (2, 3):  # struct, object
            if kind == 3:
                inside.data({1, 16}, _LONGEST_NAME)
            count, content = inside.data({5, 6}, 4)
            width = struct.unpack(f"{order}i", content)[0] if count == 4 else 0
            count, _ = inside.data({1, 16})
            if width < 1 or count % width:
                raise inside.damaged(f"has field names of {width} bytes in {count}")
            inside.matrices(values * (count // width), depth)
        elif kind == 16:  # function handle
            inside.matrices(1, depth)
        elif 4 <= kind <= 15:
            for _ in range(parts + (2 if kind == 5 else 0)):  # char, sparse, numbers
                inside.data(_DATA_TYPES)
        else:
            raise inside.damaged(f"is of class {kind}")
    if inside.left and depth:
        raise inside.damaged(f"holds {inside.left} bytes too many")
    source.skip(inside.left)


def _cut(path: Path, place: int, missing: int) -> RemitError:
    return RemitError(
        f"{path}: is cut inside the variable at byte {place}, {missing} bytes are missing; "
        "expected a whole .mat file; copy it again."
    )


def _damaged(path: Path, what: str) -> RemitError:
    return RemitError(f"{path}: is damaged, {what}; expected a sound .mat file; copy it again.")


def _is_whole(value: Any) -> bool:
    """Whether there are whole numbers in it, more than a few, whose class is to be known."""
    import numpy as np

    if not isinstance(value, np.ndarray):
        return False
    if value.dtype.names is not None:
        return any(_is_whole(item) for name in value.dtype.names for item in value[name].flat)
    if value.dtype.kind == "O":
        return any(_is_whole(item) for item in value.flat)
    return value.dtype.kind in "iu" and value.size > _FEW


def _scipy_value(value: Any, typed: Any) -> Any:
    """What scipy gives, as this module gives it; `typed` is the same in MATLAB's own types."""
    import numpy as np
    import scipy.sparse
    from scipy.io.matlab import MatlabFunction, MatlabObject, MatlabOpaque

    if scipy.sparse.issparse(value):
        return Other("sparse", tuple(value.shape))
    if isinstance(value, MatlabFunction | MatlabObject | MatlabOpaque):
        return Other("object", tuple(value.shape))
    if not isinstance(value, np.ndarray):
        return Other(type(value).__name__)
    if value.dtype.names is not None:
        columns = {
            name: [
                _scipy_value(item, again)
                for item, again in zip(
                    value[name].ravel(order="F"), typed[name].ravel(order="F"), strict=True
                )
            ]
            for name in value.dtype.names
        }
        return Struct(tuple(value.shape), columns, None)
    if value.dtype.kind == "O":
        items = np.empty(value.shape, dtype=object)
        for index in np.ndindex(value.shape):
            items[index] = _scipy_value(value[index], typed[index])
        return items
    return typed if value.dtype.kind in "iu" else value


# Version 7.3 -------------------------------------------------------------------------------------


def _child(group: Any, name: str) -> Any:
    """A member of a group; a link to another file is not followed."""
    import h5py

    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        return None
    return group[name]


def _hdf5_value(path: Path, item: Any, depth: int, left: list[int]) -> Any:
    """A variable, field or cell; `left` counts down what may still be met in the file."""
    import h5py
    import numpy as np

    if item is None:
        return Other("link")
    left[0] -= 1
    if depth > _DEEPEST or left[0] < 0 or _refers_to_more(item, left[0]):
        raise _damaged(path, f"{item.name} holds too many items, or itself")
    kind = _matlab_class(item)
    if "MATLAB_sparse" in item.attrs:
        return Other("sparse")
    if "MATLAB_object_decode" in item.attrs:  # function handles, strings, tables, objects
        return Other(kind or "object")
    if isinstance(item, h5py.Group):
        return _hdf5_struct(path, item, depth, left) if kind in ("", "struct") else Other(kind)
    if not isinstance(item, h5py.Dataset):
        return Other(kind or "object")
    if item.shape is None:
        return Other("empty")
    if item.external or item.is_virtual:  # its values lie in a file that somebody else has named
        return Other("link")
    shape = tuple(reversed(item.shape))
    if "MATLAB_empty" in item.attrs:
        shape = tuple(int(length) for length in np.ravel(item[()]))
        if kind == "struct":
            return Struct(shape, {}, path)
        dtype = {"cell": object, "char": "U1"}.get(kind, float)
        return np.empty((0,) if kind == "char" else _without_values(shape), dtype=dtype)
    if h5py.check_ref_dtype(item.dtype) is not None:
        if kind != "cell":
            return Other(kind or "references", shape)
        cells = np.empty(item.shape, dtype=object)
        references = item[()]
        for index in np.ndindex(item.shape):
            target = item.file[references[index]] if references[index] else None
            cells[index] = _hdf5_value(path, target, depth + 1, left)
        return cells.T
    if kind == "char":
        # Rows of UTF-16 codes; int() refuses what is no whole number.
        codes = np.atleast_2d(item[()].T)
        rows = [codes_S.astype("<u2").tobytes().decode("utf-16-le", "replace") for codes_S in codes]
        return np.array(rows, dtype=str)
    if item.dtype.names is not None:
        return Other("complex" if item.dtype.names == ("real", "imag") else "compound", shape)
    if item.dtype.kind not in "fiub":
        return Other(kind or item.dtype.name, shape)
    if kind == "logical":
        return Other("logical", shape)
    if item.size <= _SMALL:
        return np.asarray(item[()]).T if item.ndim else np.asarray(item[()]).reshape(1, 1)
    promised, there = item.size * item.dtype.itemsize, item.id.get_storage_size()
    if promised > _LARGEST_EMPTY and promised > _LARGEST_RATIO * there:
        raise _damaged(path, f"{item.name} promises {promised} bytes and holds {there}")
    return Stored(path, item.ref, shape, item.dtype)


def _refers_to_more(item: Any, count: int) -> bool:
    """Whether it is a cell or text of more items than `count`."""
    import h5py

    few = not isinstance(item, h5py.Dataset) or (item.size or 0) <= count
    return not few and (
        _matlab_class(item) in ("cell", "char")
        or "MATLAB_empty" in item.attrs
        or h5py.check_ref_dtype(item.dtype) is not None
    )


def _matlab_class(item: Any) -> str:
    kind = item.attrs.get("MATLAB_class", b"")
    return kind.decode("latin-1") if isinstance(kind, bytes) else str(kind)


def _without_values(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of an empty array, with an axis of no length, whatever the file says."""
    return shape if 0 in shape else (0, 0)


def _hdf5_struct(path: Path, group: Any, depth: int, left: list[int]) -> Struct:
    """A scalar struct holds its fields; a struct array one array of references for each field."""
    import h5py

    members = {name: _child(group, name) for name in group}
    bare = [
        item
        for item in members.values()
        if isinstance(item, h5py.Dataset)
        and h5py.check_ref_dtype(item.dtype) is not None
        and not _matlab_class(item)
    ]
    if members and len(bare) == len(members):
        shapes = {item.shape for item in bare}
        if len(shapes) != 1:
            raise _damaged(path, f"the fields of {group.name} differ in number")
        shape = tuple(reversed(next(iter(shapes))))
        return Struct(shape, {name: item.ref for name, item in members.items()}, path)
    values = {name: [_hdf5_value(path, item, depth + 1, left)] for name, item in members.items()}
    return Struct((1, 1), values, path)
