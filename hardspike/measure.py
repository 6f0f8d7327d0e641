"""Measurements beside the stages: each reads a finished run and leaves its numbers in the run's folder."""

import torch

from hardspike.attack.members import parse_member
from hardspike.attack.settings import TARGETS, budget
from hardspike.certify_run import certify_run
from hardspike.commands import Certify, Corrupt, Energy, Fault, Measurement, Place
from hardspike.corrupt_run import corrupt_run
from hardspike.energy_run import energy_run
from hardspike.fault_run import fault_run
from hardspike.place_run import chip_profiles, place_run
from hardspike.run_folder import RunFolder
from hardspike.snn.data import load_dataset
from hardspike.snn.errors import SettingsError, unknown_name
from hardspike.snn.progress import Progress
from hardspike.snn.ranges import require
from hardspike.summary import Summary


def measure(command: Measurement, folder: RunFolder, progress: Progress) -> Summary:
    """Raises FileError where the run has not got so far, and SettingsError for options out of range."""
    count = folder.recipe.attack.images if command.images is None else command.images
    require("images", count, count >= 1, "use 1 or more")
    torch.set_num_threads(folder.recipe.threads)
    data = load_dataset(folder.recipe.data).test.first(count)
    match command:
        case Certify():
            folder.require_finished("deploy")
            budgets = budgets_of(command.eps)
            require("smoothing", command.smoothing, all(s > 0 for s in command.smoothing), "give values above 0")
            return certify_run(folder, data, budgets, command.smoothing, progress)
        case Place():
            folder.require_finished("deploy")
            return place_run(folder, data, chip_profiles(command.profiles, folder), progress)
        case Energy():
            folder.require_finished("deploy")
            budgets = budgets_of(command.eps) if command.eps else folder.recipe.attack.eps
            require("steps", command.steps, command.steps >= 1, "use 1 or more")
            return energy_run(folder, data, budgets, command.steps, command.seed, progress)
        case Corrupt():
            targets = _targets(command.targets, folder)
            return corrupt_run(folder, data, targets, command.names, command.severities, command.seed, progress)
        case Fault():
            folder.require_finished("attack")
            folder.require_finished("deploy")
            member = parse_member(command.attack)
            return fault_run(folder, data, command.kinds, command.rates, command.seeds, member, progress)
        case _:
            raise AssertionError(f"no measurement {command}")


def budgets_of(texts: tuple[str, ...]) -> tuple[float, ...]:
    budgets = tuple(budget(text) for text in texts)
    require("eps", texts, bool(budgets) and all(0 < eps < 1 for eps in budgets), "give values in (0, 1)")
    return budgets


def _targets(names: tuple[str, ...], folder: RunFolder) -> tuple[str, ...]:
    """The networks of these names that the recipe makes, all trained."""
    for name in names:
        if name not in TARGETS:
            raise SettingsError(unknown_name("network", name, TARGETS))
    recipe = folder.recipe
    there = tuple(name for name in names if name not in recipe.missing_networks())
    require("targets", names, bool(there), "none of these networks is made by this recipe")
    folder.require_finished("deploy" if {"quantised", "deployed"} & set(there) else "convert")
    return there
