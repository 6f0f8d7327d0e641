"""The kinds of images that an analysis shows a network: clean, noise of the same size, attacked, and attacked for energy."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hardspike import results
from hardspike.analyses.subject import Subject
from hardspike.attack.ball import Ball
from hardspike.attack.evaluation import member_seed
from hardspike.attack.problem import SampleDraws
from hardspike.deploy.replay import on_grid_inside_ball

OWN_ATTACK = "pgd7"
CLEAN, NOISE, ATTACK, ENERGY = "clean", "noise", "attack", "energy"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LookedAt:
    """Images (M, C, H, W) made from the first M test images. kind: a tone of the charts. member: what made them, in words."""

    kind: str
    images: Tensor
    member: str = ""


def noise_images(subject: Subject) -> Tensor:
    """Each pixel of the test images moved by +eps or -eps: the control of an attack. As stage `replay` draws it."""
    data = subject.test
    draws = SampleDraws(member_seed(subject.options.seed, "noise"), torch.arange(len(data)))
    return on_the_grid(subject, Ball.around(data.images, subject.eps).corner(draws.uniform(0, data.images)))


def on_the_grid(subject: Subject, images: Tensor) -> Tensor:
    """What the deployed network's sensor could have sent, inside the budget; unchanged where nothing is deployed."""
    if not subject.has_deployed:
        return images
    clean = subject.test.images[: len(images)]
    return on_grid_inside_ball(images, clean, subject.eps, subject.graph.input.image_bits)


def attacked_images(subject: Subject, target: str) -> LookedAt:
    """Of `OWN_ATTACK` on `target`, at full strength, successful or not.

    Not the run's own adversarial set: that is the worst case of several attacks, and an image that none of them broke may be clean.
    """
    return LookedAt(kind=ATTACK, images=subject.attacked(OWN_ATTACK, target), member=OWN_ATTACK)


def energy_images(subject: Subject) -> LookedAt | None:
    """The images of `hardspike energy` (class kept) at this budget, else at the largest it was run at.

    None where it was not run, or on the network as it was deployed before.
    """
    found = results.energy_images(subject.folder)
    if not found:
        return None
    own = float(f"{subject.eps:.6g}")
    eps = own if own in found else max(found)
    images = found[eps][: len(subject.test)]
    return LookedAt(kind=ENERGY, images=images, member=f"energy attack, class kept, eps {eps:.4g}")
