"""`attack.evaluate`: the robust accuracy of any classifier, with what is needed to believe it."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from hardspike.attack.adversarial_set import AdversarialSet, load_adversarial_set, save_adversarial_set
from hardspike.attack.ball import Norm
from hardspike.attack.check import Check
from hardspike.attack.evaluation import (
    Attacker,
    Evaluation,
    evaluation_mode,
    interval,
    predict,
    run_members,
)
from hardspike.attack.gradient import Logits, cross_entropy, gradient
from hardspike.attack.masking import probe
from hardspike.attack.members import KINDS, Member
from hardspike.attack.problem import SampleDraws
from hardspike.attack.suites import distinct, parse_suite
from hardspike.attack.tuning import tuned
from hardspike.snn.data import ImageSet
from hardspike.snn.errors import DataError, FileError, SettingsError
from hardspike.snn.parallel import current_group
from hardspike.snn.surrogate import Triangular, surrogate_gradient


@dataclass(frozen=True, slots=True, eq=False)
class Robustness:
    """evaluation: per sample what broke it, and the adversarial images. checks: signs of gradient masking; see masking.py."""

    evaluation: Evaluation
    checks: tuple[Check, ...]

    @property
    def clean_accuracy(self) -> float:
        return self.evaluation.clean_accuracy

    @property
    def robust_accuracy(self) -> float:
        """Worst case: the share of samples that are right clean and survive every member."""
        return self.evaluation.robust_accuracy

    @property
    def images(self) -> Tensor:
        """Float (N, C, H, W): per sample the first image that fooled the model, else the last one tried."""
        return self.evaluation.images

    @property
    def fired(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.fired)

    def __str__(self) -> str:
        made, count = self.evaluation, len(self.evaluation)
        rows = [("clean", made.clean_accuracy, count, 0.0)]
        after = list(made.accuracy_after().values())
        rows += [(name, after[i], made.tried[i], made.seconds[i]) for i, name in enumerate(made.members)]
        lines = [f"{made.norm} eps {made.eps:.4g}, n = {count}, seed {made.seed}"]
        for name, share, tried, seconds in rows:
            low, high = interval(share, count)
            lines.append(
                f"  {name:<32} {100 * share:5.1f} %  [{100 * low:5.1f}, {100 * high:5.1f}]  {tried:>6} tried  {seconds:7.1f} s"
            )
        low, high = interval(self.robust_accuracy, count)
        lines.append(
            f"worst case: {100 * self.robust_accuracy:.1f} % (95 % interval {100 * low:.1f} to {100 * high:.1f})"
        )
        lines += [f"suspect: {check.name} ({check.detail}); see {check.link}" for check in self.fired]
        return "\n".join(lines)


def evaluate(
    model: Logits,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    suite: str | Sequence[str] = "standard",
    norm: Norm = "linf",
    grid: int | None = None,
    seed: int = 0,
    batch_size: int = 128,
    tune_on: tuple[Tensor, Tensor] | None = None,
    sources: Mapping[str, Logits] | None = None,
    state: Path | str | None = None,
    identity: str = "",
    progress: Callable[[str, int, float], None] | None = None,
) -> Robustness:
    """Worst-case robust accuracy of `model`, any callable from images in [0, 1] to logits.

    A torch module is put into evaluation mode meanwhile. Spikes of ours are differentiated with each member's surrogate; a
    model without them is attacked once by each attack that differs in more than that. Under torchrun every process calls this,
    each attacks a part of the samples, and all return the whole.

    Args:
        images: float in [0, 1] or uint8, (N, C, H, W). labels: int64 [N].
        eps: budget in units of [0, 1], in (0, 1] for linf, e.g. 8 / 255.
        suite: `fast`, `standard` or `strong`, or names of members (see members.py).
        norm: `linf` or `l2`.
        grid: attack and judge on images k / grid alone, e.g. 255 for what an 8-bit sensor can carry; linf only.
        tune_on: (images, labels), never those that are evaluated, on which adaptive surrogates choose their parameter; without
            them they keep their published ones.
        sources: models by name, for members such as `pgd20@NAME` that transfer.
        state: a file that is written after every member; an evaluation that was killed continues from it.
        identity: says what `model` is, where neither its weights nor its outputs do (a model with noise of its own).
        progress: called with (member, samples done, robust accuracy so far).

    Raises:
        DataError: images or labels that are not valid.
        SettingsError: a suite, member, norm or budget that is not.
        FileError: `state` belongs to another model, suite, budget, seed or data.
    """
    with ExitStack() as stack:
        for one in (model, *(sources or {}).values()):
            stack.enter_context(evaluation_mode(one))
        data = _data(model, images, labels)
        members = parse_suite(suite)
        group = current_group()
        attacker = Attacker(
            model=model,
            data=data,
            eps=eps,
            norm=norm,
            grid=grid,
            seed=seed,
            batch_size=batch_size,
            sources=sources,
            group=group,
        )
        white_box = any(KINDS[member.kind].white_box and not member.source for member in members)
        if white_box and not listens_to_surrogates(model, data.images[:8]):
            members = distinct(members)
        if tune_on is not None:
            members = tuned(members, attacker, _data(model, *tune_on))
        who = identity or (fingerprint(model, data) if state is not None else "")
        about = evaluation_identity(attacker, members, who)
        made = continued(attacker, members, None if state is None else Path(state), about, who, progress)
        attacker.progress = None
        return Robustness(made, tuple(probe(attacker, made, members)))


def continued(
    attacker: Attacker,
    members: Sequence[Member],
    path: Path | None,
    identity: str,
    target: str,
    progress: Callable[[str, int, float], None] | None = None,
) -> Evaluation:
    """Run what is missing in the adversarial set at `path`, which is written after every member; returns the whole.

    Raises FileError where `path` was made for something else.
    """
    group, data = attacker.group, attacker.data
    own = path if path is None or group.size == 1 else path.with_name(f"{path.name}.{group.rank}of{group.size}")
    made = None
    if path is not None and path.is_file():
        whole = _read(path, identity)
        if len(whole.members) == len(members):
            return whole
        made = whole if group.size == 1 else None
    if made is None and own is not None and own.is_file():
        made = _read(own, identity)
    for number, member in enumerate(members):
        if made is not None and number < len(made.members):
            continue
        if progress is not None:
            attacker.progress = _named(progress, member.name)
        *_, made = run_members(attacker, members[: number + 1], made)
        if own is not None:
            part = data.select(torch.arange(len(data))[group.part(len(data))])
            save_adversarial_set(own, AdversarialSet(target, made, part, identity))
    assert made is not None
    if group.size > 1:
        made = attacker.joined(made)
        if path is not None and own is not None:
            if group.leads:
                save_adversarial_set(path, AdversarialSet(target, made, data, identity))
            group.wait()
            own.unlink(missing_ok=True)
    return made


def fingerprint(model: Logits, data: ImageSet) -> str:
    """Says which model this is: by its weights, and by its logits on random images unless it has noise of its own.

    The logits tell apart what weights do not: timesteps, resets, the code itself. Raises SettingsError where there is neither.
    """
    digest = hashlib.sha256()
    weights = model.state_dict() if isinstance(model, nn.Module) else {}
    for name, value in weights.items():
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    with torch.no_grad():
        images = SampleDraws(0, torch.arange(16)).uniform(0, data.images[:1].expand(16, -1, -1, -1))
        once, again = model(images), model(images)
    if torch.equal(once, again):
        digest.update(once.detach().cpu().numpy().tobytes())
    elif not weights:
        raise SettingsError(
            "attack: state cannot be kept for a model without weights whose outputs are random; give identity, e.g. 'my model, v2'"
        )
    return digest.hexdigest()[:16]


def listens_to_surrogates(logits: Logits, images: Tensor) -> bool:
    """Whether the model has spikes of ours, whose gradient a surrogate changes; other models give every member the same."""
    labels = predict(logits, images)
    found: list[Tensor] = []
    for surrogate in (Triangular(1.0), Triangular(3.0)):
        with surrogate_gradient(surrogate):
            found.append(gradient(logits, images, cross_entropy(labels)))
    return not torch.equal(*found)


def evaluation_identity(attacker: Attacker, members: Sequence[Member], model: str) -> str:
    """What an evaluation depends on; one field per line so that a refusal can name the one that differs."""
    digest = hashlib.sha256(attacker.data.images.cpu().numpy().tobytes() + attacker.data.labels.cpu().numpy().tobytes())
    fields = {
        "model": model,
        "images": digest.hexdigest()[:16],
        "budget": f"{attacker.norm} {attacker.eps!r}",
        "grid": str(attacker.grid),
        "seed": str(attacker.seed),
        "suite": ", ".join(member.name for member in members),
    }
    return "\n".join(f"{name}: {value}" for name, value in fields.items())


def _read(path: Path, identity: str) -> Evaluation:
    found = load_adversarial_set(path)
    if found.identity != identity:
        differ = [
            new.partition(":")[0]
            for old, new in zip(found.identity.split("\n"), identity.split("\n"), strict=False)
            if old != new
        ]
        raise FileError(
            f"{path}: was made with another {' and '.join(differ) or 'evaluation'}; give another file, or remove it to start anew"
        )
    return found.evaluation


def _named(progress: Callable[[str, int, float], None], name: str) -> Callable[[int, float], None]:
    return lambda done, robust: progress(name, done, robust)


def _data(model: Logits, images: Tensor, labels: Tensor) -> ImageSet:
    if not len(images):
        raise DataError("images: none given; give one or more")
    if images.dtype == torch.uint8:
        images = images.to(torch.float32) / 255
    with torch.no_grad():
        output = model(images[:2])
    if output.ndim != 2:
        raise DataError(f"model: returned shape {tuple(output.shape)}; it must give logits of shape (batch, classes)")
    return ImageSet(images, labels, output.shape[1])
