"""What `hardspike attack` prints: every attack on every network, what fired, and what the integer network is worth after all."""

from collections.abc import Sequence
from typing import Any

from hardspike.attack.adversarial_set import AdversarialSet
from hardspike.attack.evaluation import interval
from hardspike.attack.settings import AttackSettings
from hardspike.deploy.deployed_robustness import DeployedRobustness, across_networks, deployed_robustness
from hardspike.deploy.emulator import EmulatorBackend
from hardspike.deploy.graph_file import load_graph
from hardspike.deploy.replay import Replayed, replay, replay_sets
from hardspike.results import adversarial_sets
from hardspike.run_folder import RunFolder
from hardspike.show import table
from hardspike.snn.checkpoint import load_network
from hardspike.summary import Summary


def attack_summary(folder: RunFolder, settings: AttackSettings, label: str) -> Summary:
    """Of finished evaluations, read back from the run folder; the sets are replayed on the emulator for the last table."""
    sets = adversarial_sets(folder, settings, label)
    values: dict[str, Any] = {"sets": [_set_values(one) for one in sets]}
    tables = [_members_table(one) for one in sets]
    lines = [f"suspect, {one.target} eps {one.evaluation.eps:.4g}: {line}" for one in sets for line in _fired(one)]
    if "deployed" in settings.targets and settings.norm == "linf":
        replayed = _replayed(folder, sets, settings)
        found = [deployed_robustness(replayed, _own(sets, eps), eps) for eps in settings.eps]
        floats = {one.evaluation.eps: one.evaluation for one in sets if one.target == "snn"}
        noise = {r.origin.eps: float(r.right_deployed.double().mean()) for r in replayed if r.origin.kind == "noise"}
        across = across_networks(found, floats, noise)
        values["deployed"] = [_deployed_values(one) for one in found]
        values["across"] = [{"name": check.name, "fired": check.fired, "detail": check.detail} for check in across]
        tables.append(_deployed_table(found))
        lines += [f"suspect: {check.name} ({check.detail}); see {check.link}" for check in across if check.fired]
    lines.append(f"adversarial sets: {folder.attack_set(settings.targets[0], settings.eps[0], label).parent}")
    return Summary(values, tables, lines)


def _own(sets: Sequence[AdversarialSet], eps: float) -> Any:
    return next((one.evaluation for one in sets if one.target == "deployed" and one.evaluation.eps == eps), None)


def _replayed(folder: RunFolder, sets: Sequence[AdversarialSet], settings: AttackSettings) -> list[Replayed]:
    graph, backend = load_graph(folder.graph), EmulatorBackend()
    ann, snn = load_network(folder.ann), load_network(folder.snn)
    clean = sets[0].clean
    return [replay(one, graph, backend, ann=ann, snn=snn) for one in replay_sets(clean, list(sets), settings.seed)]


def _fired(one: AdversarialSet) -> list[str]:
    return [f"{check.name} ({check.detail}); see {check.link}" for check in one.checks if check.fired]


def _set_values(one: AdversarialSet) -> dict[str, Any]:
    made = one.evaluation
    low, high = interval(made.robust_accuracy, len(made))
    return {
        "target": one.target,
        "eps": made.eps,
        "norm": made.norm,
        "images": len(made),
        "seed": made.seed,
        "clean_accuracy": made.clean_accuracy,
        "robust_accuracy": made.robust_accuracy,
        "robust_accuracy_low": low,
        "robust_accuracy_high": high,
        "after_each_attack": made.accuracy_after(),
        "tried": dict(zip(made.members, made.tried, strict=True)),
        "seconds": dict(zip(made.members, made.seconds, strict=True)),
        "checks": [
            {"name": check.name, "fired": check.fired, "detail": check.detail, "link": check.link}
            for check in one.checks
        ],
    }


def _members_table(one: AdversarialSet) -> Any:
    made = one.evaluation
    rows = [["clean", *_share(made.clean_accuracy, len(made)), "", ""]]
    for number, (name, share) in enumerate(made.accuracy_after().items()):
        rows.append([name, *_share(share, len(made)), str(made.tried[number]), f"{made.seconds[number]:.1f}"])
    rows.append(["worst case", *_share(made.robust_accuracy, len(made)), "", f"{sum(made.seconds):.1f}"])
    title = f"{one.target}, {made.norm} eps {made.eps:.4g}: accuracy on {len(made)} test images after each attack, seed {made.seed}"
    return table(title, ["after attack", "accuracy", "95 % interval", "tried on", "seconds"], rows)


def _share(share: float, count: int) -> list[str]:
    low, high = interval(share, count)
    return [f"{100 * share:.1f} %", f"{100 * low:.1f} to {100 * high:.1f}"]


def _deployed_values(one: DeployedRobustness) -> dict[str, Any]:
    low, high = interval(one.robust_accuracy, len(one.standing))
    return {
        "eps": one.eps,
        "images": len(one.standing),
        "robust_accuracy": one.robust_accuracy,
        "robust_accuracy_low": low,
        "robust_accuracy_high": high,
        "under_its_own_attacks": None if one.own is None else float(one.own.double().mean()),
        "under_attacks_on": {r.origin.made_on: float(r.right_deployed.double().mean()) for r in one.replayed},
        "breaks_only_float_snn": {name: pair[0] for name, pair in one.disagreements().items()},
        "breaks_only_deployed": {name: pair[1] for name, pair in one.disagreements().items()},
    }


def _deployed_table(found: Sequence[DeployedRobustness]) -> Any:
    rows = []
    for one in found:
        apart = one.disagreements()
        for r in one.replayed:
            name = r.origin.made_on
            right = [100 * float(flags.double().mean()) for flags in (r.right_deployed, r.right_snn)]
            only_float, only_deployed = apart[name]
            rows.append(
                [
                    f"eps {one.eps:.4g}, made on {name}",
                    *(f"{v:.1f} %" for v in right),
                    f"{only_deployed}",
                    f"{only_float}",
                ]
            )
        share, between = _share(one.robust_accuracy, len(one.standing))
        rows.append([f"eps {one.eps:.4g}, deployed robust accuracy", share, between, "", ""])
    columns = ["images on the input's grid", "deployed", "float SNN", "break only deployed", "break only float"]
    return table("the integer network under everything (worst case per image, 95 % interval)", columns, rows)
