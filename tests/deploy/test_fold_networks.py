"""Equality 1 for whole networks: every one of the zoo, and every form of input, neurons, readout and ending."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from settled_networks import narrow, pictures, settled
from small_networks import HEAD, block, conv, image, pool
from torch import nn

from hardspike.deploy.fold import FoldedLayer, FoldedNetwork, fold_network
from hardspike.deploy.verify import compare_folded
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
from hardspike.snn.errors import DataError, UnsupportedLayerError
from hardspike.snn.membrane import NeuronSettings
from hardspike.snn.network import SpikingNetwork
from hardspike.snn.norms import BatchNormPerStep
from hardspike.snn.zoo import ZOO, build_architecture

STEPS = 4
COLOUR = ImageInput(shape=(3, 16, 16), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


def drawn(name: str, **choices: object) -> Architecture:
    """A network of the zoo with 16 times fewer channels."""
    shown = replace(COLOUR, shape=(3, 32, 32)) if name == "vgg11_a" else COLOUR  # its five poolings need the size
    blueprint = Blueprint(**{"image": shown, "num_classes": 5, "bias": "all", "dense_width": 12, **choices})  # type: ignore[arg-type]
    return narrow(build_architecture(name, blueprint), 16)


def assert_folded(net: SpikingNetwork) -> FoldedNetwork:
    row = compare_folded(net, pictures(net.architecture, 2))
    assert row.compared and not row.differing, row.first
    return fold_network(net)


WITHOUT_NORM = ("vgg5", "resnet20_hybrid", "wrn16_4")


@pytest.mark.parametrize(
    ("name", "norm"), [*((name, "td") for name in ZOO), *((name, "none") for name in WITHOUT_NORM)]
)
def test_networks_of_the_zoo(name: str, norm: str) -> None:
    architecture = drawn(name, norm=norm, dropout_convolution=0.2)
    net = settled(architecture, STEPS)
    folded = assert_folded(net)
    with torch.no_grad(), net.recording() as (spikes, _):
        net(pictures(architecture, 2))
    assert all(0 < float(fired.mean()) < 1 for fired in spikes.values()), (
        "layers that never or always fire prove little"
    )
    assert [layer.name for layer in folded.layers] == [*spikes, architecture.nodes[-1].name]


def sources(layer: FoldedLayer) -> dict[str, tuple[int, ...]]:
    return {synapse.source: tuple(synapse.weight.shape) for synapse in layer.synapses}


def test_an_identity_shortcut_is_a_depthwise_synapse_with_the_sums_factor() -> None:
    architecture = drawn("resnet20")
    net = settled(architecture, STEPS)
    layers = {layer.name: layer for layer in fold_network(net).layers}
    shortcut, branch = layers["stage1_block1_spike2"].synapses
    factor = net.layers["stage1_block1_sum"].weight[0]
    assert (shortcut.source, branch.source) == ("spike1", "stage1_block1_spike1")
    assert (shortcut.groups, shortcut.padding) == (2, (0, 0))
    assert torch.equal(shortcut.weight, factor.detach() * torch.ones(2, 1, 1, 1, dtype=torch.float64))
    assert sources(layers["stage2_block1_spike2"]) == {
        "stage1_block3_spike2": (2, 2, 1, 1),
        "stage2_block1_spike1": (2, 2, 3, 3),
    }


def test_analog_shortcuts_are_unrolled_to_the_spikes_that_they_add_up() -> None:
    layers = {layer.name: sources(layer) for layer in fold_network(settled(drawn("wrn16_4"), STEPS)).layers}
    first = {"group1_block1_spike1": (4, 2, 1, 1), "group1_block1_spike2": (4, 4, 3, 3)}
    assert layers["group1_block1_spike1"] == {INPUT: (2, 3, 3, 3)}
    assert layers["group1_block2_spike1"] == first
    assert layers["group2_block1_spike1"] == {**first, "group1_block2_spike2": (4, 4, 3, 3)}
    assert layers["dense"] == {"spike_last": (5, 16 * 4 * 4)}


def test_the_bias_is_one_number_per_channel_and_what_the_mean_adds_through_the_image() -> None:
    """Two synapses from the image, one of them padded, and one from spikes."""
    nodes = (
        Node(name="a", layer=conv(3, bias=True), sources=(INPUT,)),
        Node(name="a_spike", layer=Spiking(), sources=("a",)),
        Node(name="b", layer=conv(4), sources=("a_spike",)),
        Node(name="c", layer=conv(4, (1, 1), padding=(0, 0), bias=True), sources=(INPUT,)),
        Node(name="d", layer=conv(4, bias=True), sources=(INPUT,)),
        Node(name="sum", layer=WeightedSum(initial=(0.5, 0.5, 2), trainable=True), sources=("b", "c", "d")),
        Node(name="norm", layer=BatchNorm(), sources=("sum",)),
        Node(name="spike", layer=Spiking(), sources=("norm",)),
        Node(name="flat", layer=Flatten(), sources=("spike",)),
        Node(name="head", layer=Dense(out_features=5), sources=("flat",)),
    )
    folded = assert_folded(settled(Architecture(input=image(2, 6, 5), nodes=nodes), STEPS))
    mean = torch.tensor(folded.input.mean, dtype=torch.float64).view(1, 2, 1, 1).expand(1, 2, 6, 5)
    for layer in folded.layers:
        added = [synapse.respond(-mean)[0] for synapse in layer.synapses if synapse.source == INPUT]
        bias = layer.uniform_bias.view(-1, *(1,) * (len(layer.shape) - 1)) + sum(added)
        assert layer.uniform_bias.shape == layer.shape[:1]
        torch.testing.assert_close(layer.bias.expand(layer.shape), bias.expand(layer.shape), rtol=0, atol=1e-12)
    assert sources(folded.layers[1]) == {"a_spike": (4, 3, 3, 3), INPUT: (4, 2, 3, 3)}
    assert [len(layer.synapses) for layer in folded.layers] == [1, 3, 1]


Layers = list[tuple[str, Layer]]
TRUNK: Layers = [*block("a", conv(4)), ("drop", Dropout(share=0.3))]
WIDE = Convolution(out_channels=256, kernel_size=(3, 3), padding=(1, 1), groups=128)
FORMS: dict[str, Architecture] = {
    "batch norm on the image": chain(image(3, 6, 5), [("n", BatchNorm()), *TRUNK, *HEAD]),
    "image straight into neurons": chain(image(3, 6, 5), [("s", Spiking()), *TRUNK, *HEAD]),
    "batch norm behind neurons": chain(image(1, 8, 8), [*TRUNK, ("late", BatchNorm()), *block("b", conv(4)), *HEAD]),
    "pool behind a convolution": chain(
        image(1, 9, 7),
        [*TRUNK, ("b", conv(3, bias=True)), ("p", pool(2, 3)), ("n", BatchNorm()), ("s", Spiking()), *HEAD],
    ),
    "pool of a pool on the image": chain(image(2, 8, 8), [("p", pool(2, 2)), ("q", pool(2, 1)), *TRUNK, *HEAD]),
    "pool of unpadded, 1x1 behind padded": chain(
        image(1, 9, 7),
        [
            *TRUNK,
            ("b", conv(6, (3, 2), stride=(2, 1), groups=2)),
            ("c", conv(3, (1, 1), padding=(0, 0), bias=True)),
            ("d", conv(5, (2, 2), padding=(0, 0), dilation=(1, 2))),
            ("p", pool(2, 1)),
            ("s", Spiking()),
            *HEAD,
        ],
    ),
    "dense behind dense": chain(
        image(1, 4, 3),
        [
            *TRUNK,
            *HEAD,
            ("m", Dense(out_features=7, bias=True)),
            ("n", BatchNorm()),
            ("s", Spiking()),
            ("o", Dense(out_features=3)),
        ],
    ),
    "neurons behind a flattened pool": chain(
        image(1, 6, 6),
        [*TRUNK, ("p", pool(2, 2)), ("f", Flatten()), ("n", BatchNorm()), ("s", Spiking()), *HEAD[1:]],  # type: ignore[index]
    ),
    "256 channels in 128 groups, pooled": chain(
        image(1, 4, 4),
        [*block("a", conv(128)), ("p", pool(2, 2)), *block("b", WIDE), *block("c", conv(256, groups=256)), *HEAD],
    ),
    "ends with neurons": chain(image(1, 4, 4), [*TRUNK, *HEAD, ("s", Spiking())], readout="sum"),
    "ends with pooled neurons": chain(image(1, 4, 4), [*TRUNK, ("p", AveragePool(kernel_size=(4, 4)))]),
    "ends with flattened neurons behind dropout": chain(image(1, 4, 4), [*TRUNK, ("f", Flatten())]),
    "ends with dropout of neurons": chain(image(1, 4, 4), TRUNK),
    "ends with batch norm": chain(image(1, 4, 4), [*TRUNK, *HEAD, ("n", BatchNorm())], readout="sum"),
    "a sum with itself, and of sums": Architecture(
        input=image(2, 4, 4),
        nodes=(
            Node(name="s", layer=WeightedSum(initial=(0.5, 0.25), trainable=True), sources=(INPUT, INPUT)),
            Node(name="t", layer=WeightedSum(initial=(2.0, 1.0, 1.0)), sources=("s", INPUT, "s")),
            Node(name="a", layer=Spiking(), sources=("t",)),
            Node(name="u", layer=WeightedSum(initial=(2.0, -1.0, 1.0)), sources=("s", "a", "t")),
            Node(name="p", layer=AveragePool(kernel_size=(2, 2)), sources=("u",)),
            Node(name="n", layer=BatchNorm(), sources=("p",)),
            Node(name="b", layer=Spiking(), sources=("n",)),
            Node(name="o", layer=WeightedSum(initial=(0.5, 0.25)), sources=("b", "p")),
        ),
        readout="sum",
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_order_of_layers(name: str) -> None:
    assert_folded(settled(FORMS[name], STEPS))


def test_a_shift_in_front_of_padding_is_a_map_whose_median_is_the_uniform_bias() -> None:
    (_, layer, _) = fold_network(settled(FORMS["batch norm behind neurons"], STEPS)).layers
    assert layer.bias.shape == layer.shape
    assert torch.equal(layer.uniform_bias, layer.bias[:, 4, 4])
    assert not torch.isclose(layer.uniform_bias, layer.bias[:, 0, 0]).any()


def test_a_network_that_ends_with_neurons_gets_a_layer_that_counts_them() -> None:
    layers = fold_network(settled(FORMS["ends with neurons"], STEPS)).layers
    assert [layer.name for layer in layers] == ["a_spike", "s", "s_output"]
    assert sources(layers[-1]) == {"s": (5, 5)} and layers[-1].neuron is None
    taken = chain(image(1, 4, 4), [("s_output", Spiking()), ("s", Spiking())])
    assert [layer.name for layer in fold_network(settled(taken)).layers] == ["s_output", "s", "s_output_"]


@pytest.mark.parametrize(
    "neuron",
    [
        NeuronSettings(reset="soft", leak=0.7),
        NeuronSettings(order="fire-first", leak=0.9),
        NeuronSettings(order="fire-first", reset="soft", strict=True, initial_potential=0.5),
        NeuronSettings(strict=True, initial_potential=0.25),
    ],
)
def test_forms_of_neurons(neuron: NeuronSettings) -> None:
    net = settled(drawn("resnet_mini", neuron=neuron), STEPS)
    for found, module in zip(assert_folded(net).layers, net.neurons().values(), strict=False):
        assert found.neuron == replace(neuron, leak=float(module.leak)) and found.neuron.leak < 1
        assert found.threshold == float(module.threshold)


@pytest.mark.parametrize("readout", ["mean", "sum"])
@pytest.mark.parametrize("bits", [None, 1, 3])
@pytest.mark.parametrize("coding", ["direct", "poisson"])
def test_forms_of_input_and_readout(coding: str, bits: int | None, readout: str) -> None:
    shown = replace(image(2, 6, 5), coding=coding, bits=bits, poisson_rate=0.7)  # type: ignore[arg-type]
    architecture = chain(shown, [*TRUNK, *block("b", conv(4)), *HEAD], readout=readout)  # type: ignore[arg-type]
    folded = assert_folded(settled(architecture, STEPS))
    assert (folded.input.coding, folded.input.bits, folded.readout) == (coding, bits, readout)


def test_poisson_spikes_act_on_weights_that_know_no_mean_or_std() -> None:
    shown = replace(image(2, 6, 5), coding="poisson")
    net = settled(chain(shown, [("a", conv(4)), ("s", Spiking()), *HEAD]), STEPS)
    folded = fold_network(net)
    assert torch.equal(folded.layers[0].synapses[0].weight, net.layers["a"].weight)
    assert not folded.layers[0].bias.any()
    pictured = pictures(net.architecture, 3)
    spikes = folded.draw_spikes(pictured, deepcopy(net.noise))
    assert spikes.shape == (STEPS, 3, 2, 6, 5) and set(spikes.unique().tolist()) == {-1, 0, 1}
    with pytest.raises(DataError, match="coding is poisson, but spikes were not given; draw them"):
        folded.run(pictured)
    with pytest.raises(DataError, match="coding is direct, but spikes were given; leave them out"):
        fold_network(settled(FORMS["ends with batch norm"])).run(pictures(FORMS["ends with batch norm"], 3), spikes)


def _per_step(seed: int) -> SpikingNetwork:
    return settled(drawn("resnet_mini", norm="per-step", norm_steps=STEPS), STEPS, seed)


def test_batch_norm_per_step_is_refused_unless_its_mean_will_do() -> None:
    with pytest.raises(UnsupportedLayerError, match=r"layer 'norm1': batch norm of its own per step \(BNTT\) needs"):
        fold_network(_per_step(0))


def test_batch_norm_per_step_folds_exactly_where_the_steps_agree() -> None:
    net = _per_step(0)
    for module in net.modules():
        if isinstance(module, BatchNormPerStep):
            for values in (module.weight.data, module.running_mean, module.running_var):
                assert values is not None
                values.copy_(values[:1].expand_as(values).clone())
    images = pictures(net.architecture, 2)
    folded = fold_network(net, step_norms="mean")
    with torch.no_grad(), net.recording() as (_, expected):
        logits = net(images)
    found, folded_logits = folded.run(images)
    torch.testing.assert_close(folded_logits, logits, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close({name: found[name] for name in expected}, dict(expected), rtol=1e-9, atol=1e-9)
    assert all(spread.factor < 1e-12 and spread.shift < 1e-12 for spread in folded.step_norms)


def test_the_spread_over_steps_is_told_per_norm() -> None:
    net = _per_step(1)
    norms = {name: module for name, module in net.layers.items() if isinstance(module, BatchNormPerStep)}
    spreads = {spread.layer: spread for spread in fold_network(net, step_norms="mean").step_norms}
    assert list(spreads) == list(norms)
    for name, module in norms.items():
        assert module.running_mean is not None and module.running_var is not None
        factor = module.weight.detach() / (module.running_var + module.eps).sqrt()
        for found, values in ((spreads[name].factor, factor), (spreads[name].shift, -module.running_mean * factor)):
            farthest = max(float((step - values.mean(0)).abs().max()) for step in values)
            assert found == pytest.approx(farthest / float(values.mean(0).abs().max())) and found > 0.05


def test_folding_leaves_the_network_as_it_was() -> None:
    net = settled(drawn("resnet_mini"), STEPS).float()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    folded = fold_network(net)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert {s.weight.dtype for layer in folded.layers for s in layer.synapses} == {torch.float64}


def test_a_training_threshold_below_its_floor_counts_as_the_floor() -> None:
    net = settled(drawn("vgg_digits"), STEPS)
    neuron = next(iter(net.neurons().values()))
    nn.init.constant_(neuron.threshold, 0.001)
    assert fold_network(net).layers[0].threshold == pytest.approx(0.001)
    neuron.threshold.requires_grad_(True)
    assert fold_network(net).layers[0].threshold == neuron.settings.threshold_floor
