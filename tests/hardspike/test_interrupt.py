"""Ctrl-C during a run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_run import TINY_RECIPE

from hardspike.snn.checkpoint import load_network


@pytest.mark.slow
def test_ctrl_c_leaves_a_run_that_continues_to_the_same_bits(tmp_path: Path) -> None:
    """Interrupted during training, as soon as an epoch is on disk; the continued run equals the undisturbed one.

    Six epochs, so that seconds of training are left when the first one is seen.
    """
    recipe = TINY_RECIPE.split("[control.train]")[0].replace("epochs = 2", "epochs = 6", 1)
    (tmp_path / "tiny.toml").write_text(recipe, encoding="utf-8")

    def command(run: str) -> list[str]:
        return [sys.executable, "-m", "hardspike", "train", run, "--recipe", "tiny.toml", "--quiet"]

    process = subprocess.Popen(
        command("run"),
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"NO_COLOR": "1"},
        # A shell that runs the tests in the background has them ignore Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    state = tmp_path / "run" / "train.state.safetensors"
    for _ in range(3000):
        if state.exists() or process.poll() is not None:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "the same command continues" in err and "Traceback" not in err
    assert not (tmp_path / "run" / "ann.safetensors").exists()
    for run in ("run", "undisturbed"):
        assert subprocess.run(command(run), cwd=tmp_path, check=False).returncode == 0
    first = load_network(tmp_path / "undisturbed" / "ann.safetensors").state_dict()
    again = load_network(tmp_path / "run" / "ann.safetensors").state_dict()
    assert all(bool((first[name] == again[name]).all()) for name in first)
