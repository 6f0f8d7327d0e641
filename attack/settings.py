"""Which attacks are run, on which of a run's networks, on how many test images."""

import re
import zlib
from dataclasses import dataclass
from typing import Literal

from hardspike.attack.ball import Norm
from hardspike.attack.members import KINDS, Member, require_norm
from hardspike.attack.suites import SUITES, parse_suite
from hardspike.snn.errors import SettingsError
from hardspike.snn.ranges import require

# `quantised` is the float network on the chip's integer grids, `deployed` the integer network itself.
TARGETS = ("ann", "snn", "quantised", "deployed")


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackSettings:
    """eps: budgets in units of [0, 1], of the `norm`. images: how many test images, from the first. seed: of all random numbers.

    suite: `fast`, `standard` or `strong`; members: attacks in order, in place of a suite's, each only on images that still
    stand. targets: the networks that are attacked white-box.
    tune_images: validation images on which adaptive surrogates choose their parameter; 0 leaves them the published one.
    """

    eps: tuple[float, ...] = (0.05, 0.1)
    images: int = 360
    norm: Norm = "linf"
    suite: Literal["fast", "standard", "strong"] = "fast"
    members: tuple[str, ...] = ()
    targets: tuple[str, ...] = TARGETS
    seed: int = 0
    tune_images: int = 128

    def __post_init__(self) -> None:
        in_range = all(e > 0 if self.norm == "l2" else 0 < e < 1 for e in self.eps)
        allowed = "give positive values" if self.norm == "l2" else "give values in (0, 1)"
        require("attack.eps", self.eps, bool(self.eps) and in_range, allowed)
        require("attack.eps", self.eps, len(set(self.eps)) == len(self.eps), "give each value once")
        require("attack.images", self.images, self.images >= 1, "use 1 or more")
        require("attack.tune_images", self.tune_images, self.tune_images >= 0, "use 0 (no tuning) or more")
        require("attack.suite", self.suite, self.suite in SUITES, f"choose from {', '.join(SUITES)}")
        require("attack.seed", self.seed, 0 <= self.seed < 2**31, "choose from 0 to 2147483647")
        known = set(self.targets) <= set(TARGETS) and len(set(self.targets)) == len(self.targets) > 0
        require("attack.targets", self.targets, known, f"choose from {', '.join(TARGETS)}")
        require_norm(self.parsed(), self.norm)
        unknown = set(self.sources()) - set(TARGETS)
        require("attack.members", self.members, not unknown, f"transfer from {', '.join(TARGETS)}, e.g. pgd20@ann")

    def sources(self) -> tuple[str, ...]:
        """Networks that members transfer from."""
        return tuple(dict.fromkeys(member.source for member in self.parsed() if member.source))

    def without_gradients(self) -> bool:
        """Whether every member attacks a model by its answers alone, or through another network."""
        return all(not KINDS[member.kind].white_box or bool(member.source) for member in self.parsed())

    def label(self) -> str:
        """Names an evaluation by what its sets depend on, apart from network and budget."""
        suite = f"members-{zlib.crc32(' '.join(self.members).encode()):08x}" if self.members else self.suite
        return f"{suite}-{self.norm}-n{self.images}-seed{self.seed}"

    def parsed(self) -> tuple[Member, ...]:
        return parse_suite(self.members or self.suite)


def budget(text: str) -> float:
    """A budget as people write it: `0.1`, `8/255`. Raises SettingsError for anything else."""
    number = r"\d+(?:\.\d+)?(?:e-?\d+)?"
    match = re.fullmatch(rf"({number})(?:/({number}))?", text.replace(" ", ""))
    if match is None or (match.group(2) and float(match.group(2)) == 0):
        raise SettingsError(f"eps = '{text}' is not allowed; write a number or a fraction, e.g. 0.1 or 8/255")
    return float(match.group(1)) / float(match.group(2) or 1)
