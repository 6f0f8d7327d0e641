"""`hardspike certify`: what no image within eps can change about a run's deployed network."""

from typing import Any

import torch
from torch import Tensor

from hardspike.attack.evaluation import SURVIVED, interval
from hardspike.attack.settings import TARGETS
from hardspike.deploy.bounds import Interval
from hardspike.deploy.certificate import Certificate, certify
from hardspike.deploy.emulator import Emulator
from hardspike.deploy.graph_file import load_graph
from hardspike.deploy.smoothing import smoothed
from hardspike.hw_profiles.profile import load_profile
from hardspike.results import evaluations
from hardspike.run_folder import RunFolder
from hardspike.show import table
from hardspike.snn.atomic import write_json
from hardspike.snn.checkpoint import save_tensors
from hardspike.snn.data import ImageSet
from hardspike.snn.errors import HardspikeError
from hardspike.snn.progress import Progress
from hardspike.summary import Summary


def certify_run(
    folder: RunFolder, data: ImageSet, budgets: tuple[float, ...], sigmas: tuple[float, ...], progress: Progress
) -> Summary:
    """Interval certificates at every budget, and randomised smoothing at every sigma; kept in the run's folder `certificates`.

    Raises HardspikeError where an attack of this run broke an image that is certified: then one of the two is wrong.
    """
    graph, profile = load_graph(folder.graph), load_profile(folder.recipe.report.cost_profile)
    images, labels = data.images, data.labels
    values: dict[str, Any] = {"images": len(data), "profile": profile.name, "budgets": [], "smoothing": []}
    rows = []
    for eps in budgets:
        progress.begin(f"certify eps {eps:.4g}", len(data))
        made = certify(graph, images, labels, eps, profile=profile, progress=progress.advance)
        against = _check_against_attacks(folder, made)
        values["budgets"].append(_values(made, against))
        rows.append(_row(made, against))
        save_tensors(
            folder.path / "certificates" / f"eps{eps:.6g}.safetensors", _tensors(made), {"kind": "certificate"}
        )
    tables = [table(f"what holds for every image of the ball, {len(data)} test images", COLUMNS, rows)]
    smooth_rows = []
    for sigma in sigmas:
        progress.begin(f"smooth sigma {sigma:g}", len(data))
        found = smoothed(Emulator(graph), images, labels, sigma=sigma, progress=progress.advance)
        accuracies = {eps: found.certified_accuracy(eps) for eps in budgets}
        values["smoothing"].append(
            {
                "sigma": sigma,
                "failure": found.failure,
                "accuracy": float(found.correct.double().mean()),
                "certified_accuracy": {f"{eps:.6g}": share for eps, share in accuracies.items()},
                "median_linf_radius": float(found.linf.median()),
            }
        )
        shares = [f"{100 * share:.1f} %" for share in accuracies.values()]
        smooth_rows.append([f"{sigma:g}", f"{100 * float(found.correct.double().mean()):.1f} %", *shares])
    if sigmas:
        columns = ["sigma", "right or certain", *(f"eps {eps:.4g}" for eps in budgets)]
        title = "randomised smoothing of the deployed network: certified accuracy (each wrong with probability 0.001 at most)"
        tables.append(table(title, columns, smooth_rows))
    path = folder.path / "certificates" / "certificates.json"
    write_json(path, values)
    return Summary(values, tables, [f"certificates: {path}"])


COLUMNS = [
    "eps",
    "certified",
    "95 % interval",
    "attacks leave",
    "spikes, mean of lowest to highest",
    "highest over clean, operations",
    "energy at most, mean",
]


def _check_against_attacks(folder: RunFolder, made: Certificate) -> dict[str, float]:
    """Robust accuracy under each evaluation of the deployed network of at least this budget, on the images they share."""
    found = {}
    for label, one in evaluations(folder, TARGETS):
        evaluation = one.evaluation
        if one.target != "deployed" or evaluation.norm != "linf":
            continue
        count = min(len(made.certified), len(evaluation))
        broken = (evaluation.broken_by != SURVIVED)[:count]
        if evaluation.eps <= made.eps + 1e-9:
            wrong = int((made.certified[:count] & broken).sum())
            if wrong:
                raise HardspikeError(
                    f"{folder.path}: {wrong} images certified at eps {made.eps:g} were broken by '{label or 'the recipe'}' "
                    f"at eps {evaluation.eps:g}; certificate and attack contradict each other, please report this"
                )
        if abs(evaluation.eps - made.eps) < 1e-9:
            found[label or "recipe"] = 1 - float(broken.double().mean())
    return found


def _total(intervals: dict[str, Interval]) -> Interval:
    low = torch.stack([one.low for one in intervals.values()]).sum(0)
    return Interval(low, torch.stack([one.high for one in intervals.values()]).sum(0))


def _values(made: Certificate, against: dict[str, float]) -> dict[str, Any]:
    low, high = interval(made.certified_accuracy, len(made.certified))

    def bounds(intervals: dict[str, Interval]) -> dict[str, dict[str, float]]:
        return {
            name: {"low": float(one.low.double().mean()), "high": float(one.high.double().mean())}
            for name, one in intervals.items()
        }

    return {
        "eps": made.eps,
        "clean_accuracy": float(made.correct.double().mean()),
        "certified_accuracy": made.certified_accuracy,
        "certified_accuracy_low": low,
        "certified_accuracy_high": high,
        "robust_accuracy_under_attacks": against,
        "spikes_per_image": bounds(made.spikes),
        "synaptic_operations_per_image": bounds(made.operations),
        "energy_j_per_image": bounds(made.energy_j),
    }


def _row(made: Certificate, against: dict[str, float]) -> list[str]:
    low, high = interval(made.certified_accuracy, len(made.certified))
    spikes, operations = _total(made.spikes), _total(made.operations)
    ratio = float((operations.high.double() / operations.low.double().clamp(min=1)).mean())
    energy = max(float(one.high.mean()) for one in made.energy_j.values())
    return [
        f"{made.eps:.4g}",
        f"{100 * made.certified_accuracy:.1f} %",
        f"{100 * low:.1f} to {100 * high:.1f}",
        f"{100 * min(against.values()):.1f} %" if against else "-",
        f"{float(spikes.low.double().mean()):,.0f} to {float(spikes.high.double().mean()):,.0f}",
        f"{ratio:.2f}",
        f"{1e6 * energy:.1f} uJ",
    ]


def _tensors(made: Certificate) -> dict[str, Tensor]:
    tensors = {"certified": made.certified, "correct": made.correct, "margin": made.margin}
    for kind, intervals in (("spikes", made.spikes), ("operations", made.operations), ("energy_j", made.energy_j)):
        for name, one in intervals.items():
            tensors |= {f"{kind}/{name}/low": one.low, f"{kind}/{name}/high": one.high}
    return tensors
