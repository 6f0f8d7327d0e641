"""What ONNX Runtime, which is not ours, makes of an ONNX file."""

from pathlib import Path

import onnx
import onnxruntime
import torch
from torch import Tensor


def runtime(model: Path | onnx.ModelProto, batch: Tensor) -> Tensor:
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: batch.numpy()})
    return torch.from_numpy(output)


def assert_same(found: Tensor, expected: Tensor, relative: float = 1e-5) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= relative * float(expected.abs().max())
    assert float(expected.std()) > 0
