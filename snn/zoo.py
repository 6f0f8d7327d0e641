"""Architectures by name."""

from collections.abc import Callable

from hardspike.snn.architecture import Architecture
from hardspike.snn.blueprint import Blueprint
from hardspike.snn.errors import SettingsError, unknown_name
from hardspike.snn.resnet import resnet20, resnet20_hybrid, resnet_mini, wrn16_4
from hardspike.snn.vgg import vgg5, vgg9, vgg11, vgg11_a, vgg11_hybrid, vgg11_tiny, vgg_digits, vgg_mini

ZOO: dict[str, Callable[[Blueprint], Architecture]] = {
    build.__name__: build
    for build in (
        vgg_digits,
        vgg_mini,
        resnet_mini,
        vgg5,
        vgg9,
        vgg11,
        vgg11_a,
        vgg11_hybrid,
        vgg11_tiny,
        resnet20,
        resnet20_hybrid,
        wrn16_4,
    )
}


def build_architecture(name: str, blueprint: Blueprint) -> Architecture:
    """An architecture of the zoo. Raises SettingsError for an unknown name, or an image too small for it."""
    if name not in ZOO:
        raise SettingsError(unknown_name("network", name, ZOO))
    return ZOO[name](blueprint)
