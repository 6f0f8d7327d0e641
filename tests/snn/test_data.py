"""Image sets and the digits: fixed parts, and one line for every way images or labels can be wrong."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hardspike.snn.data import DataSettings, ImageSet, Splits, channel_statistics, data_root, load_dataset
from hardspike.snn.data_source import Labelled, fixed_order, hold_out, stratified_rows
from hardspike.snn.errors import DataError, SettingsError

IMAGES, LABELS = torch.zeros(3, 1, 8, 8), torch.tensor([0, 1, 9])
HELD = [18, 170, 107, 98, 177, 182, 5, 146, 12, 152, 61, 125, 180, 80, 7, 33, 130, 37, 74, 145]
ORDER = [6, 2, 1, 7, 3, 0, 5, 4]


def test_digits_are_split_once_and_for_all() -> None:
    splits = load_dataset(DataSettings())
    parts = (splits.train, splits.validation, splits.test)
    assert [len(part) for part in parts] == [1077, 360, 360]
    digest = hashlib.sha256()
    for part in parts:
        assert part.images.dtype == torch.float32 and part.images.shape[1:] == (1, 8, 8)
        assert float(part.images.min()) == 0 and float(part.images.max()) == 1
        assert torch.bincount(part.labels).min() >= len(part) // 11  # stratified
        digest.update((part.images * 16).byte().numpy().tobytes() + part.labels.byte().numpy().tobytes())
    assert digest.hexdigest() == "fe61ab36c43799dc9ddefb6a39abf0457908858bf1dcd6736d2f25eb3de7667c"
    rows = torch.cat([part.images.flatten(1) for part in parts])
    assert len(rows) == 1797


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES + float("nan"), LABELS, "images: 192 values are NaN or infinite; all must be finite"),
        (IMAGES + 1.5, LABELS, r"images: values 1.5..1.5 are not allowed; scale them to \[0, 1\]"),
        (IMAGES.int(), LABELS, "images: dtype torch.int32 is not allowed; use float values"),
        (IMAGES[0].byte(), LABELS, r"images: shape \(1, 8, 8\) is not allowed; use \(count, channels, height, width\)"),
        (IMAGES[0], LABELS, r"images: shape \(1, 8, 8\) is not allowed; use \(count, channels, height, width\)"),
        (IMAGES, LABELS + 1, r"labels: values 1..10 are not allowed; use 0..9"),
        (IMAGES, LABELS - 1, r"labels: values -1..8 are not allowed; use 0..9"),
        (IMAGES, LABELS[:2], r"labels: \(2,\) for 3 images; give one label per image"),
        (IMAGES, LABELS.float(), "labels: dtype torch.float32 is not allowed; use int64"),
    ],
    ids=["NaN", "range", "dtype", "8-bit shape", "shape", "label too large", "label negative", "count", "label dtype"],
)
def test_bad_data_is_one_line(images: torch.Tensor, labels: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        ImageSet(images, labels, 10)
    assert "\n" not in str(caught.value)


def test_eight_bit_pixels_stay_eight_bit_and_read_as_shares_of_255() -> None:
    pixels = torch.randint(0, 256, (5, 3, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = ImageSet(pixels, torch.arange(5), 5)
    rows = torch.tensor([4, 1])
    assert torch.equal(data.images, pixels.float() / 255) and data.images.dtype == torch.float32
    images, labels = data.take(rows)
    assert torch.equal(images, data.images[rows]) and labels.tolist() == [4, 1]
    chosen = data.select(rows)
    assert chosen.pixels.dtype == torch.uint8 and torch.equal(chosen.images, images) and len(chosen) == 2
    assert torch.equal(data.first(2).pixels, pixels[:2]) and len(data.first(9)) == 5


def test_float_pixels_are_read_as_they_are() -> None:
    data = ImageSet(torch.rand(3, 1, 8, 8), LABELS, 10)
    assert data.images is data.pixels
    assert torch.equal(data.take(torch.tensor([2]))[0], data.images[2:])


def test_splits_know_shape_classes_and_normalisation() -> None:
    data = ImageSet(IMAGES, LABELS, 10)
    splits = Splits(data, data, data)
    assert (splits.shape, splits.num_classes, splits.mean, splits.std) == ((1, 8, 8), 10, (0.5,), (0.5,))
    with pytest.raises(DataError, match=r"mean: 3 values for 1 channels; give one per channel"):
        Splits(data, data, data, mean=(0.1, 0.2, 0.3))
    with pytest.raises(DataError, match=r"std: .0.0,. found; all must be positive"):
        Splits(data, data, data, std=(0.0,))
    other = ImageSet(IMAGES, LABELS, 11)
    with pytest.raises(DataError, match=r"test images: .* = \(1, 8, 8, 11\); the training images have \(1, 8, 8, 10\)"):
        Splits(data, data, other)


@pytest.mark.parametrize("eight_bit", [False, True])
def test_channel_statistics_agree_with_numpy(eight_bit: bool) -> None:
    images = torch.rand(1500, 2, 3, 3, generator=torch.Generator().manual_seed(1))
    pixels = (images * 255).byte() if eight_bit else images
    values = (pixels.double() / 255 if eight_bit else pixels.double()).numpy()
    mean, std = channel_statistics(pixels)
    np.testing.assert_allclose(mean, values.mean((0, 2, 3)), rtol=1e-7)
    np.testing.assert_allclose(std, values.std((0, 2, 3)), rtol=1e-6)


def test_the_constants_of_digits_are_those_of_the_training_images() -> None:
    splits = load_dataset(DataSettings())
    mean, std = channel_statistics(splits.train.pixels)
    assert (*mean, *std) == pytest.approx((*splits.mean, *splits.std), abs=1e-3)


def test_the_hold_out_is_stratified_disjoint_and_always_the_same() -> None:
    labels = np.repeat(np.arange(4), (100, 50, 30, 20)).astype(np.int64)
    whole = Labelled(np.arange(200, dtype=np.float32).reshape(200, 1, 1, 1), labels)
    rest, held = hold_out(whole, 0.1)
    assert np.bincount(held.labels).tolist() == [10, 5, 3, 2]
    rows = [part.pixels.reshape(-1).astype(int) for part in (rest, held)]
    assert sorted(np.concatenate(rows)) == list(range(200)) and rows[0].tolist() == sorted(rows[0])
    for part, found in zip((rest, held), rows, strict=True):
        assert (part.labels == labels[found]).all()
    # As NumPy's frozen stream has it: the same on every machine and Python.
    assert rows[1].tolist() == HELD
    assert fixed_order(8).tolist() == ORDER
    with pytest.raises(DataError, match="training images: 1 found; at least 2"):
        hold_out(whole.rows(np.array([3])), 0.5)


@pytest.mark.parametrize("count", [1, 3, 7, 64, 200])
def test_subsets_have_exactly_the_size_asked_for(count: int) -> None:
    labels = np.random.RandomState(3).randint(0, 7, 200)
    rows = stratified_rows(labels, count)
    assert len(set(rows.tolist())) == count
    wanted = np.bincount(labels, minlength=7) * count / 200
    assert np.abs(np.bincount(labels[rows], minlength=7) - wanted).max() < 1


def test_subsets_of_the_digits() -> None:
    whole = load_dataset(DataSettings())
    few = load_dataset(DataSettings(train_images=100, test_images=30))
    assert [len(part) for part in (few.train, few.validation, few.test)] == [100, 360, 30]
    assert torch.bincount(few.train.labels).min() >= 9
    assert torch.equal(few.validation.pixels, whole.validation.pixels)
    assert torch.equal(few.test.labels, whole.test.labels[torch.from_numpy(fixed_order(360)[:30])])
    more = load_dataset(DataSettings(test_images=50))
    assert torch.equal(more.test.first(30).pixels, few.test.pixels)
    with pytest.raises(DataError, match="data.train_images = 2000: only 1077 are there; use at most that many"):
        load_dataset(DataSettings(train_images=2000))
    with pytest.raises(DataError, match="data.test_images = 361: only 360 are there"):
        load_dataset(DataSettings(test_images=361))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "digit"}, "data.dataset 'digit' is unknown; did you mean 'digits'"),
        ({"dataset": "npz"}, "data.root = '' is not allowed; 'npz' is read from a place of your own"),
        ({"validation": 0.0}, "data.validation = 0.0 is not allowed; use a share between 0 and 1"),
        ({"train_images": -1}, "data.train_images = -1 is not allowed"),
        ({"test_images": -1}, "data.test_images = -1 is not allowed"),
        ({"image_size": 32}, "data.image_size = 32 is not allowed; only folder and tinyimagenet are resized"),
        ({"dataset": "folder", "root": "x", "image_size": -1}, "data.image_size = -1 is not allowed"),
    ],
)
def test_bad_settings_are_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        DataSettings(**changes)
    assert "\n" not in str(caught.value)


def test_the_root_is_the_setting_then_the_environment_then_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("HARDSPIKE_DATA", raising=False)
    assert data_root(DataSettings()) == Path("/home/me/.cache/hardspike/data")
    monkeypatch.setenv("HARDSPIKE_DATA", "/elsewhere")
    assert data_root(DataSettings()) == Path("/elsewhere")
    assert data_root(DataSettings(root="~/x")) == Path("/home/me/x")
