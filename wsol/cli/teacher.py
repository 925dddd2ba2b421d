"""What a model takes over from the model it starts from (`from`): its weights, and maps to learn pixels from."""

from __future__ import annotations

from collections.abc import Callable
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
    teacher: Localizer | None, method: str, device: torch.device
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """(images (b, 3, H, W), labels (b,)) -> the teacher's raw maps of those classes, (b, h, w), on the images' device.

    Raises:
        ValueError: there is no teacher.
    """
    if teacher is None:
        raise ValueError("this strategy learns from the maps of a trained model: name it in `from`")
    teacher.eval().requires_grad_(False).to(device)

    def draw(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        from wsol.cams import cam

        return cam(method, teacher, images.float(), labels)

    return draw
