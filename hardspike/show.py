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
        made.add_column(column, justify="left" if index < left else "right")
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
