"""How well each layer's maps find the region that the ANN's Grad-CAM marks: the localisation error of the SAM paper."""

from collections.abc import Mapping

import torch
from torch import Tensor

from hardspike.analyses.activation_maps import LOG_CLAMP, has_contrast, localisation_errors, resized
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
from hardspike.analyses.layer_means import Measured, direction, layer_bars, layer_values
from hardspike.analyses.subject import Subject
from hardspike.deploy.report.analysis import Analysis
from hardspike.deploy.report.chart import BarChart, Chart
from hardspike.snn.errors import SettingsError


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
        conditions=conditions(
            subject,
            {
                "n": len(data),
                "reference": f"ANN Grad-CAM of {deepest}",
                "map values kept in": f"{LOG_CLAMP:g} to {1 - LOG_CLAMP:g}",
                "resizing": f"bilinear to {size[0]} x {size[1]}",
            },
        ),
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
            "against_last_layer": layer_values(to_last),
            "against_same_layer": layer_values(to_same),
            "against_another_image": layer_values(to_other),
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
) -> Measured:
    """The smallest error over time, by method and layer. size: that maps are resized to, None to leave them."""
    return {
        method: {
            name: localisation_errors(maps if size is None else resized(maps, size), references_BHW[name]).amin(0)
            for name, maps in explanation.maps.items()
        }
        for method, explanation in found.items()
    }


def _chart(name: str, title: str, errors: Measured, layers: tuple[str, ...], caption: str) -> Chart:
    return BarChart(
        name=name,
        title=title,
        label="localisation error, nats per pixel",
        categories=layers,
        bars=layer_bars(errors, layers),
        caption=caption,
    )


def _depth_found(to_last: Measured, to_same: Measured, layers: tuple[str, ...]) -> list[str]:
    if len(layers) < 2:
        return []
    first, last = layers[0], layers[-1]
    sentences = []
    for method in (SNN_SAM, DEPLOYED_SAM):
        parts = []
        for errors, reference in ((to_last, "the last layer's"), (to_same, "the same layer's")):
            if method in errors:
                begin, end = (float(errors[method][name].mean()) for name in (first, last))
                word = _WORDS[direction(errors[method][last] - errors[method][first])]
                parts.append(f"{word} against {reference} reference ({begin:.3f} to {end:.3f})")
        if parts:
            text = f"{method.label}: from {first} to {last} the error {' and '.join(parts)}"
            sentences.append(f"{text}; the paper found that it grows with depth.")
    return sentences


_WORDS = {1: "grows", -1: "falls", 0: "does not change beyond its interval"}


def _method_found(errors: Measured, layers: tuple[str, ...]) -> list[str]:
    signs = {name: direction(errors[SNN_SAM][name] - errors[SNN_GRADCAM][name]) for name in layers}
    counts = [list(signs.values()).count(sign) for sign in (-1, 1, 0)]
    return [
        f"Compared with the float SNN's Grad-CAM, its SAM is closer to the last layer's reference in {counts[0]} of {len(layers)} "
        f"layers, farther in {counts[1]}, and no different beyond the interval in {counts[2]}."
    ]


def _control_found(errors: Measured, others: Measured, layers: tuple[str, ...]) -> list[str]:
    if len(next(iter(errors[SNN_SAM].values()))) < 2:
        return []
    closer = [name for name in layers if direction(others[SNN_SAM][name] - errors[SNN_SAM][name]) > 0]
    return [
        f"As a control, the last layer's reference of another image: the float SNN's SAM is closer to that of its own image in "
        f"{len(closer)} of {len(layers)} layers beyond the interval."
    ]


def _empty_minima(found: Mapping[Method, Explanation], errors: Measured, reference: Tensor) -> list[str]:
    """Where the smallest error belongs to a map that shows nothing, which says nothing about where the layer looks."""
    notes = []
    empty = localisation_errors(torch.zeros_like(reference)[None], reference)[0]
    for method, explanation in found.items():
        counts = []
        for name, maps in explanation.maps.items():
            counted = int(((~has_contrast(maps)).any(0) & (errors[method][name] >= empty)).sum())
            counts += [f"{counted} in {name}"] if counted else []
        if counts and method is not ANN_GRADCAM:
            notes.append(
                f"{method.label}: of {len(reference)} images, this many have their smallest error at a step whose map is zero "
                f"everywhere: {', '.join(counts)}."
            )
    return notes
