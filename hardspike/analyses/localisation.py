"""How well each layer's maps find the region that the ANN's Grad-CAM marks: the localisation error of the SAM paper."""

from collections.abc import Mapping

import torch
from torch import Tensor

from hardspike.analyses.activation_maps import LOG_CLAMP, has_contrast, localisation_errors, mean_interval, resized
from hardspike.analyses.explanations import (
    ANN_GRADCAM,
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
from hardspike.analyses.heatmaps import empty_notes
from hardspike.analyses.subject import Subject
from hardspike.deploy.report.analysis import Analysis
from hardspike.deploy.report.chart import BarChart, Bars, Chart
from hardspike.snn.errors import SettingsError

# Per sample [B], by method and layer.
Errors = Mapping[Method, Mapping[str, Tensor]]


def localisation(subject: Subject) -> Analysis:
    """Localisation error per layer and method, against the ANN's Grad-CAM of its last layer with a plane, and of the same layer.

    Raises SettingsError for a run without an ANN, and for a network or a layer without image plane.
    """
    methods, method_notes = methods_of(subject)
    if ANN_GRADCAM not in methods:
        raise SettingsError("localisation: this run has no ANN, whose Grad-CAM is the reference; use heatmaps instead")
    layers, layer_notes = map_layers(subject)
    data = subject.test
    deepest = [name for name in subject.ann.neurons() if len(subject.ann.architecture.shapes[name]) == 3][-1]
    wanted = tuple(dict.fromkeys((*layers, deepest)))
    marked = explain(subject, ANN_GRADCAM, data.images, data.labels, wanted)
    found = {method: explain(subject, method, data.images, data.labels, layers) for method in methods[1:]}
    found = {ANN_GRADCAM: Explanation({name: marked.maps[name] for name in layers}, marked.predicted)} | found
    size = (data.images.shape[2], data.images.shape[3])
    last = resized(marked.maps[deepest], size)[0]
    to_last = _errors(found, dict.fromkeys(layers, last), size)
    own = {method: explanation for method, explanation in found.items() if method is not ANN_GRADCAM}
    to_same = _errors(own, {name: marked.maps[name][0] for name in layers}, None)
    to_other = _errors(own, dict.fromkeys(layers, last.roll(1, 0)), size)
    return Analysis(
        name="localisation",
        title="How well maps find what the ANN looks at",
        question=(
            "Do the maps of each layer mark the region that the ANN's Grad-CAM marks? Localisation error (Kim and Panda 2021): "
            "the smallest over time of the cross entropy between the reference and the map."
        ),
        found=(
            *_depth_found(to_last, to_same, layers),
            *_method_found(to_last, layers),
            *_control_found(to_last, to_other, layers),
        ),
        conditions={
            "n": len(data),
            "reference": f"ANN Grad-CAM of {deepest}",
            "map values kept in": f"{LOG_CLAMP:g} to {1 - LOG_CLAMP:g}",
            "resizing": f"bilinear to {size[0]} x {size[1]}",
        }
        | conditions(subject),
        charts=(
            _chart("error", f"Error against the ANN's Grad-CAM of {deepest}", to_last, layers, _CAPTION),
            _chart(
                "error_same_layer", "Error against the ANN's Grad-CAM of the same layer", to_same, layers, _SAME_CAPTION
            ),
        ),
        notes=(
            *layer_notes,
            *method_notes,
            *step_notes(subject),
            *empty_notes({ANN_GRADCAM: marked} | found, layers),
            *_empty_minima(found, to_last, last),
        ),
        values={
            "against_last_layer": _values(to_last),
            "against_same_layer": _values(to_same),
            "against_another_image": _values(to_other),
        },
    )


_CAPTION = (
    "Cross entropy per pixel, the smallest over time, mean over images with its 95 % interval; lower is closer. Maps and "
    "reference are resized to the image. The ANN's own bars are not zero: the last layer's is the entropy of the reference, "
    "which no map can fall below. A map of 1/2 everywhere has 0.693."
)
_SAME_CAPTION = (
    "The paper does not say which layer of the ANN it compares with; here each layer has the reference of its own depth, at "
    "its own size, so that nothing is resized."
)


def _errors(
    found: Mapping[Method, Explanation], references_BHW: Mapping[str, Tensor], size: tuple[int, int] | None
) -> Errors:
    """The smallest error over time, by method and layer. size: that maps are resized to, None to leave them."""
    return {
        method: {
            name: localisation_errors(maps if size is None else resized(maps, size), references_BHW[name]).amin(0)
            for name, maps in explanation.maps.items()
        }
        for method, explanation in found.items()
    }


def _values(errors: Errors) -> dict[str, object]:
    return {
        method.key: {
            name: dict(zip(("error", "low", "high"), mean_interval(values), strict=True))
            for name, values in by_layer.items()
        }
        for method, by_layer in errors.items()
    }


def _chart(name: str, title: str, errors: Errors, layers: tuple[str, ...], caption: str) -> Chart:
    bars = []
    for method, by_layer in errors.items():
        means, lows, highs = zip(*(mean_interval(by_layer[layer]) for layer in layers), strict=True)
        bars.append(Bars(name=method.label, tone=method.tone, values=means, low=lows, high=highs))
    return BarChart(
        name=name,
        title=title,
        label="localisation error, nats per pixel",
        categories=layers,
        bars=tuple(bars),
        caption=caption,
    )


def _depth_found(to_last: Errors, to_same: Errors, layers: tuple[str, ...]) -> list[str]:
    if len(layers) < 2:
        return []
    first, last = layers[0], layers[-1]
    sentences = []
    for method in (SNN_SAM, DEPLOYED_SAM):
        parts = []
        for errors, reference in ((to_last, "the last layer's"), (to_same, "the same layer's")):
            if method in errors:
                begin, end = (float(errors[method][name].mean()) for name in (first, last))
                word = _change(errors[method][last] - errors[method][first])
                parts.append(f"{word} against {reference} reference ({begin:.3f} to {end:.3f})")
        if parts:
            text = f"{method.label}: from {first} to {last} the error {' and '.join(parts)}"
            sentences.append(f"{text}; the paper found that it grows with depth.")
    return sentences


def _change(differences: Tensor) -> str:
    _, low, high = mean_interval(differences)
    if low is not None and high is not None and low > 0:
        return "grows"
    return "falls" if high is not None and high < 0 else "does not change beyond its interval"


def _method_found(errors: Errors, layers: tuple[str, ...]) -> list[str]:
    words = {"grows": "larger", "falls": "smaller"}
    parts = []
    for name in layers:
        word = _change(errors[SNN_SAM][name] - errors[SNN_GRADCAM][name])
        parts.append(f"{words.get(word, 'no different beyond its interval')} in {name}")
    return [f"The error of the float SNN's SAM, compared with its Grad-CAM, is {', '.join(parts)}."]


def _control_found(errors: Errors, others: Errors, layers: tuple[str, ...]) -> list[str]:
    if len(next(iter(errors[SNN_SAM].values()))) < 2:
        return []
    closer = [name for name in layers if _change(others[SNN_SAM][name] - errors[SNN_SAM][name]) == "grows"]
    return [
        f"As a control, the last layer's reference of another image: the float SNN's SAM is closer to that of its own image in "
        f"{len(closer)} of {len(layers)} layers beyond the interval."
    ]


def _empty_minima(found: Mapping[Method, Explanation], errors: Errors, reference: Tensor) -> list[str]:
    """Where the smallest error belongs to a map that shows nothing, which says nothing about where the layer looks."""
    notes = []
    for method, explanation in found.items():
        for name, maps in explanation.maps.items():
            empty = localisation_errors(torch.zeros_like(reference)[None], reference)[0]
            counted = (~has_contrast(maps)).any(0) & (errors[method][name] >= empty)
            if method is not ANN_GRADCAM and bool(counted.any()):
                notes.append(
                    f"{method.label}, {name}: for {int(counted.sum())} of {len(counted)} images the smallest error is that of a "
                    "map that is zero everywhere."
                )
    return notes
