"""What happened on each core of a placed network: exact counts of events, per step and sample.

A spike, or a nonzero input message, goes once to every core that has a synapse from its sender (a weight of 0 is none), and there
through each of those synapses. Its way leads along the row and the column of the mesh. Input enters at the first tile of the
first chip. Messages between chips are counted apart, without hops: no price of that way is known.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from hardspike.deploy.placement import HOST, LayerPlacement, Placement
from hardspike.deploy.placement_demand import Box, axis_taps, box_size, groups_of
from hardspike.deploy.process_graph import ConvSynapse, ProcessGraph, Synapse
from hardspike.snn.architecture import INPUT, Shape

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CoreEvents:
    """int64 [T, B, cores + 1]: columns in the order of `Placement.cores`, and a last one for the host, which only sends input.

    operations: through dense synapses; operations_convolution: through the others. active, idle: neuron updates, by whether the
    neuron fired. messages_out: from neurons of the core to cores; messages_in: that reach it. hops_*: of messages_out.
    off_chip: of messages_out, those to another chip.
    """

    operations: Tensor
    operations_convolution: Tensor
    active: Tensor
    idle: Tensor
    messages_in: Tensor
    messages_out: Tensor
    hops_east_west: Tensor
    hops_north_south: Tensor
    off_chip: Tensor

    def totals(self) -> dict[str, int]:
        """Over everything."""
        return {item.name: int(getattr(self, item.name).sum()) for item in fields(self)}


@dataclass(frozen=True, slots=True, eq=False)
class _Arrivals:
    """At one layer from one source. operations, by kind of synapse, and reached: [cores of the layer, senders]."""

    dense: sparse.csr_matrix | None
    convolution: sparse.csr_matrix | None
    reached: sparse.csr_matrix


@dataclass(frozen=True, slots=True, eq=False)
class _Sender:
    """Per event of a neuron, on its core: [cores of the layer, ascending, neurons]."""

    ones: sparse.csr_matrix
    messages: sparse.csr_matrix
    east_west: sparse.csr_matrix
    north_south: sparse.csr_matrix
    off_chip: sparse.csr_matrix


class PlacedNetwork:
    """Counts the events of a graph on the cores of its placement."""

    def __init__(self, graph: ProcessGraph, placement: Placement) -> None:
        self.placement, self.time_steps = placement, graph.time_steps
        self.host = len(placement.cores)
        self.layer_of_core = [core.layer for core in placement.cores] + [INPUT]
        self.neurons = torch.tensor([box_size(core.box) for core in placement.cores] + [0])
        layers = {layer.name: layer for layer in placement.layers}
        shapes = graph.shapes
        column = {core.number: index for index, core in enumerate(placement.cores)}
        self._order = {name: [column[core.number] for core in layer.cores] for name, layer in layers.items()}
        self._input_axes = len(graph.input.encoded_shape)
        self._arrivals = {
            layer.name: {
                source: _arrivals([s for s in layer.synapses if s.source == source], shapes[source], layers[layer.name])
                for source in dict.fromkeys(synapse.source for synapse in layer.synapses)
            }
            for layer in graph.layers
        }
        places = np.array([[core.chip, core.column or 0, core.row or 0] for core in placement.cores] + [[0, *HOST]])
        self._senders = {}
        for name in (INPUT, *layers):
            owner = (
                np.full(int(np.prod(shapes[name])), self.host)
                if name == INPUT
                else _owners(layers[name], self._order[name][0])
            )
            reached = [
                (np.array(self._order[target]), found[name].reached)
                for target, found in self._arrivals.items()
                if name in found
            ]
            self._senders[name] = _sender(owner, reached, places)

    def count(self, sent: dict[str, Tensor]) -> CoreEvents:
        """Events of one batch.

        sent: input messages, [B, *shape] where they are the same at every step, or [T, B, *shape], under `input`; and the
        spikes of every firing layer, [T, B, *shape]. As `Emulator.watching` leaves them, or from a trace's states.
        """
        events = {name: self._by_sender(name, value) for name, value in sent.items() if name in self._senders}
        steps = self.time_steps
        batch = next(iter(events.values())).shape[1] // steps
        made = {item.name: np.zeros((self.host + 1, steps * batch), np.int64) for item in fields(CoreEvents)}
        for target, sources in self._arrivals.items():
            rows = self._order[target]
            for source, found in sources.items():
                if source not in events:
                    continue
                if found.dense is not None:
                    made["operations"][rows] += found.dense @ events[source]
                if found.convolution is not None:
                    made["operations_convolution"][rows] += found.convolution @ events[source]
                made["messages_in"][rows] += found.reached @ events[source]
        for name, fired in events.items():
            sender = self._senders[name]
            rows = [self.host] if name == INPUT else self._order[name]
            made["messages_out"][rows] += sender.messages @ fired
            made["hops_east_west"][rows] += sender.east_west @ fired
            made["hops_north_south"][rows] += sender.north_south @ fired
            made["off_chip"][rows] += sender.off_chip @ fired
            if name != INPUT:
                made["active"][rows] += sender.ones @ fired
        made["idle"] = self.neurons.numpy()[:, None] - made["active"]
        return CoreEvents(**{name: torch.from_numpy(value).T.reshape(steps, batch, -1) for name, value in made.items()})

    def _by_sender(self, name: str, value: Tensor) -> Counts:
        """1 for each event, int64 [senders, T * B]."""
        size = self._senders[name].ones.shape[1]
        happened = (value.detach() != 0).long()
        constant = name == INPUT and value.ndim == 1 + self._input_axes
        flat = happened.reshape(1, len(happened), size) if constant else happened.flatten(2)
        found: Counts = flat.expand(self.time_steps, -1, -1).reshape(-1, size).T.contiguous().numpy()
        return found


def _owners(layer: LayerPlacement, first: int) -> NDArray[np.int64]:
    """Column of the core of each neuron, in C order; first: of the layer's first core."""
    owner = np.empty(layer.shape, np.int64)
    for index, core in enumerate(layer.cores):
        owner[tuple(slice(*span) for span in core.box)] = first + index
    return owner.ravel()


def _arrivals(synapses: list[Synapse], source: Shape, layer: LayerPlacement) -> _Arrivals:
    kinds: dict[bool, sparse.csr_matrix] = {}
    for synapse in synapses:
        made = sparse.vstack([_core_reach(synapse, source, core.box) for core in layer.cores], format="csr")
        kind = isinstance(synapse, ConvSynapse)
        kinds[kind] = kinds[kind] + made if kind in kinds else made
    total = sum(kinds.values())
    return _Arrivals(kinds.get(False), kinds.get(True), (total > 0).astype(np.int64).tocsr())


def _core_reach(synapse: Synapse, source: Shape, box: Box) -> sparse.csr_matrix:
    """Synapses but those of weight 0 from each sender into a box of neurons, [1, senders]."""
    size = int(np.prod(source))
    if not isinstance(synapse, ConvSynapse):
        counts = (synapse.weight[slice(*box[0])] != 0).sum(0, dtype=np.int64)
        return sparse.csr_matrix(counts[None])
    rows, columns = (axis_taps(synapse, source, axis, box[axis]) >= 0 for axis in (1, 2))
    present = np.zeros((source[0], *synapse.weight.shape[2:]), np.int64)
    inputs, outputs = synapse.weight.shape[1], synapse.weight.shape[0] // synapse.groups
    for group in range(*groups_of(synapse, box[0])):
        span = slice(max(box[0][0], group * outputs), min(box[0][1], (group + 1) * outputs))
        present[group * inputs : (group + 1) * inputs] += (synapse.weight[span] != 0).sum(0, dtype=np.int64)
    used_rows, used_columns = np.flatnonzero(rows.any(1)), np.flatnonzero(columns.any(1))
    reach = np.einsum(
        "yk,ckl,xl->cyx",
        rows[used_rows].astype(np.int64),
        present,
        columns[used_columns].astype(np.int64),
        optimize=True,
    )
    where = (np.arange(source[0])[:, None, None] * source[1] + used_rows[:, None]) * source[2] + used_columns
    found = reach.ravel() != 0
    return sparse.csr_matrix(
        (reach.ravel()[found], where.ravel()[found], np.array([0, int(found.sum())])), shape=(1, size), dtype=np.int64
    )


def _sender(
    owner: NDArray[np.int64], reached: list[tuple[NDArray[np.int64], sparse.csr_matrix]], places: Counts
) -> _Sender:
    """owner: core of each neuron. reached: numbers of the cores of each layer that reads them, and which neurons reach which."""
    size = len(owner)
    sums = np.zeros((4, size), np.int64)
    for numbers, pattern in reached:
        entries = pattern.tocoo()
        away = np.abs(places[numbers[entries.row]] - places[owner[entries.col]])
        inside = away[:, 0] == 0
        for row, values in enumerate((np.ones(len(inside)), away[:, 1] * inside, away[:, 2] * inside, ~inside)):
            sums[row] += np.bincount(entries.col, values, size).astype(np.int64)
    cores = np.unique(owner)
    row_of = np.searchsorted(cores, owner)

    def on_cores(values: Counts) -> sparse.csr_matrix:
        return sparse.csr_matrix((values, (row_of, np.arange(size))), shape=(len(cores), size), dtype=np.int64)

    return _Sender(on_cores(np.ones(size, np.int64)), *(on_cores(values) for values in sums))
