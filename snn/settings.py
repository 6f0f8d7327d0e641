"""Settings that every stage shares: which images, which network."""

from dataclasses import dataclass

from hardspike.snn.architecture import Architecture
from hardspike.snn.data import DATASETS
from hardspike.snn.errors import SettingsError, unknown_name
from hardspike.snn.neuron import NeuronSettings, Reset
from hardspike.snn.zoo import ZOO, build_architecture


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    """dataset: name of the image set, with its fixed train, validation and test parts."""

    dataset: str = "digits"

    def __post_init__(self) -> None:
        if self.dataset not in DATASETS:
            raise SettingsError(unknown_name("data.dataset", self.dataset, DATASETS))


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSettings:
    """architecture: name in the zoo. leak, reset, detach_reset: of every neuron. seed: of the weights and of all training."""

    architecture: str = "vgg_digits"
    leak: float = 1.0
    reset: Reset = "hard"
    detach_reset: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.architecture not in ZOO:
            raise SettingsError(unknown_name("network.architecture", self.architecture, ZOO))
        self.build()

    def build(self) -> Architecture:
        neuron = NeuronSettings(leak=self.leak, reset=self.reset, detach_reset=self.detach_reset)
        return build_architecture(self.architecture, neuron)
