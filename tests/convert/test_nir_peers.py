"""Networks of snnTorch, sinabs and Norse, exported by themselves: imported here, they fire the same spikes."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_networks import ARCHITECTURES, build
from torch import Tensor, nn

from hardspike.convert.nir_in import read_nir
from hardspike.convert.nir_out import write_nir
from hardspike.deploy.compile import DeploySettings, compile_network
from hardspike.deploy.emulator import EmulatorBackend
from hardspike.deploy.input_coding import encode_images
from hardspike.snn.architecture import AveragePool, Convolution, ImageInput, Spiking, chain
from hardspike.snn.membrane import NeuronSettings
from hardspike.snn.network import SpikingNetwork

STEPS = 8


def needs(*packages: str) -> Any:
    missing = [package for package in packages if find_spec(package) is None]
    if "snntorch" in packages and find_spec("nir") is not None and find_spec("nir.ir.threshold") is None:
        missing.append("nir 1.0.6 or newer, which snnTorch writes with,")
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not installed (requirements/peers.txt)")


pytestmark = [
    pytest.mark.peers,
    needs("nir"),
    pytest.mark.filterwarnings("ignore:nirtorch.extract_nir_graph is being deprecated:DeprecationWarning"),
]


def images(count: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 1, 8, 8), generator=generator).double() / 255


def layers(*neurons: nn.Module, pool: nn.Module, gain: float = 1.0) -> nn.Sequential:
    """Convolution, neurons, pool, convolution, neurons, dense, neurons; float32, as all of them export."""
    torch.manual_seed(4)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        neurons[0],
        pool,
        nn.Conv2d(4, 6, 3, stride=2),
        neurons[1],
        nn.Flatten(),
        nn.Linear(6, 5),
        *neurons[2:],
    )
    with torch.no_grad():
        for module in net:
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.weight.mul_(2 * gain)
                assert module.bias is not None
                module.bias.abs_().mul_(gain)
    return net


def recorded(net: SpikingNetwork, batch: Tensor) -> list[Tensor]:
    """Spikes of each neuron layer, [T, B, ...], in float64."""
    net.double()
    with torch.no_grad(), net.recording() as (spikes, _):
        net(batch)
    return list(spikes.values())


def assert_same_spikes(found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.equal(mine, theirs)
        assert 0.02 < float(mine.mean()) < 0.9, "silent or always firing neurons prove nothing"


def stepwise(
    net: nn.Sequential,
    batch: Tensor,
    neurons: tuple[int, ...],
    run: Callable[..., Any] = lambda module, value, _: module(value),
) -> list[Tensor]:
    """Spikes of a network that is called once per step, in float64; `run(module, value, index)` runs one module."""
    net.double()
    spikes: dict[int, list[Tensor]] = {index: [] for index in neurons}
    with torch.no_grad():
        for _ in range(STEPS):
            value = batch
            for index, module in enumerate(net):
                value = run(module, value.double(), index)
                if index in spikes:
                    spikes[index].append(value)
    return [torch.stack(found) for found in spikes.values()]


# snnTorch writes zero and subtract alike. Subtract after the leak is ours only without a leak.
@needs("snntorch", "nirtorch")
@pytest.mark.parametrize(
    ("beta", "mechanism", "reset"), [(0.9, "zero", "hard"), (1.0, "zero", "hard"), (1.0, "subtract", "soft")]
)
@pytest.mark.filterwarnings("ignore:divide by zero encountered:RuntimeWarning")  # beta = 1 is tau = inf
def test_snntorch(beta: float, mechanism: str, reset: Any, tmp_path: Path) -> None:
    import nir
    import snntorch
    from snntorch.export_nir import export_to_nir

    def leaky(*shape: int, **settings: Any) -> nn.Module:
        # Its export takes the layer's shape from beta and threshold.
        values = {"beta": torch.full(shape, beta), "threshold": torch.full(shape, 0.6)}
        module: nn.Module = snntorch.Leaky(**values, init_hidden=True, reset_mechanism=mechanism, **settings)
        return module

    net = layers(leaky(4, 8, 8), leaky(6, 1, 1), leaky(5), pool=nn.AvgPool2d(2), gain=1.5)
    nir.write(tmp_path / "a.nir", export_to_nir(net, images(1).float(), ignore_dims=[0]))
    ours = read_nir(tmp_path / "a.nir", dt=1e-4, time_steps=STEPS, neuron=NeuronSettings(reset=reset, strict=True))
    expected = stepwise(net, images(), (1, 4, 7))
    assert_same_spikes(recorded(ours, images()), expected)


@needs("snntorch", "nirtorch")
@pytest.mark.filterwarnings("ignore:divide by zero encountered:RuntimeWarning")
def test_snntorch_on_the_chip(tmp_path: Path) -> None:
    """Weights that 8 bits hold and thresholds between two sums: the integers fire exactly snnTorch's spikes."""
    import nir
    import snntorch
    from snntorch.export_nir import export_to_nir

    def leaky(*shape: int) -> nn.Module:
        values = {"beta": torch.ones(shape), "threshold": torch.full(shape, 97 / 256)}
        module: nn.Module = snntorch.Leaky(**values, init_hidden=True, reset_mechanism="zero")
        return module

    net = layers(leaky(4, 8, 8), leaky(6, 1, 1), pool=nn.AvgPool2d(1))
    net[3] = nn.Conv2d(4, 6, 8)
    rng = np.random.default_rng(2)
    with torch.no_grad():
        for index, spread in ((0, 14), (3, 127), (6, 127)):  # sums over 255 grey values stay in the accumulator
            weight = torch.from_numpy(rng.integers(-spread, spread + 1, net[index].weight.shape))
            weight[:, 0].view(len(weight), -1)[:, 0] = 127
            net[index].weight.copy_(weight / 128)
            net[index].bias.zero_()
    nir.write(tmp_path / "a.nir", export_to_nir(net, images(1).float(), ignore_dims=[0]))
    ours = read_nir(tmp_path / "a.nir", dt=1e-4, time_steps=STEPS)
    graph, _ = compile_network(ours, DeploySettings())
    trace = EmulatorBackend().run(graph, encode_images(images(), graph), keep_states=True)
    assert trace.states is not None
    expected = stepwise(net, images(), (1, 4))
    found = [trace.states.spikes[layer.name].double() for layer in graph.layers if layer.neurons.spiking]
    assert_same_spikes(found, expected)


@needs("snntorch", "nirtorch")
def test_snntorch_runs_what_we_write(tmp_path: Path) -> None:
    """Hard reset and leak, images normalised in the file itself; the mean over steps of its spikes are our logits."""
    import nir
    from snntorch.import_nir import import_from_nir

    neuron = NeuronSettings(leak=0.9, strict=True)
    architecture = chain(
        ImageInput(shape=(1, 8, 8), mean=(0.3,), std=(0.25,)),
        [
            ("a", Convolution(out_channels=4, kernel_size=(3, 3), padding=(1, 1))),
            ("fire", Spiking(neuron=neuron)),
            ("pool", AveragePool(kernel_size=(2, 2))),
            ("b", Convolution(out_channels=9, kernel_size=(4, 4), bias=True)),
            ("last", Spiking(neuron=neuron)),
        ],
    )
    ours = SpikingNetwork(architecture, STEPS, seed=3).eval()
    write_nir(tmp_path / "a.nir", ours)
    theirs = import_from_nir(nir.read(tmp_path / "a.nir"))
    state, spikes = None, []
    with torch.no_grad():
        for _ in range(STEPS):
            fired, state = theirs(images().float(), state)
            spikes.append(fired)
        assert torch.equal(torch.stack(spikes).mean(0), ours(images().float()))
    assert 0.02 < float(torch.stack(spikes).mean()) < 0.9


@needs("sinabs", "nirtorch")
@pytest.mark.parametrize(("reset", "name"), [("soft", "MembraneSubtract"), ("hard", "MembraneReset")])
def test_sinabs_integrate_and_fire(reset: Any, name: str, tmp_path: Path) -> None:
    """IF without a unit of time, fires at the threshold; sums over windows."""
    import nir
    import sinabs.activation
    import sinabs.layers
    from sinabs.nir import to_nir

    def neurons() -> nn.Module:
        fires = {"spike_fn": sinabs.activation.SingleSpike, "reset_fn": getattr(sinabs.activation, name)()}
        module: nn.Module = sinabs.layers.IAFSqueeze(batch_size=6, spike_threshold=torch.tensor(0.8), **fires)
        return module

    net = layers(neurons(), neurons(), pool=sinabs.layers.SumPool2d(2), gain=0.5)
    graph = to_nir(net, images().float())
    graph.infer_types()  # nir does not write a convolution without its input's shape
    nir.write(tmp_path / "a.nir", graph)
    for index in (1, 4):
        net[index].reset_states()
    neuron = NeuronSettings(reset=reset, strict=False)
    ours = read_nir(tmp_path / "a.nir", dt=1.0, time_steps=STEPS, neuron=neuron)
    # Its layers take (batch * time), batch first, and keep their state.
    expected = stepwise(net, images(), (1, 4))
    assert_same_spikes(recorded(ours, images()), expected)


@needs("sinabs", "nirtorch")
def test_sinabs_leak_is_the_exponential_step(tmp_path: Path) -> None:
    import nir
    import sinabs.activation
    import sinabs.layers
    from sinabs.nir import to_nir

    fires = {"spike_fn": sinabs.activation.SingleSpike, "reset_fn": sinabs.activation.MembraneReset()}
    tau = torch.full((5,), 6.0)
    lif = sinabs.layers.LIFSqueeze(
        tau_mem=tau, batch_size=6, spike_threshold=torch.full((5,), 0.2), norm_input=True, **fires
    )
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), lif)
    graph = to_nir(net, images().float())
    graph.infer_types()
    nir.write(tmp_path / "a.nir", graph)
    lif.reset_states()
    ours = read_nir(
        tmp_path / "a.nir",
        dt=1.0,
        time_steps=STEPS,
        neuron=NeuronSettings(strict=False),
        discretisation="exponential",
    )
    expected = stepwise(net, images(), (2,))
    assert_same_spikes(recorded(ours, images()), expected)


@needs("norse", "nirtorch")
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize(("kind", "dt"), [("LIFBoxCell", 1e-6), ("IAFCell", 1.0)])
def test_norse(kind: str, dt: float, tmp_path: Path) -> None:
    """It writes time constants times its dt of 1e-3, so that ours is dt squared; its IF has no unit of time."""
    import nir
    import norse.torch
    from norse.torch.utils.export_nir import to_nir

    def cell(size: int) -> nn.Module:
        threshold = torch.full((size,), 0.2 if kind == "LIFBoxCell" else 0.7)
        if kind == "IAFCell":
            made: nn.Module = norse.torch.IAFCell(p=norse.torch.IAFParameters(v_th=threshold))
        else:
            rates = {"tau_mem_inv": torch.full((size,), 300.0), "v_leak": torch.zeros(size)}
            made = norse.torch.LIFBoxCell(p=norse.torch.LIFBoxParameters(v_th=threshold, **rates))
        return made

    torch.manual_seed(4)
    net = norse.torch.SequentialState(nn.Linear(64, 12), cell(12), nn.Linear(12, 5), cell(5))
    nir.write(tmp_path / "a.nir", to_nir(net, images(1).float().flatten(1)))
    ours = read_nir(tmp_path / "a.nir", dt=dt, time_steps=STEPS, image_shape=(1, 8, 8))
    state: dict[int, Any] = {}

    def run(module: nn.Module, value: Tensor, index: int) -> Tensor:
        if isinstance(module, nn.Linear):
            result: Tensor = module(value)
            return result
        result, state[index] = module(value, state.get(index))
        return result

    expected = stepwise(nn.Sequential(*net), images().flatten(1), (1, 3), run)
    assert_same_spikes(recorded(ours, images()), expected)


@pytest.mark.parametrize("name", [*ARCHITECTURES])
def test_the_nir_package_reads_ours_and_we_read_what_it_writes(name: str, tmp_path: Path) -> None:
    import nir

    net = build(ARCHITECTURES[name])
    write_nir(tmp_path / "a.nir", net)
    # Its type check takes kernels for square and groups for one (nir 1.0.8, ir/conv.py), and older releases have none.
    new = {"type_check": "kernel" not in name and "group" not in name and "output" not in name}
    graph = nir.read(tmp_path / "a.nir", **({} if nir.version == "1.0.4" else new))
    nir.write(tmp_path / "b.nir", graph)
    back, whole = read_nir(tmp_path / "b.nir"), read_nir(tmp_path / "a.nir")
    assert back.architecture == whole.architecture and back.time_steps == net.time_steps
    assert all(torch.equal(value, whole.state_dict()[key]) for key, value in back.state_dict().items())
