"""Poisson spikes of images for a deployed network: signed ones as -1, 0, 1, or on two channels where a chip has no sign.

The gradient is straight-through, as in the float network (snn/encoding.py): with respect to a normalised pixel it is that of
its signed spike, whichever way the spike is sent.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from hardspike.deploy.process_graph import InputContract
from hardspike.snn.encoding import NoiseSource, poisson_spikes


def poisson_messages(images_BCHW: Tensor, contract: InputContract, time_steps: int, noise: NoiseSource) -> Tensor:
    """Float messages [T, B, *contract.shape] of images in [0, 1]; one uniform number per pixel and step is drawn from `noise`."""
    code, normalised = contract.poisson, _normalised(images_BCHW, contract)
    assert code is not None
    uniform_TB = noise.uniform((time_steps, *normalised.shape), normalised)
    spikes_TB = poisson_spikes(normalised, uniform_TB, code.rate)
    return spikes_TB if contract.coding == "signed" else on_two_channels(spikes_TB)


def analog_messages(images_BCHW: Tensor, contract: InputContract) -> Tensor:
    """The normalised pixels themselves in the spikes' place, [B, *contract.shape]: what a network without spikes gets."""
    normalised = _normalised(images_BCHW, contract)
    return normalised if contract.coding == "signed" else torch.cat([F.relu(normalised), F.relu(-normalised)], dim=1)


def _normalised(images_BCHW: Tensor, contract: InputContract) -> Tensor:
    assert contract.poisson is not None
    mean, std = (
        images_BCHW.new_tensor(values).view(-1, 1, 1) for values in (contract.poisson.mean, contract.poisson.std)
    )
    return (images_BCHW - mean) / std


def on_two_channels(spikes_TBCHW: Tensor) -> Tensor:
    """Positive spikes on the first half of the channels, negative ones on the second: 0 or 1, [T, B, 2 C, H, W]."""
    path = (
        spikes_TBCHW - spikes_TBCHW.detach()
    ) / 2  # zero; its gradient is half of the positive minus half of the negative
    sign = spikes_TBCHW.detach()
    return torch.cat([sign.clamp(min=0) + path, (-sign).clamp(min=0) - path], dim=2)
