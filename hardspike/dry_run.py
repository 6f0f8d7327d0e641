"""`hardspike run --dry-run`: what a recipe's run would cost, counted from its settings and measured for some seconds.

Counted are multiply-accumulates, see `hardspike.work`. Measured are training steps of each stage's own objective on random
images, few of them and few timesteps, scaled up in proportion. Files of a published data set are not read, and nothing is
written.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from math import ceil
from typing import Any

import torch
from torch import Tensor

from hardspike.attack.gradient import cross_entropy, gradient
from hardspike.attack.suites import distinct
from hardspike.recipe import Recipe
from hardspike.snn.data import ImageSet, Splits
from hardspike.snn.data_facts import ExpectedSplits, expected_splits
from hardspike.snn.network import SpikingNetwork, num_neurons, num_parameters
from hardspike.snn.surrogate import Activation
from hardspike.train.draws import whole
from hardspike.train.first_network import first_network
from hardspike.train.loop import make_optimiser, next_loss, update
from hardspike.train.objectives import objective
from hardspike.train.settings import FitSettings
from hardspike.work import attack_passes, calibration_bytes, calibration_macs, objective_passes, score_passes, work

MEASURING_SECONDS = 10.0
MEASURED_STEPS = 8  # timesteps at most; every further one costs the same
FLOAT_BYTES = 4


@dataclass(slots=True)
class _Kept:
    """A tensor that autograd keeps; tells its owner when it is let go."""

    tensor: Tensor
    let_go: Callable[[Tensor], None]

    def __del__(self) -> None:
        self.let_go(self.tensor)


class KeptBytes:
    """Hooks that count what autograd keeps for backward passes: each storage once, the network's own left out."""

    def __init__(self, network: SpikingNetwork) -> None:
        self.peak = 0
        self.now = 0
        self._own = {tensor.untyped_storage().data_ptr() for tensor in network.state_dict().values()}
        self._holders: dict[int, int] = {}

    def pack(self, tensor: Tensor) -> _Kept:
        self._count(tensor, 1)
        return _Kept(tensor, lambda gone: self._count(gone, -1))

    def unpack(self, kept: _Kept) -> Tensor:
        return kept.tensor

    def _count(self, tensor: Tensor, change: int) -> None:
        storage = tensor.untyped_storage()
        key = storage.data_ptr()
        if key in self._own:
            return
        before = self._holders.get(key, 0)
        self._holders[key] = before + change
        if (before == 0) != (before + change == 0):
            self.now += change * storage.nbytes()
            self.peak = max(self.peak, self.now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """images, time_steps: of the largest step measured. Seconds: `step` per image, `update` per optimiser step, `forward` and

    `image_gradient` (with its forward pass) per image in evaluation mode. kept_bytes: per image, most at a time, or 0.
    """

    images: int
    time_steps: int | None
    step: float
    update: float
    forward: float
    image_gradient: float
    kept_bytes: float

    def scaled(self, cost: float, memory: float) -> "Measured":
        """For more timesteps: `cost` and `memory` times as much."""
        return replace(
            self,
            step=self.step * cost,
            forward=self.forward * cost,
            image_gradient=self.image_gradient * cost,
            kept_bytes=self.kept_bytes * memory,
        )


def _clock(device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def _still_optimiser(settings: FitSettings, network: SpikingNetwork) -> torch.optim.Optimizer:
    """With a rate of 0 a step costs the same, and weights stay finite whatever they are trained on."""
    optimiser = make_optimiser(settings, [parameter for parameter in network.parameters() if parameter.requires_grad])
    for group in optimiser.param_groups:
        group["lr"] = 0.0
    return optimiser


def _step(
    network: SpikingNetwork,
    settings: FitSettings,
    optimiser: torch.optim.Optimizer,
    batch: tuple[Tensor, Tensor],
    device: str,
) -> float:
    """One batch as the training loop runs it; returns the seconds of its optimiser steps."""
    images, labels = batch
    generator = torch.Generator().manual_seed(0)
    losses = objective(settings)(network.train(), images, labels, whole(generator, len(images)))
    updating = 0.0
    while (loss := next_loss(losses, settings, torch.device(device))) is not None:
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        start = _clock(device)
        update(network, optimiser, settings, generator)
        updating += _clock(device) - start
    return updating


def measure(
    network: SpikingNetwork, settings: FitSettings, images: Tensor, *, epochs: int, seconds: float, device: str
) -> Measured:
    """Steps of the objective (none for `epochs` = 0) and plain passes, on ever more of `images` until `seconds` have passed."""
    network.to(device)
    if settings.channels_last:
        network.use_channels_last()
    images = images.to(device)
    labels = torch.arange(len(images), device=device) % network.architecture.num_classes
    end = _clock(device) + seconds
    count = min(2, len(images))
    step = updating = 0.0
    kept = KeptBytes(network)
    if epochs:
        optimiser = _still_optimiser(settings, network)
        with torch.autograd.graph.saved_tensors_hooks(kept.pack, kept.unpack):
            step, updating = _timed_step(network, settings, optimiser, images[:count], labels[:count], device)
        kept_images, end_of_steps = count, end - seconds / 4
        warm = True  # the first step is slow; it stands only where there is no time for another
        while (warm or count < len(images)) and _clock(device) + (1 if warm else 2) * step < end_of_steps:
            count = count if warm else min(2 * count, len(images))
            warm = False
            step, updating = _timed_step(network, settings, optimiser, images[:count], labels[:count], device)
        optimiser.zero_grad(set_to_none=True)
    network.eval()
    passes: list[Callable[[], object]] = [
        lambda: gradient(network, images[:count], cross_entropy(labels[:count])),
        lambda: _logits(network, images[:count]),
    ]
    took = []
    for run in passes:
        start = _clock(device)
        run()
        took.append(_clock(device) - start)
        if _clock(device) + took[-1] < end:  # again, warmed up
            start = _clock(device)
            run()
            took[-1] = _clock(device) - start
    return Measured(
        images=count,
        time_steps=network.time_steps,
        step=max(step - updating, 0.0) / count,
        update=updating,
        forward=took[1] / count,
        image_gradient=took[0] / count,
        kept_bytes=kept.peak / kept_images if epochs else 0.0,
    )


def _timed_step(
    network: SpikingNetwork,
    settings: FitSettings,
    optimiser: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    device: str,
) -> tuple[float, float]:
    start = _clock(device)
    updating = _step(network, settings, optimiser, (images, labels), device)
    return _clock(device) - start, updating


def _logits(network: SpikingNetwork, images: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = network(images)
    return logits


def dry_run(recipe: Recipe, seconds: float = MEASURING_SECONDS) -> dict[str, Any]:
    """Everything the command prints, as plain values; bytes, seconds and MACs as numbers.

    seconds: how long to measure, all networks together. Raises what reading one's own images raises (`folder`, `npz`).
    """
    torch.set_num_threads(recipe.threads)
    control = recipe.control_recipe()
    recipes = [recipe] if control is None else [recipe, control]
    data = expected_splits(recipe.data)
    return {
        "recipe": recipe.name,
        "stages": list(recipe.stages),
        "data": {"dataset": recipe.data.dataset} | asdict(data),
        "threads": recipe.threads,
        "device": recipe.device,
        "networks": [_Plan(one, data, seconds / len(recipes)).values() for one in recipes],
    }


class _Plan:
    """One network of a run: the recipe's own or its control."""

    def __init__(self, recipe: Recipe, data: ExpectedSplits, seconds: float) -> None:
        self.recipe, self.data, self.seconds = recipe, data, seconds
        self.images = torch.rand(max(recipe.train.batch_size, recipe.convert.batch_size), *data.shape)
        few = ImageSet(self.images[:1], torch.zeros(1, dtype=torch.int64), data.num_classes)
        self.splits = Splits(few, few, few)
        self.steps = {"train": recipe.train.time_steps or None, "convert": recipe.convert.time_steps}
        whole_network = first_network(recipe.train, recipe.network, self.splits)
        sizes = [tensor.numel() * tensor.element_size() for tensor in whole_network.state_dict().values()]
        self.weight_bytes, self.trained = sum(sizes), sum(p.numel() for p in whole_network.parameters())
        self.parameters, self.architecture = num_parameters(whole_network), whole_network.architecture
        self.work = work(self.architecture)

    def values(self) -> dict[str, Any]:
        recipe, shapes = self.recipe, self.architecture.shapes
        described = {
            "name": recipe.name,
            "training": recipe.training(),
            "architecture": recipe.network.architecture,
            "parameters": self.parameters,
            "neurons": num_neurons(self.architecture),
            "neuron_layers": {node.name: shapes[node.name] for node in self.architecture.spiking},
            "time_steps": recipe.convert.time_steps,
            "macs_per_step": self.work.per_step,
            "macs_once_per_image": self.work.once,
        }
        both = [("train", recipe.train, self.seconds / 2), ("convert", recipe.convert, self.seconds / 2)]
        if recipe.convert.method == "none" and not recipe.convert.epochs:
            both = [("train", recipe.train, self.seconds)]
        self.warm_up([settings for _, settings, _ in both])
        measured = {stage: self.measured(stage, settings, seconds) for stage, settings, seconds in both}
        made = [self.trained_stage(stage, settings, measured[stage]) for stage, settings, _ in both]
        return described | {
            "trained": made,
            "attack": self.attack(measured.get("train"), measured.get("convert", measured["train"])),
        }

    def warm_up(self, several: list[FitSettings]) -> None:
        """Let small networks compile and load what the measured ones use."""
        data = self.data
        pixels = torch.rand(2, data.shape[0], 8, 8)
        few = ImageSet(pixels[:1], torch.zeros(1, dtype=torch.int64), data.num_classes)
        for architecture in ("vgg_digits", "resnet_mini"):
            network = replace(self.recipe.network, architecture=architecture)
            for settings in several:
                steps = max(2, settings.periods) if settings is self.recipe.convert or self.steps["train"] else 0
                made = first_network(replace(self.recipe.train, time_steps=steps), network, Splits(few, few, few))
                measure(made, settings, pixels, epochs=settings.epochs, seconds=0.0, device=self.recipe.device)

    def measured(self, stage: str, settings: FitSettings, seconds: float) -> Measured:
        """Of the stage's network with few timesteps, scaled to all of them."""
        steps = self.steps[stage]
        few = None if steps is None else min(steps, max(MEASURED_STEPS // settings.periods, 1) * settings.periods)
        first = 0 if self.steps["train"] is None else few or 0
        network = first_network(replace(self.recipe.train, time_steps=first), self.recipe.network, self.splits)
        if stage == "convert":
            network.set_time_steps(few)
            for neuron in network.neurons().values():
                neuron.threshold.requires_grad_(self.recipe.convert.trainable_thresholds)
                neuron.leak.requires_grad_(self.recipe.convert.trainable_leaks)
        found = measure(
            network,
            settings,
            self.images[: settings.batch_size],
            epochs=settings.epochs,
            seconds=seconds,
            device=self.recipe.device,
        )
        if steps is None or few is None:
            return found
        return found.scaled(self.work.per_image(steps) / self.work.per_image(few), steps / few)

    def trained_stage(self, stage: str, settings: FitSettings, measured: Measured) -> dict[str, Any]:
        data = self.data
        steps = self.steps[stage]
        per_image = self.work.per_image(steps)
        passes, scoring = objective_passes(settings), score_passes(settings)
        scored = min(settings.score_images or data.validation, data.validation)
        batches = ceil(data.train / settings.batch_size) * (settings.periods if settings.objective == "hire" else 1)
        epoch = data.train * measured.step + batches * measured.update
        looking = (scoring.forward - scoring.image_gradient) * measured.forward
        looking += scoring.image_gradient * measured.image_gradient
        searched = calibration_macs(self.recipe.convert, self.architecture, data.train) if stage == "convert" else 0
        search = searched / per_image * measured.forward
        copies = {"sgd": 1 if settings.momentum else 0, "adam": 3}[settings.optimiser]
        return {
            "stage": stage,
            "network": "ANN" if steps is None else "SNN",
            "time_steps": steps,
            "objective": settings.objective,
            "epochs": settings.epochs,
            "images": data.train,
            "batch_size": settings.batch_size,
            "passes": asdict(passes),
            "macs_per_image": per_image,
            "macs_per_epoch": round(per_image * passes.weight * data.train),
            "scored_images": scored,
            "scoring_macs_per_epoch": round(per_image * scoring.weight * scored),
            "calibration_macs": searched,
            "memory_bytes": {
                "weights": self.weight_bytes,
                "best weights": self.weight_bytes,
                "gradients": FLOAT_BYTES * self.trained,
                "optimiser": FLOAT_BYTES * self.trained * copies,
                "activations": round(measured.kept_bytes * settings.batch_size),
            }
            if settings.epochs
            else {"weights": self.weight_bytes},
            "calibration_bytes": calibration_bytes(self.recipe.convert, self.architecture, data.train)
            if searched
            else 0,
            "measured": {"images": measured.images, "time_steps": measured.time_steps},
            "seconds_per_epoch": (epoch + scored * looking) if settings.epochs else 0.0,
            "calibration_seconds": search,
            "seconds": settings.epochs * (epoch + scored * looking) + search,
        }

    def attack(self, ann: Measured | None, snn: Measured) -> dict[str, Any]:
        """White-box, if every image survived every attack: an upper bound."""
        settings = self.recipe.attack
        images = min(settings.images, self.data.test)
        seconds = {}
        for target in settings.targets:
            if target in ("quantised", "deployed"):
                continue
            measured = ann if target == "ann" else snn
            assert measured is not None
            total = measured.forward
            for member in distinct(settings.parsed()) if target == "ann" else settings.parsed():
                plain = isinstance(member.surrogate, Activation) and target == "snn"  # runs once, without timesteps
                share = self.work.per_step / self.work.per_image(self.steps["convert"]) if plain else 1.0
                passes = attack_passes(member)
                total += passes.image_gradient * measured.image_gradient * share
                total += (passes.forward - passes.image_gradient + 1) * measured.forward
            seconds[target] = total * images * len(settings.eps)
        return {"images": images, "budgets": len(settings.eps), "seconds": seconds}
