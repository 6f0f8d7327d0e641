"""Stage `deploy` with finetuning of the integers: what is kept, what is said, and that it continues."""

import json
from pathlib import Path

import pytest
import torch
from tiny_run import Invoke, times

from hardspike import pipeline
from hardspike.deploy.compile import compile_network
from hardspike.deploy.graph_file import load_graph
from hardspike.pipeline import Pipeline
from hardspike.recipe import recipe_from_table
from hardspike.run_folder import RunFolder
from hardspike.snn.checkpoint import load_network
from hardspike.snn.errors import SettingsError
from hardspike.snn.network import SpikingNetwork
from hardspike.snn.progress import Silent

# Two batches an epoch.
TABLE = {
    "name": "three",
    "data": {"train_images": 128},
    "train": {"objective": "adversarial", "epochs": 1, "attack": ["fgsm"], "score_images": 16},
    "convert": {"epochs": 1, "calibration_steps": 2, "calibration_batches": 1, "time_steps": 3, "score_images": 16},
    "deploy": {"weight_bits": 3, "scale": "search", "finetune_epochs": 2},
    "attack": {"targets": ["deployed"]},
}


class _Stopped(Exception):
    pass


class _StopsAfterAnEpoch(Silent):
    what = ""

    def begin(self, what: str, total: int) -> None:
        self.what = what

    def advance(self, units: int = 1, note: str = "") -> None:
        if self.what == "deploy" and note.startswith("validation"):
            raise _Stopped


@pytest.mark.slow
def test_the_deployed_graph_is_the_finetuned_networks(
    tmp_path: Path, hardspike: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The converted network stays what it was; the stage is stopped behind an epoch and continues to the end."""
    recipe = recipe_from_table(TABLE, "here")
    folder = RunFolder.create(tmp_path / "three", recipe)
    with pytest.raises(_Stopped):
        Pipeline(folder, _StopsAfterAnEpoch()).run(("train", "convert", "deploy"))
    before = times(folder.path)
    assert not folder.compiled.exists() and not folder.finished("deploy")
    Pipeline(folder).run(("train", "convert", "deploy"))
    assert times(folder.path)[folder.snn] == before[folder.snn] and folder.finished("deploy")

    finetuned, converted = load_network(folder.compiled), load_network(folder.snn)
    assert not torch.equal(finetuned.layers["conv1"].weight, converted.layers["conv1"].weight)
    graph, _ = compile_network(finetuned, recipe.deploy)
    for mine, other in zip(load_graph(folder.graph).layers, graph.layers, strict=True):
        assert (mine.synapses[0].weight == other.synapses[0].weight).all()
        assert (mine.neurons.bias == other.neurons.bias).all() and mine.neurons.threshold == other.neurons.threshold
    lines = (folder.path / "metrics.jsonl").read_text("utf-8").splitlines()
    epochs = [entry["epoch"] for entry in map(json.loads, lines) if entry["stage"] == "deploy"]
    assert epochs == [1, 2]
    assert recipe.training() == "adversarial ANN, robust_kl finetuning, robust_kl finetuning of the integers"

    code, out, _ = hardspike("deploy", folder.path)
    assert code == 0 and "3-bit weights" in out
    verified: list[SpikingNetwork] = []
    monkeypatch.setattr(pipeline, "verify_network", lambda snn, *_, **__: verified.append(snn) or [])
    Pipeline(folder).run(("verify",))
    assert torch.equal(verified[0].layers["conv1"].weight, finetuned.layers["conv1"].weight)  # type: ignore[arg-type]


def test_settings_that_cannot_be_are_refused_with_the_recipe() -> None:
    with pytest.raises(SettingsError, match="deploy.finetune_epochs: the objective 'hire' divides the timesteps"):
        recipe_from_table({"name": "a", "convert": {"objective": "hire"}, "deploy": {"finetune_epochs": 1}}, "here")
    with pytest.raises(SettingsError, match=r"here: deploy.scale = 'least' is not allowed"):
        recipe_from_table({"name": "a", "deploy": {"scale": "least"}}, "here")
    natural = recipe_from_table({"name": "a", "convert": {"epochs": 0}, "deploy": {"finetune_epochs": 1}}, "here")
    settings = natural.finetuning()
    assert settings is not None and settings.objective == natural.train.objective
    assert natural.last_training is natural.train
