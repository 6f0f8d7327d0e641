"""Makes small_snn_natural.safetensors and small_snn_adversarial.safetensors: spiking networks on the digits, T = 4.

Attack tests need networks that have learnt something; training takes longer than a test may. Run from the repository:
    python tests/golden/train_small_snn.py
"""

import tempfile
from pathlib import Path

import torch

from hardspike.snn.architecture import (
    AveragePool,
    BatchNorm,
    Convolution,
    Dense,
    Flatten,
    ImageInput,
    Spiking,
    chain,
)
from hardspike.snn.checkpoint import save_network
from hardspike.snn.data import load_dataset
from hardspike.snn.network import SpikingNetwork
from hardspike.snn.settings import DataSettings
from hardspike.train.loop import fit
from hardspike.train.settings import FitSettings


def main() -> None:
    torch.set_num_threads(1)
    splits = load_dataset(DataSettings(dataset="digits"))
    image = ImageInput(shape=(1, 8, 8), mean=splits.mean, std=splits.std)
    layers = [
        ("conv1", Convolution(out_channels=8, kernel_size=(3, 3), padding=(1, 1))),
        ("norm1", BatchNorm()),
        ("spike1", Spiking()),
        ("pool1", AveragePool(kernel_size=(2, 2))),
        ("conv2", Convolution(out_channels=16, kernel_size=(3, 3), padding=(1, 1))),
        ("norm2", BatchNorm()),
        ("spike2", Spiking()),
        ("pool2", AveragePool(kernel_size=(2, 2))),
        ("flat", Flatten()),
        ("head", Dense(out_features=10, bias=True)),
    ]
    for objective in ("natural", "adversarial"):
        network = SpikingNetwork(chain(image, layers), 4, seed=0)
        settings = FitSettings(objective=objective, eps=0.1, epochs=20, learning_rate=0.05)
        with tempfile.TemporaryDirectory() as folder:
            fit(
                network,
                splits,
                settings,
                seed=0,
                state_path=Path(folder) / "state",
                identity=objective,
                on_epoch=lambda metrics: print(metrics),
            )
        save_network(Path(__file__).parent / f"small_snn_{objective}.safetensors", network)


if __name__ == "__main__":
    main()
