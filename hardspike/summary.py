"""What each command prints when it is done: tables for people, the same values for machines."""

from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table

from hardspike.deploy.chip_report import Occupied
from hardspike.deploy.graph_file import load_graph
from hardspike.deploy.lava_limits import check_netx_holds
from hardspike.deploy.placement import place
from hardspike.deploy.process_graph import EXTENSIONS, ProcessGraph
from hardspike.hw_profiles.profile import load_profile
from hardspike.results import adversarial_sets, equalities, layer_fits, replayed_sets
from hardspike.run_folder import RunFolder
from hardspike.show import equalities_table, results_table, table
from hardspike.snn.atomic import read_json
from hardspike.snn.checkpoint import load_network
from hardspike.snn.errors import HardspikeError
from hardspike.snn.network import num_neurons, num_parameters


@dataclass(frozen=True, slots=True)
class Summary:
    """holds False: a proof failed, so the command fails."""

    values: Any
    tables: list[Table] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    holds: bool = True


def summary(command: str, folder: RunFolder, replay_label: str) -> Summary:
    """Of a finished stage, read back from the run folder."""
    match command:
        case "train":
            return _network(folder, "ann")
        case "convert":
            return _network(folder, "snn")
        case "deploy":
            return _fit(folder)
        case "verify":
            return _equalities(folder)
        case "replay":
            return _replayed(folder, replay_label)
        case _:
            return _report(folder) if folder.recipe.deploy.enabled else _attacks(folder)


def _network(folder: RunFolder, which: str) -> Summary:
    path = folder.ann if which == "ann" else folder.snn
    network = load_network(path)
    last = folder.last_metrics("train" if which == "ann" else "convert")
    values: dict[str, Any] = {
        "file": str(path),
        "parameters": num_parameters(network),
        "neurons": num_neurons(network.architecture),
        "time_steps": network.time_steps,
        "thresholds": {name: float(n.threshold.detach()) for name, n in network.neurons().items()}
        if which == "snn"
        else {},
        "best_validation": last,
    }
    rows = [[key, f"{value:.4f}"] for key, value in last.items()]
    rows += [[f"threshold of {name}", f"{value:.4f}"] for name, value in values["thresholds"].items()]
    title = f"{which.upper()}: {values['parameters']:,} parameters, {values['neurons']:,} neurons"
    return Summary(values, [table(title, ["best epoch, validation", "value"], rows)], [f"network: {path}"])


def _fit(folder: RunFolder) -> Summary:
    fits, graph = [asdict(fit) for fit in layer_fits(folder)], load_graph(folder.graph)
    overflows = read_json(folder.overflows, "the deploy stage's count of overflows")
    rows = [
        [
            fit["name"],
            f"{fit['scale']:.1f}",
            fit["binding"],
            f"{fit['largest_weight']}",
            f"{fit['threshold']}",
            f"{fit['largest_bias']}",
            f"{100 * fit['relative_weight_error']:.2f} %",
            f"{100 * fit['weight_rms_error']:.2f} %",
            f"{100 * fit['zeroed']:.1f} %",
            f"{overflows[fit['name']]['wrapped']} / {overflows[fit['name']]['clipped']}",
        ]
        for fit in fits
    ]
    columns = ["layer", "scale", "binding limit", "largest weight", "threshold", "largest bias", "weight error"]
    columns += ["rms", "to zero", "wraps / clips"]
    title = f"deployed to {folder.recipe.deploy.profile}, {folder.recipe.deploy.weight_bits}-bit weights"
    placement = _placement(folder, graph)
    lines = [f"process graph: {folder.graph}", f".net file: {_net_file(folder, graph)}", *_beyond_the_chip(graph)]
    lines.append(f"placement: {placement}")
    net = str(folder.net) if folder.net.is_file() else None
    values = {"layers": fits, "overflows": overflows, "graph": str(folder.graph), "net": net}
    values["placement"] = placement
    return Summary(values, [table(title, columns, rows)], lines)


def _placement(folder: RunFolder, graph: ProcessGraph) -> str:
    """Cores, chips and what binds on the chip that the graph was compiled for; or why it finds no place there."""
    try:
        placed = place(graph, load_profile(folder.recipe.deploy.profile))
    except HardspikeError as refused:
        return f"none; {refused}"
    return f"{Occupied.by(placed).line()}; all of it: hardspike place {folder.path}"


def _net_file(folder: RunFolder, graph: ProcessGraph) -> str:
    if folder.net.is_file():
        return str(folder.net)
    try:
        check_netx_holds(graph)
    except HardspikeError as refused:
        return f"none; {refused}"
    return f"none at {folder.net}; run hardspike deploy {folder.path} --redo"


def _beyond_the_chip(graph: ProcessGraph) -> list[str]:
    """A line where neurons do what the chip's own do not."""
    found = {extension for layer in graph.layers for extension in layer.neurons.extensions} - set(graph.numerics.resets)
    names = ", ".join(EXTENSIONS[extension] for extension in sorted(found))
    return [f"needs microcode of its own on the chip: {names}; emulator and Lava's simulator run it"] if found else []


def _equalities(folder: RunFolder) -> Summary:
    rows = [asdict(row) | {"verdict": row.verdict} for row in equalities(folder)]
    return Summary(rows, [equalities_table(rows)], holds=all(row["verdict"] != "DIFFERS" for row in rows))


def _attacks(folder: RunFolder) -> Summary:
    values = []
    rows = []
    for made in adversarial_sets(folder):
        result = made.evaluation
        values.append(
            {
                "target": made.target,
                "eps": result.eps,
                "images": len(made.clean),
                "seed": result.seed,
                "clean_accuracy": result.clean_accuracy,
                "robust_accuracy": result.robust_accuracy,
                "after_each_attack": result.accuracy_after(),
            }
        )
        rows.append([made.target, f"{result.eps:g}", f"{result.clean_accuracy:.3f}", f"{result.robust_accuracy:.3f}"])
    settings = folder.recipe.attack
    names = ", ".join(member.name for member in settings.parsed())
    title = f"accuracy of {settings.images} test images under: {names}"
    lines = [f"report: {folder.report_html}"] if folder.finished("report") else []
    return Summary(values, [table(title, ["attacked network", "eps", "clean", "worst case"], rows)], lines)


def _replayed(folder: RunFolder, label: str) -> Summary:
    values = []
    rows = []
    for one in replayed_sets(folder, label):
        right = [float(flags.double().mean()) for flags in (one.right_ann, one.right_snn, one.right_deployed)]
        spikes = sum(float(counts.sum(0).double().mean()) for counts in one.trace.spikes.values())
        operations = sum(float(counts.sum(0).double().mean()) for counts in one.trace.synaptic_operations.values())
        values.append(
            asdict(one.origin)
            | {
                "backend": one.trace.backend,
                "images": len(one.trace),
                "accuracy": dict(zip(("ann", "snn", "deployed"), right, strict=True)),
                "agreement_with_snn": one.agreement,
                "spikes_per_image": spikes,
                "synaptic_operations_per_image": operations,
            }
        )
        rows.append(
            [
                one.origin.name,
                *(f"{r:.3f}" for r in right),
                f"{one.agreement:.3f}",
                f"{spikes:,.0f}",
                f"{operations / 1000:,.0f} k",
            ]
        )
    columns = ["set", "ANN", "SNN", "deployed", "SNN agrees", "spikes", "operations"]
    title = f"replayed on {label}: {values[0]['images'] if values else 0} images on the input's grid; spikes and operations per image"
    return Summary(values, [table(title, columns, rows)])


def _report(folder: RunFolder) -> Summary:
    numbers = read_json(folder.report_json, "report.json")
    holds = all(row["verdict"] != "DIFFERS" for network in numbers["networks"] for row in network["equalities"])
    lines = [f"report: {folder.report_html}"]
    first = numbers["networks"][0]["equalities"]
    missing = {row["reason"] for row in first if row["reason"] and row["name"].startswith(("3", "4"))}
    lines += [f"not compared with Lava: {reason}" for reason in sorted(missing)]
    return Summary(numbers, [results_table(numbers)], lines, holds)
