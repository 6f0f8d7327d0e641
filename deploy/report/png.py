"""Images as tiny PNG files in data URIs: nothing is fetched, and the same pixels give the same bytes."""

import base64
import struct
import zlib

import numpy as np
from matplotlib import colormaps
from numpy.typing import ArrayLike, NDArray

# Perceptually uniform and readable with any colour vision (Nunez, Anderton and Renslow, PLoS ONE 13(7), 2018).
HEAT = "cividis"


def image_uri(pixels: ArrayLike) -> str:
    """Values in [0, 1], (C, H, W), as a PNG data URI: grey for one channel, RGB for three, else the mean over channels."""
    image = np.asarray(pixels, dtype=np.float64)
    if len(image) not in (1, 3):
        image = image.mean(axis=0, keepdims=True)
    return _png(_bytes(image))


def difference_uri(clean: ArrayLike, attacked: ArrayLike, eps: float) -> str:
    """The change, -eps to +eps: blue, white, orange for one channel; each channel around middle grey for three."""
    change = (np.asarray(attacked, dtype=np.float64) - np.asarray(clean, dtype=np.float64)) / eps
    if len(change) == 3:
        return image_uri(0.5 + 0.5 * change)
    change = change.mean(axis=0).clip(-1, 1)
    white, orange, blue = (np.array(rgb, dtype=np.float64) for rgb in ((250, 250, 250), (196, 78, 0), (22, 92, 170)))
    end = np.where(change[..., None] > 0, orange, blue)
    rgb = white + np.abs(change)[..., None] * (end - white)
    return _png(np.floor(rgb + 0.5).astype(np.uint8).transpose(2, 0, 1))


def heat_uri(values: ArrayLike) -> str:
    """Values in [0, 1], (H, W), in a colour scale from dark blue (0) over grey to yellow (1)."""
    rgb = colormaps[HEAT](np.asarray(values, dtype=np.float64).clip(0, 1))[..., :3]
    return _png(_bytes(rgb.transpose(2, 0, 1)))


def _bytes(image: NDArray[np.float64]) -> NDArray[np.uint8]:
    levels: NDArray[np.uint8] = np.floor(255 * image.clip(0, 1) + 0.5).astype(np.uint8)
    return levels


def _png(image: NDArray[np.uint8]) -> str:
    """uint8 (C, H, W), C 1 or 3."""
    channels, height, width = image.shape
    rows = image.transpose(1, 2, 0).reshape(height, -1)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows), 9)
    header = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2}[channels], 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", data), (b"IEND", b"")]
    chunks = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts]
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(chunks)).decode("ascii")
