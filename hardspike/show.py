"""What a person sees on the terminal: a bar per stage, and tables of results. Plain lines where it is no terminal."""

import time
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table


class Bars:
    """`snn.progress.Progress` as one bar for each piece of work; a line when it ends where there is no terminal."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars = Progress(
            TextColumn("{task.description:<28}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._what, self._total, self._done, self._start = "", 0, 0, 0.0

    def __enter__(self) -> "Bars":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def begin(self, what: str, total: int) -> None:
        self._what, self._total, self._done, self._start = what, total, 0, time.perf_counter()
        self._task = self._bars.add_task(what, total=total, note="")

    def advance(self, units: int = 1, note: str = "") -> None:
        assert self._task is not None
        self._done += units
        self._bars.update(self._task, advance=units, note=note)
        if self._done >= self._total and not self.console.is_terminal:
            self.console.print(
                f"{self._what}: done in {time.perf_counter() - self._start:.1f} s {note}".rstrip(), highlight=False
            )


def percent(share: dict[str, Any] | None) -> str:
    return "-" if share is None else f"{100 * share['value']:.1f} %"


def table(title: str, columns: list[str], rows: list[list[str]], left: int = 1) -> Table:
    """The first `left` columns to the left, numbers to the right."""
    made = Table(title=title)
    for index, column in enumerate(columns):
        made.add_column(column, justify="left" if index < left else "right", overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def results_table(numbers: dict[str, Any]) -> Table:
    """Accuracy of ANN, SNN and deployed network, clean and at each budget, one block per network."""
    n = numbers["networks"][0]["clean"]["ann"]["n"]
    shown = Table(title=f"{numbers['run']}: accuracy on {n} test images, seed {numbers['environment']['seed']}")
    for column in ("network", "images", "ANN", "float SNN", "deployed", "deployed, worst case"):
        shown.add_column(column, justify="left" if column in ("network", "images") else "right")
    for network in numbers["networks"]:
        clean = network["clean"]
        shown.add_row(network["training"], "clean", *(percent(clean[k]) for k in ("ann", "snn", "deployed")), "")
        for budget in network["robust"]:
            white_box = budget["white_box"]
            values = [percent(white_box.get(key)) for key in ("ann", "snn", "deployed")]
            shown.add_row("", f"attacked, eps {budget['eps']:g}", *values, percent(budget["deployed_worst_case"]))
        shown.add_section()
    return shown


def equalities_table(rows: list[dict[str, Any]]) -> Table:
    """What was compared, how many values, how many differ, and where first."""
    shown = Table(title="what must be equal (rows 1 to 5), and how close the float network is (6)")
    for column in ("equality", "compared on", "values", "differ", "verdict"):
        shown.add_column(column, justify="right" if column in ("values", "differ") else "left")
    for row in rows:
        style = {"equal": "green", "DIFFERS": "bold red"}.get(row["verdict"], "")
        verdict = f"[{style}]{row['verdict']}[/]" if style else row["verdict"]
        compared = "" if row["reason"] else f"{row['compared']:,}"
        differing = "" if row["reason"] else f"{row['differing']:,}"
        details = [row["what"], row["reason"], row["first"] and f"first: {row['first']}"]
        shown.add_row(escape(row["name"]), escape("\n".join(filter(None, details))), compared, differing, verdict)
    return shown


def show_dry_run(out: Console, values: dict[str, Any]) -> None:
    """Print what a run would cost, see `hardspike.dry_run.dry_run`."""
    data = values["data"]
    shape = "x".join(map(str, data["shape"]))
    lines = [
        f"{values['recipe']}: dry run; nothing is written",
        f"stages: {', '.join(values['stages'])}",
        f"data: {data['dataset']}, {data['train']:,} training, {data['validation']:,} validation and {data['test']:,} test images "
        f"of {shape}, {data['num_classes']} classes",
    ]
    lines += [f"data: {data['missing']}"] if data["missing"] else []
    tables = []
    for network in values["networks"]:
        once = network["macs_once_per_image"]
        shared = f", {amount(once)} of them once for all timesteps" if once else ""
        lines.append(
            f"{network['name']}: {network['architecture']}, {network['training']}; {network['parameters']:,} parameters, "
            f"{network['neurons']:,} neurons, T = {network['time_steps']}; {amount(network['macs_per_step'])} "
            f"multiply-accumulates (MACs) per image and timestep{shared}"
        )
        tables.append(_training_table(network))
    for line in lines:
        out.print(line, markup=False, highlight=False, soft_wrap=True)
    for shown in tables:
        out.print(shown)
    for line in (*_other_stages(values), *DRY_RUN_NOTES):
        out.print(line, markup=False, highlight=False, soft_wrap=True)


def _other_stages(values: dict[str, Any]) -> list[str]:
    lines = []
    for network in values["networks"]:
        attack = network["attack"]
        took = [f"at most {duration(seconds)} on {target}" for target, seconds in attack["seconds"].items()]
        images = f"{attack['images']:,} images, {attack['budgets']} budget{'s' if attack['budgets'] > 1 else ''}"
        lines.append(f"attack, {network['name']}: {images}, {', '.join(took) or 'not estimated'}")
    counted = [*(one["stage"] for one in values["networks"][0]["trained"]), "attack"]
    left = ", ".join(stage for stage in values["stages"] if stage not in counted and stage != "convert")
    if left:
        lines.append(f"not estimated: {left}, and attacks on the deployed network")
    return lines


DRY_RUN_NOTES = (
    "MACs: a backward pass counts twice, one to the image alone once. Activations: the most that autograd kept at a time.",
    "Times are estimates for this machine: some steps on a few random images (and 8 timesteps at most), scaled in proportion. "
    "Small batches are slow and attacks are counted as if every image survived, so they tend to be too long; "
    "other work on the machine makes them too short.",
)


def _training_table(network: dict[str, Any]) -> Table:
    """A column for each trained stage."""
    stages = network["trained"]
    rows = [[name] + [_cell(name, one) for one in stages] for name in TRAINING_ROWS]
    for part in dict.fromkeys(part for one in stages for part in one["memory_bytes"]):
        held = [one["memory_bytes"].get(part) for one in stages]
        rows.append([f"memory: {part}", *("-" if value is None else amount(value, "B") for value in held)])
    rows.append(["memory of one batch", *(amount(sum(one["memory_bytes"].values()), "B") for one in stages)])
    searching = [one["calibration_bytes"] for one in stages]
    rows.append(["memory of the threshold search", *(amount(value, "B") if value else "-" for value in searching)])
    rows.append(["time per epoch", *(duration(one["seconds_per_epoch"]) if one["epochs"] else "-" for one in stages)])
    rows.append(["time", *(duration(one["seconds"]) for one in stages)])
    return table(network["name"], ["", *(one["stage"] for one in stages)], rows)


TRAINING_ROWS = (
    "network",
    "objective",
    "epochs",
    "images per epoch",
    "MACs per pass",
    "forward passes per image",
    "backward passes",
    "backward passes to the image",
    "MACs per epoch",
    "MACs to score an epoch",
    "MACs of the threshold search",
)


def _cell(name: str, one: dict[str, Any]) -> str:
    steps, passes = one["time_steps"], one["passes"]
    match name:
        case "network":
            return "ANN" if steps is None else f"SNN, T = {steps}"
        case "MACs per pass":
            return amount(one["macs_per_image"])
        case "MACs of the threshold search":
            return amount(one["calibration_macs"]) if one["calibration_macs"] else "-"
        case "epochs":
            return str(one["epochs"])
    if not one["epochs"]:
        return "-"
    match name:
        case "objective":
            return str(one["objective"])
        case "images per epoch":
            return f"{one['images']:,} in batches of {one['batch_size']}"
        case "forward passes per image":
            return f"{passes['forward']:g}"
        case "backward passes":
            return f"{passes['backward']:g}"
        case "backward passes to the image":
            return f"{passes['image_gradient']:g}"
        case "MACs per epoch":
            return amount(one["macs_per_epoch"])
    return amount(one["scoring_macs_per_epoch"])


def amount(value: float, unit: str = "") -> str:
    """Three digits with a decimal prefix: 4.81 G."""
    for power, prefix in ((18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if value >= 10**power:
            return f"{value / 10**power:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}".rstrip()


def duration(seconds: float) -> str:
    """In the largest unit that gives 1 or more."""
    for size, unit in ((86400 * 365, "years"), (86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s" if seconds >= 1 else "below 1 s"
