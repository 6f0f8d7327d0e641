"""The blurs of CIFAR-10-C. Parameters: make_cifar_c.py, in pixels of 32 x 32 images (see corruptions_grid.py)."""

import numpy as np
from numpy.typing import NDArray

from hardspike.attack.corruptions_grid import (
    Image,
    filtered,
    finer,
    gaussian_kernel,
    kernel,
    motion_kernel,
    ratio,
    zoomed,
)

_DEFOCUS = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))  # radius, sigma
_GLASS = ((0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2))  # sigma, rounds
_MOTION = ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))  # radius, sigma
_ZOOM_ENDS = (1.06, 1.11, 1.16, 1.21, 1.26)


def defocus_blur(image: Image, severity: int, random: np.random.Generator) -> Image:
    """A disk, its edge softened by a Gaussian of three points a side."""
    del random
    radius, sigma = _DEFOCUS[severity - 1]
    sigma *= finer(image)
    if radius >= 1:  # a smaller disk is one pixel in the script, and stays one
        radius *= finer(image)
    soft = int(np.ceil(finer(image)))
    reach = int(radius) + soft
    steps = np.arange(-reach, reach + 1)
    squared = steps[:, None] ** 2 + steps**2
    disk = (squared <= radius**2).astype(np.float64)
    profile = np.exp(-(np.arange(-soft, soft + 1) ** 2) / (2 * sigma**2))
    disk = filtered(disk[None], np.outer(profile, profile), "constant")[0]
    offsets = np.stack(np.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2).astype(np.float64)
    return filtered(image, kernel(image, offsets, disk.ravel()), "reflect")


def glass_blur(image: Image, severity: int, random: np.random.Generator) -> Image:
    """Blurs, takes every pixel from a random neighbour, blurs again; a neighbour is at least one pixel away at any size.

    The script means to swap pixels, but writes through array views and so copies one over the other; so does this.
    """
    sigma, rounds = _GLASS[severity - 1]
    reach = max(1, round(ratio(image)))
    blur = gaussian_kernel(image, sigma)
    channels, height, width = image.shape
    # Position of the pixel that each pixel shows.
    shown = np.arange(height * width).reshape(height, width)
    for _ in range(rounds):
        shown = _from_neighbours(shown, reach, random)
    shuffled = filtered(image, blur, "edge").reshape(channels, -1)[:, shown]
    return filtered(shuffled, blur, "edge")


def _from_neighbours(shown: NDArray[np.int64], reach: int, random: np.random.Generator) -> NDArray[np.int64]:
    """One round, from the last pixel to the first: later copies see earlier ones."""
    height, width = shown.shape
    rows, columns = range(height - reach, reach, -1), range(width - reach, reach, -1)
    moves = random.integers(-reach, reach, size=(len(rows), len(columns), 2)).tolist()
    flat = shown.ravel().tolist()
    for row, moves_of_row in zip(rows, moves, strict=True):
        for column, (right, down) in zip(columns, moves_of_row, strict=True):
            flat[row * width + column] = flat[(row + down) * width + column + right]
    return np.array(flat, dtype=np.int64).reshape(height, width)


def motion_blur(image: Image, severity: int, random: np.random.Generator) -> Image:
    """Along a line within 45 degrees of the horizontal."""
    radius, sigma = _MOTION[severity - 1]
    return filtered(image, motion_kernel(image, radius, sigma, random.uniform(-45, 45)), "edge")


def zoom_blur(image: Image, severity: int, random: np.random.Generator) -> Image:
    """The mean of the image and of itself enlarged by 0, 1, 2, ... %."""
    del random
    # The script's own expression: its rounding decides how many steps there are.
    factors = np.arange(1, _ZOOM_ENDS[severity - 1], 0.01)
    return (image + sum(zoomed(image, float(factor)) for factor in factors)) / (len(factors) + 1)
