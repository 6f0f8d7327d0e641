"""The weather of CIFAR-10-C: snow, frost, fog, brightness. Parameters: make_cifar_c.py (see corruptions_grid.py for lengths).

The script lays one of five photographs of frost over the image. They are not ours to ship, so frost is drawn here: results for
frost are not those of CIFAR-10-C. Brightness and contrast of the five textures were set by what the photographs measure.
"""

from functools import lru_cache

import numpy as np
from scipy.spatial import cKDTree

from hardspike.attack.corruptions_grid import (
    REFERENCE_SIDE,
    Image,
    filtered,
    finer,
    linear_matrix,
    motion_kernel,
    ratio,
    zoomed,
)

# Mean and spread of the flakes, enlargement, smallest flake, radius and sigma of their motion, share of the image kept.
_SNOW = (
    (0.1, 0.2, 1.0, 0.6, 8, 3, 0.95),
    (0.1, 0.2, 1.0, 0.5, 10, 4, 0.9),
    (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
    (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
    (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
)
_FROST = ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))  # shares of image and frost
_FOG = ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))  # thickness, decay of finer wisps
_BRIGHTNESS = (0.05, 0.1, 0.15, 0.2, 0.3)
_LUMA = np.array([0.299, 0.587, 0.114])
# Mean colour, and standard deviation of the crystals around it.
_FROST_TONES = (
    ((0.31, 0.58, 0.65), 0.07),
    ((0.78, 0.79, 0.83), 0.08),
    ((0.80, 0.82, 0.84), 0.08),
    ((0.56, 0.62, 0.67), 0.11),
    ((0.41, 0.45, 0.50), 0.15),
)
_FROST_SIDE = 128  # pixels of 32 x 32 images
_CRYSTAL_DIRECTIONS = 6
_CRYSTALS = 150


def grey(image: Image) -> Image:
    """Brightness (1, H, W) of one or three channels, as in JPEG and television."""
    result: Image = image if len(image) == 1 else np.tensordot(_LUMA, image, 1)[None]
    return result


def snow(image: Image, severity: int, random: np.random.Generator) -> Image:
    """Bleaches the image and adds streaks that fall through it, and the same turned by half; a flake is a pixel or more."""
    mean, spread, enlargement, smallest, radius, sigma, kept = _SNOW[severity - 1]
    flakes: Image = random.normal(mean, spread, size=(1, *image.shape[1:]))
    flakes = zoomed(flakes, enlargement * finer(image))
    flakes = np.where(flakes < smallest, 0, flakes).clip(0, 1)
    flakes = filtered(flakes, motion_kernel(image, radius, sigma, random.uniform(-135, -45)), "edge")
    bleached = kept * image + (1 - kept) * np.maximum(image, grey(image) * 1.5 + 0.5)
    snowy: Image = bleached + flakes + flakes[:, ::-1, ::-1]
    return snowy


def frost(image: Image, severity: int, random: np.random.Generator) -> Image:
    """Adds a random piece of one of five textures; the darker the image, the more it shows."""
    kept, added = _FROST[severity - 1]
    texture = frost_texture(int(random.integers(len(_FROST_TONES))))
    if len(image) == 1:
        texture = grey(texture)
    pixels = [
        _positions(side, ratio(image), random.uniform(0, max(_FROST_SIDE - side / ratio(image), 0)))
        for side in image.shape[1:]
    ]
    rows, columns = (linear_matrix(positions, _FROST_SIDE) for positions in pixels)
    return kept * image + added * (rows @ texture @ columns.T)


def _positions(side: int, pixels_per_point: float, start: float) -> Image:
    """Where the pixels of an axis lie on the texture."""
    return start + (np.arange(side) + 0.5) / pixels_per_point - 0.5


@lru_cache(maxsize=len(_FROST_TONES))
def frost_texture(which: int) -> Image:
    """(3, side, side) in [0, 1], always the same: cells of crystals, each with its own brightness and direction of needles."""
    random = np.random.Generator(np.random.Philox(key=which))
    side = _FROST_SIDE
    centers = random.uniform(0, side, size=(_CRYSTALS, 2))
    places = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), -1)
    cell = cKDTree(centers, boxsize=side).query(places)[1]
    reference = np.zeros((1, REFERENCE_SIDE, REFERENCE_SIDE))  # lengths are those of such an image
    turns = 180 / _CRYSTAL_DIRECTIONS * np.arange(_CRYSTAL_DIRECTIONS)
    noise = random.normal(size=(1, side, side))
    needles = np.concatenate([filtered(noise, motion_kernel(reference, 6, 2.5, turn), "wrap") for turn in turns])
    direction = random.integers(_CRYSTAL_DIRECTIONS, size=_CRYSTALS)[cell]
    streaks = np.take_along_axis(needles, direction[None], 0)[0]
    relief = streaks / streaks.std() + random.normal(size=_CRYSTALS)[cell] / 2 + _standardised(plasma(side, 2, random))
    colour, contrast = _FROST_TONES[which]
    texture: Image = (np.array(colour)[:, None, None] + contrast * _standardised(relief)).clip(0, 1)
    return texture


def _standardised(field: Image) -> Image:
    result: Image = (field - field.mean()) / field.std()
    return result


def fog(image: Image, severity: int, random: np.random.Generator) -> Image:
    """Adds a plasma cloud, then dims to the image's own largest value."""
    thickness, decay = _FOG[severity - 1]
    height, width = image.shape[1:]
    cloud = plasma(max(2, 1 << (max(height, width) - 1).bit_length()), decay, random)[:height, :width]
    brightest = float(image.max())
    return (image + thickness * cloud) * (brightest / (brightest + thickness))


def plasma(side: int, decay: float, random: np.random.Generator) -> Image:
    """Diamond-square cloud in [0, 1] that wraps around; side: a power of two. Each finer level varies decay^2 times less."""
    cloud = np.zeros((side, side))
    step, spread = side, 1.0
    while step >= 2:
        half = step // 2
        corners = cloud[::step, ::step]

        def varied(four: Image, spread: float = spread) -> Image:
            return four / 4 + spread * random.uniform(-1, 1, size=four.shape)

        rows = corners + np.roll(corners, -1, 0)
        middles = varied(rows + np.roll(rows, -1, 1))
        cloud[half::step, half::step] = middles
        cloud[::step, half::step] = varied(corners + np.roll(corners, -1, 1) + middles + np.roll(middles, 1, 0))
        cloud[half::step, ::step] = varied(rows + middles + np.roll(middles, 1, 1))
        step, spread = half, spread / decay**2
    cloud -= cloud.min()
    result: Image = cloud / cloud.max()
    return result


def brightness(image: Image, severity: int, random: np.random.Generator) -> Image:
    """Raises V of hue, saturation and value; black becomes grey."""
    del random
    value = image.max(0, keepdims=True)
    raised = (value + _BRIGHTNESS[severity - 1]).clip(0, 1)
    brighter: Image = np.where(value > 0, image * raised / np.where(value > 0, value, 1), raised)
    return brighter
