"""The shipped recipes of published results: every row is read, builds its network, and each kind of training runs."""

import re
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from hardspike.convert.conversion import converted
from hardspike.recipe import Recipe, read_recipe
from hardspike.snn.architecture import Architecture
from hardspike.snn.data import ImageSet, Splits
from hardspike.snn.data_facts import expected_splits
from hardspike.snn.network import num_neurons
from hardspike.train.first_network import first_network
from hardspike.train.loop import fit

TREE = Path(__file__).parents[2] / "train" / "recipes"
FAMILIES = ("robust_conversion", "inherent", "sam", "hire", "qcfs")
ROWS = sorted(path for family in FAMILIES for path in (TREE / family).glob("*.toml"))
BASES = sorted(path for path in (TREE / "bases").glob("*.toml") if path.stem != "fashion")  # of no paper
NEURONS = {"vgg11": 286_720, "wrn16_4": 475_136, "resnet20": 188_416, "vgg11_tiny": 610_304, "vgg5": 133_120}


def relative(path: Path) -> str:
    return path.relative_to(TREE).as_posix()


def architecture(recipe: Recipe) -> Architecture:
    expected = expected_splits(recipe.data)
    half = (0.5,) * expected.shape[0]
    steps = recipe.train.time_steps or None
    return recipe.network.build(expected.shape, expected.num_classes, half, half, steps)


@pytest.mark.parametrize("path", ROWS + BASES, ids=relative)
def test_reads_and_builds_its_network(path: Path) -> None:
    recipe = read_recipe(path)
    built = architecture(recipe)
    assert recipe.name == path.stem and built.spiking
    if path in ROWS:
        assert num_neurons(built) == NEURONS.get(recipe.network.architecture, num_neurons(built))


@pytest.mark.parametrize("path", ROWS + BASES, ids=relative)
def test_says_which_paper_it_is_of(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ") and re.search(r"arXiv \d{4}\.\d{5}|ECCV 2020|20\d\d\)", text.split("\n\n")[0])


def test_rows_stand_on_bases_and_every_base_is_used() -> None:
    used = {
        path.parent / match for path in ROWS + BASES for match in re.findall(r'^base = "(.*)"', path.read_text(), re.M)
    }
    resolved = {path.resolve() for path in used}
    assert resolved >= {path.resolve() for path in BASES}
    assert [relative(path) for path in ROWS if not re.search(r"^base = ", path.read_text(), re.M)] == []
    assert len(ROWS) == 50


def test_names_and_settings_are_all_different() -> None:
    # A base is no row: no run of it would be a number of a paper, so no two files may ask for one run folder either.
    assert [name for name, count in Counter(path.stem for path in ROWS + BASES).items() if count > 1] == []
    settings = Counter(repr(asdict(replace(read_recipe(path), name="x"))) for path in ROWS)
    assert max(settings.values()) == 1


@pytest.mark.parametrize("family", ["table1_cifar10_vgg11", "table1_cifar100_wrn16", "table1_svhn_resnet20"])
def test_the_rows_of_one_table_differ_in_the_first_training_alone(family: str) -> None:
    rows = [read_recipe(path) for path in ROWS if path.stem.startswith(family)]
    assert sorted(row.train.objective for row in rows if row.train.objective != "natural") == [
        "adversarial",
        "mart",
        "trades",
    ]
    assert len({repr(replace(row, name="x", train=rows[0].train)) for row in rows}) == 1


def test_the_ensemble_has_nineteen_gradients_for_both_attacks() -> None:
    ensemble = read_recipe(TREE / "bases" / "surrogate_ensemble.toml").attack.members
    fewer = read_recipe(TREE / "bases" / "surrogate_ensemble_without_relu.toml").attack.members
    kinds = [[member.partition("/")[2] for member in ensemble if member.startswith(kind)] for kind in ("fgsm", "pgd20")]
    assert kinds[0] == kinds[1] and len(set(kinds[0])) == 19 and kinds[0][-1] == "relu"
    assert fewer == tuple(member for member in ensemble if not member.endswith("/relu"))


def is_residual(recipe: Recipe) -> bool:
    return recipe.network.architecture.startswith(("resnet", "wrn"))


def one_row_of_each_kind() -> list[Path]:
    """Rows that train in the same way on other images, or with other numbers, are left out."""
    kinds: dict[object, Path] = {}
    for path in ROWS:
        recipe = read_recipe(path)
        train, convert, network = recipe.train, recipe.convert, recipe.network
        kind = (
            (path.parent, is_residual(recipe), network.order, network.reset, network.norm),
            (train.objective, train.attack, train.time_steps > 0, train.trainable_thresholds),
            (
                convert.method,
                convert.epochs > 0 and (convert.objective, convert.attack_loss, convert.trainable_thresholds),
            ),
        )
        kinds.setdefault(kind, path)
    return list(kinds.values())


def narrowed(path: Path) -> Recipe:
    recipe = read_recipe(path)
    residual = is_residual(recipe)
    # Neurons that fire first pass nothing on within one step, so the threshold search needs as many steps as layers.
    changes = [
        f"network.architecture={'resnet_mini' if residual else 'vgg_mini'}",
        "network.dense_width=16",
        "train.epochs=1",
        "train.batch_size=2",
        f"train.time_steps={min(recipe.train.time_steps, 2)}",
        f"convert.epochs={min(recipe.convert.epochs, 1)}",
        "convert.batch_size=2",
        "convert.time_steps=2",
        "convert.calibration_steps=12",
        "convert.calibration_batches=1",
        "convert.calibration_batch_size=2",
    ]
    return read_recipe(path, changes)


@pytest.mark.slow
@pytest.mark.parametrize("path", one_row_of_each_kind(), ids=relative)
def test_two_steps_of_its_trainings_run(path: Path, tmp_path: Path) -> None:
    recipe = narrowed(path)
    channels = expected_splits(recipe.data).shape[0]
    images = torch.rand(8, channels, 16, 16, generator=torch.Generator().manual_seed(0))
    part = ImageSet(images, torch.arange(8), 10)
    splits = Splits(*(part.select(torch.arange(start, stop)) for start, stop in ((0, 4), (4, 6), (6, 8))))
    losses: list[float] = []

    def on_epoch(metrics: dict[str, float]) -> None:
        losses.append(metrics["loss"])

    first = first_network(recipe.train, recipe.network, splits)
    fit(first, splits, recipe.train, seed=0, state_path=tmp_path / "train", identity="", on_epoch=on_epoch)
    assert first.time_steps == (recipe.train.time_steps or None)
    snn = converted(recipe.convert, first, splits, 0)
    if recipe.convert.epochs:
        fit(snn, splits, recipe.convert, seed=1, state_path=tmp_path / "convert", identity="", on_epoch=on_epoch)
    assert snn.time_steps == 2 and torch.isfinite(snn(images)).all()
    assert len(losses) == 1 + recipe.convert.epochs and torch.isfinite(torch.tensor(losses)).all()
    trained = {neuron.threshold.requires_grad for neuron in snn.neurons().values()}
    assert trained == {recipe.convert.trainable_thresholds}
