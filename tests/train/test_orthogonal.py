"""The retraction of weights moves what it should: fixed points, single rows, a share of large layers, scalars of sums."""

import pytest
import torch
from small_networks import image
from torch import Tensor
from torch.nn import functional as F

from hardspike.snn.architecture import Architecture, Convolution, Dense, Flatten, Node, WeightedSum, chain
from hardspike.snn.network import SpikingNetwork
from hardspike.train.orthogonal import retract, retract_weight


def test_only_trainable_scalars_are_projected() -> None:
    def added(trainable: bool) -> Tensor:
        layer = WeightedSum(initial=(0.9, 0.5), trainable=trainable)
        net = SpikingNetwork(
            Architecture(input=image(1, 2, 2), nodes=(Node(name="sum", layer=layer, sources=("input", "input")),))
        )
        retract(net, 0.1, torch.Generator())
        return net.get_parameter("layers.sum.weight").detach()

    torch.testing.assert_close(added(True), torch.tensor([0.7, 0.3]))
    assert torch.equal(added(False), torch.tensor([0.9, 0.5]))


def test_orthonormal_rows_are_a_fixed_point() -> None:
    square = torch.linalg.qr(torch.randn(9, 9, generator=torch.Generator().manual_seed(0)).double()).Q
    weight = square[:4].clone().reshape(4, 1, 3, 3)
    retract_weight(weight, 0.3)
    torch.testing.assert_close(weight.flatten(1), square[:4], rtol=0, atol=1e-14)


@pytest.mark.parametrize("length", [0.2, 0.9, 1.0, 1.3])
def test_a_single_row_keeps_its_direction_and_goes_to_length_one(length: float) -> None:
    direction = F.normalize(torch.randn(7, generator=torch.Generator().manual_seed(1)).double(), dim=0)
    weight = length * direction[None].clone()
    retract_weight(weight, 0.1)
    torch.testing.assert_close(weight[0], length * (1 + 0.1 - 0.1 * length**2) * direction)
    for _ in range(200):
        retract_weight(weight, 0.1)
    torch.testing.assert_close(weight[0], direction)


@pytest.mark.parametrize(("rows", "moved"), [(199, 199), (200, 60), (251, 75)])
def test_of_200_rows_or_more_30_percent_move(rows: int, moved: int) -> None:
    net = SpikingNetwork(chain(image(1, 3, 4), [("flat", Flatten()), ("big", Dense(out_features=rows))])).double()
    weight = net.get_parameter("layers.big.weight")
    seen = torch.zeros(rows, dtype=torch.bool)
    generator = torch.Generator().manual_seed(2)
    for _ in range(2):
        before = weight.detach().clone()
        retract(net, 0.05, generator)
        changed = (weight.detach() != before).any(1)
        assert int(changed.sum()) == moved
        expected = before[changed].clone()
        retract_weight(expected, 0.05)
        torch.testing.assert_close(weight.detach()[changed], expected)
        new = changed & ~seen
        seen |= changed
    assert moved == rows or new.any()  # other rows each time


def test_a_large_convolution_moves_as_a_whole() -> None:
    layer = Convolution(out_channels=220, kernel_size=(1, 1))
    net = SpikingNetwork(chain(image(3, 1, 1), [("big", layer)])).double()
    weight = net.get_parameter("layers.big.weight")
    expected = weight.detach().clone()
    retract(net, 0.001, torch.Generator())
    retract_weight(expected, 0.001)
    torch.testing.assert_close(weight.detach(), expected)
