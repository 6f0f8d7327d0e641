"""Bad NIR files end in one line that names the place."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from nir_files import foreign

from hardspike.convert.nir_file import write_nir_graph
from hardspike.convert.nir_in import read_nir
from hardspike.snn.errors import FileError, HardspikeError, UnsupportedLayerError

Edit = Callable[[Any], None]


def _put(name: str, value: Any) -> Edit:
    def edit(file: Any) -> None:
        if name in file:
            del file[name]
        if value is not None:
            file[name] = value

    return edit


def _claim(name: str) -> Edit:
    def edit(file: Any) -> None:
        del file[name]
        file.create_dataset(name, shape=(1 << 27,), dtype="f8", chunks=True)

    return edit


def _link(name: str, target: Any) -> Edit:
    def edit(file: Any) -> None:
        del file[name]
        file[name] = target

    return edit


CONV, LIF = "node/nodes/net.0", "node/nodes/net.1"
REFUSED, DAMAGED = UnsupportedLayerError, FileError
BAD: tuple[tuple[Edit, type[HardspikeError], str], ...] = (
    (_put("node", None), DAMAGED, "has no group 'node/nodes'; it is no NIR file"),
    (_put("node/type", b"LIF"), DAMAGED, "node is of type 'LIF', not NIRGraph"),
    (_put("node/edges", None), DAMAGED, "node has no dataset 'edges'"),
    (_put("node/edges", [1, 2]), DAMAGED, "node/edges has shape"),
    (_put("node/edges", [[b"in", b"nowhere"]]), DAMAGED, "edge 'in' to 'nowhere' is there twice or joins no nodes"),
    (_put("node/edges", [[b"in", b"net.0"]] * 2), DAMAGED, "is there twice"),
    (_put("node/edges", [[b"net.0", b"net.1"], [b"net.1", b"net.0"]]), REFUSED, "is part of a cycle or behind one"),
    (_put("node/edges", [[b"in", b"out"]]), DAMAGED, r"node 'net.0' \(Conv2d\) has 0 inputs"),
    (_put(f"{CONV}/type", 3), DAMAGED, "node 'net.0': dataset 'type' is not one text"),
    (_put(f"{CONV}/weight", None), DAMAGED, r"node 'net.0' \(Conv2d\): 'weight' is missing"),
    (_put(f"{CONV}/weight", np.zeros((3, 2, 3))), DAMAGED, r"'weight' has shape \(3, 2, 3\) of float64.*on 4 axes"),
    (_put(f"{CONV}/weight", np.zeros((3, 5, 3, 3))), DAMAGED, "1 groups do not fit an input of"),
    (_put(f"{CONV}/weight", np.full((3, 2, 3, 3), np.nan)), DAMAGED, "holds a value that is not finite"),
    (_put(f"{CONV}/weight", b"text"), DAMAGED, "'weight' has shape .* it must be numbers on 4 axes"),
    (_claim(f"{CONV}/weight"), DAMAGED, "dataset 'weight' claims 134217728 values"),
    (_link(f"{CONV}/weight", h5py.ExternalLink("/etc/hosts", "x")), DAMAGED, "'weight' is missing"),
    (_link(f"{CONV}/weight", h5py.SoftLink("/node/nodes/net.4/weight")), DAMAGED, "has no dataset 'weight'"),
    (_link(CONV, h5py.SoftLink("/node/nodes/net.1")), DAMAGED, "node 'net.0' is no group"),
    (_put(f"{CONV}/stride", -1), DAMAGED, r"'stride' is \[-1\]; it must be integers from 1"),
    (_put(f"{CONV}/stride", [1, 1, 1]), DAMAGED, "must be one or two numbers"),
    (_put(f"{CONV}/stride", 1e12), DAMAGED, "must be integers from 1 to"),
    (_put(f"{CONV}/padding", -1), DAMAGED, "'padding' is"),
    (_put(f"{CONV}/padding", b"mirror"), REFUSED, "padding 'mirror' is not the same at begin and end"),
    (_put(f"{CONV}/groups", [1, 1]), DAMAGED, "'groups' is .* must be one number"),
    (_put(f"{CONV}/input_shape", [6, 6]), DAMAGED, r"its input_shape is not \(6, 8\)"),
    (_put(f"{CONV}/dilation", 9), DAMAGED, "would have output shape"),
    (_put("node/nodes/in/shape", [2, 0, 8]), DAMAGED, "'shape' is"),
    (_put("node/nodes/in/shape", [2, 1 << 40, 8]), DAMAGED, "'shape' is"),
    (_put("node/nodes/in/shape", [3, 2, 6, 8]), REFUSED, "without the batch"),
    (_put("node/nodes/in/type", b"Output"), DAMAGED, r"node 'in' \(Output\) has 0 inputs"),
    (_put("node/nodes/out/type", b"Input"), DAMAGED, r"node 'out' \(Input\) has 1 inputs"),
    (_put("node/nodes/net.2/stride", 1), REFUSED, r"kernel \(2, 2\), stride \(1, 1\).*windows side by side"),
    (_put("node/nodes/net.3/start_dim", 1), REFUSED, "start_dim 1 and end_dim -1 leave axes"),
    (
        _put("node/nodes/net.4/weight", np.zeros((5, 35))),
        DAMAGED,
        r"weight has shape \(5, 35\), but its input has \(36,\)",
    ),
    (_put(f"{LIF}/type", b"CubaLI"), REFUSED, r"node 'net.1' \(CubaLI\) is not supported: it integrates over time"),
    (_put(f"{LIF}/type", b"Threshold"), REFUSED, "has no potential; use IF"),
    (_put(f"{LIF}/type", b"NIRGraph"), REFUSED, "a graph in itself"),
    (_put(f"{LIF}/type", b"Resonator"), REFUSED, "it is unknown; supported are Input"),
    (_put("node/metadata/hardspike", b"[]"), DAMAGED, "metadata 'hardspike' of the graph is not what we write there"),
    (_put("node/metadata/hardspike", b'{"dt": "1"}'), DAMAGED, "is not what we write there"),
    (_put("node/metadata/hardspike", b"[" * 100_000), DAMAGED, "is not what we write there"),
    (
        _put("node/metadata/hardspike", b'{"image": {"mean": [NaN], "std": [1]}}'),
        DAMAGED,
        "metadata of the image are not",
    ),
    (
        _put("node/metadata/hardspike", b'{"nodes": {"net.1": {"leak": 1%s}}}' % (b"0" * 400)),
        DAMAGED,
        "not what we write",
    ),
    (
        _put("node/metadata/hardspike", b'{"nodes": {"net.1": {"neuron": {"reset": "no"}, "leak": 1}}}'),
        DAMAGED,
        "reset = 'no'",
    ),
)


@pytest.mark.parametrize(("edit", "error", "message"), BAD)
def test_bad_file_is_one_clear_line(edit: Edit, error: type[HardspikeError], message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.nir"
    write_nir_graph(path, foreign())
    with h5py.File(path, "r+") as file:
        edit(file)
    with pytest.raises(error, match=message) as caught:
        read_nir(path, dt=1e-4, time_steps=3)
    assert type(caught.value) is error
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such file; expected a NIR file"):
        read_nir(tmp_path / "none.nir")
    (tmp_path / "text.nir").write_text("not HDF5 at all")
    with pytest.raises(FileError, match="not readable as HDF5"):
        read_nir(tmp_path / "text.nir")
