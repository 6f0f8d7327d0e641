"""Equality 1: folded = unfolded in float64, for every layer, order and geometry that can be deployed."""

import pytest
import small_networks
import torch
from small_networks import ARCHITECTURES, HEAD, block, build, conv, image, images, pool

from hardspike.deploy.fold import fold_network
from hardspike.deploy.verify import compare_folded
from hardspike.snn.architecture import BatchNorm, Spiking, chain
from hardspike.snn.errors import UnsupportedLayerError


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_folded_equals_unfolded(name: str) -> None:
    net = build(ARCHITECTURES[name])
    row = compare_folded(net, images(ARCHITECTURES[name], 8))
    assert row.compared > 100
    assert (row.differing, row.first) == (0, "")
    with torch.no_grad(), net.recording() as (spikes, _):
        net(images(ARCHITECTURES[name], 8))
    assert all(0 < float(s.mean()) < 1 for s in spikes.values()), "layers that never or always fire prove little"


def test_bias_differs_at_the_border_of_a_padded_first_layer() -> None:
    """Zero padding pads the normalised image, so a border position sees less of the mean's shift."""
    layers = fold_network(build(ARCHITECTURES["padded convolution, pool, dense"])).layers
    first, second = layers[0].bias, layers[1].bias
    assert first.shape == (4, 8, 6)
    assert not torch.allclose(first[:, 0, 0], first[:, 3, 3])
    assert second.shape == (6, 1, 1)


def test_a_wrong_bias_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison must fail when the border is folded like the middle."""
    import hardspike.deploy.verify as verify

    def careless(net: object, **options: object) -> object:
        folded = fold_network(net, **options)  # type: ignore[arg-type]
        folded.layers[0].bias[:] = folded.layers[0].bias[:, 3:4, 3:4].clone()
        return folded

    monkeypatch.setattr(verify, "fold_network", careless)
    name = "padded convolution, pool, dense"
    row = compare_folded(build(ARCHITECTURES[name]), images(ARCHITECTURES[name], 4))
    assert row.differing > 0 and "current of a_spike step 1" in row.first


REFUSED = {
    "padded behind a convolution": (
        chain(image(1, 8, 8), [("a", conv(4)), ("b", conv(4)), ("s", Spiking()), *HEAD]),
        "layer 'b': padding .1, 1. around what 'a' computes without neurons",
    ),
    "padding brings dropped rows back": (
        chain(image(1, 7, 8), [*block("a", conv(4)), ("p", pool(2, 2)), *block("b", conv(4)), *HEAD]),
        "layer 'b': padding .1, 1. around what 'p' computes without neurons",
    ),
    "batch norm per step": (
        chain(image(1, 8, 8), [("a", conv(4)), ("n", BatchNorm(steps=6)), ("s", Spiking()), *HEAD]),
        "layer 'n': batch norm of its own per step .BNTT. needs weights that change with time; train with",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_folded_is_named(name: str) -> None:
    architecture, message = REFUSED[name]
    with pytest.raises(UnsupportedLayerError, match=message):
        fold_network(small_networks.build(architecture))


def test_an_ann_is_refused() -> None:
    net = build(ARCHITECTURES["dense only"])
    net.set_time_steps(None)
    with pytest.raises(UnsupportedLayerError, match="it is an ANN"):
        fold_network(net)
