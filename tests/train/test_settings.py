"""Each field of a training, conversion or network refuses a value that it cannot have, in one line that names it."""

from dataclasses import fields
from typing import Any

import pytest

from hardspike.convert.conversion import ConvertSettings
from hardspike.recipe import recipe_from_table
from hardspike.snn.errors import SettingsError
from hardspike.snn.settings import NetworkSettings
from hardspike.train.first_network import TrainSettings
from hardspike.train.settings import FitSettings

FIT: dict[str, list[Any]] = {
    "objective": ["trade"],
    "attack": [["pgd0"], ["noise"], ["fgsm/circular"], "pgd10"],
    "attack_loss": ["margin"],
    "attack_start": ["clean"],
    "restarts": [0],
    "eps": [0.0, 1.0, -0.1],
    "alpha_share": [0.0, 1.0],
    "beta": [-1.0],
    "surrogate": ["triangle", "triangular:0", "triangular:1,2", "triangular:x", "relu", "clip-floor"],
    "orthogonal": [-0.004],
    "sign_penalty": [-1.0],
    "periods": [0, 1.5],
    "hire_step": [0.0],
    "hire_gradient": ["old"],
    "hire_carry_potential": [1],
    "hire_keep_noise": ["yes"],
    "epochs": [-1],
    "learning_rate": [0.0],
    "batch_size": [1],
    "optimiser": ["rmsprop"],
    "momentum": [1.0, -0.1],
    "weight_decay": [-1e-4],
    "schedule": ["linear", "steps"],
    "milestones": [[0.0], 0.5],
    "decay": [0.0, 1.5],
    "augment": ["crops"],
    "score_images": [-1],
    "mixed_precision": ["float16"],
    "channels_last": [1],
}
TRAIN: dict[str, list[Any]] = FIT | {
    "epochs": [0, 2.5],
    "time_steps": [-1],
    "network_file": [7],
    "network_dt": [0.0, -1.0],
    "trainable_thresholds": [1],
    "trainable_leaks": ["no"],
}
CONVERT: dict[str, list[Any]] = FIT | {
    "method": ["maximum"],
    "time_steps": [0],
    "percentile": [0.0, 100.1],
    "calibration_steps": [0],
    "calibration_batches": [0],
    "calibration_batch_size": [-1],
    "threshold_scale": [0.0],
    "calibration_leak": [-0.1, 1.1],
    "balance_layers": [-1],
    "trainable_thresholds": [0],
    "trainable_leaks": [0],
    "slip_eleventh_batch": [1],
    "slip_shared_maximum": [1],
}
NETWORK: dict[str, list[Any]] = {
    "architecture": ["vgg_digit"],
    "leak": [0.0, 1.1],
    "reset": ["none"],
    "order": ["fire"],
    "strict": [1],
    "detach_reset": [1],
    "initial_potential": [1.0, -0.1],
    "threshold_floor": [0.0, -0.1],
    "activation": ["tanh"],
    "levels": [0],
    "first_threshold": [0.0],
    "norm": ["group"],
    "bias": ["some"],
    "dropout_convolution": [1.0, -0.1],
    "dropout_dense": [1.0],
    "dropout_per_step": [0],
    "dense_width": [-1],
    "readout": ["max"],
    "coding": ["rank"],
    "poisson_rate": [0.0],
    "input_bits": [-1, 17],
    "normalisation": ["unit"],
    "initialisation": ["zero"],
    "seed": ["one"],
}
TABLES: dict[str, dict[str, list[Any]]] = {"train": TRAIN, "convert": CONVERT, "network": NETWORK}
CASES = [
    (table, field, value) for table, known in TABLES.items() for field, values in known.items() for value in values
]


@pytest.mark.parametrize(
    ("table", "kind"), [("train", TrainSettings), ("convert", ConvertSettings), ("network", NetworkSettings)]
)
def test_every_field_has_a_bad_value_here(table: str, kind: Any) -> None:
    assert set(TABLES[table]) == {field.name for field in fields(kind)}
    assert {field.name for field in fields(FitSettings)} == set(FIT)


@pytest.mark.parametrize(("table", "field", "value"), CASES, ids=[f"{t}.{f}={v}" for t, f, v in CASES])
def test_a_bad_value_is_one_line_that_names_its_field(table: str, field: str, value: Any) -> None:
    with pytest.raises(SettingsError) as caught:
        recipe_from_table({"name": "bad", table: {field: value}}, "bad.toml")
    message = str(caught.value)
    assert message.startswith("bad.toml: ") and field in message.split("known:")[0] and "\n" not in message


def test_a_recipe_of_defaults_is_allowed() -> None:
    recipe_from_table({"name": "good", "train": {}, "convert": {}, "network": {}}, "good.toml")


@pytest.mark.parametrize("attack", [["fgsm"], ["pgd10", "fgsm/backward-rate"]])
def test_fgsm_is_refused_where_the_loss_is_a_kl(attack: list[str]) -> None:
    for settings in ({"objective": "trades"}, {"objective": "adversarial", "attack_loss": "kl"}):
        with pytest.raises(
            SettingsError, match="train.attack = .* the KL and its gradient are zero at the clean image"
        ):
            recipe_from_table({"name": "bad", "train": {**settings, "attack": attack}}, "bad.toml")


def test_each_objective_has_the_attack_of_its_paper() -> None:
    expected = {
        "adversarial": ("pgd", 10, "cross_entropy", "uniform"),
        "trades": ("pgd", 10, "kl", "gaussian"),
        "mart": ("pgd", 10, "cross_entropy", "gaussian"),
        "robust_kl": ("rfgsm", 1, "kl", "uniform"),
    }
    for name, wanted in expected.items():
        settings = FitSettings(objective=name)  # type: ignore[arg-type]
        (member,) = settings.members()
        assert (member.kind, member.steps, settings.crafting_loss(), settings.crafting_start()) == wanted
    chosen = FitSettings(objective="trades", attack=("fgsm",), attack_loss="cross_entropy", attack_start="uniform")
    assert (chosen.members()[0].kind, chosen.crafting_loss(), chosen.crafting_start()) == (
        "fgsm",
        "cross_entropy",
        "uniform",
    )


def test_learning_rates_of_both_schedules() -> None:
    cosine = FitSettings(epochs=4)
    assert [cosine.rate_factor(epoch) for epoch in range(4)] == pytest.approx([1, 0.8535534, 0.5, 0.1464466])
    shares = FitSettings(epochs=10, schedule="steps", milestones=(0.5, 0.7, 0.9), decay=0.1)
    assert [shares.rate_factor(epoch) for epoch in (0, 4, 5, 7, 9)] == pytest.approx([1, 1, 0.1, 0.01, 0.001])
    epochs = FitSettings(epochs=10, schedule="steps", milestones=(2, 6), decay=0.5)
    assert [epochs.rate_factor(epoch) for epoch in (1, 2, 5, 6)] == pytest.approx([1, 0.5, 0.5, 0.25])
