"""The leak sweep against neurons that are simulated one by one, and networks that are changed by hand."""

from pathlib import Path

import pytest
import torch
from pytest import MonkeyPatch
from small_networks import ARCHITECTURES, build, images
from swept_runs import FLOAT_ONLY, WITHOUT_ANN, check_form, count_right, fgsm_by_hand, float_run, look, rounded_half_up

from hardspike.analyses import finetuning
from hardspike.analyses import leak_sweep as module
from hardspike.analyses.finetuning import finetuned, settings_of, with_leak
from hardspike.analyses.leak_sweep import LEAKS, AtLeak, leak_sweep, leaks_of, mean_spikes
from hardspike.analyses.shares import Share
from hardspike.attack.ball import Ball
from hardspike.attack.evaluation import member_seed
from hardspike.attack.members import parse_member
from hardspike.attack.problem import Problem, SampleDraws
from hardspike.run_folder import RunFolder
from hardspike.snn.checkpoint import load_network
from hardspike.snn.surrogate import Triangular


def spikes_by_hand(network: torch.nn.Module, pictures: torch.Tensor, leak: float) -> float:
    """u(t) = leak u(t - 1) + I(t), a spike and a reset to 0 at the threshold; neuron by neuron from the recorded currents."""
    with network.recording() as (_, currents_TB):  # type: ignore[operator]
        network(pictures)
    total = 0
    for name, current_TB in currents_TB.items():
        threshold = float(network.neurons()[name].threshold)  # type: ignore[operator]
        for course in current_TB.expand(network.time_steps, *current_TB.shape[1:]).flatten(1).T.tolist():  # type: ignore[arg-type]
            potential = 0.0
            for current in course:
                potential = leak * potential + current
                if potential >= threshold:
                    total, potential = total + 1, 0.0
    return total / len(pictures)


@pytest.mark.parametrize("leak", [1.0, 0.9, 0.3])
def test_a_leak_is_set_in_every_neuron(leak: float) -> None:
    network = build(ARCHITECTURES["padded convolution, pool, dense"])
    made, pictures = with_leak(network, leak), images(network.architecture, 5)
    assert mean_spikes(made, pictures) == spikes_by_hand(made, pictures, leak) > 0
    assert all(node.layer.neuron.leak == leak for node in made.architecture.spiking)  # type: ignore[union-attr]
    ours, theirs = made.state_dict(), network.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs if not name.endswith(".leak"))
    assert all(float(neuron.leak) == 1.0 for neuron in network.neurons().values()), "the run's network was changed"
    assert not made.training and made.time_steps == network.time_steps


def test_the_networks_own_leak_is_among_them() -> None:
    plain = build(ARCHITECTURES["dense only"])
    assert leaks_of(plain) == LEAKS
    assert leaks_of(with_leak(plain, 0.7)) == (*LEAKS, 0.7)
    assert leaks_of(build(ARCHITECTURES["leaky"])) == LEAKS, "its layers differ: none is the network's own"


def test_every_number_of_the_run_by_hand(run: Path, monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAKS", (1.0, 0.8))
    subject = look(RunFolder.open(run), 6, epochs=0)
    found = leak_sweep(subject)
    check_form(found)
    pictures, labels = subject.test.images, subject.test.labels
    ann, ball = load_network(subject.folder.ann), Ball.around(pictures, 0.1, grid=255)
    draws = {name: SampleDraws(member_seed(0, name), torch.arange(6)) for name in ("pgd7+last", module.WHITE_BOX)}
    single = fgsm_by_hand(ann, pictures, labels, 0.1, 255, Triangular(1.0))
    strong = parse_member("pgd7+last").perturb(Problem(model=ann, labels=labels, ball=ball, draws=draws["pgd7+last"]))
    for leak in (1.0, 0.8):
        network = load_network(subject.folder.snn)
        for neuron in network.neurons().values():
            neuron.leak.data.fill_(leak)
        problem = Problem(model=network, labels=labels, ball=ball, draws=draws[module.WHITE_BOX])
        own = ball.rounded(parse_member(module.WHITE_BOX).perturb(problem))
        values = found.values[f"leak {leak:g}"]
        clean = rounded_half_up(pictures, 255)
        assert values["clean"]["share"] == count_right(network, clean, labels) / 6
        assert values["black box, FGSM"]["share"] == count_right(network, single, labels) / 6
        assert values["black box, PGD"]["share"] == count_right(network, ball.rounded(strong), labels) / 6
        assert values["white box"]["share"] == count_right(network, own, labels) / 6
        assert values["mean spikes per image"] == pytest.approx(spikes_by_hand(network, clean, leak), abs=1.0)
    assert found.conditions["finetuning"] == "none" and any(
        note.startswith("Nothing was trained") for note in found.notes
    )


@pytest.mark.slow
def test_networks_are_finetuned_as_the_recipe_does(run: Path, monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAKS", (0.8,))
    monkeypatch.setattr(finetuning, "TRAIN_IMAGES", 128)
    subject = look(RunFolder.open(run), 4)
    before = {name: value.clone() for name, value in subject.snn.state_dict().items()}
    found = leak_sweep(subject)
    check_form(found)
    assert list(found.values) == ["leak 1", "leak 0.8"] and found.conditions["finetuning"] == "robust_kl"
    assert all(torch.equal(before[name], value) for name, value in subject.snn.state_dict().items())
    made = finetuned(subject, with_leak(subject.snn, 0.8), settings_of(subject))
    assert {round(float(neuron.leak), 6) for neuron in made.neurons().values()} == {0.8}
    trained = made.state_dict()
    assert not torch.equal(trained["layers.dense4.weight"], before["layers.dense4.weight"])
    clean = rounded_half_up(subject.test.images, 255)
    assert found.values["leak 0.8"]["clean"]["share"] == count_right(made, clean, subject.test.labels) / 4
    assert found.values["leak 0.8"]["mean spikes per image"] == mean_spikes(made, clean)


def test_training_sees_no_test_image(run: Path, monkeypatch: MonkeyPatch) -> None:
    subject = look(RunFolder.open(run), 4)
    first = finetuning.limited(subject.splits)
    assert len(first.train) == min(finetuning.TRAIN_IMAGES, len(subject.splits.train))
    assert settings_of(subject).score_images == 1 and settings_of(subject).epochs == 1
    longer = settings_of(look(subject.folder, 4, epochs=3))
    assert longer.score_images == subject.folder.recipe.convert.score_images and longer.epochs == 3
    blank = look(subject.folder, 4)
    blank.splits.test.pixels.zero_()
    monkeypatch.setattr(finetuning, "TRAIN_IMAGES", 64)
    one, other = (finetuned(s, s.snn, settings_of(s, "natural")).state_dict() for s in (subject, blank))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_silent_network_and_one_image(tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAKS", (1.0, 0.8))
    subject = look(float_run(tmp_path / "silent", FLOAT_ONLY), 1, epochs=0)
    for neuron in subject.snn.neurons().values():
        neuron.threshold.data.fill_(1e6)
    found = leak_sweep(subject)
    check_form(found)
    assert found.values["leak 1"]["mean spikes per image"] == 0
    assert "At leak 1 no neuron fires." in found.notes and "At leak 0.8 no neuron fires." in found.notes


def test_without_an_ann(tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAKS", (1.0, 0.8))
    found = leak_sweep(look(float_run(tmp_path / "direct", WITHOUT_ANN), 2, epochs=0))
    check_form(found)
    assert any("has no ANN" in note for note in found.notes)
    assert [one.name for one in found.charts[0].lines][1] == "FGSM from the run's SNN"  # type: ignore[union-attr]


def test_sentences_fall_both_ways() -> None:
    def at(leak: float, attacked: int) -> AtLeak:
        share = Share.of_flags(torch.arange(100) < attacked)
        return AtLeak(leak, share, {"FGSM": share, "PGD": share}, share, 1234.4)

    said = module._found([at(1.0, 30), at(0.95, 90), at(0.9, 28)])
    assert "Leak 0.95 against 1: black-box FGSM rises from 30.0 % to 90.0 %; " in said[0]
    assert "white box falls from 30.0 % to 28.0 % (within the intervals)" in said[1]
    assert said[2] == "Spikes per image: 1,234 at leak 1, 1,234 at leak 0.95, 1,234 at leak 0.9."
