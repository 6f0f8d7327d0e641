"""NIR's neurons, which are differential equations, as the steps that an SNN of ours takes, and back.

NIR (neuron.py of nir 1.0) defines, with z = [v > v_threshold] and then v = v_reset,

    IF:       v' = r I              LIF:  tau v' = v_leak - v + r I
    CubaLIF:  tau_syn i' = -i + w_in S,  tau_mem v' = v_leak - v + r i

and leaves the step to the reader. One step of dt seconds is v <- leak v + gain I here, with v_leak = 0 and

    euler         leak = 1 - dt / tau,    gain = r dt / tau;  IF: leak = 1, gain = r dt
    exponential   leak = exp(-dt / tau),  gain = r (1 - leak)

The gain goes into the threshold: v / gain is the potential of our neuron, which adds its input as it is. What others write:

    snnTorch 1.0       euler, dt 1e-4 (export_nir.py); r and tau infinite together for beta = 1, which is gain 1. With its
                       `subtract` the threshold is taken off after the leak, which is ours only for beta = 1; `zero` is hard
    SpikingJelly       euler, dt 1e-4 by default (nir_exchange/to_nir.py); fires at the threshold
    Norse 1.1          euler; IF: dt 1; LIFBox: it writes dt tau for tau, so give its dt squared (utils/export_nir.py)
    sinabs 3.1         IF: dt 1, soft reset, fires at the threshold, and several times a step unless told SingleSpike;
                       LIF: exponential, dt 1, which is r = 1 there only with norm_input

None of them writes down whether its reset is hard or soft.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, isinf
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hardspike.snn.architecture import Shape
from hardspike.snn.errors import FileError, UnsupportedLayerError

Array = NDArray[Any]
Discretisation = Literal["euler", "exponential"]
# What rounding in the file's precision leaves of a gain of 1.
ROUNDINGS = 8
SMALLEST = 1e-30  # threshold: what float32 and its gradients still hold


@dataclass(frozen=True, slots=True, kw_only=True)
class StepNeuron:
    """v <- leak v + I, fires against `threshold`; both float64, in the units of the input I."""

    leak: float
    threshold: float


def step_neuron(
    kind: str, values: Mapping[str, Array], shape: Shape, dt: float, discretisation: Discretisation, where: str
) -> StepNeuron:
    """The step of an IF, LIF or CubaLIF node whose layer has this shape.

    Raises FileError for parameters that are missing or make no sense, UnsupportedLayerError for neurons with no such step;
    messages begin with `where`.
    """
    parameter = _Parameters(values, shape, where)
    threshold = parameter("v_threshold")
    for name in ("v_leak", "v_reset"):
        if name in values and parameter(name) != 0:
            raise UnsupportedLayerError(f"{where}: {name} = {parameter(name):.6g} has no place here; allowed: 0")
    r = parameter("r")
    precision = float(np.finfo(np.result_type(values["r"].dtype, np.float16)).eps)
    drive = 1.0
    if kind == "CubaLIF":
        drive = _forgotten_synapse(parameter, dt, discretisation, where)
    if kind == "IF":
        leak, gain = 1.0, r * dt
    else:
        leak, gain = _leak_and_gain(parameter("tau" if kind == "LIF" else "tau_mem"), r, dt, discretisation, where)
    gain *= drive
    if abs(gain - 1) <= ROUNDINGS * precision:
        gain = 1.0
    if not 0 < gain < np.inf or not SMALLEST < threshold / gain < 1 / SMALLEST:
        raise UnsupportedLayerError(
            f"{where}: threshold {threshold:.6g} and gain {gain:.6g} per step (r = {r:.6g}, dt = {dt:.6g}) must both be positive "
            "and finite; give the dt of the framework that wrote it"
        )
    return StepNeuron(leak=leak, threshold=threshold / gain)


def _leak_and_gain(tau: float, r: float, dt: float, discretisation: Discretisation, where: str) -> tuple[float, float]:
    if isinf(tau) and isinf(r):
        return 1.0, 1.0  # snnTorch's beta = 1: r / tau is 1 / dt
    if not tau > 0 or (discretisation == "euler" and not dt < tau):
        raise UnsupportedLayerError(
            f"{where}: tau = {tau:.6g} leaves nothing after a step of dt = {dt:.6g}; a tau above dt is allowed; "
            "give the dt of the framework that wrote it"
        )
    leak = 1 - dt / tau if discretisation == "euler" else exp(-dt / tau)
    return leak, r * dt / tau if discretisation == "euler" else r * (1 - leak)


def _forgotten_synapse(parameter: "_Parameters", dt: float, discretisation: Discretisation, where: str) -> float:
    """What a synaptic current multiplies spikes by, if it forgets them within one step."""
    tau = parameter("tau_syn")
    if discretisation != "euler" or abs(tau / dt - 1) > 1e-6:
        raise UnsupportedLayerError(
            f"{where}: tau_syn = {tau:.6g} keeps a synaptic current over time, which no layer here does; "
            f"allowed: tau_syn = dt ({dt:.6g}); use LIF"
        )
    return parameter("w_in") if "w_in" in parameter.values else 1.0


@dataclass(frozen=True, slots=True)
class _Parameters:
    """The one number that each parameter of a layer of neurons must be, whatever shape it is written in."""

    values: Mapping[str, Array]
    shape: Shape
    where: str

    def __call__(self, name: str) -> float:
        found = self.values.get(name)
        if found is None or found.dtype.kind not in "iuf" or not found.size:
            raise FileError(f"{self.where} has no numbers '{name}'; the file is damaged or of another version")
        if found.size != 1 and found.shape != self.shape:
            raise FileError(f"{self.where}: {name} has shape {found.shape}, but the layer has {self.shape}")
        low, high = float(found.min()), float(found.max())
        if not low == high:  # true for NaN too
            raise UnsupportedLayerError(
                f"{self.where}: {name} is between {low:.6g} and {high:.6g}; one number for the whole layer is allowed"
            )
        return low


def nir_neuron(leak: float, threshold: float, strict: bool, shape: Shape, dt: float, dtype: Any) -> dict[str, Array]:
    """Parameters of the NIR node, IF for leak 1, else LIF, whose Euler step of dt is ours.

    NIR fires strictly above the threshold: for a neuron that fires at it, the next smaller number of `dtype` is written.
    """
    written = np.asarray(threshold, dtype=dtype)
    written = written if strict else np.nextafter(written, np.asarray(0, dtype=dtype))
    tau = dt / (1 - leak) if leak < 1 else None
    single = {"r": (tau or 1.0) / dt, "v_threshold": written}
    single |= {} if tau is None else {"tau": tau, "v_leak": 0.0}
    return {name: np.full(shape, value, dtype=dtype) for name, value in single.items()}


def fires_at(written: float, dtype: Any) -> float:
    """The threshold of a neuron that fires at it, from what `nir_neuron` wrote."""
    dtype = np.result_type(dtype, np.float32)
    return float(np.nextafter(np.asarray(written, dtype=dtype), np.asarray(np.inf, dtype=dtype)))
