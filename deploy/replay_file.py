"""One replayed set on disk (safetensors): event counts and which images were classified right, without full states."""

import json
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from hardspike.deploy.replay import Replayed, SetOrigin
from hardspike.deploy.trace import Trace
from hardspike.snn.checkpoint import load_tensors, save_tensors
from hardspike.snn.errors import FileError

KIND = "replayed set"
COUNTS = ("spikes", "active", "synaptic_operations")
RIGHT = ("right_deployed", "right_snn", "right_ann", "right_snn_exact")


def save_replayed(path: Path, replayed: Replayed) -> None:
    trace = replayed.trace
    tensors: dict[str, Tensor] = {"output": trace.output, "messages": trace.messages}
    tensors |= {name: getattr(replayed, name) for name in RIGHT}
    for group in COUNTS:
        tensors |= {f"{group}/{layer}": value for layer, value in getattr(trace, group).items()}
    facts = {"backend": trace.backend, "origin": asdict(replayed.origin), "agreement": replayed.agreement}
    save_tensors(path, tensors, {"kind": KIND, "facts": json.dumps(facts)})


def load_replayed(path: Path) -> Replayed:
    """Raises FileError when the file is missing or damaged."""
    tensors, metadata = load_tensors(path, KIND)
    groups: dict[str, dict[str, Tensor]] = {group: {} for group in COUNTS}
    try:
        for key, tensor in tensors.items():
            group, _, layer = key.partition("/")
            if layer:
                groups[group][layer] = tensor
        facts = json.loads(metadata["facts"])
        return Replayed(
            origin=SetOrigin(**facts["origin"]),
            trace=Trace(
                backend=facts["backend"], output=tensors["output"], messages=tensors["messages"], states=None, **groups
            ),
            agreement=facts["agreement"],
            **{name: tensors[name] for name in RIGHT},
        )
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise FileError(f"{path}: not a readable {KIND} ({error}); it is damaged or of another version") from None
