"""How far attacks move maps: against the distances written out, and with attacks that each network meets itself."""

from pathlib import Path

import pytest
import torch
from explained_runs import TWO_LAYERS, checked, own_run, subject_of, without_deployment

from hardspike.analyses.explanations import METHODS, explain
from hardspike.analyses.stability import stability
from hardspike.attack.evaluation import interval, predict
from hardspike.deploy.report.chart import BarChart, LineChart, Pictures

LAYERS = ("spike1", "spike2")


def test_distances_and_accuracies_of_a_run(run: Path) -> None:
    subject = subject_of(run, images=6, eps=0.2)
    data = subject.test
    analysis = checked(stability(subject))
    surrogate = subject.folder.recipe.last_training.surrogate
    for method in METHODS:
        attack = "fgsm" if method.network == "ann" else f"fgsm/{surrogate}"
        changed = {
            "attack": subject.attacked(attack, method.network),
            "noise": subject.attacked("noise", method.network),
        }
        clean = explain(subject, method, data.images, data.labels, LAYERS)
        for kind, images in changed.items():
            found = explain(subject, method, images, data.labels, LAYERS)
            for name in LAYERS:
                expected, over_time = [], []
                for row in range(6):
                    pairs = zip(clean.maps[name][:, row].tolist(), found.maps[name][:, row].tolist(), strict=True)
                    by_step = [
                        sum(abs(a - b) for x, y in zip(one, two, strict=True) for a, b in zip(x, y, strict=True))
                        / clean.maps[name][0, row].numel()
                        for one, two in pairs
                    ]
                    expected.append(max(by_step))
                    over_time.append(sum(by_step) / len(by_step))
                values = analysis.values["distance"][method.key][kind][name]
                assert values["mean"] == pytest.approx(sum(expected) / 6, abs=1e-9)
                assert values["mean_over_time"] == pytest.approx(sum(over_time) / 6, abs=1e-9)
        share = float((predict(subject.logits(method.network), changed["attack"]) == data.labels).double().mean())
        accuracy = analysis.values["accuracy"][method.network]["attack"]
        assert accuracy == {"value": share, **dict(zip(("low", "high"), interval(share, 6), strict=True))}
    assert analysis.conditions["eps"] == 0.2


def test_charts_of_a_run(run: Path) -> None:
    attack, noise, accuracy, lines, example = checked(stability(subject_of(run, images=6))).charts
    assert isinstance(attack, BarChart) and isinstance(noise, BarChart) and attack.categories == LAYERS
    assert attack.bars != noise.bars
    assert (
        isinstance(accuracy, BarChart)
        and accuracy.categories == ("ANN", "float SNN", "deployed network")
        and accuracy.percent
    )
    assert isinstance(lines, LineChart)
    ann, *spiking = lines.lines
    assert ann.dashed and ann.x == (1, 4) and ann.y[0] == ann.y[1]
    assert all(line.x == (1, 2, 3, 4) and line.low and line.high for line in spiking)
    assert isinstance(example, Pictures) and len(example.rows) == 4


def test_without_deployment(run: Path) -> None:
    without_deployment(run)
    values = checked(stability(subject_of(run, images=3))).values
    assert set(values["accuracy"]) == {"ann", "snn"} and "deployed_sam" not in values["distance"]


def test_the_example_is_an_image_that_the_attack_fools(run: Path) -> None:
    subject = subject_of(run, images=60, eps=0.1)
    surrogate = subject.folder.recipe.last_training.surrogate
    logits = subject.logits("snn")
    right = predict(logits, subject.test.images) == subject.test.labels
    still_right = predict(logits, subject.attacked(f"fgsm/{surrogate}", "snn")) == subject.test.labels
    fooled = right & ~still_right
    assert bool(fooled.any() & (right & still_right).any() & (~right).any())
    # First one that withstands, then one that is wrong without an attack.
    order = torch.cat([(right & still_right).nonzero()[:1], (~right).nonzero()[:1], fooled.nonzero()]).flatten()
    subject.test, fooled = subject.test.select(order), fooled[order]
    row = int(fooled.nonzero()[0])
    example = stability(subject).charts[-1]
    assert isinstance(example, Pictures) and example.pictures[2][0] is not None
    shown = torch.tensor(example.pictures[2][0].values)
    assert torch.allclose(shown, subject.test.images[row], atol=1e-3)
    assert example.pictures[2][0].note == f"predicted {int(subject.test.labels[row])}"


def test_a_dead_network_is_not_called_stable(run: Path) -> None:
    subject = own_run(run, TWO_LAYERS)
    with torch.no_grad():
        for neuron in subject.snn.neurons().values():
            neuron.threshold.fill_(1e9)
    subject.networks._loaded["snn"] = subject.snn
    analysis = checked(stability(subject))
    assert analysis.values["distance"]["snn_sam"]["attack"]["b_spike"]["mean"] == 0
    assert (
        "There are no maps of b_spike to compare of SNN Grad-CAM, float SAM: they are zero everywhere."
        in analysis.found
    )
    assert not any("Compared with the ANN" in sentence for sentence in analysis.found)


@pytest.mark.parametrize("images", [1, 3])
def test_one_image_and_one_timestep(run: Path, images: int) -> None:
    analysis = checked(stability(own_run(run, TWO_LAYERS, images=images, time_steps=1, sam="code")))
    assert (analysis.values["distance"]["snn_sam"]["attack"]["a_spike"]["low"] is None) == (images == 1)
