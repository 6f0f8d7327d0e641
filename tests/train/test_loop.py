"""The training loop learns, resumes bit for bit after a stop, and refuses a state that is not its own."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_networks import FLAT, block, image

from hardspike.snn.architecture import Dense, chain
from hardspike.snn.data import ImageSet, Splits, load_dataset
from hardspike.snn.errors import FileError
from hardspike.snn.network import SpikingNetwork
from hardspike.train.loop import Optimisation, fit
from hardspike.train.objectives import Objective, adversarial, natural, robust_kl

TINY = chain(image(1, 8, 8), [*FLAT, *block("a", Dense(out_features=24)), ("out", Dense(out_features=10, bias=True))])


def _few(data: ImageSet) -> ImageSet:
    return data.first(200)


def _splits() -> Splits:
    digits = load_dataset("digits")
    return Splits(_few(digits.train), _few(digits.validation), _few(digits.test))


def _network(time_steps: int | None) -> SpikingNetwork:
    net = SpikingNetwork(TINY, time_steps)
    for neuron in net.neurons().values():
        neuron.threshold.requires_grad_(True)
    return net


def _fit(net: SpikingNetwork, objective: Objective, path: Path, epochs: int, **changes: Any) -> list[dict[str, Any]]:
    seen: list[dict[str, Any]] = []
    settings = Optimisation(epochs=epochs, learning_rate=0.05, batch_size=32, **changes.pop("settings", {}))
    fit(net, objective, _splits(), settings, state_path=path, identity="me", **({"on_epoch": seen.append} | changes))
    return seen


class _Killed(Exception):
    pass


@pytest.mark.parametrize(
    ("time_steps", "objective"),
    [(None, natural), (None, adversarial(eps=0.1, steps=2)), (4, robust_kl(eps=0.1, alpha=0.05, beta=2.0))],
    ids=["natural ANN", "adversarial ANN", "robust SNN"],
)
def test_a_killed_training_continues_to_the_same_bits(
    tmp_path: Path, time_steps: int | None, objective: Objective
) -> None:
    whole = _network(time_steps)
    metrics = _fit(whole, objective, tmp_path / "whole", 3, settings={"score_eps": 0.1})

    def kill_after_two(values: dict[str, Any]) -> None:
        if values["epoch"] == 2:
            raise _Killed

    with pytest.raises(_Killed):
        _fit(
            _network(time_steps), objective, tmp_path / "parts", 3, settings={"score_eps": 0.1}, on_epoch=kill_after_two
        )
    resumed = _network(time_steps)
    rest = _fit(resumed, objective, tmp_path / "parts", 3, settings={"score_eps": 0.1})
    assert [m["epoch"] for m in rest] == [3] and rest[0] == metrics[2]
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert not resumed.training


def test_training_learns(tmp_path: Path) -> None:
    metrics = _fit(_network(4), natural, tmp_path / "s", 12)
    assert metrics[-1]["loss"] < 0.5 * metrics[0]["loss"]
    assert max(m["validation_accuracy"] for m in metrics) > 0.75


def test_the_best_epoch_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.2, 0.9, 0.4])
    states = []

    def score(network: SpikingNetwork, splits: Splits, settings: Optimisation) -> dict[str, float]:
        states.append({k: v.clone() for k, v in network.state_dict().items()})
        return {"validation_accuracy": 0.0, "score": next(scores)}

    monkeypatch.setattr("hardspike.train.loop._score", score)
    net = _network(None)
    _fit(net, natural, tmp_path / "s", 3)
    assert all(torch.equal(value, states[1][name]) for name, value in net.state_dict().items())


def test_the_state_of_another_training_is_refused(tmp_path: Path) -> None:
    _fit(_network(None), natural, tmp_path / "s", 1)
    with pytest.raises(FileError, match="is the state of another training; delete it to start anew"):
        fit(
            _network(None),
            natural,
            _splits(),
            Optimisation(epochs=1, learning_rate=0.1),
            state_path=tmp_path / "s",
            identity="another",
            on_epoch=lambda _: None,
        )
