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
class Profile:
    """A chip: numerics and, where they are public, cost sets."""

    name: str
    chip: str
    numerics: Numerics
    costs: Mapping[str, CostSet] = field(default_factory=dict)


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
    _keys(name, data, allowed={"name", "chip", "numerics", "costs"}, needed={"name", "chip", "numerics"})
    known = {item.name for item in fields(Numerics)}
    _keys(f"{name}: numerics", data["numerics"], allowed=known, needed=known)
    values: dict[str, Any] = {}
    for key, entry in data["numerics"].items():
        _keys(
            f"{name}: numerics.{key}",
            entry,
            allowed={"value", "unit", "source", "trust"},
            needed={"value", "unit", "source", "trust"},
        )
        value = entry["value"]
        values[key] = tuple(value) if isinstance(value, list) else value
    costs = {key: _cost_set(name, key, entry) for key, entry in data.get("costs", {}).items()}
    return Profile(name=data["name"], chip=data["chip"], numerics=Numerics(**values), costs=costs)


def _cost_set(profile: str, key: str, data: dict[str, Any]) -> CostSet:
    where = f"{profile}: costs.{key}"
    known = {item.name for item in fields(CostSet)} - {"name"}
    _keys(where, data, allowed=known, needed=known - {"synaptic_operation_convolution"})
    constants = {}
    for name, entry in data.items():
        if name == "title":
            continue
        needed = {item.name for item in fields(Constant)}
        _keys(f"{where}.{name}", entry, allowed=needed, needed=needed)
        if entry["unit"] != "pJ" or not entry["value"] >= 0:
            raise SettingsError(
                f"profile {where}.{name}: {entry['value']} {entry['unit']} is not allowed; give a value >= 0 in pJ"
            )
        constants[name] = Constant(**entry)
    constants.setdefault("synaptic_operation_convolution", constants["synaptic_operation"])
    return CostSet(name=key, title=data["title"], **constants)


def _keys(where: str, data: Any, allowed: set[str], needed: set[str]) -> None:
    if not isinstance(data, dict):
        raise SettingsError(f"profile {where}: {data!r} is not a table; write {{ {', '.join(sorted(needed))} }}")
    for key in data:
        if key not in allowed:
            raise SettingsError(f"profile {where}: " + unknown_name("key", key, allowed))
    missing = sorted(needed - set(data))
    if missing:
        raise SettingsError(f"profile {where}: key '{missing[0]}' is missing; needed: {', '.join(sorted(needed))}")
