"""Measurements beside the stages: each reads a finished run and leaves its numbers in the run's folder."""

from hardspike.attack.members import parse_member
from hardspike.attack.settings import TARGETS, budget
from hardspike.certify_run import certify_run
from hardspike.commands import Certify, Corrupt, Fault, Measurement
from hardspike.corrupt_run import corrupt_run
from hardspike.fault_run import fault_run
from hardspike.pipeline import Pipeline
from hardspike.snn.errors import SettingsError, unknown_name
from hardspike.snn.ranges import require
from hardspike.summary import Summary


def measure(command: Measurement, pipeline: Pipeline) -> Summary:
    """Raises FileError where the run has not got so far, and SettingsError for options out of range."""
    folder = pipeline.folder
    count = folder.recipe.attack.images if command.images is None else command.images
    require("images", count, count >= 1, "use 1 or more")
    match command:
        case Certify():
            pipeline.require_finished("deploy")
            budgets = budgets_of(command.eps)
            require("smoothing", command.smoothing, all(s > 0 for s in command.smoothing), "give values above 0")
            return certify_run(folder, pipeline.test_images(count), budgets, command.smoothing, pipeline.progress)
        case Corrupt():
            targets = _targets(command.targets, pipeline)
            data = pipeline.test_images(count)
            return corrupt_run(
                folder, data, targets, command.names, command.severities, command.seed, pipeline.progress
            )
        case Fault():
            pipeline.require_finished("attack")
            pipeline.require_finished("deploy")
            data = pipeline.test_images(count)
            member = parse_member(command.attack)
            return fault_run(folder, data, command.kinds, command.rates, command.seeds, member, pipeline.progress)
        case _:
            raise AssertionError(f"no measurement {command}")


def budgets_of(texts: tuple[str, ...]) -> tuple[float, ...]:
    budgets = tuple(budget(text) for text in texts)
    require("eps", texts, bool(budgets) and all(0 < eps < 1 for eps in budgets), "give values in (0, 1)")
    return budgets


def _targets(names: tuple[str, ...], pipeline: Pipeline) -> tuple[str, ...]:
    """The networks of these names that the recipe makes, all trained."""
    for name in names:
        if name not in TARGETS:
            raise SettingsError(unknown_name("network", name, TARGETS))
    recipe = pipeline.folder.recipe
    there = tuple(name for name in names if name not in recipe.missing_networks())
    require("targets", names, bool(there), "none of these networks is made by this recipe")
    pipeline.require_finished("deploy" if {"quantised", "deployed"} & set(there) else "convert")
    return there
