"""Hardware profiles: one TOML file per chip. The only place where constants of a chip live, each with unit, source and trust."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from hardspike.snn.errors import FileError, SettingsError, unknown_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True, slots=True, kw_only=True)
class Numerics:
    """The integer arithmetic of a chip. Unit `weight`: what one step of an integer weight adds to the synaptic input.

    Neuron state is kept in units of weight / 2^state_shift, in `state_bits` bits.
    """

    weight_bits: tuple[int, ...]
    mixed_weight_min: int
    mixed_weight_max: int
    positive_weight_max: int
    negative_weight_min: int
    state_bits: int
    decay_bits: int
    state_shift: int
    threshold_mantissa_max: int
    bias_mantissa_min: int
    bias_mantissa_max: int
    bias_exponent_max: int
    message_bits_max: int
    resets: tuple[str, ...]

    @property
    def state_max(self) -> int:
        """Largest membrane potential (it saturates at plus and minus this value)."""
        return (1 << (self.state_bits - 1)) - 1

    @property
    def decay_one(self) -> int:
        """The decay that forgets everything in one step; 0 forgets nothing."""
        return 1 << self.decay_bits

    def kept(self, decay: int) -> float:
        """Share of a state that is left after one step of `decay`, before rounding."""
        return (self.decay_one - decay) / self.decay_one

    @property
    def input_max(self) -> int:
        """Largest synaptic input (unit `weight`) that does not wrap when it becomes a current."""
        return self.state_max >> self.state_shift


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """One number about a chip. kind: measured, simulated, fit, structural; bound: min, typ or max."""

    value: float
    unit: str
    source: str
    trust: str
    kind: str
    bound: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CostSet:
    """Energy per event, in picojoule. `synaptic_operation_convolution` defaults to `synaptic_operation`."""

    name: str
    title: str
    synaptic_operation: Constant
    synaptic_operation_convolution: Constant
    neuron_update_active: Constant
    neuron_update_idle: Constant
    spike_out: Constant


@dataclass(frozen=True, slots=True, kw_only=True)
class Barrier:
    """How long all cores wait for each other at the end of a step when that many tiles are used, in nanoseconds."""

    tiles: int
    time: Constant


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeSet:
    """Time per event in the core where it happens, in nanoseconds. `synaptic_operation_convolution` as in `CostSet`."""

    name: str
    title: str
    synaptic_operation: Constant
    synaptic_operation_convolution: Constant
    neuron_update_active: Constant
    neuron_update_idle: Constant
    message_in: Constant
    spike_out: Constant
    barrier: tuple[Barrier, ...]

    def barrier_ns(self, tiles: int) -> float:
        """That of the largest number listed up to `tiles`; the first one's below all."""
        reached = (entry for entry in self.barrier if entry.tiles <= tiles)
        return max(reached, key=lambda entry: entry.tiles, default=self.barrier[0]).time.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Cores:
    """How a chip is divided."""

    neurons_per_core: int
    cores_per_tile: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A chip: numerics and, where they are public, energy and time per event and what a core holds."""

    name: str
    chip: str
    numerics: Numerics
    costs: Mapping[str, CostSet] = field(default_factory=dict)
    times: Mapping[str, TimeSet] = field(default_factory=dict)
    cores: Cores | None = None


def profile_names() -> list[str]:
    """The profiles that come with the package."""
    return sorted(entry.name[: -len(".toml")] for entry in files(__package__).iterdir() if entry.name.endswith(".toml"))


def load_profile(name: str) -> Profile:
    """A profile by name, or from a TOML file of the user's own when `name` ends in `.toml`.

    Raises:
        SettingsError: unknown profile name, or a key of the file is unknown, missing or lacks unit, source or trust.
        FileError: the file is missing or is no TOML.
    """
    if name.endswith(".toml"):
        path = Path(name)
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise FileError(f"{path}: {error.strerror}; expected a hardware profile") from None
    elif name in profile_names():
        text = (files(__package__) / f"{name}.toml").read_text(encoding="utf-8")
    else:
        raise SettingsError(
            unknown_name("hardware profile", name, profile_names()) + "; or give the path of a .toml file"
        )
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise FileError(f"profile '{name}': not readable as TOML ({error})") from None
    return _profile(name, data)


def _profile(name: str, data: dict[str, Any]) -> Profile:
    optional = {"costs", "times", "cores"}
    _keys(name, data, allowed={"name", "chip", "numerics"} | optional, needed={"name", "chip", "numerics"})
    return Profile(
        name=data["name"],
        chip=data["chip"],
        numerics=Numerics(**_values(f"{name}: numerics", data["numerics"], Numerics)),
        costs={key: _cost_set(name, key, entry) for key, entry in data.get("costs", {}).items()},
        times={key: _time_set(name, key, entry) for key, entry in data.get("times", {}).items()},
        cores=Cores(**_values(f"{name}: cores", data["cores"], Cores)) if "cores" in data else None,
    )


def _values(where: str, data: Any, made: type) -> dict[str, Any]:
    """The values of a table whose entries say unit, source and trust, one for each field of `made`."""
    known = {item.name for item in fields(made)}
    _keys(where, data, allowed=known, needed=known)
    values: dict[str, Any] = {}
    told = {"value", "unit", "source", "trust"}
    for key, entry in data.items():
        _keys(f"{where}.{key}", entry, allowed=told, needed=told)
        value = entry["value"]
        values[key] = tuple(value) if isinstance(value, list) else value
    return values


def _cost_set(profile: str, key: str, data: dict[str, Any]) -> CostSet:
    where = f"{profile}: costs.{key}"
    return CostSet(name=key, title=data["title"], **_constants(where, data, CostSet, "pJ"))


def _time_set(profile: str, key: str, data: dict[str, Any]) -> TimeSet:
    where = f"{profile}: times.{key}"
    constants = _constants(where, data, TimeSet, "ns")
    if not isinstance(data["barrier"], list) or not data["barrier"]:
        raise SettingsError(
            f"profile {where}.barrier: {data['barrier']!r} is no list; give an entry per number of tiles"
        )
    barrier = []
    for entry in data["barrier"]:
        rest = {name: value for name, value in entry.items() if name != "tiles"}
        _keys(f"{where}.barrier", entry, allowed=set(entry), needed={"tiles"})
        barrier.append(Barrier(tiles=entry["tiles"], time=_constant(f"{where}.barrier", rest, "ns")))
    return TimeSet(name=key, title=data["title"], barrier=tuple(barrier), **constants)


def _constants(where: str, data: dict[str, Any], made: type, unit: str) -> dict[str, Constant]:
    """The fields of `made` that are constants; that of a convolution is the other synaptic operation's where it is left out."""
    known = {item.name for item in fields(made)} - {"name"}
    _keys(where, data, allowed=known, needed=known - {"synaptic_operation_convolution"})
    constants = {
        name: _constant(f"{where}.{name}", entry, unit)
        for name, entry in data.items()
        if name not in ("title", "barrier")
    }
    constants.setdefault("synaptic_operation_convolution", constants["synaptic_operation"])
    return constants


def _constant(where: str, entry: Any, unit: str) -> Constant:
    needed = {item.name for item in fields(Constant)}
    _keys(where, entry, allowed=needed, needed=needed)
    if entry["unit"] != unit or not entry["value"] >= 0:
        raise SettingsError(
            f"profile {where}: {entry['value']} {entry['unit']} is not allowed; give a value >= 0 in {unit}"
        )
    return Constant(**entry)


def _keys(where: str, data: Any, allowed: set[str], needed: set[str]) -> None:
    if not isinstance(data, dict):
        raise SettingsError(f"profile {where}: {data!r} is not a table; write {{ {', '.join(sorted(needed))} }}")
    for key in data:
        if key not in allowed:
            raise SettingsError(f"profile {where}: " + unknown_name("key", key, allowed))
    missing = sorted(needed - set(data))
    if missing:
        raise SettingsError(f"profile {where}: key '{missing[0]}' is missing; needed: {', '.join(sorted(needed))}")
