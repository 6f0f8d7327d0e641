"""Surrogate by surrogate: each member of the ensemble of arXiv 2311.09266 alone, and the worst case over all (Tables B2 to B4)."""

from dataclasses import dataclass

from torch import Tensor

from hardspike.analyses.shares import Share, bars, carried, few, linf_eps, member_name, noise_from_seed, right_on
from hardspike.analyses.subject import Subject
from hardspike.attack.suites import SURROGATES
from hardspike.deploy.report.analysis import Analysis
from hardspike.deploy.report.chart import BarChart
from hardspike.deploy.report.texts import NETWORKS
from hardspike.snn.data import ImageSet
from hardspike.snn.surrogate import Activation, parse_surrogate

# PGD with so few steps is for comparing surrogates with each other, not for worst cases.
ATTACKS = {"FGSM": "fgsm", "PGD": "pgd4"}
ATTACKED = ("snn", "deployed")
IMAGES = {"FGSM": 64, "PGD": 40}


@dataclass(frozen=True, slots=True)
class Column:
    """One attack on one network. alone: by surrogate, None where the network has no such gradient. ensemble: right under all."""

    clean: Share
    alone: dict[str, Share | None]
    ensemble: Share
    naive: Share

    def strongest(self) -> tuple[list[str], Share]:
        """Those that leave the fewest right, in the ensemble's order, and what they leave."""
        found = {name: share for name, share in self.alone.items() if share is not None}
        least = min(found.values(), key=lambda share: share.count)
        return [name for name, share in found.items() if share.count == least.count], least


def naive_surrogate(subject: Subject) -> str:
    """The training surrogate, by the ensemble's name where it is a member: what plain backpropagation through time uses."""
    trained = parse_surrogate(subject.folder.recipe.last_training.surrogate)
    own = [name for name in SURROGATES if parse_surrogate(name) == trained]
    return own[0] if own else subject.folder.recipe.last_training.surrogate


def measured(subject: Subject, attack: str, target: str, data: ImageSet, eps: float) -> Column:
    """Accuracy under one attack with each surrogate; images are made anew for each, whatever the others broke."""
    model, naive = subject.logits(target), naive_surrogate(subject)
    fixed = subject.snn.architecture.fixed_time_steps is not None
    with noise_from_seed([model], subject.options.seed):
        clean = right_on(model, carried(subject, data.images), data.labels)
        right: dict[str, Tensor] = {}
        for surrogate in dict.fromkeys((*SURROGATES, naive)):
            if not (fixed and isinstance(parse_surrogate(surrogate), Activation)):
                name = member_name(subject, f"{attack}/{surrogate}")
                images = subject.attacked(name, target, eps=eps, data=data)
                right[surrogate] = right_on(model, images, data.labels)
            subject.progress.advance(note=f"{attack}/{surrogate} on {target}")
    standing = clean.clone()
    for surrogate in SURROGATES:
        standing &= right.get(surrogate, standing)
    return Column(
        clean=Share.of_flags(clean),
        alone={
            name: Share.of_flags(right[name]) if name in right else None for name in dict.fromkeys((*SURROGATES, naive))
        },
        ensemble=Share.of_flags(standing),
        naive=Share.of_flags(clean & right[naive]),
    )


def surrogate_table(subject: Subject) -> Analysis:
    """Float SNN and deployed network under every surrogate of the ensemble, and under all of them."""
    eps = linf_eps(subject)
    targets = tuple(target for target in ATTACKED if target in subject.targets)
    naive = naive_surrogate(subject)
    subject.progress.begin("surrogates", len(ATTACKS) * len(targets) * len({*SURROGATES, naive}))
    columns = {
        (kind, target): measured(subject, attack, target, few(subject.test, IMAGES[kind]), eps)
        for kind, attack in ATTACKS.items()
        for target in targets
    }
    return Analysis(
        name="surrogates",
        title="Surrogate by surrogate",
        question="How much does a network's robustness depend on which surrogate gradient the attacker takes? One surrogate "
        "alone, and above all the training's own, may be far from the worst case (arXiv 2311.09266, Tables B2 to B4).",
        found=tuple(_found(columns, naive)),
        conditions={
            "n": ", ".join(f"{columns[kind, targets[0]].clean.of} ({kind})" for kind in ATTACKS),
            "seed": subject.options.seed,
            "eps": eps,
            "T": subject.snn.time_steps or 0,
            "naive surrogate": naive,
            "attacks": ", ".join(member_name(subject, attack) for attack in ATTACKS.values()),
        },
        charts=tuple(_chart(kind, targets, columns, naive) for kind in ATTACKS),
        notes=_notes(subject, naive),
        values={
            kind: {
                target: {
                    "clean": column.clean.to_json(),
                    "ensemble": column.ensemble.to_json(),
                    "naive": column.naive.to_json(),
                    "alone": {name: None if s is None else s.to_json() for name, s in column.alone.items()},
                }
                for (one, target), column in columns.items()
                if one == kind
            }
            for kind in ATTACKS
        },
    )


def _found(columns: dict[tuple[str, str], Column], naive: str) -> list[str]:
    said = []
    for (kind, target), column in columns.items():
        names, strongest = column.strongest()
        gap = 100 * (column.naive.value - column.ensemble.value)
        beyond = "" if column.naive.apart(column.ensemble) else " (within the intervals)"
        flattered = (
            f"naive alone would flatter it by {gap:.1f} points{beyond}" if gap > 0 else "naive alone finds as much"
        )
        said.append(
            f"{kind}, {NETWORKS[target]}: naive gradients ({naive}) leave {column.naive} right, all surrogates together "
            f"{column.ensemble}: {flattered}. "
            f"Strongest alone: {_listed(names)}, {strongest}."
        )
    for kind in ATTACKS:
        if (kind, "deployed") in columns:
            first, second = (columns[kind, target].strongest()[0] for target in ATTACKED)
            shared = [name for name in first if name in second]
            said.append(
                f"{kind}: {_listed(shared)} is the strongest, or one of the strongest, on float SNN and deployed network alike."
                if shared
                else f"{kind}: no surrogate is the strongest on both: {_listed(first)} on the float SNN, {_listed(second)} on the "
                "deployed network."
            )
    return said


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _notes(subject: Subject, naive: str) -> tuple[str, ...]:
    notes = []
    if not subject.has_deployed:
        notes.append("The run has no deployed network; its bars are left out.")
    if subject.snn.architecture.fixed_time_steps is not None:
        notes.append("relu is left out: batch norms of their own per step (BNTT) have no form without spikes.")
    if naive not in SURROGATES:
        notes.append(
            f"The training surrogate {naive} is not among the 19; it is shown, and not counted in the worst case."
        )
    return tuple(notes)


def _chart(kind: str, targets: tuple[str, ...], columns: dict[tuple[str, str], Column], naive: str) -> BarChart:
    names = list(columns[kind, targets[0]].alone)
    return BarChart(
        name=f"surrogates_{kind.lower()}",
        title=f"{kind}: share right under each surrogate alone, and under all",
        label="share right",
        categories=("clean images", "all 19 together", *(f"{n} (naive)" if n == naive else n for n in names)),
        bars=tuple(
            bars(NETWORKS[t], t, [columns[kind, t].clean, columns[kind, t].ensemble, *columns[kind, t].alone.values()])
            for t in targets
        ),
        percent=True,
        width="wide",
        caption="Short bars are strong attacks. The distance between the bar of the naive surrogate and that of all together is "
        "what an evaluation with one surrogate would miss; whiskers are 95 % intervals.",
    )
