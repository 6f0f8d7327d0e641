"""`hardspike place`: where a run's deployed network would sit on chips, what test images cost there, and its bare operations apart."""

from collections.abc import Sequence
from dataclasses import asdict

from rich.table import Table

from hardspike.deploy.ann_baseline import BareOperations
from hardspike.deploy.chip_report import Chip, ChipReport, chip_report
from hardspike.deploy.chip_work import ChipWork
from hardspike.deploy.energy_report import Spread
from hardspike.deploy.graph_file import load_graph
from hardspike.deploy.si_prefix import si, si_range
from hardspike.hw_profiles.profile import Profile, load_profile, profile_names
from hardspike.run_folder import RunFolder
from hardspike.show import table
from hardspike.snn.atomic import write_json
from hardspike.snn.checkpoint import load_network
from hardspike.snn.data import ImageSet
from hardspike.snn.progress import Progress
from hardspike.summary import Summary

RESOURCES = {"neurons": "neurons", "synapse_words": "words", "axons_in": "axons in", "axons_out": "axons out"}
EVENTS = {
    "operations": "synaptic operations, dense",
    "operations_convolution": "synaptic operations, convolution",
    "active": "neuron updates that fire",
    "idle": "neuron updates that do not",
    "messages_out": "messages to cores",
    "hops_east_west": "hops east or west",
    "hops_north_south": "hops north or south",
    "off_chip": "messages between chips",
}
FITS = {True: "yes", False: "no", None: "not known"}


def chip_profiles(names: Sequence[str], folder: RunFolder) -> list[Profile]:
    """The named profiles, each once; without names the run's own, the recipe's cost profile, and all others that come along.

    Raises as `load_profile`.
    """
    recipe = folder.recipe
    wanted = names or (recipe.deploy.profile, recipe.report.cost_profile, *profile_names())
    return [load_profile(name) for name in dict.fromkeys(wanted)]


def place_run(folder: RunFolder, data: ImageSet, profiles: Sequence[Profile], progress: Progress) -> Summary:
    """Numbers are kept in the run's folder `placement`. Does not hold where a single chip is asked for and the network does not fit."""
    progress.begin("place and count", len(data))
    report = chip_report(load_graph(folder.graph), load_network(folder.ann), data, profiles, progress=progress.advance)
    path = folder.path / "placement" / "placement.json"
    values = asdict(report)
    write_json(path, values)
    tables = [_verdicts(report)] if report.chips else []
    for chip in report.chips:
        tables += _chip_tables(chip)
    placed = [(chip.profile, chip.work) for chip in report.chips if chip.work is not None]
    tables += [_events(placed)] if placed else []
    tables += _operations(report.operations)
    holds = len(report.chips) != 1 or report.chips[0].fits is True
    return Summary(values, tables, [*_lines(report), f"every number: {path}"], holds)


def _verdicts(report: ChipReport) -> Table:
    rows = []
    for chip in report.chips:
        place, work = chip.occupied, chip.work
        energy = si_range([one.mean for one in work.dynamic], "J") if work is not None and work.dynamic else "-"
        seconds = si_range([one.sample.mean for one in work.times], "s") if work is not None and work.times else "-"
        cells = ["-", "-", "-"]
        if place is not None:
            binding = f"{RESOURCES[place.binding]} of {place.binding_layer}, {_percent(place.binding_share)}"
            cells = [f"{place.cores:,}", f"{place.chips:,}", binding]
        rows.append([chip.profile, FITS[chip.fits], *cells, energy, seconds])
    title = f"where it fits; dynamic energy and time of an image, mean of {report.images} ({_percent(report.accuracy)} right)"
    return table(title, ["profile", "fits", "cores", "chips", "binding", "energy", "time"], rows, left=2)


def _chip_tables(chip: Chip) -> list[Table]:
    if chip.occupied is None or chip.work is None:
        return []
    made = [_layers(chip)]
    if chip.work.prices:
        made.append(_prices(chip.profile, chip.work))
    if chip.work.times:
        made.append(_times(chip.profile, chip.work))
    return made


def _layers(chip: Chip) -> Table:
    place = chip.occupied
    assert place is not None
    rows = [
        [
            row["layer"],
            f"{row['cores']:,}",
            *(_used(row[name]) for name in RESOURCES),
            f"{row['replicated_words']:+,}",
            f"{RESOURCES[row['binding']]} {_percent(row['used'])}",
        ]
        for row in place.layers
    ]
    shares = ", ".join(
        f"{RESOURCES[name]} {_percent(mean)} / {_percent(most)}" for name, (mean, most) in place.utilisation.items()
    )
    tiles = "" if place.tiles is None else f", {_many(place.tiles, 'tile')}"
    would = "would take" if chip.fits is False else "takes"
    title = (
        f"{chip.profile}: {would} {_many(place.cores, 'core')}, {_many(place.chips, 'chip')}{tiles}; "
        f"in use, mean / fullest core: {shares}. Per layer the most on a core / its limit"
    )
    return table(title, ["layer", "cores", *RESOURCES.values(), "words over once", "binding"], rows)


def _prices(name: str, work: ChipWork) -> Table:
    sets = work.prices
    rows = [[part, *(si(one.parts[part].mean, "J") for one in sets)] for part in sets[0].parts]
    for key in ("mean", "p50", "p95", "max"):
        rows.append([f"dynamic, {key}", *(si(getattr(one.dynamic, key), "J") for one in sets)])
    for times in dict.fromkeys(key for one in sets for key in one.static):
        rows.append([f"static, time of {times}", *(si(one.static[times].mean, "J") for one in sets)])
    for times in dict.fromkeys(key for one in sets for key in one.total):
        totals = (si(one.total[times].mean, "J") if times in one.total else "none" for one in sets)
        rows.append([f"total, {times}", *totals])
    rows.append(["no price for", *(", ".join(one.unpriced) or "-" for one in sets)])
    return table(
        f"{name}: energy of an image (mean where not said)", ["by cost set", *(one.costs for one in sets)], rows
    )


def _times(name: str, work: ChipWork) -> Table:
    sets = work.times
    rows = [[key, *(si(getattr(one.sample, key), "s") for one in sets)] for key in ("mean", "p50", "p95", "max")]
    rows.append(["of it the barrier", *(si(one.barrier, "s") for one in sets)])
    busiest = (f"{one.busiest_core} ({one.busiest_layer}), {_percent(one.busiest_share)} of steps" for one in sets)
    rows.append(["busiest core", *busiest])
    return table(f"{name}: time of an image", ["by time set", *(one.times for one in sets)], rows)


def _events(placed: Sequence[tuple[str, ChipWork]]) -> Table:
    rows = [
        [title, *(_count(work.events[name]) if name in work.events else "-" for _, work in placed)]
        for name, title in EVENTS.items()
    ]
    return table("exact events of an image, mean", ["event", *(name for name, _ in placed)], rows)


def _operations(found: BareOperations) -> list[Table]:
    counts = {"accumulates": found.accumulates, "multiply-accumulates": found.multiply_accumulates}
    rows = [[f"spiking, {name}", *_four(spread)] for name, spread in counts.items()]
    if found.ann_zero_skipping is not None and found.ann_dense is not None:
        rows.append(["ANN, dense multiply-accumulates", *[f"{found.ann_dense:,}"] * 4])
        rows.append(["ANN, zero-skipping", *_four(found.ann_zero_skipping)])
    title = f"bare operations of an image, for no chip; {_count(found.first_layer)} of the spiking ones are in the first layer"
    prices = []
    for price in found.prices:
        ann = "-" if price.ann_dense is None else si(price.ann_dense, "J")
        skipping = "-" if price.ann_zero_skipping is None else si(price.ann_zero_skipping.mean, "J")
        ratios = (price.ratio_dense, price.ratio_zero_skipping)
        shown = ["-" if ratio is None else f"{ratio.mean:.2f}" for ratio in ratios]
        prices.append([price.arithmetic, si(price.spiking.mean, "J"), ann, skipping, *shown])
    columns = ["arithmetic", "spiking", "ANN dense", "zero-skipping", "spiking / dense", "/ zero-skipping"]
    return [
        table(title, ["operations", "mean", "p50", "p95", "max"], rows),
        table(
            "their arithmetic alone: no memory, no routing, no neurons; only the ratios say something", columns, prices
        ),
    ]


def _lines(report: ChipReport) -> list[str]:
    lines = []
    for chip in report.chips:
        verb = {False: "does not fit: ", None: "not placed: ", True: ""}[chip.fits]
        lines += [f"{chip.profile}: {verb}{reason}" for reason in chip.reasons]
        if chip.reasons and chip.occupied is not None:
            lines.append(f"{chip.profile}: shown as if it did fit, each message of the input as one spike")
        if chip.work is None:
            continue
        refused = {one.no_total for one in chip.work.prices if one.no_total is not None}
        lines += [*sorted(refused), *chip.work.missing]
        if chip.work.power is not None and not chip.work.prices:
            low, high = chip.work.power
            lines.append(
                f"{chip.profile}: the chips in use draw {si_range((low, high), 'W')} as measured or quoted, "
                f"so {si_range((low * 1e-3, high * 1e-3), 'J')} for every millisecond that an image takes"
            )
    if any(chip.work is not None and chip.work.prices for chip in report.chips):
        lines.append(f"in no price: {', '.join(report.outside)}")
    if report.operations.no_ann is not None:
        lines.append(f"no ANN to compare with: {report.operations.no_ann}")
    return lines


def _used(pair: tuple[int, int | None]) -> str:
    used, limit = pair
    return f"{used:,}" if limit is None else f"{used:,} / {limit:,}"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _count(mean: float) -> str:
    return f"{mean:,.0f}" if mean >= 100 or mean == int(mean) else f"{mean:.3g}"


def _four(spread: Spread) -> list[str]:
    return [_count(value) for value in (spread.mean, spread.p50, spread.p95, spread.max)]
