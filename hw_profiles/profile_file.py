"""Reads a hardware profile from TOML. What is wrong in one is named by key and line."""

import sys
from collections.abc import Mapping
from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from hardspike.hw_profiles.chip import (
    Arithmetic,
    Barrier,
    Cores,
    CostSet,
    MeasuredPower,
    Numerics,
    Power,
    Profile,
    TimeSet,
)
from hardspike.hw_profiles.constant import Constant, Entry, Mistake, Rule, check_keys, read_entry, shown
from hardspike.hw_profiles.toml_line import line_of
from hardspike.snn.errors import FileError, SettingsError, unknown_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LARGEST_FILE = 1 << 18
KeyPath = tuple[str | int, ...]

NUMERICS = {
    "weight_bits": Rule(unit="bit", form="integers", low=1, high=16),
    "mixed_weight_min": Rule(unit="weight", form="integer", low=-65536, high=-1),
    "mixed_weight_max": Rule(unit="weight", form="integer", low=1, high=65536),
    "positive_weight_max": Rule(unit="weight", form="integer", low=1, high=65536),
    "negative_weight_min": Rule(unit="weight", form="integer", low=-65536, high=-1),
    "state_bits": Rule(unit="bit", form="integer", low=8, high=32),
    "decay_bits": Rule(unit="bit", form="integer", low=1, high=16),
    "state_shift": Rule(unit="bit", form="integer", low=0, high=16),
    "threshold_mantissa_max": Rule(unit="weight", form="integer", low=1, high=2**31 - 1),
    "bias_mantissa_min": Rule(unit="mantissa", form="integer", low=-(2**30), high=0),
    "bias_mantissa_max": Rule(unit="mantissa", form="integer", low=0, high=2**30),
    "bias_exponent_max": Rule(unit="bit", form="integer", low=0, high=16),
    "message_bits_max": Rule(unit="bit", form="integer", low=1, high=32),
    "weight_exponent_max": Rule(unit="bit", form="integer", low=0, high=16),
    "resets": Rule(unit="reset", form="words", low=1, words=("hard", "soft")),
    "microcode": Rule(unit="neuron", form="words", words=("soft", "initial", "fire-first")),
}
COUNT = 2**31 - 1
CORES = {
    "packing": Rule(unit="rule", form="word", words=("loihi1", "loihi2", "speck", "truenorth")),
    "neurons_per_core": Rule(unit="neuron", form="integer", low=1, high=COUNT),
    "cores_per_chip": Rule(unit="core", form="integer", low=1, high=COUNT),
    "chips_max": Rule(unit="chip", form="integer", low=1, high=COUNT),
    "cores_per_tile": Rule(unit="core", form="integer", low=1, high=COUNT),
    "tiles_high": Rule(unit="tile", form="integer", low=1, high=COUNT),
    "synapse_words": Rule(unit="word", form="integer", low=1, high=COUNT),
    "axons_in": Rule(unit="axon", form="integer", low=1, high=COUNT),
    "axons_out": Rule(unit="axon", form="integer", low=1, high=COUNT),
    "kernel_words": Rule(unit="word", form="integers", low=1, high=COUNT),
    "neuron_words": Rule(unit="word", form="integers", low=1, high=COUNT),
    "biases": Rule(unit="bias", form="integer", low=1, high=COUNT),
    "message_bits": Rule(unit="bit", form="integer", low=1, high=32),
    "weight_bits": Rule(unit="bit", form="integer", low=1, high=16),
    "axon_types": Rule(unit="type", form="integer", low=1, high=COUNT),
}
NEEDED_OF_CORES = {"neurons_per_core", "cores_per_chip", "chips_max"}
NEEDED_BY_PACKING: dict[str | None, tuple[str, ...]] = {
    "loihi1": ("synapse_words",),
    "loihi2": ("synapse_words",),
    "speck": ("kernel_words", "neuron_words", "biases"),
    "truenorth": ("axons_in", "axon_types"),
}
# Keys of a set of costs or times that may be missing: the term stays unpriced, or is the other synaptic operation's.
LEFT_OUT = {
    CostSet: {
        "synaptic_operation_convolution",
        "message",
        "hop_east_west",
        "hop_north_south",
        "barrier",
        "includes_static",
    },
    TimeSet: {"synaptic_operation_convolution", "message_out"},
    Arithmetic: set[str](),
}
POWER_RULE = Rule(unit="W")
WORKLOAD = {
    "cores": Rule(unit="core", form="integer", low=1, high=COUNT),
    "chips": Rule(unit="chip", form="integer", low=1, high=COUNT),
}


def profile_names() -> list[str]:
    """The profiles that come with the package."""
    return sorted(entry.name[: -len(".toml")] for entry in files(__package__).iterdir() if entry.name.endswith(".toml"))


def load_profile(name: str) -> Profile:
    """A profile by name, or from a TOML file of the user's own when `name` ends in `.toml`.

    Raises:
        SettingsError: unknown profile name; or a key of the file is unknown, missing or has a value, unit, kind, trust, bound
            or source that is not allowed: the key and its line are named.
        FileError: the file is missing, too long or no TOML.
    """
    if name.endswith(".toml"):
        path = Path(name)
        try:
            content = path.read_bytes()
        except (OSError, ValueError) as error:  # a path with a zero byte is a ValueError
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise FileError(f"{name!r}: {reason}; expected a hardware profile") from None
    elif name in profile_names():
        content = (files(__package__) / f"{name}.toml").read_bytes()
    else:
        raise SettingsError(
            unknown_name("hardware profile", name, profile_names()) + "; or give the path of a .toml file"
        )
    return parse_profile(name, content)


def parse_profile(name: str, content: bytes) -> Profile:
    """A profile from the bytes of its file; `name` is for messages. Raises as `load_profile`."""
    if len(content) > LARGEST_FILE:
        raise FileError(f"profile '{name}': {len(content)} bytes; a profile has at most {LARGEST_FILE}")
    try:
        text = content.decode("utf-8")
        data = tomllib.loads(text)
    except (
        ValueError,
        RecursionError,
    ) as error:  # no UTF-8, no TOML, a number of too many digits; tables nested too deep
        raise FileError(f"profile '{name}': not readable as TOML ({shown(str(error))})") from None
    try:
        return _profile(data)
    except Mistake as mistake:
        where = ".".join(map(str, mistake.path)) or "profile"
        if mistake.text.startswith("key "):  # names the key itself
            where = ".".join(map(str, mistake.path[:-1] if "is unknown" in mistake.text else mistake.path)) or "profile"
        line = line_of(text.replace("\r\n", "\n"), mistake.path)
        raise SettingsError(f"profile '{name}', line {line}: {where}: {mistake.text}") from None


def _profile(data: dict[str, Any]) -> Profile:
    optional = {"numerics", "costs", "times", "cores", "power", "arithmetic"}
    check_keys((), data, allowed={"name", "chip"} | optional, needed={"name", "chip"})
    for key in ("name", "chip"):
        _text((key,), data[key])
    chip_keys = sorted({"numerics", "costs", "times", "cores", "power"} & set(data))
    if "arithmetic" in data and chip_keys:
        raise Mistake(
            ("arithmetic",), f"counting bare operations does not go with a chip's [{chip_keys[0]}]; use two profiles"
        )
    constants: dict[str, Entry] = {}
    return Profile(
        name=data["name"],
        chip=data["chip"],
        integers=_numerics(data["numerics"], constants) if "numerics" in data else None,
        costs={key: _cost_set(key, entry, constants) for key, entry in _table(data, "costs").items()},
        times={key: _time_set(key, entry, constants) for key, entry in _table(data, "times").items()},
        cores=_cores(data["cores"], constants) if "cores" in data else None,
        power=_power(data["power"], constants) if "power" in data else Power(),
        arithmetic={
            key: Arithmetic(name=key, **_set(("arithmetic", key), entry, Arithmetic, "pJ", constants))
            for key, entry in _table(data, "arithmetic").items()
        },
        constants=constants,
    )


def _table(data: dict[str, Any], key: str) -> dict[str, Any]:
    found = data.get(key, {})
    if not isinstance(found, dict):
        raise Mistake((key,), f"{shown(found)} is not a table; write [{key}.name]")
    return found


def _text(path: KeyPath, value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or "\n" in value:
        raise Mistake(path, f"{shown(value)} is no name; give one line of text")
    return value


def _values(
    path: KeyPath, data: Any, rules: Mapping[str, Rule], needed: set[str], constants: dict[str, Entry]
) -> dict[str, Any]:
    """The values of a table of constants."""
    check_keys(path, data, allowed=set(rules), needed=needed)
    values: dict[str, Any] = {}
    for key, entry in data.items():
        read = read_entry((*path, key), entry, rules[key])
        constants[".".join(map(str, (*path, key)))] = read
        values[key] = read.value
    return values


def _numerics(data: Any, constants: dict[str, Entry]) -> Numerics:
    numerics = Numerics(**_values(("numerics",), data, NUMERICS, set(NUMERICS), constants))
    if numerics.state_shift > numerics.state_bits - 2:
        raise Mistake(
            ("numerics", "state_shift"), f"{numerics.state_shift} leaves no bit of {numerics.state_bits} for a weight"
        )
    return numerics


def _cores(data: Any, constants: dict[str, Entry]) -> Cores:
    cores = Cores(**_values(("cores",), data, CORES, NEEDED_OF_CORES, constants))
    for key in NEEDED_BY_PACKING.get(cores.packing, ()):
        if getattr(cores, key) is None:
            raise Mistake(("cores",), f"key '{key}' is missing; packing '{cores.packing}' needs it")
    if cores.packing == "speck":
        for key in ("kernel_words", "neuron_words"):
            if len(getattr(cores, key)) != cores.cores_per_chip:
                raise Mistake(
                    ("cores", key),
                    f"{len(getattr(cores, key))} numbers for {cores.cores_per_chip} cores; give one each",
                )
    return cores


def _cost_set(key: str, data: Any, constants: dict[str, Entry]) -> CostSet:
    return CostSet(name=key, **_set(("costs", key), data, CostSet, "pJ", constants))


def _time_set(key: str, data: Any, constants: dict[str, Entry]) -> TimeSet:
    path: KeyPath = ("times", key)
    values = _set(path, data, TimeSet, "ns", constants)
    found = data["barrier"]
    if not isinstance(found, list) or not found:
        raise Mistake((*path, "barrier"), f"{shown(found)} is no list; give an entry per number of tiles")
    tiles = Rule(unit="tile", form="integer", low=1, high=COUNT)
    barrier = []
    for index, entry in enumerate(found):
        at = (*path, "barrier", index)
        read = read_entry(at, entry, Rule(unit="ns"), {"tiles": tiles})
        constants[".".join(map(str, at))] = read
        barrier.append(Barrier(tiles=entry["tiles"], time=read.number))
    return TimeSet(name=key, barrier=tuple(barrier), **values)


def _set(path: KeyPath, data: Any, made: type, unit: str, constants: dict[str, Entry]) -> dict[str, Any]:
    """Title and constants of a set; a convolution's operation is the other one's where it is left out."""
    known = {item.name for item in fields(made)} - {"name"}
    check_keys(path, data, allowed=known, needed=known - LEFT_OUT[made])
    values: dict[str, Any] = {"title": _text((*path, "title"), data["title"])}
    for key, entry in data.items():
        if key == "title" or (made is TimeSet and key == "barrier"):
            continue
        if key == "includes_static":
            if not isinstance(entry, bool):
                raise Mistake((*path, key), f"{shown(entry)} is not allowed; give true or false")
            values[key] = entry
            continue
        read = read_entry((*path, key), entry, Rule(unit=unit))
        constants[".".join(map(str, (*path, key)))] = read
        values[key] = read.number
    if "synaptic_operation" in values:
        values.setdefault("synaptic_operation_convolution", values["synaptic_operation"])
    return values


def _power(data: Any, constants: dict[str, Entry]) -> Power:
    check_keys(("power",), data, allowed={"static_chip", "chip_max", "measured"}, needed=set())
    single = {key: _watt(("power", key), data[key], constants) for key in ("static_chip", "chip_max") if key in data}
    found = data.get("measured", [])
    if not isinstance(found, list):
        raise Mistake(("power", "measured"), f"{shown(found)} is no list; write [[power.measured]]")
    return Power(
        **single, measured=tuple(_workload(("power", "measured", n), one, constants) for n, one in enumerate(found))
    )


def _workload(path: KeyPath, data: Any, constants: dict[str, Entry]) -> MeasuredPower:
    keys = {item.name for item in fields(MeasuredPower)}
    check_keys(path, data, allowed=keys, needed=keys - {"static"})
    for key, rule in WORKLOAD.items():
        if not rule.accepts(data[key]):
            raise Mistake((*path, key), f"{shown(data[key])} is not allowed; give {rule.allowed}")
    return MeasuredPower(
        workload=_text((*path, "workload"), data["workload"]),
        boundary=_text((*path, "boundary"), data["boundary"]),
        cores=data["cores"],
        chips=data["chips"],
        total=_watt((*path, "total"), data["total"], constants),
        static=_watt((*path, "static"), data["static"], constants) if "static" in data else None,
    )


def _watt(path: KeyPath, data: Any, constants: dict[str, Entry]) -> Constant:
    read = read_entry(path, data, POWER_RULE)
    constants[".".join(map(str, path))] = read
    return read.number
