"""The folder of one run: where each file is, which stages have finished, and with which settings."""

import hashlib
import json
import platform
import subprocess
import sys
import time
from dataclasses import asdict
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from hardspike import __version__
from hardspike.recipe import STAGES, Recipe, first_difference, read_recipe
from hardspike.snn.atomic import read_json, write_json, write_text
from hardspike.snn.errors import FileError, SettingsError

PACKAGES = ("torch", "numpy", "h5py", "safetensors", "scikit-learn", "lava-nc", "lava-dl", "hardspike")


class RunFolder:
    """Paths and records of one run. Raises FileError when the folder is not a run, or was made with another recipe."""

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self.path, self.recipe = path, recipe
        self.ann, self.snn, self.graph = path / "ann.safetensors", path / "snn.safetensors", path / "graph.safetensors"
        # The float network that the graph was compiled from.
        self.compiled = path / "finetuned.safetensors" if recipe.deploy.finetune_epochs else self.snn
        self.net, self.fit, self.equalities = path / "network.net", path / "fit.json", path / "verify.json"
        self.overflows = path / "overflow.json"
        self.attacks, self.traces = path / "adversarial", path / "traces"
        self.report_json, self.report_html = path / "report.json", path / "report.html"

    @staticmethod
    def open(path: Path) -> "RunFolder":
        """An existing run."""
        saved = path / "recipe.toml"
        if not saved.is_file():
            raise FileError(f"{path}: is not a run folder (no recipe.toml); start one with: hardspike run RECIPE.toml")
        return RunFolder(path, read_recipe(saved))

    @staticmethod
    def create(path: Path, recipe: Recipe, *, update: bool = False) -> "RunFolder":
        """A new run, or the same one again. `update` adopts a changed recipe; stages it touches are done again."""
        saved = path / "recipe.toml"
        if saved.is_file() and not update:
            difference = first_difference(read_recipe(saved), recipe)
            if difference:
                raise SettingsError(
                    f"{path}: was made with another recipe ({difference}); give another --name, or --update to redo what changed"
                )
        elif path.exists() and not saved.is_file() and any(path.iterdir()):
            raise FileError(f"{path}: is not empty and no run folder; give another --name")
        folder = RunFolder(path, recipe)
        write_text(saved, recipe.to_toml())
        return folder

    def state(self, stage: str) -> Path:
        return self.path / f"{stage}.state.safetensors"

    def attack_set(self, target: str, eps: float, label: str = "") -> Path:
        """label: of an evaluation other than the recipe's own."""
        return self.attacks / label / f"{target}-eps{eps:g}.safetensors"

    def energy_set(self, eps: float) -> Path:
        """Images of `hardspike energy` at one budget."""
        return self.path / "energy" / f"eps{eps:.6g}.safetensors"

    def replay_label(self, backend: str, images: int) -> str:
        """The recipe's own replay is kept by backend; any other names its images too, and never replaces it."""
        own = self.recipe.replay
        return backend if (backend, images) == (own.backend, own.images) else f"{backend}-{images}"

    def replayed_set(self, label: str, name: str) -> Path:
        return self.traces / label / f"{name.replace(' ', '-')}.safetensors"

    def key(self, stage: str) -> str:
        """Says what the result of a stage depends on: its settings and those of everything it builds on."""
        settings: dict[str, Any] = {"stage": stage, "threads": self.recipe.threads, "version": __version__}
        settings["settings"] = asdict(getattr(self.recipe, stage))
        settings["needs"] = [self.key(needed) for needed in self.recipe.needs(stage)]
        if stage == "train":
            if self.recipe.train.network_file:
                settings["network_file"] = _content(Path(self.recipe.train.network_file))
            settings |= {"data": asdict(self.recipe.data), "network": asdict(self.recipe.network)}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]

    def finished(self, stage: str) -> bool:
        return bool(self._records().get(stage, {}).get("key") == self.key(stage))

    def require(self, stage: str) -> None:
        """Raise FileError unless everything `stage` builds on has finished with this recipe."""
        if stage not in self.recipe.stages:
            raise FileError(f"{self.path}: its recipe has no stage '{stage}' (deploy.enabled = false)")
        for needed in self.recipe.needs(stage):
            if not self.finished(needed):
                raise FileError(
                    f"{self.path}: stage '{stage}' needs '{needed}', which has not finished with this recipe; "
                    f"run: hardspike {needed} {self.path}"
                )

    def require_finished(self, stage: str) -> None:
        """Raise FileError unless `stage` itself has finished with this recipe."""
        if stage not in self.recipe.stages or not self.finished(stage):
            self.require(stage)
            raise FileError(
                f"{self.path}: stage '{stage}' has not finished with this recipe; run: hardspike {stage} {self.path}"
            )

    def seconds(self) -> dict[str, float]:
        """Wall time of each finished stage."""
        return {stage: record["seconds"] for stage, record in self._records().items() if "seconds" in record}

    def commits(self) -> set[str | None]:
        """Commits of the source tree that the finished stages were made with."""
        return {record["commit"] for record in self._records().values() if "commit" in record}

    def finish(self, stage: str, seconds: float) -> None:
        record = {
            "key": self.key(stage),
            "seconds": round(seconds, 2),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "commit": commit(),
        }
        write_json(self.path / "stages.json", self._records() | {stage: record})

    def begin(self, stage: str, *, anew: bool) -> None:
        """The stage is about to change its files: it and what builds on it are no longer finished.

        What an interrupted stage left is kept for it to continue, unless it is to be done `anew` or depends on something else now.
        """
        continues = self._records().get(stage, {}).get("begun") == self.key(stage)
        if anew or not continues:
            for path in self._partial(stage):
                path.unlink(missing_ok=True)
        gone = {stage}
        for later in STAGES:
            if gone & set(self.recipe.needs(later)):
                gone.add(later)
        kept = {name: record for name, record in self._records().items() if name not in gone}
        write_json(self.path / "stages.json", kept | {stage: {"begun": self.key(stage)}})
        if stage != "report":  # a report only shows what was made before
            write_json(self.path / "environment.json", environment(self.recipe))

    def _partial(self, stage: str) -> list[Path]:
        """Files that an interrupted stage continues from."""
        return list(self.attacks.glob("*.safetensors")) if stage == "attack" else [self.state(stage)]

    def log(self, stage: str, values: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"stage": stage, **values}) + "\n")

    def last_metrics(self, stage: str) -> dict[str, float]:
        """Validation numbers of the best epoch of the stage's last training, from metrics.jsonl; none where it trained nothing."""
        lines = (self.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        epochs: list[dict[str, Any]] = []
        for entry in map(json.loads, lines):
            if entry["stage"] == stage:
                epochs = [entry] if entry["epoch"] == 1 else [*epochs, entry]
        if not epochs:
            return {}
        best = max(epochs, key=lambda entry: (entry["score"], entry["epoch"]))
        return {key: value for key, value in best.items() if key.startswith("validation") or key in ("epoch", "loss")}

    def _records(self) -> dict[str, Any]:
        path = self.path / "stages.json"
        return dict(read_json(path, "the record of finished stages")) if path.exists() else {}


def _content(path: Path) -> str:
    """Says what a file holds; '' while it is not there."""
    if not path.is_file():
        return ""
    status = path.stat()
    return _digest(path, status.st_mtime_ns, status.st_size)


@cache
def _digest(path: Path, modified_ns: int, size: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def environment(recipe: Recipe) -> dict[str, Any]:
    """What a number depends on besides the recipe."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
        "versions": versions,
        "commit": commit(),
        "threads": recipe.threads,
        "seed": recipe.network.seed,
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def commit() -> str | None:
    """The commit of the source tree hardspike runs from, with '+' where it has changes; None outside a checkout."""
    root = Path(__file__).resolve().parents[1]
    if not (root / "pyproject.toml").is_file():  # installed: the folder above is not our checkout
        return None
    try:
        shown = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return shown.stdout.strip()
