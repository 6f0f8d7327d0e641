"""Finished runs with networks of the test's own, for analyses of maps: files as a run has them, and no deployment."""

import json
from pathlib import Path

import torch
from settled_networks import settled
from small_networks import HEAD, block, chain, conv, image, pool

from hardspike.analyses.options import AnalyseOptions
from hardspike.analyses.subject import Subject
from hardspike.deploy.report.analysis import Analysis
from hardspike.deploy.report.chart import to_json
from hardspike.run_folder import RunFolder
from hardspike.snn.architecture import Architecture
from hardspike.snn.checkpoint import save_network
from hardspike.snn.data import ImageSet
from hardspike.snn.network import SpikingNetwork

TWO_LAYERS = chain(
    image(3, 8, 6), [*block("a", conv(4)), ("p", pool(2, 2)), *block("b", conv(6)), ("q", pool(2, 1)), *HEAD]
)


def checked(analysis: Analysis) -> Analysis:
    """Everything can be written down, and no number is NaN."""
    json.dumps([analysis.values, analysis.conditions, *map(to_json, analysis.charts)], allow_nan=False)
    for chart in analysis.charts:
        columns, rows = chart.table()
        assert all(len(row) == len(columns) for row in rows)
        assert chart.title and chart.caption
    return analysis


def subject_of(run: Path, **options: object) -> Subject:
    return Subject(RunFolder.open(run), AnalyseOptions(**{"images": 12} | options))  # type: ignore[arg-type]


def without_deployment(run: Path) -> None:
    recipe = run / "recipe.toml"
    text = recipe.read_text(encoding="utf-8")
    assert "enabled = true" in text
    recipe.write_text(text.replace("enabled = true", "enabled = false"), encoding="utf-8")


def own_run(
    run: Path,
    architecture: Architecture,
    *,
    time_steps: int = 4,
    images: int = 6,
    classes: int | None = None,
    **options: object,
) -> Subject:
    """A run of float networks with random parameters, and random test images of its own. classes: of the labels, all if None."""
    without_deployment(run)
    snn = settled(architecture, time_steps)
    ann = SpikingNetwork(architecture, None)
    ann.load_state_dict(snn.state_dict())
    subject = subject_of(run, **options)
    save_network(subject.folder.ann, ann.float())
    save_network(subject.folder.snn, snn.float())
    generator = torch.Generator().manual_seed(3)
    pixels = torch.rand(images, *architecture.input.shape, generator=generator)
    labels = torch.arange(images) % (classes or architecture.num_classes)
    subject.test = ImageSet(pixels, labels, architecture.num_classes)
    return subject
