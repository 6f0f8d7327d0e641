"""`hardspike compare`: finished runs side by side, with what differs from the first by more than the intervals."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from hardspike.analyses.analyse_run import analyses_of
from hardspike.analyses.mean_interval import mean_interval
from hardspike.deploy.energy import price, sum_layers
from hardspike.deploy.graph_file import load_graph
from hardspike.deploy.report.chart_file import write_chart
from hardspike.deploy.report.compare_page import comparison_charts, render_comparison
from hardspike.deploy.report.compared import ComparedRun, Quantity, compared_rows, notes_on
from hardspike.deploy.report.numbers import proportion
from hardspike.deploy.report.texts import NETWORKS
from hardspike.hw_profiles.profile import load_profile
from hardspike.results import adversarial_sets, replayed_sets
from hardspike.run_folder import RunFolder
from hardspike.show import table
from hardspike.snn.atomic import read_json, write_json, write_text
from hardspike.snn.errors import SettingsError
from hardspike.summary import Summary


def compare_runs(paths: Sequence[Path], out: Path) -> Summary:
    """Write the comparison to `out`. Raises SettingsError for fewer than two runs, FileError for one that is not finished."""
    if len(paths) < 2:
        raise SettingsError(f"compare: {len(paths)} run is not enough; name two or more run folders")
    if len(set(path.resolve() for path in paths)) < len(paths):
        raise SettingsError("compare: a run is named twice; name each once")
    folders = [RunFolder.open(path) for path in paths]
    runs = [_compared(folder, name) for folder, name in zip(folders, _names(paths), strict=True)]
    rows, notes = compared_rows(runs), notes_on(runs)
    charts = comparison_charts(runs)
    for chart in charts:
        write_chart(out / "figures", chart)
    values = {"runs": [asdict(run) for run in runs], "rows": [asdict(row) for row in rows], "notes": notes}
    write_json(out / "comparison.json", values)
    analyses = {
        run.name: [kept.analysis for kept in analyses_of(folder) if kept.current]
        for run, folder in zip(runs, folders, strict=True)
    }
    write_text(out / "report.html", render_comparison(runs, rows, notes, charts, analyses))
    title = f"compared with {runs[0].name}: ▲ higher, ▼ lower by more than both 95 % intervals"
    shown = table(title, ["", *(run.name for run in runs)], [[row.name, *row.cells()] for row in rows])
    return Summary(values, [shown], [*notes, f"report: {out / 'report.html'}"])


def _names(paths: Sequence[Path]) -> list[str]:
    """The folder's name; with as much of its path as tells it from the others."""
    names = [path.resolve().name for path in paths]
    return [
        name if names.count(name) == 1 else f"{path.resolve().parent.name}/{name}"
        for path, name in zip(paths, names, strict=True)
    ]


def _compared(folder: RunFolder, name: str) -> ComparedRun:
    recipe = folder.recipe
    deploys = recipe.deploy.enabled
    folder.require_finished("report" if deploys else "attack")
    values, fired = _deployed_values(folder) if deploys else (_float_values(folder), ())
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


def _float_values(folder: RunFolder) -> dict[str, Quantity]:
    """Of a run that is not deployed: from its adversarial sets."""
    values = {}
    for made in adversarial_sets(folder):
        found, form = made.evaluation, NETWORKS[made.target]
        values[f"clean, {form}"] = _share(proportion(found.broken_by != -2))
        values[f"attacked, eps {found.eps:g}, {form}"] = _share(proportion(found.broken_by == -1))
    return values


def _deployed_values(folder: RunFolder) -> tuple[dict[str, Quantity], tuple[str, ...]]:
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
