"""Source x target: what each network makes of images that were made on another (ECCV 2020, Tables 1 and 2)."""

from dataclasses import dataclass

from torch import Tensor

from hardspike.analyses.shares import Share, carried, few, linf_eps, member_name, noise_from_seed, share_right
from hardspike.analyses.subject import Subject
from hardspike.attack.gradient import Logits
from hardspike.deploy.report.analysis import Analysis
from hardspike.deploy.report.chart import Matrix
from hardspike.deploy.report.texts import NETWORKS
from hardspike.recipe import first_difference
from hardspike.run_folder import RunFolder
from hardspike.snn.data import ImageSet

# `last`: an image that stops at the border of its source has little to show another network.
ATTACKS = {"FGSM": "fgsm", "PGD": "pgd10+detached+last/assg:0.425"}
# Of the control network, which is there for its other weights, the float networks do.
OF_CONTROL = ("ann", "snn")
IMAGES = 100


@dataclass(frozen=True, slots=True)
class Network:
    """One row and column. owner: the run, or its control network's."""

    name: str
    owner: Subject
    target: str

    @property
    def model(self) -> Logits:
        return self.owner.logits(self.target)


def control_subject(subject: Subject) -> tuple[Subject | None, str]:
    """The control network's run, or None; and a note about it."""
    recipe = subject.folder.recipe
    path = subject.folder.path / "control"
    if not recipe.control or not (path / "recipe.toml").is_file():
        return (
            None,
            "The run has no control network, so no network of the same topology with other weights is among the sources.",
        )
    control = RunFolder.open(path)
    if not control.finished("convert"):
        return None, "The control network is left out: it has not finished."
    if control.recipe.data != recipe.data:
        return None, "The control network is left out: it was made for other data."
    differs = first_difference(recipe, control.recipe)
    seed = "the same seed" if control.recipe.network.seed == recipe.network.seed else "another seed"
    return (
        Subject(control, subject.options, subject.progress),
        f"The control network has the same topology and {seed}; it is trained otherwise ({control.recipe.training()})."
        if differs
        else f"The control network has the same topology and {seed}.",
    )


def networks(subject: Subject, control: Subject | None) -> list[Network]:
    own = [Network(NETWORKS[target], subject, target) for target in subject.targets]
    if control is None:
        return own
    return own + [Network(f"control {NETWORKS[t]}", control, t) for t in OF_CONTROL if t in control.targets]


def transfer_matrix(subject: Subject) -> Analysis:
    """Accuracy of every target on images made on every source, FGSM and PGD; the diagonal is the white box."""
    eps, data = linf_eps(subject), few(subject.test, IMAGES)
    control, note = control_subject(subject)
    rows = networks(subject, control)
    names = {kind: member_name(subject, name) for kind, name in ATTACKS.items()}
    subject.progress.begin("source x target", len(rows) * len(names))
    with noise_from_seed([one.model for one in rows], subject.options.seed):
        clean = _on_all(rows, carried(subject, data.images), data)
        cells: dict[str, list[list[Share]]] = {}
        for kind, name in names.items():
            cells[kind] = []
            for source in rows:
                made = source.owner.attacked(name, source.target, eps=eps, data=data)
                cells[kind].append(_on_all(rows, made, data))
                subject.progress.advance(note=f"{kind} on {source.name}")
    labels = [one.name for one in rows]
    return Analysis(
        name="transfer",
        title="Images made on one network, shown to another",
        question="Does an attack made on one network break the others, and does any network look robust only because its own "
        "gradients are hard to follow? Then images from elsewhere hurt it more than its own (ECCV 2020, Table 2; "
        "arXiv 2311.09266, Table B1).",
        found=tuple(_found(labels, cells)),
        conditions={
            "n": len(data),
            "seed": subject.options.seed,
            "eps": eps,
            "T": subject.snn.time_steps or 0,
            **{f"{kind} is": name for kind, name in names.items()},
        },
        charts=tuple(_chart(kind, labels, clean, grid) for kind, grid in cells.items()),
        notes=(*_missing(subject), note),
        values={
            "networks": labels,
            "clean": [share.to_json() for share in clean],
            "rows_are_sources": {
                kind: [[share.to_json() for share in row] for row in grid] for kind, grid in cells.items()
            },
        },
    )


def _on_all(rows: list[Network], images: Tensor, data: ImageSet) -> list[Share]:
    return [share_right(one.model, images, data.labels) for one in rows]


def _missing(subject: Subject) -> list[str]:
    absent = [NETWORKS[target] for target in NETWORKS if target not in subject.targets]
    return [f"The run does not make: {', '.join(absent)}."] if absent else []


def _found(labels: list[str], cells: dict[str, list[list[Share]]]) -> list[str]:
    said = []
    for kind, grid in cells.items():
        masked, beyond = [], []
        for column, target in enumerate(labels):
            own = grid[column][column]
            best = min(range(len(labels)), key=lambda row: (grid[row][column].count, row != column))
            other = grid[best][column]
            if other.count < own.count:
                masked.append(f"{target} (own {own}, from {labels[best]} {other})")
                if other.apart(own):
                    beyond.append(target)
        said.append(
            f"{kind}: images from elsewhere hurt more than the network's own for {'; '.join(masked)}; "
            + (f"beyond the intervals for {', '.join(beyond)}." if beyond else "for none beyond the intervals.")
            if masked
            else f"{kind}: on every network its own images are the strongest, or as strong as any."
        )
        pairs = [(s, t) for s in range(len(labels)) for t in range(len(labels)) if s != t]
        if pairs:
            s, t = min(pairs, key=lambda pair: grid[pair[0]][pair[1]].count)
            said.append(f"{kind}: the strongest transfer is from {labels[s]} to {labels[t]}, {grid[s][t]} left right.")
    return said


def _chart(kind: str, labels: list[str], clean: list[Share], grid: list[list[Share]]) -> Matrix:
    return Matrix(
        name=f"transfer_{kind.lower()}",
        title=f"{kind}: accuracy of each target by the network the images were made on",
        row_label="images made on",
        column_label="shown to",
        value_label="share right",
        rows=("clean images", *labels),
        columns=tuple(labels),
        values=tuple(tuple(share.value for share in row) for row in (clean, *grid)),
        percent=True,
        darkest=1.0,
        width="wide",
        caption="Read down a column: the smallest number is the attack that hurts this network most. Where it does not stand on "
        "the diagonal (the network's own gradients), the white-box number alone flatters the network.",
    )
