"""The report's section on runs that came back from other people's hardware: measured beside expected, and beside estimated."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hardspike.deploy.si_prefix import si, si_range

Numbers = dict[str, Any]
DASH = "\N{EN DASH}"
PLACES = {"loihi2": "Loihi 2", "simulator": "Lava's simulator"}


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """One run. costs: (quantity, measured, estimated) as text; where: what it ran on, with the board's place if it is known."""

    network: str
    where: str
    numbers: Numbers
    costs: list[tuple[str, str, str]]
    note: str


def measured_runs(networks: Sequence[Numbers]) -> list[MeasuredRun]:
    """Of all networks of a report, in their order."""
    return [
        MeasuredRun(network["name"], _where(one), one, _costs(one), _note(one))
        for network in networks
        for one in network.get("measured", ())
    ]


def section_title(runs: Sequence[MeasuredRun]) -> str:
    on_chip = any(run.numbers["backend"] == "loihi2" for run in runs)
    return "Measured on hardware" if on_chip else "The bundle's run on Lava's simulator"


def measured_status(network: Numbers) -> tuple[str, str] | None:
    """(kind, text) about a network's last run on a chip; None where there was none."""
    runs = [one for one in network.get("measured", ()) if one["backend"] == "loihi2"]
    if not runs:
        return None
    last = runs[-1]
    compared, differing = (sum(row[key] for row in last["rows"]) for key in ("compared", "differing"))
    equal = "none differs" if not differing else f"{differing:,} differ"
    text = f"On a Loihi 2, {compared:,} values were compared with the emulator's: {equal}."
    if last["rails"]:
        total = last["rails"]["total"]
        text += f" Measured: {si(total['total_j'], 'J')} per image, of which {si(total['static_j'], 'J')} static."
    return "bad" if differing else "good", text


def _where(one: Numbers) -> str:
    place = ", ".join(one["facts"]["place"].values())
    return PLACES[one["backend"]] + (f" ({place})" if place else "")


def _costs(one: Numbers) -> list[tuple[str, str, str]]:
    estimates = {
        key: [
            sum(part[key][name] * part["images"] for part in one["sets"]) / sum(part["images"] for part in one["sets"])
            for name in one["sets"][0][key]
        ]
        for key in ("estimate_j", "estimate_s")
    }
    joule, seconds = estimated(estimates["estimate_j"], "J"), estimated(estimates["estimate_s"], "s")
    steps, chip_s, total = one["steps_per_image"], one["chip_s_per_step"], one["rails"].get("total")
    rows = []
    if total is not None:
        rows = [
            ("dynamic energy", si(total["dynamic_j"], "J"), joule),
            ("static energy", si(total["static_j"], "J"), DASH),
            ("total energy", si(total["total_j"], "J"), DASH),
            ("dynamic power", si(total["dynamic_w"], "W"), DASH),
            ("static power", si(total["static_w"], "W"), DASH),
        ]
    else:
        rows = [("dynamic energy", DASH, joule)]
    rows.append(("time on the chip", DASH if chip_s is None else si(chip_s * steps, "s"), seconds))
    rows.append(("time of the host, reading out included", si(one["host_s_per_step"] * steps, "s"), DASH))
    return rows


def _note(one: Numbers) -> str:
    if one["backend"] == "simulator":
        return "A simulator has no power to measure."
    if not one["rails"]:
        why = f" ({one['not_measured']})" if one["not_measured"] else ""
        return f"Power and time per step were not measured{why}."
    chips = one["chips_on_board"]
    idle = f" The sensors cover {chips} chips; idle ones are subtracted." if chips > 1 else ""
    return (
        "Power of the chip's rails (neurocores, SRAM, I/O), in a run of its own that streams the images in and reads nothing out; "
        f"static power is that of the idle chip.{idle}"
    )


def estimated(values: Sequence[float], unit: str) -> str:
    """From the least to the largest of some estimates; says so where there is none."""
    return si_range(values, unit) if values else f"{DASH} (none is public)"
