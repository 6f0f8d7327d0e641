"""Which of two stacked images a spiking network settles on, and whether its spikes go quiet on the other one."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hardspike.analyses.activation_maps import has_contrast, normalised, spike_activation
from hardspike.analyses.explanations import (
    batch_size,
    conditions,
    deployed_traces,
    map_layers,
    step_notes,
)
from hardspike.analyses.map_pictures import image_picture, map_picture, shown_steps
from hardspike.analyses.mean_interval import mean_interval
from hardspike.analyses.shares import noise_from_seed
from hardspike.analyses.stacked_images import (
    Outcome,
    confidences,
    half_masses,
    late_steps,
    outcome,
    random_pairs,
    shrunk,
    stacked,
    taller,
)
from hardspike.analyses.subject import Subject
from hardspike.attack.evaluation import interval
from hardspike.deploy.report.analysis import Analysis
from hardspike.deploy.report.chart import BarChart, Bars, Chart, Line, LineChart, Pictures
from hardspike.snn.network import SpikingNetwork

PAIRS = 200
SHOWN = 4
NAMES = {"snn": "Float SNN", "deployed": "Deployed"}
# value, low, high (None where n is 0) and n.
Share = Mapping[str, float | int | None]
TITLE = "Two objects in one image"
ROLES = ("winner", "loser", "all other classes")
QUESTION = (
    "Shown two images above each other, does a spiking network settle on one of them over time, and do its spikes leave the "
    "other? Confidence at step t is softmax(v(t) / (t + 0.001)) of the output's potential v (Kim and Panda 2021)."
)


@dataclass(frozen=True, slots=True, eq=False)
class _View:
    """What one network does with the pairs.

    labels: int64 [B, 2]. confidence: [T, B, K]. maps: spike activation, not normalised, [T, B, h, w].
    """

    labels: Tensor
    confidence: Tensor
    maps: Tensor
    outcome: Outcome


def suppression(subject: Subject) -> Analysis:
    """Confidences over time and late spike activation on stacked test images of different classes.

    A network that pools over the whole plane runs on the taller image. For any other the stacked image is shrunk to the
    network's own height by the mean of two rows each, which the conditions and a note say. Raises SettingsError for a network
    without image plane.
    """
    layers, _ = map_layers(subject)
    layer, data = layers[-1], subject.test
    pairs = random_pairs(data.labels, min(PAIRS, 2 * len(data)), subject.options.seed)
    if not len(pairs):
        text = f"All {len(data)} test images are of one class: no two of different classes can be stacked."
        own = conditions(subject, {"pairs": 0}, gradcam=False)
        return Analysis(
            name="suppression", title=TITLE, question=QUESTION, found=(text,), conditions=own, charts=(), notes=(text,)
        )
    labels_B2 = data.labels[pairs]
    images = stacked(data.images[pairs[:, 0]], data.images[pairs[:, 1]])
    network = taller(subject.snn)
    height, width = images.shape[2:]
    shown = f"stacked to {height} x {width}, which the network takes as it is"
    notes = list(step_notes(subject))
    if network is None:
        network, images = subject.snn, shrunk(images)
        shown = f"stacked to {height} x {width} and shrunk to {images.shape[2]} x {width} by the mean of two rows each"
        notes.append(
            "This network's dense layers fix its image size (networks that pool over the whole plane have none), so both objects "
            "are squeezed into half the height they were trained at: expect lower confidence than for one image."
        )
    views = {"snn": _float_view(subject, network, images, labels_B2, layer)}
    if subject.has_deployed and network is subject.snn:
        view = _deployed_view(subject, images, labels_B2, layer)
        views |= {} if view is None else {"deployed": view}
        if view is None:
            notes.append(
                f"Backend {subject.options.backend} shows no potentials of the output: the deployed network is left out."
            )
    elif subject.has_deployed:
        notes.append("The deployed network is made for its own image height: only the float network is shown.")
    else:
        notes.append("This run has no deployed network: only the float network is shown.")
    notes += _quiet_notes(views, layer)
    shares = {name: _shares(view) for name, view in views.items()}
    examples = _examples(views["snn"].outcome)
    steps = len(views["snn"].confidence)
    return Analysis(
        name="suppression",
        title=TITLE,
        question=QUESTION,
        found=_found(views, shares, subject.snn.architecture.num_classes, layer),
        conditions=conditions(
            subject,
            {"pairs": len(pairs), "images": shown, "late": f"the last {late_steps(steps)} of {steps} timesteps"},
            gradcam=False,
        ),
        charts=(
            _example_lines(views["snn"], examples[0]),
            *_mean_lines(views),
            _share_bars(shares),
            _pictures(views, images, examples, layer),
        ),
        notes=tuple(notes),
        values={"shares": shares, "confidence": {name: _confidence_values(view) for name, view in views.items()}},
    )


def _float_view(subject: Subject, network: SpikingNetwork, images: Tensor, labels_B2: Tensor, layer: str) -> _View:
    parts: list[tuple[Tensor, Tensor]] = []
    output = network.architecture.nodes[-1].name
    with torch.no_grad(), noise_from_seed([network], subject.options.seed), network.watching() as values:
        for batch in images.split(batch_size(network)):
            network(batch)
            parts.append((values[output].double().cumsum(0), _activation(subject, values[layer])))
    return _view(parts, labels_B2)


def _deployed_view(subject: Subject, images: Tensor, labels_B2: Tensor, layer: str) -> _View | None:
    """None where the backend shows no potentials."""
    output, parts = subject.graph.output, []
    for trace in deployed_traces(subject, images):
        assert trace.states is not None
        if output.neurons.spiking:
            added = trace.states.spikes[output.name].double().cumsum(0)
        elif output.name in trace.states.potentials:
            unit = output.scale * (1 << subject.graph.numerics.state_shift)
            added = trace.states.potentials[output.name].double() / unit
        else:
            return None
        parts.append((added, _activation(subject, trace.states.spikes[layer])))
    return _view(parts, labels_B2)


def _activation(subject: Subject, spikes: Tensor) -> Tensor:
    return spike_activation(spikes, subject.options.gamma, subject.options.sam)


def _view(parts: list[tuple[Tensor, Tensor]], labels_B2: Tensor) -> _View:
    potentials, maps = (torch.cat(values, 1) for values in zip(*parts, strict=True))
    confidence = confidences(potentials)
    return _View(labels_B2, confidence, maps, outcome(confidence, labels_B2, potentials[-1].argmax(1)))


def _on_side(view: _View) -> Tensor:
    """Whether more late activation lies on the half of the object settled on, bool; of the settled pairs that have any."""
    masses = half_masses(view.maps)
    counted = view.outcome.settled & (masses.sum(1) > 0)
    own = masses[counted].gather(1, view.outcome.side[counted][:, None])[:, 0]
    return own > masses[counted].sum(1) - own


def _share(which: Tensor) -> dict[str, float | int | None]:
    if not len(which):
        return {"value": None, "low": None, "high": None, "n": 0}
    value = float(which.double().mean())
    low, high = interval(value, len(which))
    return {"value": value, "low": low, "high": high, "n": len(which)}


def _shares(view: _View) -> dict[str, dict[str, float | int | None]]:
    seen = view.outcome
    return {
        "settles on one": _share(seen.settled),
        "stays to the end": _share(seen.is_prediction),
        "spikes on its half": _share(_on_side(view)),
    }


def _percent(share: Share) -> str:
    if share["value"] is None:
        return "no pair"
    return f"{100 * share['value']:.1f} % [{100 * (share['low'] or 0):.1f}, {100 * (share['high'] or 0):.1f}]"


def _found(
    views: Mapping[str, _View], shares: Mapping[str, Mapping[str, Share]], classes: int, layer: str
) -> tuple[str, ...]:
    sentences = []
    for name, found in shares.items():
        settles, predicts, on_side = found.values()
        sentences.append(
            f"{NAMES[name]}: settles on one of the two objects in {_percent(settles)} of the pairs (two of {classes} classes by chance: "
            f"{200 / classes:.0f} %); the late class is the final prediction in {_percent(predicts)}."
        )
        if on_side["value"] is None:
            sentences.append(
                f"{NAMES[name]}: no pair settles with late spikes in {layer}, so there is no half to look at."
            )
            continue
        word = "not beyond what chance (50 %) allows"
        if (on_side["low"] or 0) > 0.5:
            word = "more often than by chance (50 %)"
        elif (on_side["high"] or 0) < 0.5:
            word = "less often than by chance (50 %)"
        winner, loser = (values.mean(1).tolist() for values in _by_role(views[name])[:2])
        sentences.append(
            f"{NAMES[name]}: of the pairs that settle, late spike activation of {layer} lies more on that object in "
            f"{_percent(on_side)}, {word}; its confidence goes from {winner[0]:.2f} to {winner[-1]:.2f}, that of the other object "
            f"from {loser[0]:.2f} to {loser[-1]:.2f}."
        )
    return tuple(sentences)


def _quiet_notes(views: Mapping[str, _View], layer: str) -> list[str]:
    notes = []
    for name, view in views.items():
        quiet = int((~has_contrast(view.maps).any(0)).sum())
        if quiet:
            count = view.maps.shape[1]
            notes.append(
                f"{NAMES[name]}: the spike activation map of {layer} is zero everywhere for {quiet} of {count} pairs."
            )
    return notes


def _by_role(view: _View) -> tuple[Tensor, Tensor, Tensor]:
    """Of the settled pairs, confidence [T, pairs] in the object settled on, in the other one, in all other classes together."""
    rows = torch.nonzero(view.outcome.settled).flatten()
    side, confidence = view.outcome.side[rows], view.confidence[:, rows]
    winner, loser = (confidence[:, torch.arange(len(rows)), view.labels[rows, s]] for s in (side, 1 - side))
    return winner, loser, 1 - winner - loser


def _confidence_values(view: _View) -> dict[str, list[float]]:
    """Mean over the settled pairs at each step; empty where none settles."""
    if not bool(view.outcome.settled.any()):
        return {}
    return {role: values.mean(1).tolist() for role, values in zip(ROLES, _by_role(view), strict=True)}


def _examples(seen: Outcome) -> list[int]:
    """The first pairs that settle, then others where too few do."""
    order = torch.argsort((~seen.settled).int(), stable=True)
    rows: list[int] = order[:SHOWN].tolist()
    return rows


def _example_lines(view: _View, row: int) -> Chart:
    top, bottom = (int(label) for label in view.labels[row])
    confidence = view.confidence[:, row]
    rest = confidence[-1].clone()
    rest[[top, bottom]] = -1
    shown = [(f"upper object, class {top}", top, "first"), (f"lower object, class {bottom}", bottom, "second")]
    if len(rest) > 2:
        other = int(rest.argmax())
        shown.append((f"highest other class, {other}", other, "third"))
    steps = tuple(float(step + 1) for step in range(len(confidence)))
    return LineChart(
        name="example_confidence",
        title="One pair over time",
        x_label="timestep",
        y_label="confidence",
        lines=tuple(Line(name=name, tone=tone, x=steps, y=tuple(confidence[:, k].tolist())) for name, k, tone in shown),
        caption="Confidence of the float SNN in each object of the first pair shown below, and in the highest other class.",
        percent=True,
        y_top=1.0,
    )


def _mean_lines(views: Mapping[str, _View]) -> list[Chart]:
    lines = []
    for name, view in views.items():
        if not bool(view.outcome.settled.any()):
            continue
        for role, values in zip(ROLES[:2], _by_role(view), strict=False):
            means, lows, highs = zip(*(mean_interval(step, high=1).values() for step in values), strict=True)
            x = tuple(float(step + 1) for step in range(len(means)))
            text = f"{NAMES[name]}, {role}"
            lines.append(Line(name=text, tone=name, x=x, y=means, low=lows, high=highs, dashed=role == ROLES[1]))
    if not lines:
        return []
    return [
        LineChart(
            name="mean_confidence",
            title="How the two objects part",
            x_label="timestep",
            y_label="confidence",
            lines=tuple(lines),
            caption=(
                "Mean confidence over the pairs that settle, with its 95 % interval: solid in the winner, the object settled on, "
                "dashed in the loser. The pairs are chosen by where they end, so look at when the lines part, not at how far."
            ),
            percent=True,
            y_top=1.0,
        )
    ]


def _share_bars(shares: Mapping[str, Mapping[str, Share]]) -> Chart:
    return BarChart(
        name="shares",
        title="How often one object wins",
        label="share of the pairs",
        categories=tuple(next(iter(shares.values()))),
        bars=tuple(
            Bars(
                name=NAMES[name],
                tone=name,
                values=tuple(share["value"] for share in found.values()),
                low=tuple(share["low"] for share in found.values()),
                high=tuple(share["high"] for share in found.values()),
            )
            for name, found in shares.items()
        ),
        caption=(
            "With 95 % Wilson intervals. Settling: the same one of the two classes leads at every late step. Staying: the "
            "leading class of the late steps is the final prediction. Spikes on its half: of the pairs that settle, those with "
            "more late spike activation on the half of that object; 50 % would be chance."
        ),
        percent=True,
    )


def _pictures(views: Mapping[str, _View], images: Tensor, rows: list[int], layer: str) -> Chart:
    columns, pictures = ["image"], [[image_picture(images[row])] for row in rows]
    for name, view in views.items():
        maps = normalised(view.maps)
        for step in shown_steps(len(maps), 3):
            columns.append(f"{NAMES[name]}, t={step + 1}")
            for line, row in zip(pictures, rows, strict=True):
                line.append(map_picture(maps[step, row], images[row]))
    return Pictures(
        name="pairs",
        title=f"Spike activation of {layer} on stacked images",
        alt="Stacked pairs of test images, each followed by spike activation maps of the same image at a few timesteps.",
        rows=tuple(_pair_name(views["snn"], row) for row in rows),
        columns=tuple(columns),
        pictures=tuple(tuple(line) for line in pictures),
        caption="Pairs that settle come first. If one object is suppressed, its half is dark in the last maps.",
    )


def _pair_name(view: _View, row: int) -> str:
    top, bottom = (int(label) for label in view.labels[row])
    return f"{top} over {bottom}: says {int(view.outcome.late[row])}"
