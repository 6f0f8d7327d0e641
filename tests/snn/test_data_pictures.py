"""Picture folders, TinyImageNet and .npz files made small, and one line for each way they can be missing or damaged."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dataset_files import Bytes, assert_refused, load_from, random_pixels
from numpy.typing import NDArray
from PIL import Image

from hardspike.snn.errors import DataError, FileError


def _picture(path: Path, pixels: Bytes, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def _write_folder(root: Path, parts: dict[str, int], *shape: int) -> dict[str, Bytes]:
    """So many pictures of `shape` per class and part; classes cat and dog."""
    made = {}
    for seed, (part, count) in enumerate(parts.items()):
        images = random_pixels(seed, 2, count, *shape)
        for label, name in enumerate(("cat", "dog")):
            for number in range(count):
                _picture(root / part / name / f"{number}.png", images[label, number])
        made[part] = images.reshape(2 * count, *shape)
    return made


def test_a_folder_with_all_parts(tmp_path: Path) -> None:
    made = _write_folder(tmp_path, {"train": 6, "val": 3, "test": 4}, 5, 7, 3)
    splits = load_from("folder", tmp_path)
    assert splits.num_classes == 2 and splits.shape == (3, 5, 7)
    parts = zip((splits.train, splits.validation, splits.test), made.values(), strict=True)
    for part, images in parts:
        rows = {image.numpy().tobytes(): int(label) for image, label in zip(part.pixels, part.labels, strict=True)}
        wanted = images.transpose(0, 3, 1, 2)
        assert rows == {image.tobytes(): int(row >= len(wanted) // 2) for row, image in enumerate(wanted)}
        assert len(set(part.labels[:3].tolist())) == 2 or len(part) < 8  # not class by class
    values = splits.train.pixels.double().numpy() / 255
    np.testing.assert_allclose(splits.mean, values.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(splits.std, values.std((0, 2, 3)), rtol=1e-6)


def test_a_folder_with_training_images_only(tmp_path: Path) -> None:
    made = _write_folder(tmp_path, {"train": 20}, 4, 4)
    splits = load_from("folder", tmp_path, validation=0.1)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [32, 4, 4]
    rows = {image.numpy().tobytes() for part in (splits.train, splits.validation, splits.test) for image in part.pixels}
    assert rows == {image.tobytes() for image in made["train"]} and splits.shape == (1, 4, 4)
    assert splits.test.labels.sort().values.tolist() == [0, 0, 1, 1]


def test_grey_becomes_colour_where_one_image_is_and_palettes_are_read(tmp_path: Path) -> None:
    _write_folder(tmp_path, {"train": 3, "test": 1}, 4, 4)
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30] + [0] * 762)
    palette.save(tmp_path / "test" / "dog" / "0.png", transparency=b"\x00\xff")
    splits = load_from("folder", tmp_path)
    assert splits.shape == (3, 4, 4)
    assert (splits.train.pixels == splits.train.pixels[:, :1]).all()
    dog = splits.test.pixels[splits.test.labels == 1]
    assert dog[0, :, 0, 0].tolist() == [10, 20, 30]


def test_sizes_must_agree_or_are_made_to(tmp_path: Path) -> None:
    _write_folder(tmp_path, {"train": 3}, 4, 4)
    _picture(tmp_path / "train" / "dog" / "wide.png", np.full((4, 9), 77, np.uint8))
    assert_refused(DataError, "wide.png: 9x4 pixels, but .*0.png has 4x4; .* give data.image_size", "folder", tmp_path)
    splits = load_from("folder", tmp_path, image_size=6, validation=0.3)
    assert splits.shape == (1, 6, 6)
    pixels = torch.cat([splits.train.pixels, splits.validation.pixels, splits.test.pixels])
    assert ((pixels == 77).flatten(1).all(1)).sum() == 1


def test_folders_that_are_not_there_or_damaged(tmp_path: Path) -> None:
    assert_refused(DataError, r"'folder': not in .*; looked for train/<class>/\*.png", "folder", tmp_path)
    (tmp_path / "train" / "cat").mkdir(parents=True)
    assert_refused(DataError, r"train: no images in it; looked for <class>/\*.png", "folder", tmp_path)
    _write_folder(tmp_path, {"train": 3, "val": 2}, 40, 40)
    path = tmp_path / "train" / "cat" / "1.png"
    whole = path.read_bytes()
    for content in (whole[:-100], whole[:20], b"", b"text"):
        path.write_bytes(content)
        assert_refused(FileError, "1.png: not readable as an image", "folder", tmp_path)
    path.write_bytes(whole)
    _picture(path, np.zeros((40, 40), np.uint16))
    assert_refused(DataError, "1.png: pixels of kind 'I.*' are not read; use 8-bit grey or colour", "folder", tmp_path)
    path.write_bytes(whole)
    (tmp_path / "val" / "cow").mkdir()
    assert_refused(DataError, "val: class folder 'cow' is not in train/", "folder", tmp_path)


def _write_tiny_imagenet(root: Path) -> Path:
    top, names = root / "tiny-imagenet-200", ("n02", "n01", "n03")
    for label, name in enumerate(names):
        for number in range(10):
            pixels = np.full((64, 64, 3), 20 * label + number, np.uint8)
            grey = number == 0
            _picture(top / "train" / name / "images" / f"{name}_{number}.JPEG", pixels[:, :, 0] if grey else pixels)
        _picture(top / "val" / "images" / f"val_{label}.JPEG", np.full((64, 64, 3), 200 + label, np.uint8))
    (top / "wnids.txt").write_text("\n".join(names) + "\n")
    lines = [f"val_{label}.JPEG\t{names[label]}\t0\t0\t62\t62" for label in (2, 0, 1)]
    (top / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    return top


def test_tiny_imagenet(tmp_path: Path) -> None:
    _write_tiny_imagenet(tmp_path)
    splits = load_from("tinyimagenet", tmp_path)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [27, 3, 3]
    assert splits.shape == (3, 64, 64) and splits.num_classes == 3 and splits.mean == (0.485, 0.456, 0.406)
    assert splits.test.labels.tolist() == [2, 0, 1] and splits.validation.labels.sort().values.tolist() == [0, 1, 2]
    assert splits.test.pixels[:, 0, 0, 0].tolist() == [202, 200, 201]
    for part in (splits.train, splits.validation):
        assert torch.equal(part.pixels[:, 1, 9, 9] // 20, part.labels.byte())
    assert load_from("tinyimagenet", tmp_path, image_size=32).shape == (3, 32, 32)


def test_tiny_imagenet_that_is_not_there_or_damaged(tmp_path: Path) -> None:
    assert_refused(
        DataError, "'tinyimagenet': not in .*; looked for tiny-imagenet-200/wnids.txt", "tinyimagenet", tmp_path
    )
    top = _write_tiny_imagenet(tmp_path)
    notes = top / "val" / "val_annotations.txt"
    lines = notes.read_text()
    notes.write_text(lines + "val_0.JPEG\tn99\t0\n")
    assert_refused(
        FileError, "val_annotations.txt: line 4 names class 'n99'; wnids.txt does not", "tinyimagenet", tmp_path
    )
    notes.write_text(lines + "val_9.JPEG\tn01\t0\n")
    assert_refused(FileError, "val_9.JPEG: not readable as an image .no such file", "tinyimagenet", tmp_path)
    notes.write_text(lines)
    (top / "wnids.txt").write_text("")
    assert_refused(FileError, "train: no images of the classes in wnids.txt", "tinyimagenet", tmp_path)


def _arrays(shape: tuple[int, ...], kind: Any = np.uint8) -> dict[str, NDArray[Any]]:
    images = random_pixels(4, 20, *shape)
    stored = images if kind == np.uint8 else (images / 255).astype(kind)
    labels = np.arange(20) % 4
    return {"train_images": stored, "train_labels": labels, "test_images": stored[:8], "test_labels": labels[:8]}


def _write_npz(path: Path, arrays: dict[str, NDArray[Any]]) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((6, 5), (1, 6, 5)),
        ((6, 5, 1), (1, 6, 5)),
        ((6, 5, 3), (3, 6, 5)),
        ((3, 6, 5), (3, 6, 5)),
        ((1, 6, 5), (1, 6, 5)),
    ],
)
def test_npz(tmp_path: Path, kind: Any, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    arrays = _arrays(shape, kind)
    splits = load_from("npz", _write_npz(tmp_path / "mine.npz", arrays), validation=0.2)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [16, 4, 8]
    assert splits.shape == expected and splits.num_classes == 4
    assert splits.train.pixels.dtype == (torch.uint8 if kind == np.uint8 else torch.float32)
    images = arrays["test_images"].astype(np.float32) / (255 if kind == np.uint8 else 1)
    first = images.transpose(0, 3, 1, 2) if shape[-1:] in ((1,), (3,)) else images.reshape(8, *expected)
    wanted = {
        image.tobytes(): label for image, label in zip(first.astype(np.float32), arrays["test_labels"], strict=True)
    }
    found = {image.numpy().tobytes(): int(y) for image, y in zip(splits.test.images, splits.test.labels, strict=True)}
    assert found == wanted


def test_npz_with_its_own_validation_part(tmp_path: Path) -> None:
    arrays = _arrays((6, 5))
    own = {"validation_images": random_pixels(9, 5, 6, 5), "validation_labels": np.array([[0], [1], [2], [3], [0]])}
    splits = load_from("npz", _write_npz(tmp_path / "mine.npz", arrays | own))
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [20, 5, 8]
    assert {image.numpy().tobytes() for image in splits.validation.pixels} == {
        image.tobytes() for image in own["validation_images"]
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_labels": None}, "array 'test_labels' is missing; found test_images, train_images, train_labels"),
        ({"validation_labels": np.zeros(3, int)}, "array 'validation_images' is missing"),
        ({"train_images": np.zeros((20, 6, 5), int)}, "train_images has dtype int64; use uint8, or float"),
        ({"train_images": np.zeros((20, 6))}, r"train_images has shape \(20, 6\); use \(N, H, W\)"),
        ({"train_images": np.zeros((20, 3, 6, 3))}, r"train_images has shape \(20, 3, 6, 3\)"),
        ({"train_images": np.zeros((20, 4, 6, 4))}, "with 1 or 3 channels"),
        (
            {"train_images": np.full((20, 6, 5), 255.0)},
            r"'npz', training images: values 255..255 are not allowed; scale",
        ),
        ({"train_images": np.full((20, 6, 5), np.nan)}, "'npz', training images: 540 values are NaN"),
        ({"train_images": np.full((20, 6, 5), 0.25)}, "std: .0.0,. found; all must be positive"),
        ({"train_images": np.zeros((19, 6, 5))}, "20 train_labels for 19 images"),
        ({"train_labels": np.zeros(20)}, r"train_labels is float64 \(20,\); use whole numbers"),
        ({"train_labels": np.zeros((20, 2), int)}, r"train_labels is int64 \(20, 2\)"),
        ({"train_labels": np.full(20, -1)}, "train_labels begin at -1; number the classes from 0"),
        ({"test_labels": np.full(8, 4)}, r"'npz', test labels: values 4..4 are not allowed; use 0..3"),
        ({"test_images": np.zeros((8, 6, 6), np.uint8)}, r"test images: .* = \(1, 6, 6, 4\); the training images"),
    ],
)
def test_npz_with_wrong_arrays(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    arrays = {name: array for name, array in (_arrays((6, 5)) | changes).items() if array is not None}
    assert_refused(DataError, message, "npz", _write_npz(tmp_path / "mine.npz", arrays))


def test_npz_that_is_not_there_or_damaged(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    assert_refused(DataError, "'npz': .*mine.npz is no file; looked for a .npz file there; say where", "npz", path)
    whole = _write_npz(path, _arrays((6, 5))).read_bytes()
    middle = whole[:300] + b"\x00" * 40 + whole[340:]
    for content in (whole[:-50], whole[:100], b"", b"text", middle):
        path.write_bytes(content)
        assert_refused(FileError, "mine.npz: not readable as .npz of plain arrays", "npz", path)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    assert_refused(FileError, "mine.npz: not readable as .npz of plain arrays", "npz", path)


def test_npz_with_objects_is_refused_unread(tmp_path: Path) -> None:
    objects = _arrays((6, 5)) | {"train_labels": np.array([None] * 20)}
    path = _write_npz(tmp_path / "mine.npz", objects)
    assert_refused(FileError, "not readable as .npz of plain arrays .Object arrays cannot be loaded", "npz", path)
