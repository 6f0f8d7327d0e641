"""What each layer looks at: spike activation maps from spikes alone beside Grad-CAM, and how much contrast they have."""

from collections.abc import Mapping, Sequence

from hardspike.analyses.activation_maps import distances, has_contrast, variance
from hardspike.analyses.explanations import (
    DEPLOYED_SAM,
    SNN_GRADCAM,
    SNN_SAM,
    Explanation,
    Method,
    conditions,
    explain,
    map_layers,
    methods_of,
    step_notes,
)
from hardspike.analyses.layer_means import Measured, direction, layer_bars, layer_values
from hardspike.analyses.map_pictures import image_picture, map_picture, shown_layers, shown_steps
from hardspike.analyses.subject import Subject
from hardspike.deploy.report.analysis import Analysis
from hardspike.deploy.report.chart import BarChart, Chart, Picture, Pictures
from hardspike.snn.data import ImageSet

IMAGES, LAYERS, STEPS = 3, 3, 3  # shown
Found = Mapping[Method, Explanation]


def heatmaps(subject: Subject) -> Analysis:
    """Maps of every method on the test images, and the mean over images of their largest variance over time.

    Raises SettingsError for a network or a layer without image plane.
    """
    layers, layer_notes = map_layers(subject)
    methods, method_notes = methods_of(subject)
    data = subject.test
    found = {method: explain(subject, method, data.images, data.labels, layers) for method in methods}
    spreads = {method: {name: variance(found[method].maps[name]) for name in layers} for method in methods}
    return Analysis(
        name="heatmaps",
        title="What each layer looks at",
        question=(
            "Which part of an image makes a layer fire? Spike activation maps (SAM) add up neurons whose spikes follow each "
            "other closely and need neither label nor gradient, so that a chip's own spikes give them; Grad-CAM weighs "
            "channels by the gradient of the label's logit (Kim and Panda 2021, eq. 4-9)."
        ),
        found=(*_contrast_found(spreads, layers), *_deployed_found(found, layers)),
        conditions=conditions(subject, {"n": len(data)}),
        charts=(*_pictures(data, found, layers), _variances(spreads, layers)),
        notes=(*layer_notes, *method_notes, *step_notes(subject), *empty_notes(found, layers)),
        values=_values(found, spreads, layers),
    )


def empty_notes(found: Found, layers: Sequence[str]) -> tuple[str, ...]:
    """Which maps show nothing at any step, e.g. of a layer that never spikes."""
    notes = []
    for method, explanation in found.items():
        empty = {name: int((~has_contrast(explanation.maps[name]).any(0)).sum()) for name in layers}
        counts = [f"{count} in {name}" for name, count in empty.items() if count]
        if counts:
            total = len(explanation.predicted)
            notes.append(
                f"{method.label}: of {total} images, this many have a map that is zero everywhere: {', '.join(counts)}."
            )
    return tuple(notes)


def _contrast_found(spreads: Measured, layers: Sequence[str]) -> list[str]:
    sentences = []
    for method in (SNN_SAM, DEPLOYED_SAM):
        if method not in spreads:
            continue
        signs = {name: direction(spreads[method][name] - spreads[SNN_GRADCAM][name]) for name in layers}
        counts = [list(signs.values()).count(sign) for sign in (1, -1, 0)]
        less = f" ({', '.join(name for name in layers if signs[name] < 0)})" if counts[1] else ""
        sentences.append(
            f"{method.label}: of {len(layers)} layers, its maps vary more than SNN Grad-CAM's in {counts[0]}, less in {counts[1]}{less}, "
            f"and no differently beyond the interval in {counts[2]} (the paper found more contrast in every layer)."
        )
    return sentences


def _deployed_found(found: Found, layers: Sequence[str]) -> list[str]:
    if DEPLOYED_SAM not in found:
        return []
    differences = _deployed_differences(found, layers)
    worst = max(differences, key=lambda name: differences[name])
    same = sum(_identical(found, name) for name in layers) / len(layers)
    return [
        f"Maps made from the deployed network's spikes differ from the float network's by {differences[worst]:.3f} of the "
        f"scale on average in the layer where they differ most ({worst}); {100 * same:.1f} % of all maps are equal."
    ]


def _deployed_differences(found: Found, layers: Sequence[str]) -> dict[str, float]:
    first, second = found[SNN_SAM].maps, found[DEPLOYED_SAM].maps
    return {name: float(distances(first[name], second[name]).mean()) for name in layers}


def _identical(found: Found, name: str) -> float:
    """Share of (image, step) whose map is the same for the float and the deployed network."""
    distance = distances(found[SNN_SAM].maps[name], found[DEPLOYED_SAM].maps[name])
    return float((distance < 1e-12).double().mean())


def _values(found: Found, spreads: Measured, layers: Sequence[str]) -> dict[str, object]:
    values: dict[str, object] = {"variance": layer_values(spreads)}
    if DEPLOYED_SAM in found:
        values["deployed_difference"] = _deployed_differences(found, layers)
        values["deployed_equal_share"] = {name: _identical(found, name) for name in layers}
    return values


def _pictures(data: ImageSet, found: Found, layers: tuple[str, ...]) -> list[Chart]:
    """One grid for each layer shown, by image and method, and one of all shown layers over time for the first image."""
    charts: list[Chart] = []
    rows = range(min(IMAGES, len(data)))
    names = shown_layers(layers, LAYERS)
    for name in names:
        columns: list[str] = ["image"]
        pictures: list[list[Picture]] = [
            [image_picture(image, f"predicted {predicted}")]
            for image, predicted in zip(data.images[: len(rows)], _predicted(found, len(rows)), strict=True)
        ]
        for method, explanation in found.items():
            maps = explanation.maps[name]
            for step in shown_steps(len(maps), STEPS if method in (SNN_SAM, DEPLOYED_SAM) else 1):
                columns.append(method.label + (f", t={step + 1}" if len(maps) > 1 else ""))
                for row in rows:
                    pictures[row].append(map_picture(maps[step, row], data.images[row]))
        charts.append(
            Pictures(
                name=f"maps_{name}",
                title=f"Maps of layer {name}",
                alt=f"Test images, and over each the maps that {len(found)} methods make of layer {name}.",
                rows=tuple(f"{row + 1}: class {int(data.labels[row])}" for row in rows),
                columns=tuple(columns),
                pictures=tuple(tuple(row) for row in pictures),
                caption=(
                    "Dark to bright is the smallest to the largest value of each map; a map without contrast is all dark. "
                    "Grad-CAM is that of the true class, for the SNN at the last timestep; SAM looks at no class."
                ),
            )
        )
    charts.append(_over_time(data, found, names))
    return charts


def _over_time(data: ImageSet, found: Found, layers: Sequence[str]) -> Chart:
    spiking = [method for method in found if method.network != "ann"]
    steps = shown_steps(len(found[SNN_SAM].maps[layers[0]]), 6)
    rows, pictures = [], []
    for name in layers:
        for method in spiking:
            rows.append(f"{name}: {method.label}")
            pictures.append(tuple(map_picture(found[method].maps[name][step, 0], data.images[0]) for step in steps))
    return Pictures(
        name="maps_over_time",
        title="The first image over time",
        alt="Maps of the first test image at several timesteps, one row for each layer and method.",
        rows=tuple(rows),
        columns=tuple(f"t = {step + 1}" for step in steps),
        pictures=tuple(pictures),
        caption="Each column is one timestep, from early to late: see whether a map settles, and whether deployment moves it.",
    )


def _predicted(found: Found, count: int) -> list[int]:
    last = list(found)[-1]
    predicted: list[int] = found[last].predicted[:count].tolist()
    return predicted


def _variances(spreads: Measured, layers: Sequence[str]) -> Chart:
    return BarChart(
        name="variance",
        title="Contrast of the maps",
        label="variance of the map, largest over time",
        categories=tuple(layers),
        bars=layer_bars(spreads, layers),
        caption=(
            "Variance over the pixels of each map scaled to 0-1, the largest over time, mean over images with its 95 % "
            "interval; 1/4 is the most there can be. A larger value means a more selective map."
        ),
    )
