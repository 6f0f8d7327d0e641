"""Pickles of plain arrays are read without running anything; every other pickle is refused in one line."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hardspike.snn.errors import FileError
from hardspike.snn.pickled_arrays import read_pickled_dict

# What Python 2's cPickle wrote for {'labels': [6, 300], 'data': uint8 [[1, 200]], 'filenames': ['a.png']}: 8-bit texts.
PYTHON2 = (
    b"\x80\x02}q\x01(U\x06labelsq\x02]q\x03(K\x06M\x2c\x01eU\x04dataq\x04cnumpy.core.multiarray\n_reconstruct\nq\x05"
    b"cnumpy\nndarray\nq\x06K\x00\x85U\x01b\x87Rq\x07(K\x01K\x01K\x02\x86cnumpy\ndtype\nq\x08U\x02u1K\x00K\x01\x87Rq\x09"
    b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T\x02\x00\x00\x00\x01\xc8tbU\x09filenamesq\x0a]q\x0b"
    b"U\x05a.pngq\x0cau."
)


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.trace,))


class EvilCode:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (eval, (f"open({str(self.trace)!r}, 'w')",))


def _write(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "data_batch_1"
    path.write_bytes(content)
    return path


def test_the_pickle_of_python_2(tmp_path: Path) -> None:
    found = read_pickled_dict(_write(tmp_path, PYTHON2))
    assert found["labels"] == [6, 300] and found["filenames"] == [b"a.png"]
    assert found["data"].dtype == np.uint8 and found["data"].tolist() == [[1, 200]] and found["data"].flags.writeable


@pytest.mark.parametrize("kind", ["u1", "<i2", ">i4", "<i8", ">u2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_come_back_as_numpy_wrote_them(tmp_path: Path, kind: str, order: Any) -> None:
    array = np.asarray(np.arange(12).reshape(3, 4), dtype=kind, order=order)
    content = {b"data": array, "again": array, "labels": list(range(300)), "mixed": (1, (), None, True, -7, 2**40)}
    found = read_pickled_dict(_write(tmp_path, pickle.dumps(content, protocol=2)))
    np.testing.assert_array_equal(found["data"], array)
    np.testing.assert_array_equal(found["again"], array)
    assert found["labels"] == content["labels"] and found["mixed"] == content["mixed"]


def test_nothing_in_a_pickle_runs(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    for evil in (Evil(trace), EvilCode(trace)):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            content = pickle.dumps({b"labels": [1], b"data": evil}, protocol=protocol)
            with pytest.raises(FileError) as caught:
                read_pickled_dict(_write(tmp_path, content))
            assert "\n" not in str(caught.value) and not trace.exists()
    pickle.loads(pickle.dumps(EvilCode(trace), protocol=2)).close()
    assert trace.exists()  # it would have


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            pickle.dumps({"a": eval}, protocol=2),
            "wants to call '(__builtin__|builtins) eval'; only NumPy arrays are read",
        ),
        (pickle.dumps({"a": 1.5}, protocol=2), "pickle instruction BINFLOAT is not read"),
        (pickle.dumps({"a": 1}, protocol=4), "pickle instruction PROTO is not read"),
        (pickle.dumps({"a": np.array([None])}, protocol=2), "numpy dtype of .'O8'"),
        (pickle.dumps({"a": np.array([1.5])}, protocol=2), "numpy dtype of .'f8'"),
        (pickle.dumps([1, 2], protocol=2), "not readable as a pickled dict"),
        (PYTHON2[:-1], "not readable as a pickled dict"),
        (PYTHON2[:90], "not readable as a pickled dict"),
        (PYTHON2.replace(b"T\x02", b"T\x01"), "not readable as a pickled dict"),
        (b"", "not readable as a pickled dict"),
        (b"\x80\x02.", "not readable as a pickled dict"),
        (b"\x80\x02h\x05.", "not readable as a pickled dict"),
        (b"\x80\x02](K\x01K\x02u.", "list in place of dict"),
        (b"\x80\x02}(K\x01u.", "not readable as a pickled dict"),
        (b"\x80\x02K\x01K\x01\x85R.", "int in place of _Name"),
        (b"\x80\x02cnumpy\nndarray\nK\x01\x85R.", "numpy ndarray of"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_pickles_are_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(FileError, match=message) as caught:
        read_pickled_dict(_write(tmp_path, content))
    assert "\n" not in str(caught.value) and "data_batch_1" in str(caught.value)


def test_every_cut_is_refused_in_one_line(tmp_path: Path) -> None:
    for length in range(len(PYTHON2)):
        with pytest.raises(FileError) as caught:
            read_pickled_dict(_write(tmp_path, PYTHON2[:length]))
        assert "\n" not in str(caught.value)


def test_every_changed_byte_gives_a_dict_or_one_line(tmp_path: Path) -> None:
    for at in range(len(PYTHON2)):
        for byte in (0, 0x2E, 0x52, 0x62, 0xFF, PYTHON2[at] ^ 1):
            path = _write(tmp_path, PYTHON2[:at] + bytes((byte,)) + PYTHON2[at + 1 :])
            try:
                assert isinstance(read_pickled_dict(path), dict)
            except FileError as error:
                assert "\n" not in str(error)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="not readable .No such file"):
        read_pickled_dict(tmp_path / "none")
