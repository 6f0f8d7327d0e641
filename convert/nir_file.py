"""NIR files as plain values: the HDF5 layout of nir 1.0 (nir/serialization.py), read and written with h5py alone.

`version`; `node/type`, NIRGraph; `node/edges`, pairs of names; `node/nodes/NAME`: `type` and one dataset per parameter;
`node/metadata`, a group of datasets that frameworks keep but do not read. Nodes may have metadata too, but nir 1.0.4 does
not read a Conv2d that does.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hardspike.snn.atomic import replacing
from hardspike.snn.errors import FileError, UnsupportedLayerError
from hardspike.snn.hdf5_file import read_dataset, reading_hdf5

Array = NDArray[Any]
VERSION = "1.0.4"  # whose layout it is; newer ones read it
KIND = "a NIR file"
LONGEST_NAME = 200


@dataclass(frozen=True, slots=True, eq=False)
class NirNode:
    """kind: NIR's name of the operation. values: its parameters."""

    kind: str
    values: dict[str, Array] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class NirGraph:
    nodes: dict[str, NirNode]
    edges: list[tuple[str, str]]
    metadata: dict[str, str] = field(default_factory=dict)


def read_nir_graph(path: Path) -> NirGraph:
    """What the file says, whether or not it makes sense as a network. Raises FileError, naming the node and dataset."""
    with reading_hdf5(path, KIND) as file:
        root = file.get("node")
        if not isinstance(root, h5py.Group) or not isinstance(root.get("nodes"), h5py.Group):
            raise FileError(f"{path} has no group 'node/nodes'; it is no NIR file")
        kind = _text(root, "type", f"{path}: node")
        if kind != "NIRGraph":
            raise FileError(f"{path}: node is of type '{kind}', not NIRGraph; write a whole graph")
        nodes = {}
        for name in root["nodes"]:
            where = f"{path}: node '{str(name)[:LONGEST_NAME]}'"
            if not _is_name(name):
                raise FileError(f"{where} has no short printable name; the file is damaged")
            nodes[name] = _node(root["nodes"], name, where)
        return NirGraph(nodes, _edges(root, path), _metadata(root, f"{path}: node"))


def write_nir_graph(path: Path, graph: NirGraph) -> None:
    """Write the file, whole or not at all. Raises UnsupportedLayerError for a name with '/', which HDF5 takes for a folder."""
    for name in graph.nodes:
        if "/" in name or name == ".":
            raise UnsupportedLayerError(f"layer '{name}': HDF5 has another use for this name; choose one without '/'")
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file.create_dataset("version", data=VERSION, dtype=h5py.string_dtype())
        root = file.create_group("node")
        root.create_dataset("type", data="NIRGraph", dtype=h5py.string_dtype())
        root.create_dataset("edges", data=np.array(graph.edges, dtype=object), dtype=h5py.string_dtype())
        for key, text in graph.metadata.items():
            root.create_dataset(f"metadata/{key}", data=text, dtype=h5py.string_dtype())
        for name, node in graph.nodes.items():
            group = root.create_group(f"nodes/{name}")
            group.create_dataset("type", data=node.kind, dtype=h5py.string_dtype())
            for key, value in node.values.items():
                group.create_dataset(key, data=value, compression="gzip" if value.size > 64 else None)


def _node(nodes: Any, name: str, where: str) -> NirNode:
    link = nodes.get(name, getlink=True)
    group = nodes.get(name) if isinstance(link, h5py.HardLink) else None
    if not isinstance(group, h5py.Group):
        raise FileError(f"{where} is no group; the file is damaged")
    kind = _text(group, "type", where)
    values = {}
    for key in group:
        if not _is_name(key):
            raise FileError(
                f"{where} holds '{str(key)[:LONGEST_NAME]}', which is no parameter of NIR; the file is damaged"
            )
        if key not in ("type", "metadata") and isinstance(group.get(key), h5py.Dataset):
            values[key] = read_dataset(group, key, where)
    return NirNode(kind, values)


def _edges(root: Any, path: Path) -> list[tuple[str, str]]:
    found = read_dataset(root, "edges", f"{path}: node")
    if found.ndim != 2 or found.shape[1] != 2 or found.dtype.kind not in "OS":
        raise FileError(f"{path}: node/edges has shape {found.shape} of {found.dtype}; it must be pairs of names")
    return [(_as_text(source), _as_text(target)) for source, target in found.tolist()]


def _metadata(group: Any, where: str) -> dict[str, str]:
    """Texts only: numbers and groups that others put there say nothing about the network."""
    found = group.get("metadata")
    if not isinstance(found, h5py.Group):
        return {}
    texts = {}
    for key in filter(_is_name, found):
        item = found.get(key)
        if isinstance(item, h5py.Dataset) and item.shape == () and h5py.check_string_dtype(item.dtype) is not None:
            texts[key] = _text(found, key, f"{where}, metadata")
    return texts


def _text(group: Any, name: str, where: str) -> str:
    value = read_dataset(group, name, where)
    text = _as_text(value.item()) if value.size == 1 and value.dtype.kind in "OS" else None
    if text is None or not text.isprintable():
        raise FileError(f"{where}: dataset '{name}' is not one text; the file is damaged")
    return text


def _as_text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _is_name(name: object) -> bool:
    """h5py gives bytes for a name that is no UTF-8."""
    return isinstance(name, str) and name.isprintable() and len(name) <= LONGEST_NAME
