"""The localisation error of every method, against loops, and where there is nothing to localise."""

import math
from pathlib import Path

import pytest
import torch
from explained_runs import TWO_LAYERS, checked, own_run, subject_of, without_deployment
from torch import Tensor
from torch.nn import functional as F

from hardspike.analyses.activation_maps import LOG_CLAMP
from hardspike.analyses.explanations import ANN_GRADCAM, METHODS, explain
from hardspike.analyses.localisation import localisation
from hardspike.snn.errors import SettingsError


def slow_error(maps_THW: Tensor, reference_HW: Tensor) -> float:
    by_step = []
    for step in maps_THW.tolist():
        total, count = 0.0, 0
        for row, marks in zip(step, reference_HW.tolist(), strict=True):
            for value, g in zip(row, marks, strict=True):
                m = min(max(value, LOG_CLAMP), 1 - LOG_CLAMP)
                total -= g * math.log(m) + (1 - g) * math.log(1 - m)
                count += 1
        by_step.append(total / count)
    return min(by_step)


def test_errors_of_a_run_equal_loops(run: Path) -> None:
    subject = subject_of(run, images=5)
    data, layers = subject.test, ("spike1", "spike2")
    values = checked(localisation(subject)).values
    maps = {method: explain(subject, method, data.images, data.labels, layers).maps for method in METHODS}
    last = F.interpolate(maps[ANN_GRADCAM]["spike2"], size=(8, 8), mode="bilinear", align_corners=False)[0]
    for method in METHODS:
        for name in layers:
            shown = F.interpolate(maps[method][name], size=(8, 8), mode="bilinear", align_corners=False)
            to_last = [slow_error(shown[:, row], last[row]) for row in range(5)]
            to_other = [slow_error(shown[:, row], last[row - 1]) for row in range(5)]
            found = values["against_last_layer"][method.key][name]["mean"]
            assert found == pytest.approx(sum(to_last) / 5, abs=1e-9)
            if method is ANN_GRADCAM:
                continue
            to_same = [slow_error(maps[method][name][:, row], maps[ANN_GRADCAM][name][0, row]) for row in range(5)]
            assert values["against_same_layer"][method.key][name]["mean"] == pytest.approx(sum(to_same) / 5, abs=1e-9)
            assert values["against_another_image"][method.key][name]["mean"] == pytest.approx(
                sum(to_other) / 5, abs=1e-9
            )


def test_the_reference_is_the_deepest_layer_whatever_layers_are_shown(run: Path) -> None:
    analysis = checked(localisation(subject_of(run, images=3, layers=("spike1",))))
    assert analysis.conditions["reference"] == "ANN Grad-CAM of spike2"
    both = localisation(subject_of(run, images=3))
    name = "against_last_layer"
    assert analysis.values[name]["snn_sam"]["spike1"] == both.values[name]["snn_sam"]["spike1"]


def test_without_deployment(run: Path) -> None:
    without_deployment(run)
    analysis = checked(localisation(subject_of(run, images=3)))
    assert "deployed_sam" not in analysis.values["against_last_layer"]


def test_a_run_without_an_ann_is_refused(run: Path) -> None:
    without_deployment(run)
    text = (run / "recipe.toml").read_text(encoding="utf-8")
    text = text.replace("time_steps = 0", "time_steps = 4").replace('method = "robust"', 'method = "none"')
    (run / "recipe.toml").write_text(text, encoding="utf-8")
    subject = subject_of(run)
    assert "ann" not in subject.targets
    with pytest.raises(SettingsError, match="^localisation: this run has no ANN"):
        localisation(subject)


def test_maps_of_no_spikes_have_the_error_of_an_empty_map(run: Path) -> None:
    subject = own_run(run, TWO_LAYERS)
    with torch.no_grad():
        for neuron in subject.snn.neurons().values():
            neuron.threshold.fill_(1e9)
    analysis = checked(localisation(subject))
    data = subject.test
    marks = explain(subject, ANN_GRADCAM, data.images, data.labels, ("b_spike",)).maps["b_spike"][0]
    expected = [slow_error(torch.zeros(1, *marks.shape[1:]), marks[row]) for row in range(len(data))]
    found = analysis.values["against_same_layer"]["snn_sam"]["b_spike"]["mean"]
    assert found == pytest.approx(sum(expected) / len(data), abs=1e-9)
    assert any("at a step whose map is zero everywhere: 6 in a_spike, 6 in b_spike" in note for note in analysis.notes)


@pytest.mark.parametrize("images", [1, 2])
def test_few_images_and_one_timestep(run: Path, images: int) -> None:
    analysis = checked(localisation(own_run(run, TWO_LAYERS, images=images, time_steps=1)))
    assert any("With one timestep" in note for note in analysis.notes)
    assert any("As a control" in sentence for sentence in analysis.found) == (images > 1)
