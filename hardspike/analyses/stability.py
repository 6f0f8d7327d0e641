"""How far an attack moves the maps of each network, beside what it does to the accuracy."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hardspike.analyses.activation_maps import distances, mean_interval
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
from hardspike.analyses.map_pictures import image_picture, map_picture
from hardspike.analyses.subject import Subject
from hardspike.attack.evaluation import interval
from hardspike.deploy.report.analysis import Analysis
from hardspike.deploy.report.chart import BarChart, Bars, Chart, Line, LineChart, Picture, Pictures
from hardspike.snn.data import ImageSet

NETWORKS = {"ann": "ANN", "snn": "float SNN", "deployed": "deployed"}


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
        conditions={
            "n": len(data),
            "eps": subject.eps,
            "attack on the ANN": "fgsm",
            "attack on spiking networks": f"fgsm/{surrogate_name(subject)}, each on itself",
        }
        | conditions(subject),
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
        "noise": {name: subject.attacked("noise", name) for name in networks},
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
    mean, low, high = mean_interval(distance_TB.amax(0))
    return {"largest": mean, "low": low, "high": high, "mean_over_time": float(distance_TB.mean())}


def _distance_found(seen: _Seen, deepest: str, eps: float) -> list[str]:
    largest = {method: by["attack"][deepest].amax(0) for method, by in seen.moved.items()}
    texts = [f"{float(values.mean()):.3f} ({method.label})" for method, values in largest.items()]
    sentences = [f"FGSM at eps {eps:g} moves the maps of {deepest} by {', '.join(texts)} of their scale."]
    if ANN_GRADCAM in largest:
        for method in (SNN_SAM, DEPLOYED_SAM):
            if method in largest:
                _, low, high = mean_interval(largest[method] - largest[ANN_GRADCAM])
                word = "moves no differently from it beyond the interval"
                if low is not None and low > 0:
                    word = "moves more"
                elif high is not None and high < 0:
                    word = "moves less"
                over_time = float(seen.moved[method]["attack"][deepest].mean())
                sentences.append(
                    f"Compared with the ANN's Grad-CAM, {method.label} {word} (in the paper: less), though it is the largest of "
                    f"several steps; its mean over time is {over_time:.3f}."
                )
    return sentences


def _accuracy_found(accuracies: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[str]:
    texts = [
        f"{100 * kinds['clean']['value']:.1f} to {100 * kinds['attack']['value']:.1f} % ({NETWORKS[name]})"
        for name, kinds in accuracies.items()
    ]
    return [f"Accuracy under this attack goes from {', '.join(texts)}."]


def _noise_found(seen: _Seen, layers: tuple[str, ...]) -> list[str]:
    parts = []
    for method, kinds in seen.moved.items():
        beyond = 0
        for name in layers:
            _, low, _ = mean_interval(kinds["attack"][name].amax(0) - kinds["noise"][name].amax(0))
            beyond += low is not None and low > 0
        parts.append(f"{method.label} in {beyond}")
    return [f"The attack moves maps more than noise of the same size, of {len(layers)} layers: {', '.join(parts)}."]


def _distance_chart(seen: _Seen, layers: tuple[str, ...], kind: str, title: str) -> Chart:
    bars = []
    for method, kinds in seen.moved.items():
        means, lows, highs = zip(*(mean_interval(kinds[kind][name].amax(0)) for name in layers), strict=True)
        bars.append(Bars(name=method.label, tone=method.tone, values=means, low=lows, high=highs))
    return BarChart(
        name=f"distance_{kind}",
        title=title,
        label="mean absolute difference of the maps",
        categories=layers,
        bars=tuple(bars),
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
        means, lows, highs = zip(*(mean_interval(values) for values in kinds["attack"][deepest]), strict=True)
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
