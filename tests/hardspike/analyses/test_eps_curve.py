"""Accuracy against eps: every number by hand, and what the sentences say."""

from pathlib import Path

import pytest
import torch
from swept_runs import FLOAT_ONLY, POISSON, check_form, count_right, fgsm_by_hand, float_run, look, rounded_half_up

from hardspike.analyses import eps_curve as module
from hardspike.analyses.eps_curve import NOISE, SINGLE, STRONG, budgets, eps_curve, rises, stored_points
from hardspike.analyses.shares import Share
from hardspike.attack.adversarial_set import load_adversarial_set
from hardspike.attack.ball import Ball
from hardspike.attack.evaluation import SURVIVED, member_seed
from hardspike.attack.members import parse_member
from hardspike.attack.problem import Problem, SampleDraws
from hardspike.run_folder import RunFolder
from hardspike.snn.surrogate import Triangular


def share(count: int, of: int = 100) -> Share:
    return Share.of_flags(torch.arange(of) < count)


def test_budgets_start_at_nothing_and_end_without_a_bound() -> None:
    assert budgets(0.1) == (0.0, 0.025, 0.05, 0.1, 0.2, 0.4, 1.0)
    assert budgets(0.6) == (0.0, 0.15, 0.3, 0.6, 1.0)


@pytest.mark.slow
def test_every_curve_of_the_run_by_hand(run: Path) -> None:
    subject = look(RunFolder.open(run), 4)
    found = eps_curve(subject)
    check_form(found)
    assert set(found.values["curves"]) == {"ann", "snn", "quantised", "deployed"}
    clean, labels = subject.test.images, subject.test.labels
    rows = torch.arange(4)
    for target, curves in found.values["curves"].items():
        model = subject.logits(target)
        for index, eps in enumerate(found.values["eps"]):
            shares = {kind: round(4 * curves[kind][index]["share"]) for kind in (STRONG, SINGLE, NOISE)}
            if eps not in (0, 0.1, 0.4):
                continue
            if eps == 0:
                right = count_right(model, rounded_half_up(clean, 255), labels)
                assert shares == {STRONG: right, SINGLE: right, NOISE: right}
                continue
            one_step = fgsm_by_hand(model, clean, labels, eps, 255, Triangular(1.0))
            assert shares[SINGLE] == count_right(model, one_step, labels), (target, eps)
            ball = Ball.around(clean, eps, grid=255)
            draws = SampleDraws(member_seed(0, STRONG), rows)
            strong = parse_member(STRONG).perturb(Problem(model=model, labels=labels, ball=ball, draws=draws))
            assert shares[STRONG] == count_right(model, ball.rounded(strong), labels), (target, eps)
            signs = (SampleDraws(member_seed(0, NOISE), rows).uniform(0, clean) * 2 - 1).sign()
            noisy = ball.rounded((clean + eps * signs).clamp(0, 1))
            assert shares[NOISE] == count_right(model, noisy, labels), (target, eps)
    (deployed,) = [x for x in found.values["worst_case_of_the_suite"]["deployed"] if x["eps"] == 0.1]
    made = load_adversarial_set(subject.folder.attack_set("deployed", 0.1)).evaluation
    standing = sum(int(value) == SURVIVED for value in made.broken_by[:4])
    assert deployed["share"] == standing / 4 and deployed["n"] == 4
    overview, *others = found.charts
    assert [chart.name for chart in others] == ["eps_ann", "eps_snn", "eps_quantised", "eps_deployed"]
    assert len(overview.lines) == 8 and [one.dashed for one in overview.lines] == [False] * 4 + [True] * 4  # type: ignore[union-attr]


def test_without_deployment_or_evaluations(tmp_path: Path) -> None:
    subject = look(float_run(tmp_path / "poisson", POISSON), 2)
    found = eps_curve(subject)
    check_form(found)
    assert list(found.values["curves"]) == ["ann", "snn"] and not any(stored_points(subject, 2).values())
    assert "The run has no deployed network; its curve is left out." in found.notes
    assert any("no finished evaluation" in note for note in found.notes)
    assert found.conditions["multi-step attack"] == "pgd7+detached+eot=2/assg:0.425"
    assert eps_curve(subject).values == found.values, "the networks' own noise was left changed"


def test_one_constant_image(tmp_path: Path) -> None:
    subject = look(float_run(tmp_path / "float", FLOAT_ONLY), 1)
    subject.test.pixels.zero_()
    check_form(eps_curve(subject))


def test_rises_are_found() -> None:
    grid = (0.0, 0.1, 0.2)
    assert rises(grid, [share(90), share(50), share(60)]) == [(0.1, 0.2)]
    assert rises(grid, [share(90), share(50), share(50)]) == []


def test_sentences_fall_both_ways() -> None:
    grid = (0.0, 0.1, 1.0)
    honest = {STRONG: [share(90), share(50), share(0)], SINGLE: [share(90), share(60), share(10)]}
    honest[NOISE] = [share(90), share(89), share(12)]
    masked = {STRONG: [share(90), share(85), share(88)], SINGLE: [share(90), share(80), share(10)]}
    masked[NOISE] = [share(90), share(84), share(89)]
    good = " ".join(module._found(grid, {"snn": honest, "deployed": honest}, {}, 0.1))
    assert "no multi-step curve rises" in good and "leaves no image right on any network" in good
    assert "The single step is nowhere stronger" in good and "Noise is nowhere stronger" in good
    assert "differ beyond their intervals at no budget" in good
    bad = " ".join(module._found(grid, {"snn": honest, "deployed": masked}, {"snn": {0.1: share(30)}}, 0.1))
    assert (
        "rises with the budget for deployed network from eps 0.1 to 1" in bad
        and "does not reach 0: deployed network 88.0 %" in bad
    )
    assert (
        "The single step leaves less right than the multi-step attack for deployed network at eps 0.1 (80.0 % against 85.0 %)"
        in bad
    )
    assert "Noise leaves less right than the multi-step attack for deployed network at eps 0.1" in bad
    assert "beyond their intervals at eps 0.1 (50.0 % float, 85.0 % deployed); eps 1" in bad
    assert "float SNN: the recipe's suite leaves 30.0 % right at eps 0.1 (n = 100), this attack 50.0 %" in bad
    assert bad.endswith("this attack 50.0 %: the curve is an upper bound.")
    weak = module._found(grid, {"snn": honest}, {"snn": {0.1: share(50)}}, 0.1)[-1]
    assert weak.endswith("this attack 50.0 %: the suite finds nothing more.")
