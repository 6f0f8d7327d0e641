"""Run folders of networks made in a test: what stages `train`, `convert` and `deploy` would have left, without training."""

from copy import deepcopy
from pathlib import Path

import torch
from settled_networks import narrow, settled

from hardspike.analyses.options import AnalyseOptions
from hardspike.analyses.subject import Subject
from hardspike.attack.settings import AttackSettings
from hardspike.convert.conversion import ConvertSettings
from hardspike.deploy.compile import DeploySettings, compile_network
from hardspike.deploy.graph_file import save_graph
from hardspike.recipe import Recipe
from hardspike.run_folder import RunFolder
from hardspike.snn.architecture import Architecture, ImageInput
from hardspike.snn.blueprint import Blueprint
from hardspike.snn.checkpoint import save_network
from hardspike.snn.data import ImageSet, Splits
from hardspike.snn.network import SpikingNetwork
from hardspike.snn.zoo import build_architecture
from hardspike.train.first_network import TrainSettings

CLASSES = 5


def zoo_network(name: str, *, coding: str = "direct", time_steps: int = 4, **choices: object) -> SpikingNetwork:
    """A thinned float32 network of the zoo for colour images of 16 x 16, with parameters that make it fire."""
    image = ImageInput(shape=(3, 16, 16), mean=(0.5, 0.4, 0.3), std=(0.5, 0.5, 0.5), coding=coding)  # type: ignore[arg-type]
    blueprint = Blueprint(**{"image": image, "num_classes": CLASSES, "dense_width": 12, **choices})  # type: ignore[arg-type]
    return settled(narrow(build_architecture(name, blueprint), 16), time_steps).float()


def silenced(network: SpikingNetwork) -> SpikingNetwork:
    """The same with thresholds that no current reaches."""
    twin = deepcopy(network)
    with torch.no_grad():
        for neuron in twin.neurons().values():
            neuron.threshold.fill_(50.0)
    return twin


def hand_made_subject(
    path: Path,
    snn: SpikingNetwork,
    *,
    images: int = 6,
    deployed: bool = True,
    has_ann: bool = True,
    pixels: torch.Tensor | None = None,
    **options: object,
) -> Subject:
    """The ANN shares the SNN's weights. pixels: the test images in [0, 1]; random ones otherwise."""
    architecture: Architecture = snn.architecture
    if pixels is None:
        pixels = torch.rand(images, *architecture.input.shape, generator=torch.Generator().manual_seed(3))
    data = ImageSet((pixels * 255).round().to(torch.uint8), torch.arange(len(pixels)) % 2, architecture.num_classes)
    recipe = Recipe(
        name="made",
        train=TrainSettings(time_steps=0 if has_ann else snn.time_steps or 0),
        convert=ConvertSettings() if has_ann else ConvertSettings(method="none", epochs=0),
        deploy=DeploySettings(enabled=deployed),
        attack=AttackSettings(eps=(0.1,)),
    )
    folder = RunFolder.create(path / "made", recipe)
    save_network(folder.snn, snn)
    if has_ann:
        ann = SpikingNetwork(architecture, None)
        ann.load_state_dict(snn.state_dict())
        save_network(folder.ann, ann)
    for stage in ("train", "convert"):
        folder.finish(stage, 0.0)
    if deployed:
        graph, _ = compile_network(snn, recipe.deploy)
        save_graph(folder.graph, graph)
        folder.finish("deploy", 0.0)
    subject = Subject(folder, AnalyseOptions(**{"images": len(pixels), **options}))  # type: ignore[arg-type]
    subject.splits = Splits(data, data, data)
    return subject
