"""Stage `deploy`: fold, quantise to a profile, and say what rounding cost."""

from dataclasses import dataclass
from typing import Literal

from hardspike.deploy.fold import FoldedNetwork, StepNorms, fold_network
from hardspike.deploy.layer_scale import LayerFit
from hardspike.deploy.process_graph import ProcessGraph
from hardspike.deploy.quantize import quantize_network
from hardspike.deploy.weight_range import parse_scale_rule
from hardspike.hw_profiles.profile import load_profile
from hardspike.snn.network import SpikingNetwork
from hardspike.snn.ranges import require


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploySettings:
    """profile: a hardware profile's name, or the path of a TOML file. weight_bits: of every synapse. input_bits: of a pixel.

    enabled: false ends the run with the attacked float network, where it cannot or need not go to a chip.
    scale: of a layer's weights: `max`, `percentile:P` or `search` (weight_range.py).
    overflow: `proven`, no input can make a current wrap; `counted`, scales are not lowered for that, and overflows are counted
    on validation images.
    step_norms: of batch norms per timestep: `refuse`, or `mean` for their mean over the steps, which changes the network.
    finetune_epochs: of training through the integers (`integer_training`), with the objective of the last stage that trained;
        0 for none. finetune_learning_rate: its first one.
    """

    enabled: bool = True
    profile: str = "loihi2"
    weight_bits: int = 8
    input_bits: int = 8
    scale: str = "max"
    overflow: Literal["proven", "counted"] = "proven"
    step_norms: StepNorms = "refuse"
    finetune_epochs: int = 0
    finetune_learning_rate: float = 0.01

    def __post_init__(self) -> None:
        parse_scale_rule(self.scale)
        require("deploy.overflow", self.overflow, self.overflow in ("proven", "counted"), "use 'proven' or 'counted'")
        require("deploy.step_norms", self.step_norms, self.step_norms in ("refuse", "mean"), "use 'refuse' or 'mean'")
        require("deploy.input_bits", self.input_bits, 1 <= self.input_bits <= 16, "use 1 to 16")
        require("deploy.finetune_epochs", self.finetune_epochs, self.finetune_epochs >= 0, "use 0 (none) or more")
        rate = self.finetune_learning_rate
        require("deploy.finetune_learning_rate", rate, rate > 0, "use a positive value")
        allowed = load_profile(self.profile).numerics.weight_bits
        require(
            "deploy.weight_bits", self.weight_bits, self.weight_bits in allowed, f"{self.profile} has {sorted(allowed)}"
        )


def compile_network(
    snn: SpikingNetwork, settings: DeploySettings, provenance: dict[str, str] | None = None
) -> tuple[ProcessGraph, list[LayerFit]]:
    """Integers for a spiking network.

    Raises UnsupportedLayerError or DoesNotFitError, naming layer, value, limit, profile key and remedy.
    """
    return compile_folded(fold_network(snn, step_norms=settings.step_norms), settings, provenance)


def compile_folded(
    folded: FoldedNetwork, settings: DeploySettings, provenance: dict[str, str] | None = None
) -> tuple[ProcessGraph, list[LayerFit]]:
    """The same of a network that is folded already. Raises DoesNotFitError."""
    return quantize_network(
        folded,
        load_profile(settings.profile),
        weight_bits=settings.weight_bits,
        input_bits=settings.input_bits,
        scale=settings.scale,
        overflow=settings.overflow,
        provenance=provenance,
    )
