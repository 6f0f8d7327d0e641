"""How long work tells whoever started it how far it is. The command line draws bars; tests and libraries stay silent."""

from dataclasses import dataclass
from typing import Protocol


class Progress(Protocol):
    """One piece of work at a time: `begin` names it and says how many units it has, `advance` counts them."""

    def begin(self, what: str, total: int) -> None: ...

    def advance(self, units: int = 1, note: str = "") -> None: ...


class Silent:
    """Progress that nobody watches."""

    def begin(self, what: str, total: int) -> None:
        return None

    def advance(self, units: int = 1, note: str = "") -> None:
        return None


@dataclass(frozen=True, slots=True)
class Prefixed:
    """The same progress, each piece of work with a prefix."""

    inner: Progress
    prefix: str

    def begin(self, what: str, total: int) -> None:
        self.inner.begin(self.prefix + what, total)

    def advance(self, units: int = 1, note: str = "") -> None:
        self.inner.advance(units, note)
