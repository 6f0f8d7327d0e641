"""Copies of a run's spiking network with one thing changed, and finetuned for a few epochs: what sweeps over networks compare."""

import copy
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hardspike.analyses.subject import Subject
from hardspike.snn.architecture import Spiking
from hardspike.snn.data import Splits
from hardspike.snn.network import SpikingNetwork
from hardspike.train.loop import fit
from hardspike.train.settings import FitSettings, ObjectiveName

# Of the training images the first ones: a sweep trains several networks.
TRAIN_IMAGES = 4000
# The seeds of the stages follow the network's by 0, 1 and 2.
SEED_AFTER_STAGES = 3


def with_leak(network: SpikingNetwork, leak: float) -> SpikingNetwork:
    """A copy in which every neuron layer has this leak, in (0, 1]; weights, thresholds and timesteps are the same."""
    nodes = tuple(
        replace(node, layer=Spiking(neuron=replace(node.layer.neuron, leak=leak)))
        if isinstance(node.layer, Spiking)
        else node
        for node in network.architecture.nodes
    )
    made = SpikingNetwork(replace(network.architecture, nodes=nodes), network.time_steps)
    made.to(next(network.parameters()).dtype)
    state = {
        name: value.new_tensor(leak) if name.endswith(".leak") else value
        for name, value in network.state_dict().items()
    }
    made.load_state_dict(state)
    return made.eval()


def with_time_steps(network: SpikingNetwork, time_steps: int) -> SpikingNetwork:
    """A copy with this number of timesteps, >= 1. Raises SettingsError where batch norms of their own per step fix another."""
    made = copy.deepcopy(network)
    made.set_time_steps(time_steps)
    return made.eval()


def settings_of(subject: Subject, objective: ObjectiveName | None = None) -> FitSettings:
    """The settings of the stage that trained the spiking network last, for the options' epochs (>= 1).

    objective: in place of the recipe's. With one epoch there is none to choose, so one validation image is scored.
    """
    recipe, epochs = subject.folder.recipe, subject.options.epochs
    last = recipe.last_training
    score_images = last.score_images if epochs > 1 else 1
    return replace(last, epochs=epochs, score_images=score_images, objective=objective or last.objective)


def finetuned(subject: Subject, network: SpikingNetwork, settings: FitSettings) -> SpikingNetwork:
    """A trained copy, in evaluation mode on the CPU; leaks stay, thresholds train where the recipe trains them.

    The test images take no part: an epoch is chosen by validation images, as in the stages.
    """
    made = copy.deepcopy(network)
    trainable = subject.folder.recipe.last_training.trainable_thresholds
    for neuron in made.neurons().values():
        neuron.threshold.requires_grad_(trainable)
        neuron.leak.requires_grad_(False)
    with TemporaryDirectory() as folder:
        fit(
            made,
            limited(subject.splits),
            settings,
            seed=subject.folder.recipe.network.seed + SEED_AFTER_STAGES,
            state_path=Path(folder) / "state.safetensors",
            identity="",
            on_epoch=_ignored,
            device=subject.folder.recipe.device,
        )
    return made


def limited(splits: Splits) -> Splits:
    return replace(splits, train=splits.train.first(TRAIN_IMAGES))


def _ignored(metrics: dict[str, Any]) -> None:
    return None
