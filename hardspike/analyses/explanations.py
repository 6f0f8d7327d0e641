"""Heatmaps of a run's networks by four methods: spike activation maps of the float and the deployed network, and Grad-CAM."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hardspike.analyses.activation_maps import gradient_weighted, normalised, spike_activation
from hardspike.analyses.shares import noise_from_seed
from hardspike.analyses.subject import Subject
from hardspike.deploy.input_coding import encode_images
from hardspike.deploy.trace import Trace
from hardspike.snn.architecture import Shape
from hardspike.snn.errors import SettingsError
from hardspike.snn.network import SpikingNetwork
from hardspike.snn.surrogate import surrogate_gradient

Conditions = dict[str, str | int | float]
BYTES = 1 << 28  # of a batch's spikes, currents and gradients
BYTES_PER_NEURON_STEP = 24


@dataclass(frozen=True, slots=True)
class Method:
    """key: in `Analysis.values`. network: of `attack.settings.TARGETS`. tone: of charts."""

    key: str
    label: str
    network: str
    tone: str


ANN_GRADCAM = Method("ann_gradcam", "ANN Grad-CAM", "ann", "ann")
SNN_GRADCAM = Method("snn_gradcam", "SNN Grad-CAM", "snn", "first")
SNN_SAM = Method("snn_sam", "float SAM", "snn", "snn")
DEPLOYED_SAM = Method("deployed_sam", "deployed SAM", "deployed", "deployed")
METHODS = (ANN_GRADCAM, SNN_GRADCAM, SNN_SAM, DEPLOYED_SAM)


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """maps: by layer, normalised, float64 [T, B, H, W] (T = 1 for an ANN). predicted: class per sample, int64 [B]."""

    maps: dict[str, Tensor]
    predicted: Tensor


def map_layers(subject: Subject) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Neuron layers with an image plane that the options choose, in order, and notes on those left out.

    Raises SettingsError for a name that is no such layer, and where there is none.
    """
    shapes = subject.snn.architecture.shapes
    has_plane = {name: _is_plane(shapes[name]) for name in subject.snn.neurons()}
    possible = tuple(name for name in has_plane if has_plane[name])
    if not possible:
        raise SettingsError(
            "network: no neuron layer has an image plane, so there are no maps; use a convolutional network"
        )
    for name in subject.options.layers:
        if name not in possible:
            raise SettingsError(f"layers: '{name}' is no neuron layer with an image plane; use {', '.join(possible)}")
    if subject.options.layers:
        return tuple(name for name in possible if name in subject.options.layers), ()
    flat = [name for name in has_plane if not has_plane[name]]
    note = f"Without an image plane and so without a map: {', '.join(flat)}." if flat else ""
    return possible, (note,) if note else ()


def methods_of(subject: Subject) -> tuple[tuple[Method, ...], tuple[str, ...]]:
    """The methods whose networks this run has, and notes on the others."""
    found = tuple(method for method in METHODS if method.network in subject.targets)
    notes = []
    if "ann" not in subject.targets:
        notes.append("This run has no ANN, so there is no ANN Grad-CAM.")
    if not subject.has_deployed:
        notes.append("This run has no deployed network: only the float networks are shown.")
    return found, tuple(notes)


def surrogate_name(subject: Subject) -> str:
    """What the SNN was trained with, and what its Grad-CAM differentiates spikes with."""
    return subject.folder.recipe.last_training.surrogate


def conditions(subject: Subject, own: Conditions, *, gradcam: bool = True) -> Conditions:
    """An analysis's own, and what all maps depend on. gradcam: whether it has any."""
    options = subject.options
    spikes = "earlier spikes only (paper)" if options.sam == "paper" else "as the published code"
    shared: Conditions = {
        "timesteps": subject.snn.time_steps or 1,
        "seed": options.seed,
        "SAM": f"{spikes}, gamma {options.gamma:g}",
    }
    shared |= {"Grad-CAM surrogate": surrogate_name(subject)} if gradcam else {}
    return own | shared | ({"backend": options.backend} if subject.has_deployed else {})


def step_notes(subject: Subject) -> tuple[str, ...]:
    if subject.snn.time_steps == 1 and subject.options.sam == "paper":
        return (
            "With one timestep no spike has an earlier one: the paper's spike activation maps are zero everywhere "
            "(the code's variant, --sam code, is not).",
        )
    return ()


def explain(subject: Subject, method: Method, images: Tensor, labels: Tensor, layers: tuple[str, ...]) -> Explanation:
    """Maps of these layers for images (B, C, H, W) in [0, 1]. labels: whose logit Grad-CAM differentiates; SAM takes none.

    Noise of a network's own (Poisson spikes) is the same at every call with images in the same order.
    """
    if method.network == "deployed":
        return _deployed_maps(subject, images, layers)
    network = subject.ann if method.network == "ann" else subject.snn
    make = _spike_maps if method is SNN_SAM else _gradient_maps
    parts = []
    with noise_from_seed([network], subject.options.seed):
        for rows in torch.arange(len(images)).split(batch_size(network)):
            parts.append(make(subject, network, images[rows], labels[rows], layers))
    return _joined(parts)


def _spike_maps(
    subject: Subject, network: SpikingNetwork, images: Tensor, labels: Tensor, layers: tuple[str, ...]
) -> Explanation:
    with torch.no_grad(), network.watching() as spikes:
        logits = network(images)
    options = subject.options
    maps = {name: normalised(spike_activation(spikes[name], options.gamma, options.sam)) for name in layers}
    return Explanation(maps, logits.argmax(1))


def _gradient_maps(
    subject: Subject, network: SpikingNetwork, images: Tensor, labels: Tensor, layers: tuple[str, ...]
) -> Explanation:
    surrogate = subject.folder.recipe.last_training.spike_gradient()
    with torch.enable_grad(), surrogate_gradient(surrogate), network.watching() as values:
        # A gradient that the images ask for flows whether or not the weights train.
        logits = network(images.clone().requires_grad_(True))
        watched = [values[name] for name in layers]
        gradients = torch.autograd.grad(logits.gather(1, labels[:, None]).sum(), watched)
    pairs = zip(layers, watched, gradients, strict=True)
    maps = {name: normalised(gradient_weighted(a.detach().double(), g.double())) for name, a, g in pairs}
    return Explanation(maps, logits.detach().argmax(1))


def _deployed_maps(subject: Subject, images: Tensor, layers: tuple[str, ...]) -> Explanation:
    options, parts = subject.options, []
    for trace in deployed_traces(subject, images):
        assert trace.states is not None
        spikes = trace.states.spikes
        maps = {name: normalised(spike_activation(spikes[name], options.gamma, options.sam)) for name in layers}
        parts.append(Explanation(maps, trace.predicted))
    return _joined(parts)


def deployed_traces(subject: Subject, images: Tensor) -> Iterator[Trace]:
    """Traces with states of the deployed network on the options' backend, in batches; Poisson spikes follow from the seed."""
    graph, seed = subject.graph, subject.options.seed
    neurons = sum(math.prod(layer.shape) for layer in graph.layers)
    batch = max(1, BYTES // (BYTES_PER_NEURON_STEP * graph.time_steps * neurons))
    for start in range(0, len(images), batch):
        messages = encode_images(images[start : start + batch], graph, seed=seed + start)
        yield subject.backend.run(graph, messages, keep_states=True)


def _joined(parts: list[Explanation]) -> Explanation:
    maps = {name: torch.cat([part.maps[name] for part in parts], 1) for name in parts[0].maps}
    return Explanation(maps, torch.cat([part.predicted for part in parts]))


def batch_size(network: SpikingNetwork) -> int:
    """Images whose spikes, currents and gradients take about `BYTES`."""
    neurons = sum(math.prod(network.architecture.shapes[name]) for name in network.neurons())
    return max(1, BYTES // (BYTES_PER_NEURON_STEP * (network.time_steps or 1) * neurons))


def _is_plane(shape: Shape) -> bool:
    return len(shape) == 3 and shape[1] * shape[2] > 1
