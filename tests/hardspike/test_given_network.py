"""A network that was trained elsewhere takes the place of the first stage: ONNX, our own file, an official checkpoint."""

import shutil
from pathlib import Path

import h5py
import pytest
import safetensors.torch
import torch
from official_code import filled, resnet_keys

from hardspike.convert.given_network import given_network
from hardspike.convert.nir_out import write_nir
from hardspike.convert.official_checkpoint import matched_keys
from hardspike.convert.onnx_out import save_onnx
from hardspike.deploy.emulator import Emulator
from hardspike.deploy.graph_file import load_graph
from hardspike.deploy.input_coding import quantize_images
from hardspike.pipeline import Pipeline
from hardspike.recipe import recipe_from_table
from hardspike.run_folder import RunFolder
from hardspike.snn.checkpoint import load_network, save_network
from hardspike.snn.data import DataSettings, ImageSet, Splits, load_dataset
from hardspike.snn.errors import DataError, FileError, HardspikeError, SettingsError
from hardspike.snn.network import SpikingNetwork
from hardspike.snn.settings import NetworkSettings

DIGITS = load_dataset(DataSettings())
NETWORK = NetworkSettings(seed=3)


def _ann(splits: Splits = DIGITS, settings: NetworkSettings = NETWORK) -> SpikingNetwork:
    net = SpikingNetwork(settings.build(splits.shape, 10, splits.mean, splits.std), seed=settings.seed)
    return net.eval()


def _folder(tmp_path: Path, given: Path) -> RunFolder:
    table = {
        "name": "given",
        "train": {"network_file": str(given), "objective": "natural"},
        "convert": {"epochs": 0, "calibration_steps": 2, "calibration_batches": 1},
        "deploy": {"enabled": False},
    }
    return RunFolder.create(tmp_path / "run", recipe_from_table(table, "test"), update=True)


@pytest.mark.parametrize("ending", ["onnx", "safetensors"])
def test_the_stage_train_takes_the_file_and_convert_goes_on(tmp_path: Path, ending: str) -> None:
    ann, file = _ann(), tmp_path / f"ann.{ending}"
    save_onnx(file, ann) if ending == "onnx" else save_network(file, ann)
    folder = _folder(tmp_path, file)
    Pipeline(folder).run(("train", "convert"))
    images = DIGITS.test.images[:20]
    with torch.no_grad():
        assert torch.allclose(load_network(folder.ann)(images), ann(images), atol=1e-5)
    assert load_network(folder.snn).time_steps == 8
    assert folder.last_metrics("train")["epoch"] == 1


def test_a_nir_file_is_deployed(tmp_path: Path) -> None:
    """One of ours says everything itself; one that says nothing takes timesteps, reset and dt from the recipe."""
    snn = _ann(settings=NetworkSettings(seed=5, leak=0.9))
    snn.set_time_steps(4)
    write_nir(tmp_path / "own.nir", snn)
    shutil.copy(tmp_path / "own.nir", tmp_path / "bare.nir")
    with h5py.File(tmp_path / "bare.nir", "r+") as file:
        for group in (file["node"], *file["node/nodes"].values()):
            if "metadata" in group:
                del group["metadata"]
    table = {
        "name": "given",
        "train": {"time_steps": 4, "objective": "natural", "network_file": str(tmp_path / "own.nir")},
        "convert": {"method": "none", "epochs": 0, "time_steps": 4},
    }
    folder = RunFolder.create(tmp_path / "run", recipe_from_table(table, "test"), update=True)
    Pipeline(folder).run(("train", "convert", "deploy"))
    images = quantize_images(DIGITS.test.images[:20], 8)
    graph, deployed = load_graph(folder.graph), load_network(folder.snn)
    with torch.no_grad():
        assert torch.allclose(deployed(images), snn(images), atol=1e-4)
        found = Emulator(graph)(images)
    assert float((found.argmax(1) == snn(images).argmax(1)).float().mean()) > 0.9
    bare = given_network(tmp_path / "bare.nir", snn, NETWORK, DIGITS)
    assert bare.time_steps == 4 and torch.allclose(bare(images), snn(images), atol=1e-3)
    with pytest.raises(SettingsError, match="train.time_steps = 0: .* is a spiking network"):
        given_network(tmp_path / "bare.nir", _ann(), NETWORK, DIGITS)


def test_another_content_of_the_file_is_another_stage(tmp_path: Path) -> None:
    file = tmp_path / "ann.onnx"
    save_onnx(file, _ann())
    folder = _folder(tmp_path, file)
    Pipeline(folder).run(("train",))
    assert folder.finished("train")
    save_onnx(file, _ann(settings=NetworkSettings(seed=4, bias="none")))
    assert not folder.finished("train")


def test_an_onnx_file_without_normalisation_gets_the_recipes(tmp_path: Path) -> None:
    raw = NetworkSettings(normalisation="none")
    file = tmp_path / "raw.onnx"
    save_onnx(file, _ann(settings=raw))
    assert given_network(file, _ann(), NETWORK, DIGITS).architecture.input.mean == DIGITS.mean
    assert given_network(file, _ann(), raw, DIGITS).architecture.input.mean == (0.0,)


def _random(shape: tuple[int, int, int]) -> Splits:
    parts = (ImageSet(torch.rand(4, *shape), torch.arange(4), 10) for _ in range(3))
    return Splits(*parts)


def test_an_official_checkpoint_fills_the_recipes_network(tmp_path: Path) -> None:
    settings = NetworkSettings(architecture="resnet20", bias="none")
    splits = _random((3, 32, 32))
    made = SpikingNetwork(settings.build(splits.shape, 10, splits.mean, splits.std), seed=1)
    shapes = resnet_keys((16, 32, 64), 3, 10)
    state = filled(shapes)
    safetensors.torch.save_file(state, str(tmp_path / "official.safetensors"))
    network = given_network(tmp_path / "official.safetensors", made, settings, splits)
    for ours, theirs in matched_keys(shapes, made).items():
        assert torch.equal(network.state_dict()[ours], state[theirs]), ours


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("ann.pth", FileError, "says neither .onnx, .nir nor .safetensors"),
        ("missing.safetensors", FileError, "no such file"),
        ("other.onnx", DataError, "takes images"),
    ],
)
def test_wrong_files_are_one_line(tmp_path: Path, name: str, error: type[HardspikeError], message: str) -> None:
    save_onnx(tmp_path / "other.onnx", _ann(_random((1, 12, 12))))
    (tmp_path / "ann.pth").write_bytes(b"x")
    with pytest.raises(error, match=message):
        given_network(tmp_path / name, _ann(), NETWORK, DIGITS)


def test_timesteps_of_file_and_recipe_must_agree(tmp_path: Path) -> None:
    snn = _ann()
    snn.set_time_steps(4)
    save_network(tmp_path / "snn.safetensors", snn)
    with pytest.raises(SettingsError, match="train.time_steps = 0: .* has 4; use that"):
        Pipeline(_folder(tmp_path, tmp_path / "snn.safetensors")).run(("train",))
