"""Named attacks: what is computed (FGSM, RFGSM, PGD, noise) and with which surrogate gradient.

A member is written `fgsm`, `rfgsm`, `pgd20`, optionally with a surrogate: `pgd20/triangular:0.5`, `fgsm/straight-through`.
"""

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from hardspike.attack.gradient import Logits, Loss, cross_entropy, fgsm, pgd, project, rfgsm
from hardspike.snn.errors import SettingsError, unknown_name
from hardspike.snn.surrogate import Surrogate, Triangular, parse_surrogate, surrogate_gradient

# PGD's step size is 2.5 * eps / steps, RFGSM's random step eps / 4 in evaluations (arXiv 2311.09266 and its code).
STEP_RATIO = 2.5
RFGSM_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Member:
    """One attack of a suite. kind: fgsm, rfgsm, pgd or noise; steps: of pgd.

    alpha_share: rfgsm's random step as a share of eps, in (0, 1).
    """

    name: str
    kind: str
    steps: int
    surrogate: Surrogate
    alpha_share: float = RFGSM_SHARE

    def perturb(
        self,
        logits: Logits,
        clean: Tensor,
        labels: Tensor,
        noise: Tensor,
        eps: float,
        *,
        loss: Loss | None = None,
        start: Tensor | None = None,
    ) -> Tensor:
        """Adversarial images within eps of `clean`.

        noise: uniform in [0, 1), the shape of `clean`; the only randomness. loss: cross entropy where not given.
        start: where pgd starts, in place of a uniformly random image of the ball.
        """
        loss = cross_entropy(labels) if loss is None else loss
        signed = 2 * noise - 1
        with surrogate_gradient(self.surrogate):
            match self.kind:
                case "fgsm":
                    return fgsm(logits, clean, loss, eps=eps)
                case "rfgsm":
                    return rfgsm(logits, clean, loss, eps=eps, alpha=self.alpha_share * eps, noise=signed)
                case "pgd":
                    return pgd(
                        logits,
                        clean,
                        loss,
                        eps=eps,
                        steps=self.steps,
                        step_size=STEP_RATIO * eps / self.steps,
                        start=clean + eps * signed if start is None else start,
                    )
                case _:
                    return project(clean + eps * signed.sign(), clean, eps)


def parse_member(text: str, default: Surrogate = Triangular(1.0)) -> Member:  # noqa: B008 - frozen
    """Read a member's name. Raises SettingsError for an unknown attack, a bad step count or a bad surrogate.

    default: the surrogate where the name has none.
    """
    attack, _, surrogate = text.partition("/")
    match = re.fullmatch(r"(fgsm|rfgsm|noise)|pgd(\d+)", attack)
    if match is None or match.group(2) == "0":
        raise SettingsError(
            unknown_name("attack", attack, ("fgsm", "rfgsm", "pgd20", "noise")) + "; pgd takes its number of steps"
        )
    return Member(
        name=text,
        kind=match.group(1) or "pgd",
        steps=int(match.group(2) or 1),
        surrogate=parse_surrogate(surrogate) if surrogate else default,
    )


def uniform_noise(shape: torch.Size, seed: int) -> Tensor:
    """Uniform in [0, 1), float32: drawn for all samples at once, so that batches and early leavers change nothing."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))
