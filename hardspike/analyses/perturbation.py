"""`perturbation`: how much of an adversarial perturbation a neuron lets through, and how it grows or fades from layer to layer."""

import math

from torch import Tensor

from hardspike.analyses.layer_activity import TOGETHER, Observe, batches, noise_of, observers, sent_images
from hardspike.analyses.looked_at_images import attacked_images, noise_images
from hardspike.analyses.mean_interval import mean_interval
from hardspike.analyses.perturbation_norm import (
    LIF,
    defined,
    distances,
    joined,
    layer_distances,
    lif_output,
    relative_distances,
    relu_output,
)
from hardspike.analyses.subject import Subject
from hardspike.deploy.report.analysis import Analysis
from hardspike.deploy.report.chart import BarChart, Bars, Chart, Line, LineChart
from hardspike.deploy.report.texts import NETWORKS

INPUT = "input"
STEPS, THRESHOLDS = 100, (1.0, 2.0)
ANEW = 1 << 31  # torch reads 32 bits of a seed
Means = dict[str, dict[str, float | None]]


def perturbation(subject: Subject) -> Analysis:
    """Single neurons see the images made on the ANN (the SNN without one); each network sees the images made on itself, and noise."""
    source = "ann" if "ann" in subject.targets else "snn"
    clean, noise = sent_images(subject, subject.test.images), noise_images(subject)
    networks = _networks(subject)
    attacked = {name: attacked_images(subject, name) for name in {source, *networks}}
    norms = _single_neurons(subject, clean, attacked[source].images)
    single = {name: mean_interval(values) for name, values in norms.items()}
    change = {name: mean_interval(values - norms["ReLU"], low=-math.inf) for name, values in norms.items()}
    notes = [] if source == "ann" else ["The recipe trains spikes from the start: attacks are made on the SNN."]
    if not subject.has_deployed:
        notes.append("The run has no deployed network: only float networks are compared.")
    layers: dict[str, dict[str, Means]] = {}
    for name, observe in networks.items():
        layers[name] = {}
        for kind, images in (("attack", attacked[name].images), ("noise", noise)):
            found = _through_layers(subject, observe, clean, images)
            layers[name][kind], silent = _means(found)
            if silent and kind == "attack":
                where = ", ".join(f"{layer} ({count})" for layer, count in silent.items())
                notes.append(
                    f"{NETWORKS[name]}: images that leave a layer silent have no relative distance there and are left out: {where}."
                )
    conditions: dict[str, str | int | float] = {
        "attack": f"{attacked[source].member} on each network itself",
        "n": len(subject.test),
        "seed": subject.options.seed,
        "eps": round(subject.eps, 6),
        "T": subject.snn.time_steps or 1,
        "single neurons": f"T {STEPS}, leak {LIF.leak:g}, images made on the {NETWORKS[source]}",
    }
    return Analysis(
        name="perturbation",
        title="What is left of a perturbation",
        question=(
            "Does a leaky neuron let less of an adversarial perturbation through than a ReLU (ECCV 2020, Fig. 4), and does the "
            "perturbation grow from layer to layer? Euclidean norms of clean minus adversarial, outputs averaged over T."
        ),
        found=_found(single, change, layers),
        conditions=conditions,
        charts=(_single_chart(single), *_layer_charts(layers)),
        notes=tuple(notes),
        values={"single_neurons": single, "less_relu": change, "layers": layers},
    )


def _networks(subject: Subject) -> dict[str, Observe]:
    """The deployed network on the backend asked for."""
    found = observers(subject)
    if subject.has_deployed and subject.options.backend != "emulator":
        found["deployed"] = found[subject.options.backend]
    return {name: found[name] for name in ("ann", "snn", "deployed") if name in found}


def _single_neurons(subject: Subject, clean: Tensor, adversarial: Tensor) -> dict[str, Tensor]:
    """Norm of each image's difference behind each kind of neuron, float64 [N]."""
    size = max(1, TOGETHER // (STEPS * clean[0].numel()))
    parts = []
    for start in range(0, len(clean), size):
        seed = noise_of(subject.options.seed, start)
        pair = clean[start : start + size], adversarial[start : start + size]
        found = {INPUT: distances(*pair), "ReLU": distances(*(relu_output(one) for one in pair))}
        for threshold in THRESHOLDS:
            drawn = [lif_output(one, threshold=threshold, steps=STEPS, seed=seed) for one in pair]
            # Numbers of its own for the adversarial image: what an encoder on a chip would draw.
            again = lif_output(pair[1], threshold=threshold, steps=STEPS, seed=seed + ANEW)
            direct = [lif_output(one, threshold=threshold, steps=STEPS, seed=None) for one in pair]
            found[f"LIF, Poisson input, threshold {threshold:g}"] = distances(*drawn)
            found[f"LIF, Poisson input drawn anew, threshold {threshold:g}"] = distances(drawn[0], again)
            found[f"LIF, direct input, threshold {threshold:g}"] = distances(*direct)
        parts.append(found)
    return joined(parts)


def _through_layers(subject: Subject, observe: Observe, clean: Tensor, changed: Tensor) -> dict[str, Tensor]:
    """Relative distance per layer, the input first; clean and changed image draw the same Poisson numbers."""
    parts = []
    subject.progress.begin("perturbation", len(clean))
    for rows in batches(len(clean), subject.snn):
        seed = noise_of(subject.options.seed, rows.start)
        before, after = (observe(images[rows], seed).layers for images in (clean, changed))
        parts.append({INPUT: relative_distances(clean[rows], changed[rows])} | layer_distances(before, after))
        subject.progress.advance(rows.stop - rows.start)
    return joined(parts)


def _means(found: dict[str, Tensor]) -> tuple[Means, dict[str, int]]:
    """Per layer the mean over images for which it is defined, and how many are left out."""
    means: Means = {}
    left_out = {}
    for name, values in found.items():
        kept = defined(values)
        means[name] = mean_interval(kept) if len(kept) else {"mean": None, "low": None, "high": None}
        if len(kept) < len(values):
            left_out[name] = len(values) - len(kept)
    return means, left_out


def _found(single: Means, change: Means, layers: dict[str, dict[str, Means]]) -> tuple[str, ...]:
    lif = [name for name in single if name.startswith("LIF") and "anew" not in name]
    parts = [f"{single[name]['mean']:.2f} ({name[5:]}; {_beside_relu(change[name])})" for name in lif]
    before, relu = single[INPUT]["mean"], single["ReLU"]["mean"]
    first = f"Of a perturbation of norm {before:.2f} a ReLU leaves {relu:.2f}, LIF neurons leave {', '.join(parts)}."
    return (first, *(text for name, kinds in layers.items() for text in _growth(name, kinds)))


def _beside_relu(change: dict[str, float | None]) -> str:
    low, high = change["low"], change["high"]
    if low is None or high is None or low <= 0 <= high:
        return "no difference beyond the interval"
    return "less" if high < 0 else "more"


def _growth(name: str, kinds: dict[str, Means]) -> tuple[str, ...]:
    means = {layer: mean["mean"] for layer, mean in kinds["attack"].items()}
    hidden = {layer: value for layer, value in means.items() if layer != INPUT and value is not None}
    start = means[INPUT]
    if not hidden or start is None:
        return (f"{NETWORKS[name]}: no layer has a defined relative distance.",)
    last = list(hidden)[-1]
    highest = max(hidden, key=lambda layer: hidden[layer])
    end, noise = hidden[last], kinds["noise"][last]["mean"]
    title = NETWORKS[name][0].upper() + NETWORKS[name][1:]
    verb = _direction(kinds["attack"][INPUT], kinds["attack"][last])
    control = "" if noise is None else f" (noise of the same size: {noise:.2f})"
    return (
        f"{title}: the relative perturbation {verb} from {start:.2f} at the input to {end:.2f} in {last}{control}; it is largest in "
        f"{highest} ({hidden[highest]:.2f}).",
    )


def _direction(start: dict[str, float | None], end: dict[str, float | None]) -> str:
    """By the ends of the two intervals."""
    start_low, start_high, end_low, end_high = start["low"], start["high"], end["low"], end["high"]
    if start_low is None or start_high is None or end_low is None or end_high is None:
        return "goes (one image only)"
    if end_low > start_high:
        return "grows"
    return "shrinks" if end_high < start_low else "does not change beyond the intervals:"


def _single_chart(single: Means) -> BarChart:
    values, low, high = (tuple(mean[key] for mean in single.values()) for key in ("mean", "low", "high"))
    return BarChart(
        name="perturbation-neurons",
        title="Norm of a perturbation behind one neuron per pixel",
        label="Euclidean norm of clean minus adversarial",
        categories=tuple(single),
        bars=(Bars(name="norm", tone="attack", values=values, low=low, high=high),),
        caption=(
            "Mean over images, with the 95 % interval of the mean. Clean and adversarial image draw the same Poisson numbers, except where "
            "they are drawn anew: there coding noise alone parts them. The paper does not state its threshold, so two are shown."
        ),
    )


def _layer_charts(layers: dict[str, dict[str, Means]]) -> tuple[Chart, ...]:
    names = list(next(iter(layers.values()))["attack"])
    x = tuple(float(index) for index in range(len(names)))
    lines = []
    for network, kinds in layers.items():
        for kind, means in kinds.items():
            y, low, high = (tuple(means[name][key] for name in names) for key in ("mean", "low", "high"))
            label = f"{NETWORKS[network]}, {'attacked' if kind == 'attack' else 'noise'}"
            lines.append(Line(name=label, tone=network, x=x, y=y, low=low, high=high, dashed=kind == "noise"))
    return (
        LineChart(
            name="perturbation-layers",
            title="Relative perturbation, layer by layer",
            x_label="layer",
            y_label="norm of the difference / norm of the clean",
            x_names=tuple(zip(x, names, strict=True)),
            lines=tuple(lines),
            caption=(
                "Of activations (ANN) or firing rates, mean over images with the 95 % interval of the mean; each "
                "network on images made on itself. Dashed: noise of the same size. A line that rises is a network that amplifies "
                "the perturbation."
            ),
        ),
    )
