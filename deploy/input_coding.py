"""From images in [0, 1] to the integer messages a deployed network receives, and back."""

import torch
from torch import Tensor

from hardspike.deploy.poisson_coding import poisson_messages
from hardspike.deploy.process_graph import InputContract, ProcessGraph
from hardspike.snn.data import check_images
from hardspike.snn.encoding import NoiseSource
from hardspike.snn.errors import DataError


def quantize_images(images: Tensor, bits: int) -> Tensor:
    """Nearest values on the grid k / (2^bits - 1), halves upwards: what a sensor of `bits` bits can carry. Float in, float out."""
    top = (1 << bits) - 1
    return torch.floor(images.double() * top + 0.5).div(top).to(images.dtype)


def check_image_input(images_BCHW: Tensor, contract: InputContract) -> None:
    """Raise DataError for images of another shape, NaN, values outside [0, 1], or an input that does not take images."""
    if contract.coding != "graded" and contract.poisson is None:
        raise DataError(f"input: coding '{contract.coding}' takes integers, not images; encode them yourself")
    check_images(images_BCHW)
    if tuple(images_BCHW.shape[1:]) != contract.image_shape:
        raise DataError(
            f"images: shape {tuple(images_BCHW.shape)} does not fit this network; it takes (batch, {contract.image_shape})"
        )


def encode_images(images_BCHW: Tensor, graph: ProcessGraph, *, seed: int = 0) -> Tensor:
    """Integer messages of images, without constant channels, int64. Raises as `check_image_input`.

    (B, C, H, W) for a graded input, [T, B, ...] for Poisson spikes, which `seed` draws.
    """
    contract = graph.input
    if contract.poisson is None:
        return graded_messages(images_BCHW, contract)
    check_image_input(images_BCHW, contract)
    return poisson_messages(images_BCHW.double(), contract, graph.time_steps, NoiseSource(seed)).long()


def graded_messages(images_BCHW: Tensor, contract: InputContract) -> Tensor:
    """Integer messages of images for a graded input; see `encode_images`."""
    check_image_input(images_BCHW, contract)
    return torch.floor(images_BCHW.double() * contract.message_max + 0.5).long()


def check_messages(messages: Tensor, contract: InputContract, time_steps: int) -> None:
    """Raise DataError unless `messages` are integers that fit the contract.

    Shape (B, *shape) for graded and current coding, (T, B, *shape) for binary and signed.
    """
    if messages.is_floating_point() or messages.dtype == torch.bool:
        raise DataError(f"messages: dtype {messages.dtype} is not allowed; use integers")
    lead = 2 if contract.has_time else 1
    if messages.ndim != lead + len(contract.shape) or tuple(messages.shape[lead:]) != contract.shape:
        wanted = f"({'time, ' if lead == 2 else ''}batch, {', '.join(map(str, contract.shape))})"
        raise DataError(f"messages: shape {tuple(messages.shape)} does not fit this network; it takes {wanted}")
    if lead == 2 and len(messages) != time_steps:
        raise DataError(f"messages: {len(messages)} timesteps, but the network runs {time_steps}")
    if contract.coding != "current" and messages.numel():
        low, high = int(messages.min()), int(messages.max())
        if low < contract.message_min or high > contract.message_max:
            raise DataError(
                f"messages: values {low}..{high} are outside {contract.message_min}..{contract.message_max}; quantise the input first"
            )


def append_constant_channels(messages: Tensor, contract: InputContract) -> Tensor:
    """The messages with the constant channels behind the image's own, channel axis at -len(shape)."""
    if not contract.constant_channels:
        return messages
    axis = messages.ndim - len(contract.shape)
    shape = list(messages.shape)
    shape[axis] = contract.constant_channels
    constants = messages.new_tensor(contract.constant_messages).view(-1, *(1,) * (len(contract.shape) - 1))
    return torch.cat([messages, constants.expand(shape)], dim=axis)
