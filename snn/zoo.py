"""Named architectures. Each function says its layers, its parameter count and where the shape comes from."""

from collections.abc import Callable

from hardspike.snn.architecture import (
    Architecture,
    AveragePool,
    BatchNorm,
    Convolution,
    Dense,
    Flatten,
    ImageInput,
    Layer,
    Spiking,
    chain,
)
from hardspike.snn.errors import SettingsError, unknown_name
from hardspike.snn.neuron import NeuronSettings


def vgg_digits(neuron: NeuronSettings) -> Architecture:
    """VGG-style net for the 8x8 digits: C16, pool, C40, pool, FC512, FC10; bias only in the last layer.

    94,090 weights and 2,176 neurons. Mean and standard deviation are those of the training images.
    """
    layers: list[tuple[str, Layer]] = []
    for index, channels in enumerate([16, 40], start=1):
        layers += [
            (f"conv{index}", Convolution(out_channels=channels, kernel_size=(3, 3), padding=(1, 1))),
            (f"norm{index}", BatchNorm()),
            (f"spike{index}", Spiking(neuron=neuron)),
            (f"pool{index}", AveragePool(kernel_size=(2, 2))),
        ]
    layers += [
        ("flatten", Flatten()),
        ("dense3", Dense(out_features=512)),
        ("norm3", BatchNorm()),
        ("spike3", Spiking(neuron=neuron)),
        ("dense4", Dense(out_features=10, bias=True)),
    ]
    return chain(ImageInput(shape=(1, 8, 8), mean=(0.305,), std=(0.376,)), layers)


ZOO: dict[str, Callable[[NeuronSettings], Architecture]] = {"vgg_digits": vgg_digits}


def build_architecture(name: str, neuron: NeuronSettings) -> Architecture:
    """An architecture of the zoo by name. Raises SettingsError for an unknown name."""
    if name not in ZOO:
        raise SettingsError(unknown_name("network", name, ZOO))
    return ZOO[name](neuron)
