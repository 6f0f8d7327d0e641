"""Damage: seeded mutations of bytes, of trees of JSON or TOML, of protobuf messages and of HDF5 files."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Rng = np.random.Generator
NUMBERS = (0, 1, -1, 2, 255, 256, 1 << 16, 1 << 31, -(1 << 31), (1 << 63) - 1, 10**30, 0.5, -1.5, 1e300, 1e-300)
ODD_VALUES: tuple[Any, ...] = (
    *NUMBERS,
    float("nan"),
    float("inf"),
    None,
    True,
    False,
    "",
    "x",
    "input",
    "\n",
    "\u202e\x00",
    "9" * 5000,
    "x" * 5000,
    [],
    [1],
    [1, -1],
    [1 << 40, 1 << 40],
    ["a"],
    [[]],
    {},
    {"a": 1},
)


def pick(rng: Rng, values: Any) -> Any:
    return values[int(rng.integers(len(values)))]


def damaged_bytes(content: bytes, rng: Rng) -> bytes:
    """Truncated, extended, some bytes or bits changed, an 8-byte number replaced, or a stretch copied or cut out."""
    kind, size = int(rng.integers(7)), len(content)
    damaged = bytearray(content)
    if kind == 0:
        return bytes(damaged[: int(rng.integers(size))])
    places = rng.integers(size, size=pick(rng, (1, 1, 2, 3, 8)))
    at, length = int(places[0]), int(rng.integers(1, 40))
    if kind == 1:
        for place in places:
            damaged[place] ^= 1 << int(rng.integers(8))
    elif kind == 2:
        for place in places:
            damaged[place] = pick(rng, (0, 255, 127, 128, int(rng.integers(256))))
    elif kind == 3:
        number = pick(rng, (0, 1, 1 << 31, 1 << 32, 1 << 63, (1 << 64) - 1, at, size))
        damaged[at : at + 8] = int(number).to_bytes(8, "little")
    elif kind == 4:
        damaged[at:at] = damaged[at : at + length]
    elif kind == 5:
        del damaged[at : at + length]
    else:
        damaged += bytes(rng.integers(0, 256, size=length, dtype=np.uint8))
    return bytes(damaged)


def damaged_tree(tree: Any, rng: Rng) -> Any:
    """A copy with one to three entries replaced, removed, doubled, renamed or exchanged."""
    tree = json.loads(json.dumps(tree))
    for _ in range(pick(rng, (1, 1, 1, 2, 3))):
        places = [place for place in _places(tree) if place]
        if not places:
            return pick(rng, ODD_VALUES)
        *path, last = pick(rng, places)
        holder = tree
        for key in path:
            holder = holder[key]
        _damage_entry(holder, last, rng, tree, places)
    return tree


def _places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in entries:
        found += _places(value, (*path, key))
    return found


def _damage_entry(holder: Any, key: Any, rng: Rng, tree: Any, places: list[tuple[Any, ...]]) -> None:
    kind = int(rng.integers(8))
    value = holder[key]
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, list):
        holder.insert(int(rng.integers(len(holder) + 1)), value)
    elif kind == 1:
        holder[pick(rng, ("", "x", "name", "shape", str(key).upper(), str(key) + "\n"))] = holder.pop(key)
    elif kind == 2:
        other = tree
        for step in pick(rng, places):
            other = other[step]
        holder[key] = json.loads(json.dumps(other))
    elif kind == 3 and isinstance(value, int | float):
        holder[key] = pick(rng, (-value, value + 1, value * 2, str(value), [value], value * 1e6, float(value)))
    elif kind == 3 and isinstance(value, str):
        holder[key] = pick(rng, (value + "x", value[:-1], value * 2, value + "\n", [value], value.upper()))
    else:
        holder[key] = pick(rng, ODD_VALUES)


def damaged_message(message: Any, rng: Rng) -> None:
    """One field somewhere in a protobuf message changed, in place."""
    fields = [(holder, field) for holder in _messages(message) for field, _ in holder.ListFields()]
    holder, field = pick(rng, fields)
    value = getattr(holder, field.name)
    try:
        if hasattr(value, "add") or hasattr(value, "extend"):
            _damage_repeated(value, rng)
        elif isinstance(value, bytes):
            setattr(holder, field.name, damaged_bytes(value, rng) if value else b"x")
        elif isinstance(value, str):
            names = [v for part in _messages(message) for _, v in part.ListFields() if isinstance(v, str)]
            setattr(holder, field.name, pick(rng, (value + "x", "", "\n", "x" * 5000, pick(rng, names))))
        elif isinstance(value, int | float):
            setattr(holder, field.name, pick(rng, (0, 1, -1, 2, 7, 99, 1 << 31, 1 << 62, value + 1)))
        else:
            holder.ClearField(field.name)
    except (ValueError, TypeError):
        holder.ClearField(field.name)


def _messages(message: Any) -> list[Any]:
    """The message and all below it."""
    found = [message]
    for _, value in message.ListFields():
        parts = value if hasattr(value, "add") else [value] if hasattr(value, "ListFields") else []
        for part in parts:
            found += _messages(part)
    return found


def _damage_repeated(values: Any, rng: Rng) -> None:
    at, kind = int(rng.integers(len(values))), int(rng.integers(4))
    value = values[at]
    if kind == 0:
        del values[at]
    elif kind == 1 or hasattr(value, "ListFields"):
        others = list(values)
        values.extend([others[int(rng.integers(len(others)))]])
        if kind == 2:
            others.reverse()
            del values[:]
            values.extend(others)
    elif isinstance(value, int | float):
        values[at] = pick(rng, (0, -1, 1, 3, 1 << 31, 1 << 62, value * 2))
    else:
        values[at] = pick(rng, ("", "x", "\n", pick(rng, list(values))) if isinstance(value, str) else (b"", b"\xff"))


def damage_hdf5(path: Path, rng: Rng) -> None:
    """One to three groups or datasets of the file replaced, removed, renamed, linked elsewhere or claimed to be huge."""
    with h5py.File(path, "r+") as file:
        for _ in range(pick(rng, (1, 1, 2, 3))):
            names: list[str] = []
            file.visit(names.append)
            if not names:
                return
            name = pick(rng, names)
            kind, found = int(rng.integers(10)), file[name]
            if kind < 5 and isinstance(found, h5py.Dataset):
                value = _damaged_array(found, rng)
                del file[name]
                file[name] = value
            elif kind == 5:
                _link(file, name, names, rng)
            elif kind == 6:
                del file[name]
                file.create_dataset(
                    name, shape=pick(rng, ((1 << 27,), (1 << 40,), (1 << 14, 1 << 14))), dtype="f4", chunks=True
                )
            elif kind == 7:
                file.move(name, name + pick(rng, ("x", "\n", "9")))
            elif kind == 8:
                owner = file if rng.random() < 0.5 else found
                owner.attrs[pick(rng, ["coding", "name", "scale", "weight_bits", *owner.attrs])] = pick(
                    rng, (np.bytes_("x"), "text", 1, -1, 1e30, np.nan, [1, 2], np.bytes_("binary"), h5py.Empty("f"))
                )
            else:
                del file[name]


def _link(file: Any, name: str, names: list[str], rng: Rng) -> None:
    """Cycles among them: a group within itself."""
    target = pick(rng, [*names, "/"])
    kind = int(rng.integers(3))
    parent = file[name].parent.name
    del file[name]
    if kind == 0:
        file[name] = h5py.SoftLink(f"/{target}")
    elif kind == 1:
        file[name] = h5py.ExternalLink(pick(rng, ("/dev/zero", "/proc/self/mem", file.filename)), f"/{target}")
    else:
        file[name] = file[target] if target in file else file[parent]


def _damaged_array(dataset: Any, rng: Rng) -> Any:
    value = np.asarray(dataset[()]) if dataset.size and dataset.size < 1 << 20 else np.array(b"none")
    if value.dtype.kind not in "iuf" or rng.random() < 0.3:
        odd = (
            b"x",
            "text",
            "",
            "\n",
            [b"in", b"out"],
            np.zeros((0, 2)),
            np.nan,
            -1,
            1 << 40,
            True,
            h5py.Empty("f"),
            1j,
        )
        return pick(rng, odd)
    kind, flat = int(rng.integers(7)), value.reshape(-1).copy()
    if kind < 3 and flat.size:
        number = pick(rng, (-1, 0, 2, 100, 127, np.iinfo(np.int16).max))
        flat[int(rng.integers(flat.size))] = number
        return flat.reshape(value.shape)
    if kind == 3:
        return value.astype(pick(rng, ("f2", "f8", "i8", "u1", "S3", "?")))
    if kind == 4:
        return np.concatenate([flat, flat])
    if kind == 5:
        with np.errstate(all="ignore"):
            return flat.astype("f8") * pick(rng, (np.nan, np.inf, 1e30, -1, 0.5))
    return value[None] if rng.random() < 0.5 else flat[: flat.size // 2]
