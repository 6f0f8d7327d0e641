"""What the emulator adds to the convolutions and matrix products it cannot do without: CPU time of both, in turn, in one run.

    python benchmarks/emulator_share.py [--networks vgg5 vgg11] [--images 16] [--rounds 5] [--lava]

The networks have CIFAR-10's size, random weights, and thresholds that a fifth of the input currents reach; T = 8, one thread.
The products alone are given the very messages that the emulator sends, in the arithmetic it chooses. --lava adds Lava's
simulator, whose time per image is what two images cost more than one (minutes).
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from hardspike.deploy.compile import DeploySettings, compile_network
from hardspike.deploy.emulator import Emulator
from hardspike.deploy.input_coding import encode_images
from hardspike.deploy.lava_backend import LavaBackend, lava_available
from hardspike.deploy.process_graph import ProcessGraph
from hardspike.snn.architecture import INPUT, ImageInput
from hardspike.snn.blueprint import Blueprint
from hardspike.snn.network import SpikingNetwork
from hardspike.snn.zoo import build_architecture

STEPS = 8


def cpu_s(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def deployed(name: str, images: Tensor) -> ProcessGraph:
    image = ImageInput(shape=(3, 32, 32), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    network = SpikingNetwork(build_architecture(name, Blueprint(image=image, num_classes=10)), STEPS).eval()
    with torch.no_grad():
        for node, neuron in network.neurons().items():
            neuron.threshold.fill_(float(network.input_current(images[:2], node).flatten()[::7].quantile(0.8)))
    return compile_network(network, DeploySettings())[0]


def products_alone(emulator: Emulator, images: Tensor) -> Callable[[], object]:
    graph = emulator.graph
    with torch.no_grad(), emulator.watching() as sent:
        emulator(images)
    messages = {name: value if name == INPUT else value.flatten(0, 1) for name, value in sent.items()}
    ready = [
        (run, messages[synapse.source].to(run.weight.dtype))
        for layer in graph.layers
        for synapse, run in zip(layer.synapses, emulator.synapses[layer.name], strict=True)
    ]

    def work() -> None:
        with torch.no_grad():
            for run, message in ready:
                run.respond(message, run.weight)

    return work


def lava_s(graph: ProcessGraph, images: Tensor, backend: LavaBackend) -> float:
    """Wall time of one more image."""
    walls = []
    for count in (1, 2):
        start = time.perf_counter()
        backend.run(graph, encode_images(images[:count], graph))
        walls.append(time.perf_counter() - start)
    return walls[1] - walls[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["vgg5", "vgg11"])
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--lava", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    images = torch.rand(arguments.images, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for name in arguments.networks:
        graph = deployed(name, images)
        emulator = Emulator(graph)
        products = products_alone(emulator, images)

        def whole(emulator: Emulator = emulator) -> None:
            with torch.no_grad():
                emulator(images)

        whole()
        rounds = [(cpu_s(whole), cpu_s(products)) for _ in range(arguments.rounds)]
        own, alone = (statistics.median(times) / len(images) for times in zip(*rounds, strict=True))
        ratio = statistics.median(a / b for a, b in rounds)
        print(
            f"{name}: {1000 * own:.1f} ms CPU an image, products alone {1000 * alone:.1f}, ratio {ratio:.2f}",
            flush=True,
        )
        if arguments.lava and lava_available():
            for what, backend in (("as netx builds it", LavaBackend(sparse_nonzeros=0)), ("ours", LavaBackend())):
                lava = lava_s(graph, images, backend)
                print(f"{name}: Lava {what} {lava:.2f} s an image, {lava / own:.0f} times the emulator", flush=True)


if __name__ == "__main__":
    main()
