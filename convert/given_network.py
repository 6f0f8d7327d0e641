"""A network that somebody else trained, in place of the first stage's training."""

from pathlib import Path

from safetensors import safe_open

from hardspike.convert.nir_file import read_nir_graph
from hardspike.convert.nir_in import read_nir
from hardspike.convert.nir_reader import SAID
from hardspike.convert.official_checkpoint import load_official
from hardspike.convert.onnx_in import load_onnx
from hardspike.snn.checkpoint import load_network
from hardspike.snn.data import Splits
from hardspike.snn.errors import DataError, FileError, SettingsError
from hardspike.snn.network import SpikingNetwork
from hardspike.snn.settings import NetworkSettings


def given_network(
    path: Path, made: SpikingNetwork, settings: NetworkSettings, splits: Splits, *, dt: float = 1e-4
) -> SpikingNetwork:
    """The network of a file, in evaluation mode.

    - `.onnx`: an ANN, which brings its own architecture; where it does not normalise images itself, `settings.normalisation` says
      what it expects. Its neurons get the recipe's settings.
    - `.nir`: a spiking network, which brings its own architecture; neurons get the recipe's reset, order, and so on, which
      NIR does not say. dt: seconds per timestep, for files that do not say it. Timesteps are `made`'s.
    - `.safetensors` of ours: architecture and weights.
    - `.safetensors` with the tensors of an official RobustSNNConversion checkpoint: weights for `made`, the recipe's network.

    Raises FileError for a file that is none of these, DataError where it takes other images than the recipe's.
    """
    if path.suffix == ".onnx":
        network = load_onnx(path, neuron=settings.neuron())
        image = network.architecture.input
        if set(image.mean) == {0.0} and set(image.std) == {1.0} and settings.normalisation != "none":
            wanted = made.architecture.input
            network = load_onnx(path, mean=wanted.mean, std=wanted.std, neuron=settings.neuron())
    elif path.suffix == ".nir":
        network = _from_nir(path, made, settings, splits, dt)
    elif path.suffix == ".safetensors":
        if _is_ours(path):
            network = load_network(path)
        else:
            load_official(path, made)
            network = made
    else:
        raise FileError(f"{path}: its ending says neither .onnx, .nir nor .safetensors; give a network in one of these")
    found = (network.architecture.input.shape, network.architecture.num_classes)
    if found != (splits.shape, splits.num_classes):
        raise DataError(
            f"{path}: takes images {found[0]} of {found[1]} classes; the data set has {splits.shape} and {splits.num_classes}"
        )
    return network.eval()


def _from_nir(path: Path, made: SpikingNetwork, settings: NetworkSettings, splits: Splits, dt: float) -> SpikingNetwork:
    if made.time_steps is None:
        raise SettingsError(f"train.time_steps = 0: {path} is a spiking network; give its number of timesteps")
    if SAID in read_nir_graph(path).metadata:  # written by us: it says everything itself
        return read_nir(path)
    return read_nir(path, dt=dt, time_steps=made.time_steps, neuron=settings.neuron(), image_shape=splits.shape)


def _is_ours(path: Path) -> bool:
    if not path.is_file():
        raise FileError(f"{path}: no such file; give a trained network")
    try:
        with safe_open(str(path), framework="pt") as file:
            return (file.metadata() or {}).get("kind") == "network"
    except Exception as error:  # safetensors raises its own class, and OSError
        raise FileError(f"{path}: not a readable safetensors file ({error})") from None
