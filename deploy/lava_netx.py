"""A `.net` file loaded by lava-dl's netx, and whether Lava then holds the integers of the graph it was written from."""

import contextlib
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hardspike.deploy.lava_processes import (
    LavaNetwork,
    lava_output_aside,
    layer_delays,
    require_lava,
    tap,
    to_lava_order,
)
from hardspike.deploy.process_graph import ConvSynapse, GraphLayer, IntArray, ProcessGraph
from hardspike.snn.errors import BackendError, FileError

# About a graphics card and a camera tool that nothing here uses.
IDLE_TALK = (
    "No CUDA runtime is found",
    "WARNING: Prophesee Dataset Toolbox could not be found!",
    "Only Prophesee DVS demo will not run properly.",
    "Please install it from https://github.com/prophesee-ai",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphDifferences:
    """How many integers were compared, how many differ, and where the first one that does is."""

    num_compared: int
    num_differing: int
    first: str = ""


def import_netx() -> None:
    """Import netx; of what lava-dl prints at that, all but `IDLE_TALK` goes to stderr."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            import_module("lava.lib.dl.netx.hdf5")
    finally:
        for line in printed.getvalue().splitlines():
            if not line.strip().startswith(IDLE_TALK):
                print(line, file=sys.stderr)


def load_netx(path: Path, graph: ProcessGraph) -> Any:
    """netx's `Network` of a file that carries `graph`. Raises BackendError where netx cannot load it."""
    require_lava("lava-netx")
    import_netx()
    from lava.lib.dl.netx.hdf5 import Network

    with lava_output_aside():
        if not path.is_file():
            raise FileError(f"{path}: no such file; expected a .net file")
        try:
            network = Network(
                net_config=str(path),
                input_message_bits=graph.input.message_bits if graph.input.coding == "graded" else 0,
                reset_interval=graph.time_steps,
                reset_offset=1,  # the stream takes a step to reach the first layer; with 0 resets come one step early
            )
        except Exception as error:  # netx checks nothing itself: damage surfaces as any error of h5py, numpy or Python
            line = (str(error).splitlines() or [""])[0]
            raise BackendError(
                f"{path}: netx cannot load this file ({type(error).__name__}: {line}); write it again"
            ) from error
        network.net_config.f.close()  # netx keeps it open, and everything has been read
    return network


def netx_graph_differences(path: Path, graph: ProcessGraph) -> GraphDifferences:
    """Compare every integer that Lava's processes hold after netx has loaded `path` with the graph's."""
    return graph_differences(load_netx(path, graph), graph)


def graph_differences(network: Any, graph: ProcessGraph) -> GraphDifferences:
    if len(network.layers) != len(graph.layers):
        where = f"{len(network.layers)} layers instead of {len(graph.layers)}"
        return GraphDifferences(num_compared=1, num_differing=1, first=where)
    compared, differing, first = 0, 0, ""
    for layer, block in zip(graph.layers, network.layers, strict=True):
        for what, found, expected in _integers(layer, block, graph.time_steps):
            expected = np.asarray(expected, dtype=np.int64)
            compared += expected.size
            if found.shape != expected.shape:
                differing += expected.size
                first = first or f"layer '{layer.name}': {what} has shape {found.shape} instead of {expected.shape}"
            elif (wrong := np.argwhere(found != expected)).size:
                differing += len(wrong)
                place = tuple(wrong[0].tolist())
                first = (
                    first or f"layer '{layer.name}': {what}{list(place)} is {found[place]} instead of {expected[place]}"
                )
    return GraphDifferences(num_compared=compared, num_differing=differing, first=first)


Item = tuple[str, NDArray[np.int64], Any]


def _integers(layer: GraphLayer, block: Any, time_steps: int) -> Iterator[Item]:
    """(name, what Lava holds in the graph's terms, what the graph holds), all of one layer."""
    if not layer.synapses:
        raise BackendError(
            f"layer '{layer.name}' takes its bias from the input; only files with a streamed input are compared"
        )
    synapse, held, lif = layer.synapses[0], block.synapse, block.neuron
    if isinstance(synapse, ConvSynapse):
        yield "weight", _value(held.weight).transpose(0, 3, 2, 1)[..., ::-1, ::-1], synapse.weight
        for name in ("stride", "padding", "dilation"):
            yield name, _value(getattr(held, name))[::-1], getattr(synapse, name)
        yield "groups", _value(held.groups).ravel(), [synapse.groups]
    else:
        yield "weight", _dense_weight(held), synapse.weight
    neurons = layer.neurons
    everywhere = (
        ("current decay", _value(lif.du) + 1, neurons.current_decay),
        ("potential decay", _value(lif.dv), neurons.potential_decay),
        ("threshold", _value(lif.vth), neurons.threshold),
        ("bias exponent", _value(lif.bias_exp), neurons.bias_exponent),
        ("reset interval", np.array(lif.proc_params["reset_interval"], dtype=np.int64), time_steps),
    )
    for name, found, expected in everywhere:
        yield name, found, np.full(found.shape, expected)
    bias = np.broadcast_to(_value(lif.bias_mant), layer.shape[::-1])
    yield "bias", to_lava_order(bias), np.broadcast_to(neurons.bias, layer.shape)


def _value(var: Any) -> NDArray[np.int64]:
    """The initial value of a Var. Lava broadcasts a scalar to the Var's shape."""
    return np.broadcast_to(np.asarray(var.init), var.shape).astype(np.int64)


def _dense_weight(dense: Any) -> NDArray[np.int64]:
    """What a message of 1 adds: Lava's model clips and truncates at first, and shifts each sum by the exponent.

    Where the shift would cut off a fraction, an integer that no graph holds.
    """
    from lava.utils.weightutils import clip_weights, determine_sign_mode, truncate_weights

    weight = _value(dense.weights)
    sign = determine_sign_mode(weight)
    bits, exponent = dense.proc_params.get("num_weight_bits"), int(dense.proc_params.get("weight_exp"))
    held = truncate_weights(clip_weights(weight, sign, num_bits=8), sign, bits).astype(np.int64)
    exact = held % (1 << max(-exponent, 0)) == 0
    effective: NDArray[np.int64] = held << exponent if exponent >= 0 else held >> -exponent
    return np.where(exact, effective, np.iinfo(np.int64).min)


def build_netx(path: Path, graph: ProcessGraph, stream: IntArray, *, on_chip: bool = False) -> LavaNetwork:
    """The network of a file behind a source that streams [steps, *encoded shape], with a tap on every layer.

    on_chip: with the adapters of Intel's extension between host and chip, as in lava-dl's hardware tests; never run.
    """
    from lava.proc.io.source import RingBuffer

    delays = layer_delays(graph)
    network = load_netx(path, graph)
    differences = graph_differences(network, graph)
    if differences.num_differing:
        raise BackendError(f"{path}: not a file of this graph ({differences.first}); write it again")
    flat = len(network.inp.shape) == 1
    source = RingBuffer(data=to_lava_order(stream.reshape(len(stream), -1) if flat else stream))
    blocks = dict(zip((layer.name for layer in graph.layers), network.layers, strict=True))
    outputs = {name: block.out for name, block in blocks.items()}
    if on_chip:
        from lava.proc.embedded_io.spike import NxToPyAdapter, PyToN3ConvAdapter, PyToNxAdapter

        bits = graph.input.message_bits if graph.input.coding == "graded" else 0
        into = (PyToNxAdapter if flat else PyToN3ConvAdapter)(shape=network.inp.shape, num_message_bits=bits)
        source.s_out.connect(into.inp)
        into.out.connect(network.inp)
        for name, port in outputs.items():
            adapter = NxToPyAdapter(shape=port.shape)
            port.connect(adapter.inp)
            outputs[name] = adapter.out
    else:
        source.s_out.connect(network.inp)
    taps = {name: tap(port, graph.time_steps) for name, port in outputs.items()}
    return LavaNetwork(network, taps, {name: block.neuron for name, block in blocks.items()}, delays)
