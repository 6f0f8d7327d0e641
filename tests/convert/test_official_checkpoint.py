"""Official checkpoints give the logits of the official forward pass; what does not fit is refused whole."""

from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from official_code import (
    MEAN,
    STD,
    VGG11,
    VGG11_TINY,
    Official,
    Shapes,
    filled,
    resnet_body,
    resnet_keys,
    vgg_body,
    vgg_keys,
    wrn_body,
    wrn_keys,
)
from torch import Tensor

from hardspike.convert.official_checkpoint import from_official, load_official, matched_keys
from hardspike.snn.architecture import (
    INPUT,
    Architecture,
    AveragePool,
    BatchNorm,
    Convolution,
    Dense,
    Flatten,
    ImageInput,
    Layer,
    Node,
    Spiking,
    WeightedSum,
)
from hardspike.snn.blueprint import Blueprint
from hardspike.snn.errors import FileError
from hardspike.snn.network import SpikingNetwork
from hardspike.snn.zoo import build_architecture


def zoo(name: str, side: int, classes: int, bias: str = "none", **free: object) -> Architecture:
    pixels = ImageInput(shape=(3, side, side), mean=MEAN, std=STD)
    return build_architecture(name, Blueprint(image=pixels, num_classes=classes, bias=bias, **free))  # type: ignore[arg-type]


def reversed_order() -> Architecture:
    """resnet_keys((4, 6, 8), blocks=1) with shortcuts before their branches, and the branch as the sums' first source."""
    nodes: list[Node] = []

    def add(name: str, layer: Layer, *sources: str) -> str:
        nodes.append(Node(name=name, layer=layer, sources=sources))
        return name

    def conv(name: str, channels: int, source: str, kernel: int = 3, stride: int = 1) -> str:
        layer = Convolution(
            out_channels=channels,
            kernel_size=(kernel, kernel),
            stride=(stride, stride),
            padding=(kernel // 2, kernel // 2),
        )
        return add(f"n_{name}", BatchNorm(), add(name, layer, source))

    x = add("s0", Spiking(), conv("c0", 4, INPUT))
    for index, width in enumerate([4, 6, 8], start=1):
        stride = 1 if index == 1 else 2
        short = x if index == 1 else conv(f"z{index}", width, x, 1, stride)
        x = add(f"s{index}", Spiking(), conv(f"c{index}", width, x, stride=stride))
        out = conv(f"d{index}", width, x)
        x = add(f"t{index}", Spiking(), add(f"p{index}", WeightedSum(initial=(0.5, 0.5), trainable=True), out, short))
    x = add("flat", Flatten(), add("pool", AveragePool(kernel_size=(2, 2)), x))
    add("head", Dense(out_features=3), x)
    return Architecture(input=ImageInput(shape=(3, 8, 8), mean=MEAN, std=STD), nodes=tuple(nodes))


CASES: dict[str, tuple[Callable[[], Architecture], Callable[[bool], Shapes], Callable[[Official, Tensor], Tensor]]] = {
    "vgg11": (lambda: zoo("vgg11", 8, 7, dense_width=4096), lambda v: vgg_keys(VGG11, 1, 7, v_th=v), vgg_body(VGG11)),
    "vgg11_tiny, biases": (
        lambda: zoo("vgg11_tiny", 16, 7, "all"),
        lambda v: vgg_keys(VGG11_TINY, 1, 7, bias=True, v_th=v),
        vgg_body(VGG11_TINY),
    ),
    "resnet20": (lambda: zoo("resnet20", 8, 10), lambda v: resnet_keys(v_th=v), resnet_body),
    "resnet20, bias": (
        lambda: zoo("resnet20", 8, 10, "output"),
        lambda v: resnet_keys(bias=True, v_th=v),
        resnet_body,
    ),
    "wrn16_4": (lambda: zoo("wrn16_4", 8, 10), lambda v: wrn_keys(v_th=v), wrn_body),
    "other order": (reversed_order, lambda v: resnet_keys((4, 6, 8), 1, 3, v_th=v), resnet_body),
}


@pytest.mark.parametrize("time_steps", [None, 3])
@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_the_official_forward_pass(name: str, time_steps: int | None) -> None:
    architecture, keys, body = CASES[name]
    state = filled(keys(time_steps is not None))
    network = SpikingNetwork(architecture(), time_steps).eval()
    images = torch.rand(4, *network.architecture.input.shape, generator=torch.Generator().manual_seed(1))
    from_official(state, network)
    network.double()
    official = Official({key: tensor.double() for key, tensor in state.items()}, time_steps)
    with torch.no_grad():
        expected = official.logits(images.double(), body)
        found = network(images.double())
    assert float(expected.std()) > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert all(int(count) == 17 for key, count in network.state_dict().items() if key.endswith("num_batches_tracked"))


def test_thresholds_stay_where_the_checkpoint_has_none() -> None:
    network = SpikingNetwork(reversed_order(), 2)
    with torch.no_grad():
        for neuron in network.neurons().values():
            neuron.threshold.fill_(0.7)
    from_official(filled(resnet_keys((4, 6, 8), 1, 3)), network)
    assert all(float(neuron.threshold) == float(torch.tensor(0.7)) for neuron in network.neurons().values())


@pytest.mark.parametrize(
    ("name", "side", "classes", "keys"),
    [
        ("vgg11", 32, 10, vgg_keys(VGG11, 4, 10, v_th=True)),
        ("vgg11", 32, 100, vgg_keys(VGG11, 4, 100)),
        ("vgg11_tiny", 64, 200, vgg_keys(VGG11_TINY, 4, 200, v_th=True)),
        ("resnet20", 32, 10, resnet_keys(v_th=True)),
        ("wrn16_4", 32, 100, wrn_keys(classes=100, v_th=True)),
    ],
)
def test_networks_of_the_paper_fit_in_full_size(name: str, side: int, classes: int, keys: Shapes) -> None:
    with torch.device("meta"):
        network = SpikingNetwork(zoo(name, side, classes), 8)
    matched = matched_keys(keys, network)
    assert sorted(matched.values()) == sorted(keys)
    has_thresholds = any(key.endswith("v_th") for key in keys)
    wanted = {key for key in network.state_dict() if not key.endswith(".leak")}
    assert set(matched) == {key for key in wanted if has_thresholds or not key.endswith(".threshold")}


def test_the_order_and_prefix_of_keys_do_not_matter_and_a_file_is_read(tmp_path: Path) -> None:
    state = filled(resnet_keys((4, 6, 8), 1, 3, v_th=True))
    direct, from_file = SpikingNetwork(reversed_order(), 2), SpikingNetwork(reversed_order(), 2, seed=1)
    from_official(state, direct)
    shuffled = {f"module.{key}": state[key] for key in sorted(state, reverse=True)}
    safetensors.torch.save_file(
        {key: value.contiguous() for key, value in shuffled.items()}, tmp_path / "net.safetensors"
    )
    load_official(tmp_path / "net.safetensors", from_file)
    for key, tensor in direct.state_dict().items():
        assert torch.equal(tensor, from_file.state_dict()[key])


def test_files_that_are_none(tmp_path: Path) -> None:
    network = SpikingNetwork(reversed_order())
    with pytest.raises(FileError, match=r"no such file; expected an official checkpoint as safetensors"):
        load_official(tmp_path / "net.safetensors", network)
    (tmp_path / "net.pth").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(FileError, match=r"not a safetensors file .*safetensors.torch.save_file"):
        load_official(tmp_path / "net.pth", network)


def without(key: str) -> Callable[[dict[str, Tensor]], None]:
    def change(state: dict[str, Tensor]) -> None:
        del state[key]

    return change


def put(key: str, *shape: int, value: float = 0.5) -> Callable[[dict[str, Tensor]], None]:
    return lambda state: state.update({key: torch.full(shape, value)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.clear(), "no key such as 'features.0.weight'"),
        (put("epoch"), "key 'epoch' is none of the official code"),
        (put("state_dict.features.0.weight", 4, 3, 3, 3), "key 'state_dict.features.0.weight' is none"),
        (put("module.classifier.1.weight", 3, 8), "with and without the prefix"),
        (put("features.3.convShortcut.weight", 4, 4, 1, 1), "'features.3.convShortcut' is not in a block with conv1"),
        (without("features.4.shortcut.0.weight"), r"'features.4.shortcut.1' \(batch norm\) .* 'z2' \(convolution\)"),
        (without("classifier.1.weight"), r"the end \(nothing\) stands where the network has 'head' \(dense layer\)"),
        (put("classifier.3.weight", 5, 3), r"'classifier.3' \(dense layer\) .* the end \(nothing\)"),
        (put("features.0.weight", 4, 1, 3, 3), r"'features.0.weight' has shape \(4, 1, 3, 3\) .*'layers.c0.weight'"),
        (put("features.0.bias", 4), "'features.0.bias' has no place in layer 'c0'"),
        (
            without("features.1.running_mean"),
            "next to 'features.1.bias' there is no 'running_mean' for 'layers.n_c0.running",
        ),
        (put("features.4.convex.comb", 3), r"'features.4.convex.comb' has shape \(3,\) .*'layers.p2.weight'"),
        (
            without("features.5.act2.v_th"),
            "6 thresholds, the last 'features.5.act1.v_th', for 7 neuron layers, the last 't3'",
        ),
        (put("features.2.v_th", 4), "'features.2.v_th' has shape"),
        (put("features.2.v_th", value=-0.1), "'features.2.v_th' holds a number out of range"),
        (put("features.0.weight", 4, 3, 3, 3, value=float("nan")), "'features.0.weight' holds a number out of range"),
    ],
)
def test_what_does_not_fit_is_refused_whole(change: Callable[[dict[str, Tensor]], None], message: str) -> None:
    state = filled(resnet_keys((4, 6, 8), 1, 3, v_th=True))
    change(state)
    network = SpikingNetwork(reversed_order(), 2)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    with pytest.raises(FileError, match=message) as caught:
        from_official(state, network)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())


def test_another_architecture_is_refused() -> None:
    with torch.device("meta"):
        network = SpikingNetwork(zoo("resnet20", 32, 10))
    with pytest.raises(FileError, match=r"'features.1.conv1.weight' has shape \(64, 16, 3, 3\)"):
        matched_keys(wrn_keys(), network)
    with torch.device("meta"):
        network = SpikingNetwork(zoo("vgg11", 32, 10, norm="none"))
    with pytest.raises(
        FileError, match=r"'features.1' \(batch norm\) stands where the network has 'conv2' \(convolution\)"
    ):
        matched_keys(vgg_keys(VGG11, 4, 10), network)
