"""`.net` files: what is written is read back, and bad files end in one clear line."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from random_graphs import CASES, NUMERICS, GraphCase, build

from hardspike.deploy.netx_file import read_netx, write_netx
from hardspike.deploy.process_graph import DenseSynapse, GraphLayer, InputContract, NeuronGroup, ProcessGraph
from hardspike.snn.architecture import INPUT
from hardspike.snn.errors import DoesNotFitError, FileError, HardspikeError, UnsupportedLayerError


def assert_equal(found: ProcessGraph, expected: ProcessGraph) -> None:
    for field in ("input", "time_steps", "numerics", "profile", "weight_bits"):
        assert getattr(found, field) == getattr(expected, field), field
    assert len(found.layers) == len(expected.layers)
    for mine, own in zip(found.layers, expected.layers, strict=True):
        assert (mine.name, mine.shape, mine.scale) == (own.name, own.shape, own.scale)
        for field in ("threshold", "bias_exponent", "current_decay", "potential_decay", "spiking"):
            assert getattr(mine.neurons, field) == getattr(own.neurons, field), field
        assert np.array_equal(mine.neurons.bias, own.neurons.bias)
        assert mine.neurons.bias.dtype == np.int32
        assert len(mine.synapses) == len(own.synapses)
        for my, its in zip(mine.synapses, own.synapses, strict=True):
            assert type(my) is type(its) and my.source == its.source
            assert np.array_equal(my.weight, its.weight) and my.weight.dtype == np.int32
            for field in ("stride", "padding", "dilation", "groups"):
                assert getattr(my, field, None) == getattr(its, field, None), field


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_comes_back_whole(case: GraphCase, tmp_path: Path) -> None:
    graph = build(case)
    write_netx(tmp_path / "a.net", graph)
    assert_equal(read_netx(tmp_path / "a.net"), graph)


def current_graph() -> ProcessGraph:
    """An input layer with neurons, as lava-dl's own networks have."""
    first = GraphLayer(
        name="pixels", shape=(2, 4, 3), synapses=(), neurons=NeuronGroup(threshold=20, bias=zeros(2, 1, 1))
    )
    weight = np.array([[2, -4] * 12], dtype=np.int32)
    neurons = NeuronGroup(threshold=9, bias=zeros(1), potential_decay=77)
    last = GraphLayer(name="all", shape=(1,), synapses=(DenseSynapse(source="pixels", weight=weight),), neurons=neurons)
    return ProcessGraph(
        input=InputContract(shape=(2, 4, 3), coding="current", message_bits=0),
        layers=(first, last),
        time_steps=3,
        numerics=NUMERICS,
        profile="loihi2",
    )


def zeros(*shape: int) -> Any:
    return np.zeros(shape, dtype=np.int32)


def test_input_layer_with_neurons_comes_back_whole(tmp_path: Path) -> None:
    write_netx(tmp_path / "a.net", current_graph())
    assert_equal(read_netx(tmp_path / "a.net"), current_graph())
    with h5py.File(tmp_path / "a.net") as file:
        assert [file[f"layer/{i}/type"][0] for i in range(3)] == [b"input", b"flatten", b"dense"]


def test_bias_per_position_is_stored_as_width_height_channel(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.position_bias)
    graph = build(case)
    write_netx(tmp_path / "a.net", graph)
    bias = graph.layers[0].neurons.bias
    with h5py.File(tmp_path / "a.net") as file:
        stored = file["layer/1/bias"][()]
    assert stored.shape == bias.shape[::-1]
    assert stored[4, 2, 1] == bias[1, 2, 4]


def foreign(path: Path, **layers: dict[str, Any]) -> Path:
    """A file as others write it: no attributes, floats, scalars for pairs."""
    neuron = {"type": b"LOIHI", "iDecay": 4096, "vDecay": 128, "vThMant": 80, "refDelay": 1}
    with h5py.File(path, "w") as file:
        for index, content in enumerate(layers.values()):
            group = file.create_group(f"layer/{index}")
            for key, value in content.items():
                if value is not None:
                    group[key] = value
            if content["type"] != b"input" and "neuron" not in content:
                for key, value in neuron.items():
                    group[f"neuron/{key}"] = value
    return path


CONV = {
    "type": b"conv",
    "shape": [2, 2, 1],
    "weight": np.arange(-18, 18, 2, dtype=np.float32).reshape(2, 1, 3, 3, 1),
    "stride": 1,
    "padding": [1, 0],
    "dilation": 1,
    "groups": 1,
    "bias": np.array([3.0, -4.0], dtype=np.float32),
}
DENSE = {"type": b"dense", "shape": [2, 1, 1], "weight": np.array([2.0, -4.0, 6.0, 8.0], dtype=np.float32)}
INPUT_LAYER = {"type": b"input", "shape": [1, 2, 3]}


def test_reads_what_others_write(tmp_path: Path) -> None:
    path = foreign(tmp_path / "a.net", input=INPUT_LAYER, conv=CONV)
    graph = read_netx(path, time_steps=4)
    (layer,) = graph.layers
    assert graph.input == InputContract(shape=(1, 2, 3), coding="graded", message_bits=8)
    assert graph.time_steps == 4
    synapse = layer.synapses[0]
    assert synapse.weight.tolist() == CONV["weight"].astype(int)[..., 0].tolist()
    assert (synapse.padding, layer.shape, layer.name) == ((1, 0), (2, 2, 1), "conv1")  # type: ignore[union-attr]
    assert layer.neurons.bias.tolist() == [[[3]], [[-4]]]
    assert (layer.neurons.threshold, layer.neurons.potential_decay, layer.neurons.spiking) == (80, 128, True)
    assert read_netx(path, time_steps=4, coding="binary").input.message_bits == 1
    assert read_netx(path, time_steps=4, message_bits=5).input.message_max == 31


def test_dense_layer_without_neurons_accumulates_in_its_current(tmp_path: Path) -> None:
    path = foreign(tmp_path / "a.net", dense=DENSE | {"neuron": None})
    graph = read_netx(path, time_steps=2, input_shape=(2,))
    neurons = graph.output.neurons
    assert (neurons.current_decay, neurons.potential_decay, neurons.spiking) == (0, 4096, False)
    assert graph.output.synapses[0].weight.tolist() == [[2, -4], [6, 8]]


def test_largest_threshold_of_the_last_layer_is_a_readout(tmp_path: Path) -> None:
    graph = build(CASES[0])
    write_netx(tmp_path / "a.net", graph)
    with h5py.File(tmp_path / "a.net") as file:
        last = file["layer/4/neuron"]
        assert (last["vThMant"][()], last["iDecay"][()], last["vDecay"][()]) == (131071, 4096, 0)
    assert not read_netx(tmp_path / "a.net").output.neurons.spiking


Edit = Callable[[Any], None]


def _put(name: str, value: Any) -> Edit:
    def edit(file: Any) -> None:
        if name in file:
            del file[name]
        file[name] = value

    return edit


def _drop(name: str) -> Edit:
    def edit(file: Any) -> None:
        del file[name]

    return edit


def _attribute(name: str, value: Any) -> Edit:
    def edit(file: Any) -> None:
        file.attrs[name] = value

    return edit


def _claim(name: str) -> Edit:
    """A dataset of 2^40 values, of which none is stored."""

    def edit(file: Any) -> None:
        del file[name]
        file.create_dataset(name, shape=(1 << 40,), dtype="i4", chunks=True)

    return edit


# In the file of the first case: 0 input, 1 conv0, 2 conv1, 3 flatten, 4 output.
BAD_FILES: tuple[tuple[Edit, type[HardspikeError], str], ...] = (
    (_drop("layer"), FileError, "no group 'layer'"),
    (_drop("layer/2"), FileError, "no group 'layer/2', but 4 layers"),
    (_drop("layer/1/weight"), FileError, r"layer 1 \(conv\) has no dataset 'weight'"),
    (_drop("layer/1/stride"), FileError, "has no dataset 'stride'"),
    (_drop("layer/2/neuron"), FileError, r"layer 2 \(conv\) has no group 'neuron'"),
    (_drop("layer/2/neuron/vThMant"), FileError, "no dataset 'neuron/vThMant'"),
    (_drop("layer/4/type"), FileError, r"layer 4 \(\?\) has no dataset 'type'"),
    (_drop("layer/0"), FileError, "no group 'layer/0'"),
    (_drop("simulation"), FileError, "give time_steps"),
    (_put("layer/1/type", 3), FileError, "'type' is not one short string"),
    (_put("layer/1/weight", b"text"), FileError, "must hold numbers"),
    (_put("layer/1/weight", np.zeros((2, 3), dtype=np.int32)), FileError, r"weight has shape \(2, 3\)"),
    (_claim("layer/1/weight"), FileError, "dataset 'weight' claims 1099511627776 values"),
    (_put("layer/4/weight", np.zeros(3, dtype=np.int32)), FileError, r"weight has shape \(3,\)"),
    (_put("layer/1/bias", np.zeros(5, dtype=np.int32)), FileError, r"bias has shape \(5,\)"),
    (_put("layer/1/stride", [1, 0]), FileError, "stride and dilation must be at least 1"),
    (_put("layer/1/stride", [1, 1, 1]), FileError, "one or two numbers"),
    (_put("layer/1/groups", [1, 1]), FileError, "must be one number"),
    (_put("layer/0/shape", [2, 0, 5]), FileError, r"shape \(2, 0, 5\)"),
    (_put("layer/1/bias", np.full(6, 2**40)), FileError, "beyond 32 bits"),
    (_put("layer/1/bias", np.full(6, np.nan)), DoesNotFitError, "bias nan is no integer"),
    (_attribute("coding", np.bytes_("morse")), FileError, "coding 'morse' does not fit; .* graded or binary"),
    (_attribute("constant_channels", 2), FileError, "2 constant channels of 2"),
    (_attribute("message_bits", 99), FileError, r"99 message bits .* 1\.\.24"),
    (_attribute("weight_bits", "8"), FileError, "attribute 'weight_bits'"),
    (_put("layer/2/type", b"pool"), UnsupportedLayerError, r"layer 2 \(pool\) is not supported.*conv, flatten, dense"),
    (_put("layer/4/type", b"dense_rec"), UnsupportedLayerError, r"\(dense_rec\) is not supported"),
    (_put("layer/2/type", b"concat"), UnsupportedLayerError, r"\(concat\) is not supported"),
    (_put("layer/2/type", b"input"), UnsupportedLayerError, r"layer 2 \(input\) is not supported"),
    (_put("layer/1/neuron/type", b"SDNN"), UnsupportedLayerError, "neurons of type 'SDNN'; supported: CUBA, LOIHI"),
    (_put("layer/1/neuron/type", b"RF_PHASE"), UnsupportedLayerError, "neurons of type 'RF_PHASE'"),
    (_put("layer/1/neuron/refDelay", 2), UnsupportedLayerError, "neuron/refDelay = 2 is not supported; supported: 1"),
    (_put("layer/4/delay", [0, 0, 3, 0, 0]), UnsupportedLayerError, "delay = 3 is not supported; supported: 0"),
    (_put("layer/3/type", b"input"), UnsupportedLayerError, r"layer 3 \(input\)"),
    (_put("layer/1/neuron/iDecay", 5000), DoesNotFitError, r"current decay 5000 is outside 0\.\.4096"),
    (_put("layer/1/neuron/vThMant", 2**20), DoesNotFitError, "threshold 1048576 is outside"),
    (_put("layer/1/shape", [6, 7, 6]), UnsupportedLayerError, r"shape \(6, 7, 6\), but its synapse gives"),
    (_put("layer/4/shape", [6]), FileError, r"layer 4 \(dense\): weight has shape .* it must be \(6, inputs\)"),
)


@pytest.mark.parametrize(("edit", "error", "message"), BAD_FILES)
def test_bad_file_is_one_clear_line(edit: Edit, error: type[HardspikeError], message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.net"
    write_netx(path, build(CASES[0]))
    with h5py.File(path, "r+") as file:
        edit(file)
    with pytest.raises(error, match=message) as caught:
        read_netx(path)
    assert type(caught.value) is error
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_missing_flatten_and_misplaced_convolution_are_refused(tmp_path: Path) -> None:
    wide = DENSE | {"shape": [1], "weight": np.array([[2, -4, 6, 8]])}
    path = foreign(tmp_path / "a.net", input=INPUT_LAYER, conv=CONV, dense=wide)
    with pytest.raises(UnsupportedLayerError, match=r"layer 2 \(dense\) reads a layer of shape .* needs a flatten"):
        read_netx(path, time_steps=1)
    path = foreign(tmp_path / "b.net", dense=DENSE, conv=CONV)
    with pytest.raises(UnsupportedLayerError, match=r"layer 1 \(conv\) reads a flat layer"):
        read_netx(path, time_steps=1, input_shape=(2,))
    path = foreign(tmp_path / "c.net", conv=CONV)
    with pytest.raises(FileError, match="does not say its input's shape; give input_shape"):
        read_netx(path, time_steps=1)
    with pytest.raises(FileError, match="coding 'current' does not fit; its first layer takes graded or binary"):
        read_netx(path, time_steps=1, input_shape=(1, 2, 3), coding="current")
    path = foreign(tmp_path / "d.net", input=INPUT_LAYER)
    with pytest.raises(UnsupportedLayerError, match="holds no layer with neurons"):
        read_netx(path, time_steps=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": np.zeros((2, 2))}, "layer 'dense0': all weights are 0"),
        ({"weight": np.array([[-128, -3], [-2, -2]])}, "layer 'dense0': weights .* reach down to a power of two"),
        ({"weight": np.array([[300, 2], [2, 2]])}, "layer 'dense0': weights 2..300 exceed"),
        ({"weight": np.array([[3, -2], [2, 2]])}, "layer 'dense0': weight 3 is not a multiple of 2"),
        ({"bias": np.array([4096, 0])}, "layer 'dense0': largest bias 4096 is outside"),
    ],
)
def test_a_file_that_lava_would_change_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = foreign(tmp_path / "a.net", dense=DENSE | change)
    with pytest.raises(DoesNotFitError, match=message) as caught:
        read_netx(path, time_steps=1, input_shape=(2,))
    assert str(caught.value).startswith(str(path))


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such file; expected a .net file"):
        read_netx(tmp_path / "none.net")
    (tmp_path / "text.net").write_text("not HDF5 at all")
    with pytest.raises(FileError, match="not readable as HDF5"):
        read_netx(tmp_path / "text.net")
    with h5py.File(tmp_path / "empty.net", "w"):
        pass
    with pytest.raises(FileError, match="no group 'layer'"):
        read_netx(tmp_path / "empty.net")


def test_truncated_and_damaged_files_never_end_in_a_traceback(tmp_path: Path) -> None:
    write_netx(tmp_path / "a.net", build(CASES[10]))
    whole = (tmp_path / "a.net").read_bytes()
    damaged = tmp_path / "b.net"
    for length in range(0, len(whole) - 1, len(whole) // 60):
        damaged.write_bytes(whole[:length])
        with pytest.raises(FileError):
            read_netx(damaged)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        content = np.frombuffer(whole, dtype=np.uint8).copy()
        content[rng.integers(0, len(content), size=3)] = rng.integers(0, 256, size=3)
        damaged.write_bytes(content.tobytes())
        try:
            read_netx(damaged)
        except HardspikeError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 20


def _with_neurons(graph: ProcessGraph, index: int, **changes: Any) -> ProcessGraph:
    layers = list(graph.layers)
    layers[index] = replace(layers[index], neurons=replace(layers[index].neurons, **changes))
    return replace(graph, layers=tuple(layers))


def _with_synapse(graph: ProcessGraph, index: int, **changes: Any) -> ProcessGraph:
    layers = list(graph.layers)
    layers[index] = replace(layers[index], synapses=(replace(layers[index].synapses[0], **changes),))
    return replace(graph, layers=tuple(layers))


def test_what_the_format_cannot_carry_is_refused_and_nothing_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.net"
    graph = build(CASES[0])
    write_netx(path, graph)
    before = path.read_bytes()
    dense = graph.layers[2].synapses[0].weight
    twice = replace(graph, layers=(*graph.layers[:2], replace(graph.layers[2], synapses=graph.layers[2].synapses * 2)))
    skip = _with_synapse(graph, 2, source="conv0", weight=np.resize(dense, (5, 210)))
    wide = replace(graph, numerics=replace(NUMERICS, state_bits=26))
    bad: tuple[tuple[ProcessGraph, type[HardspikeError], str], ...] = (
        (twice, UnsupportedLayerError, "layer 'output' does not read just the layer before it.*chains only.*'lava'"),
        (skip, UnsupportedLayerError, "layer 'output' does not read just the layer before"),
        (
            _with_neurons(graph, 1, bias_exponent=5),
            UnsupportedLayerError,
            "'conv1': bias exponent 5, but netx always uses 6",
        ),
        (
            _with_neurons(graph, 2, spiking=True),
            UnsupportedLayerError,
            "'output': threshold 131071 marks a readout that never fires",
        ),
        (
            _with_neurons(current_graph(), 0, bias=zeros(1) + 1),
            UnsupportedLayerError,
            "'pixels' takes its bias from the input",
        ),
        (_with_synapse(graph, 2, weight=dense * 0), DoesNotFitError, "'output': all weights are 0"),
        (wide, DoesNotFitError, r"state_bits = 26 .* but Lava computes with 24"),
    )
    for broken, error, message in bad:
        with pytest.raises(error, match=message) as caught:
            write_netx(path, broken)
        assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_weights_reach_the_file_untouched_at_the_ends_of_their_ranges(tmp_path: Path) -> None:
    for weight in ([[-256, 254]], [[0, 255]], [[-255, -1]], [[-254, 0]], [[-126, -2]], [[1, 1]]):
        neurons = NeuronGroup(threshold=5, bias=zeros(1))
        synapse = DenseSynapse(source=INPUT, weight=np.array(weight, dtype=np.int32))
        graph = ProcessGraph(
            input=InputContract(shape=(2,), coding="binary", message_bits=1),
            layers=(GraphLayer(name="n", shape=(1,), synapses=(synapse,), neurons=neurons),),
            time_steps=1,
            numerics=NUMERICS,
            profile="loihi2",
        )
        write_netx(tmp_path / "a.net", graph)
        assert_equal(read_netx(tmp_path / "a.net"), graph)
