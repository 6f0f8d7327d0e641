"""The training loop learns, resumes bit for bit after a stop, and refuses a state that is not its own."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_networks import FLAT, block, image

from hardspike.snn.architecture import Dense, chain
from hardspike.snn.data import DataSettings, ImageSet, Splits, load_dataset
from hardspike.snn.errors import FileError
from hardspike.snn.network import SpikingNetwork
from hardspike.train.loop import fit
from hardspike.train.settings import FitSettings

TINY = chain(image(1, 8, 8), [*FLAT, *block("a", Dense(out_features=24)), ("out", Dense(out_features=10, bias=True))])


def _few(data: ImageSet) -> ImageSet:
    return data.first(200)


def _splits() -> Splits:
    digits = load_dataset(DataSettings())
    return Splits(_few(digits.train), _few(digits.validation), _few(digits.test))


def _network(time_steps: int | None) -> SpikingNetwork:
    net = SpikingNetwork(TINY, time_steps)
    for neuron in net.neurons().values():
        neuron.threshold.requires_grad_(True)
    return net


def _fit(net: SpikingNetwork, path: Path, epochs: int, on_epoch: Any = None, **settings: Any) -> list[dict[str, Any]]:
    seen: list[dict[str, Any]] = []
    chosen = FitSettings(**({"epochs": epochs, "learning_rate": 0.05, "batch_size": 32} | settings))
    fit(net, _splits(), chosen, seed=0, state_path=path, identity="me", on_epoch=on_epoch or seen.append)
    return seen


class _Killed(Exception):
    pass


@pytest.mark.parametrize(
    ("time_steps", "settings"),
    [
        (None, {"objective": "natural", "optimiser": "adam", "augment": "crop_flip_cutout"}),
        (None, {"objective": "adversarial", "attack": ("pgd2",)}),
        (4, {"objective": "robust_kl"}),
        (4, {"objective": "adversarial", "attack": ("fgsm/backward-rate", "rfgsm"), "orthogonal": 0.004}),
        (4, {"objective": "hire", "hire_step": 0.05}),
    ],
    ids=["natural ANN, Adam, augmented", "adversarial ANN", "robust SNN", "SNN-RAT", "HIRE-SNN"],
)
def test_a_killed_training_continues_to_the_same_bits(
    tmp_path: Path, time_steps: int | None, settings: dict[str, Any]
) -> None:
    whole = _network(time_steps)
    metrics = _fit(whole, tmp_path / "whole", 3, **settings)

    def kill_after_two(values: dict[str, Any]) -> None:
        if values["epoch"] == 2:
            raise _Killed

    with pytest.raises(_Killed):
        _fit(_network(time_steps), tmp_path / "parts", 3, kill_after_two, **settings)
    resumed = _network(time_steps)
    rest = _fit(resumed, tmp_path / "parts", 3, **settings)
    assert [m["epoch"] for m in rest] == [3] and rest[0] == metrics[2]
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert not resumed.training


def test_training_learns(tmp_path: Path) -> None:
    metrics = _fit(_network(4), tmp_path / "s", 12)
    assert metrics[-1]["loss"] < 0.5 * metrics[0]["loss"]
    assert max(m["validation_accuracy"] for m in metrics) > 0.75


def test_the_best_epoch_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.2, 0.9, 0.4])
    states = []

    def score(epochs: Any) -> dict[str, float]:
        states.append({k: v.clone() for k, v in epochs.network.state_dict().items()})
        return {"validation_accuracy": 0.0, "score": next(scores)}

    monkeypatch.setattr("hardspike.train.loop._Epochs.score", score)
    net = _network(None)
    _fit(net, tmp_path / "s", 3)
    assert all(torch.equal(value, states[1][name]) for name, value in net.state_dict().items())


def test_the_state_of_another_training_is_refused(tmp_path: Path) -> None:
    _fit(_network(None), tmp_path / "s", 1)
    with pytest.raises(FileError, match="is the state of another training; delete it to start anew"):
        fit(
            _network(None),
            _splits(),
            FitSettings(epochs=1),
            seed=0,
            state_path=tmp_path / "s",
            identity="another",
            on_epoch=lambda _: None,
        )
