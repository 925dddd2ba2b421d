"""Images with their masks: each mask stays on its image, and nobody gets one without asking."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from wsol.data import Batch, ImageBatches, MaskedBatch, train_transform
from wsol.data.manifest import masks_table
from wsol.data.masks import Masks


@pytest.fixture
def labeled(picture, rows, tmp_path):
    """Five images of noise with a dark box each, the mask of the box, and an image known to be empty; two sizes."""
    generator = np.random.default_rng(0)
    paths, table = [], []
    for i in range(6):
        pixels = generator.integers(100, 256, (40, 40 + 8 * (i % 2), 3), dtype=np.uint8)
        mask = np.zeros(pixels.shape[:2], bool)
        mask[3 * i : 20, 5 : 12 + i] = i < 5
        pixels[mask] = i
        paths.append(picture(f"i{i}.png", pixels))
        Image.fromarray(mask.astype(np.uint8) * 3).save(tmp_path / f"m{i}.png")
        kind = {"mask": str(tmp_path / f"m{i}.png"), "kind": "file"} if i < 5 else {"mask": "", "kind": "empty"}
        table.append({"sample": f"s{i}", "values": [], **kind})
    made = rows(paths)  # samples s0, s1, ...
    return made, Masks(tmp_path / "masks.parquet", masks_table(table))


def dark(images):
    return (images * 255).round().amax(1) < 50


@pytest.mark.parametrize("transform", [None, train_transform(24, stain_jitter=0, color=0)])
def test_every_mask_is_that_of_its_image(labeled, transform):
    rows, masks = labeled
    loader = ImageBatches(rows, batch_size=4, transform=transform, masks=masks, generator=torch.Generator().manual_seed(0))
    for _ in range(3):  # from the files, then from the cache
        batches = list(loader)
        assert sorted(s for b in batches for s in b.samples) == sorted(rows["sample"])
        for batch in batches:
            assert type(batch) is MaskedBatch
            assert torch.equal(batch.masks, dark(batch.images))
    assert any(batch.masks.any() for batch in batches)
    assert masks.opened == set(rows["sample"])


def test_the_same_draw_gives_the_same_images_without_masks(labeled):
    rows, masks = labeled
    loaders = [ImageBatches(rows, batch_size=6, transform=train_transform(24), masks=m) for m in (None, masks)]
    plain, masked = (next(iter(loader.epoch(torch.Generator().manual_seed(1)))) for loader in loaders)
    assert torch.equal(plain.images, masked.images)
    assert type(plain) is Batch
    assert not hasattr(plain, "masks")


def test_masks_are_resized_without_new_values(labeled):
    rows, masks = labeled
    for batch in ImageBatches(rows, batch_size=6, size=20, masks=masks):
        inside = dark(batch.images)
        assert (batch.masks & inside).sum() > 0.8 * batch.masks.sum()  # the border is a matter of rounding


def test_what_would_part_them_is_refused(labeled):
    rows, masks = labeled
    with pytest.raises(TypeError, match="would leave its mask behind"):
        ImageBatches(rows, batch_size=2, transform=lambda image, rng: image, masks=masks)
    fewer = Masks(masks.path, masks.table.iloc[1:])
    with pytest.raises(ValueError, match=f"1 of 6 samples have no mask, the first is '{rows['sample'][0]}'"):
        ImageBatches(rows, batch_size=2, masks=fewer)
