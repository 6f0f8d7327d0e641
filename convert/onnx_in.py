"""An ANN from an ONNX file: the operators of convolutional networks become the layers of an `Architecture`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from hardspike.convert.onnx_reader import Built, Reader
from hardspike.convert.onnx_values import decimal, one_line
from hardspike.snn.architecture import INPUT, Architecture, ImageInput, Node
from hardspike.snn.errors import FileError, SettingsError
from hardspike.snn.membrane import NeuronSettings
from hardspike.snn.network import SpikingNetwork

OLDEST_OPSET = 9  # batch norm lost its attribute `spatial` there


def load_onnx(
    path: Path,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    neuron: NeuronSettings = NeuronSettings(),  # noqa: B008 - frozen
) -> SpikingNetwork:
    """The network of an ONNX file as an ANN in evaluation mode, float32; its logits are those of the file.

    Args:
        mean, std: per channel, of the normalisation that the file expects to be done before it; none where it does its own.
        neuron: of every activation. The ANN form stays what the file has (ReLU), whatever `neuron.activation` says.

    Raises:
        FileError: missing, damaged, without image size, or not one image in and one output.
        UnsupportedLayerError: an operator, or a use of it, that no layer here does.
        SettingsError: mean or std given for a file that normalises by itself, or not one per channel.
    """
    model = _model(path)
    try:
        reader = Reader(model, neuron)
    except (ValueError, TypeError) as error:  # numpy's, of a constant with more or fewer bytes than its shape
        raise FileError(f"{path}: a constant is not readable ({one_line(error)}); it is damaged") from None
    reader.begin(*_image(path, model.graph))
    for node in model.graph.node:
        reader.read(node)
    if len(model.graph.output) != 1:
        raise FileError(
            f"{path}: {len(model.graph.output)} outputs found; one is allowed, the logits; export no others"
        )
    output = model.graph.output[0].name
    last = reader.source(reader.values.get(output, np.zeros(0)), output)
    if last == INPUT:
        raise FileError(f"{path}: no layers between image and output; give a network")
    image = _image_input(path, reader, mean, std)
    return _network(path, image, reader.built, last)


def _model(path: Path) -> onnx.ModelProto:
    """The checked file. Raises FileError."""
    if not path.is_file():
        raise FileError(f"{path}: no such file; expected an ONNX file")
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model, full_check=True)
    except (
        DecodeError,
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
        OSError,
        ValueError,
    ) as error:
        raise FileError(
            f"{path}: not a readable ONNX file ({one_line(error)}); it is damaged or of another format"
        ) from None
    opset = max([entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")], default=0)
    if opset < OLDEST_OPSET:
        raise FileError(f"{path}: opset {opset} found; {OLDEST_OPSET} or newer is allowed; export it again")
    return model


def _image(path: Path, graph: onnx.GraphProto) -> tuple[str, int | str, tuple[int, int, int]]:
    """Name, batch size (a name where it is open) and (C, H, W) of the one input that is no constant."""
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    if len(inputs) != 1:
        raise FileError(f"{path}: {len(inputs)} inputs found; one is allowed, the image; export without the others")
    name = inputs[0].name
    dims = [dim.dim_value or dim.dim_param or "?" for dim in inputs[0].type.tensor_type.shape.dim]
    if len(dims) != 4:
        raise FileError(
            f"{path}: input '{one_line(name)}' has {len(dims)} axes; 4 are allowed, (N, C, H, W); export images"
        )
    sides = tuple(dim for dim in dims[1:] if isinstance(dim, int) and dim > 0)
    if len(sides) != 3:
        raise FileError(
            f"{path}: input '{one_line(name)}' has shape ({one_line(', '.join(map(str, dims)))}); only N may be open; give static C, H, W"
        )
    return name, dims[0], (sides[0], sides[1], sides[2])


def _image_input(path: Path, reader: Reader, mean: Sequence[float] | None, std: Sequence[float] | None) -> ImageInput:
    image, channels = reader.image, reader.shapes[INPUT][0]
    if image is None:
        raise FileError(f"{path}: the output does not depend on the image; export it again")
    found = ([decimal(value) for value in image.mean], [decimal(value) for value in image.std])
    if mean is not None or std is not None:
        if image.bits is not None or found != ([0.0] * channels, [1.0] * channels):
            raise SettingsError(f"{path}: mean and std given, but the file normalises its image itself; leave them out")
        found = (list(mean or [0.0] * channels), list(std or [1.0] * channels))
    shape: Any = reader.shapes[INPUT]
    return ImageInput(shape=shape, mean=tuple(found[0]), std=tuple(found[1]), bits=image.bits)


def _network(path: Path, image: ImageInput, built: dict[str, Built], last: str) -> SpikingNetwork:
    """The layers that `last` needs, with their weights."""
    needed = {last}
    for name in reversed(built):  # sources come earlier
        if name in needed:
            needed.update(built[name].sources)
    kept = {name: entry for name, entry in built.items() if name in needed}
    nodes = [Node(name=name, layer=entry.layer, sources=entry.sources) for name, entry in kept.items()]
    network = SpikingNetwork(Architecture(input=image, nodes=tuple(nodes)))
    for name, entry in kept.items():
        tensors = {key: torch.from_numpy(np.array(array, dtype=np.float32)) for key, array in entry.tensors.items()}
        if any(not torch.isfinite(tensor).all() for tensor in tensors.values()):
            raise FileError(f"{path}: a weight of layer '{name}' is not finite; train again")
        try:
            network.layers[name].load_state_dict(tensors, strict=False)
        except RuntimeError as error:
            reason = one_line(str(error).splitlines()[-1])
            raise FileError(f"{path}: weights of layer '{name}' do not fit ({reason}); it is damaged") from None
    return network.eval()
