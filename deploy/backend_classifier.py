"""A backend as a classifier: images in, logits out, no gradient. What black-box attacks need to run on Lava or on a chip."""

import torch
from torch import Tensor

from hardspike.deploy.emulator import Emulator
from hardspike.deploy.input_coding import encode_images
from hardspike.deploy.process_graph import ProcessGraph
from hardspike.deploy.trace import Backend


class BackendClassifier:
    """Float images (B, C, H, W) in [0, 1] to float logits (B, classes), in the units of `Emulator.forward`, by any backend.

    The backend sees only the integer messages that a host would send. Raises DataError for images that do not fit.
    """

    def __init__(self, backend: Backend, graph: ProcessGraph) -> None:
        self.backend, self.graph = backend, graph
        self.logit_unit = Emulator(graph).logit_unit

    def __call__(self, images_BCHW: Tensor) -> Tensor:
        with torch.no_grad():
            trace = self.backend.run(self.graph, encode_images(images_BCHW, self.graph))
        return (trace.output.double() / self.logit_unit).to(images_BCHW.dtype)
