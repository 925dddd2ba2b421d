"""What is measured after every epoch, for the checkpoints that are kept: by labels, on a few masks, on maps without either."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsol.cli.validation_masks import Opened, mask_scores, open_masks, own_map, spread

if TYPE_CHECKING:
    import torch

    from wsol.cli.supervision import Supervision
    from wsol.data import BagBatches, ImageBatches, Manifest
    from wsol.models import Localizer
    from wsol.training import Criterion

IMAGES = 16
"""Images (slides: tiles) that label-free criteria look at, spread over the validation split."""
SIDE = 416
"""Longest side in px at which they do: the upper left part of larger images."""
GAINS = ((1.3, 0.8, 1.0), (0.8, 1.3, 1.0))
"""Gains of hematoxylin, eosin and the rest of the stains that `stain_stability` tries."""


@dataclass(frozen=True)
class Validation:
    """Metrics of a net by name; the same samples and tiles after every epoch, so that the curve shows the net, not the draw.

    Attributes:
        batches: of the validation samples.
        criteria: of the checkpoints that are kept, by name; only what they ask for is measured beside the labels.
        map_class: whose map is drawn: `positive`, `predicted` or `truth` (which label-free criteria do not know: predicted).
        positive: index of the declared positive class.
        opened: validation samples with masks.
    """

    batches: ImageBatches | BagBatches
    criteria: Mapping[str, Criterion]
    map_class: str = "positive"
    positive: int = 1
    opened: Sequence[Opened] = field(default=(), repr=False)

    def record(self) -> dict[str, Any]:
        """What chooses each checkpoint, and what was looked at: the samples whose mask files were opened, and whose map."""
        files = [one.sample for one in self.opened if one.file]
        return {
            "checkpoints": {name: c.source for name, c in self.criteria.items()},
            "selection": {"map_class": self.map_class, "masks": files},
        }

    def __call__(self, net: Localizer) -> dict[str, float]:
        """Accuracy and loss on the labels, and whatever else the criteria need.

        Raises:
            ValueError: there are no validation samples.
        """
        wanted = {name: LABEL_FREE[name] for c in self.criteria.values() if (name := c.metric or "") in LABEL_FREE}
        found, images = self._labels(net, look=bool(wanted))
        counts = sorted({c.masks for c in self.criteria.values() if c.masks})
        if counts:
            scores = mask_scores(net, self.opened, self.map_class, self.positive, counts)
            found |= {f"valpx{n}_pxap": scores[n] for n in counts}
        look = Look(net, self.positive if self.map_class == "positive" else None, images)
        return found | {name: measure(look) for name, measure in wanted.items()}

    def _labels(self, net: Localizer, look: bool) -> tuple[dict[str, float], list[torch.Tensor]]:
        """Accuracy and loss of images or bags; with `look` some of their images."""
        import torch
        from torch.nn import functional

        device = next(net.parameters()).device
        right = loss = 0.0
        count = 0
        images: list[torch.Tensor] = []
        seen = set(spread(range(len(self.batches)), IMAGES)) if look else set()
        for number, batch in enumerate(self.batches):
            here = batch.to(device)
            with torch.no_grad():
                logits = net(here.images, groups=here.groups).logits.float()
            if here.labels.ndim == 2:
                each = functional.binary_cross_entropy_with_logits(logits, here.labels, reduction="none")
                loss += float(each.mean(1).sum())
                right += float(((logits > 0) == (here.labels > 0)).float().mean(1).sum())
            else:
                loss += float(functional.cross_entropy(logits, here.labels, reduction="sum"))
                right += int((logits.argmax(1) == here.labels).sum())
            count += len(here.labels)
            if number in seen:
                images.append(_part(here.images, max(1, IMAGES // len(seen))))
        if not count:
            raise ValueError(
                "the validation split (role valcl) has no samples but those trained on: give the sample sheet more of split val "
                "than train_on takes (valpx lies within valcl), or train on role train"
            )
        return {"valcl_accuracy": right / count, "valcl_loss": loss / count}, images


def _part(images: torch.Tensor, count: int) -> torch.Tensor:
    """`count` of the images, cut to whole map cells: else the cells of a flipped image lie elsewhere."""
    height, width = (max(1, min(side, SIDE) // 32) * 32 for side in images.shape[-2:])
    return images[spread(range(len(images)), count), :, :height, :width]


@dataclass(frozen=True)
class Look:
    """What label-free criteria see: maps and features of a net, and images. `target` None draws the predicted class."""

    net: Localizer
    target: int | None
    images: list[torch.Tensor]

    def maps(self, images: torch.Tensor) -> torch.Tensor:
        """The net's own maps."""
        import torch

        from wsol.cams import cam

        targets = None if self.target is None else torch.full((len(images),), self.target, device=images.device)
        return cam(own_map(self.net), self.net, images, targets)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """The last stage."""
        import torch

        with torch.no_grad():
            return self.net.encode(images).last


def _stain_stability(look: Look) -> float:
    from wsol.slides import stain_matrix
    from wsol.training import stain_stability

    return stain_stability(look.maps, look.images, [stain_matrix(gains) for gains in GAINS])


def _seed_agreement(look: Look) -> float:
    from wsol.training import seed_agreement

    return seed_agreement(look.maps, look.features, look.images)


def _of_maps(name: str) -> Callable[[Look], float]:
    def measure(look: Look) -> float:
        from wsol import training

        score: Any = getattr(training, name)
        return float(score(look.maps, look.images))

    return measure


LABEL_FREE: dict[str, Callable[[Look], float]] = {
    **{name: _of_maps(name) for name in ("map_stability", "rotation_stability", "scale_consistency")},
    "stain_stability": _stain_stability,
    "seed_agreement": _seed_agreement,
}
"""Metric -> how it is measured, for all criteria whose source is label-free."""


def validation(
    listing: Manifest,
    fold: int,
    told: Supervision,
    batches: ImageBatches | BagBatches,
    criteria: Mapping[str, Criterion],
    *,
    map_class: str,
    masks: Path | None,
    tiles: Path | None,
    per_slide: int,
    side: int | None = None,
) -> Validation:
    """The validation of one training; masks are opened here, and only where a criterion asks for them.

    Images with masks are resized to (`side`, `side`) as those of `batches` are; None keeps sizes.

    Raises:
        ValueError: a criterion needs masks and there is no table of them, or too few.
    """
    from wsol.data import read_masks

    count = max((c.masks for c in criteria.values()), default=0)
    opened: list[Opened] = []
    if count and masks is None:
        raise ValueError(f"checkpoint masks-{count} is chosen on masks: --masks is needed, the table that `wsol prepare` wrote")
    if count and masks is not None:
        rows = listing.rows(fold, "valpx")
        rows = rows[~rows["sample"].isin(told.rows["sample"])].reset_index(drop=True)
        opened = open_masks(listing, rows, read_masks(masks), count, tiles, per_slide, side)
    return Validation(batches, criteria, map_class, listing.positive_index(), opened)
