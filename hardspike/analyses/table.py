"""Every analysis by name: `hardspike analyse NAME RUN`. To add one, write its function and list it here."""

from collections.abc import Callable
from dataclasses import dataclass

from hardspike.analyses.eps_curve import eps_curve
from hardspike.analyses.leak_sweep import leak_sweep
from hardspike.analyses.query_curve import query_curve
from hardspike.analyses.subject import Subject
from hardspike.analyses.surrogate_table import surrogate_table
from hardspike.analyses.timestep_sweep import timestep_sweep
from hardspike.analyses.transfer_matrix import transfer_matrix
from hardspike.deploy.report.analysis import Analysis


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """make: does the analysis. needs: stages that must have finished. reads: fields of `AnalyseOptions` it takes beside images and seed."""

    make: Callable[[Subject], Analysis]
    summary: str
    needs: tuple[str, ...] = ("convert",)
    reads: tuple[str, ...] = ()


ANALYSES: dict[str, Entry] = {
    "eps": Entry(make=eps_curve, summary="accuracy against eps, beside noise of the same size", reads=("eps",)),
    "queries": Entry(make=query_curve, summary="images still right after so many queries of Square", reads=("eps",)),
    "transfer": Entry(make=transfer_matrix, summary="images made on each network, shown to the others", reads=("eps",)),
    "surrogates": Entry(make=surrogate_table, summary="each surrogate of the ensemble alone, and all", reads=("eps",)),
    "timesteps": Entry(
        make=timestep_sweep, summary="timesteps x input bits, clean and attacked", reads=("eps", "epochs")
    ),
    "leak": Entry(make=leak_sweep, summary="the network with other leaks, clean and attacked", reads=("eps", "epochs")),
}
