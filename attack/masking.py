"""Signs of gradient masking: results that should not be believed (Athalye et al. 2018; AutoAttack's flags).

Each check looks at numbers only; what fired is shown beside the result, never hidden.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from hardspike.attack.gradient import Logits, cross_entropy, gradient
from hardspike.attack.members import Member
from hardspike.snn.data import ImageSet
from hardspike.snn.surrogate import surrogate_gradient

ZERO_GRADIENT_LIMIT = 0.05
POINTS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """fired: the result is suspect. detail: the numbers it looked at."""

    name: str
    fired: bool
    detail: str


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


def masking_checks(
    *,
    robust: dict[float, float],
    noise: dict[float, float],
    transferred: dict[float, float],
    float_robust: dict[float, float],
    zero_gradients: float,
) -> list[Check]:
    """Checks on one deployed network. All arguments but the last: accuracy by eps.

    robust: under its own white-box attacks. noise: under random noise. transferred: lowest under attacks made on other
    networks. float_robust: the float SNN under its own white-box attacks.
    """
    checks = []
    for eps in sorted(robust):
        checks.append(
            Check(
                name=f"noise beats the attack at eps {eps:g}",
                fired=noise[eps] < robust[eps],
                detail=f"noise {noise[eps]:.3f}, attack {robust[eps]:.3f}",
            )
        )
        if eps in transferred:
            checks.append(
                Check(
                    name=f"transfer beats white-box at eps {eps:g}",
                    fired=transferred[eps] < robust[eps],
                    detail=f"transferred {transferred[eps]:.3f}, white-box {robust[eps]:.3f}",
                )
            )
        if eps in float_robust:
            checks.append(
                Check(
                    name=f"deployed looks more robust than float at eps {eps:g}",
                    fired=robust[eps] > float_robust[eps] + POINTS,
                    detail=f"deployed {robust[eps]:.3f}, float SNN {float_robust[eps]:.3f}",
                )
            )
    ordered = [robust[eps] for eps in sorted(robust)]
    checks.append(
        Check(
            name="a larger budget does not lower accuracy",
            fired=any(later > earlier for earlier, later in pairwise(ordered)),
            detail=", ".join(f"{value:.3f}" for value in ordered),
        )
    )
    checks.append(
        Check(
            name="gradients vanish",
            fired=zero_gradients > ZERO_GRADIENT_LIMIT,
            detail=f"{zero_gradients:.3f} of the images have a zero gradient under every surrogate",
        )
    )
    return checks
