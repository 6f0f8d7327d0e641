"""Batch norm with parameters and statistics of its own at each timestep (BNTT, Kim & Panda 2021)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardspike.snn.errors import SettingsError

MOMENTUM = 0.1


class BatchNormPerStep(nn.Module):
    """gamma_t (x - mean_t) / sqrt(var_t + eps) (+ beta_t); every tensor has shape (steps, channels)."""

    running_mean: Tensor | None
    running_var: Tensor | None

    def __init__(self, channels: int, steps: int, eps: float, shift: bool) -> None:
        super().__init__()
        self.steps, self.eps = steps, eps
        self.weight = nn.Parameter(torch.ones(steps, channels))
        self.bias = nn.Parameter(torch.zeros(steps, channels)) if shift else None
        self.register_buffer("running_mean", torch.zeros(steps, channels))
        self.register_buffer("running_var", torch.ones(steps, channels))

    def reset_running_stats(self) -> None:
        assert self.running_mean is not None and self.running_var is not None
        self.running_mean.zero_()
        self.running_var.fill_(1)

    def forward(self, merged: Tensor) -> Tensor:
        """merged: [T * B, C, ...], time-major. Raises SettingsError for another number of timesteps."""
        if len(merged) % self.steps:
            raise SettingsError(f"batch norm per step: made for {self.steps} timesteps; run the network with these")
        out = []
        for t, current in enumerate(merged.unflatten(0, (self.steps, -1))):
            mean = None if self.running_mean is None else self.running_mean[t]
            variance = None if self.running_var is None else self.running_var[t]
            bias = None if self.bias is None else self.bias[t]
            training = self.training or mean is None
            out.append(F.batch_norm(current, mean, variance, self.weight[t], bias, training, MOMENTUM, self.eps))
        return torch.cat(out)


NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, BatchNormPerStep)
"""Every module that keeps running statistics."""
