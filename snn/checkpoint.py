"""Networks on disk: safetensors (no pickle) with the architecture in the header, written whole or not at all."""

import json
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from hardspike.snn.architecture import Architecture
from hardspike.snn.atomic import replacing
from hardspike.snn.errors import FileError
from hardspike.snn.network import SpikingNetwork


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors and string metadata to a safetensors file, by rename."""
    contiguous = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        safetensors.torch.save_file(contiguous, str(temporary), metadata=metadata)


def load_tensors(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file whose metadata says `kind`. Raises FileError when missing, damaged or of another kind."""
    if not path.is_file():
        raise FileError(f"{path}: no such file; expected a hardspike {kind} file")
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (safetensors.SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())
        raise FileError(
            f"{path}: not a readable {kind} file ({reason}); it is truncated or of another format"
        ) from None
    if metadata.get("kind") != kind:
        raise FileError(f"{path}: holds {metadata.get('kind', 'no kind')!r}, expected '{kind}'; give the right file")
    return tensors, metadata


def save_network(path: Path, network: SpikingNetwork, **metadata: str) -> None:
    """Write weights, batch-norm statistics, thresholds, architecture and timesteps."""
    header = {
        "kind": "network",
        "architecture": network.architecture.to_json(),
        "time_steps": json.dumps(network.time_steps),
    }
    save_tensors(path, network.state_dict(), header | metadata)


def load_network(path: Path) -> SpikingNetwork:
    """Read a network in evaluation mode. Raises FileError when the file is missing, damaged or does not match its architecture."""
    tensors, metadata = load_tensors(path, "network")
    try:
        architecture = Architecture.from_json(metadata["architecture"])
        network = SpikingNetwork(architecture, json.loads(metadata["time_steps"]))
        network.load_state_dict(tensors)
    except KeyError as error:
        raise FileError(f"{path}: its header lacks {error}; the file is of another version") from None
    except RuntimeError as error:
        raise FileError(
            f"{path}: weights do not match the architecture ({str(error).splitlines()[-1].strip()})"
        ) from None
    if any(not torch.isfinite(tensor).all() for tensor in tensors.values() if tensor.is_floating_point()):
        raise FileError(f"{path}: a weight is not finite; train again")
    return network.eval()
