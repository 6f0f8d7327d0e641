"""`hardspike fault`: accuracy of a run's deployed network, clean and attacked, against the rate of faults of the chip."""

from dataclasses import replace
from typing import Any

from torch import Tensor

from hardspike.attack.evaluation import Attacker, run_members
from hardspike.attack.members import Member
from hardspike.deploy.faults import FaultCurve, FaultKind, fault_curve, faulty
from hardspike.deploy.graph_file import load_graph
from hardspike.deploy.process_graph import ProcessGraph
from hardspike.results import evaluations
from hardspike.run_folder import RunFolder
from hardspike.show import table
from hardspike.snn.atomic import write_json
from hardspike.snn.data import ImageSet
from hardspike.snn.progress import Progress
from hardspike.summary import Summary


def fault_run(
    folder: RunFolder,
    data: ImageSet,
    kinds: tuple[FaultKind, ...],
    rates: tuple[float, ...],
    seeds: tuple[int, ...],
    member: Member,
    progress: Progress,
) -> Summary:
    """Every kind at every rate; kept in the run's faults.json.

    Attacked: replayed, the images that the recipe's attacks made for the network without faults at its largest budget; and anew,
    those that `member` makes for each faulty network itself. Faults spoil a replayed attack before they spoil the network, so
    only the second says something about robustness.
    """
    graph, eps = load_graph(folder.graph), max(folder.recipe.attack.eps)
    sets: dict[str, tuple[Tensor, Tensor]] = {"clean": (data.images, data.labels)}
    for label, one in evaluations(folder, ("deployed",)):
        if not label and one.evaluation.eps == eps:
            made = one.first(len(data))
            sets["replayed"] = (made.evaluation.images, made.clean.labels)
    curves = []
    for kind in kinds:
        curve = fault_curve(graph, sets, kind, rates, seeds=seeds, progress=progress)
        progress.begin(f"faults: {kind}, {member.name} on each", len(rates) * len(seeds))
        anew = tuple(tuple(_attacked(graph, data, kind, r, s, member, eps, progress) for s in seeds) for r in rates)
        curves.append(
            replace(curve, accuracy=curve.accuracy | {"attacked": anew}, images=curve.images | {"attacked": len(data)})
        )
    values: dict[str, Any] = {"eps": eps, "attack": member.name, "curves": [curve.facts() for curve in curves]}
    write_json(folder.path / "faults.json", values)
    title = (
        f"accuracy on {len(data)} test images under faults, mean over seeds {', '.join(map(str, seeds))} (lowest); eps {eps:g}, "
        f"replayed from the faultless network, or attacked anew by {member.name}"
    )
    rows = [row for curve in curves for row in _rows(curve)]
    shown = table(title, ["fault", "rate", *curves[0].accuracy], rows)
    return Summary(values, [shown], [f"every seed: {folder.path / 'faults.json'}"])


def _attacked(
    graph: ProcessGraph,
    data: ImageSet,
    kind: FaultKind,
    rate: float,
    seed: int,
    member: Member,
    eps: float,
    progress: Progress,
) -> float:
    """Robust accuracy of one faulty network under an attack that sees its faults."""
    network = faulty(graph, kind, rate, seed)
    attacker = Attacker(model=network, data=data, eps=eps, grid=(1 << graph.input.image_bits) - 1)
    *_, made = run_members(attacker, [member])
    progress.advance(note=f"rate {rate:g}: {100 * made.robust_accuracy:.1f} %")
    return made.robust_accuracy


def _rows(curve: FaultCurve) -> list[list[str]]:
    return [
        [
            curve.kind,
            f"{rate:g}",
            *(f"{100 * curve.mean(name)[i]:.1f} % ({100 * curve.lowest(name)[i]:.1f})" for name in curve.accuracy),
        ]
        for i, rate in enumerate(curve.rates)
    ]
