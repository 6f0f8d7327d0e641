"""The `hardspike` command as a user meets it: a whole small run, each stage, mistakes, and Ctrl-C."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_run import TINY_RECIPE

from hardspike.cli import COMMANDS, main
from hardspike.snn.checkpoint import load_network

Invoke = Callable[..., tuple[int, str, str]]


@pytest.fixture
def hardspike(capfd: pytest.CaptureFixture[str]) -> Invoke:
    def invoke(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        output = capfd.readouterr()
        return int(ended.value.code or 0), output.out, output.err

    return invoke


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the tiny recipe, made once by the command itself in a process of its own."""
    root = tmp_path_factory.mktemp("finished")
    (root / "tiny.toml").write_text(TINY_RECIPE, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "hardspike", "run", "tiny.toml"], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "report: runs/tiny/report.html" in done.stdout and "tiny: accuracy on 12 test images, seed 0" in done.stdout
    for stage in (
        "train",
        "convert",
        "deploy",
        "verify",
        "attack deployed eps 0.1",
        "replay on emulator",
        "control network",
    ):
        assert f"{stage}: done in" in done.stderr, stage
    return root


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished / "runs", tmp_path / "runs")
    return tmp_path / "runs" / "tiny"


def _times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}


def test_a_finished_run_is_not_run_again(hardspike: Invoke, run: Path) -> None:
    before = _times(run)
    code, out, _ = hardspike("run", run, "--quiet")
    assert code == 0 and "report:" in out
    assert _times(run) == before and len(before) > 10


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


def test_a_changed_recipe_is_refused_then_adopted(hardspike: Invoke, run: Path) -> None:
    recipe = run.parent / "tiny.toml"
    recipe.write_text(TINY_RECIPE.replace("images = 12", "images = 8"), encoding="utf-8")
    before = _times(run)
    code, _, err = hardspike("run", recipe, "--out", run.parent)
    assert code == 2 and "made with another recipe (attack.images = 12 there, 8 here)" in err
    assert _times(run) == before
    code, out, _ = hardspike("run", recipe, "--out", run.parent, "--update", "--quiet")
    assert code == 0 and "accuracy on 8 test images" in out
    after = _times(run)
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


def test_redo_does_the_work_again_to_the_same_bits(hardspike: Invoke, run: Path) -> None:
    weights = load_network(run / "ann.safetensors").state_dict()
    assert _epochs(run, "train") == 2
    code, _, err = hardspike("train", run, "--redo", "--json")
    assert code == 0, err
    assert _epochs(run, "train") == 4
    again = load_network(run / "ann.safetensors").state_dict()
    assert all(bool((again[name] == value).all()) for name, value in weights.items())
    before = _times(run / "adversarial")
    for stage in ("convert", "deploy"):
        assert hardspike(stage, run, "--quiet")[0] == 0
    assert hardspike("attack", run, "--redo", "--quiet")[0] == 0
    assert not set(before.items()) & set(_times(run / "adversarial").items())


def test_an_updated_training_field_trains_again(hardspike: Invoke, run: Path) -> None:
    recipe = run.parent / "tiny.toml"
    changed = TINY_RECIPE.replace("epochs = 2", "epochs = 3") + "[deploy]\nenabled = false\n"  # deploying takes long
    recipe.write_text(changed, encoding="utf-8")
    code, _, err = hardspike("run", recipe, "--out", run.parent, "--update", "--quiet")
    assert code == 0, err
    assert _epochs(run, "train") == 2 + 3 and _epochs(run, "convert") == 1 + 1


def test_a_smaller_replay_does_not_replace_the_recipes_own(hardspike: Invoke, run: Path) -> None:
    before = _times(run / "traces" / "emulator")
    code, out, _ = hardspike("replay", run, "--images", "3", "--json")
    assert code == 0 and {entry["images"] for entry in json.loads(out)} == {3}
    assert _times(run / "traces" / "emulator") == before
    assert hardspike("replay", run, "--images", "0")[0] == 2


def test_another_evaluation_stays_beside_the_recipes_and_continues(hardspike: Invoke, run: Path) -> None:
    before = _times(run / "adversarial")
    options = ("--members", "fgsm", "pgd2@ann", "sa-pgd2/assg", "--eps", "8/255", "--targets", "quantised", "deployed")
    code, out, err = hardspike("attack", run, *options, "--images", "5", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert [(one["target"], one["eps"], one["images"]) for one in found["sets"]] == [
        ("quantised", 8 / 255, 5),
        ("deployed", 8 / 255, 5),
    ]
    for one in found["sets"]:
        names = list(one["after_each_attack"])
        assert names[:2] == ["fgsm", "pgd2@ann"] and re.fullmatch(r"sa-pgd2/assg:0\.\d+", names[2])
        assert one["robust_accuracy_low"] <= one["robust_accuracy"] == one["after_each_attack"][names[2]]
        assert len(one["checks"]) == 9 and all(check["link"].startswith("docs/attacks.md#") for check in one["checks"])
    (whole,) = found["deployed"]
    assert whole["robust_accuracy"] <= min(found["sets"][1]["robust_accuracy"], *whole["under_attacks_on"].values())
    assert set(whole["breaks_only_deployed"]) == {"quantised", "deployed"}
    label = next(path for path in (run / "adversarial").iterdir() if path.is_dir())
    made = _times(label)
    after = {path: time for path, time in _times(run / "adversarial").items() if path in before}
    assert len(made) == 2 and after == before
    code, out, _ = hardspike("attack", run, *options, "--images", "5")
    assert code == 0 and "adversarial sets:" in out and "interval" in out
    assert _times(label) == made, "what is there is not made again"
    one, other = sorted(label.glob("*.safetensors"))
    shutil.copy(one, other)  # as if the other network had been deployed anew
    code, _, err = hardspike("attack", run, *options, "--images", "5", "--quiet")
    assert code == 1 and "was made with another model" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--suite", "strnog"), "attack.suite = 'strnog' is not allowed; choose from fast, standard, strong"),
        (("--eps", "8/0"), "eps = '8/0' is not allowed; write a number or a fraction, e.g. 0.1 or 8/255"),
        (("--eps", "2"), "attack.eps = (2.0,) is not allowed; give values in (0, 1)"),
        (("--members", "pgd"), "pgd takes its number of steps"),
        (("--members", "sa-pgd5", "--norm", "l2"), "'sa-pgd5' has no form for norm = 'l2'"),
        (("--members", "pgd5@twin"), "transfer from ann, snn, quantised, deployed, e.g. pgd20@ann"),
        (("--targets", "chip"), "choose from ann, snn, quantised, deployed"),
        (("--backend", "lava"), "backend = 'lava' is not allowed; it has no gradient"),
        (("--backend", "moon"), "backend = 'moon' is not allowed; use emulator, lava, loihi2"),
        (("--suite", "strong", "--redo"), "--redo is of the recipe's own evaluation"),
    ],
)
def test_attack_options_out_of_range(hardspike: Invoke, run: Path, options: tuple[str, ...], message: str) -> None:
    code, _, err = hardspike("attack", run, *options)
    assert code == 2 and message in err and "Traceback" not in err


def test_certificates_and_attacks_agree(hardspike: Invoke, run: Path) -> None:
    code, out, err = hardspike(
        "certify", run, "--eps", "0.2/255", "26/255", "--smoothing", "0.1", "--images", "2", "--json"
    )
    assert code == 0, err
    small, large = json.loads(out)["budgets"]
    assert 0 <= large["certified_accuracy"] <= small["certified_accuracy"] <= small["clean_accuracy"]
    for name, spikes in small["spikes_per_image"].items():
        assert large["spikes_per_image"][name]["low"] <= spikes["low"] <= spikes["high"]
    assert json.loads(out)["smoothing"][0]["sigma"] == 0.1
    assert (run / "certificates" / "certificates.json").is_file()
    code, _, err = hardspike("certify", run, "--eps", "1.5", "--quiet")
    assert code == 2 and "give values in (0, 1)" in err


def test_corruptions_of_a_run(hardspike: Invoke, run: Path) -> None:
    arguments = (
        "--names",
        "fog",
        "gaussian_noise",
        "--severities",
        "1",
        "5",
        "--images",
        "6",
        "--targets",
        "snn",
        "deployed",
    )
    code, out, err = hardspike("corrupt", run, *arguments, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert set(found) == {"snn", "deployed"} and set(found["snn"]["accuracy"]) == {"fog", "gaussian_noise"}
    code, out, _ = hardspike("corrupt", run, *arguments)
    assert code == 0 and "mean without noise" in out
    code, _, err = hardspike("corrupt", run, "--names", "frog")
    assert code == 2 and "did you mean 'fog'" in err


def test_energy_of_a_run(hardspike: Invoke, run: Path) -> None:
    code, out, err = hardspike("energy", run, "--eps", "0.1", "--steps", "3", "--images", "4", "--json")
    assert code == 0, err
    (found,) = json.loads(out)
    sets = {one["name"]: one for one in found["sets"]}
    assert {"clean", "energy attack", "energy attack, class kept", "accuracy attack", "noise 1", "ones"} <= set(sets)
    assert sets["clean"]["synaptic_operations"]["ratio"]["mean"] == 1
    assert sets["energy attack, class kept"]["class_kept"] == 1
    free, kept, noise = (
        sets[name]["synaptic_operations"]["mean"] for name in ("energy attack", "energy attack, class kept", "noise 1")
    )
    assert free >= kept > sets["clean"]["synaptic_operations"]["mean"] and free > noise
    assert set(sets["energy attack"]["energy_j"]) == {"davies2018", "sanafe"} and sets["energy attack"]["time_s"]
    assert (run / "energy" / "eps0.1.safetensors").is_file()
    code, out, _ = hardspike("energy", run, "--eps", "26/255", "--steps", "1", "--images", "2")
    assert code == 0 and "busiest" in out


def test_faults_of_a_run(hardspike: Invoke, run: Path) -> None:
    arguments = ("--kinds", "stuck", "drift", "--rates", "0", "1", "--seeds", "0", "--images", "8", "--attack", "fgsm")
    code, out, err = hardspike("fault", run, *arguments, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["attack"] == "fgsm" and [curve["kind"] for curve in found["curves"]] == ["stuck", "drift"]
    accuracy = found["curves"][0]["accuracy"]
    assert set(accuracy) == {"clean", "replayed", "attacked"} and accuracy["attacked"][0] <= accuracy["clean"][0]
    clean = json.loads((run / "report.json").read_text())["networks"][0]["clean"]["deployed"]["value"]
    assert abs(accuracy["clean"][0][0] - clean) < 0.5 and accuracy["clean"][1][0] < 0.7, "no neuron fires any more"
    code, _, err = hardspike("fault", run, "--rates", "2", "--kinds", "stuck")
    assert code == 2 and "rate" in err


def test_a_failed_proof_fails_the_command(hardspike: Invoke, run: Path) -> None:
    rows = json.loads((run / "verify.json").read_text())
    rows[1] |= {"differing": 3, "first": "spike of spike1 step 1, sample 0, neuron (0, 0, 0): 1 instead of 0"}
    (run / "verify.json").write_text(json.dumps(rows))
    code, out, _ = hardspike("verify", run)
    assert code == 1 and "DIFFERS" in out


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


def test_ctrl_c_leaves_a_run_that_continues_to_the_same_bits(tmp_path: Path) -> None:
    """Interrupted during training, as soon as an epoch is on disk; the continued run equals the undisturbed one.

    Six epochs, so that seconds of training are left when the first one is seen.
    """
    recipe = TINY_RECIPE.split("[control.train]")[0].replace("epochs = 2", "epochs = 6", 1)
    (tmp_path / "tiny.toml").write_text(recipe, encoding="utf-8")

    def command(run: str) -> list[str]:
        return [sys.executable, "-m", "hardspike", "train", run, "--recipe", "tiny.toml", "--quiet"]

    process = subprocess.Popen(
        command("run"),
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"NO_COLOR": "1"},
        # A shell that runs the tests in the background has them ignore Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    state = tmp_path / "run" / "train.state.safetensors"
    for _ in range(3000):
        if state.exists() or process.poll() is not None:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "the same command continues" in err and "Traceback" not in err
    assert not (tmp_path / "run" / "ann.safetensors").exists()
    for run in ("run", "undisturbed"):
        assert subprocess.run(command(run), cwd=tmp_path, check=False).returncode == 0
    first = load_network(tmp_path / "undisturbed" / "ann.safetensors").state_dict()
    again = load_network(tmp_path / "run" / "ann.safetensors").state_dict()
    assert all(bool((first[name] == again[name]).all()) for name in first)
