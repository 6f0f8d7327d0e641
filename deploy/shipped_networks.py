"""The networks and recordings that lava-dl's wheel carries beside its netx tests, against our emulator.

They are the ground truth that we did not make: spikes, currents and potentials recorded by lava-dl's authors. A neuron
of PilotNet that fires reads v = 128 in its recording, a code of Loihi's; potentials are compared where none fires.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from hardspike.deploy.compare import Equality
from hardspike.deploy.netx_file import read_netx
from hardspike.deploy.process_graph import DenseSynapse, GraphLayer, InputContract, NeuronGroup, ProcessGraph
from hardspike.deploy.stream_emulation import StreamedLayer, emulate_stream
from hardspike.hw_profiles.profile import load_profile
from hardspike.snn.architecture import INPUT
from hardspike.snn.errors import BackendError, FileError, HardspikeError

PILOTNET_LAYERS = ("input", "conv-0", "conv-1", "conv-2", "conv-3", "conv-4", "fc-0", "fc-1", "fc-2", "fc-3")
PILOTNET_PERIOD = 17  # steps between resets in all recordings but input-s and fc-3, which have
PILOTNET_SPIKE_PERIOD = 16
# Of lava-dl's tests/lava/lib/dl/netx/test_blocks.py, test_dense.
DENSE_THRESHOLD, DENSE_POTENTIAL_DECAY = 6, 415


Item = tuple[Tensor, Tensor, Tensor | None]  # found, recorded, and where to compare (None: everywhere)


def shipped_folder() -> Path:
    """Folder of lava-dl's netx tests, as the installed wheel's own list of files gives it."""
    try:
        listed = files("lava-dl") or []
    except PackageNotFoundError:
        raise BackendError(
            "shipped networks: lava-dl, which brings them, is not installed; "
            "run `pip install hardspike[lava]` on Python 3.10"
        ) from None
    for entry in listed:
        if entry.parts[-3:] == ("dl", "netx", "tiny.net"):
            return Path(str(entry.locate())).parent
    raise FileError("shipped networks: lava-dl is installed without its netx tests; reinstall its wheel from PyPI")


def compare_shipped_networks() -> list[Equality]:
    """Everything that the wheel ships for netx, one row per recording; rows with a reason could not be compared."""
    folder = shipped_folder()
    parts: list[Callable[[Path], Iterator[Equality]]] = [
        _tinynet,
        _pilotnet,
        _pilotnet_readout,
        _ntidigits,
        _dense_block,
        _mnist,
        _others,
    ]
    return [row for part in parts for row in part(folder)]


def _tinynet(folder: Path) -> Iterator[Equality]:
    graph = read_netx(folder / "tiny.net", time_steps=15)
    recorded = folder / "gts" / "tinynet"
    currents = _load(recorded / "input_bias.npy")
    streamed = emulate_stream(graph, currents.permute(2, 1, 0), num_steps=17, period=17)
    for index, (name, layer) in enumerate(zip(("input", "layer1", "output"), graph.layers, strict=True)):
        # (1, C, H, W, 16) with an empty first step; layer l begins l steps after the first.
        found = streamed[layer.name].spikes[index : index + 15]
        yield _compare(
            "tiny.net", f"{name}: spikes", [(found, _load(recorded / f"{name}.npy")[0].movedim(-1, 0)[1:], None)]
        )
    found = streamed[graph.layers[1].name].currents[1:16]
    truth = _load(recorded / "current.npy")[0].movedim(-1, 0)[1:] << graph.numerics.state_shift
    yield _compare("tiny.net", "layer1: currents", [(found, truth, None)])


def _pilotnet(folder: Path) -> Iterator[Equality]:
    recorded = folder / "gts" / "pilotnet_lif"
    graph = read_netx(recorded / "network.net")
    image = _load(recorded / "image.npy").permute(2, 1, 0)
    streamed = emulate_stream(graph, image, num_steps=24, period=PILOTNET_PERIOD)
    for name, layer in zip(PILOTNET_LAYERS[:-1], graph.layers, strict=False):
        spikes = _stream(recorded / f"{name}.npy")
        items: list[Item] = [(streamed[layer.name].spikes, spikes, None)]
        if name != "input":
            items.append((streamed[layer.name].currents, _stream(recorded / f"{name}-u.npy"), None))
            items.append((streamed[layer.name].potentials, _stream(recorded / f"{name}-v.npy"), spikes == 0))
        what = "spikes" if name == "input" else "spikes, currents, potentials"
        yield _compare("pilotnet_lif", f"{name}: {what}", items)
    first = replace(graph, layers=graph.layers[:1])
    found = emulate_stream(first, image, num_steps=24, period=PILOTNET_SPIKE_PERIOD)[graph.layers[0].name].spikes
    yield _compare("pilotnet_lif", "input-s: spikes", [(found, _stream(recorded / "input-s.npy"), None)])


def _pilotnet_readout(folder: Path) -> Iterator[Equality]:
    """fc-3 was recorded from the spikes input-s, one step longer, with every layer reset one step before its first message.

    That is netx's default reset_offset of 0 behind a source; our own streams use 1.
    """
    recorded = folder / "gts" / "pilotnet_lif"
    graph = read_netx(recorded / "network.net")
    spikes = _stream(recorded / "input-s.npy")
    second = graph.layers[1]
    driven = replace(
        graph,
        input=InputContract(shape=graph.input.shape, coding="binary", message_bits=1),
        layers=(replace(second, synapses=(replace(second.synapses[0], source=INPUT),)), *graph.layers[2:]),
    )
    longer = torch.cat([spikes, torch.zeros_like(spikes[:1])])
    streamed = emulate_stream(driven, longer, num_steps=25, period=PILOTNET_SPIKE_PERIOD, first_reset=0)
    found = streamed[graph.output.name]
    items: list[Item] = [
        (found.spikes, _stream(recorded / "fc-3-s.npy"), None),
        (found.currents, _stream(recorded / "fc-3-u.npy"), None),
        (found.potentials, _stream(recorded / "fc-3-v.npy"), None),
    ]
    yield _compare("pilotnet_lif", "fc-3: spikes, currents, potentials", items)


def _ntidigits(folder: Path) -> Iterator[Equality]:
    """Three dense layers with a delay per neuron, for all its synapses: the same spikes, later (no bias, no reset)."""
    recorded = folder / "gts" / "ntidigits"
    delays: dict[str, Tensor] = {}
    with tempfile.TemporaryDirectory() as temporary:
        plain = Path(temporary) / "without-delays.net"
        with h5py.File(recorded / "ntidigits.net", "r") as source, h5py.File(plain, "w") as target:
            layers = target.create_group("layer")
            for index in range(5):  # without the last, an average over labels, as in lava-dl's test
                source.copy(f"layer/{index}", layers, name=str(index))
                if "delay" in layers[str(index)]:
                    delays[f"dense{index}"] = torch.from_numpy(source[f"layer/{index}/delay"][()]).long()
                    del layers[f"{index}/delay"]
        spikes = _stream(recorded / "input.npy")
        graph = read_netx(plain, time_steps=len(spikes), coding="binary")
    found = emulate_stream(graph, spikes, num_steps=len(spikes), period=None, output_delays=delays)[graph.output.name]
    later = torch.cat([torch.zeros_like(found.spikes[:1]), found.spikes[:-1]])  # the recording starts one step earlier
    yield _compare("ntidigits", "output: spikes", [(later, _stream(recorded / "output.npy"), None)])


def _dense_block(folder: Path) -> Iterator[Equality]:
    recorded = folder / "gts" / "dense"
    weight = _load(recorded / "weight.npy").int().numpy()
    spikes = _stream(recorded / "in.npy")
    layer = GraphLayer(
        name="dense",
        shape=(len(weight),),
        synapses=(DenseSynapse(source=INPUT, weight=weight),),
        neurons=NeuronGroup(
            threshold=DENSE_THRESHOLD, bias=np.zeros(1, dtype=np.int32), potential_decay=DENSE_POTENTIAL_DECAY
        ),
    )
    graph = ProcessGraph(
        input=InputContract(shape=(weight.shape[1],), coding="binary", message_bits=1),
        layers=(layer,),
        time_steps=len(spikes),
        numerics=load_profile("loihi2").numerics,
        profile="loihi2",
    )
    found = emulate_stream(graph, spikes, num_steps=len(spikes), period=None)["dense"]
    current = _stream(recorded / "current.npy") << graph.numerics.state_shift
    truth = _stream(recorded / "out.npy")
    yield _compare("dense block", "spikes, currents", [(found.spikes, truth, None), (found.currents, current, None)])


def _mnist(folder: Path) -> Iterator[Equality]:
    graph = read_netx(folder / "mnist.net")
    currents = torch.linspace(0, 140, graph.input.shape[0]).long()
    streamed: dict[str, StreamedLayer] = emulate_stream(graph, currents, num_steps=graph.time_steps, period=None)
    fired = sum(int(layer.spikes.sum()) for layer in streamed.values())
    reason = f"no recording is shipped; read, and run on a ramp of currents: {fired} spikes in {graph.time_steps} steps"
    yield Equality(name="mnist.net", what="everything", reason=reason)


def _others(folder: Path) -> Iterator[Equality]:
    for name in ("network", "square_network"):
        path = folder / "gts" / "pilotnet_sdnn" / f"{name}.net"
        try:
            read_netx(path)
        except HardspikeError as error:
            reason = str(error).removeprefix(f"{path}: ")
        else:
            reason = "read_netx accepts it, but there is no comparison for it"
        yield Equality(name=f"pilotnet_sdnn/{name}.net", what="everything", reason=reason)
    for name, kind in (("complex_dense", "resonate-and-fire neurons"), ("tinynet_sdnn", "sigma-delta neurons")):
        yield Equality(
            name=name, what="everything", reason=f"{kind} have no counterpart in a ProcessGraph; supported: CUBA"
        )


def _load(path: Path) -> Tensor:
    """Integers, whatever type they were saved as."""
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise FileError(f"{path}: not readable ({error}); reinstall the wheel of lava-dl") from None
    return torch.from_numpy(array.astype(np.int64))


def _stream(path: Path) -> Tensor:
    """[steps, C, H, W] or [steps, N] of a recording in Lava's order (W, H, C, steps) or (N, steps)."""
    array = _load(path)
    return array.permute(*reversed(range(array.ndim)))


def _compare(name: str, what: str, items: list[Item]) -> Equality:
    compared, differing, first = 0, 0, ""
    for part, (found, recorded, mask) in zip(what.split(": ")[-1].split(", "), items, strict=True):
        if found.shape != recorded.shape:
            raise FileError(
                f"shipped networks: {name} {what} has shape {tuple(recorded.shape)}, expected {tuple(found.shape)}"
            )
        wrong = (found != recorded) if mask is None else (found != recorded) & mask
        compared += recorded.numel() if mask is None else int(mask.sum())
        differing += int(wrong.sum())
        if not first and wrong.any():
            step, *neuron = wrong.nonzero()[0].tolist()
            values = f"{int(found[step][tuple(neuron)])} instead of {int(recorded[step][tuple(neuron)])}"
            first = f"{part}, step {step}, neuron {neuron}: {values}"
    return Equality(name=name, what=what, compared=compared, differing=differing, first=first)
