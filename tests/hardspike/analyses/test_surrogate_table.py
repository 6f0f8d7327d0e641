"""Surrogate by surrogate: every number by hand, and the worst case over all."""

from pathlib import Path

import pytest
import torch
from pytest import MonkeyPatch
from swept_runs import FLOAT_ONLY, PER_STEP, check_form, count_right, fgsm_by_hand, float_run, look, rounded_half_up

from hardspike.analyses import surrogate_table as module
from hardspike.analyses.shares import Share
from hardspike.analyses.surrogate_table import Column, naive_surrogate, surrogate_table
from hardspike.attack.ball import Ball
from hardspike.attack.evaluation import member_seed, predict
from hardspike.attack.members import parse_member
from hardspike.attack.problem import Problem, SampleDraws
from hardspike.attack.suites import SURROGATES
from hardspike.run_folder import RunFolder
from hardspike.snn.surrogate import parse_surrogate


def share(count: int) -> Share:
    return Share.of_flags(torch.arange(100) < count)


@pytest.mark.slow
def test_every_number_of_the_run_by_hand(run: Path, monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ATTACKS", {"FGSM": "fgsm", "PGD": "pgd2"})
    subject = look(RunFolder.open(run), 4, eps=0.2)
    found = surrogate_table(subject)
    check_form(found)
    images, labels = subject.test.images, subject.test.labels
    ball = Ball.around(images, 0.2, grid=255)
    fell = 0
    for target in ("snn", "deployed"):
        model = subject.logits(target)
        clean = predict(model, rounded_half_up(images, 255)) == labels
        standing = {kind: clean.tolist() for kind in ("FGSM", "PGD")}
        for surrogate in SURROGATES:
            name = f"pgd2/{surrogate}"
            draws = SampleDraws(member_seed(0, name), torch.arange(4))
            made = {
                "FGSM": fgsm_by_hand(model, images, labels, 0.2, 255, parse_surrogate(surrogate)),
                "PGD": ball.rounded(
                    parse_member(name).perturb(Problem(model=model, labels=labels, ball=ball, draws=draws))
                ),
            }
            for kind, attacked in made.items():
                alone = found.values[kind][target]["alone"][surrogate]
                assert alone["share"] == count_right(model, attacked, labels) / 4, (kind, target, surrogate)
                for i in range(4):
                    standing[kind][i] &= int(model(attacked[i : i + 1]).argmax()) == int(labels[i])
        for kind, flags in standing.items():
            values = found.values[kind][target]
            assert values["clean"]["share"] == sum(clean.tolist()) / 4
            assert values["ensemble"]["share"] == sum(flags) / 4
            fell += int(clean.sum()) - sum(flags)
    assert fell, "nothing fell: the test shows nothing"
    bars = found.charts[0]
    assert bars.categories[:3] == ("clean images", "all 19 together", "triangular:1 (naive)")  # type: ignore[union-attr]
    assert len(bars.categories) == 21 and [one.name for one in bars.bars] == ["float SNN", "deployed network"]  # type: ignore[union-attr]
    assert all(len(one.values) == 21 for one in bars.bars)  # type: ignore[union-attr]


def test_the_naive_surrogate_is_the_trainings(tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ATTACKS", {"FGSM": "fgsm"})
    for written, found in (("triangular:1.0", "triangular:1"), ("linear:0.3", "linear:0.3")):
        table = FLOAT_ONLY | {"convert": FLOAT_ONLY["convert"] | {"surrogate": written}}
        subject = look(float_run(tmp_path / found.replace(":", "-"), table), 2)
        assert naive_surrogate(subject) == found
    extra = surrogate_table(subject)
    check_form(extra)
    assert list(extra.values["FGSM"]["snn"]["alone"])[-1] == "linear:0.3"
    assert any("linear:0.3 is not among the 19" in note for note in extra.notes)
    assert "The run has no deployed network; its bars are left out." in extra.notes


def test_norms_per_step_have_no_relu(tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ATTACKS", {"FGSM": "fgsm"})
    found = surrogate_table(look(float_run(tmp_path / "bntt", PER_STEP), 1))
    check_form(found)
    alone = found.values["FGSM"]["snn"]["alone"]
    assert [name for name, value in alone.items() if value is None] == ["relu"] and len(alone) == 19
    assert any(note.startswith("relu is left out") for note in found.notes)


@pytest.mark.parametrize(("least", "wide"), [(20, True), (68, False)])
def test_the_gap_between_naive_and_all(least: int, wide: bool) -> None:
    alone: dict[str, Share | None] = {"a": share(70), "b": share(69), "c": share(69), "d": None}
    column = Column(clean=share(90), alone=alone, ensemble=share(least), naive=share(70))
    other = Column(clean=share(90), alone={"a": share(10), "b": share(80)}, ensemble=share(9), naive=share(10))
    assert column.strongest() == (["b", "c"], share(69))
    first, _, third = module._found({("FGSM", "snn"): column, ("FGSM", "deployed"): other}, "a")
    assert f"flatter it by {70 - least:.1f} points" in first and ("(within the intervals)" in first) != wide
    assert "Strongest alone: b, c, 69.0 %." in first
    same = Column(clean=share(90), alone=alone, ensemble=share(69), naive=share(69))
    assert (
        "all surrogates together 69.0 %: naive alone finds as much." in module._found({("FGSM", "snn"): same}, "a")[0]
    )
    assert third == "FGSM: no surrogate is the strongest on both: b, c on the float SNN, a on the deployed network."
    assert (
        "b, c is the strongest, or one of"
        in module._found({("FGSM", "snn"): column, ("FGSM", "deployed"): column}, "a")[2]
    )
