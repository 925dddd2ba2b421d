"""What one encode, one call of the head and at most one backward say about a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from wsol.models import Features, Localizer, Prediction


class Sight(NamedTuple):
    """Everything is detached; stages are counted from the end (-1 = last)."""

    features: Features
    prediction: Prediction
    targets: Tensor
    slopes: dict[int, Tensor]


def look(
    net: Localizer, images: Tensor | None, features: Features | None, targets: Tensor | None, stages: Sequence[int]
) -> Sight:
    """Encode the images (or take the given features), run the head, and take d logit_target / d stage for each of `stages`.

    Stages are counted from the front. Everything above the finest of them runs in float32, whatever autocast says. Works inside
    the caller's `no_grad` and `inference_mode`.

    Raises:
        ValueError: NaN or infinity in a logit, targets of the wrong shape or range, a stage below the given features.
        TypeError: targets that are no integers.
    """
    with torch.inference_mode(False), torch.enable_grad():
        depth = len(net.backbone.channels)
        finest = min(stages, default=depth - 1)
        features = _graph(net, images, features, finest, bool(stages))
        with torch.autocast(features.last.device.type, enabled=False):
            prediction: Prediction = net.head(features)
            logits = prediction.logits
            _check_finite(logits)
            chosen = _checked(targets, logits)
            slopes = {}
            if stages:
                # images do not mix in evaluation mode: the gradient of the sum gives each image its own
                score = logits.gather(1, chosen[:, None]).sum()
                taken = torch.autograd.grad(score, [features.stages[i - depth] for i in stages])
                slopes = {i - depth: slope for i, slope in zip(stages, taken, strict=True)}
        seen = Features(tuple(stage.detach() for stage in features.stages), _detached(features.extra))
        said = Prediction(
            logits.detach().float(), _detached(prediction.maps), _detached(prediction.pixels), _detached(prediction.extra)
        )
        return Sight(seen, said, chosen, slopes)


def _graph(net: Localizer, images: Tensor | None, features: Features | None, finest: int, wanted: bool) -> Features:
    """The features with a float32 graph from stage `finest` upward; if that is the last, it starts in the head."""
    last = len(net.backbone.channels) - 1
    if features is None:
        assert images is not None
        features = _encoded(net, images, finest)
    elif finest < last:
        features = _resumed(net, features, finest)
    if finest == last:
        leaf = plain(features.last).requires_grad_(wanted)
        features = Features((*features.stages[:-1], leaf), features.extra)
    return features


def _encoded(net: Localizer, images: Tensor, finest: int) -> Features:
    if finest == len(net.backbone.channels) - 1:
        with torch.no_grad():
            return net.encode(images)
    with torch.autocast(images.device.type, enabled=False):
        return net.encode(images, leaf=finest)


def _resumed(net: Localizer, features: Features, finest: int) -> Features:
    above = len(net.backbone.channels) - finest - 1
    leaf = plain(features.stages[-above - 1]).requires_grad_(True)
    with torch.autocast(leaf.device.type, enabled=False):
        resumed = net.encode(leaf, start=finest + 1)  # its extra hangs on the leaf: a class token's slope runs through it
    return Features((*features.stages[: -above - 1], leaf, *resumed.stages), {**features.extra, **resumed.extra})


def plain(x: Tensor) -> Tensor:
    """A detached tensor of at least float32. A clone where it was made under inference mode, which no graph may hold."""
    x = x.detach()
    if x.dtype in (torch.float16, torch.bfloat16):
        return x.float()
    return x.clone() if x.is_inference() else x


def _detached(x: Any) -> Any:
    """A tensor, or a dict of them, without its graph; anything else as it is."""
    if isinstance(x, dict):
        return {key: _detached(value) for key, value in x.items()}
    return x.detach() if isinstance(x, Tensor) else x


def _check_finite(logits: Tensor) -> None:
    broken = (~torch.isfinite(logits.detach()).all(1)).nonzero().flatten().tolist()
    if broken:
        raise ValueError(
            f"the net gave NaN or infinity for images {broken} of the batch; "
            "check these images and the weights of the net for NaN"
        )


def _checked(targets: Tensor | None, logits: Tensor) -> Tensor:
    """The targets as int64 on the net's device; the predicted classes for None."""
    count, classes = logits.shape
    if targets is None:
        return logits.detach().argmax(1)
    if not isinstance(targets, Tensor):
        raise TypeError(f"targets must be an int64 tensor, one class per image; got {targets!r}: use torch.tensor([...])")
    if targets.is_floating_point() or targets.dtype == torch.bool:
        raise TypeError(f"targets must be int64 class indices; got {targets.dtype}")
    if targets.shape != (count,):
        raise ValueError(f"targets must be ({count},), one class per image; got {tuple(targets.shape)}")
    if count and not 0 <= int(targets.min()) <= int(targets.max()) < classes:
        raise ValueError(f"targets must be classes in 0..{classes - 1}; got {int(targets.min())}..{int(targets.max())}")
    return targets.detach().to(logits.device, torch.int64)
