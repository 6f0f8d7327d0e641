"""Randomised smoothing (Cohen, Rosenfeld & Kolter, ICML 2019): the second certificate, of any classifier.

The smoothed classifier answers with the class that the network gives most often to the image plus Gaussian noise of standard
deviation sigma. If that class has probability at least p > 1/2, no move of Euclidean length below sigma * Phi^-1(p) changes the
answer. p is a Clopper-Pearson lower bound from draws that had no part in choosing the class, so each certificate is wrong with
probability at most `failure`.

It speaks of the smoothed classifier - what one asks with noise, many times - and not of one run of the network as
certificate.py does. The noise is not clipped: clipping the noisy image to [0, 1] and rounding it to the input's grid are parts
of the classifier that is smoothed, which the theorem takes as it comes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import beta, norm
from torch import Tensor

from hardspike.attack.gradient import Logits
from hardspike.attack.problem import SampleDraws
from hardspike.snn.data import check_images
from hardspike.snn.ranges import require

ABSTAINS = -1
SELECT, COUNT = 0, 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Smoothed:
    """N images under noise of one sigma. predicted: class or ABSTAINS, int64 [N]. correct: it is the label, bool [N].

    probability: lower bound of the selected class's probability, float64 [N]. l2, linf: radii, float64 [N], 0 where it abstains;
    the box of half-width `linf` is the largest inside the ball of radius `l2`: l2 / sqrt(pixels).
    """

    sigma: float
    failure: float
    predicted: Tensor
    correct: Tensor
    probability: Tensor
    l2: Tensor
    linf: Tensor

    def certified_accuracy(self, eps: float) -> float:
        """Share of images that are right throughout the L-infinity ball of radius eps."""
        return float((self.correct & (self.linf > eps)).double().mean())


def smoothed(
    logits: Logits,
    images: Tensor,
    labels: Tensor,
    *,
    sigma: float,
    draws_select: int = 100,
    draws_count: int = 1000,
    failure: float = 0.001,
    seed: int = 0,
    samples: Tensor | None = None,
    batch_size: int = 256,
    progress: Callable[[int], None] | None = None,
) -> Smoothed:
    """Certify the smoothed classifier around each image.

    Deterministic by seed: an image's noise depends on its index alone, neither on the batch size nor on the other images.

    Args:
        logits: images (B, C, H, W) in [0, 1] to logits (B, K), in evaluation mode; `Emulator(graph)` for the deployed network.
        images: float (N, C, H, W) in [0, 1]. labels: int64 [N].
        sigma: standard deviation of the noise, in units of [0, 1].
        draws_select, draws_count: noisy images that choose the class, and others that count it.
        failure: probability that one certificate is wrong.
        samples: index of each image in its set, int64 [N]; 0 .. N - 1 where not given.
        progress: called with the number of images done since the last call.

    Raises DataError for images that are none, and SettingsError for a number out of range.
    """
    check_images(images)
    require("sigma", sigma, sigma > 0, "use a number above 0, in units of [0, 1]")
    require("draws_select", draws_select, draws_select >= 1, "use 1 or more")
    require("draws_count", draws_count, draws_count >= 1, "use 1 or more")
    require("failure", failure, 0 < failure < 1, "use a probability between 0 and 1")
    draws = SampleDraws(seed, torch.arange(len(images)) if samples is None else samples)
    selected, bounds = [], []
    for row, image in enumerate(images):
        votes = _votes(logits, image, sigma, draws_select, draws.generator(SELECT, row), batch_size)
        selected.append(int(votes.argmax()))
        votes = _votes(logits, image, sigma, draws_count, draws.generator(COUNT, row), batch_size)
        bounds.append(_lower_bound(int(votes[selected[-1]]), draws_count, failure))
        if progress is not None:
            progress(1)
    probability = torch.tensor(bounds, dtype=torch.float64)
    certain = probability > 0.5
    radius = torch.where(certain, sigma * torch.from_numpy(norm.ppf(probability.numpy())), 0.0)
    predicted = torch.where(certain, torch.tensor(selected), ABSTAINS)
    return Smoothed(
        sigma=sigma,
        failure=failure,
        predicted=predicted,
        correct=predicted == labels,
        probability=probability,
        l2=radius,
        linf=radius / images[0].numel() ** 0.5,
    )


def _votes(
    logits: Logits, image: Tensor, sigma: float, draws: int, generator: np.random.Generator, batch_size: int
) -> Tensor:
    """How often each class is the network's answer, int64 [K]."""
    total: Tensor | int = 0
    for start in range(0, draws, batch_size):
        shape = (min(batch_size, draws - start), *image.shape)
        noise = torch.from_numpy(generator.standard_normal(shape, np.float32)).to(image)
        with torch.no_grad():
            output = logits((image + sigma * noise).clamp(0, 1))
        total = total + torch.bincount(output.argmax(1), minlength=output.shape[1])
    return torch.as_tensor(total)


def _lower_bound(hits: int, draws: int, failure: float) -> float:
    """One-sided Clopper-Pearson bound of the probability of what came `hits` times in `draws`."""
    return float(beta.ppf(failure, hits, draws - hits + 1)) if hits else 0.0
