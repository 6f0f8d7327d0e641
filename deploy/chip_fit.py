"""Whether a compiled network fits a chip, and if not, everything that stands in its way: its integers, its messages, its cores.

A network that does not fit for its integers or messages alone still has a placement: what it would take, for comparison.
"""

from dataclasses import dataclass, replace

from hardspike.deploy.placement import Placement, place
from hardspike.deploy.process_graph import ProcessGraph
from hardspike.hw_profiles.profile import Profile
from hardspike.snn.errors import DoesNotFitError, SettingsError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChipFit:
    """fits: None where the profile does not say how its cores are filled. reasons: why it does not fit, a line each.

    placement: None where the cores do not hold it; otherwise as if what the reasons name were no obstacle.
    """

    fits: bool | None
    reasons: tuple[str, ...]
    placement: Placement | None


def fit_chip(graph: ProcessGraph, profile: Profile) -> ChipFit:
    """Check the integers against the profile's arithmetic, where it gives one, then place the graph. A misfit is no error here."""
    reasons = _integer_reasons(graph, profile)
    apart = profile.integers is None  # otherwise messages are among the integers
    try:
        return ChipFit(fits=not reasons, reasons=reasons, placement=place(graph, profile, check_messages=apart))
    except SettingsError as missing:  # no rule
        return ChipFit(fits=None, reasons=(*reasons, str(missing)), placement=None)
    except DoesNotFitError as refused:
        reasons = (*reasons, str(refused))
    if not apart:
        return ChipFit(fits=False, reasons=reasons, placement=None)
    try:
        return ChipFit(fits=False, reasons=reasons, placement=place(graph, profile, check_messages=False))
    except DoesNotFitError as refused:
        return ChipFit(fits=False, reasons=tuple(dict.fromkeys((*reasons, str(refused)))), placement=None)


def _integer_reasons(graph: ProcessGraph, profile: Profile) -> tuple[str, ...]:
    """A graph checks itself against its arithmetic; it names the first fault, so the messages' is taken out to see the next."""
    if profile.integers is None:
        return ()
    bits = max(profile.integers.message_bits_max, graph.input.message_bits, 2)
    found = []
    for numerics in (profile.integers, replace(profile.integers, message_bits_max=bits)):
        try:
            replace(graph, numerics=numerics, profile=profile.name)
            break
        except DoesNotFitError as refused:
            found.append(str(refused))
    return tuple(dict.fromkeys(found))
