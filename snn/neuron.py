"""A neuron layer: spikes from input currents, by the fused kernel where it applies, else in plain torch operations."""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardspike.snn.adaptive_surrogate import AdaptiveSharpness, LayerSharpness
from hardspike.snn.errors import DataError
from hardspike.snn.membrane import MultiStep, NeuronSettings
from hardspike.snn.surrogate import Pointwise, detaches_reset, surrogate_of

Pool = tuple[int, int]
_multi_step: Callable[..., tuple[Tensor, Tensor]] = MultiStep.apply
_fused_allowed: ContextVar[bool] = ContextVar("fused_allowed", default=True)


@contextmanager
def plain_torch() -> Iterator[None]:
    """Inside the block no neuron uses the fused kernel: same spikes, slower (the reference, and for tests)."""
    token = _fused_allowed.set(False)
    try:
        yield
    finally:
        _fused_allowed.reset(token)


def fire(
    current_TB: Tensor,
    threshold: Tensor,
    settings: NeuronSettings,
    *,
    leak: Tensor | None = None,
    steps: int | None = None,
    pool: Pool = (1, 1),
    layer: Hashable = None,
) -> Tensor:
    """Spikes of one neuron layer, or their average over windows.

    Args:
        current_TB: float input current, shape [T, B, ...], or [1, B, ...] for the same current at each of `steps` steps.
        threshold: float scalar tensor, one for the layer.
        settings: leak, reset, order, see there.
        leak: scalar tensor in place of `settings.leak`, where it trains.
        pool: average spikes of shape (C, H, W) over non-overlapping windows; rows and columns that fill none are dropped.
        layer: tells this layer from others, for a surrogate that keeps a state of each (`SharpnessRun`).

    Returns:
        Spikes 0.0 or 1.0 (their means where pooled), [T, B, ...], in the dtype of `current_TB`; their gradient uses the
        surrogate active now.
    """
    steps = len(current_TB) if steps is None else steps
    if len(current_TB) not in (1, steps):
        raise DataError(
            f"neuron: {len(current_TB)} steps of input current do not fit {steps} timesteps; give 1 or {steps}"
        )
    leak = threshold.new_tensor(settings.leak) if leak is None else leak
    settings, surrogate = _differentiated(settings), surrogate_of(layer)
    if (
        _fused_allowed.get()
        and current_TB.device.type == "cpu"
        and isinstance(surrogate, Pointwise | AdaptiveSharpness | LayerSharpness)
    ):
        from hardspike.snn import fused_neuron  # numba takes a second to import

        layout = fused_neuron.fusable(current_TB, pool)
        if layout is not None:
            kernel: Callable[..., Tensor] = fused_neuron.FusedMultiStep.apply
            return kernel(current_TB, threshold, leak, steps, settings, surrogate, pool, layout)
    spikes_TB, _ = _multi_step(current_TB, threshold, leak, None, steps, settings, surrogate)
    if pool == (1, 1):
        return spikes_TB
    pooled_TB: Tensor = F.avg_pool2d(spikes_TB.flatten(0, 1), pool).unflatten(0, spikes_TB.shape[:2])
    return pooled_TB


def _differentiated(settings: NeuronSettings) -> NeuronSettings:
    """The settings with what the active `surrogate_gradient` block says of the reset."""
    detach_reset = detaches_reset(settings.detach_reset)
    return settings if detach_reset == settings.detach_reset else replace(settings, detach_reset=detach_reset)


def rate(current: Tensor, threshold: Tensor, levels: int, offset: float) -> Tensor:
    """clip(floor(levels * current / threshold + offset) / levels, 0, 1), the floor straight-through.

    What an IF neuron with soft reset and initial potential offset * threshold fires per step in `levels` steps under constant
    current (QCFS, ICLR 2022, eq. 10).
    """
    share = (current / threshold).clamp(0, 1)
    stepped = (torch.floor(current / threshold * levels + offset) / levels).clamp(0, 1)
    return share + (stepped - share).detach()


class Neuron(nn.Module):
    """A neuron layer with one scalar threshold and leak: an activation as an ANN, spikes as an SNN.

    Threshold and leak are parameters; they train only after `requires_grad_(True)`. A training threshold is kept at or above
    `settings.threshold_floor` by a clamp at every forward pass (as the authors' code does).
    """

    def __init__(self, settings: NeuronSettings, threshold: float = 1.0) -> None:
        super().__init__()
        self.settings = settings
        self.threshold = nn.Parameter(torch.tensor(float(threshold)), requires_grad=False)
        self.leak = nn.Parameter(torch.tensor(float(settings.leak)), requires_grad=False)
        self.carried: Tensor | None = None  # potential left by the last forward pass, see SpikingNetwork.carrying

    def forward(self, current_TB: Tensor, steps: int, pool: Pool = (1, 1)) -> Tensor:
        """Spikes [T, B, ...]; see `fire`."""
        self._keep_above_floor()
        return fire(current_TB, self.threshold, self.settings, leak=self.leak, steps=steps, pool=pool, layer=self)

    def continued(self, current_TB: Tensor, steps: int) -> Tensor:
        """The same, starting from the potential the last such call left behind (no gradient runs into it)."""
        self._keep_above_floor()
        settings, surrogate = _differentiated(self.settings), surrogate_of(self)
        arguments = (current_TB, self.threshold, self.leak, self.carried, steps, settings, surrogate)
        spikes_TB, self.carried = _multi_step(*arguments)
        return spikes_TB

    def activate(self, current: Tensor) -> Tensor:
        """The ANN form: ReLU, or threshold * rate with `settings.levels` levels (QCFS)."""
        if self.settings.activation == "relu":
            return F.relu(current)
        self._keep_above_floor()
        return self.threshold * rate(current, self.threshold, self.settings.levels, 0.5)

    def _keep_above_floor(self) -> None:
        # Only when needed: an in-place write would invalidate the graph of an earlier forward pass of the same batch.
        if self.threshold.requires_grad and float(self.threshold.detach()) < self.settings.threshold_floor:
            with torch.no_grad():
                self.threshold.clamp_(min=self.settings.threshold_floor)
