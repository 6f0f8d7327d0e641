"""Images in folders, one folder per class; and TinyImageNet, which is almost that. Pillow reads them; uint8.

Any image folder: ROOT/train/<class>/*.png (or another common format), optional ROOT/val and ROOT/test the same way. Classes are
numbered in the order of their names. TinyImageNet is looked for as its archive unpacks: ROOT/tiny-imagenet-200.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hardspike.snn.data_source import Labelled, Source, not_found, shuffled
from hardspike.snn.errors import DataError, FileError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".gif", ".tif", ".tiff", ".webp")
# Only these: other readers of Pillow start programs.
FORMATS = ("PNG", "JPEG", "BMP", "PPM", "GIF", "TIFF", "WEBP")
GREY, COLOUR = ("1", "L", "LA"), ("P", "RGB", "RGBA", "CMYK", "YCbCr")

Listing = list[tuple[Path, int]]


def load_folder(root: Path, image_size: int) -> Source:
    """Grey where all images are, else RGB. Images are of one size, or all made `image_size` x `image_size` (bilinear).

    Raises DataError when there is nothing to read or sizes differ, FileError for a damaged image.
    """
    if not (root / "train").is_dir():
        raise not_found("folder", root, ["train/<class>/*.png (or jpg, bmp, ...)", "optional val/ and test/ like it"])
    classes = sorted(entry.name for entry in (root / "train").iterdir() if entry.is_dir())
    listings = {part: _listing(root / part, classes) for part in ("train", "val", "test") if (root / part).is_dir()}
    files = [path for listing in listings.values() for path, _ in listing]
    pixels = read_images(files, image_size)
    parts, start = {}, 0
    for part, listing in listings.items():
        labels = np.array([label for _, label in listing], dtype=np.int64)
        parts[part] = shuffled(Labelled(pixels[start : start + len(listing)], labels))
        start += len(listing)
    return Source(parts["train"], parts.get("val"), parts.get("test"), len(classes))


def load_tiny_imagenet(root: Path, image_size: int) -> Source:
    """64x64 RGB, 200 classes; its `val` is the test part, because its own test images have no labels.

    Raises DataError when the files are not there, FileError when one is damaged.
    """
    top = root / "tiny-imagenet-200"
    names, notes = top / "wnids.txt", top / "val" / "val_annotations.txt"
    if not (names.is_file() and notes.is_file() and (top / "train").is_dir() and (top / "val" / "images").is_dir()):
        needed = ("wnids.txt", "train/<wnid>/images/*.JPEG", "val/images", "val/val_annotations.txt")
        raise not_found("tinyimagenet", root, [f"tiny-imagenet-200/{name}" for name in needed])
    classes = {name: label for label, name in enumerate(names.read_text(encoding="utf-8", errors="replace").split())}
    train = [(path, label) for name, label in classes.items() for path in _files(top / "train" / name / "images")]
    if not train:
        raise FileError(f"{top / 'train'}: no images of the classes in wnids.txt; unpack the archive again")
    test: Listing = []
    for number, line in enumerate(notes.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        image, _, rest = line.partition("\t")
        name = rest.partition("\t")[0]
        if name not in classes:
            raise FileError(f"{notes}: line {number} names class {name!r}; wnids.txt does not; get it again")
        test.append((top / "val" / "images" / image, classes[name]))
    pixels = read_images([path for path, _ in train + test], image_size, colour=True)
    labels = np.array([label for _, label in train + test], dtype=np.int64)
    return Source(
        Labelled(pixels[: len(train)], labels[: len(train)]),
        None,
        Labelled(pixels[len(train) :], labels[len(train) :]),
        len(classes),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )


def read_images(paths: Sequence[Path], image_size: int, *, colour: bool = False) -> NDArray[np.uint8]:
    """uint8 (N, C, H, W): 1 channel where all images are grey and `colour` is False, else RGB.

    Raises DataError for images of different sizes when `image_size` is 0, FileError for a damaged image.
    """
    kinds = [_look(path) for path in paths]
    sizes = {path: size for path, (_, size) in zip(paths, kinds, strict=True)}
    first = next(iter(sizes.items()))
    for path, size in sizes.items():
        if not image_size and size != first[1]:
            raise DataError(
                f"{path}: {size[0]}x{size[1]} pixels, but {first[0]} has {first[1][0]}x{first[1][1]}; all must have one size; "
                "give data.image_size to resize them"
            )
    mode = "RGB" if colour or any(kind not in GREY for kind, _ in kinds) else "L"
    width, height = (image_size, image_size) if image_size else first[1]
    pixels = np.empty((len(paths), 3 if mode == "RGB" else 1, height, width), dtype=np.uint8)
    for row, path in zip(pixels, paths, strict=True):
        row[:] = _decode(path, mode, (width, height)).reshape(height, width, -1).transpose(2, 0, 1)
    return pixels


def _listing(folder: Path, classes: Sequence[str]) -> Listing:
    unknown = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name not in classes)
    if unknown:
        raise DataError(f"{folder}: class folder '{unknown[0]}' is not in train/; use the same classes in every part")
    files = [(path, label) for label, name in enumerate(classes) for path in _files(folder / name)]
    if not files:
        raise DataError(f"{folder}: no images in it; looked for <class>/*{', *'.join(SUFFIXES)}; put them there")
    return files


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def _look(path: Path) -> tuple[str, tuple[int, int]]:
    """(mode, (width, height)) from the header."""
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as image:
            mode, size = image.mode, image.size
    except Exception as error:  # Pillow's readers raise whatever the damaged bytes led them to
        raise _unreadable(path, error) from None
    if mode not in GREY + COLOUR:
        raise DataError(f"{path}: pixels of kind '{mode}' are not read; use 8-bit grey or colour")
    return mode, size


def _decode(path: Path, mode: str, size: tuple[int, int]) -> NDArray[np.uint8]:
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as image:
            # Palettes with transparency go through RGBA, or Pillow warns.
            through = image.convert("RGBA") if "transparency" in image.info else image
            plain = through.convert(mode)
            return np.asarray(plain if plain.size == size else plain.resize(size, Image.Resampling.BILINEAR))
    except Exception as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> FileError:
    reason = "no such file" if isinstance(error, FileNotFoundError) else " ".join(str(error).split())[:100]
    return FileError(f"{path}: not readable as an image ({reason}); it is damaged, get it again")
