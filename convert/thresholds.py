"""Firing thresholds from data: a percentile of each neuron layer's input current, layer after layer.

Earlier layers spike with their found, unscaled thresholds; batch norm uses the statistics of the current batch.

- robust conversion (arXiv 2311.09266 Alg. 1 and its code): the percentile over all steps, samples and neurons;
- max balancing (Sengupta et al. 2019, ECCV 2020; code find_threshold of hybrid conversion): the largest value, `percent` 100;
- DIET-SNN: the percentile of each step, then the largest over steps (`per_step`).
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from hardspike.snn.errors import SettingsError
from hardspike.snn.network import SpikingNetwork
from hardspike.snn.norms import NORMS


def percentile(values: Tensor, percent: float, repeats: int = 1) -> Tensor:
    """The k-th smallest value, k = 1 + round(percent / 100 * (n - 1)), without interpolation.

    repeats: `values` stands for that many copies of itself (n counts them all).
    """
    position = 1 + round(0.01 * percent * (values.numel() * repeats - 1))
    return values.flatten().kthvalue(-(-position // repeats)).values


@contextmanager
def batch_statistics(network: SpikingNetwork) -> Iterator[None]:
    """Batch norm without running statistics, neither used nor changed; everything else as in evaluation mode."""
    norms = [module for module in network.modules() if isinstance(module, NORMS)]
    kept = [(norm.running_mean, norm.running_var) for norm in norms]
    for norm in norms:
        norm.running_mean = norm.running_var = None
    try:
        yield
    finally:
        for norm, (mean, variance) in zip(norms, kept, strict=True):
            norm.running_mean, norm.running_var = mean, variance


def _over_all_steps(network: SpikingNetwork, batch: Tensor, name: str, percent: float, steps: int) -> float:
    network.set_time_steps(steps)
    current_TB = network.input_current(batch, name)
    if steps > 1 and current_TB.stride(0) == 0:  # the same at every step
        return float(percentile(current_TB[0], percent, steps))
    return float(percentile(current_TB, percent))


def _largest_step(network: SpikingNetwork, batch: Tensor, name: str, percent: float, steps: int) -> float:
    """Largest over steps of each step's percentile; one step in memory at a time."""
    network.set_time_steps(1)
    found = float("-inf")
    with network.carrying():
        for _ in range(steps):
            found = max(found, float(percentile(network.input_current(batch, name), percent)))
    return found


def find_thresholds(
    network: SpikingNetwork,
    batches: Sequence[Tensor],
    *,
    percent: float = 99.7,
    steps: int = 100,
    per_step: bool = False,
    layers: int | None = None,
    shared_maximum: bool = False,
    leak: float | None = None,
) -> dict[str, float]:
    """Set each layer's threshold to the largest percentile over `batches`; returns them by layer name.

    Args:
        network: changed in place: thresholds; its number of timesteps is left as it was.
        batches: float images (B, C, H, W) in [0, 1].
        percent: in (0, 100]; at 100 the largest value.
        steps: timesteps T_c to run while measuring.
        per_step: the percentile of each step, see the module. At 100 percent it is the same number with less memory.
        layers: only the first so many are balanced, the others keep 1 (ResNet20 of ECCV 2020); None for all.
        shared_maximum: reproduce a slip of the code of arXiv 2311.09266: the second neurons of a residual block are measured
            on the second half of `batches`, and their maximum also takes in the first neurons' values there, save on the last.
        leak: of the neurons while measuring (1 in hybrid conversion, whatever they have later); None for their own.

    Raises:
        SettingsError: percent or steps out of range, no batches, or a layer whose percentile is not positive.
    """
    if not 0 < percent <= 100 or steps < 1 or not batches:
        raise SettingsError(
            f"thresholds: percent = {percent}, steps = {steps}, {len(batches)} batches are not allowed; use (0, 100], >= 1, >= 1"
        )
    if shared_maximum and len(batches) < 2:
        raise SettingsError("thresholds: shared_maximum measures second neurons on the later batches; give 2 or more")
    before = network.time_steps
    measure = _largest_step if per_step or percent == 100 else _over_all_steps
    network.eval()
    found: dict[str, float] = {}
    leaks = [float(neuron.leak.detach()) for neuron in network.neurons().values()]
    try:
        with torch.no_grad(), batch_statistics(network):
            for neuron in network.neurons().values():
                if leak is not None:
                    neuron.leak.fill_(leak)
            for neuron in network.neurons().values():
                neuron.threshold.fill_(1.0)
            for name, neuron in list(network.neurons().items())[:layers]:
                highest = max(
                    measure(network, batch, measured, percent, steps)
                    for measured, part in _measurements(name, network, batches, shared_maximum)
                    for batch in part
                )
                if not highest > 0:
                    raise SettingsError(
                        f"thresholds: the {percent} percentile of layer '{name}' is {highest:g}, not positive; train the ANN first"
                    )
                neuron.threshold.fill_(highest)
                found[name] = highest
    finally:
        network.set_time_steps(before)
        for neuron, own in zip(network.neurons().values(), leaks, strict=True):
            neuron.leak.data.fill_(own)
    return found


def _measurements(
    name: str, network: SpikingNetwork, batches: Sequence[Tensor], shared_maximum: bool
) -> list[tuple[str, Sequence[Tensor]]]:
    """Which layers' currents, on which batches, make up the threshold of `name`."""
    if not shared_maximum:
        return [(name, batches)]
    half = (len(batches) + 1) // 2
    first = re.sub(r"_spike2$", "_spike1", name)
    if first == name or first not in network.neurons():
        return [(name, batches[:half])]
    return [(name, batches[half:]), (first, batches[half:-1])]
