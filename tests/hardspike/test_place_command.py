"""`hardspike place`: where a finished run's network would sit, what it would cost, and what is wrong with a request."""

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
from tiny_run import Invoke

from hardspike.deploy.energy_report import EnergyReport
from hardspike.deploy.graph_file import load_graph
from hardspike.energy_run import _not_timed, _table
from hardspike.results import replayed_sets
from hardspike.run_folder import RunFolder
from hardspike.summary import _placement

PROFILES = files("hardspike.hw_profiles")


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A profile of the user's own: Loihi 1 with graded spikes, and cores of 300 neurons."""
    text = (PROFILES / "loihi1.toml").read_text(encoding="utf-8")
    text = text.replace('name = "loihi1"', 'name = "mine"').replace("{ value = 1024,", "{ value = 300,")
    path = tmp_path / "mine.toml"
    path.write_text(
        text.replace("message_bits_max = { value = 1,", "message_bits_max = { value = 8,"), encoding="utf-8"
    )
    return path


def test_a_run_is_placed_and_priced(hardspike: Invoke, run: Path, other: Path) -> None:
    code, out, err = hardspike(
        "place", run, "--images", "6", "--profiles", "loihi2", "loihi1", other, "cmos45", "--json"
    )
    assert code == 0, err
    found = json.loads(out)
    assert json.loads((run / "placement" / "placement.json").read_text(encoding="utf-8")) == found
    chips = {chip["profile"]: chip for chip in found["chips"]}
    assert {name: chip["fits"] for name, chip in chips.items()} == {"loihi2": True, "loihi1": False, "mine": True}
    assert found["images"] == 6 and found["compiled_for"] == "loihi2"
    assert "graded messages exceed 1" in chips["loihi1"]["reasons"][0]
    assert chips["mine"]["occupied"]["cores"] > chips["loihi1"]["occupied"]["cores"]
    trace = replayed_sets(RunFolder.open(run), "emulator")[0].trace
    operations = sum(float(counts[:, :6].sum()) for counts in trace.synaptic_operations.values()) / 6
    for chip in chips.values():
        events = chip["work"]["events"]
        assert events["operations"] + events["operations_convolution"] == pytest.approx(operations)
    davies, sanafe = chips["mine"]["work"]["prices"]
    assert davies["no_total"] and sanafe["total"]["sanafe"]["mean"] > sanafe["dynamic"]["mean"] > 0
    assert chips["mine"]["work"]["times"][0]["busiest_layer"] in {
        layer["layer"] for layer in chips["mine"]["occupied"]["layers"]
    }
    assert found["operations"]["ann_dense"] > found["operations"]["ann_zero_skipping"]["mean"] > 0


def test_tables_and_reasons_are_printed(hardspike: Invoke, run: Path, other: Path) -> None:
    code, out, _ = hardspike("place", run, "--images", "2")
    assert code == 0, "nothing was asked of one chip alone"
    lines = out.splitlines()
    for name in ("loihi1", "speck", "truenorth"):
        assert [line for line in lines if line.startswith(f"{name}: does not fit: layer 'input': 8-bit graded")], name
    assert [line for line in lines if line.startswith("spinnaker2: not placed: profile 'spinnaker2' says not")]
    assert "loihi2: no energy per event is public" in out and "0.232 to 2.26 mJ for every millisecond" in out
    assert "does not price barrier synchronisation, so there is no total" in out
    assert "in no price: host and input/output" in out and "placement.json" in lines[-1]
    verdicts = {
        cells[1].strip(): [cell.strip() for cell in cells] for line in lines if len(cells := line.split("│")) > 7
    }
    assert verdicts["loihi2"][2] == "yes" and verdicts["loihi1"][2] == "no"
    deployed = hardspike("deploy", run)[1]
    cores, chips = verdicts["loihi2"][3:5]
    assert f"placement: {cores} cores on {chips} chip; binding: " in deployed and f"hardspike place {run}" in deployed
    code, out, _ = hardspike("place", run, "--images", "2", "--profiles", other)
    assert code == 0 and "mine: energy of an image" in out and "mine: does not fit" not in out


def test_one_chip_that_does_not_hold_the_network_is_a_failure(hardspike: Invoke, run: Path) -> None:
    code, out, err = hardspike("place", run, "--images", "2", "--profiles", "loihi1", "--quiet")
    assert code == 1 and err == "" and "loihi1: does not fit: " in out and "loihi1: shown as if it did fit" in out
    assert hardspike("place", run, "--images", "2", "--profiles", "spinnaker2", "--quiet")[0] == 1
    assert hardspike("place", run, "--images", "2", "--profiles", "loihi1", "speck", "--quiet")[0] == 0
    assert hardspike("place", run, "--images", "2", "--profiles", "cmos45", "--quiet")[0] == 0


def test_a_deployed_network_without_a_place_says_why(run: Path, tmp_path: Path) -> None:
    folder, small = RunFolder.open(run), tmp_path / "small.toml"
    text = (PROFILES / "loihi2.toml").read_text(encoding="utf-8")
    small.write_text(text.replace("synapse_words = { value = 12000", "synapse_words = { value = 9"), encoding="utf-8")
    recipe = replace(folder.recipe, deploy=replace(folder.recipe.deploy, profile=str(small)))
    line = _placement(RunFolder(run, recipe), load_graph(folder.graph))
    assert line.startswith("none; layer '") and "synapse words, over 9 (loihi2: cores.synapse_words)" in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--profiles", "loihi3"), "hardware profile 'loihi3' is unknown; did you mean"),
        (("--profiles", "gone.toml"), "'gone.toml': No such file or directory; expected a hardware profile"),
        (("--images", "0"), "images = 0 is not allowed; use 1 or more"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    hardspike: Invoke, run: Path, options: tuple[str, ...], message: str
) -> None:
    code, _, err = hardspike("place", run, "--quiet", *options)
    assert code in (1, 2) and message in err and err.count("\n") == 1
    assert not (run / "placement").exists()


def test_a_folder_that_is_no_run(hardspike: Invoke, tmp_path: Path) -> None:
    code, _, err = hardspike("place", tmp_path)
    assert code == 1 and "is not a run folder (no recipe.toml); start one with" in err


def test_an_energy_report_without_a_placement_says_why() -> None:
    report = EnergyReport(profile="loihi1", samples=3, cores=None, sets=(), not_placed="layer 'x': too wide")
    assert _not_timed(report) == "no time of the busiest core: layer 'x': too wide"
    assert "has no cores or no time per event" in _not_timed(replace(report, not_placed=None))
    assert "None" not in str(_table(report, 0.1, 0).title) and "busiest" not in str(_table(report, 0.1, 0).title)
    assert "busiest of 4 cores" in str(_table(replace(report, cores=4), 0.1, 0).title)
