"""Signs that a robust accuracy should not be believed: masked gradients, randomness, attacks that were too weak.

After Athalye et al. 2018, Carlini et al. 2019, AutoAttack's flags, and what is particular to spiking networks. A check only
looks and says what it saw; what fired stands beside the result. docs/attacks.md explains each under its `anchor`.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hardspike.attack.check import Check
from hardspike.attack.evaluation import CLEAN_ERROR, SURVIVED, Attacker, Evaluation, run_members
from hardspike.attack.gradient import Logits, cross_entropy, gradient
from hardspike.attack.members import KINDS, Member, parse_member
from hardspike.snn.data import ImageSet
from hardspike.snn.parallel import Group
from hardspike.snn.surrogate import surrogate_gradient

ZERO_GRADIENT_LIMIT = 0.05
SATURATED_LIMIT = 0.05
POINTS = 0.02
ONE_SURROGATE_POINTS = 0.10
# One image is chance.
BLACK_BOX_POINTS = 0.01
# The probing attacks run on this many images at most.
PROBE_IMAGES = 64
NOISE_DRAWS = 10
SQUARE_QUERIES = 100


def zero_gradient_share(logits: Logits, data: ImageSet, members: Sequence[Member], batch_size: int = 128) -> float:
    """Share of images whose loss gradient is exactly zero in every pixel, under every member's surrogate."""
    surrogates = {member.surrogate for member in members}
    zero = None
    for surrogate in sorted(surrogates, key=repr):
        with surrogate_gradient(surrogate):
            parts: list[Tensor] = [
                (gradient(logits, images, cross_entropy(labels)) == 0).flatten(1).all(1)
                for images, labels in zip(data.images.split(batch_size), data.labels.split(batch_size), strict=True)
            ]
        flags = [part for batch in parts for part in batch.tolist()]
        zero = flags if zero is None else [a and b for a, b in zip(zero, flags, strict=True)]
    return float(sum(zero or [])) / len(data)


def probe(attacker: Attacker, made: Evaluation, members: Sequence[Member]) -> list[Check]:
    """All checks of one evaluation; the attacks among them run on the first images that the model gets right.

    made: the evaluation of all of the attacker's samples. members: those that made it.
    """
    right = (made.broken_by != CLEAN_ERROR).nonzero().flatten()[:PROBE_IMAGES]
    if not len(right):
        return [_stochastic(attacker.model, attacker.data)]
    data = attacker.data.select(right)
    white_box = [member for member in members if KINDS[member.kind].white_box and not member.source]
    checks = [_stochastic(attacker.model, data), _saturated(attacker.model, data)]
    if white_box:
        checks += _gradient_checks(
            attacker, data, white_box, float((made.broken_by[right] == SURVIVED).double().mean())
        )
        checks.append(_black_box(attacker, made, members))
    checks.append(_noise(attacker, made))
    return checks


def _stochastic(model: Logits, data: ImageSet) -> Check:
    images = data.images[:PROBE_IMAGES]
    with torch.no_grad():
        first, second = model(images), model(images)
    apart = float((first - second).abs().max())
    scale = float(first.abs().max().clamp(min=1e-12))
    return Check(
        name="outputs are random",
        fired=apart > 1e-4 * scale,
        detail=f"two passes over the same images differ by up to {apart:.2g} of {scale:.2g}",
        anchor="random-outputs",
    )


def _saturated(model: Logits, data: ImageSet) -> Check:
    with torch.no_grad():
        output = model(data.images)
    certain = float((cross_entropy(data.labels)(output) == 0).double().mean())
    shares = bool((output >= 0).all()) and bool(torch.allclose(output.sum(1), torch.ones_like(output[:, 0]), atol=1e-4))
    said = "; outputs look like probabilities, give logits" if shares else ""
    return Check(
        name="logits are saturated",
        fired=certain > SATURATED_LIMIT or shares,
        detail=f"{certain:.3f} of the right answers have a cross entropy of exactly 0{said}",
        anchor="saturated-logits",
    )


def _gradient_checks(attacker: Attacker, data: ImageSet, white_box: Sequence[Member], suite: float) -> list[Check]:
    eps, iterative = attacker.eps, [parse_member("pgd20")]
    vanished = zero_gradient_share(attacker.model, data, white_box)
    one_step, many_steps = _robust(attacker, data, eps, [parse_member("fgsm")]), _robust(attacker, data, eps, iterative)
    twice = _robust(attacker, data, _doubled(attacker), iterative)
    unbounded = _robust(attacker, data, _everything(attacker), white_box[:8])
    return [
        Check(
            name="gradients vanish",
            fired=vanished > ZERO_GRADIENT_LIMIT,
            detail=f"{vanished:.3f} of the images have a zero gradient under every surrogate",
            anchor="vanishing-gradients",
        ),
        Check(
            name="iterative attack weaker than a single step",
            fired=many_steps > one_step + POINTS,
            detail=f"PGD-20 {many_steps:.3f}, FGSM {one_step:.3f}",
            anchor="iterative-weaker-than-single-step",
        ),
        Check(
            name="a larger budget does not lower accuracy",
            fired=twice > many_steps,
            detail=f"PGD-20 at eps {eps:.4g}: {many_steps:.3f}, at {_doubled(attacker):.4g}: {twice:.3f}",
            anchor="larger-budget-not-stronger",
        ),
        Check(
            name="an unbounded attack does not reach 0",
            fired=unbounded > 0,
            detail=f"robust accuracy {unbounded:.3f} at eps {_everything(attacker):.4g}",
            anchor="unbounded-attack",
        ),
        Check(
            name="one surrogate alone is far from the suite",
            fired=many_steps > suite + ONE_SURROGATE_POINTS,
            detail=f"PGD-20 with the training surrogate {many_steps:.3f}, the suite {suite:.3f}",
            anchor="one-surrogate-alone",
        ),
    ]


def _black_box(attacker: Attacker, made: Evaluation, members: Sequence[Member]) -> Check:
    """Samples that only a member without gradients of the model broke."""
    indices = [i for i, member in enumerate(members) if not KINDS[member.kind].white_box or member.source]
    extra = sum(int((made.broken_by == index).sum()) for index in indices)
    what = "black-box and transfer members"
    if not indices:
        standing = (made.broken_by == SURVIVED).nonzero().flatten()[:PROBE_IMAGES]
        what = f"Square with {SQUARE_QUERIES} queries"
        if len(standing):
            robust = _robust(
                attacker, attacker.data.select(standing), attacker.eps, [parse_member(f"square{SQUARE_QUERIES}")]
            )
            extra = round((1 - robust) * len(standing))
    return Check(
        name="black box or transfer stronger than white box",
        fired=extra > max(1, BLACK_BOX_POINTS * len(made)),
        detail=f"{what} broke {extra} of {len(made)} that white-box members had left",
        anchor="black-box-stronger",
    )


def _noise(attacker: Attacker, made: Evaluation) -> Check:
    standing = (made.broken_by == SURVIVED).nonzero().flatten()
    found = 0
    if len(standing):
        control = [parse_member(f"noise+restarts={NOISE_DRAWS}")]
        robust = _robust(attacker, attacker.data.select(standing), attacker.eps, control)
        found = round((1 - robust) * len(standing))
    return Check(
        name="noise finds adversarial images",
        fired=found > max(1, BLACK_BOX_POINTS * len(made)),
        detail=f"{NOISE_DRAWS} draws of noise broke {found} of {len(made)} that the suite had left",
        anchor="noise-finds-adversarials",
    )


def _robust(attacker: Attacker, data: ImageSet, eps: float, members: Sequence[Member]) -> float:
    """Robust accuracy on other data, with another budget, by this process alone."""
    other = replace(attacker, data=data, eps=eps, progress=None, group=Group())
    *_, made = run_members(other, members)
    return made.robust_accuracy


def _doubled(attacker: Attacker) -> float:
    return min(2 * attacker.eps, _everything(attacker))


def _everything(attacker: Attacker) -> float:
    """A budget that reaches every image of [0, 1]."""
    return 1.0 if attacker.norm == "linf" else float(attacker.data.images[0].numel()) ** 0.5
