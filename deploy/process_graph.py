"""`ProcessGraph`: a deployed network as integers, exactly as the chip computes with them.

Layers in topological order; each sums its synapses and updates its neurons once per timestep t = 1..T, all layers at the
same step (a chain on Lava is the same network with layer l one step later than layer l - 1). With N the graph's numerics,
one step of one neuron, all in integers, is

    a = sum over synapses of sum over inputs of weight * message           (unit: weight)
    u = decay(u, current_decay) + (a << N.state_shift), wrapped into (-2^(B-1), 2^(B-1)], B = N.state_bits
    v = clip(decay(v, potential_decay) + u + bias, -N.state_max, N.state_max),  bias = mantissa << bias_exponent
    s = 1 if v > threshold << N.state_shift else 0                           (strictly greater)
    v = 0 where s, or v - (reset_by << N.state_shift) with a soft reset
    decay(x, d) = sign(x) * ((|x| * (2^D - d)) >> D), D = N.decay_bits       (rounds towards zero)

u = 0 and v = initial before the first step of each sample. With hard reset and initial = 0 this is Lava's `LIF` in `fixed_pt`
mode (lava-nc 0.10.0, proc/lif/models.py), with `current_decay` counted as the `.net` file counts it (Lava's du =
current_decay - 1); the rest is our own extension, for chips with programmable neurons.

A neuron that fires first compares the potential that the last step left, and integrates afterwards (snn/membrane.py):

    s = 1 if v > threshold << N.state_shift else 0;   u as above
    v = clip(decay(v, potential_decay) + u + bias - (reset_by << N.state_shift if s)), or with a hard reset v = 0 where s before

Weights are stored as the integers that the accumulator adds, not as codes: the code and exponent of a weight follow from
its value and the sign rule of the layer (docs/decisions/0002-weights-are-effective-integers.md).
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hardspike.hw_profiles.profile import Numerics
from hardspike.snn.architecture import INPUT, Shape, convolved
from hardspike.snn.errors import DoesNotFitError, UnsupportedLayerError
from hardspike.snn.membrane import Order

EXTENSIONS = {"soft": "a soft reset", "initial": "an initial potential", "fire-first": "firing before integrating"}

CAMERA_BITS = 8
IntArray = NDArray[np.int32]
Coding = Literal["graded", "binary", "signed", "current"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoissonCode:
    """How the host makes spikes of images: (x - mean) / std per channel, then `snn.encoding.poisson_spikes` at this rate."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class InputContract:
    """What a host must send.

    shape: of one image (C, H, W) or (N,), without constant channels.
    coding: `graded`, the same integer message at every step (Loihi 2's graded spikes); `binary`, 0 or 1, its own at every
        step; `signed`, -1, 0 or 1, its own at every step; `current`, the integer is the bias mantissa of the first layer's
        neurons, which have no synapse.
    message_bits: messages are 0 .. 2^message_bits - 1 (graded), 1 for binary and signed; currents are signed and have no
        such bound.
    constant_channels: channels that the encoder appends, see `constant_messages`; they carry the first layer's bias where it
        exceeds the bias mantissa.
    poisson: of images into spikes. With `binary` coding the first half of the channels are the positive spikes, the second
        half the negative ones.
    """

    shape: Shape
    coding: Coding
    message_bits: int
    constant_channels: int = 0
    poisson: PoissonCode | None = None

    @property
    def has_time(self) -> bool:
        """Whether messages differ from step to step, so that they have a time axis."""
        return self.coding in ("binary", "signed")

    @property
    def image_shape(self) -> Shape:
        """Of the images that `poisson` or a graded input encodes."""
        halves = 2 if self.poisson is not None and self.coding == "binary" else 1
        return (self.shape[0] // halves, *self.shape[1:])

    @property
    def encoded_shape(self) -> Shape:
        return (self.shape[0] + self.constant_channels, *self.shape[1:])

    @property
    def message_max(self) -> int:
        return (1 << self.message_bits) - 1

    @property
    def constant_messages(self) -> tuple[int, ...]:
        """What each constant channel sends: the largest message, half of it and so on, so that few-bit weights suffice."""
        return tuple(max(self.message_max >> index, 1) for index in range(self.constant_channels))

    @property
    def image_bits(self) -> int:
        """Bits of the pixels that an image in [0, 1] is rounded to; those of a camera where messages are spikes drawn from it."""
        return self.message_bits if self.poisson is None else CAMERA_BITS

    @property
    def message_min(self) -> int:
        return -1 if self.coding == "signed" else 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ConvSynapse:
    """True cross-correlation as in PyTorch; weight int32 of shape (out, in / groups, kernel height, kernel width).

    exponent: all weights are multiples of 2^exponent; the chip stores weight >> exponent.
    """

    source: str
    weight: IntArray
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    exponent: int = 0

    def output_shape(self, shape: Shape) -> Shape:
        sides = convolved(shape[1:], self.weight.shape[2:], self.stride, self.padding, self.dilation)
        return (self.weight.shape[0], *sides)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DenseSynapse:
    """weight int32 of shape (out, in); the source is flattened in C order of (C, H, W). exponent: as of a convolution."""

    source: str
    weight: IntArray
    exponent: int = 0

    def output_shape(self, shape: Shape) -> Shape:
        return (self.weight.shape[0],)


Synapse = ConvSynapse | DenseSynapse


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NeuronGroup:
    """threshold: mantissa; bias: int32 mantissas, of a shape that broadcasts to the layer's.

    spiking False: never fires, and v is the output; only of the last layer.
    reset_by: mantissa that a soft reset subtracts; None for a reset to 0. initial: potential before the first step, in state
    units. order: see the module.
    """

    threshold: int
    bias: IntArray
    bias_exponent: int = 6
    current_decay: int = 4096
    potential_decay: int = 0
    spiking: bool = True
    reset_by: int | None = None
    initial: int = 0
    order: Order = "integrate-first"

    @property
    def extensions(self) -> tuple[str, ...]:
        """What Loihi's own LIF neuron does not do; names as in `Numerics.resets` and `Numerics.microcode`."""
        found = {
            "soft": self.reset_by is not None,
            "initial": self.initial != 0,
            "fire-first": self.order == "fire-first",
        }
        return tuple(name for name, present in found.items() if present)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GraphLayer:
    """scale: integer weight units per float unit of the membrane potential; v / (scale * 2^state_shift) is the float potential."""

    name: str
    shape: Shape
    synapses: tuple[Synapse, ...]
    neurons: NeuronGroup
    scale: float = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class ProcessGraph:
    """A validated network of integers; the last layer is the output. Raises DoesNotFitError or UnsupportedLayerError.

    readout: whether float logits are the output's mean per step or its sum.
    """

    input: InputContract
    layers: tuple[GraphLayer, ...]
    time_steps: int
    numerics: Numerics
    profile: str
    weight_bits: int = 8
    readout: Literal["mean", "sum"] = "mean"
    provenance: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.time_steps < 1 or not self.layers:
            raise DoesNotFitError(
                f"graph: {self.time_steps} timesteps and {len(self.layers)} layers; needs at least one of each"
            )
        self._check_input()
        shapes: dict[str, Shape] = {INPUT: self.input.encoded_shape}
        for layer in self.layers:
            if layer.name in shapes:
                raise UnsupportedLayerError(f"layer '{layer.name}' appears twice; give every layer a name of its own")
            self._check_synapses(layer, shapes)
            self._check_neurons(layer)
            if layer is not self.output and not layer.neurons.spiking:
                raise UnsupportedLayerError(f"layer '{layer.name}' never fires; only the output layer may be so")
            shapes[layer.name] = layer.shape

    @property
    def output(self) -> GraphLayer:
        return self.layers[-1]

    @property
    def shapes(self) -> dict[str, Shape]:
        """Shape of the encoded input and of every layer."""
        return {INPUT: self.input.encoded_shape} | {layer.name: layer.shape for layer in self.layers}

    @property
    def is_chain(self) -> bool:
        """Whether each layer reads only the one before it."""
        sources = [INPUT, *(layer.name for layer in self.layers)]
        return all(
            [synapse.source for synapse in layer.synapses] == [source]
            for layer, source in zip(self.layers, sources, strict=False)
            if layer.synapses
        )

    def messages_max(self, source: str) -> int:
        """The largest message a source sends: 1 for spikes."""
        return self.input.message_max if source == INPUT else 1

    def _check_input(self) -> None:
        bits, limit = self.input.message_bits, self.numerics.message_bits_max
        if self.input.coding == "graded" and bits > limit:
            raise DoesNotFitError(
                f"layer 'input': {bits}-bit graded messages exceed {limit} ({self.profile}: numerics.message_bits_max); "
                "choose a profile with graded spikes (loihi2) or a binary input"
            )
        if self.input.coding == "signed" and limit < 2:
            raise DoesNotFitError(
                f"layer 'input': signed spikes need 2 message bits, more than {limit} ({self.profile}: numerics.message_bits_max); "
                "send positive and negative spikes on channels of their own"
            )
        if self.input.coding == "current" and self.layers[0].synapses:
            raise UnsupportedLayerError(
                f"layer '{self.layers[0].name}': an input of coding 'current' takes a first layer without synapse"
            )

    def _check_synapses(self, layer: GraphLayer, shapes: dict[str, Shape]) -> None:
        if not layer.synapses and not (layer is self.layers[0] and self.input.coding == "current"):
            raise UnsupportedLayerError(
                f"layer '{layer.name}' has no synapse; only the first layer of a current-coded input may"
            )
        for synapse in layer.synapses:
            if synapse.source not in shapes:
                raise UnsupportedLayerError(
                    f"layer '{layer.name}' reads '{synapse.source}', which is not an earlier layer"
                )
            source = shapes[synapse.source]
            inputs = synapse.weight.shape[1] * (synapse.groups if isinstance(synapse, ConvSynapse) else 1)
            expected = source[0] if isinstance(synapse, ConvSynapse) else int(np.prod(source))
            if inputs != expected:
                raise UnsupportedLayerError(
                    f"layer '{layer.name}' takes {inputs} inputs, but '{synapse.source}' has {expected} (shape {source})"
                )
            if synapse.output_shape(source) != layer.shape:
                raise UnsupportedLayerError(
                    f"layer '{layer.name}' has shape {layer.shape}, but its synapse gives {synapse.output_shape(source)}"
                )
            reach = magnitude_bound(synapse, self.messages_max(synapse.source))
            if reach > self.numerics.state_max:
                raise DoesNotFitError(
                    f"layer '{layer.name}': synaptic input could reach {reach}, beyond the accumulator's {self.numerics.state_max} "
                    f"({self.profile}: numerics.state_bits); lower the layer's scale"
                )
            check_weights(layer.name, synapse, self.numerics, self.weight_bits, self.profile)

    def _check_neurons(self, layer: GraphLayer) -> None:
        neurons, numerics = layer.neurons, self.numerics
        bias_range = (numerics.bias_mantissa_min, numerics.bias_mantissa_max)
        limits = (
            (
                "threshold",
                neurons.threshold,
                0,
                numerics.threshold_mantissa_max,
                "threshold_mantissa_max",
                "lower the layer's scale",
            ),
            (
                "bias exponent",
                neurons.bias_exponent,
                0,
                numerics.bias_exponent_max,
                "bias_exponent_max",
                "use a smaller exponent",
            ),
            ("current decay", neurons.current_decay, 0, numerics.decay_one, "decay_bits", "use a decay in range"),
            ("potential decay", neurons.potential_decay, 0, numerics.decay_one, "decay_bits", "use a decay in range"),
            ("smallest bias", int(neurons.bias.min()), *bias_range, "bias_mantissa_min", "lower the layer's scale"),
            ("largest bias", int(neurons.bias.max()), *bias_range, "bias_mantissa_max", "lower the layer's scale"),
            (
                "reset",
                neurons.reset_by or 0,
                0,
                numerics.threshold_mantissa_max,
                "threshold_mantissa_max",
                "lower the layer's scale",
            ),
            ("initial potential", abs(neurons.initial), 0, numerics.state_max, "state_bits", "lower the layer's scale"),
        )
        for what, value, low, high, key, remedy in limits:
            if not low <= value <= high:
                raise DoesNotFitError(
                    f"layer '{layer.name}': {what} {value} is outside {low}..{high} ({self.profile}: numerics.{key}); {remedy}"
                )
        for extension in neurons.extensions:
            if extension not in (*numerics.resets, *numerics.microcode):
                raise DoesNotFitError(
                    f"layer '{layer.name}': {EXTENSIONS[extension]} is not among {', '.join((*numerics.resets, *numerics.microcode))} "
                    f"({self.profile}: numerics.resets, numerics.microcode); train without it or choose loihi2"
                )
        if not neurons.spiking and neurons.extensions:
            raise UnsupportedLayerError(
                f"layer '{layer.name}': {EXTENSIONS[neurons.extensions[0]]} means nothing for neurons that never fire; leave it out"
            )
        own, wanted = neurons.bias.shape, layer.shape
        fits = len(own) <= len(wanted) and all(
            a in (1, b) for a, b in zip(reversed(own), reversed(wanted), strict=False)
        )
        if not fits:
            raise UnsupportedLayerError(f"layer '{layer.name}': bias of shape {own} does not fit {wanted}")


def magnitude_bound(synapse: Synapse, message_max: int) -> int:
    """Largest sum of |weight| * message of any target; every partial sum, in any order, stays within it."""
    per_output = np.abs(synapse.weight.astype(np.int64)).reshape(len(synapse.weight), -1).sum(1)
    return int(per_output.max()) * message_max


def weight_step(mixed: bool, numerics: Numerics, weight_bits: int) -> int:
    """Distance between legal weights: 2^(most bits - bits), twice that where both signs occur in the layer."""
    return 1 << (max(numerics.weight_bits) - weight_bits + int(mixed))


def weight_limits(mixed: bool, positive: bool, numerics: Numerics) -> tuple[int, int]:
    """Smallest and largest legal weight of a layer whose weights are mixed, all >= 0 or all <= 0."""
    if mixed:
        return numerics.mixed_weight_min, numerics.mixed_weight_max
    return (0, numerics.positive_weight_max) if positive else (numerics.negative_weight_min, 0)


def check_weights(name: str, synapse: Synapse, numerics: Numerics, weight_bits: int, profile: str) -> None:
    """Raise DoesNotFitError for weights the chip cannot hold. Lava's simulator does not check convolutions at all."""
    if weight_bits not in numerics.weight_bits:
        allowed = ", ".join(map(str, sorted(numerics.weight_bits)))
        raise DoesNotFitError(
            f"layer '{name}': {weight_bits}-bit weights are not among {allowed} ({profile}: numerics.weight_bits); choose one of these"
        )
    if not 0 <= synapse.exponent <= numerics.weight_exponent_max:
        raise DoesNotFitError(
            f"layer '{name}': weight exponent {synapse.exponent} is outside 0..{numerics.weight_exponent_max} "
            f"({profile}: numerics.weight_exponent_max); lower the layer's scale"
        )
    unit = 1 << synapse.exponent
    low, high = int(synapse.weight.min()), int(synapse.weight.max())
    mixed = low < 0 < high
    least, most = (limit * unit for limit in weight_limits(mixed, high > 0, numerics))
    if low < least or high > most:
        kind = "mixed" if mixed else "positive" if high > 0 else "negative"
        key = {"mixed": "mixed_weight_min/max", "positive": "positive_weight_max", "negative": "negative_weight_min"}[
            kind
        ]
        raise DoesNotFitError(
            f"layer '{name}': weights {low}..{high} exceed {least}..{most} of {kind} signs "
            f"({profile}: numerics.{key}); lower the layer's scale"
        )
    step = weight_step(mixed, numerics, weight_bits) * unit
    if np.any(synapse.weight % step):
        odd = int(synapse.weight[synapse.weight % step != 0].flat[0])
        raise DoesNotFitError(
            f"layer '{name}': weight {odd} is not a multiple of {step} "
            f"({weight_bits} bits, {profile}: numerics.weight_bits); round the weights"
        )
