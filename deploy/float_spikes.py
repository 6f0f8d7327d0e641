"""The float network's spikes on the deployed network's terms: where both draw spikes of their images, the same ones."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from hardspike.snn.encoding import NoiseSource
from hardspike.snn.network import SpikingNetwork


def float_spikes(network: SpikingNetwork, images: Tensor, *, seed: int = 0) -> tuple[dict[str, Tensor], Tensor]:
    """Spikes 0.0 or 1.0 per neuron layer, [T, B, ...], and logits [B, classes], without gradients.

    images: (B, C, H, W) in [0, 1]. seed: of Poisson spikes; they are those that `encode_images` draws of the same images and seed.
    """
    with torch.no_grad(), _drawing_as_the_host(network, seed), network.recording() as (spikes, _):
        logits = network(images.to(next(network.parameters()).dtype))
    return spikes, logits


@contextmanager
def _drawing_as_the_host(network: SpikingNetwork, seed: int) -> Iterator[None]:
    """Same generator, same dtype: a float32 number would round differently."""
    if network.architecture.input.coding != "poisson":
        yield
        return
    dtype, noise = next(network.parameters()).dtype, network.noise
    network.double()
    network.noise = NoiseSource(seed)
    try:
        yield
    finally:
        network.noise = noise
        network.to(dtype)
