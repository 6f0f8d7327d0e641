"""Small runs for the analyses that sweep over networks: trained for seconds, without and with what a recipe may leave out."""

import json
from math import ceil, floor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hardspike.analyses.options import AnalyseOptions
from hardspike.analyses.subject import Subject
from hardspike.attack.gradient import Logits
from hardspike.deploy.report.analysis import Analysis
from hardspike.deploy.report.chart import to_json
from hardspike.pipeline import Pipeline
from hardspike.recipe import recipe_from_table
from hardspike.run_folder import RunFolder
from hardspike.snn.surrogate import Surrogate, surrogate_gradient

FLOAT_ONLY: dict[str, Any] = {
    "data": {"train_images": 96, "test_images": 40},
    "train": {"objective": "natural", "epochs": 1},
    "convert": {
        "calibration_steps": 2,
        "calibration_batches": 1,
        "time_steps": 3,
        "objective": "natural",
        "epochs": 1,
    },
    "deploy": {"enabled": False},
    "attack": {"eps": [0.1], "images": 8, "members": ["fgsm"], "targets": ["snn"]},
}
POISSON = FLOAT_ONLY | {"network": {"coding": "poisson", "normalisation": "half"}}
# Trained with timesteps from the start, so that there is no ANN.
PER_STEP: dict[str, Any] = FLOAT_ONLY | {
    "network": {"norm": "per-step"},
    "train": {"objective": "natural", "epochs": 1, "time_steps": 3},
    "convert": {"method": "none", "time_steps": 3, "epochs": 0},
}
WITHOUT_ANN: dict[str, Any] = PER_STEP | {"network": {}}


def float_run(path: Path, table: dict[str, Any]) -> RunFolder:
    """A run whose stages up to `convert` have finished."""
    folder = RunFolder.create(path, recipe_from_table({"name": path.name, **table}, "test"))
    Pipeline(folder).run(("train", "convert"))
    return folder


def residual_rgb_run(path: Path) -> RunFolder:
    """A residual network on colour images of 12 x 10 pixels."""
    path.mkdir(parents=True)
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (60, 3, 12, 10), np.uint8), np.arange(60) % 3
    arrays = {"train_images": pixels, "train_labels": labels, "test_images": pixels[:12], "test_labels": labels[:12]}
    np.savez(path / "images.npz", **arrays)
    table = FLOAT_ONLY | {
        "data": {"dataset": "npz", "root": str(path / "images.npz"), "validation": 0.2},
        "network": {"architecture": "resnet20"},
    }
    return float_run(path / "residual", table)


def look(folder: RunFolder, images: int, **options: Any) -> Subject:
    return Subject(folder, AnalyseOptions(images=images, **options))


def check_form(analysis: Analysis) -> None:
    """Everything is finite and can be written; charts have their tables; sentences are sentences."""
    json.dumps(analysis.values, allow_nan=False)
    assert analysis.found and all(text.endswith(".") for text in (*analysis.found, *analysis.notes)), analysis.found
    assert analysis.charts and analysis.title and analysis.question
    for chart in analysis.charts:
        json.dumps(to_json(chart), allow_nan=False)
        header, rows = chart.table()
        assert rows and all(len(row) == len(header) for row in rows)


def rounded_half_up(images: Tensor, grid: int) -> Tensor:
    return torch.from_numpy(np.floor(images.double().numpy() * grid + 0.5) / grid).float()


def fgsm_by_hand(
    model: Logits, images: Tensor, labels: Tensor, eps: float, grid: int | None, surrogate: Surrogate
) -> Tensor:
    """x + eps sign(gradient), back into the box of pixels (or grid values) within eps, pixel by pixel."""
    moving = images.clone().requires_grad_(True)
    with surrogate_gradient(surrogate, None):
        loss = torch.nn.functional.cross_entropy(model(moving), labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, moving)
    made = torch.empty_like(images)
    for at in np.ndindex(*images.shape):
        pixel = float(images[at])
        low, high = max(pixel - eps, 0.0), min(pixel + eps, 1.0)
        moved = min(max(pixel + eps * float(gradient[at].sign()), low), high)
        if grid is not None:
            inside = range(ceil((low - 1e-6) * grid), floor((high + 1e-6) * grid) + 1)
            moved = min(inside, key=lambda k: abs(k / grid - moved)) / grid
        made[at] = moved
    return made


def count_right(model: Logits, images: Tensor, labels: Tensor) -> int:
    """One image at a time."""
    right = 0
    with torch.no_grad():
        for image, label in zip(images, labels, strict=True):
            right += int(model(image[None])[0].argmax()) == int(label)
    return right
