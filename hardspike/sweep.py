"""Many runs at once: every recipe with every seed, as processes beside each other, continued where they stopped."""

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hardspike.control_process import last_line
from hardspike.recipe import Recipe, read_recipe
from hardspike.run_folder import RunFolder
from hardspike.snn.errors import FileError, HardspikeError, SettingsError
from hardspike.snn.progress import Progress
from hardspike.snn.ranges import require

POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Job:
    """One recipe with one seed, in a run folder of its own."""

    recipe: Path
    method: str
    seed: int
    folder: Path

    @property
    def log(self) -> Path:
        return self.folder.with_name(self.folder.name + ".log")

    def is_complete(self) -> bool:
        if not (self.folder / "recipe.toml").is_file():
            return False
        run = RunFolder.open(self.folder)
        same = run.recipe == self.resolved()
        return same and all(run.finished(stage) for stage in run.recipe.stages)

    def resolved(self) -> Recipe:
        return read_recipe(self.recipe, self.changes())

    def changes(self) -> tuple[str, ...]:
        return (f"network.seed={self.seed}",)

    def command(self) -> list[str]:
        """Without --update: a run made with another recipe is refused, not overwritten."""
        changes = [argument for change in self.changes() for argument in ("--set", change)]
        return [
            *(sys.executable, "-m", "hardspike", "run", str(self.recipe), "--quiet"),
            *("--out", str(self.folder.parent), "--name", self.folder.name, *changes),
        ]


def jobs(recipes: Sequence[Path], seeds: Sequence[int], out: Path) -> list[Job]:
    """Seed by seed, so that a sweep that is stopped has compared all recipes on the first seeds.

    A folder stands for the recipes in it. Raises FileError where there are none, HardspikeError for a recipe that is wrong.
    """
    if not recipes:
        raise SettingsError(
            "sweep: no recipe is named; give .toml files, or folders of them, e.g. train/recipes/fashion"
        )
    files = [file for path in recipes for file in (sorted(path.glob("*.toml")) if path.is_dir() else [path])]
    if not files:
        raise FileError(
            f"{', '.join(map(str, recipes))}: no recipes there; give .toml files, or a folder that holds some"
        )
    methods = [read_recipe(file).name for file in files]
    repeated = {name for name in methods if methods.count(name) > 1}
    if repeated:
        raise FileError(f"recipes: the name '{repeated.pop()}' appears twice; give every recipe a name of its own")
    require("seeds", list(seeds), bool(seeds) and len(set(seeds)) == len(seeds), "give each seed once")
    return [
        Job(file, method, seed, out / f"{method}-seed{seed}")
        for seed in seeds
        for file, method in zip(files, methods, strict=True)
    ]


def run_jobs(todo: Sequence[Job], processes: int, progress: Progress) -> None:
    """Run what is not complete, `processes` at a time. Raises HardspikeError, after all others have ended, naming what failed."""
    require("jobs", processes, processes >= 1, "use 1 or more")
    waiting = [job for job in todo if not job.is_complete()]
    progress.begin("runs", len(todo))
    progress.advance(len(todo) - len(waiting), "complete before")
    running: dict[str, tuple[Job, subprocess.Popen[bytes]]] = {}
    failed: list[str] = []
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                job = waiting.pop(0)
                running[str(job.folder)] = (job, _start(job))
            for key, (job, process) in list(running.items()):
                if process.poll() is None:
                    continue
                del running[key]
                if process.returncode:
                    failed.append(f"{job.folder.name} ({last_line(job.log)})")
                progress.advance(note=job.folder.name)
            time.sleep(POLL_S)
    finally:  # Ctrl-C: what they have is kept, and continued
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.wait()
    if failed:
        raise HardspikeError(f"sweep: {len(failed)} of {len(todo)} runs failed: {'; '.join(failed)}")


def _start(job: Job) -> "subprocess.Popen[bytes]":
    job.folder.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("w", encoding="utf-8") as log:
        return subprocess.Popen(job.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
