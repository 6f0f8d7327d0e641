"""Runs a network of Lava processes on one stream of samples, and always ends the system processes it started."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hardspike.deploy.lava_processes import LavaNetwork, lava_output_aside
from hardspike.deploy.process_graph import ProcessGraph
from hardspike.snn.errors import BackendError

POLL_S = 0.0005
LOOK_S = 1.0
STOP_S = 20.0  # Lava ends in about a second; longer means that a process of it no longer answers


@dataclass(frozen=True, slots=True)
class StreamResult:
    """states: per layer [1, T, samples, *shape] bool spikes, or [3, ...] int32 spikes, currents and potentials if observed.

    output: the output layer's final potentials [samples, N].
    """

    states: dict[str, NDArray[Any]]
    output: NDArray[np.int64]


def simulator_config() -> Any:
    """Fixed point models; `bit_accurate_loihi` has none for convolutions. The Extractor's only model carries no tag."""
    from lava.magma.core.run_configs import Loihi2SimCfg
    from lava.proc.io.extractor import Extractor, PyLoihiExtractorModel

    return Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map={Extractor: PyLoihiExtractorModel})


def run_stream(
    graph: ProcessGraph,
    network: LavaNetwork,
    samples: int,
    config: Any,
    *,
    backend: str,
    timeout_s: float,
    progress: Callable[[int], None] | None,
) -> StreamResult:
    """Sample k reaches a layer of delay d in the steps d + kT + 1 .. d + (k + 1)T, counted from 1.

    Raises BackendError when Lava fails, or takes longer than `timeout_s` for the steps of one sample.
    """
    steps, delay = graph.time_steps, network.delays[graph.output.name]
    last = max(network.delays.values())  # a layer that leads nowhere may be later than the output
    seen: dict[str, list[NDArray[Any]]] = {name: [] for name in network.taps}
    dtype = np.int32 if network.observed else np.bool_

    def advance(left: int) -> None:
        while left:
            now = min(left, steps)  # the taps have room for so many
            _advance(network.root, now, backend, timeout_s)
            for name, extractor in network.taps.items():
                seen[name].extend(extractor.receive().astype(dtype) for _ in range(now))
            left -= now

    outputs = []
    try:
        with _lava_errors(backend), lava_output_aside(), _interrupts_left_to_us():
            network.root.create_runtime(run_cfg=config)
        for sample in range(samples):
            with _lava_errors(backend):
                advance(steps if sample else steps + delay)
                outputs.append(network.neurons[graph.output.name].v.get().astype(np.int64).T)
            if progress is not None:
                progress(1)
        with _lava_errors(backend):
            advance(last - delay)
    finally:
        if network.root.runtime is not None:
            _stop(network.root.runtime)
    states = {}
    for name, arrays in seen.items():
        first = network.delays[name]
        window = np.stack(arrays[first : first + samples * steps])
        window = window.reshape(samples, steps, *([] if network.observed else [1]), *window.shape[1:])
        states[name] = window.transpose(2, 1, 0, *range(window.ndim - 1, 2, -1))  # from Lava's order (W, H, C)
    return StreamResult(states=states, output=np.stack(outputs))


@contextlib.contextmanager
def _lava_errors(backend: str) -> Iterator[None]:
    """Lava raises whatever its compiler and models raise; make it one line."""
    try:
        yield
    except BackendError:
        raise
    except Exception as error:
        line = (str(error).splitlines() or [""])[0]
        raise BackendError(
            f"backend '{backend}': Lava failed ({type(error).__name__}: {line}); use the backend 'emulator'"
        ) from error


@contextlib.contextmanager
def _interrupts_left_to_us() -> Iterator[None]:
    """Let Lava's processes inherit that they ignore Ctrl-C; it would end them while Lava waits for their answers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _advance(root: Any, steps: int, backend: str, timeout_s: float) -> None:
    """Run some steps; unlike Lava's own blocking run it ends when a process has died or hangs."""
    from lava.magma.core.run_conditions import RunSteps

    start = looked = time.monotonic()
    root.run(condition=RunSteps(num_steps=steps, blocking=False))
    while not any(port.probe() for port in root.runtime.service_to_runtime):
        now = time.monotonic()
        if now - start > timeout_s:
            raise BackendError(
                f"backend '{backend}': {steps} steps took Lava over {timeout_s:g} s; give more time or fewer neurons"
            )
        if now - looked > LOOK_S:
            looked = now
            if not all(actor.is_alive() for actor in root.runtime._messaging_infrastructure.actors):
                raise BackendError(
                    f"backend '{backend}': a process of Lava died, maybe for lack of memory; run fewer samples at once"
                )
        time.sleep(POLL_S)
    root.wait()


def _stop(runtime: Any) -> None:
    """Ask Lava to stop; where it does not, end its processes. All of them were started by this runtime."""

    def ask() -> None:
        # A runtime that failed may fail again here; what counts is that its processes end.
        with contextlib.suppress(Exception):
            runtime.stop()

    infrastructure = runtime._messaging_infrastructure
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(STOP_S)
    if asking.is_alive():
        for actor in infrastructure.actors:
            if actor.is_alive():
                actor.terminate()
        asking.join(1.0)
        runtime._is_started = False  # else Lava asks once more when the object is deleted
        with contextlib.suppress(Exception):
            infrastructure.stop()
