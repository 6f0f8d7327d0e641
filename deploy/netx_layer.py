"""One layer group of a `.net` file, read value by value with errors that say where."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hardspike.deploy.process_graph import IntArray
from hardspike.snn.architecture import Shape
from hardspike.snn.errors import DoesNotFitError, FileError
from hardspike.snn.hdf5_file import read_dataset

MAX_TEXT = 100


def attribute(node: Any, name: str, default: Any) -> Any:
    """One number or string of fixed length; None where it is anything else, which in a damaged file can hang HDF5."""
    if name not in node.attrs:
        return default
    found = node.attrs.get_id(name)
    if found.shape != () or found.dtype.kind not in "iufS" or found.dtype.itemsize > MAX_TEXT:
        return None
    value = node.attrs[name]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


@dataclass(slots=True)
class LayerGroup:
    """`layer/index`; kind is its type, once that is read."""

    path: Path
    index: int
    group: Any
    kind: str = "?"

    @property
    def where(self) -> str:
        return f"{self.path}: layer {self.index} ({self.kind})"

    def __contains__(self, name: str) -> bool:
        return name in self.group

    def text(self, name: str) -> str:
        value = read_dataset(self.group, name, self.where).ravel()
        first = value[0] if value.size == 1 else None
        text = first.decode("ascii", "replace") if isinstance(first, bytes) else first
        if not isinstance(text, str) or not text.isprintable() or len(text) > MAX_TEXT:
            raise FileError(f"{self.where}: dataset '{name}' is not one short string; the file is damaged")
        return text

    def integers(self, name: str) -> IntArray:
        value = read_dataset(self.group, name, self.where)
        if value.dtype.kind not in "biuf" or value.size == 0:
            raise FileError(
                f"{self.where}: dataset '{name}' holds {value.size} values of type {value.dtype}; it must hold numbers"
            )
        as_float = value.astype(np.float64)
        broken = as_float[~(as_float == np.trunc(as_float))]
        if broken.size:
            cut = np.trunc(broken[0])
            raise DoesNotFitError(
                f"{self.where}: {name} {broken[0]} is no integer, netx would cut it to {cut}; round before writing"
            )
        if np.abs(as_float).max() > np.iinfo(np.int32).max:
            raise FileError(f"{self.where}: {name} holds {as_float.max():.4g}, beyond 32 bits; the file is damaged")
        return value.astype(np.int32)

    def one(self, name: str) -> int:
        value = self.integers(name)
        if value.size != 1:
            raise FileError(f"{self.where}: dataset '{name}' has shape {value.shape}; it must be one number")
        return int(value.item())

    def pair(self, name: str) -> tuple[int, int]:
        """(H, W), which may be given as one number."""
        value = self.integers(name).ravel()
        if value.size > 2:
            raise FileError(f"{self.where}: dataset '{name}' is {value.tolist()}; it must be one or two numbers")
        return int(value[0]), int(value[-1])

    def shape(self) -> Shape:
        shape = tuple(self.integers("shape").ravel().tolist())
        if min(shape) < 1:
            raise FileError(f"{self.where}: shape {shape} is not allowed; it must be positive")
        return shape
