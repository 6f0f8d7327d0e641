"""Loading data sets from files that a test made, and the one line that refuses them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hardspike.snn.data import DataSettings, Splits, load_dataset
from hardspike.snn.errors import HardspikeError

Bytes = NDArray[np.uint8]


def random_pixels(seed: int, *shape: int) -> Bytes:
    return np.random.RandomState(seed).randint(0, 256, shape).astype(np.uint8)


def load_from(dataset: str, root: Path, **changes: Any) -> Splits:
    return load_dataset(DataSettings(dataset=dataset, root=str(root), **changes))


def assert_refused(error: type[HardspikeError], message: str, dataset: str, root: Path, **changes: Any) -> None:
    with pytest.raises(error, match=message) as caught:
        load_from(dataset, root, **changes)
    assert "\n" not in str(caught.value)
