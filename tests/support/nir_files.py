"""NIR files as other tools write them."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from hardspike.convert.nir_file import NirGraph, NirNode, write_nir_graph
from hardspike.convert.nir_in import read_nir
from hardspike.snn.network import SpikingNetwork

Arrays = dict[str, Any]


def lif(shape: tuple[int, ...], **values: float) -> Arrays:
    defaults = {"tau": 1e-3, "r": 10.0, "v_leak": 0.0, "v_threshold": 1.0, "v_reset": 0.0}
    return {key: np.full(shape, value) for key, value in (defaults | values).items()}


def line(**nodes: NirNode) -> NirGraph:
    """The nodes one after the other."""
    names = [*nodes]
    return NirGraph(nodes, [*pairwise(names)])


def node(kind: str, **values: Any) -> NirNode:
    return NirNode(kind, {key: np.asarray(value) for key, value in values.items()})


def foreign(**changes: NirNode | None) -> NirGraph:
    """Numbers for pairs, a flatten that says what it flattens, sums in place of means."""
    rng = np.random.default_rng(0)
    nodes = {
        "in": node("Input", shape=[2, 6, 8]),
        "net.0": node(
            "Conv2d",
            input_shape=[6, 8],
            weight=rng.normal(size=(3, 2, 3, 3)).astype(np.float32),
            bias=np.zeros(3, dtype=np.float32),
            stride=1,
            padding=[1, 1],
            dilation=[1, 1],
            groups=1,
        ),
        "net.1": NirNode("LIF", lif((3, 6, 8))),
        "net.2": node("SumPool2d", kernel_size=2, stride=[2, 2], padding=0),
        "net.3": node("Flatten", start_dim=0, end_dim=-1, input_type=[3, 3, 4]),
        "net.4": node("Linear", weight=rng.normal(size=(5, 36)).astype(np.float32)),
        "out": node("Output", shape=[5]),
    }
    return line(**{name: value for name, value in (nodes | changes).items() if value is not None})


def read(tmp_path: Path, graph: NirGraph, **arguments: Any) -> SpikingNetwork:
    write_nir_graph(tmp_path / "a.nir", graph)
    return read_nir(tmp_path / "a.nir", **({"dt": 1e-4, "time_steps": 3} | arguments))
