"""Accuracy against eps: every network of a run from no budget to an unbounded one, beside noise of the same size."""

from itertools import pairwise

from hardspike.analyses.shares import (
    Share,
    carried,
    few,
    line,
    linf_eps,
    member_name,
    noise_from_seed,
    share_right,
)
from hardspike.analyses.subject import Subject
from hardspike.attack.evaluation import SURVIVED
from hardspike.deploy.report.analysis import Analysis
from hardspike.deploy.report.chart import LineChart
from hardspike.deploy.report.texts import NETWORKS
from hardspike.results import evaluations

# Multiples of the budget; the last point is a budget that reaches every image.
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
UNBOUNDED = 1.0
# Cheap and honest: without the reset's part of the gradient, which misleads, and with adaptive sharpness, as suite `fast` has it.
STRONG, SINGLE, NOISE = "pgd7+detached/assg:0.425", "fgsm", "noise"
IMAGES = 80

Curve = list[Share]


def budgets(eps: float) -> tuple[float, ...]:
    """0, multiples of `eps` below 1, and 1."""
    inside = {float(f"{factor * eps:.6g}") for factor in FACTORS}
    return (0.0, *sorted(value for value in inside if value < UNBOUNDED), UNBOUNDED)


def eps_curve(subject: Subject) -> Analysis:
    """Curves of each network under a multi-step and a single-step white-box attack and under noise."""
    eps, data = linf_eps(subject), few(subject.test, IMAGES)
    grid, targets = budgets(eps), subject.targets
    attacks = {kind: member_name(subject, kind) for kind in (STRONG, SINGLE)} | {NOISE: NOISE}
    curves: dict[str, dict[str, Curve]] = {}
    subject.progress.begin("accuracy against eps", len(targets) * len(grid))
    for target in targets:
        model = subject.logits(target)
        with noise_from_seed([model], subject.options.seed):
            clean = share_right(model, carried(subject, data.images), data.labels)
            curves[target] = {kind: [clean] for kind in attacks}
            subject.progress.advance(note=f"{target} clean")
            for budget in grid[1:]:
                for kind, name in attacks.items():
                    images = subject.attacked(name, target, eps=budget, data=data)
                    curves[target][kind].append(share_right(model, images, data.labels))
                subject.progress.advance(note=f"{target} eps {budget:g}")
    stored = stored_points(subject, len(data))
    return Analysis(
        name="eps",
        title="Accuracy against eps",
        question="How does accuracy fall as the attack may change more of the image? An honest attack gets stronger with its "
        "budget, is stronger than a single step and than noise, and leaves nothing right where the budget has no bound "
        "(Athalye et al. 2018; arXiv 2311.09266).",
        found=_found(grid, curves, stored, eps),
        conditions={
            "n": len(data),
            "seed": subject.options.seed,
            "budgets": ", ".join(f"{value:g}" for value in grid),
            "T": subject.snn.time_steps or 0,
            "multi-step attack": attacks[STRONG],
            "single-step attack": attacks[SINGLE],
            "noise": "every pixel up or down by eps",
        },
        charts=(_overview(grid, curves), *(_one(target, grid, curves[target], stored[target]) for target in targets)),
        notes=_notes(stored),
        values={
            "eps": list(grid),
            "curves": {
                target: {attacks[kind]: [share.to_json() for share in curve] for kind, curve in of.items()}
                for target, of in curves.items()
            },
            "worst_case_of_the_suite": {
                target: [{"eps": at, **share.to_json()} for at, share in points.items()]
                for target, points in stored.items()
            },
        },
    )


def stored_points(subject: Subject, count: int) -> dict[str, dict[float, Share]]:
    """By target and eps: what the recipe's own suite left right of the first `count` images it was run on (only under linf)."""
    found: dict[str, dict[float, Share]] = {target: {} for target in subject.targets}
    for label, made in evaluations(subject.folder, subject.targets):
        if not label and made.evaluation.norm == "linf":
            standing = made.evaluation.broken_by[:count] == SURVIVED
            found[made.target][made.evaluation.eps] = Share.of_flags(standing)
    return {target: dict(sorted(points.items())) for target, points in found.items()}


def rises(grid: tuple[float, ...], curve: Curve) -> list[tuple[float, float]]:
    """Neighbouring budgets between which accuracy rises: a larger budget that is the weaker attack."""
    return [
        (low, high)
        for (low, before), (high, after) in pairwise(zip(grid, curve, strict=True))
        if after.count > before.count
    ]


def _found(
    grid: tuple[float, ...], curves: dict[str, dict[str, Curve]], stored: dict[str, dict[float, Share]], eps: float
) -> tuple[str, ...]:
    at = grid.index(float(f"{eps:.6g}"))
    multi = {target: of[STRONG] for target, of in curves.items()}
    said = [
        f"At eps {eps:g}: "
        + "; ".join(f"{NETWORKS[target]} {curve[0]} clean, {curve[at]} attacked" for target, curve in multi.items())
        + "."
    ]
    rising = [f"{NETWORKS[t]} from eps {a:g} to {b:g}" for t, curve in multi.items() for a, b in rises(grid, curve)]
    said.append(
        f"Accuracy rises with the budget for {', '.join(rising)}: the attack there is weaker than it could be."
        if rising
        else "A larger budget is never the weaker attack: no multi-step curve rises."
    )
    left = [f"{NETWORKS[target]} {curve[-1]}" for target, curve in multi.items() if curve[-1].count]
    said.append(
        f"The unbounded attack does not reach 0: {', '.join(left)} is left right."
        if left
        else "The unbounded attack leaves no image right on any network."
    )
    said += _controls(grid, curves)
    said += _against_deployed(grid, multi)
    for target, points in stored.items():
        if points.get(eps) is not None:
            said.append(
                f"{NETWORKS[target]}: the recipe's suite leaves {points[eps]} right at eps {eps:g} "
                f"(n = {points[eps].of}), this attack {multi[target][at]}: "
                + (
                    "the curve is an upper bound."
                    if points[eps].value < multi[target][at].value
                    else "the suite finds nothing more."
                )
            )
    return tuple(said)


def _controls(grid: tuple[float, ...], curves: dict[str, dict[str, Curve]]) -> list[str]:
    said = []
    for kind, words in ((SINGLE, "the single step"), (NOISE, "noise")):
        stronger = [
            f"{NETWORKS[target]} at eps {budget:g} ({other} against {own})"
            for target, of in curves.items()
            for budget, own, other in zip(grid, of[STRONG], of[kind], strict=True)
            if other.count < own.count
        ]
        said.append(
            f"{words.capitalize()} leaves less right than the multi-step attack for {'; '.join(stronger)}."
            if stronger
            else f"{words.capitalize()} is nowhere stronger than the multi-step attack."
        )
    return said


def _against_deployed(grid: tuple[float, ...], multi: dict[str, Curve]) -> list[str]:
    if "deployed" not in multi:
        return []
    apart = [
        f"eps {budget:g} ({own} float, {other} deployed)"
        for budget, own, other in zip(grid, multi["snn"], multi["deployed"], strict=True)
        if own.apart(other)
    ]
    return [
        f"Float SNN and deployed network differ beyond their intervals at {'; '.join(apart)}."
        if apart
        else "Float SNN and deployed network differ beyond their intervals at no budget."
    ]


def _notes(stored: dict[str, dict[float, Share]]) -> tuple[str, ...]:
    notes = []
    if "deployed" not in stored:
        notes.append("The run has no deployed network; its curve is left out.")
    if "ann" not in stored:
        notes.append("The run has no ANN; its curve is left out.")
    if not any(stored.values()):
        notes.append("The run has no finished evaluation under linf of its own to compare with.")
    return tuple(notes)


def _overview(grid: tuple[float, ...], curves: dict[str, dict[str, Curve]]) -> LineChart:
    lines = [line(NETWORKS[target], target, grid, of[STRONG]) for target, of in curves.items()]
    lines += [line(f"{NETWORKS[t]}, one step", t, grid, of[SINGLE], dashed=True) for t, of in curves.items()]
    return LineChart(
        name="eps",
        title="What each network still gets right as the budget grows",
        x_label="eps (L-infinity, pixels in [0, 1])",
        y_label="share right",
        lines=tuple(lines),
        percent=True,
        y_top=1.0,
        width="wide",
        caption="Each network attacked with its own gradients: PGD with 7 steps (full) and a single step (dashed). "
        "Lower is a stronger attack; full lines should fall to 0 at the right edge and stay below the dashed ones.",
    )


def _one(target: str, grid: tuple[float, ...], of: dict[str, Curve], stored: dict[float, Share]) -> LineChart:
    lines = [
        line("PGD, 7 steps", target, grid[:-1], of[STRONG][:-1]),
        line("one step", target, grid[:-1], of[SINGLE][:-1], dashed=True),
        line("noise of the same eps", "noise", grid[:-1], of[NOISE][:-1]),
    ]
    if stored:
        lines.append(line("worst case of the recipe's suite", "attack", list(stored), list(stored.values())))
    return LineChart(
        name=f"eps_{target}",
        title=f"{NETWORKS[target]}: attack and noise of the same size",
        x_label="eps (L-infinity, pixels in [0, 1])",
        y_label="share right",
        lines=tuple(lines),
        percent=True,
        y_top=1.0,
        width="small",
        caption="The distance between noise and attack is what the search for a direction achieves; bands are 95 % intervals. "
        "The unbounded budget is in the chart of all networks.",
    )
