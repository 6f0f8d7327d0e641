"""Which short list of attacks finds what all of them together find: how the `strong` suite was chosen.

    python benchmarks/strong_suite.py RUN[:TARGET] ... --eps 0.1 --images 200 --out strong.jsonl

Every candidate runs alone on all images that a network gets right: validation images to choose the list, test images to look
at it once. Results are appended to a file, one line per network, part, budget and candidate, so a stopped measurement continues.
The list is chosen greedily by images newly broken per second, over all networks at once, until its worst case is within 0.5
points of that of all candidates on every network; then members that are not needed for that are left out again.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from hardspike.attack.evaluation import CLEAN_ERROR, Attacker, run_members
from hardspike.attack.gradient import Logits
from hardspike.attack.members import parse_member
from hardspike.attack.suites import ensemble
from hardspike.attack.tuning import tuned
from hardspike.deploy.emulator import Emulator
from hardspike.deploy.graph_file import load_graph
from hardspike.run_folder import RunFolder
from hardspike.snn.checkpoint import load_network
from hardspike.snn.data import ImageSet, load_dataset

CANDIDATES = (
    "fgsm",
    "rfgsm",
    *ensemble("pgd20"),
    "pgd20/clip-floor",
    "pgd20+detached/triangular:0.5",
    "pgd100/triangular:0.5",
    "pgd100/exponential:1,2",
    "sa-pgd100/assg",
    "sa-pgd100/assg:0.425",
    "sa-pgd100/triangular:0.5",
    "sa-pgd100/exponential:1,2",
    "apgd-ce100/assg",
    "apgd-ce100/triangular:0.5",
    "apgd-ce100/exponential:1,2",
    "apgd-dlr100/assg",
    "apgd-dlr100/triangular:0.5",
    "pgd100/hart",
    "pgd100/rate-gradient",
    "pgd100/backward-rate",
    "pgd20@ann",
    "pgd20+detached/exponential:1,2",
    "apgd-ce100+detached/triangular:0.5",
    "apgd-ce100+detached/exponential:1,2",
    "apgd-ce100+detached/assg",
    "apgd-dlr100+detached/assg",
    "sa-pgd100+detached/assg",
    "sa-pgd100+detached/exponential:1,2",
    "square1000",
    "square5000",
    "greedy20/assg",
    "mixpgd50/triangular:0.5",
    "pgd100/pdsg",
    "apgd-t20/assg",
    "apgd-t20/triangular:0.5",
    "fab-t20/triangular:0.5",
)
POINTS = 0.005


@dataclass(frozen=True)
class Subject:
    """A network and what its attacks may be made on."""

    name: str
    model: Logits
    ann: Logits
    validation: ImageSet
    test: ImageSet


def subject(text: str, images: int) -> Subject:
    path, _, target = text.partition(":")
    folder = RunFolder.open(Path(path))
    splits = load_dataset(folder.recipe.data)
    model: Logits = Emulator(load_graph(folder.graph)) if target == "deployed" else load_network(folder.snn)
    name = f"{folder.path.parent.name}/{folder.path.name} {target or 'snn'}"
    return Subject(name, model, load_network(folder.ann), splits.validation.first(images), splits.test.first(images))


def measure(one: Subject, part: str, eps: float, out: Path, tune_images: int) -> None:
    done = {(row["network"], row["part"], row["eps"], row["candidate"]) for row in rows(out)}
    data = one.validation if part == "validation" else one.test
    attacker = Attacker(model=one.model, data=data, eps=eps, sources={"ann": one.ann}, batch_size=128)
    for name in CANDIDATES:
        if (one.name, part, eps, name) in done:
            continue
        members = (parse_member(name),)
        start = time.process_time()
        chosen = tuned(members, attacker, one.validation.first(tune_images))
        searched = time.process_time() - start
        start = time.process_time()
        try:
            *_, made = run_members(attacker, chosen)
        except Exception as error:  # an emulator has no form without spikes, and so on: say it in the file
            print(f"{one.name} {name}: {error}", flush=True)
            continue
        row = {
            "network": one.name,
            "part": part,
            "eps": eps,
            "candidate": name,
            "member": chosen[0].name,
            "seconds": time.process_time() - start,
            "search_seconds": searched,
            "clean": (made.broken_by != CLEAN_ERROR).tolist(),
            "broken": (made.broken_by == 0).tolist(),
        }
        with out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(
            f"{one.name} {part} {eps:g} {chosen[0].name}: {1 - sum(row['broken']) / max(sum(row['clean']), 1):.3f}",
            flush=True,
        )


def rows(out: Path) -> list[dict]:  # type: ignore[type-arg]
    return [json.loads(line) for line in out.read_text().splitlines()] if out.is_file() else []


def robust(found: list[dict], names: list[str]) -> float:  # type: ignore[type-arg]
    """Worst case of some candidates on one network."""
    clean = torch.tensor(found[0]["clean"])
    broken = torch.zeros_like(clean)
    for row in found:
        if row["candidate"] in names:
            broken |= torch.tensor(row["broken"])
    return float((clean & ~broken).double().mean())


def choose(groups: dict[tuple[str, float], list[dict]]) -> list[str]:  # type: ignore[type-arg]
    """Greedy, then pruned; see the module."""
    cost = {
        name: sum(r["seconds"] for g in groups.values() for r in g if r["candidate"] == name) for name in CANDIDATES
    }
    everything = list(CANDIDATES)
    chosen: list[str] = []

    def gap() -> float:
        return max(robust(g, chosen) - robust(g, everything) for g in groups.values())

    while gap() > POINTS:

        def gain(name: str) -> float:
            better = sum(robust(g, chosen) - robust(g, [*chosen, name]) for g in groups.values())
            return better / max(cost[name], 1e-6)

        chosen.append(max((n for n in CANDIDATES if n not in chosen), key=gain))
    for name in sorted(chosen, key=cost.__getitem__, reverse=True):
        rest = [n for n in chosen if n != name]
        if max(robust(g, rest) - robust(g, everything) for g in groups.values()) <= POINTS:
            chosen = rest
    return chosen


def report(out: Path) -> None:
    found = rows(out)
    parts = {part: {} for part in ("validation", "test")}  # type: ignore[var-annotated]
    for row in found:
        parts[row["part"]].setdefault((row["network"], row["eps"]), []).append(row)
    chosen = choose(parts["validation"])
    for part, groups in parts.items():
        for (network, eps), group in groups.items():
            count, clean = len(group[0]["clean"]), sum(group[0]["clean"])
            everything = robust(group, list(CANDIDATES))
            print(f"\n{part}: {network}, eps {eps:g}, n = {count}, clean {100 * clean / count:.1f} %")
            print(f"  all {len(group)} candidates {100 * everything:.1f} %, chosen {100 * robust(group, chosen):.1f} %")
            for row in sorted(group, key=lambda r: robust(group, [r["candidate"]])):
                mark = "*" if row["candidate"] in chosen else " "
                print(
                    f"  {mark} {row['member']:<34} {100 * robust(group, [row['candidate']]):6.1f} %  {row['seconds']:7.1f} s"
                )
    print("\nchosen:", ", ".join(chosen))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*")
    parser.add_argument("--eps", type=float, nargs="+", default=[0.1])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--tune-images", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path("strong_suite.jsonl"))
    parser.add_argument("--part", choices=("validation", "test"), default="validation")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for text in arguments.runs:
        one = subject(text, arguments.images)
        for eps in arguments.eps:
            measure(one, arguments.part, eps, arguments.out, arguments.tune_images)
    report(arguments.out)


if __name__ == "__main__":
    main()
