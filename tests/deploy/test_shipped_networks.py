"""Equality 5: the emulator on lava-dl's own networks = what lava-dl's authors recorded."""

from pathlib import Path

import pytest
import torch
from needs_lava import needs_lava
from random_graphs import CASES, build, random_messages

from hardspike.deploy import shipped_networks
from hardspike.deploy.emulator import EmulatorBackend
from hardspike.deploy.shipped_networks import Equality, compare_shipped_networks, shipped_folder
from hardspike.deploy.stream_emulation import emulate_stream
from hardspike.snn.errors import BackendError, FileError

PILOTNET = ("conv-0", "conv-1", "conv-2", "conv-3", "conv-4", "fc-0", "fc-1", "fc-2", "fc-3")


@pytest.fixture(scope="module")
def rows() -> list[Equality]:
    return compare_shipped_networks()


@needs_lava
def test_no_value_of_the_shipped_recordings_differs(rows: list[Equality]) -> None:
    assert [row for row in rows if row.differing or row.first] == []
    compared = {name: sum(row.compared for row in rows if row.name == name) for name in {row.name for row in rows}}
    assert compared["tiny.net"] == 2 * 24 * 6 * 6 * 15 + 3 * 16 * 16 * 15 + 36 * 15
    assert compared["ntidigits"] == 242 * 3000
    assert compared["dense block"] == 2 * 256 * 2000
    layers = {row.what.split(":")[0]: row.compared for row in rows if row.name == "pilotnet_lif"}
    assert set(layers) == {"input", "input-s", *PILOTNET}
    assert layers["input"] == layers["input-s"] == 3 * 66 * 200 * 24
    # All spikes and currents, and the potentials of neurons that did not fire.
    assert 2 * 99 * 32 * 24 * 24 < layers["conv-0"] < 3 * 99 * 32 * 24 * 24
    assert sum(layers.values()) > 10_000_000


@needs_lava
def test_what_is_not_compared_says_why(rows: list[Equality]) -> None:
    reasons = {row.name: row.reason for row in rows if not row.compared}
    assert all(reasons.values())
    assert set(reasons) == {
        "mnist.net",
        "pilotnet_sdnn/network.net",
        "pilotnet_sdnn/square_network.net",
        "complex_dense",
        "tinynet_sdnn",
    }
    assert "no recording is shipped" in reasons["mnist.net"] and "11152 spikes in 16 steps" in reasons["mnist.net"]
    assert "neurons of type 'SDNN'" in reasons["pilotnet_sdnn/network.net"]


@needs_lava
def test_a_wrong_value_is_found_and_named() -> None:
    folder = shipped_folder() / "gts" / "tinynet"
    load = shipped_networks._load

    def damaged(path: Path) -> torch.Tensor:
        values = load(path).clone()
        if path.name == "layer1.npy":
            values[0, 3, 2, 1, 5] ^= 1  # step 4 of those compared
        return values

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shipped_networks, "_load", damaged)
        row = next(row for row in shipped_networks._tinynet(folder.parents[1]) if row.differing)
    was = int(load(folder / "layer1.npy")[0, 3, 2, 1, 5])
    assert row.differing == 1
    assert row.first == f"spikes, step 4, neuron [3, 2, 1]: {was} instead of {1 - was}"


@needs_lava
def test_a_missing_recording_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="reinstall the wheel of lava-dl"):
        shipped_networks._load(tmp_path / "none.npy")


def test_without_lava_dl_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise shipped_networks.PackageNotFoundError(name)

    monkeypatch.setattr(shipped_networks, "files", missing)
    with pytest.raises(BackendError, match=r"lava-dl, which brings them, is not installed.*hardspike\[lava\]"):
        compare_shipped_networks()
    monkeypatch.setattr(shipped_networks, "files", lambda name: [])
    with pytest.raises(FileError, match="installed without its netx tests; reinstall"):
        compare_shipped_networks()


@pytest.mark.parametrize("name", ["current memory", "if binary", "dense only, binary, leak"])
def test_a_well_timed_stream_is_the_network_itself(name: str) -> None:
    """Reset with each sample's first message, layer l shows the states of the network l + 1 steps later."""
    case = next(case for case in CASES if case.name == name)
    graph = build(case)
    steps = graph.time_steps
    messages = random_messages(case, graph, 3)
    states = EmulatorBackend().run(graph, messages, keep_states=True).states
    assert states is not None
    stream = messages.transpose(0, 1).flatten(0, 1)
    found = emulate_stream(graph, stream, num_steps=len(stream), period=steps, first_reset=1)
    for index, layer in enumerate(graph.layers):
        for sample in (0, 1):
            begin = index + 1 + sample * steps
            for part in ("spikes", "currents", "potentials"):
                window = getattr(found[layer.name], part)[begin : begin + steps]
                assert torch.equal(window, getattr(states, part)[layer.name][:, sample].long()), (layer.name, part)


def test_output_delays_move_each_neuron_by_its_own() -> None:
    case = next(case for case in CASES if case.name == "dense only, binary, leak")
    graph = build(case)
    stream = random_messages(case, graph, 1)[:, 0]
    plain = emulate_stream(graph, stream, num_steps=6, period=None)["dense0"].spikes
    delays = torch.arange(11) % 4
    found = emulate_stream(graph, stream, num_steps=6, period=None, output_delays={"dense0": delays})["dense0"].spikes
    for neuron, delay in enumerate(delays.tolist()):
        assert found[:, neuron].tolist() == ([0] * delay + plain[:, neuron].tolist())[:6]
    assert plain.any()
