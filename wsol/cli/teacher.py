"""What a model takes over from the model it starts from (`from`): its weights, and maps to learn pixels from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from wsol.models import Localizer


def inherit(net: Localizer, parent: Localizer, path: str) -> None:
    """Start from the parent's weights: the backbone must fit, the head is taken over where it fits.

    A head around another one (`head.base`) takes the parent's as that one; of two such heads, what fits of the whole.

    Raises:
        ValueError: another backbone.
    """
    try:
        net.backbone.load_state_dict(parent.backbone.state_dict())
    except RuntimeError as error:
        raise ValueError(f"{path}: this checkpoint has another backbone; `from` needs the same one ({error})") from error
    head: Any = net.head
    given: Any = parent.head
    if not (hasattr(head, "base") and hasattr(given, "base")):
        head, given = getattr(head, "base", head), getattr(given, "base", given)
    ours = head.state_dict()
    theirs = {k: v for k, v in given.state_dict().items() if k in ours and ours[k].shape == v.shape}
    head.load_state_dict({**ours, **theirs})


def seed_maps(
    teachers: Sequence[Localizer], method: str, device: torch.device
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """(images (b, 3, H, W), labels (b,)) -> raw maps of those classes, (b, h, w), on the images' device.

    Those of one teacher as they are; of several the logit of the mean of their sigmoids, at the size of the first's.

    Raises:
        ValueError: there is no teacher.
    """
    if not teachers:
        raise ValueError("this strategy learns from the maps of a trained model: name it in `from`")
    for teacher in teachers:
        teacher.eval().requires_grad_(False).to(device)

    def draw(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        from wsol.cams import cam

        maps = [cam(method, teacher, images.float(), labels) for teacher in teachers]
        return maps[0] if len(maps) == 1 else _mean(maps)

    return draw


def _mean(maps: Sequence[torch.Tensor]) -> torch.Tensor:
    """The logit of the mean probability of maps (b, h, w), each resized (bilinear) to the first."""
    import torch
    from torch.nn.functional import interpolate

    size = maps[0].shape[-2:]
    each = [interpolate(m[:, None].float(), size=size, mode="bilinear", align_corners=False)[:, 0].sigmoid() for m in maps]
    return torch.stack(each).mean(0).logit(eps=1e-6)
