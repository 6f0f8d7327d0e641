"""The regularisation of SNN-RAT (Ding et al. 2022): weights are pulled towards orthonormal rows after every optimiser step."""

import torch
from torch import Tensor, nn

from hardspike.snn.network import ScalarWeights, SpikingNetwork

LARGE_LAYER = 200  # rows; of a dense layer this large only a share is moved at each step
SHARE = 0.3


def retract_weight(weight: Tensor, factor: float) -> None:
    """W <- (1 + b) W - b W W^T W in place, W the weight as (rows, everything else); b = `factor` (a Parseval step)."""
    rows = weight.flatten(1)
    weight.copy_(((1 + factor) * rows - factor * (rows @ rows.T @ rows)).view_as(weight))


def project_on_simplex(values: Tensor) -> None:
    """Nearest vector with entries >= 0 that sum to 1, in place; values of shape (n,)."""
    ordered = values.sort(descending=True).values
    sums = ordered.cumsum(0)
    counts = torch.arange(1, len(values) + 1, dtype=values.dtype, device=values.device)
    support = (1 + counts * ordered > sums).long().cumprod(0).sum()  # the scan stops at the first failure
    values.sub_((sums[support - 1] - 1) / support).clamp_(min=0)


@torch.no_grad()
def retract(network: SpikingNetwork, factor: float, generator: torch.Generator) -> None:
    """One step on every convolution and dense weight, and the scalars of trainable sums back onto the simplex.

    Of a dense layer with `LARGE_LAYER` rows or more, a random 30 % of the rows is moved, as a matrix of its own.
    """
    for module in network.layers.values():
        if isinstance(module, nn.Conv2d):
            retract_weight(module.weight, factor)
        elif isinstance(module, nn.Linear):
            count = len(module.weight)
            if count < LARGE_LAYER:
                retract_weight(module.weight, factor)
            else:
                rows = torch.randperm(count, generator=generator)[: int(SHARE * count)].to(module.weight.device)
                part = module.weight[rows]
                retract_weight(part, factor)
                module.weight[rows] = part
        elif isinstance(module, ScalarWeights) and module.weight.requires_grad:
            project_on_simplex(module.weight)


def sign_penalty(network: SpikingNetwork) -> Tensor:
    """Sum over layers of the largest row sum of positive weights and of the largest of negative ones (SNN-RAT's alternative)."""
    weights = [m.weight.flatten(1) for m in network.layers.values() if isinstance(m, nn.Conv2d | nn.Linear)]
    return torch.stack([w.relu().sum(1).max() + (-w).relu().sum(1).max() for w in weights]).sum()
