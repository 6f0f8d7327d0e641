"""FAB-T: steps onto the linearised boundary with a target class, drawn towards the clean image (Croce & Hein 2020, arXiv 1907.02044).

It looks for the nearest adversarial image rather than for any within eps; only those within the ball count.
"""

from functools import partial

import torch
from torch import Tensor

from hardspike.attack.apgd import target_margin
from hardspike.attack.ball import ROUNDING, Ball, Norm, norms
from hardspike.attack.problem import Problem
from hardspike.attack.standing import Found, in_turn, other_classes

# A random start is this share of the way to the ball's surface.
START_SHARE = 0.5
# Weights of the plane below this share of the largest count as 0.
NEGLIGIBLE = 1e-12


def fab_targeted(
    problem: Problem,
    *,
    steps: int = 100,
    targets: int = 9,
    random_start: bool = False,
    alpha_max: float = 0.1,
    eta: float = 1.05,
    beta: float = 0.9,
) -> Tensor:
    """Images (B, C, H, W) of the ball that fool the model where one was found, the clean ones elsewhere.

    targets: classes that the model ranks next after the label on the clean image, in turn; at most K - 1 with K classes.
    random_start: begin halfway to the ball's surface rather than at the clean image. alpha_max: largest pull towards the clean image.
    eta: how far a step overshoots the boundary. beta: share of the move that is kept after an adversarial image.

    A sample leaves with its first adversarial image inside the ball. Where all are outside, the nearest is projected to the
    ball and judged again; that takes the place of the paper's final search, which shortens a move to report its length.
    """

    def search(rank: int, rest: Problem, clean_logits: Tensor) -> Found:
        chosen = other_classes(clean_logits, rest.labels)
        if rank >= chosen.shape[1]:
            return rest.clean, torch.zeros_like(rest.labels, dtype=torch.bool)
        start = rest.clean
        if random_start:
            start = start + START_SHARE * (rest.ball.surface(rest.draws.uniform(rank, start)) - start)
        return _search(rest, start, chosen[:, rank], steps, alpha_max, eta, beta)

    return in_turn(problem, (partial(search, rank) for rank in range(targets)))


def _search(
    problem: Problem, images: Tensor, targets: Tensor, steps: int, alpha_max: float, eta: float, beta: float
) -> Found:
    found = problem.clean.clone()
    fooled = torch.zeros_like(problem.labels, dtype=torch.bool)
    rows = torch.arange(len(problem), device=images.device)
    nearest, distance = problem.clean, torch.full_like(images[:, :1, :1, :1], float("inf"))
    for _ in range(steps):
        _, lead, gradient = problem.value_and_gradient(images, target_margin(problem.labels, targets))
        images = _step(problem.ball, images, lead, gradient, alpha_max, eta)
        adversarial = problem.fools(images)
        done = adversarial & _inside(problem.ball, images)
        found[rows[done]], fooled[rows[done]] = images[done], True
        wrong = adversarial.view(-1, 1, 1, 1)
        length = _lengths(images - problem.clean, problem.ball.norm)
        nearest = torch.where(wrong & (length < distance), images, nearest)
        distance = torch.where(wrong, torch.minimum(length, distance), distance)
        images = torch.where(wrong, problem.clean + beta * (images - problem.clean), images)
        if bool(done.any()):
            keep = ~done
            problem, images, targets, rows = problem.take(keep), images[keep], targets[keep], rows[keep]
            nearest, distance = nearest[keep], distance[keep]
            if not len(rows):
                return found, fooled
    outside = (distance < float("inf")).flatten()
    if bool(outside.any()):
        problem, rows = problem.take(outside), rows[outside]
        cut = problem.ball.project(nearest[outside])
        hit = problem.fools(cut)
        found[rows[hit]], fooled[rows[hit]] = cut[hit], True
    return found, fooled


def _step(ball: Ball, images: Tensor, lead: Tensor, gradient: Tensor, alpha_max: float, eta: float) -> Tensor:
    """A mean of the iterate and the clean image, both moved past the linearised boundary; the clean one's share is alpha.

    lead: of the target's logit over the label's at `images`, with its gradient.
    """
    here, clean = images.flatten(1).double(), ball.clean.flatten(1).double()
    normal, missing = gradient.flatten(1).double(), -lead.double()
    from_here = move_onto_plane(here, normal, missing, ball.norm)
    from_clean = move_onto_plane(clean, normal, missing + (normal * (here - clean)).sum(1), ball.norm)
    near, far = (_lengths(move, ball.norm).clamp(min=1e-8) for move in (from_here, from_clean))
    alpha = (near / (near + far)).clamp(max=alpha_max)
    stepped: Tensor = (here + eta * from_here) * (1 - alpha) + (clean + eta * from_clean) * alpha
    return stepped.clamp(0, 1).to(images).view_as(images)


def move_onto_plane(points: Tensor, normal: Tensor, missing: Tensor, norm: Norm) -> Tensor:
    """The shortest move with normal . move = missing that stays in [0, 1], else the one that comes closest.

    points, normal: float64 (B, D), points in [0, 1]; missing: (B,). Returns (B, D); 0 where the normal is 0.

    In both norms pixel i moves by min(scale * speed_i, room_i) towards the plane, with speed 1 (`linf`) or |normal_i| (`l2`), so
    what is reached grows piecewise linearly with the scale; its breakpoints are where pixels arrive at 0 or 1.
    """
    largest = normal.abs().amax(1, keepdim=True).clamp(min=torch.finfo(normal.dtype).tiny)
    normal, missing = normal / largest, missing / largest[:, 0]
    normal, missing = torch.where(missing[:, None] < 0, -normal, normal), missing.abs()
    weight = torch.where(normal.abs() < NEGLIGIBLE, 0.0, normal.abs())
    speed = (weight > 0).to(weight) if norm == "linf" else weight
    room = torch.where(normal > 0, 1 - points, points)
    ends, order = torch.where(speed > 0, room / speed, 0.0).sort(1)
    arrived = (weight * room).gather(1, order).cumsum(1)
    arrived = torch.cat([torch.zeros_like(arrived[:, :1]), arrived[:, :-1]], 1)  # at a pixel's end, by those before it
    slope = (weight * speed).gather(1, order).flip(1).cumsum(1).flip(1)
    piece = (arrived + slope * ends < missing[:, None]).sum(1, keepdim=True)
    piece = piece.clamp(max=points.shape[1] - 1)
    slope_here = slope.gather(1, piece)
    scale = (missing[:, None] - arrived.gather(1, piece)) / torch.where(slope_here > 0, slope_here, 1.0)
    scale = torch.minimum(scale, ends[:, -1:])
    return normal.sign() * torch.minimum(scale * speed, room)


def _lengths(moves: Tensor, norm: Norm) -> Tensor:
    """Per sample, shape (B, 1, ...)."""
    if norm == "l2":
        return norms(moves)
    return moves.abs().flatten(1).amax(1).view(-1, *[1] * (moves.ndim - 1))


def _inside(ball: Ball, images: Tensor) -> Tensor:
    if ball.norm == "l2":
        return norms(images - ball.clean).flatten() <= ball.eps * (1 - ROUNDING)
    return ((images >= ball.low) & (images <= ball.high)).flatten(1).all(1)
