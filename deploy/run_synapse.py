"""One synapse of a graph as a library call. A kernel made of equal blocks (a folded pool) is a block sum, then a small kernel."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardspike.deploy.block_kernels import split_block_kernel
from hardspike.deploy.process_graph import ConvSynapse, Synapse
from hardspike.snn.architecture import Shape

# Integers below it are exact in float32, and so are sums whose partial sums stay below it.
FLOAT32_EXACT = 1 << 24


class RunSynapse(nn.Module):
    """Sum over a synapse's inputs of weight * message. weight: the integers times `factor`, in `dtype`."""

    weight: Tensor

    def __init__(self, synapse: Synapse, source: Shape, dtype: torch.dtype, factor: int = 1) -> None:
        super().__init__()
        self.synapse = synapse
        self.block = (1, 1)
        weight, self.stride, self.padding = synapse.weight, (1, 1), (0, 0)
        if isinstance(synapse, ConvSynapse):
            self.block, weight, self.stride, self.padding = split_block_kernel(synapse, source)
        self.register_buffer("weight", torch.from_numpy(weight).to(dtype) * factor, persistent=False)

    def unsplit(self, factor: int = 1) -> None:
        """Run the whole kernel, though it is made of blocks; factor: as when made."""
        if isinstance(self.synapse, ConvSynapse):
            self.block, self.stride, self.padding = (1, 1), self.synapse.stride, self.synapse.padding
            self.weight = torch.from_numpy(self.synapse.weight).to(self.weight.dtype) * factor

    def forward(self, messages: Tensor) -> Tensor:
        """messages: [N, *source shape] of any dtype; the sums [N, *target shape] are in the weights' dtype."""
        return self.respond(messages.to(self.weight.dtype), self.weight)

    def respond(self, messages: Tensor, weight: Tensor) -> Tensor:
        """The same with other values for the weights, in their shape and the messages' dtype."""
        if not isinstance(self.synapse, ConvSynapse):
            return F.linear(messages.flatten(1), weight)
        if self.block != (1, 1):
            messages = F.avg_pool2d(messages, self.block, divisor_override=1)
        return F.conv2d(messages, weight, None, self.stride, self.padding, self.synapse.dilation, self.synapse.groups)
