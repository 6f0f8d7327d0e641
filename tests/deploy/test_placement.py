"""Placement: PilotNet's printed table, limits that are never exceeded, and every number against slow lists of connections."""

from collections import defaultdict
from dataclasses import replace
from itertools import product
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pilotnet import PRINTED, pilotnet

from hardspike.deploy.block_kernels import expand_block_kernel, split_block_kernel
from hardspike.deploy.placement import LayerPlacement, Placement, place
from hardspike.deploy.placement_demand import stored_weight_bits
from hardspike.deploy.placement_loihi1 import list_words
from hardspike.deploy.process_graph import (
    ConvSynapse,
    DenseSynapse,
    GraphLayer,
    InputContract,
    NeuronGroup,
    ProcessGraph,
    Synapse,
)
from hardspike.hw_profiles.profile import Cores, Profile, load_profile
from hardspike.snn.architecture import INPUT, Shape
from hardspike.snn.errors import DoesNotFitError, SettingsError

LOIHI1, LOIHI2 = load_profile("loihi1"), load_profile("loihi2")
NUMERICS = LOIHI2.numerics


@pytest.mark.parametrize(("with_input_neurons", "cores"), [(False, 61), (True, 74)])
def test_pilotnet_takes_the_cores_that_lava_printed(with_input_neurons: bool, cores: int) -> None:
    made = place(pilotnet(with_input_neurons=with_input_neurons), LOIHI2)
    assert len(made.cores) == cores and made.chips == 1
    for layer in made.layers:
        neurons, words, count = PRINTED["input" if layer.name == "pixels" else layer.name]
        assert len(layer.cores) == count, layer.name
        mean = sum(core.demand.synapse_words for core in layer.cores) // count
        if layer.name == "fc1":
            assert mean == words and sum(core.demand.neurons for core in layer.cores) // count == neurons
        else:
            assert (layer.largest.neurons, mean) == (neurons, words), layer.name
    assert {layer.name: layer.binding for layer in made.layers}["conv1"] == "neurons"
    assert {layer.name: layer.binding for layer in made.layers}["fc1"] == "synapse_words"


def _axis(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


@st.composite
def _graphs(draw: st.DrawFn) -> ProcessGraph:
    """Branches, strides, groups, dilation, two synapses from one source, convolutions and dense layers."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shapes: dict[str, Shape] = {
        INPUT: (draw(st.sampled_from((1, 2, 4))), draw(st.integers(3, 7)), draw(st.integers(3, 7)))
    }
    layers: list[GraphLayer] = []
    bits = draw(st.sampled_from((8, 6, 4, 2)))

    def weight(*shape: int) -> np.ndarray:
        low, high = 1 - (1 << (bits - 1)), (1 << (bits - 1)) - 1
        return ((1 << (9 - bits)) * rng.integers(low, high + 1, shape)).astype(np.int32)

    def convolution(source: str) -> ConvSynapse | None:
        shape = shapes[source]
        kernel = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
        groups = draw(st.sampled_from([g for g in (1, 2) if shape[0] % g == 0]))
        stride, dilation = (draw(st.integers(1, 3)), draw(st.integers(1, 2))), (draw(st.integers(1, 2)), 1)
        padding = (draw(st.integers(0, 1)), draw(st.integers(0, 2)))
        sides = [_axis(*values) for values in zip(shape[1:], kernel, stride, padding, dilation, strict=True)]
        if min(sides) < 1:
            return None
        channels = groups * draw(st.integers(1, 4))
        made = weight(channels, shape[0] // groups, *kernel)
        if draw(st.booleans()) and min(shape[1:]) >= 2 * max(kernel):  # an average pool, folded
            twice = (2 * stride[0], 2 * stride[1])
            return ConvSynapse(source=source, weight=expand_block_kernel(made, (2, 2)), stride=twice, groups=groups)
        return ConvSynapse(source=source, weight=made, stride=stride, padding=padding, dilation=dilation, groups=groups)

    def add(name: str, *synapses: Synapse, spiking: bool = True) -> None:
        shapes[name] = synapses[0].output_shape(shapes[synapses[0].source])
        neurons = NeuronGroup(threshold=100, bias=np.zeros(1, np.int32), spiking=spiking)
        layers.append(GraphLayer(name=name, shape=shapes[name], synapses=synapses, neurons=neurons))

    source = INPUT
    for index in range(draw(st.integers(0, 2))):
        made = convolution(source)
        if made is None:
            break
        again = [replace(made, weight=weight(*made.weight.shape))] if draw(st.booleans()) else []
        add(f"conv{index}", made, *again)
        source = f"conv{index}"
    units = draw(st.integers(1, 12))
    extra = [DenseSynapse(source=INPUT, weight=weight(units, prod(shapes[INPUT])))] if draw(st.booleans()) else []
    add("hidden", DenseSynapse(source=source, weight=weight(units, prod(shapes[source]))), *extra)
    add("out", DenseSynapse(source="hidden", weight=weight(3, units)), spiking=False)
    contract = InputContract(shape=shapes[INPUT], coding="graded", message_bits=4)
    return ProcessGraph(
        input=contract, layers=tuple(layers), time_steps=2, numerics=NUMERICS, profile="loihi2", weight_bits=bits
    )


def _profile(base: Profile, draw: st.DrawFn) -> Profile:
    cores = Cores(
        packing=base.cores.packing if base.cores is not None else None,
        neurons_per_core=draw(st.integers(1, 60)),
        synapse_words=draw(st.sampled_from((30, 100, 400, 4000))),
        axons_in=draw(st.sampled_from((40, 100, 500, None))),
        axons_out=draw(st.sampled_from((60, 200, 2000, None))),
        cores_per_chip=draw(st.sampled_from((3, 8, 64))),
        cores_per_tile=draw(st.integers(1, 4)),
        tiles_high=draw(st.sampled_from((None, 2, 3))),
        chips_max=draw(st.sampled_from((2, 10**6))),
    )
    return replace(base, cores=cores)


PROFILES = st.composite(lambda draw: _profile(draw(st.sampled_from((LOIHI1, LOIHI2))), draw))


Position = tuple[int, ...]
Entries = dict[Position, list[tuple[Position, Position]]]


def _connections(synapse: Synapse, source: Shape, target: Shape) -> Entries:
    """Each target neuron's (source neuron, place in the weight), one by one."""
    found: Entries = defaultdict(list)
    if isinstance(synapse, DenseSynapse):
        senders = list(np.ndindex(*source))
        for unit in range(target[0]):
            found[(unit,)] = [(sender, (unit, number)) for number, sender in enumerate(senders)]
        return found
    out, inputs, height, width = synapse.weight.shape
    for o, r, c in np.ndindex(*target):
        for i, ky, kx in product(range(inputs), range(height), range(width)):
            y = r * synapse.stride[0] - synapse.padding[0] + ky * synapse.dilation[0]
            x = c * synapse.stride[1] - synapse.padding[1] + kx * synapse.dilation[1]
            if 0 <= y < source[1] and 0 <= x < source[2]:
                channel = o // (out // synapse.groups) * inputs + i
                found[(o, r, c)].append(((channel, y, x), (o, i, ky, kx)))
    return found


def _shares(synapse: Synapse, source: Shape, packing: str | None) -> tuple[Synapse, Shape, dict[Position, Position]]:
    """The synapse as stored, the shape of what its senders share, and what each sender shares: on Loihi 1 only, equal weights."""
    alone = {sender: sender for sender in np.ndindex(*source)}
    if packing != "loihi1":
        return synapse, source, alone
    if isinstance(synapse, DenseSynapse):
        columns: dict[bytes, int] = {}
        number = {
            sender: (columns.setdefault(synapse.weight[:, index].tobytes(), len(columns)),)
            for index, sender in enumerate(np.ndindex(*source))
        }
        small = np.stack([np.frombuffer(column, np.int32) for column in columns], 1)
        return replace(synapse, weight=small), (len(columns),), number
    (rows, across), small, stride, padding = split_block_kernel(synapse, source)
    pooled = (source[0], source[1] // rows, source[2] // across)
    within = {(c, y, x): (c, y // rows, x // across) for c, y, x in alone}
    return replace(synapse, weight=small, stride=stride, padding=padding), pooled, within


def _owner(layer: LayerPlacement) -> dict[tuple[int, ...], int]:
    """Core of each neuron; every neuron has exactly one."""
    owner: dict[tuple[int, ...], int] = {}
    for index, core in enumerate(layer.cores):
        for neuron in product(*(range(*span) for span in core.box)):
            assert neuron not in owner
            owner[neuron] = index
    assert len(owner) == prod(layer.shape)
    return owner


def _words_loihi1(synapse: Synapse, entries: Entries, layer: LayerPlacement, index: int, bits: int) -> int:
    """Lists of a core, written out: one per axon of a dense layer, one per pattern of taps of a convolution."""

    def in_words(weights: int, each: int) -> int:
        return sum(-(-(min(64, weights - start) * each + 10) // 64) for start in range(0, weights, 64))

    box = layer.cores[index].box
    axons: dict[tuple[int, ...], list[tuple[int, tuple[int, ...]]]] = defaultdict(list)
    rows, columns = (box[1][1] - box[1][0], box[2][1] - box[2][0]) if len(box) == 3 else (1, 1)
    for neuron in product(*(range(*span) for span in box)):
        for sender, place_in_weight in entries[neuron]:
            if isinstance(synapse, DenseSynapse):
                axons[sender].append((0, place_in_weight))
                continue
            group = sender[0] // synapse.weight.shape[1]
            compartment = (
                (neuron[0] - box[0][0]) * rows * columns + (neuron[1] - box[1][0]) * columns + neuron[2] - box[2][0]
            )
            axons[(group, *sender[1:])].append((compartment, place_in_weight))
    if isinstance(synapse, DenseSynapse):
        return sum(in_words(len(found), bits) for found in axons.values())
    lists: dict[tuple[object, ...], int] = {}
    largest: dict[int, int] = defaultdict(int)
    size = synapse.weight.shape[0] // synapse.groups
    for (group, *_), found in axons.items():
        first = max(box[0][0], group * size) - box[0][0]
        inside = [(compartment - first * rows * columns, weight) for compartment, weight in found]
        base = min(compartment for compartment, _ in inside)
        taps = frozenset(weight[2:] for _, weight in inside)
        lists[(group, taps, base - base % 256)] = len(found)
        largest[group] = max(largest[group], *(compartment - base % 256 for compartment, _ in inside))
    total = 0
    for key, count in lists.items():
        group = key[0]
        assert isinstance(group, int)
        index_bits = min(b for b in (0, 6, 7, 8, 9, 10, 11, 12) if (1 << b) > largest[group])
        total += in_words(count, bits + index_bits)
    return total


def _check(graph: ProcessGraph, profile: Profile, made: Placement) -> None:
    cores = profile.cores
    assert cores is not None
    limits = dict(
        neurons=cores.neurons_per_core,
        synapse_words=cores.synapse_words,
        axons_in=cores.axons_in,
        axons_out=cores.axons_out,
    )
    shapes, placed = graph.shapes, {layer.name: layer for layer in made.layers}
    owners = {name: _owner(layer) for name, layer in placed.items()}
    axons_in: dict[tuple[str, int], int] = defaultdict(int)
    axons_out: dict[tuple[str, int], int] = defaultdict(int)
    words: dict[tuple[str, int], int] = defaultdict(int)
    for layer in graph.layers:
        for synapse in layer.synapses:
            stored, pooled, share = _shares(synapse, shapes[synapse.source], cores.packing)
            entries = _connections(stored, pooled, layer.shape)
            sharing: dict[Position, set[int]] = defaultdict(set)
            for sender, shared in share.items():
                if synapse.source != INPUT:
                    sharing[shared].add(owners[synapse.source][sender])
            taken: dict[int, set[tuple[int, ...]]] = defaultdict(set)
            sent: dict[tuple[int, int], set[tuple[int, ...]]] = defaultdict(set)
            for neuron, found in entries.items():
                core = owners[layer.name][neuron]
                for sender, _ in found:
                    axon = sender
                    if isinstance(synapse, ConvSynapse):
                        axon = (sender[0] // synapse.weight.shape[1], *sender[1:])
                    taken[core].add(axon)
                    for sender_core in sharing[sender]:
                        sent[sender_core, core].add(axon)
            for core, axons in taken.items():
                axons_in[layer.name, core] += len(axons)
            for (sender_core, _), axons in sent.items():
                axons_out[synapse.source, sender_core] += len(axons)
            if cores.packing == "loihi1":
                for core in range(len(placed[layer.name].cores)):
                    words[layer.name, core] += _words_loihi1(
                        stored, entries, placed[layer.name], core, placed[layer.name].weight_bits
                    )
    for number, core in enumerate(made.cores):
        index = number - placed[core.layer].cores[0].number
        assert core.number == number
        assert (
            core.chip == number // cores.cores_per_chip
            and core.tile == number % cores.cores_per_chip // cores.cores_per_tile
        )
        if cores.tiles_high is not None:
            assert core.tile == core.column * cores.tiles_high + core.row and 0 <= core.row < cores.tiles_high
        assert core.demand.neurons == sum(1 for owner in owners[core.layer].values() if owner == index)
        assert core.demand.axons_in == axons_in[core.layer, index]
        assert core.demand.axons_out == axons_out[core.layer, index]
        if cores.packing == "loihi1":
            assert core.demand.synapse_words == words[core.layer, index]
        for name, limit in limits.items():
            assert limit is None or getattr(core.demand, name) <= limit
    assert made.chips <= cores.chips_max


def test_no_limit_is_exceeded_and_every_number_is_true() -> None:
    outcomes = {"placed": 0, "refused": 0}

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(_graphs(), PROFILES())
    def check(graph: ProcessGraph, profile: Profile) -> None:
        try:
            made = place(graph, profile, check_messages=False)
        except DoesNotFitError as error:
            outcomes["refused"] += 1
            assert "\n" not in str(error) and "cores." in str(error)
            return
        outcomes["placed"] += 1
        _check(graph, profile, made)
        assert place(graph, profile, check_messages=False) == made

    check()
    assert min(outcomes.values()) >= 10


def _graph(
    image: Shape, *layers: tuple[str, Shape | None, Synapse | None], bits: int = 8, coding: str = "graded"
) -> ProcessGraph:
    made = []
    shapes = {INPUT: image}
    for index, (name, shape, synapse) in enumerate(layers):
        shapes[name] = synapse.output_shape(shapes[synapse.source]) if synapse is not None else shape or image
        neurons = NeuronGroup(threshold=100, bias=np.zeros(1, np.int32), spiking=index + 1 < len(layers))
        made.append(GraphLayer(name=name, shape=shapes[name], synapses=(synapse,) if synapse else (), neurons=neurons))
    contract = InputContract(shape=image, coding=coding, message_bits=4 if coding == "graded" else 1)  # type: ignore[arg-type]
    return ProcessGraph(
        input=contract, layers=tuple(made), time_steps=2, numerics=NUMERICS, profile="loihi2", weight_bits=bits
    )


def _dense(source: str, units: int, inputs: int) -> DenseSynapse:
    number = np.arange(inputs)  # no two columns alike, up to 8000
    digits = [2 * (number // 20**place % 20) - 20 for place in range(3)]
    weight = np.stack((digits + [number * 0] * units)[:units])
    weight = weight.astype(np.int32)
    weight.flat[0], weight.flat[-1] = -256, 254
    return DenseSynapse(source=source, weight=weight)


def _conv(source: str, channels: int, inputs: int, kernel: int = 3, **geometry: object) -> ConvSynapse:
    weight = np.full((channels, inputs, kernel, kernel), 2, np.int32)
    weight.flat[0] = -254
    return ConvSynapse(source=source, weight=weight, **geometry)  # type: ignore[arg-type]


@pytest.mark.parametrize(("inputs", "units"), [(256, 454), (784, 142), (1024, 118), (4096, 30)])
def test_how_many_dense_neurons_a_loihi1_core_holds(inputs: int, units: int) -> None:
    def cores(size: int) -> int:
        graph = _graph((inputs,), ("out", None, _dense(INPUT, size, inputs)))
        return len(place(graph, LOIHI1, check_messages=False).cores)

    assert (cores(units), cores(units + 1)) == (1, 2)


def test_words_of_a_list() -> None:
    for weights, bits in product(range(200), range(1, 21)):
        blocks = [min(64, weights - start) for start in range(0, weights, 64)]
        assert list_words(weights, bits) == sum(-(-(count * bits + 10) // 64) for count in blocks)


def test_a_core_of_many_positions_keeps_its_lists_more_than_once() -> None:
    graph = _graph((2, 21, 23), ("conv", None, _conv(INPUT, 2, 2, padding=(1, 1))), ("out", None, _conv("conv", 1, 2)))
    made = place(graph, LOIHI1, check_messages=False)
    _check(graph, LOIHI1, made)
    assert made.layers[0].largest.neurons > 512
    few = _graph((2, 12, 12), ("conv", None, _conv(INPUT, 2, 2, padding=(1, 1))), ("out", None, _conv("conv", 1, 2)))
    assert (
        made.layers[0].largest.synapse_words > place(few, LOIHI1, check_messages=False).layers[0].largest.synapse_words
    )


def test_long_messages_take_two_slots_of_the_senders_table() -> None:
    def slots(channels: int, side: int) -> int:
        graph = _graph(
            (1, side, side), ("a", None, _conv(INPUT, channels, 1, 1)), ("b", None, _conv("a", 1, channels, 1))
        )
        a, _ = place(graph, LOIHI1, check_messages=False).layers
        return sum(core.demand.axons_out for core in a.cores) // (side * side)

    assert (slots(32, 5), slots(33, 5), slots(1, 32), slots(1, 33)) == (1, 2, 1, 2)


def test_bits_as_stored() -> None:
    def bits(*values: int) -> int:
        return stored_weight_bits(np.array(values, np.int32), (8, 6, 5, 4, 3, 2), "x")

    assert bits(-256, 254) == 8 and bits(-256, 128) == 2 and bits(-256, 192) == 3
    assert bits(0, 255) == 8 and bits(-255, 0) == 8 and bits(0, 0) == 2 and bits(0, 192) == 2
    assert bits(-64, 62) == 6 and bits(-128, 126) == 8  # no 7 on Loihi 1
    for low, high in product(range(-16, 17), repeat=2):
        values = (min(low, high), max(low, high))
        step = max((s for s in (1, 2, 4, 8, 16) if all(value % s == 0 for value in values)), default=1)
        codes = [value // step for value in values]
        mixed = codes[0] < 0 < codes[1]
        largest = max(map(abs, codes))
        if mixed:
            holds = [b for b in (2, 3, 4, 5, 6, 8) if -(1 << b - 1) <= codes[0] and codes[1] < 1 << b - 1]
        else:
            holds = [b for b in (2, 3, 4, 5, 6, 8) if largest < 1 << b]
        assert bits(*values) == (holds[0] if any(values) else 2), values
    with pytest.raises(DoesNotFitError, match="layer 'x': weights -256..255 in steps of 1 need 9 bits"):
        bits(-256, 255)


assert LOIHI1.cores is not None
SMALL_SYSTEM = replace(LOIHI1, cores=replace(LOIHI1.cores, neurons_per_core=1, cores_per_chip=1, chips_max=2))


@pytest.mark.parametrize(
    ("graph", "profile", "message"),
    [
        (_graph((5000,), ("out", None, _dense(INPUT, 3, 5000))), LOIHI1,
         "layer 'out': one neuron on a core of its own needs 5000 axons in, over 4096 .loihi1: cores.axons_in.; make the layer before"),
        (_graph((12001,), ("out", None, _dense(INPUT, 3, 12001))), LOIHI2,
         "layer 'out': one neuron .* needs 12001 synapse words, over 12000 .loihi2: cores.synapse_words."),
        (_graph((9,), ("out", None, _dense(INPUT, 3, 9))), SMALL_SYSTEM,
         "network: 3 cores on 3 chips, over 2 .loihi1: cores.chips_max.; layer 'out' takes 3"),
        (_graph((300,), ("out", None, _dense(INPUT, 3, 300))), load_profile("truenorth"),
         "layer 'out': 21 different weights, over 4 .truenorth: cores.axon_types."),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(graph: ProcessGraph, profile: Profile, message: str) -> None:
    with pytest.raises(DoesNotFitError, match=message):
        place(graph, profile, check_messages=False)


def test_messages_the_chip_does_not_send() -> None:
    graph = _graph((9,), ("out", None, _dense(INPUT, 3, 9)))
    for name in ("loihi1", "speck", "truenorth"):
        with pytest.raises(DoesNotFitError, match="layer 'input': 4-bit graded messages exceed 1"):
            place(graph, load_profile(name))
    assert len(place(graph, LOIHI2).cores) == 1


@pytest.mark.parametrize("name", ["spinnaker2", "cmos45"])
def test_a_profile_without_a_rule_places_nothing(name: str) -> None:
    graph = _graph((9,), ("out", None, _dense(INPUT, 3, 9)))
    with pytest.raises(SettingsError, match=f"profile '{name}' says not how its cores are filled"):
        place(graph, load_profile(name))


def test_speck_gives_each_layer_a_core_that_holds_it() -> None:
    image = (2, 32, 32)
    layers = [
        ("a", None, _conv(INPUT, 16, 2, padding=(1, 1))),
        ("b", None, _conv("a", 64, 16, stride=(2, 2), padding=(1, 1))),
        ("c", None, _conv("b", 64, 64, stride=(2, 2), padding=(1, 1))),
        ("out", None, _dense("c", 10, 64 * 64)),
    ]
    made = place(_graph(image, *layers, coding="binary"), load_profile("speck"))
    # kernel c * 2^(ceil log2 9 + ceil log2 f), neurons f * 2^(2 ceil log2 side); the last layer is a convolution of 8 x 8.
    assert [layer.largest.synapse_words for layer in made.layers] == [2 * 2**8, 16 * 2**10, 64 * 2**10, 64 * 2**10]
    assert [layer.largest.neurons for layer in made.layers] == [16 * 2**10, 64 * 2**8, 64 * 2**6, 10]
    numbers = [core.number for core in made.cores]
    assert len(set(numbers)) == 4 and set(numbers[2:]) == {5, 6}  # only two cores have that much kernel memory
    again = [*layers[:3], ("d", None, _conv("c", 64, 64, padding=(1, 1))), ("out", None, _dense("d", 10, 64 * 64))]
    with pytest.raises(DoesNotFitError, match=r"layer 'out': only cores \[5, 6\] hold it, and other layers need them"):
        place(_graph(image, *again, coding="binary"), load_profile("speck"))
    large, last = _conv("a", 128, 64, padding=(1, 1)), _dense("b", 2, 128 * 32 * 32)
    wide = [("a", None, _conv(INPUT, 64, 2, padding=(1, 1))), ("b", None, large), ("out", None, last)]
    with pytest.raises(
        DoesNotFitError, match=r"layer 'b': 131072 words of kernel memory, over 65536 of the largest core"
    ):
        place(_graph(image, *wide, coding="binary"), load_profile("speck"))


def test_truenorth_takes_few_weights_and_one_destination() -> None:
    truenorth = load_profile("truenorth")
    positive = DenseSynapse(source=INPUT, weight=np.full((300, 200), 2, np.int32))
    made = place(_graph((200,), ("out", None, positive), coding="binary"), truenorth)
    assert [core.demand.neurons for core in made.cores] == [150, 150] and made.layers[0].largest.axons_in == 200
    two_signs = np.where(np.arange(9 * 200).reshape(9, 200) % 2, 2, -2).astype(np.int32)
    with pytest.raises(DoesNotFitError, match=r"layer 'out': one neuron .* needs 400 axons in, over 256"):
        place(_graph((200,), ("out", None, replace(positive, weight=two_signs)), coding="binary"), truenorth)
    reader = DenseSynapse(source="a", weight=two_signs[:, :9])
    with pytest.raises(DoesNotFitError, match=r"layer 'a': each neuron would send to 2 axons, over 1 .truenorth"):
        first = replace(positive, weight=positive.weight[:9])
        place(_graph((200,), ("a", None, first), ("out", None, reader), coding="binary"), truenorth)
    many = (2 * np.arange(-4, 5)).astype(np.int32).repeat(200).reshape(9, 200)
    with pytest.raises(DoesNotFitError, match=r"layer 'out': 8 different weights, over 4 .truenorth: cores.axon_types"):
        place(_graph((200,), ("out", None, replace(positive, weight=many)), coding="binary"), truenorth)


def test_a_table_says_what_a_report_needs() -> None:
    made = place(pilotnet(with_input_neurons=False), LOIHI2)
    row = made.table()[0]
    assert (row["cores"], row["neurons"], row["synapse_words"], row["binding"]) == (
        25,
        (3072, 3168),
        (81, 12000),
        "neurons",
    )
    assert row["words_once"] == 81 and row["replicated_words"] == 24 * 81
    mean, most = made.utilisation()["neurons"]
    assert 0 < mean < most == 3072 / 3168


def test_pixels_that_share_an_entry_may_lie_on_two_cores() -> None:
    pooled = expand_block_kernel(_conv("a", 3, 4, 1).weight, (2, 2))
    second = ConvSynapse(source="a", weight=pooled, stride=(2, 2))
    graph = _graph(
        (1, 6, 6), ("a", None, _conv(INPUT, 4, 1, 1)), ("b", None, second), ("out", None, _dense("b", 4, 27))
    )
    assert LOIHI1.cores is not None
    half = replace(LOIHI1, cores=replace(LOIHI1.cores, neurons_per_core=72))
    made = place(graph, half, check_messages=False)
    assert [core.box[2] for core in made.layers[0].cores] == [(0, 3), (3, 6)]
    assert [core.demand.axons_out for core in made.layers[0].cores] == [6, 6]  # three rows of two shared pixels
    _check(graph, half, made)
