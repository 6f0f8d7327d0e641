"""Shares, their intervals, and the sentences made of them."""

from math import sqrt
from pathlib import Path

import pytest
import torch
from small_networks import ARCHITECTURES, build, images
from swept_runs import FLOAT_ONLY, float_run, look

from hardspike.analyses.shares import Share, bars, carried, change, line, linf_eps, noise_from_seed, right_on
from hardspike.run_folder import RunFolder
from hardspike.snn.encoding import NoiseSource
from hardspike.snn.errors import SettingsError


def share(count: int, of: int) -> Share:
    return Share.of_flags(torch.arange(of) < count)


@pytest.mark.parametrize(("count", "of"), [(0, 1), (1, 1), (0, 40), (17, 40), (40, 40)])
def test_the_interval_is_wilsons(count: int, of: int) -> None:
    z, p = 1.959963984540054, count / of
    middle = (p + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    found = share(count, of)
    assert found.value == p
    assert (found.low, found.high) == pytest.approx((max(middle - half, 0), min(middle + half, 1)), abs=1e-9)


def test_sentences_of_changes() -> None:
    assert change(share(40, 40), share(20, 40)) == "falls from 100.0 % to 50.0 %"
    assert change(share(10, 40), share(38, 40)) == "rises from 25.0 % to 95.0 %"
    assert change(share(30, 40), share(28, 40)) == "falls from 75.0 % to 70.0 % (within the intervals)"
    assert change(share(30, 40), share(30, 40)) == "stays at 75.0 %"


def test_apart_only_without_overlap() -> None:
    assert share(40, 40).apart(share(20, 40)) and share(20, 40).apart(share(40, 40))
    assert not share(30, 40).apart(share(26, 40))


def test_series_carry_the_intervals() -> None:
    made = line("a", "snn", [0, 1], [share(1, 4), share(3, 4)], dashed=True)
    assert made.y == (0.25, 0.75) and made.low == (share(1, 4).low, share(3, 4).low) and made.dashed
    group = bars("b", "ann", [share(1, 4), None])
    assert group.values == (0.25, None) and group.high == (share(1, 4).high, None)


def test_right_on_equals_one_image_at_a_time() -> None:
    net = build(ARCHITECTURES["dense only"])
    pictures = images(net.architecture, 9)
    labels = torch.arange(9) % 5
    flags = [int(net(one[None]).argmax()) == int(label) for one, label in zip(pictures, labels, strict=True)]
    assert right_on(net, pictures, labels).tolist() == flags and 0 < sum(flags) < 9


def test_noise_of_a_model_starts_from_the_seed_and_is_as_it_was_afterwards() -> None:
    class Noisy:
        def __init__(self) -> None:
            self.noise = NoiseSource(3)

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return self.noise.uniform((2, 2), x)

    model, like = Noisy(), torch.zeros(1)
    untouched = Noisy()
    with noise_from_seed([model, model, len], 7):
        first = model(like)
    with noise_from_seed([model], 7):
        assert torch.equal(model(like), first)
    assert torch.equal(model(like), untouched(like)) and not torch.equal(first, untouched(like))


def test_a_run_of_another_norm_needs_a_budget(tmp_path: Path) -> None:
    attack = {"norm": "l2", "eps": [1.5], "images": 8, "members": ["fgsm"], "targets": ["snn"]}
    folder = float_run(tmp_path / "l2", FLOAT_ONLY | {"attack": attack})
    with pytest.raises(SettingsError, match=r"attack\.norm = 'l2'.*give eps"):
        linf_eps(look(folder, 4))
    assert linf_eps(look(folder, 4, eps=0.2)) == 0.2


def test_clean_images_are_what_the_input_carries(run: Path) -> None:
    subject = look(RunFolder.open(run), 5)
    found = carried(subject, subject.test.images)
    assert torch.equal(found, torch.floor(subject.test.images.double() * 255 + 0.5).div(255).float())
    assert not torch.equal(found, subject.test.images)
