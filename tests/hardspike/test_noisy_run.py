"""A run whose network has noise of its own (Poisson spikes) is repeated and continued to the same bits all the same."""

import json
from pathlib import Path

import torch
from tiny_run import Invoke

from hardspike.attack.adversarial_set import load_adversarial_set
from hardspike.pipeline import Pipeline
from hardspike.recipe import recipe_from_table
from hardspike.run_folder import RunFolder
from hardspike.snn.checkpoint import load_network

TABLE = {
    "name": "noisy",
    "network": {
        "coding": "poisson",
        "normalisation": "half",
        "order": "fire-first",
        "reset": "soft",
        "dropout_dense": 0.2,
    },
    "train": {"objective": "natural", "epochs": 2},
    "convert": {
        "method": "max",
        "calibration_steps": 6,
        "calibration_batches": 1,
        "time_steps": 4,
        "objective": "natural",
        "surrogate": "linear:0.3",
        "epochs": 1,
    },
    "deploy": {"enabled": False},
    "attack": {"eps": [0.05, 0.1], "images": 24, "members": ["fgsm", "pgd2"], "targets": ["snn"]},
}


def _run(path: Path) -> RunFolder:
    folder = RunFolder.create(path, recipe_from_table(TABLE, "test"))
    Pipeline(folder).run(("train", "convert", "attack"))
    return folder


def test_two_runs_and_a_continued_attack_are_equal(tmp_path: Path) -> None:
    first, second = _run(tmp_path / "a"), _run(tmp_path / "b")
    one, two = load_network(first.snn).state_dict(), load_network(second.snn).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    whole = load_adversarial_set(first.attack_set("snn", 0.1)).evaluation
    assert torch.equal(whole.images, load_adversarial_set(second.attack_set("snn", 0.1)).evaluation.images)
    second.attack_set("snn", 0.1).unlink()  # as if it had been killed after the first budget
    Pipeline(second).attack()
    continued = load_adversarial_set(second.attack_set("snn", 0.1)).evaluation
    assert torch.equal(whole.images, continued.images) and torch.equal(whole.broken_by, continued.broken_by)


def test_a_run_that_is_not_deployed_has_a_report_with_its_analyses(hardspike: Invoke, tmp_path: Path) -> None:
    folder = _run(tmp_path / "a")
    assert not folder.report_html.exists()
    code, out, err = hardspike("analyse", "encoder", folder.path, "--images", 6, "--quiet")
    assert (code, err) == (0, ""), err
    code, out, err = hardspike("report", folder.path, "--quiet")
    assert (code, err) == (0, "") and f"report: {folder.report_html}" in out.replace("\n", ""), err
    page = folder.report_html.read_text()
    assert "Nothing was deployed" in page and "From pixel to spikes" in page
    rows = {row["name"]: row["values"][0] for row in json.loads(folder.report_json.read_text())["rows"]}
    for eps in (0.05, 0.1):
        evaluation = load_adversarial_set(folder.attack_set("snn", eps)).evaluation
        shown = rows[f"attacked, eps {eps:g}, float SNN"]
        assert shown["value"] == evaluation.robust_accuracy and shown["n"] == 24
        assert f"{100 * shown['value']:.1f} %" in page
    assert (folder.path / "figures" / "accuracy-float-snn.csv").is_file()
