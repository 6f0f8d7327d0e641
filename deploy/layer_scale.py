"""The scale of one layer: the largest for which every limit of the profile holds, by exact bounds.

With scale s in weight units per float unit of the membrane potential, weight = s * w, bias = s * b, and the chip fires above
ceil(s * theta) - 1 (the float neuron at theta: equal for integers), or above floor(s * theta) where the float neuron does so
only above theta. A soft reset subtracts s * theta, so s is rounded down until that is an integer.

Where several synapses meet, the smallest of them sets the scale and the larger ones get a weight exponent, so that each uses all
its bits. `LayerFit.binding` names the limit that decided.

A graded first layer multiplies weights by messages up to 255, so its bias would need far more than the bias mantissa's 13
bits. It is split: a constant input channel of the largest message carries it in coarse steps, the mantissa carries the rest.
Weights of few bits are multiples of so much that more channels, of ever smaller messages, carry what the first one leaves.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hardspike.deploy.bounds import Bound, accumulate, input_bounds, spike_bounds, synapse_bounds
from hardspike.deploy.fold import FoldedLayer, FoldedNetwork, FoldedSynapse
from hardspike.deploy.process_graph import (
    ConvSynapse,
    DenseSynapse,
    GraphLayer,
    InputContract,
    IntArray,
    NeuronGroup,
    Synapse,
    weight_limits,
    weight_step,
)
from hardspike.deploy.weight_range import ScaleRule, WeightRange
from hardspike.hw_profiles.profile import Profile
from hardspike.snn.architecture import INPUT, Shape
from hardspike.snn.errors import DoesNotFitError

FloatArray = NDArray[np.float64]
# A `.net` file has no field for the exponent: netx always uses 6.
BIAS_EXPONENT = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFit:
    """How a layer was scaled, and what rounding cost it.

    relative_weight_error: largest rounding error over the largest weight. weight_rms_error: root of the mean square of the
    rounding errors over that of the weights. zeroed, clipped: share of the nonzero weights that became 0, or were beyond the
    largest legal one. exponents: of the weights, per synapse. lost_bit: whether a synapse of both signs lost its lowest bit.
    """

    name: str
    scale: float
    binding: str
    threshold: int
    largest_weight: int
    largest_bias: int
    relative_weight_error: float
    relative_threshold_error: float
    constant_channel: bool
    weight_rms_error: float
    zeroed: float
    clipped: float
    exponents: tuple[int, ...]
    lost_bit: bool


@dataclass(frozen=True, slots=True)
class _Candidate:
    synapses: tuple[Synapse, ...]
    bias: IntArray
    threshold: int


class _DoesNotHold(Exception):
    """This scale breaks a limit; carries value, limit, key of the profile."""

    def __init__(self, what: str, value: int, limit: int, key: str) -> None:
        super().__init__(what)
        self.what, self.value, self.limit, self.key = what, value, limit, key


class _Weights:
    """One synapse's float weights per unit of message, with those that one constant channel of the largest message would have.

    kernel: the latter, (out, 1, ...). constants: messages of the constant channels that share its part.
    """

    def __init__(
        self, synapse: FoldedSynapse, source: Shape, contract: InputContract, kernel: FloatArray | None
    ) -> None:
        self.synapse, self.constant = synapse, kernel is not None
        self.constants = contract.constant_messages if self.constant else ()
        self.low, self.high = input_bounds(contract) if synapse.source == INPUT else spike_bounds(source)
        weight: FloatArray = synapse.weight.numpy()
        if synapse.source == INPUT:
            weight = weight / contract.message_max
        self.own = weight
        if kernel is not None:
            rows = weight if weight.ndim == 4 else weight.reshape(len(weight), contract.shape[0], -1)
            weight = np.concatenate([rows, kernel], axis=1)
        self.weight = weight

    def rounded(self, scale: float, step: int, least: int, most: int, exponent: int) -> Synapse:
        exact = self.weight * scale / step
        steps = np.rint(exact)
        if self.constant:
            shares = _shared(exact[:, -1], self.constants, least // step, most // step)
            steps = np.concatenate([steps[:, :-1], shares], axis=1)
        integers = (steps * step).clip(least, most).astype(np.int32)
        integers = integers if self.own.ndim == 4 else integers.reshape(len(integers), -1)
        synapse = self.synapse
        if integers.ndim == 2:
            return DenseSynapse(source=synapse.source, weight=integers, exponent=exponent)
        return ConvSynapse(
            source=synapse.source,
            weight=integers,
            stride=synapse.stride,
            padding=synapse.padding,
            dilation=synapse.dilation,
            groups=synapse.groups,
            exponent=exponent,
        )

    def own_part(self, integers: IntArray) -> IntArray:
        """Without the constant channels, whose rounding is put right by the bias mantissa."""
        return integers[:, : self.own.shape[1]]


class LayerScaler:
    """Finds the scale of one layer. proven: keep every sum below the current's wrap, whatever arrives."""

    def __init__(
        self,
        layer: FoldedLayer,
        folded: FoldedNetwork,
        profile: Profile,
        contract: InputContract,
        *,
        weight_bits: int,
        rule: ScaleRule,
        proven: bool,
    ) -> None:
        self.layer, self.profile, self.numerics = layer, profile, profile.numerics
        self.time_steps, self.proven = folded.time_steps, proven
        shapes = {other.name: other.shape for other in folded.layers} | {INPUT: contract.encoded_shape}
        self.constant = bool(contract.constant_channels) and any(s.source == INPUT for s in layer.synapses)
        self.weights = []
        for index, synapse in enumerate(layer.synapses):
            with_constant = self.constant and synapse.source == INPUT
            first = with_constant and all(s.source != INPUT for s in layer.synapses[:index])
            source = shapes[synapse.source]
            kernel = self._constant_kernel(synapse, folded, contract, source, first) if with_constant else None
            self.weights.append(_Weights(synapse, source, contract, kernel))
        self.ranges = [self._range(weights, weight_bits) for weights in self.weights]
        self.rule = rule
        self.bias: FloatArray = np.broadcast_to(layer.bias.numpy(), self._bias_shape()).astype(np.float64)

    def _range(self, weights: _Weights, weight_bits: int) -> WeightRange:
        low, high = float(weights.weight.min()), float(weights.weight.max())
        if not (np.isfinite(weights.weight).all() and weights.own.any()):
            raise DoesNotFitError(
                f"layer '{self.layer.name}': all weights are zero or not finite; train the network first"
            )
        mixed = low < 0 < high
        step = weight_step(mixed, self.numerics, weight_bits)
        least, most = (int(limit / step) * step for limit in weight_limits(mixed, high > 0, self.numerics))
        return WeightRange(values=weights.weight, step=step, least=least, most=most)

    def _bias_shape(self) -> Shape:
        # The rest after the constant channel differs per position wherever the kernel leaves the image.
        convolved = len(self.layer.shape) == 3
        own = tuple(self.layer.bias.shape)
        per_position = convolved and (self.constant or own[-1] > 1)
        return self.layer.shape if per_position else own

    def _constant_kernel(
        self, synapse: FoldedSynapse, folded: FoldedNetwork, contract: InputContract, source: Shape, first: bool
    ) -> FloatArray:
        """Weights of the constant channel whose responses together are the bias (before rounding), in float per message."""
        layer, largest = self.layer, contract.message_max
        if synapse.weight.ndim == 2:
            total = np.broadcast_to(layer.bias.numpy(), layer.shape) if first else np.zeros(layer.shape)
            kernel: FloatArray = np.zeros((len(total), 1, int(np.prod(source[1:]))))
            # As few pixels as possible, for each is a synaptic operation; but no weight larger than the others sets the scale.
            needed = math.ceil(float(np.abs(total).max() / max(float(synapse.weight.abs().max()), 1e-300)))
            used = min(max(needed, 1), kernel.shape[2])
            kernel[:, 0, :used] = total[:, None] / (largest * used)
            return kernel
        mean = np.array(folded.input.mean).reshape(1, -1, 1, 1)
        kernel = -(synapse.weight.numpy() * mean).sum(1, keepdims=True) / largest
        tap = _steady_tap(synapse, layer.shape, source)
        if first and tap is not None:
            kernel[:, 0, tap[0], tap[1]] += layer.uniform_bias.numpy() / largest
        return kernel

    def fit(self) -> tuple[GraphLayer, LayerFit]:
        """Shrink the scale from the weights' own limit until everything holds. Raises DoesNotFitError."""
        scale, decisive = self.rule.largest_scale(self.ranges, self.numerics.weight_exponent_max)
        binding = f"numerics.{decisive.key}"
        largest = max(float(np.abs(weights.own).max()) for weights in self.weights)
        while True:
            scale = self._on_grid(scale)
            try:
                candidate = self._round(scale)
                break
            except _DoesNotHold as broken:
                binding, last = f"numerics.{broken.key}", broken
                # Values are proportional to s but for rounding; aim just under the limit, and always go down.
                scale *= min(broken.limit / broken.value, 1.0) * (1 - 2**-10)
            if scale * largest < min(found.step for found in self.ranges) / 2 or self._on_grid(scale) == 0:
                raise DoesNotFitError(
                    f"layer '{self.layer.name}': {last.what} {last.value} exceeds {last.limit} ({self.profile.name}: numerics.{last.key}) "
                    "until all weights round to zero; train with smaller biases or thresholds, or use more weight bits or fewer input bits"
                )
        return self._layer(candidate, scale), self._report(candidate, scale, binding)

    def _on_grid(self, scale: float) -> float:
        """With a soft reset, the next smaller scale for which the threshold is an integer."""
        neuron, theta = self.layer.neuron, self.layer.threshold
        if neuron is None or neuron.reset == "hard":
            return scale
        return math.floor(scale * theta * (1 + 1e-12)) / theta

    def _round(self, scale: float) -> _Candidate:
        layer, numerics = self.layer, self.numerics
        synapses = []
        for weights, found in zip(self.weights, self.ranges, strict=True):
            exponent = found.exponent(scale, self.rule)
            unit = 1 << exponent
            limits = found.least * unit, found.most * unit
            synapses.append(weights.rounded(scale, found.step * unit, *limits, exponent))
        bias = np.rint(self.bias * scale).astype(np.int64)
        if self.constant:
            bias = bias - self._constant_response(synapses)
        limit = min(numerics.bias_mantissa_max, -numerics.bias_mantissa_min)
        _hold("bias", int(np.abs(bias).max()), limit, "bias_mantissa_max")
        threshold = self._threshold(scale)
        _hold("threshold", threshold + 1, numerics.threshold_mantissa_max + 1, "threshold_mantissa_max")
        bounds = [synapse_bounds(s, w.low, w.high) for s, w in zip(synapses, self.weights, strict=True)]
        low, high = (np.sum([bound[side] for bound in bounds], axis=0) for side in (0, 1))
        reach = max(int(high.max()), -int(low.min()))
        if self.proven or layer.neuron is None:
            _hold("synaptic input", reach, numerics.input_max, "state_bits")
        else:  # each sum must still fit the accumulator
            _hold("synaptic input", sum(_reach(bound) for bound in bounds), numerics.state_max, "state_bits")
        if layer.neuron is None:
            reach = self.time_steps * max(int((high + bias).max()), -int((low + bias).min()))
            _hold("output potential", reach, numerics.threshold_mantissa_max, "threshold_mantissa_max")
        return _Candidate(tuple(synapses), bias.astype(np.int32), threshold)

    def _threshold(self, scale: float) -> int:
        """Mantissa above which the chip fires."""
        layer = self.layer
        if layer.neuron is None:
            return 0
        exact = layer.threshold * scale
        if layer.neuron.reset == "soft":
            exact = round(exact)
        return math.floor(exact) if layer.neuron.strict else math.ceil(exact) - 1

    def _constant_response(self, synapses: list[Synapse]) -> Bound:
        total = np.zeros(self.layer.shape, dtype=np.int64)
        for synapse, weights in zip(synapses, self.weights, strict=True):
            if weights.constant:
                only_constant = weights.high.copy()
                only_constant[: -len(weights.constants)] = 0
                total += accumulate(synapse, only_constant, synapse.weight).reshape(total.shape)
        return total

    def _layer(self, candidate: _Candidate, scale: float) -> GraphLayer:
        layer, numerics, neuron = self.layer, self.numerics, self.layer.neuron
        if neuron is None:
            neurons = NeuronGroup(
                threshold=numerics.threshold_mantissa_max,
                bias=candidate.bias,
                bias_exponent=BIAS_EXPONENT,
                current_decay=numerics.decay_one,
                spiking=False,
            )
        else:
            theta = layer.threshold * scale
            neurons = NeuronGroup(
                threshold=candidate.threshold,
                bias=candidate.bias,
                bias_exponent=BIAS_EXPONENT,
                current_decay=numerics.decay_one,
                potential_decay=round((1 - neuron.leak) * numerics.decay_one),
                reset_by=round(theta) if neuron.reset == "soft" else None,
                initial=round(neuron.initial_potential * theta)
                << numerics.state_shift,  # whole weights, as the threshold
                order=neuron.order,
            )
        return GraphLayer(name=layer.name, shape=layer.shape, synapses=candidate.synapses, neurons=neurons, scale=scale)

    def _report(self, candidate: _Candidate, scale: float, binding: str) -> LayerFit:
        found = [
            weights.own_part(synapse.weight).reshape(weights.own.shape) / scale
            for synapse, weights in zip(candidate.synapses, self.weights, strict=True)
        ]
        exact = [weights.own for weights in self.weights]
        errors = [np.abs(mine - own) for mine, own in zip(found, exact, strict=True)]
        nonzero = sum(int(np.count_nonzero(own)) for own in exact)
        zeroed = sum(int(np.count_nonzero((mine == 0) & (own != 0))) for mine, own in zip(found, exact, strict=True))
        clipped = sum(
            int(
                np.count_nonzero(
                    (own * scale > r.most * 2**s.exponent + r.step / 2)
                    | (own * scale < r.least * 2**s.exponent - r.step / 2)
                )
            )
            for own, r, s in zip(exact, self.ranges, candidate.synapses, strict=True)
        )
        layer, theta = self.layer, self.layer.threshold
        fires_at = candidate.threshold + (0 if layer.neuron is not None and layer.neuron.strict else 1)
        return LayerFit(
            name=layer.name,
            scale=scale,
            binding=binding,
            threshold=candidate.threshold,
            largest_weight=max(int(np.abs(mine * scale).max().round()) for mine in found),
            largest_bias=int(np.abs(candidate.bias).max()),
            relative_weight_error=max(float(e.max() / np.abs(own).max()) for e, own in zip(errors, exact, strict=True)),
            relative_threshold_error=abs(fires_at / scale - theta) / theta if layer.neuron is not None else 0.0,
            constant_channel=self.constant,
            weight_rms_error=math.sqrt(
                sum(float((e**2).sum()) for e in errors) / sum(float((own**2).sum()) for own in exact)
            ),
            zeroed=zeroed / nonzero,
            clipped=clipped / nonzero,
            exponents=tuple(synapse.exponent for synapse in candidate.synapses),
            lost_bit=any(found.mixed for found in self.ranges),
        )


def _reach(bound: tuple[Bound, Bound]) -> int:
    return max(int(bound[1].max()), -int(bound[0].min()))


def _shared(kernels: FloatArray, messages: Sequence[int], least: int, most: int) -> FloatArray:
    """Integer weights of the constant channels, (out, channels, ...), for what one of the first message would have, (out, ...).

    Each takes the nearest in least..most of what those before it left; the last one takes care of sums.
    """
    shares = []
    for index, message in enumerate(messages):
        is_last = index == len(messages) - 1
        found = np.rint(kernels)
        if is_last:
            found = _round_sums(kernels.reshape(len(kernels), -1, kernels.shape[-1])).reshape(kernels.shape)
        shares.append(found.clip(least, most))
        if not is_last:
            kernels = (kernels - shares[-1]) * (message / messages[index + 1])
    return np.stack(shares, axis=1)


def _round_sums(kernels: FloatArray) -> FloatArray:
    """Integers whose sum over any rectangle of taps is within 2 of the exact one; kernels: (out, kH, kW).

    At a border only a rectangle of the constant channel's taps is inside the image. Rounding tap by tap would let their
    errors add up beyond what the bias mantissa can put right.
    """
    sums = np.rint(np.cumsum(np.cumsum(kernels, axis=1), axis=2))
    rows = np.diff(sums, axis=1, prepend=0)
    result: FloatArray = np.diff(rows, axis=2, prepend=0)
    return result


def _hold(what: str, value: int, limit: int, key: str) -> None:
    if value > limit:
        raise _DoesNotHold(what, value, limit, key)


def _steady_tap(synapse: FoldedSynapse, target: Shape, source: Shape) -> tuple[int, int] | None:
    """A tap that never leaves the image, whatever the position; None where padding is too wide for one."""
    found = []
    for axis in range(2):
        kernel, dilation, padding = synapse.weight.shape[2 + axis], synapse.dilation[axis], synapse.padding[axis]
        last = (target[1 + axis] - 1) * synapse.stride[axis] - padding
        inside = [t for t in range(kernel) if t * dilation >= padding and last + t * dilation < source[1 + axis]]
        if not inside:
            return None
        found.append(inside[0])
    return found[0], found[1]
