"""The noise corruptions of CIFAR-10-C, independent from pixel to pixel and channel to channel. Parameters: make_cifar_c.py."""

import numpy as np

from hardspike.attack.corruptions_grid import Image

_STD = (0.04, 0.06, 0.08, 0.09, 0.10)
_PHOTONS = (500, 250, 100, 75, 50)
_SHARE = (0.01, 0.02, 0.03, 0.05, 0.07)


def gaussian_noise(image: Image, severity: int, random: np.random.Generator) -> Image:
    """Adds normal noise."""
    return image + random.normal(scale=_STD[severity - 1], size=image.shape)


def shot_noise(image: Image, severity: int, random: np.random.Generator) -> Image:
    """Counts photons: Poisson with a mean of pixel * photons at white."""
    photons = _PHOTONS[severity - 1]
    return random.poisson(image * photons) / photons


def impulse_noise(image: Image, severity: int, random: np.random.Generator) -> Image:
    """Sets a share of the values to 0 or 1, either as likely."""
    hit = random.random(image.shape) < _SHARE[severity - 1]
    white = random.random(image.shape) < 0.5
    return np.where(hit, white.astype(image.dtype), image)
