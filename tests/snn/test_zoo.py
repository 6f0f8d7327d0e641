"""The zoo's architectures have the published sizes, and their forward passes are the published ones."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from hardspike.snn.architecture import Architecture, Convolution, Dropout, ImageInput, WeightedSum
from hardspike.snn.blueprint import Blueprint
from hardspike.snn.errors import SettingsError
from hardspike.snn.network import SpikingNetwork, num_neurons, num_parameters
from hardspike.snn.zoo import ZOO, build_architecture

PUBLISHED_NEURONS = {
    "vgg11": (32, 286_720),
    "vgg11_tiny": (64, 610_304),
    "wrn16_4": (32, 475_136),
    "resnet20": (32, 188_416),
    "vgg5": (32, 133_120),
}


def _drawn(name: str, side: int = 32, channels: int = 3, classes: int = 10, **choices: Any) -> Architecture:
    image = ImageInput(shape=(channels, side, side), mean=(0.5,) * channels, std=(0.5,) * channels)
    return build_architecture(name, Blueprint(image=image, num_classes=classes, **choices))


def _weights(architecture: Architecture) -> int:
    """Built without memory for the numbers."""
    with torch.device("meta"):
        return num_parameters(SpikingNetwork(architecture))


def _images(architecture: Architecture, count: int = 3) -> torch.Tensor:
    return torch.rand(count, *architecture.input.shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", PUBLISHED_NEURONS)
def test_published_number_of_neurons(name: str) -> None:
    side, neurons = PUBLISHED_NEURONS[name]
    assert num_neurons(_drawn(name, side)) == neurons


def test_neurons_in_the_convolutions_of_vgg11_a() -> None:
    drawn = _drawn("vgg11_a", classes=100)
    convolutional = [drawn.shapes[node.name] for node in drawn.spiking if len(drawn.shapes[node.name]) == 3]
    assert sum(channels * height * width for channels, height, width in convolutional) == 151_552
    assert len(convolutional) == 8 and drawn.shapes["flatten"] == (512,)


def test_hybrid_conversion_networks_have_their_authors_layers() -> None:
    resnet = _drawn("resnet20_hybrid", norm="none", bias="none")
    kernels = [node.layer for node in resnet.nodes if isinstance(node.layer, Convolution)]
    assert sum(kernel.kernel_size == (3, 3) for kernel in kernels) == 19 and resnet.shapes["flatten"] == (2048,)
    sums = [node.layer for node in resnet.nodes if isinstance(node.layer, WeightedSum)]
    assert len(sums) == 8 and all(one == WeightedSum(initial=(1.0, 1.0), trainable=False) for one in sums)
    hybrid, published = _drawn("vgg11_hybrid"), _drawn("vgg11")
    assert hybrid.shapes["flatten"] == published.shapes["flatten"] == (8192,)
    assert num_neurons(hybrid) == 286_720 - 2 * 4096 + 2 * 1024


@pytest.mark.parametrize(("bias", "weights"), [("none", 61_365_824), ("output", 61_365_834), ("all", 61_377_034)])
def test_published_number_of_weights_of_vgg11(bias: str, weights: int) -> None:
    assert _weights(_drawn("vgg11", bias=bias)) == weights


@pytest.mark.parametrize(
    ("name", "side", "weights", "neurons"),
    [("vgg_digits", 8, 94_090, 2_176), ("vgg_mini", 28, 207_098, 18_944), ("resnet_mini", 28, 19_816, 28_224)],
)
def test_small_networks_have_the_size_their_docstring_says(name: str, side: int, weights: int, neurons: int) -> None:
    drawn = _drawn(name, side, channels=1)
    assert (_weights(drawn), num_neurons(drawn)) == (weights, neurons)
    documented = " ".join((ZOO[name].__doc__ or "").split())
    assert f"{weights:,} weights" in documented and f"{neurons:,} neurons" in documented


@pytest.mark.parametrize("name", ["vgg_digits", "vgg_mini", "resnet_mini"])
@pytest.mark.parametrize("norm", ["td", "per-step", "none"])
def test_small_networks_run_in_both_forms(name: str, norm: str) -> None:
    drawn = _drawn(name, 16, channels=2, classes=7, norm=norm, norm_steps=3)
    images = _images(drawn)
    for steps in (3,) if norm == "per-step" else (None, 3):
        for training in (True, False):
            net = SpikingNetwork(drawn, steps).train(training)
            logits = net(images)
            assert logits.shape == (3, 7) and torch.isfinite(logits).all()
            (gradient,) = torch.autograd.grad(logits.square().sum(), net.get_parameter("layers.conv1.weight"))
            assert torch.isfinite(gradient).all()


def test_every_network_of_the_zoo_can_be_drawn() -> None:
    for name in ZOO:
        drawn = _drawn(name, 64, classes=200, bias="all", dropout_convolution=0.2, dropout_dense=0.5, readout="sum")
        assert drawn.num_classes == 200 and drawn.readout == "sum"
        assert Architecture.from_json(drawn.to_json()) == drawn


def test_an_unknown_network_is_named_with_its_neighbour() -> None:
    with pytest.raises(SettingsError, match=r"network 'vgg12' is unknown; did you mean 'vgg1?\w+'\? known: resnet20"):
        _drawn("vgg12")


def test_an_image_too_small_is_refused_in_one_line() -> None:
    with pytest.raises(SettingsError, match=r"layer 'pool\d' would have output shape") as caught:
        _drawn("vgg11_tiny", 8)
    assert "\n" not in str(caught.value)


def test_residual_block_merges_by_its_two_scalars() -> None:
    """One block of resnet_mini as an ANN, written out, with scalars that are not the initial ones."""
    drawn = _drawn("resnet_mini", 8, channels=1)
    net = SpikingNetwork(drawn).double().eval()
    layer = net.layers
    with torch.no_grad():
        layer["stage1_block1_sum"].weight.copy_(torch.tensor([0.7, -0.4]))
        layer["stage2_block1_sum"].weight.copy_(torch.tensor([0.2, 1.3]))
    images = _images(drawn).double()
    x = F.relu(layer["norm1"](layer["conv1"]((images - 0.5) / 0.5)))
    for stage, shortcut, (of_shortcut, of_branch) in ((1, False, (0.7, -0.4)), (2, True, (0.2, 1.3))):
        part = {node: layer[f"stage{stage}_block1_{node}"] for node in ("conv1", "norm1", "conv2", "norm2")}
        branch = part["norm2"](part["conv2"](F.relu(part["norm1"](part["conv1"](x)))))
        if shortcut:
            x = layer[f"stage{stage}_block1_shortcut_norm"](layer[f"stage{stage}_block1_shortcut"](x))
        x = F.relu(of_shortcut * x + of_branch * branch)
    with net.recording() as (_, currents):
        net(images)
    torch.testing.assert_close(F.relu(currents["stage2_block1_spike2"][0]), x, rtol=1e-6, atol=1e-7)
    assert torch.allclose(currents["stage3_block1_spike1"][0], _third(net, x), rtol=1e-6, atol=1e-7)


def _third(net: SpikingNetwork, x: torch.Tensor) -> torch.Tensor:
    current: torch.Tensor = net.layers["stage3_block1_norm1"](net.layers["stage3_block1_conv1"](x))
    return current


def test_both_scalars_start_at_one_half_and_train() -> None:
    sums = [node.layer for node in _drawn("resnet20").nodes if isinstance(node.layer, WeightedSum)]
    assert len(sums) == 9 and all(one == WeightedSum(initial=(0.5, 0.5), trainable=True) for one in sums)


def test_identity_shortcuts_of_wrn_carry_the_raw_sum_past_the_neurons() -> None:
    drawn = _drawn("wrn16_4")
    sources = {node.name: node.sources for node in drawn.nodes}
    for group in (1, 2, 3):
        assert sources[f"group{group}_block1_shortcut"] == (f"group{group}_block1_spike1",)
        assert sources[f"group{group}_block1_sum"] == (f"group{group}_block1_shortcut", f"group{group}_block1_conv2")
        assert sources[f"group{group}_block2_sum"] == (f"group{group}_block1_sum", f"group{group}_block2_conv2")
        assert sources[f"group{group}_block2_norm1"] == (f"group{group}_block1_sum",)
    assert sources["group1_block1_norm1"] == ("conv1",)  # no norm, no neuron behind the first convolution


def test_wrn_shortcut_is_an_analog_value_in_the_spiking_network() -> None:
    """The current of the neurons behind an identity shortcut, from the spikes in front of it."""
    drawn = _drawn("wrn16_4", 8)
    net = SpikingNetwork(drawn, 3).eval()
    layer = net.layers
    with torch.no_grad():
        layer["group1_block2_sum"].weight.copy_(torch.tensor([0.8, 0.3]))
        with net.recording() as (spikes, currents):
            net(_images(drawn, 2))
        shortcut = layer["group1_block1_shortcut"](spikes["group1_block1_spike1"].flatten(0, 1))
        first = 0.5 * shortcut + 0.5 * layer["group1_block1_conv2"](spikes["group1_block1_spike2"].flatten(0, 1))
        second = 0.8 * first + 0.3 * layer["group1_block2_conv2"](spikes["group1_block2_spike2"].flatten(0, 1))
        expected = layer["group2_block1_norm1"](second).unflatten(0, (3, 2))
    torch.testing.assert_close(currents["group2_block1_spike1"], expected, rtol=1e-5, atol=1e-5)
    assert len(second.unique()) > 100  # no spikes


def test_dropout_stands_behind_neurons_but_not_before_a_pooling() -> None:
    drawn = _drawn("vgg5", dropout_convolution=0.2, dropout_dense=0.5)
    drops = {node.sources[0]: node.layer for node in drawn.nodes if isinstance(node.layer, Dropout)}
    assert {name: layer.share for name, layer in drops.items()} == {"spike2": 0.2, "spike4": 0.5, "spike5": 0.5}
    assert all(layer.per_step for layer in drops.values())


def test_per_step_norm_without_its_number_of_steps_is_refused() -> None:
    with pytest.raises(SettingsError, match="network.norm = 'per-step' needs a number of timesteps"):
        _drawn("vgg9", norm="per-step")
