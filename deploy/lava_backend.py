"""Lava as a backend: the graph as Lava processes, the graph's `.net` file through netx, and that file on a Loihi 2.

One stream carries all samples; each layer is reset exactly when the first message of the next sample reaches it.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hardspike.deploy.input_coding import append_constant_channels, check_messages
from hardspike.deploy.lava_limits import check_lava_computes, check_loihi2_resets
from hardspike.deploy.lava_netx import build_netx
from hardspike.deploy.lava_processes import LavaNetwork, build_processes, lava_available, layer_delays, require_lava
from hardspike.deploy.lava_runner import run_stream, simulator_config
from hardspike.deploy.lava_synapses import SPARSE_NONZEROS
from hardspike.deploy.process_graph import IntArray, ProcessGraph
from hardspike.deploy.trace import States, Trace, count_events, join_traces
from hardspike.snn.errors import BackendError

__all__ = ["LavaBackend", "Loihi2Backend", "NetxBackend", "lava_available"]

STREAM_BYTES = 1 << 28  # Lava holds a stream as int32 and copies it; longer runs are split


class LavaBackend:
    """`Backend` on Lava's fixed point simulator: any graph, with delays balanced and neurons of our own where needed.

    With `keep_states` neurons that show currents and potentials (lava_neuron/) stand in for Lava's `LIFReset`, whose own step
    they run. It costs no time to speak of, but 20 bytes per neuron and step instead of 1; to read states from `LIFReset` by
    Lava's means would take 0.1 ms per number.

    timeout_s: longest wait for the timesteps of one sample.
    sparse_nonzeros: see lava_synapses.py; 0 for convolutions by Lava's `Conv` alone, as netx builds them.
    """

    name = "lava"

    def __init__(self, *, timeout_s: float = 600.0, sparse_nonzeros: int = SPARSE_NONZEROS) -> None:
        self.timeout_s = timeout_s
        self.sparse_nonzeros = sparse_nonzeros

    def run(
        self,
        graph: ProcessGraph,
        messages: Tensor,
        *,
        keep_states: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Trace:
        """See `Backend`.

        Raises:
            BackendError: Lava is not there, failed or hung, or the readout fired.
            UnsupportedLayerError, DoesNotFitError: Lava would compute something else than the graph says.
        """
        check_messages(messages, graph.input, graph.time_steps)
        self._check(graph)
        self._require()
        dim = 1 if graph.input.has_time else 0
        sample_bytes = 4 * graph.time_steps * math.prod(graph.input.encoded_shape)
        traces = []
        for batch in torch.split(messages, max(1, STREAM_BYTES // sample_bytes), dim):
            encoded = append_constant_channels(batch, graph.input)
            traces.append(self._run_stream(graph, encoded, keep_states, progress))
        return join_traces(traces)

    def _run_stream(
        self, graph: ProcessGraph, encoded: Tensor, keep_states: bool, progress: Callable[[int], None] | None
    ) -> Trace:
        steps, has_time = graph.time_steps, graph.input.has_time
        stream_BT = encoded.transpose(0, 1) if has_time else encoded.unsqueeze(1).expand(-1, steps, *encoded.shape[1:])
        network = self._build(graph, stream_BT.flatten(0, 1).int().numpy(), keep_states)
        found = run_stream(
            graph,
            network,
            len(stream_BT),
            self._config(),
            backend=self.name,
            timeout_s=self.timeout_s,
            progress=progress,
        )
        states = States({})
        for name, values in found.states.items():
            states.spikes[name] = torch.from_numpy(values[0].astype(bool))
            if network.observed:
                states.currents[name], states.potentials[name] = torch.from_numpy(values[1:].astype(np.int64))
        output = graph.output
        if not output.neurons.spiking and states.spikes[output.name].any():
            raise BackendError(
                f"backend '{self.name}': the readout '{output.name}' fired, which resets it; lower its scale"
            )
        result = states.spikes[output.name].sum(0) if output.neurons.spiking else torch.from_numpy(found.output)
        return count_events(graph, self.name, encoded, states, result, keep_states=keep_states)

    def _check(self, graph: ProcessGraph) -> None:
        check_lava_computes(graph)
        layer_delays(graph)

    def _require(self) -> None:
        require_lava(self.name)

    def _config(self) -> Any:
        return simulator_config()

    def _build(self, graph: ProcessGraph, stream: IntArray, keep_states: bool) -> LavaNetwork:
        return build_processes(graph, stream, observe_states=keep_states, sparse_nonzeros=self.sparse_nonzeros)


class NetxBackend(LavaBackend):
    """The `.net` file of the graph, loaded by lava-dl's netx, on the same simulator and the same stream.

    `Trace.states` has spikes only: netx builds Lava's own neurons.
    """

    name = "lava-netx"

    def __init__(self, path: Path, *, timeout_s: float = 600.0) -> None:
        super().__init__(timeout_s=timeout_s)
        self.path = path

    def _build(self, graph: ProcessGraph, stream: IntArray, keep_states: bool) -> LavaNetwork:
        return build_netx(self.path, graph, stream)


class Loihi2Backend(NetxBackend):
    """The same file on a Loihi 2. It has never been run: it needs Intel's closed Lava extension for Loihi and a board.

    Written from lava-dl's own hardware tests; before the first run choose a host with `use_slurm_host` or
    `use_ethernet_host` of `lava.utils.loihi`.
    """

    name = "loihi2"

    def _check(self, graph: ProcessGraph) -> None:
        super()._check(graph)
        check_loihi2_resets(graph)

    def _require(self) -> None:
        require_lava(self.name)
        from lava.utils import loihi

        if not loihi.is_installed():
            raise BackendError(
                "backend 'loihi2': Intel's Lava extension for Loihi (lava.utils.loihi2_profiler) is not installed; it "
                "comes with membership in the Intel Neuromorphic Research Community (INRC); use the backend 'lava'"
            )

    def _config(self) -> Any:
        from lava.magma.core.run_configs import Loihi2HwCfg
        from lava.proc.io.extractor import Extractor, PyLoihiExtractorModel

        return Loihi2HwCfg(exception_proc_model_map={Extractor: PyLoihiExtractorModel})

    def _build(self, graph: ProcessGraph, stream: IntArray, keep_states: bool) -> LavaNetwork:
        return build_netx(self.path, graph, stream, on_chip=True)
