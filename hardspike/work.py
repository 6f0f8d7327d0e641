"""How much a run computes, from its settings alone: passes of the network, and multiply-accumulates (MACs) of a pass.

MACs are those of convolutions and dense layers; biases, norms, sums, pooling and neurons are not counted. A backward pass to
all weights counts as two forward passes, one to the images alone (an attack's) as one.
"""

from dataclasses import dataclass
from math import prod

from hardspike.attack.members import GREEDY, Member, parse_member
from hardspike.convert.conversion import ConvertSettings
from hardspike.snn.architecture import INPUT, Architecture, BatchNorm, Convolution, Dense, Node, Spiking
from hardspike.train.loop import SCORING_ATTACK
from hardspike.train.settings import FitSettings


@dataclass(frozen=True, slots=True)
class Passes:
    """Passes of the network for one image: forward, backward to the weights, and backward to the image alone."""

    forward: float = 0.0
    backward: float = 0.0
    image_gradient: float = 0.0

    def __add__(self, other: "Passes") -> "Passes":
        return Passes(
            self.forward + other.forward,
            self.backward + other.backward,
            self.image_gradient + other.image_gradient,
        )

    def __mul__(self, factor: float) -> "Passes":
        return Passes(self.forward * factor, self.backward * factor, self.image_gradient * factor)

    @property
    def weight(self) -> float:
        """In forward passes."""
        return self.forward + 2 * self.backward + self.image_gradient


def attack_passes(member: Member) -> Passes:
    """All restarts and targets of one member on an image that survives; every gradient needs a forward pass."""
    steps = member.steps * member.restarts
    match member.kind:
        case "noise":
            return Passes(forward=member.restarts - 1)
        case "square" | "hop-skip-jump":
            return Passes(forward=steps)
        case "apgd-t":
            return Passes(forward=steps, image_gradient=steps) * member.targets
        case "fab-t":
            return Passes(forward=2 * steps, image_gradient=steps) * member.targets
        case "greedy":  # a gradient and a candidate per surrogate
            return Passes(forward=2 * steps, image_gradient=steps) * (len(GREEDY) + 1)
        case "mixpgd":
            return Passes(forward=steps, image_gradient=steps) * 2
        case _:
            return Passes(forward=steps, image_gradient=steps) * member.passes


def crafting_passes(settings: FitSettings) -> Passes:
    """The adversarial image of a training objective; of several attacks the mean."""
    total = Passes(forward=1) if settings.crafting_loss() == "kl" else Passes()
    members = settings.members()
    for member in members:
        again = settings.restarts if member.kind == "pgd" else 1
        judging = Passes(forward=again if again > 1 else 0)
        total += (attack_passes(member) * again + judging) * (1 / len(members))
    return total


def objective_passes(settings: FitSettings) -> Passes:
    """One training image in one epoch."""
    match settings.objective:
        case "natural":
            return Passes(forward=1, backward=1)
        case "adversarial":
            return crafting_passes(settings) + Passes(forward=1, backward=1)
        case "hire":
            looks = settings.periods if settings.hire_keep_noise else settings.periods - 1
            extra = looks / settings.periods if settings.hire_gradient == "updated" else 0.0
            return Passes(forward=1 + extra, backward=1, image_gradient=extra)
        case _:
            return crafting_passes(settings) + Passes(forward=2, backward=2)


def score_passes(settings: FitSettings) -> Passes:
    """One validation image in one epoch, if it survives."""
    if settings.score_eps == 0:
        return Passes(forward=1)
    return attack_passes(parse_member(SCORING_ATTACK)) + Passes(forward=3)


@dataclass(frozen=True, slots=True)
class Work:
    """MACs of one forward pass: `per_step`, all layers once; `once`, those of them that direct coding runs once per image."""

    per_step: int
    once: int

    def per_image(self, time_steps: int | None) -> int:
        return self.per_step if time_steps is None else self.once + time_steps * (self.per_step - self.once)


def node_macs(node: Node, architecture: Architecture) -> int:
    """Of one timestep; biases, norms, sums, pooling and neurons are not counted."""
    outputs = prod(architecture.shapes[node.name])
    source = architecture.shapes[node.sources[0]]
    match node.layer:
        case Convolution(kernel_size=kernel, groups=groups):
            return outputs * (source[0] // groups) * prod(kernel)
        case Dense():
            return outputs * source[0]
    return 0


def work(architecture: Architecture, until: str = "") -> Work:
    """Of the whole network, or of what comes before the node `until`."""
    timed = {INPUT: architecture.input.coding == "poisson"}
    per_step = once = 0
    for node in architecture.nodes:
        if node.name == until:
            break
        own = isinstance(node.layer, Spiking) or (isinstance(node.layer, BatchNorm) and node.layer.steps is not None)
        has_time = any(timed[source] for source in node.sources)
        timed[node.name] = has_time or own
        macs = node_macs(node, architecture)
        per_step += macs
        once += 0 if has_time else macs
    return Work(per_step, once)


def _calibration_batch(settings: ConvertSettings, images: int) -> int:
    return min(settings.calibration_batch_size or settings.batch_size, images)


def calibration_macs(settings: ConvertSettings, architecture: Architecture, images: int) -> int:
    """Of the threshold search: for each neuron layer the network runs up to it. images: in the training part."""
    if settings.method not in ("robust", "max", "diet"):
        return 0
    count = (settings.calibration_batches + settings.slip_eleventh_batch) * _calibration_batch(settings, images)
    layers = architecture.spiking[: settings.balance_layers or None]
    per_image = sum(work(architecture, node.name).per_image(settings.calibration_steps) for node in layers)
    return per_image * min(count, images)


def calibration_bytes(settings: ConvertSettings, architecture: Architecture, images: int) -> int:
    """Input and output of the largest neuron layer on one batch of the threshold search, float32.

    `robust` has all timesteps at a time, the others one.
    """
    steps = settings.calibration_steps if settings.method == "robust" and settings.percentile < 100 else 1
    largest = max(prod(architecture.shapes[node.name]) for node in architecture.spiking)
    return 2 * 4 * largest * steps * _calibration_batch(settings, images)
