"""Read the Python-2 pickles of CIFAR without unpickling: nothing in the file can run.

A pickle is a program for a small machine that may call anything it names. `pickletools` only takes such a program apart;
the machine here knows the few instructions that build dicts, lists, texts, numbers and NumPy arrays of whole numbers, and
refuses every other name and instruction.
"""

import pickletools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hardspike.snn.errors import FileError

RECONSTRUCT = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
ENCODE = "_codecs encode"
NAMES = (*RECONSTRUCT, ENCODE, "numpy ndarray", "numpy dtype")
DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8")
BYTE_ORDERS = ("<", ">", "|")
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_MARK = object()


class _Name:
    def __init__(self, name: str) -> None:
        self.name = name


class _Dtype:
    def __init__(self, name: str) -> None:
        self.dtype = np.dtype(name)


class _Array:
    values: NDArray[Any] | None = None


def read_pickled_dict(path: Path) -> dict[str, Any]:
    """The dict in a protocol-2 pickle: texts as bytes or str as stored, arrays of whole numbers as NumPy arrays.

    Raises:
        FileError: the file is missing or damaged, is no dict, or names anything but NumPy's array constructors.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FileError(f"{path}: not readable ({error.strerror}); get it again") from None
    try:
        found = _build(path, content)
        pairs = {_text(key): value.values if isinstance(value, _Array) else value for key, value in found.items()}
    except FileError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise FileError(
            f"{path}: not readable as a pickled dict ({_one_line(error)}); it is damaged, get it again"
        ) from None
    return pairs


def _build(path: Path, content: bytes) -> Any:
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for instruction, argument, _ in pickletools.genops(content):
        name: str = instruction.name
        value: Any = argument
        if name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in ("BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE"):
            stack.append(value)
        elif name in ("BINSTRING", "SHORT_BINSTRING"):
            stack.append(str(value).encode("latin-1"))
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[value] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[value])
        elif name == "GLOBAL":
            if value not in NAMES:
                raise FileError(
                    f"{path}: wants to call '{_one_line(value)}'; only NumPy arrays are read; do not trust it"
                )
            stack.append(_Name(value))
        elif name == "PROTO" and value == 2:
            continue
        elif name == "STOP":
            return stack.pop()
        elif not _step(name, stack):
            raise FileError(f"{path}: pickle instruction {name} is not read; use the file as its authors published it")
    raise ValueError("it ends too early")


def _step(name: str, stack: list[Any]) -> bool:
    """Run one instruction without an argument; False for one that is not known."""
    if name == "MARK":
        stack.append(_MARK)
    elif name in ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE"):
        stack.append({"EMPTY_DICT": {}, "EMPTY_LIST": [], "EMPTY_TUPLE": ()}[name])
    elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
        size = int(name[-1])
        stack[-size:] = [tuple(stack[-size:])]
    elif name == "TUPLE":
        stack.append(tuple(_since_mark(stack)))
    elif name in ("APPEND", "APPENDS"):
        items = [stack.pop()] if name == "APPEND" else _since_mark(stack)
        _expect(list, stack[-1]).extend(items)
    elif name in ("SETITEM", "SETITEMS"):
        items = [stack.pop(-2), stack.pop()] if name == "SETITEM" else _since_mark(stack)
        _expect(dict, stack[-1]).update(zip(items[::2], items[1::2], strict=True))
    elif name == "REDUCE":
        arguments = _expect(tuple, stack.pop())
        stack.append(_call(_expect(_Name, stack.pop()).name, arguments))
    elif name == "BUILD":
        state = _expect(tuple, stack.pop())
        _fill(stack[-1], state)
    else:
        return False
    return True


def _since_mark(stack: list[Any]) -> list[Any]:
    items = []
    while (item := stack.pop()) is not _MARK:
        items.append(item)
    return items[::-1]


def _call(name: str, arguments: tuple[Any, ...]) -> Any:
    """What NumPy's constructors would make of these arguments, as far as whole-number arrays need it."""
    if name == ENCODE:
        text, encoding = arguments
        if encoding != "latin1":
            raise ValueError(f"text encoding {encoding!r}")
        return _expect(str, text).encode("latin-1")
    if name in RECONSTRUCT:
        return _Array()
    if name == "numpy dtype" and _text(arguments[0]) in DTYPES:
        return _Dtype(_text(arguments[0]))
    raise ValueError(f"{name} of {arguments!r:.60}")


def _fill(target: Any, state: tuple[Any, ...]) -> None:
    if isinstance(target, _Dtype):
        if _text(state[1]) not in BYTE_ORDERS:
            raise ValueError(f"byte order {state[1]!r}")
        target.dtype = np.dtype(_text(state[1]) + target.dtype.str[1:])
        return
    _, shape, kind, fortran, content = state
    flat = np.frombuffer(_expect(bytes, content), _expect(_Dtype, kind).dtype)
    # A copy, because PyTorch wants memory it may write to.
    _expect(_Array, target).values = flat.reshape(shape, order="F" if fortran else "C").copy()


def _expect(kind: type[Any], value: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{type(value).__name__} in place of {kind.__name__}")
    return value


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(_expect(str, value))


def _one_line(value: object) -> str:
    return " ".join(str(value).split())[:80]
