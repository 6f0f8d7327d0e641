"""Training through the chip's integers: what is minimised is the loss of the network that will run, not of its float form.

`IntegerNetwork` has the parameters of a spiking network, and the forward pass of the graph that the compiler makes of their
present values: the same folding, scales, roundings and limits, run by the emulator. So the trained logits are those of the
deployed network bit for bit, and nothing is left to lose after training.

Backwards, with s the layer's scale and W, b, theta its folded float weights, bias and threshold:

    d round(s W) = s dW,  d bias = s db,  d threshold = s dtheta

(rounding and clipping are passed straight through, s is a constant: Bengio et al., arXiv 1308.3432; as in quantisation-aware
training, Jacob et al., CVPR 2018), then through the folding, whose batch statistics are constants, to the parameters. Spikes
have surrogate gradients on the integer potentials, see emulator.py. Leaks have no gradient. The bias mantissa puts right what
rounding the weights of the constant channel did, so their sum is round(s b), and the mantissa carries the gradient of both.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from hardspike.deploy.block_kernels import Pair
from hardspike.deploy.compile import DeploySettings, compile_folded
from hardspike.deploy.emulator import Emulator
from hardspike.deploy.fold import FoldedLayer, FoldedNetwork, FoldedSynapse, fold_network
from hardspike.deploy.process_graph import ConvSynapse, GraphLayer, ProcessGraph, Synapse
from hardspike.deploy.quantize import on_two_channels
from hardspike.deploy.run_synapse import RunSynapse
from hardspike.snn.architecture import INPUT
from hardspike.snn.errors import SettingsError
from hardspike.snn.network import SpikingNetwork
from hardspike.train.settings import FitSettings


def finetuning(last: FitSettings, settings: DeploySettings) -> FitSettings:
    """How the integers are trained: as the float network was `last`, but for epochs and learning rate, and in full precision.

    Raises SettingsError for an objective that changes the timesteps, which the graph's scales depend on.
    """
    if last.objective == "hire":
        raise SettingsError(
            "deploy.finetune_epochs: the objective 'hire' divides the timesteps, which integers cannot follow; "
            "use another convert.objective, or finetune_epochs = 0"
        )
    return replace(
        last,
        epochs=settings.finetune_epochs,
        learning_rate=settings.finetune_learning_rate,
        mixed_precision="none",
        channels_last=False,
    )


@dataclass(slots=True, eq=False)
class _Compiled:
    """What the parameters' present values give. trained: made when first needed, and gone after a backward pass."""

    of: tuple[int, ...]
    graph: ProcessGraph
    emulator: Emulator
    trained: "TrainedEmulator | None" = None


class IntegerNetwork(SpikingNetwork):
    """A spiking network that computes as the graph compiled from it; on the CPU.

    Images (B, C, H, W) in [0, 1] to logits (B, classes) as `Emulator.forward`. In training mode logits have gradients to the
    parameters, in evaluation mode to the images alone. Batch statistics stay as they are, dropout is left out.

    Raises UnsupportedLayerError or DoesNotFitError as `compile_network`, when made and at any forward pass.
    """

    def __init__(self, snn: SpikingNetwork, settings: DeploySettings, *, trainable_thresholds: bool = True) -> None:
        super().__init__(snn.architecture, snn.time_steps)
        self.to(next(snn.parameters()).dtype).load_state_dict(snn.state_dict())
        self.settings = settings
        for neuron in self.neurons().values():
            neuron.threshold.requires_grad_(trainable_thresholds)
        self._compiled: _Compiled | None = None
        self.eval()
        self._now()

    @property
    def graph(self) -> ProcessGraph:
        """Of the parameters' present values."""
        return self._now().graph

    def as_float(self) -> SpikingNetwork:
        """The float network with these parameters, which compiles to `graph`; in evaluation mode."""
        network = SpikingNetwork(self.architecture, self.time_steps)
        network.to(next(self.parameters()).dtype).load_state_dict(self.state_dict())
        return network.eval()

    def forward(self, images_BCHW: Tensor) -> Tensor:
        compiled = self._now()
        emulator = compiled.emulator
        if self.training and torch.is_grad_enabled():
            if compiled.trained is None:
                compiled.trained = self._trained(compiled)
            emulator = compiled.trained
        emulator.noise = self.noise
        logits: Tensor = emulator(images_BCHW)
        return logits

    def _now(self) -> _Compiled:
        self._keep_above_floors()
        values = _versions((*self.parameters(), *self.buffers()))
        if self._compiled is None or self._compiled.of != values:
            graph, _ = compile_folded(fold_network(self, step_norms=self.settings.step_norms), self.settings)
            self._compiled = _Compiled(values, graph, Emulator(graph, detach_reset=self._detaches_reset))
        return self._compiled

    @property
    def _detaches_reset(self) -> bool:
        return any(neuron.settings.detach_reset for neuron in self.neurons().values())

    def _trained(self, compiled: _Compiled) -> "TrainedEmulator":
        folded = fold_network(self, step_norms=self.settings.step_norms, differentiable=True)
        thresholds = {name: neuron.threshold for name, neuron in self.neurons().items()}
        made = TrainedEmulator(compiled.graph, folded, thresholds, detach_reset=self._detaches_reset)

        def forget(_: Tensor) -> None:
            compiled.trained = None  # a backward pass frees what it went through

        for layer in folded.layers:
            for weights in (layer.bias, *(synapse.weight for synapse in layer.synapses)):
                if weights.requires_grad:
                    weights.register_hook(forget)
        return made

    def _keep_above_floors(self) -> None:
        # As a float neuron's forward pass does, so that a network read from a file compiles to the same graph.
        for neuron in self.neurons().values():
            if neuron.threshold.requires_grad and float(neuron.threshold.detach()) < neuron.settings.threshold_floor:
                with torch.no_grad():
                    neuron.threshold.clamp_(min=neuron.settings.threshold_floor)


def _versions(tensors: Iterable[Tensor]) -> tuple[int, ...]:
    """Changes with every change in place, the only kind that optimisers and `load_state_dict` make."""
    return tuple(tensor._version for tensor in tensors)


class TrainedEmulator(Emulator):
    """The emulator of a graph, with gradients to the float numbers that the graph was made of.

    folded: of the network that was compiled to the graph, with gradients. thresholds: of neuron layers, by name.
    """

    def __init__(
        self,
        graph: ProcessGraph,
        folded: FoldedNetwork,
        thresholds: Mapping[str, Tensor],
        *,
        detach_reset: bool = False,
    ) -> None:
        super().__init__(graph, detach_reset=detach_reset)
        if graph.input.poisson is not None and graph.input.coding == "binary":
            folded = on_two_channels(folded)
        for layer, floats in zip(graph.layers, folded.layers, strict=True):
            self._attach(layer, floats, thresholds.get(layer.name))

    def _attach(self, layer: GraphLayer, floats: FoldedLayer, threshold: Tensor | None) -> None:
        unit = layer.scale * (1 << self.graph.numerics.state_shift)
        for synapse, own, run in zip(layer.synapses, floats.synapses, self.synapses[layer.name], strict=True):
            assert isinstance(run, RunSynapse)
            per_message = unit / (self.graph.input.message_max if synapse.source == INPUT else 1)
            exact = _beside_constant_channel(own, synapse) * per_message
            if not _is_made_of_blocks(exact, run.block):  # the integers happen to be
                run.unsplit(1 << self.graph.numerics.state_shift)
            if run.block != (1, 1):
                exact = F.avg_pool2d(exact, run.block)
            run.weight = _passed_through(run.weight, exact)
        self._bias[layer.name] = _passed_through(self._bias[layer.name], floats.bias * unit)
        if threshold is not None:
            self._threshold[layer.name] = _passed_through(self._threshold[layer.name], threshold * unit)


def _passed_through(integers: Tensor, exact: Tensor) -> Tensor:
    """The values of `integers`, the gradient of `exact`; shapes broadcast."""
    return integers + (exact - exact.detach()).to(integers.dtype)


def _beside_constant_channel(own: FoldedSynapse, synapse: Synapse) -> Tensor:
    """The float weights in the shape of the integers, which may have an input channel more."""
    more = synapse.weight.shape[1] - own.weight.shape[1]
    return F.pad(own.weight, (0, 0, 0, 0, 0, more) if isinstance(synapse, ConvSynapse) else (0, more))


def _is_made_of_blocks(weight: Tensor, block: Pair) -> bool:
    """Whether the float kernel has the equal blocks of the integer one."""
    if block == (1, 1):
        return True
    rows, columns = block
    values = weight.detach()
    blocks = values[:, :, ::rows, ::columns].repeat_interleave(rows, 2).repeat_interleave(columns, 3)
    return torch.allclose(blocks, values, rtol=1e-9, atol=0)
