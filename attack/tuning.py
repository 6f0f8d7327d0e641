"""Parameters of adaptive surrogates, chosen on validation images: never on those that are evaluated.

A member whose surrogate is written without its parameter (`sa-pgd100/assg`, `pgd20/hart`) is tuned: the sharpness of `assg` by
ternary search as its authors do (arXiv 2512.22522: in [0.35, 0.49], 8 rounds), the width of `hart` over its authors' grid.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from hardspike.attack.evaluation import CLEAN_ERROR, Attacker, Evaluation, run_members
from hardspike.attack.gradient import margin
from hardspike.attack.members import Member, parse_member, split_name
from hardspike.snn.data import ImageSet
from hardspike.snn.parallel import Group

SHARPNESS_RANGE, SHARPNESS_ROUNDS = (0.35, 0.49), 8
# HART's own grid has steps of 0.05 from 0.10 to 2.45.
WIDTHS = tuple(round(float(width), 2) for width in np.arange(0.1, 2.46, 0.15))
# The search attacks for at most so many steps: it compares parameters, it does not measure robustness.
SEARCH_STEPS = 20
SEARCHING = ("fgsm", "rfgsm", "pgd", "sa-pgd", "apgd-ce", "apgd-dlr")
TUNABLE = ("assg", "assg-triangular", "assg-rectangular", "assg-gaussian", "assg-sigmoid", "hart")


def tuned(members: Sequence[Member], attacker: Attacker, validation: ImageSet) -> tuple[Member, ...]:
    """The members with the parameter that does most harm on `validation` written into their surrogates."""
    search = replace(attacker, data=validation, progress=None, group=Group())
    found: dict[str, str] = {}
    result = []
    for member in members:
        attack, surrogate = split_name(member.name)
        if surrogate not in TUNABLE:
            result.append(member)
            continue
        if surrogate not in found:
            found[surrogate] = _best(surrogate, member, search)
        result.append(parse_member(f"{attack}/{found[surrogate]}"))
    return tuple(result)


def _best(surrogate: str, member: Member, search: Attacker) -> str:
    def harm(value: float) -> tuple[float, float]:
        return _harm(parse_member(f"{_short(member)}/{surrogate}:{value:.4g}"), search)

    best = max(WIDTHS, key=harm) if surrogate == "hart" else ternary_search(harm, SHARPNESS_RANGE, SHARPNESS_ROUNDS)
    return f"{surrogate}:{best:.4g}"


def ternary_search(score: Callable[[float], tuple[float, float]], interval: tuple[float, float], rounds: int) -> float:
    """The best point seen while the interval shrinks by a third per round towards the better of its two inner points."""
    low, high = interval
    best, best_score = low, (-float("inf"), -float("inf"))
    for _ in range(rounds):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        scores = score(left), score(right)
        for point, found in zip((left, right), scores, strict=True):
            if found > best_score:
                best, best_score = point, found
        low, high = (left, high) if scores[1] > scores[0] else (low, right)
    return best


def _short(member: Member) -> str:
    """The member's attack, or APGD where that takes several at once, with the steps of a search and its own reset gradient."""
    attack, _ = split_name(member.name)
    resets = [option for option in attack.split("@")[0].split("+")[1:] if option in ("attached", "detached")]
    kind = member.kind if member.kind in SEARCHING else "apgd-ce"
    steps = "" if kind in ("fgsm", "rfgsm") else str(max(min(member.steps, SEARCH_STEPS), 1))
    return "+".join([f"{kind}{steps}", *resets])


def _harm(member: Member, search: Attacker) -> tuple[float, float]:
    """Share of samples broken; among equals the mean margin reached, which moves where few samples do."""
    made: Evaluation
    *_, made = run_members(search, [member])
    right = made.broken_by != CLEAN_ERROR
    if not bool(right.any()):
        return 0.0, 0.0
    images, labels = made.images[right], search.data.labels[right]
    reached = [
        margin(search.model(part), own).detach()
        for part, own in zip(images.split(search.batch_size), labels.split(search.batch_size), strict=True)
    ]
    return 1 - made.robust_accuracy, float(sum(part.clamp(max=0).sum() for part in reached)) / len(images)
