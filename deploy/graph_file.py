"""A `ProcessGraph` in one self-describing file: safetensors, integers as tensors, everything else as JSON in the header."""

import json
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hardspike.deploy.graph_reader import read_graph
from hardspike.deploy.process_graph import ConvSynapse, NeuronGroup, ProcessGraph
from hardspike.hw_profiles.constant import Mistake
from hardspike.snn.checkpoint import load_tensors, save_tensors
from hardspike.snn.errors import FileError, HardspikeError

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
    """Read and validate a graph.

    Raises FileError, naming the place, when the file is missing, damaged or of another kind; and as `ProcessGraph`.
    """
    tensors, metadata = load_tensors(path, KIND)
    try:
        return read_graph(json.loads(metadata["graph"]), tensors)
    except (KeyError, ValueError, RecursionError) as error:
        if isinstance(error, HardspikeError):
            raise type(error)(f"{path}: {error}") from None
        reason = " ".join(str(error).split())
        raise FileError(f"{path}: not a readable {KIND} file ({reason}); it is damaged or of another version") from None
    except Mistake as mistake:
        where = f"{'.'.join(map(str, mistake.path))}: " if mistake.path else ""
        raise FileError(
            f"{path}: not a readable {KIND} file ({where}{mistake.text}); it is damaged or of another version"
        ) from None
