from __future__ import annotations

import dataclasses

import pytest
import torch

from wsol.data import Batch, MaskedBatch

IMAGES, LABELS = torch.zeros(3, 3, 4, 5), torch.tensor([0, 1, 1])


def test_images_and_bags():
    assert len(Batch(IMAGES, LABELS, ["a", "b", "c"])) == 3
    assert len(Batch(IMAGES, LABELS[:2], ["a", "b"], torch.tensor([1, 0, 1]))) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": IMAGES[0]}, r"float \(b, 3, H, W\) expected"),
        ({"images": IMAGES[:, :2]}, r"float \(b, 3, H, W\) expected"),
        ({"images": IMAGES.to(torch.uint8)}, "got torch.uint8"),
        ({"labels": LABELS.float()}, "labels: int64"),
        ({"labels": LABELS[:2]}, "3 names, 2 labels"),
        ({"labels": LABELS[:2], "samples": ["a", "b"]}, "3 images, 2 labels; bags need `groups`"),
        ({"groups": torch.tensor([0, 1])}, r"groups: int64 \(3,\)"),
        ({"groups": torch.tensor([0, 1, 1])}, "every bag 0 to 2 needs at least one image"),
        ({"groups": torch.tensor([0, 1, 3])}, "every bag"),
    ],
)
def test_shapes_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        Batch(**{"images": IMAGES, "labels": LABELS, "samples": ["a", "b", "c"], **change})


def test_a_batch_with_masks_is_another_type():
    batch = MaskedBatch(IMAGES, LABELS, ["a", "b", "c"], masks=torch.zeros(3, 4, 5, dtype=torch.bool))
    assert isinstance(batch, Batch)
    assert not hasattr(Batch(IMAGES, LABELS, ["a", "b", "c"]), "masks")
    with pytest.raises(ValueError, match=r"masks: bool \(3, 4, 5\)"):
        dataclasses.replace(batch, masks=torch.zeros(3, 5, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="masks: bool"):
        dataclasses.replace(batch, masks=torch.zeros(3, 4, 5))


def test_to_moves_everything_and_nothing_can_be_set():
    batch = MaskedBatch(
        IMAGES, LABELS[:1], ["a"], torch.zeros(3, dtype=torch.int64), masks=torch.zeros(3, 4, 5, dtype=torch.bool)
    )
    moved = batch.to("meta")
    assert type(moved) is MaskedBatch
    assert {t.device.type for t in (moved.images, moved.labels, moved.groups, moved.masks)} == {"meta"}
    assert moved.samples == ["a"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        batch.labels = LABELS
