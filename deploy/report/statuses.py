"""The lines under a report's headline: whether the proof holds, where Lava stands, masking, and what it all ran on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hardspike.deploy.report.measured import measured_status
from hardspike.deploy.report.texts import percent, signed

Numbers = dict[str, Any]
SHIPPED = "lava-dl"


@dataclass(frozen=True, slots=True)
class Status:
    """One line under the headline. kind: good, note, warn or bad; word: the same in text, for those who see no colour."""

    kind: str
    word: str
    text: str


def statuses(numbers: Numbers) -> list[Status]:
    """Whether the proof holds, where Lava stands, masking, closeness to the float network, and what it ran on."""
    rows = proof_rows(numbers["networks"])
    return [
        _proof_status(rows),
        _lava_status(rows),
        _masking_status(numbers["networks"]),
        _closeness_status(numbers["networks"][0]),
        _backend_status(numbers["networks"][0]),
        *_measured_status(numbers["networks"][0]),
    ]


def proof_rows(networks: Sequence[Numbers]) -> list[tuple[str, Numbers]]:
    """All rows that must be equal, with the network's name; equality 5 is about lava-dl's networks, so it counts once."""
    rows: list[tuple[str, Numbers]] = []
    for network in networks:
        for row in network["equalities"]:
            entry = (SHIPPED if row["name"].startswith("5") else network["name"], row)
            if row["exact"] and (entry[0] != SHIPPED or entry not in rows):
                rows.append(entry)
    return rows


def _proof_status(rows: Sequence[tuple[str, Numbers]]) -> Status:
    differing = [f"{network}: {row['name']} ({row['differing']:,} values)" for network, row in rows if row["differing"]]
    if differing:
        return Status("bad", "fails", f"{len(differing)} of {len(rows)} comparisons differ: {'; '.join(differing)}.")
    done = [row["compared"] for _, row in rows if row["compared"]]
    if not done:
        return Status("warn", "open", "No equality could be checked.")
    values = f"{sum(done):,} values, none differs"
    if len(done) == len(rows):
        return Status("good", "holds", f"All {len(done)} comparisons of the proof hold: {values}.")
    text = f"All {len(done)} comparisons of the proof that could be made hold: {values}. {len(rows) - len(done)} could not."
    return Status("good", "holds", text)


def _lava_status(rows: Sequence[tuple[str, Numbers]]) -> Status:
    reasons = list(dict.fromkeys(row["reason"] for network, row in rows if row["reason"] and network != SHIPPED))
    if reasons:
        names = list(dict.fromkeys(row["name"] for _, row in rows if row["reason"] in reasons))
        return Status("warn", "open", f"Not compared here: {', '.join(names)}. Reason: {'; '.join(reasons)}.")
    about = [row for _, row in rows if "Lava" in row["name"] and row["compared"]]
    if not about:
        return Status("note", "note", "Nothing was compared with Lava in this run.")
    if any(row["differing"] for row in about):
        return Status("bad", "fails", "The emulator and Lava do not agree; see the proof.")
    total = sum(row["compared"] for row in about)
    text = f"Lava's fixed-point simulation of the chip agrees with the emulator in all {total:,} spikes and outputs."
    return Status("good", "holds", text)


def _masking_status(networks: Sequence[Numbers]) -> Status:
    fired = [f"{n['name']}: {check['name']}" for n in networks for check in n["checks"] if check["fired"]]
    total = sum(len(network["checks"]) for network in networks)
    if fired:
        text = f"{len(fired)} of {total} checks for gradient masking fired ({'; '.join(fired)})."
        return Status("warn", "suspect", f"{text} Read the robust accuracies as upper bounds.")
    if not total:
        return Status("warn", "open", "Gradient masking was not checked: the deployed network was not attacked itself.")
    return Status("good", "clear", f"None of {total} checks for gradient masking fired.")


def _closeness_status(network: Numbers) -> Status:
    clean = network["clean"]
    text = f"Deployment changed clean accuracy by {_points(clean['deployed'], clean['snn'])} points against the float spiking "
    return Status(
        "note", "note", f"{text}network; the two agree on {percent(network['agreement'])} of the clean images."
    )


def _backend_status(network: Numbers) -> Status:
    simulators = {"emulator": "hardspike's integer emulator", "lava": "Lava's simulator"}
    where = simulators.get(network["backend"])
    text = f"Replayed on backend {network['backend']}."
    if where:
        text = f"Results come from {where}, in software."
    if measured_status(network) is None:
        text += " No chip was used, and no power was measured." if where else " No power was measured."
    return Status("note", "note", text)


def _measured_status(network: Numbers) -> list[Status]:
    found = measured_status(network)
    return [] if found is None else [Status(found[0], {"good": "holds", "bad": "fails"}[found[0]], found[1])]


def _points(first: Numbers, second: Numbers) -> str:
    """first - second in percentage points, with its sign."""
    return signed(100 * (first["value"] - second["value"]))
