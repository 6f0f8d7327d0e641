"""Bundles and traces without Lava: what `run_on_loihi.py` would write if the chip did exactly what the emulator does.

tests/deploy/test_run_on_loihi.py holds these against what it writes when it runs on Lava.
"""

import hashlib
import io
import json
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from random_graphs import GraphCase, build, random_messages

from hardspike.deploy.bundle import BundleSet, Provenance, file_sha256, stored_messages
from hardspike.deploy.emulator import EmulatorBackend
from hardspike.deploy.netx_file import write_netx
from hardspike.deploy.process_graph import ProcessGraph
from hardspike.deploy.run_on_loihi import TRACE

PROVENANCE = Provenance(run="digits", commit="0123abcd+", version="9.8.7")
POWER = {"total": (0.7, 0.2), "vdd": (0.3, 0.1), "vddm": (0.35, 0.08), "vddio": (0.05, 0.02)}  # mean, static, watt


@dataclass
class Sent:
    """A graph with its file and two sets of images."""

    graph: ProcessGraph
    net: Path
    sets: list[BundleSet]

    @property
    def network_sha256(self) -> str:
        return file_sha256(self.net)


def sent(case: GraphCase, folder: Path, images: tuple[int, int] = (4, 3)) -> Sent:
    graph = build(case)
    net = folder / "network.net"
    write_netx(net, graph)
    messages, dim = random_messages(case, graph, sum(images)), 1 if graph.input.has_time else 0
    labels = torch.arange(sum(images)) % graph.output.shape[0]
    parts = zip(("clean", "attack"), messages.split(images, dim), labels.split(images), strict=True)
    return Sent(graph, net, [BundleSet(name=name, messages=part, labels=own) for name, part, own in parts])


def spiking_output(made: Sent, threshold: int = 60) -> Sent:
    """The same, but the last layer fires."""
    *before, last = made.graph.layers
    neurons = replace(last.neurons, spiking=True, threshold=threshold)
    graph = replace(made.graph, layers=(*before, replace(last, neurons=neurons)))
    write_netx(made.net, graph)
    return replace(made, graph=graph)


def unpacked(path: Path, folder: Path) -> Path:
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    return folder


@dataclass
class MadeTrace:
    """facts and arrays as the runner saves them."""

    facts: dict[str, Any]
    arrays: dict[str, Any] = field(default_factory=dict)

    def content(self) -> bytes:
        held = io.BytesIO()
        np.savez_compressed(held, facts=np.array(json.dumps(self.facts)), **self.arrays)
        return held.getvalue()

    def save(self, path: Path) -> Path:
        path.write_bytes(self.content())
        return path


def made_trace(
    graph: ProcessGraph,
    network_sha256: str,
    sets: list[BundleSet],
    *,
    period: int | None = None,
    layers: str = "all",
    states: bool = True,
    streams: tuple[int, ...] = (),
    backend: str = "simulator",
) -> MadeTrace:
    steps, last, dim = graph.time_steps, len(graph.layers) - 1, 1 if graph.input.has_time else 0
    period = steps if period is None else period
    messages = torch.cat([one.messages for one in sets], dim)
    images = sum(map(len, sets))
    streams = streams or (images,)
    trace = EmulatorBackend().run(graph, messages, keep_states=True)
    assert trace.states is not None
    recorded = range(last + 1) if layers == "all" else range(last, last + 1)
    arrays: dict[str, Any] = {"wall_s": np.linspace(0.1, 0.2, images)}
    for index in recorded:
        arrays[f"spikes.{index}"] = trace.states.spikes[graph.layers[index].name].transpose(0, 1).numpy()
    first_of = np.repeat(np.cumsum([0, *streams[:-1]]), streams)
    last_of = np.repeat(np.cumsum(streams), streams)
    for index, layer in enumerate(graph.layers):
        if not states and (index != last or layer.neurons.spiking):
            continue
        after = (trace.states.potentials[layer.name] * ~trace.states.spikes[layer.name]).numpy()  # [T, N, *shape]
        found = np.full((images, *layer.shape), 12345, dtype=np.int32)
        for k in range(images):
            done = steps + last - index  # by this layer, since image k began
            later, step = divmod(done - 1, period)
            if step < steps and k + later < last_of[k]:
                found[k] = after[step, k + later]
        assert (first_of <= np.arange(images)).all()
        arrays[f"potentials.{index}"] = found
    facts = {
        "format": TRACE,
        "backend": backend,
        "network_sha256": network_sha256,
        "sets": [
            {
                "name": one.name,
                "images": len(one),
                "messages_sha256": hashlib.sha256(stored_messages(one.messages, graph).tobytes()).hexdigest(),
            }
            for one in sets
        ],
        "time_steps": steps,
        "period": period,
        "input_delay": 0,
        "output_delay": 0,
        "layers": list(recorded),
        "states": states,
        "streams": list(streams),
        "host": "",
        "place": {},
        "chips_on_board": 0,
        "versions": {"python": "3.10.13", "lava-nc": "0.10.0", "nxcore": None},
        "started": "2026-01-02T03:04:05+0000",
        "seconds": 1.5,
        "measured_steps": 0,
        "not_measured": "",
    }
    return MadeTrace(facts, arrays)


def with_power(made: MadeTrace, chips: int = 1, step_time_us: float = 150.0) -> MadeTrace:
    """The same from a chip, with a measurement: on `chips` chips, of which all but one only take their static power."""
    made.facts |= {"backend": "loihi2", "host": "slurm", "place": {"PARTITION": "oheogulch"}}
    made.facts |= {"measured_steps": 400, "chips_on_board": chips}
    made.arrays["step_time_us"] = np.array([0.5, 1.5] * 200) * step_time_us
    for rail, (total, static) in POWER.items():
        made.arrays[f"static_w.{rail}"] = np.array([chips * static])
        made.arrays[f"power_w.{rail}"] = total + (chips - 1) * static + np.array([-0.01, 0.01, 0.02, -0.02])
    return made
