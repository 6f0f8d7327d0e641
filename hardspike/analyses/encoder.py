"""`encoder`: what the run's input coding makes of a pixel, for few and for many timesteps, and of a pixel of few bits."""

from dataclasses import replace

import torch
from torch import Tensor

from hardspike.analyses.encoder_transfer import (
    Transfer,
    deviation,
    direct_ideal,
    direct_transfer,
    poisson_ideal,
    poisson_transfer,
)
from hardspike.analyses.one_neuron import integer_rates
from hardspike.analyses.subject import Subject
from hardspike.deploy.report.analysis import Analysis
from hardspike.deploy.report.chart import Chart, Line, LineChart
from hardspike.snn.encoding import quantised
from hardspike.snn.neuron import Neuron

LONGER = (50, 150, 300)
BITS = (1, 2, 4)
DRAWS, POISSON_POINTS, QUANTISED_POINTS = 64, 41, 401
TONES = ("first", "second", "third", "fourth")


def encoder(subject: Subject) -> Analysis:
    """Poisson spikes of the normalised pixel; under direct coding the rate of the first neuron layer for a constant current."""
    own = subject.snn.time_steps or 1
    all_steps = tuple(sorted({own, *LONGER}))
    return (
        _poisson(subject, own, all_steps)
        if subject.snn.architecture.input.coding == "poisson"
        else _direct(subject, own, all_steps)
    )


def _poisson(subject: Subject, own: int, all_steps: tuple[int, ...]) -> Analysis:
    image = subject.snn.architecture.input
    low = min((0 - mean) / std for mean, std in zip(image.mean, image.std, strict=True))
    high = max((1 - mean) / std for mean, std in zip(image.mean, image.std, strict=True))
    x = torch.linspace(low, high, POISSON_POINTS, dtype=torch.float64)
    ideal = poisson_ideal(x, image.poisson_rate)
    seed = subject.options.seed
    curves = [poisson_transfer(x, steps=steps, rate=image.poisson_rate, draws=DRAWS, seed=seed) for steps in all_steps]
    widest = {curve.steps: max(b - a for a, b in zip(curve.low, curve.high, strict=True)) for curve in curves}
    cut = float((image.poisson_rate * x.abs() > 1).double().mean())
    found = (
        f"At the run's T = {own} a pixel's 95 % band is up to {widest[own]:.2f} wide; "
        + ", ".join(f"{widest[steps]:.2f} at T = {steps}" for steps in all_steps if steps != own)
        + ". The mean itself does not depend on T.",
        f"{100 * cut:.0f} % of the range of normalised pixels is cut off: those send a spike at every step.",
    )
    chart = LineChart(
        name="encoder-transfer",
        title="What Poisson coding makes of a pixel",
        x_label="normalised pixel",
        y_label="mean signed spikes per step",
        y_bottom=None,
        markers=False,
        lines=_lines(x, ideal, curves, own),
        caption=(
            f"Mean over {DRAWS} encodings; the band holds 95 % of them. The fewer steps, the wider the band: a small change of "
            "the pixel is lost in it. Dashed: the line it tends to."
        ),
    )
    conditions: dict[str, str | int | float] = {"T": own, "rate": image.poisson_rate, "encodings": DRAWS, "seed": seed}
    return _analysis(subject, found, conditions, chart, x, ideal, curves, extra={"widest_band": widest})


def _direct(subject: Subject, own: int, all_steps: tuple[int, ...]) -> Analysis:
    neurons = subject.snn.neurons()
    notes: list[str] = []
    if not neurons:
        return _analysis(
            subject, ("The network has no neurons: nothing is encoded.",), {"T": own}, None, None, None, [], extra={}
        )
    name, neuron = next(iter(neurons.items()))
    # Multiples of a power of two: their sums meet the threshold exactly where they should.
    x = torch.arange(-26, 180, dtype=torch.float64) / 128
    ideal = direct_ideal(x)
    curves = [_direct_curve(x, neuron, steps) for steps in all_steps]
    levels = {curve.steps: len(set(curve.y)) for curve in curves}
    apart = {curve.steps: deviation(curve, ideal) for curve in curves}
    found: tuple[str, ...] = (
        f"At the run's T = {own} the first layer ({name}) tells {levels[own]} rates apart and is on average {apart[own]:.3f} from "
        "the ideal line; "
        + ", ".join(f"at T = {steps} {levels[steps]} rates, {apart[steps]:.3f}" for steps in all_steps if steps != own)
        + ".",
    )
    longest = curves[-1].steps
    if longest > own and neuron.settings.reset == "hard" and apart[longest] > apart[own] / 2:
        found += (
            "More steps hardly bring the curve to the line: a reset to 0 loses what the potential had above the threshold.",
        )
    lines = list(_lines(x, ideal, curves, own))
    extra: dict[str, object] = {"levels": levels, "deviation": apart, "layer": name}
    integer = _integer_curve(subject, name, x) if subject.has_deployed else None
    if integer is None:
        notes.append("The run has no deployed network: only the float neuron's curve is shown.")
    else:
        lines.append(Line(name=f"deployed, T = {own}", tone="deployed", x=tuple(x.tolist()), y=integer))
        extra["deployed"] = list(integer)
        same = sum(abs(a - b) < 1e-9 for a, b in zip(integer, curves[all_steps.index(own)].y, strict=True))
        found += (f"The chip's neuron has the float neuron's rate at {same} of {len(integer)} currents.",)
    chart = LineChart(
        name="encoder-transfer",
        title=f"What the first layer makes of a constant current: {name}",
        x_label="input current / threshold",
        y_label="spikes per step",
        y_bottom=None,
        markers=False,
        lines=tuple(lines),
        caption=(
            "Under direct coding a pixel is a constant current, and the first neuron layer turns it into a rate. Each stair is a "
            "rate that T steps can express; a change of the image that stays on a stair is invisible behind it. Dashed: no loss."
        ),
    )
    settings = neuron.settings
    conditions: dict[str, str | int | float] = {
        "T": own,
        "leak": round(float(neuron.leak), 6),
        "reset": settings.reset,
        "order": settings.order,
        "seed": "none",
    }
    return _analysis(subject, found, conditions, chart, x, ideal, curves, extra=extra, notes=tuple(notes))


def _direct_curve(x: Tensor, neuron: Neuron, steps: int) -> Transfer:
    settings = replace(neuron.settings, leak=float(neuron.leak))
    return direct_transfer(x, steps=steps, settings=settings, threshold=float(neuron.threshold))


def _integer_curve(subject: Subject, name: str, x: Tensor) -> tuple[float, ...]:
    """Of the deployed neuron, over the graph's T; currents rounded to whole weights."""
    graph = subject.graph
    layer = next(layer for layer in graph.layers if layer.name == name)
    drives = torch.floor(x * (layer.neurons.threshold + 1) + 0.5).long()
    return tuple(integer_rates(drives, layer.neurons, graph.numerics, steps=graph.time_steps).tolist())


def _lines(x: Tensor, ideal: Tensor, curves: list[Transfer], own: int) -> tuple[Line, ...]:
    points = tuple(x.tolist())
    lines = [Line(name="ideal", tone="clean", x=points, y=tuple(ideal.tolist()), dashed=True)]
    for curve, tone in zip(curves, TONES, strict=False):
        band = (curve.low, curve.high) if curve.low != curve.high else ((), ())
        name = f"T = {curve.steps}{' (this run)' if curve.steps == own else ''}"
        lines.append(Line(name=name, tone=tone, x=points, y=curve.y, low=band[0], high=band[1]))
    return tuple(lines)


def quantised_curve(bits: int, points: int = QUANTISED_POINTS) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Pixels in [0, 1] and what `bits` bits make of them."""
    x = torch.linspace(0, 1, points, dtype=torch.float64)
    return tuple(x.tolist()), tuple(quantised(x, bits).tolist())


def _bits_chart(subject: Subject) -> LineChart:
    own = subject.graph.input.image_bits if subject.has_deployed else subject.snn.architecture.input.bits
    lines = []
    for bits, tone in zip(sorted({*BITS, *([own] if own else [])}), TONES, strict=False):
        x, y = quantised_curve(bits)
        lines.append(Line(name=f"{bits} bit{' (this run)' if bits == own else ''}", tone=tone, x=x, y=y))
    return LineChart(
        name="encoder-bits",
        title="What few input bits make of a pixel",
        x_label="pixel in [0, 1]",
        y_label="pixel sent",
        markers=False,
        y_top=1.0,
        lines=tuple(lines),
        caption="Rounded to k / (2^bits - 1). A change of the pixel that stays on its stair never reaches the network.",
    )


def _analysis(
    subject: Subject,
    found: tuple[str, ...],
    conditions: dict[str, str | int | float],
    chart: LineChart | None,
    x: Tensor | None,
    ideal: Tensor | None,
    curves: list[Transfer],
    *,
    extra: dict[str, object],
    notes: tuple[str, ...] = (),
) -> Analysis:
    charts: tuple[Chart, ...] = (*([chart] if chart is not None else []), _bits_chart(subject))
    return Analysis(
        name="encoder",
        title="From pixel to spikes",
        question="What is left of a pixel's value behind the input coding, for few and many timesteps (ECCV 2020, Fig. 3) and few bits?",
        found=found,
        conditions=conditions | {"coding": subject.snn.architecture.input.coding},
        charts=charts,
        notes=notes,
        values={
            "x": [] if x is None else x.tolist(),
            "ideal": [] if ideal is None else ideal.tolist(),
            "curves": [{"T": c.steps, "y": list(c.y), "low": list(c.low), "high": list(c.high)} for c in curves],
            **extra,
        },
    )
