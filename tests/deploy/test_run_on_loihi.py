"""The bundle's program on Lava, alone in a folder: what it brings back is what the emulator says, and no process stays behind.

There is no chip here. Its path runs on the simulator with stand-ins for Intel's extension that are as its public users call it
(lava-dl, tests/lava/lib/dl/netx/test_hdf5_nx.py and tutorials/lava/lib/dl/netx/pilotnet_snn/benchmark.ipynb): that shows that the
program's own steps fit together, not that they fit a chip.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hardware_traces import PROVENANCE, Sent, made_trace, sent, spiking_output, unpacked
from needs_lava import needs_lava
from random_graphs import CASES

from hardspike.deploy.bundle import write_bundle
from hardspike.deploy.hardware_check import Measurement, check_trace
from hardspike.deploy.hardware_trace import read_hardware_trace
from hardspike.hw_profiles.profile import load_profile


def bundled(made: Sent, folder: Path) -> Path:
    write_bundle(folder / "out.zip", made.graph, made.net, made.sets, PROVENANCE)
    return unpacked(folder / "out.zip", folder / "alone")


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In the folder, with an environment that does not know this project."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def judged(made: Sent, path: Path) -> Measurement:
    trace = read_hardware_trace(path, made.graph, made.network_sha256, made.sets)
    return check_trace(trace, made.graph, made.sets, load_profile("loihi1"))


@pytest.mark.slow
@needs_lava
def test_the_program_alone_on_the_simulator_gives_the_emulators_values(tmp_path: Path) -> None:
    made = sent(replace(CASES[9], constant_channels=2), tmp_path)
    folder = bundled(made, tmp_path)
    done = python(folder, "run_on_loihi.py", "--backend", "simulator", "--states")
    assert done.returncode == 0, done.stderr
    assert "clean: 4 images" in done.stdout and "the same class for 1.000" in done.stdout
    assert ": 0 of 119 differ from the expected\nwrote trace.npz\n" in done.stdout
    found = judged(made, folder / "trace.npz")
    assert found.equal and [row.differing for row in found.rows] == [0] * 6
    assert sum(row.compared for row in found.rows) > 7 * 6 * 355
    assert found.host_s_per_step > 0 and found.rails == {} and found.facts["versions"]["lava-nc"] == "0.10.0"
    # What the tests without Lava are made with is what the program writes.
    expected = made_trace(made.graph, made.network_sha256, made.sets)
    with np.load(folder / "trace.npz", allow_pickle=False) as archive:
        arrays = dict(archive)
    facts = json.loads(str(arrays.pop("facts")))
    assert arrays.keys() == expected.arrays.keys() and facts.keys() == expected.facts.keys()
    varying = ("versions", "started", "seconds")
    for key, value in expected.facts.items():
        assert key in varying or facts[key] == value, key
    for name, array in expected.arrays.items():
        last = name.startswith("potentials") and name != "potentials.2"  # read when no image follows
        assert (arrays[name].dtype, arrays[name].shape) == (array.dtype, array.shape), name
        assert name == "wall_s" or np.array_equal(arrays[name][: -1 if last else None], array[: -1 if last else None])


SCENARIOS = """
import importlib, json, multiprocessing, sys
import run_on_loihi as program

def run(*arguments):
    code = program.main(list(arguments))
    print(json.dumps([code, len(multiprocessing.active_children())]))

run("--backend", "simulator", "--period", "8", "--out", "padded.npz")
program.STREAM_BYTES = 4 * 70 * 6 * 2  # two images at a time
run("--backend", "simulator", "--layers", "output", "--images", "3", "--out", "streams.npz")
program.STREAM_BYTES = 1 << 28
run("--backend", "simulator", "--images", "1", "--output-delay", "1", "--out", "late.npz")

# Stand-ins for the extension.
import types
import numpy as np
from lava.magma.core import run_configs
from lava.proc.graded.process import GradedVec
from lava.utils import loihi
import lava.proc, lava.utils

calls = []

class Relay:
    def __init__(self, shape, num_message_bits=0):
        calls.append((type(self).__name__, [int(side) for side in shape], num_message_bits))
        relay = GradedVec(shape=shape, vth=0)
        self.inp, self.out = relay.a_in, relay.s_out

spike = types.ModuleType("lava.proc.embedded_io.spike")
for name in ("PyToN3ConvAdapter", "PyToNxAdapter", "NxToPyAdapter"):
    setattr(spike, name, type(name, (Relay,), {}))
sys.modules["lava.proc.embedded_io"] = types.ModuleType("lava.proc.embedded_io")
sys.modules["lava.proc.embedded_io.spike"] = spike

class Loihi2Power:
    def __init__(self, num_steps):
        self.num_steps = num_steps
        self.total_power, self.vdd_power, self.vddm_power, self.vddio_power = (np.full(5, x) for x in (0.6, 0.3, 0.25, 0.05))
        self.static_total_power, self.static_vdd_power, self.static_vddm_power, self.static_vddio_power = 0.2, 0.1, 0.07, 0.03

class Loihi2ExecutionTime:
    execution_time_per_step = np.full(7, 40.0)

profiler = types.ModuleType("lava.utils.loihi2_profiler")
profiler.Loihi2Power, profiler.Loihi2ExecutionTime = Loihi2Power, Loihi2ExecutionTime
sys.modules["lava.utils.loihi2_profiler"] = lava.utils.loihi2_profiler = profiler
loihi.is_installed = lambda module_name="": True

class HwCfg(run_configs.Loihi2SimCfg):
    def __init__(self, exception_proc_model_map, callback_fxs):
        super().__init__(select_tag="fixed_pt", exception_proc_model_map=exception_proc_model_map)
        calls.append(("HwCfg", [getattr(one, "num_steps", None) for one in callback_fxs]))

run_configs.Loihi2HwCfg = HwCfg
run("--backend", "loihi2", "--layers", "all", "--measure-steps", "57", "--out", "chip.npz")
del profiler.Loihi2Power
run("--backend", "loihi2", "--images", "1", "--out", "unmeasured.npz")
run("--backend", "loihi2", "--host", "slurm", "--out", "none.npz")
run("--backend", "loihi2", "--host", "ethernet", "--out", "none.npz")

class Failing:
    def __init__(self, *_, **__):
        raise ZeroDivisionError("first line\\nsecond line")

spike.NxToPyAdapter = Failing
run("--backend", "loihi2", "--images", "1", "--out", "none.npz")
print(json.dumps(calls))
"""


@needs_lava
@pytest.mark.slow
def test_periods_streams_delays_and_the_path_of_a_chip(tmp_path: Path) -> None:
    made = spiking_output(sent(CASES[0], tmp_path))
    folder = bundled(made, tmp_path)
    (folder / "scenarios.py").write_text(SCENARIOS)
    done = python(folder, "scenarios.py")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    results = [json.loads(line) for line in lines if line.startswith("[")]
    assert results[:-1] == [[0, 0], [0, 0], [1, 0], [0, 0], [0, 0], [1, 0], [1, 0], [1, 0]], done.stdout + done.stderr

    assert judged(made, folder / "padded.npz").equal and judged(made, folder / "padded.npz").steps_per_image == 8
    streams = read_hardware_trace(folder / "streams.npz", made.graph, made.network_sha256, made.sets)
    assert streams.streams == (2, 2, 2) and list(streams.spikes) == ["output"]
    assert judged(made, folder / "streams.npz").equal
    assert not judged(made, folder / "late.npz").equal

    chip = judged(made, folder / "chip.npz")
    assert chip.equal and chip.backend == "loihi2" and chip.steps_per_image == 8
    assert chip.rails["total"].static_w == 0.2 and chip.rails["vdd"].dynamic_w == pytest.approx(0.2)
    assert chip.chip_s_per_step == pytest.approx(40e-6)
    left = judged(made, folder / "unmeasured.npz")
    assert left.equal and left.rails == {} and "Loihi2Power" in left.not_measured
    assert not (folder / "none.npz").exists()
    calls = results[-1]
    inputs = ["PyToN3ConvAdapter", [5, 7, 2], 8]
    outputs = [["NxToPyAdapter", [5, 7, 6], 0], ["NxToPyAdapter", [5, 7, 4], 0], ["NxToPyAdapter", [5], 0]]
    # The measurement reads nothing out and runs whole periods: 7 images of 8 steps are 56, so 57 become 64.
    assert calls[:7] == [inputs, *outputs, ["HwCfg", []], inputs, ["HwCfg", [64, None]]]
    for text in (
        "power and time were not measured: AttributeError",
        "run_on_loihi: --host slurm: ",
        "run_on_loihi: --host ethernet: give --address too",
        "run_on_loihi: Lava failed (ZeroDivisionError: first line)",
    ):
        assert text in done.stderr
    assert "second line" not in done.stderr and "Traceback" not in done.stderr


@needs_lava
@pytest.mark.slow
def test_a_run_that_takes_too_long_ends_with_one_line(tmp_path: Path) -> None:
    made = sent(CASES[10], tmp_path)
    folder = bundled(made, tmp_path)
    script = (
        "import multiprocessing, signal, time\nimport run_on_loihi as program\nfrom lava.magma.runtime.runtime import Runtime\n"
        "def hang(runtime, condition):\n"
        "    left_s, _ = signal.setitimer(signal.ITIMER_REAL, 0.01)\n"
        "    print('waits' if 0 < left_s <= 600 else 'no alarm')\n"
        "    time.sleep(60)\n"
        "Runtime.start = hang\n"
        "code = program.main(['--backend', 'simulator', '--timeout-s', '600'])\n"
        "print(code, len(multiprocessing.active_children()))\n"
    )
    (folder / "hang.py").write_text(script)
    done = python(folder, "hang.py")
    assert done.stdout.splitlines()[-1:] == ["1 0"], done.stdout + done.stderr
    assert "waits" in done.stderr.splitlines()
    assert "steps took Lava over 600 s; give more with --timeout-s" in done.stderr and "Traceback" not in done.stderr
    assert not (folder / "trace.npz").exists()


def test_on_a_machine_without_intels_extension_loihi2_ends_with_one_line(tmp_path: Path) -> None:
    folder = bundled(sent(replace(CASES[10], image=(4, 1, 1)), tmp_path), tmp_path)
    done = python(folder, "run_on_loihi.py", "--backend", "loihi2")
    assert done.returncode == 1 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("run_on_loihi: ") and ("Intel's Lava extension" in line or "Lava is not installed" in line)
