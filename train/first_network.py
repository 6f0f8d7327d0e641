"""Stage `train`: the first network, an ANN or a spiking network end to end, with any objective."""

from dataclasses import dataclass

from hardspike.snn.data import Splits
from hardspike.snn.network import SpikingNetwork
from hardspike.snn.ranges import require
from hardspike.snn.settings import NetworkSettings
from hardspike.train.settings import FitSettings, ObjectiveName, check_fit


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings(FitSettings):
    """time_steps: 0 for an ANN, or the timesteps of a spiking network that is trained end to end.

    network_file: a trained network that is taken in place of training (`.onnx`, `.nir`, or `.safetensors`, see
    `convert.given_network`). network_dt: seconds per timestep of a NIR file that does not say it; 1e-4 for snnTorch's and
    SpikingJelly's.
    trainable_thresholds, trainable_leaks: of a spiking network (and of an ANN's clip-floor activation, whose threshold
    always trains). The other fields are those of every training, see `FitSettings`.
    """

    objective: ObjectiveName = "adversarial"
    time_steps: int = 0
    network_file: str = ""
    network_dt: float = 1e-4
    trainable_thresholds: bool = False
    trainable_leaks: bool = False

    def __post_init__(self) -> None:
        require(
            "train.time_steps", self.time_steps, self.time_steps >= 0, "use 0 for an ANN, or the number of timesteps"
        )
        require("train.network_dt", self.network_dt, self.network_dt > 0, "use a positive number of seconds")
        check_fit("train", self)


def first_network(settings: TrainSettings, network: NetworkSettings, splits: Splits) -> SpikingNetwork:
    """The untrained network of the recipe, for these images."""
    steps = settings.time_steps or None
    made = SpikingNetwork(
        network.build(splits.shape, splits.num_classes, splits.mean, splits.std, steps),
        time_steps=steps,
        seed=network.seed,
        initialisation=network.initialisation,
    )
    for neuron in made.neurons().values():
        if network.activation == "clip-floor" and steps is None:
            neuron.threshold.data.fill_(network.first_threshold)
            neuron.threshold.requires_grad_(True)
        elif steps is not None:
            neuron.threshold.data.fill_(network.first_threshold)
            neuron.threshold.requires_grad_(settings.trainable_thresholds)
            neuron.leak.requires_grad_(settings.trainable_leaks)
    return made
