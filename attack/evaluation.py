"""Worst-case robust accuracy: per sample, the model must survive every member of a suite.

The judge is not the contestant: budget, range and success are recomputed here from the images an attack returns.
"""

import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from hardspike.attack.ball import ROUNDING, Ball, Norm, overshoot
from hardspike.attack.gradient import Logits
from hardspike.attack.members import Member, require_norm
from hardspike.attack.problem import Problem, SampleDraws
from hardspike.snn.data import ImageSet
from hardspike.snn.errors import SettingsError
from hardspike.snn.parallel import Group

SURVIVED = -1
CLEAN_ERROR = -2


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """images: per sample the first that fooled the model, else the last tried; clean errors stay clean.

    members: the names that have run, in order. broken_by: index into `members`, or SURVIVED, or CLEAN_ERROR; int64 [N].
    tried: per member how many samples it was tried on. seconds: per member, wall time.
    """

    members: tuple[str, ...]
    eps: float
    norm: Norm
    seed: int
    images: Tensor
    broken_by: Tensor
    tried: tuple[int, ...] = ()
    seconds: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.broken_by)

    @property
    def clean_accuracy(self) -> float:
        return float((self.broken_by != CLEAN_ERROR).double().mean())

    @property
    def robust_accuracy(self) -> float:
        return float((self.broken_by == SURVIVED).double().mean())

    def accuracy_after(self) -> dict[str, float]:
        """Robust accuracy after each member, in order: it can only fall."""
        standing = self.broken_by != CLEAN_ERROR
        result = {}
        for index, name in enumerate(self.members):
            standing = standing & (self.broken_by != index)
            result[name] = float(standing.double().mean())
        return result


def interval(share: float, count: int) -> tuple[float, float]:
    """95 % Wilson interval of a share of `count` samples."""
    from scipy.stats import binomtest  # takes a second to import

    found = binomtest(round(share * count), count).proportion_ci(0.95, "wilson")
    return float(found.low), float(found.high)


def predict(logits: Logits, images: Tensor, batch_size: int = 256) -> Tensor:
    """Class per image, int64."""
    with torch.no_grad():
        return torch.cat([logits(batch).argmax(1) for batch in images.split(batch_size)])


def accuracy(logits: Logits, data: ImageSet, batch_size: int = 256) -> float:
    return float((predict(logits, data.images, batch_size) == data.labels).double().mean())


@dataclass(slots=True, kw_only=True)
class Attacker:
    """Runs members one after the other on one set, each only on samples that still stand.

    model: images in [0, 1] to logits, in evaluation mode. grid: see `Ball`; images are then judged as the grid carries them.
    seed: of all random numbers; a member's own follow from it and its name. sources: other models for transfer, by name.
    progress: called with (samples done, robust accuracy so far). group: processes that share the samples.
    """

    model: Logits
    data: ImageSet
    eps: float
    norm: Norm = "linf"
    grid: int | None = None
    seed: int = 0
    batch_size: int = 128
    sources: Mapping[str, Logits] | None = None
    progress: Callable[[int, float], None] | None = None
    group: Group = field(default_factory=Group)

    def start(self) -> Evaluation:
        """Nothing tried yet: only the clean errors are known. Of this process's part of the samples, as all that follows."""
        images, labels = self._part()
        broken_by = torch.full((len(labels),), SURVIVED, device=labels.device)
        if len(labels):
            broken_by[predict(self.model, self._ball(images).rounded(images), self.batch_size) != labels] = CLEAN_ERROR
        return Evaluation((), self.eps, self.norm, self.seed, images.clone(), broken_by)

    def extended(self, made: Evaluation, member: Member) -> Evaluation:
        """`made` with one more member run."""
        began = time.perf_counter()
        originals, labels = self._part()
        offset = self.group.part(len(self.data)).start
        images, broken_by = made.images.clone(), made.broken_by.clone()
        standing = (broken_by == SURVIVED).nonzero().flatten()
        self._tell(len(broken_by) - len(standing), broken_by)
        source = self._source(member)
        for rows in standing.split(self.batch_size) if len(standing) else ():  # split makes one empty batch of nothing
            ball = self._ball(originals[rows])
            draws = SampleDraws(member_seed(self.seed, member.name), rows.cpu() + offset)
            problem = Problem(model=source, labels=labels[rows], ball=ball, draws=draws)
            attacked = ball.rounded(member.perturb(problem).detach())
            check_budget(attacked, ball)
            images[rows] = attacked
            fooled = predict(self.model, attacked, self.batch_size) != labels[rows]
            broken_by[rows[fooled]] = len(made.members)
            self._tell(len(rows), broken_by)
        return replace(
            made,
            members=(*made.members, member.name),
            images=images,
            broken_by=broken_by,
            tried=(*made.tried, len(standing)),
            seconds=(*made.seconds, time.perf_counter() - began),
        )

    def joined(self, made: Evaluation) -> Evaluation:
        """The evaluation of all samples from those of the processes' parts."""
        count = len(self.data)
        return replace(
            made,
            images=self.group.joined(made.images, count),
            broken_by=self.group.joined(made.broken_by, count),
            tried=tuple(round(self.group.total(float(tried))) for tried in made.tried),
        )

    def _part(self) -> tuple[Tensor, Tensor]:
        part = self.group.part(len(self.data))
        return self.data.images[part], self.data.labels[part]

    def _ball(self, clean: Tensor) -> Ball:
        return Ball.around(clean, self.eps, self.norm, self.grid)

    def _source(self, member: Member) -> Logits:
        if not member.source:
            return self.model
        known = self.sources or {}
        if member.source not in known:
            choose = f"choose from {', '.join(known)}" if known else "give models to transfer from"
            raise SettingsError(f"attack '{member.name}': no model '{member.source}' to transfer from; {choose}")
        return known[member.source]

    def _tell(self, done: int, broken_by: Tensor) -> None:
        if self.progress is not None:
            self.progress(done, float((broken_by == SURVIVED).double().mean()) if len(broken_by) else 0.0)


def member_seed(seed: int, name: str) -> int:
    """A member's random numbers do not depend on its place in the suite."""
    return (seed << 32) | zlib.crc32(name.encode())


def run_members(attacker: Attacker, members: Sequence[Member], made: Evaluation | None = None) -> Iterator[Evaluation]:
    """The evaluation after each member that `made` does not have yet.

    Raises SettingsError: eps out of range, no members, or one that has no form for the norm; AssertionError: an attack left its
    budget or [0, 1], a defect of ours.
    """
    require_eps(attacker.eps, attacker.norm)
    if not members:
        raise SettingsError("attack: the list of members is empty; name at least one, e.g. pgd20")
    require_norm(tuple(members), attacker.norm)
    made = attacker.start() if made is None else made
    for member in members[len(made.members) :]:
        made = attacker.extended(made, member)
        yield made


def worst_case(
    logits: Logits, data: ImageSet, members: Sequence[Member], *, eps: float, seed: int = 0, batch_size: int = 128
) -> Evaluation:
    """All members on all of `data`, at once and without a state on disk; see `Attacker` and `run_members`."""
    *_, made = run_members(Attacker(model=logits, data=data, eps=eps, seed=seed, batch_size=batch_size), members)
    return made


def require_eps(eps: float, norm: Norm) -> None:
    """Raise SettingsError for a budget that means nothing."""
    if norm == "linf" and not 0 < eps <= 1:
        raise SettingsError(f"attack: eps = {eps} is not allowed; choose a value in (0, 1], e.g. 0.1 or 8/255")
    if norm == "l2" and not 0 < eps < float("inf"):
        raise SettingsError(f"attack: eps = {eps} is not allowed; choose a positive value, e.g. 0.5")


def check_budget(attacked: Tensor, ball: Ball) -> None:
    """Assert that no image left its budget or [0, 1]."""
    outside = overshoot(attacked, ball)
    assert outside <= ROUNDING, f"an attack went {outside} beyond its budget of {ball.eps} or out of [0, 1]"


@contextmanager
def evaluation_mode(model: Logits) -> Iterator[None]:
    """A torch module is put into evaluation mode, and every part of it back into its own mode afterwards."""
    if not isinstance(model, nn.Module):
        yield
        return
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
