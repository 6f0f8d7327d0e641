"""How much of a perturbation is left behind a neuron, and behind each layer of a network (ECCV 2020, Fig. 4)."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from hardspike.snn.encoding import NoiseSource, poisson_spikes
from hardspike.snn.membrane import NeuronSettings
from hardspike.snn.neuron import fire, plain_torch

# The hybrid neuron of ECCV 2020: fires one step later, strictly above its threshold, and keeps what is over.
LIF = NeuronSettings(leak=0.99, reset="soft", order="fire-first", strict=True)


def distances(first: Tensor, second: Tensor) -> Tensor:
    """Euclidean norm of the difference of each sample, float64 [N]."""
    norm: Tensor = torch.linalg.vector_norm((first.double() - second.double()).flatten(1), dim=1)
    return norm


def relative_distances(clean: Tensor, changed: Tensor) -> Tensor:
    """The same as a share of the clean sample's norm, float64 [N]; inf or NaN where the clean sample is all zeros (see `defined`)."""
    return distances(clean, changed) / distances(clean, torch.zeros_like(clean))


def relu_output(images: Tensor) -> Tensor:
    """Of one ReLU for each pixel."""
    return F.relu(images)


def lif_output(images: Tensor, *, threshold: float, steps: int, seed: int | None) -> Tensor:
    """Spikes of one LIF neuron for each pixel, averaged over T; float64, of the images' shape.

    seed: of the Poisson spikes that a pixel in [0, 1] sends at each step with its value as probability; two calls with one seed draw
    the same numbers. None: the pixel itself is the current at each step.
    """
    values = images.double()
    current_TB = values[None]
    if seed is not None:
        uniform_TB = NoiseSource(seed).uniform((steps, *values.shape), values)
        current_TB = poisson_spikes(values, uniform_TB, 1.0)
    with torch.no_grad(), plain_torch():
        spikes_TB = fire(current_TB, torch.tensor(threshold, dtype=torch.float64), LIF, steps=steps)
    return spikes_TB.mean(0)


def layer_distances(clean: Mapping[str, Tensor], changed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Relative distance of the rates (activations) of every layer, [T, B, ...] each; float64 [B], see `defined`."""
    return {name: relative_distances(clean[name].double().mean(0), changed[name].double().mean(0)) for name in clean}


def joined(parts: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Consecutive batches as one."""
    parts = list(parts)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def defined(values: Tensor) -> Tensor:
    """Those of samples whose clean layer was not silent: inf and NaN, of a norm of 0, are left out."""
    return values[values.isfinite()]
