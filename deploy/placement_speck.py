"""Speck (DYNAP-CNN) as sinabs 3.1.3 fills it: one layer on one core, cores of different sizes, no layer cut."""

import math

from hardspike.deploy.block_kernels import split_block_kernel
from hardspike.deploy.placement_demand import readers, stored_weight_bits
from hardspike.deploy.process_graph import ConvSynapse, GraphLayer, ProcessGraph
from hardspike.hw_profiles.profile import Cores
from hardspike.snn.architecture import Shape
from hardspike.snn.errors import DoesNotFitError


def _log(count: int) -> int:
    """ceil(log2(count))."""
    return (count - 1).bit_length()


def layer_words(layer: GraphLayer, source: Shape) -> tuple[int, int]:
    """Words of kernel and of neuron memory. A dense layer is a convolution whose kernel is as large as its source.

    Raises DoesNotFitError for a kernel that is not square.
    """
    (synapse,) = layer.synapses
    if isinstance(synapse, ConvSynapse):
        # Cores sum blocks of pixels before they send them: folded pooling costs nothing.
        channels, kernel = source[0], split_block_kernel(synapse, source)[1].shape[2:]
        features, sides = layer.shape[0], layer.shape[1:]
    else:
        channels, kernel = source[0], source[1:] or (1, 1)
        features, sides = layer.shape[0], (1, 1)
    if kernel[0] != kernel[1]:
        raise DoesNotFitError(
            f"layer '{layer.name}': kernel {kernel[0]} x {kernel[1]}; Speck's are square; use a square one or another profile"
        )
    return channels << (_log(math.prod(kernel)) + _log(features)), features << sum(map(_log, sides))


def speck_cores(graph: ProcessGraph, cores: Cores, profile: str) -> tuple[dict[str, int], dict[str, tuple[int, int]]]:
    """Which core each layer goes to, and its words of kernel and neuron memory.

    Raises DoesNotFitError for a layer that no core holds, or layers that together find no cores.
    """
    kernels, neurons = cores.kernel_words or (), cores.neuron_words or ()
    shapes, words = graph.shapes, {}
    for layer in graph.layers:
        if len(layer.synapses) != 1:
            raise DoesNotFitError(
                f"layer '{layer.name}' has {len(layer.synapses)} synapses; a core of {profile} holds one; use another profile"
            )
        stored_weight_bits(layer.synapses[0].weight, (cores.weight_bits or 8,), layer.name)
        targets = len({name for name, _ in readers(graph, layer.name)})
        if cores.axons_out is not None and targets > cores.axons_out:
            raise DoesNotFitError(
                f"layer '{layer.name}' is read by {targets} layers, over {cores.axons_out} ({profile}: cores.axons_out)"
            )
        kernel, neuron = words[layer.name] = layer_words(layer, shapes[layer.synapses[0].source])
        for what, used, most in (("kernel", kernel, max(kernels)), ("neuron", neuron, max(neurons))):
            if used > most:
                raise DoesNotFitError(
                    f"layer '{layer.name}': {used} words of {what} memory, over {most} of the largest core "
                    f"({profile}: cores.{what}_words); use fewer channels or a smaller map"
                )
        if cores.biases is not None and layer.shape[0] > cores.biases:
            raise DoesNotFitError(
                f"layer '{layer.name}': {layer.shape[0]} biases, over {cores.biases} ({profile}: cores.biases); use fewer channels"
            )
    fits = {
        name: [core for core in range(len(kernels)) if kernel <= kernels[core] and neuron <= neurons[core]]
        for name, (kernel, neuron) in words.items()
    }
    return _matched(fits, profile), words


def _matched(fits: dict[str, list[int]], profile: str) -> dict[str, int]:
    """A core of its own for each layer, by augmenting paths."""
    holder: dict[int, str] = {}

    def settle(name: str, tried: set[int]) -> bool:
        for core in fits[name]:
            if core not in tried:
                tried.add(core)
                if core not in holder or settle(holder[core], tried):
                    holder[core] = name
                    return True
        return False

    for name, cores in fits.items():
        if not settle(name, set()):
            raise DoesNotFitError(
                f"layer '{name}': only cores {cores} hold it, and other layers need them ({profile}: cores.kernel_words, "
                "cores.neuron_words); use fewer or smaller layers"
            )
    return {name: core for core, name in holder.items()}
