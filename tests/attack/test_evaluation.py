"""Worst-case evaluation: it must break weak classifiers, keep its budget, be judged from outside and never depend on batches."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hardspike import attack
from hardspike.attack.ball import Ball
from hardspike.attack.evaluation import (
    CLEAN_ERROR,
    SURVIVED,
    Attacker,
    Evaluation,
    check_budget,
    interval,
    run_members,
    worst_case,
)
from hardspike.attack.members import Member, parse_member, split_name
from hardspike.attack.problem import Problem
from hardspike.attack.robustness import fingerprint
from hardspike.attack.suites import FAST, SUITES, ensemble, parse_suite
from hardspike.snn.checkpoint import load_network
from hardspike.snn.data import ImageSet
from hardspike.snn.errors import DataError, FileError, SettingsError
from hardspike.snn.surrogate import Exponential, Rectangular, Triangular


def brightness(images: Tensor) -> Tensor:
    """Class 1 where the mean exceeds 0.5: an attack of size eps flips exactly the images within eps of it."""
    mean = images.flatten(1).mean(1)
    return torch.stack([0.5 - mean, mean - 0.5, -10 + 0 * mean, -10 + 0 * mean], 1) * 10


def constant(images: Tensor) -> Tensor:
    return torch.tensor([[1.0, 0.0, 0.5, 0.2]]).repeat(len(images), 1) + 0 * images.flatten(1).sum(1, keepdim=True)


def grey(levels: list[float]) -> ImageSet:
    images = torch.tensor(levels).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).clone()
    return ImageSet(images, (images.flatten(1).mean(1) > 0.5).long(), 4)


LEVELS = [0.2, 0.38, 0.44, 0.47, 0.53, 0.56, 0.62, 0.9]
# Every kind once, with few steps.
KINDS = (
    "fgsm",
    "pgd5",
    "pgd20/rectangular:4",
    "pgd5+restarts=2",
    "pgd5+step=0.1+last",
    "sa-pgd20",
    "apgd-ce10",
    "apgd-dlr10",
    "apgd-t10",
    "fab-t20",
    "greedy5",
    "mixpgd5",
    "square200",
)
ALL_KINDS = (*KINDS, "rfgsm", "noise", "pgd3+eot=2", "sa-pgd5/assg", "pgd3+detached")


def run(model: nn.Module | object, data: ImageSet, names: tuple[str, ...], **options: object) -> Evaluation:
    attacker = Attacker(model=model, data=data, **options)  # type: ignore[arg-type]
    *_, made = run_members(attacker, [parse_member(name) for name in names])
    return made


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(("eps", "robust"), [(0.05, 6 / 8), (0.1, 4 / 8), (0.45, 0.0)])
def test_breaks_exactly_what_its_budget_reaches(name: str, eps: float, robust: float) -> None:
    result = run(brightness, grey(LEVELS), (name,), eps=eps)
    assert result.clean_accuracy == 1.0
    assert result.robust_accuracy == robust


@pytest.mark.parametrize(
    "name", [n for n in KINDS if not n.startswith(("sa-pgd", "square"))]
)  # one has no L2 form, one is no exact search
def test_breaks_what_an_l2_budget_reaches(name: str) -> None:
    """The mean of 16 pixels moves by at most eps / 4."""
    result = run(brightness, grey(LEVELS), (name,), eps=0.4, norm="l2")
    assert result.robust_accuracy == 4 / 8


def test_rfgsm_reaches_at_least_what_its_gradient_step_does() -> None:
    """Its random quarter may point away: within eps / 2 of the border it must succeed, beyond eps it cannot."""
    result = run(brightness, grey(LEVELS), ("rfgsm",), eps=0.14)
    assert result.broken_by[2:6].tolist() == [0, 0, 0, 0]
    assert result.broken_by[[0, 7]].tolist() == [SURVIVED, SURVIVED]


def test_nothing_breaks_a_constant_classifier() -> None:
    data = ImageSet(torch.rand(6, 1, 4, 4), torch.tensor([0, 0, 1, 0, 1, 0]), 4)
    result = run(constant, data, ALL_KINDS, eps=0.3)
    assert result.robust_accuracy == result.clean_accuracy == 4 / 6
    assert result.broken_by.tolist() == [SURVIVED, SURVIVED, CLEAN_ERROR, SURVIVED, CLEAN_ERROR, SURVIVED]
    assert torch.equal(result.images[2], data.images[2])  # clean errors stay clean


class Wavy(nn.Module):
    """Four classes on any image; smooth, with parameters, dropout that must be off, and classes that do change."""

    def __init__(self) -> None:
        super().__init__()
        self.phase = nn.Parameter(torch.tensor([0.3, 1.1, 2.0, 2.9], dtype=torch.float64))
        self.dropout = nn.Dropout(0.5)

    def forward(self, images: Tensor) -> Tensor:
        mean = self.dropout(images).flatten(1).mean(1, keepdim=True)
        return torch.sin(9 * mean + self.phase.to(images.dtype)) * 4


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    eps=st.sampled_from([1e-6, 1 / 255, 8 / 255, 0.1, 0.37, 1.0]),
    seed=st.integers(0, 99),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    norm=st.sampled_from(["linf", "l2"]),
    grid=st.sampled_from([None, 16, 255]),
)
def test_every_member_keeps_its_budget(
    eps: float, seed: int, shape: tuple[int, int, int], dtype: torch.dtype, norm: str, grid: int | None
) -> None:
    """Inside the ball and [0, 1], float rounding included: the judge asserts it after every member, by other code."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand((4, *shape), generator=generator, dtype=dtype)
    images[0] = images[0].round()  # corners of [0, 1]
    model = Wavy().eval()
    data = ImageSet(images, model(images).argmax(1), 4)
    names = ("fgsm", "rfgsm", "pgd3", "apgd-ce5", "apgd-dlr5", "apgd-t3", "fab-t3", "greedy2", "square20", "noise")
    names = names if norm == "l2" else (*names, "sa-pgd5")
    made = run(model, data, names, eps=eps, seed=seed, norm=norm, grid=grid if norm == "linf" else None)
    moved = (made.images - data.images).double()
    used = float(moved.abs().max() if norm == "linf" else moved.flatten(1).norm(dim=1).max())
    if norm == "l2" or grid is None:
        assert used <= eps + 1e-6
    else:
        on_grid = ((made.images.double() * grid).round() / grid).to(dtype)
        tried = (made.broken_by != CLEAN_ERROR) & (made.images != data.images).flatten(1).any(1)
        assert torch.equal(made.images[tried], on_grid[tried])
    assert 0 <= float(made.images.min()) <= float(made.images.max()) <= 1 and made.images.dtype == dtype


def test_an_attack_that_cheats_is_caught() -> None:
    ball = Ball.around(torch.full((1, 1, 2, 2), 0.5), 0.1)
    check_budget(ball.clean + 0.1, ball)
    with pytest.raises(AssertionError, match="beyond its budget of 0.1"):
        check_budget(ball.clean + 0.1002, ball)
    with pytest.raises(AssertionError, match="out of .0, 1."):
        check_budget(ball.clean * 0 - 0.05, Ball.around(ball.clean * 0, 0.1))
    with pytest.raises(AssertionError, match="beyond its budget"):
        check_budget(ball.clean + 0.06, Ball.around(ball.clean, 0.1, "l2"))


def test_success_is_judged_from_the_returned_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Member, "perturb", lambda self, problem: problem.clean)
    assert run(brightness, grey(LEVELS), ("fgsm",), eps=0.3).robust_accuracy == 1.0


def test_samples_already_fooled_leave_the_batch() -> None:
    seen = []

    def counting(images: Tensor) -> Tensor:
        if images.requires_grad:
            seen.append(len(images))
        return brightness(images)

    made = run(counting, grey(LEVELS), ("fgsm", "rfgsm"), eps=0.1)
    assert seen == [8, 4] and made.tried == (8, 4)
    seen.clear()
    run(counting, grey(LEVELS), ("pgd12+step=0.02",), eps=0.1)
    assert seen == sorted(seen, reverse=True) and seen[0] == 8 > seen[-1] == 4, (
        "an early iterate that fools ends the climb"
    )


@pytest.mark.parametrize("name", ALL_KINDS)
def test_batches_processes_and_other_members_change_nothing(name: str) -> None:
    model = Wavy().eval()
    images = torch.rand((9, 1, 3, 3), generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    data = ImageSet(images, model(images).argmax(1), 4)
    whole = run(model, data, (name,), eps=0.05, seed=3)
    parts = run(model, data, (name,), eps=0.05, seed=3, batch_size=2)
    assert torch.equal(whole.broken_by, parts.broken_by) and torch.equal(whole.images, parts.images)
    assert torch.equal(whole.images, run(model, data, (name,), eps=0.05, seed=3).images)
    behind = run(model, data, ("noise", name), eps=0.05, seed=3)
    late = behind.broken_by != 0
    assert torch.equal(behind.images[late], whole.images[late]), "a member's random numbers are its own"


def test_another_seed_is_another_attack() -> None:
    model = Wavy().eval()
    data = ImageSet(torch.full((3, 1, 3, 3), 0.5), model(torch.full((3, 1, 3, 3), 0.5)).argmax(1), 4)
    one, other = (run(model, data, ("noise",), eps=0.01, seed=seed).images for seed in (0, 1))
    assert not torch.equal(one, other) and not torch.equal(one[0], one[1]), "and each sample has its own numbers"


def test_restarts_only_help() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(9, 12), nn.Tanh(), nn.Linear(12, 4)).double()
    images = torch.rand((40, 1, 3, 3), dtype=torch.float64)
    data = ImageSet(images, net(images).argmax(1), 4)
    once, often = (run(net, data, (f"noise{more}",), eps=0.15) for more in ("", "+restarts=20"))
    assert once.robust_accuracy > often.robust_accuracy + 0.05


def test_members_are_parsed() -> None:
    member = parse_member("pgd20/exponential:1,2")
    assert (member.kind, member.steps, member.surrogate) == ("pgd", 20, Exponential(1, 2))
    assert parse_member("fgsm").surrogate == Triangular(1.0)
    member = parse_member("pgd7+step=2/255+restarts=3+eot=4+detached@ann/rectangular:2")
    assert (member.steps, member.step_size, member.restarts, member.passes) == (7, 2 / 255, 3, 4)
    assert (member.detach_reset, member.source, member.surrogate) == (True, "ann", Rectangular(2))
    assert parse_member("pgd7+step=2/255").step_size == 2 / 255
    for text, parts in (
        ("pgd7+step=2/255", ("pgd7+step=2/255", "")),
        ("pgd7+step=2/255+detached@ann/linear:0.3", ("pgd7+step=2/255+detached@ann", "linear:0.3")),
        ("pgd20/exponential:1,2", ("pgd20", "exponential:1,2")),
        ("apgd-ce100+detached/assg", ("apgd-ce100+detached", "assg")),
        ("square500", ("square500", "")),
    ):
        assert split_name(text) == parts
    for text, message in (
        ("pdg20", "attack 'pdg20' is unknown; did you mean 'pgd20'"),
        ("pgd0", "pgd takes its number of steps"),
        ("pgd", "pgd takes its number of steps, 1 or more; write e.g. pgd20"),
        ("fgsm3", "fgsm takes no number; write e.g. fgsm"),
        ("pgd7/rectangle:1", "surrogate 'rectangle' is unknown; did you mean 'rectangular'"),
        ("pgd7+restart=3", "option 'restart' is unknown; did you mean 'restarts'"),
        ("pgd7+restarts=0", "restarts = '0' is not allowed"),
        ("pgd7+step=-1", "step = '-1' is not allowed"),
        ("rfgsm+alpha=2", "alpha = 2 is not allowed"),
    ):
        with pytest.raises(SettingsError, match=message):
            parse_member(text)


def test_suites_are_parsed() -> None:
    assert [m.name for m in parse_suite("fast")] == list(FAST)
    assert len(ensemble("pgd20")) == 19 and set(ensemble("fgsm")) < set(SUITES["standard"])
    for suite in SUITES:
        parse_suite(suite)
    with pytest.raises(SettingsError, match="suite 'standrd' is unknown; did you mean 'standard'"):
        parse_suite("standrd")
    with pytest.raises(SettingsError, match="the list of members is empty"):
        parse_suite(())


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (("pgd2",), {"eps": 0.0}, r"eps = 0.0 is not allowed; choose a value in \(0, 1\]"),
        (("pgd2",), {"eps": 0.0, "norm": "l2"}, "choose a positive value"),
        (("sa-pgd2",), {"eps": 0.1, "norm": "l2"}, "'sa-pgd2' has no form for norm = 'l2'"),
        (("pgd2",), {"eps": 0.1, "norm": "l2", "grid": 255}, "norm = 'l2' has no grid"),
        (("pgd2@other",), {"eps": 0.1}, "no model 'other' to transfer from; give models"),
    ],
)
def test_settings_out_of_range(names: tuple[str, ...], options: dict, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(SettingsError, match=message):
        run(brightness, grey(LEVELS), names, **options)


def test_transfer_attacks_the_other_model_and_is_judged_on_this_one() -> None:
    def opposite(images: Tensor) -> Tensor:
        return brightness(1 - images)

    data = grey(LEVELS)
    same = run(brightness, data, ("pgd5@twin",), eps=0.1, sources={"twin": brightness})
    wrong = run(brightness, data, ("pgd5@twin",), eps=0.1, sources={"twin": opposite})
    assert (same.robust_accuracy, wrong.robust_accuracy) == (4 / 8, 1.0)


def test_a_network_without_a_right_answer_is_asked_nothing_more() -> None:
    """No image stands, so no member may hand the network an empty batch (convolutions refuse one)."""
    asked: list[int] = []

    def wrong(images: Tensor) -> Tensor:
        asked.append(len(images))
        return torch.stack([torch.zeros(len(images)), torch.ones(len(images))], 1)

    data = ImageSet(torch.full((5, 1, 1, 1), 0.5), torch.zeros(5, dtype=torch.int64), 2)
    result = worst_case(wrong, data, [parse_member("fgsm"), parse_member("pgd2")], eps=0.1)
    assert (result.clean_accuracy, result.robust_accuracy) == (0, 0) and asked == [5]


def test_any_callable_is_evaluated_and_left_as_it_was() -> None:
    model = Wavy().train()
    model.dropout.eval()
    images = torch.rand((30, 1, 4, 4), generator=torch.Generator().manual_seed(1))
    model.eval()
    labels = model(images).argmax(1)
    model.train()
    model.dropout.eval()
    result = attack.evaluate(model, images, labels, suite=("fgsm", "pgd5", "square50"), eps=8 / 255)
    assert model.training and not model.dropout.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert 0 < result.robust_accuracy < result.clean_accuracy == 1
    text = str(result)
    assert "worst case" in text and "pgd5" in text and "n = 30" in text
    as_bytes = attack.evaluate(
        lambda x: model(x), (images * 255).round().to(torch.uint8), labels, suite=("pgd5",), eps=8 / 255
    )
    assert as_bytes.images.dtype == torch.float32
    with pytest.raises(DataError, match="must give logits of shape"):
        attack.evaluate(lambda x: x, images, labels, eps=0.1)
    with pytest.raises(DataError, match="none given"):
        attack.evaluate(model, images[:0], labels[:0], eps=0.1)


def test_a_model_without_gradients_is_attacked_by_its_answers_alone() -> None:
    def answers(images: Tensor) -> Tensor:
        return brightness(images.detach()).detach()

    data = grey(LEVELS)
    result = attack.evaluate(
        answers, data.images, data.labels, suite=("square300", "pgd5@twin"), eps=0.1, sources={"twin": brightness}
    )
    assert result.robust_accuracy == 4 / 8 and len(result.checks) == 3
    with pytest.raises(SettingsError, match="its logits have no gradient; name only attacks that need none"):
        attack.evaluate(answers, data.images, data.labels, suite=("pgd5",), eps=0.1)


def test_the_interval_is_wilsons() -> None:
    """n = 100, k = 80: (0.8 + z^2/200 ± z sqrt(0.16/100 + z^2/40000)) / (1 + z^2/100), z = 1.96."""
    low, high = interval(0.8, 100)
    assert (round(low, 4), round(high, 4)) == (0.7112, 0.8666)
    assert interval(1.0, 50)[1] == 1.0 and interval(0.0, 50)[0] == 0.0


class Killed(Exception):
    pass


def test_a_killed_evaluation_continues_and_refuses_another(tmp_path: Path) -> None:
    model = Wavy().eval()
    images = torch.rand((20, 1, 4, 4), generator=torch.Generator().manual_seed(1))
    labels = model(images).argmax(1)
    suite, path = ("fgsm", "pgd5", "apgd-ce5"), tmp_path / "set.safetensors"
    whole = attack.evaluate(model, images, labels, suite=suite, eps=0.05)

    def kill(name: str, done: int, robust: float) -> None:
        if name == "apgd-ce5":
            raise Killed

    with pytest.raises(Killed):
        attack.evaluate(model, images, labels, suite=suite, eps=0.05, state=path, progress=kill)
    ran: list[str] = []
    result = attack.evaluate(
        model, images, labels, suite=suite, eps=0.05, state=path, progress=lambda name, done, robust: ran.append(name)
    )
    assert set(ran) == {"apgd-ce5"}
    assert torch.equal(result.evaluation.broken_by, whole.evaluation.broken_by) and torch.equal(
        result.images, whole.images
    )
    other = Wavy().eval()
    with torch.no_grad():
        other.phase += 0.01
    for changed, what in (
        ({"model": other}, "another model"),
        ({"model": lambda images: 2 * model(images)}, "another model"),
        ({"suite": ("fgsm", "pgd6")}, "another suite"),
        ({"eps": 0.06}, "another budget"),
        ({"seed": 1}, "another seed"),
        ({"images": images.flip(0), "labels": labels.flip(0)}, "another images"),
    ):
        given_ = {"model": model, "images": images, "labels": labels, "suite": suite, "eps": 0.05} | changed
        with pytest.raises(FileError, match=what):
            attack.evaluate(given_.pop("model"), given_.pop("images"), given_.pop("labels"), state=path, **given_)


def test_what_tells_models_apart(tmp_path: Path) -> None:
    """Weights where there are some; outputs too, which differ where only the timesteps do; neither for random functions."""
    images = torch.rand((6, 1, 8, 8), generator=torch.Generator().manual_seed(1))
    data = ImageSet(images, torch.zeros(6, dtype=torch.int64), 10)
    network = load_network(Path(__file__).parents[1] / "golden" / "small_snn_natural.safetensors")
    at_four = fingerprint(network, data)
    assert fingerprint(network, data) == at_four
    network.set_time_steps(5)
    assert fingerprint(network, data) != at_four
    with pytest.raises(SettingsError, match="whose outputs are random; give identity"):
        attack.evaluate(
            lambda x: torch.rand(len(x), 10), images, data.labels, suite=("square5",), eps=0.1, state=tmp_path / "s"
        )


def test_only_the_first_search_of_fab_begins_at_the_clean_image(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[bool] = []

    def fails(problem: Problem, *, steps: int, targets: int, random_start: bool) -> Tensor:
        begun.append(random_start)
        return problem.clean

    monkeypatch.setattr("hardspike.attack.members.fab_targeted", fails)
    run(brightness, grey(LEVELS), ("fab-t2+restarts=3",), eps=0.1)
    assert begun == [False, True, True]


def test_expectation_over_transformation_averages_what_the_model_draws() -> None:
    """A model with noise of its own: with many passes the gradient's sign is that of the mean, and the budget is reached."""
    generator = torch.Generator().manual_seed(0)

    def noisy(images: Tensor) -> Tensor:
        return brightness(images) * (1 + 3 * torch.randn(1, generator=generator))

    problem = Problem(
        model=noisy, labels=grey(LEVELS).labels, ball=Ball.around(grey(LEVELS).images, 0.1), draws=None, passes=400
    )  # type: ignore[arg-type]
    _, _, gradient = problem.value_and_gradient(problem.clean, lambda logits: logits[:, 0])
    expected = -10 / 16
    assert float((gradient - expected).abs().max()) < 0.15 * abs(expected)
