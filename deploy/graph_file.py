"""A `ProcessGraph` in one self-describing file: safetensors, integers as tensors, everything else as JSON in the header."""

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hardspike.deploy.process_graph import (
    ConvSynapse,
    DenseSynapse,
    GraphLayer,
    InputContract,
    NeuronGroup,
    PoissonCode,
    ProcessGraph,
    Synapse,
)
from hardspike.hw_profiles.profile import Numerics
from hardspike.snn.checkpoint import load_tensors, save_tensors
from hardspike.snn.errors import FileError

KIND = "process graph"
NEURON_KEYS = tuple(field.name for field in fields(NeuronGroup) if field.name != "bias")
GEOMETRY = ("stride", "padding", "dilation", "groups")


def save_graph(path: Path, graph: ProcessGraph) -> None:
    """Write the graph, whole or not at all."""
    tensors: dict[str, Tensor] = {}
    layers = []
    for layer in graph.layers:
        tensors[f"{layer.name}/bias"] = torch.from_numpy(np.ascontiguousarray(layer.neurons.bias))
        synapses = []
        for index, synapse in enumerate(layer.synapses):
            tensors[f"{layer.name}/weight/{index}"] = torch.from_numpy(np.ascontiguousarray(synapse.weight))
            geometry = {key: getattr(synapse, key) for key in GEOMETRY} if isinstance(synapse, ConvSynapse) else None
            synapses.append({"source": synapse.source, "exponent": synapse.exponent, "geometry": geometry})
        neurons = {key: getattr(layer.neurons, key) for key in NEURON_KEYS}
        layers.append(
            {"name": layer.name, "shape": layer.shape, "scale": layer.scale, "synapses": synapses, "neurons": neurons}
        )
    description = {
        "input": asdict(graph.input),
        "layers": layers,
        "time_steps": graph.time_steps,
        "numerics": asdict(graph.numerics),
        "profile": graph.profile,
        "weight_bits": graph.weight_bits,
        "readout": graph.readout,
        "provenance": graph.provenance,
    }
    save_tensors(path, tensors, {"kind": KIND, "graph": json.dumps(description)})


def load_graph(path: Path) -> ProcessGraph:
    """Read and validate a graph. Raises FileError when the file is missing, damaged or of another kind."""
    tensors, metadata = load_tensors(path, KIND)
    try:
        data = json.loads(metadata["graph"])
        layers = tuple(_layer(entry, tensors) for entry in data["layers"])
        return ProcessGraph(
            input=_contract(data["input"]),
            layers=layers,
            time_steps=data["time_steps"],
            numerics=Numerics(**_tuples(data["numerics"])),
            profile=data["profile"],
            weight_bits=data["weight_bits"],
            readout=data["readout"],
            provenance=data["provenance"],
        )
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise FileError(f"{path}: not a readable {KIND} file ({error}); it is damaged or of another version") from None


def _contract(entry: dict[str, Any]) -> InputContract:
    poisson = entry["poisson"]
    values = _tuples(entry) | {"poisson": None if poisson is None else PoissonCode(**_tuples(poisson))}
    return InputContract(**values)


def _layer(entry: dict[str, Any], tensors: dict[str, Tensor]) -> GraphLayer:
    name = entry["name"]
    synapses: list[Synapse] = []
    for index, synapse in enumerate(entry["synapses"]):
        weight = tensors[f"{name}/weight/{index}"].numpy()
        if synapse["geometry"] is None:
            synapses.append(DenseSynapse(source=synapse["source"], weight=weight, exponent=synapse["exponent"]))
        else:
            synapses.append(
                ConvSynapse(
                    source=synapse["source"],
                    weight=weight,
                    exponent=synapse["exponent"],
                    **_tuples(synapse["geometry"]),
                )
            )
    neurons = NeuronGroup(bias=tensors[f"{name}/bias"].numpy(), **entry["neurons"])
    return GraphLayer(
        name=name, shape=tuple(entry["shape"]), synapses=tuple(synapses), neurons=neurons, scale=entry["scale"]
    )


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
