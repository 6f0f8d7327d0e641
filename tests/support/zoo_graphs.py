"""Every network of the zoo as a deployed graph, with 16 times fewer channels, random statistics and thresholds that fire."""

from dataclasses import replace

from settled_networks import narrow, settled

from hardspike.deploy.fold import fold_network
from hardspike.deploy.process_graph import ProcessGraph
from hardspike.deploy.quantize import quantize_network
from hardspike.hw_profiles.profile import load_profile
from hardspike.snn.architecture import ImageInput
from hardspike.snn.blueprint import Blueprint
from hardspike.snn.zoo import build_architecture

COLOUR = ImageInput(shape=(3, 16, 16), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


def zoo_graph(name: str, *, coding: str = "direct", time_steps: int = 4, **choices: object) -> ProcessGraph:
    """choices: of the `Blueprint`. Compiled for Loihi 2; the five poolings of vgg11_a need an image of 32 x 32."""
    image = replace(COLOUR, coding=coding, shape=(3, 32, 32) if name == "vgg11_a" else COLOUR.shape)  # type: ignore[arg-type]
    blueprint = Blueprint(**{"image": image, "num_classes": 5, "bias": "all", "dense_width": 12, **choices})  # type: ignore[arg-type]
    net = settled(narrow(build_architecture(name, blueprint), 16), time_steps)
    return quantize_network(fold_network(net), load_profile("loihi2"))[0]
