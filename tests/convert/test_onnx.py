"""ONNX files say what the network says, in both directions, and what cannot be said is refused in one line."""

import inspect
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from onnx_files import assert_same, runtime
from small_networks import ARCHITECTURES, HEAD, conv, image, images
from torch import Tensor, nn

from hardspike.convert.ann_to_snn import convert_network
from hardspike.convert.onnx_in import load_onnx
from hardspike.convert.onnx_out import onnx_model, save_onnx
from hardspike.snn.architecture import (
    INPUT,
    Architecture,
    AveragePool,
    BatchNorm,
    Convolution,
    Dense,
    Dropout,
    Flatten,
    ImageInput,
    Layer,
    Node,
    Spiking,
    WeightedSum,
    chain,
)
from hardspike.snn.blueprint import Blueprint
from hardspike.snn.errors import UnsupportedLayerError
from hardspike.snn.membrane import NeuronSettings
from hardspike.snn.network import ScalarWeights, SpikingNetwork, num_parameters
from hardspike.snn.zoo import ZOO, build_architecture

CLIP_FLOOR = NeuronSettings(reset="soft", initial_potential=0.5, activation="clip-floor", levels=4)
LARGEST = 3_000_000


def node(name: str, layer: Layer, *sources: str) -> Node:
    return Node(name=name, layer=layer, sources=sources)


def dag() -> Architecture:
    """Rounded image; a sum of three, one of which is the image's own branch; dropout; a sum of one."""
    norm = BatchNorm(eps=1e-3)
    return Architecture(
        input=ImageInput(shape=(2, 6, 8), mean=(0.4, 0.5), std=(0.25, 0.3), bits=4),
        nodes=(
            node("conv1", conv(4), INPUT),
            node("norm1", norm, "conv1"),
            node("spike1", Spiking(), "norm1"),
            node("drop", Dropout(share=0.3), "spike1"),
            node("conv2", conv(4), "drop"),
            node("side", conv(4, (1, 1), padding=(0, 0), bias=True), INPUT),
            node("sum", WeightedSum(initial=(0.5, -0.25, 2.0), trainable=True), "conv2", "spike1", "side"),
            node("spike2", Spiking(), "sum"),
            node("halved", WeightedSum(initial=(0.5,)), "spike2"),
            node("pool", AveragePool(kernel_size=(6, 4)), "halved"),
            node("flat", Flatten(), "pool"),
            node("head", Dense(out_features=3), "flat"),
            node("scaled", WeightedSum(initial=(3.0,)), "head"),
            node("drop2", Dropout(share=0.5), "scaled"),
        ),
    )


def ann(architecture: Architecture, seed: int = 0) -> SpikingNetwork:
    """Random weights, statistics, sums and thresholds; float32, evaluation mode."""
    net = SpikingNetwork(architecture, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.uniform_(-0.3, 0.3, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.uniform_(-0.3, 0.6, generator=generator)
            elif isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                module.bias.uniform_(-0.5, 0.5, generator=generator)
            elif isinstance(module, ScalarWeights):
                module.weight.add_(torch.rand(module.weight.shape, generator=generator))
    return net.eval()


def zoo(name: str) -> Architecture:
    side = 64 if name == "vgg11_tiny" else 32
    shape = {"vgg_digits": (1, 8, 8), "vgg_mini": (1, 28, 28), "resnet_mini": (1, 28, 28)}.get(name, (3, side, side))
    channels = shape[0]
    pixels = ImageInput(shape=shape, mean=(0.49, 0.48, 0.45)[:channels], std=(0.2, 0.19, 0.21)[:channels])
    return build_architecture(name, Blueprint(image=pixels, num_classes=10, dropout_dense=0.2))


def size(architecture: Architecture) -> int:
    with torch.device("meta"):
        return num_parameters(SpikingNetwork(architecture))


ANNS: dict[str, Callable[[], Architecture]] = {
    **{name: lambda name=name: ARCHITECTURES[name] for name in ARCHITECTURES},  # type: ignore[misc]
    "sums, dropout, rounded image": dag,
    **{name: lambda name=name: zoo(name) for name in ZOO if size(zoo(name)) < LARGEST},  # type: ignore[misc]
}


@pytest.mark.parametrize("name", ANNS)
def test_written_file_and_its_reading_give_the_logits(name: str, tmp_path: Path) -> None:
    net = ann(ANNS[name]())
    batch = images(net.architecture, 3).float()
    save_onnx(tmp_path / "net.onnx", net)
    with torch.no_grad():
        expected = net(batch)
        assert_same(runtime(tmp_path / "net.onnx", batch), expected)
        back = load_onnx(tmp_path / "net.onnx")
        assert_same(back(batch), expected)
    assert back.architecture.input == net.architecture.input
    assert not back.training and back.time_steps is None
    assert [entry.name for entry in back.architecture.spiking] == [n.name for n in net.architecture.spiking]
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.onnx"]


def test_the_large_networks_of_the_zoo_are_left_out_knowingly() -> None:
    assert {"vgg_digits", "resnet20", "wrn16_4"} <= set(ANNS)


def test_clip_floor_activation_in_both_directions(tmp_path: Path) -> None:
    pixels = ImageInput(shape=(1, 4, 4), mean=(0.0,), std=(1.0,))
    layers: list[tuple[str, Layer]] = [("a", conv(3)), ("s", Spiking(neuron=CLIP_FLOOR)), *HEAD]
    net = SpikingNetwork(chain(pixels, layers)).eval()
    batch = torch.randint(0, 9, (5, 1, 4, 4), generator=torch.Generator().manual_seed(1)) / 8
    with torch.no_grad():  # eighths add up exactly in any order, so that the floor is of equal numbers
        for parameter in net.parameters():
            parameter.copy_((parameter * 8).round() / 8)
        net.neurons()["s"].threshold.fill_(0.7)
        save_onnx(tmp_path / "net.onnx", net)
        back = load_onnx(tmp_path / "net.onnx", neuron=CLIP_FLOOR)
        assert_same(runtime(tmp_path / "net.onnx", batch), net(batch), 1e-6)
        assert_same(back(batch), net(batch), 1e-6)
    assert back.architecture == net.architecture
    assert float(back.neurons()["s"].threshold) == float(net.neurons()["s"].threshold)


@pytest.mark.parametrize("norm", [BatchNorm(), BatchNorm(steps=3, shift=False)])
def test_spiking_networks_are_not_written(norm: BatchNorm, tmp_path: Path) -> None:
    net = SpikingNetwork(chain(image(1, 4, 4), [("a", conv(3)), ("n", norm), ("s", Spiking()), *HEAD]), 3)
    with pytest.raises(UnsupportedLayerError, match="3 timesteps cannot be written as ONNX") as caught:
        save_onnx(tmp_path / "net.onnx", net)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


class Residual(nn.Module):
    """Normalises its image; a block with an addition; another, scaled; global pooling."""

    def __init__(self, head: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.tensor([0.49, 0.48, 0.45]).view(3, 1, 1))
        self.std = nn.Parameter(torch.tensor([0.2, 0.19, 0.21]).view(3, 1, 1))
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.short = nn.Conv2d(8, 16, 1, stride=2, bias=False)
        self.conv3 = nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=2)
        self.norm1, self.norm2, self.norm3 = nn.BatchNorm2d(8), nn.BatchNorm2d(8), nn.BatchNorm2d(16)
        self.drop = nn.Dropout(0.5)
        self.dense = nn.Linear(16, 5)
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm1(self.conv1((x - self.mean) / self.std)))
        x = torch.relu(x + self.norm2(self.conv2(x)))
        x = torch.relu(0.5 * self.short(x) + self.norm3(self.conv3(x)) * 2)
        logits: Tensor = self.dense(self.head(self.drop(x)))
        return logits


def plain() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * 4 * 4, 12),
        nn.BatchNorm1d(12),
        nn.ReLU(),
        nn.Linear(12, 5, bias=False),
    )


MODULES: dict[str, Callable[[], nn.Module]] = {
    "plain": plain,
    "adaptive pooling": lambda: Residual(lambda x: nn.functional.adaptive_avg_pool2d(x, 1).flatten(1)),
    "mean": lambda: Residual(lambda x: x.mean((2, 3))),
    "mean, view": lambda: Residual(lambda x: x.mean((2, 3), keepdim=True).view(x.size(0), -1)),
    "reshape": lambda: Residual(lambda x: nn.functional.adaptive_avg_pool2d(x, 1).reshape(-1, 16)),
}


def settle(module: nn.Module) -> nn.Module:
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            assert part.running_mean is not None and part.running_var is not None
            nn.init.uniform_(part.running_mean, -0.3, 0.3)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.3, 0.6)
    return module.eval()


def export(module: nn.Module, path: Path, *, fixed_batch: bool) -> None:
    options: dict[str, Any] = {} if fixed_batch else {"dynamic_axes": {"x": {0: "n"}}}
    if "dynamo" in inspect.signature(torch.onnx.export).parameters:
        options["dynamo"] = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(module, (torch.zeros(2, 3, 8, 8),), str(path), input_names=["x"], **options)
        except ModuleNotFoundError as error:
            pytest.skip(f"torch {torch.__version__} exports ONNX only with the package {error.name}")


@pytest.mark.parametrize("fixed_batch", [False, True])
@pytest.mark.parametrize("name", MODULES)
def test_exported_modules_become_networks_that_spike(name: str, fixed_batch: bool, tmp_path: Path) -> None:
    torch.manual_seed(3)
    module = settle(MODULES[name]())
    export(module, tmp_path / "net.onnx", fixed_batch=fixed_batch)
    batch = torch.rand(2, 3, 8, 8)
    network = load_onnx(tmp_path / "net.onnx")
    with torch.no_grad():
        assert_same(network(batch), runtime(tmp_path / "net.onnx", batch))
        assert_same(network(batch), module(batch))
    if name != "plain":
        assert network.architecture.input.mean == (0.49, 0.48, 0.45)
        assert network.architecture.input.std == (0.2, 0.19, 0.21)
    snn = convert_network(network, [torch.rand(16, 3, 8, 8)], time_steps=4, calibration_steps=10)
    with torch.no_grad(), snn.recording() as (spikes, _):
        logits = snn.train()(torch.rand(8, 3, 8, 8))
    assert logits.shape == (8, 5) and len(spikes) == len(network.architecture.spiking) > 0
    assert all(0 < float(fired.mean()) < 1 for fired in spikes.values())


def test_the_file_is_one_other_runtimes_read() -> None:
    model = onnx_model(ann(dag()))
    assert (model.ir_version, [(entry.domain, entry.version) for entry in model.opset_import]) == (8, [("", 17)])
    assert [dim.dim_param or dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim] == [
        "batch",
        2,
        6,
        8,
    ]
    assert (model.graph.input[0].name, model.graph.output[0].name) == ("image", "logits")
    assert "conv1" in [entry.name for entry in model.graph.node]
    assert isinstance(dag().nodes[0].layer, Convolution)
