"""The dry run: its counts against numbers by hand, its facts against the loaded data, and that it writes nothing."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from hardspike.cli import main
from hardspike.dry_run import KeptBytes, dry_run
from hardspike.recipe import read_recipe
from hardspike.snn.architecture import AveragePool, Convolution, Dense, Flatten, ImageInput, Spiking, chain
from hardspike.snn.data import DataSettings, load_dataset
from hardspike.snn.data_facts import DATASET_FACTS, expected_splits
from hardspike.snn.data_idx import DEBIAN
from hardspike.snn.network import SpikingNetwork
from hardspike.snn.settings import NetworkSettings
from hardspike.train.settings import FitSettings
from hardspike.work import Passes, calibration_bytes, calibration_macs, objective_passes, score_passes, work

RECIPES = Path(__file__).parents[2] / "train" / "recipes"
DIGITS = RECIPES / "digits.toml"
CONV1, CONV2, DENSE = 4 * 8 * 8 * 1 * 9, 6 * 4 * 4 * 4 * 9, 6 * 2 * 2 * 5


def small_chain(coding: Any) -> Any:
    convolution = partial(Convolution, kernel_size=(3, 3), padding=(1, 1))
    return chain(
        ImageInput(shape=(1, 8, 8), mean=(0.0,), std=(1.0,), coding=coding),
        [
            ("conv1", convolution(out_channels=4)),
            ("spike1", Spiking()),
            ("pool1", AveragePool(kernel_size=(2, 2))),
            ("conv2", convolution(out_channels=6)),
            ("spike2", Spiking()),
            ("pool2", AveragePool(kernel_size=(2, 2))),
            ("flatten", Flatten()),
            ("dense", Dense(out_features=5, bias=True)),
        ],
    )


def test_macs_of_a_chain() -> None:
    direct, poisson = work(small_chain("direct")), work(small_chain("poisson"))
    assert direct.per_step == poisson.per_step == CONV1 + CONV2 + DENSE
    assert (direct.once, poisson.once) == (CONV1, 0)
    assert direct.per_image(None) == CONV1 + CONV2 + DENSE
    assert direct.per_image(8) == CONV1 + 8 * (CONV2 + DENSE)
    assert poisson.per_image(8) == 8 * (CONV1 + CONV2 + DENSE)


def test_macs_of_a_residual_network() -> None:
    built = NetworkSettings(architecture="resnet_mini").build((1, 8, 8), 10, (0.5,), (0.5,))
    first = 8 * 64 * 9
    stage1 = 2 * 8 * 64 * 8 * 9
    stage2 = 16 * 16 * (8 * 9 + 16 * 9 + 8)  # two convolutions and the 1x1 of the shortcut, 4x4 pixels
    stage3 = 32 * 4 * (16 * 9 + 32 * 9 + 16)
    assert (work(built).per_step, work(built).once) == (first + stage1 + stage2 + stage3 + 32 * 10, first)


def test_macs_of_the_threshold_search() -> None:
    settings = read_recipe(
        DIGITS, ["convert.calibration_batches=3", "convert.calibration_batch_size=5", "convert.calibration_steps=7"]
    ).convert
    assert calibration_macs(settings, small_chain("direct"), 1000) == 15 * (CONV1 + CONV1 + 7 * CONV2)
    assert calibration_macs(settings, small_chain("direct"), 4) == 4 * (CONV1 + CONV1 + 7 * CONV2)
    assert calibration_bytes(settings, small_chain("direct"), 1000) == 2 * 4 * (4 * 8 * 8) * 7 * 5


@pytest.mark.parametrize(
    ("settings", "passes"),
    [
        (FitSettings(objective="natural"), Passes(1, 1, 0)),
        (FitSettings(objective="adversarial"), Passes(11, 1, 10)),
        (FitSettings(objective="trades"), Passes(13, 2, 10)),
        (FitSettings(objective="mart"), Passes(12, 2, 10)),
        (FitSettings(objective="robust_kl"), Passes(4, 2, 1)),
        (FitSettings(objective="adversarial", attack=("fgsm", "rfgsm")), Passes(2, 1, 1)),
        (FitSettings(objective="adversarial", attack=("fgsm", "pgd3")), Passes(3, 1, 2)),
        (FitSettings(objective="adversarial", restarts=2), Passes(23, 1, 20)),
        (FitSettings(objective="hire"), Passes(1.5, 1, 0.5)),
        (FitSettings(objective="hire", hire_gradient="same"), Passes(1, 1, 0)),
        (FitSettings(objective="hire", periods=4, hire_keep_noise=True), Passes(2, 1, 1)),
    ],
)
def test_passes_of_an_objective(settings: FitSettings, passes: Passes) -> None:
    assert objective_passes(settings) == passes
    assert passes.weight == passes.forward + 2 * passes.backward + passes.image_gradient


@pytest.mark.parametrize("objective", ["natural", "adversarial", "trades", "mart", "robust_kl"])
def test_passes_are_those_that_run(objective: Any) -> None:
    from hardspike.train.draws import whole
    from hardspike.train.objectives import objective as losses_of

    settings = FitSettings(objective=objective)
    network = SpikingNetwork(small_chain("direct"), 2).train()
    forward = 0

    def count(*_: object) -> None:
        nonlocal forward
        forward += 1

    network.register_forward_hook(count)
    images, labels = torch.rand(2, 1, 8, 8), torch.tensor([0, 1])
    list(losses_of(settings)(network, images, labels, whole(torch.Generator(), 2)))
    assert forward == objective_passes(settings).forward


def test_scoring_passes() -> None:
    assert score_passes(FitSettings(objective="natural")) == Passes(1)
    assert score_passes(FitSettings(objective="adversarial")) == Passes(8, 0, 5)


def test_kept_bytes_rise_with_the_graph_and_are_let_go() -> None:
    network = SpikingNetwork(small_chain("direct"), 4)
    kept = {}
    for batch in (2, 4):
        hooks = KeptBytes(network)
        with torch.autograd.graph.saved_tensors_hooks(hooks.pack, hooks.unpack):
            loss = F.cross_entropy(network(torch.rand(batch, 1, 8, 8)), torch.zeros(batch, dtype=torch.int64))
        assert hooks.now == hooks.peak > 0
        loss.backward()  # type: ignore[no-untyped-call]
        assert hooks.now == 0
        kept[batch] = hooks.peak
    per_image = (kept[4] - kept[2]) / 2
    assert per_image >= 4 * 4 * (6 * 4 * 4)  # at least the second layer's currents, four steps in float32
    assert kept[2] == pytest.approx(2 * per_image, rel=0.1)


@pytest.mark.parametrize("dataset", ["digits", "fashion_mnist"])
@pytest.mark.parametrize("changes", [{}, {"validation": 0.03, "train_images": 700, "test_images": 50}])
def test_facts_equal_the_loaded_data(dataset: str, changes: dict[str, Any]) -> None:
    if dataset == "fashion_mnist" and not DEBIAN.is_dir():
        pytest.skip("Fashion-MNIST is not installed")
    settings = DataSettings(dataset=dataset, **changes)
    splits, expected = load_dataset(settings), expected_splits(settings)
    counts = (len(splits.train), len(splits.validation), len(splits.test))
    assert counts == (expected.train, expected.validation, expected.test)
    assert (splits.shape, splits.num_classes) == (expected.shape, expected.num_classes)
    assert expected.missing == ""


def test_every_published_data_set_has_facts_and_says_where_files_are_missing(tmp_path: Path) -> None:
    for name, facts in DATASET_FACTS.items():
        expected = expected_splits(DataSettings(dataset=name, root=str(tmp_path)))
        installed = not facts.files or (name == "fashion_mnist" and DEBIAN.is_dir())
        assert bool(expected.missing) != installed and "\n" not in expected.missing
    (tmp_path / "cifar-10-batches-py").mkdir()
    assert expected_splits(DataSettings(dataset="cifar10", root=str(tmp_path))).missing == ""
    assert expected_splits(DataSettings(dataset="tinyimagenet", image_size=32)).shape == (3, 32, 32)


def test_digits_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    values = dry_run(read_recipe(DIGITS), seconds=0.4)
    assert list(tmp_path.iterdir()) == []
    assert values["stages"] == ["train", "convert", "deploy", "verify", "attack", "replay", "report"]
    own, control = values["networks"]
    assert (own["parameters"], own["neurons"], own["time_steps"]) == (94_090, 2_176, 8)
    train, convert = own["trained"]
    assert own["macs_per_step"] == train["macs_per_image"] == 16 * 64 * 9 + 40 * 16 * 16 * 9 + 160 * 512 + 512 * 10
    assert train["macs_per_epoch"] == 1077 * (11 + 2 + 10) * train["macs_per_image"]
    assert convert["macs_per_epoch"] == 1077 * (4 + 4 + 1) * convert["macs_per_image"]
    assert control["trained"][0]["objective"] == "natural" and control["trained"][0]["seconds"] < train["seconds"]
    assert train["memory_bytes"]["optimiser"] == train["memory_bytes"]["gradients"] == 4 * (94_090 + 3 * 2)
    assert convert["memory_bytes"]["activations"] > 64 * 8 * 4 * 640
    assert all(seconds > 0 for one in (own, control) for seconds in one["attack"]["seconds"].values())


def test_the_command_shows_it_and_names_missing_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hardspike.cli.dry_run", partial(dry_run, seconds=0.1))
    recipe = RECIPES / "robust_conversion" / "table1_cifar10_vgg11_at2.toml"
    changes = ["--set", "network.architecture=vgg_mini", "--set", f"data.root={tmp_path}"]
    arguments = ["run", str(recipe), "--dry-run", *changes]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    shown = capsys.readouterr().out
    assert ended.value.code == 0 and list(tmp_path.iterdir()) == []
    assert f"the files of 'cifar10' are not in {tmp_path}" in shown
    assert "45,000 training, 5,000 validation and 10,000 test images of 3x32x32, 10 classes" in shown
    assert "robust_kl" in shown and "Times are estimates" in shown
    with pytest.raises(SystemExit):
        main([*arguments, "--json"])
    values = json.loads(capsys.readouterr().out)
    assert values["networks"][0]["trained"][1]["passes"] == {"forward": 4.0, "backward": 2.0, "image_gradient": 1.0}
