"""A trace that agrees is found equal and one that does not is named to the neuron; a file that is no good ends in one line."""

import io
import json
import random
import zipfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hardware_traces import POWER, MadeTrace, Sent, made_trace, sent, spiking_output, with_power
from random_graphs import CASES

from hardspike.deploy import hardware_check
from hardspike.deploy.emulator import EmulatorBackend
from hardspike.deploy.energy import price, sum_layers
from hardspike.deploy.fixed_zip import npz_bytes
from hardspike.deploy.hardware_check import Measurement, check_trace
from hardspike.deploy.hardware_trace import HardwareTrace, largest_set, read_hardware_trace
from hardspike.hw_profiles.profile import load_profile
from hardspike.snn.errors import FileError

LOIHI1, LOIHI2 = load_profile("loihi1"), load_profile("loihi2")
SMALL = replace(CASES[10], image=(5, 1, 1), time_steps=3)  # dense only


def made(case_sent: Sent, **options: Any) -> MadeTrace:
    return made_trace(case_sent.graph, case_sent.network_sha256, case_sent.sets, **options)


def read(trace: MadeTrace, of: Sent) -> HardwareTrace:
    path = trace.save(of.net.with_name("trace.npz"))
    return read_hardware_trace(path, of.graph, of.network_sha256, of.sets)


def checked(trace: MadeTrace, of: Sent, profile: Any = LOIHI1) -> Measurement:
    return check_trace(read(trace, of), of.graph, of.sets, profile)


@pytest.mark.parametrize("case", [0, 1, 5, 12])
@pytest.mark.parametrize("options", [{}, {"period": 8}, {"streams": (2, 1, 4)}, {"period": 7, "streams": (5, 2)}])
def test_a_chip_that_does_what_the_emulator_does_is_equal(
    case: int, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware_check, "BATCH", 3)
    of = sent(CASES[case], tmp_path)
    done: list[int] = []
    trace = made(of, **options)
    found = check_trace(read(trace, of), of.graph, of.sets, LOIHI1, progress=done.append)
    assert found.equal and sum(done) == 7
    neurons = sum(int(np.prod(layer.shape)) for layer in of.graph.layers)
    steps = of.graph.time_steps
    by_set = {(row.name, row.what.split()[0]): row.compared for row in found.rows}
    assert by_set["clean", "spikes"] == 4 * steps * neurons and by_set["attack", "spikes"] == 3 * steps * neurons
    assert by_set["clean", "output"] == 4 * 5
    assert ("clean", "potentials") in by_set or options.get("period", 0) >= 7 or steps == 2
    for one, own in zip(found.sets, of.sets, strict=True):
        expected = EmulatorBackend().run(of.graph, own.messages)
        right = float((expected.predicted == own.labels).double().mean())
        assert (one.name, one.images, one.right, one.expected) == (own.name, len(own), one.expected, one.right)
        assert one.right["value"] == right and one.same_class == 1.0
        interval = sum_layers(price(of.graph, expected, LOIHI1))
        assert min(one.estimate_j.values()) == pytest.approx(float(interval.low_j.mean()))
        assert max(one.estimate_j.values()) == pytest.approx(float(interval.high_j.mean()))


@pytest.mark.parametrize("layers", ["all", "output"])
@pytest.mark.parametrize("states", [True, False])
@pytest.mark.parametrize("spiking", [True, False])
def test_what_was_not_recorded_is_not_compared(layers: str, states: bool, spiking: bool, tmp_path: Path) -> None:
    of = sent(CASES[0], tmp_path)
    of = spiking_output(of) if spiking else of
    found = checked(made(of, layers=layers, states=states), of)
    assert found.equal
    rows = [row.what for row in found.rows if row.name == "clean"]
    kind = "spike counts" if spiking else "potentials"
    expected = [f"spikes of {3 if layers == 'all' else 1} of 3 layers", f"output {kind}"]
    assert rows == expected + ["potentials where no spike"] * states


def test_potentials_count_where_no_spike_is_and_nowhere_else(tmp_path: Path) -> None:
    """A Loihi reads 128 at a neuron that has just fired (lava-dl's recordings), the simulator 0."""
    of = sent(CASES[0], tmp_path)
    trace = made(of)
    states = EmulatorBackend().run(of.graph, of.sets[0].messages, keep_states=True).states
    assert states is not None
    # Two layers before the output, image 0 is read when image 1 has done two steps; one before, when it has done one.
    total = 0
    for index, (name, steps) in enumerate((("conv0", 2), ("conv1", 1))):
        spikes = states.spikes[name][steps - 1, 1:].numpy()
        assert spikes.any()
        found = trace.arrays[f"potentials.{index}"]
        assert not found[:3][spikes].any()
        found[:3][spikes] = 128
        total += int((~spikes).sum())
    result = checked(trace, of)
    row = next(row for row in result.rows if row.what == "potentials where no spike" and row.name == "clean")
    # The last clean image was read when the first attacked one had begun, so it counts there.
    assert (row.compared, row.differing) == (total, 0)
    place = tuple(np.argwhere(~states.spikes["conv1"][0, 2].numpy())[0])
    trace.arrays["potentials.1"][(1, *place)] += 1
    result = checked(trace, of)
    row = next(row for row in result.rows if row.what == "potentials where no spike" and row.name == "clean")
    value = int(states.potentials["conv1"][0, 2][place])
    assert not result.equal and row.differing == 1
    where = tuple(map(int, place))
    assert row.first == f"potential of conv1 at step 1, image 2, neuron {where}: {value + 1} instead of {value}"


def test_the_first_difference_is_named_by_layer_image_step_and_neuron(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware_check, "BATCH", 2)
    of = sent(CASES[0], tmp_path)
    trace = made(of)
    was = bool(trace.arrays["spikes.1"][4 + 2, 3, 2, 5, 1])
    trace.arrays["spikes.1"][4 + 2, 3, 2, 5, 1] = not was
    trace.arrays["spikes.1"][4 + 2, 4, 0, 0, 0] ^= True
    was_v = int(trace.arrays["potentials.2"][1, 4])
    trace.arrays["potentials.2"][1, 4] = 1 << 22  # now the largest
    found = checked(trace, of)
    rows = {(row.name, row.what): row for row in found.rows}
    spikes = rows["attack", "spikes of 3 of 3 layers"]
    assert (spikes.differing, rows["clean", "spikes of 3 of 3 layers"].differing) == (2, 0)
    assert spikes.first == f"spike of conv1, image 2, step 4, neuron (2, 5, 1): {int(not was)} instead of {int(was)}"
    output = rows["clean", "output potentials"]
    assert (output.differing, output.first) == (1, f"output, image 1, neuron (4,): {1 << 22} instead of {was_v}")
    clean = found.sets[0]
    changed = EmulatorBackend().run(of.graph, of.sets[0].messages).predicted[1] != 4
    assert clean.same_class == 1 - 0.25 * bool(changed) and not found.equal
    labels = of.sets[0].labels
    predicted = EmulatorBackend().run(of.graph, of.sets[0].messages).predicted.clone()
    predicted[1] = 4
    assert clean.right["value"] == float((predicted == labels).double().mean())


def test_power_and_time_per_image(tmp_path: Path) -> None:
    of = sent(CASES[0], tmp_path)
    alone, board = (with_power(made(of, period=8), chips=chips) for chips in (1, 8))
    for trace in (alone, board):
        found = checked(trace, of)
        assert (found.backend, found.steps_per_image, found.facts["place"]) == ("loihi2", 8, {"PARTITION": "oheogulch"})
        assert found.chip_s_per_step == pytest.approx(150e-6)
        for rail, (total, static) in POWER.items():
            one = found.rails[rail]
            assert (one.static_w, one.dynamic_w) == pytest.approx((static, total - static))
            assert (one.static_j, one.total_j) == pytest.approx((static * 8 * 150e-6, total * 8 * 150e-6))
    assert (found.chips_on_board, found.not_measured) == (8, "")
    steps = 3 + 6 + 8 * 6  # until the first image is through, then six more
    assert found.host_s_per_step == pytest.approx(0.15 * 7 / steps)


def test_without_a_measurement_or_public_prices_nothing_is_made_up(tmp_path: Path) -> None:
    of = sent(CASES[0], tmp_path)
    trace = made(of)
    trace.facts |= {"backend": "loihi2", "not_measured": "AttributeError: x", "chips_on_board": 1}
    found = checked(trace, of, LOIHI2)
    assert found.rails == {} and found.chip_s_per_step is None and found.not_measured == "AttributeError: x"
    assert all(one.estimate_j == {} and one.estimate_s == {} for one in found.sets)
    with_times = checked(trace, of, LOIHI1).sets[0].estimate_s
    assert set(with_times) == set(LOIHI1.times) and all(value > 0 for value in with_times.values())


Change = Any  # from a MadeTrace, in place, or to the bytes to write


def _drop(name: str) -> Change:
    return lambda trace: trace.arrays.pop(name)


def _fact(key: str, value: Any) -> Change:
    return lambda trace: trace.facts.update({key: value})


def _array(name: str, change: Any) -> Change:
    return lambda trace: trace.arrays.update({name: change(trace.arrays.get(name))})


def _first_set(key: str, value: Any) -> Change:
    return lambda trace: trace.facts["sets"][0].update({key: value})


REFUSED: list[tuple[str, Change, str]] = [
    ("network", _fact("network_sha256", "f" * 64), "made with another network .its .net file has SHA-256 ffffffffffff"),
    ("terminal", _fact("network_sha256", "\x1b[2J" * 9), "SHA-256 ..2.......2., this run's"),
    ("no spikes", _drop("spikes.1"), "has no array 'spikes.1'; it is damaged"),
    ("no output", _drop("potentials.2"), "has no array 'potentials.2'"),
    ("no wall", _drop("wall_s"), "has no array 'wall_s'"),
    ("shape", _array("spikes.0", lambda a: a[:, :-1]), "'spikes.0' is bool of shape .* expected bool of shape"),
    ("axes", _array("spikes.2", lambda a: a.reshape(-1)), "'spikes.2' is bool of shape"),
    ("dtype", _array("spikes.0", lambda a: a.astype(np.uint8)), "'spikes.0' is uint8 of shape"),
    ("float", _array("potentials.2", lambda a: a.astype(float)), "'potentials.2' is float64"),
    ("large", _array("spikes.2", lambda a: np.zeros((7, 6, 50_000), bool)), "has 2,100,.* bytes, at most"),
    ("nan", _array("wall_s", lambda a: a * np.nan), "'wall_s' must hold finite numbers above 0"),
    ("zero", _array("wall_s", lambda a: a * 0), "'wall_s' must hold finite numbers above 0"),
    ("object", _array("wall_s", lambda a: np.array([None] * 7)), "pickled array"),
    ("unknown", _array("more", lambda a: np.zeros(3)), "holds an array 'more', which no trace has"),
    ("power", lambda trace: with_power(trace).arrays.pop("power_w.vdd"), "has no array 'power_w.vdd'"),
    ("watt", lambda t: with_power(t).arrays.update({"static_w.vdd": np.array([np.inf])}), "'static_w.vdd' must hold"),
    ("huge", lambda t: with_power(t).arrays.update({"power_w.total": np.array([1e300])}), "'power_w.total' must hold"),
    ("empty", lambda t: with_power(t).arrays.update({"step_time_us": np.zeros(0)}), "'step_time_us' must hold"),
    ("chips", lambda t: with_power(t).facts.update(chips_on_board=0), "chips_on_board is 0; allowed: 1..4096"),
    ("format", _fact("format", "other"), "format 'other', backend 'simulator'; expected"),
    ("backend", _fact("backend", "emulator"), "backend 'emulator'; expected"),
    ("steps", _fact("time_steps", 7), "7 steps per image, but the network runs 6"),
    ("period", _fact("period", 5), "period is 5; allowed: 6.."),
    ("period text", _fact("period", "6"), "period is 6; allowed"),
    ("period bool", _fact("period", True), "period is True; allowed"),
    ("delay", _fact("input_delay", -1), "input_delay is -1; allowed: 0.."),
    ("layers", _fact("layers", [1]), "spikes of layers .1.; expected those of the last or of all"),
    ("layer text", _fact("layers", ["x" * 5000]), "spikes of layers .'xxx"),
    ("streams", _fact("streams", [3, 3]), "streams .3, 3. do not add up to 7 images"),
    ("stream", _fact("streams", [8, -1]), "streams .8, -1. do not add up"),
    ("stream text", _fact("streams", ["a"]), "streams"),
    ("long text", _fact("started", "x" * 500), "its facts have no str 'started'"),
    ("version", _fact("versions", {"lava": 3}), "a version or a place that is no text"),
    ("no sets", _fact("sets", []), "no images; it is damaged"),
    ("sets", _fact("sets", [3]), "images 'None' are not among this run's sets 'clean', 'attack'"),
    ("name", _first_set("name", "train"), "images 'train' are not among"),
    ("twice", lambda t: t.facts.update(sets=2 * t.facts["sets"][:1]), "images 'clean' are not among"),
    ("count", _first_set("images", 5), "images is 5; allowed: 1..4"),
    ("messages", _first_set("messages_sha256", "0" * 64), "'clean' are other images than this run's"),
    ("fewer", _first_set("images", 3), "'clean' are other images than this run's"),
    ("facts", lambda trace: json.dumps(trace.facts).encode(), "not a readable trace"),
    ("cut", lambda trace: trace.content()[:-30], "not a readable trace .BadZipFile"),
    ("nothing", lambda trace: b"", "not a readable trace"),
    ("list", lambda trace: npz_bytes({"facts": np.array(["{}"])}), "'facts' is no text"),
    ("number", lambda trace: npz_bytes({"facts": np.array(3)}), "'facts' is no text"),
    ("json list", lambda trace: _facts_only("[]"), "its facts have no str 'format'"),
    ("json", lambda trace: _facts_only("{"), "not a readable trace .JSONDecodeError"),
    ("deep", lambda trace: _facts_only("[" * 100_000), "not a readable trace .RecursionError"),
    ("no facts", lambda trace: npz_bytes({"a": np.zeros(1)}), "has no array 'facts'; it is damaged or no trace"),
    ("bomb", lambda trace: _facts_only(" " * (1 << 22)), "array 'facts' has 16,.* bytes, at most 1,048,576"),
]


def _facts_only(text: str) -> bytes:
    held = io.BytesIO()
    np.savez_compressed(held, facts=np.array(text))
    return held.getvalue()


@pytest.mark.parametrize(("change", "text"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_a_trace_that_does_not_fit_is_refused_in_one_line(change: Change, text: str, tmp_path: Path) -> None:
    of = sent(CASES[0], tmp_path)
    trace = made(of)
    content = change(trace)
    path = tmp_path / "trace.npz"
    path.write_bytes(content if isinstance(content, bytes) else trace.content())
    with pytest.raises(FileError, match=text) as caught:
        largest_set(path)
        read_hardware_trace(path, of.graph, of.network_sha256, of.sets)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message and "\x1b" not in message and len(message) < 700


def test_the_file_is_there_and_says_how_many_images_it_has(tmp_path: Path) -> None:
    of = sent(CASES[0], tmp_path)
    with pytest.raises(FileError, match="none.npz: no such file; expected what run_on_loihi.py wrote"):
        largest_set(tmp_path / "none.npz")
    assert largest_set(made(of).save(tmp_path / "trace.npz")) == 4
    trace = made(of)
    trace.facts["sets"][1]["images"] = 10**12  # allocates nothing
    assert largest_set(trace.save(tmp_path / "trace.npz")) == 4


@pytest.mark.parametrize("coding", ["graded", "binary"])
def test_the_first_images_of_a_set_are_enough(coding: str, tmp_path: Path) -> None:
    of = sent(CASES[0 if coding == "graded" else 1], tmp_path)
    fewer = replace(of, sets=[of.sets[0].first(2, of.graph), of.sets[1].first(1, of.graph)])
    found = check_trace(read(made(fewer), of), of.graph, of.sets, LOIHI1)
    assert found.equal and [one.images for one in found.sets] == [2, 1]


def mutated(content: bytes, rng: random.Random) -> bytes:
    """One damage: bytes changed, cut, doubled or inserted in the file, or in one array of it behind right checksums."""
    if rng.random() < 0.5:
        return _damaged(content, rng)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice([*files, "facts.npy"])
    choice = rng.random()
    if name == "facts.npy" and choice < 0.8:
        facts = json.loads(str(np.load(io.BytesIO(files[name]), allow_pickle=False)))
        values = [None, -1, 0, 1, 3, 10**30, 1e400, "", "x", [], [1], [[]], {}, True, {"a": {}}]
        target = rng.choice([facts, *facts["sets"]])
        target[rng.choice(list(target))] = rng.choice(values)
        held = io.BytesIO()
        np.save(held, np.array(json.dumps(facts)))
        files[name] = held.getvalue()
    elif choice < 0.1:
        del files[name]
    else:
        head = files[name][: 128 if rng.random() < 0.7 else None]
        files[name] = _damaged(head, rng) + files[name][len(head) :]
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
        for key, value in files.items():
            archive.writestr(key, value)
    return held.getvalue()


def _damaged(content: bytes, rng: random.Random) -> bytes:
    data, at = bytearray(content), rng.randrange(len(content))
    match rng.randrange(5):
        case 0:
            for _ in range(rng.choice([1, 1, 4])):
                data[rng.randrange(len(data))] = rng.randrange(256)
        case 1:
            del data[at:]
        case 2:
            del data[at : at + rng.randrange(1, 40)]
        case 3:
            data[at:at] = data[at : at + rng.randrange(1, 40)]
        case _:
            digits = [i for i, byte in enumerate(data) if 48 <= byte <= 57] or [at]
            data[rng.choice(digits)] = rng.choice(b"0123456789,)(-9'")
    return bytes(data)


@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_damage_is_answered_with_a_file_error_or_was_harmless(count: int, tmp_path: Path) -> None:
    of = sent(SMALL, tmp_path, (2, 1))
    content = with_power(made(of)).content()
    rng, path, refused = random.Random(7 + count), tmp_path / "trace.npz", 0
    for _ in range(count):
        path.write_bytes(mutated(content, rng))
        try:
            largest_set(path)
            trace = read_hardware_trace(path, of.graph, of.network_sha256, of.sets)
        except FileError as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            json.dumps(asdict(check_trace(trace, of.graph, of.sets, LOIHI1)), allow_nan=False)
    assert count > refused > 0.6 * count
