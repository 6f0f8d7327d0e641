"""Lengths of the authors' script, which are pixels of 32 x 32 images, on images of any size.

With `ratio` the shorter side over 32, a length of one pixel there is `ratio` pixels here. Kernels and zooms are laid out on a
grid of at least 32 points a side and carried to the image's pixels by linear interpolation where those are coarser: a blur of
half a pixel of 32 x 32 is not lost on 8 x 8. At 32 x 32 the grid is the image, and everything is as in the script.
"""

from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.floating[Any]]  # float64, (C, H, W)
PadMode = Literal["edge", "reflect", "wrap", "constant"]
REFERENCE_SIDE = 32


def ratio(image: Image) -> float:
    """Pixels here per pixel of a 32 x 32 image."""
    shorter: int = min(image.shape[1:])
    return shorter / REFERENCE_SIDE


def finer(image: Image) -> float:
    """Grid points per pixel of a 32 x 32 image, at least 1: what lengths of kernels are multiplied with."""
    return max(ratio(image), 1.0)


def coarser(image: Image) -> float:
    """Pixels here per grid point, at most 1."""
    return min(ratio(image), 1.0)


def kernel(image: Image, offsets: Image, weights: Image) -> Image:
    """A 2-D kernel of taps at (rows, columns) `offsets`, (n, 2) in grid points; weights [n] are scaled to sum 1."""
    positions = offsets * coarser(image)
    reach = int(np.ceil(np.abs(positions).max()))
    taps = np.zeros((2 * reach + 2, 2 * reach + 2))
    corner = np.floor(positions).astype(np.int64)
    part = positions - corner
    for down in (0, 1):
        for right in (0, 1):
            share = np.abs(1 - down - part[:, 0]) * np.abs(1 - right - part[:, 1])
            np.add.at(taps, (corner[:, 0] + reach + down, corner[:, 1] + reach + right), weights * share)
    # The last row and column only take the empty shares of taps that lie on the edge.
    result: Image = taps[:-1, :-1] / taps.sum()
    return result


def filtered(image: Image, taps: Image, border: PadMode) -> Image:
    """Each pixel the weighted mean of its surroundings; border as numpy.pad names it.

    scipy.ndimage gives the same numbers, but takes 20 times as long with the long thin kernels of motion.
    """
    height, width = image.shape[1:]
    down, right = taps.shape[0] // 2, taps.shape[1] // 2
    padded = np.pad(image, ((0, 0), (down, down), (right, right)), mode=border)
    result = np.zeros_like(image)
    for row, column in np.argwhere(taps):
        result += taps[row, column] * padded[:, row : row + height, column : column + width]
    return result


def motion_kernel(image: Image, radius: float, sigma: float, angle_degrees: float) -> Image:
    """ImageMagick's motion blur: half a Gaussian along a line, from the pixel on (MagickCore, effect.c, MotionBlurImage)."""
    distance = np.arange(2 * np.ceil(radius * finer(image)) + 1)
    weights = np.exp(-(distance**2) / (2 * (sigma * finer(image)) ** 2))
    angle = np.deg2rad(angle_degrees)
    offsets = np.ceil(distance[:, None] * np.array([np.sin(angle), np.cos(angle)]) - 0.5)
    return kernel(image, offsets, weights)


def gaussian_kernel(image: Image, sigma: float) -> Image:
    """Cut off at four sigma, as scikit-image does."""
    sigma = sigma * finer(image)
    reach = int(4 * sigma + 0.5)
    steps = np.arange(-reach, reach + 1)
    offsets = np.stack(np.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2)
    return kernel(image, offsets.astype(np.float64), np.exp(-(offsets**2).sum(1) / (2 * sigma**2)))


def zoomed(image: Image, factor: float) -> Image:
    """The image's middle, enlarged by `factor` >= 1 to the image's own size."""
    rows, columns = (_zoom_matrix(side, coarser(image), factor) for side in image.shape[1:])
    result: Image = rows @ image @ columns.T
    return result


@lru_cache(maxsize=256)
def _zoom_matrix(side: int, pixels_per_point: float, factor: float) -> Image:
    """What `clipped_zoom` of the script does to one axis: cut out the middle, enlarge end to end, cut out the middle."""
    points = round(side / pixels_per_point)
    cut = int(np.ceil(points / factor))
    first = (points - cut) // 2
    enlarged = round(cut * factor)
    trimmed = (enlarged - points) // 2
    target = (np.arange(side) + 0.5) / pixels_per_point - 0.5
    source = first + (trimmed + target) * (cut - 1) / (enlarged - 1)
    return linear_matrix((source + 0.5) * pixels_per_point - 0.5, side)


def linear_matrix(positions: Image, side: int) -> Image:
    """Interpolates `side` values linearly at `positions` [n] in pixels; the edge pixels go on beyond the edge."""
    inside = positions.clip(0, side - 1)
    weights: Image = np.maximum(1 - np.abs(inside[:, None] - np.arange(side)), 0)
    return weights
