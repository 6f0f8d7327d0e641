"""Writes a run's networks as files of other tools."""

from collections.abc import Iterator

from hardspike.commands import Export
from hardspike.convert.nir_out import write_nir
from hardspike.convert.onnx_out import save_onnx
from hardspike.deploy.graph_file import load_graph
from hardspike.deploy.netx_file import write_netx
from hardspike.deploy.onnx_step import write_onnx_step
from hardspike.run_folder import RunFolder
from hardspike.snn.checkpoint import load_network
from hardspike.snn.errors import SettingsError


def export(command: Export, folder: RunFolder) -> Iterator[str]:
    """A line for each file written. Raises SettingsError where none is asked for."""
    if not any((command.onnx, command.nir, command.onnx_step, command.net)):
        raise SettingsError("export: no file is named; give --onnx, --nir, --onnx-step or --net")
    if command.onnx is not None:
        folder.require("convert")  # the stage that the ANN is ready for
        save_onnx(command.onnx, load_network(folder.ann))
        yield f"ONNX: {command.onnx}"
    if command.nir is not None:
        folder.require("deploy")
        write_nir(command.nir, load_network(folder.snn))
        yield f"NIR: {command.nir}"
    if command.onnx_step is not None:
        folder.require("verify")
        write_onnx_step(command.onnx_step, load_graph(folder.graph))
        yield f"ONNX, one timestep of integers: {command.onnx_step}"
    if command.net is not None:
        folder.require("verify")
        write_netx(command.net, load_graph(folder.graph))
        yield f".net: {command.net}"
