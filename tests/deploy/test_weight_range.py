"""Rules for a layer's scale, and overflows that are counted where no bound forbids them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from settled_networks import pictures, settled
from small_networks import ARCHITECTURES, build

from hardspike.deploy.compile import DeploySettings, compile_network
from hardspike.deploy.emulator import EmulatorBackend
from hardspike.deploy.fold import fold_network
from hardspike.deploy.input_coding import encode_images
from hardspike.deploy.overflow import count_overflows
from hardspike.deploy.quantize import quantize_network
from hardspike.deploy.weight_range import ScaleRule, WeightRange, parse_scale_rule
from hardspike.hw_profiles.profile import load_profile
from hardspike.snn.errors import SettingsError

LOIHI2 = load_profile("loihi2")


def bell(seed: int = 0, size: int = 4000) -> np.ndarray:
    """Mostly small weights, a few large: where clipping pays."""
    return np.random.default_rng(seed).standard_t(4, size)


def mixed(values: np.ndarray, bits: int) -> WeightRange:
    step = 1 << (9 - bits)
    return WeightRange(values=values, step=step, least=-256, most=254 // step * step)


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
def test_search_is_the_best_of_its_candidates_and_never_worse_than_max(bits: int) -> None:
    found = mixed(bell(), bits)
    best = ScaleRule("search").scale_of(found)
    errors = [found.squared_error(found.unclipped * factor) for factor in np.geomspace(1, 4, 61)]
    assert found.squared_error(best) == min(errors) <= errors[0]
    if bits <= 4:
        assert found.squared_error(best) < 0.7 * errors[0], "with few bits clipping pays"


def test_squared_error_is_that_of_the_nearest_legal_integer() -> None:
    values, scale = bell(size=300), 40.0
    found = mixed(values, 4)
    legal = np.arange(-256, 255, 32)
    slow = sum(min((integer / scale - value) ** 2 for integer in legal) for value in values)
    assert found.squared_error(scale) == pytest.approx(slow, rel=1e-12)


def test_percentile_clips_that_share() -> None:
    found = mixed(bell(), 8)
    scale = ScaleRule("percentile", 99.0).scale_of(found)
    beyond = (np.abs(found.values) * scale > 256).mean()
    assert 0.005 < beyond <= 0.0105
    assert ScaleRule("percentile", 100.0).scale_of(found) == pytest.approx(found.unclipped, rel=0.01)


def test_exponents_let_small_and_large_synapses_share_a_scale() -> None:
    small, large = mixed(bell() / 40, 8), mixed(bell(1), 8)
    rule = ScaleRule("max")
    scale, decisive = rule.largest_scale([small, large], exponent_max=7)
    assert decisive is small and scale == small.unclipped
    assert small.exponent(scale, rule) == 0
    exponent = large.exponent(scale, rule)
    assert large.unclipped * 2 ** (exponent - 1) < scale <= large.unclipped * 2**exponent
    limited, whose = rule.largest_scale([small, large], exponent_max=2)
    assert whose is large and limited == large.unclipped * 4 and large.exponent(limited, rule) == 2


@pytest.mark.parametrize("text", ["", "mean", "max:3", "percentile", "percentile:x", "percentile:20", "percentile:101"])
def test_unknown_rules_are_one_line(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^deploy.scale = '.*' is not allowed; use max, search, or percentile:P"):
        parse_scale_rule(text)


def test_table_says_what_rounding_cost() -> None:
    network = build(ARCHITECTURES["padded convolution, pool, dense"])
    folded = fold_network(network)
    costs = {}
    for bits, scale in ((8, "max"), (3, "max"), (3, "search"), (3, "percentile:95")):
        graph, fits = quantize_network(folded, LOIHI2, weight_bits=bits, scale=scale)
        for fit, layer, exact in zip(fits, graph.layers, folded.layers, strict=True):
            (synapse,), (weights,) = layer.synapses, exact.synapses
            unit = graph.input.message_max if fit.constant_channel or exact is folded.layers[0] else 1
            own = synapse.weight[:, : weights.weight.shape[1]]
            values = weights.weight.numpy() / unit
            rms = np.sqrt(((own / fit.scale - values) ** 2).sum() / (values**2).sum())
            assert fit.weight_rms_error == pytest.approx(rms, rel=1e-9)
            assert fit.zeroed == pytest.approx(((own == 0) & (values != 0)).sum() / (values != 0).sum())
        costs[bits, scale] = fits[1]
    assert costs[8, "max"].weight_rms_error < 0.02 < costs[3, "max"].weight_rms_error
    assert costs[3, "search"].weight_rms_error <= costs[3, "max"].weight_rms_error
    assert costs[3, "percentile:95"].clipped > 0 == costs[3, "max"].clipped and costs[3, "max"].lost_bit


def test_without_a_proof_scales_may_be_larger_and_wraps_are_counted() -> None:
    network = settled(ARCHITECTURES["dense only"])
    with torch.no_grad():  # the largest scale that the weights allow would let a current wrap
        network.layers["a"].weight.fill_(0.5)
    proven, counted = (
        compile_network(network, DeploySettings(overflow=overflow)) for overflow in ("proven", "counted")
    )
    assert proven[1][0].binding == "numerics.state_bits" and counted[1][0].scale > proven[1][0].scale
    images = pictures(network.architecture, 6)
    for graph, _ in (proven, counted):
        messages = encode_images(images, graph)
        found = count_overflows(graph, messages, batch_size=4)
        states = EmulatorBackend().run(graph, messages, keep_states=True).states
        assert states is not None
        for layer in graph.layers:
            potentials = states.potentials[layer.name]
            assert found[layer.name].of == potentials.numel()
            assert found[layer.name].clipped == int((potentials.abs() == graph.numerics.state_max).sum())
    proven_count, counted_count = (
        count_overflows(g, encode_images(images, g))[g.layers[0].name] for g, _ in (proven, counted)
    )
    assert proven_count.wrapped == 0
    forced = replace(counted[0], layers=counted[0].layers)
    assert counted_count.wrapped == _wraps_by_hand(forced, encode_images(images, forced))


def _wraps_by_hand(graph: object, messages: torch.Tensor) -> int:
    """Of a first dense layer without memory: sums beyond 2^17, at each step."""
    (synapse,) = graph.layers[0].synapses  # type: ignore[attr-defined]
    sent = messages.flatten(1)
    constant = synapse.weight.shape[1] - sent.shape[1]
    sent = torch.cat([sent, torch.full((len(sent), constant), 255)], 1)
    sums = sent @ torch.from_numpy(synapse.weight).long().T
    wraps = (sums * 64 > 1 << 23) | (sums * 64 <= -(1 << 23))
    return int(wraps.sum()) * graph.time_steps  # type: ignore[attr-defined]
