"""Two processes train what one trains, each on a part of every batch; short floats and channels-last memory train the same too."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small_networks import FLAT, block, conv, image, pool
from torch import Tensor

from hardspike.attack.adversarial_set import load_adversarial_set
from hardspike.cli import main
from hardspike.snn.architecture import Dense, chain
from hardspike.snn.data import DataSettings, ImageSet, Splits, load_dataset
from hardspike.snn.errors import SettingsError
from hardspike.snn.network import SpikingNetwork
from hardspike.snn.neuron import Neuron
from hardspike.snn.parallel import Group, current_group
from hardspike.train.draws import Draws, whole
from hardspike.train.loop import fit
from hardspike.train.settings import FitSettings

# No batch norm, whose statistics are each process's own. 61 images are eight batches of 7 and one of 5: unequal parts.
RECIPE = """
name = "pair"
[data]
train_images = 61
[network]
norm = "none"
[train]
attack = ["fgsm", "rfgsm", "pgd2"]
epochs = 2
batch_size = 7
learning_rate = 0.1
augment = "crop_flip"
score_images = 40
[convert]
epochs = 1
batch_size = 7
time_steps = 2
calibration_steps = 2
calibration_batches = 1
score_images = 40
[deploy]
enabled = false
[attack]
targets = ["snn"]
eps = [0.1]
images = 8
members = ["fgsm"]
"""


def _metrics(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "runs" / "pair" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.slow
def test_two_processes_have_the_loss_curve_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pair.toml").write_text(RECIPE, encoding="utf-8")
    monkeypatch.chdir(tmp_path / "one")
    with pytest.raises(SystemExit) as ended:
        main(["run", "pair.toml", "--quiet"])
    assert not ended.value.code
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, "-m", "hardspike", "run", "pair.toml", "--quiet"],
        cwd=tmp_path / "two",
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    one, two = _metrics(tmp_path / "one"), _metrics(tmp_path / "two")
    # Each line once: one process writes.
    assert [(line["stage"], line.get("epoch")) for line in two] == [
        ("train", 1),
        ("train", 2),
        ("convert", 1),
        ("attack", None),
    ]
    for mine, other in zip(one[:3], two[:3], strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert mine["learning_rate"] == other["learning_rate"]
    assert one[0]["loss"] != one[1]["loss"]
    found = [
        sorted(str(path.relative_to(tmp_path / name)) for path in (tmp_path / name).rglob("*") if path.is_file())
        for name in ("one", "two")
    ]
    assert found[0] == found[1]
    assert done.stdout == capfd.readouterr().out  # the leader alone speaks
    _attacks_are_those_of_one_process(tmp_path, torchrun, monkeypatch)


def _attacks_are_those_of_one_process(tmp_path: Path, torchrun: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The same network attacked by one and by two processes, on 7 images: unequal parts, the same set bit for bit."""
    options = ["attack", "runs/pair", "--members", "noise", "pgd2", "square20", "--images", "7", "--quiet"]
    shutil.copytree(tmp_path / "one", tmp_path / "shared")
    monkeypatch.chdir(tmp_path / "one")
    with pytest.raises(SystemExit) as ended:
        main(options)
    assert not ended.value.code
    subprocess.run(
        [*torchrun, "-m", "hardspike", *options],
        cwd=tmp_path / "shared",
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=True,
        timeout=300,
    )
    alone, shared = (
        next((tmp_path / name / "runs" / "pair" / "adversarial").glob("*/*.safetensors")) for name in ("one", "shared")
    )
    assert len(list(shared.parent.iterdir())) == 1, "the processes' parts are gone"
    one, two = load_adversarial_set(alone), load_adversarial_set(shared)
    assert torch.equal(one.evaluation.images, two.evaluation.images)
    assert torch.equal(one.evaluation.broken_by, two.evaluation.broken_by)
    assert one.evaluation.tried == two.evaluation.tried and one.evaluation.tried[0] > 0
    assert [check.detail for check in one.checks] == [check.detail for check in two.checks]


def test_parts_of_a_batch_are_unequal_but_whole() -> None:
    for batch in (87, 63, 64, 9):
        for size in (1, 2, 3, 4):
            parts = [Group(rank, size).rows(batch) for rank in range(size)]
            assert [row for part in parts for row in range(batch)[part]] == list(range(batch))
            counts = [part.stop - part.start for part in parts]
            assert max(counts) - min(counts) <= 1


def test_a_batch_too_small_for_the_processes_is_refused() -> None:
    assert Group(1, 2).rows(4) == slice(2, 4) and Group().rows(1) == slice(0, 1)
    message = "batch of 3 on 2 processes: each needs two images or more; use a larger batch_size or fewer processes"
    with pytest.raises(SettingsError, match=message) as caught:
        Group(0, 2).rows(3)
    assert "\n" not in str(caught.value)


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    group = current_group()
    assert (group.rank, group.size, group.leads) == (0, 1, True) and group.total(2.5) == 2.5


def test_each_part_meets_the_draws_of_the_whole_batch() -> None:
    def drawn(rows: slice) -> tuple[Tensor, Tensor, int, int]:
        draws = Draws(torch.Generator().manual_seed(3), 7, rows)
        like = torch.zeros(7, 2)[rows]
        return draws.uniform(like), draws.normal(like), draws.index(3), draws.index(1)

    everything = drawn(slice(0, 7))
    first, second = drawn(slice(0, 3)), drawn(slice(3, 7))
    for index in (0, 1):
        joined = torch.cat([first[index], second[index]])  # type: ignore[list-item]
        assert torch.equal(joined, everything[index])  # type: ignore[arg-type]
    assert first[2:] == second[2:] == everything[2:] and everything[3] == 0
    assert torch.equal(whole(torch.Generator().manual_seed(3), 7).uniform(torch.zeros(7, 2)), everything[0])


TINY = chain(
    image(1, 8, 8),
    [
        *block("a", conv(8)),
        ("p", pool(2, 2)),
        *block("b", conv(8)),
        *FLAT,
        *block("c", Dense(out_features=20)),
        ("out", Dense(out_features=10, bias=True)),
    ],
)


def _splits(count: int = 160) -> Splits:
    digits = load_dataset(DataSettings())
    return Splits(digits.train.first(count), digits.validation.first(60), digits.test.first(10))


def _losses(path: Path, splits: Splits | None = None, **settings: Any) -> tuple[list[float], SpikingNetwork]:
    net, seen = SpikingNetwork(TINY, settings.pop("time_steps", 4)), list[dict[str, Any]]()
    for neuron in net.neurons().values():
        neuron.threshold.requires_grad_(True)
    chosen = FitSettings(**({"epochs": 2, "learning_rate": 0.05, "batch_size": 32} | settings))
    fit(net, splits or _splits(), chosen, seed=0, state_path=path, identity="me", on_epoch=seen.append)
    return [metrics["loss"] for metrics in seen], net


@pytest.mark.parametrize("objective", ["natural", "robust_kl"])
def test_bfloat16_trains_with_potentials_in_32_bit(
    objective: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses differ from the 32 bit ones by at most 2 %: bfloat16 has 8 bits, and a few spikes flip."""
    plain, _ = _losses(tmp_path / "plain", objective=objective)
    received: set[torch.dtype] = set()
    forward = Neuron.forward

    def watched(self: Neuron, current: Tensor, *arguments: Any) -> Tensor:
        spikes = forward(self, current, *arguments)
        received.add(current.dtype)
        assert spikes.dtype == torch.float32
        return spikes

    monkeypatch.setattr(Neuron, "forward", watched)
    multiplied: set[torch.dtype] = set()
    convolve = torch.nn.Conv2d.forward

    def watched_convolution(self: torch.nn.Conv2d, value: Tensor) -> Tensor:
        result = convolve(self, value)
        multiplied.add(result.dtype)
        return result

    monkeypatch.setattr(torch.nn.Conv2d, "forward", watched_convolution)
    short, net = _losses(tmp_path / "short", objective=objective, mixed_precision="bfloat16")
    assert short == pytest.approx(plain, rel=0.02) and short != plain
    assert received == {torch.float32}
    assert multiplied == {torch.bfloat16, torch.float32}  # training, and the validation that chooses the epoch
    state = net.state_dict()
    assert all(value.dtype == torch.float32 for value in state.values() if value.is_floating_point())
    assert all(torch.isfinite(value).all() for value in state.values())


def test_bfloat16_trains_an_ann(tmp_path: Path) -> None:
    plain, _ = _losses(tmp_path / "plain", time_steps=None)
    short, _ = _losses(tmp_path / "short", time_steps=None, mixed_precision="bfloat16")
    assert short == pytest.approx(plain, rel=0.02) and short != plain


@pytest.mark.parametrize("mixed", ["none", "bfloat16"])
@pytest.mark.parametrize("time_steps", [None, 4])
def test_channels_last_trains_the_same(mixed: str, time_steps: int | None, tmp_path: Path) -> None:
    """Up to rounding, which turns a sign of an adversarial image or a spike here and there."""
    chosen = {"objective": "robust_kl", "mixed_precision": mixed, "time_steps": time_steps}
    plain, _ = _losses(tmp_path / "plain", **chosen)
    found, net = _losses(tmp_path / "last", channels_last=True, **chosen)
    assert found == pytest.approx(plain, rel=2e-3 if (mixed, time_steps) == ("none", None) else 0.02)
    assert net.get_parameter("layers.b.weight").is_contiguous(memory_format=torch.channels_last)


def test_channels_last_computes_the_same() -> None:
    images = _splits().train.images[:20]
    for steps in (None, 4):
        net = SpikingNetwork(TINY, steps).eval()
        before = net(images)
        net.use_channels_last()
        torch.testing.assert_close(net(images), before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch_size", [2, 3])
def test_a_last_image_alone_joins_the_batch_before(batch_size: int, tmp_path: Path) -> None:
    """Batch norm has no statistics of one image of an ANN."""
    data = _splits(7).train
    losses, _ = _losses(tmp_path / "s", Splits(data, data, data), time_steps=None, batch_size=batch_size)
    assert len(losses) == 2 and isinstance(data, ImageSet)
