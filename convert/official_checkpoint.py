"""Weights of the official code of arXiv 2311.09266 (IGITUGraz/RobustSNNConversion) in our networks.

Their VGG, ResNet and WideResNet are `features` and `classifier`, sequences of layers and of blocks. Names say where a module
stands (files of tensors do not keep an order); both sides are put in the order of the forward pass, the branch of a block
before its shortcut, and must then hold the same layers with the same shapes. Not in their files, so left as they are here:
normalisation of the image, timesteps, leak and reset.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from hardspike.snn.architecture import INPUT, Architecture, BatchNorm, Convolution, Dense, Node, Spiking, WeightedSum
from hardspike.snn.errors import FileError
from hardspike.snn.network import SpikingNetwork

# Modules of a block in the order of its forward pass; the branch, then the shortcut, then their sum.
POST_ACTIVATION = ("conv1", "bn1", "act1", "conv2", "bn2", "shortcut.0", "shortcut.1", "convex", "act2")
PRE_ACTIVATION = ("bn1", "act1", "conv1", "bn2", "act2", "conv2", "convShortcut", "convex")
KEY = re.compile(
    r"(?P<module>(?P<part>features|classifier)\.(?P<index>\d+)"
    r"(?:\.(?P<inner>conv[12]|bn[12]|act[12]|shortcut\.[01]|convShortcut|convex))?)"
    r"\.(?P<tensor>weight|bias|running_mean|running_var|num_batches_tracked|v_th|comb)"
)
KINDS = {Convolution: "convolution", Dense: "dense layer", BatchNorm: "batch norm", WeightedSum: "sum"}


def load_official(path: Path, network: SpikingNetwork) -> None:
    """`from_official` for a safetensors file. From a .pth file of theirs it is made once, where that file is trusted, by

    safetensors.torch.save_file({k: v.contiguous() for k, v in torch.load("x.pth", weights_only=True).items()}, "x.safetensors")

    Raises FileError when the file is missing or of another format, or does not fit.
    """
    if not path.is_file():
        raise FileError(f"{path}: no such file; expected an official checkpoint as safetensors")
    try:
        state = safetensors.torch.load_file(str(path))
    except (safetensors.SafetensorError, OSError) as error:
        raise FileError(
            f"{path}: not a safetensors file ({error}); make one of a .pth file with torch.load(..., weights_only=True) and "
            "safetensors.torch.save_file"
        ) from None
    from_official(state, network)


def from_official(state: Mapping[str, Tensor], network: SpikingNetwork) -> None:
    """Copy weights, biases, batch-norm statistics, sums and thresholds into `network`; all of them or, on an error, none.

    Args:
        state: their state dict, with or without the prefix `module.` of DataParallel. Thresholds (`v_th`) are in it after
            conversion or with --learn_vth; without them the network keeps its own.
        network: ANN or SNN of the same architecture, bias in the dense layers where they had --use_bias.

    Raises FileError when a key is unknown, a layer or tensor is on one side only, shapes differ or a number is not finite.
    """
    pairs = matched_keys({key: tuple(tensor.shape) for key, tensor in state.items()}, network)
    for name, key in pairs.items():
        if not torch.isfinite(state[key]).all() or (name.endswith(".threshold") and not state[key] > 0):
            raise FileError(f"checkpoint: '{key}' holds a number out of range; weights are finite, thresholds positive")
    depths = _depths(network.architecture)
    ours = network.state_dict(keep_vars=True)
    with torch.no_grad():
        for name, key in pairs.items():
            ours[name].copy_(state[key].reshape(ours[name].shape))
        for node in network.architecture.nodes:
            # Their first factor is the shortcut's, the second the branch's.
            if isinstance(node.layer, WeightedSum) and depths[node.sources[0]] > depths[node.sources[-1]]:
                ours[f"layers.{node.name}.weight"].copy_(ours[f"layers.{node.name}.weight"].flip(0))


def matched_keys(shapes: Mapping[str, tuple[int, ...]], network: SpikingNetwork) -> dict[str, str]:
    """The key of theirs for each key of our state dict that they fill; `shapes` are their keys with their shapes.

    Raises FileError as `from_official` does, but for numbers.
    """
    theirs = _their_modules(shapes)
    if not theirs:
        raise FileError(
            "checkpoint: no key such as 'features.0.weight' in it; give the state dict of the official code"
        )
    ours = _in_forward_order(network.architecture)
    layers = [node for node in ours if type(node.layer) in KINDS]
    modules = {name: tensors for name, tensors in theirs.items() if set(tensors) != {"v_th"}}
    pairs: dict[str, str] = {}
    for index in range(max(len(layers), len(modules))):
        node = layers[index] if index < len(layers) else None
        module = list(modules)[index] if index < len(modules) else None
        found = _kind(modules[module], shapes) if module else "nothing"
        wanted = KINDS[type(node.layer)] if node else "nothing"
        if found != wanted or node is None or module is None:
            raise FileError(
                f"checkpoint: {_named(module)} ({found}) stands where the network has {_named(node.name if node else None)} ({wanted}); "
                "use the architecture it was made for"
            )
        pairs |= _matched_tensors(node, modules[module], shapes, network)
    return pairs | _matched_thresholds(
        [tensors["v_th"] for tensors in theirs.values() if set(tensors) == {"v_th"}],
        [node.name for node in ours if isinstance(node.layer, Spiking)],
        shapes,
    )


def _named(name: str | None) -> str:
    return f"'{name}'" if name else "the end"


def _their_modules(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, dict[str, str]]:
    """For each of their modules, in the order of the forward pass, the keys of its tensors by the tensors' own names."""
    found: dict[str, dict[str, str]] = {}
    places: dict[str, tuple[str, int, str]] = {}
    for key in shapes:
        match = KEY.fullmatch(key.removeprefix("module."))
        if match is None:
            raise FileError(
                f"checkpoint: key '{key}' is none of the official code (features.N..., classifier.N...); "
                "give the state dict itself"
            )
        module = match["module"]
        if match["tensor"] in found.setdefault(module, {}):
            raise FileError(f"checkpoint: '{key}' is there with and without the prefix 'module.'; give one of the two")
        found[module][match["tensor"]] = key
        places[module] = (match["part"], int(match["index"]), match["inner"] or "")
    # A WideResNet's blocks follow its first convolution at once; a ResNet has a batch norm in between.
    inner = PRE_ACTIVATION if "features.1.bn1" in found else POST_ACTIVATION
    order = {"": 0} | {name: rank for rank, name in enumerate(inner)}
    for module, (_, _, name) in places.items():
        if name not in order:
            raise FileError(f"checkpoint: '{module}' is not in a block with {', '.join(inner)}; give an official one")
    parts = ("features", "classifier")
    ranks = {module: (parts.index(part), index, order[name]) for module, (part, index, name) in places.items()}
    return {module: found[module] for module in sorted(found, key=lambda name: ranks[name])}


def _kind(tensors: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]) -> str:
    if "comb" in tensors:
        return KINDS[WeightedSum]
    axes = len(shapes[tensors["weight"]]) if "weight" in tensors else 0
    return {4: KINDS[Convolution], 2: KINDS[Dense], 1: KINDS[BatchNorm]}.get(axes, "no layer")


def _depths(architecture: Architecture) -> dict[str, int]:
    """How many nodes lie on the longest way from the image to each node, itself included."""
    depths = {INPUT: 0}
    for node in architecture.nodes:
        depths[node.name] = 1 + max(depths[source] for source in node.sources)
    return depths


def _in_forward_order(architecture: Architecture) -> list[Node]:
    """The nodes, each after its sources, all of a sum's longer branch before its shorter one."""
    nodes = {node.name: node for node in architecture.nodes}
    depths = _depths(architecture)
    ordered: dict[str, Node] = {}
    waiting = [architecture.nodes[-1].name]
    while waiting:
        node = nodes[waiting[-1]]
        open_sources = [source for source in node.sources if source != INPUT and source not in ordered]
        if open_sources:
            waiting.append(max(open_sources, key=depths.__getitem__))
            continue
        waiting.pop()
        ordered[node.name] = node
    return list(ordered.values())


def _matched_tensors(
    node: Node, tensors: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]], network: SpikingNetwork
) -> dict[str, str]:
    """Keys of one layer of ours to theirs."""
    module = network.layers[node.name]
    names = {"weight": "comb"} if isinstance(node.layer, WeightedSum) else {}
    pairs = {}
    for own, value in module.state_dict().items():
        ours, name = f"layers.{node.name}.{own}", names.get(own, own)
        if name not in tensors:
            if name == "num_batches_tracked":  # counts nothing that this code uses
                continue
            raise FileError(
                f"checkpoint: next to '{min(tensors.values())}' there is no '{name}' for '{ours}'; "
                "use the architecture it was made for"
            )
        if shapes[tensors[name]] != tuple(value.shape):
            raise FileError(
                f"checkpoint: '{tensors[name]}' has shape {shapes[tensors[name]]} where '{ours}' has {tuple(value.shape)}; "
                "use the architecture it was made for"
            )
        pairs[ours] = tensors[name]
    left = [key for key in tensors.values() if key not in pairs.values() and not key.endswith("num_batches_tracked")]
    if left:
        raise FileError(
            f"checkpoint: '{left[0]}' has no place in layer '{node.name}'; use the architecture it was made for"
        )
    return pairs


def _matched_thresholds(theirs: list[str], ours: list[str], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    if theirs and len(theirs) != len(ours):
        raise FileError(
            f"checkpoint: {len(theirs)} thresholds, the last '{theirs[-1]}', for {len(ours)} neuron layers, the "
            f"last '{ours[-1] if ours else 'none'}'; use the architecture it was made for"
        )
    for key in theirs:
        if shapes[key] not in ((), (1,)):
            raise FileError(f"checkpoint: '{key}' has shape {shapes[key]}; one threshold per layer is allowed")
    return {f"layers.{name}.threshold": key for name, key in zip(ours, theirs, strict=False)}
