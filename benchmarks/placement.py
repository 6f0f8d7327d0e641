"""Seconds to place untrained networks of the zoo at CIFAR size on each chip, and to count and price one sample's events.

    python benchmarks/placement.py [vgg5 vgg9 vgg11] [--time-steps 8]

The mapping depends on shapes and weight bits only, so the weights need no training; the events are those of random weights.
"""

import argparse
import time

import torch

from hardspike.deploy.emulator import Emulator
from hardspike.deploy.fold import fold_network
from hardspike.deploy.placement import place
from hardspike.deploy.placement_events import PlacedNetwork
from hardspike.deploy.placement_price import price_placed
from hardspike.deploy.process_graph import ProcessGraph
from hardspike.deploy.quantize import quantize_network
from hardspike.hw_profiles.profile import load_profile
from hardspike.snn.architecture import ImageInput
from hardspike.snn.blueprint import Blueprint
from hardspike.snn.errors import HardspikeError
from hardspike.snn.network import SpikingNetwork
from hardspike.snn.zoo import build_architecture

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)


def deployed(name: str, time_steps: int) -> ProcessGraph:
    blueprint = Blueprint(image=ImageInput(shape=(3, 32, 32), mean=MEAN, std=STD), num_classes=10)
    network = SpikingNetwork(build_architecture(name, blueprint), time_steps).eval()
    return quantize_network(fold_network(network), load_profile("loihi2"))[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=["vgg5", "vgg9", "vgg11"])
    parser.add_argument("--time-steps", type=int, default=8)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.networks:
        graph = deployed(name, arguments.time_steps)
        emulator, image = Emulator(graph), torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        for chip in ("loihi1", "loihi2", "speck", "truenorth"):
            start = time.perf_counter()
            try:
                placement = place(graph, load_profile(chip), check_messages=False)
            except HardspikeError as error:
                print(f"{name} on {chip}: {time.perf_counter() - start:.2f} s, refused: {error}")
                continue
            placed = time.perf_counter()
            line = f"{name} on {chip}: {len(placement.cores)} cores, {placement.chips} chips, placed in {placed - start:.2f} s"
            bindings = ", ".join(f"{layer.name} {len(layer.cores)} ({layer.binding})" for layer in placement.layers)
            if chip == "loihi1":
                network = PlacedNetwork(graph, placement)
                built = time.perf_counter()
                with torch.no_grad(), emulator.watching() as sent:
                    emulator(image.double())
                run = time.perf_counter()
                priced = price_placed(network, network.count(sent), [load_profile(chip)])
                low, high = priced.dynamic_interval_j()
                line += (
                    f", routes in {built - placed:.2f} s, events of a sample in {time.perf_counter() - run:.2f} s: "
                    f"{float(low) * 1e6:.1f} to {float(high) * 1e6:.1f} uJ"
                )
            print(f"{line}\n  {bindings}")


if __name__ == "__main__":
    main()
