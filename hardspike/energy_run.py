"""`hardspike energy`: images within eps that make a run's deployed network work as hard as possible, beside controls."""

from dataclasses import asdict
from typing import Any

from torch import Tensor

from hardspike.deploy.energy_attack import energy_attack
from hardspike.deploy.energy_report import EnergyReport, control_images, energy_report
from hardspike.deploy.graph_file import load_graph
from hardspike.hw_profiles.profile import load_profile
from hardspike.results import evaluations
from hardspike.run_folder import RunFolder
from hardspike.show import table
from hardspike.snn.atomic import write_json
from hardspike.snn.checkpoint import save_tensors
from hardspike.snn.data import ImageSet
from hardspike.snn.progress import Progress
from hardspike.summary import Summary

OBJECTIVES = {"energy attack, class kept": True, "energy attack": False}


def energy_run(
    folder: RunFolder, data: ImageSet, budgets: tuple[float, ...], steps: int, seed: int, progress: Progress
) -> Summary:
    """At every budget both objectives, the controls, and where the run has it the accuracy attack on the deployed network.

    Images and numbers are kept in the run's folder `energy`.
    """
    graph, profile = load_graph(folder.graph), load_profile(folder.recipe.report.cost_profile)
    values, tables, notes = [], [], []
    for eps in budgets:
        made: dict[str, Tensor] = {}
        for name, keep_class in OBJECTIVES.items():
            progress.begin(f"{name}, eps {eps:.4g}", len(data))
            made[name] = energy_attack(
                graph, data.images, eps=eps, keep_class=keep_class, steps=steps, seed=seed, progress=progress.advance
            )
        tensors = {name.replace(", ", "-").replace(" ", "-"): images for name, images in made.items()}
        metadata = {"kind": "energy attack", "graph": folder.key("deploy")}
        save_tensors(folder.energy_set(eps), tensors, metadata)
        sets = made | _accuracy_attack(folder, len(data), eps) | control_images(data.images, eps=eps, seed=seed)
        progress.begin(f"count, eps {eps:.4g}", len(data) * (len(sets) + 1))
        report = energy_report(graph, data.images, sets, profile, progress=progress.advance)
        values.append({"eps": eps, "steps": steps, "seed": seed} | asdict(report))
        tables.append(_table(report, eps, seed))
        notes = [_not_timed(report)] if report.cores is None else []
    path = folder.path / "energy" / "energy.json"
    write_json(path, values)
    return Summary(values, tables, [*notes, f"every number: {path}"])


def _not_timed(report: EnergyReport) -> str:
    """Why there is no time of the busiest core, the same at every budget."""
    return f"no time of the busiest core: {report.not_placed or f'profile {report.profile} has no cores or no time per event'}"


def _accuracy_attack(folder: RunFolder, count: int, eps: float) -> dict[str, Tensor]:
    """The images of the run's own attack on the deployed network at this budget, if there are as many."""
    for label, one in evaluations(folder, ("deployed",)):
        evaluation = one.evaluation
        if not label and abs(evaluation.eps - eps) < 1e-9 and evaluation.norm == "linf" and len(evaluation) >= count:
            return {"accuracy attack": evaluation.images[:count]}
    return {}


def _table(report: EnergyReport, eps: float, seed: int) -> Any:
    rows = []
    for one in report.sets:
        energies = [quantity.ratio.mean for quantity in one.energy_j.values()]
        times = [quantity.ratio.mean for quantity in one.time_s.values()]
        operations = one.synaptic_operations.ratio
        rows.append(
            [
                one.name,
                f"{100 * one.class_kept:.0f} %",
                f"{one.spikes.ratio.mean:.3f}",
                f"{operations.mean:.3f}",
                f"{operations.p95:.3f}",
                f"{operations.max:.3f}",
                _span(energies),
                _span(times),
            ]
        )
    columns = ["images", "class kept", "spikes", "operations", "p95", "max", "energy", "busiest core"]
    busiest = "" if report.cores is None else f" and time of the busiest of {report.cores} cores"
    title = (
        f"times the clean image's, mean over {report.samples} test images, eps {eps:.4g}, seed {seed}; "
        f"energy{busiest} with {report.profile}'s price sets"
    )
    return table(title, columns, rows)


def _span(ratios: list[float]) -> str:
    """`1.02 to 1.04`; a dash where the profile has no such constants."""
    if not ratios:
        return "-"
    low, high = f"{min(ratios):.3f}", f"{max(ratios):.3f}"
    return low if low == high else f"{low} to {high}"
