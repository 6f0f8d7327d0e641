"""A trained ANN becomes a spiking network.

Two kinds. By thresholds: they are found from data and scaled; batch norm becomes tdBN, which is the same norm with statistics
over T, B, H, W; with `reset_statistics` its running statistics, which say nothing about spikes, are forgotten and estimated
anew during finetuning, so that accuracy right after conversion is at chance (arXiv 2311.09266 Alg. 1). By activation (QCFS,
ICLR 2022): the ANN was trained with the clip-floor function that IF neurons with soft reset and half a threshold of initial
potential compute; its trained scales become thresholds, and nothing is measured.
"""

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from hardspike.convert.thresholds import find_thresholds
from hardspike.snn.errors import SettingsError
from hardspike.snn.network import ScalarWeights, SpikingNetwork
from hardspike.snn.norms import NORMS


def convert_network(
    ann: SpikingNetwork,
    batches: Sequence[Tensor],
    *,
    time_steps: int,
    percent: float = 99.7,
    calibration_steps: int = 100,
    scale: float = 0.3,
    trainable_thresholds: bool = True,
    per_step: bool = False,
    layers: int | None = None,
    shared_maximum: bool = False,
    reset_statistics: bool = True,
    leak: float | None = None,
) -> SpikingNetwork:
    """A new spiking network with the ANN's weights; see `find_thresholds` for the arguments not named here.

    scale: factor kappa on the found thresholds, > 0.
    """
    if not scale > 0:
        raise SettingsError(f"convert: scale = {scale} is not allowed; use a positive factor, 0.3 in the paper")
    snn = deepcopy(ann)
    snn.set_time_steps(time_steps)
    found = find_thresholds(
        snn,
        batches,
        percent=percent,
        steps=calibration_steps,
        per_step=per_step,
        layers=layers,
        shared_maximum=shared_maximum,
        leak=leak,
    )
    with torch.no_grad():
        for name, neuron in snn.neurons().items():
            neuron.threshold.mul_(scale if name in found else 1.0)
            neuron.threshold.requires_grad_(trainable_thresholds)
    if reset_statistics:
        for module in snn.modules():
            if isinstance(module, NORMS):
                module.reset_running_stats()
    return snn


def convert_clip_floor(ann: SpikingNetwork, *, time_steps: int, trainable_thresholds: bool = False) -> SpikingNetwork:
    """A new spiking network from an ANN with clip-floor activations; batch-norm statistics stay.

    A spike of such a neuron is worth its threshold; here spikes are worth 1, and the threshold goes into the weights behind.

    Raises SettingsError unless every neuron has the clip-floor activation, soft reset, no leak and half a threshold of initial
    potential, which is what makes it the ANN's function, or where spikes meet a layer without weights to take the factor.
    """
    for name, neuron in ann.neurons().items():
        settings = neuron.settings
        wanted = ("clip-floor", "soft", 1.0, 0.5)
        seen = (settings.activation, settings.reset, settings.leak, settings.initial_potential)
        if seen != wanted:
            raise SettingsError(
                f"layer '{name}': activation, reset, leak, initial_potential = {seen}; conversion by activation needs {wanted}"
            )
    snn = deepcopy(ann)
    snn.set_time_steps(time_steps)
    heights: dict[str, float] = {}  # of the values that leave each node
    with torch.no_grad():
        for node in snn.architecture.nodes:
            module = snn.layers[node.name]
            incoming = [heights.get(source, 1.0) for source in node.sources]
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.weight.mul_(incoming[0])
            elif isinstance(module, ScalarWeights):
                module.weight.mul_(module.weight.new_tensor(incoming))
            elif isinstance(module, NORMS) and incoming[0] != 1:
                raise SettingsError(
                    f"layer '{node.name}': batch norm directly behind spikes cannot take their height; put a convolution between"
                )
            elif node.name in snn.neurons():
                heights[node.name] = float(snn.neurons()[node.name].threshold.detach())
            else:
                heights[node.name] = incoming[0]
    last = snn.architecture.nodes[-1].name
    if heights.get(last, 1.0) != 1:
        raise SettingsError(
            f"layer '{last}': spikes are the output; conversion by activation needs a layer with weights there"
        )
    for neuron in snn.neurons().values():
        neuron.threshold.requires_grad_(trainable_thresholds)
    return snn
