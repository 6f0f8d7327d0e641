"""Quantisation: what comes out is legal and close, what does not fit is named."""

import dataclasses
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from rounding import assert_rounded
from small_networks import ARCHITECTURES, HEAD, block, build, conv, image, images

from hardspike.deploy.bounds import input_bounds, spike_bounds, synapse_bounds
from hardspike.deploy.compile import DeploySettings, compile_network
from hardspike.deploy.emulator import EmulatorBackend
from hardspike.deploy.fold import fold_network
from hardspike.deploy.input_coding import append_constant_channels, encode_images
from hardspike.deploy.oracle import Oracle
from hardspike.deploy.process_graph import DenseSynapse, ProcessGraph, check_weights
from hardspike.deploy.quantize import quantize_network
from hardspike.hw_profiles.profile import load_profile
from hardspike.snn.architecture import INPUT, chain
from hardspike.snn.errors import DoesNotFitError, HardspikeError, SettingsError
from hardspike.snn.membrane import NeuronSettings

LOIHI2 = load_profile("loihi2")


@pytest.mark.parametrize("bits", [8, 6, 4, 3])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_deployed_network_differs_by_rounding_alone(name: str, bits: int) -> None:
    net = build(ARCHITECTURES[name])
    x = images(ARCHITECTURES[name], 40)
    # Without a constant channel, or with 54 taps that a step of 64 makes too large together, no scale is left.
    if bits == 3 and name in ("groups and dilation", "pool on the image, biases"):
        with pytest.raises(DoesNotFitError, match="more weight bits"):
            quantize_network(fold_network(net), LOIHI2, weight_bits=bits)
        return
    graph, fits = quantize_network(fold_network(net), LOIHI2, weight_bits=bits)
    messages = encode_images(x, graph)
    assert_rounded(fold_network(net), graph, messages, EmulatorBackend().run(graph, messages, keep_states=True))
    if name == "groups and dilation":
        # A grouped first layer has no constant channel, so the bias mantissa holds the scale down.
        assert not fits[0].constant_channel and fits[0].binding == "numerics.bias_mantissa_max"
        return
    half = 2 ** (8 - bits)  # of a step between mixed-sign weights
    for fit in fits:
        assert fit.relative_weight_error <= half / (fit.largest_weight - half)


@pytest.mark.parametrize(("bits", "channels"), [(8, 1), (6, 1), (5, 2), (4, 3), (3, 4), (2, 5)])
@pytest.mark.parametrize("name", ["padded convolution, pool, dense", "dense only"])
def test_first_layer_bias_is_exact_to_the_unit_though_it_exceeds_the_mantissa(
    name: str, bits: int, channels: int
) -> None:
    """Coarse part by the constant channels, the rest in the mantissa: together round(scale * bias) at every position."""
    folded = fold_network(build(ARCHITECTURES[name]))
    graph, fits = quantize_network(folded, LOIHI2, weight_bits=bits)
    # A dense layer spreads its bias over pixels, whose roundings make up for each other: here one channel allows the larger scale.
    expected = 1 if (name, bits) == ("dense only", 4) else channels
    assert fits[0].constant_channel and graph.input.constant_channels == expected
    assert fits[0].binding != "numerics.bias_mantissa_max"
    target = np.rint(folded.layers[0].bias.numpy() * fits[0].scale)
    assert np.abs(target).max() > LOIHI2.numerics.bias_mantissa_max
    black = append_constant_channels(torch.zeros(1, *graph.input.shape, dtype=torch.int64), graph.input)
    silent = replace(graph, layers=graph.layers[:1])
    trace = Oracle(silent).run([black[0, : graph.input.shape[0]].flatten().tolist()])
    response = np.array(trace.potentials["a_spike"][0]).reshape(graph.layers[0].shape)
    assert np.array_equal(response, np.broadcast_to(target, response.shape).astype(np.int64) << 6)
    emulated = EmulatorBackend().run(silent, torch.zeros(1, *graph.input.shape, dtype=torch.int64), keep_states=True)
    assert emulated.states is not None
    assert np.array_equal(emulated.states.potentials["a_spike"][0, 0].numpy(), response)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_no_current_can_wrap_and_the_output_cannot_fire(name: str) -> None:
    """By interval bounds over all inputs; the bounds themselves are met by an extreme input."""
    graph, _ = quantize_network(fold_network(build(ARCHITECTURES[name])), LOIHI2)
    shapes = graph.shapes
    for layer in graph.layers:
        (synapse,) = layer.synapses
        low, high = input_bounds(graph.input) if synapse.source == INPUT else spike_bounds(shapes[synapse.source])
        least, most = synapse_bounds(synapse, low, high)
        assert -LOIHI2.numerics.input_max <= least.min() and most.max() <= LOIHI2.numerics.input_max
        if not layer.neurons.spiking:
            reach = graph.time_steps * max((most + layer.neurons.bias).max(), -(least + layer.neurons.bias).min())
            assert reach <= LOIHI2.numerics.threshold_mantissa_max


def test_threshold_fires_where_the_float_neuron_does() -> None:
    """v > ceil(s theta) - 1 is v >= s theta for every integer v."""
    for scaled in np.arange(1, 400) / 8:
        threshold = int(np.ceil(scaled)) - 1
        assert all((v > threshold) == (v >= scaled) for v in range(-5, 60))


def test_leak_becomes_the_nearest_decay() -> None:
    graph, _ = quantize_network(fold_network(build(ARCHITECTURES["leaky"])), LOIHI2)
    assert [layer.neurons.potential_decay for layer in graph.layers] == [410, 2048, 0]


def _soft() -> ProcessGraph:
    soft = chain(image(1, 5, 4), [*block("a", conv(4), NeuronSettings(reset="soft")), *HEAD])
    return quantize_network(fold_network(build(soft)), load_profile("loihi1"))[0]


def _large_bias() -> ProcessGraph:
    net = build(ARCHITECTURES["padded convolution, pool, dense"])
    with torch.no_grad():
        net.layers["b_norm"].bias.fill_(1e7)
    return quantize_network(fold_network(net), LOIHI2)[0]


def _graded_on_loihi1() -> ProcessGraph:
    return compile_network(build(ARCHITECTURES["dense only"]), DeploySettings(profile="loihi1"))[0]


def _zero_weights() -> ProcessGraph:
    net = build(ARCHITECTURES["dense only"])
    with torch.no_grad():
        net.layers["a"].weight.zero_()
    return quantize_network(fold_network(net), LOIHI2)[0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            _soft,
            "layer 'a_spike': reset 'soft' is not among hard (loihi1: numerics.resets); train with one of these resets",
        ),
        (
            _large_bias,
            "(loihi2: numerics.bias_mantissa_max) until all weights round to zero; train with smaller biases",
        ),
        (
            _graded_on_loihi1,
            "layer 'input': 8-bit graded messages exceed 1 (loihi1: numerics.message_bits_max); choose a profile with graded",
        ),
        (_zero_weights, "layer 'a_spike': all weights are zero or not finite; train the network first"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_does_not_fit_names_layer_value_limit_key_and_remedy(make: object, message: str) -> None:
    with pytest.raises(DoesNotFitError, match=re.escape(message)) as caught:
        make()  # type: ignore[operator]
    assert "\n" not in str(caught.value)


def _changed(**changes: object) -> ProcessGraph:
    graph, _ = quantize_network(fold_network(build(ARCHITECTURES["dense only"])), LOIHI2)
    layer = graph.layers[0]
    neurons = replace(layer.neurons, **{k: v for k, v in changes.items() if k != "weight"})  # type: ignore[arg-type]
    weight = changes.get("weight", layer.synapses[0].weight)
    changed = replace(layer, neurons=neurons, synapses=(replace(layer.synapses[0], weight=weight),))  # type: ignore[arg-type]
    return replace(graph, layers=(changed, *graph.layers[1:]))


def _weight(value: int) -> np.ndarray:
    graph, _ = quantize_network(fold_network(build(ARCHITECTURES["dense only"])), LOIHI2)
    weight = graph.layers[0].synapses[0].weight.copy()
    weight[0, 0] = value
    return weight


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"threshold": 131072},
            "layer 'a_spike': threshold 131072 is outside 0..131071 (loihi2: numerics.threshold_mantissa_max)",
        ),
        ({"bias_exponent": 8}, "bias exponent 8 is outside 0..7 (loihi2: numerics.bias_exponent_max)"),
        ({"potential_decay": 4097}, "potential decay 4097 is outside 0..4096 (loihi2: numerics.decay_bits)"),
        (
            {"bias": np.arange(4088, 4097, dtype=np.int32)},
            "largest bias 4096 is outside -4096..4095 (loihi2: numerics.bias_mantissa_max)",
        ),
        ({"bias": np.full(9, -4097, dtype=np.int32)}, "smallest bias -4097 is outside -4096..4095"),
        ({"bias": np.zeros(8, dtype=np.int32)}, "bias of shape (8,) does not fit (9,)"),
        ({"bias": np.zeros((3, 9), dtype=np.int32)}, "bias of shape (3, 9) does not fit (9,)"),
        ({"weight": _weight(3)}, "weight 3 is not a multiple of 2 (8 bits, loihi2: numerics.weight_bits)"),
        ({"weight": _weight(256)}, "exceed -256..254 of mixed signs (loihi2: numerics.mixed_weight_min/max)"),
    ],
    ids=str,
)
def test_the_graph_refuses_what_the_chip_cannot_hold(changes: dict[str, object], message: str) -> None:
    with pytest.raises(HardspikeError, match=re.escape(message)):
        _changed(**changes)


def test_every_small_weight_is_judged_by_its_sign_rule() -> None:
    """All pairs of weights from -300 to 300 that matter, against the rule written out."""
    for low, high in [(a, b) for a in range(-300, 301, 3) for b in range(a, 301, 3)]:
        mixed = low < 0 < high
        legal = (
            (low >= -256 and high <= 254 and low % 2 == high % 2 == 0)
            if mixed
            else (low >= 0 and high <= 255) or (high <= 0 and low >= -255)
        )
        weight = np.array([[low, high]], dtype=np.int32)
        if legal:
            check_weights("n", DenseSynapse(source="a", weight=weight), LOIHI2.numerics, 8, "loihi2")
        else:
            with pytest.raises(DoesNotFitError):
                check_weights("n", DenseSynapse(source="a", weight=weight), LOIHI2.numerics, 8, "loihi2")


def test_weight_bits_must_be_the_chips() -> None:
    with pytest.raises(
        SettingsError, match=re.escape("deploy.weight_bits = 7 is not allowed; loihi1 has [2, 3, 4, 5, 6, 8]")
    ):
        DeploySettings(profile="loihi1", weight_bits=7)


def test_a_binary_network_fits_loihi1() -> None:
    numerics = load_profile("loihi1").numerics
    graph, _ = quantize_network(fold_network(build(ARCHITECTURES["dense only"])), LOIHI2)
    binary = dataclasses.replace(graph.input, coding="binary", message_bits=1, constant_channels=0)
    layer = graph.layers[0]
    weight = layer.synapses[0].weight[:, : int(np.prod(binary.shape))]
    first = replace(layer, synapses=(replace(layer.synapses[0], weight=weight),))
    dataclasses.replace(graph, input=binary, layers=(first, *graph.layers[1:]), numerics=numerics, profile="loihi1")
