"""Recipes: every mistake is one line that names file, key, value and what is allowed."""

from pathlib import Path

import pytest
from tiny_run import TINY_RECIPE

from hardspike.recipe import Recipe, first_difference, read_recipe, recipe_from_table
from hardspike.snn.errors import FileError, HardspikeError, SettingsError
from hardspike.snn.settings import NetworkSettings

FOLDER = Path(__file__).parents[2] / "train" / "recipes"
RECIPES = sorted(path for path in FOLDER.rglob("*.toml") if path.parent.name != "bases")


def _write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_shipped_recipes_are_read_and_come_back_from_toml(path: Path, tmp_path: Path) -> None:
    recipe = read_recipe(path)
    assert first_difference(read_recipe(_write(tmp_path, recipe.to_toml())), recipe) == ""
    assert recipe.name == path.stem


def test_values_arrive(tmp_path: Path) -> None:
    recipe = read_recipe(_write(tmp_path, TINY_RECIPE))
    assert (
        recipe.train.eps == 26 / 255
        and recipe.attack.eps == (0.1,)
        and recipe.attack.members[1] == "pgd3/triangular:0.5"
    )
    control = recipe.control_recipe()
    assert control is not None and control.train.objective == "natural" and control.control == {}
    assert control.attack == recipe.attack


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[trian]\nepochs = 2", "recipe.toml: key 'trian' is unknown; did you mean 'train'"),
        ("[train]\nepoch = 2", "recipe.toml: key 'train.epoch' is unknown; did you mean 'train.epochs'"),
        ("[train]\nepochs = 0", "train.epochs = 0 is not allowed; use 1 or more"),
        ('[train]\nepochs = "two"', "train.epochs = 'two' is not of type int"),
        ("[train]\nepochs = true", "train.epochs = True is not of type int"),
        ('[train]\nobjective = "naturl"', "train.objective 'naturl' is unknown; did you mean 'natural'"),
        ("[convert]\nalpha_share = 1.0", r"convert.alpha_share = 1.0 is not allowed; use a share of eps in \(0, 1\)"),
        ("[deploy]\nweight_bits = 9", r"deploy.weight_bits = 9 is not allowed; loihi2 has \[2, 3, 4, 5, 6, 7, 8\]"),
        ('[deploy]\nprofile = "loihi3"', "hardware profile 'loihi3' is unknown; did you mean 'loihi2'"),
        ('[data]\ndataset = "digts"', "data.dataset 'digts' is unknown; did you mean 'digits'"),
        ("[network]\nleak = 1.5", r"leak = 1.5 is not allowed; choose a value in \(0, 1\]"),
        ("[attack]\neps = 0.1", r"attack.eps = 0.1 is not a list; write \[0.1\]"),
        ("train = 3", r"train = 3 is not a table; write \[train\]"),
        ("threads = 0", "threads = 0 is not allowed"),
        ('name = "a/b"', "name = 'a/b' is not allowed; use letters, digits"),
        ("[control.train]\nepoch = 1", "key 'train.epoch' is unknown"),
        ("[train\nepochs = 2", "not readable as TOML"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(HardspikeError, match=message) as caught:
        read_recipe(_write(tmp_path, text))
    assert "\n" not in str(caught.value) and "recipe" in str(caught.value)


def test_a_missing_recipe_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such file; give a recipe, e.g. train/recipes/digits.toml"):
        read_recipe(tmp_path / "none.toml")
    with pytest.raises(FileError, match="is a folder"):
        read_recipe(tmp_path)


def test_first_difference_names_field_and_both_values() -> None:
    a, b = Recipe(name="a"), Recipe(name="a", network=NetworkSettings(seed=3))
    assert first_difference(a, b) == "network.seed = 0 there, 3 here"
    assert first_difference(a, a) == ""


def test_user_profile_with_a_wrong_key_is_named(tmp_path: Path) -> None:
    source = Path(__file__).parents[2] / "hw_profiles" / "loihi2.toml"
    path = tmp_path / "mine.toml"
    path.write_text(source.read_text(encoding="utf-8").replace("state_bits", "stat_bits"), encoding="utf-8")
    with pytest.raises(SettingsError, match="numerics: key 'stat_bits' is unknown; did you mean 'state_bits'"):
        recipe_from_table({"name": "x", "deploy": {"profile": str(path)}}, "recipe")
    path.write_text(source.read_text(encoding="utf-8").replace(', trust = "A"', "", 1), encoding="utf-8")
    with pytest.raises(
        SettingsError,
        match="numerics.weight_bits: key 'trust' is missing; needed: bound, kind, source, trust, unit, value",
    ):
        recipe_from_table({"name": "x", "deploy": {"profile": str(path)}}, "recipe")


def test_a_base_is_inherited_and_changed(tmp_path: Path) -> None:
    (tmp_path / "bases").mkdir()
    (tmp_path / "bases" / "first.toml").write_text('name = "first"\n[train]\nepochs = 7\neps = "2/255"\n', "utf-8")
    (tmp_path / "bases" / "second.toml").write_text('base = "first.toml"\n[train]\nepochs = 8\n', "utf-8")
    recipe = read_recipe(_write(tmp_path, 'base = "bases/second.toml"\n[convert]\nepochs = 3\n'))
    assert (recipe.name, recipe.train.epochs, recipe.train.eps, recipe.convert.epochs) == ("recipe", 8, 2 / 255, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('base = "recipe.toml"', "is its own base"),
        ('base = "nowhere.toml"', "nowhere.toml: no such file"),
        ("base = 3", "base = 3 is not the path of a recipe"),
    ],
)
def test_a_wrong_base_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(HardspikeError, match=message):
        read_recipe(_write(tmp_path, text))


def test_fields_are_set_from_the_command_line(tmp_path: Path) -> None:
    path = _write(tmp_path, "[train]\nepochs = 7\n")
    changes = [
        "train.epochs=2",
        "train.eps=8/255",
        'attack.members=["fgsm"]',
        "convert.trainable_thresholds=false",
        "name=x",
    ]
    recipe = read_recipe(path, changes)
    assert (recipe.train.epochs, recipe.train.eps, recipe.attack.members) == (2, 8 / 255, ("fgsm",))
    assert not recipe.convert.trainable_thresholds and recipe.name == "x"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train.epochs", "is not of the form table.field=value"),
        ("train.epocs=2", "did you mean 'train.epochs'"),
        ("train.epochs=many", "train.epochs = 'many' is not of type int"),
        ("train.epochs=0", "train.epochs = 0 is not allowed"),
        ("train.time_steps=4", "use none exactly where train.time_steps gives a spiking network"),
        ("device=tpu", "device = 'tpu' is not allowed; use cpu or cuda"),
    ],
)
def test_a_wrong_change_is_one_line(tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read_recipe(_write(tmp_path, ""), [change])


def test_networks_that_a_recipe_does_not_make_are_no_targets() -> None:
    table = {"name": "x", "train": {"time_steps": 8}, "convert": {"method": "none"}, "deploy": {"enabled": False}}
    recipe = recipe_from_table(table, "test")
    assert recipe.attack.targets == ("snn",) and recipe.stages == ("train", "convert", "attack", "report")
    with pytest.raises(SettingsError, match="none of these networks is made by this recipe"):
        recipe_from_table(table | {"attack": {"targets": ["ann"]}}, "test")
