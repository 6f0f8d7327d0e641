"""Names of layers that come from other people's files, made fit for an `Architecture`."""

import re
from collections.abc import Container

from torch import nn


def layer_name(name: str, taken: Container[str]) -> str:
    """Letters, digits and underscores, nothing that an `nn.ModuleDict` has as an attribute, and not in `taken`."""
    valid = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "layer"
    if hasattr(nn.ModuleDict(), valid):
        valid = f"{valid}_layer"
    unique, number = valid, 2
    while unique in taken:
        unique, number = f"{valid}_{number}", number + 1
    return unique
