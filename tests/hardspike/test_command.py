"""The `hardspike` command as a user meets it: a whole small run, each stage, and mistakes."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_run import TINY_RECIPE, Invoke, times

from hardspike.cli import COMMANDS
from hardspike.snn.checkpoint import load_network


def test_a_finished_run_is_not_run_again(hardspike: Invoke, run: Path) -> None:
    before = times(run)
    code, out, _ = hardspike("run", run, "--quiet")
    assert code == 0 and "report:" in out
    assert times(run) == before and len(before) > 10


def test_a_run_folder_holds_what_the_readme_says(run: Path) -> None:
    for name in (
        "recipe.toml",
        "environment.json",
        "metrics.jsonl",
        "stages.json",
        "ann.safetensors",
        "snn.safetensors",
        "graph.safetensors",
        "network.net",
        "fit.json",
        "verify.json",
        "adversarial/deployed-eps0.1.safetensors",
        "traces/emulator/clean.safetensors",
        "report.json",
        "report.html",
        "control/snn.safetensors",
    ):
        assert (run / name).is_file(), name
    environment = json.loads((run / "environment.json").read_text())
    assert environment["seed"] == 0 and environment["threads"] == 1 and environment["versions"]["torch"]
    assert all(json.loads(line)["stage"] for line in (run / "metrics.jsonl").read_text().splitlines())


@pytest.mark.parametrize("stage", ["train", "convert", "deploy", "verify", "attack", "replay", "report"])
def test_each_stage_prints_json_for_machines(hardspike: Invoke, run: Path, stage: str) -> None:
    code, out, err = hardspike(stage, run, "--json")
    assert code == 0 and json.loads(out) and not err
    code, out, _ = hardspike(stage, run)
    assert code == 0 and ("│" in out or "report:" in out)


def test_results_are_consistent_between_stages(hardspike: Invoke, run: Path) -> None:
    """The report's robust accuracy is the attack's; replaying the deployed set gives no more than survived plus rounding."""
    attacks = json.loads(hardspike("attack", run, "--json")[1])
    report = json.loads((run / "report.json").read_text())
    network = report["networks"][0]
    assert {entry["target"] for entry in attacks["sets"]} == {"ann", "snn", "deployed"}
    for entry in attacks["sets"]:
        assert network["robust"][0]["white_box"][entry["target"]]["value"] == entry["robust_accuracy"]
    worst = network["robust"][0]["deployed_worst_case"]["value"]
    assert attacks["deployed"][0]["robust_accuracy"] == worst
    assert worst <= min(r["accuracy"]["deployed"]["value"] for r in network["replay"] if r["kind"] != "noise")
    assert [row["verdict"] for row in network["equalities"][:2]] == ["equal", "equal"]
    assert [n["name"] for n in report["networks"]] == ["tiny", "control"]


def test_same_recipe_same_bits(finished: Path, tmp_path: Path, hardspike: Invoke) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(TINY_RECIPE.split("[control.train]")[0], encoding="utf-8")
    code, _, err = hardspike("train", tmp_path / "again", "--recipe", recipe, "--quiet")
    assert code == 0, err
    first = load_network(finished / "runs" / "tiny" / "ann.safetensors").state_dict()
    again = load_network(tmp_path / "again" / "ann.safetensors").state_dict()
    assert all(bool((first[name] == again[name]).all()) for name in first)


def test_stages_in_the_wrong_order_say_which_comes_first(hardspike: Invoke, run: Path) -> None:
    (run / "stages.json").unlink()
    code, _, err = hardspike("convert", run, "--quiet")
    assert code == 1 and "stage 'convert' needs 'train', which has not finished" in err and "Traceback" not in err


@pytest.mark.slow
def test_a_changed_recipe_is_refused_then_adopted(hardspike: Invoke, run: Path) -> None:
    recipe = run.parent / "tiny.toml"
    recipe.write_text(TINY_RECIPE.replace("images = 12", "images = 8"), encoding="utf-8")
    before = times(run)
    code, _, err = hardspike("run", recipe, "--out", run.parent)
    assert code == 2 and "made with another recipe (attack.images = 12 there, 8 here)" in err
    assert times(run) == before
    code, out, _ = hardspike("run", recipe, "--out", run.parent, "--update", "--quiet")
    assert code == 0 and "accuracy on 8 test images" in out
    after = times(run)
    assert after[run / "ann.safetensors"] == before[run / "ann.safetensors"]
    assert after[run / "adversarial/snn-eps0.1.safetensors"] != before[run / "adversarial/snn-eps0.1.safetensors"]


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("spoil", "arguments", "code", "message"),
    [
        (lambda run: _truncate(run / "snn.safetensors"), ("deploy", "--redo"), 1, "not a readable network file"),
        (
            lambda run: (run / "graph.safetensors").unlink(),
            ("verify", "--redo"),
            1,
            "no such file; expected a hardspike process graph",
        ),
        (
            lambda run: _truncate(run / "adversarial/ann-eps0.1.safetensors"),
            ("replay", "--redo"),
            1,
            "not a readable adversarial set",
        ),
        (
            lambda run: None,
            ("run", "--name", "other"),
            2,
            "is a run folder, which keeps its name and recipe; leave out --name",
        ),
        (lambda run: None, ("replay", "--backend", "lavva"), 2, "backend 'lavva' is unknown; did you mean 'lava'"),
        (lambda run: None, ("replay", "--backend", "loihi2"), 1, "backend 'loihi2': "),
        (
            lambda run: (run / "recipe.toml").unlink(),
            ("report",),
            1,
            "is not a run folder (no recipe.toml); start one with",
        ),
        (lambda run: (run / "recipe.toml").write_text("[train]\nx=1"), ("report",), 2, "key 'train.x' is unknown"),
        (
            lambda run: (run / "fit.json").write_text("{"),
            ("report", "--redo"),
            1,
            "not readable as the deploy stage's table",
        ),
    ],
)
def test_damage_and_mistakes_are_one_line(
    hardspike: Invoke, run: Path, spoil: Callable[[Path], Any], arguments: tuple[str, ...], code: int, message: str
) -> None:
    spoil(run)
    kept = (run / "report.html").read_bytes()
    got, _, err = hardspike(arguments[0], run, *arguments[1:], "--quiet")
    assert (got, "Traceback" in err) == (code, False), err
    assert message in err and len(err.strip().splitlines()) == 1
    assert (run / "report.html").read_bytes() == kept


@pytest.mark.parametrize(
    "arguments", [(), ("rnu",), ("run",), ("run", "x.toml", "--nme", "y"), ("replay", "x", "--images", "many")]
)
def test_bad_usage_ends_with_2(hardspike: Invoke, arguments: tuple[str, ...]) -> None:
    assert hardspike(*arguments)[0] == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_help_reads_well(hardspike: Invoke, command: str) -> None:
    code, out, _ = hardspike(command, "--help")
    assert code == 0 and f"hardspike {command}" in out and "--json" in out
    assert "{" not in out.split("options")[0]


def test_what_the_system_refuses_is_one_line(hardspike: Invoke, tmp_path: Path) -> None:
    """A file stands where the run's folder should go."""
    (tmp_path / "tiny.toml").write_text(TINY_RECIPE, encoding="utf-8")
    (tmp_path / "runs").write_text("in the way", encoding="utf-8")
    code, _, err = hardspike("run", tmp_path / "tiny.toml", "--out", tmp_path / "runs")
    assert code == 1 and "Traceback" not in err and len(err.strip().splitlines()) == 1 and "runs" in err


def _epochs(run: Path, stage: str) -> int:
    return sum(json.loads(line)["stage"] == stage for line in (run / "metrics.jsonl").read_text().splitlines())


def test_an_idle_command_leaves_the_provenance_alone(hardspike: Invoke, run: Path) -> None:
    """Numbers keep the environment they were made in, the control network's too."""
    recipe = run.parent / "tiny.toml"
    recipe.write_text(TINY_RECIPE, encoding="utf-8")
    files = [run / "environment.json", run / "control" / "environment.json"]
    for file in files:
        file.write_text(json.dumps(json.loads(file.read_text()) | {"commit": "as it was"}))
    for arguments in (("run", recipe, "--out", run.parent), ("verify", run), ("report", run, "--redo")):
        assert hardspike(*arguments, "--quiet")[0] == 0
        assert [json.loads(file.read_text())["commit"] for file in files] == ["as it was"] * 2
    assert hardspike("deploy", run, "--redo", "--quiet")[0] == 0
    assert "as it was" not in [json.loads(file.read_text())["commit"] for file in files]


@pytest.mark.slow
def test_redo_does_the_work_again_to_the_same_bits(hardspike: Invoke, run: Path) -> None:
    weights = load_network(run / "ann.safetensors").state_dict()
    assert _epochs(run, "train") == 2
    code, _, err = hardspike("train", run, "--redo", "--json")
    assert code == 0, err
    assert _epochs(run, "train") == 4
    again = load_network(run / "ann.safetensors").state_dict()
    assert all(bool((again[name] == value).all()) for name, value in weights.items())
    before = times(run / "adversarial")
    for stage in ("convert", "deploy"):
        assert hardspike(stage, run, "--quiet")[0] == 0
    assert hardspike("attack", run, "--redo", "--quiet")[0] == 0
    assert not set(before.items()) & set(times(run / "adversarial").items())


@pytest.mark.slow
def test_an_updated_training_field_trains_again(hardspike: Invoke, run: Path) -> None:
    recipe = run.parent / "tiny.toml"
    changed = TINY_RECIPE.replace("epochs = 2", "epochs = 3") + "[deploy]\nenabled = false\n"  # deploying takes long
    recipe.write_text(changed, encoding="utf-8")
    code, _, err = hardspike("run", recipe, "--out", run.parent, "--update", "--quiet")
    assert code == 0, err
    assert _epochs(run, "train") == 2 + 3 and _epochs(run, "convert") == 1 + 1


def test_a_smaller_replay_does_not_replace_the_recipes_own(hardspike: Invoke, run: Path) -> None:
    before = times(run / "traces" / "emulator")
    code, out, _ = hardspike("replay", run, "--images", "3", "--json")
    assert code == 0 and {entry["images"] for entry in json.loads(out)} == {3}
    assert times(run / "traces" / "emulator") == before
    assert hardspike("replay", run, "--images", "0")[0] == 2


def test_a_failed_proof_fails_the_command(hardspike: Invoke, run: Path) -> None:
    rows = json.loads((run / "verify.json").read_text())
    rows[1] |= {"differing": 3, "first": "spike of spike1 step 1, sample 0, neuron (0, 0, 0): 1 instead of 0"}
    (run / "verify.json").write_text(json.dumps(rows))
    code, out, _ = hardspike("verify", run)
    assert code == 1 and "DIFFERS" in out


@pytest.mark.slow
def test_the_readmes_python_runs(run: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """All its blocks, one after the other, on a small run in the demo's place."""
    shutil.copytree(run, run.parent / "digits")
    monkeypatch.chdir(run.parents[1])
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 4
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    assert Path("digits.net").is_file() and names["logits"].shape == (100, 10)
    assert "worst case" in capfd.readouterr().out
