"""A localizer whose backbone has run before: what trains a head on stored features."""

from __future__ import annotations

from torch import Tensor

from wsol.models.backbones.base import Backbone
from wsol.models.localizer import Features, Localizer


class Encoded(Localizer):
    """The head of `net` on features of its last stage, (b, c, h, w), that come in where images would.

    The head is the net's own, not a copy: what it learns here the net has learned, and the net is what to save and to draw maps
    with. The features may be means over cells, (b, c, 1, 1), for heads that read nothing else (`affine`). `Features.extra` of
    the backbone is not there.
    """

    def __init__(self, net: Localizer) -> None:
        super().__init__(_Done(net.backbone.channels[-1], net.output_stride), net.head)

    def encode(self, images: Tensor, *, leaf: int | None = None, start: int = 0) -> Features:
        """The features that came in, as the one stage there is.

        Raises:
            ValueError: they are not those of this net's last stage, or another stage is asked for.
        """
        channels = self.backbone.channels[0]
        if images.ndim != 4 or images.shape[1] != channels or start or leaf not in (None, 0, -1):
            raise ValueError(
                f"features (b, {channels}, h, w) of the last stage expected, which is all there is; got {tuple(images.shape)}, "
                f"start {start}, leaf {leaf}"
            )
        return Features((images if leaf is None else images.detach().requires_grad_(True),))


class _Done(Backbone):
    """Nothing left to run."""

    paper = ""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.channels, self.strides = (channels,), (stride,)

    def normalize(self, images: Tensor) -> Tensor:
        return images

    def stage(self, number: int, x: Tensor) -> Tensor:
        return x
