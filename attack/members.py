"""Named attacks: what is computed (FGSM, RFGSM, PGD, noise) and with which surrogate gradient.

A member is written `fgsm`, `rfgsm`, `pgd20`, optionally with a surrogate: `pgd20/triangular:0.5`, `fgsm/straight-through`.
"""

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from hardspike.attack.gradient import Logits, cross_entropy, fgsm, pgd, project, rfgsm
from hardspike.snn.errors import SettingsError, unknown_name
from hardspike.snn.surrogate import Surrogate, Triangular, parse_surrogate, surrogate_gradient

STEP_RATIO = 2.5  # PGD's step size is 2.5 * eps / steps, RFGSM's random step eps / 4 (arXiv 2311.09266 and its code)


@dataclass(frozen=True, slots=True)
class Member:
    """One attack of a suite. kind: fgsm, rfgsm, pgd or noise; steps: of pgd."""

    name: str
    kind: str
    steps: int
    surrogate: Surrogate

    def perturb(self, logits: Logits, clean: Tensor, labels: Tensor, noise: Tensor, eps: float) -> Tensor:
        """Adversarial images within eps of `clean`. noise: uniform in [0, 1), the shape of `clean`; the only randomness."""
        loss = cross_entropy(labels)
        signed = 2 * noise - 1
        with surrogate_gradient(self.surrogate):
            match self.kind:
                case "fgsm":
                    return fgsm(logits, clean, loss, eps=eps)
                case "rfgsm":
                    return rfgsm(logits, clean, loss, eps=eps, alpha=eps / 4, noise=signed)
                case "pgd":
                    start = clean + eps * signed
                    return pgd(
                        logits,
                        clean,
                        loss,
                        eps=eps,
                        steps=self.steps,
                        step_size=STEP_RATIO * eps / self.steps,
                        start=start,
                    )
                case _:
                    return project(clean + eps * signed.sign(), clean, eps)


def parse_member(text: str) -> Member:
    """Read a member's name. Raises SettingsError for an unknown attack, a bad step count or a bad surrogate."""
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
        surrogate=parse_surrogate(surrogate) if surrogate else Triangular(1.0),
    )


def uniform_noise(shape: torch.Size, seed: int) -> Tensor:
    """Uniform in [0, 1), float32: drawn for all samples at once, so that batches and early leavers change nothing."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))
