"""What training sees: a batch of images with labels. A batch with masks is another type: supervision shows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch


@dataclass(frozen=True, eq=False)
class Batch:
    """Images with labels, or tiles of bags with one label per bag.

    Attributes:
        images: float (b, 3, H, W), RGB in [0, 1].
        labels: int64 (b,), one per image; with `groups` (n,), one per bag. Where a sample may have several: float32 (b, k) or
            (n, k), 1 for the classes that it has, else 0.
        samples: names, one per label.
        groups: int64 (b,), the bag of each image, 0 to n - 1; None: every image stands for itself.
    """

    images: torch.Tensor
    labels: torch.Tensor
    samples: list[str]
    groups: torch.Tensor | None = None

    def __post_init__(self) -> None:
        self._check_images()
        if (self.labels.ndim, self.labels.dtype) not in ((1, torch.int64), (2, torch.float32)):
            raise ValueError(
                f"labels: int64 (n,), or float32 (n, k) for several each, expected, got {self.labels.dtype} "
                f"{tuple(self.labels.shape)}"
            )
        if len(self.samples) != len(self.labels):
            raise ValueError(f"one sample name per label expected: {len(self.samples)} names, {len(self.labels)} labels")
        if self.groups is None:
            if len(self.labels) != len(self.images):
                raise ValueError(
                    f"one label per image expected: {len(self.images)} images, {len(self.labels)} labels; bags need `groups`"
                )
            return
        if self.groups.shape != (len(self.images),) or self.groups.dtype != torch.int64:
            raise ValueError(f"groups: int64 ({len(self.images)},) expected, got {self.groups.dtype} {tuple(self.groups.shape)}")
        if self.groups.is_cpu and self.groups.unique().tolist() != list(range(len(self.labels))):
            raise ValueError(
                f"groups: every bag 0 to {len(self.labels) - 1} needs at least one image; got bags "
                f"{self.groups.unique().tolist()}"
            )

    def _check_images(self) -> None:
        if self.images.ndim != 4 or self.images.shape[1] != 3 or not self.images.is_floating_point():
            raise ValueError(
                f"images: float (b, 3, H, W) expected, got {self.images.dtype} {tuple(self.images.shape)}; see "
                f"wsol.data.to_tensor"
            )

    def __len__(self) -> int:
        """The number of labels: images, or bags."""
        return len(self.labels)

    @classmethod
    def empty(cls) -> Batch:
        """No image: the share of a process for which a small batch has nothing left."""
        return Batch(torch.zeros(0, 3, 1, 1), torch.zeros(0, dtype=torch.int64), [])

    def to(self, device: str | torch.device, **options: Any) -> Batch:
        """The same batch with its tensors on `device`; `options` go to `torch.Tensor.to` (e.g. non_blocking=True)."""
        tensors = {k: v.to(device, **options) for k, v in vars(self).items() if isinstance(v, torch.Tensor)}
        return replace(self, **tensors)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class MaskedBatch(Batch):
    """A batch whose pixels are labeled too: supervision by masks.

    Attributes:
        masks: bool (b, H, W).
    """

    masks: torch.Tensor = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        expected = (len(self.images), *self.images.shape[2:])
        if self.masks.shape != expected or self.masks.dtype != torch.bool:
            raise ValueError(f"masks: bool {expected} expected, got {self.masks.dtype} {tuple(self.masks.shape)}")


@dataclass(frozen=True, eq=False)
class EncodedBatch(Batch):
    """A batch that a backbone has seen before: `images` are float features (b, c, h, w) of its last stage."""

    def _check_images(self) -> None:
        if self.images.ndim != 4 or not self.images.is_floating_point():
            raise ValueError(f"features: float (b, c, h, w) expected, got {self.images.dtype} {tuple(self.images.shape)}")
