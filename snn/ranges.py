"""Range checks for settings: one line that names the field, the value and what is allowed."""

from hardspike.snn.errors import SettingsError


def require(field: str, value: object, holds: bool, allowed: str) -> None:
    """Raise SettingsError unless `holds`."""
    if not holds:
        raise SettingsError(f"{field} = {value!r} is not allowed; {allowed}")
