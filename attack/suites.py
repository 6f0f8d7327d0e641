"""Lists of attacks by name: `fast` for development, `standard` and `strong` for results."""

import re
from collections.abc import Sequence
from dataclasses import replace

from hardspike.attack.members import Member, parse_member, split_name
from hardspike.snn.errors import SettingsError, unknown_name
from hardspike.snn.surrogate import Surrogate, Triangular

# The surrogate ensemble of arXiv 2311.09266, in the order of its code and Table B2.
SURROGATES = (
    "triangular:1",
    "triangular:2",
    "triangular:3",
    "triangular:0.5",
    "triangular:0.25",
    "exponential:0.3,0.5",
    "exponential:0.3,1",
    "exponential:0.3,2",
    "exponential:1,0.5",
    "exponential:1,1",
    "exponential:1,2",
    "rectangular:0.25",
    "rectangular:0.5",
    "rectangular:1",
    "rectangular:2",
    "rectangular:4",
    "straight-through",
    "backward-rate",
    "relu",
)


# Those that break most alone on validation images first (docs/results/strong_suite.md): the others then have less to do.
STRONGEST = (
    "exponential:1,2",
    "triangular:1",
    "exponential:0.3,2",
    "rectangular:1",
    "backward-rate",
    "exponential:0.3,1",
    "triangular:2",
    "rectangular:2",
)


def ensemble(attack: str) -> tuple[str, ...]:
    """`attack` with each of the 19 surrogates, e.g. of pgd20, the stronger ones first."""
    ordered = (*STRONGEST, *(surrogate for surrogate in SURROGATES if surrogate not in STRONGEST))
    return tuple(f"{attack}/{surrogate}" for surrogate in ordered)


# Measured on our networks (docs/results/strong_suite.md): the reset's part of the gradient misleads, adaptive sharpness helps.
FAST = (
    "fgsm",
    "pgd20/exponential:1,2",
    "pgd20+detached/triangular:0.5",
    "apgd-ce50+detached/assg:0.425",
)
STANDARD = (*ensemble("fgsm"), *ensemble("pgd20"), "square1000")
# The cheapest list within 0.5 points of the worst case of 53 candidates, chosen on validation images of three networks.
STRONG = (
    "apgd-ce100+detached/assg",
    "sa-pgd100+detached/assg",
    "apgd-dlr100+detached/assg",
    "apgd-ce100/triangular:0.5",
    "apgd-ce100/exponential:1,2",
    "sa-pgd100/triangular:0.5",
    "apgd-t20/assg",
)
SUITES: dict[str, tuple[str, ...]] = {"fast": FAST, "standard": STANDARD, "strong": STRONG}


def parse_suite(suite: str | Sequence[str], default: Surrogate = Triangular(1.0)) -> tuple[Member, ...]:  # noqa: B008 - frozen
    """The members of a named suite, or of a list of names. Raises SettingsError for an unknown or empty one."""
    if isinstance(suite, str):
        if suite not in SUITES:
            raise SettingsError(unknown_name("suite", suite, SUITES))
        suite = SUITES[suite]
    if not suite:
        raise SettingsError("attack: the list of members is empty; name at least one, e.g. pgd20")
    return tuple(parse_member(name, default) for name in suite)


def distinct(members: Sequence[Member]) -> tuple[Member, ...]:
    """One member of each attack that differs in more than its surrogate: what is left for a model without spikes."""
    plain = Triangular(1.0)
    kept: dict[Member, Member] = {}
    for member in members:
        name = re.sub(r"\+(at|de)tached", "", split_name(member.name)[0])
        bare = replace(member, name=name, surrogate=plain, detach_reset=None)
        kept.setdefault(bare, bare)
    return tuple(kept.values())
