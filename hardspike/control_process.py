"""The control network's run as a process of its own, beside the main one: both need one core for minutes."""

import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

from hardspike.run_folder import RunFolder
from hardspike.snn.errors import HardspikeError
from hardspike.snn.progress import Progress

POLL_S = 0.2
PATIENCE_S = 10.0  # to write what an interrupted stage has, before it is killed


class ControlProcess:
    """`hardspike run FOLDER` in the background. Leaving the block before `wait` returned stops it; its run can be continued."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.log = folder.path / "log.txt"

    def __enter__(self) -> "ControlProcess":
        command = [sys.executable, "-m", "hardspike", "run", str(self.folder.path), "--quiet"]
        with self.log.open("w", encoding="utf-8") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()

    def wait(self, progress: Progress) -> None:
        """Return when the run is complete. Raises HardspikeError with its last line when it failed."""
        stages = self.folder.recipe.stages
        progress.begin("control network", len(stages))
        done = 0
        while self._process.poll() is None or done < len(stages):
            finished = sum(self.folder.finished(stage) for stage in stages)
            if finished > done:
                progress.advance(finished - done, next((s for s in stages if not self.folder.finished(s)), ""))
                done = finished
            elif self._process.poll() is not None:
                break
            time.sleep(POLL_S)
        if done < len(stages):
            raise HardspikeError(f"control network: its run failed ({last_line(self.log)}); see {self.log}")


def last_line(path: Path) -> str:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
