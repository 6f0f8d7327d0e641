"""Damaged files of every format we read: one line of ours, no other exception, no hang, no memory beyond 1 GB.

Each number is a seed, so a line of a failed test says which file it was.
"""

import json
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tomli_w
from fuzzing import outcomes
from mutations import Rng, damage_hdf5, damaged_bytes, damaged_message, damaged_tree, pick
from random_dags import random_dag
from random_graphs import CASES, build
from small_networks import ARCHITECTURES
from small_networks import build as build_network

from hardspike.convert.nir_in import read_nir
from hardspike.convert.nir_out import write_nir
from hardspike.convert.onnx_in import load_onnx
from hardspike.convert.onnx_out import save_onnx
from hardspike.deploy.graph_file import load_graph, save_graph
from hardspike.deploy.netx_file import read_netx, write_netx
from hardspike.hw_profiles.profile_file import load_profile
from hardspike.snn.network import SpikingNetwork

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NETWORKS = ("padded convolution, pool, dense", "groups and dilation", "leaky")
FEW, MANY = 70, 2000


@dataclass(frozen=True)
class Format:
    """write: the undamaged files. damage: one of them in its own terms, where the bytes alone are damaged otherwise."""

    suffix: str
    write: tuple[Callable[[Path], None], ...]
    damage: Callable[[Path, Rng], None]
    read: Callable[[Path], object]


def damage_graph(path: Path, rng: Rng) -> None:
    """The header of tensors, or the description of the graph within it."""
    content = path.read_bytes()
    (size,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + size])
    if rng.random() < 0.25:
        header = damaged_tree(header, rng)
    else:
        graph = damaged_tree(json.loads(header["__metadata__"]["graph"]), rng)
        header["__metadata__"]["graph"] = json.dumps(graph)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])


def damage_onnx(path: Path, rng: Rng) -> None:
    model = onnx.load(str(path))
    for _ in range(pick(rng, (1, 1, 2, 3))):
        damaged_message(model, rng)
    path.write_bytes(model.SerializeToString())


def damage_profile(path: Path, rng: Rng) -> None:
    tree = damaged_tree(tomllib.loads(path.read_text("utf-8")), rng)
    path.write_text(tomli_w.dumps(_without_none(tree) if isinstance(tree, dict) else {"x": 1}), "utf-8")


def _without_none(tree: Any) -> Any:
    """TOML has no null."""
    if isinstance(tree, dict):
        return {key: _without_none(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_without_none(value) for value in tree]
    return "none" if tree is None else tree


FORMATS = {
    "graph": Format(
        ".safetensors",
        (
            lambda path: save_graph(path, build(CASES[9])),
            lambda path: save_graph(path, random_dag(1)),
            lambda path: save_graph(path, random_dag(5)),
        ),
        damage_graph,
        load_graph,
    ),
    "net": Format(
        ".net",
        (lambda path: write_netx(path, build(CASES[10])), lambda path: write_netx(path, build(CASES[9]))),
        damage_hdf5,
        read_netx,
    ),
    "nir": Format(
        ".nir",
        tuple(
            lambda path, name=name: write_nir(path, build_network(ARCHITECTURES[name]))  # type: ignore[misc]
            for name in NETWORKS
        ),
        damage_hdf5,
        lambda path: read_nir(path, dt=1e-4, time_steps=3),
    ),
    "onnx": Format(
        ".onnx",
        tuple(
            lambda path, name=name: save_onnx(path, SpikingNetwork(ARCHITECTURES[name]).eval())  # type: ignore[misc]
            for name in NETWORKS
        ),
        damage_onnx,
        load_onnx,
    ),
    "profile": Format(
        ".toml",
        tuple(
            lambda path, name=name: (
                path.write_bytes((files("hardspike.hw_profiles") / f"{name}.toml").read_bytes()) and None
            )  # type: ignore[misc]
            for name in ("loihi1", "speck", "cmos45")
        ),
        damage_profile,
        lambda path: load_profile(str(path)),
    ),
}


def fuzz(name: str, seeds: range, folder: Path) -> None:
    kind = FORMATS[name]
    originals = []
    for number, write in enumerate(kind.write):
        original = folder / f"original{number}{kind.suffix}"
        write(original)
        kind.read(original)
        originals.append(original.read_bytes())

    def make(seed: int, path: Path) -> None:
        rng = np.random.default_rng(seed)
        content = originals[seed % len(originals)]
        if rng.random() < 0.4:
            path.write_bytes(damaged_bytes(content, rng))
            return
        path.write_bytes(content)
        kind.damage(path, rng)

    found = outcomes(kind.read, make, seeds, folder / f"damaged{kind.suffix}")
    problems = [line for line in found if line not in ("read", "refused")]
    assert not problems, f"{len(problems)} of {len(seeds)}: " + "\n".join(problems[:20])
    assert found.count("refused") > len(seeds) / 4, "damage that nobody notices proves nothing"


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited through /proc")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # fork, since Python 3.12
@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_file_is_one_line(name: str, tmp_path: Path) -> None:
    fuzz(name, range(FEW), tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited through /proc")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("name", FORMATS)
def test_two_thousand_damaged_files(name: str, tmp_path: Path) -> None:
    fuzz(name, range(FEW, FEW + MANY), tmp_path)
