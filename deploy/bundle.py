"""A zip file for a lab with a Loihi 2: network, images, what is expected of them, and one program that needs nothing of ours.

The same run gives the same bytes.
"""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, StrictUndefined
from numpy.typing import NDArray
from torch import Tensor

from hardspike.deploy.emulator import EmulatorBackend
from hardspike.deploy.fixed_zip import npz_bytes, zip_bytes
from hardspike.deploy.lava_limits import check_netx_holds
from hardspike.deploy.process_graph import ProcessGraph
from hardspike.deploy.run_on_loihi import BUNDLE
from hardspike.snn.atomic import replacing
from hardspike.snn.errors import DataError, FileError, UnsupportedLayerError

RUNNER = "run_on_loihi.py"
BATCH = 16  # images whose full states are held at a time
HANGING_INPUT = 57 * 57 * 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BundleSet:
    """messages: int64 as `input_coding.check_messages` wants them, without constant channels; labels: int64 [N]."""

    name: str
    messages: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int, graph: ProcessGraph) -> "BundleSet":
        """The first `count` images."""
        messages = self.messages[:, :count] if graph.input.has_time else self.messages[:count]
        return BundleSet(name=self.name, messages=messages, labels=self.labels[:count])


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """run: name of the run; commit: of the source tree, None where it is not known."""

    run: str
    commit: str | None
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What was written. right: share of each set that is expected to be classified right."""

    sha256: str
    num_bytes: int
    network_sha256: str
    images: dict[str, int]
    right: dict[str, float]


def check_bundle(graph: ProcessGraph) -> None:
    """Raise UnsupportedLayerError or DoesNotFitError where netx cannot run the graph, or not on streamed messages."""
    check_netx_holds(graph)
    if graph.input.coding not in ("graded", "binary"):
        raise UnsupportedLayerError(
            f"input: coding '{graph.input.coding}' cannot be streamed into a .net file's network; a bundle takes graded or binary messages"
        )


def stored_messages(messages: Tensor, graph: ProcessGraph) -> NDArray[Any]:
    """As they lie in images.npz, and as checksums are made of them: the smallest unsigned type, C order."""
    dtype = np.uint8 if graph.input.message_bits <= 8 else np.uint32
    return np.ascontiguousarray(messages.numpy().astype(dtype))


def file_sha256(path: Path) -> str:
    """Raises FileError when the file is not there."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        raise FileError(f"{path}: no such file; deploy the network again") from None


def write_bundle(
    path: Path,
    graph: ProcessGraph,
    net: Path,
    sets: Sequence[BundleSet],
    provenance: Provenance,
    *,
    progress: Callable[[int], None] | None = None,
) -> Bundle:
    """Write the bundle, whole or not at all. net: the graph's `.net` file.

    Raises:
        UnsupportedLayerError, DoesNotFitError: see `check_bundle`.
        FileError: no `.net` file. DataError: no set of images.
    """
    check_bundle(graph)
    if not sets or not all(len(one) for one in sets):
        raise DataError("bundle: no images; give at least one set with at least one image")
    network_sha256, facts = file_sha256(net), _network(graph)
    made: dict[str, NDArray[Any]] = {}
    expected: dict[str, NDArray[Any]] = {}
    about: list[dict[str, Any]] = []
    for index, one in enumerate(sets):
        made |= {f"messages.{index}": stored_messages(one.messages, graph), f"labels.{index}": one.labels.numpy()}
        found = _expected(graph, one, progress)
        expected |= {f"{name[0]}.{index}{name[1]}": array for name, array in found.items()}
        right = float((found["predicted", ""] == one.labels.numpy()).mean())
        about.append({"name": one.name, "images": len(one), "right": right})
    contents = {
        RUNNER: (files(__package__) / RUNNER).read_bytes(),
        "network.net": net.read_bytes(),
        "images.npz": npz_bytes(made),
        "expected.npz": npz_bytes(expected),
    }
    contents["README.md"] = _readme(facts, about, provenance, network_sha256).encode()
    manifest = {
        "format": BUNDLE,
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
        "network": facts,
        "sets": about,
        "provenance": asdict(provenance),
    }
    contents["manifest.json"] = (json.dumps(manifest, indent=2) + "\n").encode()
    content = zip_bytes(contents)
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return Bundle(
        sha256=hashlib.sha256(content).hexdigest(),
        num_bytes=len(content),
        network_sha256=network_sha256,
        images={one.name: len(one) for one in sets},
        right={entry["name"]: entry["right"] for entry in about},
    )


def _network(graph: ProcessGraph) -> dict[str, Any]:
    contract = graph.input
    return {
        "name": graph.provenance.get("run", "network"),
        "profile": graph.profile,
        "weight_bits": graph.weight_bits,
        "time_steps": graph.time_steps,
        "input": {
            "shape": contract.shape,
            "coding": contract.coding,
            "message_bits": contract.message_bits,
            "constant_messages": contract.constant_messages,
            "has_time": contract.has_time,
        },
        "layers": [
            {
                "name": layer.name,
                "shape": layer.shape,
                "neurons": math.prod(layer.shape),
                "spiking": layer.neurons.spiking,
            }
            for layer in graph.layers
        ],
    }


def _expected(
    graph: ProcessGraph, one: BundleSet, progress: Callable[[int], None] | None
) -> dict[tuple[str, str], NDArray[Any]]:
    """(name, ending) of what the emulator gives: counts .layer [T, N], output [N, *shape], predicted [N], output_spikes."""
    backend, dim = EmulatorBackend(BATCH), 1 if graph.input.has_time else 0
    last, counts, outputs, fired = len(graph.layers) - 1, [], [], []
    for messages in one.messages.split(BATCH, dim):
        trace = backend.run(graph, messages, keep_states=graph.output.neurons.spiking)
        counts.append(trace.spikes)
        outputs.append(trace.output)
        if trace.states is not None:
            fired.append(trace.states.spikes[graph.output.name])
        if progress is not None:
            progress(len(trace))
    output = torch.cat(outputs)
    found = {
        ("counts", f".{index}"): torch.cat([batch[layer.name] for batch in counts], 1).int()
        for index, layer in enumerate(graph.layers)
        if layer.neurons.spiking
    }
    found |= {("output", ""): output, ("predicted", ""): output.flatten(1).argmax(1)}
    if fired:
        found["output_spikes", f".{last}"] = torch.cat(fired, 1)
    return {name: tensor.numpy() for name, tensor in found.items()}


def _readme(
    network: dict[str, Any], sets: Sequence[dict[str, Any]], provenance: Provenance, network_sha256: str
) -> str:
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    template = environment.from_string((files(__package__) / "templates" / "bundle_readme.md.j2").read_text("utf-8"))
    contract = network["input"]
    inputs = math.prod(contract["shape"][1:]) * (contract["shape"][0] + len(contract["constant_messages"]))
    return template.render(
        network=network,
        sets=sets,
        images=sum(entry["images"] for entry in sets),
        chip_period=1 << (network["time_steps"] - 1).bit_length(),
        inputs=inputs,
        large_input=inputs > HANGING_INPUT and len(contract["shape"]) == 3,
        provenance=provenance,
        network_sha256=network_sha256,
    )
