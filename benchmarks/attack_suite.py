"""What the surrogate ensemble costs: each member on what still stands, against 19 attacks one after another on everything.

    python benchmarks/attack_suite.py [--eps 0.2] [--images 360] [--rounds 7]

Process CPU time, one thread, on the adversarially trained spiking network of tests/golden (digits, T = 4). Also the cost of one
PGD step over that of the forward pass and the gradient it cannot do without, on Conv(1->32) - IF - pool - Conv(32->64) - IF - pool -
Linear, 28 x 28, T = 8. Ratios of one run; the machine may be shared.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from hardspike.attack.ball import Ball
from hardspike.attack.evaluation import Attacker, interval, member_seed, predict, run_members
from hardspike.attack.gradient import cross_entropy
from hardspike.attack.members import Member, parse_member
from hardspike.attack.pgd import pgd
from hardspike.attack.problem import Problem, SampleDraws
from hardspike.attack.suites import ensemble
from hardspike.snn.architecture import AveragePool, Convolution, Dense, Flatten, ImageInput, Spiking, chain
from hardspike.snn.checkpoint import load_network
from hardspike.snn.data import ImageSet, load_dataset
from hardspike.snn.network import SpikingNetwork
from hardspike.snn.settings import DataSettings

NETWORK = Path(__file__).parents[1] / "tests" / "golden" / "small_snn_adversarial.safetensors"
STEPS = 20
BATCH = 128


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def one_after_another(network: SpikingNetwork, data: ImageSet, members: list[Member], eps: float) -> torch.Tensor:
    """Every attack on all samples to its last step, as a loop over the members does it; which samples survive all of them."""
    standing = predict(network, data.images) == data.labels
    for member in members:
        draws = SampleDraws(member_seed(0, member.name), torch.arange(len(data)))
        whole = Problem(model=network, labels=data.labels, ball=Ball.around(data.images, eps), draws=draws)
        for rows in torch.arange(len(data)).split(BATCH):
            attacked = replace(member, last=True).perturb(whole.take(rows))
            standing[rows] &= predict(network, attacked) == data.labels[rows]
    return standing


def suite(network: SpikingNetwork, data: ImageSet, members: list[Member], eps: float) -> torch.Tensor:
    *_, made = run_members(Attacker(model=network, data=data, eps=eps, batch_size=BATCH), members)
    return made.broken_by == -1


def ensemble_ratio(network: SpikingNetwork, data: ImageSet, eps: float) -> None:
    members = [parse_member(name) for name in ensemble(f"pgd{STEPS}")]
    found: dict[str, torch.Tensor] = {}

    def plain() -> None:
        found["plain"] = one_after_another(network, data, members, eps)

    def ours() -> None:
        found["ours"] = suite(network, data, members, eps)

    seconds = {"ours": cpu_seconds(ours), "plain": cpu_seconds(plain)}
    clean = float((predict(network, data.images) == data.labels).double().mean())
    print(f"PGD-{STEPS} with the 19 surrogates, eps {eps:g}, n = {len(data)}, clean {100 * clean:.1f} %")
    for name, text in (("plain", "one after another, all samples"), ("ours", "hardspike")):
        share = float(found[name].double().mean())
        low, high = interval(share, len(data))
        print(f"  {text:<32} {seconds[name]:8.1f} s   robust {100 * share:5.1f} % [{100 * low:.1f}, {100 * high:.1f}]")
    extra = int((found["plain"] & ~found["ours"]).sum())
    missed = int((found["ours"] & ~found["plain"]).sum())
    print(f"  broken only by hardspike {extra}, only by the other {missed}")
    print(f"  ratio {seconds['ours'] / seconds['plain']:.3f} (bar 0.25)")


def step_ratio(rounds: int) -> None:
    """PGD steps of which no sample leaves, over the same number of forward passes and gradients."""
    image = ImageInput(shape=(1, 28, 28), mean=(0.5,), std=(0.5,))
    layers = [
        ("conv1", Convolution(out_channels=32, kernel_size=(3, 3), padding=(1, 1))),
        ("spike1", Spiking()),
        ("pool1", AveragePool(kernel_size=(2, 2))),
        ("conv2", Convolution(out_channels=64, kernel_size=(3, 3), padding=(1, 1))),
        ("spike2", Spiking()),
        ("pool2", AveragePool(kernel_size=(2, 2))),
        ("flat", Flatten()),
        ("head", Dense(out_features=10)),
    ]
    network = SpikingNetwork(chain(image, layers), 8, seed=0).eval()
    images = torch.rand((32, 1, 28, 28), generator=torch.Generator().manual_seed(0))
    labels = predict(network, images)
    ball = Ball.around(images, 1e-5)
    problem = Problem(model=network, labels=labels, ball=ball, draws=SampleDraws(0, torch.arange(len(labels))))
    steps = 5

    def bare() -> None:
        for _ in range(steps):
            x = images.detach().requires_grad_(True)
            torch.autograd.grad(cross_entropy(labels)(network(x)).sum(), x)

    def attack() -> None:
        pgd(problem, steps=steps, step_size=1e-6, start=images)

    bare(), attack()
    pairs = [(cpu_seconds(bare), cpu_seconds(attack)) for _ in range(rounds)]
    each = [statistics.median(column) / steps * 1000 for column in zip(*pairs, strict=True)]
    ratio = statistics.median(b / a for a, b in pairs)
    print(
        f"one PGD step, batch {len(labels)}: {each[1]:.1f} ms, forward and input gradient {each[0]:.1f} ms, ratio {ratio:.3f} (bar 1.05)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--eps", type=float, nargs="+", default=[0.2, 0.1])
    parser.add_argument("--images", type=int, default=360)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    network = load_network(NETWORK)
    data = load_dataset(DataSettings(dataset="digits")).test.first(arguments.images)
    step_ratio(arguments.rounds)
    for eps in arguments.eps:
        ensemble_ratio(network, data, eps)


if __name__ == "__main__":
    main()
