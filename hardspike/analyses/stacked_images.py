"""Two images above each other, a network that takes them, and which of the two it settles on."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from hardspike.snn.architecture import INPUT, Architecture, AveragePool, Dense, Node, Shape
from hardspike.snn.network import SpikingNetwork

# Keeps the first step's division finite where steps are counted from 0; here they are counted from 1.
STEP_OFFSET = 1e-3


def random_pairs(labels: Tensor, count: int, seed: int) -> Tensor:
    """Rows of images of different classes, int64 [count, 2] (top, bottom); [0, 2] where all images are of one class."""
    if len(labels.unique()) < 2:
        return torch.empty(0, 2, dtype=torch.int64)
    generator = torch.Generator().manual_seed(seed)
    tops = torch.randint(len(labels), (count,), generator=generator)
    bottoms = []
    for top in tops:
        others = torch.nonzero(labels != labels[top]).flatten()
        bottoms.append(others[torch.randint(len(others), (1,), generator=generator)])
    return torch.stack([tops, torch.cat(bottoms)], 1)


def stacked(top_BCHW: Tensor, bottom_BCHW: Tensor) -> Tensor:
    """(B, C, 2 H, W)."""
    return torch.cat([top_BCHW, bottom_BCHW], 2)


def shrunk(images_BCHW: Tensor) -> Tensor:
    """Half the height: means of two rows each."""
    return F.avg_pool2d(images_BCHW, (2, 1))


def taller(network: SpikingNetwork) -> SpikingNetwork | None:
    """The network for images of twice the height, with the same weights; None where its dense layers fix the height.

    A pooling over the whole plane pools over the whole of the taller one.
    """
    architecture = _taller(network.architecture)
    if architecture is None:
        return None
    twin = SpikingNetwork(architecture, network.time_steps)
    twin.load_state_dict(network.state_dict())
    return twin.eval()


def _taller(architecture: Architecture) -> Architecture | None:
    channels, height, width = architecture.input.shape
    image = replace(architecture.input, shape=(channels, 2 * height, width))
    shapes: dict[str, Shape] = {INPUT: image.shape}
    nodes: list[Node] = []
    for node in architecture.nodes:
        layer, source = node.layer, node.sources[0]
        if isinstance(layer, AveragePool) and layer.kernel_size == architecture.shapes[source][1:]:
            layer = AveragePool(kernel_size=(shapes[source][1], shapes[source][2]))
        if isinstance(layer, Dense) and shapes[source] != architecture.shapes[source]:
            return None
        shapes[node.name] = layer.output_shape(shapes[source])
        nodes.append(replace(node, layer=layer))
    if shapes[nodes[-1].name] != architecture.shapes[nodes[-1].name]:
        return None
    return replace(architecture, input=image, nodes=tuple(nodes))


def confidences(potentials_TBK: Tensor) -> Tensor:
    """softmax(v(t) / (t + 1e-3)) over classes, float64 [T, B, K], t from 1 (after the first step).

    potentials_TBK: what the output layer has added up by the end of each step, in float units of the logits' sum over steps.
    """
    steps = torch.arange(1, len(potentials_TBK) + 1, dtype=torch.float64)
    return (potentials_TBK.double() / (steps + STEP_OFFSET)[:, None, None]).softmax(2)


def late_steps(steps: int) -> int:
    """How many of the last steps count as late: a quarter, at least one."""
    return max(1, steps // 4)


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """Per pair, of the late steps. late: class of the largest mean confidence, int64 [B]. confidence: that mean, [B, K].

    settled: bool [B], the same class leads at every late step, and it is one of the two. side: 0 or 1 (top or bottom) where
    `late` is one of the two, else -1. is_prediction: `late` is the class of the final output.
    """

    late: Tensor
    confidence: Tensor
    settled: Tensor
    side: Tensor
    is_prediction: Tensor


def outcome(confidences_TBK: Tensor, labels_B2: Tensor, predicted: Tensor) -> Outcome:
    """labels_B2: classes of top and bottom. predicted: class of the final output, int64 [B]."""
    late_TBK = confidences_TBK[-late_steps(len(confidences_TBK)) :]
    mean = late_TBK.mean(0)
    late, leaders = mean.argmax(1), late_TBK.argmax(2)
    is_side = late[:, None] == labels_B2
    side = torch.where(is_side[:, 0], 0, torch.where(is_side[:, 1], 1, -1))
    settled = (leaders == late).all(0) & (side >= 0)
    return Outcome(late, mean, settled, side, late == predicted)


def half_masses(maps_TBHW: Tensor) -> Tensor:
    """Sum of the maps' late steps over the upper and the lower half, float64 [B, 2]; a middle row belongs to both by half."""
    rows_BH = maps_TBHW[-late_steps(len(maps_TBHW)) :].double().sum((0, 3))
    half, height = rows_BH.shape[1] // 2, rows_BH.shape[1]
    middle = rows_BH[:, half : height - half].sum(1) / 2
    return torch.stack([rows_BH[:, :half].sum(1) + middle, rows_BH[:, height - half :].sum(1) + middle], 1)
