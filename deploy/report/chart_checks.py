"""What a chart refuses when it is made: a drawing, a table and a JSON file must all be able to say the same."""

import math
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

from hardspike.snn.errors import SettingsError

NAME = re.compile(r"[a-z0-9_-]+")


def check_name(name: str) -> None:
    """Names become file names and ids."""
    if not NAME.fullmatch(name):
        raise SettingsError(f"chart name '{name}' is no name of a file; use a-z, 0-9, - and _")


def check_choice(where: str, found: str, allowed: Sequence[str]) -> None:
    if found not in allowed:
        raise SettingsError(f"{where} '{found}' is unknown; choose from {', '.join(allowed)}")


def check_values(where: str, values: Iterable[float | None], *, gaps: bool = True) -> None:
    """Finite numbers of Python; None where gaps are allowed."""
    for at, value in enumerate(values):
        if value is None and gaps:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            allowed = "a finite number or None" if gaps else "a finite number"
            raise SettingsError(f"{where}, value {at}: {value!r} is not {allowed}; leave out what does not exist")


def check_length(where: str, found: int, expected: int, of: str) -> None:
    if found != expected:
        raise SettingsError(f"{where}: {found} values for {expected} {of}; give one for each")


def check_interval(
    where: str, low: Sequence[float | None], high: Sequence[float | None], expected: int, of: str
) -> None:
    """Both ends or neither, the lower one not above the higher one."""
    for side, values in (("low", low), ("high", high)):
        check_values(f"{where}, {side}", values)
    if low or high:
        check_length(f"{where}, low", len(low), expected, of)
        check_length(f"{where}, high", len(high), expected, of)
    for at, (start, end) in enumerate(zip(low, high, strict=True)):
        if (start is None) != (end is None):
            raise SettingsError(f"{where}, interval {at}: one end is None; give both or neither")
        if start is not None and end is not None and start > end:
            raise SettingsError(f"{where}, interval {at}: low {start!r} is above high {end!r}; exchange them")


def check_rising(where: str, values: Sequence[float]) -> None:
    if any(second <= first for first, second in pairwise(values)):
        raise SettingsError(f"{where} do not rise; sort them and give each once")
