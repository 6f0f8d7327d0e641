"""The slow, obvious reference: a `ProcessGraph` in pure Python integers, spike by spike.

It shares no arithmetic with the emulator: no tensors, no convolutions, no bounds. A message walks along the list of
(target, weight) pairs of its sender, and each neuron is updated by the formulas at the top of process_graph.py.
"""

from dataclasses import dataclass, field

from hardspike.deploy.process_graph import ConvSynapse, DenseSynapse, GraphLayer, NeuronGroup, ProcessGraph, Synapse
from hardspike.hw_profiles.profile import Numerics
from hardspike.snn.architecture import INPUT, Shape

FanOut = list[tuple[list[int], list[int]]]  # per sender: targets and weights


@dataclass(slots=True)
class OracleTrace:
    """Nested lists: [layer name][step][flat neuron index], for one sample. `output` is the last layer's final potential."""

    spikes: dict[str, list[list[int]]] = field(default_factory=dict)
    currents: dict[str, list[list[int]]] = field(default_factory=dict)
    potentials: dict[str, list[list[int]]] = field(default_factory=dict)
    output: list[int] = field(default_factory=list)


def decay(value: int, amount: int, numerics: Numerics) -> int:
    """sign(value) * ((|value| * (2^D - amount)) >> D): towards zero."""
    magnitude = (abs(value) * (numerics.decay_one - amount)) >> numerics.decay_bits
    return magnitude if value >= 0 else -magnitude


def update(
    accumulated: int, current: int, potential: int, bias_mantissa: int, neurons: NeuronGroup, numerics: Numerics
) -> tuple[int, int, int, int]:
    """One neuron, one step: (current, potential that was compared with the threshold, spike, potential it leaves)."""
    half, full = numerics.state_max + 1, 2 * (numerics.state_max + 1)
    current = decay(current, neurons.current_decay, numerics) + (accumulated << numerics.state_shift)
    if current > half:
        current -= full
    elif current <= -half:
        current += full
    drive = current + (bias_mantissa << neurons.bias_exponent)
    threshold = neurons.threshold << numerics.state_shift
    if neurons.order == "fire-first":
        compared = potential
        spike = int(neurons.spiking and compared > threshold)
        if spike and neurons.reset_by is None:
            potential = 0
        if spike and neurons.reset_by is not None:
            drive -= neurons.reset_by << numerics.state_shift
        potential = clip(decay(potential, neurons.potential_decay, numerics) + drive, numerics)
        return current, compared, spike, potential
    compared = potential = clip(decay(potential, neurons.potential_decay, numerics) + drive, numerics)
    spike = int(neurons.spiking and compared > threshold)
    if spike:
        potential = 0 if neurons.reset_by is None else potential - (neurons.reset_by << numerics.state_shift)
    return current, compared, spike, potential


def clip(potential: int, numerics: Numerics) -> int:
    return max(-numerics.state_max, min(numerics.state_max, potential))


def _size(shape: Shape) -> int:
    size = 1
    for side in shape:
        size *= side
    return size


def _fan_out(synapse: Synapse, source: Shape, target: Shape) -> FanOut:
    fan: FanOut = [([], []) for _ in range(_size(source))]
    weight = synapse.weight.tolist()
    if isinstance(synapse, DenseSynapse):
        for output, row in enumerate(weight):
            for sender, value in enumerate(row):
                if value:
                    fan[sender][0].append(output)
                    fan[sender][1].append(value)
        return fan
    _convolution_fan_out(synapse, weight, source, target, fan)
    return fan


def _convolution_fan_out(
    synapse: ConvSynapse, weight: list[list[list[list[int]]]], source: Shape, target: Shape, fan: FanOut
) -> None:
    _, height, width = source
    outputs_per_group = target[0] // synapse.groups
    inputs_per_group = source[0] // synapse.groups
    for o, kernels in enumerate(weight):
        for i, kernel in enumerate(kernels):
            channel = (o // outputs_per_group) * inputs_per_group + i
            for ky, row in enumerate(kernel):
                for kx, value in enumerate(row):
                    if not value:
                        continue
                    for oy in range(target[1]):
                        y = oy * synapse.stride[0] - synapse.padding[0] + ky * synapse.dilation[0]
                        if not 0 <= y < height:
                            continue
                        for ox in range(target[2]):
                            x = ox * synapse.stride[1] - synapse.padding[1] + kx * synapse.dilation[1]
                            if 0 <= x < width:
                                targets, weights = fan[(channel * height + y) * width + x]
                                targets.append((o * target[1] + oy) * target[2] + ox)
                                weights.append(value)


class Oracle:
    """Runs one sample at a time. `fan_out` lists are built once per graph."""

    def __init__(self, graph: ProcessGraph) -> None:
        self.graph = graph
        shapes = graph.shapes
        self._fan_out = {
            layer.name: [
                (synapse.source, _fan_out(synapse, shapes[synapse.source], layer.shape)) for synapse in layer.synapses
            ]
            for layer in graph.layers
        }
        self._bias = {layer.name: _broadcast(layer) for layer in graph.layers}

    def run(self, messages: list[list[int]]) -> OracleTrace:
        """messages: for each step, the flat integers of one sample, constant channels not included."""
        graph, numerics = self.graph, self.graph.numerics
        trace = OracleTrace()
        current = {layer.name: [0] * _size(layer.shape) for layer in graph.layers}
        potential = {layer.name: [layer.neurons.initial] * _size(layer.shape) for layer in graph.layers}
        side = _size(graph.input.shape[1:])
        constant = [value for value in graph.input.constant_messages for _ in range(side)]
        for step in messages:
            sent = {INPUT: step + constant}
            for layer in graph.layers:
                total = [0] * _size(layer.shape)
                for source, fan in self._fan_out[layer.name]:
                    for sender, message in enumerate(sent[source]):
                        if message:
                            for target, weight in zip(*fan[sender], strict=True):
                                total[target] += weight * message
                bias = self._bias[layer.name] if layer.synapses else step
                us, vs, spikes = current[layer.name], potential[layer.name], []
                before = []
                for n, accumulated in enumerate(total):
                    us[n], v, spike, vs[n] = update(accumulated, us[n], vs[n], bias[n], layer.neurons, numerics)
                    before.append(v)
                    spikes.append(spike)
                trace.spikes.setdefault(layer.name, []).append(spikes)
                trace.currents.setdefault(layer.name, []).append(list(us))
                trace.potentials.setdefault(layer.name, []).append(before)
                sent[layer.name] = spikes
        trace.output = list(potential[graph.output.name])
        return trace


def _broadcast(layer: GraphLayer) -> list[int]:
    """The bias mantissa of every neuron, in C order."""
    shape, bias = layer.shape, layer.neurons.bias
    padded = bias.reshape((1,) * (len(shape) - bias.ndim) + bias.shape)
    flat: list[int] = padded.ravel().tolist()
    values = []
    for n in range(_size(shape)):
        index, rest = 0, n
        stride = 1
        for side, own in zip(reversed(shape), reversed(padded.shape), strict=True):
            rest, position = divmod(rest, side)
            index += (position if own > 1 else 0) * stride
            stride *= own
        values.append(flat[index])
    return values
