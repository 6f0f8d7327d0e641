"""The golden vectors of adversarially robust conversion: networks and numbers computed by the authors' own code.

Source: IGITUGraz/RobustSNNConversion at b130117 (MIT licence), run on CPU in double precision on small networks with fixed
weights, noise and batches; tests/golden/README.md describes every array. No code of that repository is contained.
"""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hardspike.snn.architecture import (
    Architecture,
    AveragePool,
    BatchNorm,
    Convolution,
    Dense,
    Flatten,
    ImageInput,
    Spiking,
    chain,
)
from hardspike.snn.network import SpikingNetwork

GOLDEN = Path(__file__).parents[1] / "golden"
# Both sides compute in double precision; only the order of sums differs.
RELATIVE = 1e-9


@cache
def arrays(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        return {
            key.removeprefix("f64_"): torch.from_numpy(np.asarray(file[key], dtype=np.float64)) for key in file.files
        }


def architecture() -> Architecture:
    """`conv2`: two convolutions with batch norm and IF neurons, a pool on the spikes, one dense output with bias."""
    image = ImageInput(shape=(3, 8, 8), mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010))
    return chain(
        image,
        [
            ("conv1", Convolution(out_channels=4, kernel_size=(3, 3), padding=(1, 1))),
            ("bn1", BatchNorm()),
            ("lif1", Spiking()),
            ("pool", AveragePool(kernel_size=(2, 2))),
            ("conv2", Convolution(out_channels=6, kernel_size=(3, 3), padding=(1, 1))),
            ("bn2", BatchNorm()),
            ("lif2", Spiking()),
            ("flatten", Flatten()),
            ("fc1", Dense(out_features=5, bias=True)),
        ],
    )


def parameter_name(golden: str) -> str:
    """`conv1_weight` and `lif1_vth` in our state dict."""
    layer, _, part = golden.partition("_")
    return f"layers.{layer}.{'threshold' if part == 'vth' else part}"


def network(time_steps: int | None = 4) -> SpikingNetwork:
    """`conv2` with the golden weights, double precision, all thresholds trainable, in evaluation mode."""
    net = SpikingNetwork(architecture(), time_steps).double()
    weights = {
        parameter_name(key[2:]): value for key, value in arrays("rsc_conv2_if_T4").items() if key.startswith("w_")
    }
    missing = net.load_state_dict(weights, strict=False)
    assert (
        all(key.endswith(("num_batches_tracked", ".leak")) for key in missing.missing_keys)
        and not missing.unexpected_keys
    )
    for neuron in net.neurons().values():
        neuron.threshold.requires_grad_(True)
    return net.eval()


def assert_golden(found: Tensor, name: str, file: str = "rsc_conv2_if_T4", relative: float = RELATIVE) -> None:
    """Equal within `relative` of the largest value of the array."""
    expected = arrays(file)[name]
    assert found.shape == expected.shape, f"{name}: shape {tuple(found.shape)}, expected {tuple(expected.shape)}"
    error = float((found.detach().double() - expected).abs().max() / expected.abs().max().clamp(min=1e-300))
    assert error <= relative, f"{name}: relative error {error:.2e} exceeds {relative:.0e}"
