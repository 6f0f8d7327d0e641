"""Samples per second of the emulator and of Lava's simulator on one deployed network, in one run, both sides in turn.

    python benchmarks/emulator.py [runs/digits] [--rounds 3]

Lava's start-up is left out in its favour: its time per sample is what a longer stream costs more than a shorter one.
CPU time counts Lava's child processes; PyTorch uses one thread.
"""

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from hardspike.deploy.emulator import Emulator, EmulatorBackend
from hardspike.deploy.graph_file import load_graph
from hardspike.deploy.input_coding import encode_images
from hardspike.deploy.lava_backend import LavaBackend, lava_available
from hardspike.snn.data import DataSettings, load_dataset

SHORT, LONG = 4, 20  # Lava's two streams


def measure(work: Callable[[], object]) -> tuple[float, float]:
    """(wall, CPU) seconds of `work`, children included."""

    def cpu() -> float:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(usage.ru_utime + usage.ru_stime for usage in used)

    wall_start, cpu_start = time.perf_counter(), cpu()
    work()
    return time.perf_counter() - wall_start, cpu() - cpu_start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, default=Path("runs/digits"), help="folder of a finished run")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    graph = load_graph(arguments.run / "graph.safetensors")
    images = load_dataset(DataSettings()).test.images
    messages = encode_images(images, graph)
    emulator = Emulator(graph)

    def classify() -> None:
        with torch.no_grad():
            for batch in images.split(128):
                emulator(batch)

    def trace() -> None:
        EmulatorBackend().run(graph, messages)

    def lava(count: int) -> Callable[[], object]:
        return lambda: LavaBackend().run(graph, messages[:count])

    sides: dict[str, list[tuple[float, float]]] = {"emulator, classes": [], "emulator, all events": [], "Lava": []}
    measure(classify)
    for _ in range(arguments.rounds):
        for name, work in (("emulator, classes", classify), ("emulator, all events", trace)):
            wall, cpu = measure(work)
            sides[name].append((wall / len(images), cpu / len(images)))
        if lava_available():
            short, long = measure(lava(SHORT)), measure(lava(LONG))
            sides["Lava"].append(((long[0] - short[0]) / (LONG - SHORT), (long[1] - short[1]) / (LONG - SHORT)))
    print(f"{arguments.run}: {len(graph.layers)} layers, T = {graph.time_steps}, median of {arguments.rounds} rounds")
    medians = {
        name: tuple(statistics.median(values) for values in zip(*times, strict=True))
        for name, times in sides.items()
        if times
    }
    for name, (wall, cpu) in medians.items():
        print(f"  {name:<22}{1 / wall:>10.1f} samples/s (wall) {1000 * cpu:>10.3f} ms CPU per sample")
    if "Lava" not in medians:
        print("  Lava is not installed here (Python 3.10: pip install hardspike[lava]), so there is no ratio")
        return
    for name in ("emulator, classes", "emulator, all events"):
        ratios = [lava_time / own for lava_time, own in zip(medians["Lava"], medians[name], strict=True)]
        print(
            f"  {name} / Lava: {ratios[0]:.0f} times the samples per second (wall), {ratios[1]:.0f} times by CPU time"
        )


if __name__ == "__main__":
    main()
