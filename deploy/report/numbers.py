"""Every number of a report, computed once: `report.json` holds them, the page only shows them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hardspike.attack.adversarial_set import AdversarialSet
from hardspike.attack.check import Check
from hardspike.attack.evaluation import interval
from hardspike.deploy.compare import Equality
from hardspike.deploy.deployed_robustness import DeployedRobustness, across_networks, deployed_robustness
from hardspike.deploy.energy import EnergyInterval, neuron_updates, price, sum_layers
from hardspike.deploy.layer_scale import LayerFit
from hardspike.deploy.process_graph import ProcessGraph
from hardspike.deploy.replay import Replayed
from hardspike.hw_profiles.profile import Profile
from hardspike.snn.network import SpikingNetwork, num_neurons, num_parameters


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NetworkResult:
    """All that one network's stages left. measured: of hardware traces, `hardware_check.Measurement` as JSON."""

    name: str
    training: str
    ann: SpikingNetwork
    snn: SpikingNetwork
    graph: ProcessGraph
    fits: Sequence[LayerFit]
    equalities: Sequence[Equality]
    attacks: Sequence[AdversarialSet]
    replayed: Sequence[Replayed]
    backend: str
    seconds: dict[str, float]
    measured: Sequence[dict[str, Any]] = ()


def proportion(right: Tensor) -> dict[str, Any]:
    """Share of True with its 95 % Wilson interval; `right`: bool [N]."""
    n = len(right)
    p = float(right.double().mean())
    low, high = interval(p, n)
    return {"value": p, "low": low, "high": high, "n": n}


def distribution(values: Tensor) -> dict[str, float]:
    """Mean, median, 95th percentile and maximum over samples."""
    values = values.double()
    quantiles = torch.quantile(values, torch.tensor([0.5, 0.95], dtype=torch.float64))
    return {
        "mean": float(values.mean()),
        "p50": float(quantiles[0]),
        "p95": float(quantiles[1]),
        "max": float(values.max()),
    }


def network_numbers(result: NetworkResult, costs: Profile) -> dict[str, Any]:
    """The part of report.json about one network."""
    graph = result.graph
    clean = _only(result.replayed, kind="clean")[0]
    budgets = sorted({made.evaluation.eps for made in result.attacks})
    robust = [_budget(result, eps) for eps in budgets]
    return {
        "name": result.name,
        "training": result.training,
        "parameters": num_parameters(result.snn),
        "neurons": num_neurons(result.snn.architecture),
        "time_steps": graph.time_steps,
        "profile": graph.profile,
        "weight_bits": graph.weight_bits,
        "backend": result.backend,
        "clean": _three(clean),
        "agreement": clean.agreement,
        "robust": robust,
        "replay": [_replay(result, replayed, costs) for replayed in result.replayed],
        "fit": [asdict(fit) for fit in result.fits],
        "equalities": [asdict(row) | {"verdict": row.verdict} for row in result.equalities],
        "checks": [asdict(check) for check in _checks(result, budgets)],
        "seconds": result.seconds,
        "measured": list(result.measured),
    }


def _three(replayed: Replayed) -> dict[str, Any]:
    return {
        "ann": proportion(replayed.right_ann),
        "snn": proportion(replayed.right_snn),
        "deployed": proportion(replayed.right_deployed),
    }


def _only(replayed: Sequence[Replayed], *, kind: str, eps: float | None = None) -> list[Replayed]:
    return [r for r in replayed if r.origin.kind == kind and eps in (None, r.origin.eps)]


def _budget(result: NetworkResult, eps: float) -> dict[str, Any]:
    """Robust accuracy at one budget: each network under attacks made on it, and the deployed one under all of them."""
    made = {attack.target: attack.evaluation for attack in result.attacks if attack.evaluation.eps == eps}
    entry: dict[str, Any] = {"eps": eps, "white_box": {}, "members": {}}
    for target, evaluation in made.items():
        standing = evaluation.broken_by == -1
        entry["white_box"][target] = proportion(standing)
        entry["members"][target] = evaluation.accuracy_after()
        entry["seed"] = evaluation.seed
    entry["deployed_worst_case"] = proportion(_deployed(result, eps).standing)
    entry["noise"] = {r.origin.name: _three(r) for r in _only(result.replayed, kind="noise", eps=eps)}
    return entry


def _replay(result: NetworkResult, replayed: Replayed, costs: Profile) -> dict[str, Any]:
    graph, trace, origin = result.graph, replayed.trace, replayed.origin
    energy = price(graph, trace, costs)
    layers = []
    for layer in graph.layers:
        updates = neuron_updates(layer, graph.time_steps)
        spikes = trace.spikes[layer.name].sum(0) if layer.name in trace.spikes else None
        layers.append(
            {
                "name": layer.name,
                "neurons": updates // graph.time_steps,
                "neuron_updates": updates,
                "synaptic_operations": distribution(trace.synaptic_operations[layer.name].sum(0)),
                "spikes": None if spikes is None else distribution(spikes),
                "spike_rate": None if spikes is None else float(spikes.double().mean()) / updates,
                "active_neurons": None if spikes is None else distribution(trace.active[layer.name]),
                "energy_j": _energy(energy[layer.name]),
            }
        )
    spikes_per_sample = torch.stack([counts.sum(0) for counts in trace.spikes.values()]).sum(0)
    operations = torch.stack([counts.sum(0) for counts in trace.synaptic_operations.values()]).sum(0)
    snn, deployed = replayed.right_snn, replayed.right_deployed
    return {
        "name": origin.name,
        "kind": origin.kind,
        "eps": origin.eps,
        "made_on": origin.made_on,
        "accuracy": _three(replayed),
        "accuracy_snn_before_grid": proportion(replayed.right_snn_exact),
        "agreement": replayed.agreement,
        "right_only_snn": int((snn & ~deployed).sum()),
        "right_only_deployed": int((deployed & ~snn).sum()),
        "spikes": distribution(spikes_per_sample),
        "synaptic_operations": distribution(operations),
        "energy_j": _energy(sum_layers(energy)),
        "layers": layers,
        "spikes_over_time": {name: counts.double().mean(1).tolist() for name, counts in trace.spikes.items()},
    }


def _energy(interval: EnergyInterval) -> dict[str, Any]:
    return {
        "low": distribution(interval.low_j),
        "high": distribution(interval.high_j),
        "by_set": {name: distribution(values) for name, values in interval.by_set.items()},
    }


def _deployed(result: NetworkResult, eps: float) -> DeployedRobustness:
    own = next((m.evaluation for m in result.attacks if m.target == "deployed" and m.evaluation.eps == eps), None)
    return deployed_robustness(result.replayed, own, eps)


def _checks(result: NetworkResult, budgets: list[float]) -> list[Check]:
    """Masking checks of the deployed network; none where it was not attacked itself."""
    floats = {made.evaluation.eps: made.evaluation for made in result.attacks if made.target == "snn"}
    noise = {r.origin.eps: float(r.right_deployed.double().mean()) for r in result.replayed if r.origin.kind == "noise"}
    own = [
        replace(check, name=f"{check.name} at eps {made.evaluation.eps:g}")
        for made in result.attacks
        if made.target == "deployed"
        for check in made.checks
    ]
    return across_networks([_deployed(result, eps) for eps in budgets], floats, noise) + own


def examples(result: NetworkResult, count: int) -> list[dict[str, Any]]:
    """Images and their adversarial twins at the largest budget: first those that broke the deployed network, then survivors."""
    made = [one for one in result.attacks if one.target == "deployed"] or list(result.attacks)
    largest = max(made, key=lambda one: one.evaluation.eps)
    replayed = next(
        r for r in result.replayed if r.origin.made_on == largest.target and r.origin.eps == largest.evaluation.eps
    )
    clean = _only(result.replayed, kind="clean")[0]
    usable = min(len(replayed.right_deployed), len(clean.right_deployed))
    order = sorted(range(usable), key=lambda i: (bool(replayed.right_deployed[i]), not bool(clean.right_deployed[i])))
    half = [i for i in order if not replayed.right_deployed[i]][: (count + 1) // 2]
    rest = [i for i in order if replayed.right_deployed[i]][: count - len(half)]
    return [
        {
            "index": i,
            "label": int(largest.clean.labels[i]),
            "eps": largest.evaluation.eps,
            "broken_by": _member(largest, i),
            "predicted_clean": int(clean.trace.predicted[i]),
            "predicted_attacked": int(replayed.trace.predicted[i]),
            "clean": largest.clean.images[i].tolist(),
            "attacked": largest.evaluation.images[i].tolist(),
        }
        for i in half + rest
    ]


def _member(made: AdversarialSet, index: int) -> str:
    broken = int(made.evaluation.broken_by[index])
    return made.evaluation.members[broken] if broken >= 0 else {-1: "none", -2: "wrong already"}[broken]
