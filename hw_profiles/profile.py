"""Hardware profiles: one TOML file per chip. The only place where constants of a chip live, each with unit, source and trust."""

from hardspike.hw_profiles.chip import (
    Arithmetic,
    Barrier,
    Cores,
    CostSet,
    MeasuredPower,
    Numerics,
    Packing,
    Power,
    Profile,
    TimeSet,
)
from hardspike.hw_profiles.constant import Constant, Entry
from hardspike.hw_profiles.profile_file import load_profile, parse_profile, profile_names

__all__ = [
    "Arithmetic",
    "Barrier",
    "Constant",
    "Cores",
    "CostSet",
    "Entry",
    "MeasuredPower",
    "Numerics",
    "Packing",
    "Power",
    "Profile",
    "TimeSet",
    "load_profile",
    "parse_profile",
    "profile_names",
]
