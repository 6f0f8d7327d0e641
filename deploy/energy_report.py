"""What sets of images cost a deployed network beside the clean ones: spikes, operations, priced energy, the busiest core's time.

Ratios are per sample, of a set's image to the clean image it stands for. Counts come from the events of the emulator's own run.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hardspike.attack.ball import Ball
from hardspike.attack.problem import SampleDraws
from hardspike.deploy.busiest_core import BusiestCore, busiest_core
from hardspike.deploy.emulator import Emulator, EmulatorBackend
from hardspike.deploy.energy import price, sum_layers
from hardspike.deploy.input_coding import check_image_input, encode_images, quantize_images
from hardspike.deploy.process_graph import ProcessGraph
from hardspike.deploy.trace import join_traces
from hardspike.hw_profiles.profile import Profile
from hardspike.snn.errors import DataError

CLEAN = "clean"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Over samples."""

    mean: float
    p50: float
    p95: float
    p99: float
    max: float

    @staticmethod
    def of(values: Tensor) -> "Spread":
        """values: [N], at least one."""
        values = values.double()
        p50, p95, p99 = torch.quantile(values, torch.tensor([0.5, 0.95, 0.99], dtype=values.dtype)).tolist()
        return Spread(mean=float(values.mean()), p50=p50, p95=p95, p99=p99, max=float(values.max()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """ratio: to the clean image of the same sample (the clean image counts at least one). mean: of the quantity itself."""

    ratio: Spread
    mean: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SetWork:
    """One set. class_kept: share of images in the class of their clean image. energy_j, time_s: per cost set and time set."""

    name: str
    class_kept: float
    spikes: Quantity
    synaptic_operations: Quantity
    energy_j: dict[str, Quantity]
    time_s: dict[str, Quantity]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyReport:
    """sets: the clean images first. profile: the chip's prices.

    cores: that the network takes there; None for a profile without times, or where `not_placed` says why the network does not fit.
    """

    profile: str
    samples: int
    cores: int | None
    sets: tuple[SetWork, ...]
    not_placed: str | None = None


def control_images(images: Tensor, *, eps: float, seed: int = 0, draws: int = 3) -> dict[str, Tensor]:
    """What needs no attack, in the images' dtype: noise of the same eps, all pixels brighter, an image of ones, one of its own grey.

    Noise moves each pixel by +eps or -eps. The images of ones and of one grey (arXiv 2403.18587) are outside the budget.
    """
    ball = Ball.around(images.double(), eps, grid=255)
    sample_draws = SampleDraws(seed, torch.arange(len(images)))
    noise = {
        f"noise {draw + 1}": torch.where(sample_draws.uniform(draw, ball.low) < 0.5, ball.low, ball.high)
        for draw in range(draws)
    }
    grey = images.double().flatten(1).mean(1).view(-1, 1, 1, 1).expand_as(ball.low)
    others = {"brighter": ball.high, "ones": torch.ones_like(ball.low), "grey": quantize_images(grey, 8)}
    return {name: made.to(images.dtype) for name, made in (noise | others).items()}


def energy_report(
    graph: ProcessGraph,
    clean: Tensor,
    sets: Mapping[str, Tensor],
    profile: Profile,
    *,
    batch_size: int = 256,
    progress: Callable[[int], None] | None = None,
) -> EnergyReport:
    """Measure `clean`, images (N, C, H, W) in [0, 1], and each set of as many images, row by row its variants.

    Energies are those of the profile's cost sets without what `energy.NOT_PRICED` lists, times those of `busiest_core`; a
    profile without cost sets, time sets or cores leaves them out, and so does a network that does not fit its cores.

    Raises:
        DataError: images that do not fit the input contract, or a set of another size.
    """
    busiest, not_placed = busiest_core(graph, profile)
    measured = {}
    for name, images in {CLEAN: clean, **sets}.items():
        check_image_input(images, graph.input)
        if len(images) != len(clean):
            raise DataError(f"set '{name}': {len(images)} images for {len(clean)} clean ones; give one for each")
        measured[name] = image_work(graph, images, profile, busiest, batch_size, progress)
    return EnergyReport(
        profile=profile.name,
        samples=len(clean),
        cores=busiest.cores if busiest is not None else None,
        not_placed=not_placed,
        sets=tuple(_beside(name, work, measured[CLEAN]) for name, work in measured.items()),
    )


@dataclass(frozen=True, slots=True, eq=False)
class ImageWork:
    """Per image: class, int64, and float64 counts over all layers and steps, energies (cost sets) and times (time sets)."""

    predicted: Tensor
    spikes: Tensor
    operations: Tensor
    energy_j: dict[str, Tensor]
    time_s: dict[str, Tensor]


def image_work(
    graph: ProcessGraph,
    images: Tensor,
    profile: Profile,
    busiest: BusiestCore | None,
    batch_size: int,
    progress: Callable[[int], None] | None,
) -> ImageWork:
    """Of images (N, C, H, W) in [0, 1]. busiest: see `busiest_core`; None leaves out the times. Raises as `energy_report`."""
    backend, emulator = EmulatorBackend(batch_size), Emulator(graph)
    traces, times = [], []
    for batch in images.split(batch_size):
        traces.append(backend.run(graph, encode_images(batch, graph)))
        if busiest is not None:
            with torch.no_grad(), emulator.watching() as sent:
                emulator(batch)
            times.append(busiest.seconds(sent))
        if progress is not None:
            progress(len(batch))
    trace = join_traces(traces)
    return ImageWork(
        predicted=trace.predicted,
        spikes=sum((counts.sum(0) for counts in trace.spikes.values()), torch.zeros(len(trace))).double(),
        operations=torch.stack([counts.sum(0) for counts in trace.synaptic_operations.values()]).sum(0).double(),
        energy_j=sum_layers(price(graph, trace, profile)).by_set if profile.costs else {},
        time_s={key: torch.cat([part[key] for part in times]) for key in (times[0] if times else {})},
    )


def _beside(name: str, work: ImageWork, clean: ImageWork) -> SetWork:
    return SetWork(
        name=name,
        class_kept=float((work.predicted == clean.predicted).double().mean()),
        spikes=_quantity(work.spikes, clean.spikes.clamp(min=1)),
        synaptic_operations=_quantity(work.operations, clean.operations.clamp(min=1)),
        energy_j={key: _quantity(values, clean.energy_j[key]) for key, values in work.energy_j.items()},
        time_s={key: _quantity(values, clean.time_s[key]) for key, values in work.time_s.items()},
    )


def _quantity(values: Tensor, clean: Tensor) -> Quantity:
    return Quantity(ratio=Spread.of(values / clean), mean=float(values.mean()))
