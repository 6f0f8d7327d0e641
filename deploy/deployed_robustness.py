"""Deployed robust accuracy: the integer network under everything that was made for it or for any network it came from.

An image counts only if the integer network gets it right clean, under its own white-box (and black-box) attacks, and under the
images made on the ANN, on the float SNN and on its fake-quantised form, brought to the input's grid inside the ball. Robustness
that only rounding gives, because it hides gradients, does not survive this; and where the deployed network still looks more
robust than the float one, the result says that it should not be believed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from hardspike.attack.check import Check
from hardspike.attack.evaluation import SURVIVED, Evaluation
from hardspike.deploy.replay import Replayed

# Above so many points, a deployed network that looks more robust than the float one is suspect.
POINTS = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class DeployedRobustness:
    """At one budget, on the first N images that all sets have. standing: bool [N], right under everything.

    own: bool [N], right under the attacks made on the integer network itself; None where it was not attacked.
    replayed: per network that was attacked, what the integer network (and the float SNN) made of its images.
    """

    eps: float
    standing: Tensor
    own: Tensor | None
    replayed: tuple[Replayed, ...]

    @property
    def robust_accuracy(self) -> float:
        return float(self.standing.double().mean())

    def disagreements(self) -> dict[str, tuple[int, int]]:
        """Per attacked network: images that break only the float SNN, and images that break only the integer network."""
        return {
            one.origin.made_on: (
                int((one.right_deployed & ~one.right_snn).sum()),
                int((one.right_snn & ~one.right_deployed).sum()),
            )
            for one in self.replayed
        }


def deployed_robustness(replayed: Sequence[Replayed], own: Evaluation | None, eps: float) -> DeployedRobustness:
    """replayed: the clean set, and those attacks of budget `eps` that count; own: the evaluation of the integer network."""
    clean = next(one for one in replayed if one.origin.kind == "clean")
    attacks = tuple(one for one in replayed if one.origin.kind == "attack" and one.origin.eps == eps)
    count = min(len(one.right_deployed) for one in (clean, *attacks))
    standing = clean.right_deployed[:count].clone()
    for one in attacks:
        standing &= one.right_deployed[:count]
    survived = None if own is None else (own.broken_by == SURVIVED)[:count]
    if survived is not None:
        standing &= survived
    return DeployedRobustness(eps, standing, survived, attacks)


def across_networks(
    found: Sequence[DeployedRobustness], floats: dict[float, Evaluation], noise: dict[float, float]
) -> list[Check]:
    """Checks that need more than one network or budget; none for budgets at which the integer network was not attacked.

    floats: evaluations of the float SNN by budget. noise: accuracy of the integer network under random noise by budget.
    """
    checks = []
    attacked = sorted((one for one in found if one.own is not None), key=lambda one: one.eps)
    for one in attacked:
        assert one.own is not None
        own, at = float(one.own.double().mean()), f"at eps {one.eps:g}"
        if one.eps in noise:
            checks.append(
                Check(
                    name=f"noise beats the attack {at}",
                    fired=noise[one.eps] < own,
                    detail=f"noise {noise[one.eps]:.3f}, attack {own:.3f}",
                    anchor="noise-finds-adversarials",
                )
            )
        others = [float(r.right_deployed.double().mean()) for r in one.replayed if r.origin.made_on != "deployed"]
        if others:
            checks.append(
                Check(
                    name=f"transfer beats white-box {at}",
                    fired=min(others) < own,
                    detail=f"transferred {min(others):.3f}, white-box {own:.3f}",
                    anchor="black-box-stronger",
                )
            )
        if one.eps in floats:
            float_robust = floats[one.eps].robust_accuracy
            checks.append(
                Check(
                    name=f"deployed looks more robust than float {at}",
                    fired=one.robust_accuracy > float_robust + POINTS,
                    detail=f"deployed {one.robust_accuracy:.3f} under all sets, float SNN {float_robust:.3f}",
                    anchor="deployed-more-robust-than-float",
                )
            )
    if len(attacked) > 1:
        robust = [float(one.own.double().mean()) for one in attacked if one.own is not None]
        checks.append(
            Check(
                name="a larger budget does not lower accuracy",
                fired=any(later > earlier for earlier, later in pairwise(robust)),
                detail=", ".join(f"{value:.3f}" for value in robust),
                anchor="larger-budget-not-stronger",
            )
        )
    return checks
