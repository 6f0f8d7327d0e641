"""The commands and their options, as `hardspike --help` shows them. What they do is in cli.py."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from hardspike.analyses.table import analyses_help
from hardspike.deploy.faults import FAULT_KINDS, FaultKind

RunPath = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(name="run", help="Folder of the run, e.g. runs/digits.")]


@dataclass(frozen=True, kw_only=True)
class Output:
    """How results are shown."""

    json: bool = False
    """Print one JSON document for machines instead of tables and bars."""
    quiet: bool = False
    """No progress bars."""


@dataclass(frozen=True, kw_only=True)
class Run(Output):
    """Run all stages of a recipe, or continue a run that was stopped.

    Finished stages are not run again. Ends with a table of results and the path of report.html.
    """

    recipe: tyro.conf.Positional[Path]
    """A recipe (e.g. train/recipes/digits.toml), or the folder of a run to continue."""
    out: Path = Path("runs")
    """Where run folders are made."""
    name: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Name of the run folder; the recipe's own name otherwise."""
    set: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="FIELD=VALUE")] = ()
    """Change a field of the recipe, e.g. --set train.epochs=2; may be given again and again."""
    update: bool = False
    """Adopt a changed recipe for an existing run; only the stages it touches are done again."""
    dry_run: bool = False
    """Only say what would be run, and estimate memory and time from some seconds of measuring; nothing is written."""


@dataclass(frozen=True, kw_only=True)
class Stage(Output):
    """One stage of an existing run."""

    run: RunPath
    redo: bool = False
    """Do the stage again although it has finished; stages that build on it count as unfinished then."""


@dataclass(frozen=True, kw_only=True)
class Train(Output):
    """Train the first network, an ANN or a spiking network end to end (stage 1).

    Makes the run folder when --recipe is given.
    """

    run: RunPath
    recipe: Annotated[Path | None, tyro.conf.arg(metavar="RECIPE.toml")] = None
    """Start a new run with this recipe."""
    redo: bool = False
    """Train again although the stage has finished; the trained network is replaced."""


@dataclass(frozen=True, kw_only=True)
class Convert(Stage):
    """Turn the first network into the spiking network, and finetune it (stage 2)."""


@dataclass(frozen=True, kw_only=True)
class Deploy(Stage):
    """Fold and quantise the spiking network to a chip's integers; write the process graph and the .net file (stage 3).

    With --bundle also a zip file for somebody with a Loihi 2: the network, test images clean and attacked, what is expected of
    them, and one program that runs them with Lava alone and writes what `hardspike replay --trace` takes back.
    """

    bundle: Annotated[Path | None, tyro.conf.arg(metavar="OUT.zip")] = None
    """Write the bundle to this file; nothing else is done again."""
    images: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """How many images of each set go into the bundle; 100 otherwise."""


@dataclass(frozen=True, kw_only=True)
class Verify(Stage):
    """Prove that the deployed network is the network that was trained (stage 4).

    Prints what was compared, how many values, how many differ and where first. Exit code 1 when an equality does not hold.
    """


@dataclass(frozen=True, kw_only=True)
class Attack(Stage):
    """Attack ANN, float SNN, its fake-quantised form and the deployed integer network; save the adversarial sets (stage 5).

    With any of the options below it is another evaluation than the recipe's, which stays as it is: its sets are kept beside
    the recipe's, and the same command continues it where it was stopped. Ends with the deployed robust accuracy: the integer
    network under its own attacks and under those made on every network it came from. See docs/attacks.md.
    """

    suite: Annotated[str | None, tyro.conf.arg(metavar="fast|standard|strong")] = None
    """Which attacks; the recipe's own otherwise."""
    eps: Annotated[tuple[str, ...], tyro.conf.arg(metavar="EPS ...")] = ()
    """Budgets in units of [0, 1], also as fractions: 2/255 4/255 8/255."""
    norm: Annotated[str | None, tyro.conf.arg(metavar="linf|l2")] = None
    """Norm of the budget."""
    members: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Attacks by name in place of a suite's, e.g. pgd20/triangular:0.5 sa-pgd100/assg square1000 pgd20@ann."""
    targets: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NETWORK ...")] = ()
    """Networks to attack: ann, snn, quantised, deployed."""
    images: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """How many test images, from the first."""
    seed: Annotated[int | None, tyro.conf.arg(metavar="SEED")] = None
    """Of the attacks' random numbers."""
    backend: Annotated[str, tyro.conf.arg(metavar="NAME")] = "emulator"
    """What the deployed network runs on: emulator, lava or loihi2. The last two have no gradient, so they take members that need none
    (square200, noise, hop-skip-jump500) or are made on another network (pgd20@deployed: on the emulator)."""


@dataclass(frozen=True, kw_only=True)
class Replay(Stage):
    """Run clean, noisy and adversarial images on the deployed network; count spikes and operations (stage 6).

    With --backend the sets are replayed there, besides the recipe's own backend. With --trace a bundle's run on other people's
    hardware is taken back: compared with the emulator spike by spike, and shown in the report beside the estimates. Exit code 1
    when a value differs.
    """

    trace: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """What run_on_loihi.py of this run's bundle wrote."""

    backend: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """emulator, lava (simulator, slow) or loihi2 (hardware); the recipe's own otherwise."""
    images: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """How many images of each set; the recipe's own number otherwise."""


@dataclass(frozen=True, kw_only=True)
class Report(Stage):
    """Write report.html and report.json (stage 7)."""


@dataclass(frozen=True, kw_only=True)
class Export(Output):
    """Write a run's networks as files of other tools."""

    run: RunPath
    onnx: Annotated[Path | None, tyro.conf.arg(metavar="FILE.onnx")] = None
    """The ANN as ONNX: images in [0, 1] in, logits out, normalisation inside."""
    nir: Annotated[Path | None, tyro.conf.arg(metavar="FILE.nir")] = None
    """The float spiking network as NIR, for snnTorch, SpikingJelly, Norse, sinabs and others."""
    onnx_step: Annotated[Path | None, tyro.conf.arg(metavar="FILE.onnx")] = None
    """One timestep of the deployed integers as ONNX: messages and states in, spikes and states out."""
    net: Annotated[Path | None, tyro.conf.arg(metavar="FILE.net")] = None
    """The deployed integers as a .net file for lava-dl's netx (chains)."""


@dataclass(frozen=True, kw_only=True)
class Sweep(Output):
    """Run several recipes with several seeds beside each other, and compare them in one table.

    Complete runs are not run again; a stopped sweep continues with the same command.
    """

    recipes: tyro.conf.Positional[tuple[Path, ...]]
    """Recipes, or folders of them (e.g. train/recipes/fashion)."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of weights and training."""
    jobs: int = 2
    """How many runs at a time."""
    out: Path = Path("runs/sweep")
    """Where run folders are made, one per recipe and seed."""
    table: Annotated[Path | None, tyro.conf.arg(metavar="FILE.md")] = None
    """Also write the table to this file."""
    only_table: bool = False
    """Run nothing; show what is complete."""


@dataclass(frozen=True, kw_only=True)
class Measurement(Output):
    """A measurement on a finished run, beside its stages."""

    run: RunPath
    images: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """How many test images, from the first; as many as the recipe attacks otherwise."""


@dataclass(frozen=True, kw_only=True)
class Certify(Measurement):
    """Prove what no image within eps can change about the deployed integer network.

    Interval arithmetic in integers: certified accuracy, spike counts and energy that no such image can leave. An image that is
    not certified may be safe too; compare with `hardspike attack`. See docs/attacks.md.
    """

    eps: Annotated[tuple[str, ...], tyro.conf.arg(metavar="EPS ...")] = ("0.5/255", "1/255", "2/255")
    """L-infinity budgets in units of [0, 1], also as fractions."""
    smoothing: Annotated[tuple[float, ...], tyro.conf.arg(metavar="SIGMA ...")] = ()
    """Also certify by randomised smoothing with Gaussian noise of these standard deviations; slow (1,100 runs an image)."""


@dataclass(frozen=True, kw_only=True)
class Place(Measurement):
    """Where the deployed network would sit on chips, and what test images cost there: cores, binding limits, energy, time.

    Energy is an interval over the cost sets of a profile, static energy stands apart, and what has no price is named. Apart from
    chips, bare operations against the ANN's. Exit code 1 when a single chip is named and the network does not fit it; with several,
    or none named, the table says which fit.
    """

    profiles: Annotated[tuple[str, ...], tyro.conf.arg(metavar="PROFILE ...")] = ()
    """Hardware profiles by name (loihi1 loihi2 speck spinnaker2 truenorth), or paths of .toml files; all otherwise.
    Profiles of bare arithmetic (cmos45) price the operations only."""


@dataclass(frozen=True, kw_only=True)
class Energy(Measurement):
    """Make the deployed network work as hard as possible within eps: most synaptic operations, the class kept or not.

    Beside controls: random noise, all pixels brighter, an image of ones, a flat grey one, and the run's accuracy attack.
    """

    eps: Annotated[tuple[str, ...], tyro.conf.arg(metavar="EPS ...")] = ()
    """L-infinity budgets in units of [0, 1], also as fractions; the recipe's own otherwise."""
    steps: int = 100
    """Trials per start, of three."""
    seed: int = 0
    """Of all random numbers."""


@dataclass(frozen=True, kw_only=True)
class Corrupt(Measurement):
    """Accuracy under the 15 corruptions of CIFAR-10-C (noise, blur, weather, digital) at 5 severities, for any image size."""

    targets: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NETWORK ...")] = ("ann", "snn", "deployed")
    """Networks to measure: ann, snn, quantised, deployed."""
    names: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Corruptions by name, e.g. gaussian_noise fog; all otherwise."""
    severities: Annotated[tuple[int, ...], tyro.conf.arg(metavar="1..5 ...")] = (1, 2, 3, 4, 5)
    """Severities to average over."""
    seed: int = 0
    """Of the corruptions' random numbers."""


@dataclass(frozen=True, kw_only=True)
class Fault(Measurement):
    """Accuracy of the deployed network, clean and attacked, when the chip has faults.

    stuck: neurons that never fire; bitflip: inverted bits of weights; dropped: lost spikes; drift: thresholds times 1 + rate N(0, 1).
    """

    kinds: Annotated[tuple[FaultKind, ...], tyro.conf.arg(metavar="KIND ...")] = FAULT_KINDS
    """Which: stuck, bitflip, dropped, drift."""
    rates: Annotated[tuple[float, ...], tyro.conf.arg(metavar="RATE ...")] = (0.0, 0.001, 0.01, 0.05, 0.1)
    """Probabilities (drift: relative deviation)."""
    seeds: Annotated[tuple[int, ...], tyro.conf.arg(metavar="SEED ...")] = (0, 1, 2)
    """Of the faults; each seed is another chip."""
    attack: Annotated[str, tyro.conf.arg(metavar="NAME")] = "pgd10+detached/triangular:0.5"
    """Attack on each faulty network, at the recipe's largest budget."""


@dataclass(frozen=True, kw_only=True)
class Analyse(Output):
    """Look into a run's networks: where they part, what they look at, how they fail. One analysis, or all of them.

    Leaves numbers and pictures in RUN/analyses/NAME (SVG, CSV, JSON) and in the run's report. One that was done already on the same
    networks with the same options is not done again.
    """

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME", help=analyses_help())]
    run: RunPath
    images: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """How many test images, from the first; 200 otherwise, or all that the recipe attacks. Costly analyses take fewer, and say so."""
    eps: Annotated[str | None, tyro.conf.arg(metavar="EPS")] = None
    """L-infinity budget in units of [0, 1], also as a fraction; the recipe's largest otherwise."""
    seed: int = 0
    """Of all random numbers."""
    backend: Annotated[str, tyro.conf.arg(metavar="NAME")] = "emulator"
    """What the deployed network runs on where its spikes are looked at: emulator, lava (slow) or loihi2."""
    layers: Annotated[tuple[str, ...], tyro.conf.arg(metavar="LAYER ...")] = ()
    """Neuron layers by name; all otherwise."""
    sam: Annotated[str, tyro.conf.arg(metavar="paper|code")] = "paper"
    """Spike activation map: the paper's equation, or what its published code computes."""
    gamma: float = 0.5
    """Of the spike activation map: how fast earlier spikes stop counting, per timestep."""
    epochs: int = 1
    """Of the trainings that an analysis makes (leak, timesteps); 0 for none."""
    redo: bool = False
    """Do it again although it was done with the same options."""


@dataclass(frozen=True, kw_only=True)
class Compare(Output):
    """Put finished runs side by side: one table, one page, and every figure as SVG, CSV and JSON.

    Differences from the first run that are larger than the 95 % intervals are marked.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of runs; the first is what the others are compared with."""
    out: Path = Path("comparison")
    """Where report.html, comparison.json and figures/ are written."""
