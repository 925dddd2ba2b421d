"""`stored:WIDTH`: no backbone, for features that another encoder made before."""

from __future__ import annotations

from torch import Tensor

from wsol.models.backbones.base import Backbone


class Stored(Backbone):
    """Features of tiles that are read from files, WIDTH numbers each (`stored:1024`): a head learns from them, nothing else does.

    They come in where images would, (b, WIDTH, 1, 1), and are the one stage there is. To train bags of stored features is CLAM's
    way; the heads are those of this project.
    """

    paper = "Lu et al., Data-efficient and weakly supervised computational pathology on whole-slide images, Nature BME 2021"

    def __init__(self, name: str, output_stride: int = 32, freeze_bn: bool = True) -> None:
        """Args:
        name: numbers per tile.
        output_stride: of no effect: a tile is one cell.
        freeze_bn: of no effect.
        """
        super().__init__(output_stride, freeze_bn)
        if not name.isdecimal() or not int(name):
            raise ValueError(f"stored:WIDTH names the numbers per tile, as in stored:1024; got stored:{name}")
        self.inputs = int(name)
        self.channels, self.strides = (int(name),), (output_stride,)

    def normalize(self, images: Tensor) -> Tensor:
        """As they are."""
        return images

    def stage(self, number: int, x: Tensor) -> Tensor:
        """As they are."""
        return x

    def load_imagenet(self) -> None:
        """There are no weights."""
