"""Stage `replay`: clean, noisy and adversarial images on a deployed network, and what survives.

Every set is first brought to the input's grid *inside* the attack's ball: what a sensor could have sent.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hardspike.attack.adversarial_set import AdversarialSet
from hardspike.attack.ball import Ball
from hardspike.attack.evaluation import member_seed, predict
from hardspike.attack.gradient import Logits
from hardspike.attack.problem import SampleDraws
from hardspike.deploy.input_coding import encode_images, quantize_images
from hardspike.deploy.process_graph import ProcessGraph
from hardspike.deploy.trace import Backend, Trace
from hardspike.snn.data import ImageSet
from hardspike.snn.ranges import require

BACKENDS = ("emulator", "lava", "loihi2")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaySettings:
    """backend: emulator, lava (simulator) or loihi2 (hardware). images: how many of each set, from the first."""

    backend: str = "emulator"
    images: int = 360

    def __post_init__(self) -> None:
        require("replay.backend", self.backend, self.backend in BACKENDS, f"use {', '.join(BACKENDS)}")
        require("replay.images", self.images, self.images >= 1, "use 1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class SetOrigin:
    """Where a set of images comes from. kind: clean, noise or attack; made_on: the network that was attacked ('' otherwise)."""

    name: str
    kind: str
    eps: float = 0.0
    made_on: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReplaySet:
    """images: float (N, C, H, W) as the attack left them; clean: what they were made from, with labels."""

    origin: SetOrigin
    images: Tensor
    clean: ImageSet


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Replayed:
    """What came of one set. right_*: bool [N]; exact: on the images as the attack left them, before the input's grid.

    agreement: share of images that the float SNN and the deployed network put into the same class.
    """

    origin: SetOrigin
    trace: Trace
    right_deployed: Tensor
    right_snn: Tensor
    right_ann: Tensor
    right_snn_exact: Tensor
    agreement: float


def on_grid_inside_ball(images: Tensor, clean: Tensor, eps: float, bits: int) -> Tensor:
    """Nearest grid values k / (2^bits - 1) within eps of `clean`; the clean pixel's own grid value where the ball holds none."""
    return Ball.around(clean, eps, grid=(1 << bits) - 1).rounded(images)


def replay_sets(clean: ImageSet, attacks: list[AdversarialSet], seed: int) -> list[ReplaySet]:
    """Clean images, then per budget noise of the same size (each pixel moved by +eps or -eps) and every attack."""
    sets = [ReplaySet(origin=SetOrigin(name="clean", kind="clean"), images=clean.images, clean=clean)]
    for eps in sorted({made.evaluation.eps for made in attacks}):
        draws = SampleDraws(member_seed(seed, "noise"), torch.arange(len(clean)))
        noisy = Ball.around(clean.images, eps).corner(draws.uniform(0, clean.images))
        origin = SetOrigin(name=f"noise eps {eps:g}", kind="noise", eps=eps)
        sets.append(ReplaySet(origin=origin, images=noisy, clean=clean))
        for made in attacks:
            if made.evaluation.eps == eps:
                name = f"attack on {made.target} eps {eps:g}"
                origin = SetOrigin(name=name, kind="attack", eps=eps, made_on=made.target)
                sets.append(ReplaySet(origin=origin, images=made.evaluation.images, clean=made.clean))
    return sets


def sent_images(replay_set: ReplaySet, bits: int) -> Tensor:
    """What a sensor of `bits` bits could have sent: on the grid, and where the set was attacked inside the attack's ball."""
    if replay_set.origin.kind == "clean":
        return quantize_images(replay_set.images, bits)
    return on_grid_inside_ball(replay_set.images, replay_set.clean.images, replay_set.origin.eps, bits)


def replay(
    replay_set: ReplaySet,
    graph: ProcessGraph,
    backend: Backend,
    *,
    ann: Logits,
    snn: Logits,
    progress: Callable[[int], None] | None = None,
) -> Replayed:
    """Run one set on a backend, and on the float networks for comparison."""
    labels = replay_set.clean.labels
    images = sent_images(replay_set, graph.input.image_bits)
    trace = backend.run(graph, encode_images(images, graph), progress=progress)
    snn_class = predict(snn, images)
    return Replayed(
        origin=replay_set.origin,
        trace=trace,
        right_deployed=trace.predicted == labels,
        right_snn=snn_class == labels,
        right_ann=predict(ann, images) == labels,
        right_snn_exact=predict(snn, replay_set.images) == labels,
        agreement=float((snn_class == trace.predicted).double().mean()),
    )
