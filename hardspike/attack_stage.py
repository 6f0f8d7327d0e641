"""Attacks on the networks of a run: which network, with which suite, continued where it was, and where the sets are kept."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from hardspike.attack.adversarial_set import AdversarialSet, load_adversarial_set, save_adversarial_set
from hardspike.attack.evaluation import Attacker
from hardspike.attack.masking import probe
from hardspike.attack.members import Member, parse_member
from hardspike.attack.robustness import continued, evaluation_identity
from hardspike.attack.settings import AttackSettings
from hardspike.attack.suites import distinct
from hardspike.attack.tuning import tuned
from hardspike.run_folder import RunFolder
from hardspike.run_networks import RunNetworks
from hardspike.snn.atomic import read_json, write_json
from hardspike.snn.data import ImageSet, Splits
from hardspike.snn.parallel import current_group
from hardspike.snn.progress import Progress


def attack_networks(
    folder: RunFolder,
    settings: AttackSettings,
    label: str,
    splits: Splits,
    progress: Progress,
    backend: str = "emulator",
) -> None:
    """Every target at every budget; each set is written after every member, and checked for masking at the end.

    label: of the folder of the sets; '' for the recipe's own. backend: that the deployed network is judged on; only the
    emulator has gradients. Raises FileError where a set there was made for something else.
    """
    data = splits.test.first(settings.images)
    group = current_group()
    for target in settings.targets:
        for eps in settings.eps:
            path = folder.attack_set(target, eps, label)
            networks = RunNetworks(folder, backend)  # for every budget anew: noise of their own starts from its seed
            attacker = Attacker(
                model=networks.judged(target),
                data=data,
                eps=eps,
                norm=settings.norm,
                grid=networks.grid if target == "deployed" and settings.norm == "linf" else None,
                seed=settings.seed,
                sources={source: networks.load(source) for source in settings.sources()},
                group=group,
            )
            members = settings.parsed()
            if target == "ann":
                members = distinct(members)
            made_of = f"{folder.key('deploy' if folder.recipe.deploy.enabled else 'convert')} {target}"
            if settings.tune_images and not settings.without_gradients():
                kept = path.with_suffix(".tuned.json")
                validation = splits.validation.first(settings.tune_images)
                members = _tuned_once(kept, members, attacker, validation, made_of)
            progress.begin(f"attack {target} eps {eps:g}", len(members) * len(data))
            identity = evaluation_identity(attacker, members, made_of)
            if path.is_file() and _is_complete(load_adversarial_set(path), identity, members):
                progress.advance(len(members) * len(data), "already there")
                continue
            tell = partial(_tell, progress)
            made = continued(attacker, members, path, identity, target, tell)
            attacker.progress = None
            checks = tuple(probe(attacker, made, members))
            if group.leads:
                save_adversarial_set(path, AdversarialSet(target, made, data, identity, checks))
                folder.log("attack", {"target": target, "eps": eps, "robust_accuracy": made.robust_accuracy})


def _tuned_once(
    path: Path, members: tuple[Member, ...], attacker: Attacker, validation: ImageSet, made_of: str
) -> tuple[Member, ...]:
    """The tuned members; the search is kept at `path`, so that a continued evaluation does not repeat it."""
    key = evaluation_identity(replace(attacker, data=validation), members, made_of)
    kept = read_json(path, "the parameters of adaptive attacks") if path.is_file() else {}
    if kept.get("of") == key:
        return tuple(parse_member(name) for name in kept["members"])
    found = tuned(members, attacker, validation)
    if found != members and attacker.group.leads:
        write_json(path, {"of": key, "members": [member.name for member in found]})
    return found


def _is_complete(found: AdversarialSet, identity: str, members: tuple[Member, ...]) -> bool:
    return found.identity == identity and bool(found.checks) and len(found.evaluation.members) == len(members)


def _tell(progress: Progress, name: str, done: int, robust: float) -> None:
    progress.advance(done, f"{name}: robust accuracy {robust:.3f}")
