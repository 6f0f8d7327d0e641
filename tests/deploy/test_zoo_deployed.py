"""Equality 2 for every network of the zoo, thinner than published: folded, quantised and emulated as the oracle computes."""

from dataclasses import replace

import pytest
from rounding import assert_rounded
from settled_networks import narrow, pictures, settled

from hardspike.deploy.compile import DeploySettings, compile_network
from hardspike.deploy.emulator import EmulatorBackend
from hardspike.deploy.fold import fold_network
from hardspike.deploy.input_coding import encode_images, quantize_images
from hardspike.deploy.verify import compare_oracle
from hardspike.snn.architecture import ImageInput
from hardspike.snn.blueprint import Blueprint
from hardspike.snn.membrane import NeuronSettings
from hardspike.snn.zoo import ZOO, build_architecture

SIDES = {"vgg_digits": 8, "vgg_mini": 8, "resnet_mini": 8, "vgg11_a": 32}  # five poolings need the size
FORMS = {
    "as published": {},
    "soft": {"neuron": NeuronSettings(reset="soft", initial_potential=0.5)},
    "fire-first": {"neuron": NeuronSettings(order="fire-first", reset="soft", strict=True, leak=0.9)},
    "poisson": {"coding": "poisson"},
    "two bits, sum": {"bits": 2, "readout": "sum"},
}
# Every network as it is, and each other form once with a chain and once with shortcuts.
CASES = [(name, "as published") for name in ZOO] + [
    (name, form) for form in list(FORMS)[1:] for name in ("vgg_digits", "resnet_mini", "wrn16_4")
]


@pytest.mark.parametrize(("name", "form"), CASES)
def test_integers_equal_the_oracles(name: str, form: str) -> None:
    changes = dict(FORMS[form])
    side, channels = SIDES.get(name, 16), 1 if SIDES.get(name) == 8 else 3
    image = ImageInput(shape=(channels, side, side), mean=(0.4,) * channels, std=(0.3,) * channels)
    image = replace(image, **{key: changes.pop(key) for key in ("coding", "bits") if key in changes})
    architecture = narrow(
        build_architecture(name, Blueprint(image=image, num_classes=10, dense_width=16, **changes)), 32
    )
    network = settled(architecture, time_steps=3)
    graph, fits = compile_network(network, DeploySettings())
    assert len(fits) == len(architecture.spiking) + 1
    images = quantize_images(pictures(architecture, 1), graph.input.image_bits)
    messages = encode_images(images, graph)
    trace = EmulatorBackend().run(graph, messages, keep_states=True)
    row = compare_oracle(graph, messages, trace)
    assert (row.differing, row.first) == (0, "") and row.compared > 1000
    assert sum(int(counts.sum()) > 0 for counts in trace.spikes.values()) > len(trace.spikes) / 2
    assert_rounded(fold_network(network), graph, messages, trace)
