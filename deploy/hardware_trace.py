"""What `run_on_loihi.py` brought back: spikes, potentials, times and power, read from a file that nobody vouches for.

Nothing is unpickled, and no array is read before its size is known to be the one that network and images give it.
"""

import hashlib
import json
import lzma
import math
import re
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hardspike.deploy.bundle import BundleSet, stored_messages
from hardspike.deploy.process_graph import ProcessGraph
from hardspike.deploy.run_on_loihi import TRACE
from hardspike.snn.architecture import Shape
from hardspike.snn.errors import FileError

npy: Any = np.lib.format  # numpy 1.26 gives it no types
RAILS = ("total", "vdd", "vddm", "vddio")
FACTS_BYTES, HEADER_BYTES, TEXT_MAX = 1 << 20, 10_000, 400
MEASURED_MAX = 1 << 24  # numbers in a series of times or powers
IMAGES_MAX, QUANTITY_MAX = 1 << 20, 1e12
PERIOD_MAX, DELAY_MAX, CHIPS_MAX = 1 << 20, 1 << 10, 1 << 12
# What zipfile and numpy answer damage with.
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    KeyError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    Warning,
    tokenize.TokenError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """Watt per rail, means over the measurement: of the whole board, and what it takes while nothing runs.

    chips: on the board, of which one is taken to run the network (lava-dl's notebooks take the idle ones off like this).
    """

    total_w: dict[str, float]
    static_w: dict[str, float]
    chips: int

    def of_chip(self, rail: str) -> tuple[float, float]:
        """(static, dynamic) watt of the chip that runs; a dynamic power can come out below 0."""
        return self.static_w[rail] / self.chips, self.total_w[rail] - self.static_w[rail]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HardwareTrace:
    """All sets one after the other, N images.

    spikes: bool [T, N, *shape] of each layer that was recorded. potentials: int64 [N, *shape], read once per image, when the
    output had done its T steps; of all layers, or of the output alone where it does not fire. streams: how many images each of
    Lava's runs had. wall_s: float64 [N], of the host, from one reading to the next. step_time_s: float64, of the chip, per step
    of the power measurement; None where nothing was measured.
    """

    backend: str
    sets: tuple[tuple[str, int], ...]
    period: int
    input_delay: int
    spikes: dict[str, Tensor]
    potentials: dict[str, Tensor]
    streams: tuple[int, ...]
    wall_s: Tensor
    step_time_s: Tensor | None
    power: Power | None
    not_measured: str
    facts: dict[str, Any]

    def __len__(self) -> int:
        return len(self.wall_s)

    def output(self, graph: ProcessGraph) -> Tensor:
        """int64 [N, *shape]: spikes of the last layer, or its final potentials where it does not fire."""
        last = graph.output
        return self.spikes[last.name].sum(0) if last.neurons.spiking else self.potentials[last.name]


def largest_set(path: Path) -> int:
    """Images of the trace's largest set, as it says itself. Raises FileError as `read_hardware_trace`."""
    with _opened(path) as archive:
        counts = [entry.get("images") for entry in _facts(path, archive)["sets"] if isinstance(entry, dict)]
    return max((count for count in counts if isinstance(count, int) and 1 <= count <= IMAGES_MAX), default=1)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Whatever damage raises becomes one line."""
    if not path.is_file():
        raise FileError(f"{path}: no such file; expected what run_on_loihi.py wrote")
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except FileError:
        raise
    except (*DAMAGE, OSError) as error:
        line = (str(error).splitlines() or [""])[0]
        raise FileError(
            f"{path}: not a readable trace ({type(error).__name__}: {line}); it is damaged, send it again"
        ) from None


def read_hardware_trace(
    path: Path, graph: ProcessGraph, network_sha256: str, sets: Sequence[BundleSet]
) -> HardwareTrace:
    """Read a trace of the graph whose `.net` file has this checksum, run on the first images of these sets.

    Raises FileError: missing, damaged, of another network or other images, or an array is missing, pickled or not as it should be.
    """
    with _opened(path) as archive:
        return _Reader(path, archive, graph).read(network_sha256, sets)


class _Reader:
    def __init__(self, path: Path, archive: zipfile.ZipFile, graph: ProcessGraph) -> None:
        self.path, self.archive, self.graph = path, archive, graph
        self.wanted = {"facts"}

    def read(self, network_sha256: str, sets: Sequence[BundleSet]) -> HardwareTrace:
        facts = _facts(self.path, self.archive)
        if facts["network_sha256"] != network_sha256:
            raise FileError(
                f"{self.path}: made with another network (its .net file has SHA-256 {_short(facts['network_sha256'])}, this run's "
                f"{_short(network_sha256)}); give the trace to the run of its bundle, or make a new bundle"
            )
        counts = self._sets(facts, sets)
        n, layers = sum(count for _, count in counts), self.graph.layers
        steps, period = self.graph.time_steps, self._integer(facts, "period", self.graph.time_steps, PERIOD_MAX)
        if self._integer(facts, "time_steps", 1, PERIOD_MAX) != steps:
            raise FileError(f"{self.path}: {facts['time_steps']} steps per image, but the network runs {steps}")
        if facts["layers"] not in ([len(layers) - 1], list(range(len(layers)))):
            found = str(facts["layers"])[:60]
            raise FileError(f"{self.path}: spikes of layers {found}; expected those of the last or of all layers")
        recorded = range(len(layers) - len(facts["layers"]), len(layers))
        silent = not self.graph.output.neurons.spiking
        read = range(0 if facts["states"] else len(layers) - silent, len(layers))
        spikes = {layers[i].name: self._array(f"spikes.{i}", "b", (n, steps, *layers[i].shape)) for i in recorded}
        potentials = {layers[i].name: self._array(f"potentials.{i}", "i", (n, *layers[i].shape)) for i in read}
        trace = HardwareTrace(
            backend=facts["backend"],
            sets=counts,
            period=period,
            input_delay=self._integer(facts, "input_delay", 0, DELAY_MAX),
            spikes={name: torch.from_numpy(array).transpose(0, 1) for name, array in spikes.items()},
            potentials={name: torch.from_numpy(array).long() for name, array in potentials.items()},
            streams=self._streams(facts, n),
            wall_s=self._positive("wall_s", (n,)),
            step_time_s=self._step_times(facts),
            power=self._power(facts),
            not_measured=facts["not_measured"],
            facts=facts,
        )
        if unknown := sorted({name.removesuffix(".npy") for name in self.archive.namelist()} - self.wanted):
            raise FileError(f"{self.path}: holds an array '{unknown[0][:40]}', which no trace has; it is damaged")
        return trace

    def _sets(self, facts: dict[str, Any], sets: Sequence[BundleSet]) -> tuple[tuple[str, int], ...]:
        known = {one.name: one for one in sets}
        counts: list[tuple[str, int]] = []
        for entry in facts["sets"]:
            name = entry.get("name") if isinstance(entry, dict) else None
            if not isinstance(name, str) or name not in known or name in dict(counts):
                names = ", ".join(f"'{one}'" for one in known)
                raise FileError(f"{self.path}: images {str(name)[:60]!r} are not among this run's sets {names}")
            count = self._integer(entry, "images", 1, len(known[name]))
            messages = stored_messages(known[name].first(count, self.graph).messages, self.graph)
            if entry.get("messages_sha256") != hashlib.sha256(messages.tobytes()).hexdigest():
                raise FileError(
                    f"{self.path}: '{name}' are other images than this run's; attacks or data were made anew, make a new bundle"
                )
            counts.append((name, count))
        if not counts:
            raise FileError(f"{self.path}: no images; it is damaged")
        return tuple(counts)

    def _streams(self, facts: dict[str, Any], images: int) -> tuple[int, ...]:
        found = facts["streams"]
        if not all(isinstance(n, int) and n >= 1 for n in found) or len(found) > images or sum(found) != images:
            raise FileError(f"{self.path}: streams {str(found)[:60]} do not add up to {images} images; it is damaged")
        return tuple(found)

    def _integer(self, facts: dict[str, Any], key: str, low: int, high: int) -> int:
        value = facts.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise FileError(f"{self.path}: {key} is {str(value)[:40]}; allowed: {low}..{high}")
        return value

    def _array(self, name: str, kind: str, shape: Shape) -> NDArray[Any]:
        """An array of bool (kind 'b'), signed integers ('i') or floats ('f') of this shape; a first side of -1 is free."""
        most = 8 * (math.prod(shape) if shape[0] >= 0 else MEASURED_MAX)
        self.wanted.add(name)
        array = _parsed(_content(self.path, self.archive, name, most))
        fits = array.ndim == len(shape) and all(
            want in (-1, side) for want, side in zip(shape, array.shape, strict=True)
        )
        if array.dtype.kind != kind or not fits:
            wanted = {"b": "bool", "i": "integers", "f": "floats"}[kind]
            raise FileError(
                f"{self.path}: array '{name}' is {array.dtype} of shape {array.shape}; expected {wanted} of shape {shape}"
            )
        return array

    def _positive(self, name: str, shape: Shape, *, above: bool = True) -> Tensor:
        """Finite float64, above 0."""
        values = self._array(name, "f", shape).astype(np.float64)
        if not values.size or not (np.abs(values) < QUANTITY_MAX).all() or (above and values.min() <= 0):
            raise FileError(f"{self.path}: array '{name}' must hold finite numbers{' above 0' if above else ''}")
        return torch.from_numpy(values)

    def _step_times(self, facts: dict[str, Any]) -> Tensor | None:
        if not self._integer(facts, "measured_steps", 0, 1 << 40):
            return None
        return self._positive("step_time_us", (-1,)) * 1e-6

    def _power(self, facts: dict[str, Any]) -> Power | None:
        if not facts["measured_steps"]:
            return None
        chips = self._integer(facts, "chips_on_board", 1, CHIPS_MAX)
        return Power(
            total_w={rail: float(self._positive(f"power_w.{rail}", (-1,), above=False).mean()) for rail in RAILS},
            static_w={rail: float(self._positive(f"static_w.{rail}", (-1,), above=False).mean()) for rail in RAILS},
            chips=chips,
        )


def _facts(path: Path, archive: zipfile.ZipFile) -> dict[str, Any]:
    text = _content(path, archive, "facts", FACTS_BYTES)
    array = _parsed(text)
    if array.shape != () or array.dtype.kind != "U":
        raise FileError(f"{path}: 'facts' is no text; it is not what run_on_loihi.py wrote")
    facts = json.loads(str(array))
    kinds = {
        "format": str,
        "backend": str,
        "network_sha256": str,
        "sets": list,
        "layers": list,
        "streams": list,
        "states": bool,
        "not_measured": str,
        "started": str,
        "host": str,
        "place": dict,
        "versions": dict,
    }
    for key, kind in kinds.items():
        value = facts.get(key) if isinstance(facts, dict) else None
        if not isinstance(value, kind) or (isinstance(value, str) and len(value) > TEXT_MAX):
            raise FileError(f"{path}: its facts have no {kind.__name__} '{key}'; it is damaged")
    if facts["format"] != TRACE or facts["backend"] not in ("simulator", "loihi2"):
        found = f"format {facts['format']!r}, backend {facts['backend']!r}"
        raise FileError(f"{path}: {found}; expected {TRACE!r} of simulator or loihi2")
    values = [*facts["place"].values(), *facts["versions"].values()]
    if not all(value is None or (isinstance(value, str) and len(value) <= TEXT_MAX) for value in values):
        raise FileError(f"{path}: its facts name a version or a place that is no text; it is damaged")
    return dict(facts)


def _content(path: Path, archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """The .npy file of an array, of at most so many bytes behind its header."""
    entry = archive.NameToInfo.get(f"{name}.npy")
    if entry is None:
        raise FileError(f"{path}: has no array '{name}'; it is damaged or no trace, run run_on_loihi.py again")
    if entry.file_size > most + HEADER_BYTES:
        raise FileError(f"{path}: array '{name}' has {entry.file_size:,} bytes, at most {most:,} are expected")
    return archive.read(entry)


def _parsed(content: bytes) -> NDArray[Any]:
    """The array of an .npy file in memory; the size that its header claims must be the size that is there."""
    stream = BytesIO(content)
    reader = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[npy.read_magic(stream)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # numpy repairs some headers, and only warns
        shape, fortran, dtype = reader(stream, max_header_size=HEADER_BYTES)
    if dtype.hasobject:
        raise ValueError("holds a pickled array, which could run any code")
    if fortran or any(side < 0 for side in shape) or math.prod(shape) * dtype.itemsize != len(content) - stream.tell():
        raise ValueError(f"an array of shape {shape} in {len(content) - stream.tell()} bytes")
    raw = np.frombuffer(content, dtype=np.uint8, offset=stream.tell())
    if dtype.kind == "b" and raw.size and raw.max() > 1:
        raise ValueError("a bool that is neither 0 nor 1")
    array: NDArray[Any] = raw.copy().view(dtype).reshape(shape)
    return array


def _short(digest: str) -> str:
    return re.sub(r"[^0-9a-f]", "?", digest[:12])
