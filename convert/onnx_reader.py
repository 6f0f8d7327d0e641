"""From ONNX operators to the layers of an `Architecture`, with their weights: the walk through the graph behind `load_onnx`.

Each tensor is a constant array, the image (rounded or normalised so far), or a layer's output times a factor that no layer
has taken up yet. What depends on constants alone, tensor shapes included, is computed with ONNX's own reference.
"""

from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import numpy_helper

from hardspike.convert.layer_names import layer_name
from hardspike.convert.onnx_constants import computed_constants
from hardspike.convert.onnx_values import (
    Activation,
    Array,
    ImageValue,
    Value,
    attributes,
    axes,
    constants,
    decimal,
    label,
    normalised,
    one_line,
    per_channel,
    rounded,
    same,
    unsupported,
)
from hardspike.snn.architecture import (
    INPUT,
    AveragePool,
    BatchNorm,
    Convolution,
    Dense,
    Flatten,
    Layer,
    Shape,
    Spiking,
    WeightedSum,
)
from hardspike.snn.errors import FileError, UnsupportedLayerError
from hardspike.snn.membrane import NeuronSettings

# What `onnx_out` writes for the clip-floor activation of QCFS.
CLIP_FLOOR = ("Div", "Mul", "Add", "Floor", "Div", "Clip", "Mul")
ADVICE = {
    "MaxPool": "use average pooling",
    "GlobalMaxPool": "use average pooling",
    "Softmax": "export the logits before it",
    "LogSoftmax": "export the logits before it",
}


@dataclass(slots=True)
class Built:
    layer: Layer
    sources: tuple[str, ...]
    tensors: dict[str, Array]


class Reader:
    """Walks the graph; `built` are the layers found so far, `values` what each ONNX tensor is."""

    def __init__(self, model: onnx.ModelProto, neuron: NeuronSettings) -> None:
        graph = model.graph
        self.opsets, self.neuron = model.opset_import, neuron
        self.built: dict[str, Built] = {}
        self.shapes: dict[str, Shape] = {}
        self.image: ImageValue | None = None
        self.values: dict[str, Value] = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self.values[""] = np.zeros(0)  # an input left out
        self.batch: int | str = "?"
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.results = {value.name for value in graph.output}
        self.weighted = {node.output[0] for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")}
        self.skipped: set[str] = set()  # outputs inside a chain that was read as a whole

    def begin(self, image: str, batch: int | str, shape: tuple[int, int, int]) -> None:
        """The ONNX tensor `image` is the image, of this batch size (a number where it is fixed) and shape (C, H, W)."""
        self.batch, self.shapes[INPUT] = batch, shape
        self.values[image] = ImageValue(np.zeros(shape[0]), np.ones(shape[0]))

    def read(self, node: onnx.NodeProto) -> None:
        """Enter the outputs of one ONNX node into `values`."""
        if node.output[0] in self.skipped:
            return
        for name in node.input:
            if name not in self.values:
                raise unsupported(node, f"its input '{one_line(name)}' is a second output of another node, or sparse")
        inputs = [self.values[name] for name in node.input]
        if any(attribute.HasField("g") for attribute in node.attribute) or node.op_type.startswith("Random"):
            raise unsupported(node, "it branches, loops or draws random numbers")
        if node.domain not in ("", "ai.onnx"):
            raise unsupported(node, f"domain '{node.domain}' is unknown")
        if node.op_type == "Shape" and not isinstance(inputs[0], np.ndarray):
            self.values[node.output[0]] = self.tensor_shape(node, inputs[0])
        elif len(arrays := [value for value in inputs if isinstance(value, np.ndarray)]) == len(inputs):
            self.values |= dict(zip(node.output, self.computed(node, arrays), strict=True))
        else:
            self.values[node.output[0]] = self.operator(node, inputs)

    def operator(self, node: onnx.NodeProto, inputs: list[Value]) -> Value:
        """What an operator on the image or on activations gives."""
        match node.op_type:
            case "Identity" | "Dropout":
                if len(inputs) > 2 and np.asarray(inputs[2]).any():
                    raise unsupported(node, "training_mode is set; export in evaluation mode")
                return inputs[0]
            case "Conv":
                return self.convolution(node, inputs)
            case "BatchNormalization":
                return self.batch_norm(node, inputs)
            case "Relu":
                return self.layer(node, Spiking(neuron=replace(self.neuron, activation="relu")), inputs[0])
            case "AveragePool":
                return self.layer(node, self.pooling(node, inputs[0]), inputs[0])
            case "GlobalAveragePool":
                return self.layer(node, self.whole_image(node, inputs[0]), inputs[0])
            case "ReduceMean":
                return self.mean(node, inputs)
            case "Gemm" | "MatMul":
                return self.dense(node, inputs)
            case "Flatten" | "Reshape" | "Squeeze":
                return self.flatten(node, inputs)
            case "Round":
                return rounded(node, inputs[0])
            case "Add" | "Sub" | "Mul" | "Div":
                return self.arithmetic(node, inputs)
        advice = ADVICE.get(node.op_type)
        raise unsupported(node, f"it has no layer here{'; ' + advice if advice else ''}")

    def source(self, value: Value, wanted_by: str) -> str:
        """Name of the layer (or `input`) that gives this value; a factor not taken up becomes a sum of one."""
        if isinstance(value, np.ndarray):
            raise FileError(f"onnx: '{one_line(wanted_by)}' does not depend on the image; export it again")
        if isinstance(value, ImageValue):
            if self.image is not None and not same(self.image, value):
                raise UnsupportedLayerError(
                    f"onnx: '{one_line(wanted_by)}' reads the image with another normalisation than the layers before; "
                    "one for all is allowed; normalise once at the start"
                )
            self.image = value
            return INPUT
        if value.factor == 1.0:
            return value.source
        return self.append(f"{value.source}_scaled", WeightedSum(initial=(value.factor,)), (value.source,))

    def append(self, name: str, layer: Layer, sources: tuple[str, ...], **tensors: Array) -> str:
        """Add a layer under a valid name not used before."""
        unique = layer_name(name, self.shapes)
        self.built[unique] = Built(layer, sources, tensors)
        self.shapes[unique] = layer.output_shape(self.shapes[sources[0]])
        return unique

    def layer(self, node: onnx.NodeProto, layer: Layer, value: Value, **tensors: Array) -> Activation:
        name = label(node)
        return Activation(self.append(name, layer, (self.source(value, name),), **tensors))

    def shape(self, value: Value) -> Shape:
        return self.shapes[value.source if isinstance(value, Activation) else INPUT]

    def tensor_shape(self, node: onnx.NodeProto, value: Value) -> Array:
        # Batch axis 0: that is how Reshape is told to leave an axis as it is.
        given = attributes(node)
        return np.array([0, *self.shape(value)])[given.get("start", 0) : given.get("end")]

    def convolution(self, node: onnx.NodeProto, inputs: list[Value]) -> Value:
        weight, *biases = constants(node, inputs)
        given = attributes(node)
        top, left, bottom, right = given.get("pads", [0] * 4) if weight.ndim == 4 else [0] * 4
        if weight.ndim != 4:
            raise unsupported(node, f"its kernel has {weight.ndim - 2} axes; 2 are allowed")
        if given.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
            raise unsupported(node, f"auto_pad is {given['auto_pad'].decode()}; write the pads out")
        if (top, left) != (bottom, right):
            raise unsupported(node, f"its pads {given['pads']} differ between begin and end; make them equal")
        stride, dilation = (tuple(given.get(key, (1, 1))) for key in ("strides", "dilations"))
        groups = given.get("group", 1)
        if min(groups, *stride, *dilation, *weight.shape) < 1 or min(top, left) < 0:
            raise unsupported(node, "its group, strides, dilations and kernel must be at least 1, its pads at least 0")
        layer = Convolution(
            out_channels=weight.shape[0],
            kernel_size=(weight.shape[2], weight.shape[3]),
            stride=stride,
            padding=(top, left),
            dilation=dilation,
            groups=groups,
            bias=bool(biases),
        )
        return self.layer(node, layer, inputs[0], weight=weight, **({"bias": biases[0]} if biases else {}))

    def batch_norm(self, node: onnx.NodeProto, inputs: list[Value]) -> Value:
        weight, bias, mean, variance = constants(node, inputs)
        given = attributes(node)
        if given.get("training_mode", 0) or len(node.output) > 1:
            raise unsupported(node, "it is in training mode; export in evaluation mode")
        layer = BatchNorm(eps=decimal(given.get("epsilon", 1e-5)))
        return self.layer(node, layer, inputs[0], weight=weight, bias=bias, running_mean=mean, running_var=variance)

    def dense(self, node: onnx.NodeProto, inputs: list[Value]) -> Value:
        weight, *biases = constants(node, inputs)
        given = attributes(node)
        if len(self.shape(inputs[0])) != 1 or weight.ndim != 2 or given.get("transA", 0):
            raise unsupported(node, "it is no product of (N, features) with a matrix; flatten before it")
        with np.errstate(all="ignore"):  # what is not finite is refused with the layer's name
            weight = weight * given.get("alpha", 1.0)
            biases = [bias * given.get("beta", 1.0) for bias in biases]
        weight = weight if given.get("transB", 0) else weight.T
        layer = Dense(out_features=len(weight), bias=bool(biases))
        if not biases:
            return self.layer(node, layer, inputs[0], weight=weight)
        bias = per_channel(biases[0], len(weight), 2)
        if bias is None:
            raise unsupported(node, f"its bias has shape {biases[0].shape}; one number per feature is allowed")
        return self.layer(node, layer, inputs[0], weight=weight, bias=bias)

    def pooling(self, node: onnx.NodeProto, value: Value) -> AveragePool:
        given = attributes(node)
        kernel = tuple(given["kernel_shape"])
        sides = self.shape(value)[1:]
        if any(given.get("pads", [])) or given.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
            raise unsupported(node, "it pads; pad nothing")
        strides = given.get("strides", [1] * len(kernel))
        steps = list(zip(sides, kernel, strides, strict=True)) if len(kernel) == len(sides) == 2 else []
        # With room for one window only, its stride does not matter.
        if not steps or any(stride != taps and side - taps >= stride for side, taps, stride in steps):
            raise unsupported(
                node, f"its windows {kernel} step by {tuple(strides)}; use 2-d windows that do not overlap"
            )
        rest = any((side - taps) % stride for side, taps, stride in steps)
        if any(dilation != 1 for dilation in given.get("dilations", [])) or (given.get("ceil_mode", 0) and rest):
            raise unsupported(node, "it has dilation or ceil_mode; use whole, dense windows")
        return AveragePool(kernel_size=kernel)

    def whole_image(self, node: onnx.NodeProto, value: Value) -> AveragePool:
        sides = self.shape(value)[1:]
        if len(sides) != 2:
            raise unsupported(node, f"it pools over {len(sides)} axes; 2 are allowed")
        return AveragePool(kernel_size=(sides[0], sides[1]))

    def mean(self, node: onnx.NodeProto, inputs: list[Value]) -> Value:
        if len(self.shape(inputs[0])) != 3 or axes(node, inputs) != [2, 3]:
            raise unsupported(node, "it is no mean over height and width; pool globally")
        pooled = self.layer(node, self.whole_image(node, inputs[0]), inputs[0])
        return pooled if attributes(node).get("keepdims", 1) else self.layer(node, Flatten(), pooled)

    def flatten(self, node: onnx.NodeProto, inputs: list[Value]) -> Value:
        shape = self.shape(inputs[0])
        size = int(np.prod(shape))
        if node.op_type == "Flatten":
            is_flat = attributes(node).get("axis", 1) in (1, -len(shape))
        elif node.op_type == "Squeeze":
            is_flat = shape[1:] == (1, 1) and axes(node, inputs) == [2, 3]
        else:
            target = [int(side) for side in constants(node, inputs)[0]]
            if target in ([side, *shape] for side in (0, -1)):
                return inputs[0]
            is_flat = target in ([0, -1], [0, size], [-1, size])
            is_flat |= len(target) == 2 and target[0] == self.batch and target[1] in (-1, size)
        if not is_flat:
            raise unsupported(node, f"it does not turn {('N', *shape)} into {('N', size)}; flatten from axis 1")
        return inputs[0] if len(shape) == 1 else self.layer(node, Flatten(), inputs[0])

    def arithmetic(self, node: onnx.NodeProto, inputs: list[Value]) -> Value:
        """Normalisation of the image, sum of two activations, factor on one, bias of a layer."""
        left, right = inputs
        if isinstance(left, np.ndarray) and node.op_type in ("Add", "Mul"):
            left, right = right, left
        if isinstance(left, np.ndarray):
            raise unsupported(node, "a constant stands before it; write it with the activation first")
        if not isinstance(right, np.ndarray):
            if node.op_type != "Add" or self.shape(left) != self.shape(right):
                raise unsupported(node, "of two activations only the sum is known, of equal shapes")
            factors = tuple(value.factor if isinstance(value, Activation) else 1.0 for value in (left, right))
            sources = [
                replace(value, factor=1.0) if isinstance(value, Activation) else value for value in (left, right)
            ]
            names = tuple(self.source(value, label(node)) for value in sources)
            return Activation(self.append(label(node), WeightedSum(initial=factors), names))
        if isinstance(left, ImageValue):
            return normalised(node, left, right)
        if node.op_type == "Div" and (activation := self.clip_floor(node, left, right)):
            return activation
        if node.op_type in ("Mul", "Div") and right.size == 1 and right.ndim <= len(self.shape(left)) + 1:
            factor = decimal(right.item())
            if factor == 0 or not np.isfinite(factor):
                raise unsupported(node, f"its factor is {factor}; a finite one other than 0 is allowed")
            return replace(left, factor=left.factor * factor if node.op_type == "Mul" else left.factor / factor)
        built, shape = self.built[left.source], self.shape(left)
        bias = per_channel(right, shape[0], len(shape) + 1)
        # The layer changes for whoever else reads it, so nobody else may.
        alone = [name for name in node.input if name in self.weighted and len(self.readers[name]) == 1]
        if node.op_type != "Add" or bias is None or not alone or "bias" in built.tensors or alone[0] in self.results:
            raise unsupported(node, "with a constant, only a scalar factor and the bias of a layer are known")
        assert isinstance(built.layer, Convolution | Dense)
        built.layer = replace(built.layer, bias=True)
        built.tensors["bias"] = bias
        return left

    def clip_floor(self, first: onnx.NodeProto, value: Activation, threshold: Array) -> Activation | None:
        """The activation whose chain of nodes starts here, or None."""
        chain = [first]
        for operator in CLIP_FLOOR[1:]:
            readers = self.readers.get(chain[-1].output[0], [])
            if len(readers) != 1 or readers[0].op_type != operator:
                return None
            chain.append(readers[0])
        arrays = [self.values.get(name) for node in chain for name in node.input[1:]]
        numbers = [float(array.item()) for array in arrays if isinstance(array, np.ndarray) and array.size == 1]
        if len(numbers) != 7 or self.results & {node.output[0] for node in chain[:-1]}:
            return None
        levels = numbers[1]
        if numbers != [numbers[0], levels, 0.5, levels, 0.0, 1.0, numbers[0]] or not levels.is_integer():
            return None
        self.skipped.update(node.output[0] for node in chain[1:])
        neuron = replace(self.neuron, activation="clip-floor", levels=int(levels))
        activation = self.layer(chain[-1], Spiking(neuron=neuron), value, threshold=threshold.reshape(()))
        self.values[chain[-1].output[0]] = activation
        return activation

    def computed(self, node: onnx.NodeProto, arrays: list[Array]) -> list[Array]:
        """Outputs of a node that depends on constants alone."""
        given = {name: array for name, array in zip(node.input, arrays, strict=True) if name}
        try:
            return computed_constants(node, given, self.opsets)
        except ValueError as error:
            raise unsupported(node, f"its constants cannot be computed: {one_line(error)}") from None
