"""Augmentations against slow references sample by sample, their bounds, and the same result however a batch is sliced."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from hardspike.snn.augment import AUGMENTATIONS, RATIO, SCALE, TRIES, Augmentation, Draws, crop_boxes
from hardspike.snn.errors import SettingsError

MEAN = (0.1, 0.5, 0.9)


def _images(count: int = 40, height: int = 12, width: int = 12) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(5))


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _box(draws: Draws, index: int, height: int, width: int) -> tuple[int, int, int, int]:
    """torchvision's RandomResizedCrop.get_params, with the numbers given."""
    for area_number, ratio_number in zip(draws.area[index].tolist(), draws.ratio[index].tolist(), strict=True):
        area = height * width * (SCALE[0] + (SCALE[1] - SCALE[0]) * area_number)
        low, high = math.log(RATIO[0]), math.log(RATIO[1])
        ratio = math.exp(low + (high - low) * ratio_number)
        wide, tall = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < tall <= height:
            top, left = draws.place[index].tolist()
            return int(top * (height - tall + 1)), int(left * (width - wide + 1)), tall, wide
    wide, tall = width, height
    if width / height < RATIO[0]:
        tall = round(width / RATIO[0])
    elif width / height > RATIO[1]:
        wide = round(height * RATIO[1])
    return (height - tall) // 2, (width - wide) // 2, tall, wide


def _reference(augmentation: Augmentation, image: Tensor, draws: Draws, index: int) -> Tensor:
    """One image, with plain slicing."""
    _, height, width = image.shape
    padding, side = augmentation.crop_padding, augmentation.cutout
    if padding:
        padded = torch.zeros(3, height + 2 * padding, width + 2 * padding)
        padded[:, padding : padding + height, padding : padding + width] = image
        top, left = (int(number * (2 * padding + 1)) for number in draws.crop[index].tolist())
        image = padded[:, top : top + height, left : left + width]
    if augmentation.resized_crop:
        top, left, tall, wide = _box(draws, index, height, width)
        window = image[None, :, top : top + tall, left : left + wide]
        image = torch.nn.functional.interpolate(window, (height, width), mode="bilinear", antialias=True)[0].clamp(0, 1)
    if augmentation.flip and float(draws.flip[index]) < 0.5:
        image = torch.stack([image[:, :, column] for column in reversed(range(width))], dim=2)
    if side:
        image = image.clone()
        top, left = (
            int(n * size) - side // 2 for n, size in zip(draws.cutout[index].tolist(), (height, width), strict=True)
        )
        for channel, value in enumerate(MEAN):
            image[channel, max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = value
    return image


@pytest.mark.parametrize("size", [(12, 12), (9, 14), (6, 20)])
@pytest.mark.parametrize(
    "augmentation",
    [
        *AUGMENTATIONS.values(),
        Augmentation(crop_padding=2),
        Augmentation(flip=True),
        Augmentation(cutout=5),
        Augmentation(resized_crop=True),
    ],
    ids=[*AUGMENTATIONS, "crop", "flip", "cutout", "resized"],
)
def test_equals_the_reference_sample_by_sample(augmentation: Augmentation, size: tuple[int, int]) -> None:
    images = _images(40, *size)
    before = images.clone()
    draws = augmentation.draw(len(images), _generator())
    found = augmentation.apply(images, draws, MEAN)
    expected = torch.stack([_reference(augmentation, image, draws, index) for index, image in enumerate(images)])
    assert torch.equal(found, expected) and torch.equal(images, before)
    assert found.shape == images.shape and found.dtype == torch.float32
    assert float(found.min()) >= 0 and float(found.max()) <= 1


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_slice_of_the_batch_gives_a_slice_of_the_result(name: str) -> None:
    augmentation, images = AUGMENTATIONS[name], _images()
    whole = augmentation(images, _generator(3), MEAN)
    draws = augmentation.draw(len(images), _generator(3))
    parts = [slice(0, 7), slice(7, 30), slice(30, 40)]
    assert torch.equal(whole, torch.cat([augmentation.apply(images[p], draws.part(p), MEAN) for p in parts]))
    assert [len(draws.part(p)) for p in parts] == [7, 23, 10]
    assert torch.equal(whole, augmentation(images, _generator(3), MEAN))
    assert name == "none" or not torch.equal(whole, augmentation(images, _generator(4), MEAN))


def test_none_changes_nothing_and_draws_nothing() -> None:
    generator, images = _generator(), _images()
    assert torch.equal(AUGMENTATIONS["none"](images, generator, MEAN), images)
    assert torch.equal(generator.get_state(), _generator().get_state())


def test_every_place_and_side_is_drawn_about_equally_often() -> None:
    augmentation = Augmentation(crop_padding=1, flip=True, cutout=1)
    image = torch.arange(1, 10).reshape(1, 1, 3, 3) / 10
    draws = augmentation.draw(9000, _generator())
    cropped = Augmentation(crop_padding=1).apply(image.expand(9000, 1, 3, 3), draws, (0.0,))
    centres, counts = np.unique(cropped[:, 0, 1, 1].numpy(), return_counts=True)
    assert len(centres) == 9 and counts.min() > 850 and counts.max() < 1150
    flipped = Augmentation(flip=True).apply(image.expand(9000, 1, 3, 3), draws, (0.0,))
    assert 4300 < int((flipped[:, 0, 0, 0] != image[0, 0, 0, 0]).sum()) < 4700
    holes = Augmentation(cutout=1).apply(image.expand(9000, 1, 3, 3), draws, (0.0,)) == 0
    assert (holes.flatten(1).sum(1) == 1).all() and holes.sum((0, 1)).min() > 850


def test_cutout_is_clipped_at_the_border() -> None:
    corner = Draws(
        *(torch.zeros(1, columns, dtype=torch.float64) for columns in (0, 0, 2, 0, 0, 0)),
    )
    found = Augmentation(cutout=4).apply(torch.ones(1, 3, 6, 6), corner, MEAN)
    assert int((found != 1).sum()) == 3 * 2 * 2
    assert [round(float(found[0, channel, 1, 1]), 3) for channel in range(3)] == list(MEAN)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (8, 64), (64, 8), (1, 1)])
def test_crop_boxes_lie_in_the_image(height: int, width: int) -> None:
    draws = Augmentation(resized_crop=True).draw(500, _generator())
    boxes = crop_boxes(draws, height, width)
    assert boxes.tolist() == [list(_box(draws, index, height, width)) for index in range(500)]
    assert bool((boxes[:, :2] >= 0).all()) and bool((boxes[:, 2:] >= 1).all())
    assert bool((boxes[:, 0] + boxes[:, 2] <= height).all()) and bool((boxes[:, 1] + boxes[:, 3] <= width).all())


def test_the_largest_number_never_leaves_the_image() -> None:
    top = torch.tensor(1 - 2**-53, dtype=torch.float64)
    draws = Draws(*(top.expand(1, columns) for columns in (2, 1, 2, TRIES, TRIES, 2)))
    for size in (5, 7, 28, 32, 33, 64, 224):
        Augmentation(crop_padding=4, flip=True, cutout=3).apply(torch.rand(1, 3, size, size), draws, MEAN)
        top_, left, tall, wide = crop_boxes(draws, size, size)[0].tolist()
        assert top_ + tall <= size and left + wide <= size


def test_the_resized_crop_is_torchvisions() -> None:
    functional = pytest.importorskip(
        "torchvision.transforms.functional", reason="torchvision is installed on Python 3.10 only"
    )
    images, augmentation = _images(10, 16, 16), Augmentation(resized_crop=True)
    draws = augmentation.draw(10, _generator())
    found = augmentation.apply(images, draws, MEAN)
    for index, box in enumerate(crop_boxes(draws, 16, 16).tolist()):
        expected = functional.resized_crop(images[index], *box, [16, 16], antialias=True)
        torch.testing.assert_close(found[index], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop_padding": -1}, "augmentation.crop_padding = -1 is not allowed"),
        ({"cutout": -1}, "augmentation.cutout = -1 is not allowed"),
        ({"crop_padding": 4, "resized_crop": True}, "augmentation.crop_padding = 4 is not allowed with resized_crop"),
    ],
)
def test_bad_augmentations_are_one_line(changes: dict[str, int], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Augmentation(**changes)  # type: ignore[arg-type]
