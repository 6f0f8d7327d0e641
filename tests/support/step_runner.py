"""Runs a model of `deploy/onnx_step.py` in ONNX Runtime, which is not ours, from its file alone."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

Array = NDArray[np.generic]
STATES = ("current", "potential")


@dataclass
class StepTrace:
    """By layer name, [T, B, ..]; `output` as the file's metadata define it."""

    spikes: dict[str, list[Array]] = field(default_factory=dict)
    currents: dict[str, list[Array]] = field(default_factory=dict)
    potentials: dict[str, list[Array]] = field(default_factory=dict)
    output: Array = field(default_factory=lambda: np.zeros(0))


def run_steps(path: Path, messages: Array) -> StepTrace:
    """messages: int64 [B, ..], or [T, B, ..] where the file's input has its own at every step."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    has_time = json.loads(metadata["input"])["coding"] in ("binary", "signed")
    batch = messages.shape[1] if has_time else messages.shape[0]
    shapes = {value.name: [batch, *value.shape[1:]] for value in session.get_inputs() if value.name != "messages"}
    initial = {f"{layer}/potential": value for layer, value in json.loads(metadata["initial"]).items()}
    states = {name: np.full(shape, initial.get(name, 0), dtype=np.int64) for name, shape in shapes.items()}
    names = [value.name for value in session.get_outputs()]
    trace, sums = StepTrace(), None
    for step in range(int(metadata["time_steps"])):
        now = messages[step] if has_time else messages
        results = dict(zip(names, session.run(None, {"messages": now, **states}), strict=True))
        states = {name: results[f"{name}.next"] for name in states}
        for layer in {name.rsplit("/", 1)[0] for name in states}:
            trace.spikes.setdefault(layer, []).append(results[f"{layer}/spikes"])
            trace.currents.setdefault(layer, []).append(results[f"{layer}/current.next"])
            trace.potentials.setdefault(layer, []).append(results[f"{layer}/potential.compared"])
        output = results[metadata["output"]].astype(np.int64)
        counts = metadata["output"].endswith("/spikes")
        sums = output if sums is None or not counts else sums + output
    assert sums is not None
    trace.output = sums
    return trace
