"""Means over images as bars, and when a difference counts."""

import pytest
import torch

from hardspike.analyses.explanations import ANN_GRADCAM, SNN_SAM
from hardspike.analyses.layer_means import direction, layer_bars, layer_values

UP = torch.tensor([0.9, 1.0, 1.1, 1.0])


@pytest.mark.parametrize(
    ("differences", "expected"),
    [(UP, 1), (-UP, -1), (UP - 1, 0), (torch.zeros(4), 0), (torch.ones(1), 0), (torch.tensor([1.0, -0.5]), 0)],
)
def test_a_difference_counts_beyond_its_interval(differences: torch.Tensor, expected: int) -> None:
    assert direction(differences) == expected


def test_bars_and_values_by_method_and_layer() -> None:
    measured = {ANN_GRADCAM: {"a": UP, "b": torch.tensor([2.0])}, SNN_SAM: {"a": 2 * UP, "b": torch.tensor([4.0])}}
    first, second = layer_bars(measured, ("b", "a"))
    assert (first.name, second.tone) == ("ANN Grad-CAM", "snn")
    assert first.values == pytest.approx((2, 1)) and second.values == pytest.approx((4, 2))
    assert first.low[0] is None and first.high[0] is None
    half = 1.959964 * (0.02 / 3) ** 0.5 / 2
    assert first.low[1] == pytest.approx(1 - half) and second.high[1] == pytest.approx(2 + 2 * half)
    assert layer_values(measured)["snn_sam"]["b"] == {"mean": 4, "low": None, "high": None}
