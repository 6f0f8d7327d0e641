"""Constants of an ONNX file are computed, but not more of them than a network can have."""

import numpy as np
import pytest
from onnx import helper

from hardspike.convert.onnx_constants import computed_constants

OPSETS = [helper.make_opsetid("", 17)]


def test_what_exporters_compute_is_computed() -> None:
    shape = np.array([2, 3, 4])
    (value,) = computed_constants(helper.make_node("ConstantOfShape", ["s"], ["y"]), {"s": shape}, OPSETS)
    assert value.shape == (2, 3, 4) and not value.any()
    node = helper.make_node("Gather", ["s", "i"], ["y"])
    (value,) = computed_constants(node, {"s": shape, "i": np.array(1)}, OPSETS)
    assert value == 3
    (value,) = computed_constants(helper.make_node("Neg", ["x"], ["y"]), {"x": np.ones((5000, 2), np.float32)}, OPSETS)
    assert value.shape == (5000, 2) and (value == -1).all()


@pytest.mark.parametrize(
    ("operator", "given"),
    [
        ("ConstantOfShape", [np.array([1 << 20, 1 << 20])]),
        ("Expand", [np.ones(1, np.float32), np.array([1 << 14, 1 << 14])]),
        ("Tile", [np.ones(1 << 14, np.float32), np.array([1 << 16])]),
        ("Range", [np.array(0), np.array(1 << 40), np.array(1)]),
        ("Add", [np.ones((1 << 14, 1), np.float32), np.ones((1, 1 << 14), np.float32)]),
        ("MatMul", [np.ones((1 << 14, 1), np.float32), np.ones((1, 1 << 14), np.float32)]),
        ("Pad", [np.ones(2, np.float32), np.array([1 << 30, 1 << 30])]),
    ],
)
def test_a_few_bytes_that_ask_for_gigabytes_are_refused(operator: str, given: list[np.ndarray]) -> None:
    names = [f"x{index}" for index in range(len(given))]
    with pytest.raises(ValueError, match="it would make [0-9]+ bytes, at most 536870912 are allowed"):
        computed_constants(helper.make_node(operator, names, ["y"]), dict(zip(names, given, strict=True)), OPSETS)


def test_what_has_no_size_or_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="an unknown number of bytes"):
        computed_constants(helper.make_node("NonZero", ["x"], ["y"]), {"x": np.ones(3, np.float32)}, OPSETS)
    with pytest.raises(ValueError):
        computed_constants(helper.make_node("Nonsense", ["x"], ["y"]), {"x": np.ones(3, np.float32)}, OPSETS)
    with pytest.raises(ValueError):
        given = {"x": np.ones(3, np.float32), "z": np.ones(2, np.float32)}
        computed_constants(helper.make_node("Add", ["x", "z"], ["y"]), given, OPSETS)
