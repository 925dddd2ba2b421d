"""Stored features are those of the tiles, in bags drawn like bags of pixels; nothing stale is ever taken."""

from __future__ import annotations

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from wsol.data import BagBatches, EncodedBags, EncodedBatch, store_embeddings, train_transform


@pytest.fixture
def bags(picture, rows):
    """Builds loaders of three plain-image slides of twelve 8 px tiles of noise."""
    paths, tables = [], {}
    for i in range(3):
        paths.append(picture(f"slide{i}.png", shape=(24, 32)))
        y, x = (v.ravel() * 8 for v in np.mgrid[:3, :4])
        tables[f"s{i}"] = pd.DataFrame({"x": x, "y": y, "width": 8, "height": 8, "tissue": 1.0})
        tables[f"s{i}"].attrs = {"mpp": 0.5, "tile_px": 8}

    def build(**options):
        return BagBatches(rows(paths), tables, **{"bags": 2, "tiles_per_bag": 5, **options})

    return build


class Encoder:
    """Halves of the image side by side as cells, two channels: the color sum and its square; counts what it sees."""

    def __init__(self):
        self.seen = []

    def __call__(self, images):
        self.seen.append(len(images))
        cells = torch.stack([images[..., :4].sum((1, 2, 3)), images[..., 4:].sum((1, 2, 3))], 1)
        return torch.stack([cells, cells**2], 1)[:, :, None]


def stored(bags, folder, encode=None, encoder="a", content=str, **options):
    encode = encode or Encoder()
    return {
        bags.rows["sample"][i]: store_embeddings(bags, i, encode, folder, encoder=encoder, content=content, **options)
        for i in range(len(bags.rows))
    }


@pytest.mark.parametrize("balanced", [False, True])
def test_the_same_draws_as_from_pixels(bags, tmp_path, balanced):
    loader = bags(repeats=2, balanced=balanced)
    encoded = EncodedBags(bags(repeats=2, balanced=balanced, transform=train_transform(None)), stored(loader, tmp_path))
    for seed in (0, 1, None):
        one, two = (None if seed is None else torch.Generator().manual_seed(seed) for _ in range(2))
        pairs = list(zip(loader.epoch(one), encoded.epoch(two), strict=True))
        assert len(pairs) == len(encoded) == len(loader)
        for pixels, features in pairs:
            assert isinstance(features, EncodedBatch)
            assert features.samples == pixels.samples
            assert torch.equal(features.labels, pixels.labels)
            assert torch.equal(features.groups, pixels.groups)
            assert torch.allclose(features.images, Encoder()(pixels.images), rtol=1e-6)


def test_shares_of_several_processes_and_files_are_closed(bags, tmp_path):
    encoded = EncodedBags(bags(bags=3), stored(bags(), tmp_path))
    (whole,), (first,), (second,) = (list(encoded.epoch(None, share)) for share in ((0, 1), (0, 2), (1, 2)))
    assert sorted(first.samples + second.samples) == sorted(whole.samples)
    for path in tmp_path.glob("*.h5"):
        with h5py.File(path, "r+"):  # refused while somebody reads
            pass


def test_tiles_are_encoded_once_a_few_at_a_time(bags, tmp_path):
    encode = Encoder()
    files = stored(bags(), tmp_path, encode, batch=5)
    assert encode.seen == [5, 5, 2] * 3
    assert stored(bags(tiles_per_bag=3, repeats=2), tmp_path, encode, batch=5) == files
    assert encode.seen == [5, 5, 2] * 3
    files["s1"].unlink()
    assert stored(bags(), tmp_path, encode) == files  # a killed run goes on
    assert encode.seen == [5, 5, 2] * 3 + [12]


@pytest.mark.parametrize("what", ["encoder", "content", "resolution", "boxes"])
def test_whatever_the_features_depend_on_makes_other_files(bags, tmp_path, what):
    files, other = stored(bags(), tmp_path), bags(**({"mpp": 1.0} if what == "resolution" else {}))
    if what == "boxes":
        other.boxes = {sample: boxes[::-1] for sample, boxes in other.boxes.items()}  # the order of the table counts
    named = {"encoder": "b"} if what == "encoder" else {"content": lambda path: path + "!"} if what == "content" else {}
    again = stored(other, tmp_path, **named)
    assert not set(files.values()) & set(again.values())


def test_an_encoder_that_dies_leaves_nothing(bags, tmp_path):
    def dies(images):
        if len(images) < 5:
            raise RuntimeError("out of memory")
        return Encoder()(images)

    with pytest.raises(RuntimeError, match="out of memory"):
        stored(bags(), tmp_path, dies, batch=5)
    assert list(tmp_path.glob("*.h5")) == list(tmp_path.glob(".*")) == []


def test_features_are_checked():
    with pytest.raises(ValueError, match=r"float \(b, c, h, w\)"):
        EncodedBatch(torch.zeros(2, 5), torch.tensor([0, 1]), ["a", "b"])
    with pytest.raises(ValueError, match="2 images, 1 labels"):
        EncodedBatch(torch.zeros(2, 5, 1, 1), torch.tensor([0]), ["a"])
    assert len(EncodedBatch(torch.zeros(2, 5, 1, 1), torch.tensor([0, 1]), ["a", "b"])) == 2
