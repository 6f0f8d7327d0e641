"""`hardspike compare` on finished runs: the table, the page, the files."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from tiny_run import Invoke


def test_runs_are_compared_number_by_number(hardspike: Invoke, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "comparison"
    code, told, err = hardspike("compare", run, run / "control", "--out", out)
    assert (code, err) == (0, ""), err
    assert "tiny" in told and "control" in told and f"report: {out / 'report.html'}" in told.replace("\n", "")
    found = json.loads((out / "comparison.json").read_text())
    numbers = json.loads((run / "report.json").read_text())["networks"]
    rows = {row["name"]: row["values"] for row in found["rows"]}
    for index, network in enumerate(numbers):
        assert rows["clean, deployed network"][index]["value"] == network["clean"]["deployed"]["value"]
        budget = network["robust"][0]
        worst = rows[f"attacked, eps {budget['eps']:g}, deployed network, all attacks"][index]
        assert worst["value"] == budget["deployed_worst_case"]["value"] and worst["n"] == 12
        clean = network["replay"][0]
        assert rows["spikes, clean image"][index]["value"] == pytest.approx(clean["spikes"]["mean"])
        energies = [rows[f"priced energy ({name}), clean image"][index] for name in clean["energy_j"]["by_set"]]
        assert min(one["value"] for one in energies) == pytest.approx(clean["energy_j"]["low"]["mean"])
    files = {path.name for path in (out / "figures").iterdir()}
    assert {
        "accuracy-deployed-network.svg",
        "accuracy-deployed-network.csv",
        "accuracy-deployed-network.json",
        "spikes.svg",
    } <= files
    table = list(csv.reader((out / "figures" / "accuracy-deployed-network.csv").read_text().splitlines()))
    assert float(table[1][2]) == numbers[0]["clean"]["deployed"]["value"]


def test_runs_of_one_name_are_told_apart(hardspike: Invoke, run: Path, tmp_path: Path) -> None:
    twin = tmp_path / "twin" / "tiny"
    shutil.copytree(run, twin)
    code, _, err = hardspike("compare", run, twin, "--out", tmp_path / "c", "--json")
    assert code == 0, err
    found = json.loads((tmp_path / "c" / "comparison.json").read_text())
    assert [one["name"] for one in found["runs"]] == ["runs/tiny", "twin/tiny"]
    assert not any(mark for row in found["rows"] for mark in row["marks"])


def test_what_cannot_be_compared_ends_with_one_line(hardspike: Invoke, run: Path, tmp_path: Path) -> None:
    for arguments, told in (
        ((run,), "1 run is not enough"),
        ((run, run), "named twice"),
        ((run, tmp_path / "none"), "is not a run folder"),
    ):
        code, out, err = hardspike("compare", *arguments, "--out", tmp_path / "c")
        assert code in (1, 2) and out == "" and len(err.splitlines()) == 1 and told in err
    assert not (tmp_path / "c").exists()
