"""Training curves for TensorBoard, an optional package."""

from pathlib import Path
from typing import Any

from hardspike.snn.errors import SettingsError


class Board:
    """One stage's curves. Raises SettingsError where TensorBoard is not installed."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError:
            raise SettingsError(
                "tensorboard = true: the package tensorboard is not installed; pip install tensorboard, or leave it out"
            ) from None
        self._writer: Any = SummaryWriter(str(folder))

    def write(self, metrics: dict[str, Any]) -> None:
        """Every number of one epoch, at that epoch."""
        for name, value in metrics.items():
            if name not in ("epoch", "epochs"):
                self._writer.add_scalar(name, value, metrics["epoch"])
        self._writer.flush()
