"""Counting differences: how many values were compared, how many differ, and where the first one is."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Equality:
    """One row of the proof. compared 0 with a `reason`: it could not be compared. exact False: measured, no claim."""

    name: str
    what: str
    compared: int = 0
    differing: int = 0
    first: str = ""
    reason: str = ""
    exact: bool = True

    @property
    def holds(self) -> bool:
        """Whether nothing speaks against it; a row that could not be compared neither holds nor fails."""
        return not self.exact or self.differing == 0

    @property
    def verdict(self) -> str:
        if self.reason:
            return "not compared"
        return ("equal" if self.differing == 0 else "DIFFERS") if self.exact else "measured"


@dataclass(slots=True)
class Counter:
    """Adds up comparisons of several arrays; arrays [T, B, ...] name step and sample of the first difference."""

    compared: int = 0
    differing: int = 0
    first: str = ""

    def add(self, name: str, found: Tensor, expected: Tensor, tolerance: float = 0.0) -> None:
        """Compare element by element: equal, or within `tolerance` * the largest magnitude expected."""
        if found.shape != expected.shape:
            raise ValueError(f"{name}: shapes {tuple(found.shape)} and {tuple(expected.shape)} cannot be compared")
        found, expected = found.detach(), expected.detach()
        if tolerance:
            scale = float(expected.abs().max()) if expected.numel() else 0.0
            differs = (found - expected).abs() > tolerance * scale
        else:
            differs = found != expected
        count = int(differs.sum())
        if count and not self.first:
            index = differs.nonzero()[0].tolist()
            self.first = (
                f"{name} {_place(index)}: {found[tuple(index)].item():g} instead of {expected[tuple(index)].item():g}"
            )
        self.compared += found.numel()
        self.differing += count

    def add_all(
        self, kind: str, found: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: float = 0.0
    ) -> None:
        for layer in expected:
            self.add(f"{kind} of {layer}", found[layer], expected[layer], tolerance)

    def row(self, name: str, what: str) -> Equality:
        return Equality(name=name, what=what, compared=self.compared, differing=self.differing, first=self.first)


def _place(index: list[int]) -> str:
    if len(index) < 3:
        return f"at {tuple(index)}"
    return f"step {index[0] + 1}, sample {index[1]}, neuron {tuple(index[2:])}"


def correlation(first: Tensor, second: Tensor) -> float | None:
    """Pearson correlation of two arrays of counts; None where one of them is constant."""
    a, b = first.double().flatten(), second.double().flatten()
    a, b = a - a.mean(), b - b.mean()
    norm = float(torch.linalg.vector_norm(a) * torch.linalg.vector_norm(b))
    return float(a @ b) / norm if norm > 0 else None
