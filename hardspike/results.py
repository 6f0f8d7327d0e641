"""What finished stages left in a run folder, read back."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from hardspike.attack.adversarial_set import AdversarialSet, load_adversarial_set
from hardspike.attack.settings import AttackSettings
from hardspike.deploy.bundle import file_sha256
from hardspike.deploy.compare import Equality
from hardspike.deploy.layer_scale import LayerFit
from hardspike.deploy.replay import Replayed, ReplaySet, SetOrigin
from hardspike.deploy.replay_file import load_replayed
from hardspike.run_folder import RunFolder
from hardspike.snn.atomic import read_json
from hardspike.snn.checkpoint import load_tensors
from hardspike.snn.data import ImageSet


def layer_fits(folder: RunFolder) -> list[LayerFit]:
    """Of stage `deploy`, in layer order."""
    return [LayerFit(**fit) for fit in read_json(folder.fit, "the deploy stage's table")]


def equalities(folder: RunFolder) -> list[Equality]:
    """Of stage `verify`, in the table's order."""
    return [Equality(**row) for row in read_json(folder.equalities, "the verify stage's table")]


def adversarial_sets(
    folder: RunFolder, settings: AttackSettings | None = None, label: str = ""
) -> list[AdversarialSet]:
    """Of stage `attack`, or of another evaluation, by target, then budget, as the settings list them."""
    settings = settings or folder.recipe.attack
    paths = [folder.attack_set(target, eps, label) for target in settings.targets for eps in settings.eps]
    return [load_adversarial_set(path) for path in paths]


def replayed_sets(folder: RunFolder, label: str) -> list[Replayed]:
    """Of one replay (`RunFolder.replay_label`): clean, then by budget noise and attacks as the recipe lists the targets."""
    settings = folder.recipe.attack
    found = [load_replayed(path) for path in folder.replayed_set(label, "clean").parent.glob("*.safetensors")]
    kinds = ["clean", "noise", "attack"]
    wanted = [one for one in found if one.origin.kind == "clean" or one.origin.eps in settings.eps]
    targets = ["", *settings.targets]
    wanted = [one for one in wanted if one.origin.made_on in targets]
    return sorted(wanted, key=lambda r: (r.origin.eps, kinds.index(r.origin.kind), targets.index(r.origin.made_on)))


def energy_images(folder: RunFolder) -> dict[float, Tensor]:
    """Of `hardspike energy` on the network as it is deployed now, the class kept, by budget: one for each of the first test images."""
    found = {}
    for path in sorted(folder.energy_set(0.0).parent.glob("eps*.safetensors")):
        tensors, metadata = load_tensors(path, "energy attack")
        if metadata.get("graph") == folder.key("deploy"):
            found[float(path.stem.removeprefix("eps"))] = tensors["energy-attack-class-kept"]
    return found


def energy_attacked(folder: RunFolder, clean: ImageSet) -> list[ReplaySet]:
    """Those at the recipe's budgets, of the first of `clean`."""
    made, sets = energy_images(folder), []
    for eps in folder.recipe.attack.eps:
        images = made.get(float(f"{eps:.6g}"))
        if images is not None:
            images = images[: len(clean)]
            origin = SetOrigin(name=f"energy attack eps {eps:g}", kind="energy", eps=eps, made_on="deployed")
            sets.append(ReplaySet(origin=origin, images=images, clean=clean.first(len(images))))
    return sets


def measurements(folder: RunFolder) -> list[dict[str, Any]]:
    """Every trace taken back of the network as it is deployed now, the earliest run first."""
    paths = sorted((folder.path / "hardware").glob("*.json"))
    if not paths:
        return []
    own = file_sha256(folder.net)
    found: list[dict[str, Any]] = [read_json(path, "what a hardware trace gave") for path in paths]
    return sorted((one for one in found if one["network_sha256"] == own), key=lambda one: str(one["facts"]["started"]))


def evaluations(folder: RunFolder, targets: Sequence[str]) -> Iterator[tuple[str, AdversarialSet]]:
    """Every finished adversarial set of these networks: (label of its evaluation, '' for the recipe's own; the set)."""
    for path in sorted(folder.attacks.rglob("*-eps*.safetensors")):
        made = load_adversarial_set(path)
        if made.target in targets and made.checks:
            yield (path.parent.name if path.parent != folder.attacks else ""), made
