"""The page of a report: one HTML file that shows the numbers of report.json and needs nothing else, neither network nor script."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from hardspike.attack.members import STEP_RATIO, parse_member, split_name
from hardspike.deploy.report.analysis import analysis_from_json
from hardspike.deploy.report.drawn import Drawn, drawn, shown_analysis
from hardspike.deploy.report.figures import (
    FORMS,
    accuracy_chart,
    chosen_sets,
    energy_span,
    energy_unit,
    network_charts,
)
from hardspike.deploy.report.measured import measured_runs, section_title
from hardspike.deploy.report.png import difference_uri, image_uri
from hardspike.deploy.report.statuses import SHIPPED, proof_rows, statuses
from hardspike.deploy.report.texts import DASH, change, count, energy, interval, percent, small
from hardspike.deploy.report.theme import MONO, SANS, css_variables
from hardspike.deploy.si_prefix import si, si_range

Numbers = dict[str, Any]
FIGURES = "figures"  # beside the page, with every chart as SVG, CSV and JSON
# What each numbered equality shows (design, section 3); the sixth is a distance, not an equality.
EQUALITIES = {
    "1": (
        "folded = unfolded",
        "Batch norm, input normalisation and average pooling are folded into weights, biases and thresholds. In double "
        "precision both networks must give the same currents and outputs.",
    ),
    "2": (
        "emulator = oracle",
        "The fast emulator must give the same integers as a slow, independent program in plain Python integers.",
    ),
    "3": (
        "emulator = Lava",
        "It must give the same spikes and outputs as Lava, Intel's open framework, simulating the chip's fixed-point "
        "arithmetic.",
    ),
    "4": (
        ".net file = graph",
        "The exported file, read back by lava-dl's netx, must hold the same integers and give the same spikes.",
    ),
    "5": (
        "emulator = lava-dl's networks",
        "On networks that ship with lava-dl, the emulator must reproduce the spikes and states that ship with them.",
    ),
}
# By the start of a check's name: why it would be a bad sign.
CHECKS = {
    "noise": "Random noise should not find what an attack that sees the network has missed.",
    "transfer beats": "Attacks made on another network should not work better than attacks that see this one.",
    "black box or transfer": "Attacks that see less of the network should not find what those that see all have missed.",
    "deployed looks more robust": "Rounding to integers hides gradients more easily than it adds robustness.",
    "a larger budget": "An attacker who may change more can always do at least as much.",
    "gradients vanish": "Where the gradient is zero, the attacks had nothing to follow.",
    "iterative attack weaker": "Twenty steps should find at least what one step does.",
    "an unbounded attack": "An attacker who may change everything must always succeed.",
    "outputs are random": "A network with noise of its own must be attacked over its average.",
    "logits are saturated": "Where the loss is exactly zero, it has no gradient to follow.",
    "one surrogate alone": "Attacks with a single surrogate gradient would overestimate this network.",
}
BINDING = {
    "mixed_weight": "largest weight, both signs",
    "positive_weight": "largest weight, one sign",
    "negative_weight": "lowest weight, one sign",
    "bias_mantissa_max": "largest bias",
    "threshold_mantissa_max": "largest threshold",
    "state_bits": "width of the summed input",
}


@dataclass(frozen=True, slots=True)
class Example:
    """One image with its twin, as data URIs."""

    numbers: Numbers
    clean: str
    attacked: str
    difference: str
    broken: bool
    verdict: str


@dataclass(frozen=True, slots=True)
class View:
    """What the template needs about one network beside its numbers.

    conditions: eps, n, seed and attacks for captions; short: with the surrogates counted only. checks: masking checks by name.
    chosen: replayed sets by kind (clean, noise, attack), the last two at the largest eps. sums: (low, high) joule of the
    priced parts by kind, and the same without the first layer.
    """

    numbers: Numbers
    worst: Numbers | None
    conditions: str
    short: str
    checks: dict[str, Numbers]
    chosen: dict[str, Numbers]
    sums: dict[str, tuple[float, float]]
    later_sums: dict[str, tuple[float, float]]
    unit: tuple[str, float]
    exact: list[Numbers]
    close: list[Numbers]
    activity_figures: dict[str, Drawn]
    time_figures: list[Drawn]
    energy_figure: Drawn


def render_page(numbers: Numbers) -> str:
    """The whole page. numbers: as `hardspike.pipeline` writes them to report.json. All text in them is escaped."""
    rows = proof_rows(numbers["networks"])
    views = [_view(network, f"n{index}") for index, network in enumerate(numbers["networks"])]
    measured = measured_runs(numbers["networks"])
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            numbers=numbers,
            views=views,
            main=views[0],
            controls=views[1:],
            control_phrases=[_control_phrase(views[0].numbers, view.numbers) for view in views[1:]],
            statuses=statuses(numbers),
            measured=measured,
            measured_title=section_title(measured),
            figure=drawn(accuracy_chart(numbers["networks"]), FIGURES),
            examples=[_example(example) for example in numbers["examples"]],
            shipped=[row for network, row in rows if network == SHIPPED],
            missing=sorted(set(EQUALITIES) - {row["name"][:1] for _, row in rows}),
            bare_surrogate=repr(parse_member("fgsm").surrogate),
            step_ratio=STEP_RATIO,
            analyses=[
                shown_analysis(analysis_from_json(one["analysis"], "report.json"), one["commit"])
                for one in numbers["analyses"]
            ],
            check_names=list(dict.fromkeys(name for view in views for name in view.checks)),
        )
    )


@cache
def environment() -> Environment:
    """For the templates of this folder: everything is escaped, and a name that does not exist is an error."""
    made = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.loader = FunctionLoader(lambda name: (files(__package__) / "templates" / name).read_text("utf-8"))
    made.filters |= {
        "percent": percent,
        "interval": interval,
        "count": count,
        "energy": energy,
        "small": small,
        "first_matching": _first_matching,
        "si": si,
        "si_range": si_range,
    }
    made.globals |= {"FORMS": FORMS, "EQUALITIES": EQUALITIES, "CHECKS": CHECKS, "BINDING": BINDING}
    made.globals |= {"DASH": DASH, "change": change}
    made.globals |= {"LIGHT": Markup(css_variables(dark=False)), "DARK": Markup(css_variables(dark=True))}
    made.globals |= {"SANS": Markup(SANS), "MONO": Markup(MONO)}
    return made


def _view(network: Numbers, prefix: str) -> View:
    chosen = chosen_sets(network["replay"])
    charts = network_charts(network, prefix)
    return View(
        numbers=network,
        worst=max(network["robust"], key=lambda budget: float(budget["eps"]), default=None),
        conditions=_conditions(network, counted=False),
        short=_conditions(network, counted=True),
        checks={check["name"]: check for check in network["checks"]},
        chosen=chosen,
        sums={kind: energy_span(one["energy_j"]) for kind, one in chosen.items()},
        later_sums={kind: _without_first(one) for kind, one in chosen.items()},
        unit=energy_unit(chosen["clean"]),
        exact=[row for name, row in proof_rows([network]) if name != SHIPPED],
        close=[row for row in network["equalities"] if not row["exact"]],
        # The page has the names of the inputs above these figures.
        activity_figures={title: drawn(chart, FIGURES, keyed=False) for title, chart in charts.activity.items()},
        time_figures=[drawn(chart, FIGURES, keyed=False) for chart in charts.times],
        energy_figure=drawn(charts.energy, FIGURES, keyed=False),
    )


def _without_first(one: Numbers) -> tuple[float, float]:
    first = one["layers"][0]["energy_j"]["by_set"]
    rest = [values["mean"] - first[name]["mean"] for name, values in one["energy_j"]["by_set"].items()]
    return min(rest), max(rest)


def _conditions(network: Numbers, *, counted: bool) -> str:
    """eps, n, seed and the attacks with their surrogates (or only how many), for the caption of a table."""
    budgets = network["robust"]
    if not budgets:
        return "no attack was run"
    n = sorted({share["n"] for b in budgets for share in (*b["white_box"].values(), b["deployed_worst_case"])})
    seeds = sorted({budget["seed"] for budget in budgets if "seed" in budget})
    lists: dict[str, list[str]] = {}
    for budget in budgets:
        for target, members in budget["members"].items():
            targets = lists.setdefault(_members(list(members), counted=counted), [])
            if FORMS.get(target, target) not in targets:
                targets.append(FORMS.get(target, target))
    parts = [
        "eps " + ", ".join(f"{budget['eps']:g}" for budget in budgets) + " (L∞)",
        "n " + " to ".join(f"{value:,}" for value in n),
        *(["seed " + ", ".join(map(str, seeds))] if seeds else []),
        *(f"on {' and '.join(targets)}: {text}" for text, targets in lists.items()),
    ]
    return " · ".join(parts)


def _members(names: Sequence[str], *, counted: bool) -> str:
    """`fgsm, pgd20/{triangular:1; rectangular:1}`, or counted `fgsm, pgd20 × 2 surrogates`."""
    surrogates: dict[str, list[str]] = {}
    for name in names:
        attack, surrogate = split_name(name)
        surrogates.setdefault(attack, []).extend([surrogate] if surrogate else [])
    parts = []
    for attack, found in surrogates.items():
        many = f" × {len(found)} surrogate{'s' if len(found) > 1 else ''}" if counted else f"/{{{'; '.join(found)}}}"
        parts.append(attack + (many if found else ""))
    return ", ".join(parts)


def _control_phrase(network: Numbers, control: Numbers) -> str:
    if network["training"].startswith("adversarial") and control["training"].startswith("natural"):
        return "The same network trained without adversarial images"
    return f"The control network “{control['name']}” ({control['training']})"


def _example(example: Numbers) -> Example:
    fooled = example["predicted_attacked"] != example["label"]
    by = example["broken_by"]
    if example["predicted_clean"] != example["label"]:
        verdict = "wrong without any attack"
    elif fooled:
        verdict = "fooled only on the input grid" if by == "none" else f"fooled by {by}"
    else:
        verdict = "survived every attack" if by == "none" else f"fooled by {by}, right again on the input grid"
    return Example(
        example,
        image_uri(example["clean"]),
        image_uri(example["attacked"]),
        difference_uri(example["clean"], example["attacked"], example["eps"]),
        fooled,
        verdict,
    )


def _first_matching(name: str, texts: dict[str, str]) -> str:
    return next((text for start, text in texts.items() if name.startswith(start)), "")
