"""Square attack: random search with squares that shrink; it only asks for logits (Andriushchenko et al. 2020, arXiv 1912.00049).

No gradient is needed, so it runs on any callable: integer networks and chips too. The places and colours of the squares are
shared by all samples of an evaluation, those of the start are a sample's own.
"""

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor

from hardspike.attack.ball import Ball, norms
from hardspike.attack.gradient import margin
from hardspike.attack.problem import Problem

# After how many proposals, of 10,000, the squares' area halves: AutoAttack's schedule.
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
TINY = 1e-12


def square(problem: Problem, *, queries: int = 5000, p_init: float = 0.8, rescale: bool = False) -> Tensor:
    """Images (B, C, H, W) that fool the model where one was found, the clean ones elsewhere. See `square_queries`."""
    return square_queries(problem, queries=queries, p_init=p_init, rescale=rescale)[0]


def square_queries(
    problem: Problem, *, queries: int = 5000, p_init: float = 0.8, rescale: bool = False
) -> tuple[Tensor, Tensor]:
    """Images as `square` returns them, and after how many queries each was found.

    queries: how often the model may be asked about an image, its start included and the clean image not. p_init: share of the
    image that the first squares cover. rescale: spread the schedule over `queries` (torchattacks) rather than keep the
    one made for 10,000 (AutoAttack).

    Returns images (B, C, H, W) and queries, int64 [B]: 0 where the clean image is in a wrong class already, -1 where no image
    was found. A sample leaves with its first image that fools the model.
    """
    images = problem.clean.clone()
    used = torch.full_like(problem.labels, -1)
    if not len(problem):
        return images, used
    wrong = problem.fools(images)
    used[wrong] = 0
    rows = (~wrong).nonzero()[:, 0]
    problem = problem.take(rows)
    generator = problem.draws.shared(0)
    start, propose = (_stripes, _recoloured) if problem.ball.norm == "linf" else (_tiles, _moved_mass)
    best, best_margin = problem.clean, torch.full(rows.shape, -float("inf"), dtype=torch.float64, device=rows.device)
    for query in range(queries):
        if not len(rows):
            break
        if query == 0:
            candidate = start(problem, generator)
        else:
            area = p_init * _halved(query - 1, queries if rescale else 10_000)
            candidate = propose(problem.ball, best, area, generator)
        logits = problem.judged(candidate).double()  # integer logits have no -inf, which the margin needs
        fooled = logits.argmax(1) != problem.labels
        reached = margin(logits, problem.labels)
        better = reached > best_margin
        best = torch.where(better.view(-1, 1, 1, 1), candidate, best)
        best_margin = torch.where(better, reached, best_margin)
        if bool(fooled.any()):
            images[rows[fooled]], used[rows[fooled]] = candidate[fooled], query + 1
            keep = ~fooled
            problem, rows = problem.take(keep), rows[keep]
            best, best_margin = best[keep], best_margin[keep]
    return images, used


def _halved(proposal: int, proposals: int) -> float:
    """Factor on the squares' area at this proposal, counted from 0, of a schedule for `proposals`."""
    position = int(proposal / proposals * 10_000)
    return 0.5 ** sum(position > at for at in HALVINGS)


def _stripes(problem: Problem, generator: np.random.Generator) -> Tensor:
    """Vertical stripes of the clean image plus or minus eps, per column and channel."""
    del generator
    uniform = problem.draws.uniform(0, problem.clean[:, :, :1])
    return problem.ball.project(problem.clean + problem.ball.eps * _sign(uniform))


def _recoloured(ball: Ball, images: Tensor, area: float, generator: np.random.Generator) -> Tensor:
    """One square moved to plus or minus eps of the clean image, per channel."""
    _, channels, height, width = images.shape
    side = min(max(round(math.sqrt(area * height * width)), 1), height, width)
    rows, columns = _place(height, width, side, generator)
    moved = images.clone()
    moved[:, :, rows, columns] += 2 * ball.eps * _signs(channels, images, generator)
    return ball.project(moved)


def _tiles(problem: Problem, generator: np.random.Generator) -> Tensor:
    """About 5 x 5 tiles, each a pair of pyramids of opposite sign, plus or minus per sample and channel."""
    clean = problem.clean
    height, width = clean.shape[2:]
    side = max(min(height, width) // 5, 1)
    down, across = height // side, width // side
    signs = _sign(problem.draws.uniform(0, clean[:, :, :down, :across]))
    top, left = (height - down * side) // 2, (width - across * side) // 2
    move = torch.zeros_like(clean)
    for i in range(down):
        for j in range(across):
            rows, columns = slice(top + i * side, top + (i + 1) * side), slice(left + j * side, left + (j + 1) * side)
            move[:, :, rows, columns] = _pyramids(side, clean, generator) * signs[:, :, i, j, None, None]
    return problem.ball.project(clean + problem.ball.eps * move / norms(move))


def _moved_mass(ball: Ball, images: Tensor, area: float, generator: np.random.Generator) -> Tensor:
    """The budget of one window goes, with what is left of eps, into pyramids in another window (algorithm 3 of the paper)."""
    _, channels, height, width = images.shape
    side = max(round(math.sqrt(area * height * width)), 3)
    side = min(side + (side + 1) % 2, height, width)  # odd
    move = images - ball.clean
    target, source = _place(height, width, side, generator), _place(height, width, side, generator)
    fresh = _pyramids(side, images, generator) * _signs(channels, images, generator)
    old = move[:, :, target[0], target[1]]
    rest = move.clone()
    rest[:, :, source[0], source[1]] = 0
    rest[:, :, target[0], target[1]] = 0
    in_windows = ((move - rest) ** 2).sum((2, 3), keepdim=True)
    spare = (ball.eps**2 - norms(move) ** 2).clamp(min=0) / channels
    fresh = fresh + old / (_window_norms(old) + TINY)
    fresh = fresh / (_window_norms(fresh) + TINY) * (spare + in_windows).sqrt()
    rest[:, :, target[0], target[1]] = fresh
    return ball.project(ball.clean + ball.eps * rest / norms(rest).clamp(min=TINY))


def _pyramids(side: int, like: Tensor, generator: np.random.Generator) -> Tensor:
    """Two halves (side, side) of opposite sign that fall off from their middles, of norm 1; upright or lying."""
    halves = _halves(side)
    return (halves.T if generator.random() < 0.5 else halves).to(like)


@cache
def _halves(side: int) -> Tensor:
    upper = side // 2
    return _normalised(torch.cat([_pyramid(upper, side), -_pyramid(side - upper, side)]))


def _pyramid(height: int, width: int) -> Tensor:
    """Terraces around the middle: the sum over k of 1 / (k + 1)^2, k from the distance to the middle on. Norm 1; float64."""
    steps = max(height, width) // 2 + 1
    terraces = 1 / torch.arange(1, steps + 1, dtype=torch.float64) ** 2
    terraces = terraces.flip(0).cumsum(0).flip(0)
    distance = torch.maximum(
        (torch.arange(height) - height // 2).abs()[:, None], (torch.arange(width) - width // 2).abs()
    )
    return _normalised(terraces[distance])


def _normalised(values: Tensor) -> Tensor:
    length: Tensor = values.norm()
    return values / length


def _place(height: int, width: int, side: int, generator: np.random.Generator) -> tuple[slice, slice]:
    top, left = (int(generator.integers(0, length - side + 1)) for length in (height, width))
    return slice(top, top + side), slice(left, left + side)


def _signs(channels: int, like: Tensor, generator: np.random.Generator) -> Tensor:
    """Plus or minus 1 per channel, (C, 1, 1)."""
    return _sign(torch.from_numpy(generator.random(channels))).to(like).view(-1, 1, 1)


def _sign(uniform: Tensor) -> Tensor:
    return torch.where(uniform < 0.5, -1.0, 1.0).to(uniform)


def _window_norms(windows: Tensor) -> Tensor:
    """Per sample and channel, (B, C, 1, 1)."""
    squared: Tensor = windows**2
    return squared.sum((2, 3), keepdim=True).sqrt()
