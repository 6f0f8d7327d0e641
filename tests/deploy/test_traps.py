"""One test per trap that a netx export can fall into: where Lava computes something else than it was given, silently."""

import ast
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from needs_lava import needs_lava
from random_graphs import CASES, NUMERICS, build, random_messages

from hardspike.deploy import lava_backend
from hardspike.deploy.emulator import EmulatorBackend
from hardspike.deploy.lava_backend import LavaBackend, NetxBackend
from hardspike.deploy.lava_limits import check_lava_computes, dense_weight_problem
from hardspike.deploy.lava_netx import build_netx, load_netx
from hardspike.deploy.lava_processes import to_lava_order
from hardspike.deploy.lava_runner import simulator_config
from hardspike.deploy.netx_file import read_netx, write_netx
from hardspike.deploy.oracle import Oracle
from hardspike.deploy.process_graph import (
    ConvSynapse,
    DenseSynapse,
    GraphLayer,
    InputContract,
    NeuronGroup,
    ProcessGraph,
    Synapse,
)
from hardspike.deploy.trace import Trace
from hardspike.snn.architecture import INPUT, Shape
from hardspike.snn.errors import DoesNotFitError, UnsupportedLayerError

ROOT = Path(__file__).resolve().parents[2]


def chain(
    *synapses: Synapse, shape: Shape, threshold: int = 10, steps: int = 4, bits: int = 1, **neurons: Any
) -> ProcessGraph:
    """A chain of equal neurons; each synapse reads the layer before."""
    layers: list[GraphLayer] = []
    source, sends = INPUT, shape
    neurons.setdefault("bias", np.zeros(1, dtype=np.int32))
    for index, synapse in enumerate(synapses):
        synapse = replace(synapse, source=source)
        source, sends = f"layer{index}", synapse.output_shape(sends)
        group = NeuronGroup(threshold=threshold, **neurons)
        layers.append(GraphLayer(name=source, shape=sends, synapses=(synapse,), neurons=group))
    coding = "binary" if bits == 1 else "graded"
    return ProcessGraph(
        input=InputContract(shape=shape, coding=coding, message_bits=bits),  # type: ignore[arg-type]
        layers=tuple(layers),
        time_steps=steps,
        numerics=NUMERICS,
        profile="loihi2",
    )


def dense(weight: Any) -> DenseSynapse:
    return DenseSynapse(source=INPUT, weight=np.array(weight, dtype=np.int32))


def conv(weight: Any, **geometry: Any) -> ConvSynapse:
    return ConvSynapse(source=INPUT, weight=np.array(weight, dtype=np.int32), **geometry)


def run_everywhere(graph: ProcessGraph, messages: torch.Tensor) -> Trace:
    """On the emulator and on Lava; they must agree."""
    expected = EmulatorBackend().run(graph, messages, keep_states=True)
    found = LavaBackend().run(graph, messages, keep_states=True)
    assert found.states is not None and expected.states is not None
    for name, spikes in expected.states.spikes.items():
        assert torch.equal(found.states.spikes[name], spikes), name
    assert torch.equal(found.output, expected.output)
    return expected


def test_trap_01_fractions_are_cut_off_instead_of_rounded(tmp_path: Path) -> None:
    path = tmp_path / "a.net"
    write_netx(path, build(CASES[0]))
    with h5py.File(path, "r+") as file:
        for index in (1, 2, 4):
            assert file[f"layer/{index}/weight"].dtype.kind == file[f"layer/{index}/bias"].dtype.kind == "i"
        weight = file["layer/1/weight"][()].astype(np.float32)
        weight[0, 0, 1, 1] = 1.9
        del file["layer/1/weight"]
        file["layer/1/weight"] = weight
    with pytest.raises(
        DoesNotFitError, match=r"weight 1\.89.* is no integer, netx would cut it to 1\.0; round before writing"
    ):
        read_netx(path)


def test_trap_02_weights_are_even_in_range_and_not_all_zero(tmp_path: Path) -> None:
    for weight, message in (
        ([[3, -2]], "weight 3 is not a multiple of 2"),
        ([[256, -2]], r"weights -2\.\.256 exceed -256\.\.254 of mixed signs"),
        ([[256, 0]], r"weights 0\.\.256 exceed 0\.\.255 of positive signs"),
        ([[-256, -2]], r"weights -256\.\.-2 exceed -255\.\.0 of negative signs"),
    ):
        with pytest.raises(DoesNotFitError, match=message):
            chain(dense(weight), shape=(2,))
    for weight, message in (
        ([[0, 0]], "all weights are 0, which netx cannot load"),
        ([[-128, -3]], r"weights -128\.\.-3 reach down to a power of two, which Lava would clip"),
        ([[-201, 0]], r"weights -201\.\.0 hold odd ones, which Lava would turn into zeros"),
    ):
        with pytest.raises(DoesNotFitError, match=message):
            write_netx(tmp_path / "a.net", chain(dense(weight), shape=(2,)))


def test_trap_02_holds_for_profiles_of_ones_own_too() -> None:
    generous = replace(NUMERICS, positive_weight_max=1000)
    graph = replace(chain(dense([[255, 1]]), shape=(2,)), numerics=generous)
    check_lava_computes(graph)
    layer = replace(graph.layers[0], synapses=(dense([[256, 1]]),))
    with pytest.raises(DoesNotFitError, match=r"weights 1\.\.256 exceed 0\.\.255 .*loihi2"):
        check_lava_computes(replace(graph, layers=(layer,)))


@pytest.mark.slow
@needs_lava
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
def test_trap_02_what_netx_changes_is_foretold(capsys: pytest.CaptureFixture[str]) -> None:
    """Every pair of weights at and around the ends of all ranges, through netx's and Lava's own functions."""
    from lava.lib.dl.netx.utils import optimize_weight_bits
    from lava.utils.weightutils import clip_weights, determine_sign_mode, truncate_weights

    ends = {sign * (1 << bits) + off for bits in range(9) for off in (-1, 0, 1) for sign in (1, -1)}
    changed = 0
    for pair in itertools.product(sorted(ends), repeat=2):
        weight = np.array([pair], dtype=np.int32)
        kept = False
        if any(pair):
            shifted, bits, exponent, _ = optimize_weight_bits(weight.astype(int))
            sign = determine_sign_mode(shifted)
            held = truncate_weights(clip_weights(shifted, sign, num_bits=8), sign, bits)
            kept = exponent <= 0 and np.array_equal(held, weight << -exponent)
        assert (dense_weight_problem(weight) is None) == kept, pair
        changed += not kept
    capsys.readouterr()  # netx prints what it clips
    assert 300 < changed < len(ends) ** 2 / 2


def _depthwise(channels: int) -> ProcessGraph:
    weight = np.arange(1, channels + 1).reshape(-1, 1, 1, 1) % 200 + 1
    return chain(conv(weight, groups=channels), shape=(channels, 2, 1), threshold=60)


def test_trap_03_from_128_groups_on_lava_computes_zeros(tmp_path: Path) -> None:
    with pytest.raises(DoesNotFitError, match="'layer0': 128 groups exceed netx's 127 .*the backend 'lava'"):
        write_netx(tmp_path / "a.net", _depthwise(128))
    write_netx(tmp_path / "a.net", _depthwise(127))
    with pytest.raises(DoesNotFitError, match="kernel, stride, padding or dilation 128 exceeds Lava's 127"):
        check_lava_computes(chain(conv([[[[2]]]], stride=(1, 128)), shape=(1, 1, 200)))


@needs_lava
@pytest.mark.parametrize("sparse_nonzeros", [0, 1000])
def test_trap_03_so_groups_are_put_together(sparse_nonzeros: int) -> None:
    graph = _depthwise(130)
    messages = torch.from_numpy(np.random.default_rng(0).integers(0, 2, size=(4, 2, 130, 2, 1)))
    expected = EmulatorBackend().run(graph, messages)
    assert 0 < int(expected.output.count_nonzero()) < expected.output.numel()
    assert torch.equal(LavaBackend(sparse_nonzeros=sparse_nonzeros).run(graph, messages).output, expected.output)


@pytest.mark.slow
@needs_lava
def test_trap_04_resets_come_with_the_first_message_and_not_before(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == "current memory")
    graph, path = build(case), tmp_path / "a.net"
    messages = random_messages(case, graph, 4)
    write_netx(path, graph)
    expected = EmulatorBackend().run(graph, messages).output
    assert torch.equal(NetxBackend(path).run(graph, messages).output, expected)

    def one_step_early(path: Path, graph: ProcessGraph, stream: Any) -> Any:
        network = build_netx(path, graph, stream)
        for lif in network.neurons.values():
            lif.proc_params.overwrite("reset_offset", lif.proc_params["reset_offset"] - 1)
        return network

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lava_backend, "build_netx", one_step_early)
        assert not torch.equal(NetxBackend(path).run(graph, messages).output, expected), (
            "netx's default would do as well"
        )


def test_trap_05_lava_wants_width_height_channel_time() -> None:
    stream = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)  # time, channel, height, width
    turned = to_lava_order(stream)
    assert turned.shape == (5, 4, 3, 2) and turned.flags["C_CONTIGUOUS"]
    assert all(turned[x, y, c, t] == stream[t, c, y, x] for t, c, y, x in np.ndindex(2, 3, 4, 5))


def _threshold_graph() -> ProcessGraph:
    return chain(dense([[10], [11]]), shape=(1,), threshold=10, steps=3)


def test_trap_06_neurons_fire_strictly_above_the_threshold_and_reset_to_zero() -> None:
    graph = _threshold_graph()
    found = Oracle(graph).run([[1], [0], [1]])
    assert found.spikes["layer0"] == [[0, 1], [0, 0], [1, 1]]
    assert found.potentials["layer0"] == [[640, 704], [640, 0], [1280, 704]]
    assert NUMERICS.resets == ("hard",)


@needs_lava
def test_trap_06_on_lava() -> None:
    trace = run_everywhere(_threshold_graph(), torch.tensor([[[1]], [[0]], [[1]]]))
    assert trace.output.tolist() == [[1, 2]]


def test_trap_07_bias_has_13_bits_on_the_chip_and_wraps_at_16_in_lava() -> None:
    with pytest.raises(DoesNotFitError, match=r"bias 4096 is outside -4096\.\.4095"):
        chain(dense([[2]]), shape=(1,), bias=np.array([4096], dtype=np.int32))
    wide = replace(NUMERICS, bias_mantissa_max=1 << 20)
    graph = replace(chain(dense([[2]]), shape=(1,)), numerics=wide)
    for bias, fits in ((32767, True), (32768, False)):
        neurons = replace(graph.layers[0].neurons, bias=np.array([bias], dtype=np.int32))
        changed = replace(graph, layers=(replace(graph.layers[0], neurons=neurons),))
        if fits:
            check_lava_computes(changed)
        else:
            with pytest.raises(DoesNotFitError, match=r"bias 32768\.\.32768 exceeds Lava's -32768\.\.32767"):
                check_lava_computes(changed)


@needs_lava
def test_trap_08_the_current_wraps_at_2_to_the_17() -> None:
    graph = chain(dense([[254, 2], [254, 0], [-254, -2]]), shape=(2,), threshold=100, steps=3, bits=12)
    messages = torch.tensor([[516, 4], [516, 3], [1032, 8]])
    trace = run_everywhere(graph, messages)
    assert trace.states is not None
    currents = trace.states.currents["layer0"][0]
    assert currents[0].tolist() == [1 << 23, 131064 << 6, 1 << 23]  # 2^23 itself stays, -2^23 becomes it
    assert currents[1].tolist() == [131070 << 6, 131064 << 6, -131070 << 6]
    assert currents[2].tolist() == [0, (262128 - (1 << 18)) << 6, 0]
    assert trace.output.tolist() == [[3, 3, 3], [3, 3, 0], [0, 0, 0]]  # twice the input, and not a spike


def test_trap_09_lava_takes_illegal_convolution_weights() -> None:
    for weight, message in (
        ([[[[3, -2]]]], "weight 3 is not a multiple of 2"),
        ([[[[1000]]]], r"weights 1000\.\.1000 exceed"),
    ):
        with pytest.raises(DoesNotFitError, match=message):
            chain(conv(weight), shape=(1, 1, 2))


def test_trap_10_netx_knows_no_pool_average_or_concat(tmp_path: Path) -> None:
    types = set()
    for case in CASES:
        write_netx(tmp_path / "a.net", build(case))
        with h5py.File(tmp_path / "a.net", "r+") as file:
            types |= {layer["type"][0] for layer in file["layer"].values()}
            file["layer/1/type"][0] = b"average"
        with pytest.raises(UnsupportedLayerError, match="average.* write average pooling as a conv with groups"):
            read_netx(tmp_path / "a.net")
    assert types == {b"input", b"conv", b"flatten", b"dense"}


def test_trap_11_an_exponent_of_the_weights_is_ignored(tmp_path: Path) -> None:
    for name in ("weight_exp", "wgtExp"):
        write_netx(tmp_path / "a.net", build(CASES[0]))
        with h5py.File(tmp_path / "a.net", "r+") as file:
            assert not {"weight_exp", "wgtExp"} & set(file["layer/1/neuron"])
            file[f"layer/1/neuron/{name}"] = 1
        with pytest.raises(UnsupportedLayerError, match=f"neuron/{name} = 1 is not supported; supported: 0"):
            read_netx(tmp_path / "a.net")


@needs_lava
def test_trap_12_graded_input_needs_message_bits_or_it_is_binarised(tmp_path: Path) -> None:
    for case, bits in ((CASES[10], 8), (CASES[11], 0)):
        write_netx(tmp_path / "a.net", build(case))
        network = load_netx(tmp_path / "a.net", build(case))
        assert [int(layer.synapse.num_message_bits.init) for layer in network.layers] == [bits, 0]
    trace = run_everywhere(chain(dense([[2]]), shape=(1,), threshold=19, bits=4), torch.tensor([[1], [9], [10]]))
    assert trace.output.tolist() == [[0], [2], [4]]  # 2, 18 and 20 per step


def test_trap_13_every_file_beside_a_process_of_ones_own_is_executed() -> None:
    """So the package's own processes have a folder of their own, and their file does nothing but define them."""
    own = ROOT / "deploy/lava_neuron"
    assert sorted(file.name for file in own.glob("*.py")) == ["__init__.py", "process.py"]
    tree = ast.parse((own / "process.py").read_text(encoding="utf-8"))
    assert all(isinstance(node, ast.Import | ast.ImportFrom | ast.ClassDef) for node in tree.body[1:])
    bases = set()
    for file in set((ROOT / "deploy").rglob("*.py")) - set(own.glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        bases |= {ast.unparse(base) for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for base in node.bases}
        assert "implements(" not in file.read_text(encoding="utf-8")
    assert "nn.Module" in bases
    lavas = ("Process", "ProcessModel", "LIF", "LIFReset", "Network")
    assert not {base for base in bases - {"SpikingNetwork"} if base.endswith(lavas)}


@needs_lava
def test_trap_14_only_fixed_pt_has_models_of_every_process() -> None:
    from lava.magma.core.run_configs import Loihi2SimCfg

    assert simulator_config().select_tag == "fixed_pt"
    case = CASES[0]
    graph = build(case)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lava_backend, "simulator_config", lambda: Loihi2SimCfg(select_tag="bit_accurate_loihi"))
        with pytest.raises(lava_backend.BackendError, match="Lava failed .*No ProcessModels found with tag"):
            LavaBackend().run(graph, random_messages(case, graph, 1))


@needs_lava
def test_trap_15_a_loaded_file_can_be_written_again(tmp_path: Path) -> None:
    path = tmp_path / "a.net"
    write_netx(path, build(CASES[10]))
    network = load_netx(path, build(CASES[10]))
    with h5py.File(path, "r+") as file:  # netx itself would still hold it open
        file["layer/2/neuron/vThMant"][()] = 7
    write_netx(path, build(CASES[11]))
    assert read_netx(path).input == build(CASES[11]).input
    assert len(network.layers) == 2


@needs_lava
def test_trap_16_outputs_begin_as_many_steps_later_as_there_are_layers() -> None:
    """Three neurons in a row that pass each spike on: with the delay taken out, all fire in the steps of the input."""
    graph = chain(dense([[20]]), dense([[20]]), dense([[20]]), shape=(1,), steps=2)
    messages = torch.tensor([[[1], [0], [1]], [[0], [1], [1]]])
    trace = run_everywhere(graph, messages)
    assert trace.states is not None
    for spikes in trace.states.spikes.values():
        assert torch.equal(spikes.long(), messages)
