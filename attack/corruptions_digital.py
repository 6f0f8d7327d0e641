"""The digital corruptions of CIFAR-10-C. Parameters: make_cifar_c.py, in pixels of 32 x 32 images (see corruptions_grid.py)."""

from io import BytesIO

import numpy as np
from PIL import Image as Picture
from scipy import ndimage

from hardspike.attack.corruptions_grid import Image, linear_matrix, ratio

_CONTRAST = (0.75, 0.5, 0.4, 0.3, 0.15)
# Displacement, its smoothing and the shift of three points of an affine map, in pixels.
_ELASTIC = ((0, 0, 2.56), (1.6, 6.4, 2.24), (2.56, 1.92, 1.92), (3.2, 1.28, 1.6), (3.2, 0.96, 0.96))
_PIXELATE = (0.95, 0.9, 0.85, 0.75, 0.65)
_JPEG_QUALITY = (80, 65, 58, 50, 40)


def contrast(image: Image, severity: int, random: np.random.Generator) -> Image:
    """Towards the mean of each channel."""
    del random
    mean: Image = image.mean((1, 2), keepdims=True)
    return mean + (image - mean) * _CONTRAST[severity - 1]


def elastic_transform(image: Image, severity: int, random: np.random.Generator) -> Image:
    """A random affine map, then a smooth random displacement; both are drawn on the 32 x 32 grid and interpolated to other sizes."""
    strength, smoothing, shift = _ELASTIC[severity - 1]
    height, width = image.shape[1:]
    per_point = ratio(image)
    points = (round(height / per_point), round(width / per_point))
    # Pixel centres in points of the grid, as (row, column).
    axes = [(np.arange(side) + 0.5) / per_point - 0.5 for side in (height, width)]
    place = np.stack(np.meshgrid(*axes, indexing="ij"))
    source = np.tensordot(
        _affine_source(points, shift, random), np.concatenate([place, np.ones((1, height, width))]), 1
    )
    image = _sampled(image, (source + 0.5) * per_point - 0.5, "mirror")
    noise = random.uniform(-1, 1, size=(2, *points))
    drift = strength * np.stack([ndimage.gaussian_filter(n, smoothing, mode="reflect", truncate=3) for n in noise])
    rows, columns = (linear_matrix(axis, side) for axis, side in zip(axes, points, strict=True))
    return _sampled(image, (place + rows @ drift @ columns.T + 0.5) * per_point - 0.5, "reflect")


def _affine_source(points: tuple[int, int], shift: float, random: np.random.Generator) -> Image:
    """2 x 3: where each place comes from, when three points around the middle are moved by up to `shift` each way."""
    middle, reach = np.array(points) // 2, min(points) // 3
    before = middle + reach * np.array([[1, 1], [-1, 1], [-1, -1]])
    after = before + random.uniform(-shift, shift, size=before.shape)
    solved: Image = np.linalg.solve(np.column_stack([after, np.ones(3)]), before).T
    return solved


def _sampled(image: Image, places: Image, border: str) -> Image:
    """The image at (row, column) `places`, (2, H, W), linear between pixels."""
    return np.stack([ndimage.map_coordinates(channel, places, order=1, mode=border) for channel in image])


def pixelate(image: Image, severity: int, random: np.random.Generator) -> Image:
    """Box means on fewer pixels, and back."""
    del random
    height, width = image.shape[1:]
    share = _PIXELATE[severity - 1]
    fewer = (max(1, int(width * share)), max(1, int(height * share)))
    box = Picture.Resampling.BOX
    pictures = (Picture.fromarray(channel.astype(np.float32)).resize(fewer, box) for channel in image)
    return np.stack([np.asarray(picture.resize((width, height), box), np.float64) for picture in pictures])


def jpeg_compression(image: Image, severity: int, random: np.random.Generator) -> Image:
    """There and back in 8 bits; three channels are RGB."""
    del random
    pixels = np.floor(image * 255 + 0.5).astype(np.uint8)
    picture = Picture.fromarray(pixels[0] if len(image) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    file = BytesIO()
    picture.save(file, "JPEG", quality=_JPEG_QUALITY[severity - 1])
    with Picture.open(file) as compressed:
        decoded = np.asarray(compressed, np.float64) / 255
    return decoded[None] if len(image) == 1 else decoded.transpose(2, 0, 1)
