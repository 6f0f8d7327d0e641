"""The description of a graph in a file, checked value by value, so that what is wrong is named by its place."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from hardspike.deploy.process_graph import (
    ConvSynapse,
    DenseSynapse,
    GraphLayer,
    InputContract,
    IntArray,
    NeuronGroup,
    PoissonCode,
    ProcessGraph,
    Synapse,
)
from hardspike.hw_profiles.constant import Mistake, Rule, check_keys, shown
from hardspike.hw_profiles.profile import Numerics
from hardspike.hw_profiles.profile_file import NUMERICS
from hardspike.snn.architecture import Shape

Path = tuple[str | int, ...]
SIDE_MAX = 1 << 24
LONGEST_TEXT = 1000


def _whole(unit: str) -> Rule:
    """Its range is the profile's, which `ProcessGraph` checks."""
    return Rule(unit=unit, form="integer", low=-(1 << 40), high=1 << 40)


GRAPH = {
    "time_steps": Rule(unit="step", form="integer", low=1, high=1 << 20),
    "weight_bits": Rule(unit="bit", form="integer", low=1, high=16),
    "readout": Rule(unit="readout", form="word", words=("mean", "sum")),
}
INPUT = {
    "shape": Rule(unit="side", form="integers", low=1, high=SIDE_MAX),
    "coding": Rule(unit="coding", form="word", words=("graded", "binary", "signed", "current")),
    "message_bits": Rule(unit="bit", form="integer", low=0, high=32),
    "constant_channels": Rule(unit="channel", form="integer", low=0, high=1 << 16),
}
LAYER = {
    "shape": Rule(unit="side", form="integers", low=1, high=SIDE_MAX),
    "scale": Rule(unit="weight per unit of potential", low=1e-30, high=1e30),
}
GEOMETRY = {
    "stride": Rule(unit="pixel", form="integers", low=1, high=SIDE_MAX),
    "padding": Rule(unit="pixel", form="integers", low=0, high=SIDE_MAX),
    "dilation": Rule(unit="pixel", form="integers", low=1, high=SIDE_MAX),
    "groups": Rule(unit="group", form="integer", low=1, high=SIDE_MAX),
}
NEURONS = {
    "threshold": _whole("weight"),
    "bias_exponent": _whole("bit"),
    "current_decay": _whole("decay"),
    "potential_decay": _whole("decay"),
    "initial": _whole("state unit"),
    "order": Rule(unit="order", form="word", words=("integrate-first", "fire-first")),
}
EXPONENT = Rule(unit="bit", form="integer", low=0, high=16)
RESET_BY = _whole("weight")


def read_graph(data: Any, tensors: Mapping[str, Tensor]) -> ProcessGraph:
    """The graph of a description as `save_graph` writes it. Raises Mistake with the place, and what `ProcessGraph` raises."""
    rest = {"input", "layers", "numerics", "profile", "provenance"}
    values = _values((), data, GRAPH, rest)
    numerics = Numerics(**_values(("numerics",), data["numerics"], NUMERICS))
    if numerics.state_shift > numerics.state_bits - 2:
        raise Mistake(("numerics", "state_shift"), f"{numerics.state_shift} leaves no bit of {numerics.state_bits}")
    provenance = data["provenance"]
    if not isinstance(provenance, dict):
        raise Mistake(("provenance",), f"{shown(provenance)} is not a table of texts")
    return ProcessGraph(
        input=_contract(("input",), data["input"]),
        layers=tuple(
            _layer(("layers", index), entry, tensors) for index, entry in enumerate(_list(("layers",), data["layers"]))
        ),
        numerics=numerics,
        profile=_text(("profile",), data["profile"]),
        provenance={_text(("provenance",), key): _text(("provenance",), text) for key, text in provenance.items()},
        **values,
    )


def _contract(path: Path, data: Any) -> InputContract:
    values = _values(path, data, INPUT, {"poisson"})
    _check_axes((*path, "shape"), values["shape"])
    if values["coding"] in ("binary", "signed") and values["message_bits"] != 1:
        raise Mistake((*path, "message_bits"), f"{values['message_bits']} bits of a {values['coding']} input; it has 1")
    poisson = None if data["poisson"] is None else _poisson((*path, "poisson"), data["poisson"])
    contract = InputContract(poisson=poisson, **values)
    channels = contract.image_shape[0]
    if poisson is not None and not len(poisson.mean) == len(poisson.std) == channels:
        raise Mistake(
            (*path, "poisson"), f"{len(poisson.mean)} means and {len(poisson.std)} stds of {channels} channels"
        )
    return contract


def _poisson(path: Path, data: Any) -> PoissonCode:
    check_keys(path, data, allowed={"mean", "std", "rate"}, needed={"mean", "std", "rate"})
    number, positive = Rule(unit="", low=-1e15), Rule(unit="", low=1e-30)
    for key, rule in (("mean", number), ("std", positive)):
        for value in _list((*path, key), data[key]):
            _check((*path, key), value, rule)
    _check((*path, "rate"), data["rate"], positive)
    mean, std = (tuple(map(float, data[key])) for key in ("mean", "std"))
    return PoissonCode(mean=mean, std=std, rate=float(data["rate"]))


def _layer(path: Path, data: Any, tensors: Mapping[str, Tensor]) -> GraphLayer:
    values = _values(path, data, LAYER, {"name", "synapses", "neurons"})
    name, shape = _text((*path, "name"), data["name"]), values["shape"]
    _check_axes((*path, "shape"), shape)
    synapses = tuple(
        _synapse((*path, "synapses", index), entry, f"{name}/weight/{index}", tensors)
        for index, entry in enumerate(_list((*path, "synapses"), data["synapses"]))
    )
    neurons = _neurons((*path, "neurons"), data["neurons"], _array(path, f"{name}/bias", tensors, None))
    return GraphLayer(name=name, shape=shape, synapses=synapses, neurons=neurons, scale=float(values["scale"]))


def _synapse(path: Path, data: Any, key: str, tensors: Mapping[str, Tensor]) -> Synapse:
    check_keys(path, data, allowed={"source", "exponent", "geometry"}, needed={"source", "exponent", "geometry"})
    source, exponent = _text((*path, "source"), data["source"]), data["exponent"]
    _check((*path, "exponent"), exponent, EXPONENT)
    if data["geometry"] is None:
        return DenseSynapse(source=source, weight=_array(path, key, tensors, 2), exponent=exponent)
    weight = _array(path, key, tensors, 4)
    geometry = _values((*path, "geometry"), data["geometry"], GEOMETRY)
    for name in ("stride", "padding", "dilation"):
        if len(geometry[name]) != 2:
            raise Mistake((*path, "geometry", name), f"{shown(geometry[name])} is no pair")
    if len(weight) % geometry["groups"]:
        raise Mistake((*path, "geometry", "groups"), f"{geometry['groups']} groups of {len(weight)} output channels")
    return ConvSynapse(source=source, weight=weight, exponent=exponent, **geometry)


def _neurons(path: Path, data: Any, bias: IntArray) -> NeuronGroup:
    values = _values(path, data, NEURONS, {"spiking", "reset_by"})
    if not isinstance(data["spiking"], bool):
        raise Mistake((*path, "spiking"), f"{shown(data['spiking'])} is not true or false")
    if data["reset_by"] is not None:
        _check((*path, "reset_by"), data["reset_by"], RESET_BY)
    return NeuronGroup(bias=bias, spiking=data["spiking"], reset_by=data["reset_by"], **values)


def _array(path: Path, key: str, tensors: Mapping[str, Tensor], axes: int | None) -> IntArray:
    found = tensors.get(key)
    if found is None:
        raise Mistake(path, f"tensor '{key}' is missing")
    kind = str(found.dtype).removeprefix("torch.")
    if kind != "int32" or not found.numel() or axes not in (None, found.ndim):
        wanted = f"int32 on {axes} axes" if axes else "int32"
        raise Mistake(path, f"tensor '{key}' has shape {tuple(found.shape)} of {kind}; it must be {wanted}, not empty")
    array: IntArray = np.asarray(found.numpy())
    return array


def _values(path: Path, data: Any, rules: Mapping[str, Rule], rest: set[str] = set()) -> dict[str, Any]:  # noqa: B006
    """The values of a table with exactly the keys of `rules` and `rest`, lists as tuples."""
    known = {*rules, *rest}
    check_keys(path, data, allowed=known, needed=known)
    for key, rule in rules.items():
        _check((*path, key), data[key], rule)
    return {key: tuple(data[key]) if isinstance(data[key], list) else data[key] for key in rules}


def _check(path: Path, value: Any, rule: Rule) -> None:
    if not rule.accepts(value):
        raise Mistake(path, f"{shown(value)} is not allowed; expected {rule.allowed}")


def _check_axes(path: Path, shape: Shape) -> None:
    if len(shape) not in (1, 3):
        raise Mistake(path, f"{shape} is no shape; expected (C, H, W) or (N,)")


def _list(path: Path, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise Mistake(path, f"{shown(value)} is no list")
    return value


def _text(path: Path, value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable() or len(value) > LONGEST_TEXT:
        raise Mistake(path, f"{shown(value)} is no short line of text")
    return value
