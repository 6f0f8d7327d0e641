"""The leak sweep: does a membrane that forgets resist attacks better? (ECCV 2020, Fig. 6b)"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hardspike.analyses.finetuning import TRAIN_IMAGES, finetuned, settings_of, with_leak
from hardspike.analyses.shares import (
    Share,
    carried,
    change,
    few,
    line,
    linf_eps,
    member_name,
    noise_from_seed,
    share_right,
)
from hardspike.analyses.subject import BATCH, Subject, attacked_on
from hardspike.deploy.report.analysis import Analysis
from hardspike.deploy.report.chart import Line, LineChart
from hardspike.snn.data import ImageSet
from hardspike.snn.network import SpikingNetwork

LEAKS = (1.0, 0.95, 0.9, 0.8)
# Made on the ANN; `last`, because an image must not stop at the border of its source.
BLACK_BOX = {"FGSM": "fgsm", "PGD": "pgd7+last"}
WHITE_BOX = "pgd7+detached/assg:0.425"
IMAGES = 150
WHITE_BOX_IMAGES = 64


@dataclass(frozen=True, slots=True)
class AtLeak:
    """black_box: by attack. spikes: mean number of spikes of all neurons over all timesteps, per clean image."""

    leak: float
    clean: Share
    black_box: dict[str, Share]
    white_box: Share
    spikes: float


def leaks_of(network: SpikingNetwork) -> tuple[float, ...]:
    """The leaks of the sweep, the largest first, with the network's own where all its neurons share one."""
    own = {round(float(neuron.leak.detach()), 6) for neuron in network.neurons().values()}
    return tuple(sorted({*LEAKS, *(own if len(own) == 1 else ())}, reverse=True))


def mean_spikes(network: SpikingNetwork, images: Tensor) -> float:
    """Spikes per image, of all neurons over all timesteps."""
    total = 0.0
    with torch.no_grad():
        for batch in images.split(BATCH):
            with network.recording() as (spikes_TB, _):
                network(batch)
                total += sum(float(layer.double().sum()) for layer in spikes_TB.values())
    return total / len(images)


def leak_sweep(subject: Subject) -> Analysis:
    """Copies of the run's SNN with other leaks, each finetuned as the recipe does, clean and attacked."""
    eps, data, seed = linf_eps(subject), few(subject.test, IMAGES), subject.options.seed
    source = "ann" if "ann" in subject.targets else "snn"
    leaks = leaks_of(subject.snn)
    subject.progress.begin("leak sweep", len(leaks) + 1)
    black_box: dict[str, Tensor] = {}
    with noise_from_seed([subject.logits(source)], seed):
        for kind, attack in BLACK_BOX.items():
            black_box[kind] = subject.attacked(member_name(subject, attack), source, eps=eps, data=data)
    subject.progress.advance(note="images of the black box")
    rows = []
    for leak in leaks:
        rows.append(_measured(subject, leak, data, black_box, eps))
        subject.progress.advance(note=f"leak {leak:g}")
    settings = settings_of(subject) if subject.options.epochs else None
    return Analysis(
        name="leak",
        title="Leak sweep",
        question="Does a leak, which lets the membrane forget, make a spiking network harder to attack? ECCV 2020 (Fig. 6b) "
        "finds 3 to 6 points more at leak 0.95 under images from the ANN, at about 2 points of clean accuracy.",
        found=tuple(_found(rows)),
        conditions={
            "n": f"{len(data)}, white box {min(WHITE_BOX_IMAGES, len(data))}",
            "seed": seed,
            "eps": eps,
            "T": subject.snn.time_steps or 0,
            "black box": ", ".join(member_name(subject, a) for a in BLACK_BOX.values())
            + (" on the ANN" if source == "ann" else " on the run's float SNN"),
            "white box": member_name(subject, WHITE_BOX),
            "finetuning": settings.objective if settings else "none",
            "epochs": subject.options.epochs,
        },
        charts=(_accuracies(rows, "ANN" if source == "ann" else "run's SNN"), _spikes(rows)),
        notes=tuple(_notes(subject, source, rows)),
        values={
            f"leak {one.leak:g}": {
                "clean": one.clean.to_json(),
                **{f"black box, {kind}": share.to_json() for kind, share in one.black_box.items()},
                "white box": one.white_box.to_json(),
                "mean spikes per image": one.spikes,
            }
            for one in rows
        },
    )


def _measured(subject: Subject, leak: float, data: ImageSet, black_box: dict[str, Tensor], eps: float) -> AtLeak:
    network, seed = with_leak(subject.snn, leak), subject.options.seed
    if subject.options.epochs:
        network = finetuned(subject, network, settings_of(subject))
    grid = subject.networks.grid if subject.has_deployed else None
    clean, white = carried(subject, data.images), few(data, WHITE_BOX_IMAGES)
    with noise_from_seed([network], seed):
        own = attacked_on(network, member_name(subject, WHITE_BOX), white, eps=eps, grid=grid, seed=seed)
        return AtLeak(
            leak=leak,
            clean=share_right(network, clean, data.labels),
            black_box={kind: share_right(network, images, data.labels) for kind, images in black_box.items()},
            white_box=share_right(network, own, white.labels),
            spikes=mean_spikes(network, clean),
        )


def _found(rows: list[AtLeak]) -> list[str]:
    said = []
    if rows[0].leak == 1.0:
        for one in rows[1:]:
            said.append(
                f"Leak {one.leak:g} against 1: "
                + "; ".join(
                    f"black-box {kind} {change(rows[0].black_box[kind], one.black_box[kind])}" for kind in BLACK_BOX
                )
                + f"; white box {change(rows[0].white_box, one.white_box)}; clean {change(rows[0].clean, one.clean)}."
            )
    said.append("Spikes per image: " + ", ".join(f"{one.spikes:,.0f} at leak {one.leak:g}" for one in rows) + ".")
    return said


def _notes(subject: Subject, source: str, rows: list[AtLeak]) -> list[str]:
    notes = []
    if subject.options.epochs:
        used = min(TRAIN_IMAGES, len(subject.splits.train))
        notes.append(
            f"Each network, that of leak 1 too, is the run's SNN with its leak set, finetuned for {subject.options.epochs} "
            f"epoch(s) on the first {used} training images as the recipe finetunes; no test image takes part."
        )
    else:
        notes.append(
            "Nothing was trained: the leak alone was changed, which costs accuracy that finetuning would win back."
        )
    if source == "snn":
        notes.append("The run has no ANN: the black box's images are made on its float SNN as it is.")
    notes += [f"At leak {one.leak:g} no neuron fires." for one in rows if not one.spikes]
    own = {round(float(neuron.leak.detach()), 6) for neuron in subject.snn.neurons().values()}
    if len(own) > 1:
        notes.append("The neuron layers of the run have leaks of their own; in the sweep all have the same.")
    return notes


def _accuracies(rows: list[AtLeak], source: str) -> LineChart:
    x = [one.leak for one in rows]
    lines: list[Line] = [line("clean", "clean", x, [one.clean for one in rows])]
    for tone, kind in zip(("first", "second"), BLACK_BOX, strict=True):
        lines.append(line(f"{kind} from the {source}", tone, x, [one.black_box[kind] for one in rows]))
    lines.append(line("white-box PGD", "attack", x, [one.white_box for one in rows]))
    return LineChart(
        name="leak",
        title="Accuracy against the leak",
        x_label="leak per timestep (1 forgets nothing)",
        y_label="share right",
        lines=tuple(lines),
        percent=True,
        y_top=1.0,
        caption="The paper's observation would be attacked lines that rise towards the left while the clean one stays; bands are "
        "95 % intervals.",
    )


def _spikes(rows: list[AtLeak]) -> LineChart:
    spikes = Line(name="clean images", tone="clean", x=tuple(r.leak for r in rows), y=tuple(r.spikes for r in rows))
    return LineChart(
        name="leak_spikes",
        title="Spikes per image against the leak",
        x_label="leak per timestep (1 forgets nothing)",
        y_label="mean spikes per image, all neurons and timesteps",
        lines=(spikes,),
        width="small",
        caption="A membrane that forgets needs more current for a spike; finetuning may move thresholds to make up for it.",
    )
