"""`deploy --bundle` and `replay --trace` on a finished run: there and back, and what the report then shows."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hardware_traces import MadeTrace, made_trace, with_power
from report_example import Page
from tiny_run import Invoke

from hardspike.deploy.bundle import BundleSet, file_sha256
from hardspike.deploy.graph_file import load_graph
from hardspike.deploy.si_prefix import si
from hardspike.results import measurements
from hardspike.run_folder import RunFolder


def bundled(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive, archive.open("images.npz") as file:
        return dict(np.load(file, allow_pickle=False))


def trace_of(run: Path, bundle: Path) -> MadeTrace:
    """A trace made from nothing but the bundle and the run's graph."""
    with zipfile.ZipFile(bundle) as archive:
        manifest = json.loads(archive.read("manifest.json"))
    images = bundled(bundle)
    sets = [
        BundleSet(
            name=one["name"],
            messages=torch.from_numpy(images[f"messages.{i}"]).long(),
            labels=torch.from_numpy(images[f"labels.{i}"]),
        )
        for i, one in enumerate(manifest["sets"])
    ]
    return made_trace(load_graph(run / "graph.safetensors"), file_sha256(run / "network.net"), sets)


@pytest.mark.slow
def test_a_bundle_goes_out_and_its_trace_comes_back(hardspike: Invoke, run: Path, tmp_path: Path) -> None:
    bundle, again = tmp_path / "a.zip", tmp_path / "b.zip"
    code, out, _ = hardspike("deploy", run, "--bundle", bundle, "--images", 5, "--quiet")
    assert code == 0 and f"bundle: {bundle}" in out and "attack on deployed eps 0.1" in out
    code, out, _ = hardspike("deploy", run, "--bundle", again, "--images", 5, "--json")
    assert code == 0 and json.loads(out)["images"] == {"clean": 5, "attack on deployed eps 0.1": 5}
    assert bundle.read_bytes() == again.read_bytes()

    before = (run / "report.html").read_text("utf-8")
    assert "Measured on hardware" not in before and "No chip was used, and no power was measured." in before
    made = with_power(trace_of(run, bundle))
    trace = made.save(tmp_path / "trace.npz")
    code, out, _ = hardspike("replay", run, "--trace", trace, "--json")
    values = json.loads(out)
    assert code == 0 and all(row["verdict"] == "equal" for row in values["rows"]) and len(values["rows"]) == 6
    assert sum(row["compared"] for row in values["rows"]) > 1000
    (kept,) = (run / "hardware").glob("*.json")
    assert json.loads(kept.read_text()) == values
    network = json.loads((run / "report.json").read_text())["networks"][0]
    assert network["measured"] == [values]
    clean = network["replay"][0]["accuracy"]["deployed"]
    assert values["sets"][0]["expected"]["n"] == 5 and clean["n"] == 12
    shown = Page((run / "report.html").read_text("utf-8"))
    assert not shown.problems and "No chip was used" not in shown.text
    costs = {row[0]: row[1:] for row in shown.table("Energy and time per image, measured and estimated")}
    steps = values["steps_per_image"]
    assert costs["total energy"] == [si(0.7 * 150e-6 * steps, "J"), "–"]

    code, out, _ = hardspike("replay", run, "--trace", trace, "--quiet")
    assert code == 0 and "power: 0.2 W static + 0.5 W dynamic" in out and len(list((run / "hardware").iterdir())) == 1
    made.arrays["spikes.0"][3].flat[7] ^= True
    made.facts["started"] = "2026-01-03T03:04:05+0000"  # a later run
    code, out, _ = hardspike("replay", run, "--trace", made.save(tmp_path / "other.npz"), "--json")
    rows = json.loads(out)["rows"]
    assert code == 1 and [row["differing"] for row in rows] == [1, 0, 0, 0, 0, 0]
    assert rows[0]["first"].startswith("spike of ") and ", image 3, step 1, neuron " in rows[0]["first"]
    text = Page((run / "report.html").read_text("utf-8")).text
    assert "values were compared with the emulator's: 1 differ" in text


def test_wrong_files_and_options_end_with_one_line(hardspike: Invoke, run: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "a.zip"
    assert hardspike("deploy", run, "--bundle", bundle, "--images", 2, "--quiet")[0] == 0
    made = trace_of(run, bundle)
    wrong = {"network_sha256": "0" * 64}
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes(made.content()[:1000])
    other = MadeTrace(made.facts | wrong, made.arrays).save(tmp_path / "other.npz")
    whole = made.save(tmp_path / "whole.npz")
    cases = [
        (("replay", run, "--trace", tmp_path / "none.npz"), 1, "none.npz: no such file"),
        (("replay", run, "--trace", damaged), 1, "not a readable trace"),
        (("replay", run, "--trace", other), 1, "made with another network"),
        (("replay", run, "--trace", whole, "--images", 3), 2, "leave out --backend, --images and --redo"),
        (("deploy", run, "--images", 3), 2, "give --bundle too"),
        (("deploy", run, "--bundle", bundle, "--images", 0), 2, "use 1 or more"),
    ]
    for arguments, expected, text in cases:
        code, out, err = hardspike(*arguments, "--quiet")
        assert code == expected and text in err and err.count("\n") == 1 and not out, (arguments, err)
    assert not (run / "hardware").exists()


def test_what_was_measured_on_an_earlier_network_is_not_shown(run: Path) -> None:
    (run / "hardware").mkdir()
    folder = RunFolder.open(run)
    assert measurements(folder) == []
    own = file_sha256(folder.net)
    for number, (digest, started) in enumerate(((own, "2026-02"), ("0" * 64, "2026-03"), (own, "2026-01"))):
        stale = {"network_sha256": digest, "facts": {"started": started}}
        (run / "hardware" / f"loihi2-{number}.json").write_text(json.dumps(stale))
    assert [one["facts"]["started"] for one in measurements(folder)] == ["2026-01", "2026-02"]
