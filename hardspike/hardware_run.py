"""`hardspike deploy --bundle` and `hardspike replay --trace`: to other people's hardware, and back."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hardspike import __version__
from hardspike.deploy.bundle import Bundle, BundleSet, Provenance, check_bundle, file_sha256, write_bundle
from hardspike.deploy.graph_file import load_graph
from hardspike.deploy.hardware_check import Measurement, check_trace
from hardspike.deploy.hardware_trace import largest_set, read_hardware_trace
from hardspike.deploy.input_coding import encode_images
from hardspike.deploy.process_graph import ProcessGraph
from hardspike.deploy.replay import replay_sets, sent_images
from hardspike.deploy.report.measured import estimated
from hardspike.hw_profiles.profile import load_profile
from hardspike.results import adversarial_sets
from hardspike.run_folder import RunFolder
from hardspike.show import table
from hardspike.snn.atomic import read_json, write_json
from hardspike.snn.data import load_dataset
from hardspike.snn.progress import Progress
from hardspike.snn.ranges import require
from hardspike.summary import Summary

IMAGES = 100


def bundle_run(folder: RunFolder, path: Path, images: int | None, progress: Progress) -> Summary:
    """Clean test images, and where the deployed network has been attacked its adversarial ones, on the input's grid."""
    count = IMAGES if images is None else images
    require("images", count, count >= 1, "use 1 or more")
    folder.require_finished("deploy")
    graph = load_graph(folder.graph)
    check_bundle(graph)
    sets = _sets(folder, graph, count)
    progress.begin("bundle", sum(map(len, sets)))
    commit = read_json(folder.path / "environment.json", "the run's environment")["commit"]
    provenance = Provenance(run=folder.recipe.name, commit=commit, version=__version__)
    made = write_bundle(path, graph, folder.net, sets, provenance, progress=progress.advance)
    return _bundle_summary(path, made)


def trace_run(folder: RunFolder, path: Path, progress: Progress) -> Summary:
    """Compare, keep the numbers in the run's folder `hardware`."""
    folder.require_finished("deploy")
    graph = load_graph(folder.graph)
    sets = _sets(folder, graph, largest_set(path))
    trace = read_hardware_trace(path, graph, file_sha256(folder.net), sets)
    progress.begin("hardware trace", len(trace))
    profile = load_profile(folder.recipe.report.cost_profile)
    measured = check_trace(trace, graph, sets, profile, progress=progress.advance)
    values = _values(measured)
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]
    kept = folder.path / "hardware" / f"{measured.backend}-{digest}.json"
    write_json(kept, values)
    return Summary(values, _tables(measured), [*_lines(measured), f"every number: {kept}"], holds=measured.equal)


def _values(measured: Measurement) -> dict[str, Any]:
    values = asdict(measured)
    for row, plain in zip(measured.rows, values["rows"], strict=True):
        plain["verdict"] = row.verdict
    for name, rail in measured.rails.items():
        values["rails"][name]["total_j"] = rail.total_j
    return values


def _sets(folder: RunFolder, graph: ProcessGraph, count: int) -> list[BundleSet]:
    """Of at most `count` images each."""
    clean = load_dataset(folder.recipe.data).test.first(count)
    attacks = []
    if folder.finished("attack") and "deployed" in folder.recipe.attack.targets:
        attacks = [one for one in adversarial_sets(folder) if one.target == "deployed"]
    sets = replay_sets(clean, [made.first(count) for made in attacks], folder.recipe.attack.seed)
    chosen = [one for one in sets if one.origin.kind != "noise"]
    bits = graph.input.image_bits
    return [
        BundleSet(name=one.origin.name, messages=encode_images(sent_images(one, bits), graph), labels=one.clean.labels)
        for one in chosen
    ]


def _bundle_summary(path: Path, made: Bundle) -> Summary:
    rows = [[name, f"{count:,}", f"{made.right[name]:.3f}"] for name, count in made.images.items()]
    values = {"bundle": str(path)} | asdict(made)
    lines = [
        f"bundle: {path} ({made.num_bytes / 1e6:.1f} MB, SHA-256 {made.sha256})",
        "there: unpack it, and python run_on_loihi.py --backend loihi2 (README.md says how)",
    ]
    return Summary(
        values, [table("images in the bundle, and what is expected", ["set", "images", "right"], rows)], lines
    )


def _tables(measured: Measurement) -> list[Any]:
    where = "Loihi 2" if measured.backend == "loihi2" else "Lava's simulator"
    rows = [
        [row.name, row.what, f"{row.compared:,}", f"{row.differing:,}", row.verdict, row.first] for row in measured.rows
    ]
    compared = table(
        f"{where} against the emulator", ["set", "compared", "values", "differ", "verdict", "first difference"], rows
    )
    accuracy = [
        [
            one.name,
            f"{one.images:,}",
            f"{one.right['value']:.3f}",
            f"{one.expected['value']:.3f}",
            f"{one.same_class:.3f}",
            estimated(list(one.estimate_j.values()), "J"),
            estimated(list(one.estimate_s.values()), "s"),
        ]
        for one in measured.sets
    ]
    columns = ["set", "images", "right, measured", "expected", "same class", "estimated energy", "estimated time"]
    title = f"{where}: accuracy; estimates per image are those of {measured.estimated_for}, without static power"
    return [compared, table(title, columns, accuracy)]


def _lines(measured: Measurement) -> list[str]:
    steps = measured.steps_per_image
    lines = [f"host: {1e3 * measured.host_s_per_step:.3g} ms a step, {steps} steps an image, reading out included"]
    if not measured.sets[0].estimate_j:
        lines.append(f"no estimate of energy: none is public per operation of {measured.estimated_for}")
    if measured.chip_s_per_step is not None:
        seconds = measured.chip_s_per_step * steps
        lines.append(f"chip: {1e6 * measured.chip_s_per_step:.3g} µs a step, {1e3 * seconds:.3g} ms an image")
        total = measured.rails["total"]
        lines.append(
            f"power: {total.static_w:.3g} W static + {total.dynamic_w:.3g} W dynamic; per image {1e3 * total.static_j:.3g} + "
            f"{1e3 * total.dynamic_j:.3g} = {1e3 * total.total_j:.3g} mJ"
        )
    elif measured.backend == "loihi2":
        lines.append(
            f"chip: neither power nor time was measured{': ' * bool(measured.not_measured)}{measured.not_measured}"
        )
    else:
        lines.append("simulator: no power to measure")
    return lines
