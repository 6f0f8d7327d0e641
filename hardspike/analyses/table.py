"""Every analysis by name: `hardspike analyse NAME RUN`. To add one, write its function and list it here."""

from collections.abc import Callable
from dataclasses import dataclass

from hardspike.analyses.subject import Subject
from hardspike.deploy.report.analysis import Analysis


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """make: does the analysis. needs: stages that must have finished. reads: fields of `AnalyseOptions` it takes beside images and seed."""

    make: Callable[[Subject], Analysis]
    summary: str
    needs: tuple[str, ...] = ("convert",)
    reads: tuple[str, ...] = ()


ANALYSES: dict[str, Entry] = {}
