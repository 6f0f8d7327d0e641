"""scikit-learn's handwritten digits: 1797 images of 8x8 in 17 grey levels, which come with the package."""

from pathlib import Path

import numpy as np

from hardspike.snn.data_source import Labelled, Source


def load_digits_images(root: Path, image_size: int) -> Source:
    """Stratified 1077 / 360 / 360, always the same; float32, as 16 is the largest level. `root` is not looked at."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    source = load_digits()
    labels = np.asarray(source.target, dtype=np.int64)
    rest, test = train_test_split(np.arange(len(labels)), test_size=360, stratify=labels, random_state=0)
    train, validation = train_test_split(rest, test_size=360, stratify=labels[rest], random_state=0)
    whole = Labelled(np.asarray(source.images, dtype=np.float32)[:, None] / np.float32(16), labels)
    return Source(whole.rows(train), whole.rows(validation), whole.rows(test), 10, mean=(0.305,), std=(0.376,))
