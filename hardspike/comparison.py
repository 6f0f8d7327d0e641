"""One table over the runs of a sweep: per method and attacked network the mean over seeds, with the spread."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import mean, stdev
from typing import Any

from hardspike.results import adversarial_sets
from hardspike.run_folder import RunFolder
from hardspike.sweep import Job

COLUMNS = ("method", "network", "eps", "n", "clean", "FGSM", "worst", "min")


@dataclass(frozen=True, slots=True)
class Row:
    """Accuracies per seed. fgsm: worst case over the FGSM members; worst: over all members. seconds: of all stages, per seed."""

    method: str
    network: str
    eps: float
    images: int
    seeds: tuple[int, ...]
    clean: tuple[float, ...]
    fgsm: tuple[float, ...]
    worst: tuple[float, ...]
    seconds: tuple[float, ...]
    commits: tuple[str, ...]

    def cells(self) -> list[str]:
        shown = [_percent(values) for values in (self.clean, self.fgsm, self.worst)]
        minutes = mean(self.seconds) / 60
        return [self.method, self.network, f"{self.eps:g}", str(len(self.seeds)), *shown, f"{minutes:.1f}"]


def _percent(values: Sequence[float]) -> str:
    """Mean ± sample standard deviation, in percent."""
    spread = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.1f}{spread}"


def comparison(jobs: Sequence[Job]) -> list[Row]:
    """Of the complete runs among `jobs`, in their order."""
    found: dict[tuple[str, str, float], list[tuple[Job, Any]]] = {}
    for job in jobs:
        if job.is_complete():
            for made in adversarial_sets(RunFolder.open(job.folder)):
                found.setdefault((job.method, made.target, made.evaluation.eps), []).append((job, made))
    rows = []
    for (method, network, eps), entries in found.items():
        folders = [RunFolder.open(job.folder) for job, _ in entries]
        rows.append(
            Row(
                method,
                network,
                eps,
                images=len(entries[0][1].clean),
                seeds=tuple(job.seed for job, _ in entries),
                clean=tuple(made.evaluation.clean_accuracy for _, made in entries),
                fgsm=tuple(_after_fgsm(made.evaluation) for _, made in entries),
                worst=tuple(made.evaluation.robust_accuracy for _, made in entries),
                seconds=tuple(sum(folder.seconds().values()) for folder in folders),
                commits=tuple(sorted({str(commit) for folder in folders for commit in folder.commits()})),
            )
        )
    return rows


def _after_fgsm(evaluation: Any) -> float:
    """Worst case over the FGSM members, which count only where they come before all others; clean accuracy without any."""
    after, last = evaluation.accuracy_after(), evaluation.clean_accuracy
    for name in evaluation.members:
        if not name.startswith("fgsm"):
            break
        last = after[name]
    return float(last)


def markdown(rows: Sequence[Row], jobs: Sequence[Job], command: str) -> str:
    """The table as text for a file, with what the numbers are of; marked as partial where runs are missing."""
    complete = sum(job.is_complete() for job in jobs)
    lines = []
    if complete < len(jobs):
        lines += [f"**Partial: {complete} of {len(jobs)} runs are complete.** Continue with `{command}`.", ""]
    lines += ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(row.cells()) + " |" for row in rows]
    if rows:
        attack = RunFolder.open(next(job for job in jobs if job.is_complete()).folder).recipe.attack
        members = [member.name for member in attack.parsed()]
        commits = sorted({commit for row in rows for commit in row.commits})
        minutes = sum(sum(row.seconds) for row in {row.method: row for row in rows}.values()) / 60
        lines += [
            "",
            f"Percent of {rows[0].images} test images, mean ± standard deviation over the n seeds "
            f"{', '.join(map(str, sorted({seed for row in rows for seed in row.seeds})))}; "
            f"commit {', '.join(commits)}; {minutes:.0f} minutes summed over the runs; `{command}`.",
            "",
            "FGSM: worst case per image over the `fgsm` members; worst: over all. Min: minutes of one run, training and attacks. "
            f"Members in this order: {', '.join(f'`{name}`' for name in members)}.",
        ]
    return "\n".join(lines) + "\n"


def values(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [asdict(row) for row in rows]
