"""The commands that attack, certify, corrupt and break a finished run."""

import json
import re
import shutil
from pathlib import Path

import pytest
from tiny_run import Invoke, times


@pytest.mark.slow
def test_another_evaluation_stays_beside_the_recipes_and_continues(hardspike: Invoke, run: Path) -> None:
    before = times(run / "adversarial")
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
    made = times(label)
    after = {path: time for path, time in times(run / "adversarial").items() if path in before}
    assert len(made) == 2 and after == before
    code, out, _ = hardspike("attack", run, *options, "--images", "5")
    assert code == 0 and "adversarial sets:" in out and "interval" in out
    assert times(label) == made, "what is there is not made again"
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


@pytest.mark.slow
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
