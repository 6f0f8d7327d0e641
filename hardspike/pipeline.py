"""The stages of one run in order: each reads what earlier ones left in the run folder, and is not done again once finished."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from hardspike.analyses.analyse_run import analyses_of
from hardspike.attack.evaluation import accuracy
from hardspike.attack.settings import AttackSettings
from hardspike.attack_stage import attack_networks
from hardspike.compare_runs import report_of_float_run
from hardspike.control_process import ControlProcess
from hardspike.convert.conversion import converted
from hardspike.convert.given_network import given_network
from hardspike.deploy.backends import make_backend
from hardspike.deploy.chip_report import chip_report
from hardspike.deploy.compile import compile_network
from hardspike.deploy.emulator import EmulatorBackend
from hardspike.deploy.energy import NOT_PRICED
from hardspike.deploy.graph_file import load_graph, save_graph
from hardspike.deploy.input_coding import encode_images, quantize_images
from hardspike.deploy.integer_training import IntegerNetwork
from hardspike.deploy.netx_file import write_netx
from hardspike.deploy.overflow import count_overflows
from hardspike.deploy.replay import Replayed, ReplaySet, replay, replay_sets
from hardspike.deploy.replay_file import save_replayed
from hardspike.deploy.report.analysis import analysis_to_json
from hardspike.deploy.report.chart_file import write_chart
from hardspike.deploy.report.figures import charts
from hardspike.deploy.report.numbers import NetworkResult, examples, network_numbers
from hardspike.deploy.report.page import FIGURES, render_page
from hardspike.deploy.verify import verify_network
from hardspike.hw_profiles.profile import load_profile
from hardspike.results import adversarial_sets, energy_attacked, equalities, layer_fits, measurements, replayed_sets
from hardspike.run_folder import RunFolder
from hardspike.snn.atomic import read_json, write_json, write_text
from hardspike.snn.checkpoint import load_network, save_network
from hardspike.snn.data import Splits, load_dataset
from hardspike.snn.errors import DoesNotFitError, SettingsError, UnsupportedLayerError
from hardspike.snn.network import SpikingNetwork
from hardspike.snn.parallel import Group, current_group
from hardspike.snn.progress import Prefixed, Progress, Silent
from hardspike.snn.ranges import require
from hardspike.tensorboard import Board
from hardspike.train.first_network import first_network
from hardspike.train.loop import fit
from hardspike.train.settings import FitSettings

OVERFLOW_IMAGES = 64
PLACED_IMAGES = 64  # a report's; `hardspike place` takes more


@dataclass(slots=True)
class Pipeline:
    """Runs stages of one folder. Raises HardspikeError subclasses for everything a user can mend."""

    folder: RunFolder
    progress: Progress = field(default_factory=Silent)

    def run_all(self) -> None:
        """All stages that have not finished; the control network's run goes on beside, in a process of its own."""
        control = self.control()
        stages = self.folder.recipe.stages
        if control is None or control.is_complete() or current_group().size > 1:
            self.run(stages)
            return
        *before, last = stages
        with ControlProcess(control.folder) as beside:
            self._run_own(tuple(before), redo=False)
            beside.wait(self.progress)
        self._run_own((last,), redo=False)

    def run(self, stages: tuple[str, ...], *, redo: bool = False) -> None:
        """Run `stages` in order, the control network's first. Finished ones are skipped unless `redo`."""
        control = self.control()
        if control is not None:
            control.run(stages, redo=redo)
        self._run_own(stages, redo=redo)

    def is_complete(self) -> bool:
        return all(self.folder.finished(stage) for stage in self.folder.recipe.stages)

    def _run_own(self, stages: tuple[str, ...], *, redo: bool) -> None:
        torch.set_num_threads(self.folder.recipe.threads)
        group = current_group()
        for stage in stages if group.leads else [stage for stage in stages if stage in SHARED]:
            together = group if stage in SHARED else Group()
            together.wait()
            if self.folder.finished(stage) and not redo:
                continue
            self.folder.require(stage)
            together.wait()  # all have looked at the records before the leader changes them
            if group.leads:
                self.folder.begin(stage, anew=redo)
            together.wait()
            start = time.perf_counter()
            STAGE_FUNCTIONS[stage](self)
            if group.leads:
                self.folder.finish(stage, time.perf_counter() - start)

    def control(self) -> "Pipeline | None":
        """The pipeline of the control network, in the folder `control` of this run."""
        recipe = self.folder.recipe.control_recipe()
        if recipe is None:
            return None
        path = self.folder.path / "control"
        return Pipeline(RunFolder.create(path, recipe, update=True), Prefixed(self.progress, "control: "))

    def splits(self) -> Splits:
        return load_dataset(self.folder.recipe.data)

    def train(self) -> None:
        recipe = self.folder.recipe
        if recipe.train.network_file:
            self._take_given_network()
            return
        splits = self.splits()
        first = first_network(recipe.train, recipe.network, splits)
        self._fit("train", first, splits, recipe.train, recipe.network.seed)
        if current_group().leads:
            save_network(self.folder.ann, first, made_by=self.folder.key("train"))

    def _take_given_network(self) -> None:
        recipe, splits = self.folder.recipe, self.splits()
        made = first_network(recipe.train, recipe.network, splits)
        given = given_network(Path(recipe.train.network_file), made, recipe.network, splits, dt=recipe.train.network_dt)
        steps = recipe.train.time_steps or None
        if given.time_steps != steps:
            raise SettingsError(
                f"train.time_steps = {recipe.train.time_steps}: {recipe.train.network_file} has {given.time_steps or 0}; use that"
            )
        if current_group().leads:
            found = accuracy(given, splits.validation)
            metrics = {"epoch": 1, "epochs": 1, "validation_accuracy": found, "score": found}
            self._watch("train", 1)(metrics)
            save_network(self.folder.ann, given, made_by=self.folder.key("train"))

    def convert(self) -> None:
        recipe = self.folder.recipe
        splits, seed = self.splits(), recipe.network.seed
        snn = converted(recipe.convert, load_network(self.folder.ann), splits, seed)
        if recipe.convert.epochs:
            self._fit("convert", snn, splits, recipe.convert, seed + 1)
        if current_group().leads:
            save_network(self.folder.snn, snn, made_by=self.folder.key("convert"))

    def _fit(
        self,
        stage: str,
        network: SpikingNetwork,
        splits: Splits,
        settings: FitSettings,
        seed: int,
        device: str | None = None,
    ) -> None:
        """device: where other than on the recipe's."""
        fit(
            network,
            splits,
            settings,
            seed=seed,
            state_path=self.folder.state(stage),
            identity=self.folder.key(stage),
            on_epoch=self._watch(stage, settings.epochs),
            device=device or self.folder.recipe.device,
        )

    def deploy(self) -> None:
        self._finetune_integers()
        if not current_group().leads:
            return
        self.progress.begin("deploy", 4)
        provenance = {"run": self.folder.recipe.name, "snn": self.folder.key("convert")}
        graph, fits = compile_network(load_network(self.folder.compiled), self.folder.recipe.deploy, provenance)
        self.progress.advance(note="quantised")
        save_graph(self.folder.graph, graph)
        self.progress.advance(note="process graph")
        self.folder.net.unlink(missing_ok=True)  # one of an earlier network
        try:
            write_netx(self.folder.net, graph)
        except (UnsupportedLayerError, DoesNotFitError) as refused:
            self.progress.advance(note=f"no .net file: {refused}")
        else:
            self.progress.advance(note=".net file")
        write_json(self.folder.fit, [asdict(fit) for fit in fits])
        validation = self.splits().validation.first(OVERFLOW_IMAGES)
        images = quantize_images(validation.images, graph.input.image_bits)
        overflows = count_overflows(graph, encode_images(images, graph))
        write_json(self.folder.overflows, {name: asdict(found) for name, found in overflows.items()})
        self.progress.advance(note="overflows counted")

    def _finetune_integers(self) -> None:
        recipe = self.folder.recipe
        settings = recipe.finetuning()
        if settings is None:
            return
        thresholds = recipe.last_training.trainable_thresholds
        network = IntegerNetwork(load_network(self.folder.snn), recipe.deploy, trainable_thresholds=thresholds)
        self._fit("deploy", network, self.splits(), settings, recipe.network.seed + 2, device="cpu")
        if current_group().leads:
            save_network(self.folder.compiled, network.as_float(), made_by=self.folder.key("deploy"))

    def verify(self) -> None:
        rows = verify_network(
            load_network(self.folder.compiled),
            load_graph(self.folder.graph),
            self.folder.net,
            self.splits().test,
            self.folder.recipe.verify,
            self.progress,
            step_norms=self.folder.recipe.deploy.step_norms,
        )
        write_json(self.folder.equalities, [asdict(row) for row in rows])

    def attack(self) -> None:
        attack_networks(self.folder, self.folder.recipe.attack, "", self.splits(), self.progress)

    def attack_with(self, settings: AttackSettings, label: str, backend: str) -> None:
        """Another evaluation than the recipe's own; its sets stay beside the recipe's, under `label`."""
        torch.set_num_threads(self.folder.recipe.threads)
        attack_networks(self.folder, settings, label, self.splits(), self.progress, backend)

    def replay(self) -> None:
        settings = self.folder.recipe.replay
        self.replay_on(settings.backend, settings.images)

    def replay_on(self, backend_name: str, images: int) -> list[Replayed]:
        """Replay the first `images` of every set on a backend; the results stay in the run folder, under their own label."""
        require("images", images, images >= 1, "use 1 or more")
        graph = load_graph(self.folder.graph)
        backend = make_backend(backend_name, self.folder.net)
        ann, snn = load_network(self.folder.ann), load_network(self.folder.snn)
        sets = self._replay_sets(images)
        self.progress.begin(f"replay on {backend_name}", sum(len(one.images) for one in sets))
        results = []
        for one in sets:
            name = one.origin.name
            advance = partial(self.progress.advance, note=name)
            results.append(replay(one, graph, backend, ann=ann, snn=snn, progress=advance))
            save_replayed(self.folder.replayed_set(self.folder.replay_label(backend_name, images), name), results[-1])
        return results

    def _replay_sets(self, images: int) -> list[ReplaySet]:
        settings = self.folder.recipe.attack
        count = min(images, settings.images)
        attacks = [made.first(count) for made in adversarial_sets(self.folder)]
        return replay_sets(self.splits().test.first(count), attacks, settings.seed)

    def report(self) -> None:
        if not self.folder.recipe.deploy.enabled:
            report_of_float_run(self.folder)
            return
        control = self.control()
        networks = [self.result()] + ([] if control is None else [control.result()])
        self.progress.begin("report", 2)
        numbers = self._report_numbers(networks)
        write_json(self.folder.report_json, numbers)
        for chart in charts(numbers):
            write_chart(self.folder.path / FIGURES, chart)
        self.progress.advance(note="report.json")
        write_text(self.folder.report_html, render_page(numbers))
        self.progress.advance(note="report.html")

    def result(self) -> NetworkResult:
        """Everything the finished stages left, for the report."""
        recipe, backend = self.folder.recipe, self.folder.recipe.replay.backend
        ann, snn, graph = load_network(self.folder.ann), load_network(self.folder.snn), load_graph(self.folder.graph)
        energy = energy_attacked(self.folder, self.splits().test.first(recipe.replay.images))
        costly = [replay(one, graph, EmulatorBackend(), ann=ann, snn=snn) for one in energy]
        return NetworkResult(
            name=recipe.name,
            training=recipe.training(),
            ann=ann,
            snn=snn,
            graph=graph,
            fits=layer_fits(self.folder),
            equalities=equalities(self.folder),
            attacks=adversarial_sets(self.folder),
            replayed=[*replayed_sets(self.folder, backend), *costly],
            backend=backend,
            seconds=self.folder.seconds(),
            measured=measurements(self.folder),
        )

    def _report_numbers(self, networks: list[NetworkResult]) -> dict[str, Any]:
        recipe = self.folder.recipe
        costs = load_profile(recipe.report.cost_profile)
        analyses = list(analyses_of(self.folder))
        return {
            "run": recipe.name,
            "run_path": str(self.folder.path),
            "written": time.strftime("%Y-%m-%d %H:%M"),
            "environment": read_json(self.folder.path / "environment.json", "the run's environment"),
            "recipe": recipe.to_toml(),
            "dataset": recipe.data.dataset,
            "networks": [network_numbers(network, costs) for network in networks],
            "examples": examples(networks[0], recipe.report.examples),
            "energy": {
                "chip": costs.chip,
                "sets": {name: asdict(cost_set) for name, cost_set in costs.costs.items()},
                "not_priced": NOT_PRICED,
            },
            "placement": self._placement(networks[0]),
            "analyses": [
                {"analysis": analysis_to_json(kept.analysis), "commit": kept.commit}
                for kept in analyses
                if kept.current
            ],
            "stale_analyses": [kept.analysis.name for kept in analyses if not kept.current],
        }

    def _placement(self, network: NetworkResult) -> dict[str, Any]:
        """On the chip the network was compiled for, and on the one whose prices the report uses."""
        recipe = self.folder.recipe
        profiles = [load_profile(name) for name in dict.fromkeys((recipe.deploy.profile, recipe.report.cost_profile))]
        images = self.splits().test.first(min(PLACED_IMAGES, recipe.replay.images))
        return asdict(chip_report(network.graph, network.ann, images, profiles))

    def _watch(self, stage: str, epochs: int) -> Callable[[dict[str, Any]], None]:
        self.progress.begin(stage, epochs)
        seen = 0
        board = Board(self.folder.path / "tensorboard" / stage) if self.folder.recipe.tensorboard else None

        def on_epoch(metrics: dict[str, Any]) -> None:
            nonlocal seen
            self.folder.log(stage, metrics)
            if board is not None:
                board.write(metrics)
            robust = metrics.get("validation_robust_accuracy")
            note = f"validation {metrics['validation_accuracy']:.3f}" + (
                "" if robust is None else f", robust {robust:.3f}"
            )
            self.progress.advance(metrics["epoch"] - seen, note)
            seen = metrics["epoch"]

        return on_epoch


# Stages that several processes under torchrun do together; the others are the leader's.
SHARED = ("train", "convert", "deploy", "attack")
STAGE_FUNCTIONS: dict[str, Callable[[Pipeline], None]] = {
    "train": Pipeline.train,
    "convert": Pipeline.convert,
    "deploy": Pipeline.deploy,
    "verify": Pipeline.verify,
    "attack": Pipeline.attack,
    "replay": Pipeline.replay,
    "report": Pipeline.report,
}
