"""A `ProcessGraph` as Lava processes. The only files that import Lava are this one, lava_netx.py and lava_runner.py.

Lava is archived and runs on Python 3.10 only, so it is imported inside functions. No class of ours is a Lava process:
Lava's compiler executes every .py file beside the file that defines one.
"""

import contextlib
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hardspike.deploy.process_graph import ConvSynapse, DenseSynapse, GraphLayer, IntArray, ProcessGraph, Synapse
from hardspike.snn.architecture import INPUT, Shape
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
    Lava's order (W, H, C). neurons: the LIF process per layer. delays: steps until a layer sees the first message.
    """

    root: Any
    taps: dict[str, Any]
    neurons: dict[str, Any]
    delays: dict[str, int]


def layer_delays(graph: ProcessGraph) -> dict[str, int]:
    """Every synapse of Lava takes one step, a neuron none: layer l of a chain sees the first message after l + 1 steps.

    Raises UnsupportedLayerError where the synapses of one layer would bring messages of different steps together.
    """
    delays = {INPUT: 0}
    for layer in graph.layers:
        found = {synapse.source: delays[synapse.source] + 1 for synapse in layer.synapses}
        if not found:
            raise UnsupportedLayerError(
                f"layer '{layer.name}' takes its bias from the input, which is not streamed; use the backend 'emulator'"
            )
        if len(set(found.values())) > 1:
            paths = ", ".join(f"'{source}' after {delay}" for source, delay in found.items())
            raise UnsupportedLayerError(
                f"layer '{layer.name}' reads sources of different delay ({paths} steps); their messages would not meet "
                "on Lava, use the backend 'emulator'"
            )
        delays[layer.name] = next(iter(found.values()))
    return delays


def build_processes(graph: ProcessGraph, stream: IntArray) -> LavaNetwork:
    """stream: encoded messages of all samples one after the other, [steps, *shape]."""
    from lava.proc.io.source import RingBuffer

    delays = layer_delays(graph)
    source = RingBuffer(data=to_lava_order(stream))
    outputs = {INPUT: source.s_out}
    neurons: dict[str, Any] = {}
    taps: dict[str, Any] = {}
    for layer in graph.layers:
        neurons[layer.name] = _neurons(layer, graph.time_steps, delays[layer.name])
        for synapse in layer.synapses:
            port = outputs[synapse.source]
            if isinstance(synapse, DenseSynapse) and len(port.shape) == 3:
                port = port.transpose([2, 1, 0]).flatten()  # back to (C, H, W), whose C order the weights follow
            process = _synapse(synapse, graph.shapes[synapse.source], _message_bits(graph, synapse.source))
            port.connect(process.s_in)
            process.a_out.connect(neurons[layer.name].a_in)
        outputs[layer.name] = neurons[layer.name].s_out
        taps[layer.name] = tap(outputs[layer.name], graph.time_steps)
    return LavaNetwork(source, taps, neurons, delays)


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


def _message_bits(graph: ProcessGraph, source: str) -> int:
    """0 makes a synapse take any message for a 1; spikes are that."""
    return graph.input.message_bits if source == INPUT and graph.input.coding in ("graded", "signed") else 0


def _synapse(synapse: Synapse, source: Shape, message_bits: int) -> Any:
    from lava.proc.conv.process import Conv
    from lava.proc.dense.process import Dense

    if isinstance(synapse, ConvSynapse):
        return Conv(
            weight=synapse.weight[..., ::-1, ::-1].transpose(0, 3, 2, 1),  # a true convolution, over (W, H)
            input_shape=source[::-1],
            stride=synapse.stride[::-1],
            padding=synapse.padding[::-1],
            dilation=synapse.dilation[::-1],
            groups=synapse.groups,
            num_message_bits=message_bits,
        )
    # 8 bits and no exponent: Lava then only clears the lowest bit of mixed weights, which the graph keeps clear.
    return Dense(weights=synapse.weight, num_weight_bits=8, weight_exp=0, num_message_bits=message_bits)


def _neurons(layer: GraphLayer, time_steps: int, delay: int) -> Any:
    from lava.proc.lif.process import LIFReset

    neurons = layer.neurons
    return LIFReset(
        shape=layer.shape[::-1],
        vth=neurons.threshold,
        du=neurons.current_decay - 1,  # Lava adds 1
        dv=neurons.potential_decay,
        bias_mant=to_lava_order(np.broadcast_to(neurons.bias, layer.shape)),
        bias_exp=neurons.bias_exponent,
        reset_interval=time_steps,
        reset_offset=1 + delay,  # steps count from 1; exactly when the first message of a sample arrives
    )
