"""A trained ANN becomes a spiking network: thresholds found and scaled, batch norm becomes tdBN.

tdBN is the same batch norm with statistics over T, B, H, W, which `SpikingNetwork` applies by itself once it has timesteps.
The ANN's running statistics say nothing about spikes: they are reset and re-estimated during finetuning, so accuracy right
after conversion is at chance (arXiv 2311.09266 Alg. 1).
"""

from copy import deepcopy

import torch
from torch import Tensor, nn

from hardspike.convert.thresholds import find_thresholds
from hardspike.snn.errors import SettingsError
from hardspike.snn.network import SpikingNetwork


def convert_network(
    ann: SpikingNetwork,
    batches: list[Tensor],
    *,
    time_steps: int,
    percent: float = 99.7,
    calibration_steps: int = 100,
    scale: float = 0.3,
    trainable_thresholds: bool = True,
) -> SpikingNetwork:
    """A new spiking network with the ANN's weights; see `find_thresholds` for `batches` and `percent`.

    scale: factor kappa on the found thresholds, > 0.
    """
    if not scale > 0:
        raise SettingsError(f"convert: scale = {scale} is not allowed; use a positive factor, 0.3 in the paper")
    snn = deepcopy(ann)
    snn.set_time_steps(time_steps)
    find_thresholds(snn, batches, percent=percent, steps=calibration_steps)
    with torch.no_grad():
        for neuron in snn.neurons().values():
            neuron.threshold.mul_(scale)
            neuron.threshold.requires_grad_(trainable_thresholds)
    for module in snn.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.reset_running_stats()
    return snn
