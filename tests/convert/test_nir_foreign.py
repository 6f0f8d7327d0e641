"""NIR files of others: networks and neurons mean what NIR defines, as each framework discretises it."""

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nir_files import Arrays, foreign, lif, line, node, read
from settled_networks import pictures
from torch import nn

from hardspike.convert.nir_file import NirNode
from hardspike.convert.nir_neurons import fires_at, nir_neuron, step_neuron
from hardspike.snn.architecture import (
    WeightedSum,
)
from hardspike.snn.errors import FileError, HardspikeError, SettingsError, UnsupportedLayerError
from hardspike.snn.membrane import NeuronSettings


def test_foreign_file_is_the_network_that_nir_defines(tmp_path: Path) -> None:
    graph = foreign()
    net = read(tmp_path, graph)
    assert [node.name for node in net.architecture.nodes] == ["net_0", "net_1", "net_2", "net_3", "net_4"]
    first, last = (torch.from_numpy(graph.nodes[name].values["weight"]) for name in ("net.0", "net.4"))
    images = pictures(net.architecture, 3).float()
    # By the equations: tau v' = -v + r I with tau = 10 dt and r = 10, so v <- 0.9 v + I.
    v, total = torch.zeros(3, 3, 6, 8), torch.zeros(3, 5)
    current = torch.nn.functional.conv2d(images, first, padding=1)
    for _ in range(3):
        v = 0.9 * v + current
        spikes = (v > 1).float()
        v = v * (1 - spikes)
        total += torch.nn.functional.avg_pool2d(spikes, 2, divisor_override=1).flatten(1) @ last.T
    with torch.no_grad():
        torch.testing.assert_close(net(images), total / 3, rtol=1e-5, atol=1e-5)
    assert float(total.std()) > 0.1


def test_edges_that_meet_add_up(tmp_path: Path) -> None:
    """Scale nodes on the way are factors; the sum feeds a neuron directly."""
    graph = foreign()
    graph.nodes["twice"] = node("Scale", scale=np.full((3, 6, 8), 2.0))
    graph.edges.remove(("net.0", "net.1"))
    graph.edges.extend([("net.0", "twice"), ("twice", "net.1"), ("net.0", "net.1")])
    net, once = read(tmp_path, graph), read(tmp_path, foreign())
    with torch.no_grad():
        once.layers["net_0"].weight.mul_(3)  # type: ignore[union-attr, operator]
        torch.testing.assert_close(
            net(pictures(net.architecture, 3).float()),
            once(pictures(net.architecture, 3).float()),
            rtol=1e-5,
            atol=1e-5,
        )
    (joined,) = [entry for entry in net.architecture.nodes if isinstance(entry.layer, WeightedSum)]
    assert joined.layer == WeightedSum(initial=(2.0, 1.0)) and joined.sources == ("net_0", "net_0")


def test_a_gain_goes_into_the_threshold(tmp_path: Path) -> None:
    """r twice as large, or a scale of 2 in front, halve it; the potentials are the same up to that."""
    louder = read(tmp_path, foreign(**{"net.1": NirNode("LIF", lif((3, 6, 8), r=20.0))}))
    assert float(louder.neurons()["net_1"].threshold) == 0.5
    scaled = foreign()
    scaled.nodes["twice"] = node("Scale", scale=np.full((3, 6, 8), 2.0))
    scaled.edges[1:2] = [("net.0", "twice"), ("twice", "net.1")]
    assert float(read(tmp_path, scaled).neurons()["net_1"].threshold) == 0.5


def test_sums_over_windows_reach_the_next_convolution(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    second = {
        "weight": rng.normal(size=(5, 3, 3, 4)).astype(np.float32),
        "bias": np.ones(5, dtype=np.float32),
        "stride": 1,
        "padding": 0,
        "dilation": 1,
        "groups": 1,
    }
    graph = foreign(**{"net.3": node("Conv2d", **second), "net.4": None})
    graph = line(**graph.nodes)
    net = read(tmp_path, graph)
    last = net.layers[net.architecture.nodes[-1].name]
    assert isinstance(last, nn.Conv2d) and last.bias is not None
    assert np.array_equal(last.weight.detach().numpy(), 4 * second["weight"])
    assert last.bias.tolist() == [1.0] * 5


def test_flat_input_takes_images_of_any_such_size(tmp_path: Path) -> None:
    nodes = {
        "in": node("Input", shape=[12]),
        "fc": node("Affine", weight=np.ones((2, 12)), bias=np.zeros(2)),
        "lif": NirNode("IF", {"r": np.ones(2), "v_threshold": np.ones(2)}),
        "out": node("Output", shape=[2]),
    }
    net = read(tmp_path, line(**nodes), dt=1.0)
    assert net.architecture.input.shape == (1, 1, 12) and net.mean.dtype == torch.float64
    net = read(tmp_path, line(**nodes), dt=1.0, image_shape=(3, 2, 2))
    assert net(torch.rand(2, 3, 2, 2).double()).shape == (2, 2)
    with pytest.raises(FileError, match=r"shape \(12,\), which images of shape \(3, 2, 3\) do not fit"):
        read(tmp_path, line(**nodes), dt=1.0, image_shape=(3, 2, 3))


def test_what_nir_does_not_say_is_given(tmp_path: Path) -> None:
    neuron = NeuronSettings(reset="soft", leak=0.2)
    net = read(tmp_path, foreign(), neuron=neuron)
    assert net.neurons()["net_1"].settings == replace(neuron, leak=0.9)
    with pytest.raises(SettingsError, match="does not say its dt; give it"):
        read(tmp_path, foreign(), dt=None)
    with pytest.raises(SettingsError, match="does not say its time_steps; give it"):
        read(tmp_path, foreign(), time_steps=None)
    with pytest.raises(SettingsError, match="time_steps = 0 is not allowed"):
        read(tmp_path, foreign(), time_steps=0)


# Neurons.


@pytest.mark.parametrize("discretisation", ["euler", "exponential"])
@pytest.mark.parametrize("dt", [1e-4, 1e-3, 1.0])
def test_step_is_the_equations(discretisation: Any, dt: float) -> None:
    """Against the equations themselves: one Euler step, or a thousand small ones."""
    tau, r, threshold = 7 * dt, 3.0, 0.8
    step = step_neuron("LIF", lif((), tau=tau, r=r, v_threshold=threshold), (), dt, discretisation, "x")
    v, ours, current, parts = 0.0, 0.0, 0.4, 1 if discretisation == "euler" else 100_000
    for _ in range(3):
        for _ in range(parts):
            v += dt / parts * (-v + r * current) / tau
        ours = step.leak * ours + current
    # In units of their thresholds.
    assert math.isclose(v / threshold, ours / step.threshold, rel_tol=1e-12 if parts == 1 else 1e-5)


def test_what_other_frameworks_write_gives_their_steps() -> None:
    """Leak and threshold: snnTorch beta 0.9 and 1, SpikingJelly, IF of sinabs and Norse, synapses that forget."""
    beta = np.float32(0.9)
    tau = np.float32(1e-4) / (1 - beta)
    snntorch = lif((), tau=tau, r=tau / np.float32(1e-4), v_threshold=0.7)
    snntorch = {key: value.astype(np.float32) for key, value in snntorch.items()}
    step = step_neuron("LIF", snntorch, (), 1e-4, "euler", "x")
    assert np.float32(step.leak) == beta and step.threshold == np.float32(0.7)
    endless = lif((), tau=np.inf, r=np.inf, v_threshold=0.7)
    assert asdict(step_neuron("LIF", endless, (), 1e-4, "euler", "x")) == {"leak": 1.0, "threshold": 0.7}
    integrate = {"r": np.array(1e4), "v_threshold": np.array(0.7)}
    assert asdict(step_neuron("IF", integrate, (), 1e-4, "euler", "x")) == {"leak": 1.0, "threshold": 0.7}
    assert step_neuron("IF", integrate | {"r": np.array(1.0)}, (), 1.0, "euler", "x").threshold == 0.7
    forgets = lif((), v_threshold=0.7) | {"tau_mem": np.array(1e-3), "tau_syn": np.array(1e-4), "w_in": np.array(2.0)}
    assert math.isclose(step_neuron("CubaLIF", forgets, (), 1e-4, "euler", "x").threshold, 0.35)


def _neuron_cases() -> list[tuple[str, Arrays, type[HardspikeError], str]]:
    refused, damaged = UnsupportedLayerError, FileError
    cuba = lif((2,)) | {"tau_mem": np.full(2, 1e-3), "tau_syn": np.full(2, 3e-4)}
    return [
        ("LIF", lif((2,)) | {"tau": np.array([1e-3, 2e-3])}, refused, "tau is between 0.001 and 0.002; one number"),
        ("LIF", lif((2,), v_leak=0.1), refused, "v_leak = 0.1 has no place here; allowed: 0"),
        ("LIF", lif((2,), v_reset=-0.1), refused, "v_reset = -0.1"),
        ("LIF", lif((2,), tau=1e-4), refused, "tau = 0.0001 leaves nothing after a step of dt = 0.0001"),
        ("LIF", lif((2,), tau=-1.0), refused, "tau = -1"),
        ("LIF", lif((2,), tau=np.inf), refused, "gain 0 per step"),
        ("LIF", lif((2,), r=-1.0), refused, "must both be positive"),
        ("LIF", lif((2,), v_threshold=0.0), refused, "threshold 0 and gain 1"),
        ("LIF", lif((2,), v_threshold=np.nan), refused, "v_threshold is between nan and nan"),
        ("LIF", lif((3,)), damaged, r"v_threshold has shape \(3,\), but the layer has \(2,\)"),
        ("LIF", {key: value for key, value in lif((2,)).items() if key != "r"}, damaged, "has no numbers 'r'"),
        ("CubaLIF", cuba, refused, "tau_syn = 0.0003 keeps a synaptic current.*allowed: tau_syn = dt"),
    ]


@pytest.mark.parametrize(("kind", "values", "error", "message"), _neuron_cases())
def test_neurons_that_no_step_is_the_same_as_are_refused(
    kind: str, values: Arrays, error: type[HardspikeError], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        step_neuron(kind, values, (2,), 1e-4, "euler", "node 'n'")
    assert str(caught.value).startswith("node 'n'") and "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_firing_at_a_threshold_is_firing_above_the_next_smaller_number(dtype: Any) -> None:
    for threshold in (0.3, 1.0, 7.5e-3, 1e6):
        at = dtype(threshold)
        written = nir_neuron(0.9, float(at), False, (), 1e-4, dtype)["v_threshold"]
        assert np.nextafter(at, dtype(0)) <= written < at and fires_at(float(written), dtype) == at
        assert nir_neuron(0.9, float(at), True, (), 1e-4, dtype)["v_threshold"] == at
