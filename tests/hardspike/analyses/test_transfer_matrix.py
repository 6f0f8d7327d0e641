"""Source x target: every cell by hand, the control network among them."""

import shutil
from pathlib import Path

import pytest
import torch
from swept_runs import (
    FLOAT_ONLY,
    check_form,
    count_right,
    fgsm_by_hand,
    float_run,
    look,
    residual_rgb_run,
    rounded_half_up,
)

from hardspike.analyses import transfer_matrix as module
from hardspike.analyses.shares import Share
from hardspike.analyses.transfer_matrix import ATTACKS, transfer_matrix
from hardspike.attack.ball import Ball
from hardspike.attack.evaluation import member_seed
from hardspike.attack.members import parse_member
from hardspike.attack.problem import Problem, SampleDraws
from hardspike.run_folder import RunFolder
from hardspike.snn.checkpoint import load_network
from hardspike.snn.surrogate import Triangular

NAMES = ["ANN", "float SNN", "quantised SNN", "deployed network", "control ANN", "control float SNN"]


def share(count: int) -> Share:
    return Share.of_flags(torch.arange(100) < count)


@pytest.mark.slow
def test_every_cell_of_the_run_by_hand(run: Path) -> None:
    folder = RunFolder.open(run)
    subject = look(folder, 5)
    found = transfer_matrix(subject)
    check_form(found)
    control = RunFolder.open(run / "control")
    models = [subject.logits(t) for t in ("ann", "snn", "quantised", "deployed")]
    models += [load_network(control.ann), load_network(control.snn)]
    assert found.values["networks"] == NAMES
    images, labels = subject.test.images, subject.test.labels
    clean = [count_right(model, rounded_half_up(images, 255), labels) / 5 for model in models]
    assert [one["share"] for one in found.values["clean"]] == clean
    for row, source in enumerate(models):
        single = fgsm_by_hand(source, images, labels, 0.1, 255, Triangular(1.0))
        ball = Ball.around(images, 0.1, grid=255)
        draws = SampleDraws(member_seed(0, ATTACKS["PGD"]), torch.arange(5))
        strong = parse_member(ATTACKS["PGD"]).perturb(Problem(model=source, labels=labels, ball=ball, draws=draws))
        for column, target in enumerate(models):
            cells = {kind: grid[row][column]["share"] for kind, grid in found.values["rows_are_sources"].items()}
            assert cells["FGSM"] == count_right(target, single, labels) / 5, (row, column)
            assert cells["PGD"] == count_right(target, ball.rounded(strong), labels) / 5, (row, column)
    matrix = found.charts[0]
    assert matrix.rows == ("clean images", *NAMES) and matrix.columns == tuple(NAMES)  # type: ignore[union-attr]
    assert matrix.values[2][0] == found.values["rows_are_sources"]["FGSM"][1][0]["share"]  # type: ignore[union-attr]
    assert any("the same seed; it is trained otherwise (natural ANN" in note for note in found.notes)


def test_pgd_images_do_not_stop_at_their_sources_border() -> None:
    assert parse_member(ATTACKS["PGD"]).last


def test_control_networks_that_do_not_count(run: Path, tmp_path: Path) -> None:
    record = run / "control" / "stages.json"
    record.write_text("{}")
    found = transfer_matrix(look(RunFolder.open(run), 1))
    assert found.values["networks"] == NAMES[:4]
    assert "The control network is left out: it has not finished." in found.notes
    shutil.rmtree(run / "control")
    assert any("has no control network" in note for note in transfer_matrix(look(RunFolder.open(run), 1)).notes)


@pytest.mark.slow
def test_a_residual_network_on_colour_images(tmp_path: Path) -> None:
    found = transfer_matrix(look(residual_rgb_run(tmp_path / "rgb"), 2))
    check_form(found)
    assert (
        found.values["networks"] == NAMES[:2]
        and "The run does not make: quantised SNN, deployed network." in found.notes
    )


def test_control_of_other_data_is_left_out(tmp_path: Path) -> None:
    table = FLOAT_ONLY | {"control": {"data": {"train_images": 64}}}
    subject = look(float_run(tmp_path / "float", table), 1)
    assert module.control_subject(subject) == (None, "The control network is left out: it was made for other data.")


def test_masked_gradients_are_told() -> None:
    grid = [[share(60), share(50)], [share(90), share(95)]]
    said = module._found(["ANN", "float SNN"], {"FGSM": grid})
    assert said[0] == (
        "FGSM: images from elsewhere hurt more than the network's own for float SNN (own 95.0 %, from ANN 50.0 %); "
        "beyond the intervals for float SNN."
    )
    assert said[1] == "FGSM: the strongest transfer is from ANN to float SNN, 50.0 % left right."
    honest = [[share(60), share(90)], [share(90), share(90)]]
    assert module._found(["ANN", "float SNN"], {"PGD": honest})[0] == (
        "PGD: on every network its own images are the strongest, or as strong as any."
    )
    assert len(module._found(["float SNN"], {"PGD": [[share(1)]]})) == 1
