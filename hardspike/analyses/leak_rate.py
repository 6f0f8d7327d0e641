"""`leak-rate`: firing rate of a neuron under constant input against its leak, by formula and by measurement, float and integer.

With r = threshold / input, a neuron from rest holds V (1 - leak^n) / (1 - leak) after n steps. It fires when this reaches the
threshold (ECCV 2020, eq. 7), so its rate is 1 / n = log(leak) / log(r leak - (r - 1)): 1 / r without leak, and 0 where
r leak <= r - 1, for then it never gets there. Steps are whole, so that a neuron that resets to 0 fires every ceil(n) steps.
"""

import math

import torch

from hardspike.analyses.one_neuron import FINE_THRESHOLD, float_rates, integer_rates, integer_twin
from hardspike.analyses.subject import Subject
from hardspike.deploy.report.analysis import Analysis
from hardspike.deploy.report.chart import Chart, Line, LineChart
from hardspike.snn.membrane import NeuronSettings

RATIOS = (1.5, 2.0, 3.0, 5.0)
LEAKS = (*(round(0.75 + 0.01 * index, 2) for index in range(25)), 0.995, 1.0)
STEPS = 420
TONES = ("first", "second", "third", "fourth")


def steps_to_fire(ratio: float, leak: float) -> float:
    """n of the formula, not rounded; infinite where the neuron never fires. ratio: threshold / input > 0; leak in (0, 1]."""
    if leak == 1:
        return max(ratio, 1.0)
    left = ratio * leak - (ratio - 1)
    return max(math.log(left) / math.log(leak), 1.0) if left > 0 else math.inf


def formula_rate(ratio: float, leak: float) -> float:
    """1 / n, spikes per step in [0, 1]."""
    return 1 / steps_to_fire(ratio, leak)


def whole_step_rate(ratio: float, leak: float) -> float:
    """1 / ceil(n): of a neuron that resets to 0. Within 1e-9 of a whole number n is that number."""
    steps = steps_to_fire(ratio, leak)
    return 0.0 if math.isinf(steps) else 1 / math.ceil(steps - 1e-9)


def leak_rate(subject: Subject) -> Analysis:
    """The network's weights do not matter; its leaks are named, and its chip's arithmetic is used."""
    currents = torch.tensor([1 / ratio for ratio in RATIOS], dtype=torch.float64)
    measured = [float_rates(currents, NeuronSettings(leak=leak), threshold=1.0, steps=STEPS).tolist() for leak in LEAKS]
    integer: list[list[float]] | None = None
    if subject.has_deployed:
        numerics = subject.graph.numerics
        drives = torch.tensor([round(FINE_THRESHOLD / ratio) for ratio in RATIOS])
        integer = [
            integer_rates(drives, integer_twin(leak, numerics), numerics, steps=STEPS).tolist() for leak in LEAKS
        ]
    rates = {
        "formula": [[formula_rate(ratio, leak) for ratio in RATIOS] for leak in LEAKS],
        "whole_steps": [[whole_step_rate(ratio, leak) for ratio in RATIOS] for leak in LEAKS],
        "measured": measured,
        "integer": integer,
    }
    own = {name: float(neuron.leak) for name, neuron in subject.snn.neurons().items()}
    notes = [] if integer else ["The run has no deployed network: only the float neuron is measured."]
    conditions: dict[str, str | int | float] = {"T": STEPS, "reset": "hard", "input": "constant", "seed": "none"}
    if integer:
        conditions["profile"] = subject.graph.profile
    return Analysis(
        name="leak-rate",
        title="Firing rate against leak",
        question=(
            "How does leak change what a neuron says of a constant input? Rate 1/n = log(l) / log(r l - (r - 1)) with leak l and "
            "r = threshold / input (ECCV 2020, eq. 7), beside neurons that are run."
        ),
        found=_found(rates, own),
        conditions=conditions,
        charts=_charts(rates),
        notes=tuple(notes),
        values={"ratios": list(RATIOS), "leaks": list(LEAKS), "own_leaks": own, **rates},
    )


def _apart(first: list[list[float]], second: list[list[float]]) -> tuple[float, float, float]:
    """Largest difference, and its leak and ratio."""
    every = [
        (abs(a - b), LEAKS[i], RATIOS[j])
        for i, (one, other) in enumerate(zip(first, second, strict=True))
        for j, (a, b) in enumerate(zip(one, other, strict=True))
    ]
    return max(every)


def _found(rates: dict[str, list[list[float]] | None], own: dict[str, float]) -> tuple[str, ...]:
    formula, whole, measured, integer = rates["formula"], rates["whole_steps"], rates["measured"], rates["integer"]
    assert formula is not None and whole is not None and measured is not None
    gap, at_leak, at_ratio = _apart(measured, whole)
    smooth, leak, ratio = _apart(measured, formula)
    limit = "within" if gap <= 1 / STEPS else "not within"
    strong, leaky = LEAKS.index(0.99), LEAKS.index(0.8)
    falls = ", ".join(
        f"{measured[strong][j]:.3f} to {measured[leaky][j]:.3f} at r = {r:g} (formula {formula[strong][j]:.3f} to {formula[leaky][j]:.3f})"
        for j, r in enumerate(RATIOS)
    )
    silent = [leak for leak, row in zip(LEAKS, measured, strict=True) if row[-1] == 0]
    weakest = f"The weakest input (r = {RATIOS[-1]:g}) "
    weakest += (
        f"fires at no leak up to {max(silent):g}: leak silences small inputs." if silent else "fires at every leak."
    )
    sentences = [
        f"From leak 0.99 to 0.80 the measured rate goes from {falls}. {weakest}",
        f"The measured rate is {limit} one spike in {STEPS} steps of 1/ceil(n) (largest difference {gap:.5f}, leak {at_leak:g}, "
        f"r = {at_ratio:g}); whole steps keep it up to {smooth:.3f} from the formula (leak {leak:g}, r = {ratio:g}).",
    ]
    if integer is not None:
        apart, leak, ratio = _apart(integer, measured)
        sentences.append(
            f"The chip's integer neuron differs from the float one by at most {apart:.4f} spikes per step (leak {leak:g}, r = {ratio:g})."
        )
    leaks = sorted(set(own.values()))
    shown = f"{leaks[0]:g}" if len(leaks) == 1 else f"{leaks[0]:g} to {leaks[-1]:g}" if leaks else "none"
    sentences.append(f"Leak of this run's neurons: {shown}.")
    return tuple(sentences)


def _charts(rates: dict[str, list[list[float]] | None]) -> tuple[Chart, ...]:
    measured, formula = ("neuron, r = {:g}", "measured"), ("formula, r = {:g}", "formula")
    charts: list[Chart] = [
        LineChart(
            name="leak-rate-formula",
            title="Rate of a neuron under constant input",
            x_label="leak",
            y_label="spikes per step",
            markers=False,
            lines=_lines(rates, measured, formula),
            caption=(
                "Each colour is one ratio r of threshold to input. The formula (dashed) lets a neuron fire between two steps; the "
                "neuron itself waits for the next, which gives stairs. Left of where a line reaches zero, leak wins over the input."
            ),
        )
    ]
    if rates["integer"] is not None:
        charts.append(
            LineChart(
                name="leak-rate-integer",
                title="The chip's neuron beside the float neuron",
                x_label="leak",
                y_label="spikes per step",
                markers=False,
                lines=_lines(rates, ("integers, r = {:g}", "integer"), ("float, r = {:g}", "measured")),
                caption=(
                    "The deployed neuron keeps whole numbers and rounds its decay; where the lines lie on each other, this changes nothing."
                ),
            )
        )
    return tuple(charts)


def _lines(
    rates: dict[str, list[list[float]] | None], solid: tuple[str, str], dashed: tuple[str, str]
) -> tuple[Line, ...]:
    lines = []
    for label, key in (solid, dashed):
        rows = rates[key]
        assert rows is not None
        for index, (ratio, tone) in enumerate(zip(RATIOS, TONES, strict=True)):
            y = tuple(row[index] for row in rows)
            lines.append(Line(name=label.format(ratio), tone=tone, x=LEAKS, y=y, dashed=(label, key) == dashed))
    return tuple(lines)
