"""Proofs about the deployed integer network: what no image within eps of a given one can change.

The box of images is rounded to integer messages, and intervals of integers go through the network's own arithmetic: what holds
of the intervals holds of the chip, not of a float model of it (interval bounds: Gowal et al. 2018; with spikes: Liang et al.,
NeurIPS 2022). "Not certified" only says that this proof does not reach so far; whether an image can be fooled an attack says.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hardspike.attack.ball import ROUNDING
from hardspike.deploy.bounds import Interval
from hardspike.deploy.certified_counts import energy_j, fan_outs, operations, sent_messages
from hardspike.deploy.emulator import EmulatorBackend
from hardspike.deploy.energy import require_costs
from hardspike.deploy.input_coding import append_constant_channels, encode_images, graded_messages
from hardspike.deploy.network_bounds import IntervalNetwork
from hardspike.deploy.process_graph import InputContract, ProcessGraph
from hardspike.hw_profiles.profile import Profile
from hardspike.snn.ranges import require


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Certificate:
    """What holds for every image of the L-infinity ball of radius eps around each of N images, cut to [0, 1].

    certified: the class is the label's throughout, bool [N]. correct: it is for the image itself, bool [N].
    margin: lower bound of the label's output minus the largest other, int64 [N] (units of a trace's output). At 0 the first
    class wins, so a certified image may have margin 0.
    spikes, operations: per layer, of all its neurons over all steps, int64 [N]; layers that never fire have no spikes.
    energy_j: per cost set of the profile, Joule per image, float64 [N]; see `energy.NOT_PRICED`.
    """

    eps: float
    certified: Tensor
    correct: Tensor
    margin: Tensor
    spikes: dict[str, Interval]
    operations: dict[str, Interval]
    energy_j: dict[str, Interval]

    @property
    def certified_accuracy(self) -> float:
        return float(self.certified.double().mean())


def message_box(images: Tensor, eps: float, contract: InputContract) -> Interval:
    """Messages of all images within eps and within [0, 1], int64 without constant channels.

    Encoding is monotone, so the ends of the ball are enough. They are taken ROUNDING further out: as far as the float32 images
    of an attack, and their product with the largest message, may be rounded.
    """
    low, high = ((images.double() + side).clamp(0, 1) for side in (-eps - ROUNDING, eps + ROUNDING))
    return Interval(graded_messages(low, contract), graded_messages(high, contract))


def certify(
    graph: ProcessGraph,
    images: Tensor,
    labels: Tensor,
    eps: float,
    *,
    profile: Profile | None,
    batch_size: int = 32,
    windows: bool = True,
    progress: Callable[[int], None] | None = None,
) -> Certificate:
    """Certify one L-infinity budget. Deterministic; the batch size changes nothing.

    Args:
        images: float (N, C, H, W) in [0, 1]. labels: int64 [N].
        eps: at least 0, in units of [0, 1].
        profile: whose cost sets price the counts; None for no energy.
        windows: the narrower bounds, at about steps^2 / 2 times the products instead of steps (`spike_bounds`).
        progress: called with the number of images done since the last call.

    Raises:
        DataError: images that do not fit the network, or an input that does not take images.
        SettingsError: a profile without cost sets, or eps out of range.
        UnsupportedLayerError: a layer before the output never fires.
    """
    require("eps", eps, eps >= 0, "use 0 or more, in units of [0, 1]")
    if profile is not None:
        require_costs(profile)
    encoded = encode_images(images, graph)
    network, reach = IntervalNetwork(graph, windows=windows), fan_outs(graph)
    parts = []
    for start in range(0, len(images), batch_size):
        rows = slice(start, start + batch_size)
        predicted = EmulatorBackend().run(graph, encoded[rows]).predicted
        box = message_box(images[rows], eps, graph.input)
        parts.append(_certify_batch(network, reach, box, labels[rows], predicted, eps, profile))
        if progress is not None:
            progress(len(labels[rows]))
    return _joined(parts)


def _certify_batch(
    network: IntervalNetwork,
    reach: dict[str, list[tuple[str, Tensor]]],
    box: Interval,
    labels: Tensor,
    predicted: Tensor,
    eps: float,
    profile: Profile | None,
) -> Certificate:
    graph = network.graph
    ends = (append_constant_channels(end, graph.input).double() for end in (box.low, box.high))
    bounds = network.bounds(Interval(*ends))
    margins = network.margins(bounds, labels)
    classes = torch.arange(margins.shape[1])
    wins = torch.where(classes < labels[:, None], margins > 0, margins >= 0)  # of equal outputs the first
    others = margins.scatter(1, labels[:, None], torch.iinfo(torch.int64).max)
    counts = {name: spikes.window(0, graph.time_steps) for name, spikes in bounds.spikes.items()}
    operated = operations(sent_messages(bounds.image, counts, graph.time_steps), reach)
    totals = {
        name: Interval(count.low.flatten(1).sum(1), count.high.flatten(1).sum(1)) for name, count in counts.items()
    }
    return Certificate(
        eps=eps,
        certified=wins.all(1),
        correct=predicted == labels,
        margin=others.amin(1),
        spikes=totals,
        operations=operated,
        energy_j={} if profile is None else energy_j(graph, totals, operated, profile),
    )


def _joined(parts: Sequence[Certificate]) -> Certificate:
    def over(get: Callable[[Certificate], dict[str, Interval]]) -> dict[str, Interval]:
        return {
            name: Interval(
                torch.cat([get(part)[name].low for part in parts]), torch.cat([get(part)[name].high for part in parts])
            )
            for name in get(parts[0])
        }

    return Certificate(
        eps=parts[0].eps,
        certified=torch.cat([part.certified for part in parts]),
        correct=torch.cat([part.correct for part in parts]),
        margin=torch.cat([part.margin for part in parts]),
        spikes=over(lambda part: part.spikes),
        operations=over(lambda part: part.operations),
        energy_j=over(lambda part: part.energy_j),
    )
