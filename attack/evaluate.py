"""Worst-case robust accuracy: per sample, the network must survive every member of a named list.

The judge is not the contestant: budget, range and success are recomputed here from the images an attack returns.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hardspike.attack.gradient import Logits
from hardspike.attack.members import Member, uniform_noise
from hardspike.snn.data import ImageSet
from hardspike.snn.errors import SettingsError

SURVIVED = -1
CLEAN_ERROR = -2
# float32 rounding of clean + eps, not a wider budget.
ROUNDING = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """images: per sample the first that fooled the network, else the last tried; clean errors stay clean.

    broken_by: index into `members`, or SURVIVED, or CLEAN_ERROR.
    """

    members: tuple[str, ...]
    eps: float
    seed: int
    images: Tensor
    broken_by: Tensor

    @property
    def clean_accuracy(self) -> float:
        return float((self.broken_by != CLEAN_ERROR).double().mean())

    @property
    def robust_accuracy(self) -> float:
        return float((self.broken_by == SURVIVED).double().mean())

    def accuracy_after(self) -> dict[str, float]:
        """Robust accuracy after each member, in order: it can only fall."""
        standing = self.broken_by != CLEAN_ERROR
        result = {}
        for index, name in enumerate(self.members):
            standing = standing & (self.broken_by != index)
            result[name] = float(standing.double().mean())
        return result


def predict(logits: Logits, images: Tensor, batch_size: int = 256) -> Tensor:
    """Class per image, int64."""
    with torch.no_grad():
        return torch.cat([logits(batch).argmax(1) for batch in images.split(batch_size)])


def accuracy(logits: Logits, data: ImageSet, batch_size: int = 256) -> float:
    return float((predict(logits, data.images, batch_size) == data.labels).double().mean())


def evaluate(
    logits: Logits,
    data: ImageSet,
    members: Sequence[Member],
    *,
    eps: float,
    seed: int = 0,
    batch_size: int = 128,
    progress: Callable[[int, float], None] | None = None,
) -> Evaluation:
    """Run the members one after the other, each only on samples that still stand.

    Args:
        logits: images in [0, 1] to logits, in evaluation mode.
        eps: L-infinity budget in (0, 1).
        seed: of the random starts; member k uses seed + k.
        progress: called with (samples done, robust accuracy so far).

    Raises:
        SettingsError: eps out of range or no members.
        AssertionError: an attack left its budget or [0, 1], a defect of ours.
    """
    if not 0 < eps < 1:
        raise SettingsError(f"attack: eps = {eps} is not allowed; choose a value in (0, 1), e.g. 0.1 or 8/255")
    if not members:
        raise SettingsError("attack: the list of members is empty; name at least one, e.g. pgd20")
    originals = data.images
    images = originals.clone()
    broken_by = torch.full((len(data),), SURVIVED)
    broken_by[predict(logits, originals) != data.labels] = CLEAN_ERROR
    for index, member in enumerate(members):
        noise = uniform_noise(originals.shape, seed + index).to(originals.dtype)
        standing = (broken_by == SURVIVED).nonzero().flatten()
        if progress is not None:
            progress(len(data) - len(standing), len(standing) / len(data))
        for batch in standing.split(batch_size) if len(standing) else ():  # split makes one empty batch of nothing
            clean, labels = originals[batch], data.labels[batch]
            attacked = member.perturb(logits, clean, labels, noise[batch], eps).detach()
            check_budget(attacked, clean, eps)
            images[batch] = attacked
            fooled = predict(logits, attacked) != labels
            broken_by[batch[fooled]] = index
            if progress is not None:
                progress(len(batch), float((broken_by == SURVIVED).double().mean()))
    return Evaluation(tuple(member.name for member in members), eps, seed, images, broken_by)


def check_budget(attacked: Tensor, clean: Tensor, eps: float) -> None:
    """Assert that no pixel moved further than eps or left [0, 1]."""
    moved = float((attacked - clean).abs().max()) if len(clean) else 0.0
    assert moved <= eps + ROUNDING, f"an attack moved a pixel by {moved}, its budget is {eps}"
    assert bool(((attacked >= 0) & (attacked <= 1)).all()), "an attack left [0, 1]"
