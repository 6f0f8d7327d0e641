"""What a hardware profile holds: a chip's arithmetic, cores, energy, time and power. Left out is what nobody has published."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from hardspike.hw_profiles.constant import Constant, Entry
from hardspike.snn.errors import SettingsError

Packing = Literal["loihi1", "loihi2", "speck", "truenorth"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Numerics:
    """The integer arithmetic of a chip. Unit `weight`: what one step of an integer weight adds to the synaptic input.

    Neuron state is kept in units of weight / 2^state_shift, in `state_bits` bits.
    resets: what the chip's own neurons do, `hard` or `soft`. microcode: what they do only after they were programmed for it
    (`soft` reset, `initial` potential, `fire-first`).
    """

    weight_bits: tuple[int, ...]
    mixed_weight_min: int
    mixed_weight_max: int
    positive_weight_max: int
    negative_weight_min: int
    state_bits: int
    decay_bits: int
    state_shift: int
    threshold_mantissa_max: int
    bias_mantissa_min: int
    bias_mantissa_max: int
    bias_exponent_max: int
    message_bits_max: int
    weight_exponent_max: int
    resets: tuple[str, ...]
    microcode: tuple[str, ...]

    @property
    def state_max(self) -> int:
        """Largest membrane potential (it saturates at plus and minus this value)."""
        return (1 << (self.state_bits - 1)) - 1

    @property
    def decay_one(self) -> int:
        """The decay that forgets everything in one step; 0 forgets nothing."""
        return 1 << self.decay_bits

    def kept(self, decay: int) -> float:
        """Share of a state that is left after one step of `decay`, before rounding."""
        return (self.decay_one - decay) / self.decay_one

    @property
    def input_max(self) -> int:
        """Largest synaptic input (unit `weight`) that does not wrap when it becomes a current."""
        return self.state_max >> self.state_shift


@dataclass(frozen=True, slots=True, kw_only=True)
class CostSet:
    """Energy per event, in picojoule; None where the set has no such constant: a term that stays unpriced.

    `synaptic_operation_convolution` defaults to `synaptic_operation`. message: from one neuron or input to one core that it
    reaches. hop_*: of one message, from tile to tile.
    """

    name: str
    title: str
    synaptic_operation: Constant
    synaptic_operation_convolution: Constant
    neuron_update_active: Constant
    neuron_update_idle: Constant
    spike_out: Constant
    message: Constant | None = None
    hop_east_west: Constant | None = None
    hop_north_south: Constant | None = None
    barrier: Constant | None = None
    includes_static: bool = False

    @property
    def unpriced(self) -> tuple[str, ...]:
        """Terms inside the chip that the set says nothing about."""
        terms = {
            "messages between cores": (self.message,),
            "hops between tiles": (self.hop_east_west, self.hop_north_south),
            "barrier synchronisation": (self.barrier,),
        }
        return tuple(name for name, constants in terms.items() if None in constants)


@dataclass(frozen=True, slots=True, kw_only=True)
class Barrier:
    """How long all cores wait for each other at the end of a step when that many tiles are used, in nanoseconds."""

    tiles: int
    time: Constant


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeSet:
    """Time per event in the core where it happens, in nanoseconds. `synaptic_operation_convolution` as in `CostSet`.

    message_out: per message a core sends; None where the set does not time it.
    """

    name: str
    title: str
    synaptic_operation: Constant
    synaptic_operation_convolution: Constant
    neuron_update_active: Constant
    neuron_update_idle: Constant
    message_in: Constant
    spike_out: Constant
    barrier: tuple[Barrier, ...]
    message_out: Constant | None = None

    def barrier_ns(self, tiles: int) -> float:
        """That of the largest number listed up to `tiles`; the first one's below all."""
        reached = (entry for entry in self.barrier if entry.tiles <= tiles)
        return max(reached, key=lambda entry: entry.tiles, default=self.barrier[0]).time.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Cores:
    """How a chip is divided, and what a core holds; None where no limit is published.

    packing: whose rule says what synapses cost in memory and how layers are cut (`deploy.placement`).
    synapse_words: of 64 bits. axons_in, axons_out: entries of the tables of incoming and outgoing connections.
    chips_max: of the largest system built; a network that needs more does not fit.
    tiles_high: rows of the mesh of tiles; None where the mesh is not known, and then hops are not counted.
    kernel_words, neuron_words: of each core, where cores differ. biases: per core. axon_types: kinds of inputs a neuron tells
    apart, each with a weight of its own. message_bits, weight_bits: the most, of chips without `Numerics`.
    """

    neurons_per_core: int
    cores_per_chip: int
    chips_max: int
    packing: Packing | None = None
    cores_per_tile: int = 1
    tiles_high: int | None = None
    synapse_words: int | None = None
    axons_in: int | None = None
    axons_out: int | None = None
    kernel_words: tuple[int, ...] | None = None
    neuron_words: tuple[int, ...] | None = None
    biases: int | None = None
    message_bits: int | None = None
    weight_bits: int | None = None
    axon_types: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredPower:
    """Power of a chip or board while it ran a workload, in watt; dynamic is what is left without static power."""

    workload: str
    boundary: str
    cores: int
    chips: int
    total: Constant
    static: Constant | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """static_chip: watt per chip, busy or not. chip_max: the most a chip draws. measured: whole workloads."""

    static_chip: Constant | None = None
    chip_max: Constant | None = None
    measured: tuple[MeasuredPower, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Arithmetic:
    """Energy of bare arithmetic in picojoule: nothing of memory, routing or neuron updates, so never beside a chip's costs."""

    name: str
    title: str
    multiply_accumulate: Constant
    accumulate: Constant


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A chip, or (with `arithmetic`) a convention for counting operations.

    constants: every entry of the file by its dotted key, with source and trust.
    """

    name: str
    chip: str
    integers: Numerics | None = None
    costs: Mapping[str, CostSet] = field(default_factory=dict)
    times: Mapping[str, TimeSet] = field(default_factory=dict)
    cores: Cores | None = None
    power: Power = field(default_factory=Power)
    arithmetic: Mapping[str, Arithmetic] = field(default_factory=dict)
    constants: Mapping[str, Entry] = field(default_factory=dict)

    @property
    def numerics(self) -> Numerics:
        """The chip's integer arithmetic. Raises SettingsError for a profile that does not give it."""
        if self.integers is None:
            raise SettingsError(
                f"profile '{self.name}' has no [numerics], so nothing can be compiled for it; use loihi1 or loihi2"
            )
        return self.integers
