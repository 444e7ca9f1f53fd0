"""The same variables as a .mat file of version 5 or 7 (scipy) and of 7.3 (HDF5, as MATLAB lays it out).

A dict is a struct, a tuple of dicts a 1xN struct array, a list a 1xN cell, an object array a cell of
its shape, a str a char row.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
import scipy.sparse

VERSIONS = ("5", "7", "7.3")


def save(file: Path, version: str, variables: dict[str, Any]) -> Path:
    if version == "7.3":
        _save_hdf5(file, variables)
    else:
        contents = {name: _for_scipy(value) for name, value in variables.items()}
        scipy.io.savemat(file, contents, do_compression=version == "7")
    return file


def _cell(items: list[Any]) -> np.ndarray:
    row = np.empty((1, len(items)), dtype=object)
    for index, item in enumerate(items):
        row[0, index] = item
    return row


def _for_scipy(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _for_scipy(item) for name, item in value.items()}
    if isinstance(value, tuple):
        row = np.empty((1, len(value)), dtype=[(name, object) for name in value[0]])
        for index, fields in enumerate(value):
            row[0, index] = tuple(_for_scipy(item) for item in fields.values())
        return row
    if isinstance(value, list):
        value = _cell(value)
    if isinstance(value, np.ndarray) and value.dtype == object:
        items = np.empty(value.shape, dtype=object)
        for index in np.ndindex(value.shape):
            items[index] = _for_scipy(value[index])
        return items
    return value


def _save_hdf5(file: Path, variables: dict[str, Any]) -> None:
    with h5py.File(file, "w", userblock_size=512) as opened:
        store = _Store(opened)
        for name, value in variables.items():
            store.put(opened, name, value)
    text = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Jan  1 00:00:00 2024 HDF5 schema 1.00 ."
    with file.open("r+b") as opened:
        opened.write(text.ljust(124) + b"\x00\x02IM")


class _Store:
    def __init__(self, opened: h5py.File) -> None:
        self.references = opened.create_group("#refs#")
        self.count = 0

    def reference(self, value: Any) -> h5py.Reference:
        self.count += 1
        name = f"r{self.count}"
        self.put(self.references, name, value)
        return self.references[name].ref

    def put(self, group: h5py.Group, name: str, value: Any) -> None:
        if isinstance(value, dict):
            made = group.create_group(name)
            made.attrs["MATLAB_class"] = np.bytes_("struct")
            for field, item in value.items():
                self.put(made, field, item)
        elif isinstance(value, tuple):
            made = group.create_group(name)
            made.attrs["MATLAB_class"] = np.bytes_("struct")
            for field in value[0]:
                references = [self.reference(fields[field]) for fields in value]
                made[field] = np.array(references, dtype=h5py.ref_dtype).reshape(-1, 1)
        elif scipy.sparse.issparse(value):
            made = group.create_group(name)
            made.attrs["MATLAB_class"] = np.bytes_("double")
            made.attrs["MATLAB_sparse"] = np.uint64(value.shape[0])
            packed = scipy.sparse.csc_array(value)
            made["data"], made["ir"], made["jc"] = packed.data, packed.indices, packed.indptr
        else:
            self.array(group, name, _cell(value) if isinstance(value, list) else value)

    def array(self, group: h5py.Group, name: str, value: Any) -> None:
        kind, decode = "", 0
        if isinstance(value, str):
            value = np.array([[ord(letter) for letter in value]], dtype=np.uint16)
            kind, decode = "char", 2
        value = np.atleast_2d(np.asarray(value))
        if value.dtype.kind == "U":  # a char matrix, its rows padded
            width = value.dtype.itemsize // 4
            rows = [[ord(letter) for letter in str(row).ljust(width)] for row in value.ravel()]
            value, kind, decode = np.array(rows, dtype=np.uint16), "char", 2
        if value.dtype == object:
            kind = "cell"
        if value.dtype == bool:
            value, kind, decode = value.astype(np.uint8), "logical", 1
        names = {"float64": "double", "float32": "single", "complex128": "double"}
        kind = kind or names.get(value.dtype.name, value.dtype.name)
        if not value.size:
            made = group.create_dataset(name, data=np.array(value.shape, dtype=np.uint64))
            made.attrs["MATLAB_empty"] = np.uint8(1)
        elif kind == "cell":
            references = np.empty(value.T.shape, dtype=h5py.ref_dtype)
            for index in np.ndindex(references.shape):
                references[index] = self.reference(value.T[index])
            made = group.create_dataset(name, data=references, dtype=h5py.ref_dtype)
        elif value.dtype.kind == "c":
            pairs = np.empty(value.T.shape, dtype=[("real", "<f8"), ("imag", "<f8")])
            pairs["real"], pairs["imag"] = value.T.real, value.T.imag
            made = group.create_dataset(name, data=pairs)
        else:
            packed = {"compression": "gzip"} if value.size > 1000 else {}
            made = group.create_dataset(name, data=np.ascontiguousarray(value.T), **packed)
        made.attrs["MATLAB_class"] = np.bytes_(kind)
        if decode:
            made.attrs["MATLAB_int_decode"] = np.int32(decode)
