"""One node of a NIR file, read value by value with errors that say where."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hardspike.convert.nir_file import Array, NirNode
from hardspike.snn.errors import FileError, UnsupportedLayerError

LARGEST = 1 << 24  # of anything counted: sides, strides, groups; far beyond any layer
MOST_NUMBERS = 8
NUMBER = (int, float)  # what JSON makes of a float of ours
Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class NodeValues:
    """where: file, name and kind of the node, the beginning of every message. said: what our metadata say of it."""

    where: str
    node: NirNode
    said: Mapping[str, Any]

    def numbers(self, key: str, axes: int | None = None) -> Array:
        """A finite array, not empty, on that many axes."""
        value = self.node.values.get(key)
        if value is None or value.dtype.kind not in "iuf" or not value.size or axes not in (None, value.ndim):
            found = "is missing" if value is None else f"has shape {value.shape} of {value.dtype}"
            wanted = f"numbers on {axes} axes" if axes else "numbers"
            raise FileError(f"{self.where}: '{key}' {found}; it must be {wanted}")
        if not np.isfinite(value).all():
            raise FileError(f"{self.where}: '{key}' holds a value that is not finite; train again")
        return value

    def integers(self, key: str, *, least: int) -> list[int]:
        value = self.numbers(key).ravel()
        counted = value.astype(np.float64)  # half precision would not hold the largest
        is_whole = not (counted != np.trunc(counted)).any()
        if value.size > MOST_NUMBERS or not is_whole or counted.min() < least or counted.max() > LARGEST:
            raise FileError(
                f"{self.where}: '{key}' is {value[:MOST_NUMBERS].tolist()}; it must be integers from {least} to {LARGEST}"
            )
        return [int(number) for number in counted]

    def integer(self, key: str, *, least: int) -> int:
        numbers = self.integers(key, least=least)
        if len(numbers) > 1:
            raise FileError(f"{self.where}: '{key}' is {numbers}; it must be one number")
        return numbers[0]

    def pair(self, key: str, *, least: int) -> Pair:
        """(H, W), which may be given as one number."""
        numbers = self.integers(key, least=least)
        if len(numbers) > 2:
            raise FileError(f"{self.where}: '{key}' is {numbers}; it must be one or two numbers")
        return numbers[0], numbers[-1]

    def padding(self, kernel: Pair, stride: Pair, dilation: Pair) -> Pair:
        """As a pair, or by the words `valid` and `same`."""
        value = self.node.values.get("padding")
        if value is None or value.dtype.kind not in "OS":
            return self.pair("padding", least=0)
        text = value.item() if value.size == 1 else None
        text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        reach = [(taps - 1) * spread for taps, spread in zip(kernel, dilation, strict=True)]
        if text == "valid":
            return 0, 0
        if text == "same" and stride == (1, 1) and not any(side % 2 for side in reach):
            return reach[0] // 2, reach[1] // 2
        raise UnsupportedLayerError(f"{self.where}: padding {text!r} is not the same at begin and end; write numbers")


def checked(said: object, types: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What we write into metadata: an object with some of the keys of `types`, each of its type, numbers as floats.

    Raises FileError for anything else.
    """
    if isinstance(said, dict) and all(isinstance(value, types.get(key, ())) for key, value in said.items()):
        try:
            return {key: float(value) if types[key] == NUMBER else value for key, value in said.items()}
        except OverflowError:
            pass
    raise FileError(f"{where} is not what we write there; the file is damaged")


def parsed(text: str, types: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The same from its JSON."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = None
    return checked(said, types, where)
