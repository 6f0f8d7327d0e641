"""The smallest run that goes through every stage: a recipe of seconds, made once per test session (hardspike/conftest.py)."""

from collections.abc import Callable
from pathlib import Path

# Calls the command with these arguments; returns exit code, standard output and standard error.
Invoke = Callable[..., tuple[int, str, str]]


def times(folder: Path) -> dict[Path, int]:
    """When each array file below a folder was written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}


TINY_RECIPE = """
name = "tiny"
[train]
epochs = 2
attack = ["pgd2"]
eps = "26/255"
[convert]
epochs = 1
calibration_steps = 4
calibration_batches = 2
time_steps = 4
[verify]
images = 2
shipped = false
[attack]
eps = [0.1]
images = 12
members = ["fgsm", "pgd3/triangular:0.5"]
targets = ["ann", "snn", "deployed"]
[report]
examples = 2
[control.train]
objective = "natural"
[control.convert]
objective = "natural"
"""
