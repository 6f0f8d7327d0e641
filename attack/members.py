"""Named attacks, as they stand in suites, recipes and on the command line.

    NAME[STEPS][+OPTION[=VALUE]]...[@SOURCE][/SURROGATE]

e.g. `fgsm`, `pgd20/triangular:0.5`, `pgd20+restarts=5`, `sa-pgd100/assg`, `apgd-dlr100`, `square5000`, `pgd20@ann`.
"""

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from torch import Tensor

from hardspike.attack.apgd import apgd, apgd_targeted
from hardspike.attack.ball import Norm
from hardspike.attack.decision import boundary_attack
from hardspike.attack.fab import fab_targeted
from hardspike.attack.gradient import cross_entropy, logits_ratio
from hardspike.attack.greedy import greedy
from hardspike.attack.pgd import LossOfLabels, fgsm, pgd, rfgsm
from hardspike.attack.problem import Problem
from hardspike.attack.sa_pgd import sa_pgd
from hardspike.attack.square import square
from hardspike.snn.errors import SettingsError, unknown_name
from hardspike.snn.surrogate import (
    BackwardRate,
    Exponential,
    Rectangular,
    Surrogate,
    TimeAveraged,
    Triangular,
    parse_surrogate,
)

# PGD's step size is 2.5 * eps / steps, RFGSM's random step eps / 4 in evaluations (arXiv 2311.09266 and its code).
STEP_RATIO = 2.5
RFGSM_SHARE = 0.25
# What `greedy` chooses from: of each shape the width that is strongest on converted networks, and the rate.
GREEDY = (Triangular(0.5), Exponential(1.0, 2.0), Rectangular(1.0), BackwardRate())


@dataclass(frozen=True, slots=True)
class Kind:
    """steps: whether the name takes a number of steps (or queries). norms: what it can do."""

    steps: bool
    norms: tuple[Norm, ...]
    options: tuple[str, ...] = ()
    white_box: bool = True


BOTH: tuple[Norm, ...] = ("linf", "l2")
GRADIENT_OPTIONS = ("eot", "attached", "detached")
KINDS: dict[str, Kind] = {
    "fgsm": Kind(False, BOTH, GRADIENT_OPTIONS),
    "rfgsm": Kind(False, BOTH, (*GRADIENT_OPTIONS, "alpha", "restarts")),
    "pgd": Kind(True, BOTH, (*GRADIENT_OPTIONS, "step", "restarts", "last")),
    "sa-pgd": Kind(True, ("linf",), (*GRADIENT_OPTIONS, "restarts")),
    "apgd-ce": Kind(True, BOTH, (*GRADIENT_OPTIONS, "restarts")),
    "apgd-dlr": Kind(True, BOTH, (*GRADIENT_OPTIONS, "restarts")),
    "apgd-t": Kind(True, BOTH, (*GRADIENT_OPTIONS, "targets")),
    "fab-t": Kind(True, BOTH, ("attached", "detached", "targets", "restarts")),
    "greedy": Kind(True, BOTH, (*GRADIENT_OPTIONS, "restarts")),
    "mixpgd": Kind(True, BOTH, (*GRADIENT_OPTIONS, "restarts")),
    "square": Kind(True, BOTH, ("restarts",), white_box=False),
    "hop-skip-jump": Kind(True, BOTH, (), white_box=False),
    "noise": Kind(False, BOTH, ("restarts",), white_box=False),
}


@dataclass(frozen=True, slots=True)
class Member:
    """One attack of a suite.

    name: as written. steps: gradient steps or queries. alpha_share: rfgsm's random step as a share of eps, in (0, 1).
    step_size: of pgd, in units of [0, 1]; None for 2.5 eps / steps. passes: see `Problem`. detach_reset: see `Problem`.
    last: the last iterate counts, not any (as in arXiv 2311.09266). source: name of another model the images are made on.
    """

    name: str
    kind: str
    steps: int
    surrogate: Surrogate
    alpha_share: float = RFGSM_SHARE
    step_size: float | None = None
    restarts: int = 1
    targets: int = 9
    passes: int = 1
    detach_reset: bool | None = None
    last: bool = False
    source: str = ""

    def perturb(self, problem: Problem, *, loss: LossOfLabels | None = None, start: Tensor | None = None) -> Tensor:
        """Adversarial images of the problem's ball, whether or not they fool the model.

        loss: cross entropy where not given (of attacks that take one). start: where pgd starts, in place of a random image.
        """
        if KINDS[self.kind].white_box:
            problem = replace(
                problem, surrogate=self.surrogate, detach_reset=self.detach_reset, passes=self.passes
            ).fresh()
        # An image for another model must not stop at the border of its source.
        early = not (self.last or self.source) and start is None and loss is None
        found = self._attempt(problem, loss or cross_entropy, start, early, first=True)
        for restart in range(1, self.restarts):
            standing = ~problem.fools(found)
            if not bool(standing.any()):
                break
            rest = problem.take(standing).fresh()
            rest = replace(rest, draws=rest.draws.restarted(restart))
            again = self._attempt(rest, loss or cross_entropy, start, early, first=False)
            better = rest.fools(again)
            found[standing.nonzero().flatten()[better]] = again[better]
        return found

    def _attempt(
        self, problem: Problem, loss: LossOfLabels, start: Tensor | None, early: bool, *, first: bool
    ) -> Tensor:
        ball = problem.ball
        step_size = STEP_RATIO * ball.eps / self.steps if self.step_size is None else self.step_size

        def scattered() -> Tensor:
            return ball.scattered(problem.draws.uniform(0, ball.clean)) if start is None else start

        match self.kind:
            case "fgsm":
                return fgsm(problem, loss)
            case "rfgsm":
                noise = 2 * problem.draws.uniform(0, ball.clean) - 1
                return rfgsm(problem, loss, alpha=self.alpha_share * ball.eps, noise=noise)
            case "pgd":
                return pgd(problem, loss, steps=self.steps, step_size=step_size, start=scattered(), stop_early=early)
            case "sa-pgd":
                uniform = problem.draws.uniform(0, ball.clean)
                return sa_pgd(problem, loss, steps=self.steps, uniform=uniform, stop_early=early)
            case "apgd-ce":
                return apgd(problem, cross_entropy, steps=self.steps, stop_early=early)
            case "apgd-dlr":
                return apgd(problem, logits_ratio, steps=self.steps, stop_early=early)
            case "apgd-t":
                return apgd_targeted(problem, steps=self.steps, targets=self.targets)
            case "fab-t":
                return fab_targeted(problem, steps=self.steps, targets=self.targets, random_start=not first)
            case "greedy":
                choices = (self.surrogate, *(s for s in GREEDY if s != self.surrogate))
                return greedy(
                    problem, loss, surrogates=choices, steps=self.steps, step_size=step_size, start=scattered()
                )
            case "mixpgd":
                both = (self.surrogate, TimeAveraged())
                return pgd(problem, loss, steps=self.steps, step_size=step_size, start=scattered(), surrogates=both)
            case "square":
                return square(problem, queries=self.steps)
            case "hop-skip-jump":
                return boundary_attack(problem, queries=self.steps)
            case _:
                return ball.corner(problem.draws.uniform(0, ball.clean))


def parse_member(text: str, default: Surrogate = Triangular(1.0)) -> Member:  # noqa: B008 - frozen
    """Read a member's name. default: the surrogate where the name has none.

    Raises SettingsError for an unknown attack, option or surrogate, and for a number that is missing or out of range.
    """
    attack, surrogate = split_name(text)
    attack, _, source = attack.partition("@")
    attack, *options = attack.split("+")
    kind, steps = _kind_and_steps(attack)
    member = Member(
        name=text,
        kind=kind,
        steps=steps,
        surrogate=parse_surrogate(surrogate) if surrogate else default,
        source=source,
    )
    for option in options:
        member = replace(member, **_option(text, kind, option))
    return member


def split_name(text: str) -> tuple[str, str]:
    """A member's name as (attack with its options, surrogate or ''); the slash of `step=2/255` separates nothing."""
    match = re.fullmatch(r"((?:[^/]|(?<=\d)/(?=\d))*)(?:/(.*))?", text)
    return (match.group(1), match.group(2) or "") if match is not None else (text, "")


def _kind_and_steps(attack: str) -> tuple[str, int]:
    match = re.fullmatch(r"(.*?)(\d*)", attack)
    assert match is not None
    kind, number = match.groups()
    examples = [f"{name}{_EXAMPLE.get(name, 20)}" if KINDS[name].steps else name for name in KINDS]
    if kind not in KINDS:
        raise SettingsError(unknown_name("attack", attack, examples))
    if KINDS[kind].steps != bool(number) or number.strip("0") == "" != number:
        takes = "takes its number of steps, 1 or more" if KINDS[kind].steps else "takes no number"
        raise SettingsError(f"attack '{attack}': {kind} {takes}; write e.g. {examples[list(KINDS).index(kind)]}")
    return kind, int(number or 1)


_EXAMPLE = {"square": 1000, "hop-skip-jump": 1000, "apgd-ce": 100, "sa-pgd": 100}


def _option(text: str, kind: str, option: str) -> dict[str, Any]:
    """Fields of Member that `key=value` or `key` sets."""
    key, _, value = option.partition("=")
    allowed = KINDS[kind].options
    if key not in allowed:
        raise SettingsError(unknown_name(f"attack '{text}': option", key, allowed))
    match key:
        case "attached" | "detached":
            return {"detach_reset": key == "detached"}
        case "last":
            return {"last": True}
        case "step":
            return {"step_size": _number(text, key, value)}
        case "alpha":
            share = _number(text, key, value)
            if share >= 1:
                raise SettingsError(f"attack '{text}': alpha = {value} is not allowed; it is a share of eps in (0, 1)")
            return {"alpha_share": share}
        case _:
            if not re.fullmatch(r"[1-9]\d*", value):
                raise SettingsError(f"attack '{text}': {key} = '{value}' is not allowed; write a number, e.g. {key}=5")
            return {"passes" if key == "eot" else key: int(value)}


def _number(text: str, key: str, value: str) -> float:
    try:
        number = float(Fraction(value))
    except (ValueError, ZeroDivisionError):
        number = -1.0
    if not number > 0:
        raise SettingsError(
            f"attack '{text}': {key} = '{value}' is not allowed; write a positive number, e.g. {key}=2/255"
        )
    return number


def require_norm(members: tuple[Member, ...], norm: Norm) -> None:
    """Raise SettingsError for a member that cannot attack under `norm`."""
    for member in members:
        if norm not in KINDS[member.kind].norms:
            raise SettingsError(f"attack '{member.name}' has no form for norm = '{norm}'; leave it out or use linf")
