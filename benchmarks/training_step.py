"""CPU time of one training step and one inference of a small spiking network: a plain loop over timesteps, ours, other packages.

    python benchmarks/training_step.py [--rounds 10] [--batch 64] [--peers]

Conv(1->32) - IF - pool - Conv(32->64) - IF - pool - Linear on 28 x 28 images, T = 8, hard reset with its gradient attached,
triangular surrogate, logits the mean over T. One thread; each round runs every network once, on the same weights and images.
The other packages get the first convolution once per image, as ours does; what is not installed is named and left out.
Channels last sums convolutions in another order, which can move a potential across the threshold: a spike more or less, hence
its difference. The resets of sinabs carry no gradient.
"""

import argparse
import copy
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from importlib import metadata
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardspike.snn.architecture import AveragePool, Convolution, Dense, Flatten, ImageInput, Spiking, chain
from hardspike.snn.network import SpikingNetwork
from hardspike.snn.neuron import plain_torch

T, THRESHOLD = 8, 0.5
REFERENCE = "plain loop"
Forward = Callable[[Tensor], Tensor]


class Spike(torch.autograd.Function):
    """Heaviside with the triangular surrogate of width 1."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return (z >= 0).to(z.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        (z,) = ctx.saved_tensors
        grad: Tensor = grad_outputs[0] * (1 - z.abs()).clamp(min=0)
        return grad


spike: Callable[[Tensor], Tensor] = Spike.apply


class PlainLoop(nn.Module):
    """The definition: everything at every step, one autograd node per operation."""

    def __init__(self, time_steps: int = T) -> None:
        super().__init__()
        self.time_steps = time_steps
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1, bias=False)
        self.fc = nn.Linear(64 * 7 * 7, 10)

    def forward(self, images: Tensor) -> Tensor:
        first = second = logits = torch.zeros(())
        for _ in range(self.time_steps):
            first = first + self.conv1(images)
            spikes = spike(first - THRESHOLD)
            first = first * (1 - spikes)
            second = second + self.conv2(F.avg_pool2d(spikes, 2))
            spikes = spike(second - THRESHOLD)
            second = second * (1 - spikes)
            logits = logits + self.fc(F.avg_pool2d(spikes, 2).flatten(1))
        return logits / self.time_steps


def ours(weights: PlainLoop, memory: torch.memory_format, time_steps: int = T) -> SpikingNetwork:
    def convolution(channels: int) -> Convolution:
        return Convolution(out_channels=channels, kernel_size=(3, 3), padding=(1, 1))

    pool = AveragePool(kernel_size=(2, 2))
    architecture = chain(
        ImageInput(shape=(1, 28, 28), mean=(0.0,), std=(1.0,)),
        [
            ("conv1", convolution(32)),
            ("if1", Spiking()),
            ("pool1", pool),
            ("conv2", convolution(64)),
            ("if2", Spiking()),
            ("pool2", pool),
            ("flatten", Flatten()),
            ("fc", Dense(out_features=10, bias=True)),
        ],
    )
    network = SpikingNetwork(architecture, time_steps)
    network.load_state_dict({f"layers.{key}": value for key, value in weights.state_dict().items()}, strict=False)
    for neuron in network.neurons().values():
        neuron.threshold.data.fill_(THRESHOLD)
    if memory == torch.channels_last:
        network.use_channels_last()
    return network


class LayerWise(nn.Module):
    """Whole layers over [T, B, ...] with a package's own multi-step neurons."""

    def __init__(self, weights: PlainLoop, neurons: Callable[[], Callable[[Tensor], Tensor]]) -> None:
        super().__init__()
        self.conv1, self.conv2, self.fc = (copy.deepcopy(m) for m in (weights.conv1, weights.conv2, weights.fc))
        self.neurons = neurons

    def forward(self, images: Tensor) -> Tensor:
        current_TB = self.conv1(images).expand(T, -1, -1, -1, -1)
        pooled = F.avg_pool2d(self.neurons()(current_TB).flatten(0, 1), 2)
        current_TB = self.conv2(pooled).unflatten(0, (T, -1))
        pooled = F.avg_pool2d(self.neurons()(current_TB).flatten(0, 1), 2)
        logits: Tensor = self.fc(pooled.flatten(1)).unflatten(0, (T, -1)).mean(0)
        return logits


def snntorch(weights: PlainLoop) -> nn.Module:
    from snntorch import Leaky

    class Looped(nn.Module):
        """snnTorch's neurons are single-step: its own tutorials loop like this."""

        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2, self.fc = (copy.deepcopy(m) for m in (weights.conv1, weights.conv2, weights.fc))
            settings: dict[str, Any] = {"threshold": THRESHOLD, "reset_mechanism": "zero", "reset_delay": False}
            self.if1, self.if2 = (Leaky(beta=1.0, spike_grad=spike, **settings) for _ in range(2))

        def forward(self, images: Tensor) -> Tensor:
            current, logits = self.conv1(images), []
            first, second = torch.zeros(()), torch.zeros(())
            for _ in range(T):
                spikes, first = self.if1(current, first.expand_as(current))
                driven = self.conv2(F.avg_pool2d(spikes, 2))
                spikes, second = self.if2(driven, second.expand_as(driven))
                logits.append(self.fc(F.avg_pool2d(spikes, 2).flatten(1)))
            return torch.stack(logits).mean(0)

    return Looped()


def spikingjelly(weights: PlainLoop) -> nn.Module:
    from spikingjelly.activation_based.neuron import IFNode
    from spikingjelly.activation_based.surrogate import PiecewiseQuadratic

    return LayerWise(
        weights,
        lambda: IFNode(THRESHOLD, v_reset=0.0, surrogate_function=PiecewiseQuadratic(1.0), step_mode="m"),
    )


def sinabs(weights: PlainLoop) -> nn.Module:
    from sinabs.activation import MembraneReset, SingleSpike
    from sinabs.layers import IAF

    def slope(potential: Tensor, threshold: Tensor) -> Tensor:
        return (1 - (potential - threshold).abs()).clamp(min=0)

    def neurons() -> Callable[[Tensor], Tensor]:
        layer = IAF(
            spike_threshold=torch.tensor(THRESHOLD),
            spike_fn=SingleSpike,
            reset_fn=MembraneReset(),
            surrogate_grad_fn=slope,
        )
        return lambda current_TB: layer(current_TB.transpose(0, 1)).transpose(0, 1)  # its tensors are [B, T, ...]

    return LayerWise(weights, neurons)


def norse(weights: PlainLoop) -> nn.Module:
    from norse.torch import IAF, IAFParameters

    parameters = IAFParameters(
        v_th=torch.tensor(THRESHOLD), v_reset=torch.tensor(0.0), method="triangle", alpha=torch.tensor(1.0)
    )
    return LayerWise(weights, lambda: lambda current_TB: IAF(parameters)(current_TB)[0])


def built_peers(weights: PlainLoop, images: Tensor) -> Iterator[tuple[str, nn.Module]]:
    for name, build in PEERS.items():
        try:
            network = build(weights)
            inference(network, images)
        except (ImportError, AttributeError) as error:  # not installed, or made for another torch
            print(f"{name} is left out: {error}")
            continue
        yield f"{name} {metadata.version(name)}", network


PEERS = {"snntorch": snntorch, "spikingjelly": spikingjelly, "sinabs": sinabs, "norse": norse}


def process_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def training_step(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    """SGD with a rate of 0: the step costs the same and every round sees the same weights."""
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.0)
    F.cross_entropy(network(images), labels).backward()
    optimizer.step()


def clear_gradients(network: nn.Module) -> None:
    for parameter in network.parameters():
        parameter.grad = None


def inference(network: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = network(images)
    return logits


def weight_gradients(network: nn.Module) -> dict[str, Tensor]:
    return {
        name.removeprefix("layers."): parameter.grad.contiguous()
        for name, parameter in network.named_parameters()
        if parameter.grad is not None
    }


def kept_megabytes(network: nn.Module, images: Tensor) -> float:
    """Bytes that the forward pass keeps for the backward pass, parameters and images left out, each storage once."""
    given = {t.untyped_storage().data_ptr() for t in (*network.parameters(), images)}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in given:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = network(images)
    del logits
    return sum(kept.values()) / 1e6


def print_times(
    networks: dict[str, tuple[nn.Module, Callable[[], AbstractContextManager[None]]]],
    rounds: int,
    images: Tensor,
    labels: Tensor,
) -> None:
    steps: dict[str, list[float]] = {name: [] for name in networks}
    answers: dict[str, list[float]] = {name: [] for name in networks}
    logits, gradients = {}, {}
    for turn in range(rounds + 1):
        for name, (network, block) in networks.items():
            clear_gradients(network)
            with block():
                network.train()
                step = process_seconds(lambda network=network: training_step(network, images, labels))
                network.eval()
                answer = process_seconds(lambda network=network: inference(network, images))
                if turn == 0:  # compiles and warms up
                    logits[name], gradients[name] = inference(network, images), weight_gradients(network)
                    continue
            steps[name].append(step)
            answers[name].append(answer)
    print(f"{'':<36}{'training step':>22}{'inference':>22}{'logits':>12}{'gradients':>12}")
    base = statistics.median(steps[REFERENCE]), statistics.median(answers[REFERENCE])
    for name in networks:
        step, answer = statistics.median(steps[name]), statistics.median(answers[name])
        distance = float((logits[name] - logits[REFERENCE]).abs().max())
        relative = max(
            float((gradients[name][key] - expected).abs().max() / expected.abs().max())
            for key, expected in gradients[REFERENCE].items()
        )
        print(
            f"{name:<36}{1000 * step:>12.1f} ms {step / base[0]:>6.2f}{1000 * answer:>12.1f} ms {answer / base[1]:>6.2f}"
            f"{distance:>12.1e}{relative:>12.1e}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--peers", action="store_true", help=f"time those of {', '.join(PEERS)} that are installed")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    reference = PlainLoop()
    nn.init.kaiming_normal_(reference.conv1.weight, mode="fan_in")
    nn.init.kaiming_normal_(reference.conv2.weight, mode="fan_in")
    images, labels = torch.rand(arguments.batch, 1, 28, 28), torch.randint(10, (arguments.batch,))
    networks: dict[str, tuple[nn.Module, Callable[[], AbstractContextManager[None]]]] = {
        REFERENCE: (reference, nullcontext)
    }
    for layout, memory in (("contiguous", torch.contiguous_format), ("channels last", torch.channels_last)):
        networks[f"ours, {layout}"] = ours(reference, memory), nullcontext
        networks[f"ours, {layout}, plain torch"] = ours(reference, memory), plain_torch
    if arguments.peers:
        networks |= {name: (network, nullcontext) for name, network in built_peers(reference, images)}
    print(
        f"torch {torch.__version__}, one thread, batch {arguments.batch}, T = {T}; CPU time, median of {arguments.rounds} "
        f"rounds, ratio to the plain loop; largest difference to it, of gradients relative"
    )
    print_times(networks, arguments.rounds, images, labels)
    print("\nkept for the backward pass, MB" + "".join(f"{f'T = {steps}':>12}" for steps in (4, 8, 16)))
    for name in (REFERENCE, "ours, contiguous", "ours, channels last"):
        sizes = []
        for steps in (4, 8, 16):
            network = copy.deepcopy(networks[name][0])
            network.time_steps = steps
            sizes.append(kept_megabytes(network.train(), images))
        print(f"{name:<30}" + "".join(f"{size:>12.1f}" for size in sizes))
    print(f"largest resident memory so far: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
