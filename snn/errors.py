"""Errors a user can cause: each message is one line that names the object, the value found, what is allowed and what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


class HardspikeError(ValueError):
    """Something the user can mend; the command line prints it without a traceback.

    What a message quotes of a damaged file may hold anything; it is one line of printable characters all the same.
    """

    def __init__(self, message: str) -> None:
        super().__init__("".join(char if char.isprintable() else "?" for char in message))


class DataError(HardspikeError):
    """Images or labels are not what the network expects."""


class FileError(HardspikeError):
    """A file is missing, truncated or not what its name promises."""


class SettingsError(HardspikeError):
    """A recipe or an argument carries an unknown key or a value out of range."""


class UnsupportedLayerError(HardspikeError):
    """The compiler or a file format does not know this layer, or not in this place."""


class DoesNotFitError(HardspikeError):
    """A value exceeds a limit of the hardware profile."""


class BackendError(HardspikeError):
    """A backend (Lava, hardware) is not installed or refused to run."""


def unknown_name(kind: str, found: str, allowed: Iterable[str]) -> str:
    """One line for a name that is not in a list, with the nearest known one where there is one."""
    known = sorted(allowed)
    nearest = get_close_matches(found, known, n=1)
    hint = f"did you mean '{nearest[0]}'? " if nearest else ""
    return f"{kind} '{found}' is unknown; {hint}known: {', '.join(known)}"
