"""From images in [0, 1] to the integer messages a deployed network receives, and back."""

import torch
from torch import Tensor

from hardspike.deploy.process_graph import InputContract
from hardspike.snn.data import check_images
from hardspike.snn.errors import DataError


def quantize_images(images: Tensor, bits: int) -> Tensor:
    """Nearest values on the grid k / (2^bits - 1), halves upwards: what a sensor of `bits` bits can carry. Float in, float out."""
    top = (1 << bits) - 1
    return torch.floor(images.double() * top + 0.5).div(top).to(images.dtype)


def check_image_input(images_BCHW: Tensor, contract: InputContract) -> None:
    """Raise DataError for images of another shape, NaN, values outside [0, 1], or an input that does not take images."""
    if contract.coding != "graded":
        raise DataError(f"input: coding '{contract.coding}' takes integers, not images; encode them yourself")
    check_images(images_BCHW)
    if tuple(images_BCHW.shape[1:]) != contract.shape:
        raise DataError(
            f"images: shape {tuple(images_BCHW.shape)} does not fit this network; it takes (batch, {contract.shape})"
        )


def encode_images(images_BCHW: Tensor, contract: InputContract) -> Tensor:
    """Integer messages of images, int64 of shape (B, C, H, W) without constant channels. Raises as `check_image_input`."""
    check_image_input(images_BCHW, contract)
    return torch.floor(images_BCHW.double() * contract.message_max + 0.5).long()


def check_messages(messages: Tensor, contract: InputContract, time_steps: int) -> None:
    """Raise DataError unless `messages` are integers that fit the contract.

    Shape (B, *shape) for graded and current coding, (T, B, *shape) for binary.
    """
    if messages.is_floating_point() or messages.dtype == torch.bool:
        raise DataError(f"messages: dtype {messages.dtype} is not allowed; use integers")
    lead = 2 if contract.coding == "binary" else 1
    if messages.ndim != lead + len(contract.shape) or tuple(messages.shape[lead:]) != contract.shape:
        wanted = f"({'time, ' if lead == 2 else ''}batch, {', '.join(map(str, contract.shape))})"
        raise DataError(f"messages: shape {tuple(messages.shape)} does not fit this network; it takes {wanted}")
    if lead == 2 and len(messages) != time_steps:
        raise DataError(f"messages: {len(messages)} timesteps, but the network runs {time_steps}")
    if contract.coding != "current" and messages.numel():
        low, high = int(messages.min()), int(messages.max())
        if low < 0 or high > contract.message_max:
            raise DataError(
                f"messages: values {low}..{high} are outside 0..{contract.message_max}; quantise the input first"
            )


def append_constant_channels(messages: Tensor, contract: InputContract) -> Tensor:
    """The messages with the constant channels behind the image's own, channel axis at -len(shape)."""
    if not contract.constant_channels:
        return messages
    axis = messages.ndim - len(contract.shape)
    shape = list(messages.shape)
    shape[axis] = contract.constant_channels
    return torch.cat([messages, messages.new_full(shape, contract.message_max)], dim=axis)
