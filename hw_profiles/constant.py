"""One number about a chip, with where it comes from and how far it can be trusted; and the rule its entry must follow."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from hardspike.snn.errors import unknown_name

Value = float | int | str | tuple[int, ...] | tuple[str, ...]

# measured on silicon; simulated (SPICE, SDF); fit: regression on measurements; structural: how the chip is built; quoted by
# its maker; derived from other numbers by arithmetic that the source tells.
KINDS = ("measured", "simulated", "fit", "structural", "quoted", "derived")
# A read in the source itself, B quoted by several, C quoted by one, U unconfirmed or sources that differ.
TRUSTS = ("A", "B", "C", "U")
# Whether the true value is at least, about, at most or exactly this one.
BOUNDS = ("min", "typ", "max", "exact")

LARGEST_NUMBER = 1e15


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """One number about a chip; see `KINDS`, `TRUSTS` and `BOUNDS`."""

    value: float
    unit: str
    source: str
    trust: str
    kind: str
    bound: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A constant of any type as a profile's file has it: numbers, lists of whole numbers, words."""

    value: Value
    unit: str
    source: str
    trust: str
    kind: str
    bound: str

    @property
    def number(self) -> Constant:
        """The same of a rule whose form is `number`."""
        assert isinstance(self.value, float | int)
        return Constant(**{item.name: getattr(self, item.name) for item in fields(self)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What the value of a key may be.

    low, high: of a number, or of each whole number of a list; of words, low is how many at least. words: the ones allowed.
    """

    unit: str
    form: Literal["number", "integer", "integers", "word", "words"] = "number"
    low: float = 0
    high: float = LARGEST_NUMBER
    words: tuple[str, ...] = ()

    @property
    def allowed(self) -> str:
        if self.words:
            kind = "one of" if self.form == "word" else "a list of"
            return f"{kind} {', '.join(self.words)} in {self.unit}"
        of = {"integer": "a whole number", "integers": "a list of whole numbers"}.get(self.form, "a value")
        span = f">= {self.low:g}" if self.high >= LARGEST_NUMBER else f"from {self.low:g} to {self.high:g}"
        return f"{of} {span} in {self.unit}"

    def accepts(self, value: Any) -> bool:
        """Whether a value as TOML gives it follows the rule; true and false are no numbers."""
        match self.form:
            case "number":
                return isinstance(value, int | float) and not isinstance(value, bool) and self._in_range(value)
            case "integer":
                return self._is_whole(value)
            case "integers":
                return isinstance(value, list) and 0 < len(value) <= 4096 and all(map(self._is_whole, value))
            case "word":
                return isinstance(value, str) and value in self.words
            case "words":
                return isinstance(value, list) and len(value) >= self.low and all(word in self.words for word in value)

    def _is_whole(self, value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and self._in_range(value)

    def _in_range(self, value: float) -> bool:
        return not (isinstance(value, float) and math.isnan(value)) and self.low <= value <= self.high


class Mistake(Exception):
    """What is wrong in a profile, and the path of keys and list indices to it."""

    def __init__(self, path: tuple[str | int, ...], text: str) -> None:
        super().__init__(text)
        self.path, self.text = path, text


def check_keys(path: tuple[str | int, ...], data: Any, allowed: set[str], needed: set[str]) -> None:
    """Raise Mistake unless `data` is a table with all keys of `needed` and none outside `allowed`."""
    if not isinstance(data, dict):
        raise Mistake(path, f"{shown(data)} is not a table; write {{ {', '.join(sorted(needed))} }}")
    for key in data:
        if key not in allowed:
            raise Mistake((*path, key), unknown_name("key", key, allowed))
    missing = sorted(needed - set(data))
    if missing:
        raise Mistake(path, f"key '{missing[0]}' is missing; needed: {', '.join(sorted(needed))}")


def read_entry(path: tuple[str | int, ...], data: Any, rule: Rule, extra: Mapping[str, Rule] | None = None) -> Entry:
    """A constant from its table. extra: further keys of the table, whose values the caller reads. Raises Mistake."""
    names = {item.name for item in fields(Entry)}
    own = names | set(extra or {})
    check_keys(path, data, allowed=own, needed=own)
    for key, known in (("kind", KINDS), ("trust", TRUSTS), ("bound", BOUNDS)):
        if not isinstance(data[key], str) or data[key] not in known:
            raise Mistake((*path, key), unknown_name(key, str(shown(data[key])), known))
    if not isinstance(data["source"], str) or not data["source"].strip():
        raise Mistake((*path, "source"), f"{shown(data['source'])} is no source; say in words where the value is from")
    for key, other in (extra or {}).items():
        if not other.accepts(data[key]):
            raise Mistake((*path, key), f"{shown(data[key])} is not allowed; give {other.allowed}")
    value = data["value"]
    if data["unit"] != rule.unit or not rule.accepts(value):
        raise Mistake(path, f"{shown(value)} {shown(data['unit'])} is not allowed; give {rule.allowed}")
    kept = {name: data[name] for name in names}
    return Entry(**{**kept, "value": tuple(value) if isinstance(value, list) else value})


def shown(value: Any) -> str:
    """A value of a file on one short line."""
    text = value if isinstance(value, str) else repr(value)
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:57] + "..."
