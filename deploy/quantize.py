"""Folded float layers to the profile's integers.

Each layer gets one scale s, in weight units per float unit of the membrane potential: weight = s * w, bias = s * b,
threshold = ceil(s * theta) - 1 (the chip fires on v > threshold, the float neuron on v >= theta: equal for integers).
s is the largest value for which every limit of the profile holds, by exact bounds: legal weights, no wrapping current, no
firing output layer, threshold and bias mantissas. `LayerFit.binding` names the limit that decided.

A graded first layer multiplies weights by messages up to 255, so its bias would need far more than the bias mantissa's 13
bits. It is split: a constant input channel of the largest message carries it in coarse steps, the mantissa carries the rest.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hardspike.deploy.bounds import Bound, accumulate, input_bounds, spike_bounds, synapse_bounds
from hardspike.deploy.fold import FoldedLayer, FoldedNetwork
from hardspike.deploy.process_graph import (
    ConvSynapse,
    DenseSynapse,
    GraphLayer,
    InputContract,
    IntArray,
    NeuronGroup,
    ProcessGraph,
    Synapse,
    weight_limits,
    weight_step,
)
from hardspike.hw_profiles.profile import Profile
from hardspike.snn.architecture import INPUT
from hardspike.snn.errors import DoesNotFitError

FloatArray = NDArray[np.float64]
# A `.net` file has no field for the exponent: netx always uses 6.
BIAS_EXPONENT = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFit:
    """How a layer was scaled. relative_weight_error: largest rounding error over the largest weight."""

    name: str
    scale: float
    binding: str
    threshold: int
    largest_weight: int
    largest_bias: int
    relative_weight_error: float
    relative_threshold_error: float
    constant_channel: bool


@dataclass(frozen=True, slots=True)
class _Candidate:
    synapse: Synapse
    bias: IntArray
    threshold: int


class _DoesNotHold(Exception):
    """This scale breaks a limit; carries value, limit, key of the profile."""

    def __init__(self, what: str, value: int, limit: int, key: str) -> None:
        super().__init__(what)
        self.what, self.value, self.limit, self.key = what, value, limit, key


def quantize_network(
    folded: FoldedNetwork,
    profile: Profile,
    *,
    weight_bits: int = 8,
    input_bits: int = 8,
    provenance: dict[str, str] | None = None,
) -> tuple[ProcessGraph, list[LayerFit]]:
    """Integers for a folded network whose input is `input_bits`-bit graded pixels.

    Raises DoesNotFitError, naming layer, value, limit, profile key and remedy, for what the profile cannot hold.
    """
    numerics = profile.numerics
    if weight_bits not in numerics.weight_bits:
        allowed = ", ".join(map(str, sorted(numerics.weight_bits)))
        raise DoesNotFitError(
            f"layer '{folded.layers[0].name}': {weight_bits}-bit weights are not among {allowed} "
            f"({profile.name}: numerics.weight_bits); choose one of these"
        )
    contracts = [
        InputContract(shape=folded.input_shape, coding="graded", message_bits=input_bits, constant_channels=channels)
        for channels in (0, 1)
    ]
    fits: list[LayerFit] = []
    layers: list[GraphLayer] = []
    contract = contracts[0]
    for layer in folded.layers:
        _check_neuron(layer, profile)
        choices = [contract]
        if layer.source == INPUT and layer.groups == 1:  # a constant channel would belong to one group only
            choices = contracts
        contract, (graph_layer, fit) = _fit_best(
            {choice: _Scaler(layer, folded, profile, weight_bits, choice) for choice in choices}
        )
        layers.append(graph_layer)
        fits.append(fit)
    graph = ProcessGraph(
        input=contract,
        layers=tuple(layers),
        time_steps=folded.time_steps,
        numerics=numerics,
        profile=profile.name,
        weight_bits=weight_bits,
        provenance=provenance or {},
    )
    return graph, fits


def _fit_best(options: "dict[InputContract, _Scaler]") -> "tuple[InputContract, tuple[GraphLayer, LayerFit]]":
    """The option with the largest scale. Raises the last one's DoesNotFitError when none fits."""
    fitted = {}
    for contract, scaler in options.items():
        try:
            fitted[contract] = scaler.fit()
        except DoesNotFitError as error:
            failed = error
    if not fitted:
        raise failed
    best = max(fitted, key=lambda contract: fitted[contract][1].scale)
    return best, fitted[best]


def _check_neuron(layer: FoldedLayer, profile: Profile) -> None:
    if layer.neuron is not None and layer.neuron.reset not in profile.numerics.resets:
        raise DoesNotFitError(
            f"layer '{layer.name}': reset '{layer.neuron.reset}' is not among {', '.join(profile.numerics.resets)} "
            f"({profile.name}: numerics.resets); train with one of these resets"
        )


class _Scaler:
    """Finds the largest scale of one layer that keeps every limit."""

    def __init__(
        self, layer: FoldedLayer, folded: FoldedNetwork, profile: Profile, weight_bits: int, contract: InputContract
    ) -> None:
        self.layer, self.profile, self.numerics = layer, profile, profile.numerics
        self.time_steps = folded.time_steps
        self.first = layer.source == INPUT
        self.message_max = contract.message_max if self.first else 1
        self.constant = self.first and contract.constant_channels == 1
        if self.first:
            self.low, self.high = input_bounds(contract)
        else:
            shape = next(other.shape for other in folded.layers if other.name == layer.source)
            self.low, self.high = spike_bounds(shape)
        # Messages are integers: a pixel x in [0, 1] is message / message_max.
        weight: FloatArray = layer.weight.numpy() / self.message_max
        if self.constant:
            weight = np.concatenate([weight.reshape(self._with_channels()), self._constant_kernel()], axis=1)
            weight = weight if layer.weight.ndim == 4 else weight.reshape(len(weight), -1)
        self.weight = weight
        low, high = float(weight.min()), float(weight.max())
        mixed = low < 0 < high
        self.step = weight_step(mixed, self.numerics, weight_bits)
        self.least, self.most = (
            int(limit / self.step) * self.step for limit in weight_limits(mixed, high > 0, self.numerics)
        )
        self.bias: FloatArray = np.broadcast_to(layer.bias.numpy(), self._bias_shape()).astype(np.float64)

    def _with_channels(self) -> tuple[int, ...]:
        if self.layer.weight.ndim == 4:
            return tuple(self.layer.weight.shape)
        return (len(self.layer.weight), self.low.shape[0] - 1, -1)

    def _bias_shape(self) -> tuple[int, ...]:
        # The rest after the constant channel differs per position wherever the kernel leaves the image.
        per_position = self.layer.weight.ndim == 4 and (self.constant or self.layer.bias.shape[-1] > 1)
        return self.layer.shape if per_position else tuple(self.layer.bias.shape)

    def _constant_kernel(self) -> FloatArray:
        """Weights of the constant channel whose response is the bias (before rounding), in float per message."""
        layer = self.layer
        uniform = layer.uniform_bias.numpy() / self.message_max
        kernel: FloatArray
        if layer.weight.ndim == 2:
            kernel = np.zeros((len(uniform), 1, int(np.prod(self.low.shape[1:]))))
            kernel[:, 0, 0] = uniform
            return kernel
        assert layer.shift_taps is not None
        kernel = layer.shift_taps.numpy() / self.message_max
        tap = _steady_tap(layer, self.low.shape)
        if tap is not None:
            kernel[:, 0, tap[0], tap[1]] += uniform
        return kernel

    def fit(self) -> tuple[GraphLayer, LayerFit]:
        """Shrink the scale from the weights' own limit until everything holds."""
        largest, smallest = float(self.weight.max()), float(self.weight.min())
        own = float(self.layer.weight.abs().max()) / self.message_max
        if not np.isfinite(self.weight).all() or own == 0:
            raise DoesNotFitError(
                f"layer '{self.layer.name}': all weights are zero or not finite; train the network first"
            )
        scale = min(self.most / largest if largest > 0 else np.inf, self.least / smallest if smallest < 0 else np.inf)
        binding = (
            "numerics.mixed_weight"
            if smallest < 0 < largest
            else "numerics.positive_weight"
            if largest > 0
            else "numerics.negative_weight"
        )
        while True:
            try:
                candidate = self._round(scale)
                break
            except _DoesNotHold as broken:
                binding, last = f"numerics.{broken.key}", broken
                # Values are proportional to s but for rounding; aim just under the limit, and always go down.
                scale *= min(broken.limit / broken.value, 1.0) * (1 - 2**-10)
            if scale * own < self.step / 2:
                raise DoesNotFitError(
                    f"layer '{self.layer.name}': {last.what} {last.value} exceeds {last.limit} ({self.profile.name}: numerics.{last.key}) "
                    "until all weights round to zero; train with smaller biases or thresholds, or more weight bits"
                )
        return self._layer(candidate, scale), self._report(candidate, scale, binding)

    def _round(self, scale: float) -> _Candidate:
        layer, numerics = self.layer, self.numerics
        exact = self.weight * scale / self.step
        steps = np.rint(exact)
        if self.constant and exact.ndim == 4:
            steps[:, -1] = _round_sums(exact[:, -1])
        synapse = self._synapse((steps * self.step).clip(self.least, self.most).astype(np.int32))
        bias = np.rint(self.bias * scale).astype(np.int64)
        if self.constant:
            bias = bias - self._constant_response(synapse)
        limit = min(numerics.bias_mantissa_max, -numerics.bias_mantissa_min)
        _hold("bias", int(np.abs(bias).max()), limit, "bias_mantissa_max")
        threshold = int(np.ceil(layer.threshold * scale)) - 1 if layer.neuron is not None else 0
        _hold("threshold", threshold, numerics.threshold_mantissa_max, "threshold_mantissa_max")
        low, high = synapse_bounds(synapse, self.low, self.high)
        _hold("synaptic input", max(int(high.max()), -int(low.min())), numerics.input_max, "state_bits")
        if layer.neuron is None:
            reach = self.time_steps * max(int((high + bias).max()), -int((low + bias).min()))
            _hold("output potential", reach, numerics.threshold_mantissa_max, "threshold_mantissa_max")
        return _Candidate(synapse, bias.astype(np.int32), threshold)

    def _constant_response(self, synapse: Synapse) -> Bound:
        only_constant = self.high.copy()
        only_constant[:-1] = 0
        response = accumulate(synapse, only_constant, synapse.weight)
        return response if self.layer.weight.ndim == 4 else response.reshape(self.bias.shape)

    def _synapse(self, weight: IntArray) -> Synapse:
        layer = self.layer
        if layer.weight.ndim == 2:
            return DenseSynapse(source=layer.source, weight=weight)
        return ConvSynapse(
            source=layer.source,
            weight=weight,
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
            groups=layer.groups,
        )

    def _layer(self, candidate: _Candidate, scale: float) -> GraphLayer:
        layer, numerics = self.layer, self.numerics
        spiking = layer.neuron is not None
        neurons = NeuronGroup(
            threshold=candidate.threshold if spiking else numerics.threshold_mantissa_max,
            bias=candidate.bias,
            bias_exponent=BIAS_EXPONENT,
            current_decay=numerics.decay_one,
            potential_decay=round((1 - layer.neuron.leak) * numerics.decay_one) if layer.neuron is not None else 0,
            spiking=spiking,
        )
        return GraphLayer(
            name=layer.name, shape=layer.shape, synapses=(candidate.synapse,), neurons=neurons, scale=scale
        )

    def _report(self, candidate: _Candidate, scale: float, binding: str) -> LayerFit:
        found, exact = candidate.synapse.weight / scale, self.weight
        if self.constant:  # its rounding is put right by the bias mantissa
            own = slice(0, self.layer.weight.shape[1])
            found, exact = found[:, own], exact[:, own]
        error = np.abs(found - exact).max() / np.abs(exact).max()
        theta = self.layer.threshold
        return LayerFit(
            name=self.layer.name,
            scale=scale,
            binding=binding,
            threshold=candidate.threshold,
            largest_weight=int(np.abs(found * scale).max().round()),
            largest_bias=int(np.abs(candidate.bias).max()),
            relative_weight_error=float(error),
            relative_threshold_error=abs((candidate.threshold + 1) / scale - theta) / theta
            if self.layer.neuron
            else 0.0,
            constant_channel=self.constant,
        )


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


def _steady_tap(layer: FoldedLayer, source_shape: tuple[int, ...]) -> tuple[int, int] | None:
    """A tap that never leaves the image, whatever the position; None where padding is too wide for one."""
    found = []
    for axis in range(2):
        kernel, dilation, padding = layer.weight.shape[2 + axis], layer.dilation[axis], layer.padding[axis]
        last = (layer.shape[1 + axis] - 1) * layer.stride[axis] - padding
        inside = [t for t in range(kernel) if t * dilation >= padding and last + t * dilation < source_shape[1 + axis]]
        if not inside:
            return None
        found.append(inside[0])
    return found[0], found[1]
