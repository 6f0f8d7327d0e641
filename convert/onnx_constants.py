"""What ONNX operators make of constants, by ONNX's own reference, within bounds: a few bytes can ask for terabytes."""

import math
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

from hardspike.convert.onnx_values import Array

MOST_BYTES = 1 << 29  # of a result: the largest layer of VGG has 2^28.6
SMALL = 1024  # inputs of so many values may be shapes, repeats or ranges, so their values count


def computed_constants(
    node: onnx.NodeProto, given: dict[str, Array], opsets: Sequence[onnx.OperatorSetIdProto]
) -> list[Array]:
    """Outputs of a node whose inputs are all constant, by their names. Raises ValueError where it cannot be done."""
    from onnx.reference import ReferenceEvaluator  # slow to import

    size = _largest_output(node, given, opsets)
    if size is None or size > MOST_BYTES:
        raise ValueError(
            f"it would make {'an unknown number of' if size is None else size} bytes, at most {MOST_BYTES} are allowed"
        )
    inputs = [helper.make_value_info(name, onnx.TypeProto()) for name in given]
    outputs = [helper.make_value_info(name, onnx.TypeProto()) for name in node.output]
    model = helper.make_model(helper.make_graph([node], "constant", inputs, outputs), opset_imports=list(opsets))
    try:
        with np.errstate(all="ignore"):
            return [np.asarray(array) for array in ReferenceEvaluator(model).run(None, given)]
    except Exception as error:  # it raises what numpy raises
        raise ValueError(str(error)) from None


def _largest_output(
    node: onnx.NodeProto, given: dict[str, Array], opsets: Sequence[onnx.OperatorSetIdProto]
) -> int | None:
    """By shape inference, which knows of inputs that say a shape. None where it does not follow from the inputs."""
    kinds = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in given.items()}
    inputs = [helper.make_tensor_value_info(name, kinds[name], array.shape) for name, array in given.items()]
    small = [numpy_helper.from_array(array, name) for name, array in given.items() if array.size <= SMALL]
    outputs = [helper.make_value_info(name, onnx.TypeProto()) for name in node.output]
    graph = helper.make_graph([node], "constant", inputs, outputs, small)
    try:
        model = helper.make_model(graph, opset_imports=list(opsets))
        inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception as error:  # of C++, for whatever it does not understand
        raise ValueError(str(error)) from None
    largest = 0
    for value in inferred.output:
        shape, kind = value.type.tensor_type.shape, value.type.tensor_type.elem_type
        if not value.type.tensor_type.HasField("shape") or not all(dim.HasField("dim_value") for dim in shape.dim):
            return None
        width = helper.tensor_dtype_to_np_dtype(kind).itemsize if kind else 8
        largest = max(largest, math.prod(dim.dim_value for dim in shape.dim) * width)
    return largest
