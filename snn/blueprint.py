"""What the zoo's functions build from, and the one way in which they put layers together."""

from dataclasses import dataclass, field
from typing import Literal

from hardspike.snn.architecture import (
    INPUT,
    Architecture,
    AveragePool,
    BatchNorm,
    Convolution,
    Dense,
    Dropout,
    ImageInput,
    Layer,
    Node,
    Shape,
    Spiking,
)
from hardspike.snn.errors import SettingsError
from hardspike.snn.membrane import NeuronSettings

BNTT_EPS = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Blueprint:
    """What is free about a published architecture.

    norm: `td`, one batch norm for all timesteps; `per-step`, one of its own for each of `norm_steps` (BNTT), or `none`.
    bias: `none`, in the `output` layer only, or in `all` convolutions and dense layers.
    dropout_convolution, dropout_dense: share dropped after neurons (not where a pooling follows); dropout_per_step: a new mask
    at every timestep. dense_width: of hidden dense layers, None for the architecture's own.
    """

    image: ImageInput
    num_classes: int
    neuron: NeuronSettings = field(default_factory=NeuronSettings)
    norm: Literal["td", "per-step", "none"] = "td"
    norm_steps: int | None = None
    bias: Literal["none", "output", "all"] = "output"
    dropout_convolution: float = 0.0
    dropout_dense: float = 0.0
    dropout_per_step: bool = True
    dense_width: int | None = None
    readout: Literal["mean", "sum"] = "mean"

    def __post_init__(self) -> None:
        if self.norm == "per-step" and self.norm_steps is None:
            raise SettingsError("network.norm = 'per-step' needs a number of timesteps; set time_steps of the training")

    def batch_norm(self) -> BatchNorm | None:
        if self.norm == "none":
            return None
        if self.norm == "td":
            return BatchNorm()
        return BatchNorm(steps=self.norm_steps, eps=BNTT_EPS, shift=False)


class Drawing:
    """An architecture being put together; `add` returns the name of what it added, `end` is the last one."""

    def __init__(self, blueprint: Blueprint) -> None:
        self.blueprint = blueprint
        self.nodes: list[Node] = []
        self.shapes: dict[str, Shape] = {INPUT: blueprint.image.shape}
        self.end = INPUT

    def add(self, name: str, layer: Layer, *sources: str) -> str:
        """Without sources it reads what was added last."""
        sources = sources or (self.end,)
        self.nodes.append(Node(name=name, layer=layer, sources=sources))
        self.shapes[name] = layer.output_shape(self.shapes[sources[0]])
        self.end = name
        return name

    def convolve(self, name: str, channels: int, *sources: str, kernel: int = 3, stride: int = 1) -> str:
        layer = Convolution(
            out_channels=channels,
            kernel_size=(kernel, kernel),
            stride=(stride, stride),
            padding=(kernel // 2, kernel // 2),
            bias=self.blueprint.bias == "all",
        )
        return self.add(name, layer, *sources)

    def normalise(self, name: str, *sources: str) -> str:
        layer = self.blueprint.batch_norm()
        if layer is not None:
            return self.add(name, layer, *sources)
        self.end = sources[0] if sources else self.end
        return self.end

    def spike(self, name: str, *sources: str) -> str:
        return self.add(name, Spiking(neuron=self.blueprint.neuron), *sources)

    def drop(self, name: str, share: float) -> str:
        return self.add(name, Dropout(share=share, per_step=self.blueprint.dropout_per_step)) if share else self.end

    def pool_all(self, name: str) -> str:
        _, height, width = self.shapes[self.end]
        # At least 1: a shape that has shrunk to nothing is refused, by name, when the drawing is done.
        return self.add(name, AveragePool(kernel_size=(max(height, 1), max(width, 1))))

    def classify(self, name: str) -> Architecture:
        """The output layer ends the drawing."""
        self.add(name, Dense(out_features=self.blueprint.num_classes, bias=self.blueprint.bias != "none"))
        return Architecture(input=self.blueprint.image, nodes=tuple(self.nodes), readout=self.blueprint.readout)
