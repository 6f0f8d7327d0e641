"""Architectures, checkpoints and the parts of the network that golden vectors do not reach."""

import json
from pathlib import Path

import pytest
import torch
from small_networks import ARCHITECTURES, build, images

from hardspike.snn.architecture import Architecture, Dense, Flatten, ImageInput, Spiking, chain
from hardspike.snn.blueprint import Blueprint
from hardspike.snn.checkpoint import load_network, save_network, save_tensors
from hardspike.snn.errors import DataError, FileError, SettingsError, UnsupportedLayerError
from hardspike.snn.network import SpikingNetwork, num_neurons, num_parameters
from hardspike.snn.zoo import build_architecture

IMAGE = ImageInput(shape=(1, 4, 3), mean=(0.5,), std=(0.5,))


def test_vgg_digits_has_the_size_its_docstring_says() -> None:
    image = ImageInput(shape=(1, 8, 8), mean=(0.305,), std=(0.376,))
    net = SpikingNetwork(build_architecture("vgg_digits", Blueprint(image=image, num_classes=10)))
    assert (num_parameters(net), num_neurons(net.architecture)) == (94_090, 2_176)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_time_loop_written_out_gives_the_same_logits(name: str) -> None:
    """Step by step, every layer at every step, nothing computed once: the network's own speed-ups must not change it."""
    net = build(ARCHITECTURES[name])
    x = images(ARCHITECTURES[name], 5)
    potentials: dict[str, torch.Tensor] = {}
    outputs = []
    for _ in range(net.time_steps or 0):
        value = (x - net.mean) / net.std
        for node in net.architecture.nodes:
            if isinstance(node.layer, Spiking):
                neuron = net.neurons()[node.name]
                before = node.layer.neuron.leak * potentials.get(node.name, torch.zeros_like(value)) + value
                value = (before >= neuron.threshold).double()
                potentials[node.name] = before * (1 - value)
            else:
                value = net.layers[node.name](value)
        outputs.append(value)
    torch.testing.assert_close(net(x), torch.stack(outputs).mean(0), rtol=1e-12, atol=1e-12)


def test_a_sum_over_steps_counts_every_step_also_where_nothing_changes_between_them() -> None:
    layers = [("flat", Flatten()), ("out", Dense(out_features=3))]
    net = SpikingNetwork(chain(IMAGE, layers, readout="sum"), time_steps=5)
    x = torch.rand(2, *IMAGE.shape)
    once = net.layers["out"](((x - 0.5) / 0.5).flatten(1))
    torch.testing.assert_close(net(x), 5 * once, rtol=1e-6, atol=1e-6)
    net.set_time_steps(None)
    torch.testing.assert_close(net(x), once, rtol=1e-6, atol=1e-6)


def test_tdbn_statistics_are_over_time_as_well() -> None:
    """Training mode equals batch norm on the merged [T * B] tensor, running variance included."""
    name = "padded convolution, pool, dense"
    net = build(ARCHITECTURES[name], time_steps=4)
    norm = net.layers["a_norm"]
    running = norm.running_var.clone()
    x = images(ARCHITECTURES[name], 3)
    merged = net.layers["a"](((x - net.mean) / net.std).repeat(4, 1, 1, 1))
    variance = merged.var((0, 2, 3), unbiased=True)
    net.train()
    net(x)
    torch.testing.assert_close(norm.running_var, 0.9 * running + 0.1 * variance)


def test_checkpoint_brings_everything_back(tmp_path: Path) -> None:
    net = build(ARCHITECTURES["leaky"]).float()
    save_network(tmp_path / "net.safetensors", net)
    loaded = load_network(tmp_path / "net.safetensors")
    assert loaded.architecture == net.architecture and loaded.time_steps == net.time_steps
    x = images(net.architecture, 4).float()
    assert torch.equal(loaded(x), net(x))


def test_damaged_checkpoints_are_one_line_errors(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    with pytest.raises(FileError, match="no such file; expected a hardspike network file"):
        load_network(path)
    net = build(ARCHITECTURES["dense only"])
    save_network(path, net)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileError, match="not a readable network file"):
        load_network(path)
    path.write_bytes(b"\x80\x04\x95pickle")
    with pytest.raises(FileError, match="not a readable network file"):
        load_network(path)
    header = {"kind": "network", "architecture": net.architecture.to_json(), "time_steps": "8"}
    save_tensors(path, {"layers.a.weight": torch.zeros(1)}, header)
    with pytest.raises(FileError, match="weights do not match the architecture"):
        load_network(path)
    state = {
        name: torch.full_like(value, torch.nan) for name, value in net.state_dict().items() if value.is_floating_point()
    }
    save_tensors(path, net.state_dict() | state, header)
    with pytest.raises(FileError, match="a weight is not finite"):
        load_network(path)


def test_unknown_layers_in_a_file_are_named() -> None:
    text = json.loads(ARCHITECTURES["dense only"].to_json())
    text["nodes"][1]["kind"] = "MaxPool"
    with pytest.raises(UnsupportedLayerError, match="layer kind 'MaxPool' is unknown; known: Convolution, BatchNorm"):
        Architecture.from_json(json.dumps(text))
    with pytest.raises(FileError, match="architecture: not readable"):
        Architecture.from_json("{}")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architecture_as_json_and_back(name: str) -> None:
    assert Architecture.from_json(ARCHITECTURES[name].to_json()) == ARCHITECTURES[name]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([("a", Dense(out_features=2))], r"layer 'a' .Dense. needs 1 axes, but 'input' has shape \(1, 4, 3\)"),
        ([("a", Flatten()), ("a", Dense(out_features=2))], "layer 'a' appears twice"),
    ],
)
def test_impossible_architectures_are_named(layers: list, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(SettingsError, match=message):
        chain(IMAGE, layers)


def test_wrong_image_shape_is_named() -> None:
    with pytest.raises(DataError, match=r"images: shape \(1, 1, 3, 4\) does not fit this network; it takes \(batch, "):
        build(chain(IMAGE, [("f", Flatten()), ("d", Dense(out_features=2))]))(torch.zeros(1, 1, 3, 4).double())
