"""Any backend as a classifier: the emulator's logits exactly, and the same black-box attack image by image."""

import pytest
import torch
from needs_lava import needs_lava
from random_graphs import CASES, build

from hardspike.attack.evaluation import Attacker, run_members
from hardspike.attack.members import parse_member
from hardspike.deploy.backend_classifier import BackendClassifier
from hardspike.deploy.emulator import Emulator, EmulatorBackend
from hardspike.deploy.lava_backend import LavaBackend
from hardspike.deploy.trace import Backend
from hardspike.snn.data import ImageSet

GRADED = next(case for case in CASES if build(case).input.coding == "graded")


def attacked_alike(backend: Backend, count: int, queries: int) -> None:
    graph = build(GRADED)
    emulator, model = Emulator(graph), BackendClassifier(backend, graph)
    images = torch.rand((count, *graph.input.shape), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = emulator(images)
    assert torch.equal(model(images), expected) and not model(images).requires_grad
    data = ImageSet(images, expected.argmax(1), expected.shape[1])
    members = [parse_member(f"square{queries}"), parse_member("fgsm@emulator")]
    results = []
    for one in (emulator, model):
        attacker = Attacker(model=one, data=data, eps=0.3, grid=graph.input.message_max, sources={"emulator": emulator})
        *_, made = run_members(attacker, members)
        results.append(made)
    assert torch.equal(results[0].images, results[1].images)
    assert torch.equal(results[0].broken_by, results[1].broken_by)


def test_black_box_attacks_run_on_a_backend_as_on_the_emulator() -> None:
    attacked_alike(EmulatorBackend(), 12, 40)


@pytest.mark.slow
@needs_lava
def test_and_on_lavas_simulator() -> None:
    attacked_alike(LavaBackend(), 2, 2)
