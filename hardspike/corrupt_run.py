"""`hardspike corrupt`: accuracy of a run's networks under the 15 corruptions of CIFAR-10-C."""

from typing import Any

from hardspike.attack.corruptions import CORRUPTIONS, CorruptionResult, corruption_accuracy
from hardspike.run_folder import RunFolder
from hardspike.run_networks import RunNetworks
from hardspike.show import table
from hardspike.snn.atomic import write_json
from hardspike.snn.data import ImageSet
from hardspike.snn.progress import Prefixed, Progress
from hardspike.summary import Summary


def corrupt_run(
    folder: RunFolder,
    data: ImageSet,
    targets: tuple[str, ...],
    names: tuple[str, ...],
    severities: tuple[int, ...],
    seed: int,
    progress: Progress,
) -> Summary:
    """Every corruption at every severity on every network; kept in the run's corruptions.json."""
    networks = RunNetworks(folder)
    found: dict[str, CorruptionResult] = {}
    for target in targets:
        found[target] = corruption_accuracy(
            networks.load(target),
            data.images,
            data.labels,
            severities=severities,
            names=names or None,
            seed=seed,
            progress=Prefixed(progress, f"{target}: "),
        )
    values: dict[str, Any] = {target: one.facts() for target, one in found.items()}
    write_json(folder.path / "corruptions.json", values)
    rows = [
        [name, CORRUPTIONS[name].family, *(f"{100 * one.by_corruption[name]:.1f} %" for one in found.values())]
        for name in next(iter(found.values())).accuracy
    ]
    rows.append(["mean", "", *(f"{100 * one.mean:.1f} %" for one in found.values())])
    without = [one.mean_without_noise for one in found.values()]
    if all(share is not None for share in without):
        rows.append(["mean without noise", "", *(f"{100 * share:.1f} %" for share in without if share is not None)])
    title = f"accuracy on {len(data)} corrupted test images, mean over severities {', '.join(map(str, severities))}, seed {seed}"
    return Summary(
        values,
        [table(title, ["corruption", "family", *found], rows, left=2)],
        [f"every severity: {folder.path / 'corruptions.json'}"],
    )
