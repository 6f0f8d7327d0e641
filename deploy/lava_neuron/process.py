"""Neurons that Lava 0.10 has not: LIF that shows its states, and LIF with soft reset, initial potential or firing first.

Currents and potentials are computed by Lava's own fixed point LIF in both (proc/lif/models.py). They exist on the CPU only:
a Loihi 2 would need a neuron program (microcode) of the same arithmetic, and no tool to write one is public.

One form needs no process of our own: IF (no leak, no current memory) with a soft reset by an even threshold and half of it as
initial potential is Lava's `ATRLIF` with delta_i = 4095/4096, delta_v = delta_r = delta_theta = 0, theta = theta_0 = half the
threshold, theta_step = 0. It cannot be reset between samples, so it is not used here; a test shows that it fires the same.

This is the one module that imports Lava when it is imported.
"""

from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.ports import PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import OutPort
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from lava.proc.lif.models import PyLifResetModelBitAcc
from lava.proc.lif.process import LIFReset


class ObservedLIF(LIFReset):
    """Lava's `LIFReset` with one port more: `states_out`, (3, *shape), sends spikes, currents, and potentials before the reset.

    One port and not three, for whoever listens is a system process per port.
    """

    def __init__(self, **parameters: Any) -> None:
        super().__init__(**parameters)
        self.states_out = OutPort(shape=(3, *parameters["shape"]))


@implements(proc=ObservedLIF, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyObservedLIF(PyLifResetModelBitAcc):
    """Lava's own step, listened to between the comparison with the threshold and the reset."""

    implements_process = None  # else Lava takes it for a model of the parent's process, and refuses another
    states_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)

    def reset_voltage(self, spike_vector: Any) -> None:
        self.states_out.send(np.stack([spike_vector, self.u, self.v]))
        super().reset_voltage(spike_vector)


class ProgrammableLIF(ObservedLIF):
    """As deploy/process_graph.py says, with `LIFReset`'s parameters and

    initial: potential that a reset of the sample sets, in state units. reset_by: mantissa that a spike subtracts, None for a
    reset to 0. fires_first: compare the potential that the last step left, integrate afterwards.
    """

    def __init__(self, *, initial: int, reset_by: int | None, fires_first: bool, **parameters: Any) -> None:
        super().__init__(v=initial, **parameters)
        for name, value in (("initial", initial), ("reset_by", reset_by), ("fires_first", fires_first)):
            self.proc_params[name] = value


@implements(proc=ProgrammableLIF, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyProgrammableLIF(PyObservedLIF):
    """Lava's dynamics of current and potential, in an order and with resets of our own."""

    implements_process = None
    effective_bias: Any

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.initial: int = proc_params["initial"]
        self.fires_first: bool = proc_params["fires_first"]
        reset_by: int | None = proc_params["reset_by"]
        self.subtracted = None if reset_by is None else reset_by << self.vth_shift

    def run_spk(self) -> None:
        activation = self.a_in.recv()
        if self.time_step % self.reset_interval == self.reset_offset:
            self.u[:] = 0
            self.v[:] = self.initial
        self.scale_bias()
        if not self.isthrscaled:
            self.scale_threshold()
        if self.fires_first:
            spikes = self._fire_first(activation)
        else:
            self.subthr_dynamics(activation)
            spikes = self.spiking_activation()
            self.reset_voltage(spikes)
        self.s_out.send(spikes)

    def _fire_first(self, activation: Any) -> Any:
        spikes, compared = self.spiking_activation(), self.v.copy()
        if self.subtracted is None:
            self.v[spikes] = 0
        else:  # as a bias, so that it is subtracted before the potential saturates
            self.effective_bias = self.effective_bias - self.subtracted * spikes.astype(np.int32)
        self.subthr_dynamics(activation)
        self.states_out.send(np.stack([spikes, self.u, compared]))
        return spikes

    def reset_voltage(self, spike_vector: Any) -> None:
        if self.subtracted is None:
            super().reset_voltage(spike_vector)
            return
        self.states_out.send(np.stack([spike_vector, self.u, self.v]))
        self.v[spike_vector] -= self.subtracted
