"""One run's numbers, as a comparison puts them beside those of others."""

from typing import Any

from torch import Tensor

from hardspike.analyses.mean_interval import mean_interval
from hardspike.attack.evaluation import CLEAN_ERROR, SURVIVED
from hardspike.deploy.energy import price, sum_layers
from hardspike.deploy.graph_file import load_graph
from hardspike.deploy.report.compared import ComparedRun, Quantity
from hardspike.deploy.report.numbers import proportion
from hardspike.deploy.report.texts import NETWORKS
from hardspike.hw_profiles.profile import load_profile
from hardspike.results import adversarial_sets, replayed_sets
from hardspike.run_folder import RunFolder
from hardspike.snn.atomic import read_json


def compared_run(folder: RunFolder, name: str) -> ComparedRun:
    """Raises FileError where stage `attack`, or of a run that is deployed stage `report`, has not finished."""
    recipe = folder.recipe
    deploys = recipe.deploy.enabled
    values, fired = _deployed_values(folder) if deploys else _float_values(folder)
    attack = recipe.attack
    return ComparedRun(
        name=name,
        training=recipe.training(),
        facts={
            "dataset": recipe.data.dataset,
            "test images": attack.images,
            "attacks": ", ".join(member.name for member in attack.parsed()),
            "seed of the attacks": attack.seed,
            "architecture": recipe.network.architecture,
            "timesteps": recipe.train.time_steps or recipe.convert.time_steps,
            "weight bits": recipe.deploy.weight_bits if deploys else "not deployed",
            "profile": recipe.deploy.profile if deploys else "not deployed",
            "seed": recipe.network.seed,
            "commit": ", ".join(sorted(str(commit) for commit in folder.commits())),
        },
        values=values,
        fired=fired,
        recipe=recipe.to_toml(),
    )


def _share(share: dict[str, Any]) -> Quantity:
    return Quantity(value=share["value"], low=share["low"], high=share["high"], n=share["n"], unit="%")


def _float_values(folder: RunFolder) -> tuple[dict[str, Quantity], tuple[str, ...]]:
    """Of a run that is not deployed: from its adversarial sets."""
    folder.require_finished("attack")
    values, fired = {}, []
    for made in adversarial_sets(folder):
        found, form = made.evaluation, NETWORKS[made.target]
        values[f"clean, {form}"] = _share(proportion(found.broken_by != CLEAN_ERROR))
        values[f"attacked, eps {found.eps:g}, {form}"] = _share(proportion(found.broken_by == SURVIVED))
        fired += [f"{form}, eps {found.eps:g}: {check.name}" for check in made.checks if check.fired]
    return values, tuple(fired)


def _deployed_values(folder: RunFolder) -> tuple[dict[str, Quantity], tuple[str, ...]]:
    folder.require_finished("report")
    network = read_json(folder.report_json, "report.json")["networks"][0]
    values = {f"clean, {NETWORKS[form]}": _share(share) for form, share in network["clean"].items()}
    for budget in network["robust"]:
        at = f"attacked, eps {budget['eps']:g}"
        values |= {f"{at}, {NETWORKS[form]}": _share(share) for form, share in budget["white_box"].items()}
        values[f"{at}, {NETWORKS['deployed']}, all attacks"] = _share(budget["deployed_worst_case"])
    costs = load_profile(folder.recipe.report.cost_profile)
    graph = load_graph(folder.graph)
    for one in replayed_sets(folder, folder.recipe.replay.backend):
        if one.origin.kind != "clean" and one.origin.made_on != "deployed":
            continue
        images = "clean image" if one.origin.kind == "clean" else f"image attacked at eps {one.origin.eps:g}"
        trace, joule = one.trace, sum_layers(price(graph, one.trace, costs))
        values[f"spikes, {images}"] = _mean(sum(counts.sum(0) for counts in trace.spikes.values()), "")
        values[f"synaptic operations, {images}"] = _mean(
            sum(counts.sum(0) for counts in trace.synaptic_operations.values()), ""
        )
        for set_name, energies in joule.by_set.items():
            values[f"priced energy ({set_name}), {images}"] = _mean(energies, "J")
    return values, tuple(check["name"] for check in network["checks"] if check["fired"])


def _mean(values: Tensor | int, unit: str) -> Quantity:
    """Over images."""
    assert isinstance(values, Tensor)
    found = mean_interval(values)
    assert found["mean"] is not None
    return Quantity(value=found["mean"], low=found["low"], high=found["high"], n=len(values), unit=unit)
