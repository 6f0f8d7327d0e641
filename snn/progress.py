"""How long work tells whoever started it how far it is. The command line draws bars; tests and libraries stay silent."""

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
