"""What images cost the deployed network: the distribution over images, clean, noisy, attacked, and attacked to cost more.

Distributions because budgets are met by the worst image, not by the mean; the energy attack with the class kept because accuracy
does not show it (Krithivasan et al. 2022; sponge examples, arXiv 2006.03463). Counts are exact events, prices come second.
"""

from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor

from hardspike.analyses.looked_at_images import attacked_images
from hardspike.analyses.subject import Subject
from hardspike.deploy.busiest_core import busiest_core
from hardspike.deploy.energy_attack import energy_attack
from hardspike.deploy.energy_report import ImageWork, Spread, control_images, image_work
from hardspike.deploy.report.analysis import Analysis
from hardspike.deploy.report.chart import BarChart, Bars, Chart, Histogram
from hardspike.deploy.si_prefix import si, si_range
from hardspike.hw_profiles.profile import load_profile
from hardspike.snn.errors import SettingsError

IMAGES, STEPS, BINS = 64, 20, 24
TONES = {"clean": "clean", "noise": "noise", "accuracy attack": "attack", "energy attack": "energy"}


def energy_costs(subject: Subject) -> Analysis:
    """Needs a deployed network. Raises SettingsError for a profile of prices without any."""
    if not subject.has_deployed:
        raise SettingsError(f"{subject.folder.path}: energy is of the deployed network; its recipe deploys none")
    data = subject.test.first(min(IMAGES, subject.options.images, len(subject.test)))
    graph, eps, seed = subject.graph, subject.eps, subject.options.seed
    profile = load_profile(subject.folder.recipe.report.cost_profile)
    busiest, not_placed = busiest_core(graph, profile)
    attacked = attacked_images(subject, "deployed")
    images = {
        "clean": data.images,
        "noise": control_images(data.images, eps=eps, seed=seed, draws=1)["noise 1"],
        "accuracy attack": attacked.images[: len(data)],
        "energy attack": energy_attack(graph, data.images, eps=eps, keep_class=True, steps=STEPS, seed=seed),
    }
    work = {kind: image_work(graph, one, profile, busiest, 256, None) for kind, one in images.items()}
    right = {kind: float((one.predicted == data.labels).double().mean()) for kind, one in work.items()}
    notes = [] if not_placed is None else [f"No time of the busiest core: {not_placed}."]
    if not bool(work["clean"].spikes.any()):
        notes.append("No neuron fires on clean images; operations are those of the input alone.")
    charts: list[Chart] = [
        _histogram("operations", "Synaptic operations per image", {k: w.operations for k, w in work.items()}),
        _histogram("spikes", "Spikes per image", {k: w.spikes for k, w in work.items()}),
        _classes(work["clean"].operations, work["energy attack"].operations, data.labels, data.num_classes),
    ]
    if profile.costs:
        charts.append(_energies(work, profile.name))
    values = {
        kind: {
            "accuracy": right[kind],
            "spikes": asdict(Spread.of(one.spikes)),
            "synaptic_operations": asdict(Spread.of(one.operations)),
            "energy_j": {key: asdict(Spread.of(joule)) for key, joule in one.energy_j.items()},
            "busiest_core_s": {key: asdict(Spread.of(seconds)) for key, seconds in one.time_s.items()},
        }
        for kind, one in work.items()
    }
    return Analysis(
        name="energy",
        title="What images cost, and what an attacker can make them cost",
        question="How far apart are the cheapest and the dearest image of the deployed network, and how much can an attacker add "
        "within eps without changing the class (energy attack; Krithivasan et al. 2022)? Noise of the same size is the control.",
        found=tuple(_found(work, right)),
        conditions={
            "n": len(data),
            "seed": seed,
            "eps": f"{eps:g}",
            "accuracy attack": attacked.member,
            "energy attack": f"{STEPS} steps from three starts, class kept",
            "prices": profile.name,
            "T": graph.time_steps,
        },
        charts=tuple(charts),
        notes=tuple(notes),
        values=values,
    )


def _histogram(name: str, label: str, counts: dict[str, Tensor]) -> Histogram:
    everything = torch.cat(list(counts.values())).numpy()
    edges = np.histogram_bin_edges(everything, BINS)
    bars = tuple(
        Bars(name=kind, tone=TONES[kind], values=tuple(float(n) for n in np.histogram(values.numpy(), edges)[0]))
        for kind, values in counts.items()
    )
    return Histogram(
        name=f"energy-{name}",
        title=f"{label}, over images",
        label=label.lower(),
        edges=tuple(float(edge) for edge in edges),
        bars=bars,
        caption="How many images fall into each interval. A set that lies further right makes the chip work more.",
    )


def _classes(clean: Tensor, attacked: Tensor, labels: Tensor, num_classes: int) -> BarChart:
    present = [label for label in range(num_classes) if bool((labels == label).any())]

    def means(values: Tensor) -> tuple[float, ...]:
        return tuple(float(values[labels == label].mean()) for label in present)

    return BarChart(
        name="energy-classes",
        title="Synaptic operations by class",
        label="synaptic operations per image, mean over the images of the class",
        categories=tuple(f"class {label}" for label in present),
        bars=(
            Bars(name="clean", tone="clean", values=means(clean)),
            Bars(name="energy attack", tone="energy", values=means(attacked)),
        ),
        caption="Some classes cost more than others: a chip's budget depends on what it looks at.",
    )


def _energies(work: dict[str, ImageWork], profile: str) -> BarChart:
    categories = ("median", "95 % of images", "dearest image")
    bars = []
    for kind, one in work.items():
        spreads = [Spread.of(joule) for joule in one.energy_j.values()]
        ends = [[getattr(spread, part) for spread in spreads] for part in ("p50", "p95", "max")]
        bars.append(
            Bars(
                name=kind,
                tone=TONES[kind],
                low=tuple(1e6 * min(end) for end in ends),
                high=tuple(1e6 * max(end) for end in ends),
            )
        )
    return BarChart(
        name="energy-priced",
        title=f"Energy of the priced parts, {profile}",
        label="µJ per image, lower to higher cost set",
        categories=categories,
        bars=tuple(bars),
        caption="Bars reach from the lower to the higher cost set. No total: messages, barriers and static power have no price here.",
    )


def _found(work: dict[str, ImageWork], right: dict[str, float]) -> list[str]:
    clean = work["clean"]
    base = clean.operations.clamp(min=1)
    sentences = []
    for kind, text in (
        ("energy attack", "An attacker who keeps the class"),
        ("noise", "Noise of the same size"),
        ("accuracy attack", "The attack on accuracy"),
    ):
        spread = Spread.of(work[kind].operations / base)
        sentences.append(
            f"{text} changes synaptic operations by {_signed(spread.mean)} on average and by {_signed(spread.max)} on the "
            f"worst image; accuracy is {100 * right[kind]:.1f} %, {100 * right['clean']:.1f} % clean."
        )
    spread = Spread.of(clean.operations)
    sentences.append(
        f"A clean image costs {spread.p50:,.0f} synaptic operations in the median, {spread.p95:,.0f} at the 95th percentile, "
        f"{spread.max:,.0f} at most."
    )
    if clean.energy_j:
        highest = [
            si_range([float(j.max()) for j in one.energy_j.values()], "J") for one in (clean, work["energy attack"])
        ]
        sentences.append(
            f"Priced parts of the dearest image: {highest[0]} clean, {highest[1]} under the energy attack."
        )
    if clean.time_s:
        slowest = [max(float(t.max()) for t in one.time_s.values()) for one in (clean, work["energy attack"])]
        sentences.append(
            f"The busiest core's longest image takes {si(slowest[0], 's')} clean and {si(slowest[1], 's')} attacked."
        )
    return sentences


def _signed(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f} %".replace("-", "\N{MINUS SIGN}")
