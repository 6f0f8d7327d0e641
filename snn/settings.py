"""Settings that every stage shares: which images, which network."""

from dataclasses import dataclass, fields
from typing import Literal

from hardspike.snn.architecture import Architecture, ImageInput
from hardspike.snn.blueprint import Blueprint
from hardspike.snn.data import DataSettings as DataSettings
from hardspike.snn.errors import SettingsError, unknown_name
from hardspike.snn.membrane import NeuronSettings
from hardspike.snn.network import Initialisation
from hardspike.snn.ranges import require
from hardspike.snn.zoo import ZOO, build_architecture


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSettings(NeuronSettings):
    """architecture: name in the zoo. seed: of the weights and of all training. The fields of `NeuronSettings` are every neuron's.

    first_threshold: of a spiking network before training or conversion, and of clip-floor activations (1 in arXiv 2311.09266;
        QCFS starts from 8).
    norm, bias, dropout_*, dense_width (0: the architecture's own), readout: see `Blueprint`.
    coding, poisson_rate, input_bits (0: images as they are): see `ImageInput`.
    normalisation: of images, by the `data` set's mean and standard deviation, to [-1, 1] (`half`), or `none`.
    """

    architecture: str = "vgg_digits"
    first_threshold: float = 1.0
    norm: Literal["td", "per-step", "none"] = "td"
    bias: Literal["none", "output", "all"] = "output"
    dropout_convolution: float = 0.0
    dropout_dense: float = 0.0
    dropout_per_step: bool = True
    dense_width: int = 0
    readout: Literal["mean", "sum"] = "mean"
    coding: Literal["direct", "poisson"] = "direct"
    poisson_rate: float = 1.0
    input_bits: int = 0
    normalisation: Literal["data", "half", "none"] = "data"
    initialisation: Initialisation = "kaiming"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.architecture not in ZOO:
            raise SettingsError(unknown_name("network.architecture", self.architecture, ZOO))
        for field in ("dropout_convolution", "dropout_dense"):
            share = getattr(self, field)
            require(f"network.{field}", share, 0 <= share < 1, "use a share in [0, 1)")
        require("network.dense_width", self.dense_width, self.dense_width >= 0, "use 0 (the architecture's) or more")
        require("network.input_bits", self.input_bits, 0 <= self.input_bits <= 16, "use 0 (no rounding) to 16")
        require("network.poisson_rate", self.poisson_rate, self.poisson_rate > 0, "use a positive value")
        require("network.first_threshold", self.first_threshold, self.first_threshold > 0, "use a positive value")
        NeuronSettings.__post_init__(self)  # super() does not work in a dataclass with slots

    def neuron(self) -> NeuronSettings:
        return NeuronSettings(**{field.name: getattr(self, field.name) for field in fields(NeuronSettings)})

    def build(
        self,
        shape: tuple[int, int, int],
        num_classes: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        time_steps: int | None = None,
    ) -> Architecture:
        """The architecture for images of this shape; mean and std are the data set's.

        time_steps: needed by batch norms of their own per step. Raises SettingsError where parts do not go together.
        """
        channels = shape[0]
        if self.normalisation != "data":
            half = self.normalisation == "half"
            mean, std = ((0.5,) * channels, (0.5,) * channels) if half else ((0.0,) * channels, (1.0,) * channels)
        image = ImageInput(
            shape=shape,
            mean=mean,
            std=std,
            bits=self.input_bits or None,
            coding=self.coding,
            poisson_rate=self.poisson_rate,
        )
        blueprint = Blueprint(
            image=image,
            num_classes=num_classes,
            neuron=self.neuron(),
            norm=self.norm,
            norm_steps=time_steps,
            bias=self.bias,
            dropout_convolution=self.dropout_convolution,
            dropout_dense=self.dropout_dense,
            dropout_per_step=self.dropout_per_step,
            dense_width=self.dense_width or None,
            readout=self.readout,
        )
        return build_architecture(self.architecture, blueprint)
