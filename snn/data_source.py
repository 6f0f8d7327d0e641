"""What a loader hands over, and the fixed order from which parts are held out and subsets taken."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hardspike.snn.errors import DataError, FileError

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """pixels: uint8, or float in [0, 1], (N, C, H, W). labels: int64, (N,)."""

    pixels: NDArray[Any]
    labels: Rows

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, rows: Rows) -> "Labelled":
        return Labelled(self.pixels[rows], self.labels[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A data set as its files hold it. A part that is None is held out of `train`.

    mean, std: per channel, for normalisation; empty where they are to be computed from the training images.
    """

    train: Labelled
    validation: Labelled | None
    test: Labelled | None
    num_classes: int
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


def fixed_order(count: int) -> Rows:
    """A permutation of 0..count-1 that is the same everywhere."""
    # RandomState, because NumPy keeps its stream for all time; Generator's may change with a release.
    return np.random.RandomState(0).permutation(count).astype(np.int64)


def shuffled(part: Labelled) -> Labelled:
    """In the fixed order: stages look at the first images of a part, and users' files often come class by class."""
    return part.rows(fixed_order(len(part)))


def stratified_rows(labels: Rows, count: int) -> Rows:
    """`count` rows, each class by its share (largest remainders), always the same ones, in the fixed order."""
    sizes = np.bincount(labels)
    exact = sizes * (count / len(labels))
    quotas = np.floor(exact).astype(np.int64)
    largest = np.argsort(-(exact - quotas), kind="stable")
    quotas[largest[: count - int(quotas.sum())]] += 1
    order = fixed_order(len(labels))
    taken = np.zeros(len(labels), dtype=bool)
    for label, quota in enumerate(quotas):
        taken[order[labels[order] == label][:quota]] = True
    chosen: Rows = order[taken[order]]
    return chosen


def hold_out(part: Labelled, share: float) -> tuple[Labelled, Labelled]:
    """(the rest in its own order, a stratified `share` in the fixed order). Raises DataError for fewer than two images."""
    if len(part) < 2:
        raise DataError(f"training images: {len(part)} found; at least 2 are needed to hold one out; add images")
    held = stratified_rows(part.labels, min(max(round(share * len(part)), 1), len(part) - 1))
    return part.rows(np.setdiff1d(np.arange(len(part)), held)), part.rows(held)


def not_found(dataset: str, root: Path, looked_for: Iterable[str], instead: str = "") -> DataError:
    """One line that says which files were looked for, and where to put them."""
    return DataError(
        f"data set '{dataset}': not in {root}; looked for {', '.join(looked_for)}; put them there, "
        f"or say where they are with data.root or the environment variable HARDSPIKE_DATA{instead}"
    )


def checked_labels(path: Path, labels: Any, num_classes: int) -> Rows:
    """As int64. Raises FileError unless they are whole numbers in 0..num_classes-1."""
    found = np.asarray(labels)
    if found.ndim != 1 or not len(found) or found.dtype.kind not in "ui":
        raise FileError(f"{path}: no list of whole-number labels in it; it is damaged, get it again")
    if not 0 <= int(found.min()) <= int(found.max()) < num_classes:
        raise FileError(
            f"{path}: labels {int(found.min())}..{int(found.max())} found; 0..{num_classes - 1} are allowed; "
            "it is damaged, get it again"
        )
    return found.astype(np.int64)
