"""Adversarial sets on disk: the images as the attack left them, what broke each, and what they were made from."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from hardspike.attack.evaluate import Evaluation
from hardspike.snn.checkpoint import load_tensors, save_tensors
from hardspike.snn.data import ImageSet
from hardspike.snn.errors import FileError

KIND = "adversarial set"


@dataclass(frozen=True, slots=True, eq=False)
class AdversarialSet:
    """target: the network it was made on. zero_gradient: share of images without any gradient (see masking.py).

    identity: what the set depends on; a set of another identity is made again.
    """

    target: str
    evaluation: Evaluation
    clean: ImageSet
    zero_gradient: float
    identity: str

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
        "zero_gradient": adversarial.zero_gradient,
        "identity": adversarial.identity,
    }
    save_tensors(path, tensors, {"kind": KIND, "facts": json.dumps(facts)})


def load_adversarial_set(path: Path) -> AdversarialSet:
    """Raises FileError when the file is missing or damaged, DataError when its images or labels are not valid."""
    tensors, metadata = load_tensors(path, KIND)
    try:
        facts = json.loads(metadata["facts"])
        evaluation = Evaluation(
            tuple(facts["members"]), facts["eps"], facts["seed"], tensors["images"], tensors["broken_by"]
        )
        clean = ImageSet(tensors["clean"], tensors["labels"], facts["num_classes"])
        return AdversarialSet(facts["target"], evaluation, clean, facts["zero_gradient"], facts["identity"])
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise FileError(f"{path}: not a readable {KIND} ({error}); it is damaged or of another version") from None
