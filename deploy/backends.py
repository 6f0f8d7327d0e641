"""Backends by name."""

from pathlib import Path

from hardspike.deploy.emulator import EmulatorBackend
from hardspike.deploy.lava_backend import LavaBackend, Loihi2Backend
from hardspike.deploy.trace import Backend
from hardspike.snn.errors import SettingsError, unknown_name


def make_backend(name: str, net_path: Path) -> Backend:
    """`emulator`, `lava` or `loihi2`; `net_path` is the `.net` file that hardware loads. Raises SettingsError otherwise."""
    match name:
        case "emulator":
            return EmulatorBackend()
        case "lava":
            return LavaBackend()
        case "loihi2":
            return Loihi2Backend(net_path)
        case _:
            raise SettingsError(unknown_name("backend", name, ("emulator", "lava", "loihi2")))
