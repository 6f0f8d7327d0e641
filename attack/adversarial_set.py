"""Adversarial sets on disk: the images as the attack left them, what broke each, and what they were made from."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import Tensor

from hardspike.attack.check import Check
from hardspike.attack.evaluation import Evaluation
from hardspike.snn.checkpoint import load_tensors, save_tensors
from hardspike.snn.data import ImageSet
from hardspike.snn.errors import FileError

KIND = "adversarial set"


@dataclass(frozen=True, slots=True, eq=False)
class AdversarialSet:
    """target: the network it was made on. identity: what the set depends on; a set of another identity is not continued.

    checks: signs of gradient masking, once all members have run (see masking.py).
    """

    target: str
    evaluation: Evaluation
    clean: ImageSet
    identity: str
    checks: tuple[Check, ...] = ()

    def first(self, count: int) -> "AdversarialSet":
        """The first `count` images."""
        made = self.evaluation
        fewer = replace(made, images=made.images[:count], broken_by=made.broken_by[:count])
        return replace(self, evaluation=fewer, clean=self.clean.first(count))


def save_adversarial_set(path: Path, adversarial: AdversarialSet) -> None:
    made = adversarial.evaluation
    tensors: dict[str, Tensor] = {
        "images": made.images,
        "broken_by": made.broken_by,
        "clean": adversarial.clean.images,
        "labels": adversarial.clean.labels,
    }
    facts = {
        "target": adversarial.target,
        "members": made.members,
        "eps": made.eps,
        "seed": made.seed,
        "num_classes": adversarial.clean.num_classes,
        "norm": made.norm,
        "tried": made.tried,
        "seconds": made.seconds,
        "checks": [asdict(check) for check in adversarial.checks],
        "identity": adversarial.identity,
    }
    save_tensors(path, tensors, {"kind": KIND, "facts": json.dumps(facts)})


def load_adversarial_set(path: Path) -> AdversarialSet:
    """Raises FileError when the file is missing or damaged, DataError when its images or labels are not valid."""
    tensors, metadata = load_tensors(path, KIND)
    try:
        facts = json.loads(metadata["facts"])
        evaluation = Evaluation(
            members=tuple(facts["members"]),
            eps=facts["eps"],
            norm=facts["norm"],
            seed=facts["seed"],
            images=tensors["images"],
            broken_by=tensors["broken_by"],
            tried=tuple(facts["tried"]),
            seconds=tuple(facts["seconds"]),
        )
        clean = ImageSet(tensors["clean"], tensors["labels"], facts["num_classes"])
        checks = tuple(Check(**check) for check in facts["checks"])
        return AdversarialSet(facts["target"], evaluation, clean, facts["identity"], checks)
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise FileError(f"{path}: not a readable {KIND} ({error}); it is damaged or of another version") from None
