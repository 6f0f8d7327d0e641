"""Networks as `.net` files: the HDF5 exchange format of lava-dl's netx 0.6, written and read with h5py alone.

A file is a chain: `layer/0`, `layer/1`, ... of type input, conv, flatten or dense, all in PyTorch's order (C, H, W) but
for a bias per position, which netx wants as (W, H, C). Weights, biases and thresholds share one unit. netx reads no
attributes, so attributes carry what it has no place for (input coding, layer names, scales): a file of ours comes back
whole, and a file from elsewhere needs arguments instead.
"""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hardspike.deploy.lava_limits import check_netx_holds
from hardspike.deploy.netx_reader import read_netx
from hardspike.deploy.process_graph import DenseSynapse, GraphLayer, IntArray, ProcessGraph
from hardspike.snn.architecture import Shape
from hardspike.snn.atomic import replacing

__all__ = ["read_netx", "write_netx"]


def write_netx(path: Path, graph: ProcessGraph) -> None:
    """Write a chain; nothing is rounded, and a graph that netx would change is refused.

    Raises:
        UnsupportedLayerError: the graph is no chain, or holds something that the format has no place for.
        DoesNotFitError: netx or Lava would silently compute with other integers.
    """
    check_netx_holds(graph)
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        contract = graph.input
        file.attrs["coding"] = np.bytes_(contract.coding)
        file.attrs["message_bits"] = contract.message_bits
        file.attrs["constant_channels"] = contract.constant_channels
        file.attrs["weight_bits"] = graph.weight_bits
        file.create_dataset("simulation/Ts", data=1)
        file.create_dataset("simulation/tSample", data=graph.time_steps)
        index, shape = 0, contract.encoded_shape
        if contract.coding != "current":
            _write_layer(file, index, "input", shape)  # without neurons it only declares the shape
            index += 1
        for layer in graph.layers:
            if layer.synapses and isinstance(layer.synapses[0], DenseSynapse) and len(shape) > 1:
                _write_layer(file, index, "flatten", (int(np.prod(shape)),))
                index += 1
            _write_neurons(_write_synapse(file, index, layer), layer, graph)
            index, shape = index + 1, layer.shape


def _write_layer(file: Any, index: int, kind: str, shape: Shape) -> Any:
    group = file.create_group(f"layer/{index}")
    group["type"] = np.array([kind.encode()], dtype="S10")
    group["shape"] = np.array(shape, dtype=np.int64)
    return group


def _write_synapse(file: Any, index: int, layer: GraphLayer) -> Any:
    if not layer.synapses:
        return _write_layer(file, index, "input", layer.shape)
    synapse = layer.synapses[0]
    if isinstance(synapse, DenseSynapse):
        group = _write_layer(file, index, "dense", layer.shape)
        group["outFeatures"], group["inFeatures"] = synapse.weight.shape
    else:
        group = _write_layer(file, index, "conv", layer.shape)
        for name in ("stride", "padding", "dilation"):
            group[name] = np.array(getattr(synapse, name), dtype=np.int64)
        group["groups"] = synapse.groups
        group["kernelSize"] = np.array(synapse.weight.shape[2:], dtype=np.int64)
        group["outChannels"], group["inChannels"] = synapse.weight.shape[0], synapse.weight.shape[1] * synapse.groups
    group["weight"] = synapse.weight.astype(np.int32)
    group["bias"] = _bias_for_netx(layer.neurons.bias, layer.shape)
    return group


def _write_neurons(group: Any, layer: GraphLayer, graph: ProcessGraph) -> None:
    neurons = layer.neurons
    group.attrs["name"] = np.bytes_(layer.name.encode())
    group.attrs["scale"] = layer.scale
    group["neuron/type"] = np.array([b"CUBA"], dtype="S10")
    group["neuron/iDecay"] = neurons.current_decay
    group["neuron/vDecay"] = neurons.potential_decay
    group["neuron/vThMant"] = neurons.threshold if neurons.spiking else graph.numerics.threshold_mantissa_max
    group["neuron/refDelay"] = 1
    group["neuron/gradedSpike"] = 0


def _bias_for_netx(bias: IntArray, shape: Shape) -> IntArray:
    """(C,) where each channel has one bias, else (W, H, C); (N,) of a dense layer. netx tells them by their shape."""
    own = (1,) * (len(shape) - bias.ndim) + bias.shape
    if len(shape) == 3 and own[1:] == (1, 1):
        return np.broadcast_to(bias.reshape(own), (shape[0], 1, 1)).reshape(-1)
    return np.ascontiguousarray(np.broadcast_to(bias, shape).T)
