"""Random changes to training images; every random number is drawn for the whole batch before any image is touched.

So a process that works on a slice of a batch can draw for all of it and take its part: the result does not depend on the slicing.
"""

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F

from hardspike.snn.errors import SettingsError
from hardspike.snn.ranges import require

# torchvision's RandomResizedCrop: share of the area, width over height, and how often it tries before it takes the centre.
SCALE, RATIO, TRIES = (0.08, 1.0), (3 / 4, 4 / 3), 10


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """Uniform float64 numbers in [0, 1) for each sample of a batch; no columns where an augmentation does not need them.

    crop: (B, 2), row and column. flip: (B, 1). cutout: (B, 2), row and column. area, ratio: (B, TRIES) and place: (B, 2), of
    the resized crop.
    """

    crop: Tensor
    flip: Tensor
    cutout: Tensor
    area: Tensor
    ratio: Tensor
    place: Tensor

    def __len__(self) -> int:
        return len(self.crop)

    def part(self, rows: slice) -> "Draws":
        """The numbers of these samples."""
        return Draws(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """In this order: crop (of the image padded with `crop_padding` zeros, or resized), flip (left to right, every other), cutout.

    cutout: side length of a square put anywhere, clipped at the border, filled with the data set's mean.
    """

    crop_padding: int = 0
    flip: bool = False
    cutout: int = 0
    resized_crop: bool = False

    def __post_init__(self) -> None:
        require("augmentation.crop_padding", self.crop_padding, self.crop_padding >= 0, "use 0 (none) or more")
        require("augmentation.cutout", self.cutout, self.cutout >= 0, "use 0 (none) or more")
        if self.crop_padding and self.resized_crop:
            raise SettingsError(
                f"augmentation.crop_padding = {self.crop_padding} is not allowed with resized_crop; use one of them"
            )

    def draw(self, batch_size: int, generator: torch.Generator) -> Draws:
        """One call of the generator, (batch_size, columns) numbers; none where there is nothing to do."""
        tries = TRIES * self.resized_crop
        columns = [
            2 * bool(self.crop_padding),
            int(self.flip),
            2 * bool(self.cutout),
            tries,
            tries,
            2 * self.resized_crop,
        ]
        shape = (batch_size, sum(columns))
        # float64, so that scaling by a size never rounds up to it.
        numbers = torch.rand(shape, generator=generator, dtype=torch.float64, device=generator.device)
        return Draws(*numbers.split(columns, dim=1))

    def apply(self, images: Tensor, draws: Draws, mean: tuple[float, ...]) -> Tensor:
        """Float images in [0, 1], (B, C, H, W), changed by the B draws; same shape, still in [0, 1]."""
        if self.crop_padding:
            images = _crop(images, draws.crop.to(images.device), self.crop_padding)
        if self.resized_crop:
            images = _resized_crop(images, draws)
        if self.flip:
            images = torch.where((draws.flip.to(images.device) < 0.5)[:, :, None, None], images.flip(-1), images)
        if self.cutout:
            images = _cutout(images, draws.cutout.to(images.device), self.cutout, mean)
        return images

    def __call__(self, images: Tensor, generator: torch.Generator, mean: tuple[float, ...]) -> Tensor:
        """Draw for these images, and apply."""
        return self.apply(images, self.draw(len(images), generator), mean)


AUGMENTATIONS: dict[str, Augmentation] = {
    "none": Augmentation(),
    "crop_flip": Augmentation(crop_padding=4, flip=True),
    "crop_flip_cutout": Augmentation(crop_padding=4, flip=True, cutout=8),
    "tiny": Augmentation(resized_crop=True, flip=True),
    "tiny_cutout": Augmentation(resized_crop=True, flip=True, cutout=16),
}


def _crop(images: Tensor, numbers: Tensor, padding: int) -> Tensor:
    count, channels, height, width = images.shape
    starts = (numbers * (2 * padding + 1)).long()
    rows = starts[:, :1] + torch.arange(height, device=images.device)
    columns = starts[:, 1:] + torch.arange(width, device=images.device)
    sample = torch.arange(count, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[None, :, None, None]
    return F.pad(images, (padding,) * 4)[sample, channel, rows[:, None, :, None], columns[:, None, None, :]]


def _cutout(images: Tensor, numbers: Tensor, side: int, mean: tuple[float, ...]) -> Tensor:
    height, width = images.shape[2:]
    inside = []
    for axis, size in enumerate((height, width)):
        start = (numbers[:, axis : axis + 1] * size).long() - side // 2
        position = torch.arange(size, device=images.device)
        inside.append((position >= start) & (position < start + side))
    hole = (inside[0][:, :, None] & inside[1][:, None, :])[:, None]
    return torch.where(hole, images.new_tensor(mean).view(1, -1, 1, 1), images)


def _resized_crop(images: Tensor, draws: Draws) -> Tensor:
    size = images.shape[2:]
    out = torch.empty_like(images)
    # One at a time, so that a sample's result cannot depend on its neighbours.
    for index, (top, left, height, width) in enumerate(crop_boxes(draws, size[0], size[1]).tolist()):
        window = images[index : index + 1, :, top : top + height, left : left + width]
        resized = F.interpolate(window, size=size, mode="bilinear", align_corners=False, antialias=True)
        out[index] = resized[0].clamp(0, 1)
    return out


def crop_boxes(draws: Draws, height: int, width: int) -> Tensor:
    """(top, left, height, width) of each sample's resized crop, int64 (B, 4): the first try that fits, else the centre."""
    area = height * width * (SCALE[0] + (SCALE[1] - SCALE[0]) * draws.area)
    low, high = math.log(RATIO[0]), math.log(RATIO[1])
    ratio = torch.exp(low + (high - low) * draws.ratio)
    wide, tall = torch.sqrt(area * ratio).round().long(), torch.sqrt(area / ratio).round().long()
    fits = (wide > 0) & (wide <= width) & (tall > 0) & (tall <= height)
    first = fits.long().argmax(1, keepdim=True)
    sizes = torch.cat([tall.gather(1, first), wide.gather(1, first)], dim=1)
    room = torch.tensor([height, width], device=sizes.device) - sizes + 1
    boxes = torch.cat([(draws.place * room).long(), sizes], dim=1)
    shape = width / height
    centre_width = round(height * RATIO[1]) if shape > RATIO[1] else width
    centre_height = round(width / RATIO[0]) if shape < RATIO[0] else height
    centre = [(height - centre_height) // 2, (width - centre_width) // 2, centre_height, centre_width]
    return torch.where(fits.any(1, keepdim=True), boxes, torch.tensor(centre, device=boxes.device))
