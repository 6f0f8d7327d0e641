"""Images and heatmaps as pictures of a chart."""

import torch
from torch import Tensor

from hardspike.deploy.report.chart import Picture

Planes = tuple[tuple[tuple[float, ...], ...], ...]
DIGITS = 3


def image_picture(image_CHW: Tensor, note: str = "") -> Picture:
    """One or three channels are shown as they are, any other number as their mean."""
    shown = image_CHW if len(image_CHW) in (1, 3) else _grey(image_CHW)
    return Picture(values=_planes(shown), note=note)


def map_picture(map_HW: Tensor, image_CHW: Tensor, note: str = "") -> Picture:
    """A map in [0, 1] over the image in grey."""
    return Picture(values=_planes(map_HW[None]), look="heat", under=_planes(_grey(image_CHW)), note=note)


def shown_steps(steps: int, count: int) -> list[int]:
    """Up to `count` timesteps spread evenly from the last back to the second (the first shows no earlier spike); from 0."""
    first = min(1, steps - 1)
    return sorted({round(float(step)) for step in torch.linspace(steps - 1, first, count)})


def shown_layers(layers: tuple[str, ...], count: int) -> tuple[str, ...]:
    """Up to `count` layers spread evenly from the first to the last."""
    chosen = {round(float(index)) for index in torch.linspace(0, len(layers) - 1, min(count, len(layers)))}
    return tuple(layers[index] for index in sorted(chosen))


def _grey(image_CHW: Tensor) -> Tensor:
    return image_CHW.mean(0, keepdim=True)


def _planes(values_CHW: Tensor) -> Planes:
    return tuple(
        tuple(tuple(round(value, DIGITS) for value in row) for row in plane) for plane in values_CHW.double().tolist()
    )
