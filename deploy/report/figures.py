"""The charts of a report, from the numbers of report.json: the page draws them, and each can be a file."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hardspike.deploy.report.chart import BarChart, Bars, Chart, Line, LineChart

Numbers = dict[str, Any]
FORMS = {"ann": "ANN", "snn": "float SNN", "deployed": "deployed"}
UNITS = (("J", 1.0), ("mJ", 1e-3), ("µJ", 1e-6), ("nJ", 1e-9), ("pJ", 1e-12))


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkCharts:
    """Of one network. activity: by what is counted, without those that no layer has. times: one for each spiking layer."""

    activity: dict[str, BarChart]
    times: tuple[LineChart, ...]
    energy: BarChart


def charts(numbers: Numbers) -> list[Chart]:
    """Every chart of a report.json, in the order of the page; their names differ."""
    made: list[Chart] = [accuracy_chart(numbers["networks"])]
    for index, network in enumerate(numbers["networks"]):
        found = network_charts(network, f"n{index}")
        made += [*found.activity.values(), *found.times, found.energy]
    return made


def accuracy_chart(networks: Sequence[Numbers]) -> LineChart:
    """Accuracy against eps with its 95 % intervals: the tone says the arithmetic, solid or dashed says which network."""
    lines = []
    for number, network in enumerate(networks):
        for form in FORMS:
            points = [(0.0, network["clean"][form])]
            points += [(b["eps"], b["white_box"][form]) for b in network["robust"] if form in b["white_box"]]
            value, low, high = (tuple(share[key] for _, share in points) for key in ("value", "low", "high"))
            name = FORMS[form] if len(networks) == 1 else f"{FORMS[form]}, {network['name']}"
            x = tuple(x for x, _ in points)
            lines.append(Line(name=name, tone=form, x=x, y=value, low=low, high=high, dashed=number > 0))
    eps = sorted({budget["eps"] for network in networks for budget in network["robust"]})
    return LineChart(
        name="accuracy",
        title="Accuracy against the attacker's budget",
        x_label="eps: largest change of a pixel, full range = 1",
        y_label="accuracy",
        lines=tuple(lines),
        caption="Each network under attacks made on itself. Vertical lines are 95 % intervals.",
        percent=True,
        x_names=((0.0, "clean"), *((value, f"{value:g}") for value in eps)),
        y_top=1.0,
    )


def network_charts(network: Numbers, prefix: str) -> NetworkCharts:
    """prefix: of the charts' names."""
    chosen = chosen_sets(network["replay"])
    clean = chosen["clean"]
    names = {kind: _set_name(one) for kind, one in chosen.items()}
    layers = [layer["name"] for layer in clean["layers"]]
    spiking = [layer["name"] for layer in clean["layers"] if layer["spikes"] is not None]
    by_layer = {kind: {layer["name"]: layer for layer in one["layers"]} for kind, one in chosen.items()}
    shares = {
        name: {
            kind: [value / by_layer[kind][name]["neurons"] for value in one["spikes_over_time"][name]]
            for kind, one in chosen.items()
        }
        for name in spiking
    }
    top = max((value for kinds in shares.values() for values in kinds.values() for value in values), default=0.0)
    unit = energy_unit(clean)
    spans = {kind: [energy_span(layer["energy_j"]) for layer in one["layers"]] for kind, one in chosen.items()}
    activity = {
        f"{what} per image": _layer_chart(
            f"{prefix}-{key}",
            f"{what} per image and layer, {network['name']}",
            f"{what.lower()} per image",
            shown,
            {kind: [by_layer[kind][name][key] for name in shown] for kind in chosen},
            names,
        )
        for what, key, shown in (
            ("Spikes", "spikes", spiking),
            ("Synaptic operations", "synaptic_operations", layers),
        )
        if shown
    }
    return NetworkCharts(
        activity=activity,
        times=tuple(
            _time_chart(f"{prefix}-time-{at}", layer, network["name"], shares[layer], names, top)
            for at, layer in enumerate(spiking)
        ),
        energy=_energy_chart(f"{prefix}-energy", network["name"], unit, layers, spans, names),
    )


def chosen_sets(replay: Sequence[Numbers]) -> dict[str, Numbers]:
    """Clean images, and at the largest eps noise, the attack on the deployed network (on another one where that is missing), and
    where the run has one the energy attack."""
    chosen = {"clean": next(one for one in replay if one["kind"] == "clean")}
    largest = max(one["eps"] for one in replay)
    for kind in ("noise", "attack", "energy"):
        found = [one for one in replay if one["kind"] == kind and one["eps"] == largest]
        if found:
            chosen[kind] = next((one for one in found if one["made_on"] == "deployed"), found[-1])
    return chosen


def energy_unit(clean: Numbers) -> tuple[str, float]:
    """The largest unit in which the energy of clean images is one or more, with its size in joule."""
    return next((unit for unit in UNITS if clean["energy_j"]["high"]["mean"] >= unit[1]), UNITS[-1])


def energy_span(joule: Numbers) -> tuple[float, float]:
    """Means of the lower and the higher cost set, in joule."""
    return joule["low"]["mean"], joule["high"]["mean"]


def _set_name(one: Numbers) -> str:
    """What the images of a replayed set are: `attack on deployed, eps 0.1`."""
    made_on = FORMS.get(one["made_on"], one["made_on"])
    names = {"clean": "clean", "noise": "random noise", "attack": f"attack on {made_on}", "energy": "energy attack"}
    name = names[one["kind"]]
    return f"{name}, eps {one['eps']:g}" if one["eps"] else name


def _layer_chart(
    name: str,
    title: str,
    label: str,
    layers: Sequence[str],
    groups: dict[str, list[dict[str, float]]],
    names: dict[str, str],
) -> BarChart:
    """groups: by kind of input (clean, noise, attack), the distribution over images for each of `layers`."""
    return BarChart(
        name=name.replace("_", "-"),
        title=title,
        label=label,
        categories=tuple(layers),
        bars=tuple(
            Bars(
                name=names[kind],
                tone=kind,
                values=tuple(value["mean"] for value in values),
                low=tuple(value["p50"] for value in values),
                high=tuple(value["p95"] for value in values),
            )
            for kind, values in groups.items()
        ),
        caption="Layers from input (top) to output. Bars: mean over images; thin lines reach from the median to the 95th percentile.",
    )


def _time_chart(
    name: str, layer: str, network: str, shares: dict[str, list[float]], names: dict[str, str], top: float
) -> LineChart:
    """Share of one layer's neurons that fire at each step. top: the largest share of all layers of a page."""
    return LineChart(
        name=name,
        title=layer,
        x_label="",
        y_label="",
        lines=tuple(
            Line(
                name=names[kind],
                tone=kind,
                x=tuple(float(step) for step in range(1, len(values) + 1)),
                y=tuple(values),
                dashed=kind == "noise",
            )
            for kind, values in shares.items()
        ),
        caption=f"Share of the neurons of {layer} ({network}) that fire at each time step, mean over images.",
        percent=True,
        y_top=1.08 * top if top > 0 else 0.01,
        width="small",
    )


def _energy_chart(
    name: str,
    network: str,
    unit: tuple[str, float],
    layers: Sequence[str],
    spans: dict[str, list[tuple[float, float]]],
    names: dict[str, str],
) -> BarChart:
    """One bar per layer and kind of input, from the lower to the higher of the cost sets. spans: joule."""
    return BarChart(
        name=name,
        title=f"Energy of what can be priced, per image and layer, {network}",
        label=f"{unit[0]} per image, lower to higher cost set",
        categories=tuple(layers),
        bars=tuple(
            Bars(
                name=names[kind],
                tone=kind,
                low=tuple(low / unit[1] for low, _ in ends),
                high=tuple(high / unit[1] for _, high in ends),
            )
            for kind, ends in spans.items()
        ),
        caption="Each bar runs from the lower to the higher cost set, mean over images. This is not a total.",
    )
