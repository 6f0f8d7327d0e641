"""Shares of images, always with their intervals: what accuracies are made of, and how they become series and sentences."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor

from hardspike.analyses.subject import Subject
from hardspike.attack.ball import Ball
from hardspike.attack.evaluation import interval, predict
from hardspike.attack.gradient import Logits
from hardspike.deploy.report.chart import Bars, Line
from hardspike.snn.data import ImageSet
from hardspike.snn.encoding import NoiseSource
from hardspike.snn.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Share:
    """`count` of `of` images, of >= 1. low, high: 95 % Wilson interval of `value`, all in [0, 1]."""

    count: int
    of: int
    low: float
    high: float

    @staticmethod
    def of_flags(flags: Tensor) -> "Share":
        """flags: bool [N], N >= 1."""
        count = int(flags.sum())
        return Share(count, len(flags), *interval(count / len(flags), len(flags)))

    @property
    def value(self) -> float:
        return self.count / self.of

    def apart(self, other: "Share") -> bool:
        """Whether the intervals do not overlap: stricter than a test of the difference."""
        return self.low > other.high or other.low > self.high

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} %"

    def to_json(self) -> dict[str, float | int]:
        return {"share": self.value, "low": self.low, "high": self.high, "n": self.of}


def right_on(model: Logits, images: Tensor, labels: Tensor) -> Tensor:
    """Which images the model puts into the right class, bool [N]."""
    return predict(model, images) == labels


def share_right(model: Logits, images: Tensor, labels: Tensor) -> Share:
    return Share.of_flags(right_on(model, images, labels))


def line(name: str, tone: str, x: Sequence[float], shares: Sequence[Share], *, dashed: bool = False) -> Line:
    """A series of shares with their intervals."""
    return Line(
        name=name,
        tone=tone,
        x=tuple(x),
        y=tuple(share.value for share in shares),
        low=tuple(share.low for share in shares),
        high=tuple(share.high for share in shares),
        dashed=dashed,
    )


def bars(name: str, tone: str, shares: Sequence[Share | None]) -> Bars:
    """A group of shares with their intervals; None for a bar that does not exist."""
    return Bars(
        name=name,
        tone=tone,
        values=tuple(None if share is None else share.value for share in shares),
        low=tuple(None if share is None else share.low for share in shares),
        high=tuple(None if share is None else share.high for share in shares),
    )


def change(before: Share, after: Share) -> str:
    """`falls from 61.2 % to 58.0 %`, and whether that is no more than chance."""
    if after.value == before.value:
        return f"stays at {after}"
    said = f"{'rises' if after.value > before.value else 'falls'} from {before} to {after}"
    return said if before.apart(after) else f"{said} (within the intervals)"


def few(data: ImageSet, most: int) -> ImageSet:
    """The first images, `most` at most: an attack of many steps takes fewer images than a clean pass."""
    return data.first(min(most, len(data)))


def carried(subject: Subject, images: Tensor) -> Tensor:
    """Clean images as attacked ones are seen: on the deployed network's input grid where the run has one."""
    grid = subject.networks.grid if subject.has_deployed else None
    return Ball.around(images, 0.0, grid=grid).rounded(images)


def linf_eps(subject: Subject) -> float:
    """The budget. Raises SettingsError where only one of another norm is known."""
    norm = subject.folder.recipe.attack.norm
    if subject.options.eps is None and norm != "linf":
        raise SettingsError(
            f"eps: the recipe's budgets are of attack.norm = '{norm}', this analysis attacks under linf; "
            "give eps, a value in (0, 1), e.g. 8/255"
        )
    return subject.eps


def member_name(subject: Subject, attack: str) -> str:
    """`attack`, with two passes per gradient where the network draws random spikes (EOT, as arXiv 2311.09266 does)."""
    if subject.snn.architecture.input.coding != "poisson":
        return attack
    kind, slash, surrogate = attack.partition("/")
    return f"{kind}+eot=2{slash}{surrogate}"


@contextmanager
def noise_from_seed(models: Iterable[Logits], seed: int) -> Iterator[None]:
    """The models' own noise starts from `seed` inside the block, and is as it was behind it: no analysis changes another."""
    found = (getattr(model, "noise", None) for model in models)
    kept = [
        (noise.generator, noise.generator.get_state())
        for noise in dict.fromkeys(found)
        if isinstance(noise, NoiseSource)
    ]
    for generator, _ in kept:
        generator.manual_seed(seed)
    try:
        yield
    finally:
        for generator, state in kept:
            generator.set_state(state)
