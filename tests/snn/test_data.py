"""Image sets and the digits: fixed parts, and one line for every way images or labels can be wrong."""

import hashlib

import pytest
import torch

from hardspike.snn.data import ImageSet, load_dataset
from hardspike.snn.errors import DataError

IMAGES, LABELS = torch.zeros(3, 1, 8, 8), torch.tensor([0, 1, 9])


def test_digits_are_split_once_and_for_all() -> None:
    splits = load_dataset("digits")
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
        (IMAGES.byte(), LABELS, "images: dtype torch.uint8 is not allowed; use float values"),
        (IMAGES[0], LABELS, r"images: shape \(1, 8, 8\) is not allowed; use \(count, channels, height, width\)"),
        (IMAGES, LABELS + 1, r"labels: values 1..10 are not allowed; use 0..9"),
        (IMAGES, LABELS - 1, r"labels: values -1..8 are not allowed; use 0..9"),
        (IMAGES, LABELS[:2], r"labels: \(2,\) for 3 images; give one label per image"),
        (IMAGES, LABELS.float(), "labels: dtype torch.float32 is not allowed; use int64"),
    ],
    ids=["NaN", "range", "dtype", "shape", "label too large", "label negative", "count", "label dtype"],
)
def test_bad_data_is_one_line(images: torch.Tensor, labels: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        ImageSet(images, labels, 10)
    assert "\n" not in str(caught.value)


def test_an_unknown_data_set_names_the_nearest() -> None:
    with pytest.raises(DataError, match="data set 'digit' is unknown; did you mean 'digits'"):
        load_dataset("digit")
