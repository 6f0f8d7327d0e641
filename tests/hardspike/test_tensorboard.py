"""Training curves for TensorBoard, which is optional."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from hardspike.snn.errors import SettingsError
from hardspike.tensorboard import Board


@pytest.mark.skipif(find_spec("tensorboard") is not None, reason="TensorBoard is installed")
def test_without_tensorboard_it_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="the package tensorboard is not installed; pip install tensorboard"):
        Board(tmp_path)


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="TensorBoard is not installed")
def test_every_number_is_written_at_its_epoch(tmp_path: Path) -> None:
    Board(tmp_path).write({"epoch": 3, "epochs": 5, "loss": 0.25, "score": 0.5})
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for tag in ("loss", "score") for e in events.Scalars(tag)] == [(3, 0.25), (3, 0.5)]
