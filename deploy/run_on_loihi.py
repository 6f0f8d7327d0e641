"""Runs a bundle's network on Lava: on the simulator of this computer, or on a Loihi 2; writes one .npz file to send back.

Needs lava-nc 0.10, lava-dl 0.6, h5py and numpy, and for a chip Intel's Lava extension; it imports nothing else, so that the file
can be copied anywhere. It reads network.net, images.npz, expected.npz and manifest.json from its own folder.

Timing: all images go through one stream, `period` steps apart. Each synapse takes one step, so that layer l (from 0) sees
step t of image k at Lava's step l + 1 + k * period + t; netx resets it right then (reset_interval = period, reset_offset = 1).
On the chip a period must be a power of two (lava-dl, tutorials/lava/lib/dl/netx/mnist/run.ipynb); the steps added behind an
image carry no messages, and nothing of them is recorded.

Everything for the chip follows lava-dl's public hardware tests and notebooks (tests/lava/lib/dl/netx/test_hdf5_nx.py, tutorials/
lava/lib/dl/netx/{mnist,pilotnet_snn,yolo_kp}); whoever wrote this file had no chip to run it on.
"""

import argparse
import contextlib
import hashlib
import importlib.util
import io
import json
import multiprocessing
import os
import platform
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BUNDLE, TRACE = "hardspike bundle 1", "hardspike hardware trace 1"
STREAM_BYTES = 1 << 28  # Lava holds a stream as int32 and copies it; longer ones are cut
STOP_S = 20.0
MORE_STEPS = 3  # recorded behind the last image, to recognise answers that come too late
PACKAGES = ("lava-nc", "lava-dl", "lava-loihi", "nxcore", "h5py", "numpy")
PLACE = ("LOIHI_GEN", "PARTITION", "BOARD")

Array = NDArray[Any]
Options = argparse.Namespace


class RunError(Exception):
    """What the user can mend, in one line."""


@dataclass
class Part:
    """One set of images, and what is expected of it. messages: [images, *shape], or [T, images, *shape] with `has_time`.

    counts: spikes per layer, [T, images]. output: the last layer's spike counts or final potentials, [images, classes].
    """

    name: str
    messages: Array
    labels: Array
    predicted: Array
    output: Array
    counts: dict[int, Array]


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 where everything is as expected, else 1."""
    options = _parse(arguments)
    try:
        return _run(options, options.bundle or Path(__file__).resolve().parent)
    except (RunError, OSError) as error:
        print(f"run_on_loihi: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("run_on_loihi: stopped", file=sys.stderr)
    return 1


def _parse(arguments: list[str] | None) -> Options:
    parser = argparse.ArgumentParser(prog="run_on_loihi.py", description="Run the bundle's network on Lava.")
    add = parser.add_argument
    add("--backend", choices=("simulator", "loihi2"), required=True)
    add("--images", type=int, help="how many of each set, from the first; all otherwise")
    add("--out", type=Path, default=Path("trace.npz"), help="the file to write (trace.npz)")
    add("--layers", choices=("output", "all"), help="whose spikes; otherwise all on the simulator, output on loihi2")
    add("--states", action="store_true", help="also read the potentials of all layers, once per image")
    add("--host", choices=("environment", "slurm", "ethernet"), default="environment")
    add("--partition", help="of SLURM")
    add("--board", help="of SLURM")
    add("--address", help="of the board's host (ethernet)")
    add("--host-binary", default="nxcore/bin/nx_driver_server", help="on the board's host (ethernet)")
    add("--generation", default="N3B3", help="of the chip: N3B2, N3B3, N3C1 or N3D1")
    add("--chips-on-board", type=int, default=1, help="that the power sensors cover (Kapoho Point: 8)")
    add("--measure-steps", type=int, default=10000, help="steps of the power measurement; 0: none")
    add("--period", type=int, help="steps from image to image; T, on the chip the next power of two")
    add("--input-delay", type=int, default=0, help="steps that messages need onto the chip")
    add("--output-delay", type=int, default=0, help="steps that spikes need off the chip")
    add("--timeout-s", type=int, default=3600, help="longest wait for one image, or for the compiler")
    add("--bundle", type=Path, help="folder of the bundle; this file's own otherwise")
    return parser.parse_args(arguments)


def _run(options: Options, folder: Path) -> int:
    started, begun = time.strftime("%Y-%m-%dT%H:%M:%S%z"), time.perf_counter()
    manifest = _manifest(folder)
    network = manifest["network"]
    parts = _parts(folder, manifest, options.images)
    period = _period(options, network["time_steps"])
    for name, low in (("input_delay", 0), ("output_delay", 0), ("chips_on_board", 1), ("timeout_s", 1)):
        if getattr(options, name) < low:
            raise RunError(f"--{name.replace('_', '-')} {getattr(options, name)}: give {low} or more")
    _require_lava()
    if options.backend == "loihi2":
        _choose_host(options)
    last = len(network["layers"]) - 1
    everything = (options.layers or {"simulator": "all", "loihi2": "output"}[options.backend]) == "all"
    layers = list(range(last + 1)) if everything else [last]
    stream = np.concatenate([_stream(part, network, period) for part in parts])
    images, at_once = len(stream) // period, max(1, STREAM_BYTES // stream[:period].nbytes)
    pieces = []
    for first in range(0, images, at_once):
        piece = stream[first * period : (first + at_once) * period]
        with _lava(options) as running:
            pieces.append(_record(running, folder, network, piece, period, layers, options))
        print(f"{min(first + at_once, images)} of {images} images done", file=sys.stderr)
    arrays = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    code = _compare(parts, arrays, network)
    arrays = {name: array for name, array in arrays.items() if not name.startswith("later.")}
    facts = _facts(options, manifest, parts, period, layers)
    facts |= {"streams": [len(piece["wall_s"]) for piece in pieces]}
    facts |= {"started": started, "seconds": time.perf_counter() - begun, "measured_steps": 0, "not_measured": ""}
    _save(options.out, facts, arrays)
    if options.backend == "loihi2" and options.measure_steps > 0:
        steps = -(-max(options.measure_steps, len(stream)) // period) * period
        try:  # the spikes are safe by now; what goes wrong from here on is only noted
            arrays |= _measure(folder, network, stream[: at_once * period], period, steps, options)
            facts["measured_steps"] = steps
        except Exception as error:
            facts["not_measured"] = _one_line(error)
            print(f"power and time were not measured: {facts['not_measured']}", file=sys.stderr)
        _save(options.out, facts, arrays)
    print(f"wrote {options.out}")
    return code


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    if not path.is_file():
        raise RunError(f"{path}: no such file; keep this file in the folder of its bundle, or give --bundle FOLDER")
    manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if manifest.get("format") != BUNDLE:
        raise RunError(f"{path}: format {manifest.get('format')!r}, expected {BUNDLE!r}; unpack the bundle again")
    for name in ("network.net", "images.npz", "expected.npz"):
        if not (folder / name).is_file() or _digest((folder / name).read_bytes()) != manifest["files"][name]:
            raise RunError(f"{folder / name}: missing or not the bundle's file; unpack the bundle again")
    return manifest


def _parts(folder: Path, manifest: dict[str, Any], images: int | None) -> list[Part]:
    if images is not None and images < 1:
        raise RunError(f"--images {images}: give 1 or more")
    network, parts = manifest["network"], []
    made, expected = (np.load(folder / name, allow_pickle=False) for name in ("images.npz", "expected.npz"))
    firing = [layer for layer, about in enumerate(network["layers"]) if about["spiking"]]
    for index, entry in enumerate(manifest["sets"]):
        n = entry["images"] if images is None else min(images, entry["images"])
        messages = made[f"messages.{index}"]
        parts.append(
            Part(
                entry["name"],
                np.ascontiguousarray(messages[:, :n] if network["input"]["has_time"] else messages[:n]),
                made[f"labels.{index}"][:n],
                expected[f"predicted.{index}"][:n],
                expected[f"output.{index}"][:n],
                {layer: expected[f"counts.{index}.{layer}"][:, :n] for layer in firing},
            )
        )
    return parts


def _period(options: Options, steps: int) -> int:
    power_of_two = 1 << (steps - 1).bit_length()
    period = int(options.period or (power_of_two if options.backend == "loihi2" else steps))
    if period < steps:
        raise RunError(f"--period {period}: an image takes {steps} steps; give {steps} or more")
    if options.backend == "loihi2" and period & (period - 1):
        raise RunError(f"--period {period}: the chip resets by powers of two only; give {power_of_two}")
    return period


def _stream(part: Part, network: dict[str, Any], period: int) -> NDArray[np.int32]:
    """[images * period, *encoded shape]: constant channels appended, nothing sent in the steps behind an image."""
    contract, steps = network["input"], network["time_steps"]
    messages = part.messages.swapaxes(0, 1) if contract["has_time"] else part.messages[:, None]
    channels, *rest = contract["shape"]
    constant = contract["constant_messages"]
    encoded = (channels + len(constant), *rest)
    stream = np.zeros((len(part.labels), period, *encoded), dtype=np.int32)
    stream[:, :steps, :channels] = messages
    stream[:, :steps, channels:] = np.array(constant, dtype=np.int32).reshape(-1, *(1 for _ in rest))
    return stream.reshape(-1, *encoded)


def _require_lava() -> None:
    there = importlib.util.find_spec("lava") is not None
    if not there or importlib.util.find_spec("lava.magma") is None or importlib.util.find_spec("lava.lib") is None:
        here = f"Python {sys.version_info.major}.{sys.version_info.minor}"
        raise RunError(f"Lava is not installed for {here}; on Python 3.10: pip install lava-nc==0.10.0 lava-dl==0.6.0")


def _choose_host(options: Options) -> None:
    from lava.utils import loihi

    if not loihi.is_installed():
        raise RunError(
            "--backend loihi2: Intel's Lava extension for Loihi (lava.utils.loihi2_profiler) is not installed; it comes with "
            "membership in the Intel Neuromorphic Research Community; without it use --backend simulator"
        )
    if options.host == "ethernet" and options.address is None:
        raise RunError("--host ethernet: give --address too")
    try:
        generation = loihi.ChipGeneration[options.generation]
        if options.host == "slurm":
            loihi.use_slurm_host(partition=options.partition, board=options.board, loihi_gen=generation)
        elif options.host == "ethernet":
            loihi.use_ethernet_host(options.address, options.host_binary, generation)
    except Exception as error:
        raise RunError(f"--host {options.host}: {_one_line(error)}") from error


def _build(folder: Path, network: dict[str, Any], stream: Array, period: int, options: Options) -> Any:
    """netx's network behind a source of the stream."""
    from lava.lib.dl.netx.hdf5 import Network
    from lava.proc.io.source import RingBuffer

    contract, on_chip = network["input"], options.backend == "loihi2"
    bits = contract["message_bits"] if contract["coding"] == "graded" else 0  # 0: any message counts as a 1
    offset = 1 + options.input_delay
    net = Network(str(folder / "network.net"), input_message_bits=bits, reset_interval=period, reset_offset=offset)
    net.net_config.f.close()
    if len(net.layers) != len(network["layers"]):
        raise RunError(f"netx made {len(net.layers)} layers instead of {len(network['layers'])}; use lava-dl 0.6.0")
    flat = len(net.inp.shape) == 1
    # Lava's order is (W, H, C, steps).
    source = RingBuffer(data=np.ascontiguousarray((stream.reshape(len(stream), -1) if flat else stream).T))
    if on_chip:
        from lava.proc.embedded_io.spike import PyToN3ConvAdapter, PyToNxAdapter

        adapter = (PyToNxAdapter if flat else PyToN3ConvAdapter)(shape=net.inp.shape, num_message_bits=bits)
        source.s_out.connect(adapter.inp)
        adapter.out.connect(net.inp)
    else:
        source.s_out.connect(net.inp)
    return net


def _tap(port: Any, buffer: int, on_chip: bool) -> Any:
    """A process that hands the spikes of a port to this program."""
    from lava.proc.io.extractor import Extractor

    tap = Extractor(shape=port.shape, buffer_size=buffer)
    if on_chip:
        from lava.proc.embedded_io.spike import NxToPyAdapter

        adapter = NxToPyAdapter(shape=port.shape)
        port.connect(adapter.inp)
        port = adapter.out
    port.connect(tap.in_port)
    return tap


class _Running:
    """A network of Lava, and the processes it starts."""

    def __init__(self, options: Options) -> None:
        self.net: Any = None
        self.backend, self.timeout_s = options.backend, options.timeout_s
        self.before = set(multiprocessing.active_children())

    def compile(self, callbacks: list[Any]) -> None:
        from lava.magma.core import run_configs
        from lava.proc.io.extractor import Extractor, PyLoihiExtractorModel

        models = {Extractor: PyLoihiExtractorModel}
        if self.backend == "loihi2":
            config = run_configs.Loihi2HwCfg(exception_proc_model_map=models, callback_fxs=callbacks)
        else:
            config = run_configs.Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map=models)
        # Lava's processes are to ignore Ctrl-C: it would end them while Lava waits for their answers.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            with self._limit("compiling"):
                self.net.create_runtime(run_cfg=config)
        finally:
            signal.signal(signal.SIGINT, before)

    def advance(self, steps: int) -> float:
        """Seconds that the steps took."""
        from lava.magma.core.run_conditions import RunSteps

        begun = time.perf_counter()
        with self._limit(f"{steps} steps"):
            self.net.run(condition=RunSteps(num_steps=steps))
        return time.perf_counter() - begun

    @contextlib.contextmanager
    def _limit(self, what: str) -> Iterator[None]:
        def late(*_: Any) -> None:
            raise RunError(f"{what} took Lava over {self.timeout_s} s; give more with --timeout-s, or fewer neurons")

        before = signal.signal(signal.SIGALRM, late)
        signal.alarm(self.timeout_s)
        try:
            yield
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)

    def stop(self) -> None:
        runtime = None if self.net is None else self.net.runtime
        if runtime is None:
            return

        def ask() -> None:
            with contextlib.suppress(Exception):  # what failed may fail again; what counts is that its processes end
                runtime.stop()

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(STOP_S)
        if asking.is_alive():
            for child in set(multiprocessing.active_children()) - self.before:
                child.terminate()
            asking.join(1.0)
            runtime._is_started = False  # else Lava asks once more when the object is deleted


@contextlib.contextmanager
def _lava(options: Options) -> Iterator[_Running]:
    """Lava raises whatever its compiler and models raise: make it one line. What it prints goes to stderr. Always stops."""
    running = _Running(options)
    try:
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                yield running
            finally:
                running.stop()
    except RunError:
        raise
    except Exception as error:
        raise RunError(f"Lava failed ({_one_line(error)})") from error


def _record(
    running: _Running,
    folder: Path,
    network: dict[str, Any],
    stream: Array,
    period: int,
    layers: list[int],
    options: Options,
) -> dict[str, Array]:
    """One stream through the network. All arrays begin with the images; `later.n`: output spikes seen n steps too late."""
    steps, last, samples = network["time_steps"], len(network["layers"]) - 1, len(stream) // period
    silent = not network["layers"][last]["spiking"]
    lead = last + 1 + options.input_delay + steps  # until the output has seen all steps of the first image
    tail = options.output_delay + MORE_STEPS
    net = running.net = _build(folder, network, stream, period, options)
    taps = {n: _tap(net.layers[n].out, max(lead, period, tail), options.backend == "loihi2") for n in layers}
    running.compile([])
    seen: dict[int, list[Array]] = {layer: [] for layer in layers}
    read: dict[str, list[Any]] = {"wall_s": []}
    for sample in range(samples + 1):
        count = tail if sample == samples else period if sample else lead
        seconds = running.advance(count)
        for layer, tap in taps.items():
            seen[layer].extend(tap.receive().astype(bool).T for _ in range(count))
        if sample < samples:
            read["wall_s"].append(seconds)
            for layer in range(last + 1) if options.states else [last] if silent else []:
                potential = np.asarray(net.layers[layer].neuron.v.get()).astype(np.int32).T
                read.setdefault(f"potentials.{layer}", []).append(potential)
            left = (samples - sample - 1) * sum(read["wall_s"]) / (sample + 1)
            print(f"image {sample + 1} of {samples}, about {left:.0f} s left", file=sys.stderr)

    def windows(layer: int, late: int) -> Array:
        first = layer + 1 + options.input_delay + options.output_delay + late
        return np.stack([np.stack(seen[layer][first + k * period :][:steps]) for k in range(samples)])

    arrays = {name: np.stack(values) for name, values in read.items()}
    arrays |= {f"spikes.{layer}": windows(layer, 0) for layer in layers}
    return arrays | {f"later.{late}": windows(last, late) for late in range(1, MORE_STEPS + 1)}


def _measure(
    folder: Path, network: dict[str, Any], stream: Array, period: int, steps: int, options: Options
) -> dict[str, Array]:
    """Power and time per step of a run of its own, as in lava-dl's tutorials/lava/lib/dl/netx/pilotnet_snn/benchmark.ipynb.

    The images are streamed in again and again; nothing is read out, which would take longer than the network.
    """
    from lava.utils import loihi2_profiler

    power = loihi2_profiler.Loihi2Power(num_steps=steps)
    clock = loihi2_profiler.Loihi2ExecutionTime()
    with _lava(options) as running:
        running.net = _build(folder, network, stream, period, options)
        running.compile([power, clock])
        running.advance(steps)
    arrays = {"step_time_us": np.asarray(clock.execution_time_per_step, dtype=np.float64).ravel()}
    for name in ("total", "vdd", "vddm", "vddio"):
        arrays[f"power_w.{name}"] = np.asarray(getattr(power, f"{name}_power"), dtype=np.float64).ravel()
        arrays[f"static_w.{name}"] = np.asarray(getattr(power, f"static_{name}_power"), dtype=np.float64).ravel()
    return arrays


def _compare(parts: list[Part], arrays: dict[str, Array], network: dict[str, Any]) -> int:
    """Print what came out beside what was expected; 0 where nothing differs."""
    last = len(network["layers"]) - 1
    spiking = network["layers"][last]["spiking"]
    output = arrays[f"spikes.{last}"].sum(1, dtype=np.int64) if spiking else arrays[f"potentials.{last}"]
    expected = np.concatenate([part.output for part in parts])
    compared, differing, first = expected.size, int((output != expected).sum()), 0
    for part in parts:
        own = slice(first, first + len(part.labels))
        first = own.stop
        predicted = output[own].reshape(len(part.labels), -1).argmax(1)
        print(
            f"{part.name}: {len(part.labels)} images, right {(predicted == part.labels).mean():.3f}, expected "
            f"{(part.predicted == part.labels).mean():.3f}; the same class for {(predicted == part.predicted).mean():.3f}"
        )
        for layer, counts in part.counts.items():
            if f"spikes.{layer}" in arrays:
                found = arrays[f"spikes.{layer}"][own].reshape(*counts.T.shape, -1).sum(2).T
                compared, differing = compared + counts.size, differing + int((found != counts).sum())
    print(
        f"spike counts per layer, step and image, and outputs: {differing:,} of {compared:,} differ from the expected"
    )
    for late in range(1, MORE_STEPS + 1):
        if differing and spiking and np.array_equal(arrays[f"later.{late}"].sum(1), expected):
            print(f"the output is as expected {late} steps later: run again with --output-delay {late}")
    return int(differing > 0)


def _facts(
    options: Options, manifest: dict[str, Any], parts: list[Part], period: int, layers: list[int]
) -> dict[str, Any]:
    on_chip = options.backend == "loihi2"
    installed = {one.metadata["Name"]: one.version for one in metadata.distributions()}
    sets = [(part.name, len(part.labels), _digest(part.messages)) for part in parts]
    return {
        "format": TRACE,
        "backend": options.backend,
        "network_sha256": manifest["files"]["network.net"],
        "sets": [{"name": name, "images": images, "messages_sha256": digest} for name, images, digest in sets],
        "time_steps": manifest["network"]["time_steps"],
        "period": period,
        "input_delay": options.input_delay,
        "output_delay": options.output_delay,
        "layers": layers,
        "states": bool(options.states),
        "host": options.host if on_chip else "",
        "place": {name: os.environ[name] for name in PLACE if on_chip and name in os.environ},
        "chips_on_board": options.chips_on_board if on_chip else 0,
        "versions": {"python": platform.python_version()} | {name: installed.get(name) for name in PACKAGES},
    }


def _save(path: Path, facts: dict[str, Any], arrays: dict[str, Array]) -> None:
    """Whole or not at all."""
    held = io.BytesIO()
    np.savez_compressed(held, facts=np.array(json.dumps(facts)), **arrays)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(held.getvalue())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _digest(data: Any) -> str:
    return hashlib.sha256(data).hexdigest()


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


if __name__ == "__main__":
    sys.exit(main())
