"""The analysis of heatmaps: its numbers are the measures of the maps, and it runs on any run."""

from pathlib import Path

import pytest
import torch
from explained_runs import TWO_LAYERS, checked, own_run, subject_of, without_deployment

from hardspike.analyses.activation_maps import variance
from hardspike.analyses.explanations import SNN_SAM, explain
from hardspike.analyses.heatmaps import heatmaps
from hardspike.analyses.map_pictures import image_picture, map_picture, shown_layers, shown_steps
from hardspike.analyses.options import AnalyseOptions
from hardspike.analyses.subject import Subject
from hardspike.deploy.report.chart import BarChart, Pictures


def test_numbers_and_pictures_of_a_run(run: Path) -> None:
    subject = subject_of(run, images=8)
    analysis = checked(heatmaps(subject))
    *grids, over_time, bars = analysis.charts
    assert isinstance(bars, BarChart) and bars.categories == ("spike1", "spike2")
    assert [group.name for group in bars.bars] == ["ANN Grad-CAM", "SNN Grad-CAM", "float SAM", "deployed SAM"]
    data = subject.test
    maps = explain(subject, SNN_SAM, data.images, data.labels, ("spike1", "spike2")).maps
    expected = [float(variance(maps[name]).mean()) for name in ("spike1", "spike2")]
    assert bars.bars[2].values == pytest.approx(expected)
    assert analysis.values["variance"]["snn_sam"]["spike2"]["mean"] == pytest.approx(expected[1])
    assert analysis.conditions["n"] == 8 and analysis.conditions["timesteps"] == 4
    first = grids[0]
    assert isinstance(first, Pictures) and len(first.pictures) == 3
    column = first.columns.index("float SAM, t=4")
    shown = first.pictures[1][column]
    assert shown is not None and torch.tensor(shown.values[0]) == pytest.approx(maps["spike1"][3, 1].numpy(), abs=1e-3)
    assert isinstance(over_time, Pictures) and over_time.columns == ("t = 2", "t = 3", "t = 4")


def test_the_same_spikes_give_the_same_maps(run: Path) -> None:
    """A float network in place of a deployed one that fires just so."""
    subject = subject_of(run, images=4)
    analysis = heatmaps(subject)
    share = analysis.values["deployed_equal_share"]
    difference = analysis.values["deployed_difference"]
    assert 0 < share["spike1"] <= 1 and (share["spike1"] == 1) == (difference["spike1"] == 0)
    assert any("deployed network's spikes" in sentence for sentence in analysis.found)


def test_without_deployment(run: Path) -> None:
    without_deployment(run)
    analysis = checked(heatmaps(subject_of(run, images=3)))
    assert any("no deployed network" in note for note in analysis.notes)
    assert set(analysis.values) == {"variance"}
    assert "backend" not in analysis.conditions


def test_colour_images_and_more_layers(run: Path) -> None:
    analysis = checked(heatmaps(own_run(run, TWO_LAYERS)))
    picture = analysis.charts[0].pictures[0][0]  # type: ignore[union-attr]
    assert picture is not None and len(picture.values) == 3 and len(picture.values[0]) == 8


def silenced(run: Path, names: tuple[str, ...]) -> Subject:
    subject = own_run(run, TWO_LAYERS)
    with torch.no_grad():
        for name in names:
            subject.snn.neurons()[name].threshold.fill_(1e9)
    return subject


def test_a_layer_that_never_spikes_has_zero_maps_and_a_note(run: Path) -> None:
    analysis = checked(heatmaps(silenced(run, ("b_spike",))))
    assert analysis.values["variance"]["snn_sam"]["b_spike"] == {"mean": 0, "low": 0, "high": 0}
    assert analysis.values["variance"]["snn_sam"]["a_spike"]["mean"] > 0
    assert "float SAM: of 6 images, this many have a map that is zero everywhere: 6 in b_spike." in analysis.notes
    # Behind the silent layer no gradient is left for the first one's Grad-CAM.
    assert (
        "vary more than SNN Grad-CAM's in 1, less in 0, and no differently beyond the interval in 1"
        in analysis.found[0]
    )


def test_no_spikes_at_all(run: Path) -> None:
    analysis = checked(heatmaps(silenced(run, ("a_spike", "b_spike"))))
    assert "6 in a_spike, 6 in b_spike" in " ".join(analysis.notes)
    assert "more than SNN Grad-CAM's in 0" in analysis.found[0]


@pytest.mark.parametrize(("sam", "empty"), [("paper", True), ("code", False)])
def test_one_timestep(run: Path, sam: str, empty: bool) -> None:
    analysis = checked(heatmaps(own_run(run, TWO_LAYERS, time_steps=1, sam=sam)))
    assert (analysis.values["variance"]["snn_sam"]["a_spike"]["mean"] == 0) == empty
    assert any("With one timestep" in note for note in analysis.notes) == empty


def test_one_image_has_no_interval(run: Path) -> None:
    analysis = checked(heatmaps(own_run(run, TWO_LAYERS, images=1)))
    found = analysis.values["variance"]["snn_sam"]["a_spike"]
    assert found["mean"] > 0 and found["low"] is None and found["high"] is None
    assert "beyond the interval in 2" in analysis.found[0]


def test_constant_images(run: Path) -> None:
    subject = own_run(run, TWO_LAYERS, images=2)
    subject.test.pixels.fill_(0.5)
    checked(heatmaps(subject))


def test_gamma_and_variant_are_read(run: Path) -> None:
    subject = own_run(run, TWO_LAYERS, time_steps=8)
    values = []
    for options in (
        AnalyseOptions(images=6),
        AnalyseOptions(images=6, gamma=0.0),
        AnalyseOptions(images=6, sam="code"),
    ):
        subject.options = options
        values.append(heatmaps(subject).values["variance"]["snn_sam"]["a_spike"]["mean"])
    assert len(set(values)) == 3


def test_steps_and_layers_shown() -> None:
    assert shown_steps(1, 3) == [0]
    assert shown_steps(2, 3) == [1]
    assert shown_steps(8, 1) == [7]
    assert shown_steps(30, 4) == [1, 10, 20, 29]
    assert shown_layers(("a",), 3) == ("a",)
    assert shown_layers(tuple("abcdefg"), 3) == ("a", "d", "g")


def test_pictures_of_one_two_and_three_channels() -> None:
    for channels, planes in ((1, 1), (2, 1), (3, 3), (4, 1)):
        pixels = torch.rand(channels, 2, 3)
        picture = image_picture(pixels)
        assert len(picture.values) == planes and picture.look == "image"
        over = map_picture(torch.rand(4, 4), pixels)
        assert over.look == "heat" and len(over.under) == 1
        assert over.under[0][1][2] == pytest.approx(float(pixels[:, 1, 2].mean()), abs=1e-3)
