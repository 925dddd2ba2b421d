from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from wsol.data.manifest import Dataset, masks_table, samples_table


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


@pytest.fixture
def picture(tmp_path):
    """Writes a random RGB image, or a given array, below the temporary folder; returns its path."""

    def write(name, array=None, shape=(20, 30)):
        if array is None:
            array = np.random.default_rng(sum(name.encode())).integers(0, 256, (*shape, 3), np.uint8)
        return save(tmp_path / name, array)

    return write


@pytest.fixture
def dataset():
    """A small consistent dataset: two patients train, one validates (one sample valpx), one tests."""

    def build(**changes):
        rows = []
        for i, (patient, role) in enumerate(
            [("a", "train"), ("a", "train"), ("b", "valcl"), ("b", "valcl"), ("c", "test"), ("c", "test")]
        ):
            rows.append(
                {
                    "sample": f"s{i}",
                    "slide": f"s{i}",
                    "patient": patient,
                    "path": f"s{i}.png",
                    "mpp": 0.5,
                    "label": i % 2,
                    "fold": 0,
                    "role": role,
                }
            )
        rows.append({**rows[3], "role": "valpx"})
        masks = [
            {"sample": "s3", "mask": "s3_mask.png", "kind": "file", "values": [2, 5]},
            {"sample": "s4", "mask": "", "kind": "empty", "values": []},
        ]
        facts = {
            "name": "toy",
            "kind": "images",
            "task": "binary",
            "classes": ["normal", "tumor"],
            "positive": ["tumor"],
            "mask_means": "class",
            "split_unit": "patient",
            "samples": samples_table(rows),
            "masks": masks_table(masks),
            "source": "here",
            "note": "a note",
        }
        return Dataset(**{**facts, **changes})

    return build


@pytest.fixture
def rows():
    """Manifest rows of image files: label i % 2 unless given."""

    def build(paths, labels=None):
        labels = [i % 2 for i in range(len(paths))] if labels is None else labels
        return pd.DataFrame(
            {"sample": [f"s{i}" for i in range(len(paths))], "path": [str(p) for p in paths], "label": labels, "mpp": 0.5}
        )

    return build
