"""Which attacks are run, on which of a run's networks, on how many test images."""

from dataclasses import dataclass

from hardspike.attack.members import Member, parse_member
from hardspike.snn.ranges import require

TARGETS = ("ann", "snn", "deployed")
# The stronger surrogates first: what they break costs the later ones nothing.
DEFAULT_MEMBERS = (
    "fgsm",
    "rfgsm",
    "pgd20/exponential:1,2",
    "pgd20/rectangular:1",
    "pgd20/triangular:0.5",
    "pgd20/triangular:1",
    "pgd20/straight-through",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackSettings:
    """eps: L-infinity budgets in units of [0, 1]. images: how many test images, from the first. seed: of the random starts.

    members: attacks in order, each only on the images that still stand. targets: the networks that are attacked white-box.
    """

    eps: tuple[float, ...] = (0.05, 0.1)
    images: int = 360
    members: tuple[str, ...] = DEFAULT_MEMBERS
    targets: tuple[str, ...] = TARGETS
    seed: int = 0

    def __post_init__(self) -> None:
        require("attack.eps", self.eps, bool(self.eps) and all(0 < e < 1 for e in self.eps), "give values in (0, 1)")
        require("attack.eps", self.eps, len(set(self.eps)) == len(self.eps), "give each value once")
        require("attack.images", self.images, self.images >= 1, "use 1 or more")
        require("attack.members", self.members, bool(self.members), "name at least one attack, e.g. pgd20")
        known = set(self.targets) <= set(TARGETS) and len(set(self.targets)) == len(self.targets) > 0
        require("attack.targets", self.targets, known, f"choose from {', '.join(TARGETS)}")
        self.parsed()

    def parsed(self) -> tuple[Member, ...]:
        return tuple(parse_member(name) for name in self.members)

    def members_for(self, target: str) -> tuple[Member, ...]:
        """All of them; for the ANN, which has no spikes, those that differ in more than their surrogate."""
        if target != "ann":
            return self.parsed()
        distinct = {
            (member.kind, member.steps): parse_member(member.name.partition("/")[0]) for member in self.parsed()
        }
        return tuple(distinct.values())
