"""Timesteps x input bits, clean and under images made on the ANN (ECCV 2020, Fig. 2)."""

from dataclasses import dataclass

from torch import Tensor

from hardspike.analyses.finetuning import TRAIN_IMAGES, finetuned, settings_of, with_time_steps
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
from hardspike.analyses.subject import Subject
from hardspike.attack.gradient import Logits
from hardspike.deploy.report.analysis import Analysis
from hardspike.deploy.report.chart import Line, LineChart, Matrix
from hardspike.snn.data import ImageSet
from hardspike.snn.encoding import quantised
from hardspike.snn.errors import SettingsError
from hardspike.snn.network import SpikingNetwork

# None: the images as they are.
BITS: tuple[int | None, ...] = (2, 4, 8, None)
TONES = ("first", "second", "third", "fourth")
FACTORS, TRAINED_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0), (0.5, 1.0, 2.0)
ATTACK = "fgsm"
IMAGES = 150


@dataclass(frozen=True, slots=True)
class Row:
    """One network at one number of timesteps. clean, attacked: by `BITS`."""

    name: str
    clean: tuple[Share, ...]
    attacked: tuple[Share, ...]


def steps_of(own: int, factors: tuple[float, ...]) -> tuple[int, ...]:
    """Numbers of timesteps, rising, each once and at least 1."""
    return tuple(sorted({max(1, round(factor * own)) for factor in factors}))


def at_bits(images: Tensor, bits: int | None) -> Tensor:
    """Images rounded to k / (2^bits - 1), before anything the network's own input does."""
    return images if bits is None else quantised(images, bits)


def row(name: str, model: Logits, clean: Tensor, attacked: Tensor, labels: Tensor, seed: int) -> Row:
    with noise_from_seed([model], seed):
        return Row(
            name,
            tuple(share_right(model, at_bits(clean, bits), labels) for bits in BITS),
            tuple(share_right(model, at_bits(attacked, bits), labels) for bits in BITS),
        )


def timestep_sweep(subject: Subject) -> Analysis:
    """The run's SNN at several numbers of timesteps, and finetuned at some, on images of several bits.

    Raises SettingsError for a network whose batch norms fix the number of timesteps.
    """
    snn, own = subject.snn, subject.snn.time_steps or 1
    fixed = snn.architecture.fixed_time_steps
    if fixed is not None:
        raise SettingsError(
            f"timesteps: the run's network is made for {fixed} timesteps alone, by its batch norms of their own per step (BNTT); "
            "use a run with network.norm = 'td' or 'none'"
        )
    eps, data, seed = linf_eps(subject), few(subject.test, IMAGES), subject.options.seed
    source = "ann" if "ann" in subject.targets else "snn"
    steps = steps_of(own, FACTORS)
    trained = steps_of(own, TRAINED_FACTORS) if subject.options.epochs else ()
    subject.progress.begin("timesteps", 2 + len(steps) + len(trained))
    clean = carried(subject, data.images)
    with noise_from_seed([subject.logits(source)], seed):
        attacked = subject.attacked(member_name(subject, ATTACK), source, eps=eps, data=data)
    subject.progress.advance(note=f"{ATTACK} on {source}")

    def measured(name: str, model: Logits) -> Row:
        made = row(name, model, clean, attacked, data.labels, seed)
        subject.progress.advance(note=name)
        return made

    reference = [measured("ANN", subject.logits("ann"))] if source == "ann" else []
    as_is = [measured(f"T = {count}", with_time_steps(snn, count)) for count in steps]
    tuned = [measured(f"T = {count}, finetuned", _at(subject, snn, count)) for count in trained]
    return Analysis(
        name="timesteps",
        title="Timesteps and input bits",
        question="Do fewer timesteps and coarser inputs make a spiking network harder to attack? ECCV 2020 (Fig. 2) finds about "
        "5 points more at 50 timesteps than at 150 under FGSM images from the ANN (4-bit inputs), and more again at 2 bits.",
        found=tuple(_found(as_is, tuned, steps, trained, own)),
        conditions={
            "n": len(data),
            "seed": seed,
            "eps": eps,
            "T of the run": own,
            "attack": f"{member_name(subject, ATTACK)} on the {'ANN' if source == 'ann' else 'float SNN of the run'}",
            "epochs": subject.options.epochs,
        },
        charts=(
            _matrix("clean", "Clean accuracy", [*reference, *as_is, *tuned], attacked=False),
            _matrix(
                "attacked", "Accuracy on images made on another network", [*reference, *as_is, *tuned], attacked=True
            ),
            _chart(steps, as_is, trained, tuned),
        ),
        notes=tuple(_notes(subject, source, data)),
        values={
            one.name: {
                kind: {_bits(bits): share.to_json() for bits, share in zip(BITS, shares, strict=True)}
                for kind, shares in (("clean", one.clean), ("attacked", one.attacked))
            }
            for one in (*reference, *as_is, *tuned)
        },
    )


def _at(subject: Subject, snn: SpikingNetwork, count: int) -> SpikingNetwork:
    return finetuned(subject, with_time_steps(snn, count), settings_of(subject, "natural"))


def _bits(bits: int | None) -> str:
    return "as they are" if bits is None else f"{bits} bits"


def _found(as_is: list[Row], tuned: list[Row], steps: tuple[int, ...], trained: tuple[int, ...], own: int) -> list[str]:
    said = []
    for rows, counts, how in ((as_is, steps, "the run's weights"), (tuned, trained, "finetuned at each T")):
        if len(rows) > 1:
            many, one = rows[-1], rows[0]
            said.append(
                f"From T = {counts[-1]} down to {counts[0]} ({how}): attacked accuracy "
                f"{change(many.attacked[-1], one.attacked[-1])}; clean accuracy {change(many.clean[-1], one.clean[-1])}."
            )
    run = as_is[steps.index(own)]
    said.append(
        f"{run.name}, from images as they are to {BITS[0]} bits: attacked accuracy {change(run.attacked[-1], run.attacked[0])}; "
        f"clean accuracy {change(run.clean[-1], run.clean[0])}."
    )
    return said


def _notes(subject: Subject, source: str, data: ImageSet) -> list[str]:
    notes = [
        "Attacked images are made from images as they are, and brought to fewer bits afterwards, as a sensor would."
    ]
    if source == "snn":
        notes.append(
            "The run has no ANN: images are made on its float SNN, so that the row of its own T is a white box."
        )
    if subject.options.epochs:
        used = min(TRAIN_IMAGES, len(subject.splits.train))
        notes.append(
            f"Finetuned rows: the run's SNN at that T, trained naturally for {subject.options.epochs} more epoch(s) on the first "
            f"{used} training images. The paper trains each network in full."
        )
    else:
        notes.append(
            "Nothing was trained: the run's weights are used at every T. The paper trains each network in full."
        )
    own_bits = subject.snn.architecture.input.bits
    if own_bits is not None:
        notes.append(f"The network rounds its input to {own_bits} bits itself, after the rounding shown here.")
    if len(data) < 100:
        notes.append(f"With {len(data)} images the intervals are wide.")
    return notes


def _matrix(name: str, title: str, rows: list[Row], *, attacked: bool) -> Matrix:
    return Matrix(
        name=f"timesteps_{name}",
        title=title,
        row_label="network",
        column_label="input",
        value_label="share right",
        rows=tuple(one.name for one in rows),
        columns=tuple(_bits(bits) for bits in BITS),
        values=tuple(tuple(s.value for s in (one.attacked if attacked else one.clean)) for one in rows),
        percent=True,
        darkest=1.0,
        caption=(
            "Every number is for the same attacked images, rounded to the column's bits. Larger numbers towards the top and the "
            "left would be the paper's observation."
            if attacked
            else "What fewer timesteps (up) and coarser images (left) cost on clean images."
        ),
    )


def _chart(steps: tuple[int, ...], as_is: list[Row], trained: tuple[int, ...], tuned: list[Row]) -> LineChart:
    lines: list[Line] = []
    for index, bits in enumerate(BITS):
        lines.append(line(f"attacked, {_bits(bits)}", TONES[index], steps, [one.attacked[index] for one in as_is]))
    lines.append(line("clean, as they are", "clean", steps, [one.clean[-1] for one in as_is], dashed=True))
    if tuned:
        lines.append(line("attacked, finetuned", "attack", trained, [one.attacked[-1] for one in tuned], dashed=True))
    return LineChart(
        name="timesteps_lines",
        title="Accuracy against the number of timesteps",
        x_label="timesteps T",
        y_label="share right",
        lines=tuple(lines),
        percent=True,
        x_log=True,
        y_top=1.0,
        width="wide",
        caption="A full line that falls to the right says that more timesteps make the network easier to attack; bands are 95 % "
        "intervals.",
    )
