"""HDF5 files from elsewhere, read so that damage ends in an error: not in a hang, and not in memory that nothing fills."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hardspike.snn.errors import FileError, HardspikeError

# The best that deflate can do, with some space for what is stored without a chunk of its own.
MOST_COMPRESSED = 1032
SMALLEST_CLAIM = 1 << 16
HEAP_MARK = b"GCOL\x01\x00\x00\x00"
HEAP_HEADER = 16


@contextmanager
def reading_hdf5(path: Path, kind: str) -> Iterator[Any]:
    """The opened `h5py.File`; `kind` says what was expected (`a .net file`).

    Raises FileError when the file is missing or no HDF5, and in place of whatever h5py answers damage with inside the block.
    """
    try:
        with path.open("rb") as bytes_of_file, mmap(bytes_of_file.fileno(), 0, access=ACCESS_READ) as content:
            _check_string_heaps(content, path)
        with h5py.File(path, "r") as file:
            yield file
    except FileNotFoundError:
        raise FileError(f"{path}: no such file; expected {kind}") from None
    except HardspikeError:
        raise
    except (OSError, KeyError, RuntimeError, TypeError, ValueError, MemoryError) as error:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FileError(f"{path}: not readable as HDF5 ({line}); it is damaged or not {kind}") from error


def read_dataset(group: Any, name: str, where: str) -> NDArray[Any]:
    """The dataset `name` of a group as an array of numbers, of bytes, or of str objects (strings of any length).

    `where` begins the message of the FileError for one that is missing, holds something else, or claims more values than
    its bytes in the file can hold. Links are not followed.
    """
    found = group.get(name) if isinstance(group.get(name, getlink=True), h5py.HardLink) else None
    if not isinstance(found, h5py.Dataset):
        raise FileError(f"{where} has no dataset '{name}'; the file is damaged or of another version")
    is_text = h5py.check_string_dtype(found.dtype) is not None
    if found.dtype.kind not in "biuf" and not is_text:
        raise FileError(f"{where}: dataset '{name}' holds values of type {found.dtype}; it must hold numbers or text")
    stored = min(found.id.get_storage_size(), found.file.id.get_filesize())
    if found.size is None or found.size * found.dtype.itemsize > max(stored * MOST_COMPRESSED, SMALLEST_CLAIM):
        raise FileError(f"{where}: dataset '{name}' claims {found.size} values; the file is damaged")
    value = np.asarray(found[()])
    return _decoded(value) if value.dtype.kind == "O" else value


def _decoded(texts: NDArray[Any]) -> NDArray[Any]:
    """Strings of any length, which h5py gives as bytes."""
    decoded = [text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text) for text in texts.ravel()]
    result = np.empty(texts.size, dtype=object)
    result[:] = decoded
    return result.reshape(texts.shape)


def _check_string_heaps(content: mmap, path: Path) -> None:
    """Raise FileError where libhdf5 would not come back from reading a string of variable length.

    Such strings lie in collections of the global heap (HDF5 file format specification, III.E). libhdf5 2.0 walks through a
    collection by the sizes it holds, and takes no step at free space of size 0 (H5HGcache.c).
    """
    start = content.find(HEAP_MARK)
    while 0 <= start <= len(content) - HEAP_HEADER:
        (size,) = struct.unpack_from("<Q", content, start + 8)
        end, at = start + size, start + HEAP_HEADER
        while at + HEAP_HEADER <= min(end, len(content)):
            number, length = struct.unpack_from("<H6xQ", content, at)
            step = length if number == 0 else HEAP_HEADER + (length + 7) // 8 * 8
            if step == 0 or at + step > end:
                raise FileError(f"{path}: its heap of strings is broken at byte {at}; it is damaged")
            at += step
        start = content.find(HEAP_MARK, start + 1)
