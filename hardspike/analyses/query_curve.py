"""The query curve of Square: how many questions to a network break its images, without any gradient (arXiv 2311.09266, Fig. 4)."""

import numpy as np
import torch
from torch import Tensor

from hardspike.analyses.shares import Share, few, line, linf_eps, noise_from_seed
from hardspike.analyses.subject import Subject
from hardspike.attack.ball import Ball
from hardspike.attack.evaluation import member_seed
from hardspike.attack.gradient import Logits
from hardspike.attack.problem import Problem, SampleDraws
from hardspike.attack.square import square_queries
from hardspike.deploy.report.analysis import Analysis
from hardspike.deploy.report.chart import LineChart
from hardspike.deploy.report.texts import NETWORKS
from hardspike.snn.data import ImageSet

# The paper asks 5000 times; here images and queries are as many as a few seconds allow.
QUERIES, IMAGES = 200, 64
ATTACKED = ("ann", "snn", "deployed")
BATCH = 128


def on_grid(model: Logits, grid: int | None) -> Logits:
    """The model on the nearest images k / grid: what it is asked about is what a sensor can carry."""
    if grid is None:
        return model

    def asked(images: Tensor) -> Tensor:
        return model((torch.floor(images.double() * grid + 0.5) / grid).to(images.dtype))

    return asked


def queries_used(
    model: Logits, data: ImageSet, *, eps: float, queries: int, seed: int, grid: int | None = None
) -> Tensor:
    """After how many queries each image fell, int64 [N]: 0 where it is wrong before any, -1 where it still stands."""
    found = []
    for rows in torch.arange(len(data)).split(BATCH):
        draws = SampleDraws(member_seed(seed, f"square{queries}"), rows)
        ball = Ball.around(data.images[rows], eps, grid=grid)
        problem = Problem(model=on_grid(model, grid), labels=data.labels[rows], ball=ball, draws=draws)
        found.append(square_queries(problem, queries=queries)[1])
    return torch.cat(found)


def standing_after(used: Tensor, queries: int) -> Share:
    """Images still right after so many queries; used: see `queries_used`."""
    return Share.of_flags((used < 0) | (used > queries))


def shown_queries(queries: int) -> tuple[int, ...]:
    """Where the curve has points: 0, then closer together at the start, where most images fall."""
    return (0, *sorted({round(float(q)) for q in np.geomspace(1, queries, 30)}))


def query_curve(subject: Subject) -> Analysis:
    """Share of images still right against the number of queries, for ANN, float SNN and deployed network."""
    eps, data, seed = linf_eps(subject), few(subject.test, IMAGES), subject.options.seed
    grid = subject.networks.grid if subject.has_deployed else None
    targets = tuple(target for target in ATTACKED if target in subject.targets)
    subject.progress.begin("queries of Square", len(targets))
    used: dict[str, Tensor] = {}
    for target in targets:
        model = subject.logits(target)
        with noise_from_seed([model], seed):
            used[target] = queries_used(model, data, eps=eps, queries=QUERIES, seed=seed, grid=grid)
        subject.progress.advance(note=target)
    at = shown_queries(QUERIES)
    curves = {target: [standing_after(of, q) for q in at] for target, of in used.items()}
    return Analysis(
        name="queries",
        title="Queries of a black-box attack",
        question="How often must an attacker ask a network that shows its logits but no gradient? Square, a random search, does "
        "not see what surrogate gradients may hide (arXiv 2311.09266, Fig. 4; arXiv 1912.00049).",
        found=_found(curves, used),
        conditions={
            "n": len(data),
            "seed": seed,
            "eps": eps,
            "queries": QUERIES,
            "T": subject.snn.time_steps or 0,
            "attack": f"square{QUERIES}",
        },
        charts=(_chart(at, curves),),
        notes=_notes(targets, used),
        values={
            "queries": list(at),
            "standing": {target: [share.to_json() for share in curve] for target, curve in curves.items()},
            "fell_after": {target: of.tolist() for target, of in used.items()},
        },
    )


def _found(curves: dict[str, list[Share]], used: dict[str, Tensor]) -> tuple[str, ...]:
    said = [
        f"After {QUERIES} queries: "
        + "; ".join(f"{NETWORKS[t]} {curve[-1]} right, {curve[0]} before" for t, curve in curves.items())
        + "."
    ]
    for target, of in used.items():
        broken = of[of > 0]
        if len(broken):
            typical = float(broken.double().quantile(0.5))
            said.append(f"{NETWORKS[target]}: {len(broken)} images fell, half of them within {typical:g} queries.")
    names = list(curves)
    for index, one in enumerate(names):
        for other in names[index + 1 :]:
            first, second = curves[one][-1], curves[other][-1]
            if first.apart(second):
                more = one if first.value > second.value else other
                said.append(
                    f"At the last query {NETWORKS[more]} stands higher of {NETWORKS[one]} and {NETWORKS[other]}, beyond the intervals."
                )
            else:
                said.append(
                    f"{NETWORKS[one]} and {NETWORKS[other]} do not differ beyond the intervals at the last query."
                )
    return tuple(said)


def _notes(targets: tuple[str, ...], used: dict[str, Tensor]) -> tuple[str, ...]:
    notes = [
        f"{NETWORKS[target]}: no image fell within {QUERIES} queries."
        for target, of in used.items()
        if not (of > 0).any()
    ]
    notes += [f"The run has no {NETWORKS[target]}; it is left out." for target in ATTACKED if target not in targets]
    return tuple(notes)


def _chart(at: tuple[int, ...], curves: dict[str, list[Share]]) -> LineChart:
    return LineChart(
        name="queries",
        title="Images still right after so many queries",
        x_label="queries per image",
        y_label="share right",
        lines=tuple(line(NETWORKS[target], target, at, curve) for target, curve in curves.items()),
        percent=True,
        markers=False,
        y_top=1.0,
        caption="Square attack; the leftmost value is clean accuracy. A curve that has not become flat would fall further with "
        "more queries.",
    )
