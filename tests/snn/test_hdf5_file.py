"""Damage to HDF5 files that h5py does not answer with an exception: here it is one."""

import struct
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from hardspike.snn.errors import FileError, SettingsError
from hardspike.snn.hdf5_file import HEAP_HEADER, HEAP_MARK, read_dataset, reading_hdf5


def written(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file["texts"] = ["one", "two", "three"]
        file["numbers"] = np.arange(6, dtype=np.float32)
        file["fixed"] = np.bytes_("fixed")
    return path


def read(path: Path, name: str) -> Any:
    with reading_hdf5(path, "a test file") as file:
        return read_dataset(file, name, str(path))


def test_numbers_and_strings_of_both_kinds(tmp_path: Path) -> None:
    path = written(tmp_path / "a.h5")
    assert read(path, "texts").tolist() == ["one", "two", "three"]
    assert read(path, "numbers").tolist() == [0, 1, 2, 3, 4, 5] and read(path, "fixed").item() == b"fixed"


def heap_objects(content: bytes) -> list[int]:
    """Where the objects of the heap begin, the free space last."""
    start = content.index(HEAP_MARK)
    (size,) = struct.unpack_from("<Q", content, start + 8)
    found, at = [], start + HEAP_HEADER
    while at + HEAP_HEADER <= start + size:
        found.append(at)
        number, length = struct.unpack_from("<H6xQ", content, at)
        at += length if number == 0 else HEAP_HEADER + (length + 7) // 8 * 8
    return found


@pytest.mark.parametrize("size", [0, 1 << 40, (1 << 64) - 1, 5000])
def test_free_space_of_impossible_size_is_refused_not_waited_for(size: int, tmp_path: Path) -> None:
    """With size 0, libhdf5 2.0 does not come back from reading any of the strings."""
    path = written(tmp_path / "a.h5")
    content = bytearray(path.read_bytes())
    at = heap_objects(bytes(content))[-1]
    assert struct.unpack_from("<H", content, at) == (0,)
    content[at + 8 : at + 16] = struct.pack("<Q", size)
    path.write_bytes(content)
    with pytest.raises(FileError, match=f"its heap of strings is broken at byte {at}; it is damaged"):
        read(path, "texts")


def test_an_object_that_became_free_space_of_size_0_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.h5")
    content = bytearray(path.read_bytes())
    at = heap_objects(bytes(content))[1]
    content[at : at + 16] = bytes(16)
    path.write_bytes(content)
    with pytest.raises(FileError, match="its heap of strings is broken"):
        read(path, "texts")


def test_claims_and_links_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        file.create_dataset("huge", shape=(1 << 28,), dtype="f4", chunks=True)
        file.create_dataset("zeros", data=np.zeros(1 << 20, dtype=np.float32), compression="gzip")
        file["soft"] = h5py.SoftLink("/numbers")
        file["outside"] = h5py.ExternalLink("/dev/zero", "/numbers")
        file["complex"] = np.ones(3, dtype=complex)
        file.create_group("group")
    assert read(path, "zeros").size == 1 << 20  # compressed a thousand times, but stored
    with pytest.raises(FileError, match="dataset 'huge' claims 268435456 values"):
        read(path, "huge")
    for name in ("soft", "outside", "group", "missing"):
        with pytest.raises(FileError, match=f"has no dataset '{name}'"):
            read(path, name)
    with pytest.raises(
        FileError, match="dataset 'complex' holds values of type complex128; it must hold numbers or text"
    ):
        read(path, "complex")


def test_what_is_raised_inside_stays_ours(tmp_path: Path) -> None:
    path = written(tmp_path / "a.h5")
    with pytest.raises(SettingsError, match="mine"), reading_hdf5(path, "a test file"):
        raise SettingsError("mine")
    with (
        pytest.raises(FileError, match="not readable as HDF5 .*it is damaged or not a test file"),
        reading_hdf5(path, "a test file"),
    ):
        raise KeyError("h5py's")
    with pytest.raises(FileError, match="no such file; expected a test file"):
        read(tmp_path / "none.h5", "x")
