"""Several processes that work on parts of one batch or one set, started by `torchrun`.

In training, gradients are averaged with the weight of each part, so the step is that of one process with the whole batch. (Each process
keeps the batch-norm statistics of its own part, as PyTorch's DistributedDataParallel does; the leader's running statistics
are saved.) Only the leader, rank 0, writes files.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from hardspike.snn.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Group:
    """rank: of this process. size: number of processes, 1 without torchrun."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def rows(self, batch: int) -> slice:
        """This process's rows of a batch. Raises SettingsError where a process would have fewer than two."""
        if self.size > 1 and batch < 2 * self.size:
            raise SettingsError(
                f"batch of {batch} on {self.size} processes: each needs two images or more; use a larger batch_size or fewer processes"
            )
        return self.part(batch)

    def part(self, count: int) -> slice:
        """This process's part of a set, in order; it may be empty."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def average(self, parameters: Iterable[Tensor], share: float) -> None:
        """Replace each gradient by the sum over processes of gradient * share; share: this part's size over the batch's."""
        if self.size == 1:
            return
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.mul_(share)
                distributed.all_reduce(parameter.grad)

    def joined(self, part: Tensor, count: int) -> Tensor:
        """The whole set from the parts that `part` gives each process: every process gets all `count` rows."""
        if self.size == 1:
            return part
        whole = torch.zeros((count, *part.shape[1:]), dtype=part.dtype)
        whole[self.part(count)] = part.cpu()
        distributed.all_reduce(whole)
        return whole

    def total(self, value: float) -> float:
        """Sum over processes."""
        if self.size == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64)
        distributed.all_reduce(tensor)
        return float(tensor)

    def same_everywhere(self, tensors: Iterable[Tensor]) -> None:
        """Every process takes the leader's values."""
        if self.size > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, 0)

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            distributed.barrier()


def current_group() -> Group:
    """The group that torchrun's environment variables describe, joined on first use; one process without them."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Group()
    if not distributed.is_initialized():
        distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    return Group(distributed.get_rank(), distributed.get_world_size())
