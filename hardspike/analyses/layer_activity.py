"""What the neurons of a run's networks do on the same images: the ANN's activations, and the spikes of the other three."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hardspike.analyses.subject import Subject
from hardspike.deploy.emulator import EmulatorBackend
from hardspike.deploy.fake_quantised import FakeQuantised
from hardspike.deploy.float_spikes import float_spikes
from hardspike.deploy.input_coding import encode_images, quantize_images
from hardspike.deploy.process_graph import ProcessGraph
from hardspike.deploy.trace import Backend
from hardspike.snn.architecture import Architecture
from hardspike.snn.errors import SettingsError
from hardspike.snn.network import SpikingNetwork

# Elements of [T, B, neurons] looked at together: a backend's trace takes some 30 bytes for each.
TOGETHER = 1 << 22
LARGEST_BATCH = 128


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """layers: spikes 0 or 1 per neuron layer, [T, B, ...], float or bool; of an ANN its activations, T = 1. predicted: int64 [B]."""

    layers: dict[str, Tensor]
    predicted: Tensor


# From images (B, C, H, W) and the seed of the spikes that are drawn of them.
Observe = Callable[[Tensor, int], Observed]


def observers(subject: Subject) -> dict[str, Observe]:
    """By network of `subject.targets`, and by the backend's name where the options ask for another than the emulator."""
    found: dict[str, Observe] = {}
    if "ann" in subject.targets:
        found["ann"] = lambda images, _: observe_ann(subject.ann, images)
    found["snn"] = lambda images, seed: observe_snn(subject.snn, images, seed)
    if subject.has_deployed:
        graph = subject.graph
        found["quantised"] = lambda images, seed: observe_quantised(graph, images, seed)
        found["deployed"] = lambda images, seed: observe_deployed(graph, EmulatorBackend(), images, seed)
        if subject.options.backend != "emulator":
            found[subject.options.backend] = lambda images, seed: observe_deployed(graph, subject.backend, images, seed)
    return found


def observe_ann(ann: SpikingNetwork, images: Tensor) -> Observed:
    """Activations behind ReLU (or the clip-floor function), [1, B, ...]."""
    with torch.no_grad(), ann.recording() as (_, currents):
        predicted = ann(images).argmax(1)
        activations = {name: neuron.activate(currents[name][0])[None] for name, neuron in ann.neurons().items()}
    return Observed(activations, predicted)


def observe_snn(snn: SpikingNetwork, images: Tensor, seed: int) -> Observed:
    spikes, logits = float_spikes(snn, images, seed=seed)
    return Observed(spikes, logits.argmax(1))


def observe_quantised(graph: ProcessGraph, images: Tensor, seed: int) -> Observed:
    """In float64, in which it rounds no spike away and draws the host's Poisson spikes."""
    network = FakeQuantised(graph, seed=seed)
    with torch.no_grad(), network.watching() as spikes:
        predicted = network(images.double()).argmax(1)
    return Observed(spikes, predicted)


def observe_deployed(graph: ProcessGraph, backend: Backend, images: Tensor, seed: int) -> Observed:
    trace = backend.run(graph, encode_images(images, graph, seed=seed), keep_states=True)
    if trace.states is None:
        raise SettingsError(f"backend '{backend.name}': shows no spikes of single neurons; use emulator or lava")
    return Observed({name: trace.states.spikes[name] for name in trace.spikes}, trace.predicted)


def hidden_layers(architecture: Architecture) -> tuple[str, ...]:
    """Neuron layers in order, without one that gives the output itself."""
    return tuple(node.name for node in architecture.spiking if node is not architecture.nodes[-1])


def layer_sizes(architecture: Architecture) -> dict[str, int]:
    """Neurons of each hidden layer."""
    return {name: math.prod(architecture.shapes[name]) for name in hidden_layers(architecture)}


def batches(count: int, snn: SpikingNetwork) -> Iterator[slice]:
    """Rows to look at together, so that the spikes of a large network do not fill the memory."""
    neurons = sum(math.prod(snn.architecture.shapes[node.name]) for node in snn.architecture.spiking)
    size = max(1, min(LARGEST_BATCH, TOGETHER // max(1, neurons * (snn.time_steps or 1))))
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def sent_images(subject: Subject, images: Tensor) -> Tensor:
    """Images on the grid of the deployed network's input where there is one, so that all networks see the same."""
    return quantize_images(images, subject.graph.input.image_bits) if subject.has_deployed else images


def noise_of(seed: int, start: int) -> int:
    """Seed of the Poisson spikes of a batch that starts at this row: each batch its own."""
    return seed + start
