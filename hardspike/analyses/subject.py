"""What an analysis looks at: the networks of one run and some of its test images, each loaded once."""

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from hardspike.analyses.options import AnalyseOptions
from hardspike.attack.ball import Ball
from hardspike.attack.evaluation import member_seed
from hardspike.attack.gradient import Logits
from hardspike.attack.members import parse_member
from hardspike.attack.problem import Problem, SampleDraws
from hardspike.deploy.backends import make_backend
from hardspike.deploy.graph_file import load_graph
from hardspike.deploy.process_graph import ProcessGraph
from hardspike.deploy.trace import Backend
from hardspike.run_folder import RunFolder
from hardspike.run_networks import RunNetworks
from hardspike.snn.checkpoint import load_network
from hardspike.snn.data import ImageSet, Splits, load_dataset
from hardspike.snn.network import SpikingNetwork
from hardspike.snn.progress import Progress, Silent

BATCH = 128


@dataclass(eq=False)
class Subject:
    """A run with its finished stages. Networks are in evaluation mode and must be left as they were found.

    Random numbers of an analysis follow from `options.seed`. `has_deployed`: whether the recipe deploys, and has.
    """

    folder: RunFolder
    options: AnalyseOptions
    progress: Progress = field(default_factory=Silent)

    @cached_property
    def splits(self) -> Splits:
        return load_dataset(self.folder.recipe.data)

    @cached_property
    def test(self) -> ImageSet:
        """The first test images, as many as the options say."""
        return self.splits.test.first(self.options.images)

    @cached_property
    def eps(self) -> float:
        """The budget: the options', else the recipe's largest."""
        return self.options.eps or max(self.folder.recipe.attack.eps)

    @cached_property
    def ann(self) -> SpikingNetwork:
        return load_network(self.folder.ann).eval()

    @cached_property
    def snn(self) -> SpikingNetwork:
        return load_network(self.folder.snn).eval()

    @property
    def has_deployed(self) -> bool:
        return self.folder.recipe.deploy.enabled and self.folder.finished("deploy")

    @cached_property
    def graph(self) -> ProcessGraph:
        return load_graph(self.folder.graph)

    @cached_property
    def backend(self) -> Backend:
        """What the deployed network runs on where its spikes are looked at."""
        return make_backend(self.options.backend, self.folder.net)

    @cached_property
    def networks(self) -> RunNetworks:
        return RunNetworks(self.folder, self.options.backend)

    def logits(self, target: str) -> Logits:
        """A network of `attack.settings.TARGETS` as a function of images."""
        return self.networks.load(target)

    @property
    def targets(self) -> tuple[str, ...]:
        """The networks that this run has, of ann, snn, quantised, deployed."""
        missing = set(self.folder.recipe.missing_networks())
        found = ("ann", "snn", "quantised", "deployed") if self.has_deployed else ("ann", "snn")
        return tuple(name for name in found if name not in missing)

    def attacked(self, attack: str, target: str, *, eps: float | None = None, data: ImageSet | None = None) -> Tensor:
        """Images that one member (e.g. `fgsm`, `pgd20/triangular:0.5`) makes on `target`, successful or not, (N, C, H, W).

        They lie on the deployed network's input grid where the run has one. data: the test images otherwise.
        """
        grid = self.networks.grid if self.has_deployed else None
        budget = self.eps if eps is None else eps
        return attacked_on(
            self.logits(target), attack, data or self.test, eps=budget, grid=grid, seed=self.options.seed
        )


def attacked_on(
    model: Logits, attack: str, data: ImageSet, *, eps: float, grid: int | None = None, seed: int = 0
) -> Tensor:
    """Images that one member makes on any model, successful or not, (N, C, H, W). grid: see `Ball`."""
    member, made = parse_member(attack), []
    for rows in torch.arange(len(data)).split(BATCH):
        ball = Ball.around(data.images[rows], eps, grid=grid)
        draws = SampleDraws(member_seed(seed, member.name), rows)
        problem = Problem(model=model, labels=data.labels[rows], ball=ball, draws=draws)
        made.append(ball.rounded(member.perturb(problem).detach()))
    return torch.cat(made)
