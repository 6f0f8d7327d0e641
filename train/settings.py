"""Settings that every trained stage shares: what is minimised, and how."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import cos, pi
from typing import Literal

from hardspike.attack.members import Member, parse_member
from hardspike.snn.augment import AUGMENTATIONS
from hardspike.snn.errors import SettingsError, unknown_name
from hardspike.snn.ranges import require
from hardspike.snn.surrogate import Activation, Surrogate, parse_surrogate

ObjectiveName = Literal["natural", "adversarial", "trades", "mart", "robust_kl", "hire"]
AttackLoss = Literal["own", "cross_entropy", "kl"]
AttackStart = Literal["own", "uniform", "gaussian"]
CRAFTING = {"fgsm", "rfgsm", "pgd", "noise"}
# What the papers use where a recipe says nothing: attack, its loss, where PGD starts.
OWN: dict[str, tuple[str, str, str]] = {
    "natural": ("pgd10", "cross_entropy", "uniform"),
    "hire": ("pgd10", "cross_entropy", "uniform"),
    "adversarial": ("pgd10", "cross_entropy", "uniform"),
    "trades": ("pgd10", "kl", "gaussian"),
    "mart": ("pgd10", "cross_entropy", "gaussian"),
    "robust_kl": ("rfgsm", "kl", "uniform"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings:
    """Fields of `train` and `convert` alike; `stage` of the messages is the class that inherits.

    objective: `natural`, cross entropy; `adversarial`, cross entropy on adversarial images; `trades`, `mart`; `robust_kl`,
        the loss of `trades` with RFGSM (arXiv 2311.09266 eq. 11); `hire`, crafted noise between periods of the timesteps.
    attack: how adversarial images are made (`fgsm`, `rfgsm`, `pgd10`, each with a surrogate after `/` if wanted); of several,
        one is drawn for each batch (SNN-RAT's mix). Empty: the objective's own. attack_loss, attack_start likewise.
    eps: budget. alpha_share: rfgsm's random step as a share of eps. beta: weight of the second loss of trades, mart, robust_kl.
    restarts: of pgd; each sample keeps its strongest image.
    surrogate: gradient of spikes in training, and of the attacks that name none.
    orthogonal: factor of SNN-RAT's retraction after every step (with it, trainable sums are kept on the simplex); 0 for none.
    sign_penalty: factor of SNN-RAT's alternative penalty. periods, hire_*: see `train.hire`.
    schedule: `cosine` to 0, or `steps`: times `decay` at each of `milestones` (epochs, or shares of them below 1).
    augment: see `snn.augment`. score_images: validation images that choose the best epoch, 0 for all.
    mixed_precision: `bfloat16` runs convolutions and dense layers so; membrane potentials stay in 32 bit.
    """

    objective: ObjectiveName = "natural"
    attack: tuple[str, ...] = ()
    attack_loss: AttackLoss = "own"
    attack_start: AttackStart = "own"
    restarts: int = 1
    eps: float = 0.1
    alpha_share: float = 0.5
    beta: float = 2.0
    surrogate: str = "triangular:1"
    orthogonal: float = 0.0
    sign_penalty: float = 0.0
    periods: int = 2
    hire_step: float = 0.0157
    hire_gradient: Literal["updated", "same"] = "updated"
    hire_carry_potential: bool = False
    hire_keep_noise: bool = False
    epochs: int = 30
    learning_rate: float = 0.1
    batch_size: int = 64
    optimiser: Literal["sgd", "adam"] = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Literal["cosine", "steps"] = "cosine"
    milestones: tuple[float, ...] = ()
    decay: float = 0.1
    augment: str = "none"
    score_images: int = 0
    mixed_precision: Literal["none", "bfloat16"] = "none"
    channels_last: bool = False

    @property
    def is_robust(self) -> bool:
        return self.objective != "natural"

    @property
    def score_eps(self) -> float:
        """Budget of the validation attack that chooses the best epoch; 0 for clean accuracy alone."""
        return self.eps if self.is_robust else 0.0

    def members(self) -> tuple[Member, ...]:
        """The attacks that make training images."""
        names = self.attack or (OWN[self.objective][0],)
        found = (parse_member(name, self.spike_gradient()) for name in names)
        return tuple(replace(member, alpha_share=self.alpha_share) for member in found)

    def spike_gradient(self) -> Surrogate:
        return parse_surrogate(self.surrogate)

    def crafting_loss(self) -> str:
        return OWN[self.objective][1] if self.attack_loss == "own" else self.attack_loss

    def crafting_start(self) -> str:
        return OWN[self.objective][2] if self.attack_start == "own" else self.attack_start

    def rate_factor(self, epoch: int) -> float:
        """Learning rate of an epoch (0 is the first) as a share of `learning_rate`."""
        if self.schedule == "cosine":
            return 0.5 * (1 + cos(pi * epoch / self.epochs))
        passed = [m for m in self.milestones if epoch >= (m * self.epochs if m < 1 else m)]
        return float(self.decay ** len(passed))


@contextmanager
def _naming(field: str) -> Iterator[None]:
    """Put the field in front of what is wrong with its text."""
    try:
        yield
    except SettingsError as error:
        raise SettingsError(f"{field}: {error}") from None


def check_fit(stage: str, settings: FitSettings, *, least_epochs: int = 1) -> None:
    """Raise SettingsError, naming `stage`, for a value out of range."""

    def check(field: str, holds: bool, allowed: str) -> None:
        require(f"{stage}.{field}", getattr(settings, field), holds, allowed)

    if settings.objective not in OWN:
        raise SettingsError(unknown_name(f"{stage}.objective", settings.objective, OWN))
    check("eps", 0 < settings.eps < 1, "use a value in (0, 1)")
    # At alpha = 0 the KL and its gradient are zero; at alpha = eps no step is left.
    check("alpha_share", 0 < settings.alpha_share < 1, "use a share of eps in (0, 1), e.g. 0.5")
    check("beta", settings.beta >= 0, "use 0 or more")
    check("restarts", settings.restarts >= 1, "use 1 or more")
    check("orthogonal", settings.orthogonal >= 0, "use 0 or more, 0.004 in SNN-RAT's re-implementations")
    check("sign_penalty", settings.sign_penalty >= 0, "use 0 or more")
    check("periods", settings.periods >= 1, "use 1 or more")
    check("hire_step", settings.hire_step > 0, "use a positive value")
    check("epochs", settings.epochs >= least_epochs, f"use {least_epochs} or more")
    check("learning_rate", settings.learning_rate > 0, "use a positive value")
    check("batch_size", settings.batch_size >= 2, "use 2 or more (batch norm needs a batch)")
    check("momentum", 0 <= settings.momentum < 1, "use a value in [0, 1)")
    check("weight_decay", settings.weight_decay >= 0, "use 0 or more")
    check("milestones", all(m > 0 for m in settings.milestones), "use epochs, or shares of them below 1")
    check("decay", 0 < settings.decay <= 1, "use a factor in (0, 1]")
    check("score_images", settings.score_images >= 0, "use 0 (all) or more")
    if settings.schedule == "steps" and not settings.milestones:
        raise SettingsError(f"{stage}.schedule = 'steps' needs {stage}.milestones, e.g. [0.5, 0.7, 0.9]")
    if settings.augment not in AUGMENTATIONS:
        raise SettingsError(unknown_name(f"{stage}.augment", settings.augment, AUGMENTATIONS))
    with _naming(f"{stage}.surrogate"):
        surrogate = settings.spike_gradient()
    spiking = not isinstance(surrogate, Activation)
    check(
        "surrogate", spiking, "it replaces the spikes themselves, which only an attack may (write it behind its name)"
    )
    with _naming(f"{stage}.attack"):
        members = settings.members()
    kinds = {member.kind for member in members}
    check("attack", kinds <= CRAFTING, f"training crafts with {', '.join(sorted(CRAFTING))}")
    for member in members:
        check("attack", member.kind != "noise", "noise is no training attack; use fgsm, rfgsm or pgd10")
    needs_start = settings.crafting_loss() == "kl" and any(m.kind == "fgsm" for m in members)
    check(
        "attack",
        not needs_start,
        "the KL and its gradient are zero at the clean image; use rfgsm or pgd10 with attack_loss kl",
    )
