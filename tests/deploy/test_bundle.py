"""A bundle has what a lab needs and nothing else, the same bytes every time; its program says in one line what is wrong."""

import ast
import hashlib
import json
import re
import sys
import zipfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from hardware_traces import PROVENANCE, Sent, sent, spiking_output, unpacked
from random_graphs import CASES

from hardspike.deploy import bundle, run_on_loihi
from hardspike.deploy.bundle import BundleSet, write_bundle
from hardspike.deploy.emulator import EmulatorBackend
from hardspike.deploy.fixed_zip import npz_bytes, zip_bytes
from hardspike.deploy.process_graph import GraphLayer, InputContract, NeuronGroup
from hardspike.snn.errors import DataError, FileError, HardspikeError, UnsupportedLayerError

FILES = ["run_on_loihi.py", "network.net", "images.npz", "expected.npz", "README.md", "manifest.json"]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    made = sent(CASES[0], tmp_path)
    write_bundle(tmp_path / "out.zip", made.graph, made.net, made.sets, PROVENANCE)
    return unpacked(tmp_path / "out.zip", tmp_path / "unpacked")


def test_the_same_bytes_every_time_and_every_file_as_the_manifest_says(tmp_path: Path) -> None:
    made = sent(CASES[0], tmp_path)
    done: list[int] = []
    first = write_bundle(tmp_path / "a.zip", made.graph, made.net, made.sets, PROVENANCE, progress=done.append)
    second = write_bundle(tmp_path / "new" / "b.zip", made.graph, made.net, made.sets, PROVENANCE)
    content = (tmp_path / "a.zip").read_bytes()
    assert content == (tmp_path / "new" / "b.zip").read_bytes() and first == second
    assert first.sha256 == hashlib.sha256(content).hexdigest() and first.num_bytes == len(content)
    assert sum(done) == 7 and first.images == {"clean": 4, "attack": 3}
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist() == FILES
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {entry.external_attr >> 16 & 0o777 for entry in archive.infolist()} == {0o644}
        files = {name: archive.read(name) for name in FILES}
    manifest = json.loads(files["manifest.json"])
    assert manifest["files"] == {name: hashlib.sha256(files[name]).hexdigest() for name in FILES[:-1]}
    assert files["network.net"] == made.net.read_bytes()
    assert manifest["provenance"] == {"run": "digits", "commit": "0123abcd+", "version": "9.8.7"}
    for name, text in files.items():
        assert str(tmp_path).encode() not in text and str(Path.home()).encode() + b"/" not in text, name


def test_the_readme_says_how_and_from_where(written: Path) -> None:
    text = (written / "README.md").read_text("utf-8")
    digest = hashlib.sha256((written / "network.net").read_bytes()).hexdigest()
    for part in (
        f"`{digest}`",
        "commit 0123abcd+",
        "run_on_loihi.py --backend simulator",
        "--host slurm",
        "--host ethernet --address",
        "takes 8 steps there instead of 6",
        "| conv0 | 6 x 7 x 5 | 210 | yes |",
        "| output | 5 | 5 | no, its potential is the output |",
        "7 images of 6 steps are 42 steps",
    ):
        assert part in text, part
    assert "hang on" not in text and "{" not in text
    options = set(re.findall(r"--[a-z][a-z-]+", text)) - {"--trace"}
    assert options <= set(re.findall(r'"(--[a-z-]+)"', (written / "run_on_loihi.py").read_text("utf-8")))


def test_the_program_imports_nothing_of_ours(written: Path) -> None:
    names = set()
    for node in ast.walk(ast.parse((written / "run_on_loihi.py").read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names.add((node.module or "").split(".")[0])
    assert names - set(sys.stdlib_module_names) <= {"lava", "h5py", "numpy"}


@pytest.mark.parametrize(("case", "fires"), [(0, False), (1, True), (9, True)])
def test_expected_and_images_are_the_emulators(
    case: int, fires: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "BATCH", 2)
    made = sent(CASES[case], tmp_path)
    made = spiking_output(made) if fires else made
    write_bundle(tmp_path / "out.zip", made.graph, made.net, made.sets, PROVENANCE)
    folder = unpacked(tmp_path / "out.zip", tmp_path / "unpacked")
    images, expected = (np.load(folder / name, allow_pickle=False) for name in ("images.npz", "expected.npz"))
    keys = {f"labels.{index}" for index in range(2)} | {f"messages.{index}" for index in range(2)}
    assert set(images.files) == keys
    for index, one in enumerate(made.sets):
        assert images[f"messages.{index}"].dtype == np.uint8
        assert np.array_equal(images[f"messages.{index}"], one.messages.numpy())
        assert np.array_equal(images[f"labels.{index}"], one.labels.numpy())
        trace = EmulatorBackend().run(made.graph, one.messages, keep_states=True)
        assert trace.states is not None
        assert np.array_equal(expected[f"output.{index}"], trace.output.numpy())
        assert np.array_equal(expected[f"predicted.{index}"], trace.predicted.numpy())
        counted = {f"counts.{index}.{i}" for i, layer in enumerate(made.graph.layers) if layer.neurons.spiking}
        assert {name for name in expected.files if name.startswith(f"counts.{index}.")} == counted
        for name in counted:
            layer = made.graph.layers[int(name.rpartition(".")[2])].name
            assert np.array_equal(expected[name], trace.spikes[layer].numpy()) and trace.spikes[layer].any()
        if fires:
            spikes = trace.states.spikes["output"].numpy()
            assert np.array_equal(expected[f"output_spikes.{index}.2"], spikes) and spikes.any()


def test_the_stream_holds_each_image_for_t_steps_and_nothing_between(written: Path, tmp_path: Path) -> None:
    """By another way than the emulator's: repeat, append, pad."""
    made = sent(replace(CASES[9], constant_channels=2), tmp_path)
    write_bundle(tmp_path / "c.zip", made.graph, made.net, made.sets, PROVENANCE)
    folder = unpacked(tmp_path / "c.zip", tmp_path / "c")
    manifest = run_on_loihi._manifest(folder)
    part = run_on_loihi._parts(folder, manifest, 2)[1]
    stream = run_on_loihi._stream(part, manifest["network"], 9).reshape(2, 9, 4, 7, 5)
    assert not stream[:, 6:].any() and (stream[:, :6, 2] == 255).all() and (stream[:, :6, 3] == 127).all()
    for image in range(2):
        for step in range(6):
            assert np.array_equal(stream[image, step, :2], made.sets[1].messages[image].numpy())


def test_what_cannot_be_bundled_is_refused_in_one_line(tmp_path: Path) -> None:
    made = sent(CASES[0], tmp_path)
    signed = replace(made.graph, input=replace(made.graph.input, coding="signed", message_bits=1))
    pixels = GraphLayer(
        name="pixels", shape=(3,), synapses=(), neurons=NeuronGroup(threshold=20, bias=np.zeros(1, int))
    )
    contract = InputContract(shape=(3,), coding="current", message_bits=0)
    current = replace(made.graph, input=contract, layers=(pixels,))
    soft = replace(made.graph.layers[0], neurons=replace(made.graph.layers[0].neurons, bias_exponent=5))
    empty = BundleSet(name="clean", messages=torch.zeros(0, 2, 7, 5).long(), labels=torch.zeros(0).long())
    cases: list[tuple[Sent, type[HardspikeError], str]] = [
        (replace(made, graph=signed), UnsupportedLayerError, "signed spikes, for which a .net file has no place"),
        (replace(made, graph=current), UnsupportedLayerError, "coding 'current' cannot be streamed"),
        (
            replace(made, graph=replace(made.graph, layers=(soft, *made.graph.layers[1:]))),
            UnsupportedLayerError,
            "bias exponent 5",
        ),
        (replace(made, net=tmp_path / "none.net"), FileError, "none.net: no such file; deploy the network again"),
        (replace(made, sets=[]), DataError, "no images"),
        (replace(made, sets=[*made.sets, empty]), DataError, "no images"),
    ]
    for case, error, text in cases:
        with pytest.raises(error, match=text) as caught:
            write_bundle(tmp_path / "out.zip", case.graph, case.net, case.sets, PROVENANCE)
        assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["network.net"]


def test_archives_refuse_pickles_and_hold_what_they_were_given() -> None:
    with pytest.raises(ValueError, match="allow_pickle=False"):
        npz_bytes({"a": np.array([None])})
    arrays = {"b": np.arange(6).reshape(2, 3), "a": np.array([True, False])}
    read = np.load(BytesIO(npz_bytes(arrays)), allow_pickle=False)
    assert read.files == ["b", "a"] and all(np.array_equal(read[name], array) for name, array in arrays.items())
    assert zip_bytes({"x": b"1", "y": b"2"}) != zip_bytes({"y": b"2", "x": b"1"})


def invoke(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    code = run_on_loihi.main([str(argument) for argument in arguments])
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err
    return code, shown.err


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--images", "0"], "--images 0: give 1 or more"),
        (["--period", "5"], "--period 5: an image takes 6 steps; give 6 or more"),
        (["--input-delay", "-1"], "--input-delay -1: give 0 or more"),
        (["--chips-on-board", "0"], "--chips-on-board 0: give 1 or more"),
        (["--timeout-s", "0"], "--timeout-s 0: give 1 or more"),
    ],
)
def test_the_program_refuses_wrong_options(
    options: list[str], text: str, written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, shown = invoke(capsys, "--backend", "simulator", "--bundle", written, *options)
    assert (code, shown) == (1, f"run_on_loihi: {text}\n")


def test_the_program_runs_on_its_own_bundle_only(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--backend", "loihi2", "--bundle", written)
    code, shown = invoke(capsys, *arguments, "--period", 12)
    assert (code, shown) == (1, "run_on_loihi: --period 12: the chip resets by powers of two only; give 8\n")
    content = (written / "images.npz").read_bytes()
    (written / "images.npz").write_bytes(content[:-1] + b"x")
    assert "images.npz: missing or not the bundle's file; unpack" in invoke(capsys, *arguments)[1]
    (written / "images.npz").unlink()
    assert "images.npz: missing or not the bundle's file; unpack" in invoke(capsys, *arguments)[1]
    (written / "manifest.json").write_text('{"format": "other"}')
    assert "format 'other', expected 'hardspike bundle 1'" in invoke(capsys, *arguments)[1]
    (written / "manifest.json").unlink()
    assert "manifest.json: no such file; keep this file in the folder" in invoke(capsys, *arguments)[1]


def test_without_lava_or_intels_extension_the_program_ends_with_one_line(
    written: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for backend in ("simulator", "loihi2"):
        code, shown = invoke(capsys, "--backend", backend, "--bundle", written)
        assert code == 1 and shown.startswith("run_on_loihi: Lava is not installed for Python 3.")
        assert shown.count("\n") == 1 and "pip install lava-nc==0.10.0" in shown
