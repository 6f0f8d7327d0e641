"""What an ONNX tensor can be on the way to our layers, and what its nodes say."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from hardspike.snn.errors import UnsupportedLayerError

Array = NDArray[Any]
LONGEST_LINE = 300
SUPPORTED = (
    "Conv, BatchNormalization, Relu, AveragePool, GlobalAveragePool, ReduceMean over height and width, Gemm, MatMul, Flatten, "
    "Reshape to (N, -1), Squeeze after pooling, Add of two activations, Mul and Div by a scalar, Dropout, Identity, "
    "normalisation of the image by Sub, Div, Mul, Add, and the rounding and clip-floor activation that hardspike writes"
)


@dataclass(frozen=True, slots=True)
class ImageValue:
    """(image - mean) / std per channel, the image rounded before where bits is set."""

    mean: Array
    std: Array
    bits: int | None = None


@dataclass(frozen=True, slots=True)
class Activation:
    """factor * output of the layer `source`."""

    source: str
    factor: float = 1.0


Value = Array | ImageValue | Activation


def rounded(node: onnx.NodeProto, value: Value) -> ImageValue:
    """The image scaled to 0 .. 2^bits - 1, rounded."""
    top = round(1 / float(value.std[0])) if isinstance(value, ImageValue) else 0
    bits = (top + 1).bit_length() - 1
    if not isinstance(value, ImageValue) or value.bits is not None or top + 1 != 1 << bits or not 1 <= bits <= 16:
        raise unsupported(node, "it rounds something other than an image times 2^bits - 1")
    if value.mean.any() or not np.allclose(value.std * top, 1.0, rtol=1e-6):
        raise unsupported(node, "it rounds an image that is normalised already; round first")
    return replace(value, bits=bits)


def normalised(node: onnx.NodeProto, value: ImageValue, constant: Array) -> ImageValue:
    """The image after one operation with a constant per channel."""
    numbers = per_channel(constant, len(value.mean), 4)
    if numbers is None:
        raise unsupported(node, f"it has a constant of shape {constant.shape}; one number per channel is allowed")
    numbers = numbers.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise unsupported(node, "its constant is not finite")
    match node.op_type:
        case "Add":
            return replace(value, mean=value.mean - numbers * value.std)
        case "Sub":
            return replace(value, mean=value.mean + numbers * value.std)
    if not (numbers > 0).all():
        raise unsupported(node, "it scales the image by a number that is not positive")
    return replace(value, std=value.std / numbers if node.op_type == "Mul" else value.std * numbers)


def same(one: ImageValue, other: ImageValue) -> bool:
    return one.bits == other.bits and np.array_equal(one.mean, other.mean) and np.array_equal(one.std, other.std)


def per_channel(constant: Array, channels: int, rank: int) -> Array | None:
    """A constant that broadcasts over an (N, C, ...) tensor of this rank as numbers per channel, shape (C,), else None."""
    shape = (1,) * (rank - constant.ndim) + constant.shape
    if len(shape) != rank or shape[1] not in (1, channels) or any(side != 1 for side in (shape[0], *shape[2:])):
        return None
    return np.broadcast_to(constant.reshape(-1), (channels,))


def axes(node: onnx.NodeProto, inputs: list[Value]) -> list[int]:
    """Axes of a reduction or Squeeze on 4 axes, an attribute once and an input since; [] where left out."""
    given = [attributes(node)["axes"]] if "axes" in attributes(node) else constants(node, inputs)
    return sorted(int(axis) % 4 for axis in given[0]) if given else []


def constants(node: onnx.NodeProto, inputs: list[Value]) -> list[Array]:
    """The inputs after the first, as far as they are given. Raises UnsupportedLayerError unless only the first is no constant."""
    arrays = [value for value in inputs[1:] if isinstance(value, np.ndarray)]
    if len(arrays) != len(inputs) - 1:
        raise unsupported(node, "its weights are no constants; only its first input may depend on the image")
    return [array for array, name in zip(arrays, node.input[1:], strict=True) if name]


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def label(node: onnx.NodeProto) -> str:
    return one_line(node.name or node.op_type.lower())


def one_line(text: object) -> str:
    """Fit for a message; a damaged name may be bytes, endless, or hold control characters."""
    line = "".join(char if char.isprintable() else "?" for char in " ".join(str(text).split()))
    return line if len(line) <= LONGEST_LINE else line[:LONGEST_LINE] + "..."


def unsupported(node: onnx.NodeProto, reason: str) -> UnsupportedLayerError:
    return UnsupportedLayerError(
        f"onnx: operator {node.op_type} of node '{label(node)}' is not supported: {reason}; supported are {SUPPORTED}"
    )


def decimal(value: float) -> float:
    """The shortest decimal that is the same float32: 0.305 for 0.305000007."""
    return float(str(np.float32(value)))
