"""Where Lava 0.10 and netx 0.6 silently compute something else than they were given; checked before anything is built.

Lava itself is not needed here, so that a `.net` file can be judged where there is no Lava.
"""

import numpy as np

from hardspike.deploy.process_graph import (
    EXTENSIONS,
    ConvSynapse,
    DenseSynapse,
    GraphLayer,
    IntArray,
    ProcessGraph,
    check_weights,
    magnitude_bound,
)
from hardspike.hw_profiles.profile import load_profile
from hardspike.snn.architecture import INPUT
from hardspike.snn.errors import DoesNotFitError, UnsupportedLayerError

INT8_MAX = 127  # Conv keeps its geometry in int8: from 128 on it wraps, and 128 groups give an output of zeros
INT32_MAX = (1 << 31) - 1  # LIF adds up in int32 what it then wraps to 24 bits
INT16_MIN, INT16_MAX = -32768, 32767  # LIF keeps the bias mantissa in int16, and wraps it
NETX_BIAS_EXPONENT = 6  # netx sets it; the file has no place for another


def check_lava_computes(graph: ProcessGraph) -> None:
    """Raise DoesNotFitError or UnsupportedLayerError where Lava's processes would not compute the graph."""
    lava, own = load_profile("loihi2").numerics, graph.numerics
    for field in ("state_bits", "decay_bits", "state_shift"):
        if getattr(own, field) != getattr(lava, field):
            raise DoesNotFitError(
                f"graph: {field} = {getattr(own, field)} ({graph.profile}: numerics.{field}), but Lava computes with "
                f"{getattr(lava, field)}; use the emulator for this profile"
            )
    for layer in graph.layers:
        bias = layer.neurons.bias
        if bias.min() < INT16_MIN or bias.max() > INT16_MAX:
            raise DoesNotFitError(
                f"layer '{layer.name}': bias {int(bias.min())}..{int(bias.max())} exceeds Lava's "
                f"{INT16_MIN}..{INT16_MAX}; lower the layer's scale"
            )
        _check_sum(layer, graph)
        for synapse in layer.synapses:
            # Again, for a profile of the user's own may allow what Lava's Dense clips.
            check_weights(layer.name, synapse, lava, 8, "loihi2")
            if isinstance(synapse, ConvSynapse):
                _check_geometry(layer.name, synapse)


def _check_sum(layer: GraphLayer, graph: ProcessGraph) -> None:
    """The graph bounds each synapse; Lava adds all of them, the old current and the bias, before it wraps the current."""
    neurons, numerics = layer.neurons, graph.numerics
    reach = sum(magnitude_bound(synapse, graph.messages_max(synapse.source)) for synapse in layer.synapses)
    bias = int(np.abs(neurons.bias.astype(np.int64)).max()) << neurons.bias_exponent
    most = (INT32_MAX - 2 * (numerics.state_max + 1) - bias) >> numerics.state_shift
    if reach > most:
        raise DoesNotFitError(
            f"layer '{layer.name}': its synapses together could reach {reach}, beyond the {most} that Lava adds in 32 "
            "bits; lower the layer's scale"
        )


def _check_geometry(name: str, synapse: ConvSynapse) -> None:
    largest = max(*synapse.weight.shape[2:], *synapse.stride, *synapse.padding, *synapse.dilation)
    if largest > INT8_MAX:
        raise DoesNotFitError(
            f"layer '{name}': kernel, stride, padding or dilation {largest} exceeds Lava's {INT8_MAX}; make it dense"
        )


def check_loihi2_resets(graph: ProcessGraph) -> None:
    """Raise DoesNotFitError unless the chip can reset its neurons after each image (lava-dl, tutorials netx mnist/run.ipynb)."""
    steps = graph.time_steps
    if steps & (steps - 1):
        raise DoesNotFitError(
            f"graph: {steps} timesteps, but a Loihi 2 resets every 2^n; convert to {1 << steps.bit_length() - 1} or "
            f"{1 << steps.bit_length()}, or use hardspike deploy --bundle, which waits until then"
        )


def check_netx_holds(graph: ProcessGraph) -> None:
    """Raise unless netx computes from the file of this graph exactly what the graph says."""
    if not graph.is_chain:
        raise UnsupportedLayerError(
            f"layer '{_first_off_the_chain(graph)}' does not read just the layer before it, and a .net file holds "
            "chains only; run such a graph on the backend 'lava'"
        )
    if graph.input.coding == "signed":
        raise UnsupportedLayerError(
            "layer 'input': signed spikes, for which a .net file has no place; run such a graph on the backend 'lava'"
        )
    check_lava_computes(graph)
    mark = graph.numerics.threshold_mantissa_max
    for layer in graph.layers:
        neurons = layer.neurons
        if neurons.extensions:
            raise UnsupportedLayerError(
                f"layer '{layer.name}': {EXTENSIONS[neurons.extensions[0]]}, which netx's neurons do not know; run such a "
                "graph on the backend 'lava'"
            )
        if neurons.bias_exponent != NETX_BIAS_EXPONENT:
            raise UnsupportedLayerError(
                f"layer '{layer.name}': bias exponent {neurons.bias_exponent}, but netx always uses "
                f"{NETX_BIAS_EXPONENT}; scale the bias mantissas to it"
            )
        if not layer.synapses and np.any(neurons.bias):
            raise UnsupportedLayerError(
                f"layer '{layer.name}' takes its bias from the input and has one of its own, for which a .net file has "
                "no place; add it to the input"
            )
        if layer is graph.output and neurons.spiking and neurons.threshold >= mark:
            raise UnsupportedLayerError(
                f"layer '{layer.name}': threshold {neurons.threshold} marks a readout that never fires; lower it, or "
                "use spiking=False"
            )
        for synapse in layer.synapses:
            if synapse.exponent:
                raise UnsupportedLayerError(
                    f"layer '{layer.name}': weight exponent {synapse.exponent}, which netx ignores; lower the layer's "
                    "scale, or run such a graph on the backend 'lava'"
                )
            if isinstance(synapse, ConvSynapse) and synapse.groups > INT8_MAX:
                raise DoesNotFitError(
                    f"layer '{layer.name}': {synapse.groups} groups exceed netx's {INT8_MAX} (it would compute zeros); use "
                    "half as many groups of twice the channels, or run such a graph on the backend 'lava'"
                )
            problem = dense_weight_problem(synapse.weight) if isinstance(synapse, DenseSynapse) else None
            if problem:
                raise DoesNotFitError(f"layer '{layer.name}': {problem}")


def _first_off_the_chain(graph: ProcessGraph) -> str:
    before = [INPUT, *(layer.name for layer in graph.layers)]
    for layer, source in zip(graph.layers, before, strict=False):
        if layer.synapses and [synapse.source for synapse in layer.synapses] != [source]:
            return layer.name
    raise AssertionError("the graph is a chain")


def dense_weight_problem(weight: IntArray) -> str | None:
    """What netx and Lava's Dense do to these integer weights, and a remedy; None where they add up exactly.

    netx shifts a matrix left by the s bits that its range leaves free and gives it the exponent -s; Lava clips the
    result to -256..255 (signs mixed) or to +-255, clears the low bits that the declared width does not have, and shifts
    each sum back. Nothing is lost unless one of these steps touches a bit that is set.
    """
    low, high = int(weight.min()), int(weight.max())
    if low == high == 0:
        return "all weights are 0, which netx cannot load; remove the layer's synapse or give it one nonzero weight"
    if low < 0 < high:
        if low < -256 or high > 254:
            return (
                f"weights {low}..{high} exceed -256..254 of mixed signs, netx would clip them; lower the layer's scale"
            )
        return None
    if low < -255 or high > 255:
        return f"weights {low}..{high} of one sign exceed 255, netx would turn them into zeros; lower the layer's scale"
    if low >= 0:
        return None
    # All weights <= 0: netx takes a matrix that holds a 0 for one of mixed signs, Lava does not.
    if -low & (-low - 1) == 0:
        return f"weights {low}..{high} reach down to a power of two, which Lava would clip; change the layer's scale"
    if high == 0 and low < -128 and np.any(weight % 2):
        return f"weights {low}..0 hold odd ones, which Lava would turn into zeros; use even weights or one weight > 0"
    return None
