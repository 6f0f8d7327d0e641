"""A spiking network from a NIR file, whoever wrote it: snnTorch, SpikingJelly, Norse, sinabs, or ourselves."""

from pathlib import Path

import numpy as np
import torch

from hardspike.convert.nir_file import read_nir_graph
from hardspike.convert.nir_neurons import Discretisation
from hardspike.convert.nir_reader import SAID, SAID_TYPES, Built, NirReader
from hardspike.convert.nir_values import parsed
from hardspike.snn.architecture import INPUT, Architecture, Node
from hardspike.snn.errors import FileError, SettingsError
from hardspike.snn.membrane import NeuronSettings
from hardspike.snn.network import SpikingNetwork

AS_NIR_DEFINES = NeuronSettings(strict=True)
MOST_STEPS = 1 << 20
PRECISE = ("weight", "scale")  # parameters that say how precise a network is: scales where it has no weights


def read_nir(
    path: Path,
    *,
    dt: float | None = None,
    time_steps: int | None = None,
    neuron: NeuronSettings = AS_NIR_DEFINES,
    discretisation: Discretisation = "euler",
    image_shape: tuple[int, int, int] | None = None,
) -> SpikingNetwork:
    """The network of a NIR file, in evaluation mode; float64 where one of its weights is, else float32.

    Its logits are the mean over timesteps of what reaches the file's Output. A file of ours needs none of the arguments and
    comes back as it was, but for folded batch norms and dropout.

    Args:
        dt: seconds per timestep; see nir_neurons.py for what other frameworks mean.
        time_steps: per image.
        neuron: what NIR does not say of its neurons (reset, order, strict, initial potential, training); its leak is not
            read. As it is, NIR's definition: hard reset, fires above the threshold.
        discretisation: of the neurons' equations, see nir_neurons.py.
        image_shape: (C, H, W) of images for a file whose input is flat, else (1, 1, N).

    Raises:
        FileError: missing, damaged, or parts that do not fit together; names the node.
        UnsupportedLayerError: nodes or neurons that no layer here does the same as.
        SettingsError: dt or time_steps that the file does not say are not given, or make no sense.
    """
    graph = read_nir_graph(path)
    said = parsed(graph.metadata.get(SAID, "{}"), SAID_TYPES, f"{path}: metadata '{SAID}' of the graph")
    dt = said.get("dt") if dt is None else dt
    time_steps = said.get("time_steps") if time_steps is None else time_steps
    for name, value, top in (("dt", dt, np.inf), ("time_steps", time_steps, MOST_STEPS)):
        if value is None:
            raise SettingsError(f"{path}: it does not say its {name}; give it")
        if not 0 < value <= top or value == np.inf:
            raise SettingsError(f"{path}: {name} = {value} is not allowed; use a positive number")
    assert dt is not None and time_steps is not None
    reader = NirReader(path, graph, said, dt=dt, discretisation=discretisation, neuron=neuron, image_shape=image_shape)
    reader.read()
    if reader.image is None or reader.output == INPUT:
        raise FileError(f"{path}: no layers between Input and Output; give a network")
    readout = said.get("readout", "mean")
    kept = _needed(reader.built, reader.output)
    nodes = tuple(Node(name=name, layer=entry.layer, sources=entry.sources) for name, entry in kept.items())
    try:
        network = SpikingNetwork(Architecture(input=reader.image, nodes=nodes, readout=readout), time_steps)
    except SettingsError as error:
        raise FileError(f"{path}: {error}") from None
    weights, scales = ([node.values[key] for node in graph.nodes.values() if key in node.values] for key in PRECISE)
    if any(array.dtype == np.float64 for array in weights or scales):
        network.double()
    _load(path, network, kept)
    return network.eval()


def _needed(built: dict[str, Built], last: str) -> dict[str, Built]:
    """The layers that `last` needs; it comes last."""
    needed = {last}
    for name in reversed(built):  # sources come earlier
        if name in needed:
            needed.update(built[name].sources)
    return {name: entry for name, entry in built.items() if name in needed}


def _load(path: Path, network: SpikingNetwork, built: dict[str, Built]) -> None:
    for name, entry in built.items():
        tensors = {key: torch.from_numpy(np.array(array, dtype=np.float64)) for key, array in entry.tensors.items()}
        loaded = network.layers[name].load_state_dict(tensors, strict=False)
        assert not loaded.unexpected_keys
        # After the network's own rounding, which may make infinities.
        if not all(torch.isfinite(parameter).all() for parameter in network.layers[name].parameters()):
            raise FileError(f"{path}: a parameter of layer '{name}' is not finite; train again")
