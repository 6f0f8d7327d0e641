"""How far an attack moves the maps of each network, beside what it does to the accuracy."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hardspike.analyses.activation_maps import distances, has_contrast
from hardspike.analyses.explanations import (
    ANN_GRADCAM,
    DEPLOYED_SAM,
    SNN_SAM,
    Explanation,
    Method,
    conditions,
    explain,
    map_layers,
    methods_of,
    step_notes,
    surrogate_name,
)
from hardspike.analyses.heatmaps import empty_notes
from hardspike.analyses.layer_means import Measured, direction, layer_bars
from hardspike.analyses.map_pictures import image_picture, map_picture
from hardspike.analyses.mean_interval import mean_interval
from hardspike.analyses.subject import Subject
from hardspike.attack.evaluation import interval
from hardspike.deploy.report.analysis import Analysis
from hardspike.deploy.report.chart import BarChart, Bars, Chart, Line, LineChart, Picture, Pictures
from hardspike.deploy.report.texts import NETWORKS
from hardspike.snn.data import ImageSet


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """images: by kind and network. found: by method and kind. moved: distance from the clean map [T, B], by method, kind, layer."""

    images: dict[str, dict[str, Tensor]]
    found: dict[Method, dict[str, Explanation]]
    moved: dict[Method, dict[str, dict[str, Tensor]]]


def stability(subject: Subject) -> Analysis:
    """Distance between the maps of clean and attacked images per layer and method, and clean and attacked accuracy.

    Each network meets FGSM made on itself; noise of the same size is the control. Raises SettingsError for a network or a layer
    without image plane.
    """
    layers, layer_notes = map_layers(subject)
    methods, method_notes = methods_of(subject)
    data = subject.test
    seen = _look(subject, methods, layers)
    deepest = layers[-1]
    clean = {method: kinds["clean"] for method, kinds in seen.found.items()}
    accuracies = _accuracies(seen, data)
    return Analysis(
        name="stability",
        title="How far an attack moves the maps",
        question=(
            "Does a spiking network keep looking at the same place when the image is attacked? Mean absolute difference per "
            "pixel between the maps of a clean and an attacked image, the largest over time (Kim and Panda 2021)."
        ),
        found=(*_distance_found(seen, deepest, subject.eps), *_accuracy_found(accuracies), *_noise_found(seen, layers)),
        conditions=conditions(
            subject,
            {
                "n": len(data),
                "eps": subject.eps,
                "attack on the ANN": "fgsm",
                "attack on spiking networks": f"fgsm/{surrogate_name(subject)}, each on itself",
            },
        ),
        charts=(
            _distance_chart(seen, layers, "attack", "How far FGSM moves the maps"),
            _distance_chart(seen, layers, "noise", "How far noise of the same size moves the maps"),
            _accuracy_chart(accuracies, len(data)),
            _over_time(seen, deepest),
            _example(seen, data, deepest),
        ),
        notes=(*layer_notes, *method_notes, *step_notes(subject), *empty_notes(clean, layers)),
        values={
            "distance": {
                method.key: {kind: {name: _distance_values(d) for name, d in by.items()} for kind, by in kinds.items()}
                for method, kinds in seen.moved.items()
            },
            "accuracy": accuracies,
        },
    )


def _look(subject: Subject, methods: tuple[Method, ...], layers: tuple[str, ...]) -> _Seen:
    data = subject.test
    networks = dict.fromkeys(method.network for method in methods)
    spiking = f"fgsm/{surrogate_name(subject)}"
    images = {
        "clean": dict.fromkeys(networks, data.images),
        "noise": dict.fromkeys(networks, subject.attacked("noise", "snn")),  # the same for all networks
        "attack": {name: subject.attacked("fgsm" if name == "ann" else spiking, name) for name in networks},
    }
    found = {
        method: {
            kind: explain(subject, method, by_network[method.network], data.labels, layers)
            for kind, by_network in images.items()
        }
        for method in methods
    }
    moved = {
        method: {
            kind: {name: distances(kinds["clean"].maps[name], kinds[kind].maps[name]) for name in layers}
            for kind in ("noise", "attack")
        }
        for method, kinds in found.items()
    }
    return _Seen(images, found, moved)


def _accuracies(seen: _Seen, data: ImageSet) -> dict[str, dict[str, dict[str, float]]]:
    """Share of right predictions by network and kind of images, with its interval."""
    accuracies: dict[str, dict[str, dict[str, float]]] = {}
    for method, kinds in seen.found.items():
        for kind, explanation in kinds.items():
            share = float((explanation.predicted == data.labels).double().mean())
            low, high = interval(share, len(data))
            accuracies.setdefault(method.network, {})[kind] = {"value": share, "low": low, "high": high}
    return accuracies


def _distance_values(distance_TB: Tensor) -> dict[str, float | None]:
    return mean_interval(distance_TB.amax(0)) | {"mean_over_time": float(distance_TB.mean())}


def _largest(seen: _Seen, kind: str) -> Measured:
    """Distance from the clean map, the largest over time."""
    return {method: {name: d.amax(0) for name, d in by[kind].items()} for method, by in seen.moved.items()}


def _shows(seen: _Seen, method: Method, layer: str) -> bool:
    """Whether any clean or attacked image has a map at all: one that is always zero does not move."""
    return any(bool(has_contrast(seen.found[method][kind].maps[layer]).any()) for kind in ("clean", "attack"))


def _distance_found(seen: _Seen, deepest: str, eps: float) -> list[str]:
    largest = {m: by[deepest] for m, by in _largest(seen, "attack").items() if _shows(seen, m, deepest)}
    silent = [method.label for method in seen.found if method not in largest]
    sentences = []
    if largest:
        texts = [f"{float(values.mean()):.3f} ({method.label})" for method, values in largest.items()]
        sentences.append(f"FGSM at eps {eps:g} moves the maps of {deepest} by {', '.join(texts)} of their scale.")
    if silent:
        sentences.append(f"There are no maps of {deepest} to compare of {', '.join(silent)}: they are zero everywhere.")
    for method in (SNN_SAM, DEPLOYED_SAM):
        if ANN_GRADCAM in largest and method in largest:
            sign = direction(largest[method] - largest[ANN_GRADCAM])
            word = {1: "moves more", -1: "moves less", 0: "does not move differently beyond the interval"}[sign]
            over_time = float(seen.moved[method]["attack"][deepest].mean())
            sentences.append(
                f"Compared with the ANN's Grad-CAM, {method.label} {word} (in the paper: less). It is the largest of several steps, "
                f"the ANN's has only one; its mean over time is {over_time:.3f}."
            )
    return sentences


def _accuracy_found(accuracies: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[str]:
    texts = [
        f"{100 * kinds['clean']['value']:.1f} to {100 * kinds['attack']['value']:.1f} % ({NETWORKS[name]})"
        for name, kinds in accuracies.items()
    ]
    return [f"Accuracy under this attack goes from {', '.join(texts)}."]


def _noise_found(seen: _Seen, layers: tuple[str, ...]) -> list[str]:
    attack, noise, parts = _largest(seen, "attack"), _largest(seen, "noise"), []
    for method in attack:
        beyond = sum(direction(attack[method][name] - noise[method][name]) > 0 for name in layers)
        parts.append(f"{method.label} in {beyond}")
    return [f"Layers, of {len(layers)}, whose maps FGSM moves more than noise of the same size: {', '.join(parts)}."]


def _distance_chart(seen: _Seen, layers: tuple[str, ...], kind: str, title: str) -> Chart:
    return BarChart(
        name=f"distance_{kind}",
        title=title,
        label="mean absolute difference of the maps",
        categories=layers,
        bars=layer_bars(_largest(seen, kind), layers),
        caption=(
            "Between the maps, scaled to 0-1, of a clean image and the same image changed; the largest over time, mean over images "
            "with its 95 % interval. The paper does not say how it normalises; here by the number of pixels. The ANN has one step."
        ),
    )


def _accuracy_chart(accuracies: Mapping[str, Mapping[str, Mapping[str, float]]], count: int) -> Chart:
    tones = {"clean": "clean", "noise": "noise", "attack": "attack"}
    return BarChart(
        name="accuracy",
        title="Accuracy on the same images",
        label="accuracy",
        categories=tuple(NETWORKS[name] for name in accuracies),
        bars=tuple(
            Bars(
                name="FGSM" if kind == "attack" else kind,
                tone=tone,
                values=tuple(kinds[kind]["value"] for kinds in accuracies.values()),
                low=tuple(kinds[kind]["low"] for kinds in accuracies.values()),
                high=tuple(kinds[kind]["high"] for kinds in accuracies.values()),
            )
            for kind, tone in tones.items()
        ),
        caption=f"Share of {count} images put into the right class, with its 95 % Wilson interval; every image counts.",
        percent=True,
    )


def _over_time(seen: _Seen, deepest: str) -> Chart:
    lines = []
    steps = max(len(kinds["attack"][deepest]) for kinds in seen.moved.values())
    for method, kinds in seen.moved.items():
        means, lows, highs = zip(*(mean_interval(step).values() for step in kinds["attack"][deepest]), strict=True)
        x = tuple(float(step + 1) for step in range(len(means)))
        flat = method is ANN_GRADCAM and steps > 1  # one map: drawn along all steps
        lines.append(
            Line(
                name=method.label,
                tone=method.tone,
                x=(1.0, float(steps)) if flat else x,
                y=means * 2 if flat else means,
                low=lows * 2 if flat else lows,
                high=highs * 2 if flat else highs,
                dashed=flat,
            )
        )
    return LineChart(
        name="distance_over_time",
        title=f"When the maps of {deepest} move apart",
        x_label="timestep",
        y_label="mean absolute difference of the maps",
        lines=tuple(lines),
        caption="Clean against attacked, mean over images with its 95 % interval; dashed: the ANN, which has no time.",
    )


def _example(seen: _Seen, data: ImageSet, deepest: str) -> Chart:
    """The first image that the attack makes the SNN misclassify, else the first."""
    kinds = seen.found[SNN_SAM]
    fooled = (kinds["clean"].predicted == data.labels) & (kinds["attack"].predicted != data.labels)
    row = int(torch.nonzero(fooled)[0]) if bool(fooled.any()) else 0
    pictures: list[tuple[Picture, ...]] = []
    for method, by_kind in seen.found.items():
        shown: list[Picture] = []
        for kind in ("clean", "attack"):
            image, explanation = seen.images[kind][method.network][row], by_kind[kind]
            shown.append(image_picture(image, f"predicted {int(explanation.predicted[row])}"))
            shown.append(map_picture(explanation.maps[deepest][-1, row], image))
        pictures.append(tuple(shown))
    return Pictures(
        name="example",
        title=f"One image before and after the attack, layer {deepest}",
        alt=f"A test image of class {int(data.labels[row])}, clean and attacked, and the map that each method makes of both.",
        rows=tuple(method.label for method in seen.found),
        columns=("clean", "its map", "attacked", "its map, attacked"),
        pictures=tuple(pictures),
        caption="Maps at the last timestep. Each network is attacked by images made on itself, so the attacked images differ.",
    )
