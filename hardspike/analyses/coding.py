"""`coding`: how many spikes an image costs, for every kind of image, on the float SNN and on the deployed network."""

from typing import Any

from torch import Tensor

from hardspike.analyses.layer_activity import batches, layer_sizes, noise_of, observers, sent_images
from hardspike.analyses.looked_at_images import (
    ATTACK,
    CLEAN,
    ENERGY,
    NOISE,
    LookedAt,
    attacked_images,
    energy_images,
    noise_images,
)
from hardspike.analyses.mean_interval import mean_interval
from hardspike.analyses.spike_counts import SpikeCounts, class_means, histogram_counts, histogram_edges
from hardspike.analyses.subject import Subject
from hardspike.deploy.report.analysis import Analysis
from hardspike.deploy.report.chart import BarChart, Bars, Chart, Histogram, Line, LineChart
from hardspike.deploy.report.numbers import distribution
from hardspike.deploy.report.texts import NETWORKS
from hardspike.results import replayed_sets

BINS = 24
MOST_CLASSES = 30
KINDS = {CLEAN: "clean", NOISE: "noise", ATTACK: "attacked", ENERGY: "attacked for energy"}
Counted = dict[str, dict[str, SpikeCounts]]  # network, kind of image


def coding(subject: Subject) -> Analysis:
    """A network without hidden neurons has no chart."""
    sizes = layer_sizes(subject.snn.architecture)
    notes: list[str] = []
    members: dict[str, str | int | float] = {}
    question = (
        "How many spikes does an image cost? Spikes of all hidden neurons over all T steps, and their share of those that "
        "could be, total / (N T) (coding efficiency, arXiv 2311.09266, section 5.3)."
    )
    conditions: dict[str, str | int | float] = {
        "n": len(subject.test),
        "seed": subject.options.seed,
        "eps": round(subject.eps, 6),
        "T": subject.snn.time_steps or 1,
    }
    if not sizes:
        return Analysis(
            name="coding",
            title="Spikes per image",
            question=question,
            found=("The network has no hidden neurons: no spike is spent.",),
            conditions=conditions,
            charts=(),
            notes=("no hidden neuron layer",),
        )
    energy = energy_images(subject)
    if energy is None:
        notes.append("No energy-attacked images: hardspike energy has not been run on this run.")
    counted = {name: _counted(subject, name, sizes, energy, members) for name in _networks(subject)}
    ann = _ann_active(subject, sizes) if "ann" in subject.targets else None
    if ann is None:
        notes.append("The recipe trains spikes from the start: there is no ANN to compare active units with.")
    if not subject.has_deployed:
        notes.append("The run has no deployed network: only the float SNN's spikes are counted.")
    silent = [NETWORKS[name] for name, sets in counted.items() if not sets[CLEAN].totals.any()]
    notes += [f"The {name} fires no hidden spike on any clean image." for name in silent]
    missing = [label for label, mean in enumerate(_class_means(subject, counted["snn"][CLEAN])) if mean is None]
    if missing:
        notes.append(f"No test image of class {', '.join(map(str, missing))} among those looked at.")
    shown = subject.splits.num_classes <= MOST_CLASSES
    if not shown:
        notes.append(f"{subject.splits.num_classes} classes are too many for a chart; their means are in the values.")
    return Analysis(
        name="coding",
        title="Spikes per image",
        question=question,
        found=_found(counted, ann),
        conditions=conditions | members,
        charts=_charts(subject, counted, ann, with_classes=shown),
        notes=tuple(notes),
        values=_values(subject, counted, ann),
    )


def _networks(subject: Subject) -> tuple[str, ...]:
    return ("snn", "deployed") if subject.has_deployed else ("snn",)


def _counted(
    subject: Subject,
    network: str,
    sizes: dict[str, int],
    energy: LookedAt | None,
    members: dict[str, str | int | float],
) -> dict[str, SpikeCounts]:
    """Every kind of image on one network; what the run's own replay counted is not run again."""
    replayed = _replayed(subject, sizes) if network == "deployed" else {}
    found = dict(replayed)
    if CLEAN not in found:
        found[CLEAN] = _run(subject, network, sent_images(subject, subject.test.images), sizes)
    if NOISE not in found:
        found[NOISE] = _run(subject, network, noise_images(subject), sizes)
    attacked = attacked_images(subject, network)
    members["attack"] = f"{attacked.member} on each network itself"
    found[ATTACK] = _run(subject, network, attacked.images, sizes)
    if energy is not None:
        members["energy"] = f"{energy.member}, {len(energy.images)} images"
        found[ENERGY] = _run(subject, network, energy.images, sizes)
    return {kind: found[kind] for kind in KINDS if kind in found}


def _replayed(subject: Subject, sizes: dict[str, int]) -> dict[str, SpikeCounts]:
    """Clean images, and noise of this budget, of the run's own replay on the backend asked for, where it has as many images."""
    recipe, count = subject.folder.recipe, len(subject.test)
    if not subject.folder.finished("replay") or recipe.replay.backend != subject.options.backend:
        return {}
    found = {}
    for one in replayed_sets(subject.folder, recipe.replay.backend):
        is_noise = one.origin.kind == NOISE and one.origin.eps == subject.eps
        if len(one.trace) < count or not (one.origin.kind == CLEAN or is_noise):
            continue
        found[one.origin.kind] = SpikeCounts.of_trace(one.trace, sizes, count)
    return found


def _run(subject: Subject, network: str, images: Tensor, sizes: dict[str, int]) -> SpikeCounts:
    name = subject.options.backend if network == "deployed" and subject.options.backend != "emulator" else network
    observe = observers(subject)[name]
    subject.progress.begin(f"coding {network}", len(images))
    parts = []
    for rows in batches(len(images), subject.snn):
        layers = observe(images[rows], noise_of(subject.options.seed, rows.start)).layers
        parts.append(SpikeCounts.of_spikes(layers, sizes))
        subject.progress.advance(rows.stop - rows.start)
    return SpikeCounts.joined(parts)


def _ann_active(subject: Subject, sizes: dict[str, int]) -> dict[str, Tensor]:
    """Share of the ANN's units above zero on the clean images, float64 [N], per hidden layer and of all ("")."""
    observe, images = observers(subject)["ann"], sent_images(subject, subject.test.images)
    parts = []
    for rows in batches(len(images), subject.snn):
        parts.append(SpikeCounts.of_spikes(observe(images[rows], 0).layers, sizes))
    whole = SpikeCounts.joined(parts)
    return {"": whole.shares} | {name: whole.layer_shares(name) for name in sizes}


def _class_means(subject: Subject, counts: SpikeCounts) -> list[float | None]:
    return class_means(counts.totals, subject.test.labels[: len(counts)], subject.splits.num_classes)


def _found(counted: Counted, ann: dict[str, Tensor] | None) -> tuple[str, ...]:
    sentences = []
    for network, sets in counted.items():
        clean = sets[CLEAN]
        spread = distribution(clean.totals)
        sentences.append(
            f"The {NETWORKS[network]} spends {spread['mean']:,.0f} spikes on a clean image (median {spread['p50']:,.0f}, "
            f"95th percentile {spread['p95']:,.0f}, largest {spread['max']:,.0f}): {100 * float(clean.shares.mean()):.2f} % of the "
            f"{clean.neurons * clean.steps:,} possible, "
            f"by {100 * float(clean.active_shares.mean()):.1f} % of the {clean.neurons:,} hidden neurons."
        )
        for kind in (ATTACK, ENERGY):
            if kind in sets:
                sentences.append(_against_clean(NETWORKS[network], kind, sets[kind], clean))
    if ann is not None:
        sentences.append(f"{100 * float(ann[''].mean()):.1f} % of the ANN's hidden units are active on a clean image.")
    return tuple(sentences)


def _against_clean(network: str, kind: str, counts: SpikeCounts, clean: SpikeCounts) -> str:
    """Image by image, with the interval of the mean difference."""
    change = (counts.totals - clean.totals[: len(counts)]).double()
    between = mean_interval(change, low=-float("inf"))
    before = float(clean.totals[: len(counts)].double().mean())
    what = f"{KINDS[kind].capitalize()} images cost the {network}"
    relative = f" ({100 * between['mean'] / before:+.1f} %)" if before and between["mean"] is not None else ""
    if between["low"] is None or between["high"] is None or between["low"] <= 0 <= between["high"]:
        return f"{what} {between['mean']:+,.0f} spikes{relative}: not beyond the interval of the mean difference."
    return (
        f"{what} {between['mean']:+,.0f} spikes{relative}, interval {between['low']:+,.0f} to {between['high']:+,.0f}."
    )


def _values(subject: Subject, counted: Counted, ann: dict[str, Tensor] | None) -> dict[str, Any]:
    networks: dict[str, Any] = {}
    for network, sets in counted.items():
        networks[network] = {
            kind: {
                "n": len(counts),
                "spikes": distribution(counts.totals),
                "share": mean_interval(counts.shares, high=1.0),
                "active_neurons": mean_interval(counts.active_shares, high=1.0),
                "layers": {name: mean_interval(counts.layer_shares(name), high=1.0) for name in counts.sizes},
                "steps": [float(value) for value in counts.step_shares().mean(1)],
                "classes": _class_means(subject, counts),
            }
            for kind, counts in sets.items()
        }
    clean = counted["snn"][CLEAN]
    units = None if ann is None else {name or "all": mean_interval(shares, high=1.0) for name, shares in ann.items()}
    return {"neurons": clean.neurons, "layers": dict(clean.sizes), "networks": networks, "ann_active_units": units}


def _charts(
    subject: Subject, counted: Counted, ann: dict[str, Tensor] | None, *, with_classes: bool
) -> tuple[Chart, ...]:
    charts: list[Chart] = [_histogram(network, sets) for network, sets in counted.items()]
    charts += [_by_layer(counted, ann), _by_step(counted)]
    if with_classes:
        charts.append(_by_class(subject, counted))
    return tuple(charts)


def _histogram(network: str, sets: dict[str, SpikeCounts]) -> Histogram:
    edges = histogram_edges([counts.totals for counts in sets.values()], BINS)
    return Histogram(
        name=f"coding-{network}",
        title=f"Spikes per image: {NETWORKS[network]}",
        label="spikes of all hidden neurons and steps",
        edges=edges,
        bars=tuple(
            Bars(name=KINDS[kind], tone=kind, values=histogram_counts(counts.totals, edges))
            for kind, counts in sets.items()
        ),
        caption="How many images cost how many spikes. An outline further to the right is a kind of image that costs more.",
    )


def _by_layer(counted: Counted, ann: dict[str, Tensor] | None) -> LineChart:
    layers = list(counted["snn"][CLEAN].sizes)
    x = tuple(float(index) for index in range(len(layers)))
    lines = []
    for network, sets in counted.items():
        for kind in (CLEAN, ATTACK):
            means = [mean_interval(sets[kind].layer_shares(name), high=1.0) for name in layers]
            lines.append(_line(f"{NETWORKS[network]}, {KINDS[kind]}", network, x, means, dashed=kind != CLEAN))
    if ann is not None:
        means = [mean_interval(ann[name], high=1.0) for name in layers]
        lines.append(_line("ANN, share of active units", "ann", x, means))
    return LineChart(
        name="coding-layers",
        title="Share of possible spikes, layer by layer",
        x_label="layer",
        y_label="spikes / (neurons x steps)",
        x_names=tuple(zip(x, layers, strict=True)),
        percent=True,
        lines=tuple(lines),
        caption="Mean over images, with the 95 % interval of the mean. For the ANN: the share of units above zero.",
    )


def _by_step(counted: Counted) -> LineChart:
    lines = []
    for network, sets in counted.items():
        for kind in (CLEAN, ATTACK):
            shares_TN = sets[kind].step_shares()
            x = tuple(float(t) for t in range(1, len(shares_TN) + 1))
            means = [mean_interval(shares, high=1.0) for shares in shares_TN]
            lines.append(_line(f"{NETWORKS[network]}, {KINDS[kind]}", network, x, means, dashed=kind != CLEAN))
    return LineChart(
        name="coding-steps",
        title="Neurons that fire, step by step",
        x_label="step",
        y_label="share of hidden neurons",
        percent=True,
        markers=len(lines[0].x) <= 20,
        lines=tuple(lines),
        caption="Share of all hidden neurons that fire at a step, mean over images, with the 95 % interval of the mean.",
    )


def _by_class(subject: Subject, counted: Counted) -> BarChart:
    labels, classes = subject.test.labels, subject.splits.num_classes
    bars = []
    for network, sets in counted.items():
        totals = sets[CLEAN].totals
        means: list[dict[str, float | None]] = []
        for label in range(classes):
            own = totals[labels == label]
            means.append(mean_interval(own) if len(own) else {"mean": None, "low": None, "high": None})
        values, low, high = (tuple(mean[key] for mean in means) for key in ("mean", "low", "high"))
        bars.append(Bars(name=NETWORKS[network], tone=network, values=values, low=low, high=high))
    return BarChart(
        name="coding-classes",
        title="Spikes per clean image, by class",
        label="spikes per image",
        categories=tuple(str(label) for label in range(classes)),
        bars=tuple(bars),
        caption="Mean over the images of each class, with the 95 % interval of the mean.",
    )


def _line(
    name: str, tone: str, x: tuple[float, ...], means: list[dict[str, float | None]], *, dashed: bool = False
) -> Line:
    y, low, high = (tuple(mean[key] for mean in means) for key in ("mean", "low", "high"))
    return Line(name=name, tone=tone, x=x, y=y, low=low, high=high, dashed=dashed)
