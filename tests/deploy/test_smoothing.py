"""Randomised smoothing where the truth is known: a linear classifier under Gaussian noise."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from random_graphs import CASES, build, random_messages
from scipy.stats import binom, binomtest, norm
from torch import Tensor

from hardspike.deploy.emulator import Emulator
from hardspike.deploy.smoothing import ABSTAINS, Smoothed, _lower_bound, smoothed
from hardspike.snn.errors import DataError, SettingsError

SIGMA = 0.02
NORMAL = torch.tensor([[[[0.6, -0.8], [0.0, 0.0]]]])  # of length 1: distances to the plane are radii


def linear(images: Tensor) -> Tensor:
    """Class 1 above the plane through grey; `distances` places images around it, so far inside [0, 1] that nothing is clipped."""
    above = ((images - 0.5) * NORMAL).flatten(1).sum(1)
    return torch.stack([-above, above], 1)


def distances(values: Tensor) -> Tensor:
    return 0.5 + values.view(-1, 1, 1, 1) * NORMAL


def test_bound_is_that_of_clopper_and_pearson() -> None:
    for draws, hits in ((20, 0), (20, 1), (20, 13), (20, 20), (1000, 990)):
        exact = binomtest(hits, draws, alternative="greater").proportion_ci(0.98, method="exact").low
        assert _lower_bound(hits, draws, 0.02) == pytest.approx(exact, rel=1e-9, abs=1e-12)
    assert _lower_bound(1000, 1000, 0.001) == pytest.approx(0.001 ** (1 / 1000))


def test_radius_of_a_linear_classifier_is_its_distance_to_the_plane() -> None:
    """Never more than the distance but as often as `failure` allows, and close below it."""
    away = torch.linspace(0.2, 2, 120) * SIGMA
    found = smoothed(
        linear, distances(away), torch.ones(120, dtype=torch.int64), sigma=SIGMA, draws_count=600, failure=0.1
    )
    sure = found.predicted == 1
    too_large = int((found.l2 > away).sum())
    assert 0 < too_large <= binom.ppf(0.999, 120, 0.1), "an exact bound errs sometimes; never would be a loose one"
    assert bool(sure[away > 0.6 * SIGMA].all()) and bool((found.predicted[~sure] == ABSTAINS).all())
    assert torch.equal(found.correct, sure)
    # About 1.28 standard errors of the probability below the truth, as the normal approximation of the bound says.
    p = torch.from_numpy(norm.cdf(away / SIGMA))
    expected = p - 1.2816 * (p * (1 - p) / 600).sqrt()
    assert abs(float((found.probability - expected).mean())) < 0.004
    assert torch.allclose(found.l2[sure], SIGMA * torch.from_numpy(norm.ppf(found.probability[sure])))
    assert torch.equal(found.linf, found.l2 / 2)  # four pixels
    middle = float(found.linf.median())
    assert found.certified_accuracy(middle) == float((found.linf > middle).double().mean())


def test_abstains_where_no_class_has_the_majority() -> None:
    on_the_plane = distances(torch.zeros(30))
    labels = torch.zeros(30, dtype=torch.int64)
    found = smoothed(linear, on_the_plane, labels, sigma=SIGMA, draws_count=200, failure=0.001)
    assert bool((found.predicted == ABSTAINS).all()) and not found.correct.any() and not found.l2.any()
    assert found.certified_accuracy(0.0) == 0


def test_a_class_selected_by_chance_is_not_certified() -> None:
    """One draw selects; the majority that the count then shows is not the selected class's."""
    away, labels = torch.full((60,), 1.28 * SIGMA), torch.ones(60, dtype=torch.int64)
    found = smoothed(linear, distances(away), labels, sigma=SIGMA, draws_select=1, draws_count=100)
    by_chance = found.probability < 0.5
    assert 0 < int(by_chance.sum()) < 20 and float(found.probability[by_chance].max()) < 0.2
    assert bool((found.predicted[by_chance] == ABSTAINS).all()) and bool((found.predicted[~by_chance] == 1).all())


def test_wrong_labels_certify_nothing() -> None:
    found = smoothed(linear, distances(torch.full((3,), 0.04)), torch.tensor([0, 1, 0]), sigma=SIGMA)
    assert found.predicted.tolist() == [1, 1, 1] and found.correct.tolist() == [False, True, False]
    assert found.certified_accuracy(0.001) == pytest.approx(1 / 3)


def equal(a: Smoothed, b: Smoothed) -> bool:
    return all(
        torch.equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(a) if f.name not in ("sigma", "failure")
    )


def test_noise_belongs_to_the_image() -> None:
    """On a deployed network: the same by any batch size and in any company, other by another seed."""
    graph = build(CASES[0])
    images = random_messages(CASES[0], graph, 5) / 255
    model, labels = Emulator(graph), torch.arange(5)

    def run(rows: list[int], **settings: int) -> Smoothed:
        counts = {"draws_select": 11, "draws_count": 40, "batch_size": 64} | settings
        return smoothed(model, images[rows], labels[rows], sigma=0.3, samples=torch.tensor(rows), **counts)

    done: list[int] = []
    whole = smoothed(
        model, images, labels, sigma=0.3, draws_select=11, draws_count=40, batch_size=64, progress=done.append
    )
    assert done == [1] * 5 and len(set(whole.probability.tolist())) > 2
    assert equal(whole, run([0, 1, 2, 3, 4], batch_size=7))
    assert torch.equal(run([3, 1]).probability, whole.probability[[3, 1]])
    assert not torch.equal(run([0, 1, 2, 3, 4], seed=1).probability, whole.probability)


def test_class_and_count_come_from_different_noise() -> None:
    seen: list[Tensor] = []

    def recording(images: Tensor) -> Tensor:
        seen.append(images)
        return linear(images)

    smoothed(recording, distances(torch.zeros(2)), torch.zeros(2).long(), sigma=SIGMA, draws_select=50, draws_count=50)
    rows = torch.cat(seen).flatten(1)
    assert len(rows.unique(dim=0)) == 200
    noise = ((torch.cat(seen) - 0.5) / SIGMA).flatten().numpy()
    assert abs(np.mean(noise)) < 0.15 and np.std(noise) == pytest.approx(1, abs=0.1)


def test_noisy_images_are_clipped_for_the_network() -> None:
    def checked(images: Tensor) -> Tensor:
        assert float(images.min()) == 0 and float(images.max()) == 1
        return images.flatten(1)

    smoothed(checked, torch.full((1, 1, 2, 2), 0.5), torch.zeros(1).long(), sigma=2.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigma": 0.0}, r"^sigma = 0.0 is not allowed; use a number above 0, in units of \[0, 1\]$"),
        ({"sigma": 0.1, "draws_select": 0}, r"^draws_select = 0 is not allowed; use 1 or more$"),
        ({"sigma": 0.1, "draws_count": 0}, r"^draws_count = 0 is not allowed; use 1 or more$"),
        ({"sigma": 0.1, "failure": 1.0}, r"^failure = 1.0 is not allowed; use a probability between 0 and 1$"),
    ],
)
def test_refuses_in_one_line(settings: dict[str, float], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        smoothed(linear, distances(torch.zeros(1)), torch.zeros(1).long(), **settings)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="use float values"):
        smoothed(linear, torch.zeros(1, 1, 2, 2, dtype=torch.uint8), torch.zeros(1).long(), sigma=0.1)
