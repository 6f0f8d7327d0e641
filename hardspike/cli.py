"""The `hardspike` command: every stage of a run by name, each on a run folder.

Exit codes: 0 done, 1 failed (one line says why) or a proof that does not hold, 2 bad usage.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import tyro
from rich.console import Console

from hardspike.analyses.analyse_run import analyse_run
from hardspike.analyses.options import AnalyseOptions
from hardspike.attack.settings import AttackSettings, budget
from hardspike.attack_summary import attack_summary
from hardspike.commands import (
    Analyse,
    Attack,
    Certify,
    Compare,
    Convert,
    Corrupt,
    Deploy,
    Energy,
    Export,
    Fault,
    Measurement,
    Output,
    Place,
    Replay,
    Report,
    Run,
    Stage,
    Sweep,
    Train,
    Verify,
)
from hardspike.compare_runs import compare_runs
from hardspike.comparison import COLUMNS, comparison, markdown, values
from hardspike.deploy.replay import BACKENDS
from hardspike.dry_run import dry_run
from hardspike.export import export
from hardspike.hardware_run import bundle_run, trace_run
from hardspike.measure import measure
from hardspike.pipeline import Pipeline
from hardspike.recipe import read_recipe
from hardspike.run_folder import RunFolder
from hardspike.show import Bars, show_dry_run, table
from hardspike.snn.atomic import write_text
from hardspike.snn.errors import HardspikeError, SettingsError
from hardspike.snn.parallel import current_group
from hardspike.snn.progress import Silent
from hardspike.snn.ranges import require
from hardspike.summary import Summary, summary
from hardspike.sweep import jobs, run_jobs

FAILED, BAD_USAGE = 1, 2
ANALYSED_IMAGES = 200

COMMANDS: dict[str, Callable[..., Output]] = {
    "run": Run,
    "sweep": Sweep,
    "export": Export,
    "train": Train,
    "convert": Convert,
    "deploy": Deploy,
    "verify": Verify,
    "attack": Attack,
    "replay": Replay,
    "report": Report,
    "certify": Certify,
    "place": Place,
    "energy": Energy,
    "corrupt": Corrupt,
    "fault": Fault,
    "analyse": Analyse,
    "compare": Compare,
}
DESCRIPTION = (
    "Take an adversarially robust PyTorch classifier to Loihi-style integers, prove that the deployed network is the one "
    "that was trained, and measure what survives: accuracy, robustness, spikes, energy."
)


def main(arguments: list[str] | None = None) -> None:
    """Entry point. Exits with 0, 1 or 2."""
    command = _parse(sys.argv[1:] if arguments is None else arguments)
    console = Console(stderr=True)
    if int(os.environ.get("RANK", "0")) > 0:  # under torchrun the leader speaks
        command = replace(command, quiet=True)
    try:
        code = _execute(command, console)
    except HardspikeError as error:
        console.print(f"hardspike: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        code = BAD_USAGE if isinstance(error, SettingsError) else FAILED
    except OSError as error:  # no room, no permission: the system's own words, without a traceback
        console.print(f"hardspike: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        code = FAILED
    except KeyboardInterrupt:
        console.print("hardspike: stopped; the same command continues where it was", style="yellow", highlight=False)
        code = FAILED
    sys.exit(code)


def _parse(arguments: list[str]) -> Any:
    return tyro.extras.subcommand_cli_from_dict(
        COMMANDS,
        prog="hardspike",
        description=DESCRIPTION,
        args=arguments,
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes),
    )


def _execute(command: Output, console: Console) -> int:
    if isinstance(command, Sweep):
        return _sweep(command, console)
    if isinstance(command, Export):
        for line in export(command, RunFolder.open(command.run)):
            Console().print(line, markup=False, highlight=False, soft_wrap=True)
        return 0
    if isinstance(command, Run) and command.dry_run:
        return _dry_run(command)
    if isinstance(command, Compare):
        return _shown(command, compare_runs(command.runs, command.out))
    folder = _folder(command)
    bars = Bars(console)
    pipeline = Pipeline(folder, Silent() if command.quiet or command.json else bars)
    result: Summary | None = None
    with bars:
        if isinstance(command, Measurement):
            result = measure(command, folder, pipeline.progress)
        elif isinstance(command, Analyse):
            options = analyse_options(command, folder)
            result = analyse_run(folder, command.name, options, pipeline.progress, redo=command.redo)
        elif isinstance(command, Replay) and command.trace is not None:
            given = command.backend is not None or command.images is not None or command.redo
            require("trace", command.trace, not given, "leave out --backend, --images and --redo")
            result = trace_run(folder, command.trace, pipeline.progress)
        else:
            _work(command, pipeline)
            if isinstance(command, Deploy) and command.bundle is not None:
                result = bundle_run(folder, command.bundle, command.images, pipeline.progress)
        shown = isinstance(command, Analyse | Energy) or (isinstance(command, Replay) and command.trace is not None)
        if shown and folder.finished("report"):
            pipeline.report()
    if not current_group().leads:
        return 0
    return _shown(command, _result(command, folder) if result is None else result)


def _shown(command: Output, result: Summary) -> int:
    out = Console()
    if command.json:
        sys.stdout.write(json.dumps(result.values, indent=2) + "\n")
    else:
        for table in result.tables:
            out.print(table)
        for line in result.lines:
            out.print(line, markup=False, highlight=False, soft_wrap=True)
    return 0 if result.holds else FAILED


def _result(command: Output, folder: RunFolder) -> Summary:
    if isinstance(command, Attack):
        return attack_summary(folder, *attack_choice(command, folder))
    return summary(_name(command), folder, folder.replay_label(*_replay_choice(command, folder)))


def _sweep(command: Sweep, console: Console) -> int:
    todo = jobs(command.recipes, command.seeds, command.out)
    line = " ".join(["hardspike sweep", *map(str, command.recipes), "--seeds", *map(str, command.seeds)])
    try:
        if not command.only_table:
            with (bars := Bars(console)):
                run_jobs(todo, command.jobs, Silent() if command.quiet or command.json else bars)
    finally:  # what is complete is worth a table even where a run failed or Ctrl-C came
        rows = comparison(todo)
        if command.table is not None:
            write_text(command.table, markdown(rows, todo, f"{line} --out {command.out}"))
        if command.json:
            sys.stdout.write(json.dumps(values(rows), indent=2) + "\n")
        else:
            Console().print(
                table(
                    "percent, mean ± standard deviation over n seeds; worst case per image; min: minutes of one run",
                    list(COLUMNS),
                    [r.cells() for r in rows],
                )
            )
    return 0


def _dry_run(command: Run) -> int:
    is_run = command.recipe.is_dir()
    found = dry_run(RunFolder.open(command.recipe).recipe if is_run else read_recipe(command.recipe, command.set))
    if command.json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        show_dry_run(Console(), found)
    return 0


def _name(command: Output) -> str:
    return type(command).__name__.lower()


def _folder(command: Output) -> RunFolder:
    if isinstance(command, Run):
        if command.recipe.is_dir():
            if command.name is not None or command.update or command.set:
                raise SettingsError(
                    f"{command.recipe}: is a run folder, which keeps its name and recipe; leave out --name, --set and --update"
                )
            return RunFolder.open(command.recipe)
        recipe = read_recipe(command.recipe, command.set)
        return RunFolder.create(command.out / (command.name or recipe.name), recipe, update=command.update)
    if isinstance(command, Train) and command.recipe is not None:
        return RunFolder.create(command.run, read_recipe(command.recipe))
    assert isinstance(command, Stage | Train | Measurement | Analyse)
    return RunFolder.open(command.run)


def _replay_choice(command: Output, folder: RunFolder) -> tuple[str, int]:
    """Backend and number of images: the command's, else the recipe's."""
    own = folder.recipe.replay
    if isinstance(command, Replay):
        return command.backend or own.backend, own.images if command.images is None else command.images
    return own.backend, own.images


def analyse_options(command: Analyse, folder: RunFolder) -> AnalyseOptions:
    """The command's, with the recipe's where it leaves them open. Raises SettingsError for values out of range."""
    return AnalyseOptions(
        images=min(folder.recipe.attack.images, ANALYSED_IMAGES) if command.images is None else command.images,
        eps=None if command.eps is None else budget(command.eps),
        seed=command.seed,
        backend=command.backend,
        layers=command.layers,
        sam=command.sam,
        gamma=command.gamma,
        epochs=command.epochs,
    )


def attack_choice(command: Attack, folder: RunFolder) -> tuple[AttackSettings, str]:
    """The settings of an evaluation, and the name of its folder: '' where they are the recipe's own."""
    own = folder.recipe.attack
    given: dict[str, Any] = {
        "suite": command.suite,
        "members": command.members or (() if command.suite else None),
        "norm": command.norm,
        "targets": command.targets or None,
        "images": command.images,
        "seed": command.seed,
        "eps": tuple(budget(text) for text in command.eps) or None,
    }
    settings = replace(own, **{key: value for key, value in given.items() if value is not None})
    missing = folder.recipe.missing_networks()
    for target in (*settings.targets, *settings.sources()):
        require("network", target, target not in missing, f"{folder.path}: its recipe does not make it")
    require("backend", command.backend, command.backend in BACKENDS, f"use {', '.join(BACKENDS)}")
    if command.backend == "emulator":
        return settings, "" if settings == own else settings.label()
    needless = settings.without_gradients() and settings.targets == ("deployed",)
    allowed = (
        "it has no gradient; give --targets deployed and --members that need none, e.g. square200 or pgd20@deployed"
    )
    require("backend", command.backend, needless, allowed)
    return settings, f"{settings.label()}-{command.backend}"


def _work(command: Output, pipeline: Pipeline) -> None:
    if isinstance(command, Deploy):
        require("images", command.images, command.images is None or command.bundle is not None, "give --bundle too")
    if isinstance(command, Run):
        pipeline.run_all()
    elif isinstance(command, Replay) and (command.backend is not None or command.images is not None):
        pipeline.folder.require("replay")
        pipeline.replay_on(*_replay_choice(command, pipeline.folder))
    elif isinstance(command, Attack) and attack_choice(command, pipeline.folder)[1]:
        if command.redo:
            raise SettingsError(
                "attack: --redo is of the recipe's own evaluation; remove the folder of this one instead"
            )
        pipeline.folder.require("attack")
        pipeline.attack_with(*attack_choice(command, pipeline.folder), command.backend)
    else:
        assert isinstance(command, Stage | Train)
        pipeline.run((_name(command),), redo=command.redo)
