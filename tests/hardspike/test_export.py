"""`hardspike export`: each file holds the run's own network."""

from pathlib import Path

import h5py
import torch
from tiny_run import Invoke

from hardspike.convert.nir_in import read_nir
from hardspike.convert.onnx_in import load_onnx
from hardspike.deploy.emulator import Emulator
from hardspike.deploy.graph_file import load_graph
from hardspike.deploy.netx_reader import read_netx
from hardspike.snn.checkpoint import load_network


def test_every_file_computes_what_the_run_does(hardspike: Invoke, run: Path, tmp_path: Path) -> None:
    names = {"onnx": "ann.onnx", "nir": "snn.nir", "onnx-step": "step.onnx", "net": "chip.net"}
    options = [part for option, name in names.items() for part in (f"--{option}", tmp_path / name)]
    code, out, err = hardspike("export", run, *options)
    assert code == 0, err
    assert [line.rpartition(": ")[2] for line in out.splitlines()] == [str(tmp_path / name) for name in names.values()]
    images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    ann, snn = (load_network(run / f"{name}.safetensors") for name in ("ann", "snn"))
    graph = load_graph(run / "graph.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(load_onnx(tmp_path / "ann.onnx")(images), ann(images), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            read_nir(tmp_path / "snn.nir").double()(images.double()),
            snn.double()(images.double()),
            rtol=1e-5,
            atol=1e-5,
        )
        deployed = Emulator(graph)(images)
        back = Emulator(read_netx(tmp_path / "chip.net"))(images)
    assert torch.equal(back, deployed)
    assert (tmp_path / "step.onnx").stat().st_size > 1000 and h5py.is_hdf5(tmp_path / "snn.nir")


def test_mistakes_are_one_line(hardspike: Invoke, run: Path) -> None:
    below_a_file = run / "recipe.toml" / "a.nir"
    for arguments, message in (
        ((), "export: no file is named; give --onnx, --nir, --onnx-step or --net"),
        (("--nir", below_a_file), "recipe.toml"),
    ):
        code, _, err = hardspike("export", run, *arguments)
        assert code != 0 and message in err and len(err.strip().splitlines()) == 1
