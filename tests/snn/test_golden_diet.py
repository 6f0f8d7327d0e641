"""DIET-SNN's network: values, all gradients (thresholds and leaks too), dropout and threshold search equal its authors' code."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import golden_rsc as rsc
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hardspike.convert.thresholds import find_thresholds
from hardspike.snn.architecture import AveragePool, Convolution, Dense, Dropout, Flatten, ImageInput, Spiking, chain
from hardspike.snn.membrane import NeuronSettings
from hardspike.snn.network import DropoutMask, SpikingNetwork
from hardspike.snn.neuron import plain_torch
from hardspike.snn.surrogate import parse_surrogate, surrogate_gradient

FILE = "diet_T4"
DATA = rsc.arrays(FILE)
LABELS = DATA["in_y"].long()
NEURONS = ("lif1", "lif2", "lif3")
LINEAR = parse_surrogate("linear:0.3")


def _network() -> SpikingNetwork:
    spiking = Spiking(neuron=NeuronSettings(reset="soft", strict=True, detach_reset=True))
    architecture = chain(
        ImageInput(shape=(3, 8, 8), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        [
            ("conv1", Convolution(out_channels=4, kernel_size=(3, 3), padding=(1, 1))),
            ("lif1", spiking),
            ("pool", AveragePool(kernel_size=(2, 2))),
            ("conv2", Convolution(out_channels=6, kernel_size=(3, 3), padding=(1, 1))),
            ("lif2", spiking),
            ("drop2", Dropout(share=0.2)),
            ("flatten", Flatten()),
            ("fc1", Dense(out_features=10)),
            ("lif3", spiking),
            ("drop3", Dropout(share=0.2)),
            ("fc2", Dense(out_features=5)),
        ],
        readout="sum",
    )
    net = SpikingNetwork(architecture, 4).double()
    for name in ("conv1", "conv2", "fc1", "fc2"):
        net.get_parameter(f"layers.{name}.weight").data.copy_(DATA[f"w_{name}_weight"])
    for index, neuron in enumerate(net.neurons().values()):
        neuron.threshold.data.copy_(DATA["in_vth"][index])
        neuron.leak.data.copy_(DATA["in_leak"][index])
        neuron.threshold.requires_grad_(True)
        neuron.leak.requires_grad_(True)
    return net


def _use_golden_masks(net: SpikingNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = {net.layers[f"drop{k}"]: DATA[f"in_dropmask_lif{k}"] / 0.8 for k in (2, 3)}

    def draw(self: DropoutMask, *_: object) -> Tensor:
        return masks[self]

    monkeypatch.setattr(DropoutMask, "draw", draw)


@pytest.mark.parametrize("kernel", [nullcontext, plain_torch], ids=["fused", "plain"])
@pytest.mark.parametrize("mode", ["eval", "drop"])
def test_forward_and_all_gradients(
    mode: str, kernel: Callable[[], AbstractContextManager[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = _network().train(mode == "drop")
    _use_golden_masks(net, monkeypatch)
    images = DATA["in_x"].clone().requires_grad_(True)
    with kernel(), surrogate_gradient(LINEAR), net.recording() as (spikes, _):
        logits = net(images)
    loss = F.cross_entropy(logits, LABELS)
    loss.backward()
    rsc.assert_golden(logits, f"{mode}_logits_sum", FILE)
    rsc.assert_golden(loss, f"{mode}_loss_ce", FILE)
    for name in NEURONS:
        assert torch.equal(spikes[name], DATA[f"{mode}_spikes_{name}"])
    gradients = {"x": images.grad}
    gradients |= {f"{n}_weight": net.get_parameter(f"layers.{n}.weight").grad for n in ("conv1", "conv2", "fc1", "fc2")}
    gradients["vth"] = torch.stack([n.threshold.grad for n in net.neurons().values() if n.threshold.grad is not None])
    gradients["leak"] = torch.stack([n.leak.grad for n in net.neurons().values() if n.leak.grad is not None])
    assert {f"{mode}_grad_{name}" for name in gradients} == {key for key in DATA if key.startswith(f"{mode}_grad_")}
    for name, found in gradients.items():
        assert found is not None
        rsc.assert_golden(found, f"{mode}_grad_{name}", FILE)


@pytest.mark.parametrize("mode", ["eval", "drop"])
def test_potentials_left_after_the_last_step(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = _network().train(mode == "drop")
    _use_golden_masks(net, monkeypatch)
    with net.carrying():
        net(DATA["in_x"])
        for name in ("lif1", "lif3"):
            left = net.neurons()[name].carried
            assert left is not None
            rsc.assert_golden(left, f"{mode}_mem_{name}_final", FILE)


def test_threshold_search_by_steps() -> None:
    net = _network()
    for neuron in net.neurons().values():
        neuron.leak.data.fill_(1.0)
    found = find_thresholds(net, [DATA["in_calib_batch"]], percent=99.7, steps=20, per_step=True)
    assert tuple(found) == NEURONS and net.time_steps == 4
    rsc.assert_golden(torch.tensor(list(found.values()), dtype=torch.float64), "found_thresholds", FILE)
