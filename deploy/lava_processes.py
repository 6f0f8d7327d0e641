"""A `ProcessGraph` as Lava processes.

Lava is archived and runs on Python 3.10 only, so it is imported inside functions, and only in the files lava_*.py. Processes of
our own are in lava_neuron/.

Every synapse of Lava takes one step and a neuron none. So a layer sees the first message of a sample one step after the
latest of its sources; what reaches it earlier, over a shortcut or from the input, is sent on through relays, synapses of
weight 1, until it is as late. Each layer is then the synchronous one of the graph, `delays` steps later, and is reset
exactly when the first message of the next sample reaches it.
"""

import contextlib
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hardspike.deploy.lava_synapses import (
    SPARSE_NONZEROS,
    message_bits,
    relay_process,
    sparse_synapses,
    synapse_process,
)
from hardspike.deploy.process_graph import DenseSynapse, GraphLayer, IntArray, ProcessGraph
from hardspike.snn.architecture import INPUT
from hardspike.snn.errors import BackendError, UnsupportedLayerError


def lava_available() -> bool:
    """Whether Lava can be imported; cheap."""
    if sys.version_info >= (3, 11) or find_spec("lava") is None:
        return False
    return find_spec("lava.magma") is not None and find_spec("lava.lib") is not None  # of lava-nc and of lava-dl


def require_lava(backend: str) -> None:
    if not lava_available():
        here = f"Python {sys.version_info.major}.{sys.version_info.minor}"
        raise BackendError(
            f"backend '{backend}': Lava is not installed for {here}; run `pip install hardspike[lava]` on Python 3.10, "
            "or use the backend 'emulator'"
        )


@contextlib.contextmanager
def lava_output_aside() -> Iterator[None]:
    """What Lava and netx print goes to stderr, where it does not mix with results; nothing is lost.

    netx divides by the largest weight where that may be 0; `check_netx_keeps` has judged the outcome.
    """
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "divide by zero", RuntimeWarning, module=r"lava\.lib\.dl\.netx")
        yield


@dataclass(frozen=True, slots=True)
class LavaNetwork:
    """Connected processes, not yet running.

    root: any of them; running it runs all. taps: per layer, an Extractor that receives its spikes at every step, in
    Lava's order (W, H, C); if `observed`, its spikes, currents and potentials, (3, W, H, C). neurons: the LIF process per
    layer. delays: steps until a layer sees the first message.
    """

    root: Any
    taps: dict[str, Any]
    neurons: dict[str, Any]
    delays: dict[str, int]
    observed: bool = False


def layer_delays(graph: ProcessGraph) -> dict[str, int]:
    """Steps until a layer sees the first message: one more than the latest of its sources, l + 1 for layer l of a chain.

    Raises UnsupportedLayerError where a layer takes its bias from the input.
    """
    delays = {INPUT: 0}
    for layer in graph.layers:
        if not layer.synapses:
            raise UnsupportedLayerError(
                f"layer '{layer.name}' takes its bias from the input, which is not streamed; use the backend 'emulator'"
            )
        delays[layer.name] = 1 + max(delays[synapse.source] for synapse in layer.synapses)
    return delays


class _Messages:
    """What every source sends, in Lava's order, and the same any number of steps later; relays are shared."""

    def __init__(self, graph: ProcessGraph, source: Any) -> None:
        self._graph = graph
        self._later = {INPUT: [source]}

    def add(self, name: str, port: Any) -> None:
        self._later[name] = [port]

    def port(self, name: str, steps: int) -> Any:
        """steps: by which they come later, 0 or more."""
        ports = self._later[name]
        while len(ports) <= steps:
            relay = relay_process(prod(ports[0].shape), message_bits(self._graph, name))
            ports[-1].flatten().connect(relay.s_in)
            ports.append(relay.a_out.reshape(ports[0].shape))
        return ports[steps]


def build_processes(
    graph: ProcessGraph, stream: IntArray, *, observe_states: bool = False, sparse_nonzeros: int = SPARSE_NONZEROS
) -> LavaNetwork:
    """stream: encoded messages of all samples one after the other, [steps, *shape].

    observe_states: with neurons that show currents and potentials. sparse_nonzeros: see lava_synapses.py; 0 for `Conv` only.
    """
    from lava.proc.io.source import RingBuffer

    delays, shapes = layer_delays(graph), graph.shapes
    as_sparse = sparse_synapses(graph, sparse_nonzeros)
    source = RingBuffer(data=to_lava_order(stream))
    messages = _Messages(graph, source.s_out)
    network = LavaNetwork(source, {}, {}, delays, observe_states)
    for layer in graph.layers:
        delay = delays[layer.name]
        neurons = network.neurons[layer.name] = _neurons(layer, graph.time_steps, delay, observe_states)
        for index, synapse in enumerate(layer.synapses):
            port = messages.port(synapse.source, delay - 1 - delays[synapse.source])
            is_sparse = (layer.name, index) in as_sparse
            process = synapse_process(
                synapse, shapes[synapse.source], message_bits(graph, synapse.source), sparse=is_sparse
            )
            if is_sparse:
                port.flatten().connect(process.s_in)
                process.a_out.reshape(layer.shape[::-1]).connect(neurons.a_in)
                continue
            if isinstance(synapse, DenseSynapse) and len(port.shape) == 3:
                port = port.transpose([2, 1, 0]).flatten()  # back to (C, H, W), whose C order the weights follow
            port.connect(process.s_in)
            process.a_out.connect(neurons.a_in)
        messages.add(layer.name, neurons.s_out)
        network.taps[layer.name] = tap(neurons.states_out if observe_states else neurons.s_out, graph.time_steps)
    return network


def tap(port: Any, steps: int) -> Any:
    """An Extractor on a port, with room for `steps` arrays.

    Lava's RingBuffer sink gives its data back at 32 µs per value, this at less than 0.2 µs (measured, lava-nc 0.10.0).
    """
    from lava.proc.io.extractor import Extractor

    extractor = Extractor(shape=port.shape, buffer_size=steps)
    port.connect(extractor.in_port)
    return extractor


def to_lava_order(array: NDArray[Any]) -> NDArray[Any]:
    """[steps, C, H, W] to (W, H, C, steps), [steps, N] to (N, steps), [C, H, W] to (W, H, C); and back."""
    return np.ascontiguousarray(array.T)


def _neurons(layer: GraphLayer, time_steps: int, delay: int, observe_states: bool) -> Any:
    """Lava's own LIF wherever it will do."""
    from lava.proc.lif.process import LIFReset

    neurons = layer.neurons
    parameters: dict[str, Any] = {
        "shape": layer.shape[::-1],
        "vth": neurons.threshold,
        "du": neurons.current_decay - 1,  # Lava adds 1
        "dv": neurons.potential_decay,
        "bias_mant": to_lava_order(np.broadcast_to(neurons.bias, layer.shape)),
        "bias_exp": neurons.bias_exponent,
        "reset_interval": time_steps,
        "reset_offset": 1 + delay,  # steps count from 1; exactly when the first message of a sample arrives
    }
    if not (neurons.extensions or observe_states):
        return LIFReset(**parameters)
    from hardspike.deploy.lava_neuron.process import ObservedLIF, ProgrammableLIF

    if not neurons.extensions:
        return ObservedLIF(**parameters)
    return ProgrammableLIF(
        initial=neurons.initial,
        reset_by=neurons.reset_by,
        fires_first=neurons.order == "fire-first",
        **parameters,
    )
