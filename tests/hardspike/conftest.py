"""One small run that the tests of this folder share, and a way to call the command."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from tiny_run import TINY_RECIPE, Invoke

from hardspike.cli import main


@pytest.fixture
def hardspike(capfd: pytest.CaptureFixture[str]) -> Invoke:
    def invoke(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        output = capfd.readouterr()
        return int(ended.value.code or 0), output.out, output.err

    return invoke


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A run of the tiny recipe, made once for all workers by the command itself in a process of its own."""
    shared = tmp_path_factory.getbasetemp() if worker_id == "master" else tmp_path_factory.getbasetemp().parent
    root = shared / "finished"
    with FileLock(shared / "finished.lock"):
        if not root.exists():
            _make(shared / "unfinished")
            (shared / "unfinished").rename(root)
    return root


def _make(root: Path) -> None:
    root.mkdir()
    (root / "tiny.toml").write_text(TINY_RECIPE, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "hardspike", "run", "tiny.toml"], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "report: runs/tiny/report.html" in done.stdout and "tiny: accuracy on 12 test images, seed 0" in done.stdout
    for stage in (
        "train",
        "convert",
        "deploy",
        "verify",
        "attack deployed eps 0.1",
        "replay on emulator",
        "control network",
    ):
        assert f"{stage}: done in" in done.stderr, stage


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished / "runs", tmp_path / "runs")
    return tmp_path / "runs" / "tiny"
