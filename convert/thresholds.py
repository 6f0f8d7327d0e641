"""Firing thresholds from data: a percentile of each neuron layer's input current, layer after layer.

Source: arXiv 2311.09266 Alg. 1 and its code (RobustSNNConversion). Earlier layers spike with their found, unscaled
thresholds; batch norm uses the statistics of the current batch.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hardspike.snn.errors import SettingsError
from hardspike.snn.network import SpikingNetwork


def percentile(values: Tensor, percent: float) -> Tensor:
    """The k-th smallest value, k = 1 + round(percent / 100 * (n - 1)), without interpolation."""
    count = values.numel()
    return values.flatten().kthvalue(1 + round(0.01 * percent * (count - 1))).values


@contextmanager
def batch_statistics(network: SpikingNetwork) -> Iterator[None]:
    """Batch norm without running statistics, neither used nor changed; everything else as in evaluation mode."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    kept = [(norm.running_mean, norm.running_var) for norm in norms]
    for norm in norms:
        norm.running_mean = norm.running_var = None
    try:
        yield
    finally:
        for norm, (mean, variance) in zip(norms, kept, strict=True):
            norm.running_mean, norm.running_var = mean, variance


def find_thresholds(
    network: SpikingNetwork, batches: Sequence[Tensor], *, percent: float = 99.7, steps: int = 100
) -> dict[str, float]:
    """Set each layer's threshold to the largest percentile over `batches`; returns them by layer name.

    Args:
        network: changed in place: thresholds; its number of timesteps is left as it was.
        batches: float images (B, C, H, W) in [0, 1].
        percent: in (0, 100].
        steps: timesteps T_c to run while measuring.

    Raises:
        SettingsError: percent or steps out of range, no batches, or a layer whose percentile is not positive.
    """
    if not 0 < percent <= 100 or steps < 1 or not batches:
        raise SettingsError(
            f"thresholds: percent = {percent}, steps = {steps}, {len(batches)} batches are not allowed; use (0, 100], >= 1, >= 1"
        )
    before = network.time_steps
    network.eval()
    network.set_time_steps(steps)
    found: dict[str, float] = {}
    try:
        with torch.no_grad(), batch_statistics(network):
            for neuron in network.neurons().values():
                neuron.threshold.fill_(1.0)
            for name, neuron in network.neurons().items():
                highest = max(float(percentile(network.input_current(batch, name), percent)) for batch in batches)
                if not highest > 0:
                    raise SettingsError(
                        f"thresholds: the {percent} percentile of layer '{name}' is {highest:g}, not positive; train the ANN first"
                    )
                neuron.threshold.fill_(highest)
                found[name] = highest
    finally:
        network.set_time_steps(before)
    return found
