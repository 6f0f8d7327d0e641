"""`divergence`: where and when a run's networks part, layer by layer: why the deployed one is worse, and where it began."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hardspike.analyses.layer_activity import batches, noise_of, observers, sent_images
from hardspike.analyses.mean_interval import mean_interval
from hardspike.analyses.spike_divergence import LayerPair, diverged_by, largest_drop
from hardspike.analyses.subject import Subject
from hardspike.attack.evaluation import interval
from hardspike.deploy.report.analysis import Analysis
from hardspike.deploy.report.chart import BarChart, Bars, Chart, Line, LineChart
from hardspike.deploy.report.numbers import proportion
from hardspike.deploy.report.texts import NETWORKS

PAIRS = (("ann", "snn"), ("snn", "quantised"), ("quantised", "deployed"), ("snn", "deployed"))
TONES = ("ann", "quantised", "deployed", "snn", "attack")
SHOWN_LAYERS = 4
LAYER_TONES = ("first", "second", "third", "fourth")


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """All of two networks on the same images. layers: in order. agrees: bool [N], whether both give the same class."""

    first: str
    second: str
    layers: Mapping[str, LayerPair]
    agrees: Tensor

    @property
    def name(self) -> str:
        return f"{NETWORKS.get(self.first, self.first)} and {NETWORKS.get(self.second, self.second)}"

    @property
    def correlations(self) -> list[float | None]:
        return [pair.correlation.value for pair in self.layers.values()]

    @property
    def has_spikes(self) -> bool:
        return self.first != "ann"

    def first_steps(self, layer: str) -> Tensor:
        return torch.cat(self.layers[layer].first_steps)


def divergence(subject: Subject) -> Analysis:
    """Runs every network on the test images. The layers are those of the float SNN."""
    compared, right = compare_networks(subject)
    steps, layers = subject.snn.time_steps or 1, list(compared[0].layers) if compared else []
    conditions: dict[str, str | int | float] = {"n": len(subject.test), "seed": subject.options.seed, "T": steps}
    if subject.has_deployed:
        conditions["backend"] = subject.options.backend
    return Analysis(
        name="divergence",
        title="Where and when the networks part",
        question=(
            "Why is a converted or deployed network worse, and where does it begin? Activations and firing rates of the same "
            "neurons on the same images, network by network and layer by layer."
        ),
        found=_found(compared, right),
        conditions=conditions,
        charts=_charts(compared, right, layers, steps),
        notes=_notes(subject, compared),
        values={
            "layers": layers,
            "accuracy": {name: proportion(rows) for name, rows in right.items()},
            "pairs": [_values(one, steps) for one in compared],
        },
    )


def compare_networks(subject: Subject) -> tuple[list[Compared], dict[str, Tensor]]:
    """Every pair of networks that the run has, and which images each network gets right, bool [N]."""
    networks = observers(subject)
    other = [name for name in networks if name not in NETWORKS]
    pairs = [pair for pair in (*PAIRS, *(("deployed", name) for name in other)) if set(pair) <= set(networks)]
    layers = [node.name for node in subject.snn.architecture.spiking]
    found: dict[tuple[str, str], dict[str, LayerPair]] = {
        pair: {layer: LayerPair() for layer in layers} for pair in pairs
    }
    classes: dict[str, list[Tensor]] = {name: [] for name in networks}
    data = subject.test
    subject.progress.begin("divergence", len(data))
    for rows in batches(len(data), subject.snn):
        images = sent_images(subject, data.images[rows])
        seen = {name: observe(images, noise_of(subject.options.seed, rows.start)) for name, observe in networks.items()}
        for first, second in pairs:
            for layer in layers:
                both = seen[first].layers[layer], seen[second].layers[layer]
                found[first, second][layer].add(*both, spikes=first != "ann")
        for name, one in seen.items():
            classes[name].append(one.predicted)
        subject.progress.advance(len(images))
    predicted = {name: torch.cat(parts) for name, parts in classes.items()}
    compared = [
        Compared(first=first, second=second, layers=pair, agrees=predicted[first] == predicted[second])
        for (first, second), pair in found.items()
    ]
    return compared, {name: rows == data.labels for name, rows in predicted.items()}


def _found(compared: list[Compared], right: dict[str, Tensor]) -> tuple[str, ...]:
    if not compared:
        return ("This run has one network only: there is nothing to compare it with.",)
    steps = [one for one in compared if (one.first, one.second) != ("snn", "deployed")]
    changed = {one.name: int((~one.agrees).sum()) for one in steps}
    most, n = max(changed.values()), len(steps[0].agrees)
    which = " and ".join(f"between {name}" for name, count in changed.items() if count == most)
    shares = ", ".join(
        f"{NETWORKS.get(name, name)} {100 * float(rows.double().mean()):.1f} %" for name, rows in right.items()
    )
    where = f"Most classes change {which} ({most} of {n})" if most else "No two networks in a row disagree on a class"
    return (f"{where}. Accuracy: {shares}.", *(_sentence(one) for one in steps), *_first_parting(compared))


def _sentence(one: Compared) -> str:
    n, same = len(one.agrees), int(one.agrees.sum())
    low, high = interval(same / n, n)
    text = f"{one.name[0].upper()}{one.name[1:]} give the same class to {same} of {n} images ({100 * low:.1f} to {100 * high:.1f} %)"
    if one.has_spikes and not any(one.first_steps(layer).any() for layer in one.layers):
        return f"{text}, and every spike is the same."
    drop = largest_drop(one.correlations)
    if drop is None:
        return f"{text}; no layer lowers the correlation of their rates."
    index, before, after = drop
    layer = list(one.layers)[index]
    fall = (
        f"from {before:.4f} to {after:.4f}" if before - after >= 1e-4 else f"by {before - after:.1g}, from {before:.4f}"
    )
    return f"{text}; the correlation drops most at layer {layer}, {fall}."


def _first_parting(compared: list[Compared]) -> tuple[str, ...]:
    """When the deployed network leaves the float one."""
    for one in compared:
        if (one.first, one.second) == ("snn", "deployed"):
            firsts = {layer: one.first_steps(layer) for layer in one.layers}
            parted = {layer: steps[steps > 0] for layer, steps in firsts.items()}
            if not any(len(steps) for steps in parted.values()):
                return ("Every spike of the deployed network is the float SNN's.",)
            earliest = min((layer for layer in parted if len(parted[layer])), key=lambda name: int(parted[name].min()))
            step, n = int(parted[earliest].min()), len(one.agrees)
            any_layer = torch.stack(list(firsts.values())).gt(0).any(0)
            return (
                f"The first spike of the deployed network that is not the float SNN's is fired in step {step}, in layer {earliest}; "
                f"{int(any_layer.sum())} of {n} images have a spike that differs somewhere.",
            )
    return ()


def _notes(subject: Subject, compared: list[Compared]) -> tuple[str, ...]:
    notes = []
    if "ann" not in subject.targets:
        notes.append("The recipe trains spikes from the start: there is no ANN to compare with.")
    if not subject.has_deployed:
        notes.append("The run has no deployed network: only float networks are compared.")
    elif subject.folder.compiled != subject.folder.snn:
        notes.append("The integers were trained after quantisation: the float SNN is the network before that training.")
    for one in compared:
        constant = [layer for layer, pair in one.layers.items() if pair.correlation.value is None]
        if constant:
            named = ", ".join(constant)
            notes.append(
                f"{one.name}: no correlation in {named}, where one side is the same for all neurons and images."
            )
    return tuple(notes)


def _values(one: Compared, steps: int) -> dict[str, object]:
    layers = []
    for name, pair in one.layers.items():
        entry: dict[str, object] = {"layer": name, "correlation": pair.correlation.value}
        if one.has_spikes:
            firsts = one.first_steps(name)
            parted = firsts[firsts > 0]
            entry |= {
                "equal_spikes": mean_interval(torch.cat(pair.equal), high=1.0),
                "first_step": int(parted.min()) if len(parted) else None,
                "diverged_by_step": diverged_by(firsts, steps),
            }
        layers.append(entry)
    drop = largest_drop(one.correlations)
    return {
        "first": one.first,
        "second": one.second,
        "agreement": proportion(one.agrees),
        "largest_drop": None if drop is None else list(one.layers)[drop[0]],
        "layers": layers,
    }


def _charts(compared: list[Compared], right: dict[str, Tensor], layers: list[str], steps: int) -> tuple[Chart, ...]:
    if not compared:
        return ()
    x = tuple(float(index) for index in range(len(layers)))
    ticks = tuple(zip(x, layers, strict=True))
    charts: list[Chart] = [
        LineChart(
            name="divergence-correlation",
            title="Correlation of rates, layer by layer",
            x_label="layer",
            y_label="correlation",
            x_names=ticks,
            y_bottom=None,
            y_top=1.0,
            lines=tuple(
                Line(
                    name=one.name,
                    tone=tone,
                    x=x,
                    y=tuple(one.correlations),
                    dashed=one.first == "snn" and one.second == "deployed",
                )
                for one, tone in zip(compared, TONES, strict=False)
            ),
            caption=(
                "Pearson's correlation over all neurons of a layer and all images: of activations and firing rates (ANN), or of firing "
                "rates. The layer at which a line falls is where those two networks begin to differ."
            ),
        ),
        _agreement(compared, right),
    ]
    spiking = [one for one in compared if one.has_spikes]
    if spiking:
        charts.append(_equal_spikes(spiking, x, ticks))
        whole = next((one for one in spiking if (one.first, one.second) == ("snn", "deployed")), spiking[0])
        charts.append(_diverged(whole, layers, steps))
    return tuple(charts)


def _agreement(compared: list[Compared], right: dict[str, Tensor]) -> BarChart:
    same = [proportion(one.agrees) for one in compared]
    good = [proportion(rows) for rows in right.values()]
    categories = [one.name for one in compared] + [f"{NETWORKS.get(name, name)} and label" for name in right]
    every = same + good
    return BarChart(
        name="divergence-classes",
        title="Images that two networks put into the same class",
        label="share of images",
        categories=tuple(categories),
        percent=True,
        bars=(
            Bars(
                name="same class",
                tone="deployed",
                values=tuple(one["value"] for one in every),
                low=tuple(one["low"] for one in every),
                high=tuple(one["high"] for one in every),
            ),
        ),
        caption="With 95 % Wilson intervals. The last rows compare with the label: each network's accuracy on the same images.",
    )


def _equal_spikes(spiking: list[Compared], x: tuple[float, ...], ticks: tuple[tuple[float, str], ...]) -> LineChart:
    lines = []
    for one, tone in zip(spiking, TONES[1:], strict=False):
        means = [mean_interval(torch.cat(pair.equal), high=1.0) for pair in one.layers.values()]
        y, low, high = (tuple(mean[key] for mean in means) for key in ("mean", "low", "high"))
        lines.append(Line(name=one.name, tone=tone, x=x, y=y, low=low, high=high))
    return LineChart(
        name="divergence-equal-spikes",
        title="Spikes and silences that are the same",
        x_label="layer",
        y_label="share of neurons and steps",
        x_names=ticks,
        percent=True,
        y_bottom=None,
        y_top=1.0,
        lines=tuple(lines),
        caption=(
            "Share of a layer's neurons and steps at which both fire or both are silent, mean over images, with the 95 % interval of "
            "the mean."
        ),
    )


def _diverged(one: Compared, layers: list[str], steps: int) -> LineChart:
    shown = spread(layers, SHOWN_LAYERS)
    lines, x = [], tuple(float(t) for t in range(1, steps + 1))
    for layer, tone in zip(shown, LAYER_TONES, strict=False):
        firsts = one.first_steps(layer)
        n = len(firsts)
        shares = [count / n for count in diverged_by(firsts, steps)]
        ends = [interval(share, n) for share in shares]
        low, high = tuple(end[0] for end in ends), tuple(end[1] for end in ends)
        lines.append(Line(name=layer, tone=tone, x=x, y=tuple(shares), low=low, high=high))
    some = "" if len(shown) == len(layers) else f" {len(shown)} of {len(layers)} layers are shown."
    return LineChart(
        name="divergence-first-step",
        title=f"Images that have diverged by each step: {one.name}",
        x_label="step",
        y_label="share of images",
        percent=True,
        y_top=1.0,
        markers=steps <= 20,
        lines=tuple(lines),
        caption=(
            "An image has diverged in a layer once any neuron of that layer fires in one network and not in the other; "
            f"95 % Wilson intervals.{some}"
        ),
    )


def spread(names: list[str], count: int) -> list[str]:
    """At most so many, evenly from the first to the last."""
    if len(names) <= count:
        return names
    return [names[round(index * (len(names) - 1) / (count - 1))] for index in range(count)]
