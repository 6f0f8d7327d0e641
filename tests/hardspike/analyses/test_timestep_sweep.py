"""Timesteps x input bits against networks that are run step by step, on images that are rounded pixel by pixel."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pytest import MonkeyPatch
from swept_runs import (
    FLOAT_ONLY,
    PER_STEP,
    POISSON,
    WITHOUT_ANN,
    check_form,
    count_right,
    fgsm_by_hand,
    float_run,
    look,
    rounded_half_up,
)
from torch import Tensor

from hardspike.analyses import finetuning
from hardspike.analyses.finetuning import finetuned, settings_of, with_time_steps
from hardspike.analyses.timestep_sweep import at_bits, steps_of, timestep_sweep
from hardspike.attack.gradient import Logits
from hardspike.run_folder import RunFolder
from hardspike.snn.checkpoint import load_network
from hardspike.snn.errors import SettingsError
from hardspike.snn.network import SpikingNetwork
from hardspike.snn.surrogate import Triangular


def rounded(images: Tensor, bits: int | None) -> Tensor:
    if bits is None:
        return images
    made, top = images.clone(), 2**bits - 1
    for at in np.ndindex(*images.shape):
        made[at] = round(float(images[at] * top)) / top
    return made


def step_by_step(network: SpikingNetwork, steps: int) -> Logits:
    """The mean output of `steps` forward passes of one step each, every one from the potentials the last left."""
    network.set_time_steps(1)

    def logits(images: Tensor) -> Tensor:
        with network.carrying():
            return torch.stack([network(images) for _ in range(steps)]).mean(0)

    return logits


def test_numbers_of_timesteps() -> None:
    assert steps_of(8, (0.25, 0.5, 1.0, 2.0, 4.0)) == (2, 4, 8, 16, 32)
    assert steps_of(1, (0.25, 0.5, 1.0, 2.0)) == (1, 2)
    assert steps_of(3, (0.5, 1.0)) == (2, 3)


def test_bits_are_rounded_before_the_network() -> None:
    images = torch.rand(2, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    for bits in (1, 2, 4, 8):
        assert torch.equal(at_bits(images, bits), rounded(images, bits))
    assert at_bits(images, None) is images


@pytest.mark.slow
def test_every_number_of_the_run_by_hand(run: Path) -> None:
    subject = look(RunFolder.open(run), 4, epochs=0)
    found = timestep_sweep(subject)
    check_form(found)
    images, labels = subject.test.images, subject.test.labels
    ann = load_network(subject.folder.ann)
    attacked = fgsm_by_hand(ann, images, labels, 0.1, 255, Triangular(1.0))
    clean = rounded_half_up(images, 255)
    names = {"ANN": ann} | {f"T = {T}": step_by_step(load_network(subject.folder.snn), T) for T in (1, 2, 4, 8, 16)}
    assert list(found.values) == list(names)
    for name, model in names.items():
        for kind, shown in (("clean", clean), ("attacked", attacked)):
            for text, bits in (("2 bits", 2), ("4 bits", 4), ("8 bits", 8), ("as they are", None)):
                expected = count_right(model, rounded(shown, bits), labels) / 4
                assert found.values[name][kind][text]["share"] == expected, (name, kind, text)
    assert subject.snn.time_steps == 4, "the run's network was changed"
    assert any(note.startswith("Nothing was trained") for note in found.notes)
    matrix = found.charts[1]
    assert (
        matrix.rows == tuple(names) and matrix.values[0][3] == found.values["ANN"]["attacked"]["as they are"]["share"]
    )  # type: ignore[union-attr]


def test_finetuned_networks_are_rows_of_their_own(run: Path, monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(finetuning, "TRAIN_IMAGES", 128)
    subject = look(RunFolder.open(run), 4)
    found = timestep_sweep(subject)
    check_form(found)
    trained = {name: values for name, values in found.values.items() if "finetuned" in name}
    assert list(trained) == ["T = 2, finetuned", "T = 4, finetuned", "T = 8, finetuned"]
    again = finetuned(subject, with_time_steps(subject.snn, 8), settings_of(subject, "natural"))
    right = count_right(again, rounded_half_up(subject.test.images, 255), subject.test.labels)
    assert trained["T = 8, finetuned"]["clean"]["as they are"]["share"] == right / 4
    assert any("finetuned at each T" in text for text in found.found)


def test_norms_per_step_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"made for 3 timesteps alone.*use a run with network\.norm") as refused:
        timestep_sweep(look(float_run(tmp_path / "bntt", PER_STEP), 2))
    assert "\n" not in str(refused.value)


def test_without_an_ann_images_come_from_the_network_itself(tmp_path: Path) -> None:
    found = timestep_sweep(look(float_run(tmp_path / "direct", WITHOUT_ANN), 2, epochs=0))
    check_form(found)
    assert "ANN" not in found.values and any("has no ANN" in note for note in found.notes)
    assert found.conditions["attack"] == "fgsm on the float SNN of the run"


def test_random_spikes_are_repeatable(tmp_path: Path) -> None:
    subject = look(float_run(tmp_path / "poisson", POISSON), 2, epochs=0)
    assert timestep_sweep(subject).values == timestep_sweep(subject).values


def test_one_timestep_and_one_constant_image(tmp_path: Path) -> None:
    table = FLOAT_ONLY | {"convert": FLOAT_ONLY["convert"] | {"time_steps": 1}}
    subject = look(float_run(tmp_path / "one", table), 1, epochs=0)
    subject.test.pixels.zero_()
    found = timestep_sweep(subject)
    check_form(found)
    assert list(found.values) == ["ANN", "T = 1", "T = 2", "T = 4"]
