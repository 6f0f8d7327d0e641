"""One look at a result for a sign that it should not be believed."""

from dataclasses import dataclass

EXPLAINED = "docs/attacks.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """fired: the result is suspect. detail: the numbers it looked at. anchor: of the paragraph that explains it."""

    name: str
    fired: bool
    detail: str
    anchor: str = ""

    @property
    def link(self) -> str:
        return f"{EXPLAINED}#{self.anchor}"
