"""A sweep runs recipes times seeds beside each other, continues, and compares what is complete in one table."""

from pathlib import Path
from typing import Any

import pytest

from hardspike.cli import main
from hardspike.comparison import comparison, markdown
from hardspike.snn.errors import FileError, HardspikeError, SettingsError
from hardspike.snn.progress import Silent
from hardspike.sweep import Job, jobs, run_jobs

BASE = """
[train]
epochs = 1
objective = "natural"
[convert]
epochs = 0
calibration_steps = 2
calibration_batches = 1
[deploy]
enabled = false
[attack]
images = 12
eps = [0.1]
members = ["fgsm", "fgsm/triangular:0.5", "pgd2"]
"""


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "bases").mkdir()
    (folder / "bases" / "base.toml").write_text(BASE, encoding="utf-8")
    (folder / "wide.toml").write_text('base = "bases/base.toml"\n[network]\ndense_width = 24\n', encoding="utf-8")
    (folder / "snn.toml").write_text(
        'base = "bases/base.toml"\n[network]\ndense_width = 16\n[train]\ntime_steps = 2\n'
        '[convert]\nmethod = "none"\ntime_steps = 2\n',
        encoding="utf-8",
    )
    return folder


@pytest.mark.slow
def test_two_recipes_two_seeds_then_nothing_more_to_do(recipes: Path, tmp_path: Path, monkeypatch: Any) -> None:
    todo = jobs([recipes], [0, 1], tmp_path / "out")
    assert [(job.method, job.seed) for job in todo] == [("snn", 0), ("wide", 0), ("snn", 1), ("wide", 1)]
    run_jobs(todo[:2], 2, Silent())
    partial = markdown(comparison(todo), todo, "hardspike sweep X")
    assert "**Partial: 2 of 4 runs are complete.** Continue with `hardspike sweep X`." in partial
    run_jobs(todo, 2, Silent())
    rows = comparison(todo)
    assert [(row.method, row.network, row.seeds) for row in rows] == [
        ("snn", "snn", (0, 1)),
        ("wide", "ann", (0, 1)),
        ("wide", "snn", (0, 1)),
    ]
    for row in rows:
        for clean, fgsm, worst in zip(row.clean, row.fgsm, row.worst, strict=True):
            assert 0 <= worst <= fgsm <= clean <= 1
    text = markdown(rows, todo, "hardspike sweep X")
    assert "Partial" not in text and "over the n seeds 0, 1" in text and "| wide | ann | 0.1 | 2 | " in text
    monkeypatch.setattr("hardspike.sweep._start", lambda job: pytest.fail(f"{job.folder} was complete"))
    run_jobs(todo, 2, Silent())
    with pytest.raises(SystemExit) as ended:
        main(
            [
                "sweep",
                str(recipes),
                "--seeds",
                "0",
                "1",
                "--out",
                str(tmp_path / "out"),
                "--table",
                str(tmp_path / "t.md"),
            ]
        )
    assert not ended.value.code and (tmp_path / "t.md").read_text(encoding="utf-8").count("| wide |") == 2


@pytest.mark.slow
def test_a_conversion_without_finetuning_has_a_summary_too(recipes: Path, tmp_path: Path, capsys: Any) -> None:
    (job,) = jobs([recipes / "wide.toml"], [0], tmp_path)
    run_jobs([job], 1, Silent())
    with pytest.raises(SystemExit) as ended:
        main(["convert", str(job.folder)])
    assert not ended.value.code and "threshold of spike1" in capsys.readouterr().out


@pytest.mark.slow
def test_a_failed_run_is_named_and_the_others_end(recipes: Path, tmp_path: Path) -> None:
    todo = jobs([recipes / "wide.toml"], [0], tmp_path)
    wrong = Job(recipes / "missing.toml", "missing", 0, tmp_path / "missing-seed0")
    with pytest.raises(HardspikeError, match=r"1 of 2 runs failed: missing-seed0 \(.*missing.toml: no such file"):
        run_jobs([wrong, *todo], 1, Silent())
    assert todo[0].is_complete()


@pytest.mark.slow
def test_a_changed_recipe_is_not_complete(recipes: Path, tmp_path: Path) -> None:
    (job,) = jobs([recipes / "snn.toml"], [0], tmp_path)
    run_jobs([job], 1, Silent())
    assert job.is_complete()
    changed = Job(recipes / "wide.toml", "snn", 0, job.folder)
    assert not changed.is_complete()


def test_mistakes_are_one_line(recipes: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingsError, match="sweep: no recipe is named; give .toml files"):
        jobs([], [0], tmp_path)
    with pytest.raises(FileError, match="no recipes there"):
        jobs([tmp_path / "empty"], [0], tmp_path)
    with pytest.raises(FileError, match="the name 'wide' appears twice"):
        jobs([recipes, recipes / "wide.toml"], [0], tmp_path)
    with pytest.raises(SettingsError, match=r"seeds = \[1, 1\] is not allowed; give each seed once"):
        jobs([recipes], [1, 1], tmp_path)
    with pytest.raises(SettingsError, match="jobs = 0 is not allowed; use 1 or more"):
        run_jobs([], 0, Silent())
