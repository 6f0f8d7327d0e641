"""What low weight bits cost a deployed network's robustness, and what finetuning through the integers gives back.

    python benchmarks/low_bits.py RUN --bits 8 6 4 3 2 --scales max search --input-bits 4 --epochs 4 --out low_bits.jsonl

RUN is a finished `hardspike run`, whose converted network is deployed

- `rounded`: as it is;
- `float`: after as many more epochs of its own finetuning in float, then rounded: the control for mere training;
- `integers`: after the same epochs through the integers that are then deployed.

All trained on the training part with the objective of the recipe's stage `convert`, the epoch chosen on the validation part. Worst
case at `--eps` on the test part: an image counts if the deployed network gets it right clean, under the suite made on it, and
under those made on its fake-quantised form, on the float network it was rounded from (for `integers`: the converted one, as
in a run) and on the ANN. Each case is one line of `--out`, and cases that are there are not done again.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import torch

from hardspike.attack.adversarial_set import AdversarialSet
from hardspike.attack.evaluation import Attacker, accuracy, interval, run_members
from hardspike.attack.gradient import Logits
from hardspike.attack.suites import distinct, parse_suite
from hardspike.deploy.backends import make_backend
from hardspike.deploy.compile import DeploySettings, compile_network
from hardspike.deploy.deployed_robustness import deployed_robustness
from hardspike.deploy.emulator import Emulator
from hardspike.deploy.fake_quantised import FakeQuantised
from hardspike.deploy.integer_training import IntegerNetwork, finetuning
from hardspike.deploy.replay import replay, replay_sets
from hardspike.run_folder import RunFolder
from hardspike.snn.checkpoint import load_network
from hardspike.snn.data import load_dataset
from hardspike.snn.errors import DoesNotFitError
from hardspike.snn.network import SpikingNetwork
from hardspike.train.loop import fit

ARMS = ("rounded", "float", "integers")


@dataclass(frozen=True)
class Case:
    """One deployed network."""

    arm: str
    bits: int
    scale: str
    input_bits: int
    seed: int
    epochs: int

    @property
    def key(self) -> str:
        trained = f"-seed{self.seed}-epochs{self.epochs}" if self.arm != "rounded" else ""
        return f"{self.arm}-{self.bits}bit-{self.scale}-input{self.input_bits}{trained}"


class Study:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self.folder = RunFolder.open(arguments.run)
        self.recipe = self.folder.recipe
        self.eps, self.rate, self.suite = arguments.eps, arguments.learning_rate, arguments.suite
        self.work = arguments.out.with_suffix("")
        self.work.mkdir(parents=True, exist_ok=True)
        self.splits = load_dataset(self.recipe.data)
        self.test = self.splits.test.first(arguments.images)
        self.trained: dict[str, SpikingNetwork] = {}
        self.sets: dict[str, AdversarialSet] = {}

    @cached_property
    def ann(self) -> SpikingNetwork:
        return load_network(self.folder.ann)

    @cached_property
    def converted(self) -> SpikingNetwork:
        return load_network(self.folder.snn)

    def settings(self, case: Case) -> DeploySettings:
        return replace(
            self.recipe.deploy,
            weight_bits=case.bits,
            input_bits=case.input_bits,
            scale=case.scale,
            finetune_epochs=case.epochs,
            finetune_learning_rate=self.rate,
        )

    def measured(self, case: Case) -> dict[str, Any]:
        """One line of the results. Raises DoesNotFitError."""
        began = time.process_time()
        settings = self.settings(case)
        network = self.network(case, settings)
        trained = time.process_time()
        graph, _ = compile_network(network, settings)
        source, name = (self.converted, "converted") if case.arm == "integers" else (network, self._name(case))
        grid = graph.input.message_max
        sets = [
            self.attacked("ann", "ann", self.ann, None),
            self.attacked(name, "snn", source, None),
            self.attacked(f"{case.key} quantised", "quantised", FakeQuantised(graph).eval(), None),
            self.attacked(f"{case.key} deployed", "deployed", Emulator(graph), grid),
        ]
        backend = make_backend("emulator", self.folder.net)
        replayed = [
            replay(one, graph, backend, ann=self.ann, snn=source) for one in replay_sets(self.test, sets, seed=0)
        ]
        found = deployed_robustness(replayed, sets[-1].evaluation, self.eps)
        noise = next(one for one in replayed if one.origin.kind == "noise")
        assert found.own is not None
        return {
            "case": case.key,
            "eps": self.eps,
            "images": len(self.test),
            "clean": float(replayed[0].right_deployed.double().mean()),
            "noise": float(noise.right_deployed.double().mean()),
            "own": float(found.own.double().mean()),
            "worst": found.robust_accuracy,
            "float": sets[1].evaluation.robust_accuracy,
            "float_clean": accuracy(source, self.test),
            "standing": "".join(str(int(right)) for right in found.standing),
            "train_seconds": round(trained - began, 1),
            "seconds": round(time.process_time() - began, 1),
        }

    def _name(self, case: Case) -> str:
        return "converted" if case.arm == "rounded" else f"float-seed{case.seed}-epochs{case.epochs}"

    def network(self, case: Case, settings: DeploySettings) -> SpikingNetwork:
        if case.arm == "rounded":
            return self.converted
        if case.arm == "integers":
            integers = IntegerNetwork(self.converted, settings)
            return self._fitted(case.key, integers, settings, case.seed, integers.as_float)
        name = self._name(case)
        if name not in self.trained:
            network = load_network(self.folder.snn)
            for neuron in network.neurons().values():
                neuron.threshold.requires_grad_(self.recipe.last_training.trainable_thresholds)
            self.trained[name] = self._fitted(name, network, settings, case.seed, lambda: network)
        return self.trained[name]

    def _fitted(
        self,
        name: str,
        network: SpikingNetwork,
        settings: DeploySettings,
        seed: int,
        result: Callable[[], SpikingNetwork],
    ) -> SpikingNetwork:
        fit(
            network,
            self.splits,
            finetuning(self.recipe.last_training, settings),
            seed=seed,
            state_path=self.work / f"{name.replace(':', '-')}.state.safetensors",
            identity=f"{name} {self.rate} {self.folder.key('convert')}",
            on_epoch=lambda metrics: print(name, metrics, flush=True),
        )
        return result()

    def attacked(self, name: str, target: str, model: Logits, grid: int | None) -> AdversarialSet:
        """The suite on one network; each network is attacked once."""
        if name not in self.sets:
            members = parse_suite(self.suite)
            attacker = Attacker(model=model, data=self.test, eps=self.eps, grid=grid)
            *_, made = run_members(attacker, distinct(members) if target == "ann" else members)
            self.sets[name] = AdversarialSet(target, made, self.test, name)
        return self.sets[name]


def cases(arguments: argparse.Namespace) -> Iterator[Case]:
    for arm, scale, bits, seed in product(arguments.arms, arguments.scales, arguments.bits, arguments.seeds):
        if arm != "rounded" or seed == arguments.seeds[0]:
            yield Case(arm, bits, scale, arguments.input_bits, seed, arguments.epochs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--bits", type=int, nargs="+", default=[8, 6, 4, 3, 2])
    parser.add_argument("--scales", nargs="+", default=["max"])
    parser.add_argument("--arms", nargs="+", default=ARMS, choices=ARMS)
    parser.add_argument("--input-bits", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--eps", type=float, default=0.1)
    parser.add_argument("--images", type=int, default=360)
    parser.add_argument("--suite", default="fast")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lines = arguments.out.read_text(encoding="utf-8").splitlines() if arguments.out.is_file() else []
    there = {json.loads(line)["case"]: json.loads(line) for line in lines}
    study = Study(arguments)
    for case in cases(arguments):
        if case.key not in there:
            try:
                there[case.key] = study.measured(case)
            except DoesNotFitError as error:
                there[case.key] = {"case": case.key, "error": str(error)}
            with arguments.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(there[case.key]) + "\n")
        print(row(there[case.key]), flush=True)


def row(found: dict[str, Any]) -> str:
    """Of a Markdown table: case, clean, noise, own attacks, worst case with its 95 % interval, and the float network's."""
    if "error" in found:
        return f"| {found['case']} | {found['error']} |"
    low, high = interval(found["worst"], found["images"])
    shares = (found[key] for key in ("clean", "noise", "own", "worst"))
    values = " | ".join(f"{100 * share:.1f}" for share in shares)
    return f"| {found['case']} | {values} ({100 * low:.0f} to {100 * high:.0f}) | {100 * found['float']:.1f} |"


if __name__ == "__main__":
    main()
