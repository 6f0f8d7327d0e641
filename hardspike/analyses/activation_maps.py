"""Maps of what a layer looks at, from spikes alone or with gradients, and what is measured on them.

Spike activation maps: Kim and Panda, "Visual explanations from spiking neural networks using inter-spike intervals", Sci Rep 2021.
Maps are normalised per sample and step from their smallest value, 0, to their largest, 1. (The published code divides by the
largest plus 1e-3 instead, which only dims maps of few spikes.) A map without contrast has no such form: it becomes all zero.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

# Keeps log M and log(1 - M) finite: normalised maps always contain exact zeros and ones.
LOG_CLAMP = 1e-3
# Share of a map's largest value below which differences are rounding, which would otherwise be blown up to full contrast.
ROUNDING = 1e-9


def spike_activation(spikes_TBCHW: Tensor, gamma: float, variant: str = "paper") -> Tensor:
    """M_ij(t) = sum over k of N^k_ij(t) S^k_ij(t), float64 [T, B, H, W], not normalised.

    spikes_TBCHW: 0 or 1, any dtype. gamma: decay per timestep, 0 or more.
    variant: `paper`, N(t) = sum over earlier spikes t' < t of exp(-gamma (t - t')), so a first spike shows nothing; `code`,
    what the authors' code computes, N(t) = sum over all t' <= t of exp(-gamma (t - S(t') t')), in which a silent step counts
    exp(-gamma t) and the present spike 1, t from 0.
    """
    decay = math.exp(-gamma)
    total = torch.zeros(spikes_TBCHW.shape[1:], dtype=torch.float64, device=spikes_TBCHW.device)
    maps = []
    for t, spike in enumerate(spikes_TBCHW):
        spike = spike.double()
        if variant == "paper":
            maps.append((total * spike).sum(1))
            total = decay * (total + spike)
        else:
            silent = math.exp(-gamma * t)
            total = decay * total + silent + (1 - silent) * spike
            maps.append((total * spike).sum(1))
    return torch.stack(maps)


def gradient_weighted(values_TBCHW: Tensor, gradients_TBCHW: Tensor) -> Tensor:
    """Grad-CAM, [T, B, H, W], not normalised: G(t) = max(0, sum over k of alpha_k A_k(t)), T = 1 for an ANN.

    values, gradients: spikes (activations) A and d y / d A, y the label's logit. alpha_k: mean over the plane of the
    gradients summed over all timesteps, the same at every step (the paper's text writes alpha_t in the second formula).
    """
    weights_BC = gradients_TBCHW.sum(0).mean((-2, -1))
    maps_TBHW: Tensor = (weights_BC[..., None, None] * values_TBCHW).sum(2).clamp(min=0)
    return maps_TBHW


def normalised(maps_TBHW: Tensor) -> Tensor:
    """Each map from 0 (its smallest value) to 1 (its largest); all zero where it is the same everywhere up to rounding."""
    low, high = maps_TBHW.amin((-2, -1), keepdim=True), maps_TBHW.amax((-2, -1), keepdim=True)
    span = high - low
    flat = span <= ROUNDING * torch.maximum(low.abs(), high.abs())
    return ((maps_TBHW - low) / span.masked_fill(flat, 1)).masked_fill(flat, 0)


def resized(maps_TBHW: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear to (H, W), pixel centres kept apart as in images (align_corners=False); values stay within their range."""
    if maps_TBHW.shape[-2:] == size:
        return maps_TBHW
    larger: Tensor = F.interpolate(maps_TBHW, size=size, mode="bilinear", align_corners=False)
    return larger


def has_contrast(maps_TBHW: Tensor) -> Tensor:
    """Whether normalised maps show anything, bool [T, B]."""
    return maps_TBHW.flatten(2).any(2)


def variance(maps_TBHW: Tensor) -> Tensor:
    """Largest over time of the pixels' variance (population), per sample [B]; of normalised maps at most 1/4."""
    return maps_TBHW.flatten(2).var(2, correction=0).amax(0)


def localisation_errors(maps_TBHW: Tensor, reference_BHW: Tensor) -> Tensor:
    """-(1/N) sum over pixels of G log M(t) + (1 - G) log(1 - M(t)), [T, B]; the paper's error is the smallest over t.

    The paper prints it without the minus sign and calls it cross entropy. M is kept in [`LOG_CLAMP`, 1 - `LOG_CLAMP`]. A map
    of 1/2 everywhere has log 2 = 0.693. reference_BHW: G in [0, 1], of the maps' size.
    """
    maps_TBHW = maps_TBHW.clamp(LOG_CLAMP, 1 - LOG_CLAMP)
    gains = reference_BHW * maps_TBHW.log() + (1 - reference_BHW) * (1 - maps_TBHW).log()
    errors_TB: Tensor = -gains.mean((-2, -1))
    return errors_TB


def distances(first_TBHW: Tensor, second_TBHW: Tensor) -> Tensor:
    """Mean absolute difference over pixels, [T, B], in [0, 1] for normalised maps.

    The paper's "normalized L1 distance" does not say by what it is normalised; here by the number of pixels.
    """
    return (first_TBHW - second_TBHW).abs().mean((-2, -1))
