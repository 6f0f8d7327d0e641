"""The query curve of Square against attacks of fewer queries, one image at a time."""

from pathlib import Path

import pytest
import torch
from pytest import MonkeyPatch
from swept_runs import WITHOUT_ANN, check_form, float_run, look, rounded_half_up

from hardspike.analyses import query_curve as module
from hardspike.analyses.query_curve import on_grid, queries_used, query_curve, shown_queries, standing_after
from hardspike.attack.ball import Ball
from hardspike.attack.evaluation import member_seed
from hardspike.attack.problem import Problem, SampleDraws
from hardspike.attack.square import square
from hardspike.run_folder import RunFolder
from hardspike.snn.data import ImageSet


def test_the_curve_starts_at_clean_accuracy_and_ends_at_all_queries() -> None:
    at = shown_queries(200)
    assert at[:3] == (0, 1, 2) and at[-1] == 200 and list(at) == sorted(set(at))
    assert shown_queries(1) == (0, 1)


def test_standing_after_counts_by_hand() -> None:
    used = torch.tensor([0, -1, 3, 7, 7, -1])
    for queries in range(9):
        standing = sum(1 for q in used.tolist() if q == -1 or q > queries)
        assert standing_after(used, queries).count == standing
    assert standing_after(used, 0).count == 5, "wrong clean images stand nowhere"


def test_images_are_asked_about_as_the_grid_carries_them() -> None:
    seen = []
    images = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    on_grid(lambda x: seen.append(x) or x, 255)(images)  # type: ignore[func-returns-value]
    assert torch.equal(seen[0], rounded_half_up(images, 255))
    model = torch.nn.Identity()
    assert on_grid(model, None) is model


@pytest.mark.slow
def test_every_network_of_a_run_against_attacks_of_fewer_queries(run: Path, monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUERIES", 12)
    subject = look(RunFolder.open(run), 5, eps=0.5)
    found = query_curve(subject)
    check_form(found)
    assert list(found.values["fell_after"]) == ["ann", "snn", "deployed"]
    fallen = 0
    for target, used in found.values["fell_after"].items():
        model = subject.logits(target)
        for queries, share in zip(found.values["queries"], found.values["standing"][target], strict=True):
            standing = 0
            for i in range(5):
                clean, label = subject.test.images[i : i + 1], subject.test.labels[i : i + 1]
                draws = SampleDraws(member_seed(0, "square12"), torch.tensor([i]))
                carried = on_grid(model, 255)
                problem = Problem(model=carried, labels=label, ball=Ball.around(clean, 0.5, grid=255), draws=draws)
                made = square(problem, queries=queries) if queries else clean
                standing += int(carried(made).argmax()) == int(label)
            assert share["share"] == standing / 5, (target, queries)
        fallen += sum(q > 0 for q in used)
    assert fallen, "nothing fell: the test shows nothing"
    assert any("half of them within" in text for text in found.found)


def test_the_share_of_samples_does_not_depend_on_the_batch(run: Path, monkeypatch: MonkeyPatch) -> None:
    subject = look(RunFolder.open(run), 5)
    whole = queries_used(subject.logits("snn"), subject.test, eps=0.5, queries=8, seed=1)
    monkeypatch.setattr(module, "BATCH", 2)
    assert torch.equal(queries_used(subject.logits("snn"), subject.test, eps=0.5, queries=8, seed=1), whole)


def test_the_attack_asks_only_about_what_the_grid_carries() -> None:
    images = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    data, asked = ImageSet(images, torch.zeros(3, dtype=torch.int64), 2), []

    def model(shown: torch.Tensor) -> torch.Tensor:
        asked.append(shown)
        return torch.tensor([[1.0, 0.0]]).expand(len(shown), 2)

    assert queries_used(model, data, eps=0.1, queries=5, seed=0, grid=15).tolist() == [-1, -1, -1]
    assert len(asked) == 6
    for shown in asked:
        assert torch.allclose(shown * 15, (shown * 15).round(), atol=1e-4)


def test_what_a_run_lacks_is_a_note(tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUERIES", 2)
    found = query_curve(look(float_run(tmp_path / "direct", WITHOUT_ANN), 1, eps=1e-6))
    check_form(found)
    assert list(found.values["fell_after"]) == ["snn"]
    assert found.notes == (
        "float SNN: no image fell within 2 queries.",
        "The run has no ANN; it is left out.",
        "The run has no deployed network; it is left out.",
    )


def test_networks_beyond_the_intervals_are_told() -> None:
    strong, weak = torch.full((60,), -1), torch.ones(60, dtype=torch.int64)
    used = {"ann": weak, "snn": strong}
    curves = {name: [standing_after(of, 0), standing_after(of, 200)] for name, of in used.items()}
    said = module._found(curves, used)
    assert "At the last query float SNN stands higher of ANN and float SNN, beyond the intervals." in said
    assert "ANN: 60 images fell, half of them within 1 queries." in said
