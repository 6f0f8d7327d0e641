"""Every analysis by name: `hardspike analyse NAME RUN`. To add one, write its function and list it here."""

from collections.abc import Callable
from dataclasses import dataclass

from hardspike.analyses.coding import coding
from hardspike.analyses.divergence import divergence
from hardspike.analyses.encoder import encoder
from hardspike.analyses.energy import energy_costs
from hardspike.analyses.eps_curve import eps_curve
from hardspike.analyses.heatmaps import heatmaps
from hardspike.analyses.leak_rate import leak_rate
from hardspike.analyses.leak_sweep import leak_sweep
from hardspike.analyses.localisation import localisation
from hardspike.analyses.perturbation import perturbation
from hardspike.analyses.query_curve import query_curve
from hardspike.analyses.stability import stability
from hardspike.analyses.subject import Subject
from hardspike.analyses.suppression import suppression
from hardspike.analyses.surrogate_table import surrogate_table
from hardspike.analyses.timestep_sweep import timestep_sweep
from hardspike.analyses.transfer_matrix import transfer_matrix
from hardspike.deploy.report.analysis import Analysis

MAPS = ("backend", "layers", "sam", "gamma")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """make: does the analysis. needs: stages that must have finished. reads: fields of `AnalyseOptions` it takes beside images and seed."""

    make: Callable[[Subject], Analysis]
    summary: str
    needs: tuple[str, ...] = ("convert",)
    reads: tuple[str, ...] = ()


# In the order of a report: where the networks part, how they fail, what they look at, what they cost, and the neurons behind it.
ANALYSES: dict[str, Entry] = {
    "divergence": Entry(
        make=divergence, summary="where and when the networks part, layer by layer", reads=("backend",)
    ),
    "eps": Entry(make=eps_curve, summary="accuracy against eps, beside noise of the same size", reads=("eps",)),
    "surrogates": Entry(make=surrogate_table, summary="each surrogate of the ensemble alone, and all", reads=("eps",)),
    "transfer": Entry(make=transfer_matrix, summary="images made on each network, shown to the others", reads=("eps",)),
    "queries": Entry(make=query_curve, summary="images still right after so many queries of Square", reads=("eps",)),
    "heatmaps": Entry(make=heatmaps, summary="what each layer looks at: spike activation maps, Grad-CAM", reads=MAPS),
    "localisation": Entry(make=localisation, summary="how far those maps are from the ANN's Grad-CAM", reads=MAPS),
    "stability": Entry(make=stability, summary="how far an attack moves the maps", reads=(*MAPS, "eps")),
    "suppression": Entry(make=suppression, summary="which of two stacked images a network settles on", reads=MAPS),
    "coding": Entry(
        make=coding, summary="spikes per image, by kind of image, layer, class and step", reads=("eps", "backend")
    ),
    "energy": Entry(
        make=energy_costs,
        summary="cost over images: clean, noise, attacked, energy-attacked",
        needs=("deploy",),
        reads=("eps",),
    ),
    "timesteps": Entry(
        make=timestep_sweep, summary="timesteps x input bits, clean and attacked", reads=("eps", "epochs")
    ),
    "leak": Entry(make=leak_sweep, summary="the network with other leaks, clean and attacked", reads=("eps", "epochs")),
    "leak-rate": Entry(make=leak_rate, summary="firing rate against leak, by formula and measured"),
    "encoder": Entry(make=encoder, summary="what the input coding makes of a pixel, for few and many steps"),
    "perturbation": Entry(
        make=perturbation, summary="what neurons and layers leave of a perturbation", reads=("eps", "backend")
    ),
}


def analyses_help() -> str:
    """What there is, for the command's help."""
    return "Which: all, or one of " + "; ".join(f"{name} ({entry.summary})" for name, entry in ANALYSES.items()) + "."
