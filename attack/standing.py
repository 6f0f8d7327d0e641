"""Tries on the samples that still stand, one after the other: what attacks with a try per target class have in common."""

from collections.abc import Callable, Iterable

from torch import Tensor

from hardspike.attack.problem import Problem

# Of the samples it is given: their images, and which of them fool the model.
Found = tuple[Tensor, Tensor]
# Takes the problem of the standing samples and their clean logits.
Try = Callable[[Problem, Tensor], Found]


def in_turn(problem: Problem, tries: Iterable[Try]) -> Tensor:
    """Images of the first try that fools each sample, float (B, C, H, W); the clean image where none does.

    Samples whose clean image is in a wrong class already are not tried. Every try begins afresh.
    """
    images = problem.clean.clone()
    if not len(problem):
        return images
    clean_logits = problem.judged(images)
    standing = (clean_logits.argmax(1) == problem.labels).nonzero()[:, 0]
    for attempt in tries:
        if not len(standing):
            break
        found, fooled = attempt(problem.take(standing).fresh(), clean_logits[standing])
        images[standing[fooled]] = found[fooled]
        standing = standing[~fooled]
    return images


def other_classes(logits: Tensor, labels: Tensor) -> Tensor:
    """All classes but the label by falling logit, int64 (B, K - 1): where the label leads, the classes ranked second and on."""
    ranked = logits.argsort(dim=1, descending=True, stable=True)
    return ranked[ranked != labels[:, None]].view(len(logits), -1)
